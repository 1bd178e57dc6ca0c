/* tls_store.h: the one lock over what TLS settings share: the context of the moment, sessions kept,
 * ticket keys.
 *
 * One for all of them in the process, because settings live on in a forked child, where a lock that
 * another thread held at that moment would stay taken for ever: this one is held around each fork.
 * Only for moments: nothing is encrypted, read from files or freed under it.
 */
#ifndef HS_STREAM_TLS_STORE_H
#define HS_STREAM_TLS_STORE_H

void hs_tls_store_lock(void);
void hs_tls_store_unlock(void);

#endif
