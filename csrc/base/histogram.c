/* histogram.c: counters between fixed edges.
 *
 * A reader may see a value in its bucket that is not in the sum yet, or the other way round: the
 * two are additions of their own. `count` is the sum of the buckets, so that it always agrees.
 */
#include "histogram.h"

#include "check.h"
#include "err.h"
#include "sys.h"
#include "time.h"

#include <stdlib.h>
#include <string.h>

#define HISTOGRAM_MAGIC 0x4157e067U
#define FREED 0x7d

#define US INT64_C(1000)
#define MS HS_NS_PER_MS
#define S HS_NS_PER_S

static const int64_t delays[] = {
    10 * US, 25 * US, 50 * US,  100 * US, 250 * US, 500 * US, 1 * MS,    2500 * US, 5 * MS, 10 * MS,
    25 * MS, 50 * MS, 100 * MS, 250 * MS, 500 * MS, 1 * S,    2500 * MS, 5 * S,     10 * S,
};
static const int64_t ages[] = {
    10 * MS, 100 * MS, 1 * S, 10 * S, 60 * S, 600 * S, 3600 * S, 21600 * S, 86400 * S, 604800 * S,
};

static const struct table {
    const int64_t *at;
    size_t n;
} tables[] = {
    [HS_EDGES_DELAY] = {delays, sizeof(delays) / sizeof(delays[0])},
    [HS_EDGES_AGE] = {ages, sizeof(ages) / sizeof(ages[0])},
};

_Static_assert(sizeof(delays) / sizeof(delays[0]) < HS_FIXED_BUCKETS_MAX, "room for the rest");
_Static_assert(sizeof(ages) / sizeof(ages[0]) < HS_FIXED_BUCKETS_MAX, "room for the rest");

void
hs_fixed_histogram_init(struct hs_fixed_histogram *h, enum hs_edges edges)
{
    memset(h, 0, sizeof(*h));
    h->edges = edges;
    h->magic = HISTOGRAM_MAGIC;
}

hs_err
hs_fixed_histogram_new(enum hs_edges edges, struct hs_error *err, struct hs_fixed_histogram **ret_h)
{
    struct hs_fixed_histogram *h = hs_sys_malloc(sizeof(*h));

    if (h == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "histogram", "no memory for a histogram");
    hs_fixed_histogram_init(h, edges);
    *ret_h = h;
    return HS_OK;
}

void
hs_fixed_histogram_free(struct hs_fixed_histogram *h)
{
    if (h == NULL)
        return;
    HS_CHECK(h, HISTOGRAM_MAGIC);
    memset(h, FREED, sizeof(*h));
    free(h);
}

/* Most of what is counted here is short: from the front. */
static size_t
histogram_bucket_of(const struct table *t, int64_t ns)
{
    size_t i = 0;

    while (i < t->n && ns > t->at[i])
        i++;
    return i;
}

void
hs_fixed_histogram_add(struct hs_fixed_histogram *h, int64_t ns)
{
    HS_CHECK(h, HISTOGRAM_MAGIC);
    if (ns < 0)
        ns = 0;
    atomic_fetch_add_explicit(&h->sum_ns, (uint64_t)ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->buckets[histogram_bucket_of(&tables[h->edges], ns)], 1,
                              memory_order_relaxed);
}

void
hs_fixed_histogram_read(const struct hs_fixed_histogram *h, struct hs_fixed_counts *ret_counts)
{
    const struct table *t;

    HS_CHECK(h, HISTOGRAM_MAGIC);
    t = &tables[h->edges];
    *ret_counts = (struct hs_fixed_counts){.n_edges = t->n};
    memcpy(ret_counts->edges_ns, t->at, t->n * sizeof(t->at[0]));
    ret_counts->sum_ns = atomic_load_explicit(&h->sum_ns, memory_order_relaxed);
    for (size_t i = 0; i <= t->n; i++) {
        ret_counts->buckets[i] = atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
        ret_counts->count += ret_counts->buckets[i];
    }
}
