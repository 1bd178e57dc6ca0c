/* test_tls_within.c: TLS within TLS, as through an HTTPS proxy: what the two layers are to each
 * other. What a stream owes to its caller is tested by test_tls_io.c, over one layer and over two.
 */
#include "support_tls.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const int versions[] = {HS_TLS_1_2, HS_TLS_1_3};

static struct hs_tls_config *
default_client(void)
{
    struct hs_tls_options o = client_options();

    return config_of(&o);
}

static struct hs_tls_config *
default_server(void)
{
    struct hs_tls_options o = server_options();

    return config_of(&o);
}

/* The inner handshake of a pair, for the name. */
static hs_err
shake_within(struct tls_pair *p, struct hs_tls_config *client, const char *name,
             struct shaking *ret_client)
{
    struct hs_tls_config *server = default_server();
    struct shaking b = {.c = p->server, .config = server, .rv = HS_WANT};

    *ret_client = (struct shaking){.c = p->client, .config = client, .name = name, .rv = HS_WANT};
    handshake_both(ret_client, &b);
    hs_tls_config_unref(server);
    return ret_client->rv;
}

static hs_err
recv_some(struct hs_conn *c, void *buf, size_t len, size_t *n)
{
    struct hs_op op = op_in(10 * SECOND);

    return DONE(hs_conn_recv(c, &op, buf, len, 0, fresh(), n));
}

START_TEST(each_layer_has_a_handshake_of_its_own)
{
    struct hs_tls_options o = client_options();
    struct hs_tls_config *client;
    struct tls_pair p = default_pair(true, versions[_i % 2]);
    struct hs_tls_info info;
    struct shaking a;

    only_version(&o, versions[_i / 2]);
    client = config_of(&o);
    ASSERT_OK(shake_within(&p, client, "a.example", &a));
    ck_assert(hs_conn_tls_info(p.client, &info));
    ck_assert_str_eq(info.version, _i / 2 ? "TLSv1.3" : "TLSv1.2");
    carry(p.client, p.server, "there", 5);
    carry(p.server, p.client, "back", 4);
    hs_tls_config_unref(client);
    tls_pair_free(&p);
}
END_TEST

START_TEST(a_third_layer_is_refused_and_costs_nothing)
{
    struct hs_tls_config *client = default_client();
    struct hs_op op = op_in(10 * SECOND);
    struct tls_pair p;

    tls_within = true;
    p = default_pair(true, 0);
    ASSERT_ERR(HS_E_INVALID, hs_conn_start_tls(p.client, &op, client, "a.example", fresh()));
    carry(p.client, p.server, "fine", 4);
    hs_tls_config_unref(client);
    tls_pair_free(&p);
}
END_TEST

/* The reason is queued before the alert goes out, through the other layer. */
START_TEST(why_the_inner_handshake_failed_is_told_as_ever)
{
    struct hs_tls_config *client = default_client();
    struct tls_pair p = default_pair(true, versions[_i]);
    struct shaking a;

    ASSERT_ERR(HS_E_CERTIFICATE, shake_within(&p, client, "other.example", &a));
    ck_assert_msg(strstr(a.err.msg, "other.example") != NULL, "%s", a.err.msg);
    ck_assert_int_eq(a.err.tls, HS_TLS_VERIFY);
    ck_assert_int_ne(a.err.verify, 0);
    hs_tls_config_unref(client);
    tls_pair_free(&p);
}
END_TEST

/* Both ends name it: the client by its own reason, the server by the client's alert. */
START_TEST(an_alert_comes_through_the_outer_layer)
{
    struct hs_tls_options o = client_options(), so = server_options();
    struct hs_tls_config *client = config_of(&o), *server;
    struct tls_pair p = default_pair(true, 0);
    struct shaking a = {.c = p.client, .config = client, .name = "a.example", .rv = HS_WANT};
    struct shaking b = {.c = p.server, .rv = HS_WANT};

    only_version(&o, HS_TLS_1_3);
    hs_tls_config_unref(client);
    a.config = client = config_of(&o);
    only_version(&so, HS_TLS_1_2);
    b.config = server = config_of(&so);
    handshake_both(&a, &b);
    ASSERT_ERR(HS_E_TLS, b.rv);
    ck_assert_int_eq(b.err.tls, HS_TLS_VERSION);
    ASSERT_ERR(HS_E_TLS, a.rv);
    ck_assert_int_eq(a.err.tls, HS_TLS_ALERT);
    hs_tls_config_unref(client);
    hs_tls_config_unref(server);
    tls_pair_free(&p);
}
END_TEST

/* The word is the outer layer's, in the words that it has for it. */
START_TEST(what_breaks_the_outer_layer_is_said_by_its_own_reason)
{
    struct pump pump;
    struct tls_pair p;
    uint8_t buf[256], byte;
    struct hs_error err = {0};
    struct hs_op op = op_in(10 * SECOND);
    ssize_t got;
    size_t n;
    hs_err rv;

    tls_within = true;
    p = pumped_pair(&pump, HS_TLS_1_3);
    op = op_in(10 * SECOND);
    ASSERT_OK(DONE(hs_conn_send(p.client, &op, (const uint8_t *)"x", 1, fresh(), &n)));
    ck_assert_int_gt(got = recv(pump.fds[0], buf, sizeof(buf), 0), 10);
    buf[got - 1] ^= 1;
    put(pump.fds[1], buf, (size_t)got);
    for (int i = 0; i < 2; i++) {
        op = op_in(10 * SECOND);
        err = (struct hs_error){0};
        rv = DONE(hs_conn_recv(p.server, &op, &byte, 1, 0, &err, &n));
        ASSERT_ERR(HS_E_TLS, rv);
        ck_assert_int_eq(err.tls, HS_TLS_PROTOCOL);
        ck_assert_msg(strstr(err.msg, "bad record mac") != NULL, "%s", err.msg);
    }
    pump_free(&pump);
    tls_pair_free(&p);
}
END_TEST

/* ---- Called off ---------------------------------------------------------------------------- */

START_TEST(who_was_promised_the_inner_layer_does_not_go_on_with_the_outer)
{
    struct hs_tls_config *client = default_client();
    struct tls_pair p = default_pair(true, 0);
    struct hs_op op = op_in(20 * MS), next = op_in(10 * SECOND);
    struct hs_error err = {0};
    size_t n;

    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_start_tls(p.client, &op, client, "a.example", &err)));
    ck_assert_int_eq(err.tls, HS_TLS_TIMEOUT);
    ASSERT_ERR(HS_E_POISONED, hs_conn_send(p.client, &next, (const uint8_t *)"x", 1, fresh(), &n));
    hs_tls_config_unref(client);
    tls_pair_free(&p);
}
END_TEST

START_TEST(an_abandoned_inner_handshake_cannot_be_taken_up_again)
{
    struct hs_tls_config *client = default_client();
    struct hs_op op = op_step(10 * SECOND), again = op_in(10 * SECOND);
    struct tls_pair p = default_pair(true, 0);

    ASSERT_ERR(HS_WANT, hs_conn_start_tls(p.client, &op, client, "a.example", fresh()));
    hs_conn_abandon(p.client, &op, NULL);
    ASSERT_ERR(HS_E_INVALID, hs_conn_start_tls(p.client, &again, client, "a.example", fresh()));
    hs_tls_config_unref(client);
    tls_pair_free(&p);
}
END_TEST

START_TEST(a_callers_mistake_costs_nothing)
{
    struct hs_tls_config *client = default_client();
    struct hs_op op = op_in(10 * SECOND);
    struct tls_pair p = default_pair(true, 0);

    ASSERT_ERR(HS_E_INVALID, hs_conn_start_tls(p.client, &op, client, NULL, fresh()));
    carry(p.client, p.server, "fine", 4);
    hs_tls_config_unref(client);
    tls_pair_free(&p);
}
END_TEST

START_TEST(bytes_of_the_outer_layer_are_no_bytes_of_the_inner)
{
    struct hs_tls_config *client = default_client();
    struct hs_op op = op_in(10 * SECOND), next = op_in(10 * SECOND);
    struct tls_pair p = default_pair(true, 0);
    struct hs_error err = {0};
    uint8_t buf[8];
    size_t n;

    ASSERT_OK(DONE(hs_conn_send(p.server, &op, (const uint8_t *)"early\n", 6, fresh(), &n)));
    op = op_in(10 * SECOND);
    ASSERT_OK(DONE(hs_conn_recv(p.client, &op, buf, 1, MSG_PEEK, fresh(), &n)));
    op = op_in(10 * SECOND);
    ASSERT_ERR(HS_E_TLS, DONE(hs_conn_start_tls(p.client, &op, client, "a.example", &err)));
    ASSERT_ERR(HS_E_POISONED, hs_conn_send(p.client, &next, (const uint8_t *)"x", 1, fresh(), &n));
    hs_tls_config_unref(client);
    tls_pair_free(&p);
}
END_TEST

static void
fill_half(struct hs_conn *c, const void *bytes, size_t len)
{
    const int small = 4096;
    size_t n;
    hs_err rv;

    ASSERT_OK(hs_conn_setsockopt(c, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small), fresh()));
    do {
        struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);

        rv = DONE(hs_conn_send(c, &op, bytes, len, fresh(), &n));
    } while (rv == HS_OK);
    ASSERT_ERR(HS_E_DEADLINE, rv);
}

START_TEST(nothing_begins_behind_a_half_sent_record)
{
    struct hs_tls_config *client = default_client();
    struct hs_op op = op_in(10 * SECOND);
    struct tls_pair p = default_pair(false, 0);
    static const uint8_t bytes[16384];

    fill_half(p.client, bytes, sizeof(bytes));
    ASSERT_ERR(HS_E_POISONED, hs_conn_start_tls(p.client, &op, client, "a.example", fresh()));
    hs_tls_config_unref(client);
    tls_pair_free(&p);
}
END_TEST

/* ---- Ends ---------------------------------------------------------------------------------- */

/* The server speaks the outer layer only: it ends that, and the inner one has not ended. */
START_TEST(an_end_of_the_outer_layer_alone_is_truncation)
{
    struct tls_pair p = default_pair(_i, 0), plain = plain_pair(true);
    struct hs_tls_options o = client_options(), so = server_options();
    struct hs_tls_config *client = config_of(&o), *server = config_of(&so);
    struct hs_op op = op_in(10 * SECOND);
    struct shaking a = {.c = p.client, .config = client, .name = "a.example", .rv = HS_WANT};
    struct shaking b = {.c = plain.server, .config = server, .rv = HS_WANT};
    uint8_t buf[16384], byte;
    size_t n;

    /* A proxy by hand: what comes in TLS at one pair goes out as it is at the other. */
    while (a.rv == HS_WANT || b.rv == HS_WANT) {
        struct hs_op now = HS_OP_INIT(HS_TRY_ONCE, NULL);

        (void)shake_step(&a);
        if (DONE(hs_conn_recv(p.server, &now, buf, sizeof(buf), 0, fresh(), &n)) == HS_OK)
            ASSERT_OK(DONE(hs_conn_send_all(
                plain.client, &(struct hs_op)HS_OP_INIT(HS_TRY_ONCE, NULL), buf, n, fresh())));
        (void)shake_step(&b);
        now = (struct hs_op)HS_OP_INIT(HS_TRY_ONCE, NULL);
        if (DONE(hs_conn_recv(plain.client, &now, buf, sizeof(buf), 0, fresh(), &n)) == HS_OK)
            ASSERT_OK(DONE(hs_conn_send_all(p.server, &(struct hs_op)HS_OP_INIT(HS_TRY_ONCE, NULL),
                                            buf, n, fresh())));
    }
    ASSERT_OK(a.rv);
    ASSERT_OK(b.rv);
    ASSERT_OK(DONE(hs_conn_close_write(p.server, &op, fresh())));
    ASSERT_ERR(HS_E_TRUNCATED, recv_some(p.client, &byte, 1, &n));
    hs_tls_config_unref(client);
    hs_tls_config_unref(server);
    tls_pair_free(&p);
    tls_pair_free(&plain);
}
END_TEST

/* The peer's stream is over, which is what finish waits for; the outer end comes when the first is
 * closed already, and is not answered with a reset. */
START_TEST(finish_ends_both_layers)
{
    struct hs_op first = op_step(10 * SECOND), second = op_in(10 * SECOND);
    struct hs_close_report reports[2];
    struct tls_pair p;
    hs_err rv;

    tls_within = true;
    p = default_pair(true, versions[_i]);
    ASSERT_ERR(HS_WANT, hs_conn_finish(p.client, &first, fresh(), &reports[0]));
    ASSERT_OK(DONE(hs_conn_close_write(p.server, &second, fresh())));
    while ((rv = hs_conn_finish(p.client, &first, fresh(), &reports[0])) > 0)
        continue; /* It waits for an acknowledgement at most, which is on its way. */
    ASSERT_OK(rv);
    second = op_in(10 * SECOND);
    ASSERT_OK(DONE(hs_conn_finish(p.server, &second, fresh(), &reports[1])));
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(reports[i].ending, HS_ENDING_CLEAN);
        ck_assert_uint_eq(reports[i].unsent, 0);
    }
    tls_pair_free(&p);
}
END_TEST

/* ---- What is here already ------------------------------------------------------------------ */

/* Several inner records in one outer record: no readiness of the descriptor tells of the others. */
START_TEST(what_the_outer_layer_holds_is_pending)
{
    struct tls_pair p;
    uint8_t buf[8];
    struct hs_op op;
    bool ready;
    size_t n;

    tls_within = true;
    p = default_pair(true, versions[_i]);
    for (int i = 0; i < 3; i++) {
        op = op_in(10 * SECOND);
        ASSERT_OK(DONE(hs_conn_send(p.server, &op, (const uint8_t *)"abc", 3, fresh(), &n)));
    }
    for (int i = 0; i < 3; i++) {
        ASSERT_OK(recv_some(p.client, buf, 1, &n));
        ASSERT_OK(recv_some(p.client, buf, 1, &n));
        ck_assert_uint_gt(hs_conn_pending(p.client, &ready), 0);
        ck_assert(ready);
        ASSERT_OK(recv_some(p.client, buf, 1, &n));
        ck_assert_int_eq(buf[0], 'c');
    }
    ck_assert_uint_eq(hs_conn_pending(p.client, &ready), 0);
    ck_assert(!ready);
    tls_pair_free(&p);
}
END_TEST

/* ---- Sessions ------------------------------------------------------------------------------ */

static void
meet_again(struct hs_tls_config *client, struct hs_tls_config *outer, struct hs_tls_config *inner,
           bool want_resumed)
{
    struct tls_pair p = plain_pair(false);
    struct shaking a = {.c = p.client, .config = client, .name = "a.example"};
    struct shaking b = {.c = p.server};
    struct hs_tls_config *const servers[] = {outer, inner};
    struct hs_tls_info info;

    for (int i = 0; i < 2; i++) {
        b.config = servers[i];
        a.rv = b.rv = HS_WANT;
        handshake_both(&a, &b);
        ASSERT_OK(a.rv);
        ck_assert(hs_conn_tls_info(p.client, &info));
        ck_assert_int_eq(info.resumed, want_resumed);
        carry(p.server, p.client, "x", 1); /* The ticket comes before it. */
    }
    tls_pair_free(&p);
}

/* The same name, asked for by the same settings: each layer has a session for each. */
START_TEST(each_layer_resumes_its_own_session)
{
    struct hs_tls_options o = client_options(), so = server_options();
    struct hs_tls_config *client, *outer = config_of(&so), *inner = config_of(&so);

    only_version(&o, versions[_i]);
    client = config_of(&o);
    meet_again(client, outer, inner, false);
    meet_again(client, outer, inner, true);
    hs_tls_config_unref(client);
    hs_tls_config_unref(outer);
    hs_tls_config_unref(inner);
}
END_TEST

/* ---- Threads ------------------------------------------------------------------------------- */

#define STORM_BYTES ((size_t)400000)

struct side {
    struct hs_conn *c;
    int seed;
    hs_err rv;
};

static void *
send_pattern(void *arg)
{
    struct side *s = arg;
    uint8_t *bytes = malloc(STORM_BYTES);
    struct hs_op op = op_in(60 * SECOND);

    for (size_t i = 0; i < STORM_BYTES; i++)
        bytes[i] = pattern(s->seed, i);
    s->rv = DONE(hs_conn_send_all(s->c, &op, bytes, STORM_BYTES, fresh()));
    free(bytes);
    return NULL;
}

static void *
recv_pattern(void *arg)
{
    struct side *s = arg;
    uint8_t buf[5000];
    size_t total = 0, n = 0;

    while (total < STORM_BYTES && (s->rv = recv_some(s->c, buf, sizeof(buf), &n)) == HS_OK &&
           n > 0) {
        for (size_t i = 0; i < n; i++)
            if (buf[i] != pattern(s->seed, total + i))
                s->rv = HS_E_INVALID;
        total += n;
    }
    if (total < STORM_BYTES)
        s->rv = HS_E_TRUNCATED;
    return NULL;
}

/* Readers, writers and those who only ask, at once. */
START_TEST(both_directions_run_at_once)
{
    struct tls_pair p;
    struct side sides[4];
    struct thread threads[4];
    struct hs_tls_info info;
    bool ready;

    tls_within = true;
    p = default_pair(true, versions[_i]);
    for (int i = 0; i < 4; i++) {
        sides[i] = (struct side){.c = i % 2 ? p.client : p.server, .seed = i == 0 || i == 3};
        thread_start(&threads[i], i < 2 ? send_pattern : recv_pattern, &sides[i]);
    }
    for (int i = 0; i < 100; i++) {
        (void)hs_conn_tls_info(p.client, &info);
        (void)hs_conn_pending(p.server, &ready);
    }
    for (int i = 0; i < 4; i++) {
        (void)thread_join(&threads[i]);
        ASSERT_OK(sides[i].rv);
    }
    tls_pair_free(&p);
}
END_TEST

static void *
ask(void *arg)
{
    struct side *s = arg;
    struct hs_tls_info info;
    bool ready;

    while (!hs_conn_is_closed(s->c)) {
        (void)hs_conn_tls_info(s->c, &info);
        (void)hs_conn_pending(s->c, &ready);
    }
    return NULL;
}

/* Who asks gets the outer layer, nothing, or the inner one. */
START_TEST(who_asks_while_the_inner_layer_begins_hangs_on_to_nothing)
{
    struct hs_tls_config *client = default_client();
    struct tls_pair p = default_pair(true, versions[_i]);
    struct side s = {.c = p.client};
    struct shaking a;
    struct thread t;

    thread_start(&t, ask, &s);
    ASSERT_OK(shake_within(&p, client, "a.example", &a));
    hs_conn_close(p.client, false);
    (void)thread_join(&t);
    hs_tls_config_unref(client);
    tls_pair_free(&p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("tls within tls");

    tls_world();
    tcase_add_loop_test(tc, each_layer_has_a_handshake_of_its_own, 0, 4);
    tcase_add_test(tc, a_third_layer_is_refused_and_costs_nothing);
    tcase_add_loop_test(tc, why_the_inner_handshake_failed_is_told_as_ever, 0, 2);
    tcase_add_test(tc, an_alert_comes_through_the_outer_layer);
    tcase_add_test(tc, what_breaks_the_outer_layer_is_said_by_its_own_reason);
    tcase_add_test(tc, who_was_promised_the_inner_layer_does_not_go_on_with_the_outer);
    tcase_add_test(tc, an_abandoned_inner_handshake_cannot_be_taken_up_again);
    tcase_add_test(tc, a_callers_mistake_costs_nothing);
    tcase_add_test(tc, bytes_of_the_outer_layer_are_no_bytes_of_the_inner);
    tcase_add_test(tc, nothing_begins_behind_a_half_sent_record);
    tcase_add_loop_test(tc, an_end_of_the_outer_layer_alone_is_truncation, 0, 2);
    tcase_add_loop_test(tc, finish_ends_both_layers, 0, 2);
    tcase_add_loop_test(tc, what_the_outer_layer_holds_is_pending, 0, 2);
    tcase_add_loop_test(tc, each_layer_resumes_its_own_session, 0, 2);
    tcase_add_loop_test(tc, both_directions_run_at_once, 0, 2);
    tcase_add_loop_test(tc, who_asks_while_the_inner_layer_begins_hangs_on_to_nothing, 0, 2);
    return run_case(tc);
}
