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

bool
key_allowed(const char *path, const char **ret_why)
{
    static const char *const prefixes[] = {
        "net/core/", "net/ipv4/", "net/ipv6/", "net/netfilter/", "net/mptcp/", "net/unix/", NULL,
    };
    static const char *const exact[] = {
        "fs/file-max", "fs/nr_open", "fs/epoll/max_user_watches", "net/nf_conntrack_max", NULL,
    };
    static const char *const actions[] = {
        "net/ipv4/route/flush",
        "net/ipv6/route/flush",
        NULL,
    };
    static const char *const secrets[] = {
        "net/ipv4/tcp_fastopen_key",
        "net/ipv6/conf/*/stable_secret",
        NULL,
    };

    for (size_t i = 0; actions[i] != NULL; i++)
        if (strcmp(actions[i], path) == 0) {
            *ret_why = "is an action, not a setting: it cannot be read, checked or taken back";
            return false;
        }
    for (size_t i = 0; secrets[i] != NULL; i++)
        if (key_matches(secrets[i], path)) {
            *ret_why = "is a secret: it belongs in no profile, and is never read or printed";
            return false;
        }
    for (size_t i = 0; prefixes[i] != NULL; i++)
        if (strncmp(prefixes[i], path, strlen(prefixes[i])) == 0)
            return true;
    for (size_t i = 0; exact[i] != NULL; i++)
        if (strcmp(exact[i], path) == 0)
            return true;
    *ret_why = "is outside net.core, net.ipv4, net.ipv6, net.netfilter, net.mptcp, net.unix and "
               "three fs keys: other settings can run programs or cannot be undone";
    return false;
}
