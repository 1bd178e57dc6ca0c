/* key.c: names are checked as text before any system call sees them.
 *
 * openat2 keeps a path beneath /proc/sys, but would still allow "a/../b": so the text is held to
 * plain components first. Interface names may hold nearly every character, also * and [, so
 * nothing here ever globs.
 */
#include "key.h"

#include "mem.h"

#include <string.h>

static bool
component_ok(const char *s, size_t len, const char **ret_why)
{
    if (len == 0) {
        *ret_why = "has an empty part";
        return false;
    }
    if ((len == 1 && s[0] == '.') || (len == 2 && s[0] == '.' && s[1] == '.')) {
        *ret_why = "has a part that is . or ..";
        return false;
    }
    return true;
}

bool
key_parse(const char *name, size_t len, char path[KEY_MAX], const char **ret_why)
{
    char separator = '\0';
    size_t start = 0;

    if (len == 0 || len >= KEY_MAX) {
        *ret_why = len == 0 ? "is empty" : "is too long";
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        char c = name[i];

        if ((unsigned char)c <= ' ' || c == 0x7f) {
            *ret_why = "holds a blank or a control character";
            return false;
        }
        if (separator == '\0' && (c == '.' || c == '/'))
            separator = c;
        if (c == separator)
            c = '/';
        else if (separator == '.' && c == '/')
            c = '.';
        path[i] = c;
    }
    path[len] = '\0';
    if (separator == '\0') {
        *ret_why = "is one word; a key looks like net.core.somaxconn";
        return false;
    }
    for (size_t i = 0; i <= len; i++) {
        if (i < len && path[i] != '/')
            continue;
        if (!component_ok(path + start, i - start, ret_why))
            return false;
        start = i + 1;
    }
    return true;
}

const char *
key_show(const char *path)
{
    char *shown = mem_dup(path);

    for (char *p = shown; *p != '\0'; p++)
        if (*p == '/')
            *p = '.';
        else if (*p == '.')
            *p = '/';
    return shown;
}

bool
key_is_pattern(const char *path)
{
    static const char *const places[] = {"net/ipv4/conf/*/", "net/ipv6/conf/*/",
                                         "net/ipv4/neigh/*/", "net/ipv6/neigh/*/"};

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        if (strncmp(path, places[i], strlen(places[i])) == 0 &&
            strpbrk(path + strlen(places[i]), "*?[") == NULL)
            return true;
    return false;
}

bool
key_matches(const char *pattern, const char *path)
{
    while (*pattern != '\0') {
        if (*pattern == '*') {
            if (*path == '\0' || *path == '/')
                return false;
            path += strcspn(path, "/");
            pattern++;
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    return *path == '\0';
}
