"""Rows for long connections before they end: at every mark, SECONDS of the capture's time apart, one for each connection
that has lived that long and is not over.

Segments before a mark are applied before its rows are made, and none behind it, so the rows do not depend on how
segments come together in batches. A pass over the table stops when enough entries wait and is taken up again, so that
memory is bounded by that. Cost: a look at each row of the table a mark, and an entry a row.

What must not stand here: what an entry tells.
"""

from libc.stdint cimport INT64_MAX, uint8_t

from fasttcp.core.layout cimport Row
from fasttcp.core.names cimport S_CLOSED, S_TIME_WAIT
from fasttcp.core.pipeline cimport observe_batch
from fasttcp.core.store cimport store_cold, store_in_use
from fasttcp.core.summary cimport LIVE
from fasttcp.core.tap cimport ROW_BLANK
from fasttcp.observe.journal cimport END_INTERIM, journal_entry, new_entry
from fasttcp.observe.page cimport SHORT_HISTORY, Entry, copy_history


cdef inline bint over(uint8_t state) noexcept nogil:
    return state == S_CLOSED or state == S_TIME_WAIT


cdef inline bint is_due(const Interim *m, Observer *o, row_t row) noexcept nogil:
    cdef const Row *line = &o.engine.table.rows[row]
    if not store_in_use(&o.engine.table, row):
        return False
    if over(line.state[0]) and over(line.state[1]) and not line.flags & ROW_BLANK:
        return False                                # its last row is under way
    return store_cold(&o.engine.table, row).first_ns <= m.mark_ns - m.every_ns


cdef void interim_pass(Interim *m, Journal *j, Observer *o, size_t entries) noexcept nogil:
    """Go on with the rows of the mark at hand until the table ends or enough entries wait."""
    cdef row_t end = <row_t>min(j.capacity, <size_t>o.engine.table.high)
    cdef Entry *e
    while m.row < end:
        if j.n_entries >= entries or j.failed:
            return
        if is_due(m, o, m.row):
            e = new_entry(j)
            if e == NULL:
                return
            journal_entry(j, o, m.row, LIVE, m.mark_ns, e)
            e.end = END_INTERIM
            e.number = 0                            # it has none before it ends
            if e.long_history != NULL:
                e.long_history = copy_history(j, m.row)
                if e.long_history == NULL:
                    e.letters = SHORT_HISTORY
        m.row += 1
    m.passing = False


cdef inline int64_t following(const Interim *m, int64_t time_ns) noexcept nogil:
    """The first mark behind a time, on the grid that the first segment began."""
    cdef int64_t steps = (time_ns - m.next_ns) // m.every_ns + 1
    if steps > (INT64_MAX - m.next_ns) // m.every_ns:
        return INT64_MAX
    return m.next_ns + steps * m.every_ns


cdef size_t interim_apply(
    Interim *m, Journal *j, Observer *o, const Segment *segments, size_t n, Verdict *verdicts, size_t entries
) noexcept nogil:
    """Apply segments up to the first mark whose rows do not fit any more; how many were applied."""
    cdef size_t i = 0, done = 0
    if m.passing:
        interim_pass(m, j, o, entries)
        if m.passing:
            return 0
    if m.next_ns == 0 and n:
        m.next_ns = segments[0].time_ns
        m.next_ns = following(m, segments[0].time_ns)
    while i < n:
        if segments[i].time_ns >= m.next_ns:
            observe_batch(o, segments + done, i - done, verdicts)
            done = i
            m.mark_ns = m.next_ns
            m.next_ns = following(m, segments[i].time_ns)
            m.row = 0
            m.passing = True
            interim_pass(m, j, o, entries)
            if m.passing:
                return done
        i += 1
    observe_batch(o, segments + done, n - done, verdicts)
    return n
