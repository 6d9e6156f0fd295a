// boost::unordered_flat_map as nothing but an index: fasttcp's own design (rows from a pool, stages, prefetch) around it.
#include "churn.hpp"

#include <boost/unordered/unordered_flat_map.hpp>

template <class K, class R> struct Index {
    static constexpr bool OWN_ROWS = false, KNOWN = false, RECORDS = false;
    boost::unordered_flat_map<K, churn::row_t, churn::Hash<K>> map;
    Index(size_t rows, R *) { map.reserve(rows); }
    void find_batch(const K *keys, size_t n, churn::row_t *out)
    {
        for (size_t i = 0; i < n; i++) out[i] = find(keys[i]);
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

int main(int argc, char **argv) { return churn::worker<Index>(argc, argv); }
