/* One stretch of address space, reserved at once and made usable from its start; see memory.pyx for the promises. */
#ifndef FASTTCP_PAGES_H
#define FASTTCP_PAGES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(FASTTCP_PLAIN_MEMORY)
#elif defined(_WIN32)
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif
#if !defined(MAP_NORESERVE)
#define MAP_NORESERVE 0
#endif
#if defined(__linux__) && !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23      /* Linux 5.14; older kernels answer EINVAL and we touch the pages ourselves */
#endif
#if defined(__linux__) && !defined(MADV_COLLAPSE)
#define MADV_COLLAPSE 25            /* Linux 6.1; older kernels answer EINVAL and their khugepaged does it in time */
#endif
#endif

#define BLOCK_HUGE 1                /* ask for 2 MB pages */
#define BLOCK_PLAIN 2               /* calloc of the whole reservation, whatever the system offers */
#define PAGE_STEP ((size_t)4096)    /* a page can be larger: touching each 4 KB touches each page */
#define HUGE_STEP ((size_t)2 << 20)

typedef struct {
    char *base;         /* 64-byte aligned, and 2 MB aligned where huge pages were asked for */
    size_t reserved;    /* bytes that the block may ever hold */
    size_t usable;      /* bytes from base that may be read and written */
    size_t touched;     /* bytes from base that are backed by memory; what lies beyond appears at its first use */
    size_t huge;        /* bytes from base for which huge pages have been asked */
    void *start;        /* what the system gave, to be given back */
    size_t length;
    int flags;
} Block;

static inline size_t round_up(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

/* 0, or -1 when there is no such stretch of addresses. */
static inline int pages_reserve(Block *b, size_t bytes, int flags)
{
    memset(b, 0, sizeof *b);
    if (bytes == 0 || bytes > SIZE_MAX / 2 - 2 * HUGE_STEP) return -1;
#if defined(FASTTCP_PLAIN_MEMORY)
    flags |= BLOCK_PLAIN;
#endif
    b->flags = flags;
    b->reserved = bytes;
    if (flags & BLOCK_PLAIN) {
        b->length = bytes + 63;
        b->start = calloc(1, b->length);
        if (!b->start) return -1;
        b->base = (char *)(((uintptr_t)b->start + 63) & ~(uintptr_t)63);
        return 0;
    }
#if !defined(FASTTCP_PLAIN_MEMORY)
    b->length = round_up(bytes, HUGE_STEP);
#if defined(_WIN32)
    b->start = VirtualAlloc(NULL, b->length, MEM_RESERVE, PAGE_NOACCESS);
    if (!b->start) return -1;
    b->base = (char *)b->start;
#else
    /* PROT_NONE: the reservation counts for nothing, even where overcommitting is forbidden. */
    if (flags & BLOCK_HUGE) b->length += HUGE_STEP;
    b->start = mmap(NULL, b->length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b->start == MAP_FAILED) {
        b->start = NULL;
        return -1;
    }
    b->base = (char *)b->start;
    if (flags & BLOCK_HUGE) b->base = (char *)round_up((size_t)b->start, HUGE_STEP);
#endif
#endif
    return 0;
}

/* Make [0, upto) usable: 0, or -1 when there is no memory or upto lies beyond the reservation.
 *
 * Huge pages are asked for what is wanted at once when a block is first used. What it grows by later comes in small
 * pages: the first touch of a huge one zeroes 2 MB (0.1 ms, on a virtual machine up to 10 ms), and growing may not
 * pause. Each 2 MB are offered to the system's collapsing once they are full (pages_touch), or collapsed at once
 * (pages_settle). */
static inline int pages_use(Block *b, size_t upto)
{
    if (upto <= b->usable) return 0;
    if (upto > b->reserved) return -1;
    if (b->flags & BLOCK_PLAIN) {
        b->usable = upto;
        return 0;
    }
#if !defined(FASTTCP_PLAIN_MEMORY)
    {
        size_t huge = (b->flags & BLOCK_HUGE) && upto >= HUGE_STEP;
        size_t end = round_up(upto, huge ? HUGE_STEP : (size_t)65536);   /* no page is larger than 64 KB otherwise */
        if (end > round_up(b->reserved, HUGE_STEP)) end = round_up(b->reserved, HUGE_STEP);
#if defined(_WIN32)
        if (!VirtualAlloc(b->base, end, MEM_COMMIT, PAGE_READWRITE)) return -1;
#else
        if (mprotect(b->base, end, PROT_READ | PROT_WRITE)) return -1;
#if defined(MADV_HUGEPAGE)
        /* A wish: refused is no error. */
        if (huge && b->usable == 0) {
            /* Not the end, which fills no huge page: a table of a million rows would be 7 MB larger than it says. */
            size_t whole = upto / HUGE_STEP * HUGE_STEP;
            if (madvise(b->base, whole, MADV_HUGEPAGE) == 0) b->huge = whole;
            if (end > whole) (void)madvise(b->base + whole, end - whole, MADV_NOHUGEPAGE);
        } else if (huge) {
            (void)madvise(b->base + b->huge, end - b->huge, MADV_NOHUGEPAGE);
        }
#endif
#endif
        b->usable = end < b->reserved ? end : b->reserved;
    }
#endif
    return 0;
}

/* Collapse what is in use into huge pages now: 0.1 s a gigabyte; nothing where the system cannot. */
static inline void pages_settle(Block *b)
{
#if !defined(FASTTCP_PLAIN_MEMORY) && defined(MADV_COLLAPSE) && defined(MADV_HUGEPAGE)
    size_t full = b->touched / HUGE_STEP * HUGE_STEP;
    if ((b->flags & BLOCK_HUGE) && !(b->flags & BLOCK_PLAIN) && full) {
        (void)madvise(b->base, full, MADV_HUGEPAGE);
        if (full > b->huge) b->huge = full;
        (void)madvise(b->base, full, MADV_COLLAPSE);
    }
#else
    (void)b;
#endif
}

/* Make [0, upto) usable and back it with zeroed memory now, so that no later use of it waits for the system. */
static inline int pages_touch(Block *b, size_t upto)
{
    size_t at, end;
    if (pages_use(b, upto)) return -1;
    if (upto <= b->touched) return 0;
    at = b->touched / PAGE_STEP * PAGE_STEP;
    end = upto;
#if !defined(FASTTCP_PLAIN_MEMORY) && defined(MADV_POPULATE_WRITE)
    if (!(b->flags & BLOCK_PLAIN) && at < end
            && madvise(b->base + at, round_up(end, PAGE_STEP) - at, MADV_POPULATE_WRITE) == 0)
        at = end;
#endif
    /* Written only where nothing has been written yet: what lies below touched belongs to the owner. */
    if (at < b->touched) at += PAGE_STEP;
    for (; at < end; at += PAGE_STEP) {
        volatile char *p = b->base + at;
        *p = *p;
    }
    b->touched = end;
#if !defined(FASTTCP_PLAIN_MEMORY) && defined(MADV_HUGEPAGE)
    end = end / HUGE_STEP * HUGE_STEP;
    if ((b->flags & BLOCK_HUGE) && !(b->flags & BLOCK_PLAIN) && end > b->huge
            && madvise(b->base + b->huge, end - b->huge, MADV_HUGEPAGE) == 0)
        b->huge = end;
#endif
    return 0;
}

static inline void pages_release(Block *b)
{
    if (b->start) {
        if (b->flags & BLOCK_PLAIN) free(b->start);
#if defined(FASTTCP_PLAIN_MEMORY)
#elif defined(_WIN32)
        else VirtualFree(b->start, 0, MEM_RELEASE);
#else
        else munmap(b->start, b->length);
#endif
    }
    memset(b, 0, sizeof *b);
}

#endif
