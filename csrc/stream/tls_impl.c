/* tls_impl.c: from an SSL object to what we know of it.
 *
 * For what OpenSSL calls (tls_callbacks.c, tls_resume.c), beneath tls.c, which calls OpenSSL.
 */
#include "tls_impl.h"

#include "../base/sys.h"

struct hs_tls *
hs_tls_of(const SSL *ssl)
{
    return SSL_get_app_data(ssl);
}

struct tls_verdict *
hs_tls_verdict(struct hs_tls *t)
{
    if (t->verdict == NULL)
        t->verdict = hs_sys_calloc(1, sizeof(*t->verdict));
    return t->verdict;
}
