# For cimport: fill or read a batch without going through Python. `records` stays where it is while `exports` is not 0.

from fasttcp.core.layout cimport Segment as SegmentRecord


cdef class SegmentBatch:
    cdef SegmentRecord* records     # (capacity,) of them, the first `count` hold segments
    cdef readonly Py_ssize_t capacity
    cdef Py_ssize_t count           # len(); set by whoever filled `records` from C
    cdef readonly Py_ssize_t exports    # views of this batch that other objects hold at present
    cdef readonly bint writable     # false when it stands on somebody's read-only buffer
    cdef bint _is_lent              # the memory is a caller's, not the batch's own
    cdef Py_buffer _lent
    cdef Py_ssize_t _strides[1]
    cdef object __weakref__


# The n segments of a batch or of any other buffer of them, to be released by PyBuffer_Release; SegmentError for what is none.
cdef size_t segments_shown(object source, Py_buffer *view) except? 0
