/* conn.h: what connecting and listening need of connections beyond hardsock.h.
 *
 * They hand over sockets that are set up already; everybody else adopts.
 */
#ifndef HS_STREAM_CONN_H
#define HS_STREAM_CONN_H

#include "hardsock_binding.h"

#include "guest.h"

/* Wraps a connected, non-blocking, close-on-exec socket whose options were applied and which was
 * found to differ from what was asked in `changed` places. local: its own address, which nobody
 * then has to ask for; NULL or len 0: not known. Takes fd, but not on failure. */
HS_NODISCARD hs_err hs_conn_wrap(int fd, int family, const struct hs_addr *peer,
                                 const struct hs_addr *local, const struct hs_sockopts *opts,
                                 unsigned changed, struct hs_error *err, struct hs_conn **ret_conn);
/* The client behind the proxy that conn's peer is. Nobody else may use c yet. HS_E_NOMEM. */
HS_NODISCARD hs_err hs_conn_set_client(struct hs_conn *c, const struct hs_addr *client,
                                       struct hs_error *err);
/* One at most. Nobody else may use c yet. */
void hs_conn_set_guest(struct hs_conn *c, struct hs_conn_guest *guest);
/* It is one of MPTCP, though nobody asked for that. Nobody else may use c yet. */
void hs_conn_set_mptcp(struct hs_conn *c);
long hs_conn_live(void);
/* In a handshake: whether a byte of the peer's has come. */
bool hs_conn_tls_has_heard(struct hs_conn *c);

#endif
