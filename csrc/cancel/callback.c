/* callback.c: callbacks that run when a token is cancelled, and removal that waits for them.
 *
 * States, changed under the token's lock only:
 *   IDLE     linked in the token's list
 *   CLAIMED  taken by the thread that cancelled, not started yet
 *   RUNNING  being run, by `runner`
 *   OVER     has run or was removed; will never run (again)
 * IDLE -> CLAIMED -> RUNNING -> OVER, or IDLE / CLAIMED -> OVER by removal. So fn runs at most
 * once, and after a successful removal it is not running, unless the remover is the runner itself.
 *
 * Two references: the list's (later the runner's) and the handle's. The token is kept alive by the
 * handle, so that removal can take its lock, and from claim to end by the runner; not by the list,
 * or a forgotten callback would keep its token for ever. A token that goes drops its callbacks.
 */
#include "callback.h"

#include "token.h"
#include "../base/check.h"
#include "../base/sys.h"

#include <pthread.h>
#include <stdlib.h>

enum state { IDLE, CLAIMED, RUNNING, OVER };

struct hs_callback {
    struct hs_list link; /* guarded by lock while IDLE, then the claimer's own */
    atomic_int refs;
    struct hs_token *token; /* borrows: kept by the handle or the runner */
    struct hs_lock *lock;   /* borrows: the token's */
    enum state state;       /* guarded by lock */
    pthread_t runner;       /* guarded by lock; set while RUNNING */
    struct hs_wakelist removers;
    void (*fn)(void *arg);
    void (*release)(void *arg);
    void *arg;
};

struct hs_callback *
hs_callback_new(struct hs_token *t, struct hs_lock *lock, struct hs_list *callbacks,
                void (*fn)(void *arg), void (*release)(void *arg), void *arg)
{
    struct hs_callback *cb = hs_sys_calloc(1, sizeof(*cb));

    if (cb == NULL)
        return NULL;
    cb->refs = 2;
    cb->token = hs_token_ref(t);
    cb->lock = lock;
    hs_wakelist_init(&cb->removers);
    cb->fn = fn;
    cb->release = release;
    cb->arg = arg;
    hs_lock_take(lock);
    hs_list_append(callbacks, &cb->link);
    hs_lock_drop(lock);
    return cb;
}

static void
callback_drop(struct hs_callback *cb)
{
    if (atomic_fetch_sub(&cb->refs, 1) != 1)
        return;
    hs_wakelist_fini(&cb->removers);
    free(cb);
}

/* Gives up the reference of the list or the runner: fn will never run (again), so that arg is let
 * go now, not when somebody forgets a handle. */
static void
drop_duty(struct hs_callback *cb)
{
    if (cb->release != NULL)
        cb->release(cb->arg);
    callback_drop(cb);
}

void
hs_callback_unref(struct hs_callback *cb)
{
    struct hs_token *t;

    if (cb == NULL)
        return;
    t = cb->token;
    callback_drop(cb);
    hs_token_unref(t);
}

/* Ends it if it has not started. withdrawn: arg goes back to the caller, nobody releases it. */
static enum state
callback_take_out(struct hs_callback *cb, bool withdrawn, bool *ret_by_us)
{
    enum state before;

    hs_lock_take(cb->lock);
    before = cb->state;
    *ret_by_us = before == RUNNING && pthread_equal(cb->runner, pthread_self());
    if (before == IDLE)
        hs_list_unlink(&cb->link);
    if (before == IDLE && withdrawn)
        cb->release = NULL;
    if (before == IDLE || (before == CLAIMED && !withdrawn))
        cb->state = OVER;
    hs_lock_drop(cb->lock);
    if (before == IDLE)
        drop_duty(cb);
    return before;
}

bool
hs_callback_withdraw(struct hs_callback *cb)
{
    bool ignored;

    if (callback_take_out(cb, true, &ignored) != IDLE)
        return false;
    hs_callback_unref(cb);
    return true;
}

void
hs_callbacks_claim(struct hs_token *t, struct hs_list *callbacks, struct hs_list *fired)
{
    for (struct hs_list *l = callbacks->next; l != callbacks; l = l->next) {
        HS_CONTAINER(l, struct hs_callback, link)->state = CLAIMED;
        (void)hs_token_ref(t);
    }
    hs_list_move_all(fired, callbacks);
}

struct hs_callback *
hs_callbacks_detach(struct hs_list *fired)
{
    struct hs_callback *first;

    if (hs_list_empty(fired))
        return NULL;
    first = HS_CONTAINER(fired->next, struct hs_callback, link);
    hs_list_unlink(fired); /* The rest stays a ring without a head. */
    return first;
}

void
hs_callbacks_drop_all(struct hs_list *callbacks)
{
    while (!hs_list_empty(callbacks)) {
        struct hs_callback *cb = HS_CONTAINER(callbacks->next, struct hs_callback, link);

        hs_list_unlink(&cb->link);
        drop_duty(cb);
    }
}

static bool
start(struct hs_callback *cb)
{
    bool go;

    hs_lock_take(cb->lock);
    go = cb->state == CLAIMED;
    if (go) {
        cb->state = RUNNING;
        cb->runner = pthread_self();
    }
    hs_lock_drop(cb->lock);
    return go;
}

static void
run_one(struct hs_callback *cb)
{
    if (!start(cb))
        return; /* Removed after it was claimed. */
    cb->fn(cb->arg);
    hs_lock_take(cb->lock);
    cb->state = OVER;
    hs_lock_drop(cb->lock);
    hs_wakelist_wake(&cb->removers);
}

void
hs_callbacks_run(struct hs_callback *fired)
{
    while (fired != NULL) {
        struct hs_callback *next = HS_CONTAINER(fired->link.next, struct hs_callback, link);
        struct hs_token *t = fired->token;

        if (next == fired)
            next = NULL;
        hs_list_unlink(&fired->link);
        run_one(fired);
        drop_duty(fired);
        hs_token_unref(t); /* the runner's hold on it */
        fired = next;
    }
}

static bool
callback_is_over(struct hs_callback *cb)
{
    bool over;

    hs_lock_take(cb->lock);
    over = cb->state == OVER;
    hs_lock_drop(cb->lock);
    return over;
}

hs_err
hs_callback_remove(struct hs_callback *cb)
{
    struct hs_wakenode node;
    bool by_us;
    short ignored;
    hs_err rv = HS_OK;

    if (!hs_token_is_ours(cb->token))
        return HS_E_FORKED; /* Its lock, and perhaps its runner, stayed with the parent process. */
    if (callback_take_out(cb, false, &by_us) != RUNNING || by_us)
        return HS_OK;
    hs_wakelist_join(&cb->removers, &node);
    while (!callback_is_over(cb) && rv == HS_OK)
        rv = hs_sleep(-1, 0, HS_NEVER, NULL, &ignored);
    hs_wakelist_leave(&cb->removers, &node);
    return rv;
}
