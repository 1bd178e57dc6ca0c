/* timers.h: many times, of which the earliest is asked for: a binary heap of intrusive nodes.
 *
 * No lock, no clock, no descriptor: the one who owns one guards it and waits for its first time.
 */
#ifndef HS_CANCEL_TIMERS_H
#define HS_CANCEL_TIMERS_H

#include "hardsock.h"

#include <stddef.h>

struct hs_timer {
    int64_t at_ns; /* HS_NEVER: not in the heap */
    size_t index;  /* in the heap, or HS_NO_TIMER */
};

#define HS_NO_TIMER SIZE_MAX
#define HS_TIMER_INIT                                                                              \
    {                                                                                              \
        HS_NEVER, HS_NO_TIMER                                                                      \
    }

struct hs_timers {
    struct hs_timer **heap; /* own; by at_ns */
    size_t n, capacity;
};

/* All zero is empty. The nodes are left alone. */
void hs_timers_fini(struct hs_timers *t);
/* Makes sure that the next hs_timers_set needs no memory. False: there is none. */
HS_NODISCARD bool hs_timers_reserve(struct hs_timers *t);
/* Of a node that is not in: HS_NEVER leaves it out. */
void hs_timers_set(struct hs_timers *t, struct hs_timer *timer, int64_t at_ns);
void hs_timers_remove(struct hs_timers *t, struct hs_timer *timer); /* harmless when not in */
/* HS_NEVER: there is none. */
int64_t hs_timers_earliest(const struct hs_timers *t);
/* Takes the earliest out if it is not after now; NULL: none is. */
struct hs_timer *hs_timers_expired(struct hs_timers *t, int64_t now_ns);

#endif
