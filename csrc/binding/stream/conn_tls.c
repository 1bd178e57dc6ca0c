/* conn_tls.c: the methods of Connection that are about TLS, and close_write.
 *
 * The config is kept while the job runs, so that a caller may drop its own; what a handshake agreed
 * on is read when somebody asks.
 */
#include "conn.h"

#include "tls.h"

#include <stdlib.h>
#include <sys/socket.h>

static PyObject *
conn_tls_nothing(struct job *Py_UNUSED(job))
{
    Py_RETURN_NONE;
}

static hs_err
attempt_upgrade(struct job *job)
{
    struct upgrading *u = &job->u.upgrading;

    return (u->read_ahead ? hs_conn_start_tls_read_ahead : hs_conn_start_tls)(
        job->call.conn, &job->call.op, u->config, u->server_name, job->call.err);
}

static void
release_upgrade(struct job *job)
{
    hs_tls_config_unref(job->u.upgrading.config);
    Py_XDECREF(job->u.upgrading.name);
}

CONN_DOC(
    upgrade_to_tls,
    "upgrade_to_tls($self, config, /, *, server_name=None, read_ahead=True, timeout=None, "
    "token=None)\n--\n\n"
    "Do the TLS handshake on this connection (STARTTLS); from then on all goes through TLS.\n\n"
    "config is a TLSConfig, whose role says who begins. server_name: whose certificate a client\n"
    "expects. The config's handshake_timeout applies, too. read_ahead: what a server has received\n"
    "and not read, behind a header that was read by the line, is the beginning of the client's\n"
    "handshake if it looks like one; False refuses it, as protocols want whose client has to wait\n"
    "for an answer first (RFC 3207). Raises TLSError with failure 'plaintext' when other bytes "
    "that\n"
    "came before are still unread: somebody in the middle may have put them there. Raises "
    "TLSError, CertificateError, DeadlineExceeded, Cancelled, Reset or\n"
    "Busy; after any failure but Busy and ValueError the connection is unusable.\n\n"
    "On a connection that speaks TLS it begins a second layer within the first, as with a target\n"
    "behind an HTTPS proxy; a third is a ValueError.");

static int
conn_prepare_upgrade_to_tls(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames, struct job *job)
{
    static const struct params p = {
        "upgrade_to_tls", 1, 1, 1, {"config", "server_name", "read_ahead", "timeout", "token"}};
    struct upgrading *u = &job->u.upgrading;
    PyObject *values[MAX_PARAMS];

    job->attempt = attempt_upgrade;
    job->result = conn_tls_nothing;
    job->release = release_upgrade;
    u->read_ahead = true;
    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_tls(state_of(self), values[0], "config", &u->config) < 0 ||
        parse_server_name(values[1], &u->name, &u->server_name) < 0 ||
        parse_bool(values[2], "read_ahead", &u->read_ahead) < 0)
        return -1;
    if (u->config == NULL) {
        PyErr_SetString(PyExc_TypeError, "config must be a TLSConfig, not None");
        return -1;
    }
    return conn_job_begin(self, job, "upgrade_to_tls", values[3], values[4]);
}

JOB_METHODS(conn, upgrade_to_tls)

static hs_err
attempt_confirm(struct job *job)
{
    return hs_conn_confirm(job->call.conn, &job->call.op, job->call.err);
}

static hs_err
attempt_request(struct job *job)
{
    return hs_conn_request_certificate(job->call.conn, &job->call.op, job->u.requesting.required,
                                       job->u.requesting.wait, job->call.err);
}

CONN_DOC(
    request_client_certificate,
    "request_client_certificate($self, /, *, required=True, wait=True, timeout=None, "
    "token=None)\n--\n\n"
    "Ask the client for a certificate after the handshake, and wait until it has answered.\n\n"
    "For a server of TLS 1.3 (RFC 8446 section 4.6.2) whose TLSConfig says by ca= who may sign\n"
    "it; afterwards conn.tls tells the certificate. required: a client that shows none fails\n"
    "with CertificateError, as one does whose certificate is not accepted; then the\n"
    "connection is over. False: it may show none. What the client sends before its answer is\n"
    "kept to be received, up to 131072 bytes. wait=False only asks: a call that receives takes\n"
    "the answer in, or raises CertificateError.\n\n"
    "After DeadlineExceeded, Cancelled, and TLSError with failure 'protocol' (more came before\n"
    "the answer), the connection goes on and the request stands: another call waits for the\n"
    "same answer. TLSError with failure 'version': the client speaks TLS 1.2 and has shown\n"
    "none in its handshake, or has not offered it (post_handshake_auth); nothing has changed.\n"
    "Truncated: it has ended its stream.\n"
    "Busy while another call reads or writes; ValueError on a client, a plain connection, and\n"
    "with client_certificates='none'.");

static int
conn_prepare_request_client_certificate(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                        PyObject *kwnames, struct job *job)
{
    static const struct params p = {
        "request_client_certificate", 0, 0, 0, {"required", "wait", "timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    job->attempt = attempt_request;
    job->result = conn_tls_nothing;
    job->u.requesting.required = job->u.requesting.wait = true;
    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_bool(values[0], "required", &job->u.requesting.required) < 0 ||
        parse_bool(values[1], "wait", &job->u.requesting.wait) < 0)
        return -1;
    return conn_job_begin(self, job, p.function, values[2], values[3]);
}

JOB_METHODS(conn, request_client_certificate)

static hs_err
attempt_close_write(struct job *job)
{
    return hs_conn_close_write(job->call.conn, &job->call.op, job->call.err);
}

static int
prepare_plain(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
              struct job *job, const struct params *p)
{
    PyObject *values[MAX_PARAMS];

    job->result = conn_tls_nothing;
    if (parse_args(p, args, nargs, kwnames, values) < 0)
        return -1;
    return conn_job_begin(self, job, p->function, values[0], values[1]);
}

CONN_DOC(confirm,
         "confirm($self, /, *, timeout=None, token=None)\n--\n\n"
         "Wait until a TLS server has accepted this client, its certificate included.\n\n"
         "With TLS 1.3 a client's handshake ends before the server has looked at the client's\n"
         "certificate. Returns when the server has sent anything: a session ticket, or data,\n"
         "which stays to be read. A server that sends neither lets the deadline pass. Raises\n"
         "TLSError (failure 'alert') when the server refused.");

static int
conn_prepare_confirm(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                     struct job *job)
{
    static const struct params p = {"confirm", 0, 0, 0, {"timeout", "token"}};

    job->attempt = attempt_confirm;
    return prepare_plain(self, args, nargs, kwnames, job, &p);
}

JOB_METHODS(conn, confirm)

CONN_DOC(close_write,
         "close_write($self, /, *, timeout=None, token=None)\n--\n\n"
         "Tell the peer that no more will be sent; reading goes on.\n\n"
         "FIN, which never waits; with TLS close_notify, for which there must be room, and then\n"
         "no FIN before the end. Busy while another call writes through TLS.");

static int
conn_prepare_close_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                         struct job *job)
{
    static const struct params p = {"close_write", 0, 0, 0, {"timeout", "token"}};

    job->attempt = attempt_close_write;
    return prepare_plain(self, args, nargs, kwnames, job, &p);
}

JOB_METHODS(conn, close_write)

/* ---- conn.tls ------------------------------------------------------------------------------ */

static PyObject *
chain_tuple(struct hs_conn *core)
{
    size_t n = hs_conn_tls_chain_length(core), len;
    PyObject *tuple = PyTuple_New((Py_ssize_t)n);

    for (size_t i = 0; tuple != NULL && i < n; i++) {
        PyObject *bytes = NULL;
        uint8_t *der;

        if (hs_conn_tls_chain_copy(core, i, &der, &len) != HS_OK) {
            PyErr_NoMemory();
        } else {
            bytes = PyBytes_FromStringAndSize((const char *)der, (Py_ssize_t)len);
            free(der);
        }
        if (bytes == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, bytes);
    }
    return tuple;
}

static PyObject *
seconds_from(int64_t from_ns, int64_t to_ns)
{
    if (from_ns == 0 || to_ns == 0)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)(to_ns - from_ns) / 1e9);
}

PyObject *
conn_tls_info(struct hs_conn *core, mod_state *st)
{
    static const char *const ocsp[] = {"none", "good", "skipped"};
    struct hs_tls_info i;
    PyObject *chain;

    if (!hs_conn_tls_info(core, &i))
        Py_RETURN_NONE;
    if ((chain = chain_tuple(core)) == NULL)
        return NULL;
    return PyObject_CallFunction(
        st->tls_info, "sssszzOOsKNNNN", i.role == HS_TLS_SERVER ? "server" : "client", i.version,
        i.cipher, i.group, i.alpn[0] != '\0' ? i.alpn : NULL,
        i.server_name[0] != '\0' ? i.server_name : NULL, i.resumed ? Py_True : Py_False,
        i.verified ? Py_True : Py_False, ocsp[i.ocsp], (unsigned long long)i.tickets, chain,
        seconds_from(i.started_ns, i.first_byte_ns), seconds_from(i.started_ns, i.verified_ns),
        seconds_from(i.started_ns, i.finished_ns));
}

/* ---- Derived from the handshake ------------------------------------------------------------ */

/* RFC 8446 section 7.1: HKDF-Expand-Label gives 255 hashes at most; of the smallest that is. */
#define EXPORT_MAX (255L * 32)

struct exporting {
    struct hs_tls_exported what;
    uint8_t *out;
    size_t len;
};

static hs_err
act_export(struct hs_conn *core, void *arg, struct hs_error *err)
{
    const struct exporting *e = arg;

    return hs_conn_tls_export(core, &e->what, e->out, e->len, err);
}

static PyObject *
run_export(PyObject *self, struct exporting *e, Py_buffer *context)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)e->len);

    if (bytes == NULL)
        return NULL;
    if (context->obj !=
        NULL) { /* An empty buffer may have no address, and is a context all the same. */
        e->what.context = context->len > 0 ? context->buf : (const uint8_t *)"";
        e->what.context_len = (size_t)context->len;
    }
    e->out = (uint8_t *)PyBytes_AS_STRING(bytes);
    if (conn_act((ConnObject *)self, "export_keying_material", act_export, e) < 0)
        Py_CLEAR(bytes);
    return bytes;
}

CONN_DOC(export_keying_material,
         "export_keying_material($self, label, length, /, context=None)\n--\n\n"
         "length secret bytes that both ends of this TLS, and nobody else, derive for label.\n\n"
         "RFC 5705; with TLS 1.3 RFC 8446 section 7.5. label is text, \"EXPORTER-...\" as IANA\n"
         "lists it, or \"EXPERIMENTAL...\"; length from 1 to 8160. context: bytes that both ends\n"
         "know; with TLS 1.2 None is not the same as b\"\". Within TLS within TLS it is of the\n"
         "inner layer. Raises ValueError for a plain connection, TLS that has failed, and TLS 1.2\n"
         "whose peer does not do the extended master secret (RFC 7627).");

PyObject *
conn_export_keying_material(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    static const struct params p = {
        "export_keying_material", 2, 3, 2, {"label", "length", "context"}};
    PyObject *values[MAX_PARAMS], *result;
    struct exporting e = {0};
    Py_buffer context = {0};
    Py_ssize_t label_len;
    long len = 0;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_long(values[1], "length", 1, EXPORT_MAX, &len) < 0)
        return NULL;
    if (!PyUnicode_Check(values[0]))
        return PyErr_Format(PyExc_TypeError, "label must be str, not %.100s",
                            Py_TYPE(values[0])->tp_name);
    if ((e.what.label = PyUnicode_AsUTF8AndSize(values[0], &label_len)) == NULL)
        return NULL;
    e.what.label_len = (size_t)label_len;
    e.len = (size_t)len;
    if (values[2] != NULL && values[2] != Py_None &&
        PyObject_GetBuffer(values[2], &context, PyBUF_SIMPLE) < 0)
        return NULL;
    result = run_export(self, &e, &context);
    PyBuffer_Release(&context);
    return result;
}

struct binding {
    enum hs_tls_binding kind;
    uint8_t out[HS_TLS_BINDING_MAX];
    size_t len;
};

static hs_err
act_bind(struct hs_conn *core, void *arg, struct hs_error *err)
{
    struct binding *b = arg;

    return hs_conn_tls_binding(core, b->kind, b->out, &b->len, err);
}

static int
conn_tls_parse_kind(PyObject *value, enum hs_tls_binding *ret)
{
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "kind must be str, not %.100s", Py_TYPE(value)->tp_name);
        return -1;
    }
    if (PyUnicode_CompareWithASCIIString(value, "tls-server-end-point") == 0) {
        *ret = HS_TLS_BINDING_END_POINT;
        return 0;
    }
    if (PyUnicode_CompareWithASCIIString(value, "tls-exporter") == 0) {
        *ret = HS_TLS_BINDING_EXPORTER;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "kind must be 'tls-server-end-point' or 'tls-exporter', got %R",
                 value);
    return -1;
}

CONN_DOC(channel_binding,
         "channel_binding($self, kind, /)\n--\n\n"
         "What ties a proof of who somebody is (SCRAM-...-PLUS) to this TLS.\n\n"
         "kind: \"tls-server-end-point\" (RFC 5929 section 4), the hash of the server's\n"
         "certificate; or \"tls-exporter\" (RFC 9266), 32 bytes of this connection alone.\n"
         "Raises ValueError as export_keying_material() does, and for tls-server-end-point on a\n"
         "server that has resumed a session, or if the certificate's signature has no hash.");

PyObject *
conn_channel_binding(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"channel_binding", 1, 1, 1, {"kind"}};
    PyObject *values[MAX_PARAMS];
    struct binding b = {0};

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        conn_tls_parse_kind(values[0], &b.kind) < 0 ||
        conn_act((ConnObject *)self, "channel_binding", act_bind, &b) < 0)
        return NULL;
    return PyBytes_FromStringAndSize((const char *)b.out, (Py_ssize_t)b.len);
}

/* ---- Certificates -------------------------------------------------------------------------- */

PyDoc_STRVAR(read_doc, "read_certificate(der, /)\n--\n\n"
                       "What a certificate says: a CertificateRecord.");

static PyObject *
core_read_certificate(PyObject *module, PyObject *der)
{
    struct hs_tls_certificate cert;
    struct hs_error err = {0};
    PyObject *record;
    Py_buffer view;
    hs_err rv;

    if (PyObject_GetBuffer(der, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    rv = hs_tls_certificate_read(view.buf, (size_t)view.len, &err, &cert);
    PyBuffer_Release(&view);
    if (rv != HS_OK) {
        raise_plain_error(state_of_module(module), &err, rv);
        return NULL;
    }
    record =
        record_new(state_of_module(module)->certificate_record, "NNNNLL", text_object(cert.subject),
                   text_object(cert.issuer), text_object(cert.names), text_object(cert.serial),
                   (long long)cert.not_before, (long long)cert.not_after);
    hs_tls_certificate_fini(&cert);
    return record;
}

PyDoc_STRVAR(openssl_version_doc,
             "openssl_version()\n--\n\n"
             "The OpenSSL that hardsock runs with, in its own words.\n\n"
             "A str: \"OpenSSL 3.5.7 9 Jun 2026\". A wheel brings one of its own, with fixes of\n"
             "its own date; a build from source uses the system's. Neither need be the one that\n"
             "ssl.OPENSSL_VERSION names.");

static PyObject *
core_openssl_version(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    return PyUnicode_FromString(hs_openssl_version());
}

PyMethodDef tls_functions[] = {
    {"openssl_version", core_openssl_version, METH_NOARGS, openssl_version_doc},
    {"read_certificate", core_read_certificate, METH_O, read_doc},
    {NULL, NULL, 0, NULL},
};
