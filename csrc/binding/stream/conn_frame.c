/* conn_frame.c: the methods of Connection that cut frames out of the stream, send them, and look
 * ahead.
 *
 * The core lends frames out of its buffer while the call keeps its claim: each is copied into an
 * object first and consumed after. So a frame that no object could be made for is not lost.
 */
#include "conn.h"

#include <string.h>

/* What the methods take when they are given no Line. */
const struct hs_framing conn_default_line = {
    .kind = HS_FRAMING_LINE, .ending = HS_LINE_LF, .max_size = 65536};

static void
release_framed(struct job *job)
{
    struct framed *f = &job->u.framed;

    framing_release(&f->arg);
    Py_XDECREF(f->separator);
}

static int
begin_framed(PyObject *self, struct job *job, const char *op, PyObject *timeout, PyObject *token)
{
    job->release = release_framed;
    return conn_job_begin(self, job, op, timeout, token);
}

static hs_err
attempt_frames(struct job *job)
{
    struct call *c = &job->call;

    return hs_conn_recv_frames(c->conn, &c->op, job->u.framed.arg.f, c->err);
}

/* NULL without an exception: no frame is left. It still has to be taken. */
static PyObject *
front_frame(struct hs_conn *conn, const struct framing_arg *arg)
{
    const uint8_t *data;
    size_t len;

    if (!hs_conn_frame(conn, arg->f, &data, &len))
        return NULL;
    if (arg->encoding == NULL)
        return PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len);
    return frame_object(arg, data, len);
}

/* The same, consumed. So is a line that is not in its encoding, since the exception holds it. */
static PyObject *
take_frame(struct hs_conn *conn, const struct framing_arg *arg)
{
    PyObject *frame = front_frame(conn, arg);

    if (frame != NULL || PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        hs_conn_frame_taken(conn);
    return frame;
}

static PyObject *
one_frame(struct job *job)
{
    PyObject *frame = take_frame(job->call.conn, &job->u.framed.arg);

    hs_conn_frames_end(job->call.conn, &job->call.op);
    return frame;
}

/* ---- One frame ----------------------------------------------------------------------------- */

CONN_DOC(recv_until,
         "recv_until($self, separator, /, *, max_size=65536, keep=False, timeout=None, "
         "token=None)\n--\n\n"
         "Receive up to and including separator; returns what stands before it (keep: and it).\n\n"
         "max_size does not count the separator; more raises FrameTooLarge and ends reading.\n"
         "Raises Truncated if the peer ends in the middle, EndOfStream before the first byte,\n"
         "else as recv() does. A deadline or a cancel keeps every byte: calling again goes on,\n"
         "also with the search. For other policies give a Delimiter to recv_frame().");

static int
conn_prepare_recv_until(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                        struct job *job)
{
    static const struct params p = {
        "recv_until", 1, 1, 1, {"separator", "max_size", "keep", "timeout", "token"}};
    struct framed *f = &job->u.framed;
    PyObject *values[MAX_PARAMS];
    struct hs_error err = {0};
    long max_size = 65536;
    int keep;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[1], "max_size", 0, LONG_MAX, &max_size) < 0)
        return -1;
    if (!PyBytes_Check(values[0])) {
        PyErr_Format(PyExc_TypeError, "separator must be bytes, not %.100s",
                     Py_TYPE(values[0])->tp_name);
        return -1;
    }
    if ((keep = values[2] == NULL ? 0 : PyObject_IsTrue(values[2])) < 0)
        return -1;
    f->separator = Py_NewRef(values[0]);
    f->own = (struct hs_framing){
        .kind = HS_FRAMING_DELIMITER,
        .max_size = (size_t)max_size,
        .keep = keep != 0,
        .sep = (const uint8_t *)PyBytes_AS_STRING(f->separator),
        .sep_len = (size_t)PyBytes_GET_SIZE(f->separator),
    };
    f->arg.f = &f->own;
    job->attempt = attempt_frames;
    job->result = one_frame;
    if (begin_framed(self, job, "recv_until", values[3], values[4]) < 0)
        return -1;
    if (hs_framing_check(&f->own, &err) != HS_OK)
        return raise_plain_error(job->call.st, &err, HS_E_INVALID);
    return 0;
}

JOB_METHODS(conn, recv_until)

PyObject *
line_argument(PyObject *line)
{
    return line == Py_None ? NULL : line;
}

/* framing may be NULL where lines are meant. */
static int
prepare_frames(PyObject *self, struct job *job, const char *op, PyObject *framing,
               PyObject *timeout, PyObject *token)
{
    job->attempt = attempt_frames;
    job->result = one_frame;
    if (begin_framed(self, job, op, timeout, token) < 0)
        return -1;
    if (framing == NULL) {
        job->u.framed.arg.f = &conn_default_line;
        return 0;
    }
    return parse_framing(job->call.st, framing, &job->u.framed.arg);
}

CONN_DOC(recv_line,
         "recv_line($self, line=None, /, *, timeout=None, token=None)\n--\n\n"
         "Receive a line, without its ending; line is a Line, by default one that ends in LF.\n\n"
         "Raises as recv_until() does, and BadFrame and UnicodeDecodeError where the Line is\n"
         "strict or has an encoding.");

static int
conn_prepare_recv_line(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                       struct job *job)
{
    static const struct params p = {"recv_line", 0, 1, 1, {"line", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    return prepare_frames(self, job, "recv_line", line_argument(values[0]), values[1], values[2]);
}

JOB_METHODS(conn, recv_line)

CONN_DOC(recv_frame,
         "recv_frame($self, framing, /, *, timeout=None, token=None)\n--\n\n"
         "Receive a frame; framing is a LengthPrefix, a Delimiter or a Line.\n\n"
         "Raises FrameTooLarge, BadFrame, Truncated if the peer ends in the middle,\n"
         "EndOfStream before the first byte, else as recv() does. A deadline or a cancel keeps\n"
         "every byte: calling again goes on.");

static int
conn_prepare_recv_frame(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                        struct job *job)
{
    static const struct params p = {"recv_frame", 1, 1, 1, {"framing", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    return prepare_frames(self, job, "recv_frame", values[0], values[1], values[2]);
}

JOB_METHODS(conn, recv_frame)

/* ---- Many at once -------------------------------------------------------------------------- */

/* What no object can be made of, behind others, is left for the next call, which will tell. */
static int
append_frames(struct hs_conn *conn, const struct framing_arg *arg, long max_count, PyObject *list)
{
    PyObject *frame;
    int rv = 0;

    for (long n = 0; rv == 0 && n < max_count && (frame = front_frame(conn, arg)) != NULL; n++) {
        if ((rv = PyList_Append(list, frame)) == 0)
            hs_conn_frame_taken(conn);
        Py_DECREF(frame);
    }
    if (PyErr_Occurred() == NULL)
        return 0;
    if (PyList_GET_SIZE(list) > 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        hs_conn_frame_taken(conn);
    return -1;
}

static PyObject *
list_of_frames(struct job *job)
{
    struct framed *f = &job->u.framed;
    struct hs_conn *conn = job->call.conn;
    PyObject *list = PyList_New(0);

    if (list != NULL && append_frames(conn, &f->arg, f->max_count, list) < 0)
        Py_CLEAR(list);
    hs_conn_frames_end(conn, &job->call.op);
    return list;
}

static int
prepare_many(PyObject *self, struct job *job, const char *op, PyObject *framing, PyObject *count,
             PyObject **values)
{
    job->u.framed.max_count = LONG_MAX;
    if (count != Py_None &&
        parse_long(count, "max_count", 1, LONG_MAX, &job->u.framed.max_count) < 0)
        return -1;
    if (prepare_frames(self, job, op, framing, values[2], values[3]) < 0)
        return -1;
    job->result = list_of_frames;
    return 0;
}

CONN_DOC(recv_lines,
         "recv_lines($self, max_count=None, line=None, /, *, timeout=None, token=None)\n--\n\n"
         "Wait for a line, then take all that are there, at most max_count; a list.\n\n"
         "Raises as recv_line() does.");

static int
conn_prepare_recv_lines(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                        struct job *job)
{
    static const struct params p = {
        "recv_lines", 0, 2, 2, {"max_count", "line", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    return prepare_many(self, job, "recv_line", line_argument(values[1]), values[0], values);
}

JOB_METHODS(conn, recv_lines)

CONN_DOC(recv_frames,
         "recv_frames($self, framing, max_count=None, /, *, timeout=None, token=None)\n--\n\n"
         "Wait for a frame, then take all that are there, at most max_count; a list.\n\n"
         "Raises as recv_frame() does.");

static int
conn_prepare_recv_frames(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                         struct job *job)
{
    static const struct params p = {
        "recv_frames", 1, 2, 2, {"framing", "max_count", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    return prepare_many(self, job, "recv_frame", values[0], values[1], values);
}

JOB_METHODS(conn, recv_frames)

/* A frame that is there already: for iteration, which must be cheap. NULL without an exception:
 * there is none, or something to be told. */
PyObject *
conn_take_buffered_frame(ConnObject *self, const struct framing_arg *arg)
{
    hs_err rv = HS_E_CLOSED;
    PyObject *frame;

    HS_BEGIN_LOCKED((PyObject *)self); /* What it has claimed no return can miss. */
    if (!conn_is_let_go(self))
        rv = hs_conn_try_frames(self->core, arg->f);
    HS_END_LOCKED();
    if (rv != HS_OK)
        return NULL;
    frame = take_frame(self->core, arg);
    hs_conn_try_end(self->core);
    return frame;
}

/* ---- Sending ------------------------------------------------------------------------------- */

static void
release_sending(struct job *job)
{
    struct framed_send *s = &job->u.framed_send;

    framing_release(&s->arg);
    if (s->head.obj != NULL)
        PyBuffer_Release(&s->head);
    if (s->payload.obj != NULL)
        PyBuffer_Release(&s->payload);
}

static hs_err
attempt_send_frame(struct job *job)
{
    struct framed_send *s = &job->u.framed_send;

    hs_err rv = hs_conn_sendv(job->call.conn, &job->call.op, s->iov, 3, true, job->call.err);

    if (rv < 0)
        job->call.err->op = "send_frame";
    return rv;
}

static PyObject *
conn_frame_nothing(struct job *Py_UNUSED(job))
{
    Py_RETURN_NONE;
}

static int
fill_pieces(struct job *job)
{
    struct framed_send *s = &job->u.framed_send;
    struct call *c = &job->call;
    size_t header, head_len = (size_t)s->head.len;
    hs_err rv =
        hs_framing_header(s->arg.f, (size_t)s->payload.len, head_len, c->err, s->header, &header);

    if (rv != HS_OK) {
        c->err->op = "send_frame";
        c->err->oversize = (struct hs_oversize){
            .size = (uint64_t)s->payload.len, .limit = s->arg.f->max_size, .size_known = true};
        c->err->oversize.recoverable = true; /* Nothing was sent. */
        return raise_error(c, rv);
    }
    s->iov[0] = (struct iovec){.iov_base = s->head.buf, .iov_len = head_len};
    s->iov[1] = (struct iovec){.iov_base = s->header, .iov_len = header};
    s->iov[2] = (struct iovec){.iov_base = s->payload.buf, .iov_len = (size_t)s->payload.len};
    return 0;
}

CONN_DOC(send_frame,
         "send_frame($self, payload, framing, head=b'', /, *, timeout=None, token=None)\n--\n\n"
         "Send payload as a frame of a LengthPrefix: head, length and payload in one go.\n\n"
         "head has the framing's offset bytes. Raises FrameTooLarge, BadFrame or ValueError\n"
         "before anything is sent, else as sendall() does.");

static int
conn_prepare_send_frame(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                        struct job *job)
{
    static const struct params p = {
        "send_frame", 2, 3, 3, {"payload", "framing", "head", "timeout", "token"}};
    struct framed_send *s = &job->u.framed_send;
    PyObject *values[MAX_PARAMS];

    job->attempt = attempt_send_frame;
    job->result = conn_frame_nothing;
    job->release = release_sending;
    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        conn_job_begin(self, job, "send_frame", values[3], values[4]) < 0 ||
        parse_framing(job->call.st, values[1], &s->arg) < 0 ||
        PyObject_GetBuffer(values[0], &s->payload, PyBUF_SIMPLE) < 0)
        return -1;
    if (values[2] != NULL && PyObject_GetBuffer(values[2], &s->head, PyBUF_SIMPLE) < 0)
        return -1;
    return fill_pieces(job);
}

JOB_METHODS(conn, send_frame)

/* ---- Looking ahead ------------------------------------------------------------------------- */

static hs_err
attempt_peek(struct job *job)
{
    return hs_conn_peek(job->call.conn, &job->call.op, job->u.peek_size, job->call.err);
}

static PyObject *
peeked(struct job *job)
{
    struct hs_conn *conn = job->call.conn;
    PyObject *bytes =
        PyBytes_FromStringAndSize((const char *)hs_conn_peeked(conn), (Py_ssize_t)job->u.peek_size);

    hs_conn_frames_end(conn, &job->call.op);
    return bytes;
}

CONN_DOC(peek, "peek($self, n, /, *, timeout=None, token=None)\n--\n\n"
               "Wait until n bytes are here and return them; they stay to be received.\n\n"
               "Raises as recv_exactly() does.");

static int
conn_prepare_peek(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  struct job *job)
{
    static const struct params p = {"peek", 1, 1, 1, {"n", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];
    long size;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[0], "n", 0, PY_SSIZE_T_MAX, &size) < 0)
        return -1;
    job->attempt = attempt_peek;
    job->result = peeked;
    job->u.peek_size = (size_t)size;
    return conn_job_begin(self, job, "peek", values[1], values[2]);
}

JOB_METHODS(conn, peek)
