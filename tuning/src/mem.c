/* mem.c: the arena, the growing text, and messages to people.
 *
 * Blocks of 1 MiB are linked; what is larger gets a block of its own. Blocks come zeroed and are
 * never used twice; so large, they are pages that count only once they are touched. Smaller ones
 * among libyaml's buffers, which come and go, would leave holes that nothing fits. Messages are
 * made printable first: names and values come from files that a stranger may have written.
 */
#include "mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK (1024 * 1024)
#define ALIGN 16
#define SHORT 512 /* most texts that are put together are shorter */

struct block {
    struct block *next;
    size_t used, size;
    _Alignas(ALIGN) unsigned char bytes[];
};

static struct block *blocks;

/* What was said; kept in the arena. */
static struct {
    struct message *items;
    size_t n, capacity;
} messages;

static struct block *
new_block(size_t size)
{
    struct block *b = calloc(1, sizeof(*b) + size);

    if (b == NULL) {
        (void)fputs("hardsock-tune: out of memory\n", stderr);
        exit(EXIT_SYSTEM);
    }
    b->size = size;
    b->next = blocks;
    blocks = b;
    return b;
}

/* All zero. */
static void *
take(size_t size, size_t align)
{
    struct block *b = blocks;
    size_t at = b == NULL ? 0 : (b->used + align - 1) / align * align;

    if (size > SIZE_MAX / 4) {
        (void)fputs("hardsock-tune: out of memory\n", stderr);
        exit(EXIT_SYSTEM);
    }
    if (b == NULL || at > b->size || b->size - at < size) {
        b = new_block(size > BLOCK ? size : BLOCK);
        at = 0;
    }
    b->used = at + size;
    return b->bytes + at;
}

void *
mem_alloc(size_t size)
{
    return take(size, ALIGN);
}

char *
mem_copy(const char *text, size_t len)
{
    char *p = take(len + 1, 1);

    if (len > 0)
        memcpy(p, text, len);
    return p;
}

char *
mem_dup(const char *text)
{
    return mem_copy(text, strlen(text));
}

static char *
format_args(const char *fmt, va_list args)
{
    va_list again;
    int n;
    char *p = take(SHORT, 1);

    va_copy(again, args);
    n = vsnprintf(p, SHORT, fmt, again);
    va_end(again);
    if (n < 0)
        n = 0;
    if (n < SHORT) {
        blocks->used -= (size_t)(SHORT - n - 1);
        return p;
    }
    p = take((size_t)n + 1, 1);
    (void)vsnprintf(p, (size_t)n + 1, fmt, args);
    return p;
}

char *
mem_format(const char *fmt, ...)
{
    va_list args;
    char *p;

    va_start(args, fmt);
    p = format_args(fmt, args);
    va_end(args);
    return p;
}

void *
mem_grow(void *array, size_t used, size_t *capacity, size_t item)
{
    struct block *b = blocks;
    const size_t old = *capacity * item;
    void *bigger;

    if (used < *capacity)
        return array;
    *capacity = *capacity == 0 ? 16 : *capacity * 2;
    /* What was taken last grows where it is. */
    if (old > 0 && (unsigned char *)array + old == b->bytes + b->used && b->size - b->used >= old) {
        b->used += old;
        return array;
    }
    bigger = mem_alloc(*capacity * item);
    if (used > 0)
        memcpy(bigger, array, used * item);
    return bigger;
}

static unsigned rounds;

unsigned
mem_round(void)
{
    return rounds;
}

void
mem_release(void)
{
    rounds++;
    while (blocks != NULL) {
        struct block *next = blocks->next;

        free(blocks);
        blocks = next;
    }
    messages.items = NULL;
    messages.n = messages.capacity = 0;
}

void
text_add(struct text *t, const char *s, size_t len)
{
    if (len == 0)
        return;
    if (t->capacity - t->len <= len) {
        size_t bigger = (t->capacity + len + 1) * 2;
        char *copy = mem_alloc(bigger);

        if (t->len > 0)
            memcpy(copy, t->s, t->len);
        t->s = copy;
        t->capacity = bigger;
    }
    memcpy(t->s + t->len, s, len);
    t->len += len;
    t->s[t->len] = '\0';
}

void
text_puts(struct text *t, const char *s)
{
    text_add(t, s, strlen(s));
}

void
text_format(struct text *t, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    text_puts(t, format_args(fmt, args));
    va_end(args);
}

const char *
text_str(const struct text *t)
{
    return t->s == NULL ? "" : t->s;
}

size_t
utf8_length(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t n = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;

    if (u[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((u[i] & 0xc0) != 0x80)
            return 0;
    /* Longer than need be, half of a surrogate pair, beyond the last character. */
    if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) ||
        (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f))
        return 0;
    return n;
}

size_t
printable_length(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;

    /* U+0080 to U+009F are control characters as well: terminals obey them. */
    if (u[0] < ' ' || u[0] == 0x7f || (u[0] == 0xc2 && u[1] < 0xa0))
        return 0;
    return utf8_length(s);
}

char *
printable(const char *text)
{
    char *copy = mem_dup(text);

    for (char *p = copy; *p != '\0';) {
        size_t n = printable_length(p);

        if (n == 0) {
            *p = '?';
            n = 1;
        }
        p += n;
    }
    return copy;
}

static void
tell(struct message m)
{
    m.text = printable(m.text);
    messages.items = mem_grow(messages.items, messages.n, &messages.capacity, sizeof(m));
    messages.items[messages.n++] = m;
    (void)fflush(stdout);
    (void)fprintf(stderr, "hardsock-tune: %s\n", m.text);
}

void
say(const char *fmt, ...)
{
    struct message m = {0};
    va_list args;

    va_start(args, fmt);
    m.text = format_args(fmt, args);
    va_end(args);
    tell(m);
}

void
say_at(const char *file, size_t line, size_t column, const char *fmt, ...)
{
    struct message m = {.file = file, .line = line, .column = column};
    va_list args;

    va_start(args, fmt);
    m.what = format_args(fmt, args);
    va_end(args);
    m.text = mem_format("%s:%zu:%zu: %s", file, line, column, m.what);
    tell(m);
}

const struct message *
said(size_t *ret_n)
{
    *ret_n = messages.n;
    return messages.items;
}
