/* ansible.c: tasks and variables of Ansible: see foreign.h.
 *
 * Three shapes are known: a task of the module sysctl (name or key, value), the same in a loop over
 * a list that stands there, and variables that map keys to values, as roles for hardening take
 * them. A value in braces is worked out when the play runs.
 */
#include "foreign.h"

#include "key.h"
#include "mem.h"
#include "tree.h"

#include <string.h>

static const struct node *
member(const struct node *map, const char *name)
{
    for (const struct node *n = map->kind == NODE_MAP ? map->first : NULL; n != NULL; n = n->next)
        if (strcmp(n->key, name) == 0)
            return n;
    return NULL;
}

static const char *
text_of(const struct node *map, const char *name, const char *other)
{
    const struct node *n = member(map, name);

    if (n == NULL && other != NULL)
        n = member(map, other);
    return n != NULL && n->kind == NODE_SCALAR ? n->text : NULL;
}

static bool
is_template(const char *text)
{
    return strstr(text, "{{") != NULL;
}

static void
take(const char *file, size_t line, const char *key, const char *value, struct conf *c)
{
    if (key == NULL || value == NULL)
        conf_skip(c, file, line, key == NULL ? "sysctl" : key, "names no key, or no value");
    else if (is_template(key) || is_template(value))
        conf_skip(c, file, line, key,
                  mem_format("= %.80s is worked out when the play runs", value));
    else
        conf_add(c, file, line, key, value, '\0');
}

/* "name=net.core.somaxconn value=4096 state=present" */
static const char *
word_of(const char *text, const char *name)
{
    size_t len = strlen(name);

    for (const char *at = text; (at = strstr(at, name)) != NULL; at += len)
        if ((at == text || at[-1] == ' ') && at[len] == '=') {
            const char *value = at + len + 1;
            const char *end = " ";

            if (*value == '"' || *value == '\'')
                end = *value++ == '"' ? "\"" : "'";
            return mem_copy(value, strcspn(value, end));
        }
    return NULL;
}

static void
take_loop(const char *file, const struct node *list, struct conf *c)
{
    for (const struct node *n = list->first; n != NULL; n = n->next)
        if (n->kind == NODE_MAP)
            take(file, n->line, text_of(n, "name", "key"), text_of(n, "value", NULL), c);
        else
            conf_skip(c, file, n->line, "loop", "holds something other than name: and value:");
}

static void
take_task(const char *file, const struct node *task, const struct node *module, struct conf *c)
{
    const struct node *loop = member(task, "loop");
    const char *key, *value, *state;

    if (loop == NULL)
        loop = member(task, "with_items");
    if (module->text != NULL) { /* a scalar */
        key = word_of(module->text, "name");
        key = key != NULL ? key : word_of(module->text, "key");
        value = word_of(module->text, "value");
        state = word_of(module->text, "state");
    } else {
        key = text_of(module, "name", "key");
        value = text_of(module, "value", "val");
        state = text_of(module, "state", NULL);
    }
    if (state != NULL && strcmp(state, "absent") == 0)
        return;
    if (loop != NULL && loop->kind == NODE_LIST && key != NULL && is_template(key))
        take_loop(file, loop, c);
    else
        take(file, module->line, key, value, c);
}

static bool
is_key(const char *text)
{
    char path[KEY_MAX];
    const char *why;

    return strchr(text, '.') != NULL && strchr(text, ' ') == NULL &&
           key_parse(text, strlen(text), path, &why) && key_allowed(path, &why);
}

static void
walk(const char *file, const struct node *n, struct conf *c)
{
    static const char *const modules[] = {"ansible.posix.sysctl", "ansible.builtin.sysctl",
                                          "sysctl"};
    const struct node *module = NULL;

    for (size_t i = 0; module == NULL && i < sizeof(modules) / sizeof(modules[0]); i++)
        module = member(n, modules[i]);
    if (module != NULL && (module->kind == NODE_SCALAR || text_of(module, "name", "key") != NULL)) {
        take_task(file, n, module, c);
        return;
    }
    for (const struct node *m = n->kind == NODE_SCALAR ? NULL : n->first; m != NULL; m = m->next)
        if (n->kind == NODE_MAP && m->kind == NODE_SCALAR && is_key(m->key))
            take(file, m->key_line, m->key, m->text, c);
        else
            walk(file, m, c);
}

bool
ansible_read(const char *file, const char *text, size_t len, struct conf *c)
{
    const struct node *root = yaml_read(file, (const unsigned char *)text, len);

    if (root != NULL)
        walk(file, root, c);
    return root != NULL;
}
