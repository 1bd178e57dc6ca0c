/* tls_tickets.c: see tls_tickets.h.
 *
 * keys[0] seals; all open. Rotation happens when somebody asks and it is time, so it needs no
 * timer. Guarded by the store's lock. Keys that were given are not replaced: the one who gives them
 * to several processes does that.
 */
#include "tls_tickets.h"

#include "tls_store.h"

#include "../base/sys.h"
#include "../base/time.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 3 /* Half a lifetime each, and a ticket may be sealed at the very end of one. */

struct key {
    unsigned char name[16], aes[32], hmac[32];
    int64_t made_ns; /* 0: no key */
};

struct hs_tls_tickets {
    atomic_int refs;
    int64_t rotate_ns;
    bool given;            /* guarded by the store's lock, as the next */
    struct key keys[KEYS]; /* guarded by the store's lock; the present one first */
};

static bool
tls_tickets_make_key(struct key *key, int64_t now)
{
    struct key fresh = {.made_ns = now};

    if (RAND_bytes(fresh.name, sizeof(fresh.name)) != 1 ||
        RAND_priv_bytes(fresh.aes, sizeof(fresh.aes)) != 1 ||
        RAND_priv_bytes(fresh.hmac, sizeof(fresh.hmac)) != 1)
        return false;
    *key = fresh;
    OPENSSL_cleanse(&fresh, sizeof(fresh));
    return true;
}

struct hs_tls_tickets *
hs_tls_tickets_new(int64_t lifetime_s, int64_t now_ns)
{
    struct hs_tls_tickets *t = hs_sys_calloc(1, sizeof(*t));

    if (t == NULL)
        return NULL;
    t->refs = 1;
    t->rotate_ns = lifetime_s * HS_NS_PER_S / 2;
    if (!tls_tickets_make_key(&t->keys[0], now_ns)) {
        hs_tls_tickets_unref(t);
        return NULL;
    }
    return t;
}

struct hs_tls_tickets *
hs_tls_tickets_ref(struct hs_tls_tickets *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void
hs_tls_tickets_unref(struct hs_tls_tickets *t)
{
    if (t == NULL || atomic_fetch_sub(&t->refs, 1) != 1)
        return;
    OPENSSL_cleanse(t->keys, sizeof(t->keys));
    free(t);
}

void
hs_tls_tickets_give(struct hs_tls_tickets *t, const uint8_t *bytes, size_t n)
{
    struct key keys[KEYS] = {0};
    int64_t now = hs_now();

    for (size_t i = 0; i < n && i < KEYS; i++, bytes += HS_TLS_TICKET_KEY_SIZE) {
        keys[i].made_ns = now;
        memcpy(keys[i].name, bytes, sizeof(keys[i].name));
        memcpy(keys[i].aes, bytes + 16, sizeof(keys[i].aes));
        memcpy(keys[i].hmac, bytes + 48, sizeof(keys[i].hmac));
    }
    hs_tls_store_lock();
    memcpy(t->keys, keys, sizeof(keys));
    t->given = true;
    hs_tls_store_unlock();
    OPENSSL_cleanse(keys, sizeof(keys));
}

/* Without randomness the present key stays a little longer. */
static void
rotate_locked(struct hs_tls_tickets *t, int64_t now)
{
    struct key fresh;

    if (t->given)
        return;
    if (now - t->keys[0].made_ns >= t->rotate_ns && tls_tickets_make_key(&fresh, now)) {
        memmove(&t->keys[1], &t->keys[0], (KEYS - 1) * sizeof(t->keys[0]));
        t->keys[0] = fresh;
        OPENSSL_cleanse(&fresh, sizeof(fresh));
    }
    for (size_t i = 1; i < KEYS; i++)
        if (t->keys[i].made_ns != 0 && now - t->keys[i].made_ns > KEYS * t->rotate_ns)
            OPENSSL_cleanse(&t->keys[i], sizeof(t->keys[i]));
}

static int
tls_tickets_find_locked(const struct hs_tls_tickets *t, const unsigned char name[16])
{
    for (int i = 0; i < KEYS; i++)
        if (t->keys[i].made_ns != 0 && CRYPTO_memcmp(t->keys[i].name, name, 16) == 0)
            return i;
    return -1;
}

static bool
use_key(const struct key *key, const unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
        int enc)
{
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)key->hmac,
                                          sizeof(key->hmac)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };

    return EVP_MAC_CTX_set_params(mac, params) == 1 &&
           EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->aes, iv, enc) == 1;
}

int
hs_tls_tickets_key(struct hs_tls_tickets *t, int64_t now_ns, unsigned char name[16],
                   unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int enc)
{
    struct key key;
    int which = 0, result = -1;

    if (enc == 1 && RAND_bytes(iv, EVP_MAX_IV_LENGTH) != 1)
        return -1;
    hs_tls_store_lock();
    rotate_locked(t, now_ns);
    if (enc == 0)
        which = tls_tickets_find_locked(t, name);
    if (which >= 0)
        key = t->keys[which];
    hs_tls_store_unlock();
    if (which < 0)
        return 0; /* Not ours, or too old: a full handshake. */
    if (enc == 1)
        memcpy(name, key.name, sizeof(key.name));
    if (use_key(&key, iv, cipher, mac, enc))
        result = which == 0 ? 1 : 2; /* 2: open it, and seal a new one with the present key */
    OPENSSL_cleanse(&key, sizeof(key));
    return result;
}
