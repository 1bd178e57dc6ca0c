/* rules.c: rules between keys, that the kernel enforces by EINVAL, or not at all.
 *
 * Looks at the values that would hold once the plan is applied: the plan's own where it writes a
 * key, the machine's where it does not.
 */
#include "plan.h"

#include "key.h"
#include "mem.h"
#include "order.h"

#include <string.h>

static bool
value_after(const struct sys *s, const struct plan *plan, const char *path, struct value *ret)
{
    int sys;

    for (size_t i = 0; i < plan->n; i++)
        if (strcmp(plan->items[i].setting->path, path) == 0) {
            *ret = plan->items[i].status == STATUS_DRIFT && plan->items[i].target_text != NULL
                       ? plan->items[i].target
                       : plan->items[i].current;
            return plan->items[i].current_text != NULL;
        }
    return sys_value(s, path, ret, NULL, &sys) == ACCESS_OK;
}

static bool
number_after(const struct sys *s, const struct plan *plan, const char *path, size_t field,
             int64_t *ret)
{
    struct value v;

    if (!value_after(s, plan, path, &v) || v.type != TYPE_INTS || v.n <= field)
        return false;
    *ret = v.num[field];
    return true;
}

static bool
broken(const char *what)
{
    say("%s", what);
    return false;
}

/* Two names of one variable cannot have two values. */
static bool
aliases_ok(const struct plan *plan)
{
    for (size_t i = 0; i < plan->n; i++)
        for (size_t k = i + 1; k < plan->n; k++) {
            const struct item *a = &plan->items[i], *b = &plan->items[k];
            const char *what =
                a->target_text == NULL || b->target_text == NULL
                    ? NULL
                    : kb_clash(a->setting->path, &a->target, b->setting->path, &b->target);

            if (what != NULL)
                return broken(what);
        }
    return true;
}

static bool
ports_ok(const struct sys *s, const struct plan *plan)
{
    int64_t low, high, start;
    struct value reserved;

    if (!number_after(s, plan, "net/ipv4/ip_local_port_range", 0, &low) ||
        !number_after(s, plan, "net/ipv4/ip_local_port_range", 1, &high))
        return true;
    if (low > high || low < 1 || high >= PORTS)
        return broken("net.ipv4.ip_local_port_range: the range is none");
    if (number_after(s, plan, "net/ipv4/ip_unprivileged_port_start", 0, &start) && start > low)
        return broken(mem_format("net.ipv4.ip_unprivileged_port_start (%lld) must not be "
                                 "above the low end of net.ipv4.ip_local_port_range (%lld)",
                                 (long long)start, (long long)low));
    if (value_after(s, plan, "net/ipv4/ip_local_reserved_ports", &reserved) &&
        reserved.type == TYPE_PORTS &&
        value_count_ports(&reserved, (unsigned)low, (unsigned)high) == (size_t)(high - low + 1))
        return broken("net.ipv4.ip_local_reserved_ports would reserve the whole port range: "
                      "no connect() could succeed");
    return true;
}

static bool
reuse_ok(const struct sys *s, const struct plan *plan)
{
    int64_t reuse, timestamps;

    if (number_after(s, plan, "net/ipv4/tcp_tw_reuse", 0, &reuse) && reuse == 1 &&
        number_after(s, plan, "net/ipv4/tcp_timestamps", 0, &timestamps) && timestamps == 0)
        return broken("net.ipv4.tcp_tw_reuse needs net.ipv4.tcp_timestamps");
    return true;
}

static bool
congestion_ok(const struct sys *s, const struct plan *plan)
{
    const char *list = s->first_ns ? "net/ipv4/tcp_available_congestion_control"
                                   : "net/ipv4/tcp_allowed_congestion_control";
    struct value wanted, have;

    for (size_t i = 0; i < plan->n; i++)
        if (strcmp(plan->items[i].setting->path, "net/ipv4/tcp_congestion_control") == 0 &&
            plan->items[i].status == STATUS_DRIFT && value_after(s, plan, list, &have) &&
            have.type == TYPE_WORDS) {
            wanted = plan->items[i].target;
            wanted.type = TYPE_WORDS;
            if (!value_contains(&have, &wanted))
                return broken(mem_format("net.ipv4.tcp_congestion_control: %s is not in %s (%s); "
                                         "load its module first, this tool loads none",
                                         wanted.text, key_show(list), have.text));
        }
    return true;
}

static bool
rising_ok(const struct plan *plan)
{
    for (size_t i = 0; i < plan->n; i++) {
        const struct item *it = &plan->items[i];

        if (it->status != STATUS_DRIFT || it->kb == NULL || it->kb->fields != 3)
            continue;
        if (it->target.num[0] > it->target.num[1] || it->target.num[1] > it->target.num[2])
            return broken(mem_format("%s: %s does not rise from left to right",
                                     key_show(it->setting->path), it->target_text));
    }
    return true;
}

struct after {
    const struct sys *s;
    const struct plan *plan;
};

static bool
set_after(const void *from, const char *path, struct value *ret)
{
    const struct after *a = from;
    struct value v;

    if (!value_after(a->s, a->plan, path, &v))
        return false;
    *ret = v;
    return true;
}

/* What stands there already is the machine's affair: only what would be written is refused. */
static bool
order_ok(const struct sys *s, const struct plan *plan)
{
    const struct after after = {s, plan};

    for (size_t i = 0; i < plan->n; i++) {
        const struct item *it = &plan->items[i];
        const char *what = it->status != STATUS_DRIFT || it->target_text == NULL
                               ? NULL
                               : order_refusal(set_after, &after, it->setting->path);

        if (what != NULL)
            return broken(mem_format("%s: %s", key_show(it->setting->path), what));
    }
    return true;
}

bool
plan_rules(const struct sys *s, const struct plan *plan)
{
    bool ok = ports_ok(s, plan);

    ok &= reuse_ok(s, plan);
    ok &= congestion_ok(s, plan);
    ok &= rising_ok(plan);
    ok &= order_ok(s, plan);
    ok &= aliases_ok(plan);
    return ok;
}
