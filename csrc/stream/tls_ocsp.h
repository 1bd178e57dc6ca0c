/* tls_ocsp.h: stapled OCSP responses, checked by clients.
 *
 * RFC 6960, RFC 6066 section 8. Nothing is fetched: what is not stapled is not there.
 */
#ifndef HS_STREAM_TLS_OCSP_H
#define HS_STREAM_TLS_OCSP_H

#include "tls_verify.h"

#include <openssl/ssl.h>

/* Judges what the server stapled to its verified certificate. mode is CHECK or REQUIRE; a
 * certificate with the "must staple" extension (RFC 7633) requires by itself.
 * HS_OK with *ret_state, or HS_E_CERTIFICATE with verdict filled. */
HS_NODISCARD hs_err hs_tls_check_staple(SSL *ssl, enum hs_tls_ocsp_mode mode, const char *expected,
                                        struct tls_verdict *verdict, enum hs_ocsp_state *ret_state);

#endif
