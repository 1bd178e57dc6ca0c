/* ends.c: devices and their addresses. See ends.h.
 *
 * Everything is made by ioctl(2) and two messages of rtnetlink (a veth pair, an address of IPv6).
 * The devices go with this process, or with their namespaces: there is nothing to take back.
 */
#include "ends.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEVICE "wire0"
/* What the kernel may keep for us while we are not scheduled. */
#define QUEUE_PACKETS 10000
#define BUFFER_BYTES (32 << 20)

static bool
no(struct end *e, const char *what)
{
    (void)snprintf(e->why, sizeof(e->why), "%s: %s", what, strerror(errno));
    return false;
}

/* A setting of the namespace that this thread is in; one that is missing here is left out. */
static bool
set_net(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, value, strlen(value)) >= 0;

    if (fd >= 0)
        (void)close(fd);
    return done;
}

/* The first of a list divided by commas that the namespace may have. */
static bool
set_congestion(const char *list)
{
    char names[128], *save = NULL;

    (void)snprintf(names, sizeof(names), "%s", list);
    for (char *n = strtok_r(names, ",", &save); n != NULL; n = strtok_r(NULL, ",", &save))
        if (set_net("/proc/sys/net/ipv4/tcp_congestion_control", n))
            return true;
    return false;
}

/* ---- rtnetlink ----------------------------------------------------------------------------- */

struct message {
    struct nlmsghdr head;
    uint8_t rest[1000];
};

static struct rtattr *
begin_attr(struct message *m, unsigned short type, const void *data, size_t len)
{
    struct rtattr *a = (struct rtattr *)((char *)m + NLMSG_ALIGN(m->head.nlmsg_len));

    a->rta_type = type;
    a->rta_len = (unsigned short)RTA_LENGTH(len);
    if (len > 0)
        memcpy(RTA_DATA(a), data, len);
    m->head.nlmsg_len = (uint32_t)(NLMSG_ALIGN(m->head.nlmsg_len) + RTA_ALIGN(a->rta_len));
    return a;
}

static void
end_attr(struct message *m, struct rtattr *a)
{
    a->rta_len = (unsigned short)((char *)m + m->head.nlmsg_len - (char *)a);
}

/* Else errno says why not. */
static bool
asked(const struct message *m)
{
    struct {
        struct nlmsghdr head;
        struct nlmsgerr err;
        char rest[2048];
    } answer;
    int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    bool heard;

    if (s < 0)
        return false;
    heard = send(s, m, m->head.nlmsg_len, 0) >= 0 && recv(s, &answer, sizeof(answer), 0) > 0;
    if (heard)
        errno = -answer.err.error;
    (void)close(s);
    return heard && answer.err.error == 0;
}

/* ---- Devices ------------------------------------------------------------------------------- */

static int
flags_of(int s, struct ifreq *r)
{
    return ioctl(s, SIOCGIFFLAGS, r);
}

static bool
bring_up(int s, const char *name)
{
    struct ifreq r = {0};

    (void)snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    if (flags_of(s, &r) != 0)
        return false;
    r.ifr_flags = (short)(r.ifr_flags | IFF_UP);
    return ioctl(s, SIOCSIFFLAGS, &r) == 0;
}

static bool
add_v4(int s, int other)
{
    struct ifreq r = {.ifr_name = DEVICE};
    struct sockaddr_in a = {.sin_family = AF_INET};

    a.sin_addr.s_addr = htonl(UINT32_C(0x0a4d0001) + (uint32_t)other); /* 10.77.0.1, 10.77.0.2 */
    memcpy(&r.ifr_addr, &a, sizeof(a));
    if (ioctl(s, SIOCSIFADDR, &r) != 0)
        return false;
    a.sin_addr.s_addr = htonl(UINT32_C(0xffffff00));
    memcpy(&r.ifr_netmask, &a, sizeof(a));
    return ioctl(s, SIOCSIFNETMASK, &r) == 0;
}

/* A kernel without IPv6 has a wire all the same. Nobody else can have the address: if others were
 * asked, even for no time (accept_dad), none could bind it until a thread of the kernel had run. */
static void
add_v6(int s, int other)
{
    struct message m = {.head = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg)),
                                 .nlmsg_type = RTM_NEWADDR,
                                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE}};
    struct ifaddrmsg what = {.ifa_family = AF_INET6, .ifa_prefixlen = 64, .ifa_flags = IFA_F_NODAD};
    struct ifreq r = {.ifr_name = DEVICE};
    struct in6_addr addr;

    if (ioctl(s, SIOCGIFINDEX, &r) != 0 || inet_pton(AF_INET6, "fd77::1", &addr) != 1)
        return;
    addr.s6_addr[15] = (uint8_t)(1 + other);
    what.ifa_index = (uint32_t)r.ifr_ifindex;
    memcpy(NLMSG_DATA(&m.head), &what, sizeof(what));
    (void)begin_attr(&m, IFA_LOCAL, &addr, sizeof(addr));
    (void)begin_attr(&m, IFA_ADDRESS, &addr, sizeof(addr));
    (void)asked(&m);
}

static void
switch_off(int s, uint32_t command)
{
    struct ethtool_value off = {.cmd = command};
    struct ifreq r = {.ifr_name = DEVICE};

    r.ifr_data = (void *)&off;
    (void)ioctl(s, SIOCETHTOOL, &r);
}

/* Inside the namespace. Packets must be whole: no checksum that the device would have filled in, no
 * segment larger than the MTU. */
static bool
set_up(struct end *e, const char *cc)
{
    struct ifreq queue = {.ifr_name = DEVICE};
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool done;

    if (s < 0)
        return no(e, "socket");
    queue.ifr_qlen = QUEUE_PACKETS;
    (void)ioctl(s, SIOCSIFTXQLEN, &queue);
    (void)set_net("/proc/sys/net/ipv6/conf/" DEVICE "/accept_dad", "0");
    (void)set_net("/proc/sys/net/ipv6/conf/" DEVICE "/router_solicitations", "0");
    if (e->is_packet) {
        switch_off(s, ETHTOOL_STXCSUM);
        switch_off(s, ETHTOOL_STSO);
        switch_off(s, ETHTOOL_SGSO);
    }
    done = add_v4(s, e->other) && bring_up(s, DEVICE);
    if (!done)
        (void)no(e, "address of " DEVICE);
    else
        add_v6(s, e->other);
    (void)close(s);
    if (done && cc != NULL && !set_congestion(cc)) {
        (void)snprintf(e->why, sizeof(e->why), "congestion control %s: %s", cc, strerror(errno));
        done = false;
    }
    return done;
}

void
end_close(struct end *e)
{
    if (e->fd >= 0)
        (void)close(e->fd);
    e->fd = -1;
}

/* ---- TUN ----------------------------------------------------------------------------------- */

bool
end_open_tun(struct end *e, int home, const char *cc)
{
    struct ifreq r = {.ifr_name = DEVICE, .ifr_flags = IFF_TUN | IFF_NO_PI};
    bool done;

    e->is_packet = false;
    if (setns(e->net, CLONE_NEWNET) != 0)
        return no(e, "setns");
    e->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    done = e->fd >= 0 && ioctl(e->fd, TUNSETIFF, &r) == 0;
    if (!done)
        (void)no(e, "/dev/net/tun");
    done = done && set_up(e, cc);
    if (!done)
        end_close(e);
    if (setns(home, CLONE_NEWNET) != 0)
        abort(); /* From there nothing of what follows would be where it belongs. */
    return done;
}

/* ---- veth and AF_PACKET -------------------------------------------------------------------- */

/* name here, DEVICE in the namespace. */
static bool
make_veth(struct end *e, const char *name)
{
    struct message m = {
        .head = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
                 .nlmsg_type = RTM_NEWLINK,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL}};
    struct rtattr *info, *data, *peer;

    (void)begin_attr(&m, IFLA_IFNAME, name, strlen(name) + 1);
    info = begin_attr(&m, IFLA_LINKINFO, NULL, 0);
    (void)begin_attr(&m, IFLA_INFO_KIND, "veth", 4);
    data = begin_attr(&m, IFLA_INFO_DATA, NULL, 0);
    peer = begin_attr(&m, VETH_INFO_PEER, NULL, 0);
    m.head.nlmsg_len += (uint32_t)sizeof(struct ifinfomsg);
    (void)begin_attr(&m, IFLA_IFNAME, DEVICE, sizeof(DEVICE));
    (void)begin_attr(&m, IFLA_NET_NS_FD, &e->net, sizeof(e->net));
    end_attr(&m, peer);
    end_attr(&m, data);
    end_attr(&m, info);
    return asked(&m) || no(e, "veth");
}

static bool
open_packet(struct end *e, const char *name)
{
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    struct ifreq r = {0};
    int one = 1, size = BUFFER_BYTES;

    (void)snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    e->fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (e->fd < 0 || ioctl(e->fd, SIOCGIFINDEX, &r) != 0)
        return no(e, "AF_PACKET");
    at.sll_ifindex = r.ifr_ifindex;
    (void)setsockopt(e->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one));
    (void)setsockopt(e->fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one));
    if (setsockopt(e->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) != 0)
        (void)setsockopt(e->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    if (setsockopt(e->fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) != 0)
        (void)setsockopt(e->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    return bind(e->fd, (struct sockaddr *)&at, sizeof(at)) == 0 || no(e, "AF_PACKET");
}

bool
end_open_packet(struct end *e, int home, const char *cc)
{
    const char *name = e->other == 0 ? "wirea" : "wireb";
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool done = s >= 0 && make_veth(e, name);

    e->is_packet = true;
    if (done && setns(e->net, CLONE_NEWNET) != 0)
        done = no(e, "setns");
    done = done && set_up(e, cc);
    if (setns(home, CLONE_NEWNET) != 0)
        abort(); /* From there nothing of what follows would be where it belongs. */
    done = done && (bring_up(s, name) || no(e, name)) && open_packet(e, name);
    if (s >= 0)
        (void)close(s);
    if (!done)
        end_close(e);
    return done;
}

/* ---- What is no part of an experiment, and what went wrong ----------------------------------- */

static bool
is_neighbourly(const uint8_t *ip, size_t len)
{
    uint8_t next = len > 40 ? ip[6] : 59;
    size_t at = 40;

    if (next == 0 && len > at + 8) { /* hop-by-hop options, as MLD has them */
        next = ip[at];
        at += ((size_t)ip[at + 1] + 1) * 8;
    }
    return next == 58 && len > at &&
           ((ip[at] >= 130 && ip[at] <= 137) || ip[at] == 143); /* MLD, ND */
}

bool
is_housekeeping(const uint8_t *data, size_t len, bool ethernet)
{
    unsigned type;

    if (ethernet) {
        if (len < ETHERNET_HEAD)
            return true;
        type = (unsigned)data[12] << 8 | data[13];
        if (type != ETH_P_IP && type != ETH_P_IPV6)
            return true;
        data += ETHERNET_HEAD;
        len -= ETHERNET_HEAD;
    }
    return len > 0 && data[0] >> 4 == 6 && is_neighbourly(data, len);
}

/* Of the line " wire0: rx_bytes packets errs drop fifo frame compressed multicast tx_bytes packets
 * errs drop ...": the fourth number and the twelfth. */
static uint64_t
drops_of(const char *numbers)
{
    uint64_t drops = 0;

    for (int i = 1; i <= 12; i++) {
        char *end;
        unsigned long long value = strtoull(numbers, &end, 10);

        if (end == numbers)
            return 0;
        if (i == 4 || i == 12)
            drops += value;
        numbers = end;
    }
    return drops;
}

static uint64_t
device_drops(void)
{
    uint64_t drops = 0;
    char line[512];
    FILE *f = fopen("/proc/thread-self/net/dev", "re");

    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        const char *at = strstr(line, DEVICE ":");

        if (at != NULL)
            drops = drops_of(at + sizeof(DEVICE));
    }
    if (f != NULL)
        (void)fclose(f);
    return drops;
}

uint64_t
end_drops(struct end *e, int home)
{
    struct tpacket_stats stats = {0};
    socklen_t len = sizeof(stats);
    uint64_t drops = 0;

    if (e->is_packet && getsockopt(e->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) == 0)
        e->drops_seen += stats.tp_drops;
    if (setns(e->net, CLONE_NEWNET) == 0)
        drops = device_drops();
    if (setns(home, CLONE_NEWNET) != 0)
        abort(); /* From there nothing of what follows would be where it belongs. */
    return drops + e->drops_seen;
}
