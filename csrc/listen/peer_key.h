/* peer_key.h: the bits of an address that tell strangers apart.
 *
 * A stranger is an IPv4 address or an IPv6 /64, which is what one subscriber has; neighbours are an
 * IPv4 /24 or an IPv6 /48.
 */
#ifndef HS_LISTEN_PEER_KEY_H
#define HS_LISTEN_PEER_KEY_H

#include "hardsock.h"

struct hs_peer_key {
    uint64_t bits;
    uint32_t width; /* 32 and 24 of IPv4, 64 and 48 of IPv6 */
};

/* False: of no family that has strangers. */
HS_NODISCARD bool hs_peer_keys(const struct hs_addr *addr, struct hs_peer_key *ret_peer,
                               struct hs_peer_key *ret_network);
bool hs_peer_key_is(const struct hs_peer_key *a, const struct hs_peer_key *b);

#endif
