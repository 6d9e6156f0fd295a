# For cimport: segments out of a capture without going through Python. A loop above this floor reads
#
#     while True:
#         n = read_segments(reader, segments, NULL, 256)
#         if n <= 0: break            # 0: the end; -1: an exception is set
#
# with the GIL released; the reader takes the GIL only to move its window on, once in 4 MiB of a mapped file, and then sees
# whether that is as long as it was. Call reader_look before such a loop: time may have passed since the last one.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fasttcp.core.layout cimport Segment
from fasttcp.packets.capture cimport Frame, Step, Walker
from fasttcp.packets.layers cimport Decoder


# Where a segment came from: for messages and for reading it again.
cdef struct Place:
    uint64_t offset             # of its record in the (decompressed) file
    uint64_t packet             # its number in the file, from 1, as tcpdump and Wireshark count


cdef struct Feed:
    Walker walker
    Decoder decoder
    Frame frame                 # the one at hand, while decoder.resume says it is not done
    Step step                   # why the last filling stopped short
    uint32_t unknown_link       # of the first packet whose link type is not known, and ...
    uint64_t unknown_offset     # ... where that packet is


cdef class CaptureReader:
    cdef Feed feed
    cdef object source          # fasttcp.packets.source.Source
    cdef object window          # what keeps feed.walker.base alive: a buffer of the mapping, or of the stream's bytes
    cdef uint64_t mapped        # bytes at walker.base that belong to the file; 0: a stream
    cdef uint64_t released      # bytes of the mapping that were handed back to the system
    cdef bint follow
    cdef bint ended
    cdef bint busy
    cdef readonly object damage


cdef Py_ssize_t read_segments(CaptureReader reader, Segment* out, Place* places, Py_ssize_t room) except -1 nogil
cdef int reader_look(CaptureReader reader) except -1
