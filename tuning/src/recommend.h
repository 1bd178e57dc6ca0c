/* recommend.h: what a look at the machine leads to, for cmd_recommend.c and recommend.c.
 *
 * The order of what is noted is the order in which it is shown.
 */
#ifndef TUNE_RECOMMEND_H
#define TUNE_RECOMMEND_H

#include "diag.h"
#include "paths.h"

struct proposal {
    const char *key;          /* dotted */
    const char *want, *value; /* as in a profile: "at_least", "4096"; NULL: left as it is */
    const char *why;          /* what was seen */
    const char *risk;
};

struct advice {
    struct proposal *items;
    size_t n, capacity, proposed;
};

void propose(struct advice *a, const char *key, const char *want, const char *value,
             const char *why, const char *risk);
void leave(struct advice *a, const char *key, const char *why);

void advise_on_listeners(const struct sys *s, const struct diag *d, struct advice *a);
void advise_on_ports(const struct sys *s, const struct diag *d, struct advice *a);
void advise_on_queues(const struct sys *s, struct advice *a);
void advise_on_tables(const struct sys *s, struct advice *a);
void advise_on_memory(const struct sys *s, struct advice *a);
void advise_on_paths(const struct sys *s, const struct paths *p, struct advice *a);

#endif
