"""Why the active closer waits, (2): an old duplicate reaches a new connection on the same 4-tuple. With TIME_WAIT, and without.

A transfer faster than the clock of initial sequence numbers (250 kB/s, RFC 9293 section 3.4.1), no timestamps: so the new
connection's numbers lie where the old one's data were. Every fast transfer of today is such a one. The check of
ACKs of RFC 5961 is off: it would find this duplicate, because what it acknowledges is older than all that the new connection
has sent.
"""

import sys
from pathlib import Path

from fasttcp import profile
from fasttcp.endpoint.lab import Lab
from fasttcp.endpoint.ladder import ladder_svg

HOST = profile("rfc9293").replace(
    tcp_timestamps=0, rcv_wnd=1 << 20, rcv_wscale=7, advmss_v4=65000, mss_default_v4=65000,
    rto_min="5s", rto_initial="5s",
    rfc5961=False,
)


def two_connections(title, **policy):
    lab = Lab(client=HOST.replace(**policy), server=HOST, delay_ms=5)
    lab.connect()
    lab.run()
    old = b"old-" * 16000  # 64,000 bytes a segment
    lab.client.send(old)
    lab.client.send(old)
    lab.client.send(old)
    lab.run()
    lab.wire.duplicate("PA", sender=lab.client)  # the fourth is delivered, and a copy of it is stuck on its way
    lab.client.send(old)
    lab.run()
    lab.client.close()
    lab.run()
    lab.server.close()
    lab.run()
    lab.run(seconds=0.4)
    lab.lines.clear()
    print(title + "\n")
    if lab.connect():
        lab.run()
        new = b"NEW+" * 60000
        for at in range(0, len(new), 48000):
            lab.client.send(new[at : at + 48000])
            lab.run()
            if at == 0:
                lab.release()
        print(lab.ladder())
        got = bytes(lab.server.read)
        wrong = [at for at, byte in enumerate(new) if got[at] != byte]
        print(f"sent {len(new):,} bytes, read {len(got):,}, of them {len(wrong):,} are not what was sent")
        if wrong:
            at = wrong[0]
            print(f"sent from byte {at - 8:,}: {new[at - 8 : at + 8].decode()}")
            print(f"read from byte {at - 8:,}: {got[at - 8 : at + 8].decode()}")
    else:
        lab.release()
        print(lab.ladder())
    print()
    return lab


svg = ladder_svg(two_connections("without TIME_WAIT (tcp_max_tw_buckets = 0)", tcp_max_tw_buckets=0).lines,
                 "An old duplicate enters a new connection")
two_connections("with TIME_WAIT")
if len(sys.argv) > 1:
    Path(sys.argv[1]).write_text(svg, encoding="utf-8")
