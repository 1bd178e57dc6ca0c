/* test_retire.c: what a guard ends, and what it must leave alone, at every state of a connection.
 *
 * A byte of the peer's that was there at the last look is never lost.
 */
#include "support.h"

#include "../../csrc/stream/conn_impl.h"
#include "../../csrc/stream/conn_probe.h"
#include "../../csrc/stream/spot.h"

#include <sched.h>
#include <string.h>
#include <sys/socket.h>

#define LONG (60 * SECOND)

static struct pair
pair_made(enum hs_made how)
{
    struct pair p = pair_tcp();

    hs_conn_set_site(p.c, how, hs_call_site_unknown(), 0);
    return p;
}

static enum hs_retire
judge(struct hs_conn *c)
{
    int64_t idle;

    return hs_conn_judge(c, 0, 0, &idle);
}

static enum hs_retire
retire(struct hs_conn *c)
{
    int64_t idle, was;

    return hs_conn_retire(c, 0, 0, &idle, &was);
}

static void
say(struct pair *p)
{
    struct hs_op op = op_in(LONG);
    char byte;

    ASSERT_OK(DONE(hs_conn_send_all(p->c, &op, (const uint8_t *)"x", 1, fresh())));
    get(p->peer, &byte, 1);
}

static void
hear_one(struct pair *p)
{
    struct hs_op op = op_in(LONG);
    uint8_t byte;

    ASSERT_OK(DONE(hs_conn_recv_exactly(p->c, &op, &byte, 1, fresh())));
}

static void
hear(struct pair *p)
{
    put(p->peer, "x", 1);
    hear_one(p);
}

START_TEST(one_that_nobody_uses_is_closed_and_its_peer_sees_an_orderly_end)
{
    struct pair p = pair_made(HS_MADE_ACCEPT);
    struct hs_op op = op_in(LONG);
    uint8_t byte;
    size_t n;

    ck_assert_int_eq(judge(p.c), HS_RETIRE_IDLE);
    ck_assert(!hs_conn_is_closed(p.c));
    ck_assert_int_eq(retire(p.c), HS_RETIRE_CLOSED);
    ck_assert_int_eq(recv(p.peer, &byte, 1, 0), 0);
    ASSERT_ERR(HS_E_CLOSED, DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    ck_assert_int_eq(retire(p.c), HS_RETIRE_GONE);
    ck_assert_int_eq(judge(p.c), HS_RETIRE_GONE);
    pair_free(&p);
}
END_TEST

START_TEST(the_young_the_fresh_and_those_with_bytes_are_left_alone)
{
    struct pair p = pair_made(HS_MADE_ACCEPT);
    int64_t idle, was;

    ck_assert_int_eq(hs_conn_retire(p.c, 0, LONG, &idle, &was), HS_RETIRE_YOUNG);
    ck_assert_int_eq(hs_conn_retire(p.c, LONG, 0, &idle, &was), HS_RETIRE_FRESH);
    ck_assert_int_ge(idle, 0);
    ck_assert_int_lt(idle, LONG);
    put(p.peer, "x", 1);
    ck_assert_int_eq(retire(p.c), HS_RETIRE_BYTES);
    ck_assert(!hs_conn_is_closed(p.c));
    pair_free(&p);
}
END_TEST

START_TEST(who_is_owed_an_answer_keeps_its_connection)
{
    struct pair a = pair_made(HS_MADE_ACCEPT), c = pair_made(HS_MADE_CONNECT);

    hear(&a); /* A request was read: somebody works on it. */
    ck_assert_int_eq(retire(a.c), HS_RETIRE_OWED);
    say(&a);
    ck_assert_int_eq(judge(a.c), HS_RETIRE_IDLE);
    say(&c); /* A request was sent. */
    ck_assert_int_eq(retire(c.c), HS_RETIRE_OWED);
    hear(&c);
    ck_assert_int_eq(retire(c.c), HS_RETIRE_CLOSED);
    pair_free(&a);
    pair_free(&c);
}
END_TEST

START_TEST(who_looks_at_a_pools_connection_reads_nothing_of_the_pool)
{
    struct pair p = pair_made(HS_MADE_POOL);

    hs_conn_set_lease(p.c, (const _Atomic uint64_t *)(uintptr_t)8); /* The pool has ended. */
    ck_assert_int_eq(judge(p.c), HS_RETIRE_POOLED);
    atomic_store(hs_conn_holder(p.c), hs_call_site_unknown());
    ck_assert_int_eq(judge(p.c), HS_RETIRE_LENT);
    pair_free(&p);
}
END_TEST

START_TEST(a_servers_connection_is_busy_while_its_handler_is_in_no_call)
{
    struct pair p = pair_made(HS_MADE_ACCEPT), a = pair_made(HS_MADE_ADOPT);

    hs_conn_set_served(p.c, false);
    ck_assert_int_eq(retire(p.c), HS_RETIRE_BUSY);
    ck_assert_int_eq(retire(a.c), HS_RETIRE_UNKNOWN);
    hs_conn_set_served(a.c, false);
    ck_assert_int_eq(retire(a.c), HS_RETIRE_BUSY);
    pair_free(&p);
    pair_free(&a);
}
END_TEST

struct reading {
    struct hs_conn *c;
    struct hs_error err;
    hs_err rv;
    size_t n;
};

static void *
read_one(void *arg)
{
    struct reading *r = arg;
    struct hs_op op = op_in(LONG);
    uint8_t byte;

    r->rv = DONE(hs_conn_recv(r->c, &op, &byte, 1, 0, &r->err, &r->n));
    return NULL;
}

START_TEST(who_waits_for_a_message_ends_its_call_by_itself)
{
    struct pair p = pair_made(HS_MADE_ACCEPT);
    struct reading r = {.c = p.c};
    struct thread t;

    hs_conn_set_served(p.c, false);
    say(&p);
    thread_start(&t, read_one, &r);
    thread_wait_asleep(&t);
    ck_assert_int_eq(retire(p.c), HS_RETIRE_ASKED);
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_CANCELLED, r.rv);
    ck_assert_str_eq(r.err.phase, "idle_timeout");
    ck_assert(hs_conn_was_retired(p.c));
    ck_assert(!hs_conn_is_closed(p.c)); /* That is its owner's to do. */
    pair_free(&p);
}
END_TEST

START_TEST(a_client_that_waits_for_its_answer_is_busy)
{
    struct pair p = pair_made(HS_MADE_CONNECT);
    struct reading r = {.c = p.c};
    struct thread t;

    hear(&p);
    thread_start(&t, read_one, &r);
    thread_wait_asleep(&t);
    ck_assert_int_eq(retire(p.c), HS_RETIRE_BUSY);
    put(p.peer, "x", 1);
    (void)thread_join(&t);
    ASSERT_OK(r.rv);
    pair_free(&p);
}
END_TEST

/* Whatever comes first: a byte that was there when the reader looked last is had. */
START_TEST(a_byte_that_comes_at_the_same_moment_is_had_or_the_peer_keeps_it)
{
    struct pair p = pair_made(HS_MADE_ACCEPT);
    struct reading r = {.c = p.c};
    struct thread t;

    say(&p);
    thread_start(&t, read_one, &r);
    if (_i % 2 == 0)
        thread_wait_asleep(&t);
    put(p.peer, "x", 1);
    (void)retire(p.c);
    (void)thread_join(&t);
    ASSERT_OK(r.rv);
    ck_assert_uint_eq(r.n, 1);
    ck_assert(!hs_conn_was_retired(p.c));
    pair_free(&p);
}
END_TEST

START_TEST(an_idle_timeout_that_was_there_comes_back_unless_another_was_set)
{
    struct pair p = pair_made(HS_MADE_ACCEPT);
    struct reading r = {.c = p.c};
    struct thread t;
    int64_t idle, was = 0;

    say(&p);
    hs_conn_set_idle_timeout(p.c, 2 * LONG);
    thread_start(&t, read_one, &r);
    thread_wait_asleep(&t);
    ck_assert(!hs_conn_unretire(p.c, LONG, 0)); /* Nobody had asked. */
    ck_assert_int_eq(p.c->quiet.span_ns, 2 * LONG);
    ck_assert_int_eq(hs_conn_retire(p.c, 1, 0, &idle, &was), HS_RETIRE_ASKED);
    ck_assert_int_eq(was, 2 * LONG);
    if (!hs_conn_unretire(p.c, 1, was)) /* It may have ended by now. */
        ck_assert_int_eq(p.c->quiet.span_ns, 2 * LONG);
    put(p.peer, "x", 1);
    (void)thread_join(&t);
    pair_free(&p);
}
END_TEST

/* The call is stepped, and nobody steps it meanwhile: what the guards ask stays. Each would take
 * the other's time for the connection's own, and leave it there. */
START_TEST(two_guards_with_different_times_put_back_what_was_there)
{
    const int64_t first = _i % 2 == 0 ? 5 : 3, second = _i % 2 == 0 ? 3 : 5;
    struct pair p = pair_made(HS_MADE_ACCEPT);
    struct hs_op op = op_step(LONG);
    int64_t idle, was, other = second;
    enum hs_retire how;
    uint8_t byte;
    size_t n;

    say(&p);
    hs_conn_set_idle_timeout(p.c, 2 * LONG);
    ASSERT_ERR(HS_WANT, hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n));
    ck_assert_int_eq(hs_conn_retire(p.c, first, 0, &idle, &was), HS_RETIRE_ASKED);
    how = hs_conn_retire(p.c, second, 0, &idle, &other);
    ck_assert_int_eq(how, HS_RETIRE_BUSY);
    ck_assert(!hs_conn_unretire(p.c, first, was));
    ck_assert_int_eq(p.c->quiet.span_ns, 2 * LONG);
    ck_assert_int_eq(hs_conn_retire(p.c, second, 0, &idle, &other), HS_RETIRE_ASKED);
    ck_assert(!hs_conn_unretire(p.c, second, other));
    ck_assert_int_eq(p.c->quiet.span_ns, 2 * LONG);
    put(p.peer, "x", 1);
    wait_for_want(&op);
    ASSERT_OK(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n));
    pair_free(&p);
}
END_TEST

/* One that has a shorter time already is only woken: giving up gives nothing back. */
START_TEST(a_guard_that_had_nothing_to_change_leaves_another_s_request_alone)
{
    struct pair p = pair_made(HS_MADE_ACCEPT);
    struct hs_op op = op_step(LONG);
    int64_t idle, none, was;
    uint8_t byte;
    size_t n;

    say(&p);
    ASSERT_ERR(HS_WANT, hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n));
    hs_conn_set_idle_timeout(p.c, 1); /* Nobody has woken it yet. */
    ck_assert_int_eq(hs_conn_retire(p.c, 2, 0, &idle, &none), HS_RETIRE_ASKED);
    hs_conn_set_idle_timeout(p.c, 2 * LONG);
    ck_assert_int_eq(hs_conn_retire(p.c, 2, 0, &idle, &was), HS_RETIRE_ASKED);
    ck_assert(!hs_conn_unretire(p.c, 2, none));
    ck_assert_int_eq(p.c->quiet.span_ns, 2);
    ck_assert(!hs_conn_unretire(p.c, 2, was));
    ck_assert_int_eq(p.c->quiet.span_ns, 2 * LONG);
    hs_conn_abandon(p.c, &op, NULL);
    pair_free(&p);
}
END_TEST

/* A call whose time was given back goes on; of one that had ended before that is told. */
START_TEST(taking_back_says_truly_whether_the_call_has_ended)
{
    for (int i = 0; i < 90; i++) {
        struct pair p = pair_made(HS_MADE_ACCEPT);
        struct reading r = {.c = p.c};
        struct thread t;
        int64_t idle, was = 0;
        bool late;

        say(&p);
        thread_start(&t, read_one, &r);
        thread_wait_asleep(&t);
        ck_assert_int_eq(hs_conn_retire(p.c, 1, 0, &idle, &was), HS_RETIRE_ASKED);
        for (int turns = i % 30; turns > 0; turns--)
            (void)sched_yield();
        late = hs_conn_unretire(p.c, 1, was);
        put(p.peer, "x", 1);
        (void)thread_join(&t);
        ck_assert_int_eq(r.rv, late ? HS_E_CANCELLED : HS_OK);
        ck_assert_int_eq(hs_conn_was_retired(p.c), late);
        pair_free(&p);
    }
}
END_TEST

START_TEST(a_shorter_idle_timeout_is_never_made_longer)
{
    struct pair p = pair_made(HS_MADE_ACCEPT);
    struct reading r = {.c = p.c};
    struct thread t;
    int64_t idle, was = 0;

    say(&p);
    thread_start(&t, read_one, &r);
    thread_wait_asleep(&t);
    hs_conn_set_idle_timeout(p.c, 1); /* Nobody has woken it yet. */
    ck_assert_int_eq(hs_conn_retire(p.c, 2, 0, &idle, &was), HS_RETIRE_ASKED);
    ck_assert_int_eq(hs_quiet_span(p.c->quiet.span_ns), 1);
    (void)thread_join(&t);
    ck_assert(hs_conn_was_retired(p.c));
    pair_free(&p);
}
END_TEST

/* ---- Parked -------------------------------------------------------------------------------- */

static int mark;

static struct hs_parking *
parked(struct hs_conn *c)
{
    enum hs_parking_answer answer;
    struct hs_parking *k;

    hs_conn_set_served(c, false);
    ASSERT_OK(hs_parking_new(fresh(), &k));
    ASSERT_OK(hs_parking_park(k, c, &mark, LONG, false, fresh(), &answer));
    ck_assert_int_eq(answer, HS_PARKING_TAKEN);
    return k;
}

static enum hs_parked_news
news_of(struct hs_parking *k)
{
    struct hs_parked_conn got;

    ASSERT_OK(DONE(hs_parking_next(k, fresh(), &got)));
    hs_conn_unref(got.conn);
    return got.news;
}

START_TEST(one_that_is_parked_is_given_out_as_expired)
{
    struct pair p = pair_made(HS_MADE_ACCEPT);
    struct hs_parking *k = parked(p.c);

    ck_assert_int_eq(retire(p.c), HS_RETIRE_ASKED);
    ck_assert_int_eq(retire(p.c), HS_RETIRE_BUSY); /* It is due: somebody is about to have it. */
    ck_assert(!hs_conn_was_retired(p.c));
    ck_assert_int_eq(news_of(k), HS_PARKED_EXPIRED);
    ck_assert(hs_conn_was_retired(p.c));
    hs_parking_unref(k);
    pair_free(&p);
}
END_TEST

START_TEST(one_that_is_parked_stays_when_that_is_taken_back_in_time)
{
    struct pair p = pair_made(HS_MADE_ACCEPT);
    struct hs_parking *k = parked(p.c);
    int64_t idle, was;

    hs_conn_set_idle_timeout(p.c, 1);
    ck_assert_int_eq(hs_conn_retire(p.c, 1, 0, &idle, &was), HS_RETIRE_ASKED);
    ck_assert(!hs_conn_unretire(p.c, 1, was));
    ck_assert_int_eq(p.c->quiet.span_ns, 1); /* which nobody had changed */
    put(p.peer, "x", 1);
    ck_assert_int_eq(news_of(k), HS_PARKED_MESSAGE);
    ck_assert(!hs_conn_unretire(p.c, 1, was));
    hs_parking_unref(k);
    pair_free(&p);
}
END_TEST

START_TEST(one_that_is_given_out_as_expired_is_not_taken_back)
{
    struct pair p = pair_made(HS_MADE_ACCEPT);
    struct hs_parking *k = parked(p.c);
    int64_t idle, was;

    ck_assert_int_eq(hs_conn_retire(p.c, 1, 0, &idle, &was), HS_RETIRE_ASKED);
    ck_assert_int_eq(news_of(k), HS_PARKED_EXPIRED);
    ck_assert(hs_conn_unretire(p.c, 1, was));
    hs_parking_unref(k);
    pair_free(&p);
}
END_TEST

START_TEST(a_message_that_comes_after_is_given_all_the_same)
{
    struct pair p = pair_made(HS_MADE_ACCEPT);
    struct hs_parking *k = parked(p.c);

    ck_assert_int_eq(retire(p.c), HS_RETIRE_ASKED);
    put(p.peer, "x", 1);
    ck_assert_int_eq(news_of(k), HS_PARKED_MESSAGE);
    ck_assert(!hs_conn_was_retired(p.c));
    ck_assert_int_eq(judge(p.c), HS_RETIRE_BYTES);
    hs_parking_unref(k);
    pair_free(&p);
}
END_TEST

/* ---- Other things -------------------------------------------------------------------------- */

struct looking {
    struct hs_conn *c;
    atomic_bool over;
};

static void *
look_on(void *arg)
{
    struct looking *k = arg;

    while (!atomic_load(&k->over)) {
        (void)judge(k->c);
        breathe();
    }
    return NULL;
}

/* A guard looks at connections that others park, linger for, and shake hands on. For TSan. */
START_TEST(who_looks_disturbs_nobody_who_has_it)
{
    struct hs_close_report report;
    struct hs_parking *k;
    enum hs_parking_answer answer;

    ASSERT_OK(hs_parking_new(fresh(), &k));
    for (int i = 0; i < 20; i++) {
        struct pair p = pair_made(HS_MADE_ACCEPT);
        struct looking looking = {.c = p.c};
        struct thread t;

        thread_start(&t, look_on, &looking);
        for (int turn = 0; turn < 20; turn++) {
            ASSERT_OK(hs_parking_park(k, p.c, &mark, LONG, false, fresh(), &answer));
            put(p.peer, "x", 1);
            ck_assert_int_eq(news_of(k), HS_PARKED_MESSAGE);
            hear_one(&p);
        }
        ASSERT_ERR(HS_WANT, hs_parking_linger(k, p.c, &mark, LONG, fresh(), &report));
        ck_assert_int_eq(shutdown(p.peer, SHUT_WR), 0);
        ck_assert_int_eq(news_of(k), HS_PARKED_FINISHED);
        atomic_store(&looking.over, true);
        (void)thread_join(&t);
        pair_free(&p);
    }
    hs_parking_unref(k);
}
END_TEST

START_TEST(the_user_timeout_is_set_and_was_what_it_was)
{
    struct pair p = pair_made(HS_MADE_ACCEPT), u = pair_unix();
    unsigned was = 1;

    ASSERT_OK(hs_conn_set_user_timeout(p.c, 7000, true, fresh(), &was));
    ck_assert_uint_eq(was, 0);
    ASSERT_OK(hs_conn_set_user_timeout(p.c, 5000, true, fresh(), &was));
    ck_assert_uint_eq(was, 7000);
    ASSERT_OK(hs_conn_set_user_timeout(p.c, 6000, true, fresh(), &was));
    ck_assert_uint_eq(was, 5000);
    ASSERT_OK(hs_conn_set_user_timeout(p.c, 0, true, fresh(), &was));
    ck_assert_uint_eq(was, 5000);
    ASSERT_OK(hs_conn_set_user_timeout(p.c, 0, false, fresh(), &was));
    ck_assert_uint_eq(was, 5000); /* The longer one has changed nothing. */
    was = 7;
    ASSERT_ERR(HS_E_CLOSED, hs_conn_set_user_timeout(u.c, 5000, false, fresh(), &was));
    hs_conn_close(p.c, false);
    ASSERT_ERR(HS_E_CLOSED, hs_conn_set_user_timeout(p.c, 5000, false, fresh(), &was));
    ck_assert_uint_eq(was, 7);
    pair_free(&p);
    pair_free(&u);
}
END_TEST

START_TEST(every_verdict_has_a_name)
{
    for (int how = 0; how < HS_RETIRE_KINDS; how++)
        ck_assert_uint_gt(strlen(hs_retire_name((enum hs_retire)how)), 0);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("retire");

    tcase_add_test(tc, one_that_nobody_uses_is_closed_and_its_peer_sees_an_orderly_end);
    tcase_add_test(tc, the_young_the_fresh_and_those_with_bytes_are_left_alone);
    tcase_add_test(tc, who_is_owed_an_answer_keeps_its_connection);
    tcase_add_test(tc, who_looks_at_a_pools_connection_reads_nothing_of_the_pool);
    tcase_add_test(tc, a_servers_connection_is_busy_while_its_handler_is_in_no_call);
    tcase_add_test(tc, who_waits_for_a_message_ends_its_call_by_itself);
    tcase_add_test(tc, a_client_that_waits_for_its_answer_is_busy);
    tcase_add_loop_test(tc, a_byte_that_comes_at_the_same_moment_is_had_or_the_peer_keeps_it, 0,
                        100);
    tcase_add_loop_test(tc, two_guards_with_different_times_put_back_what_was_there, 0, 2);
    tcase_add_test(tc, a_guard_that_had_nothing_to_change_leaves_another_s_request_alone);
    tcase_add_test(tc, an_idle_timeout_that_was_there_comes_back_unless_another_was_set);
    tcase_add_test(tc, a_shorter_idle_timeout_is_never_made_longer);
    tcase_add_test(tc, taking_back_says_truly_whether_the_call_has_ended);
    tcase_add_test(tc, one_that_is_parked_stays_when_that_is_taken_back_in_time);
    tcase_add_test(tc, one_that_is_given_out_as_expired_is_not_taken_back);
    tcase_add_test(tc, one_that_is_parked_is_given_out_as_expired);
    tcase_add_test(tc, a_message_that_comes_after_is_given_all_the_same);
    tcase_add_test(tc, who_looks_disturbs_nobody_who_has_it);
    tcase_add_test(tc, the_user_timeout_is_set_and_was_what_it_was);
    tcase_add_test(tc, every_verdict_has_a_name);
    return run_case(tc);
}
