/* Sums behind the Internet checksum, of bytes behind which there are others that may be read too.

   RFC 1071: a sum of 16-bit words, in which the carry comes in again below. They may be added in the order of the
   machine's own bytes, and many side by side in a wider word (its section 2(B) and (C)). So every sum here is a number of
   64 bits of which only the remainder by 0xFFFF counts: that is the same on every machine of one byte order. Sums are added
   by sum_three and the like, since they may have all their bits.

   How long a packet is cannot be predicted, and a wrong guess costs as much as sixty additions. So the last 64 bytes, for
   most packets all there are behind the fixed headers, are taken whole and masked: no branch depends on the length of what
   is shorter. */
#ifndef FASTTCP_CHECKSUM_H
#define FASTTCP_CHECKSUM_H

#include "prefetch.h"

#if !defined(FASTTCP_PORTABLE) && (defined(__SSE2__) || defined(_M_X64))
#include <emmintrin.h>
#define FASTTCP_SUM_SSE2 1
#endif
#if !defined(FASTTCP_PORTABLE) && defined(__GNUC__) && defined(__x86_64__)
#define FASTTCP_SUM_CARRY 1
#endif

enum {
    SUM_TURN = 64,              /* bytes added at once; as many behind the last one must be readable */
    SUM_LONGEST = 1 << 17       /* bytes: sums of 32 bits cannot overflow */
};

#define SUM_OCTETS(x) x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x
static const uint8_t SUM_KEEP[2 * SUM_TURN] = {
    SUM_OCTETS(0xFF), SUM_OCTETS(0xFF), SUM_OCTETS(0xFF), SUM_OCTETS(0xFF),     /* and as many zeros */
};

#if defined(__GNUC__) && !defined(FASTTCP_PORTABLE)
#define SUM_HIDE(p) __asm__("" : "+r"(p))       /* else gcc computes the address anew for each of its uses */
#else
#define SUM_HIDE(p) ((void)0)
#endif

/* A 16-bit number as it adds to a sum: as if it stood in the packet. (To exchange both bytes of a word is to multiply it by
   256, as far as the remainder is concerned; so more than 16 bits are no harm.) */
static inline uint64_t sum_number(uint32_t x) { return FASTTCP_BIG_ENDIAN ? x : (uint64_t)x << 8; }

/* Sums of sums. No compiler sees that this is "add with carry", and what gcc makes of the intrinsics stores every one. */
static inline uint64_t sum_two(uint64_t a, uint64_t b)
{
    a += b;
    return a + (a < b);
}

static inline uint64_t sum_three(uint64_t a, uint64_t b, uint64_t c)
{
#if defined(FASTTCP_SUM_CARRY)
    __asm__("addq %1, %0\n\tadcq %2, %0\n\tadcq $0, %0" : "+&r"(a) : "rm"(b), "rm"(c) : "cc");
    return a;
#else
    return sum_two(sum_two(a, b), c);
#endif
}

static inline uint64_t sum_four(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
#if defined(FASTTCP_SUM_CARRY)
    __asm__("addq %1, %0\n\tadcq %2, %0\n\tadcq %3, %0\n\tadcq $0, %0" : "+&r"(a) : "rm"(b), "rm"(c), "rm"(d) : "cc");
    return a;
#else
    return sum_two(sum_three(a, b, c), d);
#endif
}

static inline uint64_t sum_five(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
#if defined(FASTTCP_SUM_CARRY)
    __asm__("addq %1, %0\n\tadcq %2, %0\n\tadcq %3, %0\n\tadcq %4, %0\n\tadcq $0, %0"
            : "+&r"(a) : "rm"(b), "rm"(c), "rm"(d), "rm"(e) : "cc");
    return a;
#else
    return sum_two(sum_four(a, b, c, d), e);
#endif
}

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
/* The only instruction that adds words across multiplies them as signed ones. So each is taken less 0x8000, and what that
   makes is added beforehand. */
static inline uint64_t sum_turns(const uint8_t *p, uint32_t turns)
{
    const __m128i sign = _mm_set1_epi16(-0x8000), one = _mm_set1_epi16(1);
    __m128i total = _mm_set1_epi32((int)(turns * (SUM_TURN / 8 * 0x8000)));
    const uint8_t *end = p + turns * SUM_TURN;
    uint64_t sum;
    int i;
    for (; p != end; p += SUM_TURN)
        for (i = 0; i < SUM_TURN; i += 16)
            total = _mm_add_epi32(total, _mm_madd_epi16(
                _mm_xor_si128(_mm_loadu_si128((const __m128i *)(p + i)), sign), one));
    total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0x4E));
    _mm_storel_epi64((__m128i *)&sum, total);
    return sum;
}
#endif

/* n bytes at p, n from 0 to SUM_LONGEST; an odd last byte as RFC 1071 section 1 has it. */
static inline uint64_t sum_ahead(const uint8_t *p, uint32_t n)
{
#if defined(FASTTCP_SUM_SSE2)
    const uint8_t *keep = SUM_KEEP + SUM_TURN;
    uint64_t sum = 0;
    if (n > SUM_TURN) {
        uint32_t turns = (n - 1) / SUM_TURN;
        sum = sum_turns(p, turns);
        p += turns * SUM_TURN;
        n -= turns * SUM_TURN;
    }
    SUM_HIDE(keep);
    keep -= n;
    sum = sum_five(sum, load64(p) & load64(keep), load64(p + 8) & load64(keep + 8), load64(p + 16) & load64(keep + 16),
        load64(p + 24) & load64(keep + 24));
    return sum_five(sum, load64(p + 32) & load64(keep + 32), load64(p + 40) & load64(keep + 40),
        load64(p + 48) & load64(keep + 48), load64(p + 56) & load64(keep + 56));
#else
    return sum_ahead_portable(p, n);
#endif
}

#endif
