"""Ports that are taken for certain, one bit each, for remote ends that are short of them.

What it stores: for a crowded (local address, remote address, remote port) a bitmap of its local ports. A set bit says
that a search would find this port taken; a clear bit says nothing, and the search looks. What must not stand here:
which port is chosen (ports.pyx), when a TIME_WAIT may be reused (there too).

    Endpoint.crowds[hash & 1023] --> Crowd --> Crowd --> NULL        Crowd: its name | bits: 65,536 local ports

A remote end is crowded once one search has met CROWD_SEARCH taken ports, and no longer when fewer than a
quarter of that are taken. While none is, the cost is one branch for each row that comes or goes; else a look-up of
its remote end, and 8.3 KB of memory for each that is crowded. A search then costs a word for 64 taken ports: 441
words to find that none of Linux's 28,232 ports is free, where it was 28,232 look-ups of a random line each.

Invariants (crowds_check): the row of a set bit exists, and it is not in TIME_WAIT where tcp_tw_reuse may apply; `taken`
counts the bits. A row whose time is up but that the wheel has not come round to still has its bit: ports.pyx asks only
when the wheel is not behind.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from fasttcp.core.hash cimport Key, is_mapped, key_endpoint
from fasttcp.core.layout cimport Row, row_t
from fasttcp.core.names cimport S_TIME_WAIT
from fasttcp.core.prefetch cimport load64
from fasttcp.core.store cimport store_find
from fasttcp.core.tcb cimport Crowd, Endpoint, addresses_of

from fasttcp.errors import InvariantError

cdef extern from "tags.h" nogil:
    uint32_t lowest_bit(uint32_t mask) noexcept

cdef enum:
    PLACES = 1024
    LEAST = CROWD_SEARCH // 4


cdef inline uint64_t _hash(const Endpoint *e, const uint8_t *local, const uint8_t *remote, uint16_t rport) noexcept nogil:
    cdef Key key
    key_endpoint(&key, local, 0, remote, rport, &e.engine.table.hash_key)
    return key.hash


cdef inline bint _loopback(const uint8_t *address) noexcept nogil:
    if is_mapped(address):
        return address[12] == 127
    return load64(address) == 0 and address[8] | address[9] | address[10] | address[11] == 0 and (
        address[12] | address[13] | address[14] == 0 and address[15] == 1
    )


cdef bint reusable_pair(const Endpoint *e, const uint8_t *local, const uint8_t *remote) noexcept nogil:
    """Whether tcp_tw_reuse says anything between these two addresses (kernel tcp_twsk_unique)."""
    if e.policy.tcp_tw_reuse == 2:
        return _loopback(local) or _loopback(remote)
    return e.policy.tcp_tw_reuse == 1


cdef Crowd *crowd_find(const Endpoint *e, const uint8_t *local, const uint8_t *remote, uint16_t rport) noexcept nogil:
    """The crowd of this remote end, or NULL."""
    cdef uint64_t name = _hash(e, local, remote, rport)
    cdef Crowd *c = e.crowds[name & (PLACES - 1)]
    while c != NULL:
        if c.name == name and c.rport == rport and memcmp(c.local, local, 16) == 0 and memcmp(c.remote, remote, 16) == 0:
            return c
        c = c.next
    return NULL


cdef inline void _set(Crowd *c, uint16_t port) noexcept nogil:
    cdef uint64_t bit = <uint64_t>1 << (port & 63)
    c.taken += c.bit[port >> 6] & bit == 0
    c.bit[port >> 6] |= bit


cdef Crowd *crowd_make(Endpoint *e, const uint8_t *local, const uint8_t *remote, uint16_t rport) noexcept nogil:
    """The crowd of a remote end that has none yet: one look-up for each ephemeral port. NULL without memory: searches stay long."""
    cdef Crowd *c
    cdef Key key
    cdef row_t row
    cdef uint32_t port
    if e.crowds == NULL:
        e.crowds = <Crowd **>calloc(PLACES, sizeof(void *))
        if e.crowds == NULL:
            return NULL
    c = <Crowd *>calloc(1, sizeof(Crowd))
    if c == NULL:
        return NULL
    memcpy(c.local, local, 16)
    memcpy(c.remote, remote, 16)
    c.rport = rport
    c.reusable = reusable_pair(e, local, remote)
    c.name = _hash(e, local, remote, rport)
    for port in range(e.policy.port_first, <uint32_t>e.policy.port_last + 1):
        key_endpoint(&key, local, <uint16_t>port, remote, rport, &e.engine.table.hash_key)
        if store_find(&e.engine.table, &key, &row):
            if not c.reusable or e.engine.table.rows[row].state[0] != S_TIME_WAIT:
                _set(c, <uint16_t>port)
    c.next = e.crowds[c.name & (PLACES - 1)]
    e.crowds[c.name & (PLACES - 1)] = c
    e.n_crowds += 1
    return c


cdef void _disperse(Endpoint *e, Crowd *crowd) noexcept nogil:
    cdef Crowd **at = &e.crowds[crowd.name & (PLACES - 1)]
    while at[0] != crowd:
        at = &at[0].next
    at[0] = crowd.next
    free(crowd)
    e.n_crowds -= 1


cdef inline uint32_t _run(const Crowd *c, uint32_t port, uint32_t last, uint32_t step) noexcept nogil:
    """How many ports from `port` to `last`, counted in whole steps, are taken in a row."""
    cdef uint64_t wanted = <uint64_t>0x5555555555555555 << (port & 1) if step == 2 else ~<uint64_t>0
    cdef uint32_t at = port
    cdef uint64_t clear
    cdef const uint64_t *word
    while at <= last:
        word = &c.bit[at >> 6]
        while at & 63 == 0 and at + 255 <= last and wanted & ~(word[0] & word[1] & word[2] & word[3]) == 0:
            at += 256
            word += 4
        clear = (~word[0] & wanted) >> (at & 63)
        if clear != 0:
            at += lowest_bit(<uint32_t>clear) if <uint32_t>clear else 32 + lowest_bit(<uint32_t>(clear >> 32))
            break
        at = (at | 63) + 1
    if at <= last:
        return at - port
    return (last + step - port) // step * step


cdef uint32_t crowd_skip(const Crowd *c, uint32_t first, uint32_t last, uint32_t port, uint32_t step) noexcept nogil:
    cdef uint32_t run = _run(c, port, last, step)
    cdef uint32_t again = first + (port - first) % step
    if port + run > last and port > again:
        run += _run(c, again, port - 1, step)
    return run


cdef void crowd_row_taken(Endpoint *e, row_t row) noexcept nogil:
    cdef uint8_t local[16]
    cdef uint8_t remote[16]
    cdef Crowd *c
    addresses_of(&e.engine.table, row, local, remote)
    c = crowd_find(e, local, remote, e.engine.table.rows[row].port[1])
    if c != NULL:
        _set(c, e.engine.table.rows[row].port[0])


cdef void crowd_row_left(Endpoint *e, row_t row, bint to_time_wait) noexcept nogil:
    cdef uint16_t port = e.engine.table.rows[row].port[0]
    cdef uint64_t bit = <uint64_t>1 << (port & 63)
    cdef uint8_t local[16]
    cdef uint8_t remote[16]
    cdef Crowd *c
    addresses_of(&e.engine.table, row, local, remote)
    if to_time_wait and not reusable_pair(e, local, remote):
        return
    c = crowd_find(e, local, remote, e.engine.table.rows[row].port[1])
    if c == NULL:
        return
    c.taken -= c.bit[port >> 6] & bit != 0
    c.bit[port >> 6] &= ~bit
    if c.taken < LEAST:
        _disperse(e, c)


cdef void crowds_close(Endpoint *e) noexcept nogil:
    cdef uint32_t i
    for i in range(PLACES if e.crowds != NULL else 0):
        while e.crowds[i] != NULL:
            _disperse(e, e.crowds[i])
    free(e.crowds)
    e.crowds = NULL


cdef int crowds_check(Endpoint *e) except -1:
    """InvariantError naming a bit that is set for a port that may be free. One look-up for each port of a crowd."""
    cdef Crowd *c
    cdef Key key
    cdef row_t row
    cdef uint32_t i, port, taken, crowds = 0
    cdef const Row *r
    for i in range(PLACES if e.crowds != NULL else 0):
        c = e.crowds[i]
        while c != NULL:
            crowds += 1
            taken = 0
            for port in range(65536):
                if not (c.bit[port >> 6] >> (port & 63)) & 1:
                    continue
                taken += 1
                key_endpoint(&key, c.local, <uint16_t>port, c.remote, c.rport, &e.engine.table.hash_key)
                if not store_find(&e.engine.table, &key, &row):
                    raise InvariantError(f"port {port} counts as taken towards port {c.rport}, and no row has it")
                r = &e.engine.table.rows[row]
                if c.reusable and r.state[0] == S_TIME_WAIT:
                    raise InvariantError(f"port {port} counts as taken, and row {row} is in TIME_WAIT")
            if taken != c.taken:
                raise InvariantError(f"{taken} ports are taken towards port {c.rport}, counted as {c.taken}")
            c = c.next
    if crowds != e.n_crowds:
        raise InvariantError(f"{crowds} crowded remote ends, counted as {e.n_crowds}")
    return 0
