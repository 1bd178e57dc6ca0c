/* tcp.c: the plain layer, for TCP and unix stream sockets.
 *
 * Owns nothing. Maps errno to what a caller can act on: reset, dead peer, or a system error.
 * Always MSG_DONTWAIT, since O_NONBLOCK belongs to the open file description and somebody who
 * shares it may have changed it; always MSG_NOSIGNAL, never a process-wide signal setting.
 */
#include "layer.h"

#include "../base/err.h"
#include "../base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

/* Less than the 16 pages that sendfile(2) moves at once, wherever in a page they begin. With more
 * it reads the file again, behind what the socket has taken, and asks the socket again: what that
 * says then, and says once, is lost behind the bytes that had gone. And others may wait for what we
 * are told (resets.c): for one read of the file. */
#define MAX_FILE_CHUNK ((size_t)15 * 4096)

hs_err
hs_tcp_meaning(int sys)
{
    switch (sys) {
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED: /* destroyed from outside: ss -K, SOCK_DESTROY */
        return HS_E_RESET;
    case ETIMEDOUT: /* keepalive, TCP_USER_TIMEOUT or retransmissions gave up */
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
        return HS_E_DEAD_PEER;
    default:
        return HS_E_SYSTEM;
    }
}

static hs_err
failed(int sys, short event, const char *op, struct hs_error *err, short *want)
{
    if (sys == EAGAIN || sys == EINTR) {
        *want = event;
        return HS_WANT;
    }
    return hs_err_set(err, hs_tcp_meaning(sys), sys, op, "%s", op);
}

static hs_err
tcp_try_recv(void *state, int fd, uint8_t *buf, size_t len, int flags, struct hs_error *err,
             short *want, size_t *ret_n)
{
    ssize_t n = hs_sys_recv(fd, buf, len, flags | MSG_DONTWAIT);

    (void)state;
    if (n < 0)
        return failed(errno, POLLIN, "recv", err, want);
    *ret_n = (size_t)n;
    return HS_OK;
}

static hs_err
tcp_try_send(void *state, int fd, const struct iovec *iov, size_t n, int flags,
             struct hs_error *err, short *want, size_t *ret_n)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov,
                         .msg_iovlen = n < IOV_MAX ? n : IOV_MAX};
    ssize_t sent;

    (void)state;
    flags |= MSG_DONTWAIT | MSG_NOSIGNAL;
    sent = n == 1 ? hs_sys_send(fd, iov->iov_base, iov->iov_len, flags)
                  : hs_sys_sendmsg(fd, &msg, flags);
    if (sent < 0)
        return failed(errno, POLLOUT, "send", err, want);
    *ret_n = (size_t)sent;
    return HS_OK;
}

hs_err
hs_tcp_try_sendmsg(int fd, const struct msghdr *msg, int flags, struct hs_error *err, short *want,
                   size_t *ret_n)
{
    ssize_t n = hs_sys_sendmsg(fd, msg, flags | MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0)
        return failed(errno, POLLOUT, "sendmsg", err, want);
    *ret_n = (size_t)n;
    return HS_OK;
}

hs_err
hs_tcp_try_recvmsg(int fd, struct msghdr *msg, int flags, struct hs_error *err, short *want,
                   size_t *ret_n)
{
    ssize_t n = hs_sys_recvmsg(fd, msg, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n < 0)
        return failed(errno, POLLIN, "recvmsg", err, want);
    msg->msg_flags &= ~MSG_CMSG_CLOEXEC;
    *ret_n = (size_t)n;
    return HS_OK;
}

/* sendfile(2) takes no flags: what they do elsewhere is done by hand. */
static bool
make_nonblocking(int fd)
{
    int flags = hs_sys_fcntl(fd, F_GETFL, 0);

    return flags >= 0 &&
           ((flags & O_NONBLOCK) != 0 || hs_sys_fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
}

static ssize_t
sendfile_without_signal(int fd, int file, off_t *at, size_t len)
{
    const struct timespec now = {0};
    sigset_t pipe, before, pending;
    ssize_t sent;
    int sys;

    (void)sigemptyset(&pipe);
    (void)sigaddset(&pipe, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &pipe, &before);
    (void)sigpending(&pending);
    sent = hs_sys_sendfile(fd, file, at, len);
    sys = errno;
    if (sent < 0 && sys == EPIPE && sigismember(&pending, SIGPIPE) == 0)
        (void)sigtimedwait(&pipe, NULL, &now); /* Ours; it does not wait. */
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = sys;
    return sent;
}

static hs_err
tcp_try_send_file(void *state, int fd, int file, int64_t *offset, size_t len, struct hs_error *err,
                  short *want, size_t *ret_n)
{
    off_t at = *offset;
    ssize_t sent;

    (void)state;
    if (!make_nonblocking(fd))
        return hs_err_set(err, HS_E_SYSTEM, errno, "sendfile", "fcntl");
    sent = sendfile_without_signal(fd, file, &at, len < MAX_FILE_CHUNK ? len : MAX_FILE_CHUNK);
    if (sent < 0)
        return failed(errno, POLLOUT, "sendfile", err, want);
    *offset = at;
    *ret_n = (size_t)sent;
    return HS_OK;
}

const struct hs_layer hs_tcp_layer = {
    .try_recv = tcp_try_recv,
    .try_send = tcp_try_send,
    .try_send_file = tcp_try_send_file,
};
