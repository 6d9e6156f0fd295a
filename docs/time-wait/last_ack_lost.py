"""Why the active closer waits, (1): the last ACK is lost. With TIME_WAIT, and without."""

import sys
from pathlib import Path

from fasttcp import profile
from fasttcp.endpoint.lab import Lab
from fasttcp.endpoint.ladder import ladder_svg


def close_with_the_last_ack_lost(title, **policy):
    lab = Lab(client=profile("linux").replace(**policy))
    lab.connect()
    lab.run()
    lab.client.close()
    lab.run()
    lab.lines.clear()
    lab.server.close()
    lab.wire.lose("A", sender=lab.client)
    lab.run(seconds=2)
    print(title + "\n")
    print(lab.ladder())
    last = lab.server.story[-1]
    print(f"the server's connection ended by {last.event.name}: {last.why} [{last.source}]\n")
    return lab


lab = close_with_the_last_ack_lost("with TIME_WAIT")
svg = ladder_svg(lab.lines, "The last ACK is lost, with TIME_WAIT")
close_with_the_last_ack_lost("without TIME_WAIT (tcp_max_tw_buckets = 0)", tcp_max_tw_buckets=0)
if len(sys.argv) > 1:  # where the picture is to go
    Path(sys.argv[1]).write_text(svg, encoding="utf-8")
