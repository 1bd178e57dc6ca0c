/* test_tls_handshake.c: handshakes: how they succeed, and every way in which they do not.
 *
 * Time, cancelling and closing at each stage; what was received before; peers that speak something
 * else, or stop in the middle; bytes that come in any pieces; the connector's handshakes.
 */
#include "support_tls.h"

#include "../../csrc/base/buf.h"

#include <errno.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const int versions[] = {HS_TLS_1_2, HS_TLS_1_3};

static hs_err
recv_now(struct hs_conn *c, void *buf, size_t len, size_t *n)
{
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);

    return DONE(hs_conn_recv(c, &op, buf, len, 0, fresh(), n));
}

static hs_err
send_now(struct hs_conn *c, const void *buf, size_t len)
{
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);
    size_t n;

    return DONE(hs_conn_send(c, &op, buf, len, fresh(), &n));
}

static struct hs_tls_config *
client_config(void)
{
    struct hs_tls_options o = client_options();

    return config_of(&o);
}

static struct hs_tls_config *
server_config(void)
{
    struct hs_tls_options o = server_options();

    return config_of(&o);
}

static void
assert_unusable(struct hs_conn *c)
{
    struct hs_tls_info info;
    uint8_t byte;
    size_t n;

    ck_assert(!hs_conn_tls_info(c, &info));
    ck_assert_uint_eq(hs_conn_tls_chain_length(c), 0);
    ASSERT_ERR(HS_E_POISONED, recv_now(c, &byte, 1, &n));
    ASSERT_ERR(HS_E_POISONED, send_now(c, "x", 1));
}

/* ---- Success ------------------------------------------------------------------------------- */

START_TEST(both_ends_know_what_was_agreed_on)
{
    struct tls_pair p = default_pair(_i % 2, versions[_i / 2]);
    struct hs_tls_info client, server;

    ck_assert(hs_conn_tls_info(p.client, &client));
    ck_assert(hs_conn_tls_info(p.server, &server));
    ck_assert_str_eq(client.version, _i / 2 == 0 ? "TLSv1.2" : "TLSv1.3");
    ck_assert_str_eq(server.version, client.version);
    ck_assert_str_eq(server.cipher, client.cipher);
    ck_assert_str_ne(client.group, "");
    ck_assert_str_eq(server.server_name, "a.example");
    ck_assert(client.verified && !server.verified && !client.resumed);
    ck_assert_int_le(client.started_ns, client.first_byte_ns);
    ck_assert_int_le(client.first_byte_ns, client.verified_ns);
    ck_assert_int_le(client.verified_ns, client.finished_ns);
    ck_assert_uint_eq(hs_conn_tls_chain_length(p.client), 1);
    ck_assert_uint_eq(hs_conn_tls_chain_length(p.server), 0);
    tls_pair_free(&p);
}
END_TEST

START_TEST(a_plain_connection_has_nothing_to_tell)
{
    struct tls_pair p = plain_pair(false);
    struct hs_op op = op_in(10 * SECOND);
    struct hs_tls_info info;
    uint8_t *der;
    size_t len;

    ck_assert(!hs_conn_tls_info(p.client, &info));
    ck_assert_uint_eq(hs_conn_tls_chain_length(p.client), 0);
    ASSERT_ERR(HS_E_INVALID, hs_conn_tls_chain_copy(p.client, 0, &der, &len));
    ASSERT_ERR(HS_E_INVALID, hs_conn_confirm(p.client, &op, fresh()));
    tls_pair_free(&p);
}
END_TEST

/* ---- Called off, at every stage ------------------------------------------------------------ */

enum { CUT_DEADLINE, CUT_OWN_TIMEOUT, CUT_CANCEL, CUT_CLOSE, CUT_ABORT, CUTS };
#define STAGES 3

struct waiting {
    struct hs_conn *c;
    struct hs_tls_config *config;
    const char *name;
    struct hs_op op;
    struct hs_error err;
    hs_err rv;
};

static void *
shake(void *arg)
{
    struct waiting *w = arg;

    w->rv = DONE(hs_conn_start_tls(w->c, &w->op, w->config, w->name, &w->err));
    return NULL;
}

/* One end runs in a thread, the other is stepped, and the pump stops after some turns. False when
 * the time was over before the handshake began. */
static bool
cut_a_handshake(int which, int64_t span_ns)
{
    int cut = which % CUTS, stage = which / CUTS % STAGES, server_cut = which / CUTS / STAGES;
    static const hs_err wanted[CUTS] = {HS_E_DEADLINE, HS_E_DEADLINE, HS_E_CANCELLED, HS_E_CLOSED,
                                        HS_E_CLOSED};
    struct hs_tls_options client = client_options(), server = server_options();
    struct pump pump;
    struct tls_pair p = plain_pumped_pair(&pump);
    struct waiting w = {.c = server_cut ? p.server : p.client,
                        .name = server_cut ? NULL : "a.example"};
    struct shaking other = {.c = server_cut ? p.client : p.server,
                            .name = server_cut ? "a.example" : NULL};
    struct hs_token *token;
    struct thread t;
    bool begun;

    client.handshake_timeout_ns = server.handshake_timeout_ns =
        cut == CUT_OWN_TIMEOUT ? span_ns : 20 * SECOND;
    w.config = config_of(server_cut ? &server : &client);
    other.config = config_of(server_cut ? &client : &server);
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
    w.op = (struct hs_op)HS_OP_INIT(hs_deadline_after(cut == CUT_DEADLINE ? span_ns : 20 * SECOND),
                                    token);
    thread_start(&t, shake, &w);
    for (int i = 0; i < stage; i++) {
        thread_wait_asleep(&t);
        (void)shake_step(&other);
        (void)pump_move(&pump, i % 2 == server_cut ? 0 : 1, i == stage - 1 ? 20 : SIZE_MAX);
        (void)shake_step(&other);
    }
    thread_wait_asleep(&t);
    if (cut == CUT_CANCEL)
        (void)hs_token_cancel(token, "enough", 0, NULL);
    else if (cut >= CUT_CLOSE)
        hs_conn_close(w.c, cut == CUT_ABORT);
    (void)thread_join(&t);
    ASSERT_ERR(wanted[cut], w.rv);
    begun = cut != CUT_DEADLINE || strcmp(w.err.phase, "start") != 0;
    if (begun) {
        ck_assert_str_eq(w.err.phase, "tls");
        ck_assert_int_eq(w.err.tls, cut <= CUT_OWN_TIMEOUT ? HS_TLS_TIMEOUT : HS_TLS_LOCAL);
        if (cut < CUT_CLOSE)
            assert_unusable(w.c);
    }
    hs_conn_abandon(other.c, &other.op, NULL);
    hs_tls_config_unref(w.config);
    hs_tls_config_unref(other.config);
    hs_token_unref(token);
    pump_free(&pump);
    tls_pair_free(&p);
    return begun;
}

START_TEST(a_handshake_can_be_cut_at_every_stage)
{
    for (int64_t span_ns = 50 * MS; !cut_a_handshake(_i, span_ns);)
        span_ns *= 4;
}
END_TEST

START_TEST(an_abandoned_handshake_cannot_be_taken_up_again)
{
    struct tls_pair p = plain_pair(false);
    struct hs_tls_config *config = client_config(), *other = server_config();
    struct shaking a = {.c = p.client, .config = config, .name = "a.example"};
    struct shaking b = {.c = p.server, .config = other};
    struct hs_op op = op_step(10 * SECOND);
    struct hs_close_report report;

    ASSERT_ERR(HS_WANT, shake_step(&a));
    ASSERT_ERR(HS_WANT, shake_step(&b));
    hs_conn_abandon(p.client, &a.op, NULL);
    assert_unusable(p.client);
    ck_assert(hs_conn_start_tls(p.client, &op, config, "a.example", fresh()) < 0);
    assert_unusable(p.client);
    hs_conn_abandon(p.server, &b.op, NULL);
    hs_conn_close(p.server, false);
    op = op_in(10 * SECOND);
    ASSERT_OK(DONE(hs_conn_finish(p.client, &op, fresh(), &report)));
    ck_assert_int_ne(report.ending, HS_ENDING_DEADLINE);
    hs_tls_config_unref(config);
    hs_tls_config_unref(other);
    tls_pair_free(&p);
}
END_TEST

START_TEST(nobody_gets_between_two_steps)
{
    struct tls_pair p = plain_pair(false);
    struct hs_tls_config *config = client_config();
    struct shaking a = {.c = p.client, .config = config, .name = "a.example"};
    struct hs_op op = op_in(10 * SECOND);
    struct hs_tls_info info;
    uint8_t byte;
    size_t n;
    int fd;

    ASSERT_ERR(HS_WANT, shake_step(&a));
    ck_assert(!hs_conn_tls_info(p.client, &info));
    ASSERT_ERR(HS_E_BUSY, recv_now(p.client, &byte, 1, &n));
    ASSERT_ERR(HS_E_BUSY, send_now(p.client, "x", 1));
    ASSERT_ERR(HS_E_BUSY, hs_conn_start_tls(p.client, &op, config, "a.example", fresh()));
    ASSERT_ERR(HS_E_BUSY, hs_conn_close_write(p.client, &op, fresh()));
    ASSERT_ERR(HS_E_BUSY, hs_conn_detach(p.client, fresh(), &fd));
    hs_conn_abandon(p.client, &a.op, NULL);
    hs_tls_config_unref(config);
    tls_pair_free(&p);
}
END_TEST

/* ---- Before the handshake ------------------------------------------------------------------ */

/* CVE-2021-23222: what was received before must not pass for something protected. */
START_TEST(bytes_from_before_are_refused)
{
    struct tls_pair p = plain_pair(true);
    struct hs_tls_config *config = _i ? client_config() : server_config();
    struct hs_op op = op_in(10 * SECOND);

    ASSERT_OK(send_now(p.server, "220 ready\r\nEHLO injected\r\n", 26));
    ASSERT_OK(DONE(hs_conn_peek(p.client, &op, 26, fresh())));
    hs_conn_frames_end(p.client, &op);
    op = op_in(10 * SECOND);
    ASSERT_ERR(HS_E_TLS,
               hs_conn_start_tls(p.client, &op, config, _i ? "a.example" : NULL, fresh()));
    ck_assert_int_eq(last_error()->tls, HS_TLS_PLAINTEXT);
    assert_unusable(p.client);
    hs_tls_config_unref(config);
    tls_pair_free(&p);
}
END_TEST

/* Receives n bytes, which come over the pump, and leaves them unread. */
static void
read_ahead(struct hs_conn *c, struct pump *pump, size_t n)
{
    struct hs_op op = op_in(10 * SECOND);

    ck_assert_uint_eq(pump_move(pump, 0, n), n);
    ASSERT_OK(DONE(hs_conn_peek(c, &op, n, fresh())));
    hs_conn_frames_end(c, &op);
}

/* A header and a ClientHello in one segment, and the server has asked for a line. */
static bool
shake_with_read_ahead(int version, size_t n)
{
    struct pump pump;
    struct tls_pair p = plain_pumped_pair(&pump);
    struct hs_tls_options client = client_options();
    struct shaking a = {.c = p.client, .name = "a.example"};
    struct shaking b = {.c = p.server, .config = server_config(), .read_ahead = true};
    struct hs_conn_info info;
    uint8_t head[4096];
    ssize_t hello;

    only_version(&client, version);
    a.config = config_of(&client);
    ASSERT_ERR(HS_WANT, shake_step(&a));
    hello = recv(pump.fds[0], head, sizeof(head), MSG_PEEK | MSG_DONTWAIT);
    ck_assert_int_gt(hello, 100);
    if (n <= (size_t)hello) {
        read_ahead(p.server, &pump, n);
        for (int i = 0; i < 20 && (a.rv == HS_WANT || b.rv == HS_WANT); i++) {
            (void)shake_step(&b);
            (void)pump_move(&pump, 1, SIZE_MAX);
            (void)shake_step(&a);
            (void)pump_move(&pump, 0, SIZE_MAX);
        }
        ck_assert_msg(a.rv == HS_OK && b.rv == HS_OK, "%zu: %s, %s", n, a.err.msg, b.err.msg);
        hs_conn_info(p.server, &info);
        ck_assert_uint_eq(info.buffered, 0);
        ck_assert_int_eq(hs_buf_live(), 0);
    }
    hs_conn_abandon(p.client, &a.op, NULL);
    hs_tls_config_unref(a.config);
    hs_tls_config_unref(b.config);
    pump_free(&pump);
    tls_pair_free(&p);
    return n <= (size_t)hello;
}

START_TEST(what_a_server_has_read_ahead_begins_its_handshake)
{
    size_t n = 1;

    while (shake_with_read_ahead(versions[_i], n))
        n++;
    ck_assert_uint_gt(n, 100);
}
END_TEST

/* Each as far as it may look like the beginning of a handshake. */
static const struct ahead {
    const char *bytes;
    size_t n;
    bool client, refusing;
    enum hs_tls_failure want;
} aheads[] = {
    {"EHLO evil\r\n", 11, false, false, HS_TLS_PLAINTEXT},
    {"\x15\x03\x03\x00\x02\x01\x00", 7, false, false, HS_TLS_PLAINTEXT}, /* an alert */
    {"\x17\x03\x03\x00\x01x", 6, false, false, HS_TLS_PLAINTEXT},        /* data */
    {"\x16\x02", 2, false, false, HS_TLS_PLAINTEXT},
    {"\x16\x03\x05", 3, false, false, HS_TLS_PLAINTEXT},
    {"\x16\x03\x03\x00\x04\x02\x00\x00\x00", 9, false, false, HS_TLS_PLAINTEXT},
    {"\x16\x03\x03\x00\x04\x01\x00\x00\x00", 9, false, false, HS_TLS_PROTOCOL}, /* by OpenSSL */
    {"\x16\x03\x03\x00\x04\x01\x00\x00\x00", 9, true, false, HS_TLS_PLAINTEXT},
    {"\x16\x03\x03\x00\x04\x01\x00\x00\x00", 9, false, true, HS_TLS_PLAINTEXT},
};

START_TEST(only_the_beginning_of_a_handshake_may_be_read_ahead)
{
    const struct ahead *row = &aheads[_i];
    struct tls_pair p = plain_pair(true);
    struct shaking s = {.c = p.server,
                        .config = row->client ? client_config() : server_config(),
                        .name = row->client ? "a.example" : NULL,
                        .read_ahead = !row->refusing};
    struct hs_op op = op_in(10 * SECOND);

    ASSERT_OK(send_now(p.client, row->bytes, row->n));
    ASSERT_OK(DONE(hs_conn_peek(p.server, &op, row->n, fresh())));
    hs_conn_frames_end(p.server, &op);
    ASSERT_ERR(HS_E_TLS, shake_step(&s));
    ck_assert_msg(s.err.tls == row->want, "%s", s.err.msg);
    assert_unusable(p.server);
    hs_tls_config_unref(s.config);
    tls_pair_free(&p);
}
END_TEST

/* CVE-2023-40217: a peer that sends and resets before the handshake leaves bytes that are read as
 * if they had been decrypted. */
START_TEST(a_peer_that_left_before_leaves_nothing_to_read)
{
    struct tls_pair p = plain_pair(true);
    struct hs_tls_config *config = server_config();
    struct hs_op op = op_in(10 * SECOND);
    uint8_t buf[16];
    size_t n;

    ASSERT_OK(send_now(p.client, "plain", 5));
    hs_conn_close(p.client, true);
    ASSERT_ERR(HS_E_RESET, hs_conn_start_tls(p.server, &op, config, NULL, fresh()));
    ASSERT_ERR(HS_E_POISONED, recv_now(p.server, buf, sizeof(buf), &n));
    hs_tls_config_unref(config);
    tls_pair_free(&p);
}
END_TEST

START_TEST(who_was_promised_tls_does_not_go_on_without)
{
    struct tls_pair p = plain_pair(true);
    struct hs_tls_config *config = client_config();
    struct hs_token *token;
    struct hs_op op;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
    (void)hs_token_cancel(token, "no", 0, NULL);
    op = op_with(token);
    ASSERT_ERR(HS_E_CANCELLED, hs_conn_start_tls(p.client, &op, config, "a.example", fresh()));
    assert_unusable(p.client);
    hs_token_unref(token);
    hs_tls_config_unref(config);
    tls_pair_free(&p);
}
END_TEST

/* Nothing has been said yet: the call is at fault, not the connection. */
START_TEST(a_callers_mistake_costs_nothing)
{
    static const char *const names[] = {
        NULL, "", ".", ".example", "*.example", "a\n", "\xc3\xa9.example"};
    struct tls_pair p = plain_pair(true);
    struct hs_tls_config *config = client_config();
    struct hs_op op;

    for (size_t i = 0; i < LENGTH(names); i++) {
        op = op_in(10 * SECOND);
        ASSERT_ERR(HS_E_INVALID, hs_conn_start_tls(p.client, &op, config, names[i], fresh()));
    }
    carry(p.client, p.server, "plain", 5);
    hs_tls_config_unref(config);
    tls_pair_free(&p);
}
END_TEST

START_TEST(who_has_ended_sending_cannot_begin)
{
    struct tls_pair p = plain_pair(true);
    struct hs_tls_config *config = client_config();
    struct hs_op op = op_in(10 * SECOND);
    uint8_t byte;
    size_t n;

    ASSERT_OK(hs_conn_shutdown(p.client, SHUT_WR, fresh()));
    ASSERT_ERR(HS_E_CLOSED, hs_conn_start_tls(p.client, &op, config, "a.example", fresh()));
    ASSERT_OK(send_now(p.server, "plain", 5));
    ASSERT_ERR(HS_E_POISONED, recv_now(p.client, &byte, 1, &n));
    hs_conn_close(p.client, false);
    op = op_in(10 * SECOND);
    ASSERT_ERR(HS_E_CLOSED, hs_conn_start_tls(p.client, &op, config, "a.example", fresh()));
    hs_tls_config_unref(config);
    tls_pair_free(&p);
}
END_TEST

/* ---- What it failed of --------------------------------------------------------------------- */

enum after { STAYS, CLOSES, IS_DEAF }; /* deaf: closes reading first, so our alert cannot be sent */

struct bad_peer {
    const char *title;
    const char *says;
    size_t len;
    enum after after;
    hs_err want_rv;
    enum hs_tls_failure want_failure;
};
#define SAYS(text) text, sizeof(text) - 1

static const struct bad_peer bad_clients[] = {
    {"a probe", SAYS(""), CLOSES, HS_E_TLS, HS_TLS_EMPTY},
    {"one byte", SAYS("\x16"), CLOSES, HS_E_TLS, HS_TLS_ABORTED},
    {"half a hello", SAYS("\x16\x03\x01\x01\x00\x01\x00"), CLOSES, HS_E_TLS, HS_TLS_ABORTED},
    {"HTTP", SAYS("GET / HTTP/1.1\r\n\r\n"), STAYS, HS_E_TLS, HS_TLS_HTTP},
    {"HTTP, gone", SAYS("GET / HTTP/1.1\r\n\r\n"), CLOSES, HS_E_TLS, HS_TLS_HTTP},
    {"HTTP, deaf", SAYS("POST / HTTP/1.1\r\n\r\n"), IS_DEAF, HS_E_TLS, HS_TLS_HTTP},
    {"a proxy's CONNECT", SAYS("CONNECT a:1 HTTP/1.1\r\n"), STAYS, HS_E_TLS, HS_TLS_HTTP},
    {"SSH", SAYS("SSH-2.0-OpenSSH_9.2\r\n"), STAYS, HS_E_TLS, HS_TLS_NOT_TLS},
    {"zeros", SAYS("\0\0\0\0\0\0\0\0\0\0\0"), STAYS, HS_E_TLS, HS_TLS_NOT_TLS},
    {"a record too large", SAYS("\x16\x03\x01\xff\xff\x01\x00\xff"), STAYS, HS_E_TLS,
     HS_TLS_PROTOCOL},
    {"data first", SAYS("\x17\x03\x03\x00\x04yyyy"), STAYS, HS_E_TLS, HS_TLS_PROTOCOL},
};

static const struct bad_peer bad_servers[] = {
    {"leaves", SAYS(""), CLOSES, HS_E_TLS, HS_TLS_EMPTY},
    {"begins and leaves", SAYS("\x16\x03\x03"), CLOSES, HS_E_TLS, HS_TLS_ABORTED},
    {"HTTP", SAYS("HTTP/1.1 400 Bad Request\r\n\r\n"), CLOSES, HS_E_TLS, HS_TLS_HTTP},
    {"SMTP", SAYS("220 mail.example ESMTP\r\n"), STAYS, HS_E_TLS, HS_TLS_NOT_TLS},
    {"refuses", SAYS("\x15\x03\x03\x00\x02\x02\x28"), CLOSES, HS_E_TLS, HS_TLS_ALERT},
    {"refuses, deaf", SAYS("\x15\x03\x03\x00\x02\x02\x46"), IS_DEAF, HS_E_TLS, HS_TLS_ALERT},
};

static void
run_bad_peer(const struct bad_peer *bad, struct hs_tls_config *config, const char *name)
{
    struct pair p = pair_unix();
    struct shaking s = {.c = p.c, .config = config, .name = name};

    if (bad->after == IS_DEAF && name != NULL)
        (void)shake_step(&s); /* The client speaks first. */
    if (bad->len > 0)
        put(p.peer, bad->says, bad->len);
    if (bad->after == IS_DEAF)
        ck_assert_int_eq(shutdown(p.peer, SHUT_RD), 0);
    else if (bad->after == CLOSES)
        ck_assert_int_eq(shutdown(p.peer, SHUT_WR), 0);
    for (int i = 0; i < 5; i++)
        (void)shake_step(&s);
    ck_assert_msg(s.rv == bad->want_rv && s.err.tls == bad->want_failure, "%s: %s, %s: %s",
                  bad->title, hs_err_text(s.rv), hs_tls_failure_name(s.err.tls), s.err.msg);
    ck_assert_str_eq(s.err.phase, "tls");
    ck_assert_uint_gt(strlen(s.err.msg), 10);
    if (bad->want_failure == HS_TLS_ALERT)
        ck_assert_int_eq(s.err.alert, bad->says[6]);
    assert_unusable(p.c);
    pair_free(&p);
}

START_TEST(a_server_tells_bad_clients_apart)
{
    struct hs_tls_config *config = server_config();

    run_bad_peer(&bad_clients[_i], config, NULL);
    hs_tls_config_unref(config);
}
END_TEST

START_TEST(a_client_tells_bad_servers_apart)
{
    struct hs_tls_config *config = client_config();

    run_bad_peer(&bad_servers[_i], config, "a.example");
    hs_tls_config_unref(config);
}
END_TEST

static const struct {
    const char *title;
    uint8_t level, description;
    enum hs_tls_failure want;
} changes_of_mind[] = {
    {"a goodbye", 1, SSL_AD_CLOSE_NOTIFY, HS_TLS_ABORTED},
    {"a refusal", 2, SSL_AD_UNKNOWN_CA, HS_TLS_ALERT},
};

START_TEST(a_client_may_change_its_mind)
{
    uint8_t alert[7] = {
        0x15, 3, 3, 0, 2, changes_of_mind[_i].level, changes_of_mind[_i].description};
    struct pump pump;
    struct tls_pair p = plain_pumped_pair(&pump);
    struct shaking a = {.c = p.client, .config = client_config(), .name = "a.example"};
    struct shaking b = {.c = p.server, .config = server_config()};

    (void)shake_step(&a);
    (void)pump_move(&pump, 0, SIZE_MAX);
    ASSERT_ERR(HS_WANT, shake_step(&b));
    put(pump.fds[1], alert, sizeof(alert));
    ASSERT_ERR(HS_E_TLS, shake_step(&b));
    ck_assert_msg(b.err.tls == changes_of_mind[_i].want, "%s: %s", changes_of_mind[_i].title,
                  b.err.msg);
    hs_conn_abandon(p.client, &a.op, NULL);
    hs_tls_config_unref(a.config);
    hs_tls_config_unref(b.config);
    pump_free(&pump);
    tls_pair_free(&p);
}
END_TEST

START_TEST(a_reset_in_the_middle_is_a_reset)
{
    struct pair p = pair_tcp();
    struct hs_tls_config *config = server_config();
    struct shaking s = {.c = p.c, .config = config};
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};

    put(p.peer, "\x16\x03\x01", _i ? 3 : 0);
    ASSERT_ERR(HS_WANT, shake_step(&s));
    ck_assert_int_eq(setsockopt(p.peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    (void)close(p.peer);
    p.peer = -1;
    ASSERT_ERR(HS_E_RESET, shake_step(&s));
    ck_assert_int_eq(s.err.tls, _i ? HS_TLS_RESET : HS_TLS_EMPTY);
    assert_unusable(p.c);
    hs_tls_config_unref(config);
    pair_free(&p);
}
END_TEST

static void
old_version(SSL_CTX *ctx)
{
    SSL_CTX_set_security_level(ctx, 0);
    ck_assert_int_eq(SSL_CTX_set_min_proto_version(ctx, TLS1_VERSION), 1);
    ck_assert_int_eq(SSL_CTX_set_max_proto_version(ctx, TLS1_1_VERSION), 1);
}

static void
old_cipher(SSL_CTX *ctx)
{
    ck_assert_int_eq(SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION), 1);
    ck_assert_int_eq(SSL_CTX_set_cipher_list(ctx, "ECDHE-ECDSA-AES128-SHA256:AES128-SHA"), 1);
}

static void
old_group(SSL_CTX *ctx)
{
    ck_assert_int_eq(SSL_CTX_set1_groups_list(ctx, "X448"), 1);
}

static void
other_protocol(SSL_CTX *ctx)
{
    ck_assert_int_eq(SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)"\4none", 5), 0);
}

static const struct {
    const char *title;
    void (*set)(SSL_CTX *ctx);
    enum hs_tls_failure want;
} disagreements[] = {
    {"version", old_version, HS_TLS_VERSION},
    {"cipher", old_cipher, HS_TLS_CIPHER},
    {"group", old_group, HS_TLS_CIPHER},
    {"alpn", other_protocol, HS_TLS_ALPN},
};

START_TEST(nothing_in_common_is_named)
{
    struct hs_tls_options o = server_options();
    struct pair p = pair_unix();
    SSL_CTX *ctx = raw_context(false);
    struct shaking s = {.c = p.c};
    SSL *raw;

    o.alpn = (const uint8_t *)"\4some";
    o.alpn_len = 5;
    s.config = config_of(&o);
    disagreements[_i].set(ctx);
    raw = raw_new(ctx, p.peer, false);
    p.peer = -1;
    shake_raw(&s, raw);
    ASSERT_ERR(HS_E_TLS, s.rv);
    ck_assert_msg(s.err.tls == disagreements[_i].want, "%s: %s, %s", disagreements[_i].title,
                  hs_tls_failure_name(s.err.tls), s.err.msg);
    raw_free(raw);
    SSL_CTX_free(ctx);
    hs_tls_config_unref(s.config);
    pair_free(&p);
}
END_TEST

/* Appliances, old phones: RFC 8996. */
START_TEST(who_speaks_only_tls_1_0_is_told_apart)
{
    bool server = _i == 1; /* whose versions are old */
    struct pair p = pair_unix();
    SSL_CTX *ctx = raw_context(server);
    struct shaking s = {.c = p.c,
                        .config = server ? client_config() : server_config(),
                        .name = server ? "a.example" : NULL};
    char hint[400];
    SSL *raw;

    SSL_CTX_set_security_level(ctx, 0);
    ck_assert_int_eq(SSL_CTX_set_min_proto_version(ctx, TLS1_VERSION), 1);
    ck_assert_int_eq(SSL_CTX_set_max_proto_version(ctx, TLS1_VERSION), 1);
    raw = raw_new(ctx, p.peer, server);
    p.peer = -1;
    shake_raw(&s, raw);
    ASSERT_ERR(HS_E_TLS, s.rv);
    if (server) /* One that knows of newer versions says so; see below for others. */
        ck_assert_int_eq(s.err.alert, SSL_AD_PROTOCOL_VERSION);
    else
        ck_assert_int_eq(s.err.tls, HS_TLS_VERSION);
    ck_assert_ptr_nonnull(strstr(hs_hint(&s.err, 0, NULL, hint, sizeof(hint)), "TLS 1.0 or 1.1"));
    raw_free(raw);
    SSL_CTX_free(ctx);
    hs_tls_config_unref(s.config);
    pair_free(&p);
}
END_TEST

/* One from before RFC 8446 chooses what it has, whatever it was offered. */
START_TEST(a_server_that_answers_with_tls_1_0_is_told_apart)
{
    static const uint8_t head[] = {22, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1};
    uint8_t hello[47] = {0}; /* random, no session, ... */
    struct pair p = pair_unix();
    struct hs_tls_config *config = client_config();
    struct shaking s = {.c = p.c, .config = config, .name = "a.example"};
    char hint[400];

    memcpy(hello, head, sizeof(head));
    hello[44] = 0xc0; /* ... TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, no compression */
    hello[45] = 0x13;
    ASSERT_ERR(HS_WANT, shake_step(&s));
    put(p.peer, hello, sizeof(hello));
    ASSERT_ERR(HS_E_TLS, shake_step(&s));
    ck_assert_msg(s.err.tls == HS_TLS_VERSION, "%s", s.err.msg);
    ck_assert_ptr_nonnull(strstr(hs_hint(&s.err, 0, NULL, hint, sizeof(hint)), "TLS 1.0 or 1.1"));
    hs_tls_config_unref(config);
    pair_free(&p);
}
END_TEST

static int
choose_wrongly(SSL *ssl, const unsigned char **out, unsigned char *len, const unsigned char *in,
               unsigned in_len, void *arg)
{
    (void)ssl;
    (void)in;
    (void)in_len;
    (void)arg;
    *out = (const unsigned char *)"none\xff";
    *len = 5;
    return SSL_TLSEXT_ERR_OK;
}

/* RFC 7301 section 3.2. */
START_TEST(a_protocol_that_was_not_offered_is_refused)
{
    struct hs_tls_options o = client_options();
    struct pair p = pair_unix();
    SSL_CTX *ctx = raw_context(true);
    struct shaking s = {.c = p.c, .name = "a.example"};
    SSL *raw;

    o.alpn = (const uint8_t *)"\4some\5other";
    o.alpn_len = 11;
    only_version(&o, versions[_i]);
    s.config = config_of(&o);
    SSL_CTX_set_alpn_select_cb(ctx, choose_wrongly, NULL);
    raw = raw_new(ctx, p.peer, true);
    p.peer = -1;
    shake_raw(&s, raw);
    ASSERT_ERR(HS_E_TLS, s.rv);
    assert_unusable(p.c);
    raw_free(raw);
    SSL_CTX_free(ctx);
    hs_tls_config_unref(s.config);
    pair_free(&p);
}
END_TEST

/* ---- In any pieces ------------------------------------------------------------------------- */

static bool
ended_early(const struct shaking *s)
{
    return s->rv == HS_OK || s->err.tls == HS_TLS_EMPTY || s->err.tls == HS_TLS_ABORTED ||
           s->err.alert == SSL_AD_DECODE_ERROR; /* what the other says when it is cut off */
}

/* A whole life: handshake, data both ways, ends. What goes each way is held up once, after so many
 * bytes, or with cut cut off there. False: that was more than all. */
static bool
live_once(int version, size_t at, bool cut, struct hs_tls_config *config,
          struct hs_tls_config *other)
{
    struct pump pump;
    struct tls_pair p = plain_pumped_pair(&pump);
    struct shaking a = {.c = p.client, .config = config, .name = "a.example", .rv = HS_WANT};
    struct shaking b = {.c = p.server, .config = other, .rv = HS_WANT};
    size_t left[2] = {at, at};
    uint8_t buf[64];
    size_t n = 0;

    (void)version;
    for (int i = 0; i < 12 && (a.rv == HS_WANT || b.rv == HS_WANT); i++) {
        (void)shake_step(&a);
        (void)shake_step(&b);
        for (int from = 0; from < 2; from++) {
            if (left[from] > 0)
                left[from] -= pump_move(&pump, from, left[from]);
            else if (!cut)
                (void)pump_move(&pump, from, SIZE_MAX);
            else
                (void)shutdown(pump.fds[1 - from], SHUT_WR);
        }
    }
    if (!cut || (left[0] > 0 && left[1] > 0)) {
        ASSERT_OK(a.rv);
        ASSERT_OK(b.rv);
        ASSERT_OK(send_now(p.client, "question", 8));
        ASSERT_OK(send_now(p.server, "answer", 6));
        hs_conn_close(p.client, false);
        for (int i = 0; i < 2; i++) { /* the rest of a piece comes later */
            (void)recv_now(p.server, buf, sizeof(buf), &n);
            (void)pump_move(&pump, 0, left[0] > 0 && i == 0 ? left[0] : SIZE_MAX);
        }
        while (n == 8 || recv_now(p.server, buf, sizeof(buf), &n) == HS_OK) {
            if (n == 0)
                break;
            ck_assert_mem_eq(buf, "question", 8);
            n = 1;
        }
        ck_assert_uint_eq(n, 0);
    } else {
        ck_assert_msg(a.rv == HS_OK || a.rv == HS_E_TLS || a.rv == HS_E_RESET ||
                          a.rv == HS_E_CERTIFICATE,
                      "after %zu bytes: %s", at, hs_err_text(a.rv));
        ck_assert_msg(ended_early(&a) && ended_early(&b), "after %zu bytes: %s, %s", at, a.err.msg,
                      b.err.msg);
    }
    pump_free(&pump);
    tls_pair_free(&p);
    return left[0] == 0 || left[1] == 0;
}

/* A life each: some thousands, of half a second under valgrind, which looks at some of all. */
static void
live_at_every_offset(int version, bool cut)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_config *config, *other;
    size_t at = cut ? 0 : 1, step = under_valgrind() ? 41 : 1;

    client.sessions = server.sessions = false;
    only_version(&client, version);
    config = config_of(&client);
    other = config_of(&server);
    while (live_once(version, at, cut, config, other))
        at += step;
    ck_assert_uint_gt(at, 300);
    hs_tls_config_unref(config);
    hs_tls_config_unref(other);
}

START_TEST(records_may_be_split_at_every_offset)
{
    live_at_every_offset(versions[_i], false);
}
END_TEST

START_TEST(a_peer_may_be_cut_off_at_every_byte)
{
    live_at_every_offset(versions[_i], true);
}
END_TEST

START_TEST(bytes_may_come_one_by_one)
{
    struct pump pump;
    struct tls_pair p = plain_pumped_pair(&pump);
    struct hs_tls_options client = client_options();
    struct shaking a = {.c = p.client, .name = "a.example"};
    struct shaking b = {.c = p.server, .config = server_config()};
    uint8_t buf[8];
    size_t n = 0;

    only_version(&client, versions[_i]);
    a.config = config_of(&client);
    for (int i = 0; i < 5000 && (a.rv != HS_OK || b.rv != HS_OK || i == 0); i++) {
        (void)shake_step(&a);
        (void)pump_move(&pump, 0, 1);
        (void)shake_step(&b);
        (void)pump_move(&pump, 1, 1);
    }
    ASSERT_OK(a.rv);
    ASSERT_OK(b.rv);
    ASSERT_OK(send_now(p.client, "x", 1));
    while (recv_now(p.server, buf, sizeof(buf), &n) != HS_OK)
        ck_assert_uint_eq(pump_move(&pump, 0, 1), 1);
    ck_assert_uint_eq(n, 1);
    hs_tls_config_unref(a.config);
    hs_tls_config_unref(b.config);
    pump_free(&pump);
    tls_pair_free(&p);
}
END_TEST

/* ---- Forks --------------------------------------------------------------------------------- */

static int
give_up_in_child(void *arg)
{
    struct shaking *s = arg;
    hs_err rv = hs_conn_start_tls(s->c, &s->op, s->config, s->name, NULL);

    hs_conn_abandon(s->c, &s->op, NULL);
    hs_conn_unref(s->c);
    return rv == HS_E_FORKED ? 0 : 1;
}

START_TEST(a_forked_child_leaves_a_handshake_alone)
{
    struct tls_pair p = plain_pair(true);
    struct shaking a = {.c = p.client, .config = client_config(), .name = "a.example"};
    struct shaking b = {.c = p.server, .config = server_config()};

    ASSERT_ERR(HS_WANT, shake_step(&a));
    ck_assert_int_eq(in_child(give_up_in_child, &a), 0);
    handshake_both(&a, &b);
    ASSERT_OK(a.rv);
    ASSERT_OK(b.rv);
    carry(p.client, p.server, "whole", 5);
    hs_tls_config_unref(a.config);
    hs_tls_config_unref(b.config);
    tls_pair_free(&p);
}
END_TEST

/* ---- The connector ------------------------------------------------------------------------- */

struct dialled {
    int listener, peer;
    struct hs_connector *cn;
    struct hs_tls_config *config;
    struct hs_op op;
    struct hs_conn *c;
    hs_err rv;
};

static void
dial(struct dialled *d, const char *host, int64_t timeout)
{
    struct hs_tls_options o = client_options();
    struct hs_connect_options opts;
    struct hs_endpoint ep;
    struct hs_addr addr;

    o.handshake_timeout_ns = timeout;
    *d = (struct dialled){.listener = tcp_listener(1, &addr), .peer = -1};
    d->config = config_of(&o);
    hs_connect_options_init(&opts);
    opts.tls = d->config;
    opts.server_name = strcmp(host, "localhost") == 0 ? "a.example" : NULL;
    opts.family = AF_INET;
    ASSERT_OK(hs_endpoint_from_host(
        host, strlen(host), ntohs(((struct sockaddr_in *)&addr.storage)->sin_port), fresh(), &ep));
    ASSERT_OK(hs_connector_new(&ep, &opts, fresh(), &d->cn));
    d->op = op_step(10 * SECOND);
    d->rv = HS_WANT;
}

static void
dial_step(struct dialled *d, struct hs_error *err)
{
    d->rv = hs_connector_run(d->cn, &d->op, err, &d->c);
}

/* Until it waits for the server to say something. False when it ended before that. */
static bool
dial_to_the_handshake(struct dialled *d)
{
    size_t n = 0;
    const struct hs_attempt *log;

    for (;;) {
        dial_step(d, fresh());
        if (d->rv != HS_WANT)
            return false;
        log = hs_connector_attempts(d->cn, &n);
        if (n > 0 && log[n - 1].phase == HS_ATTEMPT_TLS)
            break;
        wait_for_want(&d->op);
    }
    ck_assert_int_ge(d->peer = accept(d->listener, NULL, NULL), 0);
    return true;
}

static void
dial_until_shaking(struct dialled *d)
{
    bool shakes = dial_to_the_handshake(d);

    ASSERT_ERR(HS_WANT, d->rv);
    ck_assert(shakes);
}

static void
dialled_free(struct dialled *d)
{
    hs_connector_free(d->cn);
    hs_conn_unref(d->c);
    hs_tls_config_unref(d->config);
    (void)close(d->listener);
    if (d->peer >= 0)
        (void)close(d->peer);
}

static void
serve_dialled(struct dialled *d)
{
    struct shaking s = {.config = server_config()};

    ASSERT_OK(hs_conn_adopt(d->peer, NULL, fresh(), &s.c));
    d->peer = -1;
    for (int i = 0; i < 50 && (d->rv == HS_WANT || s.rv != HS_OK); i++) {
        (void)shake_step(&s);
        if (d->rv == HS_WANT)
            dial_step(d, fresh());
    }
    ASSERT_OK(d->rv);
    ASSERT_OK(s.rv);
    carry(d->c, s.c, "through", 7);
    hs_conn_unref(s.c);
    hs_tls_config_unref(s.config);
}

START_TEST(a_connector_gives_a_connection_that_speaks_tls)
{
    struct dialled d;

    dial(&d, _i ? "localhost" : "127.0.0.1", 10 * SECOND);
    dial_until_shaking(&d);
    serve_dialled(&d);
    dialled_free(&d);
}
END_TEST

START_TEST(a_silent_server_is_cut_at_the_handshakes_own_time)
{
    struct hs_error err = {0};
    const struct hs_attempt *log;
    struct dialled d;
    size_t n;

    for (int64_t span = 60 * MS;; span *= 4) { /* Its own first step may take longer. */
        dial(&d, _i ? "localhost" : "127.0.0.1", span);
        if (dial_to_the_handshake(&d))
            break;
        ASSERT_ERR(HS_E_DEADLINE, d.rv);
        dialled_free(&d);
    }
    while (d.rv == HS_WANT) {
        wait_for_want(&d.op);
        dial_step(&d, &err);
    }
    ASSERT_ERR(HS_E_DEADLINE, d.rv);
    ck_assert_str_eq(err.phase, "tls");
    ck_assert_int_eq(err.tls, HS_TLS_TIMEOUT);
    log = hs_connector_attempts(d.cn, &n);
    ck_assert_int_eq(log[0].tls, HS_TLS_TIMEOUT);
    dialled_free(&d);
}
END_TEST

START_TEST(a_server_that_is_somebody_else_fails_the_connect)
{
    struct hs_error err = {0};
    struct dialled d;

    dial(&d, "127.0.0.1", 10 * SECOND);
    dial_until_shaking(&d);
    put(d.peer, "HTTP/1.1 400 Bad\r\n\r\n", 20);
    while (d.rv == HS_WANT)
        dial_step(&d, &err);
    ASSERT_ERR(HS_E_TLS, d.rv);
    ck_assert_int_eq(err.tls, HS_TLS_HTTP);
    ck_assert_str_eq(err.op, "connect");
    ck_assert_str_eq(err.phase, "tls");
    dialled_free(&d);
}
END_TEST

static int
free_in_child(void *arg)
{
    struct dialled *d = arg;

    hs_connector_free(d->cn);
    return 0;
}

/* The epoll set is one for both processes: what the child takes out the parent never hears of. */
START_TEST(a_connector_freed_in_a_child_is_still_watched_in_the_parent)
{
    struct dialled d;
    struct pollfd fd = {.events = POLLIN};

    dial(&d, "localhost", 10 * SECOND);
    dial_until_shaking(&d);
    ck_assert_int_eq(in_child(free_in_child, &d), 0);
    put(d.peer, "HTTP/1.1 400 Bad\r\n\r\n", 20);
    fd.fd = d.op.want_fd;
    ck_assert_int_eq(poll(&fd, 1, 2000), 1);
    dial_step(&d, fresh());
    ASSERT_ERR(HS_E_TLS, d.rv);
    dialled_free(&d);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("tls handshake");

    (void)signal(SIGPIPE, SIG_DFL); /* Nothing here may raise it. */
    tls_world();
    tcase_set_timeout(tc, 60); /* A handshake for each byte of a record. */
    tcase_add_loop_test(tc, both_ends_know_what_was_agreed_on, 0, 4);
    tcase_add_test(tc, a_plain_connection_has_nothing_to_tell);
    tcase_add_loop_test(tc, a_handshake_can_be_cut_at_every_stage, 0, CUTS * STAGES * 2);
    tcase_add_test(tc, an_abandoned_handshake_cannot_be_taken_up_again);
    tcase_add_test(tc, nobody_gets_between_two_steps);
    tcase_add_loop_test(tc, bytes_from_before_are_refused, 0, 2);
    tcase_add_loop_test(tc, what_a_server_has_read_ahead_begins_its_handshake, 0, 2);
    tcase_add_loop_test(tc, only_the_beginning_of_a_handshake_may_be_read_ahead, 0, LENGTH(aheads));
    tcase_add_test(tc, a_peer_that_left_before_leaves_nothing_to_read);
    tcase_add_test(tc, who_was_promised_tls_does_not_go_on_without);
    tcase_add_test(tc, a_callers_mistake_costs_nothing);
    tcase_add_test(tc, who_has_ended_sending_cannot_begin);
    tcase_add_loop_test(tc, a_server_tells_bad_clients_apart, 0, LENGTH(bad_clients));
    tcase_add_loop_test(tc, a_client_tells_bad_servers_apart, 0, LENGTH(bad_servers));
    tcase_add_loop_test(tc, a_client_may_change_its_mind, 0, LENGTH(changes_of_mind));
    tcase_add_loop_test(tc, a_reset_in_the_middle_is_a_reset, 0, 2);
    tcase_add_loop_test(tc, who_speaks_only_tls_1_0_is_told_apart, 0, 2);
    tcase_add_test(tc, a_server_that_answers_with_tls_1_0_is_told_apart);
    tcase_add_loop_test(tc, nothing_in_common_is_named, 0, LENGTH(disagreements));
    tcase_add_loop_test(tc, a_protocol_that_was_not_offered_is_refused, 0, 2);
    tcase_add_loop_test(tc, records_may_be_split_at_every_offset, 0, 2);
    tcase_add_loop_test(tc, a_peer_may_be_cut_off_at_every_byte, 0, 2);
    tcase_add_loop_test(tc, bytes_may_come_one_by_one, 0, 2);
    tcase_add_test(tc, a_forked_child_leaves_a_handshake_alone);
    tcase_add_loop_test(tc, a_connector_gives_a_connection_that_speaks_tls, 0, 2);
    tcase_add_loop_test(tc, a_silent_server_is_cut_at_the_handshakes_own_time, 0, 2);
    tcase_add_test(tc, a_server_that_is_somebody_else_fails_the_connect);
    tcase_add_test(tc, a_connector_freed_in_a_child_is_still_watched_in_the_parent);
    return run_case(tc);
}
