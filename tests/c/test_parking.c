/* Parked connections: what a peer does while its connection is parked, and what is made of it.
 *
 * With TLS: test_parking_tls.c. Any order of acts: test_parking_model.c, test_parking_storm.c.
 */
#include "parking_support.h"

#include <linux/net_tstamp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- One peer ------------------------------------------------------------------------------ */

START_TEST(a_message_is_given_and_the_quiet_one_is_parked_again)
{
    struct hs_parking *p = parking();
    struct pair a = pair_tcp();

    for (int i = 0; i < 3; i++) {
        park(p, a.c, 100 * SECOND);
        ck_assert_uint_eq(parked(p), 1);
        put(a.peer, "hello", 5);
        expect(p, a.c, HS_PARKED_MESSAGE);
        recv_exactly(a.c, 5);
    }
    pair_free(&a);
    hs_parking_unref(p);
}
END_TEST

START_TEST(what_the_last_message_left_is_given_at_once)
{
    struct hs_parking *p = parking();
    struct pair a = pair_unix();

    park(p, a.c, HS_NEVER);
    put(a.peer, "onetwo", 6);
    expect(p, a.c, HS_PARKED_MESSAGE);
    peek_at(a.c, 6);
    recv_exactly(a.c, 3);
    park(p, a.c, HS_NEVER);
    expect(p, a.c, HS_PARKED_MESSAGE);
    recv_exactly(a.c, 3);
    pair_free(&a);
    hs_parking_unref(p);
}
END_TEST

/* A message is taken, and half of the next had come with it. */
START_TEST(what_a_message_left_may_be_looked_at_and_left_too)
{
    struct hs_parking *p = parking();
    struct pair a = pair_unix();

    park(p, a.c, HS_NEVER);
    put(a.peer, "oneha", 5);
    expect(p, a.c, HS_PARKED_MESSAGE);
    peek_at(a.c, 5);
    recv_exactly(a.c, 3);
    park(p, a.c, HS_NEVER);
    expect(p, a.c, HS_PARKED_MESSAGE);
    peek_at(a.c, 2);
    park(p, a.c, HS_NEVER);
    ck_assert_uint_eq(parked(p), 1);
    put(a.peer, "lf", 2);
    expect(p, a.c, HS_PARKED_MESSAGE);
    ck_assert_int_eq(ask(p, a.c, HS_NEVER, false), HS_PARKING_UNREAD);
    recv_exactly(a.c, 4);
    pair_free(&a);
    hs_parking_unref(p);
}
END_TEST

START_TEST(one_that_pipelines_starves_nobody)
{
    struct hs_parking *p = parking();
    struct pair a = pair_unix(), b = pair_unix();

    park(p, a.c, HS_NEVER);
    park(p, b.c, HS_NEVER);
    put(a.peer, "aaaa", 4);
    expect(p, a.c, HS_PARKED_MESSAGE);
    peek_at(a.c, 4);
    recv_exactly(a.c, 1);
    put(b.peer, "b", 1);
    park(p, a.c, HS_NEVER);
    expect(p, b.c, HS_PARKED_MESSAGE);
    expect(p, a.c, HS_PARKED_MESSAGE);
    pair_free(&a);
    pair_free(&b);
    hs_parking_unref(p);
}
END_TEST

START_TEST(half_a_message_that_was_looked_at_waits_for_its_rest)
{
    struct hs_parking *p = parking();
    struct hs_parked_conn got;
    struct pair a = pair_unix();

    park(p, a.c, HS_NEVER);
    put(a.peer, "ha", 2);
    expect(p, a.c, HS_PARKED_MESSAGE);
    peek_at(a.c, 2);
    park(p, a.c, HS_NEVER);
    ck_assert_uint_eq(parked(p), 1);
    ck_assert_uint_eq(hs_parking_tend(p, 1, &got), 0);
    ck_assert_uint_eq(due(p), 0);
    put(a.peer, "lf", 2);
    expect(p, a.c, HS_PARKED_MESSAGE);
    recv_exactly(a.c, 4);
    pair_free(&a);
    hs_parking_unref(p);
}
END_TEST

START_TEST(the_end_in_the_middle_of_a_message_is_told_as_such)
{
    struct hs_parking *p = parking();
    struct pair a = pair_unix();

    park(p, a.c, HS_NEVER);
    put(a.peer, "ha", 2);
    expect(p, a.c, HS_PARKED_MESSAGE);
    peek_at(a.c, 2);
    park(p, a.c, HS_NEVER);
    ck_assert_int_eq(shutdown(a.peer, SHUT_WR), 0);
    expect_ended(p, a.c, HS_ENDING_TRUNCATED);
    pair_free(&a);
    hs_parking_unref(p);
}
END_TEST

START_TEST(who_reads_nothing_of_a_message_is_told_so)
{
    struct hs_parking *p = parking();
    struct pair a = pair_unix();

    park(p, a.c, HS_NEVER);
    put(a.peer, "x", 1);
    expect(p, a.c, HS_PARKED_MESSAGE);
    ck_assert_int_eq(ask(p, a.c, HS_NEVER, false), HS_PARKING_UNREAD);
    recv_exactly(a.c, 1);
    park(p, a.c, MS);
    expect(p, a.c, HS_PARKED_EXPIRED);
    pair_free(&a);
    hs_parking_unref(p);
}
END_TEST

START_TEST(silence_expires_and_what_came_in_time_does_not)
{
    struct hs_parking *p = parking();
    struct pair a = pair_tcp(), b = pair_tcp();
    int64_t began = hs_now();

    park(p, a.c, 5 * MS);
    expect(p, a.c, HS_PARKED_EXPIRED);
    ck_assert_int_ge(hs_now() - began, 5 * MS);
    ck_assert(!hs_conn_is_closed(a.c)); /* The caller's to end. */
    put(b.peer, "x", 1);
    park(p, b.c, 0);
    expect(p, b.c, HS_PARKED_MESSAGE);
    pair_free(&a);
    pair_free(&b);
    hs_parking_unref(p);
}
END_TEST

START_TEST(the_peer_s_end_closes_a_quiet_one)
{
    struct hs_parking *p = parking();
    struct pair a = pair_tcp(), b = pair_tcp();
    const struct linger reset = {.l_onoff = 1};

    park(p, a.c, HS_NEVER);
    (void)close(a.peer);
    a.peer = -1;
    expect_ended(p, a.c, HS_ENDING_CLEAN);
    park(p, b.c, HS_NEVER);
    ck_assert_int_eq(setsockopt(b.peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    (void)close(b.peer);
    b.peer = -1;
    expect_ended(p, b.c, HS_ENDING_RESET);
    hs_conn_unref(a.c);
    hs_conn_unref(b.c);
    hs_parking_unref(p);
}
END_TEST

START_TEST(a_last_message_is_given_before_the_end)
{
    struct hs_parking *p = parking();
    struct pair a = pair_tcp();

    park(p, a.c, HS_NEVER);
    put(a.peer, "bye", 3);
    (void)close(a.peer);
    a.peer = -1;
    expect(p, a.c, HS_PARKED_MESSAGE);
    recv_exactly(a.c, 3);
    park(p, a.c, HS_NEVER);
    expect_ended(p, a.c, HS_ENDING_CLEAN);
    hs_conn_unref(a.c);
    hs_parking_unref(p);
}
END_TEST

static void
close_it(struct hs_conn *c)
{
    hs_conn_close(c, false);
}

static void
detach_it(struct hs_conn *c)
{
    int fd;

    ASSERT_OK(hs_conn_detach(c, fresh(), &fd));
    (void)close(fd);
}

static void
told_when_left(void (*leave)(struct hs_conn *c))
{
    struct hs_parking *p = parking();
    struct hs_parked_conn got;
    struct pair a = pair_unix();

    park(p, a.c, HS_NEVER);
    leave(a.c);
    got = next(p);
    ck_assert_int_eq(got.news, HS_PARKED_ENDED);
    ck_assert(got.closed_here);
    hs_conn_unref(got.conn);
    ck_assert_int_eq(ask(p, a.c, HS_NEVER, false), HS_PARKING_CLOSED);
    pair_free(&a);
    hs_parking_unref(p);
}

START_TEST(one_that_is_closed_here_is_told_of)
{
    told_when_left(close_it);
}
END_TEST

START_TEST(one_that_is_detached_is_told_of)
{
    told_when_left(detach_it);
}
END_TEST

START_TEST(what_cannot_be_used_any_more_is_not_taken)
{
    struct hs_parking *p = parking();
    struct pair a = pair_unix(), b = pair_small();
    struct hs_op op = op_in(10 * SECOND);

    ASSERT_OK(DONE(hs_conn_close_write(a.c, &op, fresh())));
    ck_assert_int_eq(ask(p, a.c, HS_NEVER, false), HS_PARKING_ENDING);
    hs_conn_lost_output(b.c);
    ck_assert_int_eq(ask(p, b.c, HS_NEVER, false), HS_PARKING_UNFIT);
    pair_free(&a);
    pair_free(&b);
    hs_parking_unref(p);
}
END_TEST

/* ---- Lingering ----------------------------------------------------------------------------- */

START_TEST(what_lingers_is_read_to_its_end_without_a_thread)
{
    struct hs_parking *p = parking();
    struct hs_close_report report;
    struct hs_parked_conn got;
    struct pair a = pair_tcp();
    char byte;

    put(a.peer, "unread", 6);
    ASSERT_ERR(HS_WANT, hs_parking_linger(p, a.c, &parking_mark, 100 * SECOND, fresh(), &report));
    ck_assert_int_eq(read(a.peer, &byte, 1), 0);
    put(a.peer, "more", 4);
    (void)close(a.peer);
    a.peer = -1;
    got = next(p);
    ck_assert_int_eq(got.news, HS_PARKED_FINISHED);
    ck_assert_int_eq(got.ending, HS_ENDING_CLEAN);
    ck_assert(!got.closed_here && hs_conn_is_closed(a.c));
    hs_conn_unref(got.conn);
    hs_conn_unref(a.c);
    hs_parking_unref(p);
}
END_TEST

/* As a server does it: the bounds of the turn end with the handler, in the middle of a turn. */
START_TEST(who_lingers_in_the_middle_of_a_turn_has_all_its_time)
{
    struct hs_parking *p = parking();
    struct hs_close_report report;
    struct hs_op op = op_in(10 * SECOND);
    struct hs_parked_conn got;
    struct pair a = pair_tcp();

    hs_conn_set_turns(a.c, 100 * SECOND, 100 * SECOND);
    put(a.peer, "hello", 5);
    recv_exactly(a.c, 5);
    ASSERT_OK(DONE(hs_conn_close_write(a.c, &op, fresh())));
    if (_i == 0)
        hs_conn_set_turns(a.c, HS_NEVER, HS_NEVER);
    else if (_i == 1)
        hs_conn_renew(a.c);
    else
        hs_conn_set_turns(a.c, HS_NEVER - 1, HS_NEVER - 1);
    put(a.peer, "more", 4);
    ASSERT_ERR(HS_WANT, hs_parking_linger(p, a.c, &parking_mark, 100 * SECOND, fresh(), &report));
    put(a.peer, "and more", 8);
    (void)close(a.peer);
    a.peer = -1;
    got = next(p);
    ck_assert_int_eq(got.news, HS_PARKED_FINISHED);
    ck_assert_int_eq(got.ending, HS_ENDING_CLEAN);
    hs_conn_unref(got.conn);
    hs_conn_unref(a.c);
    hs_parking_unref(p);
}
END_TEST

/* Where the call lasts longer than the span, it lingers no more, and another one has longer. */
static struct pair
one_that_lingers_briefly(struct hs_parking *p)
{
    struct hs_close_report report;

    for (int64_t span = 5 * MS;; span *= 2) {
        struct pair a = pair_tcp();

        if (hs_parking_linger(p, a.c, &parking_mark, span, fresh(), &report) == HS_WANT)
            return a;
        ck_assert_int_eq(report.ending, HS_ENDING_DEADLINE);
        pair_free(&a);
    }
}

START_TEST(lingering_has_its_time_and_may_be_cut_short)
{
    struct hs_parking *p = parking();
    struct hs_close_report report;
    struct hs_parked_conn got;
    struct pair a = one_that_lingers_briefly(p), b = pair_tcp(), c = pair_tcp();

    got = next(p);
    ck_assert_int_eq(got.ending, HS_ENDING_DEADLINE);
    ck_assert(!got.closed_here);
    hs_conn_unref(got.conn);
    ASSERT_ERR(HS_WANT, hs_parking_linger(p, b.c, &parking_mark, 100 * SECOND, fresh(), &report));
    hs_conn_close(b.c, false);
    got = next(p);
    ck_assert_int_eq(got.news, HS_PARKED_FINISHED);
    ck_assert(got.closed_here);
    hs_conn_unref(got.conn);
    ASSERT_OK(hs_parking_linger(p, c.c, &parking_mark, 0, fresh(), &report));
    ck_assert_int_eq(report.ending, HS_ENDING_DEADLINE);
    pair_free(&a);
    pair_free(&b);
    pair_free(&c);
    hs_parking_unref(p);
}
END_TEST

/* ---- Draining ------------------------------------------------------------------------------ */

START_TEST(a_drain_tells_of_the_quiet_and_serves_what_has_arrived)
{
    struct hs_parking *p = parking();
    struct hs_parked_conn got[4];
    struct pair quiet = pair_tcp(), asks = pair_tcp(), halfway = pair_unix(), late = pair_unix();

    park(p, halfway.c, HS_NEVER);
    put(halfway.peer, "ha", 2);
    expect(p, halfway.c, HS_PARKED_MESSAGE);
    peek_at(halfway.c, 2);
    park(p, halfway.c, HS_NEVER);
    park(p, quiet.c, HS_NEVER);
    park(p, asks.c, HS_NEVER);
    put(asks.peer, "x", 1);
    hs_parking_drain(p);
    ck_assert_uint_eq(hs_parking_tend(p, 4, got), 1);
    ck_assert_ptr_eq(got[0].conn, quiet.c);
    ck_assert_int_eq(got[0].news, HS_PARKED_QUIET);
    hs_conn_unref(got[0].conn);
    expect(p, asks.c, HS_PARKED_MESSAGE);
    recv_exactly(asks.c, 1);
    ck_assert_int_eq(ask(p, asks.c, HS_NEVER, false), HS_PARKING_QUIET);
    put(asks.peer, "y", 1);
    park(p, asks.c, HS_NEVER);
    expect(p, asks.c, HS_PARKED_MESSAGE);
    ck_assert_int_eq(ask(p, late.c, HS_NEVER, true), HS_PARKING_TAKEN);
    put(halfway.peer, "lf", 2);
    expect(p, halfway.c, HS_PARKED_MESSAGE);
    put(late.peer, "z", 1);
    expect(p, late.c, HS_PARKED_MESSAGE);
    pair_free(&quiet);
    pair_free(&asks);
    pair_free(&halfway);
    pair_free(&late);
    hs_parking_unref(p);
}
END_TEST

START_TEST(tending_gives_what_has_ended_and_leaves_messages_in_their_order)
{
    struct hs_parking *p = parking();
    struct hs_parked_conn got[4];
    struct pair a = pair_unix(), b = pair_unix(), gone = pair_unix();

    park(p, a.c, HS_NEVER);
    park(p, gone.c, HS_NEVER);
    park(p, b.c, HS_NEVER);
    put(a.peer, "a", 1);
    (void)close(gone.peer);
    gone.peer = -1;
    put(b.peer, "b", 1);
    ck_assert_uint_eq(hs_parking_tend(p, 4, got), 1);
    ck_assert_ptr_eq(got[0].conn, gone.c);
    hs_conn_unref(got[0].conn);
    ck_assert_uint_eq(hs_parking_tend(p, 4, got), 0);
    ck_assert_uint_eq(due(p), 2);
    expect(p, a.c, HS_PARKED_MESSAGE);
    expect(p, b.c, HS_PARKED_MESSAGE);
    pair_free(&a);
    pair_free(&b);
    hs_conn_unref(gone.c);
    hs_parking_unref(p);
}
END_TEST

START_TEST(the_oldest_silent_one_is_evicted_and_nobody_who_has_spoken)
{
    struct hs_parking *p = parking();
    struct pair spoke = pair_unix(), old = pair_unix(), young = pair_unix(), asks = pair_unix();
    struct hs_conn *conn;
    void *arg;
    bool quiet;

    park(p, spoke.c, HS_NEVER);
    put(spoke.peer, "x", 1);
    expect(p, spoke.c, HS_PARKED_MESSAGE);
    recv_exactly(spoke.c, 1);
    park(p, spoke.c, HS_NEVER);
    park(p, asks.c, HS_NEVER);
    park(p, old.c, HS_NEVER);
    park(p, young.c, HS_NEVER);
    put(asks.peer, "x", 1);
    ck_assert(!hs_parking_evict(p, 100 * SECOND, &conn, &arg));
    ck_assert(hs_parking_evict(p, 0, &conn, &arg));
    ck_assert_ptr_eq(conn, old.c);
    ck_assert_ptr_eq(arg, &parking_mark);
    ck_assert(!hs_conn_is_closed(conn));
    hs_conn_unref(conn);
    ck_assert(hs_parking_evict(p, 0, &conn, &arg));
    ck_assert_ptr_eq(conn, young.c);
    hs_conn_unref(conn);
    ck_assert(!hs_parking_evict(p, 0, &conn, &arg));
    expect(p, asks.c, HS_PARKED_MESSAGE);
    ck_assert(hs_parking_take(p, &conn, &arg, &quiet));
    ck_assert_ptr_eq(conn, spoke.c);
    hs_conn_unref(conn);
    pair_free(&spoke);
    pair_free(&old);
    pair_free(&young);
    pair_free(&asks);
    hs_parking_unref(p);
}
END_TEST

START_TEST(all_can_be_taken_whatever_they_wait_for)
{
    struct hs_parking *p = parking();
    struct pair pairs[4] = {pair_unix(), pair_unix(), pair_unix(), pair_unix()};
    struct hs_close_report report;
    struct hs_parked_conn got;
    struct hs_conn *conn;
    void *arg;
    bool quiet;
    int n = 0;

    park(p, pairs[0].c, HS_NEVER);
    park(p, pairs[1].c, HS_NEVER);
    put(pairs[1].peer, "x", 1);
    ck_assert_uint_eq(hs_parking_tend(p, 1, &got), 0);
    ASSERT_ERR(HS_WANT, hs_parking_linger(p, pairs[2].c, &parking_mark, SECOND, fresh(), &report));
    hs_parking_drain(p);
    ck_assert_int_eq(ask(p, pairs[3].c, HS_NEVER, true), HS_PARKING_TAKEN);
    for (; hs_parking_take(p, &conn, &arg, &quiet); n++) {
        ck_assert_ptr_eq(arg, &parking_mark);
        ck_assert_int_eq(quiet, conn == pairs[0].c || conn == pairs[3].c);
        hs_conn_unref(conn);
    }
    ck_assert_int_eq(n, 4);
    hs_parking_close(p);
    ASSERT_ERR(HS_E_CLOSED, hs_parking_next(p, fresh(), &got));
    for (int i = 0; i < 4; i++)
        pair_free(&pairs[i]);
    hs_parking_unref(p);
}
END_TEST

/* Else its thread would run in circles. */
START_TEST(what_the_kernel_tells_of_what_was_sent_is_no_news)
{
    const int stamps = SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE;
    struct hs_parking *p = parking();
    struct hs_close_report report;
    struct hs_op op = op_in(10 * SECOND);
    struct pair a = pair_tcp();
    struct hs_parked_conn got;
    struct pollfd ready = {.fd = hs_conn_fileno(a.c)};
    char byte;

    ASSERT_OK(
        hs_conn_setsockopt(a.c, SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof(stamps), fresh()));
    ASSERT_OK(DONE(hs_conn_send_all(a.c, &op, (const uint8_t *)"x", 1, fresh())));
    ck_assert_int_eq(poll(&ready, 1, 10000), 1);
    ck_assert_int_eq(ready.revents, POLLERR);
    if (_i == 0)
        park(p, a.c, HS_NEVER);
    else
        ASSERT_ERR(HS_WANT,
                   hs_parking_linger(p, a.c, &parking_mark, 100 * SECOND, fresh(), &report));
    ck_assert_uint_eq(hs_parking_tend(p, 1, &got), 0);
    ck_assert_int_eq(poll(&ready, 1, 0), 0);
    ck_assert_uint_eq(parked(p), 1);
    ck_assert_int_eq(read(a.peer, &byte, 1), 1);
    (void)close(a.peer);
    a.peer = -1;
    got = next(p);
    ck_assert_int_eq(got.ending, HS_ENDING_CLEAN);
    hs_conn_unref(got.conn);
    pair_free(&a);
    hs_parking_unref(p);
}
END_TEST

/* ---- In an event loop ---------------------------------------------------------------------- */

static size_t
poll_now(struct hs_parking *p, struct hs_op *op, size_t max, struct hs_parked_conn *got)
{
    size_t n = 0;
    hs_err rv = DONE(hs_parking_poll(p, op, max, fresh(), got, &n));

    if (rv != HS_WANT)
        ASSERT_OK(rv);
    return n;
}

START_TEST(all_that_have_news_are_given_up_to_what_there_is_room_for)
{
    struct hs_parking *p = parking();
    struct hs_parked_conn got[3];
    struct hs_op op = op_step(10 * SECOND);
    struct pair pairs[3];
    size_t n;

    for (size_t i = 0; i < 3; i++) {
        pairs[i] = pair_tcp();
        park(p, pairs[i].c, HS_NEVER);
    }
    ck_assert_uint_eq(poll_now(p, &op, 3, got), 0);
    ck_assert_int_ne(op.want_fd, -1);
    for (size_t i = 0; i < 3; i++)
        put(pairs[i].peer, "x", 1);
    wait_for_want(&op);
    for (size_t all = 0; all < 3; all += n) {
        op = op_step(10 * SECOND);
        while ((n = poll_now(p, &op, 2, got)) == 0)
            wait_for_want(&op);
        ck_assert_uint_le(n, 2);
        for (size_t i = 0; i < n; i++) {
            ck_assert_int_eq(got[i].news, HS_PARKED_MESSAGE);
            hs_conn_unref(got[i].conn);
        }
    }
    for (size_t i = 0; i < 3; i++)
        pair_free(&pairs[i]);
    hs_parking_unref(p);
}
END_TEST

START_TEST(waiting_for_news_has_its_time_and_obeys_its_token)
{
    struct hs_parking *p = parking();
    struct hs_callback *fired = NULL;
    struct hs_parked_conn got;
    struct hs_token *token;
    struct hs_op op = op_in(MS);
    size_t n;

    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_parking_poll(p, &op, 1, fresh(), &got, &n)));
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
    op = op_with(token);
    op.stepping = true;
    ASSERT_ERR(HS_WANT, DONE(hs_parking_poll(p, &op, 1, fresh(), &got, &n)));
    ck_assert(hs_token_cancel(token, "test", 0, &fired));
    ASSERT_ERR(HS_E_CANCELLED, DONE(hs_parking_poll(p, &op, 1, fresh(), &got, &n)));
    hs_token_unref(token);
    hs_parking_close(p);
    op = op_in(SECOND);
    ASSERT_ERR(HS_E_CLOSED, DONE(hs_parking_poll(p, &op, 1, fresh(), &got, &n)));
    hs_parking_unref(p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("parking");

    tls_world();
    (void)signal(SIGPIPE, SIG_IGN); /* Peers write to what was closed. */
    tcase_add_test(tc, a_message_is_given_and_the_quiet_one_is_parked_again);
    tcase_add_test(tc, what_the_last_message_left_is_given_at_once);
    tcase_add_test(tc, what_a_message_left_may_be_looked_at_and_left_too);
    tcase_add_test(tc, one_that_pipelines_starves_nobody);
    tcase_add_test(tc, half_a_message_that_was_looked_at_waits_for_its_rest);
    tcase_add_test(tc, the_end_in_the_middle_of_a_message_is_told_as_such);
    tcase_add_test(tc, who_reads_nothing_of_a_message_is_told_so);
    tcase_add_test(tc, silence_expires_and_what_came_in_time_does_not);
    tcase_add_test(tc, the_peer_s_end_closes_a_quiet_one);
    tcase_add_test(tc, a_last_message_is_given_before_the_end);
    tcase_add_test(tc, one_that_is_closed_here_is_told_of);
    tcase_add_test(tc, one_that_is_detached_is_told_of);
    tcase_add_test(tc, what_cannot_be_used_any_more_is_not_taken);
    tcase_add_test(tc, what_lingers_is_read_to_its_end_without_a_thread);
    tcase_add_loop_test(tc, who_lingers_in_the_middle_of_a_turn_has_all_its_time, 0, 3);
    tcase_add_test(tc, lingering_has_its_time_and_may_be_cut_short);
    tcase_add_test(tc, a_drain_tells_of_the_quiet_and_serves_what_has_arrived);
    tcase_add_test(tc, tending_gives_what_has_ended_and_leaves_messages_in_their_order);
    tcase_add_test(tc, the_oldest_silent_one_is_evicted_and_nobody_who_has_spoken);
    tcase_add_test(tc, all_can_be_taken_whatever_they_wait_for);
    tcase_add_loop_test(tc, what_the_kernel_tells_of_what_was_sent_is_no_news, 0, 2);
    tcase_add_test(tc, all_that_have_news_are_given_up_to_what_there_is_room_for);
    tcase_add_test(tc, waiting_for_news_has_its_time_and_obeys_its_token);
    return run_case(tc);
}
