/* listener.c: accepting without dying of it.
 *
 * Any number of threads may accept at once; they share the socket and a few atomics, no lock over
 * any system call.
 *
 * Errors of accept4(2) are of four kinds: nothing there (wait); the newcomer's own trouble
 * (ECONNABORTED, pending network errors, a packet filter's EPERM: count it, take the next); no
 * descriptors or memory (count it, shed, back off); the listener's end.
 *
 * Out of descriptors the kernel says EMFILE even when nobody waits in the queue, and readiness
 * never goes away while somebody does: so polling on would spin. One thread gives up the reserve
 * descriptor, accepts and resets what is queued (bounded), takes the reserve back, and everybody
 * waits for a time that doubles from 5 to 100 ms, not for the descriptor. If somebody else was
 * quicker and took the reserve, the first descriptor that comes free is the reserve again: without
 * one the queue would be left in silence.
 */
#include "listener.h"

#include "bind.h"
#include "ever.h"
#include "handshakes.h"
#include "peers.h"
#include "shed.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/event_peer.h"
#include "../base/roster.h"
#include "../base/sys.h"
#include "../base/time.h"
#include "../cancel/loop.h"
#include "../cancel/wait.h"
#include "../stream/conn.h"
#include "../stream/fd.h"
#include "../stream/sockopt.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LISTENER_MAGIC 0x70c31157U
#define FREED 0x74
#define MAX_SHED 256 /* in one go */
#define BACKOFF_MIN_NS (5 * HS_NS_PER_MS)
#define BACKOFF_MAX_NS (100 * HS_NS_PER_MS)
#define SLICE_ROUNDS 64
#define SCARCE_NS HS_NS_PER_S

/* LAST: of those who were there when the last call was made nobody is left. */
enum outcome { GOT, NOTHING, NEXT, EXHAUSTED, LAST, ENDED, FAILED, TENDING };

#define NO_LAST_CALL INT64_MAX

/* Whether connections get the listener's options from the kernel. */
enum inheritance { UNKNOWN, INHERITED, NOT_INHERITED };

struct hs_listener {
    unsigned magic;
    atomic_int refs;
    struct hs_list roster; /* roster.h */
    uint32_t id;           /* never used again */
    struct hs_fd fd;
    struct bound bound;
    struct hs_listen_options options; /* immutable */
    struct hs_addr where;             /* immutable */
    struct hs_wakelist wakers;
    struct hs_handshakes *handshakes; /* owns; NULL: new ones are ready at once; immutable */
    bool secured, proxied;            /* immutable */
    struct hs_peers *peers;           /* own reference; NULL: no limits; immutable */
    atomic_int reserve_fd;            /* own; -1 while given up */
    _Atomic int64_t backoff_ns;       /* the present step; 0 when all is well */
    _Atomic int64_t backoff_until_ns;
    atomic_int inheritance;    /* enum inheritance */
    _Atomic int64_t newcomers; /* that are accepted yet, or NO_LAST_CALL */
    atomic_bool shares_port;   /* known when the last call is made */
    atomic_bool retired;       /* the number is another file's: nobody comes to it any more */
    atomic_bool handed_over;   /* another process listens on: the path is not ours to remove */
    _Atomic uint64_t accepted, shed, exhausted, aborted, network_errors, denied, unverified;
};

static atomic_long live;
static _Atomic uint32_t last_id;

long
hs_listener_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

void
hs_listen_options_init(struct hs_listen_options *o)
{
    memset(o, 0, sizeof(*o));
    hs_sockopts_init(&o->sockopts);
    o->backlog = 4096;
    o->tls.max_handshakes = 256;
    o->proxy.timeout_ns = 5 * HS_NS_PER_S;
    o->peers.table_size = 16384;
    o->unix_mode = HS_UNSET;
}

static int
open_reserve(void)
{
    return hs_sys_open("/dev/null", O_RDONLY | O_CLOEXEC, 0);
}

static bool
has_limits(const struct hs_peer_limits *o)
{
    return o->connections != 0 || o->network_connections != 0 || o->per_s != 0;
}

static hs_err
listener_new(const struct bound *b, const struct hs_listen_options *o, bool adopted,
             struct hs_error *err, struct hs_listener **ret_l)
{
    struct hs_listener *l = hs_sys_calloc(1, sizeof(*l));
    struct hs_addr where = {.len = sizeof(where.storage)};
    hs_err rv = HS_OK;

    if (l == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "listen", "no memory for a listener");
    if (!adopted)
        hs_fd_init(&l->fd, b->fd);
    else if ((rv = hs_fd_take(&l->fd, b->fd, "listen", err)) != HS_OK) {
        free(l);
        return rv;
    }
    (void)hs_sys_getsockname(b->fd, &where.sa, &where.len);
    if ((has_limits(&o->peers) && (rv = hs_peers_new(&o->peers, err, &l->peers)) != HS_OK) ||
        ((o->tls.config != NULL || o->proxy.n_from > 0) &&
         (rv = hs_handshakes_new(o, b->fd, &where, l->peers, err, &l->handshakes)) != HS_OK)) {
        hs_peers_unref(l->peers);
        hs_fd_give_back(&l->fd);
        free(l);
        return rv;
    }
    l->magic = LISTENER_MAGIC;
    l->refs = 1;
    l->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
    l->where = where;
    l->bound = *b;
    l->options = *o;
    l->secured = o->tls.config != NULL;
    l->proxied = o->proxy.n_from > 0;
    l->options.tls = (struct hs_tls_listening){0}; /* The handshakes keep both. */
    l->options.proxy = (struct hs_proxy_listening){0};
    l->options.peers = (struct hs_peer_limits){0}; /* l->peers keeps them. */
    hs_wakelist_init(&l->wakers);
    l->reserve_fd = open_reserve();
    l->newcomers = NO_LAST_CALL;
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    hs_roster_add(HS_ROSTER_LISTENERS, &l->roster);
    *ret_l = l;
    return HS_OK;
}

/* What a listener has, all that it accepts inherit. */
static hs_err
refuse_linger(const struct hs_listen_options *o, struct hs_error *err)
{
    if (o->sockopts.linger_s == HS_UNSET)
        return HS_OK;
    return hs_err_setx(err, HS_E_INVALID, "listen",
                       "linger=%d: all that are accepted would inherit it, and lose by every close "
                       "what is on its way; use abort() for those that are to be reset",
                       o->sockopts.linger_s);
}

hs_err
hs_listener_open(const struct hs_endpoint *ep, const struct hs_listen_options *o,
                 struct hs_error *err, struct hs_listener **ret_l)
{
    struct bound b;
    hs_err rv;

    if ((rv = refuse_linger(o, err)) != HS_OK || (rv = hs_bind(ep, o, err, &b)) != HS_OK)
        return rv;
    if ((rv = listener_new(&b, o, false, err, ret_l)) != HS_OK) {
        hs_bound_remove_path(&b);
        (void)close(b.fd);
    }
    return rv;
}

hs_err
hs_listener_adopt(int fd, const struct hs_listen_options *o, struct hs_error *err,
                  struct hs_listener **ret_l)
{
    struct hs_listen_options options = *o;
    struct bound b = {.fd = fd};
    int type = 0, listening = 0;
    socklen_t len = sizeof(int);
    hs_err rv;

    if ((rv = refuse_linger(o, err)) != HS_OK)
        return rv;
    if (hs_sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 ||
        hs_sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &b.family, &len) != 0 ||
        hs_sys_getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) != 0) {
        hs_fd_no_socket(fd, "listen", err);
        return HS_E_INVALID;
    }
    if (type != SOCK_STREAM || !listening)
        return hs_err_setx(err, HS_E_INVALID, "listen",
                           "descriptor %d is not a listening stream socket", fd);
    if ((rv = hs_fd_check_free(fd, "listen", err)) != HS_OK)
        return rv;
    rv = hs_sockopts_apply(fd, b.family, &o->sockopts, HS_USE_CONNECTION, err, &b.changed);
    hs_sockopt_never_block_close(fd); /* Connections would inherit it. */
    b.mptcp = hs_sockopt_may_be_mptcp(fd);
    options.backlog = HS_UNSET; /* The one who called listen(2) chose it. */
    return rv == HS_OK ? listener_new(&b, &options, true, err, ret_l) : rv;
}

struct hs_listener *
hs_listener_ref(struct hs_listener *l)
{
    HS_CHECK(l, LISTENER_MAGIC);
    atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
    return l;
}

static void
close_reserve(struct hs_listener *l)
{
    int fd = atomic_exchange(&l->reserve_fd, -1);

    if (fd >= 0)
        (void)close(fd);
}

void
hs_listener_unref(struct hs_listener *l)
{
    if (l == NULL)
        return;
    HS_CHECK(l, LISTENER_MAGIC);
    if (atomic_fetch_sub(&l->refs, 1) != 1)
        return;
    hs_roster_remove(HS_ROSTER_LISTENERS, &l->roster);
    hs_listener_close(l);
    close_reserve(l);
    hs_handshakes_free(l->handshakes);
    hs_peers_unref(l->peers);
    if (hs_fd_is_ours(
            &l->fd)) /* In a forked child threads that waited are gone, their nodes not. */
        hs_wakelist_fini(&l->wakers);
    memset(l, FREED, sizeof(*l));
    free(l);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

static bool
listener_take(struct hs_list *link, size_t i, void *arg)
{
    struct hs_listener *l = HS_CONTAINER(link, struct hs_listener, roster);

    ((struct hs_listener **)arg)[i] = l;
    return hs_fd_is_ours(&l->fd) && !hs_fd_is_closed(&l->fd) && hs_roster_try_ref(&l->refs);
}

uint32_t
hs_listener_id(const struct hs_listener *l)
{
    HS_CHECK(l, LISTENER_MAGIC);
    return l->id;
}

size_t
hs_listeners(struct hs_listener **listeners, size_t room)
{
    return hs_roster_take(HS_ROSTER_LISTENERS, room, listener_take, listeners);
}

void
hs_listener_close(struct hs_listener *l)
{
    HS_CHECK(l, LISTENER_MAGIC);
    if (!hs_fd_mark_closed(&l->fd))
        return;
    if (hs_fd_is_ours(&l->fd)) {
        if (!atomic_load(&l->handed_over))
            hs_bound_remove_path(&l->bound);
        hs_wakelist_wake(&l->wakers);
    }
    if (l->handshakes != NULL)
        hs_handshakes_close(l->handshakes);
    hs_fd_drop(&l->fd);
    close_reserve(l);
}

/* ---- Accepting ----------------------------------------------------------------------------- */

static void
listener_count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static enum outcome
listener_classify(struct hs_listener *l, int sys)
{
    switch (sys) {
    case EAGAIN:
        return NOTHING;
    case EINTR:
        return NEXT;
    case ECONNABORTED:
        listener_count(&l->aborted);
        hs_ever_count_listener(HS_LISTENER_ABORTED);
        return NEXT;
    case EPERM:
        listener_count(&l->denied);
        return NEXT;
    case ENETDOWN: /* Errors of the new connection, accept(2). */
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case ETIMEDOUT:
        listener_count(&l->network_errors);
        return NEXT;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        listener_count(&l->exhausted);
        hs_ever_count_listener(HS_LISTENER_EXHAUSTED);
        return EXHAUSTED;
    case EINVAL: /* shut down from outside */
        return ENDED;
    default:
        return FAILED;
    }
}

/* Another thread may have made one meanwhile. */
static void
keep_reserve(struct hs_listener *l, int fd)
{
    int old = atomic_exchange(&l->reserve_fd, fd);

    if (old >= 0)
        (void)close(old);
    if (hs_fd_is_closed(&l->fd))
        close_reserve(l);
}

static void
reset(int fd)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};

    (void)hs_sys_setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    (void)close(fd);
}

static void
listener_note(struct hs_listener *l, enum hs_event_kind kind)
{
    struct hs_event e = {0};
    struct hs_addr addr;

    if (hs_listener_addr(l, NULL, &addr) == HS_OK)
        hs_event_peer(&e, &addr);
    hs_event_note(kind, &e);
}

static void
note_shed(struct hs_listener *l)
{
    struct hs_addr addr;

    if (hs_listener_addr(l, NULL, &addr) != HS_OK)
        addr.len = 0;
    hs_shed_note_addr(HS_SHED_DESCRIPTORS, &addr);
}

/* Turns the queued away with a reset: they learn at once, and no descriptor stays behind. */
static void
shed(struct hs_listener *l)
{
    int reserve, fd;

    hs_wakers_spare(hs_deadline_after(SCARCE_NS));
    listener_note(l, HS_EVENT_NO_DESCRIPTORS);
    if ((reserve = atomic_exchange(&l->reserve_fd, -1)) < 0 && (reserve = open_reserve()) < 0)
        return; /* Another thread is at it, or there is none to give. */
    (void)close(reserve);
    for (int i = 0; i < MAX_SHED; i++) {
        fd = hs_sys_accept4(hs_fd_number(&l->fd), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            break;
        reset(fd);
        listener_count(&l->shed);
        hs_ever_count_listener(HS_LISTENER_SHED);
        note_shed(l);
    }
    keep_reserve(l, open_reserve());
}

static void
listener_back_off(struct hs_listener *l)
{
    int64_t step = atomic_load(&l->backoff_ns);

    if (atomic_load(&l->backoff_until_ns) > hs_now())
        return; /* Another thread has set it for all. */
    step = step == 0 ? BACKOFF_MIN_NS : hs_min_ns(2 * step, BACKOFF_MAX_NS);
    atomic_store(&l->backoff_ns, step);
    atomic_store(&l->backoff_until_ns, hs_deadline_after(step));
}

static void
recovered(struct hs_listener *l)
{
    if (atomic_load_explicit(&l->backoff_ns, memory_order_relaxed) == 0)
        return;
    atomic_store(&l->backoff_ns, 0);
    if (atomic_load(&l->reserve_fd) < 0)
        keep_reserve(l, open_reserve());
}

static enum inheritance
compare_options(struct hs_listener *l, int fd)
{
    struct hs_setting ours[HS_SETTINGS_MAX], theirs[HS_SETTINGS_MAX];
    const struct hs_sockopts *o = &l->options.sockopts;
    size_t n = hs_sockopts_audit(hs_fd_number(&l->fd), l->bound.family, o, HS_USE_CONNECTION, ours);

    (void)hs_sockopts_audit(fd, l->bound.family, o, HS_USE_CONNECTION, theirs);
    for (size_t i = 0; i < n; i++)
        if (ours[i].asked != HS_UNSET && ours[i].effective != theirs[i].effective)
            return NOT_INHERITED;
    return INHERITED;
}

/* Linux hands a TCP listener's options on; the first connection shows whether this kernel does so
 * for all of ours, and if not every connection gets them by itself. Unix sockets inherit none. */
static unsigned
verify_inherited(struct hs_listener *l, int fd)
{
    unsigned changed = l->bound.changed;
    int inheritance = atomic_load(&l->inheritance);

    if (inheritance == UNKNOWN) {
        inheritance = (int)compare_options(l, fd);
        atomic_store(&l->inheritance, inheritance);
    }
    if (inheritance == NOT_INHERITED) {
        listener_count(&l->unverified);
        if (hs_sockopts_apply(fd, l->bound.family, &l->options.sockopts, HS_USE_CONNECTION, NULL,
                              &changed) != HS_OK)
            changed = l->bound.changed + 1;
    }
    return changed;
}

static bool
last_call_made(const struct hs_listener *l)
{
    return atomic_load(&l->newcomers) != NO_LAST_CALL;
}

/* With SO_REUSEPORT the kernel goes on to give us a part of all clients until the socket is closed,
 * and resets those that are queued then. So it is closed in the moment in which the queue was seen
 * empty, not when handshakes and the one who else uses the listener are done with it. The number
 * stays ours: another file takes it. */
static void
retire(struct hs_listener *l)
{
    int fd;

    if (!atomic_load(&l->shares_port) || atomic_exchange(&l->retired, true))
        return;
    if ((fd = open_reserve()) < 0 || hs_sys_dup3(fd, hs_fd_number(&l->fd), O_CLOEXEC) < 0)
        atomic_store(&l->retired, false); /* hs_listener_close will do it. */
    if (fd >= 0)
        (void)close(fd);
}

/* Of those who may come yet one is here, or has left. */
static void
note_newcomer(struct hs_listener *l)
{
    if (last_call_made(l))
        atomic_fetch_sub(&l->newcomers, 1);
}

/* Without anybody in it the queue has been worked off, whatever it was thought to hold. */
static enum outcome
note_nobody(struct hs_listener *l)
{
    if (!last_call_made(l))
        return NOTHING;
    atomic_store(&l->newcomers, 0);
    retire(l);
    return LAST;
}

/* Before anything else is done for a stranger. A proxy's clients come in when they are known. */
static bool
may_enter(struct hs_listener *l, const struct hs_addr *peer, struct hs_peer_slots *ret_slots)
{
    if (l->peers == NULL ||
        (l->handshakes != NULL && hs_handshakes_expect_header(l->handshakes, peer))) {
        *ret_slots = (struct hs_peer_slots){0};
        return true;
    }
    return hs_peers_enter(l->peers, peer, hs_now(), ret_slots);
}

static hs_err
listener_wrap(struct hs_listener *l, int fd, const struct hs_addr *peer,
              const struct hs_peer_slots *slots, struct hs_error *err, struct hs_conn **ret_conn)
{
    unsigned changed = verify_inherited(l, fd);
    struct hs_sockopts own;
    struct hs_conn *conn;
    hs_err rv;

    hs_sockopts_draw_accepted(fd, l->bound.family, &l->options.sockopts, &own);
    if ((rv = hs_conn_wrap(fd, l->bound.family, peer, NULL, &own, changed, err, &conn)) != HS_OK) {
        (void)close(fd);
        if (l->peers != NULL)
            hs_peers_leave(l->peers, slots);
        return rv;
    }
    if (l->bound.mptcp)
        hs_conn_set_mptcp(conn);
    if (l->peers != NULL && (rv = hs_peers_seat(l->peers, slots, conn, err)) != HS_OK) {
        hs_conn_unref(conn);
        return rv;
    }
    *ret_conn = conn;
    return HS_OK;
}

static enum outcome
listener_accept_one(struct hs_listener *l, struct hs_error *err, struct hs_conn **ret_conn)
{
    struct hs_addr peer = {.len = sizeof(peer.storage)};
    struct hs_peer_slots slots;
    enum outcome outcome;
    int fd;

    if (atomic_load(&l->newcomers) <= 0)
        return LAST;
    fd = hs_sys_accept4(hs_fd_number(&l->fd), &peer.sa, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if ((outcome = listener_classify(l, errno)) == NOTHING)
            return note_nobody(l);
        if (outcome == FAILED)
            (void)hs_err_set(err, HS_E_SYSTEM, errno, "accept", "accept4");
        return outcome;
    }
    note_newcomer(l);
    if (!may_enter(l, &peer, &slots)) {
        reset(fd);
        return NEXT;
    }
    if (listener_wrap(l, fd, &peer, &slots, err, ret_conn) != HS_OK)
        return FAILED;
    listener_count(&l->accepted);
    hs_ever_count_listener(HS_LISTENER_ACCEPTED);
    recovered(l);
    return GOT;
}

static hs_err
look_open(void *arg, struct hs_change *change)
{
    struct hs_listener *l = arg;

    if (l->handshakes != NULL)
        change->until_ns = hs_handshakes_look_ns(l->handshakes);
    return hs_fd_is_closed(&l->fd) ? HS_OK : HS_WANT;
}

/* Before it sleeps: nobody holds newcomers up, who would be heard of no more. */
static hs_err
look_welcoming(void *arg, struct hs_change *change)
{
    struct hs_listener *l = arg;

    return l->handshakes != NULL && hs_handshakes_are_held(l->handshakes) ? HS_OK
                                                                          : look_open(arg, change);
}

/* All who wait hear that they have to look: the one who found out may leave, or be given up. */
static void
tell_of_look(struct hs_listener *l)
{
    if (l->handshakes != NULL && hs_handshakes_look_is_new(l->handshakes))
        hs_wakelist_wake(&l->wakers);
}

static hs_err
wait_for_clients(struct hs_listener *l, struct hs_op *op, enum outcome why, struct hs_error *err)
{
    struct hs_change change = {
        .list = &l->wakers,
        .look = why == TENDING ? look_open : look_welcoming,
        .arg = l,
        .fd = why == EXHAUSTED || why == TENDING ? -1 : hs_fd_number(&l->fd),
        .events = POLLIN,
        .id = l->fd.id,
        .deadline_ns = op->deadline_ns,
        .until_ns = why == EXHAUSTED ? atomic_load(&l->backoff_until_ns) : HS_NEVER,
    };

    if (l->handshakes != NULL) /* They go on while newcomers have to wait. */
        change.fd = hs_handshakes_fileno(l->handshakes);
    if (l->handshakes != NULL && op->deadline_ns == HS_TRY_ONCE &&
        hs_handshakes_look_ns(l->handshakes) != HS_NEVER)
        hs_handshakes_tell_gate(l->handshakes); /* Its descriptor is all that the caller has. */
    return hs_wait_change(op, &change, err);
}

static enum outcome
accept_some(struct hs_listener *l, size_t max, struct hs_error *err, struct hs_conn **conns,
            size_t *n)
{
    enum outcome outcome = NEXT;
    int failed = 0;

    if (atomic_load(&l->backoff_until_ns) > hs_now())
        return EXHAUSTED;
    while (*n < max && failed < SLICE_ROUNDS) {
        outcome = listener_accept_one(l, err, &conns[*n]);
        if (outcome == GOT)
            (*n)++;
        else if (outcome == NEXT)
            failed++;
        else
            break;
    }
    if (outcome == EXHAUSTED) {
        shed(l);
        listener_back_off(l);
    }
    return outcome;
}

/* Newcomers begin their handshakes. */
static enum outcome
listener_welcome(struct hs_listener *l, size_t max, int *rounds, struct hs_error *err,
                 struct hs_conn **conns, size_t *n)
{
    enum outcome outcome = NEXT;
    struct hs_conn *conn = NULL;

    while (*n < max && (outcome == NEXT || outcome == GOT)) {
        /* 1. A slot before the accept: who finds none stays in the kernel's queue. */
        if (!hs_handshakes_take_slot(l->handshakes))
            return NEXT;
        /* 2. One newcomer; nobody there, or one that may not enter, gives the slot back. */
        if ((outcome = listener_accept_one(l, err, &conn)) != GOT)
            hs_handshakes_give_back(l->handshakes);
        /* 3. Its first step at once: where the hello is there already, it is the last one. */
        else if ((conn = hs_handshakes_add(l->handshakes, conn)) != NULL)
            conns[(*n)++] = conn;
        if (++*rounds >= SLICE_ROUNDS)
            break;
    }
    if (outcome == EXHAUSTED) {
        shed(l);
        listener_back_off(l);
        hs_handshakes_pause(l->handshakes, atomic_load(&l->backoff_until_ns));
    }
    return outcome;
}

static enum outcome
nothing_is_due(struct hs_listener *l)
{
    return atomic_load(&l->newcomers) <= 0 && !hs_handshakes_busy(l->handshakes) ? LAST : NOTHING;
}

static bool
listener_is_over(const struct hs_op *op)
{
    return hs_op_check(op, op->deadline_ns, NULL) != HS_OK;
}

/* The same as accept_some through TLS: NOTHING when nobody is ready, NEXT after a slice. */
static enum outcome
accept_secured(struct hs_listener *l, const struct hs_op *op, size_t max, struct hs_error *err,
               struct hs_conn **conns, size_t *n)
{
    enum outcome outcome;

    /* Each round may be milliseconds of arithmetic: the caller's time is looked at in between. */
    for (int i = 0; i < SLICE_ROUNDS && *n < max && (i == 0 || !listener_is_over(op)); i++)
        switch (hs_handshakes_next(l->handshakes, err, &conns[*n])) {
        case HS_DUE_NOTHING: /* All wait for their clients: so does the caller. */
            return nothing_is_due(l);
        case HS_DUE_CONNECTION: /* A handshake has ended well: that is what is asked for. */
            (*n)++;
            break;
        case HS_DUE_NEWCOMERS: /* The listening socket is readable, and there are slots. */
            outcome = listener_welcome(l, max, &i, err, conns, n);
            if (outcome == LAST)
                hs_handshakes_last_call(l->handshakes);
            else if (outcome == ENDED || outcome == FAILED)
                return outcome;
            break;
        case HS_DUE_SOMETHING: /* A step was made, or one was cut: look for the next. */
            break;
        case HS_DUE_FAILED:
            return FAILED;
        }
    return NEXT;
}

static hs_err
accept_loop(struct hs_listener *l, struct hs_op *op, size_t max, struct hs_error *err,
            struct hs_conn **conns, size_t *n)
{
    for (;;) {
        enum outcome outcome;
        hs_err rv;

        /* 1. Closed by another thread: before anything else is taken. */
        if (hs_fd_is_closed(&l->fd))
            return hs_err_setx(err, HS_E_CLOSED, NULL, "the listener was closed");
        /* 2. All who are here, without a wait. What failed behind one that worked is met again. */
        if (l->handshakes != NULL)
            hs_handshakes_hold(l->handshakes, false);
        outcome = l->handshakes != NULL ? accept_secured(l, op, max, err, conns, n)
                                        : accept_some(l, max, err, conns, n);
        if (*n > 0)
            return HS_OK;
        /* 3. Nobody, and nobody will come any more; or a slice of time was used up. */
        if (outcome == ENDED)
            return hs_err_setx(err, HS_E_CLOSED, NULL, "the listener was shut down");
        if (outcome == LAST)
            return hs_err_setx(err, HS_E_CLOSED, NULL, "all were accepted since the last call");
        if (outcome == FAILED)
            return err != NULL && err->code != HS_OK ? err->code : HS_E_SYSTEM;
        if (outcome == NEXT)
            return HS_INTR; /* Nothing but failing clients for a whole slice. */
        /* 4. Sleep until somebody comes, or until descriptors are worth another try. */
        if ((rv = wait_for_clients(l, op, outcome, err)) == HS_OK)
            continue;
        if (!hs_fd_is_closed(&l->fd))
            return rv;
        if (err != NULL)
            *err = (struct hs_error){0}; /* That it was closed is the better reason. */
    }
}

hs_err
hs_listener_accept(struct hs_listener *l, struct hs_op *op, size_t max, struct hs_error *err,
                   struct hs_conn **conns, size_t *ret_n)
{
    size_t n = 0;
    hs_err rv;

    HS_CHECK(l, LISTENER_MAGIC);
    if (max == 0)
        return hs_err_setx(err, HS_E_INVALID, "accept", "max must not be 0");
    if ((rv = hs_fd_hold(&l->fd, err)) == HS_OK) {
        if ((rv = hs_op_begin(op, HS_NEVER, err)) == HS_OK)
            rv = accept_loop(l, op, max, err, conns, &n);
        tell_of_look(l);
        hs_fd_drop(&l->fd);
    }
    if (rv == HS_OK) {
        *ret_n = n;
        if (err != NULL)
            *err = (struct hs_error){0}; /* of an accept after the ones that worked */
    } else if (rv < 0 && err != NULL) {
        err->op = "accept";
        if (err->phase == NULL)
            err->phase = "accept";
    }
    return rv;
}

/* The one who tends was told of newcomers, whom it does not take: it would be told again and again.
 * Those who wait to accept, in a thread or stepped, are woken, and hold them no longer. */
static void
hold_newcomers(struct hs_listener *l)
{
    hs_handshakes_hold(l->handshakes, true);
    hs_wakelist_wake(&l->wakers);
}

/* One slice of the handshakes that have begun. What gets ready is for who accepts at this time, in
 * another thread, and sleeps. */
static enum outcome
tend_some(struct hs_listener *l, const struct hs_op *op, struct hs_error *err)
{
    enum outcome outcome = NEXT;

    for (int i = 0; i < SLICE_ROUNDS && outcome == NEXT && (i == 0 || !listener_is_over(op)); i++) {
        enum hs_due due = hs_handshakes_next(l->handshakes, err, NULL);

        if (due == HS_DUE_NOTHING)
            outcome = NOTHING;
        else if (due == HS_DUE_FAILED)
            outcome = FAILED;
        else if (due == HS_DUE_NEWCOMERS)
            hold_newcomers(l);
    }
    if (hs_handshakes_wait_for_taker(l->handshakes))
        hs_wakelist_wake(&l->wakers);
    return outcome;
}

static hs_err
tend_loop(struct hs_listener *l, struct hs_op *op, struct hs_error *err)
{
    enum outcome outcome = NOTHING;
    hs_err rv;

    for (;;) {
        if (hs_fd_is_closed(&l->fd))
            return hs_err_setx(err, HS_E_CLOSED, NULL, "the listener was closed");
        if (l->handshakes != NULL)
            outcome = tend_some(l, op, err);
        if (outcome == NEXT)
            return HS_INTR;
        if (outcome == FAILED)
            return err != NULL && err->code != HS_OK ? err->code : HS_E_SYSTEM;
        if ((rv = wait_for_clients(l, op, TENDING, err)) != HS_OK)
            return rv;
    }
}

hs_err
hs_listener_tend(struct hs_listener *l, struct hs_op *op, struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(l, LISTENER_MAGIC);
    if ((rv = hs_fd_hold(&l->fd, err)) == HS_OK) {
        if ((rv = hs_op_begin(op, HS_NEVER, err)) == HS_OK)
            rv = tend_loop(l, op, err);
        tell_of_look(l);
        hs_fd_drop(&l->fd);
    }
    if (rv < 0 && err != NULL)
        err->op = "tend";
    return rv;
}

/* ---- Asking -------------------------------------------------------------------------------- */

bool
hs_listener_is_closed(struct hs_listener *l)
{
    HS_CHECK(l, LISTENER_MAGIC);
    return hs_fd_is_closed(&l->fd);
}

hs_err
hs_listener_detach(struct hs_listener *l, struct hs_error *err, int *ret_fd)
{
    hs_err rv;

    HS_CHECK(l, LISTENER_MAGIC);
    if (!hs_fd_is_ours(&l->fd))
        return hs_err_setx(err, HS_E_FORKED, "detach", "%s", hs_err_text(HS_E_FORKED));
    if ((rv = hs_fd_detach(&l->fd, 0, err, ret_fd)) == HS_OK)
        hs_wakelist_wake(&l->wakers); /* Stepped ops hold nothing while they wait. */
    return rv;
}

int
hs_listener_fileno(struct hs_listener *l)
{
    int fd = -1;

    HS_CHECK(l, LISTENER_MAGIC);
    if (hs_fd_look(&l->fd, NULL) == HS_OK) {
        fd = hs_fd_number(&l->fd);
        hs_fd_look_end(&l->fd);
    }
    return fd;
}

void
hs_listener_bound_addr(struct hs_listener *l, struct hs_addr *ret_addr)
{
    HS_CHECK(l, LISTENER_MAGIC);
    *ret_addr = l->where;
}

int
hs_listener_wait_fileno(struct hs_listener *l)
{
    int fd = hs_listener_fileno(l);

    return fd < 0 || l->handshakes == NULL ? fd : hs_handshakes_fileno(l->handshakes);
}

hs_err
hs_listener_addr(struct hs_listener *l, struct hs_error *err, struct hs_addr *ret_addr)
{
    struct hs_addr addr = {.len = sizeof(addr.storage)};
    hs_err rv;

    HS_CHECK(l, LISTENER_MAGIC);
    if ((rv = hs_fd_look(&l->fd, err)) != HS_OK)
        return rv;
    if (hs_sys_getsockname(hs_fd_number(&l->fd), &addr.sa, &addr.len) != 0)
        rv = hs_err_set(err, HS_E_SYSTEM, errno, "getsockname", "getsockname");
    else
        *ret_addr = addr;
    hs_fd_look_end(&l->fd);
    return rv;
}

/* In the state LISTEN two fields of tcp_info are the accept queue's limit and length
 * (net/ipv4/tcp.c, tcp_get_info). */
static void
ask_queue(struct hs_listener *l, struct hs_listener_stats *stats)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);

    if (atomic_load(&l->retired)) {
        stats->queue_length = 0;
        return;
    }
    if (l->bound.family == AF_UNIX || hs_fd_look(&l->fd, NULL) != HS_OK)
        return;
    if (hs_sys_getsockopt(hs_fd_number(&l->fd), IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
        info.tcpi_state == TCP_LISTEN) {
        stats->backlog_effective = (int)info.tcpi_sacked;
        stats->queue_length = (int)info.tcpi_unacked;
    }
    hs_fd_look_end(&l->fd);
}

static bool
shares_port(struct hs_listener *l)
{
    int on = 0;
    socklen_t len = sizeof(on);

    if (l->bound.family == AF_UNIX || hs_fd_look(&l->fd, NULL) != HS_OK)
        return false;
    (void)hs_sys_getsockopt(hs_fd_number(&l->fd), SOL_SOCKET, SO_REUSEPORT, &on, &len);
    hs_fd_look_end(&l->fd);
    return on != 0;
}

void
hs_listener_hand_over(struct hs_listener *l)
{
    HS_CHECK(l, LISTENER_MAGIC);
    atomic_store(&l->handed_over, true);
    atomic_store(&l->newcomers, 0);
    hs_wakelist_wake(&l->wakers);
}

void
hs_listener_last_call(struct hs_listener *l)
{
    struct hs_listener_stats stats = {.queue_length = HS_UNSET};
    int64_t none = NO_LAST_CALL;

    HS_CHECK(l, LISTENER_MAGIC);
    listener_note(l, HS_EVENT_DRAINING);
    ask_queue(l, &stats); /* Of a unix socket unknown: until nobody is there. */
    if (shares_port(l)) {
        atomic_store(&l->shares_port, true);
        stats.queue_length = HS_UNSET; /* Who comes later is not refused, but reset. */
    }
    (void)atomic_compare_exchange_strong(
        &l->newcomers, &none, stats.queue_length == HS_UNSET ? INT_MAX : stats.queue_length);
    hs_wakelist_wake(&l->wakers);
}

void
hs_listener_stats(struct hs_listener *l, struct hs_listener_stats *ret_stats)
{
    HS_CHECK(l, LISTENER_MAGIC);
    *ret_stats = (struct hs_listener_stats){
        .accepted = l->accepted,
        .shed = l->shed,
        .exhausted = l->exhausted,
        .aborted = l->aborted,
        .network_errors = l->network_errors,
        .denied = l->denied,
        .unverified = l->unverified,
        .backlog_asked = l->options.backlog,
        .backlog_effective = HS_UNSET,
        .queue_length = HS_UNSET,
    };
    if ((ret_stats->tls = l->secured))
        hs_handshakes_stats(l->handshakes, &ret_stats->handshakes);
    if ((ret_stats->proxied = l->proxied))
        hs_handshakes_proxy_stats(l->handshakes, &ret_stats->proxy);
    if ((ret_stats->peers_limited = l->peers != NULL))
        hs_peers_stats(l->peers, &ret_stats->peers);
    ask_queue(l, ret_stats);
}

hs_err
hs_listener_audit(struct hs_listener *l, struct hs_setting *settings, struct hs_error *err,
                  size_t *ret_n)
{
    hs_err rv;

    HS_CHECK(l, LISTENER_MAGIC);
    if ((rv = hs_fd_look(&l->fd, err)) != HS_OK)
        return rv;
    *ret_n = hs_sockopts_audit(hs_fd_number(&l->fd), l->bound.family, &l->options.sockopts,
                               HS_USE_LISTENER, settings);
    hs_fd_look_end(&l->fd);
    return HS_OK;
}
