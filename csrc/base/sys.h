/* sys.h: the one seam to the kernel and the C library: every call of the core that can fail.
 *
 * Each function is the call that it is named after. While faults are on (fault.h) it may fail, or
 * move a part of the bytes, instead; while they are off that costs one branch, which is never
 * taken. check_calls.py keeps the plain names out of the rest of the core, and has the list of what
 * is not here because it cannot fail, with the reasons.
 */
#ifndef HS_BASE_SYS_H
#define HS_BASE_SYS_H

#include "fault.h"

#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
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
HS_SEAM(int, timerfd_settime, timerfd_settime,
        (int fd, int flags, const struct itimerspec *when, struct itimerspec *was),
        (fd, flags, when, was), -1)
HS_SEAM(int, poll, poll, (struct pollfd * fds, nfds_t n, int timeout_ms), (fds, n, timeout_ms), -1)
HS_SEAM(int, stat, stat, (const char *path, struct stat *st), (path, st), -1)
HS_SEAM(int, lstat, stat, (const char *path, struct stat *st), (path, st), -1)
HS_SEAM(int, fstat, stat, (int fd, struct stat *st), (fd, st), -1)
HS_SEAM(int, faccessat, stat, (int folder, const char *name, int mode, int flags),
        (folder, name, mode, flags), -1)
HS_SEAM(ssize_t, readlink, readlink, (const char *path, char *buf, size_t size), (path, buf, size),
        -1)
HS_SEAM(DIR *, opendir, opendir, (const char *path), (path), NULL)
/* cppcheck-suppress readdirCalled; each stream has one thread */
HS_SEAM(struct dirent *, readdir, readdir, (DIR * dir), (dir), NULL)
HS_SEAM(int, unlink, unlink, (const char *path), (path), -1)
HS_SEAM(int, chmod, chmod, (const char *path, mode_t mode), (path, mode), -1)
HS_SEAM(int, flock, flock, (int fd, int what), (fd, what), -1)
HS_SEAM(ssize_t, getrandom, getrandom, (void *buf, size_t len, unsigned flags), (buf, len, flags),
        -1)
/* Both open a socket to ask. */
HS_SEAM(unsigned, if_nametoindex, interface, (const char *name), (name), 0)
HS_SEAM(char *, if_indextoname, interface, (unsigned index, char *name), (index, name), NULL)
/* These return the errno. */
HS_SEAM(int, pthread_create, thread,
        (pthread_t * id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg),
        (id, attr, fn, arg), errno)
HS_SEAM(int, pthread_key_create, thread_key, (pthread_key_t * key, void (*end)(void *)), (key, end),
        errno)
HS_SEAM(int, pthread_setspecific, thread_key, (pthread_key_t key, const void *value), (key, value),
        errno)

#undef HS_SEAM

ssize_t hs_fault_recv(int fd, void *buf, size_t len, int flags);
ssize_t hs_fault_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t hs_fault_send(int fd, const void *buf, size_t len, int flags);
ssize_t hs_fault_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t hs_fault_sendfile(int fd, int file, off_t *offset, size_t len);
ssize_t hs_fault_read(int fd, void *buf, size_t len);
ssize_t hs_fault_pread(int fd, void *buf, size_t len, off_t offset);
ssize_t hs_fault_writev(int fd, const struct iovec *iov, int n);
int hs_fault_epoll_wait(int fd, struct epoll_event *events, int room, int timeout_ms);

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

static inline ssize_t
hs_sys_read(int fd, void *buf, size_t len)
{
    return hs_faults_are_on() ? hs_fault_read(fd, buf, len) : read(fd, buf, len);
}

static inline ssize_t
hs_sys_pread(int fd, void *buf, size_t len, off_t offset)
{
    return hs_faults_are_on() ? hs_fault_pread(fd, buf, len, offset) : pread(fd, buf, len, offset);
}

static inline ssize_t
hs_sys_writev(int fd, const struct iovec *iov, int n)
{
    return hs_faults_are_on() ? hs_fault_writev(fd, iov, n) : writev(fd, iov, n);
}

static inline int
hs_sys_epoll_wait(int fd, struct epoll_event *events, int room, int timeout_ms)
{
    return hs_faults_are_on() ? hs_fault_epoll_wait(fd, events, room, timeout_ms)
                              : epoll_wait(fd, events, room, timeout_ms);
}

#endif
