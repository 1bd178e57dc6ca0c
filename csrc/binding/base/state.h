/* state.h: what one import of the module (one interpreter) owns.
 *
 * All state is per module: no static object, no static type. Functions find it with
 * PyModule_GetState, objects in themselves.
 *
 * Every object holds the module, and the state is whole until the module goes: types, classes and
 * lists are at hand in each finalizer and each dealloc, however late. The type cannot do that for
 * its objects: when the garbage collector takes module, types and objects together, as at the end
 * of an interpreter, it clears a type's reference to its module before the last object has gone.
 * So there is no m_clear, and no tp_clear drops the module: the cycles from the state through types
 * and classes are broken where the types are cleared, those through functions and lists in these.
 */
#ifndef HS_BINDING_STATE_H
#define HS_BINDING_STATE_H

#include "compat.h"
#include "hardsock_binding.h"

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
    X(socket_error, "hardsock._errors", "SocketError")                                             \
    X(setting, "hardsock._records", "Setting")                                                     \
    X(attempt, "hardsock._records", "Attempt")                                                     \
    X(answer, "hardsock._records", "Answer")                                                       \
    X(resolution, "hardsock._records", "Resolution")                                               \
    X(pool_timeout, "hardsock._errors", "PoolTimeout")                                             \
    X(pool_refused, "hardsock._errors", "PoolRefused")                                             \
    X(leak_warning, "hardsock._errors", "LeakWarning")                                             \
    X(tls_info, "hardsock._records", "TLSInfo")                                                    \
    X(close_report, "hardsock._records", "CloseReport")                                            \
    X(opened_record, "hardsock._records", "OpenedRecord")                                          \
    X(dropped_record, "hardsock._records", "DroppedRecord")                                        \
    X(lease_record, "hardsock._records", "LeaseRecord")                                            \
    X(borrower_record, "hardsock._records", "BorrowerRecord")                                      \
    X(pool_socket_record, "hardsock._records", "PoolSocketRecord")                                 \
    X(fd_record, "hardsock._records", "FdRecord")                                                  \
    X(fd_socket_record, "hardsock._records", "FdSocketRecord")                                     \
    X(certificate_record, "hardsock._records", "CertificateRecord")                                \
    X(handshake_stats, "hardsock._records", "HandshakeStats")                                      \
    X(proxy_stats, "hardsock._records", "ProxyStats")                                              \
    X(peer_stats, "hardsock._records", "PeerStats")                                                \
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
    X(host)                                                                                        \
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
    X(verify_message)                                                                              \
    X(enter)                                                                                       \
    X(leave)                                                                                       \
    X(forget)                                                                                      \
    X(_asyncio)                                                                                    \
    X(in_trio_run)                                                                                 \
    X(_get_running_loop)                                                                           \
    X(__asyncio_running_event_loop__)

/* Every type of the module, by the stem of its names: STEM_spec, which its file defines, and the
 * field STEM_type of the state. The state, its traversal, the creation and the module's dict all
 * follow from here: no type can be in one of them and not in another. X(stem) */
#define HS_TYPES(X)                                                                                \
    X(token)                                                                                       \
    X(callback)                                                                                    \
    X(scope)                                                                                       \
    X(task_scope)                                                                                  \
    X(ready)                                                                                       \
    X(context_value)                                                                               \
    X(conn)                                                                                        \
    X(listener)                                                                                    \
    X(frames)                                                                                      \
    X(pool)                                                                                        \
    X(borrowing)                                                                                   \
    X(hub)                                                                                         \
    X(slots)                                                                                       \
    X(service)                                                                                     \
    X(departures)                                                                                  \
    X(delays)                                                                                      \
    X(parking)                                                                                     \
    X(operation)                                                                                   \
    X(framing)                                                                                     \
    X(decoder)                                                                                     \
    X(tls)                                                                                         \
    X(breaker)                                                                                     \
    X(permit)                                                                                      \
    X(dial_queue)                                                                                  \
    X(dial_hold)

/* Every table of functions of the module, by the file that defines it. X(stem) */
#define HS_FUNCTIONS(X)                                                                            \
    X(connect)                                                                                     \
    X(tls)                                                                                         \
    X(watch)                                                                                       \
    X(guard) X(faults) X(report) X(notifier) X(tracking) X(call_site) X(run) X(breaker) X(scope)

/* Every other object of the state. X(field) */
#define HS_OBJECTS(X)                                                                              \
    X(package_dir)     /* a str with a slash at the end: where our own Python files are */         \
    X(module_kinds)    /* a dict: how call_site.c takes the frames of a module, by its name */     \
    X(file_kinds)      /* a dict: what came of that, by the name of a code's file */               \
    X(scope)           /* the ContextVar of the ambient token */                                   \
    X(load_host_scope) /* for type_scope.c, as the next two; write once */                         \
    X(host_scope)      /* or NULL: not loaded yet */                                               \
    X(decorated)                                                                                   \
    X(trio_lowlevel) /* a str: the name of the module */                                           \
    X(makefile)      /* a function, or NULL: not loaded yet */                                     \
    X(owner)         /* the ContextVar that says to whom belongs what is opened */                 \
    X(thrown_away)   /* a list */                                                                  \
    X(fd_check)      /* what the watch on descriptors calls, or NULL; write once */

#define HS_SITE_LISTS 256
struct call_site_entry;

typedef struct {
    PyObject *module; /* whose state this is */
#define HS_TYPE_FIELD(stem) PyTypeObject *stem##_type;
    HS_TYPES(HS_TYPE_FIELD)
#undef HS_TYPE_FIELD
#define HS_OBJECT_FIELD(field) PyObject *field;
    HS_OBJECTS(HS_OBJECT_FIELD)
#undef HS_OBJECT_FIELD
    struct hs_notifier *notifier; /* owns: a reference */
    /* How long calls waited to attach again: owns, write once; NULL: nobody wants to know. */
    struct hs_fixed_histogram *_Atomic attach_waits;
    _Atomic int64_t default_span_ns; /* hs.defaults(timeout=...): of calls without an end of their
                                      * own; HS_NEVER: none */
    pid_t process; /* in which this was, in that generation of forks; 0: nobody has asked */
    unsigned process_generation;
    /* tracking.c: */
    struct opened *opened;    /* guarded by conn_type: those that live */
    _Atomic uint64_t serial;  /* the last one given */
    atomic_bool tells_owners; /* somebody wants to know to whom they belong */
    atomic_int fd_mark;       /* for numbers from this one on; INT_MAX: there is no watch */
    atomic_int fd_due;        /* or after so many openings */
    /* call_site.c: lists of what was interned, by a hash; they only grow, at the head. */
    struct call_site_entry *_Atomic sites[HS_SITE_LISTS];
    atomic_int n_sites;
#define HS_IMPORT_FIELD(field, module, name) PyObject *field;
    HS_IMPORTS(HS_IMPORT_FIELD)
#undef HS_IMPORT_FIELD
#define HS_NAME_FIELD(name) PyObject *str_##name;
    HS_NAMES(HS_NAME_FIELD)
#undef HS_NAME_FIELD
} mod_state;

#define HS_TYPE_DECLARE(stem) extern PyType_Spec stem##_spec;
HS_TYPES(HS_TYPE_DECLARE)
#undef HS_TYPE_DECLARE
#define HS_FUNCTIONS_DECLARE(stem) extern PyMethodDef stem##_functions[];
HS_FUNCTIONS(HS_FUNCTIONS_DECLARE)
#undef HS_FUNCTIONS_DECLARE

static inline mod_state *
state_of_module(PyObject *module)
{
    return PyModule_GetState(module);
}

/* What each object of ours begins with. */
#define HS_HEAD                                                                                    \
    PyObject_HEAD                                                                                  \
    mod_state *st; /* owns: its module; write once */

struct object_head {
    HS_HEAD
};

static inline mod_state *
state_of(const void *self)
{
    return ((const struct object_head *)self)->st;
}

/* For an object that is to be made: the type may be a class made in Python, which derives from one
 * of ours. Those are not immutable, and to ask them for a module costs an exception each time. NULL
 * with an exception when the garbage collector has cleared the type already. */
static inline mod_state *
state_of_type(PyTypeObject *type)
{
    while ((type->tp_flags & Py_TPFLAGS_IMMUTABLETYPE) == 0)
        type = type->tp_base;
    return PyType_GetModuleState(type);
}

/* A new object, zero but for its head. NULL with an exception; st may be NULL for that reason. */
static inline void *
object_new(mod_state *st, PyTypeObject *type)
{
    struct object_head *self;

    if (st == NULL || (self = (struct object_head *)type->tp_alloc(type, 0)) == NULL)
        return NULL;
    self->st = st;
    Py_INCREF(st->module);
    return self;
}

/* The end of each dealloc. */
static inline void
object_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject *module = state_of(self)->module;

    type->tp_free(self);
    Py_DECREF(type);
    Py_DECREF(module);
}

#define HS_VISIT_HEAD(self)                                                                        \
    do {                                                                                           \
        Py_VISIT(Py_TYPE(self));                                                                   \
        Py_VISIT(state_of(self)->module);                                                          \
    } while (0)

/* ---- conn.c ---- */
/* conn_socket.c: a list of Setting. */
PyObject *settings_list(mod_state *st, const struct hs_setting *settings, size_t n);
/* Takes the reference c, also on failure. */
struct opening;
PyObject *conn_object_new(mod_state *st, struct hs_conn *c, const struct opening *opening);

/* ---- tracking.c ---- */
int tracking_init(PyObject *module, mod_state *st);
/* No watch and no owners from now on. What is noted in a finalizer while an interpreter ends would
 * keep from the garbage collector what it is about. */
void opened_interpreter_ends(mod_state *st);

/* ---- type_dial_queue.c ---- */
/* None: NULL; borrowed. */
int dial_limits_core(mod_state *st, PyObject *obj, struct hs_dial_limits **ret_core);

/* ---- type_breaker.c ---- */
/* borrows: obj, a Breaker; NULL and None: none. 0, or -1 with TypeError. */
int breaker_core(mod_state *st, PyObject *obj, struct hs_breaker **ret_core);

/* connect.c: what connect() takes by keyword, from a dict. *ret_tls, *ret_name: new references or
 * NULL, which o borrows, as it borrows from the dict. */
int connect_options(mod_state *st, PyObject *kwargs, struct hs_connect_options *o,
                    struct hs_tls_config **ret_tls, PyObject **ret_name);

#endif
