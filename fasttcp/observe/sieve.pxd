# Filters over entries; see sieve.pyx. where.py writes the programs.

from libc.stdint cimport uint8_t, uint16_t

from fasttcp.observe.page cimport Entry

cdef enum:
    OP_STATES                   # an end (`side`, 2: either) is in one of `states`, a bit for each State
    OP_PORT                     # `compare` the port of `side` to `port`
    OP_NET                      # the first `prefix` bits of the address of `side`; port: the IP version that is meant
    OP_AND
    OP_OR
    OP_NOT

cdef enum:
    CMP_EQ
    CMP_NE
    CMP_GT
    CMP_LT
    CMP_GE
    CMP_LE

cdef struct Op:                 # 24 bytes, no padding
    uint8_t  kind
    uint8_t  side
    uint8_t  compare
    uint8_t  prefix
    uint16_t port
    uint16_t states
    uint8_t  addr[16]

cdef bint passes(const Op *program, size_t n, const Entry *e) noexcept nogil
cdef size_t sift(const Op *program, size_t n, Entry *entries, size_t count) noexcept nogil
