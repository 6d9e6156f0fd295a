// absl::flat_hash_map from a key to its row, with its prefetch.
#include "inline.hpp"

#include <absl/container/flat_hash_map.h>

template <class K> struct Of {
    using Map = absl::flat_hash_map<K, churn::State, churn::Hash<K>>;
    struct Ahead { static void ahead(const Map &map, const K &k) { map.prefetch(k); } };
    using type = churn::InlineTracker<K, Map, Ahead>;
};

int main(int argc, char **argv) { return churn::worker_inline<Of>(argc, argv); }
