/* report.c: what the core tells of this process to those who look: reports, the flight recorder.
 *
 * A report is made detached: while it walks over ten thousand connections the program runs on.
 */
#include "binding/base/args.h"
#include "binding/base/run.h"

#include <stdlib.h>
#include <string.h>

struct asked {
    const char *request;
    struct hs_error err;
    char *text;
    size_t len;
    hs_err rv;
};

static void
make_report(void *arg)
{
    struct asked *a = arg;

    a->rv = hs_report_asked(a->request, &a->err, &a->text, &a->len);
}

PyDoc_STRVAR(report_doc, "_report(request, /)\n--\n\n"
                         "\"metrics\", \"connection 17\", ...: a report as bytes of JSON.");

static PyObject *
core_report(PyObject *module, PyObject *request)
{
    struct asked a = {.rv = HS_OK};
    PyObject *result;

    if (!PyUnicode_Check(request)) {
        PyErr_SetString(PyExc_TypeError, "name must be a str");
        return NULL;
    }
    if ((a.request = PyUnicode_AsUTF8(request)) == NULL)
        return NULL;
    run_detached(make_report, &a);
    if (a.rv == HS_E_INVALID)
        return PyErr_Format(PyExc_ValueError, "there is no report %R", request);
    if (a.rv == HS_E_CLOSED)
        return PyErr_Format(PyExc_LookupError, "there is no open %U", request);
    if (a.rv != HS_OK) {
        raise_plain_error(state_of_module(module), &a.err, a.rv);
        return NULL;
    }
    result = PyBytes_FromStringAndSize(a.text, (Py_ssize_t)a.len);
    free(a.text);
    return result;
}

PyDoc_STRVAR(tcp_fields_doc, "_tcp_fields(info, /)\n--\n\n"
                             "What a struct tcp_info (bytes) tells, by name.");

static PyObject *
core_tcp_fields(PyObject *Py_UNUSED(module), PyObject *info)
{
    char *bytes;
    Py_ssize_t len;

    if (PyBytes_AsStringAndSize(info, &bytes, &len) < 0)
        return NULL;
    return tcp_fields_dict(bytes, (size_t)len);
}

PyDoc_STRVAR(dump_doc, "_dump(fd, /)\n--\n\n"
                       "Write what the flight recorder keeps, as text, to a descriptor.");

static void
dump_detached(void *arg)
{
    hs_dump(*(int *)arg);
}

static PyObject *
core_dump(PyObject *Py_UNUSED(module), PyObject *arg)
{
    long value;
    int fd;

    if (parse_long(arg, "fd", 0, INT_MAX, &value) < 0)
        return NULL;
    fd = (int)value;
    run_detached(dump_detached, &fd); /* A pipe may be full. */
    Py_RETURN_NONE;
}

PyDoc_STRVAR(dump_at_fatal_signals_doc,
             "_dump_at_fatal_signals(fd, /)\n--\n\n"
             "_dump(fd) at SIGSEGV and its like, before what handles them now; -1: no more.");

static PyObject *
core_dump_at_fatal_signals(PyObject *module, PyObject *arg)
{
    struct hs_error err = {0};
    hs_err rv;
    long fd;

    if (parse_long(arg, "fd", -1, INT_MAX, &fd) < 0)
        return NULL;
    if ((rv = hs_dump_at_fatal_signals((int)fd, &err)) != HS_OK) {
        raise_plain_error(state_of_module(module), &err, rv);
        return NULL;
    }
    Py_RETURN_NONE;
}

struct starting {
    const char *path;
    struct hs_error err;
    hs_err rv;
};

static void
start_detached(void *arg)
{
    struct starting *s = arg;

    s->rv = HS_OK;
    if (s->path != NULL)
        s->rv = hs_inspect_start(s->path, &s->err);
    else
        hs_inspect_stop();
}

PyDoc_STRVAR(inspect_doc, "_inspect(path, /)\n--\n\n"
                          "Serve reports at a unix socket with this path (bytes); None: no more.");

static PyObject *
core_inspect(PyObject *module, PyObject *path)
{
    struct starting s = {0};

    if (path != Py_None && (s.path = PyBytes_AsString(path)) == NULL)
        return NULL;
    run_detached(start_detached, &s);
    if (s.rv != HS_OK) {
        raise_plain_error(state_of_module(module), &s.err, s.rv);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef report_functions[] = {
    {"_inspect", core_inspect, METH_O, inspect_doc},
    {"_report", core_report, METH_O, report_doc},
    {"_tcp_fields", core_tcp_fields, METH_O, tcp_fields_doc},
    {"_dump", core_dump, METH_O, dump_doc},
    {"_dump_at_fatal_signals", core_dump_at_fatal_signals, METH_O, dump_at_fatal_signals_doc},
    {NULL, NULL, 0, NULL},
};
