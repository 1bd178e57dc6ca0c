/* guest.h: who wants to know when a connection ends, or leaves us (detach).
 *
 * A hook of floors above; a connection knows nothing else of them.
 */
#ifndef HS_STREAM_GUEST_H
#define HS_STREAM_GUEST_H

#include <stdbool.h>

struct hs_conn_guest {
    /* Once, at any moment, in any thread. ours: false in a forked child, where locks may be held by
     * threads that are not there. */
    void (*ended)(struct hs_conn_guest *guest, bool ours);
};

#endif
