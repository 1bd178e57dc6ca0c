/* tls_server.c: the floor of works "tls_accept" and "tls_idle_memory_server": one epoll loop shakes
 * hands, and sends one byte and ends, or sends back what it receives.
 *
 * Variants: "accept" and "hold". As in crowd_server.c the server has a thread of its own, and the
 * main thread gives the crowd (peers/tls_crowd.c) its commands. Buffers are released when empty.
 */
#define _GNU_SOURCE
#include "../peers/tls.h"
#include "memory.h"
#include "worker.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

#define BACKLOG 4096
#define EVENTS 256
#define RECEIVE_SIZE 4096

static SSL_CTX *ctx;
static int listener, holds;

static void
accept_all(int ep)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = SSL_new(ctx)};
        if (ev.data.ptr == NULL || !SSL_set_fd(ev.data.ptr, fd) ||
            epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0)
            die("accept");
        SSL_set_accept_state(ev.data.ptr);
    }
}

static void
end(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);
    (void)SSL_shutdown(ssl);
    ERR_clear_error();
    SSL_free(ssl);
    close(fd);
}

static int
wants_more(SSL *ssl, int ret)
{
    return SSL_get_error(ssl, ret) == SSL_ERROR_WANT_READ;
}

static void
greet(SSL *ssl)
{
    int ret = SSL_do_handshake(ssl);
    if (ret == 1)
        (void)SSL_write(ssl, ".", 1);
    if (ret == 1 || !wants_more(ssl, ret))
        end(ssl);
}

static void
echo(SSL *ssl)
{
    char buf[RECEIVE_SIZE];
    int n = SSL_read(ssl, buf, sizeof buf);
    if (n > 0)
        n = SSL_write(ssl, buf, n);
    if (n <= 0 && !wants_more(ssl, n))
        end(ssl);
}

static void *
serve(void *arg)
{
    struct epoll_event events[EVENTS], ev = {.events = EPOLLIN, .data.ptr = NULL};
    int ep = epoll_create1(EPOLL_CLOEXEC);
    (void)arg;
    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev) != 0)
        die("epoll");
    for (;;) {
        int n = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            SSL *ssl = events[i].data.ptr;
            if (ssl == NULL)
                accept_all(ep);
            else if (holds)
                echo(ssl);
            else
                greet(ssl);
        }
    }
}

static int
open_server(void)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    socklen_t len = sizeof sin;
    pthread_t thread;
    int one = 1;

    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Else what follows the tickets waits until they are acknowledged. */
    if (listener < 0 || setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        bind(listener, (struct sockaddr *)&sin, sizeof sin) != 0 ||
        listen(listener, BACKLOG) != 0 ||
        getsockname(listener, (struct sockaddr *)&sin, &len) != 0 ||
        pthread_create(&thread, NULL, serve, NULL) != 0)
        die("listen");
    return ntohs(sin.sin_port);
}

/* What the crowd answers to a command: operations and time. */
static void
answer(FILE *crowd, long *ret_ops, long long *ret_ns)
{
    char line[128];
    fflush(crowd);
    if (fgets(line, sizeof line, crowd) == NULL ||
        sscanf(line, "{\"ops\": %ld, \"ns\": %lld}", ret_ops, ret_ns) != 2)
        die("the crowd");
    fseek(crowd, 0, SEEK_CUR); /* from reading to writing */
}

static void
measure_accept(FILE *crowd, int port, double seconds)
{
    int64_t start = cpu_ns();
    long long ns;
    long ops;

    fprintf(crowd, "accept %d %f\n", port, seconds);
    answer(crowd, &ops, &ns);
    printf("{\"ops\": %ld, \"ns\": %lld, \"cpu_ns\": %lld}\n", ops, ns,
           (long long)(cpu_ns() - start));
    fflush(stdout);
}

static void
measure_memory(FILE *crowd, int port, long count)
{
    long more = allowed_connections(count) - MEMORY_WARM_UP, ops, before;
    long long ns;

    fprintf(crowd, "open %d %d\n", port, MEMORY_WARM_UP);
    answer(crowd, &ops, &ns);
    before = anonymous_bytes();
    fprintf(crowd, "open %d %ld\n", port, more);
    answer(crowd, &ops, &ns);
    say_memory(more, anonymous_bytes() - before);
}

int
main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    struct sockaddr_in sin = parse_target(argv[2], argv[3]);
    FILE *crowd = NULL;
    double seconds;
    long count;
    int port = 0;

    (void)signal(SIGPIPE, SIG_IGN);
    holds = strcmp(argv[1], "hold") == 0;
    ctx = server_context();
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);
    say_ready();
    while (next_command(&seconds, &count)) {
        if (crowd == NULL) {
            port = open_server();
            crowd = fdopen(connect_plain(&sin, 0, 0), "r+");
        }
        if (holds)
            measure_memory(crowd, port, count);
        else
            measure_accept(crowd, port, seconds);
    }
    return 0;
}
