/* type_permit.c: the type Permit: leave to try something once, to be reported once.
 *
 * Reporting takes the core's permit out of the object under the object's own lock, so that of two
 * threads one reports and the other does nothing. A permit that is dropped without a report goes
 * back uncounted.
 */
#include "breaker.h"

PyObject *
breaker_key_object(const struct hs_breaker_key *key)
{
    char text[HS_BREAKER_KEY_TEXT_SIZE];

    return PyUnicode_DecodeFSDefault(hs_breaker_key_text(key, text, sizeof(text)));
}

static PermitObject *
as_permit(PyObject *self)
{
    return (PermitObject *)self;
}

struct reporting {
    PermitObject *self;
    struct hs_permit permit;
    enum hs_fail fail;
};

static void
report_detached(void *arg)
{
    struct reporting *r = arg;

    hs_breaker_record(r->self->core, &r->self->key, &r->permit, r->fail, hs_now());
}

static void
report(PermitObject *self, enum hs_fail fail)
{
    struct reporting r = {.self = self, .fail = fail};

    HS_BEGIN_LOCKED((PyObject *)self);
    r.permit = self->permit;
    self->permit = (struct hs_permit){0};
    HS_END_LOCKED();
    run_detached(report_detached, &r);
}

PyObject *
permit_object_new(mod_state *st, struct hs_breaker *core, const struct hs_breaker_key *key,
                  const struct hs_permit *permit, bool probe)
{
    PermitObject *self = object_new(st, st->permit_type);

    if (self == NULL) {
        struct hs_permit unused = *permit;

        hs_breaker_record(core, key, &unused, HS_FAIL_NOT_COUNTED, hs_now());
        hs_breaker_unref(core);
        return NULL;
    }
    self->core = core;
    self->key = *key;
    self->permit = *permit;
    self->probe = probe;
    self->would_refuse = permit->would_refuse;
    return (PyObject *)self;
}

/* By its name, as stats() has it. */
static int
named_class(PyObject *name, enum hs_fail *ret_fail)
{
    for (int fail = HS_FAIL_NOT_COUNTED; fail < HS_FAIL_CLASSES; fail++)
        if (PyUnicode_CompareWithASCIIString(name, hs_fail_name((enum hs_fail)fail)) == 0) {
            *ret_fail = (enum hs_fail)fail;
            return 0;
        }
    PyErr_Format(PyExc_ValueError,
                 "error must be 'not_counted', 'deadline', 'refused', 'reset', 'timeout', "
                 "'unreachable', 'tls_certificate', 'tls_version', 'tls_other' or 'application', "
                 "got %R",
                 name);
    return -1;
}

static int
class_of_error(mod_state *st, PyObject *error, enum hs_fail *ret_fail)
{
    PyObject *name;
    int rv;

    if (error == NULL || error == Py_None) {
        *ret_fail = HS_FAIL_NONE;
        return 0;
    }
    if (PyUnicode_Check(error))
        return named_class(error, ret_fail);
    if (!PyExceptionInstance_Check(error)) {
        PyErr_Format(PyExc_TypeError, "error must be an exception, a str or None, not %.100s",
                     Py_TYPE(error)->tp_name);
        return -1;
    }
    if ((name = PyObject_CallOneArg(st->failure_of, error)) == NULL)
        return -1;
    rv = named_class(name, ret_fail);
    Py_DECREF(name);
    return rv;
}

PyDoc_STRVAR(record_doc,
             "record($self, error=None, /)\n--\n\n"
             "Report how it ended: None for well, an exception, or the name of a class.\n\n"
             "The first report counts, later ones do nothing. See hardsock.Breaker for what\n"
             "counts. A permit that is dropped without a report is returned uncounted.");

static PyObject *
permit_record(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"record", 0, 1, 1, {"error"}};
    PyObject *values[MAX_PARAMS];
    enum hs_fail fail;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        class_of_error(state_of(self), values[0], &fail) < 0)
        return NULL;
    report(as_permit(self), fail);
    Py_RETURN_NONE;
}

static PyObject *
get_key(PyObject *self, void *Py_UNUSED(closure))
{
    return breaker_key_object(&as_permit(self)->key);
}

static PyObject *
get_probe(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(as_permit(self)->probe);
}

static PyObject *
get_would_refuse(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(as_permit(self)->would_refuse);
}

static void
permit_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    /* Attached: the one who drops an object expects nobody else to run meanwhile. */
    hs_breaker_record(as_permit(self)->core, &as_permit(self)->key, &as_permit(self)->permit,
                      HS_FAIL_NOT_COUNTED, hs_now());
    hs_breaker_unref(as_permit(self)->core);
    object_free(self);
}

static int
permit_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    return 0;
}

static PyGetSetDef permit_getset[] = {
    {"key", get_key, NULL, "What it is for, as text.", NULL},
    {"probe", get_probe, NULL, "Whether it finds out if the key is well again.", NULL},
    {"would_refuse", get_would_refuse, NULL, "Whether only a dry run let it through.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef permit_methods[] = {
    {"record", HS_METHOD(permit_record), METH_FASTCALL | METH_KEYWORDS, record_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(permit_doc,
             "Leave to try something once: Breaker.permit() gives it, record() ends it.\n\n"
             "Of two threads that record, one does. One that is dropped goes back uncounted.");

static PyType_Slot permit_slots[] = {
    {Py_tp_dealloc, HS_SLOT(permit_dealloc)},
    {Py_tp_traverse, HS_SLOT(permit_traverse)},
    {Py_tp_methods, permit_methods},
    {Py_tp_getset, permit_getset},
    {Py_tp_doc, (void *)(uintptr_t)permit_doc},
    {0, NULL},
};

PyType_Spec permit_spec = {
    .name = "hardsock.Permit",
    .basicsize = sizeof(PermitObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = permit_slots,
};
