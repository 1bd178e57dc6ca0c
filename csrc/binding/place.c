/* place.c: where in the program somebody makes or borrows a connection.
 *
 * The innermost frame is the caller of our C function. Frames of the package itself, and of
 * contextlib, are passed over.
 */
#include "place.h"

#include "compat_frame.h"

#include <string.h>

static int
find_package(mod_state *st)
{
    PyObject *package = PyImport_ImportModule("hardsock"), *path = NULL, *first = NULL;

    if (package != NULL && (path = PyObject_GetAttrString(package, "__path__")) != NULL &&
        (first = PySequence_GetItem(path, 0)) != NULL)
        st->package_dir = PyUnicode_FromFormat("%U/", first);
    Py_XDECREF(package);
    Py_XDECREF(path);
    Py_XDECREF(first);
    return st->package_dir == NULL ? -1 : 0;
}

int
place_init(mod_state *st)
{
    PyObject *contextlib = PyImport_ImportModule("contextlib");

    if (contextlib != NULL)
        st->contextlib_file = PyObject_GetAttrString(contextlib, "__file__");
    Py_XDECREF(contextlib);
    return st->contextlib_file == NULL ? -1 : find_package(st);
}

bool
place_of_caller(struct place *ret_place)
{
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    PyCodeObject *code;

    if (frame == NULL)
        return false;
    code = PyFrame_GetCode(frame);
    ret_place->code = (PyObject *)code;
    ret_place->at = hs_frame_lasti(frame);
    Py_DECREF(code); /* The frame runs, and keeps it. */
    Py_DECREF(frame);
    return true;
}

static bool
starts_with(PyObject *text, PyObject *prefix)
{
    return PyUnicode_Tailmatch(text, prefix, 0, PY_SSIZE_T_MAX, -1) == 1;
}

static bool
is_ours(mod_state *st, PyCodeObject *code)
{
    return starts_with(code->co_filename, st->package_dir) ||
           PyUnicode_Compare(code->co_filename, st->contextlib_file) == 0;
}

/* Takes frame; the next one outward, or NULL: there is none, or no memory to look at it. */
static PyFrameObject *
outward(PyFrameObject *frame)
{
    PyFrameObject *back = PyFrame_GetBack(frame);

    if (back == NULL)
        PyErr_Clear(); /* An object for a frame is made when somebody looks. */
    Py_DECREF(frame);
    return back;
}

/* Takes frame; the next frame outward that is not ours, or NULL. */
static PyFrameObject *
find_outside(mod_state *st, PyFrameObject *frame)
{
    while (frame != NULL) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        bool ours = is_ours(st, code);

        Py_DECREF(code);
        if (!ours)
            break;
        frame = outward(frame);
    }
    return frame;
}

bool
place_outside(mod_state *st, struct place *ret_place)
{
    PyFrameObject *frame = find_outside(st, PyThreadState_GetFrame(PyThreadState_Get()));
    PyCodeObject *code;

    if (frame == NULL)
        return false;
    code = PyFrame_GetCode(frame);
    ret_place->code = (PyObject *)code;
    ret_place->at = hs_frame_lasti(frame);
    Py_DECREF(code);
    Py_DECREF(frame);
    return true;
}

PyObject *
place_trace(mod_state *st, int n)
{
    PyFrameObject *frame = find_outside(st, PyThreadState_GetFrame(PyThreadState_Get()));
    PyObject *list = PyList_New(0), *tuple = NULL;

    for (; frame != NULL && list != NULL && n > 0; n--) {
        PyObject *item = Py_BuildValue("Ni", PyFrame_GetCode(frame), hs_frame_lasti(frame));

        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
        frame = outward(frame);
    }
    Py_XDECREF(frame);
    if (list != NULL)
        tuple = PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}

int
place_line(const struct place *place)
{
    return PyCode_Addr2Line((PyCodeObject *)place->code, place->at);
}
