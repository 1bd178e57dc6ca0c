/* tend.c: what the pool worker does for one pool when it comes by.
 *
 * Idle connections: those that are idle for more than ARM_NS are entered into the epoll set, once
 * per idle time and for one event (EPOLLONESHOT), so that a connection in constant use costs no
 * system call and no event. What comes on one of them is looked at: session tickets are taken in,
 * anything else ends it. Then there is age, idle time, too many of them, too few of them, pings,
 * and leases that last too long.
 *
 * Runs in the pool worker's thread. Ages are in boot time, visits in monotonic time: while the
 * machine is suspended no visit happens, but lending looks at the ages, too.
 */
#include "worker.h"

#include <sys/epoll.h>

#define ARM_NS (50 * HS_NS_PER_MS)
#define BATCH 64

/* ---- The watch ----------------------------------------------------------------------------- */

struct armed {
    struct hs_conn *conn; /* owns: a reference */
    struct hs_member *m;
    uint64_t state_epoch;
    uint32_t events;
};

/* A greeting stays unread until the first borrower comes: only the end is news then. */
static bool
was_greeted(const struct hs_member *m)
{
    return m->greeted && m->times_lent == 0;
}

/* The latest to become idle are at the end; before them all are watched already. */
static size_t
collect_unwatched(struct hs_pool *p, int64_t boot_now, struct armed *armed, bool *ret_more)
{
    size_t n = 0;

    *ret_more = false;
    for (struct hs_list *l = p->idle.prev; l != &p->idle; l = l->prev) {
        struct hs_member *m = HS_CONTAINER(l, struct hs_member, link);

        if (m->watched)
            continue;
        if (boot_now - m->since_boot < ARM_NS || n == BATCH) {
            *ret_more = true;
            continue;
        }
        armed[n++] = (struct armed){
            .conn = hs_conn_ref(m->conn),
            .m = m,
            .state_epoch = m->state_epoch,
            .events = EPOLLRDHUP | EPOLLONESHOT | (was_greeted(m) ? 0U : (uint32_t)EPOLLIN),
        };
    }
    return n;
}

static void
tend_watch(struct hs_pool *p, struct armed *armed, size_t n, const struct hs_own_fd *set)
{
    bool done[BATCH];

    for (size_t i = 0; i < n; i++)
        done[i] = hs_conn_watch(armed[i].conn, set, armed[i].events,
                                (uint64_t)p->id << 32 | armed[i].m->index);
    hs_lock_take(&p->lock);
    for (size_t i = 0; i < n; i++)
        if (done[i] && armed[i].m->state == MEMBER_IDLE &&
            armed[i].m->state_epoch == armed[i].state_epoch)
            armed[i].m->watched = true;
    hs_lock_drop(&p->lock);
    for (size_t i = 0; i < n; i++)
        hs_conn_unref(armed[i].conn);
}

/* Returns when there may be more to do. */
static int64_t
watch_idle(struct hs_pool *p, struct worker *k, int64_t now)
{
    struct armed armed[BATCH];
    bool more;
    size_t n;

    hs_lock_take(&p->lock);
    if (!p->has_unwatched) {
        hs_lock_drop(&p->lock);
        return HS_NEVER;
    }
    if (p->arm_ns == 0)
        p->arm_ns = now + ARM_NS;
    if (p->arm_ns > now) {
        hs_lock_drop(&p->lock);
        return p->arm_ns;
    }
    n = collect_unwatched(p, hs_boot_now(), armed, &more);
    p->has_unwatched = more;
    p->arm_ns = !more ? 0 : n == BATCH ? now : now + ARM_NS;
    hs_lock_drop(&p->lock);
    tend_watch(p, armed, n, hs_pool_worker_watch(k));
    return more ? p->arm_ns : HS_NEVER;
}

static struct hs_member *
take_watched(struct hs_pool *p, uint32_t index)
{
    struct hs_member *m = index < p->n_members ? p->members[index] : NULL;

    if (m == NULL || m->state != MEMBER_IDLE || !m->watched)
        return NULL; /* Lent since, or something that was here before. */
    hs_list_unlink(&m->link);
    hs_pool_set_state_locked(p, m, MEMBER_TENDED);
    return m;
}

void
hs_pool_on_event(struct hs_pool *p, uint32_t index)
{
    struct deferred d = {0};
    struct hs_member *m;
    enum hs_liveness live;
    enum hs_pool_reason why;

    hs_lock_take(&p->lock);
    m = take_watched(p, index);
    hs_pool_leave(p, &d);
    if (m == NULL)
        return;
    live = hs_conn_probe(m->conn);
    why = hs_pool_judge_probe(live, m->times_lent == 0);
    if (live == HS_LIVE_DATA && was_greeted(m))
        why = HS_POOL_PEER_CLOSED; /* Behind the greeting. */
    m->greeted = m->greeted || live == HS_LIVE_DATA;
    hs_lock_take(&p->lock);
    if (why == HS_POOL_NONE)
        (void)hs_pool_offer_locked(p, m, m->since_boot, hs_boot_now(), &d);
    else
        hs_pool_retire_locked(p, m, why, &d);
    hs_pool_leave(p, &d);
}

/* ---- Age ----------------------------------------------------------------------------------- */

static int64_t
after(int64_t boot_time, int64_t span)
{
    return span >= HS_NEVER - boot_time ? HS_NEVER : boot_time + span;
}

/* HS_POOL_NONE: it stays; *ret_due: until when, or when it is to be pinged. */
static enum hs_pool_reason
judge_idle(const struct hs_pool *p, const struct hs_member *m, int64_t boot_now, int64_t *ret_due)
{
    enum hs_pool_reason why = hs_pool_expired_locked(p, m, boot_now);
    int64_t idle_until = hs_pool_idle_until_locked(p, m);

    if (why == HS_POOL_NONE && hs_pool_open(p) - p->n[MEMBER_CLOSING] > p->o.max_size)
        why = HS_POOL_SURPLUS;
    if (why == HS_POOL_NONE && idle_until <= boot_now)
        why = HS_POOL_IDLE_TIMEOUT;
    *ret_due = hs_min_ns(idle_until, m->expires_boot);
    return why;
}

static size_t
scan_idle_locked(struct hs_pool *p, int64_t boot_now, struct hs_member **pinged, struct deferred *d)
{
    struct hs_list *l = p->idle.next, *next;
    size_t n = 0;
    int64_t due;

    if (boot_now < p->scan_boot)
        return 0;
    p->scan_boot = HS_NEVER;
    for (; l != &p->idle; l = next) {
        struct hs_member *m = HS_CONTAINER(l, struct hs_member, link);
        enum hs_pool_reason why = judge_idle(p, m, boot_now, &due);
        int64_t ping = after(m->pinged_boot > m->since_boot ? m->pinged_boot : m->since_boot,
                             p->o.ping_after_ns);

        next = l->next;
        if (why != HS_POOL_NONE) {
            hs_pool_retire_locked(p, m, why, d);
            continue;
        }
        if (ping <= boot_now && n < BATCH) {
            hs_list_unlink(l);
            hs_pool_set_state_locked(p, m, MEMBER_TENDED);
            pinged[n++] = m;
            continue;
        }
        p->scan_boot = hs_min_ns(p->scan_boot, hs_min_ns(due, ping));
    }
    return n;
}

/* ---- A visit ------------------------------------------------------------------------------- */

static int64_t
span_after(int64_t now, int64_t span)
{
    return span >= HS_NEVER - now ? HS_NEVER : now + (span > 0 ? span : 0);
}

static void
look_after(struct hs_pool *p, struct worker *k, int64_t now, int64_t *until)
{
    struct hs_member *pinged[BATCH], *dialled[BATCH];
    struct deferred d = {0};
    int64_t boot_now = hs_boot_now(), again;
    size_t n_pinged, n_dialled;

    hs_lock_take(&p->lock);
    hs_pool_take_lost_locked(p, &d);
    *until = span_after(now, hs_ledger_note_overdue_locked(p, boot_now, &d));
    n_pinged = scan_idle_locked(p, boot_now, pinged, &d);
    n_dialled = hs_dials_wanted_locked(p, now, dialled, BATCH, &again);
    *until = hs_min_ns(*until, again);
    if (p->scan_boot != HS_NEVER)
        *until = hs_min_ns(*until, span_after(now, p->scan_boot - boot_now));
    hs_pool_leave(p, &d);
    for (size_t i = 0; i < n_pinged; i++)
        hs_ping_begin(p, pinged[i], k);
    for (size_t i = 0; i < n_dialled; i++)
        hs_dial_begin(p, dialled[i], k);
}

static size_t
room_wanted(struct hs_pool *p)
{
    size_t wanted;

    hs_lock_take(&p->lock);
    wanted = hs_pool_open(p) + p->o.max_dials;
    if (wanted > p->o.max_size)
        wanted = p->o.max_size;
    hs_lock_drop(&p->lock);
    return wanted;
}

int64_t
hs_pool_tend(struct hs_pool *p, struct worker *k, bool *ret_done)
{
    int64_t now = hs_now(), until;

    hs_pool_make_room(p, room_wanted(p));
    look_after(p, k, now, &until);
    until = hs_min_ns(until, watch_idle(p, k, now));
    hs_lock_take(&p->lock);
    *ret_done = p->closed && p->n[MEMBER_DIALING] == 0 && p->n[MEMBER_TENDED] == 0;
    hs_lock_drop(&p->lock);
    return until;
}
