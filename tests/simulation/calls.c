/* calls.c: calls on connections, and what they promise.
 *
 * A call with a deadline is back by it, and says that it passed when it passes, not before. One
 * whose token is cancelled, or whose connection is closed, is back in that moment. What a call says
 * that it moved is what the network has taken or given, to the byte, however it ended. An end is
 * only told when the peer's end has come, with all before it; a reset or a dead peer only when
 * there was one. After half a message nothing more is sent.
 *
 * And a call goes on: while it waits for its connection, that has nothing for it. A wait that has
 * missed what came ends at its deadline or with the next of its slices, and its result looks like
 * any other's; so each time before the clock moves all calls are looked at.
 */
#include "world.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <string.h>

#define MAX_CALLS 64
/* finish looks for an acknowledgement every 10 ms: nothing tells of it. */
#define ACK_LOOK_NS (10 * SIM_MS)

static bool killed[SIM_HOSTS];
static struct call *under_way[MAX_CALLS];
static size_t n_under_way;
static _Thread_local struct hs_loop *loop; /* NULL: calls of this thread wait */
static _Thread_local struct hs_loop_waiter *waiter;

bool
is_killed(int host)
{
    return killed[host];
}

void
kill_host(int host)
{
    killed[host] = true;
    sim_log("host %d dies", host);
    sim_kill(host);
}

/* ---- The frame of a call -------------------------------------------------------------------- */

static int64_t
sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void
call_begin(struct call *c, const char *name, const struct end *e, int64_t span_ns)
{
    int64_t deadline = span_ns == SIM_NEVER ? HS_NEVER : sim_now() + span_ns, by;

    memset(c, 0, sizeof(*c));
    if (n_under_way == MAX_CALLS)
        sim_violation("too many calls at a time");
    under_way[n_under_way++] = c;
    c->end = e;
    c->thread = sim_self();
    c->op = (struct hs_op)HS_OP_INIT(deadline, e->token);
    c->op.lease = e->lease;
    c->op.stepping = loop != NULL;
    c->op.loop_waiter = waiter;
    c->name = name;
    c->began_ns = sim_now();
    c->deadline_ns = deadline;
    if (e->token != NULL)
        c->deadline_ns = sooner(deadline, hs_token_deadline(e->token));
    by = c->deadline_ns;
    if (e->token != NULL && hs_token_check(e->token) == HS_E_CANCELLED)
        by = c->began_ns;
    if (e->conn != NULL && e->dead_after_ms > 0 && killed[e->peer_host])
        by = sooner(by, c->began_ns + e->dead_after_ms * SIM_MS);
    sim_log("%s: until %lld", name, (long long)(by == HS_NEVER ? -1 : by));
    sim_promise(name, by);
    disturber_note_call();
    poor_expose(true);
}

void
calls_begin(void)
{
    struct hs_error err = {0};

    if (world_is_scarce() || world_is_poor() || !sim_chance(300))
        return;
    must(hs_loop_new(&err, &loop), "no loop", &err);
    must(hs_loop_waiter_new(loop, &killed, &err, &waiter), "no waiter", &err);
}

void
calls_end(void)
{
    hs_loop_waiter_free(waiter);
    hs_loop_free(loop);
    waiter = NULL;
    loop = NULL;
}

bool
call_again(struct call *c, hs_err rv)
{
    struct pollfd p = {.events = POLLIN};
    struct hs_error err = {0};

    if (rv != HS_WANT)
        return rv == HS_INTR;
    must(hs_loop_waiter_park(waiter, &c->op, &err), "not parked", &err);
    do {
        p.fd = hs_loop_fileno(loop);
        (void)ppoll(&p, 1, NULL, NULL);
        hs_loop_collect(loop);
    } while (hs_loop_next(loop) == NULL);
    return true;
}

/* A handshake that did not come to its end; or OpenSSL's answer to a stream that ends without
 * close_notify, since half a message is out. */
static bool
is_expected_of_tls(const struct hs_error *err)
{
    return err->tls == HS_TLS_TIMEOUT || err->tls == HS_TLS_ABORTED || err->tls == HS_TLS_EMPTY ||
           err->tls == HS_TLS_RESET ||
           (err->tls == HS_TLS_ALERT && err->alert == SSL_AD_DECODE_ERROR);
}

/* There was no memory to keep what had come: nothing more is read then. */
static bool
has_lost(const struct end *e)
{
    struct hs_conn_info info;

    if (e->conn == NULL || !world_is_poor())
        return false;
    hs_conn_info(e->conn, &info);
    return info.poisoned_in;
}

static void
check_reason(const struct call *c, const struct end *e, hs_err rv)
{
    const struct sim_facts *f = e->facts; /* NULL: a handshake that is a part of connect */

    switch (rv) {
    case HS_E_DEADLINE:
        /* A pool's dial and a handshake have times of their own. */
        if (sim_now() < c->deadline_ns && c->err.origin != HS_ORIGIN_DIAL &&
            c->err.tls != HS_TLS_TIMEOUT)
            sim_violation("%s says that its deadline passed %lld ns before it", c->name,
                          (long long)(c->deadline_ns - sim_now()));
        break;
    case HS_E_CANCELLED:
        if (e->token == NULL || hs_token_check(e->token) != HS_E_CANCELLED)
            sim_violation("%s says that it was cancelled, and was not", c->name);
        break;
    case HS_E_CLOSED:
        if (!e->closed)
            sim_violation("%s says that the connection was closed, and it was not: %s", c->name,
                          c->err.msg);
        break;
    case HS_E_RESET:
        if (f == NULL ? !e->secured : !f->reset)
            sim_violation("%s tells of a reset that nobody has sent", c->name);
        break;
    case HS_E_DEAD_PEER:
        if (f == NULL ? !e->secured : !f->timed_out)
            sim_violation("%s says that the peer is dead, which the kernel has not said", c->name);
        break;
    case HS_E_END:
    case HS_E_TRUNCATED:
        /* TLS has an end of its own, which comes in a record before that of the connection. */
        if (f == NULL || (!e->secured && (!f->ended || f->unread > 0)))
            sim_violation("%s takes for an end what is none: %s", c->name, c->err.msg);
        break;
    case HS_E_SYSTEM:
        if ((!world_is_scarce() || c->err.sys != EMFILE) &&
            (!world_is_poor() || (c->err.sys != ENOMEM && c->err.sys != EAGAIN)))
            sim_violation("%s: %s, errno %d", c->name, c->err.msg, c->err.sys);
        break;
    case HS_E_NOMEM:
        if (!world_is_poor())
            sim_violation("%s: %s", c->name, c->err.msg);
        break;
    case HS_E_TLS:
        if (!tls_is_there() || !is_expected_of_tls(&c->err))
            sim_violation("%s: %s", c->name, c->err.msg);
        break;
    case HS_E_POISONED:
        if (!e->poisoned && !has_lost(e))
            sim_violation("%s says that the stream is poisoned, and nothing stopped half-way",
                          c->name);
        break;
    case HS_E_CONNECT:
    case HS_E_RESOLVE:
        break;
    default:
        if (rv < 0)
            sim_violation("%s: %s: %s, errno %d", c->name, hs_err_text(rv), c->err.msg, c->err.sys);
    }
}

void
call_end(struct call *c, const struct end *e, hs_err rv)
{
    struct hs_conn_info info;

    size_t i = 0;

    poor_expose(false);
    while (under_way[i] != c)
        i++;
    under_way[i] = under_way[--n_under_way];
    if (waiter != NULL)
        hs_loop_waiter_unpark(waiter);
    sim_log("%s -> %s, %zu", c->name, rv == HS_OK ? "ok" : hs_err_text(rv), c->op.done);
    check_reason(c, e, rv);
    sim_promise_kept();
    if (rv < 0 && c->err.code != rv)
        sim_violation("%s: the error says %s, the call %s", c->name, hs_err_text(c->err.code),
                      hs_err_text(rv));
    if (e->conn == NULL || e->secured || has_lost(e))
        return;
    hs_conn_info(e->conn, &info);
    if (c->out && e->facts->taken != e->sent)
        sim_violation("%s: calls have sent %llu bytes, the network has taken %llu", c->name,
                      (unsigned long long)e->sent, (unsigned long long)e->facts->taken);
    if (c->in && e->facts->given != e->received + info.buffered)
        sim_violation("%s: calls have received %llu bytes, %zu are buffered, the network has given "
                      "%llu",
                      c->name, (unsigned long long)e->received, info.buffered,
                      (unsigned long long)e->facts->given);
}

/* ---- Waiting ------------------------------------------------------------------------------- */

/* TLS, and a call that has to send before it reads, may leave unread what has come. */
static void
look_at_finish(struct call *c)
{
    const struct sim_facts *f = c->end->facts;
    bool over = f->reset || f->timed_out || (f->ended && f->delivered && f->unread == 0);

    if (c->end->secured)
        return;
    if (f->unread > 0 && !f->reset && !f->timed_out)
        sim_violation("%s waits in finish, and %zu bytes have come", sim_thread_name(c->thread),
                      f->unread);
    if (over && c->over_ns == 0)
        c->over_ns = sim_now();
    if (over && sim_now() - c->over_ns > ACK_LOOK_NS)
        sim_violation("%s waits in finish %lld ns after all was over", sim_thread_name(c->thread),
                      (long long)(sim_now() - c->over_ns));
}

static void
look_at_call(struct call *c)
{
    const struct end *e = c->end;
    short what;

    if (e->conn == NULL || e->closed || sim_facts(e->fd) != e->facts)
        return;
    if (c->in && c->out) {
        look_at_finish(c);
        return;
    }
    what = (short)(sim_poll(e->fd) & ((c->in ? POLLIN : POLLOUT) | POLLERR | POLLHUP));
    if (what != 0)
        sim_violation("%s waits in %s, and the connection is ready for it: %x",
                      sim_thread_name(c->thread), c->name, (unsigned)what);
}

void
calls_look(void)
{
    for (size_t i = 0; i < n_under_way; i++)
        if (under_way[i]->in || under_way[i]->out)
            look_at_call(under_way[i]);
}

size_t
calls_connecting(int host)
{
    size_t n = 0;

    for (size_t i = 0; i < n_under_way; i++)
        n += strcmp(under_way[i]->name, "connect") == 0 && under_way[i]->end->peer_host == host;
    return n;
}

size_t
calls_named(const char *name)
{
    size_t n = 0;

    for (size_t i = 0; i < n_under_way; i++)
        n += strcmp(under_way[i]->name, name) == 0;
    return n;
}

/* ---- Patterns ------------------------------------------------------------------------------ */

uint8_t
pattern_of(uint64_t message, size_t at)
{
    return (uint8_t)(((message << 24) + at + 1) * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

void
fill_pattern(uint64_t message, size_t from, uint8_t *buf, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf[i] = pattern_of(message, from + i);
}

void
check_pattern(uint64_t message, size_t from, const uint8_t *buf, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (buf[i] != pattern_of(message, from + i))
            sim_violation("byte %zu of message %llx is another's", from + i,
                          (unsigned long long)message);
}

/* ---- Calls --------------------------------------------------------------------------------- */

void
end_adopt(struct end *e, struct hs_conn *conn)
{
    int fd = hs_conn_fileno(conn);
    struct hs_conn_info info;

    e->conn = conn;
    e->fd = fd;
    if ((e->facts = sim_facts(fd)) == NULL)
        sim_violation("a connection without a socket: %d", fd);
    hs_conn_info(conn, &info);
    e->sent = e->facts->taken; /* A header, or another borrower's. */
    e->received = e->facts->given - info.buffered;
}

hs_err
end_connect(struct end *e, const struct hs_endpoint *where,
            const struct hs_connect_options *options, int64_t span_ns)
{
    struct hs_connector *connector;
    struct hs_conn *conn = NULL;
    struct call c;
    hs_err rv;

    call_begin(&c, "connect", e, span_ns);
    if ((rv = hs_connector_new(where, options, &c.err, &connector)) == HS_OK) {
        do
            rv = hs_connector_run(connector, &c.op, &c.err, &conn);
        while (call_again(&c, rv));
        hs_connector_free(connector);
    }
    call_end(&c, e, rv);
    if (rv == HS_OK)
        end_adopt(e, conn);
    return rv;
}

hs_err
end_recv(struct end *e, uint8_t *buf, size_t len, int flags, int64_t span_ns, size_t *ret_n)
{
    struct call c;
    size_t n = 0;
    hs_err rv;

    call_begin(&c, "recv", e, span_ns);
    c.in = true;
    do
        rv = hs_conn_recv(e->conn, &c.op, buf, len, flags, &c.err, &n);
    while (call_again(&c, rv));
    if (rv == HS_OK && n == 0)
        check_reason(&c, e, HS_E_END);
    if (rv == HS_OK && (flags & MSG_PEEK) == 0)
        e->received += n;
    call_end(&c, e, rv);
    *ret_n = n;
    return rv;
}

hs_err
end_recv_exactly(struct end *e, uint8_t *buf, size_t len, int64_t span_ns)
{
    struct hs_conn_info info;
    struct call c;
    hs_err rv;

    call_begin(&c, "recv_exactly", e, span_ns);
    c.in = true;
    do
        rv = hs_conn_recv_exactly(e->conn, &c.op, buf, len, &c.err);
    while (call_again(&c, rv));
    if (rv == HS_OK)
        e->received += len;
    call_end(&c, e, rv);
    hs_conn_info(e->conn, &info);
    if (rv == HS_E_DEADLINE && info.buffered != c.op.done && c.op.begun && !has_lost(e))
        sim_violation("recv_exactly: %zu bytes had come, %zu are kept", c.op.done, info.buffered);
    if (rv == HS_E_END && c.op.done != 0)
        sim_violation("recv_exactly: an end between messages, of which %zu bytes had come",
                      c.op.done);
    if (rv == HS_E_TRUNCATED && c.op.done == 0 && !e->secured)
        sim_violation("recv_exactly: a truncated message of which nothing had come");
    return rv;
}

hs_err
end_recv_frame(struct end *e, const struct hs_framing *f, uint8_t *buf, size_t room,
               int64_t span_ns, size_t *ret_n)
{
    const uint8_t *frame;
    struct call c;
    size_t n = 0;
    hs_err rv;

    call_begin(&c, "recv_frame", e, span_ns);
    c.in = true;
    do
        rv = hs_conn_recv_frames(e->conn, &c.op, f, &c.err);
    while (call_again(&c, rv));
    if (rv == HS_OK) {
        if (!hs_conn_frame(e->conn, f, &frame, &n) || n > room)
            sim_violation("recv_frame: no frame, or one of %zu bytes", n);
        memcpy(buf, frame, n);
        hs_conn_frame_taken(e->conn);
        e->received += n + f->width;
        hs_conn_frames_end(e->conn, &c.op);
    }
    call_end(&c, e, rv);
    *ret_n = n;
    return rv;
}

/* Half a record is half a message, though none of its bytes is out. */
static bool
is_poisoned(const struct end *e)
{
    struct hs_conn_info info;

    hs_conn_info(e->conn, &info);
    return info.poisoned_out;
}

static void
note_sent(struct end *e, const struct call *c, hs_err rv)
{
    if (e->poisoned && (rv == HS_OK || c->op.done > 0))
        sim_violation("%s goes on behind half a message", c->name);
    e->sent += c->op.done;
    if (rv < 0 && (c->op.done > 0 || (e->secured && is_poisoned(e))))
        e->poisoned = true;
}

hs_err
end_send_all(struct end *e, const uint8_t *buf, size_t len, int64_t span_ns)
{
    struct call c;
    hs_err rv;

    call_begin(&c, "send_all", e, span_ns);
    c.out = true;
    do
        rv = hs_conn_send_all(e->conn, &c.op, buf, len, &c.err);
    while (call_again(&c, rv));
    if (rv == HS_OK && c.op.done != len)
        sim_violation("send_all: all were sent, %zu of %zu", c.op.done, len);
    note_sent(e, &c, rv);
    call_end(&c, e, rv);
    return rv;
}

hs_err
end_sendv(struct end *e, struct iovec *iov, size_t n, int64_t span_ns)
{
    struct call c;
    hs_err rv;

    call_begin(&c, "sendv", e, span_ns);
    c.out = true;
    do
        rv = hs_conn_sendv(e->conn, &c.op, iov, n, true, &c.err);
    while (call_again(&c, rv));
    note_sent(e, &c, rv);
    call_end(&c, e, rv);
    return rv;
}

hs_err
end_send_file(struct end *e, int file, int64_t at, size_t len, int64_t span_ns)
{
    int64_t offset = at;
    struct call c;
    hs_err rv;

    call_begin(&c, "send_file", e, span_ns);
    c.out = true;
    do
        rv = hs_conn_send_file(e->conn, &c.op, file, &offset, len, &c.err);
    while (call_again(&c, rv));
    if (offset != at + (int64_t)c.op.done)
        sim_violation("send_file: %zu bytes were sent, the place in the file has moved by %lld",
                      c.op.done, (long long)(offset - at));
    note_sent(e, &c, rv);
    call_end(&c, e, rv);
    return rv;
}

void
check_ending(const struct end *e, enum hs_ending ending)
{
    const struct sim_facts *f = e->facts;

    switch (ending) {
    case HS_ENDING_CLEAN:
        if (!f->delivered || (!f->ended && !e->secured))
            sim_violation("finish: clean, but the peer had %s", f->ended ? "not all" : "not ended");
        break;
    case HS_ENDING_RESET:
        if (!f->reset)
            sim_violation("finish tells of a reset that nobody has sent");
        break;
    case HS_ENDING_DEAD_PEER:
        if (!f->timed_out)
            sim_violation("finish says that the peer is dead, which the kernel has not said");
        break;
    case HS_ENDING_DEADLINE:
    case HS_ENDING_TRUNCATED:
        break;
    }
}

hs_err
end_finish(struct end *e, int64_t span_ns)
{
    struct hs_close_report report = {0};
    struct hs_conn_info info;
    struct call c;
    hs_err rv;

    hs_conn_info(e->conn, &info);
    call_begin(&c, "finish", e, span_ns);
    c.in = c.out = true;
    do
        rv = hs_conn_finish(e->conn, &c.op, &c.err, &report);
    while (call_again(&c, rv));
    if (rv == HS_OK) {
        sim_log("finish: %d, %zu unsent, %zu discarded", (int)report.ending, report.unsent,
                report.discarded);
        e->received += report.discarded;
        check_ending(e, report.ending);
        if (report.ending == HS_ENDING_DEADLINE && sim_now() < c.deadline_ns)
            sim_violation("finish: its deadline had not passed");
    } else {
        e->received += c.op.done; /* Thrown away, and that is told. */
    }
    call_end(&c, e, rv);
    return rv;
}

void
end_close(struct end *e, bool abortive)
{
    struct hs_conn *conn = e->conn;
    int64_t began = sim_now();

    e->conn = NULL;
    hs_conn_close(conn, abortive);
    hs_conn_unref(conn);
    if (sim_now() != began && !sim_settings.stalls)
        sim_violation("closing has waited");
}

void
end_leave(struct end *e)
{
    if (e->conn == NULL)
        return;
    if ((world_is_calm() || sim_chance(600)) && !e->closed)
        (void)end_finish(e, any_span());
    end_close(e, !world_is_calm() && sim_chance(200));
}
