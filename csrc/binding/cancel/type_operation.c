/* type_operation.c: the type Operation: a job that an event loop drives, awaitable.
 *
 * Awaiting it tries first; what can be done at once never reaches the loop. Otherwise it is parked
 * in its Hub and yields itself: to an asyncio task it looks like a future, with the difference that
 * the Hub resumes the task right from the loop's reader callback instead of in the next turn. The
 * job is stepped again only when the task runs again, and its result is returned in the same
 * breath: nothing can get between, so a cancel never meets a result that nobody has seen.
 *
 * A cancel (throw, close) ends the job as any failure does: what had arrived stays in the
 * connection, what is half sent poisons it.
 *
 * An endless supply of operations that end at once would keep the loop from running: after a
 * hundred or so of them one yields before it begins.
 *
 * Belongs to the thread of its loop.
 */
#include "hub.h"

/* ---- Stepping ------------------------------------------------------------------------------ */

/* The scopes of this task learn that the task knows: see hardsock.aio._host_scope. */
static void
operation_tell(OperationObject *op, hs_err rv)
{
    PyObject *told = op->hub->told, *type, *value, *traceback, *result;

    if (told == NULL ||
        (HS_ERR_CLASS(rv) != HS_CLASS_TIMEOUT && HS_ERR_CLASS(rv) != HS_CLASS_CANCELLED))
        return;
    PyErr_Fetch(&type, &value, &traceback);
    if ((result = PyObject_CallNoArgs(told)) == NULL)
        PyErr_WriteUnraisable(told);
    Py_XDECREF(result);
    PyErr_Restore(type, value, traceback);
}

enum step { STEP_DONE, STEP_PARKED, STEP_YIELD, STEP_FAILED };

/* STEP_DONE: *ret_value is a new reference. */
static enum step
step_with(OperationObject *op, PyObject **ret_value)
{
    enum step result = STEP_FAILED;
    hs_err rv = job_step(&op->job);
    PyObject *value;

    switch (rv) {
    case HS_OK:
        if ((value = op->job.result(&op->job)) != NULL) {
            *ret_value = value;
            result = STEP_DONE;
        }
        break;
    case HS_INTR:
        operation_step_again(op);
        if (PyErr_CheckSignals() == 0)
            return STEP_YIELD;
        break;
    case HS_WANT:
        if (operation_park(op) == 0)
            return STEP_PARKED;
        break;
    default:
        (void)raise_error(&op->job.call, rv);
        operation_tell(op, rv);
    }
    operation_end(op);
    return result;
}

/* Errors have a place while something can happen: a crowd that waits would hold one each. */
static enum step
step(OperationObject *op, PyObject **ret_value)
{
    struct hs_error err = {0};
    enum step result;

    op->job.call.err = &err;
    result = step_with(op, ret_value);
    op->job.call.err = NULL;
    return result;
}

static bool
spend_budget(OperationObject *op)
{
    if (op->state != OP_NEW || op->hub->budget-- > 0)
        return true;
    op->hub->budget = HUB_BUDGET;
    op->state = OP_WOKEN;
    return false;
}

static PySendResult
operation_send(PyObject *obj, PyObject *Py_UNUSED(arg), PyObject **ret_value)
{
    OperationObject *op = (OperationObject *)obj;

    *ret_value = NULL;
    if (op->state == OP_ENDED) {
        PyErr_SetString(PyExc_RuntimeError, "this operation was awaited already");
        return PYGEN_ERROR;
    }
    if (!spend_budget(op)) {
        *ret_value = Py_NewRef(Py_None);
        return PYGEN_NEXT;
    }
    operation_unpark(op);
    switch (step(op, ret_value)) {
    case STEP_DONE:
        return PYGEN_RETURN;
    case STEP_PARKED:
        op->blocking = true;
        *ret_value = Py_NewRef(obj);
        return PYGEN_NEXT;
    case STEP_YIELD:
        *ret_value = Py_NewRef(Py_None);
        return PYGEN_NEXT;
    case STEP_FAILED:
        break;
    }
    return PYGEN_ERROR;
}

/* From CPython 3.14 on `await` comes here, before to operation_send. The StopIteration is there
 * before anything is received: without memory for it nothing has been taken yet. */
static PyObject *
operation_next(PyObject *obj)
{
    OperationObject *op = (OperationObject *)obj;
    PyObject *stop = op->stop, *value;

    op->stop = NULL;
    if (stop == NULL && (stop = hs_stop_new()) == NULL) {
        operation_end(op);
        return NULL;
    }
    switch (operation_send(obj, Py_None, &value)) {
    case PYGEN_NEXT:
        op->stop = stop;
        return value;
    case PYGEN_RETURN:
        hs_stop_iteration(stop, value);
        return NULL;
    case PYGEN_ERROR:
        break;
    }
    Py_DECREF(stop);
    return NULL;
}

static PyObject *
operation_await(PyObject *obj)
{
    OperationObject *op = (OperationObject *)obj;
    PyObject *coroutine, *iterator;

    if (op->hub->drive == NULL)
        return Py_NewRef(obj);
    if ((coroutine = PyObject_CallOneArg(op->hub->drive, obj)) == NULL)
        return NULL;
    iterator = PyObject_CallMethod(coroutine, "__await__", NULL);
    Py_DECREF(coroutine);
    return iterator;
}

PyDoc_STRVAR(send_doc, "send($self, value, /)\n--\n\nGo on; for the coroutine that awaits it.");

static PyObject *
operation_send_method(PyObject *obj, PyObject *Py_UNUSED(value))
{
    return operation_next(obj);
}

PyDoc_STRVAR(throw_doc, "throw($self, typ, val=None, tb=None, /)\n--\n\n"
                        "Give the operation up and raise; nothing received is lost.");

static PyObject *
operation_throw(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *type = nargs > 0 ? args[0] : Py_None;
    PyObject *value = nargs > 1 && args[1] != Py_None ? args[1] : NULL;

    operation_end((OperationObject *)obj);
    if (value == NULL && PyExceptionInstance_Check(type))
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    else if (PyExceptionClass_Check(type))
        PyErr_SetObject(type, value);
    else
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    return NULL;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\nGive the operation up; nothing received is lost.");

static PyObject *
operation_close(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    operation_end((OperationObject *)obj);
    Py_RETURN_NONE;
}

/* ---- What an asyncio task sees (asyncio/futures.py, asyncio/tasks.py) ---------------------- */

PyDoc_STRVAR(add_done_callback_doc, "add_done_callback($self, fn, /, *, context=None)\n--\n\n"
                                    "Call fn(self) when the operation should be stepped again.");

static PyObject *
operation_add_done_callback(PyObject *obj, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    static const struct params p = {"add_done_callback", 1, 1, 1, {"fn", "context"}};
    OperationObject *op = (OperationObject *)obj;
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    if (op->state != OP_PARKED || op->callback != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "an operation is awaited by one task, while it waits");
        return NULL;
    }
    op->callback = Py_NewRef(values[0]);
    op->context = values[1] == NULL || values[1] == Py_None ? NULL : Py_NewRef(values[1]);
    return Py_NewRef(Py_None);
}

PyDoc_STRVAR(cancel_doc, "cancel($self, msg=None)\n--\n\n"
                         "Resume the task with a CancelledError; False if it is being resumed.");

/* The caller may be another task: ours cannot be resumed inside it. */
static PyObject *
operation_cancel(PyObject *obj, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"cancel", 0, 1, 0, {"msg"}};
    OperationObject *op = (OperationObject *)obj;
    PyObject *values[MAX_PARAMS], *callback = op->callback, *context = op->context;
    int rv;

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    if (op->state != OP_PARKED || callback == NULL)
        Py_RETURN_FALSE;
    op->callback = op->context = NULL;
    op->cancelled = true;
    Py_XSETREF(op->message, Py_XNewRef(values[0]));
    operation_unpark(op);
    rv = operation_call_soon(op, callback, context);
    Py_DECREF(callback);
    Py_XDECREF(context);
    if (rv < 0)
        return NULL;
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(result_doc, "result($self, /)\n--\n\n"
                         "None, or the CancelledError that the task is resumed with.");

static PyObject *
operation_result(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    OperationObject *op = (OperationObject *)obj;

    if (!op->cancelled)
        Py_RETURN_NONE;
    op->cancelled = false; /* Told: awaiting on is the coroutine's right. */
    if (op->message == NULL || op->message == Py_None)
        PyErr_SetNone(op->hub->cancelled);
    else
        PyErr_SetObject(op->hub->cancelled, op->message);
    return NULL;
}

PyDoc_STRVAR(done_doc, "done($self, /)\n--\n\n"
                       "Whether the task is being resumed; for libraries that look at what tasks\n"
                       "wait for.");

static PyObject *
operation_done(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((OperationObject *)obj)->state != OP_PARKED);
}

static PyObject *
get_blocking(PyObject *obj, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((OperationObject *)obj)->blocking);
}

static int
set_blocking(PyObject *obj, PyObject *value, void *Py_UNUSED(closure))
{
    int on = value == NULL ? 0 : PyObject_IsTrue(value);

    if (on < 0)
        return -1;
    ((OperationObject *)obj)->blocking = on != 0;
    return 0;
}

/* ---- What other drivers use ---------------------------------------------------------------- */

PyDoc_STRVAR(step_doc, "step($self, /)\n--\n\n"
                       "Try: True when it has ended, False when it is parked, None when it should\n"
                       "be stepped again after the loop had a turn.");

static PyObject *
operation_step(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    OperationObject *op = (OperationObject *)obj;

    if (op->state == OP_ENDED) {
        PyErr_SetString(PyExc_RuntimeError, "this operation has ended");
        return NULL;
    }
    operation_unpark(op);
    switch (step(op, &op->value)) {
    case STEP_DONE:
        Py_RETURN_TRUE;
    case STEP_PARKED:
        Py_RETURN_FALSE;
    case STEP_YIELD:
        Py_RETURN_NONE;
    case STEP_FAILED:
        break;
    }
    return NULL;
}

PyDoc_STRVAR(unpark_doc, "unpark($self, /)\n--\n\nForget about resuming it.");

static PyObject *
operation_unpark_method(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    OperationObject *op = (OperationObject *)obj;

    Py_CLEAR(op->callback);
    Py_CLEAR(op->context);
    operation_unpark(op);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(wake_doc, "wake($self, /)\n--\n\n"
                       "Have it stepped in the loop's next turn, if it is parked: something is\n"
                       "known to have happened of which it may not have heard yet.");

static PyObject *
operation_wake_method(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    OperationObject *op = (OperationObject *)obj;

    if (op->state == OP_PARKED && operation_wake(op, true) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(value_doc, "value($self, /)\n--\n\nTake what it ended with, once.");

static PyObject *
operation_value(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    OperationObject *op = (OperationObject *)obj;
    PyObject *value = op->value;

    if (value == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this operation has no value");
        return NULL;
    }
    op->value = NULL;
    return value;
}

static PyObject *
get_hub(PyObject *obj, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)((OperationObject *)obj)->hub);
}

/* ---- Life ---------------------------------------------------------------------------------- */

PyObject *
operation_start(prepare_fn prepare, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    mod_state *st = PyModule_Check(self) ? state_of_module(self) : state_of(self);
    struct hs_error err = {0};
    OperationObject *op;
    struct hs_op *core;
    HubObject *hub;
    hs_err rv;

    if (nargs < 1 || !PyObject_TypeCheck(args[0], st->hub_type)) {
        PyErr_SetString(PyExc_TypeError, "hub must be a Hub");
        return NULL;
    }
    if ((hub = hub_here((HubObject *)args[0])) == NULL)
        return NULL;
    if ((op = object_new(st, st->operation_type)) == NULL) {
        Py_DECREF(hub);
        return NULL;
    }
    op->hub = hub;
    core = &op->job.call.op;
    op->job.scratch = &op->hub->scratch;
    op->job.call.err = &err;
    if (prepare(self, args + 1, nargs - 1, kwnames, &op->job) < 0)
        goto fail;
    if ((rv = hs_loop_waiter_new(op->hub->core, op, op->job.call.err, &op->loop_waiter)) != HS_OK) {
        (void)raise_error(&op->job.call, rv);
        goto fail;
    }
    hub->operations++;
    core->loop_waiter = op->loop_waiter;
    core->stepping = true;
    op->job.call.err = NULL;
    return (PyObject *)op;
fail:
    op->job.call.err = NULL;
    Py_DECREF(op);
    return NULL;
}

static int
operation_traverse(PyObject *obj, visitproc visit, void *arg)
{
    OperationObject *op = (OperationObject *)obj;

    HS_VISIT_HEAD(obj);
    Py_VISIT(op->hub);
    Py_VISIT(op->callback);
    Py_VISIT(op->context);
    Py_VISIT(op->message);
    Py_VISIT(op->value);
    Py_VISIT(op->stop);
    if (op->state != OP_ENDED) {
        Py_VISIT(op->job.owner);
        Py_VISIT(op->job.call.token);
        Py_VISIT(op->job.call.given);
    }
    return 0;
}

static int
operation_clear(PyObject *obj)
{
    OperationObject *op = (OperationObject *)obj;

    if (op->hub != NULL)
        operation_end(op);
    Py_CLEAR(op->message);
    Py_CLEAR(op->value);
    return 0;
}

static void
operation_dealloc(PyObject *obj)
{
    OperationObject *op = (OperationObject *)obj;

    PyObject_GC_UnTrack(obj);
    (void)operation_clear(obj);
    Py_CLEAR(op->hub); /* After the waiter. */
    object_free(obj);
}

PyDoc_STRVAR(get_loop_doc, "get_loop($self, /)\n--\n\nThe asyncio loop.");

static PyObject *
operation_get_loop(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    return operation_loop((OperationObject *)obj);
}

static PyGetSetDef operation_getset[] = {
    {"_asyncio_future_blocking", get_blocking, set_blocking, "asyncio's protocol.", NULL},
    {"hub", get_hub, NULL, "The Hub that it waits in.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef operation_methods[] = {
    {"send", operation_send_method, METH_O, send_doc},
    {"throw", HS_METHOD(operation_throw), METH_FASTCALL, throw_doc},
    {"close", operation_close, METH_NOARGS, close_doc},
    {"get_loop", operation_get_loop, METH_NOARGS, get_loop_doc},
    {"add_done_callback", HS_METHOD(operation_add_done_callback), METH_FASTCALL | METH_KEYWORDS,
     add_done_callback_doc},
    {"cancel", HS_METHOD(operation_cancel), METH_FASTCALL | METH_KEYWORDS, cancel_doc},
    {"result", operation_result, METH_NOARGS, result_doc},
    {"done", operation_done, METH_NOARGS, done_doc},
    {"step", operation_step, METH_NOARGS, step_doc},
    {"unpark", operation_unpark_method, METH_NOARGS, unpark_doc},
    {"wake", operation_wake_method, METH_NOARGS, wake_doc},
    {"value", operation_value, METH_NOARGS, value_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(operation_doc, "A call of hardsock in progress in an event loop; awaited once.");

static PyType_Slot operation_slots[] = {
    {Py_tp_dealloc, HS_SLOT(operation_dealloc)},
    {Py_tp_traverse, HS_SLOT(operation_traverse)},
    {Py_tp_clear, HS_SLOT(operation_clear)},
    {Py_tp_iter, HS_SLOT(PyObject_SelfIter)},
    {Py_tp_iternext, HS_SLOT(operation_next)},
    {Py_am_await, HS_SLOT(operation_await)},
    {Py_am_send, HS_SLOT(operation_send)},
    {Py_tp_methods, operation_methods},
    {Py_tp_getset, operation_getset},
    {Py_tp_doc, (void *)(uintptr_t)operation_doc},
    {0, NULL},
};

PyType_Spec operation_spec = {
    .name = "hardsock._core.Operation",
    .basicsize = sizeof(OperationObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = operation_slots,
};
