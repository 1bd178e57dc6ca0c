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

bool
effective_now(const struct sys *s, const char *path, int64_t *ret)
{
    const struct kb_key *k = kb_find(path);
    const struct view v = {s, NULL};
    struct place at;

    if (k == NULL || k->combine == COMBINE_NONE || !split(path, &at) ||
        strcmp(at.name, "all") == 0 || strcmp(at.name, "default") == 0)
        return false;
    return effective(&v, &at, at.name, (enum combine)k->combine, ret);
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
    return strcmp(name, "all") != 0 && strcmp(name, "default") != 0 && strcmp(name, "lo") != 0 &&
           item_of(plan, key_of(at, name, at->leaf)) == NULL;
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
