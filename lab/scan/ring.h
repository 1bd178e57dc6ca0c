/* ring.h: packets of one protocol, from a ring that the kernel writes (TPACKET_V3, packet(7)).
 *
 * Books: the kernel counts what it has put into the ring and what it had no room for. What was put
 * in is seen once its block is full or RING_BLOCK_MS have passed.
 */
#ifndef LAB_RING_H
#define LAB_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tally.h"

#define RING_BLOCK_MS 100
#define RING_BYTES_MIN 8192

struct ring {
    int fd;
    uint8_t *map;
    size_t bytes;
    unsigned block_size, blocks, at; /* at: the block that is filled next */
    uint64_t taken;                  /* packets that we have looked at */
    uint64_t put, dropped;           /* by the kernel, as of the last ring_count */
    uint64_t downs;                  /* times that the interface went down, or away */
    char why[160];
};

/* ifindex 0: all interfaces. ipv6: else IPv4. bytes: at least RING_BYTES_MIN; at most that many are
 * taken. False: why says why; then nothing is open. */
bool ring_open(struct ring *r, bool ipv6, int ifindex, size_t bytes);
void ring_close(struct ring *r);
/* Takes what there is, without waiting. */
void ring_take(struct ring *r, struct tally *t);
/* What poll said of its socket: an error that stays would wake us for ever. */
void ring_heed(struct ring *r, short revents);
/* Asks the kernel for its books. */
void ring_count(struct ring *r);

#endif
