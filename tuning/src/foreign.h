/* foreign.h: settings in the files of other tools, as lines of a sysctl.conf.
 *
 * What a file computes while it runs (functions, templates) cannot be taken over: it is told, and
 * counted among what was left out.
 */
#ifndef TUNE_FOREIGN_H
#define TUNE_FOREIGN_H

#include "conf.h"

/* A profile of tuned with what it includes, below root; told by a section in brackets. */
bool tuned_is(const char *text);
void tuned_read(const char *root, const char *file, const char *text, struct conf *c);

/* Tasks and variables of Ansible. False after a message if it is no YAML that is read here. */
bool ansible_read(const char *file, const char *text, size_t len, struct conf *c);

#endif
