/* wait.c: waiting for a descriptor, a time, a token and a change, in a thread or step by step.
 *
 * A thread sleeps (waker.c); a stepped op says what it wants, and its event loop waits (loop.c).
 * Either way it listens first and looks at the state after, so that no change is missed.
 */
#include "wait.h"

#include "hardsock_binding.h"

#include "loop.h"
#include "token.h"
#include "../base/err.h"
#include "../base/time.h"

#include <poll.h>

#define LOST_PAUSE_NS (50 * HS_NS_PER_MS)

hs_err
hs_wait(int fd, short events, struct hs_token *token, int64_t deadline_ns, struct hs_error *err,
        short *ret_revents)
{
    struct hs_wakenode node;
    bool listens = token != NULL && hs_token_is_ours(token); /* else the slice lets us look */
    short revents = 0;
    hs_err rv = HS_OK, ended;

    if (token == NULL)
        return hs_sleep(fd, events, deadline_ns, err, ret_revents);
    if (listens)
        hs_wakelist_join(hs_token_wakelist(token), &node);
    if ((ended = hs_token_check(token)) == HS_OK) {
        deadline_ns = hs_min_ns(deadline_ns, hs_token_deadline(token));
        rv = hs_sleep(fd, events, deadline_ns, err, &revents);
        if (rv != HS_E_SYSTEM && !(rv == HS_OK && revents != 0))
            ended = hs_token_check(token);
        else if (hs_token_is_cancelled(token))
            ended = HS_E_CANCELLED;
    }
    if (listens)
        hs_wakelist_leave(hs_token_wakelist(token), &node);
    if (ended != HS_OK)
        return ended;
    if (rv == HS_OK)
        *ret_revents = revents;
    return rv;
}

void
hs_wait_round(struct hs_wakelist *list, struct hs_wakenode *node, int fd, int64_t until_ns)
{
    short revents = 0;
    hs_err rv = hs_wait(fd, POLLIN, NULL, until_ns, NULL, &revents);

    if (rv == HS_E_SYSTEM || (rv == HS_OK && (revents & POLLNVAL) != 0)) {
        until_ns = hs_min_ns(until_ns, hs_deadline_after(LOST_PAUSE_NS));
        rv = hs_wait(-1, 0, NULL, until_ns, NULL, &revents);
    }
    (void)rv;                        /* Whatever woke us: the state tells what to do. */
    if (hs_wakenode_is_deaf(node)) { /* There may be a descriptor by now. */
        hs_wakelist_leave(list, node);
        hs_wakelist_join(list, node);
    }
}

static const char while_waiting[] = "while waiting";

static hs_err
wait_check(const struct hs_op *op, int64_t deadline_ns, const char *when, struct hs_error *err)
{
    hs_err rv;

    if (op->token != NULL && (rv = hs_token_check(op->token)) != HS_OK)
        return hs_err_setx(err, rv, NULL, "%s %s", hs_err_text(rv), when);
    if (deadline_ns != HS_NEVER && deadline_ns != HS_TRY_ONCE && deadline_ns <= hs_now())
        return hs_err_setx(err, HS_E_DEADLINE, NULL, "%s %s", hs_err_text(HS_E_DEADLINE), when);
    return HS_OK;
}

hs_err
hs_op_check(const struct hs_op *op, int64_t deadline_ns, struct hs_error *err)
{
    return wait_check(op, deadline_ns, "before the call", err);
}

hs_err
hs_op_begin(struct hs_op *op, int64_t other_deadline_ns, struct hs_error *err)
{
    hs_err rv;

    if (op->waited) {
        op->waited = false;
        return op->token != NULL && hs_token_is_cancelled(op->token)
                   ? wait_check(op, HS_NEVER, while_waiting, err)
                   : HS_OK;
    }
    if ((rv = hs_op_check(op, op->deadline_ns, err)) != HS_OK)
        return rv;
    return hs_op_check(op, other_deadline_ns, err);
}

/* What a stepped op waits for. It listens first and looks at the state after, as a thread does. */
static hs_err
want(struct hs_op *op, int fd, short events, int64_t deadline_ns, int64_t until_ns,
     struct hs_error *err)
{
    hs_err rv;

    op->want_fd = fd;
    op->want_events = events;
    op->want_at_ns = hs_min_ns(deadline_ns, until_ns);
    if (op->token != NULL) {
        if (op->loop_waiter != NULL && hs_token_is_ours(op->token))
            hs_loop_waiter_listen(op->loop_waiter, HS_LISTEN_TOKEN, hs_token_wakelist(op->token));
        op->want_at_ns = hs_min_ns(op->want_at_ns, hs_token_deadline(op->token));
    }
    if ((rv = wait_check(op, deadline_ns, while_waiting, err)) != HS_OK)
        return rv;
    op->waited = true;
    return HS_WANT;
}

hs_err
hs_wait_op(struct hs_op *op, int fd, short events, int64_t deadline_ns, int64_t until_ns,
           struct hs_error *err, short *ret_revents)
{
    hs_err rv;

    if (deadline_ns == HS_TRY_ONCE)
        return hs_err_setx(err, HS_E_DEADLINE, NULL, "would have to wait");
    if (op->stepping)
        return want(op, fd, events, deadline_ns, until_ns, err);
    rv = hs_wait(fd, events, op->token, hs_min_ns(deadline_ns, until_ns), err, ret_revents);
    /* What of the token is seen now counts: it may have been cancelled since that wait. */
    if (rv == HS_E_DEADLINE && until_ns < deadline_ns &&
        (rv = op->token == NULL ? HS_OK : hs_token_check(op->token)) == HS_OK) {
        *ret_revents = 0;
        return HS_OK;
    }
    if (rv == HS_E_DEADLINE || rv == HS_E_CANCELLED)
        return hs_err_setx(err, rv, NULL, "%s %s", hs_err_text(rv), while_waiting);
    return rv;
}

/* ---- Changes ------------------------------------------------------------------------------- */

hs_err
hs_wait_change(struct hs_op *op, struct hs_change *change, struct hs_error *err)
{
    struct hs_token *told =
        change->told != NULL && hs_token_is_ours(change->told) ? change->told : NULL;
    struct hs_wakenode node, told_node;
    bool listens = op->deadline_ns != HS_TRY_ONCE;
    bool joins = listens && !op->stepping;
    short ignored;
    hs_err rv;

    if (joins) {
        hs_wakelist_join(change->list, &node);
        if (told != NULL)
            hs_wakelist_join(hs_token_wakelist(told), &told_node);
    } else if (listens && op->loop_waiter != NULL) {
        hs_loop_waiter_listen(op->loop_waiter, HS_LISTEN_OWNER, change->list);
        if (told != NULL)
            hs_loop_waiter_listen(op->loop_waiter, HS_LISTEN_TOLD, hs_token_wakelist(told));
    }
    rv = change->look(change->arg, change);
    change->looked = rv != HS_WANT;
    if (rv == HS_WANT) {
        op->want_id = change->id;
        rv = hs_wait_op(op, change->fd, change->events, change->deadline_ns, change->until_ns, err,
                        &ignored);
    }
    if (joins && told != NULL)
        hs_wakelist_leave(hs_token_wakelist(told), &told_node);
    if (joins)
        hs_wakelist_leave(change->list, &node);
    return rv;
}

hs_err
hs_await_change(struct hs_op *op, struct hs_wakelist *list, hs_look *look, void *arg,
                struct hs_error *err)
{
    struct hs_change change = {.list = list, .look = look, .arg = arg, .fd = -1};
    hs_err rv;

    do {
        change.deadline_ns = op->deadline_ns;
        change.until_ns = HS_NEVER;
        rv = hs_wait_change(op, &change, err);
    } while (rv == HS_OK && !change.looked);
    return rv;
}

/* ---- Tokens -------------------------------------------------------------------------------- */

hs_err
hs_token_wait(struct hs_token *t, int64_t deadline_ns, struct hs_error *err)
{
    short ignored;
    hs_err rv = HS_OK;

    while (hs_token_check(t) == HS_OK && rv == HS_OK)
        rv = hs_wait(-1, 0, t, deadline_ns, err, &ignored);
    if (hs_token_check(t) != HS_OK)
        return HS_OK;
    if (rv == HS_E_DEADLINE)
        return hs_err_setx(err, rv, "wait", "the token did not end in time");
    return rv;
}

hs_err
hs_token_await(struct hs_op *op, struct hs_error *err)
{
    short ignored;
    hs_err rv;

    if (!op->stepping)
        return hs_token_wait(op->token, op->deadline_ns, err);
    rv = hs_wait_op(op, -1, 0, op->deadline_ns, HS_NEVER, err, &ignored);
    return hs_token_check(op->token) != HS_OK ? HS_OK : rv;
}

hs_err
hs_token_wait_for(const struct hs_op *op, int fd, short events, struct hs_error *err,
                  short *ret_ready)
{
    short ready = 0;
    hs_err rv;

    do
        rv = hs_wait(fd, events, op->token, op->deadline_ns, err, &ready);
    while (rv == HS_OK && ready == 0);
    if (rv != HS_OK && rv != HS_E_DEADLINE && rv != HS_E_CANCELLED)
        return rv;
    *ret_ready = (short)(rv == HS_OK ? ready : 0);
    return HS_OK;
}
