/* buf.h: a byte buffer with two cursors.
 *
 * Holds bytes that were received but not yet returned to the caller. Memory is held only while
 * there are bytes in it, so that an idle connection costs none, and never more than what really
 * arrived: nothing that a peer merely claims makes it grow. Every growth moves the bytes, so that a
 * pointer kept across one is found out by the sanitizers.
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
/* Copies at most n bytes without consuming them. */
size_t hs_buf_peek(const struct hs_buf *b, uint8_t *to, size_t n);
void hs_buf_fini(struct hs_buf *b);

/* How many buffers hold memory in this process. */
long hs_buf_live(void);

#endif
