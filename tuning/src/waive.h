/* waive.h: what an owner accepts on some hosts, for a reason and for a time.
 *
 * A waiver names a setting or a finding. `check` then tells it apart and does not fail for it; what
 * `apply` does is not changed. One that has ended is a finding of its own where it would still be
 * needed.
 */
#ifndef TUNE_WAIVE_H
#define TUNE_WAIVE_H

#include "tree.h"

#define WAIVERS_FILE "/etc/hardsock/waivers.yaml"

struct waiver {
    const char *name; /* the path of a key, or the id of a finding */
    bool is_key;
    const char *reason, *until; /* YYYY-MM-DD, the last day on which it holds, in UTC */
    const char *hosts[16];      /* patterns; none: every host */
    size_t n_hosts;
    bool ended;
};

struct waivers {
    struct waiver *items;
    size_t n, capacity;
};

struct report;

/* The waivers of a file; false after a message with the place. */
bool waivers_read(const char *file, const struct node *root, struct waivers *ret);
/* Of o->waivers, or of WAIVERS_FILE if there is one; marks what they cover. */
enum exit_code waive(const struct options *o, struct report *r);

#endif
