/* type_listener.c: the type Listener.
 *
 * The object owns one reference to the core listener, write-once. Accepting threads hold their own
 * way in: closing wakes them, and the core object lives until the last has left.
 */
#include "binding/base/job.h"
#include "binding/stream/tls.h"

#include <stdlib.h>

typedef struct {
    HS_HEAD
    struct hs_listener *core; /* owns: a reference; write once */
    struct opened opened;     /* where it was made */
    atomic_bool serves;       /* what it accepts counts as made there too */
    struct unaccepted *left;  /* own: accepted, but there was no memory for their objects */
    PyObject *weakrefs;
} ListenerObject;

/* ---- For the list of what is open (tracking.c) --------------------------------------------- */

static struct hs_conn *
opened_no_conn(const struct opened *Py_UNUSED(o))
{
    return NULL;
}

static struct hs_listener *
opened_listener(const struct opened *o)
{
    return ((const ListenerObject *)(const void *)((const char *)o -
                                                   offsetof(ListenerObject, opened)))
        ->core;
}

/* Its core says. */
static bool
opened_listener_is_open(const struct opened *Py_UNUSED(o))
{
    return true;
}

static const struct opened_kind listener_opened_kind = {
    .conn = opened_no_conn,
    .listener = opened_listener,
    .is_open = opened_listener_is_open,
};

#define MAX_BATCH 1024

static struct hs_listener *
listener_core_of(PyObject *self)
{
    return ((ListenerObject *)self)->core;
}

static void
listener_describe(const struct call *c, hs_err Py_UNUSED(code), PyObject *dict)
{
    struct hs_addr local;

    hs_listener_bound_addr(c->about, &local);
    error_put(dict, c->st->str__local, error_raw_address(&local));
}

static const struct call_kind listener_kind = {.describe = listener_describe};

static PyObject *
listener_fail(PyObject *self, struct hs_error *err, hs_err rv)
{
    struct call c = {.st = state_of(self),
                     .err = err,
                     .started_ns = hs_now(),
                     .kind = &listener_kind,
                     .about = listener_core_of(self)};

    (void)raise_error(&c, rv);
    return NULL;
}

/* ---- Making -------------------------------------------------------------------------------- */

enum {
    ADDRESS,
    SOCKOPTS,
    BACKLOG,
    UNIX_MODE,
    UNLINK_STALE,
    TLS,
    MAX_HANDSHAKES,
    RATE,
    BREAKER,
    FALLBACK,
    PROXY_FROM,
    PROXY_TIMEOUT,
    PEER_LIMITS,
    PEERS_EXEMPT
};

/* (family, prefix, address). */
static int
parse_network(PyObject *item, struct hs_network *ret_network)
{
    struct hs_network network = {0};
    Py_ssize_t size;
    char *bits;
    int prefix;

    if (!PyArg_ParseTuple(item, "iiy#;a network must be (family, prefix, bytes)", &network.family,
                          &prefix, &bits, &size))
        return -1;
    if (size > (Py_ssize_t)sizeof(network.bits) || prefix < 0) {
        PyErr_SetString(PyExc_ValueError, "no such network");
        return -1;
    }
    network.prefix = (unsigned)prefix;
    memcpy(network.bits, bits, (size_t)size);
    *ret_network = network;
    return 0;
}

/* A tuple of networks; NULL and None: none. The caller frees *ret_networks, whatever comes back. */
static int
parse_networks(PyObject *obj, const char *name, const struct hs_network **ret_networks,
               size_t *ret_n)
{
    struct hs_network *networks;

    if (obj == NULL || obj == Py_None)
        return 0;
    if (!PyTuple_Check(obj)) {
        PyErr_Format(PyExc_TypeError, "%s must be a tuple or None", name);
        return -1;
    }
    if ((networks = calloc((size_t)PyTuple_GET_SIZE(obj) + 1, sizeof(*networks))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *ret_networks = networks;
    *ret_n = (size_t)PyTuple_GET_SIZE(obj);
    for (size_t i = 0; i < *ret_n; i++)
        if (parse_network(PyTuple_GET_ITEM(obj, (Py_ssize_t)i), &networks[i]) < 0)
            return -1;
    return 0;
}

/* (connections, network_connections, rate, burst, table_size): what hardsock.PeerLimits makes. */
static int
parse_peer_limits(PyObject *obj, struct hs_peer_limits *o)
{
    if (obj == NULL || obj == Py_None)
        return 0;
    return PyArg_ParseTuple(obj, "iiiii;peer_limits must hold five numbers", &o->connections,
                            &o->network_connections, &o->per_s, &o->burst, &o->table_size)
               ? 0
               : -1;
}

static int
listener_parse_options(PyObject **values, struct hs_listen_options *o)
{
    long backlog, mode = HS_UNSET, max_handshakes, rate = 0;
    int stale = values[UNLINK_STALE] == NULL ? 0 : PyObject_IsTrue(values[UNLINK_STALE]);

    hs_listen_options_init(o);
    backlog = o->backlog;
    max_handshakes = o->tls.max_handshakes;
    if (stale < 0 || parse_sockopts(values[SOCKOPTS], &o->sockopts) < 0 ||
        parse_long(values[BACKLOG], "backlog", 0, INT32_MAX, &backlog) < 0 ||
        parse_long(values[MAX_HANDSHAKES], "max_handshakes", 1, 1 << 20, &max_handshakes) < 0)
        return -1;
    if (values[RATE] != NULL && values[RATE] != Py_None &&
        parse_long(values[RATE], "handshake_rate", 1, 1000000000, &rate) < 0)
        return -1;
    if (values[UNIX_MODE] != NULL && values[UNIX_MODE] != Py_None &&
        parse_long(values[UNIX_MODE], "unix_mode", 0, 07777, &mode) < 0)
        return -1;
    o->backlog = (int)backlog;
    o->unix_mode = (int)mode;
    o->unlink_stale = stale != 0;
    o->tls.max_handshakes = (int)max_handshakes;
    o->tls.handshakes_per_s = rate;
    return 0;
}

struct core_open {
    const struct hs_endpoint *ep;
    const struct hs_listen_options *options;
    struct hs_error *err;
    struct hs_listener **ret_core;
    hs_err rv;
};

static void
open_core(void *arg)
{
    struct core_open *o = arg;

    o->rv = hs_listener_open(o->ep, o->options, o->err, o->ret_core);
}

/* An int is the descriptor of a listening socket to own; it is not taken on failure. */
static hs_err
open_listener(PyObject *address, const struct hs_listen_options *options, struct hs_error *err,
              struct hs_listener **ret_core)
{
    struct hs_endpoint ep;
    struct core_open call;
    long fd;

    if (PyLong_Check(address) && !PyBool_Check(address)) {
        if (parse_long(address, "fd", 0, INT32_MAX, &fd) < 0)
            return HS_E_INVALID;
        return hs_listener_adopt((int)fd, options, err, ret_core);
    }
    if (parse_endpoint(address, "address", &ep) < 0)
        return HS_E_INVALID;
    call = (struct core_open){.ep = &ep, .options = options, .err = err, .ret_core = ret_core};
    run_detached(open_core, &call); /* the folder of a unix path may be locked for a moment */
    return call.rv;
}

static int
parse_references(mod_state *st, PyObject **values, struct hs_listen_options *o)
{
    if (breaker_core(st, values[BREAKER], &o->tls.breaker) < 0 ||
        parse_tls(st, values[TLS], "tls", &o->tls.config) < 0 ||
        parse_tls(st, values[FALLBACK], "tls_fallback", &o->tls.fallback) < 0)
        return -1;
    if (values[PROXY_TIMEOUT] != NULL &&
        parse_seconds(values[PROXY_TIMEOUT], "proxy_timeout", &o->proxy.timeout_ns) < 0)
        return -1;
    if (parse_networks(values[PROXY_FROM], "proxy_from", &o->proxy.from, &o->proxy.n_from) < 0 ||
        parse_peer_limits(values[PEER_LIMITS], &o->peers) < 0)
        return -1;
    return parse_networks(values[PEERS_EXEMPT], "peers_exempt", &o->peers.exempt,
                          &o->peers.n_exempt);
}

static void
drop_references(struct hs_listen_options *o)
{
    hs_tls_config_unref(o->tls.config);
    hs_tls_config_unref(o->tls.fallback);
    free((void *)(uintptr_t)o->proxy.from);
    free((void *)(uintptr_t)o->peers.exempt);
}

static void
listening_route(const struct call *c, struct call_route *route)
{
    const struct hs_endpoint *ep = c->about;

    if (ep->family != AF_UNSPEC)
        route->target = &ep->addr;
}

static void
listening_describe(const struct call *c, hs_err Py_UNUSED(code), PyObject *dict)
{
    char text[HS_ADDR_TEXT_SIZE];

    error_put(dict, c->st->str_host, text_object(hs_endpoint_text(c->about, text, sizeof(text))));
}

static const struct call_kind listening_kind = {.route = listening_route,
                                                .describe = listening_describe};

/* The address, which could be parsed before, unless it is a descriptor, is told too. */
static void
listening_failed(mod_state *st, PyObject *address, struct hs_error *err, hs_err rv)
{
    struct call c = {.st = st, .err = err, .started_ns = hs_now()};
    struct hs_endpoint ep;

    if (!PyLong_Check(address)) {
        if (parse_endpoint(address, "address", &ep) == 0) {
            c.kind = &listening_kind;
            c.about = &ep;
        } else {
            PyErr_Clear();
        }
    }
    (void)raise_error(&c, rv);
}

static PyObject *
listener_object_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"Listener",
                                    1,
                                    1,
                                    1,
                                    {"address", "sockopts", "backlog", "unix_mode", "unlink_stale",
                                     "tls", "max_handshakes", "handshake_rate", "tls_breaker",
                                     "tls_fallback", "proxy_from", "proxy_timeout", "peer_limits",
                                     "peers_exempt"}};
    mod_state *st = state_of_type(type);
    PyObject *values[MAX_PARAMS];
    struct hs_listen_options options;
    struct hs_error err = {0};
    struct hs_listener *core;
    struct opening opening;
    ListenerObject *self;
    hs_err rv;

    if (st == NULL || parse_tuple(&p, args, kwargs, values) < 0 ||
        listener_parse_options(values, &options) < 0)
        return NULL;
    if (parse_references(st, values, &options) < 0) {
        drop_references(&options);
        return NULL;
    }
    rv = open_listener(values[ADDRESS], &options, &err, &core);
    drop_references(&options);
    if (rv != HS_OK) {
        if (!PyErr_Occurred())
            listening_failed(st, values[ADDRESS], &err, rv);
        return NULL;
    }
    if ((self = object_new(st, type)) == NULL) {
        hs_listener_unref(core);
        return NULL;
    }
    self->core = core;
    self->opened.kind = &listener_opened_kind;
    opening_begin(st, &opening, OPENED_LISTEN);
    tracking_add(st, &self->opened, &opening, hs_listener_fileno(core));
    opening_end(&opening);
    return (PyObject *)self;
}

/* ---- Accepting ----------------------------------------------------------------------------- */

/* What was accepted and has no object yet, for want of memory, is the listener's: the next call
 * takes it. The list is guarded by the listener's critical section. */

static struct unaccepted *
batch_new(size_t max)
{
    return PyMem_Calloc(1, sizeof(struct unaccepted) + (max - 1) * sizeof(struct hs_conn *));
}

static void
batches_free(struct unaccepted *b)
{
    while (b != NULL) {
        struct unaccepted *next = b->next;

        for (size_t i = b->begin; i < b->end; i++)
            hs_conn_unref(b->conns[i]);
        PyMem_Free(b);
        b = next;
    }
}

/* Takes b. */
static void
keep_left(PyObject *self, struct unaccepted *b)
{
    HS_BEGIN_LOCKED(self);
    b->next = ((ListenerObject *)self)->left;
    ((ListenerObject *)self)->left = b;
    HS_END_LOCKED();
}

static struct unaccepted *
take_left(PyObject *self)
{
    struct unaccepted *b;

    HS_BEGIN_LOCKED(self);
    if ((b = ((ListenerObject *)self)->left) != NULL) {
        ((ListenerObject *)self)->left = b->next;
        b->next = NULL;
    }
    HS_END_LOCKED();
    return b;
}

static void
drop_left(PyObject *self)
{
    struct unaccepted *b;

    while ((b = take_left(self)) != NULL)
        batches_free(b);
}

static hs_err
attempt_accept(struct job *job)
{
    struct accepting *a = &job->u.accepting;

    if (a->batch->begin < a->batch->end)
        return HS_OK; /* Left by an earlier call. */
    return hs_listener_accept(a->core, &job->call.op, a->max, job->call.err, a->batch->conns,
                              &a->batch->end);
}

static void
release_accepting(struct job *job)
{
    struct accepting *a = &job->u.accepting;

    if (a->batch != NULL && a->batch->begin < a->batch->end && !hs_listener_is_closed(a->core))
        keep_left(job->owner, a->batch);
    else
        batches_free(a->batch);
    opening_end(&a->opening);
}

/* A server accepts in a thread or task of its own, where no line of the user's stands. */
static void
begin_opening(PyObject *self, struct opening *o)
{
    ListenerObject *listener = (ListenerObject *)self;

    if (atomic_load(&listener->serves))
        opening_like(o, OPENED_ACCEPT, &listener->opened);
    else
        opening_begin(state_of(self), o, OPENED_ACCEPT);
}

static int
begin_accept(PyObject *self, struct job *job, size_t max, PyObject *timeout, PyObject *token)
{
    struct accepting *a = &job->u.accepting;

    job->owner = Py_NewRef(self);
    job->attempt = attempt_accept;
    job->release = release_accepting;
    a->core = listener_core_of(self);
    a->max = max;
    if (hs_listener_is_closed(a->core) || (a->batch = take_left(self)) == NULL)
        a->batch = batch_new(max);
    if (a->batch == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    begin_opening(self, &a->opening);
    job->call.kind = &listener_kind;
    job->call.about = a->core;
    job->call.is_patient = true;
    return call_begin(&job->call, state_of(self), timeout, token, HS_NEVER);
}

/* The next of the batch; without memory for it it stays there. */
static PyObject *
take_one(struct job *job)
{
    struct accepting *a = &job->u.accepting;
    struct hs_conn *conn = a->batch->conns[a->batch->begin];
    PyObject *obj = conn_object_new(job->call.st, hs_conn_ref(conn), &a->opening);

    if (obj != NULL) {
        a->batch->begin++;
        hs_conn_unref(conn);
    }
    return obj;
}

PyDoc_STRVAR(
    accept_doc,
    "accept($self, /, *, timeout=None, token=None)\n--\n\n"
    "Wait for a connection and return it.\n\n"
    "timeout: seconds to wait; None: as long as scopes allow. token: ends the wait, too.\n"
    "Survives clients that leave at once and want of descriptors (see stats()). Any number\n"
    "of threads may accept at once. Raises DeadlineExceeded, Cancelled or Closed; a client that\n"
    "has come by then stays in the queue for the next call.");

static int
listener_prepare_accept(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                        struct job *job)
{
    static const struct params p = {"accept", 0, 0, 0, {"timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    job->result = take_one;
    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    return begin_accept(self, job, 1, values[0], values[1]);
}

STATIC_JOB_METHODS(listener, accept)

/* As many as there is memory for; an error only if that is none. */
static PyObject *
take_list(struct job *job)
{
    struct accepting *a = &job->u.accepting;
    size_t there = a->batch->end - a->batch->begin;
    Py_ssize_t n = (Py_ssize_t)(there < a->max ? there : a->max), made = 0;
    PyObject *list = hs_list_new(n), *item;

    for (; list != NULL && made < n && (item = take_one(job)) != NULL; made++)
        PyList_SET_ITEM(list, made, item);
    if (list == NULL || made == n)
        return list;
    if (made == 0)
        Py_CLEAR(list);
    else {
        PyErr_Clear();
        Py_SET_SIZE(list, made); /* It is nobody else's yet, and the rest of it is empty. */
    }
    return list;
}

PyDoc_STRVAR(accept_many_doc,
             "accept_many($self, max_count, /, *, timeout=None, token=None)\n--\n\n"
             "Wait for a connection, then take all that are there, at most max_count; a list.\n\n"
             "Raises as accept() does. With little memory the list is shorter, and the next call\n"
             "returns the rest; MemoryError: not even one, and none is lost.");

static int
listener_prepare_accept_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames, struct job *job)
{
    static const struct params p = {"accept_many", 1, 1, 1, {"max_count", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];
    long max;

    job->result = take_list;
    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[0], "max_count", 1, MAX_BATCH, &max) < 0)
        return -1;
    return begin_accept(self, job, (size_t)max, values[1], values[2]);
}

STATIC_JOB_METHODS(listener, accept_many)

static hs_err
listener_attempt_tend(struct job *job)
{
    return hs_listener_tend(job->u.accepting.core, &job->call.op, job->call.err);
}

PyDoc_STRVAR(tend_doc, "_tend($self, /, *, timeout=None, token=None)\n--\n\n"
                       "Move the handshakes and PROXY headers that have begun, and no others.\n\n"
                       "For a server that is full. Ends by its deadline or token only.");

static int
listener_prepare__tend(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                       struct job *job)
{
    static const struct params p = {"_tend", 0, 0, 0, {"timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    job->result = take_list;
    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        begin_accept(self, job, 1, values[0], values[1]) < 0)
        return -1;
    job->attempt = listener_attempt_tend;
    return 0;
}

STATIC_JOB_METHODS(listener, _tend)

PyDoc_STRVAR(last_call_doc,
             "_last_call($self, /)\n--\n\n"
             "Who is in the kernel's queue now is accepted yet, nobody else: accept raises Closed\n"
             "after them, or with TLS once no handshake has begun that is not over.");

static PyObject *
listener_last_call(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    hs_listener_last_call(listener_core_of(self));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(hand_over_doc,
             "_hand_over($self, /)\n--\n\n"
             "Another process listens on with the same socket: accept raises Closed, and the path\n"
             "of a unix socket stays.");

static PyObject *
listener_hand_over(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    hs_listener_hand_over(listener_core_of(self));
    Py_RETURN_NONE;
}

static PyObject *
listener_next(PyObject *self)
{
    PyObject *conn = listener_accept(self, NULL, 0, NULL);

    if (conn == NULL && hs_listener_is_closed(listener_core_of(self)) &&
        PyErr_ExceptionMatches(state_of(self)->closed))
        PyErr_Clear(); /* Closing ends the iteration. */
    return conn;
}

/* ---- Life ---------------------------------------------------------------------------------- */

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Close; wakes all threads that accept (they raise Closed). Idempotent.\n\n"
                        "The path of a unix socket that it made is removed.");

static void
listener_close_detached(void *core)
{
    hs_listener_close(core);
}

/* The folder of a unix path may be locked for a moment, as at the beginning. */
static void
close_core(PyObject *self)
{
    run_waiting(state_of(self), listener_close_detached, listener_core_of(self));
}

static PyObject *
listener_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    close_core(self);
    drop_left(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(detach_doc, "detach($self, /)\n--\n\n"
                         "Give the descriptor to the caller, who must close it. Busy while a\n"
                         "thread accepts.");

static PyObject *
listener_detach(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct hs_error err = {0};
    int fd;
    hs_err rv = hs_listener_detach(listener_core_of(self), &err, &fd);

    if (rv != HS_OK)
        return listener_fail(self, &err, rv);
    drop_left(self);
    return PyLong_FromLong(fd);
}

PyDoc_STRVAR(serves_doc, "_serves($self, /)\n--\n\n"
                         "What it accepts from now on counts as made where the listener was.");

static PyObject *
listener_serves(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    atomic_store(&((ListenerObject *)self)->serves, true);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(fileno_doc, "fileno($self, /)\n--\n\nThe descriptor's number, -1 when closed.");

static PyObject *
listener_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(hs_listener_fileno(listener_core_of(self)));
}

PyDoc_STRVAR(wait_fileno_doc,
             "_wait_fileno($self, /)\n--\n\n"
             "What is readable when accept() has something to do; -1 when closed.");

static PyObject *
listener_wait_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(hs_listener_wait_fileno(listener_core_of(self)));
}

PyDoc_STRVAR(to_socket_doc, "to_socket($self, /)\n--\n\n"
                            "This listener as server code expects a listening socket: a\n"
                            "ListenerSocket, whose accept() returns (conn, address).");

static PyObject *
listener_to_socket(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *module = PyImport_ImportModule("hardsock.listening.listener_socket");
    PyObject *made =
        module == NULL ? NULL : PyObject_CallMethod(module, "ListenerSocket", "O", self);

    Py_XDECREF(module);
    return made;
}

PyDoc_STRVAR(getsockname_doc, "getsockname($self, /)\n--\n\n"
                              "The address it listens on, as socket has it.");

static PyObject *
listener_getsockname(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct hs_error err = {0};
    struct hs_addr addr;
    hs_err rv = hs_listener_addr(listener_core_of(self), &err, &addr);

    return rv == HS_OK ? address_object(&addr) : listener_fail(self, &err, rv);
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nReturn the listener itself.");
PyDoc_STRVAR(exit_doc, "__exit__($self, *exc_info)\n--\n\nClose the listener.");

static PyObject *
listener_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static PyObject *
listener_exit(PyObject *self, PyObject *Py_UNUSED(args))
{
    return listener_close(self, NULL);
}

/* ---- Asking -------------------------------------------------------------------------------- */

static PyObject *
int_or_none(int value)
{
    if (value == HS_UNSET)
        Py_RETURN_NONE;
    return PyLong_FromLong(value);
}

static PyObject *
failures_dict(const struct hs_handshake_stats *s)
{
    PyObject *dict = PyDict_New();

    for (int i = HS_TLS_NONE + 1; dict != NULL && i < HS_TLS_FAILURES; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(s->failed[i]);

        if (count == NULL ||
            PyDict_SetItemString(dict, hs_tls_failure_name((enum hs_tls_failure)i), count) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(count);
    }
    return dict;
}

static PyObject *
handshakes_object(mod_state *st, const struct hs_listener_stats *s)
{
    if (!s->tls)
        Py_RETURN_NONE;
    return PyObject_CallFunction(
        st->handshake_stats, "KKKKKN", (unsigned long long)s->handshakes.started,
        (unsigned long long)s->handshakes.completed, (unsigned long long)s->handshakes.in_progress,
        (unsigned long long)s->handshakes.silent, (unsigned long long)s->handshakes.fallback,
        failures_dict(&s->handshakes));
}

static PyObject *
proxy_object(mod_state *st, const struct hs_listener_stats *s)
{
    if (!s->proxied)
        Py_RETURN_NONE;
    return PyObject_CallFunction(
        st->proxy_stats, "KKKKK", (unsigned long long)s->proxy.headers,
        (unsigned long long)s->proxy.local, (unsigned long long)s->proxy.malformed,
        (unsigned long long)s->proxy.timeout, (unsigned long long)s->proxy.ended);
}

static PyObject *
peers_object(mod_state *st, const struct hs_listener_stats *s)
{
    if (!s->peers_limited)
        Py_RETURN_NONE;
    return PyObject_CallFunction(
        st->peer_stats, "KKKKK", (unsigned long long)s->peers.refused_connections,
        (unsigned long long)s->peers.refused_network, (unsigned long long)s->peers.refused_rate,
        (unsigned long long)s->peers.untracked, (unsigned long long)s->peers.tracked);
}

PyDoc_STRVAR(stats_doc, "stats($self, /)\n--\n\n"
                        "Counters by reason, the backlog asked for and in effect, and how many\n"
                        "connections wait to be accepted now.");

static PyObject *
listener_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct hs_listener_stats s;

    hs_listener_stats(listener_core_of(self), &s);
    return PyObject_CallFunction(
        state_of(self)->listener_stats, "KKKKKKKNNNNNN", (unsigned long long)s.accepted,
        (unsigned long long)s.shed, (unsigned long long)s.exhausted, (unsigned long long)s.aborted,
        (unsigned long long)s.network_errors, (unsigned long long)s.denied,
        (unsigned long long)s.unverified, int_or_none(s.backlog_asked),
        int_or_none(s.backlog_effective), int_or_none(s.queue_length),
        handshakes_object(state_of(self), &s), proxy_object(state_of(self), &s),
        peers_object(state_of(self), &s));
}

PyDoc_STRVAR(audit_doc, "audit($self, /)\n--\n\n"
                        "List every socket setting: asked, in effect, and what limited it.");

static PyObject *
listener_audit(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct hs_setting settings[HS_SETTINGS_MAX];
    struct hs_error err = {0};
    size_t n;
    hs_err rv = hs_listener_audit(listener_core_of(self), settings, &err, &n);

    return rv == HS_OK ? settings_list(state_of(self), settings, n) : listener_fail(self, &err, rv);
}

static PyObject *
listener_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(hs_listener_is_closed(listener_core_of(self)));
}

static PyObject *
get_address(PyObject *self, void *Py_UNUSED(closure))
{
    return listener_getsockname(self, NULL);
}

static PyObject *
listener_repr(PyObject *self)
{
    char text[HS_ADDR_TEXT_SIZE];
    struct hs_addr addr;

    if (hs_listener_addr(listener_core_of(self), NULL, &addr) != HS_OK)
        return PyUnicode_FromString("<hardsock.Listener closed>");
    return PyUnicode_FromFormat("<hardsock.Listener fd=%d %s>",
                                hs_listener_fileno(listener_core_of(self)),
                                hs_addr_text(&addr, text, sizeof(text)));
}

static void
listener_finalize(PyObject *self)
{
    PyObject *type, *value, *traceback;

    if (listener_core_of(self) == NULL || hs_listener_is_closed(listener_core_of(self)))
        return;
    PyErr_Fetch(&type, &value, &traceback);
    tracking_warn(&((ListenerObject *)self)->opened, self);
    tracking_thrown_away(state_of(self), &((ListenerObject *)self)->opened, self);
    close_core(self);
    PyErr_Restore(type, value, traceback);
}

static void
listener_dealloc(PyObject *self)
{
    if (PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    if (((ListenerObject *)self)->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    tracking_remove(state_of(self), &((ListenerObject *)self)->opened);
    batches_free(((ListenerObject *)self)->left);
    hs_listener_unref(listener_core_of(self));
    object_free(self);
}

static int
listener_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    Py_VISIT(((ListenerObject *)self)->opened.owner);
    return 0;
}

static PyGetSetDef listener_getset[] = {
    {"closed", listener_get_closed, NULL, "Whether it was closed.", NULL},
    {"address", get_address, NULL, "The address it listens on, as socket has it.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef listener_methods[] = {
    {"accept", HS_METHOD(listener_accept), METH_FASTCALL | METH_KEYWORDS, accept_doc},
    {"_op_accept", HS_METHOD(listener_op_accept), METH_FASTCALL | METH_KEYWORDS, OP_DOC("accept")},
    {"accept_many", HS_METHOD(listener_accept_many), METH_FASTCALL | METH_KEYWORDS,
     accept_many_doc},
    {"_op_accept_many", HS_METHOD(listener_op_accept_many), METH_FASTCALL | METH_KEYWORDS,
     OP_DOC("accept_many")},
    {"_tend", HS_METHOD(listener__tend), METH_FASTCALL | METH_KEYWORDS, tend_doc},
    {"_op__tend", HS_METHOD(listener_op__tend), METH_FASTCALL | METH_KEYWORDS, OP_DOC("_tend")},
    {"_last_call", listener_last_call, METH_NOARGS, last_call_doc},
    {"_hand_over", listener_hand_over, METH_NOARGS, hand_over_doc},
    {"close", listener_close, METH_NOARGS, close_doc},
    {"detach", listener_detach, METH_NOARGS, detach_doc},
    {"_serves", listener_serves, METH_NOARGS, serves_doc},
    {"fileno", listener_fileno, METH_NOARGS, fileno_doc},
    {"_wait_fileno", listener_wait_fileno, METH_NOARGS, wait_fileno_doc},
    {"to_socket", listener_to_socket, METH_NOARGS, to_socket_doc},
    {"getsockname", listener_getsockname, METH_NOARGS, getsockname_doc},
    {"stats", listener_stats, METH_NOARGS, stats_doc},
    {"audit", listener_audit, METH_NOARGS, audit_doc},
    {"__enter__", listener_enter, METH_NOARGS, enter_doc},
    {"__exit__", listener_exit, METH_VARARGS, exit_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(listener_doc, "Listener(address, /, *, sockopts=None, backlog=4096, unix_mode=None, "
                           "unlink_stale=False, tls=None, max_handshakes=256, handshake_rate=None, "
                           "tls_breaker=None, tls_fallback=None, proxy_from=None, "
                           "proxy_timeout=5.0, peer_limits=None, peers_exempt=None)\n--\n\n"
                           "A listening stream socket; see hardsock.listen, which makes them.\n\n"
                           "Any number of threads may accept, and any may close it: that wakes\n"
                           "them. In a forked child it only closes.");

static PyMemberDef listener_members[] = {
    {"__weaklistoffset__", HS_T_PYSSIZET, offsetof(ListenerObject, weakrefs), HS_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot listener_slots[] = {
    {Py_tp_new, HS_SLOT(listener_object_new)},
    {Py_tp_dealloc, HS_SLOT(listener_dealloc)},
    {Py_tp_finalize, HS_SLOT(listener_finalize)},
    {Py_tp_traverse, HS_SLOT(listener_traverse)},
    {Py_tp_repr, HS_SLOT(listener_repr)},
    {Py_tp_iter, HS_SLOT(PyObject_SelfIter)},
    {Py_tp_iternext, HS_SLOT(listener_next)},
    {Py_tp_methods, listener_methods},
    {Py_tp_getset, listener_getset},
    {Py_tp_members, listener_members},
    {Py_tp_doc, (void *)(uintptr_t)listener_doc},
    {0, NULL},
};

PyType_Spec listener_spec = {
    .name = "hardsock.Listener",
    .basicsize = sizeof(ListenerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = listener_slots,
};
