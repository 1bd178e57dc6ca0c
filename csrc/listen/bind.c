/* bind.c: socket, options, bind, listen.
 *
 * Options are set before listen(2), so that every connection inherits them. A unix path gets its
 * permission bits before listen(2): nobody can connect while they are wrong. A path is stale when
 * it is a socket and connecting to it is refused; only then is it replaced. An empty host is one
 * dual-stack socket, or IPv4 alone where the kernel has no IPv6.
 *
 * From looking at a unix path until listen(2), and while a path is removed, its folder is locked
 * (flock(2)): otherwise two processes that find the same stale path remove each other's new one,
 * or take one that is bound and does not listen yet for stale. The lock is advisory, and held for
 * microseconds. Where it is not to be had within LOCK_TRIES milliseconds (another program keeps it,
 * the folder cannot be read, the filesystem has no locks), we go on without: a stranger's lock must
 * not keep a server from starting.
 */
#include "bind.h"

#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"
#include "../cancel/wait.h"
#include "../stream/sockopt.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOCK_TRIES = 250 };

static hs_err
bind_open_socket(int family, const struct hs_sockopts *o, struct hs_error *err, struct bound *b)
{
    const int on = 1;
    hs_err rv;

    b->family = family;
    b->fd = hs_sys_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (b->fd < 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, "listen", "socket");
    rv = hs_sockopts_apply(b->fd, family, o, HS_USE_LISTENER, err, &b->changed);
    if (rv == HS_OK && family != AF_UNIX &&
        hs_sys_setsockopt(b->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0)
        rv = hs_err_set(err, HS_E_SYSTEM, errno, "listen", "SO_REUSEADDR");
    return rv;
}

/* The folder of a unix path, locked; -1: without. */
static int
lock_folder(const char *path)
{
    char folder[sizeof(((struct sockaddr_un *)0)->sun_path) + 1] = ".";
    const char *slash = strrchr(path, '/');
    short ignored;
    int fd;

    if (slash != NULL) {
        memcpy(folder, path, (size_t)(slash - path) + 1); /* with the slash: "/" is one, too */
        folder[slash - path + 1] = '\0';
    }
    if ((fd = hs_sys_open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)) < 0)
        return -1;
    for (int i = 0; hs_sys_flock(fd, LOCK_EX | LOCK_NB) != 0; i++) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || i == LOCK_TRIES ||
            hs_wait(-1, 0, NULL, hs_now() + HS_NS_PER_MS, NULL, &ignored) == HS_E_SYSTEM) {
            (void)close(fd);
            return -1;
        }
    }
    return fd;
}

/* Unlocked first: a process that was forked meanwhile has the same lock. errno stays. */
static void
unlock_folder(int fd)
{
    const int sys = errno;

    if (fd >= 0) {
        (void)hs_sys_flock(fd, LOCK_UN);
        (void)close(fd);
    }
    errno = sys;
}

static bool
is_stale(const struct hs_addr *addr)
{
    struct stat st;
    int fd;
    bool refused;

    if (hs_sys_lstat(addr->un.sun_path, &st) != 0 || !S_ISSOCK(st.st_mode))
        return false;
    if ((fd = hs_sys_socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0)
        return false;
    refused = hs_sys_connect(fd, &addr->sa, addr->len) != 0 && errno == ECONNREFUSED;
    (void)close(fd);
    return refused;
}

static int
bind_replacing(int fd, const struct hs_addr *addr, bool unlink_stale)
{
    if (hs_sys_bind(fd, &addr->sa, addr->len) == 0)
        return 0;
    if (errno != EADDRINUSE)
        return -1;
    if (!unlink_stale || addr->sa.sa_family != AF_UNIX || addr->un.sun_path[0] == '\0' ||
        !is_stale(addr)) {
        errno = EADDRINUSE;
        return -1;
    }
    if (hs_sys_unlink(addr->un.sun_path) != 0 && errno != ENOENT)
        return -1;
    return hs_sys_bind(fd, &addr->sa, addr->len);
}

static hs_err
remember_path(const struct hs_addr *addr, int mode, struct hs_error *err, struct bound *b)
{
    struct stat st;

    if (addr->sa.sa_family != AF_UNIX || addr->un.sun_path[0] == '\0')
        return HS_OK;
    if (hs_sys_stat(addr->un.sun_path, &st) != 0) {
        (void)hs_err_set(err, HS_E_SYSTEM, errno, "listen", "stat of the new unix path");
        (void)hs_sys_unlink(addr->un.sun_path); /* It is ours: the folder is locked. */
        return HS_E_SYSTEM;
    }
    memcpy(b->path, addr->un.sun_path, sizeof(b->path));
    b->device = st.st_dev;
    b->inode = st.st_ino;
    if (mode != HS_UNSET && hs_sys_chmod(b->path, (mode_t)mode) != 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, "listen", "chmod %o", (unsigned)mode);
    return HS_OK;
}

void
hs_bound_remove_path(const struct bound *b)
{
    struct stat st;
    int lock;

    if (b->path[0] == '\0')
        return;
    lock = lock_folder(b->path);
    if (hs_sys_lstat(b->path, &st) == 0 && st.st_dev == b->device && st.st_ino == b->inode)
        (void)hs_sys_unlink(b->path);
    unlock_folder(lock);
}

static hs_err
bind_and_listen(const struct hs_addr *addr, const struct hs_listen_options *o, struct hs_error *err,
                struct bound *b)
{
    char text[HS_ADDR_TEXT_SIZE];
    int sys;
    hs_err rv;

    if (bind_replacing(b->fd, addr, o->unlink_stale) != 0) {
        sys = errno;
        return hs_err_set(err, HS_E_SYSTEM, sys, "listen", "bind to %.150s",
                          hs_addr_text(addr, text, sizeof(text)));
    }
    if ((rv = remember_path(addr, o->unix_mode, err, b)) != HS_OK)
        return rv;
    if (hs_sys_listen(b->fd, o->backlog) != 0) {
        sys = errno;
        if (err != NULL)
            err->phase = "listen";
        return hs_err_set(err, HS_E_SYSTEM, sys, "listen", "listen on %.150s",
                          hs_addr_text(addr, text, sizeof(text)));
    }
    return HS_OK;
}

static hs_err
bind_addr(const struct hs_addr *addr, const struct hs_listen_options *o,
          const struct hs_sockopts *sockopts, struct hs_error *err, struct bound *b)
{
    const bool is_path = addr->sa.sa_family == AF_UNIX && addr->un.sun_path[0] != '\0';
    hs_err rv;
    int lock;

    *b = (struct bound){.fd = -1};
    if ((rv = bind_open_socket(addr->sa.sa_family, sockopts, err, b)) != HS_OK)
        return rv;
    lock = is_path ? lock_folder(addr->un.sun_path) : -1;
    rv = bind_and_listen(addr, o, err, b);
    unlock_folder(lock);
    return rv;
}

static hs_err
bind_every_address(uint16_t port, const struct hs_listen_options *o, struct hs_error *err,
                   struct bound *b)
{
    struct hs_addr any = {.len = sizeof(struct sockaddr_in6)};
    struct sockaddr_in6 in6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT};
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct hs_sockopts sockopts = o->sockopts;
    struct hs_error ignored = {0};
    hs_err rv;

    if (sockopts.v6only == HS_UNSET)
        sockopts.v6only = 0;
    memcpy(&any.storage, &in6, sizeof(in6));
    rv = bind_addr(&any, o, &sockopts, &ignored, b);
    if (rv == HS_OK || (ignored.sys != EAFNOSUPPORT && ignored.sys != EADDRNOTAVAIL)) {
        if (err != NULL)
            *err = ignored;
        return rv;
    }
    if (b->fd >= 0)
        (void)close(b->fd);
    any.len = sizeof(in4);
    memcpy(&any.storage, &in4, sizeof(in4));
    return bind_addr(&any, o, &o->sockopts, err, b);
}

hs_err
hs_bind(const struct hs_endpoint *ep, const struct hs_listen_options *o, struct hs_error *err,
        struct bound *ret_bound)
{
    struct bound b = {.fd = -1};
    hs_err rv;

    if (ep->family == AF_UNSPEC && ep->host[0] != '\0')
        return hs_err_setx(err, HS_E_INVALID, "listen", "'%.100s' is a name: look it up first",
                           ep->host);
    if (o->backlog < 0)
        return hs_err_setx(err, HS_E_INVALID, "listen", "backlog must not be negative, got %d",
                           o->backlog);
    rv = ep->family == AF_UNSPEC ? bind_every_address(ep->port, o, err, &b)
                                 : bind_addr(&ep->addr, o, &o->sockopts, err, &b);
    if (rv != HS_OK) {
        hs_bound_remove_path(&b);
        if (b.fd >= 0)
            (void)close(b.fd);
        if (err != NULL && err->op == NULL)
            err->op = "listen";
        if (err != NULL && err->phase == NULL)
            err->phase = b.fd < 0 ? "socket" : "bind";
        return rv;
    }
    *ret_bound = b;
    return HS_OK;
}
