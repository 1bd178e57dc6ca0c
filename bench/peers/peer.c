/* peer.c: the other side of most measurements, in C so that it is never the slow one.
 *
 * `peer MODE` serves (see peer.h):
 *   accept_close  takes a connection, waits for the client's end, closes
 *   echo          a thread per connection sends back what it reads (one client at a time is fast)
 *   hold          one epoll loop holds any number of connections and sends back what it reads
 *   lines         a thread per connection sends lines of 64 bytes without end
 *   frames_1k     the same with frames of 1 KiB after a length of four bytes, big endian
 *   frames_1m     the same with frames of 1 MiB
 */
#define _GNU_SOURCE
#include "peer.h"

#include <sys/epoll.h>

#define BUFFER 65536
#define EVENTS 256
#define LINE 64
#define FLOOD 262144

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

/* What is sent again and again: a whole number of messages. Set before the first thread. */
static char *flood;
static size_t flood_size;

static void *
flood_connection(void *arg)
{
    int fd = (int)(intptr_t)arg;
    for (;;)
        for (size_t sent = 0; sent < flood_size;) {
            size_t rest = flood_size - sent;
            ssize_t n = send(fd, flood + sent, rest < FLOOD ? rest : FLOOD, MSG_NOSIGNAL);
            if (n < 0) {
                close(fd);
                return NULL;
            }
            sent += (size_t)n;
        }
}

static void
make_flood(size_t message, size_t header)
{
    size_t each = header + message, n = each < FLOOD ? FLOOD / each : 1;
    flood_size = n * each;
    if ((flood = malloc(flood_size)) == NULL)
        die("malloc");
    memset(flood, 'x', flood_size);
    for (size_t i = 0; i < n; i++) {
        uint32_t length = htonl((uint32_t)message);
        if (header > 0)
            memcpy(flood + i * each, &length, header);
        else
            flood[(i + 1) * each - 1] = '\n';
    }
}

static void
serve_lines(int listener)
{
    make_flood(LINE, 0);
    serve_threads(listener, flood_connection);
}

static void
serve_frames_1k(int listener)
{
    make_flood(1024, sizeof(uint32_t));
    serve_threads(listener, flood_connection);
}

static void
serve_frames_1m(int listener)
{
    make_flood(1024 * 1024, sizeof(uint32_t));
    serve_threads(listener, flood_connection);
}

static void
serve_hold(int listener)
{
    static char buf[BUFFER];
    struct epoll_event events[EVENTS], ev = {.events = EPOLLIN, .data.fd = listener};
    int ep = epoll_create1(EPOLL_CLOEXEC);

    raise_descriptor_limit();
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
        {"lines", serve_lines},
        {"frames_1k", serve_frames_1k},
        {"frames_1m", serve_frames_1m},
    };

    for (size_t i = 0; argc == 2 && i < sizeof modes / sizeof modes[0]; i++) {
        if (strcmp(argv[1], modes[i].name) == 0) {
            end_with_stdin();
            modes[i].serve(open_listener());
        }
    }
    fputs("usage: peer accept_close|echo|hold|lines|frames_1k|frames_1m\n", stderr);
    return 2;
}
