/* tls_context_impl.h: TLS settings made ready for handshakes, for the tls_*.c files.
 *
 * A config is what callers share; it points to the context of the moment: an SSL_CTX and what
 * belongs to it, never changed once it is in use (OpenSSL's are not safe to be). Reloading builds a
 * new context and swaps the pointer; every connection keeps the context that it began with.
 */
#ifndef HS_STREAM_TLS_CONTEXT_IMPL_H
#define HS_STREAM_TLS_CONTEXT_IMPL_H

#include "hardsock.h"
#include "tls_sessions.h"
#include "tls_tickets.h"

#include <openssl/ssl.h>
#include <stdatomic.h>

/* Who we are, loaded. */
struct tls_identity {
    X509 *leaf; /* owns, as the next three */
    EVP_PKEY *key;
    STACK_OF(X509) * issuers; /* what is sent with it */
    uint8_t *ocsp;            /* a response to be stapled, or NULL */
    size_t ocsp_len;
};

struct hs_tls_context {
    atomic_int refs;
    SSL_CTX *ctx;                    /* owns */
    struct tls_identity *identities; /* own */
    size_t n_identities;
    uint8_t *alpn; /* owns */
    size_t alpn_len;
    enum hs_tls_role role;
    enum hs_tls_client_certs certs;
    enum hs_tls_ocsp_mode ocsp;
    bool verify, verify_name, sessions_on;
    bool lists; /* revocation lists are checked */
    int64_t handshake_timeout_ns, session_lifetime_s;
    int key_log_fd;                   /* owns, or -1 */
    struct hs_tls_sessions *sessions; /* owns; client */
    struct hs_tls_tickets *tickets;   /* owns a reference; server */
};

/* ---- tls_load.c ---- */
HS_NODISCARD hs_err hs_tls_load_cas(X509_STORE *store, const struct hs_tls_source *source,
                                    struct hs_error *err);
HS_NODISCARD hs_err hs_tls_load_crls(X509_STORE *store, const struct hs_tls_source *source,
                                     struct hs_error *err);
HS_NODISCARD hs_err hs_tls_load_identity(const struct hs_tls_identity *from, struct hs_error *err,
                                         struct tls_identity *ret_identity);
void hs_tls_identity_fini(struct tls_identity *identity);

/* Whether a directory holds a readable file named as c_rehash does (of others OpenSSL sees none): 1
 * or 0, or -errno if it cannot be opened. */
int hs_tls_is_hashed(const char *path);

/* ---- tls_trust.c ---- */
/* Whom the system trusts: SSL_CERT_FILE and SSL_CERT_DIR or OpenSSL's places for them, else the
 * bundle of a distribution. HS_E_TLS: nobody. */
HS_NODISCARD hs_err hs_tls_trust_system(X509_STORE *store, struct hs_error *err);

/* Whether no handshake of this version may end without the client's certificate. */
static inline bool
hs_tls_certs_required(enum hs_tls_client_certs certs, int version)
{
    return certs == HS_TLS_CERTS_REQUIRED ||
           (certs == HS_TLS_CERTS_ON_REQUEST_OR_REQUIRED && version < TLS1_3_VERSION);
}

#endif
