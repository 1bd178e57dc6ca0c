/* paths.h: how long the ways of the machine's TCP connections are, and how much moves on them.
 *
 * From sock_diag(7) for the running kernel alone; nothing is sent to anybody.
 */
#ifndef TUNE_PATHS_H
#define TUNE_PATHS_H

#include "sys.h"

struct path {
    const char *peer;
    uint64_t rtt_us;
    uint64_t rate;             /* bytes per second, as the kernel measured it last */
    uint64_t sent, sent_again; /* segments */
};

struct paths {
    struct path *items;
    size_t n, capacity;
};

/* Established connections but those of loopback. */
void paths_read(const struct sys *s, struct paths *ret);
/* Bytes on the way at a time. */
uint64_t path_in_flight(const struct path *p);

#endif
