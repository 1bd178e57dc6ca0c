/* tls_export.c: secrets and bindings that both ends derive from a handshake (RFC 5705, 5929, 9266).
 *
 * A protocol above that proves who it is ties the proof to this TLS by them: what somebody between
 * two connections passes on is worth nothing on the other one. Therefore nothing is derived that
 * such a one could have made equal on both: without the extended master secret (RFC 7627) a TLS 1.2
 * handshake can be.
 */
#include "tls_impl.h"

#include "tls.h"
#include "../base/err.h"
#include "../base/sys.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

static const char exporter_label[] = "EXPORTER-Channel-Binding"; /* RFC 9266 section 2 */

/* ---- With the lock held -------------------------------------------------------------------- */

static hs_err
not_open(struct hs_error *err)
{
    return hs_err_setx(err, HS_E_INVALID, NULL,
                       "TLS has failed: nothing can be derived from it any more");
}

static hs_err
check_derivable(struct hs_tls *t, struct hs_error *err)
{
    if (t->state != TLS_OPEN)
        return not_open(err);
    if (SSL_version(t->ssl) < TLS1_3_VERSION && SSL_get_extms_support(t->ssl) != 1)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "this is TLS 1.2 without the extended master secret (RFC 7627): what "
                           "is derived from it may not be of this connection alone");
    return HS_OK;
}

static hs_err
export_locked(struct hs_tls *t, const struct hs_tls_exported *what, uint8_t *out, size_t len,
              struct hs_error *err)
{
    uint8_t *made; /* What fails may have written a part. */
    bool derived;
    hs_err rv;

    if ((rv = check_derivable(t, err)) != HS_OK)
        return rv;
    if ((made = hs_sys_malloc(len)) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for %zu derived bytes", len);
    ERR_clear_error();
    derived =
        SSL_export_keying_material(t->ssl, made, len, what->label, what->label_len, what->context,
                                   what->context_len, what->context != NULL) == 1;
    ERR_clear_error();
    if (derived)
        memcpy(out, made, len);
    OPENSSL_cleanse(made, len);
    free(made);
    if (derived)
        return HS_OK;
    return hs_err_setx(err, HS_E_INVALID, NULL,
                       "OpenSSL derives no %zu bytes for a label of %zu: one is too long, or the "
                       "label is one of TLS's own",
                       len, what->label_len);
}

/* RFC 5929 section 4.1: the hash of the certificate's signature, but for those too weak. */
static const EVP_MD *
hash_of(X509 *cert)
{
    int digest = NID_undef;

    if (X509_get_signature_info(cert, &digest, NULL, NULL, NULL) != 1 || digest == NID_undef)
        return NULL;
    return digest == NID_md5 || digest == NID_sha1 ? EVP_sha256() : EVP_get_digestbynid(digest);
}

/* A server that resumes shows no certificate, and does not remember which one it was. */
static hs_err
server_certificate(struct hs_tls *t, struct hs_error *err, X509 **ret_cert)
{
    bool is_server = t->context->role == HS_TLS_SERVER;
    X509 *cert;

    if (t->state != TLS_OPEN)
        return not_open(err);
    if (is_server && SSL_session_reused(t->ssl))
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "the session was resumed, and a server does not know by which "
                           "certificate it began: tickets=0 of its TLSConfig has each client shown "
                           "one");
    cert = is_server ? SSL_get_certificate(t->ssl) : SSL_get0_peer_certificate(t->ssl);
    if (cert == NULL)
        return hs_err_setx(err, HS_E_INVALID, NULL, "the server has shown no certificate");
    *ret_cert = cert;
    return HS_OK;
}

static hs_err
end_point_locked(struct hs_tls *t, uint8_t out[HS_TLS_BINDING_MAX], size_t *ret_len,
                 struct hs_error *err)
{
    const EVP_MD *md;
    unsigned len = 0;
    X509 *cert;
    hs_err rv;

    if ((rv = server_certificate(t, err, &cert)) != HS_OK)
        return rv;
    ERR_clear_error();
    md = hash_of(cert);
    ERR_clear_error();
    if (md == NULL)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "the signature of the server's certificate has no hash of its own, as "
                           "with Ed25519: RFC 5929 section 4.1 does not say what its "
                           "tls-server-end-point is");
    if (X509_digest(cert, md, out, &len) != 1) {
        ERR_clear_error();
        return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for the hash of a certificate");
    }
    *ret_len = len;
    return HS_OK;
}

/* ---- Entries ------------------------------------------------------------------------------- */

hs_err
hs_tls_export(struct hs_tls *t, const struct hs_tls_exported *what, uint8_t *out, size_t len,
              struct hs_error *err)
{
    hs_err rv;

    hs_lock_take(&t->lock);
    rv = export_locked(t, what, out, len, err);
    hs_lock_drop(&t->lock);
    return rv;
}

hs_err
hs_tls_binding(struct hs_tls *t, enum hs_tls_binding kind, uint8_t out[HS_TLS_BINDING_MAX],
               size_t *ret_len, struct hs_error *err)
{
    static const struct hs_tls_exported what = {.label = exporter_label,
                                                .label_len = sizeof(exporter_label) - 1,
                                                .context = (const uint8_t *)"",
                                                .context_len = 0};
    uint8_t found[HS_TLS_BINDING_MAX];
    size_t len = 32;
    hs_err rv;

    hs_lock_take(&t->lock);
    if (kind == HS_TLS_BINDING_EXPORTER)
        rv = export_locked(t, &what, found, len, err);
    else
        rv = end_point_locked(t, found, &len, err);
    hs_lock_drop(&t->lock);
    if (rv != HS_OK)
        return rv;
    memcpy(out, found, len);
    *ret_len = len;
    return HS_OK;
}
