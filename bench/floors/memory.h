/* memory.h: what C workers share that measure the memory of connections which they hold.
 *
 * Of the whole process, before and after.
 */
#ifndef BENCH_MEMORY_H
#define BENCH_MEMORY_H

#include "worker.h"

#include <sys/resource.h>

#define MEMORY_WARM_UP 500    /* connections that are held but not counted */
#define SPARE_DESCRIPTORS 200 /* kept free for everything else */

/* Resident anonymous memory of this process, exact. */
static inline long
anonymous_bytes(void)
{
    FILE *smaps = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    long kib = -1;

    if (smaps == NULL)
        die("smaps_rollup");
    while (kib < 0 && fgets(line, sizeof line, smaps) != NULL)
        (void)sscanf(line, "Anonymous: %ld kB", &kib);
    fclose(smaps);
    if (kib < 0)
        die("no Anonymous: in smaps_rollup");
    return kib * 1024;
}

/* Raises the limit on descriptors as far as it goes; how many of count connections fit. */
static inline long
allowed_connections(long count)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max != RLIM_INFINITY && count > (long)limit.rlim_max - SPARE_DESCRIPTORS)
        count = (long)limit.rlim_max - SPARE_DESCRIPTORS;
    return count;
}

static inline void
say_memory(long connections, long bytes)
{
    printf("{\"connections\": %ld, \"bytes\": %ld}\n", connections, bytes);
    fflush(stdout);
}

#endif
