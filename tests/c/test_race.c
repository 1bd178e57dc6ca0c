/* test_race.c: several addresses of one name, and lookups, in a network namespace of our own.
 *
 * Names come from an /etc/hosts that is mounted over the real one for this process alone. Black
 * holes are addresses of the loopback network whose listener's queue is full.
 */
#include "support.h"
#include "support_dns.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PORT 4711

static struct hs_connector *
connector(const char *host, const struct hs_connect_options *opts)
{
    struct hs_connect_options defaults;
    struct hs_connector *cn;
    struct hs_endpoint ep;

    hs_connect_options_init(&defaults);
    ASSERT_OK(hs_endpoint_from_host(host, strlen(host), PORT, fresh(), &ep));
    ASSERT_OK(hs_connector_new(&ep, opts != NULL ? opts : &defaults, fresh(), &cn));
    return cn;
}

static hs_err
run(struct hs_connector *cn, struct hs_op *op, struct hs_conn **ret_conn)
{
    return DONE(hs_connector_run(cn, op, fresh(), ret_conn));
}

static int
listen_at(const char *host, int backlog)
{
    char text[80];
    struct hs_addr addr;
    int fd, on = 1;

    (void)snprintf(text, sizeof(text), "%s:%d", host, PORT);
    addr = addr_of(text);
    fd = socket(addr.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    ck_assert_msg(bind(fd, &addr.sa, addr.len) == 0, "%s: %s", text, strerror(errno));
    ck_assert_int_eq(listen(fd, backlog), 0);
    return fd;
}

/* Fills the queue of a listener with backlog 0 at host. */
static void
swallow(const char *host, int fds[BLACK_HOLE_FDS])
{
    char text[80];
    struct hs_addr addr;

    (void)snprintf(text, sizeof(text), "%s:%d", host, PORT);
    addr = addr_of(text);
    fds[0] = listen_at(host, 0);
    for (int i = 1; i < BLACK_HOLE_FDS; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fds[i], &addr.sa, addr.len);
    }
}

START_TEST(a_live_address_wins_over_three_black_holes)
{
    int holes[3][BLACK_HOLE_FDS], listener, peer;
    const char *at[] = {"127.0.0.2", "127.0.0.3", "127.0.0.4"};
    struct hs_connect_options opts;
    struct hs_op op = op_in(10 * SECOND);
    const struct hs_attempt *log;
    struct hs_connector *cn;
    struct hs_conn *c;
    size_t n;

    if (!enter_namespace("127.0.0.2 many\n127.0.0.3 many\n127.0.0.4 many\n127.0.0.5 many\n", ""))
        return;
    for (int i = 0; i < 3; i++)
        swallow(at[i], holes[i]);
    listener = listen_at("127.0.0.5", 8);
    hs_connect_options_init(&opts);
    opts.attempt_delay_ns = 20 * MS;
    cn = connector("many", &opts);
    ASSERT_OK(run(cn, &op, &c));
    log = hs_connector_attempts(cn, &n);
    ck_assert_uint_eq(n, 4);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_ne(log[i].ended_ns, 0);
        ck_assert_int_eq(log[i].sys, 0);
        ck_assert_int_eq(log[i].phase, i == 3 ? HS_ATTEMPT_DONE : HS_ATTEMPT_CONNECT);
        if (i > 0)
            ck_assert_int_ge(log[i].started_ns - log[i - 1].started_ns, 20 * MS);
    }
    (void)hs_connector_plan(cn, &n);
    ck_assert_uint_eq(n, 4);
    ck_assert_int_ge(peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC), 0);
    hs_connector_free(cn);
    hs_conn_unref(c);
    (void)close(peer);
    (void)close(listener);
    for (int i = 0; i < 3; i++)
        close_all(holes[i], BLACK_HOLE_FDS);
}
END_TEST

START_TEST(a_seventh_attempt_calls_off_the_oldest)
{
    const char *at[] = {"127.0.0.2", "127.0.0.3", "127.0.0.4"};
    int holes[3][BLACK_HOLE_FDS];
    struct hs_connect_options opts;
    struct hs_op op = op_in(150 * MS);
    const struct hs_attempt *log;
    struct hs_connector *cn;
    struct hs_conn *c;
    size_t n;

    if (!enter_namespace("127.0.0.2 many\n127.0.0.3 many\n127.0.0.4 many\n", ""))
        return;
    for (int i = 0; i < 3; i++)
        swallow(at[i], holes[i]);
    hs_connect_options_init(&opts);
    opts.attempt_delay_ns = 10 * MS;
    opts.max_in_flight = 2;
    cn = connector("many", &opts);
    ASSERT_ERR(HS_E_DEADLINE, run(cn, &op, &c));
    log = hs_connector_attempts(cn, &n);
    ck_assert_uint_eq(n, 3);
    ck_assert_int_lt(log[0].ended_ns, op.deadline_ns);
    ck_assert_int_ge(log[1].ended_ns, op.deadline_ns);
    hs_connector_free(cn);
    for (int i = 0; i < 3; i++)
        close_all(holes[i], BLACK_HOLE_FDS);
}
END_TEST

START_TEST(it_ends_as_soon_as_every_address_has_failed)
{
    struct hs_op op = op_in(10 * SECOND);
    struct hs_connect_options opts;
    const struct hs_attempt *log;
    struct hs_connector *cn;
    struct hs_conn *c;
    int64_t before;
    size_t n;

    if (!enter_namespace("127.0.0.2 dead\n127.0.0.3 dead\n::1 dead\n127.0.0.4 dead\n", ""))
        return;
    hs_connect_options_init(&opts);
    opts.resolution_delay_ns = 10 * SECOND; /* However late the IPv6 answer comes. */
    cn = connector("dead", &opts);
    before = hs_now();
    ASSERT_ERR(HS_E_CONNECT, run(cn, &op, &c));
    ck_assert_int_lt(hs_now() - before, 5 * SECOND);
    ck_assert_int_eq(last_error()->sys, ECONNREFUSED);
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "none of "));
    log = hs_connector_attempts(cn, &n);
    ck_assert_uint_ge(n, 4); /* glibc gives 127.0.0.1 for ::1 when asked for IPv4 */
    for (size_t i = 0; i < n; i++)
        ck_assert_int_eq(log[i].sys, ECONNREFUSED);
    ck_assert_int_eq(log[0].addr.sa.sa_family, AF_INET6); /* RFC 8305: first, if routable */
    ck_assert_int_eq(log[1].addr.sa.sa_family, AF_INET);
    hs_connector_free(cn);
}
END_TEST

START_TEST(an_unknown_name_is_told_with_its_code)
{
    struct hs_op op = op_in(10 * SECOND);
    const struct hs_answer *answers;
    struct hs_connector *cn;
    struct hs_conn *c;
    size_t n;

    if (!enter_namespace("127.0.0.1 localhost\n", "options timeout:1 attempts:1\n"))
        return;
    cn = connector("nosuchname.invalid", NULL);
    ASSERT_ERR(HS_E_RESOLVE, run(cn, &op, &c));
    ck_assert_int_ne(last_error()->gai, 0);
    ck_assert_str_eq(last_error()->phase, "resolve");
    answers = hs_connector_answers(cn, &n);
    ck_assert_uint_eq(n, 2);
    ck_assert(answers[0].finished && answers[1].finished);
    (void)hs_connector_attempts(cn, &n);
    ck_assert_uint_eq(n, 0);
    hs_connector_free(cn);
}
END_TEST

START_TEST(one_family_only_when_asked)
{
    struct hs_connect_options opts;
    struct hs_op op = op_in(10 * SECOND);
    const struct hs_addr *plan;
    struct hs_connector *cn;
    size_t n;

    if (!enter_namespace("127.0.0.2 both\nfd00::1 both\n", ""))
        return;
    hs_connect_options_init(&opts);
    opts.family = AF_INET;
    cn = connector("both", &opts);
    ASSERT_OK(DONE(hs_connector_resolve(cn, &op, fresh())));
    plan = hs_connector_plan(cn, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(plan[0].sa.sa_family, AF_INET);
    hs_connector_free(cn);
}
END_TEST

static struct hs_resolver_stats
resolver(void)
{
    struct hs_resolver_stats stats;

    hs_resolver_stats(&stats);
    return stats;
}

START_TEST(a_lookup_that_does_not_end_is_left_behind_counted_and_gone_at_last)
{
    struct hs_op op = op_in(2 * SECOND);
    struct hs_connector *cn;
    struct hs_live live;
    struct hs_conn *c;
    pid_t server;

    if (!enter_namespace("127.0.0.1 localhost\n", NAME_SERVER))
        return;
    server = name_server_start(1);
    cn = connector("slow.example", NULL);
    ASSERT_ERR(HS_E_DEADLINE, run(cn, &op, &c));
    ck_assert_str_eq(last_error()->phase, "resolve");
    ck_assert_int_eq(resolver().running,
                     2); /* It returned before them, and the connector has them. */
    hs_connector_free(cn);
    ck_assert_int_eq(resolver().orphans, 2);
    ck_assert_int_eq(resolver().running, 0);
    ck_assert_uint_eq(resolver().abandoned, 2);
    ck_assert_int_gt(resolver().oldest_orphan_ns, 0);
    hs_live_counts(&live);
    ck_assert_int_eq(live.orphans, 2);
    ck_assert_int_eq(live.lookups, 0);
    name_server_let_go(server);
    EVENTUALLY(resolver().orphans == 0);
    ck_assert_int_eq(resolver().live, 0);
    ck_assert_int_eq(resolver().oldest_orphan_ns, 0);
    name_server_stop(server);
}
END_TEST

START_TEST(callers_of_one_name_share_its_lookup)
{
    struct hs_connector *cns[5];
    uint64_t before;
    pid_t server;

    if (!enter_namespace("127.0.0.1 localhost\n", NAME_SERVER))
        return;
    server = name_server_start(1);
    before = resolver().started;
    for (size_t i = 0; i < LENGTH(cns); i++) {
        struct hs_op op = op_step(10 * SECOND);

        cns[i] = connector("slow.example", NULL);
        ASSERT_ERR(HS_WANT, hs_connector_resolve(cns[i], &op, fresh()));
    }
    ck_assert_uint_eq(resolver().started - before, 2);
    ck_assert_int_eq(resolver().running, 2);
    for (size_t i = 0; i + 1 < LENGTH(cns); i++)
        hs_connector_free(cns[i]);
    ck_assert_int_eq(resolver().orphans, 0); /* one still waits */
    hs_connector_free(cns[LENGTH(cns) - 1]);
    ck_assert_int_eq(resolver().orphans, 2);
    name_server_stop(server);
}
END_TEST

START_TEST(one_dead_name_holds_two_threads_per_family_at_most)
{
    pid_t server;

    if (!enter_namespace("127.0.0.1 localhost\n", NAME_SERVER))
        return;
    server = name_server_start(1);
    for (int i = 0; i < 20; i++) {
        struct hs_connector *cn = connector("slow.example", NULL);
        struct hs_op op = op_step(10 * SECOND);

        ASSERT_ERR(HS_WANT, hs_connector_resolve(cn, &op, fresh()));
        hs_connector_free(cn);
        ck_assert_int_le(resolver().orphans, 4);
    }
    ck_assert_int_eq(resolver().orphans, 4);
    name_server_stop(server);
}
END_TEST

START_TEST(lookups_beyond_the_limit_wait_and_are_given_up_without_a_thread)
{
    struct hs_connector *cns[40];
    uint64_t before;
    pid_t server;

    if (!enter_namespace("127.0.0.1 localhost\n", NAME_SERVER))
        return;
    server = name_server_start(1);
    before = resolver().started;
    for (int i = 0; i < 40; i++) {
        struct hs_op op = op_step(10 * SECOND);
        char name[40];

        (void)snprintf(name, sizeof(name), "slow%d.dead.example", i);
        cns[i] = connector(name, NULL);
        ASSERT_ERR(HS_WANT, hs_connector_resolve(cns[i], &op, fresh()));
    }
    EVENTUALLY(resolver().running == 64);
    ck_assert_int_eq(resolver().live, 80);
    ck_assert_uint_eq(resolver().started - before, 64);
    for (int i = 39; i >= 0; i--)
        hs_connector_free(cns[i]);
    ck_assert_int_eq(resolver().orphans, 64);
    ck_assert_uint_eq(resolver().started - before, 64);
    name_server_stop(server);
}
END_TEST

static int
leave_a_lookup_behind(void *arg)
{
    struct hs_connector *cn = connector("slow.example", NULL);
    struct hs_op op = op_in(5 * MS);
    struct hs_conn *c;

    (void)arg;
    return run(cn, &op, &c) == HS_E_DEADLINE ? 0 : 1;
}

START_TEST(neither_exit_nor_fork_waits_for_a_lookup)
{
    int64_t before = hs_now();
    pid_t server;

    if (!enter_namespace("127.0.0.1 localhost\n", NAME_SERVER))
        return;
    server = name_server_start(1);
    ck_assert_int_eq(in_child(leave_a_lookup_behind, NULL), 0);
    ck_assert_int_lt(hs_now() - before, 20 * SECOND); /* The lookup lasts for 30 s. */
    name_server_stop(server);
}
END_TEST

START_TEST(a_socket_that_connects_to_itself_is_refused)
{
    struct hs_connect_options opts;
    struct hs_endpoint ep;

    if (!enter_namespace("127.0.0.1 localhost\n", ""))
        return;
    write_file("/proc/sys/net/ipv4/ip_local_port_range", "40000 40001");
    hs_connect_options_init(&opts);
    ASSERT_OK(hs_endpoint_from_host("127.0.0.1", 9, 40000, fresh(), &ep));
    for (int i = 0; i < 200; i++) {
        struct hs_op op = op_in(10 * SECOND);
        struct hs_connector *cn;
        struct hs_conn *c = NULL;

        ASSERT_OK(hs_connector_new(&ep, &opts, fresh(), &cn));
        ASSERT_ERR(HS_E_CONNECT, run(cn, &op, &c));
        ck_assert_ptr_null(c);
        ck_assert_msg(last_error()->sys == ECONNREFUSED || last_error()->sys == EADDRNOTAVAIL,
                      "errno %d", last_error()->sys);
        hs_connector_free(cn);
    }
}
END_TEST

START_TEST(running_out_of_local_ports_is_told_with_a_count)
{
    struct hs_connect_options opts;
    struct hs_addr addr;
    struct hs_endpoint ep;
    struct hs_connector *cn;
    struct hs_conn *conns[5] = {NULL};
    char hint[400];
    hs_err rv = HS_OK;
    int listener, n;

    if (!enter_namespace("127.0.0.1 localhost\n", ""))
        return;
    listener = tcp_listener(8, &addr);
    write_file("/proc/sys/net/ipv4/ip_local_port_range", "50000 50003");
    ep = endpoint_of(&addr);
    hs_connect_options_init(&opts);
    for (n = 0; rv == HS_OK && n < 5; n++) {
        struct hs_op op = op_in(10 * SECOND);

        ASSERT_OK(hs_connector_new(&ep, &opts, fresh(), &cn));
        rv = run(cn, &op, &conns[n]);
        hs_connector_free(cn);
    }
    ASSERT_ERR(HS_E_CONNECT, rv);
    ck_assert_int_eq(n, 5);
    ck_assert_int_eq(last_error()->sys, EADDRNOTAVAIL);
    (void)hs_hint(last_error(), EADDRNOTAVAIL, &addr, hint, sizeof(hint));
    ck_assert_ptr_nonnull(strstr(hint, "4 sockets hold local ports towards this peer, of the 4"));
    ck_assert_ptr_nonnull(strstr(hint, "ip_local_port_range: 4 in ESTABLISHED; reuse"));
    for (size_t size = 1; size < 200; size++)
        ck_assert_uint_lt(strlen(hs_hint(last_error(), EADDRNOTAVAIL, &addr, hint, size)), size);
    for (int i = 0; i < 5; i++)
        hs_conn_unref(conns[i]);
    (void)close(listener);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("race");

    tcase_add_test(tc, a_live_address_wins_over_three_black_holes);
    tcase_add_test(tc, a_seventh_attempt_calls_off_the_oldest);
    tcase_add_test(tc, it_ends_as_soon_as_every_address_has_failed);
    tcase_add_test(tc, an_unknown_name_is_told_with_its_code);
    tcase_add_test(tc, one_family_only_when_asked);
    tcase_add_test(tc, a_lookup_that_does_not_end_is_left_behind_counted_and_gone_at_last);
    tcase_add_test(tc, callers_of_one_name_share_its_lookup);
    tcase_add_test(tc, one_dead_name_holds_two_threads_per_family_at_most);
    tcase_add_test(tc, lookups_beyond_the_limit_wait_and_are_given_up_without_a_thread);
    tcase_add_test(tc, neither_exit_nor_fork_waits_for_a_lookup);
    tcase_add_test(tc, a_socket_that_connects_to_itself_is_refused);
    tcase_add_test(tc, running_out_of_local_ports_is_told_with_a_count);
    return run_case(tc);
}
