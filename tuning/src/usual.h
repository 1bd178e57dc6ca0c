/* usual.h: what this kernel starts with on this machine, where that follows its memory.
 *
 * The expressions stand in the knowledge base, each with the line of the kernel that it repeats.
 */
#ifndef TUNE_USUAL_H
#define TUNE_USUAL_H

#include "sys.h"

/* Bytes; 0 if it is not told. */
int64_t usual_memory(const struct sys *s);
/* Bytes of a page. */
int64_t usual_page(const struct sys *s);
/* False where nothing is worked out, or what it takes is not known. *ret_near: the kernel's own
 * number differs a little. */
bool usual_computed(const struct sys *s, const struct kb_key *k, struct value *ret, bool *ret_near);
/* What the kernel starts with: a plain default, or a computed one. *ret_computed tells which. */
bool usual_value(const struct sys *s, const struct kb_key *k, const char *path, struct value *ret,
                 bool *ret_computed);

#endif
