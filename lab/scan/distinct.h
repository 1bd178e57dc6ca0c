/* distinct.h: how many different ones there were, in little memory: HyperLogLog (Flajolet, Fusy,
 * Gandouet, Meunier 2007). The standard error is 1.04 / sqrt(2^bits).
 */
#ifndef LAB_DISTINCT_H
#define LAB_DISTINCT_H

#include <stdint.h>

/* seen: 2^bits bytes, zeroed at first. The hash of the same thing is the same. */
void distinct_add(uint8_t *seen, unsigned bits, uint64_t hash);
double distinct_estimate(const uint8_t *seen, unsigned bits);

#endif
