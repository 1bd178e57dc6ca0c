/* cmd_persist.c: `persist` and `unpersist`: a sysctl.d file for the next boot.
 *
 * The file is written beside its place and renamed; one that this tool did not write is left alone,
 * and so is a link. Running settings do not change.
 */
#include "key.h"
#include "mem.h"
#include "root.h"
#include "winners.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER "# Written by hardsock-tune"
#define DEFAULT_NAME "90-hardsock.conf"

static enum exit_code
failed(const char *path)
{
    int sys = errno;

    say("%s: %s", path, strerror(sys));
    return sys == EACCES || sys == EPERM || sys == EROFS ? EXIT_PERMISSION : EXIT_SYSTEM;
}

static enum exit_code
place(const struct options *o, const char **ret_dir, const char **ret_name)
{
    size_t len;

    *ret_dir = mem_format("%s/etc/sysctl.d", o->root == NULL ? "" : o->root);
    *ret_name = o->output == NULL ? DEFAULT_NAME : o->output;
    len = strlen(*ret_name);
    if (strchr(*ret_name, '/') != NULL || len < 6 || (*ret_name)[0] == '.' || len > 100 ||
        strcmp(*ret_name + len - 5, ".conf") != 0)
        return fail_with(EXIT_USAGE, "--output: a file name that ends in .conf, not '%s'",
                         *ret_name);
    return EXIT_AS_WANTED;
}

/* True if there is nothing, or a file that we wrote. */
static bool
is_ours(int dir, const char *name, bool *ret_there)
{
    char start[sizeof(HEADER)] = "";
    struct stat st;
    int fd;

    *ret_there = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (!*ret_there)
        return true;
    if (!S_ISREG(st.st_mode) ||
        (fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)) < 0)
        return false;
    if (read(fd, start, sizeof(start) - 1) < 0)
        start[0] = '\0';
    (void)close(fd);
    return strcmp(start, HEADER) == 0;
}

static void
compose(const struct report *r, struct text *t)
{
    text_puts(t, HEADER "; `hardsock-tune unpersist` removes it.\n");
    for (size_t i = 0; i < r->n; i++) {
        text_format(t, "# Profile %s, %016llx\n", r->profiles[i].name,
                    (unsigned long long)r->profiles[i].hash);
        for (size_t k = 0; k < r->plans[i].n; k++) {
            const struct item *it = &r->plans[i].items[k];
            const char *key = key_show(it->setting->path);

            if (it->target_text == NULL || *it->target_text == '\0')
                continue;
            /* The loaders would take such an interface's name for a pattern. */
            if (strpbrk(key, "*?[]") != NULL) {
                say("%s: left out: sysctl.d takes it for a pattern", key);
                continue;
            }
            text_format(t, "%s = %s\n", key, it->target_text);
        }
    }
}

static enum exit_code
write_file(int dir, const char *name, const struct text *t)
{
    const char *draft = mem_format(".%s.new", name);
    enum exit_code rv = EXIT_AS_WANTED;
    int fd = openat(dir, draft, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);

    if (fd < 0)
        return failed(name);
    if (fchmod(fd, 0644) != 0 || write(fd, t->s, t->len) != (ssize_t)t->len || fsync(fd) != 0)
        rv = failed(name);
    (void)close(fd);
    if (rv == EXIT_AS_WANTED && (renameat(dir, draft, dir, name) != 0 || fsync(dir) != 0))
        rv = failed(name);
    if (rv != EXIT_AS_WANTED)
        (void)unlinkat(dir, draft, 0);
    return rv;
}

static enum exit_code
store_file(const char *root, const char *path, const char *name, const struct text *t)
{
    enum exit_code rv;
    bool there;
    int dir;

    if ((dir = root_make_dir(root, "/etc", "sysctl.d", 0755)) < 0)
        return failed(path);
    if (is_ours(dir, name, &there))
        rv = write_file(dir, name, t);
    else
        rv = fail_with(EXIT_CONFLICT, "%s/%s is not ours", path, name);
    (void)close(dir);
    return rv;
}

enum exit_code
cmd_persist(const struct options *o)
{
    const char *dir, *name;
    struct text t = {0};
    struct report r;
    enum exit_code rv = place(o, &dir, &name);

    if (rv != EXIT_AS_WANTED)
        return rv;
    if (o->n_args + o->n_profiles == 0)
        return fail_with(EXIT_USAGE, "persist wants a profile");
    if (o->format != FORMAT_PRETTY)
        return fail_with(EXIT_USAGE, "persist prints no %s; conflicts does",
                         o->format == FORMAT_JSON ? "json" : "tsv");
    if ((rv = report_make(o, false, &r)) != EXIT_AS_WANTED)
        return rv;
    compose(&r, &t);
    if (o->dry_run) {
        (void)fputs(text_str(&t), stdout);
    } else if ((rv = store_file(r.sys.root, dir, name, &t)) == EXIT_AS_WANTED) {
        (void)printf("wrote %s/%s\n", dir, name);
        if (winners_show(o, &r) > 0)
            rv = fail_with(EXIT_CONFLICT, "other files win at the next boot, see above");
    }
    report_close(&r);
    return rv;
}

enum exit_code
cmd_unpersist(const struct options *o)
{
    const char *path, *name;
    enum exit_code rv = place(o, &path, &name);
    bool there;
    int dir;

    if (rv != EXIT_AS_WANTED)
        return rv;
    dir = root_open(o->root == NULL ? "" : o->root, "/etc/sysctl.d", O_RDONLY | O_DIRECTORY);
    if (dir < 0)
        return errno == ENOENT ? EXIT_AS_WANTED : failed(path);
    if (!is_ours(dir, name, &there))
        rv = fail_with(EXIT_CONFLICT, "%s/%s is not ours", path, name);
    else if (!there)
        (void)puts("nothing to remove");
    else if (o->dry_run)
        (void)printf("would remove %s/%s\n", path, name);
    else if (unlinkat(dir, name, 0) != 0 || fsync(dir) != 0)
        rv = failed(name);
    else
        (void)printf("removed %s/%s\n", path, name);
    (void)close(dir);
    return rv;
}
