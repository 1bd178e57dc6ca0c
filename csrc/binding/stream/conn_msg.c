/* conn_msg.c: recvmsg, recvmsg_into, and the ancillary data of messages.
 *
 * What is received is kept in the job until it is in a result: see conn_buffers.c.
 */
#include "conn.h"

#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CONTROL ((size_t)1 << 20)

/* ---- Sending ------------------------------------------------------------------------------- */

/* One item, appended. */
static int
add_item(struct io *io, PyObject *item, int family)
{
    PyObject *tuple = PySequence_Tuple(item);
    struct cmsghdr header = {0};
    Py_buffer view = {0};
    long level, type;
    size_t space;
    uint8_t *grown;
    int rv = -1;

    if (tuple == NULL)
        return -1;
    if (PyTuple_GET_SIZE(tuple) != 3) {
        PyErr_Format(PyExc_TypeError, "an item of ancdata must be (level, type, data), got %R",
                     item);
        goto out;
    }
    if (parse_long(PyTuple_GET_ITEM(tuple, 0), "level", INT32_MIN, INT32_MAX, &level) < 0 ||
        parse_long(PyTuple_GET_ITEM(tuple, 1), "type", INT32_MIN, INT32_MAX, &type) < 0 ||
        PyObject_GetBuffer(PyTuple_GET_ITEM(tuple, 2), &view, PyBUF_SIMPLE) < 0)
        goto out;
    if (family != AF_UNIX && level == SOL_SOCKET && type == SCM_RIGHTS) {
        PyErr_SetString(PyExc_ValueError, "SCM_RIGHTS: only a unix socket passes descriptors");
        goto out;
    }
    if ((size_t)view.len > MAX_CONTROL ||
        (space = CMSG_SPACE((size_t)view.len)) > MAX_CONTROL - io->control_len) {
        PyErr_Format(PyExc_ValueError, "ancdata must have at most %zu bytes", MAX_CONTROL);
        goto out;
    }
    if ((grown = PyMem_Realloc(io->control, io->control_len + space)) == NULL) {
        (void)PyErr_NoMemory();
        goto out;
    }
    header.cmsg_len = CMSG_LEN((size_t)view.len);
    header.cmsg_level = (int)level;
    header.cmsg_type = (int)type;
    io->control = grown;
    grown += io->control_len;
    memset(grown, 0, space);
    memcpy(grown, &header, sizeof(header));
    if (view.len > 0)
        memcpy(grown + CMSG_LEN(0), view.buf, (size_t)view.len);
    io->control_len += space;
    rv = 0;
out:
    if (view.obj != NULL)
        PyBuffer_Release(&view);
    Py_DECREF(tuple);
    return rv;
}

int
conn_parse_ancillary(struct io *io, PyObject *ancdata, int family)
{
    PyObject *items = PySequence_Tuple(ancdata);
    int rv = items == NULL ? -1 : 0;

    for (Py_ssize_t i = 0; rv == 0 && i < PyTuple_GET_SIZE(items); i++)
        rv = add_item(io, PyTuple_GET_ITEM(items, i), family);
    Py_XDECREF(items);
    return rv;
}

/* ---- Receiving ----------------------------------------------------------------------------- */

static hs_err
attempt_recvmsg(struct job *job)
{
    struct io *io = &job->u.io;
    struct iovec one = {.iov_base = io->buf, .iov_len = io->len};
    struct msghdr msg = {.msg_iov = io->iov != NULL ? io->iov : &one,
                         .msg_iovlen = io->iov == NULL     ? 1
                                       : io->len < IOV_MAX ? io->len
                                                           : IOV_MAX,
                         .msg_control = io->control,
                         .msg_controllen = io->control_len};
    hs_err rv =
        hs_conn_recvmsg(job->call.conn, &job->call.op, &msg, io->flags, job->call.err, &io->n);

    if (rv == HS_OK) {
        io->received = true;
        io->control_len = msg.msg_controllen;
        io->msg_flags = msg.msg_flags;
    }
    return rv;
}

static PyObject *
ancillary_list(const struct io *io)
{
    struct msghdr msg = conn_control_of(io);
    PyObject *list = PyList_New(0);

    for (struct cmsghdr *h = CMSG_FIRSTHDR(&msg); list != NULL && h != NULL;
         h = CMSG_NXTHDR(&msg, h)) {
        PyObject *item =
            Py_BuildValue("(iiy#)", h->cmsg_level, h->cmsg_type, (const char *)CMSG_DATA(h),
                          (Py_ssize_t)conn_control_len(io, h));

        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

/* Takes value. */
static PyObject *
message_tuple(struct job *job, PyObject *value)
{
    struct io *io = &job->u.io;
    PyObject *ancillary = value == NULL ? NULL : ancillary_list(io), *result = NULL;

    if (ancillary != NULL)
        result = Py_BuildValue("(OOiO)", value, ancillary, io->msg_flags, Py_None);
    Py_XDECREF(ancillary);
    Py_XDECREF(value);
    if (result != NULL)
        io->received = false; /* The descriptors are the caller's. */
    return conn_kept(job, result);
}

static PyObject *
take_message(struct job *job)
{
    return message_tuple(job, conn_take_bytes(job));
}

static PyObject *
count_message(struct job *job)
{
    return message_tuple(job, PyLong_FromSize_t(job->u.io.n));
}

/* values: what, ancbufsize, flags, timeout, token. */
static int
begin_receiving(PyObject *self, struct job *job, const char *op, PyObject **values)
{
    struct io *io = &job->u.io;
    long size = 0;

    if (parse_long(values[1], "ancbufsize", 0, (long)MAX_CONTROL, &size) < 0 ||
        conn_io_begin(self, job, op, values[3], values[4]) < 0 ||
        conn_parse_flags(&job->call, values[2], MSG_PEEK | MSG_CMSG_CLOEXEC,
                         "MSG_PEEK, MSG_CMSG_CLOEXEC", &io->flags) < 0)
        return -1;
    job->attempt = attempt_recvmsg;
    if (size == 0)
        return 0;
    if ((io->control = PyMem_Calloc(1, (size_t)size)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    io->control_len = (size_t)size;
    return 0;
}

CONN_DOC(recvmsg,
         "recvmsg($self, bufsize, ancbufsize=0, flags=0, /, *, timeout=None, token=None)\n--\n\n"
         "Receive bytes and ancillary data: (data, ancdata, msg_flags, None), as socket has it.\n\n"
         "Descriptors (SCM_RIGHTS, unix(7)) are the caller's, and not inheritable. Only recvmsg()\n"
         "gets them: of bytes that another call received or read ahead the kernel has closed\n"
         "them, so a stream that carries descriptors is read by recvmsg() alone. With TLS there\n"
         "are none. Raises as recv() does.");

static int
conn_prepare_recvmsg(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                     struct job *job)
{
    static const struct params p = {
        "recvmsg", 1, 3, 3, {"bufsize", "ancbufsize", "flags", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];
    long size;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[0], "bufsize", 0, PY_SSIZE_T_MAX, &size) < 0 ||
        begin_receiving(self, job, "recvmsg", values) < 0 || conn_make_bytes(job, (size_t)size) < 0)
        return -1;
    job->result = take_message;
    return 0;
}

JOB_METHODS(conn, recvmsg)

CONN_DOC(recvmsg_into,
         "recvmsg_into($self, buffers, ancbufsize=0, flags=0, /, *, timeout=None, "
         "token=None)\n--\n\n"
         "recvmsg() into several writable buffers: (count, ancdata, msg_flags, None).");

static int
conn_prepare_recvmsg_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames, struct job *job)
{
    static const struct params p = {
        "recvmsg_into", 1, 3, 3, {"buffers", "ancbufsize", "flags", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        begin_receiving(self, job, "recvmsg_into", values) < 0 ||
        conn_pin_pieces(&job->u.io, values[0], PyBUF_WRITABLE) < 0)
        return -1;
    job->result = count_message;
    return 0;
}

JOB_METHODS(conn, recvmsg_into)
