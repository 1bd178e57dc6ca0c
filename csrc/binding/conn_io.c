/* conn_io.c: the methods of Connection that move bytes.
 *
 * Buffers are pinned before detaching and released after re-attaching, on every path through one
 * out: label. A call that a signal handler ended is abandoned: the core keeps what had arrived, or
 * poisons what is half sent.
 */
#include "conn.h"

#include <stdlib.h>
#include <sys/socket.h>

#define MAX_PIECES 65536

struct io {
    struct hs_conn *core;
    uint8_t *buf;
    size_t len;
    int flags;
    size_t n;
    struct iovec *iov;
};

static int
parse_flags(struct call *c, PyObject *obj, int allowed, int *ret_flags)
{
    long flags = 0;

    if (parse_long(obj, "flags", 0, INT32_MAX, &flags) < 0)
        return -1;
    if ((flags & ~(long)(allowed | MSG_DONTWAIT | MSG_NOSIGNAL)) != 0) {
        PyErr_Format(PyExc_ValueError, "flags %ld are not supported on a Connection", flags);
        return -1;
    }
    if ((flags & MSG_DONTWAIT) != 0) {
        c->op.deadline_ns = HS_TRY_ONCE;
        c->nonblocking = true;
    }
    *ret_flags = (int)flags & allowed;
    return 0;
}

static int
run_io(struct call *c, call_fn fn, struct io *io, const uint8_t *filling)
{
    int rv = call_run(c, fn, io);

    if (rv < 0)
        hs_conn_abandon(io->core, &c->op, filling);
    return rv;
}

/* ---- Receiving ----------------------------------------------------------------------------- */

static hs_err
do_recv(struct call *c, void *arg)
{
    struct io *io = arg;

    return hs_conn_recv(io->core, &c->op, io->buf, io->len, io->flags, &c->err, &io->n);
}

static hs_err
do_recv_exactly(struct call *c, void *arg)
{
    struct io *io = arg;

    return hs_conn_recv_exactly(io->core, &c->op, io->buf, io->len, &c->err);
}

CONN_DOC(recv,
         "recv($self, bufsize, flags=0, /, *, timeout=None, token=None)\n--\n\n"
         "Receive at most bufsize bytes, as soon as there are any; b'' when the peer ended.\n\n"
         "flags may be MSG_PEEK. Raises DeadlineExceeded, Cancelled, Closed, Busy, Reset or\n"
         "DeadPeer; nothing is lost by the first two.");

PyObject *
conn_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"recv", 1, 2, 2, {"bufsize", "flags", "timeout", "token"}};
    PyObject *values[MAX_PARAMS], *bytes = NULL;
    struct io io = {0};
    struct call c;
    long size;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[0], "bufsize", 0, PY_SSIZE_T_MAX, &size) < 0)
        return NULL;
    if (conn_call_begin((ConnObject *)self, &c, "recv", values[2], values[3]) < 0 ||
        parse_flags(&c, values[1], MSG_PEEK, &io.flags) < 0 ||
        (bytes = PyBytes_FromStringAndSize(NULL, size)) == NULL)
        goto out;
    io.core = c.conn;
    io.buf = (uint8_t *)PyBytes_AS_STRING(bytes);
    io.len = (size_t)size;
    if (run_io(&c, do_recv, &io, NULL) < 0)
        Py_CLEAR(bytes);
    else if (io.n < io.len)
        (void)_PyBytes_Resize(&bytes, (Py_ssize_t)io.n);
out:
    call_end(&c);
    return bytes;
}

CONN_DOC(recv_into,
         "recv_into($self, buffer, nbytes=0, flags=0, /, *, timeout=None, token=None)\n--\n\n"
         "Receive into a writable buffer, at most nbytes (0: all of it); returns how many.\n\n"
         "0 means that the peer ended. Raises as recv() does.");

PyObject *
conn_recv_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {
        "recv_into", 1, 3, 3, {"buffer", "nbytes", "flags", "timeout", "token"}};
    PyObject *values[MAX_PARAMS], *result = NULL;
    Py_buffer view = {0};
    struct io io = {0};
    struct call c;
    long size = 0;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[1], "nbytes", 0, PY_SSIZE_T_MAX, &size) < 0)
        return NULL;
    if (conn_call_begin((ConnObject *)self, &c, "recv", values[3], values[4]) < 0 ||
        parse_flags(&c, values[2], MSG_PEEK, &io.flags) < 0 ||
        PyObject_GetBuffer(values[0], &view, PyBUF_WRITABLE) < 0)
        goto out;
    if (size > view.len) {
        PyErr_Format(PyExc_ValueError, "nbytes is %ld but the buffer has only %zd bytes", size,
                     view.len);
        goto out;
    }
    io.core = c.conn;
    io.buf = view.buf;
    io.len = size > 0 ? (size_t)size : (size_t)view.len;
    if (run_io(&c, do_recv, &io, NULL) == 0)
        result = PyLong_FromSize_t(io.n);
out:
    if (view.obj != NULL)
        PyBuffer_Release(&view);
    call_end(&c);
    return result;
}

CONN_DOC(recv_exactly,
         "recv_exactly($self, n, /, *, timeout=None, token=None)\n--\n\n"
         "Receive exactly n bytes, under one deadline for all of them.\n\n"
         "Raises Truncated if the peer ends early, else as recv() does. What had arrived\n"
         "(bytes_done of the exception) stays buffered: calling again goes on.");

PyObject *
conn_recv_exactly(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"recv_exactly", 1, 1, 1, {"n", "timeout", "token"}};
    PyObject *values[MAX_PARAMS], *bytes = NULL;
    struct io io = {0};
    struct call c;
    long size;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[0], "n", 0, PY_SSIZE_T_MAX, &size) < 0)
        return NULL;
    if (conn_call_begin((ConnObject *)self, &c, "recv_exactly", values[1], values[2]) < 0 ||
        (bytes = PyBytes_FromStringAndSize(NULL, size)) == NULL)
        goto out;
    io.core = c.conn;
    io.buf = (uint8_t *)PyBytes_AS_STRING(bytes);
    io.len = (size_t)size;
    if (run_io(&c, do_recv_exactly, &io, io.buf) < 0)
        Py_CLEAR(bytes);
out:
    call_end(&c);
    return bytes;
}

/* ---- Sending ------------------------------------------------------------------------------- */

static hs_err
do_send(struct call *c, void *arg)
{
    struct io *io = arg;

    return hs_conn_send(io->core, &c->op, io->buf, io->len, &c->err, &io->n);
}

static hs_err
do_send_all(struct call *c, void *arg)
{
    struct io *io = arg;

    return hs_conn_send_all(io->core, &c->op, io->buf, io->len, &c->err);
}

static hs_err
do_sendv(struct call *c, void *arg)
{
    struct io *io = arg;

    return hs_conn_sendv(io->core, &c->op, io->iov, io->len, false, &c->err);
}

/* 0 or -1; the caller owns *io afterwards. */
static int
send_with(PyObject *self, PyObject **values, const char *name, call_fn fn, struct io *io)
{
    Py_buffer view = {0};
    struct call c;
    int rv = -1;

    if (conn_call_begin((ConnObject *)self, &c, name, values[2], values[3]) < 0 ||
        parse_flags(&c, values[1], 0, &io->flags) < 0 ||
        PyObject_GetBuffer(values[0], &view, PyBUF_SIMPLE) < 0)
        goto out;
    io->core = c.conn;
    io->buf = view.buf;
    io->len = (size_t)view.len;
    rv = run_io(&c, fn, io, NULL);
out:
    if (view.obj != NULL)
        PyBuffer_Release(&view);
    call_end(&c);
    return rv;
}

CONN_DOC(send, "send($self, data, flags=0, /, *, timeout=None, token=None)\n--\n\n"
               "Send what the kernel takes at once, at least one byte; returns how many.");

PyObject *
conn_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"send", 1, 2, 2, {"data", "flags", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];
    struct io io = {0};

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        send_with(self, values, "send", do_send, &io) < 0)
        return NULL;
    return PyLong_FromSize_t(io.n);
}

CONN_DOC(sendall,
         "sendall($self, data, flags=0, /, *, timeout=None, token=None)\n--\n\n"
         "Send all of data, under one deadline.\n\n"
         "On failure bytes_done of the exception says how many bytes the kernel took; whether\n"
         "the peer got them is unknown. If any were taken the direction is poisoned: later\n"
         "sends raise Poisoned, since nobody may write behind half a message.");

PyObject *
conn_sendall(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"sendall", 1, 2, 2, {"data", "flags", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];
    struct io io = {0};

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        send_with(self, values, "sendall", do_send_all, &io) < 0)
        return NULL;
    Py_RETURN_NONE;
}

struct pieces {
    Py_ssize_t n;
    Py_buffer *views;
    struct iovec *iov;
};

static void
release_pieces(struct pieces *p)
{
    for (Py_ssize_t i = 0; i < p->n; i++)
        PyBuffer_Release(&p->views[i]);
    PyMem_Free(p->views);
    PyMem_Free(p->iov);
}

/* tuple, not the caller's list: taking a buffer may run code that changes a list. */
static int
pin_pieces(PyObject *tuple, struct pieces *ret)
{
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);

    if (n > MAX_PIECES) {
        PyErr_Format(PyExc_ValueError, "buffers must be at most %d, got %zd", MAX_PIECES, n);
        return -1;
    }
    ret->views = PyMem_Calloc((size_t)n + 1, sizeof(*ret->views));
    ret->iov = PyMem_Calloc((size_t)n + 1, sizeof(*ret->iov));
    if (ret->views == NULL || ret->iov == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (; ret->n < n; ret->n++) {
        Py_buffer *view = &ret->views[ret->n];

        if (PyObject_GetBuffer(PyTuple_GET_ITEM(tuple, ret->n), view, PyBUF_SIMPLE) < 0)
            return -1;
        ret->iov[ret->n] = (struct iovec){.iov_base = view->buf, .iov_len = (size_t)view->len};
    }
    return 0;
}

CONN_DOC(sendmsg,
         "sendmsg($self, buffers, ancdata=(), flags=0, address=None, /, *, timeout=None, "
         "token=None)\n--\n\n"
         "Send what the kernel takes at once of several buffers; returns how many bytes.\n\n"
         "Ancillary data and an address are not supported.");

PyObject *
conn_sendmsg(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {
        "sendmsg", 1, 4, 4, {"buffers", "ancdata", "flags", "address", "timeout", "token"}};
    PyObject *values[MAX_PARAMS], *tuple = NULL, *result = NULL;
    struct pieces pieces = {0};
    struct io io = {0};
    struct call c;

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    if (conn_call_begin((ConnObject *)self, &c, "sendmsg", values[4], values[5]) < 0 ||
        parse_flags(&c, values[2], 0, &io.flags) < 0)
        goto out;
    if ((values[1] != NULL && PyObject_IsTrue(values[1]) != 0) ||
        (values[3] != NULL && values[3] != Py_None)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError,
                            "ancdata and address are not supported on a Connection");
        goto out;
    }
    if ((tuple = PySequence_Tuple(values[0])) == NULL || pin_pieces(tuple, &pieces) < 0)
        goto out;
    io.core = c.conn;
    io.iov = pieces.iov;
    io.len = (size_t)pieces.n;
    if (run_io(&c, do_sendv, &io, NULL) == 0)
        result = PyLong_FromSize_t(c.op.done);
out:
    release_pieces(&pieces);
    Py_XDECREF(tuple);
    call_end(&c);
    return result;
}

/* ---- The orderly end ----------------------------------------------------------------------- */

struct finishing {
    struct hs_conn *core;
    struct hs_close_report report;
};

static hs_err
do_finish(struct call *c, void *arg)
{
    struct finishing *f = arg;

    return hs_conn_finish(f->core, &c->op, &c->err, &f->report);
}

CONN_DOC(finish,
         "finish($self, /, *, timeout=None, token=None)\n--\n\n"
         "End in an orderly way and tell what was delivered: a CloseReport.\n\n"
         "Says that no more comes, reads and throws away what the peer still sends until it\n"
         "ends, waits until all that was sent is acknowledged, and closes. The report's ending\n"
         "is 'clean', 'deadline', 'reset' or 'dead peer'. A deadline, a\n"
         "reset and a dead peer are reports, not errors. Raises Busy while another call is\n"
         "in progress, Closed, or Cancelled.");

PyObject *
conn_finish(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const endings[] = {"clean", "deadline", "reset", "dead peer"};
    static const struct params p = {"finish", 0, 0, 0, {"timeout", "token"}};
    PyObject *values[MAX_PARAMS], *result = NULL;
    struct finishing f = {0};
    struct call c;

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    if (conn_call_begin((ConnObject *)self, &c, "finish", values[0], values[1]) < 0)
        goto out;
    f.core = c.conn;
    if (call_run(&c, do_finish, &f) < 0)
        hs_conn_abandon(f.core, &c.op, NULL);
    else
        result = PyObject_CallFunction(c.st->close_report, "snnd", endings[f.report.ending],
                                       (Py_ssize_t)f.report.unsent, (Py_ssize_t)f.report.discarded,
                                       (double)(hs_now() - c.started_ns) / 1e9);
out:
    call_end(&c);
    return result;
}
