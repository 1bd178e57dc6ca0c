/* tune.h: what every part of hardsock-tune shares.
 *
 * The program is short-lived and has one thread: memory comes from one arena that is freed at the
 * end, failures are printed where they happen and travel as an enum exit_code. Nothing here knows
 * the library; the two programs share no code on purpose.
 */
#ifndef TUNE_H
#define TUNE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The contract with scripts: in the help, in the man page, and in the tests. */
enum exit_code {
    EXIT_AS_WANTED = 0,
    EXIT_DRIFT = 1,
    EXIT_USAGE = 2,
    EXIT_PROFILE = 3,
    EXIT_PERMISSION = 4,
    EXIT_REFUSED = 5,
    EXIT_PARTLY = 6,
    EXIT_CONFLICT = 7,
    EXIT_SYSTEM = 8,
    EXIT_RESIDUE = 9,
    EXIT_GLOBAL = 10,
};

/* From the fourth on: of `check` alone. */
enum format {
    FORMAT_PRETTY,
    FORMAT_TSV,
    FORMAT_JSON,
    FORMAT_PROMETHEUS,
    FORMAT_JUNIT,
    FORMAT_SARIF
};

#define MAX_NAMES 64
#define PRINTF(a, b) __attribute__((format(printf, a, b)))

struct assignment {
    const char *name;
    int64_t value;
};

struct options {
    enum format format;
    const char *profiles[MAX_NAMES];
    size_t n_profiles;
    struct assignment sets[MAX_NAMES];
    size_t n_sets;
    const char *netns, *root, *state, *to, *output, *history, *waivers, *from, *baseline, *trust,
        *loader;
    unsigned strict;   /* of enum strict */
    bool image;        /* a --root without a kernel will do */
    bool unsigned_too; /* lint and judge: no matter who wrote it */
    bool quiet, dry_run, force, keep, all, keys, symptoms, system, color;
    char **args; /* what is left of the command line */
    size_t n_args;
};

/* Each subcommand; in main.c is the table. */
enum exit_code cmd_check(const struct options *o);
enum exit_code cmd_explain(const struct options *o);
enum exit_code cmd_list(const struct options *o);
enum exit_code cmd_show(const struct options *o);
enum exit_code cmd_lint(const struct options *o);
enum exit_code cmd_diff(const struct options *o);
enum exit_code cmd_apply(const struct options *o);
enum exit_code cmd_revert(const struct options *o);
enum exit_code cmd_status(const struct options *o);
enum exit_code cmd_persist(const struct options *o);
enum exit_code cmd_unpersist(const struct options *o);
enum exit_code cmd_conflicts(const struct options *o);
enum exit_code cmd_export(const struct options *o);
enum exit_code cmd_import(const struct options *o);
enum exit_code cmd_judge(const struct options *o);
enum exit_code cmd_recommend(const struct options *o);

#endif
