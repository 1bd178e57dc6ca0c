/* pool_alarm.c: the alarm of a pool about leases that last too long; see notifier.h.
 *
 * The pool object owns the alarm and what it calls, where the garbage collector sees it. The alarm
 * borrows both, and takes references for each call, before hs_alarm_end can have returned.
 */
#include "binding/base/notifier.h"
#include "pool.h"

struct overdue {
    struct notice notice;
    mod_state *st;        /* borrows: nothing is told once it goes */
    struct hs_pool *core; /* owns: a reference */
    PyObject *callable;   /* borrows: the pool object's; owned from hold to tell */
    struct hs_lent lent;  /* the same for its code */
};

static hs_err
step_overdue(void *arg, struct hs_op *op, struct hs_error *err)
{
    struct overdue *o = arg;

    return hs_pool_await_overdue(o->core, op, err, &o->lent);
}

static void
hold_overdue(void *arg)
{
    struct overdue *o = arg;

    Py_INCREF(o->callable);
    Py_XINCREF((PyObject *)(uintptr_t)o->lent.holder.code);
}

static void
tell_overdue(struct notice *notice)
{
    struct overdue *o = (struct overdue *)notice;
    PyObject *callable = o->callable, *code = (PyObject *)(uintptr_t)o->lent.holder.code;
    PyObject *raw = pool_lent_object(o->st, &o->lent), *result = NULL;

    if (raw != NULL)
        result = PyObject_CallOneArg(callable, raw);
    if (result == NULL)
        PyErr_WriteUnraisable(callable);
    Py_XDECREF(raw);
    Py_XDECREF(result);
    Py_DECREF(callable);
    Py_XDECREF(code);
}

static void
release_overdue(void *arg)
{
    hs_pool_unref(((struct overdue *)arg)->core);
    PyMem_RawFree(arg);
}

static struct overdue *
overdue_new(PoolObject *self)
{
    struct overdue *o = PyMem_RawCalloc(1, sizeof(*o));

    if (o == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    o->notice.hooks = (struct hs_alarm_hooks){
        .step = step_overdue,
        .hold = hold_overdue,
        .release = release_overdue,
        .repeats = true,
        .survives_fork = true,
    };
    o->notice.tell = tell_overdue;
    o->st = self->st;
    o->core = hs_pool_ref(self->core);
    o->callable = self->on_overdue;
    return o;
}

const char pool_on_overdue_doc[] =
    "_on_overdue($self, callable, /)\n--\n\n"
    "Once, before anything is lent: call callable(lent) in the notifier's thread, with an item\n"
    "as of _lent(), for each lease that becomes overdue.";

PyObject *
pool_on_overdue(PyObject *obj, PyObject *callable)
{
    PoolObject *self = (PoolObject *)obj;
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);
    struct overdue *o;

    if (self->on_overdue != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "_on_overdue is called once");
        return NULL;
    }
    self->on_overdue = Py_NewRef(callable);
    if ((o = overdue_new(self)) == NULL ||
        notifier_arm(self->st, &o->notice, &op, &self->alarm) < 0 || notifier_start(self->st) < 0)
        return NULL;
    Py_RETURN_NONE;
}
