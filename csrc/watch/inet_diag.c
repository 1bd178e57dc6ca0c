/* inet_diag.c: counting TCP sockets by state, from the kernel's sock_diag tables.
 *
 * One dump request per family over NETLINK_SOCK_DIAG (sock_diag(7)), answered in the calling
 * process: each part of the answer is there when recv asks for it, so that recv never waits. The
 * kernel filters by state and family; the peer is compared here. Covers the caller's network
 * namespace.
 */
#include "hardsock_binding.h"

#include "../base/addr.h"
#include "../base/err.h"
#include "../base/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#define ALL_STATES 0xffffffffU

struct request {
    struct nlmsghdr header;
    struct inet_diag_req_v2 body;
};

/* Which sockets: those towards a peer, or those that keep others from an address; all when both are
 * NULL. */
struct wanted {
    const struct hs_addr *peer, *local;
};

/* With the scope of the one that it is compared with: the kernel tells none. */
static struct hs_addr
addr_of(int family, const __be32 *address, __be16 port, const struct hs_addr *scoped)
{
    struct hs_addr addr = {0};

    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)(void *)&addr.storage;

        addr.len = sizeof(*in);
        in->sin_family = AF_INET;
        in->sin_port = port;
        memcpy(&in->sin_addr, address, sizeof(in->sin_addr));
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)&addr.storage;

        addr.len = sizeof(*in6);
        in6->sin6_family = AF_INET6;
        in6->sin6_port = port;
        memcpy(&in6->sin6_addr, address, sizeof(in6->sin6_addr));
        in6->sin6_scope_id =
            ((const struct sockaddr_in6 *)(const void *)&scoped->storage)->sin6_scope_id;
    }
    return addr;
}

static bool
is_every_address(const struct hs_addr *addr)
{
    static const struct in6_addr any = IN6ADDR_ANY_INIT;

    if (addr->sa.sa_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)&addr->storage)->sin_addr.s_addr == 0;
    return memcmp(&((const struct sockaddr_in6 *)(const void *)&addr->storage)->sin6_addr, &any,
                  sizeof(any)) == 0;
}

/* Of one family, or both: a socket for all IPv6 addresses may have those of IPv4 as well. */
static bool
covers(const struct hs_addr *every, const struct hs_addr *one)
{
    return is_every_address(every) &&
           (every->sa.sa_family == AF_INET6 || one->sa.sa_family == AF_INET);
}

static bool
is_wanted(const struct inet_diag_msg *msg, const struct wanted *w)
{
    struct hs_addr other;

    if (w->peer != NULL) {
        other = addr_of(msg->idiag_family, msg->id.idiag_dst, msg->id.idiag_dport, w->peer);
        return hs_addr_equal(&other, w->peer);
    }
    if (w->local == NULL)
        return true;
    other = addr_of(msg->idiag_family, msg->id.idiag_src, msg->id.idiag_sport, w->local);
    return hs_addr_port(&other) == hs_addr_port(w->local) &&
           (covers(&other, w->local) || covers(w->local, &other) ||
            hs_addr_equal(&other, w->local));
}

/* True when the dump is over. */
static bool
count_messages(const char *buf, size_t len, const struct wanted *w, uint32_t counts[HS_TCP_STATES],
               int *ret_sys)
{
    for (size_t at = 0; at + sizeof(struct nlmsghdr) <= len;) {
        struct nlmsghdr header;
        struct inet_diag_msg msg;

        memcpy(&header, buf + at, sizeof(header));
        if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > len - at)
            break;
        if (header.nlmsg_type == NLMSG_DONE)
            return true;
        if (header.nlmsg_type == NLMSG_ERROR) {
            *ret_sys = EIO;
            return true;
        }
        if (header.nlmsg_len >= NLMSG_HDRLEN + sizeof(msg)) {
            memcpy(&msg, buf + at + NLMSG_HDRLEN, sizeof(msg));
            if (msg.idiag_state < HS_TCP_STATES && is_wanted(&msg, w))
                counts[msg.idiag_state]++;
        }
        at += NLMSG_ALIGN(header.nlmsg_len);
    }
    return false;
}

static int
dump(int fd, int family, const struct wanted *w, uint32_t counts[HS_TCP_STATES])
{
    struct request request = {
        .header = {.nlmsg_len = sizeof(request),
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .body = {.sdiag_family = (uint8_t)family,
                 .sdiag_protocol = IPPROTO_TCP,
                 .idiag_states = ALL_STATES},
    };
    char buf[32768];
    int sys = 0;
    ssize_t n;

    if (hs_sys_send(fd, &request, sizeof(request), 0) < 0)
        return errno;
    do {
        if ((n = hs_sys_recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) < 0 && errno != EINTR)
            return errno;
        if (n == 0) /* No part is empty: it would never be over. */
            return EPROTO;
    } while (n < 0 || !count_messages(buf, (size_t)n, w, counts, &sys));
    return sys;
}

static hs_err
count_wanted(const struct wanted *w, struct hs_error *err, uint32_t counts[HS_TCP_STATES])
{
    static const int families[] = {AF_INET, AF_INET6};
    uint32_t found[HS_TCP_STATES] = {0};
    int fd = hs_sys_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    int sys = fd < 0 ? errno : 0;

    for (size_t i = 0; i < 2 && sys == 0; i++)
        if (w->peer == NULL || w->peer->sa.sa_family == families[i])
            sys = dump(fd, families[i], w, found);
    if (fd >= 0)
        (void)close(fd);
    if (sys != 0)
        return hs_err_set(err, HS_E_SYSTEM, sys, NULL, "sock_diag");
    memcpy(counts, found, sizeof(found));
    return HS_OK;
}

hs_err
hs_diag_count(const struct hs_addr *peer, struct hs_error *err, uint32_t counts[HS_TCP_STATES])
{
    const struct wanted towards = {.peer = peer};

    return count_wanted(&towards, err, counts);
}

hs_err
hs_diag_count_at(const struct hs_addr *local, struct hs_error *err, uint32_t counts[HS_TCP_STATES])
{
    const struct wanted at = {.local = local};

    return count_wanted(&at, err, counts);
}
