# Records as Arrow: the C stream and schema interfaces, in PyCapsules. See arrow.pyx.

cdef object arrow_stream(object owner, const char *data, size_t count, size_t itemsize, bytes layout)
cdef object arrow_schema(size_t itemsize, bytes layout)
