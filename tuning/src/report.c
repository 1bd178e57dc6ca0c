/* report.c: making a report, and its verdict.
 *
 * With --profile all every profile that can be found is looked at, which is for reading only.
 */
#include "report.h"

#include "effective.h"
#include "mem.h"
#include "saved.h"
#include "strict.h"
#include "waive.h"

#include <string.h>

static enum exit_code
add_profile(const struct options *o, const char *name, struct report *r)
{
    enum exit_code rv;

    if (r->n == MAX_NAMES)
        return fail_with(EXIT_USAGE, "more than %d profiles", MAX_NAMES);
    if ((rv = profile_load(o, name, &r->profiles[r->n])) != EXIT_AS_WANTED)
        return rv;
    plan_make(&r->sys, &r->profiles[r->n], &r->diag, &r->plans[r->n]);
    r->n++;
    return EXIT_AS_WANTED;
}

/* What another machine has, as one more profile. */
static enum exit_code
add_baseline(const struct options *o, struct report *r)
{
    struct saved saved;
    enum exit_code rv;

    if (r->n == MAX_NAMES)
        return fail_with(EXIT_USAGE, "more than %d profiles", MAX_NAMES);
    if ((rv = saved_read(o->baseline, &saved)) != EXIT_AS_WANTED)
        return rv;
    saved_profile(&saved, &r->profiles[r->n]);
    plan_make(&r->sys, &r->profiles[r->n], &r->diag, &r->plans[r->n]);
    r->n++;
    return EXIT_AS_WANTED;
}

static enum exit_code
add_named(const struct options *o, const char *name, struct report *r)
{
    enum exit_code rv = EXIT_AS_WANTED;
    struct profile_name *names;
    size_t n;

    if (strcmp(name, "all") != 0)
        return add_profile(o, name, r);
    names = profile_names(o, &n);
    for (size_t i = 0; i < n && rv == EXIT_AS_WANTED; i++)
        rv = add_profile(o, names[i].name, r);
    return rv;
}

enum exit_code
report_make(const struct options *o, bool with_findings, struct report *ret)
{
    enum exit_code rv;

    memset(ret, 0, sizeof(*ret));
    if ((rv = sys_open(o, &ret->sys)) != EXIT_AS_WANTED)
        return rv;
    if (!ret->sys.image && !sys_has_settings(&ret->sys)) {
        report_close(ret);
        return fail_with(EXIT_SYSTEM, "%s/proc/sys holds no network settings: no kernel runs there",
                         ret->sys.root);
    }
    if (with_findings)
        sys_remember(&ret->sys);
    diag_read(&ret->sys, false, &ret->diag);
    if (o->baseline != NULL)
        rv = add_baseline(o, ret);
    else if (o->n_profiles == 0 && o->n_args == 0)
        rv = add_profile(o, "baseline", ret);
    for (size_t i = 0; i < o->n_profiles && rv == EXIT_AS_WANTED; i++)
        rv = add_named(o, o->profiles[i], ret);
    for (size_t i = 0; i < o->n_args && rv == EXIT_AS_WANTED; i++)
        rv = add_named(o, o->args[i], ret);
    if (rv != EXIT_AS_WANTED) {
        report_close(ret);
        return rv;
    }
    if (!with_findings)
        return EXIT_AS_WANTED;
    if ((rv = history_open(o, &ret->sys, &ret->history)) != EXIT_AS_WANTED) {
        report_close(ret);
        return rv;
    }
    if (ret->sys.saved == NULL)
        live_look(&ret->sys, &ret->diag, &ret->history, &ret->findings);
    /* The other machine's interfaces are compared one by one already. */
    for (size_t i = o->baseline != NULL; i < ret->n; i++)
        effective_look(&ret->sys, ret->profiles[i].name, &ret->plans[i], &ret->findings);
    if ((rv = waive(o, ret)) != EXIT_AS_WANTED)
        report_close(ret);
    findings_date(&ret->findings, &ret->history);
    return rv;
}

/* Why an image cannot say the value; NULL where it can. */
static const char *
why_not_here(const struct report *r, const struct item *it)
{
    for (size_t i = 0; i < r->n; i++)
        if (needs_reservation(&r->profiles[i], it->setting->path))
            return NEEDS_RESERVATION ": persist it there";
    return it->setting->listening ? "depends on what listens on the machine: persist it there"
                                  : NULL;
}

void
report_withhold(const struct report *r, struct plan *plan)
{
    for (size_t i = 0; i < plan->n && r->sys.image; i++) {
        struct item *it = &plan->items[i];
        const char *why = it->target_text == NULL ? NULL : why_not_here(r, it);

        if (why == NULL)
            continue;
        it->status = STATUS_MISSING;
        it->target_text = NULL;
        it->reason = why;
    }
}

void
report_close(struct report *r)
{
    sys_close(&r->sys);
}

enum exit_code
report_verdict(const struct options *o, const struct report *r)
{
    bool drift = false, denied = false;

    for (size_t i = 0; i < r->n; i++) {
        const size_t *counts = r->plans[i].counts;

        drift |= counts[STATUS_DRIFT] > 0;
        denied |= counts[STATUS_DENIED] > 0;
        /* What belongs to the whole machine is not this namespace's fault. */
        if ((o->strict & STRICT_MISSING) != 0)
            drift |= counts[STATUS_MISSING] > 0;
        if ((o->strict & STRICT_WAIVED) != 0)
            drift |= counts[STATUS_WAIVED] > 0;
    }
    for (size_t i = 0; i < r->findings.n; i++) {
        static const unsigned classes[] = {0, STRICT_WARNING, STRICT_CRITICAL};
        const struct finding *f = &r->findings.items[i];

        drift |=
            (o->strict & (f->waived != NULL ? (unsigned)STRICT_WAIVED : classes[f->severity])) != 0;
    }
    if (drift)
        return EXIT_DRIFT;
    return denied ? EXIT_PERMISSION : EXIT_AS_WANTED;
}
