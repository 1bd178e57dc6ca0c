/* limits.c: how many connections may be in the making at a time, and begin in a second.
 *
 * One queue for threads and event loops, in the order of arrival. A hand-over is an agreement of
 * two, under the lock: the giver unlinks the head and makes it HELD; the one who waits finds that,
 * or itself in the queue. Where only the rate holds the head back, the head has the timer.
 *
 * Invariants, under lock (rank BREAKER, with which it is never held together):
 * - A place is in the queue exactly while it is QUEUED; in_flight is how many are HELD.
 * - Nobody is HELD before somebody who came earlier and is still QUEUED.
 * - While a place is free the head has either been made HELD, or been told (`told`) that only the
 *   rate holds it: so a place that is given back is never lost, no matter who gives up meanwhile.
 * - next_at_ns is when the rate allows the next; a past time saves nothing up.
 * A place is its owner's alone: it is woken under the lock, which the owner takes before it goes.
 * In a forked child nobody waits and nothing is in flight: places of before are only freed there.
 */
#include "limits.h"

#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"
#include "../cancel/wait.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define LIMITS_MAGIC 0x70c3d1a1U
#define PLACE_MAGIC 0x70c3d1a2U
#define FREED 0x7b
#define REPAIRING 0x80000000U

struct hs_dial_limits {
    unsigned magic;
    atomic_int refs;
    _Atomic uint32_t fork_generation; /* whose lock and queue these are */
    struct hs_lock lock;
    long most;                   /* 0: any number; immutable, as the next */
    int64_t interval_ns;         /* 0: at any rate */
    struct hs_list queue;        /* guarded by lock, as all below: place.link */
    struct hs_dial_stats counts; /* waiting: the length of the queue */
    int64_t next_at_ns;
};

enum { PLACE_QUEUED, PLACE_HELD, PLACE_GONE };

struct hs_dial_place {
    unsigned magic;
    struct hs_dial_limits *limits; /* owns: a reference */
    uint32_t generation;
    struct hs_list link; /* guarded by the limits' lock, as `told` */
    atomic_int state;    /* written under it */
    bool told;
    struct hs_wakelist wake; /* its owner waits here */
    int64_t since_ns;
};

static atomic_long live;

long
hs_dial_limits_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

/* ---- Life ----------------------------------------------------------------------------------- */

hs_err
hs_dial_limits_new(long in_flight, int64_t interval_ns, struct hs_error *err,
                   struct hs_dial_limits **ret_limits)
{
    struct hs_dial_limits *l;

    if (in_flight < 0 || interval_ns < 0 || (in_flight == 0 && interval_ns == 0))
        return hs_err_setx(err, HS_E_INVALID, "dial_limits",
                           "in_flight and interval must not be negative, and not both 0");
    if ((l = hs_sys_calloc(1, sizeof(*l))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "dial_limits", "no memory for limits");
    l->magic = LIMITS_MAGIC;
    l->refs = 1;
    l->fork_generation = hs_fork_generation();
    l->most = in_flight;
    l->interval_ns = interval_ns;
    hs_lock_init(&l->lock, HS_RANK_BREAKER);
    hs_list_init(&l->queue);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    *ret_limits = l;
    return HS_OK;
}

struct hs_dial_limits *
hs_dial_limits_ref(struct hs_dial_limits *l)
{
    HS_CHECK(l, LIMITS_MAGIC);
    atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
    return l;
}

void
hs_dial_limits_unref(struct hs_dial_limits *l)
{
    if (l == NULL)
        return;
    HS_CHECK(l, LIMITS_MAGIC);
    if (atomic_fetch_sub(&l->refs, 1) != 1)
        return;
    if (l->fork_generation == hs_fork_generation())
        hs_lock_fini(&l->lock);
    memset(l, FREED, sizeof(*l));
    free(l);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

/* In a child, for the one thread that gets to do it. The parent's waiters are not here, and a
 * thread that is gone may have held the lock. */
static void
begin_anew(struct hs_dial_limits *l)
{
    hs_lock_init(&l->lock, HS_RANK_BREAKER);
    hs_list_init(&l->queue);
    l->counts = (struct hs_dial_stats){0};
    l->next_at_ns = 0;
}

static void
limits_enter(struct hs_dial_limits *l)
{
    uint32_t own = hs_fork_generation(), found;

    HS_CHECK(l, LIMITS_MAGIC);
    while ((found = atomic_load_explicit(&l->fork_generation, memory_order_acquire)) != own) {
        if (found != (own | REPAIRING) &&
            atomic_compare_exchange_strong(&l->fork_generation, &found, own | REPAIRING)) {
            begin_anew(l);
            atomic_store_explicit(&l->fork_generation, own, memory_order_release);
        } else {
            (void)sched_yield(); /* Another thread of this child is at it. */
        }
    }
    hs_lock_take(&l->lock);
}

static void
limits_leave(struct hs_dial_limits *l)
{
    hs_lock_drop(&l->lock);
}

/* ---- The queue, with the lock held ---------------------------------------------------------- */

static bool
limits_is_free(const struct hs_dial_limits *l)
{
    return l->most == 0 || l->counts.in_flight < l->most;
}

static void
hold_locked(struct hs_dial_limits *l, struct hs_dial_place *p, int64_t now)
{
    l->counts.in_flight++;
    l->counts.begun++;
    l->counts.waited_ns += now - p->since_ns;
    l->next_at_ns = now + l->interval_ns;
    atomic_store(&p->state, PLACE_HELD);
}

static void
unqueue_locked(struct hs_dial_limits *l, struct hs_dial_place *p)
{
    hs_list_unlink(&p->link);
    l->counts.waiting--;
}

/* Gives what can be given, and sees to it that somebody has the timer for the rest. */
static void
limits_serve_locked(struct hs_dial_limits *l)
{
    int64_t now = hs_now();

    while (!hs_list_empty(&l->queue) && limits_is_free(l)) {
        struct hs_dial_place *head = HS_CONTAINER(l->queue.next, struct hs_dial_place, link);

        if (now < l->next_at_ns && head->told)
            return;
        if (now < l->next_at_ns) {
            head->told = true;
        } else {
            unqueue_locked(l, head);
            hold_locked(l, head, now);
        }
        hs_wakelist_wake(&head->wake);
    }
}

/* ---- Taking and leaving --------------------------------------------------------------------- */

static hs_err
place_new(struct hs_dial_limits *l, struct hs_error *err, struct hs_dial_place **ret_place)
{
    struct hs_dial_place *p = hs_sys_calloc(1, sizeof(*p));

    if (p == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "connect", "no memory to wait for a place");
    p->magic = PLACE_MAGIC;
    p->limits = hs_dial_limits_ref(l);
    p->generation = hs_fork_generation();
    p->since_ns = hs_now();
    hs_list_init(&p->link);
    hs_wakelist_init(&p->wake);
    *ret_place = p;
    return HS_OK;
}

static void
join(struct hs_dial_limits *l, struct hs_dial_place *p)
{
    limits_enter(l);
    hs_list_append(&l->queue, &p->link);
    l->counts.waiting++;
    limits_serve_locked(l);
    limits_leave(l);
}

/* Whether it is held by now; if not, when to look again although nobody wakes it. */
static bool
look(struct hs_dial_limits *l, struct hs_dial_place *p, int64_t *ret_again_ns)
{
    limits_enter(l);
    if (l->queue.next == &p->link)
        limits_serve_locked(l);
    *ret_again_ns = p->told ? l->next_at_ns : HS_NEVER;
    limits_leave(l);
    return atomic_load(&p->state) == PLACE_HELD;
}

static hs_err
look_held(void *arg, struct hs_change *change)
{
    struct hs_dial_place *p = arg;

    (void)change;
    return atomic_load(&p->state) == PLACE_QUEUED ? HS_WANT : HS_OK;
}

static hs_err
sleep_in_line(struct hs_dial_place *p, struct hs_op *op, int64_t again_ns, struct hs_error *err)
{
    struct hs_change change = {
        .list = &p->wake,
        .look = look_held,
        .arg = p,
        .fd = -1,
        .deadline_ns = op->deadline_ns,
        .until_ns = again_ns,
    };
    hs_err rv = hs_wait_change(op, &change, err);

    if (op->stepping && op->loop_waiter != NULL && rv != HS_WANT)
        hs_loop_waiter_unpark(op->loop_waiter); /* The place may go now, and its list with it. */
    return rv;
}

static hs_err
wait_in_line(struct hs_dial_limits *l, struct hs_dial_place *p, struct hs_op *op,
             struct hs_error *err)
{
    int64_t again;
    hs_err rv = HS_OK;

    while (rv == HS_OK) {
        if (look(l, p, &again))
            return HS_OK;
        rv = sleep_in_line(p, op, again, err);
    }
    return rv;
}

/* Whether a place came with the end of the time: then it was first. Else it leaves the queue. */
static bool
has_come(struct hs_dial_limits *l, struct hs_dial_place *p)
{
    bool has;

    limits_enter(l);
    if (!(has = atomic_load(&p->state) == PLACE_HELD)) {
        unqueue_locked(l, p);
        l->counts.given_up++;
        atomic_store(&p->state, PLACE_GONE);
        limits_serve_locked(l);
    }
    limits_leave(l);
    return has;
}

static hs_err
gave_up_waiting(struct hs_dial_limits *l, hs_err rv, struct hs_error *err)
{
    struct hs_dial_stats s;

    hs_dial_limits_stats(l, &s);
    if (rv == HS_E_DEADLINE && err != NULL) {
        *err = (struct hs_error){0};
        (void)hs_err_setx(err, rv, "connect",
                          "no place to dial came free: %ld are in flight, %ld others wait",
                          s.in_flight, s.waiting);
    }
    if (err != NULL) {
        err->op = "connect";
        err->phase = "limits";
    }
    return rv;
}

hs_err
hs_dial_place_take(struct hs_dial_limits *l, struct hs_op *op, struct hs_error *err,
                   struct hs_dial_place **place)
{
    hs_err rv;

    HS_CHECK(l, LIMITS_MAGIC);
    if (*place != NULL && (*place)->generation != hs_fork_generation())
        return hs_err_setx(err, HS_E_FORKED, "connect", "%s", hs_err_text(HS_E_FORKED));
    if ((rv = hs_op_begin(op, HS_NEVER, err)) == HS_OK && *place == NULL &&
        (rv = place_new(l, err, place)) == HS_OK)
        join(l, *place);
    if (rv == HS_OK)
        rv = wait_in_line(l, *place, op, err);
    if (rv == HS_OK || rv == HS_INTR || rv == HS_WANT)
        return rv;
    if (*place != NULL && has_come(l, *place) && rv == HS_E_DEADLINE) {
        if (err != NULL)
            *err = (struct hs_error){0};
        return HS_OK;
    }
    rv = gave_up_waiting(l, rv, err);
    hs_dial_place_leave(*place);
    *place = NULL;
    return rv;
}

void
hs_dial_place_leave(struct hs_dial_place *p)
{
    struct hs_dial_limits *l;

    if (p == NULL)
        return;
    HS_CHECK(p, PLACE_MAGIC);
    l = p->limits;
    if (p->generation == hs_fork_generation()) {
        limits_enter(l);
        if (atomic_load(&p->state) == PLACE_HELD) {
            l->counts.in_flight--;
        } else if (atomic_load(&p->state) == PLACE_QUEUED) {
            unqueue_locked(l, p);
            l->counts.given_up++;
        }
        limits_serve_locked(l);
        limits_leave(l);
        hs_wakelist_fini(&p->wake);
    }
    memset(p, FREED, sizeof(*p));
    free(p);
    hs_dial_limits_unref(l);
}

void
hs_dial_limits_stats(struct hs_dial_limits *l, struct hs_dial_stats *ret_stats)
{
    limits_enter(l);
    *ret_stats = l->counts;
    limits_leave(l);
}
