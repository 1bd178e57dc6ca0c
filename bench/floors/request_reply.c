/* request_reply.c: the floor of work "request_reply": send 64 bytes, receive 64 bytes, again.
 *
 * Variants: "deadline" tries first and waits with ppoll under a deadline only when it must;
 * "blocking" keeps no deadline (send, recv).
 */
#define _GNU_SOURCE
#include "worker.h"

#define MESSAGE 64
#define FIVE_SECONDS INT64_C(5000000000)

static void
send_by(int fd, const char *data, size_t len, int64_t deadline)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n >= 0) {
            data += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) {
            wait_for(fd, POLLOUT, deadline);
        } else {
            die("send");
        }
    }
}

static void
recv_by(int fd, char *data, size_t len, int64_t deadline)
{
    while (len > 0) {
        ssize_t n = recv(fd, data, len, 0);
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            wait_for(fd, POLLIN, deadline);
        } else {
            die("recv");
        }
    }
}

int
main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int blocking = strcmp(argv[1], "blocking") == 0;
    struct sockaddr_in sin = parse_target(argv[2], argv[3]);
    char request[MESSAGE], reply[MESSAGE];
    memset(request, 'x', sizeof request);
    double seconds;
    long count;

    say_ready();
    while (next_command(&seconds, &count)) {
        int fd =
            blocking ? connect_plain(&sin, 0, 0) : connect_by(&sin, now_ns() + FIVE_SECONDS, 0);
        struct slice slice = begin_slice(seconds);
        do {
            for (int i = 0; i < OPS_PER_CLOCK_READ; i++) {
                int64_t deadline = blocking ? 0 : now_ns() + FIVE_SECONDS;
                send_by(fd, request, sizeof request, deadline);
                recv_by(fd, reply, sizeof reply, deadline);
            }
        } while (goes_on(&slice, OPS_PER_CLOCK_READ));
        say_slice(&slice);
        close(fd);
    }
    return 0;
}
