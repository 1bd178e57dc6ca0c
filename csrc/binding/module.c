/* module.c: the module hardsock._core: its state, its types, its functions.
 *
 * Multi-phase initialisation, one state per import: subinterpreters and free-threaded builds load
 * it as it is. Exceptions and record types are Python classes, so they are looked up once per
 * import.
 */
#include "framing.h"
#include "place.h"
#include "tls.h"
#include "state.h"

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
module_exec(PyObject *module)
{
    mod_state *st = state_of_module(module);

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
        PyModule_AddStringConstant(module, "version", hs_version()) < 0)
        return -1;
    if (token_types_init(module, st) < 0 || conn_type_init(module, st) < 0 ||
        listener_type_init(module, st) < 0 || frames_type_init(module, st) < 0 ||
        place_init(st) < 0 || opened_init(module, st) < 0 || pool_type_init(module, st) < 0 ||
        borrowing_type_init(module, st) < 0 || hub_type_init(module, st) < 0 ||
        slots_type_init(module, st) < 0 || operation_type_init(module, st) < 0 ||
        framing_type_init(module, st) < 0 || decoder_type_init(module, st) < 0 ||
        tls_type_init(module, st) < 0 || breaker_types_init(module, st) < 0)
        return -1;
    if (PyModule_AddFunctions(module, connect_functions) < 0)
        return -1;
    if (PyModule_AddFunctions(module, tls_functions) < 0)
        return -1;
    return PyModule_AddFunctions(module, watch_functions);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    mod_state *st = state_of_module(module);

    Py_VISIT(st->token_type);
    Py_VISIT(st->callback_type);
    Py_VISIT(st->conn_type);
    Py_VISIT(st->listener_type);
    Py_VISIT(st->frames_type);
    Py_VISIT(st->hub_type);
    Py_VISIT(st->slots_type);
    Py_VISIT(st->operation_type);
    Py_VISIT(st->framing_type);
    Py_VISIT(st->decoder_type);
    Py_VISIT(st->breaker_type);
    Py_VISIT(st->permit_type);
    Py_VISIT(st->pool_type);
    Py_VISIT(st->borrowing_type);
    Py_VISIT(st->scope);
    Py_VISIT(st->owner);
    Py_VISIT(st->thrown_away);
    Py_VISIT(st->fd_check);
#define HS_VISIT(field, module_name, name) Py_VISIT(st->field);
    HS_IMPORTS(HS_VISIT)
#undef HS_VISIT
    return 0;
}

static int
module_clear(PyObject *module)
{
    mod_state *st = state_of_module(module);

    Py_CLEAR(st->token_type);
    Py_CLEAR(st->callback_type);
    Py_CLEAR(st->conn_type);
    Py_CLEAR(st->listener_type);
    Py_CLEAR(st->frames_type);
    Py_CLEAR(st->hub_type);
    Py_CLEAR(st->slots_type);
    Py_CLEAR(st->operation_type);
    Py_CLEAR(st->framing_type);
    Py_CLEAR(st->decoder_type);
    Py_CLEAR(st->breaker_type);
    Py_CLEAR(st->permit_type);
    Py_CLEAR(st->pool_type);
    Py_CLEAR(st->borrowing_type);
    Py_CLEAR(st->package_dir);
    Py_CLEAR(st->contextlib_file);
    Py_CLEAR(st->scope);
    Py_CLEAR(st->owner);
    Py_CLEAR(st->thrown_away);
    Py_CLEAR(st->fd_check);
#define HS_CLEAR(field, module_name, name) Py_CLEAR(st->field);
    HS_IMPORTS(HS_CLEAR)
#undef HS_CLEAR
#define HS_CLEAR_NAME(name) Py_CLEAR(st->str_##name);
    HS_NAMES(HS_CLEAR_NAME)
#undef HS_CLEAR_NAME
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear(module);
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
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&module_def);
}
