/* waker.h: how a thread sleeps, and how it is woken.
 *
 * A thread has one waker (an eventfd). The one who wants to be woken links a node with its waker
 * into the wake lists of the things it depends on (a token, a connection), checks their state, and
 * then sleeps. The one who changes the state stores it first and wakes the list after. So a wake-up
 * is never lost, tokens cost no descriptor, and state, not the eventfd, is the truth: an eventfd
 * may fire for an old reason, and then the waiter merely looks again.
 */
#ifndef HS_CANCEL_WAKER_H
#define HS_CANCEL_WAKER_H

#include "hardsock.h"
#include "hardsock_binding.h"
#include "../base/list.h"
#include "../base/lock.h"
#include "../base/own_fd.h"

#include <stdatomic.h>

/* An eventfd, shared by its owner (a thread or an event loop) and those who are about to write
 * it. */
struct hs_waker {
    struct hs_own_fd efd;
    unsigned generation;
    atomic_int refs;
    atomic_bool pending;
    atomic_bool lost;           /* the program has closed efd: nothing rings it any more */
    struct hs_waker *ring_next; /* belongs to who set pending, until it has rung */
};

struct hs_waker *hs_waker_new(void); /* NULL: no memory or no descriptor */
void hs_waker_unref(struct hs_waker *w);
/* The owner's, before it looks at the state again. It may turn out to be lost. */
void hs_waker_drain(struct hs_waker *w);
/* The owner's: it has news for itself. Nobody rings a waker's eventfd but by this or a wake list:
 * one that is drained while somebody has set pending and not rung yet loses ring_next. */
void hs_waker_ring(struct hs_waker *w);

struct hs_wakelist {
    struct hs_lock lock;
    struct hs_list nodes; /* guarded by lock */
};

struct hs_wakenode {
    struct hs_list link;
    struct hs_waker *waker;
    void (*on_wake)(void *arg); /* NULL when a thread waits; called under the list's lock */
    void *arg;
};

void hs_wakelist_init(struct hs_wakelist *w);
void hs_wakelist_fini(struct hs_wakelist *w); /* the list must be empty */
void hs_wakelist_wake(struct hs_wakelist *w);
/* Descriptors have run out: until then threads that have no waker make none, and look up often
 * instead. Each would take the descriptor that a listener gives up to tell its queue. */
void hs_wakers_spare(int64_t until_ns);

/* Links this thread's waker. The same thread leaves. */
void hs_wakelist_join(struct hs_wakelist *w, struct hs_wakenode *node);
void hs_wakelist_leave(struct hs_wakelist *w, struct hs_wakenode *node);
/* It was joined without a waker, or with one that is lost, and wakes nobody: sleeps are short until
 * it is left. Who stays in a list for long leaves and joins again. */
bool hs_wakenode_is_deaf(const struct hs_wakenode *node);
/* The same for what waits without a thread of its own: on_wake(arg) is called before the waker
 * rings. hs_wakelist_leave as before. */
void hs_wakelist_join_for(struct hs_wakelist *w, struct hs_wakenode *node, struct hs_waker *waker,
                          void (*on_wake)(void *arg), void *arg);

/* The one place that sleeps: until fd has one of the events, the deadline passes, a signal handler
 * ran, or this thread's waker is woken. As hs_wait without a token. A waker whose eventfd the
 * program has closed wakes nobody: then sleeps are short, as without one, until the thread has left
 * all lists; then it gets another. HS_E_SYSTEM: with EBADF when fd is closed; else after a short
 * pause, so that trying again is no endless loop. */
HS_NODISCARD hs_err hs_sleep(int fd, short events, int64_t deadline_ns, struct hs_error *err,
                             short *ret_revents);

/* For one of several threads at one epoll set, of which each event wakes one: takes one event.
 * HS_OK, HS_INTR (a signal, or a slice of one second), or HS_E_SYSTEM. Wakers are not heard: what
 * has to end the wait is in the set. */
struct epoll_event;
HS_NODISCARD hs_err hs_wait_epoll(int epoll_fd, struct epoll_event *ret_event,
                                  struct hs_error *err);

#endif
