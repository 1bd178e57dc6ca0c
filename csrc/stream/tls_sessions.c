/* tls_sessions.c: see tls_sessions.h.
 *
 * Everything is guarded by the store's lock (OpenSSL calls in here with the lock of a connection
 * held). References are dropped after it.
 */
#include "tls_sessions.h"

#include "tls_store.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <stdlib.h>
#include <string.h>

#define MAX_NAMES 256
#define PER_NAME 4 /* Servers send two tickets; concurrent connections use one each. */

struct kept {
    SSL_SESSION *session; /* owns */
    int64_t until_ns;
    struct tls_limits limits;
};

struct name {
    char *key; /* owns; NULL: free place */
    uint64_t used;
    struct kept kept[PER_NAME]; /* the oldest first */
    size_t n;
};

struct hs_tls_sessions {
    uint64_t clock;
    struct name names[MAX_NAMES];
};

struct hs_tls_sessions *
hs_tls_sessions_new(void)
{
    return hs_sys_calloc(1, sizeof(struct hs_tls_sessions));
}

/* Moves all that a name holds to the caller. */
static size_t
tls_sessions_empty(struct name *name, SSL_SESSION *out[PER_NAME])
{
    size_t n = name->n;

    for (size_t i = 0; i < n; i++)
        out[i] = name->kept[i].session;
    free(name->key);
    *name = (struct name){0};
    return n;
}

static void
free_all(SSL_SESSION *const *sessions, size_t n)
{
    for (size_t i = 0; i < n; i++)
        SSL_SESSION_free(sessions[i]);
}

void
hs_tls_sessions_free(struct hs_tls_sessions *s)
{
    SSL_SESSION *out[PER_NAME];

    if (s == NULL)
        return;
    for (size_t i = 0; i < MAX_NAMES; i++)
        free_all(out, tls_sessions_empty(&s->names[i], out));
    free(s);
}

static struct name *
tls_sessions_find_locked(struct hs_tls_sessions *s, const char *key)
{
    for (size_t i = 0; i < MAX_NAMES; i++)
        if (s->names[i].key != NULL && strcmp(s->names[i].key, key) == 0) {
            s->names[i].used = ++s->clock;
            return &s->names[i];
        }
    return NULL;
}

/* A free place, or that of the name which was not used for the longest time. */
static struct name *
place_locked(struct hs_tls_sessions *s)
{
    struct name *oldest = &s->names[0];

    for (size_t i = 0; i < MAX_NAMES; i++) {
        if (s->names[i].key == NULL)
            return &s->names[i];
        if (s->names[i].used < oldest->used)
            oldest = &s->names[i];
    }
    return oldest;
}

static SSL_SESSION *
remove_first(struct name *name)
{
    SSL_SESSION *first = name->kept[0].session;

    name->n--;
    memmove(&name->kept[0], &name->kept[1], name->n * sizeof(name->kept[0]));
    return first;
}

void
hs_tls_sessions_keep(struct hs_tls_sessions *s, const char *key, SSL_SESSION *session,
                     const struct tls_limits *limits)
{
    SSL_SESSION *out[PER_NAME + 1];
    size_t n_out = 0;
    struct name *name;
    int64_t until = hs_deadline_after((int64_t)SSL_SESSION_get_timeout(session) * HS_NS_PER_S);

    if (until > limits->until_ns)
        until = limits->until_ns;
    hs_tls_store_lock();
    if ((name = tls_sessions_find_locked(s, key)) == NULL) {
        name = place_locked(s);
        n_out = tls_sessions_empty(name, out);
        name->key = hs_sys_strdup(key);
        name->used = ++s->clock;
    }
    if (name->key == NULL) {
        out[n_out++] = session;
    } else {
        if (name->n == PER_NAME)
            out[n_out++] = remove_first(name);
        name->kept[name->n++] =
            (struct kept){.session = session, .until_ns = until, .limits = *limits};
    }
    hs_tls_store_unlock();
    free_all(out, n_out);
}

SSL_SESSION *
hs_tls_sessions_take(struct hs_tls_sessions *s, const char *key, struct tls_limits *ret_limits)
{
    SSL_SESSION *out[PER_NAME], *found = NULL;
    size_t n_out = 0;
    struct name *name;

    hs_tls_store_lock();
    name = tls_sessions_find_locked(s, key);
    while (name != NULL && found == NULL && name->n > 0) { /* the newest first */
        struct kept *last = &name->kept[name->n - 1];

        if (last->until_ns <= hs_now() || !SSL_SESSION_is_resumable(last->session)) {
            out[n_out++] = last->session;
            name->n--;
            continue;
        }
        *ret_limits = last->limits;
        if (SSL_SESSION_get_protocol_version(last->session) >= TLS1_3_VERSION) {
            found = last->session;
            name->n--;
        } else {
            found = last->session;
            (void)SSL_SESSION_up_ref(found);
        }
    }
    hs_tls_store_unlock();
    free_all(out, n_out);
    return found;
}

void
hs_tls_sessions_forget(struct hs_tls_sessions *s, const char *key)
{
    SSL_SESSION *out[PER_NAME];
    size_t n_out = 0;
    struct name *name;

    hs_tls_store_lock();
    if ((name = tls_sessions_find_locked(s, key)) != NULL)
        n_out = tls_sessions_empty(name, out);
    hs_tls_store_unlock();
    free_all(out, n_out);
}

size_t
hs_tls_sessions_count(struct hs_tls_sessions *s)
{
    size_t n = 0;

    hs_tls_store_lock();
    for (size_t i = 0; i < MAX_NAMES; i++)
        n += s->names[i].n;
    hs_tls_store_unlock();
    return n;
}
