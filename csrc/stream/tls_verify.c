/* tls_verify.c: see tls_verify.h.
 *
 * The check itself is OpenSSL's, in the handshake, never after it. What OpenSSL would take for "no
 * check" or "any subdomain" (an empty name, a leading dot) is refused before.
 */
#include "tls_verify.h"

#include "../base/err.h"

#include <arpa/inet.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Of a name as an error shows it. */
#define NAME_TEXT 49
#define HOST_FLAGS (X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT)
/* A name of 253 characters with another first label. */
#define STAND_IN_SIZE 320

static bool
is_address(const char *name)
{
    struct in6_addr any;

    return inet_pton(AF_INET, name, &any) == 1 || inet_pton(AF_INET6, name, &any) == 1;
}

/* The scope of "fe80::1%eth0" is about this machine's interfaces, not about the peer. */
static size_t
without_scope(const char *name, size_t n)
{
    const char *percent = memchr(name, '%', n);
    char address[INET6_ADDRSTRLEN];
    struct in6_addr any;
    size_t len = percent != NULL ? (size_t)(percent - name) : n;

    if (percent == NULL || len >= sizeof(address))
        return n;
    memcpy(address, name, len);
    address[len] = '\0';
    return inet_pton(AF_INET6, address, &any) == 1 ? len : n;
}

/* Without one trailing dot, which DNS has and certificates have not (RFC 6066 section 3). */
static hs_err
clean_name(const char *name, char out[256], struct hs_error *err)
{
    size_t n = strlen(name);

    if (n > 0 && name[n - 1] == '.')
        n--;
    n = without_scope(name, n);
    if (n == 0 || n > 253)
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "server_name must have 1 to 253 characters, got %zu", n);
    if (name[0] == '.')
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "server_name must not begin with a dot: %.100s", name);
    for (size_t i = 0; i < n; i++) /* OpenSSL finds "*.example" in a certificate for it. */
        if (name[i] == '*' || name[i] <= 0x20 || name[i] >= 0x7f)
            return hs_err_setx(err, HS_E_INVALID, "tls",
                               "server_name holds the byte 0x%02x, which no name has",
                               (unsigned char)name[i]);
    memcpy(out, name, n);
    out[n] = '\0';
    return HS_OK;
}

/* A wildcard of OpenSSL's stands for letters, digits and hyphens only (openssl issue 12566), while
 * names with underscores are in use and others take "*.example" for "a_b.example". So a label that
 * nobody can have a certificate for, because nobody can guess it, takes the place of the first one:
 * only a wildcard is for that. False: there is no need, or no random number. */
static bool
stand_in(const char *name, char out[STAND_IN_SIZE])
{
    size_t label = strcspn(name, ".");
    unsigned char random[16];
    size_t n = 0;

    if (memchr(name, '_', label) == NULL || name[label] == '\0' || strlen(name) > 255 ||
        RAND_bytes(random, sizeof(random)) != 1)
        return false;
    for (size_t i = 0; i < sizeof(random); i++)
        n += (size_t)snprintf(out + n, STAND_IN_SIZE - n, "%02x", random[i]);
    (void)snprintf(out + n, STAND_IN_SIZE - n, "%s", name + label);
    return true;
}

bool
hs_tls_is_for(X509 *cert, const char *name)
{
    char other[STAND_IN_SIZE];

    return X509_check_host(cert, name, 0, HOST_FLAGS, NULL) == 1 ||
           (stand_in(name, other) && X509_check_host(cert, other, 0, HOST_FLAGS, NULL) == 1);
}

hs_err
hs_tls_ask_for_name(SSL *ssl, const char *name, struct hs_error *err)
{
    char clean[256];
    hs_err rv;

    if ((rv = clean_name(name, clean, err)) != HS_OK || is_address(clean))
        return rv; /* RFC 6066: no SNI for addresses */
    if (!SSL_set_tlsext_host_name(ssl, clean))
        return hs_err_setx(err, HS_E_NOMEM, "tls", "no memory for a name");
    return HS_OK;
}

hs_err
hs_tls_expect_name(SSL *ssl, const char *name, struct hs_error *err)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    char clean[256], other[STAND_IN_SIZE];
    int ok;
    hs_err rv;

    if ((rv = clean_name(name, clean, err)) != HS_OK)
        return rv;
    X509_VERIFY_PARAM_set_hostflags(param, HOST_FLAGS);
    if (is_address(clean))
        ok = X509_VERIFY_PARAM_set1_ip_asc(param, clean);
    else
        ok = X509_VERIFY_PARAM_set1_host(param, clean, 0) &&
             (!stand_in(clean, other) || X509_VERIFY_PARAM_add1_host(param, other, 0));
    if (!ok)
        return hs_err_setx(err, HS_E_INVALID, "tls", "server_name is not a name: %.100s", clean);
    return HS_OK;
}

/* ---- Words --------------------------------------------------------------------------------- */

static void say(char *buf, size_t size, const char *fmt, ...) HS_PRINTF(3, 4);

/* Names have any length; what does not fit is cut. */
static void
say(char *buf, size_t size, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(buf, size, fmt, ap);
    va_end(ap);
}

static void
name_text(const X509_NAME *name, char *buf, size_t size)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int n = 0;

    if (bio != NULL &&
        X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0)
        n = BIO_read(bio, buf, (int)size - 1);
    buf[n > 0 ? n : 0] = '\0';
    BIO_free(bio);
    if (buf[0] == '\0')
        (void)snprintf(buf, size, "(no name)");
}

static void
date_text(const ASN1_TIME *t, char buf[16])
{
    struct tm tm = {0};

    if (!ASN1_TIME_to_tm(t, &tm) || strftime(buf, 16, "%Y-%m-%d", &tm) == 0)
        (void)snprintf(buf, 16, "?");
}

/* "3 days", "5 hours" between two times. */
static void
span_text(const ASN1_TIME *from, const ASN1_TIME *to, char buf[32])
{
    int days = 0, seconds = 0;

    (void)ASN1_TIME_diff(&days, &seconds, from, to);
    if (days != 0)
        (void)snprintf(buf, 32, "%d day%s", days, days == 1 ? "" : "s");
    else
        (void)snprintf(buf, 32, "%d minutes", seconds / 60);
}

/* Nobody has vouched for the certificate when its names are shown: what is no letter of a name, a
 * NUL or a line end that would forge a log, is shown as '?'. False: another kind of name. */
static bool
one_name_text(const GENERAL_NAME *name, char text[NAME_TEXT])
{
    int type;
    const ASN1_STRING *s = GENERAL_NAME_get0_value(name, &type);
    const unsigned char *data;
    int len;

    if (type != GEN_DNS && type != GEN_IPADD)
        return false;
    data = ASN1_STRING_get0_data(s);
    len = ASN1_STRING_length(s);
    if (type == GEN_IPADD) {
        if ((len != 4 && len != 16) ||
            inet_ntop(len == 4 ? AF_INET : AF_INET6, data, text, NAME_TEXT) == NULL)
            (void)snprintf(text, NAME_TEXT, "no address");
        return true;
    }
    if (len > NAME_TEXT - 1)
        len = NAME_TEXT - 1;
    for (int i = 0; i < len; i++)
        text[i] = (char)(data[i] > 0x20 && data[i] < 0x7f ? data[i] : '?');
    text[len] = '\0';
    return true;
}

/* The first few names that it is for. */
static void
names_text(X509 *cert, char *buf, size_t size)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    char text[NAME_TEXT];
    size_t used = 0;
    int shown = 0;

    buf[0] = '\0';
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && used + NAME_TEXT + 16 < size; i++)
        if (one_name_text(sk_GENERAL_NAME_value(names, i), text))
            used +=
                (size_t)snprintf(buf + used, size - used, "%s%s", shown++ > 0 ? ", " : "", text);
    if (shown == 0)
        (void)snprintf(buf, size, "no name at all");
    else if (sk_GENERAL_NAME_num(names) > shown)
        (void)snprintf(buf + used, size - used, " and %d more", sk_GENERAL_NAME_num(names) - shown);
    GENERAL_NAMES_free(names);
}

/* Whether a wildcard of its would be for the name if it stood for no label, or for several. */
static bool
wildcard_falls_short(const char *data, size_t len, const char *name)
{
    size_t n = strlen(name), tail;

    if (len < 3 || data[0] != '*' || data[1] != '.')
        return false;
    tail = len - 2; /* without "*." */
    if (n == tail)
        return strncasecmp(name, data + 2, tail) == 0;
    return n > tail + 1 && name[n - tail - 1] == '.' &&
           strncasecmp(name + n - tail, data + 2, tail) == 0;
}

static enum hs_tls_flaw
flaw_of_one(const GENERAL_NAME *name, const char *expected)
{
    int type;
    const ASN1_STRING *s = GENERAL_NAME_get0_value(name, &type);
    const char *data;
    size_t len;

    if (type != GEN_DNS)
        return HS_TLS_FLAW_NONE;
    data = (const char *)ASN1_STRING_get0_data(s);
    len = (size_t)ASN1_STRING_length(s);
    if (is_address(expected))
        return len == strlen(expected) && memcmp(data, expected, len) == 0
                   ? HS_TLS_FLAW_ADDRESS_AS_NAME
                   : HS_TLS_FLAW_NONE;
    return wildcard_falls_short(data, len, expected) ? HS_TLS_FLAW_WILDCARD : HS_TLS_FLAW_NONE;
}

/* Why it is not for the name, when it is one of the usual mistakes. */
static enum hs_tls_flaw
flaw_of_names(X509 *cert, const char *name)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    enum hs_tls_flaw flaw = HS_TLS_FLAW_NONE;
    char expected[256], text[NAME_TEXT];
    int n = 0, addresses = 0;

    if (clean_name(name, expected, NULL) != HS_OK)
        expected[0] = '\0';
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && flaw == HS_TLS_FLAW_NONE; i++) {
        const GENERAL_NAME *one = sk_GENERAL_NAME_value(names, i);

        n += one_name_text(one, text) ? 1 : 0;
        addresses += one->type == GEN_IPADD;
        flaw = flaw_of_one(one, expected);
    }
    GENERAL_NAMES_free(names);
    if (flaw == HS_TLS_FLAW_NONE && n == 0 &&
        X509_NAME_get_index_by_NID(X509_get_subject_name(cert), NID_commonName, -1) >= 0)
        flaw = HS_TLS_FLAW_COMMON_NAME;
    if (flaw == HS_TLS_FLAW_NONE && n > 0 && addresses == 0 && is_address(expected))
        flaw = HS_TLS_FLAW_NO_ADDRESS;
    return flaw;
}

static enum hs_tls_flaw
flaw_of(X509 *cert, int code, const char *expected)
{
    switch (code) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return expected != NULL ? flaw_of_names(cert, expected) : HS_TLS_FLAW_NONE;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        return HS_TLS_FLAW_SELF_SIGNED;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        return HS_TLS_FLAW_ISSUER;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return HS_TLS_FLAW_EARLY;
    default:
        return HS_TLS_FLAW_NONE;
    }
}

void
hs_tls_describe(X509 *cert, int depth, int code, const char *expected, struct tls_verdict *v)
{
    char subject[80] = "(none)", issuer[80] = "(none)", names[96], span[32], date[16];
    char whose[128];

    if (cert != NULL) {
        name_text(X509_get_subject_name(cert), subject, sizeof(subject));
        name_text(X509_get_issuer_name(cert), issuer, sizeof(issuer));
    }
    if (expected == NULL)
        say(whose, sizeof(whose), "certificate %.90s", subject);
    else if (depth == 0)
        say(whose, sizeof(whose), "certificate for %.90s", expected);
    else
        say(whose, sizeof(whose), "certificate %.48s above that for %.40s", subject, expected);
    v->code = code;
    v->flaw = cert != NULL ? flaw_of(cert, code, expected) : HS_TLS_FLAW_NONE;
    switch (cert == NULL ? X509_V_ERR_UNSPECIFIED : code) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        span_text(X509_get0_notAfter(cert), NULL, span);
        date_text(X509_get0_notAfter(cert), date);
        say(v->text, sizeof(v->text), "%s expired %s ago (%s), issuer %s", whose, span, date,
            issuer);
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        span_text(NULL, X509_get0_notBefore(cert), span);
        date_text(X509_get0_notBefore(cert), date);
        say(v->text, sizeof(v->text), "%s is valid only in %s (from %s), issuer %s", whose, span,
            date, issuer);
        break;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        names_text(cert, names, sizeof(names));
        say(v->text, sizeof(v->text), "certificate is for %s, not for %.100s", names,
            expected != NULL ? expected : "this name");
        break;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        say(v->text, sizeof(v->text), "%s is self-signed, and not trusted here", whose);
        break;
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        say(v->text, sizeof(v->text), "%s is a root that is not trusted here", whose);
        break;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        say(v->text, sizeof(v->text),
            "%s has an issuer that is not known here: %s (not trusted, or an "
            "intermediate was not sent)",
            whose, issuer);
        break;
    case X509_V_ERR_CERT_REVOKED:
        say(v->text, sizeof(v->text), "%s is revoked, issuer %s", whose, issuer);
        break;
    default:
        say(v->text, sizeof(v->text), "%s: %s, issuer %s", whose,
            X509_verify_cert_error_string(code), issuer);
    }
}
