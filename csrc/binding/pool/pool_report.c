/* pool_report.c: what a pool tells, as plain tuples and dicts; _pool.py makes records of them.
 *
 * Each report is a copy, taken under the pool's lock with the interpreter detached from it only for
 * that moment; names, lines and stacks are found afterwards.
 */
#include "binding/base/args.h"
#include "pool.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#define POOL_DOC(name, text) const char pool##name##_doc[] = text

static struct hs_pool *
pool_report_core_of(PyObject *self)
{
    return ((PoolObject *)self)->core;
}

/* Steals value. */
static int
pool_report_put(PyObject *dict, const char *name, PyObject *value)
{
    int rv = value == NULL ? -1 : PyDict_SetItemString(dict, name, value);

    Py_XDECREF(value);
    return rv;
}

/* (count, sum_ns, max_ns, [(upper bound in ns, count), ...]): the buckets that hold something. */
static PyObject *
histogram_object(const struct hs_histogram *h)
{
    PyObject *buckets = PyList_New(0);

    for (size_t i = 0; buckets != NULL && i < HS_HISTOGRAM_BUCKETS; i++) {
        PyObject *item;

        if (h->buckets[i] == 0)
            continue;
        item = Py_BuildValue("LK", (long long)hs_histogram_bound(i),
                             (unsigned long long)h->buckets[i]);
        if (item == NULL || PyList_Append(buckets, item) < 0)
            Py_CLEAR(buckets);
        Py_XDECREF(item);
    }
    if (buckets == NULL)
        return NULL;
    return Py_BuildValue("KKKN", (unsigned long long)h->count, (unsigned long long)h->sum_ns,
                         (unsigned long long)h->max_ns, buckets);
}

static PyObject *
reasons_object(const struct hs_pool_stats *s)
{
    PyObject *dict = PyDict_New();

    for (int i = HS_POOL_NONE + 1; dict != NULL && i < HS_POOL_REASON_COUNT; i++)
        if (pool_report_put(dict, hs_pool_reason_name((enum hs_pool_reason)i),
                            PyLong_FromUnsignedLongLong(s->closed_by_reason[i])) < 0)
            Py_CLEAR(dict);
    return dict;
}

static PyObject *
dial_error_object(const struct hs_pool_stats *s)
{
    if (s->dial_error.code == HS_OK)
        Py_RETURN_NONE;
    return PyUnicode_DecodeUTF8(s->dial_error.msg, (Py_ssize_t)strlen(s->dial_error.msg),
                                "replace");
}

#define NUMBERS(X)                                                                                 \
    X(max_size)                                                                                    \
    X(idle)                                                                                        \
    X(lent)                                                                                        \
    X(dialing)                                                                                     \
    X(handshaking)                                                                                 \
    X(closing)                                                                                     \
    X(waiting)                                                                                     \
    X(opened)                                                                                      \
    X(connected)                                                                                   \
    X(closed)                                                                                      \
    X(acquired)                                                                                    \
    X(acquired_waited)                                                                             \
    X(handed_over)                                                                                 \
    X(timeouts)                                                                                    \
    X(cancelled)                                                                                   \
    X(refused)                                                                                     \
    X(failed)                                                                                      \
    X(expired_skipped)                                                                             \
    X(returned)                                                                                    \
    X(probes)                                                                                      \
    X(overdue)                                                                                     \
    X(returned_late)                                                                               \
    X(dial_failures)

POOL_DOC(_stats, "_stats($self, /)\n--\n\nSee hardsock.Pool.stats.");

PyObject *
pool_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct hs_pool_stats s;
    PyObject *dict = PyDict_New();

    hs_pool_stats(pool_report_core_of(self), &s);
    if (dict == NULL)
        return NULL;
#define PUT_NUMBER(name) pool_report_put(dict, #name, PyLong_FromUnsignedLongLong(s.name)) < 0 ||
    if (NUMBERS(PUT_NUMBER) pool_report_put(dict, "closed_by_reason", reasons_object(&s)) < 0 ||
        pool_report_put(dict, "wait", histogram_object(&s.wait)) < 0 ||
        pool_report_put(dict, "dial", histogram_object(&s.dial)) < 0 ||
        pool_report_put(dict, "usage", histogram_object(&s.usage)) < 0 ||
        pool_report_put(dict, "handshaking_for",
                        PyFloat_FromDouble((double)s.handshaking_ns / 1e9)) < 0 ||
        pool_report_put(dict, "last_dial_error", dial_error_object(&s)) < 0)
        Py_CLEAR(dict);
#undef PUT_NUMBER
    return dict;
}

/* ---- Who holds what ------------------------------------------------------------------------ */

static PyObject *
code_object(const void *code)
{
    return Py_NewRef(code != NULL ? (PyObject *)(uintptr_t)code : Py_None);
}

PyObject *
pool_lent_object(mod_state *st, const struct hs_lent *l)
{
    return record_new(st->lease_record, "KKKNiLKKKniO", (unsigned long long)l->id,
                      (unsigned long long)l->holder.thread, (unsigned long long)l->holder.task,
                      code_object(l->holder.code), l->holder.at, (long long)l->age_ns,
                      (unsigned long long)l->times_lent, (unsigned long long)l->bytes_sent,
                      (unsigned long long)l->bytes_received, (Py_ssize_t)l->endpoint, l->fd,
                      l->overdue ? Py_True : Py_False);
}

static PyObject *
borrower_object(mod_state *st, const struct hs_call_site_stats *s)
{
    return record_new(st->borrower_record, "NinKKKKLL", code_object(s->code), s->at,
                      (Py_ssize_t)s->lent, (unsigned long long)s->acquired,
                      (unsigned long long)s->lost, (unsigned long long)s->overdue,
                      (unsigned long long)s->dirty, (long long)s->held_max_ns,
                      (long long)s->held_sum_ns);
}

/* A list of n things that are next to each other in memory. */
static PyObject *
pool_report_list_of(mod_state *st, const char *things, size_t size, size_t n,
                    PyObject *(*object)(mod_state *st, const void *thing))
{
    PyObject *list = hs_list_new((Py_ssize_t)n);

    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *item = object(st, things + i * size);

        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

static PyObject *
lent_thing(mod_state *st, const void *thing)
{
    return pool_lent_object(st, thing);
}

static PyObject *
borrower_thing(mod_state *st, const void *thing)
{
    return borrower_object(st, thing);
}

POOL_DOC(_lent, "_lent($self, /)\n--\n\nSee hardsock.Pool.lent.");

PyObject *
pool_lent(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    size_t room = hs_pool_lent(pool_report_core_of(self), NULL, 0) + 16, n;
    struct hs_lent *lent = PyMem_Calloc(room, sizeof(*lent));
    PyObject *list;

    if (lent == NULL)
        return PyErr_NoMemory();
    n = hs_pool_lent(pool_report_core_of(self), lent, room);
    list = pool_report_list_of(state_of(self), (const char *)lent, sizeof(*lent),
                               n < room ? n : room, lent_thing);
    PyMem_Free(lent);
    return list;
}

POOL_DOC(_sites, "_sites($self, /)\n--\n\nSee hardsock.Pool.sites.");

PyObject *
pool_sites(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    size_t room = hs_pool_sites(pool_report_core_of(self), NULL, 0) + 16, n;
    struct hs_call_site_stats *sites = PyMem_Calloc(room, sizeof(*sites));
    PyObject *list;

    if (sites == NULL)
        return PyErr_NoMemory();
    n = hs_pool_sites(pool_report_core_of(self), sites, room);
    list = pool_report_list_of(state_of(self), (const char *)sites, sizeof(*sites),
                               n < room ? n : room, borrower_thing);
    PyMem_Free(sites);
    return list;
}

/* ---- What the kernel knows ----------------------------------------------------------------- */

static PyObject *
peer_object(struct hs_conn *conn)
{
    struct hs_addr addr;

    if (hs_conn_peer_addr(conn, NULL, &addr) != HS_OK)
        Py_RETURN_NONE;
    return address_text(&addr);
}

static int
pool_report_tcp_state(struct hs_conn *conn)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);

    if (hs_conn_getsockopt(conn, IPPROTO_TCP, TCP_INFO, &info, &len, NULL) != HS_OK)
        return -1;
    return info.tcpi_state;
}

static int
append_sockets(const mod_state *st, PyObject *list, struct hs_pool *core, bool lent)
{
    size_t room = hs_pool_conns(core, lent, NULL, 0) + 16, n;
    struct hs_conn **conns = PyMem_Calloc(room, sizeof(*conns));
    int rv = 0;

    if (conns == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    n = hs_pool_conns(core, lent, conns, room);
    n = n < room ? n : room;
    for (size_t i = 0; i < n; i++) {
        PyObject *item = rv < 0
                             ? NULL
                             : record_new(st->pool_socket_record, "OiNi", lent ? Py_True : Py_False,
                                          hs_conn_fileno(conns[i]), peer_object(conns[i]),
                                          pool_report_tcp_state(conns[i]));

        if (item == NULL || PyList_Append(list, item) < 0)
            rv = -1;
        Py_XDECREF(item);
        hs_conn_unref(conns[i]);
    }
    PyMem_Free(conns);
    return rv;
}

POOL_DOC(_sockets, "_sockets($self, /)\n--\n\n"
                   "All that is open: a list of PoolSocketRecord; checks the counts.");

PyObject *
pool_sockets(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct hs_error err = {0};
    hs_err rv = hs_pool_verify(pool_report_core_of(self), &err);
    const mod_state *st = state_of(self);
    PyObject *list;

    if (rv != HS_OK) {
        PyErr_Format(PyExc_AssertionError, "%s", err.msg);
        return NULL;
    }
    list = PyList_New(0);
    if (list != NULL && (append_sockets(st, list, pool_report_core_of(self), false) < 0 ||
                         append_sockets(st, list, pool_report_core_of(self), true) < 0))
        Py_CLEAR(list);
    return list;
}
