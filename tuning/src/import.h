/* import.h: sysctl.conf files as a profile.
 *
 * What comes out is a profile that `lint` accepts, whatever the files hold.
 */
#ifndef TUNE_IMPORT_H
#define TUNE_IMPORT_H

#include "conf.h"
#include "mem.h"
#include "profile.h"

/* The value of a line, read as the kernel would. Why no profile can hold it, or NULL.
 * *ret_comment is what stands behind a number, which the kernel drops; else untouched. */
const char *import_refusal(const struct line *l, struct value *ret_value, const char **ret_comment);
/* The last assignment of each key; says what is left out, and why, and counts it. NULL if nothing
 * is left. */
struct setting *import_settings(const struct conf *c, size_t *ret_n, size_t *ret_left_out);
/* False after a message if it would be larger than a profile may be. */
bool import_compose(const struct setting *settings, size_t n, struct text *t);

#endif
