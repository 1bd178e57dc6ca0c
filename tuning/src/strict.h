/* strict.h: --strict, or --strict=CLASS,...: what else counts.
 *
 * Alone it stands for every class but `waived` and `unjudged`: a waiver is there not to count, and
 * what this tool does not know is no fault.
 */
#ifndef TUNE_STRICT_H
#define TUNE_STRICT_H

#include "tune.h"

enum strict {
    /* check, diff and apply */
    STRICT_MISSING = 1 << 0,
    STRICT_WARNING = 1 << 1,
    STRICT_CRITICAL = 1 << 2,
    STRICT_WAIVED = 1 << 3,
    /* judge and lint */
    STRICT_REPEATED = 1 << 4,
    STRICT_UNKNOWN = 1 << 5,
    STRICT_RANGE = 1 << 6,
    STRICT_POINTLESS = 1 << 7,
    STRICT_DOUBTFUL = 1 << 8,
    STRICT_HARMFUL = 1 << 9,
    /* lint */
    STRICT_PATTERN = 1 << 10,
    STRICT_WHY = 1 << 11,
    STRICT_RISK = 1 << 12,
    /* judge, if named: that nothing is known of a value is no fault of its author */
    STRICT_UNJUDGED = 1 << 13,
};

/* NULL: --strict alone. False after a message. */
bool strict_parse(const char *text, unsigned *ret_strict);
/* Of a class by its name, which must be one. */
unsigned strict_of(const char *name);

#endif
