/* type_dial_queue.c: the types DialQueue, which is behind hardsock.DialLimits, and DialHold.
 *
 * A hold is a place that is held: its owner gives it back, or the one who drops it.
 */
#include "binding/base/job.h"

#include <stdlib.h>

typedef struct {
    HS_HEAD
    struct hs_dial_limits *core; /* owns: a reference; write once */
} DialQueueObject;

typedef struct {
    HS_HEAD
    struct hs_dial_place *_Atomic place; /* owns; NULL: given back */
} DialHoldObject;

int
dial_limits_core(mod_state *st, PyObject *obj, struct hs_dial_limits **ret_core)
{
    if (obj == NULL || obj == Py_None) {
        *ret_core = NULL;
        return 0;
    }
    if (!Py_IS_TYPE(obj, st->dial_queue_type)) {
        PyErr_Format(PyExc_TypeError, "limits must be a DialLimits or None, not %.100s",
                     Py_TYPE(obj)->tp_name);
        return -1;
    }
    *ret_core = ((DialQueueObject *)obj)->core;
    return 0;
}

/* ---- DialQueue ----------------------------------------------------------------------------- */

static PyObject *
dial_queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"DialQueue", 2, 2, 2, {"in_flight", "interval"}};
    mod_state *st = state_of_type(type);
    PyObject *values[MAX_PARAMS];
    struct hs_error err = {0};
    DialQueueObject *self;
    int64_t interval;
    long most;
    hs_err rv;

    if (parse_tuple(&p, args, kwargs, values) < 0 ||
        parse_long(values[0], "in_flight", 0, INT32_MAX, &most) < 0 ||
        parse_seconds(values[1], "interval", &interval) < 0 ||
        (self = object_new(st, type)) == NULL)
        return NULL;
    if ((rv = hs_dial_limits_new(most, interval, &err, &self->core)) != HS_OK) {
        Py_DECREF(self);
        (void)raise_plain_error(st, &err, rv);
        return NULL;
    }
    return (PyObject *)self;
}

static hs_err
attempt_take(struct job *job)
{
    struct hs_dial_limits *core = ((DialQueueObject *)job->owner)->core;

    return hs_dial_place_take(core, &job->call.op, job->call.err, &job->u.place);
}

static PyObject *
take_hold(struct job *job)
{
    DialHoldObject *hold = object_new(job->call.st, job->call.st->dial_hold_type);

    if (hold != NULL) {
        atomic_store(&hold->place, job->u.place);
        job->u.place = NULL;
    }
    return (PyObject *)hold;
}

static void
release_place(struct job *job)
{
    hs_dial_place_leave(job->u.place);
}

PyDoc_STRVAR(dial_queue_take_doc,
             "take($self, /, *, timeout=None, token=None)\n--\n\n"
             "Wait for a place, and return a DialHold of it. Raises DeadlineExceeded or\n"
             "Cancelled, with phase 'limits'.");

static int
dial_queue_prepare_take(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                        struct job *job)
{
    static const struct params p = {"take", 0, 0, 0, {"timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    job->owner = Py_NewRef(self);
    job->attempt = attempt_take;
    job->result = take_hold;
    job->release = release_place;
    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    return call_begin(&job->call, state_of(self), values[0], values[1], HS_NEVER);
}

STATIC_JOB_METHODS(dial_queue, take)

struct counting {
    struct hs_dial_limits *core;
    struct hs_dial_stats stats;
};

static void
count_detached(void *arg)
{
    struct counting *c = arg;

    hs_dial_limits_stats(c->core, &c->stats);
}

PyDoc_STRVAR(dial_queue_stats_doc, "stats($self, /)\n--\n\n"
                                   "in_flight, waiting, begun, given_up, waited (seconds).");

static PyObject *
dial_queue_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct counting c = {.core = ((DialQueueObject *)self)->core};

    run_detached(count_detached, &c);
    return Py_BuildValue("(llKKd)", c.stats.in_flight, c.stats.waiting,
                         (unsigned long long)c.stats.begun, (unsigned long long)c.stats.given_up,
                         (double)c.stats.waited_ns / 1e9);
}

static void
dial_queue_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    hs_dial_limits_unref(((DialQueueObject *)self)->core);
    object_free(self);
}

static int
dial_queue_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    return 0;
}

static PyMethodDef dial_queue_methods[] = {
    {"take", HS_METHOD(dial_queue_take), METH_FASTCALL | METH_KEYWORDS, dial_queue_take_doc},
    {"_op_take", HS_METHOD(dial_queue_op_take), METH_FASTCALL | METH_KEYWORDS, OP_DOC("take")},
    {"stats", dial_queue_stats, METH_NOARGS, dial_queue_stats_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(dial_queue_doc, "DialQueue(in_flight, interval, /)\n--\n\n"
                             "What a DialLimits is made of; 0: no such limit.");

static PyType_Slot dial_queue_slots[] = {
    {Py_tp_new, HS_SLOT(dial_queue_new)},           {Py_tp_dealloc, HS_SLOT(dial_queue_dealloc)},
    {Py_tp_traverse, HS_SLOT(dial_queue_traverse)}, {Py_tp_methods, dial_queue_methods},
    {Py_tp_doc, (void *)(uintptr_t)dial_queue_doc}, {0, NULL},
};

PyType_Spec dial_queue_spec = {
    .name = "hardsock._core.DialQueue",
    .basicsize = sizeof(DialQueueObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = dial_queue_slots,
};

/* ---- DialHold ------------------------------------------------------------------------------ */

static void
leave_detached(void *arg)
{
    hs_dial_place_leave(arg);
}

PyDoc_STRVAR(leave_doc, "leave($self, /)\n--\n\nGive the place back; idempotent.");

static PyObject *
dial_hold_leave(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    run_detached(leave_detached, atomic_exchange(&((DialHoldObject *)self)->place, NULL));
    Py_RETURN_NONE;
}

static void
dial_hold_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    hs_dial_place_leave(((DialHoldObject *)self)->place);
    object_free(self);
}

static int
dial_hold_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    return 0;
}

static PyMethodDef dial_hold_methods[] = {
    {"leave", dial_hold_leave, METH_NOARGS, leave_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(dial_hold_doc, "A place of a DialQueue; one that is dropped gives it back.");

static PyType_Slot dial_hold_slots[] = {
    {Py_tp_dealloc, HS_SLOT(dial_hold_dealloc)},
    {Py_tp_traverse, HS_SLOT(dial_hold_traverse)},
    {Py_tp_methods, dial_hold_methods},
    {Py_tp_doc, (void *)(uintptr_t)dial_hold_doc},
    {0, NULL},
};

PyType_Spec dial_hold_spec = {
    .name = "hardsock._core.DialHold",
    .basicsize = sizeof(DialHoldObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = dial_hold_slots,
};
