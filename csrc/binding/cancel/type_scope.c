/* type_scope.c: the types Scope and TaskScope: a token that is ambient in a block. See held.h for
 * why they are written in C.
 *
 * Invariants, beside those:
 * - `ambient.value` is the token of the block while that lasts.
 * - What the event loop knows of the block (`host`) is told of its end once, in any case.
 */
#include "binding/base/args.h"
#include "held.h"
#include "token.h"

#include <unistd.h>

enum { GIVEN_NOTHING, GIVEN_BEGUN, GIVEN_ALL };

typedef struct {
    HS_HEAD
    PyObject *given;          /* a CancelToken, or NULL: a new one */
    PyObject *seconds, *name; /* of the new one; NULL: not given */
    struct held ambient;      /* its value is that of the block, NULL outside of it */
    struct held beside;
    PyObject *host; /* owns: what hardsock.aio knows of the block, or NULL */
    bool shields;
    bool in_task; /* a TaskScope: entered once, in a task */
    atomic_bool used;
    atomic_int given_state; /* of a TaskScope: GIVEN_*; its seconds and name are written once */
    atomic_int state;
} ScopeObject;

/* An awaitable that has its value. */
typedef struct {
    HS_HEAD
    PyObject *stop;  /* owns: the StopIteration to come, or NULL: it came */
    PyObject *value; /* owns */
} ReadyObject;

/* ---- Making a scope ------------------------------------------------------------------------ */

/* values: token, seconds, name; NULL and None: not given. */
static ScopeObject *
scope_make(PyTypeObject *type, PyObject *const *values)
{
    mod_state *st = state_of_type(type);
    ScopeObject *self;

    if (st == NULL)
        return NULL;
    if (values[0] != NULL && values[0] != Py_None && !Py_IS_TYPE(values[0], st->token_type)) {
        PyErr_Format(PyExc_TypeError, "token must be a CancelToken, not %.100s",
                     Py_TYPE(values[0])->tp_name);
        return NULL;
    }
    if ((self = object_new(st, type)) == NULL)
        return NULL;
    self->ambient.variable = Py_NewRef(st->scope);
    if (values[0] != Py_None)
        self->given = Py_XNewRef(values[0]);
    if (values[1] != Py_None)
        self->seconds = Py_XNewRef(values[1]);
    if (values[2] != Py_None)
        self->name = Py_XNewRef(values[2]);
    return self;
}

static const struct params scope_params = {
    "Scope", 0, 3, 0, {"token", "seconds", "name", "shields", "beside"}};

static PyObject *
scope_with(PyTypeObject *type, PyObject **values)
{
    PyObject *beside = values[4] == Py_None ? NULL : values[4];
    ScopeObject *self;
    bool shields = false;

    if (parse_bool(values[3], "shields", &shields) < 0)
        return NULL;
    if (beside != NULL && (!PyTuple_Check(beside) || PyTuple_GET_SIZE(beside) != 2 ||
                           !PyContextVar_CheckExact(PyTuple_GET_ITEM(beside, 0)))) {
        PyErr_SetString(PyExc_TypeError, "beside must be a ContextVar and its value");
        return NULL;
    }
    if ((self = scope_make(type, values)) == NULL)
        return NULL;
    self->shields = shields;
    if (beside != NULL) {
        self->beside.variable = Py_NewRef(PyTuple_GET_ITEM(beside, 0));
        self->beside.value = Py_NewRef(PyTuple_GET_ITEM(beside, 1));
    }
    return (PyObject *)self;
}

static PyObject *
scope_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *values[MAX_PARAMS];

    return parse_tuple(&scope_params, args, kwargs, values) < 0 ? NULL : scope_with(type, values);
}

PyObject *
scope_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    PyObject *values[MAX_PARAMS];

    if (parse_args(&scope_params, args, PyVectorcall_NARGS(nargsf), kwnames, values) < 0)
        return NULL;
    return scope_with((PyTypeObject *)type, values);
}

PyDoc_STRVAR(again_doc, "_again($self, /)\n--\n\nAnother one like this, which is not entered.");

static PyObject *
scope_again(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    const ScopeObject *self = (ScopeObject *)obj;
    PyObject *values[] = {self->given, self->seconds, self->name};
    ScopeObject *again = scope_make(Py_TYPE(obj), values);

    if (again == NULL)
        return NULL;
    again->shields = self->shields;
    again->beside.variable = Py_XNewRef(self->beside.variable);
    again->beside.value = Py_XNewRef(self->beside.value);
    return (PyObject *)again;
}

/* Without the GIL another thread may be setting them. */
static bool
has_functions(const mod_state *st)
{
    return __atomic_load_n(&st->load_host_scope, __ATOMIC_ACQUIRE) != NULL;
}

/* They come with hardsock._scope, which may not be loaded yet. */
static int
scope_functions_are_set(const mod_state *st)
{
    PyObject *module;

    if (has_functions(st))
        return 0;
    if ((module = PyImport_ImportModule("hardsock._scope")) == NULL)
        return -1;
    Py_DECREF(module);
    if (has_functions(st))
        return 0;
    PyErr_SetString(PyExc_ImportError, "hardsock._scope is being imported");
    return -1;
}

/* For each call of a function that it decorates. */
static PyObject *
scope_call(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"a scope as a decorator", 1, 1, 1, {"function"}};
    PyObject *values[MAX_PARAMS];

    if (parse_tuple(&p, args, kwargs, values) < 0 || scope_functions_are_set(state_of(obj)) < 0)
        return NULL;
    return PyObject_CallFunctionObjArgs(state_of(obj)->decorated, obj, values[0], NULL);
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nBegin the block.");
PyDoc_STRVAR(exit_doc, "__exit__($self, exc_type, exc, traceback, /)\n--\n\nEnd the block.");

/* ---- Entering ------------------------------------------------------------------------------ */

/* The token of the block: a new reference. */
static PyObject *
scope_token(const ScopeObject *self, PyObject *outer)
{
    PyObject *one = self->given, *other = outer == Py_None || self->shields ? NULL : outer;
    PyObject *parents, *token;

    if (one != NULL && (other == NULL || other == one) && self->seconds == NULL)
        return Py_NewRef(one);
    if (one == NULL || one == other) {
        one = other;
        other = NULL;
    }
    if (one == NULL)
        parents = PyTuple_New(0);
    else
        parents = other == NULL ? PyTuple_Pack(1, one) : PyTuple_Pack(2, one, other);
    if (parents == NULL)
        return NULL;
    token = token_make(self->st, parents, self->seconds, self->name);
    Py_DECREF(parents);
    return token;
}

/* The answer of module.name(): 1 or 0; 0 where the module is not loaded, or not whole yet. -1 with
 * an exception. */
static int
ask_module(PyObject *module_name, PyObject *name, PyObject *no)
{
    /* Not PyImport_GetModule(): that waits for a thread that is importing it. */
    PyObject *module = hs_dict_find(PyImport_GetModuleDict(), module_name), *function, *answer;
    int rv;

    if (module == NULL)
        return 0;
    function = PyObject_GetAttr(module, name);
    Py_DECREF(module);
    if (function == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    answer = PyObject_CallNoArgs(function);
    Py_DECREF(function);
    rv = answer == NULL ? -1 : answer != no;
    Py_XDECREF(answer);
    return rv;
}

/* As hardsock._scope.in_event_loop(), for each scope. Loads nothing. */
static int
loop_runs(mod_state *st)
{
    int runs = hs_any_loop_runs(st->str___asyncio_running_event_loop__);

    if (runs < 0 && PyErr_Occurred())
        return -1;
    if (runs < 0)
        runs = ask_module(st->str__asyncio, st->str__get_running_loop, Py_None);
    return runs != 0 ? runs : ask_module(st->trio_lowlevel, st->str_in_trio_run, Py_False);
}

enum { FORGET_TRIES = 5 };

/* For what an interrupt has cut off: does what is left of it. Keeps the exception that is set. */
static void
scope_forget_host(ScopeObject *self)
{
    PyObject *host = self->host, *type, *value, *traceback, *result;
    bool again = false;

    if (host == NULL)
        return;
    self->host = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    /* Another interrupt may cut this off as well; what it has done it does not do twice. */
    for (int tries = 0; tries < FORGET_TRIES; tries++) {
        result = PyObject_CallMethodNoArgs(host, self->st->str_forget);
        Py_XDECREF(result);
        if (result != NULL || PyErr_ExceptionMatches(PyExc_Exception))
            break;
        again = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
        if (tries + 1 < FORGET_TRIES)
            PyErr_Clear();
    }
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(host);
    if (again && type == NULL)
        PyErr_SetInterrupt(); /* Nobody has been told of it. */
    Py_DECREF(host);
    PyErr_Restore(type, value, traceback);
}

/* What the loop has to know of the block, where the token is ambient already. It is made first and
 * kept here, and sets something after that: so what cuts enter() off can be taken back. */
static int
scope_begin_host(ScopeObject *self, PyObject *token)
{
    int runs = self->in_task ? 1 : loop_runs(self->st);
    mod_state *st = self->st;
    PyObject *result;

    if (runs <= 0)
        return runs;
    if (scope_functions_are_set(st) < 0)
        return -1;
    if (st->host_scope == NULL &&
        token_make_once(st->module, &st->host_scope, PyObject_CallNoArgs(st->load_host_scope)) < 0)
        return -1;
    self->host =
        PyObject_CallFunctionObjArgs(st->host_scope, token, self->shields ? Py_True : Py_False,
                                     self->in_task ? Py_True : Py_False, NULL);
    if (self->host == NULL)
        return -1;
    if (self->host == Py_None) {
        Py_CLEAR(self->host);
        return 0;
    }
    result = PyObject_CallMethodNoArgs(self->host, st->str_enter);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Takes all back, whatever has been set; keeps the exception that is set. */
static void
scope_undo(ScopeObject *self)
{
    PyObject *type, *value, *traceback;

    scope_forget_host(self);
    PyErr_Fetch(&type, &value, &traceback);
    held_drop(&self->beside);
    held_drop(&self->ambient);
    Py_CLEAR(self->ambient.value);
    PyErr_Restore(type, value, traceback);
}

static int
scope_begin(ScopeObject *self)
{
    PyObject *outer;

    if (PyContextVar_Get(self->ambient.variable, NULL, &outer) < 0)
        return -1;
    self->ambient.value = scope_token(self, outer);
    Py_DECREF(outer);
    if (self->ambient.value != NULL && held_set(&self->ambient) == 0 &&
        held_set(&self->beside) == 0 && scope_begin_host(self, self->ambient.value) == 0)
        return 0;
    scope_undo(self);
    return -1;
}

static PyObject *
scope_enter(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    ScopeObject *self = (ScopeObject *)obj;
    PyObject *token;

    if (!held_claim(&self->state, IDLE)) {
        PyErr_SetString(PyExc_RuntimeError, "this scope is entered already: make another one");
        return NULL;
    }
    if (scope_begin(self) < 0) {
        atomic_store(&self->state, IDLE);
        return NULL;
    }
    token = Py_NewRef(self->ambient.value);
    atomic_store(&self->state, ENTERED);
    return token;
}

/* ---- Leaving ------------------------------------------------------------------------------- */

/* leave() raises in the place of a cancellation that the scope has caused. */
static int
scope_leave_host(ScopeObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *all[] = {NULL, self->host, Py_None, Py_None, Py_None}, *result;

    if (self->host == NULL)
        return 0;
    for (Py_ssize_t i = 0; i < nargs && i < 3; i++)
        all[2 + i] = args[i];
    result = PyObject_VectorcallMethod(self->st->str_leave, all + 1,
                                       4 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (result == NULL) {
        scope_forget_host(self);
        return -1;
    }
    Py_DECREF(result);
    Py_CLEAR(self->host);
    return 0;
}

static PyObject *
scope_exit(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    ScopeObject *self = (ScopeObject *)obj;
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    int rv;

    if (!held_claim(&self->state, ENTERED)) {
        PyErr_SetString(PyExc_RuntimeError, "this scope is not entered");
        return NULL;
    }
    if (held_reset(&self->beside) < 0)
        PyErr_Fetch(&type, &value, &traceback);
    if (held_reset(&self->ambient) < 0) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        PyErr_Fetch(&type, &value, &traceback);
    }
    Py_CLEAR(self->ambient.value);
    rv = scope_leave_host(self, args, nargs);
    atomic_store(&self->state, IDLE);
    if (type != NULL) {
        PyErr_Restore(type, value, traceback); /* What came first is told. */
        rv = -1;
    }
    if (rv < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- Its end ------------------------------------------------------------------------------- */

static int
scope_traverse(PyObject *obj, visitproc visit, void *arg)
{
    ScopeObject *self = (ScopeObject *)obj;

    HS_VISIT_HEAD(obj);
    Py_VISIT(self->given);
    Py_VISIT(self->seconds);
    Py_VISIT(self->name);
    Py_VISIT(self->ambient.variable);
    Py_VISIT(self->ambient.value);
    Py_VISIT(self->ambient.undo);
    Py_VISIT(self->ambient.was);
    Py_VISIT(self->beside.variable);
    Py_VISIT(self->beside.value);
    Py_VISIT(self->beside.undo);
    Py_VISIT(self->beside.was);
    Py_VISIT(self->host);
    return 0;
}

static int
scope_clear(PyObject *obj)
{
    ScopeObject *self = (ScopeObject *)obj;

    Py_CLEAR(self->ambient.undo);
    Py_CLEAR(self->ambient.was);
    Py_CLEAR(self->beside.undo);
    Py_CLEAR(self->beside.was);
    Py_CLEAR(self->given);
    Py_CLEAR(self->seconds);
    Py_CLEAR(self->name);
    Py_CLEAR(self->ambient.variable);
    Py_CLEAR(self->ambient.value);
    Py_CLEAR(self->beside.variable);
    Py_CLEAR(self->beside.value);
    Py_CLEAR(self->host);
    return 0;
}

/* Also before the collector clears anything. */
static void
scope_finalize(PyObject *obj)
{
    scope_undo((ScopeObject *)obj);
}

static void
scope_dealloc(PyObject *obj)
{
    PyObject *type, *value, *traceback;

    if (PyObject_CallFinalizerFromDealloc(obj) < 0)
        return;
    PyObject_GC_UnTrack(obj);
    PyErr_Fetch(&type, &value, &traceback);
    (void)scope_clear(obj);
    PyErr_Restore(type, value, traceback);
    object_free(obj);
}

static PyMethodDef scope_methods[] = {
    {"__enter__", scope_enter, METH_NOARGS, enter_doc},
    {"__exit__", HS_METHOD(scope_exit), METH_FASTCALL, exit_doc},
    {"_again", scope_again, METH_NOARGS, again_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    scope_doc,
    "Scope(token=None, seconds=None, name=None, *, shields=False, beside=None)\n--\n\n"
    "A token that is ambient in a block; in a task of an event loop the block ends with\n"
    "it. Also a decorator.\n\n"
    "token: beside the scopes around it; None: a new one, below them. seconds: a deadline,\n"
    "counted from where the block begins. shields: the scopes around it do not count.\n"
    "beside: a ContextVar and its value in the block.\n"
    "An interrupt, wherever it comes, does not leave it set.");

static PyType_Slot scope_slots[] = {
    {Py_tp_new, HS_SLOT(scope_new)},
    {Py_tp_dealloc, HS_SLOT(scope_dealloc)},
    {Py_tp_traverse, HS_SLOT(scope_traverse)},
    {Py_tp_clear, HS_SLOT(scope_clear)},
    {Py_tp_call, HS_SLOT(scope_call)},
    {Py_tp_methods, scope_methods},
    {Py_tp_doc, (void *)(uintptr_t)scope_doc},
    {Py_tp_finalize, HS_SLOT(scope_finalize)},
    {0, NULL},
};

PyType_Spec scope_spec = {
    .name = "hardsock._core.Scope",
    .basicsize = sizeof(ScopeObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scope_slots,
};

/* ---- What is awaited of a TaskScope ------------------------------------------------------- */

/* Without a value yet, but with all the memory that it takes to tell one. */
static ReadyObject *
ready_make(mod_state *st)
{
    ReadyObject *self = st == NULL ? NULL : object_new(st, st->ready_type);

    if (self != NULL && (self->stop = hs_stop_new()) == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

static PyObject *
ready_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"Ready", 1, 1, 1, {"value"}};
    PyObject *values[MAX_PARAMS];
    ReadyObject *self;

    if (parse_tuple(&p, args, kwargs, values) < 0 ||
        (self = ready_make(state_of_type(type))) == NULL)
        return NULL;
    self->value = Py_NewRef(values[0]);
    return (PyObject *)self;
}

/* It never waits, so nothing is ever thrown into it. */
static PyObject *
ready_next(PyObject *obj)
{
    ReadyObject *self = (ReadyObject *)obj;
    PyObject *stop, *value;

    HS_BEGIN_LOCKED(self);
    stop = self->stop;
    value = self->value;
    self->stop = self->value = NULL;
    HS_END_LOCKED();
    if (stop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this was awaited already");
        return NULL;
    }
    hs_stop_iteration(stop, value);
    return NULL;
}

static int
ready_traverse(PyObject *obj, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(obj);
    Py_VISIT(((ReadyObject *)obj)->stop);
    Py_VISIT(((ReadyObject *)obj)->value);
    return 0;
}

static int
ready_clear(PyObject *obj)
{
    Py_CLEAR(((ReadyObject *)obj)->stop);
    Py_CLEAR(((ReadyObject *)obj)->value);
    return 0;
}

static void
ready_dealloc(PyObject *obj)
{
    PyObject_GC_UnTrack(obj);
    (void)ready_clear(obj);
    object_free(obj);
}

PyDoc_STRVAR(ready_doc, "Ready(value, /)\n--\n\nAn awaitable that has its value.");

static PyType_Slot ready_slots[] = {
    {Py_tp_new, HS_SLOT(ready_new)},
    {Py_tp_dealloc, HS_SLOT(ready_dealloc)},
    {Py_tp_traverse, HS_SLOT(ready_traverse)},
    {Py_tp_clear, HS_SLOT(ready_clear)},
    {Py_tp_iter, HS_SLOT(PyObject_SelfIter)},
    {Py_tp_iternext, HS_SLOT(ready_next)},
    {Py_am_await, HS_SLOT(PyObject_SelfIter)},
    {Py_tp_doc, (void *)(uintptr_t)ready_doc},
    {0, NULL},
};

PyType_Spec ready_spec = {
    .name = "hardsock._core.Ready",
    .basicsize = sizeof(ReadyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ready_slots,
};

/* ---- TaskScope ----------------------------------------------------------------------------- */

/* What it is given comes with __init__, since subclasses may have one of their own. */
static PyObject *
task_scope_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyObject *nothing[3] = {NULL, NULL, NULL};
    ScopeObject *self = scope_make(type, nothing);

    if (self != NULL)
        self->in_task = true;
    return (PyObject *)self;
}

static int
task_scope_init(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"timeout", 1, 1, 0, {"seconds", "name"}};
    PyObject *values[MAX_PARAMS];
    ScopeObject *self = (ScopeObject *)obj;
    int bare = GIVEN_NOTHING;

    if (parse_tuple(&p, args, kwargs, values) < 0)
        return -1;
    if (!atomic_compare_exchange_strong(&self->given_state, &bare, GIVEN_BEGUN)) {
        PyErr_SetString(PyExc_RuntimeError, "timeout.__init__() was called before");
        return -1;
    }
    if (values[0] != Py_None)
        self->seconds = Py_XNewRef(values[0]);
    if (values[1] != Py_None)
        self->name = Py_XNewRef(values[1]);
    atomic_store(&self->given_state, GIVEN_ALL);
    return 0;
}

PyDoc_STRVAR(aenter_doc, "__aenter__($self, /)\n--\n\nBegin the block: in the call, not later.");

static PyObject *
task_scope_aenter(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    ScopeObject *self = (ScopeObject *)obj;
    ReadyObject *ready;
    bool unused = false;

    if (atomic_load(&self->given_state) != GIVEN_ALL) {
        PyErr_SetString(PyExc_RuntimeError, "timeout.__init__() has not been called");
        return NULL;
    }
    if (!atomic_compare_exchange_strong(&self->used, &unused, true)) {
        PyErr_SetString(PyExc_RuntimeError, "this timeout was entered before: make another one");
        return NULL;
    }
    if ((ready = ready_make(self->st)) != NULL && (ready->value = scope_enter(obj, NULL)) == NULL)
        Py_CLEAR(ready);
    if (ready == NULL) /* It was not: it may be yet. */
        atomic_store(&self->used, false);
    return (PyObject *)ready;
}

PyDoc_STRVAR(aexit_doc, "__aexit__($self, exc_type, exc, traceback, /)\n--\n\n"
                        "End the block: in the call, not later.");

static PyObject *
task_scope_aexit(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    ReadyObject *ready = ready_make(state_of(obj));
    PyObject *type, *value, *traceback;

    if (ready == NULL) { /* No memory: the block ends all the same. */
        PyErr_Fetch(&type, &value, &traceback);
        Py_XDECREF(scope_exit(obj, args, nargs));
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    if ((ready->value = scope_exit(obj, args, nargs)) == NULL)
        Py_CLEAR(ready);
    return (PyObject *)ready;
}

static PyMethodDef task_scope_methods[] = {
    {"__aenter__", task_scope_aenter, METH_NOARGS, aenter_doc},
    {"__aexit__", HS_METHOD(task_scope_aexit), METH_FASTCALL, aexit_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(task_scope_doc, "TaskScope(seconds, *, name=None)\n--\n\nSee hardsock.aio.timeout.");

static PyType_Slot task_scope_slots[] = {
    {Py_tp_new, HS_SLOT(task_scope_new)},
    {Py_tp_init, HS_SLOT(task_scope_init)},
    {Py_tp_dealloc, HS_SLOT(scope_dealloc)},
    {Py_tp_traverse, HS_SLOT(scope_traverse)},
    {Py_tp_clear, HS_SLOT(scope_clear)},
    {Py_tp_finalize, HS_SLOT(scope_finalize)},
    {Py_tp_methods, task_scope_methods},
    {Py_tp_doc, (void *)(uintptr_t)task_scope_doc},
    {0, NULL},
};

/* A base of hardsock.aio.timeout, which brings its documentation. */
PyType_Spec task_scope_spec = {
    .name = "hardsock._core.TaskScope",
    .basicsize = sizeof(ScopeObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_BASETYPE,
    .slots = task_scope_slots,
};

/* ---- Functions of the module --------------------------------------------------------------- */

PyDoc_STRVAR(set_doc,
             "_set_scope_functions($module, load_host_scope, decorated, /)\n--\n\n"
             "What scopes call in Python; once, when hardsock._scope is loaded.\n\n"
             "load_host_scope() returns what is called in a task: host_scope(token, shields,\n"
             "insists) makes a block of it, which has enter(), leave(*exc_info) and forget(),\n"
             "or returns None where no task runs. decorated(scope, function) is the scope as a\n"
             "decorator.");

static PyObject *
core_set_scope_functions(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames)
{
    static const struct params p = {
        "_set_scope_functions", 2, 2, 2, {"load_host_scope", "decorated"}};
    mod_state *st = state_of_module(module);
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    HS_BEGIN_LOCKED((PyObject *)st->conn_type);
    if (st->load_host_scope == NULL) { /* Loaded anew: what was given first is as good. */
        st->decorated = Py_NewRef(values[1]);
        /* Last: who sees it finds both. */
        __atomic_store_n(&st->load_host_scope, Py_NewRef(values[0]), __ATOMIC_RELEASE);
    }
    HS_END_LOCKED();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(running_loop_doc, "_running_loop($module, /)\n--\n\n"
                               "As asyncio._get_running_loop, without a call of the kernel.");

/* The kernel is asked once in each process. Only where there is the GIL: see hs_any_loop_runs(). */
static pid_t
current_process(mod_state *st)
{
    unsigned generation = hs_fork_generation();

    if (st->process == 0 || st->process_generation != generation) {
        st->process = getpid();
        st->process_generation = generation;
    }
    return st->process;
}

static PyObject *
core_running_loop(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    mod_state *st = state_of_module(module);
    int runs = hs_any_loop_runs(st->str___asyncio_running_event_loop__);
    PyObject *loop = NULL, *asyncio;

    if (runs < 0 && PyErr_Occurred())
        return NULL;
    if (runs < 0 && (asyncio = hs_dict_find(PyImport_GetModuleDict(), st->str__asyncio)) != NULL) {
        loop = PyObject_CallMethodNoArgs(asyncio, st->str__get_running_loop);
        Py_DECREF(asyncio);
        return loop;
    }
    if (runs > 0)
        loop = hs_running_loop(st->str___asyncio_running_event_loop__, current_process(st));
    return loop != NULL ? loop : Py_NewRef(Py_None);
}

PyMethodDef scope_functions[] = {
    {"_running_loop", core_running_loop, METH_NOARGS, running_loop_doc},
    {"_set_scope_functions", HS_METHOD(core_set_scope_functions), METH_FASTCALL | METH_KEYWORDS,
     set_doc},
    {NULL, NULL, 0, NULL},
};
