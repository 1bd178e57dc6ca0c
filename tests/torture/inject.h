/* inject.h: making calls of the C library fail, or answer short, at a chosen moment.
 *
 * The linker sends every call named here through a wrapper (see the Makefile), in the core and in
 * the tests alike. While nothing is armed the wrappers do nothing but count.
 */
#ifndef TESTS_TORTURE_INJECT_H
#define TESTS_TORTURE_INJECT_H

#include <stdbool.h>
#include <stddef.h>

/* X(name, errno that the call fails with) */
#define CALLS(X)                                                                                   \
    X(malloc, ENOMEM)                                                                              \
    X(calloc, ENOMEM)                                                                              \
    X(realloc, ENOMEM)                                                                             \
    X(socket, EMFILE)                                                                              \
    X(connect, ENETUNREACH)                                                                        \
    X(accept4, EMFILE)                                                                             \
    X(bind, EADDRINUSE)                                                                            \
    X(listen, EADDRINUSE)                                                                          \
    X(epoll_create1, EMFILE)                                                                       \
    X(epoll_ctl, ENOSPC)                                                                           \
    X(eventfd, EMFILE)                                                                             \
    X(timerfd_create, EMFILE)                                                                      \
    X(setsockopt, ENOBUFS)                                                                         \
    X(getsockopt, ENOBUFS)                                                                         \
    X(getpeername, ENOBUFS)                                                                        \
    X(getsockname, ENOBUFS)                                                                        \
    X(fcntl, EINVAL)                                                                               \
    X(open, EMFILE)                                                                                \
    X(ppoll, ENOMEM)                                                                               \
    X(recv, ECONNRESET)                                                                            \
    X(send, EPIPE)                                                                                 \
    X(sendmsg, EPIPE)                                                                              \
    X(sendfile, EIO)                                                                               \
    X(pthread_create, EAGAIN)

#define CALL_ENUM(name, sys) CALL_##name,
enum call { CALLS(CALL_ENUM) CALL_COUNT };
#undef CALL_ENUM

extern const char *const call_names[CALL_COUNT];

/* Lets the nth call (1 is the next) of this kind fail, and with persistent all after it. sys 0: the
 * kind's own errno. */
void inject_arm(enum call call, int nth, bool persistent, int sys);
/* Ends it; returns how many calls of the kind were made meanwhile. */
int inject_disarm(void);
/* Nothing fails in the calling thread: libcheck dies when its own malloc does. */
void inject_spare_me(void);
/* Storms on the data path, until inject_disarm: of period calls one goes through, the others fail
 * with sys; and no call moves more than chunk bytes (0: as many as asked for). */
void inject_storm(int sys, int period, unsigned chunk);

/* Not counted, and never failing. */
void *__real_malloc(size_t n);
void *__real_realloc(void *p, size_t n);

/* A function that runs inside the next call of the kind, before it, in the thread that makes it. */
void inject_hook(enum call call, void (*hook)(void *arg), void *arg);

#endif
