/* plain.c: peers that are no servers of the core, and behave badly.
 *
 * They read a part, answer a part, end, reset, say nothing, or lose their power.
 */
#include "world.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static bool
plain_wait(int fd, short what, int64_t span_ns)
{
    struct pollfd p = {.fd = fd, .events = what};
    const struct timespec span = {.tv_sec = span_ns / SIM_S, .tv_nsec = span_ns % SIM_S};

    return ppoll(&p, 1, &span, NULL) == 1;
}

/* At most n bytes, until the peer ends or says nothing for a while. */
static void
plain_read(int fd, size_t n)
{
    uint8_t buf[4096];
    ssize_t got = 1;

    while (n > 0 && got > 0 && plain_wait(fd, POLLIN, 70 * SIM_S)) {
        got = recv(fd, buf, n < sizeof(buf) ? n : sizeof(buf), MSG_DONTWAIT);
        n -= got > 0 ? (size_t)got : 0;
        if (got < 0 && errno == EAGAIN)
            got = 1;
    }
}

static void
plain_write(int fd, size_t n)
{
    uint8_t buf[1024] = {0};
    ssize_t put = 0;

    for (; n > 0 && put >= 0 && plain_wait(fd, POLLOUT, 5 * SIM_S); n -= (size_t)put)
        put = send(fd, buf, n < sizeof(buf) ? n : sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void
misbehave(int fd)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};

    plain_read(fd, (size_t)sim_below(60));
    if (sim_chance(700))
        plain_write(fd, (size_t)sim_below(3000));
    switch (sim_below(5)) {
    case 0:
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        break;
    case 1:
        (void)shutdown(fd, SHUT_WR);
        plain_read(fd, SIZE_MAX);
        break;
    case 2:
        plain_read(fd, SIZE_MAX);
        break;
    case 3:
        (void)shutdown(fd, SHUT_WR);
        sim_sleep(sim_between(0, SIM_S));
        break;
    default:
        break;
    }
    (void)close(fd);
}

/* It ends with its host, or when nobody will come any more. */
void
run_plain(void *arg)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(PLAIN_PORT)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), got;

    (void)arg;
    in.sin_addr.s_addr = sim_ip(sim_host());
    if (fd < 0) {
        sim_log("no descriptor to listen with");
        return;
    }
    if (bind(fd, (const struct sockaddr *)&in, sizeof(in)) != 0 || listen(fd, 3) != 0)
        sim_violation("a plain peer cannot listen");
    while (clients_are_there()) {
        if (!plain_wait(fd, POLLIN, 5 * SIM_S))
            continue;
        if ((got = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) < 0) {
            sim_sleep(100 * SIM_MS); /* It may be without a descriptor for long. */
            continue;
        }
        if (sim_chance(80)) {
            plain_read(got, 20);
            kill_host(sim_host());
            clients_lose(sim_host());
        }
        misbehave(got);
    }
    (void)close(fd);
}
