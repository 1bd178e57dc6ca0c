/* breaker.h: what the rest of the core needs of breakers beyond hardsock.h.
 *
 * What its decisions are asked for, and a count for the inventory of live objects.
 */
#ifndef HS_CONNECT_BREAKER_H
#define HS_CONNECT_BREAKER_H

#include "hardsock_binding.h"

long hs_breaker_live(void);

/* When nothing else is left of a name's n_all addresses, none has connected, and these n were
 * refused: true if one must be let through after all, the one that is due first. n_forced: how many
 * this has let through already. At least one of several addresses is always tried (fail_fast:
 * unless all are open), and never more than max_ejected_permille of them are not. */
bool hs_breaker_permit_one(struct hs_breaker *b, const struct hs_addr *const *refused, size_t n,
                           size_t n_all, size_t n_forced, int64_t now_ns, size_t *ret_i,
                           struct hs_permit *ret_permit);

#endif
