/* messages.c: the floor of works "lines" and "frames": read 64 KiB, find the messages, copy nothing.
 *
 * Variants: "lines" ends at newlines, "frames" has four bytes of length, big endian, in front.
 */
#define _GNU_SOURCE
#include "worker.h"

#define ROOM (65536 + 1048580)
#define FIVE_SECONDS INT64_C(5000000000)

static char buf[ROOM];
static size_t have;

static void
fill(int fd)
{
    ssize_t n = recv(fd, buf + have, have + 65536 <= ROOM ? 65536 : ROOM - have, 0);

    if (n > 0)
        have += (size_t)n;
    else if (n < 0 && errno == EAGAIN)
        wait_for(fd, POLLIN, now_ns() + FIVE_SECONDS);
    else
        die("recv");
}

/* Bytes of the message at p, or 0. */
static size_t
line_at(const char *p, size_t len)
{
    const char *end = memchr(p, '\n', len);

    return end == NULL ? 0 : (size_t)(end - p) + 1;
}

static size_t
frame_at(const char *p, size_t len)
{
    uint32_t size;

    if (len < sizeof size)
        return 0;
    memcpy(&size, p, sizeof size);
    size = ntohl(size);
    return len < sizeof size + size ? 0 : sizeof size + size;
}

int
main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    size_t (*message_at)(const char *, size_t) = strcmp(argv[1], "lines") == 0 ? line_at : frame_at;
    struct sockaddr_in sin = parse_target(argv[2], argv[3]);
    double seconds;
    long count;

    say_ready();
    while (next_command(&seconds, &count)) {
        int fd = connect_by(&sin, now_ns() + FIVE_SECONDS);
        int64_t start = now_ns(), end = start + (int64_t)(seconds * 1e9), now = start;
        long ops = 0;

        for (have = 0; now < end; now = now_ns()) {
            size_t used = 0, n;

            fill(fd);
            for (; (n = message_at(buf + used, have - used)) > 0; used += n)
                ops++;
            memmove(buf, buf + used, have - used);
            have -= used;
        }
        say_rate(ops, now - start);
        close(fd);
    }
    return 0;
}
