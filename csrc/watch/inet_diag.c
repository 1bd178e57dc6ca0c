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

static bool
is_towards(const struct inet_diag_msg *msg, const struct hs_addr *peer)
{
    struct hs_addr other = {0};

    if (peer == NULL)
        return true;
    if (msg->idiag_family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)(void *)&other.storage;

        other.len = sizeof(*in);
        in->sin_family = AF_INET;
        in->sin_port = msg->id.idiag_dport;
        memcpy(&in->sin_addr, msg->id.idiag_dst, sizeof(in->sin_addr));
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)&other.storage;

        other.len = sizeof(*in6);
        in6->sin6_family = AF_INET6;
        in6->sin6_port = msg->id.idiag_dport;
        memcpy(&in6->sin6_addr, msg->id.idiag_dst, sizeof(in6->sin6_addr));
        in6->sin6_scope_id =
            ((const struct sockaddr_in6 *)(const void *)&peer->storage)->sin6_scope_id;
    }
    return hs_addr_equal(&other, peer);
}

/* True when the dump is over. */
static bool
count_messages(const char *buf, size_t len, const struct hs_addr *peer,
               uint32_t counts[HS_TCP_STATES], int *ret_sys)
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
            if (msg.idiag_state < HS_TCP_STATES && is_towards(&msg, peer))
                counts[msg.idiag_state]++;
        }
        at += NLMSG_ALIGN(header.nlmsg_len);
    }
    return false;
}

static int
dump(int fd, int family, const struct hs_addr *peer, uint32_t counts[HS_TCP_STATES])
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
    } while (n < 0 || !count_messages(buf, (size_t)n, peer, counts, &sys));
    return sys;
}

hs_err
hs_diag_count(const struct hs_addr *peer, struct hs_error *err, uint32_t counts[HS_TCP_STATES])
{
    static const int families[] = {AF_INET, AF_INET6};
    uint32_t found[HS_TCP_STATES] = {0};
    int fd = hs_sys_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    int sys = fd < 0 ? errno : 0;

    for (size_t i = 0; i < 2 && sys == 0; i++)
        if (peer == NULL || peer->sa.sa_family == families[i])
            sys = dump(fd, families[i], peer, found);
    if (fd >= 0)
        (void)close(fd);
    if (sys != 0)
        return hs_err_set(err, HS_E_SYSTEM, sys, NULL, "sock_diag");
    memcpy(counts, found, sizeof(found));
    return HS_OK;
}
