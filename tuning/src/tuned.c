/* tuned.c: profiles of tuned: see foreign.h.
 *
 * Sections of "name = value" lines; those of type sysctl are ours. What a profile includes comes
 * before it, so that its own lines hold in the end. ">" in front of a value only raises, "<" only
 * lowers: these become bounds.
 */
#include "foreign.h"

#include "key.h"
#include "mem.h"
#include "root.h"

#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 8
#define MAX_FILES 64

struct pair {
    const char *name, *value;
    size_t line;
};

struct pairs {
    struct pair *items;
    size_t n, capacity;
};

struct tuned {
    const char *root;
    struct conf *c;
    size_t base; /* the first line that is of this profile or what it includes */
    size_t files;
    struct pairs variables;
};

static void
add_pair(struct pairs *p, const char *name, const char *value, size_t line)
{
    p->items = mem_grow(p->items, p->n, &p->capacity, sizeof(*p->items));
    p->items[p->n++] = (struct pair){name, value, line};
}

/* The last one of that name, or NULL. */
static const char *
value_of(const struct pairs *p, const char *name)
{
    for (size_t i = p->n; i > 0; i--)
        if (strcmp(p->items[i - 1].name, name) == 0)
            return p->items[i - 1].value;
    return NULL;
}

/* NULL if it holds a function, or a variable that nobody sets. */
static const char *
expand(const struct tuned *t, const char *value)
{
    struct text out = {0};

    for (const char *end, *known; *value != '\0'; value = end) {
        end = strstr(value, "${");
        if (end == NULL || end > value) {
            size_t len = end == NULL ? strlen(value) : (size_t)(end - value);

            text_add(&out, value, len);
            end = value + len;
            continue;
        }
        if ((end = strchr(value, '}')) == NULL ||
            (known = value_of(&t->variables, mem_copy(value + 2, (size_t)(end - value - 2)))) ==
                NULL)
            return NULL;
        text_puts(&out, known);
        end++;
    }
    return text_str(&out);
}

static bool
is_off(const char *value)
{
    return value != NULL &&
           (strcmp(value, "0") == 0 || strcmp(value, "false") == 0 || strcmp(value, "no") == 0);
}

static void
take_setting(struct tuned *t, const char *file, const struct pair *p)
{
    const char *value = expand(t, p->value);
    char bound = '\0';

    if (value == NULL) {
        conf_skip(t->c, file, p->line, p->name,
                  mem_format("= %.80s is worked out by tuned when it runs", p->value));
        return;
    }
    if (*value == '>' || *value == '<')
        bound = *value++;
    value += strspn(value, " \t");
    conf_add(t->c, file, p->line, p->name, value, bound);
}

/* A section is whole: what kind it is may stand in its last line. */
static void
end_section(struct tuned *t, const char *file, const char *section, const struct pairs *lines)
{
    const char *type = value_of(lines, "type"), *replace = value_of(lines, "replace");

    if (strcmp(section, "variables") == 0)
        for (size_t i = 0; i < lines->n; i++) {
            const char *value = expand(t, lines->items[i].value);

            if (value != NULL)
                add_pair(&t->variables, lines->items[i].name, value, lines->items[i].line);
        }
    if (strcmp(type != NULL ? type : section, "sysctl") != 0 || is_off(value_of(lines, "enabled")))
        return;
    if (replace != NULL && !is_off(replace))
        t->c->n = t->base;
    for (size_t i = 0; i < lines->n; i++)
        if (strpbrk(lines->items[i].name, "./") != NULL)
            take_setting(t, file, &lines->items[i]);
}

static void read_profile(struct tuned *t, const char *file, const char *text, int depth);

static char *
find_include(const struct tuned *t, const char *file, const char *name, const char **ret_path)
{
    const char *slash = strrchr(file, '/');
    const char *beside = slash == NULL ? "." : mem_copy(file, (size_t)(slash - file));
    const char *paths[] = {mem_format("%s/../%s/tuned.conf", beside, name),
                           mem_format("/etc/tuned/profiles/%s/tuned.conf", name),
                           mem_format("/etc/tuned/%s/tuned.conf", name),
                           mem_format("/usr/lib/tuned/profiles/%s/tuned.conf", name),
                           mem_format("/usr/lib/tuned/%s/tuned.conf", name)};
    char *text = NULL;
    size_t len;

    for (size_t i = 0; text == NULL && i < sizeof(paths) / sizeof(paths[0]); i++) {
        /* The first stands beside the file that was named, which is not below root. */
        const struct sys s = {.root = i == 0 ? "" : t->root};

        text = sys_file(&s, paths[i], CONF_MAX, &len);
        *ret_path = paths[i];
    }
    return text;
}

static void
include(struct tuned *t, const char *file, size_t line, const char *names, int depth)
{
    const char *rest = expand(t, names);

    if (rest == NULL) {
        conf_skip(t->c, file, line, "include", "names a profile by something that tuned works out");
        return;
    }
    while (*(rest += strspn(rest, " \t,")) != '\0') {
        const char *name = mem_copy(rest, strcspn(rest, " \t,")), *path = NULL;
        char *text = NULL;

        rest += strlen(name);
        if (depth < MAX_DEPTH && t->files < MAX_FILES && strchr(name, '/') == NULL)
            text = find_include(t, file, name, &path);
        t->files++;
        if (text != NULL)
            read_profile(t, path, text, depth + 1);
        else
            conf_skip(t->c, file, line, "include",
                      mem_format("of %.80s: no such profile of tuned is found", name));
    }
}

/* "[variables]" may include a file of more of them. */
static void
include_variables(struct tuned *t, const char *file, size_t line, const char *path)
{
    const struct sys s = {.root = t->root};
    size_t len;
    char *text = *path == '/' ? sys_file(&s, path, CONF_MAX, &len) : NULL;

    if (text == NULL) {
        conf_skip(t->c, file, line, "include",
                  mem_format("of variables in %.80s: cannot be read", path));
        return;
    }
    for (char *save = NULL, *l = strtok_r(text, "\n", &save); l != NULL;
         l = strtok_r(NULL, "\n", &save)) {
        char *equals = strchr(l, '=');

        if (*l != '#' && *l != ';' && *l != '[' && equals != NULL)
            add_pair(&t->variables, conf_trim(l, (size_t)(equals - l)),
                     conf_trim(equals + 1, strlen(equals + 1)), 0);
    }
}

static const char *
without_comment(const char *value)
{
    for (const char *s = value; *s != '\0'; s++)
        if (*s == '#' && s > value && (s[-1] == ' ' || s[-1] == '\t'))
            return conf_trim(value, (size_t)(s - value));
    return value;
}

static void
take_line(struct tuned *t, const char *file, const char *section, struct pairs *lines,
          const char *line, size_t number, int depth)
{
    const char *equals = strchr(line, '='), *name, *value;

    if (equals == NULL || *line == '#' || *line == ';' || *line == '\0')
        return;
    name = conf_trim(line, (size_t)(equals - line));
    value = without_comment(conf_trim(equals + 1, strlen(equals + 1)));
    if (strcmp(name, "include") != 0)
        add_pair(lines, name, value, number);
    else if (strcmp(section, "main") == 0)
        include(t, file, number, value, depth);
    else if (strcmp(section, "variables") == 0)
        include_variables(t, file, number, value);
}

static void
read_profile(struct tuned *t, const char *file, const char *text, int depth)
{
    const char *section = "";
    struct pairs lines = {0};

    for (size_t number = 1; *text != '\0'; number++) {
        size_t len = strcspn(text, "\n");
        const char *line = conf_trim(text, len);

        if (*line == '[') {
            end_section(t, file, section, &lines);
            lines = (struct pairs){0};
            section = mem_copy(line + 1, strcspn(line + 1, "]"));
        } else {
            take_line(t, file, section, &lines, line, number, depth);
        }
        text += len + (text[len] == '\n');
    }
    end_section(t, file, section, &lines);
}

bool
tuned_is(const char *text)
{
    while (*(text += strspn(text, " \t\r\n")) == '#' || *text == ';')
        text += strcspn(text, "\n");
    return *text == '[';
}

void
tuned_read(const char *root, const char *file, const char *text, struct conf *c)
{
    struct tuned t = {.root = root, .c = c, .base = c->n};

    read_profile(&t, file, text, 0);
}
