"""Fills in summaries in the endpoint seat.

packets are segments sent and received, whatever became of them. bytes are those of the two streams, each once:
acknowledged by the peer, and received in order by us, modulo 2^32. The remote half's state is not known here: CLOSED.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memset

from fasttcp.core.layout cimport ROW_IPV6, Row, Tcb, ns_t, row_t
from fasttcp.core.names cimport S_CLOSE_WAIT, S_CLOSING, S_LAST_ACK, S_LISTEN, S_SYN_RCVD, S_SYN_SENT, S_TIME_WAIT
from fasttcp.core.store cimport store_cold, store_handle
from fasttcp.core.summary cimport LIVE, SUMMARY_IPV6, EndLog, Summary, endlog_next
from fasttcp.core.tcb cimport TCB_FIN_SENT, Endpoint, EndpointCold, addresses_of

cdef enum:
    AFTER_FIN = 1 << S_CLOSE_WAIT | 1 << S_CLOSING | 1 << S_LAST_ACK | 1 << S_TIME_WAIT    # the peer's FIN was received


cdef inline uint32_t _octets(uint32_t begin, uint32_t end) noexcept nogil:
    """Data between an ISN and a sequence number, the SYN left out; nothing while the SYN itself is on its way."""
    return end - begin - 1 if end != begin else 0


cdef void summarize_endpoint(Endpoint *e, row_t row, int event, ns_t when_ns, Summary *out) noexcept nogil:
    cdef Row *r = &e.engine.table.rows[row]
    cdef Tcb *b = &r.seat.tcb
    cdef EndpointCold *c = <EndpointCold *>store_cold(&e.engine.table, row)
    memset(out, 0, sizeof(Summary))
    out.handle = store_handle(&e.engine.table, row)
    out.first_ns = c.head.first_ns
    out.last_ns = r.last_ns
    out.ended_ns = when_ns if event != LIVE else 0
    addresses_of(&e.engine.table, row, out.addr[0], out.addr[1])
    out.port[0] = r.port[0]
    out.port[1] = r.port[1]
    out.state[0] = r.state[0]
    out.ended_by = event
    out.flags = SUMMARY_IPV6 if r.flags & ROW_IPV6 else 0
    if r.state[0] == S_LISTEN:
        return
    out.packets[0] = c.segments[0]
    out.packets[1] = c.segments[1]
    out.isn[0] = c.iss
    out.isn[1] = c.irs
    out.retransmitted[0] = c.retransmitted
    out.bytes[0] = _octets(c.iss, b.snd_una)
    if r.aux & TCB_FIN_SENT and b.snd_una == b.snd_nxt and out.bytes[0] != 0:
        out.bytes[0] -= 1
    if r.state[0] != S_SYN_SENT and r.state[0] != S_SYN_RCVD:
        out.bytes[1] = _octets(c.irs, b.rcv_nxt)
        if (1 << r.state[0]) & AFTER_FIN:
            out.bytes[1] -= 1


cdef void endlog_endpoint(void *context, Endpoint *e, row_t row, int event, ns_t when_ns) noexcept nogil:
    """An EndpointWatch.ended that keeps a summary of everything that ends."""
    cdef Summary *into = endlog_next(<EndLog *>context)
    if into != NULL:
        summarize_endpoint(e, row, event, when_ns, into)
