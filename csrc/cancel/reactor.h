/* reactor.h: what is parked until a descriptor or a time says that there is something to do, and
 * the threads that wait for the next of it.
 *
 * A thing that is parked costs its own memory, a slot, and no thread. Any number of threads may
 * wait; each event wakes one of them. The one who is given a thing owns it alone until it parks it
 * again, so that no two threads ever work on one.
 *
 *     hs_reactor_park(r, &thing->parked, fd, EPOLLIN, deadline, ...)
 *     hs_reactor_next(r, true, ..., &p) == HS_OK:  p is thing->parked; p->cause says why
 *
 * In a forked child it can only be freed.
 */
#ifndef HS_CANCEL_REACTOR_H
#define HS_CANCEL_REACTOR_H

#include "timers.h"
#include "../base/list.h"

enum hs_cause {
    HS_CAUSE_READY,  /* parked.events: what epoll said */
    HS_CAUSE_TIME,   /* its time has come */
    HS_CAUSE_CALLED, /* by hs_reactor_call, or hs_reactor_queue */
};

/* Embedded in what can be parked. All zero before the first time; belongs to the reactor. */
struct hs_parked {
    struct hs_list link; /* in waiting or due; else of no meaning */
    struct hs_timer timer, age;
    /* Its owner's: in its lane hs_reactor_take finds the earliest of these, however often one was
     * parked again, before any that has none (0). */
    int64_t since_ns;
    uint32_t slot;   /* index + 1; 0: none */
    uint32_t events; /* of epoll(7), as the next: for the one who is given it */
    unsigned char cause;
    unsigned char state;
    unsigned char lane; /* its owner's, below HS_LANES: among whom hs_reactor_take finds it */
};

#define HS_LANES 2

struct hs_reactor;

HS_NODISCARD hs_err hs_reactor_new(struct hs_error *err, struct hs_reactor **ret_r);
/* Nothing may be parked, nobody may wait. NULL is fine. */
void hs_reactor_free(struct hs_reactor *r);
/* Of epoll(7); for who is told to wait by hs_reactor_poll. */
int hs_reactor_fileno(const struct hs_reactor *r);
/* HS_E_SYSTEM (EBADF): the program has closed what it waits with. All that was parked is due,
 * nothing can be parked any more, and who waits is told so once nothing is due. */
HS_NODISCARD hs_err hs_reactor_check(struct hs_reactor *r, struct hs_error *err);
/* The one who waits, and who comes later, gets HS_E_CLOSED once nothing is due. Idempotent. */
void hs_reactor_close(struct hs_reactor *r);

/* Parks what the caller owns, until fd has one of the events, or at_ns. fd -1: only the time
 * counts. fd must be surely its own during the call; closing it takes it out of the set by itself.
 * On failure (HS_E_NOMEM, HS_E_SYSTEM, HS_E_FORKED) it is still the caller's. */
HS_NODISCARD hs_err hs_reactor_park(struct hs_reactor *r, struct hs_parked *p, int fd,
                                    uint32_t events, int64_t at_ns, struct hs_error *err);
/* Makes what the caller owns due at once, behind all that is due now, also in the kernel. */
void hs_reactor_queue(struct hs_reactor *r, struct hs_parked *p);
/* From any thread: makes it due if it waits; else its owner will find out what has changed. */
void hs_reactor_call(struct hs_reactor *r, struct hs_parked *p);
/* The same for all that wait. */
void hs_reactor_call_all(struct hs_reactor *r);
/* The next that is due, which is the caller's from now on. wait: sleeps until there is one, or
 * HS_INTR (a signal, or a second has passed). Else HS_WANT when there is none. HS_E_CLOSED,
 * HS_E_FORKED, HS_E_SYSTEM. */
HS_NODISCARD hs_err hs_reactor_next(struct hs_reactor *r, bool wait, struct hs_error *err,
                                    struct hs_parked **ret_p);
/* The same for who waits elsewhere, in an event loop: HS_WANT when nothing is due, and then
 * hs_reactor_fileno is readable as soon as something may be. For one at a time, who calls again
 * after each that is given, until HS_WANT: before that nothing is told. HS_E_SYSTEM, also when the
 * kernel does not say what is ready. */
HS_NODISCARD hs_err hs_reactor_poll(struct hs_reactor *r, struct hs_error *err,
                                    struct hs_parked **ret_p);
/* The same for any number at once, who come and go, and may leave something undone: the descriptor
 * stays readable for the others. Not to be mixed with hs_reactor_poll. */
HS_NODISCARD hs_err hs_reactor_poll_any(struct hs_reactor *r, struct hs_error *err,
                                        struct hs_parked **ret_p);
/* Makes due what the kernel has, without taking any. */
void hs_reactor_collect(struct hs_reactor *r);
/* The one with the earliest since_ns in the lane, else the one that has waited for longest, which
 * is the caller's from now on; NULL: there is none, or it does not fit. fits (NULL: it does) runs
 * under the lock: it looks, and calls nothing. */
struct hs_parked *hs_reactor_take(struct hs_reactor *r, unsigned lane,
                                  bool (*fits)(const struct hs_parked *p, const void *arg),
                                  const void *arg);
/* Exactly this one, which is the caller's from now on; false: it does not wait (it is due, or has
 * an owner). It must not be freed meanwhile. */
bool hs_reactor_take_this(struct hs_reactor *r, struct hs_parked *p);
/* Whether it waits, at this moment. It must not be freed meanwhile. */
bool hs_reactor_waits(struct hs_reactor *r, const struct hs_parked *p);
/* Gives up the slot of what the caller owns. */
void hs_reactor_forget(struct hs_reactor *r, struct hs_parked *p);

/* The same, where fd, its owner's, stays open: takes it out of the set. */
void hs_reactor_leave(struct hs_reactor *r, struct hs_parked *p, int fd);
/* Of those that wait in the lane and have a since_ns: the earliest (HS_NEVER: none), how many. */
int64_t hs_reactor_earliest(struct hs_reactor *r, unsigned lane);
size_t hs_reactor_count(struct hs_reactor *r, unsigned lane);

struct hs_reactor_counts {
    size_t waiting, due, sleeping; /* sleeping: threads */
};
void hs_reactor_counts(struct hs_reactor *r, struct hs_reactor_counts *ret_counts);

#endif
