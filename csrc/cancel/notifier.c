/* notifier.c: one thread that tells about what nobody waits for.
 *
 * An alarm is a stepped op of which nobody awaits the end: a token's deadline that has callbacks, a
 * pool's leases that last too long. All alarms of a notifier wait in one struct hs_loop. The thread
 * sleeps in hs_wait on its descriptor, steps what is due, and calls serve() when there is something
 * to be told; that may run code of the program, for as long as it likes.
 *
 * The thread starts when hs_notifier_start is called and there is an alarm, and ends with the last
 * alarm. Without it there is neither loop nor descriptor: alarms only stand in a list.
 *
 * Invariants:
 * - Everything in struct hs_notifier and its alarms is guarded by `lock`, also the loop and its
 *   waiters, which are otherwise for one thread: so any thread arms and ends an alarm by itself,
 *   and the sleeping thread is not woken for it. The loop's descriptor tells it when a time comes.
 * - The lock is held while ops are stepped, which do not block, and never while serve runs.
 * - An alarm that is not over is in `all`. With a thread it is also in exactly one of: the loop
 *   (parked), again, due; or it is current. Its owner ends it once. If it is current then, the
 *   thread frees it; else hs_alarm_end does.
 * - Nobody else knows anything on the thread's stack while it is in serve.
 * - stop: from then on nothing is told, and new alarms are refused.
 *
 * Fork: the lock is taken, so that a child finds all of this whole. There the thread does not
 * exist; alarms that belong to the parent's tokens are never told in the child, others wait for
 * the next hs_notifier_start.
 */
#include "notifier.h"

#include "loop.h"
#include "wait.h"

#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../base/thread.h"
#include "../base/time.h"

#include <stdlib.h>
#include <string.h>

#define NOTIFIER_MAGIC 0x70c30f1eU
#define ALARM_MAGIC 0x70c3a1a2U
#define NOTIFIER_FREED 0x77
#define ALARM_FREED 0x78
#define STACK_BYTES ((size_t)8 * 1024 * 1024) /* It runs code of the program. */
#define PAUSE_NS (50 * HS_NS_PER_MS)

enum phase {
    ABSENT,  /* there is no thread */
    WORKING, /* it steps, or sleeps */
    SERVING, /* it is in serve, before the first hs_notifier_next */
    TELLING, /* it is in serve, after that */
};

struct hs_notifier {
    unsigned magic;
    atomic_int refs;
    atomic_bool stopped; /* set under lock */
    struct hs_list link; /* guarded by list_lock: in notifiers */
    struct hs_notifier_hooks hooks;
    struct hs_lock lock;
    /* guarded by lock: */
    enum phase phase;
    pthread_t thread;
    int64_t pause_until_ns;   /* something failed that may pass: nothing is tried before */
    struct hs_loop *loop;     /* owns; NULL: no thread */
    struct hs_list all;       /* hs_alarm.all: those that are not over */
    struct hs_list again;     /* hs_alarm.link: to be stepped */
    struct hs_list due;       /* hs_alarm.link: to be told */
    struct hs_alarm *current; /* is being told */
    /* locks of their own: */
    struct hs_wakelist wakers;  /* the thread */
    struct hs_wakelist waiters; /* those in hs_notifier_stop */
};

struct hs_alarm {
    unsigned magic;
    struct hs_notifier *notifier; /* owns: a reference */
    struct hs_alarm_hooks hooks;
    void *arg;
    struct hs_list all, link;
    struct hs_loop_waiter *loop_waiter; /* owns; NULL: there is no thread, or it is over */
    struct hs_op op;
    bool ended; /* by its owner, while it was current */
};

static struct hs_lock list_lock = HS_LOCK_STATIC(HS_RANK_NOTIFIERS);
static struct hs_list notifiers = {&notifiers, &notifiers}; /* guarded by list_lock */
static atomic_long live;

/* ---- Life ---------------------------------------------------------------------------------- */

hs_err
hs_notifier_new(const struct hs_notifier_hooks *hooks, struct hs_error *err,
                struct hs_notifier **ret_notifier)
{
    struct hs_notifier *n = hs_sys_calloc(1, sizeof(*n));

    if (n == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "notifier", "no memory for a notifier");
    n->magic = NOTIFIER_MAGIC;
    n->refs = 1;
    n->hooks = *hooks;
    hs_lock_init(&n->lock, HS_RANK_NOTIFIER);
    hs_list_init(&n->all);
    hs_list_init(&n->again);
    hs_list_init(&n->due);
    hs_wakelist_init(&n->wakers);
    hs_wakelist_init(&n->waiters);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    hs_lock_take(&list_lock);
    hs_list_append(&notifiers, &n->link);
    hs_lock_drop(&list_lock);
    *ret_notifier = n;
    return HS_OK;
}

struct hs_notifier *
hs_notifier_ref(struct hs_notifier *n)
{
    HS_CHECK(n, NOTIFIER_MAGIC);
    atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
    return n;
}

void
hs_notifier_unref(struct hs_notifier *n)
{
    if (n == NULL)
        return;
    HS_CHECK(n, NOTIFIER_MAGIC);
    if (atomic_fetch_sub(&n->refs, 1) != 1)
        return;
    hs_lock_take(&list_lock);
    hs_list_unlink(&n->link);
    hs_lock_drop(&list_lock);
    HS_ASSERT(n->loop == NULL && hs_list_empty(&n->all));
    hs_wakelist_fini(&n->wakers);
    hs_wakelist_fini(&n->waiters);
    hs_lock_fini(&n->lock);
    memset(n, NOTIFIER_FREED, sizeof(*n));
    free(n);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

long
hs_notifier_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

/* ---- Alarms -------------------------------------------------------------------------------- */

static void
put_to_rest_locked(struct hs_alarm *a)
{
    hs_list_unlink(&a->link);
    hs_loop_waiter_free(a->loop_waiter);
    a->loop_waiter = NULL;
}

/* It is over: out of the notifier, which the owner's end of it will not touch then. */
static void
notifier_take_out_locked(struct hs_alarm *a)
{
    put_to_rest_locked(a);
    hs_list_unlink(&a->all);
}

static void
alarm_free(struct hs_alarm *a)
{
    struct hs_notifier *n;

    if (a == NULL)
        return;
    n = a->notifier;
    a->hooks.release(a->arg);
    memset(a, ALARM_FREED, sizeof(*a));
    free(a);
    hs_notifier_unref(n);
}

static bool
may_pass(hs_err rv)
{
    return rv < 0 && (HS_ERR_CLASS(rv) == HS_CLASS_NOMEM || HS_ERR_CLASS(rv) == HS_CLASS_SYSTEM);
}

static hs_err
try_step_locked(struct hs_alarm *a)
{
    struct hs_error err = {0};
    hs_err rv;

    if (a->loop_waiter == NULL &&
        (rv = hs_loop_waiter_new(a->notifier->loop, a, &err, &a->loop_waiter)) != HS_OK)
        return rv;
    a->op.loop_waiter = a->loop_waiter;
    if ((rv = a->hooks.step(a->arg, &a->op, &err)) != HS_WANT)
        return rv;
    rv = hs_loop_waiter_park(a->loop_waiter, &a->op, &err);
    return rv == HS_OK ? HS_WANT : rv;
}

/* There is a loop, and it is not parked. */
static void
step_locked(struct hs_alarm *a)
{
    struct hs_notifier *n = a->notifier;
    hs_err rv;

    hs_list_unlink(&a->link);
    rv = try_step_locked(a);
    if (rv == HS_WANT)
        return;
    put_to_rest_locked(a);
    if (rv == HS_OK) {
        hs_list_append(&n->due, &a->link);
    } else if (rv == HS_INTR || may_pass(rv)) {
        hs_list_append(&n->again, &a->link);
        if (rv != HS_INTR)
            n->pause_until_ns = hs_now() + PAUSE_NS;
    } else {
        notifier_take_out_locked(a);
    }
}

hs_err
hs_alarm_new(struct hs_notifier *n, const struct hs_alarm_hooks *hooks, void *arg,
             const struct hs_op *op, struct hs_error *err, struct hs_alarm **ret_alarm)
{
    struct hs_alarm *a = hs_sys_calloc(1, sizeof(*a));
    bool stopped, wakes = false;

    HS_CHECK(n, NOTIFIER_MAGIC);
    if (a == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "notifier", "no memory for an alarm");
    *a = (struct hs_alarm){.magic = ALARM_MAGIC, .hooks = *hooks, .arg = arg, .op = *op};
    a->op.stepping = true;
    hs_list_init(&a->all);
    hs_list_init(&a->link);
    hs_lock_take(&n->lock);
    stopped = n->stopped;
    if (!stopped) {
        a->notifier = hs_notifier_ref(n);
        hs_list_append(&n->all, &a->all);
        if (n->loop != NULL)
            step_locked(a);
        wakes = !hs_list_empty(&a->link);
    }
    hs_lock_drop(&n->lock);
    if (wakes)
        hs_wakelist_wake(&n->wakers);
    if (stopped) {
        free(a);
        return hs_err_setx(err, HS_E_CLOSED, "notifier", "the interpreter ends");
    }
    *ret_alarm = a;
    return HS_OK;
}

void
hs_alarm_end(struct hs_alarm *a)
{
    struct hs_notifier *n;
    bool last;

    if (a == NULL)
        return;
    HS_CHECK(a, ALARM_MAGIC);
    n = a->notifier;
    hs_lock_take(&n->lock);
    if (n->current == a) {
        a->ended = true;
        a = NULL; /* The thread frees it. */
    } else {
        notifier_take_out_locked(a);
    }
    last = n->loop != NULL && hs_list_empty(&n->all);
    hs_lock_drop(&n->lock);
    if (last)
        hs_wakelist_wake(&n->wakers);
    alarm_free(a);
}

/* ---- Telling ------------------------------------------------------------------------------- */

/* Returns what is to be freed, or NULL. */
static struct hs_alarm *
finish_current_locked(struct hs_notifier *n)
{
    struct hs_alarm *a = n->current;

    n->current = NULL;
    if (a == NULL)
        return NULL;
    if (a->hooks.repeats && !a->ended)
        hs_list_append(&n->again, &a->link);
    else
        notifier_take_out_locked(a);
    return a->ended ? a : NULL;
}

void *
hs_notifier_next(struct hs_notifier *n)
{
    struct hs_alarm *a = NULL, *finished;
    bool first;

    hs_lock_take(&n->lock);
    if ((first = n->phase == SERVING))
        n->phase = TELLING;
    finished = finish_current_locked(n);
    if (n->phase == TELLING && !n->stopped && !hs_list_empty(&n->due)) {
        a = n->current = HS_CONTAINER(n->due.next, struct hs_alarm, link);
        hs_list_unlink(&a->link);
        if (a->hooks.hold != NULL)
            a->hooks.hold(a->arg);
    }
    hs_lock_drop(&n->lock);
    alarm_free(finished);
    if (first)
        hs_wakelist_wake(&n->waiters);
    return a == NULL ? NULL : a->arg;
}

/* False, without the lock: the program forked in there, and this is the child, which has come back
 * to us. Its only thread returns: pthread_exit(3) loads a library, for which there may be no
 * descriptor, and then aborts. */
static bool
notifier_serve_locked(struct hs_notifier *n, struct hs_wakenode *node)
{
    unsigned generation = hs_fork_generation();
    struct hs_alarm *finished;

    n->phase = SERVING;
    hs_lock_drop(&n->lock);
    hs_wakelist_leave(&n->wakers, node); /* The thread may be ended in there, as Python does. */
    n->hooks.serve(n, n->hooks.arg);
    if (generation != hs_fork_generation())
        return false;
    hs_wakelist_join(&n->wakers, node);
    hs_lock_take(&n->lock);
    if (n->phase == SERVING)
        n->pause_until_ns = hs_now() + PAUSE_NS; /* It could not. */
    finished = finish_current_locked(n);
    n->phase = WORKING;
    if (finished != NULL) {
        hs_lock_drop(&n->lock);
        alarm_free(finished);
        hs_lock_take(&n->lock);
    }
    return true;
}

/* ---- The thread ---------------------------------------------------------------------------- */

/* The program has closed what the loop waits with: another one. */
static hs_err
renew_loop_locked(struct hs_notifier *n)
{
    struct hs_loop *loop;
    struct hs_error err = {0};
    hs_err rv = hs_loop_new(&err, &loop);

    if (rv != HS_OK)
        return rv;
    for (struct hs_list *l = n->all.next; l != &n->all; l = l->next) {
        struct hs_alarm *a = HS_CONTAINER(l, struct hs_alarm, all);

        if (a->loop_waiter == NULL)
            continue; /* It is to be told, or to be stepped. */
        put_to_rest_locked(a);
        hs_list_append(&n->again, &a->link);
    }
    hs_loop_free(n->loop);
    n->loop = loop;
    return HS_OK;
}

static void
step_all_locked(struct hs_notifier *n)
{
    struct hs_alarm *a;
    struct hs_list now;

    hs_loop_collect(n->loop);
    if (hs_loop_is_unheard(n->loop)) /* All look for themselves, and then we wait without it. */
        n->pause_until_ns = hs_now() + PAUSE_NS;
    if (hs_loop_is_lost(n->loop) && renew_loop_locked(n) != HS_OK) {
        n->pause_until_ns = hs_now() + PAUSE_NS;
        return;
    }
    while ((a = hs_loop_next(n->loop)) != NULL)
        step_locked(a);
    hs_list_init(&now);
    hs_list_move_all(&now, &n->again);
    while (!hs_list_empty(&now))
        step_locked(HS_CONTAINER(now.next, struct hs_alarm, link));
}

static void
notifier_sleep_locked(struct hs_notifier *n, struct hs_wakenode *node, bool pause)
{
    int64_t until = pause ? n->pause_until_ns : HS_NEVER;
    /* The number of a lost set may be somebody's who is always readable. */
    int fd = pause || hs_loop_is_lost(n->loop) ? -1 : hs_loop_fileno(n->loop);

    if (!pause && !hs_list_empty(&n->again))
        return;
    hs_lock_drop(&n->lock);
    hs_wait_round(&n->wakers, node, fd, until);
    hs_lock_take(&n->lock);
}

static bool
is_over_locked(const struct hs_notifier *n)
{
    return n->stopped || hs_list_empty(&n->all);
}

/* Alarms without a waiter; no thread. */
static void
end_thread_locked(struct hs_notifier *n)
{
    for (struct hs_list *l = n->all.next; l != &n->all; l = l->next)
        put_to_rest_locked(HS_CONTAINER(l, struct hs_alarm, all));
    hs_loop_free(n->loop);
    n->loop = NULL;
    n->phase = ABSENT;
}

static void *
notifier_run(void *arg)
{
    struct hs_notifier *n = arg;
    struct hs_wakenode node;

    hs_wakelist_join(&n->wakers, &node);
    hs_lock_take(&n->lock);
    n->thread = pthread_self();
    while (!is_over_locked(n)) {
        bool pause = hs_now() < n->pause_until_ns;

        if (!pause)
            step_all_locked(n);
        if (pause || hs_list_empty(&n->due))
            notifier_sleep_locked(n, &node, pause);
        else if (!notifier_serve_locked(n, &node))
            return NULL;
    }
    end_thread_locked(n);
    hs_lock_drop(&n->lock);
    hs_wakelist_leave(&n->wakers, &node);
    hs_wakelist_wake(&n->waiters);
    hs_notifier_unref(n);
    return NULL;
}

/* All alarms are without a waiter. Those that are not over are stepped by the thread. */
static hs_err
notifier_start_locked(struct hs_notifier *n, struct hs_error *err)
{
    hs_err rv;
    int sys;

    if ((rv = hs_loop_new(err, &n->loop)) != HS_OK)
        return rv;
    if ((sys = hs_thread_start("hs-notifier", STACK_BYTES, notifier_run, n)) != 0) {
        hs_loop_free(n->loop);
        n->loop = NULL;
        return hs_err_set(err, HS_E_SYSTEM, sys, "notifier", "a thread to call back");
    }
    for (struct hs_list *l = n->all.next; l != &n->all; l = l->next)
        hs_list_append(&n->again, &HS_CONTAINER(l, struct hs_alarm, all)->link);
    n->phase = WORKING;
    (void)hs_notifier_ref(n); /* the thread's: it waits for the lock that we hold */
    return HS_OK;
}

hs_err
hs_notifier_start(struct hs_notifier *n, struct hs_error *err)
{
    hs_err rv = HS_OK;

    HS_CHECK(n, NOTIFIER_MAGIC);
    hs_lock_take(&n->lock);
    if (n->loop == NULL && !n->stopped && !hs_list_empty(&n->all))
        rv = notifier_start_locked(n, err);
    hs_lock_drop(&n->lock);
    return rv;
}

struct stop {
    struct hs_notifier *notifier;
    enum hs_stop how;
};

static hs_err
look_quiet(void *arg, struct hs_change *change)
{
    const struct stop *stop = arg;
    struct hs_notifier *n = stop->notifier;
    enum hs_stop how = stop->how;
    bool quiet;

    (void)change;

    hs_lock_take(&n->lock);
    quiet =
        how == HS_STOP_UNSEEN || n->phase == ABSENT ||
        (n->phase == TELLING && (how == HS_STOP_IDLE || pthread_equal(n->thread, pthread_self())));
    hs_lock_drop(&n->lock);
    return quiet ? HS_OK : HS_WANT;
}

void
hs_notifier_stop(struct hs_notifier *n, enum hs_stop how)
{
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);
    struct stop stop = {n, how};

    HS_CHECK(n, NOTIFIER_MAGIC);
    hs_lock_take(&n->lock);
    n->stopped = true;
    hs_lock_drop(&n->lock);
    hs_wakelist_wake(&n->wakers);
    while (hs_await_change(&op, &n->waiters, look_quiet, &stop, NULL) != HS_OK)
        continue; /* HS_INTR */
}

/* A new reference to one that is not stopped and not about to go, or NULL. */
static struct hs_notifier *
find_unstopped(void)
{
    struct hs_notifier *found = NULL;

    hs_lock_take(&list_lock);
    for (struct hs_list *l = notifiers.next; l != &notifiers && found == NULL; l = l->next) {
        struct hs_notifier *n = HS_CONTAINER(l, struct hs_notifier, link);
        int refs = atomic_load(&n->refs);

        while (refs > 0 && !n->stopped && found == NULL)
            if (atomic_compare_exchange_weak(&n->refs, &refs, refs + 1))
                found = n;
    }
    hs_lock_drop(&list_lock);
    return found;
}

void
hs_notifier_stop_each(enum hs_stop how)
{
    struct hs_notifier *n;

    while ((n = find_unstopped()) != NULL) {
        hs_notifier_stop(n, how);
        hs_notifier_unref(n);
    }
}

/* ---- Fork ---------------------------------------------------------------------------------- */

static void
notifier_before_fork(void)
{
    hs_lock_take_for_fork(&list_lock);
    for (struct hs_list *l = notifiers.next; l != &notifiers; l = l->next)
        hs_lock_take_for_fork(&HS_CONTAINER(l, struct hs_notifier, link)->lock);
}

static void
notifier_drop_all(void)
{
    for (struct hs_list *l = notifiers.next; l != &notifiers; l = l->next)
        hs_lock_drop_after_fork(&HS_CONTAINER(l, struct hs_notifier, link)->lock);
    hs_lock_drop_after_fork(&list_lock);
}

static void
forget_parent(struct hs_notifier *n)
{
    bool had_thread = n->loop != NULL;

    hs_wakelist_init(&n->wakers);
    hs_wakelist_init(&n->waiters);
    n->current = NULL;
    for (struct hs_list *l = n->all.next, *next; l != &n->all; l = next) {
        struct hs_alarm *a = HS_CONTAINER(l, struct hs_alarm, all);

        next = l->next;
        if (!a->hooks.survives_fork)
            notifier_take_out_locked(a);
        a->op.waited = false;
    }
    end_thread_locked(n);
    if (had_thread)
        atomic_fetch_sub(&n->refs, 1); /* the thread's */
}

/* Runs after wait.c's handler: whatever was made before is the parent's by now. */
static void
notifier_after_fork_in_child(void)
{
    for (struct hs_list *l = notifiers.next; l != &notifiers; l = l->next)
        forget_parent(HS_CONTAINER(l, struct hs_notifier, link));
    notifier_drop_all();
}

HS_REGISTERS_FORK_LOCK(HS_RANK_NOTIFIERS)
static void
notifier_watch_forks(void)
{
    (void)pthread_atfork(notifier_before_fork, notifier_drop_all, notifier_after_fork_in_child);
}
