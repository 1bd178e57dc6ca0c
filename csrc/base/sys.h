/* sys.h: the one seam to the kernel and the C library: every call of the core that can fail.
 *
 * Each function is the call that it is named after. While faults are on (fault.h) it may fail, or
 * move a part of the bytes, instead; while they are off that costs one branch, which is never
 * taken. check_calls.py keeps the plain names out of the rest of the core. epoll_wait(2) is not
 * here: without time to wait, or with signals blocked, it cannot fail.
 */
#ifndef HS_BASE_SYS_H
#define HS_BASE_SYS_H

#include "fault.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

static inline bool
hs_sys_fails(enum hs_call call)
{
    return hs_faults_are_on() && hs_fault_fails(call);
}

/* HS_SEAM(type, name, call, (parameters), (arguments), what it returns when it fails) */
#define HS_SEAM(type, name, call, params, args, failure)                                           \
    static inline type hs_sys_##name params                                                        \
    {                                                                                              \
        return hs_sys_fails(HS_CALL_##call) ? (failure) : name args;                               \
    }

HS_SEAM(void *, malloc, alloc, (size_t n), (n), NULL)
HS_SEAM(void *, calloc, alloc, (size_t n, size_t size), (n, size), NULL)
HS_SEAM(void *, realloc, alloc, (void *p, size_t n), (p, n), NULL)
HS_SEAM(char *, strdup, alloc, (const char *s), (s), NULL)
HS_SEAM(char *, strndup, alloc, (const char *s, size_t n), (s, n), NULL)
HS_SEAM(int, socket, socket, (int family, int type, int protocol), (family, type, protocol), -1)
HS_SEAM(int, connect, connect, (int fd, const struct sockaddr *sa, socklen_t len), (fd, sa, len),
        -1)
HS_SEAM(int, accept4, accept, (int fd, struct sockaddr *sa, socklen_t *len, int flags),
        (fd, sa, len, flags), -1)
HS_SEAM(int, bind, bind, (int fd, const struct sockaddr *sa, socklen_t len), (fd, sa, len), -1)
HS_SEAM(int, listen, listen, (int fd, int backlog), (fd, backlog), -1)
HS_SEAM(int, shutdown, shutdown, (int fd, int how), (fd, how), -1)
HS_SEAM(int, setsockopt, setsockopt,
        (int fd, int level, int name, const void *value, socklen_t len),
        (fd, level, name, value, len), -1)
HS_SEAM(int, getsockopt, getsockopt, (int fd, int level, int name, void *value, socklen_t *len),
        (fd, level, name, value, len), -1)
HS_SEAM(int, getpeername, getname, (int fd, struct sockaddr *sa, socklen_t *len), (fd, sa, len), -1)
HS_SEAM(int, getsockname, getname, (int fd, struct sockaddr *sa, socklen_t *len), (fd, sa, len), -1)
HS_SEAM(int, ioctl, ioctl, (int fd, unsigned long request, int *value), (fd, request, value), -1)
HS_SEAM(int, fcntl, fcntl, (int fd, int command, int arg), (fd, command, arg), -1)
HS_SEAM(int, dup3, dup, (int from, int to, int flags), (from, to, flags), -1)
HS_SEAM(int, open, open, (const char *path, int flags, mode_t mode), (path, flags, mode), -1)
HS_SEAM(int, ppoll, poll,
        (struct pollfd * fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask),
        (fds, n, timeout, mask), -1)
HS_SEAM(int, epoll_create1, epoll_create, (int flags), (flags), -1)
HS_SEAM(int, epoll_ctl, epoll_ctl, (int fd, int op, int other, struct epoll_event *ev),
        (fd, op, other, ev), -1)
HS_SEAM(int, eventfd, eventfd, (unsigned initial, int flags), (initial, flags), -1)
HS_SEAM(int, timerfd_create, timerfd, (int clock, int flags), (clock, flags), -1)
/* It returns the errno. */
HS_SEAM(int, pthread_create, thread,
        (pthread_t * id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg),
        (id, attr, fn, arg), errno)

#undef HS_SEAM

ssize_t hs_fault_recv(int fd, void *buf, size_t len, int flags);
ssize_t hs_fault_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t hs_fault_send(int fd, const void *buf, size_t len, int flags);
ssize_t hs_fault_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t hs_fault_sendfile(int fd, int file, off_t *offset, size_t len);

static inline ssize_t
hs_sys_recv(int fd, void *buf, size_t len, int flags)
{
    return hs_faults_are_on() ? hs_fault_recv(fd, buf, len, flags) : recv(fd, buf, len, flags);
}

static inline ssize_t
hs_sys_recvmsg(int fd, struct msghdr *msg, int flags)
{
    return hs_faults_are_on() ? hs_fault_recvmsg(fd, msg, flags) : recvmsg(fd, msg, flags);
}

static inline ssize_t
hs_sys_send(int fd, const void *buf, size_t len, int flags)
{
    return hs_faults_are_on() ? hs_fault_send(fd, buf, len, flags) : send(fd, buf, len, flags);
}

static inline ssize_t
hs_sys_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return hs_faults_are_on() ? hs_fault_sendmsg(fd, msg, flags) : sendmsg(fd, msg, flags);
}

static inline ssize_t
hs_sys_sendfile(int fd, int file, off_t *offset, size_t len)
{
    return hs_faults_are_on() ? hs_fault_sendfile(fd, file, offset, len)
                              : sendfile(fd, file, offset, len);
}

#endif
