/* crowd.c: ten thousand clients of the server that is measured, in one process and one thread.
 *
 * `crowd WINDOW` serves workers (see peer.h), each in a process of its own. A worker that has
 * opened its server connects, writes commands, and gets a line {"ops": n, "ns": elapsed} for each:
 *
 *   open PORT COUNT  opens COUNT connections to 127.0.0.1:PORT, and keeps them
 *   echo SECONDS     64 bytes there and back on the connections kept, in a random order
 *   churn SECONDS    connects, 64 bytes there and back, ends with a reset; again
 *
 * At any time WINDOW messages are on their way; a connection counts when its first one is back.
 * The clients come from several addresses of the loopback network, so that ports do not run out.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <signal.h>
#include <sys/epoll.h>
#include <time.h>

#define MESSAGE 64
#define EVENTS 256
#define SOURCES 8
#define OPS_PER_CLOCK_READ 16

struct client {
    int fd;
    int got; /* bytes of the reply */
};

static struct client *clients; /* n_kept of them stay, the next `window` are for churn */
static size_t n_kept, window, next_client;
static struct sockaddr_in server = {.sin_family = AF_INET};
static int ep;
static char message[MESSAGE];

static int64_t
now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void
ask(struct client *c)
{
    c->got = 0;
    if (send(c->fd, message, sizeof message, MSG_NOSIGNAL) != sizeof message)
        die("send");
}

/* Connecting to a listener on the same machine takes place within the call. */
static void
enter(size_t i)
{
    static uint32_t n;
    struct sockaddr_in source = {.sin_family = AF_INET};
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = i};
    struct client *c = &clients[i];
    int one = 1;

    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + n++ % SOURCES);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 ||
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one) != 0 ||
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        bind(c->fd, (struct sockaddr *)&source, sizeof source) != 0 ||
        connect(c->fd, (struct sockaddr *)&server, sizeof server) != 0 ||
        epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev) != 0)
        die("connect");
    ask(c);
}

static void
leave(size_t i)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(clients[i].fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(clients[i].fd);
}

/* Whether the whole reply is here. */
static int
is_answered(struct client *c)
{
    char buf[MESSAGE];
    ssize_t n = recv(c->fd, buf, (size_t)(MESSAGE - c->got), MSG_DONTWAIT);

    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0)
        die("recv");
    c->got += (int)n;
    return c->got == MESSAGE;
}

static void
again_echo(size_t i)
{
    (void)i;
    ask(&clients[next_client++ % n_kept]);
}

static void
again_churn(size_t i)
{
    leave(i);
    enter(i);
}

static void
again_open(size_t i)
{
    (void)i;
    enter(next_client++);
}

/* Runs until so many operations or the end; what is under way then is brought to its own end.
 * again(i) begins another operation where that of client i has ended; over(i) merely ends it. */
static void
drive(size_t in_flight, long max_ops, int64_t end, void (*again)(size_t), void (*over)(size_t),
      FILE *out)
{
    struct epoll_event events[EVENTS];
    int64_t start = now_ns(), now = start;
    long ops = 0, begun = (long)in_flight;
    int ended = 0;

    while (in_flight > 0) {
        int n = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            size_t client = events[i].data.u64;
            if (!is_answered(&clients[client]))
                continue;
            if (!ended && (++ops % OPS_PER_CLOCK_READ == 0 || ops == max_ops)) {
                now = now_ns();
                ended = now >= end || ops == max_ops;
            }
            if (!ended && begun < max_ops) {
                begun++;
                again(client);
                continue;
            }
            in_flight--;
            if (over != NULL)
                over(client);
        }
    }
    fprintf(out, "{\"ops\": %ld, \"ns\": %lld}\n", ops, (long long)(now - start));
    fflush(out);
}

static void
shuffle(void)
{
    struct epoll_event ev = {.events = EPOLLIN};

    for (size_t i = n_kept - 1; i > 0; i--) {
        size_t j = (size_t)random() % (i + 1);
        struct client other = clients[i];
        clients[i] = clients[j];
        clients[j] = other;
    }
    for (size_t i = 0; i < n_kept; i++) {
        ev.data.u64 = i;
        epoll_ctl(ep, EPOLL_CTL_MOD, clients[i].fd, &ev);
    }
}

static void
run_open(int port, size_t count, FILE *out)
{
    server.sin_port = htons((uint16_t)port);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (count < window || (clients = calloc(count + window, sizeof *clients)) == NULL)
        die("open");
    n_kept = count;
    for (next_client = 0; next_client < window;)
        enter(next_client++);
    drive(window, (long)count, INT64_MAX, again_open, NULL, out);
    shuffle();
}

static void
run_echo(double seconds, FILE *out)
{
    int64_t end = now_ns() + (int64_t)(seconds * 1e9);

    for (size_t i = 0; i < window; i++)
        again_echo(i);
    drive(window, INT64_MAX, end, again_echo, NULL, out);
}

static void
run_churn(double seconds, FILE *out)
{
    int64_t end = now_ns() + (int64_t)(seconds * 1e9);

    for (size_t i = 0; i < window; i++)
        enter(n_kept + i);
    drive(window, INT64_MAX, end, again_churn, leave, out);
}

static void
serve_worker(int fd)
{
    FILE *in = fdopen(fd, "r"), *out = fdopen(dup(fd), "w");
    char line[128];
    double seconds;
    size_t count;
    int port;

    if (in == NULL || out == NULL || (ep = epoll_create1(EPOLL_CLOEXEC)) < 0)
        die("start");
    memset(message, 'x', sizeof message);
    while (fgets(line, sizeof line, in) != NULL) {
        if (sscanf(line, "open %d %zu", &port, &count) == 2)
            run_open(port, count, out);
        else if (sscanf(line, "echo %lf", &seconds) == 1)
            run_echo(seconds, out);
        else if (sscanf(line, "churn %lf", &seconds) == 1)
            run_churn(seconds, out);
        else
            die(line);
    }
    for (size_t i = 0; i < n_kept; i++)
        leave(i);
    exit(0);
}

int
main(int argc, char **argv)
{
    int listener;

    if (argc != 2 || (window = (size_t)atoi(argv[1])) == 0) {
        fputs("usage: crowd WINDOW\n", stderr);
        return 2;
    }
    signal(SIGCHLD, SIG_IGN);
    raise_descriptor_limit();
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
