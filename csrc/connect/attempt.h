/* attempt.h: one connect(2) to one address, and the TLS handshake over it, tried and never waited
 * for.
 *
 * The connector owns attempts and decides when each starts, is looked at again, or is called off.
 */
#ifndef HS_CONNECT_ATTEMPT_H
#define HS_CONNECT_ATTEMPT_H

#include "hardsock.h"
#include "../base/own_fd.h"

struct attempt {
    int fd;               /* owns until conn does; -1 when it has ended and was not taken */
    struct hs_conn *conn; /* owns; NULL before TLS */
    struct hs_op op;      /* of the handshake: stepped, without a deadline of its own */
    const struct hs_own_fd *epoll; /* borrows: where fd is watched, or NULL */
    unsigned changed;              /* options that the kernel made into something else */
    int tries;
    struct hs_addr local;    /* of the socket that is connected; len 0: not known */
    struct hs_sockopts own;  /* as this socket got them */
    struct hs_permit permit; /* the connector's: what its breaker said */
    struct hs_attempt log;
};

/* HS_OK: connected. HS_WANT: in progress, writable when it is settled; or with fd -1: try again
 * later (a full unix backlog tells no poller). Else it failed and log says where and why. */
hs_err hs_attempt_start(struct attempt *a, const struct hs_addr *addr,
                        const struct hs_connect_options *opts);
hs_err hs_attempt_settle(struct attempt *a, const struct hs_connect_options *opts);
/* Called off, or out of time: closes it; a soft error that the kernel noted is kept. */
void hs_attempt_stop(struct attempt *a);
/* After HS_OK of the two above, when TLS is wanted: begins it, or goes on with it. HS_WANT: a->op
 * says for what. Else log and *err say why. */
hs_err hs_attempt_handshake(struct attempt *a, const struct hs_connect_options *opts,
                            struct hs_error *err);
/* The winner's connection becomes the caller's. */
HS_NODISCARD hs_err hs_attempt_take(struct attempt *a, struct hs_error *err,
                                    struct hs_conn **ret_conn);

#endif
