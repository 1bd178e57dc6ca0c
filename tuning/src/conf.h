/* conf.h: sysctl.conf and sysctl.d, as the two loaders read them.
 *
 * systemd-sysctl reads the sysctl.d directories; procps's `sysctl --system` reads the same, and
 * then /etc/sysctl.conf. In both a file masks one of the same name in a later directory, files are
 * sorted by name without directory, the last assignment wins, and an exact key beats a pattern; so
 * does an exclusion of the exact key. One of a pattern takes back that pattern, and no more.
 */
#ifndef TUNE_CONF_H
#define TUNE_CONF_H

#include "sys.h"

#define CONF_MAX (1024 * 1024)

enum loader { LOADER_SYSTEMD, LOADER_PROCPS };

struct line {
    const char *file;
    size_t number;
    const char *path;  /* a key; a pattern if it holds * ? or [ */
    const char *value; /* NULL: "-pattern", excluded from patterns */
    bool pattern;
    bool optional;       /* "-key = value": the loaders do not mind if it fails */
    const char *comment; /* of the author, above the line; NULL: none */
    char bound;          /* '>': only ever raises; '<': only ever lowers; of tuned */
    const char *fault;   /* why it is no assignment; path is then what stands there */
};

struct conf {
    struct line *lines;
    size_t n, capacity;
    size_t skipped; /* lines that are no assignment */
    bool quiet;     /* what is at fault is not told, no matter who reads */
    bool keep;      /* those are lines too, with their fault; such a list has no winner */
};

/* Adds the lines of one text; what is no assignment is skipped, with a message if loud. */
void conf_read(const char *file, const char *text, size_t len, bool loud, struct conf *c);
/* One assignment, or its fault, which is told. A copy without blanks at its ends. */
void conf_add(struct conf *c, const char *file, size_t number, const char *name, const char *value,
              char bound);
void conf_skip(struct conf *c, const char *file, size_t number, const char *name,
               const char *fault);
const char *conf_trim(const char *s, size_t len);
/* The text of one file; says why it could not be read. */
enum exit_code conf_text(const char *path, char **ret_text, size_t *ret_len);
/* Reads one file and adds its lines; says why it could not be read. */
enum exit_code conf_file(const char *path, bool loud, struct conf *c);
/* All files in the order of the loader. */
void conf_load(const struct sys *s, enum loader loader, bool loud, struct conf *ret);
/* Whether the line holds: no later one has the same key or pattern. The loaders keep one of each,
 * assignment or exclusion. */
bool conf_counts(const struct conf *c, size_t at);
/* The assignment that holds in the end, or NULL. */
const struct line *conf_winner(const struct conf *c, const char *path);
const char *loader_name(enum loader loader);

#endif
