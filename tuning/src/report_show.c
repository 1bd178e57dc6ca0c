/* report_show.c: a report for people, as TSV and as JSON.
 *
 * People get one line for what is well, and the whole story for what is not: current, wanted, why,
 * risk, and whether running sockets feel a change.
 */
#include "report.h"

#include "key.h"
#include "mem.h"
#include "out.h"
#include "tx.h"

#include <stdio.h>
#include <string.h>

#define KEY_WIDTH 38
#define INDENT 11
#define NARROW 72 /* columns, below which a value stands under its key */

static bool
is_narrow(void)
{
    return out_columns() < NARROW;
}

/* Of what is said about a setting. */
static int
indent(void)
{
    return is_narrow() ? 2 : INDENT;
}

static const char *
or_empty(const char *text)
{
    return text == NULL ? "" : text;
}

static enum paint
paint_of(enum status status)
{
    switch (status) {
    case STATUS_OK:
        return PAINT_GOOD;
    case STATUS_DRIFT:
    case STATUS_DENIED:
        return PAINT_BAD;
    case STATUS_MISSING:
    case STATUS_GLOBAL:
        return PAINT_WARN;
    case STATUS_SKIPPED:
    case STATUS_REMARK:
    case STATUS_WAIVED:
    case STATUSES:
        break;
    }
    return PAINT_DIM;
}

static const char *
shown(const char *text)
{
    return *text == '\0' ? "(empty)" : printable(text);
}

static const char *
with_unit(const struct item *it, const char *text)
{
    return it->kb != NULL && kb_text(it->kb, KB_UNIT) != NULL
               ? mem_format("%s %s", text, kb_text(it->kb, KB_UNIT))
               : text;
}

/* What the key has, and what is wanted instead. */
static const char *
state_of(const struct item *it)
{
    if (it->status == STATUS_DRIFT && it->target_text != NULL)
        return mem_format("%s, wanted: %s", shown(it->current_text),
                          with_unit(it, setting_show(it->setting)));
    if (it->status == STATUS_OK && it->current_text != NULL && it->reason != NULL)
        return mem_format("%s: %s", shown(it->current_text), it->reason);
    if (it->status == STATUS_WAIVED && it->current_text != NULL)
        return mem_format("%s, %s", shown(it->current_text), it->reason);
    if (it->current_text != NULL)
        return *it->current_text == '\0' ? "(empty)" : with_unit(it, it->current_text);
    return it->reason != NULL ? it->reason : "";
}

static void
put_item(const struct options *o, const struct item *it)
{
    const struct setting *w = it->setting;
    int width;

    (void)fputs("  ", stdout);
    put_painted(o, paint_of(it->status), status_name(it->status), 9);
    width = (int)strlen(key_show(w->path));
    if (is_narrow()) {
        (void)printf("%s\n", printable(key_show(w->path)));
        put_wrapped(4, "", state_of(it));
    } else {
        put_painted(o, PAINT_NONE, key_show(w->path), KEY_WIDTH);
        (void)putchar(' ');
        put_rest(INDENT + (width > KEY_WIDTH ? width : KEY_WIDTH) + 1, INDENT, state_of(it));
    }
    if (w->article != NULL)
        put_wrapped(indent(), "article   ", w->article);
    if (w->verdict != NULL)
        put_wrapped(indent(), "verdict   ", w->verdict);
    if (it->status != STATUS_DRIFT)
        return;
    if (w->want != WANT_EXACT && it->target_text != NULL)
        put_wrapped(indent(), "to write  ", it->target_text);
    if (w->why != NULL)
        put_wrapped(indent(), "why       ", w->why);
    if (w->risk != NULL)
        put_wrapped(indent(), "risk      ", w->risk);
    if (w->wrong_if != NULL)
        put_wrapped(indent(), "wrong if  ", w->wrong_if);
    if (w->source != NULL)
        put_wrapped(indent(), "source    ", w->source);
    if (it->kb != NULL)
        put_wrapped(indent(), "acts      ", kb_effect_text(it->kb));
    if (it->doubt != NULL)
        put_wrapped(indent(), "doubt     ", it->doubt);
    if (it->reason != NULL)
        put_wrapped(indent(), "but       ", it->reason);
}

static void
put_findings(const struct options *o, const struct report *r)
{
    const struct findings *f = &r->findings;
    static const enum paint paints[] = {PAINT_DIM, PAINT_WARN, PAINT_BAD};

    bool headed = false;

    for (size_t i = 0; i < f->n; i++) {
        if (o->quiet && f->items[i].severity == SEVERITY_INFO)
            continue;
        if (!headed)
            put_painted(o, PAINT_BOLD, "this machine, now", 0), (void)putchar('\n');
        headed = true;
        (void)fputs("  ", stdout);
        put_painted(o, f->items[i].waived != NULL ? PAINT_DIM : paints[f->items[i].severity],
                    f->items[i].waived != NULL ? "waived" : severity_name(f->items[i].severity), 8);
        (void)putchar(' ');
        put_rest(INDENT, is_narrow() ? 4 : INDENT, f->items[i].what);
        put_wrapped(indent(), "advice    ", f->items[i].advice);
        if (f->items[i].waived != NULL)
            put_wrapped(indent(), "waived    ", f->items[i].waived);
        if (f->items[i].first != 0 && f->items[i].first < r->history.time)
            put_wrapped(indent(), "age       ",
                        mem_format("first seen %s ago",
                                   duration_text((r->history.time - f->items[i].first) * 1000)));
    }
}

void
report_pretty(const struct options *o, const struct report *r, enum exit_code rv)
{
    size_t drift = 0, ok = 0, other = 0;

    for (size_t i = 0; i < r->n; i++) {
        const struct plan *plan = &r->plans[i];

        put_painted(o, PAINT_BOLD, r->profiles[i].name, 0);
        (void)printf(" (%s%s%s)\n", printable(r->profiles[i].source),
                     r->profiles[i].signer == NULL ? "" : ", signed by ",
                     r->profiles[i].signer == NULL ? "" : printable(r->profiles[i].signer));
        put_wrapped(2, "", r->profiles[i].summary);
        for (size_t k = 0; k < plan->n; k++)
            /* Of another machine's settings only what differs is worth a line. */
            if ((!o->quiet &&
                 (o->baseline == NULL || i > 0 || plan->items[k].status != STATUS_OK)) ||
                plan->items[k].status == STATUS_DRIFT || plan->items[k].status == STATUS_DENIED)
                put_item(o, &plan->items[k]);
        drift += plan->counts[STATUS_DRIFT];
        ok += plan->counts[STATUS_OK];
        other += plan->n - plan->counts[STATUS_DRIFT] - plan->counts[STATUS_OK];
    }
    put_findings(o, r);
    put_rest(0, 2,
             mem_format("%s: %zu as wanted, %zu differ, %zu not compared, %zu findings",
                        exit_name(rv), ok, drift, other, r->findings.n));
}

void
report_tsv(const struct report *r)
{
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->plans[i].n; k++) {
            const struct item *it = &r->plans[i].items[k];

            tsv_line(r->profiles[i].name, status_name(it->status), key_show(it->setting->path),
                     or_empty(it->current_text), or_empty(it->target_text), or_empty(it->reason),
                     NULL);
        }
    for (size_t i = 0; i < r->findings.n; i++) {
        const struct finding *f = &r->findings.items[i];

        tsv_line("-", severity_name(f->severity), f->id, f->what, f->advice, "", NULL);
    }
}

static void
json_item(const struct item *it)
{
    const struct setting *w = it->setting;

    json_open(NULL, '{');
    json_text("key", key_show(w->path));
    json_text("status", status_name(it->status));
    json_text("current", it->current_text);
    json_text("wanted", it->target_text);
    json_text("constraint", want_name(w->want));
    json_text("constraint_text", setting_show(w));
    json_text("why", w->why);
    json_text("risk", w->risk);
    json_text("source", w->source);
    json_text("wrong_if", w->wrong_if);
    json_text("scope", it->kb == NULL ? NULL : kb_scope_name(it->kb->scope));
    json_text("unit", it->kb == NULL ? NULL : kb_text(it->kb, KB_UNIT));
    json_text("acts", it->kb == NULL ? NULL : kb_effect_text(it->kb));
    json_text("reason", it->reason);
    json_text("doubt", it->doubt);
    json_text("article", w->article);
    json_text("verdict", w->verdict);
    json_bool("writable", it->status == STATUS_DRIFT && it->may_write == 0);
    json_close();
}

/* null where it is not known. */
static void
json_count(const char *key, bool known, int64_t n)
{
    if (known)
        json_number(key, n);
    else
        json_text(key, NULL);
}

static void
json_profiles(const struct report *r)
{
    json_open("profiles", '[');
    for (size_t i = 0; i < r->n; i++) {
        json_open(NULL, '{');
        json_text("name", r->profiles[i].name);
        json_text("source", r->profiles[i].source);
        json_text("summary", r->profiles[i].summary);
        json_text("signer", r->profiles[i].signer);
        json_text("hash", mem_format("%016llx", (unsigned long long)r->profiles[i].hash));
        json_open("settings", '[');
        for (size_t k = 0; k < r->plans[i].n; k++)
            json_item(&r->plans[i].items[k]);
        json_close();
        json_close();
    }
    json_close();
}

void
report_json(const struct options *o, const char *command, const struct report *r, enum exit_code rv)
{
    (void)o;
    json_head(command);
    json_text("kernel", r->sys.kernel);
    json_bool("first_namespace", r->sys.first_ns);
    json_profiles(r);
    json_open("findings", '[');
    for (size_t i = 0; i < r->findings.n; i++) {
        const struct finding *f = &r->findings.items[i];

        json_open(NULL, '{');
        json_text("id", f->id);
        json_text("severity", severity_name(f->severity));
        json_text("what", f->what);
        json_text("advice", f->advice);
        json_text("subject", f->subject);
        json_count("age_seconds", f->first != 0, r->history.time - f->first);
        json_text("waived", f->waived);
        json_count("more", f->more > 0, f->more);
        json_count("more_milliseconds", f->more > 0, f->more_ms);
        json_close();
    }
    json_close();
    json_tail(rv);
}

/* Whether it is among the steps, or would be with the right to write. */
static bool
is_step(const struct item *it, const struct journal *j, enum exit_code rv)
{
    for (size_t i = 0; i < j->n; i++)
        if (strcmp(j->entries[i].path, it->setting->path) == 0)
            return true;
    return rv == EXIT_PERMISSION && it->may_write != 0;
}

void
report_diff(const struct options *o, const struct report *r, const struct plan *plan,
            const struct journal *j, enum exit_code rv)
{
    if (o->format == FORMAT_JSON) {
        report_json(o, "diff", r, rv);
        return;
    }
    for (size_t i = 0; i < plan->n && rv != EXIT_CONFLICT; i++) {
        const struct item *it = &plan->items[i];
        const char *key = key_show(it->setting->path);

        if (it->status != STATUS_DRIFT || it->target_text == NULL || !is_step(it, j, rv))
            continue;
        if (o->format == FORMAT_TSV) {
            tsv_line(key, it->current_text, it->target_text, NULL);
            continue;
        }
        put_painted(o, PAINT_BAD, mem_format("-%s = %s", key, it->current_text), 0);
        (void)putchar('\n');
        put_painted(o, PAINT_GOOD, mem_format("+%s = %s", key, it->target_text), 0);
        (void)putchar('\n');
    }
    /* What comes of it on interfaces. */
    for (size_t i = 0; i < r->findings.n && o->format == FORMAT_PRETTY; i++)
        put_wrapped(0, "# ", r->findings.items[i].what);
}
