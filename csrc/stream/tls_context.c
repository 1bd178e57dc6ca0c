/* tls_context.c: from options to an SSL_CTX that is safe by default.
 *
 * Once built nothing changes it. What it refuses: versions before 1.2, key exchange without forward
 * secrecy, ciphers without authentication of the data (so no CBC), renegotiation, compression,
 * keys below 112 bits of security, SHA-1 signatures.
 */
#include "tls_context.h"

#include "tls_callbacks.h"
#include "tls_error.h"
#include "tls_rehearse.h"
#include "../base/err.h"
#include "../base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CIPHERS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20"
#define GROUPS "X25519:P-256:P-384:P-521"
/* Received records are decrypted out of it; several fit, so that bulk data takes fewer system
 * calls. Only there while something is in it. */
#define READ_BUFFER 65536

static hs_err
tls_context_no_memory(struct hs_error *err)
{
    ERR_clear_error();
    return hs_err_setx(err, HS_E_NOMEM, "tls", "no memory for a TLS configuration");
}

/* ---- Checks that need no OpenSSL ----------------------------------------------------------- */

static hs_err
check_versions(const struct hs_tls_options *o, struct hs_error *err)
{
    if ((o->min_version != HS_TLS_1_2 && o->min_version != HS_TLS_1_3) ||
        (o->max_version != HS_TLS_1_2 && o->max_version != HS_TLS_1_3))
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "min_version and max_version must be TLS 1.2 or 1.3");
    if (o->min_version > o->max_version)
        return hs_err_setx(err, HS_E_INVALID, "tls", "min_version is above max_version");
    return HS_OK;
}

static hs_err
check_alpn(const struct hs_tls_options *o, struct hs_error *err)
{
    for (size_t i = 0; i < o->alpn_len; i += (size_t)o->alpn[i] + 1)
        if (o->alpn[i] == 0 || i + o->alpn[i] >= o->alpn_len)
            return hs_err_setx(err, HS_E_INVALID, "tls",
                               "alpn: every name must have 1 to 255 bytes");
    return HS_OK;
}

static hs_err
tls_context_check_options(const struct hs_tls_options *o, struct hs_error *err)
{
    bool server = o->role == HS_TLS_SERVER;
    hs_err rv;

    if ((rv = check_versions(o, err)) != HS_OK || (rv = check_alpn(o, err)) != HS_OK)
        return rv;
    if (server && o->n_identities == 0)
        return hs_err_setx(err, HS_E_INVALID, "tls", "a server needs a certificate");
    if (!server && o->n_identities > 1)
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "a client has one certificate at most, got %zu", o->n_identities);
    if (server && o->certs != HS_TLS_CERTS_NONE && o->n_cas == 0 && !o->system_ca)
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "client certificates cannot be checked without ca");
    if (!server && !o->insecure_skip_verify && o->n_cas == 0 && !o->system_ca)
        return hs_err_setx(err, HS_E_INVALID, "tls", "a client that verifies needs ca");
    if (o->insecure_skip_verify && o->ocsp == HS_TLS_OCSP_REQUIRE)
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "ocsp=require contradicts insecure_skip_verify");
    if (o->post_handshake_auth && (server || o->max_version < HS_TLS_1_3))
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "post_handshake_auth is for a client that speaks TLS 1.3");
    if (o->certs >= HS_TLS_CERTS_ON_REQUEST && o->max_version < HS_TLS_1_3)
        return hs_err_setx(err, HS_E_INVALID, "tls", "client certificates on request take TLS 1.3");
    if (o->ciphers != NULL && o->insecure_ciphers != NULL)
        return hs_err_setx(err, HS_E_INVALID, "tls", "ciphers contradicts insecure_ciphers");
    if (o->tickets < 0 || o->tickets > 8)
        return hs_err_setx(err, HS_E_INVALID, "tls", "tickets must be in 0..8, got %d", o->tickets);
    if (o->security_level < 2 || o->security_level > 5)
        return hs_err_setx(err, HS_E_INVALID, "tls", "security_level must be in 2..5, got %d",
                           o->security_level);
    if (o->session_lifetime_s < 1 || o->session_lifetime_s > 604800) /* RFC 8446 section 4.6.1 */
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "session_lifetime must be in 1..604800 seconds");
    return HS_OK;
}

/* ---- Rules --------------------------------------------------------------------------------- */

/* A caller's list may narrow the rules, not widen them. */
static hs_err
check_ciphers(SSL_CTX *ctx, struct hs_error *err)
{
    STACK_OF(SSL_CIPHER) *list = SSL_CTX_get_ciphers(ctx);

    for (int i = 0; i < sk_SSL_CIPHER_num(list); i++) {
        const SSL_CIPHER *c = sk_SSL_CIPHER_value(list, i);
        int kx = SSL_CIPHER_get_kx_nid(c), auth = SSL_CIPHER_get_auth_nid(c);

        if (!SSL_CIPHER_is_aead(c) ||
            (kx != NID_kx_ecdhe && kx != NID_kx_dhe && kx != NID_kx_any) || auth == NID_auth_null)
            return hs_err_setx(err, HS_E_INVALID, "tls",
                               "ciphers: %s has no forward secrecy or no authenticated encryption; "
                               "insecure_ciphers takes it",
                               SSL_CIPHER_get_name(c));
    }
    return HS_OK;
}

static hs_err
set_ciphers(SSL_CTX *ctx, const struct hs_tls_options *o, struct hs_error *err)
{
    const char *list = o->ciphers != NULL            ? o->ciphers
                       : o->insecure_ciphers != NULL ? o->insecure_ciphers
                                                     : CIPHERS_1_2;

    SSL_CTX_set_security_level(ctx, o->insecure_ciphers != NULL ? 0 : o->security_level);
    if (!SSL_CTX_set_cipher_list(ctx, list))
        return hs_tls_config_error(
            err, o->insecure_ciphers != NULL ? "insecure_ciphers" : "ciphers", list);
    if (!SSL_CTX_set1_groups_list(ctx, GROUPS))
        return hs_tls_config_error(err, "groups", GROUPS);
    /* "@SECLEVEL=0" in a list would lower it. */
    if (o->insecure_ciphers == NULL && SSL_CTX_get_security_level(ctx) < o->security_level)
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "ciphers: a security level below %d takes insecure_ciphers",
                           o->security_level);
    return o->ciphers != NULL ? check_ciphers(ctx, err) : HS_OK;
}

static hs_err
set_rules(SSL_CTX *ctx, const struct hs_tls_options *o, struct hs_error *err)
{
    if (!SSL_CTX_set_min_proto_version(ctx, o->min_version) ||
        !SSL_CTX_set_max_proto_version(ctx, o->max_version))
        return hs_tls_config_error(err, "min_version", NULL);
    SSL_CTX_clear_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_LEGACY_SERVER_CONNECT |
                                   SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    if (o->insecure_accept_truncation)
        SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, READ_BUFFER);
    return set_ciphers(ctx, o, err);
}

/* ---- Trust --------------------------------------------------------------------------------- */

static hs_err
load_trust(SSL_CTX *ctx, const struct hs_tls_options *o, struct hs_error *err)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    /* What is named as trusted is trusted. */
    unsigned long flags = o->whole_chains ? 0 : X509_V_FLAG_PARTIAL_CHAIN;
    hs_err rv = HS_OK;

    if (o->system_ca)
        rv = hs_tls_trust_system(store, err);
    for (size_t i = 0; rv == HS_OK && i < o->n_cas; i++)
        rv = hs_tls_load_cas(store, &o->cas[i], err);
    for (size_t i = 0; rv == HS_OK && i < o->n_crls; i++)
        rv = hs_tls_load_crls(store, &o->crls[i], err);
    if (o->strict_certificates)
        flags |= X509_V_FLAG_X509_STRICT;
    if (o->n_crls > 0)
        flags |= X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL;
    if (rv == HS_OK && !X509_STORE_set_flags(store, flags))
        rv = tls_context_no_memory(err);
    return rv;
}

/* Tells clients whose certificates are asked for. */
static hs_err
name_authorities(SSL_CTX *ctx, struct hs_error *err)
{
    STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(SSL_CTX_get_cert_store(ctx));

    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        X509 *ca = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));

        if (ca != NULL && !SSL_CTX_add_client_CA(ctx, ca))
            return tls_context_no_memory(err);
    }
    return HS_OK;
}

static hs_err
set_trust(struct hs_tls_context *c, const struct hs_tls_options *o, struct hs_error *err)
{
    bool server = o->role == HS_TLS_SERVER;
    int mode = SSL_VERIFY_NONE;
    hs_err rv = HS_OK;

    c->verify = server ? o->certs != HS_TLS_CERTS_NONE : !o->insecure_skip_verify;
    c->verify_name = c->verify && !server && !o->insecure_skip_hostname;
    if (c->verify) {
        mode = SSL_VERIFY_PEER;
        if (server && hs_tls_certs_required(o->certs, TLS1_2_VERSION))
            mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
        if (server && o->certs >= HS_TLS_CERTS_ON_REQUEST)
            mode |= SSL_VERIFY_POST_HANDSHAKE;
        rv = load_trust(c->ctx, o, err);
    }
    SSL_CTX_set_verify(c->ctx, mode, NULL);
    if (!server)
        SSL_CTX_set_post_handshake_auth(c->ctx, o->post_handshake_auth);
    if (rv == HS_OK && server && c->verify)
        rv = name_authorities(c->ctx, err);
    return rv;
}

/* ---- Who we are ---------------------------------------------------------------------------- */

static hs_err
load_identities(struct hs_tls_context *c, const struct hs_tls_options *o, struct hs_error *err)
{
    hs_err rv = HS_OK;

    if (o->n_identities == 0)
        return HS_OK;
    if ((c->identities = hs_sys_calloc(o->n_identities, sizeof(*c->identities))) == NULL)
        return tls_context_no_memory(err);
    while (rv == HS_OK && c->n_identities < o->n_identities)
        if ((rv = hs_tls_load_identity(&o->identities[c->n_identities], err,
                                       &c->identities[c->n_identities])) == HS_OK)
            c->n_identities++;
    /* Each is tried against the rules; the first stays. */
    for (size_t i = c->n_identities; rv == HS_OK && i-- > 0;)
        if (!SSL_CTX_use_cert_and_key(c->ctx, c->identities[i].leaf, c->identities[i].key,
                                      c->identities[i].issuers, 1))
            rv = hs_tls_config_error(err, "chain", o->identities[i].chain.path);
    return rv;
}

/* ---- Resumption ---------------------------------------------------------------------------- */

static hs_err
set_sessions(struct hs_tls_context *c, const struct hs_tls_options *o,
             struct hs_tls_tickets *tickets, struct hs_error *err)
{
    unsigned char id[16];

    c->sessions_on = o->sessions && (o->role == HS_TLS_CLIENT || o->tickets > 0);
    SSL_CTX_set_timeout(c->ctx, (long)o->session_lifetime_s);
    if (o->role == HS_TLS_CLIENT) {
        SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        if (c->sessions_on && (c->sessions = hs_tls_sessions_new()) == NULL)
            return tls_context_no_memory(err);
        return HS_OK;
    }
    /* Without the cache tickets hold all: with it and without tickets TLS 1.3 would keep every
     * session here (CVE-2024-2511). */
    SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);
    if (!c->sessions_on) {
        SSL_CTX_set_options(c->ctx, SSL_OP_NO_TICKET);
        (void)SSL_CTX_set_num_tickets(c->ctx, 0);
        return HS_OK;
    }
    (void)SSL_CTX_set_num_tickets(c->ctx, (size_t)o->tickets);
    c->tickets = tickets != NULL ? hs_tls_tickets_ref(tickets)
                                 : hs_tls_tickets_new(o->session_lifetime_s, hs_now());
    memset(id, 'h', sizeof(id)); /* One context for all that share the ticket keys. */
    if (c->tickets == NULL || !SSL_CTX_set_session_id_context(c->ctx, id, sizeof(id)))
        return tls_context_no_memory(err);
    return HS_OK;
}

static hs_err
set_alpn(struct hs_tls_context *c, const struct hs_tls_options *o, struct hs_error *err)
{
    if (o->alpn_len == 0)
        return HS_OK;
    if ((c->alpn = hs_sys_malloc(o->alpn_len)) == NULL)
        return tls_context_no_memory(err);
    memcpy(c->alpn, o->alpn, o->alpn_len);
    c->alpn_len = o->alpn_len;
    if (o->role == HS_TLS_CLIENT &&
        SSL_CTX_set_alpn_protos(c->ctx, c->alpn, (unsigned)c->alpn_len) != 0)
        return tls_context_no_memory(err);
    return HS_OK;
}

static hs_err
open_key_log(struct hs_tls_context *c, const char *path, struct hs_error *err)
{
    struct stat st;

    if (path == NULL)
        return HS_OK;
    c->key_log_fd = hs_sys_open(
        path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (c->key_log_fd < 0 || hs_sys_fstat(c->key_log_fd, &st) != 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, "tls", "insecure_key_log_file: %.120s", path);
    if (!S_ISREG(st.st_mode)) /* A pipe that nobody empties would stop handshakes. */
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "insecure_key_log_file: %.120s must be a regular file", path);
    return HS_OK;
}

/* What a library does not do must not be found out by nobody. */
static hs_err
rehearse_ocsp(const struct hs_tls_context *c, const struct hs_tls_options *o, struct hs_error *err)
{
    hs_err rv = HS_OK;

    if (o->role == HS_TLS_CLIENT)
        return c->ocsp != HS_TLS_OCSP_OFF ? hs_tls_rehearse_client(err) : HS_OK;
    for (size_t i = 0; rv == HS_OK && i < c->n_identities; i++)
        if (c->identities[i].ocsp != NULL)
            rv = hs_tls_rehearse_staple(&c->identities[i], o, err);
    return rv;
}

/* ---- All together -------------------------------------------------------------------------- */

static hs_err
build(struct hs_tls_context *c, const struct hs_tls_options *o, struct hs_tls_tickets *tickets,
      struct hs_error *err)
{
    hs_err rv;

    c->ctx = SSL_CTX_new(o->role == HS_TLS_SERVER ? TLS_server_method() : TLS_client_method());
    if (c->ctx == NULL)
        return tls_context_no_memory(err);
    if ((rv = set_rules(c->ctx, o, err)) != HS_OK || (rv = set_trust(c, o, err)) != HS_OK ||
        (rv = load_identities(c, o, err)) != HS_OK ||
        (rv = set_sessions(c, o, tickets, err)) != HS_OK || (rv = set_alpn(c, o, err)) != HS_OK ||
        (rv = open_key_log(c, o->insecure_key_log, err)) != HS_OK)
        return rv;
    hs_tls_install_callbacks(c);
    ERR_clear_error();
    return rehearse_ocsp(c, o, err);
}

hs_err
hs_tls_context_new(const struct hs_tls_options *o, struct hs_tls_tickets *tickets,
                   struct hs_error *err, struct hs_tls_context **ret_context)
{
    struct hs_tls_context *c;
    hs_err rv;

    if ((rv = tls_context_check_options(o, err)) != HS_OK)
        return rv;
    if ((c = hs_sys_calloc(1, sizeof(*c))) == NULL)
        return tls_context_no_memory(err);
    c->refs = 1;
    c->key_log_fd = -1;
    c->role = o->role;
    c->certs = o->certs;
    c->ocsp = o->insecure_skip_verify ? HS_TLS_OCSP_OFF : o->ocsp;
    c->handshake_timeout_ns = o->handshake_timeout_ns;
    c->session_lifetime_s = o->session_lifetime_s;
    c->lists = o->n_crls > 0;
    if ((rv = build(c, o, tickets, err)) != HS_OK)
        hs_tls_context_unref(c);
    else
        *ret_context = c;
    return rv;
}

void
hs_tls_context_unref(struct hs_tls_context *c)
{
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    SSL_CTX_free(c->ctx);
    for (size_t i = 0; i < c->n_identities; i++)
        hs_tls_identity_fini(&c->identities[i]);
    free(c->identities);
    free(c->alpn);
    hs_tls_sessions_free(c->sessions);
    hs_tls_tickets_unref(c->tickets);
    if (c->key_log_fd >= 0)
        (void)close(c->key_log_fd);
    free(c);
}
