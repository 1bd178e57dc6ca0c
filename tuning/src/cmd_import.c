/* cmd_import.c: `import FILE...`: files of sysctl, tuned or Ansible as a profile, or as a list.
 *
 * The profile is made before anything is printed: it is whole, or there is none.
 */
#include "foreign.h"
#include "import.h"
#include "key.h"
#include "out.h"

#include <stdio.h>
#include <string.h>

static void
show_setting(const struct options *o, const struct setting *s)
{
    const char *value = s->n == 0 ? "" : s->texts[0];
    const char *want = s->excluded ? "excluded" : want_name(s->want);

    if (o->format == FORMAT_TSV) {
        tsv_line(key_show(s->path), value, s->file, mem_format("%zu", s->line), want,
                 s->optional ? "optional" : "", NULL);
        return;
    }
    json_open(NULL, '{');
    json_text("key", key_show(s->path));
    json_text("value", value);
    json_text("file", s->file);
    json_number("line", (int64_t)s->line);
    json_text("constraint", want);
    json_bool("optional", s->optional);
    json_close();
}

static enum exit_code
show(const struct options *o, const struct setting *settings, size_t n, enum exit_code rv)
{
    struct text t = {0};

    if (o->format == FORMAT_PRETTY) {
        if (!import_compose(settings, n, &t))
            return EXIT_PROFILE;
        (void)fputs(text_str(&t), stdout);
        return rv;
    }
    if (o->format == FORMAT_JSON) {
        json_head("import");
        json_open("settings", '[');
    }
    for (size_t i = 0; i < n; i++)
        show_setting(o, &settings[i]);
    if (o->format == FORMAT_JSON) {
        json_close();
        json_tail(rv);
    }
    return rv;
}

static bool
ends_in(const char *path, const char *end)
{
    size_t len = strlen(path), n = strlen(end);

    return len > n && strcmp(path + len - n, end) == 0;
}

/* A file of another tool is told apart by its name, or by what it begins with. */
static enum exit_code
read_file(const struct options *o, const char *path, struct conf *c)
{
    size_t len;
    char *text;
    enum exit_code rv = conf_text(path, &text, &len);

    if (rv != EXIT_AS_WANTED)
        return rv;
    if (ends_in(path, ".yml") || ends_in(path, ".yaml"))
        return ansible_read(path, text, len, c) ? EXIT_AS_WANTED : EXIT_PROFILE;
    if (tuned_is(text))
        tuned_read(o->root == NULL ? "" : o->root, path, text, c);
    else
        conf_read(path, text, len, true, c);
    return EXIT_AS_WANTED;
}

enum exit_code
cmd_import(const struct options *o)
{
    const struct sys s = {.root = o->root == NULL ? "" : o->root};
    struct setting *settings;
    struct conf c = {0};
    size_t n, left_out;

    if (o->n_args == 0 && !o->system)
        return fail_with(EXIT_USAGE, "import wants a file, such as /etc/sysctl.conf, or --system");
    if (o->system && o->n_args > 0)
        return fail_with(EXIT_USAGE, "import --system takes no file: it reads those of the boot");
    if (o->system)
        conf_load(&s, o->loader != NULL ? LOADER_PROCPS : LOADER_SYSTEMD, true, &c);
    for (size_t i = 0; i < o->n_args; i++) {
        enum exit_code rv = read_file(o, o->args[i], &c);

        if (rv != EXIT_AS_WANTED)
            return rv;
    }
    settings = import_settings(&c, &n, &left_out);
    if (n == 0)
        return fail_with(EXIT_PROFILE, "there is nothing in it that a profile could hold");
    if (left_out > 0)
        say("%zu settings imported, %zu lines left out", n, left_out);
    return show(o, settings, n, left_out > 0 ? EXIT_DRIFT : EXIT_AS_WANTED);
}
