// What every peer in C++ shares: the segment, the row, the state machine, the timers, and the loop around them.
//
// A peer differs from the others in one thing, how it finds a row: it is a class `Index` (see `Tracker`). All get the same
// favours: keys of 12 bytes where all is IPv4, the same hash, rows of one cache line from a pool, stages over batches of 32
// with rows prefetched, expiry from FIFOs with rows prefetched 24 ahead, memory from huge pages, room reserved in advance.
//
// The rules are those of fasttcp's observer seat as far as a churn stream can tell: transitions by the same table (machine.inc,
// made from fasttcp/spec.py), sequence and window tracking, timestamps, packets and bytes for each direction. What is left
// out: counting retransmissions, first-seen times, 16-byte verdicts, traces. All of it makes the peers faster, not slower.
#pragma once

#include <sys/mman.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <chrono>
#include <type_traits>
#include <vector>

#include "machine.inc"      // enum STATES, EVENTS; NEXT[state][event]; TIMEOUT_TICKS[state0 * 16 + state1]; TICK_NS

namespace churn {

using tick_t = uint32_t;
using row_t = uint32_t;
constexpr row_t NO_ROW = 0xFFFFFFFF;
constexpr size_t BATCH = 32;

enum : uint16_t { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

struct Segment {            // fasttcp/core/layout.pxd
    int64_t time_ns;
    uint8_t src[16], dst[16];
    uint16_t sport, dport;
    uint32_t seq, ack, payload, tsval, tsecr;
    uint16_t window, flags, mss;
    uint8_t wscale, options;
    uint32_t ip_bytes, info;
};
static_assert(sizeof(Segment) == 80);

// ---- keys ------------------------------------------------------------------------------------------------------------

inline uint64_t load64(const uint8_t *p) { uint64_t x; memcpy(&x, p, 8); return x; }
inline uint32_t load32(const uint8_t *p) { uint32_t x; memcpy(&x, p, 4); return x; }
inline uint64_t big64(const uint8_t *p) { return __builtin_bswap64(load64(p)); }
inline uint32_t big32(const uint8_t *p) { return __builtin_bswap32(load32(p)); }

inline uint64_t fold(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

struct Key4 {               // both ends, the lower first
    uint64_t x, y;          // address << 16 | port
    bool operator==(const Key4 &o) const { return x == o.x && y == o.y; }
    uint64_t hash() const { return fold(x ^ 0x9E3779B97F4A7C15ull, y ^ 0xD1B54A32D192ED03ull); }
};

struct Packed4 {            // the same in 12 bytes, as it is stored
    uint32_t word[3];
    Packed4() = default;
    Packed4(const Key4 &k)
        : word{(uint32_t)(k.x >> 16), (uint32_t)(k.y >> 16), (uint32_t)(k.x & 0xFFFF) << 16 | (uint32_t)(k.y & 0xFFFF)} {}
    bool operator==(const Packed4 &o) const { return word[0] == o.word[0] && word[1] == o.word[1] && word[2] == o.word[2]; }
    uint64_t hash() const
    {
        return Key4{(uint64_t)word[0] << 16 | word[2] >> 16, (uint64_t)word[1] << 16 | (word[2] & 0xFFFF)}.hash();
    }
    static int make(Packed4 &k, const Segment &s)
    {
        uint64_t a = (uint64_t)big32(s.src + 12) << 16 | s.sport, b = (uint64_t)big32(s.dst + 12) << 16 | s.dport;
        uint64_t turned = b < a, swap = (a ^ b) & (0 - turned);
        k = Packed4(Key4{a ^ swap, b ^ swap});
        return (int)turned;
    }
};

struct Packed6 {            // any address as 16 bytes: 36 bytes
    uint8_t addr[2][16];
    uint16_t port[2];
    bool operator==(const Packed6 &o) const { return memcmp(this, &o, sizeof *this) == 0; }
    uint64_t hash() const
    {
        uint64_t h = fold(load64(addr[0]) ^ 0x9E3779B97F4A7C15ull, load64(addr[0] + 8) ^ 0xD1B54A32D192ED03ull);
        h ^= fold(load64(addr[1]) ^ 0xA0761D6478BD642Full, load64(addr[1] + 8) ^ 0xE7037ED1A0B428DBull);
        return fold(h ^ 0x8EBC6AF09C88C6E3ull, ((uint64_t)port[0] << 16 | port[1]) ^ 0x589965CC75374CC3ull);
    }
    static int make(Packed6 &k, const Segment &s)
    {
        uint64_t a = big64(s.src), b = big64(s.dst);
        if (a == b) {
            a = big64(s.src + 8), b = big64(s.dst + 8);
            if (a == b) a = s.sport, b = s.dport;
        }
        int side = b < a;
        memcpy(k.addr[side], s.src, 16), memcpy(k.addr[1 - side], s.dst, 16);
        k.port[side] = s.sport, k.port[1 - side] = s.dport;
        return side;
    }
};

template <class K> struct Hash {
    using is_avalanching = void;    // boost: no need to stir it again
    size_t operator()(const K &k) const { return k.hash(); }
};

// ---- rows ------------------------------------------------------------------------------------------------------------

struct Half {
    uint32_t snd_nxt, rcv_nxt;
    uint16_t window, packets;
    uint32_t bytes;
};

enum : uint16_t { USED = 1, SCALED = 2, SHIFT = 8 };

template <class K> struct Row {     // 64 bytes with Packed4, 88 with Packed6
    K key;
    uint8_t state[2];
    uint16_t flags;
    tick_t deadline;
    uint32_t life;          // tells this connection from the next one in the same row
    int64_t last_ns;
    Half half[2];
};

inline void *take_memory(size_t bytes)
{
    size_t whole = (bytes + (2u << 20) - 1) & ~((size_t)(2u << 20) - 1);
    void *p = aligned_alloc(2u << 20, whole);
    if (!p) { fprintf(stderr, "no memory for %zu bytes\n", bytes); exit(1); }
    madvise(p, whole, MADV_HUGEPAGE);
    memset(p, 0, whole);
    return p;
}

inline bool seq_lt(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }

// ---- the rules -------------------------------------------------------------------------------------------------------

struct Tallies { uint64_t connections, ended, replaced, retransmitted, missed_bytes, stray; };

template <class R> inline bool over(const R &r)
{
    return (r.state[0] == CLOSED || r.state[0] == TIME_WAIT) && (r.state[1] == CLOSED || r.state[1] == TIME_WAIT);
}

enum { WAIT_SILENCE, WAIT_2MSL, WAIT_RESET, WAITS };

// What the connection waits for. Only its beginning sets the timer of the last two; silence begins anew with every segment.
template <class R> inline int waits_for(const R &r)
{
    if (r.state[0] == TIME_WAIT || r.state[1] == TIME_WAIT) return WAIT_2MSL;
    return r.state[0] + r.state[1] ? WAIT_SILENCE : WAIT_RESET;
}

struct Machine {
    Tallies tallies{};
    uint64_t pairs[256]{};

    template <class R> inline void fire(R &r, int side, int event)
    {
        pairs[r.state[0] * 16 + r.state[1]]--;
        r.state[side] = NEXT[r.state[side]][event];
        pairs[r.state[0] * 16 + r.state[1]]++;
    }

    template <class R> inline void first(R &r, int s, const Segment &g)     // the SYN that opens it
    {
        pairs[0]++;
        tallies.connections++;
        learn(r, s, g);
        fire(r, s, OPEN_ACTIVE);
        fire(r, 1 - s, OPEN_PASSIVE);
        fire(r, 1 - s, RCV_SYN);
    }

    template <class R> inline void learn(R &r, int s, const Segment &g)
    {
        uint32_t shift = g.options & 2 ? (g.wscale < 14 ? g.wscale : 14) : 15;
        r.flags |= (uint16_t)(shift << (SHIFT + 4 * s) | SCALED << s);
        r.half[s].snd_nxt = g.seq + 1 + g.payload;
        r.half[1 - s].rcv_nxt = g.seq;
    }

    template <class R> inline uint32_t window_of(const R &r, int s)
    {
        uint32_t mine = r.flags >> (SHIFT + 4 * s) & 15, other = r.flags >> (SHIFT + 4 * (1 - s)) & 15;
        if (mine == 15 || other == 15) return r.half[s].window;
        return (uint32_t)r.half[s].window << mine;
    }

    template <class R> inline void reset(R &r, int s, const Segment &g)
    {
        int o = 1 - s;
        if (g.seq != r.half[s].snd_nxt && g.seq - r.half[o].rcv_nxt > window_of(r, o)) return;
        if (r.state[o] != CLOSED) fire(r, o, RCV_RST);
        if (r.state[s] != CLOSED) fire(r, s, ABORT);
    }

    // ACK, data and FIN.
    template <class R> inline void segment(R &r, int s, const Segment &g)
    {
        int o = 1 - s;
        Half &sender = r.half[s], &receiver = r.half[o];
        uint32_t end = g.seq + g.payload + (g.flags & FIN);
        int32_t beyond = (int32_t)(g.ack - receiver.snd_nxt);
        if (r.state[o] == SYN_RCVD && g.ack == receiver.snd_nxt) fire(r, o, RCV_ACK_OF_SYN);
        if (beyond > 0) {
            if ((uint32_t)beyond > window_of(r, s) + (1u << 20)) return;
            tallies.missed_bytes += beyond;
            receiver.snd_nxt = g.ack;
        }
        uint8_t state = r.state[o];
        if (beyond >= 0 && (state == FIN_WAIT_1 || state == CLOSING || state == LAST_ACK))
            fire(r, o, RCV_ACK_OF_FIN);
        if (seq_lt(sender.rcv_nxt, g.ack)) sender.rcv_nxt = g.ack;
        if (end != g.seq) {
            int32_t fresh = (int32_t)(end - sender.snd_nxt);
            if (fresh <= 0) {
                tallies.retransmitted++;
                return;
            }
            if ((uint32_t)fresh > end - g.seq) tallies.missed_bytes += (uint32_t)fresh - (end - g.seq);
            sender.snd_nxt = end;
        }
        if (g.flags & FIN) {
            state = r.state[s];
            if (state == SYN_RCVD || state == ESTABLISHED || state == CLOSE_WAIT) fire(r, s, CLOSE);
            state = r.state[o];
            if (state == ESTABLISHED || state == FIN_WAIT_1 || state == FIN_WAIT_2) fire(r, o, RCV_FIN);
        }
    }

    // Everything but opening.
    template <class R> inline void apply(R &r, int s, const Segment &g)
    {
        if (g.flags & RST)
            reset(r, s, g);
        else if (!(g.flags & SYN))
            segment(r, s, g);
        else if (g.flags & ACK && r.state[1 - s] == SYN_SENT) {
            learn(r, s, g);
            r.half[s].rcv_nxt = g.ack;
            fire(r, 1 - s, RCV_SYN_ACK);
        }
    }

    template <class R> inline void count(R &r, int s, const Segment &g)
    {
        r.half[s].window = g.window;
        r.half[s].packets++;
        r.half[s].bytes += g.payload;
        if (g.time_ns > r.last_ns) r.last_ns = g.time_ns;
    }
};

// ---- time ------------------------------------------------------------------------------------------------------------

struct Clock {              // ticks rounded as fasttcp rounds them: nothing early, nothing more than one tick late
    int64_t now = INT64_MIN, start = 0, end = INT64_MIN, epoch = 0;
    uint64_t tick = 0;
    bool moved(int64_t t)   // whether a new tick has begun
    {
        if (t < end) {
            if (t > now) now = t;
            return false;
        }
        if (now == INT64_MIN) epoch = t;
        now = t;
        tick = (uint64_t)(t - epoch) / TICK_NS;
        start = epoch + (int64_t)(tick * TICK_NS);
        end = start + (int64_t)TICK_NS;
        return true;
    }
    tick_t after(uint32_t ticks) const { return (tick_t)(tick + (now != start) + ticks); }
};

// The cheapest timers there are: a FIFO for each constant wait. One entry when a connection begins (its silence), one when
// it closes (2MSL) or is reset. An entry whose connection has gone on is dropped, or waits again.
struct Fifo {
    struct Entry { row_t row; uint32_t life; tick_t due; };
    std::vector<Entry> ring;
    size_t head = 0, tail = 0, mask = 0;
    void reserve(size_t n)
    {
        size_t size = 64;
        while (size < n) size *= 2;
        ring.resize(size);
        mask = size - 1;
    }
    void push(row_t row, uint32_t life, tick_t due)
    {
        if (tail - head > mask) {
            std::vector<Entry> more(ring.size() * 2);
            for (size_t i = head; i != tail; i++) more[i & (more.size() - 1)] = ring[i & mask];
            ring.swap(more);
            mask = ring.size() - 1;
        }
        ring[tail++ & mask] = Entry{row, life, due};
    }
};

// ---- the loop --------------------------------------------------------------------------------------------------------

// Index:  Index(size_t rows, R *rows)
//         void find_batch(const K *keys, size_t n, row_t *out)     prefetching as it can; NO_ROW where there is none
//         row_t find(const K &)
//         row_t insert(const K &, row_t free_row)                  the row it is to live in
//         void prefetch(const K &), void erase(const K &, row_t)
//         static constexpr bool OWN_ROWS                           it numbers the rows itself
//         static constexpr bool KNOWN                              no look-up at all: the answers stand in `known`
//         static constexpr bool RECORDS                            writes the answers down, for another to know
template <class K, template <class, class> class IndexOf> class Tracker {
public:
    using R = Row<K>;
    using Index = IndexOf<K, R>;

    explicit Tracker(size_t capacity) : rows((R *)take_memory((capacity + 8) * sizeof(R))), index(capacity, rows)
    {
        free.reserve(capacity);
        for (size_t i = 0; i < WAITS; i++) fifo[i].reserve(i == WAIT_RESET ? 64 : capacity);
    }

    void apply(const Segment *g, size_t n)
    {
        if constexpr (Index::KNOWN)
            apply_known(g, n);
        else
            apply_unknown(g, n);
    }

    void apply_unknown(const Segment *g, size_t n)
    {
        if (Index::RECORDS) known.resize(n);
        K keys[BATCH];
        row_t found[BATCH];
        uint8_t side[BATCH];
        for (size_t base = 0; base < n; base += BATCH) {
            size_t count = n - base < BATCH ? n - base : BATCH;
            for (size_t i = 0; i < count; i++) side[i] = (uint8_t)K::make(keys[i], g[base + i]);
            index.find_batch(keys, count, found);
            for (size_t i = 0; i < count; i++)
                if (found[i] != NO_ROW) __builtin_prefetch(&rows[found[i]], 1);
            for (size_t i = 0; i < count; i++) {
                row_t row = one(keys[i], found[i], side[i], g[base + i]);
                if (Index::RECORDS) known[base + i] = row << 1 | side[i];
            }
        }
    }

    void apply_known(const Segment *g, size_t n)
    {
        row_t found[BATCH];
        for (size_t base = 0; base < n; base += BATCH) {
            size_t count = n - base < BATCH ? n - base : BATCH;
            index.fetch(&known[base], count, found);
            for (size_t i = 0; i < count; i++) __builtin_prefetch(&rows[found[i]], 1);
            for (size_t i = 0; i < count; i++) one(K(), found[i], known[base + i] & 1, g[base + i]);
        }
    }

    void advance()
    {
        row_t due[BATCH];
        for (int wait = 0; wait < WAITS; wait++) {
            Fifo &f = fifo[wait];
            while (f.head != f.tail) {
                size_t n = 0;
                bool more = true;
                while (n < BATCH && (more = f.head != f.tail)) {
                    Fifo::Entry e = f.ring[f.head & f.mask];
                    if ((int32_t)(e.due - (tick_t)clock.tick) > 0) { more = false; break; }
                    __builtin_prefetch(&rows[f.ring[(f.head + 24) & f.mask].row], 1);
                    f.head++;
                    R &r = rows[e.row];
                    if (!(r.flags & USED) || r.life != e.life) continue;
                    if ((int32_t)(r.deadline - (tick_t)clock.tick) <= 0) {
                        index.prefetch(r.key);
                        r.life++;           // no second entry may hand it out again
                        due[n++] = e.row;
                    } else if (waits_for(r) == wait)
                        f.push(e.row, e.life, clock.after(WAIT_TICKS[wait]));
                }
                for (size_t i = 0; i < n; i++) end(due[i]);
                if (!more) break;
            }
        }
    }

    R *rows;
    Machine machine;
    Clock clock;
    row_t high = 0;
    size_t used = 0;
    std::vector<row_t> known;       // row << 1 | side of each segment of a batch

private:
    row_t one(const K &k, row_t row, int s, const Segment &g)
    {
        if (clock.moved(g.time_ns)) advance();
        // A row found ahead may have been let go of meanwhile, one not found may have come.
        if (row == NO_ROW || !(rows[row].flags & USED) || (!Index::KNOWN && !(rows[row].key == k))) row = index.find(k);
        if (row != NO_ROW && g.flags & SYN && over(rows[row])) {
            machine.tallies.replaced++;
            end(row);
            row = NO_ROW;
        }
        int before = WAIT_SILENCE;
        if (row == NO_ROW) {
            if ((g.flags & (SYN | ACK)) != SYN) { machine.tallies.stray++; return NO_ROW >> 1; }
            row = begin(k);
            machine.first(rows[row], s, g);
            fifo[WAIT_SILENCE].push(row, rows[row].life, clock.after(WAIT_TICKS[WAIT_SILENCE]));
        } else {
            before = waits_for(rows[row]);
            machine.apply(rows[row], s, g);
        }
        R &r = rows[row];
        machine.count(r, s, g);
        int wait = waits_for(r);
        if (wait == WAIT_SILENCE || wait != before) r.deadline = clock.after(TIMEOUT_TICKS[r.state[0] * 16 + r.state[1]]);
        if (wait != before) fifo[wait].push(row, r.life, r.deadline);
        return row;
    }

    row_t begin(const K &k)
    {
        row_t row = NO_ROW;
        if (!Index::OWN_ROWS) {
            if (free.empty())
                row = high++;
            else {
                row = free.back();
                free.pop_back();
                if (!free.empty()) __builtin_prefetch(&rows[free.back()], 1);
            }
        }
        row = index.insert(k, row);
        if (Index::OWN_ROWS && row >= high) high = row + 1;
        R &r = rows[row];
        uint32_t life = r.life + 1;
        memset(&r, 0, sizeof r);
        r.life = life;
        r.key = k;
        r.flags = USED;
        used++;
        return row;
    }

    void end(row_t row)
    {
        R &r = rows[row];
        machine.tallies.ended++;
        machine.pairs[r.state[0] * 16 + r.state[1]]--;
        index.erase(r.key, row);
        r.flags = 0;
        used--;
        if (!Index::OWN_ROWS) free.push_back(row);
    }

    Index index;
    std::vector<row_t> free;
    Fifo fifo[WAITS];
};

// ---- the worker ------------------------------------------------------------------------------------------------------

inline long anonymous_kb()
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kb = 0;
    while (f && fgets(line, sizeof line, f)) sscanf(line, "RssAnon: %ld", &kb);
    if (f) fclose(f);
    return kb;
}

// argv: a file of segments, how many it holds, rows, "4" or "6". Commands on stdin, one answer a line:
//   apply N     the first N segments of the file; answers the nanoseconds it took
//   report      what there is now, as JSON
template <class T, class Before> void serve(T &tracker, const Segment *segments, long empty_kb, Before before)
{
    char command[16];
    size_t n;
    printf("ready\n");
    fflush(stdout);
    while (scanf("%15s", command) == 1) {
        if (!strcmp(command, "apply") && scanf("%zu", &n) == 1) {
            before(segments, n);
            auto start = std::chrono::steady_clock::now();
            tracker.apply(segments, n);
            auto end = std::chrono::steady_clock::now();
            printf("%lld\n", (long long)std::chrono::duration_cast<std::chrono::nanoseconds>(end - start).count());
        } else if (!strcmp(command, "report")) {
            tracker.advance();
            uint64_t counts[11] = {}, sum = 0;
            for (int i = 0; i < 256; i++) counts[i / 16 % 11] += tracker.machine.pairs[i], counts[i % 16 % 11] += tracker.machine.pairs[i];
            tracker.each([&](const auto &r) {
                for (const Half &h : r.half) sum += h.snd_nxt + (uint64_t)h.rcv_nxt + h.window + h.packets + h.bytes;
                sum += (uint64_t)r.last_ns + r.deadline;
            });
            printf("{\"counts\": [");
            for (int i = 0; i < 11; i++) printf("%s%llu", i ? ", " : "", (unsigned long long)counts[i]);
            const Tallies &t = tracker.machine.tallies;
            printf("], \"live\": %zu, \"sum\": %llu, \"connections\": %llu, \"ended\": %llu, \"replaced\": %llu, "
                   "\"retransmitted\": %llu, \"missed_bytes\": %llu, \"stray\": %llu, \"bytes\": %lld}\n",
                   tracker.used, (unsigned long long)sum, (unsigned long long)t.connections, (unsigned long long)t.ended,
                   (unsigned long long)t.replaced, (unsigned long long)t.retransmitted, (unsigned long long)t.missed_bytes,
                   (unsigned long long)t.stray, (long long)(anonymous_kb() - empty_kb) * 1024);
        } else
            break;
        fflush(stdout);
    }
}

inline const Segment *map_segments(const char *path, size_t n)
{
    int fd = open(path, O_RDONLY);
    void *p = fd < 0 ? MAP_FAILED : mmap(nullptr, n * sizeof(Segment), PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED) { perror(path); exit(1); }
    return (const Segment *)p;
}

template <class K, template <class, class> class IndexOf> struct Walked : Tracker<K, IndexOf> {
    using Tracker<K, IndexOf>::Tracker;
    template <class F> void each(F f)
    {
        for (row_t i = 0; i < this->high; i++)
            if (this->rows[i].flags & USED) f(this->rows[i]);
    }
};

template <class K, template <class, class> class IndexOf> void run(const Segment *segments, size_t capacity)
{
    long empty = anonymous_kb();
    Walked<K, IndexOf> tracker(capacity);
    serve(tracker, segments, empty, [](const Segment *, size_t) {});
}

template <template <class, class> class IndexOf> int worker(int argc, char **argv)
{
    if (argc != 5) { fprintf(stderr, "usage: %s FILE SEGMENTS ROWS 4|6\n", argv[0]); return 2; }
    const Segment *segments = map_segments(argv[1], strtoull(argv[2], nullptr, 10));
    size_t capacity = strtoull(argv[3], nullptr, 10);
    argv[4][0] == '4' ? run<Packed4, IndexOf>(segments, capacity) : run<Packed6, IndexOf>(segments, capacity);
    return 0;
}

}  // namespace churn
