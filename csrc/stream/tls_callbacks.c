/* tls_callbacks.c: what OpenSSL asks during a handshake, and our answers.
 *
 * Called with the lock of the connection held. A callback that fails ends the handshake: nothing is
 * let through because something could not be done.
 */
#include "tls_callbacks.h"

#include "tls_impl.h"
#include "tls_ocsp.h"
#include "tls_resume.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

static struct hs_tls_context *
context_of(const SSL *ssl)
{
    return hs_tls_of(ssl)->context;
}

/* ---- The peer's certificate ---------------------------------------------------------------- */

/* Keeps what was wrong first: later errors are often only its consequences. */
static int
on_verify(int ok, X509_STORE_CTX *store_ctx)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store_ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct hs_tls *t = hs_tls_of(ssl);
    int depth = X509_STORE_CTX_get_error_depth(store_ctx);
    struct tls_verdict *verdict;

    if (ok && depth == 0)
        t->verified_ns = hs_now();
    if (!ok && (verdict = hs_tls_verdict(t)) != NULL && verdict->code == 0)
        hs_tls_describe(X509_STORE_CTX_get_current_cert(store_ctx), depth,
                        X509_STORE_CTX_get_error(store_ctx), t->expected, verdict);
    return ok;
}

/* Client. A resumed session has no chain, and with TLS 1.2 this is not called; with TLS 1.3 it is.
 * 1 goes on, 0 refuses. */
static int
on_staple(SSL *ssl, void *arg)
{
    struct hs_tls *t = hs_tls_of(ssl);
    struct tls_verdict *verdict = hs_tls_verdict(t);

    (void)arg;
    if (SSL_session_reused(ssl))
        return 1;
    if (verdict == NULL)
        return -1;
    return hs_tls_check_staple(ssl, t->context->ocsp, t->expected, verdict, &t->ocsp) == HS_OK;
}

/* ---- Our certificate ----------------------------------------------------------------------- */

/* What a cipher of TLS 1.2 says that the key must be for. */
static int
auth_of(EVP_PKEY *key)
{
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA:
    case EVP_PKEY_RSA_PSS:
        return NID_auth_rsa;
    case EVP_PKEY_DSA:
        return NID_auth_dss;
    default:
        return NID_auth_ecdsa; /* EdDSA too: RFC 8422 section 2.2 */
    }
}

static bool
shares_cipher_for(SSL *ssl, EVP_PKEY *key)
{
    STACK_OF(SSL_CIPHER) *theirs = SSL_get_client_ciphers(ssl);
    STACK_OF(SSL_CIPHER) *ours = SSL_get1_supported_ciphers(ssl);
    int auth = auth_of(key);
    bool shares = false;

    for (int i = 0; !shares && i < sk_SSL_CIPHER_num(theirs); i++) {
        const SSL_CIPHER *c = sk_SSL_CIPHER_value(theirs, i);

        shares = SSL_CIPHER_get_auth_nid(c) == auth &&
                 sk_SSL_CIPHER_find(ours, (SSL_CIPHER *)(uintptr_t)c) >= 0;
    }
    sk_SSL_CIPHER_free(ours);
    return shares;
}

/* OpenSSL compares with the client's signature algorithms and curves; only TLS 1.2 has the kind of
 * key in its ciphers as well. Of signatures of issuers with EdDSA keys it knows nothing in TLS 1.2,
 * where CERT_PKEY_EE_SIGNATURE is about them. */
static bool
can_be_verified(SSL *ssl, const struct tls_identity *id)
{
    bool since_1_3 = SSL_version(ssl) >= TLS1_3_VERSION;
    int by = X509_get_signature_nid(id->leaf), found;
    int wanted = CERT_PKEY_SIGN | CERT_PKEY_EE_PARAM;
    bool shares;

    if (since_1_3 || (by != NID_ED25519 && by != NID_ED448))
        wanted |= CERT_PKEY_EE_SIGNATURE;
    (void)ERR_set_mark(); /* What is left in the queue would be taken for the handshake's. */
    found = SSL_check_chain(ssl, id->leaf, id->key, id->issuers);
    shares = since_1_3 || shares_cipher_for(ssl, id->key);
    (void)ERR_pop_to_mark();
    return (found & wanted) == wanted && shares;
}

static int
use(SSL *ssl, const struct tls_identity *id)
{
    return SSL_use_cert_and_key(ssl, id->leaf, id->key, id->issuers, 1);
}

/* Of one kind of key OpenSSL keeps the last that it is given, so the first of the list comes last.
 * -1: failed; else how many there are. */
static int
use_all_for(SSL *ssl, const struct hs_tls_context *c, const char *name, bool verifiable)
{
    int n = 0;

    for (size_t i = c->n_identities; i-- > 0;) {
        const struct tls_identity *id = &c->identities[i];

        if (!hs_tls_is_for(id->leaf, name) || (verifiable && !can_be_verified(ssl, id)))
            continue;
        if (!use(ssl, id))
            return -1;
        n++;
    }
    return n;
}

/* For a name all that the client can verify, by which OpenSSL chooses; if it can verify none of
 * them, those: another name would not help. Without a name (clients that connect to an address send
 * none), or with one that is not here, the first of the list that the client can verify. */
static int
on_certificate(SSL *ssl, void *arg)
{
    const struct hs_tls_context *c = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    int n = 0;

    SSL_certs_clear(ssl);
    if (name != NULL && (n = use_all_for(ssl, c, name, true)) == 0)
        n = use_all_for(ssl, c, name, false);
    if (n != 0)
        return n > 0;
    for (size_t i = 0; i < c->n_identities; i++)
        if (can_be_verified(ssl, &c->identities[i]))
            return use(ssl, &c->identities[i]);
    return use(ssl, &c->identities[0]);
}

/* Says that the name was looked at (RFC 6066 section 3), so that it is kept with the session. */
static int
on_server_name(SSL *ssl, int *alert, void *arg)
{
    (void)ssl;
    (void)alert;
    (void)arg;
    return SSL_TLSEXT_ERR_OK;
}

/* Server: the response that belongs to the certificate which was chosen. */
static int
on_staple_wanted(SSL *ssl, void *arg)
{
    const struct hs_tls_context *c = arg;
    const X509 *leaf = SSL_get_certificate(ssl);
    unsigned char *copy;

    for (size_t i = 0; i < c->n_identities; i++) {
        const struct tls_identity *id = &c->identities[i];

        if (id->leaf != leaf || id->ocsp == NULL)
            continue;
        if ((copy = OPENSSL_memdup(id->ocsp, id->ocsp_len)) == NULL)
            return SSL_TLSEXT_ERR_ALERT_FATAL;
        (void)SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)id->ocsp_len); /* takes copy */
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

/* ---- The rest ------------------------------------------------------------------------------ */

/* The server's order counts. Nothing in common is an alert (RFC 7301 section 3.2). */
static int
on_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen, const unsigned char *in,
        unsigned int inlen, void *arg)
{
    const struct hs_tls_context *c = arg;
    unsigned char *chosen;

    (void)ssl;
    if (SSL_select_next_proto(&chosen, outlen, c->alpn, (unsigned)c->alpn_len, in, inlen) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* Client. Only what was verified may be resumed: a resumed handshake verifies nothing. 1: taken. */
static int
on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct hs_tls *t = hs_tls_of(ssl);
    const struct hs_tls_context *c = t->context;

    t->tickets++;
    if (c->sessions == NULL || t->session_key == NULL || !c->verify ||
        SSL_get_verify_result(ssl) != X509_V_OK || t->state == TLS_FAILED)
        return 0;
    hs_tls_resume_keep(t, session);
    return 1;
}

/* TLS 1.3 tickets are for one use: a client that resumes gets a new one. */
static int
on_ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
              EVP_MAC_CTX *mac, int enc)
{
    int result = hs_tls_tickets_key(context_of(ssl)->tickets, hs_now(), name, iv, cipher, mac, enc);

    return result == 1 && enc == 0 && SSL_version(ssl) >= TLS1_3_VERSION ? 2 : result;
}

static void
on_secret(const SSL *ssl, const char *line)
{
    const struct iovec iov[] = {
        {.iov_base = (void *)(uintptr_t)line, .iov_len = strlen(line)},
        {.iov_base = (void *)(uintptr_t) "\n", .iov_len = 1},
    };
    ssize_t ignored = hs_sys_writev(context_of(ssl)->key_log_fd, iov, 2);

    (void)ignored;
}

void
hs_tls_install_callbacks(struct hs_tls_context *c)
{
    SSL_CTX *ctx = c->ctx;
    bool server = c->role == HS_TLS_SERVER;

    if (c->verify)
        SSL_CTX_set_verify(ctx, SSL_CTX_get_verify_mode(ctx), on_verify);
    if (c->key_log_fd >= 0)
        SSL_CTX_set_keylog_callback(ctx, on_secret);
    if (!server) {
        SSL_CTX_sess_set_new_cb(ctx, on_new_session);
        if (c->ocsp != HS_TLS_OCSP_OFF)
            (void)SSL_CTX_set_tlsext_status_cb(ctx, on_staple);
        return;
    }
    (void)SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
    if (c->n_identities > 1)
        SSL_CTX_set_cert_cb(ctx, on_certificate, c);
    (void)SSL_CTX_set_tlsext_status_cb(ctx, on_staple_wanted);
    (void)SSL_CTX_set_tlsext_status_arg(ctx, c);
    if (c->alpn_len > 0)
        SSL_CTX_set_alpn_select_cb(ctx, on_alpn, c);
    if (c->tickets != NULL) {
        (void)SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket_key);
        hs_tls_resume_install(c);
    }
}
