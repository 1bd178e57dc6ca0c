/* err.h: filling a struct hs_error.
 *
 * Errors are values: the caller owns the struct, the deepest (first) setter wins, and every setter
 * returns the code it was given so that "return hs_err_setx(...)" reads as one step. A NULL err is
 * allowed everywhere: then only the code travels.
 */
#ifndef HS_BASE_ERR_H
#define HS_BASE_ERR_H

#include "hardsock.h"

void hs_err_fill(struct hs_error *err, hs_err code, int sys, const char *op, const char *fmt, ...)
    HS_PRINTF(5, 6);

/* With errno (sys), whose text is appended to the message. Macros, so that the compiler sees which
 * code comes back. */
#define hs_err_set(err, code, sys, op, ...) (hs_err_fill(err, code, sys, op, __VA_ARGS__), (code))
/* Without errno. */
#define hs_err_setx(err, code, op, ...) (hs_err_fill(err, code, 0, op, __VA_ARGS__), (code))

#endif
