"""Ephemeral ports: RFC 6056 section 3.3.3, and what TIME_WAIT allows.

Two ways to choose, by the profile's port_choice; `start` is F(local, remote, remote port), so nobody can guess the next:

    in_turn      first + (start + counter) modulo the range, counted on with each: a port comes round as late as possible
    even_first   the same, but every other port, then the rest; and after each choice up to 14 ports are passed over at
                 random (Linux). Ports come round soon, and TIME_WAIT that may be reused is met before all ports are used.

A port is free for a 4-tuple, not as such: one local port serves as many remote ends as there are. A port somebody listens
on is left alone.

Cost: one look-up while ports are plenty. When a remote end is short of them, one look-up for each port that may be
free, and a word for 64 that are not (crowds.pyx). What is chosen is the same as if every port had been looked at.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.crowds cimport CROWD_SEARCH, crowd_find, crowd_make, crowd_skip, reusable_pair
from fasttcp.core.expiry cimport endpoint_expired
from fasttcp.core.hash cimport Key, key_endpoint
from fasttcp.core.isn cimport port_offset
from fasttcp.core.layout cimport NO_ROW, Row, row_t
from fasttcp.core.listening cimport find_listener
from fasttcp.core.names cimport S_TIME_WAIT
from fasttcp.core.policy cimport port_reserved
from fasttcp.core.store cimport store_behind, store_find
from fasttcp.core.tcb cimport TCB_TS_RECENT, Crowd, Endpoint, addresses_of


cdef bint time_wait_reusable(const Endpoint *e, row_t row) noexcept nogil:
    """tcp_tw_reuse (kernel tcp_twsk_unique): in TIME_WAIT proper, with timestamps, after tcp_tw_reuse_delay. A second
    passed, so the new connection's timestamps are newer than any of the old one's: old duplicates fail PAWS."""
    cdef const Row *r = &e.engine.table.rows[row]
    cdef uint8_t local[16]
    cdef uint8_t remote[16]
    if r.state[0] != S_TIME_WAIT or e.policy.tcp_tw_reuse == 0 or not r.aux & TCB_TS_RECENT:
        return False
    if e.engine.table.now_ns - r.last_ns < e.policy.tcp_tw_reuse_delay_ns:
        return False
    if e.policy.tcp_tw_reuse == 1:
        return True
    addresses_of(&e.engine.table, row, local, remote)
    return reusable_pair(e, local, remote)


cdef inline void _count_on(Endpoint *e, uint32_t passed, uint32_t step) noexcept nogil:
    """The next search begins behind this choice; with even_first some ports further, if this one was found at once."""
    cdef uint64_t chance
    if step == 2:
        chance = (e.secret[0] ^ e.next_port) * <uint64_t>0x9E3779B97F4A7C15
        chance = (chance ^ (chance >> 29)) * <uint64_t>0xBF58476D1CE4E5B9
        passed = max(passed, <uint32_t>(chance >> 61) * 2 + 2)
    e.next_port += passed


cdef bint ports_choose(
    Endpoint *e, const uint8_t *local, const uint8_t *remote, uint16_t rport, uint16_t *port, row_t *row
) noexcept nogil:
    cdef uint32_t first = e.policy.port_first
    cdef uint32_t many = e.policy.port_last - first + 1
    cdef uint32_t step = 2 if e.policy.even_first and many > 1 else 1
    cdef uint32_t start, side, i, met = 0, skip, at
    cdef row_t listener
    cdef Crowd *crowd = NULL
    cdef Key key
    cdef bint reusable = reusable_pair(e, local, remote)
    cdef bint behind = store_behind(&e.engine.table)    # then rows whose time is up still have their bits
    if e.n_crowds != 0 and not behind:
        crowd = crowd_find(e, local, remote, rport)
    many -= many % step
    start = (port_offset(e, local, remote, rport) + e.next_port) % many
    start -= start % step
    for side in range(step):
        i = 0
        while i < many:
            at = first + (start + side + i) % many
            if crowd != NULL:
                skip = crowd_skip(crowd, first, first + many - 1, at, step)
                if skip != 0:
                    i += skip
                    continue
            port[0] = <uint16_t>at
            i += step
            if port_reserved(&e.policy, port[0]):
                continue
            key_endpoint(&key, local, port[0], remote, rport, &e.engine.table.hash_key)
            if store_find(&e.engine.table, &key, row) and not endpoint_expired(e, row[0]):
                if time_wait_reusable(e, row[0]):
                    _count_on(e, i, step)
                    return True
                met += not reusable or e.engine.table.rows[row[0]].state[0] != S_TIME_WAIT
                if met == CROWD_SEARCH and crowd == NULL and not behind:
                    crowd = crowd_make(e, local, remote, rport)
                continue
            if find_listener(e, local, port[0], &listener):
                continue
            row[0] = NO_ROW
            _count_on(e, i, step)
            return True
    e.counts.ports_exhausted += 1
    return False
