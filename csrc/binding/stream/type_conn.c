/* type_conn.c: the type Connection: its life and attributes.
 *
 * The object owns one reference and one handle of the core connection; makefile() makes a second
 * object on the same core. Its fields are write-once or atomic, so free-threaded builds need no
 * lock.
 */
#include "conn.h"
#include "binding/cancel/token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* ---- Life ---------------------------------------------------------------------------------- */

static void
end_handle(ConnObject *self, bool lost)
{
    if (self->pool != NULL)
        pool_conn_let_go((PyObject *)self, lost);
    else
        hs_conn_unshare(self->core, lost);
}

static void
let_go(ConnObject *self, bool lost)
{
    if (!conn_end(self, CONN_CLOSED))
        return;
    end_handle(self, lost);
}

PyDoc_STRVAR(close_doc,
             "close($self, /)\n--\n\n"
             "Close; never blocks. Calls in progress in other threads raise Closed at once.\n\n"
             "What was sent is still delivered in the background, unless unread bytes make the\n"
             "kernel reset the connection. Files made by makefile() keep it open until they are\n"
             "closed, as with socket. Idempotent.");

static PyObject *
conn_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    let_go((ConnObject *)self, false);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(reduce_doc,
             "__reduce__($self, /)\n--\n\n"
             "Refuse, in every protocol of pickle and in copy(): it owns a descriptor.");

static PyObject *
conn_reduce(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    PyErr_SetString(
        PyExc_TypeError,
        "cannot pickle or copy a Connection: it owns a descriptor; dup() shares it here, "
        "and sendmsg() with SCM_RIGHTS gives it to another process");
    return NULL;
}

PyDoc_STRVAR(abort_doc, "abort($self, /)\n--\n\n"
                        "End it for everybody with a reset (RST) to the peer; never blocks.\n\n"
                        "Data not yet delivered is thrown away, on purpose.");

static PyObject *
conn_abort(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    ConnObject *self = (ConnObject *)obj;
    bool ends = conn_end(self, CONN_CLOSED);

    if (self->pool == NULL || ends) /* What was returned may be lent to somebody else. */
        hs_conn_close(self->core, true);
    if (ends)
        end_handle(self, false);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(detach_doc,
             "detach($self, /)\n--\n\n"
             "Give the descriptor to the caller, who must close it; this object becomes closed.\n\n"
             "It is blocking and inheritable as adopt() found it, unless set_inheritable() was\n"
             "called; one that was made here is blocking, as new sockets are. Options that were\n"
             "asked for stay. Busy while a call is in progress or received bytes are buffered\n"
             "here, ValueError with TLS; then this object stays the only owner: a socket.socket\n"
             "that was made of fileno() before, as ssl does, is detached from the number.");

/* A failure is of no interest beside the one that is being told. */
static void
disown(int number)
{
    PyObject *module = number < 0 ? NULL : PyImport_ImportModule("hardsock.files.second_owner");
    PyObject *found = module == NULL ? NULL : PyObject_CallMethod(module, "disown", "i", number);

    if (found == NULL)
        PyErr_Clear();
    Py_XDECREF(found);
    Py_XDECREF(module);
}

/* 0, or -1 with an exception when the warning that ssl takes the descriptor is to be one. */
static int
warn_of_leaving(void)
{
    PyObject *module, *done = NULL;
    struct call_site site;

    if (!call_site_of_caller(&site) ||
        PyUnicode_CompareWithASCIIString(((PyCodeObject *)site.code)->co_name, "_create") != 0)
        return 0;
    if ((module = PyImport_ImportModule("hardsock.files.second_owner")) != NULL)
        done = PyObject_CallMethod(module, "leaving", "O", site.code);
    Py_XDECREF(module);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *
conn_detach(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    ConnObject *self = (ConnObject *)obj;
    struct hs_error err = {0};
    hs_err rv = HS_E_CLOSED;
    bool held;
    int fd;

    if (!conn_is_let_go(self) && warn_of_leaving() < 0) {
        PyObject *type, *value, *traceback;

        PyErr_Fetch(&type, &value, &traceback);
        disown(hs_conn_fileno(self->core));
        PyErr_Restore(type, value, traceback);
        return NULL;
    }
    HS_BEGIN_LOCKED(obj); /* Another thread must not return it meanwhile. */
    if ((held = !conn_is_let_go(self)) && (rv = hs_conn_detach(self->core, &err, &fd)) == HS_OK)
        atomic_store(&self->life, CONN_CLOSED);
    HS_END_LOCKED();
    if (rv == HS_OK) {
        end_handle(self, false);
        return PyLong_FromLong(fd);
    }
    if (held) {
        disown(hs_conn_fileno(self->core));
        (void)raise_conn_error(state_of(obj), self->core, &err, rv);
    } else {
        (void)conn_raise_closed(obj, "detach");
    }
    return NULL;
}

PyDoc_STRVAR(shutdown_doc,
             "shutdown($self, how, /)\n--\n\n"
             "shutdown(2) with SHUT_RD, SHUT_WR or SHUT_RDWR.\n\n"
             "With TLS, SHUT_WR is close_write(), and waits as settimeout() says. SHUT_RDWR ends\n"
             "the connection below, and says so to a TLS peer first if it can.");

static hs_err
attempt_shutdown(struct job *job)
{
    return hs_conn_shutdown_by(job->call.conn, &job->call.op, job->u.how, job->call.err);
}

static PyObject *
shutdown_result(struct job *Py_UNUSED(job))
{
    Py_RETURN_NONE;
}

static int
prepare_shutdown(PyObject *self, PyObject *const *args, Py_ssize_t Py_UNUSED(nargs),
                 PyObject *Py_UNUSED(kwnames), struct job *job)
{
    long how;

    if (parse_long(args[0], "how", INT32_MIN, INT32_MAX, &how) < 0)
        return -1;
    job->u.how = (int)how;
    job->attempt = attempt_shutdown;
    job->result = shutdown_result;
    return conn_job_begin(self, job, "shutdown", NULL, NULL);
}

static PyObject *
conn_shutdown(PyObject *obj, PyObject *how)
{
    struct hs_conn *core = conn_core((ConnObject *)obj, "shutdown");
    struct hs_tls_info info;
    long value;

    if (core == NULL || parse_long(how, "how", INT32_MIN, INT32_MAX, &value) < 0)
        return NULL;
    if (value == SHUT_WR && hs_conn_tls_info(core, &info))
        return conn_close_write(obj, NULL, 0, NULL);
    return job_run(prepare_shutdown, obj, &how, 1, NULL);
}

PyDoc_STRVAR(fileno_doc, "fileno($self, /)\n--\n\nThe descriptor's number, -1 when closed.");

static PyObject *
conn_fileno(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    ConnObject *self = (ConnObject *)obj;

    return PyLong_FromLong(conn_is_let_go(self) ? -1 : hs_conn_fileno(self->core));
}

PyDoc_STRVAR(share_doc, "_share($self, /)\n--\n\n"
                        "Another object on the same connection, which closes with the last.");

/* From here on a return finds it in use. */
static hs_err
act_share(struct hs_conn *core, void *Py_UNUSED(arg), struct hs_error *Py_UNUSED(err))
{
    hs_conn_share(core);
    return HS_OK;
}

static PyObject *
conn_share(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    ConnObject *self = (ConnObject *)obj;
    struct hs_conn *core = self->core;
    ConnObject *shared;

    if (conn_act(self, "makefile", act_share, NULL) < 0)
        return NULL;
    if ((shared = conn_alloc(state_of(obj), hs_conn_ref(core))) == NULL) {
        hs_conn_unshare(core, true);
        return NULL;
    }
    shared->whose = Py_NewRef(self->whose == NULL ? obj : self->whose);
    tracking_share(state_of(obj), &shared->opened, &self->opened);
    return (PyObject *)shared;
}

PyDoc_STRVAR(makefile_doc,
             "makefile($self, mode='r', buffering=None, *, encoding=None, errors=None, "
             "newline=None)\n--\n\n"
             "A file on this connection, as socket.makefile(); it keeps the connection open.");

static PyObject *
find_makefile(void)
{
    PyObject *module = PyImport_ImportModule("hardsock.files.binary"), *function;

    function = module == NULL ? NULL : PyObject_GetAttrString(module, "makefile");
    Py_XDECREF(module);
    return function;
}

static PyObject *
conn_makefile(PyObject *self, PyObject *args, PyObject *kwargs)
{
    mod_state *st = state_of(self);
    PyObject *method, *result;

    /* Not with the module: most programs make no file. */
    if (st->makefile == NULL && token_make_once(st->module, &st->makefile, find_makefile()) < 0)
        return NULL;
    if ((method = PyMethod_New(st->makefile, self)) == NULL)
        return NULL;
    result = PyObject_Call(method, args, kwargs);
    Py_DECREF(method);
    return result;
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nReturn the connection itself.");
PyDoc_STRVAR(exit_doc, "__exit__($self, *exc_info)\n--\n\nClose the connection.");

static PyObject *
conn_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static PyObject *
conn_exit(PyObject *self, PyObject *Py_UNUSED(args))
{
    let_go((ConnObject *)self, false);
    Py_RETURN_NONE;
}

static PyObject *
conn_repr(PyObject *obj)
{
    ConnObject *self = (ConnObject *)obj;
    char local[HS_ADDR_TEXT_SIZE] = "?", peer[HS_ADDR_TEXT_SIZE] = "?";
    struct hs_addr addr;

    if (conn_is_let_go(self) || hs_conn_is_closed(self->core))
        return PyUnicode_FromString("<hardsock.Connection closed>");
    if (hs_conn_local_addr(self->core, NULL, &addr) == HS_OK)
        (void)hs_addr_text(&addr, local, sizeof(local));
    if (hs_conn_peer_addr(self->core, NULL, &addr) == HS_OK)
        (void)hs_addr_text(&addr, peer, sizeof(peer));
    return PyUnicode_FromFormat("<hardsock.Connection fd=%d %s -> %s>", hs_conn_fileno(self->core),
                                local, peer);
}

/* A connection that nobody closed: say so, and close it without waiting for anything. */
static void
conn_finalize(PyObject *obj)
{
    ConnObject *self = (ConnObject *)obj;
    PyObject *type, *value, *traceback;

    if (self->core == NULL || conn_is_let_go(self))
        return;
    PyErr_Fetch(&type, &value, &traceback);
    if (self->pool != NULL)
        pool_conn_warn(obj);
    else if (!hs_conn_is_closed(self->core))
        tracking_warn(&self->opened, obj);
    if (self->pool != NULL || !hs_conn_is_closed(self->core))
        tracking_thrown_away(state_of(obj), &self->opened, obj);
    let_go(self, true);
    PyErr_Restore(type, value, traceback);
}

static void
conn_dealloc(PyObject *obj)
{
    ConnObject *self = (ConnObject *)obj;

    /* What was closed or returned has nothing to finalize, and borrowers make many of these. */
    if (!conn_is_let_go(self) && PyObject_CallFinalizerFromDealloc(obj) < 0)
        return;
    PyObject_GC_UnTrack(obj);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(obj);
    tracking_remove(state_of(obj), &self->opened);
    hs_conn_unref(self->core);
    Py_XDECREF(self->state);
    Py_XDECREF(self->pool);
    Py_XDECREF(self->whose);
    Py_XDECREF(self->bound);
    object_free(obj);
}

static int
conn_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((ConnObject *)self)->state);
    Py_VISIT(((ConnObject *)self)->pool);
    Py_VISIT(((ConnObject *)self)->whose);
    Py_VISIT(((ConnObject *)self)->bound);
    Py_VISIT(((ConnObject *)self)->opened.owner);
    HS_VISIT_HEAD(self);
    return 0;
}

/* What a user puts there may well lead back here. */
static int
conn_clear(PyObject *self)
{
    Py_CLEAR(((ConnObject *)self)->state);
    return 0;
}

/* ---- Attributes ---------------------------------------------------------------------------- */

enum attribute {
    CREATED,
    LAST_READ,
    LAST_WRITE,
    RECEIVED,
    SENT,
    BUFFERED,
    FAMILY,
    CHANGED,
    POISONED,
    WRITE_POISONED,
    IDLE,
    IDENT,
    MARKS,
};

static PyObject *
get_info(PyObject *obj, void *closure)
{
    struct hs_conn_info info;
    bool ready;

    hs_conn_info(((ConnObject *)obj)->core, &info);
    switch ((enum attribute)(intptr_t)closure) {
    case CREATED:
        return time_object(info.created_ns);
    case LAST_READ:
        return time_object(info.last_read_ns);
    case LAST_WRITE:
        return time_object(info.last_write_ns);
    case RECEIVED:
        return PyLong_FromUnsignedLongLong(info.bytes_received);
    case SENT:
        return PyLong_FromUnsignedLongLong(info.bytes_sent);
    case BUFFERED:
        return PyLong_FromSize_t(hs_conn_pending(((ConnObject *)obj)->core, &ready));
    case FAMILY:
        return PyLong_FromLong(info.family);
    case CHANGED:
        return PyLong_FromUnsignedLong(info.changed_settings);
    case POISONED:
        return PyBool_FromLong(info.poisoned_in || info.poisoned_out);
    case WRITE_POISONED:
        return PyBool_FromLong(info.poisoned_out);
    case IDLE:
        return PyBool_FromLong(info.idle);
    case IDENT:
        return PyLong_FromUnsignedLongLong(hs_conn_id(((ConnObject *)obj)->core));
    case MARKS:
        return PyLong_FromLong((info.late_in ? 1 : 0) | (info.late_out ? 2 : 0) |
                               (info.left ? 4 : 0) | (info.quiet == HS_QUIET_FOR_LONG ? 8 : 0) |
                               (info.quiet == HS_QUIET_NO_MORE ? 16 : 0));
    }
    Py_UNREACHABLE();
}

static PyObject *
conn_get_closed(PyObject *obj, void *Py_UNUSED(closure))
{
    ConnObject *self = (ConnObject *)obj;

    return PyBool_FromLong(conn_is_let_go(self) || hs_conn_is_closed(self->core));
}

static PyObject *
get_settled(PyObject *obj, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(hs_conn_is_settled(((ConnObject *)obj)->core));
}

static PyObject *
get_type(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return PyLong_FromLong(SOCK_STREAM);
}

static PyObject *
get_proto(PyObject *obj, void *Py_UNUSED(closure))
{
    struct hs_conn_info info;

    hs_conn_info(((ConnObject *)obj)->core, &info);
    return PyLong_FromLong(info.family == AF_UNIX ? 0 : IPPROTO_TCP);
}

static PyObject *
get_tls(PyObject *obj, void *Py_UNUSED(closure))
{
    return conn_tls_info(((ConnObject *)obj)->core, state_of(obj));
}

static PyObject *
get_proxy(PyObject *self, void *Py_UNUSED(closure))
{
    struct hs_addr addr;

    if (!hs_conn_proxy_addr(((ConnObject *)self)->core, &addr))
        Py_RETURN_NONE;
    return address_object(&addr);
}

static PyObject *
get_state(PyObject *obj, void *Py_UNUSED(closure))
{
    PyObject *state;

    HS_BEGIN_LOCKED(obj);
    state = Py_XNewRef(((ConnObject *)obj)->state);
    HS_END_LOCKED();
    return state == NULL ? Py_NewRef(Py_None) : state;
}

static int
set_state(PyObject *obj, PyObject *value, void *Py_UNUSED(closure))
{
    PyObject *was;

    HS_BEGIN_LOCKED(obj);
    was = ((ConnObject *)obj)->state;
    ((ConnObject *)obj)->state = Py_XNewRef(value);
    HS_END_LOCKED();
    Py_XDECREF(was);
    return 0;
}

static PyObject *
get_timeout(PyObject *self, void *Py_UNUSED(closure))
{
    return PyObject_CallMethod(self, "gettimeout", NULL);
}

#define INFO_GETTER(name, doc, which)                                                              \
    {                                                                                              \
        name, get_info, NULL, doc, (void *)(intptr_t)(which)                                       \
    }

static PyGetSetDef conn_getset[] = {
    INFO_GETTER("created", "When it was made, as time.monotonic() tells time.", CREATED),
    INFO_GETTER("last_read", "When bytes were last received, by time.monotonic(); None: never.",
                LAST_READ),
    INFO_GETTER("last_write", "When bytes were last sent, by time.monotonic(); None: never.",
                LAST_WRITE),
    INFO_GETTER("bytes_received", "Bytes received from the kernel so far.", RECEIVED),
    INFO_GETTER("bytes_sent", "Bytes that the kernel took so far.", SENT),
    INFO_GETTER("buffered",
                "Bytes received but not yet returned to a caller, those inside of TLS included.",
                BUFFERED),
    INFO_GETTER("family", "AF_INET, AF_INET6 or AF_UNIX.", FAMILY),
    INFO_GETTER("changed_settings", "How many settings the kernel silently changed; see audit().",
                CHANGED),
    INFO_GETTER("_id", "As reports have it; never used again.", IDENT),
    INFO_GETTER("poisoned", "Whether a direction is unusable after a half-done message.", POISONED),
    INFO_GETTER("write_poisoned",
                "Whether sending is: half a message is out, or the connection broke.",
                WRITE_POISONED),
    INFO_GETTER("idle",
                "Whether it is between two messages: a call waits to read, nothing of its message\n"
                "has come, nothing is being written, and nothing came since the last write.",
                IDLE),
    INFO_GETTER(
        "_marks",
        "What its server is to know, added up: 1 and 2 when reading and writing took longer\n"
        "than _set_turns allows, 4 when its peer was seen to leave, 8 and 16 when\n"
        "_set_idle_timeout and _expect_no_more have ended a call.",
        MARKS),
    {"_settled", get_settled, NULL,
     "Whether nothing is under way: all that came was read, all that was sent is acknowledged.",
     NULL},
    {"closed", conn_get_closed, NULL, "Whether it was closed here.", NULL},
    {"_closed", conn_get_closed, NULL, "As socket.socket has it, for code that looks there.", NULL},
    {"pool", pool_conn_get_pool, NULL, "The Pool that lent it, or None.", NULL},
    {"reused", pool_conn_get_reused, NULL, "Whether somebody had it from its pool before.", NULL},
    {"retry_is_safe", pool_conn_get_retry_is_safe, NULL,
     "Whether it is reused and nothing was sent on it yet: if it turns out to be dead, the peer\n"
     "has seen nothing, and another connection may be tried.",
     NULL},
    {"_clean", pool_conn_get_clean, NULL, "Nothing went since it was lent or marked clean.", NULL},
    {"_idle_for", pool_conn_get_idle_for, NULL, "How long it had been idle, in seconds.", NULL},
    {"_lease_id", pool_conn_get_lease_id, NULL, "The number of its lease, or 0.", NULL},
    {"type", get_type, NULL, "SOCK_STREAM, as socket has it.", NULL},
    {"proto", get_proto, NULL, "IPPROTO_TCP, or 0 for unix.", NULL},
    {"tls", get_tls, NULL, "What the TLS handshake agreed on: a TLSInfo, or None.", NULL},
    {"proxy", get_proxy, NULL,
     "The proxy through which the client came, as socket has an address: getpeername() is the\n"
     "client then. None without hardsock.ProxyProtocol, or when the peer speaks for itself.",
     NULL},
    {"state", get_state, set_state,
     "Anything that goes with the connection and is freed with it; None at first. A handler that\n"
     "is called per message keeps here what it knows from the last one.",
     NULL},
    {"timeout", get_timeout, NULL, "What settimeout() set: seconds or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define JOB_ENTRY(name)                                                                            \
    {#name, HS_METHOD(conn_##name), METH_FASTCALL | METH_KEYWORDS, conn_##name##_doc},             \
        {"_op_" #name, HS_METHOD(conn_op_##name), METH_FASTCALL | METH_KEYWORDS, OP_DOC(#name)},
#define FAST_ENTRY(name)                                                                           \
    {#name, HS_METHOD(conn_##name), METH_FASTCALL | METH_KEYWORDS, conn_##name##_doc},
#define PLAIN_ENTRY(name, flags) {#name, conn_##name, flags, conn_##name##_doc},

static PyMethodDef conn_methods[] = {
    CONN_METHODS(JOB_ENTRY, FAST_ENTRY, PLAIN_ENTRY){"close", conn_close, METH_NOARGS, close_doc},
    {"abort", conn_abort, METH_NOARGS, abort_doc},
    {"detach", conn_detach, METH_NOARGS, detach_doc},
    {"__reduce__", conn_reduce, METH_NOARGS, reduce_doc},
    {"__getstate__", conn_reduce, METH_NOARGS, reduce_doc},
    {"shutdown", conn_shutdown, METH_O, shutdown_doc},
    {"fileno", conn_fileno, METH_NOARGS, fileno_doc},
    {"makefile", HS_METHOD(conn_makefile), METH_VARARGS | METH_KEYWORDS, makefile_doc},
    {"_share", conn_share, METH_NOARGS, share_doc},
    {"mark_clean", pool_conn_mark_clean, METH_NOARGS, pool_conn_mark_clean_doc},
    {"__enter__", conn_enter, METH_NOARGS, enter_doc},
    {"__exit__", conn_exit, METH_VARARGS, exit_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    conn_doc,
    "A connected stream socket, TCP or unix; made by connect(), adopt() or a Listener.\n\n"
    "One reader and one writer at a time (a third call raises Busy); everything else from\n"
    "any thread at any time. A context manager that closes.\n\n"
    "Calls that wait take timeout=, seconds from now for the whole call, and token=, a\n"
    "CancelToken; the earliest of these, the ambient scope, settimeout() and the deadlines set\n"
    "here ends them: DeadlineExceeded or Cancelled, from any thread. close() from another\n"
    "thread makes them raise Closed. One that receives loses no byte by any of that; one that\n"
    "sends may have sent a part (bytes_done), and then sending is poisoned. After a fork all\n"
    "calls in the child raise WrongProcess.");

static PyMemberDef conn_members[] = {
    {"__weaklistoffset__", HS_T_PYSSIZET, offsetof(ConnObject, weakrefs), HS_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot conn_slots[] = {
    {Py_tp_dealloc, HS_SLOT(conn_dealloc)},
    {Py_tp_finalize, HS_SLOT(conn_finalize)},
    {Py_tp_traverse, HS_SLOT(conn_traverse)},
    {Py_tp_clear, HS_SLOT(conn_clear)},
    {Py_tp_repr, HS_SLOT(conn_repr)},
    {Py_tp_methods, conn_methods},
    {Py_tp_getset, conn_getset},
    {Py_tp_members, conn_members},
    {Py_tp_doc, (void *)(uintptr_t)conn_doc},
    {0, NULL},
};

PyType_Spec conn_spec = {
    .name = "hardsock.Connection",
    .basicsize = sizeof(ConnObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = conn_slots,
};
