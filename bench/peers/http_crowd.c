/* http_crowd.c: the clients of HTTP servers that are measured, in one process and one thread.
 *
 * `http_crowd WINDOW` serves workers (see peer.h), each in a process of its own. A worker that has
 * started its server connects, writes commands, and gets a line of JSON for each:
 *
 *   open PORT COUNT  opens COUNT more connections to 127.0.0.1:PORT, asks once on each, keeps them
 *   ask SECONDS      requests on the connections kept, in a random order
 *   churn SECONDS    connects, asks, ends with a reset; again
 *   pace SECONDS     each of the connections kept asks once a second, whatever became of the others
 *
 * WINDOW requests are on their way at any time, always at most one on a connection; in pace as many
 * as are due. There a request counts from when it was due, so a server that stands still is not
 * asked less. The answer to a line has the operations, the time, a sample of the latencies with the
 * longest, and on how many connections there were answers. An answer is whole when its body is. Who
 * gets none for half a minute is an error: a server that serves only some is not measured.
 * While it measures, the crowd never sleeps. The clients come from several addresses of the
 * loopback network, so that ports do not run out.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <signal.h>
#include <sys/epoll.h>
#include <time.h>

#define EVENTS 256
#define SOURCES 8
#define ANSWER 1024 /* bytes of a head and a body at most */
#define SAMPLES 400
#define MOST_LATENCIES (1 << 20)
#define GIVE_UP_AFTER 30000000000

struct client {
    int fd;
    int got; /* bytes of the answer */
    int waits;
    int64_t asked;
    long round; /* in which there was an answer */
    char answer[ANSWER];
};

static const char request[] = "GET / HTTP/1.1\r\n"
                              "Host: 127.0.0.1\r\n"
                              "User-Agent: crowd\r\n"
                              "Accept: */*\r\n"
                              "\r\n";
static const char body[] = "hello, world\n";

static struct client **clients; /* n_kept of them stay, the next `window` are for churn */
static size_t n_kept, wanted_window, window, next_client;
static struct sockaddr_in server = {.sin_family = AF_INET};
static int ep;
static int64_t *latencies;
static size_t n_latencies;
static int64_t longest;
static long this_round, n_served;

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
    c->waits = 1;
    c->asked = now_ns();
    if (send(c->fd, request, sizeof request - 1, MSG_NOSIGNAL) != sizeof request - 1)
        die("send");
}

/* Connecting to a listener on the same machine takes place within the call. */
static void
enter(size_t i)
{
    static uint32_t n;
    struct sockaddr_in source = {.sin_family = AF_INET};
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = i};
    struct client *c = clients[i];
    int64_t begun = now_ns();
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
    c->asked = begun; /* Its client waits for the connection, too. */
}

static void
leave(size_t i)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(clients[i]->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(clients[i]->fd);
}

/* Whether the whole answer is here. */
static int
is_answered(struct client *c)
{
    ssize_t n = recv(c->fd, c->answer + c->got, (size_t)(ANSWER - c->got), MSG_DONTWAIT);
    size_t size = sizeof body - 1;

    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0)
        die("recv");
    c->got += (int)n;
    if (c->got < 12 || memcmp(c->answer, "HTTP/1.1 200", 12) != 0)
        die(c->answer);
    if ((size_t)c->got <= size || memcmp(c->answer + c->got - size, body, size) != 0)
        return 0;
    c->waits = 0;
    return 1;
}

static void
count_answer(struct client *c, int64_t now)
{
    int64_t took = now - c->asked;

    if (n_latencies < MOST_LATENCIES)
        latencies[n_latencies++] = took;
    if (took > longest)
        longest = took;
    if (c->round != this_round) {
        c->round = this_round;
        n_served++;
    }
}

/* The next one that has no request on its way: there is one whenever fewer than all are. */
static struct client *
ask_next(void)
{
    struct client *c;

    while (clients[next_client % n_kept]->waits)
        next_client++;
    c = clients[next_client++ % n_kept];
    ask(c);
    return c;
}

static void
again_ask(size_t i)
{
    (void)i;
    (void)ask_next();
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

static void
report(FILE *out, long ops, int64_t ns)
{
    size_t step = n_latencies / SAMPLES + 1;

    fprintf(out, "{\"ops\": %ld, \"ns\": %lld, \"served\": %ld, \"latencies_ns\": [%lld", ops,
            (long long)ns, n_served, (long long)longest);
    for (size_t i = 0; i < n_latencies; i += step)
        fprintf(out, ", %lld", (long long)latencies[i]);
    fputs("]}\n", out);
    fflush(out);
}

/* Runs until so many operations or the end; what is under way then is brought to its own end.
 * again(i) begins another operation where that of client i has ended; over(i) merely ends it. */
static void
drive(size_t in_flight, long max_ops, int64_t end, void (*again)(size_t), void (*over)(size_t),
      FILE *out)
{
    struct epoll_event events[EVENTS];
    int64_t start = now_ns(), now = start, last = start, stopped = start;
    long ops = 0, begun = (long)in_flight;
    int ended = 0;

    this_round++;
    n_latencies = 0;
    longest = n_served = 0;
    while (in_flight > 0) {
        int n = epoll_wait(ep, events, EVENTS, 0);
        now = now_ns();
        if (n > 0)
            last = now;
        else if (now - last > GIVE_UP_AFTER)
            die("clients that were never answered");
        for (int i = 0; i < n; i++) {
            size_t client = events[i].data.u64;
            if (!is_answered(clients[client]))
                continue;
            if (!ended) {
                count_answer(clients[client], now);
                ended = ++ops == max_ops || now >= end;
                stopped = now;
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
    report(out, ops, stopped - start);
}

static void
shuffle(void)
{
    struct epoll_event ev = {.events = EPOLLIN};

    for (size_t i = n_kept - 1; i > 0; i--) {
        size_t j = (size_t)random() % (i + 1);
        struct client *other = clients[i];
        clients[i] = clients[j];
        clients[j] = other;
    }
    for (size_t i = 0; i < n_kept; i++) {
        ev.data.u64 = i;
        epoll_ctl(ep, EPOLL_CTL_MOD, clients[i]->fd, &ev);
    }
}

static void
run_open(int port, size_t count, FILE *out)
{
    size_t before = n_kept, opening = count < wanted_window ? count : wanted_window;

    server.sin_port = htons((uint16_t)port);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    n_kept += count;
    window = n_kept < wanted_window ? n_kept : wanted_window;
    struct client **more = realloc(clients, (n_kept + window) * sizeof *clients);
    if (count == 0 || more == NULL)
        die("open");
    clients = more;
    for (size_t i = before; i < n_kept + window; i++)
        if ((clients[i] = calloc(1, sizeof **clients)) == NULL)
            die("open");
    for (next_client = before; next_client < before + opening;)
        enter(next_client++);
    drive(opening, (long)count, INT64_MAX, again_open, NULL, out);
    shuffle();
}

static void
run_ask(double seconds, FILE *out)
{
    int64_t end = now_ns() + (int64_t)(seconds * 1e9);

    for (size_t i = 0; i < window; i++)
        (void)ask_next();
    drive(window, INT64_MAX, end, again_ask, NULL, out);
}

static void
run_pace(double seconds, FILE *out)
{
    struct epoll_event events[EVENTS];
    int64_t start = now_ns(), now = start, last = start, gap = 1000000000 / (int64_t)n_kept;
    int64_t due = start, end = start + (int64_t)(seconds * 1e9);
    size_t in_flight = 0;
    long ops = 0;

    this_round++;
    n_latencies = 0;
    longest = n_served = 0;
    while (due < end || in_flight > 0) {
        for (; due < end && due <= now && in_flight < n_kept; due += gap) {
            ask_next()->asked = due;
            in_flight++;
        }
        int n = epoll_wait(ep, events, EVENTS, 0);
        now = now_ns();
        if (n > 0 || in_flight == 0)
            last = now;
        else if (now - last > GIVE_UP_AFTER)
            die("clients that were never answered");
        for (int i = 0; i < n; i++)
            if (is_answered(clients[events[i].data.u64])) {
                count_answer(clients[events[i].data.u64], now);
                in_flight--;
                ops++;
            }
    }
    report(out, ops, now - start);
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

    latencies = calloc(MOST_LATENCIES, sizeof *latencies);
    if (in == NULL || out == NULL || latencies == NULL || (ep = epoll_create1(EPOLL_CLOEXEC)) < 0)
        die("start");
    while (fgets(line, sizeof line, in) != NULL) {
        if (sscanf(line, "open %d %zu", &port, &count) == 2)
            run_open(port, count, out);
        else if (sscanf(line, "ask %lf", &seconds) == 1)
            run_ask(seconds, out);
        else if (sscanf(line, "churn %lf", &seconds) == 1)
            run_churn(seconds, out);
        else if (sscanf(line, "pace %lf", &seconds) == 1)
            run_pace(seconds, out);
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

    if (argc != 2 || (wanted_window = (size_t)atoi(argv[1])) == 0) {
        fputs("usage: http_crowd WINDOW\n", stderr);
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
