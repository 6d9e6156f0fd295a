# The observer's front door: one segment, or many in their order. See pipeline.pyx.

from libc.stdint cimport uint32_t

from fasttcp.core.hash cimport Key
from fasttcp.core.layout cimport Segment
from fasttcp.core.tap cimport Observer, Verdict

cdef enum:
    AHEAD = 48      # so many segments ahead of their keys they are asked for

cdef void observe(Observer *o, const Segment *segment, Verdict *verdict) noexcept nogil
cdef void observe_batch(Observer *o, const Segment *segments, size_t n, Verdict *verdicts) noexcept nogil
# The same for the segments numbered at[0] to at[n - 1] only; verdicts[i] is of at[i]. Behind at[n - 1] must stand the numbers
# of AHEAD more segments, which are asked for and not read.
cdef void observe_some(
    Observer *o, const Segment *segments, const uint32_t *at, size_t n, Verdict *verdicts
) noexcept nogil
# The same for segments whose keys were made before, by key_observed with this table's hash_key: perhaps in another thread.
cdef void observe_keyed(
    Observer *o, const Segment *segments, Key *keys, size_t n, Verdict *verdicts
) noexcept nogil
