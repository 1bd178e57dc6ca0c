/* sketch.h: the heaviest of more places than there is memory for: Space-Saving (Metwally, Agrawal,
 * El Abbadi 2005).
 *
 * A place that is not known takes the row of the one with the lowest count, and that count with it,
 * as its error. After N packets and with k rows:
 * - the counts of all rows together are N;
 * - a row's place truly came at least count - error times, and at most count times;
 * - a place without a row came no more often than the lowest count, which is at most N / k. So
 *   each that came more often than that has a row.
 */
#ifndef LAB_SKETCH_H
#define LAB_SKETCH_H

#include "place.h"

#include <stdbool.h>

#define SOME_PORTS 16
#define ROW_BITS 8

struct row {
    struct place who;
    uint64_t count, error;
    int64_t first_ns, last_ns; /* since it has the row; nanoseconds since 1970 */
    /* The first different ports that it asked for, since it has the row. */
    uint16_t ports[SOME_PORTS];
    uint32_t ports_n;
    uint32_t heap_at, next;      /* the sketch's own */
    uint8_t seen[1 << ROW_BITS]; /* for distinct.h; of what is its user's to decide */
};

struct sketch {
    struct row *rows;
    uint32_t *heap, *heads; /* rows by count, the lowest first; chains of rows by hash */
    uint32_t n, capacity, mask;
    uint64_t key[2];
};

/* False: no memory. capacity: at least 1. */
bool sketch_init(struct sketch *s, uint32_t capacity, const uint64_t key[2]);
void sketch_fini(struct sketch *s);
/* Counts one. Returns its row, which is as good as new when somebody else had it before. */
struct row *sketch_count(struct sketch *s, const struct place *who);
/* How many packets are surely those of the places that have a row. */
uint64_t sketch_attributed(const struct sketch *s);
/* All rows, those first that surely have most packets; returns how many. ret: room for capacity. */
uint32_t sketch_sorted(const struct sketch *s, const struct row **ret);

#endif
