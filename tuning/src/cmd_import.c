/* cmd_import.c: `import FILE...`: sysctl.conf files as a profile.
 *
 * Values are read as the kernel would (octal, hexadecimal) and written as plain decimals. What this
 * tool does not touch is left out with a message. The last assignment of a key wins, as in the
 * loaders.
 */
#include "conf.h"
#include "key.h"
#include "mem.h"
#include "out.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void
put_string(const char *s)
{
    (void)putchar('"');
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\')
            (void)putchar('\\');
        (void)putchar((unsigned char)*s < ' ' ? '?' : *s);
    }
    (void)putchar('"');
}

static bool
is_last(const struct conf *c, size_t at)
{
    for (size_t i = at + 1; i < c->n; i++)
        if (c->lines[i].value != NULL && strcmp(c->lines[i].path, c->lines[at].path) == 0)
            return false;
    return true;
}

static void
left_out(const struct line *l, const char *why)
{
    say("%s:%zu: left out: %s %s", l->file, l->number, key_show(l->path), why);
}

static void
import_line(const struct line *l)
{
    const struct kb_key *k = kb_find(l->path);
    struct value v;
    const char *why = NULL;

    if (l->pattern) {
        left_out(l, "is a pattern");
        return;
    }
    if (!key_allowed(l->path, &why)) {
        left_out(l, why);
        return;
    }
    if (k != NULL && k->scope == SCOPE_NONE) {
        left_out(l, mem_format("cannot be set: %s", k->meaning));
        return;
    }
    if (!value_parse(l->value, k == NULL ? TYPE_TEXT : k->type, k == NULL ? 0 : k->fields, false,
                     &v, &why)) {
        left_out(l, mem_format("('%.80s') %s", l->value, why));
        return;
    }
    (void)fputs("  ", stdout);
    put_string(key_show(l->path));
    (void)fputs(":\n    value: ", stdout);
    put_string(value_show(&v));
    (void)fputs("\n    why: ", stdout);
    put_string(mem_format("Imported from %s, line %zu.", l->file, l->number));
    (void)fputs("\n    risk: \"Not stated there.\"\n", stdout);
}

enum exit_code
cmd_import(const struct options *o)
{
    const struct sys here = {.root = ""};
    struct conf c = {0};

    if (o->n_args == 0)
        return fail_with(EXIT_USAGE, "import wants a file, such as /etc/sysctl.conf");
    for (size_t i = 0; i < o->n_args; i++) {
        size_t len;
        char *text = sys_file(&here, o->args[i], CONF_MAX, &len);

        if (text == NULL)
            return fail_with(errno == EACCES ? EXIT_PERMISSION : EXIT_SYSTEM, "cannot read %s: %s",
                             o->args[i], strerror(errno));
        conf_read(o->args[i], text, len, true, &c);
    }
    (void)fputs("name: imported\nsummary: \"Settings taken over from sysctl files.\"\nsettings:\n",
                stdout);
    for (size_t i = 0; i < c.n; i++)
        if (c.lines[i].value != NULL && is_last(&c, i))
            import_line(&c.lines[i]);
    return EXIT_AS_WANTED;
}
