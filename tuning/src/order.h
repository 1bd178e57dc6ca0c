/* order.h: keys whose numbers must rise from one to the next.
 *
 * The kernel takes every one of them alone, and does something else than what was meant.
 */
#ifndef TUNE_ORDER_H
#define TUNE_ORDER_H

#include "value.h"

/* What `from` makes of a key. False: it has no word on it. *ret holds the key's default before. */
typedef bool order_lookup(const void *from, const char *path, struct value *ret);

/* What is wrong with path between its neighbours, as `from` sets them; NULL: nothing. */
const char *order_doubt(order_lookup *lookup, const void *from, const char *path);
/* So too, and only what loses packets: for what is written to a machine. */
const char *order_refusal(order_lookup *lookup, const void *from, const char *path);

#endif
