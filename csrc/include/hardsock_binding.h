/* hardsock_binding.h: what the Python binding needs of the core beyond hardsock.h.
 *
 * Servers with worker threads, alarms, files over a connection, the call sites of a pool's ledger
 * and the descriptor table: parts of which the binding makes something that a person would use. It
 * changes whenever the binding needs it, is not installed, and libhardsock.so does not export it.
 */
#ifndef HARDSOCK_BINDING_H
#define HARDSOCK_BINDING_H

#include "hardsock.h"

/* Changes in every child of a fork: what was made before belongs to the parent. */
unsigned hs_fork_generation(void);

/* ---- How long things take ------------------------------------------------------------------ */

struct hs_spread {
    uint64_t count, sum_ns;
    uint64_t buckets[HS_EDGES + 1]; /* each by itself, not added up */
};

/* X(name, text): of the process, since it began; pools have their own (hs_pool_stats). */
#define HS_SPANS_ALL(X)                                                                            \
    X(CONN_AGE, "conn_age")                     /* of connections, when they end */                \
    X(READ_STALL_PEER, "read_stall_peer")       /* a call waited for the peer to send */           \
    X(READ_STALL_APP, "read_stall_application") /* bytes had lain here; one read in 32 is asked */ \
    X(READ_STALL_GIL, "read_stall_gil")         /* bytes were read, their caller could not run */  \
    X(WRITE_STALL_PEER, "write_stall_peer")     /* a call waited for the peer to take */           \
    X(CONNECT, "connect")                       /* lookup and TLS included; failed ones, too */    \
    X(LOOKUP, "lookup")                         /* of a name, answered or not */                   \
    X(HANDSHAKE, "handshake")                   /* of TLS, that succeeded, on either side */       \
    X(WORKER_WAIT, "worker_wait")               /* a connection, for its handler to begin */
enum hs_span {
#define HS_SPAN_ENUM(name, text) HS_SPAN_##name,
    HS_SPANS_ALL(HS_SPAN_ENUM)
#undef HS_SPAN_ENUM
        HS_SPANS,
};
const char *hs_span_name(enum hs_span span);
void hs_span_read(enum hs_span span, struct hs_spread *ret_spread);

/* ---- Lines of the program ------------------------------------------------------------------ */

/* How a descriptor of ours came to be. X(name, text) */
#define HS_MADE_ALL(X)                                                                             \
    X(OTHER, "other") /* its maker did not say */                                                  \
    X(CONNECT, "connect")                                                                          \
    X(ACCEPT, "accept")                                                                            \
    X(ADOPT, "adopt")                                                                              \
    X(POOL, "pool")
enum hs_made {
#define HS_MADE_ENUM(name, text) HS_MADE_##name,
    HS_MADE_ALL(HS_MADE_ENUM)
#undef HS_MADE_ENUM
        HS_MADE_KINDS,
};
const char *hs_made_name(enum hs_made how);

/* A line of the program, as C strings: made once, never freed, so that anybody may look at one at
 * any time. Beyond HS_SITES_MAX lines all are hs_call_site_unknown(). */
#define HS_SITES_MAX 4096
struct hs_call_site;
struct hs_call_site *hs_call_site_intern(const char *file, const char *function, int line);
struct hs_call_site *hs_call_site_unknown(void);
struct hs_call_site_name {
    const char *file, *function; /* for good */
    int line;
};
void hs_call_site_name(const struct hs_call_site *s, struct hs_call_site_name *ret_name);
struct hs_call_site_counts {
    uint64_t opened;
    uint64_t open[HS_MADE_KINDS]; /* now */
    uint64_t leaked;              /* thrown away while they were open */
    uint64_t received, sent;      /* bytes, of those that have ended */
};
void hs_call_site_counts(const struct hs_call_site *s, struct hs_call_site_counts *ret_counts);
/* All that there are: how many, of which the first `room` are written. */
size_t hs_call_sites(struct hs_call_site **sites, size_t room);
/* What site had opened or borrowed was thrown away open: counted, and an event. c: may be NULL. */
struct hs_conn;
void hs_call_site_leaked(struct hs_call_site *s, struct hs_conn *c);

/* ---- What went wrong last ------------------------------------------------------------------ */

/* The flight recorder: the last HS_EVENTS_EACH events of each kind, always on, without a lock. A
 * flood of one kind pushes out no other. X(name, text) */
#define HS_EVENTS_ALL(X)                                                                           \
    X(CONNECT_FAILED, "connect_failed") /* also cancelled, timed out, refused by a breaker */      \
    X(CONNECT_SLOW, "connect_slow") /* it succeeded, but took longer than HS_SLOW_CONNECT_NS */    \
    X(DEADLINE, "deadline")         /* of a call that waited on a connection */                    \
    X(CANCELLED, "cancelled")       /* the same */                                                 \
    X(RESET, "reset")               /* by the peer */                                              \
    X(DEAD_PEER, "dead_peer")                                                                      \
    X(LEAKED, "leaked")   /* thrown away while it was open */                                      \
    X(OVERDUE, "overdue") /* lent for longer than its pool's leak_after */                         \
    X(POOL_TIMEOUT, "pool_timeout")                                                                \
    X(BREAKER_OPENED, "breaker_opened")                                                            \
    X(BREAKER_CLOSED, "breaker_closed")                                                            \
    X(DRAINING, "draining") /* a listener takes no more than what is in its queue */               \
    X(DRAINED, "drained")   /* a server has ended; span: since it began to drain */                \
    X(SHED, "shed")         /* sent away before it was served: who, and why */                     \
    X(NO_DESCRIPTORS, "no_descriptors")                                                            \
    X(FORKED, "forked") /* into this process */                                                    \
    X(FAULT, "fault")   /* asked for by hs_faults_begin */
enum hs_event_kind {
#define HS_EVENT_ENUM(name, text) HS_EVENT_##name,
    HS_EVENTS_ALL(HS_EVENT_ENUM)
#undef HS_EVENT_ENUM
        HS_EVENT_KINDS,
};
#define HS_SLOW_CONNECT_NS (2 * INT64_C(1000000000)) /* RFC 6298: one lost SYN costs 1 s */
#define HS_EVENTS_EACH 64
#define HS_EVENTS_MAX ((size_t)HS_EVENT_KINDS * HS_EVENTS_EACH)
const char *hs_event_name(enum hs_event_kind kind);
struct hs_event {
    int64_t at_ns;                   /* hs_now */
    uint64_t number;                 /* in the order in which they happened, from 1 on */
    int32_t kind;                    /* enum hs_event_kind */
    hs_err code;                     /* or HS_OK */
    int32_t sys;                     /* errno, or 0 */
    int32_t fd;                      /* it may be something else by now; 0: none */
    const struct hs_call_site *site; /* where its connection or pool was made; NULL: not known */
    uint64_t thread;                 /* pthread_self */
    int64_t span_ns;                 /* how long that had taken, or 0 */
    char text[64];                   /* the peer, or the name of the pool or breaker; cut if long */
};
/* The last ones, the oldest first: how many, at most `room` and HS_EVENTS_MAX. One that is being
 * written at this moment is left out. */
size_t hs_events(struct hs_event *events, size_t room);
/* How many there have been, also those that are not kept any more. */
uint64_t hs_event_count(enum hs_event_kind kind);
/* All that are kept, as lines of text, to a descriptor. Async-signal-safe: for handlers of fatal
 * signals. Fields: how long ago, kind, text, code, errno, span, line. What is noted meanwhile is
 * left out. */
void hs_dump(int fd);
/* From now on hs_dump(fd) at SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT, before what was set for
 * them until now; fd -1: no more. Once: after a signal that the process survived, ask again.
 * HS_E_SYSTEM. */
HS_NODISCARD hs_err hs_dump_at_fatal_signals(int fd, struct hs_error *err);

/* ---- Faults on demand ---------------------------------------------------------------------- */

/* Of one plan: its seed, and how many calls of each kind it has counted. False: it has ended. */
#define HS_FAULT_CALLS 45
bool hs_faults_plan(uint64_t id, uint64_t *ret_seed, uint64_t ret_calls[HS_FAULT_CALLS]);
const char *hs_fault_call_name(size_t call); /* NULL: there are no more */

/* ---- Looking at connections and their owners ----------------------------------------------- */

/* Where in the program it was made, in which thread (any number). Once; else it is of
 * hs_call_site_unknown(). */
void hs_conn_set_site(struct hs_conn *c, enum hs_made how, struct hs_call_site *site,
                      uint64_t thread);
/* The caller of a call goes on, after whatever kept it from doing so since op->came_ns. */
void hs_conn_resumed(struct hs_conn *c, struct hs_op *op);

/* All that are open in this process, new references: how many there are, of which the first `room`
 * are written, in no order. */
size_t hs_conns(struct hs_conn **conns, size_t room);
/* Only how many, by how they were made, and how old they are. */
void hs_conns_count(uint64_t counts[HS_MADE_KINDS], struct hs_spread *ret_ages);
struct hs_conn_waits {
    uint64_t count;
    int64_t total_ns; /* of waits that are over */
    int64_t since_ns; /* of one that lasts, or 0 */
};
struct hs_conn_row {
    uint64_t id; /* never used again */
    int fd;      /* -1: it has ended meanwhile, and the rest is of no use */
    enum hs_made how;
    const struct hs_call_site *site;
    uint64_t thread;
    const struct hs_call_site *holder; /* HS_MADE_POOL: who has borrowed it; NULL: nobody */
    uint32_t service;                  /* whose it is; 0: no server's */
    uint8_t phase;                     /* enum hs_phase, if it is */
    bool tls;
    struct hs_conn_info info;
    struct hs_conn_waits reading, writing; /* for the peer */
    int64_t application_ns;                /* the longest that bytes were found to have lain here */
    int64_t gil_ns;                        /* in all: bytes were read, their caller could not run */
    struct hs_addr local, peer;            /* len 0: not known */
    int unread, unsent;                    /* bytes in the kernel's queues; -1: not known */
    int tcp_state;                         /* TCP_ESTABLISHED ..., tcp(7); 0: not TCP */
    uint32_t retransmits, rtt_us;
};
/* Costs a few system calls. Takes no lock, never waits. */
void hs_conn_describe(struct hs_conn *c, struct hs_conn_row *ret_row);

/* What a struct tcp_info of so many bytes tells, by name, in the kernel's units: microseconds (rtt,
 * rto, busy_time ...) and milliseconds (last_*). Returns how many fields there are. */
struct hs_tcp_field {
    const char *name;
    uint64_t value;
};
#define HS_TCP_FIELDS_MAX 40
size_t hs_tcp_fields(const void *info, size_t len, struct hs_tcp_field fields[HS_TCP_FIELDS_MAX]);

/* ---- Ending what is idle, for a guard -------------------------------------------------------- */

/* What may be done about one, or was. */
#define HS_RETIRE_ALL(X)                                                                           \
    X(IDLE, "idle")     /* it may be ended */                                                      \
    X(POOLED, "pooled") /* idle in its pool: hs_pool_retire */                                     \
    X(ASKED, "asked")   /* its owner looks once more and ends it: hs_conn_was_retired */           \
    X(CLOSED, "closed")                                                                            \
    X(GONE, "gone") /* it had been closed already */                                               \
    X(LENT, "lent")                                                                                \
    X(YOUNG, "young")     /* not as old as asked */                                                \
    X(FRESH, "fresh")     /* not idle for as long as asked */                                      \
    X(BUSY, "busy")       /* a call, or the one who serves it, works on it */                      \
    X(BYTES, "bytes")     /* sent by one side and not taken by the other */                        \
    X(OWED, "owed")       /* one side waits for the other's answer */                              \
    X(UNKNOWN, "unknown") /* nobody said how it was made, so whose turn it is, neither */
enum hs_retire {
#define HS_RETIRE_ENUM(name, text) HS_RETIRE_##name,
    HS_RETIRE_ALL(HS_RETIRE_ENUM)
#undef HS_RETIRE_ENUM
        HS_RETIRE_KINDS,
};
const char *hs_retire_name(enum hs_retire how);

/* hs_conn_row.id, without asking for the rest. */
uint64_t hs_conn_id(const struct hs_conn *c);
/* The open one with that number: a new reference; NULL: there is none any more. */
struct hs_conn *hs_conn_find(uint64_t id);
/* Whether it may be ended: nobody uses it, no byte is under way, none went for idle_ns, and it is
 * at least age_ns old. Only looks. *ret_idle_ns: since the last byte. */
enum hs_retire hs_conn_judge(struct hs_conn *c, int64_t idle_ns, int64_t age_ns,
                             int64_t *ret_idle_ns);
/* The same, and ends it. HS_RETIRE_ASKED: the call that waits for a message, or the server that has
 * it parked, looks once more. Ask hs_conn_was_retired later; if it was not, give hs_conn_unretire
 * *ret_was_ns back, its idle timeout until then (HS_NEVER: none; idle_ns: nothing to put back).
 * That says true if it has come too late: a call has ended, or is about to, or the server has it as
 * one that is over. HS_RETIRE_BUSY: another guard has asked the same call before. */
enum hs_retire hs_conn_retire(struct hs_conn *c, int64_t idle_ns, int64_t age_ns,
                              int64_t *ret_idle_ns, int64_t *ret_was_ns);
bool hs_conn_was_retired(struct hs_conn *c);
bool hs_conn_unretire(struct hs_conn *c, int64_t idle_ns, int64_t was_ns);
/* A server has it, whose handler works on it when no call does. stays: a call that waits for a
 * message under a token that ends only between messages (hs_op.told) is not ended by that before
 * hs_conn_expect_no_more: the server says when. */
void hs_conn_set_served(struct hs_conn *c, bool stays);
/* TCP_USER_TIMEOUT, tcp(7), in milliseconds; 0: the kernel's own. shorten: one that is shorter
 * stays. HS_E_CLOSED, also when it is not TCP; HS_E_SYSTEM, and nothing was changed. */
HS_NODISCARD hs_err hs_conn_set_user_timeout(struct hs_conn *c, unsigned ms, bool shorten,
                                             struct hs_error *err, unsigned *ret_was_ms);
/* Ends one that has been idle in the pool for idle_ns. HS_RETIRE_CLOSED, FRESH, LENT or GONE. */
enum hs_retire hs_pool_retire(struct hs_pool *p, uint64_t conn_id, int64_t idle_ns);
/* How many connections it has; the ids (hs_conn_row.id) of the first `room` are written. */
size_t hs_pool_conn_ids(struct hs_pool *p, uint64_t *ids, size_t room);

/* Connections of any process, as the kernel has them: established, or ended by the peer alone. */
struct hs_foreign {
    uint64_t cookie; /* never used again; sock_diag(7) */
    uint32_t inode;  /* as in /proc/PID/fd */
    int state;       /* tcp(7) */
    uint32_t unread, unsent;
    int64_t idle_ns; /* since data was sent or received, in milliseconds; -1: not known */
    bool is_owed;    /* its owner has received something since it last sent */
    struct hs_addr local, peer;
};
/* All in the caller's network namespace; free *ret_rows with free(3). HS_E_SYSTEM, HS_E_NOMEM. */
HS_NODISCARD hs_err hs_foreign_list(struct hs_error *err, struct hs_foreign **ret_rows,
                                    size_t *ret_n);
/* As hs_conn_judge, of a connection that its owner has accepted. */
enum hs_retire hs_foreign_judge(const struct hs_foreign *row, int64_t idle_ns);
/* Looks at exactly this socket again, and has the kernel destroy it if it is idle still: its owner
 * sees ECONNABORTED, the peer a reset. HS_RETIRE_CLOSED, GONE, or why not. HS_E_SYSTEM, as when the
 * caller has no CAP_NET_ADMIN. */
HS_NODISCARD hs_err hs_foreign_retire(const struct hs_foreign *row, int64_t idle_ns,
                                      struct hs_error *err, enum hs_retire *ret_how,
                                      int64_t *ret_idle_ns);

/* Where in the program it connects, for those who look. */
void hs_connector_set_site(struct hs_connector *cn, struct hs_call_site *site);

/* All that there are in this process: new references. How many, of which the first `room` are
 * written. */
size_t hs_listeners(struct hs_listener **listeners, size_t room);
uint32_t hs_listener_id(const struct hs_listener *l); /* of the process; never used again */
size_t hs_breakers(struct hs_breaker **breakers, size_t room);

#define HS_POOL_NAME_SIZE 64
/* Where in the program it is made, and what it is called, cut if it is long: for those who look. */
struct hs_pool_opening {
    struct hs_call_site *site;
    uint64_t thread;
    const char *name;
    bool named; /* its maker gave the name; else it is made of addresses */
};
/* hs_pool_new, whose origin is unknown. Others can find a pool from when it is made. */
HS_NODISCARD hs_err hs_pool_new_at(const struct hs_endpoint *endpoints, size_t n,
                                   const struct hs_pool_options *o,
                                   const struct hs_pool_opening *origin, struct hs_error *err,
                                   struct hs_pool **ret_pool);
/* Those who wait for a connection, the first first. */
struct hs_waiting {
    uint64_t thread;
    const struct hs_call_site *site;
    int64_t age_ns;
};
size_t hs_pool_waiting(struct hs_pool *p, struct hs_waiting *waiting, size_t n);
struct hs_pool_label {
    const char *name; /* as long as the pool */
    const struct hs_call_site *site;
    uint64_t thread;
    uint32_t id; /* never used again */
    bool named;  /* as hs_pool_opening */
};
void hs_pool_label(struct hs_pool *p, struct hs_pool_label *ret_label);
/* All that are tended: new references. Returns how many there are, of which it writes at most n. */
size_t hs_pools(struct hs_pool **pools, size_t n);
/* What pools of one name had counted that are no more; as in hs_pool_stats. */
/* clang-format off */
#define HS_POOL_COUNTS_ALL(X)                                                                      \
    X(opened) X(connected) X(closed) X(acquired) X(acquired_waited) X(handed_over) X(timeouts)     \
    X(cancelled) X(refused) X(failed) X(returned) X(probes) X(overdue) X(returned_late)
/* clang-format on */
struct hs_pool_ended {
    char name[HS_POOL_NAME_SIZE]; /* "other": of all that came when there was no room for names */
    bool named;                   /* as hs_pool_opening */
#define HS_POOL_COUNT_FIELD(name) uint64_t name;
    HS_POOL_COUNTS_ALL(HS_POOL_COUNT_FIELD)
#undef HS_POOL_COUNT_FIELD
    uint64_t closed_by_reason[HS_POOL_REASON_COUNT];
    struct hs_spread wait, usage, dial;
};
#define HS_POOLS_ENDED_MAX 256
/* All that there are, closed ones, too, as hs_pools; and those that are no more, of which there is
 * room for HS_POOLS_ENDED_MAX. Both of one moment: each pool is in one of them. */
size_t hs_pools_ever(struct hs_pool **pools, size_t n, struct hs_pool_ended *ret_ended,
                     size_t *ret_n_ended);
/* As hs_pool_lent, with the borrower's line. */
struct hs_held {
    struct hs_lent lent;
    const struct hs_call_site *site;
};
size_t hs_pool_holders(struct hs_pool *p, struct hs_held *held, size_t n);

/* ---- Servers ------------------------------------------------------------------------------- */

/* Where a connection of a server's is. X(name, text) */
#define HS_PHASES_ALL(X)                                                                           \
    X(WAITING, "waiting") /* for a worker */                                                       \
    X(PARKED, "parked")   /* quiet, without a thread or task */                                    \
    X(BUSY, "busy")       /* in its handler */                                                     \
    X(LINGERING, "lingering")
enum hs_phase {
#define HS_PHASE_ENUM(name, text) HS_PHASE_##name,
    HS_PHASES_ALL(HS_PHASE_ENUM)
#undef HS_PHASE_ENUM
        HS_PHASES, /* also: of no server */
};
const char *hs_phase_name(enum hs_phase phase);
/* What drives one. */
#define HS_SERVICE_KINDS_ALL(X)                                                                    \
    X(THREADS, "threads")                                                                          \
    X(TASKS, "tasks")                                                                              \
    X(PROCESSES, "processes")
enum hs_service_kind {
#define HS_SERVICE_KIND_ENUM(name, text) HS_SERVICE_##name,
    HS_SERVICE_KINDS_ALL(HS_SERVICE_KIND_ENUM)
#undef HS_SERVICE_KIND_ENUM
        HS_SERVICE_KINDS,
};
const char *hs_service_kind_name(enum hs_service_kind kind);
#define HS_SERVICE_COUNTS_ALL(X)                                                                   \
    X(ACCEPTED, "accepted")                                                                        \
    X(HANDLED, "handled")                                                                          \
    X(FAILED, "failed")                                                                            \
    X(CUT, "cut")                                                                                  \
    X(REFUSED, "refused") /* by a guard's rule; not accepted */
enum hs_service_count {
#define HS_SERVICE_COUNT_ENUM(name, text) HS_SERVICE_##name,
    HS_SERVICE_COUNTS_ALL(HS_SERVICE_COUNT_ENUM)
#undef HS_SERVICE_COUNT_ENUM
        HS_SERVICE_COUNTS,
};
const char *hs_service_count_name(enum hs_service_count which);
/* All servers of this process have, also those that are no more; since it was forked. */
uint64_t hs_services_counted(enum hs_service_count which);

/* The same of listeners; X(name, text). */
#define HS_LISTENER_COUNTS_ALL(X)                                                                  \
    X(ACCEPTED, "accepted")                                                                        \
    X(SHED, "shed")                                                                                \
    X(EXHAUSTED, "exhausted")                                                                      \
    X(ABORTED, "aborted")                                                                          \
    X(HANDSHAKES, "handshakes_completed")
enum hs_listener_count {
#define HS_LISTENER_COUNT_ENUM(name, text) HS_LISTENER_##name,
    HS_LISTENER_COUNTS_ALL(HS_LISTENER_COUNT_ENUM)
#undef HS_LISTENER_COUNT_ENUM
        HS_LISTENER_COUNTS,
};
const char *hs_listener_count_name(enum hs_listener_count which);
uint64_t hs_listeners_counted(enum hs_listener_count which);
#define HS_SERVICE_NAME_SIZE 48

/* A server's own word of its state. Returns a new reference; others find it from then on. */
struct hs_service;
HS_NODISCARD hs_err hs_service_new(enum hs_service_kind kind, const char *name, uint64_t limit,
                                   struct hs_error *err, struct hs_service **ret_s);
void hs_service_unref(struct hs_service *s);        /* NULL is fine */
uint32_t hs_service_id(const struct hs_service *s); /* of the process; never used again */
void hs_service_set_accepts(struct hs_service *s, bool accepts);
void hs_service_count(struct hs_service *s, enum hs_service_count which);
/* A supervisor's: what its processes have said, instead of what is counted here. */
void hs_service_tell(struct hs_service *s, const uint64_t phases[HS_PHASES],
                     const uint64_t counts[HS_SERVICE_COUNTS]);
/* Only the first time counts. The end is an event. */
void hs_service_drains(struct hs_service *s);
void hs_service_ended(struct hs_service *s);
struct hs_service_row {
    uint32_t id;
    enum hs_service_kind kind;
    const char *name; /* as long as the service */
    uint64_t limit;
    bool accepts;
    int64_t draining_ns, ended_ns; /* when; 0: not yet */
    uint64_t counts[HS_SERVICE_COUNTS];
    uint64_t phases[HS_PHASES]; /* a supervisor's; others': hs_conns_by_phase */
};
void hs_service_describe(const struct hs_service *s, struct hs_service_row *ret_row);
/* All of this process: new references. How many, of which at most `room` are written. */
size_t hs_services(struct hs_service **services, size_t room);
/* c is that service's, and there; relaxed: for those who look. Closing it ends that. */
void hs_conn_set_phase(struct hs_conn *c, uint32_t service, enum hs_phase phase);
/* Adds that service's connections up. */
void hs_conns_by_phase(uint32_t service, uint64_t counts[HS_PHASES]);

/* ---- Guards -------------------------------------------------------------------------------- */

/* What hardsock.guard has decided, by what came of it; X(name, text). */
#define HS_GUARD_OUTCOMES_ALL(X)                                                                   \
    X(ARMED, "armed")     /* a rule has set in */                                                  \
    X(CLEARED, "cleared") /* a rule has ended by its figures */                                    \
    X(STOPPED, "stopped") /* a rule has ended with its guard */                                    \
    X(BEGIN, "begin")     /* an action that lasts */                                               \
    X(END, "end")                                                                                  \
    X(APPLIED, "applied") /* connections that such an action was applied to */                     \
    X(DONE, "done")       /* an action that is done once */                                        \
    X(CLOSED, "closed")   /* connections, as the next three */                                     \
    X(GONE, "gone")       /* had ended before */                                                   \
    X(SPARED, "spared")   /* were busy in the moment of the act */                                 \
    X(OVER_BUDGET, "over budget")                                                                  \
    X(WOULD_BEGIN, "would begin") /* dry runs: this and what follows */                            \
    X(WOULD_END, "would end")                                                                      \
    X(WOULD_CALL, "would call")                                                                    \
    X(WOULD_CLOSE, "would close")                                                                  \
    X(DISARMED, "disarmed") /* the guard has failed */
enum hs_guard_outcome {
#define HS_GUARD_OUTCOME_ENUM(name, text) HS_GUARD_##name,
    HS_GUARD_OUTCOMES_ALL(HS_GUARD_OUTCOME_ENUM)
#undef HS_GUARD_OUTCOME_ENUM
        HS_GUARD_OUTCOMES,
};
const char *hs_guard_outcome_name(enum hs_guard_outcome which);
void hs_guard_count(enum hs_guard_outcome which, uint64_t n);
uint64_t hs_guard_counted(enum hs_guard_outcome which);
/* A guard's thread begins or ends. A forked child has none, whatever its parent had. */
void hs_guard_runs(bool runs);
uint32_t hs_guards_running(void);

/* ---- Reports ------------------------------------------------------------------------------- */

/* What this process has, as one JSON object on one line, without the end of the line; needs no
 * interpreter. X(name, text): what can be asked for. */
#define HS_REPORTS_ALL(X)                                                                          \
    X(METRICS, "metrics")         /* counters, gauges, histograms; pools; no more than needed */   \
    X(CONNECTIONS, "connections") /* each with its line, age, bytes, waits */                      \
    X(SITES, "sites")             /* the same by line */                                           \
    X(POOLS, "pools")             /* with who holds, and who waits */                              \
    X(SERVERS, "servers")         /* listeners */                                                  \
    X(BREAKERS, "breakers")                                                                        \
    X(EVENTS, "events") /* the flight recorder */
enum hs_report_kind {
#define HS_REPORT_ENUM(name, text) HS_REPORT_##name,
    HS_REPORTS_ALL(HS_REPORT_ENUM)
#undef HS_REPORT_ENUM
        HS_REPORT_KINDS,
};
/* Changes when a name goes or means something else; names may be added. */
#define HS_REPORT_VERSION 1
const char *hs_report_name(enum hs_report_kind kind);
/* Ends with free(3). HS_E_NOMEM. */
HS_NODISCARD hs_err hs_report(enum hs_report_kind kind, struct hs_error *err, char **ret_text,
                              size_t *ret_len);
/* As it is asked for in words, here and at the inspect socket: the name of a report, or
 * "connection ID", which is that one's row and all that the kernel tells of it. HS_E_INVALID: there
 * is no such report. HS_E_CLOSED: no such connection, or it has ended. */
HS_NODISCARD hs_err hs_report_asked(const char *request, struct hs_error *err, char **ret_text,
                                    size_t *ret_len);

/* ---- Event loops ---------------------------------------------------------------------------- */

/* The program has closed what the loop waits with. All that was parked is due, though the loop's
 * descriptor does not say so, and parking fails with HS_E_SYSTEM (EBADF). */
bool hs_loop_is_lost(const struct hs_loop *loop);
/* The last hs_loop_collect got no answer of the kernel's. Its descriptor stays readable: who waits
 * for it now would go round, and should come again after a moment instead. */
bool hs_loop_is_unheard(const struct hs_loop *loop);
/* In the place of the descriptor, for a loop that waits for nothing else: fd, an epoll set of
 * others, is put into the loop's own set, which is taken out of fd. Where that cannot be, nothing
 * has changed. */
HS_NODISCARD hs_err hs_loop_take_others(struct hs_loop *loop, int fd, struct hs_error *err);
void hs_loop_leave_others(struct hs_loop *loop, int fd);
/* In the place of hs_loop_collect: waits itself, in three steps, of which only the middle one may
 * run beside other threads that ring the loop or free waiters; nobody may free the loop then.
 * 1. May it wait, for *ms milliseconds (-1: for ever)? 0 where something is due already. False: it
 *    is lost, or a parent's, and will say nothing: the others are to be asked themselves. */
bool hs_loop_may_sleep(struct hs_loop *loop, int *ms);
/* 2. Also ends when a signal handler ran. */
void hs_loop_sleep(struct hs_loop *loop, int ms);
/* 3. Says what there is: for hs_loop_next, or hs_loop_is_unheard; for the others. */
void hs_loop_slept(struct hs_loop *loop, bool *ret_due, bool *ret_others);
/* Ends the second step, from any thread. */
void hs_loop_ring(struct hs_loop *loop);

/* ---- Tokens --------------------------------------------------------------------------------- */

/* hs_token_wait for an op whose token it is, so that it can be stepped. */
HS_NODISCARD hs_err hs_token_await(struct hs_op *op, struct hs_error *err);
/* Waits for a descriptor that is no connection's, under the op's token and deadline. HS_OK: its
 * events, or 0: the token has ended, or the time has passed. Or HS_INTR, HS_E_SYSTEM. */
HS_NODISCARD hs_err hs_token_wait_for(const struct hs_op *op, int fd, short events,
                                      struct hs_error *err, short *ret_ready);

/* ---- Histograms with fixed edges ------------------------------------------------------------ */

enum hs_edges {
    HS_EDGES_DELAY, /* 10 us to 10 s, in steps of 1, 2.5, 5 */
    HS_EDGES_SPAN,  /* hs_edge_ns: 100 us to a day, as all that is exported */
};

#define HS_FIXED_BUCKETS_MAX 24

struct hs_fixed_counts {
    size_t n_edges; /* buckets: one more */
    uint64_t count; /* of all buckets */
    uint64_t sum_ns;
    int64_t edges_ns[HS_FIXED_BUCKETS_MAX];
    uint64_t buckets[HS_FIXED_BUCKETS_MAX]; /* [i]: at most edge i, above edge i - 1; not cumulative
                                             */
};

/* Added to and read from any thread, without a lock. */
struct hs_fixed_histogram;

HS_NODISCARD hs_err hs_fixed_histogram_new(enum hs_edges edges, struct hs_error *err,
                                           struct hs_fixed_histogram **ret_h);
/* NULL is fine. */
void hs_fixed_histogram_free(struct hs_fixed_histogram *h);
/* A negative duration counts as zero. */
void hs_fixed_histogram_add(struct hs_fixed_histogram *h, int64_t ns);
void hs_fixed_histogram_read(const struct hs_fixed_histogram *h,
                             struct hs_fixed_counts *ret_counts);

/* ---- Connections ---------------------------------------------------------------------------- */

/* For a caller that lost what a receive had returned, for want of memory: reading must not go
 * on. */
void hs_conn_lost_input(struct hs_conn *c);
/* For a caller that sends a message in several calls and will not finish it: nobody may write
 * behind the part that is out. */
void hs_conn_lost_output(struct hs_conn *c);
/* hs_conn_shutdown() for the one whose lease the op names, if it was lent. It may wait, a second at
 * most, for a call in another thread that is being told why the connection is over. */
HS_NODISCARD hs_err hs_conn_shutdown_by(struct hs_conn *c, const struct hs_op *op, int how,
                                        struct hs_error *err);
/* Whether it is open and nothing is to be read, nor the peer's end; what comes while somebody reads
 * is not looked at. Does not wait; takes in what TLS says between data. */
bool hs_conn_is_quiet(struct hs_conn *c);
/* hs_conn_recv_frames for what is there already, without looking at deadlines or tokens: HS_OK, or
 * HS_WANT: nothing has begun, and hs_conn_recv_frames will say why. Ends with hs_conn_try_end. */
HS_NODISCARD hs_err hs_conn_try_frames(struct hs_conn *c, const struct hs_framing *f);
void hs_conn_try_end(struct hs_conn *c);
/* As files read lines: waits until the bytes up to and including the first LF at or behind offset
 * `from` are buffered, or limit (> 0) bytes, or all up to the peer's end. HS_OK: *ret_n is how many
 * that are (0: nothing came before the end), hs_conn_peeked gives them, and hs_conn_read_line_end
 * consumes n of them and ends the call. Nothing is consumed on failure. */
HS_NODISCARD hs_err hs_conn_read_line(struct hs_conn *c, struct hs_op *op, size_t from,
                                      size_t limit, struct hs_error *err, size_t *ret_n);
void hs_conn_read_line_end(struct hs_conn *c, struct hs_op *op, size_t n);
/* hs_conn_read_line from 0 for what is there already: HS_OK, or HS_WANT: nothing has begun, and
 * hs_conn_read_line waits or says why not. It does not look at tokens: the caller has, as the call
 * would. Not for what a pool has lent. Ends with hs_conn_try_line_end, which consumes n bytes. */
HS_NODISCARD hs_err hs_conn_try_line(struct hs_conn *c, size_t limit, size_t *ret_n);
void hs_conn_try_line_end(struct hs_conn *c, size_t n);
/* As files read: hs_conn_recv with MSG_WAITALL, which takes more than len > 0 bytes into the buffer
 * where that saves the next call a try. */
HS_NODISCARD hs_err hs_conn_read(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len,
                                 struct hs_error *err, size_t *ret_n);
/* hs_conn_read of n > 0 bytes that are there already, as hs_conn_try_line is: they are at
 * hs_conn_peeked, and hs_conn_try_line_end consumes them. */
HS_NODISCARD hs_err hs_conn_try_read(struct hs_conn *c, size_t n);
/* Copies at most n of the bytes that are buffered, without waiting; 0 while another call reads. */
size_t hs_conn_copy_buffered(struct hs_conn *c, uint8_t *to, size_t n);
/* Whether programs that this process starts get the descriptor: FD_CLOEXEC is off. */
HS_NODISCARD hs_err hs_conn_get_inheritable(struct hs_conn *c, struct hs_error *err,
                                            bool *ret_inheritable);
HS_NODISCARD hs_err hs_conn_set_inheritable(struct hs_conn *c, bool inheritable,
                                            struct hs_error *err);
/* For several owners of one connection (files made from a socket): it has one handle when it is
 * made, share adds one, and the unshare of the last closes it. lost: nobody closed it, so a TLS
 * peer is not told that what came was all. */
void hs_conn_share(struct hs_conn *c);
void hs_conn_unshare(struct hs_conn *c, bool lost);

/* For servers: how long one message of the peer's may take from its first byte until the answer
 * begins, and one answer until the next message is waited for; spans, HS_NEVER for no limit. A call
 * that would wait beyond it is HS_E_DEADLINE with phase "read_timeout" or "write_timeout". The wait
 * for a message's first byte is neither. */
void hs_conn_set_turns(struct hs_conn *c, int64_t read_ns, int64_t write_ns);
/* For servers, as enum hs_quiet says: the most time between the last byte, either way, and the next
 * message; HS_NEVER for no limit. */
void hs_conn_set_idle_timeout(struct hs_conn *c, int64_t span_ns);
/* From now on no message is waited for; but, if none has come yet, the first one until first_by_ns,
 * since who has just connected is about to send it. Answers are waited for. */
void hs_conn_expect_no_more(struct hs_conn *c, int64_t first_by_ns);
/* Whether nothing is under way: all that came was read, all that was sent is acknowledged. Then a
 * close loses nothing that either side has sent yet. */
bool hs_conn_is_settled(struct hs_conn *c);
/* For messages: both, as far as they are known (len 0: not), also after it was closed. */
void hs_conn_addresses(struct hs_conn *c, struct hs_addr *ret_local, struct hs_addr *ret_peer);

/* ---- Worker slots -------------------------------------------------------------------------- */

/* At most n threads of a crowd run at a time: a server's handlers. Slots are given in the order of
 * arrival. A call that waits on a connection that belongs to the crowd gives its thread's slot to
 * the next, and takes one back before it returns. */
struct hs_slots;

HS_NODISCARD hs_err hs_slots_new(long n, struct hs_error *err, struct hs_slots **ret_slots);
struct hs_slots *hs_slots_ref(struct hs_slots *t);
void hs_slots_unref(struct hs_slots *t); /* NULL is fine */
/* Waits; when token or deadline end first the slot is taken all the same, as one too many. token
 * may be NULL. */
void hs_slots_take(struct hs_slots *t, struct hs_token *token, int64_t deadline_ns);
void hs_slots_give(struct hs_slots *t);

/* From now on blocking calls on it give a slot back while they wait. Once, before others know the
 * connection; takes a reference of its own. */
void hs_conn_join_slots(struct hs_conn *c, struct hs_slots *t);
/* Calls that begin from now on leave slots alone. */
void hs_conn_leave_slots(struct hs_conn *c);

/* ---- Notifiers ----------------------------------------------------------------------------- */

/* A thread that steps ops of which nobody awaits the end, and tells when they have ended.
 * Thread-safe as a whole. The thread starts with hs_notifier_start when there are alarms, and ends
 * with the last. */
struct hs_notifier;
struct hs_alarm;

struct hs_notifier_hooks {
    /* In the notifier's thread, with no lock held, when something is to be told: calls
     * hs_notifier_next until that returns NULL. May block, and fork. */
    void (*serve)(struct hs_notifier *n, void *arg);
    void *arg;
};

struct hs_alarm_hooks {
    /* A call of hardsock's with op: it does not block, since op->stepping is set. HS_OK: it is to
     * be told. HS_WANT, HS_INTR: not yet. HS_E_NOMEM, HS_E_SYSTEM: it is tried again soon. Any
     * other error: never. Under the notifier's lock: nothing of the notifier may be called. */
    hs_err (*step)(void *arg, struct hs_op *op, struct hs_error *err);
    /* Before it is told, while hs_alarm_end cannot have returned for it; under the notifier's lock.
     * May be NULL. */
    void (*hold)(void *arg);
    /* Once: nobody knows arg any more. In the thread of hs_alarm_end, or in the notifier's. */
    void (*release)(void *arg);
    bool repeats;       /* after it was told it is stepped again */
    bool survives_fork; /* a child steps it, too, once hs_notifier_start is called there */
};

HS_NODISCARD hs_err hs_notifier_new(const struct hs_notifier_hooks *hooks, struct hs_error *err,
                                    struct hs_notifier **ret_notifier);
struct hs_notifier *hs_notifier_ref(struct hs_notifier *n);
void hs_notifier_unref(struct hs_notifier *n);
/* Makes sure that alarms, if there are any, are looked at. Cheap when they are. */
HS_NODISCARD hs_err hs_notifier_start(struct hs_notifier *n, struct hs_error *err);
enum hs_stop {
    HS_STOP_ALL,    /* wait for the thread's end */
    HS_STOP_IDLE,   /* or until it is in a call, made between two hs_notifier_next */
    HS_STOP_UNSEEN, /* do not wait: the thread may have been ended from outside, while in serve */
};
/* From now on nothing is told, and new alarms are refused with HS_E_CLOSED. In a call of its own
 * thread it does not wait. */
void hs_notifier_stop(struct hs_notifier *n, enum hs_stop how);
/* All notifiers of the process, one after the other. */
void hs_notifier_stop_each(enum hs_stop how);
/* In serve: the arg of the next alarm to be told, or NULL. The previous one has been told. */
void *hs_notifier_next(struct hs_notifier *n);

/* op: as for the first step. Takes arg if it succeeds. */
HS_NODISCARD hs_err hs_alarm_new(struct hs_notifier *n, const struct hs_alarm_hooks *hooks,
                                 void *arg, const struct hs_op *op, struct hs_error *err,
                                 struct hs_alarm **ret_alarm);
/* It is not told after this, but may be in this moment: see hold. Never blocks. NULL is fine. */
void hs_alarm_end(struct hs_alarm *a);

/* ---- Parked connections -------------------------------------------------------------------- */

/* The connections of a server that are quiet, and the threads that wait for one that is not. A
 * parked one costs memory and no thread; what the peer does meanwhile costs nobody anything but, at
 * most, a look. Any number of threads may be in any call; the one who is given a connection owns it
 * until it parks it again. A connection belongs to one parking at most, from its first time on. */
struct hs_parking;

enum hs_parked_news {
    HS_PARKED_MESSAGE, /* bytes of the peer's have come that nobody has read */
    HS_PARKED_ENDED,   /* the peer ended it, and all is read; or it was closed here: it is closed */
    HS_PARKED_EXPIRED, /* its time has passed, and nothing has come */
    HS_PARKED_QUIET,   /* hs_parking_drain asked, and nothing has come */
    HS_PARKED_FINISHED, /* it has lingered, and is closed */
};
struct hs_parked_conn {
    struct hs_conn *conn; /* the caller's reference */
    void *arg;
    enum hs_parked_news news;
    enum hs_ending ending; /* of HS_PARKED_ENDED and HS_PARKED_FINISHED */
    bool closed_here;      /* ending is of no meaning: it was closed on this side meanwhile */
    bool alone;            /* no other thread waits for the next one */
};
enum hs_parking_answer {
    HS_PARKING_TAKEN,
    HS_PARKING_QUIET,  /* not after hs_parking_drain: nothing has come */
    HS_PARKING_CLOSED, /* it was closed, or detached */
    HS_PARKING_ENDING, /* sending was ended: it is for hs_parking_linger */
    HS_PARKING_UNFIT,  /* broken, or a call stopped in the middle of a message */
    HS_PARKING_UNREAD, /* who was given a message neither took nor looked at a byte that had come */
};

HS_NODISCARD hs_err hs_parking_new(struct hs_error *err, struct hs_parking **ret_p);
struct hs_parking *hs_parking_ref(struct hs_parking *p);
void hs_parking_unref(struct hs_parking *p); /* NULL is fine; nothing may be parked */
/* Parks conn for a span_ns (HS_NEVER: for ever) until a message begins, and takes a reference. What
 * was looked at and left (peeked) counts as the beginning of a message: the rest is waited for.
 * arg: for the one who is given it. newcomer: after hs_parking_drain, too. Anything but
 * HS_PARKING_TAKEN: it is still the caller's. HS_E_BUSY (somebody reads), HS_E_NOMEM, HS_E_SYSTEM,
 * HS_E_FORKED: the same. */
HS_NODISCARD hs_err hs_parking_park(struct hs_parking *p, struct hs_conn *conn, void *arg,
                                    int64_t span_ns, bool newcomer, struct hs_error *err,
                                    enum hs_parking_answer *ret_answer);
/* hs_conn_finish of conn, as a parked one: HS_WANT when it goes on; HS_OK when it was over at once:
 * then conn is still the caller's. Errors as of hs_conn_finish and hs_parking_park. */
HS_NODISCARD hs_err hs_parking_linger(struct hs_parking *p, struct hs_conn *conn, void *arg,
                                      int64_t span_ns, struct hs_error *err,
                                      struct hs_close_report *ret_report);
/* Waits for the next one with news. HS_INTR: a signal came, or a second has passed. HS_E_CLOSED
 * once hs_parking_close was called and nothing is due. */
HS_NODISCARD hs_err hs_parking_next(struct hs_parking *p, struct hs_error *err,
                                    struct hs_parked_conn *ret_parked);
/* For a server in an event loop, instead of hs_parking_next: waits for the next with news, and
 * gives up to max that are there. alone is of no meaning. One call at a time. HS_INTR and HS_WANT:
 * again; HS_E_CLOSED as above; HS_E_DEADLINE, HS_E_CANCELLED: of op. On failure nothing was given.
 */
HS_NODISCARD hs_err hs_parking_poll(struct hs_parking *p, struct hs_op *op, size_t max,
                                    struct hs_error *err, struct hs_parked_conn *ret_parked,
                                    size_t *ret_n);
/* For when no thread is free to wait: gives those that are due with other news than a message, up
 * to max, without waiting; returns how many. */
size_t hs_parking_tend(struct hs_parking *p, size_t max, struct hs_parked_conn *ret_parked);
/* From now on nothing is parked without need: all that are quiet are due, as HS_PARKED_QUIET, or as
 * a message if one has come. */
void hs_parking_drain(struct hs_parking *p);
/* When places run out: the one that has been here for the longest of those of which not a byte has
 * come, if it was made at least silence_ns ago; the caller's, and not closed. False: there is
 * none. */
bool hs_parking_evict(struct hs_parking *p, int64_t silence_ns, struct hs_conn **ret_conn,
                      void **ret_arg);
/* Any that is parked or due, whatever it waits for, as it is: for the end. *ret_quiet: it waits for
 * a message of which nothing has come. False: there is none. */
bool hs_parking_take(struct hs_parking *p, struct hs_conn **ret_conn, void **ret_arg,
                     bool *ret_quiet);
void hs_parking_close(struct hs_parking *p);
/* parked: without news, also those that linger. due: with news, as far as the kernel can tell, that
 * nobody has taken. */
void hs_parking_counts(struct hs_parking *p, size_t *ret_parked, size_t *ret_due);

/* ---- Delays --------------------------------------------------------------------------------- */

/* How long the beginnings of messages lay in the kernel's queues of a server's connections before
 * somebody looked: a sample of them, by the kernel's own stamps. Not of unix sockets. */
struct hs_delays;

HS_NODISCARD hs_err hs_delays_new(struct hs_error *err, struct hs_delays **ret_delays);
void hs_delays_unref(struct hs_delays *d); /* NULL is fine */
/* How long a connection waited for a worker of a server, for the process's own figures. */
void hs_count_worker_wait(int64_t ns);
void hs_delays_read(const struct hs_delays *d, struct hs_fixed_counts *ret_queue);
/* Has c measured, if the kernel will; it has a reference then. Before others know c. */
void hs_conn_measure(struct hs_conn *c, struct hs_delays *d);

/* ---- Clients that leave -------------------------------------------------------------------- */

/* A crowd of connections of which somebody wants to know whose peers have left: its connection's
 * token is cancelled, so that nobody works for a client that is not there any more. */
struct hs_departures;

/* A connection is watched when it has been for young_ns, or hs_conn_cancel_on_end is asked for: so
 * handlers that are over sooner cost no system call. */
HS_NODISCARD hs_err hs_departures_new(int64_t young_ns, struct hs_error *err,
                                      struct hs_departures **ret_departures);
struct hs_departures *hs_departures_ref(struct hs_departures *d);
void hs_departures_unref(struct hs_departures *d); /* NULL is fine */
/* Nobody is watched any more; gives the descriptor back. By the one who tends it, and not
 * meanwhile. */
void hs_departures_close(struct hs_departures *d);
/* Cancels token once c's peer has reset the connection or is found to be dead; not when it ended
 * its side, as clients do that still wait for an answer. By who has c alone, in one set of
 * departures; again once it has left that. Takes references of its own. Calls on c itself are not
 * ended by such a cancel before they have found nothing: they still receive what has arrived, and
 * raise HS_E_RESET. */
HS_NODISCARD hs_err hs_departures_watch(struct hs_departures *d, struct hs_conn *c,
                                        struct hs_token *token, struct hs_error *err);
/* Waits for peers that leave, and cancels their tokens. Returns HS_OK as soon as that has set off
 * callbacks, which the caller runs (hs_callbacks_run); then call it again. Else it ends by its
 * deadline or token only. */
HS_NODISCARD hs_err hs_departures_tend(struct hs_departures *d, struct hs_op *op,
                                       struct hs_error *err, struct hs_callback **ret_fired);
/* From now on the end of the peer's stream counts as leaving, too; or not any more. HS_E_INVALID:
 * nobody watches c. HS_E_CLOSED. */
HS_NODISCARD hs_err hs_conn_cancel_on_end(struct hs_conn *c, bool on, struct hs_error *err);
/* It is watched no more. A cancel that has begun is not taken back. */
void hs_conn_leave_departures(struct hs_conn *c);

/* ---- Listeners of servers ------------------------------------------------------------------- */

/* For messages: the address from when it was made, also after it was closed. */
void hs_listener_bound_addr(struct hs_listener *l, struct hs_addr *ret_addr);
/* For a server that is full: moves the TLS handshakes that have begun, begins none and accepts
 * nobody; what is secured meanwhile waits for hs_listener_accept. Never HS_OK: it ends as the op
 * does, or with HS_E_CLOSED. Without TLS it merely waits. */
HS_NODISCARD hs_err hs_listener_tend(struct hs_listener *l, struct hs_op *op, struct hs_error *err);
/* For a server that drains: who is in the kernel's queue now is accepted yet, nobody else, and
 * hs_listener_accept is HS_E_CLOSED once these have been returned: with TLS, once no handshake is
 * left of which a byte has come. The listener still has to be closed. With SO_REUSEPORT all are
 * accepted until the queue is empty, and in that moment the socket goes, so that nobody more comes
 * to it: see hs_listener_stats for what is then known of its queue (nobody). */
void hs_listener_last_call(struct hs_listener *l);
/* Another process has the same socket and listens on: nothing more is accepted here, what is queued
 * is the other's, and the path of a unix socket is not removed. */
void hs_listener_hand_over(struct hs_listener *l);

/* ---- Pools ---------------------------------------------------------------------------------- */

/* Tells the pool of a place before it is used the first time. True: it was not known, and the pool
 * now relies on code; hs_pool_forget_sites gives it back. False: nothing is kept. where: the same
 * place for those who only look; NULL: they are not told. */
bool hs_pool_know_site(struct hs_pool *p, const struct hs_holder *holder,
                       struct hs_call_site *where);
/* Ends the table of sites of a closed pool of which nothing is lent: calls release for every code
 * that hs_pool_know_site said true for. */
void hs_pool_forget_sites(struct hs_pool *p, void (*release)(const void *code));

struct hs_call_site_stats {
    const void *code;
    int at;
    size_t lent; /* now */
    uint64_t acquired, lost, overdue, dirty;
    int64_t held_max_ns, held_sum_ns;
};
size_t hs_pool_sites(struct hs_pool *p, struct hs_call_site_stats *sites, size_t n);
/* Waits until a lease is overdue that was not told yet: each is told once. HS_E_CLOSED when the
 * pool is. */
HS_NODISCARD hs_err hs_pool_await_overdue(struct hs_pool *p, struct hs_op *op, struct hs_error *err,
                                          struct hs_lent *ret_lent);
/* The connections that are open, lent ones or idle ones: new references. Returns how many there
 * are, of which it writes at most n. */
size_t hs_pool_conns(struct hs_pool *p, bool lent, struct hs_conn **conns, size_t n);

/* ---- Looking at the process and the kernel ------------------------------------------------- */

enum hs_fd_kind {
    HS_FD_SOCKET,
    HS_FD_PIPE,
    HS_FD_FILE,
    HS_FD_DIRECTORY,
    HS_FD_DEVICE,
    HS_FD_EVENT,
    HS_FD_OTHER,
    HS_FD_KINDS,
};
const char *hs_fd_kind_name(enum hs_fd_kind kind);
/* Counts open descriptors by kind without opening one (works at EMFILE). */
void hs_fd_inventory(long counts[HS_FD_KINDS]);

#define HS_FD_TARGET_SIZE 120
struct hs_fd_entry {
    int fd;
    enum hs_fd_kind kind;
    uint64_t dev, ino; /* tell whether a number is still the same thing; not for HS_FD_EVENT */
    char target[HS_FD_TARGET_SIZE]; /* such as "socket:[4711]" or a path, cut if it is long */
};
/* Lists open descriptors in the order of their numbers, without opening one. Returns how many there
 * are, of which the first `room` are written. */
size_t hs_fd_list(struct hs_fd_entry *entries, size_t room);

struct hs_fd_usage {
    long open;
    long limit; /* RLIMIT_NOFILE as it is now; -1: none that an int could reach */
};
/* Cheaper than hs_fd_inventory: one system call on Linux 6.2 and later. Opens none. */
void hs_fd_usage(struct hs_fd_usage *ret_usage);

/* A thread that answers at a unix socket, as long as the process lives or until hs_inspect_stop: a
 * request is a line with the name of a report, the answer that report as a line. Only for the same
 * user and root; the one who makes the directory of path keeps others out of it. A second start
 * takes the place of the first. Not in a forked child, which may start its own. HS_E_INVALID: path
 * is too long; HS_E_SYSTEM, HS_E_NOMEM, HS_E_BUSY. */
HS_NODISCARD hs_err hs_inspect_start(const char *path, struct hs_error *err);
/* Removes the socket; answers that are being sent end in the middle. */
void hs_inspect_stop(void);

/* Adds to the advice for a connect that has failed what the flight recorder knows of others to the
 * same endpoint (as hs_endpoint_text writes it) in the last ten minutes, if there are several. */
void hs_hint_history(const char *endpoint, char *buf, size_t size);

#define HS_TCP_STATES 13
const char *hs_tcp_state_name(int state); /* "established", ...; NULL: there is none */
struct hs_fd_socket {
    int family, type;
    bool listens;
    int state; /* index as in hs_diag_count(); 0: no TCP, or the kernel does not say */
    struct hs_addr local, peer; /* len 0: it has none */
};
/* What the socket fd is, the one who made it: asks the kernel, opens nothing and changes nothing.
 * False: fd is no socket, or not open. */
bool hs_fd_socket(int fd, struct hs_fd_socket *ret_socket);

/* Counts this network namespace's TCP sockets towards peer by state (index: TCP_ESTABLISHED 1 ..
 * TCP_CLOSING 11), from the kernel's sock_diag tables. peer NULL: all. */
HS_NODISCARD hs_err hs_diag_count(const struct hs_addr *peer, struct hs_error *err,
                                  uint32_t counts[HS_TCP_STATES]);
/* The same for those that have this address and port as their own, or the port of every address. */
HS_NODISCARD hs_err hs_diag_count_at(const struct hs_addr *local, struct hs_error *err,
                                     uint32_t counts[HS_TCP_STATES]);

/* The OpenSSL that runs, in its own words, with the date of its release. Static. */
const char *hs_openssl_version(void);

/* Called once for a process-wide view of what is alive: every count is zero when all is
 * released. */
struct hs_live {
    long tokens, conns, listeners, connectors, lookups, orphans, buffers, breakers, pools,
        notifiers, slots, parkings, departures, delays, dial_limits;
    long lingering; /* closed, and still delivering: a few seconds at most */
};
void hs_live_counts(struct hs_live *ret_live);

#endif
