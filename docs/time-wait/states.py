"""The state diagram with the way of both ends of one connection, drawn from their traces."""

import sys
from pathlib import Path

from fasttcp.endpoint.diagram import states_svg
from fasttcp.endpoint.lab import Lab

lab = Lab()
lab.connect()
lab.run()
lab.client.close()
lab.run()
lab.server.close()
lab.run(seconds=61)
for host in lab.hosts:
    ways = [step for step in host.story if step.state != step.next]
    print(f"{host.name}: {ways[0].state.name} " + " ".join(f"-> {step.next.name}" for step in ways))
if len(sys.argv) > 1:
    picture = states_svg([(f"the {host.name}'s way", host.story) for host in lab.hosts], "One connection, the client closes first")
    Path(sys.argv[1]).write_text(picture, encoding="utf-8")
