/* expr.h: numbers worked out from a profile's variables.
 *
 * "${bandwidth_mbit * rtt_ms * 125}" inside a value: whole numbers, names, + - * / ( ), and
 * min(a, b), max(a, b), pow2(a), the next power of two, less(a, b, yes, no). An overflow or a
 * division by zero is an error, not a number.
 */
#ifndef TUNE_EXPR_H
#define TUNE_EXPR_H

#include "tune.h"

struct vars {
    struct assignment *items;
    size_t n, capacity;
};

/* The first of a name stays: a caller's choice comes before a profile's default. */
void vars_add(struct vars *v, const char *name, int64_t value);
bool vars_get(const struct vars *v, const char *name, size_t len, int64_t *ret_value);
/* Replaces every ${...}; NULL with a reason. */
const char *expr_expand(const struct vars *v, const char *text, const char **ret_why);

#endif
