/* conn_end.c: how a connection ends, or leaves us.
 *
 * shutdown and close act at once and never block; detach hands the descriptor over.
 */
#include "conn_impl.h"

#include "sockopt.h"

#include <errno.h>
#include <sys/socket.h>

hs_err
hs_conn_shutdown(struct hs_conn *c, int how, struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
        return hs_err_setx(err, HS_E_INVALID, "shutdown",
                           "how must be SHUT_RD, SHUT_WR or SHUT_RDWR, got %d", how);
    if ((rv = hs_fd_hold(&c->fd, err)) != HS_OK)
        return rv;
    if (how != SHUT_RD)
        atomic_store(&c->out_ended, true);
    if (shutdown(hs_fd_number(&c->fd), how) != 0)
        rv = hs_err_set(err, errno == ENOTCONN ? HS_E_RESET : HS_E_SYSTEM, errno, "shutdown",
                        "shutdown");
    hs_fd_drop(&c->fd);
    return rv;
}

static void
set_linger(struct hs_conn *c, bool abortive)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int fd = hs_fd_number(&c->fd);

    if (abortive)
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    else if (atomic_load(&c->may_linger))
        hs_sockopt_never_block_close(fd);
}

/* Does not call shutdown(2): the socket may be shared with another process (fork, a passed
 * descriptor), and ending it for that one is not ours to decide. Waking is done by the list. */
void
hs_conn_close(struct hs_conn *c, bool abortive)
{
    HS_CHECK(c, CONN_MAGIC);
    if (!hs_fd_mark_closed(&c->fd))
        return;
    if (hs_fd_is_ours(&c->fd)) { /* A forked child only lets go of its copy of the number. */
        set_linger(c, abortive);
        hs_wakelist_wake(&c->wakers);
    }
    hs_fd_drop(&c->fd);
}

hs_err
hs_conn_detach(struct hs_conn *c, struct hs_error *err, int *ret_fd)
{
    struct hs_op in = HS_OP_INIT(HS_NEVER, NULL), out = in;
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_call_claim(c, &in, HS_DIR_IN, err)) != HS_OK)
        return rv;
    if ((rv = hs_call_claim(c, &out, HS_DIR_OUT, err)) == HS_OK) {
        if (hs_buf_len(&c->inbuf) > 0)
            rv = hs_err_setx(err, HS_E_BUSY, "detach",
                             "%zu received bytes are buffered here and would be lost",
                             hs_buf_len(&c->inbuf));
        else
            rv = hs_fd_detach(&c->fd, 2, err, ret_fd);
        if (rv != HS_OK)
            hs_call_release(c, &out, HS_DIR_OUT);
    }
    if (rv != HS_OK)
        hs_call_release(c, &in, HS_DIR_IN);
    return rv;
}

bool
hs_conn_is_closed(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    return hs_fd_is_closed(&c->fd);
}
