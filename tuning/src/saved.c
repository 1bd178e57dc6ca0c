/* saved.c: see saved.h.
 *
 * The lines are those of a sysctl.conf, and read by its reader. Of a key that stands several times
 * the first line is taken: the rest of a value with several lines looks like more of them.
 */
#include "saved.h"

#include "conf.h"
#include "key.h"
#include "mem.h"

#include <stdlib.h>
#include <string.h>

static int
by_path(const void *a, const void *b)
{
    const struct saved_key *x = a, *y = b;
    int order = strcmp(x->path, y->path);

    return order != 0 ? order : (x->line > y->line) - (x->line < y->line);
}

void
saved_parse(const char *file, const char *text, size_t len, struct saved *ret)
{
    struct saved s = {.file = file};
    struct conf c = {0};
    size_t n = 0;

    conf_read(file, text, len, false, &c);
    s.keys = mem_alloc((c.n + 1) * sizeof(*s.keys));
    for (size_t i = 0; i < c.n; i++)
        if (c.lines[i].value != NULL && !c.lines[i].pattern)
            s.keys[s.n++] =
                (struct saved_key){c.lines[i].path, c.lines[i].value, c.lines[i].number};
    if (s.n > 0)
        qsort(s.keys, s.n, sizeof(*s.keys), by_path);
    for (size_t i = 0; i < s.n; i++)
        if (n == 0 || strcmp(s.keys[n - 1].path, s.keys[i].path) != 0)
            s.keys[n++] = s.keys[i];
    s.n = n;
    *ret = s;
}

enum exit_code
saved_read(const char *file, struct saved *ret)
{
    size_t len;
    char *text;
    enum exit_code rv = conf_text(file, &text, &len);

    if (rv != EXIT_AS_WANTED)
        return rv;
    saved_parse(file, text, len, ret);
    if (ret->n == 0)
        return fail_with(EXIT_USAGE, "%s holds no setting, such as `sysctl -a` prints them", file);
    return EXIT_AS_WANTED;
}

const char *
saved_find(const struct saved *s, const char *path)
{
    size_t low = 0, high = s->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(s->keys[middle].path, path);

        if (order == 0)
            return s->keys[middle].text;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

char **
saved_names(const struct saved *s, const char *dir)
{
    size_t len = strlen(dir), n = 0, capacity = 0;
    char **names = NULL;

    for (size_t i = 0; i < s->n; i++) {
        const char *path = s->keys[i].path, *rest = path + len + 1;

        if (strncmp(path, dir, len) != 0 || path[len] != '/' || strchr(rest, '/') == NULL ||
            (n > 0 && strncmp(names[n - 1], rest, strlen(names[n - 1])) == 0 &&
             rest[strlen(names[n - 1])] == '/'))
            continue;
        names = mem_grow(names, n, &capacity, sizeof(*names));
        names[n++] = mem_copy(rest, strcspn(rest, "/"));
    }
    names = mem_grow(names, n, &capacity, sizeof(*names));
    names[n] = NULL;
    return names;
}

/* What a machine counts, or what is its own by nature, says nothing about another one. */
static bool
is_comparable(const char *path)
{
    static const char *const own[] = {
        "net/netfilter/nf_conntrack_count",
        "net/core/netdev_rss_key",
        "net/ipv4/tcp_fastopen_key",
        "net/ipv6/conf/*/stable_secret",
        "fs/file-nr",
        "fs/aio-nr",
        "fs/dentry-state",
        "fs/inode-nr",
        "fs/inode-state",
        "kernel/random/*",
        "kernel/hostname",
        "kernel/ns_last_pid",
    };
    const char *why;

    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        if (key_matches(own[i], path))
            return false;
    return key_allowed(path, &why);
}

void
saved_profile(const struct saved *s, struct profile *ret)
{
    struct profile p = {.name = "baseline-host",
                        .source = s->file,
                        .summary = "What the other machine has, as it was saved."};

    for (size_t i = 0; i < s->n; i++) {
        const struct kb_key *k = kb_find(s->keys[i].path);
        struct setting w = {.path = s->keys[i].path,
                            .file = s->file,
                            .profile = p.name,
                            .line = s->keys[i].line,
                            .column = 1,
                            .want = WANT_EXACT,
                            .n = 1};
        const char *why;

        if (!is_comparable(w.path) || (k != NULL && k->scope == SCOPE_NONE))
            continue;
        w.texts[0] = s->keys[i].text;
        if (k == NULL || !value_parse(w.texts[0], k->type, k->fields, false, &w.values[0], &why))
            (void)value_parse(w.texts[0], TYPE_TEXT, 0, false, &w.values[0], &why);
        p.settings = mem_grow(p.settings, p.n, &p.capacity, sizeof(w));
        p.settings[p.n++] = w;
    }
    *ret = p;
}
