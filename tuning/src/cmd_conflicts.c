/* cmd_conflicts.c: `conflicts`: which file wins at the next boot, for each key of the profiles.
 *
 * Both loaders are followed, since a machine may run either. What acts after them (udev for single
 * interfaces, tuned) is named too, when it is there.
 */
#include "conf.h"
#include "key.h"
#include "mem.h"
#include "out.h"
#include "winners.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct row {
    const char *key, *by, *where, *value, *wanted;
};

static void
show_row(const struct options *o, const struct row *w)
{
    if (o->format == FORMAT_JSON) {
        json_open(NULL, '{');
        json_text("key", w->key);
        json_text("by", w->by);
        json_text("where", w->where);
        json_text("value", w->value);
        json_text("wanted", w->wanted);
        json_close();
    } else if (o->format == FORMAT_TSV) {
        tsv_line(w->key, w->by, w->where, w->value, w->wanted, NULL);
    } else {
        (void)printf("  %s: %s (%s) sets %s, wanted %s\n", printable(w->key), printable(w->where),
                     w->by, printable(w->value), printable(w->wanted));
    }
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

/* The largest of all and the interface holds for rp_filter; udev writes single interfaces anew. */
static size_t
after_boot(const struct options *o, const struct sys *s, const struct item *it)
{
    const char *tuned = mem_format("%s/etc/tuned/active_profile", s->root);
    struct row w = {.key = key_show(it->setting->path), .wanted = it->target_text, .value = "?"};

    if (access(tuned, F_OK) != 0)
        return 0;
    w.by = "tuned";
    w.where = "/etc/tuned/active_profile";
    show_row(o, &w);
    return 1;
}

static size_t
look_at(const struct options *o, const struct sys *s, const struct conf conf[2],
        const struct item *it)
{
    size_t n = 0;

    for (int loader = 0; loader < 2; loader++) {
        const struct line *l = conf_winner(&conf[loader], it->setting->path);
        struct row w = {.key = key_show(it->setting->path), .wanted = it->target_text};

        if (l == NULL || agrees(it, l->value))
            continue;
        w.by = loader_name((enum loader)loader);
        w.where = mem_format("%s:%zu", l->file, l->number);
        w.value = l->value;
        show_row(o, &w);
        n++;
    }
    return n + after_boot(o, s, it);
}

size_t
winners_show(const struct options *o, const struct report *r)
{
    struct conf conf[2];
    size_t n = 0;

    conf_load(&r->sys, LOADER_SYSTEMD, &conf[LOADER_SYSTEMD]);
    conf_load(&r->sys, LOADER_PROCPS, &conf[LOADER_PROCPS]);
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->plans[i].n; k++)
            if (r->plans[i].items[k].target_text != NULL)
                n += look_at(o, &r->sys, conf, &r->plans[i].items[k]);
    return n;
}

enum exit_code
cmd_conflicts(const struct options *o)
{
    struct report r;
    enum exit_code rv = report_make(o, false, &r);
    size_t n;

    if (rv != EXIT_AS_WANTED)
        return rv;
    json_reset();
    if (o->format == FORMAT_JSON)
        json_open(NULL, '[');
    n = winners_show(o, &r);
    if (o->format == FORMAT_JSON)
        json_close();
    else if (o->format == FORMAT_PRETTY && n == 0)
        (void)puts("no file sets another value at the next boot");
    report_close(&r);
    return n > 0 ? EXIT_CONFLICT : EXIT_AS_WANTED;
}
