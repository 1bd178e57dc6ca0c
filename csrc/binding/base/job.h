/* job.h: a call from Python into the core as a value, so that a thread or an event loop can run it.
 *
 * A prepare function parses arguments, pins buffers and fills the job; then either job_run drives
 * it to its end while the calling thread waits, or an Operation steps it (type_operation.c).
 * The one who made it calls job_end, on every path; what was begun and has not ended is given up
 * there.
 */
#ifndef HS_BINDING_JOB_H
#define HS_BINDING_JOB_H

#include "args.h"
#include "binding/stream/framing.h"
#include "tracking.h"
#include "call_site.h"
#include "run.h"

struct io { /* bytes in one buffer or in several pieces */
    uint8_t *buf;
    size_t len, n;
    int flags;
    PyObject *bytes; /* owns: the result that buf points into, or NULL */
    Py_buffer view;  /* owns: what buf points into otherwise */
    PyObject *tuple; /* owns: the pieces */
    Py_ssize_t n_views;
    Py_buffer *views;
    struct iovec *iov;
    uint8_t *control; /* owns: ancillary data, and the descriptors in what was received */
    size_t control_len;
    int msg_flags;
    bool received; /* there may be descriptors in control that nobody has been given */
};

struct connecting {
    struct hs_connector *connector; /* owns */
    struct hs_conn *conn;           /* owns until it is a result */
    struct opening opening;         /* owns */
    PyObject *timeline;             /* owns: a list that is told of the phases, or NULL */
};

struct upgrading {
    struct hs_tls_config *config; /* owns */
    PyObject *name;               /* owns: what server_name points to, or NULL */
    const char *server_name;
    bool read_ahead;
};

struct requesting {
    bool required, wait;
};

/* Connections that are no result yet. */
struct unaccepted {
    struct unaccepted *next;
    size_t begin, end;        /* those that are left */
    struct hs_conn *conns[1]; /* own; as many as were asked for */
};

struct accepting {
    struct hs_listener *core; /* borrows: the owner's */
    struct unaccepted *batch; /* owns */
    size_t max;
    struct opening opening; /* owns */
};

struct borrowing {
    struct hs_pool *core; /* borrows: the owner's */
    struct hs_request request;
    struct hs_lease lease; /* owns until it is a result */
    PyObject *shell;       /* owns: a Connection without a core, made before anything is lent */
    struct call_site site;
};

struct parked_news; /* of type_parking.c */

struct framed { /* frames to be received */
    struct framing_arg arg;
    struct hs_framing own; /* what arg.f points to when it was not given as an object */
    PyObject *separator;   /* owns: what own.sep points into */
    long max_count;
};

struct framed_send {
    struct framing_arg arg;
    Py_buffer head, payload; /* own */
    uint8_t header[HS_FRAME_HEADER_MAX];
    struct iovec iov[3];
};

struct filing {
    PyObject *file; /* owns */
    int fd;         /* the file's */
    int64_t offset;
    size_t count;
    bool begun;
};

struct fd_wait { /* for a descriptor that is no connection's */
    int fd;
    short events, ready;
};

struct file_io {           /* a call of a file */
    size_t from, limit, n; /* of a line */
    Py_buffer view[2];     /* own: what is sent */
    struct iovec iov[2];
};

/* Room that the jobs of one event loop share: only while a job is stepped is anything in it. */
struct scratch {
    uint8_t *bytes;
    size_t size;
};

struct job {
    struct call call;
    const struct scratch *scratch;        /* borrows: the hub's; NULL when a thread runs it */
    PyObject *owner;                      /* owns: the object whose core is used, or NULL */
    hs_err (*attempt)(struct job *job);   /* detached: the core's call */
    PyObject *(*result)(struct job *job); /* attached, once, after HS_OK */
    void (*give_up)(struct job *job);     /* attached: before the end if there was no HS_OK */
    void (*release)(struct job *job);     /* attached, at the end */
    bool ended;                           /* there was an HS_OK */
    union {
        struct io io;
        struct hs_close_report report;
        struct connecting connecting;
        struct accepting accepting;
        struct borrowing borrowing;
        struct framed framed;
        struct framed_send framed_send;
        struct filing filing;
        struct file_io file_io;
        struct upgrading upgrading;
        struct requesting requesting;
        struct hs_dial_place *place; /* owns */
        size_t peek_size;
        int how; /* of shutdown(2) */
        bool in_time;
        struct fd_wait fd_wait;
        struct hs_callback *fired; /* owns: to be run */
        struct parked_news *news;  /* owns */
    } u;
};

/* 0, or -1 with an exception set. *job is zero before, and job_end is called in any case. */
typedef int (*prepare_fn)(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames, struct job *job);

/* The method of a thread: prepares, runs to the end, returns the result. */
PyObject *job_run(prepare_fn prepare, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames);
/* The same for a job that is prepared; job_end is the caller's. */
PyObject *job_run_prepared(struct job *job);
/* One step, detached: the core's answer. After HS_OK call job->result. */
hs_err job_step(struct job *job);
void job_end(struct job *job);

/* The method of an event loop: args[0] is its Hub, the rest are the method's own. */
PyObject *operation_start(prepare_fn prepare, PyObject *self, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *kwnames);

/* Defines the two methods of one prepare function: PREFIX_NAME and PREFIX_op_NAME. */
#define JOB_METHODS_AS(storage, prefix, name)                                                      \
    storage PyObject *prefix##_##name(PyObject *self, PyObject *const *args, Py_ssize_t nargs,     \
                                      PyObject *kwnames)                                           \
    {                                                                                              \
        return job_run(prefix##_prepare_##name, self, args, nargs, kwnames);                       \
    }                                                                                              \
    storage PyObject *prefix##_op_##name(PyObject *self, PyObject *const *args, Py_ssize_t nargs,  \
                                         PyObject *kwnames)                                        \
    {                                                                                              \
        return operation_start(prefix##_prepare_##name, self, args, nargs, kwnames);               \
    }
#define JOB_METHODS(prefix, name) JOB_METHODS_AS(, prefix, name)
#define STATIC_JOB_METHODS(prefix, name) JOB_METHODS_AS(static, prefix, name)
#define JOB_DECLARE(prefix, name)                                                                  \
    PyObject *prefix##_##name(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);              \
    PyObject *prefix##_op_##name(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
#define OP_DOC(name)                                                                               \
    "_op_" name "($self, hub, /, *args, **kwargs)\n--\n\n" name "() for an event loop."
#define FUNCTION_OP_DOC(name)                                                                      \
    "_op_" name "(hub, /, *args, **kwargs)\n--\n\n" name "() for an event loop."

#endif
