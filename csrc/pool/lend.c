/* lend.c: from a free connection to a caller: at once, or after waiting in the queue.
 *
 * Before a connection is lent again the kernel is asked whether the peer is there and has said
 * nothing that nobody asked for: one borrower must never read what was meant for another. The
 * pool worker's epoll set cannot stand for that: between an event and the pool worker's turn
 * somebody may borrow. The question is asked by the new borrower, after the lock was dropped: the
 * connection is LENT to this borrower by then, in a hand-over, too. If the answer is no, the
 * borrower ends that lease, closes the connection, and goes on to the next, or back to its own
 * place in the queue, which its ticket keeps.
 *
 * Order of checks when a wait ends: a cancel wins over a connection that came meanwhile, which goes
 * on to the next; that wins over a deadline.
 */
#include "waiter.h"

#include "../base/recorder.h"
#include "../cancel/loop.h"
#include "../cancel/token.h"
#include "worker.h"

static const char op_name[] = "acquire";

static struct hs_member *
pick(const struct hs_pool *p)
{
    const struct hs_list *link = p->o.oldest_first ? p->idle.next : p->idle.prev;

    return hs_list_empty(&p->idle) ? NULL : HS_CONTAINER(link, struct hs_member, link);
}

static enum hs_pool_reason
probe(const struct hs_lease *lease)
{
    return hs_pool_judge_probe(hs_conn_probe(lease->conn), lease->times_lent == 1);
}

/* What try_acquire lent and counted before the kernel's answer. hs_pool_acquire counts the call. */
static void
take_back(struct hs_pool *p, const struct hs_lease *lease, enum hs_pool_reason why)
{
    struct deferred d = {0};

    hs_lock_take(&p->lock);
    p->stats.acquired--;
    p->stats.wait.count--;
    p->stats.wait.buckets[hs_histogram_bucket(0)]--;
    p->stats.wait.edges[0]--;
    hs_pool_end_lease_locked(p, lease->member, hs_boot_now(), false);
    hs_pool_retire_locked(p, lease->member, why, &d);
    hs_pool_leave(p, &d);
}

hs_err
hs_pool_try_acquire(struct hs_pool *p, const struct hs_holder *holder, struct hs_lease *ret_lease)
{
    struct hs_lease lease;
    struct hs_member *m;
    struct ledger_site *site;
    int64_t boot_now;
    enum hs_pool_reason why;
    bool to_probe = false;
    hs_err rv = HS_WANT;

    HS_CHECK(p, POOL_MAGIC);
    if (atomic_load_explicit(&p->generation, memory_order_relaxed) != hs_fork_generation())
        return HS_WANT;
    boot_now = hs_boot_now();
    hs_lock_take(&p->lock);
    if ((m = pick(p)) != NULL && (site = site_find(&p->ledger, holder)) != NULL &&
        hs_pool_expired_locked(p, m, boot_now) == HS_POOL_NONE &&
        boot_now < hs_pool_idle_until_locked(p, m)) {
        hs_list_unlink(&m->link);
        hs_pool_lend_locked(p, m, holder, site, boot_now, &lease);
        to_probe = hs_pool_needs_probe(p, &lease, m->watched);
        p->stats.probes += to_probe;
        p->stats.acquired++;
        hs_histogram_add(&p->stats.wait, 0);
        hs_pool_check_locked(p);
        rv = HS_OK;
    }
    hs_lock_drop(&p->lock);
    if (rv == HS_OK && to_probe && (why = probe(&lease)) != HS_POOL_NONE) {
        take_back(p, &lease, why);
        return HS_WANT;
    }
    if (rv == HS_OK)
        *ret_lease = lease;
    return rv;
}

/* ---- Acquiring ----------------------------------------------------------------------------- */

static hs_err
lend_refuse(struct hs_error *err, hs_err code, const char *why)
{
    return hs_err_setx(err, code, op_name, "%s", why);
}

/* Everything that is open is lent to this caller, so that nobody else can give it back. */
static bool
waits_for_itself(const struct hs_pool *p, const struct hs_holder *me)
{
    if (p->n[MEMBER_LENT] < p->o.max_size)
        return false;
    for (const struct hs_list *l = p->lent.next; l != &p->lent; l = l->next) {
        const struct hs_member *m = HS_CONTAINER(l, struct hs_member, link);

        if (m->holder.thread != me->thread || m->holder.task != me->task)
            return false;
    }
    return true;
}

/* HS_WANT: it may. */
static hs_err
check_may_wait(const struct hs_pool *p, const struct hs_op *op, const struct hs_request *r,
               struct hs_error *err)
{
    if (r->ticket != 0)
        return HS_WANT; /* It has waited before, and got something that was of no use. */
    if (op->deadline_ns == HS_TRY_ONCE)
        return lend_refuse(err, HS_E_DEADLINE, "no connection is idle");
    if (p->o.refuse_deadlock && waits_for_itself(p, &r->holder))
        return lend_refuse(err, HS_E_LIMIT,
                           "deadlock: the caller holds every connection of this pool itself");
    if (p->n_waiting >= p->o.max_waiting)
        return hs_err_setx(err, HS_E_LIMIT, op_name, "max_waiting: %zu callers wait already",
                           p->n_waiting);
    return HS_WANT;
}

static void
queue_locked(struct hs_pool *p, struct hs_request *r, struct waiter *w)
{
    if (r->ticket == 0)
        r->ticket = ++p->tickets;
    w->ticket = r->ticket;
    w->site = site_of(&p->ledger, &r->holder);
    hs_waiter_queue_locked(p, w);
}

/* HS_OK: an idle one was lent, *ret_probe: to be probed. HS_WANT: none; w, if any, stands in the
 * queue. */
static hs_err
take_or_queue(struct hs_pool *p, const struct hs_op *op, struct hs_request *r, struct waiter *w,
              struct hs_error *err, struct hs_lease *ret_lease, bool *ret_probe)
{
    struct deferred d = {0};
    int64_t boot_now = hs_boot_now();
    struct hs_member *m;
    hs_err rv = HS_WANT;

    hs_lock_take(&p->lock);
    /* 1. What was thrown away holds a place until somebody comes by. */
    hs_pool_take_lost_locked(p, &d);
    /* 2. An idle one; those that have become too old meanwhile go. */
    while (!p->closed && (m = pick(p)) != NULL && rv == HS_WANT) {
        enum hs_pool_reason why = hs_pool_expired_locked(p, m, boot_now);

        if (why == HS_POOL_NONE && boot_now >= hs_pool_idle_until_locked(p, m))
            why = HS_POOL_IDLE_TIMEOUT;
        if (why != HS_POOL_NONE) {
            hs_pool_retire_locked(p, m, why, &d);
            continue;
        }
        hs_list_unlink(&m->link);
        hs_pool_lend_locked(p, m, &r->holder, site_of(&p->ledger, &r->holder), boot_now, ret_lease);
        *ret_probe = hs_pool_needs_probe(p, ret_lease, m->watched);
        p->stats.probes += *ret_probe;
        rv = HS_OK;
    }
    /* 3. None: whether this caller may wait for one at all. */
    if (p->closed)
        rv = lend_refuse(err, HS_E_CLOSED, "the pool is closed");
    else if (rv == HS_WANT)
        rv = check_may_wait(p, op, r, err);
    /* 4. The end of the queue, and perhaps a dial for it. */
    if (rv == HS_WANT && w != NULL) {
        queue_locked(p, r, w);
        d.worker = hs_dials_may_begin_locked(p);
    }
    hs_pool_leave(p, &d);
    return rv;
}

static int64_t
lend_deadline_of(const struct hs_op *op)
{
    return op->token == NULL ? op->deadline_ns
                             : hs_min_ns(op->deadline_ns, hs_token_deadline(op->token));
}

/* HS_OK with a lease, to be asked about if *ret_probe; or HS_WANT with a place in the queue:
 * r->waiter. */
static hs_err
lend_begin(struct hs_pool *p, const struct hs_op *op, struct hs_request *r, struct hs_error *err,
           struct hs_lease *ret_lease, bool *ret_probe)
{
    struct waiter *w;
    hs_err rv = take_or_queue(p, op, r, NULL, err, ret_lease, ret_probe);

    if (rv != HS_WANT)
        return rv;
    /* A waiter is allocated without the lock, so that it may be of no use by now. */
    if ((w = hs_waiter_new(&r->holder, lend_deadline_of(op))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, op_name, "no memory to wait");
    if ((rv = take_or_queue(p, op, r, w, err, ret_lease, ret_probe)) == HS_WANT)
        r->waiter = w;
    else
        hs_waiter_unref(w);
    return rv;
}

/* The end of waiting. code HS_OK: only if there is something to be had; HS_E_DEADLINE and others:
 * the waiter leaves. HS_WANT: it is still in the queue. */
static hs_err
lend_settle(struct hs_pool *p, struct hs_request *r, hs_err code, struct hs_error *err,
            struct hs_lease *ret_lease, bool *ret_probe)
{
    struct waiter *w = r->waiter;
    struct deferred d = {0};
    struct hs_error dial_error;
    struct hs_dial_failure *failure = NULL;
    bool by_dial = false;
    hs_err rv = code == HS_OK ? HS_WANT : code;

    /* 1. Under the lock: what became of the place. Nobody changes that any more afterwards. */
    hs_lock_take(&p->lock);
    switch ((enum waiter_state)atomic_load(&w->state)) {
    case WAITER_QUEUED: /* Nothing yet; who is out of time leaves. */
        if (code != HS_OK) {
            hs_list_unlink(&w->link);
            p->n_waiting--;
        }
        break;
    case WAITER_SERVED: /* In the last moment, too; a cancelled caller's goes to the next. */
        if (code == HS_OK || code == HS_E_DEADLINE) {
            *ret_lease = w->lease;
            *ret_probe = w->to_probe;
            p->stats.probes += w->to_probe;
            rv = HS_OK;
        } else {
            struct hs_member *m = w->lease.member;

            hs_pool_end_lease_locked(p, m, hs_boot_now(), false);
            hs_pool_offer_locked(p, m, m->since_boot, hs_boot_now(), &d);
        }
        break;
    case WAITER_EXPIRED: /* The one who served the queue saw it first. */
        if (code == HS_OK)
            rv = HS_E_DEADLINE;
        break;
    case WAITER_FAILED: /* By a dial, or the pool's end. A cancel is the better reason. */
        if (code == HS_E_CANCELLED)
            break;
        rv = w->why;
        if ((by_dial = rv != HS_E_CLOSED)) /* Another one may have failed since, otherwise. */
            rv = p->stats.dial_error.code;
        HS_ASSERT(rv < 0);
        if (by_dial && p->failure != NULL)
            failure = hs_dial_failure_ref(p->failure);
        break;
    }
    dial_error = p->stats.dial_error;
    hs_pool_leave(p, &d);
    if (rv == HS_WANT)
        return rv;
    /* 2. The wait is over. A failed dial tells its own reason, anything else is said here. */
    if (by_dial && err != NULL)
        *err = dial_error;
    else if (rv != HS_OK)
        (void)lend_refuse(err, rv, rv == HS_E_CLOSED ? "the pool was closed" : hs_err_text(rv));
    else if (err != NULL)
        *err = (struct hs_error){0};
    hs_dial_failure_unref(r->failure);
    r->failure = failure;
    r->waiter = NULL;
    hs_waiter_unref(w);
    return rv;
}

static hs_err
look_served(void *arg, struct hs_change *change)
{
    const struct waiter *w = arg;

    (void)change;
    return atomic_load(&w->state) == WAITER_QUEUED ? HS_WANT : HS_OK;
}

static hs_err
sleep_in_queue(struct waiter *w, struct hs_op *op, struct hs_error *err)
{
    hs_err rv = hs_await_change(op, &w->wake, look_served, w, err);

    if (op->stepping && op->loop_waiter != NULL && rv != HS_WANT)
        hs_loop_waiter_unpark(op->loop_waiter); /* The waiter may go now, and its list with it. */
    return rv;
}

/* HS_OK with a lease that was not asked about yet; HS_WANT, HS_INTR: to be stepped again. */
static hs_err
wait_in_queue(struct hs_pool *p, struct hs_op *op, struct hs_request *r, struct hs_error *err,
              struct hs_lease *ret_lease, bool *ret_probe)
{
    for (;;) {
        hs_err rv = lend_settle(p, r, HS_OK, err, ret_lease, ret_probe);

        if (rv != HS_WANT)
            return rv;
        rv = sleep_in_queue(r->waiter, op, err);
        if (rv == HS_WANT || rv == HS_INTR)
            return rv;
        if (rv != HS_OK)
            return lend_settle(p, r, rv, err, ret_lease, ret_probe);
    }
}

/* Ends a lease that is of no use. A caller that had waited for it stands in the queue again before
 * the lock is dropped: else the connection that replaces it could pass this caller by. HS_OK: the
 * caller goes on; else why it does not. code: as in borrow. */
static hs_err
go_on_without(struct hs_pool *p, const struct hs_lease *lease, enum hs_pool_reason why,
              const struct hs_op *op, struct hs_request *r, hs_err code, struct hs_error *err)
{
    struct waiter *w = NULL;
    struct deferred d = {0};

    if (code != HS_OK)
        (void)lend_refuse(err, code, hs_err_text(code));
    else if ((code = hs_op_check(op, op->deadline_ns, err)) == HS_OK && r->ticket != 0)
        w = hs_waiter_new(&r->holder, lend_deadline_of(op)); /* NULL: lend_begin tries again. */
    hs_lock_take(&p->lock);
    hs_pool_end_lease_locked(p, lease->member, hs_boot_now(), false);
    hs_pool_retire_locked(p, lease->member, why, &d);
    if (w != NULL && !p->closed && hs_list_empty(&p->idle)) {
        queue_locked(p, r, w);
        r->waiter = w;
        w = NULL;
    }
    hs_pool_leave(p, &d);
    hs_waiter_unref(w);
    return code;
}

/* One way to a lease, whatever gave it: what was idle, or a hand-over in the queue. code: not HS_OK
 * if the wait has ended already. */
static hs_err
borrow(struct hs_pool *p, struct hs_op *op, struct hs_request *r, hs_err code, struct hs_error *err,
       struct hs_lease *ret_lease)
{
    enum hs_pool_reason why;
    struct hs_lease lease;
    bool to_probe = false;
    hs_err rv;

    for (;;) {
        /* 1. One of three: the end of a wait, a wait that goes on, or a try that may queue. */
        if (code != HS_OK)
            rv = lend_settle(p, r, code, err, &lease, &to_probe);
        else if (r->waiter != NULL)
            rv = wait_in_queue(p, op, r, err, &lease, &to_probe);
        else if ((rv = lend_begin(p, op, r, err, &lease, &to_probe)) == HS_WANT)
            continue;
        if (rv != HS_OK)
            return rv;
        /* 2. A lease. The kernel says whether its connection is well, outside of the lock. */
        if (!to_probe || (why = probe(&lease)) == HS_POOL_NONE)
            break;
        /* 3. It is not: it is closed, and the caller keeps its place in the order of arrival. */
        if ((rv = go_on_without(p, &lease, why, op, r, code, err)) != HS_OK)
            return rv;
    }
    *ret_lease = lease;
    return HS_OK;
}

static void
note_timeout(const struct hs_pool *p, int64_t span)
{
    struct hs_event e = {.code = HS_E_DEADLINE, .site = p->where, .span_ns = span};

    hs_event_text(&e, p->name);
    hs_event_note(HS_EVENT_POOL_TIMEOUT, &e);
}

static void
lend_account(struct hs_pool *p, const struct hs_request *r, hs_err rv, bool waited)
{
    struct hs_pool_stats *s = &p->stats;
    int64_t span = hs_now() - r->since_ns;

    if (rv == HS_E_DEADLINE)
        note_timeout(p, span);
    hs_lock_take(&p->lock);
    hs_histogram_add(&s->wait, span);
    if (rv == HS_OK) {
        s->acquired++;
        s->acquired_waited += waited;
    } else if (rv == HS_E_DEADLINE) {
        s->timeouts++;
    } else if (rv == HS_E_CANCELLED) {
        s->cancelled++;
    } else if (rv == HS_E_LIMIT) {
        s->refused++;
    } else {
        s->failed++;
    }
    hs_lock_drop(&p->lock);
}

hs_err
hs_pool_acquire(struct hs_pool *p, struct hs_op *op, struct hs_request *r, struct hs_error *err,
                struct hs_lease *ret_lease)
{
    struct waiter *w = r->waiter;
    bool waited = w != NULL;
    hs_err rv;

    HS_CHECK(p, POOL_MAGIC);
    if (waited && w->generation != hs_fork_generation()) {
        r->waiter = NULL; /* Its queue is the parent's. */
        return lend_refuse(err, HS_E_FORKED, hs_err_text(HS_E_FORKED));
    }
    if (!waited) {
        r->since_ns = hs_now();
        hs_dial_failure_unref(r->failure);
        r->failure = NULL;
        r->ticket = 0;
        if ((rv = hs_pool_enter(p, err)) != HS_OK)
            return rv;
    }
    if ((rv = hs_op_begin(op, HS_NEVER, err)) != HS_OK)
        rv = waited ? borrow(p, op, r, rv, err, ret_lease) : rv;
    else
        rv = borrow(p, op, r, HS_OK, err, ret_lease);
    if (rv == HS_WANT || rv == HS_INTR)
        return rv;
    lend_account(p, r, rv, r->ticket != 0);
    if (rv != HS_OK && err != NULL && err->op == NULL)
        err->op = op_name;
    return rv;
}

void
hs_pool_abandon(struct hs_pool *p, struct hs_request *r)
{
    struct waiter *w = r->waiter;
    struct hs_lease none;
    bool ignored;

    HS_CHECK(p, POOL_MAGIC);
    if (w == NULL)
        return;
    r->waiter = NULL;
    if (w->generation != hs_fork_generation())
        return;
    r->waiter = w;
    lend_account(p, r, lend_settle(p, r, HS_E_CANCELLED, NULL, &none, &ignored), true);
}
