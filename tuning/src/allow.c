/* allow.c: what this tool touches, and what it never does.
 *
 * Network settings are read and written. Of the rest only what the knowledge base knows
 * may stand in a profile: other settings run programs or act once. What it marks check_only is
 * compared, exported and persisted, but `apply` leaves it alone.
 */
#include "kb.h"

#include "key.h"

#include <string.h>

static bool
is_one_of(const char *const patterns[], const char *path)
{
    for (size_t i = 0; patterns[i] != NULL; i++)
        if (key_matches(patterns[i], path))
            return true;
    return false;
}

bool
key_allowed(const char *path, const char **ret_why)
{
    static const char *const prefixes[] = {
        "net/core/",  "net/ipv4/",   "net/ipv6/", "net/netfilter/",
        "net/mptcp/", "net/bridge/", "net/unix/", NULL,
    };
    static const char *const actions[] = {"net/ipv4/route/flush", "net/ipv6/route/flush",
                                          "vm/drop_caches", NULL};
    static const char *const for_good[] = {"kernel/modules_disabled", "kernel/kexec_load_disabled",
                                           NULL};
    static const char *const secrets[] = {"net/ipv4/tcp_fastopen_key",
                                          "net/ipv6/conf/*/stable_secret", NULL};

    if (is_one_of(actions, path)) {
        *ret_why = "is an action, not a setting: it cannot be read, checked or taken back";
        return false;
    }
    if (is_one_of(for_good, path)) {
        *ret_why = "cannot be undone before the next boot, once it is set: it is explained, but "
                   "belongs in no profile";
        return false;
    }
    if (is_one_of(secrets, path)) {
        *ret_why = "is a secret: it belongs in no profile, and is never read or printed";
        return false;
    }
    for (size_t i = 0; prefixes[i] != NULL; i++)
        if (strncmp(prefixes[i], path, strlen(prefixes[i])) == 0)
            return true;
    if (kb_find(path) != NULL)
        return true;
    *ret_why = "is outside net.core, net.ipv4, net.ipv6, net.netfilter, net.mptcp, net.bridge and "
               "net.unix, and none of the other keys that this tool knows: such "
               "settings can run programs or cannot be undone";
    return false;
}
