/* cmd_revert.c: `revert`: taking transactions back.
 *
 * Restores a key only while it still holds what was written; what somebody else changed since stays
 * (unless --force), and so does its journal (unless --keep). A transaction that was killed is taken
 * back the same way: keys that it had not reached hold their old value already.
 */
#include "key.h"
#include "mem.h"
#include "out.h"
#include "tx.h"

#include <stdio.h>

struct outcome {
    size_t foreign, residue, restored;
};

enum fate {
    FATE_GONE,    /* the key is not there any more */
    FATE_SAME,    /* as it was before, but restoring another key may change it */
    FATE_OURS,    /* to be restored */
    FATE_FOREIGN, /* changed by someone else: only by force */
    FATE_THEIRS,  /* changed by someone else, and never by us */
};

static bool
is_step(const struct entry *e)
{
    return e->kind == ENTRY_STEP || e->kind == ENTRY_THEIRS;
}

/* A write that failed or was killed half way leaves some fields old and some new. */
static bool
half_written(const struct entry *e, const struct value *now)
{
    const struct kb_key *k = kb_find(e->path);
    struct value before, after;
    const char *why;

    if (k == NULL || !value_parse(e->before, k->type, k->fields, false, &before, &why) ||
        !value_parse(e->after, k->type, k->fields, false, &after, &why))
        return false;
    return value_between(now, &before, &after);
}

static enum fate
fate_of(const struct sys *s, const struct journal *j, const struct entry *e, const char **ret_now)
{
    bool half = j->state != TX_APPLIED;
    struct value now;
    int sys;

    *ret_now = NULL;
    if (sys_value(s, e->path, &now, ret_now, &sys) != ACCESS_OK)
        return FATE_GONE;
    if (tx_holds(s, e->path, e->before))
        return FATE_SAME;
    if (e->kind == ENTRY_THEIRS)
        return FATE_FOREIGN;
    /* Half way, there is no telling what the side effects should be. */
    if (e->kind != ENTRY_STEP && half)
        return FATE_OURS;
    if (e->kind == ENTRY_KEEP && j->state == TX_APPLIED)
        return FATE_THEIRS;
    if (e->after == NULL || tx_holds(s, e->path, e->after) || (half && half_written(e, &now)))
        return FATE_OURS;
    return FATE_FOREIGN;
}

static void
report_entry(const struct options *o, const struct entry *e, enum fate fate, const char *now,
             int sys, struct changes *c, struct journal *left, struct outcome *out)
{
    if (fate == FATE_GONE) {
        change_add(c, "gone", e->path, NULL, NULL, "the key is not there any more");
    } else if (fate == FATE_FOREIGN && !o->force) {
        change_add(c, "kept", e->path, now, now, "changed by someone else since");
        journal_add(left, e->path, e->before, e->after, ENTRY_THEIRS);
        out->foreign++;
    } else if (sys != 0) {
        say("%s: cannot be set back to '%s': %s", key_show(e->path), e->before, tx_strerror(sys));
        change_add(c, "residue", e->path, now, e->before, tx_strerror(sys));
        journal_add(left, e->path, e->before, e->after, e->kind);
        out->residue++;
    } else if (fate == FATE_OURS || fate == FATE_FOREIGN) {
        change_add(c, o->dry_run ? "would set" : "restored", e->path, now, e->before, NULL);
        out->restored++;
    }
}

/* Killed from here on, the next revert knows what was ours although values are half way by then. */
static enum exit_code
begin(const struct store *st, const struct journal *j, const enum fate *fates)
{
    struct journal half = *j;
    bool any = false;

    half.entries = NULL;
    half.n = half.capacity = 0;
    half.state = TX_REVERTING;
    for (size_t i = 0; i < j->n; i++) {
        const struct entry *e = &j->entries[i];
        bool theirs = fates[i] == FATE_FOREIGN;

        any |= fates[i] == FATE_OURS;
        if (fates[i] != FATE_THEIRS)
            journal_add(&half, e->path, e->before, e->after, theirs ? ENTRY_THEIRS : e->kind);
    }
    return any ? journal_save(st, &half) : EXIT_AS_WANTED;
}

static enum exit_code
revert_one(const struct options *o, const struct sys *s, const struct store *st,
           const struct journal *j, struct changes *c, struct outcome *out)
{
    struct journal left = *j;
    enum fate *fates = mem_alloc((j->n + 1) * sizeof(*fates));
    const char **now = mem_alloc((j->n + 1) * sizeof(*now));
    bool *chosen = mem_alloc((j->n + 1) * sizeof(*chosen));
    int *sys = mem_alloc((j->n + 1) * sizeof(*sys));
    enum exit_code rv = EXIT_AS_WANTED;

    left.entries = NULL;
    left.n = left.capacity = 0;
    left.state = TX_PARTLY;
    /* Asked before anything is restored, which has side effects of its own. */
    for (size_t i = 0; i < j->n; i++) {
        fates[i] = fate_of(s, j, &j->entries[i], &now[i]);
        chosen[i] = fates[i] == FATE_SAME || fates[i] == FATE_OURS ||
                    (fates[i] == FATE_FOREIGN && o->force);
    }
    if (!o->dry_run && (rv = begin(st, j, fates)) == EXIT_AS_WANTED)
        tx_restore(s, j, chosen, sys);
    if (rv != EXIT_AS_WANTED)
        return rv;
    for (size_t i = j->n; i-- > 0;)
        if (is_step(&j->entries[i]))
            report_entry(o, &j->entries[i], fates[i], now[i], sys[i], c, &left, out);
    for (size_t i = 0; i < j->n; i++)
        if (!is_step(&j->entries[i]))
            report_entry(o, &j->entries[i], fates[i], now[i], sys[i], c, &left, out);
    c->id = j->id;
    if (o->dry_run)
        return EXIT_AS_WANTED;
    if (left.n > 0 && !o->keep)
        return journal_save(st, &left);
    journal_remove(st, j->id);
    return EXIT_AS_WANTED;
}

static const char *
summary_of(const struct options *o, const struct outcome *out)
{
    size_t n = out->foreign + out->residue;

    if (o->dry_run)
        return "dry run: nothing was written";
    if (n == 0)
        return "taken back";
    return mem_format("%zu taken back, %zu not%s", out->restored, n,
                      o->keep ? ", and forgotten"
                              : "; revert --force restores what someone else changed, "
                                "revert --keep leaves and forgets it");
}

static enum exit_code
revert(const struct options *o, const struct sys *s, struct store *st, struct changes *c)
{
    struct outcome out = {0};
    enum exit_code rv = store_open(o, s, !o->dry_run, st);
    struct journals all;

    if (rv == EXIT_AS_WANTED)
        rv = store_load(st, s, &all);
    if (rv != EXIT_AS_WANTED)
        return rv;
    c->summary = "nothing to take back";
    if (all.n == 0)
        store_say_foreign(st, &all);
    for (size_t i = all.n; i-- > 0;) {
        if ((rv = revert_one(o, s, st, &all.items[i], c, &out)) != EXIT_AS_WANTED)
            return rv;
        c->summary = summary_of(o, &out);
        if (!o->all || (out.foreign + out.residue > 0 && !o->keep))
            break;
    }
    if (o->keep)
        return EXIT_AS_WANTED;
    if (out.residue > 0)
        return EXIT_RESIDUE;
    return out.foreign > 0 ? EXIT_CONFLICT : EXIT_AS_WANTED;
}

enum exit_code
cmd_revert(const struct options *o)
{
    struct changes c = {.command = "revert"};
    struct store st = {.dir = -1};
    struct sys s;
    enum exit_code rv;

    if (o->force && o->keep)
        return fail_with(EXIT_USAGE, "--force and --keep exclude each other");
    if ((rv = sys_open(o, &s)) != EXIT_AS_WANTED)
        return rv;
    rv = revert(o, &s, &st, &c);
    if (rv == EXIT_AS_WANTED || c.n > 0 || o->format == FORMAT_JSON)
        changes_show(o, &c, rv);
    store_close(&st);
    sys_close(&s);
    return rv;
}
