/* detach.c: the only place that detaches from the interpreter (releases the GIL).
 *
 * Between detach and attach there is no Python API, no reference counting, no exception; buffers
 * were pinned before, and the object that owns the core handle is kept by the caller.
 */
#include "detach.h"

/* While the process ends only the main interpreter's last thread may attach again: CPython would
 * end this one, when it ends a subinterpreter in there. fn then runs attached: nobody else can
 * run. */
static bool
may_not_detach(void)
{
    return hs_process_ends() && PyInterpreterState_Get() != PyInterpreterState_Main();
}

void
run_detached(void (*fn)(void *arg), void *arg)
{
    if (may_not_detach()) {
        fn(arg);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    fn(arg);
    Py_END_ALLOW_THREADS
}

void
run_waiting(mod_state *st, void (*fn)(void *arg), void *arg)
{
    struct hs_fixed_histogram *waits = atomic_load(&st->attach_waits);
    int64_t since;

    if (waits == NULL || may_not_detach()) {
        run_detached(fn, arg);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    fn(arg);
    since = hs_now();
    Py_END_ALLOW_THREADS
    hs_fixed_histogram_add(waits, hs_now() - since);
}

hs_err
call_step(struct call *c, call_fn fn, void *arg)
{
    struct hs_fixed_histogram *waits = atomic_load(&c->st->attach_waits);
    int64_t since = 0;
    hs_err rv;

    Py_BEGIN_ALLOW_THREADS
    rv = fn(c, arg);
    if (waits != NULL)
        since = hs_now();
    Py_END_ALLOW_THREADS
    if (waits != NULL)
        hs_fixed_histogram_add(waits, hs_now() - since);
    if (c->op.came_ns != 0 && c->conn != NULL)
        hs_conn_resumed(c->conn, &c->op);
    return rv;
}
