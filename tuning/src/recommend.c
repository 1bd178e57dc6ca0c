/* recommend.c: see recommend.h: one function for each part of the machine.
 *
 * A counter says that something happened at some time: that is evidence for a larger limit, never
 * for how much larger, so limits are doubled and a later look tells whether that was enough.
 */
#include "recommend.h"

#include "live.h"
#include "mem.h"
#include "plan.h"
#include "usual.h"

#include <string.h>

#define LONG_WAY_US 20000
#define SMALL 65536

static bool
numbers(const struct sys *s, const char *path, size_t n, struct value *ret)
{
    int sys;

    return sys_value(s, path, ret, NULL, &sys) == ACCESS_OK && ret->type == TYPE_INTS &&
           ret->n >= n;
}

static const char *
doubled(int64_t n)
{
    return mem_format("%lld", (long long)(n > INT32_MAX / 2 ? INT32_MAX : n * 2));
}

void
advise_on_listeners(const struct sys *s, const struct diag *d, struct advice *a)
{
    static const char key[] = "net.core.somaxconn";
    const long long overflows = live_counter(s, "ListenOverflows");
    const struct listener *full = NULL;
    struct value cap;

    if (!numbers(s, "net/core/somaxconn", 1, &cap))
        return;
    for (size_t i = 0; i < d->n_listeners && d->has_backlogs; i++)
        if (d->listeners[i].backlog >= cap.num[0])
            full = &d->listeners[i];
    if (overflows <= 0)
        leave(a, key, "no connection has found an accept queue full since this namespace began");
    else if (!d->has_backlogs)
        leave(a, key,
              mem_format("%lld connections found an accept queue full (ListenOverflows), "
                         "but whose it was cannot be told from here",
                         overflows));
    else if (full == NULL)
        leave(a, key,
              mem_format("%lld connections found an accept queue full (ListenOverflows), but no "
                         "listener asked for as many as the cap of %lld: raise the backlog in the "
                         "program",
                         overflows, (long long)cap.num[0]));
    else
        propose(
            a, key, "at_least", doubled(cap.num[0]),
            mem_format("%lld connections found an accept queue full (ListenOverflows), and %s "
                       "asked for as many as the cap of %lld, or more.",
                       overflows, diag_address(full->family, full->addr, full->port),
                       (long long)cap.num[0]),
            "A slow service lets clients wait instead of failing fast. Acts at the next listen().");
}

static void
advise_on_range(const struct sys *s, const struct diag *d, const struct value *range, size_t left,
                struct advice *a)
{
    static const char key[] = "net.ipv4.ip_local_port_range";
    const struct peer *most = d->n_peers > 0 ? &d->peers[0] : NULL;
    const char *seen = "no connection goes out";
    struct value on;

    if (most != NULL)
        seen = mem_format("%zu of %zu local ports are in use towards %s, %zu of them in TIME_WAIT",
                          most->count, left, diag_address(most->family, most->addr, most->port),
                          most->time_wait);
    if (most == NULL || most->count * 2 < left) {
        leave(a, key, seen);
        leave(a, "net.ipv4.tcp_tw_reuse", seen);
        return;
    }
    if (range->num[0] > 1024 || range->num[1] < 65535)
        propose(a, key, "value", "1024 65535", mem_format("%s.", seen),
                "Includes the ports of services: safe only with ip_local_reserved_ports. Reusing "
                "connections is better.");
    else
        leave(a, key,
              mem_format("%s, and the range is as wide as it can be: use more addresses, "
                         "or reuse connections",
                         seen));
    if (most->time_wait * 2 < most->count)
        leave(a, "net.ipv4.tcp_tw_reuse", mem_format("%s: that is few", seen));
    else if (!numbers(s, "net/ipv4/tcp_timestamps", 1, &on) || on.num[0] == 0)
        leave(a, "net.ipv4.tcp_tw_reuse", "it does nothing while net.ipv4.tcp_timestamps is 0");
    else
        propose(a, "net.ipv4.tcp_tw_reuse", "value", "1", mem_format("%s.", seen),
                "Relies on timestamps of both sides; for outgoing connections only.");
}

void
advise_on_ports(const struct sys *s, const struct diag *d, struct advice *a)
{
    static const char key[] = "net.ipv4.ip_local_reserved_ports";
    struct value range, reserved;
    size_t before = a->proposed, left;
    int sys;

    if (!numbers(s, "net/ipv4/ip_local_port_range", 2, &range) || range.num[0] < 1 ||
        range.num[1] >= PORTS)
        return;
    if (sys_value(s, "net/ipv4/ip_local_reserved_ports", &reserved, NULL, &sys) != ACCESS_OK ||
        reserved.type != TYPE_PORTS)
        reserved = (struct value){.type = TYPE_PORTS, .ports = mem_alloc(PORTS / 8)};
    left = (size_t)(range.num[1] - range.num[0] + 1) -
           value_count_ports(&reserved, (unsigned)range.num[0], (unsigned)range.num[1]);
    advise_on_range(s, d, &range, left, a);
    if (a->proposed > before)
        propose(a, key, "contains", "[listening]", "Goes with the wider range.",
                "Those ports are no longer chosen for outgoing connections.");
    else if (value_count_ports(&d->untold, 0, PORTS - 1) > 0)
        leave(a, key,
              mem_format("ports %s are listened on inside the range of automatic ones, but it is "
                         "not told which are of services and which were picked for port 0",
                         value_show(&d->untold)));
    else
        leave(a, key, "nobody listens inside the range of automatic ports unreserved");
}

/* A limit that a counter says was met. */
static void
by_counter(const struct sys *s, struct advice *a, const char *path, const char *key,
           const char *counter, const char *what, const char *risk)
{
    const long long n = live_counter(s, counter);
    struct value v;

    if (!numbers(s, path, 1, &v))
        return;
    if (n > 0)
        propose(
            a, key, "at_least", doubled(v.num[0]),
            mem_format("%lld %s (%s) at a limit of %lld.", n, what, counter, (long long)v.num[0]),
            risk);
    else
        leave(a, key, mem_format("no %s since this namespace began", what));
}

void
advise_on_queues(const struct sys *s, struct advice *a)
{
    static const char key[] = "net.core.netdev_max_backlog";
    const long long drops = live_softnet_drops(s), full = live_counter(s, "TCPReqQFullDrop");
    struct value v;

    by_counter(s, a, "net/ipv4/tcp_max_tw_buckets", "net.ipv4.tcp_max_tw_buckets",
               "TCPTimeWaitOverflow", "TIME_WAIT sockets were destroyed early",
               "About 300 bytes of kernel memory for each.");
    if (numbers(s, "net/core/netdev_max_backlog", 1, &v) && drops > 0)
        propose(a, key, "at_least", doubled(v.num[0]),
                mem_format("%lld packets met a CPU's queue that held %lld already (softnet_stat).",
                           drops, (long long)v.num[0]),
                "More delay before packets are dropped under overload.");
    else if (drops == 0)
        leave(a, key, "no CPU's queue dropped a packet since boot");
    if (!numbers(s, "net/ipv4/tcp_syncookies", 1, &v))
        return;
    if (v.num[0] == 0 && full > 0)
        propose(a, "net.ipv4.tcp_syncookies", "value", "1",
                mem_format("%lld SYNs were dropped since the SYN queue was full (TCPReqQFullDrop), "
                           "and cookies are off.",
                           full),
                "Under flood, options such as window scaling are lost for those connections.");
    else
        leave(a, "net.ipv4.tcp_syncookies",
              v.num[0] == 0 ? "off, and no SYN was dropped for it" : "on already");
}

static long long
lines_of(const struct sys *s, const char *path)
{
    size_t len;
    const char *text = sys_file(s, path, 16 * SMALL, &len);
    long long n = 0;

    for (; text != NULL && (text = strchr(text, '\n')) != NULL; text++)
        n++;
    return n;
}

void
advise_on_tables(const struct sys *s, struct advice *a)
{
    static const char conntrack[] = "net.netfilter.nf_conntrack_max";
    static const char neighbours[] = "net.ipv4.neigh.default.gc_thresh3";
    /* The first line is the heading. */
    const long long known = lines_of(s, "/proc/net/arp") - 1;
    struct value used, most;
    const char *seen;

    if (numbers(s, "net/netfilter/nf_conntrack_max", 1, &most) &&
        numbers(s, "net/netfilter/nf_conntrack_count", 1, &used)) {
        seen = mem_format("%lld of %lld entries of connection tracking are in use",
                          (long long)used.num[0], (long long)most.num[0]);
        if (used.num[0] >= most.num[0] / 10 * 8)
            propose(a, conntrack, "at_least", doubled(most.num[0]), mem_format("%s.", seen),
                    "About 320 bytes of kernel memory an entry.");
        else
            leave(a, conntrack, seen);
    }
    if (!numbers(s, "net/ipv4/neigh/default/gc_thresh3", 1, &most) || known < 0)
        return;
    seen = mem_format("%lld of %lld neighbours are in the table", known, (long long)most.num[0]);
    if (known >= most.num[0] / 10 * 8)
        propose(a, neighbours, "at_least", doubled(most.num[0]), mem_format("%s.", seen),
                "A scan of a large network takes more memory.");
    else
        leave(a, neighbours, seen);
}

/* The limits of all sockets together. A receive queue that was cut (PruneCalled) met the limit of
 * its own socket, which is told beside it and raises nothing here. */
static const char *
memory_seen(const struct sys *s, long long pages, const struct value *limits)
{
    const long long met = live_counter(s, "TCPMemoryPressures"),
                    cut = live_counter(s, "PruneCalled");
    const char *seen =
        mem_format("%lld of %lld pages of TCP buffers are in use before pressure begins (sockstat)",
                   pages, (long long)limits->num[1]);

    if (met >= 0)
        seen = mem_format("%s, which it did %lld times since this namespace began "
                          "(TCPMemoryPressures)",
                          seen, met);
    if (cut > 0)
        seen = mem_format("%s; %lld times a receive queue was cut (PruneCalled): a socket's own "
                          "limit, from net.ipv4.tcp_rmem or SO_RCVBUF, or a slow reader",
                          seen, cut);
    return seen;
}

void
advise_on_memory(const struct sys *s, struct advice *a)
{
    static const char key[] = "net.ipv4.tcp_mem";
    const int64_t memory = usual_memory(s);
    const long long pages = live_tcp_pages(s);
    struct value v;
    const char *seen;

    if (pages < 0)
        return;
    if (!numbers(s, "net/ipv4/tcp_mem", 3, &v)) {
        leave(a, key,
              mem_format("%lld pages of TCP buffers are in use (sockstat), but the limit is not to "
                         "be seen: %s",
                         pages, sys_why_missing(s, "net/ipv4/tcp_mem")));
        return;
    }
    seen = memory_seen(s, pages, &v);
    if (pages < v.num[1] / 10 * 8 && live_counter(s, "TCPMemoryPressures") <= 0)
        leave(a, key, seen);
    else if (memory == 0 || v.num[2] > memory / usual_page(s) / 8)
        leave(a, key,
              mem_format("%s; twice the limit of %lld would be more than a quarter of the memory "
                         "here: hold less in buffers (net.ipv4.tcp_rmem, tcp_wmem), or add memory",
                         seen, (long long)v.num[2]));
    else
        propose(a, key, "at_least",
                mem_format("[%s, %s, %s]", doubled(v.num[0]), doubled(v.num[1]), doubled(v.num[2])),
                mem_format("%s.", seen),
                "What TCP holds, programs and the file cache lack; it cannot be swapped.");
}

static void
advise_on_loss(const struct paths *p, struct advice *a)
{
    static const char key[] = "net.ipv4.tcp_congestion_control";
    const struct path *worst = NULL;

    for (size_t i = 0; i < p->n; i++)
        if (p->items[i].rtt_us >= LONG_WAY_US && p->items[i].sent >= 100 &&
            p->items[i].sent_again * 100 >= p->items[i].sent &&
            (worst == NULL || p->items[i].rtt_us > worst->rtt_us))
            worst = &p->items[i];
    if (worst == NULL)
        leave(a, key, "no connection over 20 ms lost as much as one segment in a hundred");
    else
        leave(a, key,
              mem_format("%llu of %llu segments to %s were sent again, over %llu ms: profile "
                         "bbr-wan may help, but takes from others on the same way, so it is for "
                         "a person to choose",
                         (unsigned long long)worst->sent_again, (unsigned long long)worst->sent,
                         worst->peer, (unsigned long long)worst->rtt_us / 1000));
}

void
advise_on_paths(const struct sys *s, const struct paths *p, struct advice *a)
{
    static const char key[] = "net.ipv4.tcp_wmem";
    const struct path *most;
    uint64_t need;
    struct value v;
    const char *seen;

    if (s->fake || !numbers(s, "net/ipv4/tcp_wmem", 3, &v))
        return;
    if (p->n == 0 || p->items == NULL) {
        leave(a, key, "there is no connection to another host");
        return;
    }
    advise_on_loss(p, a);
    most = &p->items[0];
    for (size_t i = 1; i < p->n; i++)
        if (path_in_flight(&p->items[i]) > path_in_flight(most))
            most = &p->items[i];
    need = path_in_flight(most) > INT32_MAX / 2 ? INT32_MAX : path_in_flight(most) * 2;
    seen = mem_format("the most that any of %zu connections has on the way is %llu bytes (to %s, "
                      "%llu.%llu ms), and twice that fits in a buffer",
                      p->n, (unsigned long long)path_in_flight(most), most->peer,
                      (unsigned long long)most->rtt_us / 1000,
                      (unsigned long long)most->rtt_us / 100 % 10);
    if (need <= (uint64_t)v.num[2])
        leave(a, key, mem_format("%s of %lld", seen, (long long)v.num[2]));
    else
        propose(a, key, "at_least",
                mem_format("[%lld, %lld, %llu]", (long long)v.num[0], (long long)v.num[1],
                           (unsigned long long)need),
                mem_format("%s of %llu; the largest is %lld.", seen, (unsigned long long)need,
                           (long long)v.num[2]),
                mem_format("%zu connections to peers that stop reading could hold %llu MiB.", p->n,
                           (unsigned long long)(need / 1024 * p->n / 1024)));
    leave(a, "net.ipv4.tcp_rmem",
          "how much a sender could have sent is not to be seen from here; profile long-haul works "
          "it out from bandwidth and delay");
}
