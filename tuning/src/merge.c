/* merge.c: one plan for several profiles.
 *
 * Profiles agree about a key when one value meets them all; the one nearest to the present value is
 * taken. What is written, persisted and held to the rules between keys is this plan, never the
 * plans of single profiles, which may each be sound and not fit together.
 */
#include "plan.h"

#include "key.h"
#include "mem.h"

#include <string.h>

/* What the profiles say about one key. */
struct family {
    const struct item *items[MAX_NAMES]; /* those that have a target */
    size_t n;
    const struct item *other; /* the most serious of the rest */
};

static int
weight_of(const struct item *it)
{
    static const int weights[] = {
        [STATUS_OK] = 2,     [STATUS_DRIFT] = 2,   [STATUS_MISSING] = 3, [STATUS_GLOBAL] = 4,
        [STATUS_DENIED] = 5, [STATUS_SKIPPED] = 1, [STATUS_REMARK] = 0,  [STATUS_WAIVED] = 0};

    return weights[it->status];
}

static struct family
gather(const struct plan plans[], size_t n, const char *path)
{
    struct family f = {0};

    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < plans[i].n; k++) {
            const struct item *it = &plans[i].items[k];

            if (strcmp(it->setting->path, path) != 0)
                continue;
            /* A default that will do pulls no other value down. */
            if (it->target_text != NULL && !it->by_default)
                f.items[f.n++] = it;
            else if (f.other == NULL || weight_of(it) > weight_of(f.other))
                f.other = it;
        }
    return f;
}

/* Each constraint pulls the value to itself until none pulls any more, or they go on for ever. */
static bool
settle(const struct family *f, const struct value *listening, struct value *v)
{
    for (size_t round = 0; round <= f->n; round++) {
        bool moved = false;

        for (size_t i = 0; i < f->n; i++) {
            struct value nearest = plan_nearest(f->items[i]->setting, v, listening);

            moved |= !value_equal(v, &nearest);
            *v = nearest;
        }
        if (!moved)
            return true;
    }
    return false;
}

static bool
agree(const struct family *f, const struct value *listening, struct value *ret)
{
    *ret = f->items[0]->current;
    if (settle(f, listening, ret))
        return true;
    /* The first choice of a list was tried; another one may suit the rest. */
    for (size_t i = 0; i < f->n; i++)
        for (size_t c = 0; c < f->items[i]->setting->n; c++) {
            if (f->items[i]->setting->want != WANT_ONE_OF)
                break;
            *ret = f->items[i]->setting->values[c];
            if (settle(f, listening, ret))
                return true;
        }
    return false;
}

static void
say_why(const struct family *f, const struct value *listening)
{
    struct family two = {.n = 2};
    struct value v;

    for (size_t i = 0; i < f->n; i++)
        for (size_t k = i + 1; k < f->n; k++) {
            const struct setting *a = f->items[i]->setting, *b = f->items[k]->setting;

            two.items[0] = f->items[i];
            two.items[1] = f->items[k];
            if (agree(&two, listening, &v))
                continue;
            say("%s: profile %s wants %s, profile %s wants %s", key_show(a->path), a->profile,
                setting_show(a), b->profile, setting_show(b));
            return;
        }
    say("%s: no value meets all profiles", key_show(f->items[0]->setting->path));
}

static bool
merge_key(const struct sys *s, const struct family *f, const struct value *listening,
          struct item *ret)
{
    struct item it;

    if (f->n == 0 || (f->other != NULL && f->other->status == STATUS_DENIED)) {
        *ret = *f->other;
        return true;
    }
    it = *f->items[0];
    if (!agree(f, listening, &it.target)) {
        say_why(f, listening);
        return false;
    }
    it.target_text = value_show(&it.target);
    it.status = value_equal(&it.current, &it.target) ? STATUS_OK : STATUS_DRIFT;
    plan_look(s, &it);
    *ret = it;
    return true;
}

/* Ports that listen inside the range as it will be. */
static struct value
listening_after(const struct sys *s, const struct diag *d, const struct plan plans[], size_t n)
{
    struct family f = gather(plans, n, RANGE_KEY);
    struct value range;
    int sys;

    if (f.n > 0 && agree(&f, NULL, &range))
        return plan_listening(d, &range);
    if (sys_value(s, RANGE_KEY, &range, NULL, &sys) != ACCESS_OK)
        range = (struct value){.type = TYPE_TEXT};
    return plan_listening(d, &range);
}

static bool
has_key(const struct plan *plan, const char *path)
{
    for (size_t i = 0; i < plan->n; i++)
        if (strcmp(plan->items[i].setting->path, path) == 0)
            return true;
    return false;
}

bool
plan_merge(const struct sys *s, const struct diag *d, const struct plan plans[], size_t n,
           struct plan *ret)
{
    const struct value listening = listening_after(s, d, plans, n);
    struct plan merged = {0};
    size_t capacity = 0;
    bool ok = true;

    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < plans[i].n; k++) {
            const char *path = plans[i].items[k].setting->path;
            struct item it = plans[i].items[k];
            struct family f;

            if (has_key(&merged, path))
                continue;
            f = gather(plans, n, path);
            ok &= merge_key(s, &f, &listening, &it);
            merged.items = mem_grow(merged.items, merged.n, &capacity, sizeof(it));
            merged.items[merged.n++] = it;
            merged.counts[it.status]++;
        }
    *ret = merged;
    return ok;
}
