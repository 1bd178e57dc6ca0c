/* plan.h: a profile against the machine: what is as wanted, what is not, and what to write.
 *
 * Reads only. Both `check` and `apply` start from here, so that they cannot disagree.
 */
#ifndef TUNE_PLAN_H
#define TUNE_PLAN_H

#include "diag.h"
#include "profile.h"

enum status {
    STATUS_OK,
    STATUS_DRIFT,
    STATUS_MISSING, /* no such key here */
    STATUS_GLOBAL,  /* not in this namespace */
    STATUS_DENIED,  /* cannot be read */
    STATUS_SKIPPED, /* not for this kernel */
    STATUS_REMARK,  /* nothing is wanted */
    STATUS_WAIVED,  /* drift, missing or denied, and accepted on this host */
    STATUSES
};

struct item {
    const struct setting *setting;
    const struct kb_key *kb;
    const char *pattern; /* what stands in the profile: conf.*.key; NULL: the key itself */
    enum status status;
    struct value current, target;
    const char *current_text, *target_text; /* NULL where there is none */
    const char *reason;                     /* of ok and drift only where there is one */
    const char *doubt;
    bool by_default; /* as wanted only since it is what the kernel starts with */
    int may_write;   /* 0 or an errno; for drift */
};

struct plan {
    struct item *items;
    size_t n;
    size_t counts[STATUSES];
};

void plan_make(const struct sys *s, const struct profile *p, const struct diag *d,
               struct plan *ret);
/* Each key once, with the nearest value that meets all plans. Says where there is none. */
bool plan_merge(const struct sys *s, const struct diag *d, const struct plan plans[], size_t n,
                struct plan *ret);
const char *status_name(enum status status);
/* Rules between keys, on the values that would hold after the plan. Says what is broken. */
bool plan_rules(const struct sys *s, const struct plan *plan);

/* The parts of the two above. The value nearest to v that meets w; listening may be NULL where w
 * does not ask for it. */
struct value plan_nearest(const struct setting *w, const struct value *v,
                          const struct value *listening);
/* Ports of services that listen inside a range: automatic choice could take those, and only those.
 * What the kernel may have picked for somebody is not called a service. */
struct value plan_listening(const struct diag *d, const struct value *range);
/* Doubts about the target, and whether it could be written. */
void plan_look(const struct sys *s, struct item *it);

#endif
