/* peer.c: the other side of every measurement, in C so that it is never the slow one.
 *
 * `peer MODE` listens on 127.0.0.1, prints its port, and serves until its stdin ends:
 *   accept_close  takes a connection, waits for the client's end, closes
 *   echo          a thread per connection sends back what it reads (one client at a time is fast)
 *   hold          one epoll loop holds any number of connections and sends back what it reads
 *
 * The client always closes first, and the listener has SO_LINGER 0, which accepted sockets inherit:
 * the peer's close answers with a reset, which removes the client's TIME_WAIT. So no run leaves
 * thousands of occupied ports behind that would slow the next one, and all clients are treated
 * alike.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER 65536
#define EVENTS 256

static void
die(const char *what)
{
    fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int
open_listener(void)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    socklen_t len = sizeof sin;
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&sin, sizeof sin) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)&sin, &len) != 0)
        die("listen");
    printf("%d\n", ntohs(sin.sin_port));
    fflush(stdout);
    return fd;
}

static int
accept_one(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 && errno != ECONNABORTED && errno != EINTR)
        die("accept");
    return fd;
}

static void
serve_accept_close(int listener)
{
    char byte;
    for (;;) {
        int fd = accept_one(listener);
        if (fd < 0)
            continue;
        while (read(fd, &byte, 1) > 0) {}
        close(fd);
    }
}

/* False when the connection is over. */
static int
echo_once(int fd, char *buf)
{
    ssize_t n = read(fd, buf, BUFFER);
    if (n <= 0)
        return 0;
    for (ssize_t sent = 0; sent < n;) {
        ssize_t m = send(fd, buf + sent, (size_t)(n - sent), MSG_NOSIGNAL);
        if (m < 0)
            return 0;
        sent += m;
    }
    return 1;
}

static void *
echo_connection(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char buf[BUFFER];
    while (echo_once(fd, buf)) {}
    close(fd);
    return NULL;
}

static void
serve_echo(int listener)
{
    for (;;) {
        pthread_t thread;
        int fd = accept_one(listener);
        if (fd < 0)
            continue;
        if (pthread_create(&thread, NULL, echo_connection, (void *)(intptr_t)fd) != 0)
            die("pthread_create");
        pthread_detach(thread);
    }
}

static void
serve_hold(int listener)
{
    static char buf[BUFFER];
    struct epoll_event events[EVENTS], ev = {.events = EPOLLIN, .data.fd = listener};
    struct rlimit limit;
    int ep = epoll_create1(EPOLL_CLOEXEC);

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev) != 0)
        die("epoll");
    for (;;) {
        int n = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                if (!echo_once(fd, buf))
                    close(fd);
                continue;
            }
            fd = accept_one(listener);
            ev.data.fd = fd;
            if (fd >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0)
                die("epoll_ctl");
        }
    }
}

static void *
exit_with_stdin(void *arg)
{
    char byte;
    (void)arg;
    while (read(STDIN_FILENO, &byte, 1) > 0) {}
    _exit(0);
}

int
main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*serve)(int listener);
    } modes[] = {
        {"accept_close", serve_accept_close},
        {"echo", serve_echo},
        {"hold", serve_hold},
    };
    pthread_t watcher;

    for (size_t i = 0; argc == 2 && i < sizeof modes / sizeof modes[0]; i++) {
        if (strcmp(argv[1], modes[i].name) == 0) {
            if (pthread_create(&watcher, NULL, exit_with_stdin, NULL) != 0)
                die("pthread_create");
            modes[i].serve(open_listener());
        }
    }
    fputs("usage: peer accept_close|echo|hold\n", stderr);
    return 2;
}
