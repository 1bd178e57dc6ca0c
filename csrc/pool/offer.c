/* offer.c: what becomes of a connection that is nobody's: the first who waits gets it, it becomes
 * idle, or it may not stay.
 *
 * It is offered by a dial, a return, a ping, the watch.
 */
#include "waiter.h"

enum hs_pool_reason
hs_pool_expired_locked(const struct hs_pool *p, const struct hs_member *m, int64_t boot_now)
{
    if (p->closed)
        return HS_POOL_POOL_CLOSED;
    if (m->epoch != p->epoch)
        return HS_POOL_EVICTED;
    if (boot_now >= m->expires_boot)
        return HS_POOL_LIFETIME;
    return HS_POOL_NONE;
}

int64_t
hs_pool_idle_until_locked(const struct hs_pool *p, const struct hs_member *m)
{
    bool spare = p->n[MEMBER_IDLE] + p->n[MEMBER_TENDED] > p->o.min_idle;

    return !spare || p->o.idle_timeout_ns >= HS_NEVER - m->since_boot
               ? HS_NEVER
               : m->since_boot + p->o.idle_timeout_ns;
}

void
hs_pool_lend_locked(struct hs_pool *p, struct hs_member *m, const struct hs_holder *holder,
                    struct ledger_site *site, int64_t boot_now, struct hs_lease *ret_lease)
{
    hs_pool_set_state_locked(p, m, MEMBER_LENT);
    *ret_lease = (struct hs_lease){
        .pool = p,
        .member = m,
        .conn = m->conn,
        .id = ++p->leases,
        .times_lent = ++m->times_lent,
        .idle_ns = boot_now - m->since_boot,
    };
    hs_list_append(&p->lent, &m->link);
    atomic_store_explicit(&m->lease_id, ret_lease->id, memory_order_relaxed);
    m->lent_as = ret_lease->id;
    m->since_boot = boot_now;
    m->holder = *holder;
    m->site = site;
    atomic_store_explicit(m->told, site->where, memory_order_relaxed);
    m->overdue = false;
    site->lent++;
    site->acquired++;
    hs_conn_set_mark(m->conn, &m->lent);
    hs_conn_set_mark(m->conn, &m->clean);
}

/* ---- The question to the kernel ------------------------------------------------------------- */

/* Not a new connection that comes straight from its dial: a server that accepts and closes at once
 * is the borrower's to see. Else it would be dialled again and again. */
bool
hs_pool_needs_probe(const struct hs_pool *p, const struct hs_lease *lease, bool watched)
{
    if (lease->times_lent == 1 && lease->idle_ns == 0)
        return false;
    return p->o.probe_after_ns == 0 || (!watched && lease->idle_ns > p->o.probe_after_ns);
}

enum hs_pool_reason
hs_pool_judge_probe(enum hs_liveness live, bool fresh)
{
    switch (live) {
    case HS_LIVE_IDLE:
        return HS_POOL_NONE;
    case HS_LIVE_DATA:
        return fresh ? HS_POOL_NONE : HS_POOL_UNSOLICITED;
    case HS_LIVE_DEAD:
        return HS_POOL_PEER_DEAD;
    case HS_LIVE_CLOSED:
        break;
    }
    return HS_POOL_PEER_CLOSED;
}

/* ---- Offering ------------------------------------------------------------------------------ */

/* The idle list is ordered by when they became so. */
static void
insert_idle(struct hs_pool *p, struct hs_member *m)
{
    struct hs_list *after = p->idle.prev;

    while (after != &p->idle &&
           HS_CONTAINER(after, struct hs_member, link)->since_boot > m->since_boot)
        after = after->prev;
    hs_list_append(after->next, &m->link);
}

/* The pool worker comes by soon for what is new, and then learns until when it need not. */
static void
become_idle(struct hs_pool *p, struct hs_member *m, struct deferred *d)
{
    int64_t span = hs_min_ns(p->o.idle_timeout_ns, p->o.ping_after_ns);

    p->scan_boot = hs_min_ns(p->scan_boot, m->expires_boot);
    if (span < HS_NEVER - m->since_boot)
        p->scan_boot = hs_min_ns(p->scan_boot, m->since_boot + span);
    hs_pool_set_state_locked(p, m, MEMBER_IDLE);
    m->watched = false;
    insert_idle(p, m);
    if (!p->has_unwatched) {
        p->has_unwatched = true;
        d->worker = true;
    }
}

enum hs_pool_reason
hs_pool_offer_locked(struct hs_pool *p, struct hs_member *m, int64_t since_boot, int64_t boot_now,
                     struct deferred *d)
{
    enum hs_pool_reason why = hs_pool_expired_locked(p, m, boot_now);
    struct waiter *w = NULL;

    /* 1. Whether it may stay at all: too old, or more than max_size after a resize. */
    if (why == HS_POOL_NONE && hs_pool_open(p) > p->o.max_size)
        why = HS_POOL_SURPLUS;
    /* 2. Who waits comes before the number of idle ones that are kept. */
    if (why == HS_POOL_NONE && (w = hs_waiter_first_locked(p, d)) == NULL &&
        p->n[MEMBER_IDLE] >= p->o.max_idle)
        why = HS_POOL_SURPLUS;
    m->since_boot = since_boot;
    /* 3. Out, into the waiter's hands, or idle; what that takes outside of the lock is in d. */
    if (why != HS_POOL_NONE) {
        hs_pool_retire_locked(p, m, why, d);
    } else if (w != NULL) {
        hs_pool_lend_locked(p, m, &w->holder, w->site, boot_now, &w->lease);
        w->to_probe = hs_pool_needs_probe(p, &w->lease, false);
        p->stats.handed_over++;
        hs_waiter_settle_locked(p, w, WAITER_SERVED, d);
    } else {
        become_idle(p, m, d);
    }
    return why;
}
