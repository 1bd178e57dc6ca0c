/* winners.h: who wins at the next boot.
 *
 * Shared by `persist`, which reports it after writing, and `conflicts`.
 */
#ifndef TUNE_WINNERS_H
#define TUNE_WINNERS_H

#include "report.h"

/* Prints what overrides the wanted values; returns how many do. */
size_t winners_show(const struct options *o, const struct report *r);

#endif
