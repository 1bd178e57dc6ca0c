/* attempt.c: socket, options, bind, connect, and whether it really worked.
 *
 * connect(2) is called once per socket; afterwards getpeername(2) is the proof of a connection, and
 * without it SO_ERROR tells failed from pending: a wake-up with SO_ERROR 0 is not yet a
 * connection. A socket that connected to itself (same address and port on both ends, possible when
 * an ephemeral port is dialled) and an EADDRNOTAVAIL for a port that we did not choose are tried
 * again, twice.
 */
#include "attempt.h"

#include "../base/addr.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"
#include "../stream/conn.h"
#include "../stream/sockopt.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_TRIES 3

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

/* Out of the epoll set first: a process forked meanwhile keeps the description open, and with it an
 * event that nobody could take out any more (epoll(7)). */
static void
attempt_close_fd(struct attempt *a)
{
    if (a->fd < 0)
        return;
    if (a->epoll != NULL)
        hs_own_fd_unwatch(a->epoll, a->fd);
    if (a->conn == NULL) {
        (void)close(a->fd);
    } else {
        hs_conn_abandon(a->conn, &a->op, NULL);
        hs_conn_unref(a->conn);
        a->conn = NULL;
    }
    a->epoll = NULL;
    a->fd = -1;
}

static void
end_with(struct attempt *a, int sys)
{
    a->log.sys = sys;
    a->log.ended_ns = hs_now();
    attempt_close_fd(a);
}

static hs_err
attempt_fail(struct attempt *a, int sys)
{
    end_with(a, sys);
    return HS_E_SYSTEM;
}

static int
attempt_open_socket(int family, const struct hs_sockopts *o)
{
    const int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = -1;

    if (o->mptcp == 1 && family != AF_UNIX)
        fd = hs_sys_socket(family, type, IPPROTO_MPTCP);
    /* A kernel without MPTCP gives plain TCP; the audit says so. */
    return fd >= 0 ? fd : hs_sys_socket(family, type, 0);
}

static bool
has_source(const struct hs_connect_options *opts)
{
    return opts->sources[0].len != 0 || opts->sources[1].len != 0;
}

/* NULL: there is none of that family. */
static const struct hs_addr *
source_for(const struct hs_connect_options *opts, int family)
{
    for (size_t i = 0; i < 2; i++)
        if (opts->sources[i].len != 0 && opts->sources[i].sa.sa_family == family)
            return &opts->sources[i];
    return NULL;
}

static hs_err
bind_source(struct attempt *a, const struct hs_connect_options *opts)
{
    const struct hs_addr *source = source_for(opts, a->log.addr.sa.sa_family);
    const int on = 1;

    a->log.phase = HS_ATTEMPT_BIND;
    if (source == NULL)
        return attempt_fail(a, EAFNOSUPPORT);
    /* Without it every bind takes a whole local port, not just one towards this peer. */
    if (hs_addr_port(source) == 0)
        (void)hs_sys_setsockopt(a->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    if (hs_sys_bind(a->fd, &source->sa, source->len) != 0)
        return attempt_fail(a, errno);
    return HS_OK;
}

static bool
connected_to_itself(struct attempt *a, const struct hs_addr *peer)
{
    a->local.len = 0;
    if (a->log.addr.sa.sa_family == AF_UNIX)
        return false;
    a->local.len = sizeof(a->local.storage);
    if (hs_sys_getsockname(a->fd, &a->local.sa, &a->local.len) != 0)
        a->local.len = 0;
    return a->local.len != 0 && hs_addr_equal(&a->local, peer);
}

static hs_err
again_or_fail(struct attempt *a, const struct hs_connect_options *opts, int sys)
{
    const struct hs_addr addr = a->log.addr;
    const struct hs_addr *source = source_for(opts, addr.sa.sa_family);

    if (a->tries >= MAX_TRIES || (source != NULL && hs_addr_port(source) != 0))
        return attempt_fail(a, sys);
    attempt_close_fd(a);
    return hs_attempt_start(a, &addr, opts);
}

hs_err
hs_attempt_settle(struct attempt *a, const struct hs_connect_options *opts)
{
    struct hs_addr peer = {.len = sizeof(peer.storage)};
    int sys = 0;
    socklen_t len = sizeof(sys);

    /* 1. Without a peer it is pending, or has failed: SO_ERROR tells. */
    if (hs_sys_getpeername(a->fd, &peer.sa, &peer.len) != 0) {
        if (errno != ENOTCONN)
            return attempt_fail(a, errno);
        if (hs_sys_getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &sys, &len) != 0)
            sys = errno;
        return sys == 0 ? HS_WANT : attempt_fail(a, sys);
    }
    /* 2. A peer that is ourselves is none. */
    if (connected_to_itself(a, &peer))
        return again_or_fail(a, opts, ECONNREFUSED);
    a->log.phase = HS_ATTEMPT_DONE;
    a->log.ended_ns = hs_now();
    return HS_OK;
}

static hs_err
call_connect(struct attempt *a, const struct hs_connect_options *opts)
{
    a->log.phase = HS_ATTEMPT_CONNECT;
    if (hs_sys_connect(a->fd, &a->log.addr.sa, a->log.addr.len) == 0 || errno == EINPROGRESS ||
        errno == EINTR)
        return hs_attempt_settle(a, opts);
    if (errno == EADDRNOTAVAIL)
        return again_or_fail(a, opts, EADDRNOTAVAIL);
    if (errno == EAGAIN && a->log.addr.sa.sa_family == AF_UNIX) {
        attempt_close_fd(a);
        return HS_WANT;
    }
    return attempt_fail(a, errno);
}

hs_err
hs_attempt_start(struct attempt *a, const struct hs_addr *addr,
                 const struct hs_connect_options *opts)
{
    struct hs_error err = {0};
    int family = addr->sa.sa_family;

    /* 1. A socket. An attempt's time begins with its first one. */
    a->tries++;
    if (a->log.started_ns == 0)
        a->log.started_ns = hs_now();
    a->log.addr = *addr;
    a->log.phase = HS_ATTEMPT_SOCKET;
    if ((a->fd = attempt_open_socket(family, &opts->sockopts)) < 0)
        return attempt_fail(a, errno);
    /* 2. Options, before connect(2): sizes of buffers are part of what the SYN says. */
    hs_sockopts_draw(&opts->sockopts, &a->own);
    if (hs_sockopts_apply(a->fd, family, &a->own, HS_USE_CONNECTION, &err, &a->changed) != HS_OK)
        return attempt_fail(a, err.sys);
    /* 3. Where it comes from, if the caller chose that. */
    if (has_source(opts) && family != AF_UNIX && bind_source(a, opts) != HS_OK)
        return HS_E_SYSTEM;
    return call_connect(a, opts);
}

void
hs_attempt_stop(struct attempt *a)
{
    int sys = 0;
    socklen_t len = sizeof(sys);

    if (a->log.ended_ns != 0)
        return;
    /* While connecting the kernel may have noted a reason, such as ENETUNREACH, that it will not
     * act on; SO_ERROR tells. */
    if (a->fd >= 0)
        (void)hs_sys_getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &sys, &len);
    end_with(a, sys);
}

/* ---- TLS ----------------------------------------------------------------------------------- */

static hs_err
attempt_wrap(struct attempt *a, struct hs_error *err)
{
    return hs_conn_wrap(a->fd, a->log.addr.sa.sa_family, &a->log.addr, &a->local, &a->own,
                        a->changed, err, &a->conn);
}

hs_err
hs_attempt_handshake(struct attempt *a, const struct hs_connect_options *opts, struct hs_error *err)
{
    hs_err rv;

    if (a->conn == NULL) {
        a->log.phase = HS_ATTEMPT_TLS;
        a->log.ended_ns = 0;
        a->op = (struct hs_op)HS_OP_INIT(HS_NEVER, NULL);
        a->op.stepping = true;
        if ((rv = attempt_wrap(a, err)) != HS_OK) {
            end_with(a, ENOMEM);
            return rv;
        }
    }
    rv = hs_conn_start_tls(a->conn, &a->op, opts->tls, opts->server_name, err);
    if (rv == HS_OK) {
        a->log.phase = HS_ATTEMPT_DONE;
        a->log.ended_ns = hs_now();
    } else if (rv < 0) {
        a->log.tls = err->tls;
        end_with(a, err->sys);
    }
    return rv;
}

hs_err
hs_attempt_take(struct attempt *a, struct hs_error *err, struct hs_conn **ret_conn)
{
    int fd = a->fd;
    hs_err rv = HS_OK;

    if (a->epoll != NULL)
        hs_own_fd_unwatch(a->epoll, fd);
    a->epoll = NULL;
    if (a->conn == NULL && (rv = attempt_wrap(a, err)) != HS_OK)
        (void)close(fd);
    a->fd = -1;
    if (rv != HS_OK)
        return rv;
    *ret_conn = a->conn;
    a->conn = NULL;
    return HS_OK;
}
