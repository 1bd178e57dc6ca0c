/* cmd_recommend.c: `recommend`: a profile for what this machine shows, with the evidence.
 *
 * Reads only. A setting is proposed where something measured is at or near its end because of it;
 * each other one that was looked at stands beside it with the reason why it was left. What hurts
 * others or cannot be told from here is named and never proposed.
 */
#include "import.h"
#include "key.h"
#include "out.h"
#include "paths.h"
#include "plan.h"
#include "recommend.h"
#include "tree.h"

#include <stdio.h>
#include <string.h>

#define COMMENT_COLUMNS 96

void
propose(struct advice *a, const char *key, const char *want, const char *value, const char *why,
        const char *risk)
{
    a->items = mem_grow(a->items, a->n, &a->capacity, sizeof(*a->items));
    a->items[a->n++] = (struct proposal){key, want, value, why, risk};
    a->proposed++;
}

void
leave(struct advice *a, const char *key, const char *why)
{
    a->items = mem_grow(a->items, a->n, &a->capacity, sizeof(*a->items));
    a->items[a->n++] = (struct proposal){.key = key, .why = why};
}

/* A comment of the YAML, over as many lines as it takes: not as wide as the terminal, since this is
 * a file to be. */
static void
put_comment(const char *text)
{
    size_t column = (size_t)printf("#  ");

    for (text = printable(text); *text != '\0';) {
        size_t len = strcspn(text, " ");

        if (column + 1 + len > COMMENT_COLUMNS)
            column = (size_t)printf("\n#    ") - 1;
        column += (size_t)printf(" %.*s", (int)len, text);
        text += len + (text[len] == ' ');
    }
    (void)putchar('\n');
}

static void
show_pretty(const struct advice *a)
{
    struct text t = {0};

    if (a->proposed > 0)
        text_puts(&t, "name: recommended\nsummary: What this machine showed, and what suits it.\n"
                      "settings:\n");
    for (size_t i = 0; i < a->n; i++) {
        const struct proposal *p = &a->items[i];

        if (p->want == NULL)
            continue;
        text_format(&t, "  %s:\n    %s: %s\n    why: ", p->key, p->want, p->value);
        yaml_quote(&t, printable(p->why));
        text_puts(&t, "\n    risk: ");
        yaml_quote(&t, p->risk);
        text_puts(&t, "\n");
    }
    (void)fputs(text_str(&t), stdout);
    (void)puts(a->proposed > 0 ? "# Not proposed:" : "# Nothing to propose:");
    for (size_t i = 0; i < a->n; i++)
        if (a->items[i].want == NULL)
            put_comment(mem_format("%s: %s", a->items[i].key, a->items[i].why));
}

static void
show_rows(const struct options *o, const struct advice *a)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct proposal *p = &a->items[i];

        if (o->format == FORMAT_TSV) {
            tsv_line(p->want == NULL ? "leave" : "propose", p->key, p->want == NULL ? "" : p->want,
                     p->want == NULL ? "" : p->value, p->why, NULL);
            continue;
        }
        json_open(NULL, '{');
        json_text("key", p->key);
        json_bool("proposed", p->want != NULL);
        json_text("constraint", p->want);
        json_text("wanted", p->value);
        json_text("why", p->why);
        json_text("risk", p->risk);
        json_close();
    }
}

enum exit_code
cmd_recommend(const struct options *o)
{
    enum exit_code rv;
    struct advice a = {0};
    struct diag d;
    struct paths p;
    struct sys s;

    if (o->n_args > 0)
        return fail_with(EXIT_USAGE, "recommend takes no argument: it looks at the machine");
    if ((rv = sys_open(o, &s)) != EXIT_AS_WANTED)
        return rv;
    diag_read(&s, true, &d);
    paths_read(&s, &p);
    advise_on_listeners(&s, &d, &a);
    advise_on_ports(&s, &d, &a);
    advise_on_queues(&s, &a);
    advise_on_tables(&s, &a);
    advise_on_memory(&s, &a);
    advise_on_paths(&s, &p, &a);
    rv = a.proposed > 0 ? EXIT_DRIFT : EXIT_AS_WANTED;
    json_rows(o, "recommend", "settings");
    if (o->format == FORMAT_PRETTY)
        show_pretty(&a);
    else
        show_rows(o, &a);
    json_rows_end(o, rv);
    sys_close(&s);
    return rv;
}
