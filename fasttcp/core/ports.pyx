"""Ephemeral ports: RFC 6056 section 3.3.3, and what TIME_WAIT allows.

The candidate is first + (F(local, remote, remote port) + counter) modulo the range, counted on from call to call, so
a port comes round again as late as possible and nobody can guess the next one. A port is free for a 4-tuple, not as
such: one local port serves as many remote ends as there are. A port somebody listens on is left alone.

Cost: one look-up while ports are plenty. With every port of a remote end in use, one look-up for each of them, as in
any host: 28,232 look-ups in Linux's range before PortsExhausted.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fasttcp.core.expiry cimport endpoint_expired
from fasttcp.core.hash cimport Key, is_mapped, key_endpoint
from fasttcp.core.isn cimport port_offset
from fasttcp.core.layout cimport NO_ROW, Row, row_t
from fasttcp.core.listening cimport find_listener
from fasttcp.core.names cimport S_TIME_WAIT
from fasttcp.core.policy cimport port_reserved
from fasttcp.core.prefetch cimport load64
from fasttcp.core.store cimport store_find
from fasttcp.core.tcb cimport TCB_TS_RECENT, Endpoint, addresses_of


cdef bint _loopback(const uint8_t *address) noexcept nogil:
    if is_mapped(address):
        return address[12] == 127
    return load64(address) == 0 and address[8] | address[9] | address[10] | address[11] == 0 and (
        address[12] | address[13] | address[14] == 0 and address[15] == 1
    )


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
    if e.policy.tcp_tw_reuse == 2:
        addresses_of(&e.engine.table, row, local, remote)
        return _loopback(local) or _loopback(remote)
    return True


cdef bint ports_choose(
    Endpoint *e, const uint8_t *local, const uint8_t *remote, uint16_t rport, uint16_t *port, row_t *row
) noexcept nogil:
    cdef uint32_t first = e.policy.port_first
    cdef uint32_t many = e.policy.port_last - first + 1
    cdef uint32_t start = port_offset(e, local, remote, rport)
    cdef uint32_t _i
    cdef row_t listener
    cdef Key key
    for _i in range(many):
        port[0] = <uint16_t>(first + (start + e.next_port) % many)
        e.next_port += 1
        if port_reserved(&e.policy, port[0]):
            continue
        key_endpoint(&key, local, port[0], remote, rport, &e.engine.table.hash_key)
        if store_find(&e.engine.table, &key, row) and not endpoint_expired(e, row[0]):
            if time_wait_reusable(e, row[0]):
                return True
            continue
        if find_listener(e, local, port[0], &listener):
            continue
        row[0] = NO_ROW
        return True
    e.counts.ports_exhausted += 1
    return False
