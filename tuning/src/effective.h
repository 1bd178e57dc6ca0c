/* effective.h: what rules on an interface, which need not be what conf.INTERFACE says.
 *
 * The kernel combines conf.all and conf.INTERFACE, by a rule of each key (enum combine).
 */
#ifndef TUNE_EFFECTIVE_H
#define TUNE_EFFECTIVE_H

#include "live.h"
#include "plan.h"

/* The number that holds on the interface of path (net/ipv4/conf/eth0/...) now; of conf.all, those
 * of all interfaces, and with conf.default that of one that appears later. NULL where the key has
 * no such rule, or cannot be read. */
const char *effective_text(const struct sys *s, const char *path);
/* Interfaces where another value would hold than the plan wants, once it is applied; those that
 * appear later too. */
void effective_look(const struct sys *s, const char *profile, const struct plan *plan,
                    struct findings *f);

#endif
