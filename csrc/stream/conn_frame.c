/* conn_frame.c: the receive buffer of a connection and what is cut out of it.
 *
 * frame.h decides; here is the I/O around it. Bytes come in as large pieces as have proved to be
 * worth it: the buffer follows what arrives, never what a header claims. Frames are lent out of the
 * buffer while the call keeps its claim, so that nothing is consumed that the caller could not
 * take.
 */
#include "conn_impl.h"

#include "../base/time.h"

#include <inttypes.h>
#include <string.h>

#define READ_MIN ((size_t)16384)
#define READ_MAX ((size_t)262144)

static const uint8_t nothing[1];

void
hs_input_changed(struct hs_conn *c)
{
    atomic_store_explicit(&c->buffered, hs_buf_len(&c->in.buf), memory_order_relaxed);
}

/* ---- The minimum rate ---------------------------------------------------------------------- */

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
conn_frame_is_over(struct hs_conn *c, hs_err rv)
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
    if (conn_frame_is_over(c, rv))
        p->since_ns = 0;
    p->until_ns = HS_NEVER;
}

/* ---- Filling the buffer -------------------------------------------------------------------- */

/* Of the message that is waited for, or of the one that is being skipped. */
static uint64_t
arrived(struct hs_conn *c)
{
    uint64_t n = hs_buf_len(&c->in.buf);

    return hs_deframer_skipping(&c->in) ? n + c->in.oversize.discarded : n;
}

static hs_err
ended(struct hs_conn *c, struct hs_error *err)
{
    uint64_t have = arrived(c);

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

/* Adds what comes next to the buffer; waits. *ret_n 0: the peer's clean end. need is how many bytes
 * are missing for what is wanted. */
static hs_err
input_more(struct hs_conn *c, struct hs_op *op, size_t need, struct hs_error *err, size_t *ret_n)
{
    size_t size = piece_size(c, need), n;
    uint8_t *room;
    hs_err rv;

    if (hs_buf_reserve(&c->in.buf, size, &room) != HS_OK)
        return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for %zu received bytes", size);
    size = hs_buf_room(&c->in.buf);
    rv = hs_input_read(c, op, room, size, 0, err, &n);
    if (rv == HS_OK && n > 0) {
        hs_buf_commit(&c->in.buf, n);
        c->read_size = n < size ? n : 2 * size < READ_MAX ? 2 * size : READ_MAX;
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
    hs_err rv = input_more(c, op, need, err, &n);

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
        hs_pace_start(c, arrived(c));
        rv = hs_input_fill(c, op, need, err);
        if (rv == HS_OK && round % SLICE_ROUNDS == 0)
            rv = HS_INTR;
    }
    return rv;
}

/* ---- Frames -------------------------------------------------------------------------------- */

static bool
ends_the_stream(struct hs_conn *c, hs_err rv)
{
    return rv == HS_E_BAD_FRAME || (rv == HS_E_FRAME_TOO_LARGE && !c->in.oversize.recoverable);
}

static hs_err
await_frame(struct hs_conn *c, struct hs_op *op, const struct hs_framing *f, struct hs_error *err)
{
    size_t need;
    hs_err rv = HS_OK;

    for (unsigned round = 1; rv == HS_OK; round++) {
        if ((rv = hs_deframer_next(&c->in, f, err, &c->found, &need)) != HS_WANT)
            return rv;
        op->done = hs_buf_len(&c->in.buf);
        hs_pace_start(c, arrived(c));
        rv = hs_input_fill(c, op, need, err);
        if (rv == HS_OK && round % SLICE_ROUNDS == 0)
            rv = HS_INTR;
    }
    return rv;
}

static const char *const names[] = {
    [HS_FRAMING_DELIMITER] = "recv_until",
    [HS_FRAMING_LINE] = "recv_line",
    [HS_FRAMING_PREFIX] = "recv_frame",
};

hs_err
hs_conn_recv_frames(struct hs_conn *c, struct hs_op *op, const struct hs_framing *f,
                    struct hs_error *err)
{
    hs_err rv = hs_call_begin(c, op, HS_DIR_IN, err);

    if (rv == HS_OK)
        rv = await_frame(c, op, f, err);
    if (op->claim != 0) {
        if (ends_the_stream(c, rv))
            (void)hs_conn_set_once(&c->dirs[HS_DIR_IN].poison, rv);
        hs_pace_end(c, rv, err);
        hs_input_changed(c); /* Skipped bytes have left it. */
    }
    return rv == HS_OK ? HS_OK : hs_call_end(c, op, HS_DIR_IN, names[f->kind], rv, err);
}

hs_err
hs_conn_try_frames(struct hs_conn *c, const struct hs_framing *f)
{
    size_t need;

    HS_CHECK(c, CONN_MAGIC);
    if (atomic_load_explicit(&c->buffered, memory_order_relaxed) == 0 || hs_fd_is_closed(&c->fd) ||
        !hs_fd_is_ours(&c->fd) || !hs_call_take(c, HS_DIR_IN))
        return HS_WANT;
    if (!hs_deframer_skipping(&c->in) && f->too_long != HS_TOO_LONG_SKIP &&
        atomic_load(&c->dirs[HS_DIR_IN].poison) == HS_OK &&
        hs_deframer_next(&c->in, f, NULL, &c->found, &need) == HS_OK)
        return HS_OK;
    hs_conn_try_end(c);
    return HS_WANT;
}

void
hs_conn_try_end(struct hs_conn *c)
{
    c->found.consumed = 0;
    hs_input_changed(c);
    atomic_store_explicit(&c->dirs[HS_DIR_IN].user, USER_NONE, memory_order_release);
}

/* Only looks: a skip begun here, or its report, would go to nobody; they are for the next call. */
static bool
find_another(struct hs_conn *c, const struct hs_framing *f)
{
    struct hs_oversize ignored;
    size_t need, scanned = 0;

    if (f->too_long != HS_TOO_LONG_SKIP)
        return hs_deframer_next(&c->in, f, NULL, &c->found, &need) == HS_OK;
    return hs_framing_find(f, hs_conn_peeked(c), hs_buf_len(&c->in.buf), &scanned, &need, NULL,
                           &c->found, &ignored) == HS_OK;
}

bool
hs_conn_frame(struct hs_conn *c, const struct hs_framing *f, const uint8_t **ret_data,
              size_t *ret_len)
{
    if (c->found.consumed == 0 && (hs_buf_len(&c->in.buf) == 0 || !find_another(c, f)))
        return false;
    *ret_data = hs_conn_peeked(c) + c->found.start;
    *ret_len = c->found.len;
    return true;
}

void
hs_conn_frame_taken(struct hs_conn *c)
{
    hs_deframer_drop(&c->in, c->found.consumed);
    c->found.consumed = 0;
    c->pace.since_ns = 0; /* It may have been whole without anybody waiting for it. */
}

void
hs_conn_frames_end(struct hs_conn *c, struct hs_op *op)
{
    c->found.consumed = 0;
    hs_input_changed(c);
    hs_call_release(c, op, HS_DIR_IN);
}

/* ---- Looking ahead ------------------------------------------------------------------------- */

static hs_err
fill_to(struct hs_conn *c, struct hs_op *op, size_t n, struct hs_error *err)
{
    hs_err rv = HS_OK;

    for (unsigned round = 1; rv == HS_OK && hs_buf_len(&c->in.buf) < n; round++) {
        op->done = hs_buf_len(&c->in.buf);
        hs_pace_start(c, op->done);
        rv = hs_input_fill(c, op, n - op->done, err);
        if (rv == HS_OK && round % SLICE_ROUNDS == 0)
            rv = HS_INTR;
    }
    return rv;
}

hs_err
hs_conn_peek(struct hs_conn *c, struct hs_op *op, size_t n, struct hs_error *err)
{
    hs_err rv = hs_call_begin(c, op, HS_DIR_IN, err);

    if (rv == HS_OK)
        rv = hs_input_settle(c, op, err);
    if (rv == HS_OK)
        rv = fill_to(c, op, n, err);
    if (op->claim != 0)
        hs_pace_end(c, rv, err);
    return rv == HS_OK ? HS_OK : hs_call_end(c, op, HS_DIR_IN, "peek", rv, err);
}

const uint8_t *
hs_conn_peeked(struct hs_conn *c)
{
    return hs_buf_len(&c->in.buf) > 0 ? c->in.buf.data + c->in.buf.head : nothing;
}

size_t
hs_conn_copy_buffered(struct hs_conn *c, uint8_t *to, size_t n)
{
    HS_CHECK(c, CONN_MAGIC);
    if (!hs_call_visit(c, HS_DIR_IN))
        return 0;
    n = hs_buf_peek(&c->in.buf, to, n);
    hs_call_leave(c, HS_DIR_IN);
    return n;
}

/* ---- Lines as files read them: the peer's end is an answer, and no error --------------------- */

/* op->done of the buffered bytes were looked at by earlier rounds. */
static bool
has_line(struct hs_conn *c, const struct hs_op *op, size_t from, size_t limit, size_t *ret_n)
{
    size_t have = hs_buf_len(&c->in.buf), end = have < limit ? have : limit;
    size_t at = from > op->done ? from : op->done;
    const uint8_t *front = hs_conn_peeked(c);
    const uint8_t *found = at < end ? memchr(front + at, '\n', end - at) : NULL;

    if (found == NULL && have < limit)
        return false;
    *ret_n = found == NULL ? limit : (size_t)(found - front) + 1;
    return true;
}

static hs_err
await_line(struct hs_conn *c, struct hs_op *op, size_t from, size_t limit, struct hs_error *err,
           size_t *ret_n)
{
    size_t least = from < limit ? from : limit, more;
    hs_err rv;

    for (unsigned round = 1; !has_line(c, op, from, limit, ret_n); round++) {
        op->done = hs_buf_len(&c->in.buf);
        hs_pace_start(c, op->done);
        if ((rv = input_more(c, op, least > op->done ? least - op->done : 1, err, &more)) != HS_OK)
            return rv;
        if (more == 0) {
            *ret_n = op->done;
            return HS_OK;
        }
        if (round % SLICE_ROUNDS == 0)
            return HS_INTR;
    }
    return HS_OK;
}

hs_err
hs_conn_read_line(struct hs_conn *c, struct hs_op *op, size_t from, size_t limit,
                  struct hs_error *err, size_t *ret_n)
{
    size_t n = 0;
    hs_err rv = hs_call_begin(c, op, HS_DIR_IN, err);

    if (rv == HS_OK)
        rv = hs_input_settle(c, op, err);
    if (rv == HS_OK)
        rv = await_line(c, op, from, limit, err, &n);
    if (op->claim != 0)
        hs_pace_end(c, rv, err);
    if (rv != HS_OK)
        return hs_call_end(c, op, HS_DIR_IN, "readline", rv, err);
    *ret_n = n;
    return HS_OK;
}

static void
take_line(struct hs_conn *c, size_t n)
{
    if (n > 0) {
        hs_buf_drop(&c->in.buf, n);
        hs_deframer_touched(&c->in);
    }
}

void
hs_conn_read_line_end(struct hs_conn *c, struct hs_op *op, size_t n)
{
    take_line(c, n);
    hs_conn_frames_end(c, op);
}

/* Whether no call of this connection's reading side would be refused or shortened. */
static bool
may_read_at_once(struct hs_conn *c)
{
    return !hs_fd_is_closed(&c->fd) && hs_fd_is_ours(&c->fd) &&
           atomic_load(&c->dirs[HS_DIR_IN].deadline_ns) == HS_NEVER &&
           atomic_load_explicit(&c->quiet.ended, memory_order_relaxed) == 0;
}

hs_err
hs_conn_try_line(struct hs_conn *c, size_t limit, size_t *ret_n)
{
    const struct hs_op fresh = HS_OP_INIT(HS_NEVER, NULL);
    size_t n;

    HS_CHECK(c, CONN_MAGIC);
    if (atomic_load_explicit(&c->buffered, memory_order_relaxed) == 0 || !may_read_at_once(c) ||
        !hs_call_take(c, HS_DIR_IN))
        return HS_WANT;
    if (!hs_deframer_skipping(&c->in) && atomic_load(&c->dirs[HS_DIR_IN].poison) == HS_OK &&
        has_line(c, &fresh, 0, limit, &n)) {
        *ret_n = n;
        return HS_OK;
    }
    hs_conn_try_end(c);
    return HS_WANT;
}

void
hs_conn_try_line_end(struct hs_conn *c, size_t n)
{
    take_line(c, n);
    c->pace.since_ns = 0; /* As after a line that was waited for. */
    hs_conn_try_end(c);
}
