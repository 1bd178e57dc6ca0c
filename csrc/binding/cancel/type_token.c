/* type_token.c: the type CancelToken: making, cancelling, asking.
 *
 * An exception that cancels is noted under a number of its own, the cookie, which the core carries:
 * so the one who is woken finds the cause of the cancel that won, and of no other.
 */
#include "token.h"

#include "binding/base/job.h"
#include "binding/base/notifier.h"

#include <string.h>

static _Atomic uint64_t last_cookie;

/* ---- Making tokens ------------------------------------------------------------------------- */

PyObject *
token_make(mod_state *st, PyObject *parents, PyObject *timeout, PyObject *name)
{
    struct hs_token *cores[HS_TOKEN_MAX_PARENTS], *core;
    Py_ssize_t n = PyTuple_GET_SIZE(parents);
    struct hs_error err = {0};
    const char *text = NULL;
    TokenObject *self;
    int64_t span;
    hs_err rv;

    if (parse_seconds(timeout, "timeout", &span) < 0)
        return NULL;
    if (name != NULL && name != Py_None && !PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "name must be a str or None, not %.100s",
                     Py_TYPE(name)->tp_name);
        return NULL;
    }
    if (name != NULL && name != Py_None && (text = PyUnicode_AsUTF8(name)) == NULL)
        return NULL;
    if (n > HS_TOKEN_MAX_PARENTS) {
        PyErr_Format(PyExc_ValueError, "tokens must be at most %d, got %zd", HS_TOKEN_MAX_PARENTS,
                     n);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < n; i++)
        if ((cores[i] = token_core(st, PyTuple_GET_ITEM(parents, i))) == NULL)
            return NULL;
    rv = hs_token_new(cores, (size_t)n, span == HS_NEVER ? HS_NEVER : hs_deadline_after(span), text,
                      &err, &core);
    if (rv != HS_OK) {
        raise_plain_error(st, &err, rv);
        return NULL;
    }
    if ((self = object_new(st, st->token_type)) == NULL) {
        hs_token_unref(core);
        return NULL;
    }
    self->core = core;
    self->parents = Py_NewRef(parents);
    return (PyObject *)self;
}

static const struct params token_params = {"CancelToken", 0, 1, 0, {"timeout", "name"}};

static PyObject *
token_without_parents(mod_state *st, PyObject **values)
{
    PyObject *none = PyTuple_New(0), *self;

    if (none == NULL)
        return NULL;
    self = token_make(st, none, values[0], values[1]);
    Py_DECREF(none);
    return self;
}

static PyObject *
token_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    mod_state *st = state_of_type(type);
    PyObject *values[MAX_PARAMS];

    if (st == NULL || parse_tuple(&token_params, args, kwargs, values) < 0)
        return NULL;
    return token_without_parents(st, values);
}

PyObject *
token_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    mod_state *st = state_of_type((PyTypeObject *)type);
    PyObject *values[MAX_PARAMS];

    if (st == NULL ||
        parse_args(&token_params, args, PyVectorcall_NARGS(nargsf), kwnames, values) < 0)
        return NULL;
    return token_without_parents(st, values);
}

PyDoc_STRVAR(child_doc, "child($self, /, timeout=None, *, name=None)\n--\n\n"
                        "Make a token that ends with this one, by its own timeout, or by itself.");

static PyObject *
token_child(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"child", 0, 1, 0, {"timeout", "name"}};
    PyObject *values[MAX_PARAMS], *parents, *child;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        (parents = PyTuple_Pack(1, self)) == NULL)
        return NULL;
    child = token_make(state_of(self), parents, values[0], values[1]);
    Py_DECREF(parents);
    return child;
}

PyDoc_STRVAR(linked_doc, "linked($type, tokens, /, *, timeout=None, name=None)\n--\n\n"
                         "Make a token that ends as soon as any of the tokens does.");

static PyObject *
token_linked(PyObject *type, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"linked", 1, 1, 1, {"tokens", "timeout", "name"}};
    mod_state *st = state_of_type((PyTypeObject *)type);
    PyObject *values[MAX_PARAMS], *parents, *token;

    if (st == NULL || parse_args(&p, args, nargs, kwnames, values) < 0 ||
        (parents = PySequence_Tuple(values[0])) == NULL)
        return NULL;
    token = token_make(st, parents, values[1], values[2]);
    Py_DECREF(parents);
    return token;
}

static int
token_traverse(PyObject *obj, visitproc visit, void *arg)
{
    TokenObject *self = (TokenObject *)obj;

    HS_VISIT_HEAD(obj);
    Py_VISIT(self->parents);
    Py_VISIT(self->causes);
    Py_VISIT(self->callbacks);
    return 0;
}

static int
token_clear(PyObject *obj)
{
    TokenObject *self = (TokenObject *)obj;

    Py_CLEAR(self->parents);
    Py_CLEAR(self->causes);
    Py_CLEAR(self->callbacks);
    return 0;
}

static void
token_dealloc(PyObject *obj)
{
    TokenObject *self = (TokenObject *)obj;

    PyObject_GC_UnTrack(obj);
    /* clang-format off */
    Py_TRASHCAN_BEGIN(obj, token_dealloc)
        /* clang-format on */
        if (self->weakrefs != NULL) PyObject_ClearWeakRefs(obj);
    hs_alarm_end(self->alarm);
    hs_token_unref(self->core);
    (void)token_clear(obj);
    object_free(obj);
    Py_TRASHCAN_END
}

/* ---- Cancelling ---------------------------------------------------------------------------- */

struct cancelling {
    struct hs_token *core;
    const char *text;
    uint64_t cookie;
    struct hs_callback *fired;
    bool first;
};

static void
cancel_detached(void *arg)
{
    struct cancelling *c = arg;

    c->first = hs_token_cancel(c->core, c->text, c->cookie, &c->fired);
}

/* Noted under a number of its own before anybody can be woken by the cancel. */
static int
note_cause(TokenObject *self, PyObject *cause, uint64_t *ret_cookie)
{
    uint64_t cookie = atomic_fetch_add(&last_cookie, 1) + 1;
    PyObject *key = PyLong_FromUnsignedLongLong(cookie);
    int rv = -1;

    if (key == NULL)
        return -1;
    if (self->causes != NULL || token_make_once((PyObject *)self, &self->causes, PyDict_New()) == 0)
        rv = PyDict_SetItem(self->causes, key, cause);
    Py_DECREF(key);
    if (rv == 0)
        *ret_cookie = cookie;
    return rv;
}

static void
forget_cause(TokenObject *self, uint64_t cookie)
{
    PyObject *key = PyLong_FromUnsignedLongLong(cookie);

    if (key == NULL || self->causes == NULL || PyDict_DelItem(self->causes, key) < 0)
        PyErr_Clear();
    Py_XDECREF(key);
}

PyDoc_STRVAR(cancel_doc,
             "cancel($self, reason=None, /)\n--\n\n"
             "End this token and all its descendants; wake every call that waits under them.\n\n"
             "reason is a str or an exception, which is chained to what those calls raise.\n"
             "Idempotent, callable from any thread. Returns True if this call ended the token,\n"
             "False if it had ended before: the first reason stays. Callbacks run in this thread.");

static PyObject *
cancel_with(TokenObject *self, PyObject *reason)
{
    struct cancelling c = {.core = self->core, .text = ""};
    bool is_exception = reason != NULL && PyExceptionInstance_Check(reason);
    PyObject *text = NULL;

    if (reason != NULL &&
        ((text = PyObject_Str(reason)) == NULL || (c.text = PyUnicode_AsUTF8(text)) == NULL ||
         (is_exception && note_cause(self, reason, &c.cookie) < 0))) {
        Py_XDECREF(text);
        return NULL;
    }
    run_detached(cancel_detached, &c);
    Py_XDECREF(text);
    if (is_exception && !c.first)
        forget_cause(self, c.cookie);
    hs_callbacks_run(c.fired);
    return PyBool_FromLong(c.first);
}

static PyObject *
token_cancel(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"cancel", 0, 1, 1, {"reason"}};
    PyObject *values[MAX_PARAMS], *reason;

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    reason = values[0] == Py_None ? NULL : values[0];
    if (reason != NULL && !PyUnicode_Check(reason) && !PyExceptionInstance_Check(reason)) {
        PyErr_Format(PyExc_TypeError, "reason must be a str, an exception or None, not %.100s",
                     Py_TYPE(reason)->tp_name);
        return NULL;
    }
    return cancel_with((TokenObject *)self, reason);
}

PyDoc_STRVAR(
    between_doc,
    "_ends_only_between_messages($self, /)\n--\n\n"
    "As the token= of a connection's call it ends the wait for the beginning of a message\n"
    "of which nothing has come, and no other.");

static PyObject *
token_ends_only_between_messages(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ((TokenObject *)self)->between_messages = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(check_doc, "check($self, /)\n--\n\n"
                        "Raise Cancelled or DeadlineExceeded if this token has ended.");

static PyObject *
token_check(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct hs_error err = {.op = "check"};
    struct call c = {.st = state_of(self), .err = &err, .started_ns = hs_now()};
    hs_err rv = hs_token_check(((TokenObject *)self)->core);

    if (rv == HS_OK)
        Py_RETURN_NONE;
    c.op = (struct hs_op)HS_OP_INIT(HS_NEVER, ((TokenObject *)self)->core);
    c.given = self;
    raise_error(&c, rv);
    return NULL;
}

static hs_err
attempt_wait(struct job *job)
{
    hs_err rv = hs_token_await(&job->call.op, job->call.err);

    job->u.in_time = rv == HS_OK;
    return rv == HS_E_DEADLINE ? HS_OK : rv;
}

static PyObject *
whether_in_time(struct job *job)
{
    return PyBool_FromLong(job->u.in_time);
}

PyDoc_STRVAR(wait_doc, "wait($self, /, timeout=None)\n--\n\n"
                       "Block until this token has ended: True; False after timeout seconds.\n\n"
                       "The ambient scope does not apply, and nothing is raised when it ends.");

static void
token_begin_wait(PyObject *self, int64_t span, struct job *job)
{
    struct hs_op op = HS_OP_INIT(HS_NEVER, ((TokenObject *)self)->core);

    if (span != HS_NEVER)
        op.deadline_ns = hs_deadline_after(span);
    job->owner = Py_NewRef(self);
    job->call.st = state_of(self);
    job->call.started_ns = hs_now();
    job->call.op = op;
}

static int
token_prepare_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                   struct job *job)
{
    static const struct params p = {"wait", 0, 1, 0, {"timeout"}};
    PyObject *values[MAX_PARAMS];
    int64_t span;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_seconds(values[0], "timeout", &span) < 0)
        return -1;
    token_begin_wait(self, span, job);
    job->attempt = attempt_wait;
    job->result = whether_in_time;
    return 0;
}

STATIC_JOB_METHODS(token, wait)

static hs_err
attempt_wait_for(struct job *job)
{
    struct fd_wait *w = &job->u.fd_wait;

    return hs_token_wait_for(&job->call.op, w->fd, w->events, job->call.err, &w->ready);
}

static PyObject *
what_is_ready(struct job *job)
{
    return PyLong_FromLong(job->u.fd_wait.ready);
}

PyDoc_STRVAR(
    wait_for_doc,
    "_wait_for($self, fd, events, timeout, /)\n--\n\n"
    "Block until a descriptor that is somebody else's has one of the events of poll(2): what\n"
    "it has; 0 when this token has ended, or after timeout seconds.");

static int
token_prepare_wait_for(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                       struct job *job)
{
    static const struct params p = {"_wait_for", 3, 3, 3, {"fd", "events", "timeout"}};
    PyObject *values[MAX_PARAMS];
    int64_t span;
    long fd, events;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[0], "fd", 0, INT32_MAX, &fd) < 0 ||
        parse_long(values[1], "events", 0, INT16_MAX, &events) < 0 ||
        parse_seconds(values[2], "timeout", &span) < 0)
        return -1;
    token_begin_wait(self, span, job);
    job->u.fd_wait = (struct fd_wait){.fd = (int)fd, .events = (short)events};
    job->attempt = attempt_wait_for;
    job->result = what_is_ready;
    return 0;
}

static PyObject *
token_wait_for(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return job_run(token_prepare_wait_for, self, args, nargs, kwnames);
}

PyDoc_STRVAR(set_timeout_doc,
             "set_timeout($self, timeout, /)\n--\n\n"
             "Move the token's own deadline to timeout seconds from now; None takes it away.\n\n"
             "The one who waits under the token sees it at once. An ended token stays ended: then\n"
             "this raises what check() raises.");

struct moving {
    struct hs_token *core;
    int64_t deadline_ns;
    hs_err rv;
};

static void
move_detached(void *arg)
{
    struct moving *m = arg;

    m->rv = hs_token_set_deadline(m->core, m->deadline_ns);
}

static PyObject *
token_set_timeout(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"set_timeout", 1, 1, 1, {"timeout"}};
    struct moving m = {.core = ((TokenObject *)self)->core};
    PyObject *values[MAX_PARAMS];
    int64_t span;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_seconds(values[0], "timeout", &span) < 0)
        return NULL;
    m.deadline_ns = span == HS_NEVER ? HS_NEVER : hs_deadline_after(span);
    run_detached(move_detached, &m);
    if (m.rv != HS_OK)
        return token_check(self, NULL);
    if (span != HS_NEVER && notifier_start(state_of(self)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(fileno_doc,
             "fileno($self, /)\n--\n\n"
             "A descriptor that turns readable when the token ends, by whatever cause.\n\n"
             "Made on first use; it belongs to the token: watch it, never read or close it.");

static PyObject *
token_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct hs_error err = {0};
    int fd;
    hs_err rv = hs_token_fileno(((TokenObject *)self)->core, &err, &fd);

    if (rv != HS_OK) {
        raise_plain_error(state_of(self), &err, rv);
        return NULL;
    }
    return PyLong_FromLong(fd);
}

/* ---- Attributes ---------------------------------------------------------------------------- */

static PyObject *
get_cancelled(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(hs_token_check(((TokenObject *)self)->core) != HS_OK);
}

static PyObject *
get_reason(PyObject *self, void *Py_UNUSED(closure))
{
    struct hs_reason reason;

    if (!hs_token_reason(((TokenObject *)self)->core, &reason))
        Py_RETURN_NONE;
    if (reason.text[0] == '\0')
        return PyUnicode_FromString(hs_err_text(reason.code));
    return PyUnicode_DecodeUTF8(reason.text, (Py_ssize_t)strlen(reason.text), "replace");
}

static PyObject *
get_deadline(PyObject *self, void *Py_UNUSED(closure))
{
    return time_object(hs_token_deadline(((TokenObject *)self)->core));
}

static PyObject *
get_remaining(PyObject *self, void *Py_UNUSED(closure))
{
    int64_t deadline_ns = hs_token_deadline(((TokenObject *)self)->core), now = hs_now();

    if (deadline_ns == HS_NEVER)
        Py_RETURN_NONE;
    return PyFloat_FromDouble(deadline_ns > now ? (double)(deadline_ns - now) / 1e9 : 0.0);
}

static PyObject *
get_name(PyObject *self, void *Py_UNUSED(closure))
{
    const char *name = hs_token_name(((TokenObject *)self)->core);

    return PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "replace");
}

static PyObject *
token_repr(PyObject *self)
{
    struct hs_token *core = ((TokenObject *)self)->core;
    hs_err rv = hs_token_check(core);

    return PyUnicode_FromFormat("<hardsock.CancelToken #%llu%s%s %s>",
                                (unsigned long long)hs_token_id(core),
                                hs_token_name(core)[0] != '\0' ? " " : "", hs_token_name(core),
                                rv == HS_OK ? "live" : hs_err_text(rv));
}

static PyGetSetDef token_getset[] = {
    {"cancelled", get_cancelled, NULL, "Whether the token has ended, by cancel or deadline.", NULL},
    {"reason", get_reason, NULL, "Why it ended, or None.", NULL},
    {"deadline", get_deadline, NULL,
     "Earliest deadline of it and its ancestors, as time.monotonic() tells time, or None.", NULL},
    {"remaining", get_remaining, NULL, "Seconds until that deadline, not below 0, or None.", NULL},
    {"name", get_name, NULL, "Its name for diagnostics.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef token_methods[] = {
    {"child", HS_METHOD(token_child), METH_FASTCALL | METH_KEYWORDS, child_doc},
    {"linked", HS_METHOD(token_linked), METH_FASTCALL | METH_KEYWORDS | METH_CLASS, linked_doc},
    {"cancel", HS_METHOD(token_cancel), METH_FASTCALL | METH_KEYWORDS, cancel_doc},
    {"check", token_check, METH_NOARGS, check_doc},
    {"wait", HS_METHOD(token_wait), METH_FASTCALL | METH_KEYWORDS, wait_doc},
    {"_wait_for", HS_METHOD(token_wait_for), METH_FASTCALL | METH_KEYWORDS, wait_for_doc},
    {"_op_wait", HS_METHOD(token_op_wait), METH_FASTCALL | METH_KEYWORDS, OP_DOC("wait")},
    {"set_timeout", HS_METHOD(token_set_timeout), METH_FASTCALL | METH_KEYWORDS, set_timeout_doc},
    {"fileno", token_fileno, METH_NOARGS, fileno_doc},
    {"on_cancel", token_on_cancel, METH_O, token_on_cancel_doc},
    {"_ends_only_between_messages", token_ends_only_between_messages, METH_NOARGS, between_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(token_doc,
             "CancelToken(timeout=None, *, name=None)\n--\n\n"
             "Something to end calls with, from any thread: by cancel(), or by a deadline.\n\n"
             "timeout: seconds from now until it ends by itself (DeadlineExceeded); None: never.\n"
             "name: what repr() and the messages of calls that its deadline ends say of it.\n"
             "Thread-safe. Once ended it stays ended, and every call under it fails at once.");

static PyMemberDef token_members[] = {
    {"__weaklistoffset__", HS_T_PYSSIZET, offsetof(TokenObject, weakrefs), HS_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot token_slots[] = {
    {Py_tp_new, HS_SLOT(token_new)},
    {Py_tp_dealloc, HS_SLOT(token_dealloc)},
    {Py_tp_traverse, HS_SLOT(token_traverse)},
    {Py_tp_clear, HS_SLOT(token_clear)},
    {Py_tp_repr, HS_SLOT(token_repr)},
    {Py_tp_methods, token_methods},
    {Py_tp_getset, token_getset},
    {Py_tp_members, token_members},
    {Py_tp_doc, (void *)(uintptr_t)token_doc},
    {0, NULL},
};

PyType_Spec token_spec = {
    .name = "hardsock.CancelToken",
    .basicsize = sizeof(TokenObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = token_slots,
};
