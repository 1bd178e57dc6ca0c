/* test_pools.c: pools in storms: callers that are cancelled, out of time, or throw away what they
 * got, peers that leave, sizes that change; and a million checkouts.
 *
 * All along everything is counted again one by one; at the end no place is lost: as many can be
 * lent as there may be.
 */
#include "../c/pool_support.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define THREADS 12
#define SIZE 4
#define STORM_NS (3 * SECOND)
#define PEERS 64

static atomic_bool stop;

static uint64_t
next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- A moody server ------------------------------------------------------------------------ */

struct moody {
    struct server *server;
    struct pollfd fds[PEERS + 1];
    size_t n;
    uint64_t random;
};

static void
greet(struct moody *m)
{
    int fd = accept4(m->server->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    if (m->n == PEERS) {
        (void)close(fd);
        return;
    }
    m->fds[++m->n] = (struct pollfd){.fd = fd, .events = POLLIN};
}

/* Answers every byte; sometimes leaves instead, sometimes says something unasked. */
static bool
answer(struct moody *m, size_t i)
{
    char byte;
    ssize_t n = recv(m->fds[i].fd, &byte, 1, 0);
    uint64_t mood = next_random(&m->random) % 50;

    if (n < 0)
        return true;
    if (n == 0 || mood == 0)
        return false;
    (void)send(m->fds[i].fd, &byte, 1, MSG_NOSIGNAL);
    if (mood == 1)
        (void)send(m->fds[i].fd, "!", 1, MSG_NOSIGNAL);
    return mood != 2;
}

static void *
serve(void *arg)
{
    struct moody m = {.server = arg, .random = 88172645463325252U};

    m.fds[0] = (struct pollfd){.fd = m.server->fd, .events = POLLIN};
    while (!stop) {
        (void)poll(m.fds, m.n + 1, 10);
        if (m.fds[0].revents != 0)
            greet(&m);
        for (size_t i = 1; i <= m.n; i++)
            if (m.fds[i].revents != 0 && !answer(&m, i)) {
                (void)close(m.fds[i].fd);
                m.fds[i--] = m.fds[m.n--];
            }
    }
    for (size_t i = 1; i <= m.n; i++)
        (void)close(m.fds[i].fd);
    return NULL;
}

/* ---- Callers ------------------------------------------------------------------------------- */

struct customer {
    struct thread thread;
    struct hs_pool *pool;
    struct hs_token *_Atomic token;
    uint64_t random;
    long served, disappointed;
};

/* A byte there and back; what comes must be what went: nobody gets another's answer. */
static void
talk(struct hs_lease *lease, uint64_t *random)
{
    uint8_t said = (uint8_t)next_random(random), heard = said;
    struct hs_op op = op_in((int64_t)(next_random(random) % 4) * MS);

    if (said == '!')
        return;
    if (DONE(hs_conn_send_all(lease->conn, &op, &said, 1, NULL)) != HS_OK)
        return;
    op = op_in((int64_t)(next_random(random) % 4) * MS);
    if (DONE(hs_conn_recv_exactly(lease->conn, &op, &heard, 1, NULL)) != HS_OK || heard == '!')
        return; /* Something of the server's own: the answer is still to come. */
    ck_assert_uint_eq(heard, said);
    hs_lease_mark_clean(lease);
}

static void
hand_back(struct customer *c, struct hs_lease *lease)
{
    switch (next_random(&c->random) % 12) {
    case 0:
        hs_pool_lose(lease);
        return;
    case 1:
        hs_conn_close(lease->conn, false);
        break;
    case 2:
        (void)give_as(c->pool, lease, HS_RETURN_DISCARD);
        return;
    case 3:
        (void)give_as(c->pool, lease, HS_RETURN_FAILED);
        return;
    default:
        break;
    }
    (void)give(c->pool, lease);
}

static void *
shop(void *arg)
{
    struct customer *c = arg;

    while (!stop) {
        struct hs_op op = op_in((int64_t)(next_random(&c->random) % 5) * MS);
        struct hs_request r = {.holder = {.thread = c->random | 1}};
        struct hs_token *token;
        struct hs_lease lease = {0};
        hs_err rv;

        ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
        c->token = hs_token_ref(token);
        op.token = token;
        rv = DONE(hs_pool_acquire(c->pool, &op, &r, fresh(), &lease));
        hs_token_unref(atomic_exchange(&c->token, NULL));
        hs_token_unref(token);
        if (rv == HS_OK) {
            c->served++;
            if (next_random(&c->random) % 4 != 0)
                talk(&lease, &c->random);
            hand_back(c, &lease);
        } else {
            c->disappointed++;
        }
    }
    return NULL;
}

static void
cancel_somebody(struct customer *c)
{
    struct hs_token *token = atomic_exchange(&c->token, NULL);

    if (token == NULL)
        return;
    (void)hs_token_cancel(token, "storm", 0, NULL);
    hs_token_unref(token);
}

START_TEST(no_place_is_lost_in_a_storm)
{
    static struct customer customers[THREADS];
    struct server s = server_new();
    struct hs_pool_options o = options(SIZE);
    struct thread server;
    struct hs_lease all[SIZE];
    uint64_t random = 2463534242U;
    int64_t until = hs_now() + STORM_NS;
    long served = 0, disappointed = 0;
    struct hs_pool *p;

    o.reuse = HS_REUSE_MARKED;
    o.idle_timeout_ns = 20 * MS;
    o.max_lifetime_ns = 200 * MS;
    o.dial_timeout_ns = SECOND;
    o.backoff_min_ns = MS;
    o.backoff_max_ns = 2 * MS;
    o.overdue_after_ns = 5 * MS;
    p = pool_of(&s, &o);
    thread_start(&server, serve, &s);
    for (size_t i = 0; i < THREADS; i++) {
        customers[i].pool = p;
        customers[i].random = 362436069U + 7919 * i;
        thread_start(&customers[i].thread, shop, &customers[i]);
    }
    for (int i = 0; hs_now() < until; i++) {
        breathe();
        ASSERT_OK(hs_pool_verify(p, fresh()));
        if (i % 3 == 0)
            ASSERT_OK(hs_pool_resize(p, 1 + next_random(&random) % SIZE, fresh()));
        if (i % 101 == 0)
            hs_pool_evict(p);
    }
    stop = true;
    for (size_t i = 0; i < THREADS; i++) {
        (void)thread_join(&customers[i].thread);
        served += customers[i].served;
        disappointed += customers[i].disappointed;
    }
    (void)thread_join(&server);
    ASSERT_OK(hs_pool_resize(p, SIZE, fresh()));
    for (size_t i = 0; i < SIZE; i++)
        all[i] = take(p);
    ck_assert_uint_eq(stats_of(p).lent, SIZE);
    for (size_t i = 0; i < SIZE; i++)
        (void)give(p, &all[i]);
    ck_assert_int_gt(served, 100);
    ck_assert_int_gt(disappointed, 0);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(cancels_lose_nothing)
{
    static struct customer customers[THREADS];
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct thread server;
    int64_t until = hs_now() + STORM_NS;
    struct hs_lease all[2];
    struct hs_pool *p;

    o.reuse = HS_REUSE_MARKED;
    p = pool_of(&s, &o);
    thread_start(&server, serve, &s);
    for (size_t i = 0; i < THREADS; i++) {
        customers[i].pool = p;
        customers[i].random = 521288629U + 104729 * i;
        thread_start(&customers[i].thread, shop, &customers[i]);
    }
    for (size_t i = 0; hs_now() < until; i++) {
        cancel_somebody(&customers[i % THREADS]);
        if (i % 64 == 0)
            ASSERT_OK(hs_pool_verify(p, fresh()));
    }
    stop = true;
    for (size_t i = 0; i < THREADS; i++)
        (void)thread_join(&customers[i].thread);
    (void)thread_join(&server);
    all[0] = take(p);
    all[1] = take(p);
    (void)give(p, &all[0]);
    (void)give(p, &all[1]);
    ck_assert_uint_gt(stats_of(p).cancelled, 0);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* ---- A million checkouts ------------------------------------------------------------------- */

#define CROWD 64
#define CHECKOUTS 1000000

struct worker {
    struct thread thread;
    struct hs_pool *pool;
    long n;
};

static void *
check_out(void *arg)
{
    struct worker *w = arg;
    const struct hs_holder holder = {.thread = (uint64_t)(uintptr_t)w};

    for (long i = 0; i < w->n; i++) {
        struct hs_op op = op_in(60 * SECOND);
        struct hs_request r = {.holder = holder};
        struct hs_lease lease;

        if (hs_pool_try_acquire(w->pool, &holder, &lease) != HS_OK)
            ASSERT_OK(DONE(hs_pool_acquire(w->pool, &op, &r, fresh(), &lease)));
        ck_assert_int_eq(give(w->pool, &lease), HS_POOL_NONE);
    }
    return NULL;
}

START_TEST(a_million_checkouts_by_sixty_four_threads)
{
    static struct worker workers[CROWD];
    struct server s = server_new();
    struct hs_pool_options o = options(8);
    struct hs_pool_stats stats;
    struct hs_pool *p = pool_of(&s, &o);

    for (size_t i = 0; i < CROWD; i++) {
        workers[i] = (struct worker){.pool = p, .n = CHECKOUTS / CROWD};
        thread_start(&workers[i].thread, check_out, &workers[i]);
    }
    for (size_t i = 0; i < CROWD; i++)
        (void)thread_join(&workers[i].thread);
    stats = stats_of(p);
    ck_assert_uint_eq(stats.acquired, CHECKOUTS);
    ck_assert_uint_eq(stats.returned, CHECKOUTS);
    ck_assert_uint_eq(stats.usage.count, CHECKOUTS);
    ck_assert_uint_eq(stats.lent, 0);
    ck_assert_uint_le(stats.opened, 8);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* ---- A handle that is kept after the return ------------------------------------------------ */

#define TURNS 20000

/* One lease: what both threads know of it. The peer says one byte in each, its label. */
struct lending {
    struct hs_conn *conn; /* owns */
    uint64_t lease;
    atomic_bool heard;
};
static struct lending lendings[TURNS];
static atomic_int turn;

static uint8_t
label_of(const struct lending *l)
{
    return (uint8_t)(l->lease % 251);
}

/* True: the label was heard; nothing else may ever be. */
static bool
listen_under(struct lending *l)
{
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);
    uint8_t byte;
    size_t n;

    op.lease = l->lease;
    if (DONE(hs_conn_recv(l->conn, &op, &byte, 1, 0, NULL, &n)) != HS_OK)
        return false;
    if (n == 0)
        return false; /* It was in progress when the connection was returned, and so ended. */
    ck_assert_uint_eq(byte, label_of(l));
    l->heard = true;
    return true;
}

/* Has the handle of the last lease but one, or two, and reads on it, over and over. */
static void *
keep_reading(void *arg)
{
    uint64_t random = 362436069U;
    (void)arg;

    while (!stop) {
        int back = (int)(next_random(&random) % 3), at = turn - back;

        if (at >= 0)
            (void)listen_under(&lendings[at]);
    }
    return NULL;
}

START_TEST(no_byte_reaches_who_had_the_connection_before)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct thread reader;
    int peer = -1, reused = 0;

    turn = -1;
    thread_start(&reader, keep_reading, NULL);
    for (int i = 0; i < TURNS; i++) {
        struct hs_lease lease = take(p);
        struct lending *l = &lendings[i];
        uint8_t label;

        if (lease.times_lent == 1)
            peer = server_accept(&s);
        else
            reused++;
        l->conn = hs_conn_ref(lease.conn);
        l->lease = lease.id;
        turn = i;
        label = label_of(l);
        put(peer, &label, 1);
        while (!l->heard)
            (void)listen_under(l);
        if (give(p, &lease) != HS_POOL_NONE) { /* The other was in a call. */
            (void)close(peer);
            peer = -1;
        }
    }
    stop = true;
    (void)thread_join(&reader);
    ck_assert_int_gt(reused, TURNS / 100);
    for (int i = 0; i < TURNS; i++)
        hs_conn_unref(lendings[i].conn);
    pool_end(p);
    if (peer >= 0)
        (void)close(peer);
    server_free(&s);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("pools");

    tcase_set_timeout(tc, 200);
    tcase_add_test(tc, no_place_is_lost_in_a_storm);
    tcase_add_test(tc, cancels_lose_nothing);
    tcase_add_test(tc, a_million_checkouts_by_sixty_four_threads);
    tcase_add_test(tc, no_byte_reaches_who_had_the_connection_before);
    return run_case(tc);
}
