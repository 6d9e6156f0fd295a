// Timers alone: a wheel of 32,768 slots with intrusive doubly linked lists, in rows of 64 bytes, and a binary heap.
//
// argv: rows, rounds. Prints nanoseconds a timer, one line a round:  name insert cancel expire burst
// The same time-outs as benchmarks/test_structures.py; burst is one row in ten, scattered, due in one tick, in milliseconds.
#include <sys/mman.h>
#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

struct Row { uint32_t deadline, next, prev, slot; uint64_t spare[6]; };
static_assert(sizeof(Row) == 64);
constexpr uint32_t SLOTS = 32768, NONE = 0xFFFFFFFF;

static uint64_t state;
static uint64_t chance()
{
    uint64_t z = state += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

struct Lists {
    Row *rows;
    size_t count;
    uint32_t head[SLOTS];
    uint32_t now = 0;
    uint64_t sum = 0;
    explicit Lists(size_t n) : count(n)
    {
        size_t whole = (n * sizeof(Row) + (2u << 20) - 1) & ~((size_t)(2u << 20) - 1);
        rows = (Row *)aligned_alloc(2u << 20, whole);
        madvise(rows, whole, MADV_HUGEPAGE);
        memset(rows, 0, whole);
        memset(head, 0xFF, sizeof head);
    }
    void arm(uint32_t row, uint32_t deadline)
    {
        uint32_t slot = deadline & (SLOTS - 1);
        Row &r = rows[row];
        r.deadline = deadline, r.slot = slot, r.prev = NONE, r.next = head[slot];
        if (r.next != NONE) rows[r.next].prev = row;
        head[slot] = row;
    }
    void disarm(uint32_t row)
    {
        Row &r = rows[row];
        if (r.slot == NONE) return;
        if (r.prev != NONE) rows[r.prev].next = r.next; else head[r.slot] = r.next;
        if (r.next != NONE) rows[r.next].prev = r.prev;
        r.slot = NONE;
    }
    size_t expire(uint32_t ticks)
    {
        size_t found = 0;
        for (uint32_t until = now + ticks; now != until;) {
            uint32_t row = head[++now & (SLOTS - 1)];
            head[now & (SLOTS - 1)] = NONE;
            // Each is disarmed when it is handed out, as in fasttcp: whoever ends it may disarm it again.
            for (; row != NONE; row = rows[row].next) sum += rows[row].deadline, rows[row].slot = NONE, found++;
        }
        return found;
    }
    void insert(uint32_t low, uint32_t high) { for (size_t i = 0; i < count; i++) arm((uint32_t)i, now + low + chance() % (high - low)); }
    void cancel() { for (size_t i = 0; i < count; i++) disarm((uint32_t)i); }
    void gather(size_t some, uint32_t ticks)
    {
        // In a scattered order too: they fell into this tick from all over the table.
        size_t step = count / some;
        for (size_t i = 0; i < some; i++) arm((uint32_t)((i * 7919 % some) * step + chance() % step), now + ticks);
    }
};

template <class F> static double timed(F f)
{
    // CPU time of the thread: what else runs on the machine does not count.
    timespec start, end;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    f();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    return (end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec);
}

int main(int argc, char **argv)
{
    if (argc != 3) { fprintf(stderr, "usage: %s ROWS ROUNDS\n", argv[0]); return 2; }
    size_t n = strtoull(argv[1], nullptr, 10);
    int rounds = atoi(argv[2]);
    Lists *wheel = new Lists(n);
    for (int i = 0; i < rounds; i++) {
        double insert = timed([&] { wheel->insert(1, 32000); }) / n;
        double cancel = timed([&] { wheel->cancel(); }) / n;
        wheel->insert(1, 6000);
        size_t found = 0;
        double expire = timed([&] { found = wheel->expire(6000); }) / n;
        size_t some = n / 10;
        wheel->gather(some, 100);
        found += wheel->expire(99);
        double burst = timed([&] { found += wheel->expire(1); });
        if (found != n + some) { fprintf(stderr, "%zu timers fell due, %zu were set\n", found, n + some); return 1; }
        printf("lists %.2f %.2f %.2f %.3f\n", insert, cancel, expire, burst / 1e6);
    }
}
