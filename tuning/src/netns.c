/* netns.c: finding and entering a network namespace.
 *
 * Named as `ip netns` names it, by process id, or by path. The program has one thread and enters
 * before it opens anything: a descriptor on /proc/sys follows the namespace of the caller, one on a
 * directory below it would stay where it was opened.
 */
#include "netns.h"

#include "mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef NSFS_MAGIC
#define NSFS_MAGIC 0x6e736673
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static const char *
path_of(const char *name)
{
    if (strchr(name, '/') != NULL)
        return name;
    if (name[0] != '\0' && name[strspn(name, "0123456789")] == '\0')
        return mem_format("/proc/%s/ns/net", name);
    if (name[0] == '\0' || name[0] == '.')
        return NULL;
    return mem_format("/run/netns/%s", name);
}

enum exit_code
netns_enter(const char *name)
{
    const char *path = path_of(name);
    struct stat want, have;
    struct statfs fs;
    enum exit_code rv = EXIT_AS_WANTED;
    int fd, sys;

    if (path == NULL)
        return fail_with(EXIT_USAGE, "--netns: '%s' is no name", name);
    if ((fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0) {
        sys = errno;
        say("--netns: cannot open %s: %s", path, strerror(sys));
        return sys == EACCES || sys == EPERM ? EXIT_PERMISSION : EXIT_USAGE;
    }
    if (fstatfs(fd, &fs) != 0 || (unsigned long)fs.f_type != NSFS_MAGIC || fstat(fd, &want) != 0) {
        rv = fail_with(EXIT_USAGE, "--netns: %s is no namespace", path);
        goto out;
    }
    if (setns(fd, CLONE_NEWNET) != 0) {
        sys = errno;
        say("--netns: cannot enter %s: %s", path, strerror(sys));
        rv = sys == EPERM ? EXIT_PERMISSION : EXIT_USAGE;
        goto out;
    }
    if (stat("/proc/thread-self/ns/net", &have) != 0 || have.st_ino != want.st_ino ||
        have.st_dev != want.st_dev)
        rv = fail_with(EXIT_SYSTEM, "--netns: entered %s, but /proc shows another one", path);
out:
    (void)close(fd);
    return rv;
}

void
netns_identify(uint64_t *ret_inode, uint64_t *ret_cookie)
{
    struct stat st;
    socklen_t len = sizeof(*ret_cookie);
    int fd;

    if (stat("/proc/thread-self/ns/net", &st) == 0)
        *ret_inode = st.st_ino;
    if ((fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret_cookie, &len) != 0)
        *ret_cookie = 0;
    (void)close(fd);
}
