/* cmd_list.c: `list` and `show`: which profiles there are, and what one of them says.
 *
 * Neither looks at the machine's settings; `show` prints the profile after extends and variables.
 */
#include "key.h"
#include "mem.h"
#include "out.h"
#include "profile.h"

#include <stdio.h>
#include <string.h>

static void
list_line(const struct options *o, const struct profile_name *name)
{
    struct profile p = {0};
    const char *summary = "";

    /* One that cannot be read is listed all the same; lint says what is wrong. */
    if (profile_load(o, name->name, &p) == EXIT_AS_WANTED)
        summary = p.summary;
    if (o->format == FORMAT_JSON) {
        json_open(NULL, '{');
        json_text("name", name->name);
        json_text("source", name->source);
        json_text("summary", summary);
        json_close();
    } else if (o->format == FORMAT_TSV) {
        tsv_line(name->name, name->source, summary, NULL);
    } else {
        put_painted(o, PAINT_BOLD, name->name, 0);
        (void)printf(" (%s)\n", printable(name->source));
        put_wrapped(4, "", summary);
    }
}

static void
list_keys(const struct options *o)
{
    const struct kb_key *k;

    json_rows(o, "list", "keys");
    for (size_t i = 0; (k = kb_at(i)) != NULL; i++) {
        const char *key = key_show(kb_path(k)), *meaning = kb_text(k, KB_MEANING);

        if (o->format == FORMAT_JSON) {
            json_open(NULL, '{');
            json_text("key", key);
            json_text("meaning", meaning);
            json_close();
        } else if (o->format == FORMAT_TSV) {
            tsv_line(key, meaning, NULL);
        } else {
            put_painted(o, PAINT_BOLD, key, 0);
            (void)putchar('\n');
            put_wrapped(4, "", meaning);
        }
    }
    json_rows_end(o, EXIT_AS_WANTED);
}

static void
list_symptoms(const struct options *o)
{
    const struct kb_symptom *s;

    json_rows(o, "list", "symptoms");
    for (size_t i = 0; (s = kb_symptom_at(i)) != NULL; i++) {
        if (o->format == FORMAT_JSON) {
            json_open(NULL, '{');
            json_text("symptom", kb_string(s->name));
            json_text("message", kb_string(s->message));
            json_text("keys", kb_string(s->keys));
            json_close();
        } else if (o->format == FORMAT_TSV) {
            tsv_line(kb_string(s->name), kb_string(s->message), kb_string(s->keys), NULL);
        } else {
            put_painted(o, PAINT_BOLD, kb_string(s->name), 15);
            put_rest(15, 4, mem_format(" %s", kb_string(s->message)));
        }
    }
    json_rows_end(o, EXIT_AS_WANTED);
}

enum exit_code
cmd_list(const struct options *o)
{
    size_t n;
    struct profile_name *names = profile_names(o, &n);

    if (o->symptoms) {
        list_symptoms(o);
        return EXIT_AS_WANTED;
    }
    if (o->keys) {
        list_keys(o);
        return EXIT_AS_WANTED;
    }
    json_rows(o, "list", "profiles");
    for (size_t i = 0; i < n; i++)
        list_line(o, &names[i]);
    json_rows_end(o, EXIT_AS_WANTED);
    return EXIT_AS_WANTED;
}

static void
show_setting(const struct options *o, const struct setting *w)
{
    if (o->format == FORMAT_JSON) {
        json_open(NULL, '{');
        json_text("key", key_show(w->path));
        json_text("constraint", want_name(w->want));
        json_text("wanted", setting_show(w));
        json_text("why", w->why);
        json_text("risk", w->risk);
        json_text("source", w->source);
        json_text("wrong_if", w->wrong_if);
        json_text("from", w->profile);
        json_text("article", w->article);
        json_text("verdict", w->verdict);
        json_close();
        return;
    }
    if (o->format == FORMAT_TSV) {
        tsv_line(key_show(w->path), want_name(w->want), setting_show(w),
                 w->why == NULL ? "" : w->why, NULL);
        return;
    }
    put_painted(o, PAINT_BOLD, key_show(w->path), 0);
    put_rest((int)strlen(key_show(w->path)), 4,
             w->want == WANT_NOTHING ? "" : mem_format(": %s", setting_show(w)));
    if (w->article != NULL)
        put_wrapped(2, "article   ", w->article);
    if (w->verdict != NULL)
        put_wrapped(2, "verdict   ", w->verdict);
    if (w->why != NULL)
        put_wrapped(2, "why       ", w->why);
    if (w->risk != NULL)
        put_wrapped(2, "risk      ", w->risk);
    if (w->wrong_if != NULL)
        put_wrapped(2, "wrong if  ", w->wrong_if);
    if (w->source != NULL)
        put_wrapped(2, "source    ", w->source);
}

enum exit_code
cmd_show(const struct options *o)
{
    const char *name = o->n_args > 0 ? o->args[0] : o->n_profiles > 0 ? o->profiles[0] : NULL;
    struct profile p = {0};
    enum exit_code rv;

    if (name == NULL || o->n_args + o->n_profiles != 1)
        return fail_with(EXIT_USAGE, "show wants one profile; `hardsock-tune list` names them");
    if ((rv = profile_load(o, name, &p)) != EXIT_AS_WANTED)
        return rv;
    if (o->format == FORMAT_JSON) {
        json_head("show");
        json_text("name", p.name);
        json_text("source", p.source);
        json_text("summary", p.summary);
        json_open("variables", '{');
        for (size_t i = 0; i < p.vars.n; i++)
            json_number(p.vars.items[i].name, p.vars.items[i].value);
        json_close();
        json_open("settings", '[');
    } else if (o->format == FORMAT_PRETTY) {
        put_painted(o, PAINT_BOLD, p.name, 0);
        (void)printf(" (%s)\n", printable(p.source));
        put_wrapped(0, "", p.summary);
        for (size_t i = 0; i < p.vars.n; i++)
            (void)printf("  %s = %lld\n", p.vars.items[i].name, (long long)p.vars.items[i].value);
    }
    for (size_t i = 0; i < p.n; i++)
        show_setting(o, &p.settings[i]);
    json_rows_end(o, EXIT_AS_WANTED);
    return EXIT_AS_WANTED;
}
