/* type_departures.c: the type Departures: handlers whose clients have left are cancelled.
 *
 * Private: servers make one, have it watch their connections, and tend it in a thread or a task.
 */
#include "conn.h"
#include "binding/base/job.h"
#include "binding/cancel/token.h"

/* Most handlers are over by then; who works for longer may as well hear of it a bit later. */
#define YOUNG_NS INT64_C(50000000)

typedef struct {
    HS_HEAD
    struct hs_departures *core; /* owns: a reference; write once */
} DeparturesObject;

static PyObject *
departures_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"Departures", 0, 0, 0, {NULL}};
    mod_state *st = state_of_type(type);
    struct hs_error err = {0};
    DeparturesObject *self;
    PyObject *values[MAX_PARAMS];
    hs_err rv;

    if (parse_tuple(&p, args, kwargs, values) < 0 || (self = object_new(st, type)) == NULL)
        return NULL;
    if ((rv = hs_departures_new(YOUNG_NS, &err, &self->core)) != HS_OK) {
        Py_DECREF(self);
        (void)raise_plain_error(st, &err, rv);
        return NULL;
    }
    return (PyObject *)self;
}

PyDoc_STRVAR(watch_doc, "watch($self, conn, token, /)\n--\n\n"
                        "Cancel token when conn's peer leaves. By who has conn alone.");

static PyObject *
departures_watch(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"watch", 2, 2, 2, {"conn", "token"}};
    mod_state *st = state_of(self);
    PyObject *values[MAX_PARAMS];
    struct hs_error err = {0};
    struct hs_token *token;
    struct hs_conn *conn;
    hs_err rv;

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    if (!PyObject_TypeCheck(values[0], st->conn_type)) {
        PyErr_Format(PyExc_TypeError, "conn must be a Connection, not %.100s",
                     Py_TYPE(values[0])->tp_name);
        return NULL;
    }
    conn = ((ConnObject *)values[0])->core;
    if ((token = token_core(st, values[1])) == NULL)
        return NULL;
    if ((rv = hs_departures_watch(((DeparturesObject *)self)->core, conn, token, &err)) != HS_OK) {
        (void)raise_conn_error(st, conn, &err, rv);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- Tending ------------------------------------------------------------------------------- */

static hs_err
departures_attempt_tend(struct job *job)
{
    struct hs_departures *core = ((DeparturesObject *)job->owner)->core;

    return hs_departures_tend(core, &job->call.op, job->call.err, &job->u.fired);
}

static PyObject *
run_fired(struct job *job)
{
    struct hs_callback *fired = job->u.fired;

    job->u.fired = NULL;
    hs_callbacks_run(fired);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(tend_doc, "tend($self, /, *, timeout=None, token=None)\n--\n\n"
                       "Cancel the tokens of those that leave; return when callbacks have run.\n\n"
                       "Ends by its deadline or token else.");

static int
departures_prepare_tend(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                        struct job *job)
{
    static const struct params p = {"tend", 0, 0, 0, {"timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    job->owner = Py_NewRef(self);
    job->attempt = departures_attempt_tend;
    job->result = run_fired;
    job->call.is_patient = true;
    return call_begin(&job->call, state_of(self), values[0], values[1], HS_NEVER);
}

STATIC_JOB_METHODS(departures, tend)

static void
departures_close_detached(void *arg)
{
    hs_departures_close(arg);
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Watch nobody any more. For the one that tends it.");

static PyObject *
departures_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    run_detached(departures_close_detached, ((DeparturesObject *)self)->core);
    Py_RETURN_NONE;
}

/* ---- Life ---------------------------------------------------------------------------------- */

static void
departures_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    hs_departures_unref(((DeparturesObject *)self)->core);
    object_free(self);
}

static int
departures_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    return 0;
}

static PyMethodDef departures_methods[] = {
    {"watch", HS_METHOD(departures_watch), METH_FASTCALL | METH_KEYWORDS, watch_doc},
    {"tend", HS_METHOD(departures_tend), METH_FASTCALL | METH_KEYWORDS, tend_doc},
    {"_op_tend", HS_METHOD(departures_op_tend), METH_FASTCALL | METH_KEYWORDS, OP_DOC("tend")},
    {"close", departures_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(departures_doc,
             "Departures()\n--\n\nWatches connections whose clients may leave while they are "
             "worked for.");

static PyType_Slot departures_slots[] = {
    {Py_tp_new, HS_SLOT(departures_new)},           {Py_tp_dealloc, HS_SLOT(departures_dealloc)},
    {Py_tp_traverse, HS_SLOT(departures_traverse)}, {Py_tp_methods, departures_methods},
    {Py_tp_doc, (void *)(uintptr_t)departures_doc}, {0, NULL},
};

PyType_Spec departures_spec = {
    .name = "hardsock._core.Departures",
    .basicsize = sizeof(DeparturesObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = departures_slots,
};
