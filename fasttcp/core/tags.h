/* Which of the 12 tags at the head of a bucket equal a given one: a mask with bit i set for tag i. */
#ifndef FASTTCP_TAGS_H
#define FASTTCP_TAGS_H

#include "prefetch.h"

#if !defined(FASTTCP_PORTABLE) && (defined(__SSE2__) || defined(_M_X64))
#include <emmintrin.h>
#define FASTTCP_TAGS_SSE2 1
#elif !defined(FASTTCP_PORTABLE) && defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define FASTTCP_TAGS_NEON 1
#endif

/* Bit i set where byte i of x is zero, byte 0 the lowest. Exact: no carry runs from byte to byte. */
static inline uint32_t zero_bytes(uint64_t x)
{
    const uint64_t low7 = 0x7F7F7F7F7F7F7F7Full;
    uint64_t y = ~(((x & low7) + low7) | x | low7);     /* 0x80 in each zero byte */
    return (uint32_t)(((y >> 7) * 0x0102040810204080ull) >> 56);
}

/* Always compiled, so that a test can compare. */
static inline uint32_t tags_match_portable(const uint8_t *tag, uint8_t wanted)
{
    uint64_t every = wanted * 0x0101010101010101ull, low = load64(tag);
    uint32_t high = load32(tag + 8);
    if (FASTTCP_BIG_ENDIAN) {
        low = swap64(low);
        high = swap32(high);
    }
    return zero_bytes(low ^ every) | (zero_bytes((uint64_t)high ^ every) & 0xFu) << 8;
}

/* Reads 16 bytes: the tags and the link behind them. */
static inline uint32_t tags_match(const uint8_t *tag, uint8_t wanted)
{
#if defined(FASTTCP_TAGS_SSE2)
    __m128i have = _mm_load_si128((const __m128i *)tag);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(have, _mm_set1_epi8((char)wanted))) & 0xFFFu;
#elif defined(FASTTCP_TAGS_NEON)
    static const uint8_t weight[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 0, 0, 0, 0};
    uint8x16_t equal = vandq_u8(vceqq_u8(vld1q_u8(tag), vdupq_n_u8(wanted)), vld1q_u8(weight));
    return (uint32_t)vaddv_u8(vget_low_u8(equal)) | (uint32_t)vaddv_u8(vget_high_u8(equal)) << 8;
#else
    return tags_match_portable(tag, wanted);
#endif
}

/* The place of the lowest set bit; mask is not 0. */
static inline uint32_t lowest_bit(uint32_t mask)
{
#if !defined(FASTTCP_PORTABLE) && (defined(__GNUC__) || defined(__clang__))
    return (uint32_t)__builtin_ctz(mask);
#elif !defined(FASTTCP_PORTABLE) && defined(_MSC_VER)
    unsigned long place;
    _BitScanForward(&place, mask);
    return place;
#else
    uint32_t place = 0;
    for (; !(mask & 1); mask >>= 1) place++;
    return place;
#endif
}

/* Tags are packed from the front, so the first empty place is the count; 12 when the bucket is full. */
static inline uint32_t tags_count(const uint8_t *tag)
{
    return lowest_bit(tags_match(tag, 0) | 0x1000u);
}

#endif
