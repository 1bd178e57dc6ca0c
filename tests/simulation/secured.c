/* secured.c: TLS for a simulation: one certificate, and a configuration for each side.
 *
 * What OpenSSL draws at random is not the seed's, so nothing may depend on it but the content of
 * packets: the key is Ed25519, whose signatures all have one length, and there are no tickets,
 * which have not.
 */
#include "world.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#define KEY_BYTES 32

static struct hs_tls_config *server, *client;

struct text {
    char bytes[2048];
    size_t len;
};

static void
hold(bool good, const char *what)
{
    if (!good)
        sim_violation("no certificate: %s", what);
}

static void
extend(X509 *cert, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;

    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    hold(ext != NULL && X509_add_ext(cert, ext, -1) == 1, value);
    X509_EXTENSION_free(ext);
}

static void
take_text(BIO *bio, struct text *ret_text)
{
    int n = BIO_read(bio, ret_text->bytes, sizeof(ret_text->bytes));

    hold(n > 0 && n < (int)sizeof(ret_text->bytes), "its text");
    ret_text->len = (size_t)n;
    BIO_free(bio);
}

static void
make_certificate(struct text *ret_cert, struct text *ret_key)
{
    const uint8_t secret[KEY_BYTES] = "for simulations, known to all";
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, secret, sizeof(secret));
    X509 *cert = X509_new();
    X509_NAME *name = X509_get_subject_name(cert);
    BIO *bio = BIO_new(BIO_s_mem());

    hold(key != NULL && cert != NULL && bio != NULL, "memory");
    hold(X509_set_version(cert, X509_VERSION_3) == 1 &&
             ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) == 1 &&
             ASN1_TIME_set_string(X509_getm_notBefore(cert), "20000101000000Z") == 1 &&
             ASN1_TIME_set_string(X509_getm_notAfter(cert), "22000101000000Z") == 1 &&
             X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const uint8_t *)"server.test",
                                        -1, -1, 0) == 1 &&
             X509_set_issuer_name(cert, name) == 1 && X509_set_pubkey(cert, key) == 1,
         "its fields");
    extend(cert, NID_basic_constraints, "critical,CA:TRUE");
    extend(cert, NID_subject_alt_name, "DNS:server.test");
    hold(X509_sign(cert, key, NULL) > 0, "its signature");
    hold(PEM_write_bio_X509(bio, cert) == 1, "its text");
    take_text(bio, ret_cert);
    bio = BIO_new(BIO_s_mem());
    hold(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1, "its key's text");
    take_text(bio, ret_key);
    X509_free(cert);
    EVP_PKEY_free(key);
}

bool
tls_is_there(void)
{
    return server != NULL;
}

/* A handshake that nothing disturbs is over by then. */
static int64_t
any_patience(void)
{
    return world_is_calm() ? calm_span()
                           : sim_between(1, 20) * SIM_S +
                                 16 * (sim_settings.latency_ns + sim_settings.jitter_ns);
}

void
tls_begin(void)
{
    struct text cert, key;
    struct hs_tls_source chain = {.data = cert.bytes};
    struct hs_tls_identity identity = {.key = {.data = key.bytes}};
    struct hs_tls_options o;
    struct hs_error err = {0};
    int version = sim_chance(300) ? HS_TLS_1_2 : HS_TLS_1_3;

    make_certificate(&cert, &key);
    chain.len = cert.len;
    identity.key.len = key.len;
    identity.chain = chain;
    hs_tls_options_init(&o, HS_TLS_SERVER);
    o.identities = &identity;
    o.n_identities = 1;
    o.sessions = false;
    o.tickets = 0;
    o.max_version = version;
    o.handshake_timeout_ns = any_patience();
    must(hs_tls_config_new(&o, &err, &server), "no TLS for servers", &err);
    hs_tls_options_init(&o, HS_TLS_CLIENT);
    o.system_ca = false;
    o.cas = &chain;
    o.n_cas = 1;
    o.sessions = false;
    o.handshake_timeout_ns = any_patience();
    must(hs_tls_config_new(&o, &err, &client), "no TLS for clients", &err);
    sim_log("TLS 1.%d", version == HS_TLS_1_2 ? 2 : 3);
}

void
tls_for_listener(struct hs_listen_options *o)
{
    o->tls.config = server;
}

void
tls_for_client(struct hs_connect_options *o)
{
    o->tls = client;
    o->server_name = client != NULL ? "server.test" : NULL;
}

void
tls_end(void)
{
    hs_tls_config_unref(server);
    hs_tls_config_unref(client);
}
