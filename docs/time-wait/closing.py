"""CLOSING, and when it really occurs: both sides close before either has seen the other's FIN."""

import sys
from pathlib import Path

from fasttcp.endpoint.lab import Lab
from fasttcp.endpoint.ladder import ladder_svg
from fasttcp.spec import State

lab = Lab()
lab.connect()
lab.run()
lab.lines.clear()
lab.client.close()
lab.server.close()  # within one trip of the first FIN: here 50 ms
lab.run(seconds=1)
print(lab.ladder())
print(lab.why(lab.client, only=(State.CLOSING,)))
if len(sys.argv) > 1:
    Path(sys.argv[1]).write_text(ladder_svg(lab.lines, "Both close at once"), encoding="utf-8")
