/* cmd_import.c: `import FILE...`: sysctl.conf files as a profile, or as a list of settings.
 *
 * The profile is made before anything is printed: it is whole, or there is none.
 */
#include "import.h"
#include "key.h"
#include "out.h"

#include <stdio.h>

static void
show_setting(const struct options *o, const struct setting *s)
{
    const char *value = s->want == WANT_UNSET ? "" : s->texts[0];

    if (o->format == FORMAT_TSV) {
        tsv_line(key_show(s->path), value, s->file, mem_format("%zu", s->line), NULL);
        return;
    }
    json_open(NULL, '{');
    json_text("key", key_show(s->path));
    json_text("value", value);
    json_text("file", s->file);
    json_number("line", (int64_t)s->line);
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

enum exit_code
cmd_import(const struct options *o)
{
    struct setting *settings;
    struct conf c = {0};
    size_t n, left_out;

    if (o->n_args == 0)
        return fail_with(EXIT_USAGE, "import wants a file, such as /etc/sysctl.conf");
    for (size_t i = 0; i < o->n_args; i++) {
        enum exit_code rv = conf_file(o->args[i], true, &c);

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
