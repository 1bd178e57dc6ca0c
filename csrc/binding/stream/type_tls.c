/* type_tls.c: the type TLSContext: the core's TLS settings, made of a dict by hardsock.TLSConfig.
 *
 * Names and kinds of the dict are an agreement with _tls.py, which has checked the values; a file
 * that cannot be read or a key that does not fit is found here. Reading happens detached.
 */
#include "tls.h"

#include "binding/base/args.h"
#include "binding/base/run.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    HS_HEAD
    struct hs_tls_config *core; /* owns; write once */
} TLSContextObject;

/* What the options point to while they are used. */
struct settings {
    struct hs_tls_options o;
    struct hs_tls_source *cas, *crls;
    struct hs_tls_identity *identities;
};

/* ---- From the dict ------------------------------------------------------------------------- */

/* borrows: the dict. NULL without an exception: not there, or None. */
static PyObject *
item(PyObject *dict, const char *name)
{
    PyObject *value = PyDict_GetItemString(dict, name);

    return value == Py_None ? NULL : value;
}

static int
tls_bad(const char *name)
{
    PyErr_Format(PyExc_TypeError, "%s is not what hardsock.TLSConfig makes of it", name);
    return -1;
}

/* str: a path; bytes: the thing itself. */
static int
get_source(PyObject *value, const char *name, struct hs_tls_source *ret)
{
    if (value == NULL || value == Py_None)
        return 0;
    if (PyBytes_Check(value)) {
        ret->data = PyBytes_AS_STRING(value);
        ret->len = (size_t)PyBytes_GET_SIZE(value);
        return 0;
    }
    if (!PyUnicode_Check(value))
        return tls_bad(name);
    return (ret->path = PyUnicode_AsUTF8(value)) == NULL ? -1 : 0;
}

static int
get_sources(PyObject *dict, const char *name, struct hs_tls_source **ret, size_t *ret_n)
{
    PyObject *tuple = item(dict, name);
    Py_ssize_t n;

    if (tuple == NULL)
        return 0;
    if (!PyTuple_Check(tuple))
        return tls_bad(name);
    n = PyTuple_GET_SIZE(tuple);
    if ((*ret = PyMem_Calloc((size_t)n + 1, sizeof(**ret))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (; *ret_n < (size_t)n; (*ret_n)++)
        if (get_source(PyTuple_GET_ITEM(tuple, (Py_ssize_t)*ret_n), name, &(*ret)[*ret_n]) < 0)
            return -1;
    return 0;
}

/* (chain, key, ocsp, password) */
static int
get_identity(PyObject *value, struct hs_tls_identity *ret)
{
    PyObject *password;

    if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != 4)
        return tls_bad("certificates");
    password = PyTuple_GET_ITEM(value, 3);
    if (PyBytes_Check(password))
        ret->password = PyBytes_AS_STRING(password);
    else if (password != Py_None && (ret->password = PyUnicode_AsUTF8(password)) == NULL)
        return -1;
    if (get_source(PyTuple_GET_ITEM(value, 0), "chain", &ret->chain) < 0 ||
        get_source(PyTuple_GET_ITEM(value, 1), "key", &ret->key) < 0)
        return -1;
    return get_source(PyTuple_GET_ITEM(value, 2), "ocsp_response", &ret->ocsp);
}

static int
get_identities(PyObject *dict, struct settings *s)
{
    PyObject *tuple = item(dict, "identities");
    Py_ssize_t n;

    if (tuple == NULL)
        return 0;
    if (!PyTuple_Check(tuple))
        return tls_bad("certificates");
    n = PyTuple_GET_SIZE(tuple);
    if ((s->identities = PyMem_Calloc((size_t)n + 1, sizeof(*s->identities))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    s->o.identities = s->identities;
    for (; s->o.n_identities < (size_t)n; s->o.n_identities++)
        if (get_identity(PyTuple_GET_ITEM(tuple, (Py_ssize_t)s->o.n_identities),
                         &s->identities[s->o.n_identities]) < 0)
            return -1;
    return 0;
}

static int
get_text(PyObject *dict, const char *name, const char **ret)
{
    PyObject *value = item(dict, name);

    return value != NULL && (*ret = PyUnicode_AsUTF8(value)) == NULL ? -1 : 0;
}

static int
get_int(PyObject *dict, const char *name, long min, long max, int *ret)
{
    long value = *ret;

    if (parse_long(item(dict, name), name, min, max, &value) < 0)
        return -1;
    *ret = (int)value;
    return 0;
}

static int
get_bool(PyObject *dict, const char *name, bool *ret)
{
    PyObject *value = item(dict, name);
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);

    if (truth < 0)
        return -1;
    if (value != NULL)
        *ret = truth > 0;
    return 0;
}

static int
get_enums(PyObject *dict, struct hs_tls_options *o)
{
    int certs = (int)o->certs, ocsp = (int)o->ocsp, lifetime = (int)o->session_lifetime_s;

    if (get_int(dict, "client_certificates", 0, HS_TLS_CERTS_ON_REQUEST_OR_REQUIRED, &certs) < 0 ||
        get_int(dict, "ocsp", 0, HS_TLS_OCSP_REQUIRE, &ocsp) < 0 ||
        get_int(dict, "session_lifetime", 1, INT32_MAX, &lifetime) < 0 ||
        get_int(dict, "min_version", 0, 0xffff, &o->min_version) < 0 ||
        get_int(dict, "max_version", 0, 0xffff, &o->max_version) < 0 ||
        get_int(dict, "tickets", 0, 8, &o->tickets) < 0 ||
        get_int(dict, "security_level", 2, 5, &o->security_level) < 0)
        return -1;
    o->certs = (enum hs_tls_client_certs)certs;
    o->ocsp = (enum hs_tls_ocsp_mode)ocsp;
    o->session_lifetime_s = lifetime;
    return 0;
}

static int
get_alpn(PyObject *dict, struct hs_tls_options *o)
{
    PyObject *wire = item(dict, "alpn");

    if (wire == NULL)
        return 0;
    if (!PyBytes_Check(wire))
        return tls_bad("alpn");
    o->alpn = (const uint8_t *)PyBytes_AS_STRING(wire);
    o->alpn_len = (size_t)PyBytes_GET_SIZE(wire);
    return 0;
}

static int
get_settings(PyObject *dict, struct settings *s)
{
    int server = 0;
    PyObject *timeout;

    if (!PyDict_Check(dict))
        return tls_bad("settings");
    if (get_int(dict, "server", 0, 1, &server) < 0)
        return -1;
    hs_tls_options_init(&s->o, server ? HS_TLS_SERVER : HS_TLS_CLIENT);
    if (get_sources(dict, "ca", &s->cas, &s->o.n_cas) < 0 ||
        get_sources(dict, "crl", &s->crls, &s->o.n_crls) < 0 || get_identities(dict, s) < 0 ||
        get_enums(dict, &s->o) < 0 || get_alpn(dict, &s->o) < 0 ||
        get_text(dict, "ciphers", &s->o.ciphers) < 0 ||
        get_text(dict, "insecure_ciphers", &s->o.insecure_ciphers) < 0 ||
        get_text(dict, "insecure_key_log_file", &s->o.insecure_key_log) < 0 ||
        get_bool(dict, "system_ca", &s->o.system_ca) < 0 ||
        get_bool(dict, "sessions", &s->o.sessions) < 0 ||
        get_bool(dict, "post_handshake_auth", &s->o.post_handshake_auth) < 0 ||
        get_bool(dict, "strict_certificates", &s->o.strict_certificates) < 0 ||
        get_bool(dict, "whole_chains", &s->o.whole_chains) < 0 ||
        get_bool(dict, "insecure_skip_verify", &s->o.insecure_skip_verify) < 0 ||
        get_bool(dict, "insecure_skip_hostname", &s->o.insecure_skip_hostname) < 0 ||
        get_bool(dict, "insecure_accept_truncation", &s->o.insecure_accept_truncation) < 0)
        return -1;
    s->o.cas = s->cas;
    s->o.crls = s->crls;
    if ((timeout = item(dict, "handshake_timeout")) == NULL)
        return 0;
    return parse_seconds(timeout, "handshake_timeout", &s->o.handshake_timeout_ns);
}

static void
settings_fini(struct settings *s)
{
    PyMem_Free(s->cas);
    PyMem_Free(s->crls);
    PyMem_Free(s->identities);
}

/* ---- The type ------------------------------------------------------------------------------ */

struct making {
    struct settings s;
    struct hs_tls_config *config; /* to be reloaded, or made */
    bool reload;
    struct hs_error err;
    hs_err rv;
};

static void
tls_make(void *arg)
{
    struct making *m = arg;

    m->rv = m->reload ? hs_tls_config_reload(m->config, &m->s.o, &m->err)
                      : hs_tls_config_new(&m->s.o, &m->err, &m->config);
}

static int
make_detached(mod_state *st, PyObject *dict, struct making *m)
{
    int result = get_settings(dict, &m->s);

    if (result == 0) {
        run_detached(tls_make, m);
        if (m->rv != HS_OK)
            result = raise_plain_error(st, &m->err, m->rv);
    }
    settings_fini(&m->s);
    return result;
}

static PyObject *
tls_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"TLSContext", 1, 1, 1, {"settings"}};
    mod_state *st = state_of_type(type);
    PyObject *values[MAX_PARAMS];
    struct making m = {0};
    TLSContextObject *self;

    if (st == NULL || parse_tuple(&p, args, kwargs, values) < 0 ||
        make_detached(st, values[0], &m) < 0)
        return NULL;
    if ((self = object_new(st, type)) == NULL)
        hs_tls_config_unref(m.config);
    else
        self->core = m.config;
    return (PyObject *)self;
}

static void
tls_dealloc(PyObject *obj)
{
    PyObject_GC_UnTrack(obj);
    hs_tls_config_unref(((TLSContextObject *)obj)->core);
    object_free(obj);
}

static int
tls_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    return 0;
}

PyDoc_STRVAR(reload_doc,
             "reload($self, settings, /)\n--\n\n"
             "Read every file again, for later handshakes; on failure nothing changes.");

static PyObject *
tls_reload(PyObject *obj, PyObject *settings)
{
    struct making m = {.config = ((TLSContextObject *)obj)->core, .reload = true};

    if (make_detached(state_of(obj), settings, &m) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(ticket_keys_doc, "give_ticket_keys($self, keys, /)\n--\n\n"
                              "Seal session tickets with the first of these, open them with all.");

static PyObject *
tls_give_ticket_keys(PyObject *obj, PyObject *keys)
{
    struct hs_error err = {0};
    Py_buffer view;
    hs_err rv;

    if (PyObject_GetBuffer(keys, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    rv = hs_tls_config_give_ticket_keys(((TLSContextObject *)obj)->core, view.buf, (size_t)view.len,
                                        &err);
    PyBuffer_Release(&view);
    if (rv != HS_OK) {
        (void)raise_plain_error(state_of(obj), &err, rv);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
get_sessions_kept(PyObject *obj, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(hs_tls_config_sessions(((TLSContextObject *)obj)->core));
}

static PyMethodDef tls_methods[] = {
    {"reload", tls_reload, METH_O, reload_doc},
    {"give_ticket_keys", tls_give_ticket_keys, METH_O, ticket_keys_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef tls_getset[] = {
    {"sessions_kept", get_sessions_kept, NULL, "Sessions that a client can resume.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(tls_doc, "TLSContext(settings, /)\n--\n\nUse hardsock.TLSConfig instead.");

static PyType_Slot tls_slots[] = {
    {Py_tp_new, HS_SLOT(tls_new)},
    {Py_tp_dealloc, HS_SLOT(tls_dealloc)},
    {Py_tp_traverse, HS_SLOT(tls_traverse)},
    {Py_tp_methods, tls_methods},
    {Py_tp_getset, tls_getset},
    {Py_tp_doc, (void *)(uintptr_t)tls_doc},
    {0, NULL},
};

PyType_Spec tls_spec = {
    .name = "hardsock._core.TLSContext",
    .basicsize = sizeof(TLSContextObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tls_slots,
};

/* ---- As an argument ------------------------------------------------------------------------ */

int
parse_tls(mod_state *st, PyObject *obj, const char *name, struct hs_tls_config **ret_config)
{
    PyObject *context;

    if (obj == NULL || obj == Py_None)
        return 0;
    if (Py_TYPE(obj) == st->tls_type) {
        *ret_config = hs_tls_config_ref(((TLSContextObject *)obj)->core);
        return 0;
    }
    context = PyObject_GetAttrString(obj, "_context");
    if (context == NULL || Py_TYPE(context) != st->tls_type) {
        PyErr_Format(PyExc_TypeError, "%s must be a TLSConfig, not %.100s", name,
                     Py_TYPE(obj)->tp_name);
        Py_XDECREF(context);
        return -1;
    }
    *ret_config = hs_tls_config_ref(((TLSContextObject *)context)->core);
    Py_DECREF(context);
    return 0;
}

int
parse_server_name(PyObject *obj, PyObject **ret_owner, const char **ret_name)
{
    PyObject *ascii;

    if (obj == NULL || obj == Py_None)
        return 0;
    if (!PyUnicode_Check(obj)) {
        PyErr_Format(PyExc_TypeError, "server_name must be a str or None, not %.100s",
                     Py_TYPE(obj)->tp_name);
        return -1;
    }
    if ((ascii = host_to_ascii(obj, "server_name")) == NULL)
        return -1;
    if (strlen(PyBytes_AS_STRING(ascii)) != (size_t)PyBytes_GET_SIZE(ascii) ||
        PyBytes_GET_SIZE(ascii) > 255) {
        PyErr_Format(PyExc_ValueError,
                     "server_name must have at most 255 characters, and no NUL, got %R", obj);
        Py_DECREF(ascii);
        return -1;
    }
    *ret_name = PyBytes_AS_STRING(ascii);
    *ret_owner = ascii;
    return 0;
}
