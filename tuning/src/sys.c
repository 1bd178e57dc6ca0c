/* sys.c: reading and writing settings.
 *
 * A setting is read with one read(2), since a second one returns end of file and would cut the
 * value; and written with one write(2), since the kernel ignores a write at an offset and reports
 * success. The exception is a long list of ports, which the kernel takes page by page.
 */
#include "sys.h"

#include "key.h"
#include "mem.h"
#include "netns.h"
#include "root.h"
#include "saved.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#define PROC_MAGIC 0x9fa0
/* The longest value: every second port reserved, as text. */
#define READ_MAX (256 * 1024)
#define READ_FIRST 2048
#define MAX_DIR 4096
#define SLOTS 1024 /* of what is remembered */

static void
learn_kernel(struct sys *s)
{
    struct utsname u;
    size_t len;
    char *release = s->fake ? sys_file(s, "/proc/sys/kernel/osrelease", 64, &len) : NULL;

    if (uname(&u) != 0)
        return;
    if (release != NULL)
        release[strcspn(release, "\n")] = '\0';
    (void)snprintf(s->kernel, sizeof(s->kernel), "%s", release != NULL ? release : u.release);
    (void)snprintf(s->arch, sizeof(s->arch), "%s", u.machine);
}

/* From a file: `sysctl -a` of some machine. */
static enum exit_code
open_saved(const struct options *o, struct sys *ret_sys)
{
    struct saved *saved = mem_alloc(sizeof(*saved));
    struct sys s = {.root = "", .proc_sys = -1, .fake = true, .saved = saved};
    const char *release;
    enum exit_code rv;

    if (o->netns != NULL || o->root != NULL)
        return fail_with(EXIT_USAGE, "--from excludes --netns and --root");
    if ((rv = saved_read(o->from, saved)) != EXIT_AS_WANTED)
        return rv;
    if ((release = saved_find(saved, "kernel/osrelease")) != NULL)
        (void)snprintf(s.kernel, sizeof(s.kernel), "%s", release);
    s.first_ns = saved_find(saved, "net/core/netdev_max_backlog") != NULL;
    *ret_sys = s;
    return EXIT_AS_WANTED;
}

/* An image has an empty /proc, if any: it is a place to mount on. */
bool
sys_has_settings(const struct sys *s)
{
    return s->saved != NULL || (s->proc_sys >= 0 && faccessat(s->proc_sys, "net", F_OK, 0) == 0);
}

enum exit_code
sys_open(const struct options *o, struct sys *ret_sys)
{
    struct sys s = {.root = "", .proc_sys = -1};
    struct statfs fs;
    const char *path, *ignored;
    int sys;

    if (o->from != NULL)
        return open_saved(o, ret_sys);
    if (o->netns != NULL && o->root != NULL)
        return fail_with(EXIT_USAGE, "--netns and --root exclude each other");
    if (o->root != NULL) {
        s.root = o->root;
        s.fake = true;
    }
    if (o->netns != NULL) {
        enum exit_code rv = netns_enter(o->netns);

        if (rv != EXIT_AS_WANTED)
            return rv;
    }
    path = mem_format("%s/proc/sys", s.root);
    s.proc_sys = root_open(s.root, "/proc/sys", O_PATH | O_DIRECTORY);
    sys = errno;
    if (o->image && s.fake && !sys_has_settings(&s)) {
        s.image = s.first_ns = true;
        *ret_sys = s;
        return EXIT_AS_WANTED;
    }
    if (s.proc_sys < 0) {
        return fail_with(sys == EACCES ? EXIT_PERMISSION : EXIT_SYSTEM, "cannot open %s: %s", path,
                         strerror(sys));
    }
    if (!s.fake && (fstatfs(s.proc_sys, &fs) != 0 || fs.f_type != PROC_MAGIC)) {
        (void)close(s.proc_sys);
        return fail_with(EXIT_SYSTEM, "%s is not the kernel's (no proc file system)", path);
    }
    learn_kernel(&s);
    if (!s.fake)
        netns_identify(&s.ns_inode, &s.ns_cookie);
    s.first_ns = sys_read(&s, "net/core/netdev_max_backlog", &ignored, &sys) != ACCESS_MISSING;
    *ret_sys = s;
    return EXIT_AS_WANTED;
}

void
sys_close(struct sys *s)
{
    if (s->proc_sys >= 0)
        (void)close(s->proc_sys);
    s->proc_sys = -1;
}

static enum access
access_of(int sys)
{
    switch (sys) {
    case ENOENT:
    case ENOTDIR:
        return ACCESS_MISSING;
    case EACCES:
    case EPERM:
    case EROFS:
        return ACCESS_DENIED;
    default:
        return ACCESS_FAILED;
    }
}

/* The kernel allocates and clears as much as is asked for, so most reads ask for little. */
static ssize_t
read_once(const struct sys *s, const char *path, char *buf, size_t size)
{
    ssize_t n;
    int fd = open_beneath(s->proc_sys, path, O_RDONLY | O_NONBLOCK), sys;

    if (fd < 0)
        return -1;
    do
        n = read(fd, buf, size);
    while (n < 0 && errno == EINTR);
    sys = errno;
    (void)close(fd);
    errno = sys;
    return n;
}

/* What is known of one key. */
struct known {
    const char *path, *text;
    int sys;       /* of the read; 0 or an errno */
    int may_write; /* 0 or an errno; -1: not asked yet */
};

/* The names in one directory. */
struct listed {
    const char *dir;
    char **names;
};

struct memory {
    struct known slots[SLOTS];
    size_t n;
    struct listed listed[8];
    size_t n_listed;
};

void
sys_remember(struct sys *s)
{
    s->memory = mem_alloc(sizeof(*s->memory));
}

/* The slot of the key, or the free one where it belongs; NULL: nothing is remembered. */
static struct known *
slot_of(const struct sys *s, const char *path)
{
    uint32_t hash = 2166136261U;

    if (s->memory == NULL || s->memory->n > SLOTS / 4 * 3)
        return NULL;
    for (const char *c = path; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * 16777619U;
    for (;; hash++) {
        struct known *k = &s->memory->slots[hash % SLOTS];

        if (k->path == NULL || strcmp(k->path, path) == 0)
            return k;
    }
}

static enum access
ask(const struct sys *s, const char *path, const char **ret_text, int *ret_errno)
{
    static char buf[READ_MAX];
    ssize_t n = read_once(s, path, buf, READ_FIRST);

    /* Full: there may be more, and only a larger first read gets it. */
    if (n == READ_FIRST)
        n = read_once(s, path, buf, sizeof(buf));
    *ret_errno = n < 0 ? errno : 0;
    if (n < 0)
        return access_of(*ret_errno);
    while (n > 0 && buf[n - 1] == '\n')
        n--;
    *ret_text = mem_copy(buf, strnlen(buf, (size_t)n));
    return ACCESS_OK;
}

enum access
sys_read(const struct sys *s, const char *path, const char **ret_text, int *ret_errno)
{
    struct known *k = slot_of(s, path);
    enum access rv;

    if (s->saved != NULL) {
        *ret_text = saved_find(s->saved, path);
        *ret_errno = *ret_text == NULL ? ENOENT : 0;
        return *ret_text == NULL ? ACCESS_MISSING : ACCESS_OK;
    }
    if (k != NULL && k->path != NULL) {
        *ret_errno = k->sys;
        if (k->sys == 0)
            *ret_text = k->text;
        return k->sys == 0 ? ACCESS_OK : access_of(k->sys);
    }
    rv = ask(s, path, ret_text, ret_errno);
    if (k != NULL && s->memory != NULL) {
        *k = (struct known){mem_dup(path), rv == ACCESS_OK ? *ret_text : NULL, *ret_errno, -1};
        s->memory->n++;
    }
    return rv;
}

static int
replace_file(const struct sys *s, const char *path, const char *text)
{
    char name[KEY_MAX + 8];
    size_t len = strlen(text);
    int fd, sys = 0;

    if (faccessat(s->proc_sys, path, W_OK, AT_EACCESS) != 0)
        return errno;
    (void)snprintf(name, sizeof(name), "%s.new", path);
    fd = openat(s->proc_sys, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno;
    if (write(fd, text, len) != (ssize_t)len)
        sys = errno == 0 ? EIO : errno;
    (void)close(fd);
    if (sys == 0 && renameat(s->proc_sys, name, s->proc_sys, path) != 0)
        sys = errno;
    return sys;
}

int
sys_write(const struct sys *s, const char *path, const char *text)
{
    const struct kb_key *k = kb_find(path);
    size_t len, done = 0;
    ssize_t n;
    int fd, sys = 0;

    /* An empty write is accepted and changes nothing; a newline clears. */
    text = mem_format("%s\n", text);
    len = strlen(text);
    if (s->fake)
        return replace_file(s, path, text);
    if ((fd = open_beneath(s->proc_sys, path, O_WRONLY)) < 0)
        return errno;
    do {
        n = write(fd, text + done, len - done);
        if (n < 0)
            sys = errno;
        else
            done += (size_t)n;
    } while (n > 0 && done < len && k != NULL && k->type == TYPE_PORTS);
    /* Every byte but the newline counts: the kernel may stop in front of it. */
    if (sys == 0 && done + 1 < len)
        sys = EMSGSIZE;
    (void)close(fd);
    return sys;
}

/* Tells a mount that is read-only, too: EROFS. */
static int
ask_may_write(const struct sys *s, const char *path)
{
    return faccessat(s->proc_sys, path, W_OK, AT_EACCESS) == 0 ? 0 : errno;
}

int
sys_may_write(const struct sys *s, const char *path)
{
    struct known *k = slot_of(s, path);

    if (s->saved != NULL)
        return 0; /* Nobody knows. */
    if (k == NULL || k->path == NULL)
        return ask_may_write(s, path);
    if (k->may_write < 0)
        k->may_write = ask_may_write(s, path);
    return k->may_write;
}

bool
sys_has_module(const struct sys *s, const char *name)
{
    if (s->saved != NULL || s->image)
        return true; /* It may be: the key itself tells. */
    return access(mem_format("%s/sys/module/%s", s->root, name), F_OK) == 0;
}

const char *
sys_why_missing(const struct sys *s, const char *path)
{
    const struct kb_key *k = kb_find(path);
    const char *since, *removed, *module = k == NULL ? NULL : kb_text(k, KB_MODULE);
    char dir[KEY_MAX];
    struct stat st;

    if (k == NULL)
        return "not known to this kernel, nor to this tool";
    if (k->scope == SCOPE_NONE)
        return kb_text(k, KB_REMOVED) == NULL
                   ? kb_text(k, KB_MEANING)
                   : mem_format("gone since Linux %s: %s", kb_text(k, KB_REMOVED),
                                kb_text(k, KB_MEANING));
    since = kb_text(k, KB_SINCE) != NULL ? kb_text(k, KB_SINCE) : kb_text(k, KB_PRESENT);
    if (since != NULL && s->kernel[0] != '\0' && kernel_compare(s->kernel, since) < 0)
        return mem_format("%s; this is %s", kb_since_text(k), s->kernel);
    removed = kb_text(k, KB_REMOVED);
    if (removed != NULL && s->kernel[0] != '\0' && kernel_compare(s->kernel, removed) >= 0)
        return mem_format("gone from Linux; %s", kb_text(k, KB_NOTE) != NULL
                                                     ? kb_text(k, KB_NOTE)
                                                     : mem_format("not in %s", removed));
    if (s->saved != NULL)
        return mem_format("not in %s: not there, or not to be read by who saved it",
                          s->saved->file);
    if (module != NULL && !sys_has_module(s, module))
        return mem_format("module %s is not loaded", module);
    if (kb_scope_of(k, s->kernel) != SCOPE_NAMESPACE && !s->first_ns)
        return "global: only visible, and only to be set, in the machine's first network namespace";
    (void)snprintf(dir, sizeof(dir), "%s", path);
    if (strchr(kb_path(k), '*') != NULL && strrchr(dir, '/') != NULL) {
        *strrchr(dir, '/') = '\0';
        if (fstatat(s->proc_sys, dir, &st, 0) != 0)
            return "no such network interface here";
    }
    /* Some that each namespace has today were the machine's own in older kernels. */
    if (!s->first_ns)
        return "not in this network namespace: this kernel keeps it for the whole machine, or is "
               "built without it";
    return "not built into this kernel";
}

enum access
sys_value(const struct sys *s, const char *path, struct value *ret_value, const char **ret_text,
          int *ret_errno)
{
    const struct kb_key *k = kb_find(path);
    const char *text, *why;
    enum access rv = sys_read(s, path, &text, ret_errno);

    if (rv != ACCESS_OK)
        return rv;
    if (k == NULL || !value_parse(text, k->type, k->fields, false, ret_value, &why))
        (void)value_parse(text, TYPE_TEXT, 0, false, ret_value, &why);
    if (ret_text != NULL)
        *ret_text = value_show(ret_value);
    return ACCESS_OK;
}

static char **
ask_names(const struct sys *s, const char *dir)
{
    size_t n = 0, capacity = 0;
    char **names = NULL;
    int fd = open_beneath(s->proc_sys, dir, O_RDONLY | O_DIRECTORY);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);

    /* cppcheck-suppress readdirCalled; there is one thread */
    for (struct dirent *entry; d != NULL && n < MAX_DIR && (entry = readdir(d)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        names = mem_grow(names, n, &capacity, sizeof(*names));
        names[n++] = mem_dup(entry->d_name);
    }
    if (d != NULL)
        (void)closedir(d);
    else if (fd >= 0)
        (void)close(fd);
    names = mem_grow(names, n, &capacity, sizeof(*names));
    names[n] = NULL;
    return names;
}

char **
sys_names(const struct sys *s, const char *dir)
{
    struct memory *m = s->memory;
    char **names;

    if (s->saved != NULL)
        return saved_names(s->saved, dir);
    for (size_t i = 0; m != NULL && i < m->n_listed; i++)
        if (strcmp(m->listed[i].dir, dir) == 0)
            return m->listed[i].names;
    names = ask_names(s, dir);
    if (m != NULL && m->n_listed < sizeof(m->listed) / sizeof(m->listed[0]))
        m->listed[m->n_listed++] = (struct listed){mem_dup(dir), names};
    return names;
}

char *
sys_file(const struct sys *s, const char *path, size_t limit, size_t *ret_len)
{
    char chunk[8192];
    struct text t = {0};
    ssize_t n = 0;
    int fd;

    if (s->saved != NULL) {
        errno = ENOENT;
        return NULL;
    }
    fd = root_open(s->root, path, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    while (t.len < limit && (n = read(fd, chunk, sizeof(chunk))) > 0)
        text_add(&t, chunk, (size_t)n);
    (void)close(fd);
    if (n < 0)
        return NULL;
    *ret_len = t.len < limit ? t.len : limit;
    return mem_copy(text_str(&t), *ret_len);
}
