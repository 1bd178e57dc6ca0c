/* conn_tls.c: a connection's change to TLS, and questions about it.
 *
 * The handshake claims both directions, so nobody reads or writes beside it, and keeps them between
 * its steps. c->tls is set when it begins and stays until the connection is freed: a close in the
 * middle finds it. c->layer changes when it has ended well; until then, and for ever if it does
 * not, reading and writing are poisoned: nothing plain may pass for something protected
 * (CVE-2023-40217).
 *
 * TLS within TLS (a target behind an HTTPS proxy): c->tls becomes the inner one, which owns the
 * outer; who asks c->tls meanwhile may have got the outer one still, which lives as long.
 */
#include "conn.h"
#include "conn_impl.h"

#include "../base/addr.h"
#include "../base/spans.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <linux/sockios.h>
#include <stdio.h>
#include <sys/ioctl.h>

/* A record at least, so that one try takes what it has to. */
#define REQUEST_PIECE ((size_t)16384)

static void
poison_both(struct hs_conn *c, hs_err why)
{
    (void)hs_conn_set_once(&c->dirs[HS_DIR_IN].poison, why);
    (void)hs_conn_set_once(&c->dirs[HS_DIR_OUT].poison, why);
}

void
hs_conn_tls_abandoned(struct hs_conn *c)
{
    if (!c->handshaking)
        return;
    c->handshaking = false;
    c->handshake_until_ns = HS_NEVER;
    poison_both(c, HS_E_CANCELLED);
}

/* Who was promised TLS must not go on without. Only the caller's mistakes cost nothing. */
static bool
poisons(hs_err rv)
{
    switch (rv) {
    case HS_E_INVALID:
    case HS_E_BUSY:
    case HS_E_FORKED:
        return false;
    default:
        return true;
    }
}

static hs_err
conn_tls_refuse(struct hs_error *err, enum hs_tls_failure failure, const char *why)
{
    (void)hs_err_setx(err, HS_E_TLS, NULL, "%s", why);
    if (err != NULL)
        err->tls = failure;
    return HS_E_TLS;
}

/* Reset, or dead, before the handshake began. What it had sent before that is in the queue. */
static hs_err
has_left(struct hs_conn *c, struct hs_error *err)
{
    bool dead = hs_conn_why_broken(c) == HS_E_DEAD_PEER;
    int unread = 0;
    hs_err rv = dead ? hs_conn_check_broken(c, err)
                     : hs_err_setx(err, HS_E_RESET, NULL, "the peer has left");

    (void)hs_sys_ioctl(hs_fd_number(&c->fd), SIOCINQ, &unread);
    if (err != NULL) {
        err->phase = "tls";
        err->tls = dead || unread > 0 ? HS_TLS_RESET : HS_TLS_EMPTY;
    }
    return rv;
}

/* What must be so before the first byte of a handshake. */
static hs_err
check_upgradable(struct hs_conn *c, struct hs_error *err)
{
    struct hs_addr peer = {.len = sizeof(peer.storage)};
    hs_err rv;

    if (hs_tls_below(c->tls) != NULL)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "the connection speaks TLS within TLS already: there is no third layer");
    if ((rv = hs_conn_check_poison(c, HS_DIR_IN, err)) != HS_OK ||
        (rv = hs_conn_check_poison(c, HS_DIR_OUT, err)) != HS_OK ||
        (rv = hs_conn_check_broken(c, err)) != HS_OK)
        return rv;
    if (atomic_load(&c->out_ended))
        return hs_err_setx(err, HS_E_CLOSED, NULL, "%s", hs_ended_here);
    if (hs_conn_half_sent(c))
        return hs_err_setx(err, HS_E_POISONED, NULL,
                           "a TLS record of an earlier send is half out: no TLS can begin within");
    if (hs_sys_getpeername(hs_fd_number(&c->fd), &peer.sa, &peer.len) != 0)
        return has_left(c, err);
    return HS_OK;
}

/* A record of a ClientHello (RFC 8446 section 5.1), as far as it is here. */
static bool
begins_handshake(const struct hs_buf *buf)
{
    uint8_t head[6];
    size_t n = hs_buf_peek(buf, head, sizeof(head));

    return head[0] == 22 && (n < 2 || head[1] == 3) && (n < 3 || head[2] <= 4) &&
           (n < 6 || head[5] == 1);
}

/* What a server has read ahead goes through TLS, as what the kernel still holds will: it can be the
 * client's first message or fail the handshake, and never pass for something protected. Anything
 * else is refused by name. A client has nothing to read before it has spoken. */
static hs_err
check_ahead(struct hs_conn *c, struct hs_tls_config *config, bool read_ahead, struct hs_error *err)
{
    if (hs_buf_len(&c->in.buf) == 0 && !hs_deframer_skipping(&c->in))
        return HS_OK;
    if (!read_ahead || hs_tls_config_role(config) != HS_TLS_SERVER ||
        hs_deframer_skipping(&c->in) || !begins_handshake(&c->in.buf))
        return conn_tls_refuse(
            err, HS_TLS_PLAINTEXT,
            "bytes that came before TLS began are still unread: read them first, or "
            "somebody in the middle put them there");
    return HS_OK;
}

static void
conn_tls_hand_over(struct hs_conn *c, struct hs_tls *tls)
{
    hs_tls_hand_over(tls, &c->in.buf);
    hs_deframer_touched(&c->in);
    hs_input_changed(c);
}

static hs_err
begin_tls(struct hs_conn *c, struct hs_tls_config *config, const char *server_name, bool read_ahead,
          struct hs_error *err)
{
    char peer[HS_ADDR_TEXT_SIZE], where[sizeof("within ") + HS_ADDR_TEXT_SIZE];
    struct hs_tls *tls;
    hs_err rv;

    /* 1. Bytes that came before the handshake are refused, unless the caller read them ahead. */
    if ((rv = check_upgradable(c, err)) != HS_OK ||
        (rv = check_ahead(c, config, read_ahead, err)) != HS_OK)
        return rv;
    /* 2. The layer: above the socket, or above the TLS that is there already. */
    (void)hs_addr_text(hs_conn_peer(c), peer, sizeof(peer));
    (void)snprintf(where, sizeof(where), "%s%s", c->tls != NULL ? "within " : "", peer);
    if ((rv = hs_tls_new(config, hs_fd_number(&c->fd), c->tls, server_name, where, err, &tls)) !=
        HS_OK)
        return rv;
    if (hs_buf_len(&c->in.buf) > 0)
        conn_tls_hand_over(c, tls);
    /* 3. From here on a failure poisons: the hello may be out. */
    c->handshake_until_ns = hs_deadline_after(hs_tls_handshake_timeout(tls));
    c->handshaking_since_ns = hs_now();
    c->handshaking = true;
    atomic_store(&c->tls, tls);
    return HS_OK;
}

static hs_err
run_handshake(struct hs_conn *c, struct hs_op *op, struct hs_error *err)
{
    short want;
    hs_err rv;

    while ((rv = hs_tls_try_handshake(c->tls, err, &want)) == HS_WANT)
        if ((rv = hs_call_wait(c, op, HS_DIR_IN, want, err)) != HS_OK)
            break;
    return rv;
}

/* A deadline that was the handshake's own says so. */
static void
name_failure(struct hs_conn *c, const struct hs_op *op, hs_err rv, struct hs_error *err)
{
    if (err == NULL)
        return;
    if (rv == HS_E_DEADLINE && c->handshake_until_ns < op->deadline_ns &&
        c->handshake_until_ns <= hs_now()) {
        *err = (struct hs_error){0};
        (void)hs_err_setx(err, rv, NULL, "the TLS handshake took longer than %g s",
                          (double)hs_tls_handshake_timeout(c->tls) / (double)HS_NS_PER_S);
    }
    err->phase = "tls";
    if (err->tls == HS_TLS_NONE)
        err->tls = rv == HS_E_DEADLINE                        ? HS_TLS_TIMEOUT
                   : rv == HS_E_RESET || rv == HS_E_DEAD_PEER ? HS_TLS_RESET
                                                              : HS_TLS_LOCAL;
}

static hs_err
run_tls(struct hs_conn *c, struct hs_op *op, struct hs_tls_config *config, const char *server_name,
        bool read_ahead, struct hs_error *err)
{
    hs_err rv;

    if (hs_fd_is_closed(&c->fd))
        return hs_err_setx(err, HS_E_CLOSED, NULL, "it was closed during the call");
    if ((rv = hs_op_begin(op, HS_NEVER, err)) != HS_OK)
        return rv;
    if (!c->handshaking && (rv = begin_tls(c, config, server_name, read_ahead, err)) != HS_OK)
        return rv;
    return run_handshake(c, op, err);
}

static hs_err
start_tls(struct hs_conn *c, struct hs_op *op, struct hs_tls_config *config,
          const char *server_name, bool read_ahead, struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    /* 1. Both directions: a handshake reads and writes, and nobody may come between. */
    if ((rv = hs_call_claim(c, op, HS_DIR_IN, err)) != HS_OK ||
        (rv = hs_call_claim(c, op, HS_DIR_OUT, err)) != HS_OK)
        return hs_call_end(c, op, HS_DIR_IN, "upgrade_to_tls", rv, err);
    /* 2. As far as the bytes and the time go. Until it ends the claims are kept. */
    rv = run_tls(c, op, config, server_name, read_ahead, err);
    if (rv == HS_INTR || rv == HS_WANT)
        return rv;
    /* 3. Secured: all calls go through TLS from now on. Failed: nobody may go on in plain text. */
    if (rv == HS_OK) {
        c->layer = &hs_tls_layer;
        hs_span_add(HS_SPAN_HANDSHAKE, hs_now() - c->handshaking_since_ns);
    } else if (c->handshaking) {
        name_failure(c, op, rv, err);
    }
    if (rv != HS_OK && (c->handshaking || poisons(rv)))
        poison_both(c, rv);
    c->handshaking = false;
    c->handshake_until_ns = HS_NEVER;
    hs_call_release(c, op, HS_DIR_OUT);
    return hs_call_end(c, op, HS_DIR_IN, "upgrade_to_tls", rv, err);
}

hs_err
hs_conn_start_tls(struct hs_conn *c, struct hs_op *op, struct hs_tls_config *config,
                  const char *server_name, struct hs_error *err)
{
    return start_tls(c, op, config, server_name, false, err);
}

hs_err
hs_conn_start_tls_read_ahead(struct hs_conn *c, struct hs_op *op, struct hs_tls_config *config,
                             const char *server_name, struct hs_error *err)
{
    return start_tls(c, op, config, server_name, true, err);
}

hs_err
hs_conn_confirm(struct hs_conn *c, struct hs_op *op, struct hs_error *err)
{
    short want;
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_call_begin(c, op, HS_DIR_IN, err)) == HS_OK) {
        if (c->layer != &hs_tls_layer)
            rv = hs_err_setx(err, HS_E_INVALID, NULL, "a plain connection has nothing to confirm");
        else if (hs_buf_len(&c->in.buf) == 0)
            while ((rv = hs_tls_try_confirm(c->tls, err, &want)) == HS_WANT)
                if ((rv = hs_call_wait(c, op, HS_DIR_IN, want, err)) != HS_OK)
                    break;
    }
    return hs_call_end(c, op, HS_DIR_IN, "confirm", rv, err);
}

/* ---- The client's certificate, later ------------------------------------------------------- */

/* What comes before the answer is the application's: it is kept for it. */
static hs_err
take_ahead(struct hs_conn *c, struct hs_error *err, short *want)
{
    uint8_t *room;
    size_t n = 0;
    hs_err rv;

    if (hs_buf_len(&c->in.buf) >= HS_TLS_REQUEST_AHEAD)
        return conn_tls_refuse(err, HS_TLS_PROTOCOL,
                               "more bytes came before the client's certificate than are kept: "
                               "receive them, and call again");
    if (hs_buf_reserve(&c->in.buf, REQUEST_PIECE, &room) != HS_OK)
        return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for received bytes");
    rv = hs_input_try(c, room, REQUEST_PIECE, err, want, &n);
    if (rv == HS_OK && n > 0)
        hs_buf_commit(&c->in.buf, n);
    else
        hs_buf_trim(&c->in.buf);
    if (rv == HS_OK && n > 0)
        hs_input_changed(c);
    if (rv == HS_OK && n == 0)
        return hs_err_setx(err, HS_E_TRUNCATED, NULL,
                           "the client ended its stream before it showed a certificate");
    return rv;
}

static hs_err
await_answer(struct hs_conn *c, struct hs_op *op, struct hs_error *err)
{
    bool has = hs_tls_take_answer(c->tls); /* It came in with what somebody received. */
    short want;
    hs_err rv = HS_OK;

    for (unsigned round = 1; !has && rv == HS_OK; round++) {
        rv = take_ahead(c, err, &want);
        if ((has = hs_tls_take_answer(c->tls))) /* What came behind it is told by who receives. */
            break;
        if (rv == HS_WANT)
            rv = hs_call_wait(c, op, HS_DIR_IN, want, err);
        if (rv == HS_OK && round % SLICE_ROUNDS == 0)
            rv = HS_INTR;
    }
    if (has && rv < 0 && err != NULL)
        *err = (struct hs_error){0};
    return has ? HS_OK : rv;
}

static hs_err
run_request(struct hs_conn *c, struct hs_op *op, bool required, bool wait, struct hs_error *err)
{
    short want;
    hs_err rv;

    if (c->layer != &hs_tls_layer)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "a plain connection has no certificates: nothing can be asked for");
    while ((rv = hs_tls_try_request(c->tls, required, err, &want)) == HS_WANT)
        if ((rv = hs_call_wait(c, op, HS_DIR_OUT, want, err)) != HS_OK)
            break;
    return rv == HS_OK && wait ? await_answer(c, op, err) : rv;
}

hs_err
hs_conn_request_certificate(struct hs_conn *c, struct hs_op *op, bool required, bool wait,
                            struct hs_error *err)
{
    hs_err rv;

    HS_CHECK(c, CONN_MAGIC);
    if ((rv = hs_call_begin(c, op, HS_DIR_IN, err)) == HS_OK &&
        (rv = hs_call_begin(c, op, HS_DIR_OUT, err)) == HS_OK)
        rv = run_request(c, op, required, wait, err);
    if (rv == HS_INTR || rv == HS_WANT)
        return rv;
    if ((op->claim & (1U << HS_DIR_OUT)) != 0)
        hs_call_release(c, op, HS_DIR_OUT);
    return hs_call_end(c, op, HS_DIR_IN, "request_client_certificate", rv, err);
}

bool
hs_conn_tls_has_heard(struct hs_conn *c)
{
    HS_CHECK(c, CONN_MAGIC);
    return c->tls != NULL && hs_tls_has_heard(c->tls);
}

/* ---- Asking -------------------------------------------------------------------------------- */

/* tls is there from the first step of a handshake on; only its end makes it worth asking. */
static struct hs_tls *
open_tls(struct hs_conn *c)
{
    struct hs_tls *tls = c->tls;

    HS_CHECK(c, CONN_MAGIC);
    if (tls == NULL || !hs_fd_is_ours(&c->fd)) /* In a forked child a lost thread may be in it. */
        return NULL;
    return hs_tls_is_handshaken(tls) ? tls : NULL;
}

bool
hs_conn_tls_info(struct hs_conn *c, struct hs_tls_info *ret_info)
{
    struct hs_tls *tls = open_tls(c);

    if (tls != NULL)
        hs_tls_get_info(tls, ret_info);
    return tls != NULL;
}

size_t
hs_conn_pending(struct hs_conn *c, bool *ret_ready)
{
    size_t n = atomic_load(&c->buffered);
    struct hs_tls *tls = open_tls(c);
    bool ready = false;

    if (tls != NULL && hs_call_visit(c, HS_DIR_IN)) {
        n += hs_tls_pending(tls, &ready);
        hs_call_leave(c, HS_DIR_IN);
    }
    *ret_ready = ready || n > 0;
    return n;
}

size_t
hs_conn_tls_chain_length(struct hs_conn *c)
{
    struct hs_tls *tls = open_tls(c);

    return tls != NULL ? hs_tls_chain_length(tls) : 0;
}

hs_err
hs_conn_tls_chain_copy(struct hs_conn *c, size_t i, uint8_t **ret_der, size_t *ret_len)
{
    struct hs_tls *tls = open_tls(c);

    return tls != NULL ? hs_tls_chain_copy(tls, i, ret_der, ret_len) : HS_E_INVALID;
}

/* ---- Deriving ------------------------------------------------------------------------------ */

static hs_err
no_tls(struct hs_error *err)
{
    return hs_err_setx(err, HS_E_INVALID, NULL,
                       "the connection speaks no TLS: there is nothing to derive from");
}

hs_err
hs_conn_tls_export(struct hs_conn *c, const struct hs_tls_exported *what, uint8_t *out, size_t len,
                   struct hs_error *err)
{
    struct hs_tls *tls = open_tls(c);

    return tls != NULL ? hs_tls_export(tls, what, out, len, err) : no_tls(err);
}

hs_err
hs_conn_tls_binding(struct hs_conn *c, enum hs_tls_binding kind, uint8_t out[HS_TLS_BINDING_MAX],
                    size_t *ret_len, struct hs_error *err)
{
    struct hs_tls *tls = open_tls(c);

    return tls != NULL ? hs_tls_binding(tls, kind, out, ret_len, err) : no_tls(err);
}
