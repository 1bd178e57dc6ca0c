/* pool.c: a pool's life, its size, and what a forked child forgets.
 *
 * Owns the memory of pools and members. See pool_impl.h for the states and the invariants.
 *
 * References: users' and, while it is listed, the pool worker's. A closed pool leaves the pool
 * worker as soon as nothing is dialled or tended; what is lent then is closed by the one who
 * returns it.
 */
#include "waiter.h"
#include "worker.h"

#include "../base/sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FREED 0x7b
#define MEMBERS_MAX ((size_t)1 << 20)

static atomic_long live;
static atomic_uint last_id;

long
hs_pool_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

/* ---- Options ------------------------------------------------------------------------------- */

void
hs_pool_options_init(struct hs_pool_options *o)
{
    memset(o, 0, sizeof(*o));
    hs_connect_options_init(&o->connect);
    o->max_size = 10;
    o->max_idle = o->max_waiting = HS_POOL_UNLIMITED;
    o->max_dials = 4;
    o->dial_timeout_ns = 10 * HS_NS_PER_S;
    o->backoff_min_ns = 50 * HS_NS_PER_MS;
    o->backoff_max_ns = 5 * HS_NS_PER_S;
    o->idle_timeout_ns = 60 * HS_NS_PER_S;
    o->max_lifetime_ns = 1800 * HS_NS_PER_S;
    o->lifetime_jitter = 10;
    o->overdue_after_ns = o->ping_after_ns = HS_NEVER;
    o->ping_timeout_ns = 5 * HS_NS_PER_S;
}

static hs_err
pool_invalid(struct hs_error *err, const char *why)
{
    return hs_err_setx(err, HS_E_INVALID, "pool", "%s", why);
}

static const char *
find_impossible(const struct hs_pool_options *o)
{
    if (o->max_size == 0 || o->max_size > MEMBERS_MAX)
        return "max_size must be in 1..1048576";
    if (o->max_dials == 0)
        return "max_dials must not be 0";
    if (o->dial_timeout_ns <= 0 || o->ping_timeout_ns <= 0)
        return "dial_timeout and ping_timeout must be more than 0";
    if (o->backoff_min_ns < HS_NS_PER_MS)
        return "backoff_min must be at least 1 ms";
    if (o->idle_timeout_ns <= 0 || o->max_lifetime_ns <= 0)
        return "idle_timeout and max_lifetime must be more than 0";
    if (o->lifetime_jitter < 0 || o->lifetime_jitter > 100)
        return "lifetime_jitter must be in 0..100 percent";
    if (o->probe_after_ns < 0 || o->dial_interval_ns < 0)
        return "probe_after and dial_interval must not be negative";
    if (o->overdue_after_ns <= 0 || o->ping_after_ns <= 0)
        return "overdue_after and ping_after must be more than 0";
    return NULL;
}

static const char *
find_contradiction(const struct hs_pool_options *o)
{
    if (o->min_idle > o->max_size)
        return "min_idle exceeds max_size";
    if (o->min_idle > o->max_idle)
        return "min_idle exceeds max_idle";
    if (o->max_idle != HS_POOL_UNLIMITED && o->max_idle > o->max_size)
        return "max_idle exceeds max_size";
    if (o->max_per_endpoint > o->max_size)
        return "max_per_endpoint exceeds max_size";
    if (o->backoff_min_ns > o->backoff_max_ns)
        return "backoff_min exceeds backoff_max";
    if (o->max_lifetime_ns != HS_NEVER && o->overdue_after_ns != HS_NEVER &&
        o->overdue_after_ns > o->max_lifetime_ns)
        return "overdue_after exceeds max_lifetime";
    if (o->ping_after_ns != HS_NEVER && o->ping_after_ns >= o->max_lifetime_ns)
        return "ping_after must be less than max_lifetime";
    if (o->ping_after_ns != HS_NEVER && o->ping_after_ns >= o->idle_timeout_ns && o->min_idle == 0)
        return "ping_after must be less than idle_timeout";
    if (o->ping_after_ns != HS_NEVER && (o->ping_len == 0 || o->pong_len == 0))
        return "ping_after needs a ping and a pong";
    if (o->ping_len > HS_PING_MAX || o->pong_len > HS_PING_MAX)
        return "ping and pong must have 256 bytes at most";
    return NULL;
}

hs_err
hs_pool_options_check(const struct hs_pool_options *o, struct hs_error *err)
{
    const char *why = find_impossible(o);

    if (why == NULL)
        why = find_contradiction(o);
    return why == NULL ? HS_OK : pool_invalid(err, why);
}

/* ---- Life ---------------------------------------------------------------------------------- */

static void
pool_empty(struct hs_pool *p)
{
    hs_list_init(&p->idle);
    hs_list_init(&p->lent);
    hs_list_init(&p->free);
    hs_list_init(&p->waiters);
}

static hs_err
fill_in(struct hs_pool *p, const struct hs_endpoint *endpoints, size_t n,
        const struct hs_pool_options *o, struct hs_error *err)
{
    if ((p->endpoints = hs_sys_calloc(n, sizeof(*p->endpoints))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "pool", "no memory for a pool");
    for (size_t i = 0; i < n; i++)
        p->endpoints[i].ep = endpoints[i];
    p->n_endpoints = n;
    p->o = *o;
    if (o->connect.tls != NULL)
        (void)hs_tls_config_ref(o->connect.tls);
    if (o->connect.breaker != NULL)
        (void)hs_breaker_ref(o->connect.breaker);
    if (o->connect.limits != NULL)
        (void)hs_dial_limits_ref(o->connect.limits);
    if (o->connect.server_name != NULL) {
        (void)snprintf(p->server_name, sizeof(p->server_name), "%s", o->connect.server_name);
        p->o.connect.server_name = p->server_name;
    }
    return HS_OK;
}

static void
pool_destroy(struct hs_pool *p)
{
    hs_pool_census_remove(p);
    for (size_t i = 0; i < p->n_members; i++) {
        hs_conn_unref(p->members[i]->conn);
        hs_conn_unref(p->members[i]->inherited);
        free(p->members[i]);
    }
    free(p->members);
    free(p->endpoints);
    hs_tls_config_unref(p->o.connect.tls);
    hs_breaker_unref(p->o.connect.breaker);
    hs_dial_limits_unref(p->o.connect.limits);
    hs_dial_failure_unref(p->failure);
    hs_pool_forget_sites(p, NULL);
    hs_wakelist_fini(&p->changed);
    hs_lock_fini(&p->lock);
    memset(p, FREED, sizeof(*p));
    free(p);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

/* The parent's connections are let go of by closing our copies of their descriptors: not a byte is
 * written on them. Leases of before find that their number is nobody's. Waiters belong to threads
 * that are not here; their memory is left alone. */
static void
pool_forget_parent(struct hs_pool *p)
{
    hs_wakelist_init(&p->changed);
    pool_empty(p);
    memset(p->n, 0, sizeof(p->n));
    p->n_waiting = p->n_stalled = 0;
    p->has_unwatched = false;
    p->scan_boot = HS_NEVER;
    p->arm_ns = p->next_dial_ns = p->visit_ns = 0;
    /* Or all children would dial again in the same moments. */
    p->random ^= (uint64_t)getpid() * UINT64_C(0x9e3779b97f4a7c15);
    atomic_store(&p->lost, NULL);
    atomic_store(&p->asks, false);
    memset(&p->stats, 0, sizeof(p->stats));
    p->stats = (struct hs_pool_stats){0};
    for (size_t i = 0; i < p->n_endpoints; i++) {
        p->endpoints[i].open = p->endpoints[i].failures = 0;
        p->endpoints[i].next_dial_ns = 0;
    }
    for (size_t i = 0; i < p->n_members; i++) {
        struct hs_member *m = p->members[i];

        if (m->conn != NULL)
            hs_conn_close(m->conn, false);
        if (m->state == MEMBER_LENT && m->inherited == NULL)
            m->inherited = m->conn;
        else
            hs_conn_unref(m->conn);
        m->conn = NULL;
        atomic_store(&m->lease_id, 0);
        m->state = MEMBER_FREE;
        m->stalled = false;
        m->handshaking_ns = 0;
        hs_list_init(&m->link);
        hs_list_append(&p->free, &m->link);
        p->n[MEMBER_FREE]++;
    }
    hs_ledger_forget_lent(&p->ledger);
}

static const struct tender pool_tender = {
    .tend = hs_pool_tend,
    .on_event = hs_pool_on_event,
    .forget_parent = pool_forget_parent,
    .let_go = hs_pool_unref,
};

hs_err
hs_pool_new_at(const struct hs_endpoint *endpoints, size_t n, const struct hs_pool_options *o,
               const struct hs_pool_opening *origin, struct hs_error *err,
               struct hs_pool **ret_pool)
{
    struct hs_pool *p;
    hs_err rv;

    if (n == 0)
        return pool_invalid(err, "a pool needs an endpoint");
    if ((rv = hs_pool_options_check(o, err)) != HS_OK)
        return rv;
    if ((p = hs_sys_calloc(1, sizeof(*p))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "pool", "no memory for a pool");
    p->magic = POOL_MAGIC;
    p->generation = hs_fork_generation();
    p->id = atomic_fetch_add(&last_id, 1) + 1;
    p->refs = 1;
    p->tender = &pool_tender;
    hs_list_init(&p->link);
    hs_list_init(&p->census);
    hs_lock_init(&p->lock, HS_RANK_POOL);
    hs_wakelist_init(&p->changed);
    pool_empty(p);
    p->ledger.other.where = hs_call_site_unknown();
    p->where = origin->site;
    p->thread = origin->thread;
    (void)snprintf(p->name, sizeof(p->name), "%s", origin->name);
    p->named = origin->named;
    p->scan_boot = HS_NEVER;
    /* The time tells processes apart, the id pools that are made at once. */
    p->random = (uint64_t)hs_now() ^ (uint64_t)p->id * UINT64_C(0x9e3779b97f4a7c15);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    if ((rv = fill_in(p, endpoints, n, o, err)) == HS_OK)
        rv = hs_pool_worker_add(p, err);
    if (rv != HS_OK)
        pool_destroy(p);
    else
        *ret_pool = p;
    return rv;
}

hs_err
hs_pool_new(const struct hs_endpoint *endpoints, size_t n, const struct hs_pool_options *o,
            struct hs_error *err, struct hs_pool **ret_pool)
{
    const struct hs_pool_opening unknown = {.site = hs_call_site_unknown(), .name = ""};

    return hs_pool_new_at(endpoints, n, o, &unknown, err, ret_pool);
}

void
hs_pool_unref(struct hs_pool *p)
{
    if (p == NULL)
        return;
    HS_CHECK(p, POOL_MAGIC);
    if (atomic_fetch_sub(&p->refs, 1) == 1)
        pool_destroy(p);
}

hs_err
hs_pool_enter(struct hs_pool *p, struct hs_error *err)
{
    if (atomic_load_explicit(&p->generation, memory_order_acquire) == hs_fork_generation())
        return HS_OK;
    if (hs_pool_is_closed(p))
        return hs_err_setx(err, HS_E_CLOSED, "acquire", "the pool is closed");
    return hs_pool_worker_add(p, err);
}

/* ---- Size and end -------------------------------------------------------------------------- */

static void
retire_idle(struct hs_pool *p, enum hs_pool_reason why, struct deferred *d)
{
    while (!hs_list_empty(&p->idle))
        hs_pool_retire_locked(p, HS_CONTAINER(p->idle.next, struct hs_member, link), why, d);
}

void
hs_pool_evict(struct hs_pool *p)
{
    struct deferred d = {.worker = true};

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    p->epoch++;
    retire_idle(p, HS_POOL_EVICTED, &d);
    hs_pool_leave(p, &d);
}

/* Of those in list; NULL: it is not there. */
static struct hs_member *
find_conn_locked(const struct hs_list *list, uint64_t conn_id)
{
    for (const struct hs_list *l = list->next; l != list; l = l->next) {
        struct hs_member *m = HS_CONTAINER(l, struct hs_member, link);

        if (hs_conn_id(m->conn) == conn_id)
            return m;
    }
    return NULL;
}

enum hs_retire
hs_pool_retire(struct hs_pool *p, uint64_t conn_id, int64_t idle_ns)
{
    struct deferred d = {.worker = true};
    int64_t boot_now = hs_boot_now();
    enum hs_retire how = HS_RETIRE_GONE;
    struct hs_member *m;

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    if ((m = find_conn_locked(&p->idle, conn_id)) == NULL) {
        if (find_conn_locked(&p->lent, conn_id) != NULL)
            how = HS_RETIRE_LENT;
    } else if (boot_now - m->since_boot < idle_ns) {
        how = HS_RETIRE_FRESH;
    } else {
        hs_pool_retire_locked(p, m, HS_POOL_EVICTED, &d);
        how = HS_RETIRE_CLOSED;
    }
    hs_pool_leave(p, &d);
    return how;
}

size_t
hs_pool_conn_ids(struct hs_pool *p, uint64_t *ids, size_t room)
{
    struct hs_list *lists[] = {&p->idle, &p->lent};
    size_t n = 0;

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    for (size_t i = 0; i < 2; i++)
        for (const struct hs_list *l = lists[i]->next; l != lists[i]; l = l->next, n++)
            if (n < room)
                ids[n] = hs_conn_id(HS_CONTAINER(l, struct hs_member, link)->conn);
    hs_lock_drop(&p->lock);
    return n;
}

hs_err
hs_pool_resize(struct hs_pool *p, size_t max_size, struct hs_error *err)
{
    struct deferred d = {.worker = true};
    struct hs_pool_options o;
    hs_err rv;

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    o = p->o;
    hs_lock_drop(&p->lock);
    o.max_size = max_size;
    if (o.max_idle != HS_POOL_UNLIMITED && o.max_idle > max_size)
        o.max_idle = max_size;
    if ((rv = hs_pool_options_check(&o, err)) != HS_OK)
        return rv;
    hs_lock_take(&p->lock);
    p->o.max_size = max_size;
    while (hs_pool_open(p) - p->n[MEMBER_CLOSING] > max_size && !hs_list_empty(&p->idle))
        hs_pool_retire_locked(p, HS_CONTAINER(p->idle.next, struct hs_member, link),
                              HS_POOL_SURPLUS, &d);
    hs_pool_leave(p, &d);
    return HS_OK;
}

void
hs_pool_close(struct hs_pool *p)
{
    struct deferred d = {.worker = true, .changed = true};

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    p->closed = true;
    hs_waiter_fail_all_locked(p, HS_E_CLOSED, &d);
    hs_pool_take_lost_locked(p, &d);
    retire_idle(p, HS_POOL_POOL_CLOSED, &d);
    hs_pool_leave(p, &d);
}

/* ---- Waiting for a change ------------------------------------------------------------------ */

static bool
is_empty(struct hs_pool *p)
{
    bool done;

    hs_lock_take(&p->lock);
    done = hs_pool_open(p) == 0;
    hs_lock_drop(&p->lock);
    return done;
}

static bool
is_renewed(struct hs_pool *p)
{
    bool done = true;

    hs_lock_take(&p->lock);
    for (size_t i = 0; i < p->n_members && done; i++) {
        const struct hs_member *m = p->members[i];

        done = m->state == MEMBER_FREE || m->state == MEMBER_DIALING || m->epoch == p->epoch;
    }
    hs_lock_drop(&p->lock);
    return done;
}

static hs_err
look_renewed(void *arg, struct hs_change *change)
{
    (void)change;
    return is_renewed(arg) ? HS_OK : HS_WANT;
}

static hs_err
look_empty(void *arg, struct hs_change *change)
{
    (void)change;
    return is_empty(arg) ? HS_OK : HS_WANT;
}

static hs_err
await(struct hs_pool *p, struct hs_op *op, hs_look *look, const char *name, struct hs_error *err)
{
    hs_err rv = hs_op_begin(op, HS_NEVER, err);

    if (rv == HS_OK)
        rv = hs_await_change(op, &p->changed, look, p, err);
    if (rv < 0 && err != NULL)
        err->op = name;
    return rv;
}

hs_err
hs_pool_drain(struct hs_pool *p, struct hs_op *op, struct hs_error *err)
{
    if (op->claim == 0) {
        op->claim = 1; /* The first step. */
        hs_pool_evict(p);
    }
    return await(p, op, look_renewed, "drain", err);
}

hs_err
hs_pool_await_closed(struct hs_pool *p, struct hs_op *op, struct hs_error *err)
{
    HS_CHECK(p, POOL_MAGIC);
    return await(p, op, look_empty, "close", err);
}

/* HS_OK: told. HS_WANT: there is none. */
struct overdue {
    struct hs_pool *pool;
    struct hs_lent *ret_lent;
};

/* A hs_look: HS_OK with one that was not told yet. */
static hs_err
tell_one(void *arg, struct hs_change *change)
{
    struct overdue *o = arg;
    struct hs_pool *p = o->pool;
    int64_t boot_now = hs_boot_now();
    hs_err rv = HS_WANT;

    (void)change;
    hs_lock_take(&p->lock);
    if (p->closed)
        rv = HS_E_CLOSED;
    for (struct hs_list *l = p->lent.next; l != &p->lent && rv == HS_WANT; l = l->next) {
        struct hs_member *m = HS_CONTAINER(l, struct hs_member, link);

        if (!m->overdue)
            break; /* The list is ordered. */
        if (!m->untold)
            continue;
        m->untold = false;
        *o->ret_lent = hs_ledger_describe_locked(m, boot_now);
        rv = HS_OK;
    }
    hs_lock_drop(&p->lock);
    return rv;
}

hs_err
hs_pool_await_overdue(struct hs_pool *p, struct hs_op *op, struct hs_error *err,
                      struct hs_lent *ret_lent)
{
    struct overdue o = {p, ret_lent};
    hs_err rv;

    HS_CHECK(p, POOL_MAGIC);
    if ((rv = hs_pool_enter(p, err)) != HS_OK || (rv = hs_op_begin(op, HS_NEVER, err)) != HS_OK)
        return rv;
    rv = hs_await_change(op, &p->changed, tell_one, &o, err);
    return rv == HS_E_CLOSED ? hs_err_setx(err, rv, NULL, "the pool is closed") : rv;
}
