// DPDK's rte_hash, looked up in bulk; its key positions are the numbers of the rows.
#include "churn.hpp"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_hash.h>
#include <rte_memory.h>

template <class K, class R> struct Index {
    static constexpr bool OWN_ROWS = true, KNOWN = false, RECORDS = false;
    rte_hash *hash;
    Index(size_t rows, R *)
    {
        rte_hash_parameters p{};
        p.name = "churn";
        p.entries = (uint32_t)rows;
        p.key_len = sizeof(K);
        p.socket_id = 0;
        hash = rte_hash_create(&p);
        if (!hash) { fprintf(stderr, "rte_hash_create: %s\n", rte_strerror(rte_errno)); exit(1); }
    }
    void find_batch(const K *keys, size_t n, churn::row_t *out)
    {
        const void *at[churn::BATCH];
        for (size_t i = 0; i < n; i++) at[i] = &keys[i];
        rte_hash_lookup_bulk(hash, at, (uint32_t)n, (int32_t *)out);
        for (size_t i = 0; i < n; i++)
            if ((int32_t)out[i] < 0) out[i] = churn::NO_ROW;
    }
    churn::row_t find(const K &k) const
    {
        int32_t at = rte_hash_lookup(hash, &k);
        return at < 0 ? churn::NO_ROW : (churn::row_t)at;
    }
    churn::row_t insert(const K &k, churn::row_t)
    {
        int32_t at = rte_hash_add_key(hash, &k);
        if (at < 0) { fprintf(stderr, "rte_hash_add_key: %d\n", at); exit(1); }
        return (churn::row_t)at;
    }
    void prefetch(const K &) {}
    void erase(const K &k, churn::row_t) { rte_hash_del_key(hash, &k); }
};

int main(int argc, char **argv)
{
    if (argc != 5) return churn::worker<Index>(argc, argv);
    char memory[32];
    snprintf(memory, sizeof memory, "%llu", strtoull(argv[3], nullptr, 10) * (argv[4][0] == '4' ? 100 : 140) / (1 << 20) + 256);
    const char *args[] = {argv[0], "--no-huge", "--no-pci", "--no-telemetry", "-l", "0", "-m", memory, "--log-level", "3"};
    if (rte_eal_init(sizeof args / sizeof *args, (char **)args) < 0) {
        fprintf(stderr, "rte_eal_init: %s\n", rte_strerror(rte_errno));
        return 1;
    }
    // Huge pages by the back door: --no-huge has only told it not to look for a hugetlbfs.
    rte_memseg_walk([](const rte_memseg_list *, const rte_memseg *seg, void *) {
        madvise(seg->addr, seg->len, MADV_HUGEPAGE);
        return 0;
    }, nullptr);
    return churn::worker<Index>(argc, argv);
}
