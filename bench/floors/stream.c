/* stream.c: the floor of works "lines" and "frames_*": receive, and find each message.
 *
 * Variants: "lines" receives 64 KiB at once and looks for the ends with memchr; "frames" receives
 * up to 256 KiB at once and steps over lengths of four bytes. Both keep a deadline as the others
 * do, trying first; neither copies a message.
 */
#define _GNU_SOURCE
#include "worker.h"

#define FIVE_SECONDS INT64_C(5000000000)
#define LINES_SIZE 65536
#define FRAMES_SIZE 262144
#define HEADER 4

static size_t
recv_by(int fd, char *data, size_t len, int64_t deadline)
{
    for (;;) {
        ssize_t n = recv(fd, data, len, 0);
        if (n > 0)
            return (size_t)n;
        if (n == 0 || errno != EAGAIN)
            die("recv");
        wait_for(fd, POLLIN, deadline);
    }
}

/* What is incomplete at the end of the buffer goes to its beginning. */
static size_t
keep_rest(char *buf, const char *at, const char *end)
{
    size_t rest = (size_t)(end - at);
    memmove(buf, at, rest);
    return rest;
}

static long
take_lines(int fd, char *buf, size_t *have)
{
    long ops = 0;
    size_t n = recv_by(fd, buf + *have, LINES_SIZE - *have, now_ns() + FIVE_SECONDS);
    const char *at = buf, *end = buf + *have + n, *newline;
    while ((newline = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        at = newline + 1;
        ops++;
    }
    *have = keep_rest(buf, at, end);
    return ops;
}

/* left: bytes still to come of a frame that does not fit. */
static long
take_frames(int fd, char *buf, size_t *have, size_t *left)
{
    long ops = 0;
    size_t n = recv_by(fd, buf + *have, FRAMES_SIZE - *have, now_ns() + FIVE_SECONDS);
    const char *at = buf, *end = buf + *have + n;
    while (at < end) {
        size_t here = (size_t)(end - at);
        if (*left == 0) {
            uint32_t length;
            if (here < HEADER)
                break;
            memcpy(&length, at, HEADER);
            *left = ntohl(length);
            at += HEADER;
            here -= HEADER;
        }
        n = here < *left ? here : *left;
        at += n;
        *left -= n;
        ops += *left == 0;
    }
    *have = keep_rest(buf, at, end);
    return ops;
}

int
main(int argc, char **argv)
{
    static char buf[FRAMES_SIZE];
    if (argc != 4)
        return 2;
    int lines = strcmp(argv[1], "lines") == 0;
    struct sockaddr_in sin = parse_target(argv[2], argv[3]);
    double seconds;
    long count;

    say_ready();
    while (next_command(&seconds, &count)) {
        int fd = connect_by(&sin, now_ns() + FIVE_SECONDS, 0);
        struct slice slice = begin_slice(seconds);
        size_t have = 0, left = 0;
        while (goes_on(&slice,
                       lines ? take_lines(fd, buf, &have) : take_frames(fd, buf, &have, &left)) ||
               slice.ops == 0) {}
        say_slice(&slice);
        close(fd);
    }
    return 0;
}
