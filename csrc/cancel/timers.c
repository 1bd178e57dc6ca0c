/* timers.c: see timers.h.
 *
 * Invariant: heap[i]->index == i for i < n, and no node is earlier than its parent.
 */
#include "timers.h"

#include "../base/sys.h"

#include <stdlib.h>

void
hs_timers_fini(struct hs_timers *t)
{
    free(t->heap);
    *t = (struct hs_timers){0};
}

bool
hs_timers_reserve(struct hs_timers *t)
{
    size_t capacity = t->capacity == 0 ? 64 : 2 * t->capacity;
    struct hs_timer **heap;

    if (t->n < t->capacity)
        return true;
    if ((heap = hs_sys_realloc(t->heap, capacity * sizeof(struct hs_timer *))) == NULL)
        return false;
    t->heap = heap;
    t->capacity = capacity;
    return true;
}

static void
timers_put(struct hs_timers *t, size_t i, struct hs_timer *timer)
{
    t->heap[i] = timer;
    timer->index = i;
}

static void
sift_up(struct hs_timers *t, size_t i, struct hs_timer *timer)
{
    for (; i > 0 && t->heap[(i - 1) / 2]->at_ns > timer->at_ns; i = (i - 1) / 2)
        timers_put(t, i, t->heap[(i - 1) / 2]);
    timers_put(t, i, timer);
}

static void
sift_down(struct hs_timers *t, size_t i, struct hs_timer *timer)
{
    for (;;) {
        size_t child = 2 * i + 1;

        if (child + 1 < t->n && t->heap[child + 1]->at_ns < t->heap[child]->at_ns)
            child++;
        if (child >= t->n || t->heap[child]->at_ns >= timer->at_ns)
            break;
        timers_put(t, i, t->heap[child]);
        i = child;
    }
    timers_put(t, i, timer);
}

void
hs_timers_set(struct hs_timers *t, struct hs_timer *timer, int64_t at_ns)
{
    timer->at_ns = at_ns;
    if (at_ns != HS_NEVER)
        sift_up(t, t->n++, timer);
}

void
hs_timers_remove(struct hs_timers *t, struct hs_timer *timer)
{
    size_t i = timer->index;
    struct hs_timer *last;

    if (i == HS_NO_TIMER)
        return;
    timer->index = HS_NO_TIMER;
    last = t->heap[--t->n];
    if (last == timer)
        return;
    if (i > 0 && t->heap[(i - 1) / 2]->at_ns > last->at_ns)
        sift_up(t, i, last);
    else
        sift_down(t, i, last);
}

int64_t
hs_timers_earliest(const struct hs_timers *t)
{
    return t->n > 0 ? t->heap[0]->at_ns : HS_NEVER;
}

struct hs_timer *
hs_timers_expired(struct hs_timers *t, int64_t now_ns)
{
    struct hs_timer *timer;

    if (t->n == 0 || t->heap[0]->at_ns > now_ns)
        return NULL;
    timer = t->heap[0];
    hs_timers_remove(t, timer);
    return timer;
}
