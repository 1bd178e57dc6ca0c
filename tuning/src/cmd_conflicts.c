/* cmd_conflicts.c: `conflicts`: which file wins at the next boot, for each key of the profiles.
 *
 * Both loaders are followed, since a machine may run either. tuned, which acts after them, is named
 * too, when it is there.
 */
#include "conf.h"
#include "key.h"
#include "later.h"
#include "mem.h"
#include "out.h"
#include "winners.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

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
        put_wrapped(2, "",
                    mem_format("%s: %s (%s) sets %s, wanted %s", w->key, w->where, w->by, w->value,
                               w->wanted));
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

/* Whether what is set later leaves the wanted value as it is. */
static bool
keeps(const struct setter *one, const struct item *it)
{
    struct value v;
    const char *why;

    if (one->value == NULL)
        return false;
    if (one->bound == '\0' || it->target.type != TYPE_INTS ||
        !value_parse(one->value, it->target.type, it->kb == NULL ? 0 : it->kb->fields, false, &v,
                     &why))
        return agrees(it, one->value);
    for (size_t i = 0; i < v.n; i++)
        if (one->bound == '>' ? v.num[i] > it->target.num[i] : v.num[i] < it->target.num[i])
            return false;
    return true;
}

/* A pattern stands for interfaces, and `all` and `default` are none. */
static bool
sets(const struct setter *one, const char *path)
{
    if (strpbrk(one->path, "*?[") == NULL)
        return strcmp(one->path, path) == 0;
    return strstr(path, "/conf/all/") == NULL && strstr(path, "/conf/default/") == NULL &&
           fnmatch(one->path, path, FNM_PATHNAME) == 0;
}

/* The last one of each program counts. */
static void
add_later(struct winners *all, const struct item *it, const struct setters *later)
{
    const char *path = it->setting->path, *alias = kb_alias(path);

    for (size_t i = 0; i < later->n; i++) {
        const struct setter *one = &later->items[i];
        bool again = false;

        if (!sets(one, path) && (alias == NULL || !sets(one, alias)))
            continue;
        for (size_t k = i + 1; k < later->n; k++)
            again |= strcmp(later->items[k].by, one->by) == 0 &&
                     strcmp(later->items[k].path, one->path) == 0;
        if (!again && !keeps(one, it))
            add(all, it, one->by, one->where, one->value == NULL ? "?" : one->value);
    }
}

void
winners_find(const struct sys *s, const struct plan plans[], size_t n, struct winners *ret)
{
    struct setters later;
    struct winners all = {0};
    struct conf conf[2];

    conf_load(s, LOADER_SYSTEMD, false, &conf[LOADER_SYSTEMD]);
    conf_load(s, LOADER_PROCPS, false, &conf[LOADER_PROCPS]);
    later_find(s, &later);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < plans[i].n; k++) {
            const struct item *it = &plans[i].items[k];

            for (int loader = 0; it->target_text != NULL && loader < 2; loader++) {
                const struct line *l = conf_winner(&conf[loader], it->setting->path);

                if (l != NULL && !agrees(it, l->value))
                    add(&all, it, loader_name((enum loader)loader), where_of(l, it), l->value);
            }
            if (it->target_text != NULL)
                add_later(&all, it, &later);
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
    for (size_t i = 0; i < r.n; i++)
        report_withhold(&r, &r.plans[i]);
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
