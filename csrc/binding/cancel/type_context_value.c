/* type_context_value.c: the type ContextValue: a context variable that is set in a block.
 *
 * Also what it has in common with a Scope. See held.h.
 */
#include "binding/base/args.h"
#include "held.h"

typedef struct {
    HS_HEAD
    struct held held;
    atomic_int state;
} ContextValueObject;

enum { TRIES = 5 };

/* ---- A variable that is set ---------------------------------------------------------------- */

/* Where memory was wanting, the variable may have the value all the same: up to 3.11 of CPython
 * PyContextVar_Set sets it before it fails, and no version resets by the same token twice. Keeps
 * the exception that is set. */
static void
held_put_back(const struct held *held)
{
    PyObject *now = NULL, *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    for (int tries = 0; tries < TRIES && held->was != NULL; tries++) {
        if (PyContextVar_Get(held->variable, NULL, &now) < 0 || now != held->value)
            break;
        Py_CLEAR(now);
        Py_XDECREF(PyContextVar_Set(held->variable, held->was));
    }
    Py_XDECREF(now);
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

int
held_set(struct held *held)
{
    if (held->variable == NULL)
        return 0;
    if (PyContextVar_Get(held->variable, NULL, &held->was) < 0)
        return -1;
    held->undo = PyContextVar_Set(held->variable, held->value);
    if (held->undo != NULL)
        return 0;
    held_put_back(held);
    Py_CLEAR(held->was);
    return -1;
}

int
held_reset(struct held *held)
{
    PyObject *undo = held->undo;
    int rv;

    if (undo == NULL)
        return 0;
    held->undo = NULL;
    rv = PyContextVar_Reset(held->variable, undo);
    Py_DECREF(undo);
    if (rv < 0 && PyErr_ExceptionMatches(PyExc_MemoryError))
        held_put_back(held);
    Py_CLEAR(held->was);
    return rv;
}

void
held_drop(struct held *held)
{
    PyObject *now = NULL;

    if (held->undo != NULL && PyContextVar_Get(held->variable, NULL, &now) == 0 &&
        now == held->value)
        (void)held_reset(held);
    PyErr_Clear();
    Py_XDECREF(now);
    Py_CLEAR(held->undo);
    Py_CLEAR(held->was);
}

/* ---- ContextValue -------------------------------------------------------------------------- */

static PyObject *
context_value_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"ContextValue", 2, 2, 2, {"variable", "value"}};
    PyObject *values[MAX_PARAMS];
    ContextValueObject *self;

    if (parse_tuple(&p, args, kwargs, values) < 0)
        return NULL;
    if (!PyContextVar_CheckExact(values[0])) {
        PyErr_Format(PyExc_TypeError, "variable must be a ContextVar, not %.100s",
                     Py_TYPE(values[0])->tp_name);
        return NULL;
    }
    if ((self = object_new(state_of_type(type), type)) == NULL)
        return NULL;
    self->held.variable = Py_NewRef(values[0]);
    self->held.value = Py_NewRef(values[1]);
    return (PyObject *)self;
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nBegin the block.");

static PyObject *
context_value_enter(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    ContextValueObject *self = (ContextValueObject *)obj;
    int rv;

    if (!held_claim(&self->state, IDLE)) {
        PyErr_SetString(PyExc_RuntimeError, "this value is set already: make another one");
        return NULL;
    }
    rv = held_set(&self->held);
    atomic_store(&self->state, rv < 0 ? IDLE : ENTERED);
    if (rv < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(exit_doc, "__exit__($self, exc_type, exc, traceback, /)\n--\n\nEnd the block.");

static PyObject *
context_value_exit(PyObject *obj, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    ContextValueObject *self = (ContextValueObject *)obj;
    int rv;

    if (!held_claim(&self->state, ENTERED)) {
        PyErr_SetString(PyExc_RuntimeError, "this value is not set: the block has not begun");
        return NULL;
    }
    rv = held_reset(&self->held);
    atomic_store(&self->state, IDLE);
    if (rv < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int
context_value_traverse(PyObject *obj, visitproc visit, void *arg)
{
    ContextValueObject *self = (ContextValueObject *)obj;

    HS_VISIT_HEAD(obj);
    Py_VISIT(self->held.variable);
    Py_VISIT(self->held.value);
    Py_VISIT(self->held.undo);
    Py_VISIT(self->held.was);
    return 0;
}

static int
context_value_clear(PyObject *obj)
{
    ContextValueObject *self = (ContextValueObject *)obj;

    Py_CLEAR(self->held.undo);
    Py_CLEAR(self->held.was);
    Py_CLEAR(self->held.variable);
    Py_CLEAR(self->held.value);
    return 0;
}

/* Also before the collector clears anything. */
static void
context_value_finalize(PyObject *obj)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    held_drop(&((ContextValueObject *)obj)->held);
    PyErr_Restore(type, value, traceback);
}

static void
context_value_dealloc(PyObject *obj)
{
    PyObject *type, *value, *traceback;

    if (PyObject_CallFinalizerFromDealloc(obj) < 0)
        return;
    PyObject_GC_UnTrack(obj);
    PyErr_Fetch(&type, &value, &traceback);
    (void)context_value_clear(obj);
    PyErr_Restore(type, value, traceback);
    object_free(obj);
}

static PyMethodDef context_value_methods[] = {
    {"__enter__", context_value_enter, METH_NOARGS, enter_doc},
    {"__exit__", HS_METHOD(context_value_exit), METH_FASTCALL, exit_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(context_value_doc, "ContextValue(variable, value, /)\n--\n\n"
                                "A value that a context variable has in a block.\n\n"
                                "An interrupt, wherever it comes, does not leave it set.");

static PyType_Slot context_value_slots[] = {
    {Py_tp_new, HS_SLOT(context_value_new)},
    {Py_tp_dealloc, HS_SLOT(context_value_dealloc)},
    {Py_tp_traverse, HS_SLOT(context_value_traverse)},
    {Py_tp_clear, HS_SLOT(context_value_clear)},
    {Py_tp_finalize, HS_SLOT(context_value_finalize)},
    {Py_tp_methods, context_value_methods},
    {Py_tp_doc, (void *)(uintptr_t)context_value_doc},
    {0, NULL},
};

PyType_Spec context_value_spec = {
    .name = "hardsock._core.ContextValue",
    .basicsize = sizeof(ContextValueObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = context_value_slots,
};
