/* Parked connections: what a peer does while its connection is parked, and what is made of it.
 *
 * Plain, TLS, and under a storm of threads, peers and somebody who drains.
 */
#include "support_tls.h"

#include "../../csrc/stream/conn_probe.h"

#include <linux/net_tstamp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CROWD 8

static int mark; /* what arguments point to */

static struct hs_parking *
parking(void)
{
    struct hs_parking *p;

    ASSERT_OK(hs_parking_new(fresh(), &p));
    return p;
}

static enum hs_parking_answer
ask(struct hs_parking *p, struct hs_conn *c, int64_t span, bool newcomer)
{
    enum hs_parking_answer answer;

    ASSERT_OK(hs_parking_park(p, c, &mark, span, newcomer, fresh(), &answer));
    return answer;
}

static void
park(struct hs_parking *p, struct hs_conn *c, int64_t span)
{
    ck_assert_int_eq(ask(p, c, span, false), HS_PARKING_TAKEN);
}

static struct hs_parked_conn
next(struct hs_parking *p)
{
    struct hs_parked_conn got;

    ASSERT_OK(DONE(hs_parking_next(p, fresh(), &got)));
    ck_assert_ptr_eq(got.arg, &mark);
    return got;
}

static void
expect(struct hs_parking *p, const struct hs_conn *c, enum hs_parked_news news)
{
    struct hs_parked_conn got = next(p);

    ck_assert_ptr_eq(got.conn, c);
    ck_assert_int_eq(got.news, news);
    hs_conn_unref(got.conn);
}

static void
expect_ended(struct hs_parking *p, struct hs_conn *c, enum hs_ending ending)
{
    struct hs_parked_conn got = next(p);

    ck_assert_ptr_eq(got.conn, c);
    ck_assert_int_eq(got.news, HS_PARKED_ENDED);
    ck_assert(!got.closed_here);
    ck_assert_int_eq(got.ending, ending);
    ck_assert(hs_conn_is_closed(c));
    hs_conn_unref(got.conn);
}

static size_t
parked(struct hs_parking *p)
{
    size_t n, due;

    hs_parking_counts(p, &n, &due);
    return n;
}

static size_t
due(struct hs_parking *p)
{
    size_t n, waiting;

    hs_parking_counts(p, &waiting, &n);
    return n;
}

static void
recv_exactly(struct hs_conn *c, size_t n)
{
    struct hs_op op = op_in(10 * SECOND);
    uint8_t bytes[64];

    ASSERT_OK(DONE(hs_conn_recv_exactly(c, &op, bytes, n, fresh())));
}

static void
peek_at(struct hs_conn *c, size_t n)
{
    struct hs_op op = op_in(10 * SECOND);

    ASSERT_OK(DONE(hs_conn_peek(c, &op, n, fresh())));
    hs_conn_frames_end(c, &op);
}

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
    ASSERT_ERR(HS_WANT, hs_parking_linger(p, a.c, &mark, 100 * SECOND, fresh(), &report));
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
    ASSERT_ERR(HS_WANT, hs_parking_linger(p, a.c, &mark, 100 * SECOND, fresh(), &report));
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

        if (hs_parking_linger(p, a.c, &mark, span, fresh(), &report) == HS_WANT)
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
    ASSERT_ERR(HS_WANT, hs_parking_linger(p, b.c, &mark, 100 * SECOND, fresh(), &report));
    hs_conn_close(b.c, false);
    got = next(p);
    ck_assert_int_eq(got.news, HS_PARKED_FINISHED);
    ck_assert(got.closed_here);
    hs_conn_unref(got.conn);
    ASSERT_OK(hs_parking_linger(p, c.c, &mark, 0, fresh(), &report));
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
    ck_assert_ptr_eq(arg, &mark);
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
    ASSERT_ERR(HS_WANT, hs_parking_linger(p, pairs[2].c, &mark, SECOND, fresh(), &report));
    hs_parking_drain(p);
    ck_assert_int_eq(ask(p, pairs[3].c, HS_NEVER, true), HS_PARKING_TAKEN);
    for (; hs_parking_take(p, &conn, &arg, &quiet); n++) {
        ck_assert_ptr_eq(arg, &mark);
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
        ASSERT_ERR(HS_WANT, hs_parking_linger(p, a.c, &mark, 100 * SECOND, fresh(), &report));
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

/* ---- TLS ----------------------------------------------------------------------------------- */

static const int versions[] = {HS_TLS_1_2, HS_TLS_1_3};

/* A record that comes in pieces wakes nobody before it is whole. */
START_TEST(a_message_over_tls_is_given_when_its_record_is_whole)
{
    struct hs_parking *p = parking();
    struct hs_parked_conn got;
    struct pump pump;
    struct tls_pair t = pumped_pair(&pump, versions[_i]);
    struct hs_op op = op_in(10 * SECOND);
    int pieces = 0; /* that were no news */

    park(p, t.server, HS_NEVER);
    ASSERT_OK(DONE(hs_conn_send_all(t.client, &op, (const uint8_t *)"hello", 5, fresh())));
    while (pump_move(&pump, 0, 3) == 3) {
        ck_assert_uint_eq(hs_parking_tend(p, 1, &got), 0);
        pieces += due(p) == 0 ? 1 : 0;
    }
    ck_assert_int_gt(pieces, 5);
    expect(p, t.server, HS_PARKED_MESSAGE);
    recv_exactly(t.server, 5);
    tls_pair_free(&t);
    pump_free(&pump);
    hs_parking_unref(p);
}
END_TEST

/* One that sends a record byte by byte is parked again at each, and is no younger for it. */
START_TEST(one_that_drips_half_a_record_is_evicted_before_a_younger_one)
{
    struct hs_parking *p = parking();
    struct hs_parked_conn got;
    struct pump pump;
    struct tls_pair t = pumped_pair(&pump, versions[_i]);
    struct pair young = pair_unix();
    struct hs_op op = op_in(10 * SECOND);
    struct hs_conn *conn;
    void *arg;

    park(p, t.server, HS_NEVER);
    park(p, young.c, HS_NEVER);
    ASSERT_OK(DONE(hs_conn_send_all(t.client, &op, (const uint8_t *)"hello", 5, fresh())));
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(pump_move(&pump, 0, 3), 3);
        EVENTUALLY(hs_parking_tend(p, 1, &got) == 0 && due(p) == 0 && parked(p) == 2);
    }
    ck_assert(hs_parking_evict(p, 0, &conn, &arg));
    ck_assert_ptr_eq(conn, t.server);
    hs_conn_unref(conn);
    ck_assert(hs_parking_evict(p, 0, &conn, &arg));
    ck_assert_ptr_eq(conn, young.c);
    hs_conn_unref(conn);
    pair_free(&young);
    tls_pair_free(&t);
    pump_free(&pump);
    hs_parking_unref(p);
}
END_TEST

START_TEST(what_tls_holds_of_the_next_message_is_given_at_once)
{
    struct hs_parking *p = parking();
    struct tls_pair t = default_pair(true, versions[_i]);
    struct hs_op op = op_in(10 * SECOND);

    park(p, t.server, HS_NEVER);
    ASSERT_OK(DONE(hs_conn_send_all(t.client, &op, (const uint8_t *)"onetwo", 6, fresh())));
    expect(p, t.server, HS_PARKED_MESSAGE);
    recv_exactly(t.server, 3);
    park(p, t.server, HS_NEVER);
    expect(p, t.server, HS_PARKED_MESSAGE);
    recv_exactly(t.server, 3);
    park(p, t.server, MS);
    expect(p, t.server, HS_PARKED_EXPIRED);
    tls_pair_free(&t);
    hs_parking_unref(p);
}
END_TEST

/* They come in one read of the socket, which then has nothing more to tell of. */
START_TEST(what_was_looked_at_hides_nothing_that_tls_holds)
{
    static const size_t sizes[] = {100, 16300, 200};
    struct hs_parking *p = parking();
    struct pump pump;
    struct tls_pair t = pumped_pair(&pump, versions[_i]);
    struct hs_parked_conn got;
    uint8_t bytes[16300] = {0};

    for (size_t i = 0; i < LENGTH(sizes); i++) {
        struct hs_op op = op_in(10 * SECOND);

        ASSERT_OK(DONE(hs_conn_send_all(t.client, &op, bytes, sizes[i], fresh())));
    }
    while (pump_move(&pump, 0, SIZE_MAX) > 0)
        ;
    park(p, t.server, HS_NEVER);
    expect(p, t.server, HS_PARKED_MESSAGE);
    peek_at(t.server, 4);
    park(p, t.server, HS_NEVER);
    ck_assert_uint_eq(hs_parking_tend(p, 1, &got), 0);
    ck_assert_uint_eq(due(p), 1);
    expect(p, t.server, HS_PARKED_MESSAGE);
    tls_pair_free(&t);
    pump_free(&pump);
    hs_parking_unref(p);
}
END_TEST

START_TEST(an_orderly_end_of_tls_is_told_from_a_cut)
{
    struct hs_parking *p = parking();
    struct tls_pair t = default_pair(true, versions[_i]), cut = default_pair(true, versions[_i]);

    park(p, t.server, HS_NEVER);
    hs_conn_close(t.client, false);
    expect_ended(p, t.server, HS_ENDING_CLEAN);
    park(p, cut.server, HS_NEVER);
    ck_assert_int_eq(shutdown(hs_conn_fileno(cut.client), SHUT_WR), 0); /* below TLS */
    expect_ended(p, cut.server, HS_ENDING_TRUNCATED);
    tls_pair_free(&t);
    tls_pair_free(&cut);
    hs_parking_unref(p);
}
END_TEST

START_TEST(a_linger_that_fails_is_not_told_as_closed_here)
{
    struct hs_parking *p = parking();
    struct tls_pair t = default_pair(true, versions[_i]);
    struct hs_close_report report;
    struct hs_parked_conn got;

    ASSERT_ERR(HS_WANT, hs_parking_linger(p, t.server, &mark, 100 * SECOND, fresh(), &report));
    put(hs_conn_fileno(t.client), "this is no record", 17);
    got = next(p);
    ck_assert_int_eq(got.news, HS_PARKED_FINISHED);
    ck_assert(!got.closed_here && hs_conn_is_closed(got.conn));
    ck_assert_int_eq(got.ending, HS_ENDING_RESET);
    hs_conn_unref(got.conn);
    tls_pair_free(&t);
    hs_parking_unref(p);
}
END_TEST

/* A peer that talks for ever without saying anything holds up nobody, and is no end. */
START_TEST(a_flood_of_key_updates_is_taken_in_slices_while_parked)
{
    struct hs_parking *p = parking();
    struct hs_parked_conn got;
    struct pair other = pair_tcp();
    struct shaking s;
    SSL_CTX *ctx;
    SSL *raw = raw_client_of(&s, &ctx, HS_TLS_1_3);
    int slices = 0;

    for (size_t sent = 0; sent < 20000; sent++) {
        ck_assert_int_eq(SSL_key_update(raw, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        if (SSL_do_handshake(raw) != 1)
            break;
    }
    park(p, s.c, _i == 0 ? HS_NEVER : 0);
    if (_i != 0) {
        expect(p, s.c, HS_PARKED_EXPIRED);
    } else {
        park(p, other.c, HS_NEVER);
        put(other.peer, "x", 1);
        expect(p, other.c, HS_PARKED_MESSAGE);
        do {
            ck_assert_uint_eq(hs_parking_tend(p, 1, &got), 0);
            slices++;
        } while (due(p) > 0);
        ck_assert_int_ge(slices, 2);
        ck_assert(SSL_want(raw) == SSL_NOTHING || SSL_do_handshake(raw) == 1);
        raw_write(raw, "data", 4);
        expect(p, s.c, HS_PARKED_MESSAGE);
        recv_exactly(s.c, 4);
    }
    pair_free(&other);
    raw_client_free(&s, raw, ctx);
    hs_parking_unref(p);
}
END_TEST

/* ---- A model ------------------------------------------------------------------------------- */

#define CONNS 5
#define ACTS 500

/* What is believed of one connection. Unix sockets: what a peer does is here when its call is over.
 */
struct belief {
    struct pair pair;
    enum { OWNED, PARKED, LINGERING, OVER } state;
    bool peer_ended, closed_here;
    bool late, stays, more; /* as it was parked */
    bool given, rest;
    int unread, buffered; /* bytes in the kernel, and in the buffer */
    int read, read_when_given, buffered_when_given;
};

struct model {
    struct hs_parking *p;
    struct belief conns[CONNS];
    bool draining;
    uint64_t random;
};

static unsigned
pick(struct model *m, unsigned n)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (unsigned)((m->random >> 11) % n);
}

/* HS_PARKED_FINISHED for what lingers; -1: no news. */
static int
expected_news(const struct model *m, const struct belief *b)
{
    if (b->state == LINGERING)
        return b->peer_ended || b->closed_here || b->late ? HS_PARKED_FINISHED : -1;
    if (b->state != PARKED)
        return -1;
    if (b->closed_here)
        return HS_PARKED_ENDED;
    if (b->unread > 0 || (b->buffered > 0 && !b->more))
        return HS_PARKED_MESSAGE;
    if (b->peer_ended)
        return HS_PARKED_ENDED;
    if (m->draining && !b->stays)
        return HS_PARKED_QUIET;
    return b->late ? HS_PARKED_EXPIRED : -1;
}

static enum hs_parking_answer
expected_answer(const struct model *m, const struct belief *b, bool newcomer)
{
    bool more = b->given && b->read == b->read_when_given;

    if (b->closed_here)
        return HS_PARKING_CLOSED;
    if (more && b->buffered == b->buffered_when_given && !b->rest)
        return HS_PARKING_UNREAD;
    if (m->draining && !newcomer && !more && b->unread == 0 && b->buffered == 0 && !b->peer_ended)
        return HS_PARKING_QUIET;
    return HS_PARKING_TAKEN;
}

static struct belief *
belief_of(struct model *m, const struct hs_conn *c)
{
    for (int i = 0; i < CONNS; i++)
        if (m->conns[i].pair.c == c)
            return &m->conns[i];
    ck_abort_msg("a connection that nobody has parked");
}

/* Right as it is believed, in every part; then it is the model's again. */
static void
check_news(struct model *m, const struct hs_parked_conn *got)
{
    struct belief *b = belief_of(m, got->conn);
    bool over = got->news == HS_PARKED_ENDED || got->news == HS_PARKED_FINISHED;

    ck_assert_int_eq(got->news, expected_news(m, b));
    ck_assert_ptr_eq(got->arg, b);
    if (over) {
        enum hs_ending ending =
            got->news == HS_PARKED_ENDED && b->buffered > 0 ? HS_ENDING_TRUNCATED : HS_ENDING_CLEAN;

        ck_assert_int_eq(got->closed_here, b->closed_here);
        if (!b->closed_here && b->peer_ended)
            ck_assert_int_eq(got->ending, ending);
        else if (!b->closed_here)
            ck_assert_int_eq(got->ending, HS_ENDING_DEADLINE);
        ck_assert(hs_conn_is_closed(got->conn));
    }
    if (got->news == HS_PARKED_MESSAGE) {
        b->given = true;
        b->rest = b->buffered > 0 && !b->more;
        b->read_when_given = b->read;
        b->buffered_when_given = b->buffered;
    }
    b->state = over ? OVER : OWNED;
    b->late = false;
    hs_conn_unref(got->conn);
}

static void
do_park(struct model *m, struct belief *b)
{
    bool newcomer = pick(m, 4) == 0;
    enum hs_parking_answer want = expected_answer(m, b, newcomer), got;
    int64_t span = pick(m, 3) == 0 ? 0 : HS_NEVER;

    ASSERT_OK(hs_parking_park(m->p, b->pair.c, b, span, newcomer, fresh(), &got));
    ck_assert_int_eq(got, want);
    if (got == HS_PARKING_TAKEN) {
        b->more = b->given && b->read == b->read_when_given;
        b->stays = newcomer || b->more;
        b->late = span == 0;
        b->state = PARKED;
    }
}

static void
do_linger(struct model *m, struct belief *b)
{
    int64_t span = pick(m, 2) == 0 ? MS : HS_NEVER;
    struct hs_close_report report;
    hs_err rv = hs_parking_linger(m->p, b->pair.c, b, span, fresh(), &report);

    if (b->closed_here) {
        ASSERT_ERR(HS_E_CLOSED, rv);
        b->state = OVER;
    } else if (rv == HS_OK && span == MS && report.ending == HS_ENDING_DEADLINE) {
        b->state = OVER; /* A slow machine: its time was up before the look. */
    } else if (b->peer_ended) {
        ASSERT_OK(rv);
        ck_assert_int_eq(report.ending, HS_ENDING_CLEAN);
        b->state = OVER;
    } else {
        ASSERT_ERR(HS_WANT, rv);
        b->late = span == MS;
        b->state = LINGERING;
    }
    b->unread = 0;
}

static void
act_on_own(struct model *m, struct belief *b)
{
    unsigned what = pick(m, 10);

    if (what == 0) {
        do_linger(m, b);
    } else if (what <= 2 && b->buffered + b->unread > 0 && !b->closed_here) {
        int all = b->buffered + b->unread;

        peek_at(b->pair.c, (size_t)all);
        b->buffered = all;
        b->unread = 0;
    } else if (what <= 5 && b->buffered > 0 && !b->closed_here) {
        recv_exactly(b->pair.c, 1);
        b->buffered--;
        b->read++;
    } else {
        do_park(m, b);
    }
}

static void
act_as_peer(struct model *m, struct belief *b)
{
    if (b->peer_ended || b->closed_here || b->state == OVER || b->state == LINGERING)
        return;
    if (pick(m, 12) == 0) {
        ck_assert_int_eq(shutdown(b->pair.peer, SHUT_WR), 0);
        b->peer_ended = true;
    } else if (b->unread + b->buffered < 4) {
        put(b->pair.peer, "x", 1);
        b->unread++;
    }
}

static int
news_due(const struct model *m)
{
    int n = 0;

    for (int i = 0; i < CONNS; i++)
        n += expected_news(m, &m->conns[i]) >= 0;
    return n;
}

/* All news that there are, and no more, by either way. */
static void
collect(struct model *m, bool tend)
{
    struct hs_parked_conn got[CONNS];

    if (tend)
        for (size_t i = 0, n = hs_parking_tend(m->p, CONNS, got); i < n; i++) {
            ck_assert_int_ne(got[i].news, HS_PARKED_MESSAGE);
            check_news(m, &got[i]);
        }
    else if (news_due(m) > 0) {
        ASSERT_OK(DONE(hs_parking_next(m->p, fresh(), got)));
        check_news(m, got);
    }
}

static void
act(struct model *m)
{
    struct belief *b = &m->conns[pick(m, CONNS)];

    switch (pick(m, 8)) {
    case 0:
        collect(m, true);
        break;
    case 1:
        collect(m, false);
        break;
    case 2:
        if (pick(m, 60) == 0) {
            hs_parking_drain(m->p);
            m->draining = true;
        } else if (pick(m, 30) == 0 && b->state != OVER) {
            hs_conn_close(b->pair.c, false);
            b->closed_here = true;
        }
        break;
    case 3:
    case 4:
        act_as_peer(m, b);
        break;
    default:
        if (b->state == OWNED)
            act_on_own(m, b);
    }
}

START_TEST(any_order_of_acts_keeps_the_promises)
{
    struct model m = {.random = ((uint64_t)_i + 1) * UINT64_C(0x9e3779b97f4a7c15)};
    struct hs_conn *left;
    void *arg;
    bool quiet;

    m.p = parking();
    for (int i = 0; i < CONNS; i++)
        m.conns[i].pair = pair_unix();
    for (int i = 0; i < ACTS; i++)
        act(&m);
    while (news_due(&m) > 0)
        collect(&m, false);
    for (int i = 0; i < CONNS; i++)
        if (m.conns[i].state == PARKED || m.conns[i].state == LINGERING) {
            ck_assert(hs_parking_take(m.p, &left, &arg, &quiet));
            hs_conn_unref(left);
        }
    ck_assert(!hs_parking_take(m.p, &left, &arg, &quiet));
    for (int i = 0; i < CONNS; i++)
        pair_free(&m.conns[i].pair);
    hs_parking_unref(m.p);
}
END_TEST

/* ---- A storm ------------------------------------------------------------------------------- */

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
    tcase_add_loop_test(tc, a_message_over_tls_is_given_when_its_record_is_whole, 0, 2);
    tcase_add_loop_test(tc, one_that_drips_half_a_record_is_evicted_before_a_younger_one, 0, 2);
    tcase_add_loop_test(tc, what_tls_holds_of_the_next_message_is_given_at_once, 0, 2);
    tcase_add_loop_test(tc, what_was_looked_at_hides_nothing_that_tls_holds, 0, 2);
    tcase_add_loop_test(tc, an_orderly_end_of_tls_is_told_from_a_cut, 0, 2);
    tcase_add_loop_test(tc, a_flood_of_key_updates_is_taken_in_slices_while_parked, 0, 2);
    tcase_add_loop_test(tc, a_linger_that_fails_is_not_told_as_closed_here, 0, 2);
    tcase_add_loop_test(tc, any_order_of_acts_keeps_the_promises, 0, 150);
    tcase_add_test(tc, a_storm_serves_all_and_tells_of_each_end_once);
    tcase_add_test(tc, a_storm_serves_all_in_an_event_loop);
    tcase_add_test(tc, all_that_have_news_are_given_up_to_what_there_is_room_for);
    tcase_add_test(tc, waiting_for_news_has_its_time_and_obeys_its_token);
    return run_case(tc);
}
