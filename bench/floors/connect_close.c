/* connect_close.c: the floor of work "connect_close": connect to a listener, close, again.
 *
 * Variants: "deadline" does what keeping a deadline needs and nothing else (a non-blocking connect,
 * one ppoll, SO_ERROR); "settings" also sets what hardsock sets; "blocking" keeps none (socket,
 * connect, close).
 */
#define _GNU_SOURCE
#include "worker.h"

#define FIVE_SECONDS INT64_C(5000000000)

int
main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int blocking = strcmp(argv[1], "blocking") == 0, settings = strcmp(argv[1], "settings") == 0;
    struct sockaddr_in sin = parse_target(argv[2], argv[3]);
    double seconds;
    long count;

    say_ready();
    while (next_command(&seconds, &count)) {
        struct slice slice = begin_slice(seconds);
        do {
            for (int i = 0; i < OPS_PER_CLOCK_READ; i++)
                close(blocking ? connect_plain(&sin, 0, 0)
                               : connect_by(&sin, now_ns() + FIVE_SECONDS, settings));
        } while (goes_on(&slice, OPS_PER_CLOCK_READ));
        say_slice(&slice);
    }
    return 0;
}
