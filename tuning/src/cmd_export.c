/* cmd_export.c: `export --to FORMAT`: a profile for another tool.
 *
 * Does not look at the machine: a constraint becomes its bound. What the other tool cannot express
 * stays as a comment with the reason, so that nothing is lost silently.
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
};

/* NULL with a reason where there is no fixed value. */
static const char *
fixed_value(const struct setting *w, const char **ret_why)
{
    *ret_why = "a remark alone";
    if (w->want == WANT_NOTHING)
        return NULL;
    *ret_why = "must not be set";
    if (w->want == WANT_UNSET)
        return NULL;
    *ret_why = "depends on what listens on the machine";
    if (w->want == WANT_CONTAINS && w->listening && *value_show(&w->values[0]) == '\0')
        return NULL;
    *ret_why = "an interface's name that others take for a pattern";
    return strpbrk(w->path, "*?[]") != NULL ? NULL : value_show(&w->values[0]);
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
    (void)printf("# %s\n%s = %s\n", printable(w->why == NULL ? "" : w->why), key, value);
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

static void
put_ansible(const struct setting *w, const char *key, const char *value)
{
    (void)fputs("- name: ", stdout);
    put_quoted(mem_format("%s: %s", key, w->why == NULL ? "" : w->why), false);
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
    {"sysctl.d", "", "# ", put_sysctl, ""},
    {"kubernetes", "securityContext:\n  sysctls:\n", "    # ", put_kubernetes, ""},
    {"ansible", "---\n", "# ", put_ansible, ""},
    {"tuned", "[sysctl]\n", "# ", put_tuned, ""},
    {"nixos", "boot.kernel.sysctl = {\n", "  # ", put_nixos, "};\n"},
};

static void
export_profile(const struct target *t, const struct profile *p)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct setting *w = &p->settings[i];
        const char *why, *value = fixed_value(w, &why), *key = printable(key_show(w->path));

        if (value == NULL)
            (void)printf("%s%s: left out: %s\n", t->comment, key, why);
        else
            t->put(w, key, value);
    }
}

enum exit_code
cmd_export(const struct options *o)
{
    const struct target *t = NULL;
    size_t n = o->n_args + o->n_profiles;

    if (o->format != FORMAT_PRETTY)
        return fail_with(EXIT_USAGE, "export prints what --to says, in no other --format");
    for (size_t i = 0; o->to != NULL && i < sizeof(targets) / sizeof(targets[0]); i++)
        if (strcmp(o->to, targets[i].name) == 0)
            t = &targets[i];
    if (t == NULL || n == 0)
        return fail_with(EXIT_USAGE, "export wants --to sysctl.d, kubernetes, ansible, tuned or "
                                     "nixos, and a profile");
    for (size_t i = 0; i < n; i++) {
        const char *name = i < o->n_args ? o->args[i] : o->profiles[i - o->n_args];
        struct profile p = {0};
        enum exit_code rv = profile_load(o, name, &p);

        if (rv != EXIT_AS_WANTED)
            return rv;
        (void)printf("# hardsock-tune, profile %s, %016llx\n", printable(p.name),
                     (unsigned long long)p.hash);
        if (i == 0)
            (void)fputs(t->head, stdout);
        export_profile(t, &p);
    }
    (void)fputs(t->foot, stdout);
    return EXIT_AS_WANTED;
}
