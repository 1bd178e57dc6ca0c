/* order.c: see order.h.
 *
 * The rules are those of neigh_alloc, neigh_forced_gc and neigh_periodic_work in
 * net/core/neighbour.c, and of domain_dirty_limits in mm/page-writeback.c.
 */
#include "order.h"

#include "kb.h"
#include "key.h"
#include "mem.h"

#include <string.h>

#define OVERFLOWS                                                                                  \
    "the table is full before it is cleaned, and packets to new neighbours are dropped"
#define GROWS_OLD "entries are not looked through for old ones before there are too many"
#define HALVED "writing in the background then begins at half of what writers may use"

static const struct rule {
    const char *dir, *low, *high; /* low is below high; * in dir is one and the same name */
    const char *otherwise;
    /* Packets are lost, so that the default of a key that nobody sets counts as well. Where the
     * kernel helps itself, another key may stand in for it. */
    bool loses;
} rules[] = {
    {"net/ipv4/neigh/*", "gc_thresh1", "gc_thresh2", GROWS_OLD, true},
    {"net/ipv4/neigh/*", "gc_thresh1", "gc_thresh3", OVERFLOWS, true},
    {"net/ipv4/neigh/*", "gc_thresh2", "gc_thresh3", OVERFLOWS, true},
    {"net/ipv6/neigh/*", "gc_thresh1", "gc_thresh2", GROWS_OLD, true},
    {"net/ipv6/neigh/*", "gc_thresh1", "gc_thresh3", OVERFLOWS, true},
    {"net/ipv6/neigh/*", "gc_thresh2", "gc_thresh3", OVERFLOWS, true},
    {"vm", "dirty_background_ratio", "dirty_ratio", HALVED, false},
    {"vm", "dirty_background_bytes", "dirty_bytes", HALVED, false},
};

/* 0 turns the keys of bytes off, and needs no room between others. */
static bool
number_of(order_lookup *lookup, const void *from, const char *path, bool by_default, int64_t *ret,
          bool *ret_set)
{
    struct value v = {0};
    const bool known = kb_default_value(kb_find(path), path, "", &v);

    *ret_set = lookup(from, path, &v);
    if ((!*ret_set && !(known && by_default)) || v.type != TYPE_INTS || v.n != 1 || v.num[0] <= 0)
        return false;
    *ret = v.num[0];
    return true;
}

/* What a rule says of path, which is one of its two keys; else NULL. */
static const char *
broken(const struct rule *r, order_lookup *lookup, const void *from, const char *path)
{
    const char *leaf = strrchr(path, '/') + 1, *other;
    const char *dir = mem_copy(path, (size_t)(leaf - 1 - path));
    const bool is_low = strcmp(leaf, r->low) == 0;
    int64_t own, its;
    bool set;

    if ((!is_low && strcmp(leaf, r->high) != 0) || !key_matches(r->dir, dir))
        return NULL;
    other = mem_format("%s/%s", dir, is_low ? r->high : r->low);
    if (!number_of(lookup, from, path, false, &own, &set) ||
        !number_of(lookup, from, other, r->loses, &its, &set) || (is_low ? own < its : its < own))
        return NULL;
    return mem_format("%lld is not %s %s (%lld%s): %s", (long long)own, is_low ? "below" : "above",
                      key_show(other), (long long)its, set ? "" : ", the default", r->otherwise);
}

static const char *
find(order_lookup *lookup, const void *from, const char *path, bool loses)
{
    const char *what = NULL;

    for (size_t i = 0; what == NULL && i < sizeof(rules) / sizeof(rules[0]); i++)
        if (!loses || rules[i].loses)
            what = broken(&rules[i], lookup, from, path);
    return what;
}

const char *
order_doubt(order_lookup *lookup, const void *from, const char *path)
{
    return find(lookup, from, path, false);
}

const char *
order_refusal(order_lookup *lookup, const void *from, const char *path)
{
    return find(lookup, from, path, true);
}
