/* pool_histogram.c: how long waits, dials and leases took.
 *
 * Histograms are log-linear: four buckets for each power of two of nanoseconds, so that a bucket is
 * at most a quarter wider than its lower bound; up to 39 hours, and the last takes the rest.
 */
#include "pool_impl.h"

#include "../base/spans.h"

size_t
hs_histogram_bucket(int64_t ns)
{
    uint64_t v = ns > 0 ? (uint64_t)ns : 0;
    unsigned power;
    size_t i;

    if (v < 4)
        return (size_t)v;
    power = 63 - (unsigned)__builtin_clzll(v);
    i = (size_t)(power - 1) * 4 + (size_t)((v >> (power - 2)) & 3);
    return i < HS_HISTOGRAM_BUCKETS ? i : HS_HISTOGRAM_BUCKETS - 1;
}

int64_t
hs_histogram_bound(size_t bucket)
{
    if (bucket + 1 >= HS_HISTOGRAM_BUCKETS)
        return HS_NEVER;
    bucket++;
    if (bucket < 4)
        return (int64_t)bucket;
    return (int64_t)(4 + (bucket & 3)) << (bucket / 4 - 1);
}

void
hs_histogram_add(struct hs_histogram *h, int64_t ns)
{
    uint64_t v = ns > 0 ? (uint64_t)ns : 0;

    h->count++;
    h->sum_ns += v;
    if (v > h->max_ns)
        h->max_ns = v;
    h->buckets[hs_histogram_bucket(ns)]++;
    h->edges[hs_edge_index(ns)]++;
}
