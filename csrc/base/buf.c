/* buf.c: see buf.h. Invariant: head <= tail <= capacity, and data is NULL exactly when capacity is
 * zero.
 */
#include "buf.h"

#include "check.h"
#include "sys.h"

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
    if ((data = hs_sys_malloc(n + len)) == NULL)
        return HS_E_NOMEM;
    memcpy(data, bytes, n);
    if (len > 0)
        memcpy(data + n, b->data + b->head, len);
    hs_buf_fini(b);
    *b = (struct hs_buf){.data = data, .tail = n + len, .capacity = n + len};
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return HS_OK;
}

/* A move pays off when it frees at least as much as it copies: so each byte is moved at most once
 * for every byte that was dropped. */
static bool
compact(struct hs_buf *b, size_t n)
{
    size_t len = hs_buf_len(b);

    if (b->head < len || n > b->capacity - len)
        return false;
    if (len > 0)
        memcpy(b->data, b->data + b->head, len);
    b->head = 0;
    b->tail = len;
    return true;
}

static hs_err
grow(struct hs_buf *b, size_t n)
{
    size_t len = hs_buf_len(b), capacity = b->capacity;
    uint8_t *data;

    if (n > SIZE_MAX - len)
        return HS_E_NOMEM;
    capacity = capacity > SIZE_MAX / 2 || 2 * capacity < len + n ? len + n : 2 * capacity;
    if (b->head == 0) {
        if ((data = hs_sys_realloc(b->data, capacity)) == NULL)
            return HS_E_NOMEM;
        if (b->data == NULL)
            atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    } else {
        if ((data = hs_sys_malloc(capacity)) == NULL)
            return HS_E_NOMEM;
        memcpy(data, b->data + b->head, len);
        free(b->data);
    }
    *b = (struct hs_buf){.data = data, .tail = len, .capacity = capacity};
    return HS_OK;
}

hs_err
hs_buf_reserve(struct hs_buf *b, size_t n, uint8_t **ret_room)
{
    hs_err rv;

    HS_ASSERT(n > 0);
    if (hs_buf_room(b) < n && !compact(b, n) && (rv = grow(b, n)) != HS_OK)
        return rv;
    *ret_room = b->data + b->tail;
    return HS_OK;
}

void
hs_buf_commit(struct hs_buf *b, size_t n)
{
    HS_ASSERT(n <= hs_buf_room(b));
    b->tail += n;
}

void
hs_buf_drop(struct hs_buf *b, size_t n)
{
    HS_ASSERT(n <= hs_buf_len(b));
    b->head += n;
    if (b->head == b->tail)
        hs_buf_fini(b);
}

void
hs_buf_trim(struct hs_buf *b)
{
    if (b->head == b->tail)
        hs_buf_fini(b);
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
