"""A batch of segments with the keys by which a table finds their connections: what can be done ahead, in another thread.

A key depends on its segment and on the secret of the table's hash, which never changes: so nothing here reads what the thread
that follows the connections writes. Keys of IPv6 point at the addresses in their segments.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free

from fasttcp.core.hash cimport HashKey, Key, key_observed
from fasttcp.core.segments cimport SegmentBatch
from fasttcp.core.table cimport ConnectionTable
from fasttcp.packets.reader cimport CaptureReader

__all__ = ["KeyedBatch"]


cdef class KeyedBatch:
    """Segments for one table (observer seat), up to `capacity` at once."""

    def __cinit__(self, ConnectionTable table not None, Py_ssize_t capacity):
        self.table = table
        self.segments = SegmentBatch(capacity)
        self.keys = <Key *>PyMem_Calloc(capacity, sizeof(Key))
        if self.keys == NULL:
            raise MemoryError(f"no memory for {capacity} keys")

    def __dealloc__(self):
        PyMem_Free(self.keys)

    def __len__(self):
        return self.segments.count

    def fill(self, CaptureReader reader not None):
        """Refill the batch from a capture; how many segments, 0 at the end (`CaptureReader.read_batch`, which says what it
        raises). The GIL is released."""
        cdef const HashKey *secret = &self.table.observer.engine.table.hash_key
        cdef Py_ssize_t i, n = reader.read_batch(self.segments)
        with nogil:
            for i in range(n):
                key_observed(&self.keys[i], &self.segments.records[i], secret)
        return n
