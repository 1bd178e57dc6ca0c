/* json.c: writing one line of JSON, RFC 8259. See json.h.
 *
 * Numbers are written as integers and decimal fractions, never through a double: a counter of bytes
 * may pass 2^53, and readers that keep integers keep it.
 */
#include "json.h"

#include "../base/err.h"
#include "../base/sys.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
json_put(struct hs_json *j, const char *bytes, size_t n)
{
    if (j->failed)
        return;
    if (j->room - j->len < n) {
        size_t room = (j->len + n) * 2 + 1024;
        char *text = hs_sys_realloc(j->text, room);

        if (text == NULL) {
            j->failed = true;
            return;
        }
        j->text = text;
        j->room = room;
    }
    memcpy(j->text + j->len, bytes, n);
    j->len += n;
}

static void
put_text(struct hs_json *j, const char *text)
{
    json_put(j, text, strlen(text));
}

/* How many bytes of a well-formed UTF-8 sequence (Unicode 3.9, table 3-7) stand at s; 0: none. */
static size_t
sequence(const unsigned char *s)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    unsigned char low = 0x80, high = 0xbf;

    if (n <= 1)
        return n;
    if (s[0] > 0xf4)
        return 0;
    if (s[0] == 0xe0)
        low = 0xa0;
    if (s[0] == 0xed)
        high = 0x9f;
    if (s[0] == 0xf0)
        low = 0x90;
    if (s[0] == 0xf4)
        high = 0x8f;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if (s[i] < 0x80 || s[i] > 0xbf)
            return 0;
    return n;
}

static void
put_string(struct hs_json *j, const char *value)
{
    const unsigned char *s = (const unsigned char *)value;
    char escape[8];
    size_t n;

    json_put(j, "\"", 1);
    for (; *s != '\0'; s += n > 0 ? n : 1) {
        n = sequence(s);
        if (n == 0) {
            put_text(j, "\\ufffd");
        } else if (n == 1 && (*s < 0x20 || *s == 0x7f || *s == '"' || *s == '\\')) {
            (void)snprintf(escape, sizeof(escape), "\\u%04x", *s);
            put_text(j, escape);
        } else {
            json_put(j, (const char *)s, n);
        }
    }
    json_put(j, "\"", 1);
}

static void
put_key(struct hs_json *j, const char *key)
{
    if (j->follows)
        json_put(j, ",", 1);
    j->follows = true;
    if (key == NULL)
        return;
    put_string(j, key);
    json_put(j, ":", 1);
}

void
hs_json_open(struct hs_json *j, const char *key, char kind)
{
    put_key(j, key);
    json_put(j, &kind, 1);
    j->follows = false;
}

void
hs_json_close(struct hs_json *j, char kind)
{
    json_put(j, &kind, 1);
    j->follows = true;
}

void
hs_json_text(struct hs_json *j, const char *key, const char *value)
{
    put_key(j, key);
    if (value == NULL)
        put_text(j, "null");
    else
        put_string(j, value);
}

void
hs_json_number(struct hs_json *j, const char *key, uint64_t value)
{
    char text[24];

    put_key(j, key);
    (void)snprintf(text, sizeof(text), "%" PRIu64, value);
    put_text(j, text);
}

void
hs_json_signed(struct hs_json *j, const char *key, int64_t value)
{
    char text[24];

    put_key(j, key);
    (void)snprintf(text, sizeof(text), "%" PRId64, value);
    put_text(j, text);
}

void
hs_json_flag(struct hs_json *j, const char *key, bool value)
{
    put_key(j, key);
    put_text(j, value ? "true" : "false");
}

void
hs_json_seconds(struct hs_json *j, const char *key, int64_t ns)
{
    uint64_t size = ns < 0 ? (uint64_t)-ns : (uint64_t)ns;
    char text[40];

    put_key(j, key);
    if (ns == HS_NEVER) {
        put_text(j, "null");
        return;
    }
    (void)snprintf(text, sizeof(text), "%s%" PRIu64 ".%09" PRIu64, ns < 0 ? "-" : "",
                   size / 1000000000U, size % 1000000000U);
    put_text(j, text);
}

hs_err
hs_json_end(struct hs_json *j, struct hs_error *err, char **ret_text, size_t *ret_len)
{
    json_put(j, "", 1);
    if (j->failed) {
        free(j->text);
        *j = (struct hs_json){0};
        return hs_err_setx(err, HS_E_NOMEM, "report", "no memory for a report");
    }
    *ret_text = j->text;
    *ret_len = j->len - 1;
    *j = (struct hs_json){0};
    return HS_OK;
}
