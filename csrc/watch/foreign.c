/* foreign.c: TCP connections of other processes, from the kernel's tables, and their end.
 *
 * sock_diag(7) over NETLINK_SOCK_DIAG, in the caller's network namespace. How long one has been
 * idle comes from its tcp_info: since data was last sent, or received. Ending one asks the kernel
 * for exactly that socket by its cookie, which is never used again, looks at the answer, and has it
 * destroyed (SOCK_DESTROY) by the next call. There is no call that compares and destroys at once,
 * so a byte of the few microseconds between can be lost. The owner sees ECONNABORTED, the peer a
 * reset. It needs CAP_NET_ADMIN, and a kernel with CONFIG_INET_DIAG_DESTROY.
 */
#include "hardsock_binding.h"

#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ESTABLISHED_AND_CLOSE_WAIT ((1U << 1) | (1U << 8))

struct request {
    struct nlmsghdr header;
    struct inet_diag_req_v2 body;
};

struct collecting {
    struct hs_foreign *rows;
    size_t n, room;
    bool over, failed;
    int sys;
};

static int
diag_open(struct hs_error *err)
{
    int fd = hs_sys_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

    if (fd < 0)
        (void)hs_err_set(err, HS_E_SYSTEM, errno, NULL, "sock_diag");
    return fd;
}

static void
read_addr(int family, const __be32 *words, __be16 port, uint32_t scope, struct hs_addr *ret_addr)
{
    struct hs_addr addr = {0};

    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)(void *)&addr.storage;

        addr.len = sizeof(*in);
        in->sin_family = AF_INET;
        in->sin_port = port;
        memcpy(&in->sin_addr, words, sizeof(in->sin_addr));
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)&addr.storage;

        addr.len = sizeof(*in6);
        in6->sin6_family = AF_INET6;
        in6->sin6_port = port;
        in6->sin6_scope_id = scope;
        memcpy(&in6->sin6_addr, words, sizeof(in6->sin6_addr));
    }
    *ret_addr = addr;
}

/* What follows the message: its tcp_info, of which older kernels have less. */
static void
read_info(const char *at, size_t len, struct hs_foreign *row)
{
    while (len >= sizeof(struct rtattr)) {
        struct rtattr attr;
        struct tcp_info info = {0};
        size_t room;

        memcpy(&attr, at, sizeof(attr));
        if (attr.rta_len < sizeof(attr) || attr.rta_len > len)
            return;
        room = attr.rta_len - sizeof(attr);
        if (attr.rta_type == INET_DIAG_INFO &&
            room >= offsetof(struct tcp_info, tcpi_last_ack_recv)) {
            memcpy(&info, at + RTA_LENGTH(0), room < sizeof(info) ? room : sizeof(info));
            row->idle_ns = HS_NS_PER_MS * (info.tcpi_last_data_sent < info.tcpi_last_data_recv
                                               ? info.tcpi_last_data_sent
                                               : info.tcpi_last_data_recv);
            row->is_owed =
                info.tcpi_data_segs_in > 0 && info.tcpi_last_data_recv < info.tcpi_last_data_sent;
        }
        if (RTA_ALIGN(attr.rta_len) >= len)
            return;
        at += RTA_ALIGN(attr.rta_len);
        len -= RTA_ALIGN(attr.rta_len);
    }
}

static void
read_row(const char *at, size_t len, struct hs_foreign *ret_row)
{
    struct inet_diag_msg msg;
    struct hs_foreign row = {.idle_ns = -1};

    memcpy(&msg, at, sizeof(msg));
    row.cookie = (uint64_t)msg.id.idiag_cookie[1] << 32 | msg.id.idiag_cookie[0];
    row.inode = msg.idiag_inode;
    row.state = msg.idiag_state;
    row.unread = msg.idiag_rqueue;
    row.unsent = msg.idiag_wqueue;
    read_addr(msg.idiag_family, msg.id.idiag_src, msg.id.idiag_sport, msg.id.idiag_if, &row.local);
    read_addr(msg.idiag_family, msg.id.idiag_dst, msg.id.idiag_dport, msg.id.idiag_if, &row.peer);
    read_info(at + NLMSG_ALIGN(sizeof(msg)), len - NLMSG_ALIGN(sizeof(msg)), &row);
    *ret_row = row;
}

static void
foreign_keep(struct collecting *c, const struct hs_foreign *row)
{
    if (c->n == c->room) {
        size_t room = c->room == 0 ? 64 : 2 * c->room;
        struct hs_foreign *rows = hs_sys_realloc(c->rows, room * sizeof(*rows));

        if (rows == NULL) {
            c->failed = true;
            return;
        }
        c->rows = rows;
        c->room = room;
    }
    c->rows[c->n++] = *row;
}

/* A part of the answer. */
static void
take_part(struct collecting *c, const char *buf, size_t len)
{
    for (size_t at = 0; at + sizeof(struct nlmsghdr) <= len;) {
        struct nlmsghdr header;
        struct nlmsgerr error = {0};

        memcpy(&header, buf + at, sizeof(header));
        if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > len - at)
            break;
        if (header.nlmsg_type == NLMSG_ERROR) {
            if (header.nlmsg_len >= NLMSG_LENGTH(sizeof(error)))
                memcpy(&error, buf + at + NLMSG_HDRLEN, sizeof(error));
            c->sys = -error.error;
            c->over = true;
        } else if (header.nlmsg_type == NLMSG_DONE) {
            c->over = true;
        } else if (header.nlmsg_len >= NLMSG_LENGTH(sizeof(struct inet_diag_msg))) {
            struct hs_foreign row;

            read_row(buf + at + NLMSG_HDRLEN, header.nlmsg_len - NLMSG_HDRLEN, &row);
            foreign_keep(c, &row);
        }
        at += NLMSG_ALIGN(header.nlmsg_len);
    }
}

static int
foreign_ask(int fd, const struct request *request, struct collecting *c)
{
    char buf[32768];
    bool dump = (request->header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    ssize_t n;

    c->over = false;
    c->sys = 0;
    if (hs_sys_send(fd, request, sizeof(*request), 0) < 0)
        return errno;
    do {
        if ((n = hs_sys_recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
            take_part(c, buf, (size_t)n);
        else if (n == 0 || errno != EINTR)
            return n == 0 ? EPROTO : errno; /* No part is empty: it would never be over. */
    } while (!c->over && (dump || n < 0));
    return c->failed ? ENOMEM : c->sys;
}

hs_err
hs_foreign_list(struct hs_error *err, struct hs_foreign **ret_rows, size_t *ret_n)
{
    static const uint8_t families[] = {AF_INET, AF_INET6};
    struct collecting c = {0};
    int fd = diag_open(err), sys = 0;

    if (fd < 0)
        return HS_E_SYSTEM;
    for (size_t i = 0; i < 2 && sys == 0; i++) {
        struct request request = {
            .header = {.nlmsg_len = sizeof(request),
                       .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                       .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
            .body = {.sdiag_family = families[i],
                     .sdiag_protocol = IPPROTO_TCP,
                     .idiag_ext = 1U << (INET_DIAG_INFO - 1),
                     .idiag_states = ESTABLISHED_AND_CLOSE_WAIT},
        };

        sys = foreign_ask(fd, &request, &c);
    }
    (void)close(fd);
    if (sys != 0) {
        free(c.rows);
        if (sys == ENOMEM)
            return hs_err_setx(err, HS_E_NOMEM, "sock_diag", "no memory for the connections");
        return hs_err_set(err, HS_E_SYSTEM, sys, NULL, "sock_diag");
    }
    *ret_rows = c.rows;
    *ret_n = c.n;
    return HS_OK;
}

/* Exactly this socket. */
static struct request
about(const struct hs_foreign *row, uint16_t type, uint16_t flags)
{
    struct request r = {
        .header = {.nlmsg_len = sizeof(r),
                   .nlmsg_type = type,
                   .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags)},
        .body = {.sdiag_protocol = IPPROTO_TCP,
                 .idiag_ext = 1U << (INET_DIAG_INFO - 1),
                 .idiag_states = ESTABLISHED_AND_CLOSE_WAIT},
    };
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&row->local.storage;
    const struct sockaddr_in *out = (const struct sockaddr_in *)(const void *)&row->peer.storage;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)in;
    const struct sockaddr_in6 *out6 = (const struct sockaddr_in6 *)(const void *)out;

    r.body.sdiag_family = (uint8_t)row->local.sa.sa_family;
    r.body.id.idiag_sport = in->sin_port; /* Both kinds have it in the same place. */
    r.body.id.idiag_dport = out->sin_port;
    if (row->local.sa.sa_family == AF_INET) {
        memcpy(r.body.id.idiag_src, &in->sin_addr, sizeof(in->sin_addr));
        memcpy(r.body.id.idiag_dst, &out->sin_addr, sizeof(out->sin_addr));
    } else {
        memcpy(r.body.id.idiag_src, &in6->sin6_addr, sizeof(in6->sin6_addr));
        memcpy(r.body.id.idiag_dst, &out6->sin6_addr, sizeof(out6->sin6_addr));
        r.body.id.idiag_if = in6->sin6_scope_id;
    }
    r.body.id.idiag_cookie[0] = (uint32_t)row->cookie;
    r.body.id.idiag_cookie[1] = (uint32_t)(row->cookie >> 32);
    return r;
}

enum hs_retire
hs_foreign_judge(const struct hs_foreign *row, int64_t idle_ns)
{
    if (row->unread > 0 || row->unsent > 0)
        return HS_RETIRE_BYTES;
    if (row->idle_ns < 0)
        return HS_RETIRE_UNKNOWN;
    if (row->idle_ns < idle_ns)
        return HS_RETIRE_FRESH;
    return row->is_owed ? HS_RETIRE_OWED : HS_RETIRE_IDLE;
}

hs_err
hs_foreign_retire(const struct hs_foreign *row, int64_t idle_ns, struct hs_error *err,
                  enum hs_retire *ret_how, int64_t *ret_idle_ns)
{
    struct request look = about(row, SOCK_DIAG_BY_FAMILY, 0);
    struct request destroy = about(row, SOCK_DESTROY, NLM_F_ACK);
    struct collecting c = {0};
    enum hs_retire how = HS_RETIRE_GONE;
    int64_t idle = 0;
    int fd = diag_open(err), sys;

    if (fd < 0)
        return HS_E_SYSTEM;
    sys = foreign_ask(fd, &look, &c);
    if (sys == 0 && c.n > 0) {
        idle = c.rows[0].idle_ns;
        if ((how = hs_foreign_judge(&c.rows[0], idle_ns)) == HS_RETIRE_IDLE &&
            (sys = foreign_ask(fd, &destroy, &c)) == 0)
            how = HS_RETIRE_CLOSED;
    }
    (void)close(fd);
    free(c.rows);
    if (sys == ENOENT || sys == ESTALE) {
        sys = 0;
        how = HS_RETIRE_GONE;
    }
    if (sys != 0)
        return hs_err_set(err, HS_E_SYSTEM, sys, NULL, "SOCK_DESTROY");
    *ret_how = how;
    *ret_idle_ns = idle;
    return HS_OK;
}
