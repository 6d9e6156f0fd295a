"""Typed memory that Python reads through the buffer protocol: arrays of records, and columns of a table in place."""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free

from fasttcp.core.address cimport format_address
from fasttcp.core.arrow cimport arrow_schema, arrow_stream

import struct

__all__ = ["Column", "Records"]


cdef class Records:
    """A read-only array of fixed-size records; ``numpy.asarray(records)`` is a structured array over the same memory.

    Shape (n,), one field for each name in ``fields``. Made by the methods that return it, never by hand.
    """

    def __cinit__(self):
        self.layout = b"T{}"
        self.itemsize = 1

    def __init__(self):
        raise TypeError("records are made by the calls that return them")

    def __dealloc__(self):
        free(self.data)

    def __len__(self):
        return self.count

    @property
    def fields(self):
        """The names of the fields, in the order of the record."""
        return tuple(name for _, name in _parts(self.layout))

    def __getitem__(self, index):
        """One record as a dict, addresses as text; or a list of them for a slice."""
        cdef Py_ssize_t i
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.count))]
        i = index
        if i < 0:
            i += self.count
        if not 0 <= i < self.count:
            raise IndexError(f"record {index} of {self.count}")
        packed = (<char *>self.data)[i * self.itemsize:(i + 1) * self.itemsize]
        parts = _parts(self.layout)
        found = dict(zip(
            [name for _, name in parts],
            struct.unpack("=" + "".join("16s" if form == ADDRESS else form for form, _ in parts), packed),
            strict=True,
        ))
        for form, name in parts:
            if form == ADDRESS:
                found[name] = format_address(<const uint8_t *><const char *>found[name])
        return found

    def __iter__(self):
        for i in range(self.count):
            yield self[i]

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        _fill(buffer, flags, self, self.data, self.layout, self.itemsize, self.shape, self.strides)

    def __arrow_c_stream__(self, requested_schema=None):
        """The records as an Arrow stream: a PyCapsule, in batches of 65,536. `requested_schema` is not followed.

        polars, pandas, pyarrow and DuckDB take the records themselves where they take a table. Times are timestamps
        in ns, addresses text, states and events dictionaries of their names.
        """
        return arrow_stream(self, self.data, self.count, self.itemsize, self.layout)

    def __arrow_c_schema__(self):
        """The same without data: a PyCapsule with the schema."""
        return arrow_schema(self.itemsize, self.layout)

    def __repr__(self):
        return f"<{self.count} records of {', '.join(self.fields)}>"


cdef str ADDRESS = "(16)B"


cdef list _parts(bytes layout):
    """[(format, name), ...] of "T{format:name:...}"."""
    words = layout.decode().removeprefix("T{").removesuffix("}").split(":")
    return list(zip(words[::2], words[1::2]))


cdef Records records_new(Py_ssize_t count, Py_ssize_t itemsize, bytes layout):
    """Zeroed. `layout` is "T{" + "<format>:<name>:"... + "}" without padding: the record must have none."""
    cdef char *data = <char *>calloc(count if count > 0 else 1, itemsize)
    if data == NULL:
        raise MemoryError(f"no memory for {count} records of {itemsize} bytes")
    return records_take(data, count, itemsize, layout)


cdef Records records_take(char *data, Py_ssize_t count, Py_ssize_t itemsize, bytes layout):
    """Records over memory from malloc, which is theirs from now on; NULL for none."""
    cdef Records records
    try:
        records = Records.__new__(Records)
    except BaseException:
        free(data)
        raise
    records.data = data
    records.count = count
    records.itemsize = itemsize
    records.layout = layout
    records.shape[0] = count
    records.strides[0] = itemsize
    return records


cdef class Column:
    """One field of every row of a table, in place: the exporter behind ``ConnectionTable.column``."""

    def __cinit__(self):
        self.layout = b"B"
        self.itemsize = 1

    def __init__(self):
        raise TypeError("columns are made by ConnectionTable.column")

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        _fill(buffer, flags, self, self.data, self.layout, self.itemsize, self.shape, self.strides)


cdef Column column_new(
    object owner, char *data, bytes layout, Py_ssize_t itemsize, Py_ssize_t count, Py_ssize_t stride
):
    cdef Column column = Column.__new__(Column)
    column.owner = owner
    column.data = data
    column.layout = layout
    column.itemsize = itemsize
    column.shape[0] = count
    column.strides[0] = stride
    return column


cdef int _fill(
    Py_buffer *buffer, int flags, object owner, char *data, bytes layout, Py_ssize_t itemsize,
    Py_ssize_t *shape, Py_ssize_t *strides,
) except -1:
    if flags & PyBUF_WRITABLE:
        raise BufferError("this memory belongs to the engine: it can be read, not written")
    if not flags & PyBUF_STRIDES == PyBUF_STRIDES and strides[0] != itemsize:
        raise BufferError("a column is strided: ask for a strided view")
    buffer.buf = data
    buffer.obj = owner
    buffer.len = shape[0] * itemsize
    buffer.itemsize = itemsize
    buffer.readonly = 1
    buffer.ndim = 1
    buffer.format = <char *>layout if flags & PyBUF_FORMAT else NULL
    buffer.shape = shape if flags & PyBUF_ND == PyBUF_ND else NULL
    buffer.strides = strides if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
    buffer.suboffsets = NULL
    buffer.internal = NULL
    return 0
