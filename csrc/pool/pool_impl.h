/* pool_impl.h: the inside of a pool, for the files that make it up.
 *
 * From the ground up: state.c (states, and leaving the lock), waiter.c (the queue), ledger.c (who
 * holds what, by call site), offer.c (what becomes of a free connection), give_back.c (the end of a
 * lease), lend.c (the hand-over to callers); worker.c (the thread), dial.c, ping.c and tend.c (what
 * it does for one pool); stats.c (counting, and counting again); pool.c (life, size and end) ties
 * them together.
 *
 * A member is a place for one connection. Its memory is made once and lives as long as the pool, so
 * that a stale lease finds a number that is not its own instead of freed memory.
 *
 *     FREE -> DIALING -> IDLE <-> LENT
 *               |         |  ^      |
 *               |         v  |      |
 *               |       TENDED      |     TENDED: out of the idle list, in the pool worker's hands
 *               v         v         v
 *              FREE <- CLOSING <----+
 *
 * Invariants, under the pool's lock:
 * - n[state] counts the members in each state; opened == IDLE + TENDED + LENT + DIALING + CLOSING +
 *   closed. Debug builds look at it whenever the lock is dropped.
 * - Who waits stands in `waiters`, in the order of arrival, and only as long as that lasts: the one
 * who
 *   leaves unlinks its own entry. While somebody waits nothing is idle.
 * - A state changes at the moment of assignment, never later by who was assigned to.
 *
 * Under the lock there is no system call, no callback, no allocation and no reference is dropped:
 * what has to be done is noted in struct deferred and done by hs_pool_leave, which drops the lock
 * first.
 */
#ifndef HS_POOL_POOL_IMPL_H
#define HS_POOL_POOL_IMPL_H

#include "../base/check.h"
#include "../base/err.h"
#include "../base/list.h"
#include "../base/lock.h"
#include "../base/time.h"
#include "../cancel/wait.h"
#include "../stream/conn_probe.h"
#include "ledger_table.h"

#include <stdatomic.h>

#define POOL_MAGIC 0x70c30001U

enum member_state {
    MEMBER_FREE,
    MEMBER_DIALING,
    MEMBER_IDLE,
    MEMBER_TENDED,
    MEMBER_LENT,
    MEMBER_CLOSING,
    MEMBER_STATES,
};

struct hs_member {
    struct hs_list link; /* in idle, lent or free; alone in the other states */
    struct hs_pool *pool;
    uint32_t index;
    enum member_state state;
    struct hs_conn *conn;               /* owns; changes with DIALING -> IDLE and CLOSING -> FREE */
    struct hs_call_site *_Atomic *told; /* conn's: its borrower's place, for those who look */
    struct hs_conn *inherited; /* owns; in a forked child: the parent's, that a lease may name */
    size_t endpoint;
    _Atomic uint64_t lease_id; /* 0: not lent, or being returned; see give_back.c */
    uint64_t lent_as;          /* LENT: the lease's id, for those who only tell */
    uint64_t times_lent;
    uint64_t state_epoch; /* counts its states: whether it is still the same one */
    uint64_t epoch;       /* of the pool when it was dialled */
    int64_t since_boot;   /* when it became idle, or was lent */
    int64_t expires_boot;
    int64_t pinged_boot;  /* when an answer last came, or since_boot */
    bool watched;         /* idle, and the pool worker hears when something comes */
    bool greeted;         /* never lent, and the peer has said something by itself */
    bool overdue, untold; /* lent for too long; and nobody was told yet */
    bool spent;           /* CLOSING: an exchange on it has failed; it is reset */
    enum hs_pool_reason closing;
    int64_t handshaking_ns; /* DIALING: since when in its TLS handshake; 0: it is not */
    bool stalled;           /* for so long that it holds nobody's place; in pool->n_stalled */
    struct hs_holder holder;
    struct ledger_site *site;
    struct hs_conn_mark lent;       /* when it was lent */
    struct hs_conn_mark clean;      /* or was marked clean; written by the borrower */
    struct hs_member *_Atomic lost; /* in pool->lost */
    struct hs_member *next_closing;
};

struct endpoint {
    struct hs_endpoint ep;
    size_t open;       /* members that are not FREE */
    unsigned failures; /* in a row */
    int64_t next_dial_ns;
};

struct hs_pool {
    unsigned magic;
    const struct tender *tender; /* static */
    atomic_uint generation;      /* hs_fork_generation() in which it works */
    uint32_t id;                 /* never used again */
    struct hs_call_site *where;  /* its origin; immutable, as the next three */
    uint64_t thread;
    char name[HS_POOL_NAME_SIZE];
    bool named;
    atomic_int refs;
    struct hs_list link;      /* guarded by the pool worker's lock: in its list */
    struct hs_list census;    /* the same: in the list of all, from its making to its end */
    struct hs_pool_options o; /* immutable, but for max_size, which the lock guards */
    char server_name[256];    /* what o.connect.server_name points to */

    struct hs_lock lock;
    /* All below are guarded by lock, unless said otherwise. */
    struct hs_member **members; /* own; n_members of them, of which those in `free` are unused */
    size_t n_members;
    struct hs_list idle; /* by since_boot, the oldest first */
    struct hs_list lent; /* the same */
    struct hs_list free;
    size_t n[MEMBER_STATES];
    size_t n_stalled;       /* of those that are DIALING */
    struct hs_list waiters; /* the first to come first */
    size_t n_waiting;
    uint64_t leases, epoch, state_epochs, tickets;
    bool closed;
    bool has_unwatched;         /* something became idle that the pool worker does not watch yet */
    struct endpoint *endpoints; /* own */
    size_t n_endpoints, next_endpoint;
    int64_t next_dial_ns; /* by dial_interval_ns */
    int64_t arm_ns;       /* when the unwatched ones are looked at; 0: not set */
    int64_t scan_boot;    /* when an idle one is due for something */
    uint64_t random;
    struct ledger ledger;
    struct hs_wakelist changed;      /* own lock: woken when a member is closed, or overdue */
    struct hs_pool_stats stats;      /* counters and histograms only */
    struct hs_dial_failure *failure; /* owns: with stats.dial_error */
    int64_t dial_error_ns;
    int64_t visit_ns;               /* without the lock: the pool worker's, when it comes by next */
    struct hs_member *_Atomic lost; /* a stack, without the lock: leases thrown away */
    atomic_bool asks;               /* without the lock: the pool worker should come by */
};

/* What is to be done once the lock is dropped. */
struct deferred {
    struct waiter *woken;
    struct hs_member *closing;
    bool worker, changed;
};

struct worker;

/* What the worker does with a pool; pool.c fills it, so that worker.c knows no file above it. */
struct tender {
    int64_t (*tend)(struct hs_pool *p, struct worker *k, bool *ret_done); /* see hs_pool_tend */
    void (*on_event)(struct hs_pool *p, uint32_t index);                  /* hs_pool_on_event */
    void (*forget_parent)(struct hs_pool *p); /* in a forked child, with all locks held */
    void (*let_go)(struct hs_pool *p);        /* of the worker's reference */
};

/* ---- ended.c ---- */
/* With the pool worker's lock held. p is in no list any more. */
void hs_pool_ended_add_locked(struct hs_pool *p);
/* In a forked child: what ended before has been counted by the parent. */
void hs_pool_ended_forget_parent_locked(void);
size_t hs_pool_ended_copy_locked(struct hs_pool_ended *ret_rows);
/* To a copy: one that is about to end. */
void hs_pool_ended_add_to_locked(struct hs_pool_ended *copied, size_t *n, struct hs_pool *p);

/* ---- state.c ---- */
/* From any thread: the pool asks for a visit. */
void hs_pool_worker_ask(struct hs_pool *p);
/* Woken by it: the worker listens to this list. */
struct hs_wakelist *hs_pool_asked(void);
/* Drops the lock and does what was deferred; closing members may make more of them. */
void hs_pool_leave(struct hs_pool *p, struct deferred *d);
void hs_pool_set_state_locked(struct hs_pool *p, struct hs_member *m, enum member_state state);
/* Takes m out of whatever list it is in; hs_pool_leave closes it. */
void hs_pool_retire_locked(struct hs_pool *p, struct hs_member *m, enum hs_pool_reason why,
                           struct deferred *d);
/* A member that no dial needs any more, DIALING -> FREE. */
void hs_pool_end_dial_locked(struct hs_pool *p, struct hs_member *m, enum hs_pool_reason why,
                             struct deferred *d);
/* Anything in 0..span. */
int64_t hs_pool_random_locked(struct hs_pool *p, int64_t span);
/* Room for n members in all, as far as there is memory; takes the lock by itself. */
void hs_pool_make_room(struct hs_pool *p, size_t n);

#if HS_DEBUG
void hs_pool_check_locked(const struct hs_pool *p);
#else
#define hs_pool_check_locked(p) ((void)0)
#endif
static inline size_t
hs_pool_open(const struct hs_pool *p)
{
    return p->n[MEMBER_DIALING] + p->n[MEMBER_IDLE] + p->n[MEMBER_TENDED] + p->n[MEMBER_LENT] +
           p->n[MEMBER_CLOSING];
}
static inline bool
hs_pool_adds_up(const struct hs_pool *p)
{
    return p->stats.opened == hs_pool_open(p) + p->stats.closed;
}

/* ---- pool.c ---- */
/* Makes it work again in a forked child. HS_E_CLOSED, or why there is no pool worker. */
HS_NODISCARD hs_err hs_pool_enter(struct hs_pool *p, struct hs_error *err);

/* ---- offer.c ---- */
/* m, which is in no list, is the holder's from now on. */
void hs_pool_lend_locked(struct hs_pool *p, struct hs_member *m, const struct hs_holder *holder,
                         struct ledger_site *site, int64_t boot_now, struct hs_lease *ret_lease);
/* Whether the kernel is to be asked before the lease is used. watched: the worker hears of it. */
bool hs_pool_needs_probe(const struct hs_pool *p, const struct hs_lease *lease, bool watched);
/* m, which is in no list and nobody's hands, goes to the first who waits, or is idle since then; or
 * it is retired, when it may not stay: why. */
enum hs_pool_reason hs_pool_offer_locked(struct hs_pool *p, struct hs_member *m, int64_t since_boot,
                                         int64_t boot_now, struct deferred *d);
/* What the kernel's answer means: HS_POOL_NONE, or why it is to be closed. fresh: nobody has used
 * it yet. What its peer says then is a greeting: in many protocols the server speaks first. */
enum hs_pool_reason hs_pool_judge_probe(enum hs_liveness live, bool fresh);
/* Why an idle one may not be lent, or stay; HS_POOL_NONE. */
enum hs_pool_reason hs_pool_expired_locked(const struct hs_pool *p, const struct hs_member *m,
                                           int64_t boot_now);
/* Until when an idle one may stay so, to be lent or kept; HS_NEVER for the min_idle kept ready. */
int64_t hs_pool_idle_until_locked(const struct hs_pool *p, const struct hs_member *m);

/* ---- give_back.c ---- */
/* m, which is LENT, is nobody's from now on: no list, no lease. */
void hs_pool_end_lease_locked(struct hs_pool *p, struct hs_member *m, int64_t boot_now,
                              bool was_used);
/* Closes what finalizers left. */
void hs_pool_take_lost_locked(struct hs_pool *p, struct deferred *d);

/* ---- ledger.c ---- */
/* Returns how long until the next one may be. */
int64_t hs_ledger_note_overdue_locked(struct hs_pool *p, int64_t boot_now, struct deferred *d);
void hs_ledger_forget_lent(struct ledger *l);

struct hs_lent hs_ledger_describe_locked(const struct hs_member *m, int64_t boot_now);

/* ---- dial_failure.c ---- */
/* NULL: there is no memory, or nothing was tried. The error stands for itself then. */
struct hs_dial_failure *hs_dial_failure_new(struct hs_connector *cn, int64_t began_ns);

/* ---- pool_histogram.c ---- */
void hs_histogram_add(struct hs_histogram *h, int64_t ns);

long hs_pool_live(void);

#endif
