/* cmd_export.c: `export --to FORMAT`: a profile for another tool.
 *
 * Does not look at the machine. "At least" is never written as "equal", which would lower a machine
 * that has more: where the other tool can compare (Ansible) it does, elsewhere the key is left out.
 * What is left out stays as a comment with the reason, and the exit code is 1.
 */
#include "key.h"
#include "mem.h"
#include "out.h"
#include "profile.h"

#include <stdio.h>
#include <string.h>

struct target {
    const char *name, *head, *comment;
    void (*put)(const struct setting *w, const char *key, const char *value);
    const char *foot;
    bool compares; /* bounds of one number can be expressed */
    bool globs;    /* conf.*.key is a pattern there, too */
};

static bool
is_bound(const struct setting *w)
{
    return w->want == WANT_AT_LEAST || w->want == WANT_AT_MOST || w->want == WANT_RANGE;
}

/* NULL with a reason where there is no fixed value. */
static const char *
fixed_value(const struct target *t, const struct profile *p, const struct setting *w,
            const char **ret_why)
{
    const struct kb_key *k = kb_find(w->path);

    *ret_why = "a remark alone";
    if (w->want == WANT_NOTHING)
        return NULL;
    *ret_why = "must not be set";
    if (w->want == WANT_UNSET)
        return NULL;
    *ret_why = "depends on what listens on the machine";
    if (w->want == WANT_CONTAINS && w->listening && *value_show(&w->values[0]) == '\0')
        return NULL;
    *ret_why = mem_format("%s: use apply and persist there", NEEDS_RESERVATION);
    if (needs_reservation(p, w->path))
        return NULL;
    *ret_why = mem_format("%s: a fixed value could lower or raise a machine that is as wanted; "
                          "apply and persist there work it out",
                          setting_show(w));
    if (w->want != WANT_EXACT &&
        !(t->compares && is_bound(w) && k != NULL && k->type == TYPE_INTS && k->fields == 1))
        return NULL;
    *ret_why = key_is_pattern(w->path)
                   ? "a pattern, which only sysctl.d takes: use apply and persist there, or --to "
                     "sysctl.d"
                   : "an interface's name that others take for a pattern";
    return strpbrk(w->path, "*?[]") != NULL && !(t->globs && key_is_pattern(w->path))
               ? NULL
               : value_show(&w->values[0]);
}

static void
put_quoted(const char *s, bool nix)
{
    (void)putchar('"');
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\' || (nix && *s == '$'))
            (void)putchar('\\');
        (void)putchar((unsigned char)*s < ' ' ? '?' : *s);
    }
    (void)putchar('"');
}

static void
put_sysctl(const struct setting *w, const char *key, const char *value)
{
    if (w->why != NULL)
        (void)printf("# %s\n", printable(w->why));
    (void)printf("%s%s = %s\n", w->optional ? "-" : "", key, value);
}

static void
put_tuned(const struct setting *w, const char *key, const char *value)
{
    (void)w;
    (void)printf("%s=%s\n", key, value);
}

static void
put_nixos(const struct setting *w, const char *key, const char *value)
{
    (void)w;
    (void)fputs("  ", stdout);
    put_quoted(key, true);
    (void)fputs(" = ", stdout);
    put_quoted(value, true);
    (void)fputs(";\n", stdout);
}

/* A task that reads the value; returns the expression that brings it within the bounds. */
static const char *
put_reading(const struct setting *w, const char *key)
{
    const char *low = w->want == WANT_AT_MOST ? NULL : value_show(&w->values[0]);
    const char *high = w->want == WANT_AT_LEAST ? NULL : value_show(&w->values[w->n - 1]);
    char *variable = mem_format("hardsock_%s", w->path);
    const char *text;

    for (char *c = variable; *c != '\0'; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9')))
            *c = '_';
    (void)fputs("- name: ", stdout);
    put_quoted(mem_format("%s: %s", key, setting_show(w)), false);
    (void)fputs("\n  ansible.builtin.command: [sysctl, -n, ", stdout);
    put_quoted(key, false);
    (void)printf("]\n  register: %s\n  changed_when: false\n  check_mode: false\n", variable);
    text = mem_format("%s.stdout | int", variable);
    if (low != NULL)
        text = mem_format("[%s, %s] | max", text, low);
    return high == NULL ? text : mem_format("[%s, %s] | min", text, high);
}

static void
put_ansible(const struct setting *w, const char *key, const char *value)
{
    if (is_bound(w))
        value = mem_format("{{ %s }}", put_reading(w, key));
    (void)fputs("- name: ", stdout);
    put_quoted(w->why == NULL ? key : mem_format("%s: %s", key, w->why), false);
    (void)fputs("\n  ansible.posix.sysctl:\n    name: ", stdout);
    put_quoted(key, false);
    (void)fputs("\n    value: ", stdout);
    put_quoted(value, false);
    (void)fputs("\n    sysctl_file: /etc/sysctl.d/90-hardsock.conf\n    state: present\n", stdout);
}

/* Kubernetes lets pods set these without leave, from the kernel on. */
static const char *
safe_since(const char *path)
{
    static const char *const safe[][2] = {
        {"net/ipv4/ip_local_port_range", "3.1"},
        {"net/ipv4/tcp_syncookies", "3.1"},
        {"net/ipv4/ip_unprivileged_port_start", "4.11"},
        {"net/ipv4/ip_local_reserved_ports", "3.16"},
        {"net/ipv4/tcp_keepalive_time", "4.5"},
        {"net/ipv4/tcp_fin_timeout", "4.6"},
        {"net/ipv4/tcp_keepalive_intvl", "4.5"},
        {"net/ipv4/tcp_keepalive_probes", "4.5"},
        {"net/ipv4/tcp_rmem", "4.15"},
        {"net/ipv4/tcp_wmem", "4.15"},
    };

    for (size_t i = 0; i < sizeof(safe) / sizeof(safe[0]); i++)
        if (strcmp(safe[i][0], path) == 0)
            return safe[i][1];
    return NULL;
}

static void
put_kubernetes(const struct setting *w, const char *key, const char *value)
{
    const struct kb_key *k = kb_find(w->path);
    const char *since = safe_since(w->path);

    if (k == NULL || k->scope != SCOPE_NAMESPACE) {
        (void)printf("    # %s: not a pod's own (%s); set it on the node\n", key,
                     k == NULL ? "unknown" : kb_scope_name(k->scope));
        return;
    }
    (void)fputs("    - name: ", stdout);
    put_quoted(key, false);
    (void)fputs("\n      value: ", stdout);
    put_quoted(value, false);
    if (since != NULL)
        (void)printf(" # safe from Linux %s on\n", since);
    else
        (void)fputs(" # unsafe: the kubelet must allow it (--allowed-unsafe-sysctls)\n", stdout);
}

static const struct target targets[] = {
    {"sysctl.d", "", "# ", put_sysctl, "", false, true},
    {"kubernetes", "securityContext:\n  sysctls:\n", "    # ", put_kubernetes, "", false, false},
    {"ansible", "---\n", "# ", put_ansible, "", true, false},
    {"tuned", "[sysctl]\n", "# ", put_tuned, "", false, false},
    {"nixos", "boot.kernel.sysctl = {\n", "  # ", put_nixos, "};\n", false, false},
};

/* The setting is lost at boot unless the module comes first. Told in the file, and once for each
 * module to who makes it. */
static void
say_module(const struct options *o, const struct target *t, const struct setting *w,
           struct text *modules)
{
    const struct kb_key *k = kb_find(w->path);
    const char *module = k == NULL ? NULL : kb_text(k, KB_MODULE), *line;

    if (module == NULL)
        return;
    line = mem_format("%s needs module %s, which must be named in /etc/modules-load.d: this does "
                      "not write it there, `persist` does",
                      printable(key_show(w->path)), module);
    if (o->format == FORMAT_PRETTY)
        (void)printf("%s%s\n", t->comment, line);
    if (strstr(text_str(modules), mem_format("\n%s\n", module)) != NULL)
        return;
    text_format(modules, "\n%s\n", module);
    say("%s", line);
}

/* A doubt goes with the value, into the file and to who makes it. */
static void
say_doubt(const struct options *o, const struct target *t, const char *warning, bool weighed)
{
    if (o->format == FORMAT_PRETTY)
        (void)printf("%s%s: %s\n", t->comment, weighed ? "note" : "warning", printable(warning));
    say("%s: %s", weighed ? "note" : "warning", warning);
}

/* A pattern of the profile that the other tool would take to the key as well. */
static bool
is_reached(const struct target *t, const struct profile *p, const char *path)
{
    bool reached = false;

    for (size_t i = 0; i < p->n && t->globs; i++)
        reached |= key_is_pattern(p->settings[i].path) && p->settings[i].want == WANT_EXACT &&
                   key_matches(p->settings[i].path, path);
    return reached;
}

/* One setting of the document; false if it was left out. */
static bool
export_setting(const struct options *o, const struct target *t, const struct profile *p,
               const struct setting *w, struct text *modules)
{
    const char *why, *value = fixed_value(t, p, w, &why), *key = printable(key_show(w->path));
    const struct kb_key *k = kb_find(w->path);
    bool weighed = false;
    const char *warning = value == NULL ? NULL : profile_warning(p, w, &weighed);

    if (warning != NULL)
        say_doubt(o, t, warning, weighed);
    if (o->format == FORMAT_JSON) {
        json_open(NULL, '{');
        json_text("key", key);
        json_text("constraint", want_name(w->want));
        json_text("value", value);
        json_text("left_out", value == NULL ? why : NULL);
        json_text("doubt", warning);
        json_text("module", k == NULL ? NULL : kb_text(k, KB_MODULE));
        json_text("why", w->why);
        json_close();
    } else if (value == NULL) {
        (void)printf("%s%s: left out: %s\n", t->comment, key, why);
        if (!key_is_pattern(w->path) && is_reached(t, p, w->path))
            (void)printf("-%s\n", key);
    } else {
        t->put(w, key, value);
    }
    if (value != NULL)
        say_module(o, t, w, modules);
    return value != NULL || w->want == WANT_NOTHING || w->want == WANT_UNSET;
}

/* How many settings were left out. */
static size_t
export_profile(const struct options *o, const struct target *t, const struct profile *p, bool first,
               struct text *modules)
{
    size_t left_out = 0;

    if (o->format == FORMAT_JSON) {
        json_open(NULL, '{');
        json_text("name", p->name);
        json_text("hash", mem_format("%016llx", (unsigned long long)p->hash));
        json_open("settings", '[');
    } else {
        (void)printf("# hardsock-tune, profile %s, %016llx\n", printable(p->name),
                     (unsigned long long)p->hash);
        if (first)
            (void)fputs(t->head, stdout);
    }
    for (size_t i = 0; i < p->n; i++)
        left_out += !export_setting(o, t, p, &p->settings[i], modules);
    if (o->format == FORMAT_JSON) {
        json_close();
        json_close();
    }
    return left_out;
}

/* What stands around the settings of all profiles. */
static void
begin(const struct options *o, const struct target *t)
{
    if (o->format != FORMAT_JSON)
        return;
    json_head("export");
    json_text("to", t->name);
    json_open("profiles", '[');
}

static bool
settings_agree(const struct setting *w, const struct profile *p)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct setting *other = &p->settings[i];
        const char *what = w->want != WANT_EXACT || other->want != WANT_EXACT
                               ? NULL
                               : kb_clash(w->path, &w->values[0], other->path, &other->values[0]);

        if (what != NULL) {
            say("%s", what);
            return false;
        }
    }
    return true;
}

/* Two names of one variable: the order of lines would decide, which nobody asked for. */
static bool
aliases_ok(const struct profile *profiles, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < profiles[i].n; k++)
            for (size_t other = 0; other < n; other++)
                if (!settings_agree(&profiles[i].settings[k], &profiles[other]))
                    return false;
    return true;
}

enum exit_code
cmd_export(const struct options *o)
{
    const struct target *t = NULL;
    struct profile profiles[2 * MAX_NAMES];
    size_t n = o->n_args + o->n_profiles, left_out = 0;
    enum exit_code rv = EXIT_AS_WANTED;
    struct text modules = {0};

    if (o->format == FORMAT_TSV)
        return fail_with(EXIT_USAGE, "export prints what --to says, or that as --format json");
    for (size_t i = 0; o->to != NULL && i < sizeof(targets) / sizeof(targets[0]); i++)
        if (strcmp(o->to, targets[i].name) == 0)
            t = &targets[i];
    if (t == NULL || n == 0)
        return fail_with(EXIT_USAGE, "export wants --to sysctl.d, kubernetes, ansible, tuned or "
                                     "nixos, and a profile");
    if (n > sizeof(profiles) / sizeof(profiles[0]))
        return fail_with(EXIT_USAGE, "export: more than %d profiles", 2 * MAX_NAMES);
    /* All of them first: half a document is none. */
    for (size_t i = 0; i < n; i++) {
        const char *name = i < o->n_args ? o->args[i] : o->profiles[i - o->n_args];

        profiles[i] = (struct profile){0};
        if ((rv = profile_load(o, name, &profiles[i])) != EXIT_AS_WANTED)
            return rv;
    }
    if (!aliases_ok(profiles, n))
        return EXIT_CONFLICT;
    begin(o, t);
    for (size_t i = 0; i < n; i++)
        left_out += export_profile(o, t, &profiles[i], i == 0, &modules);
    if (left_out > 0)
        rv = fail_with(EXIT_DRIFT, "%zu settings left out: the comments say why", left_out);
    if (o->format != FORMAT_JSON)
        (void)fputs(t->foot, stdout);
    else
        json_rows_end(o, rv);
    return rv;
}
