"""tcp_tw_recycle, kept so that its harm can be shown. Linux had it until 4.12.

TIME_WAIT is short (3.5 RTO) for connections with timestamps; to make up for it, the last timestamp of each remote
*address* is remembered for 60 s and a SYN with an older one is dropped. Behind one address of a NAT there are many
clocks: their owners cannot connect any more (kernel before 4.12, tcp_conn_request and tcp_peer_is_proven).

A table of 8,192 addresses, direct-mapped by keyed hash; a newcomer takes the place of who was there, as a bounded
cache may.
"""

from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free

from fasttcp.core.layout cimport OPT_TIMESTAMPS, Segment
from fasttcp.core.prefetch cimport load64
from fasttcp.core.siphash cimport siphash
from fasttcp.core.tcb cimport TCB_TS_RECENT, Endpoint, Host, Work, addresses_of, clock_s

cdef enum:
    HOSTS = 8192
    MEMORY_S = 60               # TCP_PAWS_MSL
    PAWS_WINDOW = 1             # ticks that a timestamp may be behind


cdef int hosts_open(Endpoint *e) noexcept nogil:
    e.hosts = <Host *>calloc(HOSTS, sizeof(Host))
    return 0 if e.hosts != NULL else -1


cdef void hosts_close(Endpoint *e) noexcept nogil:
    free(e.hosts)
    e.hosts = NULL


cdef Host *_place(const Endpoint *e, const uint8_t *address, uint64_t *name) noexcept nogil:
    cdef uint64_t word[2]
    word[0] = load64(address)
    word[1] = load64(address + 8)
    name[0] = siphash(e.secret, word, 2) | 1        # 0 is a free place
    return &e.hosts[name[0] >> 51]


cdef void hosts_remember(Work *w) noexcept nogil:
    """The connection goes to TIME_WAIT: its peer's last timestamp stands for the peer's address."""
    cdef uint8_t local[16]
    cdef uint8_t remote[16]
    cdef uint64_t name
    cdef Host *host
    if not w.r.aux & TCB_TS_RECENT:
        return
    addresses_of(&w.e.engine.table, w.row, local, remote)
    host = _place(w.e, remote, &name)
    if host.name != name or <int32_t>(w.c.ts_recent - host.ts) >= 0 or clock_s(w.e) - host.at_s > MEMORY_S:
        host.name = name
        host.ts = w.c.ts_recent
        host.at_s = w.c.ts_recent_s


cdef bint hosts_reject(const Endpoint *e, const Segment *syn) noexcept nogil:
    """Whether tcp_tw_recycle takes this SYN for one of an old connection."""
    cdef uint64_t name
    cdef Host *host
    if not syn.options & OPT_TIMESTAMPS:
        return False
    host = _place(e, syn.src, &name)
    return (
        host.name == name and clock_s(e) - host.at_s < MEMORY_S
        and <int32_t>(host.ts - syn.tsval) > PAWS_WINDOW
    )
