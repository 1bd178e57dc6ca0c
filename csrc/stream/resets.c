/* resets.c: how a connection broke, and counting who resets whom.
 *
 * The kernel tells once why a TCP is over, to the one who asks first: a try to move bytes, or
 * SO_ERROR. All others find an end, or EPIPE. So who asks says so before (asks, asking), and takes
 * that back when c->broken has what it was told; who has found no more than an end waits until
 * nobody asks, and looks then. The kernel's lock of the socket orders the two: what was
 * stored before a question that was answered is seen by who has asked after it. Asking waits for
 * nothing but its thread's turn and one read of a file (sendfile, MAX_FILE_CHUNK in tcp.c), which a
 * disk may not answer: that is why there is an end to it, PATIENCE_NS, after which others go on.
 *
 * A reset that nobody meant shows here: bytes that nobody had read, or SO_LINGER.
 */
#include "conn_impl.h"
#include "roll.h"
#include "sockopt.h"

#include "../base/recorder.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define PATIENCE_NS HS_NS_PER_S

static struct {
    _Atomic uint64_t by_peer, dead_peer, by_abort, by_linger, by_unread;
} resets;

static void
resets_add(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

void
hs_conn_set_broken(struct hs_conn *c, hs_err code)
{
    bool dead = code == HS_E_DEAD_PEER;

    if (!hs_conn_set_once(&c->broken, code))
        return;
    resets_add(dead ? &resets.dead_peer : &resets.by_peer);
    hs_roll_note(c, dead ? HS_EVENT_DEAD_PEER : HS_EVENT_RESET, code, hs_now() - c->created_ns);
}

hs_err
hs_ask_end(struct hs_conn *c, enum hs_dir dir, hs_err rv)
{
    if (rv == HS_E_DEAD_PEER)
        hs_conn_set_broken(c, rv);
    atomic_store_explicit(&c->dirs[dir].asks, false, memory_order_release);
    return rv;
}

/* A try of TCP that brings less than there is room for has brought all (epoll(7), question 9), but
 * for urgent data, of which the loop is told. A unix socket stops where ancillary data begins, an
 * injected fault anywhere, and of MPTCP nobody has promised it. */
static bool
takes_all(const struct hs_conn *c)
{
    return c->tls == NULL && (c->family == AF_INET || c->family == AF_INET6) && !c->mptcp &&
           !hs_faults_are_on();
}

hs_err
hs_ask_recv(struct hs_conn *c, uint8_t *buf, size_t len, int flags, struct hs_error *err,
            short *want, size_t *ret_n)
{
    hs_err rv;

    hs_ask_begin(c, HS_DIR_IN);
    rv = hs_ask_end(
        c, HS_DIR_IN,
        c->layer->try_recv(c->tls, hs_fd_number(&c->fd), buf, len, flags, err, want, ret_n));
    c->drained = rv == HS_OK && takes_all(c) && flags == 0 && *ret_n > 0 && *ret_n < len;
    return rv;
}

/* While TCP goes on, what is said of the way is a remark (sk_err_soft): it may be there again. */
static bool
is_over_by(struct hs_conn *c, int sys)
{
    hs_err told = hs_tcp_meaning(sys);

    if (told == HS_E_DEAD_PEER && sys != ETIMEDOUT)
        return hs_conn_tcp_is_closed(c);
    return told == HS_E_DEAD_PEER || told == HS_E_RESET;
}

void
hs_ask_aside_begin(struct hs_conn *c)
{
    atomic_fetch_add(&c->asking, 1);
}

void
hs_ask_aside_end(struct hs_conn *c, int sys)
{
    if (sys != 0 && is_over_by(c, sys))
        hs_conn_set_broken(c, hs_tcp_meaning(sys));
    atomic_fetch_sub(&c->asking, 1);
}

int
hs_ask_error(struct hs_conn *c, void *value, socklen_t *len)
{
    socklen_t own = sizeof(int);
    int rv, sys = 0;

    hs_ask_aside_begin(c);
    rv = hs_sys_getsockopt(hs_fd_number(&c->fd), SOL_SOCKET, SO_ERROR, &sys, &own);
    hs_ask_aside_end(c, rv == 0 ? sys : 0);
    if (rv == 0) {
        *len = *len < own ? *len : own;
        memcpy(value, &sys, *len);
    }
    return rv;
}

static bool
somebody_asks(const struct hs_conn *c)
{
    return atomic_load(&c->asking) > 0 ||
           atomic_load_explicit(&c->dirs[HS_DIR_IN].asks, memory_order_acquire) ||
           atomic_load_explicit(&c->dirs[HS_DIR_OUT].asks, memory_order_acquire);
}

hs_err
hs_conn_why_broken(struct hs_conn *c)
{
    struct hs_tls *tls = c->tls;
    socklen_t len = sizeof(int);
    int64_t until_ns;
    int ignored; /* What it says is noted. */

    (void)hs_ask_error(c, &ignored, &len);
    until_ns = hs_deadline_after(PATIENCE_NS);
    while (atomic_load(&c->broken) == HS_OK && somebody_asks(c) && hs_now() < until_ns)
        (void)sched_yield();
    if (tls != NULL && hs_tls_told_dead(tls)) /* and told nobody: at a close, or in an alert */
        hs_conn_set_broken(c, HS_E_DEAD_PEER);
    return atomic_load(&c->broken);
}

hs_err
hs_conn_judge_reset(struct hs_conn *c, struct hs_error *err)
{
    if ((err != NULL && err->sys != EPIPE) || hs_conn_why_broken(c) != HS_E_DEAD_PEER)
        return HS_E_RESET;
    if (err != NULL)
        *err = (struct hs_error){0};
    return hs_conn_check_broken(c, err);
}

void
hs_reset_counts(struct hs_reset_counts *ret_counts)
{
    *ret_counts = (struct hs_reset_counts){
        .by_peer = resets.by_peer,
        .dead_peer = resets.dead_peer,
        .by_abort = resets.by_abort,
        .by_linger = resets.by_linger,
        .by_unread = resets.by_unread,
    };
}

/* A connection that never moved a byte is not asked for unread ones: it costs a system call, which
 * shows in the time of a bare connect and close. */
void
hs_resets_count_close(struct hs_conn *c, bool abortive, bool unread_above)
{
    bool used = atomic_load_explicit(&c->dirs[HS_DIR_IN].bytes, memory_order_relaxed) > 0 ||
                atomic_load_explicit(&c->dirs[HS_DIR_OUT].bytes, memory_order_relaxed) > 0;
    int unread = 0;

    if (c->family == AF_UNIX || atomic_load(&c->broken) != HS_OK)
        return;
    if (abortive)
        resets_add(&resets.by_abort);
    else if (c->opts.linger_s == 0 ||
             (atomic_load(&c->may_linger) && hs_sockopt_resets_on_close(hs_fd_number(&c->fd))))
        resets_add(&resets.by_linger);
    else if (unread_above ||
             (used && hs_sys_ioctl(hs_fd_number(&c->fd), SIOCINQ, &unread) == 0 && unread > 0))
        resets_add(&resets.by_unread);
}
