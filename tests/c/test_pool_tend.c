/* test_pool_tend.c: what happens behind the callers' backs: dials, the watch over idle connections,
 * age, size, the end, and forks.
 *
 * Nothing here waits for a time to pass that it did not ask for: what is to come is asked for until
 * it is there.
 */
#include "pool_support.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static uint64_t
closed(struct hs_pool *p, enum hs_pool_reason why)
{
    return stats_of(p).closed_by_reason[why];
}

static void
say_on(struct hs_conn *c, const char *text)
{
    struct hs_op op = op_in(10 * SECOND);

    ASSERT_OK(DONE(hs_conn_send_all(c, &op, (const uint8_t *)text, strlen(text), fresh())));
}

static struct hs_pool *
pool_to(const struct hs_addr *addr, const struct hs_pool_options *o)
{
    struct hs_endpoint ep = endpoint_of(addr);
    struct hs_pool *p;

    ASSERT_OK(hs_pool_new(&ep, 1, o, fresh(), &p));
    return p;
}

/* ---- Dials --------------------------------------------------------------------------------- */

START_TEST(connection_that_comes_back_is_taken_before_the_dial_ends)
{
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct hs_endpoint both[2];
    struct hs_addr hole;
    int fds[BLACK_HOLE_FDS];
    struct hs_lease lease;
    struct caller c = {0};
    struct hs_pool *p;

    black_hole(fds, &hole);
    both[0] = s.ep;
    both[1] = endpoint_of(&hole);
    o.max_per_endpoint = 1;
    ASSERT_OK(hs_pool_new(both, 2, &o, fresh(), &p));
    lease = take(p);
    caller_start_waiting(&c, p, 10 * SECOND);
    EVENTUALLY(stats_of(p).dialing == 1); /* into the black hole */
    (void)give(p, &lease);
    ASSERT_OK(caller_join(&c));
    ck_assert_uint_eq(c.lease.times_lent, 2);
    ck_assert_uint_eq(stats_of(p).dialing, 1); /* It goes on, for the one who is next. */
    (void)give(p, &c.lease);
    pool_end(p);
    close_all(fds, BLACK_HOLE_FDS);
    server_free(&s);
}
END_TEST

START_TEST(dials_are_bounded_in_number)
{
    struct hs_pool_options o = options(20);
    struct hs_addr hole;
    int fds[BLACK_HOLE_FDS];
    struct stepped w[10];
    struct hs_pool *p;

    black_hole(fds, &hole);
    o.max_dials = 3;
    p = pool_to(&hole, &o);
    for (size_t i = 0; i < LENGTH(w); i++) {
        w[i] = stepped_new(10 * SECOND);
        ASSERT_ERR(HS_WANT, stepped_step(&w[i], p));
    }
    EVENTUALLY(stats_of(p).dialing == 3);
    ck_assert_uint_eq(stats_of(p).opened, 3);
    for (size_t i = 0; i < LENGTH(w); i++)
        hs_pool_abandon(p, &w[i].request);
    pool_end(p);
    close_all(fds, BLACK_HOLE_FDS);
}
END_TEST

/* Nobody returns anything and nobody comes later: only the end of a dial begins the next. */
START_TEST(crowd_on_an_empty_pool_is_served_by_few_dials_at_a_time)
{
    struct server s = server_new();
    struct hs_pool_options o = options(20);
    struct stepped w[20];
    hs_err first[20];
    struct hs_pool *p;

    o.max_dials = 3;
    p = pool_of(&s, &o);
    for (size_t i = 0; i < LENGTH(w); i++) {
        w[i] = stepped_new(10 * SECOND);
        first[i] = stepped_step(&w[i], p); /* Its dial may end before the call does. */
        ck_assert(first[i] == HS_WANT || first[i] == HS_OK);
    }
    EVENTUALLY(stats_of(p).lent == LENGTH(w));
    for (size_t i = 0; i < LENGTH(w); i++) {
        if (first[i] == HS_WANT)
            ASSERT_OK(stepped_step(&w[i], p));
        (void)give(p, &w[i].lease);
    }
    ck_assert_uint_eq(stats_of(p).opened, LENGTH(w));
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(dial_has_a_deadline_of_its_own)
{
    struct hs_pool_options o = options(1);
    struct hs_addr hole;
    int fds[BLACK_HOLE_FDS];
    struct caller c = {0};
    struct hs_pool *p;

    black_hole(fds, &hole);
    o.dial_timeout_ns = 30 * MS;
    p = pool_to(&hole, &o);
    caller_start(&c, p, HS_NEVER); /* A caller without one does not hang. */
    ASSERT_ERR(HS_E_DEADLINE, caller_join(&c));
    ck_assert_str_eq(c.err.op, "connect");
    ck_assert_int_eq(c.err.origin, HS_ORIGIN_DIAL);
    ck_assert_uint_eq(closed(p, HS_POOL_DIAL_FAILED), 1);
    ck_assert_uint_eq(stats_of(p).dial.count, 1);
    pool_end(p);
    close_all(fds, BLACK_HOLE_FDS);
}
END_TEST

START_TEST(failed_dial_is_told_to_all_whom_nothing_else_can_serve)
{
    struct hs_addr refused;
    int kept = refused_addr(&refused);
    struct hs_pool_options o = options(4);
    struct caller c[3] = {0};
    struct hs_pool_stats stats;
    struct hs_pool *p = pool_to(&refused, &o);

    for (size_t i = 0; i < LENGTH(c); i++)
        caller_start(&c[i], p, 10 * SECOND);
    for (size_t i = 0; i < LENGTH(c); i++) {
        ASSERT_ERR(HS_E_CONNECT, caller_join(&c[i]));
        ck_assert_int_eq(c[i].err.origin, HS_ORIGIN_DIAL);
        ck_assert_int_eq(c[i].err.sys, ECONNREFUSED);
    }
    stats = stats_of(p);
    ck_assert_uint_eq(stats.failed, 3);
    ck_assert_int_eq(stats.dial_error.code, HS_E_CONNECT);
    ck_assert_uint_ge(stats.dial_failures, 1);
    pool_end(p);
    (void)close(kept);
}
END_TEST

START_TEST(failed_dials_back_off_and_begin_again)
{
    struct hs_addr addr;
    int kept = refused_addr(&addr), listener;
    struct hs_pool_options o = options(1);
    struct stepped w = stepped_new(10 * SECOND);
    struct hs_pool *p;

    o.keep_trying = true;
    o.backoff_min_ns = MS;
    o.backoff_max_ns = 4 * MS;
    p = pool_to(&addr, &o);
    ASSERT_ERR(HS_WANT, stepped_step(&w, p));
    EVENTUALLY(closed(p, HS_POOL_DIAL_FAILED) >= 3);
    ck_assert_uint_eq(stats_of(p).waiting, 1); /* It goes on waiting, as was asked. */
    listener = listener_at(&addr, 8);
    EVENTUALLY(stats_of(p).lent == 1);
    ASSERT_OK(stepped_step(&w, p));
    ck_assert_uint_eq(stats_of(p).dial_failures, 0);
    (void)give(p, &w.lease);
    pool_end(p);
    (void)close(listener);
    (void)close(kept);
}
END_TEST

START_TEST(dial_that_fails_leaves_those_waiting_who_may_get_another)
{
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct stepped w = stepped_new(10 * SECOND);
    struct hs_lease lease;
    struct hs_pool *p;
    int peer;

    o.backoff_min_ns = MS;
    o.backoff_max_ns = 2 * MS;
    p = pool_of(&s, &o);
    lease = take(p);
    peer = server_accept(&s);
    server_free(&s);
    ASSERT_ERR(HS_WANT, stepped_step(&w, p));
    EVENTUALLY(closed(p, HS_POOL_DIAL_FAILED) >= 2);
    ck_assert_uint_eq(stats_of(p).waiting, 1);
    (void)give(p, &lease);
    ASSERT_OK(stepped_step(&w, p));
    (void)give(p, &w.lease);
    (void)close(peer);
    pool_end(p);
}
END_TEST

START_TEST(broken_return_makes_room_for_a_dial)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct caller c = {0};

    caller_start_waiting(&c, p, 10 * SECOND);
    ck_assert_int_eq(give_as(p, &lease, HS_RETURN_DISCARD), HS_POOL_DISCARDED);
    ASSERT_OK(caller_join(&c));
    ck_assert_uint_eq(c.lease.times_lent, 1);
    (void)give(p, &c.lease);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(endpoints_share_the_load_and_replace_one_another)
{
    struct server s = server_new(), t = server_new();
    struct hs_pool_options o = options(4);
    struct hs_endpoint eps[3] = {s.ep, t.ep};
    struct hs_addr refused;
    int kept = refused_addr(&refused);
    struct hs_lease lease[4];
    struct hs_lent lent[4];
    size_t at[3] = {0};
    struct hs_pool *p;

    eps[2] = endpoint_of(&refused);
    o.max_per_endpoint = 2;
    ASSERT_OK(hs_pool_new(eps, 3, &o, fresh(), &p));
    for (size_t i = 0; i < 4; i++)
        lease[i] = take(p);
    ck_assert_uint_eq(hs_pool_lent(p, lent, 4), 4);
    for (size_t i = 0; i < 4; i++)
        at[lent[i].endpoint]++;
    ck_assert_uint_eq(at[0], 2);
    ck_assert_uint_eq(at[1], 2);
    for (size_t i = 0; i < 4; i++)
        (void)give(p, &lease[i]);
    pool_end(p);
    (void)close(kept);
    server_free(&s);
    server_free(&t);
}
END_TEST

START_TEST(dials_keep_to_their_rate)
{
    struct server s = server_new();
    struct hs_pool_options o = options(8);
    struct hs_lease lease[5];
    int64_t began = hs_now();
    struct hs_pool *p;

    o.max_dials = 1; /* No burst. */
    o.dial_interval_ns = 10 * MS;
    p = pool_of(&s, &o);
    for (size_t i = 0; i < LENGTH(lease); i++)
        lease[i] = take(p);
    ck_assert_int_ge(hs_now() - began, 4 * 10 * MS);
    for (size_t i = 0; i < LENGTH(lease); i++)
        (void)give(p, &lease[i]);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* ---- The watch ----------------------------------------------------------------------------- */

START_TEST(peer_that_leaves_an_idle_connection_is_noticed)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    int peer = server_accept(&s);

    (void)give(p, &lease);
    (void)close(peer);
    EVENTUALLY(closed(p, HS_POOL_PEER_CLOSED) == 1);
    ck_assert_uint_eq(stats_of(p).probes, 0); /* Nobody borrowed: the watch saw it. */
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(bytes_that_nobody_asked_for_end_an_idle_connection)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    int peer = server_accept(&s);

    (void)give(p, &lease);
    put(peer, "408", 3);
    EVENTUALLY(closed(p, HS_POOL_UNSOLICITED) == 1);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(watch_lasts_over_many_leases)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    int peer = server_accept(&s);

    for (int i = 0; i < 3; i++) {
        /* Long enough idle to be watched, then used: the event is spent on a borrower. */
        (void)give(p, &lease);
        for (int64_t until = hs_now() + 120 * MS; hs_now() < until;)
            breathe();
        lease = take(p);
        put(peer, "x", 1);
        struct hs_op op = op_in(10 * SECOND);
        uint8_t byte;

        ASSERT_OK(DONE(hs_conn_recv_exactly(lease.conn, &op, &byte, 1, fresh())));
        hs_lease_mark_clean(&lease);
    }
    ck_assert_uint_eq(stats_of(p).opened, 1);
    (void)give(p, &lease);
    (void)close(peer);
    EVENTUALLY(closed(p, HS_POOL_PEER_CLOSED) == 1);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(kernel_is_asked_before_lending_what_is_not_watched)
{
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct hs_lease a, b;
    struct hs_pool *p;
    int peer[2];

    p = pool_of(&s, &o);
    a = take(p);
    peer[0] = server_accept(&s);
    b = take(p);
    peer[1] = server_accept(&s);
    (void)give(p, &a);
    (void)give(p, &b);
    (void)close(peer[0]);
    put(peer[1], "late", 4);
    a = take(p); /* A third one. */
    ck_assert_uint_eq(a.times_lent, 1);
    ck_assert_uint_eq(closed(p, HS_POOL_PEER_CLOSED), 1);
    ck_assert_uint_eq(closed(p, HS_POOL_UNSOLICITED), 1);
    (void)give(p, &a);
    (void)close(peer[1]);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* What the peer does to the connection before it goes on, and what is counted then. */
static const struct dirty {
    const char *bytes;
    enum hs_pool_reason why;
} dirts[] = {{"excess", HS_POOL_UNSOLICITED}, {NULL, HS_POOL_PEER_CLOSED}};

static void
soil(int *peer, const struct dirty *dirty)
{
    if (dirty->bytes != NULL) {
        put(*peer, dirty->bytes, strlen(dirty->bytes));
    } else {
        (void)close(*peer);
        *peer = -1;
    }
}

START_TEST(kernel_is_asked_at_every_lend_however_soon)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    int peer = server_accept(&s);

    (void)give(p, &lease);
    ASSERT_OK(hs_pool_try_acquire(p, &ME, &lease));
    ck_assert_uint_eq(stats_of(p).probes, 1);
    soil(&peer, &dirts[_i]);
    (void)give(p, &lease);
    ASSERT_ERR(HS_WANT, hs_pool_try_acquire(p, &ME, &lease));
    ck_assert_uint_eq(closed(p, dirts[_i].why), 1);
    ck_assert_uint_eq(stats_of(p).acquired, 2);
    ck_assert_uint_eq(stats_of(p).wait.count, 2);
    lease = take(p);
    ck_assert_uint_eq(lease.times_lent, 1);
    (void)give(p, &lease);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* Two wait; what the first is handed is of no use. It must not lose its turn to the second; both
 * must be served by the connection that replaces it. */
START_TEST(waiter_that_was_handed_a_useless_connection_keeps_its_turn)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct stepped first = stepped_new(10 * SECOND), second = stepped_new(10 * SECOND);
    int peer = server_accept(&s);

    ASSERT_ERR(HS_WANT, stepped_step(&first, p));
    ASSERT_ERR(HS_WANT, stepped_step(&second, p));
    soil(&peer, &dirts[_i]);
    (void)give(p, &lease);
    ck_assert_uint_eq(stats_of(p).lent, 1); /* The first one's, who has not looked yet. */
    EVENTUALLY(stepped_step(&first, p) == HS_OK);
    ck_assert_uint_eq(closed(p, dirts[_i].why), 1);
    ck_assert_uint_eq(first.lease.times_lent, 1);
    ASSERT_ERR(HS_WANT, stepped_step(&second, p));
    (void)give(p, &first.lease);
    ASSERT_OK(stepped_step(&second, p));
    ck_assert_uint_eq(stats_of(p).acquired_waited, 3);
    (void)give(p, &second.lease);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(waiter_out_of_time_is_not_given_a_useless_connection)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct stepped w = stepped_new(10 * SECOND);
    int peer = server_accept(&s);

    ASSERT_ERR(HS_WANT, stepped_step(&w, p));
    soil(&peer, &dirts[_i]);
    (void)give(p, &lease);
    w.op.deadline_ns = 1;
    ASSERT_ERR(HS_E_DEADLINE, stepped_step(&w, p));
    ck_assert_uint_eq(closed(p, dirts[_i].why), 1);
    ck_assert_uint_eq(stats_of(p).timeouts, 1);
    ck_assert_uint_eq(stats_of(p).lent, 0);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* In many protocols the server speaks first: what an unused connection has to say is no excess. */
START_TEST(greeting_waits_for_the_first_borrower)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p;
    struct hs_lease lease;
    uint8_t text[5];
    struct hs_op op = op_in(10 * SECOND);
    int peer;

    o.min_idle = 1;
    p = pool_of(&s, &o);
    peer = server_accept(&s);
    put(peer, "hello", 5);
    EVENTUALLY(stats_of(p).idle == 1);
    lease = take(p);
    ck_assert_uint_eq(stats_of(p).probes, 1);
    ASSERT_OK(DONE(hs_conn_recv_exactly(lease.conn, &op, text, 5, fresh())));
    ck_assert_uint_eq(stats_of(p).opened, 1);
    put(peer, "more", 4);
    hs_lease_mark_clean(&lease);
    (void)give(p, &lease);
    EVENTUALLY(closed(p, HS_POOL_UNSOLICITED) == 1);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

/* The probe ends the lease that the call had begun with; then it fails, with and without waiting.
 * What it was to be given must not be there: the caller would give back what is freed. */
static hs_err
acquire_after_the_server_went(struct hs_op *op)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_request r = {.holder = ME};
    struct hs_lease lease;
    struct hs_pool *p;
    hs_err rv;
    int peer;

    p = pool_of(&s, &o);
    lease = take(p);
    peer = server_accept(&s);
    server_free(&s);
    (void)close(peer);
    (void)give(p, &lease);
    rv = acquire(p, op, &r, fresh(), &lease);
    EVENTUALLY(closed(p, HS_POOL_PEER_CLOSED) == 1); /* Or the pool worker found it first. */
    pool_end(p);
    return rv;
}

START_TEST(call_that_fails_after_a_failed_probe_gives_nothing)
{
    struct hs_op op = op_in(10 * SECOND);

    ASSERT_ERR(HS_E_CONNECT, acquire_after_the_server_went(&op));
    op = (struct hs_op)HS_OP_INIT(HS_TRY_ONCE, NULL);
    ASSERT_ERR(HS_E_DEADLINE, acquire_after_the_server_went(&op));
}
END_TEST

/* ---- Age and size -------------------------------------------------------------------------- */

START_TEST(one_that_is_kept_ready_is_lent_however_long_it_was_idle)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_lease lease;
    struct hs_pool *p;
    int64_t late;

    o.idle_timeout_ns = MS;
    o.min_idle = 1;
    p = pool_of(&s, &o);
    for (uint64_t times = 1; times <= 3; times++) {
        lease = take(p);
        ck_assert_uint_eq(lease.times_lent, times);
        (void)give(p, &lease);
        late = hs_now() + 2 * MS;
        EVENTUALLY(hs_now() >= late);
    }
    ck_assert_uint_eq(stats_of(p).opened, 1);
    ck_assert_uint_eq(closed(p, HS_POOL_IDLE_TIMEOUT), 0);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(idle_connections_end_by_their_time_but_for_the_minimum)
{
    struct server s = server_new();
    struct hs_pool_options o = options(3);
    struct hs_lease lease[3];
    struct hs_pool *p;

    o.idle_timeout_ns = 5 * MS;
    o.min_idle = 1;
    p = pool_of(&s, &o);
    for (size_t i = 0; i < 3; i++)
        lease[i] = take(p);
    for (size_t i = 0; i < 3; i++)
        (void)give(p, &lease[i]);
    EVENTUALLY(closed(p, HS_POOL_IDLE_TIMEOUT) == 2);
    ck_assert_uint_eq(stats_of(p).idle, 1);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(minimum_is_kept_ready)
{
    struct server s = server_new();
    struct hs_pool_options o = options(4);
    struct hs_lease lease;
    struct hs_pool *p;

    o.min_idle = 2;
    p = pool_of(&s, &o);
    EVENTUALLY(stats_of(p).idle == 2);
    lease = take(p);
    (void)give_as(p, &lease, HS_RETURN_DISCARD);
    EVENTUALLY(stats_of(p).idle == 2);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(old_connections_are_replaced_but_never_under_a_borrower)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_lease lease;
    struct hs_pool *p;

    o.max_lifetime_ns = 20 * MS;
    p = pool_of(&s, &o);
    lease = take(p);
    for (int64_t until = hs_now() + 30 * MS; hs_now() < until;)
        breathe();
    ck_assert(!hs_conn_is_closed(lease.conn));
    ck_assert_int_eq(give(p, &lease), HS_POOL_LIFETIME);
    lease = take(p);
    (void)give(p, &lease);
    EVENTUALLY(closed(p, HS_POOL_LIFETIME) == 2); /* The idle one, by itself. */
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(resize_closes_what_is_too_much_and_lets_waiters_in)
{
    struct server s = server_new();
    struct hs_pool_options o = options(3);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease a = take(p), b = take(p), c = take(p);
    struct caller d = {0};

    (void)give(p, &a);
    ASSERT_OK(hs_pool_resize(p, 1, fresh()));
    ck_assert_uint_eq(closed(p, HS_POOL_SURPLUS), 1);
    ck_assert_int_eq(give(p, &b), HS_POOL_SURPLUS);
    caller_start_waiting(&d, p, 10 * SECOND);
    ASSERT_ERR(HS_E_INVALID, hs_pool_resize(p, 0, fresh()));
    ASSERT_OK(hs_pool_resize(p, 2, fresh()));
    ASSERT_OK(caller_join(&d));
    ck_assert_int_eq(give(p, &c), HS_POOL_NONE);
    (void)give(p, &d.lease);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(surplus_idle_connections_are_closed_at_their_return)
{
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct hs_lease a, b;
    struct hs_pool *p;

    o.max_idle = 1;
    p = pool_of(&s, &o);
    a = take(p);
    b = take(p);
    ck_assert_int_eq(give(p, &a), HS_POOL_NONE);
    ck_assert_int_eq(give(p, &b), HS_POOL_SURPLUS);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(eviction_is_soft_and_drain_waits_for_its_end)
{
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease a = take(p), b = take(p);
    struct hs_op op = op_in(20 * MS);

    (void)give(p, &a);
    hs_pool_evict(p);
    ck_assert_uint_eq(closed(p, HS_POOL_EVICTED), 1);
    ck_assert(!hs_conn_is_closed(b.conn));
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_pool_drain(p, &op, fresh())));
    a = take(p); /* The pool goes on meanwhile. */
    ck_assert_int_eq(give(p, &b), HS_POOL_EVICTED);
    (void)give(p, &a);
    op = op_in(10 * SECOND);
    ASSERT_OK(DONE(hs_pool_drain(p, &op, fresh())));
    pool_end(p);
    server_free(&s);
}
END_TEST

/* ---- Pings --------------------------------------------------------------------------------- */

START_TEST(idle_connection_is_pinged_and_stays_if_it_answers)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_lease lease;
    struct hs_pool *p;
    char word[4];
    int peer;

    o.ping_after_ns = 5 * MS;
    memcpy(o.ping, "ping", o.ping_len = 4);
    memcpy(o.pong, "pong", o.pong_len = 4);
    p = pool_of(&s, &o);
    lease = take(p);
    peer = server_accept(&s);
    (void)give(p, &lease);
    for (int i = 0; i < 3; i++) {
        get(peer, word, 4);
        ck_assert_mem_eq(word, "ping", 4);
        put(peer, "pong", 4);
    }
    ck_assert_uint_eq(stats_of(p).opened, 1);
    get(peer, word, 4);
    put(peer, "gone", 4);
    EVENTUALLY(closed(p, HS_POOL_PING_FAILED) == 1);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(pool_closes_in_the_middle_of_a_ping)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_lease lease;
    struct hs_pool *p;
    char word[4];
    int peer;

    o.ping_after_ns = 5 * MS;
    memcpy(o.ping, "ping", o.ping_len = 4);
    memcpy(o.pong, "pong", o.pong_len = 4);
    p = pool_of(&s, &o);
    lease = take(p);
    peer = server_accept(&s);
    (void)give(p, &lease);
    get(peer, word, 4); /* and no answer */
    pool_end(p);
    (void)close(peer);
    server_free(&s);
}
END_TEST

/* ---- The end ------------------------------------------------------------------------------- */

START_TEST(close_wakes_who_waits_and_says_who_is_late)
{
    struct server s = server_new();
    struct hs_pool_options o = options(2);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease a = take(p), b = take(p), c;
    struct hs_op op = op_in(10 * SECOND);
    struct hs_request r = {.holder = ME};
    struct caller w = {0};
    struct hs_lent lent[2];

    caller_start_waiting(&w, p, HS_NEVER);
    hs_pool_close(p);
    ASSERT_ERR(HS_E_CLOSED, caller_join(&w));
    ASSERT_ERR(HS_E_CLOSED, acquire(p, &op, &r, fresh(), &c));
    ASSERT_ERR(HS_WANT, hs_pool_try_acquire(p, &ME, &c));
    op = op_in(10 * MS);
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_pool_await_closed(p, &op, fresh())));
    ck_assert_uint_eq(hs_pool_lent(p, lent, 2), 2);
    ck_assert_uint_eq(lent[0].id, a.id); /* the longest first */
    ck_assert_int_eq(give(p, &a), HS_POOL_POOL_CLOSED);
    hs_pool_abort_lent(p);
    ck_assert(hs_conn_is_closed(b.conn));
    (void)give(p, &b);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(close_calls_off_dials)
{
    struct hs_pool_options o = options(2);
    struct hs_addr hole;
    int fds[BLACK_HOLE_FDS];
    struct caller w = {0};
    struct hs_pool *p;

    black_hole(fds, &hole);
    p = pool_to(&hole, &o);
    caller_start_waiting(&w, p, HS_NEVER);
    EVENTUALLY(stats_of(p).dialing == 1);
    hs_pool_close(p);
    ASSERT_ERR(HS_E_CLOSED, caller_join(&w));
    pool_end(p);
    close_all(fds, BLACK_HOLE_FDS);
}
END_TEST

/* ---- Fork ---------------------------------------------------------------------------------- */

struct forked {
    struct hs_pool *p;
    struct hs_lease *lease;
    struct server *server;
};

static int
use_in_child(void *arg)
{
    struct forked *f = arg;
    struct hs_pool_stats stats;
    struct hs_op op = op_in(10 * SECOND);
    struct hs_request r = {.holder = ME};
    struct hs_lease own;

    hs_pool_stats(f->p, &stats);
    if (stats.lent + stats.idle + stats.dialing + stats.opened != 0)
        return 1; /* not empty */
    if (hs_pool_release(f->p, f->lease, HS_RETURN_DONE, NULL, NULL, NULL) != HS_OK)
        return 2;
    if (DONE(hs_pool_acquire(f->p, &op, &r, NULL, &own)) != HS_OK || own.times_lent != 1)
        return 3;
    if (hs_pool_release(f->p, &own, HS_RETURN_DONE, NULL, NULL, NULL) != HS_OK)
        return 4;
    hs_pool_close(f->p);
    if (DONE(hs_pool_await_closed(f->p, &op, NULL)) != HS_OK)
        return 5;
    return hs_pool_verify(f->p, NULL) == HS_OK ? 0 : 6;
}

START_TEST(forked_child_has_an_empty_pool_and_leaves_ours_alone)
{
    struct server s = server_new();
    struct hs_pool_options o = options(3);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p), idle = take(p);
    struct forked f = {p, &lease, &s};
    int peer = server_accept(&s);
    char word[3];

    (void)give(p, &idle);
    ck_assert_int_eq(in_child(use_in_child, &f), 0);
    /* The child wrote nothing, and its end closes nothing of ours. */
    say_on(lease.conn, "abc");
    get(peer, word, 3);
    ck_assert_mem_eq(word, "abc", 3);
    (void)give_as(p, &lease, HS_RETURN_DISCARD);
    ck_assert_int_eq(recv(peer, word, 1, 0), 0); /* The child holds no copy: this is the end. */
    idle = take(p);
    ck_assert_uint_eq(idle.times_lent, 2);
    (void)give(p, &idle);
    (void)close(peer);
    pool_end(p);
    server_free(&s);
}
END_TEST

static int
fork_with_a_dial(void *arg)
{
    struct forked *f = arg;

    hs_pool_close(f->p);
    return hs_pool_verify(f->p, NULL) == HS_OK ? 0 : 1;
}

START_TEST(forking_with_dials_under_way)
{
    struct hs_pool_options o = options(2);
    struct hs_addr hole;
    int fds[BLACK_HOLE_FDS];
    struct stepped w = stepped_new(10 * SECOND);
    struct forked f = {0};

    black_hole(fds, &hole);
    f.p = pool_to(&hole, &o);
    ASSERT_ERR(HS_WANT, stepped_step(&w, f.p));
    EVENTUALLY(stats_of(f.p).dialing == 1);
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(in_child(fork_with_a_dial, &f), 0);
    hs_pool_abandon(f.p, &w.request);
    pool_end(f.p);
    close_all(fds, BLACK_HOLE_FDS);
}
END_TEST

/* ---- Options ------------------------------------------------------------------------------- */

static const struct contradiction {
    const char *title;
    size_t max_size, min_idle, max_idle, per_endpoint, max_dials;
    int64_t idle_timeout, lifetime, overdue, ping_after;
    const char *words[2];
} contradictions[] = {
    {"no size", .max_size = 0, .words = {"max_size", "1.."}},
    {"minimum", 2, 3, .words = {"min_idle", "max_size"}},
    {"minimum and maximum", 4, 3, 2, .words = {"min_idle", "max_idle"}},
    {"maximum", 2, 0, 3, .words = {"max_idle", "max_size"}},
    {"endpoint", 2, .per_endpoint = 3, .words = {"max_per_endpoint", "max_size"}},
    {"leaks", 2, .lifetime = SECOND, .overdue = 2 * SECOND, .words = {"overdue_after", "lifetime"}},
    {"pings", 2, .lifetime = SECOND, .ping_after = SECOND, .words = {"ping_after", "max_lifetime"}},
    {"pings of nothing", 2, .ping_after = SECOND, .words = {"ping_after", "pong"}},
    {"late pings", 2, .idle_timeout = SECOND, .ping_after = SECOND,
     .words = {"ping_after", "idle"}},
};

START_TEST(contradictions_are_refused_with_both_names)
{
    const struct contradiction *c = &contradictions[_i];
    struct hs_pool_options o = options(c->max_size);

    o.min_idle = c->min_idle;
    o.max_idle = c->max_idle != 0 ? c->max_idle : HS_POOL_UNLIMITED;
    o.max_per_endpoint = c->per_endpoint;
    o.idle_timeout_ns = c->idle_timeout != 0 ? c->idle_timeout : HS_NEVER;
    o.max_lifetime_ns = c->lifetime != 0 ? c->lifetime : HS_NEVER;
    o.overdue_after_ns = c->overdue != 0 ? c->overdue : HS_NEVER;
    o.ping_after_ns = c->ping_after != 0 ? c->ping_after : HS_NEVER;
    ASSERT_ERR(HS_E_INVALID, hs_pool_options_check(&o, fresh()));
    for (size_t i = 0; i < 2; i++)
        ck_assert_msg(strstr(last_error()->msg, c->words[i]) != NULL, "%s: %s", c->title,
                      last_error()->msg);
}
END_TEST

/* A dial may fail before the call of the one it was for has ended: then there is none who waits. */
static void
queue_up(struct stepped *s, struct hs_pool *p)
{
    while (stepped_step(s, p) != HS_WANT)
        *s = stepped_new(30 * SECOND);
}

/* The one who waits may hear of it late: then all that is told is of the latest dial. */
START_TEST(a_failure_that_is_heard_of_late_has_one_reason)
{
    struct hs_pool_options o = options(2);
    struct stepped first = stepped_new(30 * SECOND), second = stepped_new(30 * SECOND);
    struct hs_error err = {0};
    struct hs_endpoint ep;
    struct hs_addr refused;
    struct hs_pool *p;
    uint64_t fault;
    int kept = refused_addr(&refused);
    hs_err rv;

    ASSERT_OK(hs_endpoint_from_host("localhost", 9, endpoint_of(&refused).port, fresh(), &ep));
    o.backoff_min_ns = MS;
    o.backoff_max_ns = MS;
    ASSERT_OK(hs_faults_begin("lookup.no_name=1", fresh(), &fault));
    ASSERT_OK(hs_pool_new(&ep, 1, &o, fresh(), &p));
    queue_up(&first, p);
    EVENTUALLY(stats_of(p).dial_error.code == HS_E_RESOLVE);
    hs_faults_end(fault);
    queue_up(&second, p);
    EVENTUALLY(stats_of(p).dial_error.code == HS_E_CONNECT);
    rv = hs_pool_acquire(p, &first.op, &first.request, &err, &first.lease);
    ASSERT_ERR(HS_E_CONNECT, rv);
    ASSERT_ERR(rv, err.code);
    hs_dial_failure_unref(first.request.failure);
    ASSERT_ERR(HS_E_CONNECT, stepped_step(&second, p));
    pool_end(p);
    (void)close(kept);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("pool, tended");

    tcase_add_test(tc, connection_that_comes_back_is_taken_before_the_dial_ends);
    tcase_add_test(tc, dials_are_bounded_in_number);
    tcase_add_test(tc, crowd_on_an_empty_pool_is_served_by_few_dials_at_a_time);
    tcase_add_test(tc, dial_has_a_deadline_of_its_own);
    tcase_add_test(tc, failed_dial_is_told_to_all_whom_nothing_else_can_serve);
    tcase_add_test(tc, failed_dials_back_off_and_begin_again);
    tcase_add_test(tc, dial_that_fails_leaves_those_waiting_who_may_get_another);
    tcase_add_test(tc, broken_return_makes_room_for_a_dial);
    tcase_add_test(tc, endpoints_share_the_load_and_replace_one_another);
    tcase_add_test(tc, dials_keep_to_their_rate);
    tcase_add_test(tc, peer_that_leaves_an_idle_connection_is_noticed);
    tcase_add_test(tc, bytes_that_nobody_asked_for_end_an_idle_connection);
    tcase_add_test(tc, watch_lasts_over_many_leases);
    tcase_add_test(tc, kernel_is_asked_before_lending_what_is_not_watched);
    tcase_add_loop_test(tc, kernel_is_asked_at_every_lend_however_soon, 0, (int)LENGTH(dirts));
    tcase_add_loop_test(tc, waiter_that_was_handed_a_useless_connection_keeps_its_turn, 0,
                        (int)LENGTH(dirts));
    tcase_add_loop_test(tc, waiter_out_of_time_is_not_given_a_useless_connection, 0,
                        (int)LENGTH(dirts));
    tcase_add_test(tc, greeting_waits_for_the_first_borrower);
    tcase_add_test(tc, call_that_fails_after_a_failed_probe_gives_nothing);
    tcase_add_test(tc, one_that_is_kept_ready_is_lent_however_long_it_was_idle);
    tcase_add_test(tc, idle_connections_end_by_their_time_but_for_the_minimum);
    tcase_add_test(tc, minimum_is_kept_ready);
    tcase_add_test(tc, old_connections_are_replaced_but_never_under_a_borrower);
    tcase_add_test(tc, resize_closes_what_is_too_much_and_lets_waiters_in);
    tcase_add_test(tc, surplus_idle_connections_are_closed_at_their_return);
    tcase_add_test(tc, eviction_is_soft_and_drain_waits_for_its_end);
    tcase_add_test(tc, idle_connection_is_pinged_and_stays_if_it_answers);
    tcase_add_test(tc, pool_closes_in_the_middle_of_a_ping);
    tcase_add_test(tc, close_wakes_who_waits_and_says_who_is_late);
    tcase_add_test(tc, close_calls_off_dials);
    tcase_add_test(tc, forked_child_has_an_empty_pool_and_leaves_ours_alone);
    tcase_add_test(tc, forking_with_dials_under_way);
    tcase_add_loop_test(tc, contradictions_are_refused_with_both_names, 0,
                        (int)LENGTH(contradictions));
    tcase_add_test(tc, a_failure_that_is_heard_of_late_has_one_reason);
    return run_case(tc);
}
