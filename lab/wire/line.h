/* line.h: one direction of the wire: what happens to each packet, and when it comes out.
 *
 * Knows no device and no clock: the caller says what time it is and takes what is due. What happens
 * to the nth packet depends on the seed, the direction, n and the settings alone (a hash, not a
 * generator), so the same packets have the same fate, also when settings change on the way. Only
 * losses in bursts depend on the packet before.
 *
 * Invariants:
 * - got + doubled == lost + full + cut + overflow + queued + taken: no packet is forgotten.
 * - Packets come out in the order of `due`, which without reordering is that of their arrival.
 */
#ifndef LAB_LINE_H
#define LAB_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct settings {
    double delay, jitter, gap;                       /* seconds; gap: how far back a packet falls */
    double loss, burst, duplicate, reorder, corrupt; /* of 1; burst: mean length, in packets */
    double rate;                                     /* bit/s; 0: no limit */
    double queue;                                    /* bytes before the limit; 0: no limit */
    bool down;
};

/* Buckets of 10 us, the last one for all that is later. */
#define LATE_BUCKETS 2001
#define LATE_BUCKET_NS 10000

struct counts {
    uint64_t got, taken, bytes, lost, doubled, reordered, corrupted, full, cut, overflow, passed;
    uint64_t late[LATE_BUCKETS];
    int64_t late_max_ns, late_sum_ns;
};

struct packet {
    int64_t due_ns;
    uint64_t turn;
    size_t len;
    uint8_t data[];
};

struct line {
    struct settings set;
    struct counts counts;
    uint64_t seed, number, turn;
    int64_t free_ns, last_due_ns; /* when the sender of a limited rate is done */
    struct packet **heap;
    size_t n, room, queued_bytes;
    bool in_burst;
};

void line_init(struct line *l, uint64_t seed);
void line_fini(struct line *l);
/* data: a packet from its IP header on, behind `head` bytes of another one. */
void line_put(struct line *l, const uint8_t *data, size_t len, size_t head, int64_t now_ns);
/* When the next one is due, or INT64_MAX. */
int64_t line_due(const struct line *l);
/* What is due, or NULL; the caller frees it. */
struct packet *line_take(struct line *l, int64_t now_ns);
/* How late all but a share of the packets were; INT64_MAX: later than the buckets tell. */
int64_t line_late_ns(const struct counts *c, double share);
/* False: there is no such setting. */
bool line_set(struct settings *s, const char *name, double value);

#endif
