/* errors.c: from a core error to a Python exception that says what, where, how long and why.
 *
 * One switch maps codes to classes. Details are attributes, set one by one: a detail that cannot be
 * made is left out rather than hiding the error itself.
 */
#include "errors.h"

#include "args.h"
#include "detach.h"
#include "tracking.h"
#include "binding/cancel/token.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>

static PyObject *
class_of(mod_state *st, const struct hs_error *err, hs_err code)
{
    switch (code) {
    case HS_E_INVALID:
        return PyExc_ValueError;
    case HS_E_FORKED:
        return st->wrong_process;
    case HS_E_DEADLINE:
        return st->deadline_exceeded;
    case HS_E_LIMIT:
        return st->pool_refused;
    case HS_E_CANCELLED:
        return st->cancelled;
    case HS_E_CLOSED:
        return st->closed;
    case HS_E_BUSY:
        return st->busy;
    case HS_E_POISONED:
        return st->poisoned;
    case HS_E_RESET:
        return err->sys == EPIPE ? st->broken_pipe : st->reset;
    case HS_E_TRUNCATED:
        return st->truncated;
    case HS_E_END:
        return st->end_of_stream;
    case HS_E_DEAD_PEER:
        return st->dead_peer;
    case HS_E_RESOLVE:
        return st->resolve_error;
    case HS_E_CONNECT:
        return err->sys == ECONNREFUSED ? st->connection_refused : st->connect_error;
    case HS_E_BREAKER_OPEN:
        return st->breaker_open;
    case HS_E_NOMEM:
        return PyExc_MemoryError;
    case HS_E_FRAME_TOO_LARGE:
        return st->frame_too_large;
    case HS_E_BAD_FRAME:
        return st->bad_frame;
    case HS_E_TLS:
        return st->tls_error;
    case HS_E_CERTIFICATE:
        return st->certificate_error;
    default:
        return st->socket_error;
    }
}

/* What code written for socket looks at. */
static int
errno_of(const struct hs_error *err, hs_err code)
{
    switch (code) {
    case HS_E_DEADLINE:
        return ETIMEDOUT;
    case HS_E_CANCELLED:
        return ECANCELED;
    case HS_E_CLOSED:
    case HS_E_FORKED:
        return EBADF;
    case HS_E_BUSY:
        return EBUSY;
    case HS_E_POISONED:
        return EPIPE;
    case HS_E_RESET:
        return err->sys != 0 ? err->sys : ECONNRESET;
    case HS_E_DEAD_PEER:
        return err->sys != 0 ? err->sys : ETIMEDOUT;
    case HS_E_RESOLVE:
        return err->gai;
    case HS_E_FRAME_TOO_LARGE:
        return EMSGSIZE;
    case HS_E_BAD_FRAME:
        return EBADMSG;
    case HS_E_TLS:
    case HS_E_CERTIFICATE:
        return 1; /* ssl.SSL_ERROR_SSL */
    default:
        return err->sys;
    }
}

/* Steals value; an attribute that cannot be made is not worth losing the error for. dict is the
 * exception's own, borrowed. */
void
error_put(PyObject *dict, PyObject *name, PyObject *value)
{
    if (value == NULL || PyDict_SetItem(dict, name, value) < 0)
        PyErr_Clear();
    Py_XDECREF(value);
}

static void
add_tls(mod_state *st, const struct hs_error *err, PyObject *dict)
{
    error_put(dict, st->str_failure, PyUnicode_FromString(hs_tls_failure_name(err->tls)));
    if (err->tls == HS_TLS_ALERT)
        error_put(dict, st->str_alert, PyLong_FromLong(err->alert));
    if (err->code != HS_E_CERTIFICATE)
        return;
    error_put(dict, st->str_verify_code, PyLong_FromLong(err->verify));
    error_put(dict, st->str_verify_message, text_object(err->msg));
}

static PyObject *
exception_of(mod_state *st, PyObject *cls, const struct hs_error *err, hs_err code)
{
    const char *msg = err->msg[0] != '\0' ? err->msg : hs_err_text(code);
    int number = errno_of(err, code);
    PyObject *exc, *dict;

    if (cls == PyExc_ValueError || cls == PyExc_MemoryError)
        return PyObject_CallFunction(cls, "N", text_object(msg));
    exc = number != 0 ? PyObject_CallFunction(cls, "iN", number, text_object(msg))
                      : PyObject_CallFunction(cls, "ON", Py_None, text_object(msg));
    if (exc == NULL)
        return NULL;
    if ((dict = PyObject_GenericGetDict(exc, NULL)) == NULL) {
        Py_DECREF(exc);
        return NULL;
    }
    if (err->op != NULL)
        error_put(dict, st->str_op, PyUnicode_FromString(err->op));
    if (err->phase != NULL)
        error_put(dict, st->str_phase, PyUnicode_FromString(err->phase));
    if (err->tls != HS_TLS_NONE)
        add_tls(st, err, dict);
    Py_DECREF(dict);
    return exc;
}

PyObject *
error_raw_address(const struct hs_addr *addr)
{
    if (addr->len == 0)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)&addr->storage, (Py_ssize_t)addr->len);
}

/* As the kernel has them: most errors are handled without anybody reading them. */
static void
add_addresses(mod_state *st, struct hs_conn *conn, PyObject *dict)
{
    struct hs_addr local, peer;

    hs_conn_addresses(conn, &local, &peer);
    error_put(dict, st->str__local, error_raw_address(&local));
    error_put(dict, st->str__peer, error_raw_address(&peer));
}

static PyObject *
exception_new(mod_state *st, const struct hs_error *err, hs_err code)
{
    return exception_of(st, class_of(st, err, code), err, code);
}

int
raise_plain_error(mod_state *st, const struct hs_error *err, hs_err code)
{
    PyObject *exc = exception_new(st, err, code);

    if (exc != NULL)
        hs_raise(exc);
    return -1;
}

int
raise_conn_error(mod_state *st, struct hs_conn *conn, const struct hs_error *err, hs_err code)
{
    PyObject *exc = exception_new(st, err, code), *dict;

    if (exc == NULL)
        return -1;
    if (!PyObject_TypeCheck(exc, (PyTypeObject *)st->hardsock_error)) {
        hs_raise(exc);
        return -1;
    }
    if ((dict = PyObject_GenericGetDict(exc, NULL)) == NULL)
        PyErr_Clear();
    else
        add_addresses(st, conn, dict);
    Py_XDECREF(dict);
    hs_raise(exc);
    return -1;
}

static void
add_oversize(mod_state *st, const struct hs_oversize *o, PyObject *dict)
{
    error_put(dict, st->str_limit, PyLong_FromSize_t(o->limit));
    if (o->size_known)
        error_put(dict, st->str_size, PyLong_FromUnsignedLongLong(o->size));
    error_put(dict, st->str_recoverable, PyBool_FromLong(o->recoverable));
    error_put(dict, st->str_discarded, PyLong_FromUnsignedLongLong(o->discarded));
}

int
raise_frame_error(mod_state *st, const struct hs_error *err, hs_err code,
                  const struct hs_oversize *o)
{
    PyObject *exc = exception_new(st, err, code), *dict;

    if (exc == NULL)
        return -1;
    if (code == HS_E_FRAME_TOO_LARGE) {
        if ((dict = PyObject_GenericGetDict(exc, NULL)) == NULL)
            PyErr_Clear();
        else
            add_oversize(st, o, dict);
        Py_XDECREF(dict);
    }
    hs_raise(exc);
    return -1;
}

/* Takes address. */
static void
add_refusal(mod_state *st, const struct hs_error *err, PyObject *address, PyObject *dict)
{
    int64_t now = hs_now();
    double after = err->retry_ns > now ? (double)(err->retry_ns - now) / 1e9 : 0;

    error_put(dict, st->str_address, address);
    error_put(dict, st->str_last_error,
              PyUnicode_FromString(hs_fail_name((enum hs_fail)err->last_failure)));
    if (err->retry_ns != HS_NEVER)
        error_put(dict, st->str_retry_after, PyFloat_FromDouble(after));
}

int
raise_breaker_open(mod_state *st, const struct hs_error *err, PyObject *address)
{
    PyObject *exc = exception_new(st, err, HS_E_BREAKER_OPEN), *dict;

    if (exc == NULL || (dict = PyObject_GenericGetDict(exc, NULL)) == NULL) {
        Py_XDECREF(exc);
        Py_XDECREF(address);
        return -1;
    }
    add_refusal(st, err, address, dict);
    Py_DECREF(dict);
    hs_raise(exc);
    return -1;
}

static bool
ended_with(struct hs_token *t, hs_err code, struct hs_reason *ret_reason)
{
    return t != NULL && hs_token_reason(t, ret_reason) && ret_reason->code == code;
}

/* Whether the connection has ended the call by itself. */
static bool
add_quiet_reason(struct call *c, PyObject *dict)
{
    struct hs_conn_info info;
    char idle[64];

    if (strcmp(c->err->phase, "drain") == 0) {
        error_put(dict, c->st->str_reason,
                  PyUnicode_FromString("the server is draining and this connection was idle"));
        return true;
    }
    if (strcmp(c->err->phase, "idle_timeout") != 0)
        return false;
    hs_conn_info(c->conn, &info);
    (void)snprintf(idle, sizeof(idle), "idle for %.6g s", (double)info.idle_timeout_ns / 1e9);
    error_put(dict, c->st->str_reason, PyUnicode_FromString(idle));
    return true;
}

static void
add_reason(struct call *c, hs_err code, PyObject *dict, PyObject *exc)
{
    mod_state *st = c->st;
    struct hs_reason reason;
    PyObject *cause = NULL;

    if (c->conn != NULL && c->err->phase != NULL && add_quiet_reason(c, dict))
        return;
    /* The call's own deadline may have come first, and the token's end since. */
    if (!ended_with(c->op.token, code, &reason) && !ended_with(c->op.told, code, &reason))
        return;
    if (reason.text[0] != '\0')
        error_put(dict, st->str_reason, text_object(reason.text));
    if (reason.cookie == 0)
        return;
    if (c->given != NULL)
        cause = token_cause(c->given, &reason);
    if (cause == NULL && c->token != NULL)
        cause = token_cause(c->token, &reason);
    if (cause == NULL && c->bound != NULL)
        cause = token_cause(c->bound, &reason);
    if (cause != NULL)
        PyException_SetCause(exc, cause);
}

/* ---- Which of several limits it was -------------------------------------------------------- */

struct limit {
    int64_t at_ns;
    char text[128];
};

static void
consider(struct limit *l, int64_t at_ns, const char *text)
{
    if (at_ns >= l->at_ns)
        return;
    l->at_ns = at_ns;
    (void)snprintf(l->text, sizeof(l->text), "%s", text);
}

static void
consider_token(struct limit *l, mod_state *st, PyObject *token, bool ambient)
{
    struct hs_token *core = token == NULL ? NULL : token_core(st, token);
    const char *name = core == NULL ? "" : hs_token_name(core);
    char text[128];

    if (core == NULL) {
        PyErr_Clear();
        return;
    }
    if (name[0] != '\0')
        (void)snprintf(text, sizeof(text), "the %s %s", ambient ? "scope" : "token", name);
    else
        (void)snprintf(text, sizeof(text), "%s", ambient ? "the scope around it" : "its token");
    consider(l, hs_token_deadline(core), text);
}

/* A call that was late from the start has no phase that tells its direction; what sends needs no
 * more than the one. */
static bool
only_sends(const struct call *c, const char *phase)
{
    return strcmp(phase, "write") == 0 || (strcmp(phase, "start") == 0 && c->err->op != NULL &&
                                           strncmp(c->err->op, "send", strlen("send")) == 0);
}

static bool
only_receives(const struct call *c, const char *phase)
{
    return strcmp(phase, "read") == 0 || (strcmp(phase, "start") == 0 && c->err->op != NULL &&
                                          (strncmp(c->err->op, "recv", strlen("recv")) == 0 ||
                                           strncmp(c->err->op, "read", strlen("read")) == 0));
}

static void
consider_conn(struct limit *l, const struct call *c)
{
    const char *phase = c->err->phase != NULL ? c->err->phase : "";

    if (c->conn == NULL)
        return;
    if (!only_sends(c, phase))
        consider(l, hs_conn_get_deadline(c->conn, HS_DIR_IN), "set_read_deadline");
    if (!only_receives(c, phase))
        consider(l, hs_conn_get_deadline(c->conn, HS_DIR_OUT), "set_write_deadline");
}

/* What the caller gave: the earliest is what ended the call. */
static void
consider_own(struct limit *l, const struct call *c)
{
    char text[64];

    if (c->op.deadline_ns == HS_TRY_ONCE)
        (void)snprintf(text, sizeof(text), "timeout=0");
    else
        (void)snprintf(text, sizeof(text),
                       c->by_process   ? "hs.defaults(timeout=%g)"
                       : c->by_default ? "settimeout(%g)"
                                       : "timeout=%g",
                       (double)c->span_ns / 1e9);
    consider(l, c->op.deadline_ns, text);
    consider_token(l, c->st, c->given, false);
    consider_token(l, c->st, c->token, true);
    consider_token(l, c->st, c->bound, false);
    consider_conn(l, c);
}

/* Some have a limit of their own, which their phase or their origin tells. */
static void
add_limit(struct call *c, PyObject *dict)
{
    const char *phase = c->err->phase != NULL ? c->err->phase : "";
    struct limit l = {.at_ns = HS_NEVER};

    if (strcmp(phase, "min_rate") == 0)
        consider(&l, 0, "set_min_receive_rate");
    else if (strcmp(phase, "read_timeout") == 0)
        consider(&l, 0, "read_timeout of the server");
    else if (strcmp(phase, "write_timeout") == 0)
        consider(&l, 0, "write_timeout of the server");
    else if (c->err->origin == HS_ORIGIN_DIAL)
        consider(&l, 0, "dial_timeout of the pool");
    else
        consider_own(&l, c);
    if (l.at_ns > hs_now() && strcmp(phase, "tls") == 0)
        (void)snprintf(l.text, sizeof(l.text), "handshake_timeout of the TLSConfig");
    if (l.text[0] != '\0')
        error_put(dict, c->st->str_limit, text_object(l.text));
}

PyObject *
attempts_tuple(mod_state *st, const struct call_route *r)
{
    static const char *const phases[] = {
        [HS_ATTEMPT_SOCKET] = "socket",   [HS_ATTEMPT_BIND] = "bind",
        [HS_ATTEMPT_CONNECT] = "connect", [HS_ATTEMPT_TLS] = "tls",
        [HS_ATTEMPT_DONE] = "done",       [HS_ATTEMPT_SKIPPED] = "skipped"};
    PyObject *tuple = PyTuple_New((Py_ssize_t)r->n);

    for (size_t i = 0; tuple != NULL && i < r->n; i++) {
        const struct hs_attempt *a = &r->attempts[i];
        int64_t end = a->ended_ns != 0 ? a->ended_ns : hs_now();
        PyObject *item = PyObject_CallFunction(
            st->attempt, "Nsiddz", address_text(&a->addr), phases[a->phase], a->sys,
            (double)(a->started_ns - r->began_ns) / 1e9, (double)(end - r->began_ns) / 1e9,
            a->tls != HS_TLS_NONE ? hs_tls_failure_name(a->tls) : NULL);

        if (item == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, item);
    }
    return tuple;
}

/* Where it was going: what was asked for, and the address if there was only one. */
static void
add_route(mod_state *st, const struct call_route *r, PyObject *dict)
{
    error_put(dict, st->str_attempts, attempts_tuple(st, r));
    if (r->n == 1)
        error_put(dict, st->str__peer, error_raw_address(&r->attempts[0].addr));
    error_put(dict, st->str_host, text_object(r->endpoint));
}

struct hinting {
    const struct hs_error *err;
    int sys;
    const struct hs_addr *peer;
    struct hs_conn *conn;
    const char *endpoint; /* what was to be connected to; "": nothing was */
    char text[512];
};

static void
find_hint(void *arg)
{
    struct hinting *h = arg;

    if (h->conn != NULL)
        (void)hs_conn_hint(h->conn, h->err, h->text, sizeof(h->text));
    if (h->text[0] == '\0')
        (void)hs_hint(h->err, h->sys, h->peer, h->text, sizeof(h->text));
    if (h->endpoint[0] != '\0')
        hs_hint_history(h->endpoint, h->text, sizeof(h->text));
}

static void
add_hint(struct call *c, hs_err code, const struct call_route *r, PyObject *dict)
{
    struct hinting h = {
        .err = c->err, .sys = c->err->sys, .conn = c->conn, .endpoint = r->endpoint};

    if (code == HS_E_CANCELLED || (code == HS_E_DEADLINE && c->op.deadline_ns == HS_TRY_ONCE))
        return; /* Its class says what there is to say. */
    if (code == HS_E_BREAKER_OPEN)
        return; /* Its class says that it has failed before, and until when. */
    h.peer = r->n > 0 ? &r->attempts[0].addr : r->target;
    if (code == HS_E_DEADLINE && r->n > 0 && c->err->tls == HS_TLS_NONE)
        h.sys = ETIMEDOUT;
    run_detached(find_hint, &h); /* Counting 28,000 sockets takes a while. */
    if (h.text[0] != '\0')
        error_put(dict, c->st->str_hint, text_object(h.text));
}

/* What the peer said before it reset us: see keep_last_words in the core. */
static void
add_answer(struct call *c, PyObject *dict)
{
    struct hs_conn_info info;
    PyObject *bytes;
    size_t n;

    hs_conn_info(c->conn, &info);
    if (info.buffered == 0 ||
        (bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)info.buffered)) == NULL) {
        PyErr_Clear();
        return;
    }
    n = hs_conn_copy_buffered(c->conn, (uint8_t *)PyBytes_AS_STRING(bytes), info.buffered);
    if (_PyBytes_Resize(&bytes, (Py_ssize_t)n) < 0)
        PyErr_Clear();
    else
        error_put(dict, c->st->str_answer, bytes);
}

/* What the code says, each with its own attributes. */
static void
add_by_code(struct call *c, hs_err code, const struct call_route *r, PyObject *dict, PyObject *exc)
{
    switch (code) {
    case HS_E_DEADLINE:
        add_reason(c, code, dict, exc);
        add_limit(c, dict);
        break;
    case HS_E_CANCELLED:
        add_reason(c, code, dict, exc);
        break;
    case HS_E_FRAME_TOO_LARGE:
        add_oversize(c->st, &c->err->oversize, dict);
        break;
    case HS_E_BREAKER_OPEN:
        if (r->refused != NULL)
            add_refusal(c->st, c->err, address_text(r->refused), dict);
        break;
    case HS_E_RESET:
        if (c->conn != NULL)
            add_answer(c, dict);
        break;
    default:
        break;
    }
}

static void
add_details(struct call *c, hs_err code, PyObject *exc)
{
    mod_state *st = c->st;
    struct call_route route = {0};
    PyObject *dict = PyObject_GenericGetDict(exc, NULL);

    if (dict == NULL) {
        PyErr_Clear();
        return;
    }
    if (c->kind != NULL && c->kind->route != NULL)
        c->kind->route(c, &route);
    error_put(dict, st->str_elapsed, PyFloat_FromDouble((double)(hs_now() - c->started_ns) / 1e9));
    if (c->op.done > 0)
        error_put(dict, st->str_bytes_done, PyLong_FromSize_t(c->op.done));
    add_by_code(c, code, &route, dict, exc);
    if (c->conn != NULL)
        add_addresses(st, c->conn, dict);
    if (route.endpoint[0] != '\0')
        add_route(st, &route, dict);
    if (c->kind != NULL && c->kind->describe != NULL)
        c->kind->describe(c, code, dict);
    add_hint(c, code, &route, dict);
    Py_DECREF(dict);
}

int
raise_error(struct call *c, hs_err code)
{
    PyObject *exc, *cls = NULL;

    tracking_failed(c->st, c->err->sys);
    if (code == HS_E_DEADLINE && c->nonblocking &&
        (c->op.token == NULL || hs_token_check(c->op.token) == HS_OK)) {
        errno = EAGAIN;
        PyErr_SetFromErrno(PyExc_BlockingIOError);
        return -1;
    }
    if (c->kind != NULL && c->kind->class_of != NULL)
        cls = c->kind->class_of(c, code);
    exc = exception_of(c->st, cls != NULL ? cls : class_of(c->st, c->err, code), c->err, code);
    if (exc == NULL)
        return -1;
    if (PyObject_TypeCheck(exc, (PyTypeObject *)c->st->hardsock_error))
        add_details(c, code, exc);
    if (c->kind != NULL && c->kind->explain != NULL)
        c->kind->explain(c, code, exc);
    hs_raise(exc);
    return -1;
}
