/* tls_rehearse.c: see tls_rehearse.h.
 *
 * The contexts are made for the rehearsal alone and have none of a config's rules: what is asked is
 * what the library does with a response, not whether a peer would be let in. The client looks at
 * the response where a config's client judges it: in the status callback.
 */
#include "tls_rehearse.h"

#include "../base/err.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <string.h>

#define WIRE 65536 /* of bytes under way; a flight that is longer goes in several steps */
#define MAX_STEPS 64

struct staple {
    const uint8_t *der; /* borrows */
    size_t len;
    bool arrived;
};

enum outcome { STAGE_BROKE, WITHHELD, ARRIVED };

static int
on_rehearsed(SSL *ssl, void *arg)
{
    struct staple *staple = arg;
    const unsigned char *der = NULL;
    long len = SSL_get_tlsext_status_ocsp_resp(ssl, &der);

    staple->arrived = der != NULL && len > 0 && (size_t)len == staple->len &&
                      memcmp(der, staple->der, staple->len) == 0;
    return 1;
}

static int
on_wanted(SSL *ssl, void *arg)
{
    const struct staple *staple = arg;
    unsigned char *copy = OPENSSL_memdup(staple->der, staple->len);

    if (copy == NULL)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    (void)SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)staple->len); /* takes copy */
    return SSL_TLSEXT_ERR_OK;
}

static SSL *
actor(bool server, const struct tls_identity *id, int version, struct staple *staple)
{
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    SSL *ssl = NULL;

    if (ctx == NULL)
        return NULL;
    SSL_CTX_set_security_level(ctx, 0);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_tlsext_status_cb(ctx, (server ? on_wanted : on_rehearsed));
    (void)SSL_CTX_set_tlsext_status_arg(ctx, staple);
    if (SSL_CTX_set_min_proto_version(ctx, version) &&
        SSL_CTX_set_max_proto_version(ctx, version) &&
        (server ? SSL_CTX_use_cert_and_key(ctx, id->leaf, id->key, id->issuers, 1)
                : SSL_CTX_set_tlsext_status_type(ctx, TLSEXT_STATUSTYPE_ocsp)))
        ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    return ssl;
}

/* Both in turns, until the client has finished: it has had the response before that. */
static bool
play(SSL *client, SSL *server)
{
    for (int i = 0; i < MAX_STEPS && !SSL_is_init_finished(client); i++) {
        SSL *ssl = i % 2 == 0 ? client : server;
        int ret = SSL_do_handshake(ssl);

        if (ret != 1 && SSL_get_error(ssl, ret) != SSL_ERROR_WANT_READ &&
            SSL_get_error(ssl, ret) != SSL_ERROR_WANT_WRITE)
            return false;
    }
    return SSL_is_init_finished(client);
}

/* STAGE_BROKE leaves OpenSSL's reason in its queue. */
static enum outcome
rehearse(const struct tls_identity *id, int version)
{
    struct staple staple = {.der = id->ocsp, .len = id->ocsp_len};
    SSL *client = actor(false, id, version, &staple), *server = actor(true, id, version, &staple);
    BIO *near = NULL, *far = NULL;
    bool played = false;

    if (client != NULL && server != NULL && BIO_new_bio_pair(&near, WIRE, &far, WIRE)) {
        /* Before the states: OpenSSL 3.6 crashes the other way round when there is no memory. */
        SSL_set_bio(client, near, near); /* takes it, as the next */
        SSL_set_bio(server, far, far);
        SSL_set_connect_state(client);
        SSL_set_accept_state(server);
        played = play(client, server);
    }
    SSL_free(client);
    SSL_free(server);
    if (!played)
        return STAGE_BROKE;
    return staple.arrived ? ARRIVED : WITHHELD;
}

static bool
out_of_memory(void)
{
    return ERR_GET_REASON(ERR_peek_error()) == ERR_R_MALLOC_FAILURE;
}

/* Said with OpenSSL's reason, if it has one. */
static hs_err
broke(const char *parameter, struct hs_error *err)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    hs_err rv;

    if (reason == NULL || out_of_memory())
        rv =
            hs_err_setx(err, HS_E_NOMEM, "tls", "%s: no memory to rehearse a handshake", parameter);
    else
        rv = hs_err_setx(err, HS_E_INVALID, "tls",
                         "%s: a handshake with it cannot be rehearsed: %.80s", parameter, reason);
    ERR_clear_error();
    return rv;
}

hs_err
hs_tls_rehearse_staple(const struct tls_identity *id, const struct hs_tls_options *o,
                       struct hs_error *err)
{
    static const int versions[] = {HS_TLS_1_2, HS_TLS_1_3};

    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        if (versions[i] < (int)o->min_version || versions[i] > (int)o->max_version)
            continue;
        ERR_clear_error();
        switch (rehearse(id, versions[i])) {
        case STAGE_BROKE:
            return broke("ocsp_response", err);
        case WITHHELD:
            return hs_err_setx(err, HS_E_INVALID, "tls",
                               "ocsp_response: OpenSSL %s would not send it: it must be about this "
                               "certificate, which may not be self-signed",
                               OpenSSL_version(OPENSSL_VERSION_STRING));
        case ARRIVED:
            break;
        }
    }
    ERR_clear_error();
    return HS_OK;
}

/* ---- A client's ---------------------------------------------------------------------------- */

static X509 *
certify(EVP_PKEY *key, const char *name, const X509_NAME *issuer, EVP_PKEY *signer, long serial)
{
    X509 *cert = X509_new();
    X509_NAME *subject = cert != NULL ? X509_get_subject_name(cert) : NULL;

    if (subject != NULL && X509_set_version(cert, X509_VERSION_3) &&
        ASN1_INTEGER_set(X509_get_serialNumber(cert), serial) &&
        X509_gmtime_adj(X509_getm_notBefore(cert), -3600) != NULL &&
        X509_gmtime_adj(X509_getm_notAfter(cert), 3600) != NULL &&
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1,
                                   -1, 0) &&
        X509_set_issuer_name(cert, issuer != NULL ? issuer : subject) &&
        X509_set_pubkey(cert, key) && X509_sign(cert, signer, EVP_sha256()) > 0)
        return cert;
    X509_free(cert);
    return NULL;
}

static bool
respond(struct tls_identity *id, X509 *root, EVP_PKEY *key)
{
    OCSP_CERTID *name = OCSP_cert_to_id(EVP_sha1(), id->leaf, root);
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, 0);
    OCSP_RESPONSE *response = NULL;
    unsigned char *der = NULL;
    int len = 0;

    if (name != NULL && basic != NULL && now != NULL &&
        OCSP_basic_add1_status(basic, name, V_OCSP_CERTSTATUS_GOOD, 0, NULL, now, NULL) != NULL &&
        OCSP_basic_sign(basic, root, key, EVP_sha256(), NULL, OCSP_NOCERTS) == 1 &&
        (response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic)) != NULL)
        len = i2d_OCSP_RESPONSE(response, &der);
    id->ocsp = der;
    id->ocsp_len = len > 0 ? (size_t)len : 0;
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(name);
    ASN1_TIME_free(now);
    return len > 0;
}

/* An authority, a certificate of its own and what it responds about that: the usual case. */
static enum outcome
rehearse_usual(int version)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *root = key != NULL ? certify(key, "root", NULL, key, 1) : NULL;
    struct tls_identity id = {.key = key};
    enum outcome outcome = STAGE_BROKE;

    if (root != NULL)
        id.leaf = certify(key, "leaf", X509_get_subject_name(root), key, 2);
    if (id.leaf != NULL && respond(&id, root, key))
        outcome = rehearse(&id, version);
    OPENSSL_free(id.ocsp);
    X509_free(id.leaf);
    X509_free(root);
    EVP_PKEY_free(key);
    return outcome;
}

/* Only the good answer is kept: it does not change, while another may have been want of memory. */
hs_err
hs_tls_rehearse_client(struct hs_error *err)
{
    static atomic_bool works;
    static const int versions[] = {HS_TLS_1_2, HS_TLS_1_3};

    if (atomic_load(&works))
        return HS_OK;
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
        ERR_clear_error();
        switch (rehearse_usual(versions[i])) {
        case STAGE_BROKE:
            return broke("ocsp", err);
        case WITHHELD:
            return hs_err_setx(err, HS_E_INVALID, "tls",
                               "ocsp: OpenSSL %s does not hand over what a server staples, so it "
                               "could not be checked; ocsp=off goes without",
                               OpenSSL_version(OPENSSL_VERSION_STRING));
        case ARRIVED:
            break;
        }
    }
    ERR_clear_error();
    atomic_store(&works, true);
    return HS_OK;
}
