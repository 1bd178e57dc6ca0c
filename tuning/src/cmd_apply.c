/* cmd_apply.c: `apply PROFILE...`: the settings of the profiles, in one transaction.
 *
 * The lock is taken before the machine is looked at, so that what is compared is what is changed.
 * --dry-run takes no lock, makes no directory and opens nothing for writing.
 */
#include "mem.h"
#include "tx.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

static const char *
now_text(void)
{
    char text[32];
    time_t now = time(NULL);
    struct tm tm;

    if (gmtime_r(&now, &tm) == NULL || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return "-";
    return mem_dup(text);
}

/* From here on an interrupt waits: half a transaction helps nobody. kill -9 is what journals are
 * for. */
static void
hold_signals(void)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGQUIT);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

static enum exit_code
next_id(const struct store *st, const struct sys *s, unsigned *ret_id)
{
    struct journals all;
    enum exit_code rv = store_load(st, s, &all);
    const struct journal *last = all.n == 0 ? NULL : &all.items[all.n - 1];

    if (rv != EXIT_AS_WANTED)
        return rv;
    *ret_id = all.next;
    if (last != NULL && last->state != TX_APPLIED)
        return fail_with(EXIT_CONFLICT,
                         "transaction %u is %s; take it back first: hardsock-tune revert", last->id,
                         tx_state_name(last->state));
    return EXIT_AS_WANTED;
}

static enum exit_code
apply(const struct options *o, struct store *st, struct report *r, struct changes *c)
{
    struct journal j;
    struct plan plan;
    enum exit_code rv = tx_prepare(o, r, &plan, &j);
    enum exit_code left_out = rv;
    bool ignored;

    if (!tx_can_run(rv))
        return rv;
    tx_order(&j);
    c->summary = left_out == EXIT_GLOBAL ? "nothing to do, but for settings of the whole machine"
                 : left_out != EXIT_AS_WANTED
                     ? "nothing to do, but not all settings can be had here"
                     : "nothing to do: everything is as wanted";
    if (j.n == 0)
        return rv;
    if (o->dry_run) {
        for (size_t i = 0; i < j.n; i++)
            change_add(c, "would set", j.entries[i].path, j.entries[i].before, j.entries[i].after,
                       tx_lasting(&j.entries[i], &ignored));
        c->summary = "dry run: nothing was written";
        return rv;
    }
    if ((rv = next_id(st, &r->sys, &j.id)) != EXIT_AS_WANTED)
        return rv;
    c->id = j.id;
    j.time = now_text();
    tx_add_sides(&r->sys, &plan, &j);
    hold_signals();
    c->summary =
        mem_format("applied as transaction %u%s; hardsock-tune revert takes it back", j.id,
                   left_out == EXIT_GLOBAL ? ", without the settings of the whole machine" : "");
    rv = tx_run(&r->sys, st, &plan, &j, c);
    return rv == EXIT_AS_WANTED ? left_out : rv;
}

static enum exit_code
lock(const struct options *o, struct store *st)
{
    struct sys s;
    enum exit_code rv;

    if (o->dry_run)
        return EXIT_AS_WANTED;
    if ((rv = sys_open(o, &s)) != EXIT_AS_WANTED)
        return rv;
    rv = store_open(o, &s, true, st);
    sys_close(&s);
    return rv;
}

enum exit_code
cmd_apply(const struct options *o)
{
    struct changes c = {.command = "apply"};
    struct store st = {.dir = -1};
    struct report r;
    enum exit_code rv;

    if (o->n_args + o->n_profiles == 0)
        return fail_with(EXIT_USAGE, "apply wants a profile; nothing is applied by default");
    if ((rv = lock(o, &st)) != EXIT_AS_WANTED)
        return rv;
    if ((rv = report_make(o, false, &r)) != EXIT_AS_WANTED) {
        store_close(&st);
        return rv;
    }
    rv = apply(o, &st, &r, &c);
    if (tx_can_run(rv) || c.n > 0 || o->format == FORMAT_JSON)
        changes_show(o, &c, rv);
    store_close(&st);
    report_close(&r);
    return rv;
}
