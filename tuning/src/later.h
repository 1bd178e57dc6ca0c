/* later.h: who else sets kernel settings after the files of sysctl.d were read.
 *
 * Firewalls, network managers, tuned and container runtimes: their files are read where these tell,
 * and else what they do by themselves is known here. Nothing is asked of a running program.
 */
#ifndef TUNE_LATER_H
#define TUNE_LATER_H

#include "conf.h"

struct setter {
    const char *by;
    const char *where; /* the file, with a line where there is one */
    const char *path;  /* of a key, or a pattern for interfaces */
    const char *value; /* NULL: not known */
    char bound;        /* as of a line of a conf */
};

struct setters {
    struct setter *items;
    size_t n, capacity;
};

void later_find(const struct sys *s, struct setters *ret);

#endif
