"""Typed memory that Python reads through the buffer protocol: arrays of records, and columns of a table in place."""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from libc.stdlib cimport calloc, free


cdef class Records:
    """A read-only array of fixed-size records; ``numpy.asarray(records)`` is a structured array over the same memory.

    Shape (n,), one field for each name in ``fields``. Made by the methods that return it, never by hand.
    """

    def __cinit__(self):
        self.data = NULL

    def __dealloc__(self):
        free(self.data)

    def __len__(self):
        return self.count

    @property
    def fields(self):
        """The names of the fields, in the order of the record."""
        return tuple(self.layout.decode().rstrip(":}").split(":")[1::2])

    def __getitem__(self, index):
        """One record as a dict, or a list of them for a slice."""
        cdef Py_ssize_t i
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.count))]
        i = index
        if i < 0:
            i += self.count
        if not 0 <= i < self.count:
            raise IndexError(f"record {index} of {self.count}")
        import struct

        packed = (<char *>self.data)[i * self.itemsize:(i + 1) * self.itemsize]
        parts = self.layout.decode().removeprefix("T{").rstrip(":}").split(":")
        values = struct.unpack("=" + "".join(parts[::2]), packed)
        return dict(zip(parts[1::2], values, strict=True))

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        _fill(buffer, flags, self, self.data, self.layout, self.itemsize, self.shape, self.strides)

    def __repr__(self):
        return f"<{self.count} records of {', '.join(self.fields)}>"


cdef Records records_new(Py_ssize_t count, Py_ssize_t itemsize, bytes layout):
    """`layout` is "T{" + "<format>:<name>:"... + "}" without padding: the record must have none."""
    cdef Records records = Records.__new__(Records)
    records.data = <char *>calloc(count if count > 0 else 1, itemsize)
    if records.data == NULL:
        raise MemoryError(f"no memory for {count} records of {itemsize} bytes")
    records.count = count
    records.itemsize = itemsize
    records.layout = layout
    records.shape[0] = count
    records.strides[0] = itemsize
    return records


cdef class Column:
    """One field of every row of a table, in place: the exporter behind ``ConnectionTable.column``."""

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
