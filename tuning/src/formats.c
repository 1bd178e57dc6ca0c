/* formats.c: what `check` found, for programs that know nothing of this tool: a Prometheus
 * textfile, JUnit's XML, and SARIF 2.1.0 (OASIS).
 *
 * Each names a setting by profile and key. What could not be compared is neither good nor bad: a
 * status of its own, a skipped test, no result.
 */
#include "report.h"

#include "key.h"
#include "mem.h"
#include "out.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#ifndef TUNE_VERSION
#define TUNE_VERSION "0"
#endif

static bool
is_bad(const struct item *it)
{
    return it->status == STATUS_DRIFT || it->status == STATUS_DENIED;
}

static bool
is_compared(const struct item *it)
{
    return is_bad(it) || it->status == STATUS_OK;
}

/* "net.core.somaxconn is 128, wanted: at least 4096" */
static const char *
sentence(const struct item *it)
{
    const char *key = key_show(it->setting->path);

    if (it->current_text == NULL)
        return mem_format("%s: %s", key, it->reason == NULL ? status_name(it->status) : it->reason);
    return mem_format("%s is %s, wanted: %s", key,
                      *it->current_text == '\0' ? "empty" : it->current_text,
                      setting_show(it->setting));
}

/* ---- Prometheus: the text format, version 0.0.4 ---------------------------------------------- */

static void
put_label(const char *name, const char *value, bool last)
{
    (void)printf("%s=\"", name);
    for (const char *s = printable(value); *s != '\0'; s++)
        if (*s == '\\' || *s == '"')
            (void)printf("\\%c", *s);
        else
            (void)putchar(*s);
    (void)fputs(last ? "\"" : "\",", stdout);
}

static void
put_metric(const char *name, const char *help)
{
    (void)printf("# HELP hardsock_tune_%s %s\n# TYPE hardsock_tune_%s gauge\n", name, help, name);
}

static void
prometheus_settings(const struct report *r)
{
    put_metric("setting_as_wanted", "1 if the setting is as the profile wants it, 0 if not.");
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->plans[i].n; k++) {
            const struct item *it = &r->plans[i].items[k];

            if (!is_compared(it))
                continue;
            (void)fputs("hardsock_tune_setting_as_wanted{", stdout);
            put_label("profile", r->profiles[i].name, false);
            put_label("key", key_show(it->setting->path), true);
            (void)printf("} %d\n", !is_bad(it));
        }
    put_metric("settings", "Settings of a profile by status.");
    for (size_t i = 0; i < r->n; i++)
        for (int status = 0; status < STATUSES; status++) {
            (void)fputs("hardsock_tune_settings{", stdout);
            put_label("profile", r->profiles[i].name, false);
            put_label("status", status_name((enum status)status), true);
            (void)printf("} %zu\n", r->plans[i].counts[status]);
        }
}

static void
prometheus_findings(const struct findings *f)
{
    put_metric("findings", "Things found wrong with this machine now, by kind and worst severity.");
    for (size_t i = 0; i < f->n; i++) {
        enum severity worst = SEVERITY_INFO;
        size_t n = 0, before = 0;

        for (size_t k = 0; k < f->n; k++)
            if (strcmp(f->items[k].id, f->items[i].id) == 0 && f->items[k].waived == NULL) {
                worst = f->items[k].severity > worst ? f->items[k].severity : worst;
                before += k < i;
                n++;
            }
        if (before > 0 || f->items[i].waived != NULL)
            continue; /* A series stands once. */
        (void)fputs("hardsock_tune_findings{", stdout);
        put_label("id", f->items[i].id, false);
        put_label("severity", severity_name(worst), true);
        (void)printf("} %zu\n", n);
    }
}

void
format_prometheus(const struct report *r, enum exit_code rv)
{
    prometheus_settings(r);
    prometheus_findings(&r->findings);
    put_metric("check_exit_code", "Exit code of the last check: 0 as wanted, 1 drift; see --help.");
    (void)printf("hardsock_tune_check_exit_code %d\n", (int)rv);
    put_metric("check_timestamp_seconds", "When the last check ran, in seconds since 1970.");
    (void)printf("hardsock_tune_check_timestamp_seconds %" PRId64 "\n", (int64_t)time(NULL));
}

/* ---- JUnit ----------------------------------------------------------------------------------- */

static void
put_xml(const char *name, const char *text)
{
    (void)printf(" %s=\"", name);
    for (const char *s = printable(text); *s != '\0'; s++)
        switch (*s) {
        case '&':
            (void)fputs("&amp;", stdout);
            break;
        case '<':
            (void)fputs("&lt;", stdout);
            break;
        case '"':
            (void)fputs("&quot;", stdout);
            break;
        default:
            (void)putchar(*s);
        }
    (void)putchar('"');
}

static void
junit_case(const struct profile *profile, const struct item *it)
{
    (void)fputs("    <testcase", stdout);
    put_xml("classname", profile->name);
    put_xml("name", key_show(it->setting->path));
    if (it->status == STATUS_OK || it->status == STATUS_REMARK) {
        (void)puts("/>");
        return;
    }
    (void)fputs(is_bad(it) ? "><failure" : "><skipped", stdout);
    put_xml("message", it->status == STATUS_WAIVED ? mem_format("%s; %s", sentence(it), it->reason)
                                                   : sentence(it));
    (void)puts("/></testcase>");
}

void
format_junit(const struct report *r)
{
    (void)puts("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"hardsock-tune\">");
    for (size_t i = 0; i < r->n; i++) {
        const struct plan *plan = &r->plans[i];
        size_t failures = plan->counts[STATUS_DRIFT] + plan->counts[STATUS_DENIED];
        size_t skipped = plan->n - failures - plan->counts[STATUS_OK] - plan->counts[STATUS_REMARK];

        (void)fputs("  <testsuite", stdout);
        put_xml("name", r->profiles[i].name);
        (void)printf(" tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\">\n", plan->n,
                     failures, skipped);
        for (size_t k = 0; k < plan->n; k++)
            junit_case(&r->profiles[i], &plan->items[k]);
        (void)puts("  </testsuite>");
    }
    (void)puts("</testsuites>");
}

/* ---- SARIF ----------------------------------------------------------------------------------- */

static void
sarif_text(const char *key, const char *text)
{
    json_open(key, '{');
    json_text("text", text);
    json_close();
}

static void
sarif_result(const char *rule, const char *level, const char *text, const char *uri,
             const char *waived)
{
    json_open(NULL, '{');
    json_text("ruleId", rule);
    json_text("level", level);
    sarif_text("message", text);
    json_open("locations", '[');
    if (uri != NULL) {
        json_open(NULL, '{');
        json_open("physicalLocation", '{');
        json_open("artifactLocation", '{');
        json_text("uri", uri);
        json_close();
        json_close();
        json_close();
    }
    json_close();
    if (waived != NULL) {
        json_open("suppressions", '[');
        json_open(NULL, '{');
        json_text("kind", "external");
        json_text("justification", waived);
        json_close();
        json_close();
    }
    json_close();
}

static void
sarif_rules(const struct report *r)
{
    json_open("rules", '[');
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->plans[i].n; k++) {
            const struct setting *w = r->plans[i].items[k].setting;

            if (!is_bad(&r->plans[i].items[k]) && r->plans[i].items[k].status != STATUS_WAIVED)
                continue;
            json_open(NULL, '{');
            json_text("id", mem_format("%s/%s", r->profiles[i].name, key_show(w->path)));
            sarif_text("shortDescription",
                       mem_format("%s: %s", key_show(w->path), setting_show(w)));
            sarif_text("fullDescription", w->why == NULL ? setting_show(w) : w->why);
            json_close();
        }
    json_close();
}

static void
sarif_results(const struct report *r)
{
    static const char *const levels[] = {"note", "warning", "error"};

    json_open("results", '[');
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->plans[i].n; k++) {
            const struct item *it = &r->plans[i].items[k];

            if (it->status == STATUS_WAIVED)
                sarif_result(mem_format("%s/%s", r->profiles[i].name, key_show(it->setting->path)),
                             "error", sentence(it), mem_format("proc/sys/%s", it->setting->path),
                             it->reason);
            if (is_bad(it))
                sarif_result(mem_format("%s/%s", r->profiles[i].name, key_show(it->setting->path)),
                             "error", sentence(it), mem_format("proc/sys/%s", it->setting->path),
                             NULL);
        }
    for (size_t i = 0; i < r->findings.n; i++) {
        const struct finding *f = &r->findings.items[i];

        sarif_result(mem_format("finding/%s", f->id), levels[f->severity],
                     mem_format("%s. %s", f->what, f->advice), NULL, f->waived);
    }
    json_close();
}

void
format_sarif(const struct report *r)
{
    json_open(NULL, '{');
    json_text("$schema", "https://json.schemastore.org/sarif-2.1.0.json");
    json_text("version", "2.1.0");
    json_open("runs", '[');
    json_open(NULL, '{');
    json_open("tool", '{');
    json_open("driver", '{');
    json_text("name", "hardsock-tune");
    json_text("version", TUNE_VERSION);
    sarif_rules(r);
    json_close();
    json_close();
    sarif_results(r);
    json_close();
    json_close();
    json_close();
}
