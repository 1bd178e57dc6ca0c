/* test_tls_config.c: TLS settings: what is refused, what is read, what is kept between handshakes.
 *
 * Options that contradict, files that are wrong, choice of a certificate, protocols, sessions and
 * the tickets for them, reloading, the log of secrets.
 */
#include "support_tls.h"

#include "../../csrc/stream/tls_sessions.h"
#include "../../csrc/stream/tls_tickets.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const int versions[] = {HS_TLS_1_2, HS_TLS_1_3};

/* A handshake over a unix socket, so that all are at the same place; both stay the caller's. */
struct outcome {
    struct tls_pair p;
    struct shaking client, server;
    struct hs_tls_info info;
};

static void
meet(struct outcome *o, struct hs_tls_config *client, struct hs_tls_config *server,
     const char *name)
{
    *o = (struct outcome){.p = plain_pair(false)};
    o->client = (struct shaking){.c = o->p.client, .config = client, .name = name};
    o->server = (struct shaking){.c = o->p.server, .config = server};
    handshake_both(&o->client, &o->server);
    (void)hs_conn_tls_info(o->p.client, &o->info);
}

static void
part(struct outcome *o)
{
    hs_conn_abandon(o->p.client, &o->client.op, NULL);
    hs_conn_abandon(o->p.server, &o->server.op, NULL);
    tls_pair_free(&o->p);
}

/* Meets, takes in the tickets, parts; whether it was a resumption. */
static bool
meet_briefly(struct hs_tls_config *client, struct hs_tls_config *server, const char *name)
{
    struct outcome o;
    bool resumed;

    meet(&o, client, server, name);
    ck_assert_msg(o.client.rv == HS_OK && o.server.rv == HS_OK, "%s, %s", o.client.err.msg,
                  o.server.err.msg);
    carry(o.p.server, o.p.client, "x", 1);
    resumed = o.info.resumed;
    part(&o);
    return resumed;
}

/* ---- Refused ------------------------------------------------------------------------------- */

static void
with_version_1_1(struct hs_tls_options *o)
{
    o->min_version = 0x0302;
}

static void
with_versions_crossed(struct hs_tls_options *o)
{
    o->min_version = HS_TLS_1_3;
    o->max_version = HS_TLS_1_2;
}

static void
with_bad_alpn(struct hs_tls_options *o)
{
    o->alpn = (const uint8_t *)"\5some";
    o->alpn_len = 5;
}

static void
with_empty_alpn(struct hs_tls_options *o)
{
    o->alpn = (const uint8_t *)"\4some\0";
    o->alpn_len = 6;
}

static void
with_weak_ciphers(struct hs_tls_options *o)
{
    o->ciphers = "ECDHE+AESGCM:AES128-SHA";
}

static void
with_unknown_ciphers(struct hs_tls_options *o)
{
    o->ciphers = "NONSENSE";
}

/* Lowers what everybody relies on, without having "insecure" in its name. */
static void
with_a_level(struct hs_tls_options *o)
{
    o->ciphers = "ECDHE+AESGCM:@SECLEVEL=0";
}

static void
with_two_lists(struct hs_tls_options *o)
{
    o->ciphers = "ECDHE+AESGCM";
    o->insecure_ciphers = "DEFAULT";
}

static void
with_nine_tickets(struct hs_tls_options *o)
{
    o->tickets = 9;
}

static void
with_a_long_life(struct hs_tls_options *o)
{
    o->session_lifetime_s = 604801;
}

static void
with_nobody_trusted(struct hs_tls_options *o)
{
    o->n_cas = 0;
}

static void
with_a_staple_unchecked(struct hs_tls_options *o)
{
    o->insecure_skip_verify = true;
    o->ocsp = HS_TLS_OCSP_REQUIRE;
}

static void
with_two_identities(struct hs_tls_options *o)
{
    static struct hs_tls_identity two[2];

    two[0] = identity(world.client);
    two[1] = identity(world.client);
    o->identities = two;
    o->n_identities = 2;
}

static struct hs_tls_identity wrong;

static void
with_another_key(struct hs_tls_options *o)
{
    wrong = identity(world.client);
    wrong.key = pem(world.second->key_pem);
    o->identities = &wrong;
    o->n_identities = 1;
}

static void
without_a_key(struct hs_tls_options *o)
{
    wrong = identity(world.client);
    wrong.key = (struct hs_tls_source){0};
    o->identities = &wrong;
    o->n_identities = 1;
}

static void
with_a_missing_file(struct hs_tls_options *o)
{
    wrong = identity(world.client);
    wrong.chain = (struct hs_tls_source){.path = "/nonexistent/hardsock.pem"};
    o->identities = &wrong;
    o->n_identities = 1;
}

static struct hs_tls_source source;

static void
with_no_certificate_in_ca(struct hs_tls_options *o)
{
    source = pem("nothing here\n");
    o->cas = &source;
}

static void
with_a_damaged_ca(struct hs_tls_options *o)
{
    static char text[8192];

    (void)snprintf(text, sizeof(text), "%s-----BEGIN CERTIFICATE-----\nAAAA\n", world.root->chain);
    source = pem(text);
    o->cas = &source;
}

/* All of a list that can be read would leave out who was revoked last. */
static void
with_a_damaged_crl(struct hs_tls_options *o)
{
    static char text[8192];
    char *crl = crl_make(world.root, NULL, 0);

    (void)snprintf(text, sizeof(text), "%s-----BEGIN X509 CRL-----\nAAAA\n", crl);
    free(crl);
    source = pem(text);
    o->crls = &source;
    o->n_crls = 1;
}

static void
with_no_list_in_crl(struct hs_tls_options *o)
{
    source = pem(world.root->chain);
    o->crls = &source;
    o->n_crls = 1;
}

static void
with_a_staple_that_is_none(struct hs_tls_options *o)
{
    wrong = identity(world.client);
    wrong.ocsp = pem("good");
    o->identities = &wrong;
    o->n_identities = 1;
}

static struct made *weak;

static void
with_a_short_key(struct hs_tls_options *o)
{
    weak = cert_make(&(struct cert_spec){.cn = "x", .kind = KEY_RSA_1024});
    wrong = identity(weak);
    o->identities = &wrong;
    o->n_identities = 1;
}

static void
with_a_log_nowhere(struct hs_tls_options *o)
{
    o->insecure_key_log = "/nonexistent/hardsock.log";
}

static const struct {
    const char *want;
    void (*spoil)(struct hs_tls_options *o);
    hs_err want_rv;
} refusals[] = {
    {"must be TLS 1.2 or 1.3", with_version_1_1, HS_E_INVALID},
    {"min_version is above max_version", with_versions_crossed, HS_E_INVALID},
    {"alpn: ", with_bad_alpn, HS_E_INVALID},
    {"alpn: ", with_empty_alpn, HS_E_INVALID},
    {"ciphers: AES128-SHA has no forward secrecy", with_weak_ciphers, HS_E_INVALID},
    {"ciphers: \"NONSENSE\"", with_unknown_ciphers, HS_E_INVALID},
    {"security level below 2", with_a_level, HS_E_INVALID},
    {"ciphers contradicts insecure_ciphers", with_two_lists, HS_E_INVALID},
    {"tickets must be in 0..8, got 9", with_nine_tickets, HS_E_INVALID},
    {"session_lifetime must be in 1..604800", with_a_long_life, HS_E_INVALID},
    {"needs ca", with_nobody_trusted, HS_E_INVALID},
    {"ocsp=require contradicts", with_a_staple_unchecked, HS_E_INVALID},
    {"one certificate at most, got 2", with_two_identities, HS_E_INVALID},
    {"does not belong to certificate", with_another_key, HS_E_INVALID},
    {"holds no private key", without_a_key, HS_E_INVALID},
    {"cannot read /nonexistent/hardsock.pem", with_a_missing_file, HS_E_SYSTEM},
    {"ca: (bytes) holds no certificate", with_no_certificate_in_ca, HS_E_INVALID},
    {"ca: (bytes) holds a damaged certificate", with_a_damaged_ca, HS_E_INVALID},
    {"crl: (bytes) holds a damaged revocation list", with_a_damaged_crl, HS_E_INVALID},
    {"crl: (bytes) holds no revocation list", with_no_list_in_crl, HS_E_INVALID},
    {"ocsp_response: (bytes) is no OCSP response", with_a_staple_that_is_none, HS_E_INVALID},
    {"ee key too small", with_a_short_key, HS_E_INVALID},
    {"insecure_key_log_file: /nonexistent", with_a_log_nowhere, HS_E_SYSTEM},
};

START_TEST(wrong_settings_are_refused_by_name)
{
    struct hs_tls_options o = client_options();
    struct hs_tls_config *config = NULL;

    refusals[_i].spoil(&o);
    ASSERT_ERR(refusals[_i].want_rv, hs_tls_config_new(&o, fresh(), &config));
    ck_assert_msg(strstr(last_error()->msg, refusals[_i].want) != NULL, "'%s' is not in: %s",
                  refusals[_i].want, last_error()->msg);
    ck_assert_uint_eq(ERR_peek_error(), 0); /* Others use OpenSSL, too. */
    cert_free(weak);
}
END_TEST

START_TEST(a_server_needs_a_certificate_and_authorities_to_judge_by)
{
    struct hs_tls_options o = server_options();
    struct hs_tls_config *config;

    o.certs = HS_TLS_CERTS_OPTIONAL;
    ASSERT_ERR(HS_E_INVALID, hs_tls_config_new(&o, fresh(), &config));
    o.certs = HS_TLS_CERTS_NONE;
    o.n_identities = 0;
    ASSERT_ERR(HS_E_INVALID, hs_tls_config_new(&o, fresh(), &config));
}
END_TEST

START_TEST(a_key_may_be_encrypted)
{
    struct hs_tls_options o = server_options();
    struct hs_tls_identity id = identity(world.leaf);
    struct hs_tls_config *config;
    BIO *bio = BIO_new(BIO_s_mem());
    char *data;

    ck_assert_int_eq(PEM_write_bio_PKCS8PrivateKey(bio, world.leaf->key, EVP_aes_128_cbc(), NULL, 0,
                                                   NULL, (void *)(uintptr_t) "right"),
                     1);
    id.key.len = (size_t)BIO_get_mem_data(bio, &data);
    id.key.data = data;
    o.identities = &id;
    ASSERT_ERR(HS_E_INVALID, hs_tls_config_new(&o, fresh(), &config));
    ck_assert(strstr(last_error()->msg, "is encrypted; give the right password") != NULL);
    id.password = "wrong";
    ASSERT_ERR(HS_E_INVALID, hs_tls_config_new(&o, fresh(), &config));
    ck_assert(strstr(last_error()->msg, "is encrypted; give the right password") != NULL);
    id.password = "right";
    ASSERT_OK(hs_tls_config_new(&o, fresh(), &config));
    hs_tls_config_unref(config);
    BIO_free(bio);
}
END_TEST

START_TEST(der_is_as_good_as_pem)
{
    struct hs_tls_options o = server_options();
    struct hs_tls_identity id = {0};
    unsigned char *cert = NULL, *key = NULL;
    struct hs_tls_config *config;

    id.chain.len = (size_t)i2d_X509(world.leaf->cert, &cert);
    id.chain.data = cert;
    id.key.len = (size_t)i2d_PrivateKey(world.leaf->key, &key);
    id.key.data = key;
    o.identities = &id;
    ASSERT_OK(hs_tls_config_new(&o, fresh(), &config));
    hs_tls_config_unref(config);
    OPENSSL_free(cert);
    OPENSSL_free(key);
}
END_TEST

/* ---- Which certificate --------------------------------------------------------------------- */

static X509 *
met_certificate(struct hs_tls_config *client, struct hs_tls_config *server, const char *name)
{
    struct outcome o;
    const unsigned char *at;
    uint8_t *der;
    size_t len;
    X509 *x;

    meet(&o, client, server, name);
    if (o.client.rv != HS_OK) {
        ck_assert_int_eq(o.server.err.tls, HS_TLS_CIPHER);
        part(&o);
        return NULL;
    }
    ASSERT_OK(hs_conn_tls_chain_copy(o.p.client, 0, &der, &len));
    at = der;
    x = d2i_X509(NULL, &at, (long)len);
    free(der);
    part(&o);
    return x;
}

START_TEST(a_server_presents_what_fits_the_name)
{
    struct made *elder =
        cert_make(&(struct cert_spec){.cn = "elder",
                                      .names = "DNS:b.example,DNS:c.example,DNS:*.two.example",
                                      .issuer = world.root});
    struct hs_tls_identity ids[] = {identity(world.leaf), identity(world.leaf_rsa),
                                    identity(world.second), identity(elder)};
    const struct {
        const char *name, *ciphers;
        const struct made *want;
    } rows[] = {
        {"a.example", NULL, world.leaf},
        {"x.wild.example", NULL, world.leaf},
        {"a.example", "ECDHE-RSA-AES128-GCM-SHA256", world.leaf_rsa},
        {"b.example", NULL, world.second}, /* the first of two that fit */
        {"c.example", NULL, elder},
        {"a_b.two.example", NULL, elder},
        {"b.example", "ECDHE-RSA-AES128-GCM-SHA256", NULL}, /* another name would not help */
        {"unknown.example", NULL, world.leaf},              /* the first of all */
        {"unknown.example", "ECDHE-RSA-AES128-GCM-SHA256", world.leaf_rsa},
        {"127.0.0.1", "ECDHE-RSA-AES128-GCM-SHA256", world.leaf_rsa},
        {"127.0.0.1", NULL, world.leaf}, /* no name is asked for */
    };
    struct hs_tls_options server = server_options();
    struct hs_tls_config *config;

    server.identities = ids;
    server.n_identities = LENGTH(ids);
    config = config_of(&server);
    for (size_t i = 0; i < LENGTH(rows); i++) {
        struct hs_tls_options client = client_options();
        struct hs_tls_config *other;
        X509 *x;

        client.insecure_skip_hostname = true;
        client.sessions = false;
        client.ciphers = rows[i].ciphers;
        only_version(&client, rows[i].ciphers != NULL ? HS_TLS_1_2 : versions[_i]);
        other = config_of(&client);
        x = met_certificate(other, config, rows[i].name);
        ck_assert_msg(rows[i].want == NULL ? x == NULL
                                           : x != NULL && X509_cmp(x, rows[i].want->cert) == 0,
                      "%s, %s", rows[i].name, rows[i].ciphers);
        X509_free(x);
        hs_tls_config_unref(other);
    }
    hs_tls_config_unref(config);
    cert_free(elder);
}
END_TEST

/* Clients of OpenSSL's, which can do only a part of what ours can. */
static const struct picky {
    const char *name, *sigalgs, *groups, *ciphers;
    int version, want;
} picky[] = {
    {NULL, "ecdsa_secp384r1_sha384:rsa_pss_rsae_sha256", NULL, NULL, HS_TLS_1_3, 0},
    {NULL, "ecdsa_secp256r1_sha256", NULL, NULL, HS_TLS_1_3, 1},
    {NULL, "rsa_pss_rsae_sha256", NULL, NULL, HS_TLS_1_3, 2},
    {NULL, "ed25519", NULL, NULL, HS_TLS_1_3, 3},
    {NULL, "rsa_pss_pss_sha256", NULL, NULL, HS_TLS_1_3, -1},
    {"unknown.example", "ecdsa_secp256r1_sha256", NULL, NULL, HS_TLS_1_3, 1},
    {"b.example", "ecdsa_secp256r1_sha256:ed25519", NULL, NULL, HS_TLS_1_3, 3},
    {"b.example", "ecdsa_secp256r1_sha256", NULL, NULL, HS_TLS_1_3, -1},
    {"a.example", "ecdsa_secp256r1_sha256", NULL, NULL, HS_TLS_1_3, 1}, /* the same kind of key */
    {NULL, NULL, "P-384:P-256", NULL, HS_TLS_1_2, 0},
    {NULL, NULL, "P-256", NULL, HS_TLS_1_2, 1},
    {"a.example", NULL, "P-256", NULL, HS_TLS_1_2, 1},
    {NULL, "RSA+SHA256", NULL, NULL, HS_TLS_1_2, 2},
    {NULL, NULL, NULL, "ECDHE-RSA-AES128-GCM-SHA256", HS_TLS_1_2, 2},
    {NULL, "ed25519", NULL, NULL, HS_TLS_1_2, 3}, /* RFC 8422: by the ciphers of ECDSA */
    {NULL, NULL, NULL, "AES128-GCM-SHA256", HS_TLS_1_2, -1},
};

static SSL *
picky_new(SSL_CTX *ctx, const struct picky *p, int fd)
{
    SSL *raw = raw_new(ctx, fd, false);

    ck_assert(SSL_set_min_proto_version(raw, p->version));
    ck_assert(SSL_set_max_proto_version(raw, p->version));
    ck_assert(p->name == NULL || SSL_set_tlsext_host_name(raw, p->name));
    ck_assert(p->sigalgs == NULL || SSL_set1_sigalgs_list(raw, p->sigalgs));
    ck_assert(p->groups == NULL || SSL_set1_groups_list(raw, p->groups));
    ck_assert(p->ciphers == NULL || SSL_set_cipher_list(raw, p->ciphers));
    return raw;
}

START_TEST(a_server_presents_what_the_client_can_verify)
{
    static const enum key_kind kinds[] = {KEY_EC_384, KEY_EC, KEY_RSA, KEY_ED25519};
    const struct picky *p = &picky[_i];
    struct hs_tls_options server = server_options();
    struct hs_tls_identity ids[LENGTH(kinds)];
    struct made *made[LENGTH(kinds)];
    SSL_CTX *ctx = raw_context(false);
    struct shaking ours = {0};
    const X509 *got;
    SSL *raw;
    int fds[2];

    for (size_t i = 0; i < LENGTH(kinds); i++) {
        made[i] = cert_make(&(struct cert_spec){
            .cn = "x", .names = i < 3 ? "DNS:a.example" : "DNS:b.example", .kind = kinds[i]});
        ids[i] = identity(made[i]);
    }
    server.identities = ids;
    server.n_identities = LENGTH(ids);
    ours.config = config_of(&server);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    ASSERT_OK(hs_conn_adopt(fds[0], NULL, fresh(), &ours.c));
    raw = picky_new(ctx, p, fds[1]);
    shake_raw(&ours, raw);
    got = SSL_get0_peer_certificate(raw);
    if (p->want < 0) {
        ASSERT_ERR(HS_E_TLS, ours.rv);
        ck_assert_msg(ours.err.tls == HS_TLS_CIPHER, "%s", ours.err.msg);
    } else {
        ck_assert_msg(ours.rv == HS_OK, "%s", ours.err.msg);
        ck_assert_msg(X509_cmp(got, made[p->want]->cert) == 0, "another than %d", p->want);
    }
    SSL_set_shutdown(raw, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    raw_free(raw);
    hs_conn_close(ours.c, true);
    hs_conn_unref(ours.c);
    hs_tls_config_unref(ours.config);
    SSL_CTX_free(ctx);
    for (size_t i = 0; i < LENGTH(kinds); i++)
        cert_free(made[i]);
}
END_TEST

/* ---- Protocols ----------------------------------------------------------------------------- */

static const struct {
    const char *client, *server, *want;
} protocols[] = {
    {"\2h2\10http/1.1", "\10http/1.1\2h2", "http/1.1"}, /* the server's order */
    {"\2h2\10http/1.1", "\10http/1.1", "http/1.1"},
    {"\2h2", NULL, ""},
    {NULL, "\2h2", ""},
    {"\2h2", "\10http/1.1", NULL},
};

START_TEST(a_protocol_is_agreed_on_or_refused)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_config *a, *b;
    struct outcome o;

    client.alpn = (const uint8_t *)protocols[_i].client;
    client.alpn_len = protocols[_i].client != NULL ? strlen(protocols[_i].client) : 0;
    server.alpn = (const uint8_t *)protocols[_i].server;
    server.alpn_len = protocols[_i].server != NULL ? strlen(protocols[_i].server) : 0;
    meet(&o, a = config_of(&client), b = config_of(&server), "a.example");
    if (protocols[_i].want == NULL) {
        ASSERT_ERR(HS_E_TLS, o.server.rv);
        ck_assert_int_eq(o.server.err.tls, HS_TLS_ALPN);
        ASSERT_ERR(HS_E_TLS, o.client.rv);
        ck_assert_int_eq(o.client.err.alert, SSL_AD_NO_APPLICATION_PROTOCOL);
    } else {
        ASSERT_OK(o.client.rv);
        ck_assert_str_eq(o.info.alpn, protocols[_i].want);
    }
    part(&o);
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
}
END_TEST

/* ---- Sessions ------------------------------------------------------------------------------ */

START_TEST(a_session_is_resumed_under_its_name_only)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_config *a, *b;

    only_version(&client, versions[_i]);
    a = config_of(&client);
    b = config_of(&server);
    ck_assert(!meet_briefly(a, b, "a.example"));
    ck_assert_uint_gt(hs_tls_config_sessions(a), 0);
    ck_assert(!meet_briefly(a, b, "x.wild.example"));
    for (int i = 0; i < 5; i++)
        ck_assert(meet_briefly(a, b, "a.example"));
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
}
END_TEST

START_TEST(a_session_of_tls_1_3_is_used_once)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_config *a, *b;
    struct outcome o;
    size_t kept;

    server.tickets = 3;
    a = config_of(&client);
    b = config_of(&server);
    ck_assert(!meet_briefly(a, b, "a.example"));
    kept = hs_tls_config_sessions(a);
    ck_assert_uint_eq(kept, 3);
    for (size_t i = 1; i <= kept; i++) {
        meet(&o, a, b, "a.example"); /* and does not take in the new tickets */
        ck_assert(o.info.resumed);
        hs_conn_close(o.p.server, true);
        hs_conn_close(o.p.client, true);
        part(&o);
        ck_assert_uint_eq(hs_tls_config_sessions(a), kept - i);
    }
    ck_assert(!meet_briefly(a, b, "a.example"));
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
}
END_TEST

enum off { OFF_CLIENT, OFF_SERVER, OFF_TICKETS, OFFS };

START_TEST(sessions_can_be_off)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_config *a, *b;

    only_version(&client, versions[_i % 2]);
    client.sessions = _i / 2 != OFF_CLIENT;
    server.sessions = _i / 2 != OFF_SERVER;
    server.tickets = _i / 2 == OFF_TICKETS ? 0 : 2;
    a = config_of(&client);
    b = config_of(&server);
    for (int i = 0; i < 3; i++)
        ck_assert(!meet_briefly(a, b, "a.example"));
    ck_assert_uint_eq(hs_tls_config_sessions(a), 0);
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
}
END_TEST

/* Rule 31: the one who fails under that name now is not believed for what was there before. */
START_TEST(a_failed_handshake_forgets_the_name)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_config *a, *b, *c;
    struct hs_tls_identity other = identity(world.second);
    struct outcome o;

    only_version(&client, versions[_i]);
    a = config_of(&client);
    b = config_of(&server);
    server.identities = &other;
    c = config_of(&server);
    (void)meet_briefly(a, b, "a.example");
    ck_assert_uint_gt(hs_tls_config_sessions(a), 0);
    meet(&o, a, c, "a.example"); /* cannot open the ticket, and has another certificate */
    ASSERT_ERR(HS_E_CERTIFICATE, o.client.rv);
    part(&o);
    ck_assert_uint_eq(hs_tls_config_sessions(a), 0);
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
    hs_tls_config_unref(c);
}
END_TEST

/* The chain was checked once, and with it the staple. */
START_TEST(a_resumed_handshake_skips_the_staple)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_identity id = identity(world.leaf);
    struct hs_tls_config *a, *b;
    struct outcome o;
    size_t len;
    uint8_t *der = staple_make(&(struct staple_spec){.about = world.leaf,
                                                     .issuer = world.root,
                                                     .status = V_OCSP_CERTSTATUS_GOOD,
                                                     .this_update_s = -60,
                                                     .next_update_s = 60},
                               &len);

    id.ocsp = (struct hs_tls_source){.data = der, .len = len};
    server.identities = &id;
    client.ocsp = HS_TLS_OCSP_REQUIRE;
    only_version(&client, versions[_i]);
    a = config_of(&client);
    b = config_of(&server);
    ck_assert(!meet_briefly(a, b, "a.example"));
    meet(&o, a, b, "a.example");
    ASSERT_OK(o.client.rv);
    ck_assert(o.info.resumed && o.info.verified);
    ck_assert_int_eq(o.info.ocsp, HS_OCSP_SKIPPED);
    part(&o);
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
    free(der);
}
END_TEST

START_TEST(the_store_keeps_few_and_drops_the_oldest)
{
    struct tls_limits limit;
    struct hs_tls_sessions *s = hs_tls_sessions_new();
    SSL_SESSION *taken, *last = NULL;
    char key[32];

    for (int i = 0; i < 300; i++)
        for (int j = 0; j < 6; j++) {
            SSL_SESSION *session = SSL_SESSION_new();

            (void)snprintf(key, sizeof(key), "%d@place", i);
            ck_assert_int_eq(SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION), 1);
            ck_assert_int_eq(
                SSL_SESSION_set1_id(session, (const unsigned char *)&(int){j}, sizeof(int)), 1);
            (void)SSL_SESSION_set_timeout(session, 100);
            hs_tls_sessions_keep(s, key, session, &(struct tls_limits){HS_NEVER, INT64_MAX});
            last = session;
        }
    ck_assert_uint_le(hs_tls_sessions_count(s), 256 * 4);
    ck_assert_ptr_null(hs_tls_sessions_take(s, "0@place", &limit)); /* It had to make room. */
    taken = hs_tls_sessions_take(s, "299@place", &limit);
    ck_assert(taken == last || taken == NULL); /* The newest; without a ticket it is of no use. */
    SSL_SESSION_free(taken);
    hs_tls_sessions_forget(s, "298@place");
    ck_assert_ptr_null(hs_tls_sessions_take(s, "298@place", &limit));
    hs_tls_sessions_free(s);
}
END_TEST

/* ---- Tickets ------------------------------------------------------------------------------- */

struct sealed {
    unsigned char name[16], iv[EVP_MAX_IV_LENGTH];
};

static int
ask_key(struct hs_tls_tickets *t, int64_t now, struct sealed *s, int enc)
{
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *mac = EVP_MAC_CTX_new(hmac);
    int result = hs_tls_tickets_key(t, now, s->name, s->iv, cipher, mac, enc);

    EVP_MAC_CTX_free(mac);
    EVP_MAC_free(hmac);
    EVP_CIPHER_CTX_free(cipher);
    return result;
}

/* Each key seals for half a lifetime, and opens for one more lifetime after that. */
START_TEST(ticket_keys_are_replaced)
{
    int64_t made = hs_now(), half = made + 50 * SECOND, later = half + 30 * SECOND;
    struct hs_tls_tickets *t = hs_tls_tickets_new(100, made),
                          *other = hs_tls_tickets_new(100, made);
    struct sealed first, second, third;

    ck_assert_int_eq(ask_key(t, made, &first, 1), 1);
    ck_assert_int_eq(ask_key(t, half - 1, &first, 0), 1);
    ck_assert_int_eq(ask_key(other, half - 1, &first, 0), 0);
    ck_assert_int_eq(ask_key(t, half, &first, 0), 2); /* opens still, and has it sealed anew */
    ck_assert_int_eq(ask_key(t, later, &second, 1), 1);
    ck_assert_mem_ne(first.name, second.name, sizeof(first.name));
    ck_assert_int_eq(ask_key(t, half + 50 * SECOND, &third, 1), 1);
    ck_assert_int_eq(ask_key(t, made + 150 * SECOND - 1, &first, 0), 2);
    ck_assert_int_eq(ask_key(t, made + 150 * SECOND + 1, &first, 0), 0);
    ck_assert_int_eq(ask_key(t, made + 150 * SECOND + 1, &second, 0), 2);
    hs_tls_tickets_unref(t);
    hs_tls_tickets_unref(other);
}
END_TEST

/* Nobody asked for a long time: the old key is no better for that. */
START_TEST(a_key_that_nobody_asked_for_is_wiped_all_the_same)
{
    int64_t made = hs_now();
    struct hs_tls_tickets *t = hs_tls_tickets_new(100, made),
                          *young = hs_tls_tickets_new(100, made);
    struct sealed s, y;

    ck_assert_int_eq(ask_key(t, made, &s, 1), 1);
    ck_assert_int_eq(ask_key(t, made + 150 * SECOND + 1, &s, 0), 0);
    ck_assert_int_eq(ask_key(young, made, &y, 1), 1);
    ck_assert_int_eq(ask_key(young, made + 150 * SECOND, &y, 0), 2);
    hs_tls_tickets_unref(t);
    hs_tls_tickets_unref(young);
}
END_TEST

/* ---- Reloading ----------------------------------------------------------------------------- */

START_TEST(a_reload_changes_what_begins_later)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_config *a = config_of(&client), *b = config_of(&server);
    struct hs_tls_identity other = identity(world.second);
    struct outcome o, p;

    o = (struct outcome){.p = plain_pair(false)};
    o.client = (struct shaking){.c = o.p.client, .config = a, .name = "a.example"};
    o.server = (struct shaking){.c = o.p.server, .config = b};
    ASSERT_ERR(HS_WANT, shake_step(&o.client));
    (void)shake_step(&o.server);
    server.identities = &other;
    server.handshake_timeout_ns = 3 * SECOND;
    ck_assert_int_eq(hs_tls_config_handshake_timeout(b), 10 * SECOND);
    ASSERT_OK(hs_tls_config_reload(b, &server, fresh()));
    ck_assert_int_eq(hs_tls_config_handshake_timeout(b), 3 * SECOND);
    handshake_both(&o.client, &o.server); /* goes on with what it began with */
    ASSERT_OK(o.client.rv);
    meet(&p, a, b, "b.example");
    ASSERT_OK(p.client.rv);
    part(&o);
    part(&p);
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
}
END_TEST

START_TEST(a_reload_that_fails_changes_nothing)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_config *a = config_of(&client), *b = config_of(&server);

    ASSERT_ERR(HS_E_INVALID, hs_tls_config_reload(a, &server, fresh()));
    with_another_key(&server);
    server.handshake_timeout_ns = 3 * SECOND;
    ASSERT_ERR(HS_E_INVALID, hs_tls_config_reload(b, &server, fresh()));
    ck_assert_int_eq(hs_tls_config_handshake_timeout(b), 10 * SECOND);
    ck_assert(!meet_briefly(a, b, "a.example"));
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
}
END_TEST

/* A resumed session stands for a certificate that the new settings might refuse. */
START_TEST(tickets_outlive_a_reload_but_not_with_client_certificates)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_source root = pem(world.root->chain);
    struct hs_tls_identity id = identity(world.client);
    struct hs_tls_config *a, *b;

    only_version(&client, versions[_i % 2]);
    if (_i / 2) {
        server.cas = &root;
        server.n_cas = 1;
        server.certs = HS_TLS_CERTS_REQUIRED;
        client.identities = &id;
        client.n_identities = 1;
    }
    a = config_of(&client);
    b = config_of(&server);
    (void)meet_briefly(a, b, "a.example");
    ck_assert(meet_briefly(a, b, "a.example"));
    ASSERT_OK(hs_tls_config_reload(b, &server, fresh()));
    ck_assert(meet_briefly(a, b, "a.example") == (_i / 2 == 0));
    ASSERT_OK(hs_tls_config_reload(a, &client, fresh()));
    ck_assert_uint_eq(hs_tls_config_sessions(a), 0);
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
}
END_TEST

/* ---- The log of secrets --------------------------------- */

START_TEST(secrets_are_logged_only_when_asked)
{
    char path[64], text[4096] = "";
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_config *a, *b;
    struct stat st;
    FILE *f;
    size_t n;

    (void)snprintf(path, sizeof(path), "/tmp/hardsock-test-%d.log", getpid());
    client.insecure_key_log = path;
    a = config_of(&client);
    b = config_of(&server);
    (void)meet_briefly(a, b, "a.example");
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0600);
    f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    n = fread(text, 1, sizeof(text) - 1, f);
    ck_assert_uint_gt(n, 100);
    (void)fclose(f);
    (void)unlink(path);
    ck_assert(strstr(text, "CLIENT_TRAFFIC_SECRET_0 ") != NULL);
    ck_assert(text[n - 1] == '\n');
    hs_tls_config_unref(a);
    hs_tls_config_unref(b);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("tls config");

    (void)signal(SIGPIPE, SIG_DFL);
    tls_world();
    tcase_add_loop_test(tc, wrong_settings_are_refused_by_name, 0, LENGTH(refusals));
    tcase_add_test(tc, a_server_needs_a_certificate_and_authorities_to_judge_by);
    tcase_add_test(tc, a_key_may_be_encrypted);
    tcase_add_test(tc, der_is_as_good_as_pem);
    tcase_add_loop_test(tc, a_server_presents_what_the_client_can_verify, 0, LENGTH(picky));
    tcase_add_loop_test(tc, a_server_presents_what_fits_the_name, 0, 2);
    tcase_add_loop_test(tc, a_protocol_is_agreed_on_or_refused, 0, LENGTH(protocols));
    tcase_add_loop_test(tc, a_session_is_resumed_under_its_name_only, 0, 2);
    tcase_add_test(tc, a_session_of_tls_1_3_is_used_once);
    tcase_add_loop_test(tc, sessions_can_be_off, 0, 2 * OFFS);
    tcase_add_loop_test(tc, a_failed_handshake_forgets_the_name, 0, 2);
    tcase_add_loop_test(tc, a_resumed_handshake_skips_the_staple, 0, 2);
    tcase_add_test(tc, the_store_keeps_few_and_drops_the_oldest);
    tcase_add_test(tc, ticket_keys_are_replaced);
    tcase_add_test(tc, a_key_that_nobody_asked_for_is_wiped_all_the_same);
    tcase_add_test(tc, a_reload_changes_what_begins_later);
    tcase_add_test(tc, a_reload_that_fails_changes_nothing);
    tcase_add_loop_test(tc, tickets_outlive_a_reload_but_not_with_client_certificates, 0, 4);
    tcase_add_test(tc, secrets_are_logged_only_when_asked);
    return run_case(tc);
}
