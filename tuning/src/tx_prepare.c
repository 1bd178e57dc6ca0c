/* tx_prepare.c: from plans to ordered steps, with everything checked that can be.
 *
 * Order: ports are reserved before the range is widened; ip_forward comes before the keys that it
 * rewrites; all, default, then single interfaces; and the port range goes before or after
 * ip_unprivileged_port_start, whichever keeps start <= low at every moment.
 */
#include "tx.h"

#include "key.h"
#include "mem.h"
#include "strict.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define START_KEY "net/ipv4/ip_unprivileged_port_start"

static enum exit_code
leave_out(const struct options *o, const char *key, const char *reason, enum exit_code rv)
{
    if ((o->strict & STRICT_MISSING) != 0)
        return fail_with(EXIT_REFUSED, "%s: %s", key, reason);
    if (!o->quiet)
        say("%s: left out: %s", key, reason);
    return rv;
}

/* Failures beat what is left out; what could be had in the first namespace counts least. */
static enum exit_code
worse(enum exit_code a, enum exit_code b)
{
    if (a == EXIT_GLOBAL || b == EXIT_GLOBAL)
        return a == EXIT_AS_WANTED || b == EXIT_AS_WANTED || a == b ? EXIT_GLOBAL
               : a == EXIT_GLOBAL                                   ? b
                                                                    : a;
    return a > b ? a : b;
}

static enum exit_code
take_item(const struct options *o, const struct item *it, struct journal *j)
{
    const char *key = key_show(it->setting->path);

    switch (it->status) {
    case STATUS_DENIED:
        return fail_with(EXIT_PERMISSION, "%s: %s", key, it->reason);
    case STATUS_MISSING:
        return leave_out(o, key, it->reason, EXIT_DRIFT);
    case STATUS_GLOBAL:
        return leave_out(o, key, it->reason, EXIT_GLOBAL);
    case STATUS_DRIFT:
        if (it->kb != NULL && kb_text(it->kb, KB_CHECK_ONLY) != NULL) {
            say("%s: left out: apply does not set it: %s", key, kb_text(it->kb, KB_CHECK_ONLY));
            return EXIT_DRIFT;
        }
        if (it->may_write != 0 && it->reason != NULL && strncmp(it->reason, "global", 6) == 0 &&
            (o->strict & STRICT_MISSING) == 0)
            return leave_out(o, key, it->reason, EXIT_GLOBAL);
        if (it->may_write != 0 && it->setting->optional) {
            say("%s: left out, as it is optional: %s", key, it->reason);
            return EXIT_AS_WANTED;
        }
        if (it->may_write != 0)
            return fail_with(EXIT_PERMISSION, "%s: %s", key, it->reason);
        journal_add(j, it->setting->path, it->current_text, it->target_text, ENTRY_STEP);
        break;
    case STATUS_OK:
    case STATUS_SKIPPED:
    case STATUS_REMARK:
    case STATUS_WAIVED:
    case STATUSES:
        break;
    }
    return EXIT_AS_WANTED;
}

/* net/ipv6/conf/NAME/leaf, but not that of interfaces to come. */
static bool
is_running_ipv6(const char *path, const char *leaf)
{
    return strncmp(path, "net/ipv6/conf/", 14) == 0 && strncmp(path + 14, "default/", 8) != 0 &&
           strcmp(strrchr(path, '/') + 1, leaf) == 0;
}

const char *
tx_lasting(const struct entry *e, bool *ret_harm)
{
    bool on = strcmp(e->before, "0") == 0 && strcmp(e->after, "0") != 0;

    *ret_harm = on && is_running_ipv6(e->path, "disable_ipv6");
    if (*ret_harm)
        return "flushes IPv6 addresses and routes, which revert cannot bring back";
    if (on && is_running_ipv6(e->path, "forwarding"))
        return "forgets default routes that routers announced, until they do it again";
    if (on && (strcmp(e->path, "net/ipv4/ip_forward") == 0 ||
               strcmp(e->path, "net/ipv4/conf/all/forwarding") == 0))
        return "turns off large receive offload of devices that have it, for good";
    /* Once written, such a key has a value of its own. */
    if (strncmp(e->path, "net/ipv4/conf/", 14) == 0 && strncmp(e->path + 14, "all/", 4) != 0 &&
        strncmp(e->path + 14, "default/", 8) != 0)
        return "no longer follows conf.default, for good";
    return NULL;
}

/* What could not be taken back is not done without being asked for by name. */
static bool
may_be_undone(const struct options *o, const struct journal *j)
{
    bool ok = true, harm;

    for (size_t i = 0; i < j->n; i++) {
        const char *what = tx_lasting(&j->entries[i], &harm);

        if (!harm || o->force)
            continue;
        say("%s: %s; --force does it all the same", key_show(j->entries[i].path), what);
        ok = false;
    }
    return ok;
}

enum exit_code
tx_prepare(const struct options *o, const struct report *r, struct plan *ret_plan,
           struct journal *ret)
{
    struct journal j = {.profiles = "", .boot = boot_id(&r->sys), .ns_cookie = r->sys.ns_cookie};
    enum exit_code rv = EXIT_AS_WANTED;

    for (size_t i = 0; i < r->n; i++)
        j.profiles = mem_format("%s%s%s", j.profiles, i > 0 ? " " : "", r->profiles[i].name);
    if (!plan_merge(&r->sys, &r->diag, r->plans, r->n, ret_plan))
        return EXIT_CONFLICT;
    for (size_t i = 0; i < ret_plan->n; i++)
        rv = worse(rv, take_item(o, &ret_plan->items[i], &j));
    if (!plan_rules(&r->sys, ret_plan) || !may_be_undone(o, &j))
        rv = EXIT_CONFLICT;
    *ret = j;
    return rv;
}

bool
tx_can_run(enum exit_code rv)
{
    return rv == EXIT_AS_WANTED || rv == EXIT_DRIFT || rv == EXIT_GLOBAL;
}

static int
rank_of(const char *path)
{
    if (strcmp(path, "net/ipv4/ip_forward") == 0)
        return 0;
    if (strcmp(path, "net/ipv4/conf/all/forwarding") == 0 ||
        strcmp(path, "net/ipv6/conf/all/forwarding") == 0)
        return 1;
    if (strncmp(path, "net/ipv4/conf/all/", 18) == 0 ||
        strncmp(path, "net/ipv6/conf/all/", 18) == 0)
        return 2;
    if (strncmp(path, "net/ipv4/conf/default/", 22) == 0 ||
        strncmp(path, "net/ipv6/conf/default/", 22) == 0)
        return 3;
    if (strncmp(path, "net/ipv4/conf/", 14) == 0 || strncmp(path, "net/ipv6/conf/", 14) == 0)
        return 4;
    if (strcmp(path, "net/ipv4/ip_local_reserved_ports") == 0)
        return 5;
    if (strcmp(path, "net/ipv4/tcp_timestamps") == 0)
        return 6;
    if (strcmp(path, "fs/nr_open") == 0)
        return 7;
    return 8;
}

static int
by_rank(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int rx = rank_of(x->path), ry = rank_of(y->path);

    return rx != ry ? rx - ry : strcmp(x->path, y->path);
}

void
tx_order(struct journal *j)
{
    struct entry *range = NULL, *start = NULL, swap;

    if (j->n == 0)
        return;
    qsort(j->entries, j->n, sizeof(*j->entries), by_rank);
    for (size_t i = 0; i < j->n; i++) {
        if (strcmp(j->entries[i].path, RANGE_KEY) == 0)
            range = &j->entries[i];
        if (strcmp(j->entries[i].path, START_KEY) == 0)
            start = &j->entries[i];
    }
    /* By name the range comes first: right unless it would go below the old start. */
    if (range != NULL && start != NULL &&
        strtol(range->after, NULL, 10) < strtol(start->before, NULL, 10)) {
        swap = *range;
        *range = *start;
        *start = swap;
    }
}

struct sides {
    const struct sys *s;
    const struct plan *plan;
    struct journal *j;
};

static void
add_side(const struct sides *to, const char *path)
{
    struct value v;
    const char *text, *ignored;
    int sys;

    for (size_t i = 0; i < to->j->n; i++)
        if (strcmp(to->j->entries[i].path, path) == 0)
            return;
    for (size_t i = 0; i < to->plan->n; i++) {
        const struct item *it = &to->plan->items[i];

        if (it->status == STATUS_OK && it->target_text != NULL &&
            strcmp(it->setting->path, path) == 0) {
            journal_add(to->j, path, it->current_text, it->target_text, ENTRY_KEEP);
            return;
        }
    }
    if (key_allowed(path, &ignored) && sys_value(to->s, path, &v, &text, &sys) == ACCESS_OK)
        journal_add(to->j, path, text, NULL, ENTRY_SIDE);
}

/* Every interface's copy of a key. */
static void
add_interfaces(const struct sides *to, const char *dir, const char *leaf)
{
    for (char **name = sys_names(to->s, dir); *name != NULL; name++)
        add_side(to, mem_format("%s/%s/%s", dir, *name, leaf));
}

void
tx_add_sides(const struct sys *s, const struct plan *plan, struct journal *j)
{
    const struct sides to = {s, plan, j};
    size_t n = j->n;

    for (size_t i = 0; i < n; i++) {
        const char *path = j->entries[i].path;

        if (strcmp(path, "net/ipv4/ip_forward") == 0 ||
            strcmp(path, "net/ipv4/conf/all/forwarding") == 0) {
            add_side(&to, "net/ipv4/ip_forward");
            add_interfaces(&to, "net/ipv4/conf", "forwarding");
            add_side(&to, "net/ipv4/conf/all/accept_redirects");
        } else if (strncmp(path, "net/ipv4/conf/default/", 22) == 0) {
            add_interfaces(&to, "net/ipv4/conf", strrchr(path, '/') + 1);
        } else if (strncmp(path, "net/ipv6/conf/all/", 18) == 0) {
            add_interfaces(&to, "net/ipv6/conf", strrchr(path, '/') + 1);
        } else if (strcmp(path, "net/ipv4/tcp_congestion_control") == 0) {
            add_side(&to, "net/ipv4/tcp_allowed_congestion_control");
        }
    }
}
