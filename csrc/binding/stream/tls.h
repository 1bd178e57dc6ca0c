/* tls.h: TLS settings as arguments of methods.
 *
 * A hardsock.TLSConfig holds a _core.TLSContext in its attribute _context; methods take either.
 */
#ifndef HS_BINDING_TLS_H
#define HS_BINDING_TLS_H

#include "binding/base/state.h"

/* 0 with a new reference in *ret_config (NULL for None or NULL), or -1 with a TypeError. */
int parse_tls(mod_state *st, PyObject *obj, const char *name, struct hs_tls_config **ret_config);
/* A host name for TLS, as DNS has it. *ret_owner: a new reference, whose text *ret_name is; neither
 * is written for None or NULL. */
int parse_server_name(PyObject *obj, PyObject **ret_owner, const char **ret_name);

#endif
