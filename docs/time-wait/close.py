"""Why closing takes four segments: each direction is closed by itself, and the other side may still have something to say."""

from fasttcp.endpoint.lab import Lab

lab = Lab()
lab.connect()
lab.run()
lab.lines.clear()
lab.client.close(half=True)
lab.run()
lab.server.send(b"the rest of the answer")
lab.run()
lab.server.close()
lab.run(seconds=1)
print(lab.ladder())
print("the client read:", lab.client.read.decode())
