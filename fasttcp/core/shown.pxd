# One segment as Python hands it in, without the cost of the buffer protocol: for calls that take no longer themselves.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from fasttcp.core.layout cimport Segment
from fasttcp.core.segments cimport SegmentBatch

cdef extern from "shown.h":
    const void *fasttcp_shown(object view, Py_ssize_t n) noexcept


cdef inline const Segment *segment_shown(object source) noexcept:
    """The one segment that bytes, a SegmentBatch or a memoryview shows; NULL for anything else. It may be gone as soon as
    other Python code runs."""
    cdef const char *at
    if type(source) is bytes:
        at = PyBytes_AS_STRING(source)
        if PyBytes_GET_SIZE(source) != sizeof(Segment):
            return NULL
    elif type(source) is SegmentBatch:
        if (<SegmentBatch>source).count != 1:
            return NULL
        at = <const char *>(<SegmentBatch>source).records
    else:
        at = <const char *>fasttcp_shown(source, sizeof(Segment))
    return <const Segment *>at if <size_t>at % 8 == 0 else NULL
