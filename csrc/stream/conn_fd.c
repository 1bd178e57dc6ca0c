/* conn_fd.c: the descriptor below a connection, handed over or shared.
 *
 * Only a plain connection can: what is below TLS is of no use to anybody else. Nor can one that
 * holds bytes which the other would never see.
 */
#include "conn.h"

#include "conn_impl.h"
#include "delays.h"
#include "roll.h"
#include "departures.h"

#include "../base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Both directions claimed. */
static hs_err
check_whole(struct hs_conn *c, const char *op, struct hs_error *err)
{
    if (c->tls != NULL)
        return hs_err_setx(err, HS_E_INVALID, op,
                           "the bytes below TLS are of no use to anybody else");
    if (hs_buf_len(&c->in.buf) > 0)
        return hs_err_setx(err, HS_E_BUSY, op,
                           "%zu received bytes are buffered here and would be lost",
                           hs_buf_len(&c->in.buf));
    if (hs_deframer_skipping(&c->in))
        return hs_err_setx(err, HS_E_BUSY, op,
                           "a frame is being skipped here, and its rest is still to come");
    return HS_OK;
}

static hs_err
claim_both(struct hs_conn *c, struct hs_op *op, struct hs_error *err)
{
    hs_err rv;

    *op = (struct hs_op)HS_OP_INIT(HS_NEVER, NULL);
    if ((rv = hs_call_claim(c, op, HS_DIR_IN, err)) != HS_OK)
        return rv;
    if ((rv = hs_call_claim(c, op, HS_DIR_OUT, err)) != HS_OK)
        hs_call_release(c, op, HS_DIR_IN);
    return rv;
}

static void
release_both(struct hs_conn *c, struct hs_op *op)
{
    hs_call_release(c, op, HS_DIR_OUT);
    hs_call_release(c, op, HS_DIR_IN);
}

hs_err
hs_conn_detach(struct hs_conn *c, struct hs_error *err, int *ret_fd)
{
    struct hs_op op;
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = claim_both(c, &op, err)) != HS_OK)
        return rv;
    hs_conn_remember_local(c);
    if ((rv = check_whole(c, "detach", err)) != HS_OK ||
        (rv = hs_fd_detach(&c->fd, 2, err, ret_fd)) != HS_OK) {
        release_both(c, &op);
        return rv;
    }
    hs_delays_end(c, *ret_fd);
    hs_roll_ended(c);
    hs_departures_given_away(c);
    hs_conn_tell_guest(c);
    return HS_OK;
}

/* What is known about the stream is true of the second as well. */
static hs_err
wrap_second(struct hs_conn *c, int fd, struct hs_error *err, struct hs_conn **ret_conn)
{
    struct hs_conn *second;
    hs_err rv;

    if ((rv = hs_conn_wrap(fd, c->family, hs_conn_peer(c), NULL, &c->opts, c->changed, err,
                           &second)) != HS_OK)
        return rv;
    second->fd.was_blocking = c->fd.was_blocking;
    second->may_linger = true;
    second->mptcp = c->mptcp;
    hs_delays_share(c, second);
    second->broken = atomic_load(&c->broken);
    second->out_ended = atomic_load(&c->out_ended);
    second->fin_sent = atomic_load(&c->fin_sent);
    for (int dir = HS_DIR_IN; dir <= HS_DIR_OUT; dir++)
        second->dirs[dir].poison = atomic_load(&c->dirs[dir].poison);
    *ret_conn = second;
    return HS_OK;
}

hs_err
hs_conn_dup(struct hs_conn *c, struct hs_error *err, struct hs_conn **ret_conn)
{
    struct hs_op op;
    int fd = -1;
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = claim_both(c, &op, err)) != HS_OK)
        return rv;
    if ((rv = check_whole(c, "dup", err)) == HS_OK) {
        if ((fd = hs_sys_fcntl(hs_fd_number(&c->fd), F_DUPFD_CLOEXEC, 3)) < 0)
            rv = hs_err_set(err, HS_E_SYSTEM, errno, "dup", "dup");
        else if ((rv = wrap_second(c, fd, err, ret_conn)) != HS_OK)
            (void)close(fd);
    }
    release_both(c, &op);
    return rv;
}

hs_err
hs_conn_get_inheritable(struct hs_conn *c, struct hs_error *err, bool *ret_inheritable)
{
    int flags;
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_fd_look(&c->fd, err)) != HS_OK)
        return rv;
    if ((flags = hs_sys_fcntl(hs_fd_number(&c->fd), F_GETFD, 0)) < 0)
        rv = hs_err_set(err, HS_E_SYSTEM, errno, "get_inheritable", "fcntl");
    else
        *ret_inheritable = (flags & FD_CLOEXEC) == 0;
    hs_fd_look_end(&c->fd);
    return rv;
}

hs_err
hs_conn_set_inheritable(struct hs_conn *c, bool inheritable, struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_fd_look(&c->fd, err)) != HS_OK)
        return rv;
    if (hs_sys_fcntl(hs_fd_number(&c->fd), F_SETFD, inheritable ? 0 : FD_CLOEXEC) != 0)
        rv = hs_err_set(err, HS_E_SYSTEM, errno, "set_inheritable", "fcntl");
    else
        atomic_store(&c->fd.inheritable, inheritable);
    hs_fd_look_end(&c->fd);
    return rv;
}
