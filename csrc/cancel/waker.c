/* waker.c: the wakers of threads, the lists that wake them, and the sleep.
 *
 * Owns one eventfd per thread that ever waited; it is made on first use and closed when the thread
 * ends and nobody is about to write it. Only its thread reads it; the one who finds the thread's
 * node in a wake list, under the lock of that list, takes a reference and writes it after. After a
 * fork the child makes its own: a shared eventfd would let two processes steal each other's
 * wake-ups. Knows neither tokens nor event loops: those build on it.
 *
 * Invariants: a waker's pending flag is set before its eventfd is written, and cleared after the
 * eventfd was read and before the state is looked at again; who has set it rings once, so that a
 * readable eventfd says that ring_next has been read; the thread leaves every list before it
 * returns. A waker that the program has closed is never mended, for one who has set pending may be
 * on the way to it: it is replaced, once its thread is in no list.
 */
#include "waker.h"

#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#define SLICE_NS HS_NS_PER_S
#define DEAF_SLICE_NS (20 * HS_NS_PER_MS)

/* For a thread whose eventfd cannot be made, for want of descriptors or memory: it cannot be
 * woken, so it looks up often. Nobody else's wait may fail for that: a listener must survive it. */
static struct hs_waker deaf = {.efd = {-1, 0}, .refs = 1};

static _Atomic int64_t scarce_until_ns;
static _Atomic unsigned fork_generation;
/* What ends a thread's waker with it: the key of pthread_key_create(3), plus 1; 0: not made yet. */
static _Atomic(uintptr_t) key;
static _Thread_local struct hs_waker *own_waker;
/* How many lists this thread has joined without a waker: it may get one while it is in them. */
static _Thread_local unsigned unheard;
/* How many it has joined with its own_waker: only then it may be replaced when it is lost. */
static _Thread_local unsigned heard;

unsigned
hs_fork_generation(void)
{
    return atomic_load_explicit(&fork_generation, memory_order_relaxed);
}

static void
waker_after_fork_in_child(void)
{
    atomic_fetch_add_explicit(&fork_generation, 1, memory_order_relaxed);
}

/* Runs as the library is loaded, before anybody can hold anything across a fork; and before the
 * other handlers' constructors (they have higher numbers): in a child they rely on the generation.
 * */
__attribute__((constructor(200))) static void
waker_watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, waker_after_fork_in_child);
}

void
hs_waker_unref(struct hs_waker *w)
{
    if (atomic_fetch_sub(&w->refs, 1) != 1)
        return;
    hs_own_fd_close(&w->efd);
    free(w);
}

static void
end_thread(void *arg)
{
    struct hs_waker *w = own_waker;

    (void)arg;
    own_waker = NULL;
    if (w != NULL)
        hs_waker_unref(w);
}

/* From now on end_thread() is called as this thread ends. */
static bool
will_hear_of_end(void)
{
    pthread_key_t fresh = 0;
    uintptr_t none = 0;

    if (atomic_load(&key) == 0) {
        if (hs_sys_pthread_key_create(&fresh, end_thread) != 0)
            return false; /* The next one who waits tries again. */
        if (!atomic_compare_exchange_strong(&key, &none, (uintptr_t)fresh + 1))
            (void)pthread_key_delete(fresh);
    }
    return hs_sys_pthread_setspecific((pthread_key_t)(atomic_load(&key) - 1), &own_waker) == 0;
}

struct hs_waker *
hs_waker_new(void)
{
    struct hs_waker *w = hs_sys_calloc(1, sizeof(*w));

    if (w == NULL)
        return NULL;
    w->generation = hs_fork_generation();
    w->refs = 1; /* the owner's */
    if (!hs_own_fd_open(&w->efd, hs_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))) {
        free(w);
        return NULL;
    }
    return w;
}

void
hs_wakers_spare(int64_t until_ns)
{
    atomic_store(&scarce_until_ns, until_ns);
}

static struct hs_waker *
thread_waker_new(void)
{
    struct hs_waker *w;

    if (atomic_load(&scarce_until_ns) > hs_now())
        return NULL;
    w = hs_waker_new();
    if (w != NULL && !will_hear_of_end()) {
        hs_waker_unref(w);
        return NULL;
    }
    return w;
}

static struct hs_waker *
get_waker(void)
{
    if (own_waker != NULL && (own_waker->generation != hs_fork_generation() ||
                              (heard == 0 && atomic_load(&own_waker->lost)))) {
        hs_waker_unref(own_waker);
        own_waker = NULL;
        heard = 0;
    }
    if (own_waker == NULL)
        own_waker = thread_waker_new();
    return own_waker != NULL ? own_waker : &deaf;
}

void
hs_wakelist_init(struct hs_wakelist *w)
{
    hs_lock_init(&w->lock, HS_RANK_WAKELIST);
    hs_list_init(&w->nodes);
}

void
hs_wakelist_fini(struct hs_wakelist *w)
{
    HS_ASSERT(hs_list_empty(&w->nodes));
    hs_lock_fini(&w->lock);
}

static void
waker_write(struct hs_waker *w)
{
    if (w != &deaf && !hs_own_fd_ring(&w->efd))
        atomic_store(&w->lost, true);
}

void
hs_waker_ring(struct hs_waker *w)
{
    if (!atomic_exchange(&w->pending, true)) /* Else somebody is about to ring. */
        waker_write(w);
}

/* Rings after the lock is dropped: a thread that wakes up at once would run into it. */
void
hs_wakelist_wake(struct hs_wakelist *w)
{
    struct hs_waker *to_ring = NULL, *next;

    hs_lock_take(&w->lock);
    for (struct hs_list *l = w->nodes.next; l != &w->nodes; l = l->next) {
        struct hs_wakenode *node = HS_CONTAINER(l, struct hs_wakenode, link);
        struct hs_waker *waker = node->waker;

        if (node->on_wake != NULL)
            node->on_wake(node->arg);
        if (atomic_exchange(&waker->pending, true))
            continue;
        atomic_fetch_add_explicit(&waker->refs, 1, memory_order_relaxed);
        waker->ring_next = to_ring;
        to_ring = waker;
    }
    hs_lock_drop(&w->lock);
    for (; to_ring != NULL; to_ring = next) {
        next = to_ring->ring_next; /* After the ring it is the next waker's. */
        waker_write(to_ring);
        hs_waker_unref(to_ring);
    }
}

bool
hs_wakenode_is_deaf(const struct hs_wakenode *node)
{
    return node->waker == &deaf || atomic_load(&node->waker->lost);
}

void
hs_wakelist_join(struct hs_wakelist *w, struct hs_wakenode *node)
{
    hs_wakelist_join_for(w, node, get_waker(), NULL, NULL);
    if (node->waker == &deaf)
        unheard++;
    else
        heard++;
}

void
hs_wakelist_join_for(struct hs_wakelist *w, struct hs_wakenode *node, struct hs_waker *waker,
                     void (*on_wake)(void *arg), void *arg)
{
    node->waker = waker;
    node->on_wake = on_wake;
    node->arg = arg;
    hs_lock_take(&w->lock);
    hs_list_append(&w->nodes, &node->link);
    hs_lock_drop(&w->lock);
}

void
hs_wakelist_leave(struct hs_wakelist *w, struct hs_wakenode *node)
{
    hs_lock_take(&w->lock);
    hs_list_unlink(&node->link);
    hs_lock_drop(&w->lock);
    if (node->waker == &deaf)
        unheard--;
    else if (node->waker == own_waker)
        heard--;
}

/* Reads before it clears the flag: a waker that still sees the flag set has stored its news before
 * our look at the state, which comes after. The other way round a ring could be read away and the
 * flag stay set, and every later wake-up would be lost. */
void
hs_waker_drain(struct hs_waker *w)
{
    if (hs_own_fd_drain(&w->efd))
        atomic_store(&w->pending, false);
    else /* Who has set pending may be on the way yet: it stays. */
        atomic_store(&w->lost, true);
}

/* Waits; where the program has closed the waker's eventfd, shortly and without it. */
static int
waker_poll(struct hs_waker *w, struct pollfd *fds, int64_t now, int64_t deadline_ns,
           int64_t *ret_until)
{
    bool hears = w != &deaf && unheard == 0 && !atomic_load(&w->lost);
    int64_t until = hs_min_ns(deadline_ns, now + (hears ? SLICE_NS : DEAF_SLICE_NS));
    struct timespec timeout = hs_timespec_until(until, now);
    int n = hs_sys_ppoll(fds, 2, &timeout, NULL);

    if (n > 0 && (fds[0].revents & POLLNVAL) != 0) {
        atomic_store(&w->lost, true);
        fds[0] = (struct pollfd){.fd = -1};
        until = hs_min_ns(deadline_ns, now + DEAF_SLICE_NS);
        timeout = hs_timespec_until(until, now);
        n = hs_sys_ppoll(fds, 2, &timeout, NULL);
    }
    *ret_until = until;
    return n;
}

/* Where the kernel lets nobody wait (no memory; RLIMIT_NOFILE below 2), nobody who tries again and
 * again uses up a processor. */
static void
pause_instead(int64_t now, int64_t deadline_ns)
{
    struct timespec until = hs_timespec_until(hs_min_ns(deadline_ns, now + DEAF_SLICE_NS), now);

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &until, NULL);
}

hs_err
hs_sleep(int fd, short events, int64_t deadline_ns, struct hs_error *err, short *ret_revents)
{
    struct hs_waker *w = get_waker();
    struct pollfd fds[2] = {{.fd = atomic_load(&w->lost) ? -1 : w->efd.number, .events = POLLIN},
                            {.fd = fd, .events = events}};
    int64_t now = hs_now(), until;
    int n = waker_poll(w, fds, now, deadline_ns, &until);

    if (n < 0 && errno != EINTR) {
        int sys = errno;

        pause_instead(now, deadline_ns);
        return hs_err_set(err, HS_E_SYSTEM, sys, NULL, "ppoll");
    }
    if (n < 0)
        return HS_INTR;
    if (fds[0].revents != 0)
        hs_waker_drain(w);
    if (n > 0 && (fds[1].revents & POLLNVAL) != 0) /* Its next owner may never say anything. */
        return hs_err_set(err, HS_E_SYSTEM, EBADF, NULL, "ppoll");
    if (n > 0) {
        *ret_revents = fds[1].revents;
        return HS_OK;
    }
    /* The kernel never wakes early by CLOCK_MONOTONIC, so a full slice or deadline has passed. */
    return until == deadline_ns ? HS_E_DEADLINE : HS_INTR;
}

hs_err
hs_wait_epoll(int epoll_fd, struct epoll_event *ret_event, struct hs_error *err)
{
    int n = hs_sys_epoll_wait(epoll_fd, ret_event, 1, SLICE_NS / HS_NS_PER_MS);

    if (n == 1)
        return HS_OK;
    if (n < 0 && errno != EINTR)
        return hs_err_set(err, HS_E_SYSTEM, errno, NULL, "epoll_wait");
    return HS_INTR;
}
