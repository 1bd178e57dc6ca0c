/* net.c: a TCP that is small but does what Linux does where a program can see it.
 *
 * What is lost (link.c) is sent again, with all behind it, after a time that doubles; a window that
 * is closed is asked; keepalive and TCP_USER_TIMEOUT work as in net/ipv4/tcp_timer.c, and its
 * timers are as coarse as the kernel's.
 *
 * What decides about promises is done as the kernel does it: bytes that had come before a reset can
 * still be read, the reset is told once, to the one who asks first, and after an end that came
 * before it not at all; a close with unread bytes resets; a closed window ends a connection with
 * TCP_USER_TIMEOUT even if the peer lives.
 */
#include "net.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define MSS 1448
#define TICK_NS (4 * SIM_MS)
#define RTO_MIN_NS (200 * SIM_MS)
#define RTO_MAX_NS (120 * SIM_S)
#define SYN_RETRIES 6
#define SYNACK_RETRIES 5
#define RETRIES 15
#define ORPHAN_RETRIES 8
#define LINGER_NS (60 * SIM_S) /* of TIME_WAIT, and of FIN_WAIT2 that nobody owns */

enum { SYN = 1, ACK = 2, FIN = 4, RST = 8 };

static struct sim_tcp *all;
static uint64_t n_ids, n_timers;
static uint16_t next_port = 32768;
static struct sim_facts *latest;

static void output(struct sim_tcp *t);

/* ---- Packets ------------------------------------------------------------------------------- */

static size_t
window(const struct sim_tcp *t)
{
    return t->receive_room > t->in.len ? t->receive_room - t->in.len : 0;
}

static void
transmit(struct sim_tcp *t, unsigned flags, uint64_t seq, size_t len)
{
    struct sim_packet *p = sim_packet_new(len);

    p->from = t->host;
    p->to = t->peer_host;
    p->from_port = t->port;
    p->to_port = t->peer_port;
    p->family = t->mapped ? AF_INET : t->family;
    p->flags = flags;
    p->seq = seq;
    p->ack = t->rcv_nxt;
    p->edge = t->rcv_nxt + window(t);
    t->advertised = p->edge;
    if (len > 0)
        memcpy(p->bytes, t->out.bytes + t->out.start + (seq - t->una), len);
    sim_post(p);
}

static void
acknowledge(struct sim_tcp *t)
{
    transmit(t, ACK, t->nxt, 0);
}

/* ---- Life ---------------------------------------------------------------------------------- */

size_t
sim_endpoints(void)
{
    size_t n = 0;

    for (const struct sim_tcp *t = all; t != NULL; t = t->next)
        n++;
    return n;
}

bool
sim_is_spoken_to(uint16_t port)
{
    const struct sim_tcp *t = all;

    while (t != NULL && (t->peer_port != port || t->timer == 0))
        t = t->next;
    return t != NULL;
}

struct sim_tcp *
sim_tcp_new(int family, int host)
{
    struct sim_tcp *t = calloc(1, sizeof(*t));

    if (t == NULL || (t->facts = calloc(1, sizeof(*t->facts))) == NULL)
        abort();
    t->facts->before = latest;
    latest = t->facts;
    t->id = ++n_ids;
    t->family = family;
    t->local = family == AF_UNIX;
    t->host = host;
    t->write_seq = 0;
    t->send_room = t->receive_room = sim_settings.buffer;
    t->keep_idle_s = 7200;
    t->keep_interval_s = 75;
    t->keep_count = 9;
    t->next = all;
    all = t;
    return t;
}

void
sim_tcp_free(struct sim_tcp *t)
{
    struct sim_tcp **at = &all;

    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    sim_queue_free(&t->in);
    sim_queue_free(&t->out);
    free(t);
}

void
sim_tcp_changed(struct sim_tcp *t)
{
    if (t->file != NULL)
        sim_wake(t->file);
}

/* tcp_done: the connection is over. One that nobody owns is no more. */
static void
end(struct sim_tcp *t)
{
    t->state = SIM_CLOSED;
    t->rcv_shut = t->snd_shut = true;
    t->timer = t->keep_timer = t->end_timer = 0;
    if (t->file == NULL && (t->orphan || t->listener != NULL))
        sim_tcp_free(t);
    else
        sim_tcp_changed(t);
}

static void
fail(struct sim_tcp *t, int sys)
{
    t->error = sys;
    t->facts->reset |= sys == ECONNRESET || sys == EPIPE || sys == ECONNREFUSED;
    t->facts->timed_out |= sys == ETIMEDOUT;
    t->facts->over_ns = sim_now();
    t->unseen = t->state == SIM_SYN_SENT;
    sim_queue_free(&t->out);
    sim_log("tcp %llu: error %d", (unsigned long long)t->id, sys);
    end(t);
}

static void
reset_peer(struct sim_tcp *t)
{
    transmit(t, RST | ACK, t->nxt, 0);
}

/* One of IPv6 that was not bound to an address of its own hears IPv4 as well. */
static bool
hears(const struct sim_tcp *t, int family)
{
    return t->family == family || (t->family == AF_INET6 && family == AF_INET && t->dual);
}

struct sim_tcp *
sim_tcp_listener(int family, int host, uint16_t port)
{
    struct sim_tcp *t = all;

    while (t != NULL &&
           (t->state != SIM_LISTEN || t->host != host || t->port != port || !hears(t, family)))
        t = t->next;
    return t;
}

int
sim_tcp_visible_state(const struct sim_tcp *t)
{
    static const int states[] = {
        [SIM_CLOSED] = 7,      [SIM_LISTEN] = 10,   [SIM_SYN_SENT] = 2,  [SIM_SYN_RECV] = 3,
        [SIM_ESTABLISHED] = 1, [SIM_FIN_WAIT1] = 4, [SIM_FIN_WAIT2] = 5, [SIM_CLOSE_WAIT] = 8,
        [SIM_CLOSING] = 11,    [SIM_LAST_ACK] = 9,  [SIM_TIME_WAIT] = 7,
    };

    return states[t->state];
}

/* ---- Timers -------------------------------------------------------------------------------- */

static void on_timer(void *arg, uint64_t number);
static void on_keepalive(void *arg, uint64_t number);
static void on_end(void *arg, uint64_t number);

/* When a timer fires that is set for a time: the wheel of kernel/time/timer.c, with 250 ticks in a
 * second. Up to 63 ticks ahead it has a place for each; for longer times places are 8, 64, ...
 * ticks apart, and the next one is taken. */
static int64_t
fires_at(int64_t at)
{
    int64_t ticks = (at + TICK_NS - 1) / TICK_NS, ahead = ticks - sim_now() / TICK_NS;
    unsigned level = 0;

    while (ahead >= INT64_C(63) << (3 * level))
        level++;
    return (((ticks >> (3 * level)) + 1) << (3 * level)) * TICK_NS;
}

static int64_t
rto(const struct sim_tcp *t)
{
    int64_t span = RTO_MIN_NS + t->rtt_ns;

    for (unsigned i = 0; i < t->backoff && span < RTO_MAX_NS; i++)
        span *= 2;
    return span < RTO_MAX_NS ? span : RTO_MAX_NS;
}

static void
arm(struct sim_tcp *t, int64_t span)
{
    int64_t user = t->user_timeout_ms * SIM_MS, since, left;

    since = t->first_sent_ns != 0 ? t->first_sent_ns : t->probing_ns;
    if (user > 0 && since != 0) { /* tcp_clamp_rto_to_user_timeout */
        left = since + user - sim_now();
        left = left > SIM_MS ? left : SIM_MS;
        span = left < span ? left : span;
    }
    t->timer = ++n_timers;
    sim_at(fires_at(sim_now() + span), on_timer, NULL, t->timer);
}

static struct sim_tcp *
find_by_timer(uint64_t number)
{
    struct sim_tcp *t = all;

    while (t != NULL && t->timer != number && t->keep_timer != number && t->end_timer != number)
        t = t->next;
    return t;
}

static bool
user_timeout_is_over(const struct sim_tcp *t, int64_t since)
{
    return t->user_timeout_ms > 0 && since != 0 && sim_now() - since >= t->user_timeout_ms * SIM_MS;
}

static void
on_handshake_timer(struct sim_tcp *t)
{
    bool active = t->state == SIM_SYN_SENT;

    if (t->retries++ >= (active ? SYN_RETRIES : SYNACK_RETRIES) ||
        (active && user_timeout_is_over(t, t->first_sent_ns))) {
        fail(t, ETIMEDOUT);
        return;
    }
    transmit(t, active ? SYN : SYN | ACK, 0, 0);
    t->backoff++;
    arm(t, SIM_S << t->backoff);
}

static void
on_timer(void *arg, uint64_t number)
{
    struct sim_tcp *t = find_by_timer(number);
    bool probing;

    (void)arg;
    if (t == NULL)
        return;
    t->timer = 0;
    if (t->state == SIM_SYN_SENT || t->state == SIM_SYN_RECV) {
        on_handshake_timer(t);
        return;
    }
    probing = t->max == t->una; /* Nothing is under way: the window is closed. */
    if (user_timeout_is_over(t, probing ? t->probing_ns : t->first_sent_ns) ||
        t->retries++ >= (t->orphan ? ORPHAN_RETRIES : RETRIES)) {
        fail(t, ETIMEDOUT);
        return;
    }
    t->backoff++;
    if (probing) {
        transmit(t, ACK, t->una - 1, 0); /* An old number: the peer says what its window is. */
        arm(t, rto(t));
        return;
    }
    t->nxt = t->una;
    output(t);
    if (t->timer == 0)
        arm(t, rto(t));
}

static void
keep(struct sim_tcp *t, int64_t span)
{
    t->keep_timer = ++n_timers;
    sim_at(fires_at(sim_now() + span), on_keepalive, NULL, t->keep_timer);
}

static bool
is_synchronized(const struct sim_tcp *t)
{
    return t->state >= SIM_ESTABLISHED && t->state < SIM_TIME_WAIT;
}

void
sim_tcp_set_keepalive(struct sim_tcp *t)
{
    int64_t idle = t->keep_idle_s * SIM_S, elapsed = sim_now() - t->heard_ns;

    t->keep_timer = 0;
    if (t->keepalive && is_synchronized(t))
        keep(t, elapsed < idle ? idle - elapsed : 0);
}

static void
on_keepalive(void *arg, uint64_t number)
{
    struct sim_tcp *t = find_by_timer(number);
    int64_t idle, elapsed;

    (void)arg;
    if (t == NULL)
        return;
    t->keep_timer = 0;
    idle = t->keep_idle_s * SIM_S;
    if (t->una < t->write_seq || t->max > t->una) {
        keep(t, idle);
        return;
    }
    if ((elapsed = sim_now() - t->heard_ns) < idle) {
        keep(t, idle - elapsed);
        return;
    }
    if (t->user_timeout_ms > 0 ? elapsed >= t->user_timeout_ms * SIM_MS && t->probes > 0
                               : t->probes >= (unsigned)t->keep_count) {
        reset_peer(t);
        fail(t, ETIMEDOUT);
        return;
    }
    t->probes++;
    transmit(t, ACK, t->una - 1, 0);
    keep(t, t->keep_interval_s * SIM_S);
}

static void
on_end(void *arg, uint64_t number)
{
    struct sim_tcp *t = find_by_timer(number);

    (void)arg;
    if (t != NULL)
        end(t);
}

static void
end_later(struct sim_tcp *t)
{
    t->timer = t->keep_timer = 0;
    t->end_timer = ++n_timers;
    sim_at(sim_now() + LINGER_NS, on_end, NULL, t->end_timer);
}

/* ---- Sending ------------------------------------------------------------------------------- */

static bool
may_send(const struct sim_tcp *t)
{
    return is_synchronized(t) && t->state != SIM_FIN_WAIT2;
}

static void
note_sent(struct sim_tcp *t)
{
    if (t->nxt > t->max)
        t->max = t->nxt;
    if (t->first_sent_ns == 0)
        t->first_sent_ns = sim_now();
    t->probing_ns = 0;
    if (t->timer == 0)
        arm(t, rto(t));
}

static void
output(struct sim_tcp *t)
{
    if (!may_send(t))
        return;
    while (t->nxt < t->write_seq && t->nxt < t->edge) {
        uint64_t n = t->write_seq - t->nxt;

        n = n < t->edge - t->nxt ? n : t->edge - t->nxt;
        n = n < MSS ? n : MSS;
        transmit(t, ACK, t->nxt, (size_t)n);
        t->nxt += n;
        note_sent(t);
    }
    if (t->fin_queued && t->nxt == t->write_seq) {
        transmit(t, FIN | ACK, t->nxt, 0);
        t->nxt++;
        note_sent(t);
    }
    if (t->nxt < t->write_seq && t->max == t->una && t->timer == 0) {
        if (t->probing_ns == 0)
            t->probing_ns = sim_now();
        arm(t, rto(t));
    }
}

size_t
sim_tcp_room(const struct sim_tcp *t)
{
    if (t->local)
        return sim_local_room(t);
    return t->send_room > t->out.len ? t->send_room - t->out.len : 0;
}

void
sim_tcp_send(struct sim_tcp *t, const uint8_t *bytes, size_t n)
{
    if (t->local) {
        sim_local_send(t, bytes, n);
        return;
    }
    sim_queue_add(&t->out, bytes, n);
    t->write_seq += n;
    t->facts->taken += n;
    output(t);
}

size_t
sim_tcp_receive(struct sim_tcp *t, uint8_t *to, size_t n, bool take)
{
    if (t->local)
        return sim_local_receive(t, to, n, take);
    n = sim_queue_get(&t->in, to, n, take);
    if (!take)
        return n;
    t->facts->given += n;
    t->facts->unread = t->in.len;
    /* A window that was closed, or nearly, and is open again: that has to be told. */
    if (is_synchronized(t) && t->advertised < t->rcv_nxt + MSS && window(t) >= t->receive_room / 2)
        acknowledge(t);
    return n;
}

void
sim_tcp_shut_write(struct sim_tcp *t)
{
    if (t->local) {
        sim_local_shut_write(t);
        return;
    }
    if (t->snd_shut)
        return;
    t->snd_shut = true;
    if (t->state == SIM_ESTABLISHED || t->state == SIM_SYN_RECV)
        t->state = SIM_FIN_WAIT1;
    else if (t->state == SIM_CLOSE_WAIT)
        t->state = SIM_LAST_ACK;
    else
        return;
    t->fin_queued = true;
    output(t);
    sim_tcp_changed(t);
}

void
sim_tcp_connect(struct sim_tcp *t, int peer_host, uint16_t peer_port)
{
    t->peer_host = peer_host;
    t->peer_port = peer_port;
    if (t->port == 0)
        t->port = next_port++;
    t->state = SIM_SYN_SENT;
    t->nxt = t->max = t->write_seq = 1;
    t->first_sent_ns = sim_now();
    transmit(t, SYN, 0, 0);
    arm(t, SIM_S);
}

/* ---- Receiving ----------------------------------------------------------------------------- */

static struct sim_tcp *
find_end(const struct sim_packet *p)
{
    for (struct sim_tcp *t = all; t != NULL; t = t->next)
        if (t->state != SIM_LISTEN && t->state != SIM_CLOSED && t->host == p->to &&
            t->port == p->to_port && t->peer_host == p->from && t->peer_port == p->from_port)
            return t;
    return sim_tcp_listener(p->family, p->to, p->to_port);
}

static void
refuse(const struct sim_packet *p)
{
    struct sim_packet *answer;

    if ((p->flags & RST) != 0)
        return;
    answer = sim_packet_new(0);
    answer->from = p->to;
    answer->to = p->from;
    answer->from_port = p->to_port;
    answer->to_port = p->from_port;
    answer->family = p->family;
    answer->flags = RST;
    if ((p->flags & ACK) != 0) {
        answer->seq = p->ack;
    } else {
        answer->flags |= ACK;
        answer->ack = p->seq + p->len + 1;
    }
    sim_post(answer);
}

const struct sim_tcp *
sim_tcp_unseen(void)
{
    const struct sim_tcp *t = all;

    while (t != NULL && (!t->unseen || t->file == NULL))
        t = t->next;
    return t;
}

int
sim_tcp_waiting(const struct sim_tcp *listener)
{
    int n = 0;

    for (const struct sim_tcp *t = all; t != NULL; t = t->next)
        n += t->listener == listener && t->state != SIM_SYN_RECV;
    return n;
}

/* The one that has waited longest is the last of the list. */
struct sim_tcp *
sim_tcp_take_child(struct sim_tcp *listener)
{
    struct sim_tcp *child = NULL;

    for (struct sim_tcp *t = all; t != NULL; t = t->next)
        if (t->listener == listener && t->state != SIM_SYN_RECV)
            child = t;
    if (child != NULL)
        child->listener = NULL;
    return child;
}

static void
on_syn(struct sim_tcp *listener, const struct sim_packet *p)
{
    struct sim_tcp *t;

    if ((p->flags & (SYN | ACK | RST)) != SYN) {
        refuse(p);
        return;
    }
    if (sim_tcp_waiting(listener) > listener->backlog)
        return; /* The client asks again. */
    t = sim_tcp_new(listener->family, p->to);
    t->mapped = p->family != listener->family;
    t->listener = listener;
    t->peer_host = p->from;
    t->peer_port = p->from_port;
    t->port = p->to_port;
    t->state = SIM_SYN_RECV;
    t->rcv_nxt = 1;
    t->edge = p->edge;
    t->nxt = t->max = t->write_seq = 1;
    t->first_sent_ns = t->heard_ns = sim_now();
    t->keepalive = listener->keepalive;
    t->keep_idle_s = listener->keep_idle_s;
    t->keep_interval_s = listener->keep_interval_s;
    t->keep_count = listener->keep_count;
    t->user_timeout_ms = listener->user_timeout_ms;
    t->send_room = listener->send_room;
    t->receive_room = listener->receive_room;
    memcpy(t->options, listener->options, sizeof(t->options));
    t->n_options = listener->n_options;
    transmit(t, SYN | ACK, 0, 0);
    arm(t, SIM_S);
}

static void
establish(struct sim_tcp *t, const struct sim_packet *p)
{
    t->rtt_ns = t->retries == 0 ? sim_now() - t->first_sent_ns : 0;
    t->una = 1;
    t->edge = p->edge;
    t->timer = 0;
    t->backoff = t->retries = 0;
    t->first_sent_ns = 0;
    if (t->state != SIM_FIN_WAIT1)
        t->state = SIM_ESTABLISHED;
    sim_tcp_set_keepalive(t);
}

static void
on_syn_sent(struct sim_tcp *t, const struct sim_packet *p)
{
    if ((p->flags & RST) != 0) {
        if ((p->flags & ACK) != 0)
            fail(t, ECONNREFUSED);
        return;
    }
    if ((p->flags & (SYN | ACK)) != (SYN | ACK))
        return;
    t->rcv_nxt = 1;
    t->heard_ns = sim_now();
    establish(t, p);
    t->unseen = true;
    acknowledge(t);
    sim_tcp_changed(t);
}

static void
on_reset(struct sim_tcp *t, const struct sim_packet *p)
{
    /* RFC 5961: one that does not fit exactly is asked about. */
    if (p->seq != t->rcv_nxt) {
        if (p->seq > t->rcv_nxt && p->seq < t->advertised + 1)
            acknowledge(t);
        return;
    }
    if (t->state == SIM_TIME_WAIT)
        end(t);
    else
        fail(t, t->state == SIM_CLOSE_WAIT ? EPIPE : ECONNRESET);
}

/* False: the connection is over. */
static bool
on_acknowledgement(struct sim_tcp *t, const struct sim_packet *p)
{
    uint64_t n;

    t->edge = p->edge > t->edge ? p->edge : t->edge;
    t->probes = 0;
    if (p->ack <= t->una || p->ack > t->max) {
        if (t->max == t->una)
            t->retries = 0; /* An answer to a probe; its time goes on. */
        return true;
    }
    n = p->ack - t->una;
    (void)sim_queue_get(&t->out, NULL, n < t->out.len ? (size_t)n : t->out.len, true);
    t->una = p->ack;
    t->nxt = t->nxt > t->una ? t->nxt : t->una;
    t->backoff = t->retries = 0;
    t->timer = 0;
    t->first_sent_ns = t->max > t->una ? sim_now() : 0;
    if (t->max > t->una)
        arm(t, rto(t));
    sim_tcp_changed(t);
    if (!t->fin_queued || t->una != t->write_seq + 1)
        return true;
    t->facts->delivered = true;
    switch (t->state) {
    case SIM_FIN_WAIT1:
        t->state = SIM_FIN_WAIT2;
        if (t->orphan)
            end_later(t);
        return true;
    case SIM_CLOSING:
        t->state = SIM_TIME_WAIT;
        t->rcv_shut = t->snd_shut = true;
        end_later(t);
        return false;
    case SIM_LAST_ACK:
        end(t);
        return false;
    case SIM_CLOSED:
    case SIM_LISTEN:
    case SIM_SYN_SENT:
    case SIM_SYN_RECV:
    case SIM_ESTABLISHED:
    case SIM_FIN_WAIT2:
    case SIM_CLOSE_WAIT:
    case SIM_TIME_WAIT:
        break;
    }
    return true;
}

static void
on_fin(struct sim_tcp *t)
{
    t->rcv_nxt++;
    t->fin_received = t->rcv_shut = t->facts->ended = true;
    t->facts->over_ns = sim_now();
    if (t->state == SIM_ESTABLISHED) {
        t->state = SIM_CLOSE_WAIT;
    } else if (t->state == SIM_FIN_WAIT1) {
        t->state = SIM_CLOSING;
    } else if (t->state == SIM_FIN_WAIT2) {
        t->state = SIM_TIME_WAIT;
        t->snd_shut = true;
        end_later(t);
    }
}

/* False: the connection is over. */
static bool
on_data(struct sim_tcp *t, const struct sim_packet *p)
{
    uint64_t skip;
    size_t n;

    if (p->len == 0 && (p->flags & FIN) == 0) {
        if (p->seq < t->rcv_nxt) /* A probe. */
            acknowledge(t);
        return true;
    }
    if (p->seq > t->rcv_nxt || t->fin_received) {
        acknowledge(t);
        return true;
    }
    skip = t->rcv_nxt - p->seq;
    n = skip < p->len ? p->len - (size_t)skip : 0;
    n = n < window(t) ? n : window(t);
    if (n > 0 && t->orphan) {
        reset_peer(t);
        end(t);
        return false;
    }
    sim_queue_add(&t->in, p->bytes + (n > 0 ? skip : 0), n);
    t->rcv_nxt += n;
    t->facts->unread = t->in.len;
    if ((p->flags & FIN) != 0 && p->seq + p->len == t->rcv_nxt)
        on_fin(t);
    acknowledge(t);
    sim_tcp_changed(t);
    return true;
}

static void
on_packet(struct sim_tcp *t, const struct sim_packet *p)
{
    struct sim_tcp *listener = t->listener;

    if (t->state == SIM_TIME_WAIT) {
        if ((p->flags & RST) != 0)
            on_reset(t, p);
        else if ((p->flags & FIN) != 0)
            acknowledge(t);
        return;
    }
    if ((p->flags & RST) != 0) {
        on_reset(t, p);
        return;
    }
    if ((p->flags & SYN) != 0) { /* Of before: our acknowledgement was lost. */
        if (t->state == SIM_SYN_RECV)
            transmit(t, SYN | ACK, 0, 0);
        else
            acknowledge(t);
        return;
    }
    t->heard_ns = sim_now();
    if (t->state == SIM_SYN_RECV) {
        if (listener != NULL && sim_tcp_waiting(listener) > listener->backlog)
            return;
        establish(t, p);
        if (listener != NULL)
            sim_tcp_changed(listener);
    }
    if (on_acknowledgement(t, p) && on_data(t, p))
        output(t);
}

void
sim_tcp_arrive(const struct sim_packet *p)
{
    struct sim_tcp *t;

    if ((t = find_end(p)) == NULL)
        refuse(p);
    else if (t->state == SIM_LISTEN)
        on_syn(t, p);
    else if (t->state == SIM_SYN_SENT)
        on_syn_sent(t, p);
    else
        on_packet(t, p);
}

/* ---- Readiness, and closing ---------------------------------------------------------------- */

short
sim_tcp_poll(const struct sim_tcp *t)
{
    short what = 0;

    if (t->state == SIM_LISTEN)
        return sim_tcp_waiting(t) > 0 ? POLLIN : 0;
    if (t->local)
        return sim_local_poll(t);
    if (t->error != 0)
        what |= POLLERR;
    if (t->state == SIM_CLOSED || (t->rcv_shut && t->snd_shut))
        what |= POLLHUP;
    if (t->rcv_shut)
        what |= POLLIN | POLLRDHUP;
    if (t->state == SIM_SYN_SENT)
        return what;
    if (t->in.len > 0)
        what |= POLLIN;
    if (t->snd_shut || sim_tcp_room(t) >= t->send_room / 3)
        what |= POLLOUT;
    return what;
}

static void
close_listener(struct sim_tcp *listener)
{
    struct sim_tcp *t = all;

    while (t != NULL) {
        struct sim_tcp *next = t->next;

        if (t->listener == listener && t->local) {
            sim_local_close(t, true);
        } else if (t->listener == listener) {
            reset_peer(t);
            sim_tcp_free(t);
        }
        t = next;
    }
    sim_tcp_free(listener);
}

void
sim_tcp_close(struct sim_tcp *t)
{
    t->file = NULL;
    t->facts->closed = true;
    if (t->state == SIM_LISTEN) {
        close_listener(t);
        return;
    }
    if (t->local) {
        sim_local_close(t, false);
        return;
    }
    if (t->state == SIM_CLOSED || t->state == SIM_SYN_SENT) {
        sim_tcp_free(t);
        return;
    }
    t->orphan = true;
    if (t->state != SIM_TIME_WAIT && (t->in.len > 0 || (t->linger && t->linger_s == 0))) {
        reset_peer(t);
        end(t);
        return;
    }
    t->keep_timer = 0;
    sim_tcp_shut_write(t);
    if (t->state == SIM_FIN_WAIT2 && t->end_timer == 0)
        end_later(t);
}
