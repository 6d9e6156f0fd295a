# Records as Arrow: the C stream and schema interfaces, in PyCapsules. See arrow.pyx.
#
# The first two functions serve records of a fixed layout; the parts below them are for floors that make columns of
# something else.

from libc.stdint cimport int32_t, int64_t

cdef object arrow_stream(object owner, const char *data, size_t count, size_t itemsize, bytes layout)
cdef object arrow_schema(size_t itemsize, bytes layout)

cdef enum:
    MOST_FIELDS = 64
    MOST_NAMES = 64

cdef enum Kind:
    PLAIN, ADDRESS, NAME

cdef struct ArrowSchema:
    const char *format
    const char *name
    const char *metadata
    int64_t flags
    int64_t n_children
    ArrowSchema **children
    ArrowSchema *dictionary
    void (*release)(ArrowSchema *) noexcept nogil
    void *private_data

cdef struct ArrowArray:
    int64_t length
    int64_t null_count
    int64_t offset
    int64_t n_buffers
    int64_t n_children
    const void **buffers
    ArrowArray **children
    ArrowArray *dictionary
    void (*release)(ArrowArray *) noexcept nogil
    void *private_data

cdef struct ArrowArrayStream:
    int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept nogil
    int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept nogil
    const char *(*get_last_error)(ArrowArrayStream *) noexcept nogil
    void (*release)(ArrowArrayStream *) noexcept nogil
    void *private_data

cdef struct Names:                  # the values of a dictionary
    int count
    int32_t offset[65]
    const char *text                # of a bytes object that lives as long as this module

cdef struct Field:
    Kind kind
    size_t at                       # in the record
    size_t width
    const char *format              # of the column, or of the index into `names`
    const Names *names              # NAME only
    int nulls_where                 # at + nulls_where holds 255 where the value is null; NO_NULLS: never
    char name[32]

cdef enum:
    NO_NULLS = 0x7FFFFFFF

cdef struct Plan:                   # how records become columns
    size_t itemsize
    int count
    Field field[MOST_FIELDS]

cdef int name_all(Names *names, values) except -1
cdef int fill_schema(ArrowSchema *schema, const Plan *plan) noexcept nogil              # 0 or ENOMEM
cdef object schema_capsule(const Plan *plan)
cdef int open_batch(ArrowArray *array, int columns, size_t rows) noexcept nogil         # 0 or ENOMEM; children are empty
# Memory for an array whose buffers have these sizes, each on a multiple of 64 bytes. NULL: there is none.
cdef char *open_array(ArrowArray *array, size_t rows, int buffers, const size_t *sizes) noexcept nogil
cdef int add_names(ArrowArray *array, const Names *names) noexcept nogil                # its dictionary; 0 or ENOMEM
cdef void release_array(ArrowArray *array) noexcept nogil
cdef object stream_capsule(ArrowArrayStream *stream)    # takes the stream, which is from malloc
