/* scan.c: records who tries to connect to this machine. hardsock.lab.SynWatch runs it.
 *
 * hardsock-scan IFINDEX ROWS BYTES: the interface (0: all), rows of each table, bytes of each of
 * two rings (IPv4 and IPv6). Says "ready", or "no WHY" with what failed, on standard output. Then
 * obeys lines on standard input, each with one line in answer, until that ends:
 *
 *     report N [PORT ...]    JSON: all books, the N first rows of each table, and SYNs to the ports
 *
 * It sees what the machine's IP layer is about to be given: behind the driver, in front of the
 * firewall. A report holds each SYN that the kernel had counted when it was asked for.
 */
#include "ring.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Kernel headers before 5.3 do not name it; the number is the same on all that we are built for. */
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

#define ROWS_MAX (1 << 20)
#define RING_BYTES_MAX (1 << 30)
#define PORTS_ASKED 256
/* A block is handed over by a timer of the kernel. On a machine that stands still it is late. */
#define HANDED_OVER_MS 5000

struct scan {
    struct ring rings[2];
    struct tally tally;
    int owner; /* readable when it is over; -1: the kernel does not tell */
    struct timespec since;
    double cpu_since;
    char command[4096];
    size_t command_len;
};

/* -1: it is no number, or none that is allowed. */
static long
number(const char *text, long least, long most)
{
    char *end;
    long value = strtol(text, &end, 10);

    return end != text && *end == '\0' && value >= least && value <= most ? value : -1;
}

/* ---- Commands ------------------------------------------------------------------------------ */

/* Until all is taken that was in the ring when the kernel was asked. */
static void
catch_up(struct scan *s, struct ring *r)
{
    struct pollfd p = {.fd = r->fd, .events = POLLIN};

    ring_count(r);
    ring_take(r, &s->tally);
    while (r->taken < r->put && poll(&p, 1, HANDED_OVER_MS) > 0) {
        ring_heed(r, p.revents);
        ring_take(r, &s->tally);
    }
}

static double
cpu_seconds(void)
{
    struct rusage u;

    (void)getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void
write_books(struct scan *s)
{
    struct timespec now;
    uint64_t dropped = 0, pending = 0, downs = 0;

    for (int i = 0; i < 2; i++) {
        const struct ring *r = &s->rings[i];

        dropped += r->dropped;
        downs = r->downs > downs ? r->downs : downs;
        pending += r->put > r->taken ? r->put - r->taken : 0;
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    (void)printf("{\"seconds\": %.6f, \"cpu\": %.6f, \"kernel_drops\": %" PRIu64
                 ", \"pending\": %" PRIu64 ", \"downs\": %" PRIu64 ", ",
                 (double)(now.tv_sec - s->since.tv_sec) +
                     (double)(now.tv_nsec - s->since.tv_nsec) / 1e9,
                 cpu_seconds() - s->cpu_since, dropped, pending, downs);
}

/* words: how many rows, and ports that are asked about. */
static bool
report(struct scan *s, char *words)
{
    char *save = NULL, *word = strtok_r(words, " ", &save);
    long ports[PORTS_ASKED], port, n = word != NULL ? number(word, 0, ROWS_MAX) : -1;
    size_t asked = 0;

    while ((word = strtok_r(NULL, " ", &save)) != NULL) {
        port = number(word, 0, PORTS - 1);
        if (port < 0 || asked == PORTS_ASKED)
            return false;
        ports[asked++] = port;
    }
    if (n < 0)
        return false;
    for (int i = 0; i < 2; i++)
        catch_up(s, &s->rings[i]);
    write_books(s);
    tally_write(&s->tally, (uint32_t)n, stdout);
    (void)printf(", \"asked\": [");
    for (size_t i = 0; i < asked; i++)
        (void)printf("%s%" PRIu64, i > 0 ? ", " : "", s->tally.ports[ports[i]]);
    (void)printf("]}\n");
    return true;
}

static void
obey(struct scan *s, char *line)
{
    if (strncmp(line, "report ", 7) != 0)
        (void)printf("error there is no command %s\n", line);
    else if (!report(s, line + 7))
        (void)printf("error report N [PORT ...], %d ports at most\n", PORTS_ASKED);
    (void)fflush(stdout);
}

/* False: nobody is there any more. */
static bool
read_commands(struct scan *s)
{
    ssize_t n =
        read(STDIN_FILENO, s->command + s->command_len, sizeof(s->command) - 1 - s->command_len);
    char *end;

    if (n <= 0)
        return n < 0 && errno == EINTR;
    s->command_len += (size_t)n;
    s->command[s->command_len] = '\0';
    while ((end = strchr(s->command, '\n')) != NULL) {
        *end = '\0';
        obey(s, s->command);
        s->command_len -= (size_t)(end + 1 - s->command);
        memmove(s->command, end + 1, s->command_len + 1);
    }
    return s->command_len < sizeof(s->command) - 1;
}

static void
run(struct scan *s)
{
    struct pollfd p[4] = {{.fd = STDIN_FILENO, .events = POLLIN},
                          {.fd = s->rings[0].fd, .events = POLLIN},
                          {.fd = s->rings[1].fd, .events = POLLIN},
                          {.fd = s->owner, .events = POLLIN}};

    for (;;) {
        if (poll(p, 4, -1) < 0)
            continue;
        for (int i = 0; i < 2; i++) {
            ring_heed(&s->rings[i], p[1 + i].revents);
            ring_take(&s->rings[i], &s->tally);
        }
        if (p[3].revents != 0 || (p[0].revents != 0 && !read_commands(s)))
            return;
    }
}

/* ---- Beginning ----------------------------------------------------------------------------- */

/* What comes now are bytes of strangers: reading them needs no right. */
static bool
drop_rights(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_capset, &head, none) == 0;
}

static int
refuse(const char *why)
{
    (void)printf("no %s\n", why);
    return 3;
}

int
main(int argc, char **argv)
{
    static struct scan s;
    long ifindex, rows, bytes;
    uint64_t key[2];

    if (argc != 4) {
        (void)fprintf(stderr, "hardsock.lab.SynWatch starts this; it is of no use by hand\n");
        return 2;
    }
    ifindex = number(argv[1], 0, INT_MAX);
    rows = number(argv[2], 1, ROWS_MAX);
    bytes = number(argv[3], RING_BYTES_MIN, RING_BYTES_MAX);
    if (ifindex < 0 || rows < 0 || bytes < 0)
        return refuse("such numbers");
    (void)signal(SIGINT, SIG_IGN); /* Ctrl-C is for the one who asks; this ends with its input. */
    /* The owner's end is seen even where its input is held open by a child of the owner. It is the
     * process that counts: PR_SET_PDEATHSIG would come when the thread that began this is over. It
     * is asked for before the owner hears that all is ready, and may go. */
    s.owner = (int)syscall(SYS_pidfd_open, getppid(), 0);
    for (int i = 0; i < 2; i++)
        if (!ring_open(&s.rings[i], i == 1, (int)ifindex, (size_t)bytes))
            return refuse(s.rings[i].why);
    if (!drop_rights())
        return refuse(strerror(errno));
    if (getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key) ||
        !tally_init(&s.tally, (uint32_t)rows, key))
        return refuse(strerror(ENOMEM));
    (void)clock_gettime(CLOCK_MONOTONIC, &s.since);
    s.cpu_since = cpu_seconds();
    (void)printf("ready\n");
    (void)fflush(stdout);
    run(&s);
    return 0;
}
