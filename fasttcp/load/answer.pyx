"""Reading answers: bytes are counted; only a head (the first line, or HTTP's) is looked at, once, and then forgotten.

The endpoint seat says how many bytes became readable with a segment, in order; the bytes themselves are in the packet,
which is gone after the batch. So data that came ahead of their turn are kept here until the hole before them is
filled, but only while a head is still being read: afterwards their number is enough.

Cost: nothing is allocated while a head comes in one segment, as nearly always.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcpy, memset

from fasttcp.core.layout cimport seq_le, seq_lt, seq_t
from fasttcp.load.system cimport sys_regex_match

__all__: list[str] = []

cdef enum:
    LINE_LIMIT = 1024


cdef void answer_begin(Answer *a) noexcept nogil:
    cdef seq_t next = a.next
    answer_drop(a)
    memset(a, 0, sizeof(Answer))
    a.next = next


cdef void answer_drop(Answer *a) noexcept nogil:
    cdef Piece *piece
    if a.stash == NULL:
        return
    while a.stash.pieces != NULL:
        piece = a.stash.pieces
        a.stash.pieces = piece.next
        free(piece)
    free(a.stash.bytes)
    free(a.stash)
    a.stash = NULL


cdef Stash *_stash(Answer *a) noexcept nogil:
    if a.stash == NULL:
        a.stash = <Stash *>calloc(1, sizeof(Stash))
    return a.stash


cdef int _matches(const Expect *x, const uint8_t *line, uint32_t n) noexcept nogil:
    cdef char text[LINE_LIMIT]
    if n > 0 and line[n - 1] == 13:
        n -= 1
    if n >= LINE_LIMIT:
        n = LINE_LIMIT - 1
    memcpy(text, line, n)
    text[n] = 0
    return sys_regex_match(x.line, text)


cdef bint _is_name(const uint8_t *p, const char *name, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if (p[i] | 0x20) != name[i]:
            return False
    return True


cdef bint _http_head(const uint8_t *p, uint32_t n, uint64_t *whole) noexcept nogil:
    """Whether the blank line that ends the head is there, and then the bytes of head and body (UNTIL_CLOSE: no
    Content-Length). RFC 9112 section 6.3."""
    cdef uint32_t at = 0, end
    cdef uint64_t length = UNTIL_CLOSE
    cdef const uint8_t *found
    cdef uint32_t digit
    while at < n:
        found = <const uint8_t *>memchr(p + at, 10, n - at)
        if found == NULL:
            return False
        end = <uint32_t>(found - p)
        if end == at or (end == at + 1 and p[at] == 13):
            whole[0] = length if length == UNTIL_CLOSE else end + 1 + length
            return True
        if end - at > 15 and _is_name(p + at, b"content-length", 14) and p[at + 14] == 58:
            at += 15
            while at < end and (p[at] == 32 or p[at] == 9):
                at += 1
            length = 0
            while at < end and 48 <= p[at] <= 57 and length < <uint64_t>1 << 56:
                digit = p[at] - 48
                length = length * 10 + digit
                at += 1
        at = end + 1
    return False


cdef int _check(const Answer *a, const Expect *x) noexcept nogil:
    if a.need == 0 or a.need == UNTIL_CLOSE or a.received < a.need:
        return ANSWER_MORE
    return ANSWER_DONE if a.received == a.need else ANSWER_WRONG


cdef int _head(Answer *a, const Expect *x, const uint8_t *p, uint32_t n) noexcept nogil:
    """All of the answer so far, n bytes: its head is looked for."""
    cdef const uint8_t *found
    cdef uint32_t line
    if x.line != NULL and not a.lined:
        found = <const uint8_t *>memchr(p, 10, n)
        if found == NULL and n < LINE_LIMIT:
            return ANSWER_MORE
        line = n if found == NULL else <uint32_t>(found - p)
        if not _matches(x, p, line):
            return ANSWER_WRONG
        a.lined = True
    if x.end == END_LINE:
        if memchr(p, 10, n) == NULL:
            return ANSWER_MORE
        a.headed = True
        a.need = a.received
        return ANSWER_DONE
    if x.end == END_LENGTH:
        if not _http_head(p, n, &a.need):
            return ANSWER_MORE
    elif x.end == END_BYTES:
        a.need = x.nbytes
    else:
        a.need = UNTIL_CLOSE
    a.headed = True
    return _check(a, x)


cdef int _feed(Answer *a, const Expect *x, const uint8_t *p, uint32_t n) noexcept nogil:
    """The next n bytes of the stream."""
    cdef Stash *s
    cdef uint8_t *more
    cdef int said
    a.received += n
    if a.headed:
        return _check(a, x)
    if a.stash == NULL or a.stash.n == 0:
        said = _head(a, x, p, n)
        if a.headed or said == ANSWER_WRONG:
            return said
    s = _stash(a)
    if s == NULL or s.n + n > HEAD_LIMIT:
        return ANSWER_WRONG
    if s.n + n > s.capacity:
        more = <uint8_t *>realloc(s.bytes, s.n + n + 512)
        if more == NULL:
            return ANSWER_WRONG
        s.bytes = more
        s.capacity = s.n + n + 512
    memcpy(s.bytes + s.n, p, n)
    s.n += n
    if s.n == n:
        return ANSWER_MORE                  # it was looked at above
    return _head(a, x, s.bytes, s.n)


cdef void _keep(Answer *a, seq_t seq, const uint8_t *data, uint32_t n) noexcept nogil:
    """Data that came ahead of their turn. Where there is no room they are forgotten, and the answer counts as wrong."""
    cdef Stash *s = _stash(a)
    cdef Piece *piece
    if s == NULL or s.waiting + n > HEAD_LIMIT:
        return
    piece = <Piece *>malloc(sizeof(Piece) + n)
    if piece == NULL:
        return
    memcpy(&piece.bytes[0], data, n)
    piece.seq = seq
    piece.n = n
    piece.next = s.pieces
    s.pieces = piece
    s.waiting += n


cdef const Piece *_piece_at(const Answer *a, seq_t seq) noexcept nogil:
    cdef const Piece *piece = NULL if a.stash == NULL else a.stash.pieces
    while piece != NULL:
        if seq_le(piece.seq, seq) and seq_lt(seq, piece.seq + piece.n):
            return piece
        piece = piece.next
    return NULL


cdef int answer_segment(
    Answer *a, const Expect *x, seq_t seq, const uint8_t *data, uint32_t n, uint32_t delivered
) noexcept nogil:
    cdef seq_t end = a.next + delivered
    cdef const Piece *piece
    cdef uint32_t take
    cdef int said = ANSWER_MORE
    if delivered == 0:
        if not a.headed and n != 0 and seq_lt(a.next, seq):
            _keep(a, seq, data, n)
        return ANSWER_MORE
    while a.next != end and said == ANSWER_MORE:
        if a.headed:
            a.received += end - a.next
            a.next = end
            said = _check(a, x)
        elif seq_le(seq, a.next) and seq_lt(a.next, seq + n):
            take = seq + n - a.next
            if seq_lt(end, seq + n):
                take = end - a.next
            data += a.next - seq
            n -= a.next - seq
            seq = a.next
            said = _feed(a, x, data, take)
            a.next += take
        else:
            piece = _piece_at(a, a.next)
            if piece == NULL:
                said = ANSWER_WRONG
                break
            take = piece.seq + piece.n - a.next
            if seq_lt(end, piece.seq + piece.n):
                take = end - a.next
            said = _feed(a, x, &piece.bytes[0] + (a.next - piece.seq), take)
            a.next += take
    if a.next != end:                       # done, or wrong, before all of it was read
        a.next = end
        said = ANSWER_WRONG
    if a.headed and a.stash != NULL:
        answer_drop(a)
    return said


cdef int answer_closed(const Answer *a, const Expect *x) noexcept nogil:
    """RFC 9112 section 6.3: without a length the close is the end."""
    if x.line != NULL and not a.lined:
        return ANSWER_WRONG
    if x.end == END_CLOSE or (x.end == END_LENGTH and a.headed and a.need == UNTIL_CLOSE):
        return ANSWER_DONE
    return ANSWER_WRONG
