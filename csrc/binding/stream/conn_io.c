/* conn_io.c: the methods of Connection that move bytes.
 *
 * A job that is given up is
 * abandoned: the core keeps what had arrived, or poisons what is half sent.
 */
#include "conn.h"
#include "binding/cancel/slots.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/socket.h>

/* As recv(2): without waiting MSG_WAITALL has no meaning. */
static int
receive_flags(struct job *job, PyObject *obj)
{
    const int both = MSG_PEEK | MSG_WAITALL;
    int *flags = &job->u.io.flags;

    if (conn_parse_flags(&job->call, obj, both, "MSG_PEEK, MSG_WAITALL", flags) < 0)
        return -1;
    if (job->call.nonblocking)
        *flags &= ~MSG_WAITALL;
    if ((*flags & both) == both) {
        PyErr_SetString(PyExc_ValueError, "flags: MSG_PEEK with MSG_WAITALL is peek(n) here");
        return -1;
    }
    return 0;
}

static int
parse_send_flags(struct job *job, PyObject *obj)
{
    return conn_parse_flags(&job->call, obj, MSG_MORE, "MSG_MORE", &job->call.op.send_flags);
}

static PyObject *
count_moved(struct job *job)
{
    return PyLong_FromSize_t(job->u.io.n);
}

static PyObject *
conn_io_nothing(struct job *Py_UNUSED(job))
{
    Py_RETURN_NONE;
}

/* ---- Receiving ----------------------------------------------------------------------------- */

static hs_err
attempt_recv(struct job *job)
{
    struct io *io = &job->u.io;

    return hs_conn_recv(job->call.conn, &job->call.op, io->buf, io->len, io->flags, job->call.err,
                        &io->n);
}

/* What had arrived goes back. */
static void
give_up_whole(struct job *job)
{
    hs_conn_abandon(job->call.conn, &job->call.op, job->u.io.buf);
}

void
conn_want_whole(struct job *job)
{
    if ((job->u.io.flags & MSG_WAITALL) == 0)
        return;
    job->give_up = give_up_whole;
    job->scratch = NULL;
}

/* Of recv and recvfrom. */
static int
prepare_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
             struct job *job, const struct params *p)
{
    PyObject *values[MAX_PARAMS];
    long size;

    if (parse_args(p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[0], "bufsize", 0, PY_SSIZE_T_MAX, &size) < 0)
        return -1;
    job->attempt = attempt_recv;
    job->result = conn_take_bytes;
    if (conn_io_begin(self, job, p->function, values[2], values[3]) < 0 ||
        receive_flags(job, values[1]) < 0)
        return -1;
    conn_want_whole(job);
    return conn_make_bytes(job, (size_t)size);
}

CONN_DOC(recv,
         "recv($self, bufsize, flags=0, /, *, timeout=None, token=None)\n--\n\n"
         "Receive at most bufsize bytes, as soon as there are any; b'' when the peer ended.\n\n"
         "flags may be MSG_PEEK, MSG_DONTWAIT, or MSG_WAITALL: bufsize bytes, or all that came\n"
         "before the peer's end. Raises DeadlineExceeded, Cancelled, Closed, Busy, Reset or\n"
         "DeadPeer; nothing is lost by the first two.");

static int
conn_prepare_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  struct job *job)
{
    static const struct params p = {"recv", 1, 2, 2, {"bufsize", "flags", "timeout", "token"}};

    return prepare_recv(self, args, nargs, kwnames, job, &p);
}

JOB_METHODS(conn, recv)

/* Of recv_into and recvfrom_into. */
static int
prepare_recv_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  struct job *job, const struct params *p)
{
    PyObject *values[MAX_PARAMS];
    struct io *io = &job->u.io;
    long size = 0;

    if (parse_args(p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[1], "nbytes", 0, PY_SSIZE_T_MAX, &size) < 0)
        return -1;
    job->attempt = attempt_recv;
    job->result = count_moved;
    if (conn_io_begin(self, job, p->function, values[3], values[4]) < 0 ||
        receive_flags(job, values[2]) < 0 || conn_pin(io, values[0], PyBUF_WRITABLE) < 0)
        return -1;
    conn_want_whole(job);
    if ((size_t)size > io->len) {
        PyErr_Format(PyExc_ValueError, "nbytes is %ld but the buffer has only %zu bytes", size,
                     io->len);
        return -1;
    }
    if (size > 0)
        io->len = (size_t)size;
    return 0;
}

CONN_DOC(recv_into,
         "recv_into($self, buffer, nbytes=0, flags=0, *, timeout=None, token=None)\n--\n\n"
         "Receive into a writable buffer, at most nbytes (0: all of it); returns how many.\n\n"
         "0 means that the peer ended. Flags and errors are those of recv().");

static int
conn_prepare_recv_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                       struct job *job)
{
    static const struct params p = {
        "recv_into", 1, 3, 0, {"buffer", "nbytes", "flags", "timeout", "token"}};

    return prepare_recv_into(self, args, nargs, kwnames, job, &p);
}

JOB_METHODS(conn, recv_into)

/* A stream socket that is connected gives no address with what it receives: recvfrom(2). */
static PyObject *
with_no_address(struct job *job, PyObject *value)
{
    PyObject *pair = value == NULL ? NULL : PyTuple_Pack(2, value, Py_None);

    Py_XDECREF(value);
    return value == NULL ? NULL : conn_kept(job, pair);
}

static PyObject *
take_bytes_from(struct job *job)
{
    return with_no_address(job, conn_take_bytes(job));
}

static PyObject *
count_moved_from(struct job *job)
{
    return with_no_address(job, count_moved(job));
}

CONN_DOC(recvfrom,
         "recvfrom($self, bufsize, flags=0, /, *, timeout=None, token=None)\n--\n\n"
         "recv() for code written for datagrams too: (bytes, None), since a stream has one peer.");

static int
conn_prepare_recvfrom(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                      struct job *job)
{
    static const struct params p = {"recvfrom", 1, 2, 2, {"bufsize", "flags", "timeout", "token"}};
    int rv = prepare_recv(self, args, nargs, kwnames, job, &p);

    job->result = take_bytes_from;
    return rv;
}

JOB_METHODS(conn, recvfrom)

CONN_DOC(recvfrom_into,
         "recvfrom_into($self, buffer, nbytes=0, flags=0, *, timeout=None, token=None)\n--\n\n"
         "recv_into() for code written for datagrams too: (count, None).");

static int
conn_prepare_recvfrom_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames, struct job *job)
{
    static const struct params p = {
        "recvfrom_into", 1, 3, 0, {"buffer", "nbytes", "flags", "timeout", "token"}};
    int rv = prepare_recv_into(self, args, nargs, kwnames, job, &p);

    job->result = count_moved_from;
    return rv;
}

JOB_METHODS(conn, recvfrom_into)

static hs_err
attempt_recv_exactly(struct job *job)
{
    struct io *io = &job->u.io;

    io->n = io->len;
    return hs_conn_recv_exactly(job->call.conn, &job->call.op, io->buf, io->len, job->call.err);
}

CONN_DOC(recv_exactly,
         "recv_exactly($self, n, /, *, timeout=None, token=None)\n--\n\n"
         "Receive exactly n bytes, under one deadline for all of them.\n\n"
         "Raises Truncated if the peer ends early, else as recv() does. What had arrived\n"
         "(bytes_done of the exception) stays buffered: calling again goes on.");

static int
conn_prepare_recv_exactly(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames, struct job *job)
{
    static const struct params p = {"recv_exactly", 1, 1, 1, {"n", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];
    long size;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[0], "n", 0, PY_SSIZE_T_MAX, &size) < 0)
        return -1;
    job->attempt = attempt_recv_exactly;
    job->result = conn_take_bytes;
    if (conn_io_begin(self, job, "recv_exactly", values[1], values[2]) < 0)
        return -1;
    job->give_up = give_up_whole;
    job->scratch = NULL;
    return conn_make_bytes(job, (size_t)size);
}

JOB_METHODS(conn, recv_exactly)

/* ---- Sending ------------------------------------------------------------------------------- */

static hs_err
attempt_send(struct job *job)
{
    struct io *io = &job->u.io;

    return hs_conn_send(job->call.conn, &job->call.op, io->buf, io->len, job->call.err, &io->n);
}

static hs_err
attempt_sendall(struct job *job)
{
    struct io *io = &job->u.io;

    return hs_conn_send_all(job->call.conn, &job->call.op, io->buf, io->len, job->call.err);
}

static int
prepare_sending(PyObject *self, struct job *job, const char *op, PyObject **values)
{
    if (conn_io_begin(self, job, op, values[2], values[3]) < 0 ||
        parse_send_flags(job, values[1]) < 0)
        return -1;
    return conn_pin(&job->u.io, values[0], PyBUF_SIMPLE);
}

CONN_DOC(send, "send($self, data, flags=0, /, *, timeout=None, token=None)\n--\n\n"
               "Send what the kernel takes at once, at least one byte; returns how many.\n\n"
               "flags may be MSG_DONTWAIT, or MSG_MORE: the kernel may hold it back for 0.2 s,\n"
               "to put what is sent next into the same packet (tcp(7), TCP_CORK).");

static int
conn_prepare_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  struct job *job)
{
    static const struct params p = {"send", 1, 2, 2, {"data", "flags", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    job->attempt = attempt_send;
    job->result = count_moved;
    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    return prepare_sending(self, job, "send", values);
}

JOB_METHODS(conn, send)

CONN_DOC(sendall,
         "sendall($self, data, flags=0, /, *, timeout=None, token=None)\n--\n\n"
         "Send all of data, under one deadline.\n\n"
         "Raises DeadlineExceeded, Cancelled, Closed, Busy, Reset, DeadPeer, BrokenPipe or\n"
         "Poisoned. On failure bytes_done of the exception says how many bytes the kernel took;\n"
         "whether the peer got them is unknown. If any were taken the direction is poisoned:\n"
         "later sends raise Poisoned, since nobody may write behind half a message.");

static int
conn_prepare_sendall(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                     struct job *job)
{
    static const struct params p = {"sendall", 1, 2, 2, {"data", "flags", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    job->attempt = attempt_sendall;
    job->result = conn_io_nothing;
    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    return prepare_sending(self, job, "sendall", values);
}

JOB_METHODS(conn, sendall)

static hs_err
attempt_sendmsg(struct job *job)
{
    struct io *io = &job->u.io;
    const struct msghdr msg = {.msg_iov = io->iov,
                               .msg_iovlen = io->len < IOV_MAX ? io->len : IOV_MAX,
                               .msg_control = io->control,
                               .msg_controllen = io->control_len};

    if (io->control_len > 0)
        return hs_conn_sendmsg(job->call.conn, &job->call.op, &msg, job->call.err);
    return hs_conn_sendv(job->call.conn, &job->call.op, io->iov, io->len, false, job->call.err);
}

static PyObject *
count_done(struct job *job)
{
    return PyLong_FromSize_t(job->call.op.done);
}

CONN_DOC(
    sendmsg,
    "sendmsg($self, buffers, ancdata=(), flags=0, address=None, /, *, timeout=None, "
    "token=None)\n--\n\n"
    "Send what the kernel takes at once of several buffers; returns how many bytes.\n\n"
    "ancdata: (level, type, data) items, on a plain connection; SCM_RIGHTS passes descriptors\n"
    "over a unix socket (unix(7)) and needs a byte to go with. address must be None.");

static int
conn_prepare_sendmsg(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                     struct job *job)
{
    static const struct params p = {
        "sendmsg", 1, 4, 4, {"buffers", "ancdata", "flags", "address", "timeout", "token"}};
    struct io *io = &job->u.io;
    PyObject *values[MAX_PARAMS];
    struct hs_conn_info info;
    size_t len = 0;

    job->attempt = attempt_sendmsg;
    job->result = count_done;
    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        conn_io_begin(self, job, "sendmsg", values[4], values[5]) < 0 ||
        parse_send_flags(job, values[2]) < 0)
        return -1;
    if (values[3] != NULL && values[3] != Py_None) {
        PyErr_SetString(PyExc_ValueError, "address must be None: a Connection has its one peer");
        return -1;
    }
    hs_conn_info(job->call.conn, &info);
    if (conn_pin_pieces(io, values[0], PyBUF_SIMPLE) < 0 ||
        (values[1] != NULL && conn_parse_ancillary(io, values[1], info.family) < 0))
        return -1;
    for (size_t i = 0; i < io->len; i++)
        len += io->iov[i].iov_len;
    if (io->control_len > 0 && len == 0) {
        PyErr_SetString(PyExc_ValueError, "ancdata needs a byte of data to go with: the kernel "
                                          "would throw it away");
        return -1;
    }
    return 0;
}

JOB_METHODS(conn, sendmsg)

CONN_DOC(_lost_output, "_lost_output($self, /)\n--\n\n"
                       "A message of several sends will not be finished: sending is poisoned.");

PyObject *
conn__lost_output(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    HS_BEGIN_LOCKED(self);
    if (!conn_is_let_go((ConnObject *)self))
        hs_conn_lost_output(((ConnObject *)self)->core);
    HS_END_LOCKED();
    Py_RETURN_NONE;
}

CONN_DOC(_join_slots,
         "_join_slots($self, slots, /)\n--\n\n"
         "Give a slot back while a blocking call waits here. Once, before others know\n"
         "the connection.");

PyObject *
conn__join_slots(PyObject *self, PyObject *slots)
{
    if (!PyObject_TypeCheck(slots, state_of(self)->slots_type)) {
        PyErr_SetString(PyExc_TypeError, "slots must be a Slots");
        return NULL;
    }
    hs_conn_join_slots(((ConnObject *)self)->core, ((SlotsObject *)slots)->core);
    Py_RETURN_NONE;
}

CONN_DOC(_leave_slots, "_leave_slots($self, /)\n--\n\n"
                       "Leave slots alone from the next call on.");

PyObject *
conn__leave_slots(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    hs_conn_leave_slots(((ConnObject *)self)->core);
    Py_RETURN_NONE;
}

CONN_DOC(_set_turns,
         "_set_turns($self, read, write, /)\n--\n\n"
         "Bound a message of the peer's from its first byte to the answer, and an answer from its\n"
         "first byte to the next wait for the peer: seconds, or None.");

PyObject *
conn__set_turns(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"_set_turns", 2, 2, 2, {"read", "write"}};
    PyObject *values[MAX_PARAMS];
    int64_t read_ns, write_ns;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_seconds(values[0], "read", &read_ns) < 0 ||
        parse_seconds(values[1], "write", &write_ns) < 0)
        return NULL;
    hs_conn_set_turns(((ConnObject *)self)->core, read_ns, write_ns);
    Py_RETURN_NONE;
}

CONN_DOC(_set_idle_timeout,
         "_set_idle_timeout($self, seconds, /)\n--\n\n"
         "End calls that wait for a message when no byte went in either direction for so long:\n"
         "Cancelled, with phase \"idle_timeout\". None: never.");

PyObject *
conn__set_idle_timeout(PyObject *self, PyObject *seconds)
{
    int64_t span_ns;

    if (parse_seconds(seconds, "seconds", &span_ns) < 0)
        return NULL;
    hs_conn_set_idle_timeout(((ConnObject *)self)->core, span_ns);
    Py_RETURN_NONE;
}

CONN_DOC(_set_phase, "_set_phase($self, service, /)\n--\n\n"
                     "Whose it is and where, for reports: the number of a Service times 8, and\n"
                     "0 waiting, 1 parked, 2 in the handler, 3 lingering.");

PyObject *
conn__set_phase(PyObject *self, PyObject *service)
{
    long n;

    if (parse_long(service, "service", 0, LONG_MAX, &n) < 0)
        return NULL;
    if ((n & 7) >= HS_PHASES) {
        PyErr_SetString(PyExc_ValueError, "service: there is no such phase");
        return NULL;
    }
    hs_conn_set_phase(((ConnObject *)self)->core, (uint32_t)(n >> 3), (enum hs_phase)(n & 7));
    Py_RETURN_NONE;
}

CONN_DOC(_set_served,
         "_set_served($self, stays, /)\n--\n\n"
         "A server has it, whose handler works on it when no call does. *stays*: a call\n"
         "that waits for a message under hs.draining() is ended by _expect_no_more only.");

PyObject *
conn__set_served(PyObject *self, PyObject *stays)
{
    bool flag;

    if (parse_bool(stays, "stays", &flag) < 0)
        return NULL;
    hs_conn_set_served(((ConnObject *)self)->core, flag);
    Py_RETURN_NONE;
}

CONN_DOC(_expect_no_more,
         "_expect_no_more($self, first_within, /)\n--\n\n"
         "End calls that wait for a message of which nothing has come: Cancelled, with phase\n"
         "\"drain\". A first message is waited for until *first_within* seconds after the\n"
         "connection was made.");

PyObject *
conn__expect_no_more(PyObject *self, PyObject *first_within)
{
    struct hs_conn *c = ((ConnObject *)self)->core;
    struct hs_conn_info info;
    int64_t span_ns;

    if (parse_seconds(first_within, "first_within", &span_ns) < 0)
        return NULL;
    hs_conn_info(c, &info);
    hs_conn_expect_no_more(c, info.created_ns + (span_ns < HS_NEVER / 2 ? span_ns : HS_NEVER / 2));
    Py_RETURN_NONE;
}

CONN_DOC(cancel_on_end,
         "cancel_on_end($self, on=True, /)\n--\n\n"
         "In a server's handler: whether the end of the client's stream cancels the handler.\n\n"
         "A client that has reset the connection is never worked for: the token of its handler\n"
         "(hardsock.current()) is cancelled. One that has ended its side may still wait for the\n"
         "answer, as HTTP/1.0 clients and nc do; where it does not, say so by this: from then on\n"
         "the end of its stream cancels, too, also if it has come already. Calls on this\n"
         "connection still return what has arrived.\n\n"
         "ValueError: no server watches this connection. Closed: it is closed.");

PyObject *
conn_cancel_on_end(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"cancel_on_end", 0, 1, 1, {"on"}};
    struct hs_conn *core = ((ConnObject *)self)->core;
    PyObject *values[MAX_PARAMS];
    struct hs_error err = {0};
    bool on = true;
    hs_err rv;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 || parse_bool(values[0], "on", &on) < 0)
        return NULL;
    if ((rv = hs_conn_cancel_on_end(core, on, &err)) != HS_OK) {
        (void)raise_conn_error(state_of(self), core, &err, rv);
        return NULL;
    }
    Py_RETURN_NONE;
}

CONN_DOC(_leave_departures, "_leave_departures($self, /)\n--\n\n"
                            "Have it watched no more.");

PyObject *
conn__leave_departures(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    hs_conn_leave_departures(((ConnObject *)self)->core);
    Py_RETURN_NONE;
}

/* ---- The orderly end ----------------------------------------------------------------------- */

static hs_err
attempt_finish(struct job *job)
{
    return hs_conn_finish(job->call.conn, &job->call.op, job->call.err, &job->u.report);
}

const char *const conn_endings[] = {"clean", "deadline", "reset", "dead peer", "truncated"};

static PyObject *
report_object(struct job *job)
{
    const struct hs_close_report *r = &job->u.report;

    return PyObject_CallFunction(job->call.st->close_report, "snnd", conn_endings[r->ending],
                                 (Py_ssize_t)r->unsent, (Py_ssize_t)r->discarded,
                                 (double)(hs_now() - job->call.started_ns) / 1e9);
}

CONN_DOC(finish,
         "finish($self, /, *, timeout=None, token=None)\n--\n\n"
         "End in an orderly way and tell what was delivered: a CloseReport.\n\n"
         "Says that no more comes, reads and throws away what the peer still sends until it\n"
         "ends, waits until all that was sent is acknowledged, and closes. The report's ending\n"
         "is 'clean', 'deadline', 'reset', 'dead peer' or, with TLS, 'truncated'. A deadline, a\n"
         "reset and a dead peer are reports, not errors. Raises Busy while another call is\n"
         "in progress, Closed, or Cancelled.");

static int
conn_prepare_finish(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                    struct job *job)
{
    static const struct params p = {"finish", 0, 0, 0, {"timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    job->attempt = attempt_finish;
    job->result = report_object;
    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    return conn_job_begin(self, job, "finish", values[0], values[1]);
}

JOB_METHODS(conn, finish)
