/* waive.c: see waive.h.
 *
 * Days are compared as text, which their form allows. A waiver without a reason or an end is an
 * error: the file exists so that nothing is accepted silently or for ever.
 */
#include "waive.h"

#include "key.h"
#include "mem.h"
#include "report.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_WAIVERS 256

static bool
bad(const char *file, const struct node *n, const char *what)
{
    say_at(file, n->line, n->column, "%s", what);
    return false;
}

static bool
take_text(const char *file, const struct node *n, const char **ret)
{
    if (n->kind != NODE_SCALAR || n->text[0] == '\0')
        return bad(file, n, "expected a text here");
    *ret = n->text;
    return true;
}

static int
digits(const char *s, size_t n)
{
    int value = 0;

    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -1;
        value = value * 10 + (s[i] - '0');
    }
    return value;
}

static bool
is_day(const char *s)
{
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year, month, day, leap;

    if (strlen(s) != 10 || s[4] != '-' || s[7] != '-')
        return false;
    year = digits(s, 4);
    month = digits(s + 5, 2);
    day = digits(s + 8, 2);
    if (year < 1970 || month < 1 || month > 12)
        return false;
    leap = month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return day >= 1 && day <= lengths[month - 1] + leap;
}

static bool
take_hosts(const char *file, const struct node *list, struct waiver *w)
{
    if (list->kind != NODE_LIST || list->first == NULL)
        return bad(file, list, "expected a list of patterns for names of hosts");
    for (const struct node *n = list->first; n != NULL; n = n->next) {
        if (w->n_hosts == sizeof(w->hosts) / sizeof(w->hosts[0]))
            return bad(file, n, "more than 16 patterns");
        if (!take_text(file, n, &w->hosts[w->n_hosts]))
            return false;
        w->n_hosts++;
    }
    return true;
}

static bool
take_field(const char *file, const struct node *n, struct waiver *w)
{
    if (strcmp(n->key, "reason") == 0)
        return take_text(file, n, &w->reason);
    if (strcmp(n->key, "hosts") == 0)
        return take_hosts(file, n, w);
    if (strcmp(n->key, "until") == 0)
        return take_text(file, n, &w->until) &&
               (is_day(w->until) || bad(file, n, "expected a day such as 2027-01-31"));
    say_at(file, n->key_line, n->key_column,
           "unknown field '%.60s' in a waiver; known: reason, until, hosts", n->key);
    return false;
}

static bool
take_waiver(const char *file, const struct node *n, struct waivers *all)
{
    struct waiver w = {.name = n->key, .is_key = strpbrk(n->key, "./") != NULL};
    char path[KEY_MAX];
    const char *why;

    if (all->n == MAX_WAIVERS)
        return bad(file, n, "more than 256 waivers");
    if (w.is_key && !key_parse(n->key, strlen(n->key), path, &why)) {
        say_at(file, n->key_line, n->key_column, "'%.80s' %s", n->key, why);
        return false;
    }
    if (w.is_key)
        w.name = mem_dup(path);
    if (n->kind != NODE_MAP)
        return bad(file, n, "expected reason: and until: here");
    for (const struct node *f = n->first; f != NULL; f = f->next)
        if (!take_field(file, f, &w))
            return false;
    if (w.reason == NULL || w.until == NULL)
        return bad(file, n, "a waiver needs a reason: and a day until: which it holds");
    all->items = mem_grow(all->items, all->n, &all->capacity, sizeof(w));
    all->items[all->n++] = w;
    return true;
}

bool
waivers_read(const char *file, const struct node *root, struct waivers *ret)
{
    const struct node *map = root->kind == NODE_MAP ? root->first : NULL;

    if (map == NULL || map->next != NULL || strcmp(map->key, "waivers") != 0 ||
        map->kind != NODE_MAP)
        return bad(file, root, "a file of waivers is a mapping with waivers: alone");
    for (const struct node *n = map->first; n != NULL; n = n->next)
        if (!take_waiver(file, n, ret))
            return false;
    return true;
}

static bool
is_for(const struct waiver *w, const char *host)
{
    for (size_t i = 0; i < w->n_hosts; i++)
        if (fnmatch(w->hosts[i], host, 0) == 0)
            return true;
    return w->n_hosts == 0;
}

static const char *
host_name(const struct sys *s)
{
    const char *name;
    int sys;

    return sys_read(s, "kernel/hostname", &name, &sys) == ACCESS_OK ? name : "";
}

static const char *
today(void)
{
    char text[32] = "";
    time_t now = time(NULL);
    struct tm tm;

    if (gmtime_r(&now, &tm) == NULL || strftime(text, sizeof(text), "%Y-%m-%d", &tm) == 0)
        return "9999-12-31"; /* Without a date nothing is waived. */
    return mem_dup(text);
}

/* The one that holds, or else one that has ended, or NULL. */
static const struct waiver *
find(const struct waivers *all, const char *name, bool is_key)
{
    const struct waiver *ended = NULL;

    for (size_t i = 0; i < all->n; i++) {
        const struct waiver *w = &all->items[i];

        if (w->is_key != is_key ||
            (is_key ? !key_matches(w->name, name) : strcmp(w->name, name) != 0))
            continue;
        if (!w->ended)
            return w;
        ended = w;
    }
    return ended;
}

static void
tell_ended(struct findings *f, const struct waiver *w, const char *name)
{
    finding_add(f, "waiver-ended", SEVERITY_WARNING,
                mem_format("the waiver of %s held until %s: %s", name, w->until, w->reason),
                "mend what it was for, or give it a new end");
    f->items[f->n - 1].subject = name;
}

static void
waive_item(const struct waivers *all, struct plan *plan, struct item *it, struct findings *f)
{
    const struct waiver *w;

    if (it->status != STATUS_DRIFT && it->status != STATUS_MISSING && it->status != STATUS_DENIED)
        return;
    if ((w = find(all, it->setting->path, true)) == NULL)
        return;
    if (w->ended) {
        tell_ended(f, w, key_show(it->setting->path));
        return;
    }
    plan->counts[it->status]--;
    plan->counts[STATUS_WAIVED]++;
    it->status = STATUS_WAIVED;
    it->reason = mem_format("waived until %s: %s", w->until, w->reason);
}

static void
waive_all(const struct waivers *all, struct report *r)
{
    size_t n = r->findings.n;

    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->plans[i].n; k++)
            waive_item(all, &r->plans[i], &r->plans[i].items[k], &r->findings);
    for (size_t i = 0; i < n; i++) {
        const struct waiver *w = find(all, r->findings.items[i].id, false);

        if (w != NULL && w->ended)
            tell_ended(&r->findings, w, r->findings.items[i].id);
        else if (w != NULL)
            r->findings.items[i].waived = mem_format("until %s: %s", w->until, w->reason);
    }
}

enum exit_code
waive(const struct options *o, struct report *r)
{
    const char *path = o->waivers != NULL ? o->waivers : WAIVERS_FILE;
    const char *root = o->waivers != NULL || o->root == NULL ? "" : o->root;
    const char *host = host_name(&r->sys), *day = today();
    struct waivers all = {0}, ours = {0};
    const struct node *tree;
    size_t len;
    unsigned char *text = yaml_file(root, path, o->waivers == NULL, &len);

    if (text == NULL && errno == ENOENT && o->waivers == NULL)
        return EXIT_AS_WANTED;
    if (text == NULL && errno == EPERM)
        return fail_with(EXIT_PERMISSION,
                         "%s belongs to somebody else, or everybody may write it: not used", path);
    if (text == NULL)
        return fail_with(errno == EACCES ? EXIT_PERMISSION : EXIT_PROFILE, "waivers: %s: %s", path,
                         strerror(errno));
    if ((tree = yaml_read(path, text, len)) == NULL || !waivers_read(path, tree, &all))
        return EXIT_PROFILE;
    for (size_t i = 0; i < all.n; i++) {
        if (!is_for(&all.items[i], host))
            continue;
        all.items[i].ended = strcmp(all.items[i].until, day) < 0;
        ours.items = mem_grow(ours.items, ours.n, &ours.capacity, sizeof(*ours.items));
        ours.items[ours.n++] = all.items[i];
    }
    waive_all(&ours, r);
    return EXIT_AS_WANTED;
}
