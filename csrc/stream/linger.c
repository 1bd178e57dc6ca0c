/* linger.c: see linger.h.
 *
 * Invariants, all under lock (rank LINGER):
 * - A place that is taken is in the epoll set, under its index; only the thread takes it out and
 *   closes it, and moves the last place to where it was.
 * - What one connection does costs no other anything: what is ready is read, and each counts its
 *   own.
 * - There is a thread exactly while running; it ends when no place is taken, in the same critical
 *   section, and takes the epoll set with it.
 * - Around a fork the lock is held, so that the child finds the table whole: it closes its copies
 *   and begins anew.
 */
#include "linger.h"

#include "fd.h"
#include "../base/lock.h"
#include "../base/thread.h"
#include "../base/time.h"
#include "../cancel/wait.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_PLACES 1024 /* More than these are closed at once. */
#define PATIENCE_NS (5 * HS_NS_PER_S)
#define STACK_BYTES ((size_t)128 * 1024)
/* Nobody may keep us busy by sending: 16 MiB at most. Tickets have some hundred bytes, which may
 * come one by one. */
#define MAX_READS 1024
#define BATCH 64

static struct hs_lock lock = HS_LOCK_STATIC(HS_RANK_LINGER);
/* All below are guarded by lock. */
static struct {
    int64_t until_ns;
    int fd;
    int reads;
} places[MAX_PLACES]; /* the first n are taken */
static long n;
static int epoll_fd = -1;
static bool running;

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

static void
after_fork_in_child(void)
{
    while (n > 0)
        hs_fd_close_number(places[--n].fd);
    if (epoll_fd >= 0)
        (void)close(epoll_fd);
    epoll_fd = -1;
    running = false;
    hs_lock_drop(&lock);
}

HS_REGISTERS_FORK_LOCK(HS_RANK_LINGER)
static void
watch_forks(void)
{
    (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static bool
watch_place(int op, long i)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = (uint64_t)i};

    return epoll_ctl(epoll_fd, op, places[i].fd, &ev) == 0;
}

static void
leave_place(long i)
{
    /* Closing alone leaves it in the set while somebody has a duplicate. */
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, places[i].fd, NULL);
    hs_fd_close_number(places[i].fd);
    places[i] = places[--n];
    if (i < n && !watch_place(EPOLL_CTL_MOD, i))
        places[i].until_ns = 0; /* It would not be heard of again. */
}

/* True: it is over. */
static bool
drain(long i)
{
    uint8_t scratch[16384];
    ssize_t got = recv(places[i].fd, scratch, sizeof(scratch), MSG_DONTWAIT);

    if (got > 0)
        return ++places[i].reads >= MAX_READS;
    return got == 0 || (errno != EAGAIN && errno != EINTR);
}

/* Of a batch those stay behind that were moved: the set, which is asked for what is and not for
 * what has changed, names them again. */
static void
read_ready(void)
{
    struct epoll_event events[BATCH];
    int n_ready = epoll_wait(epoll_fd, events, BATCH, 0);

    for (int k = 0; k < n_ready; k++) {
        long i = (long)events[k].data.u64;

        if (i < n && drain(i))
            leave_place(i);
    }
}

/* Reads what is there; closes what has ended or had its time. False: none is left, and the thread
 * has to go. */
static bool
sweep(void)
{
    int64_t now;
    bool more;

    hs_lock_take(&lock);
    read_ready();
    now = hs_now();
    for (long i = 0; i < n;)
        if (places[i].until_ns <= now)
            leave_place(i);
        else
            i++;
    more = n > 0;
    if (!more) {
        (void)close(epoll_fd);
        epoll_fd = -1;
        running = false;
    }
    hs_lock_drop(&lock);
    return more;
}

static void *
run(void *arg)
{
    int fd = (int)(intptr_t)arg;
    short revents;

    do {
        hs_err rv = hs_wait(fd, POLLIN, NULL, hs_deadline_after(HS_NS_PER_S), NULL, &revents);

        (void)rv; /* Whatever woke us: the sockets tell. */
    } while (sweep());
    return NULL;
}

static bool
start_locked(void)
{
    if (running)
        return true;
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0)
        return false;
    running = hs_thread_start("hs-linger", STACK_BYTES, run, (void *)(intptr_t)epoll_fd) == 0;
    if (!running) {
        (void)close(epoll_fd);
        epoll_fd = -1;
    }
    return running;
}

void
hs_linger(int fd)
{
    bool kept = false;

    (void)shutdown(fd, SHUT_WR);
    hs_lock_take(&lock);
    if (n < MAX_PLACES && start_locked()) {
        places[n].fd = fd;
        places[n].until_ns = hs_deadline_after(PATIENCE_NS);
        places[n].reads = 0;
        kept = watch_place(EPOLL_CTL_ADD, n);
        n += kept ? 1 : 0;
    }
    hs_lock_drop(&lock);
    if (!kept)
        hs_fd_close_number(fd);
}

long
hs_linger_live(void)
{
    long count;

    hs_lock_take(&lock);
    count = n;
    hs_lock_drop(&lock);
    return count;
}
