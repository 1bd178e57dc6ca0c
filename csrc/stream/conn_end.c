/* conn_end.c: how a connection ends, or leaves us.
 *
 * shutdown and close act at once and never block; finish is the orderly end, which waits. conn_fd.c
 * hands the descriptor over.
 */
#include "conn_impl.h"
#include "guest.h"
#include "spot.h"
#include "roll.h"

#include "sockopt.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* How often an acknowledgement is looked for: the kernel has no event for it. */
#define ACK_LOOK_NS (10 * HS_NS_PER_MS)

/* ---- Half an end --------------------------------------------------------------------------- */

void
hs_conn_set_half_closed(struct hs_conn *c, int64_t span_ns)
{
    HS_CHECK(c, CONN_MAGIC);
    atomic_store(&c->half_closed_ns, span_ns);
}

/* Whether a TLS peer may be told that what it has is all: not in the middle of a message. */
static bool
is_whole(struct hs_conn *c)
{
    struct direction *out = &c->dirs[HS_DIR_OUT];

    return atomic_load(&out->user) != USER_CALL && atomic_load(&out->poison) == HS_OK &&
           atomic_load(&c->broken) == HS_OK;
}

/* In sequence numbers: an end that was sent, and is not acknowledged, counts as one. */
static size_t
unacknowledged(struct hs_conn *c)
{
    int n = 0;

    return hs_sys_ioctl(hs_fd_number(&c->fd), SIOCOUTQ, &n) == 0 && n > 0 ? (size_t)n : 0;
}

static bool
shut_down(struct hs_conn *c, int how)
{
    bool done;

    if (how == SHUT_RD)
        return hs_sys_shutdown(hs_fd_number(&c->fd), how) == 0;
    atomic_fetch_add(&c->fin_tries, 1);
    if ((done = hs_sys_shutdown(hs_fd_number(&c->fd), how) == 0))
        atomic_store(&c->fin_sent, true);
    atomic_fetch_sub(&c->fin_tries, 1);
    return done;
}

/* ENOTCONN: it is over. That a peer died may not have been told to anybody yet. Of one that both
 * sides had ended in good order nothing is left to be shut down, as was asked. */
static hs_err
over_already(struct hs_conn *c, struct hs_error *err)
{
    hs_err why = hs_conn_why_broken(c);

    if (why == HS_E_DEAD_PEER)
        return hs_err_setx(err, why, "shutdown", "%s", hs_err_text(why));
    if (why == HS_OK && hs_conn_may_have_ended(c) && unacknowledged(c) == 0)
        return HS_OK;
    return hs_err_set(err, HS_E_RESET, ENOTCONN, "shutdown", "shutdown");
}

/* 0, or errno. */
static int
end_ways(struct hs_conn *c, int how)
{
    int sys = 0;

    if (how != SHUT_RD) {
        atomic_store(&c->out_ended, true);
        if (c->tls != NULL)
            (void)hs_tls_say_goodbye(c->tls, is_whole(c), NULL);
    }
    if (!shut_down(c, how))
        sys = errno;
    else if (how == SHUT_WR)
        hs_half_closed(c, HS_DIR_IN);
    if (how != SHUT_RD)
        hs_wakelist_wake(&c->wakers); /* A unix socket does not tell its writers. */
    return sys;
}

/* The lease is let go before it is asked why it is over, which may have to be waited for
 * (resets.c): who returns it waits for those who have it. Nobody gets what was ended. */
hs_err
hs_conn_shutdown_kept(struct hs_conn *c, const struct hs_op *op, int how, struct hs_error *err)
{
    hs_err rv;
    int sys;

    if ((rv = hs_lease_hold(c, op, err)) != HS_OK)
        return rv;
    if ((rv = hs_fd_hold(&c->fd, err)) != HS_OK) {
        hs_lease_drop(c, op);
        return rv;
    }
    sys = end_ways(c, how);
    hs_lease_drop(c, op);
    if (sys != 0)
        rv = sys == ENOTCONN ? over_already(c, err)
                             : hs_err_set(err, HS_E_SYSTEM, sys, "shutdown", "shutdown");
    hs_fd_drop(&c->fd);
    return rv;
}

hs_err
hs_conn_ask_end(struct hs_conn *c, hs_err (*try_end)(struct hs_tls *, struct hs_error *, short *),
                struct hs_error *err, short *want)
{
    hs_ask_begin(c, HS_DIR_OUT);
    return hs_ask_end(c, HS_DIR_OUT, try_end(c->tls, err, want));
}

/* ---- Closing ------------------------------------------------------------------------------- */

static void
set_linger(struct hs_conn *c, bool abortive)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int fd = hs_fd_number(&c->fd);

    if (abortive)
        (void)hs_sys_setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    else if (atomic_load(&c->may_linger))
        hs_sockopt_never_block_close(fd);
}

/* A TLS peer may still send tickets, which a closed socket would answer with a reset; so may who is
 * between, when our stream is over on both sides, send the end of its own. Returns whether the peer
 * had sent data that nobody has read. */
static bool
say_goodbye(struct hs_conn *c, bool clean)
{
    struct hs_tls *below = hs_tls_below(c->tls);
    bool unread = false, ignored;
    int unsent = 0;

    if (hs_tls_say_goodbye(c->tls, clean, &unread) &&
        hs_sys_ioctl(hs_fd_number(&c->fd), SIOCOUTQ, &unsent) == 0 && unsent > 0)
        atomic_store(&c->fd.lingers, true);
    if (below != NULL && !unread && hs_conn_may_have_ended(c) && atomic_load(&c->broken) == HS_OK &&
        !hs_tls_ended(below, &ignored))
        atomic_store(&c->fd.lingers, true);
    return unread;
}

void
hs_conn_tell_guest(struct hs_conn *c)
{
    struct hs_conn_guest *guest = atomic_exchange(&c->guest, NULL);

    if (guest != NULL)
        guest->ended(guest, hs_fd_is_ours(&c->fd));
    hs_spot_ended(c->spot);
}

/* Does not call shutdown(2): the socket may be shared with another process (fork, a passed
 * descriptor), and ending it for that one is not ours to decide. Waking is done by the list. */
void
hs_conn_end(struct hs_conn *c, enum hs_end how)
{
    bool unread = false; /* above the kernel, which resets for what is below */

    HS_CHECK(c, CONN_MAGIC);
    hs_conn_remember_local(c);
    if (!hs_fd_mark_closed(&c->fd))
        return;
    hs_roll_ended(c);
    if (hs_fd_is_ours(&c->fd)) { /* A forked child only lets go of its copy of the number. */
        if (c->tls != NULL && how != HS_END_ABORT)
            unread = say_goodbye(c, how == HS_END_ORDERLY && is_whole(c));
        hs_resets_count_close(c, how == HS_END_ABORT, unread);
        set_linger(c, how == HS_END_ABORT || unread);
        hs_wakelist_wake(&c->wakers);
    }
    hs_fd_drop(&c->fd);
    hs_conn_tell_guest(c);
}

void
hs_conn_close(struct hs_conn *c, bool abortive)
{
    hs_conn_end(c, abortive ? HS_END_ABORT : HS_END_ORDERLY);
}

bool
hs_conn_is_closed(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    return hs_fd_is_closed(&c->fd);
}

/* ---- The orderly end ----------------------------------------------------------------------- */

static size_t
unacknowledged_bytes(struct hs_conn *c)
{
    size_t n = unacknowledged(c);

    return n > 0 && c->family != AF_UNIX && hs_conn_may_have_ended(c) ? n - 1 : n;
}

bool
hs_conn_is_settled(struct hs_conn *c)
{
    bool settled;

    HS_CHECK(c, CONN_MAGIC);
    if (atomic_load(&c->buffered) > 0 || hs_conn_has_unread(c) || hs_fd_look(&c->fd, NULL) != HS_OK)
        return false;
    settled = unacknowledged(c) == 0;
    hs_fd_look_end(&c->fd);
    return settled;
}

/* TLS has failed, and TCP may be whole: as when a peer that was sent half a record, and then the
 * end, answers with an alert. */
static bool
tls_is_lost(hs_err rv, struct hs_error *err)
{
    bool lost = rv == HS_E_TLS || rv == HS_E_CERTIFICATE;

    if (lost && err != NULL)
        *err = (struct hs_error){0};
    return lost;
}

static hs_err
end_tls(struct hs_conn *c, struct hs_op *op, struct hs_error *err)
{
    short want;
    hs_err rv;

    while ((rv = hs_conn_ask_end(c, hs_tls_try_end_all, err, &want)) == HS_WANT)
        if ((rv = hs_call_wait(c, op, HS_DIR_OUT, want, err)) != HS_OK)
            return rv;
    if (tls_is_lost(rv, err))
        return HS_OK; /* Nobody would listen. */
    return rv == HS_E_RESET ? hs_conn_judge_reset(c, err) : rv;
}

/* Says that no more comes. A connection that is broken already cannot be told so, and may still
 * hold what the peer had said. */
static hs_err
end_output(struct hs_conn *c, struct hs_op *op, struct hs_error *err)
{
    hs_err rv;

    if (c->tls != NULL && atomic_load(&c->dirs[HS_DIR_OUT].poison) == HS_OK &&
        !hs_conn_half_sent(c) && atomic_load(&c->broken) == HS_OK && /* Else it has not all. */
        (rv = end_tls(c, op, err)) != HS_OK)
        return rv;
    atomic_store(&c->out_ended, true);
    if (atomic_load(&c->fin_sent) || shut_down(c, SHUT_WR))
        return HS_OK;
    if (errno != ENOTCONN)
        return hs_err_set(err, HS_E_SYSTEM, errno, NULL, "shutdown");
    atomic_store(&c->out_ended, false);
    return HS_OK;
}

/* A reset or a death that came after the peer's orderly end: reading shows that end for ever, and
 * there is no event for it. An orderly end of both sides is in the same TCP state, but then ours
 * was sent and all of it acknowledged. */
static hs_err
check_broke(struct hs_conn *c, struct hs_error *err)
{
    if (hs_conn_tcp_is_closed(c) && (!hs_conn_may_have_ended(c) || unacknowledged(c) > 0) &&
        hs_conn_why_broken(c) == HS_OK)
        hs_conn_set_broken(c, HS_E_RESET);
    return hs_conn_check_broken(c, err);
}

/* TLS is lost, and with it the peer's stream; what is here of it goes past TLS: to close with any
 * of it unread would reset what the peer has not read yet. */
static hs_err
discard_lost(struct hs_conn *c, uint8_t *scratch, size_t size, struct hs_error *err, size_t *ret_n)
{
    short want;
    hs_err rv;

    hs_ask_begin(c, HS_DIR_IN);
    rv = hs_ask_end(
        c, HS_DIR_IN,
        hs_tcp_layer.try_recv(NULL, hs_fd_number(&c->fd), scratch, size, 0, err, &want, ret_n));
    return rv == HS_WANT || (rv == HS_OK && *ret_n == 0) ? HS_E_TRUNCATED : rv;
}

/* Reads to the peer's end and throws it away. */
static hs_err
discard_input(struct hs_conn *c, struct hs_op *op, struct hs_error *err)
{
    uint8_t scratch[16384];
    short want;
    size_t n;
    hs_err rv;

    for (unsigned round = 1;; round++) {
        rv = hs_ask_recv(c, scratch, sizeof(scratch), 0, err, &want, &n);
        if (tls_is_lost(rv, err))
            rv = discard_lost(c, scratch, sizeof(scratch), err, &n);
        if (rv == HS_OK && n == 0)
            return check_broke(c, err);
        if (rv == HS_OK)
            op->done += n;
        else if (rv != HS_WANT || (rv = hs_call_wait(c, op, HS_DIR_IN, want, err)) != HS_OK)
            return rv;
        if (round % SLICE_ROUNDS == 0)
            return HS_INTR;
    }
}

static hs_err
closed_meanwhile(struct hs_error *err)
{
    return hs_err_setx(err, HS_E_CLOSED, NULL, "it was closed during the call");
}

/* Nothing tells of an acknowledgement; a close rings. */
static hs_err
look_acknowledged(void *arg, struct hs_change *change)
{
    struct hs_conn *c = arg;

    change->until_ns = hs_deadline_after(ACK_LOOK_NS);
    return hs_fd_is_closed(&c->fd) || unacknowledged(c) == 0 ? HS_OK : HS_WANT;
}

/* What a peer leaves unread when it closes a unix socket goes with it: then nothing is left to be
 * acknowledged, and the error alone tells that it was not read. */
static hs_err
check_read(struct hs_conn *c, struct hs_error *err)
{
    socklen_t len = sizeof(int);
    int sys = 0;

    if (c->family == AF_UNIX &&
        hs_sys_getsockopt(hs_fd_number(&c->fd), SOL_SOCKET, SO_ERROR, &sys, &len) == 0 && sys != 0)
        hs_conn_set_broken(c, HS_E_RESET);
    return hs_conn_check_broken(c, err);
}

static hs_err
await_acknowledgement(struct hs_conn *c, struct hs_op *op, struct hs_error *err)
{
    struct hs_change change = {.list = &c->wakers, .look = look_acknowledged, .arg = c, .fd = -1};
    hs_err rv = HS_OK;

    change.deadline_ns = op->deadline_ns;
    while (rv == HS_OK && unacknowledged(c) > 0)
        if (hs_fd_is_closed(&c->fd))
            rv = closed_meanwhile(err);
        else if ((rv = check_broke(c, err)) == HS_OK)
            rv = hs_wait_change(op, &change, err);
    return rv == HS_OK ? check_read(c, err) : rv;
}

static hs_err
run_finish(struct hs_conn *c, struct hs_op *op, struct hs_error *err)
{
    hs_err rv, end;

    if (hs_fd_is_closed(&c->fd))
        return closed_meanwhile(err);
    /* 1. The peer is told that no more comes. */
    if ((rv = hs_call_check(c, op, HS_NEVER, err)) != HS_OK ||
        (rv = end_output(c, op, err)) != HS_OK)
        return rv;
    /* 2. Read to its end: closing with bytes unread would reset what it has not read yet. */
    end = discard_input(c, op, err);
    if (end != HS_OK && end != HS_E_TRUNCATED)
        return end;
    /* 3. Only an acknowledgement says that it all arrived. */
    rv = await_acknowledgement(c, op, err);
    return rv == HS_OK ? end : rv;
}

/* Which results are reports: then the connection is closed. */
static bool
as_ending(hs_err rv, enum hs_ending *ret_ending)
{
    switch (rv) {
    case HS_OK:
        *ret_ending = HS_ENDING_CLEAN;
        return true;
    case HS_E_DEADLINE:
        *ret_ending = HS_ENDING_DEADLINE;
        return true;
    case HS_E_RESET:
        *ret_ending = HS_ENDING_RESET;
        return true;
    case HS_E_DEAD_PEER:
        *ret_ending = HS_ENDING_DEAD_PEER;
        return true;
    case HS_E_TRUNCATED:
        *ret_ending = HS_ENDING_TRUNCATED;
        return true;
    default:
        return false;
    }
}

hs_err
hs_conn_finish(struct hs_conn *c, struct hs_op *op, struct hs_error *err,
               struct hs_close_report *ret_report)
{
    enum hs_ending ending;
    bool reported;
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    /* 1. Both directions: nobody reads or writes beside an end. */
    if ((rv = hs_call_claim(c, op, HS_DIR_IN, err)) != HS_OK)
        return hs_call_end(c, op, HS_DIR_IN, "finish", rv, err);
    if ((rv = hs_call_claim(c, op, HS_DIR_OUT, err)) != HS_OK)
        return hs_call_end(c, op, HS_DIR_IN, "finish", rv, err);
    /* 2. What was read ahead is thrown away as all that still comes, and counted. */
    op->done += hs_buf_len(&c->in.buf);
    hs_deframer_fini(&c->in);
    hs_input_changed(c);
    rv = run_finish(c, op, err);
    if (rv < 0 && err != NULL && err->phase == NULL)
        err->phase = "finish";
    if (rv == HS_INTR || rv == HS_WANT)
        return rv;
    /* 3. How the peer ended, or that it did not in time, is a report; the rest is an error. */
    if ((reported = as_ending(rv, &ending))) {
        *ret_report = (struct hs_close_report){
            .ending = ending, .unsent = unacknowledged_bytes(c), .discarded = op->done};
        if (err != NULL)
            *err = (struct hs_error){0};
        rv = HS_OK;
    } else if (op->done > 0) {
        (void)hs_conn_set_once(&c->dirs[HS_DIR_IN].poison,
                               rv); /* What was thrown away is missing. */
    }
    hs_call_release(c, op, HS_DIR_OUT);
    rv = hs_call_end(c, op, HS_DIR_IN, "finish", rv, err);
    if (reported)
        hs_conn_close(c, false);
    return rv;
}
