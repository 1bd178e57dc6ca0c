/* call_site.c: interning sites.
 *
 * A table of lists without a lock: a new site is put at the head of its list by compare-and-swap.
 * Who loses that race looks again from the new head, so that no line is there twice.
 */
#include "call_site.h"

#include "sys.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024
#define TEXT_MAX 512 /* of a file's or function's name */

static struct hs_call_site *_Atomic buckets[BUCKETS];
static atomic_uint n_sites;
static struct hs_call_site unknown = {.file = "?", .function = "?"};

static size_t
site_hash(const char *file, const char *function, int line)
{
    uint32_t h = 2166136261U ^ (uint32_t)line;

    for (const char *p = file; *p != '\0'; p++)
        h = (h ^ (uint8_t)*p) * 16777619U;
    for (const char *p = function; *p != '\0'; p++)
        h = (h ^ (uint8_t)*p) * 16777619U;
    return h % BUCKETS;
}

static bool
site_is_same(const struct hs_call_site *s, const char *file, const char *function, int line)
{
    return s->line == line && strncmp(s->file, file, TEXT_MAX) == 0 &&
           strncmp(s->function, function, TEXT_MAX) == 0;
}

static struct hs_call_site *
find(struct hs_call_site *from, const struct hs_call_site *until, const char *file,
     const char *function, int line)
{
    for (; from != until; from = from->next)
        if (site_is_same(from, file, function, line))
            return from;
    return NULL;
}

static void
free_site(struct hs_call_site *s)
{
    if (s == NULL)
        return;
    free((void *)(uintptr_t)s->file);
    free((void *)(uintptr_t)s->function);
    free(s);
}

static struct hs_call_site *
site_make(const char *file, const char *function, int line)
{
    struct hs_call_site *s = hs_sys_calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->line = line;
    s->file = hs_sys_strndup(file, TEXT_MAX);
    s->function = hs_sys_strndup(function, TEXT_MAX);
    if (s->file == NULL || s->function == NULL) {
        free_site(s);
        return NULL;
    }
    return s;
}

struct hs_call_site *
hs_call_site_intern(const char *file, const char *function, int line)
{
    struct hs_call_site *_Atomic *bucket = &buckets[site_hash(file, function, line)];
    struct hs_call_site *head = atomic_load_explicit(bucket, memory_order_acquire), *made;
    struct hs_call_site *found = find(head, NULL, file, function, line);

    if (found != NULL)
        return found;
    if (atomic_fetch_add_explicit(&n_sites, 1, memory_order_relaxed) >= HS_SITES_MAX ||
        (made = site_make(file, function, line)) == NULL) {
        atomic_fetch_sub_explicit(&n_sites, 1, memory_order_relaxed);
        return &unknown;
    }
    made->next = head;
    while (!atomic_compare_exchange_weak_explicit(bucket, &head, made, memory_order_acq_rel,
                                                  memory_order_acquire)) {
        if ((found = find(head, made->next, file, function, line)) != NULL) {
            free_site(made);
            atomic_fetch_sub_explicit(&n_sites, 1, memory_order_relaxed);
            return found;
        }
        made->next = head;
    }
    return made;
}

struct hs_call_site *
hs_call_site_unknown(void)
{
    return &unknown;
}

void
hs_call_site_name(const struct hs_call_site *s, struct hs_call_site_name *ret_name)
{
    *ret_name =
        (struct hs_call_site_name){.file = s->file, .function = s->function, .line = s->line};
}

static uint64_t
value(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void
hs_call_site_counts(const struct hs_call_site *s, struct hs_call_site_counts *ret_counts)
{
    struct hs_call_site_counts c = {
        .leaked = value(&s->leaked),
        .received = value(&s->received),
        .sent = value(&s->sent),
    };

    for (int how = 0; how < HS_MADE_KINDS; how++) {
        /* In this order: one that is opened and closed meanwhile is not "closed, never opened". */
        uint64_t closed = value(&s->closed[how]), opened = value(&s->opened[how]);

        c.opened += opened;
        c.open[how] = opened - closed;
    }
    *ret_counts = c;
}

static void
give(struct hs_call_site *s, struct hs_call_site **sites, size_t room, size_t *n)
{
    if (*n < room)
        sites[*n] = s;
    ++*n;
}

size_t
hs_call_sites(struct hs_call_site **sites, size_t room)
{
    size_t n = 0;

    give(&unknown, sites, room, &n);
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct hs_call_site *s = atomic_load_explicit(&buckets[i], memory_order_acquire);
             s != NULL; s = s->next)
            give(s, sites, room, &n);
    return n;
}
