/* dial.c: when a pool dials, where to, and what becomes of it.
 *
 * A dial is made for the pool, not for a caller: whatever comes free first serves the first in the
 * queue, and a dial that is not needed any more leaves an idle connection. So many dials are under
 * way as there are callers waiting (and idle ones missing), at most max_dials, at most one per
 * dial_interval on average, none to an endpoint that is in its back-off.
 *
 * A dial that fails fails the callers only if nothing else can serve them: no other dial, no
 * connection that may come back, no endpoint that has not failed.
 */
#include "worker.h"
#include "waiter.h"

#include "../base/sys.h"

#include <stdlib.h>

struct dial {
    struct task task;
    struct hs_member *m;
    struct hs_connector *connector; /* owns */
    int64_t began_ns;
};

/* A handshake that takes longer may be waiting for ever: the server is stuck, or its queue is full.
 * It goes on, but counts neither as a dial under way nor as a connection that is coming, so that it
 * does not keep from others what a healthy dial would give them. One that is only slow leaves an
 * idle connection in the end. */
#define STALLED_NS (250 * HS_NS_PER_MS)

/* ---- Wanting ------------------------------------------------------------------------------- */

static bool
more_wanted(const struct hs_pool *p)
{
    size_t coming = p->n[MEMBER_DIALING] - p->n_stalled + p->n[MEMBER_TENDED];
    size_t spare = coming + p->n[MEMBER_IDLE];

    if (p->n_waiting > coming)
        return true;
    return spare < p->n_waiting + p->o.min_idle;
}

static bool
dial_is_full(const struct hs_pool *p, const struct endpoint *e)
{
    return p->o.max_per_endpoint != 0 && e->open >= p->o.max_per_endpoint;
}

/* Of those that may be dialled the one with fewest connections; in turn where they are equal. */
static struct endpoint *
choose(struct hs_pool *p, int64_t now, int64_t *again)
{
    struct endpoint *best = NULL;

    for (size_t i = 0; i < p->n_endpoints; i++) {
        struct endpoint *e = &p->endpoints[(p->next_endpoint + i) % p->n_endpoints];

        if (dial_is_full(p, e))
            continue;
        if (e->next_dial_ns > now) {
            *again = hs_min_ns(*again, e->next_dial_ns);
            continue;
        }
        if (best == NULL || e->open < best->open)
            best = e;
    }
    if (best != NULL)
        p->next_endpoint = (size_t)(best - p->endpoints) + 1;
    return best;
}

static bool
rate_allows(struct hs_pool *p, int64_t now, int64_t *again)
{
    int64_t burst = p->o.dial_interval_ns * (int64_t)(p->o.max_dials - 1);

    if (p->o.dial_interval_ns == 0)
        return true;
    if (p->next_dial_ns > now) {
        *again = hs_min_ns(*again, p->next_dial_ns);
        return false;
    }
    if (p->next_dial_ns < now - burst)
        p->next_dial_ns = now - burst;
    p->next_dial_ns += p->o.dial_interval_ns;
    return true;
}

/* As far as the pool is concerned: endpoints may be full, or in their back-off. */
bool
hs_dials_may_begin_locked(const struct hs_pool *p)
{
    return !p->closed && more_wanted(p) && p->n[MEMBER_DIALING] - p->n_stalled < p->o.max_dials &&
           hs_pool_open(p) < p->o.max_size;
}

static void
note_stalled_locked(struct hs_pool *p, int64_t now, int64_t *again)
{
    if (p->o.connect.tls == NULL || p->n[MEMBER_DIALING] == p->n_stalled)
        return;
    for (size_t i = 0; i < p->n_members; i++) {
        struct hs_member *m = p->members[i];

        if (m->handshaking_ns == 0 || m->stalled)
            continue;
        if (now - m->handshaking_ns < STALLED_NS) {
            *again = hs_min_ns(*again, m->handshaking_ns + STALLED_NS);
            continue;
        }
        m->stalled = true;
        p->n_stalled++;
    }
}

size_t
hs_dials_wanted_locked(struct hs_pool *p, int64_t now, struct hs_member **members, size_t n,
                       int64_t *ret_again_ns)
{
    size_t i = 0;

    *ret_again_ns = HS_NEVER;
    note_stalled_locked(p, now, ret_again_ns);
    while (i < n && hs_dials_may_begin_locked(p) && !hs_list_empty(&p->free)) {
        struct hs_member *m = HS_CONTAINER(p->free.next, struct hs_member, link);
        struct endpoint *e = choose(p, now, ret_again_ns);

        if (e == NULL || !rate_allows(p, now, ret_again_ns))
            break;
        hs_list_unlink(&m->link);
        hs_pool_set_state_locked(p, m, MEMBER_DIALING);
        m->endpoint = (size_t)(e - p->endpoints);
        e->open++;
        p->stats.opened++;
        members[i++] = m;
    }
    return i;
}

/* ---- Ending -------------------------------------------------------------------------------- */

static void
dial_back_off(struct hs_pool *p, struct endpoint *e)
{
    int64_t span = p->o.backoff_min_ns;

    for (unsigned i = 0; i < e->failures && span < p->o.backoff_max_ns; i++)
        span *= 2;
    span = hs_min_ns(span, p->o.backoff_max_ns);
    e->failures++;
    e->next_dial_ns = hs_now() + span / 2 + hs_pool_random_locked(p, span - span / 2);
}

static bool
something_else_may_serve(const struct hs_pool *p)
{
    if (p->o.keep_trying || p->n[MEMBER_DIALING] + p->n[MEMBER_LENT] + p->n[MEMBER_TENDED] > 0)
        return true;
    for (size_t i = 0; i < p->n_endpoints; i++)
        if (p->endpoints[i].failures == 0)
            return true;
    return false;
}

static void
dial_failed(struct hs_pool *p, struct hs_member *m, int64_t began_ns, const struct hs_error *why,
            struct hs_dial_failure *failure)
{
    struct deferred d = {.worker = true};
    struct hs_dial_failure *before;

    hs_lock_take(&p->lock);
    hs_histogram_add(&p->stats.dial, hs_now() - began_ns);
    p->stats.dial_error = *why;
    p->stats.dial_error.origin = HS_ORIGIN_DIAL;
    before = p->failure;
    p->failure = failure;
    p->dial_error_ns = hs_now();
    dial_back_off(p, &p->endpoints[m->endpoint]);
    hs_pool_end_dial_locked(p, m, HS_POOL_DIAL_FAILED, &d);
    if (!something_else_may_serve(p))
        hs_waiter_fail_all_locked(p, why->code, &d);
    hs_pool_leave(p, &d);
    hs_dial_failure_unref(before);
}

static void
dial_succeeded(struct hs_pool *p, struct hs_member *m, int64_t began_ns, struct hs_conn *conn)
{
    struct deferred d = {0};
    int64_t boot_now = hs_boot_now(), lifetime;

    hs_conn_set_site(conn, HS_MADE_POOL, p->where, p->thread);
    hs_lock_take(&p->lock);
    hs_histogram_add(&p->stats.dial, hs_now() - began_ns);
    p->stats.connected++;
    p->endpoints[m->endpoint].failures = 0;
    p->endpoints[m->endpoint].next_dial_ns = 0;
    hs_conn_set_lease(conn, &m->lease_id);
    m->conn = conn;
    m->told = hs_conn_holder(conn);
    m->epoch = p->epoch;
    m->times_lent = 0;
    m->greeted = false;
    m->pinged_boot = 0;
    m->expires_boot = HS_NEVER;
    if ((lifetime = p->o.max_lifetime_ns) != HS_NEVER) {
        lifetime -= hs_pool_random_locked(p, lifetime / 100 * p->o.lifetime_jitter);
        m->expires_boot = boot_now + lifetime;
    }
    (void)hs_pool_offer_locked(p, m, boot_now, boot_now, &d);
    /* There may be more wanted than max_dials let begin: nobody else will say so. */
    d.worker |= more_wanted(p);
    hs_pool_leave(p, &d);
}

/* ---- The task ------------------------------------------------------------------------------ */

static void
dial_destroy(struct dial *dial)
{
    hs_task_end(&dial->task);
    hs_connector_free(dial->connector);
    free(dial);
}

/* In its TLS handshake from now on: the pool worker looks whether it comes to an end. */
static void
note_phase(struct dial *dial)
{
    struct hs_pool *p = dial->task.pool;
    struct deferred d = {.worker = true};
    const struct hs_attempt *attempts;
    bool handshaking = false;
    size_t n;

    if (p->o.connect.tls == NULL || dial->m->handshaking_ns != 0)
        return;
    attempts = hs_connector_attempts(dial->connector, &n);
    for (size_t i = 0; i < n; i++)
        handshaking |= attempts[i].phase == HS_ATTEMPT_TLS && attempts[i].ended_ns == 0;
    if (!handshaking)
        return;
    hs_lock_take(&p->lock);
    dial->m->handshaking_ns = hs_now();
    hs_pool_leave(p, &d);
}

static hs_err
dial_step(struct task *task)
{
    struct dial *dial = (struct dial *)(void *)task;
    struct hs_pool *p = task->pool;
    struct hs_member *m = dial->m;
    int64_t began_ns = dial->began_ns;
    struct hs_error err = {0};
    struct hs_dial_failure *failure;
    struct hs_conn *conn;
    hs_err rv = hs_connector_run(dial->connector, &task->op, &err, &conn);

    if (rv == HS_WANT || rv == HS_INTR) {
        note_phase(dial);
        return rv;
    }
    failure = rv == HS_OK ? NULL : hs_dial_failure_new(dial->connector, began_ns);
    dial_destroy(dial);
    if (rv == HS_OK) {
        dial_succeeded(p, m, began_ns, conn);
    } else {
        err.code = rv;
        dial_failed(p, m, began_ns, &err, failure);
    }
    return HS_OK;
}

static void
dial_give_up(struct task *task, enum hs_pool_reason why, const struct hs_error *err)
{
    struct dial *dial = (struct dial *)(void *)task;
    struct hs_pool *p = task->pool;
    struct hs_member *m = dial->m;
    int64_t began_ns = dial->began_ns;
    struct deferred d = {0};
    struct hs_dial_failure *failure =
        why == HS_POOL_DIAL_FAILED ? hs_dial_failure_new(dial->connector, began_ns) : NULL;

    dial_destroy(dial);
    if (why == HS_POOL_DIAL_FAILED) {
        dial_failed(p, m, began_ns, err, failure);
        return;
    }
    hs_lock_take(&p->lock);
    hs_pool_end_dial_locked(p, m, why, &d);
    hs_pool_leave(p, &d);
}

static void
dial_call_off(struct task *task, const struct hs_error *err)
{
    dial_give_up(task, err != NULL ? HS_POOL_DIAL_FAILED : HS_POOL_DIAL_CALLED_OFF, err);
}

static void
dial_forget(struct task *task)
{
    dial_destroy((struct dial *)(void *)task);
}

void
hs_dial_begin(struct hs_pool *p, struct hs_member *m, struct worker *k)
{
    struct dial *dial = hs_sys_calloc(1, sizeof(*dial));
    struct hs_error err = {0};
    int64_t now = hs_now();
    hs_err rv = HS_E_NOMEM;

    if (dial != NULL) {
        dial->m = m;
        dial->began_ns = now;
        dial->task.op = (struct hs_op)HS_OP_INIT(hs_deadline_after(p->o.dial_timeout_ns), NULL);
        dial->task.step = dial_step;
        dial->task.call_off = dial_call_off;
        dial->task.forget = dial_forget;
        rv = hs_connector_new(&p->endpoints[m->endpoint].ep, &p->o.connect, &err, &dial->connector);
        if (rv == HS_OK)
            hs_connector_set_site(dial->connector, p->where);
        if (rv == HS_OK && (rv = hs_task_begin(k, &dial->task, p, &err)) == HS_OK)
            return;
        hs_connector_free(dial->connector);
        free(dial);
    }
    if (err.code == HS_OK)
        (void)hs_err_setx(&err, rv, "connect", "no memory for a dial");
    dial_failed(p, m, now, &err, NULL);
}
