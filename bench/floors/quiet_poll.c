/* quiet_poll.c: the kernel's part of work "pool_checkout": whether the peer of an idle connection
 * is there and has said nothing, by the one system call that a pool of hardsock makes at each lend.
 */
#define _GNU_SOURCE
#include "worker.h"

#define FIVE_SECONDS INT64_C(5000000000)

int
main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    struct sockaddr_in sin = parse_target(argv[2], argv[3]);
    struct pollfd idle = {.fd = connect_by(&sin, now_ns() + FIVE_SECONDS, 0),
                          .events = POLLIN | POLLRDHUP};
    double seconds;
    long count;

    say_ready();
    while (next_command(&seconds, &count)) {
        struct slice slice = begin_slice(seconds);
        do {
            for (int i = 0; i < OPS_PER_CLOCK_READ; i++)
                if (poll(&idle, 1, 0) != 0)
                    die("the peer has said something");
        } while (goes_on(&slice, OPS_PER_CLOCK_READ));
        say_slice(&slice);
    }
    return 0;
}
