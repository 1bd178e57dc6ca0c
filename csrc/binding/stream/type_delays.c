/* type_delays.c: the type Delays: what servers know of how late things are noticed.
 *
 * Private: a server makes one and has its connections measured. What it counts itself, in seconds
 * from Python, is counted here, too; waits for the interpreter's lock are counted for the whole
 * interpreter, from the first of these objects on.
 */
#include "conn.h"

enum own { START, LOOP, OWN_COUNT };

typedef struct {
    HS_HEAD
    struct hs_delays *core;                    /* owns: a reference; write once, as the next */
    struct hs_fixed_histogram *own[OWN_COUNT]; /* own */
} DelaysObject;

/* -1 with an exception. */
static int
count_attaching(mod_state *st, struct hs_error *err)
{
    struct hs_fixed_histogram *none = NULL, *waits;
    hs_err rv;

    if (atomic_load(&st->attach_waits) != NULL)
        return 0;
    if ((rv = hs_fixed_histogram_new(HS_EDGES_DELAY, err, &waits)) != HS_OK)
        return raise_plain_error(st, err, rv);
    if (!atomic_compare_exchange_strong(&st->attach_waits, &none, waits))
        hs_fixed_histogram_free(waits);
    return 0;
}

static PyObject *
delays_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"Delays", 0, 0, 0, {NULL}};
    mod_state *st = state_of_type(type);
    PyObject *values[MAX_PARAMS];
    struct hs_error err = {0};
    DelaysObject *self;
    hs_err rv;

    if (parse_tuple(&p, args, kwargs, values) < 0 || (self = object_new(st, type)) == NULL)
        return NULL;
    rv = hs_delays_new(&err, &self->core);
    for (int i = 0; i < OWN_COUNT && rv == HS_OK; i++)
        rv = hs_fixed_histogram_new(HS_EDGES_DELAY, &err, &self->own[i]);
    if (rv != HS_OK)
        (void)raise_plain_error(st, &err, rv);
    else if (count_attaching(st, &err) == 0)
        return (PyObject *)self;
    Py_DECREF(self);
    return NULL;
}

PyDoc_STRVAR(measure_doc, "measure($self, conn, /)\n--\n\n"
                          "Have what arrives on conn measured. Before others know conn.");

static PyObject *
delays_measure(PyObject *self, PyObject *conn)
{
    if (!PyObject_TypeCheck(conn, state_of(self)->conn_type)) {
        PyErr_Format(PyExc_TypeError, "conn must be a Connection, not %.100s",
                     Py_TYPE(conn)->tp_name);
        return NULL;
    }
    hs_conn_measure(((ConnObject *)conn)->core, ((DelaysObject *)self)->core);
    Py_RETURN_NONE;
}

static PyObject *
delays_add(PyObject *self, enum own which, PyObject *seconds)
{
    int64_t span_ns;

    if (parse_seconds(seconds, "seconds", &span_ns) < 0)
        return NULL;
    hs_fixed_histogram_add(((DelaysObject *)self)->own[which], span_ns);
    if (which == START) /* For who looks at the process, not at one server. */
        hs_count_worker_wait(span_ns);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(started_doc, "started($self, seconds, /)\n--\n\n"
                          "A connection was given to a handler so long after it was accepted.");

static PyObject *
delays_started(PyObject *self, PyObject *seconds)
{
    return delays_add(self, START, seconds);
}

PyDoc_STRVAR(lagged_doc, "lagged($self, seconds, /)\n--\n\n"
                         "A timer of the event loop was so late.");

static PyObject *
delays_lagged(PyObject *self, PyObject *seconds)
{
    return delays_add(self, LOOP, seconds);
}

/* ((edge in ns, ...), (count, ...), sum in ns): one count more than edges. */
static PyObject *
counts_object(const struct hs_fixed_counts *c)
{
    PyObject *edges = PyTuple_New((Py_ssize_t)c->n_edges);
    PyObject *counts = PyTuple_New((Py_ssize_t)c->n_edges + 1);

    for (size_t i = 0; i <= c->n_edges && edges != NULL && counts != NULL; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(c->buckets[i]);
        PyObject *edge = i < c->n_edges ? PyLong_FromLongLong(c->edges_ns[i]) : Py_NewRef(Py_None);

        if (count == NULL || edge == NULL) {
            Py_XDECREF(count);
            Py_XDECREF(edge);
            Py_CLEAR(counts);
            break;
        }
        PyTuple_SET_ITEM(counts, (Py_ssize_t)i, count);
        if (i < c->n_edges)
            PyTuple_SET_ITEM(edges, (Py_ssize_t)i, edge);
        else
            Py_DECREF(edge);
    }
    if (edges == NULL || counts == NULL) {
        Py_XDECREF(edges);
        Py_XDECREF(counts);
        return NULL;
    }
    return Py_BuildValue("NNK", edges, counts, (unsigned long long)c->sum_ns);
}

PyDoc_STRVAR(read_doc, "read($self, /)\n--\n\n"
                       "By name (queue, start, loop, lock): edges and sum in nanoseconds, and the\n"
                       "counts up to each edge and beyond the last.");

static PyObject *
delays_read(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    static const char *const names[] = {"queue", "start", "loop", "lock"};
    DelaysObject *d = (DelaysObject *)self;
    struct hs_fixed_counts counts[4];
    PyObject *dict = PyDict_New();

    hs_delays_read(d->core, &counts[0]);
    for (int i = 0; i < OWN_COUNT; i++)
        hs_fixed_histogram_read(d->own[i], &counts[1 + i]);
    hs_fixed_histogram_read(atomic_load(&state_of(self)->attach_waits), &counts[3]);
    for (int i = 0; i < 4 && dict != NULL; i++) {
        PyObject *each = counts_object(&counts[i]);

        if (each == NULL || PyDict_SetItemString(dict, names[i], each) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(each);
    }
    return dict;
}

/* ---- The type ------------------------------------------------------------------------------ */

static void
delays_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    hs_delays_unref(((DelaysObject *)self)->core);
    for (int i = 0; i < OWN_COUNT; i++)
        hs_fixed_histogram_free(((DelaysObject *)self)->own[i]);
    object_free(self);
}

static int
delays_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    return 0;
}

static PyMethodDef delays_methods[] = {
    {"measure", delays_measure, METH_O, measure_doc},
    {"started", delays_started, METH_O, started_doc},
    {"lagged", delays_lagged, METH_O, lagged_doc},
    {"read", delays_read, METH_NOARGS, read_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(delays_doc, "Delays()\n--\n\nHow late what happens is noticed, in histograms.");

static PyType_Slot delays_slots[] = {
    {Py_tp_new, HS_SLOT(delays_new)},           {Py_tp_dealloc, HS_SLOT(delays_dealloc)},
    {Py_tp_traverse, HS_SLOT(delays_traverse)}, {Py_tp_methods, delays_methods},
    {Py_tp_doc, (void *)(uintptr_t)delays_doc}, {0, NULL},
};

PyType_Spec delays_spec = {
    .name = "hardsock._core.Delays",
    .basicsize = sizeof(DelaysObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = delays_slots,
};
