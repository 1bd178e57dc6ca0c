/* local.c: unix sockets, as net/unix/af_unix.c shows them to a program.
 *
 * There is no way between the two ends: what one sends lies in the other's queue at once, and takes
 * room of the sender's until it is read. A connection is there as soon as it is asked for, or,
 * where the queue of the listener is full, refused with EAGAIN, and nothing tells when there is
 * room. One that is closed with unread bytes resets its peer; who sends to a closed one gets EPIPE.
 */
#include "net.h"

#include <errno.h>
#include <poll.h>

static size_t
unread_by_peer(const struct sim_tcp *t)
{
    return t->peer != NULL ? t->peer->in.len : 0;
}

size_t
sim_local_room(const struct sim_tcp *t)
{
    size_t n = unread_by_peer(t);

    return t->send_room > n ? t->send_room - n : 0;
}

size_t
sim_local_unread(const struct sim_tcp *t)
{
    return unread_by_peer(t);
}

short
sim_local_poll(const struct sim_tcp *t)
{
    short what = 0;

    if (t->error != 0)
        what |= POLLERR;
    if (t->state == SIM_CLOSED || (t->rcv_shut && t->snd_shut))
        what |= POLLHUP;
    if (t->rcv_shut)
        what |= POLLIN | POLLRDHUP;
    if (t->in.len > 0)
        what |= POLLIN;
    if (4 * unread_by_peer(t) <= t->send_room)
        what |= POLLOUT;
    return what;
}

static struct sim_tcp *
end_of(struct sim_tcp *t, const struct sim_tcp *other)
{
    t->local = true;
    t->family = AF_UNIX;
    t->state = SIM_ESTABLISHED;
    t->peer_port = other->port;
    return t;
}

int
sim_local_connect(struct sim_tcp *t, uint16_t port)
{
    struct sim_tcp *listener = sim_tcp_listener(AF_UNIX, t->host, port), *child;

    if (listener == NULL)
        return ECONNREFUSED;
    if (sim_tcp_waiting(listener) > listener->backlog)
        return EAGAIN;
    child = end_of(sim_tcp_new(AF_UNIX, listener->host), t);
    child->port = port;
    child->listener = listener;
    child->send_room = listener->send_room;
    child->peer = t;
    (void)end_of(t, listener);
    t->peer = child;
    sim_tcp_changed(listener);
    return 0;
}

static void
note_delivered(struct sim_tcp *t)
{
    if (t->snd_shut && unread_by_peer(t) == 0)
        t->facts->delivered = true;
}

void
sim_local_send(struct sim_tcp *t, const uint8_t *bytes, size_t n)
{
    t->facts->taken += n;
    sim_queue_add(&t->peer->in, bytes, n);
    t->peer->facts->unread = t->peer->in.len;
    sim_tcp_changed(t->peer);
}

size_t
sim_local_receive(struct sim_tcp *t, uint8_t *to, size_t n, bool take)
{
    n = sim_queue_get(&t->in, to, n, take);
    if (!take)
        return n;
    t->facts->given += n;
    t->facts->unread = t->in.len;
    if (t->peer != NULL) {
        note_delivered(t->peer);
        sim_tcp_changed(t->peer);
    }
    return n;
}

/* The peer sends no more. */
static void
end_input(struct sim_tcp *t)
{
    t->rcv_shut = true;
    if (t->facts->over_ns == 0)
        t->facts->over_ns = sim_now();
}

void
sim_local_shut_write(struct sim_tcp *t)
{
    if (t->snd_shut)
        return;
    t->snd_shut = true;
    note_delivered(t);
    if (t->peer != NULL) {
        end_input(t->peer);
        t->peer->facts->ended = true;
        sim_tcp_changed(t->peer);
    }
}

/* unix_release_sock. embryo: nobody has accepted it. */
static void
leave_peer(struct sim_tcp *t, bool embryo)
{
    struct sim_tcp *peer = t->peer;

    if (peer == NULL)
        return;
    end_input(peer);
    peer->snd_shut = true;
    if (t->in.len > 0 || embryo) {
        peer->error = ECONNRESET;
        peer->facts->reset = true;
    } else {
        peer->facts->ended = true;
        note_delivered(peer);
    }
    peer->peer = NULL;
    sim_tcp_changed(peer);
}

void
sim_local_close(struct sim_tcp *t, bool embryo)
{
    leave_peer(t, embryo);
    sim_tcp_free(t);
}
