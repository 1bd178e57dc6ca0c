/* conn_socket.c: the methods of Connection that code written for socket.socket expects, and the
 * questions to the kernel: options, audit, tcp_info.
 */
#include "conn.h"
#include "binding/cancel/token.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_OPTION_BYTES 1024

static PyObject *
conn_socket_fail(ConnObject *self, const struct hs_error *err, hs_err rv)
{
    (void)raise_conn_error(state_of((PyObject *)self), self->core, err, rv);
    return NULL;
}

/* ---- Names --------------------------------------------------------------------------------- */

static PyObject *
conn_socket_name_object(PyObject *obj, const char *op,
                        hs_err (*get)(struct hs_conn *, struct hs_error *, struct hs_addr *))
{
    ConnObject *self = (ConnObject *)obj;
    struct hs_conn *core = conn_core(self, op);
    struct hs_error err = {0};
    struct hs_addr addr;
    hs_err rv;

    if (core == NULL)
        return NULL;
    rv = get(core, &err, &addr);
    return rv == HS_OK ? address_object(&addr) : conn_socket_fail(self, &err, rv);
}

CONN_DOC(getsockname, "getsockname($self, /)\n--\n\nOur address, as socket has it.");
CONN_DOC(getpeername, "getpeername($self, /)\n--\n\nThe peer's address, as socket has it.");

PyObject *
conn_getsockname(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return conn_socket_name_object(self, "getsockname", hs_conn_local_addr);
}

PyObject *
conn_getpeername(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return conn_socket_name_object(self, "getpeername", hs_conn_peer_addr);
}

/* ---- The descriptor ------------------------------------------------------------------------ */

CONN_DOC(pending,
         "pending($self, /)\n--\n\n"
         "How many bytes recv() would return without asking the kernel; never waits.\n\n"
         "select() and its like do not see them: a loop that uses those has to look here before\n"
         "it waits, as with ssl. More than 0 means that recv() would not wait; so it is 1 when\n"
         "there is nothing left but the end of a TLS stream, which has been read already.");

static hs_err
act_pending(struct hs_conn *core, void *arg, struct hs_error *Py_UNUSED(err))
{
    bool ready;
    size_t n = hs_conn_pending(core, &ready);

    *(size_t *)arg = n > 0 ? n : ready;
    return HS_OK;
}

PyObject *
conn_pending(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    size_t n;

    if (conn_act((ConnObject *)self, "pending", act_pending, &n) < 0)
        return NULL;
    return PyLong_FromSize_t(n);
}

CONN_DOC(_is_quiet,
         "_is_quiet($self, /)\n--\n\n"
         "Whether it is open and nothing has come that was not read, nor the peer's end; never\n"
         "waits. For the pools of libraries, which ask before each use.");

PyObject *
conn__is_quiet(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    ConnObject *self = (ConnObject *)obj;
    bool quiet;

    HS_BEGIN_LOCKED(obj); /* Nobody can return it meanwhile. */
    quiet = !conn_is_let_go(self) && hs_conn_is_quiet(self->core);
    HS_END_LOCKED();
    return PyBool_FromLong(quiet);
}

CONN_DOC(dup, "dup($self, /)\n--\n\n"
              "A second Connection on the same socket, with a descriptor and settimeout() of its\n"
              "own: dup(2). TCP ends when both are closed.\n\n"
              "Neither knows what the other reads or half sends, so let one read and the other\n"
              "write. Raises Busy while received bytes are buffered or somebody reads, and\n"
              "ValueError with TLS, or when a pool has lent it.");

PyObject *
conn_dup(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    ConnObject *self = (ConnObject *)obj;
    struct hs_conn *core = conn_core(self, "dup"), *second;
    struct hs_error err = {0};
    struct opening opening;
    PyObject *result;
    hs_err rv;

    if (core == NULL)
        return NULL;
    if (self->pool != NULL) {
        PyErr_SetString(PyExc_ValueError, "dup: a pool has lent this connection, and will lend it "
                                          "to others: detach() it first");
        return NULL;
    }
    if ((rv = hs_conn_dup(core, &err, &second)) != HS_OK)
        return conn_socket_fail(self, &err, rv);
    opening_begin(state_of(obj), &opening, OPENED_ADOPT);
    result = conn_object_new(state_of(obj), second, &opening);
    opening_end(&opening);
    if (result != NULL)
        ((ConnObject *)result)->timeout_ns = atomic_load(&self->timeout_ns);
    return result;
}

CONN_DOC(get_inheritable,
         "get_inheritable($self, /)\n--\n\n"
         "Whether programs that this process starts get the descriptor; False unless set.");

PyObject *
conn_get_inheritable(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    ConnObject *self = (ConnObject *)obj;
    struct hs_conn *core = conn_core(self, "get_inheritable");
    struct hs_error err = {0};
    bool inheritable;
    hs_err rv;

    if (core == NULL)
        return NULL;
    rv = hs_conn_get_inheritable(core, &err, &inheritable);
    return rv == HS_OK ? PyBool_FromLong(inheritable) : conn_socket_fail(self, &err, rv);
}

CONN_DOC(set_inheritable,
         "set_inheritable($self, inheritable, /)\n--\n\n"
         "Whether programs that this process starts get the descriptor (FD_CLOEXEC, PEP 446).\n\n"
         "One that does keeps the connection open after our close().");

static hs_err
act_set_inheritable(struct hs_conn *core, void *on, struct hs_error *err)
{
    return hs_conn_set_inheritable(core, *(int *)on > 0, err);
}

PyObject *
conn_set_inheritable(PyObject *self, PyObject *value)
{
    int on = PyObject_IsTrue(value);

    if (on < 0 || conn_act((ConnObject *)self, "set_inheritable", act_set_inheritable, &on) < 0)
        return NULL;
    Py_RETURN_NONE;
}

CONN_DOC(_decref_socketios,
         "_decref_socketios($self, /)\n--\n\n"
         "What a socket.SocketIO that other code made on it calls when it closes;\n"
         "it counts for nothing here.");

PyObject *
conn__decref_socketios(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_NONE;
}

/* ---- Timeouts ------------------------------------------------------------------------------ */

CONN_DOC(settimeout,
         "settimeout($self, value, /)\n--\n\n"
         "Seconds for each later call that is given no timeout of its own, as a total.\n\n"
         "None: no limit. 0: never wait, raise BlockingIOError.");

PyObject *
conn_settimeout(PyObject *self, PyObject *value)
{
    int64_t span;

    if (parse_seconds(value, "timeout", &span) < 0)
        return NULL;
    atomic_store(conn_timeout(self), span);
    Py_RETURN_NONE;
}

CONN_DOC(gettimeout, "gettimeout($self, /)\n--\n\nWhat settimeout() set: seconds or None.");

PyObject *
conn_gettimeout(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    int64_t span = atomic_load(conn_timeout(self));

    if (span == HS_NEVER)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)span / 1e9);
}

CONN_DOC(bind,
         "bind($self, token, /)\n--\n\n"
         "Let each later call on this connection, and on its files, end with token as well.\n\n"
         "For what is read after the block of a scope has been left, such as the body of an\n"
         "answer: the deadline and the cancel of the request still reach it, from any thread.\n"
         "None: no more. One token at a time; calls in progress go on as they began.");

PyObject *
conn_bind(PyObject *obj, PyObject *token)
{
    ConnObject *self = conn_whose(obj);
    PyObject *old;

    if (token == Py_None)
        token = NULL;
    else if (token_core(state_of(obj), token) == NULL)
        return NULL;
    Py_XINCREF(token);
    HS_BEGIN_LOCKED((PyObject *)self);
    old = self->bound;
    self->bound = token;
    atomic_store(&self->is_bound, token != NULL);
    HS_END_LOCKED();
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

CONN_DOC(setblocking, "setblocking($self, flag, /)\n--\n\n"
                      "True is settimeout(None), False is settimeout(0).");

PyObject *
conn_setblocking(PyObject *self, PyObject *flag)
{
    int on = PyObject_IsTrue(flag);

    if (on < 0)
        return NULL;
    atomic_store(conn_timeout(self), on ? HS_NEVER : 0);
    Py_RETURN_NONE;
}

CONN_DOC(getblocking, "getblocking($self, /)\n--\n\nFalse after settimeout(0).");

PyObject *
conn_getblocking(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(atomic_load(conn_timeout(self)) != 0);
}

struct deadline {
    enum hs_dir dir;
    int64_t span;
};

static hs_err
act_set_deadline(struct hs_conn *core, void *arg, struct hs_error *Py_UNUSED(err))
{
    const struct deadline *d = arg;

    hs_conn_set_deadline(core, d->dir, d->span == HS_NEVER ? HS_NEVER : hs_deadline_after(d->span));
    return HS_OK;
}

static PyObject *
set_deadline(PyObject *self, PyObject *timeout, const char *op, enum hs_dir dir)
{
    struct deadline d = {.dir = dir};

    if (parse_seconds(timeout, "timeout", &d.span) < 0 ||
        conn_act((ConnObject *)self, op, act_set_deadline, &d) < 0)
        return NULL;
    Py_RETURN_NONE;
}

CONN_DOC(set_read_deadline,
         "set_read_deadline($self, timeout, /)\n--\n\n"
         "End all reading, present and future, timeout seconds from now; None: no deadline.\n\n"
         "Callable from any thread; 0 wakes a blocked read at once. Stays until changed.");
CONN_DOC(set_write_deadline,
         "set_write_deadline($self, timeout, /)\n--\n\n"
         "End all writing, present and future, timeout seconds from now; None: no deadline.\n\n"
         "Callable from any thread; 0 wakes a blocked write at once. Stays until changed.");

PyObject *
conn_set_read_deadline(PyObject *self, PyObject *timeout)
{
    return set_deadline(self, timeout, "set_read_deadline", HS_DIR_IN);
}

PyObject *
conn_set_write_deadline(PyObject *self, PyObject *timeout)
{
    return set_deadline(self, timeout, "set_write_deadline", HS_DIR_OUT);
}

CONN_DOC(set_half_closed_timeout,
         "set_half_closed_timeout($self, timeout, /)\n--\n\n"
         "Once one direction has ended, give the other at most timeout seconds; None: no limit.\n\n"
         "After close_write() it bounds reading, after the peer's end writing: then the\n"
         "direction's deadline is moved there, unless it has an earlier one.");

static hs_err
act_set_half_closed(struct hs_conn *core, void *span, struct hs_error *Py_UNUSED(err))
{
    hs_conn_set_half_closed(core, *(int64_t *)span);
    return HS_OK;
}

PyObject *
conn_set_half_closed_timeout(PyObject *self, PyObject *timeout)
{
    int64_t span;

    if (parse_seconds(timeout, "timeout", &span) < 0 ||
        conn_act((ConnObject *)self, "set_half_closed_timeout", act_set_half_closed, &span) < 0)
        return NULL;
    Py_RETURN_NONE;
}

CONN_DOC(set_min_receive_rate,
         "set_min_receive_rate($self, bytes_per_second, /, *, grace=1.0)\n--\n\n"
         "Have every message that has begun come on at this rate at least; None: no minimum.\n\n"
         "For recv_exactly(), peek(), and all calls for lines and frames: from the first byte of\n"
         "a message on it has grace seconds plus a second for each bytes_per_second bytes. A\n"
         "sender that is slower makes them raise DeadlineExceeded with phase 'min_rate'.");

struct rate {
    long per_s;
    int64_t grace;
};

static hs_err
act_set_min_rate(struct hs_conn *core, void *arg, struct hs_error *Py_UNUSED(err))
{
    const struct rate *r = arg;

    hs_conn_set_min_rate(core, (uint64_t)r->per_s, r->grace);
    return HS_OK;
}

PyObject *
conn_set_min_receive_rate(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    static const struct params p = {"set_min_receive_rate", 1, 1, 1, {"bytes_per_second", "grace"}};
    PyObject *values[MAX_PARAMS];
    struct rate r = {0};

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_seconds(values[1], "grace", &r.grace) < 0)
        return NULL;
    if (values[0] != Py_None &&
        parse_long(values[0], "bytes_per_second", 1, LONG_MAX, &r.per_s) < 0)
        return NULL;
    if (values[1] == NULL)
        r.grace = 1000 * 1000 * 1000;
    if (r.grace == HS_NEVER) {
        PyErr_SetString(PyExc_ValueError, "grace must be a finite number of seconds");
        return NULL;
    }
    if (conn_act((ConnObject *)self, "set_min_receive_rate", act_set_min_rate, &r) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- Options ------------------------------------------------------------------------------- */

CONN_DOC(getsockopt, "getsockopt($self, level, optname, buflen=0, /)\n--\n\n"
                     "getsockopt(2): an int, or bytes of at most buflen when buflen is not 0.");

struct option {
    long level, name;
    void *value;
    socklen_t len;
};

/* SO_ERROR is a question that takes the answer away. */
static hs_err
act_getsockopt(struct hs_conn *core, void *arg, struct hs_error *err)
{
    struct option *o = arg;

    return hs_conn_getsockopt(core, (int)o->level, (int)o->name, o->value, &o->len, err);
}

PyObject *
conn_getsockopt(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"getsockopt", 2, 3, 3, {"level", "optname", "buflen"}};
    PyObject *values[MAX_PARAMS];
    char bytes[MAX_OPTION_BYTES];
    struct option o = {0};
    long size = 0;
    int number = 0;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[0], "level", INT32_MIN, INT32_MAX, &o.level) < 0 ||
        parse_long(values[1], "optname", INT32_MIN, INT32_MAX, &o.name) < 0 ||
        parse_long(values[2], "buflen", 0, MAX_OPTION_BYTES, &size) < 0)
        return NULL;
    o.value = size == 0 ? (void *)&number : bytes;
    o.len = size == 0 ? sizeof(number) : (socklen_t)size;
    if (conn_act((ConnObject *)self, "getsockopt", act_getsockopt, &o) < 0)
        return NULL;
    return size == 0 ? PyLong_FromLong(number) : PyBytes_FromStringAndSize(bytes, o.len);
}

CONN_DOC(setsockopt, "setsockopt($self, level, optname, value, /)\n--\n\n"
                     "setsockopt(2) with an int or a bytes-like value.");

static hs_err
act_setsockopt(struct hs_conn *core, void *arg, struct hs_error *err)
{
    const struct option *o = arg;

    return hs_conn_setsockopt(core, (int)o->level, (int)o->name, o->value, o->len, err);
}

PyObject *
conn_setsockopt(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"setsockopt", 3, 3, 3, {"level", "optname", "value"}};
    PyObject *values[MAX_PARAMS];
    struct option o = {0};
    Py_buffer view = {0};
    long value;
    int number, rv;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[0], "level", INT32_MIN, INT32_MAX, &o.level) < 0 ||
        parse_long(values[1], "optname", INT32_MIN, INT32_MAX, &o.name) < 0)
        return NULL;
    if (PyIndex_Check(values[2])) {
        value = PyLong_AsLong(values[2]); /* bool too: socket code says setsockopt(.., True) */
        if (value == -1 && PyErr_Occurred())
            return NULL;
        if (value < INT32_MIN || value > UINT32_MAX) {
            PyErr_Format(PyExc_ValueError, "value must fit 32 bits, got %ld", value);
            return NULL;
        }
        number = (int)value;
        o.value = &number;
        o.len = sizeof(number);
    } else {
        if (PyObject_GetBuffer(values[2], &view, PyBUF_SIMPLE) < 0)
            return NULL;
        o.value = view.buf;
        o.len = (socklen_t)view.len;
    }
    rv = conn_act((ConnObject *)self, "setsockopt", act_setsockopt, &o);
    if (view.obj != NULL)
        PyBuffer_Release(&view);
    if (rv < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *
settings_list(mod_state *st, const struct hs_setting *settings, size_t n)
{
    PyObject *list = hs_list_new((Py_ssize_t)n);

    for (size_t i = 0; list != NULL && i < n; i++) {
        const struct hs_setting *s = &settings[i];
        PyObject *asked = s->asked == HS_UNSET ? Py_NewRef(Py_None) : PyLong_FromLong(s->asked);
        PyObject *effective =
            s->effective == HS_UNSET ? Py_NewRef(Py_None) : PyLong_FromLong(s->effective);
        PyObject *item = PyObject_CallFunction(st->setting, "sNNOs", s->name, asked, effective,
                                               s->differs ? Py_True : Py_False, s->limited_by);

        if (item == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

CONN_DOC(audit,
         "audit($self, /)\n--\n\n"
         "List every socket setting: what was asked, what the kernel says is in effect, and\n"
         "the sysctl that limited it where the two differ.");

PyObject *
conn_audit(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    ConnObject *self = (ConnObject *)obj;
    struct hs_conn *core = conn_core(self, "audit");
    struct hs_setting settings[HS_SETTINGS_MAX];
    struct hs_error err = {0};
    size_t n;
    hs_err rv;

    if (core == NULL)
        return NULL;
    rv = hs_conn_audit(core, settings, &err, &n);
    return rv == HS_OK ? settings_list(state_of(obj), settings, n)
                       : conn_socket_fail(self, &err, rv);
}

/* ---- tcp_info ------------------------------------------------------------------------------ */

CONN_DOC(tcp_info,
         "tcp_info($self, /)\n--\n\n"
         "The kernel's view of this TCP connection (TCP_INFO, tcp(7)), as a dict of ints.\n\n"
         "Times are in microseconds (rtt, rto, busy_time ...) or milliseconds (last_*), as the\n"
         "kernel has them. Fields that an older kernel does not fill are left out.");

PyObject *
conn_tcp_info(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    ConnObject *self = (ConnObject *)obj;
    struct hs_conn *core = conn_core(self, "tcp_info");
    struct hs_error err = {0};
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    hs_err rv;

    if (core == NULL)
        return NULL;
    if ((rv = hs_conn_getsockopt(core, IPPROTO_TCP, TCP_INFO, &info, &len, &err)) != HS_OK)
        return conn_socket_fail(self, &err, rv);
    return tcp_fields_dict(&info, len);
}
