/* fdtable.c: what descriptors this process has open, without opening one.
 *
 * At EMFILE /proc/self/fd cannot be listed, but readlink(2) on /proc/self/fd/N needs no descriptor.
 * Descriptors opened or closed meanwhile may be missed: this is a picture for people, not a ledger.
 */
#include "hardsock.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* More are not looked at: a hint must not cost a second. */
#define MAX_LOOKED_AT 65536

static const char *const names[HS_FD_KINDS] = {
    [HS_FD_SOCKET] = "socket",       [HS_FD_PIPE] = "pipe",     [HS_FD_FILE] = "file",
    [HS_FD_DIRECTORY] = "directory", [HS_FD_DEVICE] = "device", [HS_FD_EVENT] = "event",
    [HS_FD_OTHER] = "other",
};

const char *
hs_fd_kind_name(enum hs_fd_kind kind)
{
    return kind >= 0 && kind < HS_FD_KINDS ? names[kind] : "other";
}

static enum hs_fd_kind
kind_of(int fd, const char *target)
{
    struct stat st;

    if (strncmp(target, "socket:", 7) == 0)
        return HS_FD_SOCKET;
    if (strncmp(target, "pipe:", 5) == 0)
        return HS_FD_PIPE;
    if (strncmp(target, "anon_inode:", 11) == 0)
        return HS_FD_EVENT;
    if (fstat(fd, &st) != 0)
        return HS_FD_OTHER;
    if (S_ISREG(st.st_mode))
        return HS_FD_FILE;
    if (S_ISDIR(st.st_mode))
        return HS_FD_DIRECTORY;
    return S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ? HS_FD_DEVICE : HS_FD_OTHER;
}

void
hs_fd_inventory(long counts[HS_FD_KINDS])
{
    struct rlimit limit;
    char path[40], target[32];
    long max = MAX_LOOKED_AT;

    memset(counts, 0, HS_FD_KINDS * sizeof(counts[0]));
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < MAX_LOOKED_AT)
        max = (long)limit.rlim_cur;
    for (int fd = 0; fd < max; fd++) {
        ssize_t n;

        if (fcntl(fd, F_GETFD) < 0) /* ten times cheaper than the look below */
            continue;
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        if ((n = readlink(path, target, sizeof(target) - 1)) < 0)
            continue;
        target[n] = '\0';
        counts[kind_of(fd, target)]++;
    }
}
