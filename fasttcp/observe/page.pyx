"""Pages and margins of a journal: making them ready, their letters, the sizes that sequence numbers tell; see page.pxd.

What must not stand here: which segment earns a letter, what a state is. Cost: a letter is one store while it fits the
page.
"""

from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport malloc, realloc
from libc.string cimport memcpy, memset

from fasttcp.core.layout cimport row_t
from fasttcp.core.memory cimport pages_use

cdef enum:
    STEP_ROWS = 16384
    LONGEST_HISTORY = 1 << 16   # letters; what comes after is not kept: only an attack has so many


cdef bint journal_grow(Journal *j, row_t row) noexcept nogil:
    """Make the page of `row` usable. False: there is no memory, and j.failed says so."""
    cdef size_t rows = (<size_t>row // STEP_ROWS + 1) * STEP_ROWS
    if rows > j.most:
        rows = j.most
    if pages_use(&j.pages_block, rows * sizeof(Page)) or pages_use(&j.margins_block, rows * sizeof(Margin)):
        j.failed = True
        return False
    j.capacity = rows
    return True


cdef Margin *margin_of(Journal *j, row_t row) noexcept nogil:
    """The margin of a row, made ready at its first use."""
    if not j.pages[row].flags & P_MARGIN:
        memset(&j.margins[row], 0, sizeof(Margin))
        j.pages[row].flags |= P_MARGIN
    return &j.margins[row]


# ---- letters and sizes -----------------------------------------------------------------------------------------------

cdef void add_late_letter(Journal *j, row_t row, char letter) noexcept nogil:
    cdef Margin *m = margin_of(j, row)
    cdef uint32_t length = m.history_size
    cdef char *moved
    if m.history == NULL:
        length = SHORT_HISTORY
    if length >= LONGEST_HISTORY:
        return
    if m.history == NULL or length & (length - 1) == 0:     # full at every power of two
        moved = <char *>realloc(m.history, 64 if length < 32 else length * 2)
        if moved == NULL:
            j.failed = True
            return
        if m.history == NULL:
            memcpy(moved, j.pages[row].history, SHORT_HISTORY)
        m.history = moved
    m.history[length] = letter
    m.history_size = length + 1


cdef void add_counted(Journal *j, row_t row, char letter, uint32_t *counter) noexcept nogil:
    """A letter for the 1st, 10th, 100th ... time."""
    cdef uint32_t n = counter[0] + 1
    counter[0] = n
    while n >= 10 and n % 10 == 0:
        n //= 10
    if n == 1:
        add_letter(j, row, letter)


cdef inline int64_t acked_number(const Journal *j, row_t row, int s) noexcept nogil:
    return (<int64_t>ack_wraps(j, row, s) << 32) + j.pages[row].side[s].acked


cdef bint nothing_acked(const Journal *j, row_t row, int s) noexcept nogil:
    """No data of side `s` were acknowledged; its SYN may be."""
    cdef int64_t beyond = acked_number(j, row, s) - j.pages[row].side[s].start
    return beyond == 0 or beyond == 1


cdef int64_t wrapped_end(const Journal *j, row_t row, int s) noexcept nogil:
    """The end of what side `s` has sent, in 64 bits: its highest number, or the highest that was acknowledged."""
    return max((<int64_t>last_wraps(j, row, s) << 32) + j.pages[row].side[s].last, acked_number(j, row, s))


cdef char *copy_history(Journal *j, row_t row) noexcept nogil:
    """A copy of a long history, to be freed by the caller; NULL when there is no memory."""
    cdef const Margin *m = &j.margins[row]
    cdef char *copy = <char *>malloc(m.history_size)
    if copy == NULL:
        j.failed = True
    else:
        memcpy(copy, m.history, m.history_size)
    return copy
