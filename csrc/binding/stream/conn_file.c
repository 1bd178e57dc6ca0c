/* conn_file.c: Connection.sendfile.
 *
 * The kernel copies from the page cache (sendfile(2)), so of descriptors only those of regular
 * files will do: reading another kind could wait for ever. A file object that has no descriptor is
 * read and sent piece by piece, by hardsock.files.sendfile.
 */
#include "conn.h"

#include <sys/stat.h>

static hs_err
attempt_sendfile(struct job *job)
{
    struct filing *f = &job->u.filing;

    return hs_conn_send_file(job->call.conn, &job->call.op, f->fd, &f->offset, f->count,
                             job->call.err);
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

    if (PyUnicode_Check(file) || PyBytes_Check(file)) {
        PyErr_Format(PyExc_TypeError,
                     "file must be an open binary file, not a path: open(%R, 'rb')", file);
        return -1;
    }
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
         "sendfile($self, file, offset=0, count=None, *, timeout=None, token=None)\n--\n\n"
         "Send count bytes of a regular file from offset on (None: all); returns how many.\n\n"
         "Less than count only if the file ends before. file is a binary file or a descriptor;\n"
         "its position moves along. An object that has no descriptor is read and sent piece by\n"
         "piece. Fails as sendall() does: bytes_done says how far it went.");

static const struct params sendfile_params = {
    "sendfile", 1, 3, 0, {"file", "offset", "count", "timeout", "token"}};

static int
conn_prepare_sendfile(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                      struct job *job)
{
    struct filing *f = &job->u.filing;
    PyObject *values[MAX_PARAMS];
    long offset = 0;

    job->attempt = attempt_sendfile;
    job->result = count_sent;
    job->release = release_filing;
    if (parse_args(&sendfile_params, args, nargs, kwnames, values) < 0 ||
        parse_long(values[1], "offset", 0, LONG_MAX, &offset) < 0 ||
        conn_job_begin(self, job, "sendfile", values[3], values[4]) < 0)
        return -1;
    f->offset = offset;
    if (look_at_file(f, values[0], values[2]) < 0)
        return -1;
    f->begun = true;
    return 0;
}

/* Something that can be read and has no descriptor. */
static bool
must_be_read(PyObject *file)
{
    if (PyLong_Check(file) || PyObject_AsFileDescriptor(file) >= 0)
        return false;
    PyErr_Clear(); /* What cannot be read either meets it again. */
    return PyObject_HasAttrString(file, "read");
}

static PyObject *
send_by_reading(PyObject *self, PyObject **values)
{
    PyObject *module = PyImport_ImportModule("hardsock.files.sendfile");
    PyObject *all[6] = {self}, *result;

    if (module == NULL)
        return NULL;
    for (int i = 0; i < 5; i++)
        all[i + 1] = values[i] != NULL ? values[i] : Py_None;
    result = PyObject_CallMethod(module, "send_by_reading", "OOOOOO", all[0], all[1], all[2],
                                 all[3], all[4], all[5]);
    Py_DECREF(module);
    return result;
}

PyObject *
conn_sendfile(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *values[MAX_PARAMS];

    if (parse_args(&sendfile_params, args, nargs, kwnames, values) < 0)
        return NULL;
    if (must_be_read(values[0]))
        return send_by_reading(self, values);
    return job_run(conn_prepare_sendfile, self, args, nargs, kwnames);
}

PyObject *
conn_op_sendfile(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return operation_start(conn_prepare_sendfile, self, args, nargs, kwnames);
}
