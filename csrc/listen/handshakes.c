/* handshakes.c: see handshakes.h.
 *
 * A slot is FREE, WAITING (its descriptor is armed in the epoll set, once), BUSY (one thread
 * steps it, without the lock: a step can take a millisecond of arithmetic), or READY (done while
 * held, until somebody takes it). It goes from the stage HEADER, when a proxy has still to say for
 * whom it comes, to SECURING, the TLS handshake, if there is TLS.
 *
 * Invariants, all under lock (rank LISTENER):
 * - A WAITING slot is armed; the one who makes it BUSY owns it alone, and it is not armed. So two
 *   threads never step one handshake, and nobody arms a descriptor that another has closed.
 * - Events name slot and generation: an old one finds a new generation and is nothing.
 * - The heap has exactly the WAITING slots, by their deadlines.
 * - silent lists exactly the WAITING slots of which not a byte has come in their stage, oldest
 *   first; ready the READY ones.
 * - taken counts slots that are not FREE and slots promised (hs_handshakes_take_slot).
 * - The listening socket is armed unless there is no room, newcomers are paused, or it is held;
 *   who makes room arms it again, the timer ends a pause. A slot that can be evicted is room; the
 *   timer is set to when the oldest silent one can be.
 * - The timer is set to the earliest deadline or end of a pause, or before.
 * - After closed nothing becomes WAITING; BUSY slots are cut by their owners.
 */
#include "handshakes.h"

#include "proxy_reader.h"
#include "witnesses.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/list.h"
#include "../base/lock.h"
#include "../base/network.h"
#include "../base/sys.h"
#include "../base/time.h"
#include "../cancel/timerfd.h"
#include "../cancel/timers.h"
#include "../cancel/wait.h"
#include "../connect/breaker_key.h"
#include "../stream/conn.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define LISTENER_EVENT UINT64_MAX
#define TIMER_EVENT (UINT64_MAX - 1)
/* How much of the rate may be used at once after a quiet time. */
#define BURST_NS (100 * HS_NS_PER_MS)
/* A client's hello comes right behind the end of TCP's handshake. 256 slots, each held for so
 * long, let a thousand newcomers a second by, whatever strangers do. */
#define SILENCE_NS (250 * HS_NS_PER_MS)

enum state { FREE, WAITING, BUSY, READY };
enum stage { HEADER, SECURING };

struct slot {
    struct hs_conn *conn; /* owns */
    enum stage stage;
    struct hs_proxy_reader header; /* own; in the stage HEADER */
    int64_t header_until_ns;
    struct hs_tls_config *config; /* borrows: one of the two */
    struct hs_permit permit;
    struct hs_op op;
    struct hs_list link;   /* in silent or ready, or alone */
    struct hs_timer timer; /* of op.want_at_ns, while WAITING */
    int64_t since_ns;
    uint32_t generation;
    enum state state;
};

struct hs_handshakes {
    struct hs_tls_config *config, *fallback; /* own references; config NULL: no TLS */
    struct hs_breaker *breaker;              /* owns a reference, or NULL */
    struct hs_breaker_key key;
    struct hs_witnesses *witnesses; /* owns; guarded by lock; NULL without a breaker */
    unsigned fork_generation;
    int epoll_fd;  /* own */
    int listen_fd; /* borrows */
    size_t max;
    int64_t interval_ns; /* between two beginnings, or 0 */
    struct hs_lock lock;
    struct slot *slots; /* own; guarded by lock but for BUSY ones, as the rest */
    size_t *free_slots; /* own; a stack */
    size_t n_free, taken;
    struct hs_list silent, ready; /* slot.link */
    struct hs_timers timers;      /* slot.timer */
    bool listening, closed, held, last_call;
    int64_t next_start_ns, paused_until_ns;
    struct hs_timerfd timer; /* own */
    _Atomic uint64_t started, completed, fell_back, failed[HS_TLS_FAILURES];
    struct hs_network *proxies; /* own; immutable */
    size_t n_proxies;
    int64_t header_timeout_ns;
    struct hs_peers *peers; /* own reference, or NULL */
    _Atomic uint64_t headers, local, malformed, header_timeouts, ended;
};

/* ---- Life ---------------------------------------------------------------------------------- */

static hs_err
handshakes_watch(int epoll_fd, int fd, uint64_t what)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = what};

    return hs_sys_epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 ? HS_OK : HS_E_SYSTEM;
}

static hs_err
handshakes_open_descriptors(struct hs_handshakes *h, struct hs_error *err)
{
    hs_err rv = hs_timerfd_open(&h->timer, "listen", err);

    if (rv != HS_OK)
        return rv;
    h->epoll_fd = hs_sys_epoll_create1(EPOLL_CLOEXEC);
    if (h->epoll_fd < 0 || handshakes_watch(h->epoll_fd, h->timer.fd, TIMER_EVENT) != HS_OK ||
        handshakes_watch(h->epoll_fd, h->listen_fd, LISTENER_EVENT) != HS_OK)
        return hs_err_set(err, HS_E_SYSTEM, errno, "listen", "descriptors for handshakes");
    h->listening = true;
    return HS_OK;
}

static hs_err
handshakes_allocate(struct hs_handshakes *h, struct hs_error *err)
{
    h->slots = hs_sys_calloc(h->max, sizeof(*h->slots));
    h->free_slots = hs_sys_calloc(h->max, sizeof(*h->free_slots));
    if (h->slots == NULL || h->free_slots == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "listen", "no memory for handshakes");
    for (size_t i = 0; i < h->max; i++) {
        hs_list_init(&h->slots[i].link);
        h->slots[i].timer = (struct hs_timer)HS_TIMER_INIT;
    }
    while (h->n_free < h->max) {
        h->free_slots[h->n_free] = h->max - 1 - h->n_free;
        h->n_free++;
    }
    return handshakes_open_descriptors(h, err);
}

static hs_err
check_tls(const struct hs_tls_listening *o, struct hs_error *err)
{
    if ((o->breaker == NULL) != (o->fallback == NULL))
        return hs_err_setx(err, HS_E_INVALID, "listen",
                           "a breaker has no use without a fallback, nor a fallback without one");
    if ((o->config != NULL && hs_tls_config_role(o->config) != HS_TLS_SERVER) ||
        (o->fallback != NULL && hs_tls_config_role(o->fallback) != HS_TLS_SERVER))
        return hs_err_setx(err, HS_E_INVALID, "listen", "tls must be a server's configuration");
    if (o->max_handshakes < 1 || o->max_handshakes > 1 << 20)
        return hs_err_setx(err, HS_E_INVALID, "listen",
                           "max_handshakes must be in 1..1048576, got %d", o->max_handshakes);
    return HS_OK;
}

static hs_err
take_tls(struct hs_handshakes *h, const struct hs_tls_listening *o, const struct hs_addr *where,
         struct hs_error *err)
{
    h->max = (size_t)o->max_handshakes;
    h->interval_ns = o->handshakes_per_s > 0 ? HS_NS_PER_S / o->handshakes_per_s : 0;
    if (o->config != NULL)
        h->config = hs_tls_config_ref(o->config);
    if (o->breaker != NULL) {
        h->breaker = hs_breaker_ref(o->breaker);
        h->fallback = hs_tls_config_ref(o->fallback);
        hs_breaker_key_listener(where, &h->key);
        if ((h->witnesses = hs_sys_calloc(1, sizeof(*h->witnesses))) == NULL)
            return hs_err_setx(err, HS_E_NOMEM, "listen", "no memory for a breaker");
    }
    return HS_OK;
}

static hs_err
take_proxies(struct hs_handshakes *h, const struct hs_proxy_listening *o, struct hs_error *err)
{
    hs_err rv;

    if (o->n_from == 0)
        return HS_OK;
    if (o->timeout_ns <= 0)
        return hs_err_setx(err, HS_E_INVALID, "listen",
                           "the time for a PROXY header must be more than 0");
    for (size_t i = 0; i < o->n_from; i++)
        if ((rv = hs_network_check(&o->from[i], err)) != HS_OK)
            return rv;
    if ((h->proxies = hs_sys_calloc(o->n_from, sizeof(*h->proxies))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "listen", "no memory for networks");
    memcpy(h->proxies, o->from, o->n_from * sizeof(*h->proxies));
    h->n_proxies = o->n_from;
    h->header_timeout_ns = o->timeout_ns;
    return HS_OK;
}

hs_err
hs_handshakes_new(const struct hs_listen_options *o, int listen_fd, const struct hs_addr *where,
                  struct hs_peers *peers, struct hs_error *err, struct hs_handshakes **ret_h)
{
    struct hs_handshakes *h;
    hs_err rv;

    if ((rv = check_tls(&o->tls, err)) != HS_OK)
        return rv;
    if ((h = hs_sys_calloc(1, sizeof(*h))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "listen", "no memory for handshakes");
    h->epoll_fd = -1;
    h->timer = (struct hs_timerfd)HS_TIMERFD_INIT;
    h->fork_generation = hs_fork_generation();
    h->listen_fd = listen_fd;
    hs_list_init(&h->silent);
    hs_list_init(&h->ready);
    if (peers != NULL)
        h->peers = hs_peers_ref(peers);
    hs_lock_init(&h->lock, HS_RANK_LISTENER);
    if ((rv = take_tls(h, &o->tls, where, err)) != HS_OK ||
        (rv = take_proxies(h, &o->proxy, err)) != HS_OK ||
        (rv = handshakes_allocate(h, err)) != HS_OK)
        hs_handshakes_free(h);
    else
        *ret_h = h;
    return rv;
}

/* In a forked child the epoll set is the parent's, too: it is only closed, never changed. */
static bool
handshakes_is_ours(const struct hs_handshakes *h)
{
    return h->fork_generation == hs_fork_generation();
}

void
hs_handshakes_free(struct hs_handshakes *h)
{
    if (h == NULL)
        return;
    for (size_t i = 0; h->slots != NULL && i < h->max; i++)
        if (h->slots[i].conn != NULL) {
            hs_conn_abandon(h->slots[i].conn, &h->slots[i].op, NULL);
            hs_conn_unref(h->slots[i].conn);
            hs_proxy_reader_fini(&h->slots[i].header);
        }
    if (h->epoll_fd >= 0)
        (void)close(h->epoll_fd);
    hs_timerfd_close(&h->timer);
    hs_tls_config_unref(h->config);
    hs_tls_config_unref(h->fallback);
    hs_breaker_unref(h->breaker);
    free(h->witnesses);
    if (handshakes_is_ours(h))
        hs_lock_fini(&h->lock);
    hs_peers_unref(h->peers);
    hs_timers_fini(&h->timers);
    free(h->proxies);
    free(h->slots);
    free(h->free_slots);
    free(h);
}

int
hs_handshakes_fileno(const struct hs_handshakes *h)
{
    return h->epoll_fd;
}

/* ---- Newcomers ----------------------------------------------------------------------------- */

static int64_t
next_newcomer_locked(const struct hs_handshakes *h)
{
    int64_t rate = h->interval_ns > 0 ? h->next_start_ns - BURST_NS : 0;

    return rate > h->paused_until_ns ? rate : h->paused_until_ns;
}

static int64_t
room_from_locked(const struct hs_handshakes *h)
{
    if (h->held || h->last_call)
        return HS_NEVER;
    if (h->taken < h->max)
        return 0;
    if (hs_list_empty(&h->silent))
        return HS_NEVER;
    return HS_CONTAINER(h->silent.next, struct slot, link)->since_ns + SILENCE_NS;
}

/* Arms or disarms the listening socket by whether newcomers are welcome. */
static void
update_listening_locked(struct hs_handshakes *h)
{
    int64_t from = next_newcomer_locked(h), room = room_from_locked(h), now = hs_now();
    struct epoll_event ev = {.data.u64 = LISTENER_EVENT};
    bool welcome;

    from = from > room ? from : room;
    welcome = from <= now;
    ev.events = welcome ? EPOLLIN : 0;
    if (h->closed)
        return;
    if (!welcome)
        hs_timerfd_set(&h->timer, from);
    if (welcome == h->listening)
        return;
    h->listening = welcome;
    (void)hs_sys_epoll_ctl(h->epoll_fd, EPOLL_CTL_MOD, h->listen_fd, &ev);
}

static void cut(struct hs_handshakes *h, struct slot *p, enum hs_tls_failure why);

/* Of a WAITING or READY slot, which is the caller's from now on. */
static void
claim_locked(struct hs_handshakes *h, struct slot *p)
{
    hs_list_unlink(&p->link);
    hs_timers_remove(&h->timers, &p->timer);
    p->state = BUSY;
}

/* The oldest silent slot, if newcomers need it; the caller's. */
static struct slot *
claim_evicted_locked(struct hs_handshakes *h, int64_t now)
{
    struct slot *p;

    if (h->closed || h->taken < h->max || room_from_locked(h) > now ||
        next_newcomer_locked(h) > now)
        return NULL;
    p = HS_CONTAINER(h->silent.next, struct slot, link);
    claim_locked(h, p);
    return p;
}

bool
hs_handshakes_take_slot(struct hs_handshakes *h)
{
    int64_t now = hs_now();
    struct slot *evicted;
    bool room;

    hs_lock_take(&h->lock);
    evicted = claim_evicted_locked(h, now);
    if (evicted != NULL) {
        hs_lock_drop(&h->lock);
        cut(h, evicted, HS_TLS_EVICTED);
        hs_lock_take(&h->lock);
    }
    room = !h->closed && !h->held && h->taken < h->max && next_newcomer_locked(h) <= now;
    if (room) {
        h->taken++;
        if (h->interval_ns > 0)
            h->next_start_ns = (h->next_start_ns > now ? h->next_start_ns : now) + h->interval_ns;
    }
    update_listening_locked(h);
    hs_lock_drop(&h->lock);
    return room;
}

void
hs_handshakes_give_back(struct hs_handshakes *h)
{
    hs_lock_take(&h->lock);
    h->taken--;
    h->next_start_ns -= h->interval_ns;
    update_listening_locked(h);
    hs_lock_drop(&h->lock);
}

void
hs_handshakes_hold(struct hs_handshakes *h, bool held)
{
    hs_lock_take(&h->lock);
    if (h->held != held) {
        h->held = held;
        update_listening_locked(h);
    }
    hs_lock_drop(&h->lock);
}

void
hs_handshakes_last_call(struct hs_handshakes *h)
{
    hs_lock_take(&h->lock);
    h->last_call = true;
    update_listening_locked(h);
    hs_lock_drop(&h->lock);
}

static size_t
count_silent_locked(const struct hs_handshakes *h)
{
    size_t n = 0;

    for (const struct hs_list *i = h->silent.next; i != &h->silent; i = i->next)
        n++;
    return n;
}

bool
hs_handshakes_busy(struct hs_handshakes *h)
{
    bool busy;

    hs_lock_take(&h->lock);
    busy = h->taken > count_silent_locked(h);
    hs_lock_drop(&h->lock);
    return busy;
}

void
hs_handshakes_pause(struct hs_handshakes *h, int64_t until_ns)
{
    hs_lock_take(&h->lock);
    if (until_ns > h->paused_until_ns)
        h->paused_until_ns = until_ns;
    update_listening_locked(h);
    hs_lock_drop(&h->lock);
}

/* ---- The breaker --------------------------------------------------------------------------- */

/* What may be wrong with the main settings: what clients refuse, or cannot meet. A client that
 * speaks no TLS, leaves, or has a bad certificate says nothing about them. */
static enum hs_fail
blame(enum hs_tls_failure failure)
{
    switch (failure) {
    case HS_TLS_NONE:
        return HS_FAIL_NONE;
    case HS_TLS_ALERT:
    case HS_TLS_VERSION:
    case HS_TLS_CIPHER:
    case HS_TLS_ALPN:
        return HS_FAIL_TLS_OTHER;
    case HS_TLS_TIMEOUT:
        return HS_FAIL_TIMEOUT;
    case HS_TLS_EMPTY:
    case HS_TLS_ABORTED:
    case HS_TLS_HTTP:
    case HS_TLS_NOT_TLS:
    case HS_TLS_VERIFY:
    case HS_TLS_RESET:
    case HS_TLS_PROTOCOL:
    case HS_TLS_PLAINTEXT:
    case HS_TLS_LOCAL:
    case HS_TLS_EVICTED:
    case HS_TLS_FAILURES:
        break;
    }
    return HS_FAIL_NOT_COUNTED;
}

static void
choose_config(struct hs_handshakes *h, struct slot *p)
{
    p->config = h->config;
    p->permit = (struct hs_permit){0};
    if (h->breaker == NULL ||
        hs_breaker_permit(h->breaker, &h->key, hs_now(), &p->permit) != HS_BREAKER_OPEN)
        return;
    p->config = h->fallback;
    atomic_fetch_add_explicit(&h->fell_back, 1, memory_order_relaxed);
}

/* Not counted: it has said so before. */
static enum hs_fail
hear(struct hs_handshakes *h, const struct slot *p, enum hs_fail fail)
{
    struct hs_addr peer;
    bool counts;

    if (fail == HS_FAIL_NONE || fail == HS_FAIL_NOT_COUNTED ||
        hs_conn_peer_addr(p->conn, NULL, &peer) != HS_OK)
        return fail;
    hs_lock_take(&h->lock);
    counts = hs_witness_counts(h->witnesses, &peer, hs_now());
    hs_lock_drop(&h->lock);
    return counts ? fail : HS_FAIL_NOT_COUNTED;
}

/* The fallback's own success or failure tells nothing about the main settings. */
static void
handshakes_tell_breaker(struct hs_handshakes *h, struct slot *p, enum hs_tls_failure failure)
{
    if (h->breaker != NULL && p->config == h->config)
        hs_breaker_record(h->breaker, &h->key, &p->permit, hear(h, p, blame(failure)), hs_now());
}

/* ---- One handshake ------------------------------------------------------------------------- */

/* Of a slot that the caller owns: moves its connection out. */
static struct hs_conn *
handshakes_leave(struct hs_handshakes *h, struct slot *p)
{
    struct hs_conn *conn = p->conn;
    int fd = hs_conn_fileno(conn);

    if (fd >= 0)
        (void)hs_sys_epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    hs_proxy_reader_fini(&p->header);
    hs_lock_take(&h->lock);
    hs_list_unlink(&p->link);
    p->conn = NULL;
    p->generation++;
    p->state = FREE;
    h->free_slots[h->n_free++] = (size_t)(p - h->slots);
    h->taken--;
    update_listening_locked(h);
    hs_lock_drop(&h->lock);
    return conn;
}

static void
handshakes_drop(struct hs_handshakes *h, struct slot *p)
{
    struct hs_op op = p->op;
    struct hs_conn *conn = handshakes_leave(h, p);

    hs_conn_abandon(conn, &op, NULL);
    hs_conn_unref(conn);
}

static void
handshakes_count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void
cut(struct hs_handshakes *h, struct slot *p, enum hs_tls_failure why)
{
    if (p->stage == SECURING) {
        handshakes_tell_breaker(h, p, why);
        handshakes_count(&h->failed[why]);
    } else {
        handshakes_count(&h->ended);
    }
    handshakes_drop(h, p);
}

/* Behind a proxy that has spoken it is about the client. */
static bool
is_silent(const struct slot *p)
{
    return p->stage == HEADER ? p->header.n == 0 : !hs_conn_tls_has_heard(p->conn);
}

/* Back to waiting, for what the handshake wants. False: it has to be cut. */
static bool
wait_again(struct hs_handshakes *h, struct slot *p, bool first)
{
    struct epoll_event ev = {
        .events = EPOLLONESHOT | (p->op.want_events == POLLOUT ? EPOLLOUT : EPOLLIN),
        .data.u64 = (uint64_t)p->generation << 32 | (uint64_t)(p - h->slots),
    };
    bool armed = false, silent = is_silent(p);

    hs_lock_take(&h->lock);
    if (!h->closed && hs_timers_reserve(&h->timers)) {
        p->state = WAITING;
        armed = hs_sys_epoll_ctl(h->epoll_fd, first ? EPOLL_CTL_ADD : EPOLL_CTL_MOD,
                                 hs_conn_fileno(p->conn), &ev) == 0;
        if (armed) {
            hs_timers_set(&h->timers, &p->timer, p->op.want_at_ns);
            hs_timerfd_set(&h->timer, p->op.want_at_ns);
        } else {
            p->state = BUSY;
        }
        if (armed && silent) {
            hs_list_append(&h->silent, &p->link);
            update_listening_locked(h); /* A full house may have become one with room. */
        }
    }
    hs_lock_drop(&h->lock);
    return armed;
}

static void
cut_header(struct hs_handshakes *h, struct slot *p, hs_err why)
{
    if (why == HS_E_BAD_FRAME)
        handshakes_count(&h->malformed);
    else if (why == HS_E_DEADLINE)
        handshakes_count(&h->header_timeouts);
    else if (why != HS_E_LIMIT) /* which its limit has counted */
        handshakes_count(&h->ended);
    if (why == HS_E_LIMIT)
        hs_conn_close(p->conn, true);
    handshakes_drop(h, p);
}

/* HS_E_LIMIT: the client has as many as it may. */
static hs_err
let_client_in(struct hs_handshakes *h, struct slot *p)
{
    struct hs_peer_slots slots;
    struct hs_addr client;

    if (h->peers == NULL || hs_conn_peer_addr(p->conn, NULL, &client) != HS_OK)
        return HS_OK;
    return hs_peers_enter(h->peers, &client, hs_now(), &slots)
               ? hs_peers_seat(h->peers, &slots, p->conn, NULL)
               : HS_E_LIMIT;
}

/* Who is behind the proxy. HS_OK: the next stage may begin. */
static hs_err
read_header(struct hs_handshakes *h, struct slot *p)
{
    bool local;
    hs_err rv = hs_proxy_read(&p->header, p->conn, NULL, &local);

    if (rv == HS_OK) {
        handshakes_count(local ? &h->local : &h->headers);
        return local ? HS_OK : let_client_in(h, p);
    } else if (rv == HS_WANT) {
        p->op.want_events = POLLIN;
        p->op.want_at_ns = p->header_until_ns;
        if (hs_now() >= p->header_until_ns)
            return HS_E_DEADLINE;
    }
    return rv;
}

static void
begin_securing(struct hs_handshakes *h, struct slot *p)
{
    p->stage = SECURING;
    if (h->config == NULL)
        return;
    p->since_ns = hs_now(); /* The client's time to speak. */
    handshakes_count(&h->started);
    choose_config(h, p);
}

static hs_err
handshakes_secure(struct hs_handshakes *h, struct slot *p, struct hs_error *err)
{
    hs_err rv;

    if (h->config == NULL)
        return HS_OK;
    if ((rv = hs_conn_start_tls(p->conn, &p->op, p->config, NULL, err)) == HS_OK) {
        handshakes_tell_breaker(h, p, HS_TLS_NONE);
        handshakes_count(&h->completed);
    }
    return rv;
}

/* While newcomers are held, what is ready waits. Its descriptor is not armed. */
static bool
keep_ready(struct hs_handshakes *h, struct slot *p)
{
    bool kept;

    hs_lock_take(&h->lock);
    kept = h->held && !h->closed;
    if (kept) {
        p->state = READY;
        hs_list_append(&h->ready, &p->link);
    }
    hs_lock_drop(&h->lock);
    return kept;
}

/* Of a BUSY slot. The connection when it is ready, else NULL. */
static struct hs_conn *
handshakes_step(struct hs_handshakes *h, struct slot *p, bool first)
{
    struct hs_error err = {0};
    hs_err rv = HS_OK;

    /* 1. Who the client is, if it comes through a trusted proxy. */
    if (p->stage == HEADER) {
        if ((rv = read_header(h, p)) < 0) {
            cut_header(h, p, rv);
            return NULL;
        }
        if (rv == HS_OK)
            begin_securing(h, p);
    }
    /* 2. TLS as far as the bytes go. Done: to the caller, or kept while nobody takes it. */
    if (rv == HS_OK && (rv = handshakes_secure(h, p, &err)) == HS_OK)
        return keep_ready(h, p) ? NULL : handshakes_leave(h, p);
    /* 3. Failed: cut, and counted by why. Else it waits for the client, with a time limit. */
    if (rv < 0)
        cut(h, p, err.tls != HS_TLS_NONE ? err.tls : HS_TLS_LOCAL);
    else if (!wait_again(h, p, first))
        cut(h, p, HS_TLS_LOCAL);
    return NULL;
}

bool
hs_handshakes_expect_header(const struct hs_handshakes *h, const struct hs_addr *peer)
{
    return h->n_proxies > 0 && hs_networks_have(h->proxies, h->n_proxies, peer);
}

static bool
needs_header(const struct hs_handshakes *h, struct hs_conn *conn)
{
    struct hs_addr peer;

    return h->n_proxies > 0 && hs_conn_peer_addr(conn, NULL, &peer) == HS_OK &&
           hs_handshakes_expect_header(h, &peer);
}

struct hs_conn *
hs_handshakes_add(struct hs_handshakes *h, struct hs_conn *conn)
{
    struct slot *p;

    hs_lock_take(&h->lock);
    p = &h->slots[h->free_slots[--h->n_free]];
    p->state = BUSY;
    p->conn = conn;
    p->op = (struct hs_op)HS_OP_INIT(HS_NEVER, NULL);
    p->op.stepping = true;
    p->since_ns = hs_now();
    hs_lock_drop(&h->lock);
    p->stage = HEADER;
    if (needs_header(h, conn))
        p->header_until_ns = hs_deadline_after(h->header_timeout_ns);
    else
        begin_securing(h, p);
    return handshakes_step(h, p, true);
}

/* ---- What is due --------------------------------------------------------------------------- */

static struct slot *
handshakes_claim(struct hs_handshakes *h, uint64_t event)
{
    struct slot *p = &h->slots[(uint32_t)event];

    hs_lock_take(&h->lock);
    if (p->state == WAITING && p->generation == event >> 32)
        claim_locked(h, p);
    else
        p = NULL;
    hs_lock_drop(&h->lock);
    return p;
}

/* The one whose time has been up for the longest; sets the timer for the next. */
static struct slot *
claim_expired(struct hs_handshakes *h)
{
    struct slot *found = NULL;
    struct hs_timer *timer;

    hs_lock_take(&h->lock);
    if ((timer = hs_timers_expired(&h->timers, hs_now())) != NULL) {
        found = HS_CONTAINER(timer, struct slot, timer);
        claim_locked(h, found);
    }
    hs_timerfd_heard(&h->timer);
    hs_timerfd_set(&h->timer, hs_timers_earliest(&h->timers));
    update_listening_locked(h);
    hs_lock_drop(&h->lock);
    return found;
}

static struct slot *
claim_ready(struct hs_handshakes *h)
{
    struct slot *p = NULL;

    hs_lock_take(&h->lock);
    if (!h->held && !hs_list_empty(&h->ready)) {
        p = HS_CONTAINER(h->ready.next, struct slot, link);
        claim_locked(h, p);
    }
    hs_lock_drop(&h->lock);
    return p;
}

enum hs_due
hs_handshakes_next(struct hs_handshakes *h, struct hs_conn **ret_conn)
{
    struct epoll_event ev;
    struct slot *p;

    if ((p = claim_ready(h)) != NULL) {
        *ret_conn = handshakes_leave(h, p);
        return HS_DUE_CONNECTION;
    }
    if (epoll_wait(h->epoll_fd, &ev, 1, 0) != 1)
        return HS_DUE_NOTHING;
    if (ev.data.u64 == LISTENER_EVENT)
        return HS_DUE_NEWCOMERS;
    p = ev.data.u64 == TIMER_EVENT ? claim_expired(h) : handshakes_claim(h, ev.data.u64);
    if (p != NULL && (*ret_conn = handshakes_step(h, p, false)) != NULL)
        return HS_DUE_CONNECTION;
    return HS_DUE_SOMETHING;
}

void
hs_handshakes_close(struct hs_handshakes *h)
{
    if (!handshakes_is_ours(h))
        return;
    hs_lock_take(&h->lock);
    if (!h->closed && h->listening)
        (void)hs_sys_epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, h->listen_fd, NULL);
    h->closed = true;
    h->listening = false;
    hs_lock_drop(&h->lock);
    for (size_t i = 0; i < h->max; i++) {
        struct slot *p = &h->slots[i];
        enum state state;

        hs_lock_take(&h->lock);
        if ((state = p->state) == WAITING || state == READY)
            claim_locked(h, p);
        hs_lock_drop(&h->lock);
        if (state == WAITING)
            cut(h, p, HS_TLS_LOCAL);
        else if (state == READY)
            hs_conn_unref(handshakes_leave(h, p));
    }
}

void
hs_handshakes_proxy_stats(struct hs_handshakes *h, struct hs_proxy_stats *ret_stats)
{
    *ret_stats = (struct hs_proxy_stats){.headers = h->headers,
                                         .local = h->local,
                                         .malformed = h->malformed,
                                         .timeout = h->header_timeouts,
                                         .ended = h->ended};
}

void
hs_handshakes_stats(struct hs_handshakes *h, struct hs_handshake_stats *ret_stats)
{
    *ret_stats = (struct hs_handshake_stats){
        .started = h->started, .completed = h->completed, .fallback = h->fell_back};
    for (int i = 0; i < HS_TLS_FAILURES; i++)
        ret_stats->failed[i] = h->failed[i];
    hs_lock_take(&h->lock);
    ret_stats->in_progress = h->taken;
    ret_stats->silent = count_silent_locked(h);
    hs_lock_drop(&h->lock);
}
