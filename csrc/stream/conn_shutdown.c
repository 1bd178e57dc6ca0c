/* conn_shutdown.c: the end of writing, or of both ways, as a call.
 *
 * Each takes a reference: a lease keeps the connection only until it is let go, and that is before
 * the call ends.
 */
#include "conn_impl.h"
#include "tls.h"

#include <sys/socket.h>

hs_err
hs_conn_shutdown_by(struct hs_conn *c, const struct hs_op *op, int how, struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
        return hs_err_setx(err, HS_E_INVALID, "shutdown",
                           "how must be SHUT_RD, SHUT_WR or SHUT_RDWR, got %d", how);
    (void)hs_conn_ref(c);
    rv = hs_conn_shutdown_kept(c, op, how, err);
    hs_conn_unref(c);
    return rv;
}

hs_err
hs_conn_shutdown(struct hs_conn *c, int how, struct hs_error *err)
{
    const struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);

    return hs_conn_shutdown_by(c, &op, how, err);
}

hs_err
hs_conn_close_write(struct hs_conn *c, struct hs_op *op, struct hs_error *err)
{
    short want;
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if (c->tls == NULL)
        return hs_conn_shutdown_by(c, op, SHUT_WR, err);
    if (atomic_load(&c->out_ended) && !hs_fd_is_closed(&c->fd))
        return HS_OK;
    if ((rv = hs_call_begin(c, op, HS_DIR_OUT, err)) == HS_OK)
        while ((rv = hs_conn_ask_end(c, hs_tls_try_end, err, &want)) == HS_WANT) {
            hs_conn_wake_reader(c);
            if ((rv = hs_call_wait(c, op, HS_DIR_OUT, want, err)) != HS_OK)
                break;
        }
    hs_conn_wake_reader(c);
    if (rv == HS_E_RESET)
        rv = hs_conn_judge_reset(c, err);
    if (rv == HS_OK) {
        atomic_store(&c->out_ended, true);
        hs_half_closed(c, HS_DIR_IN);
    }
    return hs_call_end(c, op, HS_DIR_OUT, "close_write", rv, err);
}
