/* conn.h: the Connection object, shared by the files that make up its type: conn.c (how it is made,
 * the ways to its core), type_conn.c (life, attributes), conn_buffers.c (memory of what moves
 * bytes), conn_io.c (what moves them), conn_msg.c (messages with ancillary data), conn_frame.c
 * (frames), conn_file.c (sendfile), conn_makefile.c (for the files of makefile()), conn_tls.c,
 * conn_socket.c (what socket has); type_frames.c is the iterator.
 */
#ifndef HS_BINDING_CONN_H
#define HS_BINDING_CONN_H

#include "binding/base/job.h"
#include "binding/pool/pool.h"

/* Of the object; the connection itself lives while files do, or in its pool. */
enum conn_life {
    CONN_HELD,
    CONN_CLOSED,   /* by its holder: close, abort, detach, or lost */
    CONN_RETURNED, /* to its pool; also after CONN_CLOSED */
};

typedef struct {
    HS_HEAD
    struct hs_conn *core;       /* owns: a reference and a handle; write once */
    _Atomic int64_t timeout_ns; /* settimeout(); HS_NEVER: none, 0: non-blocking */
    PyObject *whose;            /* owns: the Connection that this is a file's handle of, or NULL;
                                 * its timeout_ns counts, not this one's; write once */
    PyObject *bound;            /* owns: what bind() was given, or NULL; guarded by the object's
                                 * lock; that of `whose` counts, as its timeout_ns does */
    atomic_bool is_bound;       /* so that a call looks there only if it has to */
    atomic_int life;            /* enum conn_life; leaves CONN_HELD once, under the object's lock */
    PyObject *weakrefs;
    PyObject *state; /* owns: whatever its user puts there, or NULL; under the object's lock */
    PyObject *pool;  /* owns: the Pool that lent it, or NULL; write once */
    struct hs_lease lease; /* of that pool; write once; used while held, or by who ended that */
    struct opened opened;  /* where it was made or, from a pool, borrowed */
} ConnObject;

static inline bool
conn_is_let_go(const ConnObject *self)
{
    return atomic_load(&self->life) != CONN_HELD;
}

/* Whether this call ended it. What looks at the lease under the object's lock while it is held has
 * finished by then. */
static inline bool
conn_end(ConnObject *self, enum conn_life how)
{
    int held = CONN_HELD;
    bool ended;

    HS_BEGIN_LOCKED((PyObject *)self);
    ended = atomic_compare_exchange_strong(&self->life, &held, (int)how);
    HS_END_LOCKED();
    return ended;
}

/* Where settimeout() of the connection keeps its value. */
static inline _Atomic int64_t *
conn_timeout(PyObject *obj)
{
    ConnObject *self = (ConnObject *)obj;

    return self->whose == NULL ? &self->timeout_ns : &((ConnObject *)self->whose)->timeout_ns;
}

/* The object whose token and time-out count: the Connection of which obj may be a file's handle. */
static inline ConnObject *
conn_whose(PyObject *obj)
{
    ConnObject *self = (ConnObject *)obj;

    return self->whose == NULL ? self : (ConnObject *)self->whose;
}

/* An object that nothing is listed of yet. Takes the reference c, also on failure. */
ConnObject *conn_alloc(mod_state *st, struct hs_conn *c);
extern const struct opened_kind conn_opened_kind;
/* Closed; returns -1. */
int conn_raise_closed(PyObject *self, const char *op);
/* A new reference to the token that it is bound to, or NULL. */
PyObject *conn_bound(PyObject *obj);
/* call_begin for a job on this connection, under its lease if it has one: Closed when it was
 * closed, and from the job itself when it is returned before that begins. */
int conn_job_begin(PyObject *self, struct job *job, const char *op, PyObject *timeout,
                   PyObject *token);
/* What most jobs do when they are given up: the core keeps what had arrived, or poisons what is
 * half sent. */
void conn_job_give_up(struct job *job);
/* conn_frame.c: a Line, or NULL for the default, from an argument that may be None; and the
 * default. */
PyObject *line_argument(PyObject *line);
extern const struct hs_framing conn_default_line;
/* A frame that is there already; NULL without an exception: there is none, or it is let go. */
PyObject *conn_take_buffered_frame(ConnObject *self, const struct framing_arg *arg);

/* conn_buffers.c: a buffer or several, pinned until the job ends, which conn_io_begin sees to.
 * names: of the flags that are allowed, for the message. */
int conn_parse_flags(struct call *c, PyObject *obj, int allowed, const char *names, int *ret_flags);
int conn_io_begin(PyObject *self, struct job *job, const char *op, PyObject *timeout,
                  PyObject *token);
int conn_pin(struct io *io, PyObject *obj, int flags);
int conn_pin_pieces(struct io *io, PyObject *pieces, int flags);
int conn_make_bytes(struct job *job, size_t size);
/* conn_io.c: a call that must have all keeps what came between its steps. After the flags. */
void conn_want_whole(struct job *job);
PyObject *conn_take_bytes(struct job *job);
PyObject *conn_kept(struct job *job, PyObject *result);
/* The ancillary data that was received; of a header, what of its data is really there: the kernel
 * cuts the last one short. */
struct msghdr conn_control_of(const struct io *io);
size_t conn_control_len(const struct io *io, const struct cmsghdr *header);
/* conn_msg.c: builds io->control of a sequence of (level, type, data). */
int conn_parse_ancillary(struct io *io, PyObject *ancdata, int family);
/* conn_io.c: the words of enum hs_ending. */
extern const char *const conn_endings[];
/* conn_tls.c: a TLSInfo, or None. */
PyObject *conn_tls_info(struct hs_conn *core, mod_state *st);

/* The core connection, or Closed and NULL. For those who only look: another thread may return a
 * borrowed connection as soon as this one detaches, or at once where there is no GIL. */
struct hs_conn *conn_core(ConnObject *self, const char *op);
/* For what acts at once, without a job: runs fn, which neither waits nor calls Python, while nobody
 * can return the connection. 0, or -1 with what fn failed with, or Closed. */
typedef hs_err (*conn_act_fn)(struct hs_conn *core, void *arg, struct hs_error *err);
int conn_act(ConnObject *self, const char *op, conn_act_fn fn, void *arg);

/* The methods that live outside type_conn.c: JOB(name) can wait, and has a twin for event loops
 * (job.h); FAST(name) takes METH_FASTCALL | METH_KEYWORDS, PLAIN(name, flags) one argument or none.
 * conn_NAME is the function, conn_NAME_doc its text. */
#define CONN_METHODS(JOB, FAST, PLAIN)                                                             \
    JOB(recv)                                                                                      \
    JOB(recv_into)                                                                                 \
    JOB(recvfrom)                                                                                  \
    JOB(recvfrom_into)                                                                             \
    JOB(recv_exactly)                                                                              \
    JOB(recvmsg)                                                                                   \
    JOB(recvmsg_into)                                                                              \
    JOB(send)                                                                                      \
    JOB(sendall)                                                                                   \
    JOB(sendmsg)                                                                                   \
    JOB(recv_until)                                                                                \
    JOB(recv_line)                                                                                 \
    JOB(recv_lines)                                                                                \
    JOB(recv_frame)                                                                                \
    JOB(recv_frames)                                                                               \
    JOB(send_frame)                                                                                \
    JOB(peek)                                                                                      \
    JOB(sendfile)                                                                                  \
    JOB(finish)                                                                                    \
    JOB(upgrade_to_tls)                                                                            \
    JOB(confirm)                                                                                   \
    JOB(request_client_certificate)                                                                \
    JOB(close_write)                                                                               \
    FAST(_file_readline)                                                                           \
    FAST(_file_read)                                                                               \
    FAST(_file_write)                                                                              \
    FAST(lines)                                                                                    \
    FAST(frames)                                                                                   \
    FAST(set_min_receive_rate)                                                                     \
    FAST(_set_turns)                                                                               \
    FAST(cancel_on_end)                                                                            \
    FAST(export_keying_material)                                                                   \
    FAST(channel_binding)                                                                          \
    FAST(getsockopt)                                                                               \
    FAST(setsockopt)                                                                               \
    PLAIN(pending, METH_NOARGS)                                                                    \
    PLAIN(_is_quiet, METH_NOARGS)                                                                  \
    PLAIN(dup, METH_NOARGS)                                                                        \
    PLAIN(get_inheritable, METH_NOARGS)                                                            \
    PLAIN(set_inheritable, METH_O)                                                                 \
    PLAIN(_decref_socketios, METH_NOARGS)                                                          \
    PLAIN(_lost_output, METH_NOARGS)                                                               \
    PLAIN(_join_slots, METH_O)                                                                     \
    PLAIN(_leave_slots, METH_NOARGS)                                                               \
    PLAIN(_set_idle_timeout, METH_O)                                                               \
    PLAIN(_set_phase, METH_O)                                                                      \
    PLAIN(_set_served, METH_O)                                                                     \
    PLAIN(_expect_no_more, METH_O)                                                                 \
    PLAIN(_leave_departures, METH_NOARGS)                                                          \
    PLAIN(getsockname, METH_NOARGS)                                                                \
    PLAIN(getpeername, METH_NOARGS)                                                                \
    PLAIN(settimeout, METH_O)                                                                      \
    PLAIN(gettimeout, METH_NOARGS)                                                                 \
    PLAIN(bind, METH_O)                                                                            \
    PLAIN(setblocking, METH_O)                                                                     \
    PLAIN(getblocking, METH_NOARGS)                                                                \
    PLAIN(set_read_deadline, METH_O)                                                               \
    PLAIN(set_write_deadline, METH_O)                                                              \
    PLAIN(set_half_closed_timeout, METH_O)                                                         \
    PLAIN(audit, METH_NOARGS)                                                                      \
    PLAIN(tcp_info, METH_NOARGS)

#define CONN_DECLARE_JOB(name)                                                                     \
    JOB_DECLARE(conn, name)                                                                        \
    extern const char conn_##name##_doc[];
#define CONN_DECLARE_FAST(name)                                                                    \
    PyObject *conn_##name(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);                  \
    extern const char conn_##name##_doc[];
#define CONN_DECLARE_PLAIN(name, flags)                                                            \
    PyObject *conn_##name(PyObject *, PyObject *);                                                 \
    extern const char conn_##name##_doc[];
CONN_METHODS(CONN_DECLARE_JOB, CONN_DECLARE_FAST, CONN_DECLARE_PLAIN)

#define CONN_DOC(name, text) const char conn_##name##_doc[] = text

#endif
