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

void
mem_release(void)
{
    while (blocks != NULL) {
        struct block *next = blocks->next;

        free(blocks);
        blocks = next;
    }
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

void
say(const char *fmt, ...)
{
    va_list args;
    char *message;

    va_start(args, fmt);
    message = format_args(fmt, args);
    va_end(args);
    for (char *p = message; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    (void)fflush(stdout);
    (void)fprintf(stderr, "hardsock-tune: %s\n", message);
}
