/* live.h: what the running machine says beyond its settings.
 *
 * Findings come with a severity; a finding is advice and changes the exit code only with --strict.
 */
#ifndef TUNE_LIVE_H
#define TUNE_LIVE_H

#include "diag.h"

enum severity { SEVERITY_INFO, SEVERITY_WARNING, SEVERITY_CRITICAL };

struct finding {
    const char *id; /* stable, for scripts */
    enum severity severity;
    const char *what, *advice;
};

struct findings {
    struct finding *items;
    size_t n, capacity;
};

void finding_add(struct findings *f, const char *id, enum severity severity, const char *what,
                 const char *advice);
void live_look(const struct sys *s, const struct diag *d, struct findings *ret);
const char *severity_name(enum severity severity);

#endif
