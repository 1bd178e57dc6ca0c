/* test_conn_quiet.c: calls that end since nothing has come; never at the cost of a message that has
 * arrived, however late.
 */
#include "support.h"

#include "../../csrc/stream/conn_impl.h"

#include <string.h>

#define LONG (60 * SECOND)

static struct hs_conn_info
info_of(struct hs_conn *c)
{
    struct hs_conn_info info;

    hs_conn_info(c, &info);
    return info;
}

static hs_err
recv_one(struct hs_conn *c, struct hs_op *op, char *byte)
{
    size_t n;

    return DONE(hs_conn_recv(c, op, (uint8_t *)byte, 1, 0, fresh(), &n));
}

/* One byte there and one back: from then on it is between two messages. */
static void
converse(struct pair *p)
{
    struct hs_op in = op_in(LONG), out = op_in(LONG);
    char byte;

    put(p->peer, "a", 1);
    ASSERT_OK(recv_one(p->c, &in, &byte));
    ASSERT_OK(DONE(hs_conn_send_all(p->c, &out, (uint8_t *)&byte, 1, fresh())));
    get(p->peer, &byte, 1);
}

static void
assert_refused(struct hs_conn *c, const char *phase)
{
    struct hs_op op = op_in(LONG);
    struct hs_error *err = fresh();
    uint8_t byte = 0;
    size_t n;

    ASSERT_ERR(HS_E_CANCELLED, DONE(hs_conn_recv(c, &op, &byte, 1, 0, err, &n)));
    ck_assert_str_eq(err->phase, phase);
    op = op_in(LONG);
    ASSERT_ERR(HS_E_CANCELLED, DONE(hs_conn_send_all(c, &op, &byte, 1, fresh())));
}

struct reading {
    struct hs_conn *c;
    struct hs_op op;
    char byte;
    hs_err rv;
};

static void *
read_one(void *arg)
{
    struct reading *r = arg;

    r->op = op_in(LONG);
    r->rv = recv_one(r->c, &r->op, &r->byte);
    return NULL;
}

START_TEST(no_more_is_expected_and_who_waits_ends_at_once)
{
    struct pair p = pair_tcp();
    struct reading r = {.c = p.c};
    struct thread t;

    converse(&p);
    thread_start(&t, read_one, &r);
    thread_wait_asleep(&t);
    hs_conn_expect_no_more(p.c, 1);
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_CANCELLED, r.rv);
    ck_assert_int_eq(info_of(p.c).quiet, HS_QUIET_NO_MORE);
    put(p.peer, "b", 1); /* After the call has ended: too late. */
    assert_refused(p.c, "drain");
    pair_free(&p);
}
END_TEST

START_TEST(what_has_arrived_is_had_and_answered_though_no_more_is_expected)
{
    struct pair p = pair_tcp();
    struct hs_op in = op_in(LONG), next = op_in(LONG), out = op_in(LONG);
    char byte;

    converse(&p);
    put(p.peer, "bc", 2);
    hs_conn_expect_no_more(p.c, 1);
    ASSERT_OK(recv_one(p.c, &in, &byte));
    ASSERT_OK(recv_one(p.c, &next, &byte));
    ck_assert_int_eq(byte, 'c');
    ASSERT_OK(DONE(hs_conn_send_all(p.c, &out, (uint8_t *)&byte, 1, fresh())));
    assert_refused(p.c, "drain");
    pair_free(&p);
}
END_TEST

START_TEST(who_has_asked_for_nothing_yet_has_its_time_and_no_second_message)
{
    struct pair p = pair_tcp();
    struct reading r = {.c = p.c};
    struct hs_op out = op_in(LONG);
    struct thread t;

    thread_start(&t, read_one, &r);
    thread_wait_asleep(&t);
    hs_conn_expect_no_more(p.c, hs_now() + LONG);
    thread_wait_asleep(&t); /* It has looked, and waits on. */
    put(p.peer, "a", 1);
    (void)thread_join(&t);
    ASSERT_OK(r.rv);
    ASSERT_OK(DONE(hs_conn_send_all(p.c, &out, (uint8_t *)&r.byte, 1, fresh())));
    assert_refused(p.c, "drain");
    pair_free(&p);
}
END_TEST

START_TEST(the_time_for_a_first_message_ends)
{
    struct pair p = pair_tcp();

    hs_conn_expect_no_more(p.c, hs_now() + 20 * MS);
    assert_refused(p.c, "drain");
    pair_free(&p);
}
END_TEST

/* A token that ends only between messages is a server's word that it drains; when it stops waiting
 * for the next message is another. */
START_TEST(a_token_between_messages_ends_nothing_of_a_connection_that_stays)
{
    struct hs_token *told;
    struct pair p = pair_tcp();
    struct hs_op stays = op_step(LONG), at_once = op_step(LONG);
    char byte;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &told));
    stays.told = at_once.told = told;
    converse(&p);
    hs_conn_set_served(p.c, true);
    (void)hs_token_cancel(told, "draining", 0, NULL);
    ASSERT_ERR(HS_WANT, recv_one(p.c, &stays, &byte));
    put(p.peer, "b", 1);
    wait_for_want(&stays);
    ASSERT_OK(recv_one(p.c, &stays, &byte));
    stays = (struct hs_op)op_step(LONG);
    stays.told = told;
    ASSERT_ERR(HS_WANT, recv_one(p.c, &stays, &byte));
    hs_conn_expect_no_more(p.c, 1);
    ASSERT_ERR(HS_E_CANCELLED, recv_one(p.c, &stays, &byte));
    pair_free(&p);

    p = pair_tcp();
    converse(&p);
    hs_conn_set_served(p.c, false);
    ASSERT_ERR(HS_E_CANCELLED, recv_one(p.c, &at_once, &byte));
    pair_free(&p);
    hs_token_unref(told);
}
END_TEST

/* No matter in whose hands an answer is, it is waited for; its last byte ends the wait for the
 * next. */
START_TEST(a_reader_ends_when_another_thread_has_answered)
{
    struct pair p = pair_tcp();
    struct reading r = {.c = p.c};
    struct hs_op in = op_in(LONG), out = op_in(LONG);
    struct thread t;

    converse(&p);
    put(p.peer, "b", 1);
    ASSERT_OK(recv_one(p.c, &in, &r.byte));
    thread_start(&t, read_one, &r);
    thread_wait_asleep(&t);
    hs_conn_expect_no_more(p.c, 1);
    thread_wait_asleep(&t);
    ck_assert_int_eq(info_of(p.c).quiet, HS_QUIET_GOES_ON);
    ASSERT_OK(DONE(hs_conn_send_all(p.c, &out, (uint8_t *)"B", 1, fresh())));
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_CANCELLED, r.rv);
    pair_free(&p);
}
END_TEST

START_TEST(half_a_message_is_waited_for)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_step(LONG);
    uint8_t buf[4];

    converse(&p);
    ASSERT_ERR(HS_WANT, hs_conn_recv_exactly(p.c, &op, buf, 4, fresh()));
    put(p.peer, "bc", 2);
    wait_for_want(&op);
    ASSERT_ERR(HS_WANT, hs_conn_recv_exactly(p.c, &op, buf, 4, fresh()));
    hs_conn_expect_no_more(p.c, 1);
    hs_conn_set_idle_timeout(p.c, 1);
    ASSERT_ERR(HS_WANT, hs_conn_recv_exactly(p.c, &op, buf, 4, fresh()));
    put(p.peer, "de", 2);
    wait_for_want(&op);
    ASSERT_OK(DONE(hs_conn_recv_exactly(p.c, &op, buf, 4, fresh())));
    pair_free(&p);
}
END_TEST

START_TEST(silence_is_counted_from_the_last_byte_of_either_side)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_step(LONG), out = op_in(LONG);
    char byte = 0;
    size_t n;

    hs_conn_set_idle_timeout(p.c, 10 * SECOND);
    ASSERT_ERR(HS_WANT, hs_conn_recv(p.c, &op, (uint8_t *)&byte, 1, 0, fresh(), &n));
    ck_assert_int_eq(op.want_at_ns, info_of(p.c).created_ns + 10 * SECOND);
    ASSERT_OK(DONE(hs_conn_send_all(p.c, &out, (uint8_t *)&byte, 1, fresh())));
    ASSERT_ERR(HS_WANT, hs_conn_recv(p.c, &op, (uint8_t *)&byte, 1, 0, fresh(), &n));
    ck_assert_int_eq(op.want_at_ns, info_of(p.c).last_write_ns + 10 * SECOND);
    hs_conn_abandon(p.c, &op, NULL);
    pair_free(&p);
}
END_TEST

START_TEST(silence_ends_a_call_a_slow_answer_does_not)
{
    struct pair p = pair_tcp();
    struct hs_op in = op_in(LONG), step = op_step(LONG);
    char byte;
    size_t n;

    hs_conn_set_idle_timeout(p.c, 20 * MS);
    put(p.peer, "a", 1);
    ASSERT_OK(recv_one(p.c, &in, &byte));
    p.c->dirs[HS_DIR_IN].last_ns -= SECOND; /* It has been asked a second ago. */
    ASSERT_ERR(HS_WANT, hs_conn_recv(p.c, &step, (uint8_t *)&byte, 1, 0, fresh(), &n));
    hs_conn_abandon(p.c, &step, NULL);
    in = op_in(LONG);
    ASSERT_OK(DONE(hs_conn_send_all(p.c, &in, (uint8_t *)&byte, 1, fresh())));
    assert_refused(p.c, "idle_timeout");
    ck_assert_int_eq(info_of(p.c).quiet, HS_QUIET_FOR_LONG);
    pair_free(&p);
}
END_TEST

START_TEST(no_silence_overflows)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_step(HS_NEVER - 1);
    char byte;
    size_t n;

    op.deadline_ns = HS_NEVER;
    hs_conn_set_idle_timeout(p.c, HS_NEVER - 1);
    ASSERT_ERR(HS_WANT, hs_conn_recv(p.c, &op, (uint8_t *)&byte, 1, 0, fresh(), &n));
    ck_assert_int_eq(op.want_at_ns, HS_NEVER);
    hs_conn_abandon(p.c, &op, NULL);
    pair_free(&p);
}
END_TEST

/* Who only looks waits for nothing; and finish waits for an end. */
START_TEST(only_waiting_for_a_message_is_ended)
{
    struct pair p = pair_tcp();
    struct hs_op look = op_in(0), finish = op_step(LONG);
    struct hs_close_report report;
    char byte;
    size_t n;

    converse(&p);
    hs_conn_expect_no_more(p.c, 1);
    hs_conn_set_idle_timeout(p.c, 1);
    look.deadline_ns = HS_TRY_ONCE;
    ASSERT_ERR(HS_E_DEADLINE, hs_conn_recv(p.c, &look, (uint8_t *)&byte, 1, 0, fresh(), &n));
    ASSERT_ERR(HS_WANT, hs_conn_finish(p.c, &finish, fresh(), &report));
    hs_conn_abandon(p.c, &finish, NULL);
    pair_free(&p);
}
END_TEST

/* ---- The last moment ----------------------------------------------------------------------- */

static struct {
    int peer;
    struct hs_conn *c;
    enum { AT_ONCE, SOON } when;
    int after_tries;
} late;

/* The peer's message comes right behind the try that has found nothing, and so does what ends the
 * wait for it. */
static hs_err
try_recv_too_early(void *state, int fd, uint8_t *buf, size_t len, int flags, struct hs_error *err,
                   short *want, size_t *ret_n)
{
    hs_err rv = hs_tcp_layer.try_recv(state, fd, buf, len, flags, err, want, ret_n);

    if (rv == HS_WANT && late.after_tries-- == 0) {
        put(late.peer, "z", 1);
        if (late.when == AT_ONCE)
            hs_conn_expect_no_more(late.c, 1);
        else
            hs_conn_set_idle_timeout(late.c, 1);
    }
    return rv;
}

START_TEST(what_arrives_between_the_last_try_and_the_end_of_the_wait_is_had)
{
    struct hs_layer slow = hs_tcp_layer;
    struct pair p = pair_tcp();
    struct hs_op op = op_in(LONG);
    char byte = 0;

    slow.try_recv = try_recv_too_early;
    converse(&p);
    late.peer = p.peer;
    late.c = p.c;
    late.when = _i == 0 ? AT_ONCE : SOON;
    late.after_tries = 0;
    p.c->layer = &slow;
    ASSERT_OK(recv_one(p.c, &op, &byte));
    ck_assert_int_eq(byte, 'z');
    p.c->layer = &hs_tcp_layer;
    pair_free(&p);
}
END_TEST

/* Each time the message has arrived before no more is expected, and the reader is anywhere. */
START_TEST(whatever_the_moment_what_had_arrived_is_had)
{
    for (int i = 0; i < 300; i++) {
        struct pair p = pair_tcp();
        struct reading r = {.c = p.c};
        struct thread t;

        converse(&p);
        thread_start(&t, read_one, &r);
        if (i % 3 == 0)
            thread_wait_asleep(&t);
        put(p.peer, "z", 1);
        hs_conn_expect_no_more(p.c, 1);
        (void)thread_join(&t);
        ASSERT_OK(r.rv);
        ck_assert_int_eq(r.byte, 'z');
        pair_free(&p);
    }
}
END_TEST

START_TEST(settled_is_when_nothing_is_under_way)
{
    struct pair p = pair_small();
    struct hs_op in = op_in(LONG), out = op_in(LONG);
    char byte;

    ck_assert(hs_conn_is_settled(p.c));
    put(p.peer, "ab", 2);
    ck_assert(!hs_conn_is_settled(p.c));
    ASSERT_OK(DONE(hs_conn_recv_exactly(p.c, &in, (uint8_t *)&byte, 1, fresh())));
    in = op_in(LONG);
    ASSERT_OK(DONE(hs_conn_recv_exactly(p.c, &in, (uint8_t *)&byte, 1, fresh())));
    ck_assert(hs_conn_is_settled(p.c));
    ASSERT_OK(DONE(hs_conn_send_all(p.c, &out, (uint8_t *)&byte, 1, fresh())));
    ck_assert(!hs_conn_is_settled(p.c)); /* A unix peer acknowledges by reading. */
    get(p.peer, &byte, 1);
    ck_assert(hs_conn_is_settled(p.c));
    hs_conn_close(p.c, false);
    ck_assert(!hs_conn_is_settled(p.c));
    pair_free(&p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("conn_quiet");

    tcase_add_test(tc, no_more_is_expected_and_who_waits_ends_at_once);
    tcase_add_test(tc, what_has_arrived_is_had_and_answered_though_no_more_is_expected);
    tcase_add_test(tc, who_has_asked_for_nothing_yet_has_its_time_and_no_second_message);
    tcase_add_test(tc, the_time_for_a_first_message_ends);
    tcase_add_test(tc, a_token_between_messages_ends_nothing_of_a_connection_that_stays);
    tcase_add_test(tc, a_reader_ends_when_another_thread_has_answered);
    tcase_add_test(tc, half_a_message_is_waited_for);
    tcase_add_test(tc, silence_is_counted_from_the_last_byte_of_either_side);
    tcase_add_test(tc, silence_ends_a_call_a_slow_answer_does_not);
    tcase_add_test(tc, no_silence_overflows);
    tcase_add_test(tc, only_waiting_for_a_message_is_ended);
    tcase_add_loop_test(tc, what_arrives_between_the_last_try_and_the_end_of_the_wait_is_had, 0, 2);
    tcase_add_test(tc, whatever_the_moment_what_had_arrived_is_had);
    tcase_add_test(tc, settled_is_when_nothing_is_under_way);
    return run_case(tc);
}
