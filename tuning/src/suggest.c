/* suggest.c: see suggest.h.
 *
 * Near means few letters added, lost, changed or swapped with a neighbour: one for each four.
 */
#include "suggest.h"

#include "mem.h"

#include <string.h>

#define LONGEST 80

static size_t
least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Three rows of the usual table, by the length of a prefix of `to`. */
static size_t
distance(const char *from, const char *to)
{
    size_t rows[3][LONGEST + 1], n = strlen(from), m = strlen(to);

    for (size_t k = 0; k <= m; k++)
        rows[0][k] = k;
    for (size_t i = 1; i <= n; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];

        row[0] = i;
        for (size_t k = 1; k <= m; k++) {
            row[k] =
                least(least(above[k], row[k - 1]) + 1, above[k - 1] + (from[i - 1] != to[k - 1]));
            if (i > 1 && k > 1 && from[i - 1] == to[k - 2] && from[i - 2] == to[k - 1])
                row[k] = least(row[k], before[k - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

void
suggest(struct suggestion *s, const char *candidate)
{
    size_t n = strlen(s->word), m = strlen(candidate), near = n / 4 + 1, d;

    if (n > LONGEST || m > LONGEST || n < 3 || (n > m ? n - m : m - n) > near)
        return;
    d = distance(s->word, candidate);
    if (d <= near && (s->best == NULL || d < s->distance)) {
        s->best = candidate;
        s->distance = d;
    }
}

const char *
suggest_text(const struct suggestion *s)
{
    return s->best == NULL ? "" : mem_format("; did you mean %s?", s->best);
}
