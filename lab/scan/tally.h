/* tally.h: what is known of the SYNs that were seen: by source, by network, by port.
 *
 * Memory is fixed: it does not depend on how many sources there are.
 */
#ifndef LAB_TALLY_H
#define LAB_TALLY_H

#include "frame.h"
#include "sketch.h"

#include <stdio.h>

#define SOURCE_BITS 12
#define PORTS 65536

/* saw + other + cut: all packets that were given to it. */
struct tally {
    uint64_t saw, saw_6; /* SYNs; those over IPv6 */
    uint64_t other;      /* what the kernel's filter lets through and is none after all */
    uint64_t cut;        /* ended before it could be told */
    struct sketch sources, networks; /* rows: different ports; different sources */
    uint64_t *ports;                 /* PORTS of them */
    uint8_t seen[1 << SOURCE_BITS];  /* different sources in all */
    const struct row **sorted;       /* room for either */
    uint64_t key[2];
};

/* False: no memory. rows: of each table. */
bool tally_init(struct tally *t, uint32_t rows, const uint64_t key[2]);
void tally_fini(struct tally *t);
void tally_packet(struct tally *t, const uint8_t *data, size_t len, int64_t at_ns);
/* Different ports that the source of a row asked for: exact while they fit. */
double tally_ports_of(const struct row *r);
/* Members of a JSON object, without its braces: the n first of each table. */
void tally_write(struct tally *t, uint32_t n, FILE *to);

#endif
