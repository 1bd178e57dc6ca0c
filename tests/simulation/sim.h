/* sim.h: a machine for the C core whose clock, kernel and network are made of numbers.
 *
 * The linker puts the functions here in the place of the C library's (--wrap), for everything that
 * the core asks of the kernel. So the core runs as it is, and what happens to it is decided by one
 * generator: how long a packet takes, whether it is lost, which of several threads is next.
 *
 * Threads are real ones, of which exactly one runs at a time; it hands over where it waits, and at
 * other calls by chance. No work takes time. When nobody can go on, the clock is set to the next
 * moment at which something happens, so a call with a deadline ends at its deadline to the
 * nanosecond, or breaks its promise.
 *
 * sched.c has the threads, the clock and the log; fds.c the descriptors, epoll and poll; net.c the
 * network and its TCP; sockets.c the calls on sockets; world.c what is done with the core, and what
 * it promised; simulate.c runs seeds.
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
    unsigned interrupted;          /* that a wait ends by a signal */
    unsigned cut;                  /* that a call moves fewer bytes than it could */
    unsigned loss;                 /* that a packet is lost */
    int64_t latency_ns, jitter_ns; /* of a packet */
    size_t buffer;                 /* of a socket, in each direction */
    int descriptors;               /* how many there are */
};
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
int sim_host(void); /* where this thread runs */
const char *sim_name(const struct sim_thread *t);
void sim_yield(void);
void sim_maybe_yield(void);
/* Until ready(arg) or the time; false: the time came first. */
bool sim_wait(bool (*ready)(void *arg), void *arg, int64_t until_ns);
void sim_sleep(int64_t span_ns);
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
void sim_wake(struct sim_file *f);
size_t sim_open_numbers(void);
void sim_log_open(void);

/* ---- Network (net.c) ----------------------------------------------------------------------- */

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
void sim_cut(int from, int to, bool down);
void sim_kill(int host); /* it neither sends nor hears any more */
size_t sim_endpoints(void);
size_t sim_packets(void);

short sim_tcp_poll(const struct sim_tcp *t);
void sim_tcp_close(struct sim_tcp *t);

#endif
