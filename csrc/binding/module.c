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
add_types(PyObject *module, mod_state *st)
{
#define HS_ADD_TYPE(stem)                                                                          \
    st->stem##_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &stem##_spec, NULL);        \
    if (st->stem##_type == NULL || PyModule_AddType(module, st->stem##_type) < 0)                  \
        return -1;
    HS_TYPES(HS_ADD_TYPE)
#undef HS_ADD_TYPE
    return 0;
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
    if (place_init(st) < 0 || opened_init(module, st) < 0 || add_types(module, st) < 0)
        return -1;
#define HS_ADD_FUNCTIONS(stem)                                                                     \
    if (PyModule_AddFunctions(module, stem##_functions) < 0)                                       \
        return -1;
    HS_FUNCTIONS(HS_ADD_FUNCTIONS)
#undef HS_ADD_FUNCTIONS
    return 0;
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

static int
module_clear(PyObject *module)
{
    mod_state *st = state_of_module(module);

#define HS_CLEAR_TYPE(stem) Py_CLEAR(st->stem##_type);
    HS_TYPES(HS_CLEAR_TYPE)
#undef HS_CLEAR_TYPE
#define HS_CLEAR_OBJECT(field) Py_CLEAR(st->field);
    HS_OBJECTS(HS_CLEAR_OBJECT)
#undef HS_CLEAR_OBJECT
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
