/* key.h: names of kernel settings.
 *
 * Inside the program a key is its path beneath /proc/sys ("net/ipv4/conf/eth0.100/rp_filter").
 * People may write dots or slashes: the first separator decides, and the other character then
 * stands for a literal dot, as in sysctl(8). People are shown the dotted form.
 */
#ifndef TUNE_KEY_H
#define TUNE_KEY_H

#include "tune.h"

#define KEY_MAX 200

/* Writes the path; false with a reason (a constant) when it is no acceptable name. */
bool key_parse(const char *name, size_t len, char path[KEY_MAX], const char **ret_why);
/* net.ipv4.conf.eth0/100.rp_filter */
const char *key_show(const char *path);
/* Whether this tool may touch it at all; else why not. */
bool key_allowed(const char *path, const char **ret_why);
/* Matches where a whole "*" of the pattern stands for one component. */
bool key_matches(const char *pattern, const char *path);
/* conf.*.key or neigh.*.key: every interface, as in sysctl.d. */
bool key_is_pattern(const char *path);

#endif
