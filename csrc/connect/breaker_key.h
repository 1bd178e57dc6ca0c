/* breaker_key.h: what the breaker's files need of its keys beyond hardsock.h.
 *
 * A key is a value without padding: equal keys have equal bytes.
 */
#ifndef HS_CONNECT_BREAKER_KEY_H
#define HS_CONNECT_BREAKER_KEY_H

#include "hardsock.h"

bool hs_breaker_key_equal(const struct hs_breaker_key *a, const struct hs_breaker_key *b);
bool hs_breaker_key_is_listener(const struct hs_breaker_key *key);
/* For the server's side: its clients' failures, which weigh differently. */
void hs_breaker_key_listener(const struct hs_addr *addr, struct hs_breaker_key *ret_key);
uint64_t hs_breaker_key_hash(const struct hs_breaker_key *key, uint64_t seed);

#endif
