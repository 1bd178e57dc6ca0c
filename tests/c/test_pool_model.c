/* test_pool_model.c: what a peer can do to each connection, beside each way in which a caller can
 * fail: callers, peers and the pool's owner act in an order that a seed decides.
 *
 * Callers are stepped by hand, one thread plays all of them and the peer, so that after each act it
 * is known what every connection has been through. The pool is the real one, over real sockets;
 * only the pool worker's thread is not in step. After each act: the pool's books agree with
 * themselves and with the callers; a call that failed has left its output alone; nobody is lent a
 * connection on which the peer had said or ended something; every answer is the one to the
 * question.
 *
 * In C and not with hypothesis, since thousands of acts a second find what dozens do not, and since
 * shrinking needs runs that repeat exactly, which the pool worker does not allow. The binding has
 * storms of its own.
 *
 * A failure names its test with its seed: "any_order_of_acts_keeps_the_promises:17".
 * HS_MODEL_SEED=17 repeats it and prints each act; HS_MODEL_SEEDS=5000 runs so many;
 * HS_MODEL_PROBE_AFTER=1000000 makes pools that do not ask, which must fail. What else it must find
 * is in tests/simulation/mutations.py: `make check-simulate` breaks the pool so, and looks.
 */
#include "pool_support.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/sockios.h>

#define SEEDS 120
#define ACTS 400
#define CALLERS 6
#define PEERS 64

struct peer {
    int fd; /* -1: there is none */
    uint16_t port;
    bool excess; /* it has sent what nobody asked for, and it has arrived */
    bool ended;  /* its end has arrived */
    bool vague;  /* reset: nobody can tell when that arrives */
};

enum doing { NOTHING, WAITING, HOLDING };

struct actor {
    enum doing doing;
    struct stepped s;
    struct hs_token *token;
    bool cancelled;
};

struct world {
    uint64_t random;
    bool tells;
    struct hs_pool *p;
    struct server server;
    int kept; /* keeps its port from others while it is down */
    bool up;
    struct peer peers[PEERS];
    struct actor actors[CALLERS];
    uint8_t question;
};

static void
tell(const struct world *w, const char *format, ...)
{
    va_list args;

    if (!w->tells)
        return;
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
}

static unsigned
any(struct world *w, unsigned n)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (unsigned)((w->random >> 11) % n);
}

/* ---- The peer ------------------------------------------------------------------------------ */

static void
hang_up(struct peer *peer)
{
    if (peer->fd >= 0)
        (void)close(peer->fd);
    *peer = (struct peer){.fd = -1};
}

static uint16_t
port_of(const struct hs_addr *addr)
{
    return ntohs(((const struct sockaddr_in *)(const void *)&addr->storage)->sin_port);
}

/* Takes all connections that have come. A number that is used again is another connection. */
static void
accept_all(struct world *w)
{
    struct hs_addr from = {.len = sizeof(from.storage)};
    int fd;

    while (w->up && (fd = accept4(w->server.fd, &from.sa, &from.len, SOCK_CLOEXEC)) >= 0) {
        struct peer *at = NULL;

        for (size_t i = 0; i < PEERS; i++)
            if (w->peers[i].fd >= 0 && w->peers[i].port == port_of(&from))
                at = &w->peers[i];
        for (size_t i = 0; i < PEERS && at == NULL; i++)
            if (w->peers[i].fd < 0)
                at = &w->peers[i];
        if (at == NULL)
            at = &w->peers[any(w, PEERS)];
        hang_up(at);
        *at = (struct peer){.fd = fd, .port = port_of(&from)};
        from.len = sizeof(from.storage);
    }
}

static struct peer *
peer_of(struct world *w, struct hs_conn *c)
{
    struct hs_addr addr;

    accept_all(w);
    if (hs_conn_local_addr(c, NULL, &addr) != HS_OK)
        return NULL;
    for (size_t i = 0; i < PEERS; i++)
        if (w->peers[i].fd >= 0 && w->peers[i].port == port_of(&addr))
            return &w->peers[i];
    return NULL;
}

/* Returns once the kernel on the other side has what was sent, or the connection is gone. */
static void
until_arrived(int fd, bool with_end)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    int unsent = 0;

    EVENTUALLY(
        ioctl(fd, SIOCOUTQ, &unsent) != 0 || unsent == 0 ||
        (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 && info.tcpi_state == TCP_CLOSE));
    if (with_end)
        EVENTUALLY(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
                   info.tcpi_state != TCP_FIN_WAIT1);
}

static void
say_unasked(struct peer *peer)
{
    if (send(peer->fd, "???", 3, MSG_NOSIGNAL) != 3)
        return;
    until_arrived(peer->fd, false);
    peer->excess = true;
}

static void
end(struct peer *peer)
{
    if (shutdown(peer->fd, SHUT_WR) != 0)
        return;
    until_arrived(peer->fd, true);
    peer->ended = true;
}

static void
reset(struct peer *peer)
{
    const struct linger now = {.l_onoff = 1};

    (void)setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    hang_up(peer);
}

static void
listen_again(struct world *w)
{
    w->server.fd = listener_at(&w->server.addr, 128);
    ck_assert_int_eq(fcntl(w->server.fd, F_SETFL, O_NONBLOCK), 0);
    w->up = true;
}

static void
go_down(struct world *w)
{
    server_free(&w->server);
    w->up = false;
}

/* What the server as a whole does: refuses, comes back, restarts, stops taking connections. */
static void
act_of_server(struct world *w)
{
    unsigned what = any(w, 8);

    accept_all(w);
    if (what < 4 && !w->up) {
        tell(w, "server: up");
        listen_again(w);
    } else if (what == 4 && w->up) {
        tell(w, "server: refuses");
        go_down(w);
    } else if (what == 5 && w->up) {
        tell(w, "server: restarts");
        go_down(w);
        for (size_t i = 0; i < PEERS; i++)
            hang_up(&w->peers[i]);
        if (any(w, 2) == 0)
            listen_again(w);
    } else if (what == 6 && w->up) {
        tell(w, "server: stalls"); /* From the second connection on a SYN gets no answer. */
        (void)listen(w->server.fd, 0);
    } else if (w->up) {
        (void)listen(w->server.fd, 128);
    }
}

static void
act_of_peer(struct world *w)
{
    struct peer *peer;

    accept_all(w);
    for (unsigned tries = 0; tries < 16; tries++) {
        peer = &w->peers[any(w, PEERS)];
        if (peer->fd < 0)
            continue;
        switch (any(w, 4)) {
        case 0:
        case 1:
            tell(w, "peer %u: says something unasked", peer->port);
            say_unasked(peer);
            break;
        case 2:
            tell(w, "peer %u: ends", peer->port);
            end(peer);
            break;
        default:
            tell(w, "peer %u: resets", peer->port);
            reset(peer);
        }
        return;
    }
}

/* ---- Callers ------------------------------------------------------------------------------- */

static size_t
number(const struct world *w, const struct actor *a)
{
    return (size_t)(a - w->actors);
}

static void
forget_token(struct actor *a)
{
    hs_token_unref(a->token);
    a->token = NULL;
    a->cancelled = false;
}

static void
check_served(struct world *w, const struct actor *a)
{
    const struct peer *peer = peer_of(w, a->s.lease.conn);

    for (size_t i = 0; i < CALLERS; i++)
        ck_assert_msg(&w->actors[i] == a || w->actors[i].doing != HOLDING ||
                          w->actors[i].s.lease.conn != a->s.lease.conn,
                      "two callers have one connection");
    if (a->s.lease.times_lent == 1 || peer == NULL)
        return;
    ck_assert_msg(!peer->excess, "caller %zu was lent what the peer had said to another",
                  number(w, a));
    ck_assert_msg(!peer->ended, "caller %zu was lent what the peer had ended", number(w, a));
}

static void
note(struct world *w, struct actor *a, hs_err rv)
{
    tell(w, "caller %zu: %s", number(w, a), hs_err_text(rv));
    switch (rv) {
    case HS_OK:
        ck_assert_msg(!a->cancelled, "a cancelled caller was served");
        check_served(w, a);
        a->doing = HOLDING;
        break;
    case HS_WANT:
        a->doing = WAITING;
        return;
    case HS_E_CANCELLED:
        ck_assert(a->cancelled);
        a->doing = NOTHING;
        break;
    default:
        ck_assert_msg(rv == HS_E_DEADLINE || rv == HS_E_CONNECT || rv == HS_E_LIMIT ||
                          rv == HS_E_SYSTEM || rv == HS_E_RESET,
                      "unexpected: %s", hs_err_text(rv));
        a->doing = NOTHING;
    }
    forget_token(a);
}

static void
begin(struct world *w, struct actor *a)
{
    static const int64_t spans[] = {HS_NEVER, 100 * SECOND, 100 * SECOND, 2 * MS, 1};

    a->s = stepped_new(spans[any(w, LENGTH(spans))]);
    a->s.request.holder.thread = number(w, a) + 1;
    if (any(w, 6) == 0)
        a->s.op.deadline_ns = HS_TRY_ONCE;
    if (any(w, 3) == 0) {
        ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &a->token));
        a->s.op.token = a->token;
    }
    tell(w, "caller %zu: acquires%s", number(w, a),
         a->s.op.deadline_ns == HS_TRY_ONCE ? " without waiting" : "");
    note(w, a, stepped_step(&a->s, w->p));
}

static void
try_at_once(struct world *w, struct actor *a)
{
    struct hs_lease lease = {.id = 77};

    tell(w, "caller %zu: tries", number(w, a));
    if (hs_pool_try_acquire(w->p, &a->s.request.holder, &lease) == HS_OK) {
        a->s.lease = lease;
        note(w, a, HS_OK);
    } else {
        ck_assert_uint_eq(lease.id, 77);
        ck_assert_ptr_null(lease.conn);
    }
}

static void
go_on_waiting(struct world *w, struct actor *a)
{
    switch (any(w, 8)) {
    case 0:
        tell(w, "caller %zu: abandons", number(w, a));
        hs_pool_abandon(w->p, &a->s.request);
        a->doing = NOTHING;
        forget_token(a);
        return;
    case 1:
        if (a->token != NULL) {
            tell(w, "caller %zu: is cancelled", number(w, a));
            (void)hs_token_cancel(a->token, "model", 0, NULL);
            a->cancelled = true;
        }
        break;
    case 2:
        tell(w, "caller %zu: its time is up", number(w, a));
        a->s.op.deadline_ns = 1;
        break;
    default:
        break;
    }
    note(w, a, stepped_step(&a->s, w->p));
}

/* One question and exactly its answer; sometimes there is more behind that. */
static void
exchange(struct world *w, struct actor *a)
{
    struct peer *peer = peer_of(w, a->s.lease.conn);
    struct hs_op op = op_in(10 * SECOND);
    uint8_t question = ++w->question, answer[4], got[4];

    if (peer == NULL || peer->excess || peer->ended || hs_conn_is_closed(a->s.lease.conn))
        return;
    tell(w, "caller %zu: asks peer %u", number(w, a), peer->port);
    ASSERT_OK(DONE(hs_conn_send_all(a->s.lease.conn, &op, &question, 1, fresh())));
    get(peer->fd, got, 1);
    ck_assert_uint_eq(got[0], question);
    memset(answer, question, sizeof(answer));
    put(peer->fd, answer, sizeof(answer));
    if (any(w, 4) == 0) {
        tell(w, "peer %u: says more than that", peer->port);
        say_unasked(peer);
    }
    op = op_in(10 * SECOND);
    ASSERT_OK(DONE(hs_conn_recv_exactly(a->s.lease.conn, &op, got, sizeof(got), fresh())));
    ck_assert_mem_eq(got, answer, sizeof(got));
    if (any(w, 8) != 0)
        hs_lease_mark_clean(&a->s.lease);
}

static void
give_up(struct world *w, struct actor *a)
{
    static const enum hs_return hows[] = {HS_RETURN_DONE,      HS_RETURN_DONE,   HS_RETURN_DONE,
                                          HS_RETURN_UNTOUCHED, HS_RETURN_FAILED, HS_RETURN_CHECK,
                                          HS_RETURN_DISCARD};
    enum hs_return how = hows[any(w, LENGTH(hows))];

    a->doing = NOTHING;
    if (any(w, 12) == 0) {
        tell(w, "caller %zu: loses it", number(w, a));
        hs_pool_lose(&a->s.lease);
        return;
    }
    if (any(w, 12) == 0) {
        tell(w, "caller %zu: closes it", number(w, a));
        hs_conn_close(a->s.lease.conn, any(w, 2) == 0);
    }
    tell(w, "caller %zu: returns it, %s", number(w, a),
         hs_pool_reason_name(give_as(w->p, &a->s.lease, how)));
}

static void
act_of_caller(struct world *w)
{
    struct actor *a = &w->actors[any(w, CALLERS)];

    switch (a->doing) {
    case NOTHING:
        if (any(w, 4) == 0)
            try_at_once(w, a);
        else
            begin(w, a);
        break;
    case WAITING:
        go_on_waiting(w, a);
        break;
    case HOLDING:
        if (any(w, 2) == 0)
            exchange(w, a);
        else
            give_up(w, a);
    }
}

/* ---- The owner ----------------------------------------------------------------------------- */

static void
act_of_owner(struct world *w)
{
    size_t size = 1 + any(w, 4);
    struct hs_op op = op_in(60 * MS);

    switch (any(w, 4)) {
    case 0:
    case 1:
        tell(w, "owner: max_size %zu", size);
        ASSERT_OK(hs_pool_resize(w->p, size, fresh()));
        break;
    case 2:
        tell(w, "owner: evicts");
        hs_pool_evict(w->p);
        break;
    default: /* Long enough for the pool worker to watch what is idle. */
        if (any(w, 4) == 0 && stats_of(w->p).lent > 0) {
            tell(w, "owner: waits 60 ms");
            hs_pool_evict(w->p);
            (void)DONE(hs_pool_drain(w->p, &op, NULL));
        }
    }
}

static void
check(struct world *w)
{
    struct hs_pool_stats s = stats_of(w->p); /* which verifies it, too */
    size_t holding = 0, waiting = 0;

    for (size_t i = 0; i < CALLERS; i++) {
        holding += w->actors[i].doing == HOLDING;
        waiting += w->actors[i].doing == WAITING;
    }
    ck_assert_uint_eq(s.opened, s.idle + s.lent + s.dialing + s.closing + s.closed);
    /* Who was served and has not looked yet is counted as lent. */
    ck_assert_uint_ge(s.lent, holding);
    ck_assert_uint_le(s.lent + s.waiting, holding + waiting);
}

/* ---- A run --------------------------------------------------------------------------------- */

static void
world_init(struct world *w, uint64_t seed)
{
    const char *probe_after = getenv("HS_MODEL_PROBE_AFTER");
    struct hs_pool_options o = options(1 + seed % 3);

    *w = (struct world){.random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15)};
    w->tells = getenv("HS_MODEL_SEED") != NULL;
    for (size_t i = 0; i < PEERS; i++)
        w->peers[i].fd = -1;
    w->kept = refused_addr(&w->server.addr);
    w->server.ep = endpoint_of(&w->server.addr);
    listen_again(w);
    o.reuse = seed % 2 == 0 ? HS_REUSE_MARKED : HS_REUSE_ANSWERED;
    o.oldest_first = seed % 5 == 0;
    o.min_idle = seed % 7 == 0;
    o.max_waiting = seed % 3 == 0 ? 3 : HS_POOL_UNLIMITED;
    o.backoff_min_ns = MS;
    o.backoff_max_ns = 4 * MS;
    o.dial_timeout_ns = 30 * MS;
    if (probe_after != NULL)
        o.probe_after_ns = strtoll(probe_after, NULL, 10);
    w->p = pool_of(&w->server, &o);
}

/* Everybody gives back at once what there is; true once nobody waits. */
static bool
settle(struct world *w)
{
    bool settled = true;

    accept_all(w);
    for (size_t i = 0; i < CALLERS; i++) {
        struct actor *a = &w->actors[i];

        if (a->doing == WAITING)
            note(w, a, stepped_step(&a->s, w->p));
        if (a->doing == HOLDING)
            (void)give(w->p, &a->s.lease);
        settled = settled && a->doing != WAITING;
        if (a->doing == HOLDING)
            a->doing = NOTHING;
    }
    return settled;
}

/* With a server that is there no caller is left behind. */
static void
world_end(struct world *w)
{
    if (w->up)
        (void)listen(w->server.fd, 128);
    else
        listen_again(w);
    EVENTUALLY(settle(w));
    pool_end(w->p);
    for (size_t i = 0; i < PEERS; i++)
        hang_up(&w->peers[i]);
    go_down(w);
    (void)close(w->kept);
}

START_TEST(any_order_of_acts_keeps_the_promises)
{
    struct world w;

    world_init(&w, (uint64_t)_i);
    for (unsigned i = 0; i < ACTS; i++) {
        unsigned what = any(&w, 20);

        if (what < 14)
            act_of_caller(&w);
        else if (what < 17)
            act_of_peer(&w);
        else if (what < 19)
            act_of_server(&w);
        else
            act_of_owner(&w);
        check(&w);
    }
    world_end(&w);
}
END_TEST

int
main(void)
{
    const char *seed = getenv("HS_MODEL_SEED"), *seeds = getenv("HS_MODEL_SEEDS");
    int first = seed != NULL ? atoi(seed) : 0;
    int n = seed != NULL ? 1 : seeds != NULL ? atoi(seeds) : SEEDS;
    TCase *tc = case_new("pool, model");

    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, any_order_of_acts_keeps_the_promises, first, first + n);
    return run_case(tc);
}
