/* worker.h: the one thread that tends pools, as dials, pings and pools see it.
 *
 * It runs as long as there are pools. It works in turns: what is due is stepped, then it sleeps in
 * hs_wait. A task is something with a stepped op that runs in it.
 */
#ifndef HS_POOL_WORKER_H
#define HS_POOL_WORKER_H

#include "../cancel/loop.h"
#include "pool_impl.h"

#include <poll.h>

struct task {
    struct hs_list link;  /* in pool worker's list of tasks */
    struct hs_list again; /* in pool worker's list of those to be stepped in the next round */
    struct worker *worker;
    struct hs_pool
        *pool; /* borrows: it is in the pool worker's list; NULL: the pool worker's own */
    struct hs_op op;
    struct hs_loop_waiter *loop_waiter; /* owns */
    /* Steps it once: HS_WANT to be parked again, HS_INTR to be stepped again soon; else it has
     * ended and freed itself. */
    hs_err (*step)(struct task *task);
    /* Ends and frees it; err: why it cannot go on, NULL: it is not wanted any more. */
    void (*call_off)(struct task *task, const struct hs_error *err);
    /* In a forked child: frees it, and tells nobody. */
    void (*forget)(struct task *task);
};

/* Lists the pool; starts the thread if it does not run. From the first time on it is one of all. */
HS_NODISCARD hs_err hs_pool_worker_add(struct hs_pool *p, struct hs_error *err);

/* It is none any more, and its counts are added to those of ended pools. */
void hs_pool_census_remove(struct hs_pool *p);

/* In the pool worker's thread: */
/* HS_OK: the task is stepped from now on. Else it is as it was. */
HS_NODISCARD hs_err hs_task_begin(struct worker *k, struct task *task, struct hs_pool *p,
                                  struct hs_error *err);
void hs_task_end(struct task *task);
const struct hs_own_fd *hs_pool_worker_watch(const struct worker *k); /* the epoll set */

/* ---- tend.c ---- */
/* Does what is due; returns when (hs_now) it wants to be visited again. *ret_done: the pool is
 * closed, and the pool worker has nothing more to do with it. */
int64_t hs_pool_tend(struct hs_pool *p, struct worker *k, bool *ret_done);
/* Something has come on a watched connection. */
void hs_pool_on_event(struct hs_pool *p, uint32_t index);

/* ---- dial.c ---- */
/* A member that is DIALING already. On failure the dial has failed, and the pool was told. */
void hs_dial_begin(struct hs_pool *p, struct hs_member *m, struct worker *k);
/* Reserves members for the dials that are wanted now; returns how many. */
size_t hs_dials_wanted_locked(struct hs_pool *p, int64_t now, struct hs_member **members, size_t n,
                              int64_t *ret_again_ns);

/* There is something for the pool worker to begin. */
bool hs_dials_may_begin_locked(const struct hs_pool *p);

/* ---- ping.c ---- */
/* A member that is TENDED. */
void hs_ping_begin(struct hs_pool *p, struct hs_member *m, struct worker *k);

#endif
