/* callback.h: callbacks on a token, between token.c and callback.c.
 *
 * token.c owns the list and its lock; callback.c owns what happens to an entry from there on.
 */
#ifndef HS_CANCEL_CALLBACK_H
#define HS_CANCEL_CALLBACK_H

#include "waker.h"

/* Linked into callbacks; lock guards it and is t's. NULL when there is no memory. */
struct hs_callback *hs_callback_new(struct hs_token *t, struct hs_lock *lock,
                                    struct hs_list *callbacks, void (*fn)(void *arg),
                                    void (*release)(void *arg), void *arg);
/* Takes an idle callback back as if it had never been made: true. False when it was claimed. */
bool hs_callback_withdraw(struct hs_callback *cb);
/* Under t's lock: moves all callbacks to fired and marks them claimed. */
void hs_callbacks_claim(struct hs_token *t, struct hs_list *callbacks, struct hs_list *fired);
/* Turns the list into the chain that hs_callbacks_run takes. */
struct hs_callback *hs_callbacks_detach(struct hs_list *fired);
/* For a token that goes: drops callbacks that will never run. */
void hs_callbacks_drop_all(struct hs_list *callbacks);

#endif
