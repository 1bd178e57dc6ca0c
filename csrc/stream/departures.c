/* departures.c: see departures.h.
 *
 * Invariants:
 * - slots is indexed by descriptor number, and guarded by lock (rank DEPARTURES). A slot with a
 *   token is taken: conn is the connection whose descriptor it is, which has not been freed, since
 *   hs_conn_unref leaves first. Its owner and generation tell it from former and later ones of the
 *   same number.
 * - An event names the generation of its slot: what comes late for a former owner is dropped.
 * - A connection is put into the set when it has been here for young_ns: most handlers are over by
 *   then, and have cost no system call. Nothing is lost: what has happened meanwhile is told when
 *   it is put in. young lists, in the order of their times, at least all that are to be put in;
 *   those that have left or were put in since are skipped. While it lists any the timer is set to
 *   the first or to an earlier time.
 * - A token is taken out of its slot under the lock and cancelled outside. Before that c->left is
 *   set to its id: calls on the connection itself find out for themselves, and raise what is true.
 *
 * The set is edge-triggered. RST, a keepalive that gave up and a peer that closed a unix socket
 * without reading all set the socket's error: EPOLLERR. That error is not asked for, since the
 * kernel tells it once, to the one who asks; it is the connection's. EPOLLERR alone may also be a
 * message in the error queue, so the state of a TCP has to be CLOSE; and a call may have taken the
 * error away, so that state alone will do, unless our own end explains it (see check_end).
 */
#include "departures.h"

#include "conn_impl.h"
#include "../base/sys.h"
#include "../base/time.h"
#include "../cancel/timerfd.h"
#include "../cancel/token.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEPARTURES_MAGIC 0x70c3de9aU
#define FREED 0x7b
#define ROUNDS 64
/* In the data of the timer's events. */
#define TIMER UINT64_MAX

struct slot {
    uint64_t owner;         /* hs_fd.id */
    struct hs_conn *conn;   /* borrows; see above */
    struct hs_token *token; /* owns; NULL: the slot is free */
    uint32_t generation;
    bool armed;  /* it is in the set */
    bool by_end; /* the end of the peer's stream counts, too */
};

struct young {
    int64_t at_ns;
    uint32_t fd, generation;
};

struct hs_departures {
    unsigned magic;
    unsigned fork_generation;
    atomic_int refs;
    struct hs_own_fd epoll; /* own; goes once, under lock, by who tends it; timer with it */
    int64_t young_ns;
    struct hs_lock lock;
    /* All below are guarded by lock. */
    struct slot *slots; /* own */
    size_t n_slots;
    struct young *young; /* own; a ring */
    size_t first_young, n_young, room_young;
    struct hs_timerfd timer; /* own; in the set, for the oldest of the young */
    struct hs_own_look look; /* whether the timer is there */
};

static const char by_reset[] = "the client has left: its connection was reset, or is dead";
static const char by_end[] = "the client has left: it ended its stream";

static atomic_long live;

long
hs_departures_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

static bool
departures_is_ours(const struct hs_departures *d)
{
    return d->fork_generation == hs_fork_generation();
}

/* ---- Life ---------------------------------------------------------------------------------- */

static hs_err
departures_open_descriptors(struct hs_departures *d, struct hs_error *err)
{
    struct epoll_event timer = {.events = EPOLLIN, .data.u64 = TIMER};
    hs_err rv;

    if (!hs_own_fd_open(&d->epoll, hs_sys_epoll_create1(EPOLL_CLOEXEC)))
        return hs_err_set(err, HS_E_SYSTEM, errno, "departures", "epoll_create1");
    if ((rv = hs_timerfd_open(&d->timer, "departures", err)) != HS_OK)
        return rv;
    if (hs_sys_epoll_ctl(d->epoll.number, EPOLL_CTL_ADD, d->timer.fd.number, &timer) != 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, "departures", "epoll_ctl");
    return HS_OK;
}

hs_err
hs_departures_new(int64_t young_ns, struct hs_error *err, struct hs_departures **ret_departures)
{
    struct hs_departures *d = hs_sys_calloc(1, sizeof(*d));
    hs_err rv;

    if (d == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "departures", "no memory for departures");
    d->young_ns = young_ns;
    d->epoll = HS_OWN_FD_NONE;
    d->timer = (struct hs_timerfd)HS_TIMERFD_INIT;
    if ((rv = departures_open_descriptors(d, err)) != HS_OK) {
        hs_own_fd_close(&d->epoll);
        hs_timerfd_close(&d->timer);
        free(d);
        return rv;
    }
    d->magic = DEPARTURES_MAGIC;
    d->fork_generation = hs_fork_generation();
    d->refs = 1;
    hs_lock_init(&d->lock, HS_RANK_DEPARTURES);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    *ret_departures = d;
    return HS_OK;
}

struct hs_departures *
hs_departures_ref(struct hs_departures *d)
{
    HS_CHECK(d, DEPARTURES_MAGIC);
    atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
    return d;
}

void
hs_departures_close(struct hs_departures *d)
{
    struct hs_timerfd timer;
    struct hs_own_fd epoll;

    HS_CHECK(d, DEPARTURES_MAGIC);
    if (!departures_is_ours(d))
        return;
    hs_lock_take(&d->lock);
    epoll = d->epoll;
    timer = d->timer;
    d->epoll = HS_OWN_FD_NONE;
    d->timer = (struct hs_timerfd)HS_TIMERFD_INIT;
    hs_lock_drop(&d->lock);
    hs_own_fd_close(&epoll);
    hs_timerfd_close(&timer);
}

/* Its connections hold references: the one who gives up the last has seen all of them leave. */
void
hs_departures_unref(struct hs_departures *d)
{
    if (d == NULL)
        return;
    HS_CHECK(d, DEPARTURES_MAGIC);
    if (atomic_fetch_sub(&d->refs, 1) != 1)
        return;
    hs_own_fd_close(&d->epoll);
    hs_timerfd_close(&d->timer);
    if (departures_is_ours(d)) { /* In a forked child the tokens are the parent's. */
        for (size_t i = 0; i < d->n_slots; i++)
            hs_token_unref(d->slots[i].token);
        hs_lock_fini(&d->lock);
    }
    free(d->slots);
    free(d->young);
    memset(d, FREED, sizeof(*d));
    free(d);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

/* ---- Who is watched ------------------------------------------------------------------------ */

static bool
reserve_young_locked(struct hs_departures *d)
{
    size_t room = d->room_young == 0 ? 64 : 2 * d->room_young;
    struct young *young;

    if (d->n_young < d->room_young)
        return true;
    if ((young = hs_sys_malloc(room * sizeof(*young))) == NULL)
        return false;
    for (size_t i = 0; i < d->room_young; i++) /* It is full. */
        young[i] = d->young[(d->first_young + i) % d->room_young];
    free(d->young);
    d->young = young;
    d->first_young = 0;
    d->room_young = room;
    return true;
}

static hs_err
reserve_locked(struct hs_departures *d, int fd, struct hs_error *err)
{
    size_t n = (size_t)fd + 1, wanted = n > 2 * d->n_slots ? n : 2 * d->n_slots;
    struct slot *slots;

    if (!reserve_young_locked(d))
        return hs_err_setx(err, HS_E_NOMEM, "departures", "no memory to watch a connection");
    if (n <= d->n_slots)
        return HS_OK;
    if ((slots = hs_sys_realloc(d->slots, wanted * sizeof(*slots))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "departures", "no memory to watch a connection");
    memset(slots + d->n_slots, 0, (wanted - d->n_slots) * sizeof(*slots));
    d->slots = slots;
    d->n_slots = wanted;
    return HS_OK;
}

static hs_err
departures_lost(struct hs_error *err)
{
    return hs_err_set(err, HS_E_SYSTEM, EBADF, "departures",
                      "the program has closed the descriptors that clients are watched with");
}

static hs_err
departures_arm_locked(struct hs_departures *d, int fd, bool ends, struct hs_error *err)
{
    struct epoll_event ev = {.events = EPOLLET | (ends ? EPOLLRDHUP : 0)};

    ev.data.u64 = (uint64_t)d->slots[fd].generation << 32 | (uint32_t)fd;
    if (!hs_own_fd_is_there(&d->epoll))
        return departures_lost(err);
    if (hs_sys_epoll_ctl(d->epoll.number, EPOLL_CTL_ADD, fd, &ev) == 0 ||
        (errno == EEXIST && hs_sys_epoll_ctl(d->epoll.number, EPOLL_CTL_MOD, fd, &ev) == 0)) {
        d->slots[fd].armed = true;
        return HS_OK;
    }
    return hs_err_set(err, errno == ENOMEM ? HS_E_NOMEM : HS_E_SYSTEM, errno, "departures",
                      "epoll_ctl");
}

/* After reserve_locked. */
static hs_err
begin_young_locked(struct hs_departures *d, int fd, struct hs_error *err)
{
    struct young *y = &d->young[(d->first_young + d->n_young++) % d->room_young];
    int sys;

    *y = (struct young){.at_ns = hs_deadline_after(d->young_ns),
                        .fd = (uint32_t)fd,
                        .generation = d->slots[fd].generation};
    if ((sys = hs_timerfd_set(&d->timer, y->at_ns)) == 0)
        return HS_OK;
    d->n_young--;
    if (sys == EBADF)
        return departures_lost(err);
    return hs_err_set(err, HS_E_SYSTEM, sys, "departures", "timerfd_settime");
}

static hs_err
watch_locked(struct hs_departures *d, struct hs_conn *c, int fd, struct hs_token *token,
             struct hs_error *err, struct hs_token **ret_former)
{
    struct slot *p;
    hs_err rv;

    if (d->epoll.number < 0)
        return hs_err_setx(err, HS_E_CLOSED, "departures", "nobody watches any more");
    if ((rv = reserve_locked(d, fd, err)) != HS_OK)
        return rv;
    p = &d->slots[fd];
    p->generation++;
    if (d->young_ns == 0 && (rv = departures_arm_locked(d, fd, false, err)) != HS_OK)
        return rv;
    if (d->young_ns > 0) {
        p->armed = false;
        if ((rv = begin_young_locked(d, fd, err)) != HS_OK)
            return rv;
    }
    *ret_former = p->token;
    p->owner = c->fd.id;
    p->conn = c;
    p->token = hs_token_ref(token);
    p->by_end = false;
    return HS_OK;
}

hs_err
hs_departures_watch(struct hs_departures *d, struct hs_conn *c, struct hs_token *token,
                    struct hs_error *err)
{
    struct hs_token *former = NULL;
    hs_err rv;

    HS_CHECK(d, DEPARTURES_MAGIC);
    HS_CHECK(c, CONN_MAGIC);
    HS_ASSERT(c->departures == NULL || c->departures == d);
    if (!departures_is_ours(d))
        return hs_err_setx(err, HS_E_FORKED, "departures", "%s", hs_err_text(HS_E_FORKED));
    if ((rv = hs_fd_hold(&c->fd, err)) != HS_OK)
        return rv;
    hs_lock_take(&d->lock);
    rv = watch_locked(d, c, hs_fd_number(&c->fd), token, err, &former);
    hs_lock_drop(&d->lock);
    hs_fd_drop(&c->fd);
    hs_token_unref(former);
    if (rv == HS_OK && c->departures == NULL)
        c->departures = hs_departures_ref(d);
    return rv;
}

static struct slot *
departures_slot_of_locked(struct hs_departures *d, const struct hs_conn *c)
{
    size_t i = (size_t)c->fd.number;
    struct slot *p = c->fd.number >= 0 && i < d->n_slots ? &d->slots[i] : NULL;

    return p != NULL && p->token != NULL && p->owner == c->fd.id ? p : NULL;
}

static void
departures_leave(struct hs_conn *c, bool given_away)
{
    struct hs_departures *d = c->departures;
    struct hs_token *token = NULL;
    struct slot *p;

    HS_CHECK(c, CONN_MAGIC);
    if (d == NULL || !departures_is_ours(d))
        return;
    hs_lock_take(&d->lock);
    if ((p = departures_slot_of_locked(d, c)) != NULL) {
        token = p->token;
        p->token = NULL;
        p->generation++;
        if (p->armed &&
            (given_away ||
             !hs_fd_is_closed(&c->fd))) /* Else the kernel has done it, or is about to. */
            hs_own_fd_unwatch(&d->epoll, c->fd.number);
    }
    hs_lock_drop(&d->lock);
    hs_token_unref(token);
}

void
hs_conn_leave_departures(struct hs_conn *c)
{
    departures_leave(c, false);
}

void
hs_departures_given_away(struct hs_conn *c)
{
    departures_leave(c, true);
}

hs_err
hs_conn_cancel_on_end(struct hs_conn *c, bool on, struct hs_error *err)
{
    struct hs_departures *d = c->departures;
    struct slot *p;
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_fd_hold(&c->fd, err)) != HS_OK)
        return rv;
    if (d == NULL || !departures_is_ours(d)) {
        rv = hs_err_setx(err, HS_E_INVALID, "cancel_on_end",
                         "no server watches this connection for its handler");
    } else {
        hs_lock_take(&d->lock);
        p = departures_slot_of_locked(d, c);
        if (p != NULL && d->epoll.number >= 0 &&
            (rv = departures_arm_locked(d, c->fd.number, on, err)) == HS_OK)
            p->by_end = on;
        else if (p == NULL && atomic_load(&c->left) == 0) /* Else it has been told already. */
            rv = hs_err_setx(err, HS_E_INVALID, "cancel_on_end",
                             "the server does not watch this connection any more");
        hs_lock_drop(&d->lock);
    }
    hs_fd_drop(&c->fd);
    return rv;
}

/* ---- Who has left -------------------------------------------------------------------------- */

/* The number may be another's by now; then c is closed, which is looked at after. */
static bool
is_broken(struct hs_conn *c, uint32_t events)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);

    if (c->family == AF_UNIX)
        return (events & EPOLLERR) != 0;
    return (events & (EPOLLERR | EPOLLHUP)) != 0 &&
           ((events & EPOLLERR) != 0 || !hs_conn_may_have_ended(c)) &&
           (hs_sys_getsockopt(c->fd.number, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
            info.tcpi_state == TCP_CLOSE);
}

/* Returns the token that is to be cancelled, with its reference, or NULL. */
static struct hs_token *
judge_locked(struct hs_departures *d, const struct epoll_event *ev, const char **ret_why)
{
    size_t number = (uint32_t)ev->data.u64;
    struct slot *p;
    struct hs_token *token;
    bool ended;

    if (number >= d->n_slots) /* It is no set of ours any more. */
        return NULL;
    p = &d->slots[number];
    token = p->token;
    ended = p->by_end && (ev->events & (EPOLLRDHUP | EPOLLHUP)) != 0;
    if (p->generation != (uint32_t)(ev->data.u64 >> 32) || token == NULL)
        return NULL;
    if (is_broken(p->conn, ev->events))
        *ret_why = by_reset;
    else if (ended)
        *ret_why = by_end;
    else
        return NULL;
    if (hs_fd_is_closed(&p->conn->fd))
        return NULL; /* The handler has done so, and works on. */
    atomic_store(&p->conn->left, hs_token_id(token));
    p->token = NULL;
    return token;
}

static bool
is_young_locked(const struct hs_departures *d, const struct young *y)
{
    const struct slot *p = &d->slots[y->fd];

    return p->generation == y->generation && p->token != NULL && !p->armed &&
           !hs_fd_is_closed(&p->conn->fd);
}

/* The look keeps the number from becoming another's meanwhile; who is closed needs no watch. Its
 * end may be what closes the number, under the lock, which waits for nothing (sockopt.h,
 * linger.h). */
static hs_err
grow_up_locked(struct hs_departures *d, const struct young *y, struct hs_error *err)
{
    struct hs_fd *f = &d->slots[y->fd].conn->fd;
    hs_err rv;

    if (hs_fd_look(f, NULL) != HS_OK)
        return HS_OK;
    rv = departures_arm_locked(d, (int)y->fd, false, err);
    hs_fd_look_end(f);
    return rv;
}

/* Those that come all the time are not looked at one by one: some wait a bit longer. False: the
 * kernel does not take the time. */
static bool
look_later_locked(struct hs_departures *d, const struct young *y)
{
    int64_t soonest = hs_deadline_after(d->young_ns / 4);

    return hs_timerfd_set(&d->timer, y->at_ns > soonest ? y->at_ns : soonest) == 0;
}

/* One for whom no time can be set is watched before its time. */
static hs_err
collect_young_locked(struct hs_departures *d, struct hs_error *err)
{
    int64_t now = hs_now();
    struct young *y;
    hs_err rv = HS_OK;

    if (!hs_timerfd_heard(&d->timer))
        return departures_lost(err);
    for (; d->n_young > 0; d->n_young--) {
        y = &d->young[d->first_young];
        if (is_young_locked(d, y)) {
            if (y->at_ns > now && look_later_locked(d, y))
                break;
            if ((rv = grow_up_locked(d, y, err)) != HS_OK) {
                (void)look_later_locked(d, y);
                break;
            }
        }
        d->first_young = (d->first_young + 1) % d->room_young;
    }
    return rv;
}

/* HS_OK with NULL: nobody has. */
static hs_err
next_departed(struct hs_departures *d, struct hs_error *err, struct hs_token **ret_token,
              const char **ret_why)
{
    struct hs_token *token = NULL;
    struct epoll_event ev;
    hs_err rv = HS_OK;
    int n = 0;

    while (rv == HS_OK && token == NULL &&
           (n = hs_sys_epoll_wait(d->epoll.number, &ev, 1, 0)) == 1) {
        hs_lock_take(&d->lock);
        if (ev.data.u64 == TIMER)
            rv = collect_young_locked(d, err);
        else
            token = judge_locked(d, &ev, ret_why);
        hs_lock_drop(&d->lock);
    }
    if (n < 0) /* It stays readable: who waited for it would go round, past any deadline. */
        return errno == EINTR ? HS_INTR
                              : hs_err_set(err, HS_E_SYSTEM, errno, "departures", "epoll_wait");
    if (rv == HS_OK)
        *ret_token = token;
    return rv;
}

/* The timer's loss is told by its own events, too: see collect_young_locked(). */
static bool
departures_are_there(struct hs_departures *d)
{
    bool lost;

    hs_lock_take(&d->lock);
    lost = !hs_own_fd_is_there(&d->epoll) ||
           (hs_own_look_is_due(&d->look) && !hs_own_fd_is_there(&d->timer.fd));
    hs_lock_drop(&d->lock);
    return !lost;
}

hs_err
hs_departures_tend(struct hs_departures *d, struct hs_op *op, struct hs_error *err,
                   struct hs_callback **ret_fired)
{
    struct hs_callback *fired = NULL;
    struct hs_token *token;
    const char *why;
    short revents;
    hs_err rv;

    HS_CHECK(d, DEPARTURES_MAGIC);
    if (!departures_is_ours(d))
        return hs_err_setx(err, HS_E_FORKED, "departures", "%s", hs_err_text(HS_E_FORKED));
    if (d->epoll.number < 0)
        return hs_err_setx(err, HS_E_CLOSED, "departures", "it was closed");
    if ((rv = hs_op_begin(op, HS_NEVER, err)) != HS_OK)
        return rv;
    for (;;) {
        if (!departures_are_there(d))
            return departures_lost(err);
        for (unsigned round = 0;; round++) {
            if ((rv = next_departed(d, err, &token, &why)) != HS_OK)
                return rv;
            if (token == NULL)
                break;
            (void)hs_token_cancel(token, why, 0, &fired);
            hs_token_unref(token);
            if (fired != NULL) {
                *ret_fired = fired;
                return HS_OK;
            }
            if (round >= ROUNDS)
                return HS_INTR; /* Signals get a chance. */
        }
        op->want_id = 0;
        if ((rv = hs_wait_op(op, d->epoll.number, POLLIN, op->deadline_ns, HS_NEVER, err,
                             &revents)) != HS_OK)
            return rv;
    }
}
