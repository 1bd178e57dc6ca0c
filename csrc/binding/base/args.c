/* args.c: arguments from Python to what the core takes.
 *
 * Every message names the parameter, the value and what would be right. Numbers reject bool, NaN
 * and negatives here, so that the core never sees them.
 */
#include "args.h"

#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>
#include <string.h>

static int
index_of(const struct params *p, PyObject *name)
{
    const char *text = PyUnicode_IS_COMPACT_ASCII(name) ? PyUnicode_DATA(name) : NULL;

    if (text != NULL && strlen(text) != (size_t)PyUnicode_GET_LENGTH(name))
        return -1;
    for (int i = p->positional_only; text != NULL && p->names[i] != NULL; i++)
        if (strcmp(text, p->names[i]) == 0)
            return i;
    return -1;
}

/* What may have been meant, as the Python face says it: see _names.py. Never fails. */
static PyObject *
advice_about(const struct params *p, PyObject *name)
{
    PyObject *module = PyImport_ImportModule("hardsock._names"), *names = PyList_New(0);
    PyObject *text = NULL, *one;

    for (int i = p->positional_only; names != NULL && p->names[i] != NULL; i++) {
        if ((one = PyUnicode_FromString(p->names[i])) == NULL || PyList_Append(names, one) < 0)
            Py_CLEAR(names);
        Py_XDECREF(one);
    }
    if (module != NULL && names != NULL)
        text = PyObject_CallMethod(module, "advice", "OO", name, names);
    Py_XDECREF(module);
    Py_XDECREF(names);
    if (text == NULL) {
        PyErr_Clear();
        return PyUnicode_FromString("");
    }
    return text;
}

static void
unknown_keyword(const struct params *p, PyObject *name)
{
    PyObject *advice = advice_about(p, name);

    if (advice != NULL)
        PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'%U", p->function,
                     name, advice);
    Py_XDECREF(advice);
}

static int
put_keyword(const struct params *p, PyObject *name, PyObject *value, PyObject **values)
{
    int i = index_of(p, name);

    if (i < 0) {
        unknown_keyword(p, name);
        return -1;
    }
    if (values[i] != NULL) {
        PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'", p->function,
                     name);
        return -1;
    }
    values[i] = value;
    return 0;
}

static int
put_positional(const struct params *p, PyObject *const *args, Py_ssize_t nargs, PyObject **values)
{
    memset(values, 0, MAX_PARAMS * sizeof(*values));
    if (nargs > p->positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional arguments (%zd given)",
                     p->function, p->positional, nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++)
        values[i] = args[i];
    return 0;
}

static int
check_required(const struct params *p, PyObject **values)
{
    for (int i = 0; i < p->required; i++)
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'", p->function,
                         p->names[i]);
            return -1;
        }
    return 0;
}

int
parse_args(const struct params *p, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
           PyObject **values)
{
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);

    if (put_positional(p, args, nargs, values) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < nkw; i++)
        if (put_keyword(p, PyTuple_GET_ITEM(kwnames, i), args[nargs + i], values) < 0)
            return -1;
    return check_required(p, values);
}

int
parse_tuple(const struct params *p, PyObject *args, PyObject *kwargs, PyObject **values)
{
    PyObject *name, *value;
    Py_ssize_t pos = 0;

    if (put_positional(p, &PyTuple_GET_ITEM(args, 0), PyTuple_GET_SIZE(args), values) < 0)
        return -1;
    while (kwargs != NULL && PyDict_Next(kwargs, &pos, &name, &value))
        if (put_keyword(p, name, value, values) < 0)
            return -1;
    return check_required(p, values);
}

int
parse_seconds(PyObject *obj, const char *name, int64_t *ret_ns)
{
    double seconds;

    if (obj == NULL || obj == Py_None) {
        *ret_ns = HS_NEVER;
        return 0;
    }
    if (PyBool_Check(obj) || !(PyFloat_Check(obj) || PyIndex_Check(obj))) {
        PyErr_Format(PyExc_TypeError, "%s must be a number of seconds or None, not %.100s", name,
                     Py_TYPE(obj)->tp_name);
        return -1;
    }
    seconds = PyFloat_AsDouble(obj);
    if (seconds == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
        seconds = INFINITY;
    }
    if (isnan(seconds) || seconds < 0) {
        PyErr_Format(PyExc_ValueError, "%s must be a non-negative number of seconds, got %R", name,
                     obj);
        return -1;
    }
    seconds = ceil(seconds * 1e9);
    *ret_ns = seconds < 9.2e18 ? (int64_t)seconds : HS_NEVER;
    return 0;
}

int
parse_bool(PyObject *obj, const char *name, bool *ret_flag)
{
    if (obj == NULL)
        return 0;
    if (!PyBool_Check(obj)) {
        PyErr_Format(PyExc_TypeError, "%s must be a bool, not %.100s", name, Py_TYPE(obj)->tp_name);
        return -1;
    }
    *ret_flag = obj == Py_True;
    return 0;
}

int
parse_long(PyObject *obj, const char *name, long min, long max, long *ret_value)
{
    long value;
    int overflow = 0;

    if (obj == NULL)
        return 0;
    if (PyBool_Check(obj) || !PyIndex_Check(obj)) {
        PyErr_Format(PyExc_TypeError, "%s must be an int, not %.100s", name, Py_TYPE(obj)->tp_name);
        return -1;
    }
    value = PyLong_AsLongAndOverflow(obj, &overflow);
    if (value == -1 && overflow == 0 && PyErr_Occurred())
        return -1;
    if (overflow != 0 || value < min || value > max) {
        PyErr_Format(PyExc_ValueError, "%s must be in %ld..%ld, got %R", name, min, max, obj);
        return -1;
    }
    *ret_value = value;
    return 0;
}

static int
args_invalid(const char *name, const struct hs_error *err)
{
    PyErr_Format(PyExc_ValueError, "%s: %s", name, err->msg);
    return -1;
}

/* Names that are not ASCII travel as IDNA (RFC 3490), as in the socket module. */
PyObject *
host_to_ascii(PyObject *text, const char *name)
{
    PyObject *ascii, *type, *value, *traceback;

    if (PyUnicode_IS_ASCII(text))
        return PyUnicode_AsASCIIString(text);
    ascii = PyUnicode_AsEncodedString(text, "idna", NULL);
    if (ascii == NULL && PyErr_ExceptionMatches(PyExc_UnicodeError)) {
        PyErr_Fetch(&type, &value, &traceback); /* It does not say of which parameter. */
        PyErr_NormalizeException(&type, &value, &traceback);
        PyErr_Format(PyExc_UnicodeError, "%s: %R cannot be a host name (IDNA): %S", name, text,
                     value);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    }
    return ascii;
}

static PyObject *
host_bytes(PyObject *host, const char *name)
{
    if (PyBytes_Check(host))
        return Py_NewRef(host);
    if (!PyUnicode_Check(host)) {
        PyErr_Format(PyExc_TypeError, "%s: host must be str or bytes, not %.100s", name,
                     Py_TYPE(host)->tp_name);
        return NULL;
    }
    return host_to_ascii(host, name);
}

/* As getsockname() gives them: "/run/x.sock", b"\0abstract". */
static int
endpoint_from_path(const char *path, Py_ssize_t len, const char *name,
                   struct hs_endpoint *ret_endpoint)
{
    struct hs_error err = {0};

    return hs_endpoint_from_path(path, (size_t)len, &err, ret_endpoint) == HS_OK
               ? 0
               : args_invalid(name, &err);
}

/* A name and a port: paths have bytes, and addresses nothing to convert. */
static int
endpoint_from_idn(PyObject *obj, const char *name, struct hs_endpoint *ret_endpoint)
{
    Py_ssize_t len = PyUnicode_GET_LENGTH(obj), colon = PyUnicode_FindChar(obj, ':', 0, len, -1);
    PyObject *host = PyUnicode_Substring(obj, 0, colon >= 0 ? colon : len);
    PyObject *port = PyUnicode_Substring(obj, colon >= 0 ? colon : len, len);
    PyObject *text = host == NULL ? NULL : host_to_ascii(host, name);
    PyObject *tail = port == NULL ? NULL : PyUnicode_AsUTF8String(port);
    struct hs_error err = {0};
    int result = -1;

    Py_XDECREF(host);
    Py_XDECREF(port);
    if (text != NULL && tail != NULL)
        PyBytes_Concat(&text, tail);
    if (text != NULL && tail != NULL)
        result = hs_endpoint_parse(PyBytes_AS_STRING(text), (size_t)PyBytes_GET_SIZE(text), &err,
                                   ret_endpoint) == HS_OK
                     ? 0
                     : args_invalid(name, &err);
    Py_XDECREF(text);
    Py_XDECREF(tail);
    return result;
}

static int
endpoint_from_text(PyObject *obj, const char *name, struct hs_endpoint *ret_endpoint)
{
    struct hs_error err = {0};
    PyObject *unix_path = NULL;
    Py_ssize_t len;
    const char *text = PyUnicode_AsUTF8AndSize(obj, &len);
    hs_err rv;

    if (text != NULL && !PyUnicode_IS_ASCII(obj) && text[0] != '/' && text[0] != '[' &&
        strncmp(text, "unix:", 5) != 0)
        return endpoint_from_idn(obj, name, ret_endpoint);
    if (text == NULL) { /* Lone surrogates: only a path that os.fsencode understands. */
        PyErr_Clear();
        if ((unix_path = PyUnicode_EncodeFSDefault(obj)) == NULL)
            return -1;
        text = PyBytes_AS_STRING(unix_path);
        len = PyBytes_GET_SIZE(unix_path);
    }
    if (len > 0 && text[0] == '/')
        rv = hs_endpoint_from_path(text, (size_t)len, &err, ret_endpoint);
    else
        rv = hs_endpoint_parse(text, (size_t)len, &err, ret_endpoint);
    Py_XDECREF(unix_path);
    return rv == HS_OK ? 0 : args_invalid(name, &err);
}

static int
set_v6_extras(PyObject *obj, const char *name, struct hs_endpoint *ep)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)&ep->addr.storage;
    long flow = 0, scope = 0;

    if (PyTuple_GET_SIZE(obj) == 2)
        return 0;
    if (ep->family != AF_INET6) {
        PyErr_Format(PyExc_ValueError, "%s: flowinfo and scope_id go with an IPv6 address only",
                     name);
        return -1;
    }
    if (parse_long(PyTuple_GET_ITEM(obj, 2), "flowinfo", 0, 0xfffff, &flow) < 0)
        return -1;
    if (PyTuple_GET_SIZE(obj) == 4 &&
        parse_long(PyTuple_GET_ITEM(obj, 3), "scope_id", 0, UINT32_MAX, &scope) < 0)
        return -1;
    in6->sin6_flowinfo = htonl((uint32_t)flow);
    if (scope != 0)
        in6->sin6_scope_id = (uint32_t)scope;
    return 0;
}

static int
endpoint_from_tuple(PyObject *obj, const char *name, struct hs_endpoint *ret_endpoint)
{
    struct hs_error err = {0};
    PyObject *host;
    long port;
    hs_err rv;

    if (parse_long(PyTuple_GET_ITEM(obj, 1), "port", 0, 65535, &port) < 0)
        return -1;
    if ((host = host_bytes(PyTuple_GET_ITEM(obj, 0), name)) == NULL)
        return -1;
    rv = hs_endpoint_from_host(PyBytes_AS_STRING(host), (size_t)PyBytes_GET_SIZE(host), port, &err,
                               ret_endpoint);
    Py_DECREF(host);
    return rv == HS_OK ? set_v6_extras(obj, name, ret_endpoint) : args_invalid(name, &err);
}

int
parse_endpoint(PyObject *obj, const char *name, struct hs_endpoint *ret_endpoint)
{
    if (PyUnicode_Check(obj))
        return endpoint_from_text(obj, name, ret_endpoint);
    if (PyBytes_Check(obj) && PyBytes_GET_SIZE(obj) > 0 &&
        (PyBytes_AS_STRING(obj)[0] == '\0' || PyBytes_AS_STRING(obj)[0] == '/'))
        return endpoint_from_path(PyBytes_AS_STRING(obj), PyBytes_GET_SIZE(obj), name,
                                  ret_endpoint);
    if (PyTuple_Check(obj) && PyTuple_GET_SIZE(obj) >= 2 && PyTuple_GET_SIZE(obj) <= 4)
        return endpoint_from_tuple(obj, name, ret_endpoint);
    PyErr_Format(PyExc_TypeError,
                 "%s must be 'host:port', 'unix:/path' or a tuple (host, port), got %R", name, obj);
    return -1;
}

#define FIELD(name)                                                                                \
    {                                                                                              \
#name, offsetof(struct hs_sockopts, name)                                                  \
    }

static const struct {
    const char *name;
    size_t offset;
} option_fields[] = {
    FIELD(nodelay),
    FIELD(keepalive),
    FIELD(keepalive_idle_s),
    FIELD(keepalive_interval_s),
    FIELD(keepalive_count),
    FIELD(user_timeout_ms),
    FIELD(recv_buffer),
    FIELD(send_buffer),
    FIELD(notsent_lowat),
    FIELD(linger_s),
    FIELD(priority),
    FIELD(mark),
    FIELD(reuse_port),
    FIELD(defer_accept_s),
    FIELD(fastopen_queue),
    FIELD(v6only),
    FIELD(mptcp),
};

static int
put_option(PyObject *name, PyObject *value, struct hs_sockopts *o)
{
    const char *text = PyUnicode_AsUTF8(name);
    long number = 0;

    if (text == NULL)
        return -1;
    if (strcmp(text, "interface") == 0) {
        const char *interface = PyUnicode_AsUTF8(value);

        if (interface == NULL)
            return -1;
        if (strlen(interface) >= sizeof(o->interface)) {
            PyErr_Format(PyExc_ValueError, "interface name must have at most 15 bytes, got %R",
                         value);
            return -1;
        }
        memcpy(o->interface, interface, strlen(interface) + 1);
        return 0;
    }
    for (size_t i = 0; i < sizeof(option_fields) / sizeof(option_fields[0]); i++)
        if (strcmp(text, option_fields[i].name) == 0) {
            if (parse_long(value, text, 0, INT32_MAX, &number) < 0)
                return -1;
            memcpy((char *)o + option_fields[i].offset, &(int){(int)number}, sizeof(int));
            return 0;
        }
    if (strcmp(text, "dead_after_ms") == 0) {
        if (parse_long(value, text, 1, INT32_MAX, &number) < 0)
            return -1;
        hs_sockopts_dead_after(o, (int)number);
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "unknown socket option %R", name);
    return -1;
}

int
parse_sockopts(PyObject *obj, struct hs_sockopts *ret_options)
{
    struct hs_sockopts options;
    PyObject *name, *value;
    Py_ssize_t pos = 0;
    bool given = obj != NULL && obj != Py_None;

    hs_sockopts_init(&options);
    if (given && !PyDict_Check(obj)) {
        PyErr_Format(PyExc_TypeError, "socket options must be a dict, not %.100s",
                     Py_TYPE(obj)->tp_name);
        return -1;
    }
    while (given && PyDict_Next(obj, &pos, &name, &value))
        if (put_option(name, value, &options) < 0)
            return -1;
    *ret_options = options;
    return 0;
}

PyObject *
address_text(const struct hs_addr *addr)
{
    char text[HS_ADDR_TEXT_SIZE];

    (void)hs_addr_text(addr, text, sizeof(text));
    return PyUnicode_DecodeFSDefault(text);
}

static PyObject *
unix_object(const struct hs_addr *addr)
{
    size_t offset = offsetof(struct sockaddr_un, sun_path);
    size_t len = addr->len > offset ? addr->len - offset : 0;

    if (len > 0 && addr->un.sun_path[0] == '\0')
        return PyBytes_FromStringAndSize(addr->un.sun_path, (Py_ssize_t)len);
    return PyUnicode_DecodeFSDefaultAndSize(addr->un.sun_path,
                                            (Py_ssize_t)strnlen(addr->un.sun_path, len));
}

PyObject *
address_object(const struct hs_addr *addr)
{
    char host[INET6_ADDRSTRLEN];

    if (addr->sa.sa_family == AF_UNIX)
        return unix_object(addr);
    if (addr->sa.sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)&addr->storage;

        return Py_BuildValue("(si)", inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)),
                             (int)ntohs(in->sin_port));
    }
    if (addr->sa.sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)&addr->storage;

        return Py_BuildValue("(siII)", inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host)),
                             (int)ntohs(in6->sin6_port), ntohl(in6->sin6_flowinfo),
                             in6->sin6_scope_id);
    }
    Py_RETURN_NONE;
}

PyObject *
tcp_fields_dict(const void *info, size_t len)
{
    struct hs_tcp_field fields[HS_TCP_FIELDS_MAX];
    size_t n = hs_tcp_fields(info, len, fields);
    PyObject *dict = PyDict_New();

    for (size_t i = 0; dict != NULL && i < n; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(fields[i].value);

        if (value == NULL || PyDict_SetItemString(dict, fields[i].name, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

PyObject *
record_new(PyObject *type, const char *format, ...)
{
    PyObject *values, *args, *record = NULL;
    va_list list;

    va_start(list, format);
    values = Py_VaBuildValue(format, list);
    va_end(list);
    if (values == NULL)
        return NULL;
    if ((args = PyTuple_Pack(1, values)) != NULL)
        record = PyTuple_Type.tp_new((PyTypeObject *)type, args, NULL);
    Py_XDECREF(args);
    Py_DECREF(values);
    return record;
}

PyObject *
time_object(int64_t ns)
{
    if (ns == 0 || ns == HS_NEVER)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)ns / 1e9);
}

PyObject *
text_object(const char *text)
{
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
}
