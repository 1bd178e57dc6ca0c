/* pool.h: the Pool object, for the files that make up its type: type_pool.c (life, methods),
 * pool_lend.c (lending and taking back), pool_conn.c (a lent Connection's side of it),
 * pool_report.c (telling), type_borrowing.c (pool.connection()).
 */
#ifndef HS_BINDING_POOL_H
#define HS_BINDING_POOL_H

#include "binding/base/call_site.h"

typedef struct {
    HS_HEAD
    struct hs_pool *core;   /* owns: a reference; write once */
    bool hooked;            /* subclasses' acquire and release are to be called, not ours */
    bool prepares;          /* it has hooks: Python's _acquire_prepared, _release_reset run them */
    int trace_frames;       /* how many frames to keep of each borrower; 0: none */
    long trace_every;       /* of so many leases one with a whole stack; 0: none */
    PyObject *traces;       /* owns: a dict, lease id -> tuple of (code, offset) */
    PyObject *on_overdue;   /* owns: what is called for each overdue lease, or NULL; write once */
    struct hs_alarm *alarm; /* owns; or NULL; write once */
    PyObject *weakrefs;
} PoolObject;

/* ---- pool_conn.c: for type_conn.c ---- */
/* conn_end has said true. */
void pool_conn_let_go(PyObject *conn, bool lost);
void pool_forget_trace(PoolObject *pool, uint64_t id);
void pool_conn_warn(PyObject *conn);
PyObject *pool_conn_get_pool(PyObject *conn, void *closure);
PyObject *pool_conn_get_reused(PyObject *conn, void *closure);
PyObject *pool_conn_get_retry_is_safe(PyObject *conn, void *closure);
PyObject *pool_conn_get_clean(PyObject *conn, void *closure);
PyObject *pool_conn_get_idle_for(PyObject *conn, void *closure);
PyObject *pool_conn_get_lease_id(PyObject *conn, void *closure);
PyObject *pool_conn_mark_clean(PyObject *conn, PyObject *ignored);
extern const char pool_conn_mark_clean_doc[];

/* ---- pool_lend.c ---- */
/* As the methods; timeout and token may be NULL. failed: the borrower had an exception. */
PyObject *pool_borrow(PoolObject *self, PyObject *timeout, PyObject *token);
PyObject *pool_return(PoolObject *self, PyObject *conn, enum hs_return how);
/* None, where pool_return refuses what was returned before. */
PyObject *pool_return_if_held(PoolObject *self, PyObject *conn, enum hs_return how);
struct job;
int pool_prepare_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                         struct job *job);

/* ---- type_borrowing.c ---- */
PyObject *borrowing_new(PoolObject *pool, PyObject *timeout, PyObject *token);

/* ---- pool_report.c ---- */
#define POOL_REPORTS(X) X(_stats) X(_lent) X(_sites) X(_sockets)
#define POOL_DECLARE_REPORT(name)                                                                  \
    PyObject *pool##name(PyObject *self, PyObject *ignored);                                       \
    extern const char pool##name##_doc[];
POOL_REPORTS(POOL_DECLARE_REPORT)
PyObject *pool_lent_object(mod_state *st, const struct hs_lent *lent);

/* ---- pool_alarm.c ---- */
PyObject *pool_on_overdue(PyObject *self, PyObject *callable);
extern const char pool_on_overdue_doc[];

#endif
