/* sim.h: a machine for the C core whose clock, kernel and network are made of numbers.
 *
 * The linker puts the functions here in the place of the C library's (--wrap), for everything that
 * the core asks of the kernel. So the core runs as it is, and what happens to it is decided by one
 * generator: how long a packet takes, whether it is lost, which of several threads is next.
 *
 * Threads are real ones, of which exactly one runs at a time; it hands over where it waits, and at
 * other calls by chance. No work takes time. When nobody can go on, the clock is set to the next
 * moment at which something happens, so a call with a deadline ends at its deadline to the
 * nanosecond, or breaks its promise. In some worlds threads stall as well, for a time: then all
 * that they could have held up are excused until they go on.
 *
 * sched.c has the threads, the clock and the log; fds.c the descriptors, epoll and poll; link.c the
 * network, net.c its TCP, local.c unix sockets; sockets.c the calls on sockets; world.h what is
 * done with the core, and what it promised; simulate.c runs seeds.
 */
#ifndef TESTS_SIMULATION_SIM_H
#define TESTS_SIMULATION_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define SIM_NEVER INT64_MAX
#define SIM_S INT64_C(1000000000)
#define SIM_MS INT64_C(1000000)
#define SIM_LENGTH(a) (sizeof(a) / sizeof((a)[0]))
#define SIM_PRINTF(fmt_index, args_index) __attribute__((format(printf, fmt_index, args_index)))

/* ---- The generator, the clock, the log (sched.c) ------------------------------------------- */

/* What a seed decides once. Chances are of a thousand. */
struct sim_settings {
    unsigned preempt;              /* that a call which need not wait hands over */
    unsigned stalled;              /* that it does not go on for a while, though it could */
    bool stalls;                   /* or did so before it was calm */
    unsigned interrupted;          /* that a wait ends by a signal */
    unsigned cut;                  /* that a call moves fewer bytes than it could */
    unsigned loss;                 /* that a packet is lost */
    int64_t latency_ns, jitter_ns; /* of a packet */
    size_t buffer;                 /* of a socket, in each direction */
    int descriptors;               /* how many there are */
    bool ipv6;                     /* whether the kernel has it */
    unsigned slow_names;           /* that a name takes long; half of that: it is not found */
};
#define SIM_NAME_NS (100 * SIM_MS) /* a lookup that is not slow, at most */
extern struct sim_settings sim_settings;

uint64_t sim_random(void);
uint64_t sim_below(uint64_t n); /* 0 to n - 1 */
int64_t sim_between(int64_t low, int64_t high);
bool sim_chance(unsigned permille);

int64_t sim_now(void);
/* A line of the log. Nothing in it may differ between two runs of a seed: no address, no pid. */
void sim_log(const char *format, ...) SIM_PRINTF(1, 2);
/* A promise is broken: says so with the end of the log, and ends the process. */
_Noreturn void sim_violation(const char *format, ...) SIM_PRINTF(1, 2);

struct sim_result {
    uint64_t hash; /* of the log */
    uint64_t lines, switches;
    int64_t span_ns; /* of the simulated time */
};
/* Runs the world of a seed in this process, which must be a fresh one. log_fd: every line goes
 * there; -1: only the last ones are kept. */
void sim_run(uint64_t seed, int log_fd, void (*world)(void), struct sim_result *ret_result);

/* fn(arg) at a time, between two steps of threads. */
void sim_at(int64_t at_ns, void (*fn)(void *arg, uint64_t number), void *arg, uint64_t number);

/* ---- Threads (sched.c) --------------------------------------------------------------------- */

struct sim_thread;

void sim_spawn(const char *name, int host, void (*fn)(void *arg), void *arg);
struct sim_thread *sim_self(void);
bool sim_is_cores(const struct sim_thread *t); /* the core has started it */
int sim_host(void);                            /* where this thread runs */
const char *sim_thread_name(const struct sim_thread *t);
void sim_yield(void);
void sim_maybe_yield(void);
/* Until ready(arg) or the time; false: the time came first. */
bool sim_wait(bool (*ready)(void *arg), void *arg, int64_t until_ns);
/* At the end of a call: by chance somebody else is next before its result is used. Returns rv, and
 * keeps errno. */
long sim_done(long rv);
void sim_sleep(int64_t span_ns);
/* look() whenever nobody can go on, before the clock moves: who waits then waits on. */
void sim_before_time_passes(void (*look)(void));
/* Threads that have not ended, but for the one that runs the world. */
size_t sim_live_threads(void);

/* What a thread has promised: to be back by a time. The clock never passes it while it waits. */
void sim_promise(const char *what, int64_t by_ns);
void sim_promise_sooner(struct sim_thread *t, const char *what, int64_t by_ns);
/* Checks, and forgets. */
void sim_promise_kept(void);

/* ---- Descriptors (fds.c) ------------------------------------------------------------------- */

enum sim_kind { SIM_EVENTFD, SIM_TIMERFD, SIM_EPOLL, SIM_SOCKET, SIM_NULL };

struct sim_tcp;
struct sim_item;

struct sim_file {
    enum sim_kind kind;
    int numbers; /* how many refer to it */
    int status, mark;
    uint64_t count; /* of an eventfd or timerfd */
    uint64_t armed; /* of a timerfd: the latest setting, of which an event knows the number */
    struct sim_tcp *tcp;
    struct sim_item *watched_by;
    struct sim_item *watches; /* of an epoll set */
};

int sim_open(enum sim_kind kind, int flags, struct sim_file **ret_file);
struct sim_file *sim_file(int number); /* NULL: there is none */
bool sim_is_ours(int number);          /* not a real one */
short sim_poll(int number);            /* what poll(2) would say of it */
void sim_wake(struct sim_file *f);
size_t sim_open_numbers(void);
void sim_log_open(void);

/* ---- Network ----------------------------------------------------------------------- */

#define SIM_HOSTS 16

/* What is known of one end of a connection that was or is. Never freed. */
struct sim_facts {
    uint64_t taken, given; /* bytes that its program has sent, and has received */
    bool reset;            /* by its peer */
    bool timed_out;
    bool ended;     /* the peer's end has come, and with it all that was sent before */
    bool delivered; /* all that was sent and our end are acknowledged */
    bool closed;    /* by its program */
    size_t unread;
    int64_t over_ns;          /* since when it has ended, or failed; 0: it has not */
    struct sim_facts *before; /* of the end that was made before this one */
};
/* NULL: the number is no socket that was ever connected. */
const struct sim_facts *sim_facts(int number);

uint32_t sim_ip(int host); /* in network order */
/* The address of a host; a unix socket's name, which is no host's. */
socklen_t sim_name(int family, int host, uint16_t port, struct sockaddr_storage *ret_name);
void sim_cut(int from, int to, bool down);
void sim_heal_all(void);
void sim_lose_ipv6(void); /* its packets are lost from now on */
void sim_kill(int host);  /* it neither sends nor hears any more */
/* A socket that has been connected, or refused, since somebody looked at it last; NULL: none. */
const struct sim_tcp *sim_tcp_unseen(void);
/* An accepted one, or NULL; and how many wait. */
struct sim_tcp *sim_tcp_take_child(struct sim_tcp *listener);
int sim_tcp_waiting(const struct sim_tcp *listener);
size_t sim_endpoints(void);
bool sim_has_room(int number);        /* a listener's queue */
bool sim_is_spoken_to(uint16_t port); /* somebody sends there, until it is acknowledged */
size_t sim_packets(void);

short sim_tcp_poll(const struct sim_tcp *t);
void sim_tcp_close(struct sim_tcp *t);

#endif
