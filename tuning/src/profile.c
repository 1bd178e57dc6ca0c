/* profile.c: finding profiles by name, and putting together what extends what.
 *
 * Looked for in $XDG_CONFIG_HOME/hardsock/profiles (or ~/.config), /etc/hardsock/profiles, and in
 * the program itself; a name with a slash is a path. A profile overrides what it extends, key by
 * key. Variables: the command line, then the profile, then what it extends.
 */
#include "profile.h"

#include "key.h"
#include "mem.h"
#include "suggest.h"
#include "root.h"
#include "signature.h"
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_EXTENDS 4
/* In all, however they are nested. */
#define MAX_PARENTS 8
#define MAX_SETTINGS 512
#define SYSTEM_DIR "/etc/hardsock/profiles"

/* One profile being put together. */
struct family {
    const struct options *o;
    size_t parents;
};

static uint64_t
hash_of(uint64_t hash, const unsigned char *text, size_t len)
{
    /* FNV-1a: tells versions of a profile apart, guards against nothing. */
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ text[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static const char *
user_dir(void)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

    if (config != NULL && config[0] == '/')
        return mem_format("%s/hardsock/profiles", config);
    return home != NULL && home[0] == '/' ? mem_format("%s/.config/hardsock/profiles", home) : NULL;
}

static const char *
root_of(const struct options *o)
{
    return o->root == NULL ? "" : o->root;
}

/* Root's, ours, or of whom / belongs to (root too, seen from a user namespace), and not for
 * everybody to write. */
static bool
is_trusted(const struct stat *file)
{
    struct stat top;

    if ((file->st_mode & S_IWOTH) != 0)
        return false;
    return file->st_uid == 0 || file->st_uid == geteuid() ||
           (stat("/", &top) == 0 && file->st_uid == top.st_uid);
}

unsigned char *
yaml_file(const char *root, const char *path, bool trusted, size_t *ret_len)
{
    unsigned char *buf = NULL;
    struct stat st;
    ssize_t n = -1;
    int fd = root_open(root, path, O_RDONLY | O_NONBLOCK), sys;

    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode)) {
        errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    } else if (trusted && !is_trusted(&st)) {
        errno = EPERM;
    } else {
        buf = mem_alloc(YAML_MAX_SIZE + 2);
        *ret_len = 0;
        while ((n = read(fd, buf + *ret_len, YAML_MAX_SIZE + 1 - *ret_len)) > 0)
            *ret_len += (size_t)n;
    }
    sys = errno;
    (void)close(fd);
    errno = sys;
    return n < 0 ? NULL : buf;
}

static const unsigned char *
find_named(const struct options *o, const char *name, const char **ret_source, size_t *ret_len)
{
    const char *dirs[] = {user_dir(), SYSTEM_DIR}, *roots[] = {"", root_of(o)};
    const unsigned char *text;

    for (size_t i = 0; i < 2; i++) {
        const char *path;

        if (dirs[i] == NULL)
            continue;
        path = mem_format("%s/%s.yaml", dirs[i], name);
        *ret_source = mem_format("%s%s", roots[i], path);
        /* It must be trusted: it may stand for a built-in one. */
        if ((text = yaml_file(roots[i], path, true, ret_len)) != NULL)
            return text;
        if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
            return NULL;
    }
    for (size_t i = 0; builtin_at(i) != NULL; i++)
        if (strcmp(builtin_at(i)->name, name) == 0) {
            *ret_source = mem_format("built-in:%s", name);
            *ret_len = (size_t)(builtin_at(i)->end - builtin_at(i)->text);
            return builtin_at(i)->text;
        }
    errno = ENOENT;
    return NULL;
}

static void
say_no_profile(const struct options *o, const char *name)
{
    struct suggestion near = {.word = name};
    size_t n;
    const struct profile_name *names = profile_names(o, &n);

    for (size_t i = 0; i < n; i++)
        suggest(&near, names[i].name);
    if (access(name, F_OK) == 0)
        say("no profile '%.80s', but a file of that name: write ./%.80s", name, name);
    else
        say("no profile '%.80s'%s; `hardsock-tune list` shows them, and a path needs a slash", name,
            near.best == NULL ? "" : mem_format(" (did you mean %s?)", near.best));
}

/* What was found for a name or a path. */
struct found {
    const char *source, *signer;
    const unsigned char *text;
    size_t len;
};

/* Where signers are named, everything but what is built in must be signed by one of them. */
static enum exit_code
check_signature(const struct options *o, struct found *ret)
{
    const char *root = o->trust != NULL ? "" : root_of(o), *why;
    const char *list = o->trust != NULL ? o->trust : SIGNERS_FILE;
    struct blob signers = {0}, signature = {0}, text = {ret->text, ret->len};

    if (o->unsigned_too || strncmp(ret->source, "built-in:", 9) == 0)
        return EXIT_AS_WANTED;
    signers.data = yaml_file(root, list, true, &signers.len);
    if (signers.data == NULL && errno == ENOENT && o->trust == NULL)
        return EXIT_AS_WANTED;
    if (signers.data == NULL)
        return fail_with(EXIT_PERMISSION, "cannot read the allowed signers in %s: %s", list,
                         errno == EPERM ? "it belongs to somebody else, or everybody may write it"
                                        : strerror(errno));
    signature.data = yaml_file("", mem_format("%s.sig", ret->source), false, &signature.len);
    if (signature.data == NULL)
        return fail_with(EXIT_PERMISSION, "%s: no signature (%s.sig): %s; %s names who may sign",
                         ret->source, ret->source, strerror(errno), list);
    ret->signer = signature_verify(&signers, &signature, &text, &why);
    if (ret->signer == NULL)
        return fail_with(EXIT_PERMISSION, "%s: %s (%s)", ret->source, why, list);
    return EXIT_AS_WANTED;
}

static enum exit_code
find(const struct options *o, const char *name, struct found *ret)
{
    const char **ret_source = &ret->source;
    const unsigned char **ret_text = &ret->text;
    size_t *ret_len = &ret->len;
    int sys;

    if (strchr(name, '/') != NULL) {
        *ret_source = name;
        *ret_text = yaml_file("", name, false, ret_len);
    } else {
        *ret_text = find_named(o, name, ret_source, ret_len);
    }
    if (*ret_text != NULL)
        return check_signature(o, ret);
    sys = errno;
    if (sys == ENOENT && strchr(name, '/') == NULL)
        say_no_profile(o, name);
    else if (sys == EPERM && *ret_source != name)
        say("%.200s belongs to somebody else, or everybody may write it: not used for '%.80s', but "
            "its path may be given",
            *ret_source, name);
    else
        say("cannot read profile %.200s: %s", name, strerror(sys));
    return sys == EACCES || sys == EPERM ? EXIT_PERMISSION : EXIT_PROFILE;
}

static void
inherit(struct profile *p, const struct profile *parent)
{
    for (size_t i = 0; i < parent->n; i++) {
        bool overridden = false;

        for (size_t j = 0; j < p->n && !overridden; j++)
            overridden = strcmp(p->settings[j].path, parent->settings[i].path) == 0;
        if (overridden)
            continue;
        p->settings = mem_grow(p->settings, p->n, &p->capacity, sizeof(*p->settings));
        p->settings[p->n++] = parent->settings[i];
    }
    for (size_t i = 0; i < parent->vars.n; i++)
        vars_add(&p->vars, parent->vars.items[i].name, parent->vars.items[i].value);
    if (parent->kernel != NULL &&
        (p->kernel == NULL || kernel_compare(parent->kernel, p->kernel) > 0))
        p->kernel = parent->kernel;
    if (p->module == NULL)
        p->module = parent->module;
    p->hash ^= parent->hash;
}

static enum exit_code load(struct family *f, const char *file, const unsigned char *text,
                           size_t len, int depth, struct profile *p);

static enum exit_code
load_parent(struct family *f, const char *file, const struct node *n, int depth, struct profile *p)
{
    struct profile parent = {0};
    struct found found = {0};
    const char *fault = NULL;
    enum exit_code rv;

    if (n->kind != NODE_SCALAR || strchr(n->text, '/') != NULL)
        fault = "extends names other profiles, not files";
    else if (depth == MAX_EXTENDS)
        fault = "extends goes round in a circle, or too deep";
    else if (f->parents++ == MAX_PARENTS)
        fault = "extends more than 8 profiles in all";
    if (fault != NULL) {
        say_at(file, n->line, n->column, "%s", fault);
        return EXIT_PROFILE;
    }
    if ((rv = find(f->o, n->text, &found)) != EXIT_AS_WANTED ||
        (rv = load(f, found.source, found.text, found.len, depth + 1, &parent)) != EXIT_AS_WANTED)
        return rv;
    inherit(p, &parent);
    if (p->n <= MAX_SETTINGS)
        return EXIT_AS_WANTED;
    say_at(file, n->line, n->column, "more than %d settings in all", MAX_SETTINGS);
    return EXIT_PROFILE;
}

/* Many profiles extend the same few, which are built in: each is parsed once a round. */
static const struct node *
tree_of(const char *file, const unsigned char *text, size_t len)
{
    static struct {
        const unsigned char *text;
        const struct node *root;
    } known[32];
    static size_t n;
    static unsigned round;
    const struct node *root;

    if (strncmp(file, "built-in:", 9) != 0)
        return yaml_read(file, text, len);
    if (round != mem_round())
        n = 0;
    round = mem_round();
    for (size_t i = 0; i < n; i++)
        if (known[i].text == text)
            return known[i].root;
    root = yaml_read(file, text, len);
    if (n < sizeof(known) / sizeof(known[0])) {
        known[n].text = text;
        known[n++].root = root;
    }
    return root;
}

static enum exit_code
load(struct family *f, const char *file, const unsigned char *text, size_t len, int depth,
     struct profile *p)
{
    const struct node *root = tree_of(file, text, len), *extends;
    enum exit_code rv = EXIT_AS_WANTED;

    p->source = file;
    p->hash = hash_of(UINT64_C(0xcbf29ce484222325), text, len);
    if (root == NULL || !profile_read(file, root, p, &extends))
        return EXIT_PROFILE;
    if (extends == NULL)
        return EXIT_AS_WANTED;
    if (extends->kind != NODE_LIST)
        return load_parent(f, file, extends, depth, p);
    for (const struct node *n = extends->first; n != NULL && rv == EXIT_AS_WANTED; n = n->next)
        rv = load_parent(f, file, n, depth, p);
    return rv;
}

enum exit_code
profile_from_text(const struct options *o, const char *file, const unsigned char *text, size_t len,
                  struct profile *ret)
{
    struct family f = {.o = o};
    struct profile p = {0};
    enum exit_code rv;
    bool ok = true;

    for (size_t i = 0; i < o->n_sets; i++)
        vars_add(&p.vars, o->sets[i].name, o->sets[i].value);
    if ((rv = load(&f, file, text, len, 0, &p)) != EXIT_AS_WANTED)
        return rv;
    for (size_t i = 0; i < p.n; i++)
        ok &= setting_finish(&p.settings[i], &p.vars);
    *ret = p;
    return ok ? EXIT_AS_WANTED : EXIT_PROFILE;
}

enum exit_code
profile_load(const struct options *o, const char *name, struct profile *ret)
{
    struct found found = {0};
    enum exit_code rv = find(o, name, &found);

    if (rv != EXIT_AS_WANTED)
        return rv;
    rv = profile_from_text(o, found.source, found.text, found.len, ret);
    ret->signer = found.signer;
    return rv;
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(((const struct profile_name *)a)->name, ((const struct profile_name *)b)->name);
}

static bool
has_name(const struct profile_name *names, size_t n, const char *name, size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(names[i].name) == len && memcmp(names[i].name, name, len) == 0)
            return true;
    return false;
}

struct profile_name *
profile_names(const struct options *o, size_t *ret_n)
{
    const char *dirs[] = {user_dir(), SYSTEM_DIR}, *roots[] = {"", root_of(o)};
    struct profile_name *names = NULL;
    size_t n = 0, capacity = 0;

    for (size_t i = 0; i < 2; i++) {
        DIR *d = dirs[i] == NULL ? NULL : root_opendir(roots[i], dirs[i]);

        /* cppcheck-suppress readdirCalled; there is one thread */
        for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
            size_t len = strlen(e->d_name);

            if (len < 6 || strcmp(e->d_name + len - 5, ".yaml") != 0 ||
                has_name(names, n, e->d_name, len - 5))
                continue;
            names = mem_grow(names, n, &capacity, sizeof(*names));
            names[n++] = (struct profile_name){mem_copy(e->d_name, len - 5),
                                               mem_format("%s%s", roots[i], dirs[i])};
        }
        if (d != NULL)
            (void)closedir(d);
    }
    for (size_t i = 0; builtin_at(i) != NULL; i++) {
        const char *name = builtin_at(i)->name;

        if (has_name(names, n, name, strlen(name)))
            continue;
        names = mem_grow(names, n, &capacity, sizeof(*names));
        names[n++] = (struct profile_name){name, "built-in"};
    }
    if (n > 0)
        qsort(names, n, sizeof(*names), by_name);
    *ret_n = n;
    return names;
}
