/* job.c: running a job in the calling thread, and the end of every job.
 *
 * A job that was given up (an error, a signal handler that raised, a task that was cancelled) is
 * told so before its buffers go.
 */
#include "job.h"

static hs_err
attempt(struct call *Py_UNUSED(call), void *arg)
{
    struct job *job = arg;

    return job->attempt(job);
}

hs_err
job_step(struct job *job)
{
    hs_err rv = call_step(&job->call, attempt, job);

    job->ended = rv == HS_OK;
    return rv;
}

PyObject *
job_run_prepared(struct job *job)
{
    if (call_run(&job->call, attempt, job) < 0)
        return NULL;
    job->ended = true;
    return job->result(job);
}

PyObject *
job_run(prepare_fn prepare, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
        PyObject *kwnames)
{
    struct hs_error err = {0};
    struct job job = {.call.err = &err};
    PyObject *result = NULL;

    if (prepare(self, args, nargs, kwnames, &job) == 0)
        result = job_run_prepared(&job);
    job_end(&job);
    return result;
}

void
job_end(struct job *job)
{
    if (!job->ended && job->give_up != NULL)
        job->give_up(job);
    if (job->release != NULL)
        job->release(job);
    call_end(&job->call);
    Py_XDECREF(job->owner);
}
