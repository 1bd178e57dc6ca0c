/* cmd_lint.c: `lint FILE...`: is a profile well formed, and does it make sense?
 *
 * Errors are what `check` would refuse; warnings are what the knowledge base doubts. With --strict
 * warnings count as errors. A doubt whose risk the author names is a note: it is told with that
 * risk beside it, for the reader to see whether the one answers the other, and does not count.
 */
#include "key.h"
#include "mem.h"
#include "out.h"
#include "profile.h"
#include "strict.h"

#include <string.h>

struct remark {
    const char *severity, *class, *file, *key, *value, *text;
    size_t line, column;
};

struct remarks {
    struct remark *items;
    size_t n, capacity;
};

static void
add(struct remarks *all, const struct remark *m)
{
    all->items = mem_grow(all->items, all->n, &all->capacity, sizeof(*all->items));
    all->items[all->n++] = *m;
}

/* How much a warning of that class counts: nothing, or one. */
static size_t
warn(const struct options *o, struct remarks *all, const struct setting *w, const char *class,
     const char *text)
{
    const char *key = key_show(w->path);

    say_at(w->file, w->line, w->column, "warning: %s %s [%s]", key, text, class);
    add(all, &(struct remark){.severity = "warning",
                              .class = class,
                              .file = w->file,
                              .line = w->line,
                              .column = w->column,
                              .key = key,
                              .text = text});
    return (o->strict & strict_of(class)) != 0;
}

static size_t
judge_value(const struct options *o, struct remarks *all, const struct profile *p,
            const struct setting *w)
{
    bool weighed;
    const char *text, *warning = profile_warning(p, w, &weighed), *severity;
    enum level level = profile_judge(p, w, &text);

    if (warning == NULL)
        return 0;
    severity = weighed ? "note" : "warning";
    say_at(w->file, w->line, w->column, "%s: %s", severity, warning);
    add(all, &(struct remark){.severity = severity,
                              .class = level_name(level),
                              .file = w->file,
                              .line = w->line,
                              .column = w->column,
                              .key = key_show(w->path),
                              .value = setting_show(w),
                              .text = text});
    return !weighed && (o->strict & strict_of(level_name(level))) != 0;
}

static size_t
doubts(const struct options *o, struct remarks *all, const struct profile *p)
{
    size_t n = 0;

    for (size_t i = 0; i < p->n; i++) {
        const struct setting *w = &p->settings[i];

        if (kb_find(w->path) == NULL) {
            n += warn(o, all, w, "unknown", "is not known to this tool: no checks");
            continue;
        }
        if (strpbrk(w->path, "*?[") != NULL && !key_is_pattern(w->path))
            n += warn(o, all, w, "pattern",
                      "means an interface of that very name; only a whole * in its place is a "
                      "pattern");
        n += judge_value(o, all, p, w);
        if (w->why == NULL && w->verdict == NULL)
            n += warn(o, all, w, "why", "does not say why");
        if (!setting_names_risk(w) && w->want != WANT_NOTHING)
            n += warn(o, all, w, "risk", "does not name its risk");
    }
    return n;
}

/* What was said of a profile that cannot be loaded. */
static void
add_errors(struct remarks *all, size_t from)
{
    size_t n;
    const struct message *messages = said(&n);

    for (size_t i = from; i < n; i++)
        add(all, &(struct remark){.severity = "error",
                                  .class = "profile",
                                  .file = messages[i].file,
                                  .line = messages[i].line,
                                  .column = messages[i].column,
                                  .text = messages[i].file == NULL ? messages[i].text
                                                                   : messages[i].what});
}

static void
show_remark(const struct options *o, const struct remark *m)
{
    if (o->format == FORMAT_TSV) {
        tsv_line(m->file == NULL ? "" : m->file, mem_format("%zu", m->line),
                 mem_format("%zu", m->column), m->severity, m->class, m->key == NULL ? "" : m->key,
                 m->value == NULL ? "" : m->value, m->text, NULL);
        return;
    }
    json_open(NULL, '{');
    json_text("file", m->file);
    json_number("line", (int64_t)m->line);
    json_number("column", (int64_t)m->column);
    json_text("severity", m->severity);
    json_text("class", m->class);
    json_text("key", m->key);
    json_text("value", m->value);
    json_text("text", m->text);
    json_close();
}

enum exit_code
cmd_lint(const struct options *o)
{
    enum exit_code rv = EXIT_AS_WANTED;
    struct options any = *o;
    struct remarks all = {0};

    any.unsigned_too = true;
    if (o->n_args == 0)
        return fail_with(EXIT_USAGE, "lint wants a file or the name of a profile");
    for (size_t i = 0; i < o->n_args; i++) {
        struct profile p = {0};
        size_t before;
        enum exit_code one;

        (void)said(&before);
        one = profile_load(&any, o->args[i], &p);
        if (one != EXIT_AS_WANTED)
            add_errors(&all, before);
        else if (doubts(o, &all, &p) > 0)
            one = EXIT_PROFILE;
        if (one != EXIT_AS_WANTED)
            rv = one;
    }
    json_rows(o, "lint", "remarks");
    for (size_t i = 0; o->format != FORMAT_PRETTY && i < all.n; i++)
        show_remark(o, &all.items[i]);
    json_rows_end(o, rv);
    return rv;
}
