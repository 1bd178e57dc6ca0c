/* test_fail_each.c: every call of the C library fails in turn, in every scenario.
 *
 * For each kind of call: the first of that kind fails, then the second, .. until the scenario makes
 * fewer than that; once alone and once with all that follow. A scenario may end in any error, but
 * by its deadline, with nothing left open or alive, and the next clean run must succeed. Scenarios
 * run in a thread of their own, so that a thread's first wait is among what can fail.
 */
#include "inject.h"

#include "../c/support.h"
#include "hardsock_binding.h"

#include "../../csrc/base/addr.h"
#include "../../csrc/listen/peers.h"
#include "../../csrc/stream/linger.h"

#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* What no call may return: a scenario found something that must not be. */
#define WRONG (-1)

static struct hs_addr addr; /* of a plain listener that the scenarios may dial */
static int plain_listener;
static int plain_peer, plain_fd; /* an old connection that sends and recv use */

static struct hs_dial_limits *dial_limits;
static struct hs_breaker *breaker; /* what the next connects are under, or NULL */

static bool keeps_paths; /* what fails is what removes them */

/* No scenario may take longer, whatever fails; a clean one has all the time it needs. */
static int64_t span = 10 * SECOND;

static struct hs_op
short_op(void)
{
    return (struct hs_op)HS_OP_INIT(hs_deadline_after(span), NULL);
}

/* As DONE, but a failing kernel may make everything look interrupted. */
#define SOON(call)                                                                                 \
    ({                                                                                             \
        hs_err rv_ = HS_INTR;                                                                      \
        for (int i_ = 0; rv_ == HS_INTR && i_ < 50; i_++)                                          \
            rv_ = (call);                                                                          \
        rv_;                                                                                       \
    })

static hs_err
connect_to(const char *host)
{
    struct hs_op op = short_op();
    struct hs_connect_options opts;
    struct hs_connector *cn = NULL;
    struct hs_endpoint ep;
    struct hs_conn *c = NULL;
    struct hs_error err = {0};
    uint16_t port = 0;
    hs_err rv;

    memcpy(&port, (const char *)&addr.storage + 2, 2);
    port = (uint16_t)(port >> 8 | port << 8);
    hs_connect_options_init(&opts);
    opts.sockopts.nodelay = 1;
    opts.breaker = breaker;
    opts.limits = dial_limits;
    if ((rv = hs_endpoint_from_host(host, strlen(host), port, &err, &ep)) == HS_OK &&
        (rv = hs_connector_new(&ep, &opts, &err, &cn)) == HS_OK)
        rv = SOON(hs_connector_run(cn, &op, &err, &c));
    if (rv == HS_E_CONNECT && err.sys == 0)
        rv = WRONG; /* It must say why. */
    hs_conn_unref(c);
    hs_connector_free(cn);
    return rv;
}

static hs_err
connect_literal(void)
{
    return connect_to("127.0.0.1");
}

static hs_err
connect_name(void)
{
    return connect_to("localhost");
}

/* What fails for want of something here is not counted against the peer. */
static hs_err
connect_under_a_breaker(void)
{
    struct hs_breaker_options o;
    struct hs_breaker_status status;
    hs_err rv;

    hs_breaker_options_init(&o);
    o.failures = 1;
    if ((rv = hs_breaker_new(&o, NULL, &breaker)) != HS_OK)
        return rv;
    rv = connect_to("localhost");
    if (hs_breaker_states(breaker, hs_now(), &status, 1) != 0 &&
        status.last_fail != HS_FAIL_REFUSED) /* ::1, where nobody listens */
        rv = WRONG;
    hs_breaker_unref(breaker);
    breaker = NULL;
    return rv;
}

static hs_err
connect_under_limits(void)
{
    struct hs_dial_stats stats;
    hs_err rv;

    if ((rv = hs_dial_limits_new(1, 0, NULL, &dial_limits)) != HS_OK)
        return rv;
    rv = connect_to("127.0.0.1");
    hs_dial_limits_stats(dial_limits, &stats);
    if (stats.in_flight != 0 || stats.waiting != 0)
        rv = WRONG;
    hs_dial_limits_unref(dial_limits);
    dial_limits = NULL;
    return rv;
}

/* A client of l's; -1 and errno. */
static int
dial(struct hs_listener *l)
{
    struct hs_addr at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || hs_listener_addr(l, NULL, &at) != HS_OK)
        return fd;
    if (connect(fd, &at.sa, at.len) == 0 || errno == EINPROGRESS)
        return fd;
    (void)close(fd);
    return -1;
}

static hs_err
listen_and_accept(void)
{
    struct hs_op op = short_op();
    struct hs_listen_options opts;
    struct hs_endpoint ep;
    struct hs_listener *l = NULL;
    struct hs_conn *c = NULL;
    hs_err rv;
    int fd = -1;
    size_t n;

    hs_listen_options_init(&opts);
    opts.peers.connections = 1;
    if ((rv = hs_endpoint_from_host("127.0.0.1", 9, 0, NULL, &ep)) == HS_OK &&
        (rv = hs_listener_open(&ep, &opts, NULL, &l)) == HS_OK)
        rv = (fd = dial(l)) < 0 ? HS_E_SYSTEM : SOON(hs_listener_accept(l, &op, 1, NULL, &c, &n));
    hs_conn_unref(c);
    hs_listener_unref(l);
    if (fd >= 0)
        (void)close(fd);
    return rv;
}

/* At a path that nobody listens at any more. It is removed with its listener, and by one that could
 * not listen; where unlink(2) or lstat(2) fails, it is not. */
static hs_err
listen_at_a_path(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int old = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct hs_listen_options opts;
    struct hs_listener *l = NULL;
    struct hs_endpoint ep = {.family = AF_UNIX};
    hs_err rv;

    (void)snprintf(at.sun_path, sizeof(at.sun_path), "/tmp/hardsock-torture-%d-s", (int)getpid());
    rv = bind(old, (struct sockaddr *)&at, sizeof(at)) == 0 ? HS_OK : WRONG;
    (void)close(old);
    memcpy(&ep.addr.storage, &at, sizeof(at));
    ep.addr.len = sizeof(at);
    hs_listen_options_init(&opts);
    opts.unix_mode = 0600;
    opts.unlink_stale = true;
    if (rv == HS_OK && (rv = hs_listener_open(&ep, &opts, NULL, &l)) == HS_OK)
        hs_listener_close(l);
    hs_listener_unref(l);
    if (rv == HS_OK && unlink(at.sun_path) == 0 && !keeps_paths)
        rv = WRONG;
    (void)unlink(at.sun_path);
    return rv;
}

/* Whose header comes in two pieces, the second after the first was read. */
static hs_err
accept_header(struct hs_listener *l, int fd)
{
    static const char header[] = "PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n";
    struct hs_op step = short_op(), op = short_op();
    struct hs_conn *c = NULL;
    struct hs_addr peer;
    hs_err rv;
    size_t n;

    step.stepping = true;
    if (send(fd, header, 20, MSG_NOSIGNAL) != 20)
        return HS_E_SYSTEM;
    if ((rv = SOON(hs_listener_accept(l, &step, 1, NULL, &c, &n))) != HS_WANT)
        return rv == HS_OK ? WRONG : rv; /* Before its header was whole? */
    if (send(fd, header + 20, sizeof(header) - 21, MSG_NOSIGNAL) < 0)
        return errno == EPIPE || errno == ECONNRESET ? HS_E_RESET : HS_E_SYSTEM;
    if ((rv = SOON(hs_listener_accept(l, &op, 1, NULL, &c, &n))) == HS_OK &&
        (hs_conn_peer_addr(c, NULL, &peer) != HS_OK || hs_addr_port(&peer) != 1234))
        rv = WRONG;
    hs_conn_unref(c);
    return rv;
}

static hs_err
accept_behind_a_proxy(void)
{
    const struct hs_network loopback = {.family = AF_INET, .prefix = 8, .bits = {127}};
    struct hs_listen_options opts;
    struct hs_endpoint ep;
    struct hs_listener *l = NULL;
    hs_err rv;
    int fd = -1;

    hs_listen_options_init(&opts);
    opts.proxy.from = &loopback;
    opts.proxy.n_from = 1;
    opts.peers.connections = 1;
    if ((rv = hs_endpoint_from_host("127.0.0.1", 9, 0, NULL, &ep)) == HS_OK &&
        (rv = hs_listener_open(&ep, &opts, NULL, &l)) == HS_OK)
        rv = (fd = dial(l)) < 0 ? HS_E_SYSTEM : accept_header(l, fd);
    hs_listener_unref(l);
    if (fd >= 0)
        (void)close(fd);
    return rv;
}

static hs_err
send_and_recv(void)
{
    struct hs_op out = short_op(), gathered = short_op(), in = short_op(), late;
    char bytes[] = "abc";
    struct iovec iov[2] = {{.iov_base = bytes, .iov_len = 2},
                           {.iov_base = bytes + 2, .iov_len = 1}};
    int fds[2] = {dup(plain_fd), dup(plain_peer)};
    struct hs_conn *a = NULL, *b = NULL;
    uint8_t buf[16];
    hs_err rv;

    if ((rv = hs_conn_adopt(fds[0], NULL, NULL, &a)) == HS_OK &&
        (rv = hs_conn_adopt(fds[1], NULL, NULL, &b)) == HS_OK &&
        (rv = SOON(hs_conn_send_all(a, &out, (const uint8_t *)"hello", 5, NULL))) == HS_OK &&
        (rv = SOON(hs_conn_sendv(a, &gathered, iov, 2, true, NULL))) == HS_OK &&
        (rv = SOON(hs_conn_recv_exactly(b, &in, buf, 6, NULL))) == HS_OK) {
        late = (struct hs_op)HS_OP_INIT(hs_deadline_after(MS), NULL);
        if (SOON(hs_conn_recv_exactly(b, &late, buf, 4, NULL)) == HS_OK)
            rv = WRONG; /* Only two bytes are left. */
        hs_conn_abandon(b, &late, buf);
    }
    if (a == NULL)
        (void)close(fds[0]);
    if (b == NULL)
        (void)close(fds[1]);
    hs_conn_unref(a);
    hs_conn_unref(b);
    return rv;
}

static void
do_nothing(void *arg)
{
    (void)arg;
}

static hs_err
token_with_fileno(void)
{
    struct hs_token *root = NULL, *t = NULL;
    struct hs_callback *cb = NULL;
    hs_err rv;
    int fd;

    if ((rv = hs_token_new(NULL, 0, HS_NEVER, "root", NULL, &root)) == HS_OK &&
        (rv = hs_token_new(&root, 1, HS_NEVER, NULL, NULL, &t)) == HS_OK) {
        hs_err made = hs_token_fileno(t, NULL, &fd);

        rv = hs_token_on_cancel(t, do_nothing, NULL, NULL, NULL, &cb);
        (void)SOON(hs_token_wait(t, hs_deadline_after(MS), NULL));
        (void)hs_token_cancel(root, "reason", 0, NULL); /* must not fail */
        if (hs_token_check(t) != HS_E_CANCELLED)
            rv = WRONG;
        else if (rv == HS_OK)
            rv = made;
    }
    hs_callback_unref(cb);
    hs_token_unref(t);
    hs_token_unref(root);
    return rv;
}

/* Without memory nothing is lost: the same call is made again, and every frame comes out. */
static hs_err
decode(void)
{
    static const char in[] = "a<separator>far too long<separator>b<separator>";
    const struct hs_framing f = {.kind = HS_FRAMING_DELIMITER,
                                 .sep = (const uint8_t *)"<separator>",
                                 .sep_len = 11,
                                 .max_size = 3,
                                 .too_long = HS_TOO_LONG_SKIP,
                                 .max_skip = 99};
    struct hs_decoder *d = NULL;
    const uint8_t *data;
    size_t len, frames = 0, skipped = 0;
    hs_err rv = hs_decoder_new(&f, NULL, &d);

    for (size_t at = 0; rv == HS_OK && at < sizeof(in) - 1; at++) {
        size_t before = hs_decoder_buffered(d);

        for (int i = 0; i < 2; i++)
            if ((rv = hs_decoder_feed(d, (const uint8_t *)in + at, 1, NULL)) != HS_E_NOMEM)
                break;
        if (rv != HS_OK && hs_decoder_buffered(d) != before)
            rv = WRONG;
        while (rv == HS_OK && (rv = hs_decoder_next(d, NULL, &data, &len)) != HS_WANT) {
            frames += rv == HS_OK && len == 1;
            skipped += rv == HS_E_FRAME_TOO_LARGE;
            rv = rv == HS_E_FRAME_TOO_LARGE || (rv == HS_E_NOMEM && span > MS) ? HS_OK : rv;
            span -= MS; /* so many times, no more */
        }
        rv = rv == HS_WANT ? HS_OK : rv;
    }
    if (rv == HS_OK && (frames != 2 || skipped != 1))
        rv = WRONG;
    hs_decoder_free(d);
    return rv;
}

/* What had arrived may be told late, or never if the stream says so, but not wrongly. */
static hs_err
take_frame(struct hs_conn *c, const struct hs_framing *f, const char *want)
{
    struct hs_op op = short_op();
    const uint8_t *data;
    size_t len;
    hs_err rv = HS_E_NOMEM;

    for (int i = 0; i < 2 && rv == HS_E_NOMEM; i++) {
        op = short_op();
        rv = SOON(hs_conn_recv_frames(c, &op, f, NULL));
    }
    if (rv != HS_OK) {
        hs_conn_abandon(c, &op, NULL);
        return rv;
    }
    if (!hs_conn_frame(c, f, &data, &len) || len != strlen(want) || memcmp(data, want, len) != 0)
        rv = WRONG;
    hs_conn_frame_taken(c);
    hs_conn_frames_end(c, &op);
    return rv;
}

static hs_err
send_and_take(struct hs_conn *a, struct hs_conn *b)
{
    static const struct hs_framing prefix = {.kind = HS_FRAMING_PREFIX,
                                             .width = 1,
                                             .max_size = 3,
                                             .too_long = HS_TOO_LONG_SKIP,
                                             .max_skip = 99};
    static const struct hs_framing until = {.kind = HS_FRAMING_DELIMITER,
                                            .sep = (const uint8_t *)"<separator>",
                                            .sep_len = 11,
                                            .max_size = 99};
    static const char bytes[] = "\5large\3abcuntil<separator>part";
    struct hs_op out = short_op(), op = short_op();
    hs_err rv;

    if ((rv = SOON(hs_conn_send_all(a, &out, (const uint8_t *)bytes, sizeof(bytes) - 1, NULL))) !=
        HS_OK)
        return rv;
    if ((rv = take_frame(b, &prefix, "abc")) != HS_E_FRAME_TOO_LARGE)
        return rv == HS_OK ? WRONG : rv;
    if ((rv = take_frame(b, &prefix, "abc")) != HS_OK ||
        (rv = take_frame(b, &until, "until")) != HS_OK ||
        (rv = SOON(hs_conn_peek(b, &op, 4, NULL))) != HS_OK)
        return rv;
    if (memcmp(hs_conn_peeked(b), "part", 4) != 0)
        rv = WRONG;
    hs_conn_frames_end(b, &op);
    op = (struct hs_op)HS_OP_INIT(hs_deadline_after(MS), NULL);
    if (rv == HS_OK && SOON(hs_conn_recv_frames(b, &op, &until, NULL)) == HS_OK)
        rv = WRONG; /* Only a part is there. */
    hs_conn_abandon(b, &op, NULL);
    return rv;
}

static hs_err
send_a_file(struct hs_conn *a, struct hs_conn *b)
{
    struct hs_op out = short_op(), in = short_op();
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int64_t offset = 1;
    uint8_t buf[7];
    hs_err rv = HS_E_SYSTEM;

    if (file >= 0)
        rv = SOON(hs_conn_send_file(a, &out, file, &offset, 3, NULL));
    if (rv == HS_OK && (out.done != 3 || offset != 4))
        rv = WRONG;
    if (rv == HS_OK && (rv = SOON(hs_conn_recv_exactly(b, &in, buf, 7, NULL))) == HS_OK &&
        memcmp(buf, "partELF", 7) != 0)
        rv = WRONG;
    if (in.claim != 0)
        hs_conn_abandon(b, &in, buf);
    if (file >= 0)
        (void)close(file);
    return rv;
}

static hs_err
frames_and_files(void)
{
    int fds[2] = {dup(plain_fd), dup(plain_peer)};
    struct hs_conn *a = NULL, *b = NULL;
    hs_err rv;

    if ((rv = hs_conn_adopt(fds[0], NULL, NULL, &a)) == HS_OK &&
        (rv = hs_conn_adopt(fds[1], NULL, NULL, &b)) == HS_OK) {
        hs_conn_set_min_rate(b, 1, SECOND);
        if ((rv = send_and_take(a, b)) == HS_OK)
            rv = send_a_file(a, b);
    }
    if (a == NULL)
        (void)close(fds[0]);
    if (b == NULL)
        (void)close(fds[1]);
    hs_conn_unref(a);
    hs_conn_unref(b);
    return rv;
}

/* A line, and what stands before the end, as a file reads them. */
static hs_err
read_a_line(struct hs_conn *c, const char *want)
{
    hs_err rv = HS_E_NOMEM;
    struct hs_op op;
    size_t n = 0;

    for (int i = 0; i < 2 && rv == HS_E_NOMEM; i++) { /* Nothing is lost by it. */
        op = short_op();
        rv = SOON(hs_conn_read_line(c, &op, 0, SIZE_MAX, NULL, &n));
    }
    if (rv != HS_OK) {
        hs_conn_abandon(c, &op, NULL);
        return rv;
    }
    if (n != strlen(want) || memcmp(hs_conn_peeked(c), want, n) != 0)
        rv = WRONG;
    hs_conn_read_line_end(c, &op, n);
    return rv;
}

static hs_err
read_lines(void)
{
    struct hs_op out = short_op(), end = short_op();
    int fds[2] = {dup(plain_fd), dup(plain_peer)};
    struct hs_conn *a = NULL, *b = NULL;
    hs_err rv;

    if ((rv = hs_conn_adopt(fds[0], NULL, NULL, &a)) == HS_OK &&
        (rv = hs_conn_adopt(fds[1], NULL, NULL, &b)) == HS_OK &&
        (rv = SOON(hs_conn_send_all(a, &out, (const uint8_t *)"line\nrest", 9, NULL))) == HS_OK &&
        (rv = read_a_line(b, "line\n")) == HS_OK &&
        (rv = SOON(hs_conn_close_write(a, &end, NULL))) == HS_OK &&
        (rv = read_a_line(b, "rest")) == HS_OK)
        rv = read_a_line(b, "");
    if (a == NULL)
        (void)close(fds[0]);
    if (b == NULL)
        (void)close(fds[1]);
    hs_conn_unref(a);
    hs_conn_unref(b);
    return rv;
}

/* What is told, and given back, by a notifier. */
struct told {
    atomic_int times, released;
};

static void
tell(struct hs_notifier *n, void *arg)
{
    struct told *t;

    (void)arg;
    while ((t = hs_notifier_next(n)) != NULL)
        t->times++;
}

static hs_err
await_token(void *arg, struct hs_op *op, struct hs_error *err)
{
    (void)arg;
    return hs_token_await(op, err);
}

static void
release_told(void *arg)
{
    ((struct told *)arg)->released++;
}

/* It is told once, late at worst, when the alarm was made and the thread runs. */
static hs_err
be_notified(void)
{
    const struct hs_notifier_hooks hooks = {.serve = tell};
    const struct hs_alarm_hooks alarm_hooks = {.step = await_token, .release = release_told};
    struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);
    struct hs_notifier *n = NULL;
    struct hs_token *token = NULL;
    struct hs_alarm *alarm = NULL;
    struct told told = {0};
    hs_err rv;

    if ((rv = hs_token_new(NULL, 0, hs_deadline_after(MS), NULL, NULL, &token)) == HS_OK &&
        (rv = hs_notifier_new(&hooks, NULL, &n)) == HS_OK) {
        op.token = token;
        op.stepping = true;
        if ((rv = hs_alarm_new(n, &alarm_hooks, &told, &op, NULL, &alarm)) == HS_OK &&
            (rv = hs_notifier_start(n, NULL)) == HS_OK)
            for (int64_t until = hs_deadline_after(span); told.times == 0;) {
                if (hs_now() > until) {
                    rv = HS_E_DEADLINE; /* Something has failed, and its pause is not over. */
                    break;
                }
                breathe();
            }
        hs_alarm_end(alarm);
        hs_notifier_stop(n, HS_STOP_ALL);
        if (told.released != (alarm != NULL) || told.times > 1)
            rv = WRONG;
    }
    hs_notifier_unref(n);
    hs_token_unref(token);
    return rv;
}

/* With an exempt network, which is a copy of its own. */
static hs_err
count_peers(void)
{
    const struct hs_network exempt = {.family = AF_INET, .prefix = 8, .bits = {10}};
    const struct hs_peer_limits limits = {
        .connections = 1, .table_size = 3, .exempt = &exempt, .n_exempt = 1};
    struct hs_peer_slots slots[2];
    struct hs_peers *p = NULL;
    hs_err rv = hs_peers_new(&limits, NULL, &p);

    if (rv != HS_OK)
        return p == NULL ? rv : WRONG;
    if (!hs_peers_enter(p, &addr, hs_now(), &slots[0]) ||
        hs_peers_enter(p, &addr, hs_now(), &slots[1]) || hs_peers_find_disagreement(p) != NULL)
        rv = WRONG;
    hs_peers_leave(p, &slots[0]);
    hs_peers_unref(p);
    return rv;
}

/* Steps, parks, is due, steps again: as an event loop does with a call that waits. */
static hs_err
drive(struct hs_loop *l, struct hs_conn *c, struct hs_op *op, int peer)
{
    struct pollfd fd = {.fd = hs_loop_fileno(l), .events = POLLIN};
    uint8_t byte;
    size_t n;
    hs_err rv;

    while ((rv = hs_conn_recv(c, op, &byte, 1, 0, NULL, &n)) == HS_WANT) {
        if ((rv = hs_loop_waiter_park(op->loop_waiter, op, NULL)) != HS_OK)
            break;
        if (peer >= 0 && write(peer, "x", 1) != 1)
            return WRONG;
        peer = -1;
        for (void *due = NULL; due == NULL; due = hs_loop_next(l)) {
            if (poll(&fd, 1, 5000) != 1)
                return WRONG; /* It must be woken, whatever failed. */
            hs_loop_collect(l);
        }
    }
    return rv;
}

static hs_err
wait_in_a_loop(void)
{
    struct hs_op op = short_op(), late = short_op();
    int fd = dup(plain_fd);
    struct hs_loop *l = NULL;
    struct hs_conn *c = NULL;
    hs_err rv;

    op.stepping = late.stepping = true;
    late.deadline_ns = hs_deadline_after(MS);
    if ((rv = hs_conn_adopt(fd, NULL, NULL, &c)) == HS_OK &&
        (rv = hs_loop_new(NULL, &l)) == HS_OK &&
        (rv = hs_loop_waiter_new(l, &op, NULL, &op.loop_waiter)) == HS_OK &&
        (rv = drive(l, c, &op, plain_peer)) == HS_OK &&
        (rv = hs_loop_waiter_new(l, &late, NULL, &late.loop_waiter)) == HS_OK &&
        (rv = drive(l, c, &late, -1)) == HS_E_DEADLINE)
        rv = HS_OK;
    hs_loop_waiter_free(op.loop_waiter);
    hs_loop_waiter_free(late.loop_waiter);
    if (c != NULL) {
        hs_conn_abandon(c, &op, NULL);
        hs_conn_abandon(c, &late, NULL);
    } else {
        (void)close(fd);
    }
    hs_loop_free(l);
    hs_conn_unref(c);
    return rv;
}

/* Two connections, one of them probed and pinged, one given back broken; then the end. */
static hs_err
borrow(struct hs_pool *p, struct hs_lease *leases, size_t n)
{
    struct hs_request r = {0};
    hs_err rv = HS_OK;

    for (size_t i = 0; i < n && rv == HS_OK; i++) {
        struct hs_op op = short_op();

        rv = SOON(hs_pool_acquire(p, &op, &r, NULL, &leases[i]));
        hs_pool_abandon(p, &r);
    }
    hs_dial_failure_unref(r.failure);
    return rv;
}

static hs_err
use_pool(void)
{
    struct hs_op op = short_op(), end = short_op();
    struct hs_pool_options o;
    struct hs_endpoint ep = {.family = AF_INET, .port = 1, .addr = addr};
    struct hs_lease a[2] = {{0}}, b[1] = {{0}};
    struct hs_pool *p;
    hs_err rv;

    hs_pool_options_init(&o);
    o.max_size = 2;
    o.dial_timeout_ns = span;
    o.backoff_min_ns = MS;
    o.probe_after_ns = 0;
    o.ping_after_ns = MS;
    o.ping_timeout_ns = 5 * MS;
    o.ping_len = o.pong_len = 1;
    if ((rv = hs_pool_new(&ep, 1, &o, NULL, &p)) != HS_OK)
        return rv;
    rv = borrow(p, a, 2);
    for (int i = 0; i < 2; i++)
        if (a[i].id != 0 &&
            hs_pool_release(p, &a[i], i ? HS_RETURN_DONE : HS_RETURN_DISCARD, NULL, NULL, NULL))
            rv = WRONG;
    if (rv == HS_OK)
        rv = borrow(p, b, 1);
    if (b[0].id != 0)
        hs_pool_lose(&b[0]);
    if (rv == HS_OK)
        rv = SOON(hs_pool_drain(p, &op, NULL));
    hs_pool_close(p);
    if (rv == HS_OK)
        rv = SOON(hs_pool_await_closed(p, &end, NULL));
    if (hs_pool_verify(p, NULL) != HS_OK)
        rv = WRONG;
    hs_pool_unref(p);
    return rv;
}

/* A message, a silence, an end that is waited for: whatever fails, one that is parked has news. */
static hs_err
park_in_turns(struct hs_parking *p, struct hs_conn *c, int peer)
{
    const enum hs_parked_news expected[] = {HS_PARKED_MESSAGE, HS_PARKED_EXPIRED};
    struct hs_op op = short_op();
    struct hs_close_report report;
    enum hs_parking_answer answer;
    struct hs_parked_conn got;
    uint8_t byte;
    size_t n;
    hs_err rv;

    for (int i = 0; i < 2; i++) {
        if ((rv = hs_parking_park(p, c, NULL, i == 0 ? SECOND : MS, false, NULL, &answer)) != HS_OK)
            return rv;
        if (answer != HS_PARKING_TAKEN || (i == 0 && write(peer, "x", 1) != 1))
            return WRONG;
        rv = i == 0 ? SOON(hs_parking_poll(p, &op, 1, NULL, &got, &n))
                    : SOON(hs_parking_next(p, NULL, &got));
        if (rv != HS_OK)
            return rv;
        hs_conn_unref(got.conn);
        if (got.news != expected[i])
            return got.news == HS_PARKED_ENDED ? HS_E_RESET : WRONG;
        if (i == 0 && (rv = SOON(hs_conn_recv_exactly(c, &op, &byte, 1, NULL))) != HS_OK)
            return rv;
    }
    if ((rv = hs_parking_linger(p, c, NULL, MS, NULL, &report)) != HS_WANT)
        return rv;
    if ((rv = SOON(hs_parking_next(p, NULL, &got))) == HS_OK)
        hs_conn_unref(got.conn);
    return rv;
}

static hs_err
park_a_connection(void)
{
    int fds[2], fd;
    struct hs_parking *p = NULL;
    struct hs_conn *c = NULL, *left;
    bool quiet;
    void *arg;
    hs_err rv;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return WRONG;
    fd = fds[0];
    if ((rv = hs_conn_adopt(fd, NULL, NULL, &c)) == HS_OK &&
        (rv = hs_parking_new(NULL, &p)) == HS_OK)
        rv = park_in_turns(p, c, fds[1]);
    if (c == NULL)
        (void)close(fd);
    (void)close(fds[1]);
    while (p != NULL && hs_parking_take(p, &left, &arg, &quiet))
        hs_conn_unref(left);
    hs_conn_unref(c);
    hs_parking_unref(p);
    return rv;
}

/* Whatever fails, the descriptor is closed in the end, and no thread is left over. */
static hs_err
linger_twice(void)
{
    hs_err rv = HS_OK;

    for (int i = 0; i < 2 && rv == HS_OK; i++) {
        int64_t until = hs_deadline_after(10 * SECOND);
        int fds[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
            return WRONG;
        hs_linger(fds[0]);
        (void)close(fds[1]);
        while (hs_linger_live() > 0 && rv == HS_OK)
            rv = hs_now() < until ? HS_OK : WRONG;
    }
    return rv;
}

/* Unwatched for want of something, or not told in time, but never the wrong one cancelled. */
static hs_err
watch_departures(void)
{
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);
    struct hs_op grown = HS_OP_INIT(hs_deadline_after(10000000), NULL);
    struct hs_callback *fired = NULL;
    struct hs_departures *d = NULL;
    struct hs_token *token = NULL;
    struct hs_conn *c = NULL;
    int fds[2] = {-1, -1};
    hs_err rv = HS_OK;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return WRONG;
    if ((rv = hs_conn_adopt(fds[0], NULL, NULL, &c)) != HS_OK ||
        (rv = hs_token_new(NULL, 0, HS_NEVER, NULL, NULL, &token)) != HS_OK ||
        (rv = hs_departures_new(1, NULL, &d)) != HS_OK ||
        (rv = hs_departures_watch(d, c, token, NULL)) != HS_OK ||
        (rv = SOON(hs_departures_tend(d, &grown, NULL, &fired))) != HS_E_DEADLINE ||
        (rv = hs_conn_cancel_on_end(c, true, NULL)) != HS_OK)
        goto out;
    (void)close(fds[1]);
    fds[1] = -1;
    rv = SOON(hs_departures_tend(d, &op, NULL, &fired));
    if (rv == HS_E_DEADLINE)
        rv = hs_token_check(token) == HS_E_CANCELLED ? HS_OK : WRONG;
out:
    if (c == NULL)
        (void)close(fds[0]);
    if (fds[1] >= 0)
        (void)close(fds[1]);
    hs_conn_unref(c);
    hs_token_unref(token);
    hs_departures_unref(d);
    return rv;
}

static hs_err
count_delays(void)
{
    struct hs_fixed_histogram *h[4] = {NULL};
    struct hs_delays *d = NULL;
    struct hs_fixed_counts counts;
    hs_err rv = hs_delays_new(NULL, &d);

    for (size_t i = 0; i < LENGTH(h) && rv == HS_OK; i++)
        if ((rv = hs_fixed_histogram_new(HS_EDGES_DELAY, NULL, &h[i])) == HS_OK) {
            hs_fixed_histogram_add(h[i], MS);
            hs_fixed_histogram_read(h[i], &counts);
            rv = counts.count == 1 ? HS_OK : WRONG;
        }
    for (size_t i = 0; i < LENGTH(h); i++)
        hs_fixed_histogram_free(h[i]);
    hs_delays_unref(d);
    return rv;
}

/* A line that was never interned before is told as it is, or as unknown. */
static hs_err
intern_a_line(struct hs_call_site **ret_site)
{
    static int line;
    struct hs_call_site_name name;

    *ret_site = hs_call_site_intern("torture.py", "f", ++line);
    hs_call_site_name(*ret_site, &name);
    return name.line == line || *ret_site == hs_call_site_unknown() ? HS_OK : WRONG;
}

/* Each is whole, or there is none. */
static hs_err
tell_everything(void)
{
    hs_err rv = HS_OK;

    for (int kind = 0; kind < HS_REPORT_KINDS && rv == HS_OK; kind++) {
        char *text = NULL;
        size_t len = 0;

        rv = hs_report((enum hs_report_kind)kind, NULL, &text, &len);
        if (rv == HS_OK && (len == 0 || text[0] != '{' || text[len - 1] != '}'))
            rv = WRONG;
        free(text);
    }
    return rv;
}

/* The same of one connection. */
static hs_err
tell_one(const struct hs_conn *c)
{
    char request[64], *text = NULL;
    size_t len = 0;
    hs_err rv;

    (void)snprintf(request, sizeof(request), "connection %" PRIu64, hs_conn_id(c));
    rv = hs_report_asked(request, NULL, &text, &len);
    if (rv == HS_OK && (len == 0 || text[0] != '{' || text[len - 1] != '}'))
        rv = WRONG;
    free(text);
    return rv;
}

static hs_err
report_all(void)
{
    struct hs_service *s = NULL;
    struct hs_conn *c = NULL;
    struct hs_call_site *site;
    hs_err rv = hs_service_new(HS_SERVICE_THREADS, "torture", 1, NULL, &s);

    if (rv == HS_OK && (rv = hs_conn_adopt(plain_fd, NULL, NULL, &c)) == HS_OK &&
        (rv = intern_a_line(&site)) == HS_OK) {
        hs_conn_set_site(c, HS_MADE_ADOPT, site, 1);
        hs_conn_set_phase(c, hs_service_id(s), HS_PHASE_BUSY);
        hs_call_site_leaked(site, c);
        if ((rv = tell_everything()) == HS_OK)
            rv = tell_one(c);
    }
    if (c != NULL && hs_conn_detach(c, NULL, &plain_fd) != HS_OK)
        rv = WRONG;
    hs_conn_unref(c);
    if (s != NULL)
        hs_service_ended(s);
    hs_service_unref(s);
    return rv;
}

/* None is missing, whatever cannot be known of one. */
static hs_err
look_at_descriptors(void)
{
    struct hs_error failed = {.code = HS_E_SYSTEM, .phase = "connect"};
    struct hs_fd_entry list[64];
    char hint[600];
    long counts[HS_FD_KINDS], n = 0;

    hs_fd_inventory(counts);
    for (int kind = 0; kind < HS_FD_KINDS; kind++)
        n += counts[kind];
    (void)hs_hint(&failed, EMFILE, &addr, hint, sizeof(hint));
    (void)hs_hint(&failed, EADDRNOTAVAIL, &addr, hint, sizeof(hint));
    return n != (long)hs_fd_list(list, LENGTH(list)) ? WRONG : HS_OK;
}

/* The answer to a question, if nothing fails on the way; the socket ends with it. */
static hs_err
ask_inspector(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char text[64] = "";
    hs_err rv = HS_E_SYSTEM;

    (void)snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
    if (fd < 0)
        return rv;
    if (connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0 && send(fd, "events\n", 7, 0) == 7) {
        (void)poll(&p, 1, (int)(span / MS));
        if (recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT) > 0)
            rv = strncmp(text, "{\"version\":", 11) == 0 ? HS_OK : WRONG;
    }
    (void)close(fd);
    return rv;
}

static hs_err
be_inspected(void)
{
    char path[64];
    hs_err rv;

    /* Of this process: another may run the same test. */
    (void)snprintf(path, sizeof(path), "/tmp/hardsock-torture-%d", (int)getpid());
    if ((rv = hs_inspect_start(path, NULL)) == HS_OK)
        rv = ask_inspector(path);
    hs_inspect_stop();
    if (unlink(path) == 0 && !keeps_paths)
        rv = WRONG;
    return rv;
}

static const struct scenario {
    const char *name;
    hs_err (*run)(void);
} scenarios[] = {
    {"connect to a literal", connect_literal},
    {"connect to a name", connect_name},
    {"connect under a breaker", connect_under_a_breaker},
    {"connect under limits", connect_under_limits},
    {"listen and accept", listen_and_accept},
    {"listen at a path", listen_at_a_path},
    {"accept behind a proxy", accept_behind_a_proxy},
    {"send and recv", send_and_recv},
    {"token with fileno", token_with_fileno},
    {"decode", decode},
    {"frames and files", frames_and_files},
    {"read lines", read_lines},
    {"be notified", be_notified},
    {"count peers", count_peers},
    {"wait in a loop", wait_in_a_loop},
    {"use a pool", use_pool},
    {"park a connection", park_a_connection},
    {"linger", linger_twice},
    {"watch departures", watch_departures},
    {"count delays", count_delays},
    {"report everything", report_all},
    {"look at descriptors", look_at_descriptors},
    {"be inspected", be_inspected},
};

/* A thread of theirs ends, and lets go of what it has, when it is ready. */
static bool
ends_by_itself(const struct scenario *s)
{
    return s->run == use_pool || s->run == be_inspected || s->run == linger_twice;
}

struct round {
    const struct scenario *scenario;
    int call, nth; /* call -1: nothing fails */
    bool persistent;
    int calls;
    hs_err rv;
};

static void *
run_round(void *arg)
{
    struct round *r = arg;

    span = r->call >= 0 ? 30 * MS : 10 * SECOND;
    keeps_paths = r->call == HS_CALL_unlink || r->call == HS_CALL_stat;
    if (r->call >= 0)
        inject_arm((enum hs_call)r->call, r->nth, r->persistent, 0);
    r->rv = r->scenario->run();
    r->calls = inject_disarm();
    return NULL;
}

/* The old connection may have been reset or hold bytes: every round gets a new one. */
static void
run_apart(struct round *r)
{
    struct thread t;
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    plain_fd = fds[0];
    plain_peer = fds[1];
    thread_start(&t, run_round, r);
    (void)thread_join(&t);
    close_all(fds, 2);
}

static void
accept_leftovers(void)
{
    int fd;

    while ((fd = accept4(plain_listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
        (void)close(fd);
}

static bool
nothing_is_alive(void)
{
    struct hs_live live;

    hs_live_counts(&live);
    return live.tokens + live.conns + live.listeners + live.connectors + live.lookups +
               live.orphans + live.buffers + live.breakers + live.pools + live.notifiers +
               live.slots + live.parkings + live.departures + live.delays + live.lingering ==
           0;
}

/* Fails the nth call; returns whether there was one. */
static bool
torture(const struct scenario *s, int call, int nth, bool persistent)
{
    struct round r = {.scenario = s, .call = call, .nth = nth, .persistent = persistent};
    struct round clean = {.scenario = s, .call = -1};
    long fds = count_fds();
    int64_t before = hs_now();

    run_apart(&r);
    ck_assert_msg(r.rv != WRONG && r.rv != HS_INTR && r.rv != HS_WANT, "%s, %s %d: %s", s->name,
                  hs_call_facts[call].name, nth, hs_err_text(r.rv));
    /* What lingers unheard ends by its time, of five seconds. */
    ck_assert_msg(hs_now() - before < 30 * SECOND, "%s, %s %d took too long", s->name,
                  hs_call_facts[call].name, nth);
    accept_leftovers();
    EVENTUALLY(nothing_is_alive());
    /* A pool's worker, and what lingers, are threads with descriptors: they end when they are
     * ready, after what they had is counted as gone. */
    EVENTUALLY(count_fds() <= fds);
    /* Fewer: a thread of an earlier round was still closing its own. */
    ck_assert_msg(count_fds() <= fds, "%s, %s %d%s: %ld descriptors became %ld", s->name,
                  hs_call_facts[call].name, nth, persistent ? " and on" : "", fds, count_fds());
    if (nth == 1) {
        run_apart(&clean);
        ck_assert_msg(clean.rv == HS_OK, "%s after %s: %s", s->name, hs_call_facts[call].name,
                      hs_err_text(clean.rv));
        EVENTUALLY(nothing_is_alive());
        if (ends_by_itself(s))
            EVENTUALLY(count_fds() == fds);
        accept_leftovers();
    }
    return r.calls >= nth;
}

START_TEST(each_call_fails_in_turn)
{
    const struct scenario *s = &scenarios[_i / 2];
    int rounds = 0;

    inject_spare_me();
    plain_listener = tcp_listener(64, &addr);
    ck_assert_int_eq(fcntl(plain_listener, F_SETFL, O_NONBLOCK), 0);
    for (int call = 0; call < HS_CALLS; call++)
        for (int nth = 1; nth < 100 && torture(s, call, nth, _i % 2); nth++)
            rounds++;
    ck_assert_int_gt(rounds, 3);
    (void)close(plain_listener);
}
END_TEST

/* What failed is told, also when it was not the first thing that was tried. */
START_TEST(a_failing_epoll_ctl_is_named_in_the_error)
{
    inject_spare_me();
    for (int nth = 1; nth <= 3; nth++) {
        struct round r = {.scenario = &scenarios[1], .call = HS_CALL_epoll_ctl, .nth = nth};

        plain_listener = tcp_listener(64, &addr);
        run_apart(&r);
        (void)close(plain_listener);
        ck_assert_int_ne(r.rv, WRONG);
    }
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("fail_each");

    tcase_set_timeout(tc, 100);
    tcase_add_loop_test(tc, each_call_fails_in_turn, 0, 2 * LENGTH(scenarios));
    tcase_add_test(tc, a_failing_epoll_ctl_is_named_in_the_error);
    return run_case(tc);
}
