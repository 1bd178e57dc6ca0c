/* Departures: a peer that leaves cancels the token of its connection, and nobody else's.
 *
 * What handlers of servers see of it is tested in tests/py/test_client_leaves.py.
 */
#include "support.h"

#include "../../csrc/base/time.h"
#include "../../csrc/stream/conn_impl.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CROWD 4
#define ROUNDS 300

struct watched {
    struct pair pair;
    struct hs_departures *d;
    struct hs_token *token;
};

static struct watched
watch_in(int64_t young_ns, struct pair pair)
{
    struct watched w = {.pair = pair};

    ASSERT_OK(hs_departures_new(young_ns, fresh(), &w.d));
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, "client", fresh(), &w.token));
    ASSERT_OK(hs_departures_watch(w.d, pair.c, w.token, fresh()));
    return w;
}

static struct watched
watch(struct pair pair)
{
    return watch_in(0, pair);
}

static void
watched_free(struct watched *w)
{
    pair_free(&w->pair);
    hs_departures_unref(w->d);
    hs_token_unref(w->token);
}

/* A close that resets. */
static void
reset_peer(struct pair *p)
{
    struct linger now = {.l_onoff = 1};

    ck_assert_int_eq(setsockopt(p->peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    ck_assert_int_eq(close(p->peer), 0);
    p->peer = -1;
}

static void
end_peer(struct pair *p)
{
    ck_assert_int_eq(shutdown(p->peer, SHUT_WR), 0);
}

/* Lets what has happened take effect; returns what tending ends with. */
static hs_err
tend(struct hs_departures *d, struct hs_callback **ret_fired)
{
    struct hs_op op = op_step(10 * SECOND);

    return hs_departures_tend(d, &op, fresh(), ret_fired);
}

static bool
is_over(struct watched *w)
{
    struct hs_callback *fired;

    ASSERT_ERR(HS_WANT, tend(w->d, &fired));
    return hs_token_check(w->token) == HS_E_CANCELLED;
}

/* What reading c gives under the token that was cancelled. */
static hs_err
read_under(struct watched *w, uint8_t *buf, size_t len, size_t *ret_n)
{
    struct hs_op op = op_with(w->token);

    return DONE(hs_conn_recv(w->pair.c, &op, buf, len, 0, fresh(), ret_n));
}

START_TEST(a_reset_cancels_and_says_why)
{
    struct watched w = watch(pair_tcp());
    struct hs_conn_info info;
    struct hs_reason reason;

    ck_assert(!is_over(&w));
    reset_peer(&w.pair);
    EVENTUALLY(is_over(&w));
    ck_assert(hs_token_reason(w.token, &reason));
    ck_assert_ptr_nonnull(strstr(reason.text, "the client has left"));
    hs_conn_info(w.pair.c, &info);
    ck_assert(info.left);
    watched_free(&w);
}
END_TEST

START_TEST(calls_on_the_connection_itself_tell_what_is_true)
{
    struct watched w = watch(pair_tcp());
    uint8_t buf[8];
    size_t n;
    struct hs_op op;

    put(w.pair.peer, "last", 4);
    reset_peer(&w.pair);
    EVENTUALLY(is_over(&w));
    ASSERT_OK(read_under(&w, buf, 4, &n));
    ck_assert_uint_eq(n, 4);
    ASSERT_ERR(HS_E_RESET, read_under(&w, buf, 4, &n));
    op = op_with(w.token);
    ASSERT_ERR(HS_E_RESET, DONE(hs_conn_send_all(w.pair.c, &op, buf, 4, fresh())));
    watched_free(&w);
}
END_TEST

static void *
recv_until_reset(void *arg)
{
    struct watched *w = arg;
    uint8_t buf[8];
    size_t n;

    return (void *)(intptr_t)read_under(w, buf, sizeof(buf), &n);
}

START_TEST(a_call_that_waits_on_it_is_told_of_the_reset_not_of_the_cancel)
{
    struct watched w = watch(pair_tcp());
    struct thread thread;

    thread_start(&thread, recv_until_reset, &w);
    thread_wait_asleep(&thread);
    reset_peer(&w.pair);
    EVENTUALLY(is_over(&w));
    ASSERT_ERR(HS_E_RESET, (hs_err)(intptr_t)thread_join(&thread));
    watched_free(&w);
}
END_TEST

START_TEST(an_end_cancels_only_where_it_is_asked_for)
{
    struct watched w = watch(pair_tcp());
    uint8_t buf[1];
    size_t n = 1;

    end_peer(&w.pair);
    ASSERT_OK(read_under(&w, buf, 1, &n)); /* It is here. */
    ck_assert_uint_eq(n, 0);
    ck_assert(!is_over(&w));
    ASSERT_OK(hs_conn_cancel_on_end(w.pair.c, true, fresh()));
    ck_assert(is_over(&w)); /* It had come before. */
    ASSERT_OK(read_under(&w, buf, 1, &n));
    ck_assert_uint_eq(n, 0);
    watched_free(&w);
}
END_TEST

START_TEST(who_does_not_ask_any_more_is_not_told)
{
    struct watched w = watch(pair_tcp());
    uint8_t buf[1];
    size_t n;

    ASSERT_OK(hs_conn_cancel_on_end(w.pair.c, true, fresh()));
    ASSERT_OK(hs_conn_cancel_on_end(w.pair.c, false, fresh()));
    end_peer(&w.pair);
    ASSERT_OK(read_under(&w, buf, 1, &n));
    ck_assert(!is_over(&w));
    watched_free(&w);
}
END_TEST

/* A peer that closes a unix socket has reset it if it had not read all; else it has ended. */
START_TEST(unix_sockets_have_resets_too)
{
    struct watched w = watch(pair_unix()), ends = watch(pair_unix());
    struct hs_op op = op_with(NULL);

    ASSERT_OK(DONE(hs_conn_send_all(w.pair.c, &op, (const uint8_t *)"unread", 6, fresh())));
    ck_assert_int_eq(close(w.pair.peer), 0);
    w.pair.peer = -1;
    ck_assert(is_over(&w));
    ck_assert_int_eq(close(ends.pair.peer), 0);
    ends.pair.peer = -1;
    ck_assert(!is_over(&ends));
    ASSERT_OK(hs_conn_cancel_on_end(ends.pair.c, true, fresh()));
    ck_assert(is_over(&ends));
    watched_free(&w);
    watched_free(&ends);
}
END_TEST

START_TEST(who_has_left_the_set_is_watched_no_more)
{
    struct watched w = watch(pair_tcp());
    uint8_t buf[1];
    size_t n;

    hs_conn_leave_departures(w.pair.c);
    ASSERT_ERR(HS_E_INVALID, hs_conn_cancel_on_end(w.pair.c, true, fresh()));
    reset_peer(&w.pair);
    ASSERT_ERR(HS_E_RESET, read_under(&w, buf, 1, &n));
    ck_assert(!is_over(&w));
    watched_free(&w);
}
END_TEST

START_TEST(who_has_left_the_set_may_come_again_with_another_token)
{
    struct watched w = watch(pair_tcp());
    struct hs_token *second;
    struct hs_reason reason;

    hs_conn_leave_departures(w.pair.c);
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, "again", fresh(), &second));
    ASSERT_OK(hs_departures_watch(w.d, w.pair.c, second, fresh()));
    reset_peer(&w.pair);
    EVENTUALLY(is_over(&w) || hs_token_check(second) == HS_E_CANCELLED);
    ASSERT_OK(hs_token_check(w.token));
    ck_assert(hs_token_reason(second, &reason));
    hs_token_unref(second);
    watched_free(&w);
}
END_TEST

START_TEST(who_gives_the_descriptor_away_is_watched_no_more)
{
    struct watched w = watch(pair_tcp());
    int fd;

    ASSERT_OK(hs_conn_detach(w.pair.c, fresh(), &fd));
    reset_peer(&w.pair);
    ck_assert(!is_over(&w));
    ck_assert_int_eq(close(fd), 0);
    watched_free(&w);
}
END_TEST

START_TEST(who_may_not_give_the_descriptor_away_is_watched_on)
{
    struct watched w = watch(pair_tcp());
    struct hs_op op = op_in(10 * SECOND);
    int fd;

    put(w.pair.peer, "x", 1);
    if (_i == 0) {
        ASSERT_OK(DONE(hs_conn_peek(w.pair.c, &op, 1, fresh())));
        hs_conn_frames_end(w.pair.c, &op);
    } else {
        ASSERT_OK(hs_fd_hold(&w.pair.c->fd, NULL)); /* As a call does that only asks. */
    }
    ASSERT_ERR(HS_E_BUSY, hs_conn_detach(w.pair.c, fresh(), &fd));
    if (_i != 0)
        hs_fd_drop(&w.pair.c->fd);
    ASSERT_OK(hs_conn_cancel_on_end(w.pair.c, true, fresh()));
    ck_assert(!is_over(&w));
    end_peer(&w.pair);
    ck_assert(is_over(&w));
    ASSERT_OK(hs_conn_cancel_on_end(w.pair.c, true, fresh())); /* It has been told. */
    watched_free(&w);
}
END_TEST

/* The event of a former owner of the number must not end the next one. */
START_TEST(a_number_that_is_used_again_is_somebody_else)
{
    struct watched w = watch(pair_tcp());
    struct pair second;
    struct hs_token *token;
    int number = hs_conn_fileno(w.pair.c);

    reset_peer(&w.pair);
    hs_conn_close(w.pair.c, false);
    second = pair_tcp();
    if (hs_conn_fileno(second.c) == number) {
        ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, "second", fresh(), &token));
        ASSERT_OK(hs_departures_watch(w.d, second.c, token, fresh()));
        hs_conn_leave_departures(w.pair.c); /* It has no slot there any more. */
        ck_assert(!is_over(&w));
        ASSERT_OK(hs_token_check(token));
        reset_peer(&second);
        EVENTUALLY(!is_over(&w) && hs_token_check(token) == HS_E_CANCELLED);
        hs_token_unref(token);
    }
    pair_free(&second);
    watched_free(&w);
}
END_TEST

static void
count(void *arg)
{
    (*(int *)arg)++;
}

START_TEST(callbacks_are_the_caller_s_to_run)
{
    struct watched w = watch(pair_tcp());
    struct hs_callback *cb, *fired = NULL;
    hs_err rv = HS_WANT;
    int calls = 0;

    ASSERT_OK(hs_token_on_cancel(w.token, count, NULL, &calls, fresh(), &cb));
    reset_peer(&w.pair);
    EVENTUALLY((rv = tend(w.d, &fired)) != HS_WANT);
    ASSERT_OK(rv);
    ck_assert_int_eq(calls, 0);
    hs_callbacks_run(fired);
    ck_assert_int_eq(calls, 1);
    hs_callback_unref(cb);
    watched_free(&w);
}
END_TEST

START_TEST(nobody_watches_a_connection_of_nobody_s)
{
    struct pair p = pair_tcp();

    ASSERT_ERR(HS_E_INVALID, hs_conn_cancel_on_end(p.c, true, fresh()));
    hs_conn_close(p.c, false);
    ASSERT_ERR(HS_E_CLOSED, hs_conn_cancel_on_end(p.c, true, fresh()));
    pair_free(&p);
}
END_TEST

START_TEST(closed_it_watches_nobody_and_has_no_descriptor)
{
    struct watched w = watch(pair_tcp());
    struct pair late = pair_tcp();
    struct hs_callback *fired;
    long fds = count_fds();

    hs_departures_close(w.d);
    hs_departures_close(w.d);
    ck_assert_int_eq(count_fds(), fds - 2);
    ASSERT_ERR(HS_E_CLOSED, tend(w.d, &fired));
    ASSERT_ERR(HS_E_CLOSED, hs_departures_watch(w.d, late.c, w.token, fresh()));
    ASSERT_OK(hs_conn_cancel_on_end(w.pair.c, true, fresh()));
    hs_conn_leave_departures(w.pair.c);
    pair_free(&late);
    watched_free(&w);
}
END_TEST

static int
use_in_child(void *arg)
{
    struct watched *w = arg;
    struct hs_callback *fired;

    if (tend(w->d, &fired) != HS_E_FORKED)
        return 1;
    hs_conn_leave_departures(w->pair.c);
    return hs_token_check(w->token) == HS_OK ? 0 : 2;
}

START_TEST(a_forked_child_watches_nobody)
{
    struct watched w = watch(pair_tcp());

    ck_assert_int_eq(in_child(use_in_child, &w), 0);
    reset_peer(&w.pair);
    EVENTUALLY(is_over(&w));
    watched_free(&w);
}
END_TEST

/* ---- Those that have just come ------------------------------------------------------------- */

START_TEST(what_happens_to_the_young_is_told_when_they_are_old_enough)
{
    struct watched w = watch_in(20 * MS, pair_tcp());
    struct hs_op op = op_step(10 * SECOND);
    struct hs_callback *fired;

    reset_peer(&w.pair);
    while (hs_token_check(w.token) == HS_OK) {
        ASSERT_ERR(HS_WANT, hs_departures_tend(w.d, &op, fresh(), &fired));
        if (hs_token_check(w.token) == HS_OK)
            wait_for_want(&op);
    }
    watched_free(&w);
}
END_TEST

START_TEST(the_young_that_leave_or_close_cost_nothing_more)
{
    struct watched w = watch_in(20 * MS, pair_tcp());
    struct pair pairs[200];
    struct hs_op op = op_step(10 * SECOND);
    struct hs_callback *fired;

    for (size_t i = 0; i < LENGTH(pairs); i++) {
        pairs[i] = pair_tcp();
        ASSERT_OK(hs_departures_watch(w.d, pairs[i].c, w.token, fresh()));
        if (i % 2 == 0)
            hs_conn_leave_departures(pairs[i].c);
        else
            hs_conn_close(pairs[i].c, false);
    }
    reset_peer(&w.pair);
    while (hs_token_check(w.token) == HS_OK) {
        ASSERT_ERR(HS_WANT, hs_departures_tend(w.d, &op, fresh(), &fired));
        if (hs_token_check(w.token) == HS_OK)
            wait_for_want(&op);
    }
    for (size_t i = 0; i < LENGTH(pairs); i++) {
        ck_assert_uint_eq(pairs[i].c->left, 0);
        pair_free(&pairs[i]);
    }
    watched_free(&w);
}
END_TEST

START_TEST(who_asks_about_the_end_is_watched_at_once)
{
    struct watched w = watch_in(HS_NEVER / 2, pair_tcp());

    end_peer(&w.pair);
    ASSERT_OK(hs_conn_cancel_on_end(w.pair.c, true, fresh()));
    EVENTUALLY(is_over(&w));
    watched_free(&w);
}
END_TEST

/* ---- A crowd that comes, leaves, is reset and closed while somebody tends ---------------- */

struct crowd {
    struct hs_departures *d;
    struct hs_token *end;
};

static void *
tend_until_end(void *arg)
{
    struct crowd *crowd = arg;
    struct hs_op op = HS_OP_INIT(HS_NEVER, crowd->end);
    struct hs_callback *fired = NULL;

    return (void *)(intptr_t)DONE(hs_departures_tend(crowd->d, &op, fresh(), &fired));
}

static void
one_of_a_crowd(struct crowd *crowd, int i)
{
    struct hs_token *token;
    struct pair p = pair_tcp();
    hs_err rv;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
    ASSERT_OK(hs_departures_watch(crowd->d, p.c, token, fresh()));
    if (i % 2 == 0)
        reset_peer(&p);
    if (i % 4 == 0)
        EVENTUALLY(hs_token_check(token) == HS_E_CANCELLED);
    if (i % 3 == 0)
        hs_conn_leave_departures(p.c);
    if (i % 5 == 0)
        hs_conn_close(p.c, false);
    rv = hs_token_check(token);
    ck_assert(rv == HS_OK || i % 2 == 0);
    pair_free(&p);
    hs_token_unref(token);
}

static void *
come_and_go(void *arg)
{
    for (int i = 0; i < ROUNDS; i++)
        one_of_a_crowd(arg, i);
    return NULL;
}

START_TEST(a_crowd_that_comes_and_goes_is_told_apart)
{
    struct thread threads[CROWD], tending;
    struct crowd crowd;

    ASSERT_OK(hs_departures_new(_i == 0 ? 0 : MS, fresh(), &crowd.d));
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &crowd.end));
    thread_start(&tending, tend_until_end, &crowd);
    for (int i = 0; i < CROWD; i++)
        thread_start(&threads[i], come_and_go, &crowd);
    for (int i = 0; i < CROWD; i++)
        (void)thread_join(&threads[i]);
    ck_assert(hs_token_cancel(crowd.end, NULL, 0, NULL));
    ASSERT_ERR(HS_E_CANCELLED, (hs_err)(intptr_t)thread_join(&tending));
    hs_departures_unref(crowd.d);
    hs_token_unref(crowd.end);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("departures");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, a_reset_cancels_and_says_why);
    tcase_add_test(tc, calls_on_the_connection_itself_tell_what_is_true);
    tcase_add_test(tc, a_call_that_waits_on_it_is_told_of_the_reset_not_of_the_cancel);
    tcase_add_test(tc, an_end_cancels_only_where_it_is_asked_for);
    tcase_add_test(tc, who_does_not_ask_any_more_is_not_told);
    tcase_add_test(tc, what_happens_to_the_young_is_told_when_they_are_old_enough);
    tcase_add_test(tc, the_young_that_leave_or_close_cost_nothing_more);
    tcase_add_test(tc, who_asks_about_the_end_is_watched_at_once);
    tcase_add_test(tc, unix_sockets_have_resets_too);
    tcase_add_test(tc, who_has_left_the_set_is_watched_no_more);
    tcase_add_test(tc, who_has_left_the_set_may_come_again_with_another_token);
    tcase_add_test(tc, who_gives_the_descriptor_away_is_watched_no_more);
    tcase_add_loop_test(tc, who_may_not_give_the_descriptor_away_is_watched_on, 0, 2);
    tcase_add_test(tc, a_number_that_is_used_again_is_somebody_else);
    tcase_add_test(tc, callbacks_are_the_caller_s_to_run);
    tcase_add_test(tc, nobody_watches_a_connection_of_nobody_s);
    tcase_add_test(tc, closed_it_watches_nobody_and_has_no_descriptor);
    tcase_add_test(tc, a_forked_child_watches_nobody);
    tcase_add_loop_test(tc, a_crowd_that_comes_and_goes_is_told_apart, 0, 2);
    return run_case(tc);
}
