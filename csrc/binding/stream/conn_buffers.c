/* conn_buffers.c: the memory of a job that moves bytes: pinned when it is prepared, released when
 * it ends.
 *
 * Descriptors that were received belong to the job until they are in a result: whatever fails in
 * between, a result that cannot be made or a call that is given up, closes them.
 */
#include "conn.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_PIECES 65536
/* Bytes: what malloc keeps for a thread when it is freed (glibc: up to 1032). */
#define MOST_COPIED 1024

/* MSG_NOSIGNAL is how every send is made here, MSG_DONTWAIT a way to wait. */
int
conn_parse_flags(struct call *c, PyObject *obj, int allowed, const char *names, int *ret_flags)
{
    long flags = 0;

    if (parse_long(obj, "flags", 0, INT32_MAX, &flags) < 0)
        return -1;
    if ((flags & ~(long)(allowed | MSG_DONTWAIT | MSG_NOSIGNAL)) != 0) {
        PyErr_Format(PyExc_ValueError,
                     "flags may be made of %s, MSG_DONTWAIT and MSG_NOSIGNAL on a Connection, "
                     "got 0x%x",
                     names, (unsigned)flags);
        return -1;
    }
    if ((flags & MSG_DONTWAIT) != 0) {
        c->op.deadline_ns = HS_TRY_ONCE;
        c->nonblocking = true;
    }
    *ret_flags = (int)flags & allowed;
    return 0;
}

/* The core has let go of the direction: what no object can be made of is lost, and nobody may read
 * on behind it. If another thread has returned the connection by now, the loss is the caller's, and
 * the next borrower's nothing. */
PyObject *
conn_kept(struct job *job, PyObject *bytes)
{
    if (bytes != NULL || job->u.io.n == 0 || (job->u.io.flags & MSG_PEEK) != 0)
        return bytes;
    HS_BEGIN_LOCKED(job->owner);
    if (!conn_is_let_go((ConnObject *)job->owner))
        hs_conn_lost_input(job->call.conn);
    HS_END_LOCKED();
    return NULL;
}

static int
make_bytes(struct io *io, long size)
{
    if ((io->bytes = PyBytes_FromStringAndSize(NULL, size)) == NULL)
        return -1;
    io->buf = (uint8_t *)PyBytes_AS_STRING(io->bytes);
    io->len = (size_t)size;
    return 0;
}

/* What is little is copied out of its room. Cut down where it lies, it would stay there when it is
 * freed: malloc keeps a few chunks of each small size for their thread, and each of them may split
 * the place that the next room could have had. Eight threads of a server that received small
 * messages into 64 KiB, some of which failed, came to own 45 MiB of such places in a minute. */
static PyObject *
cut_to_size(PyObject *bytes, size_t n)
{
    PyObject *copy;

    if (n > MOST_COPIED || n >= (size_t)PyBytes_GET_SIZE(bytes) / 2) {
        (void)_PyBytes_Resize(&bytes, (Py_ssize_t)n);
        return bytes;
    }
    copy = PyBytes_FromStringAndSize(PyBytes_AS_STRING(bytes), (Py_ssize_t)n);
    Py_DECREF(bytes);
    return copy;
}

static PyObject *
take_bytes(struct job *job)
{
    struct io *io = &job->u.io;
    PyObject *bytes = io->bytes;

    io->bytes = NULL;
    if (io->n < io->len)
        bytes = cut_to_size(bytes, io->n);
    return conn_kept(job, bytes);
}

/* A receive that waits in an event loop holds no memory for what may come. */
static PyObject *
copy_scratch(struct job *job)
{
    const struct io *io = &job->u.io;

    return conn_kept(job, PyBytes_FromStringAndSize((const char *)io->buf, (Py_ssize_t)io->n));
}

int
conn_make_bytes(struct job *job, size_t size)
{
    if (job->scratch == NULL)
        return make_bytes(&job->u.io, (long)size);
    job->u.io.buf = job->scratch->bytes;
    job->u.io.len = size < job->scratch->size ? size : job->scratch->size;
    return 0;
}

PyObject *
conn_take_bytes(struct job *job)
{
    return job->scratch != NULL ? copy_scratch(job) : take_bytes(job);
}

/* A TypeError that names the object for what is no buffer of the kind, as socket has it. */
static int
get_buffer(PyObject *obj, Py_buffer *view, int flags)
{
    bool writable = (flags & PyBUF_WRITABLE) != 0;
    const char *kind = writable ? "writable " : "";

    if (PyObject_GetBuffer(obj, view, flags) == 0)
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_BufferError))
        return -1;
    if (PyObject_CheckBuffer(obj) && PyObject_GetBuffer(obj, view, PyBUF_FULL_RO) == 0) {
        if (!PyBuffer_IsContiguous(view, 'C'))
            kind = writable ? "writable, contiguous " : "contiguous ";
        PyBuffer_Release(view);
    }
    PyErr_Format(PyExc_TypeError, "%s must be a %sbytes-like object, not %.100s%s",
                 writable ? "buffer" : "data", kind, Py_TYPE(obj)->tp_name,
                 PyUnicode_Check(obj) && !writable ? ": encode() it" : "");
    return -1;
}

int
conn_pin(struct io *io, PyObject *obj, int flags)
{
    if (get_buffer(obj, &io->view, flags) < 0)
        return -1;
    io->buf = io->view.buf;
    io->len = (size_t)io->view.len;
    return 0;
}

/* Of a tuple of our own: taking a buffer may run code that changes the caller's list. */
int
conn_pin_pieces(struct io *io, PyObject *pieces, int flags)
{
    Py_ssize_t n;

    if (PyUnicode_Check(pieces) || PyObject_CheckBuffer(pieces)) {
        PyErr_Format(PyExc_TypeError,
                     "buffers must be a sequence of bytes-like objects, not %.100s",
                     Py_TYPE(pieces)->tp_name);
        return -1;
    }
    if ((io->tuple = PySequence_Tuple(pieces)) == NULL)
        return -1;
    n = PyTuple_GET_SIZE(io->tuple);
    if (n > MAX_PIECES) {
        PyErr_Format(PyExc_ValueError, "buffers must be at most %d, got %zd", MAX_PIECES, n);
        return -1;
    }
    io->views = PyMem_Calloc((size_t)n + 1, sizeof(*io->views));
    io->iov = PyMem_Calloc((size_t)n + 1, sizeof(*io->iov));
    if (io->views == NULL || io->iov == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (; io->n_views < n; io->n_views++) {
        Py_buffer *view = &io->views[io->n_views];

        if (get_buffer(PyTuple_GET_ITEM(io->tuple, io->n_views), view, flags) < 0)
            return -1;
        io->iov[io->n_views] = (struct iovec){.iov_base = view->buf, .iov_len = (size_t)view->len};
    }
    io->len = (size_t)n;
    return 0;
}

/* Of a header, what of its data is really there: the kernel cuts the last one short. */
size_t
conn_control_len(const struct io *io, const struct cmsghdr *header)
{
    const uint8_t *data = CMSG_DATA(header);
    size_t said = header->cmsg_len >= CMSG_LEN(0) ? header->cmsg_len - CMSG_LEN(0) : 0;
    size_t here = (size_t)(io->control + io->control_len - data);

    if (data > io->control + io->control_len)
        return 0;
    return said < here ? said : here;
}

struct msghdr
conn_control_of(const struct io *io)
{
    return (struct msghdr){.msg_control = io->control, .msg_controllen = io->control_len};
}

static void
close_received(const struct io *io)
{
    struct msghdr msg = conn_control_of(io);
    int fd;

    for (struct cmsghdr *h = CMSG_FIRSTHDR(&msg); h != NULL; h = CMSG_NXTHDR(&msg, h)) {
        size_t n = conn_control_len(io, h) / sizeof(fd);

        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            memcpy(&fd, CMSG_DATA(h) + i * sizeof(fd), sizeof(fd));
            (void)close(fd);
        }
    }
}

static void
release_control(struct io *io)
{
    if (io->received)
        close_received(io);
    PyMem_Free(io->control);
    io->control = NULL;
}

static void
release_io(struct job *job)
{
    struct io *io = &job->u.io;

    Py_XDECREF(io->bytes);
    if (io->view.obj != NULL)
        PyBuffer_Release(&io->view);
    for (Py_ssize_t i = 0; i < io->n_views; i++)
        PyBuffer_Release(&io->views[i]);
    PyMem_Free(io->views);
    PyMem_Free(io->iov);
    Py_XDECREF(io->tuple);
    release_control(io);
}

int
conn_io_begin(PyObject *self, struct job *job, const char *op, PyObject *timeout, PyObject *token)
{
    job->release = release_io;
    return conn_job_begin(self, job, op, timeout, token);
}
