/* effective.c: see effective.h.
 *
 * The rules are those of include/linux/inetdevice.h for IPv4, and of addrconf.c and ndisc.c for
 * IPv6; the knowledge base names each key's. Values are those after the plan: its own where it
 * writes a key, the machine's where it does not.
 */
#include "effective.h"

#include "key.h"
#include "mem.h"

#include <string.h>

#define MAX_SHOWN 5

struct view {
    const struct sys *s;
    const struct plan *plan; /* NULL: as it is now */
};

/* net/ipv4/conf/NAME/leaf, in parts. */
struct place {
    const char *dir, *name, *leaf;
};

static bool
split(const char *path, struct place *ret)
{
    const char *name = path + 14, *slash;

    if (strncmp(path, "net/ipv4/conf/", 14) != 0 && strncmp(path, "net/ipv6/conf/", 14) != 0)
        return false;
    if ((slash = strrchr(name, '/')) == NULL)
        return false;
    ret->dir = mem_copy(path, 13);
    ret->name = mem_copy(name, (size_t)(slash - name));
    ret->leaf = slash + 1;
    return true;
}

static const char *
key_of(const struct place *at, const char *name, const char *leaf)
{
    return mem_format("%s/%s/%s", at->dir, name, leaf);
}

static const struct item *
item_of(const struct plan *plan, const char *path)
{
    for (size_t i = 0; plan != NULL && i < plan->n; i++)
        if (strcmp(plan->items[i].setting->path, path) == 0)
            return &plan->items[i];
    return NULL;
}

static bool
number_at(const struct view *v, const char *path, int64_t *ret)
{
    const struct item *it = item_of(v->plan, path);
    struct value now;
    int sys;

    if (it != NULL && it->target_text != NULL && it->target.type == TYPE_INTS) {
        *ret = it->target.num[0];
        return true;
    }
    if (sys_value(v->s, path, &now, NULL, &sys) != ACCESS_OK || now.type != TYPE_INTS)
        return false;
    *ret = now.num[0];
    return true;
}

static int64_t
combined(enum combine rule, int64_t all, int64_t own, bool forwards)
{
    switch (rule) {
    case COMBINE_MAX:
        return all > own ? all : own;
    case COMBINE_MIN:
        return all < own ? all : own;
    case COMBINE_OR:
        return all != 0 || own != 0;
    case COMBINE_AND:
        return all != 0 && own != 0;
    case COMBINE_FIRST:
        return all != 0 ? all : own;
    case COMBINE_REDIRECTS:
        return forwards ? all != 0 && own != 0 : all != 0 || own != 0;
    case COMBINE_ALL:
        return all;
    case COMBINE_NONE:
    case COMBINE_OWN:
    case COMBINE_COPY:
        break;
    }
    return own;
}

/* On the interface called name. */
static bool
effective(const struct view *v, const struct place *at, const char *name, enum combine rule,
          int64_t *ret)
{
    int64_t all, own, forwards = 0;

    if (!number_at(v, key_of(at, "all", at->leaf), &all) ||
        !number_at(v, key_of(at, name, at->leaf), &own))
        return false;
    if (rule == COMBINE_REDIRECTS)
        (void)number_at(v, key_of(at, name, "forwarding"), &forwards);
    *ret = combined(rule, all, own, forwards != 0);
    return true;
}

/* Interfaces that are there; not what only stands for some, nor loopback. */
static bool
is_interface(const char *name)
{
    return strcmp(name, "all") != 0 && strcmp(name, "default") != 0 && strcmp(name, "lo") != 0;
}

const char *
effective_text(const struct sys *s, const char *path)
{
    const struct kb_key *k = kb_find(path);
    const struct view v = {s, NULL};
    const enum combine rule = k == NULL ? COMBINE_NONE : (enum combine)k->combine;
    struct text t = {0};
    struct place at;
    size_t n = 0;
    int64_t number;

    if (rule == COMBINE_NONE || !split(path, &at))
        return NULL;
    if (is_interface(at.name) || strcmp(at.name, "lo") == 0)
        return effective(&v, &at, at.name, rule, &number) ? mem_format("%lld", (long long)number)
                                                          : NULL;
    if (strcmp(at.name, "all") == 0)
        for (char **names = sys_names(s, at.dir); *names != NULL; names++)
            if (is_interface(*names) && effective(&v, &at, *names, rule, &number) &&
                n++ < MAX_SHOWN)
                text_format(&t, "%s%lld on %s", n > 1 ? ", " : "", (long long)number, *names);
    if (n > MAX_SHOWN)
        text_format(&t, " and %zu more", n - MAX_SHOWN);
    if (effective(&v, &at, "default", rule, &number))
        text_format(&t, "%s%lld on interfaces that appear later", n > 0 ? ", " : "",
                    (long long)number);
    return t.len > 0 ? text_str(&t) : NULL;
}

static bool
meets(const struct setting *w, int64_t n)
{
    const struct value v = {.type = TYPE_INTS, .n = 1, .num = {n}};
    const struct value nearest = plan_nearest(w, &v, NULL);

    return value_equal(&v, &nearest);
}

/* What conf.all is about: every interface but loopback, which none of these rules is meant for. */
static bool
is_concerned(const struct plan *plan, const struct place *at, const char *name)
{
    return is_interface(name) && item_of(plan, key_of(at, name, at->leaf)) == NULL;
}

/* A new interface starts with conf.default. */
static bool
is_wrong_later(const struct view *v, const struct place *at, enum combine rule,
               const struct setting *w, int64_t *ret)
{
    const struct item *it = item_of(v->plan, key_of(at, "default", at->leaf));

    /* Where the profile has a word on conf.default, the difference is that setting's. */
    return it == NULL && effective(v, at, "default", rule, ret) && !meets(w, *ret);
}

static void
look_at(const struct view *v, const char *profile, const struct item *it, struct findings *f)
{
    const enum combine rule = it->kb == NULL ? COMBINE_NONE : (enum combine)it->kb->combine;
    const bool single = it->target_text != NULL && it->target.type == TYPE_INTS;
    struct text where = {0};
    struct place at;
    int64_t n;
    size_t bad = 0;
    char **names, *one[2] = {NULL, NULL};

    if (rule == COMBINE_NONE || !single || !split(it->setting->path, &at) ||
        strcmp(at.name, "default") == 0)
        return;
    /* The write to conf.all will bring every interface along. */
    if (rule == COMBINE_COPY && it->status == STATUS_DRIFT)
        return;
    one[0] = mem_dup(at.name);
    names = strcmp(at.name, "all") == 0 ? sys_names(v->s, at.dir) : one;
    for (; *names != NULL; names++) {
        if ((*names != one[0] && !is_concerned(v->plan, &at, *names)) ||
            !effective(v, &at, *names, rule, &n) || meets(it->setting, n))
            continue;
        if (bad++ < MAX_SHOWN)
            text_format(&where, "%s%s on %s", bad > 1 ? ", " : "", mem_format("%lld", (long long)n),
                        *names);
    }
    if (bad > MAX_SHOWN)
        text_format(&where, " and %zu more", bad - MAX_SHOWN);
    if (strcmp(at.name, "all") == 0 && is_wrong_later(v, &at, rule, it->setting, &n))
        text_format(&where, "%s%lld on interfaces that appear later (conf.default)",
                    bad++ > 0 ? ", " : "", (long long)n);
    if (bad > 0)
        finding_add(f, "effective", SEVERITY_WARNING,
                    mem_format("profile %s wants %s %s, but the kernel uses %s: %s", profile,
                               key_show(it->setting->path), setting_show(it->setting),
                               text_str(&where), kb_combine_text(rule)),
                    mem_format("want %s as well, a pattern for all of them",
                               key_show(key_of(&at, "*", at.leaf))));
}

void
effective_look(const struct sys *s, const char *profile, const struct plan *plan,
               struct findings *f)
{
    const struct view v = {s, plan};

    for (size_t i = 0; i < plan->n; i++)
        look_at(&v, profile, &plan->items[i], f);
}
