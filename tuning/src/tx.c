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
    (void)printf("  %-9s %-38s ", c->action, printable(key));
    (void)printf("%s -> %s%s%s\n", *before == '\0' ? "(empty)" : printable(before),
                 *after == '\0' ? "(empty)" : printable(after), c->note == NULL ? "" : "   ",
                 c->note == NULL ? "" : c->note);
}

void
changes_show(const struct options *o, const struct changes *c, enum exit_code rv)
{
    json_reset();
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
        (void)printf("%s\n", c->summary);
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

/* Takes back entries [0, n), last first; side effects after that. Returns how many are left. */
static size_t
take_back(const struct sys *s, const struct journal *j, size_t n, struct changes *c,
          struct journal *left)
{
    for (size_t turn = n; turn-- > 0;) {
        const struct entry *e = &j->entries[turn];
        int sys;

        if (tx_holds(s, e->path, e->before))
            continue;
        sys = tx_set(s, e->path, e->before);
        change_add(c, sys == 0 ? "restored" : "residue", e->path, e->after, e->before,
                   sys == 0 ? NULL : tx_strerror(sys));
        if (sys != 0)
            journal_add(left, e->path, e->before, e->after, e->side);
    }
    for (size_t i = 0; i < j->n; i++) {
        const struct entry *e = &j->entries[i];
        int sys;

        if (!e->side || tx_holds(s, e->path, e->before))
            continue;
        if ((sys = tx_set(s, e->path, e->before)) == 0)
            continue;
        change_add(c, "residue", e->path, e->after, e->before, tx_strerror(sys));
        journal_add(left, e->path, e->before, NULL, true);
    }
    return left->n;
}

static enum exit_code
give_up(const struct sys *s, const struct store *st, struct journal *j, size_t failed, int sys,
        struct changes *c)
{
    struct journal left = *j;
    const struct entry *e = &j->entries[failed];

    left.entries = NULL;
    left.n = left.capacity = 0;
    left.state = TX_PARTLY;
    change_add(c, "refused", e->path, e->before, e->after, tx_strerror(sys));
    say("%s: cannot be set to '%s': %s", key_show(e->path), e->after, tx_strerror(sys));
    if (take_back(s, j, failed + 1, c, &left) > 0) {
        c->summary = "failed, and not everything could be taken back; see `hardsock-tune status`";
        (void)journal_save(st, &left);
        return EXIT_PARTLY;
    }
    journal_remove(st, j->id);
    if (failed > 0) {
        c->summary = "failed; everything is as it was before";
        return EXIT_PARTLY;
    }
    c->summary = "refused by the kernel; nothing was changed";
    return sys == EACCES || sys == EPERM || sys == EROFS ? EXIT_PERMISSION : EXIT_REFUSED;
}

/* An interface's own key, once written, stops following conf.default: there is no way back. */
static const char *
note_on(const char *path)
{
    static const char *const kinds[] = {"net/ipv4/conf/", "net/ipv6/conf/"};

    for (size_t i = 0; i < 2; i++)
        if (strncmp(path, kinds[i], 14) == 0 && strncmp(path + 14, "all/", 4) != 0 &&
            strncmp(path + 14, "default/", 8) != 0)
            return "no longer follows conf.default, for good";
    return NULL;
}

enum exit_code
tx_run(const struct sys *s, const struct store *st, struct journal *j, struct changes *c)
{
    enum exit_code rv;
    struct value v;
    int sys;

    if ((rv = journal_save(st, j)) != EXIT_AS_WANTED)
        return rv;
    for (size_t i = 0; i < j->n; i++) {
        const struct entry *e = &j->entries[i];

        if (e->side)
            continue;
        if ((sys = tx_set(s, e->path, e->after)) != 0)
            return give_up(s, st, j, i, sys, c);
        change_add(c, "set", e->path, e->before, e->after, note_on(e->path));
    }
    for (size_t i = 0; i < j->n; i++)
        if (j->entries[i].side &&
            sys_value(s, j->entries[i].path, &v, &j->entries[i].after, &sys) != ACCESS_OK)
            j->entries[i].after = NULL;
    j->state = TX_APPLIED;
    return journal_save(st, j);
}
