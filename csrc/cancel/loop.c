/* loop.c: all that the stepped ops of one event loop wait for, behind one descriptor.
 *
 * That descriptor is an epoll set. In it: the sockets that ops have waited for, edge-triggered, put
 * in once and left there (the one who reads tries first, or asks whether there was an edge that
 * nobody waited for, so that none is lost); one timerfd for the earliest time; the eventfd that
 * other threads ring. So a call that waits costs no system call here, whatever loop drives it, and
 * a loop with ten thousand connections watches one descriptor.
 *
 * A socket leaves the set by itself when it is closed. Its number may come back for another one, so
 * the slot of each number knows whose it is (op->want_id) and counts generations: events of former
 * owners, which a copy of the socket in another process can still cause (epoll(7), question 6), are
 * dropped. If the owner changes while somebody waits, the waiter is due: it will find out.
 *
 * Threads: everything belongs to the loop's thread, but for `woken`. loop_waiter_wake runs in
 * others, under the lock of a wake list that the waiter listens to, and takes the loop's lock
 * inside. So once a waiter has left its lists and then, under the loop's lock, the woken list,
 * nobody else knows it.
 *
 * The program may close our three descriptors behind our back (own_fd.h). Then the loop is lost: it
 * is found out when one of them is used, by an event that is none of ours, or by a look that is
 * taken once a second. All that is parked is due, so that nobody waits for what cannot come, and
 * parking fails, so that nobody goes round. Its events carry the loop's salt, for the number may be
 * that of another loop by then.
 *
 * Times: a heap of parked waiters. The timerfd is set only when the earliest time becomes
 * earlier than what it is set to; it may fire for a waiter that has left, and is then set anew. An
 * op that is over before its deadline costs no system call.
 */
#include "loop.h"

#include "hardsock_binding.h"

#include "timerfd.h"
#include "timers.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define LOOP_MAGIC 0x70c310b0U
#define WAITER_MAGIC 0x70c3be11U
#define LOOP_FREED 0x75
#define WAITER_FREED 0x76
/* In the place of a number, of which none is so large: the two descriptors of our own, and the one
 * of others that the set was given. */
#define RINGING UINT32_MAX
#define TIMER (UINT32_MAX - 1)
#define OTHERS (UINT32_MAX - 2)
#define LOOP_BATCH 128
/* The salt is above this: a slot that changes hands more often may have another loop's. */
#define GENERATION_BITS 12

struct slot { /* of one descriptor number */
    uint64_t owner;
    uint32_t generation;
    bool heard; /* that something can be read, when nobody waited to read */
    bool ended; /* the peer's stream, or it has sent urgent data: then a short try says nothing */
    struct hs_list parked; /* hs_loop_waiter.parked */
};

struct hs_loop {
    unsigned magic;
    unsigned fork_generation;
    struct hs_own_fd epoll; /* own */
    uint32_t salt;          /* where the generations of its slots begin */
    bool lost;
    bool others;            /* their descriptor was ready, when the kernel was asked last */
    bool unheard;           /* the kernel did not say what is ready, when it was asked last */
    struct hs_waker *waker; /* owns: a reference */
    struct slot **slots;    /* own; by number, made on first use: lists must not move */
    size_t n_slots;
    struct hs_timers timers; /* hs_loop_waiter.timer */
    struct hs_timerfd timer; /* own; in the set, for the earliest of them */
    struct hs_list due;
    struct hs_own_look look; /* whether its descriptors are there */
    int n_heard;             /* -1: the kernel does not say */
    struct epoll_event heard[LOOP_BATCH];
    struct hs_lock lock;
    /* All below are guarded by lock: waiters are made and freed in other threads, too. */
    struct hs_list all;   /* hs_loop_waiter.all */
    struct hs_list woken; /* hs_loop_waiter.woken */
};

struct hs_loop_waiter {
    unsigned magic;
    short events;
    struct hs_loop *loop;
    void *arg;
    struct hs_wakelist *lists[HS_LISTEN_SOURCES]; /* NULL: not listening */
    struct hs_wakenode nodes[HS_LISTEN_SOURCES];
    struct hs_list all;    /* guarded by loop->lock */
    struct hs_list parked; /* in a slot, or alone */
    struct hs_list due;
    struct hs_list woken; /* guarded by loop->lock */
    struct hs_timer timer;
    bool is_parked;
    int bad_fd; /* it was not open when this was parked for it: a second time is an error */
};

/* ---- Life ---------------------------------------------------------------------------------- */

static hs_err
watch_own(struct hs_loop *l, int fd, uint32_t which, struct hs_error *err)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = (uint64_t)l->salt << 32 | which};

    if (hs_sys_epoll_ctl(l->epoll.number, EPOLL_CTL_ADD, fd, &ev) != 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, "loop", "epoll_ctl");
    return HS_OK;
}

static hs_err
loop_open_descriptors(struct hs_loop *l, struct hs_error *err)
{
    hs_err rv;

    if (!hs_own_fd_open(&l->epoll, hs_sys_epoll_create1(EPOLL_CLOEXEC)))
        return hs_err_set(err, HS_E_SYSTEM, errno, "loop", "epoll_create1");
    if ((rv = hs_timerfd_open(&l->timer, "loop", err)) != HS_OK)
        return rv;
    if ((l->waker = hs_waker_new()) == NULL)
        return hs_err_set(err, HS_E_SYSTEM, errno, "loop", "eventfd");
    if ((rv = watch_own(l, l->timer.fd.number, TIMER, err)) != HS_OK)
        return rv;
    return watch_own(l, l->waker->efd.number, RINGING, err);
}

hs_err
hs_loop_new(struct hs_error *err, struct hs_loop **ret_loop)
{
    static _Atomic uint32_t made;
    struct hs_loop *l = hs_sys_calloc(1, sizeof(*l));
    hs_err rv;

    if (l == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "loop", "no memory for a loop");
    l->magic = LOOP_MAGIC;
    l->fork_generation = hs_fork_generation();
    l->epoll = HS_OWN_FD_NONE;
    l->salt = atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) << GENERATION_BITS;
    l->timer = (struct hs_timerfd)HS_TIMERFD_INIT;
    hs_list_init(&l->due);
    hs_list_init(&l->all);
    hs_list_init(&l->woken);
    hs_lock_init(&l->lock, HS_RANK_LOOP);
    if ((rv = loop_open_descriptors(l, err)) != HS_OK) {
        hs_loop_free(l);
        return rv;
    }
    *ret_loop = l;
    return HS_OK;
}

static bool
loop_is_ours(const struct hs_loop *l)
{
    return l->fork_generation == hs_fork_generation();
}

void
hs_loop_free(struct hs_loop *l)
{
    if (l == NULL)
        return;
    HS_CHECK(l, LOOP_MAGIC);
    HS_ASSERT(hs_list_empty(&l->all) || !loop_is_ours(l));
    hs_own_fd_close(&l->epoll);
    hs_timerfd_close(&l->timer);
    if (l->waker != NULL)
        hs_waker_unref(l->waker);
    for (size_t i = 0; i < l->n_slots; i++)
        free(l->slots[i]);
    free(l->slots);
    hs_timers_fini(&l->timers);
    if (loop_is_ours(l)) /* A thread that is not in the forked child may have held it. */
        hs_lock_fini(&l->lock);
    memset(l, LOOP_FREED, sizeof(*l));
    free(l);
}

int
hs_loop_fileno(const struct hs_loop *l)
{
    HS_CHECK(l, LOOP_MAGIC);
    return l->epoll.number;
}

bool
hs_loop_is_lost(const struct hs_loop *l)
{
    HS_CHECK(l, LOOP_MAGIC);
    return l->lost;
}

bool
hs_loop_is_unheard(const struct hs_loop *l)
{
    HS_CHECK(l, LOOP_MAGIC);
    return l->unheard && !l->lost;
}

hs_err
hs_loop_waiter_new(struct hs_loop *l, void *arg, struct hs_error *err,
                   struct hs_loop_waiter **ret_waiter)
{
    struct hs_loop_waiter *b;

    HS_CHECK(l, LOOP_MAGIC);
    if ((b = hs_sys_calloc(1, sizeof(*b))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "loop", "no memory to wait");
    b->magic = WAITER_MAGIC;
    b->loop = l;
    b->arg = arg;
    b->timer = (struct hs_timer)HS_TIMER_INIT;
    b->bad_fd = -1;
    hs_list_init(&b->all);
    hs_list_init(&b->parked);
    hs_list_init(&b->due);
    hs_list_init(&b->woken);
    if (loop_is_ours(l)) { /* Else somebody who is not in this process may hold the lock. */
        hs_lock_take(&l->lock);
        hs_list_append(&l->all, &b->all);
        hs_lock_drop(&l->lock);
    }
    *ret_waiter = b;
    return HS_OK;
}

void
hs_loop_waiter_free(struct hs_loop_waiter *b)
{
    if (b == NULL)
        return;
    hs_loop_waiter_unpark(b);
    if (loop_is_ours(b->loop)) {
        hs_lock_take(&b->loop->lock);
        hs_list_unlink(&b->all);
        hs_lock_drop(&b->loop->lock);
    }
    memset(b, WAITER_FREED, sizeof(*b));
    free(b);
}

/* ---- Being woken --------------------------------------------------------------------------- */

/* Called under the lock of a wake list that the waiter listens to, which rings the waker then. */
static void
loop_waiter_wake(void *arg)
{
    struct hs_loop_waiter *b = arg;
    struct hs_loop *l = b->loop;

    hs_lock_take(&l->lock);
    if (hs_list_empty(&b->woken))
        hs_list_append(&l->woken, &b->woken);
    hs_lock_drop(&l->lock);
}

void
hs_loop_waiter_listen(struct hs_loop_waiter *b, enum hs_loop_source source,
                      struct hs_wakelist *list)
{
    HS_CHECK(b, WAITER_MAGIC);
    if (b->lists[source] == list)
        return;
    HS_ASSERT(b->lists[source] == NULL);
    b->lists[source] = list;
    hs_wakelist_join_for(list, &b->nodes[source], b->loop->waker, loop_waiter_wake, b);
}

static void
make_due(struct hs_loop_waiter *b)
{
    if (hs_list_empty(&b->due))
        hs_list_append(&b->loop->due, &b->due);
}

/* ---- Losing what it waits with ------------------------------------------------------------- */

static void
loop_all_due(struct hs_loop *l)
{
    hs_lock_take(&l->lock);
    for (struct hs_list *i = l->all.next; i != &l->all; i = i->next) {
        struct hs_loop_waiter *b = HS_CONTAINER(i, struct hs_loop_waiter, all);

        if (b->is_parked)
            make_due(b);
    }
    hs_lock_drop(&l->lock);
}

static void
loop_lose(struct hs_loop *l)
{
    l->lost = true;
    loop_all_due(l);
}

/* To be asked before something is put into the set, and when it says what it should not. */
static bool
loop_has_set(struct hs_loop *l)
{
    if (!l->lost && !hs_own_fd_is_there(&l->epoll))
        loop_lose(l);
    return !l->lost;
}

static bool
loop_has_all(struct hs_loop *l)
{
    if (loop_has_set(l) && (!hs_own_fd_is_there(&l->timer.fd) ||
                            !hs_own_fd_is_there(&l->waker->efd) || atomic_load(&l->waker->lost)))
        loop_lose(l);
    return !l->lost;
}

static bool
loop_look(struct hs_loop *l)
{
    if (!l->lost && atomic_load(&l->waker->lost))
        loop_lose(l);
    return !l->lost && (!hs_own_look_is_due(&l->look) || loop_has_all(l));
}

static hs_err
loop_refuse_lost(struct hs_error *err)
{
    return hs_err_set(err, HS_E_SYSTEM, EBADF, "loop",
                      "the program has closed the descriptors that this event loop waits with");
}

static void
collect_rung(struct hs_loop *l)
{
    hs_waker_drain(l->waker);
    if (atomic_load(&l->waker->lost))
        loop_lose(l);
    hs_lock_take(&l->lock);
    while (!hs_list_empty(&l->woken)) {
        struct hs_loop_waiter *b = HS_CONTAINER(l->woken.next, struct hs_loop_waiter, woken);

        hs_list_unlink(&b->woken);
        make_due(b);
    }
    hs_lock_drop(&l->lock);
}

/* ---- Times --------------------------------------------------------------------------------- */

static void
loop_expire(struct hs_loop *l)
{
    int64_t now = hs_now();
    struct hs_timer *timer;

    while ((timer = hs_timers_expired(&l->timers, now)) != NULL)
        make_due(HS_CONTAINER(timer, struct hs_loop_waiter, timer));
}

/* When the kernel does not take the next time, all look for themselves, and try when they park. */
static void
loop_collect_expired(struct hs_loop *l)
{
    bool heard = hs_timerfd_heard(&l->timer);
    int sys;

    loop_expire(l);
    sys = hs_timerfd_set(&l->timer, hs_timers_earliest(&l->timers));
    if (!heard || sys == EBADF)
        loop_lose(l);
    else if (sys != 0)
        loop_all_due(l);
}

/* ---- Descriptors --------------------------------------------------------------------------- */

static hs_err
loop_find_slot(struct hs_loop *l, int fd, struct hs_error *err, struct slot **ret_place)
{
    size_t n = (size_t)fd + 1, wanted = n > 2 * l->n_slots ? n : 2 * l->n_slots;
    struct slot **slots, *p;

    if (n > l->n_slots) {
        if ((slots = hs_sys_realloc(l->slots, wanted * sizeof(struct slot *))) == NULL)
            return hs_err_setx(err, HS_E_NOMEM, "loop", "no memory to wait");
        memset(slots + l->n_slots, 0, (wanted - l->n_slots) * sizeof(struct slot *));
        l->slots = slots;
        l->n_slots = wanted;
    }
    if ((p = l->slots[fd]) == NULL) {
        if ((p = hs_sys_calloc(1, sizeof(*p))) == NULL)
            return hs_err_setx(err, HS_E_NOMEM, "loop", "no memory to wait");
        p->generation = l->salt;
        hs_list_init(&p->parked);
        l->slots[fd] = p;
    }
    *ret_place = p;
    return HS_OK;
}

/* Outside of hs_loop_collect nothing else makes the loop look. */
static void
make_all_due(struct hs_loop *l, struct slot *p)
{
    if (hs_list_empty(&p->parked))
        return;
    for (struct hs_list *i = p->parked.next; i != &p->parked; i = i->next)
        make_due(HS_CONTAINER(i, struct hs_loop_waiter, parked));
    hs_waker_ring(l->waker);
}

static hs_err
loop_enter(struct hs_loop *l, int fd, uint64_t owner, struct slot *p, struct hs_error *err)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET};
    bool nameless;
    int sys;

    if (owner != 0 && p->owner == owner)
        return HS_OK;
    if (!loop_has_set(l))
        return loop_refuse_lost(err);
    nameless = owner == 0 && p->owner == 0;
    p->owner = 0;
    p->generation++;
    p->heard = p->ended = false; /* What is so now is told anew. */
    ev.data.u64 = (uint64_t)p->generation << 32 | (uint32_t)fd;
    if (hs_sys_epoll_ctl(l->epoll.number, EPOLL_CTL_ADD, fd, &ev) == 0) {
        make_all_due(l, p);
        p->owner = owner;
        return HS_OK;
    }
    /* It is the same file as before. Others who wait for it, nameless as well, hear what the kernel
     * says anew because of this; made due they would look, wait again, and do the same to us. */
    if (errno == EEXIST && hs_sys_epoll_ctl(l->epoll.number, EPOLL_CTL_MOD, fd, &ev) == 0) {
        if (!nameless)
            make_all_due(l, p);
        p->owner = owner;
        return HS_OK;
    }
    sys = errno;
    make_all_due(l, p);
    errno = sys;
    if (errno == EBADF || errno == EPERM)
        return HS_INTR; /* Closed since the step, by another thread; perhaps a file's by now. */
    return hs_err_set(err, errno == ENOMEM ? HS_E_NOMEM : HS_E_SYSTEM, errno, "loop", "epoll_ctl");
}

void
hs_loop_forget(struct hs_loop *l, int fd)
{
    HS_CHECK(l, LOOP_MAGIC);
    if (fd < 0 || (size_t)fd >= l->n_slots || l->slots[fd] == NULL || !loop_is_ours(l))
        return;
    make_all_due(l, l->slots[fd]);
    l->slots[fd]->owner = 0;
    l->slots[fd]->generation++;
    if (loop_has_set(l))
        (void)hs_sys_epoll_ctl(l->epoll.number, EPOLL_CTL_DEL, fd, NULL);
}

static short
poll_events(uint32_t events)
{
    short revents = 0;

    if ((events & (EPOLLIN | EPOLLRDHUP)) != 0)
        revents |= POLLIN;
    if ((events & EPOLLOUT) != 0)
        revents |= POLLOUT;
    if ((events & (EPOLLERR | EPOLLHUP)) != 0)
        revents |= POLLIN | POLLOUT;
    return revents;
}

/* False: it is of a former owner, or none of ours. */
static bool
collect_ready(struct hs_loop *l, uint64_t data, uint32_t events)
{
    size_t number = (uint32_t)data;
    struct slot *p = number < l->n_slots ? l->slots[number] : NULL;
    short revents = poll_events(events), waited_for = 0;

    if (p == NULL || p->generation != (uint32_t)(data >> 32))
        return false;
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)) != 0)
        p->ended = true;
    for (struct hs_list *i = p->parked.next; i != &p->parked; i = i->next) {
        struct hs_loop_waiter *b = HS_CONTAINER(i, struct hs_loop_waiter, parked);

        waited_for = (short)(waited_for | b->events);
        if ((b->events & revents) != 0)
            make_due(b);
    }
    if ((revents & ~waited_for & POLLIN) != 0)
        p->heard = true;
    return true;
}

bool
hs_loop_waiter_hears(const struct hs_loop_waiter *b, int fd, uint64_t id)
{
    const struct hs_loop *l = b->loop;
    const struct slot *p;

    HS_CHECK(b, WAITER_MAGIC);
    if (l->lost || !loop_is_ours(l) || fd < 0 || (size_t)fd >= l->n_slots)
        return false;
    p = l->slots[fd];
    return p != NULL && id != 0 && p->owner == id && !p->heard && !p->ended;
}

/* False: nothing of it is known here. */
static bool
loop_hear(struct hs_loop *l, const struct epoll_event *ev)
{
    uint32_t which = (uint32_t)ev->data.u64;

    if (which < OTHERS)
        return collect_ready(l, ev->data.u64, ev->events);
    if (ev->data.u64 >> 32 != l->salt)
        return false;
    if (which == OTHERS)
        l->others = true;
    else if (which == RINGING)
        collect_rung(l);
    else
        loop_collect_expired(l);
    return true;
}

/* ---- Driving ------------------------------------------------------------------------------- */

/* The descriptor was not open. Once is nothing: another thread may have closed it since the step,
 * and the next step finds that out. A step that wants it again has found out nothing. */
static hs_err
park_bad(struct hs_loop_waiter *b, int fd, struct hs_error *err)
{
    if (b->bad_fd == fd)
        return hs_err_set(err, HS_E_SYSTEM, EBADF, "loop",
                          "the program has closed a descriptor that is waited for");
    b->bad_fd = fd;
    return HS_OK;
}

hs_err
hs_loop_waiter_park(struct hs_loop_waiter *b, const struct hs_op *op, struct hs_error *err)
{
    struct hs_loop *l = b->loop;
    struct slot *p = NULL;
    hs_err rv = HS_OK;
    int sys;

    HS_CHECK(b, WAITER_MAGIC);
    if (!loop_is_ours(l))
        return hs_err_setx(err, HS_E_FORKED, "loop", "%s", hs_err_text(HS_E_FORKED));
    if (!hs_timers_reserve(&l->timers))
        return hs_err_setx(err, HS_E_NOMEM, "loop", "no memory to wait");
    if (!loop_look(l))
        return loop_refuse_lost(err);
    if (op->want_fd >= 0 && ((rv = loop_find_slot(l, op->want_fd, err, &p)) < 0 ||
                             (rv = loop_enter(l, op->want_fd, op->want_id, p, err)) < 0))
        return rv;
    if (rv == HS_OK)
        b->bad_fd = -1;
    else if ((rv = park_bad(b, op->want_fd, err)) == HS_OK) {
        make_due(b); /* It will find out what happened. */
        hs_waker_ring(l->waker);
    } else
        return rv;
    hs_timers_set(&l->timers, &b->timer, op->want_at_ns);
    if ((sys = hs_timerfd_set(&l->timer, hs_timers_earliest(&l->timers))) != 0) {
        hs_timers_remove(&l->timers, &b->timer);
        hs_list_unlink(&b->due);
        if (sys != EBADF)
            return hs_err_set(err, HS_E_SYSTEM, sys, "loop", "timerfd_settime");
        loop_lose(l);
        return loop_refuse_lost(err);
    }
    b->events = op->want_events;
    b->is_parked = true;
    if (p != NULL) {
        if ((op->want_events & POLLIN) != 0)
            p->heard = false; /* It has tried. */
        hs_list_append(&p->parked, &b->parked);
    }
    return HS_OK;
}

void
hs_loop_waiter_unpark(struct hs_loop_waiter *b)
{
    struct hs_loop *l = b->loop;

    HS_CHECK(b, WAITER_MAGIC);
    b->is_parked = false;
    hs_list_unlink(&b->parked);
    hs_list_unlink(&b->due);
    hs_timers_remove(&l->timers, &b->timer);
    if (!loop_is_ours(l))
        return; /* The lists are the parent's. */
    for (size_t i = 0; i < HS_LISTEN_SOURCES; i++)
        if (b->lists[i] != NULL) {
            hs_wakelist_leave(b->lists[i], &b->nodes[i]);
            b->lists[i] = NULL;
        }
    hs_lock_take(&l->lock);
    hs_list_unlink(&b->woken);
    hs_lock_drop(&l->lock);
}

static void
loop_take(struct hs_loop *l)
{
    l->unheard = l->n_heard < 0;
    l->others = false;
    for (int i = 0; i < l->n_heard; i++)
        if (!loop_hear(l, &l->heard[i]) && !loop_has_set(l))
            return;
    if (l->n_heard >= 0)
        (void)loop_look(l);
    else if (loop_has_all(l)) /* The kernel does not say, so all look for themselves. */
        loop_all_due(l);
}

void
hs_loop_collect(struct hs_loop *l)
{
    HS_CHECK(l, LOOP_MAGIC);
    if (!loop_is_ours(l))
        return; /* The set is the parent's: its events are not ours to take. */
    if (l->lost)
        return;
    hs_loop_sleep(l, 0);
    loop_take(l);
}

bool
hs_loop_may_sleep(struct hs_loop *l, int *ms)
{
    HS_CHECK(l, LOOP_MAGIC);
    if (!loop_is_ours(l) || (!loop_look(l) && hs_list_empty(&l->due)))
        return false;
    if (!hs_list_empty(&l->due))
        *ms = 0;
    return true;
}

void
hs_loop_sleep(struct hs_loop *l, int ms)
{
    l->n_heard = 0;
    if (l->lost) /* The number may be that of another set, whose events are not ours to take. */
        return;
    l->n_heard = hs_sys_epoll_wait(l->epoll.number, l->heard, LOOP_BATCH, ms);
    if (l->n_heard < 0 && errno == EINTR)
        l->n_heard = 0;
}

void
hs_loop_slept(struct hs_loop *l, bool *ret_due, bool *ret_others)
{
    HS_CHECK(l, LOOP_MAGIC);
    if (!l->lost)
        loop_take(l);
    *ret_due = !hs_list_empty(&l->due) || l->unheard;
    *ret_others = l->others;
}

void
hs_loop_ring(struct hs_loop *l)
{
    HS_CHECK(l, LOOP_MAGIC);
    hs_waker_ring(l->waker);
}

hs_err
hs_loop_take_others(struct hs_loop *l, int fd, struct hs_error *err)
{
    struct epoll_event back = {.events = EPOLLIN, .data.fd = l->epoll.number}; /* as selectors do */
    bool was_there;
    hs_err rv;

    HS_CHECK(l, LOOP_MAGIC);
    if (!loop_is_ours(l))
        return hs_err_setx(err, HS_E_FORKED, "loop", "%s", hs_err_text(HS_E_FORKED));
    if (!loop_has_set(l))
        return loop_refuse_lost(err);
    /* No two watch each other, so it has to go first; and where it cannot be so, it comes back. */
    was_there = hs_sys_epoll_ctl(fd, EPOLL_CTL_DEL, l->epoll.number, NULL) == 0;
    if ((rv = watch_own(l, fd, OTHERS, err)) != HS_OK && was_there)
        (void)hs_sys_epoll_ctl(fd, EPOLL_CTL_ADD, l->epoll.number, &back);
    return rv;
}

void
hs_loop_leave_others(struct hs_loop *l, int fd)
{
    HS_CHECK(l, LOOP_MAGIC);
    if (loop_is_ours(l) && loop_has_set(l))
        (void)hs_sys_epoll_ctl(l->epoll.number, EPOLL_CTL_DEL, fd, NULL);
}

void *
hs_loop_next(struct hs_loop *l)
{
    struct hs_loop_waiter *b;

    HS_CHECK(l, LOOP_MAGIC);
    if (hs_list_empty(&l->due))
        return NULL;
    b = HS_CONTAINER(l->due.next, struct hs_loop_waiter, due);
    hs_loop_waiter_unpark(b);
    return b->arg;
}
