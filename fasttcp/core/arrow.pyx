"""Records of the core for polars, pandas, DuckDB and all else that reads Arrow, through its C stream interface.

What must stand here: how a field of a record becomes an Arrow column, and who frees what. What must not: which
records there are. The structs are those of the Arrow C data and stream interfaces (arrow.apache.org, "The Arrow C
data interface"); their layout is the contract, so nothing of Arrow is needed to build them or to run them.

    field                           Arrow column
    I, H, B, Q, q                   uint32, uint16, uint8, uint64, int64
    q named ..._ns                  timestamp[ns] without a zone; ended_ns is null while the connection lives
    (16)B                           utf8: an address as text
    B named ..._state or state_...  dictionary(int8, utf8): names of `State`
    B named ended_by                dictionary(int8, utf8): names of `Event`; null while the connection lives

Who frees what: a stream holds a reference to the owner of the records. Schemas and arrays hold copies in memory of
their own; each is one piece from malloc behind private_data, and frees its children and its dictionary unless they
were moved away. Everything but the end of a stream runs without the GIL.

Cost: a pass over the records for each column; addresses as text are the dearest, about 40 ns each.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strlen

from fasttcp.core.addresstext cimport address_text

from fasttcp.spec import Event, State

cdef enum:
    BATCH_ROWS = 65536
    ADDRESS_CHARACTERS = 39
    NULLABLE = 2                    # ARROW_FLAG_NULLABLE

cdef struct Source:                 # behind a stream
    Plan plan
    PyObject *owner
    const char *data
    size_t rows
    size_t next


# ---- the plan --------------------------------------------------------------------------------------------------------

cdef int name_all(Names *names, values) except -1:
    """Texts as the values of a dictionary; they stay in memory."""
    cdef int i
    cdef list parts = [value.encode() for value in values]
    cdef bytes text = b"".join(parts)
    if len(parts) > MOST_NAMES:
        raise ImportError(f"no room for {len(parts)} names")
    _keep.append(text)
    names.text = text
    names.count = len(parts)
    names.offset[0] = 0
    for i in range(names.count):
        names.offset[i + 1] = names.offset[i] + <int32_t>len(parts[i])
    return 0


cdef list _keep = []
cdef Names STATES, EVENTS
name_all(&STATES, [state.name for state in State])
name_all(&EVENTS, [event.name for event in Event])


cdef int _plan(Plan *plan, size_t itemsize, bytes layout) except -1:
    """The plan of records of this layout, "T{format:name:...}"."""
    cdef Field *field
    cdef size_t at = 0
    words = layout.decode().removeprefix("T{").removesuffix("}").split(":")
    places = {}
    memset(plan, 0, sizeof(Plan))
    plan.itemsize = itemsize
    for form, name in zip(words[::2], words[1::2]):
        field = &plan.field[plan.count]
        text = name.encode()
        if plan.count == MOST_FIELDS or len(text) >= <Py_ssize_t>sizeof(field.name):
            raise ValueError(f"no room for a column {name!r}")
        memcpy(field.name, <const char *>text, len(text))
        field.at = places[name] = at
        field.nulls_where = NO_NULLS
        if form == "(16)B":
            field.kind, field.width, field.format = ADDRESS, 16, "u"
        elif form == "B" and (name.endswith("_state") or name.startswith("state_")):
            field.kind, field.width, field.format, field.names = NAME, 1, "c", &STATES
            field.nulls_where = 0
        elif form == "B" and name == "ended_by":
            field.kind, field.width, field.format, field.names = NAME, 1, "c", &EVENTS
            field.nulls_where = 0
        elif form == "q":
            field.width, field.format = 8, "tsn:" if name.endswith("_ns") else "l"
        elif form == "Q":
            field.width, field.format = 8, "L"
        elif form == "I":
            field.width, field.format = 4, "I"
        elif form == "H":
            field.width, field.format = 2, "S"
        elif form == "B":
            field.width, field.format = 1, "C"
        else:
            raise ValueError(f"no Arrow type for the format {form!r} of {name!r}")
        at += field.width
        plan.count += 1
    if "ended_ns" in places and "ended_by" in places:
        field = &plan.field[list(places).index("ended_ns")]
        field.nulls_where = places["ended_by"] - places["ended_ns"]
    return 0


# ---- schemas ---------------------------------------------------------------------------------------------------------

cdef void release_schema(ArrowSchema *schema) noexcept nogil:
    cdef int64_t i
    for i in range(schema.n_children):
        if schema.children[i].release != NULL:
            schema.children[i].release(schema.children[i])
    if schema.dictionary != NULL and schema.dictionary.release != NULL:
        schema.dictionary.release(schema.dictionary)
    schema.release = NULL
    free(schema.private_data)       # children, dictionary and name are in it


cdef int fill_leaf_schema(ArrowSchema *schema, const Field *field) noexcept nogil:
    cdef size_t length = strlen(field.name) + 1
    cdef char *block = <char *>malloc(sizeof(ArrowSchema) + length)
    memset(schema, 0, sizeof(ArrowSchema))
    if block == NULL:
        return ENOMEM
    memset(block, 0, sizeof(ArrowSchema))
    memcpy(block + sizeof(ArrowSchema), field.name, length)
    schema.format = field.format
    schema.name = block + sizeof(ArrowSchema)
    schema.flags = NULLABLE if field.nulls_where != NO_NULLS else 0
    schema.private_data = block
    schema.release = release_schema
    if field.kind == NAME:
        schema.dictionary = <ArrowSchema *>block
        schema.dictionary.format = "u"
        schema.dictionary.name = ""
        schema.dictionary.release = release_inner_schema
    return 0


cdef void release_inner_schema(ArrowSchema *schema) noexcept nogil:
    schema.release = NULL           # its memory is its parent's


cdef int fill_schema(ArrowSchema *schema, const Plan *plan) noexcept nogil:
    """A struct of all columns; 0 or ENOMEM."""
    cdef size_t table = plan.count * sizeof(ArrowSchema *)
    cdef char *block = <char *>calloc(1, table + plan.count * sizeof(ArrowSchema))
    cdef int i, answer = 0
    memset(schema, 0, sizeof(ArrowSchema))
    if block == NULL:
        return ENOMEM
    schema.format = "+s"
    schema.name = ""
    schema.n_children = plan.count
    schema.children = <ArrowSchema **>block
    schema.private_data = block
    schema.release = release_schema
    for i in range(plan.count):
        schema.children[i] = <ArrowSchema *>(block + table) + i
    for i in range(plan.count):
        answer = fill_leaf_schema(schema.children[i], &plan.field[i])
        if answer != 0:
            release_schema(schema)
            return answer
    return 0


# ---- arrays ----------------------------------------------------------------------------------------------------------

cdef void release_array(ArrowArray *array) noexcept nogil:
    cdef int64_t i
    for i in range(array.n_children):
        if array.children[i].release != NULL:
            array.children[i].release(array.children[i])
    if array.dictionary != NULL:
        if array.dictionary.release != NULL:
            array.dictionary.release(array.dictionary)
        free(array.dictionary)
    array.release = NULL
    free(array.private_data)        # the buffers, or the children, are in it


cdef inline size_t padded(size_t bytes) noexcept nogil:
    return (bytes + 63) // 64 * 64


cdef char *open_array(ArrowArray *array, size_t rows, int buffers, const size_t *sizes) noexcept nogil:
    """Memory for an array whose buffers have these sizes, each on a multiple of 64 bytes. NULL: there is none."""
    cdef size_t total = 128
    cdef char *block
    cdef char *at
    cdef int i
    memset(array, 0, sizeof(ArrowArray))
    for i in range(buffers):
        total += padded(sizes[i])
    block = <char *>malloc(total)
    if block == NULL:
        return NULL
    array.private_data = block
    array.buffers = <const void **>block
    array.n_buffers = buffers
    array.length = rows
    array.release = release_array
    at = block + padded(3 * sizeof(void *))
    at += -<size_t>at & 63
    for i in range(buffers):
        array.buffers[i] = at if sizes[i] else NULL
        at += padded(sizes[i])
    return block


cdef int fill_names(ArrowArray *array, const Names *names) noexcept nogil:
    cdef size_t sizes[3]
    sizes[0] = 0
    sizes[1] = (names.count + 1) * sizeof(int32_t)
    sizes[2] = names.offset[names.count]
    if open_array(array, names.count, 3, sizes) == NULL:
        return ENOMEM
    memcpy(<void *>array.buffers[1], names.offset, sizes[1])
    memcpy(<void *>array.buffers[2], names.text, sizes[2])
    return 0


cdef int _fill_addresses(ArrowArray *array, const char *at, size_t stride, size_t rows) noexcept nogil:
    cdef size_t sizes[3]
    cdef int32_t *offsets
    cdef char *text
    cdef size_t i
    cdef int32_t end = 0
    sizes[0] = 0
    sizes[1] = (rows + 1) * sizeof(int32_t)
    sizes[2] = rows * ADDRESS_CHARACTERS + 1
    if open_array(array, rows, 3, sizes) == NULL:
        return ENOMEM
    offsets = <int32_t *>array.buffers[1]
    text = <char *>array.buffers[2]
    offsets[0] = 0
    for i in range(rows):
        end += address_text(<const uint8_t *>(at + i * stride), text + end)
        offsets[i + 1] = end
    return 0


cdef int _fill_values(ArrowArray *array, const Field *field, const char *at, size_t stride, size_t rows) noexcept nogil:
    cdef size_t sizes[2]
    cdef uint8_t *valid
    cdef char *values
    cdef size_t i
    cdef bint null
    sizes[0] = (rows + 7) // 8 if field.nulls_where != NO_NULLS else 0
    sizes[1] = rows * field.width + 1
    if open_array(array, rows, 2, sizes) == NULL:
        return ENOMEM
    values = <char *>array.buffers[1]
    for i in range(rows):
        memcpy(values + i * field.width, at + i * stride, field.width)
    if field.nulls_where == NO_NULLS:
        return 0
    valid = <uint8_t *>array.buffers[0]
    memset(valid, 0, sizes[0])
    for i in range(rows):
        null = (<const uint8_t *>at)[<int64_t>(i * stride) + field.nulls_where] == 255
        if field.kind == NAME and <uint8_t>values[i] >= field.names.count:
            null = True
            values[i] = 0
        if null:
            array.null_count += 1
        else:
            valid[i >> 3] |= <uint8_t>(1 << (i & 7))
    if array.null_count == 0:
        array.buffers[0] = NULL
    return 0


cdef int add_names(ArrowArray *array, const Names *names) noexcept nogil:
    """Give an array its dictionary; 0, or ENOMEM and the array is released."""
    cdef int answer = ENOMEM
    array.dictionary = <ArrowArray *>calloc(1, sizeof(ArrowArray))
    if array.dictionary != NULL:
        answer = fill_names(array.dictionary, names)
    if answer != 0:
        release_array(array)
    return answer


cdef int _fill_column(ArrowArray *array, const Field *field, const char *at, size_t stride, size_t rows) noexcept nogil:
    cdef int answer
    if field.kind == ADDRESS:
        return _fill_addresses(array, at, stride, rows)
    answer = _fill_values(array, field, at, stride, rows)
    if answer == 0 and field.kind == NAME:
        answer = add_names(array, field.names)
    return answer


cdef int open_batch(ArrowArray *array, int columns, size_t rows) noexcept nogil:
    """A struct array whose children are empty yet; 0 or ENOMEM."""
    cdef size_t table = (columns + 1) * sizeof(void *)
    cdef char *block = <char *>calloc(1, table + columns * sizeof(ArrowArray))
    cdef int i
    memset(array, 0, sizeof(ArrowArray))
    if block == NULL:
        return ENOMEM
    array.private_data = block
    array.length = rows
    array.n_buffers = 1
    array.buffers = <const void **>block            # its one entry is NULL: no struct is null
    array.n_children = columns
    array.children = <ArrowArray **>(block + sizeof(void *))
    array.release = release_array
    for i in range(columns):
        array.children[i] = <ArrowArray *>(block + table) + i
    return 0


cdef int _fill_batch(ArrowArray *array, const Plan *plan, const char *data, size_t rows) noexcept nogil:
    """A struct array of `rows` records; 0 or ENOMEM."""
    cdef int i, answer = open_batch(array, plan.count, rows)
    if answer != 0:
        return answer
    for i in range(plan.count):
        answer = _fill_column(array.children[i], &plan.field[i], data + plan.field[i].at, plan.itemsize, rows)
        if answer != 0:
            release_array(array)
            return answer
    return 0


# ---- streams ---------------------------------------------------------------------------------------------------------

cdef int _get_schema(ArrowArrayStream *stream, ArrowSchema *out) noexcept nogil:
    return fill_schema(out, &(<Source *>stream.private_data).plan)


cdef int _get_next(ArrowArrayStream *stream, ArrowArray *out) noexcept nogil:
    cdef Source *source = <Source *>stream.private_data
    cdef size_t rows = min(source.rows - source.next, <size_t>BATCH_ROWS)
    cdef int answer
    memset(out, 0, sizeof(ArrowArray))
    if rows == 0:
        return 0                    # released already: the end
    answer = _fill_batch(out, &source.plan, source.data + source.next * source.plan.itemsize, rows)
    if answer == 0:
        source.next += rows
    return answer


cdef const char *_get_last_error(ArrowArrayStream *stream) noexcept nogil:
    return "no memory for a record batch"


cdef void _release_stream(ArrowArrayStream *stream) noexcept nogil:
    cdef Source *source = <Source *>stream.private_data
    with gil:
        Py_DECREF(<object>source.owner)
    free(source)
    stream.release = NULL


cdef void drop_stream(object capsule) noexcept:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:      # nobody took it
        stream.release(stream)
    free(stream)


cdef void drop_schema(object capsule) noexcept:
    cdef ArrowSchema *schema = <ArrowSchema *>PyCapsule_GetPointer(capsule, "arrow_schema")
    if schema.release != NULL:
        schema.release(schema)
    free(schema)


cdef object arrow_stream(object owner, const char *data, size_t count, size_t itemsize, bytes layout):
    """A PyCapsule "arrow_array_stream" over `count` records that stay where they are while `owner` lives."""
    cdef Plan plan
    cdef Source *source
    cdef ArrowArrayStream *stream
    _plan(&plan, itemsize, layout)
    source = <Source *>malloc(sizeof(Source))
    stream = <ArrowArrayStream *>malloc(sizeof(ArrowArrayStream))
    if source == NULL or stream == NULL:
        free(source)
        free(stream)
        raise MemoryError("no memory for a stream")
    source.plan = plan
    source.owner = <PyObject *>owner
    Py_INCREF(owner)
    source.data = data
    source.rows = count
    source.next = 0
    stream.get_schema = _get_schema
    stream.get_next = _get_next
    stream.get_last_error = _get_last_error
    stream.release = _release_stream
    stream.private_data = source
    return stream_capsule(stream)


cdef object stream_capsule(ArrowArrayStream *stream):
    """A PyCapsule that owns a stream from malloc; if there is no memory for it, the stream is released."""
    try:
        return PyCapsule_New(stream, "arrow_array_stream", drop_stream)
    except BaseException:
        stream.release(stream)
        free(stream)
        raise


cdef object arrow_schema(size_t itemsize, bytes layout):
    """A PyCapsule "arrow_schema" of such records."""
    cdef Plan plan
    _plan(&plan, itemsize, layout)
    return schema_capsule(&plan)


cdef object schema_capsule(const Plan *plan):
    cdef ArrowSchema *schema = <ArrowSchema *>malloc(sizeof(ArrowSchema))
    if schema == NULL or fill_schema(schema, plan) != 0:
        free(schema)
        raise MemoryError("no memory for a schema")
    try:
        return PyCapsule_New(schema, "arrow_schema", drop_schema)
    except BaseException:
        schema.release(schema)
        free(schema)
        raise
