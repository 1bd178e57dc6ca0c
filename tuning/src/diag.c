/* diag.c: one dump per family, of all that holds a local port.
 *
 * The kernel answers a dump piece by piece as recv asks, so nothing here waits. UDP comes from
 * /proc/net, which loads no module.
 */
#include "diag.h"

#include "mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROC_LIMIT (1024 * 1024)
#define FEW 1024 /* peers that are not worth a sort */
#define RANGE "net/ipv4/ip_local_port_range"
#define RESERVED "net/ipv4/ip_local_reserved_ports"
/* States in which a socket holds its local port against others to the same peer. */
#define STATES_USED                                                                                \
    (1U << TCP_ESTABLISHED | 1U << TCP_SYN_SENT | 1U << TCP_FIN_WAIT1 | 1U << TCP_FIN_WAIT2 |      \
     1U << TCP_TIME_WAIT | 1U << TCP_CLOSE_WAIT | 1U << TCP_LAST_ACK | 1U << TCP_CLOSING)

static void
add_listener(struct diag *d, const struct listener *l)
{
    d->listeners = mem_grow(d->listeners, d->n_listeners, &d->cap_listeners, sizeof(*l));
    d->listeners[d->n_listeners++] = *l;
    value_add_port(&d->tcp_ports, l->port);
}

static int
same_peer(const struct peer *a, const struct peer *b)
{
    if (a->family != b->family)
        return a->family < b->family ? -1 : 1;
    if (a->port != b->port)
        return a->port < b->port ? -1 : 1;
    return memcmp(a->addr, b->addr, sizeof(a->addr));
}

static int
by_peer(const void *a, const void *b)
{
    return same_peer(a, b);
}

/* The same peers together, with the sum of their connections. */
static void
combine(struct diag *d)
{
    size_t n = 0;

    if (d->n_peers > 0)
        qsort(d->peers, d->n_peers, sizeof(*d->peers), by_peer);
    for (size_t i = 0; i < d->n_peers; i++)
        if (i > 0 && same_peer(&d->peers[i], &d->peers[n - 1]) == 0) {
            d->peers[n - 1].count += d->peers[i].count;
            d->peers[n - 1].time_wait += d->peers[i].time_wait;
        } else {
            d->peers[n++] = d->peers[i];
        }
    d->n_peers = n;
    d->combine_at = 2 * n > FEW ? 2 * n : FEW;
}

/* Listeners are known before: a local port that listens was not chosen from the range, that
 * connection is an accepted one. */
static void
add_peer(struct diag *d, int family, const uint32_t addr[4], uint16_t port, uint16_t local,
         bool time_wait)
{
    struct peer *p;

    d->time_wait += time_wait;
    if (value_has_port(&d->tcp_ports, local))
        return;
    /* A busy client has tens of thousands of connections, to a few servers. */
    if (d->n_peers >= d->combine_at)
        combine(d);
    d->peers = mem_grow(d->peers, d->n_peers, &d->cap_peers, sizeof(*d->peers));
    p = &d->peers[d->n_peers++];
    p->family = family;
    memcpy(p->addr, addr, sizeof(p->addr));
    p->port = port;
    p->count = 1;
    p->time_wait = time_wait;
}

static void
take_message(struct diag *d, const struct inet_diag_msg *m)
{
    struct listener l = {.family = m->idiag_family,
                         .port = ntohs(m->id.idiag_sport),
                         .waiting = m->idiag_rqueue,
                         .backlog = m->idiag_wqueue,
                         .inode = m->idiag_inode};

    if (m->idiag_state == TCP_LISTEN) {
        memcpy(l.addr, m->id.idiag_src, sizeof(l.addr));
        add_listener(d, &l);
    } else if (m->idiag_state < 32 && (STATES_USED >> m->idiag_state & 1U) != 0) {
        add_peer(d, m->idiag_family, m->id.idiag_dst, ntohs(m->id.idiag_dport), l.port,
                 m->idiag_state == TCP_TIME_WAIT);
    }
}

/* 1: go on, 0: done, -1: failed. */
static int
take_answer(struct diag *d, const char *buf, size_t len)
{
    for (size_t at = 0; at + sizeof(struct nlmsghdr) <= len;) {
        struct nlmsghdr header;
        struct inet_diag_msg m;

        memcpy(&header, buf + at, sizeof(header));
        if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > len - at)
            return -1;
        if (header.nlmsg_type == NLMSG_DONE)
            return 0;
        if (header.nlmsg_type == NLMSG_ERROR)
            return -1;
        if (header.nlmsg_len >= NLMSG_HDRLEN + sizeof(m)) {
            memcpy(&m, buf + at + NLMSG_HDRLEN, sizeof(m));
            take_message(d, &m);
        }
        at += NLMSG_ALIGN(header.nlmsg_len);
    }
    return 1;
}

static bool
dump(int fd, int family, unsigned states, struct diag *d)
{
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 body;
    } request = {
        .header = {.nlmsg_len = sizeof(request),
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .body = {.sdiag_family = (uint8_t)family,
                 .sdiag_protocol = IPPROTO_TCP,
                 .idiag_states = states},
    };
    static char buf[32768];
    int more = 1;

    if (send(fd, &request, sizeof(request), 0) != (ssize_t)sizeof(request))
        return false;
    while (more == 1) {
        ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        more = take_answer(d, buf, (size_t)n);
    }
    return more == 0;
}

static bool
from_kernel(struct diag *d, unsigned states)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    bool ok;

    if (fd < 0)
        return false;
    /* IPv6 first, whose listeners accept for IPv4 too; a kernel without it refuses. Each dump
     * begins with its listeners. */
    (void)dump(fd, AF_INET6, states, d);
    ok = dump(fd, AF_INET, states, d);
    (void)close(fd);
    return ok;
}

/* One line of /proc/net/tcp: "  0: 0100007F:1F90 00000000:0000 0A" and nine fields more, of which
 * the last is the inode. */
static void
take_line(struct diag *d, int family, bool tcp, bool listeners, const char *line)
{
    unsigned local, remote, state, inode = 0;
    char local_addr[33], remote_addr[33];
    static const uint32_t nowhere[4] = {0};

    /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it; what does not match is skipped */
    if (sscanf(line, " %*u: %32[0-9A-F]:%x %32[0-9A-F]:%x %x %*x:%*x %*x:%*x %*x %*u %*u %u",
               local_addr, &local, remote_addr, &remote, &state, &inode) < 5 ||
        local >= PORTS || remote >= PORTS)
        return;
    if (!tcp) {
        if (remote == 0)
            value_add_port(&d->udp_ports, local);
    } else if (state == TCP_LISTEN && listeners) {
        add_listener(d,
                     &(struct listener){.family = family, .port = (uint16_t)local, .inode = inode});
    } else if (!listeners && state < 32 && (STATES_USED >> state & 1U) != 0) {
        add_peer(d, family, nowhere, (uint16_t)remote, (uint16_t)local, state == TCP_TIME_WAIT);
    }
}

static void
from_proc(const struct sys *s, const char *name, int family, bool listeners, struct diag *d)
{
    size_t len;
    char *text = sys_file(s, mem_format("/proc/net/%s", name), PROC_LIMIT, &len), *save = NULL;

    if (text == NULL)
        return;
    for (char *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save))
        take_line(d, family, name[0] == 't', listeners, line);
}

static int
by_count(const void *a, const void *b)
{
    const struct peer *p = a, *q = b;

    if (p->count != q->count)
        return p->count > q->count ? -1 : 1;
    return same_peer(p, q);
}

/* What connect() chooses from: the range, and those of it that it skips. */
struct automatic {
    unsigned low, high;
    struct value reserved;
};

static bool
read_automatic(const struct sys *s, struct automatic *ret)
{
    struct value range;
    int sys;

    if (sys_value(s, RANGE, &range, NULL, &sys) != ACCESS_OK || range.type != TYPE_INTS ||
        range.n != 2 || range.num[0] < 0 || range.num[1] >= PORTS || range.num[0] > range.num[1])
        return false;
    ret->low = (unsigned)range.num[0];
    ret->high = (unsigned)range.num[1];
    if (sys_value(s, RESERVED, &ret->reserved, NULL, &sys) != ACCESS_OK ||
        ret->reserved.type != TYPE_PORTS)
        ret->reserved = (struct value){.type = TYPE_PORTS, .ports = mem_alloc(PORTS / 8)};
    return true;
}

/* The number behind a word of the line that begins so; 0 if there is none. */
static unsigned long long
count_in(const char *text, const char *line, const char *word)
{
    const char *at = text == NULL ? NULL : strstr(text, line);
    const char *end = at == NULL ? NULL : strchr(at, '\n');

    at = at == NULL ? NULL : strstr(at, word);
    return at == NULL || (end != NULL && at > end) ? 0 : strtoull(at + strlen(word), NULL, 10);
}

/* Whether half of the ports could be in use towards somebody, by the number of all sockets. To look
 * at each one the kernel walks its whole hash of connections, which on a large machine takes
 * longer than everything else. */
static bool
are_many(const struct sys *s, const struct automatic *a)
{
    const size_t left = a->high - a->low + 1 - value_count_ports(&a->reserved, a->low, a->high);
    size_t len;
    const char *four = sys_file(s, "/proc/net/sockstat", PROC_LIMIT, &len);
    const char *six = sys_file(s, "/proc/net/sockstat6", PROC_LIMIT, &len);

    return four == NULL ||
           2 * (count_in(four, "TCP: ", " inuse ") + count_in(four, "TCP: ", " tw ") +
                count_in(six, "TCP6: ", " inuse ")) >=
               left;
}

/* A port outside the range was asked for by number, and so was a reserved one, which the kernel
 * skips; of the others nothing is known (ADR 91). */
static void
find_untold(const struct automatic *a, struct diag *d)
{
    for (unsigned port = a->low; port <= a->high; port++) {
        if ((d->tcp_ports.ports[port / 64] | d->udp_ports.ports[port / 64]) == 0)
            port |= 63; /* None of these. */
        else if ((value_has_port(&d->tcp_ports, port) || value_has_port(&d->udp_ports, port)) &&
                 !value_has_port(&a->reserved, port))
            value_add_port(&d->untold, port);
    }
}

void
diag_read(const struct sys *s, bool every, struct diag *ret)
{
    struct automatic automatic;
    const bool known = read_automatic(s, &automatic);
    unsigned states = 1U << TCP_LISTEN;
    struct diag d = {.tcp_ports = {.type = TYPE_PORTS},
                     .udp_ports = {.type = TYPE_PORTS},
                     .untold = {.type = TYPE_PORTS},
                     .combine_at = FEW};

    d.tcp_ports.ports = mem_alloc(PORTS / 8);
    d.udp_ports.ports = mem_alloc(PORTS / 8);
    d.untold.ports = mem_alloc(PORTS / 8);
    if (every || !known || are_many(s, &automatic))
        states |= STATES_USED;
    d.has_backlogs = !s->fake && from_kernel(&d, states);
    if (!d.has_backlogs) {
        for (int listeners = 1; listeners >= 0; listeners--) {
            from_proc(s, "tcp", AF_INET, listeners != 0, &d);
            from_proc(s, "tcp6", AF_INET6, listeners != 0, &d);
        }
    }
    from_proc(s, "udp", AF_INET, false, &d);
    from_proc(s, "udp6", AF_INET6, false, &d);
    combine(&d);
    if (d.n_peers > 0)
        qsort(d.peers, d.n_peers, sizeof(*d.peers), by_count);
    if (known)
        find_untold(&automatic, &d);
    *ret = d;
}

const char *
diag_address(int family, const uint32_t addr[4], uint16_t port)
{
    char text[INET6_ADDRSTRLEN];

    if (inet_ntop(family, addr, text, sizeof(text)) == NULL)
        return "?";
    return mem_format(family == AF_INET6 ? "[%s]:%u" : "%s:%u", text, (unsigned)port);
}
