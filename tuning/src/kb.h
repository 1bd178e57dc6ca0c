/* kb.h: what is known about each kernel setting, compiled in.
 *
 * Ranges and defaults are hints for people and for early warnings: the kernel's own answer rules,
 * since both have changed inside stable series. The facts come from the kernel's source and from
 * trying them on Linux 6.18.
 */
#ifndef TUNE_KB_H
#define TUNE_KB_H

#include "value.h"

enum scope {
    SCOPE_NAMESPACE, /* each network namespace has its own */
    SCOPE_GLOBAL,    /* one for the machine; absent in other namespaces */
    SCOPE_READONLY,  /* one for the machine; other namespaces may read it */
    SCOPE_NONE,      /* not a setting (any more) */
};

enum effect { EFFECT_LIVE, EFFECT_NEW, EFFECT_LISTEN, EFFECT_CALL, EFFECT_PARTLY };

struct kb_key {
    const char *path; /* "*" stands for one component */
    enum vtype type;
    size_t fields; /* for TYPE_INTS; 0: unknown */
    enum scope scope;
    enum effect effect;
    int64_t min, max; /* of every field, as far as sense reaches; min > max: no hint */
    const char *unit, *initial, *since, *removed, *module;
    const char *meaning, *when, *rules, *myth, *twin;
};

const struct kb_key *kb_find(const char *path);
const struct kb_key *kb_at(size_t i); /* NULL after the last */
const char *kb_scope_name(enum scope scope);
const char *kb_effect_text(const struct kb_key *k);
/* "6.1" against "6.18.44-x": -1, 0, 1, by numbers. */
int kernel_compare(const char *a, const char *b);
/* A word on a value that the kernel takes but that makes no sense, or NULL. */
const char *kb_doubt(const struct kb_key *k, const struct value *v);

extern const struct kb_key kb_tcp[], kb_net[], kb_gone[];

#endif
