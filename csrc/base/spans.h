/* spans.h: the process's own histograms, and plain counts by the same edges for who has a lock.
 *
 * All that is exported has the edges of HS_EDGES_SPAN (hs_edge_ns), so that it can be added up over
 * pools, processes and time.
 */
#ifndef HS_BASE_SPANS_H
#define HS_BASE_SPANS_H

#include "histogram.h"

/* From any thread; a negative duration counts as none. */
void hs_span_add(enum hs_span span, int64_t ns);

/* For who has a lock around it. */
void hs_spread_add(struct hs_spread *s, int64_t ns);

#endif
