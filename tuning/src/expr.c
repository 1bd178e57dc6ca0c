/* expr.c: a small calculator, by recursive descent.
 *
 * Depth is bounded, since the text may be a stranger's.
 */
#include "expr.h"

#include "mem.h"
#include "value.h"

#include <string.h>

#define MAX_DEPTH 16

struct calc {
    const struct vars *vars;
    const char *at;
    int depth;
    const char *why;
};

void
vars_add(struct vars *v, const char *name, int64_t value)
{
    int64_t ignored;

    if (vars_get(v, name, strlen(name), &ignored))
        return;
    v->items = mem_grow(v->items, v->n, &v->capacity, sizeof(*v->items));
    v->items[v->n++] = (struct assignment){.name = name, .value = value};
}

bool
vars_get(const struct vars *v, const char *name, size_t len, int64_t *ret_value)
{
    for (size_t i = 0; i < v->n; i++)
        if (strlen(v->items[i].name) == len && memcmp(v->items[i].name, name, len) == 0) {
            *ret_value = v->items[i].value;
            return true;
        }
    return false;
}

static char
peek(struct calc *c)
{
    while (*c->at == ' ')
        c->at++;
    return *c->at;
}

static int64_t sum(struct calc *c);

static int64_t
next_power(struct calc *c, int64_t n)
{
    int64_t power = 1;

    while (power < n && !__builtin_mul_overflow(power, 2, &power))
        continue;
    if (power < n || n < 0)
        c->why = "is too large";
    return power;
}

/* What follows the name of one of them, up to the closing parenthesis. */
static int64_t
call(struct calc *c, const char *name, size_t len)
{
    static const struct {
        const char *name;
        size_t takes;
    } known[] = {{"min", 2}, {"max", 2}, {"pow2", 1}, {"less", 4}};
    int64_t args[4] = {0};
    size_t which = 0;

    while (which < 4 &&
           (strlen(known[which].name) != len || memcmp(known[which].name, name, len) != 0))
        which++;
    if (which == 4 || ++c->depth > MAX_DEPTH) {
        c->why = which == 4 ? mem_format("calls the unknown '%.*s'", (int)len, name)
                            : "has too many parentheses";
        return 0;
    }
    for (size_t i = 0; i < known[which].takes && c->why == NULL; i++) {
        c->at++; /* ( or , */
        args[i] = sum(c);
        if (c->why == NULL && peek(c) != (i + 1 < known[which].takes ? ',' : ')'))
            c->why = mem_format("wants %zu numbers for %s", known[which].takes, known[which].name);
    }
    c->at += *c->at == ')';
    c->depth--;
    switch (which) {
    case 0:
        return args[0] < args[1] ? args[0] : args[1];
    case 1:
        return args[0] > args[1] ? args[0] : args[1];
    case 2:
        return c->why == NULL ? next_power(c, args[0]) : 0;
    default:
        return args[0] < args[1] ? args[2] : args[3];
    }
}

static int64_t
atom(struct calc *c)
{
    static const char name_chars[] = "abcdefghijklmnopqrstuvwxyz_0123456789";
    const char *name;
    int64_t n = 0;
    size_t len;

    if (peek(c) == '(') {
        if (++c->depth > MAX_DEPTH) {
            c->why = "has too many parentheses";
            return 0;
        }
        c->at++;
        n = sum(c);
        if (c->why == NULL && peek(c) != ')')
            c->why = "misses a )";
        c->at += *c->at == ')';
        c->depth--;
        return n;
    }
    name = c->at;
    len = strspn(name, name_chars);
    c->at += len;
    if (len == 0)
        c->why = "misses a number or a variable";
    else if (*name >= '0' && *name <= '9')
        (void)number_parse(name, len, true, &n, &c->why);
    else if (peek(c) == '(')
        n = call(c, name, len);
    else if (!vars_get(c->vars, name, len, &n))
        c->why = mem_format("uses the unknown variable '%.*s'", (int)len, name);
    return n;
}

static int64_t
product(struct calc *c)
{
    int64_t n = atom(c);

    while (c->why == NULL && (peek(c) == '*' || peek(c) == '/')) {
        bool divide = *c->at++ == '/';
        int64_t m = atom(c);

        if (divide && (m == 0 || (m == -1 && n == INT64_MIN)))
            c->why = "divides by zero";
        else if (divide)
            n /= m;
        else if (__builtin_mul_overflow(n, m, &n))
            c->why = "is too large";
    }
    return n;
}

static int64_t
sum(struct calc *c)
{
    int64_t n = product(c);

    while (c->why == NULL && (peek(c) == '+' || peek(c) == '-')) {
        bool minus = *c->at++ == '-';
        int64_t m = product(c);

        if (minus ? __builtin_sub_overflow(n, m, &n) : __builtin_add_overflow(n, m, &n))
            c->why = "is too large";
    }
    return n;
}

const char *
expr_expand(const struct vars *v, const char *text, const char **ret_why)
{
    struct text out = {0};
    const char *start;

    while ((start = strstr(text, "${")) != NULL) {
        struct calc c = {.vars = v, .at = start + 2};
        int64_t n = sum(&c);

        if (c.why == NULL && peek(&c) != '}')
            c.why = "misses a }";
        if (c.why != NULL) {
            *ret_why = c.why;
            return NULL;
        }
        text_add(&out, text, (size_t)(start - text));
        text_format(&out, "%lld", (long long)n);
        text = c.at + 1;
    }
    text_puts(&out, text);
    return text_str(&out);
}
