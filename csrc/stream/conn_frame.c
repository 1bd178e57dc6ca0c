/* conn_frame.c: what is cut out of the receive buffer of a connection.
 *
 * frame.h decides; here is the I/O around it. Frames are lent out of the
 * buffer while the call keeps its claim, so that nothing is consumed that the caller could not
 * take.
 */
#include "conn_impl.h"

#include "../base/time.h"

#include <string.h>

static const uint8_t nothing[1];

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
        hs_pace_start(c, hs_input_arrived(c));
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
        if ((rv = hs_input_more(c, op, least > op->done ? least - op->done : 1, err, &more)) !=
            HS_OK)
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

hs_err
hs_conn_try_read(struct hs_conn *c, size_t n)
{
    HS_CHECK(c, CONN_MAGIC);
    if (atomic_load_explicit(&c->buffered, memory_order_relaxed) < n || !may_read_at_once(c) ||
        !hs_call_take(c, HS_DIR_IN))
        return HS_WANT;
    if (!hs_deframer_skipping(&c->in) && atomic_load(&c->dirs[HS_DIR_IN].poison) == HS_OK &&
        hs_buf_len(&c->in.buf) >= n)
        return HS_OK;
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
