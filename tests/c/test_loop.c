/* test_loop.c: event loops: what becomes due, when, and that nothing else does.
 *
 * A waiter here is a stepped recv of one byte with its bell, as a driver of an event loop has it.
 */
#include "support.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct waiter {
    struct hs_loop *loop;
    struct hs_conn *c;
    struct hs_op op;
    struct hs_bell *bell;
    uint8_t byte;
    size_t n;
};

static struct hs_loop *
loop_new(void)
{
    struct hs_loop *loop;

    ASSERT_OK(hs_loop_new(fresh(), &loop));
    return loop;
}

static void
waiter_init(struct waiter *w, struct hs_loop *loop, struct hs_conn *c, int64_t span_ns)
{
    *w = (struct waiter){.loop = loop, .c = c, .op = op_step(span_ns)};
    ASSERT_OK(hs_bell_new(loop, w, fresh(), &w->bell));
    w->op.bell = w->bell;
}

static hs_err
step(struct waiter *w)
{
    return hs_conn_recv(w->c, &w->op, &w->byte, 1, 0, fresh(), &w->n);
}

static void
park(struct waiter *w)
{
    ASSERT_ERR(HS_WANT, step(w));
    ASSERT_OK(hs_bell_park(w->bell, &w->op, fresh()));
}

static void
waiter_fini(struct waiter *w)
{
    hs_bell_free(w->bell);
    hs_conn_abandon(w->c, &w->op, NULL);
}

static bool
readable(const struct hs_loop *loop)
{
    struct pollfd p = {.fd = hs_loop_fileno(loop), .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

/* The next waiter that becomes due, 10 s at most. */
static struct waiter *
next_due(struct hs_loop *loop)
{
    struct waiter *w;

    EVENTUALLY((w = hs_loop_next(loop)) != NULL ||
               (hs_loop_collect(loop), (w = hs_loop_next(loop)) != NULL));
    return w;
}

static void
nobody_is_due(struct hs_loop *loop)
{
    hs_loop_collect(loop);
    ck_assert_ptr_null(hs_loop_next(loop));
}

START_TEST(bytes_make_their_reader_due_and_nobody_else)
{
    struct hs_loop *loop = loop_new();
    struct pair a = pair_unix(), b = pair_tcp();
    struct waiter wa, wb;

    waiter_init(&wa, loop, a.c, HS_NEVER);
    waiter_init(&wb, loop, b.c, HS_NEVER);
    park(&wa);
    park(&wb);
    nobody_is_due(loop);
    put(b.peer, "x", 1);
    ck_assert_ptr_eq(next_due(loop), &wb);
    nobody_is_due(loop);
    ASSERT_OK(step(&wb));
    ck_assert_int_eq(wb.byte, 'x');
    waiter_fini(&wa);
    waiter_fini(&wb);
    pair_free(&a);
    pair_free(&b);
    hs_loop_free(loop);
}
END_TEST

START_TEST(an_edge_that_nobody_waited_for_is_found_by_the_next_try)
{
    struct hs_loop *loop = loop_new();
    struct pair p = pair_unix();
    struct waiter w;

    waiter_init(&w, loop, p.c, HS_NEVER);
    park(&w);
    put(p.peer, "a", 1);
    ck_assert_ptr_eq(next_due(loop), &w);
    ASSERT_OK(step(&w));
    put(p.peer, "b", 1);
    nobody_is_due(loop); /* The edge is gone. */
    w.op = op_step(HS_NEVER);
    w.op.bell = w.bell;
    ASSERT_OK(step(&w));
    ck_assert_int_eq(w.byte, 'b');
    waiter_fini(&w);
    pair_free(&p);
    hs_loop_free(loop);
}
END_TEST

START_TEST(waiting_again_costs_no_new_entry)
{
    struct hs_loop *loop = loop_new();
    struct pair p = pair_unix();
    struct waiter w;

    waiter_init(&w, loop, p.c, HS_NEVER);
    for (int i = 0; i < 1000; i++) {
        w.op = op_step(HS_NEVER);
        w.op.bell = w.bell;
        park(&w);
        put(p.peer, "x", 1);
        ck_assert_ptr_eq(next_due(loop), &w);
        ASSERT_OK(step(&w));
    }
    waiter_fini(&w);
    pair_free(&p);
    hs_loop_free(loop);
}
END_TEST

START_TEST(deadlines_become_due_in_their_order)
{
    enum { N = 40 };
    struct hs_loop *loop = loop_new();
    struct pair p[N];
    struct waiter w[N];
    int order[N], last = -1;

    for (int i = 0; i < N; i++)
        order[i] = (i * 17 + 5) % N; /* a permutation: 17 and 40 have no common divisor */
    for (int i = 0; i < N; i++) {
        p[i] = pair_unix();
        waiter_init(&w[i], loop, p[i].c, (2 + order[i]) * MS);
        park(&w[i]);
    }
    for (int i = 0; i < N; i++) {
        struct waiter *due = next_due(loop);
        int rank = order[due - w];

        ck_assert_int_gt(rank, last);
        last = rank;
        ASSERT_ERR(HS_E_DEADLINE, step(due));
    }
    for (int i = 0; i < N; i++) {
        waiter_fini(&w[i]);
        pair_free(&p[i]);
    }
    hs_loop_free(loop);
}
END_TEST

START_TEST(readiness_wins_over_a_deadline_that_passed_meanwhile)
{
    struct hs_loop *loop = loop_new();
    struct pair p = pair_unix();
    struct waiter w;

    waiter_init(&w, loop, p.c, 2 * MS);
    park(&w);
    ck_assert_ptr_eq(next_due(loop), &w);
    put(p.peer, "x", 1);
    ASSERT_OK(step(&w));
    waiter_fini(&w);
    pair_free(&p);
    hs_loop_free(loop);
}
END_TEST

enum news { CLOSING, CANCELLING, DEADLINE_OF_DIRECTION, DEADLINE_OF_TOKEN, NEWS };

struct teller {
    enum news news;
    struct hs_conn *c;
    struct hs_token *token;
};

static void *
tell(void *arg)
{
    struct teller *t = arg;

    switch (t->news) {
    case CLOSING:
        hs_conn_close(t->c, false);
        break;
    case CANCELLING:
        (void)hs_token_cancel(t->token, NULL, 0, NULL);
        break;
    case DEADLINE_OF_DIRECTION:
        hs_conn_set_deadline(t->c, HS_DIR_IN, 1);
        break;
    case DEADLINE_OF_TOKEN:
        ASSERT_OK(hs_token_set_deadline(t->token, hs_now()));
        break;
    case NEWS:
        break;
    }
    return NULL;
}

static hs_err
verdict(enum news news)
{
    return news == CLOSING ? HS_E_CLOSED : news == CANCELLING ? HS_E_CANCELLED : HS_E_DEADLINE;
}

START_TEST(news_from_other_threads_make_it_due)
{
    struct hs_loop *loop = loop_new();
    struct pair p = pair_unix();
    struct waiter w;
    struct teller t = {.news = (enum news)_i, .c = p.c};
    struct thread thread;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t.token));
    waiter_init(&w, loop, p.c, HS_NEVER);
    w.op.token = t.token;
    park(&w);
    nobody_is_due(loop);
    thread_start(&thread, tell, &t);
    ck_assert_ptr_eq(next_due(loop), &w);
    (void)thread_join(&thread);
    ASSERT_ERR(verdict(t.news), step(&w));
    waiter_fini(&w);
    hs_token_unref(t.token);
    pair_free(&p);
    hs_loop_free(loop);
}
END_TEST

/* The other thread rings at every moment of a waiter's life: none is missed, none comes late. */
START_TEST(ringing_races_with_parking_and_leaving)
{
    struct hs_loop *loop = loop_new();

    for (int i = 0; i < 3000; i++) {
        struct pair p = pair_unix();
        struct waiter w;
        struct teller t = {.news = (enum news)(i % NEWS), .c = p.c};
        struct thread thread;
        bool leaves = i % 3 == 0;
        hs_err rv;

        ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t.token));
        waiter_init(&w, loop, p.c, HS_NEVER);
        w.op.token = t.token;
        thread_start(&thread, tell, &t);
        while ((rv = step(&w)) == HS_WANT) {
            ASSERT_OK(hs_bell_park(w.bell, &w.op, fresh()));
            if (leaves)
                break;
            ck_assert_ptr_eq(next_due(loop), &w);
        }
        if (!leaves)
            ASSERT_ERR(verdict(t.news), rv);
        waiter_fini(&w);
        nobody_is_due(loop);
        (void)thread_join(&thread);
        hs_token_unref(t.token);
        pair_free(&p);
    }
    hs_loop_free(loop);
}
END_TEST

START_TEST(a_number_that_comes_back_belongs_to_its_new_owner)
{
    struct hs_loop *loop = loop_new();
    struct pair a = pair_unix(), b;
    struct waiter wa, wb;
    int copy = dup(hs_conn_fileno(a.c)), number = hs_conn_fileno(a.c), old_peer = a.peer;

    waiter_init(&wa, loop, a.c, HS_NEVER);
    park(&wa);
    hs_conn_close(a.c, false);
    ck_assert_ptr_eq(next_due(loop), &wa);
    ASSERT_ERR(HS_E_CLOSED, step(&wa));
    waiter_fini(&wa);
    b = pair_unix();
    ck_assert_int_eq(hs_conn_fileno(b.c), number);
    waiter_init(&wb, loop, b.c, HS_NEVER);
    park(&wb);
    nobody_is_due(loop);
    put(old_peer, "stale", 5); /* The copy keeps the old entry alive. */
    nobody_is_due(loop);
    put(b.peer, "x", 1);
    ck_assert_ptr_eq(next_due(loop), &wb);
    ASSERT_OK(step(&wb));
    waiter_fini(&wb);
    (void)close(copy);
    pair_free(&a);
    pair_free(&b);
    hs_loop_free(loop);
}
END_TEST

START_TEST(more_than_a_batch_keeps_the_descriptor_readable)
{
    enum { N = 300 };
    struct hs_loop *loop = loop_new();
    struct pair *p = calloc(N, sizeof(*p));
    struct waiter *w = calloc(N, sizeof(*w));
    int found = 0;

    for (int i = 0; i < N; i++) {
        p[i] = pair_unix();
        waiter_init(&w[i], loop, p[i].c, HS_NEVER);
        park(&w[i]);
        put(p[i].peer, "x", 1);
    }
    while (readable(loop)) {
        struct waiter *due;

        hs_loop_collect(loop);
        for (; (due = hs_loop_next(loop)) != NULL; found++)
            ASSERT_OK(step(due));
    }
    ck_assert_int_eq(found, N);
    for (int i = 0; i < N; i++) {
        waiter_fini(&w[i]);
        pair_free(&p[i]);
    }
    free(w);
    free(p);
    hs_loop_free(loop);
}
END_TEST

START_TEST(whoever_waits_for_a_forgotten_descriptor_is_due)
{
    struct hs_loop *loop = loop_new();
    struct pair p = pair_unix();
    struct waiter w;

    waiter_init(&w, loop, p.c, HS_NEVER);
    park(&w);
    hs_loop_forget(loop, hs_conn_fileno(p.c));
    ck_assert_ptr_eq(next_due(loop), &w);
    nobody_is_due(loop); /* Takes back the ring that made it look. */
    put(p.peer, "x", 1);
    ck_assert(!readable(loop));
    waiter_fini(&w);
    pair_free(&p);
    hs_loop_free(loop);
}
END_TEST

START_TEST(accepting_is_stepped_and_ended_by_closing)
{
    struct hs_loop *loop = loop_new();
    struct hs_listen_options options;
    struct hs_endpoint ep = {0};
    struct hs_listener *l;
    struct hs_conn *conn;
    struct hs_addr addr;
    struct hs_bell *bell;
    struct hs_op op = op_step(HS_NEVER);
    size_t n;
    int fd, mark;

    hs_listen_options_init(&options);
    ASSERT_OK(hs_endpoint_from_host("127.0.0.1", 9, 0, fresh(), &ep));
    ASSERT_OK(hs_listener_open(&ep, &options, fresh(), &l));
    ASSERT_OK(hs_listener_addr(l, fresh(), &addr));
    ASSERT_OK(hs_bell_new(loop, &mark, fresh(), &bell));
    op.bell = bell;
    ASSERT_ERR(HS_WANT, hs_listener_accept(l, &op, 1, fresh(), &conn, &n));
    ASSERT_OK(hs_bell_park(bell, &op, fresh()));
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(fd, &addr.sa, addr.len), 0);
    ck_assert_ptr_eq(next_due(loop), &mark);
    ASSERT_OK(hs_listener_accept(l, &op, 1, fresh(), &conn, &n));
    hs_conn_unref(conn);
    op = op_step(HS_NEVER);
    op.bell = bell;
    ASSERT_ERR(HS_WANT, hs_listener_accept(l, &op, 1, fresh(), &conn, &n));
    ASSERT_OK(hs_bell_park(bell, &op, fresh()));
    hs_listener_close(l);
    ck_assert_ptr_eq(next_due(loop), &mark);
    ASSERT_ERR(HS_E_CLOSED, hs_listener_accept(l, &op, 1, fresh(), &conn, &n));
    hs_bell_free(bell);
    hs_listener_unref(l);
    (void)close(fd);
    hs_loop_free(loop);
}
END_TEST

static int
free_the_parents(void *arg)
{
    struct waiter *w = arg;

    if (hs_bell_park(w->bell, &w->op, NULL) != HS_E_FORKED)
        return 1;
    hs_loop_collect(w->loop);
    if (hs_loop_next(w->loop) != NULL)
        return 2;
    hs_bell_free(w->bell);
    hs_loop_free(w->loop);
    return 0;
}

START_TEST(a_forked_child_may_only_free)
{
    struct hs_loop *loop = loop_new();
    struct pair p = pair_unix();
    struct waiter w;

    waiter_init(&w, loop, p.c, HS_NEVER);
    park(&w);
    put(p.peer, "x", 1);
    ck_assert_int_eq(in_child(free_the_parents, &w), 0);
    ck_assert_ptr_eq(next_due(loop), &w); /* The child took nothing. */
    ASSERT_OK(step(&w));
    waiter_fini(&w);
    pair_free(&p);
    hs_loop_free(loop);
}
END_TEST

START_TEST(a_token_is_awaited)
{
    struct hs_loop *loop = loop_new();
    struct hs_token *t;
    struct hs_bell *bell;
    struct hs_op op;
    int mark;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &t));
    ASSERT_OK(hs_bell_new(loop, &mark, fresh(), &bell));
    op = op_step(HS_NEVER);
    op.token = t;
    op.bell = bell;
    ASSERT_ERR(HS_WANT, hs_token_await(&op, fresh()));
    ASSERT_OK(hs_bell_park(bell, &op, fresh()));
    (void)hs_token_cancel(t, NULL, 0, NULL);
    ck_assert_ptr_eq(next_due(loop), &mark);
    ASSERT_OK(hs_token_await(&op, fresh()));
    hs_bell_free(bell);
    hs_token_unref(t);
    hs_loop_free(loop);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("loop");

    tcase_add_test(tc, bytes_make_their_reader_due_and_nobody_else);
    tcase_add_test(tc, an_edge_that_nobody_waited_for_is_found_by_the_next_try);
    tcase_add_test(tc, waiting_again_costs_no_new_entry);
    tcase_add_test(tc, deadlines_become_due_in_their_order);
    tcase_add_test(tc, readiness_wins_over_a_deadline_that_passed_meanwhile);
    tcase_add_loop_test(tc, news_from_other_threads_make_it_due, 0, NEWS);
    tcase_add_test(tc, ringing_races_with_parking_and_leaving);
    tcase_add_test(tc, a_number_that_comes_back_belongs_to_its_new_owner);
    tcase_add_test(tc, more_than_a_batch_keeps_the_descriptor_readable);
    tcase_add_test(tc, whoever_waits_for_a_forgotten_descriptor_is_due);
    tcase_add_test(tc, accepting_is_stepped_and_ended_by_closing);
    tcase_add_test(tc, a_forked_child_may_only_free);
    tcase_add_test(tc, a_token_is_awaited);
    return run_case(tc);
}
