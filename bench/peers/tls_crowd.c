/* tls_crowd.c: the clients of a TLS server that is measured, in one process and one thread.
 *
 * `tls_crowd WINDOW` serves workers as crowd.c does (see peer.h); the commands, each answered by a
 * line {"ops": n, "ns": elapsed}:
 *
 *   open PORT COUNT      opens COUNT connections to 127.0.0.1:PORT, one after the other, with 64
 *                        bytes there and back on each, and keeps them
 *   accept PORT SECONDS  full handshakes, WINDOW at any time: a connection that has received a byte
 *                        counts, and ends with a reset, so that no port stays behind
 *
 * Clients do not verify the server: they are not what is measured. While it measures the crowd
 * never sleeps.
 */
#define _GNU_SOURCE
#include "peer.h"
#include "tls.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <time.h>

#define MESSAGE 64
#define EVENTS 256
#define SOURCES 8

static SSL_CTX *ctx;
static SSL **clients; /* those of accept */
static size_t window;
static int ep;

static int64_t
now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Connecting to a listener on the same machine takes place within the call. */
static SSL *
enter(int port)
{
    static uint32_t n;
    struct sockaddr_in source = {.sin_family = AF_INET};
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    SSL *ssl = SSL_new(ctx);

    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + n++ % SOURCES);
    if (fd < 0 || setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&source, sizeof source) != 0 ||
        connect(fd, (struct sockaddr *)&server, sizeof server) != 0)
        die("connect");
    if (ssl == NULL || !SSL_set_fd(ssl, fd) || !SSL_set_tlsext_host_name(ssl, "localhost"))
        die_of_tls("SSL_new");
    SSL_set_connect_state(ssl);
    return ssl;
}

static void
leave(SSL *ssl)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    int fd = SSL_get_fd(ssl);

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    SSL_free(ssl);
    close(fd);
}

static void
say(FILE *out, long ops, int64_t ns)
{
    fprintf(out, "{\"ops\": %ld, \"ns\": %lld}\n", ops, (long long)ns);
    fflush(out);
}

static void
run_open(int port, size_t count, FILE *out)
{
    char buf[MESSAGE] = {0};
    int64_t start = now_ns();

    for (size_t i = 0; i < count; i++) {
        SSL *ssl = enter(port);
        if (SSL_write(ssl, buf, MESSAGE) != MESSAGE || SSL_read(ssl, buf, MESSAGE) != MESSAGE)
            die_of_tls("exchange");
    }
    say(out, (long)count, now_ns() - start);
}

static void
begin(size_t i, int port)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = i};
    int fd;

    clients[i] = enter(port);
    fd = SSL_get_fd(clients[i]);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0)
        die("begin");
    (void)SSL_do_handshake(clients[i]);
}

/* Whether the server has sent its byte. */
static int
is_greeted(SSL *ssl)
{
    char byte;
    int n = SSL_read(ssl, &byte, 1);

    if (n == 1)
        return 1;
    if (SSL_get_error(ssl, n) != SSL_ERROR_WANT_READ)
        die_of_tls("handshake");
    return 0;
}

static void
run_accept(int port, double seconds, FILE *out)
{
    struct epoll_event events[EVENTS];
    int64_t start = now_ns(), end = start + (int64_t)(seconds * 1e9);
    size_t in_flight = window;
    long ops = 0;

    for (size_t i = 0; i < window; i++)
        begin(i, port);
    while (in_flight > 0) {
        int n = epoll_wait(ep, events, EVENTS, 0);
        for (int i = 0; i < n; i++) {
            size_t client = events[i].data.u64;
            if (!is_greeted(clients[client]))
                continue;
            leave(clients[client]);
            ops++;
            if (now_ns() < end)
                begin(client, port);
            else
                in_flight--;
        }
    }
    say(out, ops, now_ns() - start);
}

static void
serve_worker(int fd)
{
    FILE *in = fdopen(fd, "r"), *out = fdopen(dup(fd), "w");
    char line[128];
    double seconds;
    size_t count;
    int port;

    if (in == NULL || out == NULL || (ep = epoll_create1(EPOLL_CLOEXEC)) < 0 ||
        (clients = calloc(window, sizeof(SSL *))) == NULL)
        die("start");
    while (fgets(line, sizeof line, in) != NULL) {
        if (sscanf(line, "open %d %zu", &port, &count) == 2)
            run_open(port, count, out);
        else if (sscanf(line, "accept %d %lf", &port, &seconds) == 2)
            run_accept(port, seconds, out);
        else
            die(line);
    }
    exit(0);
}

int
main(int argc, char **argv)
{
    int listener;

    if (argc != 2 || (window = (size_t)atoi(argv[1])) == 0) {
        fputs("usage: tls_crowd WINDOW\n", stderr);
        return 2;
    }
    (void)signal(SIGCHLD, SIG_IGN);
    (void)signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    if ((ctx = SSL_CTX_new(TLS_client_method())) == NULL)
        die_of_tls("context");
    pin_algorithms(ctx);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    listener = open_listener();
    end_with_stdin();
    for (;;) {
        int fd = accept_one(listener);
        if (fd >= 0 && fork() == 0) {
            close(listener);
            serve_worker(fd);
        }
        close(fd);
    }
}
