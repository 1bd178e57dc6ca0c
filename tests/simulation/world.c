/* world.c: clients and servers of the core, plain peers that behave badly, and one who disturbs all
 * of them.
 *
 * A client connects, asks, and reads answers, with deadlines that are often too short, and goes on
 * where it stood. A server answers each asker what belongs to it. Plain peers read a part, answer a
 * part, end, reset, say nothing, or lose their power. The disturber cuts ways, cancels tokens, and
 * closes connections in the middle of calls.
 *
 * At the end everything that was made must be gone: handles, threads, descriptors, and both ends of
 * each connection.
 */
#include "world.h"

#include "stream/sockopt.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CLIENTS 4
#define FIRST_CLIENT_HOST 4
#define PLAIN_HOSTS 2 /* hosts 1 and 2 */
#define PLAIN_PORT 7001
#define MAX_MESSAGE ((size_t)40000)
#define MAX_FRAME 4000
#define PIPELINED 6
#define MANY_DESCRIPTORS 512

enum kind { EXACTLY, SOME, WAITALL, FRAMES, KINDS };

struct header {
    uint8_t mark, kind;
    uint16_t client;
    uint32_t number, len, answer_len;
};

struct client {
    int number, rounds;
    struct end end;
    struct sim_thread *thread;
    bool writes;
    struct sim_thread *writer; /* or NULL: of pipelined questions */
};

static const char *const client_names[] = {"client-0", "client-1", "client-2", "client-3"};
static const char *const server_names[] = {"server-0", "server-1", "server-2", "server-3"};
static struct client clients[MAX_CLIENTS];
static int n_clients, clients_left, n_servers;
static bool is_moment; /* for the disturber: somebody has just begun something */
static struct hs_listener *listener;
static struct hs_token *stop;
static const struct hs_framing frames = {
    .kind = HS_FRAMING_PREFIX, .max_size = MAX_FRAME, .width = 4};

static uint64_t
message_of(const struct header *h, bool answer)
{
    return (uint64_t)h->client << 33 | (uint64_t)h->number << 1 | answer;
}

void
must(hs_err rv, const char *what, const struct hs_error *err)
{
    if (rv != HS_OK)
        sim_violation("%s: %s: %s, errno %d", what, hs_err_text(rv), err->msg, err->sys);
}

int64_t
any_span(void)
{
    static const int64_t spans[] = {0, 1, 1, 5, 50, 300, 2000, 20000};

    return (spans[sim_below(SIM_LENGTH(spans))] * SIM_MS) + sim_between(0, SIM_MS);
}

/* ---- Messages ------------------------------------------------------------------------------ */

static hs_err
receive_by_kind(struct end *e, const struct header *h, uint64_t message, uint8_t *buf, size_t len,
                size_t *have)
{
    size_t n = 0, want = 1 + (size_t)sim_below(len - *have);
    hs_err rv = HS_OK;

    switch ((enum kind)h->kind) {
    case EXACTLY:
        rv = end_recv_exactly(e, buf, n = want, any_span());
        break;
    case WAITALL:
        rv = end_recv(e, buf, want, MSG_WAITALL, any_span(), &n);
        break;
    case SOME:
    case KINDS:
        if (sim_chance(100) && (rv = end_recv(e, buf, want, MSG_PEEK, any_span(), &n)) == HS_OK &&
            n > 0)
            check_pattern(message, *have, buf, n);
        rv = end_recv(e, buf, want, 0, any_span(), &n);
        break;
    case FRAMES:
        rv = end_recv_frame(e, &frames, buf, MAX_FRAME, any_span(), &n);
        break;
    }
    if (rv == HS_OK && n == 0)
        return HS_E_END;
    if (rv == HS_OK)
        *have += n;
    return rv;
}

/* A deadline that passes loses nothing: the next call goes on. */
static hs_err
receive_message(struct end *e, const struct header *h, bool answer, size_t len)
{
    struct header as = *h;
    uint8_t *buf = malloc(MAX_MESSAGE + MAX_FRAME);
    size_t have = 0, before;
    int tries = 0;
    hs_err rv = HS_OK;

    if (buf == NULL)
        abort();
    if (!answer && as.kind == FRAMES)
        as.kind = EXACTLY;
    while (have < len && rv == HS_OK) {
        before = have;
        rv = receive_by_kind(e, &as, message_of(h, answer), buf, len, &have);
        if (rv == HS_OK)
            check_pattern(message_of(h, answer), before, buf, have - before);
        if (rv == HS_E_DEADLINE && tries++ < 12)
            rv = HS_OK;
        if (sim_chance(30))
            sim_sleep(sim_between(0, 2 * SIM_S)); /* A slow reader. */
    }
    free(buf);
    return rv;
}

static hs_err
receive_header(struct end *e, struct header *h, int64_t patience_ns)
{
    int64_t until = sim_now() + patience_ns;
    hs_err rv;

    do
        rv = end_recv_exactly(e, (uint8_t *)h, sizeof(*h), any_span());
    while (rv == HS_E_DEADLINE && sim_now() < until && hs_token_check(e->token) == HS_OK);
    return rv;
}

/* What could not be begun in time may be tried again; what has begun is poisoned by it. */
static hs_err
send_message(struct end *e, const uint8_t *head, size_t head_len, const uint8_t *buf, size_t len)
{
    struct iovec iov[3];
    int tries = 0;
    hs_err rv;

    do {
        if (sim_chance(500)) {
            iov[0] = (struct iovec){.iov_base = (void *)(uintptr_t)head, .iov_len = head_len};
            iov[1] = (struct iovec){.iov_base = NULL, .iov_len = 0};
            iov[2] = (struct iovec){.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
            rv = end_sendv(e, iov, SIM_LENGTH(iov), any_span());
        } else if ((rv = end_send_all(e, head, head_len, any_span())) == HS_OK) {
            head_len = 0;
            rv = end_send_all(e, buf, len, any_span());
        }
    } while (rv == HS_E_DEADLINE && !e->poisoned && tries++ < 6);
    if (e->poisoned && end_send_all(e, buf, 1, SIM_S) == HS_OK)
        sim_violation("a poisoned stream has taken a byte");
    return rv;
}

static hs_err
send_frames(struct end *e, const struct header *h, const uint8_t *buf)
{
    hs_err rv = end_send_all(e, (const uint8_t *)h, sizeof(*h), 20 * SIM_S);

    for (size_t at = 0, n; at < h->answer_len && rv == HS_OK; at += n) {
        uint8_t head[4];

        n = 1 + (size_t)sim_below(MAX_FRAME - 1);
        n = n < h->answer_len - at ? n : h->answer_len - at;
        for (int i = 0; i < 4; i++)
            head[i] = (uint8_t)(n >> (24 - 8 * i));
        rv = send_message(e, head, sizeof(head), buf + at, n);
    }
    return rv;
}

/* ---- Servers ------------------------------------------------------------------------------- */

static hs_err
answer(struct end *e)
{
    struct header h, back;
    uint8_t *buf;
    hs_err rv;

    if ((rv = receive_header(e, &h, 60 * SIM_S)) != HS_OK)
        return rv;
    if (h.mark != 'Q' || h.kind >= KINDS || h.len > MAX_MESSAGE || h.answer_len > MAX_MESSAGE)
        sim_violation("a request that nobody has sent");
    if ((rv = receive_message(e, &h, false, h.len)) != HS_OK)
        return rv;
    if (sim_chance(100))
        sim_sleep(sim_between(0, 3 * SIM_S));
    if ((buf = malloc(MAX_MESSAGE)) == NULL)
        abort();
    fill_pattern(message_of(&h, true), 0, buf, h.answer_len);
    back = h;
    back.mark = 'A';
    rv = h.kind == FRAMES
             ? send_frames(e, &back, buf)
             : send_message(e, (const uint8_t *)&back, sizeof(back), buf, h.answer_len);
    free(buf);
    return rv;
}

/* Ends it in one of the ways there are. */
static void
leave(struct end *e)
{
    if (e->conn == NULL)
        return;
    if (sim_chance(600) && !e->closed)
        (void)end_finish(e, any_span());
    end_close(e, sim_chance(200));
}

static void
serve(struct hs_conn *conn)
{
    struct end e = {.token = stop, .secured = tls_is_there()};
    hs_err rv = HS_OK;

    end_adopt(&e, conn);
    while (rv == HS_OK)
        rv = answer(&e);
    leave(&e);
}

static void
run_server(void *arg)
{
    struct end nothing = {.token = stop};
    struct hs_conn *conns[2];
    size_t n;
    hs_err rv;

    (void)arg;
    calls_begin();
    for (;;) {
        struct call c;

        call_begin(&c, "accept", &nothing, any_span());
        nothing.closed = hs_listener_is_closed(listener);
        do
            rv = hs_listener_accept(listener, &c.op, 1, &c.err, conns, &n);
        while (call_again(&c, rv));
        nothing.closed = hs_listener_is_closed(listener);
        call_end(&c, &nothing, rv);
        if (rv == HS_OK)
            serve(conns[0]);
        else if (rv != HS_E_DEADLINE)
            break;
    }
    calls_end();
    n_servers--;
}

/* ---- Plain peers --------------------------------------------------------------------------- */

static bool
plain_wait(int fd, short what, int64_t span_ns)
{
    struct pollfd p = {.fd = fd, .events = what};
    const struct timespec span = {.tv_sec = span_ns / SIM_S, .tv_nsec = span_ns % SIM_S};

    return ppoll(&p, 1, &span, NULL) == 1;
}

/* At most n bytes, until the peer ends or says nothing for a while. */
static void
plain_read(int fd, size_t n)
{
    uint8_t buf[4096];
    ssize_t got = 1;

    while (n > 0 && got > 0 && plain_wait(fd, POLLIN, 70 * SIM_S)) {
        got = recv(fd, buf, n < sizeof(buf) ? n : sizeof(buf), MSG_DONTWAIT);
        n -= got > 0 ? (size_t)got : 0;
        if (got < 0 && errno == EAGAIN)
            got = 1;
    }
}

static void
plain_write(int fd, size_t n)
{
    uint8_t buf[1024] = {0};
    ssize_t put = 0;

    for (; n > 0 && put >= 0 && plain_wait(fd, POLLOUT, 5 * SIM_S); n -= (size_t)put)
        put = send(fd, buf, n < sizeof(buf) ? n : sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void
misbehave(int fd)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};

    plain_read(fd, (size_t)sim_below(60));
    if (sim_chance(700))
        plain_write(fd, (size_t)sim_below(3000));
    switch (sim_below(5)) {
    case 0:
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        break;
    case 1:
        (void)shutdown(fd, SHUT_WR);
        plain_read(fd, SIZE_MAX);
        break;
    case 2:
        plain_read(fd, SIZE_MAX);
        break;
    case 3:
        (void)shutdown(fd, SHUT_WR);
        sim_sleep(sim_between(0, SIM_S));
        break;
    default:
        break;
    }
    (void)close(fd);
}

/* It ends with its host, or when nobody will come any more. */
static void
run_plain(void *arg)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(PLAIN_PORT)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), got;

    (void)arg;
    in.sin_addr.s_addr = sim_ip(sim_host());
    if (fd < 0) {
        sim_log("no descriptor to listen with");
        return;
    }
    if (bind(fd, (const struct sockaddr *)&in, sizeof(in)) != 0 || listen(fd, 3) != 0)
        sim_violation("a plain peer cannot listen");
    while (clients_left > 0) {
        if (!plain_wait(fd, POLLIN, 5 * SIM_S))
            continue;
        if ((got = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) < 0) {
            sim_sleep(100 * SIM_MS); /* It may be without a descriptor for long. */
            continue;
        }
        if (sim_chance(80)) {
            plain_read(got, 20);
            kill_host(sim_host());
            for (int i = 0; i < n_clients; i++) {
                struct end *e = &clients[i].end;

                if (e->conn != NULL && e->peer_host == sim_host() && e->dead_after_ms > 0)
                    sim_promise_sooner(clients[i].thread, "a call whose peer is dead",
                                       sim_now() + e->dead_after_ms * SIM_MS);
            }
        }
        misbehave(got);
    }
    (void)close(fd);
}

/* ---- Clients ------------------------------------------------------------------------------- */

void
make_endpoint(int host, uint16_t port, struct hs_endpoint *ep)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};

    *ep = (struct hs_endpoint){.family = AF_INET, .port = port};
    in.sin_addr.s_addr = sim_ip(host);
    ep->addr.len = sizeof(in);
    memcpy(&ep->addr.storage, &in, sizeof(in));
}

/* The same for the one who asks and the one who reads. */
static struct header
pipelined(const struct client *c, uint32_t number)
{
    uint64_t any = (uint64_t)number * 2654435761U + (uint64_t)c->rounds * 97 + (uint64_t)c->number;

    return (struct header){'Q',    (uint8_t)(any % KINDS),     (uint16_t)c->number,
                           number, 1 + (uint32_t)(any % 9000), 1 + (uint32_t)(any / 7 % 9000)};
}

static hs_err
ask(struct client *c, uint32_t number)
{
    struct header h = {'Q', (uint8_t)sim_below(KINDS), (uint16_t)c->number, number, 0, 0}, back;
    struct end *e = &c->end;
    uint8_t *buf = malloc(MAX_MESSAGE);
    hs_err rv;

    if (buf == NULL)
        abort();
    h.len = 1 + (uint32_t)sim_below(sim_chance(300) ? MAX_MESSAGE : 500);
    h.answer_len = 1 + (uint32_t)sim_below(sim_chance(300) ? MAX_MESSAGE : 500);
    fill_pattern(message_of(&h, false), 0, buf, h.len);
    rv = send_message(e, (const uint8_t *)&h, sizeof(h), buf, h.len);
    free(buf);
    if (rv != HS_OK || (rv = receive_header(e, &back, 30 * SIM_S)) != HS_OK)
        return rv;
    if (back.mark != 'A' || back.client != h.client || back.number != h.number ||
        back.answer_len != h.answer_len)
        sim_violation("an answer to client %u, question %u, has come to %u, %u", back.client,
                      back.number, h.client, h.number);
    return receive_message(e, &h, true, h.answer_len);
}

/* Ends with the first that fails. */
static void
run_writer(void *arg)
{
    struct client *c = arg;
    uint8_t *buf = malloc(MAX_MESSAGE);
    hs_err rv = HS_OK;

    if (buf == NULL)
        abort();
    c->writer = sim_self();
    calls_begin();
    for (uint32_t i = 0; i < PIPELINED && rv == HS_OK; i++) {
        struct header h = pipelined(c, i);

        fill_pattern(message_of(&h, false), 0, buf, h.len);
        rv = send_message(&c->end, (const uint8_t *)&h, sizeof(h), buf, h.len);
        if (sim_chance(200))
            sim_sleep(sim_between(0, SIM_S));
    }
    free(buf);
    calls_end();
    c->writer = NULL;
    c->writes = false;
}

static bool
writer_has_ended(void *arg)
{
    return !((const struct client *)arg)->writes;
}

/* One thread asks, another reads: answers come in the order of the questions. */
static hs_err
ask_pipelined(struct client *c)
{
    struct header h, back;
    hs_err rv = HS_OK;

    c->writes = true;
    sim_spawn("writer", sim_host(), run_writer, c);
    for (uint32_t i = 0; i < PIPELINED && rv == HS_OK; i++) {
        h = pipelined(c, i);
        if ((rv = receive_header(&c->end, &back, 30 * SIM_S)) != HS_OK)
            break;
        if (back.mark != 'A' || back.client != h.client || back.number != h.number)
            sim_violation("an answer to client %u, question %u, has come to %u, %u", back.client,
                          back.number, h.client, h.number);
        rv = receive_message(&c->end, &h, true, h.answer_len);
    }
    (void)sim_wait(writer_has_ended, c, SIM_NEVER);
    return rv;
}

/* Any bytes may come from a plain peer, or none: only the promises count. */
static void
try_plain(struct client *c)
{
    int64_t patience = c->end.dead_after_ms > 0 ? SIM_NEVER : 30 * SIM_S;
    uint8_t buf[4096];
    size_t n = 1;
    hs_err rv;

    memset(buf, 1, sizeof(buf));
    rv = end_send_all(&c->end, buf, 1 + (size_t)sim_below(200), any_span());
    for (int i = 0; i < 20 && n > 0 && (rv == HS_OK || rv == HS_E_DEADLINE); i++) {
        if (sim_chance(300))
            rv = end_send_all(&c->end, buf, 1 + (size_t)sim_below(2000), any_span());
        else if (sim_chance(500))
            rv = end_recv(&c->end, buf, sizeof(buf), 0, i < 10 ? any_span() : patience, &n);
        else
            rv = end_recv_exactly(&c->end, buf, 1 + (size_t)sim_below(2000),
                                  i < 10 ? any_span() : patience);
    }
    if (rv == HS_E_RESET || rv == HS_E_DEAD_PEER || rv == HS_E_POISONED)
        (void)end_recv(&c->end, buf, sizeof(buf), 0, 30 * SIM_S, &n);
}

/* What is left half-way may not be lent again. */
static void
run_pooled_round(struct client *c)
{
    struct hs_error err = {0};
    struct hs_token *token;
    struct hs_lease lease;
    hs_err rv;

    must(hs_token_new(NULL, 0, HS_NEVER, NULL, &err, &token), "no token", &err);
    c->end = (struct end){.token = token, .peer_host = SERVER_HOST};
    rv = pool_borrow(&c->end, c->number, any_span(), &lease);
    if (rv == HS_OK) {
        for (uint32_t i = 0, n = (uint32_t)sim_below(4); rv == HS_OK && i < n; i++)
            rv = ask(c, i);
        pool_return(&c->end, &lease, rv == HS_OK);
    }
    c->end.token = NULL;
    hs_token_unref(token);
}

static void
run_round(struct client *c)
{
    bool plain = sim_chance(400);
    int host = plain ? 1 + (int)sim_below(PLAIN_HOSTS) : SERVER_HOST;
    struct hs_connect_options options;
    struct hs_token *token = NULL;
    struct hs_endpoint where;
    struct hs_error err = {0};
    hs_err rv;

    must(hs_token_new(NULL, 0, sim_chance(100) ? sim_now() + 5 * any_span() : HS_NEVER, NULL, &err,
                      &token),
         "no token", &err);
    c->end = (struct end){.token = token, .peer_host = host, .secured = !plain && tls_is_there()};
    hs_connect_options_init(&options);
    if (!plain)
        tls_for_client(&options);
    if (plain || sim_chance(300)) {
        c->end.dead_after_ms = (int)sim_between(5000, 60000);
        hs_sockopts_dead_after(&options.sockopts, c->end.dead_after_ms);
    }
    make_endpoint(host, plain ? PLAIN_PORT : SERVER_PORT, &where);
    if (!plain && sim_chance(300))
        must(hs_endpoint_from_host("server.test", 11, SERVER_PORT, &err, &where), "a name", &err);
    rv = end_connect(&c->end, &where, &options, sim_chance(100) ? SIM_NEVER : any_span());
    if (rv == HS_OK && plain)
        try_plain(c);
    else if (rv == HS_OK && sim_chance(300))
        rv = ask_pipelined(c);
    else
        for (uint32_t i = 0; rv == HS_OK && i < 5; i++)
            rv = ask(c, i);
    leave(&c->end);
    c->end.token = NULL;
    hs_token_unref(token);
}

static void
run_client(void *arg)
{
    struct client *c = arg;

    c->thread = sim_self();
    calls_begin();
    for (int i = 0; i < c->rounds; i++) {
        if (pool_is_there() && sim_chance(700))
            run_pooled_round(c);
        else
            run_round(c);
        sim_sleep(sim_between(0, 5 * SIM_S));
    }
    calls_end();
    clients_left--;
}

/* ---- The disturber ------------------------------------------------------------------------- */

static void
heal(void *arg, uint64_t number)
{
    (void)arg;
    sim_log("way %llu heals", (unsigned long long)number);
    sim_cut((int)(number / SIM_HOSTS), (int)(number % SIM_HOSTS), false);
}

static void
cut_way(int from, int to)
{
    sim_log("way %d is cut", from * SIM_HOSTS + to);
    sim_cut(from, to, true);
    sim_at(sim_now() + sim_between(0, 30 * SIM_S), heal, NULL, (uint64_t)(from * SIM_HOSTS + to));
}

bool
world_is_scarce(void)
{
    return sim_settings.descriptors < MANY_DESCRIPTORS;
}

static void
hurry(struct client *c, const char *what)
{
    int64_t by = sim_now() + (world_is_scarce() ? 20 * SIM_MS : 0);

    sim_promise_sooner(c->thread, what, by);
    if (c->writer != NULL)
        sim_promise_sooner(c->writer, what, by);
}

static void
disturb(struct client *c)
{
    struct hs_token *token = c->end.token;
    struct hs_conn *conn = c->end.conn;
    int host = FIRST_CLIENT_HOST + c->number;

    switch (sim_below(7)) {
    case 0:
    case 1:
        if (token == NULL)
            break;
        (void)hs_token_ref(token);
        sim_log("cancels client %d", c->number);
        hurry(c, "a call that was cancelled");
        (void)hs_token_cancel(token, "disturbed", 0, NULL);
        hs_token_unref(token);
        break;
    case 2:
    case 3:
        if (conn == NULL)
            break;
        (void)hs_conn_ref(conn);
        sim_log("closes the connection of client %d", c->number);
        c->end.closed = true;
        hurry(c, "a call whose connection was closed");
        hs_conn_close(conn, sim_chance(300));
        hs_conn_unref(conn);
        break;
    case 4:
        cut_way(host, c->end.peer_host);
        cut_way(c->end.peer_host, host);
        break;
    case 5:
        cut_way(host, c->end.peer_host);
        break;
    default:
        cut_way(c->end.peer_host, host);
        break;
    }
}

static bool
moment_has_come(void *arg)
{
    (void)arg;
    return is_moment;
}

/* What happens while all others wait is soon known. Sometimes it happens in the middle. */
void
world_note_call(void)
{
    is_moment |= sim_chance(10);
}

static void
run_disturber(void *arg)
{
    struct client *chosen;

    (void)arg;
    for (;;) {
        is_moment = false;
        (void)sim_wait(moment_has_come, NULL,
                       sim_now() + sim_between(0, sim_chance(500) ? 20 * SIM_S : 100 * SIM_MS));
        if (clients_left == 0)
            break;
        chosen = &clients[sim_below((uint64_t)n_clients)];
        do
            disturb(chosen);
        while (sim_chance(500));
    }
}

/* ---- All of it ----------------------------------------------------------------------------- */

static void
choose_settings(void)
{
    static const unsigned losses[] = {0, 0, 10, 50, 150}, cuts[] = {0, 100, 400};
    static const unsigned signals[] = {0, 5, 50}, preempts[] = {0, 20, 200, 500};

    sim_settings = (struct sim_settings){
        .preempt = preempts[sim_below(SIM_LENGTH(preempts))],
        .interrupted = signals[sim_below(SIM_LENGTH(signals))],
        .cut = cuts[sim_below(SIM_LENGTH(cuts))],
        .loss = losses[sim_below(SIM_LENGTH(losses))],
        .latency_ns = sim_between(0, 150) * sim_between(0, SIM_MS),
        .buffer = (size_t)sim_between(2048, 65536),
        .descriptors = sim_chance(150) ? (int)sim_between(12, 40) : MANY_DESCRIPTORS,
    };
    sim_settings.jitter_ns = sim_between(0, sim_settings.latency_ns);
    sim_log("preempt %u, interrupted %u, cut %u, loss %u, latency %lld, jitter %lld, buffer %zu, "
            "%d descriptors",
            sim_settings.preempt, sim_settings.interrupted, sim_settings.cut, sim_settings.loss,
            (long long)sim_settings.latency_ns, (long long)sim_settings.jitter_ns,
            sim_settings.buffer, sim_settings.descriptors);
}

static bool
clients_have_ended(void *arg)
{
    (void)arg;
    return clients_left == 0;
}

static bool
threads_have_ended(void *arg)
{
    (void)arg;
    return sim_live_threads() == 0;
}

static bool
network_is_quiet(void *arg)
{
    (void)arg;
    return sim_endpoints() == 0 && sim_packets() == 0;
}

static void
check_nothing_is_left(void)
{
    struct hs_live live;

    hs_live_counts(&live);
    if (live.tokens != 0 || live.conns != 0 || live.listeners != 0 || live.connectors != 0 ||
        live.buffers != 0 || live.lingering != 0 || live.pools != 0 || live.lookups != 0 ||
        live.orphans != 0)
        sim_violation("left: %ld tokens, %ld connections, %ld listeners, %ld connectors, %ld "
                      "buffers, %ld lingering, %ld pools, %ld lookups, %ld orphans",
                      live.tokens, live.conns, live.listeners, live.connectors, live.buffers,
                      live.lingering, live.pools, live.lookups, live.orphans);
    if (sim_open_numbers() != 0) {
        sim_log_open();
        sim_violation("%zu descriptors are left", sim_open_numbers());
    }
}

static void
start(void)
{
    struct hs_listen_options options;
    struct hs_endpoint where;
    struct hs_error err = {0};

    hs_sockopts_seed(1 + sim_random());
    must(hs_token_new(NULL, 0, HS_NEVER, NULL, &err, &stop), "no token", &err);
    must(hs_framing_check(&frames, &err), "framing", &err);
    hs_listen_options_init(&options);
    options.backlog = (int)sim_between(0, 8);
    if (!world_is_scarce() && sim_chance(200))
        tls_begin();
    tls_for_listener(&options);
    if (sim_chance(500))
        hs_sockopts_dead_after(&options.sockopts, (int)sim_between(5000, 60000));
    make_endpoint(SERVER_HOST, SERVER_PORT, &where);
    must(hs_listener_open(&where, &options, &err, &listener), "no listener", &err);
    n_servers = 1 + (int)sim_below(4);
    for (int i = 0, n = n_servers; i < n; i++)
        sim_spawn(server_names[i], SERVER_HOST, run_server, NULL);
    n_clients = clients_left = 1 + (int)sim_below(MAX_CLIENTS);
    for (int i = 1; i <= PLAIN_HOSTS; i++)
        sim_spawn(i == 1 ? "plain-1" : "plain-2", i, run_plain, NULL);
    for (int i = 0; i < n_clients; i++) {
        clients[i] = (struct client){.number = i, .rounds = 8};
        sim_spawn(client_names[i], FIRST_CLIENT_HOST + i, run_client, &clients[i]);
    }
    sim_spawn("disturber", 3, run_disturber, NULL);
    if (!world_is_scarce() && sim_chance(400))
        pool_begin();
}

void
world(void)
{
    choose_settings();
    start();
    (void)sim_wait(clients_have_ended, NULL, SIM_NEVER);
    sim_log("the clients have ended");
    if (pool_is_there())
        pool_end();
    hs_listener_close(listener);
    (void)hs_token_cancel(stop, "stop", 0, NULL);
    if (!sim_wait(threads_have_ended, NULL, sim_now() + 300 * SIM_S))
        sim_violation("%zu threads do not end", sim_live_threads());
    hs_listener_unref(listener);
    hs_token_unref(stop);
    tls_end();
    check_nothing_is_left();
    if (!sim_wait(network_is_quiet, NULL, sim_now() + 3600 * SIM_S))
        sim_violation("%zu ends of connections do not go", sim_endpoints());
}
