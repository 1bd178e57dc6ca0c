/* wire.c: a relay that is an impaired wire between two network namespaces, run by lab.Wire.
 *
 * hardsock-wire BACKEND USER HOME A B SEED [CC]: BACKEND is tun, packet or any; the numbers are
 * descriptors of namespaces (USER may be -1). Says "ready BACKEND" or "no WHY" on standard output,
 * then obeys lines on standard input, each with one line in answer, until that ends:
 *
 *     set ab|ba|both NAME=NUMBER ...   "ok" or "error WHY"; all of it or nothing
 *     stats                            JSON
 *
 * One thread: a packet that is read is put on its line, one that is due is written at the other
 * end. It measures itself; whether that is good enough is for others to say.
 */
#include "ends.h"
#include "line.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* Kernel headers before 5.3 do not name it; the number is the same on all that we are built for. */
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* Packets in a row from one end: the other one waits meanwhile. */
#define BATCH 64
#define MTU_MAX 65536

struct wire {
    struct end ends[2];
    struct line lines[2]; /* lines[i]: what comes in at ends[i] */
    uint64_t failed[2];   /* writes, at the end that lines[i] leads to */
    int home, timer, epoll;
    bool realtime;
    char command[1024];
    size_t command_len;
};

static int64_t
now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- Packets ------------------------------------------------------------------------------- */

static void
deliver(struct wire *w, int from, const uint8_t *data, size_t len)
{
    if (write(w->ends[!from].fd, data, len) < 0)
        w->failed[from]++;
}

static void
deliver_due(struct wire *w, int from)
{
    struct packet *p;
    int64_t now = now_ns();

    while ((p = line_take(&w->lines[from], now)) != NULL) {
        deliver(w, from, p->data, p->len);
        free(p);
    }
}

static void
read_end(struct wire *w, int from)
{
    uint8_t data[MTU_MAX];
    struct end *e = &w->ends[from];
    ssize_t n;

    for (int i = 0; i < BATCH && (n = read(e->fd, data, sizeof(data))) > 0; i++) {
        if (is_housekeeping(data, (size_t)n, e->is_packet)) {
            w->lines[from].counts.passed++;
            deliver(w, from, data, (size_t)n);
        } else {
            line_put(&w->lines[from], data, (size_t)n, e->is_packet ? ETHERNET_HEAD : 0, now_ns());
        }
    }
}

static void
set_timer(struct wire *w)
{
    int64_t a = line_due(&w->lines[0]), b = line_due(&w->lines[1]), due = a < b ? a : b;
    struct itimerspec at = {0};

    if (due != INT64_MAX) {
        at.it_value.tv_sec = due / 1000000000;
        at.it_value.tv_nsec = due % 1000000000 + (due == 0);
    }
    (void)timerfd_settime(w->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

/* ---- Commands ------------------------------------------------------------------------------ */

static void
say_line(struct wire *w, int i)
{
    const struct counts *c = &w->lines[i].counts;

    (void)printf("\"%s\": {\"got\": %" PRIu64 ", \"delivered\": %" PRIu64 ", \"bytes\": %" PRIu64
                 ", \"lost\": %" PRIu64 ", \"duplicated\": %" PRIu64 ", \"reordered\": %" PRIu64
                 ", \"corrupted\": %" PRIu64 ", \"queue_full\": %" PRIu64 ", \"cut\": %" PRIu64
                 ", \"passed\": %" PRIu64 ", \"unasked\": %" PRIu64 ", \"on_the_way\": %zu",
                 i == 0 ? "ab" : "ba", c->got, c->taken - w->failed[i], c->bytes, c->lost,
                 c->doubled, c->reordered, c->corrupted, c->full, c->cut, c->passed,
                 c->overflow + w->failed[i], w->lines[i].n);
    (void)printf(", \"late_mean\": %.9f, \"late_p99\": %.9f, \"late_p999\": %.9f, \"late_max\": "
                 "%.9f}",
                 c->taken > 0 ? (double)c->late_sum_ns / (double)c->taken / 1e9 : 0,
                 (double)line_late_ns(c, 0.99) / 1e9, (double)line_late_ns(c, 0.999) / 1e9,
                 (double)c->late_max_ns / 1e9);
}

static void
say_stats(struct wire *w)
{
    struct rusage u;
    uint64_t drops = end_drops(&w->ends[0], w->home) + end_drops(&w->ends[1], w->home);

    (void)getrusage(RUSAGE_SELF, &u);
    (void)printf("{");
    say_line(w, 0);
    (void)printf(", ");
    say_line(w, 1);
    (void)printf(", \"kernel_drops\": %" PRIu64 ", \"realtime\": %s, \"cpu\": %.3f}\n", drops,
                 w->realtime ? "true" : "false",
                 (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                     (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
}

static void
set_lines(struct wire *w, char *rest)
{
    char *save = NULL, *which = strtok_r(rest, " ", &save), *word;
    struct settings next[2] = {w->lines[0].set, w->lines[1].set};
    bool ab, ba;

    ab = which != NULL && (strcmp(which, "ab") == 0 || strcmp(which, "both") == 0);
    ba = which != NULL && (strcmp(which, "ba") == 0 || strcmp(which, "both") == 0);
    if (!ab && !ba) {
        (void)printf("error the direction is ab, ba or both\n");
        return;
    }
    while ((word = strtok_r(NULL, " ", &save)) != NULL) {
        char *equals = strchr(word, '='), *end = NULL;
        double value = equals != NULL ? strtod(equals + 1, &end) : 0;

        if (equals == NULL || end == equals + 1 || *end != '\0' || !(value >= 0)) {
            (void)printf("error %s: NAME=NUMBER, and no less than 0\n", word);
            return;
        }
        *equals = '\0';
        if ((ab && !line_set(&next[0], word, value)) || (ba && !line_set(&next[1], word, value))) {
            (void)printf("error there is no setting %s\n", word);
            return;
        }
    }
    w->lines[0].set = next[0];
    w->lines[1].set = next[1];
    (void)printf("ok\n");
}

static void
obey(struct wire *w, char *line)
{
    if (strcmp(line, "stats") == 0)
        say_stats(w);
    else if (strncmp(line, "set ", 4) == 0)
        set_lines(w, line + 4);
    else
        (void)printf("error there is no command %s\n", line);
    (void)fflush(stdout);
}

/* False: nobody is there any more. */
static bool
read_commands(struct wire *w)
{
    ssize_t n =
        read(STDIN_FILENO, w->command + w->command_len, sizeof(w->command) - 1 - w->command_len);
    char *end;

    if (n <= 0)
        return false;
    w->command_len += (size_t)n;
    w->command[w->command_len] = '\0';
    while ((end = strchr(w->command, '\n')) != NULL) {
        *end = '\0';
        obey(w, w->command);
        w->command_len -= (size_t)(end + 1 - w->command);
        memmove(w->command, end + 1, w->command_len + 1);
    }
    return w->command_len < sizeof(w->command) - 1;
}

/* ---- Beginning and running ----------------------------------------------------------------- */

static bool
open_ends(struct wire *w, bool packet, const char *cc)
{
    for (int i = 0; i < 2; i++) {
        w->ends[i].other = i;
        if (!(packet ? end_open_packet : end_open_tun)(&w->ends[i], w->home, cc)) {
            if (i == 1)
                end_close(&w->ends[0]);
            return false;
        }
    }
    return true;
}

static bool
watch(struct wire *w, int fd, uint32_t what)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u32 = what};

    return epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &ev) == 0;
}

static int
run(struct wire *w)
{
    struct epoll_event events[5];
    uint64_t ticks;
    bool over = false;

    while (!over) {
        int n = epoll_wait(w->epoll, events, 5, -1);

        for (int i = 0; i < n; i++)
            if (events[i].data.u32 == 2)
                (void)!read(w->timer, &ticks, sizeof(ticks));
        for (int from = 0; from < 2; from++)
            deliver_due(w, from);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u32 < 2)
                read_end(w, (int)events[i].data.u32);
            else if (events[i].data.u32 == 3)
                over = over || !read_commands(w);
            else if (events[i].data.u32 == 4)
                over = true;
        }
        for (int from = 0; from < 2; from++)
            deliver_due(w, from);
        set_timer(w);
    }
    return 0;
}

/* -1 is none. What is no number is none either, and fails where it is used. */
static int
descriptor(const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);

    return end != text && *end == '\0' && value >= 0 && value <= INT_MAX ? (int)value : -1;
}

static bool
go_home(int user, int home)
{
    return (user < 0 || setns(user, CLONE_NEWUSER) == 0) && setns(home, CLONE_NEWNET) == 0;
}

int
main(int argc, char **argv)
{
    static struct wire w;
    struct sched_param priority = {.sched_priority = 1};
    const char *cc = argc > 7 ? argv[7] : NULL;
    bool packet, opened = false;
    pid_t owner = getppid();

    if (argc < 7) {
        (void)fprintf(stderr, "hardsock.lab.Wire starts this; it is of no use by hand\n");
        return 2;
    }
    w.home = descriptor(argv[3]);
    for (int i = 0; i < 2; i++) {
        w.ends[i] = (struct end){.fd = -1, .net = descriptor(argv[4 + i])};
        line_init(&w.lines[i], strtoull(argv[6], NULL, 10) * 2 + (unsigned)i);
    }
    (void)signal(SIGINT, SIG_IGN); /* Ctrl-C is for those who use the wire; it ends with them. */
    if (!go_home(descriptor(argv[2]), w.home)) {
        (void)printf("no setns: %s\n", strerror(errno));
        return 3;
    }
    packet = strcmp(argv[1], "packet") == 0;
    if (!packet)
        opened = open_ends(&w, false, cc);
    if (!opened && strcmp(argv[1], "tun") != 0)
        opened = packet = open_ends(&w, true, cc);
    w.epoll = epoll_create1(EPOLL_CLOEXEC);
    w.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (!opened || !watch(&w, w.ends[0].fd, 0) || !watch(&w, w.ends[1].fd, 1) ||
        !watch(&w, w.timer, 2) || !watch(&w, STDIN_FILENO, 3)) {
        const char *why = w.ends[0].why[0] != '\0' ? w.ends[0].why : w.ends[1].why;

        (void)printf("no %s\n", why[0] != '\0' ? why : strerror(errno));
        return 3;
    }
    /* The owner's end is seen even where its input is held open by a child of the owner. It is the
     * process that counts: PR_SET_PDEATHSIG would come when the thread that began this is over. */
    (void)watch(&w, (int)syscall(SYS_pidfd_open, owner, 0), 4);
    w.realtime = sched_setscheduler(0, SCHED_RR, &priority) == 0;
    (void)printf("ready %s\n", packet ? "packet" : "tun");
    (void)fflush(stdout);
    return run(&w);
}
