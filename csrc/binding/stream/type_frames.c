/* type_frames.c: the iterator over lines and frames of a Connection.
 *
 * A frame that is buffered already is taken without looking at the clock or at tokens, which is
 * what makes iterating cheap; whatever has to wait is a call of recv_frame. It consumes exactly
 * what it yields: after a break any other call goes on behind the last frame.
 */
#include "conn.h"

typedef struct {
    HS_HEAD
    PyObject *conn;   /* owns; a ConnObject */
    PyObject *method; /* owns: what gets the next frame when it has to wait */
    PyObject *args;   /* owns */
    PyObject *kwargs; /* owns */
    struct framing_arg framing;
} FramesObject;

static PyObject *
wait_for_frame(FramesObject *self)
{
    PyObject *frame = PyObject_Call(self->method, self->args, self->kwargs);

    if (frame == NULL && PyErr_ExceptionMatches(state_of((PyObject *)self)->end_of_stream))
        PyErr_Clear(); /* A clean end: so ends the iteration. */
    return frame;
}

static PyObject *
frames_next(PyObject *obj)
{
    FramesObject *self = (FramesObject *)obj;
    ConnObject *conn = (ConnObject *)self->conn;
    PyObject *frame;

    frame = conn_take_buffered_frame(conn, &self->framing);
    if (frame == NULL && !PyErr_Occurred())
        frame = wait_for_frame(self);
    return frame;
}

static int
frames_traverse(PyObject *obj, visitproc visit, void *arg)
{
    FramesObject *self = (FramesObject *)obj;

    HS_VISIT_HEAD(obj);
    Py_VISIT(self->conn);
    Py_VISIT(self->method);
    Py_VISIT(self->args);
    Py_VISIT(self->kwargs);
    Py_VISIT(self->framing.owner);
    return 0;
}

static void
frames_dealloc(PyObject *obj)
{
    FramesObject *self = (FramesObject *)obj;

    PyObject_GC_UnTrack(obj);
    Py_XDECREF(self->conn);
    Py_XDECREF(self->method);
    Py_XDECREF(self->args);
    Py_XDECREF(self->kwargs);
    framing_release(&self->framing);
    object_free(obj);
}

static int
frames_fill(FramesObject *self, PyObject *conn, const char *method, PyObject *framing,
            PyObject *timeout, PyObject *token)
{
    bool is_given = framing != NULL;
    int64_t span;

    self->framing.f = &conn_default_line;
    if (is_given && parse_framing(state_of(conn), framing, &self->framing) < 0)
        return -1;
    if (parse_seconds(timeout, "timeout", &span) < 0)
        return -1;
    self->conn = Py_NewRef(conn);
    self->method = PyObject_GetAttrString(conn, method);
    self->args = is_given ? PyTuple_Pack(1, framing) : PyTuple_New(0);
    self->kwargs = Py_BuildValue("{sOsO}", "timeout", timeout != NULL ? timeout : Py_None, "token",
                                 token != NULL ? token : Py_None);
    return self->method != NULL && self->args != NULL && self->kwargs != NULL ? 0 : -1;
}

static PyObject *
frames_make(PyObject *conn, const char *method, PyObject *framing, PyObject *timeout,
            PyObject *token)
{
    mod_state *st = state_of(conn);
    FramesObject *self = object_new(st, st->frames_type);

    if (self != NULL && frames_fill(self, conn, method, framing, timeout, token) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

CONN_DOC(lines, "lines($self, line=None, /, *, timeout=None, token=None)\n--\n\n"
                "Iterate over lines, until the peer ends; line is a Line, by default one of LF.\n\n"
                "timeout is for each line that has to be waited for. Raises as recv_line() does;\n"
                "an end in the middle of a line is Truncated, not an end of the iteration.");

PyObject *
conn_lines(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"lines", 0, 1, 1, {"line", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    return frames_make(self, "recv_line", line_argument(values[0]), values[1], values[2]);
}

CONN_DOC(frames, "frames($self, framing, /, *, timeout=None, token=None)\n--\n\n"
                 "Iterate over frames, until the peer ends; see lines() and recv_frame().");

PyObject *
conn_frames(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"frames", 1, 1, 1, {"framing", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    return frames_make(self, "recv_frame", values[0], values[1], values[2]);
}

PyDoc_STRVAR(frames_doc, "An iterator over the lines or frames of a Connection.");

static PyType_Slot frames_slots[] = {
    {Py_tp_dealloc, HS_SLOT(frames_dealloc)},   {Py_tp_traverse, HS_SLOT(frames_traverse)},
    {Py_tp_iter, HS_SLOT(PyObject_SelfIter)},   {Py_tp_iternext, HS_SLOT(frames_next)},
    {Py_tp_doc, (void *)(uintptr_t)frames_doc}, {0, NULL},
};

PyType_Spec frames_spec = {
    .name = "hardsock._core.Frames",
    .basicsize = sizeof(FramesObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = frames_slots,
};
