/* test_tls_verify.c: which certificates are believed, and what is said about the others.
 *
 * Names, chains, dates, revocation by list and by staple, certificates of clients; certificates
 * that were made to hurt the one who reads them.
 */
#include "support_tls.h"

#include <openssl/x509_vfy.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const int versions[] = {HS_TLS_1_2, HS_TLS_1_3};

/* ---- What a library does with staples ------------------------------------------------------ */

/* Some versions of OpenSSL staple only what they take for a response about the certificate. Here
 * a client is handed what a test wants, and libraries that hand over or send nothing are played. */
static struct {
    const uint8_t *handed;
    size_t len;
    bool hand_over_nothing, send_nothing;
} library;

long __real_SSL_ctrl(SSL *ssl, int cmd, long number, void *pointer);
long __wrap_SSL_ctrl(SSL *ssl, int cmd, long number, void *pointer);

/* In place of libssl's own, which does the rest. */
long
__wrap_SSL_ctrl(SSL *ssl, int cmd, long number, void *pointer)
{
    if (cmd == SSL_CTRL_GET_TLSEXT_STATUS_REQ_OCSP_RESP && library.hand_over_nothing)
        return -1;
    if (cmd == SSL_CTRL_GET_TLSEXT_STATUS_REQ_OCSP_RESP && library.handed != NULL) {
        *(const uint8_t **)pointer = library.handed;
        return (long)library.len;
    }
    if (cmd == SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP && library.send_nothing) {
        OPENSSL_free(pointer);
        return 1;
    }
    return __real_SSL_ctrl(ssl, cmd, number, pointer);
}

/* One handshake of two ends with these settings. */
struct outcome {
    struct tls_pair p;
    struct shaking client, server;
    struct hs_tls_info info, server_info;
};

static void
meet(struct outcome *o, const struct hs_tls_options *client, const struct hs_tls_options *server,
     const char *name)
{
    *o = (struct outcome){.p = plain_pair(false)};
    o->client = (struct shaking){.c = o->p.client, .config = config_of(client), .name = name};
    o->server = (struct shaking){.c = o->p.server, .config = config_of(server)};
    handshake_both(&o->client, &o->server);
    (void)hs_conn_tls_info(o->p.client, &o->info);
    (void)hs_conn_tls_info(o->p.server, &o->server_info);
}

static void
part(struct outcome *o)
{
    hs_conn_abandon(o->p.client, &o->client.op, NULL);
    hs_conn_abandon(o->p.server, &o->server.op, NULL);
    hs_tls_config_unref(o->client.config);
    hs_tls_config_unref(o->server.config);
    tls_pair_free(&o->p);
}

/* A server with this certificate, met by the usual client. */
static void
meet_server(struct outcome *o, const struct made *m, const char *name)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_identity id = identity(m);

    server.identities = &id;
    meet(o, &client, &server, name);
}

static void
assert_refused(struct outcome *o, int verify, const char *words)
{
    ck_assert_msg(o->client.rv == HS_E_CERTIFICATE, "%s: %s", hs_err_text(o->client.rv),
                  o->client.err.msg);
    ck_assert_int_eq(o->client.err.tls, HS_TLS_VERIFY);
    ck_assert_msg(o->client.err.verify == verify, "%d: %s", o->client.err.verify,
                  o->client.err.msg);
    ck_assert_msg(strstr(o->client.err.msg, words) != NULL, "'%s' is not in: %s", words,
                  o->client.err.msg);
    ck_assert_int_eq(o->server.rv, HS_E_TLS); /* it is told */
    ck_assert_int_eq(o->server.err.tls, HS_TLS_ALERT);
}

/* ---- Names --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    bool want;
    const char *want_sni;
} names[] = {
    {"a.example", true, "a.example"},
    {"A.Example", true, "A.Example"},
    {"a.example.", true, "a.example"},
    {"x.wild.example", true, "x.wild.example"},
    {"127.0.0.1", true, ""},
    {"127.0.0.1.", true, ""},
    {"::1", true, ""},
    {"0:0::1", true, ""},
    {"::1%lo", true, ""},
    {"::1%lo0", true, ""},
    {"my_host.wild.example", true, "my_host.wild.example"},
    {"_a.wild.example.", true, "_a.wild.example"},
    {"my_host.example", false, "my_host.example"},
    {"my_host.x.wild.example", false, "my_host.x.wild.example"},
    {"x.my_host.wild.example", false, "x.my_host.wild.example"},
    {"a_example", false, "a_example"},
    {"b.example", false, "b.example"},
    {"leaf", false, "leaf"}, /* its CN */
    {"wild.example", false, "wild.example"},
    {"x.y.wild.example", false, "x.y.wild.example"},
    {"127.0.0.2", false, ""},
    {"::2", false, ""},
    {"a.example.other", false, "a.example.other"},
    {"a.example%lo", false, "a.example%lo"},
    {"[::1]", false, "[::1]"},
};

START_TEST(a_certificate_is_for_its_names_only)
{
    struct outcome o;

    meet_server(&o, world.leaf, names[_i].name);
    if (names[_i].want) {
        ck_assert_msg(o.client.rv == HS_OK, "%s: %s", names[_i].name, o.client.err.msg);
        ck_assert_str_eq(o.server_info.server_name, names[_i].want_sni);
        ck_assert(o.info.verified);
    } else {
        assert_refused(&o,
                       names[_i].want_sni[0] != '\0' ? X509_V_ERR_HOSTNAME_MISMATCH
                                                     : X509_V_ERR_IP_ADDRESS_MISMATCH,
                       "certificate is for a.example, *.wild.example");
    }
    part(&o);
}
END_TEST

static const uint8_t odd_address[] = {0x30, 0x03, 0x87, 0x01, 0x7f}; /* an address of one byte */
static const uint8_t no_address[] = {0x30, 0x02, 0x87, 0x00};
static const uint8_t nul_name[] = {0x30, 0x12, 0x82, 0x10, 'a', '.', 'e', 'x', 'a', 'm',
                                   'p',  'l',  'e',  0,    '.', 'e', 'v', 'i', 'l', '.'};
static const uint8_t line_ends[] = {0x30, 0x08, 0x82, 0x06, 'x', '\n', 0x1b, '[', 0xff, 'y'};

static const struct {
    const char *title, *cn, *names;
    const uint8_t *san;
    size_t san_len;
    const char *want;
} bad_names[] = {
    {"a common name only", "a.example", NULL, NULL, 0, "no name at all"},
    {"a wildcard within", "x", "DNS:a*.example,DNS:*", NULL, 0, "a*.example, *"},
    {"an address of one byte", "x", NULL, odd_address, sizeof(odd_address), "no address"},
    {"an address of none", "x", NULL, no_address, sizeof(no_address), "no address"},
    {"a NUL", "x", NULL, nul_name, sizeof(nul_name), "a.example?.evil."},
    {"line ends", "x", NULL, line_ends, sizeof(line_ends), "x??[?y"},
    {"other kinds", "x", "email:a@a.example,URI:https://a.example/", NULL, 0, "no name at all"},
    {"many", "x",
     "DNS:one.example,DNS:two.example,DNS:three.example,DNS:four.example,DNS:five.example", NULL, 0,
     "and 2 more"},
};

START_TEST(names_that_are_none_are_not_believed)
{
    struct made *m = cert_make(&(struct cert_spec){.cn = bad_names[_i].cn,
                                                   .names = bad_names[_i].names,
                                                   .issuer = world.root,
                                                   .san = bad_names[_i].san,
                                                   .san_len = bad_names[_i].san_len});
    struct outcome o;

    meet_server(&o, m, "a.example");
    assert_refused(&o, X509_V_ERR_HOSTNAME_MISMATCH, bad_names[_i].want);
    for (const char *c = o.client.err.msg; *c != '\0'; c++)
        ck_assert_msg(*c >= 0x20 && *c < 0x7f, "%s", o.client.err.msg);
    part(&o);
    cert_free(m);
}
END_TEST

/* A client may send anything as the name that it asks for. */
START_TEST(a_name_asked_for_that_is_none_is_not_shown)
{
    struct hs_tls_options server = server_options();
    struct pair p = pair_unix();
    SSL_CTX *ctx = raw_context(false);
    SSL *raw = raw_new(ctx, p.peer, false);
    struct shaking s = {.c = p.c, .config = config_of(&server)};
    struct hs_tls_info info;

    ck_assert_int_eq(SSL_set_tlsext_host_name(raw, "a\xff\n.example"), 1);
    shake_raw(&s, raw);
    ASSERT_OK(s.rv);
    ck_assert(hs_conn_tls_info(p.c, &info));
    ck_assert_str_eq(info.server_name, "");
    raw_free(raw);
    SSL_CTX_free(ctx);
    hs_tls_config_unref(s.config);
    hs_conn_unref(p.c);
}
END_TEST

/* ---- Chains -------------------------------------------------------------------------------- */

static const struct {
    const char *title;
    struct cert_spec spec;
    bool other_root, itself;
    int want;
    const char *want_words;
} bad_certs[] = {
    {"expired",
     {.names = "DNS:a.example", .from_days = -30, .to_days = -3},
     false,
     false,
     X509_V_ERR_CERT_HAS_EXPIRED,
     "certificate for a.example expired 3 days ago ("},
    {"not yet",
     {.names = "DNS:a.example", .from_days = 5, .to_days = 9},
     false,
     false,
     X509_V_ERR_CERT_NOT_YET_VALID,
     "is valid only in "},
    {"of another root",
     {.names = "DNS:a.example"},
     true,
     false,
     X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
     "has an issuer that is not known here: "},
    {"self-signed",
     {.names = "DNS:a.example"},
     false,
     true,
     X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
     "certificate for a.example is self-signed"},
    {"a short key",
     {.names = "DNS:a.example", .kind = KEY_RSA_1024},
     false,
     false,
     X509_V_ERR_EE_KEY_TOO_SMALL,
     "a.example"},
};

START_TEST(bad_certificates_are_refused_with_the_reason)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct cert_spec spec = bad_certs[_i].spec;
    struct hs_tls_identity id;
    struct outcome o;
    struct made *m;

    spec.cn = "bad";
    spec.issuer = bad_certs[_i].itself       ? NULL
                  : bad_certs[_i].other_root ? world.other_root
                                             : world.root;
    m = cert_make(&spec);
    id = identity(m);
    server.identities = &id;
    if (spec.kind == KEY_RSA_1024)
        server.insecure_ciphers = "DEFAULT"; /* or the server would refuse to use it */
    meet(&o, &client, &server, "a.example");
    assert_refused(&o, bad_certs[_i].want, bad_certs[_i].want_words);
    part(&o);
    cert_free(m);
}
END_TEST

/* What is usually wrong, and what may be done about it. */
static const struct {
    const char *asked;
    struct cert_spec spec;
    enum { BY_ROOT, BY_OTHER_ROOT, BY_ITSELF } by;
    enum hs_tls_flaw want;
    const char *want_hint;
} flaws[] = {
    {"127.0.0.1", {.names = "DNS:a.example"}, BY_ROOT, HS_TLS_FLAW_NO_ADDRESS, "server_name"},
    {"::1", {.names = "DNS:a.example"}, BY_ROOT, HS_TLS_FLAW_NO_ADDRESS, "server_name"},
    {"127.0.0.1", {.names = "IP:127.0.0.2"}, BY_ROOT, HS_TLS_FLAW_NONE, ""},
    {"127.0.0.1",
     {.names = "DNS:a.example,DNS:127.0.0.1"},
     BY_ROOT,
     HS_TLS_FLAW_ADDRESS_AS_NAME,
     "IP entry"},
    {"127.0.0.1", {.cn = "127.0.0.1"}, BY_ROOT, HS_TLS_FLAW_COMMON_NAME, "subjectAltName"},
    {"a.example", {.cn = "a.example"}, BY_ROOT, HS_TLS_FLAW_COMMON_NAME, "subjectAltName"},
    {"a.example", {.names = NULL}, BY_ROOT, HS_TLS_FLAW_NONE, ""},
    {"a.example", {.names = "DNS:b.example"}, BY_ROOT, HS_TLS_FLAW_NONE, ""},
    {"a.example", {.names = "DNS:*.A.example"}, BY_ROOT, HS_TLS_FLAW_WILDCARD, "one label"},
    {"x.y.a.example.", {.names = "DNS:*.a.example"}, BY_ROOT, HS_TLS_FLAW_WILDCARD, "one label"},
    {"x.ba.example", {.names = "DNS:*.a.example"}, BY_ROOT, HS_TLS_FLAW_NONE, ""},
    {"a.example", {.names = "DNS:a.example"}, BY_OTHER_ROOT, HS_TLS_FLAW_ISSUER, "as ca"},
    {"a.example", {.names = "DNS:a.example"}, BY_ITSELF, HS_TLS_FLAW_SELF_SIGNED, "as ca"},
    {"a.example",
     {.names = "DNS:a.example", .from_days = 1, .to_days = 2},
     BY_ROOT,
     HS_TLS_FLAW_EARLY,
     "clock"},
};

START_TEST(usual_mistakes_come_with_advice)
{
    struct cert_spec spec = flaws[_i].spec;
    struct outcome o;
    struct made *m;
    char hint[400];

    spec.issuer = flaws[_i].by == BY_ROOT         ? world.root
                  : flaws[_i].by == BY_OTHER_ROOT ? world.other_root
                                                  : NULL;
    if (spec.issuer == NULL)
        spec.cn = "itself";
    m = cert_make(&spec);
    meet_server(&o, m, flaws[_i].asked);
    ASSERT_ERR(HS_E_CERTIFICATE, o.client.rv);
    ck_assert_int_eq(o.client.err.flaw, flaws[_i].want);
    (void)hs_hint(&o.client.err, 0, NULL, hint, sizeof(hint));
    if (flaws[_i].want == HS_TLS_FLAW_NONE)
        ck_assert_str_eq(hint, "");
    else
        ck_assert_msg(strstr(hint, flaws[_i].want_hint) != NULL, "%s", hint);
    part(&o);
    cert_free(m);
}
END_TEST

/* The message must be whole when names are as long as they may be. */
START_TEST(long_names_are_cut_and_nothing_else)
{
    char name[254], san[300], cn[65];
    struct made *m;
    struct outcome o;

    memset(name, 'n', sizeof(name) - 1);
    name[253] = '\0';
    for (int i = 60; i < 253; i += 60)
        name[i] = '.';
    memset(cn, 'c', 64);
    cn[64] = '\0';
    (void)snprintf(san, sizeof(san), "DNS:%s", name);
    m = cert_make(&(struct cert_spec){
        .cn = cn, .names = san, .issuer = world.root, .from_days = -9, .to_days = -2});
    meet_server(&o, m, name);
    assert_refused(&o, X509_V_ERR_CERT_HAS_EXPIRED, " expired 2 days ago (");
    ck_assert(strstr(o.client.err.msg, "issuer CN=Test Root") != NULL);
    part(&o);
    cert_free(m);
}
END_TEST

START_TEST(an_intermediate_has_to_be_sent)
{
    struct made *middle =
        cert_make(&(struct cert_spec){.cn = "Middle", .ca = true, .issuer = world.root});
    struct made *m =
        cert_make(&(struct cert_spec){.cn = "x", .names = "DNS:a.example", .issuer = middle});
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_identity id = identity(m);
    char *end;
    struct outcome o;

    server.identities = &id;
    meet(&o, &client, &server, "a.example");
    ASSERT_OK(o.client.rv);
    ck_assert_uint_eq(hs_conn_tls_chain_length(o.p.client), 2);
    part(&o);
    end = strstr(m->chain, "-----END CERTIFICATE-----\n");
    id.chain.len = (size_t)(end - m->chain) + 26;
    meet(&o, &client, &server, "a.example");
    assert_refused(&o, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
                   "an intermediate was not sent");
    part(&o);
    cert_free(m);
    cert_free(middle);
}
END_TEST

START_TEST(a_certificate_may_be_trusted_by_itself)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct made *alone = cert_make(&(struct cert_spec){.cn = "x", .names = "DNS:a.example"});
    struct hs_tls_identity id = identity(_i ? alone : world.leaf);
    struct hs_tls_source own = pem(_i ? alone->chain : world.leaf->chain);
    struct outcome o;

    client.cas = &own;
    server.identities = &id;
    meet(&o, &client, &server, "a.example");
    ASSERT_OK(o.client.rv);
    part(&o);
    meet(&o, &client, &server, "b.example"); /* for its names */
    ck_assert_int_eq(o.client.err.verify, X509_V_ERR_HOSTNAME_MISMATCH);
    part(&o);
    cert_free(alone);
}
END_TEST

START_TEST(skipping_the_name_still_checks_the_chain)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_identity id = identity(world.stranger);
    struct outcome o;

    client.insecure_skip_hostname = true;
    meet(&o, &client, &server, "other.example");
    ASSERT_OK(o.client.rv);
    ck_assert(o.info.verified);
    part(&o);
    meet(&o, &client, &server, NULL);
    ASSERT_OK(o.client.rv);
    part(&o);
    server.identities = &id;
    meet(&o, &client, &server, "other.example");
    ASSERT_ERR(HS_E_CERTIFICATE, o.client.rv);
    part(&o);
}
END_TEST

START_TEST(skipping_verification_takes_anybody_and_says_so)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_identity id = identity(world.stranger);
    struct outcome o;

    client.insecure_skip_verify = true;
    server.identities = &id;
    meet(&o, &client, &server, "other.example");
    ASSERT_OK(o.client.rv);
    ck_assert(!o.info.verified);
    ck_assert_uint_eq(hs_tls_config_sessions(o.client.config), 0); /* nothing to be resumed */
    part(&o);
}
END_TEST

/* ---- Revocation ---------------------------------------------------------------------------- */

START_TEST(a_revocation_list_is_obeyed)
{
    const struct made *const revoked[] = {world.leaf};
    char *lists[] = {crl_make(world.root, revoked, 1), crl_make(world.root, NULL, 0),
                     crl_make(world.other_root, NULL, 0)};
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_source crl = pem(lists[_i]);
    struct outcome o;

    client.crls = &crl;
    client.n_crls = 1;
    meet(&o, &client, &server, "a.example");
    if (_i == 0)
        assert_refused(&o, X509_V_ERR_CERT_REVOKED, "certificate for a.example is revoked");
    else if (_i == 1)
        ASSERT_OK(o.client.rv);
    else
        assert_refused(&o, X509_V_ERR_UNABLE_TO_GET_CRL, "a.example");
    part(&o);
    for (size_t i = 0; i < LENGTH(lists); i++)
        free(lists[i]);
}
END_TEST

enum signer { BY_ISSUER, BY_DELEGATE, BY_LEAF, BY_STRANGER, BY_COLLEAGUE };

static const struct {
    const char *title;
    int status;
    long this_s, next_s;
    enum signer signer;
    bool other_cert, damaged;
    int want; /* X509_V_ERR_*, 0: good */
    const char *want_words;
} staples[] = {
    {"good", V_OCSP_CERTSTATUS_GOOD, -60, 3600, BY_ISSUER, false, false, 0, ""},
    {"good, by a delegate", V_OCSP_CERTSTATUS_GOOD, -60, 3600, BY_DELEGATE, false, false, 0, ""},
    {"good, without an end", V_OCSP_CERTSTATUS_GOOD, -86400, 0, BY_ISSUER, false, false, 0, ""},
    {"good, clocks differ", V_OCSP_CERTSTATUS_GOOD, 200, 3600, BY_ISSUER, false, false, 0, ""},
    {"revoked", V_OCSP_CERTSTATUS_REVOKED, -60, 3600, BY_ISSUER, false, false,
     X509_V_ERR_CERT_REVOKED, "revoked, says its OCSP responder (keyCompromise)"},
    {"unknown", V_OCSP_CERTSTATUS_UNKNOWN, -60, 3600, BY_ISSUER, false, false,
     X509_V_ERR_OCSP_CERT_UNKNOWN, "does not know it"},
    {"old", V_OCSP_CERTSTATUS_GOOD, -7200, -3600, BY_ISSUER, false, false,
     X509_V_ERR_OCSP_VERIFY_FAILED, "out of date"},
    {"old, without an end", V_OCSP_CERTSTATUS_GOOD, -15 * 86400, 0, BY_ISSUER, false, false,
     X509_V_ERR_OCSP_VERIFY_FAILED, "out of date"},
    {"of tomorrow", V_OCSP_CERTSTATUS_GOOD, 86400, 90000, BY_ISSUER, false, false,
     X509_V_ERR_OCSP_VERIFY_FAILED, "out of date"},
    {"about another", V_OCSP_CERTSTATUS_GOOD, -60, 3600, BY_ISSUER, true, false,
     X509_V_ERR_OCSP_VERIFY_FAILED, "about another certificate"},
    {"by itself", V_OCSP_CERTSTATUS_GOOD, -60, 3600, BY_LEAF, false, false,
     X509_V_ERR_OCSP_VERIFY_FAILED, "no valid signature"},
    {"by a colleague", V_OCSP_CERTSTATUS_GOOD, -60, 3600, BY_COLLEAGUE, false, false,
     X509_V_ERR_OCSP_VERIFY_FAILED, "no valid signature"},
    {"by a stranger", V_OCSP_CERTSTATUS_GOOD, -60, 3600, BY_STRANGER, false, false,
     X509_V_ERR_OCSP_VERIFY_FAILED, "no valid signature"},
    {"damaged", V_OCSP_CERTSTATUS_GOOD, -60, 3600, BY_ISSUER, false, true,
     X509_V_ERR_OCSP_VERIFY_FAILED, "no valid signature"},
};

static uint8_t *
make_staple(size_t i, struct made *delegate, size_t *len)
{
    const struct made *const signers[] = {[BY_ISSUER] = NULL,
                                          [BY_DELEGATE] = delegate,
                                          [BY_LEAF] = world.leaf,
                                          [BY_COLLEAGUE] = world.second,
                                          [BY_STRANGER] = world.other_root};
    uint8_t *der = staple_make(
        &(struct staple_spec){.about = staples[i].other_cert ? world.second : world.leaf,
                              .issuer = world.root,
                              .signer = signers[staples[i].signer],
                              .status = staples[i].status,
                              .this_update_s = staples[i].this_s,
                              .next_update_s = staples[i].next_s,
                              .enclose = staples[i].signer != BY_ISSUER},
        len);

    if (staples[i].damaged)
        der[*len - 1] ^= 1; /* of the signature */
    return der;
}

/* What came, to each client from now on. The config is made before: it rehearses with its own. */
static void
hand_over(const uint8_t *der, size_t len)
{
    struct hs_tls_options client = client_options();

    hs_tls_config_unref(config_of(&client));
    library.handed = der;
    library.len = len;
}

START_TEST(staples_are_judged)
{
    size_t which = (size_t)_i / 2, len;
    struct made *delegate =
        cert_make(&(struct cert_spec){.cn = "OCSP", .issuer = world.root, .ocsp_signer = true});
    uint8_t *der = make_staple(which, delegate, &len);
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_identity id = identity(world.leaf);
    struct outcome o;

    if (staples[which].other_cert)
        hand_over(der, len);
    else
        id.ocsp = (struct hs_tls_source){.data = der, .len = len};
    server.identities = &id;
    only_version(&client, versions[_i % 2]);
    meet(&o, &client, &server, "a.example");
    if (staples[which].want == 0) {
        ck_assert_msg(o.client.rv == HS_OK, "%s: %s", staples[which].title, o.client.err.msg);
        ck_assert_int_eq(o.info.ocsp, HS_OCSP_GOOD);
    } else {
        assert_refused(&o, staples[which].want, staples[which].want_words);
    }
    part(&o);
    client.ocsp = HS_TLS_OCSP_OFF;
    meet(&o, &client, &server, "a.example");
    ASSERT_OK(o.client.rv);
    ck_assert_int_eq(o.info.ocsp, HS_OCSP_NONE);
    part(&o);
    free(der);
    cert_free(delegate);
}
END_TEST

START_TEST(a_missing_staple_matters_when_somebody_says_so)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct made *strict = cert_make(&(struct cert_spec){
        .cn = "x", .names = "DNS:a.example", .issuer = world.root, .must_staple = true});
    struct hs_tls_identity id = identity(strict);
    struct outcome o;

    only_version(&client, versions[_i]);
    meet(&o, &client, &server, "a.example");
    ASSERT_OK(o.client.rv);
    ck_assert_int_eq(o.info.ocsp, HS_OCSP_NONE);
    part(&o);
    client.ocsp = HS_TLS_OCSP_REQUIRE;
    meet(&o, &client, &server, "a.example");
    assert_refused(&o, X509_V_ERR_OCSP_VERIFY_NEEDED, "one is required here");
    part(&o);
    client.ocsp = HS_TLS_OCSP_CHECK;
    server.identities = &id;
    meet(&o, &client, &server, "a.example");
    assert_refused(&o, X509_V_ERR_OCSP_VERIFY_NEEDED, "the certificate requires one");
    part(&o);
    cert_free(strict);
}
END_TEST

/* The one who issued it is not trusted here, so neither is what they say about it. */
START_TEST(a_staple_to_a_certificate_trusted_by_itself_is_not_judged)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_identity id = identity(world.leaf);
    struct hs_tls_source own = pem(world.leaf->chain);
    struct outcome o;
    size_t len;
    uint8_t *der = make_staple(0, NULL, &len);

    id.ocsp = (struct hs_tls_source){.data = der, .len = len};
    server.identities = &id;
    client.cas = &own;
    meet(&o, &client, &server, "a.example");
    ASSERT_OK(o.client.rv);
    ck_assert_int_eq(o.info.ocsp, HS_OCSP_SKIPPED);
    part(&o);
    client.ocsp = HS_TLS_OCSP_REQUIRE;
    meet(&o, &client, &server, "a.example");
    assert_refused(&o, X509_V_ERR_OCSP_VERIFY_NEEDED, "its issuer is not trusted here");
    part(&o);
    free(der);
}
END_TEST

START_TEST(a_self_signed_certificate_may_staple_for_itself)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct made *alone = cert_make(&(struct cert_spec){.cn = "x", .names = "DNS:a.example"});
    struct hs_tls_identity id = identity(alone);
    struct hs_tls_source own = pem(alone->chain);
    struct outcome o;
    size_t len;
    uint8_t *der = staple_make(
        &(struct staple_spec){.about = alone,
                              .issuer = alone,
                              .status = _i ? V_OCSP_CERTSTATUS_REVOKED : V_OCSP_CERTSTATUS_GOOD,
                              .this_update_s = -60,
                              .next_update_s = 60},
        &len);

    hand_over(der, len);
    server.identities = &id;
    client.cas = &own;
    meet(&o, &client, &server, "a.example");
    if (_i == 0)
        ck_assert_int_eq(o.info.ocsp, HS_OCSP_GOOD);
    else
        assert_refused(&o, X509_V_ERR_CERT_REVOKED, "revoked");
    part(&o);
    free(der);
    cert_free(alone);
}
END_TEST

/* Responses that an OpenSSL of today would not send, but another server may. */
START_TEST(what_openssl_would_not_send_is_judged_too)
{
    static const uint8_t try_later[] = {0x30, 0x03, 0x0a, 0x01, 0x03};
    const struct staple_spec by_sha256 = {
        .about = world.leaf, .issuer = world.root, .this_update_s = -60, .digest = "SHA256"};
    const struct staple_spec of_another_issuer = {.about = world.leaf,
                                                  .issuer = world.other_root,
                                                  .signer = world.root,
                                                  .this_update_s = -60};
    struct hs_tls_options client = client_options(), server = server_options();
    size_t len = sizeof(try_later);
    uint8_t *der = NULL;
    struct outcome o;

    if (_i / 2 < 2)
        der = staple_make(_i / 2 == 0 ? &by_sha256 : &of_another_issuer, &len);
    hand_over(der != NULL ? der : try_later, len);
    only_version(&client, versions[_i % 2]);
    meet(&o, &client, &server, "a.example");
    if (_i / 2 == 0)
        ck_assert_int_eq(o.info.ocsp, HS_OCSP_GOOD);
    else
        assert_refused(&o, X509_V_ERR_OCSP_VERIFY_FAILED,
                       _i / 2 == 1 ? "no valid signature" : "responder failed: trylater");
    part(&o);
    free(der);
}
END_TEST

static void
assert_no_config(const struct hs_tls_options *o, const char *words)
{
    struct hs_tls_config *config = NULL;
    struct hs_error err = {0};

    ASSERT_ERR(HS_E_INVALID, hs_tls_config_new(o, &err, &config));
    ck_assert_msg(strstr(err.msg, words) != NULL, "'%s' is not in: %s", words, err.msg);
    ck_assert_ptr_null(config);
}

START_TEST(a_library_that_hands_over_no_staple_is_found_out_when_a_config_is_made)
{
    struct hs_tls_options client = client_options();

    library.hand_over_nothing = true;
    for (int i = 0; i < 2; i++) {
        client.ocsp = i ? HS_TLS_OCSP_CHECK : HS_TLS_OCSP_REQUIRE;
        assert_no_config(&client, "ocsp: OpenSSL");
    }
    client.ocsp = HS_TLS_OCSP_OFF;
    hs_tls_config_unref(config_of(&client));
    client.ocsp = HS_TLS_OCSP_CHECK;
    client.insecure_skip_verify = true; /* nothing of it would be judged */
    hs_tls_config_unref(config_of(&client));
    library.hand_over_nothing = false; /* the answer was not kept */
    client.insecure_skip_verify = false;
    hs_tls_config_unref(config_of(&client));
}
END_TEST

START_TEST(a_library_that_does_not_send_a_staple_is_found_out_when_a_config_is_made)
{
    struct hs_tls_options server = server_options();
    struct hs_tls_identity ids[] = {identity(world.second), identity(world.leaf)};
    struct hs_error err = {0};
    struct hs_tls_config *config;
    size_t len;
    uint8_t *der = make_staple(0, NULL, &len);

    ids[1].ocsp = (struct hs_tls_source){.data = der, .len = len};
    server.identities = ids;
    server.n_identities = LENGTH(ids);
    config = config_of(&server);
    library.send_nothing = true;
    assert_no_config(&server, "ocsp_response: OpenSSL");
    ASSERT_ERR(HS_E_INVALID, hs_tls_config_reload(config, &server, &err)); /* all or nothing */
    ids[1].ocsp = (struct hs_tls_source){0};
    hs_tls_config_unref(config_of(&server));
    hs_tls_config_unref(config);
    free(der);
}
END_TEST

/* Sent, or refused when the config is made: never left out without a word. */
START_TEST(what_a_server_was_given_to_staple_is_sent_or_refused_at_once)
{
    struct made *alone = cert_make(&(struct cert_spec){.cn = "x", .names = "DNS:a.example"});
    const struct staple_spec specs[] = {
        {.about = world.leaf, .issuer = world.root},
        {.about = world.leaf, .issuer = world.root, .digest = "SHA256"},
        {.about = world.second, .issuer = world.root},
        {.about = alone, .issuer = alone},
    };
    struct hs_tls_options client = client_options(), server = server_options();
    struct hs_tls_identity id = identity(_i / 2 == 3 ? alone : world.leaf);
    struct staple_spec spec = specs[_i / 2];
    struct hs_tls_source own = pem(alone->chain);
    struct hs_tls_config *config = NULL;
    struct hs_error err = {0};
    struct outcome o;
    uint8_t *der;
    size_t len;

    spec.this_update_s = -60;
    spec.next_update_s = 60;
    der = staple_make(&spec, &len);
    id.ocsp = (struct hs_tls_source){.data = der, .len = len};
    server.identities = &id;
    client.cas = _i / 2 == 3 ? &own : client.cas;
    only_version(&server, versions[_i % 2]);
    if (hs_tls_config_new(&server, &err, &config) == HS_OK) {
        meet(&o, &client, &server, "a.example");
        ck_assert(o.client.rv != HS_OK || o.info.ocsp == HS_OCSP_GOOD);
        part(&o);
    } else {
        ck_assert_msg(strstr(err.msg, "would not send it") != NULL, "%s", err.msg);
        ck_assert_int_ne(_i / 2, 0);
    }
    hs_tls_config_unref(config);
    free(der);
    cert_free(alone);
}
END_TEST

/* ---- Certificates of clients --------------------------------------------------------------- */

static void
meet_client(struct outcome *o, const struct made *m, enum hs_tls_client_certs certs, int version)
{
    static struct hs_tls_source root;
    static struct hs_tls_identity id;
    struct hs_tls_options client = client_options(), server = server_options();

    root = pem(world.root->chain);
    server.cas = &root;
    server.n_cas = 1;
    server.certs = certs;
    only_version(&server, version);
    if (m != NULL) {
        id = identity(m);
        client.identities = &id;
        client.n_identities = 1;
    }
    meet(o, &client, &server, "a.example");
}

START_TEST(a_clients_certificate_is_checked)
{
    int version = versions[_i / 2];
    struct hs_op op = op_in(10 * SECOND);
    struct outcome o;

    meet_client(&o, world.client, _i % 2 ? HS_TLS_CERTS_REQUIRED : HS_TLS_CERTS_OPTIONAL, version);
    ASSERT_OK(o.client.rv);
    ASSERT_OK(o.server.rv);
    ck_assert(o.server_info.verified);
    ck_assert_uint_eq(hs_conn_tls_chain_length(o.p.server), 1);
    ASSERT_OK(DONE(hs_conn_confirm(o.p.client, &op, fresh())));
    carry(o.p.client, o.p.server, "after", 5);
    part(&o);
    meet_client(&o, NULL, HS_TLS_CERTS_OPTIONAL, version);
    ASSERT_OK(o.server.rv);
    ck_assert(!o.server_info.verified);
    part(&o);
}
END_TEST

/* With TLS 1.3 the client's handshake is over by then. */
START_TEST(a_client_that_is_refused_is_told_by_confirm)
{
    bool stranger = _i % 2;
    int version = versions[_i / 2];
    struct hs_op op = op_in(10 * SECOND);
    struct hs_error *err;
    struct outcome o;
    hs_err rv;

    meet_client(&o, stranger ? world.stranger : NULL, HS_TLS_CERTS_REQUIRED, version);
    ASSERT_ERR(HS_E_CERTIFICATE, o.server.rv);
    ck_assert_int_eq(o.server.err.tls, HS_TLS_VERIFY);
    rv = version == HS_TLS_1_2 ? o.client.rv : DONE(hs_conn_confirm(o.p.client, &op, fresh()));
    err = version == HS_TLS_1_2 ? &o.client.err : last_error();
    if (version == HS_TLS_1_3)
        ASSERT_OK(o.client.rv);
    ASSERT_ERR(HS_E_TLS, rv);
    ck_assert_int_eq(err->tls, HS_TLS_ALERT);
    ck_assert_int_eq(err->alert, stranger                ? SSL_AD_UNKNOWN_CA
                                 : version == HS_TLS_1_3 ? SSL_AD_CERTIFICATE_REQUIRED
                                                         : SSL_AD_HANDSHAKE_FAILURE);
    part(&o);
}
END_TEST

START_TEST(confirm_waits_for_the_servers_word)
{
    struct pump pump;
    struct tls_pair p = pumped_pair_without_tickets(&pump, HS_TLS_1_3);
    struct hs_op op = op_step(10 * SECOND);
    uint8_t buf[8];
    size_t n;

    ASSERT_ERR(HS_WANT, hs_conn_confirm(p.client, &op, fresh()));
    if (_i == 0) {
        pump_record(&pump, 1);
    } else {
        struct hs_op out = op_in(10 * SECOND);

        ASSERT_OK(DONE(hs_conn_send(p.server, &out, (const uint8_t *)"data", 4, fresh(), &n)));
        (void)pump_move(&pump, 1, SIZE_MAX);
    }
    ASSERT_OK(hs_conn_confirm(p.client, &op, fresh()));
    if (_i == 1) {
        op = op_in(10 * SECOND);
        ASSERT_OK(DONE(hs_conn_recv(p.client, &op, buf, sizeof(buf), 0, fresh(), &n)));
        ck_assert_mem_eq(buf, "data", 4);
    }
    op = op_in(20 * MS);
    ASSERT_OK(DONE(hs_conn_confirm(p.server, &op, fresh()))); /* It has nobody to wait for. */
    pump_free(&pump);
    tls_pair_free(&p);
}
END_TEST

/* ---- Facts --------------------------------------------------------------------------------- */

START_TEST(facts_of_a_certificate_can_be_read)
{
    struct tls_pair p = default_pair(false, 0);
    struct hs_tls_certificate c;
    uint8_t *der;
    size_t len;

    ASSERT_OK(hs_conn_tls_chain_copy(p.client, 0, &der, &len));
    ASSERT_ERR(HS_E_INVALID, hs_conn_tls_chain_copy(p.client, 1, NULL, NULL));
    ASSERT_OK(hs_tls_certificate_read(der, len, fresh(), &c));
    ck_assert_str_eq(c.subject, "CN=leaf");
    ck_assert_str_eq(c.issuer, "CN=Test Root");
    ck_assert_str_eq(c.names, "DNS:a.example\nDNS:*.wild.example\nIP:127.0.0.1\nIP:::1\n");
    ck_assert_uint_gt(strlen(c.serial), 2);
    ck_assert_int_eq(c.not_after - c.not_before, 91 * 86400);
    hs_tls_certificate_fini(&c);
    for (size_t n = 0; n < len; n++)
        ASSERT_ERR(HS_E_INVALID, hs_tls_certificate_read(der, n, fresh(), &c));
    free(der);
    tls_pair_free(&p);
}
END_TEST

START_TEST(hurtful_certificates_can_be_read)
{
    struct made *m =
        cert_make(&(struct cert_spec){.san = bad_names[_i].san, .san_len = bad_names[_i].san_len});
    struct hs_tls_certificate c;
    unsigned char *der = NULL;
    int len = i2d_X509(m->cert, &der);

    ASSERT_OK(hs_tls_certificate_read(der, (size_t)len, fresh(), &c));
    ck_assert_str_eq(c.subject, "");
    ck_assert_str_eq(c.names, "");
    hs_tls_certificate_fini(&c);
    OPENSSL_free(der);
    cert_free(m);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("tls verify");

    (void)signal(SIGPIPE, SIG_DFL);
    tls_world();
    tcase_add_loop_test(tc, a_certificate_is_for_its_names_only, 0, LENGTH(names));
    tcase_add_loop_test(tc, names_that_are_none_are_not_believed, 0, LENGTH(bad_names));
    tcase_add_test(tc, a_name_asked_for_that_is_none_is_not_shown);
    tcase_add_loop_test(tc, usual_mistakes_come_with_advice, 0, LENGTH(flaws));
    tcase_add_loop_test(tc, bad_certificates_are_refused_with_the_reason, 0, LENGTH(bad_certs));
    tcase_add_test(tc, long_names_are_cut_and_nothing_else);
    tcase_add_test(tc, an_intermediate_has_to_be_sent);
    tcase_add_loop_test(tc, a_certificate_may_be_trusted_by_itself, 0, 2);
    tcase_add_test(tc, skipping_the_name_still_checks_the_chain);
    tcase_add_test(tc, skipping_verification_takes_anybody_and_says_so);
    tcase_add_loop_test(tc, a_revocation_list_is_obeyed, 0, 3);
    tcase_add_loop_test(tc, staples_are_judged, 0, 2 * LENGTH(staples));
    tcase_add_loop_test(tc, a_missing_staple_matters_when_somebody_says_so, 0, 2);
    tcase_add_test(tc, a_staple_to_a_certificate_trusted_by_itself_is_not_judged);
    tcase_add_loop_test(tc, a_self_signed_certificate_may_staple_for_itself, 0, 2);
    tcase_add_loop_test(tc, what_openssl_would_not_send_is_judged_too, 0, 6);
    tcase_add_test(tc, a_library_that_hands_over_no_staple_is_found_out_when_a_config_is_made);
    tcase_add_test(tc, a_library_that_does_not_send_a_staple_is_found_out_when_a_config_is_made);
    tcase_add_loop_test(tc, what_a_server_was_given_to_staple_is_sent_or_refused_at_once, 0, 8);
    tcase_add_loop_test(tc, a_clients_certificate_is_checked, 0, 4);
    tcase_add_loop_test(tc, a_client_that_is_refused_is_told_by_confirm, 0, 4);
    tcase_add_loop_test(tc, confirm_waits_for_the_servers_word, 0, 2);
    tcase_add_test(tc, facts_of_a_certificate_can_be_read);
    tcase_add_loop_test(tc, hurtful_certificates_can_be_read, 2, 6);
    return run_case(tc);
}
