// boost::unordered_flat_map from a key to its row. It has no prefetch.
#include "inline.hpp"

#include <boost/unordered/unordered_flat_map.hpp>

template <class K> struct Of {
    using Map = boost::unordered_flat_map<K, churn::State, churn::Hash<K>>;
    struct Ahead { static void ahead(const Map &, const K &) {} };
    using type = churn::InlineTracker<K, Map, Ahead>;
};

int main(int argc, char **argv) { return churn::worker_inline<Of>(argc, argv); }
