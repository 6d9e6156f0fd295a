"""RST in TIME_WAIT (RFC 1337): an old duplicate makes TIME_WAIT answer, the peer, who has forgotten, answers that with a RST."""

from fasttcp import profile
from fasttcp.endpoint.lab import Lab


def assassination(title, **policy):
    lab = Lab(client=profile("linux").replace(**policy))
    lab.connect()
    lab.run()
    lab.wire.duplicate("PA", sender=lab.server)
    lab.server.send(b"data")
    lab.run()
    lab.client.close()
    lab.run()
    lab.server.close()
    lab.run(seconds=2)
    lab.lines.clear()
    lab.release()
    print(title + "\n")
    print(lab.ladder())
    return lab


lab = assassination("tcp_rfc1337 = 0, Linux's default")
print(lab.client.story[-1].why, f"[{lab.client.story[-1].source}]\n")
assassination("tcp_rfc1337 = 1", tcp_rfc1337=True)
