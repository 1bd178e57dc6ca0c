/* type_pool.c: the type Pool: making, lending, giving back, ending.
 *
 * hardsock.Pool is a Python subclass that adds what need not be fast. The object owns one reference
 * to the core pool; every lent Connection holds the object, so that it outlives its leases.
 */
#include "binding/connect/breaker.h"
#include "binding/stream/conn.h"
#include "binding/stream/tls.h"

#include <string.h>

/* ---- Making -------------------------------------------------------------------------------- */

enum kind { SIZE, SPAN, PERCENT, FLAG, BYTES };

struct setting {
    const char *name;
    enum kind kind;
    size_t offset, length; /* length: of BYTES, where it goes */
};

#define AT(field) offsetof(struct hs_pool_options, field)

static const struct setting settings[] = {
    {"max_size", SIZE, AT(max_size), 0},
    {"max_per_endpoint", SIZE, AT(max_per_endpoint), 0},
    {"min_idle", SIZE, AT(min_idle), 0},
    {"max_idle", SIZE, AT(max_idle), 0},
    {"max_waiting", SIZE, AT(max_waiting), 0},
    {"max_dials", SIZE, AT(max_dials), 0},
    {"dial_interval", SPAN, AT(dial_interval_ns), 0},
    {"dial_timeout", SPAN, AT(dial_timeout_ns), 0},
    {"backoff_min", SPAN, AT(backoff_min_ns), 0},
    {"backoff_max", SPAN, AT(backoff_max_ns), 0},
    {"idle_timeout", SPAN, AT(idle_timeout_ns), 0},
    {"max_lifetime", SPAN, AT(max_lifetime_ns), 0},
    {"lifetime_jitter", PERCENT, AT(lifetime_jitter), 0},
    {"probe_after", SPAN, AT(probe_after_ns), 0},
    {"leak_after", SPAN, AT(overdue_after_ns), 0},
    {"ping_after", SPAN, AT(ping_after_ns), 0},
    {"ping_timeout", SPAN, AT(ping_timeout_ns), 0},
    {"ping", BYTES, AT(ping), AT(ping_len)},
    {"pong", BYTES, AT(pong), AT(pong_len)},
    {"reuse_answered", FLAG, AT(reuse), 0},
    {"oldest_first", FLAG, AT(oldest_first), 0},
    {"keep_trying", FLAG, AT(keep_trying), 0},
    {"refuse_deadlock", FLAG, AT(refuse_deadlock), 0},
};

static int
set_bytes(const struct setting *s, PyObject *value, char *options)
{
    Py_ssize_t n = PyBytes_Check(value) ? PyBytes_GET_SIZE(value) : -1;

    if (n < 0 || n > HS_PING_MAX) {
        PyErr_Format(PyExc_ValueError, "%s must be at most %d bytes", s->name, HS_PING_MAX);
        return -1;
    }
    memcpy(options + s->offset, PyBytes_AS_STRING(value), (size_t)n);
    *(size_t *)(void *)(options + s->length) = (size_t)n;
    return 0;
}

/* None leaves a size at its default, and makes a span endless. */
static int
set_one(const struct setting *s, PyObject *value, char *options)
{
    long number = 0;
    int flag;

    switch (s->kind) {
    case SPAN:
        return parse_seconds(value, s->name, (int64_t *)(void *)(options + s->offset));
    case SIZE:
        if (value == Py_None)
            return 0;
        if (parse_long(value, s->name, 0, INT32_MAX, &number) < 0)
            return -1;
        *(size_t *)(void *)(options + s->offset) = (size_t)number;
        return 0;
    case PERCENT:
        if (parse_long(value, s->name, 0, 100, &number) < 0)
            return -1;
        *(int *)(void *)(options + s->offset) = (int)number;
        return 0;
    case FLAG:
        if ((flag = PyObject_IsTrue(value)) < 0)
            return -1;
        if (s->offset == AT(reuse))
            *(enum hs_pool_reuse *)(void *)(options + s->offset) =
                flag ? HS_REUSE_ANSWERED : HS_REUSE_MARKED;
        else
            *(bool *)(options + s->offset) = flag != 0;
        return 0;
    case BYTES:
        return value == Py_None ? 0 : set_bytes(s, value, options);
    }
    Py_UNREACHABLE();
}

static int
set_all(PyObject *dict, struct hs_pool_options *o)
{
    PyObject *name, *value;
    Py_ssize_t pos = 0;

    while (PyDict_Next(dict, &pos, &name, &value)) {
        size_t i = 0;

        while (i < Py_ARRAY_LENGTH(settings) &&
               PyUnicode_CompareWithASCIIString(name, settings[i].name) != 0)
            i++;
        if (i == Py_ARRAY_LENGTH(settings)) {
            PyErr_Format(PyExc_TypeError, "unknown setting %R", name);
            return -1;
        }
        if (set_one(&settings[i], value, (char *)o) < 0)
            return -1;
    }
    return 0;
}

static int
parse_addresses(PyObject *tuple, struct hs_endpoint **ret_endpoints)
{
    Py_ssize_t n = PyTuple_Check(tuple) ? PyTuple_GET_SIZE(tuple) : 0;
    struct hs_endpoint *endpoints;

    if (n == 0) {
        PyErr_SetString(PyExc_TypeError, "addresses must be a tuple of addresses");
        return -1;
    }
    if ((endpoints = PyMem_Calloc((size_t)n, sizeof(*endpoints))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++)
        if (parse_endpoint(PyTuple_GET_ITEM(tuple, i), "address", &endpoints[i]) < 0) {
            PyMem_Free(endpoints);
            return -1;
        }
    *ret_endpoints = endpoints;
    return 0;
}

static int
make_core(mod_state *st, PyObject **values, const struct hs_pool_opening *opening,
          struct hs_pool **ret_core)
{
    struct hs_endpoint *endpoints = NULL;
    struct hs_tls_config *tls = NULL;
    PyObject *name = NULL;
    struct hs_pool_options o;
    struct hs_error err = {0};
    hs_err rv = HS_E_INVALID;

    hs_pool_options_init(&o);
    if (!PyDict_Check(values[1]) || !PyDict_Check(values[2])) {
        PyErr_SetString(PyExc_TypeError, "settings and connect must be dicts");
        return -1;
    }
    if (connect_options(st, values[2], &o.connect, &tls, &name) == 0 &&
        set_all(values[1], &o) == 0 && parse_addresses(values[0], &endpoints) == 0) {
        rv = hs_pool_new_at(endpoints, (size_t)PyTuple_GET_SIZE(values[0]), &o, opening, &err,
                            ret_core);
        if (rv != HS_OK)
            (void)raise_plain_error(st, &err, rv);
    }
    PyMem_Free(endpoints);
    hs_tls_config_unref(tls);
    Py_XDECREF(name);
    return rv == HS_OK ? 0 : -1;
}

/* For those who look without the interpreter. */
static int
make_core_here(mod_state *st, PyObject **values, struct hs_pool **ret_core)
{
    PyObject *name = values[7], *text = NULL;
    struct hs_pool_opening opening = {
        .thread = PyThread_get_thread_ident(), .name = "", .named = values[8] == Py_True};
    struct call_site site;
    int done;

    if (name != NULL && PyUnicode_Check(name))
        text = PyUnicode_AsEncodedString(name, "utf-8", "backslashreplace");
    if (text != NULL)
        opening.name = PyBytes_AS_STRING(text);
    if (!call_site_outside(st, &site))
        site = (struct call_site){0};
    opening.site = call_site_intern(st, &site);
    PyErr_Clear(); /* Want of memory for a name fails no pool. */
    done = make_core(st, values, &opening, ret_core);
    Py_XDECREF(text);
    return done;
}

static PyObject *
pool_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"Pool",
                                    3,
                                    3,
                                    3,
                                    {"addresses", "settings", "connect", "hooked", "prepares",
                                     "trace_frames", "trace_every", "name", "named"}};
    mod_state *st = state_of_type(type);
    PyObject *values[MAX_PARAMS];
    long frames = 0, every = 0;
    PoolObject *self;
    int hooked, prepares;

    if (st == NULL || parse_tuple(&p, args, kwargs, values) < 0 ||
        parse_long(values[5], "trace_frames", 0, 1000, &frames) < 0 ||
        parse_long(values[6], "trace_every", 0, INT32_MAX, &every) < 0)
        return NULL;
    hooked = values[3] == NULL ? 0 : PyObject_IsTrue(values[3]);
    prepares = values[4] == NULL ? 0 : PyObject_IsTrue(values[4]);
    if (hooked < 0 || prepares < 0 || (self = object_new(st, type)) == NULL)
        return NULL;
    self->hooked = hooked != 0 || prepares != 0;
    self->prepares = prepares != 0;
    self->trace_frames = (int)frames;
    self->trace_every = every;
    if ((self->traces = PyDict_New()) == NULL || make_core_here(st, values, &self->core) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* ---- Lending ------------------------------------------------------------------------------- */

static PyObject *
pool_op_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return operation_start(pool_prepare_acquire, self, args, nargs, kwnames);
}

PyDoc_STRVAR(
    acquire_doc,
    "acquire($self, /, *, timeout=None, token=None)\n--\n\n"
    "Borrow a connection; give it back with release(), whatever happens.\n\n"
    "*timeout*, in seconds, is for everything: waiting in the queue, asking whether an idle\n"
    "connection is alive, dialling, TLS. Callers are served in the order of arrival.\n\n"
    "Raises PoolTimeout (who holds what is in it), Cancelled, Closed, PoolRefused, and what\n"
    "dialling raises, when that failed and nothing else could serve this caller.");

static PyObject *
pool_acquire_plain(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"acquire", 0, 0, 0, {"timeout", "token"}};
    PoolObject *pool = (PoolObject *)self;
    PyObject *values[MAX_PARAMS];

    if (nargs == 0 && kwnames == NULL)
        return pool_borrow(pool, NULL, NULL);
    if (nargs == 0 && PyTuple_GET_SIZE(kwnames) == 1 &&
        PyTuple_GET_ITEM(kwnames, 0) == pool->st->str_timeout) /* The usual call. */
        return pool_borrow(pool, args[0], NULL);
    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    return pool_borrow(pool, values[0], values[1]);
}

static PyObject *
pool_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"acquire", 0, 0, 0, {"timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    if (!((PoolObject *)self)->prepares)
        return pool_acquire_plain(self, args, nargs, kwnames);
    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    return PyObject_CallMethod(self, "_acquire_prepared", "OO",
                               values[0] != NULL ? values[0] : Py_None,
                               values[1] != NULL ? values[1] : Py_None);
}

PyDoc_STRVAR(acquire_plain_doc, "_acquire($self, /, *, timeout=None, token=None)\n--\n\n"
                                "As acquire(), without hooks.");

PyDoc_STRVAR(deadline_doc, "_deadline(timeout, /)\n--\n\n"
                           "The time.monotonic() at which timeout= of a call ends, or None.");

/* So that a call made of several core calls has the checks, and the end, of one. */
static PyObject *
pool_deadline(PyObject *Py_UNUSED(self), PyObject *timeout)
{
    int64_t span;

    if (parse_seconds(timeout, "timeout", &span) < 0)
        return NULL;
    if (span == HS_NEVER)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)hs_deadline_after(span) / 1e9);
}

PyDoc_STRVAR(connection_doc,
             "connection($self, /, *, timeout=None, token=None)\n--\n\n"
             "Borrow a connection for a with block; parameters and errors as acquire().\n\n"
             "It is returned at the end of the block. If that ends by an exception, it is lent\n"
             "again only if nothing went on it since it was lent, or marked clean.");

static PyObject *
pool_connection(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"connection", 0, 0, 0, {"timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    return borrowing_new((PoolObject *)self, values[0], values[1]);
}

/* ---- Giving back --------------------------------------------------------------------------- */

PyDoc_STRVAR(
    release_doc,
    "release($self, conn, /, *, failed=False, discard=False)\n--\n\n"
    "Give a connection back that this pool lent; *conn* is closed for its holder from now on.\n\n"
    "It is lent again if that is safe; see PoolOptions.reuse. *failed*: the caller stopped in\n"
    "the middle of something. *discard*: close it in any case. Never blocks.\n\n"
    "After close(), abort() or detach() there is nothing left to do. Raises ValueError for a\n"
    "connection that is another pool's, or was returned before.");

static PyObject *
release_as(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, bool resets)
{
    static const struct params p = {"release", 1, 1, 1, {"conn", "failed", "discard"}};
    PyObject *values[MAX_PARAMS];
    int failed, discard;

    if (nargs == 1 && kwnames == NULL && !resets)
        return pool_return((PoolObject *)self, args[0], HS_RETURN_DONE);
    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    failed = values[1] == NULL ? 0 : PyObject_IsTrue(values[1]);
    discard = values[2] == NULL ? 0 : PyObject_IsTrue(values[2]);
    if (failed < 0 || discard < 0)
        return NULL;
    if (resets)
        return PyObject_CallMethod(self, "_release_reset", "OOO", values[0],
                                   failed ? Py_True : Py_False, discard ? Py_True : Py_False);
    return pool_return((PoolObject *)self, values[0],
                       discard  ? HS_RETURN_DISCARD
                       : failed ? HS_RETURN_FAILED
                                : HS_RETURN_DONE);
}

static PyObject *
pool_release(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return release_as(self, args, nargs, kwnames, ((PoolObject *)self)->prepares);
}

PyDoc_STRVAR(release_plain_doc, "_release($self, conn, /, *, failed=False, discard=False)\n--\n\n"
                                "As release(), without hooks.");

static PyObject *
pool_release_plain(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return release_as(self, args, nargs, kwnames, false);
}

PyDoc_STRVAR(check_failed_doc, "_check_failed($self, conn, /)\n--\n\n"
                               "Give it back as one that a check or a hook did not accept.");

static PyObject *
pool_check_failed(PyObject *self, PyObject *conn)
{
    return pool_return((PoolObject *)self, conn, HS_RETURN_CHECK);
}

/* ---- Waiting for what happens -------------------------------------------------------------- */

static hs_err
attempt_await_closed(struct job *job)
{
    return hs_pool_await_closed(job->u.borrowing.core, &job->call.op, job->call.err);
}

static hs_err
attempt_drain(struct job *job)
{
    return hs_pool_drain(job->u.borrowing.core, &job->call.op, job->call.err);
}

static PyObject *
take_none(struct job *Py_UNUSED(job))
{
    Py_RETURN_NONE;
}

static int
prepare_waiting(PyObject *obj, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                struct job *job, const char *name)
{
    PoolObject *self = (PoolObject *)obj;
    const struct params p = {name, 0, 0, 0, {"timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    job->owner = Py_NewRef(obj);
    job->u.borrowing.core = self->core;
    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    return call_begin(&job->call, self->st, values[0], values[1], HS_NEVER);
}

#define WAITING(name, take)                                                                        \
    static int pool_prepare_##name(PyObject *self, PyObject *const *args, Py_ssize_t nargs,        \
                                   PyObject *kwnames, struct job *job)                             \
    {                                                                                              \
        job->attempt = attempt_##name;                                                             \
        job->result = take;                                                                        \
        return prepare_waiting(self, args, nargs, kwnames, job, #name);                            \
    }                                                                                              \
    STATIC_JOB_METHODS(pool, name)

WAITING(await_closed, take_none)
WAITING(drain, take_none)

PyDoc_STRVAR(await_closed_doc, "_await_closed($self, /, *, timeout=None, token=None)\n--\n\n"
                               "Wait until a closed pool has nothing open.");
PyDoc_STRVAR(drain_doc,
             "drain($self, /, *, timeout=None, token=None)\n--\n\n"
             "Replace every connection: evict(), then wait until all that were open are closed.\n\n"
             "The pool goes on meanwhile, with new ones. Raises DeadlineExceeded while some are\n"
             "still lent (see lent()), and Cancelled; they are closed at their return all the\n"
             "same.");

/* ---- Life ---------------------------------------------------------------------------------- */

static void
pool_close_detached(void *core)
{
    hs_pool_close(core);
}

PyDoc_STRVAR(close_doc, "_close($self, /)\n--\n\nSee hardsock.Pool.close; never blocks.");

static PyObject *
pool_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    run_detached(pool_close_detached, ((PoolObject *)self)->core);
    Py_RETURN_NONE;
}

static void
abort_detached(void *core)
{
    hs_pool_abort_lent(core);
}

PyDoc_STRVAR(abort_lent_doc, "_abort_lent($self, /)\n--\n\nReset all that is lent.");

static PyObject *
pool_abort_lent(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    run_detached(abort_detached, ((PoolObject *)self)->core);
    Py_RETURN_NONE;
}

static void
pool_evict_detached(void *core)
{
    hs_pool_evict(core);
}

PyDoc_STRVAR(evict_doc, "evict($self, /)\n--\n\n"
                        "Close idle connections now, and lent ones when they are returned.");

static PyObject *
pool_evict(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    run_detached(pool_evict_detached, ((PoolObject *)self)->core);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(resize_doc,
             "resize($self, max_size, /)\n--\n\n"
             "Allow so many connections from now on. Idle ones beyond are closed at once, lent\n"
             "ones when they are returned; with room for more, who waits gets one.\n\n"
             "Raises ValueError if it contradicts the other options.");

static PyObject *
pool_resize(PyObject *obj, PyObject *size)
{
    PoolObject *self = (PoolObject *)obj;
    struct hs_error err = {0};
    long max_size;
    hs_err rv;

    if (parse_long(size, "max_size", 1, INT32_MAX, &max_size) < 0)
        return NULL;
    if ((rv = hs_pool_resize(self->core, (size_t)max_size, &err)) != HS_OK) {
        (void)raise_plain_error(self->st, &err, rv);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
pool_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(hs_pool_is_closed(((PoolObject *)self)->core));
}

static PyObject *
get_traces(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((PoolObject *)self)->traces);
}

static void
release_code(const void *code)
{
    Py_DECREF((PyObject *)(uintptr_t)code);
}

/* First the alarm, which borrows the callable and the places of borrowers. */
static int
pool_clear(PyObject *obj)
{
    PoolObject *self = (PoolObject *)obj;
    struct hs_alarm *alarm = self->alarm;

    self->alarm = NULL;
    hs_alarm_end(alarm);
    Py_CLEAR(self->on_overdue);
    return 0;
}

static void
pool_dealloc(PyObject *obj)
{
    PoolObject *self = (PoolObject *)obj;

    PyObject_GC_UnTrack(obj);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(obj);
    (void)pool_clear(obj);
    if (self->core != NULL) {
        run_detached(pool_close_detached, self->core);
        hs_pool_forget_sites(self->core, release_code);
        hs_pool_unref(self->core);
    }
    Py_CLEAR(self->traces);
    object_free(obj);
}

static int
pool_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    Py_VISIT(((PoolObject *)self)->traces);
    Py_VISIT(((PoolObject *)self)->on_overdue);
    return 0;
}

static PyGetSetDef pool_getset[] = {
    {"closed", pool_get_closed, NULL, "Whether it was closed.", NULL},
    {"_traces", get_traces, NULL, "Lease id to a tuple of (code, offset), outward.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define WAITING_ENTRY(py_name, name)                                                               \
    {                                                                                              \
        py_name, HS_METHOD(pool_##name), METH_FASTCALL | METH_KEYWORDS, name##_doc                 \
    }
#define REPORT_ENTRY(name) {#name, pool##name, METH_NOARGS, pool##name##_doc},

static PyMethodDef pool_methods[] = {
    {"acquire", HS_METHOD(pool_acquire), METH_FASTCALL | METH_KEYWORDS, acquire_doc},
    {"_acquire", HS_METHOD(pool_acquire_plain), METH_FASTCALL | METH_KEYWORDS, acquire_plain_doc},
    {"_deadline", pool_deadline, METH_O | METH_STATIC, deadline_doc},
    {"_op_acquire", HS_METHOD(pool_op_acquire), METH_FASTCALL | METH_KEYWORDS, OP_DOC("acquire")},
    {"connection", HS_METHOD(pool_connection), METH_FASTCALL | METH_KEYWORDS, connection_doc},
    {"release", HS_METHOD(pool_release), METH_FASTCALL | METH_KEYWORDS, release_doc},
    {"_release", HS_METHOD(pool_release_plain), METH_FASTCALL | METH_KEYWORDS, release_plain_doc},
    {"_check_failed", pool_check_failed, METH_O, check_failed_doc},
    WAITING_ENTRY("drain", drain),
    {"_op_drain", HS_METHOD(pool_op_drain), METH_FASTCALL | METH_KEYWORDS, OP_DOC("drain")},
    WAITING_ENTRY("_await_closed", await_closed),
    {"_op_await_closed", HS_METHOD(pool_op_await_closed), METH_FASTCALL | METH_KEYWORDS,
     OP_DOC("await_closed")},
    {"_on_overdue", pool_on_overdue, METH_O, pool_on_overdue_doc},
    {"_close", pool_close, METH_NOARGS, close_doc},
    {"_abort_lent", pool_abort_lent, METH_NOARGS, abort_lent_doc},
    {"evict", pool_evict, METH_NOARGS, evict_doc},
    {"resize", pool_resize, METH_O, resize_doc},
    POOL_REPORTS(REPORT_ENTRY){NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(pool_doc, "Pool(addresses, settings, connect, /, *, hooked=False, prepares=False, "
                       "trace_frames=0, trace_every=0, name=None, named=False)\n--\n\n"
                       "The core of hardsock.Pool.");

static PyMemberDef pool_members[] = {
    {"__weaklistoffset__", HS_T_PYSSIZET, offsetof(PoolObject, weakrefs), HS_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_new, HS_SLOT(pool_new)},
    {Py_tp_dealloc, HS_SLOT(pool_dealloc)},
    {Py_tp_traverse, HS_SLOT(pool_traverse)},
    {Py_tp_clear, HS_SLOT(pool_clear)},
    {Py_tp_methods, pool_methods},
    {Py_tp_getset, pool_getset},
    {Py_tp_members, pool_members},
    {Py_tp_doc, (void *)(uintptr_t)pool_doc},
    {0, NULL},
};

PyType_Spec pool_spec = {
    .name = "hardsock._core.Pool",
    .basicsize = sizeof(PoolObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_BASETYPE,
    .slots = pool_slots,
};
