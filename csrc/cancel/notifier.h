/* notifier.h: what live.c asks of notifiers.
 *
 * All else that they do is called from outside, and stands in hardsock.h.
 */
#ifndef HS_CANCEL_NOTIFIER_H
#define HS_CANCEL_NOTIFIER_H

#include "hardsock_binding.h"

long hs_notifier_live(void);

#endif
