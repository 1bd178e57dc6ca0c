/* handshakes.c: see handshakes.h.
 *
 * A slot is free (no connection), parked in the reactor, owned by the one thread that steps it,
 * without the lock (a step can take a millisecond of arithmetic), or ready: done while held, until
 * somebody takes it. It goes from the stage HEADER, when a proxy has still to say for whom it
 * comes, to SECURING, the TLS handshake, if there is TLS.
 *
 * The gate is the listening socket, parked as well: armed while newcomers are welcome, else only
 * with the time from which they may be. The one who is given it parks it again before accepting, so
 * that any number of threads accept at once.
 *
 * Invariants, all under lock (rank LISTENER):
 * - Who is parked, and who owns what, is the reactor's (reactor.h): two threads never step one
 *   handshake, and nobody arms a descriptor that another has closed.
 * - The lane SILENT has those of which not a byte has come in their stage, by their arrival in it.
 * - ready lists the ready ones; their descriptors are not armed.
 * - taken counts slots that are not free and slots promised (hs_handshakes_take_slot).
 * - Newcomers are welcome unless there is no room, they are paused, or held. A slot that can be
 *   evicted is room. Whatever changes that looks at the gate (update_gate_locked).
 * - While gate_parked somebody will be given the gate, at gate_at_ns or before. While the kernel
 *   refuses to park it nobody is: then who waits has to look, at look_ns (else HS_NEVER).
 * - After closed nothing is parked; what others own is cut by them.
 */
#include "handshakes.h"

#include "ever.h"
#include "proxy_reader.h"
#include "shed.h"
#include "witnesses.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/list.h"
#include "../base/lock.h"
#include "../base/network.h"
#include "../base/sys.h"
#include "../base/time.h"
#include "../cancel/reactor.h"
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

/* How much of the rate may be used at once after a quiet time. */
#define BURST_NS (100 * HS_NS_PER_MS)
/* A client's hello comes right behind the end of TCP's handshake. 256 slots, each held for so
 * long, let a thousand newcomers a second by, whatever strangers do. */
#define SILENCE_NS (250 * HS_NS_PER_MS)

#define RETRY_NS (10 * HS_NS_PER_MS)
#define WELCOME 0

enum lane { SILENT, SPEAKING };
enum stage { HEADER, SECURING };

struct slot {
    struct hs_conn *conn; /* owns */
    enum stage stage;
    struct hs_proxy_reader header; /* own; in the stage HEADER */
    int64_t header_until_ns;
    struct hs_tls_config *config; /* borrows: one of the two */
    struct hs_permit permit;
    struct hs_op op;
    struct hs_parked parked; /* until op.want_at_ns */
    struct hs_list link;     /* in ready, or alone */
    int64_t since_ns;
};

struct hs_handshakes {
    struct hs_tls_config *config, *fallback; /* own references; config NULL: no TLS */
    struct hs_breaker *breaker;              /* owns a reference, or NULL */
    struct hs_breaker_key key;
    struct hs_witnesses *witnesses; /* owns; guarded by lock; NULL without a breaker */
    unsigned fork_generation;
    struct hs_reactor *reactor; /* own */
    int listen_fd;              /* borrows */
    size_t max;
    int64_t interval_ns; /* between two beginnings, or 0 */
    struct hs_lock lock;
    struct slot *slots; /* own; guarded by lock but for owned ones, as the rest */
    size_t *free_slots; /* own; a stack */
    size_t n_free, taken;
    struct hs_list ready; /* slot.link */
    struct hs_parked gate;
    int64_t gate_at_ns; /* WELCOME: armed */
    bool gate_parked, closed, held, last_call;
    _Atomic int64_t look_ns; /* written under lock, as the next */
    atomic_bool look_is_new; /* those who wait have not heard of it */
    int64_t next_start_ns, paused_until_ns;
    _Atomic uint64_t started, completed, fell_back, failed[HS_TLS_FAILURES];
    struct hs_network *proxies; /* own; immutable */
    size_t n_proxies;
    int64_t header_timeout_ns;
    struct hs_peers *peers; /* own reference, or NULL */
    _Atomic uint64_t headers, local, malformed, header_timeouts, ended;
};

/* ---- Life ---------------------------------------------------------------------------------- */

static hs_err
handshakes_allocate(struct hs_handshakes *h, struct hs_error *err)
{
    h->slots = hs_sys_calloc(h->max, sizeof(*h->slots));
    h->free_slots = hs_sys_calloc(h->max, sizeof(*h->free_slots));
    if (h->slots == NULL || h->free_slots == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "listen", "no memory for handshakes");
    for (size_t i = 0; i < h->max; i++)
        hs_list_init(&h->slots[i].link);
    while (h->n_free < h->max) {
        h->free_slots[h->n_free] = h->max - 1 - h->n_free;
        h->n_free++;
    }
    return hs_reactor_new(err, &h->reactor);
}

static hs_err
gate_open(struct hs_handshakes *h, struct hs_error *err)
{
    hs_err rv;

    h->gate.lane = SPEAKING;
    rv = hs_reactor_park(h->reactor, &h->gate, h->listen_fd, EPOLLIN, HS_NEVER, err);
    h->gate_parked = rv == HS_OK;
    h->look_ns = HS_NEVER;
    return rv;
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
    h->fork_generation = hs_fork_generation();
    h->listen_fd = listen_fd;
    hs_list_init(&h->ready);
    if (peers != NULL)
        h->peers = hs_peers_ref(peers);
    hs_lock_init(&h->lock, HS_RANK_LISTENER);
    if ((rv = take_tls(h, &o->tls, where, err)) != HS_OK ||
        (rv = take_proxies(h, &o->proxy, err)) != HS_OK ||
        (rv = handshakes_allocate(h, err)) != HS_OK || (rv = gate_open(h, err)) != HS_OK)
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

/* The next that waits or is due, the caller's from now on; NULL: none. The gate only leaves. */
static struct slot *
take_parked(struct hs_handshakes *h)
{
    struct hs_parked *parked;

    while (hs_reactor_next(h->reactor, false, NULL, &parked) == HS_OK)
        if (parked == &h->gate)
            hs_reactor_leave(h->reactor, parked, h->listen_fd);
        else
            return HS_CONTAINER(parked, struct slot, parked);
    return NULL;
}

void
hs_handshakes_free(struct hs_handshakes *h)
{
    if (h == NULL)
        return;
    if (h->reactor != NULL && handshakes_is_ours(h)) { /* It was detached, not closed. */
        hs_reactor_call_all(h->reactor);
        while (take_parked(h) != NULL)
            continue;
    }
    for (size_t i = 0; h->slots != NULL && i < h->max; i++)
        if (h->slots[i].conn != NULL) {
            hs_conn_abandon(h->slots[i].conn, &h->slots[i].op, NULL);
            hs_conn_unref(h->slots[i].conn);
            hs_proxy_reader_fini(&h->slots[i].header);
        }
    hs_reactor_free(h->reactor);
    hs_tls_config_unref(h->config);
    hs_tls_config_unref(h->fallback);
    hs_breaker_unref(h->breaker);
    free(h->witnesses);
    if (handshakes_is_ours(h))
        hs_lock_fini(&h->lock);
    hs_peers_unref(h->peers);
    free(h->proxies);
    free(h->slots);
    free(h->free_slots);
    free(h);
}

int
hs_handshakes_fileno(const struct hs_handshakes *h)
{
    return hs_reactor_fileno(h->reactor);
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
    int64_t oldest;

    if (h->held || h->last_call)
        return HS_NEVER;
    if (h->taken < h->max)
        return 0;
    oldest = hs_reactor_earliest(h->reactor, SILENT);
    return oldest == HS_NEVER ? HS_NEVER : oldest + SILENCE_NS;
}

/* Of one that is not parked. What cannot be armed is parked for a moment; where no time can be set
 * either it is not parked, and has to be looked for at that time. Made due instead it would come
 * again at once, and again, for as long as newcomers have to wait. */
static void
park_gate_locked(struct hs_handshakes *h, int64_t at_ns)
{
    int64_t soon = hs_deadline_after(RETRY_NS);
    int64_t had = atomic_load(&h->look_ns);

    h->gate_at_ns = at_ns != WELCOME ? at_ns : soon;
    h->gate_parked = true;
    if (at_ns == WELCOME &&
        hs_reactor_park(h->reactor, &h->gate, h->listen_fd, EPOLLIN, HS_NEVER, NULL) == HS_OK)
        h->gate_at_ns = WELCOME;
    else
        h->gate_parked = hs_reactor_park(h->reactor, &h->gate, -1, 0, h->gate_at_ns, NULL) == HS_OK;
    if (h->gate_parked)
        soon = HS_NEVER;
    else if (h->gate_at_ns != HS_NEVER)
        soon = h->gate_at_ns;
    atomic_store(&h->look_ns, soon);
    if (soon < had)
        atomic_store(&h->look_is_new, true);
}

/* Parks the gate by whether newcomers are welcome, or from when. True: they are. */
static bool
update_gate_locked(struct hs_handshakes *h)
{
    int64_t newcomer = next_newcomer_locked(h), room = room_from_locked(h);
    int64_t from = newcomer > room ? newcomer : room;
    bool welcome = from <= hs_now();

    if (h->closed)
        return false;
    if (h->gate_parked) {
        /* 1. As it should be: it tells no later than it has to. */
        if (welcome ? h->gate_at_ns == WELCOME : h->gate_at_ns != WELCOME && h->gate_at_ns <= from)
            return welcome;
        /* 2. It is due already: the one who is given it looks again. */
        if (!hs_reactor_take_this(h->reactor, &h->gate))
            return welcome;
    }
    park_gate_locked(h, welcome ? WELCOME : from);
    return welcome;
}

static void cut(struct hs_handshakes *h, struct slot *p, enum hs_tls_failure why);

static bool
had_a_moment(const struct hs_parked *parked, const void *now)
{
    return parked->since_ns + SILENCE_NS <= *(const int64_t *)now;
}

/* The oldest silent slot, if newcomers need it; the caller's. */
static struct slot *
take_evicted_locked(struct hs_handshakes *h, int64_t now)
{
    struct hs_parked *found;

    if (h->closed || h->held || h->last_call || h->taken < h->max || next_newcomer_locked(h) > now)
        return NULL;
    found = hs_reactor_take(h->reactor, SILENT, had_a_moment, &now);
    return found != NULL ? HS_CONTAINER(found, struct slot, parked) : NULL;
}

bool
hs_handshakes_take_slot(struct hs_handshakes *h)
{
    int64_t now = hs_now();
    struct slot *evicted;
    bool room;

    hs_lock_take(&h->lock);
    evicted = take_evicted_locked(h, now);
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
    (void)update_gate_locked(h);
    hs_lock_drop(&h->lock);
    return room;
}

void
hs_handshakes_give_back(struct hs_handshakes *h)
{
    hs_lock_take(&h->lock);
    h->taken--;
    h->next_start_ns -= h->interval_ns;
    (void)update_gate_locked(h);
    hs_lock_drop(&h->lock);
}

void
hs_handshakes_hold(struct hs_handshakes *h, bool held)
{
    hs_lock_take(&h->lock);
    if (h->held != held) {
        h->held = held;
        (void)update_gate_locked(h);
    }
    hs_lock_drop(&h->lock);
}

bool
hs_handshakes_are_held(struct hs_handshakes *h)
{
    bool held;

    hs_lock_take(&h->lock);
    held = h->held;
    hs_lock_drop(&h->lock);
    return held;
}

void
hs_handshakes_last_call(struct hs_handshakes *h)
{
    hs_lock_take(&h->lock);
    h->last_call = true;
    (void)update_gate_locked(h);
    hs_lock_drop(&h->lock);
}

bool
hs_handshakes_busy(struct hs_handshakes *h)
{
    bool busy;

    hs_lock_take(&h->lock);
    busy = h->taken > hs_reactor_count(h->reactor, SILENT);
    hs_lock_drop(&h->lock);
    return busy;
}

void
hs_handshakes_pause(struct hs_handshakes *h, int64_t until_ns)
{
    hs_lock_take(&h->lock);
    if (until_ns > h->paused_until_ns)
        h->paused_until_ns = until_ns;
    (void)update_gate_locked(h);
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

/* One client speaks once: what it said before is not counted again. */
static enum hs_fail
count_witness(struct hs_handshakes *h, const struct slot *p, enum hs_fail fail)
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
        hs_breaker_record(h->breaker, &h->key, &p->permit, count_witness(h, p, blame(failure)),
                          hs_now());
}

/* ---- One handshake ------------------------------------------------------------------------- */

/* Of a slot that the caller owns: moves its connection out. */
static struct hs_conn *
handshakes_leave(struct hs_handshakes *h, struct slot *p)
{
    struct hs_conn *conn = p->conn;

    hs_reactor_leave(h->reactor, &p->parked, hs_conn_fileno(conn));
    hs_proxy_reader_fini(&p->header);
    hs_lock_take(&h->lock);
    hs_list_unlink(&p->link);
    p->conn = NULL;
    h->free_slots[h->n_free++] = (size_t)(p - h->slots);
    h->taken--;
    (void)update_gate_locked(h);
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
        if (why == HS_TLS_EVICTED)
            hs_shed_note_conn(HS_SHED_SILENT, p->conn);
        else if (why == HS_TLS_TIMEOUT)
            hs_shed_note_conn(HS_SHED_SLOW_HANDSHAKE, p->conn);
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
wait_again(struct hs_handshakes *h, struct slot *p)
{
    uint32_t events = p->op.want_events == POLLOUT ? EPOLLOUT : EPOLLIN;
    bool silent = is_silent(p), parked = false;
    int fd = hs_conn_fileno(p->conn);

    p->parked.lane = silent ? SILENT : SPEAKING;
    p->parked.since_ns = silent ? p->since_ns : 0;
    hs_lock_take(&h->lock);
    if (!h->closed && fd >= 0)
        parked =
            hs_reactor_park(h->reactor, &p->parked, fd, events, p->op.want_at_ns, NULL) == HS_OK;
    if (parked && silent)
        (void)update_gate_locked(h); /* A full house may have become one with room. */
    hs_lock_drop(&h->lock);
    return parked;
}

static void
cut_header(struct hs_handshakes *h, struct slot *p, hs_err why)
{
    if (why == HS_E_BAD_FRAME) {
        handshakes_count(&h->malformed);
        hs_shed_note_conn(HS_SHED_BAD_HEADER, p->conn);
    } else if (why == HS_E_DEADLINE) {
        handshakes_count(&h->header_timeouts);
        hs_shed_note_conn(HS_SHED_SLOW_HEADER, p->conn);
    } else if (why != HS_E_LIMIT) { /* which its limit has counted */
        handshakes_count(&h->ended);
    }
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
        hs_ever_count_listener(HS_LISTENER_HANDSHAKES);
    }
    return rv;
}

/* While newcomers are held, or when the one who steps it takes nobody, what is ready waits. Its
 * descriptor is not armed. */
static bool
keep_ready(struct hs_handshakes *h, struct slot *p, bool takes)
{
    bool kept;

    hs_lock_take(&h->lock);
    kept = (h->held || !takes) && !h->closed;
    if (kept) {
        hs_list_append(&h->ready, &p->link);
    }
    hs_lock_drop(&h->lock);
    return kept;
}

/* Of an owned slot. The connection when it is ready, else NULL. takes: the caller has use for it;
 * else it gets one only after the end, to let go of it. */
static struct hs_conn *
handshakes_step(struct hs_handshakes *h, struct slot *p, bool takes)
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
        return keep_ready(h, p, takes) ? NULL : handshakes_leave(h, p);
    /* 3. Failed: cut, and counted by why. Else it waits for the client, with a time limit. */
    if (rv < 0)
        cut(h, p, err.tls != HS_TLS_NONE ? err.tls : HS_TLS_LOCAL);
    else if (!wait_again(h, p))
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

/* Where the gate cannot be armed, nobody is told of newcomers: they are looked for. */
static bool
are_there_newcomers_locked(struct hs_handshakes *h, bool told)
{
    return update_gate_locked(h) && (told || h->gate_at_ns != WELCOME);
}

static enum hs_due
gate_is_due(struct hs_handshakes *h)
{
    bool newcomers = h->gate.cause == HS_CAUSE_READY; /* Ours until it is parked again. */

    hs_lock_take(&h->lock);
    h->gate_parked = false;
    newcomers = are_there_newcomers_locked(h, newcomers);
    hs_lock_drop(&h->lock);
    return newcomers ? HS_DUE_NEWCOMERS : HS_DUE_SOMETHING;
}

static enum hs_due
look_at_gate(struct hs_handshakes *h)
{
    bool newcomers = false;

    hs_lock_take(&h->lock);
    if (!h->gate_parked)
        newcomers = are_there_newcomers_locked(h, false);
    hs_lock_drop(&h->lock);
    return newcomers ? HS_DUE_NEWCOMERS : HS_DUE_SOMETHING;
}

static bool
is_time_to_look(const struct hs_handshakes *h)
{
    int64_t look_ns = atomic_load(&h->look_ns);

    return look_ns != HS_NEVER && look_ns <= hs_now();
}

int64_t
hs_handshakes_look_ns(const struct hs_handshakes *h)
{
    return atomic_load(&h->look_ns);
}

bool
hs_handshakes_look_is_new(struct hs_handshakes *h)
{
    return atomic_load(&h->look_is_new) && atomic_exchange(&h->look_is_new, false);
}

void
hs_handshakes_tell_gate(struct hs_handshakes *h)
{
    hs_lock_take(&h->lock);
    if (!h->gate_parked && !h->closed) {
        h->gate_parked = true;
        atomic_store(&h->look_ns, HS_NEVER);
        hs_reactor_queue(h->reactor, &h->gate);
    }
    hs_lock_drop(&h->lock);
}

static struct slot *
take_ready(struct hs_handshakes *h)
{
    struct slot *p = NULL;

    hs_lock_take(&h->lock);
    if ((!h->held || h->closed) && !hs_list_empty(&h->ready)) {
        p = HS_CONTAINER(h->ready.next, struct slot, link);
        hs_list_unlink(&p->link);
    }
    hs_lock_drop(&h->lock);
    return p;
}

enum hs_due
hs_handshakes_next(struct hs_handshakes *h, struct hs_error *err, struct hs_conn **ret_conn)
{
    struct hs_parked *parked;
    struct hs_conn *conn;
    struct slot *p;
    hs_err rv;

    /* 1. What became ready while nobody took it goes first: it has waited for longest. */
    if (ret_conn != NULL && (p = take_ready(h)) != NULL) {
        *ret_conn = handshakes_leave(h, p);
        return HS_DUE_CONNECTION;
    }
    /* 2. One that is due: the gate, or a handshake that is this caller's from here on. If the set
     * were closed the gate would be due again and again. */
    if (hs_reactor_check(h->reactor, err) != HS_OK)
        return HS_DUE_FAILED;
    if (is_time_to_look(h))
        return look_at_gate(h);
    if ((rv = hs_reactor_poll_any(h->reactor, err, &parked)) != HS_OK)
        return rv == HS_E_SYSTEM ? HS_DUE_FAILED : HS_DUE_NOTHING;
    if (parked == &h->gate)
        return gate_is_due(h);
    /* 3. One step of it, without the lock. */
    p = HS_CONTAINER(parked, struct slot, parked);
    conn = handshakes_step(h, p, ret_conn != NULL);
    if (conn == NULL)
        return HS_DUE_SOMETHING;
    if (ret_conn == NULL) { /* It was closed meanwhile: nobody will take it. */
        hs_conn_unref(conn);
        return HS_DUE_SOMETHING;
    }
    *ret_conn = conn;
    return HS_DUE_CONNECTION;
}

bool
hs_handshakes_wait_for_taker(struct hs_handshakes *h)
{
    bool wait;

    hs_lock_take(&h->lock);
    wait = !h->held && !hs_list_empty(&h->ready);
    hs_lock_drop(&h->lock);
    return wait;
}

void
hs_handshakes_close(struct hs_handshakes *h)
{
    struct slot *p;

    if (!handshakes_is_ours(h))
        return;
    hs_lock_take(&h->lock);
    h->closed = true;
    atomic_store(&h->look_ns, HS_NEVER);
    hs_lock_drop(&h->lock);
    while ((p = take_ready(h)) != NULL)
        hs_conn_unref(handshakes_leave(h, p));
    hs_reactor_call_all(h->reactor);
    while ((p = take_parked(h)) != NULL)
        cut(h, p, HS_TLS_LOCAL);
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
    if (!handshakes_is_ours(h))
        return; /* Those under way are the parent's, and so is the lock. */
    hs_lock_take(&h->lock);
    ret_stats->in_progress = h->taken;
    ret_stats->silent = hs_reactor_count(h->reactor, SILENT);
    hs_lock_drop(&h->lock);
}
