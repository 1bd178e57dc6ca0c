/* test_breaker_connect.c: connecting under a breaker: what is skipped, refused, counted, let
 * through after all.
 *
 * Names come from an /etc/hosts that is mounted over the real one for this process alone.
 */
#include "support.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PORT 4712

static struct hs_breaker_options options;

static void
choose_defaults(void)
{
    hs_breaker_options_init(&options);
    options.failures = 2;
    options.jitter_permille = 0;
}

static struct hs_breaker *
breaker(void)
{
    struct hs_breaker *b;

    ASSERT_OK(hs_breaker_new(&options, fresh(), &b));
    return b;
}

static struct hs_connector *
connector(const struct hs_endpoint *ep, struct hs_breaker *b)
{
    struct hs_connect_options opts;
    struct hs_connector *cn;

    hs_connect_options_init(&opts);
    opts.attempt_delay_ns = 20 * MS;
    opts.breaker = b;
    ASSERT_OK(hs_connector_new(ep, &opts, fresh(), &cn));
    return cn;
}

static hs_err
dial_by(const struct hs_endpoint *ep, struct hs_breaker *b, struct hs_op op)
{
    struct hs_connector *cn = connector(ep, b);
    struct hs_conn *c = NULL;
    hs_err rv = DONE(hs_connector_run(cn, &op, fresh(), &c));

    hs_connector_free(cn);
    hs_conn_unref(c);
    return rv;
}

static hs_err
dial(const struct hs_endpoint *ep, struct hs_breaker *b)
{
    return dial_by(ep, b, op_in(10 * SECOND));
}

static struct hs_breaker_status
status_of(struct hs_breaker *b, const char *text)
{
    struct hs_breaker_status all[16];
    struct hs_breaker_key key;
    size_t n = hs_breaker_states(b, hs_now(), all, LENGTH(all));

    ASSERT_OK(hs_breaker_key_parse(text, strlen(text), fresh(), &key));
    for (size_t i = 0; i < n; i++)
        if (memcmp(&all[i].key, &key, sizeof(key)) == 0)
            return all[i];
    return (struct hs_breaker_status){.key = key};
}

static struct hs_breaker_stats
stats_of(struct hs_breaker *b)
{
    struct hs_breaker_stats stats;

    hs_breaker_stats(b, hs_now(), &stats);
    return stats;
}

START_TEST(a_lone_address_is_refused_at_once_when_it_is_open)
{
    struct hs_addr addr;
    int kept = refused_addr(&addr);
    struct hs_endpoint ep = endpoint_of(&addr);
    struct hs_breaker *b = breaker();
    struct hs_op op = op_in(10 * SECOND);
    const struct hs_attempt *log;
    struct hs_connector *cn;
    struct hs_conn *c = NULL;
    size_t n;

    for (int i = 0; i < 2; i++)
        ASSERT_ERR(HS_E_CONNECT, dial(&ep, b));
    cn = connector(&ep, b);
    ASSERT_ERR(HS_E_BREAKER_OPEN, DONE(hs_connector_run(cn, &op, fresh(), &c)));
    ck_assert_str_eq(last_error()->op, "connect");
    ck_assert_str_eq(last_error()->phase, "breaker");
    ck_assert_int_eq(last_error()->last_failure, HS_FAIL_REFUSED);
    ck_assert_int_gt(last_error()->retry_ns, hs_now() + 25 * SECOND);
    ck_assert_int_le(last_error()->retry_ns, hs_now() + 30 * SECOND);
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "the breaker is open (last failure: refused)"));
    log = hs_connector_attempts(cn, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(log[0].phase, HS_ATTEMPT_SKIPPED);
    ck_assert_mem_eq(hs_connector_refused(cn), &log[0].addr, sizeof(addr));
    ASSERT_ERR(HS_E_INVALID, DONE(hs_connector_run(cn, &op, fresh(), &c))); /* used up */
    hs_connector_free(cn);
    ck_assert_uint_eq(stats_of(b).refused, 1);
    hs_breaker_unref(b);
    (void)close(kept);
}
END_TEST

START_TEST(it_closes_when_the_address_is_back)
{
    struct hs_addr addr;
    int kept = refused_addr(&addr), listener;
    struct hs_endpoint ep = endpoint_of(&addr);
    struct hs_breaker *b;
    char text[HS_ADDR_TEXT_SIZE];

    options.open_ns = 1; /* half open as soon as anybody looks */
    b = breaker();
    for (int i = 0; i < 5; i++)
        ASSERT_ERR(HS_E_CONNECT, dial(&ep, b));
    (void)hs_addr_text(&addr, text, sizeof(text));
    ck_assert_int_ne(status_of(b, text).state, HS_BREAKER_CLOSED);
    listener = listener_at(&addr, 8);
    EVENTUALLY(dial(&ep, b) == HS_OK); /* Its last opening may have been for more than 1 ns. */
    ck_assert_int_eq(status_of(b, text).state, HS_BREAKER_CLOSED);
    ck_assert_uint_ge(stats_of(b).opened, 2);
    ck_assert_uint_eq(stats_of(b).closed, 1);
    (void)close(listener);
    (void)close(kept);
    hs_breaker_unref(b);
}
END_TEST

START_TEST(only_deadlines_that_left_time_for_an_answer_count)
{
    int hole[BLACK_HOLE_FDS];
    struct hs_addr addr;
    struct hs_endpoint ep;
    struct hs_breaker *b = breaker();

    black_hole(hole, &addr);
    ep = endpoint_of(&addr);
    for (int i = 0; i < 3; i++)
        ASSERT_ERR(HS_E_DEADLINE, dial_by(&ep, b, op_in(20 * MS)));
    ck_assert_uint_eq(stats_of(b).keys, 0);
    ck_assert_uint_eq(stats_of(b).not_counted, 3);
    hs_breaker_unref(b);
    options.patience_ns = 20 * MS;
    b = breaker();
    for (int i = 0; i < 2; i++)
        ASSERT_ERR(HS_E_DEADLINE, dial_by(&ep, b, op_in(30 * MS)));
    ASSERT_ERR(HS_E_BREAKER_OPEN, dial_by(&ep, b, op_in(30 * MS)));
    ck_assert_uint_eq(stats_of(b).by_class[HS_FAIL_TIMEOUT], 2);
    hs_breaker_unref(b);
    close_all(hole, BLACK_HOLE_FDS);
}
END_TEST

START_TEST(cancels_and_abandoned_connectors_never_count)
{
    int hole[BLACK_HOLE_FDS];
    struct hs_token *token;
    struct hs_connector *cn;
    struct hs_addr addr;
    struct hs_endpoint ep;
    struct hs_op step;
    struct hs_conn *c;
    struct hs_breaker *b;

    options.patience_ns = 0;
    options.failures = 1;
    b = breaker();
    black_hole(hole, &addr);
    ep = endpoint_of(&addr);
    for (int i = 0; i < 3; i++) {
        struct hs_op op;

        ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
        op = op_with(token);
        op.stepping = true;
        cn = connector(&ep, b);
        ck_assert_int_eq(hs_connector_run(cn, &op, fresh(), &c), HS_WANT);
        ck_assert(hs_token_cancel(token, NULL, 0, NULL));
        ASSERT_ERR(HS_E_CANCELLED, hs_connector_run(cn, &op, fresh(), &c));
        hs_connector_free(cn);
        hs_token_unref(token);

        step = op_step(10 * SECOND);
        cn = connector(&ep, b);
        ck_assert_int_eq(hs_connector_run(cn, &step, fresh(), &c), HS_WANT);
        hs_connector_free(cn);
    }
    ck_assert_uint_eq(stats_of(b).permitted, 6);
    ck_assert_uint_eq(stats_of(b).not_counted, 6);
    ck_assert_uint_eq(stats_of(b).keys, 0);
    hs_breaker_unref(b);
    close_all(hole, BLACK_HOLE_FDS);
}
END_TEST

START_TEST(want_of_descriptors_is_not_the_peers_fault)
{
    struct hs_addr addr;
    int listener = tcp_listener(8, &addr);
    struct hs_endpoint ep = endpoint_of(&addr);
    struct rlimit before, none;
    struct hs_breaker *b;

    options.failures = 1;
    b = breaker();
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    ASSERT_ERR(HS_E_CONNECT, dial(&ep, b));
    ck_assert_int_eq(last_error()->sys, EMFILE);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert_uint_eq(stats_of(b).not_counted, 1);
    ASSERT_OK(dial(&ep, b));
    (void)close(listener);
    hs_breaker_unref(b);
}
END_TEST

START_TEST(an_abandoned_probe_is_given_back)
{
    int hole[BLACK_HOLE_FDS];
    struct hs_breaker_key key;
    struct hs_permit permit;
    struct hs_connector *cn;
    struct hs_addr addr;
    struct hs_endpoint ep;
    struct hs_op op = op_step(10 * SECOND);
    struct hs_conn *c;
    struct hs_breaker *b;

    options.open_ns = 1;
    b = breaker();
    black_hole(hole, &addr);
    ep = endpoint_of(&addr);
    hs_breaker_key_addr(&addr, &key);
    (void)hs_breaker_permit(b, &key, hs_now(), &permit);
    hs_breaker_record(b, &key, &permit, HS_FAIL_TLS_CERTIFICATE, hs_now());
    cn = connector(&ep, b);
    ck_assert_int_eq(hs_connector_run(cn, &op, fresh(), &c), HS_WANT); /* the probe */
    ASSERT_ERR(HS_E_BREAKER_OPEN, dial(&ep, b));
    hs_connector_free(cn);
    ck_assert_int_eq(hs_breaker_permit(b, &key, hs_now(), &permit), HS_BREAKER_HALF_OPEN);
    hs_breaker_unref(b);
    close_all(hole, BLACK_HOLE_FDS);
}
END_TEST

/* ---- Names ---------------------------------------------------------------------------------- */

#define HOSTS "127.0.0.2 many\n127.0.0.3 many\n127.0.0.4 many\n"

static struct hs_endpoint
many(void)
{
    struct hs_endpoint ep;

    ASSERT_OK(hs_endpoint_from_host("many", 4, PORT, fresh(), &ep));
    return ep;
}

static int
listen_at(const char *host)
{
    char text[80];
    struct hs_addr addr;
    int fd, on = 1;

    (void)snprintf(text, sizeof(text), "%s:%d", host, PORT);
    addr = addr_of(text);
    fd = socket(addr.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    ck_assert_msg(bind(fd, &addr.sa, addr.len) == 0, "%s: %s", text, strerror(errno));
    ck_assert_int_eq(listen(fd, 8), 0);
    return fd;
}

static void
open_for(struct hs_breaker *b, const char *host)
{
    struct hs_breaker_key key;
    struct hs_permit permit;
    char text[80];

    (void)snprintf(text, sizeof(text), "%s:%d", host, PORT);
    ASSERT_OK(hs_breaker_key_parse(text, strlen(text), fresh(), &key));
    (void)hs_breaker_permit(b, &key, hs_now(), &permit);
    hs_breaker_record(b, &key, &permit, HS_FAIL_TLS_CERTIFICATE, hs_now());
}

/* What became of each address, by its last number: '.' not reached, 's' skipped, 'x' failed, 'D'
 * connected. */
static void
assert_fates(struct hs_breaker *b, hs_err want, const char *fates)
{
    struct hs_endpoint ep = many();
    struct hs_connector *cn = connector(&ep, b);
    struct hs_op op = op_in(10 * SECOND);
    const struct hs_attempt *log;
    struct hs_conn *c = NULL;
    char got[] = "...";
    size_t n;

    ASSERT_ERR(want, DONE(hs_connector_run(cn, &op, fresh(), &c)));
    log = hs_connector_attempts(cn, &n);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *v4 =
            (const void *)&((const struct sockaddr_in *)(const void *)&log[i].addr.storage)
                ->sin_addr;

        got[v4[3] - 2] = log[i].phase == HS_ATTEMPT_SKIPPED ? 's'
                         : log[i].phase == HS_ATTEMPT_DONE  ? 'D'
                                                            : 'x';
    }
    ck_assert_str_eq(got, fates);
    hs_connector_free(cn);
    hs_conn_unref(c);
}

START_TEST(open_addresses_of_a_name_are_skipped)
{
    struct hs_breaker *b;
    int listener;

    if (!enter_namespace(HOSTS, ""))
        return;
    b = breaker();
    listener = listen_at("127.0.0.4");
    assert_fates(b, HS_OK, "xxD");
    assert_fates(b, HS_OK, "xxD"); /* the second failure of both */
    assert_fates(b, HS_OK, "ssD");
    ck_assert_uint_eq(stats_of(b).refused, 2);
    ck_assert_uint_eq(stats_of(b).failures, 4);
    ck_assert_uint_eq(stats_of(b).successes, 3);
    (void)close(listener);
    hs_breaker_unref(b);
}
END_TEST

START_TEST(the_last_of_several_addresses_is_never_skipped)
{
    struct hs_breaker *b;
    int listener;

    if (!enter_namespace(HOSTS, ""))
        return;
    b = breaker();
    open_for(b, "127.0.0.3"); /* due first */
    open_for(b, "127.0.0.2");
    open_for(b, "127.0.0.4");
    assert_fates(b, HS_E_CONNECT, "sxs");
    ck_assert_int_eq(last_error()->sys, ECONNREFUSED);
    listener = listen_at("127.0.0.3");
    assert_fates(b, HS_OK, "sDs");
    ck_assert_uint_eq(stats_of(b).forced, 2);
    ck_assert_int_eq(status_of(b, "127.0.0.3:4712").state, HS_BREAKER_CLOSED);
    (void)close(listener);
    hs_breaker_unref(b);
}
END_TEST

START_TEST(a_skipped_address_is_tried_when_the_others_have_just_failed)
{
    struct hs_breaker *b;
    int listener;

    if (!enter_namespace(HOSTS, ""))
        return;
    b = breaker();
    listener = listen_at("127.0.0.2"); /* back, but nobody knows */
    open_for(b, "127.0.0.2");
    assert_fates(b, HS_OK, "Dxx");
    (void)close(listener);
    hs_breaker_unref(b);
}
END_TEST

START_TEST(fail_fast_tries_none_when_all_are_open)
{
    struct hs_breaker *b;

    if (!enter_namespace(HOSTS, ""))
        return;
    options.fail_fast = true;
    b = breaker();
    open_for(b, "127.0.0.3");
    open_for(b, "127.0.0.2");
    assert_fates(b, HS_E_CONNECT, "ssx");
    open_for(b, "127.0.0.4");
    assert_fates(b, HS_E_BREAKER_OPEN, "sss");
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "127.0.0.3:4712 and 2 more addresses"));
    hs_breaker_unref(b);
}
END_TEST

START_TEST(a_share_may_be_ejected_and_no_more)
{
    struct hs_breaker *b;

    if (!enter_namespace(HOSTS, ""))
        return;
    options.max_ejected_permille = 400; /* one of three */
    b = breaker();
    open_for(b, "127.0.0.3");
    open_for(b, "127.0.0.2");
    open_for(b, "127.0.0.4");
    assert_fates(b, HS_E_CONNECT, "xxs");
    hs_breaker_unref(b);
}
END_TEST

START_TEST(a_dry_run_changes_no_attempt)
{
    struct hs_breaker *b;

    if (!enter_namespace(HOSTS, ""))
        return;
    options.dry_run = true;
    b = breaker();
    for (int i = 0; i < 4; i++)
        assert_fates(b, HS_E_CONNECT, "xxx");
    ck_assert_uint_eq(stats_of(b).would_refuse, 6);
    ck_assert_uint_eq(stats_of(b).refused, 0);
    hs_breaker_unref(b);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("breaker in connecting");

    tcase_add_unchecked_fixture(tc, choose_defaults, NULL);
    tcase_add_test(tc, a_lone_address_is_refused_at_once_when_it_is_open);
    tcase_add_test(tc, it_closes_when_the_address_is_back);
    tcase_add_test(tc, only_deadlines_that_left_time_for_an_answer_count);
    tcase_add_test(tc, cancels_and_abandoned_connectors_never_count);
    tcase_add_test(tc, want_of_descriptors_is_not_the_peers_fault);
    tcase_add_test(tc, an_abandoned_probe_is_given_back);
    tcase_add_test(tc, open_addresses_of_a_name_are_skipped);
    tcase_add_test(tc, the_last_of_several_addresses_is_never_skipped);
    tcase_add_test(tc, a_skipped_address_is_tried_when_the_others_have_just_failed);
    tcase_add_test(tc, fail_fast_tries_none_when_all_are_open);
    tcase_add_test(tc, a_share_may_be_ejected_and_no_more);
    tcase_add_test(tc, a_dry_run_changes_no_attempt);
    return run_case(tc);
}
