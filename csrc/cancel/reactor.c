/* reactor.c: see reactor.h.
 *
 * What is parked is OWNED (by the one who parks it, or was given it), WAITING, or DUE.
 *
 * Invariants, all under lock (rank REACTOR):
 * - waiting lists exactly the WAITING ones of each lane in the order of their parking, due the DUE
 *   ones in the order in which they became so. WAITING ones are in the heap unless their time is
 *   HS_NEVER; nothing else is. Those with a since_ns are in the ages of their lane, too.
 * - Descriptors are armed once (EPOLLONESHOT): what has said something is silent until it is parked
 *   again. An event names slot and generation; parking counts the generation up, so that the event
 *   of an earlier time, which another thread may still have in its hands, is nothing.
 * - Only who owns it arms a descriptor, under the lock and before it is WAITING to others: so no
 *   number is armed that a next owner has closed.
 * - The timer fires at the earliest of the heap or before. When the kernel does not take a time,
 *   what was to be parked is refused, and after it has fired all that waits is due: who parks again
 *   tries again.
 * - If something is due and somebody sleeps, the eventfd has been rung since, or the kernel has
 *   woken somebody who has not looked yet. The one who takes one and leaves others rings on: one
 *   ring is enough for several.
 * - watched: who polls has found nothing and waits for our epoll descriptor, which is readable
 *   while the kernel has an event that nobody took. Ringing makes one. Any other look may take it,
 *   which is why one ring is not enough: the one who leaves something due rings until it was
 *   polled.
 *
 * - lost: the program has closed our descriptors behind our back (own_fd.h), which is found out
 *   when one is used, or by an event that is none of ours. All that waited is due, nothing is
 *   parked any more, and who asks for the next is told once nothing is due. Nobody sleeps then.
 *
 * Threads sleep in epoll_wait(2) for one event each: the kernel wakes one for each event, the last
 * to come first, and another if more is ready. The timer and the eventfd are edge-triggered for the
 * same reason. Nobody hands anything over to another thread while there is somebody awake.
 */
#include "reactor.h"

#include "timerfd.h"
#include "wait.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define REACTOR_MAGIC 0x70c34ea7U
#define FREED 0x7a
#define BATCH 64
/* In the place of a slot's index, of which none is so large: our own two descriptors. */
#define RINGING UINT32_MAX
#define TIMER (UINT32_MAX - 1)
/* The salt is above this, as in loop.c. */
#define GENERATION_BITS 12

enum state { OWNED, WAITING, DUE };

struct slot {
    struct hs_parked *parked; /* NULL: free */
    uint32_t generation;      /* not UINT32_MAX: see above */
    bool added;               /* its descriptor has been put into the set */
};

struct hs_reactor {
    unsigned magic;
    unsigned fork_generation;
    struct hs_own_fd epoll, ring; /* own */
    uint32_t salt;                /* where the generations of its slots begin */
    struct hs_lock lock;
    /* All below are guarded by lock. */
    bool lost;
    struct hs_own_look look; /* whether its descriptors are there */
    struct slot *slots;      /* own */
    uint32_t *free_slots;    /* own; a stack, of room for all */
    size_t n_slots, n_free;
    struct hs_timers timers, ages[HS_LANES];
    struct hs_timerfd timer;               /* own */
    struct hs_list waiting[HS_LANES], due; /* hs_parked.link */
    struct hs_reactor_counts counts;
    bool closed, watched;
};

/* ---- Life ---------------------------------------------------------------------------------- */

static hs_err
reactor_open_descriptors(struct hs_reactor *r, struct hs_error *err)
{
    uint64_t salt = (uint64_t)r->salt << 32;
    struct epoll_event timer = {.events = EPOLLIN | EPOLLET, .data.u64 = salt | TIMER};
    struct epoll_event ring = {.events = EPOLLIN | EPOLLET, .data.u64 = salt | RINGING};
    hs_err rv;

    if (!hs_own_fd_open(&r->epoll, hs_sys_epoll_create1(EPOLL_CLOEXEC)))
        return hs_err_set(err, HS_E_SYSTEM, errno, "reactor", "epoll_create1");
    if ((rv = hs_timerfd_open(&r->timer, "reactor", err)) != HS_OK)
        return rv;
    if (!hs_own_fd_open(&r->ring, hs_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)))
        return hs_err_set(err, HS_E_SYSTEM, errno, "reactor", "eventfd");
    if (hs_sys_epoll_ctl(r->epoll.number, EPOLL_CTL_ADD, r->timer.fd.number, &timer) != 0 ||
        hs_sys_epoll_ctl(r->epoll.number, EPOLL_CTL_ADD, r->ring.number, &ring) != 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, "reactor", "epoll_ctl");
    return HS_OK;
}

hs_err
hs_reactor_new(struct hs_error *err, struct hs_reactor **ret_r)
{
    static _Atomic uint32_t made;
    struct hs_reactor *r = hs_sys_calloc(1, sizeof(*r));
    hs_err rv;

    if (r == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "reactor", "no memory for a reactor");
    r->magic = REACTOR_MAGIC;
    r->fork_generation = hs_fork_generation();
    r->epoll = r->ring = HS_OWN_FD_NONE;
    r->salt =
        (atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) << GENERATION_BITS) & INT32_MAX;
    r->timer = (struct hs_timerfd)HS_TIMERFD_INIT;
    for (unsigned lane = 0; lane < HS_LANES; lane++)
        hs_list_init(&r->waiting[lane]);
    hs_list_init(&r->due);
    hs_lock_init(&r->lock, HS_RANK_REACTOR);
    if ((rv = reactor_open_descriptors(r, err)) != HS_OK)
        hs_reactor_free(r);
    else
        *ret_r = r;
    return rv;
}

static bool
reactor_is_ours(const struct hs_reactor *r)
{
    return r->fork_generation == hs_fork_generation();
}

void
hs_reactor_free(struct hs_reactor *r)
{
    if (r == NULL)
        return;
    HS_CHECK(r, REACTOR_MAGIC);
    HS_ASSERT(!reactor_is_ours(r) || (r->counts.waiting == 0 && r->counts.due == 0));
    HS_ASSERT(!reactor_is_ours(r) || r->counts.sleeping == 0);
    hs_own_fd_close(&r->epoll);
    hs_timerfd_close(&r->timer);
    hs_own_fd_close(&r->ring);
    hs_timers_fini(&r->timers);
    for (unsigned lane = 0; lane < HS_LANES; lane++)
        hs_timers_fini(&r->ages[lane]);
    free(r->slots);
    free(r->free_slots);
    if (reactor_is_ours(r))
        hs_lock_fini(&r->lock);
    memset(r, FREED, sizeof(*r));
    free(r);
}

int
hs_reactor_fileno(const struct hs_reactor *r)
{
    HS_CHECK(r, REACTOR_MAGIC);
    return r->epoll.number;
}

static hs_err
reactor_refuse_lost(struct hs_error *err)
{
    return hs_err_set(err, HS_E_SYSTEM, EBADF, "reactor",
                      "the program has closed the descriptors that are waited with");
}

hs_err
hs_reactor_check(struct hs_reactor *r, struct hs_error *err)
{
    bool lost;

    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return HS_OK;
    hs_lock_take(&r->lock);
    lost = r->lost;
    hs_lock_drop(&r->lock);
    return lost ? reactor_refuse_lost(err) : HS_OK;
}

static hs_err
refuse_forked(struct hs_error *err)
{
    return hs_err_setx(err, HS_E_FORKED, "reactor", "%s", hs_err_text(HS_E_FORKED));
}

/* ---- Changing hands ------------------------------------------------------------------------ */

static void
stop_waiting_locked(struct hs_reactor *r, struct hs_parked *p)
{
    hs_list_unlink(&p->link);
    hs_timers_remove(&r->timers, &p->timer);
    hs_timers_remove(&r->ages[p->lane], &p->age);
    r->counts.waiting--;
    p->state = OWNED;
}

static void
become_due_locked(struct hs_reactor *r, struct hs_parked *p, enum hs_cause cause)
{
    if (p->state == WAITING)
        stop_waiting_locked(r, p);
    p->state = DUE;
    p->cause = (unsigned char)cause;
    hs_list_append(&r->due, &p->link);
    r->counts.due++;
}

static void
wait_locked(struct hs_reactor *r, struct hs_parked *p, int64_t at_ns)
{
    p->state = WAITING;
    HS_ASSERT(p->lane < HS_LANES);
    hs_list_append(&r->waiting[p->lane], &p->link);
    hs_timers_set(&r->timers, &p->timer, at_ns);
    hs_timers_set(&r->ages[p->lane], &p->age, p->since_ns != 0 ? p->since_ns : HS_NEVER);
    r->counts.waiting++;
}

static void
all_due_locked(struct hs_reactor *r)
{
    for (unsigned lane = 0; lane < HS_LANES; lane++)
        while (!hs_list_empty(&r->waiting[lane]))
            become_due_locked(r, HS_CONTAINER(r->waiting[lane].next, struct hs_parked, link),
                              HS_CAUSE_CALLED);
}

static void
reactor_lose_locked(struct hs_reactor *r)
{
    r->lost = true;
    all_due_locked(r);
}

/* To be asked before something is put into the set, and when it says what it should not. */
static bool
reactor_has_set_locked(struct hs_reactor *r)
{
    if (!r->lost && !hs_own_fd_is_there(&r->epoll))
        reactor_lose_locked(r);
    return !r->lost;
}

static bool
reactor_has_all_locked(struct hs_reactor *r)
{
    if (reactor_has_set_locked(r) &&
        (!hs_own_fd_is_there(&r->timer.fd) || !hs_own_fd_is_there(&r->ring)))
        reactor_lose_locked(r);
    return !r->lost;
}

static void
reactor_look_locked(struct hs_reactor *r)
{
    if (!r->lost && hs_own_look_is_due(&r->look))
        (void)reactor_has_all_locked(r);
}

/* Whether the caller has to ring once it has dropped the lock. */
static bool
needs_ring_locked(const struct hs_reactor *r)
{
    return (r->counts.sleeping > 0 || r->watched) && (r->counts.due > 0 || r->closed) && !r->lost;
}

static void
drop_and_ring(struct hs_reactor *r)
{
    bool ring = needs_ring_locked(r);

    hs_lock_drop(&r->lock);
    if (!ring || hs_own_fd_ring(&r->ring))
        return;
    hs_lock_take(&r->lock);
    reactor_lose_locked(r); /* Those asleep find out at the end of their slice. */
    hs_lock_drop(&r->lock);
}

/* ---- Places and times ---------------------------------------------------------------------- */

static bool
grow_locked(struct hs_reactor *r)
{
    size_t n = r->n_slots == 0 ? 64 : 2 * r->n_slots;
    struct slot *slots;
    uint32_t *stack;

    if ((stack = hs_sys_realloc(r->free_slots, n * sizeof(*stack))) == NULL)
        return false;
    r->free_slots = stack;
    if ((slots = hs_sys_realloc(r->slots, n * sizeof(*slots))) == NULL)
        return false;
    r->slots = slots;
    memset(slots + r->n_slots, 0, (n - r->n_slots) * sizeof(*slots));
    while (r->n_slots < n)
        stack[r->n_free++] = (uint32_t)r->n_slots++;
    return true;
}

static struct slot *
reactor_slot_of_locked(struct hs_reactor *r, struct hs_parked *p)
{
    struct slot *slot;

    if (p->slot == 0) {
        if (r->n_free == 0 && !grow_locked(r))
            return NULL;
        p->slot = r->free_slots[--r->n_free] + 1;
        p->timer = p->age = (struct hs_timer)HS_TIMER_INIT;
        slot = &r->slots[p->slot - 1];
        slot->parked = p;
        slot->added = false;
        if (slot->generation == 0)
            slot->generation = r->salt;
        return slot;
    }
    return &r->slots[p->slot - 1];
}

/* Only asked of who owns p, so that fd is still its own. */
static hs_err
reactor_arm_locked(struct hs_reactor *r, struct slot *slot, const struct hs_parked *p, int fd,
                   uint32_t events, struct hs_error *err)
{
    struct epoll_event ev = {.events = events | EPOLLONESHOT};
    int ops[] = {slot->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
                 slot->added ? EPOLL_CTL_ADD : EPOLL_CTL_MOD};
    int expected = slot->added ? ENOENT : EEXIST;

    /* A change in another's set fails, and changes nothing. */
    if (!slot->added && !reactor_has_set_locked(r))
        return reactor_refuse_lost(err);

    ev.data.u64 = (uint64_t)slot->generation << 32 | (p->slot - 1);
    if (hs_sys_epoll_ctl(r->epoll.number, ops[0], fd, &ev) == 0 ||
        (errno == expected && reactor_has_set_locked(r) &&
         hs_sys_epoll_ctl(r->epoll.number, ops[1], fd, &ev) == 0)) {
        slot->added = true;
        return HS_OK;
    }
    if (r->lost)
        return reactor_refuse_lost(err);
    return hs_err_set(err, errno == ENOMEM ? HS_E_NOMEM : HS_E_SYSTEM, errno, "reactor",
                      "epoll_ctl");
}

static hs_err
park_locked(struct hs_reactor *r, struct hs_parked *p, int fd, uint32_t events, int64_t at_ns,
            struct hs_error *err)
{
    struct slot *slot;
    hs_err rv;
    int sys;

    if (r->lost)
        return reactor_refuse_lost(err);
    if (!hs_timers_reserve(&r->timers) || !hs_timers_reserve(&r->ages[p->lane]) ||
        (slot = reactor_slot_of_locked(r, p)) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "reactor", "no memory to wait");
    HS_ASSERT(slot->parked == p && p->state == OWNED);
    slot->generation = (slot->generation + 1) & INT32_MAX;
    if (fd >= 0 && (rv = reactor_arm_locked(r, slot, p, fd, events, err)) != HS_OK)
        return rv;
    if ((sys = hs_timerfd_set(&r->timer, at_ns)) == EBADF) {
        reactor_lose_locked(r);
        return reactor_refuse_lost(err);
    }
    if (sys != 0)
        return hs_err_set(err, HS_E_SYSTEM, sys, "reactor", "timerfd_settime");
    wait_locked(r, p, at_ns);
    return HS_OK;
}

hs_err
hs_reactor_park(struct hs_reactor *r, struct hs_parked *p, int fd, uint32_t events, int64_t at_ns,
                struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return refuse_forked(err);
    hs_lock_take(&r->lock);
    rv = park_locked(r, p, fd, events, at_ns, err);
    hs_lock_drop(&r->lock);
    return rv;
}

void
hs_reactor_forget(struct hs_reactor *r, struct hs_parked *p)
{
    HS_CHECK(r, REACTOR_MAGIC);
    if (p->slot == 0 || !reactor_is_ours(r))
        return;
    hs_lock_take(&r->lock);
    HS_ASSERT(p->state == OWNED && r->slots[p->slot - 1].parked == p);
    r->slots[p->slot - 1].parked = NULL;
    r->free_slots[r->n_free++] = p->slot - 1;
    p->slot = 0;
    hs_lock_drop(&r->lock);
}

void
hs_reactor_leave(struct hs_reactor *r, struct hs_parked *p, int fd)
{
    HS_CHECK(r, REACTOR_MAGIC);
    if (p->slot != 0 && fd >= 0 && reactor_is_ours(r))
        hs_own_fd_unwatch(&r->epoll, fd);
    hs_reactor_forget(r, p);
}

/* ---- What the kernel has ------------------------------------------------------------------- */

static void
collect_expired_locked(struct hs_reactor *r)
{
    int64_t now = hs_now();
    struct hs_timer *timer;
    bool heard = hs_timerfd_heard(&r->timer);
    int sys;

    while ((timer = hs_timers_expired(&r->timers, now)) != NULL)
        become_due_locked(r, HS_CONTAINER(timer, struct hs_parked, timer), HS_CAUSE_TIME);
    sys = hs_timerfd_set(&r->timer, hs_timers_earliest(&r->timers));
    if (!heard || sys == EBADF)
        reactor_lose_locked(r);
    else if (sys != 0)
        all_due_locked(r);
}

/* One that is not of this time of a slot may be none of ours: then we are lost. */
static void
hear_locked(struct hs_reactor *r, const struct epoll_event *ev)
{
    uint32_t which = (uint32_t)ev->data.u64;
    uint64_t generation = ev->data.u64 >> 32;

    struct hs_parked *parked = which < r->n_slots ? r->slots[which].parked : NULL;

    if (parked != NULL && r->slots[which].generation == generation) {
        if (parked->state != WAITING)
            return;
        parked->events = ev->events;
        become_due_locked(r, parked, HS_CAUSE_READY);
    } else if (which == TIMER && generation == r->salt) {
        collect_expired_locked(r);
    } else if (which != RINGING || generation != r->salt) {
        (void)reactor_has_set_locked(r);
    }
}

/* How many the kernel had; less than 0, and errno: it does not say, though the set is ours. */
static int
collect_locked(struct hs_reactor *r, int at_most)
{
    struct epoll_event events[BATCH];
    int n = r->lost ? 0 : hs_sys_epoll_wait(r->epoll.number, events, at_most, 0), sys = errno;

    for (int i = 0; i < n && !r->lost; i++)
        hear_locked(r, &events[i]);
    if (n < 0 && !reactor_has_set_locked(r))
        return 0;
    errno = sys;
    return n;
}

/* After that who polls must not wait: the descriptor is readable, and it would go round. */
static hs_err
refuse_unheard(struct hs_error *err)
{
    return errno == EINTR ? HS_INTR : hs_err_set(err, HS_E_SYSTEM, errno, "reactor", "epoll_wait");
}

void
hs_reactor_collect(struct hs_reactor *r)
{
    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return;
    hs_lock_take(&r->lock);
    (void)collect_locked(r, BATCH);
    drop_and_ring(r);
}

void
hs_reactor_queue(struct hs_reactor *r, struct hs_parked *p)
{
    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return;
    hs_lock_take(&r->lock);
    HS_ASSERT(p->state == OWNED);
    (void)collect_locked(r, BATCH); /* Others first, even if this one comes again and again. */
    become_due_locked(r, p, HS_CAUSE_CALLED);
    drop_and_ring(r);
}

void
hs_reactor_call(struct hs_reactor *r, struct hs_parked *p)
{
    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return;
    hs_lock_take(&r->lock);
    if (p->state == WAITING)
        become_due_locked(r, p, HS_CAUSE_CALLED);
    drop_and_ring(r);
}

void
hs_reactor_call_all(struct hs_reactor *r)
{
    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return;
    hs_lock_take(&r->lock);
    all_due_locked(r);
    drop_and_ring(r);
}

/* NULL: none waits in the lane. */
static struct hs_parked *
first_of_locked(struct hs_reactor *r, unsigned lane)
{
    if (r->ages[lane].n > 0)
        return HS_CONTAINER(r->ages[lane].heap[0], struct hs_parked, age);
    if (!hs_list_empty(&r->waiting[lane]))
        return HS_CONTAINER(r->waiting[lane].next, struct hs_parked, link);
    return NULL;
}

struct hs_parked *
hs_reactor_take(struct hs_reactor *r, unsigned lane,
                bool (*fits)(const struct hs_parked *p, const void *arg), const void *arg)
{
    struct hs_parked *p;

    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return NULL;
    hs_lock_take(&r->lock);
    if ((p = first_of_locked(r, lane)) != NULL) {
        if (fits == NULL || fits(p, arg))
            stop_waiting_locked(r, p);
        else
            p = NULL;
    }
    hs_lock_drop(&r->lock);
    return p;
}

bool
hs_reactor_take_this(struct hs_reactor *r, struct hs_parked *p)
{
    bool waits;

    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return false;
    hs_lock_take(&r->lock);
    waits = p->state == WAITING;
    if (waits)
        stop_waiting_locked(r, p);
    hs_lock_drop(&r->lock);
    return waits;
}

bool
hs_reactor_waits(struct hs_reactor *r, const struct hs_parked *p)
{
    bool waits;

    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return false;
    hs_lock_take(&r->lock);
    waits = p->state == WAITING;
    hs_lock_drop(&r->lock);
    return waits;
}

int64_t
hs_reactor_earliest(struct hs_reactor *r, unsigned lane)
{
    int64_t earliest;

    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return HS_NEVER;
    hs_lock_take(&r->lock);
    earliest = hs_timers_earliest(&r->ages[lane]);
    hs_lock_drop(&r->lock);
    return earliest;
}

size_t
hs_reactor_count(struct hs_reactor *r, unsigned lane)
{
    size_t n;

    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return 0;
    hs_lock_take(&r->lock);
    n = r->ages[lane].n;
    hs_lock_drop(&r->lock);
    return n;
}

/* ---- Waiting ------------------------------------------------------------------------------- */

/* HS_WANT: nothing is due; then the lock is still held. */
static hs_err
take_due_locked(struct hs_reactor *r, struct hs_error *err, struct hs_parked **ret_p)
{
    struct hs_parked *p;

    if (r->counts.due == 0 && !r->closed)
        reactor_look_locked(r);
    if (r->counts.due > 0) {
        p = HS_CONTAINER(r->due.next, struct hs_parked, link);
        hs_list_unlink(&p->link);
        r->counts.due--;
        p->state = OWNED;
        drop_and_ring(r);
        *ret_p = p;
        return HS_OK;
    }
    if (!r->closed && !r->lost)
        return HS_WANT;
    drop_and_ring(r);
    return r->closed ? hs_err_setx(err, HS_E_CLOSED, "reactor", "it was closed")
                     : reactor_refuse_lost(err);
}

static hs_err
reactor_sleep_locked(struct hs_reactor *r, struct hs_error *err)
{
    struct epoll_event ev;
    hs_err rv;

    r->counts.sleeping++;
    hs_lock_drop(&r->lock);
    rv = hs_wait_epoll(r->epoll.number, &ev, err);
    hs_lock_take(&r->lock);
    r->counts.sleeping--;
    if (rv == HS_OK)
        hear_locked(r, &ev);
    else if (!reactor_has_all_locked(r))
        return HS_OK; /* All that waited is due. */
    return rv;
}

hs_err
hs_reactor_next(struct hs_reactor *r, bool wait, struct hs_error *err, struct hs_parked **ret_p)
{
    hs_err rv, slept;

    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return refuse_forked(err);
    hs_lock_take(&r->lock);
    if (!wait)
        (void)collect_locked(r, BATCH);
    while ((rv = take_due_locked(r, err, ret_p)) == HS_WANT && wait)
        if ((slept = reactor_sleep_locked(r, err)) != HS_OK) {
            drop_and_ring(r); /* The ring that woke nobody else may have been for us. */
            return slept;
        }
    if (rv == HS_WANT)
        hs_lock_drop(&r->lock);
    return rv;
}

hs_err
hs_reactor_poll(struct hs_reactor *r, struct hs_error *err, struct hs_parked **ret_p)
{
    hs_err rv;

    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return refuse_forked(err);
    hs_lock_take(&r->lock);
    r->watched = false;
    if (r->counts.due == 0 && collect_locked(r, BATCH) < 0) {
        rv = refuse_unheard(err);
        drop_and_ring(r);
        return rv;
    }
    if ((rv = take_due_locked(r, err, ret_p)) == HS_WANT) {
        r->watched = true;
        hs_lock_drop(&r->lock);
    }
    return rv;
}

hs_err
hs_reactor_poll_any(struct hs_reactor *r, struct hs_error *err, struct hs_parked **ret_p)
{
    hs_err rv;
    int n = 0;

    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return refuse_forked(err);
    hs_lock_take(&r->lock);
    r->watched = true;
    while (r->counts.due == 0 && (n = collect_locked(r, 1)) > 0) /* The rest is for others. */
        continue;
    if (n < 0) {
        rv = refuse_unheard(err);
        drop_and_ring(r);
        return rv;
    }
    if ((rv = take_due_locked(r, err, ret_p)) == HS_WANT)
        hs_lock_drop(&r->lock);
    return rv;
}

void
hs_reactor_close(struct hs_reactor *r)
{
    HS_CHECK(r, REACTOR_MAGIC);
    if (!reactor_is_ours(r))
        return;
    hs_lock_take(&r->lock);
    r->closed = true;
    drop_and_ring(r);
}

void
hs_reactor_counts(struct hs_reactor *r, struct hs_reactor_counts *ret_counts)
{
    *ret_counts = (struct hs_reactor_counts){0};
    if (!reactor_is_ours(r))
        return;
    hs_lock_take(&r->lock);
    *ret_counts = r->counts;
    hs_lock_drop(&r->lock);
}
