/* Hints to the cache and to the compiler, and byte order. Every form that is not a hint gives the same result on every
   machine. */
#ifndef FASTTCP_PREFETCH_H
#define FASTTCP_PREFETCH_H

#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER)
#include <intrin.h>
#include <stdlib.h>
#endif

/* An address that is not mapped is harmless: a prefetch never faults. The empty asm tells gcc that something happens here:
   else a function that does nothing but prefetch is "pure", and all calls of it are removed. */
#if defined(FASTTCP_PORTABLE)
#define prefetch_read(p) ((void)(p))
#define prefetch_write(p) ((void)(p))
#elif defined(__GNUC__) || defined(__clang__)
#define prefetch_read(p) do { __builtin_prefetch((p), 0, 3); __asm__ __volatile__(""); } while (0)
#define prefetch_write(p) do { __builtin_prefetch((p), 1, 3); __asm__ __volatile__(""); } while (0)
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#define prefetch_read(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define prefetch_write(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#else
#define prefetch_read(p) ((void)(p))
#define prefetch_write(p) ((void)(p))
#endif

/* Between two looks at what another thread will change: leaves the core to its other half meanwhile. */
#if defined(FASTTCP_PORTABLE)
#define spin_pause() ((void)0)
#elif (defined(__GNUC__) || defined(__clang__)) && (defined(__x86_64__) || defined(__i386__))
#define spin_pause() __builtin_ia32_pause()
#elif (defined(__GNUC__) || defined(__clang__)) && defined(__aarch64__)
#define spin_pause() __asm__ __volatile__("yield")
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#define spin_pause() _mm_pause()
#else
#define spin_pause() ((void)0)
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FASTTCP_BIG_ENDIAN 1
#else
#define FASTTCP_BIG_ENDIAN 0
#endif

/* The compiler may not look through this variable: what it holds is computed before, and nothing that comes after is put
   together with what came before. Where a dozen values are worked out at once, gcc would else keep half of them on the
   stack. */
#if !defined(FASTTCP_PORTABLE) && (defined(__GNUC__) || defined(__clang__))
#define settle(variable) __asm__("" : "+r"(variable))
#else
#define settle(variable) ((void)0)
#endif

static inline uint32_t swap32(uint32_t x)
{
#if defined(FASTTCP_PORTABLE)
    return x << 24 | (x & 0xFF00u) << 8 | (x >> 8 & 0xFF00u) | x >> 24;
#elif defined(__GNUC__) || defined(__clang__)
    return __builtin_bswap32(x);
#elif defined(_MSC_VER)
    return _byteswap_ulong(x);
#else
    return x << 24 | (x & 0xFF00u) << 8 | (x >> 8 & 0xFF00u) | x >> 24;
#endif
}

static inline uint64_t swap64(uint64_t x)
{
#if !defined(FASTTCP_PORTABLE) && (defined(__GNUC__) || defined(__clang__))
    return __builtin_bswap64(x);
#else
    return (uint64_t)swap32((uint32_t)x) << 32 | swap32((uint32_t)(x >> 32));
#endif
}

/* A number in network order, as it lies in memory, to the machine's order; and back. */
static inline uint32_t net32(uint32_t x) { return FASTTCP_BIG_ENDIAN ? x : swap32(x); }
static inline uint64_t net64(uint64_t x) { return FASTTCP_BIG_ENDIAN ? x : swap64(x); }

/* Unaligned loads and stores, in the machine's order. */
static inline uint32_t load32(const void *p)
{
    uint32_t x;
    memcpy(&x, p, 4);
    return x;
}

static inline uint64_t load64(const void *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return x;
}

static inline void store32(void *p, uint32_t x) { memcpy(p, &x, 4); }
static inline void store64(void *p, uint64_t x) { memcpy(p, &x, 8); }

/* What is left of a loaded word without its first 2 * half bits in memory, moved to the front; zeros behind. */
static inline uint64_t rest_of_word(uint64_t word, uint32_t half)
{
    return FASTTCP_BIG_ENDIAN ? word << half << half : word >> half >> half;
}

#endif
