/* support.h: what the C tests share: a ledger that every test must leave balanced, threads that can
 * be seen to sleep, sockets that misbehave on purpose, private network namespaces.
 *
 * Nothing here sleeps to let things settle: what has to be waited for is asked for until it is so.
 */
#ifndef TESTS_C_SUPPORT_H
#define TESTS_C_SUPPORT_H

#include "hardsock_binding.h"

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#define MS INT64_C(1000000)
#define SECOND INT64_C(1000000000)
#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

/* An error struct of this thread, zeroed; last_error is the same without zeroing. */
struct hs_error *fresh(void);
struct hs_error *last_error(void);

/* Both codes in words when they differ. */
void assert_err(hs_err want, hs_err got, const char *what, const char *file, int line);
#define ASSERT_ERR(want, got) assert_err((want), (got), #got, __FILE__, __LINE__)
#define ASSERT_OK(got) ASSERT_ERR(HS_OK, got)
/* Runs an op to its end, as a caller without signal handlers does. */
#define DONE(call)                                                                                 \
    ({                                                                                             \
        hs_err rv_;                                                                                \
        while ((rv_ = (call)) == HS_INTR)                                                          \
            continue;                                                                              \
        rv_;                                                                                       \
    })

/* As ck_assert_msg, which writes to a file each time: for what is looked at thousands of times. */
#define BULK_ASSERT(cond, ...)                                                                     \
    do {                                                                                           \
        if (!(cond))                                                                               \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)

/* How much slower this run is said to be than a plain one: 10 under valgrind. */
int slowness(void);
bool under_valgrind(void);
struct hs_op op_in(int64_t span_ns);          /* a deadline from now; later in a slow run */
struct hs_op op_with(struct hs_token *token); /* 10 s and a token */
struct hs_op op_step(int64_t span_ns);        /* stepping */
/* What an event loop does between two steps: waits for what the op wants, 10 s at most. */
void wait_for_want(const struct hs_op *op);

/* Every test runs between these two: nothing of hardsock is alive, no descriptor more is open. */
void ledger_open(void);
void ledger_close(void);
long count_fds(void);
/* One suite, one case with the ledger around each test. */
TCase *case_new(const char *name);
int run_case(TCase *tc);
int run_cases(TCase *const *tcs, size_t n);

struct thread {
    pthread_t id;
    _Atomic pid_t tid;
    void *(*fn)(void *arg);
    void *arg;
};
void thread_start(struct thread *t, void *(*fn)(void *arg), void *arg);
/* Returns once the thread sleeps in ppoll(2), or has ended. */
void thread_wait_asleep(struct thread *t);
void *thread_join(struct thread *t);

/* Asks until cond is so; fails the test after 10 s. */
#define EVENTUALLY(cond)                                                                           \
    do {                                                                                           \
        int64_t until_ = hs_now() + 10 * SECOND;                                                   \
        while (!(cond)) {                                                                          \
            ck_assert_msg(hs_now() < until_, "never became true: %s", #cond);                      \
            breathe();                                                                             \
        }                                                                                          \
    } while (0)
void breathe(void);

/* The descriptors of an anonymous kind ("eventpoll", "eventfd", "timerfd"); returns how many. */
int fds_of_kind(const char *kind, int *fds, int most);
/* Closes all descriptors of an anonymous kind, as a program may that
 * closes what it does not know. returns: how many. */
int close_all_of_kind(const char *kind);

struct hs_endpoint endpoint_of(const struct hs_addr *addr);
struct hs_addr addr_of(const char *text);
/* A listening TCP socket on 127.0.0.1 and its address. */
int tcp_listener(int backlog, struct hs_addr *ret_addr);
/* The same, whose queue is full: connecting to it gets no answer. fds[0..3] are to be closed. */
#define BLACK_HOLE_FDS 4
void black_hole(int fds[BLACK_HOLE_FDS], struct hs_addr *ret_addr);
void close_all(const int *fds, size_t n);
/* An address that refuses, and goes on refusing until the descriptor that is returned is closed:
 * its port is kept from everybody else on this machine, who could get it by chance. */
int refused_addr(struct hs_addr *ret_addr);
/* Listens there, on an address that is so kept: a server that comes back. */
int listener_at(const struct hs_addr *addr, int backlog);
void tcp_pair(int fds[2]);

/* A connection and the plain descriptor of its peer. */
struct pair {
    struct hs_conn *c;
    int peer;
};
struct pair pair_unix(void);
struct pair pair_tcp(void);
struct pair pair_small(void); /* unix, small buffers: fills soon */
void pair_free(struct pair *p);
void put(int fd, const void *bytes, size_t n);
/* Exactly n bytes of a blocking descriptor. */
void get(int fd, void *bytes, size_t n);
/* Sends until the kernel takes no more; returns how many it took. */
size_t fill(struct hs_conn *c);
/* The byte that stands at a place of an endless known stream. */
uint8_t pattern(uint64_t stream, size_t at);

/* What this machine lacks for a test: a failure when CI=true. */
void skipped(const char *why, int sys);
/* A private network and mount namespace with lo up. hosts and resolv replace the two files in /etc
 * when they are not NULL. False, having said why, when this process may not have one. */
bool enter_namespace(const char *hosts, const char *resolv);
void write_file(const char *path, const char *text);

/* Runs fn in a forked child; the child's exit status, or -1 when it was killed or hung for 10 s. */
int in_child(int (*fn)(void *arg), void *arg);

/* As many descriptors as there are, and not one more. Valgrind keeps the limit to itself, lets the
 * kernel make one that is above it, and closes that: there accept4 takes a client, and loses it. */
void forbid_more_descriptors(void);
void allow_descriptors(void);

#endif
