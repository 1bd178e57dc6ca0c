/* type_turns.c: the type Turns: at most n of a server's threads run handlers at a time.
 *
 * Private: servers make one and have their connections join it.
 */
#include "token.h"
#include "turns.h"

static PyObject *
turns_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"Turns", 1, 1, 1, {"n"}};
    PyObject *values[MAX_PARAMS];
    struct hs_error err = {0};
    TurnsObject *self;
    long n;
    hs_err rv;

    if (parse_tuple(&p, args, kwargs, values) < 0 ||
        parse_long(values[0], "n", 1, INT32_MAX, &n) < 0 ||
        (self = (TurnsObject *)type->tp_alloc(type, 0)) == NULL)
        return NULL;
    if ((rv = hs_turns_new(n, &err, &self->core)) != HS_OK) {
        (void)raise_plain_error(PyType_GetModuleState(type), &err, rv);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

struct taking {
    struct hs_turns *core;
    struct hs_token *token;
};

static void
take_detached(void *arg)
{
    struct taking *t = arg;

    hs_turns_take(t->core, t->token, HS_NEVER);
}

PyDoc_STRVAR(take_doc, "take($self, token, /)\n--\n\n"
                       "Wait for a turn; when token ends first, take one all the same.");

static PyObject *
turns_take(PyObject *self, PyObject *token)
{
    struct taking t = {.core = ((TurnsObject *)self)->core};

    if ((t.token = token_core(state_of(self), token)) == NULL)
        return NULL;
    run_detached(take_detached, &t);
    Py_RETURN_NONE;
}

static void
give_detached(void *arg)
{
    hs_turns_give(arg);
}

PyDoc_STRVAR(give_doc, "give($self, /)\n--\n\nGive a turn back.");

static PyObject *
turns_give(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    run_detached(give_detached, ((TurnsObject *)self)->core);
    Py_RETURN_NONE;
}

static void
turns_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    hs_turns_unref(((TurnsObject *)self)->core);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef turns_methods[] = {
    {"take", turns_take, METH_O, take_doc},
    {"give", turns_give, METH_NOARGS, give_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(turns_doc, "Turns(n, /)\n--\n\nAt most n of a crowd of threads run at a time.");

static PyType_Slot turns_slots[] = {
    {Py_tp_new, HS_SLOT(turns_new)},
    {Py_tp_dealloc, HS_SLOT(turns_dealloc)},
    {Py_tp_methods, turns_methods},
    {Py_tp_doc, (void *)(uintptr_t)turns_doc},
    {0, NULL},
};

static PyType_Spec turns_spec = {
    .name = "hardsock._core.Turns",
    .basicsize = sizeof(TurnsObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = turns_slots,
};

int
turns_type_init(PyObject *module, mod_state *st)
{
    st->turns_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &turns_spec, NULL);
    return st->turns_type == NULL ? -1 : PyModule_AddType(module, st->turns_type);
}
