/* type_service.c: the type Service: what a server says of itself to those who look from outside.
 *
 * Private: servers make one, and drop it when they are dropped themselves.
 */
#include "binding/base/args.h"
#include "binding/base/run.h"

typedef struct {
    HS_HEAD
    struct hs_service *core; /* owns: a reference; write once */
} ServiceObject;

static struct hs_service *
core_of(PyObject *self)
{
    return ((ServiceObject *)self)->core;
}

static int
parse_kind(PyObject *value, enum hs_service_kind *ret_kind)
{
    if (PyUnicode_Check(value))
        for (int i = 0; i < HS_SERVICE_KINDS; i++)
            if (PyUnicode_CompareWithASCIIString(
                    value, hs_service_kind_name((enum hs_service_kind)i)) == 0) {
                *ret_kind = (enum hs_service_kind)i;
                return 0;
            }
    PyErr_Format(PyExc_ValueError, "kind must be 'threads', 'tasks' or 'processes', got %R", value);
    return -1;
}

static PyObject *
service_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"Service", 3, 3, 3, {"kind", "name", "limit"}};
    mod_state *st = state_of_type(type);
    PyObject *values[MAX_PARAMS], *name;
    enum hs_service_kind kind;
    struct hs_error err = {0};
    ServiceObject *self;
    long limit;
    hs_err rv;

    if (parse_tuple(&p, args, kwargs, values) < 0 || parse_kind(values[0], &kind) < 0 ||
        parse_long(values[2], "limit", 0, INT32_MAX, &limit) < 0)
        return NULL;
    if (!PyUnicode_Check(values[1])) {
        PyErr_Format(PyExc_TypeError, "name must be a str, not %.200s",
                     Py_TYPE(values[1])->tp_name);
        return NULL;
    }
    name = PyUnicode_AsEncodedString(values[1], "utf-8", "backslashreplace");
    if (name == NULL || (self = object_new(st, type)) == NULL) {
        Py_XDECREF(name);
        return NULL;
    }
    rv = hs_service_new(kind, PyBytes_AS_STRING(name), (uint64_t)limit, &err, &self->core);
    Py_DECREF(name);
    if (rv != HS_OK) {
        Py_DECREF(self);
        (void)raise_plain_error(st, &err, rv);
        return NULL;
    }
    return (PyObject *)self;
}

PyDoc_STRVAR(count_doc, "count($self, which, /)\n--\n\n"
                        "One more: 0 accepted, 1 handled, 2 failed, 3 cut, 4 refused.");

static PyObject *
service_count(PyObject *self, PyObject *which)
{
    long i;

    if (parse_long(which, "which", 0, HS_SERVICE_COUNTS - 1, &i) < 0)
        return NULL;
    hs_service_count(core_of(self), (enum hs_service_count)i);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(accepts_doc, "accepts($self, whether, /)\n--\n\nAccepting works, or fails.");

static PyObject *
service_accepts(PyObject *self, PyObject *whether)
{
    int truth = PyObject_IsTrue(whether);

    if (truth < 0)
        return NULL;
    hs_service_set_accepts(core_of(self), truth != 0);
    Py_RETURN_NONE;
}

static int
parse_numbers(PyObject *tuple, const char *name, size_t n, uint64_t *numbers)
{
    if (!PyTuple_Check(tuple) || (size_t)PyTuple_GET_SIZE(tuple) != n) {
        PyErr_Format(PyExc_TypeError, "%s must be a tuple of %zu", name, n);
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        numbers[i] = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(tuple, (Py_ssize_t)i));
        if (numbers[i] == (uint64_t)-1 && PyErr_Occurred())
            return -1;
    }
    return 0;
}

PyDoc_STRVAR(tell_doc,
             "tell($self, phases, counts, /)\n--\n\n"
             "What a supervisor's processes have said: (waiting, parked, busy, lingering),\n"
             "(accepted, handled, failed, cut, refused).");

static PyObject *
service_tell(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    uint64_t phases[HS_PHASES], counts[HS_SERVICE_COUNTS];

    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "tell() takes phases and counts");
        return NULL;
    }
    if (parse_numbers(args[0], "phases", HS_PHASES, phases) < 0 ||
        parse_numbers(args[1], "counts", HS_SERVICE_COUNTS, counts) < 0)
        return NULL;
    hs_service_tell(core_of(self), phases, counts);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(drains_doc, "drains($self, /)\n--\n\nIt takes nobody any more.");

static PyObject *
service_drains(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    hs_service_drains(core_of(self));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(ended_doc, "ended($self, /)\n--\n\nIts drain is over: an event, the first time.");

static PyObject *
service_ended(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    hs_service_ended(core_of(self));
    Py_RETURN_NONE;
}

static PyObject *
service_get_id(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(hs_service_id(core_of(self)));
}

static void
service_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    hs_service_unref(core_of(self));
    object_free(self);
}

static int
service_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    return 0;
}

static PyMethodDef service_methods[] = {
    {"count", service_count, METH_O, count_doc},
    {"accepts", service_accepts, METH_O, accepts_doc},
    {"tell", HS_METHOD(service_tell), METH_FASTCALL, tell_doc},
    {"drains", service_drains, METH_NOARGS, drains_doc},
    {"ended", service_ended, METH_NOARGS, ended_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef service_getset[] = {
    {"id", service_get_id, NULL, "A number that no other of this process has.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(service_doc, "Service(kind, name, limit, /)\n--\n\n"
                          "A server's own word of its state, for reports.");

static PyType_Slot service_slots[] = {
    {Py_tp_new, HS_SLOT(service_new)},
    {Py_tp_dealloc, HS_SLOT(service_dealloc)},
    {Py_tp_traverse, HS_SLOT(service_traverse)},
    {Py_tp_methods, service_methods},
    {Py_tp_getset, service_getset},
    {Py_tp_doc, (void *)(uintptr_t)service_doc},
    {0, NULL},
};

PyType_Spec service_spec = {
    .name = "hardsock._core.Service",
    .basicsize = sizeof(ServiceObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = service_slots,
};
