/* stats.c: what a pool has counted, and counting it again.
 *
 * Each figure is kept where it changes, under the pool's lock; here they are copied, and counted
 * again from the members and the lists, to be compared.
 */
#include "waiter.h"

#include <string.h>

const char *
hs_pool_reason_name(enum hs_pool_reason reason)
{
    static const char *const names[] = {
#define REASON_NAME(name, text) text,
        HS_POOL_REASONS(REASON_NAME)
#undef REASON_NAME
    };

    return names[reason];
}

/* ---- Asking -------------------------------------------------------------------------------- */

static void
count_handshakes_locked(const struct hs_pool *p, struct hs_pool_stats *s)
{
    int64_t now = hs_now();

    for (size_t i = 0; i < p->n_members && p->n[MEMBER_DIALING] > 0; i++)
        if (p->members[i]->handshaking_ns != 0) {
            s->handshaking++;
            if (now - p->members[i]->handshaking_ns > s->handshaking_ns)
                s->handshaking_ns = now - p->members[i]->handshaking_ns;
        }
}

void
hs_pool_stats(struct hs_pool *p, struct hs_pool_stats *ret_stats)
{
    struct deferred d = {0};

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    hs_pool_take_lost_locked(p, &d);
    hs_pool_leave(p, &d);
    hs_lock_take(&p->lock);
    *ret_stats = p->stats;
    count_handshakes_locked(p, ret_stats);
    ret_stats->max_size = p->o.max_size;
    ret_stats->idle = p->n[MEMBER_IDLE] + p->n[MEMBER_TENDED];
    ret_stats->lent = p->n[MEMBER_LENT];
    ret_stats->dialing = p->n[MEMBER_DIALING];
    ret_stats->closing = p->n[MEMBER_CLOSING];
    ret_stats->waiting = p->n_waiting;
    ret_stats->dial_error_age_ns =
        p->stats.dial_error.code == HS_OK ? 0 : hs_now() - p->dial_error_ns;
    for (size_t i = 0; i < p->n_endpoints; i++)
        if (p->endpoints[i].failures > ret_stats->dial_failures)
            ret_stats->dial_failures = p->endpoints[i].failures;
    hs_lock_drop(&p->lock);
}

size_t
hs_pool_conns(struct hs_pool *p, bool lent, struct hs_conn **conns, size_t n)
{
    const struct hs_list *list;
    size_t total = 0;

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    list = lent ? &p->lent : &p->idle;
    for (const struct hs_list *l = list->next; l != list; l = l->next, total++)
        if (total < n)
            conns[total] = hs_conn_ref(HS_CONTAINER(l, struct hs_member, link)->conn);
    hs_lock_drop(&p->lock);
    return total;
}

void
hs_pool_label(struct hs_pool *p, struct hs_pool_label *ret_label)
{
    HS_CHECK(p, POOL_MAGIC);
    *ret_label = (struct hs_pool_label){
        .name = p->name, .site = p->where, .thread = p->thread, .id = p->id, .named = p->named};
}

size_t
hs_pool_waiting(struct hs_pool *p, struct hs_waiting *waiting, size_t n)
{
    int64_t now = hs_now();
    size_t total = 0;

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    for (const struct hs_list *l = p->waiters.next; l != &p->waiters; l = l->next, total++)
        if (total < n) {
            const struct waiter *w = HS_CONTAINER(l, struct waiter, link);

            waiting[total] = (struct hs_waiting){
                .thread = w->holder.thread, .site = w->site->where, .age_ns = now - w->since_ns};
        }
    hs_lock_drop(&p->lock);
    return total;
}

/* Only those that are not closed yet, so that asking again gives others. */
static size_t
collect_open_lent(struct hs_pool *p, struct hs_conn **conns, size_t n)
{
    size_t total = 0;

    hs_lock_take(&p->lock);
    for (const struct hs_list *l = p->lent.next; l != &p->lent && total < n; l = l->next) {
        struct hs_conn *c = HS_CONTAINER(l, struct hs_member, link)->conn;

        if (!hs_conn_is_closed(c))
            conns[total++] = hs_conn_ref(c);
    }
    hs_lock_drop(&p->lock);
    return total;
}

void
hs_pool_abort_lent(struct hs_pool *p)
{
    struct hs_conn *conns[64];
    size_t n;

    HS_CHECK(p, POOL_MAGIC);
    while ((n = collect_open_lent(p, conns, 64)) > 0)
        for (size_t i = 0; i < n; i++) {
            hs_conn_close(conns[i], true);
            hs_conn_unref(conns[i]);
        }
}

/* ---- Counting again ------------------------------------------------------------------------ */

static size_t
stats_length(const struct hs_list *list)
{
    size_t n = 0;

    for (const struct hs_list *l = list->next; l != list; l = l->next)
        n++;
    return n;
}

static const char *
find_disagreement(const struct hs_pool *p)
{
    size_t n[MEMBER_STATES] = {0}, stalled = 0;
    uint64_t closed = 0;

    for (size_t i = 0; i < p->n_members; i++) {
        const struct hs_member *m = p->members[i];
        bool has_conn =
            m->state == MEMBER_IDLE || m->state == MEMBER_TENDED || m->state == MEMBER_LENT;

        n[m->state]++;
        stalled += m->stalled;
        if (has_conn && m->conn == NULL)
            return "a member without a connection";
        if (m->state != MEMBER_LENT && atomic_load(&m->lease_id) != 0)
            return "a lease that is nobody's";
    }
    for (size_t i = 0; i < MEMBER_STATES; i++)
        if (n[i] != p->n[i])
            return "the members and their counts";
    if (stalled != p->n_stalled)
        return "the stalled dials and their count";
    for (size_t i = 0; i < HS_POOL_REASON_COUNT; i++)
        closed += p->stats.closed_by_reason[i];
    if (closed != p->stats.closed)
        return "closed and its reasons";
    if (stats_length(&p->idle) != n[MEMBER_IDLE] || stats_length(&p->lent) != n[MEMBER_LENT] ||
        stats_length(&p->free) != n[MEMBER_FREE] || stats_length(&p->waiters) != p->n_waiting)
        return "the lists and their counts";
    return hs_pool_adds_up(p) ? NULL : "opened and idle + lent + dialing + closing + closed";
}

hs_err
hs_pool_verify(struct hs_pool *p, struct hs_error *err)
{
    const char *what;
    struct deferred d = {0};

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    hs_pool_take_lost_locked(p, &d);
    what = find_disagreement(p);
    hs_pool_leave(p, &d);
    if (what == NULL)
        return HS_OK;
    return hs_err_setx(err, HS_E_INVALID, "verify", "does not agree: %s", what);
}
