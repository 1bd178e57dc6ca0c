/* tls_peer.c: peer.c's modes over TLS, by the plainest use of OpenSSL there is.
 *
 * `tls_peer MODE` serves (see peer.h, tls.h):
 *   handshake  takes one connection after the other, sends one byte that says whether its session
 *              was resumed ('r') or not ('f'), waits for the client's end, closes
 *   echo       a thread per connection sends back what it reads
 *   hold       one epoll loop holds any number of connections and sends back what it reads; a
 *              handshake has the loop to itself (clients come one after the other)
 *   source     a thread per connection sends without end
 *   sink       a thread per connection reads without end
 */
#define _GNU_SOURCE
#include "peer.h"
#include "tls.h"

#include <signal.h>
#include <sys/epoll.h>

#define BUFFER 65536
#define BULK 262144
#define EVENTS 256

static SSL_CTX *ctx;

/* NULL when the client has left, or has come for something else. Takes fd. */
static SSL *
accept_tls(int fd)
{
    SSL *ssl = SSL_new(ctx);
    if (ssl == NULL || !SSL_set_fd(ssl, fd))
        die_of_tls("SSL_new");
    if (SSL_accept(ssl) == 1)
        return ssl;
    ERR_clear_error();
    SSL_free(ssl);
    close(fd);
    return NULL;
}

static void
end(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);
    ERR_clear_error();
    SSL_free(ssl);
    close(fd);
}

/* Answers a close_notify, for which some clients wait, and then waits for the end of all. */
static void
serve_handshake(int listener)
{
    char byte;
    for (;;) {
        int fd = accept_one(listener);
        SSL *ssl = fd < 0 ? NULL : accept_tls(fd);
        if (ssl == NULL)
            continue;
        byte = SSL_session_reused(ssl) ? 'r' : 'f';
        if (SSL_write(ssl, &byte, 1) == 1 && SSL_read(ssl, &byte, 1) <= 0 &&
            SSL_get_shutdown(ssl) == SSL_RECEIVED_SHUTDOWN && SSL_shutdown(ssl) == 1)
            while (read(fd, &byte, 1) > 0) {}
        end(ssl);
    }
}

/* False when the connection is over. */
static int
echo_once(SSL *ssl, char *buf)
{
    int n = SSL_read(ssl, buf, BUFFER);
    return n > 0 && SSL_write(ssl, buf, n) == n;
}

static void *
echo_connection(void *arg)
{
    SSL *ssl = accept_tls((int)(intptr_t)arg);
    char buf[BUFFER];
    if (ssl == NULL)
        return NULL;
    while (echo_once(ssl, buf)) {}
    end(ssl);
    return NULL;
}

static void *
source_connection(void *arg)
{
    SSL *ssl = accept_tls((int)(intptr_t)arg);
    char *buf = malloc(BULK);
    if (buf == NULL)
        die("malloc");
    memset(buf, 'x', BULK);
    if (ssl != NULL) {
        while (SSL_write(ssl, buf, BULK) > 0) {}
        end(ssl);
    }
    free(buf);
    return NULL;
}

static void *
sink_connection(void *arg)
{
    SSL *ssl = accept_tls((int)(intptr_t)arg);
    char *buf = malloc(BULK);
    if (buf == NULL)
        die("malloc");
    if (ssl != NULL) {
        while (SSL_read(ssl, buf, BULK) > 0) {}
        end(ssl);
    }
    free(buf);
    return NULL;
}

static void
serve_threads(int listener, void *(*serve)(void *fd))
{
    for (;;) {
        pthread_t thread;
        int fd = accept_one(listener);
        if (fd < 0)
            continue;
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) != 0)
            die("pthread_create");
        pthread_detach(thread);
    }
}

static void
serve_echo(int listener)
{
    serve_threads(listener, echo_connection);
}

/* What a record costs beside its bytes is the less the more of them are read at once. */
static void
serve_sink(int listener)
{
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, BUFFER);
    serve_threads(listener, sink_connection);
}

static void
serve_source(int listener)
{
    serve_threads(listener, source_connection);
}

static void
serve_hold(int listener)
{
    static char buf[BUFFER];
    struct epoll_event events[EVENTS], ev = {.events = EPOLLIN, .data.ptr = NULL};
    int ep = epoll_create1(EPOLL_CLOEXEC);

    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    raise_descriptor_limit();
    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev) != 0)
        die("epoll");
    for (;;) {
        int n = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            SSL *ssl = events[i].data.ptr;
            if (ssl != NULL) {
                if (!echo_once(ssl, buf))
                    end(ssl);
                continue;
            }
            int fd = accept_one(listener);
            ev.data.ptr = fd < 0 ? NULL : accept_tls(fd);
            if (ev.data.ptr != NULL && epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0)
                die("epoll_ctl");
        }
    }
}

int
main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*serve)(int listener);
    } modes[] = {
        {"handshake", serve_handshake}, {"echo", serve_echo}, {"hold", serve_hold},
        {"source", serve_source},       {"sink", serve_sink},
    };

    (void)signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; argc == 2 && i < sizeof modes / sizeof modes[0]; i++) {
        if (strcmp(argv[1], modes[i].name) == 0) {
            ctx = server_context();
            end_with_stdin();
            modes[i].serve(open_listener());
        }
    }
    fputs("usage: tls_peer handshake|echo|hold|source|sink\n", stderr);
    return 2;
}
