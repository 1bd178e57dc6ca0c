/* fd_owner.h: the table of who owns which descriptor number.
 *
 * Of the whole process, as numbers are; see fd_owner.c for the invariants.
 */
#ifndef HS_STREAM_FD_OWNER_H
#define HS_STREAM_FD_OWNER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* The id of the owner, or 0. NULL: it is not in the table, for its size or for want of memory, and
 * nobody is checked; make: memory is taken for it. */
_Atomic uint64_t *hs_fd_owner(int number, bool make);
/* Closes what hs_linger was given. */
void hs_fd_close_number(int number);

#endif
