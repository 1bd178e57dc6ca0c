/* wait.h: the one place that sleeps, and how to be woken from it.
 *
 * A thread has one waker (an eventfd). The one who wants to be woken links a node with its waker
 * into the wake lists of the things it depends on (a token, a connection), checks their state, and
 * then waits. The one who changes the state stores it first and wakes the list after. So a wake-up
 * is never lost, tokens cost no descriptor, and state, not the eventfd, is the truth: an eventfd
 * may fire for an old reason, and then the waiter merely looks again.
 */
#ifndef HS_CANCEL_WAIT_H
#define HS_CANCEL_WAIT_H

#include "hardsock.h"
#include "../base/list.h"
#include "../base/lock.h"

#include <stdatomic.h>

/* An eventfd, shared by its owner (a thread or an event loop) and those who are about to write
 * it. */
struct hs_waker {
    int efd;
    unsigned generation;
    atomic_int refs;
    atomic_bool pending;
    struct hs_waker *ring_next; /* belongs to who set pending, until it has rung */
};

struct hs_waker *hs_waker_new(void); /* NULL: no memory or no descriptor */
void hs_waker_unref(struct hs_waker *w);
/* The owner's, before it looks at the state again. */
void hs_waker_drain(struct hs_waker *w);

struct hs_wakelist {
    struct hs_lock lock;
    struct hs_list nodes; /* guarded by lock */
};

struct hs_wakenode {
    struct hs_list link;
    struct hs_waker *waker;
    struct hs_loop_waiter *loop_waiter; /* NULL when a thread waits */
};

void hs_wakelist_init(struct hs_wakelist *w);
void hs_wakelist_fini(struct hs_wakelist *w); /* the list must be empty */
void hs_wakelist_wake(struct hs_wakelist *w);
/* Makes an eventfd readable. */
void hs_eventfd_ring(int efd);

/* Descriptors have run out: until then threads that have no waker make none, and look up often
 * instead. Each would take the descriptor that a listener gives up to tell its queue. */
void hs_wakers_spare(int64_t until_ns);

/* Links this thread's waker. */
void hs_wakelist_join(struct hs_wakelist *w, struct hs_wakenode *node);
void hs_wakelist_leave(struct hs_wakelist *w, struct hs_wakenode *node);
/* The same for an op that waits in an event loop; hs_wakelist_leave as before. */
void hs_wakelist_join_loop(struct hs_wakelist *w, struct hs_wakenode *node, struct hs_waker *waker,
                           struct hs_loop_waiter *loop_waiter);

/* Waits until fd has one of the events, the token ends, the deadline passes, a signal handler ran,
 * or this thread's waker is woken. fd may be -1: then only the rest counts. token may be NULL.
 * Blocks; takes no lock over the wait; borrows everything until it returns.
 * Returns HS_OK (*ret_revents set; 0 means that somebody woke us: look at your state again),
 * HS_E_DEADLINE, HS_E_CANCELLED, HS_INTR (a signal, or a slice of one second has passed so that a
 * signal that came just before the wait is seen late, not never), or HS_E_SYSTEM.
 * An ended token wins over readiness, readiness wins over a passed deadline.
 */
HS_NODISCARD hs_err hs_wait(int fd, short events, struct hs_token *token, int64_t deadline_ns,
                            struct hs_error *err, short *ret_revents);

/* For one of several threads at one epoll set, of which each event wakes one: takes one event.
 * HS_OK, HS_INTR (a signal, or a slice of one second), or HS_E_SYSTEM. Wakers are not heard: what
 * has to end the wait is in the set. */
struct epoll_event;
HS_NODISCARD hs_err hs_wait_epoll(int epoll_fd, struct epoll_event *ret_event,
                                  struct hs_error *err);

/* The same as hs_wait for an op: sleeps, or with op->stepping fills want_* and returns HS_WANT.
 * until_ns is a further time at which the caller wants control back (HS_OK with revents 0). */
HS_NODISCARD hs_err hs_wait_op(struct hs_op *op, int fd, short events, int64_t deadline_ns,
                               int64_t until_ns, struct hs_error *err, short *ret_revents);

/* HS_OK, or why the op may not go on: token ended, or deadline passed (not for HS_TRY_ONCE). */
HS_NODISCARD hs_err hs_op_check(const struct hs_op *op, int64_t deadline_ns, struct hs_error *err);
/* The check at the beginning of a call. A step that comes back from waiting is only refused by a
 * cancelled token: readiness, which it has not tried yet, wins over a deadline. */
HS_NODISCARD hs_err hs_op_begin(struct hs_op *op, int64_t other_deadline_ns, struct hs_error *err);

/* Changes in every child of a fork: what was made before belongs to the parent. */
unsigned hs_fork_generation(void);

#endif
