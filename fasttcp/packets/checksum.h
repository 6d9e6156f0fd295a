/* The sum behind the Internet checksum, of bytes behind which there are others that may be read too.

   RFC 1071: a sum of 16-bit words, which may be added in the order of the machine's own bytes (its section 2(B)). How
   long a packet is cannot be predicted, and a wrong guess costs as much as sixty additions. So the last 64 bytes, for
   most packets all there are, are taken whole and masked: no branch depends on the length of what is shorter. */
#ifndef FASTTCP_CHECKSUM_H
#define FASTTCP_CHECKSUM_H

#include "prefetch.h"

#if !defined(FASTTCP_PORTABLE) && (defined(__SSE2__) || defined(_M_X64))
#include <emmintrin.h>
#define FASTTCP_SUM_SSE2 1
#endif

enum {
    SUM_TURN = 64,              /* bytes added at once; as many behind the last one must be readable */
    SUM_LONGEST = 1 << 17       /* bytes: sums of 32 bits cannot overflow */
};

#define SUM_OCTETS(x) x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x
static const uint8_t SUM_KEEP[2 * SUM_TURN] = {
    SUM_OCTETS(0xFF), SUM_OCTETS(0xFF), SUM_OCTETS(0xFF), SUM_OCTETS(0xFF),     /* and as many zeros */
};

/* Always compiled, so that a test can compare. */
static inline uint64_t sum_ahead_portable(const uint8_t *p, uint32_t n)
{
    const uint8_t *keep;
    uint64_t total = 0, word;
    int i;
    for (; n > SUM_TURN; n -= SUM_TURN, p += SUM_TURN) {
        for (i = 0; i < SUM_TURN; i += 8) {
            word = load64(p + i);
            total += (word & 0xFFFFFFFFu) + (word >> 32);
        }
    }
    keep = SUM_KEEP + SUM_TURN - n;
    for (i = 0; i < SUM_TURN; i += 8) {
        word = load64(p + i) & load64(keep + i);
        total += (word & 0xFFFFFFFFu) + (word >> 32);
    }
    return total;
}

#if defined(FASTTCP_SUM_SSE2)
/* The only instruction that adds words across multiplies them as signed ones. So each is taken less 0x8000, and what
   that makes is added in the end. */
static inline __m128i sum_pairs(__m128i words)
{
    return _mm_madd_epi16(_mm_xor_si128(words, _mm_set1_epi16(-0x8000)), _mm_set1_epi16(1));
}
#endif

/* n bytes at p, n from 1 to SUM_LONGEST; an odd last byte as RFC 1071 section 1 has it. Below 2^50, so that some may be
   added up; only as a 16-bit sum the same on every machine. */
static inline uint64_t sum_ahead(const uint8_t *p, uint32_t n)
{
#if defined(FASTTCP_SUM_SSE2)
    __m128i total = _mm_setzero_si128();
    const uint8_t *keep;
    uint32_t turns = (n - 1) / SUM_TURN;
    uint32_t bias = (turns + 1) * (SUM_TURN / 2) * 0x8000u;
    int i;
    n -= turns * SUM_TURN;
    for (; turns != 0; turns--, p += SUM_TURN)
        for (i = 0; i < SUM_TURN; i += 16)
            total = _mm_add_epi32(total, sum_pairs(_mm_loadu_si128((const __m128i *)(p + i))));
    keep = SUM_KEEP + SUM_TURN - n;
    for (i = 0; i < SUM_TURN; i += 16)
        total = _mm_add_epi32(total, sum_pairs(_mm_and_si128(
            _mm_loadu_si128((const __m128i *)(p + i)), _mm_loadu_si128((const __m128i *)(keep + i)))));
    total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0x4E));
    total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0xB1));
    return (uint32_t)_mm_cvtsi128_si32(total) + bias;
#else
    return sum_ahead_portable(p, n);
#endif
}

#endif
