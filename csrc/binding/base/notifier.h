/* notifier.h: calls into the program that no thread of the program waits for: callbacks of tokens
 * whose deadline passes, alarms of pools.
 *
 * One native thread for each interpreter, which is attached to it only while it calls. The
 * threading module does not know it, so interpreters that forbid (daemon) threads have it, too.
 */
#ifndef HS_BINDING_NOTIFIER_H
#define HS_BINDING_NOTIFIER_H

#include "state.h"

/* What an alarm's arg begins with. */
struct notice {
    struct hs_alarm_hooks hooks;
    void (*tell)(struct notice *notice); /* attached; leaves no exception set */
};

/* Takes notice, also on failure. *alarm stays NULL, without an exception, when the interpreter ends
 * already: nobody would be told. 0, or -1 with an exception set. */
int notifier_arm(mod_state *st, struct notice *notice, const struct hs_op *op,
                 struct hs_alarm **ret_alarm);
/* Alarms are looked at from now on. */
int notifier_start(mod_state *st);

/* Nothing is told any more. */
void notifier_interpreter_ends(mod_state *st);

int notifier_init(mod_state *st);
void notifier_fini(mod_state *st);

#endif
