/* operation.c: an Operation as its Hub sees it: parked, woken, ended, its task resumed.
 *
 * How it is made and awaited is above: type_operation.c.
 *
 * Belongs to the thread of its loop.
 */
#include "hub.h"

static void
enlist(OperationObject *op, OperationObject **list)
{
    op->list = list;
    op->next = *list;
    if (op->next != NULL)
        op->next->prev = op;
    *list = op;
}

static void
unlist(OperationObject *op)
{
    if (op->list == NULL)
        return;
    if (op->prev != NULL)
        op->prev->next = op->next;
    else
        *op->list = op->next;
    if (op->next != NULL)
        op->next->prev = op->prev;
    op->prev = op->next = NULL;
    op->list = NULL;
}

/* It has begun, so it may hold a claim. */
void
operation_step_again(OperationObject *op)
{
    unlist(op);
    enlist(op, &op->hub->woken);
    op->state = OP_WOKEN;
}

void
operation_unpark(OperationObject *op)
{
    if (op->state != OP_PARKED)
        return;
    hs_loop_waiter_unpark(op->loop_waiter);
    operation_step_again(op);
    Py_DECREF(op);
}

/* The program has closed what the loop waits with, so that its descriptor will not say that all
 * others are due. */
static void
tell_the_others(HubObject *hub)
{
    PyObject *loop = NULL, *run = NULL, *handle = NULL;

    if (hub->told_lost || hub->get_loop == NULL)
        return;
    hub->told_lost = true;
    if ((loop = PyObject_CallNoArgs(hub->get_loop)) != NULL && loop != Py_None &&
        (run = PyObject_GetAttrString((PyObject *)hub, "run")) != NULL)
        handle = PyObject_CallMethod(loop, "call_soon", "O", run);
    if (PyErr_Occurred())
        PyErr_WriteUnraisable((PyObject *)hub);
    Py_XDECREF(loop);
    Py_XDECREF(run);
    Py_XDECREF(handle);
}

int
operation_park(OperationObject *op)
{
    hs_err rv;

    if (op->hub->closed) {
        PyErr_SetString(PyExc_RuntimeError, "the event loop of this operation has ended");
        return -1;
    }
    if ((rv = hs_loop_waiter_park(op->loop_waiter, &op->job.call.op, op->job.call.err)) != HS_OK) {
        if (hs_loop_is_lost(op->hub->core))
            tell_the_others(op->hub);
        return raise_error(&op->job.call, rv);
    }
    op->state = OP_PARKED;
    unlist(op);
    enlist(op, &op->hub->parked);
    Py_INCREF(op);
    return 0;
}

void
operation_end(OperationObject *op)
{
    if (op->state == OP_ENDED)
        return;
    operation_unpark(op);
    unlist(op);
    op->state = OP_ENDED;
    if (op->loop_waiter != NULL)
        op->hub->operations--;
    hs_loop_waiter_free(
        op->loop_waiter); /* It may listen to a token or a connection that the job lets go of. */
    op->loop_waiter = op->job.call.op.loop_waiter = NULL;
    job_end(&op->job);
    Py_CLEAR(op->callback);
    Py_CLEAR(op->context);
    Py_CLEAR(op->stop);
}

PyObject *
operation_loop(const OperationObject *op)
{
    if (op->hub->get_loop == NULL)
        Py_RETURN_NONE;
    return PyObject_CallNoArgs(op->hub->get_loop);
}

int
operation_call_soon(OperationObject *op, PyObject *callback, PyObject *context)
{
    PyObject *loop = operation_loop(op), *method = NULL, *handle = NULL;
    PyObject *args = NULL, *kwargs = NULL;

    if (loop != NULL && (method = PyObject_GetAttrString(loop, "call_soon")) != NULL &&
        (args = PyTuple_Pack(2, callback, (PyObject *)op)) != NULL &&
        (kwargs = Py_BuildValue("{sO}", "context", context)) != NULL)
        handle = PyObject_Call(method, args, kwargs);
    Py_XDECREF(loop);
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

static int
resume(OperationObject *op, PyObject *callback, PyObject *context)
{
    PyObject *result;

    if (context != NULL && PyContext_Enter(context) < 0) {
        PyErr_Clear(); /* Somebody is in it: the loop will find a moment. */
        return operation_call_soon(op, callback, context);
    }
    result = PyObject_CallOneArg(callback, (PyObject *)op);
    if (context != NULL && PyContext_Exit(context) < 0)
        Py_CLEAR(result);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
operation_wake(OperationObject *op, bool soon)
{
    PyObject *callback = op->callback, *context = op->context;
    int rv = 0;

    Py_INCREF(op);
    op->callback = op->context = NULL;
    operation_unpark(op);
    if (callback != NULL && soon && context != NULL)
        rv = operation_call_soon(op, callback, context);
    else if (callback != NULL)
        rv = resume(op, callback, context);
    Py_XDECREF(callback);
    Py_XDECREF(context);
    Py_DECREF(op);
    return rv;
}
