/* type_slots.c: the type Slots: at most n of a server's threads run handlers at a time.
 *
 * Private: servers make one and have their connections join it.
 */
#include "slots.h"
#include "token.h"
#include "binding/base/args.h"
#include "binding/base/run.h"

static PyObject *
slots_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"Slots", 1, 1, 1, {"n"}};
    mod_state *st = state_of_type(type);
    PyObject *values[MAX_PARAMS];
    struct hs_error err = {0};
    SlotsObject *self;
    long n;
    hs_err rv;

    if (parse_tuple(&p, args, kwargs, values) < 0 ||
        parse_long(values[0], "n", 1, INT32_MAX, &n) < 0 || (self = object_new(st, type)) == NULL)
        return NULL;
    if ((rv = hs_slots_new(n, &err, &self->core)) != HS_OK) {
        Py_DECREF(self);
        (void)raise_plain_error(st, &err, rv);
        return NULL;
    }
    return (PyObject *)self;
}

struct taking {
    struct hs_slots *core;
    struct hs_token *token;
};

static void
slots_take_detached(void *arg)
{
    struct taking *t = arg;

    hs_slots_take(t->core, t->token, HS_NEVER);
}

PyDoc_STRVAR(take_doc, "take($self, token, /)\n--\n\n"
                       "Wait for a slot; when token ends first, take one all the same.");

static PyObject *
slots_take(PyObject *self, PyObject *token)
{
    struct taking t = {.core = ((SlotsObject *)self)->core};

    if ((t.token = token_core(state_of(self), token)) == NULL)
        return NULL;
    run_detached(slots_take_detached, &t);
    Py_RETURN_NONE;
}

static void
give_detached(void *arg)
{
    hs_slots_give(arg);
}

PyDoc_STRVAR(give_doc, "give($self, /)\n--\n\nGive a slot back.");

static PyObject *
slots_give(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    run_detached(give_detached, ((SlotsObject *)self)->core);
    Py_RETURN_NONE;
}

static void
slots_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    hs_slots_unref(((SlotsObject *)self)->core);
    object_free(self);
}

static int
slots_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    return 0;
}

static PyMethodDef slots_methods[] = {
    {"take", slots_take, METH_O, take_doc},
    {"give", slots_give, METH_NOARGS, give_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(slots_doc, "Slots(n, /)\n--\n\nAt most n of a crowd of threads run at a time.");

static PyType_Slot slots_slots[] = {
    {Py_tp_new, HS_SLOT(slots_new)},           {Py_tp_dealloc, HS_SLOT(slots_dealloc)},
    {Py_tp_traverse, HS_SLOT(slots_traverse)}, {Py_tp_methods, slots_methods},
    {Py_tp_doc, (void *)(uintptr_t)slots_doc}, {0, NULL},
};

PyType_Spec slots_spec = {
    .name = "hardsock._core.Slots",
    .basicsize = sizeof(SlotsObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots_slots,
};
