/* plan.c: comparing, and working out the target of a constraint.
 *
 * The target is the nearest value that meets the constraint: "at least" never lowers, "contains"
 * only adds. Values are compared in canonical form, field by field.
 */
#include "plan.h"

#include "conf.h"
#include "key.h"
#include "mem.h"
#include "usual.h"

#include <errno.h>
#include <string.h>

const char *
status_name(enum status status)
{
    static const char *const names[] = {"ok",     "drift",   "missing", "global",
                                        "denied", "skipped", "remark",  "waived"};

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

struct value
plan_listening(const struct diag *d, const struct value *range)
{
    struct value v = {.type = TYPE_PORTS, .ports = mem_alloc(PORTS / 8)};

    if (range->type != TYPE_INTS || range->n != 2)
        return v;
    for (size_t word = 0; word < PORTS / 64; word++)
        v.ports[word] =
            (d->tcp_ports.ports[word] | d->udp_ports.ports[word]) & ~d->untold.ports[word];
    for (unsigned port = 0; port < PORTS; port++) {
        uint64_t bit = (uint64_t)1 << port % 64;

        if (v.ports[port / 64] == 0)
            port |= 63;
        else if (port < range->num[0] || port > range->num[1])
            v.ports[port / 64] &= ~bit;
    }
    return v;
}

/* The range that would hold after the profile. */
static struct value
range_after(const struct sys *s, const struct profile *p)
{
    struct value range;
    int sys;

    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->settings[i].path, RANGE_KEY) == 0 && p->settings[i].want == WANT_EXACT)
            return p->settings[i].values[0];
    if (sys_value(s, RANGE_KEY, &range, NULL, &sys) != ACCESS_OK)
        range = (struct value){.type = TYPE_TEXT};
    return range;
}

struct value
plan_nearest(const struct setting *w, const struct value *current, const struct value *listening)
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
        return w->listening ? value_union(&both, listening) : both;
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
    const char *ignored, *kernel = w->since != NULL ? w->since : p->kernel;
    int sys;

    /* A key that is there is there, whatever the version: fixes and features are carried back. */
    if (kernel != NULL && s->kernel[0] != '\0' && kernel_compare(s->kernel, kernel) < 0 &&
        sys_read(s, w->path, &ignored, &sys) == ACCESS_MISSING)
        return mem_format("wants Linux %s; this is %s", kernel, s->kernel);
    if (w->module != NULL && !sys_has_module(s, w->module))
        return mem_format("module %s is not loaded", w->module);
    if (p->module != NULL && !sys_has_module(s, p->module))
        return mem_format("module %s is not loaded", p->module);
    return NULL;
}

void
plan_look(const struct sys *s, struct item *it)
{
    it->doubt = kb_doubt(it->kb, &it->target);
    it->may_write = 0;
    it->reason = NULL;
    if (it->status != STATUS_DRIFT)
        return;
    it->may_write = s->image ? 0 : sys_may_write(s, it->setting->path);
    /* fs keys could be written from here, and would change the whole machine. */
    if (it->kb != NULL && kb_scope_of(it->kb, s->kernel) != SCOPE_NAMESPACE && !s->first_ns) {
        it->may_write = EACCES;
        it->reason = "global: belongs to the whole machine, to be set in its first network "
                     "namespace";
    } else if (it->may_write != 0) {
        it->reason = mem_format("cannot be written: %s", strerror(it->may_write));
    }
}

/* Whether it is what the kernel starts with; of a number that follows the memory, not less, since
 * the kernel counts a little more of it than it tells. */
static bool
is_default(const struct sys *s, const struct item *it)
{
    const struct value *now = &it->current;
    struct value usual;
    bool computed;

    if (!usual_value(s, it->kb, it->setting->path, &usual, &computed))
        return false;
    if (computed && it->setting->want == WANT_AT_LEAST && now->n == 1 && usual.n == 1)
        return now->num[0] >= usual.num[0];
    return value_equal(&usual, now);
}

/* What a machine that boots this image will start with: from its own files, or else what current
 * kernels do. False if that depends on the machine. */
static bool
assume(const struct sys *s, struct item *it)
{
    const char *path = it->setting->path, *why;
    const struct line *l;
    struct conf c;

    conf_load(s, LOADER_SYSTEMD, false, &c);
    l = conf_winner(&c, path);
    if (it->setting->want == WANT_EXACT) {
        it->current = it->setting->values[0];
    } else if (l != NULL && it->kb != NULL) {
        if (!value_parse(l->value, it->kb->type, it->kb->fields, false, &it->current, &why))
            return false;
    } else if (!kb_default_value(it->kb, path, "", &it->current)) {
        return false;
    }
    it->current_text = value_show(&it->current);
    return true;
}

/* Reads the value; in an image, says what it will be. */
static enum access
read_value(const struct sys *s, struct item *it, int *ret_sys)
{
    if (!s->image)
        return sys_value(s, it->setting->path, &it->current, &it->current_text, ret_sys);
    *ret_sys = ENOENT;
    return assume(s, it) ? ACCESS_OK : ACCESS_MISSING;
}

static const char *
why_missing(const struct sys *s, const char *path)
{
    return s->image ? "an image does not tell what the machine will have: persist it there"
                    : sys_why_missing(s, path);
}

/* What a list of reserved ports that will do, and may be empty, leaves open. */
static const char *
why_enough(const struct diag *d)
{
    if (value_count_ports(&d->untold, 0, PORTS - 1) == 0)
        return "nobody listens inside the range unreserved";
    return mem_format("%s are listened on inside the range; not told whether as services",
                      value_show(&d->untold));
}

static void
look(const struct sys *s, const struct profile *p, const struct diag *d, struct item *it)
{
    const struct setting *w = it->setting;
    struct value listening = {.type = TYPE_PORTS};
    int sys = 0;

    switch (read_value(s, it, &sys)) {
    case ACCESS_MISSING:
        it->status = w->optional ? STATUS_SKIPPED : STATUS_MISSING;
        it->reason = why_missing(s, w->path);
        if (w->want == WANT_UNSET || w->want == WANT_NOTHING)
            it->status = w->want == WANT_UNSET ? STATUS_OK : STATUS_REMARK;
        else if (it->kb != NULL && kb_scope_of(it->kb, s->kernel) != SCOPE_NAMESPACE &&
                 !s->first_ns &&
                 (kb_text(it->kb, KB_MODULE) == NULL ||
                  sys_has_module(s, kb_text(it->kb, KB_MODULE))))
            it->status = STATUS_GLOBAL;
        return;
    case ACCESS_DENIED:
    case ACCESS_FAILED:
        it->status = w->want == WANT_NOTHING ? STATUS_REMARK
                     : w->optional           ? STATUS_SKIPPED
                                             : STATUS_DENIED;
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
    if (w->listening) {
        struct value range = range_after(s, p);

        listening = plan_listening(d, &range);
    }
    it->target = plan_nearest(w, &it->current, &listening);
    /* Where the constraint is met anyway, it is one like all others for other profiles. */
    it->by_default = w->or_default && !value_equal(&it->current, &it->target) && is_default(s, it);
    if (it->by_default)
        it->target = it->current;
    it->target_text = value_show(&it->target);
    it->status = value_equal(&it->current, &it->target) ? STATUS_OK : STATUS_DRIFT;
    plan_look(s, it);
    if (w->listening && it->status == STATUS_OK)
        it->reason = why_enough(d);
}

static void
add_item(const struct sys *s, const struct profile *p, const struct diag *d,
         const struct setting *w, const char *pattern, struct plan *plan, size_t *capacity)
{
    struct item *it;

    plan->items = mem_grow(plan->items, plan->n, capacity, sizeof(*it));
    it = &plan->items[plan->n++];
    *it = (struct item){.setting = w, .kb = kb_find(w->path), .pattern = pattern};
    it->reason = why_skipped(s, p, w);
    if (it->reason != NULL && w->want != WANT_NOTHING)
        it->status = STATUS_SKIPPED;
    else
        look(s, p, d, it);
    plan->counts[it->status]++;
}

static bool
is_named(const struct profile *p, const char *path)
{
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->settings[i].path, path) == 0)
            return true;
    return false;
}

/* conf.*.key as in sysctl.d: conf.all, conf.default and every interface there is, but for those
 * that the profile names one by one. */
static void
add_pattern(const struct sys *s, const struct profile *p, const struct diag *d,
            const struct setting *w, struct plan *plan, size_t *capacity)
{
    const char *star = strchr(w->path, '*');
    char **names = sys_names(s, mem_copy(w->path, (size_t)(star - w->path) - 1));
    static const char *const any[] = {"all", "default", "lo", "eth0"};
    char *single[] = {NULL, NULL};

    /* The pattern itself is persisted, for the sake of one that it is about. */
    for (size_t i = 0; s->image && i < sizeof(any) / sizeof(any[0]) && single[0] == NULL; i++)
        if (!is_named(p, mem_format("%.*s%s%s", (int)(star - w->path), w->path, any[i], star + 1)))
            single[0] = mem_dup(any[i]);
    if (s->image)
        names = single;

    if (*names == NULL)
        add_item(s, p, d, w, NULL, plan, capacity);
    for (; *names != NULL; names++) {
        struct setting *one = mem_alloc(sizeof(*one));

        *one = *w;
        one->path = mem_format("%.*s%s%s", (int)(star - w->path), w->path, *names, star + 1);
        if (!is_named(p, one->path))
            add_item(s, p, d, one, w->path, plan, capacity);
    }
}

void
plan_make(const struct sys *s, const struct profile *p, const struct diag *d, struct plan *ret)
{
    struct plan plan = {.items = mem_alloc(sizeof(struct item))};
    size_t capacity = 1;

    for (size_t i = 0; i < p->n; i++)
        if (key_is_pattern(p->settings[i].path))
            add_pattern(s, p, d, &p->settings[i], &plan, &capacity);
        else
            add_item(s, p, d, &p->settings[i], NULL, &plan, &capacity);
    *ret = plan;
}
