/* test_connector.c: connecting to literals, unix paths and localhost, and how that fails.
 *
 * Races between several addresses need names of our own and are in test_race.c.
 */
#include "support.h"

#include <errno.h>
#include <netinet/in.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct hs_connector *
connector(const struct hs_endpoint *ep)
{
    struct hs_connect_options opts;
    struct hs_connector *cn;

    hs_connect_options_init(&opts);
    ASSERT_OK(hs_connector_new(ep, &opts, fresh(), &cn));
    return cn;
}

static hs_err
run(struct hs_connector *cn, struct hs_op *op, struct hs_conn **ret_conn)
{
    return DONE(hs_connector_run(cn, op, fresh(), ret_conn));
}

static struct hs_endpoint
named(const char *host, uint16_t port)
{
    struct hs_endpoint ep;

    ASSERT_OK(hs_endpoint_from_host(host, strlen(host), port, fresh(), &ep));
    return ep;
}

static void
assert_talks(struct hs_conn *c, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct hs_op op = op_in(10 * SECOND);
    char byte = 0;

    ck_assert_int_ge(fd, 0);
    ASSERT_OK(hs_conn_send_all(c, &op, (const uint8_t *)"x", 1, fresh()));
    get(fd, &byte, 1);
    ck_assert_int_eq(byte, 'x');
    (void)close(fd);
}

START_TEST(a_literal_is_connected_without_lookup)
{
    struct hs_addr addr;
    int listener = tcp_listener(8, &addr);
    struct hs_endpoint ep = endpoint_of(&addr);
    struct hs_connector *cn = connector(&ep);
    struct hs_op op = op_in(10 * SECOND);
    const struct hs_attempt *log;
    struct hs_conn *c;
    size_t n;

    ASSERT_OK(run(cn, &op, &c));
    assert_talks(c, listener);
    log = hs_connector_attempts(cn, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(log[0].phase, HS_ATTEMPT_DONE);
    ck_assert_int_eq(log[0].sys, 0);
    ck_assert_int_ge(log[0].ended_ns, log[0].started_ns);
    (void)hs_connector_answers(cn, &n);
    ck_assert_uint_eq(n, 0);
    ASSERT_ERR(HS_E_INVALID, run(cn, &op, &c)); /* used up */
    hs_connector_free(cn);
    hs_connector_free(NULL);
    hs_conn_unref(c);
    (void)close(listener);
}
END_TEST

START_TEST(ipv6_is_connected)
{
    struct hs_addr addr = addr_of("[::1]:0");
    int listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct hs_op op = op_in(10 * SECOND);
    struct hs_connector *cn;
    struct hs_endpoint ep;
    struct hs_conn *c;

    if (listener < 0 || bind(listener, &addr.sa, addr.len) != 0) {
        skipped("no IPv6 here", EAFNOSUPPORT);
        (void)close(listener);
        return;
    }
    ck_assert_int_eq(listen(listener, 8), 0);
    addr.len = sizeof(addr.storage);
    ck_assert_int_eq(getsockname(listener, &addr.sa, &addr.len), 0);
    ep = endpoint_of(&addr);
    cn = connector(&ep);
    ASSERT_OK(run(cn, &op, &c));
    assert_talks(c, listener);
    hs_connector_free(cn);
    hs_conn_unref(c);
    (void)close(listener);
}
END_TEST

START_TEST(a_refusal_is_told_with_its_errno_and_a_hint)
{
    struct hs_addr addr;
    int kept = refused_addr(&addr);
    struct hs_endpoint ep = endpoint_of(&addr);
    struct hs_connector *cn = connector(&ep);
    struct hs_op op = op_in(10 * SECOND);
    const struct hs_attempt *log;
    struct hs_conn *c = NULL;
    char hint[400];
    size_t n;

    ASSERT_ERR(HS_E_CONNECT, run(cn, &op, &c));
    ck_assert_ptr_null(c);
    ck_assert_int_eq(last_error()->sys, ECONNREFUSED);
    ck_assert_str_eq(last_error()->op, "connect");
    ck_assert_str_eq(last_error()->phase, "connect");
    ck_assert_str_ne(hs_hint(last_error(), ECONNREFUSED, &addr, hint, sizeof(hint)), "");
    log = hs_connector_attempts(cn, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(log[0].sys, ECONNREFUSED);
    ck_assert_int_eq(log[0].phase, HS_ATTEMPT_CONNECT);
    ASSERT_ERR(HS_E_INVALID, run(cn, &op, &c));
    hs_connector_free(cn);
    (void)close(kept);
}
END_TEST

START_TEST(a_black_hole_ends_at_the_deadline)
{
    int hole[BLACK_HOLE_FDS];
    struct hs_addr addr;
    struct hs_endpoint ep;
    struct hs_connector *cn;
    struct hs_op op;
    const struct hs_attempt *log;
    struct hs_conn *c;
    size_t n;

    black_hole(hole, &addr);
    ep = endpoint_of(&addr);
    cn = connector(&ep);
    op = op_in(30 * MS);
    ASSERT_ERR(HS_E_DEADLINE, run(cn, &op, &c));
    ck_assert_int_ge(hs_now(), op.deadline_ns);
    ck_assert_str_eq(last_error()->phase, "connect");
    log = hs_connector_attempts(cn, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_ne(log[0].ended_ns, 0);
    hs_connector_free(cn);
    cn = connector(&ep);
    op = (struct hs_op)HS_OP_INIT(HS_TRY_ONCE, NULL);
    ASSERT_ERR(HS_E_DEADLINE, run(cn, &op, &c));
    hs_connector_free(cn);
    close_all(hole, BLACK_HOLE_FDS);
}
END_TEST

struct dial {
    struct hs_connector *cn;
    struct hs_op op;
    hs_err rv;
};

static void *
dial(void *arg)
{
    struct dial *d = arg;
    struct hs_conn *c = NULL;

    d->rv = run(d->cn, &d->op, &c);
    hs_conn_unref(c);
    return NULL;
}

START_TEST(a_cancel_stops_a_connect_at_once)
{
    int hole[BLACK_HOLE_FDS];
    struct hs_token *token;
    struct hs_endpoint ep;
    struct hs_addr addr;
    struct thread t;
    struct dial d;

    black_hole(hole, &addr);
    ep = endpoint_of(&addr);
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
    d = (struct dial){.cn = connector(&ep), .op = op_with(token)};
    thread_start(&t, dial, &d);
    thread_wait_asleep(&t);
    ck_assert(hs_token_cancel(token, NULL, 0, NULL));
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_CANCELLED, d.rv);
    hs_connector_free(d.cn);
    d = (struct dial){.cn = connector(&ep), .op = op_with(token)}; /* ended before it begins */
    (void)dial(&d);
    ASSERT_ERR(HS_E_CANCELLED, d.rv);
    hs_connector_free(d.cn);
    hs_token_unref(token);
    close_all(hole, BLACK_HOLE_FDS);
}
END_TEST

START_TEST(what_cannot_be_connected_to_is_refused_at_once)
{
    struct hs_connect_options opts;
    struct hs_connector *cn = NULL;
    struct hs_endpoint ep = named("", 80);

    hs_connect_options_init(&opts);
    ASSERT_ERR(HS_E_INVALID, hs_connector_new(&ep, &opts, fresh(), &cn));
    ep = named("localhost", 0);
    ASSERT_ERR(HS_E_INVALID, hs_connector_new(&ep, &opts, fresh(), &cn));
    ep = named("127.0.0.1", 1);
    opts.family = AF_INET6;
    ASSERT_ERR(HS_E_INVALID, hs_connector_new(&ep, &opts, fresh(), &cn));
    ck_assert_ptr_null(cn);
}
END_TEST

START_TEST(an_event_loop_can_drive_a_connect)
{
    struct hs_addr addr;
    int listener = tcp_listener(8, &addr);
    struct hs_endpoint ep =
        _i ? named("localhost", ntohs(((struct sockaddr_in *)&addr.storage)->sin_port))
           : endpoint_of(&addr);
    struct hs_connector *cn = connector(&ep);
    struct hs_op op = op_step(10 * SECOND);
    struct hs_conn *c;
    hs_err rv;

    while ((rv = run(cn, &op, &c)) == HS_WANT) {
        ck_assert_int_ge(op.want_fd, 0);
        wait_for_want(&op);
    }
    ASSERT_OK(rv);
    assert_talks(c, listener);
    hs_connector_free(cn);
    hs_conn_unref(c);
    (void)close(listener);
}
END_TEST

START_TEST(an_event_loop_learns_of_the_deadline_and_may_walk_away)
{
    int hole[BLACK_HOLE_FDS];
    struct hs_op op = op_step(10 * MS);
    struct hs_connector *cn;
    struct hs_endpoint ep;
    struct hs_addr addr;
    struct hs_conn *c;
    hs_err rv;

    black_hole(hole, &addr);
    ep = endpoint_of(&addr);
    cn = connector(&ep);
    while ((rv = run(cn, &op, &c)) == HS_WANT)
        wait_for_want(&op);
    ASSERT_ERR(HS_E_DEADLINE, rv);
    hs_connector_free(cn);
    cn = connector(&ep);
    op = op_step(10 * SECOND);
    ASSERT_ERR(HS_WANT, run(cn, &op, &c));
    hs_connector_free(cn);
    close_all(hole, BLACK_HOLE_FDS);
}
END_TEST

START_TEST(the_source_address_is_used)
{
    struct hs_addr addr, local;
    int listener = tcp_listener(8, &addr);
    struct hs_endpoint ep = endpoint_of(&addr);
    struct hs_connect_options opts;
    struct hs_op op = op_in(10 * SECOND);
    struct hs_connector *cn;
    char text[HS_ADDR_TEXT_SIZE];
    struct hs_conn *c;

    hs_connect_options_init(&opts);
    opts.sources[0] = addr_of("127.0.0.2:0");
    ASSERT_OK(hs_connector_new(&ep, &opts, fresh(), &cn));
    ASSERT_OK(run(cn, &op, &c));
    ASSERT_OK(hs_conn_local_addr(c, fresh(), &local));
    ck_assert_int_eq(strncmp(hs_addr_text(&local, text, sizeof(text)), "127.0.0.2:", 10), 0);
    hs_conn_unref(c);
    hs_connector_free(cn);
    opts.sources[0] = addr_of("[::1]:0");
    ASSERT_OK(hs_connector_new(&ep, &opts, fresh(), &cn));
    ASSERT_ERR(HS_E_CONNECT, run(cn, &op, &c));
    ck_assert_int_eq(last_error()->sys, EAFNOSUPPORT);
    ck_assert_str_eq(last_error()->phase, "bind");
    hs_connector_free(cn);
    (void)close(listener);
}
END_TEST

static int
unix_listener(const char *name, int backlog, struct hs_endpoint *ret_ep)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    char text[100];

    (void)snprintf(text, sizeof(text), "unix:@hardsock-%s-%d", name, (int)getpid());
    ASSERT_OK(hs_endpoint_parse(text, strlen(text), fresh(), ret_ep));
    ck_assert_int_eq(bind(fd, &ret_ep->addr.sa, ret_ep->addr.len), 0);
    ck_assert_int_eq(listen(fd, backlog), 0);
    return fd;
}

START_TEST(a_unix_socket_with_a_full_backlog_is_tried_until_there_is_room)
{
    struct hs_endpoint ep;
    int listener = unix_listener("full", 0, &ep);
    struct hs_op op = op_in(10 * SECOND), late = op_in(40 * MS);
    struct hs_connector *first = connector(&ep), *second = connector(&ep), *third = connector(&ep);
    struct hs_conn *a, *b;
    struct thread t;
    struct dial d = {.cn = second, .op = op};
    const struct hs_attempt *log;
    size_t n;
    int fd;

    ASSERT_OK(run(first, &op, &a));
    ASSERT_ERR(HS_E_DEADLINE, run(third, &late, &b));
    thread_start(&t, dial, &d);
    thread_wait_asleep(&t);
    fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    (void)close(fd);
    EVENTUALLY((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0);
    (void)close(fd);
    (void)close(listener); /* before the join: d.rv decides */
    (void)thread_join(&t);
    ASSERT_OK(d.rv);
    log = hs_connector_attempts(second, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(log[0].phase, HS_ATTEMPT_DONE);
    hs_conn_unref(a);
    hs_connector_free(first);
    hs_connector_free(second);
    hs_connector_free(third);
}
END_TEST

static int
run_inherited(void *arg)
{
    struct dial *d = arg;
    struct hs_conn *c;

    if (hs_connector_run(d->cn, &d->op, NULL, &c) != HS_E_FORKED)
        return 1;
    hs_connector_free(d->cn);
    return 0;
}

START_TEST(a_forked_child_may_only_free_a_connector)
{
    struct hs_addr addr;
    int listener = tcp_listener(8, &addr);
    struct hs_endpoint ep = endpoint_of(&addr);
    struct dial d = {.cn = connector(&ep), .op = op_in(10 * SECOND)};
    struct hs_conn *c;

    ck_assert_int_eq(in_child(run_inherited, &d), 0);
    ASSERT_OK(run(d.cn, &d.op, &c));
    hs_conn_unref(c);
    hs_connector_free(d.cn);
    (void)close(listener);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("connector");

    tcase_add_test(tc, a_literal_is_connected_without_lookup);
    tcase_add_test(tc, ipv6_is_connected);
    tcase_add_test(tc, a_refusal_is_told_with_its_errno_and_a_hint);
    tcase_add_test(tc, a_black_hole_ends_at_the_deadline);
    tcase_add_test(tc, a_cancel_stops_a_connect_at_once);
    tcase_add_test(tc, what_cannot_be_connected_to_is_refused_at_once);
    tcase_add_loop_test(tc, an_event_loop_can_drive_a_connect, 0, 2);
    tcase_add_test(tc, an_event_loop_learns_of_the_deadline_and_may_walk_away);
    tcase_add_test(tc, the_source_address_is_used);
    tcase_add_test(tc, a_unix_socket_with_a_full_backlog_is_tried_until_there_is_room);
    tcase_add_test(tc, a_forked_child_may_only_free_a_connector);
    return run_case(tc);
}
