/* sketch.c: see sketch.h.
 *
 * Each row that is in use is in the heap once, and in the chain of its place's hash once. A row
 * that changes hands changes its chain; its place in the heap stays, since its count does.
 */
#include "sketch.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

bool
sketch_init(struct sketch *s, uint32_t capacity, const uint64_t key[2])
{
    uint32_t heads = 1;

    while (heads < capacity)
        heads *= 2;
    *s = (struct sketch){.capacity = capacity, .mask = heads - 1, .key = {key[0], key[1]}};
    s->rows = calloc(capacity, sizeof(*s->rows));
    s->heap = calloc(capacity, sizeof(*s->heap));
    s->heads = malloc(heads * sizeof(*s->heads));
    if (s->rows == NULL || s->heap == NULL || s->heads == NULL) {
        sketch_fini(s);
        return false;
    }
    memset(s->heads, 0xff, heads * sizeof(*s->heads));
    return true;
}

void
sketch_fini(struct sketch *s)
{
    free(s->rows);
    free(s->heap);
    free(s->heads);
    *s = (struct sketch){0};
}

/* ---- Rows by hash -------------------------------------------------------------------------- */

/* Where the chain refers to the row of this place, or ends. */
static uint32_t *
find(struct sketch *s, const struct place *who)
{
    uint32_t *at = &s->heads[place_hash(who, s->key) & s->mask];

    while (*at != NONE && memcmp(&s->rows[*at].who, who, sizeof(*who)) != 0)
        at = &s->rows[*at].next;
    return at;
}

/* ---- Rows by count ------------------------------------------------------------------------- */

static uint64_t
count_at(const struct sketch *s, uint32_t at)
{
    return s->rows[s->heap[at]].count;
}

static void
put_at(struct sketch *s, uint32_t at, uint32_t row)
{
    s->heap[at] = row;
    s->rows[row].heap_at = at;
}

/* Its count has grown: what is lower than it, of what stands below it, comes up. */
static void
sink(struct sketch *s, uint32_t at)
{
    uint32_t row = s->heap[at], low;

    while ((low = 2 * at + 1) < s->n) {
        if (low + 1 < s->n && count_at(s, low + 1) < count_at(s, low))
            low++;
        if (count_at(s, low) >= s->rows[row].count)
            break;
        put_at(s, at, s->heap[low]);
        at = low;
    }
    put_at(s, at, row);
}

/* A new row, of count 0: all that is above it comes down. */
static void
rise(struct sketch *s, uint32_t at)
{
    uint32_t row = s->heap[at];

    while (at > 0 && count_at(s, (at - 1) / 2) > s->rows[row].count) {
        put_at(s, at, s->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put_at(s, at, row);
}

/* ---- Counting ------------------------------------------------------------------------------ */

static uint32_t
new_row(struct sketch *s)
{
    uint32_t i = s->n++;

    s->rows[i].count = 0;
    s->heap[i] = i;
    rise(s, i);
    return i;
}

/* The row of the lowest count, which nothing refers to any more but the heap. */
static uint32_t
take_lowest(struct sketch *s)
{
    uint32_t i = s->heap[0];

    *find(s, &s->rows[i].who) = s->rows[i].next;
    return i;
}

struct row *
sketch_count(struct sketch *s, const struct place *who)
{
    uint32_t *at = find(s, who), i = *at;
    struct row *row;

    if (i == NONE) {
        uint32_t heap_at;
        uint64_t before;

        i = s->n < s->capacity ? new_row(s) : take_lowest(s);
        row = &s->rows[i];
        before = row->count;
        heap_at = row->heap_at;
        *row = (struct row){.who = *who, .count = before, .error = before, .heap_at = heap_at};
        at = &s->heads[place_hash(who, s->key) & s->mask];
        row->next = *at;
        *at = i;
    }
    row = &s->rows[i];
    row->count++;
    sink(s, row->heap_at);
    return row;
}

uint64_t
sketch_attributed(const struct sketch *s)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < s->n; i++)
        sum += s->rows[i].count - s->rows[i].error;
    return sum;
}

/* By what surely came; then by count; then by place, so that the order is the same each time. */
static int
compare(const void *a, const void *b)
{
    const struct row *x = *(const struct row *const *)a, *y = *(const struct row *const *)b;
    uint64_t sure_x = x->count - x->error, sure_y = y->count - y->error;

    if (sure_x != sure_y)
        return sure_x > sure_y ? -1 : 1;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return memcmp(&x->who, &y->who, sizeof(x->who));
}

uint32_t
sketch_sorted(const struct sketch *s, const struct row **ret)
{
    for (uint32_t i = 0; i < s->n; i++)
        ret[i] = &s->rows[i];
    qsort(ret, s->n, sizeof(*ret), compare);
    return s->n;
}
