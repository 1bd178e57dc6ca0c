/* tally.h: a count that all threads change and that is seldom read.
 *
 * In parts, each on a cache line of its own: on one line every change would wait for the line to
 * come from the CPU that changed it last. A part may be negative, when what one thread has counted
 * up another counts down; only the sum means something. One that is read while others count has
 * each of their changes or has it not.
 */
#ifndef HS_BASE_TALLY_H
#define HS_BASE_TALLY_H

#include "thread.h"

#include <stdatomic.h>

#define HS_CACHE_LINE 64
#define HS_TALLY_PARTS 16

/* Static ones are zero, and ready. */
struct hs_tally {
    struct {
        _Alignas(HS_CACHE_LINE) atomic_long n;
    } parts[HS_TALLY_PARTS];
};

static inline void
hs_tally_add(struct hs_tally *t, long n)
{
    atomic_fetch_add_explicit(&t->parts[hs_thread_number() % HS_TALLY_PARTS].n, n,
                              memory_order_relaxed);
}

static inline long
hs_tally_sum(const struct hs_tally *t)
{
    long sum = 0;

    for (size_t i = 0; i < HS_TALLY_PARTS; i++)
        sum += atomic_load_explicit(&t->parts[i].n, memory_order_relaxed);
    return sum;
}

#endif
