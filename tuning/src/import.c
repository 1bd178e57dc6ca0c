/* import.c: see import.h.
 *
 * Values are read as the kernel would (octal, hexadecimal) and written as plain decimals. What this
 * tool does not touch is left out with a message. The last assignment of a key wins, as in the
 * loaders.
 */
#include "import.h"

#include "key.h"
#include "tree.h"

#include <string.h>

/* The document and its fields, then a key with up to three fields for each setting. */
#define NODES_ALL 4
#define NODES_EACH 4

static bool
is_printable(const char *s)
{
    for (; *s != '\0'; s += printable_length(s))
        if (printable_length(s) == 0)
            return false;
    return true;
}

/* False for a line that a later one replaces, which is told: the loaders keep one of each name,
 * and take "-key" for one that sets nothing. */
static bool
is_counted(const struct conf *c, size_t at)
{
    const struct line *l = &c->lines[at];
    const char *alias = l->value == NULL ? NULL : kb_alias(l->path);

    for (size_t i = at + 1; i < c->n; i++) {
        const struct line *later = &c->lines[i];
        const bool same = strcmp(later->path, l->path) == 0;

        if (!same && (alias == NULL || later->value == NULL || strcmp(later->path, alias) != 0))
            continue;
        say("%s:%zu: %s%s is %s by %s:%zu%s, which holds", l->file, l->number,
            l->value == NULL ? "-" : "", key_show(l->path),
            later->value == NULL ? "taken back" : "set again", later->file, later->number,
            same ? "" : mem_format(", as %s", key_show(later->path)));
        return false;
    }
    return true;
}

/* Why no profile may hold that name, or NULL. */
static const char *
refused_name(const char *path)
{
    const char *why = NULL;

    if (!is_printable(path))
        return "has a name that is no plain UTF-8";
    return key_allowed(path, &why) ? NULL : why;
}

/* "-key": no pattern reaches it. False where none of those that are taken would, and where the name
 * is a pattern itself, which the loaders compare with keys letter by letter: it does nothing. */
static bool
take_exclusion(const struct line *l, const struct setting *settings, size_t n, struct setting *ret)
{
    const char *why = refused_name(l->path);
    bool reached = false;

    if (why != NULL) {
        say("%s:%zu: left out: -%s %s", l->file, l->number, key_show(l->path), why);
        return false;
    }
    for (size_t i = 0; i < n && !l->pattern; i++)
        reached |= key_is_pattern(settings[i].path) && key_matches(settings[i].path, l->path);
    if (!reached) {
        say("%s:%zu: left out: -%s excludes nothing: no pattern that is taken would reach it",
            l->file, l->number, key_show(l->path));
        return false;
    }
    *ret =
        (struct setting){.path = l->path,
                         .file = l->file,
                         .line = l->number,
                         .column = 1,
                         .want = WANT_NOTHING,
                         .excluded = true,
                         .why = l->comment != NULL && is_printable(l->comment) ? l->comment : NULL};
    return true;
}

/* A number ends at a blank, and the kernel reads no further: what follows is a comment. Every other
 * kind of value would hold the comment itself. */
static const char *
trailing_comment(const char *value)
{
    for (const char *s = value; *s != '\0'; s++)
        if ((*s == '#' || *s == ';') && s != value && (s[-1] == ' ' || s[-1] == '\t'))
            return s;
    return NULL;
}

/* Why the line cannot be a setting of a profile, or NULL. */
static const char *
refusal(const struct line *l, const struct kb_key *k, const char *value, struct value *v)
{
    const char *why = refused_name(l->path);

    if (l->pattern && !key_is_pattern(l->path))
        return "is a pattern other than conf.*.key";
    if (why != NULL)
        return why;
    if (k != NULL && k->scope == SCOPE_NONE)
        return mem_format("cannot be set: %s", kb_text(k, KB_MEANING));
    if (trailing_comment(value) != NULL)
        return mem_format("('%.80s') holds a comment, which would be part of the value", value);
    if (!value_parse(value, k == NULL ? TYPE_TEXT : k->type, k == NULL ? 0 : k->fields, false, v,
                     &why))
        return mem_format("('%.80s') %s", value, why);
    if (!is_printable(value_show(v)))
        return "has a value that is no plain UTF-8";
    if (strstr(value_show(v), "${") != NULL)
        return "has a value with ${, which a profile would work out";
    if (*value_show(v) == '\0' && v->type != TYPE_PORTS)
        return "is empty: the kernel would accept that and change nothing";
    return NULL;
}

const char *
import_refusal(const struct line *l, struct value *ret_value, const char **ret_comment)
{
    const struct kb_key *k = kb_find(l->path);
    const char *value = l->value, *end = trailing_comment(value);

    if (end != NULL && k != NULL && k->type == TYPE_INTS) {
        value = mem_copy(value, (size_t)(end - value));
        *ret_comment = mem_dup(end + 1 + strspn(end + 1, " \t#;"));
    }
    return refusal(l, k, value, ret_value);
}

static bool
take_line(const struct line *l, struct setting *ret)
{
    const struct vars none = {0};
    struct setting s = {.path = l->path, .file = l->file, .line = l->number, .column = 1};
    struct value v;
    const char *why = import_refusal(l, &v, &s.why);

    if (s.why == NULL || *s.why == '\0')
        s.why = l->comment;
    if (s.why != NULL && !is_printable(s.why))
        s.why = NULL;

    if (why != NULL) {
        say("%s:%zu: left out: %s %s", l->file, l->number, key_show(l->path), why);
        return false;
    }
    s.optional = l->optional;
    s.want = *value_show(&v) == '\0' ? WANT_UNSET
             : l->bound == '>'       ? WANT_AT_LEAST
             : l->bound == '<'       ? WANT_AT_MOST
                                     : WANT_EXACT;
    s.n = s.want != WANT_UNSET;
    s.texts[0] = value_show(&v);
    *ret = s;
    /* Says what is wrong by itself. */
    return setting_finish(ret, &none);
}

struct setting *
import_settings(const struct conf *c, size_t *ret_n, size_t *ret_left_out)
{
    struct setting *settings = NULL, s;
    size_t n = 0, capacity = 0;

    *ret_left_out = c->skipped;
    for (size_t i = 0; i < c->n; i++) {
        const struct line *l = &c->lines[i];

        if (l->value == NULL || !is_counted(c, i))
            continue;
        if (!take_line(l, &s)) {
            *ret_left_out += 1;
            continue;
        }
        settings = mem_grow(settings, n, &capacity, sizeof(s));
        settings[n++] = s;
    }
    /* Of what patterns: that is known now. */
    for (size_t i = 0; i < c->n; i++) {
        if (c->lines[i].value != NULL || !is_counted(c, i))
            continue;
        if (!take_exclusion(&c->lines[i], settings, n, &s)) {
            *ret_left_out += 1;
            continue;
        }
        settings = mem_grow(settings, n, &capacity, sizeof(s));
        settings[n++] = s;
    }
    *ret_n = n;
    return settings;
}

bool
import_compose(const struct setting *settings, size_t n, struct text *t)
{
    text_puts(t,
              "name: imported\nsummary: \"Settings taken over from sysctl files.\"\nsettings:\n");
    for (size_t i = 0; i < n; i++) {
        const struct setting *s = &settings[i];

        text_puts(t, "  ");
        yaml_quote(t, key_show(s->path));
        if (s->excluded) {
            text_puts(t, ":\n    excluded: true");
        } else if (s->want == WANT_UNSET) {
            text_puts(t, ":\n    unset: true");
        } else {
            text_format(t, ":\n    %s: ", want_name(s->want));
            yaml_quote(t, s->texts[0]);
        }
        if (s->optional)
            text_puts(t, "\n    optional: true");
        text_puts(t, "\n    why: ");
        yaml_quote(t, s->why == NULL
                          ? mem_format("Imported from %s, line %zu.", printable(s->file), s->line)
                          : mem_format("%s (%s, line %zu)", s->why, printable(s->file), s->line));
        text_puts(t, "\n");
    }
    if (t->len <= YAML_MAX_SIZE && NODES_ALL + NODES_EACH * n <= YAML_MAX_NODES)
        return true;
    say("%zu settings are more than one profile may hold: import the files one by one", n);
    return false;
}
