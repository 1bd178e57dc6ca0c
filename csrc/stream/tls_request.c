/* tls_request.c: a server asks for the client's certificate after the handshake (RFC 8446 section
 * 4.6.2). See tls_impl.h for the states.
 *
 * OpenSSL takes the answer in whenever something is read. It does not tell that it has: what tells
 * is the client's Finished, the only one that can come on a TLS 1.3 connection that is open.
 */
#include "tls.h"

#include "tls_error.h"
#include "tls_fault.h"
#include "tls_impl.h"
#include "../base/err.h"

#include <openssl/err.h>
#include <stdlib.h>

/* A message is handed over before it is verified: see tls_impl.h. */
static void
on_message(int sent, int version, int type, const void *bytes, size_t len, SSL *ssl, void *arg)
{
    struct hs_tls *t = arg;

    (void)version;
    (void)ssl;
    if (sent || type != SSL3_RT_HANDSHAKE || len == 0 ||
        *(const unsigned char *)bytes != SSL3_MT_FINISHED || t->request != REQUEST_SENT)
        return;
    t->request = REQUEST_ANSWERED;
    t->late_certificate = true;
}

/* Nothing was sent, and nothing has changed. */
static hs_err
cannot_ask(struct hs_tls *t, struct hs_error *err)
{
    unsigned long code = ERR_peek_error();

    ERR_clear_error();
    if (SSL_version(t->ssl) < TLS1_3_VERSION)
        return hs_tls_refuse(err, HS_TLS_VERSION,
                             "the client speaks %s: only with TLS 1.3 can it be asked for a "
                             "certificate after the handshake",
                             SSL_get_version(t->ssl));
    if (ERR_GET_REASON(code) == SSL_R_EXTENSION_NOT_RECEIVED)
        return hs_tls_refuse(err, HS_TLS_VERSION,
                             "the client has not offered to be asked for a certificate after the "
                             "handshake (post_handshake_auth)");
    return hs_tls_refuse(err, HS_TLS_LOCAL, "the client could not be asked for a certificate");
}

/* In the order in which they are told. */
static hs_err
check_request(const struct hs_tls *t, struct hs_error *err)
{
    if (t->context->role != HS_TLS_SERVER)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "a client asks for no certificate: its server has shown one");
    if (!t->context->verify)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "client certificates cannot be checked: client_certificates must not be "
                           "'none'");
    if (t->goodbye_begun)
        return hs_err_setx(err, HS_E_CLOSED, NULL, "the TLS stream was ended here");
    if (t->half_sent > 0)
        return hs_err_setx(err, HS_E_POISONED, NULL,
                           "a TLS record of an earlier send is half out: nothing can be asked "
                           "behind it");
    return HS_OK;
}

static hs_err
send_request(struct hs_tls *t, bool required, struct hs_error *err, short *want)
{
    int mode = SSL_VERIFY_PEER | (required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), ret;
    hs_err rv;

    if (t->request == REQUEST_ANSWERED && (!required || SSL_get0_peer_certificate(t->ssl) != NULL))
        return HS_OK;
    if ((rv = check_request(t, err)) != HS_OK)
        return rv;
    if (SSL_version(t->ssl) < TLS1_3_VERSION && SSL_get0_peer_certificate(t->ssl) != NULL) {
        t->request = REQUEST_ANSWERED; /* in the handshake */
        return HS_OK;
    }
    /* An answer is judged when it comes, by what the latest call wants of it; one that came without
     * a certificate, to a call that did not require it, is asked for again. */
    SSL_set_verify(t->ssl, mode, SSL_get_verify_callback(t->ssl));
    if (t->request != REQUEST_SENT) {
        SSL_set_msg_callback(t->ssl, on_message);
        SSL_set_msg_callback_arg(t->ssl, t);
        if (!SSL_verify_client_post_handshake(t->ssl))
            return cannot_ask(t, err);
        t->request = REQUEST_SENT;
    }
    if (!SSL_in_init(t->ssl) || (ret = hs_sys_ssl_handshake(t->ssl)) > 0)
        return HS_OK;
    rv = hs_tls_meaning(t, ret, err, want);
    return rv == HS_E_END ? HS_OK : rv; /* Reading tells. */
}

hs_err
hs_tls_try_request(struct hs_tls *t, bool required, struct hs_error *err, short *want)
{
    hs_err rv;

    if ((rv = hs_tls_call_begin(t, err)) != HS_OK)
        return rv;
    return hs_tls_write_call_end(t, send_request(t, required, err, want));
}

bool
hs_tls_take_answer(struct hs_tls *t)
{
    bool has;

    hs_lock_take(&t->lock);
    if ((has = t->request == REQUEST_ANSWERED && t->state == TLS_OPEN)) {
        t->request = REQUEST_NONE;
        free(t->verdict);
        t->verdict = NULL;
    }
    hs_lock_drop(&t->lock);
    return has;
}
