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
atom(struct calc *c)
{
    static const char name_chars[] = "abcdefghijklmnopqrstuvwxyz_0123456789";
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
    len = strspn(c->at, name_chars);
    if (len == 0)
        c->why = "misses a number or a variable";
    else if (*c->at >= '0' && *c->at <= '9')
        (void)number_parse(c->at, len, true, &n, &c->why);
    else if (!vars_get(c->vars, c->at, len, &n))
        c->why = mem_format("uses the unknown variable '%.*s'", (int)len, c->at);
    c->at += len;
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
