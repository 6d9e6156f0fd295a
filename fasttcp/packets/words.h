/* Several fields at once: out of network bytes, and into fields of a record that lie side by side. Every form gives the same
   result on every machine. */
#ifndef FASTTCP_WORDS_H
#define FASTTCP_WORDS_H

#include "prefetch.h"

/* Eight bytes in network order to a number. (net64 of prefetch.h is for keys: two exchanges of 32 bits, which gcc does not
   see as one of 64.) */
static inline uint64_t number64(uint64_t x)
{
#if !defined(FASTTCP_PORTABLE) && (defined(__GNUC__) || defined(__clang__)) && !FASTTCP_BIG_ENDIAN
    return __builtin_bswap64(x);
#else
    return net64(x);
#endif
}

/* The first four of eight bytes that were loaded. */
static inline uint32_t first_number(uint64_t x)
{
    return (uint32_t)(FASTTCP_BIG_ENDIAN ? x >> 32 : x);
}

/* Two numbers of 32 bits that stand in the packet one behind the other, both to the machine's order, in their places. */
static inline uint64_t two_numbers(uint64_t x)
{
    return FASTTCP_BIG_ENDIAN ? x : number64(x) << 32 | number64(x) >> 32;
}

/* Two fields of 16 bits as one of 32 that is stored over both. */
static inline uint32_t two_fields(uint32_t first, uint32_t second)
{
    return FASTTCP_BIG_ENDIAN ? first << 16 | second : second << 16 | first;
}

/* The same of a number with the first in its lower half. */
static inline uint32_t lower_first(uint32_t x)
{
    return FASTTCP_BIG_ENDIAN ? x << 16 | x >> 16 : x;
}

/* Unaligned stores, in the machine's order. */
static inline void store32(void *p, uint32_t x) { memcpy(p, &x, 4); }
static inline void store64(void *p, uint64_t x) { memcpy(p, &x, 8); }

#endif
