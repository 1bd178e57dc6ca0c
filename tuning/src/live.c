/* live.c: findings from sock_diag and /proc.
 *
 * Each function looks at one thing and stays silent when it cannot be measured. Counters of
 * /proc/net/netstat count since the namespace was made.
 */
#include "live.h"

#include "key.h"
#include "mem.h"
#include "root.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define SMALL 65536
#define MAX_SHOWN 5
/* Who listens on one port for the third time was not given it by chance: of 32 ports that are all
 * picked anew between two checks, one comes twice more in a row in one of 6000 pairs of checks. */
#define TURNS_OF_A_SERVICE 3

const char *
severity_name(enum severity severity)
{
    static const char *const names[] = {"info", "warning", "critical"};

    return names[severity];
}

static void
found(struct findings *f, const char *id, enum severity severity, const char *what,
      const char *advice)
{
    f->items = mem_grow(f->items, f->n, &f->capacity, sizeof(*f->items));
    f->items[f->n++] =
        (struct finding){.id = id, .severity = severity, .what = what, .advice = advice};
}

/* Of the finding that was added last. */
static void
about(struct findings *f, const char *subject)
{
    f->items[f->n - 1].subject = subject;
}

const char *
duration_text(int64_t ms)
{
    if (ms < 2 * 60 * 1000)
        return mem_format("%lld s", (long long)(ms + 999) / 1000);
    if (ms < 2 * 3600 * 1000)
        return mem_format("%lld min", (long long)ms / (60 * 1000));
    if (ms < (int64_t)48 * 3600 * 1000)
        return mem_format("%lld h", (long long)ms / (3600 * 1000));
    return mem_format("%lld days", (long long)ms / ((int64_t)24 * 3600 * 1000));
}

/* A counter: a warning where it grew since the last check, nothing where it did not, and where
 * nobody knows, only for information, since it may be over since long. */
static bool
is_news(struct history *h, const char *name, int64_t n, struct finding *ret, const char **ret_when)
{
    *ret = (struct finding){.severity = SEVERITY_INFO};
    if (!history_count(h, name, n, &ret->more))
        return n > 0;
    ret->severity = SEVERITY_WARNING;
    ret->more_ms = h->passed_ms;
    *ret_when = mem_format("in the last %s", duration_text(h->passed_ms));
    return ret->more > 0;
}

static void
add_counter(struct findings *f, const struct finding *one, const char *id, const char *what,
            const char *advice)
{
    struct finding *last;

    found(f, id, one->severity, what, advice);
    last = &f->items[f->n - 1];
    last->more = one->more;
    last->more_ms = one->more_ms;
}

void
findings_date(struct findings *f, struct history *h)
{
    for (size_t i = 0; i < f->n; i++) {
        struct finding *one = &f->items[i];

        one->first = history_date(h, one->subject == NULL
                                         ? one->id
                                         : mem_format("%s %s", one->id, printable(one->subject)));
    }
}

void
finding_add(struct findings *f, const char *id, enum severity severity, const char *what,
            const char *advice)
{
    found(f, id, severity, what, advice);
}

static bool
numbers(const struct sys *s, const char *path, size_t n, struct value *ret)
{
    int sys;

    return sys_value(s, path, ret, NULL, &sys) == ACCESS_OK && ret->type == TYPE_INTS &&
           ret->n >= n;
}

/* The peer that most local ports are in use towards; left is how many there are. */
static void
about_peer(const struct peer *p, size_t left, struct findings *f)
{
    const char *address = diag_address(p->family, p->addr, p->port);
    enum severity severity = p->count * 10 >= left * 9 ? SEVERITY_CRITICAL : SEVERITY_WARNING;

    if (p->count * 2 < left)
        return;
    if (p->time_wait * 2 >= p->count)
        found(f, "time-wait-ports", severity,
              mem_format("%zu of %zu local ports towards %s are in use, %zu of them in TIME_WAIT",
                         p->count, left, address, p->time_wait),
              "reuse connections (keep-alive, a pool); profile high-churn-client widens the range");
    else
        found(f, "local-ports", severity,
              mem_format("%zu of %zu local ports towards %s are in use: at the end connect() fails "
                         "with EADDRNOTAVAIL",
                         p->count, left, address),
              "use fewer connections at once, or more addresses on one side; profile "
              "high-churn-client widens the range");
}

/* Whether others listened there before, and others before those: then the port was asked for by
 * number. Nothing is said of UDP, where resolvers take hundreds at random. */
static bool
is_asked_for(const struct diag *d, struct history *h, unsigned port)
{
    struct history_port p = history_port(h, port);
    int64_t marks = 0;

    for (size_t i = 0; i < d->n_listeners; i++)
        if (d->listeners[i].port == port && d->listeners[i].inode != 0)
            marks |= history_mark(d->listeners[i].inode);
    if (marks == 0)
        return false;
    p.turns += (p.marks & marks) == 0;
    p.marks = marks;
    history_keep_port(h, &p);
    return p.turns >= TURNS_OF_A_SERVICE;
}

/* Ports inside the range and not reserved. */
static void
about_overlap(const struct diag *d, const struct value *reserved, struct history *h,
              struct findings *f)
{
    struct value stolen = {.type = TYPE_PORTS, .ports = mem_alloc(PORTS / 8)};
    struct value untold = {.type = TYPE_PORTS, .ports = mem_alloc(PORTS / 8)}, wanted;
    const size_t n = value_count_ports(&d->untold, 0, PORTS - 1);

    for (unsigned p = 0; p < PORTS && n > 0; p++) {
        if (d->untold.ports[p / 64] == 0)
            p |= 63; /* None of these. */
        else if (value_has_port(&d->untold, p))
            value_add_port(h->path != NULL && n <= HISTORY_PORTS && is_asked_for(d, h, p) ? &stolen
                                                                                          : &untold,
                           p);
    }
    if (value_count_ports(&untold, 0, PORTS - 1) > 0)
        found(f, "ports-unreserved", SEVERITY_INFO,
              mem_format("ports %s are listened on inside net.ipv4.ip_local_port_range and not "
                         "reserved; the kernel does not tell whether they were asked for by number "
                         "or picked for port 0",
                         value_show(&untold)),
              "name those of services in net.ipv4.ip_local_reserved_ports, or in a profile");
    if (value_count_ports(&stolen, 0, PORTS - 1) > 0) {
        wanted = value_union(reserved, &stolen);
        found(f, "ports-overlap", SEVERITY_WARNING,
              mem_format("ports %s are listened on by one socket after another, and lie inside "
                         "net.ipv4.ip_local_port_range: an outgoing connection may hold one when "
                         "the service restarts",
                         value_show(&stolen)),
              mem_format("set net.ipv4.ip_local_reserved_ports to %s", value_show(&wanted)));
    }
}

/* Listeners inside the range; and how many ports are left to choose. */
static void
about_ports(const struct sys *s, const struct diag *d, struct history *h, struct findings *f)
{
    struct value range, reserved;
    size_t left;
    int sys;

    if (!numbers(s, "net/ipv4/ip_local_port_range", 2, &range) || range.num[0] < 1 ||
        range.num[1] >= PORTS)
        return;
    if (sys_value(s, "net/ipv4/ip_local_reserved_ports", &reserved, NULL, &sys) != ACCESS_OK ||
        reserved.type != TYPE_PORTS)
        reserved = (struct value){.type = TYPE_PORTS, .ports = mem_alloc(PORTS / 8)};
    about_overlap(d, &reserved, h, f);
    left = (size_t)(range.num[1] - range.num[0] + 1) -
           value_count_ports(&reserved, (unsigned)range.num[0], (unsigned)range.num[1]);
    if (d->n_peers > 0)
        about_peer(&d->peers[0], left, f);
}

/* Accept queues that are filling, and listeners older than the present cap. */
static void
about_listeners(const struct sys *s, const struct diag *d, struct findings *f)
{
    struct value cap;
    struct text small = {0};
    size_t n = 0;

    for (size_t i = 0; i < d->n_listeners && d->has_backlogs; i++) {
        const struct listener *l = &d->listeners[i];

        if (l->backlog > 0 && l->waiting * 2 > l->backlog) {
            found(f, "accept-queue", l->waiting > l->backlog ? SEVERITY_CRITICAL : SEVERITY_WARNING,
                  mem_format("%u connections wait for accept() on %s, which holds %u", l->waiting,
                             diag_address(l->family, l->addr, l->port), l->backlog),
                  "the program accepts too slowly, or its listen() backlog is too small");
            about(f, diag_address(l->family, l->addr, l->port));
        }
    }
    if (!d->has_backlogs || !numbers(s, "net/core/somaxconn", 1, &cap))
        return;
    for (size_t i = 0; i < d->n_listeners; i++) {
        const struct listener *l = &d->listeners[i];

        if (l->backlog >= cap.num[0] || (l->backlog != 128 && l->backlog != 4096))
            continue;
        if (n++ < MAX_SHOWN)
            text_format(&small, "%s%s has %u", n > 1 ? ", " : "",
                        diag_address(l->family, l->addr, l->port), l->backlog);
    }
    if (n > MAX_SHOWN)
        text_format(&small, " and %zu more", n - MAX_SHOWN);
    if (n > 0)
        found(
            f, "listener-backlog", SEVERITY_INFO,
            mem_format("net.core.somaxconn is %lld, but %s: the backlog was fixed at listen()",
                       (long long)cap.num[0], text_str(&small)),
            "restart the program if it asked for more; else raise the backlog in its own settings");
}

/* The value of a column in the two-line format of /proc/net/netstat; -1 if there is none. */
static long long
counter(const char *text, const char *group, const char *name)
{
    const char *names = strstr(text, group), *values;
    size_t group_len = strlen(group), name_len = strlen(name);

    if (names == NULL || (values = strchr(names, '\n')) == NULL ||
        strncmp(values + 1, group, group_len) != 0)
        return -1;
    names += group_len;
    values += 1 + group_len;
    while (*names == ' ' && *values == ' ') {
        size_t len = strcspn(++names, " \n");

        values++;
        if (len == name_len && memcmp(names, name, len) == 0)
            return strtoll(values, NULL, 10);
        names += len;
        values += strcspn(values, " \n");
    }
    return -1;
}

/* What goes wrong at this moment has findings of its own: queues, ports, memory, TIME_WAIT. */
static void
about_counters(const struct sys *s, struct history *h, struct findings *f)
{
    static const struct {
        const char *name, *id, *what, *advice;
    } rows[] = {
        {"ListenOverflows", "listen-overflows", "connections found the accept queue full",
         "accept faster, or raise the listen() backlog and net.core.somaxconn (explain it first)"},
        {"TCPTimeWaitOverflow", "time-wait-overflow",
         "TIME_WAIT sockets were destroyed early, since there were too many",
         "raise net.ipv4.tcp_max_tw_buckets, or close connections less often"},
        {"TCPAbortOnMemory", "abort-on-memory", "connections were reset for lack of memory",
         "see net.ipv4.tcp_max_orphans and net.ipv4.tcp_mem"},
        {"TCPReqQFullDrop", "syn-queue-full", "SYNs were dropped since the SYN queue was full",
         "turn on net.ipv4.tcp_syncookies, or raise the listen() backlog"},
        {"PruneCalled", "memory-pressure", "times receive queues were cut for lack of buffer",
         "see net.ipv4.tcp_rmem and net.ipv4.tcp_mem"},
    };
    size_t len;
    char *text = sys_file(s, "/proc/net/netstat", SMALL, &len);

    for (size_t i = 0; text != NULL && i < sizeof(rows) / sizeof(rows[0]); i++) {
        long long n = counter(text, "TcpExt:", rows[i].name);
        const char *when = "since this namespace began";
        struct finding one;

        if (n >= 0 && is_news(h, rows[i].name, n, &one, &when))
            add_counter(f, &one, rows[i].id,
                        mem_format("%lld %s %s (%s)", one.more > 0 ? (long long)one.more : n,
                                   rows[i].what, when, rows[i].name),
                        rows[i].advice);
    }
}

long long
live_counter(const struct sys *s, const char *name)
{
    size_t len;
    char *text = sys_file(s, "/proc/net/netstat", SMALL, &len);

    return text == NULL ? -1 : counter(text, "TcpExt:", name);
}

/* /proc/net/softnet_stat: a row of hexadecimal columns per CPU, of which the second counts packets
 * that found the queue of net.core.netdev_max_backlog full. Not of this namespace alone: the queue
 * of a CPU serves all of them. */
long long
live_softnet_drops(const struct sys *s)
{
    unsigned long long drops = 0;
    size_t len;
    char *text = sys_file(s, "/proc/net/softnet_stat", SMALL, &len), *line = text, *rest = NULL;

    while (line != NULL && *line != '\0') {
        (void)strtoull(line, &rest, 16);
        if (rest != line && *rest == ' ')
            drops += strtoull(rest, NULL, 16);
        if ((line = strchr(line, '\n')) != NULL)
            line++;
    }
    return text == NULL ? -1 : (long long)(drops & INT64_MAX);
}

static void
about_backlog(const struct sys *s, struct history *h, struct findings *f)
{
    const long long drops = live_softnet_drops(s);
    const char *when = "since boot";
    struct finding one;
    struct value cap;
    if (drops < 0 || !numbers(s, "net/core/netdev_max_backlog", 1, &cap) ||
        !is_news(h, "softnet_drops", drops, &one, &when))
        return;
    add_counter(
        f, &one, "backlog-drops",
        mem_format("%lld packets met a CPU's queue that held %lld already (softnet_stat), %s",
                   one.more > 0 ? (long long)one.more : drops, (long long)cap.num[0], when),
        "bursts on loopback or veth, as of keepalive probes in step: raise "
        "net.core.netdev_max_backlog (explain it first), or spread the senders");
}

struct sockstat {
    unsigned long long orphans, waits, pages;
};

/* "TCP: inuse 5 orphan 0 tw 0 alloc 6 mem 1" */
static bool
read_sockstat(const struct sys *s, struct sockstat *ret)
{
    size_t len;
    char *text = sys_file(s, "/proc/net/sockstat", SMALL, &len), *line;

    return text != NULL && (line = strstr(text, "TCP: ")) != NULL &&
           /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it; what does not match is skipped */
           sscanf(line, "TCP: inuse %*u orphan %llu tw %llu alloc %*u mem %llu", &ret->orphans,
                  &ret->waits, &ret->pages) == 3;
}

long long
live_tcp_pages(const struct sys *s)
{
    struct sockstat now;

    return read_sockstat(s, &now) ? (long long)(now.pages & INT64_MAX) : -1;
}

static void
about_memory(const struct sys *s, struct findings *f)
{
    struct sockstat now;
    struct value v;

    if (!read_sockstat(s, &now))
        return;
    if (numbers(s, "net/ipv4/tcp_max_tw_buckets", 1, &v) && v.num[0] > 0 &&
        now.waits * 10 >= (unsigned long long)v.num[0] * 9)
        found(f, "time-wait-full", SEVERITY_WARNING,
              mem_format("%llu sockets are in TIME_WAIT; beyond %lld they are destroyed early",
                         now.waits, (long long)v.num[0]),
              "raise net.ipv4.tcp_max_tw_buckets, or close connections less often");
    if (numbers(s, "net/ipv4/tcp_max_orphans", 1, &v) && v.num[0] > 0 &&
        now.orphans * 2 > (unsigned long long)v.num[0])
        found(f, "orphans", SEVERITY_WARNING,
              mem_format("%llu sockets have no process any more; beyond %lld they are reset",
                         now.orphans, (long long)v.num[0]),
              "peers do not take the last data; see net.ipv4.tcp_orphan_retries");
    if (numbers(s, "net/ipv4/tcp_mem", 3, &v) && now.pages > (unsigned long long)v.num[1])
        found(f, "tcp-memory", SEVERITY_CRITICAL,
              mem_format("TCP holds %llu pages; above %lld it is under pressure, at %lld it stops",
                         now.pages, (long long)v.num[1], (long long)v.num[2]),
              "raise net.ipv4.tcp_mem (in pages), or hold less data");
}

/* "Max open files            1024                 524288               files" */
static bool
limits_of(const struct sys *s, const char *pid, unsigned long long *ret_soft,
          unsigned long long *ret_hard)
{
    size_t len;
    char *text = sys_file(s, mem_format("/proc/%s/limits", pid), 4096, &len);
    char *line = text == NULL ? NULL : strstr(text, "Max open files");

    /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it; what does not match is skipped */
    return line != NULL && sscanf(line, "Max open files %llu %llu", ret_soft, ret_hard) == 2;
}

static unsigned long long
open_files(const struct sys *s, const char *pid)
{
    const char *path = mem_format("%s/proc/%s/fd", s->root, pid);
    unsigned long long n = 0;
    struct stat st;
    DIR *d;

    /* Since Linux 6.2 the size of the directory is the number of descriptors. */
    if (stat(path, &st) != 0)
        return 0;
    if (!s->fake && kernel_compare(s->kernel, "6.2") >= 0)
        return (unsigned long long)st.st_size;
    if ((d = opendir(path)) == NULL)
        return 0;
    /* cppcheck-suppress readdirCalled; there is one thread */
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    (void)closedir(d);
    return n;
}

static void
about_process(const struct sys *s, const char *pid, unsigned long long nr_open, struct findings *f)
{
    unsigned long long used = open_files(s, pid), soft, hard;
    size_t len;
    char *name;

    /* Nobody with few descriptors is near a limit that any system sets. */
    if (used < 200 || !limits_of(s, pid, &soft, &hard) || used * 10 < soft * 8)
        return;
    name = sys_file(s, mem_format("/proc/%s/comm", pid), 64, &len);
    if (name != NULL)
        name[strcspn(name, "\n")] = '\0';
    found(f, "descriptors", used * 20 >= soft * 19 ? SEVERITY_CRITICAL : SEVERITY_WARNING,
          mem_format("process %s (%s) has %llu of %llu descriptors open", pid,
                     name == NULL ? "?" : name, used, soft),
          hard > soft ? mem_format("raise its RLIMIT_NOFILE (hard limit %llu)", hard)
                      : mem_format("raise its hard RLIMIT_NOFILE, at most fs.nr_open (%llu); "
                                   "fs.file-max does not matter here",
                                   nr_open));
    about(f, mem_format("%s %s", pid, name == NULL ? "?" : name));
}

static void
about_files(const struct sys *s, struct findings *f)
{
    struct value v;
    unsigned long long used, most, nr_open = 0;
    size_t len;
    char *text = sys_file(s, "/proc/sys/fs/file-nr", 128, &len);
    DIR *d;

    /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it; what does not match is skipped */
    if (text != NULL && sscanf(text, "%llu %*u %llu", &used, &most) == 2 && used > most / 10 * 8)
        found(f, "file-max", SEVERITY_CRITICAL,
              mem_format("%llu of %llu files of the whole machine are open", used, most),
              "raise fs.file-max, and look who holds them");
    if (numbers(s, "fs/nr_open", 1, &v))
        nr_open = (unsigned long long)v.num[0];
    if ((d = root_opendir(s->root, "/proc")) == NULL)
        return;
    /* cppcheck-suppress readdirCalled; there is one thread */
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (isdigit((unsigned char)e->d_name[0]))
            about_process(s, e->d_name, nr_open, f);
    (void)closedir(d);
}

void
live_look(const struct sys *s, const struct diag *d, struct history *h, struct findings *ret)
{
    struct findings f = {0};

    about_ports(s, d, h, &f);
    about_listeners(s, d, &f);
    about_counters(s, h, &f);
    about_backlog(s, h, &f);
    about_memory(s, &f);
    about_files(s, &f);
    *ret = f;
}
