/* token.h: the objects CancelToken and Callback, between type_token.c and type_callback.c.
 *
 * Everything that Python can see is visible to its garbage collector: a token holds its parents,
 * the exceptions it was cancelled with, and its callbacks; a callback holds its token and its
 * callable. The core holds none of them.
 */
#ifndef HS_BINDING_TOKEN_H
#define HS_BINDING_TOKEN_H

#include "args.h"
#include "run.h"

#include <stdatomic.h>

typedef struct {
    PyObject_HEAD
    struct hs_token *core;
    PyObject *parents;   /* tuple; write once */
    PyObject *causes;    /* dict: cookie -> exception, or NULL */
    PyObject *callbacks; /* set of those that may still run, or NULL */
    PyObject *weakrefs;
    atomic_bool between_messages; /* see _ends_only_between_messages */
} TokenObject;

typedef struct {
    PyObject_HEAD
    struct hs_callback *core; /* NULL: the token had ended before */
    PyObject *token;
    PyObject *callable;
} CallbackObject;

int callback_type_init(PyObject *module, mod_state *st);
/* CancelToken.on_cancel */
PyObject *token_on_cancel(PyObject *self, PyObject *callable);
extern const char token_on_cancel_doc[];
/* Tells hardsock._deadlines: "watch" a token, or "recheck" those without a deadline (NULL). */
int callbacks_tell_deadlines(const char *method, PyObject *token);

#endif
