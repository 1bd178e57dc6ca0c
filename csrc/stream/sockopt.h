/* sockopt.h: applying socket options and asking the kernel what became of them.
 *
 * Works on bare descriptors: connections, attempts and listeners all use it.
 */
#ifndef HS_STREAM_SOCKOPT_H
#define HS_STREAM_SOCKOPT_H

#include "hardsock.h"

/* When an option has to be set: some only matter before connect(2) or listen(2). */
enum hs_sockopt_use { HS_USE_CONNECTION, HS_USE_LISTENER };

/* Sets all options of o that apply to the family. *ret_changed counts those that the kernel
 * silently made into something else. */
HS_NODISCARD hs_err hs_sockopts_apply(int fd, int family, const struct hs_sockopts *o,
                                      enum hs_sockopt_use use, struct hs_error *err,
                                      unsigned *ret_changed);
/* What one connection gets of o: with dead_after, a quiet time and an interval of its own, drawn at
 * random. Thousands that were opened together would otherwise probe in the same millisecond and
 * overflow the kernel's queue (net.core.netdev_max_backlog), each time again. Never fails. */
void hs_sockopts_draw(const struct hs_sockopts *o, struct hs_sockopts *ret_own);
/* The same for one that was accepted and has inherited the listener's; sets them. A value that the
 * kernel refuses stays the inherited one. */
void hs_sockopts_draw_accepted(int fd, int family, const struct hs_sockopts *o,
                               struct hs_sockopts *ret_own);
/* For tests: the same numbers after the same seed; 0 goes back to chance. */
void hs_sockopts_seed(uint64_t from);
/* For tests: schedules of a kernel of so many timer ticks a second; 0 goes back to this one's. */
void hs_sockopts_assume_hz(int hz);
/* settings has HS_SETTINGS_MAX places; returns how many are filled. */
size_t hs_sockopts_audit(int fd, int family, const struct hs_sockopts *o, enum hs_sockopt_use use,
                         struct hs_setting *settings);
/* Whether it is a socket of MPTCP, or the kernel does not say. */
bool hs_sockopt_may_be_mptcp(int fd);
/* Linger with a time makes close(2) block, even on a non-blocking socket (measured, and
 * net/ipv4/tcp.c): takes it away. A linger of zero, which resets, stays. */
void hs_sockopt_never_block_close(int fd);
/* Whether it has a linger of zero. */
bool hs_sockopt_resets_on_close(int fd);

#endif
