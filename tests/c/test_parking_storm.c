/* Parked connections under a storm of threads, peers and somebody who drains.
 *
 * Each connection has one owner at a time, and its end is told once.
 */
#include "parking_support.h"

#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MANY 64
#define MESSAGES 60

struct storm {
    struct hs_parking *p;
    struct pair pairs[MANY];
    atomic_int owners[MANY];
    atomic_int over;
    atomic_long served;
};

static int
index_of(struct storm *s, const struct hs_conn *c)
{
    for (int i = 0; i < MANY; i++)
        if (s->pairs[i].c == c)
            return i;
    ck_abort_msg("a connection that nobody has parked");
}

static void
leave(struct storm *s)
{
    if (atomic_fetch_add(&s->over, 1) == MANY - 1)
        hs_parking_close(s->p);
}

static void
serve(struct storm *s, const struct hs_parked_conn *got)
{
    int i = index_of(s, got->conn);
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);
    uint8_t bytes[64];
    enum hs_parking_answer answer;
    size_t n;

    ck_assert_int_eq(atomic_fetch_add(&s->owners[i], 1), 0);
    if (got->news == HS_PARKED_MESSAGE) {
        /* It may have been closed, or reset, since the look. */
        if (DONE(hs_conn_recv(got->conn, &op, bytes, sizeof(bytes), 0, fresh(), &n)) == HS_OK)
            atomic_fetch_add(&s->served, (long)n);
    }
    ck_assert_int_eq(atomic_fetch_sub(&s->owners[i], 1), 1);
    if (got->news == HS_PARKED_MESSAGE || got->news == HS_PARKED_EXPIRED) {
        ASSERT_OK(hs_parking_park(s->p, got->conn, s, (i % 3 + 1) * MS, true, fresh(), &answer));
        if (answer != HS_PARKING_TAKEN)
            leave(s);
    } else {
        leave(s);
    }
    hs_conn_unref(got->conn);
}

static void *
work(void *arg)
{
    struct storm *s = arg;
    struct hs_parked_conn got;
    hs_err rv;

    while ((rv = DONE(hs_parking_next(s->p, fresh(), &got))) == HS_OK)
        serve(s, &got);
    ASSERT_ERR(HS_E_CLOSED, rv);
    return NULL;
}

/* As an event loop does. */
static void *
step(void *arg)
{
    struct storm *s = arg;
    struct hs_parked_conn got[4];
    struct hs_op op = op_step(60 * SECOND);
    size_t n;
    hs_err rv;

    while ((rv = DONE(hs_parking_poll(s->p, &op, LENGTH(got), fresh(), got, &n))) != HS_E_CLOSED) {
        if (rv == HS_WANT) {
            wait_for_want(&op);
            continue;
        }
        ASSERT_OK(rv);
        for (size_t i = 0; i < n; i++)
            serve(s, &got[i]);
        op = op_step(60 * SECOND);
    }
    return NULL;
}

static void *
tend(void *arg)
{
    struct storm *s = arg;
    struct hs_parked_conn got[4];

    while (atomic_load(&s->over) < MANY) {
        for (size_t i = 0, n = hs_parking_tend(s->p, 4, got); i < n; i++)
            serve(s, &got[i]);
        breathe();
    }
    return NULL;
}

/* Peers send, and end in one of three ways: they close, we close, they are reset. */
static void *
talk(void *arg)
{
    struct storm *s = arg;
    const struct linger reset = {.l_onoff = 1};

    for (int round = 0; round < MESSAGES; round++)
        for (int i = 0; i < MANY; i++)
            put(s->pairs[i].peer, "abc", 1 + (size_t)(round + i) % 3);
    for (int i = 0; i < MANY; i++) {
        if (i % 3 == 0)
            (void)setsockopt(s->pairs[i].peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        if (i % 3 == 1)
            hs_conn_close(s->pairs[i].c, false);
        (void)close(s->pairs[i].peer);
    }
    return NULL;
}

static void
brew(int n_workers, void *(*serve_all)(void *))
{
    static struct storm s;
    struct thread workers[CROWD], tender, talker;

    memset(&s, 0, sizeof(s));
    s.p = parking();
    for (int i = 0; i < MANY; i++) {
        s.pairs[i] = pair_tcp();
        park(s.p, s.pairs[i].c, HS_NEVER);
    }
    for (int i = 0; i < n_workers; i++)
        thread_start(&workers[i], serve_all, &s);
    thread_start(&tender, tend, &s);
    thread_start(&talker, talk, &s);
    (void)thread_join(&talker);
    for (int i = 0; i < n_workers; i++)
        (void)thread_join(&workers[i]);
    (void)thread_join(&tender);
    ck_assert_int_eq(atomic_load(&s.over), MANY);
    ck_assert_int_gt(atomic_load(&s.served), MANY);
    for (int i = 0; i < MANY; i++)
        hs_conn_unref(s.pairs[i].c);
    hs_parking_unref(s.p);
}

START_TEST(a_storm_serves_all_and_tells_of_each_end_once)
{
    brew(CROWD, work);
}
END_TEST

START_TEST(a_storm_serves_all_in_an_event_loop)
{
    brew(1, step);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("parking_storm");

    tls_world();
    (void)signal(SIGPIPE, SIG_IGN); /* Peers write to what was closed. */
    tcase_add_test(tc, a_storm_serves_all_and_tells_of_each_end_once);
    tcase_add_test(tc, a_storm_serves_all_in_an_event_loop);
    return run_case(tc);
}
