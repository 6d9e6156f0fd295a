// std::unordered_map from a key to its row, std::multimap for the timers: what the standard library offers.
//
// A timer is set where a wait begins (silence, 2MSL, after a reset) and looked at when it is due: if its connection has gone
// on, it is set anew. Rows stay where they are in an unordered_map, so a timer holds a pointer to its own.
#include "churn.hpp"

#include <map>
#include <unordered_map>

using namespace churn;

template <class K> struct StdTracker {
    struct R;
    using Map = std::unordered_map<K, R, Hash<K>>;
    using Timers = std::multimap<uint64_t, std::pair<const K, R> *>;
    struct R : Row<K> { typename Timers::iterator timer; };
    Map map;
    Timers timers;
    Machine machine;
    Clock clock;
    size_t used = 0;
    explicit StdTracker(size_t capacity) { map.reserve(capacity); }

    template <class F> void each(F f) { for (auto &[k, r] : map) f(r); }

    void apply(const Segment *g, size_t n)
    {
        for (size_t i = 0; i < n; i++) one(g[i]);
    }

    void one(const Segment &g)
    {
        K k;
        int s = K::make(k, g);
        if (clock.moved(g.time_ns)) advance();
        auto at = map.find(k);
        if (at != map.end() && g.flags & SYN && over(at->second)) {
            machine.tallies.replaced++;
            timers.erase(at->second.timer);
            end(at);
            at = map.end();
        }
        int before = WAIT_SILENCE;
        if (at == map.end()) {
            if ((g.flags & (SYN | ACK)) != SYN) { machine.tallies.stray++; return; }
            at = map.emplace(k, R{}).first;
            at->second.flags = USED;
            machine.first(at->second, s, g);
            set(*at, WAIT_TICKS[WAIT_SILENCE]);
        } else {
            before = waits_for(at->second);
            machine.apply(at->second, s, g);
        }
        R &r = at->second;
        machine.count(r, s, g);
        int wait = waits_for(r);
        uint32_t ticks = TIMEOUT_TICKS[r.state[0] * 16 + r.state[1]];
        if (wait == WAIT_SILENCE || wait != before) r.deadline = clock.after(ticks);
        if (wait != before) {
            timers.erase(r.timer);
            set(*at, ticks);
        }
    }

    void advance()
    {
        while (!timers.empty() && timers.begin()->first <= clock.tick) {
            auto *node = timers.begin()->second;
            R &r = node->second;
            timers.erase(timers.begin());
            if ((int32_t)(r.deadline - (tick_t)clock.tick) <= 0)
                end(map.find(node->first));
            else
                set(*node, r.deadline - (tick_t)clock.tick);
        }
    }

private:
    template <class N> void set(N &node, uint32_t ticks)
    {
        uint64_t due = clock.tick + (clock.now != clock.start) + ticks;
        node.second.timer = timers.emplace(due, &node);
    }
    template <class I> void end(I at)
    {
        machine.tallies.ended++;
        machine.pairs[at->second.state[0] * 16 + at->second.state[1]]--;
        map.erase(at);
    }
};

template <class K> struct Counted : StdTracker<K> {
    using StdTracker<K>::StdTracker;
    void apply(const Segment *g, size_t n) { StdTracker<K>::apply(g, n), this->used = this->map.size(); }
    void advance() { StdTracker<K>::advance(), this->used = this->map.size(); }
};

template <class K> void run_std(const Segment *segments, size_t capacity)
{
    long empty = anonymous_kb();
    Counted<K> tracker(capacity);
    serve(tracker, segments, empty, [](const Segment *, size_t) {});
}

int main(int argc, char **argv)
{
    if (argc != 5) { fprintf(stderr, "usage: %s FILE SEGMENTS ROWS 4|6\n", argv[0]); return 2; }
    const Segment *segments = map_segments(argv[1], strtoull(argv[2], nullptr, 10));
    size_t capacity = strtoull(argv[3], nullptr, 10);
    argv[4][0] == '4' ? run_std<Packed4>(segments, capacity) : run_std<Packed6>(segments, capacity);
}
