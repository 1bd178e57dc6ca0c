/* report.h: profiles against the machine, and the three ways to show it.
 *
 * The fields of the JSON and the columns of the TSV are a contract, written down in the man page;
 * new ones may be added at the end.
 */
#ifndef TUNE_REPORT_H
#define TUNE_REPORT_H

#include "live.h"
#include "plan.h"

struct journal;

struct report {
    struct sys sys;
    struct profile profiles[MAX_NAMES];
    struct plan plans[MAX_NAMES];
    size_t n;
    struct diag diag;
    struct findings findings;
    struct history history;
};

/* Opens the system, loads the profiles that o names (default: baseline), and looks. */
enum exit_code report_make(const struct options *o, bool with_findings, struct report *ret);
void report_close(struct report *r);
/* In an image nobody listens: what depends on that is not told there, whatever its files reserve,
 * and has no target any more. */
void report_withhold(const struct report *r, struct plan *plan);
enum exit_code report_verdict(const struct options *o, const struct report *r);
void report_pretty(const struct options *o, const struct report *r, enum exit_code rv);
void report_json(const struct options *o, const char *command, const struct report *r,
                 enum exit_code rv);
void report_tsv(const struct report *r);
/* For a Prometheus textfile collector, JUnit's readers and SARIF 2.1.0's. */
void format_prometheus(const struct report *r, enum exit_code rv);
void format_junit(const struct report *r);
void format_sarif(const struct report *r);
/* Lines "-key = current" and "+key = wanted" of what j would write, or the same as TSV; in JSON the
 * whole report. */
void report_diff(const struct options *o, const struct report *r, const struct plan *plan,
                 const struct journal *j, enum exit_code rv);

#endif
