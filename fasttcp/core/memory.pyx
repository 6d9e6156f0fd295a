"""A block of memory that grows without moving.

What it stores: bytes, zero until written, for one array of the table. What must not stand here: any knowledge of what
the bytes mean.

    base                      touched            usable                                    reserved
      |  backed by memory        | appears at use  |  address space only: access faults       |

Invariants: touched <= usable <= reserved; base never changes between open and close; every byte of [0, usable) reads as
zero until it is written.

Cost: opening is one system call, whatever the size. Growing costs the zeroing of what is added (2 MB: about 0.1 ms)
when it is touched at once, nothing but a system call when it is not. Addresses cost nothing: a block may be reserved
for the largest table one could ever want.

Where the system has no such calls (or FASTTCP_PLAIN_MEMORY is defined, or BLOCK_PLAIN is asked for) the whole
reservation is taken from calloc at once.
"""


cdef int block_open(Block *b, size_t reserve_bytes, int flags) except -1 nogil:
    """Reserve room for reserve_bytes; nothing of it is usable yet. MemoryError names the size."""
    if pages_reserve(b, reserve_bytes, flags):
        with gil:
            raise MemoryError(f"no address space for a block of {reserve_bytes} bytes")
    return 0


cdef int block_commit(Block *b, size_t upto_bytes, bint touch) except -1 nogil:
    """Make the first upto_bytes usable; with touch, back them with memory now rather than at their first use."""
    if (pages_touch(b, upto_bytes) if touch else pages_use(b, upto_bytes)):
        with gil:
            raise MemoryError(
                f"no memory to grow a block from {b.usable} to {upto_bytes} bytes (reserved: {b.reserved})")
    return 0


cdef void block_close(Block *b) noexcept nogil:
    """Give everything back. Closing twice, or a zeroed block, is harmless."""
    pages_release(b)
