/* fault_spec.c: the text that says which calls fail: "seed=7,recv.short=0.2,send.reset@120".
 *
 * Numbers are read without the locale's help: a decimal point is a point. An error names the part
 * and what would be right there.
 */
#include "fault_spec.h"

#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CALL_FACTS(name_, fail_, can_) {.name = #name_, .fail = (fail_), .can = (can_)},
const struct hs_call_facts hs_call_facts[HS_CALLS] = {HS_CALLS_ALL(CALL_FACTS)};
#undef CALL_FACTS

/* What follows the point. X(name, errno or fault, what the call must be able to). */
static const struct kind {
    const char *name;
    int fault;
    unsigned needs;
} kinds[] = {
    /* clang-format off */
    {"refused",     ECONNREFUSED,         HS_CAN_ERRNO},
    {"reset",       ECONNRESET,           HS_CAN_ERRNO},
    {"aborted",     ECONNABORTED,         HS_CAN_ERRNO},
    {"pipe",        EPIPE,                HS_CAN_ERRNO},
    {"timeout",     ETIMEDOUT,            HS_CAN_ERRNO},
    {"unreachable", ENETUNREACH,          HS_CAN_ERRNO},
    {"no_host",     EHOSTUNREACH,         HS_CAN_ERRNO},
    {"no_ports",    EADDRNOTAVAIL,        HS_CAN_ERRNO},
    {"in_use",      EADDRINUSE,           HS_CAN_ERRNO},
    {"no_files",    EMFILE,               HS_CAN_ERRNO},
    {"no_memory",   ENOMEM,               HS_CAN_ERRNO},
    {"no_buffers",  ENOBUFS,              HS_CAN_ERRNO},
    {"no_space",    ENOSPC,               HS_CAN_ERRNO},
    {"again",       EAGAIN,               HS_CAN_ERRNO},
    {"interrupted", EINTR,                HS_CAN_ERRNO},
    {"not_connected", ENOTCONN,           HS_CAN_ERRNO},
    {"io",          EIO,                  HS_CAN_ERRNO},
    {"invalid",     EINVAL,               HS_CAN_ERRNO},
    {"denied",      EACCES,               HS_CAN_ERRNO},
    {"not_permitted", EPERM,              HS_CAN_ERRNO},
    {"missing",     ENOENT,               HS_CAN_ERRNO},
    {"short",       HS_FAULT_SHORT,       HS_CAN_SHORTEN},
    {"end",         HS_FAULT_END,         HS_CAN_END},
    {"spoilt",      HS_FAULT_SPOILT,      HS_CAN_SPOIL},
    {"hang",        HS_FAULT_HANG,        HS_CAN_NAME},
    {"no_name",     HS_FAULT_NO_NAME,     HS_CAN_NAME},
    {"failed",      HS_FAULT_NAME_FAILED, HS_CAN_NAME},
    {"alert",       HS_FAULT_ALERT,       HS_CAN_TLS},
    {"bad_record",  HS_FAULT_BAD_RECORD,  HS_CAN_TLS},
    {"internal",    HS_FAULT_INTERNAL,    HS_CAN_TLS},
    /* clang-format on */
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* One part of the spec, and where it is. */
struct part {
    const char *text;
    size_t len;
    int index;
    struct hs_error *err;
};

#define REFUSE(p, ...) refuse((p), __VA_ARGS__)

HS_PRINTF(2, 3)
static hs_err
refuse(const struct part *p, const char *fmt, ...)
{
    char why[120];
    va_list ap;

    va_start(ap, fmt);
    /* The analyzer does not see va_start. NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    (void)vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    return hs_err_setx(p->err, HS_E_INVALID, "faults", "part %d, \"%.*s\": %s", p->index,
                       (int)(p->len < 40 ? p->len : 40), p->text, why);
}

static bool
is(const char *name, const char *text, size_t len)
{
    return strlen(name) == len && memcmp(name, text, len) == 0;
}

/* ---- Numbers ----------------------------------------------------------------------------- */

static bool
parse_number(const char *text, size_t len, uint64_t *ret_n)
{
    uint64_t n = 0;

    if (len == 0 || len > 19)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(text[i] - '0');
    }
    *ret_n = n;
    return true;
}

/* "0.01", "1", ".5": nine places are looked at. */
static bool
parse_chance(const char *text, size_t len, uint64_t *ret_chance)
{
    const char *point = memchr(text, '.', len);
    size_t whole = point != NULL ? (size_t)(point - text) : len;
    uint64_t n = 0, billionths = 0;

    if (len == 0 || len > 19 || (point != NULL && len == 1))
        return false;
    if (whole > 0 && !parse_number(text, whole, &n))
        return false;
    for (size_t i = whole + 1, place = 0; place < 9; i++, place++) {
        if (i < len && (text[i] < '0' || text[i] > '9'))
            return false;
        billionths = billionths * 10 + (i < len ? (uint64_t)(text[i] - '0') : 0);
    }
    billionths += n * UINT64_C(1000000000);
    if (n > 1 || billionths > UINT64_C(1000000000))
        return false;
    *ret_chance = billionths == UINT64_C(1000000000)
                      ? UINT64_MAX
                      : billionths * (UINT64_MAX / UINT64_C(1000000000));
    return true;
}

/* "120", "120-130", "120-" */
static hs_err
parse_range(const struct part *p, const char *text, size_t len, struct hs_fault_rule *r)
{
    const char *dash = memchr(text, '-', len);
    size_t first = dash != NULL ? (size_t)(dash - text) : len;

    if (!parse_number(text, first, &r->first) || r->first == 0)
        return REFUSE(p, "after @ comes the number of a call, from 1 on: 120, 120-130 or 120-");
    r->last = dash == NULL ? r->first : UINT64_MAX;
    if (dash != NULL && first + 1 < len && !parse_number(dash + 1, len - first - 1, &r->last))
        return REFUSE(p, "after @ comes the number of a call, from 1 on: 120, 120-130 or 120-");
    if (r->last < r->first)
        return REFUSE(p, "the range ends before it begins");
    return HS_OK;
}

/* ---- Names ------------------------------------------------------------------------------- */

static void
list_kinds(unsigned can, char *buf, size_t size)
{
    size_t used = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < KINDS; i++)
        if ((kinds[i].needs & can) != 0 && used < size)
            used += (size_t)snprintf(buf + used, size - used, ", %s", kinds[i].name);
}

static hs_err
fault_parse_call(const struct part *p, size_t len, struct hs_fault_rule *r)
{
    for (int i = 0; i < HS_CALLS; i++)
        if (is(hs_call_facts[i].name, p->text, len)) {
            r->call = (enum hs_call)i;
            return HS_OK;
        }
    return REFUSE(p,
                  "there is no call \"%.*s\"; there are connect, recv, send, ...: see "
                  "docs/faults.md",
                  (int)(len < 20 ? len : 20), p->text);
}

static hs_err
fault_parse_kind(const struct part *p, const char *text, size_t len, struct hs_fault_rule *r)
{
    const struct hs_call_facts *call = &hs_call_facts[r->call];
    char names[80];

    if (is("fail", text, len)) {
        r->fault = call->fail;
        return HS_OK;
    }
    for (size_t i = 0; i < KINDS; i++)
        if (is(kinds[i].name, text, len) && (kinds[i].needs & call->can) != 0) {
            r->fault = kinds[i].fault;
            return HS_OK;
        }
    list_kinds(call->can & ~(unsigned)HS_CAN_ERRNO, names, sizeof(names));
    return REFUSE(p, "%s has no \"%.*s\"; it has fail%s%s", call->name, (int)(len < 20 ? len : 20),
                  text, (call->can & HS_CAN_ERRNO) != 0 ? ", reset, timeout, ..." : "", names);
}

/* ---- The whole --------------------------------------------------------------------------- */

/* "CALL.KIND[@RANGE][=CHANCE]" */
static hs_err
parse_rule(const struct part *p, struct hs_fault_plan *plan)
{
    struct hs_fault_rule r = {.first = 1, .last = UINT64_MAX, .chance = UINT64_MAX};
    const char *equals = memchr(p->text, '=', p->len), *end = p->text + p->len, *at, *dot;
    const char *name_end = equals != NULL ? equals : end;
    hs_err rv;

    if ((at = memchr(p->text, '@', (size_t)(name_end - p->text))) != NULL)
        name_end = at;
    if ((dot = memchr(p->text, '.', (size_t)(name_end - p->text))) == NULL)
        return REFUSE(p, "it must be seed=N, log=FILE or CALL.KIND=CHANCE, as in recv.short=0.2");
    if (plan->n == HS_FAULT_RULES)
        return REFUSE(p, "more than %d", HS_FAULT_RULES);
    if ((rv = fault_parse_call(p, (size_t)(dot - p->text), &r)) != HS_OK ||
        (rv = fault_parse_kind(p, dot + 1, (size_t)(name_end - dot - 1), &r)) != HS_OK)
        return rv;
    if (at != NULL &&
        (rv = parse_range(p, at + 1, (size_t)((equals != NULL ? equals : end) - at - 1), &r)) !=
            HS_OK)
        return rv;
    if (equals == NULL && at == NULL)
        return REFUSE(p, "how often? =CHANCE of 0 to 1, as in =0.2, or @NUMBER of the call");
    if (equals != NULL && !parse_chance(equals + 1, (size_t)(end - equals - 1), &r.chance))
        return REFUSE(p, "after = comes the chance, from 0 to 1, as in 0.2");
    plan->rules[plan->n++] = r;
    return HS_OK;
}

static hs_err
parse_part(const struct part *p, struct hs_fault_plan *plan)
{
    if (p->len == 0)
        return REFUSE(p, "empty");
    if (p->len >= 5 && memcmp(p->text, "seed=", 5) == 0) {
        if (plan->has_seed)
            return REFUSE(p, "the seed is given twice");
        if (!parse_number(p->text + 5, p->len - 5, &plan->seed))
            return REFUSE(p, "the seed must be a whole number of at most 19 digits");
        plan->has_seed = true;
        return HS_OK;
    }
    if (p->len >= 4 && memcmp(p->text, "log=", 4) == 0) {
        if (p->len == 4 || p->len - 4 >= sizeof(plan->log))
            return REFUSE(p, "the path must have 1 to %d bytes", HS_FAULT_PATH - 1);
        memcpy(plan->log, p->text + 4, p->len - 4);
        plan->log[p->len - 4] = '\0';
        return HS_OK;
    }
    return parse_rule(p, plan);
}

hs_err
hs_fault_parse(const char *spec, struct hs_error *err, struct hs_fault_plan *ret_plan)
{
    struct hs_fault_plan plan = {0};
    struct part p = {.text = spec, .err = err};
    uint32_t seed = 0;
    hs_err rv;

    for (;;) {
        const char *comma = strchr(p.text, ',');

        p.index++;
        p.len = comma != NULL ? (size_t)(comma - p.text) : strlen(p.text);
        if ((rv = parse_part(&p, &plan)) != HS_OK)
            return rv;
        if (comma == NULL)
            break;
        p.text = comma + 1;
    }
    if (!plan.has_seed && getrandom(&seed, sizeof(seed), GRND_NONBLOCK) == (ssize_t)sizeof(seed))
        plan.seed = seed;
    *ret_plan = plan;
    return HS_OK;
}

const char *
hs_fault_text(enum hs_call call, int fault, uint64_t number, char *buf, size_t size)
{
    const char *name = hs_call_facts[call].fail == fault ? "fail" : "?";

    for (size_t i = 0; i < KINDS; i++)
        if (kinds[i].fault == fault && (kinds[i].needs & hs_call_facts[call].can) != 0)
            name = kinds[i].name;
    (void)snprintf(buf, size, "%s.%s@%llu", hs_call_facts[call].name, name,
                   (unsigned long long)number);
    return buf;
}
