# What is expected of a peer's answer, and how far it has come; see answer.pyx.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fasttcp.core.layout cimport seq_t

cdef enum:                      # Expect.end: where an answer ends
    END_NOTHING = 0             # there is none
    END_BYTES = 1               # after so many bytes
    END_LINE = 2                # with its first line
    END_CLOSE = 3               # with the peer's FIN
    END_LENGTH = 4              # as the Content-Length of an HTTP head says

cdef enum:                      # what answer_feed says
    ANSWER_MORE = 0
    ANSWER_DONE = 1
    ANSWER_WRONG = 2            # a first line that does not match, more than was to come, a head that makes no sense

cdef enum:
    HEAD_LIMIT = 1 << 16        # bytes that a head, or what waits behind a hole, may have
    UNTIL_CLOSE = 0xFFFFFFFFFFFFFFFF


cdef struct Expect:
    int       end
    uint64_t  nbytes            # of END_BYTES
    void     *line              # a compiled regular expression for the first line, or NULL


cdef struct Piece:              # data that came ahead of their turn
    Piece    *next
    seq_t     seq
    uint32_t  n
    uint8_t   bytes[1]


cdef struct Stash:              # exists only while a head is not complete and did not come in one piece
    Piece    *pieces
    uint32_t  n
    uint32_t  capacity
    uint32_t  waiting           # bytes in pieces
    uint8_t  *bytes


cdef struct Answer:             # 32 bytes; all zero before the first byte
    Stash    *stash
    uint64_t  received          # bytes, in order
    uint64_t  need              # all of it, 0 while unknown
    seq_t     next              # RCV.NXT as far as it has been fed
    uint8_t   headed            # the head (or first line) has been read
    uint8_t   lined             # the first line matched

# One segment's data: `delivered` bytes of the stream became readable with it, in order.
cdef int answer_segment(
    Answer *a, const Expect *x, seq_t seq, const uint8_t *data, uint32_t n, uint32_t delivered
) noexcept nogil
# The peer's FIN: whether the answer is complete with it.
cdef int answer_closed(const Answer *a, const Expect *x) noexcept nogil
cdef void answer_begin(Answer *a) noexcept nogil            # the next answer on the same connection
cdef void answer_drop(Answer *a) noexcept nogil
