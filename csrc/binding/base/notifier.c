/* notifier.c: see notifier.h. The waiting is the core's (csrc/cancel/notifier.c).
 *
 * A thread state is made for each round of calls and deleted after it: an interpreter that ends
 * finds none, unless there is a call in progress. The end of the interpreter (atexit) stops the
 * notifier. A subinterpreter must not end before its last thread has left it, so it waits for the
 * call; the main interpreter, as with daemon threads, does not: there the thread stops when it
 * wants to run Python code again. Either waits for a thread that is about to attach.
 *
 * The process ends all threads that attach once the main interpreter has gone, so that one stops
 * the notifiers of all others, too; and a subinterpreter that is ended after it waits for nobody.
 */
#include "notifier.h"

#include "run.h"

static void
notifier_serve(struct hs_notifier *n, void *arg)
{
    PyThreadState *tstate = hs_process_ends() ? NULL : PyThreadState_New(arg);
    struct notice *notice;

    if (tstate == NULL)
        return; /* No memory, perhaps: the core tries again. */
    PyEval_AcquireThread(tstate);
    while ((notice = hs_notifier_next(n)) != NULL)
        notice->tell(notice);
    PyThreadState_Clear(tstate);
    PyThreadState_DeleteCurrent();
}

int
notifier_arm(mod_state *st, struct notice *notice, const struct hs_op *op,
             struct hs_alarm **ret_alarm)
{
    struct hs_error err = {0};
    hs_err rv = hs_alarm_new(st->notifier, &notice->hooks, notice, op, &err, ret_alarm);

    if (rv == HS_OK)
        return 0;
    notice->hooks.release(notice);
    return rv == HS_E_CLOSED ? 0 : raise_plain_error(st, &err, rv);
}

int
notifier_start(mod_state *st)
{
    struct hs_error err = {0};
    hs_err rv = hs_notifier_start(st->notifier, &err);

    return rv == HS_OK ? 0 : raise_plain_error(st, &err, rv);
}

/* ---- The end of the interpreter ------------------------------------------------------------ */

struct stopping {
    struct hs_notifier *notifier; /* NULL: all of them */
    enum hs_stop how;
};

static void
stop_detached(void *arg)
{
    struct stopping *s = arg;

    if (s->notifier == NULL)
        hs_notifier_stop_each(s->how);
    else
        hs_notifier_stop(s->notifier, s->how);
}

void
notifier_interpreter_ends(mod_state *st)
{
    struct stopping s = {st->notifier, HS_STOP_ALL};

    if (PyInterpreterState_Get() == PyInterpreterState_Main())
        s = (struct stopping){NULL, HS_STOP_IDLE};
    else if (hs_process_ends())
        s.how = HS_STOP_UNSEEN;
    run_detached(stop_detached, &s);
}

/* ---- Life ---------------------------------------------------------------------------------- */

int
notifier_init(mod_state *st)
{
    struct hs_notifier_hooks hooks = {.serve = notifier_serve, .arg = PyInterpreterState_Get()};
    struct hs_error err = {0};
    hs_err rv = hs_notifier_new(&hooks, &err, &st->notifier);

    return rv == HS_OK ? 0 : raise_plain_error(st, &err, rv);
}

/* All objects have gone, and with them all alarms: the thread has nothing to call. */
void
notifier_fini(mod_state *st)
{
    struct stopping s = {st->notifier, hs_process_ends() ? HS_STOP_UNSEEN : HS_STOP_IDLE};

    if (st->notifier == NULL)
        return;
    run_detached(stop_detached, &s);
    hs_notifier_unref(st->notifier);
    st->notifier = NULL;
}

/* ---- Functions ----------------------------------------------------------------------------- */

PyDoc_STRVAR(resume_doc, "_resume_alarms()\n--\n\n"
                         "In a forked child: the alarms of pools go on here, too.");

static PyObject *
core_resume_alarms(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    if (notifier_start(state_of_module(module)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(modules_doc,
             "_modules()\n--\n\n"
             "Count the imports of this module that live in this process: one for each\n"
             "interpreter.");

static PyObject *
core_modules(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    struct hs_live live;

    hs_live_counts(&live);
    return PyLong_FromLong(live.notifiers); /* Each has one, from its beginning to its end. */
}

PyMethodDef notifier_functions[] = {
    {"_modules", core_modules, METH_NOARGS, modules_doc},
    {"_resume_alarms", core_resume_alarms, METH_NOARGS, resume_doc},
    {NULL, NULL, 0, NULL},
};
