/* json.h: writing one line of JSON.
 *
 * A writer goes on when memory is short, and says so at the end; nesting is the caller's to get
 * right. Text of peers and of file systems may hold anything: what is not UTF-8 is written as
 * U+FFFD, and every control character is escaped, so that a line stays a line.
 */
#ifndef HS_WATCH_JSON_H
#define HS_WATCH_JSON_H

#include "hardsock_binding.h"

struct hs_json {
    char *text; /* owns */
    size_t len, room;
    bool failed;  /* for want of memory */
    bool follows; /* something stands here: a comma comes before the next */
};

/* kind: '{' or '['; key: NULL in an array. */
void hs_json_open(struct hs_json *j, const char *key, char kind);
void hs_json_close(struct hs_json *j, char kind);
void hs_json_text(struct hs_json *j, const char *key, const char *value); /* value NULL: null */
void hs_json_number(struct hs_json *j, const char *key, uint64_t value);
void hs_json_signed(struct hs_json *j, const char *key, int64_t value);
void hs_json_flag(struct hs_json *j, const char *key, bool value);
/* Nanoseconds, written as seconds without loss; HS_NEVER: null. */
void hs_json_seconds(struct hs_json *j, const char *key, int64_t ns);
/* HS_OK or HS_E_NOMEM; *ret_text ends with free(3). Either way j is empty. */
HS_NODISCARD hs_err hs_json_end(struct hs_json *j, struct hs_error *err, char **ret_text,
                                size_t *ret_len);

#endif
