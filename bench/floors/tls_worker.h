/* tls_worker.h: what the TLS clients among the C workers share: the least that OpenSSL, a
 * non-blocking socket and a deadline ask for, with the certificate verified.
 *
 * Version, cipher and group are the peer's choice, as for every other client (peers/tls.h).
 */
#ifndef BENCH_TLS_WORKER_H
#define BENCH_TLS_WORKER_H

#include "worker.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>

#define FIVE_SECONDS INT64_C(5000000000)
#define SERVER_NAME "localhost"

static inline void
die_of_tls(const char *what)
{
    char reason[256];
    ERR_error_string_n(ERR_get_error(), reason, sizeof reason);
    printf("{\"error\": \"%s: %s\"}\n", what, reason);
    fflush(stdout);
    exit(1);
}

static inline SSL_CTX *
client_context(void)
{
    char path[PATH_MAX];
    const char *folder = getenv("BENCH_TLS");
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (folder == NULL || ctx == NULL)
        die_of_tls("BENCH_TLS, context");
    (void)signal(SIGPIPE, SIG_IGN);
    (void)snprintf(path, sizeof path, "%s/ca.pem", folder);
    if (SSL_CTX_load_verify_file(ctx, path) != 1)
        die_of_tls("ca.pem");
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1); /* one system call for each record, not two */
    return ctx;
}

/* After a call that returned ret: waits for what it wants, or it was an error. */
static inline void
wait_for_tls(SSL *ssl, int ret, int64_t deadline)
{
    switch (SSL_get_error(ssl, ret)) {
    case SSL_ERROR_WANT_READ:
        wait_for(SSL_get_fd(ssl), POLLIN, deadline);
        break;
    case SSL_ERROR_WANT_WRITE:
        wait_for(SSL_get_fd(ssl), POLLOUT, deadline);
        break;
    default:
        die_of_tls("TLS");
    }
}

/* session: to be resumed, or NULL. */
static inline SSL *
connect_tls(SSL_CTX *ctx, const struct sockaddr_in *sin, SSL_SESSION *session, int64_t deadline)
{
    int ret, one = 1, fd = connect_by(sin, deadline, 0);
    SSL *ssl = SSL_new(ctx);
    /* Records are sent whole, and not cut to fit segments. */
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
        die("TCP_NODELAY");
    if (ssl == NULL || !SSL_set_fd(ssl, fd) || !SSL_set_tlsext_host_name(ssl, SERVER_NAME) ||
        !SSL_set1_host(ssl, SERVER_NAME) || (session != NULL && !SSL_set_session(ssl, session)))
        die_of_tls("SSL_new");
    while ((ret = SSL_connect(ssl)) != 1)
        wait_for_tls(ssl, ret, deadline);
    return ssl;
}

/* Some bytes, one at least. */
static inline size_t
recv_tls(SSL *ssl, char *buf, size_t len, int64_t deadline)
{
    size_t n;
    int ret;
    while ((ret = SSL_read_ex(ssl, buf, len, &n)) != 1)
        wait_for_tls(ssl, ret, deadline);
    return n;
}

static inline void
send_tls(SSL *ssl, const char *data, size_t len, int64_t deadline)
{
    size_t n;
    for (size_t done = 0; done < len; done += n) {
        int ret;
        while ((ret = SSL_write_ex(ssl, data + done, len - done, &n)) != 1)
            wait_for_tls(ssl, ret, deadline);
    }
}

static inline void
close_tls(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);
    (void)SSL_shutdown(ssl);
    ERR_clear_error();
    SSL_free(ssl);
    close(fd);
}

#endif
