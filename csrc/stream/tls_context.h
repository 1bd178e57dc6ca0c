/* tls_context.h: building a context out of options.
 *
 * Used by tls_config.c, which swaps contexts; what a context is stands in tls_context_impl.h.
 */
#ifndef HS_STREAM_TLS_CONTEXT_H
#define HS_STREAM_TLS_CONTEXT_H

#include "tls_context_impl.h"

/* Reads every file. tickets: keys to go on with, or NULL for new ones. */
HS_NODISCARD hs_err hs_tls_context_new(const struct hs_tls_options *o,
                                       struct hs_tls_tickets *tickets, struct hs_error *err,
                                       struct hs_tls_context **ret_context);

void hs_tls_context_unref(struct hs_tls_context *context);

#endif
