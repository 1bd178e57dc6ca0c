/* type_callback.c: what CancelToken.on_cancel returns, and running it.
 *
 * The core knows a callback by a borrowed pointer, which is taken back before the object goes: the
 * token's set keeps the object while it may still run.
 */
#include "token.h"

/* Deadlines have nobody who runs callbacks for them: a Python thread does, started on first
 * need. */
int
callbacks_tell_deadlines(const char *method, PyObject *token)
{
    PyObject *module = PyImport_ImportModule("hardsock._deadlines"), *result;

    if (module == NULL)
        return -1;
    result = token == NULL ? PyObject_CallMethod(module, method, NULL)
                           : PyObject_CallMethod(module, method, "O", token);
    Py_DECREF(module);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static void
callback_let_go(CallbackObject *self)
{
    TokenObject *token = (TokenObject *)self->token;

    if (token != NULL && token->callbacks != NULL &&
        PySet_Discard(token->callbacks, (PyObject *)self) < 0)
        PyErr_Clear();
}

/* Called by hs_callbacks_run, attached. The object is alive: before it goes it takes itself
 * back. */
static void
call_python(void *arg)
{
    CallbackObject *self = (CallbackObject *)Py_NewRef((PyObject *)arg);
    PyObject *result = self->callable == NULL ? NULL : PyObject_CallNoArgs(self->callable);

    if (result == NULL && PyErr_Occurred())
        PyErr_WriteUnraisable(self->callable);
    Py_XDECREF(result);
    callback_let_go(self);
    Py_DECREF(self);
}

static int
keep_callback(TokenObject *token, PyObject *callback)
{
    if (token->callbacks == NULL && (token->callbacks = PySet_New(NULL)) == NULL)
        return -1;
    return PySet_Add(token->callbacks, callback);
}

static CallbackObject *
callback_new(mod_state *st, PyObject *token, PyObject *callable)
{
    CallbackObject *self = object_new(st, st->callback_type);

    if (self != NULL) {
        self->token = Py_NewRef(token);
        self->callable = Py_NewRef(callable);
    }
    return self;
}

const char token_on_cancel_doc[] =
    "on_cancel($self, callback, /)\n--\n\n"
    "Call callback() once when this token ends; returns a Callback to take it back.\n\n"
    "It runs in the thread that cancels (for deadlines: a thread of hardsock's own), with\n"
    "no lock held; at once, in this thread, if the token has ended already. An exception\n"
    "from it goes to sys.unraisablehook. A token that is dropped drops its callbacks.";

PyObject *
token_on_cancel(PyObject *self, PyObject *callable)
{
    mod_state *st = state_of(self);
    struct hs_error err = {0};
    CallbackObject *callback;
    hs_err rv;

    if (!PyCallable_Check(callable)) {
        PyErr_Format(PyExc_TypeError, "callback must be callable, not %.100s",
                     Py_TYPE(callable)->tp_name);
        return NULL;
    }
    if ((callback = callback_new(st, self, callable)) == NULL)
        return NULL;
    if (keep_callback((TokenObject *)self, (PyObject *)callback) < 0)
        goto fail;
    rv = hs_token_on_cancel(((TokenObject *)self)->core, call_python, NULL, callback, &err,
                            &callback->core);
    if (rv == HS_E_CANCELLED || rv == HS_E_DEADLINE) {
        call_python(callback);
    } else if (rv != HS_OK) {
        raise_plain_error(st, &err, rv);
        goto fail;
    } else if (callbacks_tell_deadlines("watch", self) < 0) {
        goto fail;
    }
    return (PyObject *)callback;
fail:
    callback_let_go(callback);
    Py_DECREF(callback);
    return NULL;
}

static hs_err
remove_callback(struct call *c, void *arg)
{
    hs_err rv = hs_callback_remove(arg);

    if (rv == HS_E_FORKED)
        c->err.op = "remove";
    return rv;
}

PyDoc_STRVAR(remove_doc,
             "remove($self, /)\n--\n\n"
             "Take the callback back: when this returns it is not running and never will.\n\n"
             "Waits for it if it is running in another thread. Idempotent.");

static PyObject *
callback_remove(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    CallbackObject *self = (CallbackObject *)obj;
    struct call c = {.st = state_of(obj), .started_ns = hs_now()};

    if (self->core != NULL && call_run(&c, remove_callback, self->core) < 0)
        return NULL;
    callback_let_go(self);
    Py_RETURN_NONE;
}

static int
callback_traverse(PyObject *obj, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(obj);
    Py_VISIT(((CallbackObject *)obj)->token);
    Py_VISIT(((CallbackObject *)obj)->callable);
    return 0;
}

static int
callback_clear(PyObject *obj)
{
    CallbackObject *self = (CallbackObject *)obj;

    /* Not running: whoever runs it holds a reference. So this does not wait; in a forked child it
     * changes nothing. */
    hs_err ignored = self->core == NULL ? HS_OK : hs_callback_remove(self->core);

    (void)ignored;
    Py_CLEAR(self->token);
    Py_CLEAR(self->callable);
    return 0;
}

static void
callback_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    (void)callback_clear(self);
    hs_callback_unref(((CallbackObject *)self)->core);
    object_free(self);
}

static PyMethodDef callback_methods[] = {
    {"remove", callback_remove, METH_NOARGS, remove_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(callback_doc, "A callback on a token, made by CancelToken.on_cancel().\n\n"
                           "The token keeps it: dropping this object does not take the callback\n"
                           "back; remove() does.");

static PyType_Slot callback_slots[] = {
    {Py_tp_dealloc, HS_SLOT(callback_dealloc)},   {Py_tp_traverse, HS_SLOT(callback_traverse)},
    {Py_tp_clear, HS_SLOT(callback_clear)},       {Py_tp_methods, callback_methods},
    {Py_tp_doc, (void *)(uintptr_t)callback_doc}, {0, NULL},
};

PyType_Spec callback_spec = {
    .name = "hardsock.Callback",
    .basicsize = sizeof(CallbackObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = callback_slots,
};
