/* cmd_judge.c: `judge FILE...`: a verdict on each line of somebody's sysctl.conf or profile.
 *
 * Reads no setting of this machine: the answer is about the file, so that a pipeline gets the same
 * everywhere. A name that ends in .yaml or .yml is a profile, every other one is a sysctl.conf.
 */
#include "import.h"
#include "key.h"
#include "order.h"
#include "out.h"
#include "strict.h"

#include <stdio.h>
#include <string.h>

/* From good to bad. Fine is what somebody looked into; of most values of most settings nothing is
 * known, which is no praise: they are unjudged. Weighed is a doubt whose risk the author names. */
enum judgement {
    FINE,
    UNJUDGED,
    WEIGHED,
    REPEATED,
    UNKNOWN,
    RANGE,
    POINTLESS,
    DOUBTFUL,
    HARMFUL,
    INVALID
};

static const char *const names[] = {"fine",  "unjudged",  "weighed",  "repeated", "unknown",
                                    "range", "pointless", "doubtful", "harmful",  "invalid"};

struct verdict {
    enum judgement judgement;
    const char *file, *key, *value, *text;
    size_t line;
};

struct verdicts {
    struct verdict *items;
    size_t n, capacity;
    size_t counts[INVALID + 1];
};

static void
add(struct verdicts *all, const struct verdict *v)
{
    all->items = mem_grow(all->items, all->n, &all->capacity, sizeof(*all->items));
    all->items[all->n++] = *v;
    all->counts[v->judgement]++;
}

static void
set(struct verdict *v, enum judgement judgement, const char *text)
{
    v->judgement = judgement;
    v->text = text;
}

static enum judgement
of_level(enum level level)
{
    switch (level) {
    case LEVEL_HARMFUL:
        return HARMFUL;
    case LEVEL_DOUBTFUL:
        return DOUBTFUL;
    case LEVEL_POINTLESS:
        return POINTLESS;
    case LEVEL_RANGE:
        return RANGE;
    case LEVEL_NONE:
        return UNJUDGED;
    case LEVEL_FINE:
        break;
    }
    return FINE;
}

/* A key that any value can be wrong for, no matter who sets it. True if that settles it. */
static bool
judge_key(const char *path, struct verdict *ret)
{
    const struct kb_key *k = kb_find(path);
    const char *why;

    if (!key_allowed(path, &why))
        set(ret, k != NULL || strncmp(path, "net/", 4) == 0 ? DOUBTFUL : UNKNOWN,
            mem_format("this key %s", why));
    else if (k == NULL)
        set(ret, UNKNOWN, "not known to this tool, and not judged");
    else if (k->scope == SCOPE_NONE)
        set(ret, POINTLESS, mem_format("cannot be set: %s", kb_text(k, KB_MEANING)));
    else
        return false;
    return true;
}

static bool
is_default(const char *path, const struct value *v)
{
    struct value usual;

    return kb_default_value(kb_find(path), path, "", &usual) && value_equal(&usual, v);
}

#define NOTHING_KNOWN "not judged: neither harm nor good is known of this value"

static void
judge_value(const char *path, const struct value *v, struct verdict *ret)
{
    const char *text;
    enum level level = kb_judge_at(path, v, &text);

    set(ret, of_level(level), level == LEVEL_NONE ? NOTHING_KNOWN : text);
    if (level >= LEVEL_NONE && text == NULL && is_default(path, v))
        set(ret, FINE, "what current kernels start with");
}

/* Another line of the same variable, under the same name or its other one, that comes later. */
static const struct line *
later(const struct conf *c, size_t at)
{
    const char *path = c->lines[at].path, *alias = kb_alias(path);

    for (size_t i = at + 1; i < c->n; i++) {
        const struct line *l = &c->lines[i];

        if (l->fault == NULL && l->value != NULL &&
            (strcmp(l->path, path) == 0 || (alias != NULL && strcmp(l->path, alias) == 0)))
            return l;
    }
    return NULL;
}

static bool
set_by_file(const void *from, const char *path, struct value *ret)
{
    const struct conf *c = from;
    const char *comment;
    struct value v;

    for (size_t i = c->n; i-- > 0;) {
        const struct line *l = &c->lines[i];

        if (l->fault == NULL && l->value != NULL && strcmp(l->path, path) == 0 &&
            import_refusal(l, &v, &comment) == NULL) {
            *ret = v;
            return true;
        }
    }
    return false;
}

static void
judge_line(const struct conf *c, size_t at, struct verdict *ret)
{
    const struct line *l = &c->lines[at], *again;
    const char *comment = NULL, *why;
    struct value v;

    if (l->fault != NULL) {
        set(ret, INVALID, l->fault);
        return;
    }
    if (l->value == NULL) {
        ret->text = "excludes the key from patterns";
        return;
    }
    if ((again = later(c, at)) != NULL) {
        set(ret, REPEATED,
            mem_format("set again in %s, line %zu, as %s: that one holds", again->file,
                       again->number, key_show(again->path)));
        return;
    }
    if (l->pattern && !key_is_pattern(l->path)) {
        set(ret, UNKNOWN, "a pattern other than conf.*.key is not judged");
        return;
    }
    if (judge_key(l->path, ret))
        return;
    if ((why = import_refusal(l, &v, &comment)) != NULL) {
        set(ret, INVALID, why);
        return;
    }
    if (!value_rises(l->path, &v)) {
        set(ret, INVALID, "must rise from left to right");
        return;
    }
    judge_value(l->path, &v, ret);
    if ((ret->judgement <= UNJUDGED || ret->judgement == RANGE) &&
        (why = order_doubt(set_by_file, c, l->path)) != NULL)
        set(ret, DOUBTFUL, why);
    if (ret->judgement <= UNJUDGED && comment != NULL)
        set(ret, DOUBTFUL,
            "a comment behind a value: the kernel drops it for numbers, and takes "
            "it for a part of other values");
}

static enum exit_code
judge_conf(const char *path, struct verdicts *all)
{
    struct conf c = {.keep = true};
    enum exit_code rv = conf_file(path, false, &c);

    for (size_t i = 0; i < c.n; i++) {
        const struct line *l = &c.lines[i];
        struct verdict v = {.file = path,
                            .line = l->number,
                            .key = l->fault != NULL ? l->path : key_show(l->path),
                            .value = l->value};

        judge_line(&c, i, &v);
        add(all, &v);
    }
    return rv;
}

static void
judge_setting(const struct profile *p, const struct setting *s, struct verdict *ret)
{
    const char *text;
    enum level level = profile_judge(p, s, &text);

    set(ret, of_level(level), level == LEVEL_NONE ? NOTHING_KNOWN : text);
    if (level >= LEVEL_NONE && text == NULL && s->want == WANT_EXACT &&
        is_default(s->path, &s->values[0]))
        set(ret, FINE, "what current kernels start with");
    /* As for lint: the reader sees both, and whether the one answers the other. */
    if (level == LEVEL_DOUBTFUL && setting_names_risk(s))
        set(ret, WEIGHED, mem_format("%s; the profile says of its risk: %s", text, s->risk));
}

static enum exit_code
judge_profile(const struct options *o, const char *path, struct verdicts *all)
{
    struct options any = *o;
    struct profile p = {0};
    enum exit_code rv;

    any.unsigned_too = true;
    rv = profile_load(&any, strchr(path, '/') == NULL ? mem_format("./%s", path) : path, &p);
    for (size_t i = 0; rv == EXIT_AS_WANTED && i < p.n; i++) {
        const struct setting *s = &p.settings[i];
        struct verdict v = {.file = s->file,
                            .line = s->line,
                            .key = key_show(s->path),
                            .value = s->want == WANT_NOTHING ? NULL : setting_show(s)};

        /* A setting that is gone may well be unset, or remarked upon. */
        if (s->want == WANT_UNSET || s->want == WANT_NOTHING || !judge_key(s->path, &v))
            judge_setting(&p, s, &v);
        add(all, &v);
    }
    return rv;
}

static void
show_verdict(const struct options *o, const struct verdict *v)
{
    static const enum paint paints[] = {PAINT_GOOD, PAINT_DIM,  PAINT_WARN, PAINT_WARN, PAINT_WARN,
                                        PAINT_WARN, PAINT_WARN, PAINT_WARN, PAINT_BAD,  PAINT_BAD};
    const char *line = mem_format("%zu", v->line), *name = names[v->judgement];
    int column;

    if (o->format == FORMAT_JSON) {
        json_open(NULL, '{');
        json_text("file", v->file);
        json_number("line", (int64_t)v->line);
        json_text("verdict", name);
        json_text("key", v->key);
        json_text("value", v->value);
        json_text("text", v->text);
        json_close();
        return;
    }
    if (o->format == FORMAT_TSV) {
        tsv_line(v->file, line, name, v->key, v->value == NULL ? "" : v->value,
                 v->text == NULL ? "" : v->text, NULL);
        return;
    }
    column = printf("%s:%s: ", printable(v->file), line);
    put_painted(o, paints[v->judgement], name, 0);
    put_beside(column + (int)strlen(name), "  ",
               mem_format("%s%s%s", v->key, v->value == NULL ? "" : " = ",
                          v->value == NULL ? "" : v->value));
    if (v->text != NULL)
        put_wrapped(4, "", v->text);
}

static void
show(const struct options *o, const struct verdicts *all, enum exit_code rv)
{
    bool none = true;

    if (o->format == FORMAT_JSON) {
        json_head("judge");
        json_open("lines", '[');
    }
    for (size_t i = 0; i < all->n; i++)
        if (!o->quiet || all->items[i].judgement != FINE)
            show_verdict(o, &all->items[i]);
    if (o->format == FORMAT_JSON) {
        json_close();
        json_open("counts", '{');
        for (size_t i = 0; i <= INVALID; i++)
            json_number(names[i], (int64_t)all->counts[i]);
        json_close();
        json_tail(rv);
    }
    if (o->format != FORMAT_PRETTY)
        return;
    for (size_t i = 0; i <= INVALID; i++)
        if (all->counts[i] > 0) {
            (void)printf("%s%zu %s", none ? "" : ", ", all->counts[i], names[i]);
            none = false;
        }
    (void)puts(none ? "no settings" : "");
}

static bool
is_yaml(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot != NULL && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

enum exit_code
cmd_judge(const struct options *o)
{
    struct verdicts all = {0};
    enum exit_code rv = EXIT_AS_WANTED;
    size_t doubts = 0, strict = 0;

    if (o->n_args == 0)
        return fail_with(EXIT_USAGE, "judge wants a file, such as /etc/sysctl.conf");
    for (size_t i = 0; i < o->n_args && rv == EXIT_AS_WANTED; i++)
        rv =
            is_yaml(o->args[i]) ? judge_profile(o, o->args[i], &all) : judge_conf(o->args[i], &all);
    if (rv != EXIT_AS_WANTED)
        return rv;
    strict = (o->strict & STRICT_UNJUDGED) != 0 ? all.counts[UNJUDGED] : 0;
    for (size_t i = REPEATED; i <= DOUBTFUL; i++) {
        doubts += all.counts[i];
        strict += (o->strict & strict_of(names[i])) != 0 ? all.counts[i] : 0;
    }
    if (all.counts[HARMFUL] + all.counts[INVALID] + strict > 0)
        rv = EXIT_PROFILE;
    else if (doubts > 0)
        rv = EXIT_DRIFT;
    show(o, &all, rv);
    return rv;
}
