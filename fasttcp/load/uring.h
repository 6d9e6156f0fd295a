/* An io_uring for the packets that go out by one non-blocking file: a batch of writes by one system call. It speaks to the
   kernel directly (no liburing). It compiles everywhere, and uring_open answers ENOSYS where there is none.

       uring_open(&u, fd)             0, or an errno: do without
       uring_write(&u, packet, n)     how many system calls it took; packet[i].done says what became of each
       uring_close(&u)                also of one that was never opened, if it is all zeros

   Nothing is ever in flight between two calls: each request says RWF_NOWAIT, so that the kernel tries it in its turn within
   io_uring_enter and never lets it wait for the file (which O_NONBLOCK alone would). Hence packets keep their order without
   links, their bytes are the caller's again afterwards, and the completion queue, twice as large as a batch, cannot overflow.
   The file is not registered: the ring would hold it beyond its close, and with it a TUN device and its routes. No set-up
   flags: SINGLE_ISSUER would tie the ring to one thread, and without anything in flight DEFER_TASKRUN has nothing to defer. */
#ifndef FASTTCP_LOAD_URING_H
#define FASTTCP_LOAD_URING_H

#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define URING_MOST 256 /* packets of one call */

typedef struct {
    const uint8_t *at;
    uint32_t n;
    int32_t done; /* bytes written, or -errno */
} UringPacket;

#if defined(__linux__) && defined(__GNUC__) && !defined(__alpha__) && !defined(__mips__) && !defined(FASTTCP_PORTABLE)

#include <sys/mman.h>
#include <unistd.h>

/* From linux/io_uring.h and asm/unistd.h, which may be older than the kernel that this will run on. */
typedef struct {
    uint8_t opcode, flags;
    uint16_t priority;
    int32_t fd;
    uint64_t offset, address;
    uint32_t length, rw_flags;
    uint64_t user_data, more[3];
} UringRequest;

typedef struct {
    uint64_t user_data;
    int32_t result;
    uint32_t flags;
} UringResult;

typedef struct {
    uint32_t sq_entries, cq_entries, flags, thread_cpu, thread_idle, features, workqueue_fd, reserved[3];
    struct {
        uint32_t head, tail, mask, entries, flags, dropped, array, reserved;
        uint64_t address;
    } sq;
    struct {
        uint32_t head, tail, mask, entries, overflow, cqes, flags, reserved;
        uint64_t address;
    } cq;
} UringParameters;

enum {
    URING_SETUP = 425, /* numbers of the system calls, the same on all processors but the two above */
    URING_ENTER = 426,
    URING_READ = 22, /* IORING_OP_READ and IORING_OP_WRITE, Linux 5.6 */
    URING_WRITE = 23,
    URING_GETEVENTS = 1, /* IORING_ENTER_GETEVENTS: wait for completions */
    URING_ONE_MAP = 1,   /* IORING_FEAT_SINGLE_MMAP, Linux 5.4: both rings in one map */
    URING_NOWAIT = 8,    /* RWF_NOWAIT */
    URING_REQUESTS_AT = 0x10000000 /* IORING_OFF_SQES */
};

typedef struct {
    int there; /* uring_open has succeeded */
    int ring;  /* 1 + its file number */
    int file;
    uint8_t *map; /* both rings */
    UringRequest *request;
    size_t map_bytes, request_bytes;
    uint32_t *sq_head, *sq_tail, sq_mask; /* heads are moved by who takes, tails by who puts; each has one writer */
    uint32_t *cq_head, *cq_tail, cq_mask;
    UringResult *result;
} Uring;

static inline void uring_close(Uring *u) {
    if (u->request != NULL) munmap(u->request, u->request_bytes);
    if (u->map != NULL) munmap(u->map, u->map_bytes);
    if (u->ring > 0) close(u->ring - 1);
    memset(u, 0, sizeof *u);
}

static inline void *uring_map(Uring *u, size_t bytes, long at) {
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->ring - 1, at);
    return map == MAP_FAILED ? NULL : map;
}

/* n requests of one kind in their order. Those that the kernel does not take at all get the errno of its refusal. */
static inline uint64_t uring_submit(Uring *u, int opcode, UringPacket *packet, uint32_t n) {
    uint32_t tail = *u->sq_tail, head, i, taken, done = 0;
    uint64_t calls = 0;
    int code;
    for (i = 0; i < n; i++) {
        UringRequest *r = &u->request[(tail + i) & u->sq_mask];
        memset(r, 0, sizeof *r);
        r->opcode = (uint8_t)opcode;
        r->fd = u->file;
        r->address = (uint64_t)(uintptr_t)packet[i].at;
        r->length = packet[i].n;
        r->offset = (uint64_t)-1;
        r->rw_flags = URING_NOWAIT;
        r->user_data = i;
        packet[i].done = -EAGAIN;
    }
    __atomic_store_n(u->sq_tail, tail + n, __ATOMIC_RELEASE);
    while (done < n) { /* once, but for a signal, or when the kernel was out of memory for the rest */
        taken = __atomic_load_n(u->sq_head, __ATOMIC_ACQUIRE) - tail;
        calls++;
        code = 0;
        if (syscall(URING_ENTER, u->ring - 1, n - taken, n - done, URING_GETEVENTS, NULL, 0) < 0) code = errno;
        for (head = *u->cq_head; head != __atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE); head++, done++) {
            const UringResult *r = &u->result[head & u->cq_mask];
            packet[r->user_data].done = r->result;
        }
        __atomic_store_n(u->cq_head, head, __ATOMIC_RELEASE);
        if (code != 0 && code != EINTR) {
            taken = __atomic_load_n(u->sq_head, __ATOMIC_ACQUIRE) - tail;
            for (i = taken; i < n; i++) packet[i].done = -code;
            __atomic_store_n(u->sq_tail, tail + taken, __ATOMIC_RELEASE);
            break;
        }
    }
    return calls;
}

static inline uint64_t uring_write(Uring *u, UringPacket *packet, uint32_t n) { return uring_submit(u, URING_WRITE, packet, n); }

static inline int uring_open(Uring *u, int file) {
    UringParameters p;
    UringPacket nothing;
    uint32_t *array, i;
    int code;
    memset(u, 0, sizeof *u);
    memset(&p, 0, sizeof p);
    u->file = file;
    u->ring = 1 + (int)syscall(URING_SETUP, URING_MOST, &p); /* always close-on-exec */
    if (u->ring == 0) return errno;
    if (!(p.features & URING_ONE_MAP)) {
        uring_close(u);
        return ENOSYS;
    }
    u->map_bytes = p.cq.cqes + p.cq_entries * sizeof(UringResult);
    if (u->map_bytes < p.sq.array + p.sq_entries * sizeof(uint32_t)) u->map_bytes = p.sq.array + p.sq_entries * sizeof(uint32_t);
    u->request_bytes = p.sq_entries * sizeof(UringRequest);
    u->map = (uint8_t *)uring_map(u, u->map_bytes, 0);
    if (u->map != NULL) u->request = (UringRequest *)uring_map(u, u->request_bytes, URING_REQUESTS_AT);
    if (u->request == NULL) {
        code = errno;
        uring_close(u);
        return code;
    }
    u->sq_head = (uint32_t *)(u->map + p.sq.head);
    u->sq_tail = (uint32_t *)(u->map + p.sq.tail);
    u->sq_mask = *(uint32_t *)(u->map + p.sq.mask);
    u->cq_head = (uint32_t *)(u->map + p.cq.head);
    u->cq_tail = (uint32_t *)(u->map + p.cq.tail);
    u->cq_mask = *(uint32_t *)(u->map + p.cq.mask);
    u->result = (UringResult *)(u->map + p.cq.cqes);
    array = (uint32_t *)(u->map + p.sq.array);
    for (i = 0; i < p.sq_entries; i++) array[i] = i;
    /* A read of no bytes takes nothing off the file, and says whether the kernel knows the request and the file RWF_NOWAIT. */
    nothing.at = (const uint8_t *)&nothing;
    nothing.n = 0;
    uring_submit(u, URING_READ, &nothing, 1);
    if (nothing.done < 0 && nothing.done != -EAGAIN) {
        uring_close(u);
        return -nothing.done;
    }
    u->there = 1;
    return 0;
}

#else

typedef struct {
    int there;
} Uring;

static inline int uring_open(Uring *u, int file) {
    (void)file;
    u->there = 0;
    return ENOSYS;
}
static inline uint64_t uring_write(Uring *u, UringPacket *packet, uint32_t n) {
    uint32_t i;
    (void)u;
    for (i = 0; i < n; i++) packet[i].done = -ENOSYS;
    return 0;
}
static inline void uring_close(Uring *u) { u->there = 0; }

#endif
#endif
