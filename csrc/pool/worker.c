/* worker.c: the one thread of the library that tends all pools.
 *
 * It starts with the first pool and ends by itself when the last one is gone: nobody joins it, not
 * exit, not fork. It works in turns (step the tasks that are due, visit the pools that asked or are
 * due) and in between sleeps in hs_wait on one descriptor: a struct hs_loop with all its tasks in
 * it, one of which is the epoll set of idle connections.
 *
 * Invariants:
 * - `pools` and `current` are guarded by `lock`. Others add pools, only the pool worker takes them
 *   out: a pool that it has found in the list stays there. A listed pool has a reference.
 * - All of struct pool worker, its tasks and visit_ns of pools belong to its thread.
 * - `turn` is held while it works, and by nobody else but fork: a child finds all of this whole.
 *   It is the one lock that is held over system calls; no caller ever waits for it.
 *
 * - `census` has every pool that is not being destroyed, also closed ones that need no worker: for
 *   those who look, and for fork, which holds the locks of all of them.
 *
 * The program may close the loop's descriptors and the set behind our back (own_fd.h): then they
 * are made anew, and all tasks are stepped again.
 *
 * In a forked child the thread does not exist: its memory is freed there, its descriptors are
 * closed, and every pool forgets what it had; the first who needs it starts a new one.
 */
#include "../base/sys.h"
#include "../base/thread.h"
#include "worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>

#define STACK_BYTES ((size_t)256 * 1024)
#define BATCH 64
#define RETRY_NS (50 * HS_NS_PER_MS)
/* Anything but 0: the owner of the one descriptor that is the pool worker's own. */
#define OWN_ID UINT64_MAX

struct worker {
    struct hs_loop *loop; /* owns */
    struct hs_own_fd set; /* own: the epoll set of idle connections */
    struct task watch;
    struct hs_list tasks;    /* own: all but watch */
    struct hs_list again;    /* task.again: to be stepped in the next round */
    struct hs_own_look look; /* whether the set is there */
    bool set_lost;
    bool watch_lost; /* there was no memory to park it: it is tried again soon */
};

static struct hs_lock lock = HS_LOCK_STATIC(HS_RANK_POOL_WORKER);
static struct hs_lock turn = HS_LOCK_STATIC(HS_RANK_POOL_WORKER_TURN);
static struct hs_list pools = {&pools, &pools};    /* guarded by lock: hs_pool.link */
static struct hs_list census = {&census, &census}; /* guarded by lock: hs_pool.census */
static struct worker *current;                     /* guarded by lock; NULL: no thread */
const struct hs_own_fd *
hs_pool_worker_watch(const struct worker *k)
{
    return &k->set;
}

/* ---- Tasks --------------------------------------------------------------------------------- */

static void
worker_step_again(struct worker *k, struct task *t)
{
    if (hs_list_empty(&t->again))
        hs_list_append(&k->again, &t->again);
}

hs_err
hs_task_begin(struct worker *k, struct task *t, struct hs_pool *p, struct hs_error *err)
{
    hs_err rv;

    if ((rv = hs_loop_waiter_new(k->loop, t, err, &t->loop_waiter)) != HS_OK)
        return rv;
    t->worker = k;
    t->pool = p;
    t->op.stepping = true;
    t->op.loop_waiter = t->loop_waiter;
    hs_list_init(&t->again);
    hs_list_init(&t->link);
    hs_list_append(&k->tasks, &t->link);
    worker_step_again(k, t);
    return HS_OK;
}

void
hs_task_end(struct task *t)
{
    hs_list_unlink(&t->link);
    hs_list_unlink(&t->again);
    hs_loop_waiter_free(t->loop_waiter);
}

static void
run_task(struct worker *k, struct task *t)
{
    struct hs_error err = {0};
    hs_err rv = t->step(t);

    if (rv == HS_INTR)
        worker_step_again(k, t);
    else if (rv == HS_WANT && hs_loop_waiter_park(t->loop_waiter, &t->op, &err) != HS_OK)
        t->call_off(t, &err);
}

static void
run_tasks(struct worker *k)
{
    struct hs_list now;
    struct task *t;

    while ((t = hs_loop_next(k->loop)) != NULL)
        run_task(k, t);
    hs_list_init(&now);
    hs_list_move_all(&now, &k->again);
    while (!hs_list_empty(&now)) {
        t = HS_CONTAINER(now.next, struct task, again);
        hs_list_unlink(&t->again);
        hs_loop_waiter_unpark(t->loop_waiter);
        run_task(k, t);
    }
}

static void
call_off_all(struct worker *k, const struct hs_pool *p)
{
    struct hs_list *l = k->tasks.next, *next;

    for (; l != &k->tasks; l = next) {
        struct task *t = HS_CONTAINER(l, struct task, link);

        next = l->next;
        if (t->pool == p)
            t->call_off(t, NULL);
    }
}

/* ---- The watch ----------------------------------------------------------------------------- */

static void
on_event(uint64_t data)
{
    struct hs_list *l;
    struct hs_pool *p = NULL;

    hs_lock_take(&lock);
    for (l = pools.next; l != &pools && p == NULL; l = l->next) {
        p = HS_CONTAINER(l, struct hs_pool, link);
        if (p->id != (uint32_t)(data >> 32))
            p = NULL;
    }
    hs_lock_drop(&lock);
    if (p != NULL)
        p->tender->on_event(p, (uint32_t)data);
}

/* Takes all there is: the loop watches this descriptor's edges. Of what could not be taken there is
 * no edge any more, so it is looked for again. */
static hs_err
step_watch(struct task *t)
{
    struct epoll_event events[BATCH];
    int n;

    while ((n = hs_sys_epoll_wait(t->worker->set.number, events, BATCH, 0)) > 0)
        for (int i = 0; i < n; i++)
            on_event(events[i].data.u64);
    t->op.want_fd = t->worker->set.number;
    t->op.want_id = OWN_ID;
    t->op.want_events = POLLIN;
    t->op.want_at_ns = n < 0 ? hs_deadline_after(RETRY_NS) : HS_NEVER;
    return HS_WANT;
}

static void
watch_unparked(struct task *t, const struct hs_error *err)
{
    (void)err;
    t->worker->watch_lost = true;
}

/* ---- Life ---------------------------------------------------------------------------------- */

static void
worker_destroy(struct worker *k)
{
    if (k == NULL)
        return;
    hs_loop_waiter_free(k->watch.loop_waiter);
    hs_loop_free(k->loop);
    hs_own_fd_close(&k->set);
    free(k);
}

static hs_err
worker_new(struct hs_error *err, struct worker **ret_k)
{
    struct worker *k = hs_sys_calloc(1, sizeof(*k));
    hs_err rv;

    if (k == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "pool", "no memory for the pool worker of pools");
    hs_list_init(&k->tasks);
    hs_list_init(&k->again);
    k->watch = (struct task){.step = step_watch, .call_off = watch_unparked};
    k->set = HS_OWN_FD_NONE;
    if (!hs_own_fd_open(&k->set, hs_sys_epoll_create1(EPOLL_CLOEXEC)))
        rv = hs_err_set(err, HS_E_SYSTEM, errno, "pool", "epoll_create1");
    else if ((rv = hs_loop_new(err, &k->loop)) == HS_OK)
        rv = hs_task_begin(k, &k->watch, NULL, err);
    if (rv != HS_OK) {
        worker_destroy(k);
        return rv;
    }
    hs_list_unlink(&k->watch.link); /* It is never called off. */
    *ret_k = k;
    return HS_OK;
}

/* In the place of a loop that is lost: each task waits in the new one, or is called off. */
static void
move_tasks(struct worker *k, struct hs_loop *to)
{
    struct hs_list tasks;

    hs_list_init(&tasks);
    hs_list_move_all(&tasks, &k->tasks);
    while (!hs_list_empty(&tasks)) {
        struct task *t = HS_CONTAINER(tasks.next, struct task, link);
        struct hs_error err = {0};
        struct hs_loop_waiter *waiter = NULL;
        hs_err rv = hs_loop_waiter_new(to, t, &err, &waiter);

        hs_list_unlink(&t->link);
        hs_list_append(&k->tasks, &t->link);
        hs_loop_waiter_free(t->loop_waiter);
        t->loop_waiter = t->op.loop_waiter = waiter;
        if (rv == HS_OK)
            worker_step_again(k, t);
        else
            t->call_off(t, &err);
    }
}

/* The program has closed what we wait with: all of it is made anew. Idle connections that were
 * watched are not watched again before they are idle again; each is looked at when it is lent. */
static hs_err
worker_renew(struct worker *k)
{
    struct hs_own_fd set = HS_OWN_FD_NONE;
    struct hs_loop_waiter *waiter = NULL;
    struct hs_loop *loop = NULL;
    struct hs_error err = {0};
    hs_err rv;

    if (!hs_own_fd_open(&set, hs_sys_epoll_create1(EPOLL_CLOEXEC)))
        return HS_E_SYSTEM;
    if ((rv = hs_loop_new(&err, &loop)) != HS_OK ||
        (rv = hs_loop_waiter_new(loop, &k->watch, &err, &waiter)) != HS_OK) {
        hs_loop_free(loop);
        hs_own_fd_close(&set);
        return rv;
    }
    move_tasks(k, loop);
    hs_loop_waiter_free(k->watch.loop_waiter);
    k->watch.loop_waiter = k->watch.op.loop_waiter = waiter;
    worker_step_again(k, &k->watch);
    hs_loop_free(k->loop);
    k->loop = loop;
    hs_own_fd_close(&k->set);
    k->set = set;
    k->set_lost = false;
    return HS_OK;
}

static bool
worker_is_whole(struct worker *k)
{
    hs_loop_collect(k->loop);
    if (hs_own_look_is_due(&k->look) && !hs_own_fd_is_there(&k->set))
        k->set_lost = true;
    return (!hs_loop_is_lost(k->loop) && !k->set_lost) || worker_renew(k) == HS_OK;
}

/* The pool leaves the list when it is closed and nothing of it is under way. */
static int64_t
worker_visit(struct worker *k, struct hs_pool *p)
{
    bool done;

    if (!atomic_exchange(&p->asks, false) && p->visit_ns > hs_now())
        return p->visit_ns;
    if (hs_pool_is_closed(p))
        call_off_all(k, p);
    p->visit_ns = p->tender->tend(p, k, &done);
    if (!done)
        return p->visit_ns;
    hs_lock_take(&lock);
    hs_list_unlink(&p->link);
    hs_lock_drop(&lock);
    p->tender->let_go(p);
    return HS_NEVER;
}

static struct hs_pool *
next_pool(const struct hs_list *l)
{
    struct hs_pool *p;

    hs_lock_take(&lock);
    p = l->next == &pools ? NULL : HS_CONTAINER(l->next, struct hs_pool, link);
    hs_lock_drop(&lock);
    return p;
}

/* Returns until when to wait, and for what. */
static int64_t
work(struct worker *k, int *ret_fd)
{
    int64_t until = HS_NEVER;
    struct hs_pool *p, *next;
    bool whole, heard;

    if (k->watch_lost) {
        k->watch_lost = false;
        worker_step_again(k, &k->watch);
    }
    if ((whole = worker_is_whole(k)))
        run_tasks(k);
    heard = whole && !hs_loop_is_unheard(k->loop);
    if (!heard || k->watch_lost)
        until = hs_now() + RETRY_NS;
    for (p = next_pool(&pools); p != NULL; p = next) {
        next = next_pool(&p->link);
        until = hs_min_ns(until, worker_visit(k, p));
    }
    *ret_fd = heard ? hs_loop_fileno(k->loop) : -1; /* Else it may be readable all the time. */
    return hs_list_empty(&k->again) || !whole ? until : 0;
}

static bool
worker_is_over(void)
{
    bool over;

    hs_lock_take(&lock);
    if ((over = hs_list_empty(&pools)))
        current = NULL;
    hs_lock_drop(&lock);
    return over;
}

static void *
worker_run(void *arg)
{
    struct worker *k = arg;
    struct hs_wakenode node;
    bool over = false;

    hs_wakelist_join(hs_pool_asked(), &node);
    while (!over) {
        int64_t until;
        int fd;

        hs_lock_take(&turn);
        until = work(k, &fd);
        if ((over = worker_is_over()))
            worker_destroy(k);
        hs_lock_drop(&turn);
        if (!over)
            hs_wait_round(hs_pool_asked(), &node, fd, until);
    }
    hs_wakelist_leave(hs_pool_asked(), &node);
    return NULL;
}

hs_err
hs_pool_worker_add(struct hs_pool *p, struct hs_error *err)
{
    struct worker *made = NULL;
    hs_err rv = HS_OK;
    int sys;

    hs_lock_take(&lock);
    if (current == NULL && (rv = worker_new(err, &made)) == HS_OK &&
        (sys = hs_thread_start("hs-pool-worker", STACK_BYTES, worker_run, made)) != 0) {
        worker_destroy(made);
        rv = hs_err_set(err, HS_E_SYSTEM, sys, "pool", "a thread to keep pools");
    } else if (rv == HS_OK && made != NULL) {
        current = made;
    }
    if (rv == HS_OK && hs_list_empty(&p->link)) {
        hs_list_append(&pools, &p->link);
        (void)hs_pool_ref(p);
        p->visit_ns = 0;
    }
    if (rv == HS_OK && hs_list_empty(&p->census))
        hs_list_append(&census, &p->census);
    if (rv == HS_OK)
        atomic_store_explicit(&p->generation, hs_fork_generation(), memory_order_release);
    hs_lock_drop(&lock);
    if (rv == HS_OK)
        hs_pool_worker_ask(p);
    return rv;
}

void
hs_pool_census_remove(struct hs_pool *p)
{
    hs_lock_take(&lock);
    if (!hs_list_empty(&p->census)) { /* It was made. */
        hs_list_unlink(&p->census);
        hs_pool_ended_add_locked(p);
    }
    hs_lock_drop(&lock);
}

static bool
worker_try_ref(struct hs_pool *p)
{
    int refs = atomic_load(&p->refs);

    while (refs > 0)
        if (atomic_compare_exchange_weak(&p->refs, &refs, refs + 1))
            return true;
    return false;
}

size_t
hs_pools_ever(struct hs_pool **all, size_t room, struct hs_pool_ended *ret_ended,
              size_t *ret_n_ended)
{
    size_t n = 0;

    hs_lock_take(&lock);
    *ret_n_ended = hs_pool_ended_copy_locked(ret_ended);
    for (struct hs_list *l = census.next; l != &census; l = l->next) {
        struct hs_pool *p = HS_CONTAINER(l, struct hs_pool, census);

        if (n >= room)
            n++;
        else if (worker_try_ref(p))
            all[n++] = p;
        else /* Its end waits for the lock. */
            hs_pool_ended_add_to_locked(ret_ended, ret_n_ended, p);
    }
    hs_lock_drop(&lock);
    return n;
}

size_t
hs_pools(struct hs_pool **all, size_t room)
{
    size_t n = 0;

    hs_lock_take(&lock);
    for (struct hs_list *l = pools.next; l != &pools; l = l->next, n++)
        if (n < room)
            all[n] = hs_pool_ref(HS_CONTAINER(l, struct hs_pool, link));
    hs_lock_drop(&lock);
    return n;
}

/* ---- Fork ---------------------------------------------------------------------------------- */

static void
worker_before_fork(void)
{
    hs_lock_take_for_fork(&turn);
    hs_lock_take_for_fork(&lock);
    for (struct hs_list *l = census.next; l != &census; l = l->next)
        hs_lock_take_for_fork(&HS_CONTAINER(l, struct hs_pool, census)->lock);
}

static void
worker_drop_all(void)
{
    for (struct hs_list *l = census.next; l != &census; l = l->next)
        hs_lock_drop_after_fork(&HS_CONTAINER(l, struct hs_pool, census)->lock);
    hs_lock_drop_after_fork(&lock);
    hs_lock_drop_after_fork(&turn);
}

/* Runs after wait.c's handler: whatever was made before is the parent's by now. */
static void
worker_after_fork_in_child(void)
{
    struct worker *k = current;

    hs_wakelist_init(hs_pool_asked());
    current = NULL;
    for (struct hs_list *l = census.next; l != &census; l = l->next) {
        struct hs_pool *p = HS_CONTAINER(l, struct hs_pool, census);

        p->tender->forget_parent(p);
    }
    hs_pool_ended_forget_parent_locked();
    while (k != NULL && !hs_list_empty(&k->tasks)) {
        struct task *t = HS_CONTAINER(k->tasks.next, struct task, link);

        t->forget(t);
    }
    worker_destroy(k);
    worker_drop_all();
}

HS_REGISTERS_FORK_LOCK(HS_RANK_POOL_WORKER_TURN)
static void
worker_watch_forks(void)
{
    (void)pthread_atfork(worker_before_fork, worker_drop_all, worker_after_fork_in_child);
}
