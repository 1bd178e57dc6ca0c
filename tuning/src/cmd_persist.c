/* cmd_persist.c: `persist` and `unpersist`: a sysctl.d file for the next boot.
 *
 * The file is written beside its place and renamed; one that this tool did not write is left alone,
 * and so is a link. Running settings do not change. Modules that settings need are named in
 * modules-load.d, which is read first: without its module a setting is lost at boot.
 */
#include "key.h"
#include "mem.h"
#include "out.h"
#include "root.h"
#include "usual.h"
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

/* What the kernel starts with is there without a line; and the line would hold it back where a
 * later kernel, or a machine with more memory, starts with more. */
static bool
comes_by_itself(const struct sys *s, const struct item *it)
{
    struct value usual;
    bool computed;

    if (it->by_default)
        return true;
    return it->status == STATUS_OK && it->setting->want == WANT_AT_LEAST &&
           usual_value(s, it->kb, it->setting->path, &usual, &computed) && computed &&
           value_equal(&usual, &it->current);
}

/* Whether the key goes into the file; says why not where that is news. */
static bool
goes_in(const struct options *o, const struct sys *s, const struct item *it)
{
    const char *key = key_show(it->setting->path);

    if (it->target_text != NULL && comes_by_itself(s, it))
        return false;
    /* The loaders would take such an interface's name for a pattern. */
    if (it->target_text != NULL && strpbrk(key, "*?[]") != NULL) {
        say("%s: left out: sysctl.d takes it for a pattern", key);
        return false;
    }
    if (it->target_text == NULL && it->reason != NULL && !o->quiet && it->status != STATUS_OK &&
        it->status != STATUS_REMARK)
        say("%s: left out: %s", key, it->reason);
    return it->target_text != NULL && *it->target_text != '\0';
}

struct file {
    const char *dir, *name;
    struct text text, modules; /* modules is empty where none is needed */
    const char *modules_dir;
    const struct item **items;
    size_t n;
};

/* Adds the key's module, once. */
static void
add_module(struct text *t, const struct item *it)
{
    const char *module = it->kb == NULL ? NULL : kb_text(it->kb, KB_MODULE);

    if (module == NULL)
        return;
    if (t->len == 0)
        text_puts(t, HEADER "; settings of the same name in sysctl.d need these.\n");
    if (strstr(text_str(t), mem_format("\n%s\n", module)) == NULL)
        text_format(t, "%s\n", module);
}

/* What is doubted of a value goes into the file with it, and to who writes it; a port range is not
 * where one of the profiles reserves what listens. */
static void
put_doubt(struct text *t, const struct report *r, const struct item *it, const char *key)
{
    const char *text, *word, *line;
    enum level level = kb_judge_at(it->setting->path, &it->target, &text);

    for (size_t i = 0; i < r->n; i++)
        if (needs_reservation(&r->profiles[i], it->setting->path))
            return;
    if (level >= LEVEL_NONE)
        return;
    word = level == LEVEL_DOUBTFUL && setting_names_risk(it->setting) ? "note" : "warning";
    line = mem_format("%s: %s = %s: %s [%s]", word, key, it->target_text, text, level_name(level));
    text_format(t, "# %s\n", line);
    say("%s", line);
}

/* The pattern itself, once: it holds for interfaces that appear later, too. */
static void
put_line(struct text *t, const struct report *r, const struct item *it)
{
    bool whole = it->pattern != NULL && it->setting->want == WANT_EXACT;
    const char *key = key_show(whole ? it->pattern : it->setting->path);
    const char *minus = it->setting->optional ? "-" : "";

    if (whole && strstr(text_str(t), mem_format("\n%s%s = ", minus, key)) != NULL)
        return;
    put_doubt(t, r, it, key);
    text_format(t, "%s%s = %s\n", minus, key, it->target_text);
}

/* A key that has no line of its own must not be set by the line of a pattern. */
static void
put_exclusion(struct text *t, const struct plan *plan, const char *path)
{
    for (size_t i = 0; i < plan->n; i++)
        if (plan->items[i].pattern != NULL && plan->items[i].target_text != NULL &&
            plan->items[i].setting->want == WANT_EXACT &&
            key_matches(plan->items[i].pattern, path)) {
            text_format(t, "-%s\n", key_show(path));
            return;
        }
}

/* How many settings were left out. */
static size_t
compose(const struct options *o, const struct report *r, const struct plan *plan, struct file *f)
{
    size_t left_out = 0;

    f->items = mem_alloc((plan->n + 1) * sizeof(struct item *));
    text_puts(&f->text, HEADER "; `hardsock-tune unpersist` removes it.\n");
    for (size_t i = 0; i < r->n; i++)
        text_format(&f->text, "# Profile %s, %016llx\n", r->profiles[i].name,
                    (unsigned long long)r->profiles[i].hash);
    for (size_t i = 0; i < plan->n; i++) {
        const struct item *it = &plan->items[i];

        if (goes_in(o, &r->sys, it)) {
            f->items[f->n++] = it;
            add_module(&f->modules, it);
            put_line(&f->text, r, it);
        } else {
            left_out += it->status == STATUS_MISSING;
            if (it->pattern == NULL)
                put_exclusion(&f->text, plan, it->setting->path);
        }
    }
    return left_out;
}

static void
show_json(const struct options *o, const struct file *f, const struct winners *w, enum exit_code rv)
{
    json_head("persist");
    json_bool("dry_run", o->dry_run);
    json_text("action", o->dry_run ? "would write" : "wrote");
    json_text("file", mem_format("%s/%s", f->dir, f->name));
    json_text("modules_file",
              f->modules.len == 0 ? NULL : mem_format("%s/%s", f->modules_dir, f->name));
    json_open("settings", '[');
    for (size_t i = 0; i < f->n; i++) {
        json_open(NULL, '{');
        json_text("key", key_show(f->items[i]->setting->path));
        json_text("value", f->items[i]->target_text);
        json_close();
    }
    json_close();
    json_open("conflicts", '[');
    for (size_t i = 0; i < w->n; i++)
        winner_show(o, &w->items[i], NULL);
    json_close();
    json_tail(rv);
}

static void
show(const struct options *o, const struct file *f, const struct winners *w, enum exit_code rv)
{
    if (o->format == FORMAT_JSON) {
        show_json(o, f, w, rv);
        return;
    }
    if (o->format == FORMAT_TSV) {
        tsv_line(o->dry_run ? "would write" : "wrote", mem_format("%s/%s", f->dir, f->name), NULL);
        if (f->modules.len > 0)
            tsv_line(o->dry_run ? "would write" : "wrote",
                     mem_format("%s/%s", f->modules_dir, f->name), NULL);
        for (size_t i = 0; i < f->n; i++)
            tsv_line("set", key_show(f->items[i]->setting->path), f->items[i]->target_text, NULL);
    } else if (o->dry_run) {
        (void)fputs(text_str(&f->text), stdout);
        if (f->modules.len > 0)
            (void)printf("\n# %s/%s\n%s", printable(f->modules_dir), printable(f->name),
                         text_str(&f->modules));
    } else {
        (void)printf("wrote %s/%s\n", printable(f->dir), printable(f->name));
        if (f->modules.len > 0)
            (void)printf("wrote %s/%s: modules to load first\n", printable(f->modules_dir),
                         printable(f->name));
    }
    for (size_t i = 0; i < w->n; i++)
        winner_show(o, &w->items[i], "conflict");
}

/* No loader reads a name that does not end in .conf. One that was killed leaves it behind, for the
 * next one to write over or `unpersist` to remove. */
static const char *
draft_of(const char *name)
{
    return mem_format(".%s.new", name);
}

static enum exit_code
write_file(int dir, const char *name, const struct text *t)
{
    const char *draft = draft_of(name);
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
store_file(const char *root, const char *leaf, const char *path, const char *name,
           const struct text *t)
{
    enum exit_code rv;
    bool there;
    int dir;

    if ((dir = root_make_dir(root, "/etc", leaf, 0755)) < 0)
        return failed(path);
    if (is_ours(dir, name, &there))
        rv = write_file(dir, name, t);
    else
        rv = fail_with(EXIT_CONFLICT, "%s/%s is not ours", path, name);
    (void)close(dir);
    return rv;
}

static enum exit_code remove_file(const struct options *o, const char *leaf, const char *name,
                                  const char **ret_action);

/* Modules come before the settings that need them, and go after those: settings without them would
 * be half of it, whenever this is killed. */
static enum exit_code
store_both(const struct options *o, const struct report *r, const struct file *f)
{
    const char *ignored;
    enum exit_code rv = EXIT_AS_WANTED;

    if (f->modules.len > 0)
        rv = store_file(r->sys.root, "modules-load.d", f->modules_dir, f->name, &f->modules);
    if (rv == EXIT_AS_WANTED)
        rv = store_file(r->sys.root, "sysctl.d", f->dir, f->name, &f->text);
    if (rv != EXIT_AS_WANTED || f->modules.len > 0)
        return rv;
    rv = remove_file(o, "modules-load.d", f->name, &ignored);
    /* Somebody's own file of that name is in nobody's way where nothing is to be written. */
    return rv == EXIT_CONFLICT ? EXIT_AS_WANTED : rv;
}

static enum exit_code
persist(const struct options *o, const struct report *r, struct file *f)
{
    struct winners winners = {0};
    struct plan plan;
    enum exit_code rv = EXIT_AS_WANTED;

    if (!plan_merge(&r->sys, &r->diag, r->plans, r->n, &plan) || !plan_rules(&r->sys, &plan))
        return EXIT_CONFLICT;
    report_withhold(r, &plan);
    if (compose(o, r, &plan, f) > 0 && r->sys.image)
        rv = EXIT_DRIFT;
    if (!o->dry_run) {
        const enum exit_code left_out = rv;

        if ((rv = store_both(o, r, f)) != EXIT_AS_WANTED)
            return rv;
        winners_find(&r->sys, &plan, 1, &winners);
        if (winners.n > 0)
            rv = fail_with(EXIT_CONFLICT, "other files or programs win at the next boot");
        else
            rv = left_out;
    }
    show(o, f, &winners, rv);
    return rv;
}

enum exit_code
cmd_persist(const struct options *o)
{
    struct file f = {.modules_dir =
                         mem_format("%s/etc/modules-load.d", o->root == NULL ? "" : o->root)};
    struct report r;
    enum exit_code rv = place(o, &f.dir, &f.name);

    if (rv != EXIT_AS_WANTED)
        return rv;
    if (o->n_args + o->n_profiles == 0)
        return fail_with(EXIT_USAGE, "persist wants a profile");
    if ((rv = report_make(o, false, &r)) != EXIT_AS_WANTED)
        return rv;
    rv = persist(o, &r, &f);
    report_close(&r);
    return rv;
}

static enum exit_code
remove_file(const struct options *o, const char *leaf, const char *name, const char **ret_action)
{
    const char *root = o->root == NULL ? "" : o->root, *path = mem_format("%s/etc/%s", root, leaf);
    enum exit_code rv = EXIT_AS_WANTED;
    bool there;
    int dir = root_open(root, mem_format("/etc/%s", leaf), O_RDONLY | O_DIRECTORY);

    *ret_action = "nothing to remove";
    if (dir < 0)
        return errno == ENOENT ? EXIT_AS_WANTED : failed(path);
    if (!o->dry_run)
        (void)unlinkat(dir, draft_of(name), 0);
    if (!is_ours(dir, name, &there))
        rv = fail_with(EXIT_CONFLICT, "%s/%s is not ours", path, name);
    else if (there && o->dry_run)
        *ret_action = "would remove";
    else if (there && (unlinkat(dir, name, 0) != 0 || fsync(dir) != 0))
        rv = failed(name);
    else if (there)
        *ret_action = "removed";
    (void)close(dir);
    return rv;
}

enum exit_code
cmd_unpersist(const struct options *o)
{
    const char *path, *name, *action, *file, *ignored;
    enum exit_code rv = place(o, &path, &name);

    if (rv != EXIT_AS_WANTED || (rv = remove_file(o, "sysctl.d", name, &action)) != EXIT_AS_WANTED)
        return rv;
    /* A file there that is not ours was not made by `persist`. */
    rv = remove_file(o, "modules-load.d", name, &ignored);
    if (rv != EXIT_AS_WANTED && rv != EXIT_CONFLICT)
        return rv;
    rv = EXIT_AS_WANTED;
    file = mem_format("%s/%s", path, name);
    if (o->format == FORMAT_JSON) {
        json_head("unpersist");
        json_bool("dry_run", o->dry_run);
        json_text("action", action);
        json_text("file", file);
        json_tail(rv);
    } else if (o->format == FORMAT_TSV) {
        tsv_line(action, file, NULL);
    } else {
        (void)printf("%s%s%s\n", action, *action == 'n' ? "" : " ",
                     *action == 'n' ? "" : printable(file));
    }
    return rv;
}
