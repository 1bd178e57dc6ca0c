/* dial_failure.c: what a dial of a pool has tried, for all who get its error.
 *
 * Counted references, so that an error can be told after the next dial has begun.
 */
#include "pool_impl.h"

#include "../base/sys.h"

#include <stdlib.h>

struct hs_dial_failure {
    atomic_int refs;
    int64_t began_ns;
    bool was_refused;
    struct hs_addr refused;
    char host[HS_ADDR_TEXT_SIZE];
    size_t n;
    struct hs_attempt attempts[];
};

/* NULL: there is no memory, or nothing was tried. The error stands for itself then. */
struct hs_dial_failure *
hs_dial_failure_new(struct hs_connector *cn, int64_t began_ns)
{
    size_t n = 0;
    const struct hs_attempt *attempts = cn == NULL ? NULL : hs_connector_attempts(cn, &n);
    const struct hs_addr *refused = cn == NULL ? NULL : hs_connector_refused(cn);
    struct hs_dial_failure *f = hs_sys_calloc(1, sizeof(*f) + n * sizeof(f->attempts[0]));

    if (f == NULL)
        return NULL;
    f->refs = 1;
    f->began_ns = began_ns;
    f->n = n;
    for (size_t i = 0; i < n; i++)
        f->attempts[i] = attempts[i];
    if (cn != NULL)
        (void)hs_endpoint_text(hs_connector_endpoint(cn), f->host, sizeof(f->host));
    if ((f->was_refused = refused != NULL))
        f->refused = *refused;
    return f;
}

struct hs_dial_failure *
hs_dial_failure_ref(struct hs_dial_failure *f)
{
    atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
    return f;
}

void
hs_dial_failure_unref(struct hs_dial_failure *f)
{
    if (f != NULL && atomic_fetch_sub(&f->refs, 1) == 1)
        free(f);
}

const struct hs_attempt *
hs_dial_failure_attempts(const struct hs_dial_failure *f, size_t *ret_n, int64_t *ret_began_ns)
{
    *ret_n = f->n;
    *ret_began_ns = f->began_ns;
    return f->attempts;
}

const char *
hs_dial_failure_host(const struct hs_dial_failure *f)
{
    return f->host;
}

const struct hs_addr *
hs_dial_failure_refused(const struct hs_dial_failure *f)
{
    return f->was_refused ? &f->refused : NULL;
}
