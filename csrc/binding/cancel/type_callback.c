/* type_callback.c: what CancelToken.on_cancel returns, and running it.
 *
 * The core knows a callback by a borrowed pointer, which is taken back before the object goes: the
 * token's set keeps the object while it may still run.
 */
#include "token.h"

#include "binding/base/notifier.h"
#include "binding/base/run.h"

/* ---- Deadlines ----------------------------------------------------------------------------- */

struct deadline {
    struct notice notice;
    struct hs_token *core; /* owns: a reference */
    struct hs_callback *fired;
};

static hs_err
step_deadline(void *arg, struct hs_op *op, struct hs_error *err)
{
    struct deadline *d = arg;
    hs_err rv = hs_token_await(op, err), end;

    if (rv != HS_OK || (end = hs_token_check(d->core)) == HS_E_DEADLINE)
        return rv;
    return end; /* The thread that cancelled it has run the callbacks. */
}

static void
expire_detached(void *arg)
{
    struct deadline *d = arg;
    bool ignored = hs_token_expire(d->core, &d->fired);

    (void)ignored;
}

static void
tell_deadline(struct notice *notice)
{
    struct deadline *d = (struct deadline *)notice;

    run_detached(expire_detached, d);
    hs_callbacks_run(d->fired);
}

static void
release_deadline(void *arg)
{
    hs_token_unref(((struct deadline *)arg)->core);
    PyMem_RawFree(arg);
}

/* Once for each token: further callbacks are in the same list. */
static int
arm_deadline(mod_state *st, TokenObject *token)
{
    struct hs_op op = HS_OP_INIT(HS_NEVER, token->core);
    struct deadline *d = PyMem_RawCalloc(1, sizeof(*d));
    struct hs_alarm *alarm = NULL;

    if (d == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    d->notice.hooks = (struct hs_alarm_hooks){.step = step_deadline, .release = release_deadline};
    d->notice.tell = tell_deadline;
    d->core = hs_token_ref(token->core);
    if (notifier_arm(st, &d->notice, &op, &alarm) < 0)
        return -1;
    HS_BEGIN_LOCKED((PyObject *)token);
    if (token->alarm == NULL) {
        token->alarm = alarm;
        alarm = NULL;
    }
    HS_END_LOCKED();
    hs_alarm_end(alarm); /* Another thread was first. */
    return 0;
}

/* Deadlines have nobody who runs callbacks for them, so the notifier does. A token without one is
 * known to it, but starts no thread: it may get a deadline later, or an ancestor may. */
static int
watch_deadline(mod_state *st, TokenObject *token)
{
    bool armed;

    HS_BEGIN_LOCKED((PyObject *)token);
    armed = token->alarm != NULL;
    HS_END_LOCKED();
    if (!armed && arm_deadline(st, token) < 0)
        return -1;
    return hs_token_deadline(token->core) == HS_NEVER ? 0 : notifier_start(st);
}

/* ---- Callbacks ----------------------------------------------------------------------------- */

static void
callback_let_go(CallbackObject *self)
{
    TokenObject *token = (TokenObject *)self->token;

    if (token != NULL && token->callbacks != NULL &&
        PySet_Discard(token->callbacks, (PyObject *)self) < 0)
        PyErr_Clear();
}

/* Called by hs_callbacks_run, attached, with the weak reference of an object. That is there until
 * this returns, since the object takes itself back before it goes; without the GIL the object
 * itself may be going in another thread, and is not called then. */
static void
call_python(void *arg)
{
    CallbackObject *self = (CallbackObject *)hs_weakref_get(arg);
    PyObject *result;

    if (self == NULL)
        return;
    result = self->callable == NULL ? NULL : PyObject_CallNoArgs(self->callable);
    if (result == NULL && PyErr_Occurred())
        PyErr_WriteUnraisable(self->callable);
    Py_XDECREF(result);
    callback_let_go(self);
    Py_DECREF(self);
}

static int
keep_callback(TokenObject *token, PyObject *callback)
{
    if (token->callbacks == NULL &&
        token_make_once((PyObject *)token, &token->callbacks, PySet_New(NULL)) < 0)
        return -1;
    return PySet_Add(token->callbacks, callback);
}

static CallbackObject *
callback_new(mod_state *st, PyObject *token, PyObject *callable)
{
    CallbackObject *self = object_new(st, st->callback_type);

    if (self == NULL)
        return NULL;
    self->token = Py_NewRef(token);
    self->callable = Py_NewRef(callable);
    if ((self->weak = PyWeakref_NewRef((PyObject *)self, NULL)) == NULL)
        Py_CLEAR(self);
    return self;
}

const char token_on_cancel_doc[] =
    "on_cancel($self, callback, /)\n--\n\n"
    "Call callback() once when this token ends; returns a Callback to take it back.\n\n"
    "It runs in the thread that cancels, with no lock held; at once, in this thread, if the\n"
    "token has ended already. When a deadline passes it runs in the notifier's: one thread of\n"
    "hardsock's own for each interpreter, unknown to the threading module, which calls\n"
    "Pool(on_leak=), too, so that a callback that takes long holds up the others. It is not\n"
    "called any more once the interpreter ends. An exception from it goes to\n"
    "sys.unraisablehook. A token that is dropped drops its callbacks.";

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
    rv = hs_token_on_cancel(((TokenObject *)self)->core, call_python, NULL, callback->weak, &err,
                            &callback->core);
    if (rv == HS_E_CANCELLED || rv == HS_E_DEADLINE) {
        call_python(callback->weak);
    } else if (rv != HS_OK) {
        raise_plain_error(st, &err, rv);
        goto fail;
    } else if (watch_deadline(st, (TokenObject *)self) < 0) {
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

    if (rv < HS_OK)
        c->err->op = "remove";
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
    struct hs_error err = {0};
    struct call c = {.st = state_of(obj), .err = &err, .started_ns = hs_now()};

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
    Py_VISIT(((CallbackObject *)obj)->weak);
    return 0;
}

/* Unreachable, so it is not running: the one who runs it holds a reference. In a forked child it
 * changes nothing. */
static int
callback_clear(PyObject *obj)
{
    CallbackObject *self = (CallbackObject *)obj;
    hs_err ignored = self->core == NULL ? HS_OK : hs_callback_remove(self->core);

    (void)ignored;
    Py_CLEAR(self->token);
    Py_CLEAR(self->callable);
    return 0;
}

#ifdef Py_GIL_DISABLED
static void
remove_detached(void *core)
{
    hs_err rv;

    do /* Also when the wait itself fails: the thread that runs it is about to be done. */
        rv = hs_callback_remove(core);
    while (rv != HS_OK && rv != HS_E_FORKED);
}
#endif

static void
callback_dealloc(PyObject *obj)
{
    CallbackObject *self = (CallbackObject *)obj;

    PyObject_GC_UnTrack(obj);
    PyObject_ClearWeakRefs(obj);
#ifdef Py_GIL_DISABLED
    /* Another thread may be between the core and the weak reference, which it finds dead. */
    if (self->core != NULL)
        run_detached(remove_detached, self->core);
#endif
    (void)callback_clear(obj);
    hs_callback_unref(self->core);
    Py_CLEAR(self->weak);
    object_free(obj);
}

static PyMethodDef callback_methods[] = {
    {"remove", callback_remove, METH_NOARGS, remove_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef callback_members[] = {
    {"__weaklistoffset__", HS_T_PYSSIZET, offsetof(CallbackObject, weakrefs), HS_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(callback_doc, "A callback on a token, made by CancelToken.on_cancel().\n\n"
                           "The token keeps it: dropping this object does not take the callback\n"
                           "back; remove() does, from any thread.");

static PyType_Slot callback_slots[] = {
    {Py_tp_members, callback_members},
    {Py_tp_dealloc, HS_SLOT(callback_dealloc)},
    {Py_tp_traverse, HS_SLOT(callback_traverse)},
    {Py_tp_clear, HS_SLOT(callback_clear)},
    {Py_tp_methods, callback_methods},
    {Py_tp_doc, (void *)(uintptr_t)callback_doc},
    {0, NULL},
};

PyType_Spec callback_spec = {
    .name = "hardsock.Callback",
    .basicsize = sizeof(CallbackObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = callback_slots,
};
