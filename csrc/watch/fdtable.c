/* fdtable.c: what descriptors this process has open, without opening one.
 *
 * At EMFILE /proc/self/fd cannot be listed, but readlink(2) on /proc/self/fd/N needs no descriptor.
 * Descriptors opened or closed meanwhile may be missed: this is a picture for people, not a ledger.
 */
#include "hardsock_binding.h"
#include "../base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
fdtable_kind_of(const struct stat *st, const char *target)
{
    if (S_ISSOCK(st->st_mode))
        return HS_FD_SOCKET;
    if (strncmp(target, "pipe:", 5) == 0) /* A FIFO with a name is something else. */
        return HS_FD_PIPE;
    if ((st->st_mode & S_IFMT) == 0) /* an anonymous inode */
        return HS_FD_EVENT;
    if (S_ISREG(st->st_mode))
        return HS_FD_FILE;
    if (S_ISDIR(st->st_mode))
        return HS_FD_DIRECTORY;
    return S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode) ? HS_FD_DEVICE : HS_FD_OTHER;
}

/* False: not open. What is open is told even if its link cannot be read, as in a process that has
 * given up the rights of its owner (prctl(2), PR_SET_DUMPABLE). */
static bool
look_at(int fd, struct hs_fd_entry *ret_entry)
{
    struct stat st = {0};
    char path[40];
    ssize_t n;

    if (fcntl(fd, F_GETFD) < 0) /* ten times cheaper than the look below */
        return false;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    n = hs_sys_readlink(path, ret_entry->target, sizeof(ret_entry->target) - 1);
    ret_entry->target[n > 0 ? n : 0] = '\0';
    ret_entry->fd = fd;
    if (hs_sys_fstat(fd, &st) == 0)
        ret_entry->kind = fdtable_kind_of(&st, ret_entry->target);
    else if (errno != EBADF)
        ret_entry->kind = HS_FD_OTHER;
    else
        return false; /* Another thread has closed it. */
    ret_entry->dev = st.st_dev;
    ret_entry->ino = st.st_ino;
    return true;
}

static int
end_of_table(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > MAX_LOOKED_AT)
        return MAX_LOOKED_AT;
    return (int)limit.rlim_cur;
}

/* How many are open, where the kernel says so without being asked for each (Linux 6.2 and later: it
 * is the size of the directory); else more than there can be. The one who has seen as many is done,
 * which most often is far from the end of the table. */
static size_t
how_many(void)
{
    struct stat st;

    return hs_sys_stat("/proc/self/fd", &st) == 0 && st.st_size > 0 ? (size_t)st.st_size : SIZE_MAX;
}

void
hs_fd_inventory(long counts[HS_FD_KINDS])
{
    struct hs_fd_entry entry;
    size_t open = how_many(), n = 0;

    memset(counts, 0, HS_FD_KINDS * sizeof(counts[0]));
    for (int fd = 0, end = end_of_table(); fd < end && n < open; fd++)
        if (look_at(fd, &entry)) {
            counts[entry.kind]++;
            n++;
        }
}

size_t
hs_fd_list(struct hs_fd_entry *entries, size_t room)
{
    struct hs_fd_entry entry;
    size_t open = how_many(), n = 0;

    for (int fd = 0, end = end_of_table(); fd < end && n < open; fd++)
        if (look_at(fd, &entry) && n++ < room)
            entries[n - 1] = entry;
    return n;
}

void
hs_fd_usage(struct hs_fd_usage *ret_usage)
{
    struct rlimit limit;
    size_t open = how_many();

    ret_usage->limit = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur <= INT_MAX
                           ? (long)limit.rlim_cur
                           : -1;
    ret_usage->open = (long)open;
    if (open != SIZE_MAX)
        return;
    ret_usage->open = 0;
    for (int fd = 0, end = end_of_table(); fd < end; fd++)
        ret_usage->open += fcntl(fd, F_GETFD) >= 0;
}
