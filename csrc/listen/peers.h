/* peers.h: how many connections one stranger may have, and how fast.
 *
 * A stranger is an IPv4 address or an IPv6 /64, which is what one subscriber has; neighbours are an
 * IPv4 /24 or an IPv6 /48. The table of them has a fixed size, so that it is not itself what an
 * attacker fills: when it is full of peers that have connections, newcomers are let in uncounted
 * (and that is counted).
 */
#ifndef HS_LISTEN_PEERS_H
#define HS_LISTEN_PEERS_H

#include "hardsock.h"

struct hs_peers;

HS_NODISCARD hs_err hs_peers_new(const struct hs_peer_limits *limits, struct hs_error *err,
                                 struct hs_peers **ret_peers);
struct hs_peers *hs_peers_ref(struct hs_peers *p);
void hs_peers_unref(struct hs_peers *p); /* NULL is fine */

/* The slots that a connection takes, until hs_peers_leave. {0}: none. */
struct hs_peer_slots {
    uint32_t peer, network; /* where in the table, from 1 on */
};
/* False: it has as many as it may, or comes too fast; counted. Unix peers and exempt ones are let
 * in without a slot. now_ns: as hs_now. */
HS_NODISCARD bool hs_peers_enter(struct hs_peers *p, const struct hs_addr *addr, int64_t now_ns,
                                 struct hs_peer_slots *ret_slots);
void hs_peers_leave(struct hs_peers *p, const struct hs_peer_slots *slots);
/* Places are left when conn ends. Nobody else may use conn yet. HS_E_NOMEM, and they are left. */
HS_NODISCARD hs_err hs_peers_seat(struct hs_peers *p, const struct hs_peer_slots *slots,
                                  struct hs_conn *conn, struct hs_error *err);

void hs_peers_stats(struct hs_peers *p, struct hs_peer_stats *ret_stats);
/* For tests: NULL, or what does not add up. */
const char *hs_peers_find_disagreement(struct hs_peers *p);

#endif
