"""Why opening takes three segments: each side's first sequence number must be acknowledged by the other."""

from fasttcp.endpoint.lab import Lab

lab = Lab()
lab.connect()
lab.run()
print(lab.ladder())

# What the third segment is for: an old SYN of a connection long gone, delayed on its way.
lab = Lab()
lab.wire.duplicate("S", sender=lab.client)
lab.connect()
lab.run()
lab.client.close()
lab.run()
lab.server.close()
lab.run(seconds=120)  # TIME_WAIT is over, everybody has forgotten
lab.lines.clear()
lab.release()
print(lab.ladder())
