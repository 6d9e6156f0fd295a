"""What tcp_tw_reuse checks that makes it safe: timestamps on both sides, and a second between."""

from fasttcp import profile
from fasttcp.endpoint.lab import Lab
from fasttcp.spec import Event


def again(seconds, **policy):
    """A connection, its close, and another on the same 4-tuple after some seconds in TIME_WAIT."""
    lab = Lab(client=profile("linux").replace(tcp_tw_reuse=1, **policy))
    lab.connect()
    lab.run()
    lab.wire.duplicate("PA", sender=lab.client)
    lab.client.send(b"old data")
    lab.run()
    lab.client.close()
    lab.run()
    lab.server.close()
    lab.run()
    lab.run(seconds=seconds)
    lab.lines.clear()
    return lab, lab.connect()


for seconds, policy in ((0.5, {}), (1.5, {"tcp_timestamps": 0}), (1.5, {})):
    _, allowed = again(seconds, **policy)
    stamps = "without timestamps" if policy else "with timestamps"
    print(f"{seconds} s in TIME_WAIT, {stamps}: connect() {'takes the 4-tuple' if allowed else 'is refused'}")

# Where it is allowed, the old duplicate has an older timestamp than anything in the new connection: PAWS drops it.
lab, _ = again(1.5)
lab.run()
lab.client.send(b"new data")
lab.run()
lab.release()
print()
print(lab.ladder())
dropped = [step for step in lab.server.table.explain(lab.server.handle) if step.event is Event.RCV_PAWS]
print(f"the server read: {lab.server.read.decode()}; old duplicates dropped: {len(dropped)}")
print(f"why: {dropped[0].why} [{dropped[0].source}]")
