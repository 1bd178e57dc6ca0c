/* state.h: what one import of the module (one interpreter) owns.
 *
 * All state is per module: no static object, no static type. Types find it with
 * PyType_GetModuleState, functions with PyModule_GetState.
 */
#ifndef HS_BINDING_STATE_H
#define HS_BINDING_STATE_H

#include "compat.h"
#include "hardsock.h"

#include <stdatomic.h>

/* Python classes that the core raises or returns, by their home. X(field, module, name) */
#define HS_IMPORTS(X)                                                                              \
    X(deadline_exceeded, "hardsock._errors", "DeadlineExceeded")                                   \
    X(cancelled, "hardsock._errors", "Cancelled")                                                  \
    X(closed, "hardsock._errors", "Closed")                                                        \
    X(wrong_process, "hardsock._errors", "WrongProcess")                                           \
    X(busy, "hardsock._errors", "Busy")                                                            \
    X(poisoned, "hardsock._errors", "Poisoned")                                                    \
    X(reset, "hardsock._errors", "Reset")                                                          \
    X(broken_pipe, "hardsock._errors", "BrokenPipe")                                               \
    X(truncated, "hardsock._errors", "Truncated")                                                  \
    X(end_of_stream, "hardsock._errors", "EndOfStream")                                            \
    X(dead_peer, "hardsock._errors", "DeadPeer")                                                   \
    X(resolve_error, "hardsock._errors", "ResolveError")                                           \
    X(connection_refused, "hardsock._errors", "ConnectionRefused")                                 \
    X(connect_error, "hardsock._errors", "ConnectError")                                           \
    X(breaker_open, "hardsock._errors", "BreakerOpen")                                             \
    X(frame_too_large, "hardsock._errors", "FrameTooLarge")                                        \
    X(bad_frame, "hardsock._errors", "BadFrame")                                                   \
    X(tls_error, "hardsock._errors", "TLSError")                                                   \
    X(certificate_error, "hardsock._errors", "CertificateError")                                   \
    X(hardsock_error, "hardsock._errors", "HardsockError")                                         \
    X(setting, "hardsock._records", "Setting")                                                     \
    X(attempt, "hardsock._records", "Attempt")                                                     \
    X(answer, "hardsock._records", "Answer")                                                       \
    X(resolution, "hardsock._records", "Resolution")                                               \
    X(pool_timeout, "hardsock._errors", "PoolTimeout")                                             \
    X(pool_refused, "hardsock._errors", "PoolRefused")                                             \
    X(leak_warning, "hardsock._errors", "LeakWarning")                                             \
    X(tls_info, "hardsock._records", "TLSInfo")                                                    \
    X(close_report, "hardsock._records", "CloseReport")                                            \
    X(handshake_stats, "hardsock._records", "HandshakeStats")                                      \
    X(listener_stats, "hardsock._records", "ListenerStats")                                        \
    X(breaker_state, "hardsock._records", "BreakerState")                                          \
    X(breaker_stats, "hardsock._records", "BreakerStats")                                          \
    X(guard, "hardsock._breaker", "Guard")                                                         \
    X(failure_of, "hardsock._breaker", "failure_of")

/* Attributes of exceptions, interned once. */
#define HS_NAMES(X)                                                                                \
    X(op)                                                                                          \
    X(phase)                                                                                       \
    X(_local)                                                                                      \
    X(_peer)                                                                                       \
    X(elapsed)                                                                                     \
    X(bytes_done)                                                                                  \
    X(answer)                                                                                      \
    X(reason)                                                                                      \
    X(hint)                                                                                        \
    X(attempts)                                                                                    \
    X(_core)                                                                                       \
    X(limit)                                                                                       \
    X(size)                                                                                        \
    X(recoverable)                                                                                 \
    X(discarded)                                                                                   \
    X(_explain)                                                                                    \
    X(timeout)                                                                                     \
    X(acquire)                                                                                     \
    X(release)                                                                                     \
    X(address)                                                                                     \
    X(retry_after)                                                                                 \
    X(last_error)                                                                                  \
    X(failure)                                                                                     \
    X(alert)                                                                                       \
    X(verify_code)                                                                                 \
    X(verify_message)

typedef struct {
    PyTypeObject *token_type;
    PyTypeObject *callback_type;
    PyTypeObject *conn_type;
    PyTypeObject *listener_type;
    PyTypeObject *frames_type;
    PyTypeObject *hub_type;
    PyTypeObject *slots_type;
    PyTypeObject *operation_type;
    PyTypeObject *framing_type;
    PyTypeObject *decoder_type;
    PyTypeObject *breaker_type;
    PyTypeObject *permit_type;
    PyTypeObject *pool_type;
    PyTypeObject *borrowing_type;
    PyObject *package_dir;     /* with a slash at the end: where our own Python files are */
    PyObject *contextlib_file; /* whose frames only pass calls on */
    PyTypeObject *tls_type;
    PyObject *scope; /* the ContextVar of the ambient token */
    /* opened.c: */
    struct opened *opened;    /* guarded by conn_type: those that live */
    _Atomic uint64_t serial;  /* the last one given */
    atomic_bool tells_owners; /* somebody wants to know to whom they belong */
    PyObject *owner;          /* the ContextVar that says so */
    PyObject *thrown_away;    /* a list */
    PyObject *fd_check;       /* what the watch on descriptors calls, or NULL; write once */
    atomic_int fd_mark;       /* for numbers from this one on; INT_MAX: there is no watch */
    atomic_int fd_due;        /* or after so many openings */
#define HS_IMPORT_FIELD(field, module, name) PyObject *field;
    HS_IMPORTS(HS_IMPORT_FIELD)
#undef HS_IMPORT_FIELD
#define HS_NAME_FIELD(name) PyObject *str_##name;
    HS_NAMES(HS_NAME_FIELD)
#undef HS_NAME_FIELD
} mod_state;

static inline mod_state *
state_of_module(PyObject *module)
{
    return PyModule_GetState(module);
}

static inline mod_state *
state_of(PyObject *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

/* The same for a type that may be a class made in Python, which derives from one of ours. */
static inline mod_state *
state_of_subtype(PyTypeObject *type)
{
    mod_state *st = NULL;

    for (; type != NULL && st == NULL; type = type->tp_base)
        if ((type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0 ||
            (st = PyType_GetModuleState(type)) == NULL)
            PyErr_Clear();
    return st;
}

/* ---- type_token.c ---- */
int token_types_init(PyObject *module, mod_state *st);
/* borrows: obj, which must be a CancelToken; else TypeError and NULL. */
struct hs_token *token_core(mod_state *st, PyObject *obj);
/* The exception that cancelled obj or an ancestor of it, as reason says: a new reference or NULL,
 * without an exception set. */
PyObject *token_cause(PyObject *obj, const struct hs_reason *reason);

/* ---- type_conn.c ---- */
int conn_type_init(PyObject *module, mod_state *st);
/* conn_socket.c: a list of Setting. */
PyObject *settings_list(mod_state *st, const struct hs_setting *settings, size_t n);
/* Takes the reference c, also on failure. */
struct origin;
PyObject *conn_object_new(mod_state *st, struct hs_conn *c, const struct origin *origin);

/* ---- opened.c ---- */
int opened_init(PyObject *module, mod_state *st);

/* ---- type_listener.c ---- */
int listener_type_init(PyObject *module, mod_state *st);

/* ---- type_frames.c ---- */
int frames_type_init(PyObject *module, mod_state *st);

/* ---- type_hub.c, type_operation.c ---- */
int hub_type_init(PyObject *module, mod_state *st);
int slots_type_init(PyObject *module, mod_state *st);
int operation_type_init(PyObject *module, mod_state *st);

/* ---- type_breaker.c ---- */
int breaker_types_init(PyObject *module, mod_state *st);
/* borrows: obj, a Breaker; NULL and None: none. 0, or -1 with TypeError. */
int breaker_core(mod_state *st, PyObject *obj, struct hs_breaker **ret_core);

/* ---- type_pool.c, type_borrowing.c ---- */
int pool_type_init(PyObject *module, mod_state *st);
int borrowing_type_init(PyObject *module, mod_state *st);

/* connect.c: what connect() takes by keyword, from a dict. *ret_tls: a new reference or NULL, which
 * o borrows, as it borrows from the dict. */
int connect_options(mod_state *st, PyObject *kwargs, struct hs_connect_options *o,
                    struct hs_tls_config **ret_tls);

/* ---- connect.c, conn_tls.c, watch.c: functions of the module ---- */
extern PyMethodDef connect_functions[];
extern PyMethodDef tls_functions[];
extern PyMethodDef watch_functions[];

#endif
