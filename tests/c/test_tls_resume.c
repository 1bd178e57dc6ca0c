/* test_tls_resume.c: how long a session stands for what was verified when it began.
 *
 * The clock is ours: it goes on when a test says so, and the one who asks for the time, OpenSSL or
 * we, is told by it.
 */
#include "support_tls.h"

#include <openssl/x509_vfy.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define DAY 86400

static const int versions[] = {HS_TLS_1_2, HS_TLS_1_3};

/* ---- A clock ------------------------------------------------------------------------------- */

#define INSTEAD_OF_LIBC __attribute__((visibility("default")))

static int64_t passed_s;

INSTEAD_OF_LIBC int
clock_gettime(clockid_t clock, struct timespec *now)
{
    int rc = (int)syscall(SYS_clock_gettime, clock, now);

    now->tv_sec += passed_s;
    return rc;
}

INSTEAD_OF_LIBC time_t
time(time_t *out)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL)
        *out = now.tv_sec;
    return now.tv_sec;
}

INSTEAD_OF_LIBC int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;

    (void)zone;
    (void)clock_gettime(CLOCK_REALTIME, &exact);
    *now = (struct timeval){.tv_sec = exact.tv_sec, .tv_usec = exact.tv_nsec / 1000};
    return 0;
}

/* ---- Who meets whom ------------------------------------------------------------------------ */

struct meeting {
    hs_err client, server;
    struct hs_error client_err, server_err;
    bool resumed;
};

/* One connection: handshake, tickets, both ends. */
static struct meeting
meet(struct hs_tls_config *client, struct hs_tls_config *server)
{
    struct tls_pair p = plain_pair(false);
    struct shaking a = {.c = p.client, .config = client, .name = "a.example"};
    struct shaking b = {.c = p.server, .config = server};
    struct hs_tls_info info = {0};
    struct meeting m;

    handshake_both(&a, &b);
    if (a.rv == HS_OK && b.rv == HS_OK) {
        carry(p.server, p.client, "tickets come before it", 22);
        ck_assert(hs_conn_tls_info(p.client, &info));
        if (server != NULL)
            ck_assert(info.verified);
    }
    m = (struct meeting){a.rv, b.rv, a.err, b.err, info.resumed};
    hs_conn_abandon(p.client, &a.op, NULL);
    hs_conn_abandon(p.server, &b.op, NULL);
    tls_pair_free(&p);
    return m;
}

static void
assert_met(const struct meeting *m, bool resumed)
{
    ck_assert_msg(m->client == HS_OK && m->server == HS_OK, "client: %s\nserver: %s",
                  m->client_err.msg, m->server_err.msg);
    ck_assert_int_eq(m->resumed, resumed);
}

#define MEET(a, b, want_resumed)                                                                   \
    do {                                                                                           \
        struct meeting met_ = meet(a, b);                                                          \
        assert_met(&met_, want_resumed);                                                           \
    } while (0)

/* Everybody's chain but that of whom a test is about is good for longer than tests go. */
struct cast {
    struct made *middle, *server, *client;
    struct hs_tls_identity ids[2];
    struct hs_tls_options for_client, for_server;
    struct hs_tls_config *a, *b;
};

static void
cast_init(struct cast *c, int version)
{
    *c = (struct cast){0};
    c->middle = cert_make(
        &(struct cert_spec){.cn = "Middle", .issuer = world.root, .ca = true, .to_days = 60});
    c->server = cert_make(&(struct cert_spec){
        .cn = "server", .names = "DNS:a.example", .issuer = c->middle, .to_days = 60});
    c->client = cert_make(&(struct cert_spec){.cn = "client", .issuer = c->middle, .to_days = 60});
    c->for_client = client_options();
    c->for_server = server_options();
    c->for_client.session_lifetime_s = c->for_server.session_lifetime_s = 7 * DAY;
    c->for_server.cas = c->for_client.cas;
    c->for_server.n_cas = 1;
    c->for_server.certs = HS_TLS_CERTS_REQUIRED;
    only_version(&c->for_client, version);
}

static void
cast_start(struct cast *c)
{
    c->ids[0] = identity(c->client);
    c->ids[1] = identity(c->server);
    c->for_client.identities = &c->ids[0];
    c->for_client.n_identities = 1;
    c->for_server.identities = &c->ids[1];
    c->a = config_of(&c->for_client);
    c->b = config_of(&c->for_server);
    MEET(c->a, c->b, false);
    MEET(c->a, c->b, true);
}

static void
cast_fini(struct cast *c)
{
    hs_tls_config_unref(c->a);
    hs_tls_config_unref(c->b);
    cert_free(c->client);
    cert_free(c->server);
    cert_free(c->middle);
}

/* A day less than in cast_init, by which all above it ends earlier. */
static void
shorten(struct made **m, const struct cert_spec *spec)
{
    struct cert_spec short_spec = *spec;

    cert_free(*m);
    short_spec.to_days = 2;
    *m = cert_make(&short_spec);
}

/* ---- Dates --------------------------------------------------------------------------------- */

enum who { CLIENT, SERVER, WHO };

START_TEST(who_has_expired_does_not_resume)
{
    enum who who = (enum who)(_i / 2);
    struct cast c;
    struct meeting m;

    cast_init(&c, versions[_i % 2]);
    if (who == CLIENT)
        shorten(&c.client, &(struct cert_spec){.cn = "client", .issuer = c.middle});
    else
        shorten(&c.server,
                &(struct cert_spec){.cn = "server", .names = "DNS:a.example", .issuer = c.middle});
    cast_start(&c);
    passed_s = DAY;
    for (int i = 0; i < 5; i++)
        MEET(c.a, c.b, true);
    passed_s = 2 * DAY + 60;
    m = meet(c.a, c.b);
    if (who == CLIENT) {
        ASSERT_ERR(HS_E_CERTIFICATE, m.server);
        ck_assert_int_eq(m.server_err.verify, X509_V_ERR_CERT_HAS_EXPIRED);
    } else {
        ASSERT_ERR(HS_E_CERTIFICATE, m.client);
        ck_assert_int_eq(m.client_err.verify, X509_V_ERR_CERT_HAS_EXPIRED);
    }
    cast_fini(&c);
}
END_TEST

/* Neither knows the intermediate but from the handshake. */
START_TEST(who_s_intermediate_has_expired_does_not_resume)
{
    enum who who = (enum who)(_i / 2);
    struct made *middle = cert_make(
        &(struct cert_spec){.cn = "Short", .issuer = world.root, .ca = true, .to_days = 2});
    struct cast c;
    struct meeting m;

    cast_init(&c, versions[_i % 2]);
    if (who == CLIENT) {
        cert_free(c.client);
        c.client = cert_make(&(struct cert_spec){.cn = "x", .issuer = middle, .to_days = 60});
    } else {
        cert_free(c.server);
        c.server = cert_make(&(struct cert_spec){
            .cn = "x", .names = "DNS:a.example", .issuer = middle, .to_days = 60});
    }
    cast_start(&c);
    passed_s = 2 * DAY + 60;
    m = meet(c.a, c.b);
    ASSERT_ERR(HS_E_CERTIFICATE, who == CLIENT ? m.server : m.client);
    cast_fini(&c);
    cert_free(middle);
}
END_TEST

/* ---- Authorities and lists ----------------------------------------------------------------- */

/* The root itself ends; the store holds it all the same. */
START_TEST(whose_root_has_expired_does_not_resume)
{
    struct made *root =
        cert_make(&(struct cert_spec){.cn = "Short Root", .ca = true, .to_days = 2});
    struct hs_tls_source pems[2] = {pem(world.root->chain), pem(root->chain)};
    struct cast c;
    struct meeting m;

    cast_init(&c, versions[_i]);
    cert_free(c.client);
    c.client = cert_make(&(struct cert_spec){.cn = "x", .issuer = root, .to_days = 60});
    c.for_server.cas = pems;
    c.for_server.n_cas = 2;
    cast_start(&c);
    passed_s = 2 * DAY + 60;
    m = meet(c.a, c.b);
    ASSERT_ERR(HS_E_CERTIFICATE, m.server);
    cast_fini(&c);
    cert_free(root);
}
END_TEST

/* A list that is out of date says nothing any more, to resumptions as to handshakes. */
START_TEST(with_a_list_that_is_out_of_date_nobody_resumes)
{
    enum who who = (enum who)(_i / 2);
    struct hs_tls_options *judge;
    char *texts[2];
    struct hs_tls_source lists[2];
    struct cast c;
    struct meeting m;

    cast_init(&c, versions[_i % 2]);
    texts[0] = crl_make(world.root, NULL, 0);
    texts[1] = crl_make(c.middle, NULL, 0);
    for (int i = 0; i < 2; i++)
        lists[i] = pem(texts[i]);
    judge = who == CLIENT ? &c.for_server : &c.for_client;
    judge->crls = lists;
    judge->n_crls = 2;
    cast_start(&c);
    passed_s = DAY + 60; /* crl_make's are good for a day */
    m = meet(c.a, c.b);
    ASSERT_ERR(HS_E_CERTIFICATE, who == CLIENT ? m.server : m.client);
    ck_assert_int_eq(who == CLIENT ? m.server_err.verify : m.client_err.verify,
                     X509_V_ERR_CRL_HAS_EXPIRED);
    cast_fini(&c);
    free(texts[0]);
    free(texts[1]);
}
END_TEST

enum change { REVOKED, NOT_TRUSTED, CHANGES };

START_TEST(a_reload_that_would_refuse_a_session_s_chain_ends_it)
{
    enum who who = (enum who)(_i / 2 % WHO);
    enum change change = (enum change)(_i / 2 / WHO);
    struct hs_tls_source other = pem(world.other_root->chain), lists[2];
    const struct made *revoked;
    char *texts[2] = {NULL};
    struct hs_tls_options *judge;
    struct cast c;
    struct meeting m;

    cast_init(&c, versions[_i % 2]);
    cast_start(&c);
    judge = who == CLIENT ? &c.for_server : &c.for_client;
    revoked = who == CLIENT ? c.client : c.server;
    if (change == REVOKED) {
        texts[0] = crl_make(world.root, NULL, 0);
        texts[1] = crl_make(c.middle, &revoked, 1);
        for (int i = 0; i < 2; i++)
            lists[i] = pem(texts[i]);
        judge->crls = lists;
        judge->n_crls = 2;
    } else {
        judge->cas = &other;
    }
    ASSERT_OK(hs_tls_config_reload(who == CLIENT ? c.b : c.a, judge, fresh()));
    m = meet(c.a, c.b);
    ASSERT_ERR(HS_E_CERTIFICATE, who == CLIENT ? m.server : m.client);
    cast_fini(&c);
    free(texts[0]);
    free(texts[1]);
}
END_TEST

/* ---- Lifetimes ----------------------------------------------------------------------------- */

/* Each resumption brings new tickets; none of them lives longer than those of the first. */
START_TEST(resumptions_end_with_the_lifetime_of_the_first_session)
{
    enum who who = (enum who)(_i / 2); /* whose lifetime is the short one */
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_config *a, *b;

    client.session_lifetime_s = who == CLIENT ? 100 : DAY;
    server.session_lifetime_s = who == SERVER ? 100 : DAY;
    only_version(&client, versions[_i % 2]);
    a = config_of(&client);
    b = config_of(&server);
    for (int round = 0; round < 2; round++) {
        MEET(a, b, false);
        for (int i = 0; i < 3; i++) { /* Within half of it: OpenSSL's client drops a 1.2 session */
            passed_s += 15;           /* whose ticket is sealed anew. */
            MEET(a, b, true);
        }
        passed_s += 56;
    }
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
}
END_TEST

/* Somebody who takes the tickets for longer than they say: the server knows by itself. */
START_TEST(a_server_refuses_what_a_client_should_have_forgotten)
{
    struct hs_tls_options server = server_options();
    struct hs_tls_config *b;
    SSL_CTX *ctx = raw_context(false);
    SSL_SESSION *session = NULL;

    server.session_lifetime_s = 100;
    b = config_of(&server);
    for (int i = 0; i < 3; i++) {
        struct tls_pair p = plain_pair(false);
        struct shaking ours = {.c = p.server, .config = b};
        int fds[2];
        SSL *raw;
        char byte;

        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        tls_pair_free(&p);
        ASSERT_OK(hs_conn_adopt(fds[0], NULL, fresh(), &ours.c));
        raw = raw_new(ctx, fds[1], false);
        ck_assert_int_eq(SSL_set_max_proto_version(raw, versions[_i]), 1);
        if (session != NULL)
            ck_assert_int_eq(SSL_set_session(raw, session), 1);
        shake_raw(&ours, raw);
        ASSERT_OK(ours.rv);
        ck_assert_int_eq(SSL_session_reused(raw), i == 1);
        (void)SSL_read(raw, &byte, 1); /* tickets */
        SSL_SESSION_free(session);
        session = SSL_get1_session(raw);
        (void)SSL_SESSION_set_timeout(session, DAY);
        SSL_set_shutdown(raw, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        raw_free(raw);
        hs_conn_close(ours.c, true);
        hs_conn_unref(ours.c);
        passed_s += 60;
    }
    SSL_SESSION_free(session);
    SSL_CTX_free(ctx);
    hs_tls_config_unref(b);
}
END_TEST

/* What does not fit into a ticket is not resumed, and nothing breaks. */
START_TEST(a_chain_too_long_for_a_ticket_is_not_resumed)
{
    static const char *const names[] = {"Long", "Longer", "Still longer", "Leaf"};
    static uint8_t san[4000];
    struct made *chain[4];
    char *texts[4];
    struct hs_tls_source lists[4];
    const struct made *above = world.root;
    struct hs_tls_identity ids[2];
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_config *a, *b;

    san[0] = 0x30; /* SEQUENCE of one dNSName of 3,992 letters */
    san[1] = san[5] = 0x82;
    san[2] = (uint8_t)((sizeof(san) - 4) >> 8);
    san[3] = (uint8_t)(sizeof(san) - 4);
    san[4] = 0x82;
    san[6] = (uint8_t)((sizeof(san) - 8) >> 8);
    san[7] = (uint8_t)(sizeof(san) - 8);
    memset(san + 8, 'x', sizeof(san) - 8);
    for (int i = 0; i < 4; i++) {
        chain[i] = cert_make(&(struct cert_spec){
            .cn = names[i], .issuer = above, .ca = i < 3, .san = san, .san_len = sizeof(san)});
        above = chain[i];
    }
    ids[0] = identity(chain[3]);
    client.identities = &ids[0];
    client.n_identities = 1;
    server.cas = client.cas;
    server.n_cas = 1;
    server.certs = HS_TLS_CERTS_REQUIRED;
    for (int i = 0; i < 4; i++) {
        texts[i] = crl_make(i == 0 ? world.root : chain[i - 1], NULL, 0);
        lists[i] = pem(texts[i]);
    }
    server.crls = lists;
    server.n_crls = 4;
    only_version(&client, versions[_i]);
    a = config_of(&client);
    b = config_of(&server);
    for (int i = 0; i < 3; i++)
        MEET(a, b, false);
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
    for (int i = 0; i < 4; i++) {
        cert_free(chain[i]);
        free(texts[i]);
    }
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("tls resume");

    tls_world();
    tcase_add_loop_test(tc, who_has_expired_does_not_resume, 0, 2 * WHO);
    tcase_add_loop_test(tc, who_s_intermediate_has_expired_does_not_resume, 0, 2 * WHO);
    tcase_add_loop_test(tc, whose_root_has_expired_does_not_resume, 0, 2);
    tcase_add_loop_test(tc, with_a_list_that_is_out_of_date_nobody_resumes, 0, 2 * WHO);
    tcase_add_loop_test(tc, a_reload_that_would_refuse_a_session_s_chain_ends_it, 0,
                        2 * WHO * CHANGES);
    tcase_add_loop_test(tc, resumptions_end_with_the_lifetime_of_the_first_session, 0, 2 * WHO);
    tcase_add_loop_test(tc, a_server_refuses_what_a_client_should_have_forgotten, 0, 2);
    tcase_add_loop_test(tc, a_chain_too_long_for_a_ticket_is_not_resumed, 0, 2);
    return run_case(tc);
}
