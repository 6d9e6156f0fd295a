/* (a + x) * (b + y) modulo 2^128, with a and b of 128 bits and x and y of 64: the step of the keyed hash. */
#ifndef FASTTCP_MUL128_H
#define FASTTCP_MUL128_H

#include <stdint.h>

#if defined(_MSC_VER) && defined(_M_X64)
#include <intrin.h>
#endif

typedef struct {
    uint64_t lo, hi;
} wide_t;

/* The full product of two 64-bit numbers from four of 32 bits. Always compiled, so that a test can compare. */
static inline wide_t mul64_portable(uint64_t a, uint64_t b)
{
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t p00 = a0 * b0, p01 = a0 * b1, p10 = a1 * b0, p11 = a1 * b1;
    uint64_t mid = (p00 >> 32) + (uint32_t)p01 + (uint32_t)p10;     /* at most 3 * (2^32 - 1): no overflow */
    wide_t r;
    r.lo = mid << 32 | (uint32_t)p00;
    r.hi = p11 + (p01 >> 32) + (p10 >> 32) + (mid >> 32);
    return r;
}

static inline wide_t mul64(uint64_t a, uint64_t b)
{
#if defined(FASTTCP_PORTABLE)
    return mul64_portable(a, b);
#elif defined(__SIZEOF_INT128__)
    unsigned __int128 p = (unsigned __int128)a * b;
    wide_t r;
    r.lo = (uint64_t)p;
    r.hi = (uint64_t)(p >> 64);
    return r;
#elif defined(_MSC_VER) && defined(_M_X64)
    wide_t r;
    r.lo = _umul128(a, b, &r.hi);
    return r;
#else
    return mul64_portable(a, b);
#endif
}

static inline wide_t add128(wide_t a, wide_t b)
{
    wide_t r;
    r.lo = a.lo + b.lo;
    r.hi = a.hi + b.hi + (r.lo < a.lo);
    return r;
}

static inline wide_t pair_multiply(wide_t a, uint64_t x, wide_t b, uint64_t y)
{
    wide_t r;
    a.lo += x;
    a.hi += a.lo < x;
    b.lo += y;
    b.hi += b.lo < y;
    r = mul64(a.lo, b.lo);
    r.hi += a.lo * b.hi + a.hi * b.lo;
    return r;
}

#endif
