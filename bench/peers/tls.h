/* tls.h: what the TLS peers of the bench, and the floors that are servers, share.
 *
 * Version, cipher and key exchange are pinned here, since not every client can pin them (Go's and
 * Python's cannot choose among those of TLS 1.3): TLS 1.3, AES-128-GCM, X25519. So all rows do the
 * same arithmetic. Certificates are made for each run (certificates.py); BENCH_TLS names their
 * folder.
 */
#ifndef BENCH_TLS_H
#define BENCH_TLS_H

#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>

static inline void
die_of_tls(const char *what)
{
    char reason[256];
    ERR_error_string_n(ERR_get_error(), reason, sizeof reason);
    fprintf(stderr, "%s: %s\n", what, reason);
    exit(1);
}

static inline const char *
tls_file(const char *name)
{
    static char path[PATH_MAX];
    const char *folder = getenv("BENCH_TLS");
    if (folder == NULL)
        die_of_tls("BENCH_TLS is not set");
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static inline void
pin_algorithms(SSL_CTX *ctx)
{
    if (!SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256") ||
        !SSL_CTX_set1_groups_list(ctx, "X25519"))
        die_of_tls("algorithms");
}

/* Sessions are in tickets alone. Buffers stay: a peer must be fast, and its memory is not measured;
 * a floor that is measured releases them. */
static inline SSL_CTX *
server_context(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL)
        die_of_tls("context");
    pin_algorithms(ctx);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_use_certificate_chain_file(ctx, tls_file("server.pem")) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, tls_file("server.key"), SSL_FILETYPE_PEM) != 1)
        die_of_tls("certificate");
    return ctx;
}

#endif
