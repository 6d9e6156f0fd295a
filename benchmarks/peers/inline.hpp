// A flat map that holds its rows itself, as such maps are used: find, insert, erase by key.
//
// Its rows move, so a timer names its connection by the key. Timers are FIFOs for each constant wait, as in churn.hpp.
#pragma once

#include <deque>

#include "churn.hpp"

namespace churn {

// Map: of K to State. Ahead: void ahead(const Map &, const K &), what the library offers for prefetching.

template <class K, class Map, class Ahead> struct InlineTracker {
    using R = typename Map::mapped_type;
    struct Entry { K key; uint32_t life; tick_t due; };
    Map map;
    Machine machine;
    Clock clock;
    size_t used = 0;
    uint32_t lives = 0;
    std::deque<Entry> fifo[WAITS];

    explicit InlineTracker(size_t capacity) { map.reserve(capacity); }

    template <class F> void each(F f) { for (auto &[k, r] : map) f(r); }

    void apply(const Segment *g, size_t n)
    {
        K keys[BATCH];
        uint8_t side[BATCH];
        for (size_t base = 0; base < n; base += BATCH) {
            size_t count = n - base < BATCH ? n - base : BATCH;
            for (size_t i = 0; i < count; i++) {
                side[i] = (uint8_t)K::make(keys[i], g[base + i]);
                Ahead::ahead(map, keys[i]);
            }
            for (size_t i = 0; i < count; i++) one(keys[i], side[i], g[base + i]);
        }
        used = map.size();
    }

    void advance()
    {
        for (int wait = 0; wait < WAITS; wait++) {
            std::deque<Entry> &f = fifo[wait];
            while (!f.empty() && (int32_t)(f.front().due - (tick_t)clock.tick) <= 0) {
                Entry e = f.front();
                f.pop_front();
                if (f.size() > 8) Ahead::ahead(map, f[8].key);
                auto at = map.find(e.key);
                if (at == map.end() || at->second.life != e.life) continue;
                if ((int32_t)(at->second.deadline - (tick_t)clock.tick) <= 0)
                    end(at);
                else if (waits_for(at->second) == wait)
                    f.push_back(Entry{e.key, e.life, clock.after(WAIT_TICKS[wait])});
            }
        }
        used = map.size();
    }

private:
    void one(const K &k, int s, const Segment &g)
    {
        if (clock.moved(g.time_ns)) advance();
        auto at = map.find(k);
        if (at != map.end() && g.flags & SYN && over(at->second)) {
            machine.tallies.replaced++;
            end(at);
            at = map.end();
        }
        int before = WAIT_SILENCE;
        if (at == map.end()) {
            if ((g.flags & (SYN | ACK)) != SYN) { machine.tallies.stray++; return; }
            at = map.emplace(k, R{}).first;
            at->second.life = ++lives;
            machine.first(at->second, s, g);
            fifo[WAIT_SILENCE].push_back(Entry{k, at->second.life, clock.after(WAIT_TICKS[WAIT_SILENCE])});
        } else {
            before = waits_for(at->second);
            machine.apply(at->second, s, g);
        }
        R &r = at->second;
        machine.count(r, s, g);
        int wait = waits_for(r);
        if (wait == WAIT_SILENCE || wait != before) r.deadline = clock.after(TIMEOUT_TICKS[r.state[0] * 16 + r.state[1]]);
        if (wait != before) fifo[wait].push_back(Entry{k, r.life, r.deadline});
    }

    template <class I> void end(I at)
    {
        machine.tallies.ended++;
        machine.pairs[at->second.state[0] * 16 + at->second.state[1]]--;
        map.erase(at);
    }
};

struct State {              // a Row without its key, which the map keeps: 48 bytes
    uint8_t state[2];
    uint16_t flags;
    tick_t deadline;
    uint32_t life;
    int64_t last_ns;
    Half half[2];
};

template <class T> void run_inline(const Segment *segments, size_t capacity)
{
    long empty = anonymous_kb();
    T tracker(capacity);
    serve(tracker, segments, empty, [](const Segment *, size_t) {});
}

template <template <class> class Of> int worker_inline(int argc, char **argv)
{
    if (argc != 5) { fprintf(stderr, "usage: %s FILE SEGMENTS ROWS 4|6\n", argv[0]); return 2; }
    const Segment *segments = map_segments(argv[1], strtoull(argv[2], nullptr, 10));
    size_t capacity = strtoull(argv[3], nullptr, 10);
    argv[4][0] == '4' ? run_inline<typename Of<Packed4>::type>(segments, capacity)
                      : run_inline<typename Of<Packed6>::type>(segments, capacity);
    return 0;
}

}  // namespace churn
