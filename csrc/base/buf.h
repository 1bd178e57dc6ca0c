/* buf.h: a byte buffer with two cursors.
 *
 * Holds bytes that were received but not yet returned to the caller. Memory is held only while
 * there are bytes in it, or room that was reserved for some, so that an idle connection costs none.
 * It follows what really arrived: nothing that a peer merely claims makes it grow. Whatever changes
 * the buffer ends the life of pointers into it.
 */
#ifndef HS_BASE_BUF_H
#define HS_BASE_BUF_H

#include "hardsock.h"

struct hs_buf {
    uint8_t *data;
    size_t head, tail, capacity;
};

static inline size_t
hs_buf_len(const struct hs_buf *b)
{
    return b->tail - b->head;
}

/* Puts n bytes in front of those that are there. HS_E_NOMEM leaves the buffer as it was. */
HS_NODISCARD hs_err hs_buf_prepend(struct hs_buf *b, const uint8_t *bytes, size_t n);
/* Moves at most n bytes out; returns how many. Frees the memory with the last byte. */
size_t hs_buf_take(struct hs_buf *b, uint8_t *to, size_t n);
/* Consumes n bytes, which must be there. Frees the memory with the last byte. */
void hs_buf_drop(struct hs_buf *b, size_t n);
/* Room for n (> 0) or more bytes behind those that are there; HS_E_NOMEM leaves the buffer as it
 * was. Total work is linear in the bytes that pass through. The buffer then holds memory even while
 * it is empty: hs_buf_commit what was written there, or hs_buf_trim.
 * borrows: *ret_room until the next change of b. */
HS_NODISCARD hs_err hs_buf_reserve(struct hs_buf *b, size_t n, uint8_t **ret_room);
/* The first n bytes of the room now belong to the buffer; n is at most what was reserved. */
void hs_buf_commit(struct hs_buf *b, size_t n);
/* Frees the memory if there are no bytes in it. */
void hs_buf_trim(struct hs_buf *b);
/* All that can be committed without another reserve. */
static inline size_t
hs_buf_room(const struct hs_buf *b)
{
    return b->capacity - b->tail;
}
/* Copies at most n bytes without consuming them. */
size_t hs_buf_peek(const struct hs_buf *b, uint8_t *to, size_t n);
void hs_buf_fini(struct hs_buf *b);

/* How many buffers hold memory in this process. */
long hs_buf_live(void);

#endif
