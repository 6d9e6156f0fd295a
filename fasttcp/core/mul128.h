/* Sums of products modulo 2^128, each of a number of 128 bits and one of 64: the step of the keyed hash. */
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

/* plus + a * x + b * y modulo 2^128. */
static inline wide_t dot128(wide_t plus, wide_t a, uint64_t x, wide_t b, uint64_t y)
{
    wide_t r;
#if !defined(FASTTCP_PORTABLE) && defined(__SIZEOF_INT128__)
    unsigned __int128 all = (unsigned __int128)plus.hi << 64 | plus.lo;
    all += (unsigned __int128)a.lo * x + (unsigned __int128)b.lo * y;
    r.lo = (uint64_t)all;
    r.hi = (uint64_t)(all >> 64);
#else
    wide_t p = mul64(a.lo, x), q = mul64(b.lo, y);
    r.lo = p.lo + q.lo;
    r.hi = p.hi + q.hi + (r.lo < p.lo) + plus.hi;
    r.lo += plus.lo;
    r.hi += r.lo < plus.lo;
#endif
    r.hi += a.hi * x + b.hi * y;
    return r;
}

#endif
