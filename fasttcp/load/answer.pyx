"""Reading answers: bytes are counted; only what frames them (the first line, HTTP's head, the sizes of chunks) is looked at.

The endpoint seat says how many bytes became readable with a segment, in order; the bytes themselves are in the packet, which
is gone after the batch. So data that came ahead of their turn are kept here until the hole before them is filled, but not
where their number is enough: in a body of known length, or within a chunk.

    IN_HEAD -> IN_REST, or UNTIL_CLOSE, or
               SIZE_BEGIN -> IN_SIZE (-> IN_EXTENSION) -> IN_CHUNK -> CHUNK_CR -> CHUNK_LF -> SIZE_BEGIN ...
                                                       -> LINE_BEGIN (-> IN_TRAILER -> LINE_BEGIN) -> LAST_LF    after a size of 0

What a head says is read in http1.pyx. Invariant: what has been read is kept no longer, and where nothing more will be looked at
there is no stash.

Cost: nothing is allocated while a head comes in one segment, as nearly always, and no segment overtakes another; what a
chunked body is framed by is read where it lies, however segments cut it. No byte of a body is touched.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcpy, memset

from fasttcp.core.layout cimport seq_le, seq_lt, seq_t
from fasttcp.load.http1 cimport HEAD_MORE, HEAD_WRONG, Head, http_head
from fasttcp.load.system cimport sys_regex_match

__all__: list[str] = []

cdef enum:
    LINE_LIMIT = 1024           # bytes of a first line
    HT = 9
    LF = 10
    CR = 13
    SP = 32
    SEMICOLON = 59


# ---- what is kept ----------------------------------------------------------------------------------------------------

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


cdef void _tidy(Answer *a) noexcept nogil:
    """What has been read, or will not be looked at, is kept no longer."""
    cdef Piece **link = &a.stash.pieces
    cdef Piece *piece
    while link[0] != NULL:
        piece = link[0]
        if seq_lt(a.next, piece.seq + piece.n):
            link = &piece.next
            continue
        link[0] = piece.next
        a.stash.waiting -= piece.n
        free(piece)
    if a.place == IN_HEAD:
        return
    if a.place == IN_REST or a.place == UNTIL_CLOSE or a.stash.pieces == NULL:
        answer_drop(a)
        return
    free(a.stash.bytes)
    a.stash.bytes = NULL
    a.stash.n = a.stash.capacity = 0


cdef uint32_t _unread(const Answer *a, uint32_t n) noexcept nogil:
    """How many of the next n bytes need not be looked at."""
    if a.place == IN_REST or a.place == UNTIL_CLOSE:
        return n
    if a.place == IN_CHUNK:
        return n if n < a.left else <uint32_t>a.left
    return 0


cdef void _keep(Answer *a, seq_t seq, const uint8_t *data, uint32_t n) noexcept nogil:
    """Data that came ahead of their turn. Where there is no room they are forgotten, and the answer counts as wrong."""
    cdef uint32_t end = seq + n - a.next            # counted from what comes next
    cdef Stash *s
    cdef Piece *piece
    if _unread(a, end) == end:
        return
    s = _stash(a)
    if s == NULL:
        return
    piece = s.pieces
    while piece != NULL:                            # sent again, because an ACK was late
        if seq_le(piece.seq, seq) and seq_le(seq + n, piece.seq + piece.n):
            return
        piece = piece.next
    if s.waiting + n > AHEAD_LIMIT:
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


# ---- bodies ----------------------------------------------------------------------------------------------------------

cdef int _pass(Answer *a, uint32_t n) noexcept nogil:
    """The next n bytes, of those that need not be looked at."""
    if a.place == UNTIL_CLOSE:
        return ANSWER_MORE
    if n > a.left:
        return ANSWER_WRONG
    a.left -= n
    if a.left != 0:
        return ANSWER_MORE
    if a.place == IN_REST:
        return ANSWER_DONE
    a.place = CHUNK_CR
    return ANSWER_MORE


cdef inline int _hex(uint8_t c) noexcept nogil:
    """The value of a hexadecimal digit; -1: it is none."""
    if 48 <= c <= 57:
        return c - 48
    c |= 0x20
    return c - 87 if 97 <= c <= 102 else -1


cdef int _chunked(Answer *a, const uint8_t *p, uint32_t n) noexcept nogil:
    """The next n bytes of a chunked body. A line may end with LF alone, as those of a head; of a line that extends a size or is
    part of the trailer section only the end is looked for."""
    cdef const uint8_t *end = p + n
    cdef uint32_t unread
    cdef int digit
    cdef uint8_t c
    while p != end:
        if a.place == IN_CHUNK:
            unread = _unread(a, <uint32_t>(end - p))
            _pass(a, unread)
            p += unread
            continue
        if a.place == IN_EXTENSION or a.place == IN_TRAILER:
            p = <const uint8_t *>memchr(p, LF, end - p)
            if p == NULL:
                return ANSWER_MORE
        c = p[0]
        p += 1
        digit = _hex(c) if a.place == SIZE_BEGIN or a.place == IN_SIZE else -1
        if digit >= 0:
            if a.left >> 56 != 0:
                return ANSWER_WRONG
            a.left = a.left << 4 | <uint32_t>digit
            a.place = IN_SIZE
        elif c == LF:
            if a.place == IN_SIZE or a.place == IN_EXTENSION:
                a.place = IN_CHUNK if a.left != 0 else LINE_BEGIN
            elif a.place == CHUNK_CR or a.place == CHUNK_LF:
                a.place = SIZE_BEGIN
            elif a.place == IN_TRAILER:
                a.place = LINE_BEGIN
            elif a.place == LINE_BEGIN or a.place == LAST_LF:
                a.place = IN_REST                   # of which nothing is left
                return ANSWER_DONE if p == end else ANSWER_WRONG
            else:
                return ANSWER_WRONG
        elif a.place == IN_SIZE and (c == CR or c == SEMICOLON or c == SP or c == HT):
            a.place = IN_EXTENSION
        elif a.place == CHUNK_CR and c == CR:
            a.place = CHUNK_LF
        elif a.place == LINE_BEGIN:
            a.place = LAST_LF if c == CR else IN_TRAILER
        else:
            return ANSWER_WRONG
    return ANSWER_MORE


cdef int _body(Answer *a, const uint8_t *p, uint32_t n) noexcept nogil:
    return _pass(a, n) if a.place == IN_REST or a.place == UNTIL_CLOSE else _chunked(a, p, n)


# ---- heads -----------------------------------------------------------------------------------------------------------

cdef bint _matches(Answer *a, const Expect *x, const uint8_t *line, uint32_t n) noexcept nogil:
    """Whether the first line is as expected; asked once."""
    cdef char text[LINE_LIMIT]
    if x.line == NULL or a.lined:
        return True
    if n > 0 and line[n - 1] == CR:
        n -= 1
    if n >= LINE_LIMIT:
        n = LINE_LIMIT - 1
    memcpy(text, line, n)
    text[n] = 0
    a.lined = sys_regex_match(x.line, text) != 0
    return a.lined


cdef int _http(Answer *a, const Expect *x, const uint8_t *p, uint32_t n) noexcept nogil:
    """All of an HTTP answer so far. Where its body ends: RFC 9112 section 6.3, whose items the numbers are."""
    cdef Head h
    cdef int said
    while True:
        said = http_head(p, n, &h)
        if said == HEAD_WRONG or (h.status == 0 and n >= LINE_LIMIT):
            return ANSWER_WRONG
        if h.status == 0:
            return ANSWER_MORE
        if h.status >= 200 or h.status == 101:      # after 101 it is HTTP no longer (RFC 9110 section 15.2.2)
            break
        if said == HEAD_MORE:
            return ANSWER_MORE
        p += h.bytes                                # 1. another 1xx: the answer is still to come
        n -= h.bytes
    a.status = <uint8_t>(h.status // 100 if h.status < 600 else 5)      # RFC 9110 section 15: others count as 5xx
    if not _matches(a, x, p, h.line):
        return ANSWER_WRONG
    if said == HEAD_MORE:
        return ANSWER_MORE
    a.place = IN_REST
    if x.bodiless or h.status == 101 or h.status == 204 or h.status == 304:
        a.left = 0                                  # 1.
    elif h.chunked:
        a.place = SIZE_BEGIN                        # 3. and 4.
    elif h.coded:
        a.place = UNTIL_CLOSE                       # 4.
    elif h.miscounted:
        return ANSWER_WRONG                         # 5.
    elif h.counted:
        a.left = h.length                           # 6.
    else:
        a.place = UNTIL_CLOSE                       # 8.
    return _body(a, p + h.bytes, n - h.bytes)


cdef int _head(Answer *a, const Expect *x, const uint8_t *p, uint32_t n) noexcept nogil:
    """All of the answer so far, n bytes: its head is looked for. Another place than IN_HEAD afterwards: it was found."""
    cdef const uint8_t *found = NULL
    if x.end == END_HTTP:
        return _http(a, x, p, n)
    if x.line != NULL or x.end == END_LINE:
        found = <const uint8_t *>memchr(p, LF, n)
        if found == NULL and (n < LINE_LIMIT or a.lined):
            return ANSWER_MORE
        if not _matches(a, x, p, n if found == NULL else <uint32_t>(found - p)):
            return ANSWER_WRONG
    if x.end == END_LINE:
        if found == NULL:
            return ANSWER_MORE
        a.place = IN_REST
        return ANSWER_DONE
    a.place = UNTIL_CLOSE if x.end == END_CLOSE else IN_REST
    a.left = x.nbytes
    return _body(a, p, n)


cdef int _feed(Answer *a, const Expect *x, const uint8_t *p, uint32_t n) noexcept nogil:
    """The next n bytes of the stream."""
    cdef Stash *s
    cdef uint8_t *more
    cdef uint32_t take
    cdef int said
    cdef bint first = a.stash == NULL or a.stash.n == 0
    if a.place != IN_HEAD:
        return _body(a, p, n)
    if first:
        said = _head(a, x, p, n)
        if a.place != IN_HEAD or said == ANSWER_WRONG:
            return said
    s = _stash(a)
    if s == NULL:
        return ANSWER_WRONG
    take = n if n < HEAD_LIMIT - s.n else HEAD_LIMIT - s.n      # a large segment may have the end of a head, and much beyond
    if s.n + take > s.capacity:
        more = <uint8_t *>realloc(s.bytes, s.n + take + 512)
        if more == NULL:
            return ANSWER_WRONG
        s.bytes = more
        s.capacity = s.n + take + 512
    memcpy(s.bytes + s.n, p, take)
    s.n += take
    if take == n:
        return ANSWER_MORE if first else _head(a, x, s.bytes, s.n)
    said = _head(a, x, s.bytes, s.n)
    return _body(a, p + take, n - take) if said == ANSWER_MORE and a.place != IN_HEAD else ANSWER_WRONG


# ---- segments --------------------------------------------------------------------------------------------------------

cdef int answer_segment(
    Answer *a, const Expect *x, seq_t seq, const uint8_t *data, uint32_t n, uint32_t delivered
) noexcept nogil:
    cdef seq_t end = a.next + delivered
    cdef const Piece *piece
    cdef uint32_t take
    cdef int said = ANSWER_MORE
    if delivered == 0:
        if n != 0 and seq_lt(a.next, seq):
            _keep(a, seq, data, n)
        return ANSWER_MORE
    a.begun = True
    while a.next != end and said == ANSWER_MORE:
        take = _unread(a, end - a.next)
        if take != 0:
            said = _pass(a, take)
        elif seq_le(seq, a.next) and seq_lt(a.next, seq + n):
            take = seq + n - a.next
            if seq_lt(end, seq + n):
                take = end - a.next
            said = _feed(a, x, data + (a.next - seq), take)
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
    if a.stash != NULL:
        _tidy(a)
    return said


cdef int answer_closed(const Answer *a, const Expect *x) noexcept nogil:
    """RFC 9112 section 6.3, item 8: without a length the close is the end."""
    if x.line != NULL and not a.lined:
        return ANSWER_WRONG
    if x.end == END_CLOSE or (x.end == END_HTTP and a.place == UNTIL_CLOSE):
        return ANSWER_DONE
    return ANSWER_WRONG
