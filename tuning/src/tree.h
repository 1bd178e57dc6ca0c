/* tree.h: YAML files of strangers, as a small tree.
 *
 * Built from libyaml's events, never by its document loader, with limits on size, depth and number
 * of nodes. Only plain mappings, sequences and scalars get through: no anchors, aliases, tags,
 * merge keys, duplicate keys, second documents, control characters or other encodings than UTF-8.
 */
#ifndef TUNE_TREE_H
#define TUNE_TREE_H

#include "mem.h"

/* kbgen reads larger files, which are our own. */
#ifndef YAML_MAX_SIZE
#define YAML_MAX_SIZE (64 * 1024)
#define YAML_MAX_NODES 2048
#endif
#define YAML_MAX_DEPTH 8

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
    enum node_kind kind;
    bool plain; /* a scalar without quotes */
    size_t line, column;
    const char *text; /* scalar; no NUL inside */
    const char *key;  /* if the parent is a map */
    size_t key_line, key_column;
    struct node *first, *last, *next;
};

/* Reads the whole text; NULL after a message "name:line:column: what". */
struct node *yaml_read(const char *name, const unsigned char *text, size_t len);
/* The text as a double-quoted scalar, which must hold no control characters. */
void yaml_quote(struct text *t, const char *s);

#endif
