# A made-up stream of segments: many connections that open, talk, close and come again. See churn.pyx.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.layout cimport Segment, ns_t, seq_t

cdef enum:
    AHEAD = 32                  # lives that are fetched before they are needed


cdef struct Life:               # 32 bytes: one connection on its way; its place is taken by the next one when it is over
    uint32_t number             # its 4-tuple follows from this
    seq_t    nxt[2]             # SND.NXT of client and server
    uint32_t tsval[2]           # the last timestamps sent
    uint16_t left               # segments with data still to be sent
    uint16_t wait               # passes before it begins: only for the first generation
    uint8_t  step               # which segment comes next
    uint8_t  flags              # LIFE_...
    uint8_t  used               # how often its 4-tuple has been opened before
    uint8_t  spare


cdef struct Churn:
    Life    *lives              # (active,)
    uint32_t active
    uint32_t bits               # turns are taken in an order that a permutation of 2^bits numbers gives
    uint32_t at                 # how far this pass has come, 0 to 2^bits
    uint32_t keys[4]            # of this pass's permutation
    uint32_t numbers            # 4-tuples used so far
    uint32_t flooded            # SYNs of the flood so far
    uint32_t seed
    uint64_t random             # state of the generator of chance
    ns_t     now_ns
    uint32_t fraction           # 2^-32 ns
    uint64_t step_ns            # between two turns
    uint32_t step_fraction
    uint64_t begun              # connections opened, the flood's not counted
    uint64_t finished
    uint64_t segments
    uint32_t ipv6, reset, reuse, flood          # probabilities, times 2^32 - 1
    uint32_t longest
    uint32_t stagger            # passes over which the first generation begins
    uint32_t ahead[32]          # lives whose turns come next
    uint32_t ahead_n
    uint32_t ahead_at
    bint     flooding           # the flood's segment of this turn is out, the turn's own is not

cdef size_t churn_fill(Churn *c, Segment *out, size_t n) noexcept nogil


cdef class ChurnStream:
    cdef Churn churn
    cdef readonly object mix            # the Mix
    cdef readonly object seed
    cdef readonly Py_ssize_t connections
    cdef readonly object turns          # mean segments of one connection, and so turns of its place
