/* tls_callbacks.h: what OpenSSL asks during a handshake.
 *
 * A context is given its callbacks when it is built, by tls_context.c.
 */
#ifndef HS_STREAM_TLS_CALLBACKS_H
#define HS_STREAM_TLS_CALLBACKS_H

#include "tls_context_impl.h"

void hs_tls_install_callbacks(struct hs_tls_context *context);

#endif
