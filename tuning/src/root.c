/* root.c: see root.h.
 *
 * openat2 does the work. Kernels before 5.6 and sandboxes that know no openat2 go one component at
 * a time and follow no link at all.
 */
#include "root.h"

#include "key.h"
#include "mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int
open_stepwise(int dir, const char *path, int flags)
{
    char part[KEY_MAX];
    int at = dir, next;

    for (;;) {
        size_t len = strcspn(path, "/");
        bool last = path[len] == '\0';

        if (len >= sizeof(part))
            return errno = ENAMETOOLONG, -1;
        memcpy(part, path, len);
        part[len] = '\0';
        next = openat(at, part, O_NOFOLLOW | O_CLOEXEC | (last ? flags : O_PATH | O_DIRECTORY));
        if (at != dir) {
            int sys = errno;

            (void)close(at);
            errno = sys;
        }
        if (next < 0 || last)
            return next;
        at = next;
        path += len + 1;
    }
}

static int
open_resolved(int dir, const char *path, int flags, uint64_t resolve)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .resolve = resolve | RESOLVE_NO_MAGICLINKS,
    };
    long fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));

    if (fd < 0 && (errno == ENOSYS || errno == EPERM)) {
        int sys = errno;

        /* EPERM may be a sandbox or a real answer; a second try tells. */
        if ((fd = open_stepwise(dir, path, flags)) < 0 && sys == EPERM && errno == ENOSYS)
            errno = sys;
    }
    return (int)fd;
}

int
open_beneath(int dir, const char *path, int flags)
{
    return open_resolved(dir, path, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
}

int
root_open(const char *root, const char *path, int flags)
{
    int dir, fd, sys;

    if (*root == '\0')
        return open(path, flags | O_CLOEXEC);
    if ((dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
        return -1;
    fd = open_resolved(dir, path + 1, flags, RESOLVE_IN_ROOT);
    sys = errno;
    (void)close(dir);
    errno = sys;
    return fd;
}

DIR *
root_opendir(const char *root, const char *path)
{
    int fd = root_open(root, path, O_RDONLY | O_DIRECTORY);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);

    if (d == NULL && fd >= 0)
        (void)close(fd);
    return d;
}

int
root_make_dir(const char *root, const char *parent, const char *name, unsigned mode)
{
    int dir = root_open(root, parent, O_PATH | O_DIRECTORY), sys = 0;

    if (dir < 0)
        return -1;
    if (mkdirat(dir, name, mode) != 0 && errno != EEXIST)
        sys = errno;
    (void)close(dir);
    if (sys != 0)
        return errno = sys, -1;
    return root_open(root, mem_format("%s/%s", parent, name), O_RDONLY | O_DIRECTORY);
}
