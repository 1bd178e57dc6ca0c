/* slots.c: see slots.h.
 *
 * Invariants, all under lock (rank SLOTS):
 * - free + slots taken == n, where free is negative while threads that would not wait have one too
 *   many.
 * - Nobody waits while free > 0: the one who gives hands over to the first waiter, or adds to free.
 * - A waiter stands on its thread's stack, in the list or granted. It is woken under the lock,
 *   which it takes before it goes, so that nobody touches it later.
 * In a forked child nothing is counted: the threads that would give are not there.
 */
#include "slots.h"

#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS_MAGIC 0x70c37004U
#define FREED 0x79

struct hs_slots {
    unsigned magic;
    unsigned fork_generation;
    atomic_int refs;
    struct hs_lock lock;
    long free;              /* guarded by lock */
    struct hs_list waiting; /* guarded by lock: waiter.link */
};

struct waiter {
    struct hs_list link;
    struct hs_wakelist wake;
    bool granted; /* guarded by the slots' lock */
};

static atomic_long live;

long
hs_slots_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

hs_err
hs_slots_new(long n, struct hs_error *err, struct hs_slots **ret_slots)
{
    struct hs_slots *t;

    if (n < 1)
        return hs_err_setx(err, HS_E_INVALID, "slots", "n must be at least 1, got %ld", n);
    if ((t = hs_sys_calloc(1, sizeof(*t))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "slots", "no memory for slots");
    t->magic = SLOTS_MAGIC;
    t->fork_generation = hs_fork_generation();
    t->refs = 1;
    t->free = n;
    hs_lock_init(&t->lock, HS_RANK_SLOTS);
    hs_list_init(&t->waiting);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    *ret_slots = t;
    return HS_OK;
}

struct hs_slots *
hs_slots_ref(struct hs_slots *t)
{
    HS_CHECK(t, SLOTS_MAGIC);
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

static bool
slots_is_ours(const struct hs_slots *t)
{
    return t->fork_generation == hs_fork_generation();
}

void
hs_slots_unref(struct hs_slots *t)
{
    if (t == NULL)
        return;
    HS_CHECK(t, SLOTS_MAGIC);
    if (atomic_fetch_sub(&t->refs, 1) != 1)
        return;
    if (slots_is_ours(t)) {
        HS_ASSERT(hs_list_empty(&t->waiting));
        hs_lock_fini(&t->lock);
    }
    memset(t, FREED, sizeof(*t));
    free(t);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

void
hs_slots_give(struct hs_slots *t)
{
    HS_CHECK(t, SLOTS_MAGIC);
    if (!slots_is_ours(t))
        return;
    hs_lock_take(&t->lock);
    if (t->free < 0 || hs_list_empty(&t->waiting)) {
        t->free++;
    } else {
        struct waiter *w = HS_CONTAINER(t->waiting.next, struct waiter, link);

        hs_list_unlink(&w->link);
        w->granted = true;
        hs_wakelist_wake(&w->wake);
    }
    hs_lock_drop(&t->lock);
}

struct grant {
    struct hs_slots *slots;
    const struct waiter *waiter;
};

static hs_err
look_granted(void *arg, struct hs_change *change)
{
    const struct grant *g = arg;
    bool granted;

    (void)change;
    hs_lock_take(&g->slots->lock);
    granted = g->waiter->granted;
    hs_lock_drop(&g->slots->lock);
    return granted ? HS_OK : HS_WANT;
}

/* Until it is granted, or has to go on without. */
static void
wait_for_grant(struct hs_slots *t, struct waiter *w, struct hs_token *token, int64_t deadline_ns)
{
    struct hs_op op = HS_OP_INIT(deadline_ns, token);
    struct grant g = {t, w};

    while (hs_await_change(&op, &w->wake, look_granted, &g, NULL) == HS_INTR)
        continue; /* Signals are for the call that waited before. */
}

void
hs_slots_take(struct hs_slots *t, struct hs_token *token, int64_t deadline_ns)
{
    struct waiter w = {.granted = false};

    HS_CHECK(t, SLOTS_MAGIC);
    if (!slots_is_ours(t))
        return;
    hs_lock_take(&t->lock);
    if (t->free > 0) {
        t->free--;
        hs_lock_drop(&t->lock);
        return;
    }
    hs_wakelist_init(&w.wake);
    hs_list_append(&t->waiting, &w.link);
    hs_lock_drop(&t->lock);
    wait_for_grant(t, &w, token, deadline_ns);
    hs_lock_take(&t->lock);
    if (!w.granted) {
        hs_list_unlink(&w.link);
        t->free--;
    }
    hs_lock_drop(&t->lock);
    hs_wakelist_fini(&w.wake);
}
