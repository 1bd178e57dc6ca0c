/* tls_ocsp.c: see tls_ocsp.h.
 *
 * Fails closed: what is stapled and cannot be judged is refused.
 */
#include "tls_ocsp.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>

/* Clocks differ, and an old "good" must not live for ever where no next update is given. */
#define SKEW_S 300L
#define MAX_AGE_S (14L * 86400)

static hs_err tls_ocsp_refuse(struct tls_verdict *v, const char *expected, int code,
                              const char *fmt, ...) HS_PRINTF(4, 5);

static hs_err
tls_ocsp_refuse(struct tls_verdict *v, const char *expected, int code, const char *fmt, ...)
{
    char text[136];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    v->code = code;
    (void)snprintf(v->text, sizeof(v->text), "certificate for %.60s: %s",
                   expected != NULL ? expected : "the server", text);
    return HS_E_CERTIFICATE;
}

/* RFC 7633: the certificate itself says that it is only good with a staple. */
static bool
must_staple(const X509 *cert)
{
    TLS_FEATURE *features = X509_get_ext_d2i(cert, NID_tlsfeature, NULL, NULL);
    bool found = false;

    for (int i = 0; i < sk_ASN1_INTEGER_num(features); i++)
        if (ASN1_INTEGER_get(sk_ASN1_INTEGER_value(features, i)) == TLSEXT_TYPE_status_request)
            found = true;
    sk_ASN1_INTEGER_pop_free(features, ASN1_INTEGER_free);
    return found;
}

/* Is the response about this certificate, with whichever digest it names it? */
static OCSP_SINGLERESP *
find_single(OCSP_BASICRESP *basic, const X509 *cert, const X509 *issuer)
{
    for (int i = 0; i < OCSP_resp_count(basic); i++) {
        OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
        const OCSP_CERTID *id = OCSP_SINGLERESP_get0_id(single);
        ASN1_OBJECT *digest;
        const EVP_MD *md;
        OCSP_CERTID *ours;
        bool same;

        if (!OCSP_id_get0_info(NULL, &digest, NULL, NULL, (OCSP_CERTID *)(uintptr_t)id) ||
            (md = EVP_get_digestbyobj(digest)) == NULL ||
            (ours = OCSP_cert_to_id(md, cert, issuer)) == NULL)
            continue;
        same = OCSP_id_cmp(ours, id) == 0;
        OCSP_CERTID_free(ours);
        if (same)
            return single;
    }
    return NULL;
}

static hs_err
judge_single(OCSP_SINGLERESP *single, const char *expected, struct tls_verdict *v)
{
    ASN1_GENERALIZEDTIME *this_update, *next_update;
    int reason, status = OCSP_single_get0_status(single, &reason, NULL, &this_update, &next_update);

    if (!OCSP_check_validity(this_update, next_update, SKEW_S,
                             next_update == NULL ? MAX_AGE_S : -1))
        return tls_ocsp_refuse(v, expected, X509_V_ERR_OCSP_VERIFY_FAILED,
                               "its stapled OCSP response is out of date");
    if (status == V_OCSP_CERTSTATUS_REVOKED)
        return tls_ocsp_refuse(v, expected, X509_V_ERR_CERT_REVOKED,
                               "revoked, says its OCSP responder (%s)",
                               reason >= 0 ? OCSP_crl_reason_str(reason) : "no reason given");
    if (status != V_OCSP_CERTSTATUS_GOOD)
        return tls_ocsp_refuse(v, expected, X509_V_ERR_OCSP_CERT_UNKNOWN,
                               "its OCSP responder does not know it");
    return HS_OK;
}

/* A certificate that is trusted by itself has a chain of one: the one who issued it has no say
 * here. */
static bool
is_pinned(SSL *ssl)
{
    STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
    X509 *leaf = chain != NULL ? sk_X509_value(chain, 0) : NULL;

    return leaf != NULL && sk_X509_num(chain) == 1 && X509_check_issued(leaf, leaf) != X509_V_OK;
}

static hs_err
judge_basic(SSL *ssl, OCSP_BASICRESP *basic, const char *expected, struct tls_verdict *v)
{
    STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
    X509_STORE *store = SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl));
    OCSP_SINGLERESP *single;
    X509 *leaf, *issuer;

    if (chain == NULL || sk_X509_num(chain) == 0)
        return tls_ocsp_refuse(v, expected, X509_V_ERR_OCSP_VERIFY_FAILED,
                               "no chain to check OCSP with");
    leaf = sk_X509_value(chain, 0);
    issuer = sk_X509_value(chain, sk_X509_num(chain) > 1 ? 1 : 0);
    /* No flags: the signer must be the issuer, or one that the issuer named for it
     * (id-kp-OCSPSigning). OCSP_TRUSTOTHER would take the certificate's word about itself. */
    if (OCSP_basic_verify(basic, chain, store, 0) <= 0)
        return tls_ocsp_refuse(v, expected, X509_V_ERR_OCSP_VERIFY_FAILED,
                               "its stapled OCSP response has no valid signature");
    if ((single = find_single(basic, leaf, issuer)) == NULL)
        return tls_ocsp_refuse(v, expected, X509_V_ERR_OCSP_VERIFY_FAILED,
                               "its stapled OCSP response is about another certificate");
    return judge_single(single, expected, v);
}

hs_err
hs_tls_check_staple(SSL *ssl, enum hs_tls_ocsp_mode mode, const char *expected,
                    struct tls_verdict *v, enum hs_ocsp_state *ret_state)
{
    const unsigned char *der = NULL;
    long len = SSL_get_tlsext_status_ocsp_resp(ssl, &der);
    OCSP_RESPONSE *response;
    OCSP_BASICRESP *basic = NULL;
    hs_err rv;

    if (der == NULL || len <= 0) {
        const X509 *leaf = SSL_get0_peer_certificate(ssl);

        if (mode == HS_TLS_OCSP_REQUIRE)
            return tls_ocsp_refuse(v, expected, X509_V_ERR_OCSP_VERIFY_NEEDED,
                                   "no OCSP response was stapled, and one is required here");
        if (leaf != NULL && must_staple(leaf))
            return tls_ocsp_refuse(
                v, expected, X509_V_ERR_OCSP_VERIFY_NEEDED,
                "no OCSP response was stapled, and the certificate requires one");
        *ret_state = HS_OCSP_NONE;
        return HS_OK;
    }
    if (is_pinned(ssl)) {
        if (mode == HS_TLS_OCSP_REQUIRE)
            return tls_ocsp_refuse(v, expected, X509_V_ERR_OCSP_VERIFY_NEEDED,
                                   "its stapled OCSP response cannot be checked: its issuer is not "
                                   "trusted here, only itself");
        *ret_state = HS_OCSP_SKIPPED;
        return HS_OK;
    }
    response = d2i_OCSP_RESPONSE(NULL, &der, len);
    if (response == NULL)
        rv = tls_ocsp_refuse(v, expected, X509_V_ERR_OCSP_VERIFY_FAILED,
                             "what was stapled is no OCSP response");
    else if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
        rv = tls_ocsp_refuse(v, expected, X509_V_ERR_OCSP_VERIFY_FAILED,
                             "its OCSP responder failed: %s",
                             OCSP_response_status_str(OCSP_response_status(response)));
    else if ((basic = OCSP_response_get1_basic(response)) == NULL)
        rv = tls_ocsp_refuse(v, expected, X509_V_ERR_OCSP_VERIFY_FAILED,
                             "its stapled OCSP response is of an unknown type");
    else
        rv = judge_basic(ssl, basic, expected, v);
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    if (rv == HS_OK)
        *ret_state = HS_OCSP_GOOD;
    return rv;
}
