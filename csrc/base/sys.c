/* sys.c: the calls that move bytes or events, while faults are on: they may fail, end, or move
 * fewer.
 *
 * Everything else is in sys.h.
 */
#include "sys.h"

/* A short vector is its first piece that is not empty, or a part of that. */
static struct iovec
first_piece(const struct iovec *iov, size_t n, size_t len)
{
    size_t i = 0;

    while (i + 1 < n && iov[i].iov_len == 0)
        i++;
    return (struct iovec){.iov_base = iov[i].iov_base,
                          .iov_len = len < iov[i].iov_len ? len : iov[i].iov_len};
}

static size_t
length_of(const struct iovec *iov, size_t n)
{
    size_t len = 0;

    for (size_t i = 0; i < n; i++)
        len += iov[i].iov_len;
    return len;
}

/* Whether the call is over before it is made, and what it returns then. */
static bool
is_over(int fault, ssize_t *ret_n)
{
    if (fault == 0 || fault == HS_FAULT_SPOILT)
        return false;
    if (fault == HS_FAULT_END) {
        *ret_n = 0;
        return true;
    }
    errno = fault;
    *ret_n = -1;
    return true;
}

static void
spoil(int fault, uint8_t *bytes, ssize_t n)
{
    if (fault == HS_FAULT_SPOILT && n > 0)
        bytes[n / 2] ^= 0x10;
}

ssize_t
hs_fault_recv(int fd, void *buf, size_t len, int flags)
{
    int fault = hs_fault_decide((flags & MSG_PEEK) != 0 ? HS_CALL_peek : HS_CALL_recv, &len);
    ssize_t n;

    if (is_over(fault, &n))
        return n;
    n = recv(fd, buf, len, flags);
    if ((flags & MSG_TRUNC) == 0) /* Else nothing is written to buf. */
        spoil(fault, buf, n);
    return n;
}

ssize_t
hs_fault_recvmsg(int fd, struct msghdr *msg, int flags)
{
    size_t whole = length_of(msg->msg_iov, (size_t)msg->msg_iovlen), len = whole;
    int fault = hs_fault_decide((flags & MSG_PEEK) != 0 ? HS_CALL_peek : HS_CALL_recv, &len);
    struct msghdr one = *msg;
    struct iovec piece;
    ssize_t n;

    if (is_over(fault, &n))
        return n;
    if (whole == 0 || (len == whole && fault == 0)) /* Without room there is no first piece. */
        return recvmsg(fd, msg, flags);
    piece = first_piece(msg->msg_iov, (size_t)msg->msg_iovlen, len);
    one.msg_iov = &piece;
    one.msg_iovlen = 1;
    n = recvmsg(fd, &one, flags);
    spoil(fault, piece.iov_base, n);
    one.msg_iov = msg->msg_iov;
    one.msg_iovlen = msg->msg_iovlen;
    *msg = one;
    return n;
}

ssize_t
hs_fault_send(int fd, const void *buf, size_t len, int flags)
{
    ssize_t n;

    if (is_over(hs_fault_decide(HS_CALL_send, &len), &n))
        return n;
    return send(fd, buf, len, flags);
}

ssize_t
hs_fault_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    size_t whole = length_of(msg->msg_iov, (size_t)msg->msg_iovlen), len = whole;
    struct msghdr one = *msg;
    struct iovec piece;
    ssize_t n;

    if (is_over(hs_fault_decide(HS_CALL_send, &len), &n))
        return n;
    if (len == whole)
        return sendmsg(fd, msg, flags);
    piece = first_piece(msg->msg_iov, (size_t)msg->msg_iovlen, len);
    one.msg_iov = &piece;
    one.msg_iovlen = 1;
    return sendmsg(fd, &one, flags);
}

ssize_t
hs_fault_sendfile(int fd, int file, off_t *offset, size_t len)
{
    ssize_t n;

    if (is_over(hs_fault_decide(HS_CALL_sendfile, &len), &n))
        return n;
    return sendfile(fd, file, offset, len);
}

ssize_t
hs_fault_read(int fd, void *buf, size_t len)
{
    ssize_t n;

    if (is_over(hs_fault_decide(HS_CALL_read, &len), &n))
        return n;
    return read(fd, buf, len);
}

ssize_t
hs_fault_pread(int fd, void *buf, size_t len, off_t offset)
{
    ssize_t n;

    if (is_over(hs_fault_decide(HS_CALL_read, &len), &n))
        return n;
    return pread(fd, buf, len, offset);
}

ssize_t
hs_fault_writev(int fd, const struct iovec *iov, int n)
{
    size_t whole = length_of(iov, (size_t)n), len = whole;
    struct iovec piece;
    ssize_t moved;

    if (is_over(hs_fault_decide(HS_CALL_write, &len), &moved))
        return moved;
    if (len == whole)
        return writev(fd, iov, n);
    piece = first_piece(iov, (size_t)n, len);
    return writev(fd, &piece, 1);
}

int
hs_fault_epoll_wait(int fd, struct epoll_event *events, int room, int timeout_ms)
{
    size_t len = (size_t)room;
    ssize_t n;

    if (is_over(hs_fault_decide(HS_CALL_epoll_wait, &len), &n))
        return (int)n;
    return epoll_wait(fd, events, (int)len, timeout_ms);
}
