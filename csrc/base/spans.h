/* spans.h: durations counted by fixed edges, for who adds from any thread and who reads at any
 * time.
 *
 * All have the same edges (hs_edge_ns), so that they can be added up over pools, processes and
 * time. Adding is two relaxed additions; a reader may see one of them without the other.
 */
#ifndef HS_BASE_SPANS_H
#define HS_BASE_SPANS_H

#include "hardsock_binding.h"

#include <stdatomic.h>

struct hs_times {
    _Atomic uint64_t buckets[HS_EDGES + 1];
    _Atomic uint64_t sum_ns;
};

/* A negative duration counts as none. */
void hs_times_add(struct hs_times *t, int64_t ns);
void hs_times_read(struct hs_times *t, struct hs_spread *ret_spread);
/* The same for who has a lock around it. */
void hs_spread_add(struct hs_spread *s, int64_t ns);
void hs_spread_merge(struct hs_spread *into, const struct hs_spread *from);
/* The bucket that a duration is counted in. */
size_t hs_edge_index(int64_t ns);

/* The process's own, one for each HS_SPAN_. */
void hs_span_add(enum hs_span span, int64_t ns);

#endif
