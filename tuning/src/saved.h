/* saved.h: the settings of a machine as `sysctl -a` printed them.
 *
 * Stands in the place of /proc/sys for what only reads: a machine that is down, far away, or not
 * ours to log in to. Nothing else of that machine is known: no sockets, no modules, no counters.
 */
#ifndef TUNE_SAVED_H
#define TUNE_SAVED_H

#include "profile.h"

struct saved_key {
    const char *path, *text;
    size_t line;
};

struct saved {
    const char *file;
    struct saved_key *keys; /* by path, each once */
    size_t n;
};

/* What is no setting is left out: messages of sysctl(8), more lines of one value. */
void saved_parse(const char *file, const char *text, size_t len, struct saved *ret);
enum exit_code saved_read(const char *file, struct saved *ret);
/* NULL: not in the file. */
const char *saved_find(const struct saved *s, const char *path);
/* Names beneath a directory such as net/ipv4/conf; NULL-terminated. */
char **saved_names(const struct saved *s, const char *dir);
/* A profile that wants what the file holds: every setting that can be compared between machines. */
void saved_profile(const struct saved *s, struct profile *ret);

#endif
