/* place.h: where packets come from: an address, or a network of them; and its hash.
 *
 * Two places are the same if all their bytes are.
 */
#ifndef LAB_PLACE_H
#define LAB_PLACE_H

#include <stdint.h>

/* What is compared has no holes: an IPv4 address is the first four bytes, the others are 0. */
struct place {
    uint8_t address[16];
    uint64_t family; /* 4 or 6 */
};

/* SipHash-1-3 (Aumasson, Bernstein 2012). Senders choose their addresses; without the key they
 * cannot choose ones that collide. */
uint64_t place_hash(const struct place *p, const uint64_t key[2]);

/* The place's /24 (IPv4) or /64 (IPv6): what one sender can usually choose from. */
struct place place_network(const struct place *p);

#endif
