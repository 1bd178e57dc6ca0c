/* spans.c: the process's own histograms, one for each HS_SPAN_, and plain counts.
 *
 * They are there from the beginning: constructors of other files may count already.
 */
#include "spans.h"

#include "check.h"

#include <string.h>

static struct hs_fixed_histogram spans[HS_SPANS] = {
#define SPAN_HISTOGRAM(name, text) [HS_SPAN_##name] = HS_FIXED_HISTOGRAM_STATIC(HS_EDGES_SPAN),
    HS_SPANS_ALL(SPAN_HISTOGRAM)
#undef SPAN_HISTOGRAM
};

void
hs_spread_add(struct hs_spread *s, int64_t ns)
{
    s->count++;
    s->sum_ns += ns > 0 ? (uint64_t)ns : 0;
    s->buckets[hs_edge_index(ns)]++;
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
    hs_fixed_histogram_add(&spans[span], ns);
}

void
hs_span_read(enum hs_span span, struct hs_spread *ret_spread)
{
    struct hs_fixed_counts counts;

    HS_ASSERT(span < HS_SPANS);
    hs_fixed_histogram_read(&spans[span], &counts);
    *ret_spread = (struct hs_spread){.count = counts.count, .sum_ns = counts.sum_ns};
    memcpy(ret_spread->buckets, counts.buckets, sizeof(ret_spread->buckets));
}

void
hs_count_worker_wait(int64_t ns)
{
    hs_span_add(HS_SPAN_WORKER_WAIT, ns);
}
