"""Connections as Arrow columns: an entry's values copied from where they stand, nothing by way of text that is no text.

    field                               Arrow column
    ts                                  timestamp[ns], UTC, without a zone
    duration, rtt                       float64, seconds; null where they are unset
    counts                              uint64; those of retransmissions uint32
    ports                               uint16
    proto, conn_state, ..._state, end   dictionary(int8, utf8)
    everything else                     utf8; null where it is unset

A stream pulls: each batch reads as much of the capture as it needs, so memory stays that of one batch. An error on the
way ends the stream, and its text is the stream's error.

What must not stand here: what a field means (logs.pyx), how Arrow's structs are built (core/arrow.pyx).
"""

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EIO, ENOMEM
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fasttcp.core.arrow cimport (
    NAME, NO_NULLS, PLAIN, ArrowArray, ArrowArrayStream, ArrowSchema, Field, Names, Plan, add_names, fill_schema,
    name_all, open_array, open_batch, release_array, schema_capsule, stream_capsule,
)
from fasttcp.observe.logs cimport (
    F_CONN_STATE, F_DURATION, F_END, F_HISTORY, F_IP_PROTO, F_PROTO, F_RTT, K_COUNT, K_COUNT_32, K_PORT, K_SIZE, K_TIME,
    K_UNSET, K_WORD, Layout, field_kind, field_place, layout_open, write_field,
)
from fasttcp.observe.page cimport Entry
from fasttcp.observe.text cimport WIDEST
from fasttcp.observe.tracker cimport Tracker, tracker_drop, tracker_entries

from fasttcp.observe.journal import CONN_STATES, ENDS
from fasttcp.observe.logs import FIELDS
from fasttcp.spec import State

__all__ = ["EntryStream"]

cdef object _END = object()

cdef enum:
    BATCH_ROWS = 65536
    BATCH_LETTERS = 1 << 28         # of histories: offsets have 31 bits

cdef enum Value:
    V_BYTES                         # copied, `width` bytes
    V_SIZE                          # the same, null without a duration
    V_SECONDS
    V_ONE                           # a word or number that is the same for all
    V_TEXT

cdef struct Recipe:
    Value value
    int field
    size_t place

cdef struct Kitchen:                # behind a stream
    Plan plan
    Recipe recipe[64]
    PyObject *owner                 # the EntryStream
    char error[512]

cdef Names STATES, CONNS, ENDINGS, PROTOS
name_all(&STATES, [state.name for state in State])
name_all(&CONNS, CONN_STATES)
name_all(&ENDINGS, ENDS)
name_all(&PROTOS, ["tcp"])


# ---- what becomes of a field -----------------------------------------------------------------------------------------

cdef int _choose(Recipe *recipe, Field *column, int field) except -1:
    cdef int kind = field_kind(field)
    recipe.field = field
    recipe.place = field_place(field)
    recipe.value = V_BYTES
    column.kind = PLAIN
    column.nulls_where = NO_NULLS
    if kind == K_COUNT or kind == K_SIZE:
        column.format, column.width = "L", 8
        if kind == K_SIZE:
            recipe.value, column.nulls_where = V_SIZE, 0
    elif kind == K_COUNT_32:
        column.format, column.width = "I", 4
    elif kind == K_PORT:
        column.format, column.width = "S", 2
    elif kind == K_TIME:
        column.format, column.width = "tsn:", 8
    elif kind == K_WORD:
        column.kind, column.format, column.width = NAME, "c", 1
        column.names = &CONNS if field == F_CONN_STATE else &ENDINGS if field == F_END else &STATES
    elif field == F_PROTO:
        recipe.value = V_ONE
        column.kind, column.format, column.width, column.names = NAME, "c", 1, &PROTOS
    elif field == F_IP_PROTO:
        recipe.value = V_ONE
        column.format, column.width = "C", 1
    elif field == F_DURATION or field == F_RTT:
        recipe.value = V_SECONDS
        column.format, column.width, column.nulls_where = "g", 8, 0
    else:
        recipe.value = V_TEXT
        column.format = "u"
        if kind == K_UNSET:
            column.nulls_where = 0
    return 0


cdef int _plan(Kitchen *kitchen, fields) except -1:
    cdef Layout layout
    cdef Field *column
    cdef int i
    if fields is not None and len(set(fields)) != len(fields):
        raise ValueError("a field is chosen twice: columns need different names")
    layout_open(&layout, "json", fields)
    memset(kitchen, 0, sizeof(Kitchen))
    kitchen.plan.count = layout.n
    known = list(FIELDS)
    for i in range(layout.n):
        column = &kitchen.plan.field[i]
        name = known[layout.field[i]].encode()
        memcpy(column.name, <const char *>name, len(name))
        _choose(&kitchen.recipe[i], column, layout.field[i])
    return 0


# ---- arrays ----------------------------------------------------------------------------------------------------------

cdef inline bint is_set(const Recipe *recipe, const Entry *e) noexcept nogil:
    if recipe.field == F_RTT:
        return e.rtt_ns > 0
    return e.last_ns > e.summary.first_ns


cdef int fill_values(
    ArrowArray *array, const Recipe *recipe, const Field *column, const Entry *entries, size_t n
) noexcept nogil:
    """0 or ENOMEM."""
    cdef size_t sizes[2]
    cdef const Entry *e
    cdef uint8_t *valid
    cdef char *values
    cdef size_t i
    cdef bint nulls = column.nulls_where != NO_NULLS
    sizes[0] = (n + 7) // 8 if nulls else 0
    sizes[1] = n * column.width + 1
    if open_array(array, n, 2, sizes) == NULL:
        return ENOMEM
    valid = <uint8_t *>array.buffers[0]
    values = <char *>array.buffers[1]
    if recipe.value == V_ONE:
        memset(values, 6 if recipe.field == F_IP_PROTO else 0, n)
        return 0
    for i in range(n):
        e = &entries[i]
        if recipe.value == V_SECONDS:
            (<double *>values)[i] = (e.rtt_ns if recipe.field == F_RTT else e.last_ns - e.summary.first_ns) / 1e9
        elif column.width == 8:
            (<uint64_t *>values)[i] = (<const uint64_t *>(<const char *>e + recipe.place))[0]
        elif column.width == 4:
            (<uint32_t *>values)[i] = (<const uint32_t *>(<const char *>e + recipe.place))[0]
        elif column.width == 2:
            (<uint16_t *>values)[i] = (<const uint16_t *>(<const char *>e + recipe.place))[0]
        else:
            (<uint8_t *>values)[i] = (<const uint8_t *>(<const char *>e + recipe.place))[0]
    if not nulls:
        return 0
    memset(valid, 0, sizes[0])
    for i in range(n):
        if is_set(recipe, &entries[i]):
            valid[i >> 3] |= <uint8_t>(1 << (i & 7))
        else:
            array.null_count += 1
            (<uint64_t *>values)[i] = 0
    return 0


cdef int fill_text(ArrowArray *array, const Recipe *recipe, const Entry *entries, size_t n) noexcept nogil:
    """0 or ENOMEM."""
    cdef size_t sizes[3]
    cdef int32_t *offsets
    cdef char *text
    cdef char *p
    cdef size_t i, room = n * WIDEST
    if field_is_unset(recipe.field):
        room = 0
    elif recipe.field == F_HISTORY:
        room = WIDEST
        for i in range(n):
            room += entries[i].letters
    sizes[0] = (n + 7) // 8 if room == 0 else 0
    sizes[1] = (n + 1) * sizeof(int32_t)
    sizes[2] = room + WIDEST
    if open_array(array, n, 3, sizes) == NULL:
        return ENOMEM
    offsets = <int32_t *>array.buffers[1]
    text = <char *>array.buffers[2]
    offsets[0] = 0
    if room == 0:
        memset(<void *>array.buffers[0], 0, sizes[0])
        memset(offsets, 0, sizes[1])
        array.null_count = n
        return 0
    p = text
    for i in range(n):
        p = write_field(p, recipe.field, &entries[i])
        offsets[i + 1] = <int32_t>(p - text)
    return 0


cdef inline bint field_is_unset(int field) noexcept nogil:
    return UNSET[field]


cdef int fill_entries(ArrowArray *out, const Kitchen *kitchen, const Entry *entries, size_t n) noexcept nogil:
    cdef const Recipe *recipe
    cdef const Field *column
    cdef int i, answer = open_batch(out, kitchen.plan.count, n)
    for i in range(kitchen.plan.count if answer == 0 else 0):
        recipe = &kitchen.recipe[i]
        column = &kitchen.plan.field[i]
        if recipe.value == V_TEXT:
            answer = fill_text(out.children[i], recipe, entries, n)
        else:
            answer = fill_values(out.children[i], recipe, column, entries, n)
        if answer == 0 and column.kind == NAME:
            answer = add_names(out.children[i], column.names)
        if answer != 0:
            release_array(out)
            return answer
    return answer


cdef uint8_t[64] UNSET


def _mark_unset():
    for i in range(len(FIELDS)):
        UNSET[i] = field_kind(i) == K_UNSET


_mark_unset()


# ---- the stream ------------------------------------------------------------------------------------------------------

cdef size_t together(const Entry *entries, size_t n) noexcept nogil:
    """How many entries make one batch."""
    cdef size_t i, letters = 0
    n = min(n, <size_t>BATCH_ROWS)
    for i in range(n):
        letters += entries[i].letters
        if letters > BATCH_LETTERS:
            return i + 1
    return n


cdef int _get_schema(ArrowArrayStream *stream, ArrowSchema *out) noexcept nogil:
    return fill_schema(out, &(<Kitchen *>stream.private_data).plan)


cdef int _get_next(ArrowArrayStream *stream, ArrowArray *out) noexcept nogil:
    cdef Kitchen *kitchen = <Kitchen *>stream.private_data
    cdef int answer
    memset(out, 0, sizeof(ArrowArray))
    with gil:
        try:
            answer = _pull(kitchen, <EntryStream>kitchen.owner, out)
            if answer != 0:
                _complain(kitchen, "no memory for a record batch")
        except BaseException as failure:        # it must not pass through C; KeyboardInterrupt as well
            _complain(kitchen, f"{failure}" or type(failure).__name__)
            answer = EIO
    return answer


cdef int _pull(Kitchen *kitchen, EntryStream owner, ArrowArray *out) except -1:
    """The next batch; none: `out` stays released, which is the end."""
    cdef const Entry *entries
    cdef size_t n = 0
    cdef int answer
    while True:
        entries = tracker_entries(owner.tracker, &n)
        if n:
            break
        if next(owner.steps, _END) is _END:
            return 0
    with nogil:
        n = together(entries, n)
        answer = fill_entries(out, kitchen, entries, n)
    if answer == 0:
        tracker_drop(owner.tracker, n)
    return answer


cdef int _complain(Kitchen *kitchen, str text) except -1:
    cdef bytes encoded = text.encode(errors="replace")[:sizeof(kitchen.error) - 1]
    memset(kitchen.error, 0, sizeof(kitchen.error))
    memcpy(kitchen.error, <const char *>encoded, len(encoded))
    return 0


cdef const char *_get_last_error(ArrowArrayStream *stream) noexcept nogil:
    return (<Kitchen *>stream.private_data).error


cdef void _release_stream(ArrowArrayStream *stream) noexcept nogil:
    cdef Kitchen *kitchen = <Kitchen *>stream.private_data
    with gil:
        Py_DECREF(<object>kitchen.owner)
    free(kitchen)
    stream.release = NULL


cdef class EntryStream:
    """Connections as an Arrow stream, made by `Track.arrow`. It can be read once, and nothing else may read the Track.

    pyarrow, polars, DuckDB and pandas take it where they take a table. Each batch has up to 65,536 connections.
    """

    def __init__(self, Tracker tracker not None, steps, fields=None):
        cdef Kitchen kitchen
        self.fields = None if fields is None else list(fields)
        _plan(&kitchen, self.fields)                # says at once what is wrong with them
        self.tracker = tracker
        self.steps = iter(steps)
        self.taken = False

    def __arrow_c_schema__(self):
        """A PyCapsule with the schema; can be asked for at any time."""
        cdef Kitchen kitchen
        _plan(&kitchen, self.fields)
        return schema_capsule(&kitchen.plan)

    def __arrow_c_stream__(self, requested_schema=None):
        """A PyCapsule with the stream; `requested_schema` is not followed. ValueError: it was taken before."""
        cdef Kitchen *kitchen
        cdef ArrowArrayStream *stream
        if self.taken:
            raise ValueError("these connections were read already: a capture is read once, call track() again")
        kitchen = <Kitchen *>malloc(sizeof(Kitchen))
        stream = <ArrowArrayStream *>calloc(1, sizeof(ArrowArrayStream))
        if kitchen == NULL or stream == NULL:
            free(kitchen)
            free(stream)
            raise MemoryError("no memory for a stream")
        try:
            _plan(kitchen, self.fields)
        except BaseException:
            free(kitchen)
            free(stream)
            raise
        kitchen.owner = <PyObject *>self
        Py_INCREF(self)
        stream.get_schema = _get_schema
        stream.get_next = _get_next
        stream.get_last_error = _get_last_error
        stream.release = _release_stream
        stream.private_data = kitchen
        self.taken = True
        return stream_capsule(stream)
