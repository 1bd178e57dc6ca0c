/* module.c: the module hardsock._core: its state, its types, its functions.
 *
 * Multi-phase initialisation, one state per import: subinterpreters and free-threaded builds load
 * it as it is. Exceptions and record types are Python classes, so they are looked up once per
 * import.
 */
#include "binding/stream/framing.h"
#include "binding/base/notifier.h"
#include "binding/base/call_site.h"
#include "binding/stream/tls.h"
#include "binding/cancel/token.h"
#include "binding/base/state.h"

static int
import_one(const char *module_name, const char *name, PyObject **ret)
{
    PyObject *module = PyImport_ImportModule(module_name);

    if (module == NULL)
        return -1;
    *ret = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return *ret == NULL ? -1 : 0;
}

static int
add_types(PyObject *module, mod_state *st)
{
#define HS_ADD_TYPE(stem)                                                                          \
    st->stem##_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &stem##_spec, NULL);        \
    if (st->stem##_type == NULL || PyModule_AddType(module, st->stem##_type) < 0)                  \
        return -1;
    HS_TYPES(HS_ADD_TYPE)
#undef HS_ADD_TYPE
    /* Every scope makes one of each: with a dict and a tuple for the arguments it costs a third
     * more. */
    st->token_type->tp_vectorcall = token_vectorcall;
    st->scope_type->tp_vectorcall = scope_vectorcall;
    return 0;
}

/* ---- The end of the interpreter ------------------------------------------------------------ */

/* Before threads are cut off, and the garbage collector's last round: nobody is told any more. */
static PyObject *
interpreter_ends(PyObject *weak, PyObject *Py_UNUSED(ignored))
{
    PyObject *module = hs_weakref_get(weak);

    if (module != NULL) {
        opened_interpreter_ends(state_of_module(module));
        notifier_interpreter_ends(state_of_module(module));
    }
    Py_XDECREF(module);
    Py_RETURN_NONE;
}

static PyMethodDef interpreter_ends_method = {"_interpreter_ends", interpreter_ends, METH_NOARGS,
                                              NULL};

/* What is registered does not hold the module, which may go before its interpreter. */
static int
register_end(PyObject *module)
{
    PyObject *atexit = PyImport_ImportModule("atexit"), *function = NULL, *result = NULL;
    PyObject *weak = PyWeakref_NewRef(module, NULL);

    if (atexit != NULL && weak != NULL &&
        (function = PyCFunction_New(&interpreter_ends_method, weak)) != NULL)
        result = PyObject_CallMethod(atexit, "register", "O", function);
    Py_XDECREF(atexit);
    Py_XDECREF(weak);
    Py_XDECREF(function);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* ---- The module ---------------------------------------------------------------------------- */

static int
module_exec(PyObject *module)
{
    mod_state *st = state_of_module(module);

    st->module = module;
    hs_prepare_thread_ends();
#define HS_IMPORT_ONE(field, module_name, name)                                                    \
    if (import_one(module_name, name, &st->field) < 0)                                             \
        return -1;
    HS_IMPORTS(HS_IMPORT_ONE)
#undef HS_IMPORT_ONE
#define HS_INTERN(name)                                                                            \
    if ((st->str_##name = PyUnicode_InternFromString(#name)) == NULL)                              \
        return -1;
    HS_NAMES(HS_INTERN)
#undef HS_INTERN
    if ((st->scope = PyContextVar_New("hardsock.scope", Py_None)) == NULL ||
        PyModule_AddObjectRef(module, "scope", st->scope) < 0 ||
        (st->trio_lowlevel = PyUnicode_InternFromString("trio.lowlevel")) == NULL ||
        PyModule_AddStringConstant(module, "version", hs_version()) < 0)
        return -1;
    atomic_init(&st->default_span_ns, HS_NEVER);
    if (notifier_init(st) < 0 || call_site_init(st) < 0 || tracking_init(module, st) < 0 ||
        add_types(module, st) < 0)
        return -1;
#define HS_ADD_FUNCTIONS(stem)                                                                     \
    if (PyModule_AddFunctions(module, stem##_functions) < 0)                                       \
        return -1;
    HS_FUNCTIONS(HS_ADD_FUNCTIONS)
#undef HS_ADD_FUNCTIONS
    return register_end(module);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    mod_state *st = state_of_module(module);

#define HS_VISIT_TYPE(stem) Py_VISIT(st->stem##_type);
    HS_TYPES(HS_VISIT_TYPE)
#undef HS_VISIT_TYPE
#define HS_VISIT_OBJECT(field) Py_VISIT(st->field);
    HS_OBJECTS(HS_VISIT_OBJECT)
#undef HS_VISIT_OBJECT
#define HS_VISIT(field, module_name, name) Py_VISIT(st->field);
    HS_IMPORTS(HS_VISIT)
#undef HS_VISIT
    return 0;
}

/* Not module_clear: see state.h. */
static void
module_free(void *module)
{
    mod_state *st = state_of_module(module);

    call_site_free_interned(st);
#define HS_FREE_TYPE(stem) Py_XDECREF(st->stem##_type);
    HS_TYPES(HS_FREE_TYPE)
#undef HS_FREE_TYPE
#define HS_FREE_OBJECT(field) Py_XDECREF(st->field);
    HS_OBJECTS(HS_FREE_OBJECT)
#undef HS_FREE_OBJECT
#define HS_FREE_IMPORT(field, module_name, name) Py_XDECREF(st->field);
    HS_IMPORTS(HS_FREE_IMPORT)
#undef HS_FREE_IMPORT
#define HS_FREE_NAME(name) Py_XDECREF(st->str_##name);
    HS_NAMES(HS_FREE_NAME)
#undef HS_FREE_NAME
    notifier_fini(st);
    hs_fixed_histogram_free(atomic_load(&st->attach_waits));
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, HS_SLOT(module_exec)},
    HS_SLOT_INTERPRETERS HS_SLOT_GIL{0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "hardsock._core",
    .m_doc = "The C core of hardsock, as Python sees it. Import hardsock instead.",
    .m_size = sizeof(mod_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&module_def);
}
