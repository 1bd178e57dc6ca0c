/* conn_probe.c: a look at a connection that nobody is using.
 *
 * See conn_probe.h. The looks at our own state take no claim: they are meant for the moment in
 * which a borrower gives a connection back, and a call that is still in progress then is one of the
 * things they find.
 */
#include "conn_probe.h"

#include "conn_impl.h"

#include "../base/sys.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* The usual answer, by the cheapest question there is: poll takes no lock of the socket's, a fifth
 * less time than recv, and spares TLS its own; nothing is read, so that no claim is needed. It does
 * not wait. */
static bool
conn_probe_is_quiet(struct hs_conn *c)
{
    struct pollfd p = {.events = POLLIN | POLLRDHUP};
    bool quiet;

    if (atomic_load_explicit(&c->buffered, memory_order_relaxed) > 0 ||
        atomic_load_explicit(&c->dirs[HS_DIR_IN].user, memory_order_acquire) != USER_NONE ||
        hs_fd_look(&c->fd, NULL) != HS_OK)
        return false;
    p.fd = hs_fd_number(&c->fd);
    quiet = hs_sys_poll(&p, 1, 0) == 0;
    hs_fd_look_end(&c->fd);
    return quiet && (c->tls == NULL || !hs_tls_has_pending(c->tls));
}

/* HS_WANT: there is nothing. */
static hs_err
conn_probe_peek(struct hs_conn *c, size_t *ret_n)
{
    uint8_t byte;
    short want;

    return hs_ask_recv(c, &byte, 1, MSG_PEEK, NULL, &want, ret_n);
}

static enum hs_liveness
conn_probe_look(struct hs_conn *c)
{
    size_t n = 0;
    hs_err rv;

    if (atomic_load(&c->buffered) > 0)
        return HS_LIVE_DATA;
    if ((rv = conn_probe_peek(c, &n)) == HS_WANT)
        return HS_LIVE_IDLE;
    rv = hs_input_judge(c, rv, n, NULL);
    if (rv == HS_E_DEAD_PEER)
        return HS_LIVE_DEAD;
    return rv == HS_OK && n > 0 ? HS_LIVE_DATA : HS_LIVE_CLOSED;
}

enum hs_liveness
hs_conn_probe(struct hs_conn *c)
{
    enum hs_liveness live;

    HS_CHECK(c, CONN_MAGIC);
    if (conn_probe_is_quiet(c))
        return HS_LIVE_IDLE;
    if (!hs_call_visit(c, HS_DIR_IN)) /* Closed; or somebody reads who should not. */
        return HS_LIVE_CLOSED;
    live = conn_probe_look(c);
    hs_call_leave(c, HS_DIR_IN);
    return live;
}

/* What comes while somebody reads is that call's, and no news for others: a pool that asks of a
 * connection which has just been put to use, as httpcore's does, must not hear that it is spent.
 * Why it is over is not asked: one who writes may have been told, and that may have to be waited
 * for (resets.c). */
bool
hs_conn_is_quiet(struct hs_conn *c)
{
    size_t n;
    bool quiet;

    HS_CHECK(c, CONN_MAGIC);
    if (conn_probe_is_quiet(c))
        return true;
    if (!hs_call_visit(c, HS_DIR_IN))
        return !hs_fd_is_closed(&c->fd);
    quiet = atomic_load(&c->buffered) == 0 && conn_probe_peek(c, &n) == HS_WANT;
    hs_call_leave(c, HS_DIR_IN);
    return quiet;
}

void
hs_conn_set_lease(struct hs_conn *c, const _Atomic uint64_t *word)
{
    HS_CHECK(c, CONN_MAGIC);
    c->lease = word;
}

struct hs_call_site *_Atomic *
hs_conn_holder(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    return &c->roll.holder;
}

void
hs_conn_end_lease(struct hs_conn *c)
{
    while (atomic_load(&c->entering) != 0)
        (void)sched_yield();
}

void
hs_conn_set_mark(struct hs_conn *c, struct hs_conn_mark *mark)
{
    const struct direction *in = &c->dirs[HS_DIR_IN], *out = &c->dirs[HS_DIR_OUT];

    atomic_store_explicit(&mark->received, atomic_load_explicit(&in->bytes, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&mark->sent, atomic_load_explicit(&out->bytes, memory_order_relaxed),
                          memory_order_relaxed);
}

void
hs_conn_since(struct hs_conn *c, const struct hs_conn_mark *mark, uint64_t *ret_received,
              uint64_t *ret_sent)
{
    const struct direction *in = &c->dirs[HS_DIR_IN], *out = &c->dirs[HS_DIR_OUT];

    *ret_received = atomic_load_explicit(&in->bytes, memory_order_relaxed) -
                    atomic_load_explicit(&mark->received, memory_order_relaxed);
    *ret_sent = atomic_load_explicit(&out->bytes, memory_order_relaxed) -
                atomic_load_explicit(&mark->sent, memory_order_relaxed);
}

bool
hs_conn_was_answered(struct hs_conn *c)
{
    return atomic_load_explicit(&c->dirs[HS_DIR_IN].last_ns, memory_order_relaxed) >
           atomic_load_explicit(&c->dirs[HS_DIR_OUT].last_ns, memory_order_relaxed);
}

/* Loads with acquire: the one who let go of a direction stored what it left there before. */
enum hs_leftover
hs_conn_leftover(struct hs_conn *c)
{
    struct direction *in = &c->dirs[HS_DIR_IN], *out = &c->dirs[HS_DIR_OUT];

    HS_CHECK(c, CONN_MAGIC);
    if (atomic_load_explicit(&in->user, memory_order_acquire) != USER_NONE ||
        atomic_load_explicit(&out->user, memory_order_acquire) != USER_NONE ||
        atomic_load_explicit(&c->handles, memory_order_acquire) != 1)
        return HS_LEFT_IN_USE;
    if (hs_fd_is_closed(&c->fd) ||
        atomic_load_explicit(&c->broken, memory_order_relaxed) != HS_OK ||
        atomic_load_explicit(&in->poison, memory_order_relaxed) != HS_OK ||
        atomic_load_explicit(&out->poison, memory_order_relaxed) != HS_OK ||
        atomic_load_explicit(&c->out_ended, memory_order_relaxed) || hs_conn_half_sent(c))
        return HS_LEFT_BROKEN;
    if (atomic_load_explicit(&c->buffered, memory_order_relaxed) > 0 ||
        atomic_load_explicit(&c->mid_message, memory_order_relaxed) ||
        hs_deframer_skipping(&c->in) || (c->tls != NULL && hs_tls_has_pending(c->tls)))
        return HS_LEFT_UNREAD;
    return HS_LEFT_NOTHING;
}

bool
hs_conn_is_spent(struct hs_conn *c, bool failed)
{
    struct direction *in = &c->dirs[HS_DIR_IN], *out = &c->dirs[HS_DIR_OUT];

    HS_CHECK(c, CONN_MAGIC);
    return atomic_load(&in->poison) != HS_OK || atomic_load(&out->poison) != HS_OK ||
           hs_conn_half_sent(c) || (failed && hs_conn_is_settled(c));
}

static void
set_never(_Atomic int64_t *deadline)
{
    if (atomic_load_explicit(deadline, memory_order_relaxed) != HS_NEVER)
        atomic_store(deadline, HS_NEVER);
}

void
hs_conn_renew(struct hs_conn *c)
{
    set_never(&c->dirs[HS_DIR_IN].deadline_ns);
    set_never(&c->dirs[HS_DIR_OUT].deadline_ns);
    set_never(&c->dirs[HS_DIR_IN].turn_ns);
    set_never(&c->dirs[HS_DIR_OUT].turn_ns);
    atomic_store_explicit(&c->dirs[HS_DIR_IN].turn_began_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&c->dirs[HS_DIR_OUT].turn_began_ns, 0, memory_order_relaxed);
    set_never(&c->half_closed_ns);
    if (atomic_load_explicit(&c->pace.min_rate, memory_order_relaxed) != 0)
        atomic_store(&c->pace.min_rate, 0);
}

bool
hs_conn_watch(struct hs_conn *c, const struct hs_own_fd *set, uint32_t events, uint64_t data)
{
    struct epoll_event ev = {.events = events, .data.u64 = data};
    bool done;

    HS_CHECK(c, CONN_MAGIC);
    if (hs_fd_look(&c->fd, NULL) != HS_OK)
        return false;
    /* A change in another's set fails, and changes nothing. */
    done = hs_sys_epoll_ctl(set->number, EPOLL_CTL_MOD, hs_fd_number(&c->fd), &ev) == 0 ||
           (errno == ENOENT && hs_own_fd_is_there(set) &&
            hs_sys_epoll_ctl(set->number, EPOLL_CTL_ADD, hs_fd_number(&c->fd), &ev) == 0);
    hs_fd_look_end(&c->fd);
    return done;
}

int
hs_conn_peek_fd(struct hs_conn *c)
{
    return hs_fd_is_closed(&c->fd) ? -1 : c->fd.number;
}

bool
hs_conn_is_ours(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    return hs_fd_is_ours(&c->fd);
}

void
hs_conn_dispose(struct hs_conn *c, bool orderly)
{
    HS_CHECK(c, CONN_MAGIC);
    hs_conn_end(c, orderly ? HS_END_ORDERLY : HS_END_LOST);
    hs_conn_unref(c);
}
