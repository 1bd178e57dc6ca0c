/* guard.c: what hardsock.guard asks of the core: which connections are idle, and their end.
 *
 * Connections are named by the number that reports have (hs_conn_row.id), which is never used
 * again, so that none is taken for another. One that was asked to end is kept by a
 * capsule until it is known whether it did.
 */
#include "binding/base/args.h"
#include "binding/pool/pool.h"
#include "binding/base/run.h"

#include <stdlib.h>
#include <string.h>

#define RETIRING "hardsock._core.retiring"

struct seen {
    struct hs_conn_row row;
    enum hs_retire state;
};

struct looking {
    struct seen *seen;
    size_t n;
    int64_t now; /* one for all, so that they can be compared */
    bool failed;
};

/* All connections, new references; NULL: no memory. */
static struct hs_conn **
take_conns(size_t *ret_n)
{
    for (;;) {
        size_t room = hs_conns(NULL, 0) + 16;
        struct hs_conn **all = PyMem_RawCalloc(room, sizeof(struct hs_conn *));

        if (all == NULL || (*ret_n = hs_conns(all, room)) <= room)
            return all;
        for (size_t i = 0; i < room; i++) /* More were made meanwhile. */
            hs_conn_unref(all[i]);
        PyMem_RawFree((void *)all);
    }
}

static void
guard_look_detached(void *arg)
{
    struct looking *l = arg;
    struct hs_conn **all;
    int64_t ignored;
    size_t n = 0;

    if ((all = take_conns(&n)) == NULL ||
        (l->seen = PyMem_RawCalloc(n + 1, sizeof(*l->seen))) == NULL)
        l->failed = true;
    for (size_t i = 0; all != NULL && i < n; i++) {
        struct seen *s = l->failed ? NULL : &l->seen[l->n];

        if (s != NULL) {
            hs_conn_describe(all[i], &s->row);
            s->state = hs_conn_judge(all[i], 0, 0, &ignored);
            l->n += s->state != HS_RETIRE_GONE && s->row.fd >= 0;
        }
        hs_conn_unref(all[i]);
    }
    PyMem_RawFree((void *)all);
    l->now = hs_now();
}

static int64_t
guard_last_use(const struct hs_conn_info *info)
{
    int64_t last =
        info->last_read_ns > info->last_write_ns ? info->last_read_ns : info->last_write_ns;

    return last > info->created_ns ? last : info->created_ns;
}

static PyObject *
row_object(const struct seen *s, int64_t now)
{
    PyObject *local = s->row.local.len == 0 ? Py_NewRef(Py_None) : address_text(&s->row.local);
    PyObject *peer = s->row.peer.len == 0 ? Py_NewRef(Py_None) : address_text(&s->row.peer);

    if (local == NULL || peer == NULL) {
        Py_XDECREF(local);
        Py_XDECREF(peer);
        return NULL;
    }
    return Py_BuildValue("(KssddNNK)", (unsigned long long)s->row.id, hs_made_name(s->row.how),
                         hs_retire_name(s->state), (double)(now - s->row.info.created_ns) / 1e9,
                         (double)(now - guard_last_use(&s->row.info)) / 1e9, local, peer,
                         (unsigned long long)s->row.thread);
}

PyDoc_STRVAR(rows_doc, "_guard_rows()\n--\n\n"
                       "All open connections: tuples of id, how it was made, hs_retire_name, age\n"
                       "and idle in seconds, local and peer's address, thread.");

static PyObject *
core_guard_rows(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    struct looking l = {0};
    PyObject *list = NULL;

    run_detached(guard_look_detached, &l);
    if (l.failed)
        PyErr_NoMemory();
    else
        list = hs_list_new((Py_ssize_t)l.n);
    for (size_t i = 0; list != NULL && i < l.n; i++) {
        PyObject *row = row_object(&l.seen[i], l.now);

        if (row == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, row);
    }
    PyMem_RawFree(l.seen);
    return list;
}

/* ---- Acting -------------------------------------------------------------------------------- */

struct retiring {
    struct hs_conn *conn; /* owns a reference */
    int64_t idle_ns, was_ns;
    bool settled; /* it is no more asked to end */
};

struct acting {
    uint64_t id;
    int64_t idle_ns, age_ns, seen_ns, was_ns;
    enum hs_retire how;
    struct hs_conn *conn; /* a reference, when how is HS_RETIRE_ASKED */
    unsigned ms, was_ms;
    hs_err rv;
    struct hs_error err; /* of rv */
    bool failed, shorten;
};

/* All pools, new references; NULL: no memory. */
static struct hs_pool **
take_pools(size_t *ret_n)
{
    for (;;) {
        size_t room = hs_pools(NULL, 0) + 16;
        struct hs_pool **all = PyMem_RawCalloc(room, sizeof(struct hs_pool *));

        if (all == NULL || (*ret_n = hs_pools(all, room)) <= room)
            return all;
        for (size_t i = 0; i < room; i++) /* More were made meanwhile. */
            hs_pool_unref(all[i]);
        PyMem_RawFree((void *)all);
    }
}

/* In whatever pool has it. */
static enum hs_retire
retire_pooled(const struct acting *a, bool *ret_failed)
{
    enum hs_retire how = HS_RETIRE_GONE;
    struct hs_pool **all;
    size_t n;

    if ((all = take_pools(&n)) == NULL) {
        *ret_failed = true;
        return how;
    }
    for (size_t i = 0; i < n; i++) {
        if (how == HS_RETIRE_GONE)
            how = hs_pool_retire(all[i], a->id, a->idle_ns);
        hs_pool_unref(all[i]);
    }
    PyMem_RawFree((void *)all);
    return how;
}

static void
retire_detached(void *arg)
{
    struct acting *a = arg;
    struct hs_conn *conn = hs_conn_find(a->id);

    a->how = HS_RETIRE_GONE;
    if (conn == NULL)
        return;
    a->how = hs_conn_retire(conn, a->idle_ns, a->age_ns, &a->seen_ns, &a->was_ns);
    if (a->how == HS_RETIRE_POOLED)
        a->how = retire_pooled(a, &a->failed);
    if (a->how == HS_RETIRE_ASKED)
        a->conn = conn;
    else
        hs_conn_unref(conn);
}

static int
guard_parse_id(PyObject *obj, uint64_t *ret_id)
{
    *ret_id = PyLong_AsUnsignedLongLong(obj);
    return PyErr_Occurred() ? -1 : 0;
}

static void
free_retiring(PyObject *capsule)
{
    struct retiring *r = PyCapsule_GetPointer(capsule, RETIRING);

    if (!r->settled) /* Nobody will ever ask what became of it. */
        (void)hs_conn_unretire(r->conn, r->idle_ns, r->was_ns);
    hs_conn_unref(r->conn);
    PyMem_RawFree(r);
}

static PyObject *
retiring_object(const struct acting *a)
{
    struct retiring *r = PyMem_RawMalloc(sizeof(*r));
    PyObject *capsule;

    if (r != NULL) {
        *r = (struct retiring){.conn = a->conn, .idle_ns = a->idle_ns, .was_ns = a->was_ns};
        if ((capsule = PyCapsule_New(r, RETIRING, free_retiring)) != NULL)
            return capsule;
        PyMem_RawFree(r);
    }
    (void)hs_conn_unretire(a->conn, a->idle_ns, a->was_ns);
    hs_conn_unref(a->conn);
    return r == NULL ? PyErr_NoMemory() : NULL;
}

PyDoc_STRVAR(retire_doc,
             "_guard_retire(id, idle, age, /)\n--\n\n"
             "End it if it is idle for so many seconds, and that old, at this moment. Returns\n"
             "hs_retire_name, how long it was idle, and what _guard_outcome takes, or None.");

static PyObject *
core_guard_retire(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    static const struct params params = {"_guard_retire", 3, 3, 3, {"id", "idle", "age", NULL}};
    struct acting a = {0};
    PyObject *values[MAX_PARAMS], *kept;

    if (parse_args(&params, args, nargs, NULL, values) < 0 ||
        guard_parse_id(values[0], &a.id) < 0 || parse_seconds(values[1], "idle", &a.idle_ns) < 0 ||
        parse_seconds(values[2], "age", &a.age_ns) < 0)
        return NULL;
    run_detached(retire_detached, &a);
    if (a.failed)
        return PyErr_NoMemory();
    if ((kept = a.how == HS_RETIRE_ASKED ? retiring_object(&a) : Py_NewRef(Py_None)) == NULL)
        return NULL;
    return Py_BuildValue("(sdN)", hs_retire_name(a.how), (double)a.seen_ns / 1e9, kept);
}

PyDoc_STRVAR(outcome_doc, "_guard_outcome(retiring, give_up, /)\n--\n\n"
                          "\"closed\" or \"asked\"; with give_up it is left alone: \"spared\".");

static PyObject *
core_guard_outcome(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    static const struct params params = {"_guard_outcome", 2, 2, 2, {"retiring", "give_up", NULL}};
    struct retiring *r;
    PyObject *values[MAX_PARAMS];
    bool give_up = false;

    if (parse_args(&params, args, nargs, NULL, values) < 0 ||
        (r = PyCapsule_GetPointer(values[0], RETIRING)) == NULL ||
        parse_bool(values[1], "give_up", &give_up) < 0)
        return NULL;
    if (hs_conn_was_retired(r->conn))
        return PyUnicode_FromString("closed");
    if (hs_conn_is_closed(r->conn))
        return PyUnicode_FromString("gone");
    if (!give_up)
        return PyUnicode_FromString("asked");
    r->settled = true;
    return PyUnicode_FromString(hs_conn_unretire(r->conn, r->idle_ns, r->was_ns) ? "closed"
                                                                                 : "spared");
}

static void
user_timeout_detached(void *arg)
{
    struct acting *a = arg;
    struct hs_conn *conn = hs_conn_find(a->id);

    a->rv = HS_E_CLOSED;
    if (conn != NULL)
        a->rv = hs_conn_set_user_timeout(conn, a->ms, a->shorten, &a->err, &a->was_ms);
    hs_conn_unref(conn);
}

PyDoc_STRVAR(user_timeout_doc, "_guard_user_timeout(id, milliseconds, shorten, /)\n--\n\n"
                               "Set TCP_USER_TIMEOUT, or keep a shorter one with shorten; returns "
                               "what it was, None if the connection is gone.");

static PyObject *
core_guard_user_timeout(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    static const struct params params = {
        "_guard_user_timeout", 3, 3, 3, {"id", "milliseconds", "shorten", NULL}};
    struct acting a = {0};
    PyObject *values[MAX_PARAMS];
    long ms = 0;

    if (parse_args(&params, args, nargs, NULL, values) < 0 ||
        guard_parse_id(values[0], &a.id) < 0 ||
        parse_long(values[1], "milliseconds", 0, INT_MAX, &ms) < 0 ||
        parse_bool(values[2], "shorten", &a.shorten) < 0)
        return NULL;
    a.ms = (unsigned)ms;
    run_detached(user_timeout_detached, &a);
    if (a.rv == HS_E_SYSTEM) {
        (void)raise_plain_error(state_of_module(module), &a.err, a.rv);
        return NULL;
    }
    if (a.rv != HS_OK)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLong(a.was_ms);
}

PyDoc_STRVAR(pool_ids_doc, "_guard_pool_ids(pool, /)\n--\n\n"
                           "A pool's id, and those of its connections, idle and lent.");

static PyObject *
core_guard_pool_ids(PyObject *module, PyObject *pool)
{
    struct hs_pool_label label;
    struct hs_pool *core;
    PyObject *list;
    uint64_t *ids;
    size_t n, room;

    if (!PyObject_TypeCheck(pool, state_of_module(module)->pool_type)) {
        PyErr_SetString(PyExc_TypeError, "pool must be a Pool");
        return NULL;
    }
    core = ((PoolObject *)pool)->core;
    room = hs_pool_conn_ids(core, NULL, 0) + 16;
    if ((ids = calloc(room, sizeof(*ids))) == NULL)
        return PyErr_NoMemory();
    if ((n = hs_pool_conn_ids(core, ids, room)) > room)
        n = room; /* Those that came meanwhile are too young for anything. */
    list = hs_list_new((Py_ssize_t)n);
    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *id = PyLong_FromUnsignedLongLong(ids[i]);

        if (id == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, id);
    }
    free(ids);
    if (list == NULL)
        return NULL;
    hs_pool_label(core, &label);
    return Py_BuildValue("(KN)", (unsigned long long)label.id, list);
}

/* ---- Counting ------------------------------------------------------------------------------ */

PyDoc_STRVAR(count_doc, "_guard_count(outcome, n, /)\n--\n\n"
                        "So many more decisions with that outcome, for reports.");

static PyObject *
core_guard_count(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    static const struct params params = {"_guard_count", 2, 2, 2, {"outcome", "n", NULL}};
    PyObject *values[MAX_PARAMS];
    long n;

    if (parse_args(&params, args, nargs, NULL, values) < 0 ||
        parse_long(values[1], "n", 0, LONG_MAX, &n) < 0)
        return NULL;
    if (PyUnicode_Check(values[0]))
        for (int i = 0; i < HS_GUARD_OUTCOMES; i++)
            if (PyUnicode_CompareWithASCIIString(
                    values[0], hs_guard_outcome_name((enum hs_guard_outcome)i)) == 0) {
                hs_guard_count((enum hs_guard_outcome)i, (uint64_t)n);
                Py_RETURN_NONE;
            }
    PyErr_Format(PyExc_ValueError, "outcome must be one of a guard's, got %R", values[0]);
    return NULL;
}

PyDoc_STRVAR(runs_doc, "_guard_runs(runs, /)\n--\n\nThe thread of a guard begins, or ends.");

static PyObject *
core_guard_runs(PyObject *Py_UNUSED(module), PyObject *value)
{
    bool runs = false;

    if (parse_bool(value, "runs", &runs) < 0)
        return NULL;
    hs_guard_runs(runs);
    Py_RETURN_NONE;
}

/* ---- Other processes ------------------------------------------------------------------------ */

struct foreign {
    struct hs_foreign *rows, row;
    size_t n;
    int64_t idle_ns, seen_ns;
    enum hs_retire how;
    struct hs_error err;
    hs_err rv;
};

static void
foreign_list_detached(void *arg)
{
    struct foreign *f = arg;

    f->rv = hs_foreign_list(&f->err, &f->rows, &f->n);
}

/* The row itself is its last item, as bytes, for _foreign_retire. */
static PyObject *
foreign_object(const struct hs_foreign *row)
{
    PyObject *local = address_text(&row->local), *peer = address_text(&row->peer);
    PyObject *state = text_object(hs_retire_name(hs_foreign_judge(row, 0)));

    return Py_BuildValue("(KIdNNNy#)", (unsigned long long)row->cookie, (unsigned)row->inode,
                         row->idle_ns < 0 ? 0.0 : (double)row->idle_ns / 1e9, state, local, peer,
                         (const char *)row, (Py_ssize_t)sizeof(*row));
}

PyDoc_STRVAR(foreign_rows_doc,
             "_foreign_rows()\n--\n\n"
             "TCP connections of all processes: tuples of cookie, inode, idle in seconds,\n"
             "hs_retire_name, local and peer's address, and what _foreign_retire takes.");

static PyObject *
core_foreign_rows(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    struct foreign f = {0};
    PyObject *list;

    run_detached(foreign_list_detached, &f);
    if (f.rv != HS_OK) {
        raise_plain_error(state_of_module(module), &f.err, f.rv);
        return NULL;
    }
    list = hs_list_new((Py_ssize_t)f.n);
    for (size_t i = 0; list != NULL && i < f.n; i++) {
        PyObject *row = foreign_object(&f.rows[i]);

        if (row == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, row);
    }
    free(f.rows);
    return list;
}

static void
foreign_retire_detached(void *arg)
{
    struct foreign *f = arg;

    f->rv = hs_foreign_retire(&f->row, f->idle_ns, &f->err, &f->how, &f->seen_ns);
}

PyDoc_STRVAR(foreign_retire_doc, "_foreign_retire(row, idle, /)\n--\n\n"
                                 "As _guard_retire, of what _foreign_rows has given last.");

static PyObject *
core_foreign_retire(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    static const struct params params = {"_foreign_retire", 2, 2, 2, {"row", "idle", NULL}};
    struct foreign f = {0};
    PyObject *values[MAX_PARAMS];

    if (parse_args(&params, args, nargs, NULL, values) < 0 ||
        parse_seconds(values[1], "idle", &f.idle_ns) < 0)
        return NULL;
    if (!PyBytes_Check(values[0]) || PyBytes_GET_SIZE(values[0]) != (Py_ssize_t)sizeof(f.row)) {
        PyErr_SetString(PyExc_TypeError, "row must be what _foreign_rows has given");
        return NULL;
    }
    memcpy(&f.row, PyBytes_AS_STRING(values[0]), sizeof(f.row));
    run_detached(foreign_retire_detached, &f);
    if (f.rv != HS_OK) {
        raise_plain_error(state_of_module(module), &f.err, f.rv);
        return NULL;
    }
    return Py_BuildValue("(sd)", hs_retire_name(f.how), (double)f.seen_ns / 1e9);
}

PyMethodDef guard_functions[] = {
    {"_foreign_rows", core_foreign_rows, METH_NOARGS, foreign_rows_doc},
    {"_foreign_retire", HS_METHOD(core_foreign_retire), METH_FASTCALL, foreign_retire_doc},
    {"_guard_rows", core_guard_rows, METH_NOARGS, rows_doc},
    {"_guard_retire", HS_METHOD(core_guard_retire), METH_FASTCALL, retire_doc},
    {"_guard_outcome", HS_METHOD(core_guard_outcome), METH_FASTCALL, outcome_doc},
    {"_guard_user_timeout", HS_METHOD(core_guard_user_timeout), METH_FASTCALL, user_timeout_doc},
    {"_guard_count", HS_METHOD(core_guard_count), METH_FASTCALL, count_doc},
    {"_guard_runs", core_guard_runs, METH_O, runs_doc},
    {"_guard_pool_ids", core_guard_pool_ids, METH_O, pool_ids_doc},
    {NULL, NULL, 0, NULL},
};
