/* token.h: the objects CancelToken and Callback.
 *
 * Everything that Python can see is visible to its garbage collector: a token holds its parents,
 * the exceptions it was cancelled with, and its callbacks; a callback holds its token and its
 * callable. The core holds none of them.
 */
#ifndef HS_BINDING_TOKEN_H
#define HS_BINDING_TOKEN_H

#include "binding/base/state.h"

#include <stdatomic.h>

typedef struct {
    HS_HEAD
    struct hs_token *core;
    PyObject *parents;   /* tuple; write once */
    PyObject *causes;    /* dict: cookie -> exception, or NULL */
    PyObject *callbacks; /* set of those that may still run, or NULL */
    struct hs_alarm
        *alarm; /* owns; for the callbacks, when a deadline passes; or NULL; write once */
    PyObject *weakrefs;
    atomic_bool between_messages; /* see _ends_only_between_messages */
} TokenObject;

typedef struct {
    HS_HEAD
    struct hs_callback *core; /* NULL: the token had ended before */
    PyObject *token;
    PyObject *callable;
    PyObject *weak; /* owns: a weak reference to itself, which the core knows */
    PyObject *weakrefs;
} CallbackObject;

/* borrows: obj, which must be a CancelToken; else TypeError and NULL. */
struct hs_token *token_core(mod_state *st, PyObject *obj);
/* The exception that cancelled obj or an ancestor of it, as reason says: a new reference or NULL,
 * without an exception set. */
PyObject *token_cause(PyObject *obj, const struct hs_reason *reason);
/* Sets a field of self that is NULL, once; other threads may be about to do the same. Takes value,
 * which may be NULL with an exception. 0 or -1. */
int token_make_once(PyObject *self, PyObject **field, PyObject *value);
/* CancelToken.on_cancel */
PyObject *token_on_cancel(PyObject *self, PyObject *callable);
/* parents: a tuple of CancelTokens; timeout and name as Python gives them, or NULL.
 * returns: new reference */
PyObject *token_make(mod_state *st, PyObject *parents, PyObject *timeout, PyObject *name);
/* type_scope.c: as tp_new of a Scope. */
PyObject *scope_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames);
/* As tp_new, for calls that bring no tuple and no dict. */
PyObject *token_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames);
extern const char token_on_cancel_doc[];

#endif
