/* run.h: one call from Python into the core, from its beginning to its end.
 *
 * The one who makes a struct call begins it with call_begin and ends it with call_end on every
 * path.
 */
#ifndef HS_BINDING_RUN_H
#define HS_BINDING_RUN_H

#include "call.h"
#include "detach.h"
#include "errors.h"

/* For a call that is all zero. timeout and token as given by the caller (NULL or None: not given);
 * default_ns: what the object's settimeout says, HS_NEVER for none, 0 for non-blocking. Call
 * call_end afterwards in any case. */
int call_begin(struct call *c, mod_state *st, PyObject *timeout, PyObject *token,
               int64_t default_ns);
/* Lets it end with token as well; takes token, which is a CancelToken, or NULL: nothing. */
int call_bind(struct call *c, PyObject *token);
void call_end(struct call *c);

/* Whether neither the ambient scope nor bound (NULL: none) has ended, so that a call may begin.
 * False also when that cannot be told; never an exception. */
bool scopes_are_live(mod_state *st, PyObject *bound);

/* Steps it, again on HS_INTR unless a signal handler raised. The op holds an absolute deadline, so
 * that a retry never buys time (PEP 475). 0, or -1 with an exception set; then the caller abandons
 * the op. */
int call_run(struct call *c, call_fn fn, void *arg);

#endif
