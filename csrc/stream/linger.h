/* linger.h: descriptors that were closed and still have something to deliver.
 *
 * A TLS 1.3 server sends session tickets after the handshake, unasked. A client that only writes
 * and closes has never read them: the kernel answers what arrives at a closed socket with a reset,
 * and throws away what it had not delivered yet (openssl issues 10880, 7948; RFC 2525 section
 * 2.17). So such a descriptor is ended for writing and read to its end here, by a thread that there
 * is only while there are any.
 */
#ifndef HS_STREAM_LINGER_H
#define HS_STREAM_LINGER_H

/* Takes fd, a connected socket; in a few seconds it is closed in any case. Never blocks. */
void hs_linger(int fd);
/* How many there are now. */
long hs_linger_live(void);

#endif
