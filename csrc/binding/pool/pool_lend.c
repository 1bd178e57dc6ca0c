/* pool_lend.c: how a Pool lends a Connection, and takes it back.
 *
 * Lending first tries what takes no waiting, attached, with one short lock in the core; a token or
 * an ambient scope, and whatever has to wait, make it a job. The Connection object is made before
 * anything is lent: want of memory loses nothing.
 *
 * The call sites of borrowers are code objects, to which the core's table holds references of ours:
 * hs_pool_know_site says when it keeps one. They go with the Pool object.
 */
#include "binding/stream/conn.h"

#include <stdio.h>

/* The call site as the core knows it; unknown: code NULL. */
static void
know_call_site(PoolObject *self, struct hs_holder *holder, struct call_site *site)
{
    if (!call_site_outside(self->st, site))
        *site = (struct call_site){0};
    holder->code = site->code;
    holder->at = site->at;
    if (site->code != NULL &&
        hs_pool_know_site(self->core, holder, call_site_intern(self->st, site)))
        Py_INCREF(site->code);
}

static int
keep_trace(PoolObject *self, uint64_t id)
{
    bool whole = self->trace_every > 0 && id % (uint64_t)self->trace_every == 0;
    PyObject *key, *trace;
    int rv;

    if (!whole && self->trace_frames == 0)
        return 0;
    key = PyLong_FromUnsignedLongLong(id);
    trace = key == NULL ? NULL : call_site_trace(self->st, whole ? 1000 : self->trace_frames);
    rv = trace == NULL ? -1 : PyDict_SetItem(self->traces, key, trace);
    Py_XDECREF(key);
    Py_XDECREF(trace);
    return rv;
}

/* Warns of settings that the kernel changed silently, as connect does. */
static int
look_at_new(PoolObject *self, ConnObject *conn)
{
    struct hs_conn_info info;
    PyObject *result;

    hs_conn_info(conn->core, &info);
    if (info.changed_settings == 0)
        return 0;
    result = PyObject_CallMethod((PyObject *)self, "_changed", "O", conn);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Takes shell, also on failure: then what was lent is given back. */
static PyObject *
pool_lend(PoolObject *self, PyObject *shell, const struct hs_lease *lease,
          const struct call_site *site)
{
    ConnObject *conn = (ConnObject *)shell;

    conn->core = hs_conn_ref(lease->conn);
    conn->timeout_ns = HS_NEVER;
    conn->lease = *lease;
    conn->pool = Py_NewRef((PyObject *)self);
    opened_lent(self->st, &conn->opened, site);
    if (((self->trace_frames | self->trace_every) != 0 && keep_trace(self, lease->id) < 0) ||
        (lease->times_lent == 1 && look_at_new(self, conn) < 0)) {
        struct hs_lease ended = *lease;

        (void)conn_end(conn, CONN_RETURNED);
        pool_forget_trace(self, ended.id);
        (void)!hs_pool_release(self->core, &ended, HS_RETURN_UNTOUCHED, NULL, NULL, NULL);
        Py_CLEAR(shell);
    }
    return shell;
}

static PyObject *
shell_new(PoolObject *self)
{
    ConnObject *conn = object_new(self->st, self->st->conn_type);

    if (conn != NULL)
        conn->opened.kind = &conn_opened_kind;
    return (PyObject *)conn;
}

/* What can be had without waiting: NULL without an exception means that it takes a job. */
static PyObject *
try_borrow(PoolObject *self)
{
    PyObject *ambient = NULL, *shell;
    struct call_site site;
    struct hs_holder holder;
    struct hs_lease lease;

    if (PyContextVar_Get(self->st->scope, Py_None, &ambient) < 0)
        return NULL;
    Py_DECREF(ambient); /* The scope, or None, is kept by the context. */
    if (ambient != Py_None || !call_site_of_caller(&site) || (shell = shell_new(self)) == NULL)
        return NULL;
    holder.thread = PyThread_get_thread_ident();
    holder.task = 0;
    holder.code = site.code;
    holder.at = site.at;
    if (hs_pool_try_acquire(self->core, &holder, &lease) == HS_OK)
        return pool_lend(self, shell, &lease, &site);
    Py_DECREF(shell);
    return NULL;
}

static hs_err
attempt_acquire(struct job *job)
{
    struct borrowing *b = &job->u.borrowing;

    return hs_pool_acquire(b->core, &job->call.op, &b->request, job->call.err, &b->lease);
}

/* A wait may end with the error of a dial: that is not the time of the call. */
static bool
is_own_wait(const struct call *c, hs_err code)
{
    return code == HS_E_DEADLINE && c->err->origin != HS_ORIGIN_DIAL;
}

static PyObject *
acquire_class_of(const struct call *c, hs_err code)
{
    return is_own_wait(c, code) ? c->st->pool_timeout : NULL;
}

static void
acquire_route(const struct call *c, struct call_route *route)
{
    const struct job *job = c->about;
    const struct hs_dial_failure *failure = job->u.borrowing.request.failure;

    if (failure == NULL)
        return;
    route->attempts = hs_dial_failure_attempts(failure, &route->n, &route->began_ns);
    route->refused = hs_dial_failure_refused(failure);
    (void)snprintf(route->endpoint, sizeof(route->endpoint), "%s", hs_dial_failure_host(failure));
}

static void
acquire_describe(const struct call *c, hs_err code, PyObject *dict)
{
    const struct job *job = c->about;

    if (job->u.borrowing.request.failure == NULL)
        error_put(dict, c->st->str_host, PyObject_GetAttrString(job->owner, "_where"));
    if (c->err->phase == NULL)
        error_put(dict, c->st->str_phase,
                  PyUnicode_FromString(code == HS_E_DEADLINE ? "wait" : "start"));
}

/* The pool tells who holds what. */
static void
acquire_explain(const struct call *c, hs_err code, PyObject *exc)
{
    const struct job *job = c->about;
    PyObject *result;

    if (!is_own_wait(c, code) && code != HS_E_LIMIT)
        return;
    if ((result = PyObject_CallMethodOneArg(job->owner, c->st->str__explain, exc)) == NULL)
        PyErr_Clear();
    Py_XDECREF(result);
}

static const struct call_kind acquire_kind = {
    .class_of = acquire_class_of,
    .route = acquire_route,
    .describe = acquire_describe,
    .explain = acquire_explain,
};

static void
give_up_acquire(struct job *job)
{
    hs_pool_abandon(job->u.borrowing.core, &job->u.borrowing.request);
}

static void
release_acquire(struct job *job)
{
    struct borrowing *b = &job->u.borrowing;

    if (b->lease.id != 0)
        (void)!hs_pool_release(b->core, &b->lease, HS_RETURN_UNTOUCHED, NULL, NULL, NULL);
    hs_dial_failure_unref(b->request.failure);
    Py_XDECREF(b->shell);
}

static PyObject *
pool_take_lease(struct job *job)
{
    struct borrowing *b = &job->u.borrowing;
    struct hs_lease lease = b->lease;
    PyObject *shell = b->shell;

    b->lease = (struct hs_lease){0};
    b->shell = NULL;
    return pool_lend((PoolObject *)job->owner, shell, &lease, &b->site);
}

static int
begin_acquire(PoolObject *self, struct job *job, PyObject *timeout, PyObject *token, PyObject *task)
{
    struct borrowing *b = &job->u.borrowing;

    job->owner = Py_NewRef((PyObject *)self);
    job->attempt = attempt_acquire;
    job->result = pool_take_lease;
    job->give_up = give_up_acquire;
    job->release = release_acquire;
    b->core = self->core;
    b->request.holder.thread = PyThread_get_thread_ident();
    if (task != NULL && task != Py_None)
        b->request.holder.task = (uint64_t)(uintptr_t)task;
    know_call_site(self, &b->request.holder, &b->site);
    if ((b->shell = shell_new(self)) == NULL)
        return -1;
    job->call.kind = &acquire_kind;
    job->call.about = job;
    return call_begin(&job->call, self->st, timeout, token, HS_NEVER);
}

int
pool_prepare_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                     struct job *job)
{
    static const struct params p = {"acquire", 0, 0, 0, {"timeout", "token", "task"}};
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    return begin_acquire((PoolObject *)self, job, values[0], values[1], values[2]);
}

static PyObject *
wait_for_lease(PoolObject *self, PyObject *timeout, PyObject *token)
{
    struct hs_error err = {0};
    struct job job = {.call.err = &err};
    PyObject *result = NULL;

    if (begin_acquire(self, &job, timeout, token, NULL) == 0)
        result = job_run_prepared(&job);
    job_end(&job);
    return result;
}

PyObject *
pool_borrow(PoolObject *self, PyObject *timeout, PyObject *token)
{
    PyObject *conn = NULL;
    int64_t span;

    if (parse_seconds(timeout, "timeout", &span) < 0)
        return NULL;
    if (token == NULL || token == Py_None)
        conn = try_borrow(self);
    if (conn != NULL || PyErr_Occurred())
        return conn;
    return wait_for_lease(self, timeout, token);
}

/* ---- Giving back --------------------------------------------------------------------------- */

static PyObject *
refuse_return(PoolObject *self, const char *why)
{
    PyErr_Format(PyExc_ValueError, "release: %s (pool %R)", why, self);
    return NULL;
}

static PyObject *
end_lease(PoolObject *self, ConnObject *conn, enum hs_return how)
{
    struct hs_lease lease = conn->lease;
    enum hs_pool_reason why;
    bool late;

    if (hs_pool_release(self->core, &lease, how, NULL, &why, &late) != HS_OK)
        return refuse_return(self, "this connection was returned before");
    pool_forget_trace(self, conn->lease.id);
    if (why == HS_POOL_NONE && !late)
        Py_RETURN_NONE;
    return PyObject_CallMethod((PyObject *)self, "_noticed", "KsNN",
                               (unsigned long long)conn->lease.id, hs_pool_reason_name(why),
                               PyBool_FromLong(how == HS_RETURN_DONE), PyBool_FromLong(late));
}

PyObject *
pool_return_if_held(PoolObject *self, PyObject *conn, enum hs_return how)
{
    if (!conn_end((ConnObject *)conn, CONN_RETURNED))
        Py_RETURN_NONE;
    return end_lease(self, (ConnObject *)conn, how);
}

PyObject *
pool_return(PoolObject *self, PyObject *obj, enum hs_return how)
{
    ConnObject *conn = (ConnObject *)obj;
    int closed = CONN_CLOSED;

    if (!Py_IS_TYPE(obj, self->st->conn_type)) {
        PyErr_Format(PyExc_TypeError, "conn must be a Connection, not %.100s",
                     Py_TYPE(obj)->tp_name);
        return NULL;
    }
    if (conn->pool == NULL)
        return refuse_return(self, "this connection was not lent by a pool");
    if (conn->pool != (PyObject *)self)
        return refuse_return(self, "this connection is another pool's");
    if (conn_end(conn, CONN_RETURNED))
        return end_lease(self, conn, how);
    /* `finally: pool.release(conn)` must not hide the error that made somebody close it. */
    if (atomic_compare_exchange_strong(&conn->life, &closed, CONN_RETURNED))
        Py_RETURN_NONE;
    return refuse_return(self, "this connection was returned before");
}
