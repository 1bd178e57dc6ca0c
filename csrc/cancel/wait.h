/* wait.h: waiting for a descriptor, a time, a token and a change.
 *
 * Builds on waker.h: a file that only needs wake lists includes that.
 */
#ifndef HS_CANCEL_WAIT_H
#define HS_CANCEL_WAIT_H

#include "waker.h"

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

/* Between two rounds of a thread of ours, which stays in a wake list: until fd, which may be -1, is
 * readable, the time comes, or the list is woken. Afterwards the thread looks at all that it tends:
 * it may have been left out of the list for a moment, since a node that was joined without a waker
 * is joined again. Where fd cannot be waited for any more, since the program has closed it, rounds
 * come every 50 ms. */
void hs_wait_round(struct hs_wakelist *list, struct hs_wakenode *node, int fd, int64_t until_ns);

/* The same as hs_wait for an op: sleeps, or with op->stepping fills want_* and returns HS_WANT.
 * until_ns is a further time at which the caller wants control back (HS_OK with revents 0). */
HS_NODISCARD hs_err hs_wait_op(struct hs_op *op, int fd, short events, int64_t deadline_ns,
                               int64_t until_ns, struct hs_error *err, short *ret_revents);

/* HS_OK, or why the op may not go on: token ended, or deadline passed (not for HS_TRY_ONCE). */
HS_NODISCARD hs_err hs_op_check(const struct hs_op *op, int64_t deadline_ns, struct hs_error *err);
/* The check at the beginning of a call. A step that comes back from waiting is only refused by a
 * cancelled token: readiness, which it has not tried yet, wins over a deadline. */
HS_NODISCARD hs_err hs_op_begin(struct hs_op *op, int64_t other_deadline_ns, struct hs_error *err);

/* ---- Changes ------------------------------------------------------------------------------- */

struct hs_change;

/* Looks at the state, after the call has begun to listen. HS_WANT: wait, as the change says, which
 * it may alter. All else ends the wait with it. */
typedef hs_err hs_look(void *arg, struct hs_change *change);

/* What a call waits for: a change that is told by waking the list after it was stored. */
struct hs_change {
    struct hs_wakelist *list;
    struct hs_token *told; /* or NULL: heard too; look asks it */
    hs_look *look;
    void *arg;
    int fd; /* readiness ends the wait too; -1: only the change */
    short events;
    uint64_t id;                   /* as hs_op.want_id */
    int64_t deadline_ns, until_ns; /* as for hs_wait_op */
    bool looked;                   /* set by the wait: it ended by what look said */
};

/* The one way in which a call waits for something of ours. It listens, a thread by its waker and a
 * stepped op by the waiter of its loop, looks, and waits if it has to. HS_OK: something has
 * happened, or look said so; else what look or hs_wait_op said. An op that only tries is not
 * linked. A waiter of a loop goes on listening until it is unparked. */
HS_NODISCARD hs_err hs_wait_change(struct hs_op *op, struct hs_change *change,
                                   struct hs_error *err);
/* The same for a change alone, again and again until look ends it: HS_OK is look's. */
HS_NODISCARD hs_err hs_await_change(struct hs_op *op, struct hs_wakelist *list, hs_look *look,
                                    void *arg, struct hs_error *err);

#endif
