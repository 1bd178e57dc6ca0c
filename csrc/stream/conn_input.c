/* conn_input.c: what comes in: from the layer, and into the receive buffer.
 *
 * Bytes come in as large pieces as have proved to be worth it: the buffer follows what arrives,
 * never what a header claims. An end of the stream is only believed after the connection was asked
 * whether it broke.
 */
#include "conn_impl.h"
#include "roll.h"

#include "../base/time.h"
#include "../cancel/loop.h"

#include <inttypes.h>
#include <poll.h>
#include <sys/socket.h>

#define READ_MIN 16384U
#define READ_MAX 262144U
/* Calls that wait before they try, after one that has tried in vain. */
#define WAITS_FIRST 16

/* Returns the time. */
int64_t
hs_conn_account(struct hs_conn *c, enum hs_dir dir, size_t n)
{
    struct direction *d = &c->dirs[dir];
    uint64_t before = atomic_load_explicit(&d->bytes, memory_order_relaxed);
    int64_t now = hs_now();

    if (atomic_load_explicit(&d->waits_since_ns, memory_order_relaxed) != 0)
        hs_stall_end(c, dir, now);
    else if (dir == HS_DIR_IN)
        hs_stall_ask_kernel(c);
    atomic_store_explicit(&d->bytes, before + n, memory_order_relaxed); /* one writer */
    atomic_store_explicit(&d->last_ns, now, memory_order_relaxed);
    if (atomic_load_explicit(&c->has_turns, memory_order_relaxed))
        hs_turn_moves(c, dir, now);
    return now;
}

/* A reset is told once, to the one who asks the socket first; the other direction then reads an end
 * that looks clean. Either that other call has noted it, or the TCP state gives it away: after an
 * orderly end a socket that has not ended its own side is in CLOSE_WAIT. Nor is a reader told what
 * came after the peer's end. close_notify is the peer's own word, which nobody else can forge. */
hs_err
hs_input_check_end(struct hs_conn *c, struct hs_error *err)
{
    bool closed;

    if (c->tls == NULL)
        closed = hs_conn_tcp_is_closed(c);
    else if (hs_tls_ended(c->tls, &closed))
        return HS_OK;
    if (closed && !hs_conn_may_have_ended(c) && hs_conn_why_broken(c) == HS_OK)
        hs_conn_set_broken(c, HS_E_RESET);
    return hs_conn_check_broken(c, err);
}

/* What looks truncated may have been reset, which the writer was told. */
static hs_err
check_truncated(struct hs_conn *c, struct hs_error *err)
{
    struct hs_error broken = {0};
    hs_err rv = hs_input_check_end(c, &broken);

    if (rv == HS_OK)
        return HS_E_TRUNCATED;
    if (err != NULL)
        *err = broken;
    return rv;
}

hs_err
hs_input_judge(struct hs_conn *c, hs_err rv, size_t n, struct hs_error *err)
{
    if (rv == HS_OK && n == 0)
        return hs_input_check_end(c, err);
    if (rv == HS_E_RESET)
        return hs_conn_judge_reset(c, err);
    return rv == HS_E_TRUNCATED ? check_truncated(c, err) : rv;
}

static hs_err
came(struct hs_conn *c, hs_err rv, size_t n, struct hs_error *err, size_t *ret_n)
{
    if ((rv = hs_input_judge(c, rv, n, err)) != HS_OK)
        return rv;
    if (n == 0)
        hs_half_closed(c, HS_DIR_OUT);
    *ret_n = n;
    return HS_OK;
}

/* Whether a try would find nothing: the last one took all there was, and the loop, which is told of
 * whatever comes behind that, has heard of nothing. */
static bool
has_nothing(struct hs_conn *c, const struct hs_op *op)
{
    return op->loop_waiter != NULL &&
           hs_loop_waiter_hears(op->loop_waiter, hs_fd_number(&c->fd), c->fd.id);
}

/* A thread knows only what the last calls have met: where an answer takes longer than the way here,
 * a try before the wait is in vain. Whether it still does is tried now and then. */
static bool
expects_nothing(struct hs_conn *c)
{
    struct direction *in = &c->dirs[HS_DIR_IN];

    if (in->waits_first == 0)
        return false;
    in->waits_first--;
    return true;
}

static hs_err
ask_or_wait(struct hs_conn *c, const struct hs_op *op, uint8_t *buf, size_t len, int flags,
            struct hs_error *err, short *want, size_t *ret_n)
{
    int64_t deadline = hs_min_ns(op->deadline_ns, atomic_load(&c->dirs[HS_DIR_IN].deadline_ns));
    bool drained = c->drained && c->tls == NULL && deadline != HS_TRY_ONCE;
    hs_err rv;

    if (drained && (op->stepping ? has_nothing(c, op) : expects_nothing(c))) {
        c->drained = false; /* Once: who is told tries. */
        *want = POLLIN;
        return HS_WANT;
    }
    rv = hs_ask_recv(c, buf, len, flags, err, want, ret_n);
    if (rv == HS_WANT && drained && !op->stepping)
        c->dirs[HS_DIR_IN].waits_first = WAITS_FIRST;
    return rv;
}

hs_err
hs_input_read(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len, int flags,
              struct hs_error *err, size_t *ret_n)
{
    short want;
    size_t n = 0;
    hs_err rv;

    while ((rv = ask_or_wait(c, op, buf, len, flags, err, &want, &n)) == HS_WANT)
        if ((rv = hs_call_wait(c, op, HS_DIR_IN, want, err)) != HS_OK)
            return rv;
    if (rv == HS_OK && n > 0 && (flags & MSG_PEEK) == 0)
        op->came_ns = hs_conn_account(c, HS_DIR_IN, n);
    return came(c, rv, n, err, ret_n);
}

hs_err
hs_input_try(struct hs_conn *c, uint8_t *buf, size_t len, struct hs_error *err, short *want,
             size_t *ret_n)
{
    size_t n = 0;
    hs_err rv = hs_ask_recv(c, buf, len, 0, err, want, &n);

    if (rv == HS_OK && n > 0)
        (void)hs_conn_account(c, HS_DIR_IN, n);
    return came(c, rv, n, err, ret_n);
}

/* ---- The minimum rate ------------------------------------------------------------------------ */

void
hs_input_changed(struct hs_conn *c)
{
    atomic_store_explicit(&c->buffered, hs_buf_len(&c->in.buf), memory_order_relaxed);
}

void
hs_conn_set_min_rate(struct hs_conn *c, uint64_t bytes_per_s, int64_t grace_ns)
{
    HS_CHECK(c, CONN_MAGIC);
    atomic_store(&c->pace.grace_ns, grace_ns > 0 ? grace_ns : 0);
    atomic_store(&c->pace.min_rate, bytes_per_s);
}

/* All that are added are times, or spans from zero on. */
static int64_t
add_saturating(int64_t a, int64_t b)
{
    return a < HS_NEVER - b ? a + b : HS_NEVER;
}

/* Beyond a few hundred years it does not matter. */
static int64_t
span_of(uint64_t bytes, uint64_t bytes_per_s)
{
    double ns = (double)bytes / (double)bytes_per_s * (double)HS_NS_PER_S;

    return ns < (double)(HS_NEVER / 2) ? (int64_t)ns : HS_NEVER / 2;
}

void
hs_pace_start(struct hs_conn *c, uint64_t have)
{
    struct pace *p = &c->pace;
    uint64_t rate = atomic_load_explicit(&p->min_rate, memory_order_relaxed);
    int64_t grace = atomic_load_explicit(&p->grace_ns, memory_order_relaxed);

    atomic_store_explicit(&c->mid_message, have > 0, memory_order_relaxed);
    p->until_ns = HS_NEVER; /* The minimum may have been lifted since the last time. */
    if (rate == 0 || have == 0)
        return;
    if (p->since_ns == 0)
        p->since_ns = hs_now();
    p->until_ns = add_saturating(add_saturating(p->since_ns, grace), span_of(have, rate));
}

/* A message that was reported as skipped is over; one that was kept may still be read. */
static bool
message_is_over(struct hs_conn *c, hs_err rv)
{
    return rv == HS_OK || (rv == HS_E_FRAME_TOO_LARGE && c->in.oversize.recoverable &&
                           c->in.oversize.discarded > 0);
}

void
hs_pace_end(struct hs_conn *c, hs_err rv, struct hs_error *err)
{
    struct pace *p = &c->pace;

    if (rv == HS_WANT || rv == HS_INTR)
        return;
    atomic_store_explicit(&c->mid_message, false, memory_order_relaxed);
    if (rv == HS_E_DEADLINE && p->until_ns <= hs_now() && err != NULL) {
        *err = (struct hs_error){0};
        (void)hs_err_setx(err, rv, NULL, "the message came slower than %llu bytes per second",
                          (unsigned long long)atomic_load(&p->min_rate));
        err->phase = "min_rate";
    }
    if (message_is_over(c, rv))
        p->since_ns = 0;
    p->until_ns = HS_NEVER;
}

/* ---- Filling the buffer ---------------------------------------------------------------------- */

uint64_t
hs_input_arrived(struct hs_conn *c)
{
    uint64_t n = hs_buf_len(&c->in.buf);

    return hs_deframer_skipping(&c->in) ? n + c->in.oversize.discarded : n;
}

static hs_err
ended(struct hs_conn *c, struct hs_error *err)
{
    uint64_t have = hs_input_arrived(c);

    if (have == 0)
        return hs_err_setx(err, HS_E_END, NULL, "%s", hs_err_text(HS_E_END));
    return hs_err_setx(err, HS_E_TRUNCATED, NULL,
                       "the peer ended its stream in the middle of a message, of which %" PRIu64
                       " bytes had arrived",
                       have);
}

/* As much at once as was worth it the last time. Large messages come in larger pieces, but never in
 * larger ones than what has already arrived of them. */
static size_t
piece_size(struct hs_conn *c, size_t need)
{
    size_t have = hs_buf_len(&c->in.buf), size = c->read_size < READ_MIN ? READ_MIN : c->read_size;

    if (need > size && have > size)
        return need < have ? need : have;
    return size;
}

hs_err
hs_input_more(struct hs_conn *c, struct hs_op *op, size_t need, struct hs_error *err, size_t *ret_n)
{
    size_t size = piece_size(c, need), n = 0;
    uint8_t *room;
    hs_err rv;

    if (hs_buf_reserve(&c->in.buf, size, &room) != HS_OK)
        return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for %zu received bytes", size);
    size = hs_buf_room(&c->in.buf);
    rv = hs_input_read(c, op, room, size, 0, err, &n);
    if (rv == HS_OK && n > 0) {
        hs_buf_commit(&c->in.buf, n);
        c->read_size = (uint32_t)(n < size ? n : 2 * size < READ_MAX ? 2 * size : READ_MAX);
        hs_input_changed(c);
    } else {
        hs_buf_trim(&c->in.buf);
    }
    if (rv == HS_OK)
        *ret_n = n;
    return rv;
}

hs_err
hs_input_fill(struct hs_conn *c, struct hs_op *op, size_t need, struct hs_error *err)
{
    size_t n;
    hs_err rv = hs_input_more(c, op, need, err, &n);

    return rv == HS_OK && n == 0 ? ended(c, err) : rv;
}

hs_err
hs_input_settle(struct hs_conn *c, struct hs_op *op, struct hs_error *err)
{
    size_t need;
    hs_err rv = HS_OK;

    for (unsigned round = 1; rv == HS_OK && hs_deframer_skipping(&c->in); round++) {
        rv = hs_deframer_skip(&c->in, err, &need);
        hs_input_changed(c);
        if (rv != HS_WANT)
            break;
        hs_pace_start(c, hs_input_arrived(c));
        rv = hs_input_fill(c, op, need, err);
        if (rv == HS_OK && round % SLICE_ROUNDS == 0)
            rv = HS_INTR;
    }
    return rv;
}
