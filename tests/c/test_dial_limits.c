/* test_dial_limits.c: limits for connections in the making, beside a model of them.
 *
 * The model is a queue and a set: who has come and left in which order tells who has a place.
 */
#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLERS 10
#define STEPS 4000

static struct hs_dial_limits *
limits_of(long in_flight, int64_t interval_ns)
{
    struct hs_dial_limits *l;

    ASSERT_OK(hs_dial_limits_new(in_flight, interval_ns, fresh(), &l));
    return l;
}

static struct hs_dial_stats
stats_of(struct hs_dial_limits *l)
{
    struct hs_dial_stats s;

    hs_dial_limits_stats(l, &s);
    return s;
}

/* ---- The model ----------------------------------------------------------------------------- */

struct model {
    struct hs_dial_limits *limits;
    long most;
    struct hs_op ops[CALLERS];
    struct hs_dial_place *places[CALLERS];
    int order[CALLERS]; /* who is in, in the order of arrival */
    int n;
    uint64_t begun;
};

static int
position_of(const struct model *m, int who)
{
    for (int i = 0; i < m->n; i++)
        if (m->order[i] == who)
            return i;
    return -1;
}

/* The first `most` of those who are in have a place: nobody overtakes, none is lost. */
static void
ask_again(struct model *m, int who)
{
    int at = position_of(m, who);
    hs_err rv = hs_dial_place_take(m->limits, &m->ops[who], fresh(), &m->places[who]);

    ck_assert_int_eq(rv, at < m->most ? HS_OK : HS_WANT);
}

static void
check_counts(const struct model *m)
{
    struct hs_dial_stats s = stats_of(m->limits);

    ck_assert_int_eq(s.in_flight, m->n < m->most ? m->n : m->most);
    ck_assert_int_eq(s.waiting, m->n < m->most ? 0 : m->n - m->most);
}

static void
leave(struct model *m, int at)
{
    int who = m->order[at];

    hs_dial_place_leave(m->places[who]);
    m->places[who] = NULL;
    memmove(&m->order[at], &m->order[at + 1], sizeof(int) * (size_t)(m->n - at - 1));
    m->n--;
}

START_TEST(places_go_by_the_order_of_arrival)
{
    struct model m = {.most = 1 + _i};
    unsigned seed = (unsigned)_i;

    m.limits = limits_of(m.most, 0);
    for (int step = 0; step < STEPS; step++) {
        int who = rand_r(&seed) % CALLERS, at = position_of(&m, who);

        if (at < 0) {
            m.ops[who] = op_step(100 * SECOND);
            m.order[m.n++] = who;
            ask_again(&m, who);
        } else if (rand_r(&seed) % 2 == 0) {
            leave(&m, at);
        } else {
            ask_again(&m, who);
        }
        check_counts(&m);
    }
    while (m.n > 0)
        leave(&m, rand_r(&seed) % m.n);
    check_counts(&m);
    hs_dial_limits_unref(m.limits);
}
END_TEST

/* ---- Times --------------------------------------------------------------------------------- */

START_TEST(the_head_alone_has_the_timer_of_a_rate)
{
    struct hs_dial_limits *l = limits_of(0, 1000 * SECOND);
    struct hs_op ops[3] = {op_step(HS_NEVER), op_step(HS_NEVER), op_step(HS_NEVER)};
    struct hs_dial_place *places[3] = {NULL, NULL, NULL};

    ASSERT_OK(hs_dial_place_take(l, &ops[0], fresh(), &places[0]));
    for (int i = 1; i < 3; i++)
        ck_assert_int_eq(hs_dial_place_take(l, &ops[i], fresh(), &places[i]), HS_WANT);
    ck_assert(ops[1].want_at_ns != HS_NEVER);
    ck_assert(ops[2].want_at_ns == HS_NEVER);
    hs_dial_place_leave(places[1]);
    ck_assert_int_eq(hs_dial_place_take(l, &ops[2], fresh(), &places[2]), HS_WANT);
    ck_assert(ops[2].want_at_ns != HS_NEVER);
    hs_dial_place_leave(places[0]);
    hs_dial_place_leave(places[2]);
    ck_assert_uint_eq(stats_of(l).given_up, 2);
    hs_dial_limits_unref(l);
}
END_TEST

START_TEST(a_deadline_and_a_cancel_end_the_wait_and_name_it)
{
    struct hs_dial_limits *l = limits_of(1, 0);
    struct hs_dial_place *held = NULL, *late = NULL;
    struct hs_op op = op_in(10 * SECOND), short_op = op_in(SECOND / 100), cancelled;
    struct hs_error err = {0};
    struct hs_token *token;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
    (void)hs_token_cancel(token, "enough", 0, NULL);
    cancelled = op_with(token);
    ASSERT_OK(DONE(hs_dial_place_take(l, &op, fresh(), &held)));
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_dial_place_take(l, &short_op, &err, &late)));
    ck_assert_str_eq(err.phase, "limits");
    ck_assert_ptr_nonnull(strstr(err.msg, "1 are in flight, 0 others wait"));
    err = (struct hs_error){0};
    ASSERT_ERR(HS_E_CANCELLED, DONE(hs_dial_place_take(l, &cancelled, &err, &late)));
    ck_assert_str_eq(err.phase, "limits");
    ck_assert_ptr_null(late);
    hs_dial_place_leave(held);
    hs_token_unref(token);
    hs_dial_limits_unref(l);
}
END_TEST

START_TEST(limits_that_limit_nothing_are_refused)
{
    struct hs_dial_limits *l = NULL;

    ASSERT_ERR(HS_E_INVALID, hs_dial_limits_new(0, 0, fresh(), &l));
    ASSERT_ERR(HS_E_INVALID, hs_dial_limits_new(-1, 1, fresh(), &l));
    ASSERT_ERR(HS_E_INVALID, hs_dial_limits_new(1, -1, fresh(), &l));
    ck_assert_ptr_null(l);
}
END_TEST

/* ---- In a connector ------------------------------------------------------------------------- */

static struct hs_connector *
connector_under(struct hs_dial_limits *l, const struct hs_addr *to)
{
    struct hs_connect_options o;
    struct hs_endpoint ep = endpoint_of(to);
    struct hs_connector *cn;

    hs_connect_options_init(&o);
    o.limits = l;
    ASSERT_OK(hs_connector_new(&ep, &o, fresh(), &cn));
    return cn;
}

START_TEST(a_connector_gives_its_place_back_however_it_ends)
{
    struct hs_dial_limits *l = limits_of(1, 0);
    struct hs_addr addr;
    int listener = tcp_listener(5, &addr);
    struct hs_conn *conn;
    struct hs_op op;

    for (int i = 0; i < 3; i++) { /* 0: connected; 1: refused; 2: freed while another waits */
        struct hs_connector *cn = connector_under(l, &addr), *second = connector_under(l, &addr);
        struct hs_op waits = op_step(10 * SECOND);

        if (i == 1)
            (void)close(listener);
        op = op_step(10 * SECOND);
        if (hs_connector_run(cn, &op, fresh(), &conn) == HS_OK)
            hs_conn_unref(conn);
        if (stats_of(l).in_flight == 1) {
            ck_assert_int_eq(hs_connector_run(second, &waits, fresh(), &conn), HS_WANT);
            ck_assert_int_eq(stats_of(l).waiting, 1);
        }
        hs_connector_free(cn);
        ck_assert_int_eq(stats_of(l).waiting, 0);
        hs_connector_free(second);
        ck_assert_int_eq(stats_of(l).in_flight, 0);
    }
    hs_dial_limits_unref(l);
}
END_TEST

/* ---- Forks --------------------------------------------------------------------------------- */

START_TEST(a_forked_child_begins_anew)
{
    struct hs_dial_limits *l = limits_of(1, 0);
    struct hs_op op = op_in(10 * SECOND), waits = op_step(10 * SECOND), own = op_in(10 * SECOND);
    struct hs_dial_place *held = NULL, *queued = NULL, *mine = NULL;
    int status;
    pid_t pid;

    ASSERT_OK(DONE(hs_dial_place_take(l, &op, fresh(), &held)));
    ck_assert_int_eq(hs_dial_place_take(l, &waits, fresh(), &queued), HS_WANT);
    if ((pid = fork()) == 0) {
        bool ok = hs_dial_place_take(l, &waits, fresh(), &queued) == HS_E_FORKED;

        ok = ok && DONE(hs_dial_place_take(l, &own, fresh(), &mine)) == HS_OK;
        hs_dial_place_leave(held);
        ok = ok && stats_of(l).in_flight == 1;
        hs_dial_place_leave(mine);
        _exit(ok && stats_of(l).in_flight == 0 ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(stats_of(l).waiting, 1);
    hs_dial_place_leave(held);
    ASSERT_OK(hs_dial_place_take(l, &waits, fresh(), &queued));
    hs_dial_place_leave(queued);
    hs_dial_limits_unref(l);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("dial limits");

    tcase_add_loop_test(tc, places_go_by_the_order_of_arrival, 0, 6);
    tcase_add_test(tc, the_head_alone_has_the_timer_of_a_rate);
    tcase_add_test(tc, a_deadline_and_a_cancel_end_the_wait_and_name_it);
    tcase_add_test(tc, limits_that_limit_nothing_are_refused);
    tcase_add_test(tc, a_connector_gives_its_place_back_however_it_ends);
    tcase_add_test(tc, a_forked_child_begins_anew);
    return run_case(tc);
}
