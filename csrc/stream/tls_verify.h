/* tls_verify.h: judging the peer's certificate, and saying what is wrong with it.
 *
 * Which name it has to have is told to OpenSSL before the handshake; the words come after.
 */
#ifndef HS_STREAM_TLS_VERIFY_H
#define HS_STREAM_TLS_VERIFY_H

#include "hardsock.h"

#include <openssl/ssl.h>

/* What was found, for the error. */
struct tls_verdict {
    int code; /* X509_V_ERR_* of the first thing that was wrong, or 0 */
    enum hs_tls_flaw flaw;
    char text[224];
};

/* The name that the certificate must have: a host name, or an IP address, which is compared with
 * addresses only. HS_E_INVALID for what no certificate can be about. */
HS_NODISCARD hs_err hs_tls_expect_name(SSL *ssl, const char *name, struct hs_error *err);
/* Whether a certificate of ours is for the name that a client asks for, by the same rules. */
bool hs_tls_is_for(X509 *cert, const char *name);
/* The same without the check of the certificate: only the name to ask for (SNI), if it is one. */
HS_NODISCARD hs_err hs_tls_ask_for_name(SSL *ssl, const char *name, struct hs_error *err);
/* "expired 3 days ago (2026-11-20)", with whose and from whom. expected: as above, or NULL. */
void hs_tls_describe(X509 *cert, int depth, int code, const char *expected,
                     struct tls_verdict *verdict);

#endif
