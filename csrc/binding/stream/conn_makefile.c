/* conn_makefile.c: what the files of makefile() need besides recv(); hardsock/files/binary.py is
 * the rest.
 *
 * A file reads out of the connection's own receive buffer, so that it has none that could be lost,
 * and each of its calls is one call here: one deadline, all or nothing.
 */
#include "conn.h"

#include <stdint.h>
#include <sys/socket.h>

static hs_err
attempt_readline(struct job *job)
{
    struct file_io *io = &job->u.file_io;

    return hs_conn_read_line(job->call.conn, &job->call.op, io->from, io->limit, job->call.err,
                             &io->n);
}

/* Without memory for an object nothing is consumed. */
static PyObject *
conn_makefile_take_line(struct job *job)
{
    struct hs_conn *conn = job->call.conn;
    size_t n = job->u.file_io.n;
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)hs_conn_peeked(conn), (Py_ssize_t)n);

    hs_conn_read_line_end(conn, &job->call.op, bytes == NULL ? 0 : n);
    return bytes;
}

CONN_DOC(_file_readline,
         "_file_readline($self, limit=-1, start=0, /)\n--\n\n"
         "Receive up to and including the first LF at or behind start, or limit bytes (None or\n"
         "negative: no limit), or what comes before the peer ends.");

static int
prepare_readline(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                 struct job *job)
{
    static const struct params p = {"readline", 0, 2, 2, {"limit", "start"}};
    PyObject *values[MAX_PARAMS];
    long limit = -1, start = 0;

    job->attempt = attempt_readline;
    job->result = conn_makefile_take_line;
    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        (values[0] != Py_None &&
         parse_long(values[0], "limit", PY_SSIZE_T_MIN, PY_SSIZE_T_MAX, &limit) < 0) ||
        parse_long(values[1], "start", 0, PY_SSIZE_T_MAX, &start) < 0 ||
        conn_job_begin(self, job, "readline", NULL, NULL) < 0)
        return -1;
    job->u.file_io.from = (size_t)start;
    job->u.file_io.limit = limit < 0 ? SIZE_MAX : (size_t)limit;
    return 0;
}

/* What is looked for in what has arrived already; HS_WANT: it is not all here. */
typedef hs_err (*look_fn)(struct hs_conn *conn, size_t limit, size_t *ret_n);

/* What has arrived already, as most lines of a head have, and most parts of a small answer: without
 * a job, and without detaching. It asks all that the call would ask; what is refused or has to wait
 * is the call's. NULL without an exception: so it is here. */
static PyObject *
makefile_take_buffered(PyObject *obj, look_fn look, size_t limit)
{
    ConnObject *self = (ConnObject *)obj;
    hs_err rv = HS_E_CLOSED;
    PyObject *bytes, *bound;
    size_t n = 0;
    bool live;

    if (self->lease.id != 0)
        return NULL;
    bound = conn_bound(obj);
    live = scopes_are_live(state_of(obj), bound);
    Py_XDECREF(bound);
    if (!live)
        return NULL;
    HS_BEGIN_LOCKED(obj); /* What it has claimed no return can miss. */
    if (!conn_is_let_go(self))
        rv = look(self->core, limit, &n);
    HS_END_LOCKED();
    if (rv != HS_OK)
        return NULL;
    bytes = PyBytes_FromStringAndSize((const char *)hs_conn_peeked(self->core), (Py_ssize_t)n);
    hs_conn_try_line_end(self->core, bytes == NULL ? 0 : n);
    return bytes;
}

/* Whether it is the limit alone, as a plain int that is not 0. */
static bool
makefile_is_plain(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, size_t *ret_limit)
{
    long limit = -1;

    if (nargs > 1 || kwnames != NULL)
        return false;
    if (nargs == 1 && (!PyLong_CheckExact(args[0]) || (limit = PyLong_AsLong(args[0])) == 0 ||
                       (limit == -1 && PyErr_Occurred()))) {
        PyErr_Clear(); /* The call parses it again. */
        return false;
    }
    *ret_limit = limit < 0 ? SIZE_MAX : (size_t)limit;
    return true;
}

PyObject *
conn__file_readline(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *line;
    size_t limit;

    if (makefile_is_plain(args, nargs, kwnames, &limit) &&
        ((line = makefile_take_buffered(self, hs_conn_try_line, limit)) != NULL ||
         PyErr_Occurred()))
        return line;
    return job_run(prepare_readline, self, args, nargs, kwnames);
}

/* Without waiting it is a receive. */
static hs_err
attempt_read(struct job *job)
{
    struct io *io = &job->u.io;
    struct call *c = &job->call;

    if (c->nonblocking)
        return hs_conn_recv(c->conn, &c->op, io->buf, io->len, 0, c->err, &io->n);
    return hs_conn_read(c->conn, &c->op, io->buf, io->len, c->err, &io->n);
}

CONN_DOC(
    _file_read,
    "_file_read($self, size=-1, /)\n--\n\n"
    "Receive size bytes (None or negative: all), or what comes before the peer ends, and perhaps\n"
    "more of what is there into the buffer. Without waiting: what is here, or None.");

static int
prepare_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
             struct job *job)
{
    static const struct params p = {"read", 1, 1, 1, {"size"}};
    PyObject *values[MAX_PARAMS];
    long size;

    job->attempt = attempt_read;
    job->result = conn_take_bytes;
    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[0], "size", 0, PY_SSIZE_T_MAX, &size) < 0 ||
        conn_io_begin(self, job, "recv", NULL, NULL) < 0)
        return -1;
    if (!job->call.nonblocking)
        job->u.io.flags = MSG_WAITALL;
    conn_want_whole(job);
    return conn_make_bytes(job, (size_t)size);
}

static hs_err
look_for_all(struct hs_conn *conn, size_t size, size_t *ret_n)
{
    hs_err rv = hs_conn_try_read(conn, size);

    if (rv == HS_OK)
        *ret_n = size;
    return rv;
}

/* All up to the peer's end; without waiting what is here, or None. */
static PyObject *
read_to_end(PyObject *self)
{
    PyObject *args[2] = {PyLong_FromLong(-1), PyLong_FromSsize_t(PY_SSIZE_T_MAX)}, *all = NULL;
    PyObject *here;

    if (args[0] != NULL && args[1] != NULL)
        all = job_run(prepare_readline, self, args, 2, NULL);
    Py_XDECREF(args[0]);
    Py_XDECREF(args[1]);
    if (all != NULL || !PyErr_ExceptionMatches(PyExc_BlockingIOError))
        return all;
    PyErr_Clear();
    if ((here = PyObject_GetAttrString(self, "buffered")) == NULL)
        return NULL;
    all = PyObject_IsTrue(here) ? PyObject_CallMethod(self, "recv", "O", here) : Py_NewRef(Py_None);
    Py_DECREF(here);
    return all;
}

/* Without waiting a receive brings what is here, or there is nothing. */
static PyObject *
none_if_blocking(PyObject *bytes)
{
    if (bytes != NULL || !PyErr_ExceptionMatches(PyExc_BlockingIOError))
        return bytes;
    PyErr_Clear();
    Py_RETURN_NONE;
}

PyObject *
conn__file_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    bool plain;
    PyObject *bytes;
    size_t size = 0;

    if (nargs == 0 || (nargs == 1 && args[0] == Py_None))
        return read_to_end(self);
    plain = makefile_is_plain(args, nargs, kwnames, &size);
    if (plain && size == SIZE_MAX)
        return read_to_end(self);
    if (plain &&
        ((bytes = makefile_take_buffered(self, look_for_all, size)) != NULL || PyErr_Occurred()))
        return bytes;
    return none_if_blocking(job_run(prepare_read, self, args, nargs, kwnames));
}

static hs_err
attempt_write(struct job *job)
{
    struct file_io *io = &job->u.file_io;
    hs_err rv = hs_conn_sendv(job->call.conn, &job->call.op, io->iov, 2, true, job->call.err);

    if (rv < 0)
        job->call.err->op = "write";
    return rv;
}

static PyObject *
conn_makefile_nothing(struct job *Py_UNUSED(job))
{
    Py_RETURN_NONE;
}

static void
release_write(struct job *job)
{
    struct file_io *io = &job->u.file_io;

    for (int i = 0; i < 2; i++)
        if (io->view[i].obj != NULL)
            PyBuffer_Release(&io->view[i]);
}

CONN_DOC(_file_write,
         "_file_write($self, kept, data, midway, timeout=None, /)\n--\n\n"
         "Send kept and data as one. midway: bytes of their message are out already, so that a\n"
         "failure poisons even if none of these are.");

static int
prepare_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
              struct job *job)
{
    static const struct params p = {"write", 3, 4, 4, {"kept", "data", "midway", "timeout"}};
    struct file_io *io = &job->u.file_io;
    PyObject *values[MAX_PARAMS];
    int midway;

    job->release = release_write;
    job->attempt = attempt_write;
    job->result = conn_makefile_nothing;
    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        (midway = PyObject_IsTrue(values[2])) < 0 ||
        conn_job_begin(self, job, "write", values[3], NULL) < 0)
        return -1;
    job->call.op.midway = midway > 0;
    for (int i = 0; i < 2; i++) {
        if (PyObject_GetBuffer(values[i], &io->view[i], PyBUF_SIMPLE) < 0)
            return -1;
        io->iov[i] =
            (struct iovec){.iov_base = io->view[i].buf, .iov_len = (size_t)io->view[i].len};
    }
    return 0;
}

PyObject *
conn__file_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return job_run(prepare_write, self, args, nargs, kwnames);
}
