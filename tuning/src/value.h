/* value.h: values of settings, as typed things and not as text.
 *
 * The kernel prints tabs, decimal and merged ranges; people write blanks and lists. Both become a
 * struct value, and only those are compared. Our own numbers are plain decimals: what the kernel
 * would read as octal or reject half way is refused before it is written.
 */
#ifndef TUNE_VALUE_H
#define TUNE_VALUE_H

#include "tune.h"

#define MAX_FIELDS 4
#define PORTS 65536

enum vtype {
    TYPE_INTS,  /* one or more numbers */
    TYPE_PORTS, /* a set of ports: 80,443,8000-8010 */
    TYPE_WORD,  /* one word */
    TYPE_WORDS, /* words in any order */
    TYPE_TEXT,  /* unknown to us: compared with white space made single */
};

struct value {
    enum vtype type;
    size_t n;
    int64_t num[MAX_FIELDS];
    uint64_t *ports; /* PORTS bits */
    const char *text;
};

/* fields 0: as many as there are. Strict is for what people write: decimal, no sign but '-', no
 * leading zeros. Otherwise as the kernel reads (base 0). False with a reason. */
bool value_parse(const char *text, enum vtype type, size_t fields, bool strict,
                 struct value *ret_value, const char **ret_why);
bool value_equal(const struct value *a, const struct value *b);
/* What a write of b over a can leave behind: each number is of a or of b, ports are all of a or all
 * of b. */
bool value_between(const struct value *v, const struct value *a, const struct value *b);
/* Canonical text: single blanks, decimals, merged ranges. */
const char *value_show(const struct value *v);
bool value_has_port(const struct value *v, unsigned port);
void value_add_port(struct value *v, unsigned port);
size_t value_count_ports(const struct value *v, unsigned low, unsigned high);
/* All of b's ports or words are in a. */
bool value_contains(const struct value *a, const struct value *b);
/* a with b's ports or words added. */
struct value value_union(const struct value *a, const struct value *b);
/* One number, whole text; strict as above. */
bool number_parse(const char *s, size_t len, bool strict, int64_t *ret_n, const char **ret_why);

/* "6.1" against "6.18.44-x": -1, 0, 1, by numbers. */
int kernel_compare(const char *a, const char *b);

#endif
