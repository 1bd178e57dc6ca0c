/* tree.c: the tree from events.
 *
 * libyaml does not check that anchors exist, does not see duplicates, has no depth limit (100,000
 * brackets take it 11 s), and gives no type to scalars. So: stop at the first event that is too
 * deep, and refuse what would need resolving.
 */
#include "tree.h"

#include "mem.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

struct reader {
    const char *file;
    yaml_parser_t parser;
    size_t nodes;
    struct node *stack[YAML_MAX_DEPTH];
    size_t depth;
    struct node *root;
    /* A key that waits for its value. */
    const char *key;
    size_t key_line, key_column;
};

static bool
refuse(const struct reader *r, const yaml_event_t *e, const char *what)
{
    say_at(r->file, e->start_mark.line + 1, e->start_mark.column + 1, "%s", what);
    return false;
}

static const char *
scalar_fault(const yaml_event_t *e)
{
    const unsigned char *s = e->data.scalar.value;
    size_t len = e->data.scalar.length;

    if (e->data.scalar.anchor != NULL)
        return "anchors are not allowed here";
    if (e->data.scalar.tag != NULL)
        return "tags are not allowed here";
    if (memchr(s, '\0', len) != NULL)
        return "holds a NUL character";
    for (size_t i = 0; i < len; i++)
        if ((s[i] < ' ' && s[i] != '\n') || s[i] == 0x7f)
            return "holds a control character";
    return NULL;
}

/* A block scalar ends in a newline, which is never part of a value. */
static const char *
scalar_text(const yaml_event_t *e)
{
    const char *s = (const char *)e->data.scalar.value;
    size_t len = e->data.scalar.length;

    while (len > 0 && s[len - 1] == '\n')
        len--;
    return mem_copy(s, len);
}

static bool
take_key(struct reader *r, const yaml_event_t *e)
{
    const struct node *map = r->stack[r->depth - 1];

    if (e->type != YAML_SCALAR_EVENT)
        return refuse(r, e, "a key must be a plain word");
    r->key = scalar_text(e);
    r->key_line = e->start_mark.line + 1;
    r->key_column = e->start_mark.column + 1;
    if (strcmp(r->key, "<<") == 0)
        return refuse(r, e, "merge keys are not allowed here");
    for (const struct node *n = map->first; n != NULL; n = n->next)
        if (strcmp(n->key, r->key) == 0) {
            say_at(r->file, r->key_line, r->key_column,
                   "'%.80s' stands here twice; first in line %zu", r->key, n->key_line);
            return false;
        }
    return true;
}

static bool
add_node(struct reader *r, const yaml_event_t *e)
{
    struct node *parent = r->depth > 0 ? r->stack[r->depth - 1] : NULL;
    struct node *n;

    if (parent != NULL && parent->kind == NODE_MAP && r->key == NULL)
        return take_key(r, e);
    if (++r->nodes > YAML_MAX_NODES)
        return refuse(r, e, "too many entries");
    n = mem_alloc(sizeof(*n));
    n->line = e->start_mark.line + 1;
    n->column = e->start_mark.column + 1;
    n->key = r->key;
    n->key_line = r->key_line;
    n->key_column = r->key_column;
    r->key = NULL;
    if (parent == NULL)
        r->root = n;
    else if (parent->first == NULL)
        parent->first = n;
    else
        parent->last->next = n;
    if (parent != NULL)
        parent->last = n;
    if (e->type == YAML_SCALAR_EVENT) {
        n->kind = NODE_SCALAR;
        n->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        n->text = scalar_text(e);
        return true;
    }
    n->kind = e->type == YAML_MAPPING_START_EVENT ? NODE_MAP : NODE_LIST;
    if (r->depth == YAML_MAX_DEPTH)
        return refuse(r, e, "nested too deeply");
    r->stack[r->depth++] = n;
    return true;
}

/* NOLINTNEXTLINE(readability-function-size): one case per event of libyaml */
static bool
take_event(struct reader *r, const yaml_event_t *e, bool *ret_done)
{
    const char *fault;

    switch (e->type) {
    case YAML_ALIAS_EVENT:
        return refuse(r, e, "aliases are not allowed here");
    case YAML_SCALAR_EVENT:
        if ((fault = scalar_fault(e)) != NULL)
            return refuse(r, e, fault);
        return add_node(r, e);
    case YAML_SEQUENCE_START_EVENT:
        if (e->data.sequence_start.anchor != NULL || e->data.sequence_start.tag != NULL)
            return refuse(r, e, "anchors and tags are not allowed here");
        return add_node(r, e);
    case YAML_MAPPING_START_EVENT:
        if (e->data.mapping_start.anchor != NULL || e->data.mapping_start.tag != NULL)
            return refuse(r, e, "anchors and tags are not allowed here");
        return add_node(r, e);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        r->depth--;
        return true;
    case YAML_DOCUMENT_START_EVENT:
        if (r->root != NULL)
            return refuse(r, e, "a second document; one file holds one profile");
        return true;
    case YAML_STREAM_END_EVENT:
        *ret_done = true;
        return true;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
    return true;
}

static void
say_problem(const struct reader *r, const unsigned char *text, size_t len)
{
    const yaml_parser_t *p = &r->parser;
    size_t line = p->problem_mark.line, column = p->problem_mark.column;

    /* Reader errors have no mark, only an offset. */
    if (p->error == YAML_READER_ERROR) {
        line = column = 0;
        for (size_t i = 0; i < p->problem_offset && i < len; i++) {
            column = text[i] == '\n' ? 0 : column + 1;
            line += text[i] == '\n';
        }
    }
    say_at(r->file, line + 1, column + 1, "not YAML: %s",
           p->problem != NULL ? p->problem : "unknown problem");
}

struct node *
yaml_read(const char *name, const unsigned char *text, size_t len)
{
    struct reader r = {.file = name};
    bool done = false, ok = true;

    if (len > YAML_MAX_SIZE) {
        say("%s: larger than %d KiB", name, YAML_MAX_SIZE / 1024);
        return NULL;
    }
    if (len >= 2 &&
        ((text[0] == 0xff && text[1] == 0xfe) || (text[0] == 0xfe && text[1] == 0xff))) {
        say("%s: must be UTF-8, not UTF-16", name);
        return NULL;
    }
    if (yaml_parser_initialize(&r.parser) == 0) {
        say("out of memory");
        return NULL;
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, text, len);
    while (ok && !done) {
        yaml_event_t e;

        if (yaml_parser_parse(&r.parser, &e) == 0) {
            say_problem(&r, text, len);
            ok = false;
            break;
        }
        ok = take_event(&r, &e, &done);
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&r.parser);
    if (ok && r.root == NULL) {
        say("%s: empty", name);
        ok = false;
    }
    return ok ? r.root : NULL;
}

void
yaml_quote(struct text *t, const char *s)
{
    text_puts(t, "\"");
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\')
            text_puts(t, "\\");
        text_add(t, s, 1);
    }
    text_puts(t, "\"");
}
