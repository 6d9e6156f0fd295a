# What is expected of a peer's answer, and how far it has come; see answer.pyx.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fasttcp.core.layout cimport seq_t

cdef enum:                      # Expect.end: where an answer ends
    END_NOTHING = 0             # there is none
    END_BYTES = 1               # after so many bytes
    END_LINE = 2                # with its first line
    END_CLOSE = 3               # with the peer's FIN
    END_HTTP = 4                # as RFC 9112 section 6.3 says

cdef enum:                      # what answer_segment says
    ANSWER_MORE = 0
    ANSWER_DONE = 1
    ANSWER_WRONG = 2            # a first line that does not match, more than was to come, a head or chunk that makes no sense

cdef enum:                      # Answer.place: what the next byte belongs to
    IN_HEAD = 0                 # an HTTP head, or the first line
    IN_REST = 1                 # the `left` bytes that are still to come, nothing after them
    UNTIL_CLOSE = 2
    IN_CHUNK = 3                # the `left` bytes of a chunk's data. From here on a chunked body, RFC 9112 section 7.1:
    SIZE_BEGIN = 4              # the first digit of a chunk's size
    IN_SIZE = 5                 # the next one, or what ends them
    IN_EXTENSION = 6            # the rest of that line
    CHUNK_CR = 7                # the CR LF behind a chunk's data
    CHUNK_LF = 8
    LINE_BEGIN = 9              # a line of the trailer section, or the empty one that ends all
    IN_TRAILER = 10             # the rest of that line
    LAST_LF = 11                # of the empty line

cdef enum:
    HEAD_LIMIT = 1 << 16        # bytes that a head may have, with those of 1xx before it
    AHEAD_LIMIT = 1 << 20       # bytes kept behind a hole: more than the receive window, unless that was made larger


cdef struct Expect:
    int       end
    uint64_t  nbytes            # of END_BYTES
    void     *line              # a compiled regular expression for the first line, or NULL
    bint      bodiless          # of END_HTTP: the request is a HEAD, so no answer has a body


cdef struct Piece:              # data that came ahead of their turn
    Piece    *next
    seq_t     seq
    uint32_t  n
    uint8_t   bytes[1]


cdef struct Stash:              # exists only while a head is in pieces, or something waits behind a hole
    Piece    *pieces
    uint32_t  n                 # of a head so far
    uint32_t  capacity
    uint32_t  waiting           # bytes in pieces
    uint8_t  *bytes


cdef struct Answer:             # 24 bytes; all zero before the first byte
    Stash    *stash
    uint64_t  left              # bytes, of what `place` says; of IN_SIZE the size so far
    seq_t     next              # RCV.NXT as far as it has been fed
    uint8_t   place
    uint8_t   begun             # its first byte has come
    uint8_t   lined             # the first line matched
    uint8_t   status            # of END_HTTP, the first digit: 1 to 5; 0 until the line is there

# One segment's data: `delivered` bytes of the stream became readable with it, in order.
cdef int answer_segment(
    Answer *a, const Expect *x, seq_t seq, const uint8_t *data, uint32_t n, uint32_t delivered
) noexcept nogil
# The peer's FIN: whether the answer is complete with it.
cdef int answer_closed(const Answer *a, const Expect *x) noexcept nogil
cdef void answer_begin(Answer *a) noexcept nogil            # the next answer on the same connection
cdef void answer_drop(Answer *a) noexcept nogil
