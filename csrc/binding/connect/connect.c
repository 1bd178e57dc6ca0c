/* connect.c: the module's functions that make connections: connect, resolve, adopt.
 *
 * Each makes a connector, runs it detached, and frees it; what it learned goes into the result or
 * into the exception before that.
 */
#include "binding/base/job.h"
#include "binding/stream/tls.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

static hs_err
attempt_connect(struct job *job)
{
    struct connecting *connecting = &job->u.connecting;

    return hs_connector_run(connecting->connector, &job->call.op, job->call.err, &connecting->conn);
}

static hs_err
attempt_resolve(struct job *job)
{
    return hs_connector_resolve(job->u.connecting.connector, &job->call.op, job->call.err);
}

static void
connecting_route(const struct call *c, struct call_route *route)
{
    struct hs_connector *connector = c->about;

    route->attempts = hs_connector_attempts(connector, &route->n);
    route->began_ns = c->started_ns;
    route->refused = hs_connector_refused(connector);
    (void)hs_endpoint_text(hs_connector_endpoint(connector), route->endpoint,
                           sizeof(route->endpoint));
}

/* (family, started, ended, addresses, error) of each lookup, seconds since began_ns. */
static PyObject *
lookups_tuple(const struct call *c)
{
    size_t n;
    const struct hs_answer *answers = hs_connector_answers(c->about, &n);
    PyObject *tuple = PyTuple_New((Py_ssize_t)n);

    for (size_t i = 0; tuple != NULL && i < n; i++) {
        const struct hs_answer *a = &answers[i];
        int64_t end = a->finished ? a->finished_ns : hs_now();
        PyObject *item =
            Py_BuildValue("iddnz", a->family, (double)(a->started_ns - c->started_ns) / 1e9,
                          (double)(end - c->started_ns) / 1e9, (Py_ssize_t)a->n,
                          a->gai != 0   ? gai_strerror(a->gai)
                          : a->finished ? NULL
                                        : "called off");

        if (item == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, item);
    }
    return tuple;
}

/* What became of the call is settled, and stays: want of memory only leaves the list empty. */
static void
tell_timeline(struct job *job)
{
    PyObject *type, *value, *traceback, *told;
    struct call_route route = {0};

    if (job->u.connecting.timeline == NULL || job->u.connecting.connector == NULL)
        return;
    connecting_route(&job->call, &route);
    PyErr_Fetch(&type, &value, &traceback);
    told = PyTuple_New(2);
    if (told != NULL) {
        PyTuple_SET_ITEM(told, 0, lookups_tuple(&job->call));
        PyTuple_SET_ITEM(told, 1,
                         PyTuple_GET_ITEM(told, 0) ? attempts_tuple(job->call.st, &route) : NULL);
        if (PyTuple_GET_ITEM(told, 1) != NULL)
            (void)PyList_Append(job->u.connecting.timeline, told);
        Py_DECREF(told);
    }
    PyErr_Restore(type, value, traceback);
}

static void
release_connecting(struct job *job)
{
    tell_timeline(job);
    Py_CLEAR(job->u.connecting.timeline);
    hs_conn_unref(job->u.connecting.conn);
    hs_connector_free(job->u.connecting.connector);
    opening_end(&job->u.connecting.opening);
}

static PyObject *
take_connection(struct job *job)
{
    struct hs_conn *conn = job->u.connecting.conn;

    job->u.connecting.conn = NULL;
    return conn_object_new(job->call.st, conn, &job->u.connecting.opening);
}

enum {
    ADDRESS,
    TIMEOUT,
    TOKEN,
    SOCKOPTS,
    SOURCE,
    FAMILY_PARAM,
    ATTEMPT_DELAY,
    MAX_IN_FLIGHT,
    TLS,
    SERVER_NAME,
    COMMIT_AT_TLS,
    BREAKER,
    LIMITS,
    TIMELINE,
};

/* As bind(2) has it when only the port matters. */
static void
any_address(uint16_t port, struct hs_addr sources[2])
{
    const struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    const struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

    memcpy(&sources[0].storage, &in4, sizeof(in4));
    sources[0].len = sizeof(in4);
    memcpy(&sources[1].storage, &in6, sizeof(in6));
    sources[1].len = sizeof(in6);
}

/* One address, or a list of one for each family, which hardsock.connect makes of a name. */
static int
parse_source(PyObject *obj, struct hs_addr sources[2])
{
    struct hs_endpoint ep;
    Py_ssize_t n;

    if (obj == NULL || obj == Py_None)
        return 0;
    n = PyList_Check(obj) ? PyList_GET_SIZE(obj) : 1;
    for (Py_ssize_t i = 0; i < n && i < 2; i++) {
        if (parse_endpoint(PyList_Check(obj) ? PyList_GET_ITEM(obj, i) : obj, "source", &ep) < 0)
            return -1;
        if (ep.family == AF_UNSPEC && ep.host[0] == '\0') {
            if (ep.port != 0)
                any_address(ep.port, sources);
            return 0;
        }
        if (ep.family != AF_INET && ep.family != AF_INET6) {
            PyErr_Format(PyExc_ValueError, "source must be an IP address here, not a name, got %R",
                         obj);
            return -1;
        }
        sources[i] = ep.addr;
    }
    return 0;
}

static int
connect_parse_options(mod_state *st, PyObject **values, struct hs_connect_options *o)
{
    long family = AF_UNSPEC, in_flight;
    int64_t delay;

    hs_connect_options_init(o);
    in_flight = o->max_in_flight;
    if (parse_sockopts(values[SOCKOPTS], &o->sockopts) < 0 ||
        parse_source(values[SOURCE], o->sources) < 0 ||
        parse_long(values[FAMILY_PARAM], "family", 0, AF_MAX, &family) < 0 ||
        parse_seconds(values[ATTEMPT_DELAY], "attempt_delay", &delay) < 0 ||
        parse_long(values[MAX_IN_FLIGHT], "max_in_flight", 1, 64, &in_flight) < 0 ||
        breaker_core(st, values[BREAKER], &o->breaker) < 0 ||
        dial_limits_core(st, values[LIMITS], &o->limits) < 0)
        return -1;
    if (family != AF_UNSPEC && family != AF_INET && family != AF_INET6) {
        PyErr_Format(PyExc_ValueError, "family must be 0, AF_INET or AF_INET6, got %ld", family);
        return -1;
    }
    if (delay < 10 * 1000 * 1000) {
        PyErr_SetString(PyExc_ValueError,
                        "attempt_delay must be at least 0.01 seconds (RFC 8305 section 5)");
        return -1;
    }
    o->family = (int)family;
    if (values[ATTEMPT_DELAY] != NULL && values[ATTEMPT_DELAY] != Py_None)
        o->attempt_delay_ns = delay;
    o->max_in_flight = (int)in_flight;
    return 0;
}

/* *ret_config, *ret_name: new references, or NULL. */
static int
parse_tls_options(mod_state *st, PyObject **values, struct hs_connect_options *o,
                  struct hs_tls_config **ret_config, PyObject **ret_name)
{
    int commit = values[COMMIT_AT_TLS] == NULL ? 0 : PyObject_IsTrue(values[COMMIT_AT_TLS]);
    struct hs_tls_config *config = NULL;
    PyObject *name = NULL;

    if (commit < 0 || parse_server_name(values[SERVER_NAME], &name, &o->server_name) < 0)
        return -1;
    if (parse_tls(st, values[TLS], "tls", &config) < 0) {
        Py_XDECREF(name);
        return -1;
    }
    *ret_name = name;
    o->commit_at_tls = commit > 0;
    o->tls = *ret_config = config;
    return 0;
}

static const struct call_kind connecting_kind = {.route = connecting_route};

/* What connect and resolve share. */
static int
prepare_connector(PyObject *module, PyObject **values, struct job *job)
{
    struct hs_tls_config *tls = NULL;
    PyObject *name = NULL;
    struct hs_connect_options options;
    struct hs_endpoint ep;
    struct call *c = &job->call;
    hs_err rv;

    job->owner = Py_NewRef(module);
    job->release = release_connecting;
    if (parse_endpoint(values[ADDRESS], "address", &ep) < 0 ||
        connect_parse_options(state_of_module(module), values, &options) < 0 ||
        call_begin(c, state_of_module(module), values[TIMEOUT], values[TOKEN], HS_NEVER) < 0 ||
        parse_tls_options(state_of_module(module), values, &options, &tls, &name) < 0)
        return -1;
    rv = hs_connector_new(&ep, &options, c->err, &job->u.connecting.connector);
    hs_tls_config_unref(tls);
    Py_XDECREF(name);
    if (rv != HS_OK)
        return raise_error(c, rv);
    c->kind = &connecting_kind;
    c->about = job->u.connecting.connector;
    return 0;
}

static const struct params connect_params = {
    "connect",
    1,
    1,
    1,
    {"address", "timeout", "token", "sockopts", "source", "family", "attempt_delay",
     "max_in_flight", "tls", "server_name", "commit_at_tls", "breaker", "limits", "timeline"}};

int
connect_options(mod_state *st, PyObject *kwargs, struct hs_connect_options *o,
                struct hs_tls_config **ret_tls, PyObject **ret_name)
{
    PyObject *values[MAX_PARAMS], *args = PyTuple_Pack(1, Py_None);
    int rv = -1;

    if (args != NULL && parse_tuple(&connect_params, args, kwargs, values) == 0 &&
        connect_parse_options(st, values, o) == 0)
        rv = parse_tls_options(st, values, o, ret_tls, ret_name);
    Py_XDECREF(args);
    return rv;
}

PyDoc_STRVAR(
    connect_doc,
    "connect(address, /, *, timeout=None, token=None, sockopts=None, source=None, family=0, "
    "attempt_delay=0.25, max_in_flight=6, tls=None, server_name=None, commit_at_tls=False, "
    "breaker=None, limits=None, timeline=None)\n--\n\n"
    "See hardsock.connect. timeline: a list; ((family, started, ended, addresses, error), ...) of\n"
    "lookups and the attempts are appended when the call is over.");

static int
core_prepare_connect(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                     struct job *job)
{
    PyObject *values[MAX_PARAMS];

    job->attempt = attempt_connect;
    job->result = take_connection;
    if (parse_args(&connect_params, args, nargs, kwnames, values) < 0 ||
        prepare_connector(module, values, job) < 0)
        return -1;
    if (values[TIMELINE] != NULL && PyList_Check(values[TIMELINE]))
        job->u.connecting.timeline = Py_NewRef(values[TIMELINE]);
    opening_begin(job->call.st, &job->u.connecting.opening, OPENED_CONNECT);
    hs_connector_set_site(job->u.connecting.connector,
                          call_site_intern(job->call.st, &job->u.connecting.opening.site));
    return 0;
}

STATIC_JOB_METHODS(core, connect)

static PyObject *
addresses_tuple(const struct hs_addr *addrs, size_t n)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)n);

    for (size_t i = 0; tuple != NULL && i < n; i++) {
        PyObject *text = address_text(&addrs[i]);

        if (text == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, text);
    }
    return tuple;
}

static PyObject *
answer_object(struct call *c, const struct hs_answer *a)
{
    const char *error = a->gai != 0 ? gai_strerror(a->gai) : NULL;
    double elapsed = a->finished_ns > a->started_ns ? (double)(a->finished_ns - a->started_ns) : 0;

    return PyObject_CallFunction(c->st->answer, "iNds", a->family, addresses_tuple(a->addrs, a->n),
                                 elapsed / 1e9, error);
}

static PyObject *
resolution_object(struct job *job)
{
    struct hs_connector *connector = job->u.connecting.connector;
    struct call *c = &job->call;
    size_t n_answers, n_plan;
    const struct hs_answer *answers = hs_connector_answers(connector, &n_answers);
    const struct hs_addr *plan = hs_connector_plan(connector, &n_plan);
    PyObject *tuple = PyTuple_New((Py_ssize_t)n_answers);

    for (size_t i = 0; tuple != NULL && i < n_answers; i++) {
        PyObject *item = answer_object(c, &answers[i]);

        if (item == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, item);
    }
    if (tuple == NULL)
        return NULL;
    return PyObject_CallFunction(c->st->resolution, "NN", tuple, addresses_tuple(plan, n_plan));
}

static const struct params resolve_params = {
    "resolve", 1, 1, 1, {"address", "timeout", "token", "sockopts", "source", "family"}};

PyDoc_STRVAR(resolve_doc, "resolve(address, /, *, timeout=None, token=None, sockopts=None, "
                          "source=None, family=0)\n--\n\n"
                          "See hardsock.resolve.");

static int
core_prepare_resolve(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                     struct job *job)
{
    PyObject *values[MAX_PARAMS];

    job->attempt = attempt_resolve;
    job->result = resolution_object;
    if (parse_args(&resolve_params, args, nargs, kwnames, values) < 0)
        return -1;
    return prepare_connector(module, values, job);
}

STATIC_JOB_METHODS(core, resolve)

static const struct params adopt_params = {"adopt", 1, 1, 1, {"fd", "sockopts"}};

PyDoc_STRVAR(adopt_doc, "adopt(fd, /, *, sockopts=None)\n--\n\n"
                        "Own a connected stream socket's descriptor; not taken on failure.");

static PyObject *
core_adopt(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    mod_state *st = state_of_module(module);
    PyObject *values[MAX_PARAMS];
    struct hs_sockopts options;
    struct hs_error err = {0};
    struct opening opening;
    PyObject *result;
    struct hs_conn *conn;
    int number;
    long fd;
    hs_err rv;

    if (parse_args(&adopt_params, args, nargs, kwnames, values) < 0 ||
        parse_long(values[0], "fd", 0, INT32_MAX, &fd) < 0 ||
        parse_sockopts(values[1], &options) < 0)
        return NULL;
    if ((rv = hs_conn_adopt((int)fd, &options, &err, &conn)) != HS_OK) {
        raise_plain_error(st, &err, rv);
        return NULL;
    }
    opening_begin(st, &opening, OPENED_ADOPT);
    result = conn_object_new(st, hs_conn_ref(conn), &opening);
    opening_end(&opening);
    if (result == NULL && hs_conn_detach(conn, NULL, &number) == HS_OK)
        number = -1; /* The caller's again. */
    hs_conn_unref(conn);
    return result;
}

PyDoc_STRVAR(parse_doc, "parse_address(address, /)\n--\n\n"
                        "Check an address as connect() does; returns its text.");

static PyObject *
core_parse_address(PyObject *Py_UNUSED(module), PyObject *address)
{
    char text[HS_ADDR_TEXT_SIZE];
    struct hs_endpoint ep;

    if (parse_endpoint(address, "address", &ep) < 0)
        return NULL;
    return PyUnicode_DecodeFSDefault(hs_endpoint_text(&ep, text, sizeof(text)));
}

PyDoc_STRVAR(format_doc, "_format_address(raw, /)\n--\n\n"
                         "The text of an address that an exception holds as the kernel gave it.");

static PyObject *
core_format_address(PyObject *Py_UNUSED(module), PyObject *raw)
{
    struct hs_addr addr = {0};

    if (!PyBytes_Check(raw) || (size_t)PyBytes_GET_SIZE(raw) < sizeof(sa_family_t) ||
        (size_t)PyBytes_GET_SIZE(raw) > sizeof(addr.storage)) {
        PyErr_SetString(PyExc_TypeError, "raw must be the bytes of a socket address");
        return NULL;
    }
    addr.len = (socklen_t)PyBytes_GET_SIZE(raw);
    memcpy(&addr.storage, PyBytes_AS_STRING(raw), addr.len);
    return address_text(&addr);
}

PyMethodDef connect_functions[] = {
    {"connect", HS_METHOD(core_connect), METH_FASTCALL | METH_KEYWORDS, connect_doc},
    {"_op_connect", HS_METHOD(core_op_connect), METH_FASTCALL | METH_KEYWORDS,
     FUNCTION_OP_DOC("connect")},
    {"resolve", HS_METHOD(core_resolve), METH_FASTCALL | METH_KEYWORDS, resolve_doc},
    {"_op_resolve", HS_METHOD(core_op_resolve), METH_FASTCALL | METH_KEYWORDS,
     FUNCTION_OP_DOC("resolve")},
    {"adopt", HS_METHOD(core_adopt), METH_FASTCALL | METH_KEYWORDS, adopt_doc},
    {"_format_address", core_format_address, METH_O, format_doc},
    {"parse_address", core_parse_address, METH_O, parse_doc},
    {NULL, NULL, 0, NULL},
};
