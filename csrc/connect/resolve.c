/* resolve.c: a bounded set of detached threads, each inside one getaddrinfo(3).
 *
 * A getaddrinfo call cannot be stopped, so the caller is freed instead. A thread owns a reference
 * to its lookup and touches nothing else, so nobody ever has to join it: not a caller, not exit,
 * not fork.
 *
 * A lookup is QUEUED (no thread yet), RUNNING or FINISHED, and while RUNNING an orphan when it has
 * no tickets. turns.c says which of the queued gets the next thread: what runs for long, wanted or
 * not, does not count against the others, except for a ceiling per zone and one of all. Callers of
 * one name share its lookup; when its callers have left and others come, a second one is started,
 * in case the first is stuck for a reason that has gone (a changed resolv.conf); after MAX_PER_NAME
 * the newest orphan is joined. So one dead name holds at most MAX_PER_NAME threads per family.
 *
 * A queued lookup may get its turn because another has run for long, which is no event. The
 * callers of the first in the queue look up at that time (hs_lookup_look_at), and who becomes the
 * first is woken to find out when that is.
 *
 * Invariants, under `lock`: running and orphans count RUNNING lookups with and without tickets;
 * queued lookups have tickets; what is queued or runs has a reference of `turns`, and what runs one
 * of its thread.
 *
 * Forks. glibc takes locks of its own inside getaddrinfo (resolv_conf.c around resolv.conf,
 * check_pf.c while several addresses are put in order) and does not reset them in a child: forked
 * in such a moment, the child can never look up again. So a fork first closes the gate (nothing is
 * launched while `forks` > 0) and waits until what runs has ended, or is SETTLE_NS old and asleep:
 * then it waits for a name server, and holds nothing. Only an answer that comes in as the process
 * is being copied can still do harm; `inherited` lets the child's errors say so. The wait is the
 * first thing that a fork does, before it takes anybody's lock.
 */
#include "resolve.h"

#include "../base/addr.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/spans.h"
#include "../base/lock.h"
#include "../base/sys.h"
#include "../base/thread.h"
#include "../base/time.h"
#include "../cancel/wait.h"
#include "getaddr.h"
#include "turns.h"

#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_PER_NAME 2
/* Room for nsswitch modules, which are written for ordinary stacks; only touched pages count. */
#define STACK_BYTES ((size_t)512 * 1024)

/* Before a fork: what is younger may have its answer any moment; and how long it may wait for that
 * and for threads that have no processor. */
#define SETTLE_NS (100 * HS_NS_PER_MS)
#define SETTLE_LIMIT_NS HS_NS_PER_S
#define SETTLE_LOOKS 256 /* at so many threads; more are never all awake */

struct hs_lookup {
    struct hs_turn turn;
    long refs;
    bool finished;
    pid_t tid; /* 0 until the thread has begun */
    char host[256];
    int family;
    struct hs_list tickets;
    struct hs_list orphan; /* in orphaned, while it is one */
    int64_t started_ns, finished_ns, abandoned_ns;
    int gai, sys;
    size_t n;
    struct hs_addr addrs[]; /* HS_MAX_ADDRS */
};

static struct hs_lock lock = HS_LOCK_STATIC(HS_RANK_RESOLVER);
/* All below are guarded by lock. */
static struct hs_turns turns;
static struct hs_list orphaned = {&orphaned, &orphaned}; /* longest first */
static const struct hs_lookup *told;                     /* that it is the first in the queue */
static long running, orphans, lookups;
static uint64_t started, abandoned;
static long forks;     /* threads of ours that are about to fork */
static long inherited; /* lookups that the parent ran when this process was forked */

/* The one who waits for lookups to settle before a fork. */
static struct hs_wakelist settling = {.lock = HS_LOCK_STATIC(HS_RANK_WAKELIST),
                                      .nodes = {&settling.nodes, &settling.nodes}};

static void launch_queued(void);

static size_t
threads_locked(pid_t *tids, size_t max)
{
    size_t n = 0;

    for (size_t i = 0; i < HS_TURNS_BUCKETS; i++)
        for (struct hs_list *b = turns.buckets[i].next; b != &turns.buckets[i]; b = b->next) {
            const struct hs_zone *z = HS_CONTAINER(b, struct hs_zone, link);

            for (struct hs_list *t = z->running.next; t != &z->running && n < max; t = t->next)
                tids[n++] =
                    HS_CONTAINER(HS_CONTAINER(t, struct hs_turn, link), struct hs_lookup, turn)
                        ->tid;
        }
    return n;
}

/* Nothing runs, or all of it waits for name servers. Else ret_at says when to look again. */
static hs_err
look_settled(void *arg, struct hs_change *change)
{
    pid_t tids[SETTLE_LOOKS];
    int64_t now = hs_now(), young_until;
    size_t n;

    (void)arg;
    hs_lock_take(&lock);
    young_until = turns.n_running > 0 ? turns.youngest_ns + SETTLE_NS : 0;
    n = threads_locked(tids, SETTLE_LOOKS);
    hs_lock_drop(&lock);
    if (young_until > now) {
        change->until_ns = young_until;
        return HS_WANT;
    }
    for (size_t i = 0; i < n; i++)
        if (!hs_thread_sleeps(tids[i])) {
            change->until_ns = now + HS_NS_PER_MS;
            return HS_WANT;
        }
    return HS_OK;
}

static void
resolve_settle(void)
{
    struct hs_op op = HS_OP_INIT(hs_now() + SETTLE_LIMIT_NS, NULL);
    bool idle;

    hs_lock_take(&lock);
    forks++;
    idle = turns.n_running == 0;
    hs_lock_drop(&lock);
    if (idle)
        return;
    while (hs_await_change(&op, &settling, look_settled, NULL, NULL) == HS_INTR)
        continue;
}

static void
open_gate(void)
{
    hs_lock_take(&lock);
    forks--;
    told = NULL; /* It may have been told nothing for as long. */
    hs_lock_drop(&lock);
    launch_queued();
}

static void
resolve_before_fork(void)
{
    hs_lock_take(&lock);
}

static void
resolve_after_fork_in_parent(void)
{
    hs_lock_drop(&lock);
}

/* The threads are the parent's: the child starts with none and leaves their memory alone. */
static void
resolve_after_fork_in_child(void)
{
    hs_turns_init(&turns);
    hs_list_init(&orphaned);
    told = NULL;
    inherited = running + orphans;
    running = orphans = lookups = forks = 0;
    hs_wakelist_init(&settling);
    hs_lock_drop(&lock);
}

HS_REGISTERS_FORK_LOCK(HS_RANK_RESOLVER)
static void
resolve_watch_forks(void)
{
    hs_turns_init(&turns);
    (void)pthread_atfork(resolve_before_fork, resolve_after_fork_in_parent,
                         resolve_after_fork_in_child);
}

HS_REGISTERS_FORK_WAIT
static void
settle_at_forks(void)
{
    (void)pthread_atfork(resolve_settle, open_gate, NULL);
}

static void
unref_locked(struct hs_lookup *l, long n)
{
    HS_ASSERT(l->refs >= n);
    if ((l->refs -= n) > 0)
        return;
    lookups--;
    free(l);
}

static void
keep_answer(struct hs_lookup *l, const struct addrinfo *list)
{
    for (const struct addrinfo *ai = list; ai != NULL && l->n < HS_MAX_ADDRS; ai = ai->ai_next) {
        if (ai->ai_family != l->family || ai->ai_addrlen > sizeof(l->addrs[0].storage))
            continue;
        l->addrs[l->n] = (struct hs_addr){.len = ai->ai_addrlen};
        memcpy(&l->addrs[l->n].storage, ai->ai_addr, ai->ai_addrlen);
        l->n++;
    }
}

/* Each lookup holds a socket while it waits. A quarter of the process's descriptors may be spent on
 * that; the limit may change at any time. */
static long
total_of_now(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur / 4 > HS_TURNS_TOTAL)
        return HS_TURNS_TOTAL;
    return limit.rlim_cur / 4 > HS_TURNS_FRESH ? (long)(limit.rlim_cur / 4) : HS_TURNS_FRESH;
}

static void
ring_locked(const struct hs_lookup *l)
{
    for (const struct hs_list *t = l->tickets.next; t != &l->tickets; t = t->next)
        (void)hs_own_fd_ring(&HS_CONTAINER(t, struct hs_ticket, link)->notify);
}

/* Turns queued lookups into running ones; the caller launches them after it dropped the lock. */
static struct hs_lookup *
next_to_launch_locked(void)
{
    struct hs_turn *turn;
    struct hs_lookup *l;

    if (forks > 0 || turns.n_queued == 0)
        return NULL;
    turns.total = total_of_now();
    if ((turn = hs_turns_next(&turns, hs_now())) == NULL) {
        turn = hs_turns_head(&turns);
        l = turn != NULL ? HS_CONTAINER(turn, struct hs_lookup, turn) : NULL;
        if (l != told && l != NULL)
            ring_locked(l);
        told = l;
        return NULL;
    }
    l = HS_CONTAINER(turn, struct hs_lookup, turn);
    l->started_ns = turn->started_ns;
    l->refs++; /* the thread's */
    running++;
    started++;
    return l;
}

static void
finish_locked(struct hs_lookup *l)
{
    l->finished = true;
    l->finished_ns = hs_now();
    hs_span_add(HS_SPAN_LOOKUP, l->finished_ns - l->started_ns);
    if (hs_list_empty(&l->tickets))
        orphans--;
    else
        running--;
    hs_list_unlink(&l->orphan);
    hs_turns_leave(&turns, &l->turn);
    ring_locked(l);
    unref_locked(l, 2); /* turns' and the thread's */
}

static void *
resolve_run(void *arg)
{
    struct hs_lookup *l = arg;
    struct addrinfo *list = NULL;
    bool forking;
    int sys;
    int gai;

    hs_lock_take(&lock);
    l->tid = gettid();
    hs_lock_drop(&lock);
    gai = hs_getaddr(l->host, l->family, &list, &sys);
    hs_lock_take(&lock);
    l->gai = gai;
    l->sys = sys;
    if (gai == 0)
        keep_answer(l, list);
    finish_locked(l);
    forking = forks > 0;
    hs_lock_drop(&lock);
    if (forking)
        hs_wakelist_wake(&settling);
    if (list != NULL)
        freeaddrinfo(list);
    launch_queued();
    return NULL;
}

static void
launch_queued(void)
{
    for (;;) {
        struct hs_lookup *l;
        int sys;

        hs_lock_take(&lock);
        l = next_to_launch_locked();
        hs_lock_drop(&lock);
        if (l == NULL)
            return;
        if ((sys = hs_thread_start("hs-resolve", STACK_BYTES, resolve_run, l)) == 0)
            continue;
        hs_lock_take(&lock);
        l->gai = EAI_SYSTEM;
        l->sys = sys;
        finish_locked(l);
        hs_lock_drop(&lock);
    }
}

static struct hs_lookup *
resolve_find_locked(struct hs_list *list, const char *host, int family, bool orphan, int *ret_count)
{
    struct hs_lookup *found = NULL;

    for (struct hs_list *n = list->next; n != list; n = n->next) {
        struct hs_lookup *l =
            HS_CONTAINER(HS_CONTAINER(n, struct hs_turn, link), struct hs_lookup, turn);

        if (l->family != family || strcmp(l->host, host) != 0 ||
            hs_list_empty(&l->tickets) != orphan)
            continue;
        found = l;
        (*ret_count)++;
    }
    return found;
}

/* A lookup of the same name that the newcomer may share, or NULL. Walks the name's zone. */
static struct hs_lookup *
joinable_locked(const char *host, int family)
{
    struct hs_zone *z = hs_turns_zone(&turns, host);
    struct hs_lookup *l;
    int wanted = 0, abandoned_before = 0;

    if (z == NULL)
        return NULL;
    if ((l = resolve_find_locked(&z->running, host, family, false, &wanted)) != NULL ||
        (l = resolve_find_locked(&z->queue, host, family, false, &wanted)) != NULL)
        return l;
    l = resolve_find_locked(&z->running, host, family, true, &abandoned_before);
    if (abandoned_before < MAX_PER_NAME)
        return NULL;
    orphans--; /* It is wanted again. */
    running++;
    hs_list_unlink(&l->orphan);
    l->abandoned_ns = 0;
    return l;
}

static struct hs_lookup *
lookup_new(const char *host, int family)
{
    struct hs_lookup *l = hs_sys_calloc(1, sizeof(*l) + HS_MAX_ADDRS * sizeof(l->addrs[0]));

    if (l == NULL)
        return NULL;
    l->refs = 1; /* turns' */
    l->family = family;
    hs_list_init(&l->tickets);
    hs_list_init(&l->orphan);
    memcpy(l->host, host, strnlen(host, sizeof(l->host) - 1));
    return l;
}

hs_err
hs_lookup_enter(const char *host, int family, const struct hs_own_fd *notify, struct hs_error *err,
                struct hs_ticket *ticket)
{
    struct hs_lookup *made = lookup_new(host, family);
    struct hs_zone *zone = hs_sys_malloc(sizeof(*zone));
    struct hs_lookup *l;

    if (made == NULL || zone == NULL) {
        free(made);
        free(zone);
        return hs_err_setx(err, HS_E_NOMEM, "connect", "no memory for a name lookup");
    }
    hs_lock_take(&lock);
    l = joinable_locked(host, family);
    if (l == NULL) {
        l = made;
        made = NULL;
        lookups++;
        hs_turns_enter(&turns, &l->turn, l->host, &zone);
    }
    l->refs++;
    *ticket = (struct hs_ticket){.lookup = l, .notify = *notify};
    hs_list_append(&l->tickets, &ticket->link);
    hs_lock_drop(&lock);
    free(made);
    free(zone);
    launch_queued();
    return HS_OK;
}

int64_t
hs_lookup_look_at(const struct hs_ticket *ticket)
{
    int64_t at = HS_NEVER;

    if (ticket->lookup == NULL)
        return HS_NEVER;
    hs_lock_take(&lock);
    if (ticket->lookup == told && forks == 0)
        at = hs_turns_head_at(&turns);
    hs_lock_drop(&lock);
    return at;
}

void
hs_lookup_tell_starved(const struct hs_ticket *ticket, char *buf, size_t size)
{
    const struct hs_lookup *l = ticket->lookup;

    if (l == NULL)
        return;
    hs_lock_take(&lock);
    if (l->turn.state == HS_TURN_QUEUED && l->turn.zone->n_running >= HS_TURNS_PER_ZONE)
        (void)snprintf(buf, size, "name lookups are starved: %ld for %.60s are unanswered",
                       l->turn.zone->n_running, l->turn.zone->name);
    else if (l->turn.state == HS_TURN_QUEUED && turns.n_running >= turns.total)
        (void)snprintf(buf, size,
                       "name lookups are starved: %ld are unanswered, the most for RLIMIT_NOFILE",
                       turns.n_running);
    else if (l->turn.state == HS_TURN_QUEUED)
        (void)snprintf(buf, size,
                       "name lookups are starved: %ld are unanswered, %ld wait for a turn",
                       turns.n_running, turns.n_queued);
    hs_lock_drop(&lock);
}

bool
hs_lookup_answer(struct hs_ticket *ticket, uint16_t port, struct hs_answer *ret_answer,
                 struct hs_addr *addrs)
{
    struct hs_lookup *l = ticket->lookup;
    bool finished, queued;

    hs_lock_take(&lock);
    finished = l->finished;
    queued = l->turn.state == HS_TURN_QUEUED;
    *ret_answer = (struct hs_answer){.family = l->family,
                                     .finished = finished,
                                     .gai = l->gai,
                                     .sys = l->sys,
                                     .started_ns = l->started_ns,
                                     .finished_ns = l->finished_ns,
                                     .n = l->n};
    for (size_t i = 0; finished && i < l->n; i++) {
        addrs[i] = l->addrs[i];
        hs_addr_set_port(&addrs[i], port);
    }
    hs_lock_drop(&lock);
    if (queued)
        launch_queued(); /* Time may have made room. */
    return finished;
}

/* The last caller has gone: what has not started never will, what runs becomes an orphan. Returns
 * how many references are given up with it. */
static long
abandon_locked(struct hs_lookup *l)
{
    switch (l->turn.state) {
    case HS_TURN_QUEUED:
        if (told == l)
            told = NULL;
        hs_turns_leave(&turns, &l->turn);
        return 1;
    case HS_TURN_RUNNING:
        running--;
        orphans++;
        abandoned++;
        l->abandoned_ns = hs_now();
        hs_list_append(&orphaned, &l->orphan);
        hs_turns_forsake(&turns, &l->turn);
        break;
    case HS_TURN_NONE:
        break;
    }
    return 0;
}

void
hs_lookup_leave(struct hs_ticket *ticket)
{
    struct hs_lookup *l = ticket->lookup;
    long refs = 1;

    if (l == NULL)
        return;
    ticket->lookup = NULL;
    hs_lock_take(&lock);
    hs_list_unlink(&ticket->link);
    if (hs_list_empty(&l->tickets))
        refs += abandon_locked(l);
    unref_locked(l, refs);
    hs_lock_drop(&lock);
    launch_queued(); /* Its place may be another's now. */
}

void
hs_resolver_stats(struct hs_resolver_stats *ret_stats)
{
    int64_t now = hs_now(), oldest = 0;

    hs_lock_take(&lock);
    if (!hs_list_empty(&orphaned))
        oldest = now - HS_CONTAINER(orphaned.next, struct hs_lookup, orphan)->abandoned_ns;
    *ret_stats = (struct hs_resolver_stats){.running = running,
                                            .queued = turns.n_queued,
                                            .orphans = orphans,
                                            .live = lookups,
                                            .oldest_orphan_ns = oldest,
                                            .inherited = inherited,
                                            .started = started,
                                            .abandoned = abandoned};
    hs_lock_drop(&lock);
}
