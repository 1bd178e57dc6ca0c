/* conn_call.c: the frame of every call on a connection, and its one wait.
 *
 * See conn_impl.h for the protocol. What is refused here is refused before any byte moves: closed,
 * forked, busy, an ended token, a passed deadline, a poisoned or broken direction.
 */
#include "conn_impl.h"
#include "delays.h"
#include "roll.h"

#include "../base/time.h"
#include "../cancel/loop.h"
#include "../cancel/token.h"

#include <sched.h>

const char hs_ended_here[] = "sending was ended here, by shutdown";

static const char *const dir_names[] = {"reading", "writing"};
static const char *const phase_names[] = {"read", "write"};

hs_err
hs_conn_check_poison(struct hs_conn *c, enum hs_dir dir, struct hs_error *err)
{
    hs_err poison = atomic_load(&c->dirs[dir].poison);

    if (poison == HS_OK)
        return HS_OK;
    return hs_err_setx(err, HS_E_POISONED, NULL, "%s stopped in the middle of a message (%s)",
                       dir_names[dir], hs_err_text(poison));
}

void
hs_call_release(struct hs_conn *c, struct hs_op *op, enum hs_dir dir)
{
    op->claim = (uint8_t)(op->claim & ~(1U << dir));
    if (atomic_load_explicit(&c->dirs[dir].waits_since_ns, memory_order_relaxed) != 0)
        hs_stall_end(c, dir, hs_now());
    atomic_store(&c->dirs[dir].user, USER_NONE);
    if (!hs_fd_is_ours(&c->fd))
        return; /* In a forked child the hold is the parent's. */
    if (dir == HS_DIR_OUT && atomic_load(&c->quiet.first_by_ns) != HS_NEVER)
        hs_wakelist_wake(&c->wakers); /* Who reads may have nothing to wait for any more. */
    hs_fd_drop(&c->fd);
}

bool
hs_call_take(struct hs_conn *c, enum hs_dir dir)
{
    atomic_uchar *user = &c->dirs[dir].user;
    unsigned char was;

    for (;;) {
        was = USER_NONE;
        if (atomic_compare_exchange_strong(user, &was, USER_CALL))
            return true;
        if (was == USER_CALL)
            return false;
        (void)sched_yield();
    }
}

bool
hs_call_visit(struct hs_conn *c, enum hs_dir dir)
{
    unsigned char none = USER_NONE;

    if (hs_fd_look(&c->fd, NULL) != HS_OK)
        return false;
    if (atomic_compare_exchange_strong(&c->dirs[dir].user, &none, USER_VISIT))
        return true;
    hs_fd_look_end(&c->fd);
    return false;
}

void
hs_call_leave(struct hs_conn *c, enum hs_dir dir)
{
    atomic_store(&c->dirs[dir].user, USER_NONE);
    hs_fd_look_end(&c->fd);
}

hs_err
hs_lease_hold(struct hs_conn *c, const struct hs_op *op, struct hs_error *err)
{
    if (op->lease == 0)
        return HS_OK;
    if (c->lease != NULL) {
        atomic_fetch_add(&c->entering, 1);
        if (atomic_load(c->lease) == op->lease)
            return HS_OK;
        atomic_fetch_sub(&c->entering, 1);
    }
    if (!hs_fd_is_ours(&c->fd))
        return hs_err_setx(err, HS_E_FORKED, NULL, "%s", hs_err_text(HS_E_FORKED));
    return hs_err_setx(err, HS_E_CLOSED, NULL, "it was returned to its pool");
}

void
hs_lease_drop(struct hs_conn *c, const struct hs_op *op)
{
    if (op->lease != 0)
        atomic_fetch_sub(&c->entering, 1);
}

static hs_err
conn_call_claim(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, struct hs_error *err)
{
    hs_err rv;

    if ((rv = hs_fd_hold(&c->fd, err)) != HS_OK)
        return rv;
    if (!hs_call_take(c, dir)) {
        hs_fd_drop(&c->fd);
        return hs_err_setx(err, HS_E_BUSY, NULL, "another call is %s on this connection",
                           dir_names[dir]);
    }
    op->claim = (uint8_t)(op->claim | (1U << dir));
    return HS_OK;
}

hs_err
hs_call_claim(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, struct hs_error *err)
{
    hs_err rv;

    if ((op->claim & (1U << dir)) != 0)
        return hs_fd_is_ours(&c->fd) /* or forked between two steps */
                   ? HS_OK
                   : hs_err_setx(err, HS_E_FORKED, NULL, "%s", hs_err_text(HS_E_FORKED));
    if ((rv = hs_lease_hold(c, op, err)) != HS_OK)
        return rv;
    rv = conn_call_claim(c, op, dir, err);
    hs_lease_drop(c, op);
    return rv;
}

void
hs_turn_moves(struct hs_conn *c, enum hs_dir dir, int64_t now)
{
    struct direction *d = &c->dirs[dir], *other = &c->dirs[1 - dir];

    if (atomic_load_explicit(&d->turn_ns, memory_order_relaxed) != HS_NEVER &&
        atomic_load_explicit(&d->turn_began_ns, memory_order_relaxed) == 0)
        atomic_store_explicit(&d->turn_began_ns, now, memory_order_relaxed);
    if (atomic_load_explicit(&other->turn_began_ns, memory_order_relaxed) != 0)
        atomic_store_explicit(&other->turn_began_ns, 0, memory_order_relaxed);
}

int64_t
hs_turn_until(struct hs_conn *c, enum hs_dir dir)
{
    struct direction *d = &c->dirs[dir];
    int64_t began = atomic_load_explicit(&d->turn_began_ns, memory_order_relaxed);
    int64_t span = atomic_load_explicit(&d->turn_ns, memory_order_relaxed);

    return began == 0 || span >= HS_NEVER - began ? HS_NEVER : began + span;
}

/* Before a wait. */
static void
turn_waits(struct hs_conn *c, const struct hs_op *op, enum hs_dir dir)
{
    struct direction *out = &c->dirs[HS_DIR_OUT];

    if (atomic_load_explicit(&out->turn_ns, memory_order_relaxed) == HS_NEVER ||
        op->deadline_ns == HS_TRY_ONCE)
        return;
    if (dir == HS_DIR_OUT)
        hs_turn_moves(c, HS_DIR_OUT, hs_now());
    else if (atomic_load(&out->user) != USER_CALL)
        atomic_store_explicit(&out->turn_began_ns, 0, memory_order_relaxed);
}

/* Names a deadline that was the turn's. A call that would not wait in any case is told, too: who
 * only ever looks at what is here would not hear of it else. */
static void
check_turn(struct hs_conn *c, const struct hs_op *op, enum hs_dir dir, struct hs_error *err)
{
    static const char *const timeouts[] = {"read_timeout", "write_timeout"};
    static const char *const texts[] = {
        "the message is not here yet, %.6g s after its first byte",
        "the answer is not out yet, %.6g s after its first byte",
    };
    int64_t until = hs_turn_until(c, dir), now;

    if (until == HS_NEVER || until > (now = hs_now()) ||
        (op->deadline_ns <= now && op->deadline_ns != HS_TRY_ONCE) ||
        atomic_load(&c->dirs[dir].deadline_ns) <= now)
        return;
    atomic_store(&c->dirs[dir].late, true);
    if (err == NULL)
        return;
    *err = (struct hs_error){0};
    (void)hs_err_setx(err, HS_E_DEADLINE, NULL, texts[dir],
                      (double)atomic_load(&c->dirs[dir].turn_ns) / HS_NS_PER_S);
    err->phase = timeouts[dir];
}

static int64_t
conn_call_deadline_of(struct hs_conn *c, const struct hs_op *op, enum hs_dir dir)
{
    int64_t deadline = hs_min_ns(op->deadline_ns, atomic_load(&c->dirs[dir].deadline_ns));

    deadline = hs_min_ns(deadline, c->handshake_until_ns);
    deadline = hs_min_ns(deadline, hs_turn_until(c, dir));
    return dir == HS_DIR_IN ? hs_min_ns(deadline, c->pace.until_ns) : deadline;
}

/* The call's token was cancelled since this connection's peer has left. Then the socket itself
 * knows more: what has arrived can still be had, and after that the reset. */
static bool
is_left(struct hs_conn *c, const struct hs_op *op)
{
    uint64_t left = atomic_load(&c->left);
    struct hs_reason reason;

    return left != 0 && op->token != NULL && hs_token_reason(op->token, &reason) &&
           reason.origin == left;
}

hs_err
hs_call_check(struct hs_conn *c, struct hs_op *op, int64_t other_deadline_ns, struct hs_error *err)
{
    hs_err rv = hs_op_begin(op, other_deadline_ns, err);

    if (rv != HS_E_CANCELLED || !is_left(c, op))
        return rv;
    if (err != NULL)
        *err = (struct hs_error){0};
    return HS_OK;
}

/* Nothing has come yet. Its first message is not another one: a client that has just connected is
 * about to send it, and would be lost, where one that has had an answer can ask again elsewhere.
 * Who serves it ends it when it does not come. */
static bool
is_new(const struct hs_conn *c)
{
    return atomic_load_explicit(&c->dirs[HS_DIR_IN].bytes, memory_order_relaxed) == 0;
}

/* ---- Quiet --------------------------------------------------------------------------------- */

static hs_err
refuse_quiet(struct hs_conn *c, struct hs_error *err)
{
    bool idle = atomic_load(&c->quiet.ended) == HS_QUIET_FOR_LONG;
    hs_err rv = hs_err_setx(err, HS_E_CANCELLED, NULL, "%s while waiting for a message",
                            hs_err_text(HS_E_CANCELLED));

    if (err != NULL)
        err->phase = idle ? "idle_timeout" : "drain";
    return rv;
}

/* When a call that waits to read has to end since nothing has come; HS_NEVER while there is no such
 * time. While somebody works on an answer it is not quiet: the time is that of the next look. */
static int64_t
quiet_until(struct hs_conn *c, int64_t span, enum hs_quiet *ret_why)
{
    int64_t in = atomic_load(&c->dirs[HS_DIR_IN].last_ns);
    int64_t out = atomic_load(&c->dirs[HS_DIR_OUT].last_ns);
    int64_t first_by = atomic_load(&c->quiet.first_by_ns);
    int64_t since = out != 0 ? out : c->created_ns, until;

    span = hs_quiet_span(span);
    *ret_why = HS_QUIET_FOR_LONG;
    if (atomic_load(&c->mid_message) || atomic_load(&c->buffered) > 0)
        return HS_NEVER;
    if (in > out || atomic_load(&c->dirs[HS_DIR_OUT].user) == USER_CALL)
        return span == HS_NEVER ? HS_NEVER : hs_deadline_after(span);
    until = span >= HS_NEVER - since ? HS_NEVER : since + span;
    if (first_by == HS_NEVER)
        return until;
    if (!is_new(c))
        first_by = 1; /* long past */
    if (first_by < until)
        *ret_why = HS_QUIET_NO_MORE;
    return hs_min_ns(first_by, until);
}

/* Before a wait, when the one who changes the times will wake it. As with op->told the kernel is
 * asked once more before the call ends. */
static hs_err
check_quiet(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, struct hs_error *err,
            int64_t *ret_until_ns)
{
    int64_t span = atomic_load(&c->quiet.span_ns), until;
    enum hs_quiet why;

    if (dir == HS_DIR_OUT || !op->begun || op->deadline_ns == HS_TRY_ONCE ||
        !atomic_load(&c->quiet.bounded))
        return HS_OK;
    do {
        if ((until = quiet_until(c, span, &why)) == HS_NEVER || until > hs_now()) {
            op->quiet_seen = false;
            *ret_until_ns = until;
            return HS_OK;
        }
        if (!op->quiet_seen) {
            op->quiet_seen = true;
            return HS_INTR;
        }
    } while (why == HS_QUIET_FOR_LONG &&
             !atomic_compare_exchange_strong(&c->quiet.span_ns, &span, ~span));
    atomic_store(&c->quiet.ended, why);
    return refuse_quiet(c, err);
}

/* ---- Begin and end ------------------------------------------------------------------------- */

hs_err
hs_call_begin(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, struct hs_error *err)
{
    int64_t deadline;
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_call_claim(c, op, dir, err)) != HS_OK)
        return rv;
    if (hs_fd_is_closed(&c->fd)) /* closed between two steps */
        return hs_err_setx(err, HS_E_CLOSED, NULL, "it was closed during the call");
    deadline = atomic_load(&c->dirs[dir].deadline_ns);
    /* What has arrived can be had, however late it is. */
    if (dir == HS_DIR_OUT && atomic_load_explicit(&c->has_turns, memory_order_relaxed))
        deadline = hs_min_ns(deadline, hs_turn_until(c, HS_DIR_OUT));
    if ((rv = hs_call_check(c, op, deadline, err)) != HS_OK)
        return rv;
    if (dir == HS_DIR_OUT && atomic_load(&c->out_ended))
        return hs_err_setx(err, HS_E_CLOSED, NULL, "%s", hs_ended_here);
    if (dir == HS_DIR_OUT && op->told != NULL && hs_token_is_cancelled(op->told))
        return hs_err_setx(err, HS_E_CANCELLED, NULL, "%s before the call",
                           hs_err_text(HS_E_CANCELLED));
    if (!op->begun && atomic_load_explicit(&c->quiet.ended, memory_order_relaxed) != 0)
        return refuse_quiet(c, err);
    if ((rv = hs_conn_check_poison(c, dir, err)) != HS_OK)
        return rv;
    /* What had come before it broke can still be had: see check_end. */
    if (dir == HS_DIR_OUT && (rv = hs_conn_check_broken(c, err)) != HS_OK)
        return rv;
    op->begun = true;
    if (dir == HS_DIR_IN && c->spot == NULL)
        hs_delays_look(c);
    return HS_OK;
}

/* A call that had begun ends without what it was for. */
static void
note_given_up(struct hs_conn *c, enum hs_dir dir, hs_err rv)
{
    int64_t since = atomic_load_explicit(&c->dirs[dir].waits_since_ns, memory_order_relaxed);

    hs_roll_note(c, rv == HS_E_DEADLINE ? HS_EVENT_DEADLINE : HS_EVENT_CANCELLED, rv,
                 since == 0 ? 0 : hs_now() - since);
}

hs_err
hs_call_end(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, const char *name, hs_err rv,
            struct hs_error *err)
{
    if (rv == HS_INTR || rv == HS_WANT)
        return rv;
    if (rv == HS_E_RESET || rv == HS_E_DEAD_PEER)
        hs_conn_set_broken(c, rv);
    if (rv == HS_E_DEADLINE)
        check_turn(c, op, dir, err);
    if (op->begun &&
        (rv == HS_E_CANCELLED || (rv == HS_E_DEADLINE && op->deadline_ns != HS_TRY_ONCE)))
        note_given_up(c, dir, rv);
    if (rv != HS_OK && err != NULL) {
        err->op = name;
        if (err->phase == NULL)
            err->phase = op->claim == 0 || !op->begun ? "start" : phase_names[dir];
    }
    if (op->claim != 0)
        hs_call_release(c, op, dir);
    return rv;
}

/* Below TLS a descriptor can be ready for ever without anything that a caller could be given: then
 * readiness must not win over a deadline that had passed before the last try. */
static bool
is_late(struct hs_conn *c, const struct hs_op *op, enum hs_dir dir)
{
    int64_t deadline = conn_call_deadline_of(c, op, dir);

    return deadline != HS_NEVER && deadline != HS_TRY_ONCE && deadline <= hs_now();
}

/* A call that has been told not to wait for another message, and has nothing of one. */
static bool
is_told(struct hs_conn *c, const struct hs_op *op, enum hs_dir dir)
{
    if (op->told == NULL || !hs_token_is_cancelled(op->told))
        return false;
    if (dir == HS_DIR_IN && is_new(c))
        return false;
    if (dir == HS_DIR_IN && atomic_load(&c->quiet.stays) &&
        atomic_load(&c->quiet.first_by_ns) == HS_NEVER)
        return false;
    return dir == HS_DIR_OUT || (!atomic_load(&c->mid_message) && atomic_load(&c->buffered) == 0);
}

static hs_err
refuse_told(struct hs_error *err)
{
    return hs_err_setx(err, HS_E_CANCELLED, NULL, "%s while waiting", hs_err_text(HS_E_CANCELLED));
}

struct conn_wait {
    struct hs_conn *c;
    struct hs_op *op;
    enum hs_dir dir;
    struct hs_error *err;
    bool refused; /* told, and had its last try: that is the outcome even if it was closed since */
};

/* HS_OK: try again at once. The one who is told tries once more before it ends: something may have
 * arrived between the last try and the cancel. */
static hs_err
look_call(void *arg, struct hs_change *change)
{
    struct conn_wait *w = arg;
    struct hs_conn *c = w->c;
    struct hs_op *op = w->op;
    hs_err rv;

    if (is_told(c, op, w->dir)) {
        w->refused = op->told_seen;
        op->told_seen = true;
        return w->refused ? refuse_told(w->err) : HS_OK;
    }
    if (c->tls != NULL && is_late(c, op, w->dir))
        return hs_err_setx(w->err, HS_E_DEADLINE, NULL, "%s while waiting",
                           hs_err_text(HS_E_DEADLINE));
    if (hs_fd_is_closed(&c->fd))
        return HS_OK;
    if ((rv = check_quiet(c, op, w->dir, w->err, &change->until_ns)) != HS_OK)
        return rv == HS_INTR ? HS_OK : rv;
    change->deadline_ns = conn_call_deadline_of(c, op, w->dir); /* it may have moved */
    return HS_WANT;
}

static hs_err
wait_for_peer(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, short want,
              struct hs_error *err)
{
    struct conn_wait w = {c, op, dir, err, false};
    struct hs_change change = {
        .list = &c->wakers,
        .told = op->told,
        .look = look_call,
        .arg = &w,
        .fd = hs_fd_number(&c->fd),
        .events = want,
        .id = c->fd.id,
        .until_ns = HS_NEVER,
    };
    hs_err rv = hs_wait_change(op, &change, err);

    if (w.refused)
        return rv;
    if (rv == HS_E_CANCELLED && !op->left_seen && is_left(c, op)) {
        if (err != NULL)
            *err = (struct hs_error){0};
        op->left_seen = true;
        rv = HS_OK; /* The next try tells. */
    }
    if (hs_fd_is_closed(&c->fd)) {
        if (err != NULL)
            *err = (struct hs_error){0};
        rv = hs_err_setx(err, HS_E_CLOSED, NULL, "it was closed during the call");
    }
    return rv;
}

hs_err
hs_call_wait(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, short want, struct hs_error *err)
{
    hs_err rv;

    turn_waits(c, op, dir);
    hs_stall_begin(c, op, dir);
    if (op->stepping || !atomic_load(&c->in_slots) ||
        conn_call_deadline_of(c, op, dir) == HS_TRY_ONCE) {
        rv = wait_for_peer(c, op, dir, want, err);
    } else {
        hs_slots_give(c->slots);
        rv = wait_for_peer(c, op, dir, want, err);
        hs_slots_take(c->slots, op->token, conn_call_deadline_of(c, op, dir));
    }
    if (rv == HS_OK && dir == HS_DIR_IN && c->spot == NULL)
        hs_delays_look(c);
    return rv;
}
