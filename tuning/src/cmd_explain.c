/* cmd_explain.c: `explain KEY...`: all that is known about a key, with the machine's own value.
 *
 * Keys that are gone or never were are explained too. Secrets are explained but never read. The
 * name of an error or its message is answered with the settings behind it.
 */
#include "key.h"
#include "mem.h"
#include "out.h"
#include "suggest.h"
#include "effective.h"
#include "usual.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

struct fact {
    const char *label, *text;
};

#define MAX_FACTS 48

/* "2048 on this machine: ${tcp_hash / 2} (net/ipv4/tcp_ipv4.c:3301)" */
static const char *
computed_text(const struct sys *s, const struct kb_key *k)
{
    const char *exact = kb_text(k, KB_COMPUTED), *near = kb_text(k, KB_NEAR), *here = "";
    struct value v;
    bool is_near;

    if (exact == NULL && near == NULL)
        return NULL;
    if (usual_computed(s, k, &v, &is_near))
        here = mem_format("%s%s on this machine: ", is_near ? "about " : "", value_show(&v));
    return mem_format("%s%s (%s)", here, exact != NULL ? exact : near,
                      kb_text(k, KB_COMPUTED_SOURCE));
}

/* "default, scope on Linux 5.10.0 to 7.2.13; running 6.18.44" */
static const char *
verified_on(const struct kb_key *k)
{
    const char *agreed = kb_text(k, KB_AGREED), *running = kb_text(k, KB_VERIFIED);

    if (agreed == NULL || running == NULL)
        return agreed != NULL ? agreed : running;
    return mem_format("%s; running %s", agreed, running);
}

static size_t
gather(const struct sys *s, const char *path, const char **ret_value, struct fact facts[MAX_FACTS])
{
    const struct kb_key *k = kb_find(path);
    static const struct {
        const char *label;
        enum kb_text which;
    } texts[] = {
        {"removed", KB_REMOVED}, {"module", KB_MODULE},   {"rules", KB_RULES},
        {"risk", KB_RISK},       {"myth", KB_MYTH},       {"note", KB_NOTE},
        {"twin", KB_TWIN},       {"alias", KB_ALIAS},     {"not applied", KB_CHECK_ONLY},
        {"seen", KB_SEEN},       {"differs", KB_DIFFERS}, {"source", KB_SOURCE},
    };
    static const enum level levels[] = {LEVEL_HARMFUL, LEVEL_DOUBTFUL, LEVEL_POINTLESS, LEVEL_FINE};
    struct value v;
    const char *refused = NULL, *doubt, *effective;
    size_t n = 0;
    int sys;

    *ret_value = NULL;
    if (!key_allowed(path, &refused))
        facts[n++] = (struct fact){"refused", mem_format("this key %s", refused)};
    else if (sys_value(s, path, &v, ret_value, &sys) == ACCESS_MISSING)
        facts[n++] = (struct fact){"absent", sys_why_missing(s, path)};
    else if (*ret_value == NULL)
        facts[n++] = (struct fact){"unreadable", strerror(sys)};
    else if ((doubt = kb_doubt(k, &v)) != NULL)
        facts[n++] = (struct fact){"doubt", doubt};
    if ((effective = effective_text(s, path)) != NULL)
        facts[n++] = (struct fact){"effective", effective};
    if (k == NULL)
        return n;
    facts[n++] = (struct fact){"meaning", kb_text(k, KB_MEANING)};
    if (k->scope != SCOPE_NONE)
        facts[n++] = (struct fact){"type", kb_type_text(k)};
    facts[n++] = (struct fact){"unit", kb_text(k, KB_UNIT)};
    facts[n++] = (struct fact){"default", kb_default(k, path)};
    facts[n++] = (struct fact){"computed", computed_text(s, k)};
    if (k->min <= k->max)
        facts[n++] = (struct fact){"range", mem_format("%lld to %lld (a hint; the kernel decides)",
                                                       (long long)k->min, (long long)k->max)};
    facts[n++] = (struct fact){"scope", k->scope == SCOPE_NONE ? NULL : kb_scope_text(k)};
    facts[n++] = (struct fact){"acts", k->scope == SCOPE_NONE ? NULL : kb_effect_text(k)};
    facts[n++] = (struct fact){"combined", kb_combine_text((enum combine)k->combine)};
    facts[n++] = (struct fact){"rule", kb_text(k, KB_RULE_SOURCE)};
    facts[n++] = (struct fact){"since", kb_since_text(k)};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        facts[n++] = (struct fact){texts[i].label, kb_text(k, texts[i].which)};
    facts[n++] = (struct fact){"verified", verified_on(k)};
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
        facts[n++] = (struct fact){level_name(levels[i]), kb_cases_text(k, levels[i])};
    facts[n++] = (struct fact){"judged by", kb_text(k, KB_RISK_SOURCE)};
    return n;
}

static void
show(const struct options *o, const char *path, const char *value, const struct fact *facts,
     size_t n)
{
    const char *key = key_show(path);

    if (o->format == FORMAT_JSON) {
        json_open(NULL, '{');
        json_text("key", key);
        json_text("value", value);
        for (size_t i = 0; i < n; i++)
            json_text(facts[i].label, facts[i].text);
        json_close();
        return;
    }
    if (o->format == FORMAT_TSV) {
        if (value != NULL)
            tsv_line(key, "value", value, NULL);
        for (size_t i = 0; i < n; i++)
            if (facts[i].text != NULL)
                tsv_line(key, facts[i].label, facts[i].text, NULL);
        return;
    }
    put_painted(o, PAINT_BOLD, key, 0);
    (void)printf("%s%s\n", value == NULL ? "" : " = ", value == NULL ? "" : printable(value));
    for (size_t i = 0; i < n; i++)
        if (facts[i].text != NULL)
            put_wrapped(2, mem_format("%-10s ", facts[i].label), facts[i].text);
}

/* One word is enough where only one known key ends in it. */
static const char *
full_name(const char *name)
{
    const char *found = NULL;

    if (strpbrk(name, "./") != NULL)
        return name;
    for (size_t i = 0; kb_at(i) != NULL; i++) {
        const char *path = kb_path(kb_at(i)), *last = strrchr(path, '/') + 1;

        if (strcmp(last, name) != 0 || strchr(path, '*') != NULL)
            continue;
        if (found != NULL)
            return name;
        found = path;
    }
    return found != NULL ? found : name;
}

static bool
is_unknown(const struct sys *s, const char *path)
{
    const char *text;
    int sys;

    return kb_find(path) == NULL && sys_read(s, path, &text, &sys) == ACCESS_MISSING;
}

/* What was meant by a key that is neither known nor there. */
static enum exit_code
say_unknown(const char *path)
{
    const char *last = strrchr(path, '/');
    struct suggestion whole = {.word = key_show(path)};
    struct suggestion word = {.word = last == NULL ? path : last + 1};

    for (size_t i = 0; kb_at(i) != NULL; i++) {
        const char *known = kb_path(kb_at(i));

        suggest(&whole, key_show(known));
        suggest(&word, strrchr(known, '/') + 1);
    }
    return fail_with(EXIT_USAGE, "%s is not known to this tool, nor to this kernel%s",
                     key_show(path), suggest_text(whole.best != NULL ? &whole : &word));
}

static const struct kb_symptom *
symptom_of(const char *text)
{
    const struct kb_symptom *s, *found = NULL;

    for (size_t i = 0; (s = kb_symptom_at(i)) != NULL; i++) {
        if (strcasecmp(text, kb_string(s->name)) == 0)
            return s;
        /* A line of a log holds more; of two messages in it the longer one says more. */
        if (strcasestr(text, kb_string(s->message)) != NULL &&
            (found == NULL || strlen(kb_string(s->message)) > strlen(kb_string(found->message))))
            found = s;
    }
    return found;
}

static void
show_symptom(const struct options *o, const struct kb_symptom *s)
{
    const char *keys = kb_string(s->keys);

    if (o->format == FORMAT_JSON) {
        json_open(NULL, '{');
        json_text("symptom", kb_string(s->name));
        json_text("message", kb_string(s->message));
        json_text("meaning", kb_string(s->meaning));
        json_text("keys", keys);
        json_close();
    } else if (o->format == FORMAT_TSV) {
        tsv_line(kb_string(s->name), "message", kb_string(s->message), NULL);
        tsv_line(kb_string(s->name), "meaning", kb_string(s->meaning), NULL);
        tsv_line(kb_string(s->name), "keys", keys, NULL);
    } else {
        put_painted(o, PAINT_BOLD, kb_string(s->name), 0);
        put_rest((int)strlen(kb_string(s->name)), 2, mem_format(": %s", kb_string(s->message)));
        put_wrapped(2, "meaning    ", kb_string(s->meaning));
        put_wrapped(2, "settings   ", keys);
    }
}

/* One argument: a key, or what somebody saw. */
static enum exit_code
explain(const struct options *o, const struct sys *s, const char *name)
{
    const struct kb_symptom *symptom = symptom_of(name);
    struct fact facts[MAX_FACTS];
    char path[KEY_MAX];
    const char *value, *why, *full = full_name(name);
    size_t n;

    if (symptom != NULL) {
        show_symptom(o, symptom);
        return EXIT_AS_WANTED;
    }
    if (strpbrk(full, "./") == NULL &&
        key_parse(mem_format("net/%s", full), strlen(full) + 4, path, &why))
        return say_unknown(full);
    if (!key_parse(full, strlen(full), path, &why))
        return fail_with(EXIT_USAGE, "'%.80s' %s", full, why);
    n = gather(s, path, &value, facts);
    show(o, path, value, facts, n);
    return is_unknown(s, path) ? say_unknown(path) : EXIT_AS_WANTED;
}

enum exit_code
cmd_explain(const struct options *o)
{
    enum exit_code rv = EXIT_AS_WANTED;
    struct sys s;

    if (o->n_args == 0)
        return fail_with(EXIT_USAGE, "explain wants a key, such as net.core.somaxconn");
    if ((rv = sys_open(o, &s)) != EXIT_AS_WANTED)
        return rv;
    json_rows(o, "explain", "answers");
    for (size_t i = 0; i < o->n_args; i++) {
        enum exit_code one = explain(o, &s, o->args[i]);

        if (one != EXIT_AS_WANTED)
            rv = one;
    }
    json_rows_end(o, rv);
    sys_close(&s);
    return rv;
}
