"""The churn workload: the one stream of segments that the harness, the benchmarks and the peers are fed with.

What must stand here: how connections come, talk and go. What must not: tables, states, clocks; all chance is from the seed.

    place 0  | SYN  SYN+ACK  ACK  data ... FIN  ACK  FIN  ACK | SYN  SYN+ACK  ...
    place 1  ... FIN  ACK | SYN  SYN+ACK  ACK  RST | SYN ...
    ...                                                       each place holds one living connection after another
    place active-1

A pass gives each place one turn, in an order that is another permutation every time; a turn sends the next segment of the
connection there. So the gap between two segments of a connection is anything from 0 to 2 passes, neighbours in the stream
have nothing to do with each other, and nothing lags: no idle timeout fires but where a mix asks for it.

The time between two turns follows from the number of connections: as many are to be in TIME_WAIT (60 s) as are active. Eight
turns a connection, so a pass takes 7.5 s. `connections` counts both, and what a mix adds (SYNs of a flood stay 120 s, reset
connections 10 s): the table fills up to about so many rows in `warm_up` segments, and stays there.

What each segment carries is what a careful engine checks: sequence numbers from random ISNs, acknowledgments, windows and
their scale, timestamps that echo each other, lengths. The same seed gives the same stream, however it is cut into batches.

Cost: one random line of memory a segment (prefetched), 20 to 30 ns; 16 bytes a connection.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport pow
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fasttcp.core.layout cimport (
    ACK, FIN, INFO_IPV6, OPT_MSS, OPT_SACK_PERMITTED, OPT_TIMESTAMPS, OPT_WSCALE, PSH, RST, SYN,
)
from fasttcp.core.prefetch cimport prefetch_write
from fasttcp.core.store cimport Table
from fasttcp.core.table cimport ConnectionTable, table_engine

from fasttcp.errors import SegmentError
from fasttcp.load.mixes import mix as find_mix

__all__ = ["SEGMENT_BYTES", "ChurnStream", "wheel_lag"]

SEGMENT_BYTES = sizeof(Segment)

cdef enum:
    LIFE_SERVER_CLOSES = 0x01   # the server sends the first FIN, or the RST
    LIFE_RESET = 0x02
    LIFE_IPV6 = 0x04
    LIFE_REUSE = 0x08           # its 4-tuple is opened again at once

    AT_SYN = 0
    AT_SYN_ACK = 1
    AT_ACK = 2
    AT_DATA = 3                 # the client's turn, or with AT_ANSWER the server's
    AT_CLOSE = 4
    AT_CLOSE_ACK = 5
    AT_LAST_FIN = 6
    AT_LAST_ACK = 7
    AT_ANSWER = 8

    SCALE = 7                   # what Linux offers: windows up to 8 MB
    WINDOW = 64240              # of a SYN, Linux
    REUSE_GAP = 65537           # a new ISN above all that was sent: kernel tcp_twsk_unique, snd_nxt + 65535 + 2

cdef double ALPHA = 1.2         # Pareto's exponent of the segments with data
TIME_WAIT_NS = 60 * 10**9       # 2MSL of the "linux" profile
HALF_OPEN_NS = 120 * 10**9      # nf_conntrack_tcp_timeout_syn_sent
RESET_NS = 10 * 10**9           # nf_conntrack_tcp_timeout_close


# ---- chance ----------------------------------------------------------------------------------------------------------

cdef inline uint64_t chance(Churn *c) noexcept nogil:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    cdef uint64_t z
    c.random += <uint64_t>0x9E3779B97F4A7C15
    z = c.random
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef inline uint32_t scatter(uint32_t x) noexcept nogil:
    """A bijection of 32 bits: numbers that count up become names that don't."""
    x = (x ^ (x >> 16)) * <uint32_t>0x85EBCA6B
    x = (x ^ (x >> 13)) * <uint32_t>0xC2B2AE35
    return x ^ (x >> 16)


cdef inline uint32_t place_of(const Churn *c, uint32_t i) noexcept nogil:
    """A permutation of the numbers below 2^bits: odd multiples and shifts, keyed anew in every pass."""
    cdef uint32_t mask = <uint32_t>((<uint64_t>1 << c.bits) - 1)
    cdef uint32_t half = (c.bits + 1) >> 1
    i = (i * c.keys[0] + c.keys[1]) & mask
    i ^= i >> half
    i = (i * c.keys[2] + c.keys[3]) & mask
    i ^= i >> half
    return (i * c.keys[0]) & mask


cdef void new_pass(Churn *c) noexcept nogil:
    cdef int i
    for i in range(4):
        c.keys[i] = <uint32_t>chance(c) | 1
    c.at = 0


# ---- the names of the ends -------------------------------------------------------------------------------------------

cdef inline void put32(uint8_t *at, uint32_t x) noexcept nogil:
    at[0] = <uint8_t>(x >> 24)
    at[1] = <uint8_t>(x >> 16)
    at[2] = <uint8_t>(x >> 8)
    at[3] = <uint8_t>x


cdef inline void write_ends(
    Segment *s, uint32_t name, bint ipv6, bint flood, bint from_server
) noexcept nogil:
    """Clients: 131,072 addresses of 10.0.0.0/15 with 32,768 ports each; 64 servers, half of them above, half below them.

    The flood comes from 100.64.0.0/10. IPv6 ends have the same numbers within 2001:db8::/32.
    """
    cdef uint32_t other = scatter(name)
    cdef uint8_t *client = &s.dst[0] if from_server else &s.src[0]
    cdef uint8_t *server = &s.src[0] if from_server else &s.dst[0]
    cdef uint16_t port, service
    cdef uint32_t host = <uint32_t>0x0A000000 | (name >> 15)
    cdef uint32_t desk = (<uint32_t>0xC0A80001 if other & 1 else <uint32_t>0x09000001) + ((other >> 1) & 31)
    port = <uint16_t>(32768 + (name & 0x7FFF))
    if flood:
        host = <uint32_t>0x64400000 | (name >> 10)
        port = <uint16_t>(1024 + (name & 0x3FF))
    service = 443 if other & 0xC0 else 80
    if ipv6:
        put32(client, <uint32_t>0x20010DB8)
        put32(client + 4, host >> 20)
        put32(client + 8, scatter(host))
        put32(client + 12, host)
        put32(server, <uint32_t>0x20010DB8)
        put32(server + 4, desk >> 20)
        put32(server + 8, 0)
        put32(server + 12, desk)
    else:
        memset(s.src, 0, 10)
        s.src[10] = s.src[11] = 0xFF
        memset(s.dst, 0, 10)
        s.dst[10] = s.dst[11] = 0xFF
        put32(client + 12, host)
        put32(server + 12, desk)
    if from_server:
        s.sport = service
        s.dport = port
    else:
        s.sport = port
        s.dport = service


# ---- one segment -----------------------------------------------------------------------------------------------------

cdef inline void send(
    Churn *c, Life *l, Segment *s, int side, uint16_t flags, uint32_t payload
) noexcept nogil:
    """The next segment of one side. Every sum that an engine keeps is kept here too."""
    cdef int other = 1 - side
    cdef bint ipv6 = (l.flags & LIFE_IPV6) != 0
    cdef uint32_t name = scatter(l.number ^ c.seed)
    write_ends(s, name, ipv6, False, side)
    s.time_ns = c.now_ns
    s.seq = l.nxt[side]
    s.ack = l.nxt[other] if flags & ACK else 0
    s.payload = payload
    s.flags = flags
    s.info = INFO_IPV6 if ipv6 else 0
    s.ip_bytes = (72 if ipv6 else 52) + payload         # with 12 bytes of timestamps and their padding
    s.options = 0
    s.mss = 0
    s.wscale = 0
    s.tsval = s.tsecr = 0
    if flags & RST:
        s.window = 0
        s.ip_bytes -= 12
        return
    s.options = OPT_TIMESTAMPS
    # Each host's clock counts milliseconds from a start of its own (RFC 7323 section 5.4).
    s.tsval = l.tsval[side] = <uint32_t>(c.now_ns // 1000000) + scatter(name + side)
    s.tsecr = l.tsval[other] if flags & ACK else 0
    if flags & SYN:
        s.options = OPT_TIMESTAMPS | OPT_MSS | OPT_WSCALE | OPT_SACK_PERMITTED
        s.mss = 1440 if ipv6 else 1460
        s.wscale = SCALE
        s.window = WINDOW
        s.ip_bytes += 8
        l.nxt[side] += 1
    else:
        s.window = 502                                  # 64,256 bytes
    l.nxt[side] += payload + (flags & FIN)


cdef inline void send_flood(Churn *c, Segment *s) noexcept nogil:
    cdef uint32_t name = scatter(c.flooded ^ c.seed)
    cdef bint ipv6 = <uint32_t>chance(c) < c.ipv6
    c.flooded += 1
    write_ends(s, name, ipv6, True, False)
    s.time_ns = c.now_ns
    s.seq = scatter(name)
    s.ack = s.payload = s.tsval = s.tsecr = 0
    s.flags = SYN
    s.window = 1024
    s.options = OPT_MSS
    s.mss = 1440 if ipv6 else 1460
    s.wscale = 0
    s.info = INFO_IPV6 if ipv6 else 0
    s.ip_bytes = 64 if ipv6 else 44


cdef inline void begin(Churn *c, Life *l, bint again) noexcept nogil:
    """The next connection of a place; again: on the 4-tuple of the one before."""
    cdef uint64_t drawn = chance(c)
    cdef double length
    if again:
        l.nxt[0] += REUSE_GAP
        l.nxt[1] += REUSE_GAP
        l.used += 1
        l.flags &= LIFE_IPV6
    else:
        l.number = c.numbers
        c.numbers += 1
        l.nxt[0] = <uint32_t>drawn
        l.nxt[1] = <uint32_t>(drawn >> 32)
        l.used = 0
        l.flags = LIFE_IPV6 if <uint32_t>chance(c) < c.ipv6 else 0
    drawn = chance(c)
    if drawn & 1:
        l.flags |= LIFE_SERVER_CLOSES
    l.left = 1
    if c.longest > 1:
        length = pow((<double>(drawn >> 11) + 1) * (1.0 / 9007199254740992.0), -1 / ALPHA)
        l.left = <uint16_t>(length if length < c.longest else c.longest)
    if c.reset and <uint32_t>chance(c) < c.reset:
        l.flags |= LIFE_RESET
    elif c.reuse and <uint32_t>chance(c) < c.reuse:
        l.flags |= LIFE_REUSE
    l.step = AT_SYN


cdef inline bint turn(Churn *c, Life *l, Segment *s) noexcept nogil:
    """One turn of a place: whether it sent anything."""
    cdef int closer = l.flags & LIFE_SERVER_CLOSES
    cdef uint32_t payload
    cdef uint8_t step
    if l.wait:
        l.wait -= 1
        return False
    step = l.step
    l.step += 1
    if step == AT_SYN:
        c.begun += 1
        send(c, l, s, 0, SYN, 0)
    elif step == AT_SYN_ACK:
        send(c, l, s, 1, SYN | ACK, 0)
    elif step == AT_ACK:
        send(c, l, s, 0, ACK, 0)
    elif step == AT_DATA or step == AT_ANSWER:
        payload = 64 + (scatter(l.nxt[0] ^ l.nxt[1]) & 1023)
        send(c, l, s, step == AT_ANSWER, ACK | PSH, payload)
        l.left -= 1
        if l.left:
            l.step = AT_ANSWER if step == AT_DATA else AT_DATA
        else:
            l.step = AT_CLOSE
    elif step == AT_CLOSE and l.flags & LIFE_RESET:
        send(c, l, s, closer, RST | ACK, 0)
        c.finished += 1
        begin(c, l, False)
    elif step == AT_CLOSE:
        send(c, l, s, closer, FIN | ACK, 0)
    elif step == AT_CLOSE_ACK:
        send(c, l, s, 1 - closer, ACK, 0)
    elif step == AT_LAST_FIN:
        send(c, l, s, 1 - closer, FIN | ACK, 0)
    else:
        send(c, l, s, closer, ACK, 0)
        c.finished += 1
        begin(c, l, l.flags & LIFE_REUSE)
    return True


cdef void look_ahead(Churn *c) noexcept nogil:
    """Whose turns come next, with their lines on the way."""
    cdef uint32_t place
    c.ahead_n = c.ahead_at = 0
    while c.ahead_n < AHEAD:
        if c.at >> c.bits:
            new_pass(c)
        place = place_of(c, c.at)
        c.at += 1
        if place < c.active:
            prefetch_write(&c.lives[place])
            c.ahead[c.ahead_n] = place
            c.ahead_n += 1


cdef size_t churn_fill(Churn *c, Segment *out, size_t n) noexcept nogil:
    """Write the next n segments. Returns n: a stream has no end."""
    cdef size_t done = 0
    while done < n:
        if c.ahead_at == c.ahead_n:
            look_ahead(c)
        if c.flood and not c.flooding and <uint32_t>chance(c) < c.flood:
            c.flooding = True
            send_flood(c, &out[done])
            done += 1
            continue
        c.flooding = False
        if turn(c, &c.lives[c.ahead[c.ahead_at]], &out[done]):
            done += 1
        c.ahead_at += 1
        c.fraction += c.step_fraction
        c.now_ns += c.step_ns + (c.fraction < c.step_fraction)
    c.segments += n
    return n


# ---- the class -------------------------------------------------------------------------------------------------------

cdef class ChurnStream:
    """An endless stream of segments of connections that come and go.

    connections: how many a table holds in steady state, those in TIME_WAIT included; at least 64. mix: a name of
    `fasttcp.load.mixes.MIXES`, or a `Mix`. seed: int. start_ns: time of the first turn.

    Raises ValueError for arguments out of range, MemoryError. Not to be used by two threads at once.
    """

    def __cinit__(self, *args, **kwargs):
        memset(&self.churn, 0, sizeof(Churn))

    def __init__(self, connections, *, mix="ipv4", seed=1, start_ns=0):
        cdef Churn *c = &self.churn
        cdef uint32_t i
        if c.lives != NULL:
            raise ValueError("this stream was opened before")
        if not isinstance(connections, int) or not 64 <= connections <= 1 << 30:
            raise ValueError(f"connections is {connections!r}: it must be an int from 64 to {1 << 30}")
        m = self.mix = find_mix(mix)
        self.seed = seed
        self.connections = connections
        if not 1 <= m.longest <= 65535:
            raise ValueError(f"longest is {m.longest}: it must be from 1 to 65535")
        for name in ("ipv6", "reset", "reuse", "flood"):
            if not 0 <= getattr(m, name) <= 1:
                raise ValueError(f"{name} is {getattr(m, name)}: a share is from 0 to 1")
        if m.reset == 1:
            raise ValueError("reset is 1: some connections must close, or nothing is ever in TIME_WAIT")
        data = sum(k**-ALPHA for k in range(1, m.longest + 1))
        self.turns = data + 7 - 3 * m.reset
        # Rows for each place: its own but for the gap before the SYN; a forerunner whose TIME_WAIT began with its last FIN, a
        # pass before its end; one that was reset; the flood's.
        pace = (1 - m.reset) / self.turns                       # the length of a pass, in TIME_WAITs
        rows = 1 - 1 / self.turns + (1 - m.reuse) * (1 - pace) + m.reuse * pace
        rows += (m.reset / (1 - m.reset) * RESET_NS + m.flood / pace * HALF_OPEN_NS) / TIME_WAIT_NS
        c.active = max(1, round(connections / rows))
        step = TIME_WAIT_NS * pace / c.active
        c.step_ns = int(step)
        c.step_fraction = int((step - int(step)) * (1 << 32))
        c.bits = max(2, (c.active - 1).bit_length())
        c.stagger = max(1, round(self.turns))
        c.seed = <uint32_t>(seed * 0x9E3779B97F4A7C15 >> 16 & 0xFFFFFFFF)
        c.random = <uint64_t>(seed & 0xFFFFFFFFFFFFFFFF)
        c.now_ns = start_ns
        c.ipv6 = <uint32_t>int(m.ipv6 * 0xFFFFFFFF)
        c.reset = <uint32_t>int(m.reset * 0xFFFFFFFF)
        c.reuse = <uint32_t>int(m.reuse * 0xFFFFFFFF)
        c.flood = <uint32_t>int(m.flood * 0xFFFFFFFF)
        c.longest = m.longest
        c.lives = <Life *>calloc(c.active, sizeof(Life))
        if c.lives == NULL:
            raise MemoryError(f"no memory for {c.active} active connections")
        for i in range(c.active):
            begin(c, &c.lives[i], False)
            c.lives[i].wait = chance(c) % c.stagger
        new_pass(c)

    def __dealloc__(self):
        free(self.churn.lives)

    def write_into(self, buffer):
        """Fill a writable, contiguous buffer with the next segments, 80 bytes each; the GIL is released meanwhile.

        Returns how many they are. Raises SegmentError when the buffer is no whole number of segments long.
        """
        cdef Py_buffer view
        cdef size_t n
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if view.len % sizeof(Segment):
                raise SegmentError(f"{view.len} bytes: segments are records of {sizeof(Segment)} bytes")
            n = view.len // sizeof(Segment)
            with nogil:
                churn_fill(&self.churn, <Segment *>view.buf, n)
            return n
        finally:
            PyBuffer_Release(&view)

    def take(self, n):
        """The next n segments as a new bytearray of 80 bytes each."""
        out = bytearray(n * sizeof(Segment))
        self.write_into(out)
        return out

    @property
    def active(self):
        """Connections that are alive at a time, those in TIME_WAIT not counted."""
        return self.churn.active

    @property
    def warm_up(self):
        """Segments until a table is full and in steady state: as long as it takes to fill the longest wait twice."""
        seconds = 2 * (HALF_OPEN_NS if self.mix.flood else TIME_WAIT_NS) / 10**9
        turns = seconds * 10**9 / (self.churn.step_ns + self.churn.step_fraction / (1 << 32))
        return round(turns * (1 + self.mix.flood))

    @property
    def now_ns(self):
        """The time of the next segment, ns."""
        return self.churn.now_ns

    @property
    def begun(self):
        """Connections opened so far, the flood's not counted."""
        return self.churn.begun

    @property
    def finished(self):
        """Connections closed or reset so far."""
        return self.churn.finished

    @property
    def segments(self):
        """Segments written so far."""
        return self.churn.segments


def wheel_lag(ConnectionTable table not None):
    """How many ticks the timers of a table are behind its clock: 0 when everything due has fired. O(1)."""
    cdef Table *t = &table_engine(table).table
    return t.now_tick + 1 - t.wheel.cursor if t.wheel.cursor <= t.now_tick else 0
