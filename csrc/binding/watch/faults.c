/* faults.c: the module's functions for faults on demand.
 *
 * What a spec may say is the core's to know; nothing here waits.
 */
#include "binding/base/args.h"
#include "binding/base/run.h"

#include <string.h>

PyDoc_STRVAR(begin_doc, "_faults_begin(spec, /)\n--\n\n"
                        "Put a plan of faults in force; returns its id.");

static PyObject *
core_faults_begin(PyObject *module, PyObject *spec)
{
    struct hs_error err = {0};
    const char *text;
    Py_ssize_t len;
    uint64_t id;
    hs_err rv;

    if ((text = PyUnicode_AsUTF8AndSize(spec, &len)) == NULL)
        return NULL;
    if (strlen(text) != (size_t)len) {
        PyErr_SetString(PyExc_ValueError, "spec must not contain a null character");
        return NULL;
    }
    if ((rv = hs_faults_begin(text, &err, &id)) != HS_OK) {
        raise_plain_error(state_of_module(module), &err, rv);
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(id);
}

static int
parse_id(PyObject *arg, uint64_t *ret_id)
{
    *ret_id = PyLong_AsUnsignedLongLong(arg);
    return *ret_id == (uint64_t)-1 && PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(end_doc, "_faults_end(id, /)\n--\n\n"
                      "End that plan.");

static PyObject *
core_faults_end(PyObject *Py_UNUSED(module), PyObject *arg)
{
    uint64_t id;

    if (parse_id(arg, &id) < 0)
        return NULL;
    hs_faults_end(id);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(plan_doc, "_faults_plan(id, /)\n--\n\n"
                       "Seed of a plan, and calls counted by name; None: it has ended.");

static PyObject *
core_faults_plan(PyObject *Py_UNUSED(module), PyObject *arg)
{
    uint64_t id, seed, calls[HS_FAULT_CALLS];
    PyObject *dict;

    if (parse_id(arg, &id) < 0)
        return NULL;
    if (!hs_faults_plan(id, &seed, calls))
        Py_RETURN_NONE;
    dict = PyDict_New();
    for (size_t i = 0; dict != NULL && i < HS_FAULT_CALLS; i++) {
        PyObject *n = PyLong_FromUnsignedLongLong(calls[i]);

        if (n == NULL || PyDict_SetItemString(dict, hs_fault_call_name(i), n) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(n);
    }
    return dict == NULL ? NULL : Py_BuildValue("(KN)", (unsigned long long)seed, dict);
}

PyDoc_STRVAR(count_doc, "_faults_logged()\n--\n\n"
                        "How many faults there have been in this process.");

static PyObject *
core_faults_logged(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(hs_faults_logged());
}

PyDoc_STRVAR(log_doc, "_faults_log(nth, /)\n--\n\n"
                      "The nth fault of this process, from 1 on, or None.");

static PyObject *
core_faults_log(PyObject *Py_UNUSED(module), PyObject *arg)
{
    const char *text;
    char buf[64];
    uint64_t nth;

    if (parse_id(arg, &nth) < 0)
        return NULL;
    if ((text = hs_faults_log(nth, buf, sizeof(buf))) == NULL)
        Py_RETURN_NONE;
    return PyUnicode_FromString(text);
}

PyMethodDef faults_functions[] = {
    {"_faults_begin", core_faults_begin, METH_O, begin_doc},
    {"_faults_end", core_faults_end, METH_O, end_doc},
    {"_faults_plan", core_faults_plan, METH_O, plan_doc},
    {"_faults_logged", core_faults_logged, METH_NOARGS, count_doc},
    {"_faults_log", core_faults_log, METH_O, log_doc},
    {NULL, NULL, 0, NULL},
};
