/* spans.c: the edges, and the process's own histograms.
 *
 * The edges reach from 100 microseconds, which is about what a thread needs to be woken and
 * answered on one machine, to a day, which only ages reach; 1, 2.5, 5 in each decade where waits
 * are.
 */
#include "spans.h"

#include "hardsock_binding.h"

#include "check.h"

#define US INT64_C(1000)
#define MS INT64_C(1000000)
#define S INT64_C(1000000000)

static const int64_t edges[HS_EDGES] = {
    100 * US, 250 * US, 500 * US, 1 * MS,   2500 * US, 5 * MS,    10 * MS, 25 * MS,
    50 * MS,  100 * MS, 250 * MS, 500 * MS, 1 * S,     2500 * MS, 5 * S,   10 * S,
    30 * S,   60 * S,   300 * S,  1800 * S, 7200 * S,  86400 * S,
};

static struct hs_times spans[HS_SPANS];

int64_t
hs_edge_ns(size_t bucket)
{
    return bucket < HS_EDGES ? edges[bucket] : HS_NEVER;
}

size_t
hs_edge_index(int64_t ns)
{
    size_t low = 0, high = HS_EDGES;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (edges[middle] < ns)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void
hs_times_add(struct hs_times *t, int64_t ns)
{
    atomic_fetch_add_explicit(&t->buckets[hs_edge_index(ns)], 1, memory_order_relaxed);
    if (ns > 0)
        atomic_fetch_add_explicit(&t->sum_ns, (uint64_t)ns, memory_order_relaxed);
}

void
hs_times_read(struct hs_times *t, struct hs_spread *ret_spread)
{
    struct hs_spread s = {0};

    s.sum_ns = atomic_load_explicit(&t->sum_ns, memory_order_relaxed);
    for (size_t i = 0; i <= HS_EDGES; i++) {
        s.buckets[i] = atomic_load_explicit(&t->buckets[i], memory_order_relaxed);
        s.count += s.buckets[i];
    }
    *ret_spread = s;
}

void
hs_spread_add(struct hs_spread *s, int64_t ns)
{
    s->count++;
    s->sum_ns += ns > 0 ? (uint64_t)ns : 0;
    s->buckets[hs_edge_index(ns)]++;
}

void
hs_spread_merge(struct hs_spread *into, const struct hs_spread *from)
{
    into->count += from->count;
    into->sum_ns += from->sum_ns;
    for (size_t i = 0; i <= HS_EDGES; i++)
        into->buckets[i] += from->buckets[i];
}

/* ---- The process's own --------------------------------------------------------------------- */

const char *
hs_span_name(enum hs_span span)
{
    static const char *const names[] = {
#define SPAN_NAME(name, text) text,
        HS_SPANS_ALL(SPAN_NAME)
#undef SPAN_NAME
    };

    HS_ASSERT(span < HS_SPANS);
    return names[span];
}

void
hs_span_add(enum hs_span span, int64_t ns)
{
    HS_ASSERT(span < HS_SPANS);
    hs_times_add(&spans[span], ns);
}

void
hs_span_read(enum hs_span span, struct hs_spread *ret_spread)
{
    HS_ASSERT(span < HS_SPANS);
    hs_times_read(&spans[span], ret_spread);
}

void
hs_count_worker_wait(int64_t ns)
{
    hs_span_add(HS_SPAN_WORKER_WAIT, ns);
}
