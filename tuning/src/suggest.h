/* suggest.h: the word that was meant.
 *
 * For names that people type: commands, keys and profiles.
 */
#ifndef TUNE_SUGGEST_H
#define TUNE_SUGGEST_H

#include "tune.h"

struct suggestion {
    const char *word; /* what was typed */
    const char *best; /* NULL: nothing is near */
    size_t distance;
};

/* Holds one candidate against the word; the nearest stays. */
void suggest(struct suggestion *s, const char *candidate);
/* "; did you mean X?", or "". */
const char *suggest_text(const struct suggestion *s);

#endif
