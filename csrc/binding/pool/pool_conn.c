/* pool_conn.c: what a lent Connection knows of its pool.
 *
 * Each lease has a Connection object of its own, so that the one who keeps one after the return
 * holds something closed, not somebody else's connection. conn_end ends it once: by release,
 * close, abort, detach, or by the finalizer, which only notes that the lease was thrown away.
 */
#include "binding/stream/conn.h"

static ConnObject *
conn_of(PyObject *obj)
{
    return (ConnObject *)obj;
}

void
pool_forget_trace(PoolObject *pool, uint64_t id)
{
    PyObject *type, *value, *traceback, *key;

    if (pool->traces == NULL || PyDict_GET_SIZE(pool->traces) == 0)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    key = PyLong_FromUnsignedLongLong(id);
    if (key == NULL || PyDict_DelItem(pool->traces, key) < 0)
        PyErr_Clear();
    Py_XDECREF(key);
    PyErr_Restore(type, value, traceback);
}

void
pool_conn_let_go(PyObject *obj, bool lost)
{
    ConnObject *self = conn_of(obj);
    PoolObject *pool = (PoolObject *)self->pool;
    struct hs_lease lease = self->lease;

    pool_forget_trace(pool, lease.id);
    if (lost)
        hs_pool_lose(&lease);
    else
        (void)!hs_pool_release(pool->core, &lease, HS_RETURN_DISCARD, NULL, NULL, NULL);
}

/* Called by the finalizer, with the exception state put away. */
void
pool_conn_warn(PyObject *obj)
{
    ConnObject *self = conn_of(obj);
    mod_state *st = state_of(obj);
    int rv;

    if (self->opened.site.code == NULL)
        rv = PyErr_WarnFormat(st->leak_warning, 1, "%R was thrown away, not returned to its pool",
                              obj);
    else
        rv = PyErr_WarnFormat(st->leak_warning, 1,
                              "%R was thrown away, not returned to its pool; it was borrowed at "
                              "%U:%d",
                              obj, ((PyCodeObject *)self->opened.site.code)->co_filename,
                              call_site_line(&self->opened.site));
    if (rv < 0 && PyErr_ExceptionMatches(PyExc_Warning))
        PyErr_WriteUnraisable(obj);
}

PyObject *
pool_conn_get_pool(PyObject *obj, void *Py_UNUSED(closure))
{
    PyObject *pool = conn_of(obj)->pool;

    return Py_NewRef(pool != NULL ? pool : Py_None);
}

/* All zero once it has ended: then the marks are the next borrower's. */
static struct hs_lease_info
lease_info(PyObject *obj)
{
    struct hs_lease_info info = {0};

    HS_BEGIN_LOCKED(obj);
    if (!conn_is_let_go(conn_of(obj)))
        hs_lease_info(&conn_of(obj)->lease, &info);
    HS_END_LOCKED();
    return info;
}

PyObject *
pool_conn_get_reused(PyObject *obj, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(lease_info(obj).reused);
}

PyObject *
pool_conn_get_retry_is_safe(PyObject *obj, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(lease_info(obj).retry_is_safe);
}

PyObject *
pool_conn_get_clean(PyObject *obj, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(lease_info(obj).clean);
}

PyObject *
pool_conn_get_idle_for(PyObject *obj, void *Py_UNUSED(closure))
{
    ConnObject *self = conn_of(obj);

    return PyFloat_FromDouble(conn_is_let_go(self) ? 0.0 : (double)self->lease.idle_ns / 1e9);
}

PyObject *
pool_conn_get_lease_id(PyObject *obj, void *Py_UNUSED(closure))
{
    ConnObject *self = conn_of(obj);

    return PyLong_FromUnsignedLongLong(conn_is_let_go(self) ? 0 : self->lease.id);
}

const char pool_conn_mark_clean_doc[] =
    "mark_clean($self, /)\n--\n\n"
    "Say that the exchange with the peer is complete: all that was asked is answered and read.\n\n"
    "A pooled connection on which bytes went since then is closed when it is returned, never\n"
    "lent to somebody who would read what was meant for another. Without a pool it does\n"
    "nothing.";

PyObject *
pool_conn_mark_clean(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    HS_BEGIN_LOCKED(obj);
    if (!conn_is_let_go(conn_of(obj)))
        hs_lease_mark_clean(&conn_of(obj)->lease);
    HS_END_LOCKED();
    Py_RETURN_NONE;
}
