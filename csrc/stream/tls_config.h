/* tls_config.h: what callers share, and the context of the moment behind it.
 *
 * What a context is stands in tls_context_impl.h.
 */
#ifndef HS_STREAM_TLS_CONFIG_H
#define HS_STREAM_TLS_CONFIG_H

#include "tls_context.h"

/* returns: new reference to the context of the moment. */
struct hs_tls_context *hs_tls_config_context(struct hs_tls_config *config);

#endif
