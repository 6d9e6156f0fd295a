# A saved table as bytes: a head, then sections, each with its name, length and checksum. See snapshot.pyx.

cdef int snapshot_begin(write, dict head) except -1
cdef int snapshot_put(write, str name, const void *data, size_t length) except -1
cdef int snapshot_end(write) except -1

cdef class SnapshotReader:
    cdef object readinto            # readinto(writable memoryview) -> bytes read, 0 at the end
    cdef object file                # its name, for errors
    cdef size_t offset              # of the next byte to come
    cdef readonly dict head

cdef SnapshotReader snapshot_open(readinto, file)
cdef size_t snapshot_next(SnapshotReader reader, str name) except? 0
cdef int snapshot_take(SnapshotReader reader, str name, void *data, size_t length) except -1
cdef int snapshot_done(SnapshotReader reader) except -1
