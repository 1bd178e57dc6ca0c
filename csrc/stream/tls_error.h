/* tls_error.h: from what OpenSSL says to what happened.
 *
 * The only reader of OpenSSL's error queue; the one who asks here finds it empty afterwards.
 */
#ifndef HS_STREAM_TLS_ERROR_H
#define HS_STREAM_TLS_ERROR_H

#include "hardsock.h"
#include "tls_bio.h"

#include <openssl/ssl.h>

/* What is known about the object that failed. */
struct tls_failing {
    const struct hs_tls_io *io;
    const char *peer; /* the name that was expected, or "the client" */
    bool handshake, is_server;
    bool ended;          /* by close_notify, in the middle of a handshake */
    const char *verdict; /* what was wrong with the peer's certificate, or NULL */
    int verify;          /* X509_V_ERR_*, or 0 */
    enum hs_tls_flaw flaw;
};

/* After a call that returned ret <= 0, in the same thread, with nothing of OpenSSL between: the
 * answer of SSL_get_error decides. Drains the thread's error queue. */
HS_NODISCARD hs_err hs_tls_failed(const struct tls_failing *f, int ssl_error, struct hs_error *err);
/* A setting that OpenSSL refuses: HS_E_INVALID with its reason. value may be NULL. */
HS_NODISCARD hs_err hs_tls_config_error(struct hs_error *err, const char *parameter,
                                        const char *value);
/* The same for failures in the handshake that we decide on. */
HS_NODISCARD hs_err hs_tls_refuse(struct hs_error *err, enum hs_tls_failure failure,
                                  const char *fmt, ...) HS_PRINTF(3, 4);

#endif
