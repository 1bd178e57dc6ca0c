/* schema.c: what a profile may say, field by field.
 *
 * An unknown field is an error with its place: a typo in `at_least` must not silently turn a limit
 * into no limit. Texts of values are only gathered here; setting_finish parses them when every
 * variable is known.
 */
#include "profile.h"

#include "key.h"
#include "mem.h"
#include "tree.h"

#include <stdio.h>
#include <string.h>

static bool
bad(const char *file, const struct node *n, const char *what)
{
    say_at(file, n->line, n->column, "%s", what);
    return false;
}

static bool
unknown(const char *file, const struct node *n, const char *where, const char *known)
{
    say_at(file, n->key_line, n->key_column, "unknown field '%.60s' in %s; known: %s", n->key,
           where, known);
    return false;
}

static bool
take_text(const char *file, const struct node *n, const char **ret_text)
{
    if (n->kind != NODE_SCALAR)
        return bad(file, n, "expected a text here");
    if (n->text[0] == '\0')
        return bad(file, n, "is empty");
    *ret_text = n->text;
    return true;
}

static bool
is_kernel_version(const char *s)
{
    return s[0] >= '1' && s[0] <= '9' && s[strspn(s, "0123456789.")] == '\0' && strlen(s) < 16;
}

static bool
take_version(const char *file, const struct node *n, const char **ret_text)
{
    if (!take_text(file, n, ret_text))
        return false;
    return is_kernel_version(*ret_text) || bad(file, n, "expected a kernel version such as 5.14");
}

static bool
take_module(const char *file, const struct node *n, const char **ret_text)
{
    if (!take_text(file, n, ret_text))
        return false;
    return strpbrk(*ret_text, "/. ") == NULL || bad(file, n, "expected the name of a module");
}

static bool
is_yaml_guess(const struct node *n)
{
    static const char *const words[] = {"yes", "no",  "on",   "off",   "true",  "false", "Yes",
                                        "No",  "On",  "Off",  "True",  "False", "YES",   "NO",
                                        "ON",  "OFF", "TRUE", "FALSE", "~",     "null",  NULL};

    for (size_t i = 0; n->plain && words[i] != NULL; i++)
        if (strcmp(words[i], n->text) == 0)
            return true;
    return false;
}

static bool
take_scalar(const char *file, const struct node *n, const char **ret_text)
{
    if (!take_text(file, n, ret_text))
        return false;
    if (is_yaml_guess(n))
        return bad(file, n, "YAML programs disagree about this word: write 0 or 1, or quote it");
    return true;
}

/* A scalar, or a list whose items stand beside each other: [4096, 16384, 4194304]. */
static bool
take_value(const char *file, const struct node *n, const char **ret_text)
{
    struct text t = {0};

    if (n->kind == NODE_SCALAR)
        return take_scalar(file, n, ret_text);
    if (n->kind == NODE_MAP || n->first == NULL)
        return bad(file, n, "expected a value or a list of values");
    for (const struct node *item = n->first; item != NULL; item = item->next) {
        const char *text;

        if (!take_scalar(file, item, &text))
            return false;
        text_format(&t, "%s%s", t.len > 0 ? " " : "", text);
    }
    *ret_text = text_str(&t);
    return true;
}

static bool
take_choices(const char *file, const struct node *n, struct setting *s)
{
    if (n->kind != NODE_LIST || n->first == NULL)
        return bad(file, n, "expected a list");
    for (const struct node *item = n->first; item != NULL; item = item->next) {
        if (s->n == MAX_CHOICES)
            return bad(file, item, "too many choices");
        if (!take_value(file, item, &s->texts[s->n]))
            return false;
        s->n++;
    }
    if (s->want == WANT_RANGE && s->n != 2)
        return bad(file, n, "range wants [lowest, highest]");
    return true;
}

/* contains: [80, 443, listening] */
static bool
take_contents(const char *file, const struct node *n, struct setting *s)
{
    struct text t = {0};

    if (n->kind != NODE_LIST || n->first == NULL)
        return bad(file, n, "expected a list");
    for (const struct node *item = n->first; item != NULL; item = item->next) {
        const char *text;

        if (!take_scalar(file, item, &text))
            return false;
        if (item->plain && strcmp(text, "listening") == 0)
            s->listening = true;
        else
            text_format(&t, "%s%s", t.len > 0 ? " " : "", text);
    }
    s->texts[s->n++] = text_str(&t);
    return true;
}

static bool
take_want(const char *file, const struct node *n, struct setting *s)
{
    static const struct {
        const char *name;
        enum want want;
    } wants[] = {
        {"value", WANT_EXACT}, {"at_least", WANT_AT_LEAST}, {"at_most", WANT_AT_MOST},
        {"range", WANT_RANGE}, {"one_of", WANT_ONE_OF},     {"contains", WANT_CONTAINS},
        {"unset", WANT_UNSET},
    };

    for (size_t i = 0; i < sizeof(wants) / sizeof(wants[0]); i++) {
        if (strcmp(n->key, wants[i].name) != 0)
            continue;
        if (s->want != WANT_NOTHING)
            return bad(file, n,
                       "one setting has one of value, at_least, at_most, range, one_of, "
                       "contains, unset");
        s->want = wants[i].want;
        if (s->want == WANT_RANGE || s->want == WANT_ONE_OF)
            return take_choices(file, n, s);
        if (s->want == WANT_CONTAINS)
            return take_contents(file, n, s);
        if (s->want == WANT_UNSET)
            return (n->kind == NODE_SCALAR && strcmp(n->text, "true") == 0) ||
                   bad(file, n, "unset takes only true");
        s->n = 1;
        return take_value(file, n, &s->texts[0]);
    }
    return unknown(
        file, n, "a setting",
        "value, at_least, at_most, range, one_of, contains, unset, why, risk, since, "
        "source, wrong_if, scope, requires, or_default, excluded, optional, article, verdict");
}

static bool
take_requires(const char *file, const struct node *map, const char **ret_kernel,
              const char **ret_module)
{
    if (map->kind != NODE_MAP)
        return bad(file, map, "expected kernel: and module: here");
    for (const struct node *n = map->first; n != NULL; n = n->next) {
        if (strcmp(n->key, "kernel") == 0) {
            if (!take_version(file, n, ret_kernel))
                return false;
        } else if (strcmp(n->key, "module") == 0) {
            if (!take_module(file, n, ret_module))
                return false;
        } else {
            return unknown(file, n, "requires", "kernel, module");
        }
    }
    return true;
}

static bool
take_scope(const char *file, const struct node *n, const char **ret_scope)
{
    if (!take_text(file, n, ret_scope))
        return false;
    return strcmp(*ret_scope, "namespace") == 0 || strcmp(*ret_scope, "global") == 0 ||
           bad(file, n, "scope is namespace or global");
}

static bool
take_true(const char *file, const struct node *n, bool *ret)
{
    *ret = n->kind == NODE_SCALAR && strcmp(n->text, "true") == 0;
    return *ret || bad(file, n, mem_format("%s takes only true", n->key));
}

static bool
take_field(const char *file, const struct node *n, struct setting *s)
{
    if (strcmp(n->key, "why") == 0)
        return take_text(file, n, &s->why);
    if (strcmp(n->key, "risk") == 0)
        return take_text(file, n, &s->risk);
    if (strcmp(n->key, "source") == 0)
        return take_text(file, n, &s->source);
    if (strcmp(n->key, "wrong_if") == 0)
        return take_text(file, n, &s->wrong_if);
    if (strcmp(n->key, "verdict") == 0)
        return take_text(file, n, &s->verdict);
    if (strcmp(n->key, "article") == 0)
        return take_value(file, n, &s->article);
    if (strcmp(n->key, "since") == 0)
        return take_version(file, n, &s->since);
    if (strcmp(n->key, "scope") == 0)
        return take_scope(file, n, &s->scope);
    if (strcmp(n->key, "requires") == 0)
        return take_requires(file, n, &s->since, &s->module);
    if (strcmp(n->key, "or_default") == 0)
        return take_true(file, n, &s->or_default);
    if (strcmp(n->key, "excluded") == 0)
        return take_true(file, n, &s->excluded);
    if (strcmp(n->key, "optional") == 0)
        return take_true(file, n, &s->optional);
    return take_want(file, n, s);
}

/* The fields; or the value alone, which gives no reason and which lint doubts for that. */
static bool
take_body(const char *file, const struct node *n, struct setting *s)
{
    if (n->kind == NODE_SCALAR) {
        s->want = WANT_EXACT;
        s->n = 1;
        return take_scalar(file, n, &s->texts[0]);
    }
    if (n->kind != NODE_MAP)
        return bad(file, n, "expected a value, or fields such as value: and why:");
    for (const struct node *f = n->first; f != NULL; f = f->next)
        if (!take_field(file, f, s))
            return false;
    if (s->excluded && s->want != WANT_NOTHING)
        return bad(file, n, "is excluded from patterns, and so wants nothing itself");
    if (s->want == WANT_NOTHING && s->verdict == NULL && !s->excluded)
        return bad(file, n, "says nothing: value, at_least, ... or a verdict is missing");
    if (s->why == NULL && s->verdict == NULL)
        return bad(file, n, "does not say why");
    return true;
}

static bool
take_setting(const char *file, const struct node *n, struct profile *p)
{
    struct setting s = {.file = file,
                        .profile = p->name,
                        .line = n->key_line,
                        .column = n->key_column,
                        .want = WANT_NOTHING};
    char path[KEY_MAX];
    const char *why;

    if (!key_parse(n->key, strlen(n->key), path, &why) || !key_allowed(path, &why)) {
        say_at(file, n->key_line, n->key_column, "'%.80s' %s", n->key, why);
        return false;
    }
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->settings[i].path, path) == 0) {
            say_at(file, n->key_line, n->key_column, "%s stands here twice; first in line %zu",
                   key_show(path), p->settings[i].line);
            return false;
        }
    s.path = mem_dup(path);
    if (!take_body(file, n, &s))
        return false;
    p->settings = mem_grow(p->settings, p->n, &p->capacity, sizeof(*p->settings));
    p->settings[p->n++] = s;
    return true;
}

static bool
take_variables(const char *file, const struct node *map, struct profile *p)
{
    const char *why;
    int64_t value;

    if (map->kind != NODE_MAP)
        return bad(file, map, "expected name: number");
    for (const struct node *n = map->first; n != NULL; n = n->next) {
        if (n->key[strspn(n->key, "abcdefghijklmnopqrstuvwxyz_0123456789")] != '\0' ||
            n->key[0] < '_')
            return bad(file, n, "a variable's name is made of a-z, 0-9 and _");
        if (n->kind != NODE_SCALAR || !number_parse(n->text, strlen(n->text), true, &value, &why))
            return bad(file, n, "a variable is a plain decimal number");
        vars_add(&p->vars, n->key, value);
    }
    return true;
}

static bool
take_settings(const char *file, const struct node *map, struct profile *p)
{
    if (map->kind != NODE_MAP)
        return bad(file, map, "expected keys such as net.core.somaxconn: here");
    for (const struct node *n = map->first; n != NULL; n = n->next)
        if (!take_setting(file, n, p))
            return false;
    return true;
}

/* A name goes into journals and into comments of sysctl.d files: a line break in it would put lines
 * of its own there. */
static bool
take_name(const char *file, const struct node *n, const char **ret_name)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

    if (!take_text(file, n, ret_name))
        return false;
    if (**ret_name == '\0' || strlen(*ret_name) > 64 ||
        strspn(*ret_name, allowed) != strlen(*ret_name))
        return bad(file, n, "a name is 1 to 64 letters, digits, dots, underscores and hyphens");
    return true;
}

static bool
take_top(const char *file, const struct node *n, struct profile *p, const struct node **ret_extends)
{
    if (strcmp(n->key, "name") == 0)
        return take_name(file, n, &p->name);
    if (strcmp(n->key, "summary") == 0)
        return take_text(file, n, &p->summary);
    if (strcmp(n->key, "requires") == 0)
        return take_requires(file, n, &p->kernel, &p->module);
    if (strcmp(n->key, "variables") == 0)
        return take_variables(file, n, p);
    if (strcmp(n->key, "settings") == 0)
        return take_settings(file, n, p);
    if (strcmp(n->key, "extends") == 0) {
        *ret_extends = n;
        return true;
    }
    return unknown(file, n, "a profile", "name, summary, extends, requires, variables, settings");
}

bool
profile_read(const char *file, const struct node *root, struct profile *p,
             const struct node **ret_extends)
{
    *ret_extends = NULL;
    if (root->kind != NODE_MAP)
        return bad(file, root, "a profile is a mapping with name:, summary: and settings:");
    for (const struct node *n = root->first; n != NULL; n = n->next)
        if (!take_top(file, n, p, ret_extends))
            return false;
    if (p->name == NULL || p->summary == NULL)
        return bad(file, root, "a profile needs name: and summary:");
    if (p->n == 0 && *ret_extends == NULL)
        return bad(file, root, "a profile needs settings: or extends:");
    for (size_t i = 0; i < p->n; i++)
        p->settings[i].profile = p->name;
    return true;
}
