/* detach.h: running the core while other threads have the interpreter.
 *
 * What runs detached touches nothing of Python.
 */
#ifndef HS_BINDING_DETACH_H
#define HS_BINDING_DETACH_H

#include "call.h"

/* Detaches, calls fn(c, arg) once, re-attaches. No core lock is held when it returns. */
typedef hs_err (*call_fn)(struct call *c, void *arg);
hs_err call_step(struct call *c, call_fn fn, void *arg);
/* Detaches around something that neither waits for long nor fails. */
void run_detached(void (*fn)(void *arg), void *arg);
/* The same around a wait: how long attaching takes after it is measured, if anybody wants it. */
void run_waiting(mod_state *st, void (*fn)(void *arg), void *arg);

#endif
