# Hints to the cache and to the compiler, and byte order (prefetch.h).

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "prefetch.h" nogil:
    void prefetch_read(const void *p) noexcept
    void prefetch_write(const void *p) noexcept
    void spin_pause() noexcept
    # Macros of variables: they may change them, for all that the compiler knows.
    void settle(uint32_t variable) noexcept
    void settle_pointer "settle"(const void *variable) noexcept
    uint32_t net32(uint32_t x) noexcept         # network order in memory <-> the machine's order
    uint64_t net64(uint64_t x) noexcept
    uint32_t load32(const void *p) noexcept     # unaligned
    uint64_t load64(const void *p) noexcept
    void store32(void *p, uint32_t x) noexcept
    void store64(void *p, uint64_t x) noexcept
    uint64_t rest_of_word(uint64_t word, uint32_t half) noexcept    # drops the first 2 * half bits, as they lie in memory

cdef extern from *:
    # Cython's own: which way of a branch stands in line with what comes before.
    bint likely(bint condition) noexcept nogil
