/* winners.h: who wins at the next boot.
 *
 * Shared by `persist`, which reports it after writing, and `conflicts`.
 */
#ifndef TUNE_WINNERS_H
#define TUNE_WINNERS_H

#include "report.h"

struct winner {
    const char *key, *by, *where, *value, *wanted;
};

struct winners {
    struct winner *items;
    size_t n, capacity;
};

/* What overrides the values that the plans want. */
void winners_find(const struct sys *s, const struct plan plans[], size_t n, struct winners *ret);
/* One of them; `first` is an extra first column of the TSV, or NULL. */
void winner_show(const struct options *o, const struct winner *w, const char *first);

#endif
