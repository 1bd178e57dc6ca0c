/* conf.c: see conf.h.
 *
 * Files that cannot be read are skipped, as the loaders do. A link to /dev/null masks.
 */
#include "conf.h"

#include "key.h"
#include "mem.h"
#include "root.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINES 20000
#define COMMENT_MAX 300

struct file {
    const char *name, *path;
};

const char *
loader_name(enum loader loader)
{
    return loader == LOADER_SYSTEMD ? "systemd-sysctl" : "sysctl --system";
}

const char *
conf_trim(const char *s, size_t len)
{
    while (len > 0 && (s[0] == ' ' || s[0] == '\t'))
        s++, len--;
    while (len > 0 && (s[len - 1] == ' ' || s[len - 1] == '\t' || s[len - 1] == '\r'))
        len--;
    return mem_copy(s, len);
}

/* What is no assignment is told, or kept. */
static void
skip_line(struct conf *c, const char *file, size_t number, const char *name, const char *fault,
          bool loud)
{
    if (loud)
        say("%s:%zu: '%.80s' %s", file, number, name, fault);
    c->skipped++;
    if (!c->keep)
        return;
    c->lines = mem_grow(c->lines, c->n, &c->capacity, sizeof(*c->lines));
    c->lines[c->n++] = (struct line){.file = file, .number = number, .path = name, .fault = fault};
}

void
conf_skip(struct conf *c, const char *file, size_t number, const char *name, const char *fault)
{
    skip_line(c, file, number, name, fault, !c->quiet);
}

void
conf_add(struct conf *c, const char *file, size_t number, const char *name, const char *value,
         char bound)
{
    struct line l = {.file = file, .number = number, .value = value, .bound = bound};
    char path[KEY_MAX];
    const char *why;

    if (!key_parse(name, strlen(name), path, &why)) {
        conf_skip(c, file, number, name, why);
        return;
    }
    l.path = mem_dup(path);
    l.pattern = strpbrk(path, "*?[") != NULL;
    c->lines = mem_grow(c->lines, c->n, &c->capacity, sizeof(*c->lines));
    c->lines[c->n++] = l;
}

static void
add_line(struct conf *c, const char *file, size_t number, const char *text, size_t len, bool loud,
         const char *comment)
{
    const char *equals = memchr(text, '=', len), *name, *why;
    struct line l = {.file = file, .number = number};
    bool minus;
    char path[KEY_MAX];

    name = conf_trim(text, equals == NULL ? len : (size_t)(equals - text));
    minus = *name == '-';
    name += minus;
    if (equals != NULL)
        l.value = conf_trim(equals + 1, len - (size_t)(equals + 1 - text));
    if (equals == NULL && !minus) {
        skip_line(c, file, number, name, "is no key = value", loud);
        return;
    }
    if (!key_parse(name, strlen(name), path, &why)) {
        skip_line(c, file, number, name, why, loud);
        return;
    }
    l.comment = comment;
    l.optional = minus && equals != NULL;
    l.path = mem_dup(path);
    l.pattern = strpbrk(path, "*?[") != NULL;
    c->lines = mem_grow(c->lines, c->n, &c->capacity, sizeof(*c->lines));
    c->lines[c->n++] = l;
}

/* Words of the author; not a setting that is switched off. */
static const char *
comment_of(const char *line, const char *before)
{
    const char *text = conf_trim(line + 1, strlen(line + 1));

    if (strchr(text, '=') != NULL || strspn(text, "#-=*; ") == strlen(text))
        return NULL;
    if (before == NULL)
        return mem_format("%.*s", COMMENT_MAX, text);
    return mem_format("%.*s", COMMENT_MAX, mem_format("%s %s", before, text));
}

void
conf_read(const char *file, const char *text, size_t len, bool loud, struct conf *c)
{
    const char *end = text + len, *comment = NULL;

    for (size_t number = 1; text < end && c->n < MAX_LINES; number++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        size_t n = newline == NULL ? (size_t)(end - text) : (size_t)(newline - text);
        const char *line = conf_trim(text, n);

        if (memchr(text, '\0', n) != NULL) {
            skip_line(c, file, number, line, "holds a NUL character", loud);
        } else if (*line == '#' || *line == ';') {
            comment = loud ? comment_of(line, comment) : NULL;
        } else {
            if (*line != '\0')
                add_line(c, file, number, line, strlen(line), loud, comment);
            comment = NULL;
        }
        text += n + (newline != NULL);
        if (newline == NULL)
            break;
    }
}

enum exit_code
conf_text(const char *path, char **ret_text, size_t *ret_len)
{
    const struct sys here = {.root = ""};
    char *text = sys_file(&here, path, CONF_MAX, ret_len);

    if (text == NULL)
        return fail_with(errno == EACCES ? EXIT_PERMISSION : EXIT_SYSTEM, "cannot read %s: %s",
                         path, strerror(errno));
    *ret_text = text;
    return EXIT_AS_WANTED;
}

enum exit_code
conf_file(const char *path, bool loud, struct conf *c)
{
    size_t len;
    char *text;
    enum exit_code rv = conf_text(path, &text, &len);

    if (rv == EXIT_AS_WANTED)
        conf_read(path, text, len, loud, c);
    return rv;
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(((const struct file *)a)->name, ((const struct file *)b)->name);
}

static bool
has_file(const struct file *files, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(files[i].name, name) == 0)
            return true;
    return false;
}

static struct file *
list_files(const struct sys *s, size_t *ret_n)
{
    static const char *const dirs[] = {"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d",
                                       "/usr/lib/sysctl.d", "/lib/sysctl.d"};
    struct file *files = NULL;
    size_t n = 0, capacity = 0;

    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        DIR *d = root_opendir(s->root, dirs[i]);

        /* cppcheck-suppress readdirCalled; there is one thread */
        for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
            size_t len = strlen(e->d_name);

            if (len < 6 || strcmp(e->d_name + len - 5, ".conf") != 0 ||
                has_file(files, n, e->d_name))
                continue;
            files = mem_grow(files, n, &capacity, sizeof(*files));
            files[n++] = (struct file){mem_dup(e->d_name), mem_format("%s/%s", dirs[i], e->d_name)};
        }
        if (d != NULL)
            (void)closedir(d);
    }
    if (n > 0)
        qsort(files, n, sizeof(*files), by_name);
    *ret_n = n;
    return files;
}

void
conf_load(const struct sys *s, enum loader loader, bool loud, struct conf *ret)
{
    struct conf c = {0};
    size_t n, len;
    struct file *files = list_files(s, &n);
    char *text;

    for (size_t i = 0; i < n; i++)
        if ((text = sys_file(s, files[i].path, CONF_MAX, &len)) != NULL)
            conf_read(files[i].path, text, len, loud, &c);
    if (loader == LOADER_PROCPS && (text = sys_file(s, "/etc/sysctl.conf", CONF_MAX, &len)) != NULL)
        conf_read("/etc/sysctl.conf", text, len, loud, &c);
    *ret = c;
}

bool
conf_counts(const struct conf *c, size_t at)
{
    for (size_t i = at + 1; i < c->n; i++)
        if (c->lines[i].fault == NULL && strcmp(c->lines[i].path, c->lines[at].path) == 0)
            return false;
    return true;
}

const struct line *
conf_winner(const struct conf *c, const char *path)
{
    const struct line *exact = NULL, *pattern = NULL;
    const char *alias = kb_alias(path);
    bool excluded = false;

    for (size_t i = 0; i < c->n; i++) {
        const struct line *l = &c->lines[i];
        const bool same = strcmp(l->path, path) == 0;
        const bool other = alias != NULL && strcmp(l->path, alias) == 0;

        if ((!same && !other && !(l->pattern && fnmatch(l->path, path, FNM_PATHNAME) == 0)) ||
            !conf_counts(c, i))
            continue;
        if (l->value == NULL)
            excluded |= same;
        else if (same || other)
            exact = l;
        else
            pattern = l;
    }
    if (exact != NULL)
        return exact;
    return excluded ? NULL : pattern;
}
