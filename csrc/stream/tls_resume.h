/* tls_resume.h: what a session must still be good for when somebody resumes it.
 *
 * A resumed handshake shows no certificates: who resumes is believed for what an earlier handshake
 * has verified. So a session is good until the first certificate of that chain expires; with lists,
 * which end, too, the chain is verified again. A change of the authorities or the lists is a
 * reload, which leaves all sessions behind that stand for certificates. Whatever is not good any
 * more is answered by a full handshake. And what is resumed again and again ends: all tickets that
 * follow from one full handshake have its end.
 */
#ifndef HS_STREAM_TLS_RESUME_H
#define HS_STREAM_TLS_RESUME_H

#include "tls_impl.h"

/* Server: installs what writes into a ticket when its session began and the intermediates of the
 * client's chain, and what judges a ticket that comes. context is borrowed. */
void hs_tls_resume_install(struct hs_tls_context *context);
/* Client: gives ssl a session that was kept under session_key, if one is still good. Sessions that
 * are not leave the store. */
void hs_tls_resume_offer(struct hs_tls *t);
/* Client, in OpenSSL's callback: keeps a session. Takes the reference. */
void hs_tls_resume_keep(struct hs_tls *t, SSL_SESSION *session);

#endif
