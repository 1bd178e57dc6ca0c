/* kb_gone.c: the knowledge base, part three: settings that are gone or never were, and kb_find.
 *
 * Guides still recommend them. They are explained instead of being reported as unknown.
 */
#include "kb.h"

#include <ctype.h>
#include <stdlib.h>

#include "key.h"

#define GONE .type = TYPE_TEXT, .scope = SCOPE_NONE, .min = 1, .max = 0
const struct kb_key kb_gone[] = {
    {.path = "net/ipv4/tcp_tw_recycle",
     GONE,
     .removed = "4.12",
     .meaning = "Was: drop TIME_WAIT early by remembering each peer's timestamps.",
     .myth = "It broke every client behind NAT, and was removed. For outgoing connections see "
             "net.ipv4.tcp_tw_reuse; better, reuse connections."},
    {.path = "net/ipv4/tcp_user_timeout",
     GONE,
     .meaning =
         "Never was a sysctl. TCP_USER_TIMEOUT is a socket option (setsockopt), in milliseconds.",
     .myth =
         "There is no way to set it for all sockets; net.ipv4.tcp_retries2 is the nearest thing."},
    {.path = "net/ipv4/tcp_low_latency",
     GONE,
     .removed = "4.14",
     .meaning = "Does nothing since the prequeue was removed; the file may still be there."},
    {.path = "net/ipv4/tcp_fack",
     GONE,
     .removed = "4.15",
     .meaning =
         "Does nothing since RACK replaced forward acknowledgements; the file may still be there."},
    {.path = "net/ipv4/tcp_adv_win_scale",
     GONE,
     .removed = "6.6",
     .meaning = "Obsolete since 6.6: the overhead of buffers is measured, not guessed."},
    {.path = "net/ipv4/tcp_frto_response",
     GONE,
     .removed = "3.10",
     .meaning = "Removed with the rewrite of F-RTO."},
    {.path = "net/ipv4/tcp_max_ssthresh", GONE, .removed = "3.9", .meaning = "Removed."},
    {.path = "net/ipv4/tcp_abc",
     GONE,
     .removed = "3.9",
     .meaning = "Removed: appropriate byte counting is gone."},
    {.path = "net/ipv4/tcp_dma_copybreak",
     GONE,
     .removed = "3.13",
     .meaning = "Removed with NET_DMA."},
    {.path = "net/ipv4/ip_conntrack_max",
     GONE,
     .removed = "2.6.20",
     .meaning = "Now net.netfilter.nf_conntrack_max."},
    {.path = "net/ipv6/conf/*/rp_filter",
     GONE,
     .meaning = "There never was an IPv6 reverse path filter; use nftables (fib saddr)."},
    {0},
};

static const struct kb_key *const tables[] = {kb_tcp, kb_net, kb_gone};

const struct kb_key *
kb_at(size_t i)
{
    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
        for (const struct kb_key *k = tables[t]; k->path != NULL; k++)
            if (i-- == 0)
                return k;
    return NULL;
}

const struct kb_key *
kb_find(const char *path)
{
    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
        for (const struct kb_key *k = tables[t]; k->path != NULL; k++)
            if (key_matches(k->path, path))
                return k;
    return NULL;
}

const char *
kb_scope_name(enum scope scope)
{
    switch (scope) {
    case SCOPE_NAMESPACE:
        return "namespace";
    case SCOPE_GLOBAL:
        return "global";
    case SCOPE_READONLY:
        return "global, readable in namespaces";
    case SCOPE_NONE:
        break;
    }
    return "none";
}

const char *
kb_effect_text(const struct kb_key *k)
{
    if (k->scope == SCOPE_NONE)
        return "none";
    if (k->when != NULL)
        return k->when;
    switch (k->effect) {
    case EFFECT_LIVE:
        return "at once, running sockets too";
    case EFFECT_NEW:
        return "new sockets only";
    case EFFECT_LISTEN:
        return "at listen()";
    case EFFECT_CALL:
        return "at the call";
    case EFFECT_PARTLY:
        break;
    }
    return "partly at once";
}

int
kernel_compare(const char *a, const char *b)
{
    for (int part = 0; part < 3; part++) {
        char *end_a, *end_b;
        long x = strtol(a, &end_a, 10), y = strtol(b, &end_b, 10);

        if (x != y)
            return x < y ? -1 : 1;
        a = *end_a == '.' && isdigit((unsigned char)end_a[1]) ? end_a + 1 : "";
        b = *end_b == '.' && isdigit((unsigned char)end_b[1]) ? end_b + 1 : "";
    }
    return 0;
}

const char *
kb_doubt(const struct kb_key *k, const struct value *v)
{
    if (k == NULL || v->type != TYPE_INTS || k->min > k->max)
        return NULL;
    for (size_t i = 0; i < v->n; i++)
        if (v->num[i] < k->min || v->num[i] > k->max)
            return "is outside the range that makes sense for this setting; kernels may accept it";
    return NULL;
}
