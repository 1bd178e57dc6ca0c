/* test_tls_fail.c: every call of the C library, and every allocation of OpenSSL's, fails in turn
 * while TLS is set up, does its handshake, carries bytes and ends.
 *
 * As in test_fail_each.c: the nth fails, once alone and once with all that follow, until a run
 * makes fewer than that. A run may end in any error that is one, with nothing left open or alive,
 * and bytes that arrive are those that were sent; the next clean run must succeed. What fails for
 * want of memory must not be blamed on the peer.
 */
#include "inject.h"

#include "../c/support.h"
#include "../c/support_tls.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WRONG (-1)
#define OPENSSL_MALLOC HS_CALLS
/* Reading certificates takes thousands of allocations: of the later ones some must do. */
#define ALL_OF 500
#define STRIDE 13

/* ---- OpenSSL's memory ---------------------------------------------------------------------- */

static atomic_int ossl_count, ossl_fail_at = -1;
static atomic_bool ossl_persistent;

static bool
ossl_fails(void)
{
    int n, at = ossl_fail_at;

    if (at < 0)
        return false;
    n = atomic_fetch_add(&ossl_count, 1) + 1;
    return n == at || (ossl_persistent && n > at);
}

static void *
ossl_malloc(size_t n, const char *file, int line)
{
    (void)file;
    (void)line;
    return n == 0 || ossl_fails() ? NULL : malloc(n);
}

static void *
ossl_realloc(void *p, size_t n, const char *file, int line)
{
    (void)file;
    (void)line;
    if (n == 0) {
        free(p);
        return NULL;
    }
    return ossl_fails() ? NULL : realloc(p, n);
}

static void
ossl_free(void *p, const char *file, int line)
{
    (void)file;
    (void)line;
    free(p);
}

/* ---- Scenarios ----------------------------------------------------------------------------- */

static struct hs_tls_config *client_config, *server_config;
static struct hs_error error; /* of what failed first */
static struct hs_tls_source staple;

static hs_err
make_settings(void)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_identity id = identity(world.leaf);
    struct hs_tls_config *a = NULL, *b = NULL;
    hs_err rv;

    id.ocsp = staple;
    server.identities = &id;
    client.alpn = server.alpn = (const uint8_t *)"\4test";
    client.alpn_len = server.alpn_len = 5;
    if ((rv = hs_tls_config_new(&client, &error, &a)) == HS_OK &&
        (rv = hs_tls_config_new(&server, &error, &b)) == HS_OK)
        rv = hs_tls_config_reload(b, &server, &error);
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
    return rv;
}

static hs_err
first_of(hs_err a, hs_err b)
{
    return a != HS_OK && a != HS_WANT && a != HS_INTR ? a : b;
}

/* Both ends in turns, until both are through or one has failed. */
static hs_err
shake(struct hs_conn *a, struct hs_conn *b, struct hs_error *err)
{
    struct hs_op in = op_step(SECOND), out = op_step(SECOND);
    hs_err client = HS_WANT, server = HS_WANT;

    for (int i = 0; i < 50 && (client > 0 || server > 0); i++) {
        struct hs_error own = {0}, other = {0};

        if (client > 0)
            client = hs_conn_start_tls(a, &in, client_config, "a.example", &own);
        if (server > 0)
            server = hs_conn_start_tls(b, &out, server_config, NULL, &other);
        if (client < 0 || server < 0) {
            *err = client < 0 ? own : other;
            break;
        }
    }
    hs_conn_abandon(a, &in, NULL);
    hs_conn_abandon(b, &out, NULL);
    return first_of(client < 0 ? client : HS_OK, server < 0 ? server : client | server);
}

static hs_err
talk(struct hs_conn *a, struct hs_conn *b)
{
    struct hs_op out = op_in(SECOND), in = op_in(SECOND), end = op_in(SECOND);
    uint8_t bytes[40000], got[40000];
    struct hs_tls_info info;
    uint8_t *der = NULL;
    size_t n = 0, len;
    hs_err rv;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = pattern(5, i);
    if ((rv = DONE(hs_conn_send_all(a, &out, bytes, sizeof(bytes), &error))) != HS_OK)
        return rv;
    while (n < sizeof(got) && rv == HS_OK) {
        struct hs_op some = op_in(SECOND);

        rv = DONE(hs_conn_recv(b, &some, got + n, sizeof(got) - n, 0, &error, &len));
        if (rv == HS_OK && (len == 0 || memcmp(got + n, bytes + n, len) != 0))
            return WRONG;
        n += rv == HS_OK ? len : 0;
    }
    if (rv != HS_OK || (rv = DONE(hs_conn_close_write(b, &end, &error))) != HS_OK)
        return rv;
    if ((rv = DONE(hs_conn_recv(a, &in, got, 1, 0, &error, &len))) == HS_OK && len != 0)
        return WRONG;
    if (!hs_conn_tls_info(a, &info))
        return WRONG;
    if (rv == HS_OK)
        rv = hs_conn_tls_chain_copy(a, 0, &der, &len);
    free(der);
    return rv;
}

static bool within, asks;

/* The server asks for the client's certificate, which the client answers while it receives. */
static hs_err
ask(struct hs_conn *client, struct hs_conn *server)
{
    struct hs_op in = op_step(SECOND), out = op_step(SECOND);
    hs_err reads = HS_WANT, asked = HS_WANT;
    uint8_t byte;
    size_t n;

    for (int i = 0; i < 50 && asked > 0 && reads > 0; i++) {
        struct hs_error own = {0}, other = {0};

        asked = hs_conn_request_certificate(server, &out, true, true, &own);
        if (asked > 0)
            reads = hs_conn_recv(client, &in, &byte, 1, 0, &other, &n);
        if (asked < 0 || reads < 0)
            error = asked < 0 ? own : other;
    }
    hs_conn_abandon(client, &in, NULL);
    hs_conn_abandon(server, &out, NULL);
    if (asked == HS_OK && hs_conn_tls_chain_length(server) == 0)
        return WRONG;
    return first_of(asked < 0 ? asked : HS_OK, reads < 0 ? reads : asked);
}

static hs_err
live(void)
{
    struct hs_conn *a = NULL, *b = NULL;
    int fds[2];
    hs_err rv;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return WRONG;
    if ((rv = hs_conn_adopt(fds[0], NULL, &error, &a)) == HS_OK &&
        (rv = hs_conn_adopt(fds[1], NULL, &error, &b)) == HS_OK &&
        (rv = shake(a, b, &error)) == HS_OK && (!within || (rv = shake(a, b, &error)) == HS_OK) &&
        (!asks || (rv = ask(a, b)) == HS_OK))
        rv = talk(a, b);
    if (a == NULL)
        (void)close(fds[0]);
    if (b == NULL)
        (void)close(fds[1]);
    if (a != NULL)
        hs_conn_close(a, false);
    hs_conn_unref(a);
    hs_conn_unref(b);
    return rv;
}

static hs_err
live_within(void)
{
    hs_err rv;

    within = true;
    rv = live();
    within = false;
    return rv;
}

static const struct scenario {
    const char *name;
    hs_err (*run)(void);
    bool judged; /* resumptions are: both sides show certificates and check lists */
    bool asks;
} scenarios[] = {
    {.name = "settings", .run = make_settings},
    {.name = "a life", .run = live},
    {.name = "a life after another", .run = live, .judged = true},
    {.name = "a life within TLS", .run = live_within},
    {.name = "a certificate on request", .run = live, .judged = true, .asks = true},
};

/* ---- Rounds -------------------------------------------------------------------------------- */

struct round {
    const struct scenario *scenario;
    int call, nth; /* call -1: nothing fails */
    bool persistent;
    int calls;
    hs_err rv;
};

static void *
run_round(void *arg)
{
    struct round *r = arg;

    error = (struct hs_error){0};
    ERR_clear_error(); /* OpenSSL 3.6 recurses for ever when a thread's queue cannot be made. */
    if (r->call == OPENSSL_MALLOC) {
        ossl_count = 0;
        ossl_persistent = r->persistent;
        ossl_fail_at = r->nth;
    } else if (r->call >= 0) {
        inject_arm((enum hs_call)r->call, r->nth, r->persistent, 0);
    }
    r->rv = r->scenario->run();
    ossl_fail_at = -1;
    r->calls = inject_disarm();
    if (r->call == OPENSSL_MALLOC)
        r->calls = ossl_count;
    return NULL;
}

static void
run_apart(struct round *r)
{
    struct thread t;

    thread_start(&t, run_round, r);
    (void)thread_join(&t);
}

static bool
nothing_is_alive(void)
{
    struct hs_live live;

    hs_live_counts(&live);
    return live.conns + live.buffers + live.lingering == 0;
}

static const char *
name_of(int call)
{
    return call == OPENSSL_MALLOC ? "OpenSSL's malloc" : hs_call_facts[call].name;
}

static bool
torture(const struct scenario *s, int call, int nth, bool persistent)
{
    struct round r = {.scenario = s, .call = call, .nth = nth, .persistent = persistent};
    struct round clean = {.scenario = s, .call = -1};
    long fds = count_fds();

    run_apart(&r);
    ck_assert_msg(r.rv != WRONG && r.rv <= 0, "%s, %s %d%s: %s", s->name, name_of(call), nth,
                  persistent ? " and on" : "", hs_err_text(r.rv));
    if (r.rv < 0 && r.calls >= nth && (call == HS_CALL_alloc || call == OPENSSL_MALLOC))
        ck_assert_msg(error.tls != HS_TLS_PROTOCOL || error.code == HS_E_NOMEM, "%s, %s %d%s: %s",
                      s->name, name_of(call), nth, persistent ? " and on" : "", error.msg);
    EVENTUALLY(nothing_is_alive());
    EVENTUALLY(count_fds() <= fds); /* A thread that lingered has one of its own until it ends. */
    ck_assert_msg(count_fds() == fds, "%s, %s %d%s: %ld descriptors became %ld", s->name,
                  name_of(call), nth, persistent ? " and on" : "", fds, count_fds());
    if (nth == 1) {
        run_apart(&clean);
        ck_assert_msg(clean.rv == HS_OK, "%s after %s: %s, %s", s->name, name_of(call),
                      hs_err_text(clean.rv), error.msg);
    }
    return r.calls >= nth;
}

static void
set_configs(bool judged, bool later)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct made *middle =
        cert_make(&(struct cert_spec){.cn = "Middle", .issuer = world.root, .ca = true});
    struct made *leaf = cert_make(&(struct cert_spec){.cn = "client", .issuer = middle});
    char *texts[] = {crl_make(world.root, NULL, 0), crl_make(middle, NULL, 0)};
    struct hs_tls_source lists[] = {pem(texts[0]), pem(texts[1])};
    struct hs_tls_identity id = identity(leaf);
    struct hs_tls_identity several[] = {identity(world.leaf_rsa), identity(world.leaf)};

    if (judged) {
        client.identities = &id;
        client.n_identities = 1;
        server.cas = client.cas;
        server.n_cas = 1;
        server.identities = several;
        server.n_identities = LENGTH(several);
        server.certs = later ? HS_TLS_CERTS_ON_REQUEST : HS_TLS_CERTS_REQUIRED;
        client.post_handshake_auth = later;
        client.crls = server.crls = lists;
        client.n_crls = server.n_crls = LENGTH(lists);
    }
    client_config = config_of(&client);
    server_config = config_of(&server);
    for (size_t i = 0; i < LENGTH(texts); i++)
        free(texts[i]);
    cert_free(leaf);
    cert_free(middle);
}

START_TEST(each_call_fails_in_turn)
{
    const struct scenario *s = &scenarios[_i / 2];
    struct round warm = {.scenario = s, .call = -1};
    int rounds = 0;

    uint8_t *der = staple_make(
        &(struct staple_spec){.about = world.leaf, .issuer = world.root, .this_update_s = -60},
        &staple.len);

    staple.data = der;
    inject_spare_me();
    asks = s->asks;
    set_configs(s->judged, asks);
    run_apart(&warm);
    ASSERT_OK(warm.rv);
    for (int call = 0; call <= HS_CALLS; call++)
        for (int nth = 1; torture(s, call, nth, _i % 2); nth += nth < ALL_OF ? 1 : STRIDE)
            rounds++;
    ck_assert_int_gt(rounds, 100);
    (void)printf("%s%s: %d rounds\n", s->name, _i % 2 ? ", and on" : "", rounds);
    hs_tls_config_unref(client_config);
    hs_tls_config_unref(server_config);
    free(der);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("tls fail");

    if (!CRYPTO_set_mem_functions(ossl_malloc, ossl_realloc, ossl_free))
        return EXIT_FAILURE;
    tls_world();
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, each_call_fails_in_turn, 0, 2 * LENGTH(scenarios));
    return run_case(tc);
}
