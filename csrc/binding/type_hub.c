/* type_hub.c: the type Hub: one event loop's waiting room.
 *
 * The loop watches its one descriptor and calls run(), which resumes the tasks whose Operations are
 * due. It knows its asyncio loop only weakly: the loop holds the Hub (through the reader callback),
 * not the other way round.
 *
 * Belongs to the thread of its loop.
 */
#include "hub.h"

#include <stddef.h>

/* As much as a receive in an event loop returns at once. */
#define SCRATCH_SIZE ((size_t)262144)

static PyObject *
hub_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {
        "Hub", 0, 0, 0, {"get_loop", "get_running", "cancelled", "drive"}};
    PyObject *values[MAX_PARAMS];
    struct hs_error err = {0};
    HubObject *self;
    hs_err rv;

    if (parse_tuple(&p, args, kwargs, values) < 0 ||
        (self = object_new(state_of_type(type), type)) == NULL)
        return NULL;
    self->get_loop = Py_XNewRef(values[0]);
    self->get_running = Py_XNewRef(values[1]);
    self->cancelled = Py_XNewRef(values[2]);
    self->drive = Py_XNewRef(values[3]);
    self->budget = HUB_BUDGET;
    self->thread = PyThread_get_thread_ident();
    self->scratch.size = SCRATCH_SIZE;
    if ((self->scratch.bytes = PyMem_Malloc(SCRATCH_SIZE)) == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    if ((rv = hs_loop_new(&err, &self->core)) != HS_OK) {
        (void)raise_plain_error(self->st, &err, rv);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* An asyncio loop may run in one thread now and in another later; a trio run stays. */
static int
moved_here(HubObject *self)
{
    PyObject *ours = NULL, *running = NULL;
    int same = 0;

    if (self->get_loop != NULL && self->get_running != NULL) {
        ours = PyObject_CallNoArgs(self->get_loop);
        running = ours == NULL ? NULL : PyObject_CallNoArgs(self->get_running);
        same = running == NULL ? -1 : running == ours && ours != Py_None;
    }
    Py_XDECREF(ours);
    Py_XDECREF(running);
    return same;
}

int
hub_enter(HubObject *self)
{
    unsigned long thread = PyThread_get_thread_ident();
    int here = self->thread == thread ? 1 : moved_here(self);

    if (here > 0) {
        self->thread = thread;
        return 0;
    }
    if (here == 0)
        PyErr_SetString(PyExc_RuntimeError,
                        "this belongs to an event loop that does not run in this thread");
    return -1;
}

PyDoc_STRVAR(fileno_doc, "fileno($self, /)\n--\n\nThe descriptor that the loop should watch.");

static PyObject *
hub_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(hs_loop_fileno(((HubObject *)self)->core));
}

/* A task that ends the loop (SystemExit) does not keep the others asleep. */
static int
wake_all_due(HubObject *self)
{
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    OperationObject *op;

    while ((op = hs_loop_next(self->core)) != NULL) {
        if (operation_wake(op, false) == 0)
            continue;
        if (type != NULL)
            PyErr_WriteUnraisable((PyObject *)self);
        else
            PyErr_Fetch(&type, &value, &traceback);
    }
    if (type == NULL)
        return 0;
    PyErr_Restore(type, value, traceback);
    return -1;
}

PyDoc_STRVAR(run_doc, "run($self, /)\n--\n\n"
                      "Resume what is due; to be called when the descriptor is readable.");

static PyObject *
hub_run(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    HubObject *self = (HubObject *)obj;

    self->budget = HUB_BUDGET;
    self->thread = PyThread_get_thread_ident();
    hs_loop_collect(self->core);
    if (wake_all_due(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(forget_doc, "forget($self, fd, /)\n--\n\n"
                         "Stop watching a descriptor that was given away.\n\n"
                         "Does nothing outside of the loop's thread: then it is watched in vain\n"
                         "until it is closed.");

static PyObject *
hub_forget(PyObject *self, PyObject *fd)
{
    long number;

    if (parse_long(fd, "fd", 0, INT32_MAX, &number) < 0)
        return NULL;
    if (((HubObject *)self)->thread == PyThread_get_thread_ident())
        hs_loop_forget(((HubObject *)self)->core, (int)number);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "The loop has ended: whoever still waits is resumed and fails.");

static PyObject *
hub_close(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    HubObject *self = (HubObject *)obj;

    self->closed = true;
    while (self->parked != NULL)
        if (operation_wake(self->parked, true) < 0)
            return NULL;
    Py_RETURN_NONE;
}

static PyObject *
get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((HubObject *)self)->closed);
}

static int
hub_traverse(PyObject *obj, visitproc visit, void *arg)
{
    HubObject *self = (HubObject *)obj;

    HS_VISIT_HEAD(obj);
    Py_VISIT(self->get_loop);
    Py_VISIT(self->get_running);
    Py_VISIT(self->cancelled);
    Py_VISIT(self->drive);
    for (OperationObject *op = self->parked; op != NULL; op = op->next)
        Py_VISIT(op);
    return 0;
}

static int
hub_clear(PyObject *obj)
{
    HubObject *self = (HubObject *)obj;

    self->closed = true;
    while (self->parked != NULL)
        operation_unpark(self->parked);
    Py_CLEAR(self->get_loop);
    Py_CLEAR(self->get_running);
    Py_CLEAR(self->cancelled);
    Py_CLEAR(self->drive);
    return 0;
}

static void
hub_dealloc(PyObject *obj)
{
    PyObject_GC_UnTrack(obj);
    if (((HubObject *)obj)->weakrefs != NULL)
        PyObject_ClearWeakRefs(obj);
    (void)hub_clear(obj);
    PyMem_Free(((HubObject *)obj)->scratch.bytes);
    hs_loop_free(((HubObject *)obj)->core); /* Every Operation, and so every bell, held the hub. */
    object_free(obj);
}

static PyMemberDef hub_members[] = {
    {"__weaklistoffset__", HS_T_PYSSIZET, offsetof(HubObject, weakrefs), HS_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *
get_is_asyncio(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((HubObject *)self)->drive == NULL);
}

static PyGetSetDef hub_getset[] = {
    {"is_asyncio", get_is_asyncio, NULL, "Whether its loop is one of asyncio.", NULL},
    {"closed", get_closed, NULL, "Whether its loop has ended.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef hub_methods[] = {
    {"fileno", hub_fileno, METH_NOARGS, fileno_doc},
    {"run", hub_run, METH_NOARGS, run_doc},
    {"forget", hub_forget, METH_O, forget_doc},
    {"close", hub_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(hub_doc, "Hub(*, get_loop=None, get_running=None, cancelled=None, drive=None)\n--\n\n"
                      "One event loop's waiting room; see hardsock.aio.");

static PyType_Slot hub_slots[] = {
    {Py_tp_new, HS_SLOT(hub_new)},
    {Py_tp_dealloc, HS_SLOT(hub_dealloc)},
    {Py_tp_traverse, HS_SLOT(hub_traverse)},
    {Py_tp_clear, HS_SLOT(hub_clear)},
    {Py_tp_methods, hub_methods},
    {Py_tp_getset, hub_getset},
    {Py_tp_members, hub_members},
    {Py_tp_doc, (void *)(uintptr_t)hub_doc},
    {0, NULL},
};

PyType_Spec hub_spec = {
    .name = "hardsock._core.Hub",
    .basicsize = sizeof(HubObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = hub_slots,
};
