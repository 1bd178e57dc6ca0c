/* buf.c: see buf.h. Invariant: head <= tail <= capacity, and data is NULL exactly when capacity is
 * zero.
 */
#include "buf.h"

#include "check.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_long live;

long
hs_buf_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

hs_err
hs_buf_prepend(struct hs_buf *b, const uint8_t *bytes, size_t n)
{
    size_t len = hs_buf_len(b);
    uint8_t *data;

    if (n == 0)
        return HS_OK;
    if (n > SIZE_MAX - len)
        return HS_E_NOMEM;
    if ((data = malloc(n + len)) == NULL)
        return HS_E_NOMEM;
    memcpy(data, bytes, n);
    if (len > 0)
        memcpy(data + n, b->data + b->head, len);
    hs_buf_fini(b);
    *b = (struct hs_buf){.data = data, .tail = n + len, .capacity = n + len};
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return HS_OK;
}

size_t
hs_buf_peek(const struct hs_buf *b, uint8_t *to, size_t n)
{
    size_t len = hs_buf_len(b);

    if (n > len)
        n = len;
    if (n > 0)
        memcpy(to, b->data + b->head, n);
    return n;
}

size_t
hs_buf_take(struct hs_buf *b, uint8_t *to, size_t n)
{
    n = hs_buf_peek(b, to, n);
    b->head += n;
    if (b->head == b->tail)
        hs_buf_fini(b);
    return n;
}

void
hs_buf_fini(struct hs_buf *b)
{
    if (b->data != NULL) {
        free(b->data);
        atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    }
    *b = (struct hs_buf){0};
}
