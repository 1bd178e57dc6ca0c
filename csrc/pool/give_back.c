/* give_back.c: the end of a lease: returned, discarded, or thrown away.
 *
 * Who returns a lease takes its id out of the member, by one atomic operation: of two that return
 * it one finds it gone, and so does every call that names the lease and has not claimed the
 * connection by then. What comes back is looked at after that and before the lock is taken, while
 * it is nobody else's: a call that is still in progress is seen, and no other can begin. Then,
 * under the lock, it is given to the next.
 *
 * A lease that a finalizer finds thrown away goes onto a stack without a lock: finalizers run
 * wherever the garbage collector does. The one who comes by next, or the pool worker, closes it;
 * nobody knows in what state it is, so it is never lent again.
 */
#include "worker.h"

static const char op_name[] = "release";
static const char returned_before[] = "this connection was returned before";

void
hs_pool_end_lease_locked(struct hs_pool *p, struct hs_member *m, int64_t boot_now, bool was_used)
{
    int64_t held = boot_now - m->since_boot;
    struct ledger_site *site = m->site;

    HS_ASSERT(m->state == MEMBER_LENT);
    hs_list_unlink(&m->link);
    atomic_store_explicit(&m->lease_id, 0, memory_order_relaxed);
    atomic_store_explicit(m->told, NULL, memory_order_relaxed);
    site->lent--;
    if (!was_used) {
        m->times_lent--; /* Who comes next is the first to see it, if this one was to be. */
        return;
    }
    p->stats.returned++;
    hs_histogram_add(&p->stats.usage, held);
    site->held_sum_ns += held;
    if (held > site->held_max_ns)
        site->held_max_ns = held;
    p->stats.returned_late += m->overdue;
}

/* ---- Returning ----------------------------------------------------------------------------- */

static bool
is_dirty(const struct hs_pool *p, const struct hs_member *m, enum hs_return how)
{
    uint64_t received, sent;

    hs_conn_since(m->conn, &m->clean, &received, &sent);
    if ((received | sent) == 0)
        return false;
    return how != HS_RETURN_DONE || p->o.reuse == HS_REUSE_MARKED || !hs_conn_was_answered(m->conn);
}

static enum hs_pool_reason
judge_state(const struct hs_pool *p, const struct hs_member *m, enum hs_return how)
{
    switch (hs_conn_leftover(m->conn)) {
    case HS_LEFT_IN_USE:
        return HS_POOL_BUSY;
    case HS_LEFT_BROKEN:
        return HS_POOL_BROKEN;
    case HS_LEFT_UNREAD:
        return HS_POOL_HALF_READ;
    case HS_LEFT_NOTHING:
        break;
    }
    if (is_dirty(p, m, how))
        return HS_POOL_DIRTY;
    hs_conn_renew(m->conn);
    return HS_POOL_NONE;
}

static enum hs_pool_reason
give_back_judge(const struct hs_pool *p, const struct hs_member *m, enum hs_return how)
{
    switch (how) {
    case HS_RETURN_DISCARD:
        return HS_POOL_DISCARDED;
    case HS_RETURN_CHECK:
        return HS_POOL_CHECK_FAILED;
    case HS_RETURN_DETACHED:
        return HS_POOL_DETACHED;
    case HS_RETURN_DONE:
    case HS_RETURN_FAILED:
    case HS_RETURN_UNTOUCHED:
        break;
    }
    return judge_state(p, m, how);
}

/* Closed in order towards a peer that is stuck, it would hold its port for a minute, in FIN_WAIT_2;
 * see docs/adr/0092. What somebody else has in hand is not ours to reset. */
static bool
is_spent(const struct hs_member *m, enum hs_return how, enum hs_pool_reason why)
{
    if (why == HS_POOL_NONE || why == HS_POOL_BUSY || how == HS_RETURN_DETACHED)
        return false;
    return hs_conn_is_spent(m->conn, how == HS_RETURN_FAILED);
}

static hs_err
give_back_take_lease(const struct hs_pool *p, const struct hs_lease *lease, struct hs_error *err)
{
    uint64_t id = lease->id;

    if (lease->id == 0)
        return hs_err_setx(err, HS_E_INVALID, op_name, "%s", returned_before);
    if (lease->pool != p)
        return hs_err_setx(err, HS_E_INVALID, op_name, "this connection is another pool's");
    if (!atomic_compare_exchange_strong(&lease->member->lease_id, &id, 0))
        return hs_err_setx(err, HS_E_INVALID, op_name, "%s", returned_before);
    hs_conn_end_lease(lease->member->conn);
    return HS_OK;
}

static void
give_back_end(struct hs_pool *p, struct hs_member *m, enum hs_return how, enum hs_pool_reason *why,
              bool *ret_late)
{
    struct deferred d = {0};
    int64_t boot_now = hs_boot_now();

    m->spent = is_spent(m, how, *why); /* Nobody else's yet, and it may ask the kernel. */
    hs_lock_take(&p->lock);
    *ret_late = m->overdue;
    hs_pool_end_lease_locked(p, m, boot_now, how != HS_RETURN_UNTOUCHED);
    if (*why == HS_POOL_NONE) {
        *why = hs_pool_offer_locked(p, m, boot_now, boot_now, &d);
    } else {
        m->site->dirty += *why == HS_POOL_DIRTY;
        hs_pool_retire_locked(p, m, *why, &d);
    }
    hs_pool_leave(p, &d);
}

hs_err
hs_pool_release(struct hs_pool *p, struct hs_lease *lease, enum hs_return how, struct hs_error *err,
                enum hs_pool_reason *ret_reason, bool *ret_late)
{
    enum hs_pool_reason why = HS_POOL_NONE;
    bool late = false;
    hs_err rv;

    HS_CHECK(p, POOL_MAGIC);
    if (lease->id == 0 || lease->pool != p || hs_conn_is_ours(lease->conn)) {
        /* 1. Of two who return it, one. */
        if ((rv = give_back_take_lease(p, lease, err)) != HS_OK)
            return rv;
        /* 2. Whether it may be lent again, while it is nobody else's. */
        why = give_back_judge(p, lease->member, how);
        /* 3. Under the lock: to the next, or out. */
        give_back_end(p, lease->member, how, &why, &late);
    } /* Else the parent's: nothing is ours to do. */
    *lease = (struct hs_lease){0};
    if (ret_reason != NULL)
        *ret_reason = why;
    if (ret_late != NULL)
        *ret_late = late;
    return HS_OK;
}

/* ---- Thrown away --------------------------------------------------------------------------- */

void
hs_pool_lose(struct hs_lease *lease)
{
    struct hs_pool *p = lease->pool;
    struct hs_member *m = lease->member, *first;
    bool ours = lease->id != 0 && hs_conn_is_ours(lease->conn);

    *lease = (struct hs_lease){0};
    if (!ours)
        return;
    first = atomic_load(&p->lost);
    do {
        atomic_store_explicit(&m->lost, first, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak(&p->lost, &first, m));
    hs_pool_worker_ask(p);
}

void
hs_pool_take_lost_locked(struct hs_pool *p, struct deferred *d)
{
    struct hs_member *m, *next;
    int64_t boot_now;

    if (atomic_load_explicit(&p->lost, memory_order_relaxed) == NULL)
        return;
    boot_now = hs_boot_now();
    for (m = atomic_exchange(&p->lost, NULL); m != NULL; m = next) {
        next = atomic_load_explicit(&m->lost, memory_order_relaxed);
        hs_pool_end_lease_locked(p, m, boot_now, true);
        m->site->lost++;
        hs_pool_retire_locked(p, m, HS_POOL_LOST, d);
    }
}

/* ---- Asking and telling -------------------------------------------------------------------- */

void
hs_lease_mark_clean(const struct hs_lease *lease)
{
    if (lease->id != 0)
        hs_conn_set_mark(lease->conn, &lease->member->clean);
}

void
hs_lease_info(const struct hs_lease *lease, struct hs_lease_info *ret_info)
{
    uint64_t received, sent;

    *ret_info = (struct hs_lease_info){0};
    if (lease->id == 0)
        return;
    hs_conn_since(lease->conn, &lease->member->clean, &received, &sent);
    ret_info->clean = (received | sent) == 0;
    hs_conn_since(lease->conn, &lease->member->lent, &ret_info->bytes_received,
                  &ret_info->bytes_sent);
    ret_info->reused = lease->times_lent > 1;
    ret_info->retry_is_safe = ret_info->reused && ret_info->bytes_sent == 0;
}
