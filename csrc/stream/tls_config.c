/* tls_config.c: what callers share, and the context of the moment behind it. See tls_config.h.
 *
 * current is guarded by the store's lock, which is held to take a reference and no longer; a
 * context is built without it. Ticket keys outlive a reload, so that clients can resume: but not
 * where a resumed session stands for a client certificate that the new settings might refuse.
 */
#include "tls_config.h"

#include "tls_store.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <stdlib.h>
#include <string.h>

#define CONFIG_MAGIC 0x70c37150U
#define FREED 0x75

struct hs_tls_config {
    unsigned magic;
    atomic_int refs;
    enum hs_tls_role role;          /* immutable */
    struct hs_tls_context *current; /* owns a reference; guarded by the store's lock */
};

void
hs_tls_options_init(struct hs_tls_options *o, enum hs_tls_role role)
{
    *o = (struct hs_tls_options){
        .role = role,
        .system_ca = role == HS_TLS_CLIENT,
        .min_version = HS_TLS_1_2,
        .max_version = HS_TLS_1_3,
        .security_level = 2, /* 112 bits */
        .ocsp = role == HS_TLS_CLIENT ? HS_TLS_OCSP_CHECK : HS_TLS_OCSP_OFF,
        .sessions = true,
        .tickets = 2,
        .session_lifetime_s = 7200,
        .handshake_timeout_ns = 10 * HS_NS_PER_S,
    };
}

hs_err
hs_tls_config_new(const struct hs_tls_options *o, struct hs_error *err,
                  struct hs_tls_config **ret_config)
{
    struct hs_tls_config *config;
    struct hs_tls_context *context;
    hs_err rv;

    if ((rv = hs_tls_context_new(o, NULL, err, &context)) != HS_OK)
        return rv;
    if ((config = hs_sys_calloc(1, sizeof(*config))) == NULL) {
        hs_tls_context_unref(context);
        return hs_err_setx(err, HS_E_NOMEM, "tls", "no memory for a TLS configuration");
    }
    config->magic = CONFIG_MAGIC;
    config->refs = 1;
    config->role = o->role;
    config->current = context;
    *ret_config = config;
    return HS_OK;
}

struct hs_tls_config *
hs_tls_config_ref(struct hs_tls_config *config)
{
    HS_CHECK(config, CONFIG_MAGIC);
    atomic_fetch_add_explicit(&config->refs, 1, memory_order_relaxed);
    return config;
}

void
hs_tls_config_unref(struct hs_tls_config *config)
{
    if (config == NULL)
        return;
    HS_CHECK(config, CONFIG_MAGIC);
    if (atomic_fetch_sub(&config->refs, 1) != 1)
        return;
    hs_tls_context_unref(config->current);
    memset(config, FREED, sizeof(*config));
    free(config);
}

struct hs_tls_context *
hs_tls_config_context(struct hs_tls_config *config)
{
    struct hs_tls_context *context;

    HS_CHECK(config, CONFIG_MAGIC);
    hs_tls_store_lock();
    context = config->current;
    atomic_fetch_add_explicit(&context->refs, 1, memory_order_relaxed);
    hs_tls_store_unlock();
    return context;
}

static struct hs_tls_context *
swap(struct hs_tls_config *config, struct hs_tls_context *with)
{
    struct hs_tls_context *old;

    hs_tls_store_lock();
    old = config->current;
    config->current = with;
    hs_tls_store_unlock();
    return old;
}

hs_err
hs_tls_config_reload(struct hs_tls_config *config, const struct hs_tls_options *o,
                     struct hs_error *err)
{
    struct hs_tls_context *fresh, *present = hs_tls_config_context(config);
    hs_err rv;

    if (o->role != config->role)
        rv = hs_err_setx(err, HS_E_INVALID, "tls", "role cannot change by a reload");
    else
        rv = hs_tls_context_new(o, o->certs == HS_TLS_CERTS_NONE ? present->tickets : NULL, err,
                                &fresh);
    hs_tls_context_unref(present);
    if (rv == HS_OK)
        hs_tls_context_unref(swap(config, fresh));
    return rv;
}

hs_err
hs_tls_config_give_ticket_keys(struct hs_tls_config *config, const uint8_t *bytes, size_t len,
                               struct hs_error *err)
{
    struct hs_tls_context *present;

    if (config->role != HS_TLS_SERVER)
        return hs_err_setx(err, HS_E_INVALID, "tls", "ticket keys are a server's");
    if (len == 0 || len % HS_TLS_TICKET_KEY_SIZE != 0 || len / HS_TLS_TICKET_KEY_SIZE > 3)
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "ticket keys must be 1 to 3 of %d bytes each, got %zu bytes in all",
                           HS_TLS_TICKET_KEY_SIZE, len);
    present = hs_tls_config_context(config);
    if (present->tickets != NULL)
        hs_tls_tickets_give(present->tickets, bytes, len / HS_TLS_TICKET_KEY_SIZE);
    hs_tls_context_unref(present);
    return HS_OK;
}

enum hs_tls_role
hs_tls_config_role(const struct hs_tls_config *config)
{
    return config->role;
}

int64_t
hs_tls_config_handshake_timeout(struct hs_tls_config *config)
{
    struct hs_tls_context *context = hs_tls_config_context(config);
    int64_t timeout = context->handshake_timeout_ns;

    hs_tls_context_unref(context);
    return timeout;
}

size_t
hs_tls_config_sessions(struct hs_tls_config *config)
{
    struct hs_tls_context *context = hs_tls_config_context(config);
    size_t n = context->sessions != NULL ? hs_tls_sessions_count(context->sessions) : 0;

    hs_tls_context_unref(context);
    return n;
}
