/* queue.c: bytes in a row, of which more are added behind and taken in front.
 *
 * Room grows as it is needed, and is given back with the queue.
 */
#include "net.h"

#include <stdlib.h>
#include <string.h>

void
sim_queue_add(struct sim_queue *q, const uint8_t *bytes, size_t n)
{
    if (n == 0)
        return;
    if (q->start + q->len + n > q->room) {
        if (q->len > 0)
            memmove(q->bytes, q->bytes + q->start, q->len);
        q->start = 0;
        if (q->len + n > q->room) {
            q->room = 2 * (q->len + n);
            if ((q->bytes = realloc(q->bytes, q->room)) == NULL)
                abort();
        }
    }
    memcpy(q->bytes + q->start + q->len, bytes, n);
    q->len += n;
}

size_t
sim_queue_get(struct sim_queue *q, uint8_t *to, size_t n, bool take)
{
    n = n < q->len ? n : q->len;
    if (n > 0 && to != NULL)
        memcpy(to, q->bytes + q->start, n);
    if (take) {
        q->start += n;
        q->len -= n;
    }
    return n;
}

void
sim_queue_free(struct sim_queue *q)
{
    free(q->bytes);
    *q = (struct sim_queue){0};
}
