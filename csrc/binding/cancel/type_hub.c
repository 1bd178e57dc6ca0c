/* type_hub.c: the type Hub: one event loop's waiting room.
 *
 * The loop watches its one descriptor and calls run(), which resumes the tasks whose Operations are
 * due. It knows its asyncio loop only weakly: the loop holds the Hub (through the reader callback),
 * not the other way round.
 *
 * Belongs to the thread of its loop.
 */
#include "hub.h"
#include "binding/base/detach.h"

#include <stddef.h>
#include <unistd.h>

/* As much as a receive in an event loop returns at once. */
#define SCRATCH_SIZE ((size_t)262144)

static int
see_loop(HubObject *self)
{
    PyObject *loop;

    if (self->get_loop == NULL)
        return 0;
    if ((loop = PyObject_CallNoArgs(self->get_loop)) == NULL)
        return -1;
    self->loop = loop;
    Py_DECREF(loop);
    return 0;
}

static PyObject *
hub_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {
        "Hub",
        0,
        0,
        0,
        {"get_loop", "get_running", "cancelled", "drive", "find", "told", "unheard"}};
    PyObject *values[MAX_PARAMS];
    struct hs_error err = {0};
    HubObject *self;
    hs_err rv;

    if (parse_tuple(&p, args, kwargs, values) < 0)
        return NULL;
    if (values[4] == NULL) {
        PyErr_SetString(PyExc_TypeError, "Hub() needs find");
        return NULL;
    }
    if ((self = object_new(state_of_type(type), type)) == NULL)
        return NULL;
    self->get_loop = Py_XNewRef(values[0]);
    self->get_running = Py_XNewRef(values[1]);
    self->cancelled = Py_XNewRef(values[2]);
    self->drive = Py_XNewRef(values[3]);
    self->find = Py_XNewRef(values[4]);
    self->told = Py_XNewRef(values[5]);
    self->unheard = Py_XNewRef(values[6]);
    self->process = getpid();
    self->budget = HUB_BUDGET;
    self->thread = PyThread_get_thread_ident();
    if ((self->trio = PyUnicode_InternFromString("trio")) == NULL ||
        (self->key = PyUnicode_InternFromString("__asyncio_running_event_loop__")) == NULL ||
        see_loop(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
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

/* Whether the asyncio loop that runs in this thread is its own. It is known by its place in memory,
 * which belongs to no other loop before this one is closed. Where trio is loaded it may be a guest:
 * only Python code knows which of the two a task belongs to. */
static int
runs_here(HubObject *self)
{
    PyObject *running;
    int guest, known;

    if (self->closed || self->get_running == NULL)
        return 0;
    if ((guest = PyDict_Contains(PyImport_GetModuleDict(), self->trio)) != 0)
        return guest < 0 ? -1 : 0;
    if ((known = hs_loop_runs(self->key, self->loop)) >= 0)
        return known;
    if (PyErr_Occurred() || (running = PyObject_CallNoArgs(self->get_running)) == NULL)
        return -1;
    Py_DECREF(running);
    return (const void *)running == self->loop;
}

HubObject *
hub_here(HubObject *hint)
{
    int here = runs_here(hint);
    PyObject *found;

    if (here < 0)
        return NULL;
    if (here > 0) {
        hint->thread = PyThread_get_thread_ident();
        return (HubObject *)Py_NewRef((PyObject *)hint);
    }
    if (hint->find == NULL) { /* The collector has been at it. */
        PyErr_SetString(PyExc_RuntimeError, "this event loop has ended");
        return NULL;
    }
    found = PyObject_CallNoArgs(hint->find);
    if (found != NULL && !Py_IS_TYPE(found, Py_TYPE(hint))) {
        Py_DECREF(found);
        PyErr_SetString(PyExc_TypeError, "find() must return a Hub");
        return NULL;
    }
    if (found != NULL || hint->core == NULL || hint->process == getpid())
        return (HubObject *)found;
    PyErr_Clear(); /* In a forked child no loop runs: the call itself tells what is wrong. */
    return (HubObject *)Py_NewRef((PyObject *)hint);
}

PyDoc_STRVAR(fileno_doc, "fileno($self, /)\n--\n\nThe descriptor that the loop should watch.");

static PyObject *
hub_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const struct hs_loop *core = ((HubObject *)self)->core;

    return PyLong_FromLong(core == NULL ? -1 : hs_loop_fileno(core));
}

/* A task that ends the loop (SystemExit) does not keep the others asleep. */
static int
wake_all_due(HubObject *self)
{
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    OperationObject *op;

    while (self->core != NULL && (op = hs_loop_next(self->core)) != NULL) {
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
                      "Resume what is due; to be called when the descriptor is readable. False:\n"
                      "the kernel does not say what is, and the descriptor stays readable: to be\n"
                      "called again after a moment, for which the loop waits for something else.\n"
                      "A loop that throws the answer away is told by calling unheard.");

/* A copy: who is told may end the hub. */
static int
tell_unheard(HubObject *self)
{
    PyObject *tell = Py_XNewRef(self->unheard);
    PyObject *result = tell != NULL ? PyObject_CallNoArgs(tell) : Py_NewRef(Py_None);

    Py_XDECREF(tell);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

static PyObject *
hub_run(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    HubObject *self = (HubObject *)obj;
    bool heard = true;

    self->budget = HUB_BUDGET;
    self->thread = PyThread_get_thread_ident();
    if (self->core != NULL) {
        if (!self->collected)
            hs_loop_collect(self->core);
        heard = !hs_loop_is_unheard(self->core);
    }
    self->collected = false;
    if (wake_all_due(self) < 0 || (!heard && tell_unheard(self) < 0))
        return NULL;
    return PyBool_FromLong(heard);
}

PyDoc_STRVAR(
    take_others_doc,
    "take_others($self, fd, /)\n--\n\n"
    "For a loop that waits by wait() alone: it will wait for this epoll set of others, too.\n\n"
    "The set must not wait for the Hub any more, and is made to stop it.");

static PyObject *
hub_take_others(PyObject *obj, PyObject *fd)
{
    HubObject *self = (HubObject *)obj;
    struct hs_error err = {0};
    hs_err rv;
    long number;

    if (parse_long(fd, "fd", 0, INT32_MAX, &number) < 0)
        return NULL;
    if (self->core == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this event loop has ended");
        return NULL;
    }
    if ((rv = hs_loop_take_others(self->core, (int)number, &err)) == HS_OK)
        Py_RETURN_NONE;
    (void)raise_plain_error(self->st, &err, rv);
    return NULL;
}

PyDoc_STRVAR(leave_others_doc, "leave_others($self, fd, /)\n--\n\n"
                               "Undo take_others(): they wait for themselves again.");

static PyObject *
hub_leave_others(PyObject *obj, PyObject *fd)
{
    struct hs_loop *core = ((HubObject *)obj)->core;
    long number;

    if (parse_long(fd, "fd", 0, INT32_MAX, &number) < 0)
        return NULL;
    if (core != NULL)
        hs_loop_leave_others(core, (int)number);
    Py_RETURN_NONE;
}

/* The core goes when nothing needs it any more: the last operation, or the thread that waits. In a
 * forked child nobody does. */
static void
hub_free_core(HubObject *self)
{
    if (self->core == NULL || self->operations != 0)
        return;
    if (self->waiting && self->process == getpid()) {
        hs_loop_ring(self->core);
        return;
    }
    hs_loop_free(self->core);
    self->core = NULL;
}

struct sleeping {
    struct hs_loop *loop;
    int ms;
};

static void
sleep_detached(void *arg)
{
    const struct sleeping *s = arg;

    hs_loop_sleep(s->loop, s->ms);
}

/* False: it knows nothing any more. */
static bool
hub_sleep(HubObject *self, int ms, bool *ret_due, bool *ret_others)
{
    struct sleeping s = {self->core, ms};

    if (self->core == NULL || self->waiting || !hs_loop_may_sleep(self->core, &s.ms))
        return false;
    self->waiting = true;
    if (s.ms == 0)
        sleep_detached(&s);
    else
        run_waiting(self->st, sleep_detached, &s);
    self->waiting = false;
    if (self->closed)
        hub_free_core(self); /* It was closed meanwhile. */
    if (self->core == NULL)
        return false;
    hs_loop_slept(self->core, ret_due, ret_others);
    self->collected = *ret_due;
    return true;
}

/* As selectors have it: rounded up, so that a loop with a time does not go round before it. */
static int
parse_ms(PyObject *timeout, int *ret_ms)
{
    double seconds;

    if (timeout == Py_None) {
        *ret_ms = -1;
        return 0;
    }
    if ((seconds = PyFloat_AsDouble(timeout)) == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds > 0))
        *ret_ms = 0;
    else if (seconds * 1e3 >= INT32_MAX)
        *ret_ms = INT32_MAX;
    else
        *ret_ms = (int)(seconds * 1e3) + ((int)(seconds * 1e3) < seconds * 1e3 ? 1 : 0);
    return 0;
}

PyDoc_STRVAR(wait_doc, "wait($self, timeout, /)\n--\n\n"
                       "Wait for timeout seconds, None: for ever; less if a signal handler ran.\n\n"
                       "1: something is due, and run() is to be called. 2: the others have\n"
                       "something. 3: both. 0: neither. None: it knows nothing any more, and the\n"
                       "others are to be asked themselves.");

static PyObject *
hub_wait(PyObject *obj, PyObject *timeout)
{
    bool known, due = false, others = false;
    int ms;

    if (parse_ms(timeout, &ms) < 0)
        return NULL;
    HS_BEGIN_LOCKED(obj); /* Another thread may close it: a critical section ends for the wait. */
    known = hub_sleep((HubObject *)obj, ms, &due, &others);
    HS_END_LOCKED();
    if (!known)
        Py_RETURN_NONE;
    if (PyErr_CheckSignals() < 0) /* What was heard stays due. */
        return NULL;
    return PyLong_FromLong((due ? 1 : 0) | (others ? 2 : 0));
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
    if (((HubObject *)self)->core != NULL &&
        ((HubObject *)self)->thread == PyThread_get_thread_ident())
        hs_loop_forget(((HubObject *)self)->core, (int)number);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "The loop has ended: what waits in it is given up. Where a driver can\n"
                        "still resume it (trio) it fails.");

static void
hub_give_up(OperationObject *op)
{
    Py_INCREF(op);
    operation_end(op);
    Py_DECREF(op);
}

static void
resume_or_give_up(OperationObject *op)
{
    Py_INCREF(op);
    if (operation_wake(op, true) < 0) {
        PyErr_Clear(); /* That loop is gone altogether. */
        operation_end(op);
    }
    Py_DECREF(op);
}

static PyObject *
hub_close(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    HubObject *self = (HubObject *)obj;

    HS_BEGIN_LOCKED(obj); /* A thread may be in wait(). */
    self->closed = true;
    while (self->parked != NULL)
        (self->drive == NULL ? hub_give_up : resume_or_give_up)(self->parked);
    while (self->drive == NULL && self->woken != NULL)
        hub_give_up(self->woken);
    hub_free_core(self);
    HS_END_LOCKED();
    Py_RETURN_NONE;
}

static PyObject *
hub_get_closed(PyObject *self, void *Py_UNUSED(closure))
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
    Py_VISIT(self->find);
    Py_VISIT(self->told);
    Py_VISIT(self->unheard);
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
    Py_CLEAR(self->find);
    Py_CLEAR(self->told);
    Py_CLEAR(self->unheard);
    return 0;
}

static void
hub_dealloc(PyObject *obj)
{
    PyObject_GC_UnTrack(obj);
    if (((HubObject *)obj)->weakrefs != NULL)
        PyObject_ClearWeakRefs(obj);
    (void)hub_clear(obj);
    Py_CLEAR(((HubObject *)obj)->trio);
    Py_CLEAR(((HubObject *)obj)->key);
    PyMem_Free(((HubObject *)obj)->scratch.bytes);
    hs_loop_free(
        ((HubObject *)obj)->core); /* Every Operation, and so every waiter, held the hub. */
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
    {"closed", hub_get_closed, NULL, "Whether its loop has ended.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef hub_methods[] = {
    {"fileno", hub_fileno, METH_NOARGS, fileno_doc},
    {"run", hub_run, METH_NOARGS, run_doc},
    {"take_others", hub_take_others, METH_O, take_others_doc},
    {"leave_others", hub_leave_others, METH_O, leave_others_doc},
    {"wait", hub_wait, METH_O, wait_doc},
    {"forget", hub_forget, METH_O, forget_doc},
    {"close", hub_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(hub_doc, "Hub(*, get_loop=None, get_running=None, cancelled=None, drive=None, "
                      "find=None, told=None, unheard=None)\n--\n\n"
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
