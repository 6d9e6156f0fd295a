/* The usual layouts of TCP options, told by the length of the header.

   Which one a segment has cannot be predicted. So each length has an entry that says which octets must be which and where the
   values are, and a segment is read by that without a branch. */
#ifndef FASTTCP_LAYOUTS_H
#define FASTTCP_LAYOUTS_H

#include <stdint.h>

typedef struct {
    uint8_t care[8], those[8];              /* of the options' first eight octets: a mask, and what is left under it */
    uint8_t care_scale[4], those_scale[4];  /* of those from the 16th on */
    uint64_t stamps;                        /* all ones: there are timestamps */
    uint32_t header;                        /* bytes of the header */
    uint32_t syn;                           /* all ones: MSS and window scale stand where a SYN of Linux has them */
    uint8_t options;                        /* OPT_... of core/layout.pxd */
    uint8_t stamps_at;                      /* octets from the beginning of the options */
    uint8_t rest[18];                       /* 64 bytes in all: layout_of counts on that */
} Layout;

/* By the data offset, in words of 32 bits. What is not here asks for what its mask never leaves. */
static const Layout LAYOUTS[16] = {
#define UNUSUAL(offset) { {0}, {1}, {0}, {0}, 0, 4 * (offset), 0, 0, 0, {0} }
    UNUSUAL(0), UNUSUAL(1), UNUSUAL(2), UNUSUAL(3), UNUSUAL(4),
    { {0}, {0}, {0}, {0}, 0, 20, 0, 0, 0, {0} },                                        /* none */
    UNUSUAL(6), UNUSUAL(7),
    { {255, 255, 255, 255}, {1, 1, 8, 10}, {0}, {0}, ~0ull, 32, 0, 8, 4, {0} },         /* NOP NOP timestamps */
    UNUSUAL(9),
    { {255, 255, 0, 0, 255, 255, 255, 255}, {2, 4, 0, 0, 4, 2, 8, 10}, {255, 255, 255}, {1, 3, 3},
      ~0ull, 40, ~0u, 15, 8, {0} },             /* a SYN of Linux: MSS, SACK permitted, timestamps, NOP, window scale */
    UNUSUAL(11), UNUSUAL(12), UNUSUAL(13), UNUSUAL(14), UNUSUAL(15),
#undef UNUSUAL
};

/* word: what stands 12 bytes into the header, as a number: its upper four bits are the data offset. */
static inline const Layout *layout_of(uint32_t word)
{
    return (const Layout *)((const char *)LAYOUTS + (word >> 22 & 15 * sizeof(Layout)));
}

#endif
