/* distinct.c: HyperLogLog, see distinct.h.
 *
 * The few registers of a row are compared one by one when it is told; counting touches one of them.
 */
#include "distinct.h"

#include <math.h>
#include <stddef.h>

void
distinct_add(uint8_t *seen, unsigned bits, uint64_t hash)
{
    size_t at = hash & ((UINT64_C(1) << bits) - 1);
    /* The bit at the end bounds the rank where all others are 0. */
    uint64_t rest = hash >> bits | UINT64_C(1) << (64 - bits);
    uint8_t rank = (uint8_t)(__builtin_ctzll(rest) + 1);

    if (rank > seen[at])
        seen[at] = rank;
}

double
distinct_estimate(const uint8_t *seen, unsigned bits)
{
    size_t n = (size_t)1 << bits, untouched = 0;
    double m = (double)n, sum = 0, estimate;

    for (size_t i = 0; i < n; i++) {
        sum += 1.0 / (double)(UINT64_C(1) << seen[i]);
        untouched += seen[i] == 0;
    }
    estimate = 0.7213 / (1 + 1.079 / m) * m * m / sum;
    if (estimate <= 2.5 * m && untouched > 0)
        return m * log(m / (double)untouched);
    return estimate;
}
