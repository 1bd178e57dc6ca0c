/* setting.c: one wanted setting, from texts to values.
 *
 * The number of fields is checked here, before any write: the kernel accepts too few and drops too
 * many without a word.
 */
#include "profile.h"

#include "key.h"
#include "mem.h"
#include "order.h"
#include "plan.h"
#include "tree.h"

#include <string.h>

static bool
bad(const struct setting *s, const char *text, const char *why)
{
    say_at(s->file, s->line, s->column, "%s: '%.80s' %s", key_show(s->path), text, why);
    return false;
}

/* A range is given by its ends and holds for every field. */
static size_t
fields_of(const struct setting *s, const struct kb_key *k)
{
    return s->want == WANT_RANGE ? 1 : k->fields;
}

static bool
makes_sense(const struct setting *s, const struct kb_key *k)
{
    const char *name = want_name(s->want);

    if (s->want == WANT_UNSET)
        return (k != NULL && (k->type == TYPE_PORTS || k->scope == SCOPE_NONE)) ||
               bad(s, name, "is for lists of ports, and for keys that are gone");
    if (s->want == WANT_CONTAINS)
        return (k != NULL && (k->type == TYPE_PORTS || (k->type == TYPE_WORDS && !s->listening))) ||
               bad(s, name, "is for lists of ports or words");
    if (s->want == WANT_AT_LEAST || s->want == WANT_AT_MOST || s->want == WANT_RANGE)
        return (k != NULL && k->type == TYPE_INTS) || bad(s, name, "is for known numbers");
    return true;
}

bool
value_rises(const char *path, const struct value *v)
{
    static const char *const rising[] = {"net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem",
                                         "net/ipv4/tcp_mem", "net/ipv4/ip_local_port_range", NULL};

    for (size_t r = 0; v->type == TYPE_INTS && rising[r] != NULL; r++)
        for (size_t i = 1; strcmp(rising[r], path) == 0 && i < v->n; i++)
            if (v->num[i] < v->num[i - 1])
                return false;
    return true;
}

bool
setting_finish(struct setting *s, const struct vars *vars)
{
    const struct kb_key *k = kb_find(s->path);
    const char *why = NULL;

    if (!makes_sense(s, k))
        return false;
    if (k != NULL && k->scope == SCOPE_NONE && s->want != WANT_UNSET && s->want != WANT_NOTHING)
        return bad(s, want_name(s->want),
                   mem_format("cannot be had: %s%s", kb_text(k, KB_MEANING),
                              kb_text(k, KB_REMOVED) != NULL ? " (removed)" : ""));
    for (size_t i = 0; i < s->n; i++) {
        const char *text = expr_expand(vars, s->texts[i], &why);

        if (text == NULL)
            return bad(s, s->texts[i], why);
        if (!value_parse(text, k == NULL ? TYPE_TEXT : k->type, k == NULL ? 0 : fields_of(s, k),
                         true, &s->values[i], &why))
            return bad(s, text, why);
        if (s->want != WANT_RANGE && !value_rises(s->path, &s->values[i]))
            return bad(s, value_show(&s->values[i]), "must rise from left to right");
    }
    if (s->want == WANT_RANGE && s->values[0].num[0] > s->values[1].num[0])
        return bad(s, s->texts[0], "is above the other end of the range");
    if (s->scope != NULL && k != NULL &&
        (k->scope == SCOPE_NAMESPACE) != (strcmp(s->scope, "namespace") == 0))
        return bad(s, s->scope,
                   mem_format("is not its scope, which is: %s", kb_scope_name(k->scope)));
    return true;
}

bool
setting_names_risk(const struct setting *s)
{
    /* What `import` once wrote is in profiles that people keep. */
    return s->risk != NULL && strcmp(s->risk, "Not stated there.") != 0;
}

bool
needs_reservation(const struct profile *p, const char *path)
{
    for (size_t i = 0; strcmp(path, RANGE_KEY) == 0 && i < p->n; i++)
        if (p->settings[i].listening)
            return true;
    return false;
}

/* A bound is met by everything beyond it: what is known against it must hold at both ends, and be
 * the same there. */
static enum level
judge_bound(const struct setting *s, const struct kb_key *k, const char **ret_text)
{
    enum level level = kb_judge_at(s->path, &s->values[0], ret_text);
    struct value end = s->values[s->n - 1];
    const char *beyond;

    for (size_t i = 0; s->want != WANT_RANGE && i < end.n; i++)
        end.num[i] = s->want == WANT_AT_LEAST ? INT64_MAX : k->min <= k->max ? k->min : 0;
    if (level >= LEVEL_NONE ||
        (kb_judge_at(s->path, &end, &beyond) == level && beyond == *ret_text))
        return level;
    *ret_text = NULL;
    return LEVEL_NONE;
}

/* Without what its other settings make of it. */
static enum level
judge_alone(const struct profile *p, const struct setting *s, const char **ret_text)
{
    enum level worst = LEVEL_FINE;

    *ret_text = NULL;
    switch (s->want) {
    case WANT_UNSET:
    case WANT_NOTHING:
        *ret_text = "sets nothing";
        return LEVEL_FINE;
    case WANT_AT_LEAST:
    case WANT_AT_MOST:
    case WANT_RANGE:
        return judge_bound(s, kb_find(s->path), ret_text);
    case WANT_CONTAINS:
        *ret_text = s->listening ? "reserves what listens on the machine" : NULL;
        return s->listening ? LEVEL_FINE : LEVEL_NONE;
    case WANT_EXACT:
    case WANT_ONE_OF:
        break;
    }
    if (needs_reservation(p, s->path)) {
        *ret_text = "with every port that is listened on reserved";
        return LEVEL_FINE;
    }
    for (size_t i = 0; i < s->n; i++) {
        const char *text;
        enum level level = kb_judge_at(s->path, &s->values[i], &text);

        if (i == 0 || level < worst) {
            worst = level;
            *ret_text = text;
        }
    }
    return worst;
}

/* Of a machine that had the kernel's defaults before. */
static bool
set_by_profile(const void *from, const char *path, struct value *ret)
{
    const struct profile *p = from;

    for (size_t i = 0; i < p->n; i++) {
        const struct setting *s = &p->settings[i];

        if (strcmp(s->path, path) != 0 || s->want == WANT_UNSET || s->want == WANT_NOTHING ||
            s->want == WANT_CONTAINS)
            continue;
        if (!s->or_default)
            *ret = plan_nearest(s, ret, NULL);
        return true;
    }
    return false;
}

enum level
profile_judge(const struct profile *p, const struct setting *s, const char **ret_text)
{
    enum level level = judge_alone(p, s, ret_text);
    const char *doubt = level < LEVEL_RANGE ? NULL : order_doubt(set_by_profile, p, s->path);

    if (doubt == NULL)
        return level;
    *ret_text = doubt;
    return LEVEL_DOUBTFUL;
}

const char *
profile_warning(const struct profile *p, const struct setting *s, bool *ret_weighed)
{
    const char *text;
    enum level level = profile_judge(p, s, &text);

    *ret_weighed = level == LEVEL_DOUBTFUL && setting_names_risk(s);
    if (level >= LEVEL_NONE)
        return NULL;
    return mem_format("%s = %s: %s [%s]%s%s", key_show(s->path), setting_show(s), text,
                      level_name(level), *ret_weighed ? "; the profile says of its risk: " : "",
                      *ret_weighed ? s->risk : "");
}

const char *
want_name(enum want want)
{
    static const char *const names[] = {"value",  "at_least", "at_most", "range",
                                        "one_of", "contains", "unset",   "remark"};

    return names[want];
}

const char *
setting_show(const struct setting *s)
{
    struct text t = {0};

    switch (s->want) {
    case WANT_EXACT:
        return value_show(&s->values[0]);
    case WANT_AT_LEAST:
        return mem_format("at least %s", value_show(&s->values[0]));
    case WANT_AT_MOST:
        return mem_format("at most %s", value_show(&s->values[0]));
    case WANT_RANGE:
        return mem_format("%s to %s", value_show(&s->values[0]), value_show(&s->values[1]));
    case WANT_ONE_OF:
        for (size_t i = 0; i < s->n; i++)
            text_format(&t, "%s%s", i > 0 ? " or " : "", value_show(&s->values[i]));
        return text_str(&t);
    case WANT_CONTAINS:
        text_puts(&t, value_show(&s->values[0]));
        if (s->listening)
            text_format(&t, "%severy service's port", t.len > 0 ? " and " : "");
        return mem_format("with %s", text_str(&t));
    case WANT_UNSET:
        return "not set";
    case WANT_NOTHING:
        break;
    }
    return "";
}
