/* cmd_conflicts.c: `conflicts`: which file wins at the next boot, for each key of the profiles.
 *
 * Both loaders are followed, since a machine may run either. tuned, which acts after them, is named
 * too, when it is there.
 */
#include "conf.h"
#include "key.h"
#include "mem.h"
#include "out.h"
#include "winners.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void
winner_show(const struct options *o, const struct winner *w, const char *first)
{
    if (o->format == FORMAT_JSON) {
        json_open(NULL, '{');
        json_text("key", w->key);
        json_text("by", w->by);
        json_text("where", w->where);
        json_text("value", w->value);
        json_text("wanted", w->wanted);
        json_close();
    } else if (o->format == FORMAT_TSV && first != NULL) {
        tsv_line(first, w->key, w->by, w->where, w->value, w->wanted, NULL);
    } else if (o->format == FORMAT_TSV) {
        tsv_line(w->key, w->by, w->where, w->value, w->wanted, NULL);
    } else {
        (void)printf("  %s: %s (%s) sets %s, wanted %s\n", printable(w->key), printable(w->where),
                     w->by, printable(w->value), printable(w->wanted));
    }
}

static void
add(struct winners *all, const struct item *it, const char *by, const char *where,
    const char *value)
{
    all->items = mem_grow(all->items, all->n, &all->capacity, sizeof(*all->items));
    all->items[all->n++] =
        (struct winner){key_show(it->setting->path), by, where, value, it->target_text};
}

static bool
agrees(const struct item *it, const char *text)
{
    struct value v;
    const char *why;

    return value_parse(text, it->target.type, it->kb == NULL ? 0 : it->kb->fields, false, &v,
                       &why) &&
           value_equal(&v, &it->target);
}

/* The place, and the name that is used there if it is another one of the same variable. */
static const char *
where_of(const struct line *l, const struct item *it)
{
    if (l->pattern || strcmp(l->path, it->setting->path) == 0)
        return mem_format("%s:%zu", l->file, l->number);
    return mem_format("%s:%zu, as %s", l->file, l->number, key_show(l->path));
}

void
winners_find(const struct sys *s, const struct plan plans[], size_t n, struct winners *ret)
{
    const bool tuned = access(mem_format("%s/etc/tuned/active_profile", s->root), F_OK) == 0;
    struct winners all = {0};
    struct conf conf[2];

    conf_load(s, LOADER_SYSTEMD, false, &conf[LOADER_SYSTEMD]);
    conf_load(s, LOADER_PROCPS, false, &conf[LOADER_PROCPS]);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < plans[i].n; k++) {
            const struct item *it = &plans[i].items[k];

            for (int loader = 0; it->target_text != NULL && loader < 2; loader++) {
                const struct line *l = conf_winner(&conf[loader], it->setting->path);

                if (l != NULL && !agrees(it, l->value))
                    add(&all, it, loader_name((enum loader)loader), where_of(l, it), l->value);
            }
            if (it->target_text != NULL && tuned)
                add(&all, it, "tuned", "/etc/tuned/active_profile", "?");
        }
    *ret = all;
}

enum exit_code
cmd_conflicts(const struct options *o)
{
    struct report r;
    struct winners all;
    enum exit_code rv = report_make(o, false, &r);

    if (rv != EXIT_AS_WANTED)
        return rv;
    winners_find(&r.sys, r.plans, r.n, &all);
    rv = all.n > 0 ? EXIT_CONFLICT : EXIT_AS_WANTED;
    json_rows(o, "conflicts", "conflicts");
    for (size_t i = 0; i < all.n; i++)
        winner_show(o, &all.items[i], NULL);
    json_rows_end(o, rv);
    if (o->format == FORMAT_PRETTY && all.n == 0)
        (void)puts("no file sets another value at the next boot");
    report_close(&r);
    return rv;
}
