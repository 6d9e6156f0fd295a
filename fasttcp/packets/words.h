/* Several fields at once: out of network bytes, and into fields of a record that lie side by side. Every form gives the same
   result on every machine. */
#ifndef FASTTCP_WORDS_H
#define FASTTCP_WORDS_H

#include "prefetch.h"

/* The first four of eight bytes that were loaded. */
static inline uint32_t first_number(uint64_t x)
{
    return (uint32_t)(FASTTCP_BIG_ENDIAN ? x >> 32 : x);
}

/* Two numbers of 32 bits that stand in the packet one behind the other, both to the machine's order, in their places. */
static inline uint64_t two_numbers(uint64_t x)
{
    return FASTTCP_BIG_ENDIAN ? x : net64(x) << 32 | net64(x) >> 32;
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

#endif
