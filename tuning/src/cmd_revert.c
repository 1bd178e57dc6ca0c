/* cmd_revert.c: `revert` and `status`: taking transactions back, and what became of them.
 *
 * Restores a key only while it still holds what was written; what somebody else changed since stays
 * (unless --force), and so does its journal. A transaction that was killed is taken back the same
 * way: keys that it had not reached hold their old value already.
 */
#include "key.h"
#include "mem.h"
#include "out.h"
#include "tx.h"

#include <stdio.h>

struct outcome {
    size_t foreign, residue, restored;
};

static const char *
current_of(const struct sys *s, const char *path)
{
    struct value v;
    const char *text;
    int sys;

    return sys_value(s, path, &v, &text, &sys) == ACCESS_OK ? text : NULL;
}

/* Side effects have no value of ours in a transaction that did not end. */
static bool
still_ours(const struct sys *s, const struct journal *j, const struct entry *e)
{
    if (e->after == NULL || (e->side && j->state == TX_APPLYING))
        return e->side;
    return tx_holds(s, e->path, e->after);
}

static void
restore(const struct options *o, const struct sys *s, const struct entry *e, bool ours,
        struct changes *c, struct journal *left, struct outcome *out)
{
    const char *now = current_of(s, e->path);
    int sys;

    if (now == NULL) {
        change_add(c, "gone", e->path, NULL, NULL, "the key is not there any more");
        return;
    }
    if (tx_holds(s, e->path, e->before))
        return;
    if (!ours && !o->force) {
        change_add(c, "kept", e->path, now, now, "changed by someone else since; --force restores");
        journal_add(left, e->path, e->before, e->after, e->side);
        out->foreign++;
        return;
    }
    if (o->dry_run) {
        change_add(c, "would set", e->path, now, e->before, NULL);
        return;
    }
    if ((sys = tx_set(s, e->path, e->before)) == 0) {
        change_add(c, "restored", e->path, now, e->before, NULL);
        out->restored++;
        return;
    }
    say("%s: cannot be set back to '%s': %s", key_show(e->path), e->before, tx_strerror(sys));
    change_add(c, "residue", e->path, now, e->before, tx_strerror(sys));
    journal_add(left, e->path, e->before, e->after, e->side);
    out->residue++;
}

static enum exit_code
revert_one(const struct options *o, const struct sys *s, const struct store *st, unsigned id,
           struct changes *c, struct outcome *out)
{
    struct journal j, left;
    enum exit_code rv = journal_load(st, id, &j);
    bool *ours;

    if (rv != EXIT_AS_WANTED)
        return rv;
    if (!journal_is_ours(&j, s) && !o->force)
        return fail_with(EXIT_CONFLICT, "transaction %u belongs to another boot or namespace", id);
    left = j;
    left.entries = NULL;
    left.n = left.capacity = 0;
    left.state = TX_PARTLY;
    /* Asked before anything is restored, which has side effects of its own. */
    ours = mem_alloc((j.n + 1) * sizeof(*ours));
    for (size_t i = 0; i < j.n; i++)
        ours[i] = still_ours(s, &j, &j.entries[i]);
    for (size_t i = j.n; i-- > 0;)
        if (!j.entries[i].side)
            restore(o, s, &j.entries[i], ours[i], c, &left, out);
    for (size_t i = 0; i < j.n; i++)
        if (j.entries[i].side)
            restore(o, s, &j.entries[i], ours[i], c, &left, out);
    c->id = id;
    if (o->dry_run)
        return EXIT_AS_WANTED;
    if (left.n > 0)
        return journal_save(st, &left);
    journal_remove(st, id);
    return EXIT_AS_WANTED;
}

static enum exit_code
revert(const struct options *o, const struct sys *s, struct store *st, struct changes *c)
{
    struct outcome out = {0};
    enum exit_code rv = store_open(o, s, !o->dry_run, st);
    unsigned *ids;
    size_t n;

    if (rv != EXIT_AS_WANTED)
        return rv;
    ids = store_ids(st, &n);
    c->summary = "nothing to take back";
    for (size_t i = n; i-- > 0 && rv == EXIT_AS_WANTED;) {
        rv = revert_one(o, s, st, ids[i], c, &out);
        c->summary = o->dry_run ? "dry run: nothing was written" : "taken back";
        if (!o->all || out.foreign + out.residue > 0)
            break;
    }
    if (rv != EXIT_AS_WANTED)
        return rv;
    if (out.residue > 0)
        return EXIT_PARTLY;
    return out.foreign > 0 ? EXIT_CONFLICT : EXIT_AS_WANTED;
}

enum exit_code
cmd_revert(const struct options *o)
{
    struct changes c = {.command = "revert"};
    struct store st = {.dir = -1};
    struct sys s;
    enum exit_code rv = sys_open(o, &s);

    if (rv != EXIT_AS_WANTED)
        return rv;
    rv = revert(o, &s, &st, &c);
    if (rv == EXIT_AS_WANTED || c.n > 0 || o->format == FORMAT_JSON)
        changes_show(o, &c, rv);
    store_close(&st);
    sys_close(&s);
    return rv;
}
