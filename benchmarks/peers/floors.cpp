// What no table can beat: the row of each segment is known before it is asked for.
//
//   floor 1   one line of memory a segment: the row, with full update and expiry
//   floor 2   and one random line more, where an index would be
//
// The answers are written down by a table of its own that sees the same segments first; that is not timed.
#include "churn.hpp"

#include <unordered_map>

template <class K, class R> struct Recorder {
    static constexpr bool OWN_ROWS = false, KNOWN = false, RECORDS = true;
    std::unordered_map<K, churn::row_t, churn::Hash<K>> map;
    Recorder(size_t rows, R *) { map.reserve(rows); }
    void find_batch(const K *, size_t n, churn::row_t *out)
    {
        for (size_t i = 0; i < n; i++) out[i] = churn::NO_ROW;
    }
    churn::row_t find(const K &k) const
    {
        auto at = map.find(k);
        return at == map.end() ? churn::NO_ROW : at->second;
    }
    churn::row_t insert(const K &k, churn::row_t row)
    {
        map.emplace(k, row);
        return row;
    }
    void prefetch(const K &) {}
    void erase(const K &k, churn::row_t) { map.erase(k); }
};

template <class K, class R> struct Floor1 {
    static constexpr bool OWN_ROWS = false, KNOWN = true, RECORDS = false;
    Floor1(size_t, R *) {}
    void fetch(const churn::row_t *known, size_t n, churn::row_t *out)
    {
        for (size_t i = 0; i < n; i++) out[i] = known[i] >> 1;
    }
    churn::row_t find(const K &) const { return churn::NO_ROW; }
    churn::row_t insert(const K &, churn::row_t row) { return row; }
    void prefetch(const K &) {}
    void erase(const K &, churn::row_t) {}
};

template <class K, class R> struct Floor2 {
    static constexpr bool OWN_ROWS = false, KNOWN = true, RECORDS = false;
    struct alignas(64) Line { uint32_t zero, touched, spare[14]; };
    Line *lines;
    const R *rows;
    uint32_t count;
    Floor2(size_t capacity, R *r) : rows(r), count((uint32_t)(capacity / 6 + 1))
    {
        lines = (Line *)churn::take_memory(count * sizeof(Line));
    }
    Line *line(churn::row_t row) const { return &lines[(uint64_t)(uint32_t)(row * 0x9E3779B1u) * count >> 32]; }
    void fetch(const churn::row_t *known, size_t n, churn::row_t *out)
    {
        for (size_t i = 0; i < n; i++) __builtin_prefetch(line(known[i] >> 1), 1);
        for (size_t i = 0; i < n; i++) out[i] = (known[i] >> 1) ^ line(known[i] >> 1)->zero;
    }
    churn::row_t find(const K &) const { return churn::NO_ROW; }
    churn::row_t insert(const K &, churn::row_t row)
    {
        line(row)->touched++;
        return row;
    }
    void prefetch(const K &) {}
    void erase(const K &, churn::row_t row) { line(row)->touched--; }
};

template <class K, template <class, class> class Floor> void serve_floor(const churn::Segment *segments, size_t capacity)
{
    churn::Tracker<K, Recorder> recorder(capacity);
    long empty = churn::anonymous_kb();
    churn::Walked<K, Floor> floor(capacity);
    churn::serve(floor, segments, empty, [&](const churn::Segment *g, size_t n) {
        recorder.apply(g, n);
        floor.known.swap(recorder.known);
    });
}

int main(int argc, char **argv)
{
    if (argc != 6) { fprintf(stderr, "usage: %s FILE SEGMENTS ROWS 4|6 1|2\n", argv[0]); return 2; }
    const churn::Segment *segments = churn::map_segments(argv[1], strtoull(argv[2], nullptr, 10));
    size_t capacity = strtoull(argv[3], nullptr, 10);
    bool v4 = argv[4][0] == '4';
    if (argv[5][0] == '1')
        v4 ? serve_floor<churn::Packed4, Floor1>(segments, capacity) : serve_floor<churn::Packed6, Floor1>(segments, capacity);
    else
        v4 ? serve_floor<churn::Packed4, Floor2>(segments, capacity) : serve_floor<churn::Packed6, Floor2>(segments, capacity);
}
