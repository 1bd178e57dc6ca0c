/* value.c: parsing, comparing and printing values.
 *
 * A port set is a bitmap, so that "1,2-4" equals "1-4". Numbers are 64 bits wide; what does not fit
 * is refused, never cut.
 */
#include "value.h"

#include "mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define BITS 64U

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n';
}

static int
digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return 99;
}

static bool
refuse(const char **ret_why, const char *why)
{
    *ret_why = why;
    return false;
}

bool
number_parse(const char *s, size_t len, bool strict, int64_t *ret_n, const char **ret_why)
{
    bool negative = len > 0 && s[0] == '-';
    size_t at = negative ? 1 : 0;
    int base = 10;
    int64_t n = 0;

    if (at == len)
        return refuse(ret_why, "is not a number");
    if (s[at] == '0' && len - at > 1) {
        if (strict)
            return refuse(ret_why, "has a leading zero or a prefix; the kernel would read it as "
                                   "octal or hexadecimal, so write a plain decimal number");
        base = s[at + 1] == 'x' || s[at + 1] == 'X' ? 16 : 8;
        at += base == 16 ? 2 : 1;
        if (at == len)
            return refuse(ret_why, "is not a number");
    }
    for (; at < len; at++) {
        int d = digit_of(s[at]);

        if (d >= base)
            return refuse(ret_why, "is not a plain decimal number");
        if (__builtin_mul_overflow(n, base, &n) || __builtin_sub_overflow(n, d, &n))
            return refuse(ret_why, "is too large");
    }
    /* Gathered below zero, where there is room for one more. */
    if (!negative && n == INT64_MIN)
        return refuse(ret_why, "is too large");
    *ret_n = negative ? n : -n;
    return true;
}

static bool
parse_ints(const char *s, size_t fields, bool strict, struct value *v, const char **ret_why)
{
    for (;;) {
        size_t len;

        while (is_blank(*s))
            s++;
        if (*s == '\0')
            break;
        len = strcspn(s, " \t\n");
        if (v->n == MAX_FIELDS || (fields != 0 && v->n == fields))
            return refuse(ret_why, "has more numbers than the setting; the kernel would silently "
                                   "drop the rest");
        if (!number_parse(s, len, strict, &v->num[v->n], ret_why))
            return false;
        v->n++;
        s += len;
    }
    if (v->n == 0)
        return refuse(ret_why, "is empty; the kernel would accept that and change nothing");
    if (fields != 0 && v->n < fields)
        return refuse(ret_why, "has fewer numbers than the setting; the kernel would change only "
                               "the first ones");
    return true;
}

bool
value_has_port(const struct value *v, unsigned port)
{
    return (v->ports[port / BITS] >> (port % BITS) & 1U) != 0;
}

void
value_add_port(struct value *v, unsigned port)
{
    v->ports[port / BITS] |= (uint64_t)1 << (port % BITS);
}

static bool
parse_port(const char **s, unsigned *ret_port)
{
    unsigned n = 0;
    const char *start = *s;

    while (**s >= '0' && **s <= '9' && n < PORTS)
        n = n * 10 + (unsigned)(*(*s)++ - '0');
    *ret_port = n;
    return *s != start && n < PORTS;
}

static bool
parse_ports(const char *s, struct value *v, const char **ret_why)
{
    v->ports = mem_alloc(PORTS / 8);
    for (;;) {
        unsigned low, high;

        while (is_blank(*s) || *s == ',')
            s++;
        if (*s == '\0')
            return true;
        if (!parse_port(&s, &low))
            return refuse(ret_why, "is not a list of ports such as 80,443,8000-8010");
        high = low;
        if (*s == '-') {
            s++;
            if (!parse_port(&s, &high) || high < low)
                return refuse(ret_why, "has a range of ports that is none");
        }
        if (*s != '\0' && *s != ',' && !is_blank(*s))
            return refuse(ret_why, "is not a list of ports such as 80,443,8000-8010");
        for (unsigned p = low; p <= high; p++)
            value_add_port(v, p);
    }
}

/* White space made single, none at the ends. */
static const char *
squeeze(const char *s)
{
    char *out = mem_alloc(strlen(s) + 1), *p = out;

    for (; *s != '\0'; s++)
        if (!is_blank(*s))
            *p++ = *s;
        else if (p != out && p[-1] != ' ')
            *p++ = ' ';
    if (p != out && p[-1] == ' ')
        p--;
    *p = '\0';
    return out;
}

bool
value_parse(const char *text, enum vtype type, size_t fields, bool strict, struct value *ret_value,
            const char **ret_why)
{
    struct value v = {.type = type};

    switch (type) {
    case TYPE_INTS:
        if (!parse_ints(text, fields, strict, &v, ret_why))
            return false;
        break;
    case TYPE_PORTS:
        if (!parse_ports(text, &v, ret_why))
            return false;
        break;
    case TYPE_WORD:
        v.text = squeeze(text);
        if (strict && (*v.text == '\0' || strchr(v.text, ' ') != NULL))
            return refuse(ret_why, "must be one word");
        break;
    case TYPE_WORDS:
    case TYPE_TEXT:
        v.text = squeeze(text);
        if (strict && *v.text == '\0')
            return refuse(ret_why, "is empty; the kernel would accept that and change nothing");
        break;
    }
    *ret_value = v;
    return true;
}

static bool
has_word(const char *words, const char *word, size_t len)
{
    for (const char *s = words; *s != '\0';) {
        size_t n = strcspn(s, " ");

        if (n == len && memcmp(s, word, len) == 0)
            return true;
        s += n;
        s += *s == ' ';
    }
    return false;
}

bool
value_contains(const struct value *a, const struct value *b)
{
    if (a->type != b->type)
        return false;
    if (a->type == TYPE_PORTS) {
        for (size_t i = 0; i < PORTS / BITS; i++)
            if ((b->ports[i] & ~a->ports[i]) != 0)
                return false;
        return true;
    }
    if (a->type == TYPE_INTS)
        return value_equal(a, b);
    for (const char *s = b->text; *s != '\0';) {
        size_t n = strcspn(s, " ");

        if (!has_word(a->text, s, n))
            return false;
        s += n;
        s += *s == ' ';
    }
    return true;
}

struct value
value_union(const struct value *a, const struct value *b)
{
    struct value v = *a;

    if (a->type == TYPE_PORTS) {
        v.ports = mem_alloc(PORTS / 8);
        for (size_t i = 0; i < PORTS / BITS; i++)
            v.ports[i] = a->ports[i] | b->ports[i];
    } else if (a->type == TYPE_WORDS) {
        struct text t = {0};

        text_puts(&t, a->text);
        for (const char *s = b->text; *s != '\0';) {
            size_t n = strcspn(s, " ");

            if (!has_word(text_str(&t), s, n)) {
                text_puts(&t, t.len > 0 ? " " : "");
                text_add(&t, s, n);
            }
            s += n;
            s += *s == ' ';
        }
        v.text = text_str(&t);
    }
    return v;
}

bool
value_equal(const struct value *a, const struct value *b)
{
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case TYPE_INTS:
        return a->n == b->n && memcmp(a->num, b->num, a->n * sizeof(a->num[0])) == 0;
    case TYPE_PORTS:
        return memcmp(a->ports, b->ports, PORTS / 8) == 0;
    case TYPE_WORDS:
        return value_contains(a, b) && value_contains(b, a);
    case TYPE_WORD:
    case TYPE_TEXT:
        break;
    }
    return strcmp(a->text, b->text) == 0;
}

bool
value_between(const struct value *v, const struct value *a, const struct value *b)
{
    if (v->type != a->type || v->type != b->type)
        return false;
    if (v->type == TYPE_PORTS)
        return value_contains(a, v) || value_contains(b, v);
    if (v->type != TYPE_INTS || v->n != a->n || v->n != b->n)
        return false;
    for (size_t i = 0; i < v->n; i++)
        if (v->num[i] != a->num[i] && v->num[i] != b->num[i])
            return false;
    return true;
}

static void
show_ports(const struct value *v, struct text *t)
{
    for (unsigned low = 0; low < PORTS; low++) {
        unsigned high = low;

        if (v->ports[low / BITS] == 0) {
            low |= BITS - 1;
            continue;
        }
        if (!value_has_port(v, low))
            continue;
        while (high + 1 < PORTS && value_has_port(v, high + 1))
            high++;
        text_format(t, "%s%u", t->len > 0 ? "," : "", low);
        if (high > low)
            text_format(t, "-%u", high);
        low = high;
    }
}

const char *
value_show(const struct value *v)
{
    struct text t = {0};

    if (v->type == TYPE_INTS)
        for (size_t i = 0; i < v->n; i++)
            text_format(&t, "%s%lld", i > 0 ? " " : "", (long long)v->num[i]);
    else if (v->type == TYPE_PORTS)
        show_ports(v, &t);
    else
        return v->text;
    return text_str(&t);
}

size_t
value_count_ports(const struct value *v, unsigned low, unsigned high)
{
    size_t n = 0;

    for (unsigned p = low; p <= high && p < PORTS; p++) {
        if (v->ports == NULL || v->ports[p / 64] == 0)
            p |= 63; /* None of these. */
        else
            n += value_has_port(v, p);
    }
    return n;
}

int
kernel_compare(const char *a, const char *b)
{
    for (int part = 0; part < 3; part++) {
        char *end_a, *end_b;
        long x = strtol(a, &end_a, 10), y = strtol(b, &end_b, 10);

        if (x != y)
            return x < y ? -1 : 1;
        a = *end_a == '.' && isdigit((unsigned char)end_a[1]) ? end_a + 1 : "";
        b = *end_b == '.' && isdigit((unsigned char)end_b[1]) ? end_b + 1 : "";
    }
    return 0;
}
