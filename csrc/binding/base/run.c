/* run.c: a call's deadline and tokens, and the steps until it ends.
 *
 * Which token ends it: the one given, the ambient scope's, and the one that its connection is bound
 * to; a token of our own where several apply.
 */
#include "run.h"

#include "args.h"
#include "binding/cancel/token.h"

int
call_run(struct call *c, call_fn fn, void *arg)
{
    for (;;) {
        hs_err rv = call_step(c, fn, arg);

        if (rv == HS_OK)
            return 0;
        if (rv != HS_INTR)
            return raise_error(c, rv);
        if (PyErr_CheckSignals() < 0)
            return -1;
    }
}

static int
get_ambient(mod_state *st, PyObject **ret_token)
{
    PyObject *token = NULL;

    if (PyContextVar_Get(st->scope, NULL, &token) < 0)
        return -1;
    if (token == Py_None)
        Py_CLEAR(token);
    *ret_token = token;
    return 0;
}

static bool
is_live(mod_state *st, PyObject *token)
{
    struct hs_token *core = token_core(st, token);

    return core != NULL && hs_token_check(core) == HS_OK;
}

bool
scopes_are_live(mod_state *st, PyObject *bound)
{
    PyObject *ambient = NULL;
    bool live = get_ambient(st, &ambient) == 0 && (ambient == NULL || is_live(st, ambient)) &&
                (bound == NULL || is_live(st, bound));

    Py_XDECREF(ambient);
    if (!live)
        PyErr_Clear();
    return live;
}

/* Both apply: a token that ends with either. Its origin still tells which it was. */
static int
link_tokens(struct call *c, struct hs_token *ambient, struct hs_token *given)
{
    struct hs_token *const both[] = {given, ambient};
    struct hs_token *linked;
    hs_err rv;

    if ((rv = hs_token_new(both, 2, HS_NEVER, NULL, c->err, &linked)) != HS_OK)
        return raise_error(c, rv);
    hs_token_unref(c->linked); /* That of before, which the new one keeps. */
    c->linked = c->op.token = linked;
    return 0;
}

static int
choose_token(struct call *c, PyObject *given)
{
    struct hs_token *ambient = NULL, *explicit = NULL;

    if (get_ambient(c->st, &c->token) < 0)
        return -1;
    if (c->token != NULL && (ambient = token_core(c->st, c->token)) == NULL)
        return -1;
    if (given != NULL && given != Py_None) {
        if ((explicit = token_core(c->st, given)) == NULL)
            return -1;
        c->given = Py_NewRef(given);
    }
    if (explicit != NULL && c->conn != NULL && ((TokenObject *)given)->between_messages) {
        c->op.token = ambient;
        c->op.told = explicit;
        return 0;
    }
    if (explicit == NULL || explicit == ambient) {
        c->op.token = ambient;
        return 0;
    }
    if (ambient != NULL)
        return link_tokens(c, ambient, explicit);
    c->op.token = explicit;
    return 0;
}

/* A call to which nothing else gives an end has that of hs.defaults. A token with a deadline of its
 * own is such an end, also a later one: it was meant for this call. */
static void
limit_by_process(struct call *c)
{
    int64_t span = atomic_load_explicit(&c->st->default_span_ns, memory_order_relaxed);

    if (span == HS_NEVER || c->is_patient || !c->by_default || c->span_ns != HS_NEVER ||
        (c->op.token != NULL && hs_token_deadline(c->op.token) != HS_NEVER))
        return;
    c->by_process = true;
    c->span_ns = span;
    c->op.deadline_ns = span < HS_NEVER - c->started_ns ? c->started_ns + span : c->op.deadline_ns;
}

static void
unlimit_by_process(struct call *c)
{
    if (!c->by_process || hs_token_deadline(c->op.token) == HS_NEVER)
        return;
    c->by_process = false;
    c->op.deadline_ns = c->span_ns = HS_NEVER;
}

int
call_begin(struct call *c, mod_state *st, PyObject *timeout, PyObject *token, int64_t default_ns)
{
    int64_t span;

    c->st = st;
    c->op = (struct hs_op)HS_OP_INIT(HS_NEVER, NULL);
    c->started_ns = hs_now();
    if (parse_seconds(timeout, "timeout", &span) < 0)
        return -1;
    if (timeout == NULL || timeout == Py_None) {
        span = default_ns;
        c->nonblocking = span == 0;
        c->by_default = true;
    }
    c->span_ns = span;
    if (span == 0)
        c->op.deadline_ns = HS_TRY_ONCE;
    else if (span < HS_NEVER - c->started_ns)
        c->op.deadline_ns = c->started_ns + span;
    if (choose_token(c, token) < 0)
        return -1;
    limit_by_process(c);
    return 0;
}

int
call_bind(struct call *c, PyObject *token)
{
    struct hs_token *core = token == NULL ? NULL : token_core(c->st, token);

    c->bound = token;
    if (core == NULL || core == c->op.token)
        return token != NULL && core == NULL ? -1 : 0;
    if (c->op.token != NULL && link_tokens(c, c->op.token, core) < 0)
        return -1;
    if (c->op.token == NULL)
        c->op.token = core;
    unlimit_by_process(c);
    return 0;
}

void
call_end(struct call *c)
{
    hs_token_unref(c->linked);
    Py_XDECREF(c->bound);
    Py_XDECREF(c->token);
    Py_XDECREF(c->given);
}

/* ---- hs.defaults ---------------------------------------------------------------------------- */

PyDoc_STRVAR(default_timeout_doc,
             "_default_timeout($module)\n--\n\n"
             "Seconds that end a call to which nothing else gives an end, or None: see "
             "hardsock.defaults.");

static PyObject *
core_default_timeout(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    int64_t span = atomic_load(&state_of_module(module)->default_span_ns);

    if (span == HS_NEVER)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)span / 1e9);
}

PyDoc_STRVAR(set_default_timeout_doc, "_set_default_timeout($module, seconds, /)\n--\n\n"
                                      "Set what _default_timeout returns.");

static PyObject *
core_set_default_timeout(PyObject *module, PyObject *seconds)
{
    int64_t span;

    if (parse_seconds(seconds, "timeout", &span) < 0)
        return NULL;
    if (span == 0)
        return PyErr_Format(PyExc_ValueError,
                            "timeout must be more than 0 seconds, got %R: a call "
                            "that may not wait at all says timeout=0 itself",
                            seconds);
    atomic_store(&state_of_module(module)->default_span_ns, span);
    Py_RETURN_NONE;
}

PyMethodDef run_functions[] = {
    {"_default_timeout", core_default_timeout, METH_NOARGS, default_timeout_doc},
    {"_set_default_timeout", core_set_default_timeout, METH_O, set_default_timeout_doc},
    {NULL, NULL, 0, NULL},
};
