/* fault_spec.h: the words of faults: calls, kinds, and the text that puts them together.
 *
 * Knows which call can fail how; does not know what is in force.
 */
#ifndef HS_BASE_FAULT_SPEC_H
#define HS_BASE_FAULT_SPEC_H

#include "hardsock_binding.h"

#include <errno.h>

/* What a rule may ask of a call beside the errno that it has. */
enum {
    HS_CAN_ERRNO = 1,   /* fail with any errno of the table in fault_spec.c */
    HS_CAN_SHORTEN = 2, /* move a part of the bytes */
    HS_CAN_END = 4,     /* receive the end of the stream */
    HS_CAN_SPOIL = 8,   /* receive a changed byte */
    HS_CAN_NAME = 16,   /* what lookups answer */
    HS_CAN_TLS = 32,
};

/* X(name, errno or kind of a plain "fail", what else it can). The numbers of a call count all C
 * functions that it stands for: recv is recv(2) and recvmsg(2). */
#define HS_CALLS_ALL(X)                                                                            \
    X(alloc, ENOMEM, 0)                                                                            \
    X(socket, EMFILE, HS_CAN_ERRNO)                                                                \
    X(connect, ENETUNREACH, HS_CAN_ERRNO)                                                          \
    X(accept, EMFILE, HS_CAN_ERRNO)                                                                \
    X(bind, EADDRINUSE, HS_CAN_ERRNO)                                                              \
    X(listen, EADDRINUSE, HS_CAN_ERRNO)                                                            \
    X(recv, ECONNRESET, HS_CAN_ERRNO | HS_CAN_SHORTEN | HS_CAN_END | HS_CAN_SPOIL)                 \
    X(peek, ECONNRESET, HS_CAN_ERRNO | HS_CAN_SHORTEN)                                             \
    X(send, EPIPE, HS_CAN_ERRNO | HS_CAN_SHORTEN)                                                  \
    X(sendfile, EIO, HS_CAN_ERRNO | HS_CAN_SHORTEN)                                                \
    X(shutdown, ENOTCONN, HS_CAN_ERRNO)                                                            \
    X(setsockopt, ENOBUFS, HS_CAN_ERRNO)                                                           \
    X(getsockopt, ENOBUFS, HS_CAN_ERRNO)                                                           \
    X(getname, ENOBUFS, HS_CAN_ERRNO)                                                              \
    X(ioctl, EINVAL, HS_CAN_ERRNO)                                                                 \
    X(fcntl, EINVAL, HS_CAN_ERRNO)                                                                 \
    X(dup, EMFILE, HS_CAN_ERRNO)                                                                   \
    X(open, EMFILE, HS_CAN_ERRNO)                                                                  \
    X(poll, ENOMEM, HS_CAN_ERRNO)                                                                  \
    X(epoll_create, EMFILE, HS_CAN_ERRNO)                                                          \
    X(epoll_ctl, ENOSPC, HS_CAN_ERRNO)                                                             \
    X(eventfd, EMFILE, HS_CAN_ERRNO)                                                               \
    X(epoll_wait, EINVAL, HS_CAN_ERRNO | HS_CAN_SHORTEN)                                           \
    X(timerfd, EMFILE, HS_CAN_ERRNO)                                                               \
    X(timerfd_settime, EINVAL, HS_CAN_ERRNO)                                                       \
    X(read, EIO, HS_CAN_ERRNO | HS_CAN_SHORTEN | HS_CAN_END)                                       \
    X(write, ENOSPC, HS_CAN_ERRNO | HS_CAN_SHORTEN)                                                \
    X(stat, EACCES, HS_CAN_ERRNO)                                                                  \
    X(readlink, EACCES, HS_CAN_ERRNO)                                                              \
    X(opendir, EMFILE, HS_CAN_ERRNO)                                                               \
    X(readdir, EIO, HS_CAN_ERRNO)                                                                  \
    X(unlink, EACCES, HS_CAN_ERRNO)                                                                \
    X(chmod, EPERM, HS_CAN_ERRNO)                                                                  \
    X(flock, EAGAIN, HS_CAN_ERRNO)                                                                 \
    X(getrandom, EAGAIN, HS_CAN_ERRNO)                                                             \
    X(interface, EMFILE, HS_CAN_ERRNO)                                                             \
    X(thread_key, ENOMEM, HS_CAN_ERRNO)                                                            \
    X(thread, EAGAIN, HS_CAN_ERRNO)                                                                \
    X(lookup, EAGAIN, HS_CAN_ERRNO | HS_CAN_NAME)                                                  \
    X(tls_new, HS_FAULT_INTERNAL, HS_CAN_TLS)                                                      \
    X(handshake, HS_FAULT_ALERT, HS_CAN_TLS)                                                       \
    X(tls_read, HS_FAULT_BAD_RECORD, HS_CAN_TLS)                                                   \
    X(tls_peek, HS_FAULT_BAD_RECORD, HS_CAN_TLS)                                                   \
    X(tls_write, HS_FAULT_INTERNAL, HS_CAN_TLS)                                                    \
    X(tls_shutdown, HS_FAULT_INTERNAL, HS_CAN_TLS)

#define HS_CALL_ENUM(name, fail, can) HS_CALL_##name,
enum hs_call { HS_CALLS_ALL(HS_CALL_ENUM) HS_CALLS };
#undef HS_CALL_ENUM

/* A fault is an errno, or one of these; 0 is none. */
enum hs_fault {
    HS_FAULT_SHORT = 1000, /* never comes out of hs_fault_decide: the length is less */
    HS_FAULT_END,
    HS_FAULT_SPOILT,
    HS_FAULT_HANG,
    HS_FAULT_NO_NAME,
    HS_FAULT_NAME_FAILED,
    HS_FAULT_ALERT,
    HS_FAULT_BAD_RECORD,
    HS_FAULT_INTERNAL,
};

struct hs_call_facts {
    const char *name;
    int fail;
    unsigned can;
};
_Static_assert(HS_CALLS == HS_FAULT_CALLS, "who asks has room for all");
extern const struct hs_call_facts hs_call_facts[HS_CALLS];

#define HS_FAULT_RULES 32
#define HS_FAULT_PATH 108

struct hs_fault_rule {
    enum hs_call call;
    int fault;
    uint64_t first, last; /* numbers of calls, from 1 on */
    uint64_t chance;      /* of 2^64; UINT64_MAX: always */
};

struct hs_fault_plan {
    uint64_t id, seed;
    size_t n;
    struct hs_fault_rule rules[HS_FAULT_RULES];
    uint64_t calls[HS_CALLS];
    char log[HS_FAULT_PATH]; /* a file; empty: none */
    bool has_seed;
};

/* HS_E_INVALID names the part. */
HS_NODISCARD hs_err hs_fault_parse(const char *spec, struct hs_error *err,
                                   struct hs_fault_plan *ret_plan);
/* "send.reset@120": a part of a spec that does it again. */
const char *hs_fault_text(enum hs_call call, int fault, uint64_t number, char *buf, size_t size);

#endif
