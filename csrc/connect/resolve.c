/* resolve.c: a bounded set of detached threads, each inside one getaddrinfo(3).
 *
 * A getaddrinfo call cannot be stopped, so the caller is freed instead. A thread owns a reference
 * to its lookup and touches nothing else, so nobody ever has to join it: not a caller, not exit,
 * not fork.
 *
 * A lookup is QUEUED (no thread yet), RUNNING or FINISHED, and while RUNNING an orphan when it has
 * no tickets. Limits: MAX_RUNNING lookups that somebody waits for; MAX_ORPHANS besides, so that
 * what was abandoned does not take the place of what is wanted. Callers of one name share its
 * lookup; when its callers have left and others come, a second one is started, in case the first
 * is stuck for a reason that has gone (a changed resolv.conf); after MAX_PER_NAME the newest
 * orphan is joined. So one dead domain holds at most MAX_PER_NAME threads per family.
 *
 * Invariants, under `lock`: running and orphans count RUNNING lookups with and without tickets;
 * queued lookups have tickets; a lookup in `active` has a reference of its own.
 *
 * Forks. glibc takes locks of its own inside getaddrinfo (resolv_conf.c around resolv.conf,
 * check_pf.c while several addresses are put in order) and does not reset them in a child: forked
 * in such a moment, the child can never look up again. So a fork first closes the gate (nothing is
 * launched while `forks` > 0) and waits until what runs has either ended or is SETTLE_NS old: by
 * then it waits for a name server, and holds nothing. Only an answer that comes in as the process
 * is being copied can still do harm; `inherited` lets the child's errors say so. The wait is the
 * first thing that a fork does, before it takes anybody's lock.
 */
#include "resolve.h"

#include "../base/addr.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/lock.h"
#include "../base/thread.h"
#include "../base/time.h"
#include "../cancel/wait.h"
#include "getaddr.h"

#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_RUNNING 64
#define MAX_ORPHANS 64
#define MAX_PER_NAME 2
/* Room for nsswitch modules, which are written for ordinary stacks; only touched pages count. */
#define STACK_BYTES ((size_t)1024 * 1024)

/* A healthy name server answers within this, on a busy machine too; and a fork may wait so long. */
#define SETTLE_NS (100 * HS_NS_PER_MS)

enum state { QUEUED, RUNNING, FINISHED };

struct hs_lookup {
    struct hs_list link; /* in active or queue */
    long refs;
    enum state state;
    char host[256];
    int family;
    struct hs_list tickets;
    int64_t started_ns, finished_ns, abandoned_ns;
    int gai, sys;
    size_t n;
    struct hs_addr addrs[]; /* HS_MAX_ADDRS */
};

static struct hs_lock lock = HS_LOCK_STATIC(HS_RANK_RESOLVER);
/* All below are guarded by lock. */
static struct hs_list active = {&active, &active}; /* RUNNING, oldest first */
static struct hs_list queue = {&queue, &queue};    /* QUEUED, oldest first */
static long running, orphans, lookups;
static uint64_t started, abandoned;
static long forks;     /* threads of ours that are about to fork */
static long inherited; /* lookups that the parent ran when this process was forked */

/* Whoever waits for lookups to settle before a fork. */
static struct hs_wakelist settling = {.lock = HS_LOCK_STATIC(HS_RANK_WAKELIST),
                                      .nodes = {&settling.nodes, &settling.nodes}};

static void launch_queued(void);

/* When the youngest of what runs is old enough; in the past if nothing runs. */
static int64_t
settled_at_locked(void)
{
    return hs_list_empty(&active)
               ? 0
               : HS_CONTAINER(active.prev, struct hs_lookup, link)->started_ns + SETTLE_NS;
}

static void
settle(void)
{
    struct hs_wakenode node;
    int64_t at;
    short ignored;

    hs_lock_take(&lock);
    if (forks++ == 0 && hs_list_empty(&active)) {
        hs_lock_drop(&lock);
        return;
    }
    hs_lock_drop(&lock);
    hs_wakelist_join(&settling, &node);
    for (;;) {
        hs_lock_take(&lock);
        at = settled_at_locked();
        hs_lock_drop(&lock);
        if (at <= hs_now())
            break;
        if (hs_wait(-1, 0, NULL, at, NULL, &ignored) == HS_E_SYSTEM)
            break;
    }
    hs_wakelist_leave(&settling, &node);
}

static void
open_gate(void)
{
    hs_lock_take(&lock);
    forks--;
    hs_lock_drop(&lock);
    launch_queued();
}

static void
before_fork(void)
{
    hs_lock_take(&lock);
}

static void
after_fork_in_parent(void)
{
    hs_lock_drop(&lock);
}

/* The threads are the parent's: the child starts with none and leaves their memory alone. */
static void
after_fork_in_child(void)
{
    hs_list_init(&active);
    hs_list_init(&queue);
    inherited = running + orphans;
    running = orphans = lookups = forks = 0;
    hs_wakelist_init(&settling);
    hs_lock_drop(&lock);
}

HS_REGISTERS_FORK_LOCK(HS_RANK_RESOLVER)
static void
watch_forks(void)
{
    (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

HS_REGISTERS_FORK_WAIT
static void
settle_at_forks(void)
{
    (void)pthread_atfork(settle, open_gate, NULL);
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

/* Turns queued lookups into running ones; the caller launches them after it dropped the lock. */
static struct hs_lookup *
next_to_launch_locked(void)
{
    struct hs_lookup *l;

    if (forks > 0 || hs_list_empty(&queue) || running >= MAX_RUNNING || orphans >= MAX_ORPHANS)
        return NULL;
    l = HS_CONTAINER(queue.next, struct hs_lookup, link);
    hs_list_unlink(&l->link);
    hs_list_append(&active, &l->link);
    l->state = RUNNING;
    l->started_ns = hs_now();
    l->refs++; /* the thread's */
    running++;
    started++;
    return l;
}

static void
finish_locked(struct hs_lookup *l)
{
    l->state = FINISHED;
    l->finished_ns = hs_now();
    if (hs_list_empty(&l->tickets))
        orphans--;
    else
        running--;
    hs_list_unlink(&l->link);
    for (struct hs_list *t = l->tickets.next; t != &l->tickets; t = t->next) {
        ssize_t ignored = write(HS_CONTAINER(t, struct hs_ticket, link)->notify_fd, &(uint64_t){1},
                                sizeof(uint64_t));

        (void)ignored;
    }
    unref_locked(l, 2); /* active's and the thread's */
}

static void *
run(void *arg)
{
    struct hs_lookup *l = arg;
    struct addrinfo *list = NULL;
    bool forking;
    int sys;
    int gai = hs_getaddr(l->host, l->family, &list, &sys);

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
        if ((sys = hs_thread_start("hs-resolve", STACK_BYTES, run, l)) == 0)
            continue;
        hs_lock_take(&lock);
        l->gai = EAI_SYSTEM;
        l->sys = sys;
        finish_locked(l);
        hs_lock_drop(&lock);
    }
}

static struct hs_lookup *
find_locked(struct hs_list *list, const char *host, int family, bool orphan, int *ret_count)
{
    struct hs_lookup *found = NULL;

    for (struct hs_list *n = list->next; n != list; n = n->next) {
        struct hs_lookup *l = HS_CONTAINER(n, struct hs_lookup, link);

        if (l->family != family || strcmp(l->host, host) != 0 ||
            hs_list_empty(&l->tickets) != orphan)
            continue;
        found = l;
        (*ret_count)++;
    }
    return found;
}

/* A lookup of the same name that the newcomer may share, or NULL. */
static struct hs_lookup *
joinable_locked(const char *host, int family)
{
    struct hs_lookup *l;
    int wanted = 0, orphaned = 0;

    if ((l = find_locked(&active, host, family, false, &wanted)) != NULL ||
        (l = find_locked(&queue, host, family, false, &wanted)) != NULL)
        return l;
    l = find_locked(&active, host, family, true, &orphaned);
    if (orphaned < MAX_PER_NAME)
        return NULL;
    orphans--; /* It is wanted again. */
    running++;
    l->abandoned_ns = 0;
    return l;
}

static struct hs_lookup *
lookup_new(const char *host, int family)
{
    struct hs_lookup *l = calloc(1, sizeof(*l) + HS_MAX_ADDRS * sizeof(l->addrs[0]));

    if (l == NULL)
        return NULL;
    l->refs = 1; /* queue's, later active's */
    l->state = QUEUED;
    l->family = family;
    hs_list_init(&l->tickets);
    memcpy(l->host, host, strnlen(host, sizeof(l->host) - 1));
    return l;
}

hs_err
hs_lookup_enter(const char *host, int family, int notify_fd, struct hs_error *err,
                struct hs_ticket *ticket)
{
    struct hs_lookup *made = lookup_new(host, family);
    struct hs_lookup *l;

    if (made == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "connect", "no memory for a name lookup");
    hs_lock_take(&lock);
    l = joinable_locked(host, family);
    if (l == NULL) {
        l = made;
        made = NULL;
        lookups++;
        hs_list_append(&queue, &l->link);
    }
    l->refs++;
    *ticket = (struct hs_ticket){.lookup = l, .notify_fd = notify_fd};
    hs_list_append(&l->tickets, &ticket->link);
    hs_lock_drop(&lock);
    free(made);
    launch_queued();
    return HS_OK;
}

bool
hs_lookup_answer(struct hs_ticket *ticket, uint16_t port, struct hs_answer *ret_answer,
                 struct hs_addr *addrs)
{
    struct hs_lookup *l = ticket->lookup;
    bool finished;

    hs_lock_take(&lock);
    finished = l->state == FINISHED;
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
    return finished;
}

/* The last caller has gone: what has not started never will, what runs becomes an orphan. Returns
 * how many references are given up with it. */
static long
forsake_locked(struct hs_lookup *l)
{
    switch (l->state) {
    case QUEUED:
        hs_list_unlink(&l->link);
        return 1;
    case RUNNING:
        running--;
        orphans++;
        abandoned++;
        l->abandoned_ns = hs_now();
        break;
    case FINISHED:
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
        refs += forsake_locked(l);
    unref_locked(l, refs);
    hs_lock_drop(&lock);
    launch_queued(); /* Its place may be another's now. */
}

void
hs_resolver_stats(struct hs_resolver_stats *ret_stats)
{
    int64_t now = hs_now(), oldest = 0;

    hs_lock_take(&lock);
    for (struct hs_list *n = active.next; n != &active; n = n->next) {
        const struct hs_lookup *l = HS_CONTAINER(n, struct hs_lookup, link);

        if (l->abandoned_ns != 0 && now - l->abandoned_ns > oldest)
            oldest = now - l->abandoned_ns;
    }
    *ret_stats = (struct hs_resolver_stats){.running = running,
                                            .orphans = orphans,
                                            .live = lookups,
                                            .oldest_orphan_ns = oldest,
                                            .inherited = inherited,
                                            .started = started,
                                            .abandoned = abandoned};
    hs_lock_drop(&lock);
}
