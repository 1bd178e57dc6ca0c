/* kbgen.c: from the YAML of the knowledge base to C tables, when hardsock-tune is built.
 *
 * usage: kbgen FILE.yaml... > kb_tables.c
 *
 * A field that is not known, a key without its source, a twin that does not exist: each is an error
 * with its place, and the build stops. What the program links is sorted, so that it can search.
 */
#include "kb.h"
#include "key.h"
#include "mem.h"
#include "tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILE (1024 * 1024)
#define MAX_KEYS 2000
#define MAX_ROWS 4000
#define MAX_POOL (1024 * 1024)

struct entry {
    struct kb_key key;
    const char *path, *file;
    const struct node *node;
};

static struct {
    struct entry keys[MAX_KEYS];
    struct kb_case cases[MAX_ROWS];
    struct kb_before older[MAX_ROWS];
    struct kb_symptom symptoms[MAX_ROWS];
    struct {
        const char *path, *file;
        const struct node *node;
        enum kb_text which;
    } seen[MAX_ROWS];
    struct {
        const char *file;
        const struct node *node;
    } risks[MAX_ROWS];
    size_t n_seen, n_risks, n_keys, n_cases, n_older, n_symptoms;
    char pool[MAX_POOL];
    size_t pool_len;
} kb = {.pool_len = 1};

/* The text fields, by their place in enum kb_text; NULL: not a field of its own. */
static const char *const text_fields[KB_TEXTS] = {
    [KB_MEANING] = "meaning",
    [KB_UNIT] = "unit",
    [KB_DEFAULT] = "default",
    [KB_DEFAULT_ALL] = "all",
    [KB_COMPUTED] = "computed",
    [KB_NEAR] = "near",
    [KB_COMPUTED_SOURCE] = "computed_source",
    [KB_WHEN] = "when",
    [KB_RULES] = "rules",
    [KB_RISK] = "risk",
    [KB_MYTH] = "myth",
    [KB_TWIN] = "twin",
    [KB_ALIAS] = "alias",
    [KB_MODULE] = "module",
    [KB_SCOPE_UNTIL] = "scope_until",
    [KB_SINCE] = "since",
    [KB_ABSENT] = "absent",
    [KB_PRESENT] = "present",
    [KB_REMOVED] = "removed",
    [KB_CHECK_ONLY] = "check_only",
    [KB_NOTE] = "note",
    [KB_SOURCE] = "source",
    [KB_VERIFIED] = "verified",
    [KB_RULE_SOURCE] = "rule_source",
};

static bool
bad(const char *file, const struct node *n, const char *what)
{
    say_at(file, n->line, n->column, "%s%s%s", n->key == NULL ? "" : n->key,
           n->key == NULL ? "" : ": ", what);
    return false;
}

static uint32_t
pooled(const char *text)
{
    size_t len = strlen(text) + 1;

    /* Most texts that repeat are not long, and the pool is small: a plain search is enough. */
    for (size_t at = 0; len < 80 && at + len <= kb.pool_len; at += strlen(kb.pool + at) + 1)
        if (strcmp(kb.pool + at, text) == 0)
            return (uint32_t)at;
    if (kb.pool_len + len > MAX_POOL) {
        say("the knowledge base is larger than its pool");
        return 0;
    }
    memcpy(kb.pool + kb.pool_len, text, len);
    kb.pool_len += len;
    return (uint32_t)(kb.pool_len - len);
}

/* The place of text in a list of words, or -1. */
static int
word_of(const char *const words[], const char *text)
{
    for (int i = 0; words[i] != NULL; i++)
        if (strcmp(words[i], text) == 0)
            return i;
    return -1;
}

static bool
take_word(const char *file, const struct node *n, const char *const words[], uint8_t *ret)
{
    int at = n->kind == NODE_SCALAR ? word_of(words, n->text) : -1;

    if (at < 0)
        return bad(file, n, "is not one of the words for it");
    *ret = (uint8_t)at;
    return true;
}

/* "int", "int 3", "ports", "word", "words", "text". */
static bool
take_type(const char *file, const struct node *n, struct kb_key *k)
{
    static const char *const words[] = {"int", "ports", "word", "words", "text", NULL};

    k->fields = 0;
    if (n->kind == NODE_SCALAR && strncmp(n->text, "int ", 4) == 0 && n->text[4] >= '1' &&
        n->text[4] <= '0' + MAX_FIELDS && n->text[5] == '\0') {
        k->type = TYPE_INTS;
        k->fields = (uint8_t)(n->text[4] - '0');
        return true;
    }
    if (!take_word(file, n, words, &k->type))
        return false;
    k->fields = k->type == TYPE_INTS;
    return true;
}

static bool
take_number(const char *file, const struct node *n, const char *text, int64_t *ret)
{
    const char *why;

    return number_parse(text, strlen(text), true, ret, &why) || bad(file, n, why);
}

static bool
take_range(const char *file, const struct node *n, struct kb_key *k)
{
    const struct node *low = n->first;

    if (n->kind != NODE_LIST || low == NULL || low->next == NULL || low->next->next != NULL)
        return bad(file, n, "wants [lowest, highest]");
    return take_number(file, low, low->text, &k->min) &&
           take_number(file, low->next, low->next->text, &k->max) &&
           (k->min <= k->max || bad(file, n, "is no range"));
}

/* before: {"5.4": 128}, the newest version first. */
static bool
take_before(const char *file, const struct node *n, struct kb_key *k)
{
    if (n->kind != NODE_MAP)
        return bad(file, n, "wants VERSION: default");
    k->older = (uint16_t)kb.n_older;
    k->n_older = 0;
    for (const struct node *b = n->first; b != NULL; b = b->next, k->n_older++) {
        const char *last = k->n_older == 0 ? NULL : kb.pool + kb.older[kb.n_older - 1].kernel;

        if (b->kind != NODE_SCALAR || kb.n_older == MAX_ROWS)
            return bad(file, b, "wants VERSION: default");
        if (last != NULL && kernel_compare(b->key, last) >= 0)
            return bad(file, b, "the newest version stands first");
        kb.older[kb.n_older].kernel = pooled(b->key);
        kb.older[kb.n_older++].value = pooled(b->text);
    }
    return true;
}

/* "<128", ">5", "!1", "&4", "0", "16..64" */
static bool
take_condition(const char *file, const struct node *n, const char *s, struct kb_case *c)
{
    const char *dots = strstr(s, ".."), *why = NULL;
    char op = '=';
    size_t len;

    if (*s == '<' || *s == '>' || *s == '!' || *s == '&')
        op = *s++;
    len = op == '=' && dots != NULL ? (size_t)(dots - s) : strlen(s);
    c->op = (uint8_t)(op == '!' || op == '&' ? op : '=');
    if (!number_parse(s, len, true, &c->low, &why))
        return bad(file, n, why);
    c->high = c->low;
    if (op == '<') {
        c->high = c->low - 1;
        c->low = INT64_MIN;
    } else if (op == '>') {
        c->low++;
        c->high = INT64_MAX;
    } else if (s[len] != '\0' &&
               !number_parse(s + len + 2, strlen(s + len + 2), true, &c->high, &why)) {
        return bad(file, n, why);
    }
    return c->low <= c->high || bad(file, n, "is no range");
}

/* The same, "2:<10000", or a word where the key has words. */
static bool
take_case(const char *file, const struct node *n, enum level level, struct kb_key *k)
{
    struct kb_case *c = &kb.cases[kb.n_cases];
    const char *s = n->key;

    if (n->kind != NODE_SCALAR || kb.n_cases == MAX_ROWS || k->n_cases == UINT8_MAX)
        return bad(file, n, "wants CONDITION: text");
    if (*n->text == '\0' && level != LEVEL_FINE)
        return bad(file, n, "does not say why");
    *c = (struct kb_case){.level = (uint8_t)level, .condition = pooled(s)};
    c->text = *n->text == '\0' ? 0 : pooled(n->text);
    if (s[0] >= '1' && s[0] <= '0' + MAX_FIELDS && s[1] == ':') {
        c->field = (uint8_t)(s[0] - '0');
        s += 2;
    }
    if (k->type == TYPE_WORD || k->type == TYPE_WORDS)
        c->word = pooled(s);
    else if (!take_condition(file, n, s, c))
        return false;
    kb.n_cases++;
    k->n_cases++;
    return true;
}

/* One of the keys that share these cases; what is bad stands before what is not. */
static bool
take_risk(const char *file, const struct node *risk, struct kb_key *k)
{
    static const char *const levels[] = {"harmful", "doubtful", "pointless", "", "", "fine", NULL};
    int last = LEVEL_HARMFUL;

    if (k->text[KB_RISK_SOURCE] != 0)
        return bad(file, risk, "has its risks in two places");
    k->cases = (uint16_t)kb.n_cases;
    for (const struct node *n = risk->first; risk->kind == NODE_MAP && n != NULL; n = n->next) {
        int level = word_of(levels, n->key);

        if (strcmp(n->key, "source") == 0 && n->kind == NODE_SCALAR && *n->text != '\0') {
            k->text[KB_RISK_SOURCE] = pooled(n->text);
            continue;
        }
        if (level < last || n->kind != NODE_MAP)
            return bad(file, n,
                       "is not harmful, doubtful, pointless, fine (in this order) or "
                       "source");
        last = level;
        for (const struct node *c = n->first; c != NULL; c = c->next)
            if (!take_case(file, c, (enum level)level, k))
                return false;
    }
    return (k->n_cases > 0 && k->text[KB_RISK_SOURCE] != 0) ||
           bad(file, risk, "has no cases, or no source: for them");
}

static struct kb_key *
key_named(const char *name, size_t len)
{
    char path[KEY_MAX];
    const char *why;

    if (!key_parse(name, len, path, &why))
        return NULL;
    for (size_t i = 0; i < kb.n_keys; i++)
        if (strcmp(kb.keys[i].path, path) == 0)
            return &kb.keys[i].key;
    return NULL;
}

/* Once every key and its type is known. */
static bool
add_risks(void)
{
    for (size_t i = 0; i < kb.n_risks; i++) {
        const struct node *n = kb.risks[i].node;

        for (const char *s = n->key; *s != '\0'; s += *s == ' ') {
            size_t len = strcspn(s, " ");
            struct kb_key *k = key_named(s, len);

            if (k == NULL)
                return bad(kb.risks[i].file, n, "has risks, but is no key");
            if (!take_risk(kb.risks[i].file, n, k))
                return false;
            s += len;
        }
    }
    return true;
}

static bool
take_text(const char *file, const struct node *n, struct kb_key *k)
{
    for (int i = 0; i < KB_TEXTS; i++)
        if (text_fields[i] != NULL && strcmp(text_fields[i], n->key) == 0) {
            if (n->kind != NODE_SCALAR)
                return bad(file, n, "wants a text");
            k->text[i] = *n->text == '\0' ? 0 : pooled(n->text);
            return true;
        }
    return bad(file, n, "is no field of a key");
}

static bool
take_field(const char *file, const struct node *n, struct kb_key *k)
{
    static const char *const scopes[] = {"namespace", "global", "readonly", "ipc", "none", NULL};
    static const char *const effects[] = {"live", "new", "listen", "call", "partly", NULL};
    static const char *const combines[] = {"none",  "own",       "max",  "min", "or", "and",
                                           "first", "redirects", "copy", "all", NULL};

    if (strcmp(n->key, "type") == 0)
        return take_type(file, n, k);
    if (strcmp(n->key, "range") == 0)
        return take_range(file, n, k);
    if (strcmp(n->key, "before") == 0)
        return take_before(file, n, k);
    if (strcmp(n->key, "scope") == 0)
        return take_word(file, n, scopes, &k->scope);
    if (strcmp(n->key, "acts") == 0)
        return take_word(file, n, effects, &k->effect);
    if (strcmp(n->key, "combine") == 0)
        return take_word(file, n, combines, &k->combine);
    return take_text(file, n, k);
}

static bool
take_fields(const char *file, const struct node *map, struct kb_key *k)
{
    if (map->kind != NODE_MAP)
        return bad(file, map, "wants fields such as meaning:");
    for (const struct node *n = map->first; n != NULL; n = n->next)
        if (!take_field(file, n, k))
            return false;
    return true;
}

/* "6.1 global" */
static bool
is_scope_until(const char *text)
{
    static const char *const words[] = {"global", "readonly", "namespace", NULL};
    const size_t len = strspn(text, "0123456789.");

    return len > 0 && text[len] == ' ' && word_of(words, text + len + 1) >= 0;
}

/* What every key must have, and what fits together. */
static bool
is_whole(const char *file, const struct node *n, const struct kb_key *k, const char *path)
{
    const char *star = strchr(path, '*'), *name = path;

    if (k->text[KB_MEANING] == 0)
        return bad(file, n, "has no meaning:");
    if (k->text[KB_SOURCE] == 0)
        return bad(file, n, "has no source:");
    if (k->scope != SCOPE_NONE && k->text[KB_DEFAULT] == 0)
        return bad(file, n, "has no default:");
    if (k->scope == SCOPE_NONE && k->text[KB_VERIFIED] != 0)
        return bad(file, n, "is no setting, but verified:");
    if ((k->text[KB_COMPUTED] == 0 && k->text[KB_NEAR] == 0) != (k->text[KB_COMPUTED_SOURCE] == 0))
        return bad(file, n, "computed: or near: belong together with computed_source:");
    if (k->text[KB_SCOPE_UNTIL] != 0 && !is_scope_until(kb.pool + k->text[KB_SCOPE_UNTIL]))
        return bad(file, n, "scope_until: is a version and global, readonly or namespace");
    if ((k->combine == COMBINE_NONE) != (k->text[KB_RULE_SOURCE] == 0))
        return bad(file, n, "combine: and rule_source: belong together");
    if ((k->text[KB_ABSENT] == 0) != (k->text[KB_PRESENT] == 0))
        return bad(file, n, "absent: and present: belong together");
    for (int i = 0; star != NULL && i < (strncmp(path, "net/ax25/", 9) == 0 ? 2 : 3); i++)
        name = strchr(name, '/') == NULL ? name : strchr(name, '/') + 1;
    if (star != NULL &&
        (star != name || (star[1] != '/' && star[1] != '\0') || strchr(star + 1, '*') != NULL))
        return bad(file, n, "has a * that is not the whole fourth part");
    return true;
}

static bool
take_key(const char *file, const struct node *n, const struct node *common)
{
    struct entry *e = &kb.keys[kb.n_keys];
    char path[KEY_MAX];
    const char *why;

    if (!key_parse(n->key, strlen(n->key), path, &why))
        return bad(file, n, why);
    if (kb.n_keys == MAX_KEYS)
        return bad(file, n, "is one key too many");
    *e = (struct entry){.key = {.min = 1, .fields = 1}, .file = file, .node = n};
    e->path = mem_dup(path);
    e->key.path = pooled(path);
    kb.n_keys++;
    return (common == NULL || take_fields(file, common, &e->key)) &&
           take_fields(file, n, &e->key) && is_whole(file, n, &e->key, path);
}

static bool
take_symptom(const char *file, const struct node *n)
{
    struct kb_symptom *s = &kb.symptoms[kb.n_symptoms++];

    s->name = pooled(n->key);
    for (const struct node *f = n->first; n->kind == NODE_MAP && f != NULL; f = f->next) {
        if (f->kind != NODE_SCALAR)
            return bad(file, f, "wants a text");
        if (strcmp(f->key, "message") == 0)
            s->message = pooled(f->text);
        else if (strcmp(f->key, "meaning") == 0)
            s->meaning = pooled(f->text);
        else if (strcmp(f->key, "keys") == 0)
            s->keys = pooled(f->text);
        else
            return bad(file, f, "is no field of a symptom");
    }
    return (s->message != 0 && s->meaning != 0 && s->keys != 0) ||
           bad(file, n, "a symptom has message:, meaning: and keys:");
}

/* Kept until every key is known: its file may come before theirs. */
static bool
take_seen(const char *file, const struct node *n, enum kb_text which)
{
    char path[KEY_MAX];
    const char *why;

    if (!key_parse(n->key, strlen(n->key), path, &why))
        return bad(file, n, why);
    if (n->kind != NODE_SCALAR || kb.n_seen == MAX_ROWS)
        return bad(file, n, "wants a text");
    kb.seen[kb.n_seen].which = which;
    kb.seen[kb.n_seen].path = mem_dup(path);
    kb.seen[kb.n_seen].file = file;
    kb.seen[kb.n_seen++].node = n;
    return true;
}

/* As for what was seen: the types of keys come first. */
static bool
keep_risk(const char *file, const struct node *n)
{
    if (kb.n_risks == MAX_ROWS)
        return bad(file, n, "is one risk too many");
    kb.risks[kb.n_risks].file = file;
    kb.risks[kb.n_risks++].node = n;
    return true;
}

static bool
add_seen(void)
{
    for (size_t i = 0; i < kb.n_seen; i++) {
        const char *path = kb.seen[i].path;
        size_t at = 0;

        while (at < kb.n_keys && strcmp(kb.keys[at].path, path) != 0)
            at++;
        if (at == kb.n_keys)
            return bad(kb.seen[i].file, kb.seen[i].node, "was seen, but is no key");
        kb.keys[at].key.text[kb.seen[i].which] = pooled(kb.seen[i].node->text);
    }
    /* A fact stands on a kernel that was running, in somebody's hands or in a virtual machine. */
    for (size_t i = 0; i < kb.n_keys; i++) {
        const struct kb_key *k = &kb.keys[i].key;

        if (k->scope != SCOPE_NONE && k->text[KB_VERIFIED] == 0 && k->text[KB_SEEN] == 0)
            return bad(kb.keys[i].file, kb.keys[i].node, "has no verified:");
    }
    return true;
}

static bool
take_part(const char *file, const struct node *part, const struct node *common)
{
    static const struct {
        const char *name;
        enum kb_text which;
    } runs[] = {{"seen", KB_SEEN}, {"agreed", KB_AGREED}, {"differs", KB_DIFFERS}};
    const bool keys = strcmp(part->key, "keys") == 0;
    const bool symptoms = strcmp(part->key, "symptoms") == 0;
    const bool risks = strcmp(part->key, "risks") == 0;
    size_t run = 0;

    while (run < 3 && strcmp(part->key, runs[run].name) != 0)
        run++;
    if (!keys && !symptoms && !risks && run == 3)
        return bad(file, part, "is not common, keys, symptoms, risks, seen, agreed or differs");
    if (part->kind != NODE_MAP)
        return bad(file, part, "wants a mapping");
    for (const struct node *n = part->first; n != NULL; n = n->next)
        if (!(keys       ? take_key(file, n, common)
              : symptoms ? take_symptom(file, n)
              : risks    ? keep_risk(file, n)
                         : take_seen(file, n, runs[run].which)))
            return false;
    return true;
}

static bool
take_top(const char *file, const struct node *root)
{
    const struct node *common = NULL;

    if (root->kind != NODE_MAP)
        return bad(file, root, "wants common: and keys:");
    for (const struct node *n = root->first; n != NULL; n = n->next)
        if (strcmp(n->key, "common") == 0)
            common = n;
        else if (!take_part(file, n, common))
            return false;
    return true;
}

static bool
read_file(const char *file)
{
    static unsigned char text[MAX_FILE];
    FILE *f = fopen(file, "rb");
    const struct node *root;
    size_t len;

    if (f == NULL) {
        say("%s: cannot be read", file);
        return false;
    }
    len = fread(text, 1, sizeof(text), f);
    (void)fclose(f);
    root = yaml_read(file, text, len);
    return root != NULL && take_top(file, root);
}

static int
by_path(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->path, ((const struct entry *)b)->path);
}

static bool
is_key(const char *name, size_t len)
{
    char path[KEY_MAX];
    const char *why;

    if (!key_parse(name, len, path, &why))
        return false;
    for (size_t i = 0; i < kb.n_keys; i++)
        if (key_matches(kb.keys[i].path, path))
            return true;
    return false;
}

/* Names of other keys lead somewhere. */
static bool
links_hold(void)
{
    static const enum kb_text links[] = {KB_TWIN, KB_ALIAS};

    for (size_t i = 0; i < kb.n_keys; i++) {
        const struct entry *e = &kb.keys[i];

        if (i > 0 && strcmp(e->path, kb.keys[i - 1].path) == 0)
            return bad(e->file, e->node, "stands in two places");
        for (size_t l = 0; l < sizeof(links) / sizeof(links[0]); l++) {
            const char *name = kb.pool + e->key.text[links[l]];

            if (*name != '\0' && !is_key(name, strlen(name)))
                return bad(e->file, e->node, "names a twin or an alias that is no key");
        }
    }
    for (size_t i = 0; i < kb.n_symptoms; i++)
        for (const char *s = kb.pool + kb.symptoms[i].keys; *s != '\0'; s += *s == ' ') {
            size_t len = strcspn(s, " ");

            if (!is_key(s, len)) {
                say("symptom %s: %.*s is no key", kb.pool + kb.symptoms[i].name, (int)len, s);
                return false;
            }
            s += len;
        }
    return true;
}

static void
put_pool(void)
{
    (void)puts("const char kb_pool[] =");
    for (size_t at = 0; at < kb.pool_len; at += strlen(kb.pool + at) + 1) {
        (void)fputs("    \"", stdout);
        for (const char *s = kb.pool + at; *s != '\0'; s++)
            (void)printf(*s == '"' || *s == '\\' || *s == '?' ? "\\%c" : "%c", *s);
        (void)puts("\\0\"");
    }
    (void)puts("    ;");
}

static void
put_key(const struct kb_key *k)
{
    (void)printf("    {%u, {", k->path);
    for (int i = 0; i < KB_TEXTS; i++)
        (void)printf("%s%u", i > 0 ? "," : "", k->text[i]);
    (void)printf("}, %u, %u, %u, %u, %u, %u, %u, %u, %u, %lldLL, %lldLL},\n", k->type, k->scope,
                 k->effect, k->combine, k->fields, k->n_cases, k->n_older, k->cases, k->older,
                 (long long)k->min, (long long)k->max);
}

/* The least number has no literal. */
static void
put_number(int64_t n)
{
    if (n == INT64_MIN)
        (void)fputs("INT64_MIN, ", stdout);
    else
        (void)printf("%lldLL, ", (long long)n);
}

static void
put_tables(void)
{
    (void)puts("/* Written by kbgen from tuning/kb; not to be changed by hand. */\n"
               "#include \"kb.h\"\n\n"
               "#pragma GCC diagnostic ignored \"-Woverlength-strings\"\n");
    put_pool();
    (void)puts("const struct kb_key kb_keys[] = {");
    for (size_t i = 0; i < kb.n_keys; i++)
        put_key(&kb.keys[i].key);
    (void)printf("};\nconst size_t kb_n_keys = %zu;\nconst struct kb_case kb_cases[] = {\n",
                 kb.n_keys);
    for (size_t i = 0; i < kb.n_cases; i++) {
        const struct kb_case *c = &kb.cases[i];

        (void)printf("    {%u, %u, %u, ", c->level, c->op, c->field);
        put_number(c->low);
        put_number(c->high);
        (void)printf("%u, %u, %u},\n", c->word, c->condition, c->text);
    }
    (void)puts("    {0, 0, 0, 0, 0, 0, 0, 0}};\nconst struct kb_before kb_older[] = {");
    for (size_t i = 0; i < kb.n_older; i++)
        (void)printf("    {%u, %u},\n", kb.older[i].kernel, kb.older[i].value);
    (void)puts("    {0, 0}};\nconst struct kb_symptom kb_symptoms[] = {");
    for (size_t i = 0; i < kb.n_symptoms; i++)
        (void)printf("    {%u, %u, %u, %u},\n", kb.symptoms[i].name, kb.symptoms[i].message,
                     kb.symptoms[i].meaning, kb.symptoms[i].keys);
    (void)printf("    {0, 0, 0, 0}};\nconst size_t kb_n_symptoms = %zu;\n", kb.n_symptoms);
}

int
main(int argc, char **argv)
{
    bool ok = argc > 1;

    for (int i = 1; ok && i < argc; i++)
        ok = read_file(argv[i]);
    if (ok)
        qsort(kb.keys, kb.n_keys, sizeof(kb.keys[0]), by_path);
    ok = ok && links_hold() && add_seen() && add_risks();
    if (ok)
        put_tables();
    ok = ok && fflush(stdout) == 0 && ferror(stdout) == 0;
    mem_release();
    return ok ? 0 : 1;
}
