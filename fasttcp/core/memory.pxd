# One stretch of address space that grows in place: nothing in it ever moves. See memory.pyx.

cdef extern from "pages.h" nogil:
    ctypedef struct Block:
        char *base          # 64-byte aligned; 2 MB aligned with BLOCK_HUGE
        size_t reserved     # bytes the block may ever hold
        size_t usable       # bytes from base that may be read and written
        size_t touched      # bytes from base that memory stands behind already
        int flags

    enum:
        BLOCK_HUGE          # ask for 2 MB pages
        BLOCK_PLAIN         # calloc of the whole reservation

    # The raising forms below wrap these; code that cannot raise calls them itself: 0, or -1 when memory is refused.
    int pages_reserve(Block *b, size_t bytes, int flags) noexcept
    int pages_use(Block *b, size_t upto) noexcept
    int pages_touch(Block *b, size_t upto) noexcept
    void pages_settle(Block *b) noexcept
    void pages_release(Block *b) noexcept


cdef int block_open(Block *b, size_t reserve_bytes, int flags) except -1 nogil
cdef int block_commit(Block *b, size_t upto_bytes, bint touch) except -1 nogil
cdef void block_close(Block *b) noexcept nogil
