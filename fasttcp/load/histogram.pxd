# A log-linear histogram of times; see histogram.pyx.

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    HIST_BITS = 7
    HIST_SUB = 1 << HIST_BITS           # bins in one octave
    HIST_OCTAVES = 36                   # beyond the first: up to 2^42 ns, 73 minutes; longer times count as that
    HIST_BINS = HIST_SUB * HIST_OCTAVES


cdef struct Hist:
    uint64_t bin[HIST_BINS]
    uint64_t count
    int64_t  least
    int64_t  most
    double   sum


cdef inline int hist_bin(int64_t ns) noexcept nogil:
    """Below 128 ns a bin each; above, 128 bins an octave: at most 0.8 % wide."""
    cdef int octave = 0
    cdef uint64_t v = <uint64_t>ns if ns > 0 else 0
    if v >= <uint64_t>1 << 42:
        return HIST_BINS - 1
    while v >> octave >= 2 * HIST_SUB:
        octave += 1
    if v < HIST_SUB:
        return <int>v
    return (octave + 1) * HIST_SUB + <int>((v >> octave) - HIST_SUB)


cdef inline void hist_add(Hist *h, int64_t ns) noexcept nogil:
    if ns < 0:
        ns = 0
    h.bin[hist_bin(ns)] += 1
    if h.count == 0 or ns < h.least:
        h.least = ns
    if ns > h.most:
        h.most = ns
    h.count += 1
    h.sum += ns


cdef class Histogram:
    cdef Hist h
