"""Two hosts on a wire, and an observer beside it: a short notation for tests.

    wire = Wire()
    wire.opened()                       # SYN, SYN+ACK, ACK
    wire.a("A", payload=100)            # sequence numbers follow by themselves
    wire.b("A", seq=-50)                # an int is relative to what the host would send
    assert wire.states == ("ESTABLISHED", "ESTABLISHED")

Sequence numbers start close to the wrap, and far from one another, so that nothing works by chance.
"""

from fasttcp.core.segments import SegmentBatch
from fasttcp.core.table import ConnectionTable
from fasttcp.observe.tracker import Tracker
from fasttcp.profiles import profile as find_profile

MS = 1_000_000
SECOND = 1000 * MS
LETTERS = {"S": 0x02, "F": 0x01, "R": 0x04, "P": 0x08, "A": 0x10, "U": 0x20, "-": 0}
BAD_CHECKSUM, BAD_HEADER, CUT = 0x02, 0x04, 0x08


class Host:
    def __init__(self, addr, port, isn):
        self.addr = addr
        self.port = port
        self.isn = isn
        self.next = isn
        self.heard = 0


class Wire:
    """`a` opens, `b` answers. Each segment is applied at once, one millisecond after the one before."""

    def __init__(self, profile="linux", *, tracker=False, ports=(40000, 80), capacity=64, **changes):
        chosen = find_profile(profile).replace(**changes)
        if tracker:
            self.tracker = Tracker(chosen, max_connections=capacity, seed=1)
            self.table = self.tracker.table
        else:
            self.tracker = None
            self.table = ConnectionTable(capacity, profile=chosen, seat="observer", seed=1, keep_ended=True)
        self.batch = SegmentBatch(1)
        self.now = 1_700_000_000 * SECOND
        self.hosts = (Host("198.18.0.1", ports[0], 0xFFFFFFF0), Host("198.18.0.2", ports[1], 0x7FFFFFF8))

    def a(self, flags, **fields):
        self.send(0, flags, **fields)

    def b(self, flags, **fields):
        self.send(1, flags, **fields)

    def send(
        self, sender, flags, seq=0, ack=0, payload=0, window=65535, after=1 * MS, info=0, absolute=False, **options
    ):  # fmt: skip
        """seq and ack are relative to SND.NXT and RCV.NXT, or with `absolute` the numbers themselves."""
        me, peer = self.hosts[sender], self.hosts[1 - sender]
        bits = sum(LETTERS[letter] for letter in flags)
        number = seq if absolute else (me.next + seq) % 2**32
        acked = ack if absolute else (me.heard + ack) % 2**32
        self.now += after
        self.batch.clear()
        self.batch.append(
            src=me.addr, sport=me.port, dst=peer.addr, dport=peer.port, flags=bits, seq=number,
            ack=acked if bits & 0x10 else 0, payload=payload, window=window, time_ns=self.now, info=info, **options,
        )  # fmt: skip
        end = (number + payload + bool(bits & 2) + bool(bits & 1)) % 2**32
        if not info and not absolute:
            if (end - me.next) % 2**32 < 2**31:
                me.next = end
            if (end - peer.heard) % 2**32 < 2**31 or not peer.heard:
                peer.heard = end
        if self.tracker:
            self.tracker.apply(self.batch)
        else:
            self.table.apply(self.batch)

    def wait(self, ns):
        self.now += ns

    def opened(self, **options):
        self.a("S", wscale=7, mss=1460, **options)
        self.b("SA", wscale=7, mss=1460, **options)
        self.a("A")

    def closed(self):
        self.a("FA")
        self.b("A")
        self.b("FA")
        self.a("A")

    @property
    def handle(self):
        a, b = self.hosts
        return self.table.find(a.addr, a.port, b.addr, b.port)

    @property
    def states(self):
        """Of a and b, None if there is no connection."""
        if self.handle is None:
            return None
        summary = self.table.summary(self.handle)
        names = [self.table.state(self.handle)[i].name for i in range(2)]
        return tuple(names if summary["orig_port"] == self.hosts[0].port else names[::-1])

    @property
    def summary(self):
        return self.table.summary(self.handle)

    @property
    def tallies(self):
        return self.table.tallies()

    def ended(self):
        return self.table.take_ended()[:]

    def entries(self):
        """Of a tracker: all connections, the ended ones and those that live."""
        self.tracker.finish()
        return self.tracker.take()

    def entry(self):
        (only,) = self.entries()
        return only
