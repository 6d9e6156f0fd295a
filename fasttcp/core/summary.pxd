# What is told of one connection: a flat record, the same for live and ended ones, for both seats and for every log.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.layout cimport ns_t, row_t
from fasttcp.core.store cimport Table
from fasttcp.core.tap cimport Observer

cdef enum:
    SUMMARY_IPV6 = 0x01
    SUMMARY_PARTIAL = 0x02          # picked up mid-stream
    LIVE = 255                      # Summary.ended_by while the connection lives

cdef struct Summary:                # 120 bytes, no padding; [0] originator or local, [1] responder or remote
    uint64_t handle
    int64_t  first_ns
    int64_t  last_ns
    int64_t  ended_ns               # 0 while it lives
    uint8_t  addr[2][16]
    uint64_t packets[2]
    uint64_t bytes[2]               # of payload, repeated ones too
    uint32_t isn[2]
    uint32_t retransmitted[2]
    uint16_t port[2]
    uint8_t  state[2]
    uint8_t  ended_by               # Event, or LIVE
    uint8_t  flags

cdef struct EndLog:                 # connections that have ended, until Python takes them
    Summary *data
    size_t   count
    size_t   capacity
    uint64_t lost                   # no memory to keep them

cdef void row_address(const Table *t, row_t row, int side, uint8_t *out) noexcept nogil
cdef void summarize_observed(Observer *o, row_t row, int event, ns_t when_ns, Summary *out) noexcept nogil
cdef Summary *endlog_next(EndLog *log) noexcept nogil
cdef void endlog_observed(void *log, Observer *o, row_t row, int event, ns_t when_ns) noexcept nogil
cdef void endlog_close(EndLog *log) noexcept nogil
