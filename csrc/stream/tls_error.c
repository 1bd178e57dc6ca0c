/* tls_error.c: see tls_error.h. One table maps OpenSSL's reasons to kinds of failures.
 *
 * OpenSSL 3 reports a bare end of the TCP stream as SSL_ERROR_SSL with the reason
 * UNEXPECTED_EOF_WHILE_READING, before that it was SSL_ERROR_SYSCALL with an empty queue; both come
 * here. What the socket said is in io, not in errno.
 */
#include "tls_error.h"

#include "../base/err.h"

#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const names[HS_TLS_FAILURES] = {
    [HS_TLS_NONE] = "none",         [HS_TLS_EMPTY] = "empty",         [HS_TLS_ABORTED] = "aborted",
    [HS_TLS_ALERT] = "alert",       [HS_TLS_HTTP] = "http",           [HS_TLS_NOT_TLS] = "not_tls",
    [HS_TLS_VERIFY] = "verify",     [HS_TLS_VERSION] = "version",     [HS_TLS_CIPHER] = "cipher",
    [HS_TLS_ALPN] = "alpn",         [HS_TLS_TIMEOUT] = "timeout",     [HS_TLS_RESET] = "reset",
    [HS_TLS_PROTOCOL] = "protocol", [HS_TLS_PLAINTEXT] = "plaintext", [HS_TLS_LOCAL] = "local",
    [HS_TLS_EVICTED] = "evicted",
};

const char *
hs_tls_failure_name(enum hs_tls_failure failure)
{
    return (unsigned)failure < HS_TLS_FAILURES ? names[failure] : "unknown";
}

/* Of the library SSL; whatever is missing is HS_TLS_PROTOCOL. */
static const struct {
    int reason;
    enum hs_tls_failure failure;
} reasons[] = {
    {SSL_R_HTTP_REQUEST, HS_TLS_HTTP},
    {SSL_R_HTTPS_PROXY_REQUEST, HS_TLS_HTTP},
    {SSL_R_WRONG_VERSION_NUMBER, HS_TLS_NOT_TLS}, /* of the record: no TLS has it */
    {SSL_R_UNSUPPORTED_PROTOCOL, HS_TLS_VERSION},
    {SSL_R_UNKNOWN_PROTOCOL, HS_TLS_VERSION}, /* SSL 2 */
    {SSL_R_VERSION_TOO_LOW, HS_TLS_VERSION},
    {SSL_R_WRONG_SSL_VERSION, HS_TLS_VERSION},
    {SSL_R_NO_PROTOCOLS_AVAILABLE, HS_TLS_VERSION},
    {SSL_R_NO_SHARED_CIPHER, HS_TLS_CIPHER},
    {SSL_R_NO_SUITABLE_KEY_SHARE, HS_TLS_CIPHER},
    {SSL_R_NO_SHARED_GROUPS, HS_TLS_CIPHER},
    {SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, HS_TLS_CIPHER},
    {SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, HS_TLS_CIPHER},
    {SSL_R_WRONG_SIGNATURE_TYPE, HS_TLS_CIPHER},
    {SSL_R_WRONG_CIPHER_RETURNED, HS_TLS_CIPHER},
    {SSL_R_UNKNOWN_CIPHER_RETURNED, HS_TLS_CIPHER},
    {SSL_R_DH_KEY_TOO_SMALL, HS_TLS_CIPHER},
    {SSL_R_NO_APPLICATION_PROTOCOL, HS_TLS_ALPN},
    {SSL_R_CERTIFICATE_VERIFY_FAILED, HS_TLS_VERIFY},
    {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, HS_TLS_VERIFY},
    {SSL_R_NO_CERTIFICATES_RETURNED, HS_TLS_VERIFY},
    {SSL_R_CA_KEY_TOO_SMALL, HS_TLS_VERIFY},
    {SSL_R_CA_MD_TOO_WEAK, HS_TLS_VERIFY},
    {SSL_R_EE_KEY_TOO_SMALL, HS_TLS_VERIFY},
    {SSL_R_INVALID_STATUS_RESPONSE, HS_TLS_VERIFY},
};

/* Reasons that all libraries share: something is wrong inside, or a library below failed; what
 * fails of parsing is the peer's. */
static bool
is_our_fault(unsigned long code)
{
    int reason = ERR_GET_REASON(code);

    return reason == SSL_R_CALLBACK_FAILED || reason == SSL_R_CERT_CB_ERROR ||
           reason == SSL_R_UNABLE_TO_FIND_ECDH_PARAMETERS ||
           reason == SSL_R_CANNOT_CHANGE_CIPHER ||   /* a key of ours cannot be made */
           reason == SSL_R_COPY_PARAMETERS_FAILED || /* the same */
           (ERR_COMMON_ERROR(code) && reason != ERR_R_ASN1_LIB && reason != ERR_R_X509_LIB &&
            reason != ERR_R_NESTED_ASN1_ERROR);
}

static enum hs_tls_failure
tls_error_classify(unsigned long code)
{
    int reason = ERR_GET_REASON(code);

    if (is_our_fault(code))
        return HS_TLS_LOCAL;
    if (ERR_GET_LIB(code) != ERR_LIB_SSL)
        return HS_TLS_PROTOCOL;
    if (reason >= SSL_AD_REASON_OFFSET)
        return HS_TLS_ALERT;
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (reasons[i].reason == reason)
            return reasons[i].failure;
    return HS_TLS_PROTOCOL;
}

static hs_err
tls_error_note(struct hs_error *err, hs_err rv, enum hs_tls_failure failure)
{
    if (err != NULL && err->code == rv && err->tls == HS_TLS_NONE)
        err->tls = failure;
    return rv;
}

hs_err
hs_tls_refuse(struct hs_error *err, enum hs_tls_failure failure, const char *fmt, ...)
{
    hs_err rv = failure == HS_TLS_VERIFY ? HS_E_CERTIFICATE : HS_E_TLS;
    char text[sizeof(err->msg)];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return tls_error_note(err, hs_err_setx(err, rv, NULL, "%s", text), failure);
}

hs_err
hs_tls_config_error(struct hs_error *err, const char *parameter, const char *value)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    (void)hs_err_setx(err, HS_E_INVALID, "tls", "%s: %s%.120s%s%s", parameter,
                      value != NULL ? "\"" : "", value != NULL ? value : "",
                      value != NULL ? "\": " : "", reason != NULL ? reason : "not accepted");
    ERR_clear_error();
    return HS_E_INVALID;
}

static hs_err
ended_early(const struct tls_failing *f, struct hs_error *err)
{
    if (!f->handshake)
        return hs_err_setx(err, HS_E_TRUNCATED, NULL,
                           "the peer ended the connection without ending its TLS stream "
                           "(no close_notify): what came may not be all");
    if (f->io->received_ns == 0)
        return hs_tls_refuse(err, HS_TLS_EMPTY, "%s closed the connection without sending a byte",
                             f->peer);
    return hs_tls_refuse(err, HS_TLS_ABORTED,
                         "%s closed the connection in the middle of the handshake", f->peer);
}

static const char *
advice(enum hs_tls_failure failure, const struct tls_failing *f)
{
    switch (failure) {
    case HS_TLS_HTTP:
        return "speaks plain HTTP on a port for TLS";
    case HS_TLS_NOT_TLS:
        return f->handshake ? "does not speak TLS" : "sent what is no TLS record";
    case HS_TLS_VERSION:
        return "offers no TLS version that is allowed here";
    case HS_TLS_CIPHER:
        return "offers no cipher, group, signature or key strength that is allowed here";
    case HS_TLS_ALPN:
        return "offers no application protocol (ALPN) that is spoken here";
    case HS_TLS_VERIFY:
        return f->is_server ? "sent no certificate that is accepted here"
                            : "has no certificate that is accepted here";
    case HS_TLS_LOCAL:
        return "is not to blame: TLS failed here";
    default:
        return "broke the TLS protocol";
    }
}

/* What the queue held: the first entry says most, the last of the library SSL what it meant to the
 * connection: the peer's fault, or one of ours that a library below it had. */
struct queue {
    unsigned long first, meant;
    bool no_memory;
};

static hs_err
protocol_failed(const struct tls_failing *f, const struct queue *q, struct hs_error *err)
{
    enum hs_tls_failure failure = f->verify != 0 ? HS_TLS_VERIFY : tls_error_classify(q->meant);
    const char *reason = ERR_reason_error_string(q->first);
    int alert = ERR_GET_REASON(q->meant) - SSL_AD_REASON_OFFSET;
    hs_err rv;

    if (failure == HS_TLS_NOT_TLS && f->io->is_http)
        failure = HS_TLS_HTTP;
    if (failure == HS_TLS_ALERT)
        rv = hs_tls_refuse(err, failure, "%s refused: alert %d, %s", f->peer, alert,
                           SSL_alert_desc_string_long(alert));
    else if (failure == HS_TLS_VERIFY && f->verdict != NULL)
        rv = hs_tls_refuse(err, failure, "%s", f->verdict);
    else
        rv = hs_tls_refuse(err, failure, "%s %s (%s)", f->peer, advice(failure, f),
                           reason != NULL ? reason : "unknown reason");
    if (err != NULL && err->code == rv && err->ssl == 0) {
        err->ssl = q->first;
        err->alert = failure == HS_TLS_ALERT ? alert : -1;
        err->verify = f->verify;
        err->flaw = f->flaw;
    }
    return rv;
}

static struct queue
drain_queue(void)
{
    struct queue q = {0};
    unsigned long code;

    while ((code = ERR_get_error()) != 0) {
        if (q.first == 0)
            q.first = q.meant = code;
        if (ERR_GET_LIB(code) == ERR_LIB_SSL)
            q.meant = code;
        q.no_memory = q.no_memory || ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE;
    }
    return q;
}

hs_err
hs_tls_failed(const struct tls_failing *f, int ssl_error, struct hs_error *err)
{
    struct queue q = drain_queue();
    bool broke = q.first == 0 && f->io->rv < 0;
    bool at_end = f->io->eof && !broke &&
                  (q.first == 0 || (ERR_GET_LIB(q.meant) == ERR_LIB_SSL &&
                                    ERR_GET_REASON(q.meant) == SSL_R_UNEXPECTED_EOF_WHILE_READING));
    hs_err rv;

    /* A reason in the queue was first: the connection may only have failed under our alert. */
    if (broke)
        rv = tls_error_note(err, hs_tls_io_error(f->io, err),
                            f->handshake && f->is_server && f->io->received_ns == 0 ? HS_TLS_EMPTY
                                                                                    : HS_TLS_RESET);
    else if (at_end || (q.first == 0 && f->ended))
        rv = ended_early(f, err);
    else if (q.no_memory)
        rv = tls_error_note(err, hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for TLS"),
                            HS_TLS_LOCAL);
    else if (q.first == 0)
        rv = hs_tls_refuse(err, HS_TLS_LOCAL, "OpenSSL failed without a reason (%d)", ssl_error);
    else
        rv = protocol_failed(f, &q, err);
    return rv;
}
