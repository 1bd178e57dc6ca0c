/* kb.c: looking things up in the knowledge base.
 *
 * The tables are sorted by path. Only one component of a path can be a name that machines give: the
 * fourth (net/ipv4/conf/eth0/rp_filter) or, with AX.25, the third, so that another search with "*"
 * in its place is enough.
 */
#include "kb.h"

#include "key.h"
#include "mem.h"

#include <string.h>

const char *
kb_path(const struct kb_key *k)
{
    return kb_pool + k->path;
}

const char *
kb_text(const struct kb_key *k, enum kb_text which)
{
    return k->text[which] == 0 ? NULL : kb_pool + k->text[which];
}

const char *
kb_string(uint32_t offset)
{
    return kb_pool + offset;
}

const struct kb_key *
kb_at(size_t i)
{
    return i < kb_n_keys ? &kb_keys[i] : NULL;
}

const struct kb_symptom *
kb_symptom_at(size_t i)
{
    return i < kb_n_symptoms ? &kb_symptoms[i] : NULL;
}

static const struct kb_key *
search(const char *path)
{
    size_t low = 0, high = kb_n_keys;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(path, kb_path(&kb_keys[middle]));

        if (order == 0)
            return &kb_keys[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* With "*" for the component that comes after so many others. */
static const struct kb_key *
search_pattern(const char *path, int before)
{
    const char *name = path, *rest;
    char pattern[KEY_MAX + 2];

    for (int i = 0; i < before; i++) {
        if ((name = strchr(name, '/')) == NULL)
            return NULL;
        name++;
    }
    rest = name + strcspn(name, "/");
    if ((size_t)(name - path) + 1 + strlen(rest) >= sizeof(pattern))
        return NULL;
    memcpy(pattern, path, (size_t)(name - path));
    pattern[name - path] = '*';
    memcpy(pattern + (name - path) + 1, rest, strlen(rest) + 1);
    return search(pattern);
}

const struct kb_key *
kb_find(const char *path)
{
    const struct kb_key *k = search(path);

    if (k == NULL)
        k = search_pattern(path, 3);
    return k != NULL || strncmp(path, "net/ax25/", 9) != 0 ? k : search_pattern(path, 2);
}

const char *
kb_alias(const char *path)
{
    const struct kb_key *k = kb_find(path);
    const char *name = k == NULL ? NULL : kb_text(k, KB_ALIAS), *why;
    char other[KEY_MAX];

    /* One of two keys of all interfaces: its entry is that of every interface. */
    if (strcmp(path, "net/ipv4/conf/all/forwarding") == 0)
        return "net/ipv4/ip_forward";
    if (name == NULL || !key_parse(name, strlen(name), other, &why))
        return NULL;
    return mem_dup(other);
}

const char *
kb_clash(const char *path, const struct value *v, const char *other, const struct value *its)
{
    const char *alias = kb_alias(path);

    if (alias == NULL || strcmp(alias, other) != 0 || value_equal(v, its))
        return NULL;
    return mem_format("%s and %s are one variable of the kernel: it cannot be %s and %s",
                      key_show(path), key_show(other), value_show(v), value_show(its));
}

static bool
is_all(const char *path)
{
    return strncmp(path, "net/ipv4/conf/all/", 18) == 0 ||
           strncmp(path, "net/ipv6/conf/all/", 18) == 0;
}

const char *
kb_default_of(const struct kb_key *k, const char *path, const char *kernel)
{
    const char *found = kb_text(k, KB_DEFAULT);

    if (is_all(path) && k->text[KB_DEFAULT_ALL] != 0)
        return kb_text(k, KB_DEFAULT_ALL);
    /* From the newest to the oldest. */
    for (size_t i = 0; i < k->n_older && *kernel != '\0'; i++) {
        const struct kb_before *b = &kb_older[k->older + i];

        if (kernel_compare(kernel, kb_pool + b->kernel) < 0)
            found = kb_pool + b->value;
    }
    return found;
}

bool
kb_default_value(const struct kb_key *k, const char *path, const char *kernel,
                 struct value *ret_value)
{
    const char *text = k == NULL ? NULL : kb_default_of(k, path, kernel), *remark, *why;

    if (text == NULL)
        return false;
    remark = strstr(text, " (");
    if (remark != NULL)
        text = mem_copy(text, (size_t)(remark - text));
    return value_parse(text, k->type, k->fields, false, ret_value, &why);
}

const char *
kb_default(const struct kb_key *k, const char *path)
{
    const char *first = kb_default_of(k, path, "");
    struct text t = {0};

    if (first == NULL || (is_all(path) && k->text[KB_DEFAULT_ALL] != 0))
        return first;
    text_puts(&t, first);
    for (size_t i = 0; i < k->n_older; i++) {
        const struct kb_before *b = &kb_older[k->older + i];

        text_format(&t, "%s%s before Linux %s", i == 0 ? " (" : ", ", kb_pool + b->value,
                    kb_pool + b->kernel);
    }
    if (k->n_older > 0)
        text_puts(&t, ")");
    if (k->text[KB_DEFAULT_ALL] != 0)
        text_format(&t, "; conf.all %s", kb_text(k, KB_DEFAULT_ALL));
    return text_str(&t);
}

const char *
kb_scope_name(enum scope scope)
{
    switch (scope) {
    case SCOPE_NAMESPACE:
        return "namespace";
    case SCOPE_GLOBAL:
        return "global";
    case SCOPE_READONLY:
        return "global, other network namespaces may read it";
    case SCOPE_IPC:
        return "IPC namespace";
    case SCOPE_NONE:
        break;
    }
    return "none";
}

/* Of KB_SCOPE_UNTIL, which kbgen has looked at. */
static enum scope
scope_until(const char *text)
{
    static const struct {
        const char *name;
        enum scope scope;
    } words[] = {
        {"global", SCOPE_GLOBAL}, {"readonly", SCOPE_READONLY}, {"namespace", SCOPE_NAMESPACE}};
    const char *word = strchr(text, ' ') + 1;
    size_t i = 0;

    while (i < 2 && strcmp(words[i].name, word) != 0)
        i++;
    return words[i].scope;
}

enum scope
kb_scope_of(const struct kb_key *k, const char *kernel)
{
    const char *until = kb_text(k, KB_SCOPE_UNTIL), *dot = strchr(kernel, '.');
    const char *series;

    if (until == NULL || dot == NULL)
        return (enum scope)k->scope;
    /* 6.1.50 is of the series 6.1. */
    series = mem_copy(kernel, (size_t)(dot - kernel) + 1 + strspn(dot + 1, "0123456789"));
    return kernel_compare(series, until) <= 0 ? scope_until(until) : (enum scope)k->scope;
}

const char *
kb_scope_text(const struct kb_key *k)
{
    const char *until = kb_text(k, KB_SCOPE_UNTIL), *now = kb_scope_name((enum scope)k->scope);

    if (until == NULL)
        return now;
    return mem_format("%s (%s in Linux %.*s and before)", now, kb_scope_name(scope_until(until)),
                      (int)strcspn(until, " "), until);
}

const char *
kb_type_text(const struct kb_key *k)
{
    static const char *const names[] = {
        [TYPE_INTS] = "numbers", [TYPE_PORTS] = "ports", [TYPE_WORD] = "word",
        [TYPE_WORDS] = "words",  [TYPE_TEXT] = "text",
    };

    if (k->type != TYPE_INTS || k->fields == 0)
        return names[k->type];
    return k->fields == 1 ? "number" : mem_format("%u numbers", k->fields);
}

const char *
kb_effect_text(const struct kb_key *k)
{
    if (k->scope == SCOPE_NONE)
        return "none";
    if (k->text[KB_WHEN] != 0)
        return kb_text(k, KB_WHEN);
    switch ((enum effect)k->effect) {
    case EFFECT_LIVE:
        return strncmp(kb_path(k), "net/", 4) == 0 ? "at once, running sockets too" : "at once";
    case EFFECT_NEW:
        return "new sockets only";
    case EFFECT_LISTEN:
        return "at listen()";
    case EFFECT_CALL:
        return "at the call";
    case EFFECT_PARTLY:
        break;
    }
    return "partly at once";
}

const char *
kb_combine_text(enum combine combine)
{
    switch (combine) {
    case COMBINE_NONE:
        break;
    case COMBINE_OWN:
        return "conf.INTERFACE alone rules; conf.all changes nothing, conf.default is copied to "
               "interfaces that are made later";
    case COMBINE_MAX:
        return "the larger of conf.all and conf.INTERFACE rules";
    case COMBINE_MIN:
        return "the smaller of conf.all and conf.INTERFACE rules";
    case COMBINE_OR:
        return "on where conf.all or conf.INTERFACE is on";
    case COMBINE_AND:
        return "on only where conf.all and conf.INTERFACE are both on";
    case COMBINE_FIRST:
        return "conf.all rules unless it is 0; else conf.INTERFACE does";
    case COMBINE_REDIRECTS:
        return "an interface that forwards: on only where conf.all and conf.INTERFACE are both "
               "on; one that does not: on where either is";
    case COMBINE_COPY:
        return "conf.INTERFACE alone rules, but a write to conf.all writes conf.default and every "
               "interface";
    case COMBINE_ALL:
        return "conf.all alone rules";
    }
    return NULL;
}

const char *
kb_since_text(const struct kb_key *k)
{
    if (k->text[KB_SINCE] != 0)
        return mem_format("added in Linux %s", kb_text(k, KB_SINCE));
    if (k->text[KB_ABSENT] != 0 && k->text[KB_PRESENT] != 0)
        return mem_format("not in Linux %s, there in %s", kb_text(k, KB_ABSENT),
                          kb_text(k, KB_PRESENT));
    return NULL;
}

static bool
number_holds(const struct kb_case *c, int64_t n)
{
    switch (c->op) {
    case '!':
        return n != c->low;
    case '&':
        return (n & c->low) != 0;
    default:
        return n >= c->low && n <= c->high;
    }
}

/* The numbers of a value, as far as it has any. Limits that are larger than any number here
 * (shmmax) are texts, and the largest number stands for them. */
static size_t
numbers_of(const struct value *v, int64_t ret[MAX_FIELDS])
{
    const char *why;

    if (v->type == TYPE_INTS) {
        memcpy(ret, v->num, v->n * sizeof(v->num[0]));
        return v->n;
    }
    if (v->type == TYPE_PORTS) {
        ret[0] = (int64_t)value_count_ports(v, 0, PORTS - 1);
        return 1;
    }
    if (v->type != TYPE_TEXT || *v->text == '\0' || v->text[strspn(v->text, "0123456789")] != '\0')
        return 0;
    if (!number_parse(v->text, strlen(v->text), true, &ret[0], &why))
        ret[0] = INT64_MAX;
    return 1;
}

static bool
case_holds(const struct kb_case *c, const struct value *v)
{
    int64_t numbers[MAX_FIELDS];
    size_t n, met = 0;

    if (c->word != 0)
        return (v->type == TYPE_WORD || v->type == TYPE_TEXT) &&
               strcmp(v->text, kb_pool + c->word) == 0;
    n = numbers_of(v, numbers);
    if (c->field > 0)
        return c->field <= n && number_holds(c, numbers[c->field - 1]);
    for (size_t i = 0; i < n; i++)
        met += number_holds(c, numbers[i]);
    return met > 0 && (c->level != LEVEL_FINE || met == n);
}

enum level
kb_judge(const struct kb_key *k, const struct value *v, const char **ret_text)
{
    const struct kb_case *fine = NULL;

    *ret_text = NULL;
    for (size_t i = 0; k != NULL && i < k->n_cases; i++) {
        const struct kb_case *c = &kb_cases[k->cases + i];

        if (!case_holds(c, v))
            continue;
        if (c->level != LEVEL_FINE) {
            *ret_text = kb_pool + c->text;
            return (enum level)c->level;
        }
        if (fine == NULL)
            fine = c;
    }
    for (size_t i = 0; k != NULL && v->type == TYPE_INTS && k->min <= k->max && i < v->n; i++)
        if (v->num[i] < k->min || v->num[i] > k->max) {
            *ret_text = "outside the range that makes sense for this setting; kernels may accept "
                        "it";
            return LEVEL_RANGE;
        }
    if (fine == NULL)
        return LEVEL_NONE;
    *ret_text = fine->text == 0 ? NULL : kb_pool + fine->text;
    return LEVEL_FINE;
}

enum level
kb_judge_at(const char *path, const struct value *v, const char **ret_text)
{
    const struct kb_key *k = kb_find(path);

    if (k == NULL || k->combine != COMBINE_OWN || !is_all(path))
        return kb_judge(k, v, ret_text);
    *ret_text = kb_combine_text(COMBINE_OWN);
    return LEVEL_POINTLESS;
}

const char *
kb_cases_text(const struct kb_key *k, enum level level)
{
    struct text t = {0};

    for (size_t i = 0; i < k->n_cases; i++) {
        const struct kb_case *c = &kb_cases[k->cases + i];

        if (c->level != level)
            continue;
        text_format(&t, "%s%s", t.len > 0 ? "; " : "", kb_pool + c->condition);
        if (c->text != 0)
            text_format(&t, ": %s", kb_pool + c->text);
    }
    return t.len == 0 ? NULL : text_str(&t);
}

const char *
level_name(enum level level)
{
    static const char *const names[] = {"harmful", "doubtful", "pointless",
                                        "range",   "unjudged", "fine"};

    return names[level];
}

const char *
kb_doubt(const struct kb_key *k, const struct value *v)
{
    const char *text;
    enum level level = kb_judge(k, v, &text);

    return level == LEVEL_HARMFUL || level == LEVEL_DOUBTFUL || level == LEVEL_RANGE ? text : NULL;
}
