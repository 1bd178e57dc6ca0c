/* token.c: a CancelToken as every call sees it: its core, and the exception that cancelled it.
 *
 * Beneath the calls: what makes tokens and what they call back is above (type_token.c,
 * type_callback.c).
 */
#include "token.h"

struct hs_token *
token_core(mod_state *st, PyObject *obj)
{
    if (!Py_IS_TYPE(obj, st->token_type)) {
        PyErr_Format(PyExc_TypeError, "token must be a CancelToken or None, not %.100s",
                     Py_TYPE(obj)->tp_name);
        return NULL;
    }
    return ((TokenObject *)obj)->core;
}

static PyObject *
own_cause(TokenObject *self, uint64_t cookie)
{
    PyObject *key, *cause;

    if (self->causes == NULL || (key = PyLong_FromUnsignedLongLong(cookie)) == NULL)
        return NULL;
    cause = PyObject_GetItem(self->causes, key);
    Py_DECREF(key);
    return cause;
}

/* A loop along first parents; further ones, which are bounded, recurse (as in the core). */
PyObject *
token_cause(PyObject *obj, const struct hs_reason *reason)
{
    PyObject *cause = NULL;

    while (obj != NULL && cause == NULL) {
        TokenObject *self = (TokenObject *)obj;
        Py_ssize_t n = self->parents == NULL ? 0 : PyTuple_GET_SIZE(self->parents);

        if (hs_token_id(self->core) == reason->origin) {
            cause = own_cause(self, reason->cookie);
            break;
        }
        for (Py_ssize_t i = 1; i < n && cause == NULL; i++)
            cause = token_cause(PyTuple_GET_ITEM(self->parents, i), reason);
        obj = n > 0 ? PyTuple_GET_ITEM(self->parents, 0) : NULL;
    }
    if (cause == NULL)
        PyErr_Clear();
    return cause;
}

int
token_make_once(PyObject *self, PyObject **field, PyObject *value)
{
    (void)self; /* Its lock, where there is no GIL. */
    if (value == NULL)
        return -1;
    HS_BEGIN_LOCKED(self);
    if (*field == NULL) {
        *field = value;
        value = NULL;
    }
    HS_END_LOCKED();
    Py_XDECREF(value);
    return 0;
}
