/* mem.h: one arena for the whole run, and a growing text.
 *
 * Nothing is freed one by one: mem_release gives everything back at the end (and after each round
 * of a fuzzer). Running out of memory ends the program with a message, since no command can do
 * anything useful then; a journal that is on disk by then takes everything back.
 */
#ifndef TUNE_MEM_H
#define TUNE_MEM_H

#include "tune.h"

#include <stdarg.h>

/* Zeroed; never NULL. */
void *mem_alloc(size_t size);
char *mem_copy(const char *text, size_t len);
char *mem_dup(const char *text);
char *mem_format(const char *fmt, ...) PRINTF(1, 2);
/* Doubles an array held in the arena when it is full. */
void *mem_grow(void *array, size_t used, size_t *capacity, size_t item);
void mem_release(void);
/* How often that was done: what was kept from another round is gone. */
unsigned mem_round(void);

struct text {
    char *s; /* NUL-terminated once anything was added; "" before by text_str */
    size_t len, capacity;
};

void text_add(struct text *t, const char *s, size_t len);
void text_puts(struct text *t, const char *s);
void text_format(struct text *t, const char *fmt, ...) PRINTF(2, 3);
const char *text_str(const struct text *t);

/* How many bytes the character at s has; 0 if that is no UTF-8. */
size_t utf8_length(const char *s);
/* The same; 0 also for a control character. */
size_t printable_length(const char *s);
/* A copy for people: '?' for control characters and for what is no UTF-8. */
char *printable(const char *text);

/* "hardsock-tune: what" on stderr. */
void say(const char *fmt, ...) PRINTF(1, 2);
/* Like say(), with the place in front. */
void say_at(const char *file, size_t line, size_t column, const char *fmt, ...) PRINTF(4, 5);

struct message {
    const char *text;
    const char *file, *what; /* of say_at; NULL otherwise */
    size_t line, column;
};

/* What was said so far, for the JSON of a command that failed. */
const struct message *said(size_t *ret_n);
/* The same, and the code comes back. */
#define fail_with(code, ...) (say(__VA_ARGS__), (code))

#endif
