/* parking.c: connections in a reactor (cancel/reactor.h), and what there is to be said of each.
 *
 * Invariants:
 * - A spot belongs to its connection and is freed with it. While it is parked or due, the parking
 *   has a reference to the connection, which goes with it to the one who is given it.
 * - All of a spot but `parking` and `conn` belongs to the owner of its hs_parked. Once it is parked
 *   it may be somebody else's at any moment, and is not touched any more.
 * - Closing marks the descriptor first and calls the spot after; draining says so first and calls
 *   all after. Who parks looks at both marks after it has parked: one of the two makes it due.
 * - given: a message was given. more: what is in the buffer was looked at and left, so only what
 *   comes is news.
 * - lingering: an op of hs_conn_finish that holds both directions from first step to last.
 *
 * What a client does while it is parked costs a look in the thread that was woken, which then waits
 * on: half a TLS record, session tickets, key updates are no message. Looks only peek.
 */
#include "parking_impl.h"
#include "spot.h"

#include "delays.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define TOLD_SLICE 64
#define LOOKS 64 /* of what has no news: others of the event loop wait, too */

/* Lanes: of SILENT ones nothing has come, as far as is known here. They are in the order in which
 * they were made: one that drips half a record is looked at, parked again, and no younger. */
enum { KNOWN, SILENT };

static struct hs_spot *
spot_of(struct hs_parking *p, struct hs_conn *c, struct hs_error *err)
{
    struct hs_spot *s = c->spot;

    if (s == NULL) {
        if ((s = hs_sys_calloc(1, sizeof(*s))) == NULL) {
            (void)hs_err_setx(err, HS_E_NOMEM, "park", "no memory to park a connection");
            return NULL;
        }
        s->parking = hs_parking_ref(p);
        s->conn = c;
        c->spot = s;
    }
    HS_ASSERT(s->parking == p);
    return s;
}

/* ---- Looking ------------------------------------------------------------------------------- */

static uint64_t
bytes_read(struct hs_conn *c)
{
    return atomic_load_explicit(&c->dirs[HS_DIR_IN].bytes, memory_order_relaxed) -
           atomic_load_explicit(&c->buffered, memory_order_relaxed);
}

/* With HS_DIR_IN visited. HS_OK: there are bytes; HS_WANT: there are none; HS_INTR: TLS talks to
 * itself and has not said all of it; HS_E_END, or how it broke. */
static hs_err
parking_peek(const struct hs_spot *s)
{
    struct hs_conn *c = s->conn;
    uint8_t byte;
    short want;
    size_t n = 0;
    hs_err rv;

    if (atomic_load(&c->buffered) > 0 && !s->more)
        return HS_OK;
    rv = hs_ask_recv(c, &byte, 1, MSG_PEEK, NULL, &want, &n);
    if (rv != HS_WANT)
        rv = hs_input_judge(c, rv, n, NULL);
    if (rv == HS_OK && n == 0)
        rv = atomic_load(&c->buffered) > 0 ? HS_E_TRUNCATED : HS_E_END;
    return rv;
}

/* HS_E_CLOSED here; HS_OK, too, when somebody reads who should not. */
static hs_err
parking_look(const struct hs_spot *s)
{
    hs_err rv;

    if (hs_fd_is_closed(&s->conn->fd))
        return HS_E_CLOSED;
    if (s->known)
        return HS_OK;
    if (!hs_call_visit(s->conn, HS_DIR_IN))
        return hs_fd_is_closed(&s->conn->fd) ? HS_E_CLOSED : HS_OK;
    rv = parking_peek(s);
    hs_call_leave(s->conn, HS_DIR_IN);
    return rv;
}

/* Without TLS, epoll(7) has said all there is to say. */
static bool
surely_has_data(const struct hs_spot *s)
{
    return s->parked.cause == HS_CAUSE_READY && s->parked.events == EPOLLIN && s->conn->tls == NULL;
}

static enum hs_ending
ending_of(hs_err rv)
{
    if (rv == HS_E_END)
        return HS_ENDING_CLEAN;
    if (rv == HS_E_TRUNCATED)
        return HS_ENDING_TRUNCATED;
    return rv == HS_E_DEAD_PEER ? HS_ENDING_DEAD_PEER : HS_ENDING_RESET;
}

/* What a user of the descriptor asked the kernel to tell (time stamps, zero copies) keeps it ready
 * until it is read. While a connection is parked nobody does. */
static void
drop_told(const struct hs_spot *s)
{
    struct msghdr msg = {0};

    if (s->parked.cause != HS_CAUSE_READY || (s->parked.events & EPOLLERR) == 0 ||
        s->conn->family == AF_UNIX || /* There the flag is not known, and it would be a read. */
        hs_fd_look(&s->conn->fd, NULL) != HS_OK)
        return;
    for (int i = 0; i < TOLD_SLICE; i++)
        if (hs_sys_recvmsg(hs_fd_number(&s->conn->fd), &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            break;
    hs_fd_look_end(&s->conn->fd);
}

/* ---- Parking ------------------------------------------------------------------------------- */

/* Of what the caller owns, and not any more when this returns HS_OK: so all that is needed after is
 * in variables. A descriptor that is closed is no failure: it is due. */
static hs_err
wait_for(struct hs_spot *s, int fd, uint32_t events, int64_t at_ns, struct hs_error *err)
{
    struct hs_parking *p = s->parking;
    struct hs_conn *c = s->conn;
    bool stays = s->stays || s->lingering != NULL;
    hs_err rv = HS_OK;

    s->parked.lane = s->given || s->lingering != NULL ? KNOWN : SILENT;
    s->parked.since_ns = s->parked.lane == SILENT ? c->created_ns : 0;
    (void)hs_conn_ref(c); /* The one who is given it may be quicker than we are. */
    (void)hs_parking_ref(p);
    if (hs_fd_hold(&c->fd, NULL) != HS_OK) {
        hs_reactor_queue(p->reactor, &s->parked);
    } else {
        rv = hs_reactor_park(p->reactor, &s->parked, fd, events, at_ns, err);
        if (rv == HS_OK && (hs_fd_is_closed(&c->fd) || (!stays && atomic_load(&p->draining))))
            hs_reactor_call(p->reactor, &s->parked);
        hs_fd_drop(&c->fd);
    }
    hs_conn_unref(c);
    hs_parking_unref(p);
    return rv;
}

static hs_err
wait_for_message(struct hs_spot *s, struct hs_error *err)
{
    s->known = false;
    return wait_for(s, s->conn->fd.number, EPOLLIN | EPOLLRDHUP, s->until_ns, err);
}

/* Whether there are bytes that no readiness of the descriptor will tell of. */
static bool
has_above(const struct hs_spot *s)
{
    struct hs_conn *c = s->conn;

    if (atomic_load(&c->buffered) > 0 && !s->more)
        return true;
    return c->tls != NULL && hs_tls_has_pending(c->tls);
}

static bool
is_unfit(struct hs_conn *c)
{
    return atomic_load(&c->broken) != HS_OK || hs_conn_half_sent(c) ||
           atomic_load(&c->dirs[HS_DIR_IN].poison) != HS_OK ||
           atomic_load(&c->dirs[HS_DIR_OUT].poison) != HS_OK;
}

/* HS_PARKING_TAKEN: it can be. */
static enum hs_parking_answer
parking_judge(struct hs_spot *s, bool newcomer)
{
    struct hs_conn *c = s->conn;
    size_t buffered = atomic_load(&c->buffered);

    if (hs_fd_is_closed(&c->fd))
        return HS_PARKING_CLOSED;
    if (is_unfit(c))
        return HS_PARKING_UNFIT;
    if (atomic_load(&c->out_ended))
        return HS_PARKING_ENDING;
    s->more = s->given && s->read == bytes_read(c);
    if (s->more && s->buffered == buffered && !s->rest)
        return HS_PARKING_UNREAD;
    s->stays = newcomer || s->more;
    if (s->stays || !atomic_load(&s->parking->draining))
        return HS_PARKING_TAKEN;
    return parking_look(s) == HS_WANT ? HS_PARKING_QUIET : HS_PARKING_TAKEN;
}

/* The one who had the last message is done with it: the next one has a time of its own, which has
 * begun if it is here. */
static void
begin_turn(const struct hs_spot *s)
{
    struct direction *in = &s->conn->dirs[HS_DIR_IN], *out = &s->conn->dirs[HS_DIR_OUT];
    bool bounded = atomic_load_explicit(&in->turn_ns, memory_order_relaxed) != HS_NEVER;
    int64_t began = bounded && atomic_load(&s->conn->buffered) > 0 ? hs_now() : 0;

    if (s->more)
        return;
    atomic_store_explicit(&in->turn_began_ns, began, memory_order_relaxed);
    atomic_store_explicit(&out->turn_began_ns, 0, memory_order_relaxed);
}

hs_err
hs_parking_park(struct hs_parking *p, struct hs_conn *conn, void *arg, int64_t span_ns,
                bool newcomer, struct hs_error *err, enum hs_parking_answer *ret_answer)
{
    enum hs_parking_answer answer;
    struct hs_spot *s;
    hs_err rv = HS_OK;

    HS_CHECK(p, PARKING_MAGIC);
    HS_CHECK(conn, CONN_MAGIC);
    if (!hs_fd_is_ours(&conn->fd))
        return hs_err_setx(err, HS_E_FORKED, "park", "%s", hs_err_text(HS_E_FORKED));
    if (!hs_fd_is_closed(&conn->fd) && atomic_load(&conn->dirs[HS_DIR_IN].user) == USER_CALL)
        return hs_err_setx(err, HS_E_BUSY, "park", "a call is reading on this connection");
    if ((s = spot_of(p, conn, err)) == NULL)
        return HS_E_NOMEM;
    s->known = false;
    if ((answer = parking_judge(s, newcomer)) == HS_PARKING_TAKEN) {
        s->arg = arg;
        s->until_ns = hs_deadline_after(span_ns);
        begin_turn(s);
        (void)hs_conn_ref(conn);
        if (has_above(s))
            hs_reactor_queue(p->reactor, &s->parked);
        else if ((rv = wait_for_message(s, err)) != HS_OK)
            hs_conn_unref(conn);
    }
    if (rv == HS_OK)
        *ret_answer = answer;
    return rv;
}

/* ---- Lingering ----------------------------------------------------------------------------- */

static uint32_t
epoll_events(short want)
{
    return ((want & POLLIN) != 0 ? (uint32_t)EPOLLIN : 0) |
           ((want & POLLOUT) != 0 ? (uint32_t)EPOLLOUT : 0);
}

/* HS_WANT: it is parked again. */
static hs_err
parking_step(struct hs_spot *s, struct hs_error *err)
{
    struct lingering *l = s->lingering;
    hs_err rv, waits;

    rv = hs_conn_finish(s->conn, &l->op, err, &l->report);
    if (rv == HS_INTR) { /* There is much to throw away: others first. */
        hs_reactor_queue(s->parking->reactor, &s->parked);
        return HS_WANT;
    }
    if (rv != HS_WANT)
        return rv;
    waits = wait_for(s, l->op.want_fd, epoll_events(l->op.want_events), l->op.want_at_ns, err);
    if (waits == HS_OK)
        return HS_WANT;
    hs_conn_abandon(s->conn, &l->op, NULL);
    return waits;
}

hs_err
hs_parking_linger(struct hs_parking *p, struct hs_conn *conn, void *arg, int64_t span_ns,
                  struct hs_error *err, struct hs_close_report *ret_report)
{
    struct lingering *lingering;
    struct hs_spot *s;
    hs_err rv;

    HS_CHECK(p, PARKING_MAGIC);
    HS_CHECK(conn, CONN_MAGIC);
    if ((s = spot_of(p, conn, err)) == NULL)
        return HS_E_NOMEM;
    HS_ASSERT(s->lingering == NULL);
    if ((lingering = hs_sys_calloc(1, sizeof(*lingering))) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "finish", "no memory to park a connection");
    lingering->op = (struct hs_op)HS_OP_INIT(hs_deadline_after(span_ns), NULL);
    lingering->op.stepping = true;
    s->lingering = lingering;
    s->arg = arg;
    (void)hs_conn_ref(conn);
    if ((rv = parking_step(s, err)) == HS_WANT)
        return rv;
    if (rv == HS_OK)
        *ret_report = s->lingering->report;
    free(s->lingering);
    s->lingering = NULL;
    hs_conn_unref(conn);
    return rv;
}

/* ---- News ---------------------------------------------------------------------------------- */

/* HS_WANT: it waits on. */
static hs_err
tell_lingering(struct hs_spot *s, struct hs_parked_conn *ret)
{
    hs_err rv;

    drop_told(s);
    if ((rv = parking_step(s, NULL)) == HS_WANT)
        return rv;
    if (rv != HS_OK) /* Of what was sent nobody knows how far it came, unless it was closed here. */
        hs_conn_end(s->conn, rv == HS_E_CLOSED ? HS_END_ORDERLY : HS_END_ABORT);
    *ret = (struct hs_parked_conn){
        .conn = s->conn,
        .arg = s->arg,
        .news = HS_PARKED_FINISHED,
        .ending = rv == HS_OK ? s->lingering->report.ending : ending_of(rv),
        .closed_here = rv == HS_E_CLOSED,
    };
    free(s->lingering);
    s->lingering = NULL;
    return HS_OK;
}

static void
give_message(struct hs_spot *s, struct hs_parked_conn *ret)
{
    hs_delays_look(s->conn);
    s->given = true;
    s->rest = !s->more && atomic_load(&s->conn->buffered) > 0;
    s->read = bytes_read(s->conn);
    s->buffered = atomic_load(&s->conn->buffered);
    ret->news = HS_PARKED_MESSAGE;
}

static void
give_ended(struct hs_spot *s, hs_err how, struct hs_parked_conn *ret)
{
    ret->news = HS_PARKED_ENDED;
    ret->closed_here = how == HS_E_CLOSED;
    ret->ending = ending_of(how);
    if (how == HS_E_RESET || how == HS_E_DEAD_PEER)
        hs_conn_set_broken(s->conn, how);
    hs_conn_end(s->conn, HS_END_ORDERLY);
}

static void
give_retired(struct hs_spot *s, struct hs_parked_conn *ret)
{
    atomic_store(&s->conn->quiet.ended, HS_QUIET_FOR_LONG);
    ret->news = HS_PARKED_EXPIRED;
}

/* The one who was given s decides, unless the guard has taken it back. */
static bool
take_for_guard(struct hs_spot *s)
{
    int guard = WANTS_IT;

    return atomic_compare_exchange_strong(&s->guard, &guard, HAS_IT);
}

/* Of one that the caller was given. HS_WANT: there was nothing to be said, and it waits on. */
static hs_err
parking_tell(struct hs_spot *s, struct hs_parked_conn *ret)
{
    bool asked = !s->stays && atomic_load(&s->parking->draining), retired;
    hs_err rv;

    if (s->lingering != NULL)
        return tell_lingering(s, ret);
    rv = surely_has_data(s) ? HS_OK : parking_look(s);
    if (rv == HS_INTR && s->until_ns > hs_now()) { /* Others first. */
        hs_reactor_queue(s->parking->reactor, &s->parked);
        return HS_WANT;
    }
    if (rv == HS_WANT)
        drop_told(s);
    retired = (rv == HS_WANT || rv == HS_INTR) && !asked && take_for_guard(s);
    if (!retired)
        atomic_store(&s->guard, NO_GUARD);
    if (rv == HS_INTR)
        rv = HS_WANT;
    else if (rv == HS_WANT && s->parked.cause != HS_CAUSE_TIME && !asked && !retired &&
             wait_for_message(s, NULL) == HS_OK) /* Else there is no memory for more than it had. */
        return HS_WANT;
    *ret = (struct hs_parked_conn){.conn = s->conn, .arg = s->arg};
    if (rv == HS_OK)
        give_message(s, ret);
    else if (rv != HS_WANT)
        give_ended(s, rv, ret);
    else if (retired)
        give_retired(s, ret);
    else
        ret->news = asked ? HS_PARKED_QUIET : HS_PARKED_EXPIRED;
    return HS_OK;
}

hs_err
hs_parking_next(struct hs_parking *p, struct hs_error *err, struct hs_parked_conn *ret_parked)
{
    struct hs_reactor_counts counts;
    struct hs_parked *parked;
    hs_err rv;

    HS_CHECK(p, PARKING_MAGIC);
    do {
        if ((rv = hs_reactor_next(p->reactor, true, err, &parked)) != HS_OK)
            return rv;
    } while (parking_tell(HS_CONTAINER(parked, struct hs_spot, parked), ret_parked) == HS_WANT);
    hs_reactor_counts(p->reactor, &counts);
    ret_parked->alone = counts.sleeping == 0;
    return HS_OK;
}

/* HS_OK: some were given, or HS_INTR: it has only looked. HS_WANT: nothing is due. */
static hs_err
poll_due(struct hs_parking *p, size_t max, struct hs_error *err, struct hs_parked_conn *ret_parked,
         size_t *ret_n)
{
    struct hs_parked *parked;
    hs_err rv = HS_INTR;
    size_t n = 0;

    for (int i = 0; i < LOOKS && n < max; i++) {
        if ((rv = hs_reactor_poll(p->reactor, n == 0 ? err : NULL, &parked)) != HS_OK)
            break;
        rv = HS_INTR;
        if (parking_tell(HS_CONTAINER(parked, struct hs_spot, parked), &ret_parked[n]) == HS_OK)
            n++;
    }
    if (n == 0)
        return rv;
    *ret_n = n;
    return HS_OK;
}

hs_err
hs_parking_poll(struct hs_parking *p, struct hs_op *op, size_t max, struct hs_error *err,
                struct hs_parked_conn *ret_parked, size_t *ret_n)
{
    short revents;
    hs_err rv;

    HS_CHECK(p, PARKING_MAGIC);
    if ((rv = hs_op_begin(op, HS_NEVER, err)) != HS_OK)
        return rv;
    while ((rv = poll_due(p, max, err, ret_parked, ret_n)) == HS_WANT) {
        op->want_id = 0;
        if ((rv = hs_wait_op(op, hs_reactor_fileno(p->reactor), POLLIN, op->deadline_ns, HS_NEVER,
                             err, &revents)) != HS_OK)
            return rv;
    }
    return rv;
}

/* Goes once round: messages come behind those that came meanwhile, in their order. */
size_t
hs_parking_tend(struct hs_parking *p, size_t max, struct hs_parked_conn *ret_parked)
{
    struct hs_reactor_counts counts;
    struct hs_parked *parked;
    size_t n = 0, left;

    HS_CHECK(p, PARKING_MAGIC);
    hs_reactor_collect(p->reactor);
    hs_reactor_counts(p->reactor, &counts);
    for (left = counts.due; left > 0 && n < max; left--) {
        struct hs_spot *s;

        if (hs_reactor_next(p->reactor, false, NULL, &parked) != HS_OK)
            break;
        s = HS_CONTAINER(parked, struct hs_spot, parked);
        if (parking_tell(s, &ret_parked[n]) != HS_OK)
            continue;
        if (ret_parked[n].news != HS_PARKED_MESSAGE) {
            n++;
            continue;
        }
        s->known = true;
        hs_reactor_queue(p->reactor, parked);
    }
    return n;
}

void
hs_parking_drain(struct hs_parking *p)
{
    HS_CHECK(p, PARKING_MAGIC);
    atomic_store(&p->draining, true);
    hs_reactor_call_all(p->reactor);
}

static bool
is_older(const struct hs_parked *parked, const void *created_before_ns)
{
    const struct hs_spot *s = HS_CONTAINER(parked, const struct hs_spot, parked);

    return s->conn->created_ns < *(const int64_t *)created_before_ns;
}

bool
hs_parking_evict(struct hs_parking *p, int64_t silence_ns, struct hs_conn **ret_conn,
                 void **ret_arg)
{
    int64_t before = hs_now() - silence_ns;
    struct hs_parked *parked;

    HS_CHECK(p, PARKING_MAGIC);
    hs_reactor_collect(p->reactor);
    while ((parked = hs_reactor_take(p->reactor, SILENT, is_older, &before)) != NULL) {
        struct hs_spot *s = HS_CONTAINER(parked, struct hs_spot, parked);

        if (parking_look(s) == HS_WANT) {
            *ret_conn = s->conn;
            *ret_arg = s->arg;
            return true;
        }
        hs_reactor_queue(p->reactor, parked); /* There is news of it. */
    }
    return false;
}

bool
hs_parking_take(struct hs_parking *p, struct hs_conn **ret_conn, void **ret_arg, bool *ret_quiet)
{
    struct hs_parked *parked;
    struct hs_spot *s;

    HS_CHECK(p, PARKING_MAGIC);
    if ((parked = hs_reactor_take(p->reactor, KNOWN, NULL, NULL)) == NULL &&
        (parked = hs_reactor_take(p->reactor, SILENT, NULL, NULL)) == NULL &&
        hs_reactor_next(p->reactor, false, NULL, &parked) != HS_OK)
        return false;
    s = HS_CONTAINER(parked, struct hs_spot, parked);
    *ret_quiet = s->lingering == NULL && parking_look(s) == HS_WANT;
    if (s->lingering != NULL) {
        hs_conn_abandon(s->conn, &s->lingering->op, NULL);
        free(s->lingering);
        s->lingering = NULL;
    }
    *ret_conn = s->conn;
    *ret_arg = s->arg;
    return true;
}

void
hs_parking_counts(struct hs_parking *p, size_t *ret_parked, size_t *ret_due)
{
    struct hs_reactor_counts counts;

    HS_CHECK(p, PARKING_MAGIC);
    hs_reactor_collect(p->reactor);
    hs_reactor_counts(p->reactor, &counts);
    *ret_parked = counts.waiting;
    *ret_due = counts.due;
}
