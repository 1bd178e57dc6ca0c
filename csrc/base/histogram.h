/* histogram.h: how many values were at most how large, with fixed edges.
 *
 * For what is counted on hot paths by many threads and read seldom: adding takes no lock and
 * allocates nothing (two relaxed additions), and edges never change, so that counts of several
 * processes and of several days can be added up, as Prometheus wants it. The pool's hs_histogram is
 * another one: finer, and guarded by the pool's lock.
 *
 * The tables of edges are in histogram.c; each ends with a bucket for all that is beyond:
 * HS_EDGES_DELAY: 10 25 50 100 250 500 us, 1 2.5 5 10 25 50 100 250 500 ms, 1 2.5 5 10 s
 * HS_EDGES_SPAN: from 100 us, which is about what a thread needs to be woken and answered on one
 *   machine, to a day, which only ages reach; 1, 2.5, 5 in each decade where waits are
 */
#ifndef HS_BASE_HISTOGRAM_H
#define HS_BASE_HISTOGRAM_H

#include "hardsock_binding.h"

#include <stdatomic.h>

struct hs_fixed_histogram {
    unsigned magic;
    enum hs_edges edges;                            /* write once */
    _Atomic uint64_t sum_ns;                        /* only ever counters, as the next */
    _Atomic uint64_t buckets[HS_FIXED_BUCKETS_MAX]; /* [i]: at most edge i, above edge i - 1 */
};

#define HS_HISTOGRAM_MAGIC 0x4157e067U
#define HS_FIXED_HISTOGRAM_STATIC(table)                                                           \
    {                                                                                              \
        .magic = HS_HISTOGRAM_MAGIC, .edges = (table)                                              \
    }

/* Of the caller's memory; there is nothing to be undone. Before others know of it. */
void hs_fixed_histogram_init(struct hs_fixed_histogram *h, enum hs_edges edges);

/* The bucket of HS_EDGES_SPAN that a duration is counted in. */
size_t hs_edge_index(int64_t ns);

#endif
