/* plan.c: comparing, and working out the target of a constraint.
 *
 * The target is the nearest value that meets the constraint: "at least" never lowers, "contains"
 * only adds. Values are compared in canonical form, field by field.
 */
#include "plan.h"

#include "key.h"
#include "mem.h"

#include <errno.h>
#include <string.h>

#define RANGE_KEY "net/ipv4/ip_local_port_range"

const char *
status_name(enum status status)
{
    static const char *const names[] = {"ok",     "drift",   "missing", "global",
                                        "denied", "skipped", "remark"};

    return names[status];
}

static struct value
clamp(const struct value *current, const struct value *low, const struct value *high)
{
    struct value v = *current;

    for (size_t i = 0; i < v.n; i++) {
        if (low != NULL && v.num[i] < low->num[low->n == 1 ? 0 : i])
            v.num[i] = low->num[low->n == 1 ? 0 : i];
        if (high != NULL && v.num[i] > high->num[high->n == 1 ? 0 : i])
            v.num[i] = high->num[high->n == 1 ? 0 : i];
    }
    return v;
}

/* Listening ports inside the range that would hold after the profile: automatic choice could take
 * those, and only those. */
static struct value
listening_ports(const struct sys *s, const struct profile *p, const struct diag *d)
{
    struct value v = {.type = TYPE_PORTS, .ports = mem_alloc(PORTS / 8)}, range;
    int sys;

    if (sys_value(s, RANGE_KEY, &range, NULL, &sys) != ACCESS_OK || range.type != TYPE_INTS)
        return v;
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->settings[i].path, RANGE_KEY) == 0 && p->settings[i].want == WANT_EXACT)
            range = p->settings[i].values[0];
    for (size_t word = 0; word < PORTS / 64; word++)
        v.ports[word] = d->tcp_ports.ports[word] | d->udp_ports.ports[word];
    for (unsigned port = 0; port < PORTS; port++) {
        uint64_t bit = (uint64_t)1 << port % 64;

        if (v.ports[port / 64] == 0)
            port |= 63;
        else if (range.n != 2 || port < range.num[0] || port > range.num[1])
            v.ports[port / 64] &= ~bit;
    }
    return v;
}

static struct value
target_of(const struct sys *s, const struct profile *p, const struct setting *w,
          const struct diag *d, const struct value *current)
{
    struct value both, none = {.type = TYPE_PORTS};

    switch (w->want) {
    case WANT_EXACT:
        return w->values[0];
    case WANT_AT_LEAST:
        return clamp(current, &w->values[0], NULL);
    case WANT_AT_MOST:
        return clamp(current, NULL, &w->values[0]);
    case WANT_RANGE:
        return clamp(current, &w->values[0], &w->values[1]);
    case WANT_ONE_OF:
        for (size_t i = 0; i < w->n; i++)
            if (value_equal(current, &w->values[i]))
                return *current;
        return w->values[0];
    case WANT_CONTAINS:
        both = value_union(current, &w->values[0]);
        if (w->listening) {
            struct value listening = listening_ports(s, p, d);

            both = value_union(&both, &listening);
        }
        return both;
    case WANT_UNSET:
        /* An old kernel still has a key that is gone: 0 turns it off. */
        if (current->type != TYPE_PORTS)
            return (struct value){.type = current->type, .text = "0"};
        none.ports = mem_alloc(PORTS / 8);
        return none;
    case WANT_NOTHING:
        break;
    }
    return *current;
}

static const char *
why_skipped(const struct sys *s, const struct profile *p, const struct setting *w)
{
    const char *kernel = w->since != NULL ? w->since : p->kernel;

    if (kernel != NULL && s->kernel[0] != '\0' && kernel_compare(s->kernel, kernel) < 0)
        return mem_format("wants Linux %s; this is %s", kernel, s->kernel);
    if (w->module != NULL && !sys_has_module(s, w->module))
        return mem_format("module %s is not loaded", w->module);
    if (p->module != NULL && !sys_has_module(s, p->module))
        return mem_format("module %s is not loaded", p->module);
    return NULL;
}

static void
look(const struct sys *s, const struct profile *p, const struct diag *d, struct item *it)
{
    const struct setting *w = it->setting;
    int sys = 0;

    switch (sys_value(s, w->path, &it->current, &it->current_text, &sys)) {
    case ACCESS_MISSING:
        it->status = STATUS_MISSING;
        it->reason = sys_why_missing(s, w->path);
        if (w->want == WANT_UNSET || w->want == WANT_NOTHING)
            it->status = w->want == WANT_UNSET ? STATUS_OK : STATUS_REMARK;
        else if (it->kb != NULL && it->kb->scope != SCOPE_NAMESPACE && !s->first_ns &&
                 (it->kb->module == NULL || sys_has_module(s, it->kb->module)))
            it->status = STATUS_GLOBAL;
        return;
    case ACCESS_DENIED:
    case ACCESS_FAILED:
        it->status = w->want == WANT_NOTHING ? STATUS_REMARK : STATUS_DENIED;
        it->reason = mem_format("cannot be read: %s", strerror(sys));
        return;
    case ACCESS_OK:
        break;
    }
    if (w->want == WANT_NOTHING) {
        it->status = STATUS_REMARK;
        return;
    }
    if (w->n > 0 && it->current.type != w->values[0].type) {
        it->status = STATUS_DENIED;
        it->reason = mem_format("reads '%.80s', which is not what was expected", it->current_text);
        return;
    }
    it->target = target_of(s, p, w, d, &it->current);
    it->target_text = value_show(&it->target);
    it->status = value_equal(&it->current, &it->target) ? STATUS_OK : STATUS_DRIFT;
    it->doubt = kb_doubt(it->kb, &it->target);
    if (it->status == STATUS_DRIFT) {
        it->may_write = sys_may_write(s, w->path);
        /* fs keys could be written from here, and would change the whole machine. */
        if (it->kb != NULL && it->kb->scope != SCOPE_NAMESPACE && !s->first_ns) {
            it->may_write = EACCES;
            it->reason = "global: belongs to the whole machine, to be set in its first network "
                         "namespace";
        } else if (it->may_write != 0)
            it->reason = mem_format("cannot be written: %s", strerror(it->may_write));
    }
}

void
plan_make(const struct sys *s, const struct profile *p, const struct diag *d, struct plan *ret)
{
    struct plan plan = {.n = p->n};

    plan.items = mem_alloc((p->n + 1) * sizeof(*plan.items));
    for (size_t i = 0; i < p->n; i++) {
        struct item *it = &plan.items[i];

        it->setting = &p->settings[i];
        it->kb = kb_find(it->setting->path);
        it->reason = why_skipped(s, p, it->setting);
        if (it->reason != NULL && it->setting->want != WANT_NOTHING)
            it->status = STATUS_SKIPPED;
        else
            look(s, p, d, it);
        plan.counts[it->status]++;
    }
    *ret = plan;
}
