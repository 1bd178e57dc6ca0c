/* linger.c: see linger.h.
 *
 * Invariants, all under lock (rank LINGER):
 * - entries lists the n that there are; each is parked in the reactor, or in the hands of the
 *   thread, which alone takes one out and closes its descriptor.
 * - turn is held while the thread has one in its hands, and by nobody else but fork: it reads, and
 *   closes what it has taken out, under no other lock. So the one who brings one waits for neither,
 *   and a child finds each descriptor in the list, or closed.
 * - What one connection does costs no other anything: what is ready is read, and each counts its
 *   own.
 * - There is a thread exactly while there is a reactor; it ends when there is no entry, in the same
 *   critical section, and takes the reactor with it.
 * - Around a fork both locks are held, so that the child finds the list whole: it closes its copies
 *   and begins anew.
 */
#include "linger.h"

#include "fd_owner.h"
#include "../base/lock.h"
#include "../base/sys.h"
#include "../base/thread.h"
#include "../base/time.h"
#include "../cancel/reactor.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define MAX_ENTRIES 1024 /* More than these are closed at once. */
#define PATIENCE_NS (5 * HS_NS_PER_S)
#define STACK_BYTES ((size_t)128 * 1024)
/* Nobody may keep us busy by sending: 16 MiB at most. Tickets have some hundred bytes, which may
 * come one by one. */
#define MAX_READS 1024

struct entry {
    struct hs_parked parked;
    struct hs_list link;
    int64_t until_ns;
    int fd;
    int reads;
};

static struct hs_lock turn = HS_LOCK_STATIC(HS_RANK_LINGER_TURN);
static struct hs_lock lock = HS_LOCK_STATIC(HS_RANK_LINGER);
/* All below are guarded by lock. */
static struct hs_list entries = {&entries, &entries}; /* own; entry.link */
static long n;
static struct hs_reactor *reactor; /* the thread's; NULL: there is none */
/* Taken out, and not closed yet, or the reactor behind it. Set under both locks, cleared under
 * turn: so that nothing is said to be over before its descriptors are closed. */
static atomic_long closing;

static struct entry *
first_entry(void)
{
    return HS_CONTAINER(entries.next, struct entry, link);
}

static void
linger_take_out_locked(struct entry *e)
{
    hs_list_unlink(&e->link);
    n--;
}

static void
end_entry(struct entry *e)
{
    hs_fd_close_number(e->fd);
    free(e);
}

static void
linger_before_fork(void)
{
    hs_lock_take(&turn);
    hs_lock_take(&lock);
}

static void
linger_after_fork_in_parent(void)
{
    hs_lock_drop(&lock);
    hs_lock_drop(&turn);
}

static void
linger_after_fork_in_child(void)
{
    while (n > 0) {
        struct entry *e = first_entry();

        linger_take_out_locked(e);
        end_entry(e);
    }
    hs_reactor_free(reactor);
    reactor = NULL;
    hs_lock_drop(&lock);
    hs_lock_drop(&turn);
}

HS_REGISTERS_FORK_LOCK(HS_RANK_LINGER_TURN)
static void
linger_watch_forks(void)
{
    (void)pthread_atfork(linger_before_fork, linger_after_fork_in_parent,
                         linger_after_fork_in_child);
}

static bool
linger_park(struct hs_reactor *r, struct entry *e)
{
    return hs_reactor_park(r, &e->parked, e->fd, EPOLLIN, e->until_ns, NULL) == HS_OK;
}

/* True: it is over. */
static bool
drain(struct entry *e)
{
    uint8_t scratch[16384];
    ssize_t got = hs_sys_recv(e->fd, scratch, sizeof(scratch), MSG_DONTWAIT);

    if (got > 0)
        return ++e->reads >= MAX_READS;
    return got == 0 || (errno != EAGAIN && errno != EINTR);
}

/* False: there is none left, and the thread has to go. */
static bool
linger_serve(struct hs_reactor *r, struct entry *e)
{
    bool over, more;

    hs_lock_take(&turn);
    over = e->parked.cause == HS_CAUSE_TIME || drain(e) || !linger_park(r, e);
    hs_lock_take(&lock);
    if (over) {
        linger_take_out_locked(e);
        atomic_store(&closing, 1);
    }
    more = n > 0;
    if (!more)
        reactor = NULL;
    hs_lock_drop(&lock);
    if (over) {
        hs_reactor_forget(r, &e->parked);
        end_entry(e);
    }
    if (!more)
        hs_reactor_free(r);
    atomic_store(&closing, 0);
    hs_lock_drop(&turn);
    return more;
}

static void *
linger_run(void *arg)
{
    struct hs_reactor *r = arg;
    struct hs_parked *p;

    do /* There is an entry, so this is woken at its time at the latest. */
        while (hs_reactor_next(r, true, NULL, &p) != HS_OK)
            continue;
    while (linger_serve(r, HS_CONTAINER(p, struct entry, parked)));
    return NULL;
}

/* With its first entry, so that the thread never waits for nothing. */
static bool
linger_start_locked(struct entry *e)
{
    struct hs_reactor *r;

    if (hs_reactor_new(NULL, &r) != HS_OK)
        return false;
    if (linger_park(r, e)) {
        if (hs_thread_start("hs-linger", STACK_BYTES, linger_run, r) == 0) {
            reactor = r;
            return true;
        }
        (void)hs_reactor_take_this(r, &e->parked);
    }
    hs_reactor_free(r);
    return false;
}

static bool
linger_add_locked(int fd)
{
    struct entry *e;

    if (n >= MAX_ENTRIES || (e = hs_sys_calloc(1, sizeof(*e))) == NULL)
        return false;
    e->fd = fd;
    e->until_ns = hs_deadline_after(PATIENCE_NS);
    if (reactor != NULL ? !linger_park(reactor, e) : !linger_start_locked(e)) {
        if (reactor != NULL)
            hs_reactor_forget(reactor, &e->parked);
        free(e);
        return false;
    }
    hs_list_append(&entries, &e->link);
    n++;
    return true;
}

void
hs_linger(int fd)
{
    bool kept;

    (void)hs_sys_shutdown(fd, SHUT_WR);
    hs_lock_take(&lock);
    kept = linger_add_locked(fd);
    hs_lock_drop(&lock);
    if (!kept)
        hs_fd_close_number(fd);
}

long
hs_linger_live(void)
{
    long count;

    hs_lock_take(&lock);
    count = n + atomic_load(&closing);
    hs_lock_drop(&lock);
    return count;
}
