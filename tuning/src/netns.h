/* netns.h: finding, entering and telling apart network namespaces.
 *
 * Entering is for the whole process and for good; it has one thread and ends soon.
 */
#ifndef TUNE_NETNS_H
#define TUNE_NETNS_H

#include "tune.h"

/* A name of `ip netns`, a process id, or a path. Says why it failed. */
enum exit_code netns_enter(const char *name);
/* Inode and cookie of the current one; the cookie is never used twice, 0 where unknown. */
void netns_identify(uint64_t *ret_inode, uint64_t *ret_cookie);

#endif
