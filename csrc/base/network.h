/* network.h: which addresses belong to a network.
 *
 * For lists of those that are trusted, or exempt.
 */
#ifndef HS_BASE_NETWORK_H
#define HS_BASE_NETWORK_H

#include "hardsock.h"

/* HS_E_INVALID: no such family, or more bits than it has. */
HS_NODISCARD hs_err hs_network_check(const struct hs_network *n, struct hs_error *err);
/* An IPv4 address that an IPv6 socket shows (::ffff:a.b.c.d) is the IPv4 address. */
bool hs_networks_have(const struct hs_network *networks, size_t n, const struct hs_addr *addr);

#endif
