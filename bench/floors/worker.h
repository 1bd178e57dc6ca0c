/* worker.h: what every C worker of the bench shares: the clock, the command loop, connecting.
 *
 * A worker is started as `worker VARIANT HOST PORT`, prints one line {"ready": "..."}, and then for
 * each line "SECONDS COUNT" on stdin measures one slice and prints one line of JSON. It ends with
 * its stdin. The Python and Go workers speak the same lines, so all are driven alike.
 */
#ifndef BENCH_WORKER_H
#define BENCH_WORKER_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The clock is read once in so many operations, in every language. */
#define OPS_PER_CLOCK_READ 16

static inline void
die(const char *what)
{
    printf("{\"error\": \"%s: %s\"}\n", what, strerror(errno));
    fflush(stdout);
    exit(1);
}

static inline int64_t
now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline struct sockaddr_in
parse_target(const char *host, const char *port)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, host, &sin.sin_addr) != 1)
        die("address");
    return sin;
}

/* Waits until deadline at most; the least that a deadline costs. */
static inline void
wait_for(int fd, short events, int64_t deadline)
{
    struct pollfd p = {.fd = fd, .events = events};
    int64_t left = deadline - now_ns();
    struct timespec ts = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    if (left <= 0 || ppoll(&p, 1, &ts, NULL) != 1)
        die("deadline");
}

/* What hardsock sets on each connection by default: no delay, keepalive, and an end for a peer that
 * is silent for 45 s. */
static inline void
set_like_hardsock(int fd)
{
    static const struct {
        int level, name, value;
    } settings[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},          {IPPROTO_TCP, TCP_KEEPIDLE, 15},
        {IPPROTO_TCP, TCP_KEEPINTVL, 3},        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, 41572},
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        if (setsockopt(fd, settings[i].level, settings[i].name, &settings[i].value,
                       sizeof settings[i].value) != 0)
            die("setsockopt");
}

static inline int
connect_plain(const struct sockaddr_in *sin, int extra_type, int settings)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | extra_type, 0);
    if (fd < 0)
        die("socket");
    if (settings)
        set_like_hardsock(fd);
    if (connect(fd, (const struct sockaddr *)sin, sizeof *sin) != 0 && errno != EINPROGRESS)
        die("connect");
    return fd;
}

static inline int
connect_by(const struct sockaddr_in *sin, int64_t deadline, int settings)
{
    int fd = connect_plain(sin, SOCK_NONBLOCK, settings);
    wait_for(fd, POLLOUT, deadline);
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0) {
        errno = error != 0 ? error : errno;
        die("connect");
    }
    return fd;
}

/* True for each command; false at the end. */
static inline int
next_command(double *ret_seconds, long *ret_count)
{
    char line[128];
    if (fgets(line, sizeof line, stdin) == NULL)
        return 0;
    return sscanf(line, "%lf %ld", ret_seconds, ret_count) == 2;
}

static inline void
say_ready(void)
{
    printf("{\"ready\": \"cc %s\"}\n", __VERSION__);
    fflush(stdout);
}

/* What is being measured: operations, time on the clock, time of this process on a CPU. */
struct slice {
    int64_t start, end, now, cpu_start;
    long ops;
};

static inline int64_t
cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline struct slice
begin_slice(double seconds)
{
    int64_t cpu = cpu_ns(), now = now_ns();
    return (struct slice){now, now + (int64_t)(seconds * 1e9), now, cpu, 0};
}

static inline int
goes_on(struct slice *slice, long ops)
{
    slice->ops += ops;
    slice->now = now_ns();
    return slice->now < slice->end;
}

static inline void
say_slice(const struct slice *slice)
{
    printf("{\"ops\": %ld, \"ns\": %lld, \"cpu_ns\": %lld}\n", slice->ops,
           (long long)(slice->now - slice->start), (long long)(cpu_ns() - slice->cpu_start));
    fflush(stdout);
}

#endif
