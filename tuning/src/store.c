/* store.c: see store.h.
 *
 * The format is lines of words separated by tabs, with a last line that says "end": a file without
 * it is not believed. Everything is opened relative to the directory, following no links.
 */
#include "store.h"

#include "key.h"
#include "mem.h"
#include "root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "hardsock-tune journal 1"
#define JOURNAL_MAX (4 * 1024 * 1024)
#define MAX_ID 999999
#define RUN_DIR "/run/hardsock-tune"

static enum exit_code
failed(const char *what, const char *path)
{
    int sys = errno;

    say("%s %s: %s", what, path, strerror(sys));
    return sys == EACCES || sys == EPERM || sys == EROFS ? EXIT_PERMISSION : EXIT_SYSTEM;
}

/* Where it goes if nobody says: /run for root, the user's own place else. */
static const char *
base_dir(const struct options *o, bool create)
{
    const char *user = getenv("XDG_RUNTIME_DIR");

    if (o->state != NULL)
        return o->state;
    if (access(RUN_DIR, W_OK) == 0 || (create && mkdir(RUN_DIR, 0700) == 0))
        return RUN_DIR;
    return user != NULL && user[0] == '/' ? mem_format("%s/hardsock-tune", user) : RUN_DIR;
}

static int
open_dir(int at, const char *path, bool create)
{
    struct stat st;
    int fd;

    if (create && mkdirat(at, path, 0700) != 0 && errno != EEXIST)
        return -1;
    fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &st) != 0 || st.st_uid != geteuid() || (st.st_mode & 022) != 0)) {
        (void)close(fd);
        errno = EPERM;
        return -1;
    }
    return fd;
}

static int
open_base(const struct options *o, const struct sys *s, const char *path, bool create)
{
    int run, fd, sys;

    if (!s->fake || o->state != NULL)
        return open_dir(AT_FDCWD, path, create);
    if ((run = root_open(s->root, "/run", O_PATH | O_DIRECTORY)) < 0)
        return -1;
    fd = open_dir(run, "hardsock-tune", create);
    sys = errno;
    (void)close(run);
    errno = sys;
    return fd;
}

enum exit_code
store_open(const struct options *o, const struct sys *s, bool create, struct store *ret)
{
    const char *base = s->fake && o->state == NULL ? mem_format("%s/run/hardsock-tune", s->root)
                                                   : base_dir(o, create);
    const char *name = s->fake ? "root" : mem_format("net-%llu", (unsigned long long)s->ns_inode);
    const char *path = mem_format("%s/%s", base, name);
    int fd = open_base(o, s, base, create), dir = fd, sys;

    *ret = (struct store){.dir = -1, .path = path};
    ret->hidden =
        !s->fake && o->state == NULL && strcmp(base, RUN_DIR) != 0 && access(RUN_DIR, F_OK) == 0;
    if (dir >= 0) {
        fd = open_dir(dir, name, create);
        sys = errno;
        (void)close(dir);
        errno = sys;
    }
    if (fd < 0)
        return !create && errno == ENOENT ? EXIT_AS_WANTED : failed("cannot open", path);
    if (create && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        (void)close(fd);
        return fail_with(EXIT_CONFLICT, "%s: another hardsock-tune is at work", path);
    }
    ret->dir = fd;
    return EXIT_AS_WANTED;
}

void
store_close(struct store *st)
{
    if (st->dir >= 0)
        (void)close(st->dir);
    st->dir = -1;
}

static int
by_number(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

    return x < y ? -1 : x > y;
}

static const char *
name_of(unsigned id)
{
    return mem_format("%06u.tx", id);
}

/* Ids of all journals, rising. */
static unsigned *
store_ids(const struct store *st, size_t *ret_n)
{
    unsigned *ids = NULL, id;
    size_t n = 0, capacity = 0;
    int fd = st->dir < 0 ? -1 : openat(st->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);

    /* cppcheck-suppress readdirCalled; there is one thread */
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        id = (unsigned)strtoul(e->d_name, NULL, 10);
        if (id > MAX_ID || strcmp(e->d_name, name_of(id)) != 0)
            continue;
        ids = mem_grow(ids, n, &capacity, sizeof(*ids));
        ids[n++] = id;
    }
    if (d != NULL)
        (void)closedir(d);
    if (n > 0)
        qsort(ids, n, sizeof(*ids), by_number);
    *ret_n = n;
    return ids;
}

const char *
tx_state_name(enum tx_state state)
{
    static const char *const names[] = {"interrupted", "applied", "partly", "reverting"};

    return names[state];
}

static const char *const kinds[] = {"set", "keep", "side", "theirs"};

void
journal_add(struct journal *j, const char *path, const char *before, const char *after,
            enum entry_kind kind)
{
    j->entries = mem_grow(j->entries, j->n, &j->capacity, sizeof(*j->entries));
    j->entries[j->n++] = (struct entry){path, before, after, kind};
}

/* What cannot be read back now will not take anything back later. */
static bool
reads_back(const struct store *st, const char *name, const struct text *t)
{
    char *have = mem_alloc(t->len + 1);
    int fd = openat(st->dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return false;
    n = read(fd, have, t->len + 1);
    (void)close(fd);
    return n == (ssize_t)t->len && memcmp(have, t->s, t->len) == 0;
}

static enum exit_code
write_synced(const struct store *st, const char *name, const struct text *t)
{
    enum exit_code rv = EXIT_AS_WANTED;
    size_t done = 0;
    int fd = openat(st->dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return failed("cannot write", st->path);
    while (done < t->len) {
        ssize_t n = write(fd, t->s + done, t->len - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rv = failed("cannot write", st->path);
            break;
        }
        done += (size_t)n;
    }
    if (rv == EXIT_AS_WANTED && fsync(fd) != 0)
        rv = failed("cannot sync", st->path);
    (void)close(fd);
    return rv;
}

enum exit_code
journal_save(const struct store *st, const struct journal *j)
{
    struct text t = {0};
    const char *name = name_of(j->id), *draft = mem_format("%06u.new", j->id);
    enum exit_code rv;

    text_format(&t, MAGIC "\nstate\t%d\ncookie\t%llu\nboot\t%s\nprofiles\t%s\ntime\t%s\n",
                (int)j->state, (unsigned long long)j->ns_cookie, j->boot, j->profiles, j->time);
    for (size_t i = 0; i < j->n; i++) {
        const struct entry *e = &j->entries[i];

        text_format(&t, "%s\t%s\t%s\t%s\n", kinds[e->kind], e->path, e->before,
                    e->after == NULL ? "" : e->after);
    }
    text_puts(&t, "end\n");
    if ((rv = write_synced(st, draft, &t)) != EXIT_AS_WANTED)
        return rv;
    if (!reads_back(st, draft, &t))
        return fail_with(EXIT_SYSTEM, "%s: the journal cannot be read back", st->path);
    if (renameat(st->dir, draft, st->dir, name) != 0 || fsync(st->dir) != 0)
        return failed("cannot write", st->path);
    return EXIT_AS_WANTED;
}

static char *
next_word(char **at)
{
    char *word = *at, *tab = strchr(word, '\t');

    if (tab == NULL) {
        *at = word + strlen(word);
    } else {
        *tab = '\0';
        *at = tab + 1;
    }
    return word;
}

static bool
take_line(struct journal *j, char *line, bool *ret_end)
{
    const char *word = next_word(&line), *path, *before, *ignored;
    char parsed[KEY_MAX];
    size_t kind = 0;

    if (strcmp(word, "end") == 0)
        return *ret_end = true;
    while (kind < sizeof(kinds) / sizeof(kinds[0]) && strcmp(word, kinds[kind]) != 0)
        kind++;
    if (strcmp(word, "state") == 0 && line[0] >= '0' && line[0] <= '3' && line[1] == '\0')
        j->state = (enum tx_state)(line[0] - '0');
    else if (strcmp(word, "cookie") == 0)
        j->ns_cookie = strtoull(line, NULL, 10);
    else if (strcmp(word, "boot") == 0)
        j->boot = line;
    else if (strcmp(word, "profiles") == 0)
        j->profiles = line;
    else if (strcmp(word, "time") == 0)
        j->time = line;
    else if (kind < sizeof(kinds) / sizeof(kinds[0])) {
        path = next_word(&line);
        before = next_word(&line);
        if (!key_parse(path, strlen(path), parsed, &ignored) || strcmp(path, parsed) != 0 ||
            !key_allowed(path, &ignored))
            return false;
        journal_add(j, path, before, kind == ENTRY_SIDE && *line == '\0' ? NULL : line,
                    (enum entry_kind)kind);
    } else {
        return false;
    }
    return true;
}

static enum exit_code
journal_load(const struct store *st, unsigned id, struct journal *ret)
{
    const char *name = name_of(id);
    struct journal j = {.id = id, .boot = "", .profiles = "", .time = ""};
    struct stat file;
    char *text, *line;
    ssize_t n = -1;
    bool end = false, ok = true;
    int fd = openat(st->dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return failed("cannot read", name);
    if (fstat(fd, &file) != 0 || !S_ISREG(file.st_mode) || file.st_size > JOURNAL_MAX)
        file.st_size = 0;
    text = mem_alloc((size_t)file.st_size + 1);
    n = read(fd, text, (size_t)file.st_size);
    (void)close(fd);
    ok = n > 0 && strncmp(text, MAGIC "\n", sizeof(MAGIC)) == 0;
    for (line = ok ? text + sizeof(MAGIC) : text; ok && !end && *line != '\0';) {
        char *newline = strchr(line, '\n');

        if (newline == NULL)
            break;
        *newline = '\0';
        ok = take_line(&j, line, &end);
        line = newline + 1;
    }
    if (!ok || !end)
        return fail_with(EXIT_SYSTEM, "%s/%s: not a journal that this version understands",
                         st->path, name);
    *ret = j;
    return EXIT_AS_WANTED;
}

void
journal_remove(const struct store *st, unsigned id)
{
    (void)unlinkat(st->dir, name_of(id), 0);
    (void)fsync(st->dir);
}

const char *
boot_id(const struct sys *s)
{
    size_t len;
    char *text = s->fake ? NULL : sys_file(s, "/proc/sys/kernel/random/boot_id", 64, &len);

    if (text == NULL)
        return "-";
    text[strcspn(text, "\n\t")] = '\0';
    return text;
}

static bool
is_ours(const struct journal *j, const struct sys *s)
{
    const char *boot = boot_id(s);

    /* 0 and "-" stand for unknown. */
    if (j->ns_cookie != 0 && s->ns_cookie != 0 && j->ns_cookie != s->ns_cookie)
        return false;
    return *j->boot == '-' || *boot == '-' || strcmp(j->boot, boot) == 0;
}

enum exit_code
store_load(const struct store *st, const struct sys *s, struct journals *ret)
{
    struct journals all = {.next = 1};
    enum exit_code rv = EXIT_AS_WANTED, one;
    struct journal j;
    size_t n;
    unsigned *ids = store_ids(st, &n);

    for (size_t i = 0; i < n; i++) {
        all.next = ids[i] + 1;
        if ((one = journal_load(st, ids[i], &j)) != EXIT_AS_WANTED) {
            rv = one;
        } else if (!is_ours(&j, s)) {
            all.foreign++;
        } else {
            all.items = mem_grow(all.items, all.n, &all.capacity, sizeof(j));
            all.items[all.n++] = j;
        }
    }
    if (all.next > MAX_ID)
        rv = fail_with(EXIT_SYSTEM, "%s: no number is free", st->path);
    *ret = all;
    return rv;
}

void
store_say_foreign(const struct store *st, const struct journals *all)
{
    if (all->foreign > 0)
        say("%s: %zu of another boot or network namespace, left alone", st->path, all->foreign);
}
