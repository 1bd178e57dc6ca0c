/* tls_rehearse.h: whether this OpenSSL staples OCSP responses, and hands over those that came.
 *
 * Asked when a config is made. Versions differ: 3.6 began to withhold what it does not find to be
 * about the certificate. What is silently off on a newer library must fail here, loudly.
 */
#ifndef HS_STREAM_TLS_REHEARSE_H
#define HS_STREAM_TLS_REHEARSE_H

#include "tls_context_impl.h"

/* A server's certificate with its response: handshakes in memory, in which the response must arrive
 * as it is. HS_E_INVALID when it does not. Blocks for the arithmetic of two handshakes at most. */
HS_NODISCARD hs_err hs_tls_rehearse_staple(const struct tls_identity *id,
                                           const struct hs_tls_options *o, struct hs_error *err);
/* A client: the same with a certificate and a response made for it, once in a process.
 * HS_E_INVALID: this library does not hand over what is stapled: nothing would be checked. */
HS_NODISCARD hs_err hs_tls_rehearse_client(struct hs_error *err);

#endif
