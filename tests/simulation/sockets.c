/* sockets.c: the calls on sockets, over net.c and local.c.
 *
 * Streams of IPv4, IPv6 and unix sockets, all of them non-blocking: where a call of a program's
 * would wait, it polls. A host has one address of each family; a unix socket has an abstract name,
 * in which stands a number in the place of a port, and belongs to no host.
 */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define ANY_HOST (-2)

int __wrap_socket(int family, int type, int protocol);
int __wrap_bind(int fd, const struct sockaddr *sa, socklen_t len);
int __wrap_listen(int fd, int backlog);
int __wrap_connect(int fd, const struct sockaddr *sa, socklen_t len);
int __wrap_accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags);
int __wrap_shutdown(int fd, int how);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_getpeername(int fd, struct sockaddr *sa, socklen_t *len);
int __wrap_getsockname(int fd, struct sockaddr *sa, socklen_t *len);
int __wrap_ioctl(int fd, unsigned long request, ...);
ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t __wrap_sendfile(int fd, int file, off_t *offset, size_t len);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);

int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **ret_list);
void __wrap_freeaddrinfo(struct addrinfo *list);

static int
refuse(int sys)
{
    errno = sys;
    return -1;
}

static struct sim_tcp *
tcp_of(int fd)
{
    struct sim_file *f = sim_file(fd);

    if (f != NULL && f->kind == SIM_SOCKET)
        return f->tcp;
    errno = f == NULL ? EBADF : ENOTSOCK;
    return NULL;
}

const struct sim_facts *
sim_facts(int number)
{
    struct sim_tcp *t = tcp_of(number);

    return t != NULL ? t->facts : NULL;
}

/* ---- Names --------------------------------------------------------------------------------- */

static const uint8_t prefix[12] = {0xfd}, mapped[12] = {[10] = 0xff, [11] = 0xff};

socklen_t
sim_name(int family, int host, uint16_t port, struct sockaddr_storage *ret_name)
{
    const uint32_t ip = sim_ip(host);
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};

    memset(ret_name, 0, sizeof(*ret_name));
    if (family == AF_UNIX) {
        memcpy(un.sun_path + 1, &port, sizeof(port));
        memcpy(ret_name, &un, sizeof(un));
        return port == 0 ? sizeof(un.sun_family)
                         : offsetof(struct sockaddr_un, sun_path) + 1 + sizeof(port);
    }
    if (family == AF_INET6) {
        memcpy(&in6.sin6_addr, prefix, sizeof(prefix));
        memcpy((uint8_t *)&in6.sin6_addr + sizeof(prefix), &ip, sizeof(ip));
        memcpy(ret_name, &in6, sizeof(in6));
        return sizeof(in6);
    }
    in.sin_addr.s_addr = ip;
    memcpy(ret_name, &in, sizeof(in));
    return sizeof(in);
}

/* No host: an address that is none's, or ANY_HOST. */
static int
read_name(const struct sockaddr *sa, uint16_t *ret_port)
{
    struct sockaddr_in6 in6;
    struct sockaddr_in in;
    uint32_t ip;

    if (sa->sa_family == AF_UNIX) {
        memcpy(ret_port, ((const struct sockaddr_un *)(const void *)sa)->sun_path + 1,
               sizeof(*ret_port));
        return 0;
    }
    if (sa->sa_family == AF_INET6) {
        memcpy(&in6, sa, sizeof(in6));
        *ret_port = ntohs(in6.sin6_port);
        memcpy(&ip, (const uint8_t *)&in6.sin6_addr + sizeof(prefix), sizeof(ip));
        if (IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr))
            return ANY_HOST;
        return memcmp(&in6.sin6_addr, prefix, sizeof(prefix)) == 0 ? (int)(ntohl(ip) - 0x0a000001U)
                                                                   : -1;
    }
    memcpy(&in, sa, sizeof(in));
    *ret_port = ntohs(in.sin_port);
    return (int)(ntohl(in.sin_addr.s_addr) - 0x0a000001U);
}

static int
write_name(const struct sim_tcp *t, int host, uint16_t port, struct sockaddr *sa, socklen_t *len)
{
    struct sockaddr_storage name;
    socklen_t n = sim_name(t->family, host, port, &name);

    if (sa == NULL)
        return 0;
    if (t->mapped)
        memcpy(&((struct sockaddr_in6 *)(void *)&name)->sin6_addr, mapped, sizeof(mapped));
    memcpy(sa, &name, *len < n ? *len : n);
    *len = n;
    return 0;
}

static bool
is_connected(const struct sim_tcp *t)
{
    return t->state != SIM_CLOSED && t->state != SIM_LISTEN && t->state != SIM_SYN_SENT &&
           t->state != SIM_TIME_WAIT;
}

int
__wrap_getpeername(int fd, struct sockaddr *sa, socklen_t *len)
{
    struct sim_tcp *t = tcp_of(fd);

    if (t == NULL)
        return -1;
    t->unseen = false;
    if (!is_connected(t))
        return refuse(ENOTCONN);
    return (int)sim_done(write_name(t, t->peer_host, t->peer_port, sa, len));
}

int
__wrap_getsockname(int fd, struct sockaddr *sa, socklen_t *len)
{
    const struct sim_tcp *t = tcp_of(fd);

    return t == NULL ? -1 : write_name(t, t->host, t->port, sa, len);
}

static struct addrinfo *
add_address(struct addrinfo *list, int family, int host)
{
    struct addrinfo *one = calloc(1, sizeof(*one) + sizeof(struct sockaddr_storage));

    if (one == NULL)
        abort();
    one->ai_family = family;
    one->ai_socktype = SOCK_STREAM;
    one->ai_addr = (struct sockaddr *)(void *)(one + 1);
    one->ai_addrlen = sim_name(family, host, 0, (struct sockaddr_storage *)(void *)one->ai_addr);
    one->ai_next = list;
    return one;
}

/* One name: the server's, and hosts where nobody listens, in any order, after any time. */
int
__wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                   struct addrinfo **ret_list)
{
    struct addrinfo *list = NULL;
    int others = (int)sim_below(3), at = (int)sim_between(0, others);

    (void)service;
    sim_sleep(sim_chance(sim_settings.slow_names) ? sim_between(0, 20 * SIM_S)
                                                  : sim_between(0, SIM_NAME_NS));
    sim_log("looks up %s, family %d", host, hints->ai_family);
    if (hints->ai_family == AF_INET6 && !sim_settings.ipv6)
        return EAI_NONAME;
    if (sim_chance(sim_settings.slow_names / 2))
        return EAI_AGAIN;
    for (int i = 0; i <= others; i++)
        list = add_address(list, hints->ai_family, i == at ? 0 : SIM_HOSTS - 1 - i);
    *ret_list = list;
    return 0;
}

void
__wrap_freeaddrinfo(struct addrinfo *list)
{
    while (list != NULL) {
        struct addrinfo *next = list->ai_next;

        free(list);
        list = next;
    }
}

/* ---- Making -------------------------------------------------------------------------------- */

static int
wrap_tcp(struct sim_tcp *t, int flags)
{
    struct sim_file *f;
    int fd = sim_open(SIM_SOCKET, flags, &f);

    if (fd >= 0) {
        f->tcp = t;
        t->file = f;
    }
    return fd;
}

int
__wrap_socket(int family, int type, int protocol)
{
    struct sim_file *f;
    int fd;

    (void)protocol;
    sim_maybe_yield();
    if ((family != AF_INET && family != AF_UNIX && (family != AF_INET6 || !sim_settings.ipv6)) ||
        (type & SOCK_STREAM) == 0)
        return refuse(EAFNOSUPPORT);
    if ((fd = sim_open(SIM_SOCKET, type, &f)) >= 0) {
        f->tcp = sim_tcp_new(family, family == AF_UNIX ? 0 : sim_host());
        f->tcp->file = f;
    }
    sim_log("socket -> %d", fd);
    return (int)sim_done(fd);
}

int
__wrap_bind(int fd, const struct sockaddr *sa, socklen_t len)
{
    struct sim_tcp *t = tcp_of(fd);
    uint16_t port;
    int host;

    (void)len;
    if (t == NULL)
        return -1;
    host = read_name(sa, &port);
    t->dual = host == ANY_HOST;
    if (host != t->host && !t->dual)
        return refuse(EADDRNOTAVAIL);
    if (port != 0 && sim_tcp_listener(t->family, t->host, port) != NULL)
        return refuse(EADDRINUSE);
    t->port = port;
    sim_log("bind %d %u", fd, port);
    return 0;
}

int
__wrap_listen(int fd, int backlog)
{
    struct sim_tcp *t = tcp_of(fd);

    if (t == NULL)
        return -1;
    t->state = SIM_LISTEN;
    t->backlog = backlog;
    sim_log("listen %d", fd);
    return 0;
}

int
__wrap_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
    struct sim_tcp *t = tcp_of(fd);
    uint16_t port;
    int host;

    (void)len;
    sim_maybe_yield();
    if (t == NULL)
        return -1;
    host = read_name(sa, &port);
    sim_log("connect %d: host %d port %u, tcp %llu", fd, host, port, (unsigned long long)t->id);
    if (!sim_host_is_there(host))
        return refuse(ENETUNREACH);
    if (t->state != SIM_CLOSED)
        return refuse(t->state == SIM_SYN_SENT ? EALREADY : EISCONN);
    if (!t->local) {
        sim_tcp_connect(t, host, port);
        return (int)sim_done(refuse(EINPROGRESS));
    }
    if ((errno = sim_local_connect(t, port)) != 0)
        return -1;
    return (int)sim_done(0);
}

int
__wrap_accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
    struct sim_tcp *t, *child;
    int number;

    sim_maybe_yield();
    if ((t = tcp_of(fd)) == NULL)
        return -1;
    if (t->state != SIM_LISTEN)
        return refuse(EINVAL);
    if (sim_tcp_waiting(t) == 0)
        return refuse(EAGAIN);
    /* Without a descriptor nobody is taken. */
    if ((child = sim_tcp_take_child(t)) == NULL || (number = wrap_tcp(child, flags)) < 0) {
        if (child != NULL)
            child->listener = t;
        sim_log("accept %d: no descriptor", fd);
        return refuse(EMFILE);
    }
    (void)write_name(child, child->peer_host, child->peer_port, sa, len);
    sim_log("accept %d -> %d, tcp %llu", fd, number, (unsigned long long)child->id);
    return (int)sim_done(number);
}

int
__wrap_shutdown(int fd, int how)
{
    struct sim_tcp *t;

    sim_maybe_yield();
    if ((t = tcp_of(fd)) == NULL)
        return -1;
    sim_log("shutdown %d %d", fd, how);
    if (!is_connected(t))
        return refuse(ENOTCONN);
    if (how != SHUT_WR)
        t->rcv_shut = true;
    if (how != SHUT_RD)
        sim_tcp_shut_write(t);
    return (int)sim_done(0);
}

bool
sim_has_room(int number)
{
    const struct sim_tcp *t = tcp_of(number);

    return t != NULL && t->state == SIM_LISTEN && sim_tcp_waiting(t) <= t->backlog;
}

/* ---- Options ------------------------------------------------------------------------------- */

static int *
option(struct sim_tcp *t, int level, int name, bool make)
{
    for (size_t i = 0; i < t->n_options; i++)
        if (t->options[i].level == level && t->options[i].name == name)
            return &t->options[i].value;
    if (!make)
        return NULL;
    if (t->n_options == SIM_OPTIONS)
        sim_violation("too many socket options");
    t->options[t->n_options] = (struct sim_option){.level = level, .name = name};
    return &t->options[t->n_options++].value;
}

static int
set_linger(struct sim_tcp *t, const void *value, socklen_t len)
{
    struct linger l;

    if (len < sizeof(l))
        return refuse(EINVAL);
    memcpy(&l, value, sizeof(l));
    t->linger = l.l_onoff != 0;
    t->linger_s = l.l_linger;
    return 0;
}

int
__wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    struct sim_tcp *t = tcp_of(fd);
    int v;

    if (t == NULL)
        return -1;
    if (level == SOL_SOCKET && name == SO_LINGER)
        return set_linger(t, value, len);
    if (len < sizeof(v))
        return refuse(EINVAL);
    memcpy(&v, value, sizeof(v));
    *option(t, level, name, true) = v;
    if (level == SOL_SOCKET && name == SO_SNDBUF)
        t->send_room = (size_t)v;
    else if (level == SOL_SOCKET && name == SO_RCVBUF)
        t->receive_room = (size_t)v;
    else if (level == SOL_SOCKET && name == SO_KEEPALIVE)
        t->keepalive = v != 0;
    else if (level == IPPROTO_TCP && name == TCP_KEEPIDLE)
        t->keep_idle_s = v;
    else if (level == IPPROTO_TCP && name == TCP_KEEPINTVL)
        t->keep_interval_s = v;
    else if (level == IPPROTO_TCP && name == TCP_KEEPCNT)
        t->keep_count = v;
    else if (level == IPPROTO_TCP && name == TCP_USER_TIMEOUT)
        t->user_timeout_ms = v;
    sim_tcp_set_keepalive(t);
    return (int)sim_done(0);
}

static int
get_info(const struct sim_tcp *t, void *value, socklen_t *len)
{
    struct tcp_info info = {.tcpi_state = (uint8_t)sim_tcp_visible_state(t)};

    if (t->local)
        return refuse(EOPNOTSUPP);
    if (t->state == SIM_LISTEN) {
        info.tcpi_sacked = (uint32_t)t->backlog;
        info.tcpi_unacked = (uint32_t)sim_tcp_waiting(t);
    }
    *len = *len < sizeof(info) ? *len : sizeof(info);
    memcpy(value, &info, *len);
    return (int)sim_done(0);
}

static int
take_error(struct sim_tcp *t)
{
    int sys = t->error;

    t->error = 0;
    return sys;
}

int
__wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    struct sim_tcp *t;
    struct linger l;
    int v = 0, *kept;

    sim_maybe_yield();
    if ((t = tcp_of(fd)) == NULL)
        return -1;
    if (level == IPPROTO_TCP && name == TCP_INFO)
        return get_info(t, value, len);
    if (level == SOL_SOCKET && name == SO_LINGER) {
        l = (struct linger){.l_onoff = t->linger, .l_linger = t->linger_s};
        memcpy(value, &l, sizeof(l));
        return 0;
    }
    kept = option(t, level, name, false);
    if (level == SOL_SOCKET && name == SO_ERROR) {
        t->unseen = false;
        v = take_error(t);
    }
    if (level == SOL_SOCKET && name == SO_TYPE)
        v = SOCK_STREAM;
    else if (level == SOL_SOCKET && name == SO_DOMAIN)
        v = t->family;
    else if (level == SOL_SOCKET && name == SO_PROTOCOL)
        v = t->local ? 0 : IPPROTO_TCP;
    else if (level == SOL_SOCKET && name == SO_ACCEPTCONN)
        v = t->state == SIM_LISTEN;
    else if (kept != NULL)
        v = level == SOL_SOCKET && (name == SO_SNDBUF || name == SO_RCVBUF) ? 2 * *kept : *kept;
    memcpy(value, &v, sizeof(v));
    *len = sizeof(v);
    return (int)sim_done(0);
}

/* What has not been acknowledged; an end counts as one. */
int
__wrap_ioctl(int fd, unsigned long request, ...)
{
    struct sim_tcp *t = tcp_of(fd);
    va_list args;
    int *value;

    va_start(args, request);
    value = va_arg(args, int *);
    va_end(args);
    if (t == NULL)
        return -1;
    if (request == SIOCINQ)
        *value = (int)t->in.len;
    else if (request == SIOCOUTQ && t->local)
        *value = (int)sim_local_unread(t);
    else if (request == SIOCOUTQ)
        *value = t->una == 0 ? 0 : (int)(t->write_seq + (t->fin_queued ? 1 : 0) - t->una);
    else
        sim_violation("ioctl %lx is not simulated", request);
    return (int)sim_done(0);
}

/* ---- Bytes --------------------------------------------------------------------------------- */

static size_t
cut(size_t n)
{
    return n > 1 && sim_chance(sim_settings.cut) ? 1 + (size_t)sim_below(n - 1) : n;
}

/* TCP gives all that is there: the rest of what is cut here comes behind it. */
static ssize_t
receive_some(struct sim_tcp *t, void *buf, size_t len, bool peek)
{
    size_t there = len < t->in.len ? len : t->in.len, n = cut(there);

    if (n < there && t->file != NULL)
        sim_wake(t->file);
    return (ssize_t)sim_tcp_receive(t, buf, n, !peek);
}

/* tcp_recvmsg: what is there, an end that has come, an error, a connection that is none. */
static ssize_t
receive(struct sim_tcp *t, void *buf, size_t len, int flags)
{
    if (t->in.len > 0)
        return receive_some(t, buf, len, (flags & MSG_PEEK) != 0);
    if (t->fin_received)
        return 0;
    if (t->error != 0)
        return refuse(take_error(t));
    if (t->rcv_shut)
        return 0;
    if (t->state == SIM_CLOSED || t->state == SIM_LISTEN)
        return refuse(ENOTCONN);
    return refuse(EAGAIN);
}

ssize_t
__wrap_recv(int fd, void *buf, size_t len, int flags)
{
    struct sim_tcp *t;
    ssize_t n;

    sim_maybe_yield();
    if ((t = tcp_of(fd)) == NULL)
        return -1;
    n = receive(t, buf, len, flags);
    sim_log("recv %d %zu %x -> %zd (%d)", fd, len, flags, n, n < 0 ? errno : 0);
    return sim_done(n);
}

ssize_t
__wrap_recvmsg(int fd, struct msghdr *msg, int flags)
{
    size_t i = 0;

    if ((flags & MSG_ERRQUEUE) != 0) /* Nobody has asked for anything to be told there. */
        return refuse(EAGAIN);
    while (i + 1 < msg->msg_iovlen && msg->msg_iov[i].iov_len == 0)
        i++;
    msg->msg_controllen = 0;
    msg->msg_flags = 0;
    return __wrap_recv(fd, msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len, flags);
}

/* tcp_sendmsg: an error is told once; after our end there is nobody to send to. */
static ssize_t
check_output(struct sim_tcp *t)
{
    if (t->local && t->snd_shut) {
        t->facts->reset |= t->peer == NULL; /* What was to be sent has nowhere to go. */
        return refuse(EPIPE);
    }
    if (t->error != 0)
        return refuse(take_error(t));
    if (t->snd_shut || t->state == SIM_CLOSED || t->state == SIM_LISTEN)
        return refuse(EPIPE);
    if (t->state == SIM_SYN_SENT || sim_tcp_room(t) == 0)
        return refuse(EAGAIN);
    return 0;
}

ssize_t
__wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    size_t room, sent = 0;
    struct sim_tcp *t;
    ssize_t n;

    sim_maybe_yield();
    if ((t = tcp_of(fd)) == NULL)
        return -1;
    if ((n = check_output(t)) == 0) {
        room = cut(sim_tcp_room(t));
        for (size_t i = 0; i < msg->msg_iovlen && sent < room; i++) {
            size_t piece = msg->msg_iov[i].iov_len;

            piece = piece < room - sent ? piece : room - sent;
            if (piece > 0)
                sim_tcp_send(t, msg->msg_iov[i].iov_base, piece);
            sent += piece;
        }
        n = (ssize_t)sent;
    }
    sim_log("send %d %x -> %zd (%d)", fd, flags, n, n < 0 ? errno : 0);
    return sim_done(n);
}

ssize_t
__wrap_send(int fd, const void *buf, size_t len, int flags)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
    const struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    return __wrap_sendmsg(fd, &msg, flags);
}

ssize_t
__wrap_sendfile(int fd, int file, off_t *offset, size_t len)
{
    uint8_t bytes[16384];
    struct sim_tcp *t;
    size_t room;
    ssize_t n;

    sim_maybe_yield();
    if ((t = tcp_of(fd)) == NULL)
        return -1;
    if ((n = check_output(t)) == 0) {
        room = cut(sim_tcp_room(t));
        room = room < sizeof(bytes) ? room : sizeof(bytes);
        n = pread(file, bytes, len < room ? len : room, *offset);
        if (n > 0) {
            sim_tcp_send(t, bytes, (size_t)n);
            *offset += n;
        }
    }
    sim_log("sendfile %d -> %zd (%d)", fd, n, n < 0 ? errno : 0);
    return sim_done(n);
}
