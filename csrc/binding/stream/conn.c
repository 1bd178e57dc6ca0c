/* conn.c: the Connection object beneath its methods: how it is made, and the ways to its core.
 *
 * Another thread may end a lent Connection at any time: conn_core is for those who only look,
 * conn_act for what acts at once, conn_job_begin for what can wait.
 */
#include "conn.h"

#include <stdio.h>

/* ---- For the list of what is open (tracking.c) ---------------------------------------------- */

static const ConnObject *
conn_with(const struct opened *o)
{
    return (const ConnObject *)(const void *)((const char *)o - offsetof(ConnObject, opened));
}

static struct hs_conn *
opened_conn(const struct opened *o)
{
    return conn_with(o)->core;
}

static struct hs_listener *
opened_no_listener(const struct opened *Py_UNUSED(o))
{
    return NULL;
}

static bool
opened_conn_is_open(const struct opened *o)
{
    return !conn_is_let_go(conn_with(o));
}

const struct opened_kind conn_opened_kind = {
    .conn = opened_conn,
    .listener = opened_no_listener,
    .is_open = opened_conn_is_open,
};

/* ---- Making, and the way to its core -------------------------------------------------------- */

ConnObject *
conn_alloc(mod_state *st, struct hs_conn *c)
{
    ConnObject *self = object_new(st, st->conn_type);

    if (self == NULL) {
        hs_conn_unref(c);
        return NULL;
    }
    self->core = c;
    self->opened.kind = &conn_opened_kind;
    self->timeout_ns = HS_NEVER;
    return self;
}

PyObject *
conn_object_new(mod_state *st, struct hs_conn *c, const struct opening *opening)
{
    ConnObject *self = conn_alloc(st, c);

    if (self != NULL)
        tracking_add(st, &self->opened, opening, hs_conn_fileno(c));
    return (PyObject *)self;
}

int
conn_raise_closed(PyObject *self, const char *op)
{
    struct hs_error err = {
        .code = HS_E_CLOSED, .op = op, .phase = "start", .msg = "it was closed here"};

    if (((ConnObject *)self)->pool != NULL)
        (void)snprintf(err.msg, sizeof(err.msg), "it was closed here, or returned to its pool");
    return raise_conn_error(state_of(self), ((ConnObject *)self)->core, &err, HS_E_CLOSED);
}

struct hs_conn *
conn_core(ConnObject *self, const char *op)
{
    if (!conn_is_let_go(self))
        return self->core;
    (void)conn_raise_closed((PyObject *)self, op);
    return NULL;
}

int
conn_act(ConnObject *self, const char *op, conn_act_fn fn, void *arg)
{
    struct hs_error err = {0};
    hs_err rv = HS_E_CLOSED;
    bool held;

    HS_BEGIN_LOCKED((PyObject *)self);
    if ((held = !conn_is_let_go(self)))
        rv = fn(self->core, arg, &err);
    HS_END_LOCKED();
    if (rv == HS_OK)
        return 0;
    if (!held)
        return conn_raise_closed((PyObject *)self, op);
    return raise_conn_error(state_of((PyObject *)self), self->core, &err, rv);
}

PyObject *
conn_bound(PyObject *obj)
{
    ConnObject *self = conn_whose(obj);
    PyObject *token = NULL;

    if (!atomic_load_explicit(&self->is_bound, memory_order_relaxed))
        return NULL;
    HS_BEGIN_LOCKED((PyObject *)self);
    token = Py_XNewRef(self->bound);
    HS_END_LOCKED();
    return token;
}

int
conn_job_begin(PyObject *obj, struct job *job, const char *op, PyObject *timeout, PyObject *token)
{
    ConnObject *self = (ConnObject *)obj;

    job->owner = Py_NewRef(obj);
    if (conn_core(self, op) == NULL)
        return -1;
    job->call.conn = self->core;
    job->give_up = conn_job_give_up;
    if (call_begin(&job->call, state_of(obj), timeout, token, atomic_load(conn_timeout(obj))) < 0)
        return -1;
    job->call.op.lease = self->lease.id;
    return call_bind(&job->call, conn_bound(obj));
}

void
conn_job_give_up(struct job *job)
{
    hs_conn_abandon(job->call.conn, &job->call.op, NULL);
}
