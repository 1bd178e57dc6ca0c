/* cmd_check.c: `check` and `diff`: what of this machine is not as the profiles want it.
 *
 * Reads only. `diff` tells what `apply` would do, by the same steps. The exit code tells drift from
 * a key that cannot be read; what is missing on this kernel counts only with --strict, and so do
 * findings.
 */
#include "effective.h"
#include "mem.h"
#include "out.h"
#include "report.h"
#include "tx.h"

static void
show(const struct options *o, const struct report *r, enum exit_code rv)
{
    switch (o->format) {
    case FORMAT_PRETTY:
        report_pretty(o, r, rv);
        break;
    case FORMAT_TSV:
        report_tsv(r);
        break;
    case FORMAT_JSON:
        report_json(o, "check", r, rv);
        break;
    case FORMAT_PROMETHEUS:
        format_prometheus(r, rv);
        break;
    case FORMAT_JUNIT:
        format_junit(r);
        break;
    case FORMAT_SARIF:
        format_sarif(r);
        break;
    }
}

enum exit_code
cmd_check(const struct options *o)
{
    struct report r;
    enum exit_code rv = report_make(o, true, &r);

    if (rv != EXIT_AS_WANTED)
        return rv;
    rv = report_verdict(o, &r);
    if (history_save(&r.history) != EXIT_AS_WANTED)
        rv = EXIT_SYSTEM;
    if (o->output == NULL || out_to_file(o->output))
        show(o, &r, rv);
    else
        rv = EXIT_SYSTEM;
    report_close(&r);
    return rv;
}

enum exit_code
cmd_diff(const struct options *o)
{
    struct journal j = {0};
    struct plan plan;
    struct report r;
    enum exit_code rv = report_make(o, false, &r);

    if (rv != EXIT_AS_WANTED)
        return rv;
    rv = tx_prepare(o, &r, &plan, &j);
    if (j.n > 0 && tx_can_run(rv))
        rv = EXIT_DRIFT;
    else if (rv == EXIT_DRIFT)
        rv = plan.counts[STATUS_DRIFT] > 0 ? EXIT_DRIFT : EXIT_AS_WANTED;
    if (rv != EXIT_CONFLICT)
        effective_look(&r.sys, r.n == 1 ? r.profiles[0].name : "of those", &plan, &r.findings);
    report_diff(o, &r, &plan, &j, rv);
    report_close(&r);
    return rv;
}
