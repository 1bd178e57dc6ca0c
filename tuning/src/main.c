/* main.c: hardsock-tune: kernel network settings checked, explained, applied and taken back.
 *
 * Here is the command line and the table of subcommands, no more. Without a subcommand it checks,
 * which only reads: nothing is ever written that was not asked for by name.
 */
#include "mem.h"
#include "out.h"
#include "strict.h"
#include "suggest.h"
#include "value.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef TUNE_VERSION
#define TUNE_VERSION "0"
#endif

static const struct command {
    const char *name;
    enum exit_code (*fn)(const struct options *o);
    const char *args, *help, *options, *example;
} commands[] = {
    {"check", cmd_check, "[PROFILE...]", "what differs from the profiles (default: baseline)",
     "--profile --set --trust --netns --root --from --baseline --format --output --history "
     "--waivers --strict --quiet",
     "hardsock-tune check --strict busy-server"},
    {"explain", cmd_explain, "KEY...", "what a key means, and this machine's value",
     "--netns --root --from --format", "hardsock-tune explain tcp_rmem EADDRNOTAVAIL"},
    {"list", cmd_list, "", "the profiles there are", "--keys --symptoms --format",
     "hardsock-tune list --keys"},
    {"show", cmd_show, "PROFILE", "what a profile wants, and why", "--set --trust --format",
     "hardsock-tune show high-churn-client"},
    {"lint", cmd_lint, "PROFILE...", "errors and doubts in a profile", "--strict --set --format",
     "hardsock-tune lint --strict ./vendor.yaml"},
    {"judge", cmd_judge, "FILE...", "a verdict on each line of a sysctl.conf or profile",
     "--strict --quiet --set --format", "hardsock-tune judge ./vendor.conf"},
    {"recommend", cmd_recommend, "", "a profile for what this machine shows, with evidence",
     "--netns --root --format", "hardsock-tune recommend > ./mine.yaml"},
    {"diff", cmd_diff, "[PROFILE...]", "what apply would change",
     "--profile --set --trust --netns --root --state --format --strict --force --quiet",
     "hardsock-tune diff busy-server"},
    {"apply", cmd_apply, "PROFILE...", "change the settings in one transaction",
     "--profile --set --trust --netns --root --state --format --dry-run --force --strict --quiet",
     "hardsock-tune apply --dry-run busy-server"},
    {"revert", cmd_revert, "", "take the last transaction back (--all: every one)",
     "--netns --root --state --format --dry-run --force --keep --all",
     "hardsock-tune revert --all"},
    {"status", cmd_status, "", "what is applied, and what changed since",
     "--netns --root --state --format", "hardsock-tune status"},
    {"persist", cmd_persist, "PROFILE...", "write a sysctl.d file for the next boot",
     "--profile --set --trust --root --output --format --dry-run --quiet",
     "hardsock-tune persist --dry-run busy-server"},
    {"unpersist", cmd_unpersist, "", "remove that file", "--root --output --format --dry-run",
     "hardsock-tune unpersist"},
    {"conflicts", cmd_conflicts, "[PROFILE...]", "which files win at the next boot",
     "--profile --set --trust --root --format", "hardsock-tune conflicts busy-server"},
    {"export", cmd_export, "PROFILE...", "print for another tool (--to)",
     "--to --profile --set --trust --format", "hardsock-tune export --to ansible busy-server"},
    {"import", cmd_import, "FILE...", "sysctl.conf, tuned or Ansible files as a profile",
     "--system --root --format", "hardsock-tune import /etc/sysctl.conf > vendor.yaml"},
};

/* Of all commands; each names its own. */
static const struct {
    const char *name, *spelled, *help;
} option_helps[] = {
    {"--profile", "-p, --profile NAME|PATH", "a profile; may be repeated; `all` for check"},
    {"--set", "-s, --set NAME=NUMBER", "a variable of the profile"},
    {"--trust", "--trust FILE", "who may sign profiles"},
    {"--netns", "-N, --netns NAME|PID|PATH", "work in that network namespace"},
    {"--root", "-R, --root DIR", "a directory instead of / (tests, images)"},
    {"--from", "--from FILE", "a saved `sysctl -a` instead of this machine"},
    {"--baseline", "--baseline FILE", "compare with another machine's saved `sysctl -a`"},
    {"--state", "--state DIR", "where transactions are kept (/run/hardsock-tune)"},
    {"--to", "--to FORMAT", "sysctl.d, kubernetes, ansible, tuned or nixos"},
    {"--format", "-f, --format FORMAT", "pretty, tsv or json; check also prometheus, junit, sarif"},
    {"--output", "-o, --output NAME",
     "name of the sysctl.d file (90-hardsock.conf); check: a file that is replaced at once"},
    {"--history", "--history FILE", "what the last check saw, for ages and rates"},
    {"--waivers", "--waivers FILE", "instead of /etc/hardsock/waivers.yaml"},
    {"--dry-run", "-n, --dry-run", "only show what would be done"},
    {"--force", "--force",
     "revert: also what somebody else changed since; apply: also what revert could not undo"},
    {"--keep", "--keep", "leave and forget what somebody else changed"},
    {"--all", "--all", "every transaction"},
    {"--system", "--system[=LOADER]", "what sysctl.d sets at boot, as systemd or procps"},
    {"--keys", "--keys", "every setting that is known"},
    {"--symptoms", "--symptoms", "errors and messages that explain knows"},
    {"--strict", "--strict[=CLASS,...]", "missing keys, warnings and doubts count too"},
    {"--quiet", "-q, --quiet", "only what differs"},
};

static void
usage(FILE *to)
{
    /* A screen has 24 lines, and one of them is the prompt. */
    (void)fputs("usage: hardsock-tune [COMMAND] [OPTIONS]\n", to);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        (void)fprintf(to, "  %-10s %-13s %s\n", commands[i].name, commands[i].args,
                      commands[i].help);
    (void)fputs("\nWithout a command it checks, which only reads. `hardsock-tune COMMAND --help`\n"
                "has the options and an example; -V is the version.\n"
                "exit codes: 0 as wanted, 1 drift, 2 usage, 3 bad profile, 4 no permission,\n"
                "  5 refused by the kernel, 6 partly applied and rolled back, 7 conflict,\n"
                "  8 system error, 9 residue, 10 only settings of the whole machine left out\n",
                to);
}

enum {
    OPT_STATE = 256,
    OPT_TO,
    OPT_FORCE,
    OPT_KEEP,
    OPT_ALL,
    OPT_STRICT,
    OPT_KEYS,
    OPT_HISTORY,
    OPT_WAIVERS,
    OPT_FROM,
    OPT_BASELINE,
    OPT_TRUST,
    OPT_SYSTEM,
    OPT_SYMPTOMS,
};

static const struct option long_options[] = {
    {"profile", required_argument, NULL, 'p'},
    {"format", required_argument, NULL, 'f'},
    {"set", required_argument, NULL, 's'},
    {"netns", required_argument, NULL, 'N'},
    {"root", required_argument, NULL, 'R'},
    {"state", required_argument, NULL, OPT_STATE},
    {"to", required_argument, NULL, OPT_TO},
    {"output", required_argument, NULL, 'o'},
    {"dry-run", no_argument, NULL, 'n'},
    {"force", no_argument, NULL, OPT_FORCE},
    {"all", no_argument, NULL, OPT_ALL},
    {"keys", no_argument, NULL, OPT_KEYS},
    {"strict", optional_argument, NULL, OPT_STRICT},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"keep", no_argument, NULL, OPT_KEEP},
    {"history", required_argument, NULL, OPT_HISTORY},
    {"waivers", required_argument, NULL, OPT_WAIVERS},
    {"from", required_argument, NULL, OPT_FROM},
    {"baseline", required_argument, NULL, OPT_BASELINE},
    {"trust", required_argument, NULL, OPT_TRUST},
    {"system", optional_argument, NULL, OPT_SYSTEM},
    {"symptoms", no_argument, NULL, OPT_SYMPTOMS},
    {NULL, 0, NULL, 0},
};

/* The width of `-N, --netns NAME|PID|PATH`, and a gap. */
#define OPTION_WIDTH 27

static void
usage_of(const struct command *c)
{
    (void)printf("usage: hardsock-tune %s%s%s [OPTIONS]\n\n%s\n\n", c->name,
                 *c->args == '\0' ? "" : " ", c->args, c->help);
    for (const char *word = c->options; *word != '\0'; word += *word == ' ') {
        size_t len = strcspn(word, " ");

        for (size_t i = 0; i < sizeof(option_helps) / sizeof(option_helps[0]); i++)
            if (strlen(option_helps[i].name) == len &&
                memcmp(option_helps[i].name, word, len) == 0) {
                const char *spelled = option_helps[i].spelled;
                const char *gap = spelled[1] == '-' ? "    " : "";

                put_wrapped(2, mem_format("%s%-*s", gap, OPTION_WIDTH - (int)strlen(gap), spelled),
                            option_helps[i].help);
            }
        word += len;
    }
    (void)printf("\nexample: %s\n\nMore in hardsock-tune(8).\n", c->example);
}

static bool
take_format(struct options *o, const char *name)
{
    static const char *const names[] = {"pretty", "tsv", "json", "prometheus", "junit", "sarif"};

    for (int i = 0; i < (int)(sizeof(names) / sizeof(names[0])); i++)
        if (strcmp(name, names[i]) == 0) {
            o->format = (enum format)i;
            return true;
        }
    say("--format: '%s' is not pretty, tsv, json, prometheus, junit or sarif", name);
    return false;
}

static bool
take_set(struct options *o, char *text)
{
    char *equals = strchr(text, '=');
    struct assignment *a = &o->sets[o->n_sets];
    const char *why = "has no =NUMBER";

    if (o->n_sets == MAX_NAMES || equals == NULL || equals == text ||
        !number_parse(equals + 1, strlen(equals + 1), true, &a->value, &why)) {
        say("--set: '%s' %s", text, o->n_sets == MAX_NAMES ? "is one too many" : why);
        return false;
    }
    *equals = '\0';
    a->name = text;
    o->n_sets++;
    return true;
}

/* However / is spelled, it is the real one. */
static bool
take_root(struct options *o, const char *path)
{
    char *real = realpath(path, NULL);

    if (real == NULL) {
        say("--root: %s: %s", path, strerror(errno));
        return false;
    }
    o->root = strcmp(real, "/") == 0 ? NULL : path;
    free(real);
    return true;
}

/* As which of the two programs that load sysctl.d. */
static bool
take_system(struct options *o, const char *loader)
{
    o->system = true;
    o->loader = loader != NULL && strcmp(loader, "procps") == 0 ? loader : NULL;
    if (loader == NULL || o->loader != NULL || strcmp(loader, "systemd") == 0)
        return true;
    say("--system: '%s' is not systemd or procps", loader);
    return false;
}

static bool
take_flag(struct options *o, int c)
{
    switch (c) {
    case 'n':
        return o->dry_run = true;
    case OPT_FORCE:
        return o->force = true;
    case OPT_KEEP:
        return o->keep = true;
    case OPT_ALL:
        return o->all = true;
    case OPT_SYMPTOMS:
        return o->symptoms = true;
    case OPT_KEYS:
        return o->keys = true;
    case 'q':
        return o->quiet = true;
    default:
        return false;
    }
}

static bool
take_option(struct options *o, int c)
{
    switch (c) {
    case 'p':
        if (o->n_profiles == MAX_NAMES) {
            say("--profile: more than %d", MAX_NAMES);
            return false;
        }
        o->profiles[o->n_profiles++] = optarg;
        return true;
    case 'f':
        return take_format(o, optarg);
    case 's':
        return take_set(o, optarg);
    case 'N':
        o->netns = optarg;
        return true;
    case 'R':
        return take_root(o, optarg);
    case OPT_STATE:
        o->state = optarg;
        return true;
    case OPT_HISTORY:
        o->history = optarg;
        return true;
    case OPT_WAIVERS:
        o->waivers = optarg;
        return true;
    case OPT_FROM:
        o->from = optarg;
        return true;
    case OPT_BASELINE:
        o->baseline = optarg;
        return true;
    case OPT_TRUST:
        o->trust = optarg;
        return true;
    case OPT_SYSTEM:
        return take_system(o, optarg);
    case OPT_TO:
        o->to = optarg;
        return true;
    case 'o':
        o->output = optarg;
        return true;
    case OPT_STRICT:
        return strict_parse(optarg, &o->strict);
    default:
        return take_flag(o, c);
    }
}

static bool
wants_color(void)
{
    const char *choice = getenv("HARDSOCK_COLOR"), *none = getenv("NO_COLOR");

    if (choice != NULL && strcmp(choice, "always") == 0)
        return true;
    if ((choice != NULL && strcmp(choice, "never") == 0) || (none != NULL && *none != '\0'))
        return false;
    return isatty(STDOUT_FILENO) == 1;
}

/* Who asked for JSON gets a document, also when there was nothing to show or the command failed. */
static enum exit_code
answer(struct options *o, const struct command *command)
{
    enum exit_code rv;

    if (o->format > FORMAT_JSON && command->fn != cmd_check)
        return fail_with(EXIT_USAGE, "--format: %s knows pretty, tsv and json", command->name);
    if (o->from != NULL && command->fn != cmd_check && command->fn != cmd_explain)
        return fail_with(EXIT_USAGE, "--from is for check and explain, which only read");
    if (o->baseline != NULL && command->fn != cmd_check)
        return fail_with(EXIT_USAGE, "--baseline is for check");
    o->image = command->fn == cmd_persist || command->fn == cmd_conflicts;
    rv = command->fn(o);
    if (o->format == FORMAT_JSON && !json_begun()) {
        json_head(command->name);
        json_tail(rv);
    }
    return rv;
}

static enum exit_code
no_command(const char *name)
{
    struct suggestion near = {.word = name};

    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        suggest(&near, commands[i].name);
    return fail_with(EXIT_USAGE, "no command '%s'%s See `hardsock-tune --help`.", name,
                     near.best == NULL ? "." : suggest_text(&near));
}

static enum exit_code
run(int argc, char **argv)
{
    struct options o = {.color = wants_color()};
    const struct command *command = &commands[0];
    bool help = false;
    int c;

    while ((c = getopt_long(argc, argv, "p:f:s:N:R:o:nqhV", long_options, NULL)) != -1) {
        help |= c == 'h';
        if (c == 'h')
            continue;
        if (c == 'V') {
            (void)puts("hardsock-tune " TUNE_VERSION);
            return EXIT_AS_WANTED;
        }
        if (!take_option(&o, c)) {
            (void)fputs("Try `hardsock-tune --help`.\n", stderr);
            return EXIT_USAGE;
        }
    }
    o.args = argv + optind;
    o.n_args = (size_t)(argc - optind);
    if (o.n_args > 0) {
        command = NULL;
        for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]) && command == NULL; i++)
            if (strcmp(o.args[0], commands[i].name) == 0)
                command = &commands[i];
        if (command == NULL)
            return no_command(o.args[0]);
        o.args++;
        o.n_args--;
        if (help)
            usage_of(command);
    } else if (help) {
        usage(stdout);
    }
    if (help)
        return EXIT_AS_WANTED;
    return answer(&o, command);
}

int
main(int argc, char **argv)
{
    static char buffer[16384];
    enum exit_code rv;

    (void)setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
    (void)signal(SIGPIPE, SIG_IGN);
    rv = out_finish(run(argc, argv));
    mem_release();
    return rv;
}
