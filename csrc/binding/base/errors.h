/* errors.h: exceptions for what the core reports.
 *
 * Each raise_* sets one, with all that is known, and returns -1.
 */
#ifndef HS_BINDING_ERRORS_H
#define HS_BINDING_ERRORS_H

#include "call.h"

/* For hooks: steals value; an attribute that cannot be made (NULL) is left out. */
void error_put(PyObject *dict, PyObject *name, PyObject *value);
/* The bytes of the kernel's address, or None; NULL with an exception set. */
PyObject *error_raw_address(const struct hs_addr *addr);
/* Sets the exception for c->err, with all that is known; returns -1. */
int raise_error(struct call *c, hs_err code);
/* What a connect has tried so far, as an exception's `attempts`. Returns a new reference, or NULL
 * with an exception. */
PyObject *attempts_tuple(mod_state *st, const struct call_route *r);
/* For calls that do not wait. */
int raise_plain_error(mod_state *st, const struct hs_error *err, hs_err code);
/* The same on a connection, whose addresses it tells. */
int raise_conn_error(mod_state *st, struct hs_conn *conn, const struct hs_error *err, hs_err code);
/* The same for HS_E_BREAKER_OPEN. Takes address, which may be NULL. */
int raise_breaker_open(mod_state *st, const struct hs_error *err, PyObject *address);
/* The same; o tells more when it is HS_E_FRAME_TOO_LARGE. */
int raise_frame_error(mod_state *st, const struct hs_error *err, hs_err code,
                      const struct hs_oversize *o);

#endif
