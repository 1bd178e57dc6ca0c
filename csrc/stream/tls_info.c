/* tls_info.c: what a handshake agreed on, and facts about certificates.
 *
 * Nothing here decides anything: it is for people and logs.
 */
#include "tls_impl.h"

#include "tls.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "hardsock_binding.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

const char *
hs_openssl_version(void)
{
    return OpenSSL_version(OPENSSL_VERSION);
}

static const char *
group_name(SSL *ssl)
{
    int nid = (int)SSL_get_negotiated_group(ssl);
    const char *name = nid > 0 ? OBJ_nid2sn(nid & 0xffff) : NULL;

    return name != NULL ? name : "";
}

/* A client sends what it likes: what could not be a name is not shown as one. */
static void
copy_name(const char *name, char out[256])
{
    size_t n = name != NULL ? strlen(name) : 0;

    for (size_t i = 0; i < n; i++)
        if (name[i] <= 0x20 || name[i] >= 0x7f)
            return;
    if (n > 0 && n < 256)
        memcpy(out, name, n); /* NOLINT: out is all zero */
}

bool
hs_tls_has_heard(struct hs_tls *t)
{
    bool has;

    hs_lock_take(&t->lock);
    has = t->io.received_ns != 0;
    hs_lock_drop(&t->lock);
    return has;
}

bool
hs_tls_is_handshaken(struct hs_tls *t)
{
    bool has;

    hs_lock_take(&t->lock);
    has = t->finished_ns != 0;
    hs_lock_drop(&t->lock);
    return has;
}

void
hs_tls_get_info(struct hs_tls *t, struct hs_tls_info *ret_info)
{
    const unsigned char *alpn;
    const char *name;
    unsigned alpn_len;

    hs_lock_take(&t->lock);
    name = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);
    *ret_info = (struct hs_tls_info){
        .role = t->context->role,
        .version = SSL_get_version(t->ssl),
        .cipher = SSL_get_cipher_name(t->ssl),
        .group = group_name(t->ssl),
        .resumed = SSL_session_reused(t->ssl),
        .verified = t->context->verify && SSL_get0_peer_certificate(t->ssl) != NULL,
        .ocsp = t->ocsp,
        .tickets = t->tickets,
        .started_ns = t->started_ns,
        .first_byte_ns = t->io.received_ns,
        .verified_ns = t->verified_ns,
        .finished_ns = t->finished_ns,
    };
    SSL_get0_alpn_selected(t->ssl, &alpn, &alpn_len);
    if (alpn != NULL && alpn_len < sizeof(ret_info->alpn))
        memcpy(ret_info->alpn, alpn, alpn_len);
    copy_name(name, ret_info->server_name);
    ERR_clear_error();
    hs_lock_drop(&t->lock);
}

/* A server's chain of a client lacks the client's own certificate (SSL_get_peer_cert_chain(3)). */
static X509 *
certificate_locked(struct hs_tls *t, size_t i)
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(t->ssl);

    if (i == 0)
        return SSL_get0_peer_certificate(t->ssl);
    if (t->context->role == HS_TLS_SERVER)
        i--;
    return i < (size_t)sk_X509_num(chain) ? sk_X509_value(chain, (int)i) : NULL;
}

size_t
hs_tls_chain_length(struct hs_tls *t)
{
    size_t n = 0;

    hs_lock_take(&t->lock);
    while (n < 64 && certificate_locked(t, n) != NULL)
        n++;
    hs_lock_drop(&t->lock);
    return n;
}

hs_err
hs_tls_chain_copy(struct hs_tls *t, size_t i, uint8_t **ret_der, size_t *ret_len)
{
    unsigned char *der = NULL;
    uint8_t *copy;
    X509 *cert;
    int len = -1;

    hs_lock_take(&t->lock);
    if ((cert = certificate_locked(t, i)) != NULL)
        len = i2d_X509(cert, &der);
    ERR_clear_error();
    hs_lock_drop(&t->lock);
    if (len <= 0)
        return cert == NULL ? HS_E_INVALID : HS_E_NOMEM;
    if ((copy = hs_sys_malloc((size_t)len)) != NULL)
        memcpy(copy, der, (size_t)len);
    OPENSSL_free(der);
    if (copy == NULL)
        return HS_E_NOMEM;
    *ret_der = copy;
    *ret_len = (size_t)len;
    return HS_OK;
}

/* ---- Facts --------------------------------------------------------------------------------- */

static char *
take_text(BIO *bio)
{
    char *data, *copy;
    long n = BIO_get_mem_data(bio, &data);

    if ((copy = hs_sys_malloc((size_t)n + 1)) != NULL) {
        if (n > 0) /* data may be NULL */
            memcpy(copy, data, (size_t)n);
        copy[n] = '\0';
    }
    BIO_free(bio);
    return copy;
}

static char *
distinguished_name(const X509_NAME *name)
{
    BIO *bio = BIO_new(BIO_s_mem());

    if (bio == NULL)
        return NULL;
    (void)X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
    return take_text(bio);
}

/* A NUL or a line end within a name cannot be told from the next name: such names are left out. */
static void
print_name(BIO *bio, const GENERAL_NAME *name)
{
    char text[INET6_ADDRSTRLEN];
    const ASN1_STRING *s;
    const unsigned char *data;
    int type, len;

    s = GENERAL_NAME_get0_value(name, &type);
    if (type != GEN_DNS && type != GEN_EMAIL && type != GEN_URI && type != GEN_IPADD)
        return;
    data = ASN1_STRING_get0_data(s);
    len = ASN1_STRING_length(s);
    if (type == GEN_IPADD) {
        if ((len == 4 || len == 16) &&
            inet_ntop(len == 4 ? AF_INET : AF_INET6, data, text, sizeof(text)) != NULL)
            (void)BIO_printf(bio, "IP:%s\n", text);
        return;
    }
    for (int i = 0; i < len; i++)
        if (data[i] < 0x20)
            return;
    (void)BIO_printf(bio, "%s:%.*s\n",
                     type == GEN_DNS   ? "DNS"
                     : type == GEN_URI ? "URI"
                                       : "email",
                     len, (const char *)data);
}

static char *
alternative_names(X509 *cert)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    BIO *bio = BIO_new(BIO_s_mem());

    for (int i = 0; bio != NULL && i < sk_GENERAL_NAME_num(names); i++)
        print_name(bio, sk_GENERAL_NAME_value(names, i));
    GENERAL_NAMES_free(names);
    return bio != NULL ? take_text(bio) : NULL;
}

static char *
serial_text(const X509 *cert)
{
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    char *hex = number != NULL ? BN_bn2hex(number) : NULL, *copy = NULL;

    if (hex != NULL)
        copy = hs_sys_strdup(hex);
    OPENSSL_free(hex);
    BN_free(number);
    return copy;
}

static int64_t
seconds_of(const ASN1_TIME *t)
{
    struct tm tm = {0};

    return ASN1_TIME_to_tm(t, &tm) ? (int64_t)timegm(&tm) : 0;
}

void
hs_tls_certificate_fini(struct hs_tls_certificate *cert)
{
    free(cert->subject);
    free(cert->issuer);
    free(cert->names);
    free(cert->serial);
    *cert = (struct hs_tls_certificate){0};
}

hs_err
hs_tls_certificate_read(const uint8_t *der, size_t len, struct hs_error *err,
                        struct hs_tls_certificate *ret_cert)
{
    const unsigned char *at = der;
    X509 *x = len <= INT32_MAX ? d2i_X509(NULL, &at, (long)len) : NULL;
    struct hs_tls_certificate cert;

    if (x == NULL) {
        ERR_clear_error();
        return hs_err_setx(err, HS_E_INVALID, "tls", "not a certificate in DER");
    }
    cert = (struct hs_tls_certificate){
        .subject = distinguished_name(X509_get_subject_name(x)),
        .issuer = distinguished_name(X509_get_issuer_name(x)),
        .names = alternative_names(x),
        .serial = serial_text(x),
        .not_before = seconds_of(X509_get0_notBefore(x)),
        .not_after = seconds_of(X509_get0_notAfter(x)),
    };
    X509_free(x);
    ERR_clear_error();
    if (cert.subject == NULL || cert.issuer == NULL || cert.names == NULL || cert.serial == NULL) {
        hs_tls_certificate_fini(&cert);
        return hs_err_setx(err, HS_E_NOMEM, "tls", "no memory for the facts of a certificate");
    }
    *ret_cert = cert;
    return HS_OK;
}
