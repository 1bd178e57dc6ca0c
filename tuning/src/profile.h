/* profile.h: profiles, from YAML to checked settings.
 *
 * A profile is a document first: each setting says why, and at what risk. It wants a key to have a
 * value or to meet a constraint. What is loaded here has been checked as far as that goes without
 * looking at the machine.
 */
#ifndef TUNE_PROFILE_H
#define TUNE_PROFILE_H

#include "expr.h"
#include "kb.h"

#define MAX_CHOICES 8
#define RANGE_KEY "net/ipv4/ip_local_port_range"

enum want {
    WANT_EXACT,
    WANT_AT_LEAST,
    WANT_AT_MOST,
    WANT_RANGE,
    WANT_ONE_OF,
    WANT_CONTAINS,
    WANT_UNSET,
    WANT_NOTHING, /* a remark alone */
};

struct setting {
    const char *path, *file, *profile;
    size_t line, column;
    enum want want;
    const char *texts[MAX_CHOICES];
    struct value values[MAX_CHOICES];
    size_t n;
    bool or_default; /* what the kernel starts with is as wanted, too */
    bool listening;  /* contains: what listens on the machine as well */
    bool excluded;   /* no pattern reaches it, and nothing is wanted of it */
    bool optional;   /* where it is not there, or cannot be set, nothing is wrong */
    const char *why, *risk, *source, *wrong_if, *since, *scope, *verdict, *article, *module;
};

struct profile {
    const char *name, *summary, *source;
    const char *signer;          /* whose signature was verified; or NULL */
    const char *kernel, *module; /* what it requires */
    struct setting *settings;
    size_t n, capacity;
    struct vars vars;
    uint64_t hash;
};

/* A name or a path. Says what is wrong, with the place. */
enum exit_code profile_load(const struct options *o, const char *name, struct profile *ret);
/* A YAML file below root; NULL with errno. trusted: EPERM unless it is root's or ours, and not for
 * everybody to write. */
unsigned char *yaml_file(const char *root, const char *path, bool trusted, size_t *ret_len);
/* Text that is already here: for the fuzzer and for `lint`. */
enum exit_code profile_from_text(const struct options *o, const char *file,
                                 const unsigned char *text, size_t len, struct profile *ret);
/* "at least 4096" */
const char *setting_show(const struct setting *s);
/* Whether the author says what may go wrong, other than that nobody said it. */
bool setting_names_risk(const struct setting *s);
/* Whether the numbers of such a value rise from left to right, as those of its key must. */
bool value_rises(const char *path, const struct value *v);
/* What is known about what the setting may write, of several values the worst; *ret_text may become
 * NULL. A port range is fine where the profile reserves what listens. */
enum level profile_judge(const struct profile *p, const struct setting *s, const char **ret_text);
/* "KEY = VALUE: what is known [doubtful]", with what the profile says of its risk; NULL where there
 * is nothing to warn of. *ret_weighed: the author has named a risk, so that it is a note. */
const char *profile_warning(const struct profile *p, const struct setting *s, bool *ret_weighed);
const char *want_name(enum want want);
/* A wide range without its reservation takes the ports of services: whether the profile's value of
 * that key depends on what listens on the machine, though it is a fixed one. */
bool needs_reservation(const struct profile *p, const char *path);
#define NEEDS_RESERVATION                                                                          \
    "safe only with net.ipv4.ip_local_reserved_ports, which depends on what listens on the "       \
    "machine"

/* One YAML document, without what it extends; for profile.c. */
struct node;
bool profile_read(const char *file, const struct node *root, struct profile *p,
                  const struct node **ret_extends);
/* Parses the texts of a setting once all variables are known. */
bool setting_finish(struct setting *s, const struct vars *vars);

/* Compiled in. */
struct builtin {
    const char *name;
    const unsigned char *text, *end;
};
const struct builtin *builtin_at(size_t i); /* NULL after the last */
/* Every name that can be loaded, sorted; `source` says from where. */
struct profile_name {
    const char *name, *source;
};
struct profile_name *profile_names(const struct options *o, size_t *ret_n);

#endif
