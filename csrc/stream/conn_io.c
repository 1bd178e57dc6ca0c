/* conn_io.c: the bytes: one read loop, one write loop.
 *
 * Reading keeps what it cannot return (inbuf); writing counts what the kernel took (op->done) and
 * poisons the direction when a message stops half-way.
 */
#include "conn_impl.h"
#include "delays.h"

#include "../base/time.h"

#include <errno.h>
#include <sys/socket.h>

/* How much of an early answer is kept. */
#define LAST_WORDS_MAX ((size_t)65536)
/* A file reads more than it is asked for, unless it is asked for as much as one try brings. */
#define READ_AHEAD_BELOW ((size_t)16384)
/* A round of a file is 60 KiB at most. */
#define FILE_SLICE_ROUNDS 128

/* ---- Reading ------------------------------------------------------------------------------- */

static size_t
take_buffered(struct hs_conn *c, uint8_t *buf, size_t len, bool peek)
{
    size_t n;

    if (peek)
        return hs_buf_peek(&c->in.buf, buf, len);
    n = hs_buf_take(&c->in.buf, buf, len);
    hs_deframer_touched(&c->in);
    hs_input_changed(c);
    return n;
}

/* What a call had received but cannot return is kept for the next one. */
static void
conn_io_put_back(struct hs_conn *c, struct hs_op *op, const uint8_t *buf)
{
    if (hs_buf_prepend(&c->in.buf, buf, op->done) != HS_OK)
        (void)hs_conn_set_once(&c->dirs[HS_DIR_IN].poison,
                               HS_E_NOMEM); /* Bytes are lost: the stream must not go on. */
    hs_deframer_touched(&c->in);
    hs_input_changed(c);
}

/* Through the receive buffer, which may get more. *ret_n as of hs_input_read. */
static hs_err
conn_io_ahead(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len, struct hs_error *err,
              size_t *ret_n)
{
    hs_err rv = hs_input_more(c, op, 1, err, ret_n);

    if (rv == HS_OK && *ret_n > 0)
        *ret_n = take_buffered(c, buf, len, false);
    return rv;
}

/* len bytes, or those before the peer's end. */
static hs_err
conn_io_fill(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len, bool ahead,
             struct hs_error *err)
{
    size_t n = 1;
    hs_err rv;

    if (op->done < len && hs_buf_len(&c->in.buf) > 0)
        op->done += take_buffered(c, buf + op->done, len - op->done, false);
    for (unsigned round = 1; op->done < len && n > 0; round++) {
        uint8_t *at = buf + op->done;
        size_t left = len - op->done;

        hs_pace_start(c, op->done);
        rv = ahead && left < READ_AHEAD_BELOW ? conn_io_ahead(c, op, at, left, err, &n)
                                              : hs_input_read(c, op, at, left, 0, err, &n);
        if (rv != HS_OK)
            return rv;
        op->done += n;
        if (round % SLICE_ROUNDS == 0 && op->done < len && n > 0)
            return HS_INTR;
    }
    return HS_OK;
}

static hs_err
recv_some(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len, int flags, bool ahead,
          struct hs_error *err, size_t *ret_n)
{
    hs_err rv;

    if ((flags & MSG_WAITALL) != 0) {
        if ((rv = conn_io_fill(c, op, buf, len, ahead, err)) == HS_OK)
            *ret_n = op->done;
        return rv;
    }
    if (hs_buf_len(&c->in.buf) == 0)
        return hs_input_read(c, op, buf, len, flags, err, ret_n);
    *ret_n = take_buffered(c, buf, len, (flags & MSG_PEEK) != 0);
    return HS_OK;
}

static hs_err
conn_io_recv(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len, int flags, bool ahead,
             struct hs_error *err, size_t *ret_n)
{
    size_t n = 0;
    hs_err rv = hs_call_begin(c, op, HS_DIR_IN, err);

    if (rv == HS_OK && len > 0)
        rv = hs_input_settle(c, op, err);
    if (rv == HS_OK && len > 0)
        rv = recv_some(c, op, buf, len, flags, ahead, err, &n);
    if (op->claim != 0)
        hs_pace_end(c, rv, err); /* Who reads like this knows no messages. */
    if (rv < 0 && op->claim != 0 && op->done > 0)
        conn_io_put_back(c, op, buf);
    rv = hs_call_end(c, op, HS_DIR_IN, "recv", rv, err);
    if (rv == HS_OK)
        *ret_n = n;
    return rv;
}

hs_err
hs_conn_recv(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len, int flags,
             struct hs_error *err, size_t *ret_n)
{
    return conn_io_recv(c, op, buf, len, flags, false, err, ret_n);
}

hs_err
hs_conn_read(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len, struct hs_error *err,
             size_t *ret_n)
{
    return conn_io_recv(c, op, buf, len, MSG_WAITALL, true, err, ret_n);
}

/* From the buffer, or through TLS: only bytes come that way. */
static hs_err
recv_pieces(struct hs_conn *c, struct hs_op *op, struct msghdr *msg, int flags,
            struct hs_error *err, size_t *ret_n)
{
    bool peek = (flags & MSG_PEEK) != 0;
    size_t i = 0, n = 0;

    msg->msg_controllen = 0;
    msg->msg_flags = 0;
    while (i < (size_t)msg->msg_iovlen && msg->msg_iov[i].iov_len == 0)
        i++;
    if (hs_buf_len(&c->in.buf) == 0)
        return hs_input_read(c, op, msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len, flags, err,
                             ret_n);
    for (; i < (size_t)msg->msg_iovlen && hs_buf_len(&c->in.buf) > 0 && !(peek && n > 0); i++) {
        n += take_buffered(c, msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len, peek);
    }
    *ret_n = n;
    return HS_OK;
}

static hs_err
ask_recvmsg(struct hs_conn *c, struct msghdr *msg, int flags, struct hs_error *err, short *want,
            size_t *ret_n)
{
    hs_err (*try_recvmsg)(int, struct msghdr *, int, struct hs_error *, short *, size_t *) =
        c->delays != NULL ? hs_delays_try_recvmsg : hs_tcp_try_recvmsg;

    hs_ask_begin(c, HS_DIR_IN);
    return hs_ask_end(c, HS_DIR_IN,
                      try_recvmsg(hs_fd_number(&c->fd), msg, flags, err, want, ret_n));
}

static hs_err
recv_message(struct hs_conn *c, struct hs_op *op, struct msghdr *msg, size_t len, int flags,
             struct hs_error *err, size_t *ret_n)
{
    const socklen_t room = (socklen_t)msg->msg_controllen;
    short want;
    hs_err rv;

    if (len > 0 && (c->tls != NULL || hs_buf_len(&c->in.buf) > 0))
        return recv_pieces(c, op, msg, flags, err, ret_n);
    while ((rv = ask_recvmsg(c, msg, flags, err, &want, ret_n)) == HS_WANT) {
        msg->msg_controllen = room;
        if ((rv = hs_call_wait(c, op, HS_DIR_IN, want, err)) != HS_OK)
            return rv;
    }
    if (rv == HS_OK && *ret_n > 0 && (flags & MSG_PEEK) == 0)
        op->came_ns = hs_conn_account(c, HS_DIR_IN, *ret_n);
    if (rv == HS_OK && *ret_n == 0 && len > 0 && (rv = hs_input_check_end(c, err)) == HS_OK)
        hs_half_closed(c, HS_DIR_OUT);
    return rv;
}

hs_err
hs_conn_recvmsg(struct hs_conn *c, struct hs_op *op, struct msghdr *msg, int flags,
                struct hs_error *err, size_t *ret_n)
{
    size_t len = 0, n = 0;
    hs_err rv = hs_call_begin(c, op, HS_DIR_IN, err);

    for (size_t i = 0; i < (size_t)msg->msg_iovlen; i++)
        len += msg->msg_iov[i].iov_len;
    if (rv == HS_OK && len > 0)
        rv = hs_input_settle(c, op, err);
    if (rv == HS_OK && (len > 0 || (msg->msg_controllen > 0 && c->tls == NULL)))
        rv = recv_message(c, op, msg, len, flags, err, &n);
    else
        msg->msg_controllen = 0;
    if (op->claim != 0)
        hs_pace_end(c, rv, err);
    rv = hs_call_end(c, op, HS_DIR_IN, "recvmsg", rv, err);
    if (rv == HS_OK)
        *ret_n = n;
    return rv;
}

void
hs_conn_lost_input(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    (void)hs_conn_set_once(&c->dirs[HS_DIR_IN].poison, HS_E_NOMEM);
}

void
hs_conn_lost_output(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    (void)hs_conn_set_once(&c->dirs[HS_DIR_OUT].poison, HS_E_CANCELLED);
}

static hs_err
ended_after(size_t done, size_t len, struct hs_error *err)
{
    if (done == 0)
        return hs_err_setx(err, HS_E_END, NULL, "the peer ended its stream before %zu bytes", len);
    return hs_err_setx(err, HS_E_TRUNCATED, NULL,
                       "the peer ended its stream after %zu of %zu bytes", done, len);
}

hs_err
hs_conn_recv_exactly(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len,
                     struct hs_error *err)
{
    hs_err rv = hs_call_begin(c, op, HS_DIR_IN, err);

    if (rv == HS_OK && len > 0)
        rv = hs_input_settle(c, op, err);
    if (rv == HS_OK && (rv = conn_io_fill(c, op, buf, len, false, err)) == HS_OK && op->done < len)
        rv = ended_after(op->done, len, err);
    if (op->claim != 0)
        hs_pace_end(c, rv, err);
    if (rv < 0 && op->claim != 0 && op->done > 0)
        conn_io_put_back(c, op, buf);
    return hs_call_end(c, op, HS_DIR_IN, "recv_exactly", rv, err);
}

/* ---- Writing ------------------------------------------------------------------------------- */

/* EPIPE only says that it is over. That may be our own shutdown, by another thread during the call;
 * or the peer is dead, which a call that reads was told before. */
static hs_err
why_it_is_over(struct hs_conn *c, struct hs_error *err)
{
    hs_err rv = hs_conn_judge_reset(c, err);

    if (rv != HS_E_RESET || !atomic_load(&c->out_ended) || (err != NULL && err->sys != EPIPE))
        return rv;
    if (err != NULL)
        *err = (struct hs_error){0};
    return hs_err_setx(err, HS_E_CLOSED, NULL, "%s", hs_ended_here);
}

/* After a try that was the last one. */
static hs_err
sent(struct hs_conn *c, struct hs_op *op, hs_err rv, struct hs_error *err, size_t n)
{
    if (rv == HS_OK) {
        op->done += n;
        (void)hs_conn_account(c, HS_DIR_OUT, n);
    }
    return rv == HS_E_RESET ? why_it_is_over(c, err) : rv;
}

static hs_err
ask_send(struct hs_conn *c, const struct iovec *iov, size_t n_iov, int flags, struct hs_error *err,
         short *want, size_t *ret_n)
{
    hs_ask_begin(c, HS_DIR_OUT);
    return hs_ask_end(
        c, HS_DIR_OUT,
        c->layer->try_send(c->tls, hs_fd_number(&c->fd), iov, n_iov, flags, err, want, ret_n));
}

static hs_err
send_some(struct hs_conn *c, struct hs_op *op, const struct iovec *iov, size_t n_iov,
          struct hs_error *err, size_t *ret_n)
{
    short want;
    hs_err rv;

    while ((rv = ask_send(c, iov, n_iov, op->send_flags, err, &want, ret_n)) == HS_WANT) {
        hs_conn_wake_reader(c);
        if ((rv = hs_call_wait(c, op, HS_DIR_OUT, want, err)) != HS_OK)
            return rv;
    }
    hs_conn_wake_reader(c);
    return sent(c, op, rv, err, rv == HS_OK ? *ret_n : 0);
}

/* A server that refuses early answers, closes, and resets what we go on sending; its answer is in
 * the receive queue and can still be had now. It is kept for the next recv, unless somebody reads
 * at this moment: then that call gets it. */
static void
keep_last_words(struct hs_conn *c)
{
    uint8_t *room;
    short want;
    size_t n;

    if (!hs_call_visit(c, HS_DIR_IN))
        return;
    while (hs_buf_len(&c->in.buf) < LAST_WORDS_MAX && !hs_deframer_skipping(&c->in) &&
           hs_buf_reserve(&c->in.buf, LAST_WORDS_MAX / 4, &room) == HS_OK &&
           hs_ask_recv(c, room, LAST_WORDS_MAX / 4, 0, NULL, &want, &n) == HS_OK && n > 0) {
        hs_buf_commit(&c->in.buf, n);
        (void)hs_conn_account(c, HS_DIR_IN, n);
    }
    hs_buf_trim(&c->in.buf);
    hs_input_changed(c);
    hs_call_leave(c, HS_DIR_IN);
}

/* Half a message is out: nobody may write behind it. Half a TLS record is the same; but who only
 * tries, without waiting, will come again, and then has to bring the bytes of that record. */
static void
poison_output(struct hs_conn *c, const struct hs_op *op, const struct iovec *iov, size_t n_iov,
              hs_err rv)
{
    bool half = hs_conn_half_sent(c);
    bool tries = rv == HS_E_DEADLINE && op->deadline_ns == HS_TRY_ONCE && iov != NULL;

    if (op->done > 0 || op->midway || (half && !tries))
        (void)hs_conn_set_once(&c->dirs[HS_DIR_OUT].poison, rv);
    else if (half)
        hs_tls_keep_half_sent(c->tls, iov, n_iov);
}

static hs_err
end_message(struct hs_conn *c, struct hs_op *op, const char *name, const struct iovec *iov,
            size_t n_iov, hs_err rv, struct hs_error *err)
{
    if (rv < 0 && op->claim != 0)
        poison_output(c, op, iov, n_iov, rv);
    if (rv == HS_E_RESET && op->claim != 0)
        keep_last_words(c);
    return hs_call_end(c, op, HS_DIR_OUT, name, rv, err);
}

hs_err
hs_conn_send(struct hs_conn *c, struct hs_op *op, const uint8_t *buf, size_t len,
             struct hs_error *err, size_t *ret_n)
{
    const struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
    size_t n = 0;
    hs_err rv = hs_call_begin(c, op, HS_DIR_OUT, err);

    if (rv == HS_OK && len > 0)
        rv = send_some(c, op, &iov, 1, err, &n);
    rv = end_message(c, op, "send", &iov, 1, rv, err);
    if (rv == HS_OK)
        *ret_n = n;
    return rv;
}

hs_err
hs_conn_send_all(struct hs_conn *c, struct hs_op *op, const uint8_t *buf, size_t len,
                 struct hs_error *err)
{
    struct iovec rest = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
    size_t n;
    hs_err rv = hs_call_begin(c, op, HS_DIR_OUT, err);

    for (unsigned round = 1; rv == HS_OK && op->done < len; round++) {
        rest.iov_base = (void *)(uintptr_t)(buf + op->done);
        rest.iov_len = len - op->done;
        rv = send_some(c, op, &rest, 1, err, &n);
        if (rv == HS_OK && round % SLICE_ROUNDS == 0 && op->done < len)
            rv = HS_INTR;
    }
    return end_message(c, op, "sendall", &rest, 1, rv, err);
}

/* Moves past n sent bytes. Empty pieces at the front are skipped too. */
static void
conn_io_advance(struct iovec **iov, size_t *n_iov, size_t n)
{
    while (*n_iov > 0 && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        (*iov)->iov_len = 0; /* so that a retry with the same vector skips it */
        (*iov)++;
        (*n_iov)--;
    }
    if (*n_iov > 0) {
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
}

hs_err
hs_conn_sendv(struct hs_conn *c, struct hs_op *op, struct iovec *iov, size_t n_iov, bool all,
              struct hs_error *err)
{
    size_t n = 0;
    hs_err rv = hs_call_begin(c, op, HS_DIR_OUT, err);

    conn_io_advance(&iov, &n_iov, 0);
    for (unsigned round = 1; rv == HS_OK && n_iov > 0 && (all || n == 0); round++) {
        if ((rv = send_some(c, op, iov, n_iov, err, &n)) != HS_OK)
            break;
        conn_io_advance(&iov, &n_iov, n);
        if (all && round % SLICE_ROUNDS == 0 && n_iov > 0)
            rv = HS_INTR;
    }
    return end_message(c, op, all ? "sendall" : "sendmsg", iov, n_iov, rv, err);
}

static hs_err
ask_sendmsg(struct hs_conn *c, const struct msghdr *msg, int flags, struct hs_error *err,
            short *want, size_t *ret_n)
{
    hs_ask_begin(c, HS_DIR_OUT);
    return hs_ask_end(c, HS_DIR_OUT,
                      hs_tcp_try_sendmsg(hs_fd_number(&c->fd), msg, flags, err, want, ret_n));
}

hs_err
hs_conn_sendmsg(struct hs_conn *c, struct hs_op *op, const struct msghdr *msg, struct hs_error *err)
{
    size_t n = 0;
    short want;
    hs_err rv = hs_call_begin(c, op, HS_DIR_OUT, err);

    if (rv == HS_OK && c->tls != NULL)
        rv = hs_err_setx(err, HS_E_INVALID, NULL, "ancillary data cannot go through TLS");
    if (rv == HS_OK) {
        while ((rv = ask_sendmsg(c, msg, op->send_flags, err, &want, &n)) == HS_WANT)
            if ((rv = hs_call_wait(c, op, HS_DIR_OUT, want, err)) != HS_OK)
                break;
        rv = sent(c, op, rv, err, n);
    }
    return end_message(c, op, "sendmsg", NULL, 0, rv, err);
}

hs_err
hs_conn_send_file(struct hs_conn *c, struct hs_op *op, int file, int64_t *offset, size_t len,
                  struct hs_error *err)
{
    size_t n = 1;
    short want;
    hs_err rv = hs_call_begin(c, op, HS_DIR_OUT, err);

    for (unsigned round = 1; rv == HS_OK && op->done < len && n > 0; round++) {
        hs_ask_begin(c, HS_DIR_OUT);
        rv = hs_ask_end(c, HS_DIR_OUT,
                        c->layer->try_send_file(c->tls, hs_fd_number(&c->fd), file, offset,
                                                len - op->done, err, &want, &n));
        hs_conn_wake_reader(c);
        if (rv == HS_WANT) {
            rv = hs_call_wait(c, op, HS_DIR_OUT, want, err);
        } else if (rv == HS_OK && n > 0) {
            op->done += n;
            (void)hs_conn_account(c, HS_DIR_OUT, n);
            if (round % FILE_SLICE_ROUNDS == 0 && op->done < len)
                rv = HS_INTR;
        } else if (rv == HS_E_RESET) {
            rv = why_it_is_over(c, err);
        }
    }
    return end_message(c, op, "sendfile", NULL, 0, rv, err);
}

void
hs_conn_abandon(struct hs_conn *c, struct hs_op *op, const uint8_t *buf)
{
    bool in = (op->claim & (1U << HS_DIR_IN)) != 0, out = (op->claim & (1U << HS_DIR_OUT)) != 0;

    if (in && buf != NULL && op->done > 0)
        conn_io_put_back(c, op, buf);
    if (in && out && op->done > 0) /* finish: what it threw away is missing */
        (void)hs_conn_set_once(&c->dirs[HS_DIR_IN].poison, HS_E_CANCELLED);
    if (out && (op->done > 0 || op->midway || hs_conn_half_sent(c)))
        (void)hs_conn_set_once(&c->dirs[HS_DIR_OUT].poison, HS_E_CANCELLED);
    if (in && out)
        hs_conn_tls_abandoned(c);
    if (in)
        hs_pace_end(c, HS_E_CANCELLED, NULL);
    if (in)
        hs_call_release(c, op, HS_DIR_IN);
    if (out)
        hs_call_release(c, op, HS_DIR_OUT);
}
