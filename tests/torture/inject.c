/* inject.c: see inject.h. One plan for the whole process; counters are atomic since any thread may
 * make the call that fails. Plans are changed only while no other thread of the test is running.
 */
#include "inject.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

#define CALL_NAME(name, sys) [CALL_##name] = #name,
const char *const call_names[CALL_COUNT] = {CALLS(CALL_NAME)};
#undef CALL_NAME

#define CALL_ERRNO(name, sys) [CALL_##name] = sys,
static const int call_errnos[CALL_COUNT] = {CALLS(CALL_ERRNO)};
#undef CALL_ERRNO

static atomic_int armed = -1, count, fail_at, fail_sys;
static atomic_bool keep_failing;
static atomic_int storm_sys, storm_period, storm_count;
static atomic_uint storm_chunk;
static _Thread_local bool spared;
static atomic_int hooked = -1;
static void (*hook_fn)(void *arg);
static void *hook_arg;

void
inject_arm(enum call call, int nth, bool persistent, int sys)
{
    count = 0;
    fail_at = nth;
    keep_failing = persistent;
    fail_sys = sys != 0 ? sys : call_errnos[call];
    armed = (int)call;
}

int
inject_disarm(void)
{
    armed = -1;
    hooked = -1;
    storm_sys = storm_period = 0;
    storm_chunk = 0;
    return count;
}

void
inject_spare_me(void)
{
    spared = true;
}

void
inject_storm(int sys, int period, unsigned chunk)
{
    storm_count = 0;
    storm_period = period;
    storm_chunk = chunk;
    storm_sys = sys;
}

void
inject_hook(enum call call, void (*hook)(void *arg), void *arg)
{
    hook_fn = hook;
    hook_arg = arg;
    hooked = (int)call;
}

static bool
fails(enum call call)
{
    int expected = (int)call, n;

    if (atomic_compare_exchange_strong(&hooked, &expected, -1))
        hook_fn(hook_arg);
    if (spared || armed != (int)call)
        return false;
    n = atomic_fetch_add(&count, 1) + 1;
    if (n != fail_at && !(keep_failing && n > fail_at))
        return false;
    errno = fail_sys;
    return true;
}

static bool
storms(size_t *len)
{
    unsigned chunk = storm_chunk;

    if (chunk != 0 && *len > chunk)
        *len = chunk;
    if (storm_sys == 0 || atomic_fetch_add(&storm_count, 1) % storm_period == 0)
        return false;
    errno = storm_sys;
    return true;
}

/* WRAP(type, name, (parameters), (arguments), what it returns when it fails) */
#define WRAP(type, name, params, args, failure)                                                    \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        return fails(CALL_##name) ? (failure) : __real_##name args;                                \
    }

/* The Makefile finds the wrapped names by their text:
 * __wrap_malloc __wrap_calloc __wrap_realloc __wrap_socket __wrap_connect __wrap_accept4
 * __wrap_bind __wrap_listen __wrap_epoll_create1 __wrap_epoll_ctl __wrap_eventfd
 * __wrap_timerfd_create __wrap_setsockopt __wrap_getsockopt __wrap_getpeername __wrap_getsockname
 * __wrap_ppoll __wrap_pthread_create
 */
WRAP(void *, malloc, (size_t n), (n), NULL)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), NULL)
WRAP(void *, realloc, (void *p, size_t n), (p, n), NULL)
WRAP(int, socket, (int family, int type, int protocol), (family, type, protocol), -1)
WRAP(int, connect, (int fd, const struct sockaddr *sa, socklen_t len), (fd, sa, len), -1)
WRAP(int, accept4, (int fd, struct sockaddr *sa, socklen_t *len, int flags), (fd, sa, len, flags),
     -1)
WRAP(int, bind, (int fd, const struct sockaddr *sa, socklen_t len), (fd, sa, len), -1)
WRAP(int, listen, (int fd, int backlog), (fd, backlog), -1)
WRAP(int, epoll_create1, (int flags), (flags), -1)
WRAP(int, epoll_ctl, (int fd, int op, int other, struct epoll_event *ev), (fd, op, other, ev), -1)
WRAP(int, eventfd, (unsigned initial, int flags), (initial, flags), -1)
WRAP(int, timerfd_create, (int clock, int flags), (clock, flags), -1)
WRAP(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t len),
     (fd, level, name, value, len), -1)
WRAP(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *len),
     (fd, level, name, value, len), -1)
WRAP(int, getpeername, (int fd, struct sockaddr *sa, socklen_t *len), (fd, sa, len), -1)
WRAP(int, getsockname, (int fd, struct sockaddr *sa, socklen_t *len), (fd, sa, len), -1)
WRAP(int, ppoll,
     (struct pollfd * fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask),
     (fds, n, timeout, mask), -1)
WRAP(int, pthread_create,
     (pthread_t * id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg),
     (id, attr, fn, arg), errno)

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int
__wrap_fcntl(int fd, int command, ...)
{
    va_list ap;
    long arg;

    va_start(ap, command);
    arg = va_arg(ap, long);
    va_end(ap);
    return fails(CALL_fcntl) ? -1 : __real_fcntl(fd, command, arg);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int
__wrap_open(const char *path, int flags, ...)
{
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = va_arg(ap, mode_t);
    va_end(ap);
    return fails(CALL_open) ? -1 : __real_open(path, flags, mode);
}

ssize_t __real_recv(int fd, void *buf, size_t len, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags);
ssize_t
__wrap_recv(int fd, void *buf, size_t len, int flags)
{
    return fails(CALL_recv) || storms(&len) ? -1 : __real_recv(fd, buf, len, flags);
}

ssize_t __real_send(int fd, const void *buf, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags);
ssize_t
__wrap_send(int fd, const void *buf, size_t len, int flags)
{
    return fails(CALL_send) || storms(&len) ? -1 : __real_send(fd, buf, len, flags);
}

/* A short gathered write takes a part of the first piece that is not empty. */
ssize_t __real_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t
__wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    size_t i = 0, len;

    if (fails(CALL_sendmsg))
        return -1;
    while (i + 1 < msg->msg_iovlen && msg->msg_iov[i].iov_len == 0)
        i++;
    len = msg->msg_iov[i].iov_len;
    if (storms(&len))
        return -1;
    if (storm_chunk != 0)
        return __real_send(fd, msg->msg_iov[i].iov_base, len, flags);
    return __real_sendmsg(fd, msg, flags);
}

ssize_t __real_sendfile(int fd, int file, off_t *offset, size_t len);
ssize_t __wrap_sendfile(int fd, int file, off_t *offset, size_t len);
ssize_t
__wrap_sendfile(int fd, int file, off_t *offset, size_t len)
{
    return fails(CALL_sendfile) || storms(&len) ? -1 : __real_sendfile(fd, file, offset, len);
}
