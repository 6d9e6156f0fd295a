# Arrays of fixed-size records that Python gets from the core: verdicts, summaries, steps.

cdef class Records:
    cdef char *data
    cdef readonly Py_ssize_t itemsize
    cdef Py_ssize_t count
    cdef bytes layout               # struct format of one record, PEP 3118 with field names
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]

cdef Records records_new(Py_ssize_t count, Py_ssize_t itemsize, bytes layout)
cdef Records records_take(char *data, Py_ssize_t count, Py_ssize_t itemsize, bytes layout)

cdef class Column:
    cdef object owner               # keeps the memory alive
    cdef char *data
    cdef bytes layout
    cdef Py_ssize_t itemsize
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]

cdef Column column_new(object owner, char *data, bytes layout, Py_ssize_t itemsize, Py_ssize_t count, Py_ssize_t stride)
