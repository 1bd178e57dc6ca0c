/* conn.c: a connection: claims, waits, poison, accounting.
 *
 * Every call runs begin() .. end(). begin() holds the descriptor (fd.h), claims the direction, and
 * refuses what must not run; end() gives both back, unless the call is merely interrupted (HS_INTR)
 * or stepped (HS_WANT): then the op keeps hold and claim, so that nobody gets between its halves.
 *
 * Invariants:
 * - busy[d] is true exactly while one op has claimed direction d; only the claimer touches that
 *   direction's data (inbuf belongs to HS_DIR_IN) and clears the flag.
 * - poison[d], which is about one direction, and broken, about both, go from 0 to a code once.
 * - Closing marks the descriptor first and wakes the list after; a waiter joins the list first and
 *   looks at the mark after.
 */
#include "conn.h"

#include "fd.h"
#include "layer.h"
#include "sockopt.h"
#include "../base/buf.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/time.h"
#include "../cancel/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONN_MAGIC 0x70c3c044U
#define FREED 0x72
/* Rounds of a fast endless send before signals get a chance. */
#define SLICE_ROUNDS 64

struct direction {
    atomic_bool busy;
    _Atomic hs_err poison;
    _Atomic int64_t deadline_ns;
    _Atomic int64_t last_ns;
    _Atomic uint64_t bytes;
};

struct hs_conn {
    unsigned magic;
    atomic_int refs;
    atomic_int handles;
    int family;
    struct hs_fd fd;
    const struct hs_layer *layer;
    struct direction dirs[2];
    _Atomic hs_err broken;  /* HS_E_RESET or HS_E_DEAD_PEER, whoever found out first */
    atomic_bool out_ended;  /* by our own shutdown */
    atomic_bool may_linger; /* somebody other than us may have set SO_LINGER */
    struct hs_wakelist wakers;
    struct hs_buf inbuf;     /* belongs to who has claimed HS_DIR_IN */
    _Atomic size_t buffered; /* its length, for those who only look */
    int64_t created_ns;
    unsigned changed;
    struct hs_sockopts opts; /* as asked; immutable */
};

static atomic_long live;

long
hs_conn_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

hs_err
hs_conn_wrap(int fd, int family, const struct hs_sockopts *opts, unsigned changed,
             struct hs_error *err, struct hs_conn **ret_conn)
{
    struct hs_conn *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for a connection");
    c->magic = CONN_MAGIC;
    c->refs = 1;
    c->handles = 1;
    c->family = family;
    hs_fd_init(&c->fd, fd);
    c->layer = &hs_tcp_layer;
    c->dirs[HS_DIR_IN].deadline_ns = c->dirs[HS_DIR_OUT].deadline_ns = HS_NEVER;
    hs_wakelist_init(&c->wakers);
    c->created_ns = hs_now();
    c->changed = changed;
    c->opts = *opts;
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    *ret_conn = c;
    return HS_OK;
}

/* A stream socket that has a peer, of a family that we know. */
static hs_err
check_adoptable(int fd, struct hs_error *err, int *ret_family)
{
    struct hs_addr peer = {.len = sizeof(peer.storage)};
    int type, family;
    socklen_t len = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len) != 0)
        return hs_err_set(err, HS_E_INVALID, errno, "adopt", "descriptor %d", fd);
    if (type != SOCK_STREAM || (family != AF_INET && family != AF_INET6 && family != AF_UNIX))
        return hs_err_setx(err, HS_E_INVALID, "adopt",
                           "descriptor %d is not a TCP or unix stream socket", fd);
    if (getpeername(fd, &peer.sa, &peer.len) != 0)
        return hs_err_set(err, HS_E_INVALID, errno, "adopt", "descriptor %d has no peer", fd);
    *ret_family = family;
    return HS_OK;
}

hs_err
hs_conn_adopt(int fd, const struct hs_sockopts *opts, struct hs_error *err,
              struct hs_conn **ret_conn)
{
    struct hs_sockopts none;
    unsigned changed;
    int family, flags;
    hs_err rv;

    hs_sockopts_init(&none);
    if (opts == NULL)
        opts = &none;
    if ((rv = check_adoptable(fd, err, &family)) != HS_OK)
        return rv;
    if ((rv = hs_sockopts_apply(fd, family, opts, HS_USE_CONNECTION, err, &changed)) != HS_OK)
        return rv;
    if ((flags = fcntl(fd, F_GETFL)) < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, "adopt", "fcntl");
    if ((rv = hs_conn_wrap(fd, family, opts, changed, err, ret_conn)) == HS_OK)
        (*ret_conn)->may_linger = true;
    return rv;
}

struct hs_conn *
hs_conn_ref(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void
hs_conn_unref(struct hs_conn *c)
{
    if (c == NULL)
        return;
    HS_CHECK(c, CONN_MAGIC);
    if (atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    hs_conn_close(c, false);
    hs_buf_fini(&c->inbuf);
    if (hs_fd_is_ours(
            &c->fd)) /* In a forked child threads that waited are gone, their nodes not. */
        hs_wakelist_fini(&c->wakers);
    memset(c, FREED, sizeof(*c));
    free(c);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

void
hs_conn_share(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    atomic_fetch_add(&c->handles, 1);
}

void
hs_conn_unshare(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    if (atomic_fetch_sub(&c->handles, 1) == 1)
        hs_conn_close(c, false);
}

/* ---- The frame of every call --------------------------------------------------------------- */

static const char *const dir_names[] = {"reading", "writing"};

static hs_err
check_broken(struct hs_conn *c, struct hs_error *err)
{
    hs_err broken = atomic_load(&c->broken);

    if (broken == HS_OK)
        return HS_OK;
    return hs_err_setx(err, broken, NULL, "%s, as was found earlier", hs_err_text(broken));
}

static hs_err
check_poison(const struct direction *d, enum hs_dir dir, struct hs_error *err)
{
    hs_err poison = atomic_load(&d->poison);

    if (poison == HS_OK)
        return HS_OK;
    return hs_err_setx(err, HS_E_POISONED, NULL, "%s stopped in the middle of a message (%s)",
                       dir_names[dir], hs_err_text(poison));
}

static void
release(struct hs_conn *c, struct hs_op *op, enum hs_dir dir)
{
    op->claim = 0;
    atomic_store(&c->dirs[dir].busy, false);
    hs_fd_drop(&c->fd);
}

static hs_err
claim(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, struct hs_error *err)
{
    hs_err rv;

    if (op->claim != 0)
        return HS_OK;
    if ((rv = hs_fd_hold(&c->fd, err)) != HS_OK)
        return rv;
    if (atomic_exchange(&c->dirs[dir].busy, true)) {
        hs_fd_drop(&c->fd);
        return hs_err_setx(err, HS_E_BUSY, NULL, "another call is %s on this connection",
                           dir_names[dir]);
    }
    op->claim = (uint8_t)(1U << dir);
    return HS_OK;
}

static int64_t
deadline_of(struct hs_conn *c, const struct hs_op *op, enum hs_dir dir)
{
    return hs_min_ns(op->deadline_ns, atomic_load(&c->dirs[dir].deadline_ns));
}

static hs_err
begin(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = claim(c, op, dir, err)) != HS_OK)
        return rv;
    if (hs_fd_is_closed(&c->fd)) /* closed between two steps */
        return hs_err_setx(err, HS_E_CLOSED, NULL, "it was closed during the call");
    if ((rv = hs_op_check(op, op->deadline_ns, err)) != HS_OK ||
        (rv = hs_op_check(op, atomic_load(&c->dirs[dir].deadline_ns), err)) != HS_OK)
        return rv;
    if (dir == HS_DIR_IN) /* What is buffered can be had even now: see recv_some. */
        return HS_OK;
    if (atomic_load(&c->out_ended))
        return hs_err_setx(err, HS_E_CLOSED, NULL, "sending was ended here, by shutdown");
    if ((rv = check_poison(&c->dirs[dir], dir, err)) != HS_OK)
        return rv;
    return check_broken(c, err);
}

static void
set_once(_Atomic hs_err *where, hs_err code)
{
    hs_err none = HS_OK;

    (void)atomic_compare_exchange_strong(where, &none, code);
}

static hs_err
end(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, const char *name, hs_err rv,
    struct hs_error *err)
{
    if (rv == HS_INTR || rv == HS_WANT)
        return rv;
    if (rv == HS_E_RESET || rv == HS_E_DEAD_PEER)
        set_once(&c->broken, rv);
    if (rv != HS_OK && err != NULL)
        err->op = name;
    if (op->claim != 0)
        release(c, op, dir);
    return rv;
}

static void
account(struct direction *d, size_t n)
{
    uint64_t before = atomic_load_explicit(&d->bytes, memory_order_relaxed);

    atomic_store_explicit(&d->bytes, before + n, memory_order_relaxed); /* one writer */
    atomic_store_explicit(&d->last_ns, hs_now(), memory_order_relaxed);
}

static hs_err
wait_ready(struct hs_conn *c, struct hs_op *op, enum hs_dir dir, short want, struct hs_error *err)
{
    struct hs_wakenode node;
    int fd = hs_fd_number(&c->fd);
    short revents;
    hs_err rv = HS_OK;

    if (op->stepping || deadline_of(c, op, dir) == HS_TRY_ONCE)
        return hs_wait_op(op, fd, want, deadline_of(c, op, dir), HS_NEVER, err, &revents);
    hs_wakelist_join(&c->wakers, &node);
    if (!hs_fd_is_closed(&c->fd))
        rv = hs_wait_op(op, fd, want, deadline_of(c, op, dir), HS_NEVER, err, &revents);
    if (hs_fd_is_closed(&c->fd)) {
        if (err != NULL)
            *err = (struct hs_error){0};
        rv = hs_err_setx(err, HS_E_CLOSED, NULL, "it was closed during the call");
    }
    hs_wakelist_leave(&c->wakers, &node);
    return rv;
}

/* ---- Reading ------------------------------------------------------------------------------- */

/* A reset is told once, to whoever asks the socket first; the other direction then reads an end
 * that looks clean. Either that other call has noted it, or the TCP state gives it away: after an
 * orderly end a socket that has not ended its own side is in CLOSE_WAIT. */
static hs_err
check_end(struct hs_conn *c, struct hs_error *err)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (c->family != AF_UNIX && !atomic_load(&c->out_ended) &&
        getsockopt(hs_fd_number(&c->fd), IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
        info.tcpi_state == TCP_CLOSE)
        set_once(&c->broken, HS_E_RESET);
    return check_broken(c, err);
}

static hs_err
recv_some(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len, int flags,
          struct hs_error *err, size_t *ret_n)
{
    int fd = hs_fd_number(&c->fd);
    short want;
    hs_err rv;

    if ((rv = check_poison(&c->dirs[HS_DIR_IN], HS_DIR_IN, err)) != HS_OK)
        return rv;
    while ((rv = c->layer->try_recv(fd, buf, len, flags, err, &want, ret_n)) == HS_WANT)
        if ((rv = wait_ready(c, op, HS_DIR_IN, want, err)) != HS_OK)
            return rv;
    if (rv == HS_OK && *ret_n > 0 && (flags & MSG_PEEK) == 0)
        account(&c->dirs[HS_DIR_IN], *ret_n);
    if (rv == HS_OK && *ret_n == 0)
        rv = check_end(c, err);
    return rv;
}

static size_t
take_buffered(struct hs_conn *c, uint8_t *buf, size_t len, bool peek)
{
    size_t n = peek ? hs_buf_peek(&c->inbuf, buf, len) : hs_buf_take(&c->inbuf, buf, len);

    atomic_store_explicit(&c->buffered, hs_buf_len(&c->inbuf), memory_order_relaxed);
    return n;
}

/* What a call had received but cannot return is kept for the next one. */
static void
put_back(struct hs_conn *c, struct hs_op *op, const uint8_t *buf)
{
    if (hs_buf_prepend(&c->inbuf, buf, op->done) != HS_OK)
        set_once(&c->dirs[HS_DIR_IN].poison,
                 HS_E_NOMEM); /* Bytes are lost: the stream must not go on. */
    atomic_store_explicit(&c->buffered, hs_buf_len(&c->inbuf), memory_order_relaxed);
}

hs_err
hs_conn_recv(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len, int flags,
             struct hs_error *err, size_t *ret_n)
{
    size_t n = 0;
    hs_err rv = begin(c, op, HS_DIR_IN, err);

    if (rv == HS_OK && len > 0 && hs_buf_len(&c->inbuf) > 0)
        n = take_buffered(c, buf, len, (flags & MSG_PEEK) != 0);
    else if (rv == HS_OK && len > 0)
        rv = recv_some(c, op, buf, len, flags, err, &n);
    rv = end(c, op, HS_DIR_IN, "recv", rv, err);
    if (rv == HS_OK)
        *ret_n = n;
    return rv;
}

static hs_err
fill_exactly(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len, struct hs_error *err)
{
    size_t n;
    hs_err rv;

    if (op->done < len && hs_buf_len(&c->inbuf) > 0)
        op->done += take_buffered(c, buf + op->done, len - op->done, false);
    for (unsigned round = 1; op->done < len; round++) {
        if ((rv = recv_some(c, op, buf + op->done, len - op->done, 0, err, &n)) != HS_OK)
            return rv;
        if (n == 0)
            return hs_err_setx(err, HS_E_TRUNCATED, NULL,
                               "the peer ended its stream after %zu of %zu bytes", op->done, len);
        op->done += n;
        if (round % SLICE_ROUNDS == 0 && op->done < len)
            return HS_INTR;
    }
    return HS_OK;
}

hs_err
hs_conn_recv_exactly(struct hs_conn *c, struct hs_op *op, uint8_t *buf, size_t len,
                     struct hs_error *err)
{
    hs_err rv = begin(c, op, HS_DIR_IN, err);

    if (rv == HS_OK)
        rv = fill_exactly(c, op, buf, len, err);
    if (rv < 0 && op->claim != 0 && op->done > 0)
        put_back(c, op, buf);
    return end(c, op, HS_DIR_IN, "recv_exactly", rv, err);
}

/* ---- Writing ------------------------------------------------------------------------------- */

static hs_err
send_some(struct hs_conn *c, struct hs_op *op, const struct iovec *iov, size_t n_iov,
          struct hs_error *err, size_t *ret_n)
{
    int fd = hs_fd_number(&c->fd);
    short want;
    hs_err rv;

    while ((rv = c->layer->try_send(fd, iov, n_iov, err, &want, ret_n)) == HS_WANT)
        if ((rv = wait_ready(c, op, HS_DIR_OUT, want, err)) != HS_OK)
            return rv;
    if (rv == HS_OK) {
        op->done += *ret_n;
        account(&c->dirs[HS_DIR_OUT], *ret_n);
    }
    return rv;
}

/* Half a message is out: nobody may write behind it. */
static hs_err
end_message(struct hs_conn *c, struct hs_op *op, const char *name, hs_err rv, struct hs_error *err)
{
    if (rv < 0 && op->claim != 0 && op->done > 0)
        set_once(&c->dirs[HS_DIR_OUT].poison, rv);
    return end(c, op, HS_DIR_OUT, name, rv, err);
}

hs_err
hs_conn_send(struct hs_conn *c, struct hs_op *op, const uint8_t *buf, size_t len,
             struct hs_error *err, size_t *ret_n)
{
    const struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
    size_t n = 0;
    hs_err rv = begin(c, op, HS_DIR_OUT, err);

    if (rv == HS_OK && len > 0)
        rv = send_some(c, op, &iov, 1, err, &n);
    rv = end(c, op, HS_DIR_OUT, "send", rv, err);
    if (rv == HS_OK)
        *ret_n = n;
    return rv;
}

hs_err
hs_conn_send_all(struct hs_conn *c, struct hs_op *op, const uint8_t *buf, size_t len,
                 struct hs_error *err)
{
    size_t n;
    hs_err rv = begin(c, op, HS_DIR_OUT, err);

    for (unsigned round = 1; rv == HS_OK && op->done < len; round++) {
        const struct iovec rest = {.iov_base = (void *)(uintptr_t)(buf + op->done),
                                   .iov_len = len - op->done};

        rv = send_some(c, op, &rest, 1, err, &n);
        if (rv == HS_OK && round % SLICE_ROUNDS == 0 && op->done < len)
            rv = HS_INTR;
    }
    return end_message(c, op, "sendall", rv, err);
}

/* Moves past n sent bytes. Empty pieces at the front are skipped too. */
static void
advance(struct iovec **iov, size_t *n_iov, size_t n)
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
    hs_err rv = begin(c, op, HS_DIR_OUT, err);

    advance(&iov, &n_iov, 0);
    for (unsigned round = 1; rv == HS_OK && n_iov > 0 && (all || n == 0); round++) {
        if ((rv = send_some(c, op, iov, n_iov, err, &n)) != HS_OK)
            break;
        advance(&iov, &n_iov, n);
        if (all && round % SLICE_ROUNDS == 0 && n_iov > 0)
            rv = HS_INTR;
    }
    return end_message(c, op, all ? "sendall" : "sendmsg", rv, err);
}

void
hs_conn_abandon(struct hs_conn *c, struct hs_op *op, const uint8_t *buf)
{
    if (op->claim == 0)
        return;
    if ((op->claim & (1U << HS_DIR_IN)) != 0) {
        if (buf != NULL && op->done > 0)
            put_back(c, op, buf);
        release(c, op, HS_DIR_IN);
        return;
    }
    if (op->done > 0)
        set_once(&c->dirs[HS_DIR_OUT].poison, HS_E_CANCELLED);
    release(c, op, HS_DIR_OUT);
}

/* ---- Ending -------------------------------------------------------------------------------- */

hs_err
hs_conn_shutdown(struct hs_conn *c, int how, struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
        return hs_err_setx(err, HS_E_INVALID, "shutdown",
                           "how must be SHUT_RD, SHUT_WR or SHUT_RDWR, got %d", how);
    if ((rv = hs_fd_hold(&c->fd, err)) != HS_OK)
        return rv;
    if (how != SHUT_RD)
        atomic_store(&c->out_ended, true);
    if (shutdown(hs_fd_number(&c->fd), how) != 0)
        rv = hs_err_set(err, errno == ENOTCONN ? HS_E_RESET : HS_E_SYSTEM, errno, "shutdown",
                        "shutdown");
    hs_fd_drop(&c->fd);
    return rv;
}

static void
set_linger(struct hs_conn *c, bool abortive)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int fd = hs_fd_number(&c->fd);

    if (abortive)
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    else if (atomic_load(&c->may_linger))
        hs_sockopt_never_block_close(fd);
}

/* Does not call shutdown(2): the socket may be shared with another process (fork, a passed
 * descriptor), and ending it for that one is not ours to decide. Waking is done by the list. */
void
hs_conn_close(struct hs_conn *c, bool abortive)
{
    HS_CHECK(c, CONN_MAGIC);
    if (!hs_fd_mark_closed(&c->fd))
        return;
    if (hs_fd_is_ours(&c->fd)) { /* A forked child only lets go of its copy of the number. */
        set_linger(c, abortive);
        hs_wakelist_wake(&c->wakers);
    }
    hs_fd_drop(&c->fd);
}

hs_err
hs_conn_detach(struct hs_conn *c, struct hs_error *err, int *ret_fd)
{
    struct hs_op in = HS_OP_INIT(HS_NEVER, NULL), out = in;
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = claim(c, &in, HS_DIR_IN, err)) != HS_OK)
        return rv;
    if ((rv = claim(c, &out, HS_DIR_OUT, err)) == HS_OK) {
        if (hs_buf_len(&c->inbuf) > 0)
            rv = hs_err_setx(err, HS_E_BUSY, "detach",
                             "%zu received bytes are buffered here and would be lost",
                             hs_buf_len(&c->inbuf));
        else
            rv = hs_fd_detach(&c->fd, 2, err, ret_fd);
        if (rv != HS_OK)
            release(c, &out, HS_DIR_OUT);
    }
    if (rv != HS_OK)
        release(c, &in, HS_DIR_IN);
    return rv;
}

bool
hs_conn_is_closed(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    return hs_fd_is_closed(&c->fd);
}

/* ---- Asking -------------------------------------------------------------------------------- */

int
hs_conn_fileno(struct hs_conn *c)
{
    int fd = -1;

    if (hs_fd_hold(&c->fd, NULL) == HS_OK) {
        fd = hs_fd_number(&c->fd);
        hs_fd_drop(&c->fd);
    }
    return fd;
}

void
hs_conn_set_deadline(struct hs_conn *c, enum hs_dir dir, int64_t deadline_ns)
{
    HS_CHECK(c, CONN_MAGIC);
    if (deadline_ns == HS_TRY_ONCE)
        deadline_ns = 1; /* A point in time long past, not a mode. */
    atomic_store(&c->dirs[dir].deadline_ns, deadline_ns);
    if (hs_fd_is_ours(&c->fd))
        hs_wakelist_wake(&c->wakers);
}

int64_t
hs_conn_get_deadline(struct hs_conn *c, enum hs_dir dir)
{
    return atomic_load(&c->dirs[dir].deadline_ns);
}

void
hs_conn_info(struct hs_conn *c, struct hs_conn_info *ret_info)
{
    const struct direction *in = &c->dirs[HS_DIR_IN], *out = &c->dirs[HS_DIR_OUT];
    bool broken = atomic_load(&c->broken) != HS_OK;

    HS_CHECK(c, CONN_MAGIC);
    *ret_info = (struct hs_conn_info){
        .created_ns = c->created_ns,
        .last_read_ns = atomic_load_explicit(&in->last_ns, memory_order_relaxed),
        .last_write_ns = atomic_load_explicit(&out->last_ns, memory_order_relaxed),
        .bytes_received = atomic_load_explicit(&in->bytes, memory_order_relaxed),
        .bytes_sent = atomic_load_explicit(&out->bytes, memory_order_relaxed),
        .buffered = atomic_load_explicit(&c->buffered, memory_order_relaxed),
        .family = c->family,
        .changed_settings = c->changed,
        .poisoned_in = broken || atomic_load(&in->poison) != HS_OK,
        .poisoned_out = broken || atomic_load(&out->poison) != HS_OK,
    };
}

static hs_err
get_name(struct hs_conn *c, int (*get)(int, struct sockaddr *, socklen_t *), const char *name,
         struct hs_error *err, struct hs_addr *ret_addr)
{
    struct hs_addr addr = {.len = sizeof(addr.storage)};
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_fd_hold(&c->fd, err)) != HS_OK)
        return rv;
    if (get(hs_fd_number(&c->fd), &addr.sa, &addr.len) != 0)
        rv = hs_err_set(err, HS_E_SYSTEM, errno, name, "%s", name);
    else
        *ret_addr = addr;
    hs_fd_drop(&c->fd);
    return rv;
}

hs_err
hs_conn_local_addr(struct hs_conn *c, struct hs_error *err, struct hs_addr *ret_addr)
{
    return get_name(c, getsockname, "getsockname", err, ret_addr);
}

hs_err
hs_conn_peer_addr(struct hs_conn *c, struct hs_error *err, struct hs_addr *ret_addr)
{
    return get_name(c, getpeername, "getpeername", err, ret_addr);
}

hs_err
hs_conn_getsockopt(struct hs_conn *c, int level, int name, void *value, socklen_t *len,
                   struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_fd_hold(&c->fd, err)) != HS_OK)
        return rv;
    if (getsockopt(hs_fd_number(&c->fd), level, name, value, len) != 0)
        rv = hs_err_set(err, HS_E_SYSTEM, errno, "getsockopt", "getsockopt");
    hs_fd_drop(&c->fd);
    return rv;
}

hs_err
hs_conn_setsockopt(struct hs_conn *c, int level, int name, const void *value, socklen_t len,
                   struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_fd_hold(&c->fd, err)) != HS_OK)
        return rv;
    if (level == SOL_SOCKET && name == SO_LINGER)
        atomic_store(&c->may_linger, true);
    if (setsockopt(hs_fd_number(&c->fd), level, name, value, len) != 0)
        rv = hs_err_set(err, HS_E_SYSTEM, errno, "setsockopt", "setsockopt");
    hs_fd_drop(&c->fd);
    return rv;
}

hs_err
hs_conn_audit(struct hs_conn *c, struct hs_setting *settings, struct hs_error *err, size_t *ret_n)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_fd_hold(&c->fd, err)) != HS_OK)
        return rv;
    *ret_n =
        hs_sockopts_audit(hs_fd_number(&c->fd), c->family, &c->opts, HS_USE_CONNECTION, settings);
    hs_fd_drop(&c->fd);
    return HS_OK;
}
