/* conn_file.c: Connection.sendfile.
 *
 * The kernel copies from the page cache (sendfile(2)), so only regular files will do; whatever else
 * can be read is for the caller to read and to send.
 */
#include "conn.h"

#include <sys/stat.h>

static hs_err
attempt_sendfile(struct job *job)
{
    struct filing *f = &job->u.filing;

    return hs_conn_send_file(job->call.conn, &job->call.op, f->fd, &f->offset, f->count,
                             &job->call.err);
}

/* The file's position tells how far it went, also after a failure; as socket.sendfile does. */
static void
release_filing(struct job *job)
{
    struct filing *f = &job->u.filing;
    PyObject *type, *value, *traceback, *result;

    if (f->file == NULL)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    if (f->begun) {
        result = PyObject_CallMethod(f->file, "seek", "L", (long long)f->offset);
        if (result == NULL)
            PyErr_Clear(); /* A descriptor has no position of its own here. */
        Py_XDECREF(result);
    }
    Py_DECREF(f->file);
    PyErr_Restore(type, value, traceback);
}

static PyObject *
count_sent(struct job *job)
{
    return PyLong_FromSize_t(job->call.op.done);
}

static int
look_at_file(struct filing *f, PyObject *file, PyObject *count)
{
    struct stat st;
    long n = 0;

    if ((f->fd = PyObject_AsFileDescriptor(file)) < 0)
        return -1;
    if (fstat(f->fd, &st) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (!S_ISREG(st.st_mode)) {
        PyErr_Format(PyExc_ValueError, "file must be a regular file, got %R", file);
        return -1;
    }
    if (count != NULL && count != Py_None) {
        if (parse_long(count, "count", 0, LONG_MAX, &n) < 0)
            return -1;
        f->count = (size_t)n;
    } else if (st.st_size > f->offset) {
        f->count = (size_t)(st.st_size - f->offset);
    }
    f->file = Py_NewRef(file);
    return 0;
}

CONN_DOC(sendfile,
         "sendfile($self, file, offset=0, count=None, /, *, timeout=None, token=None)\n--\n\n"
         "Send count bytes of a regular file from offset on (None: all); returns how many.\n\n"
         "Less than count only if the file ends before. file is a binary file or a descriptor;\n"
         "its position moves along. Fails as sendall() does: bytes_done says how far it went.");

static int
conn_prepare_sendfile(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                      struct job *job)
{
    static const struct params p = {
        "sendfile", 1, 3, 3, {"file", "offset", "count", "timeout", "token"}};
    struct filing *f = &job->u.filing;
    PyObject *values[MAX_PARAMS];
    long offset = 0;

    job->attempt = attempt_sendfile;
    job->result = count_sent;
    job->release = release_filing;
    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[1], "offset", 0, LONG_MAX, &offset) < 0 ||
        conn_job_begin(self, job, "sendfile", values[3], values[4]) < 0)
        return -1;
    f->offset = offset;
    if (look_at_file(f, values[0], values[2]) < 0)
        return -1;
    f->begun = true;
    return 0;
}

JOB_METHODS(conn, sendfile)
