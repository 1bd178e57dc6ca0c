/* mem.c: the arena, the growing text, and messages to people.
 *
 * Blocks of 16 KiB are linked; what is larger gets a block of its own. Messages are made printable
 * first: names and values come from files that a stranger may have written.
 */
#include "mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 16384
#define ALIGN 16

struct block {
    struct block *next;
    size_t used, size;
    _Alignas(ALIGN) unsigned char bytes[];
};

static struct block *blocks;

/* What was said; kept in the arena. */
static struct {
    const char **lines;
    size_t n, capacity;
} messages;

static struct block *
new_block(size_t size)
{
    struct block *b = malloc(sizeof(*b) + size);

    if (b == NULL) {
        (void)fputs("hardsock-tune: out of memory\n", stderr);
        exit(EXIT_SYSTEM);
    }
    b->used = 0;
    b->size = size;
    b->next = blocks;
    blocks = b;
    return b;
}

void *
mem_alloc(size_t size)
{
    struct block *b = blocks;
    void *p;

    if (size > SIZE_MAX / 4) {
        (void)fputs("hardsock-tune: out of memory\n", stderr);
        exit(EXIT_SYSTEM);
    }
    size = (size + ALIGN - 1) / ALIGN * ALIGN;
    if (b == NULL || b->size - b->used < size)
        b = new_block(size > BLOCK ? size : BLOCK);
    p = b->bytes + b->used;
    b->used += size;
    memset(p, 0, size);
    return p;
}

char *
mem_copy(const char *text, size_t len)
{
    char *p = mem_alloc(len + 1);

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
    char *p;

    va_copy(again, args);
    n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    p = mem_alloc((size_t)(n < 0 ? 0 : n) + 1);
    (void)vsnprintf(p, (size_t)(n < 0 ? 0 : n) + 1, fmt, args);
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
    void *bigger;

    if (used < *capacity)
        return array;
    *capacity = *capacity == 0 ? 16 : *capacity * 2;
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
    messages.lines = NULL;
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

void
say(const char *fmt, ...)
{
    va_list args;
    const char *message;

    va_start(args, fmt);
    message = printable(format_args(fmt, args));
    va_end(args);
    messages.lines = mem_grow(messages.lines, messages.n, &messages.capacity, sizeof(char *));
    messages.lines[messages.n++] = message;
    (void)fflush(stdout);
    (void)fprintf(stderr, "hardsock-tune: %s\n", message);
}

const char *const *
said(size_t *ret_n)
{
    *ret_n = messages.n;
    return messages.lines;
}
