/* token.h: what the waiting code needs of tokens beyond hardsock.h.
 *
 * Borrowed views: nothing here takes or gives a reference.
 */
#ifndef HS_CANCEL_TOKEN_H
#define HS_CANCEL_TOKEN_H

#include "waker.h"

struct hs_wakelist *hs_token_wakelist(struct hs_token *t);
/* Ended by hs_token_cancel (of it or an ancestor), deadlines apart. */
bool hs_token_is_cancelled(struct hs_token *t);
/* Made in this process, not inherited by fork. */
bool hs_token_is_ours(const struct hs_token *t);
long hs_token_live(void);

#endif
