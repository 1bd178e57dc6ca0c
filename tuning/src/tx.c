/* tx.c: writing, reading back, and taking back.
 *
 * A failed write is not an unchanged key: the kernel may have taken the first fields of a list
 * before it refused the rest. So the failed key is restored too. Signals that would end the program
 * half way wait until it is done.
 */
#include "tx.h"

#include "key.h"
#include "mem.h"
#include "out.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void
change_add(struct changes *c, const char *action, const char *path, const char *before,
           const char *after, const char *note)
{
    c->items = mem_grow(c->items, c->n, &c->capacity, sizeof(*c->items));
    c->items[c->n++] = (struct change){action, path, before, after, note};
}

static void
show_change(const struct options *o, const struct change *c)
{
    const char *key = key_show(c->path);
    const char *before = c->before == NULL ? "" : c->before;
    const char *after = c->after == NULL ? "" : c->after;

    if (o->format == FORMAT_TSV) {
        tsv_line(c->action, key, before, after, c->note == NULL ? "" : c->note, NULL);
        return;
    }
    if (o->format == FORMAT_JSON) {
        json_open(NULL, '{');
        json_text("action", c->action);
        json_text("key", key);
        json_text("before", c->before);
        json_text("after", c->after);
        json_text("note", c->note);
        json_close();
        return;
    }
    put_entry(c->action, 9, key,
              mem_format("%s -> %s%s%s", *before == '\0' ? "(empty)" : before,
                         *after == '\0' ? "(empty)" : after, c->note == NULL ? "" : "   ",
                         c->note == NULL ? "" : c->note));
}

void
changes_show(const struct options *o, const struct changes *c, enum exit_code rv)
{
    if (o->format == FORMAT_JSON) {
        json_head(c->command);
        json_bool("dry_run", o->dry_run);
        json_number("transaction", c->id);
        json_open("changes", '[');
    }
    for (size_t i = 0; i < c->n; i++)
        show_change(o, &c->items[i]);
    if (o->format == FORMAT_JSON) {
        json_close();
        json_tail(rv);
    } else if (o->format == FORMAT_PRETTY && c->summary != NULL) {
        put_wrapped(0, "", c->summary);
    }
}

const char *
tx_strerror(int sys)
{
    if (sys == EMSGSIZE)
        return "the kernel took only a part of it";
    if (sys == EILSEQ)
        return "another value came back";
    return strerror(sys);
}

bool
tx_holds(const struct sys *s, const char *path, const char *text)
{
    const struct kb_key *k = kb_find(path);
    struct value have, want;
    const char *why;
    int sys;

    if (sys_value(s, path, &have, NULL, &sys) != ACCESS_OK)
        return false;
    if (k == NULL || !value_parse(text, have.type, k->fields, false, &want, &why))
        (void)value_parse(text, TYPE_TEXT, 0, false, &want, &why);
    return value_equal(&have, &want);
}

int
tx_set(const struct sys *s, const char *path, const char *text)
{
    int sys = sys_write(s, path, text);

    if (sys == 0 && !tx_holds(s, path, text))
        sys = EILSEQ;
    return sys;
}

static int
set_back(const struct sys *s, const struct entry *e)
{
    return tx_holds(s, e->path, e->before) ? 0 : tx_set(s, e->path, e->before);
}

void
tx_restore(const struct sys *s, const struct journal *j, const bool *chosen, int *ret_sys)
{
    for (size_t i = j->n; i-- > 0;)
        if (chosen[i] && j->entries[i].kind == ENTRY_STEP)
            ret_sys[i] = set_back(s, &j->entries[i]);
    /* Each may change another one, which is then set once more. */
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < j->n; i++)
            if (chosen[i] && (round == 0 || ret_sys[i] == 0))
                ret_sys[i] = set_back(s, &j->entries[i]);
    for (size_t i = 0; i < j->n; i++)
        if (chosen[i] && ret_sys[i] == 0 && !tx_holds(s, j->entries[i].path, j->entries[i].before))
            ret_sys[i] = EILSEQ;
}

/* Takes back the first n entries and all that are no steps. Returns how many are left. */
static size_t
take_back(const struct sys *s, const struct journal *j, size_t n, struct changes *c,
          struct journal *left)
{
    bool *chosen = mem_alloc((j->n + 1) * sizeof(*chosen));
    bool *changed = mem_alloc((j->n + 1) * sizeof(*changed));
    int *sys = mem_alloc((j->n + 1) * sizeof(*sys));

    for (size_t i = 0; i < j->n; i++) {
        chosen[i] = i < n || j->entries[i].kind != ENTRY_STEP;
        changed[i] = chosen[i] && !tx_holds(s, j->entries[i].path, j->entries[i].before);
    }
    tx_restore(s, j, chosen, sys);
    for (size_t i = j->n; i-- > 0;) {
        const struct entry *e = &j->entries[i];

        if (sys[i] != 0) {
            change_add(c, "residue", e->path, e->after, e->before, tx_strerror(sys[i]));
            journal_add(left, e->path, e->before, e->after, e->kind);
        } else if (changed[i] && e->kind == ENTRY_STEP) {
            change_add(c, "restored", e->path, e->after, e->before, NULL);
        }
    }
    return left->n;
}

/* After the first n entries were tried. sys is why the last one failed, 0 if none did. */
static enum exit_code
give_up(const struct sys *s, const struct store *st, const struct journal *j, size_t n, int sys,
        struct changes *c)
{
    struct journal left = *j;

    left.entries = NULL;
    left.n = left.capacity = 0;
    left.state = TX_PARTLY;
    if (take_back(s, j, n, c, &left) > 0) {
        c->summary = "failed, and not everything could be taken back; see `hardsock-tune status`";
        (void)journal_save(st, &left);
        return EXIT_RESIDUE;
    }
    journal_remove(st, j->id);
    if (n > 1 || sys == 0) {
        c->summary = "failed; everything is as it was before";
        return EXIT_PARTLY;
    }
    c->summary = "refused by the kernel; nothing was changed";
    return sys == EACCES || sys == EPERM || sys == EROFS ? EXIT_PERMISSION : EXIT_REFUSED;
}

static int
write_entry(const struct sys *s, const struct entry *e, struct changes *c)
{
    bool keep = e->kind == ENTRY_KEEP, ignored;
    int sys;

    if (e->kind == ENTRY_SIDE || (keep && tx_holds(s, e->path, e->after)))
        return 0;
    if ((sys = tx_set(s, e->path, e->after)) != 0) {
        change_add(c, "refused", e->path, e->before, e->after, tx_strerror(sys));
        say("%s: cannot be set to '%s': %s", key_show(e->path), e->after, tx_strerror(sys));
        return sys;
    }
    change_add(c, "set", e->path, e->before, e->after,
               keep ? "another setting had changed it" : tx_lasting(e, &ignored));
    return 0;
}

static bool
has_entry(const struct journal *j, const char *path)
{
    for (size_t i = 0; i < j->n; i++)
        if (strcmp(j->entries[i].path, path) == 0)
            return true;
    return false;
}

static bool
is_optional(const struct plan *plan, const char *path)
{
    for (size_t i = 0; i < plan->n; i++)
        if (strcmp(plan->items[i].setting->path, path) == 0)
            return plan->items[i].setting->optional;
    return false;
}

/* Whether a step that failed may be left out: nothing was changed, and nothing hangs on it. */
static bool
may_be_missed(const struct sys *s, const struct plan *plan, const struct entry *e)
{
    return is_optional(plan, e->path) && tx_holds(s, e->path, e->before);
}

static void
drop_entry(struct journal *j, size_t i)
{
    j->n--;
    memmove(&j->entries[i], &j->entries[i + 1], (j->n - i) * sizeof(*j->entries));
}

/* Whether the plan holds, now that all is written. What was right before and is not any more joins
 * the journal, to be taken back with the rest. */
static bool
plan_holds(const struct sys *s, const struct plan *plan, struct journal *j, struct changes *c)
{
    bool ok = true;

    for (size_t i = 0; i < plan->n; i++) {
        const struct item *it = &plan->items[i];
        const char *path = it->setting->path;
        bool written = has_entry(j, path);

        if (it->target_text == NULL || (it->status == STATUS_DRIFT && !written) ||
            tx_holds(s, path, it->target_text))
            continue;
        change_add(c, "lost", path, it->target_text, NULL, "another setting changed it again");
        say("%s: is not %s any more: another setting of these profiles changed it", key_show(path),
            it->target_text);
        if (!written)
            journal_add(j, path, it->current_text, it->target_text, ENTRY_KEEP);
        ok = false;
    }
    return ok;
}

enum exit_code
tx_run(const struct sys *s, const struct store *st, const struct plan *plan, struct journal *j,
       struct changes *c)
{
    enum exit_code rv;
    struct value v;
    int sys;

    if ((rv = journal_save(st, j)) != EXIT_AS_WANTED)
        return rv;
    for (size_t i = 0; i < j->n;) {
        if ((sys = write_entry(s, &j->entries[i], c)) == 0)
            i++;
        else if (may_be_missed(s, plan, &j->entries[i]))
            drop_entry(j, i);
        else
            return give_up(s, st, j, i + 1, sys, c);
    }
    if (!plan_holds(s, plan, j, c))
        return give_up(s, st, j, j->n, 0, c);
    for (size_t i = 0; i < j->n; i++)
        if (j->entries[i].kind == ENTRY_SIDE &&
            sys_value(s, j->entries[i].path, &v, &j->entries[i].after, &sys) != ACCESS_OK)
            j->entries[i].after = NULL;
    j->state = TX_APPLIED;
    return journal_save(st, j);
}
