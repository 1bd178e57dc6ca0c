/* paths.c: see paths.h.
 *
 * struct tcp_info grows with the kernel: what an older one does not send stays zero. The C
 * library's own, shorter struct of that name must not be included here.
 */
#include "paths.h"

#include "diag.h"
#include "mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ESTABLISHED 1 /* TCP_ESTABLISHED of net/tcp_states.h */
#define MAX_PATHS 100000

static bool
is_loopback(int family, const uint32_t addr[4])
{
    static const uint32_t one[4] = {0, 0, 0, 0};

    if (family == AF_INET)
        return (ntohl(addr[0]) >> 24) == 127;
    return memcmp(addr, one, 12) == 0 && ntohl(addr[3]) == 1;
}

static void
take_info(const struct inet_diag_msg *m, const char *data, size_t len, struct paths *all)
{
    struct tcp_info info = {0};
    uint32_t addr[4];
    struct path p = {0};

    memcpy(&info, data, len < sizeof(info) ? len : sizeof(info));
    memcpy(addr, m->id.idiag_dst, sizeof(addr));
    if (is_loopback(m->idiag_family, addr) || all->n == MAX_PATHS)
        return;
    p.peer = diag_address(m->idiag_family, addr, ntohs(m->id.idiag_dport));
    p.rtt_us = info.tcpi_rtt;
    p.rate = info.tcpi_delivery_rate;
    p.sent = info.tcpi_segs_out;
    p.sent_again = info.tcpi_total_retrans;
    all->items = mem_grow(all->items, all->n, &all->capacity, sizeof(p));
    all->items[all->n++] = p;
}

/* The attributes behind a message: length and type, then the data, padded to four bytes. */
static void
take_message(const char *message, size_t len, struct paths *all)
{
    struct inet_diag_msg m;
    size_t at = sizeof(m);

    if (len < sizeof(m))
        return;
    memcpy(&m, message, sizeof(m));
    while (at + sizeof(struct nlattr) <= len) {
        struct nlattr a;

        memcpy(&a, message + at, sizeof(a));
        if (a.nla_len < sizeof(a) || a.nla_len > len - at)
            return;
        if (a.nla_type == INET_DIAG_INFO) {
            take_info(&m, message + at + sizeof(a), a.nla_len - sizeof(a), all);
            return;
        }
        at += ((size_t)a.nla_len + 3) & ~(size_t)3;
    }
}

/* True: go on. */
static bool
take_answer(const char *buf, size_t len, struct paths *all)
{
    for (size_t at = 0; at + NLMSG_HDRLEN <= len;) {
        struct nlmsghdr header;

        memcpy(&header, buf + at, sizeof(header));
        if (header.nlmsg_len < NLMSG_HDRLEN || header.nlmsg_len > len - at ||
            header.nlmsg_type == NLMSG_DONE || header.nlmsg_type == NLMSG_ERROR)
            return false;
        take_message(buf + at + NLMSG_HDRLEN, header.nlmsg_len - NLMSG_HDRLEN, all);
        at += NLMSG_ALIGN(header.nlmsg_len);
    }
    return true;
}

static void
dump(int fd, int family, struct paths *all)
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
                 .idiag_ext = 1U << (INET_DIAG_INFO - 1),
                 .idiag_states = 1U << ESTABLISHED},
    };
    static char buf[32768];
    ssize_t n;

    if (send(fd, &request, sizeof(request), 0) != (ssize_t)sizeof(request))
        return;
    do
        n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
    while ((n < 0 && errno == EINTR) || (n > 0 && take_answer(buf, (size_t)n, all)));
}

void
paths_read(const struct sys *s, struct paths *ret)
{
    struct paths all = {0};
    int fd = s->fake ? -1 : socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

    if (fd >= 0) {
        dump(fd, AF_INET, &all);
        dump(fd, AF_INET6, &all);
        (void)close(fd);
    }
    *ret = all;
}

uint64_t
path_in_flight(const struct path *p)
{
    if (p->rate > UINT64_MAX / (p->rtt_us + 1))
        return UINT64_MAX;
    return p->rate * p->rtt_us / 1000000;
}
