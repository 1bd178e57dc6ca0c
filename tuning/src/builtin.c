/* builtin.c: the shipped profiles, inside the program.
 *
 * The binary alone is enough: `pip install` and a copied file work as an installed package does.
 * The assembler includes the YAML files as they are.
 */
#include "profile.h"

#include <string.h>

/* The Makefile says where; this is for a compiler that runs at the top of the tree. */
#ifndef PROFILE_DIR
#define PROFILE_DIR "tuning/profiles"
#endif

/* clang-format off */
#define EMBED(symbol, file)                                                                        \
    __asm__(".pushsection .rodata\n"                                                               \
            ".type profile_" #symbol ", %object\n"                                                 \
            "profile_" #symbol ":\n"                                                               \
            ".incbin \"" PROFILE_DIR "/" file "\"\n"                                               \
            ".type profile_" #symbol "_end, %object\n"                                             \
            "profile_" #symbol "_end:\n.byte 0\n"                                                  \
            ".popsection\n");                                                                      \
    extern const unsigned char profile_##symbol[] __attribute__((visibility("hidden")));           \
    extern const unsigned char profile_##symbol##_end[] __attribute__((visibility("hidden")))
/* clang-format on */

EMBED(article_2023, "article-2023.yaml");
EMBED(baseline, "baseline.yaml");
EMBED(bbr_wan, "bbr-wan.yaml");
EMBED(busy_server, "busy-server.yaml");
EMBED(cis, "cis.yaml");
EMBED(container, "container.yaml");
EMBED(edge_proxy, "edge-proxy.yaml");
EMBED(elasticsearch, "elasticsearch.yaml");
EMBED(folklore, "folklore.yaml");
EMBED(high_churn_client, "high-churn-client.yaml");
EMBED(kafka, "kafka.yaml");
EMBED(kubernetes_node, "kubernetes-node.yaml");
EMBED(long_haul, "long-haul.yaml");
EMBED(low_latency, "low-latency.yaml");
EMBED(postgresql, "postgresql.yaml");
EMBED(redis, "redis.yaml");

const struct builtin *
builtin_at(size_t i)
{
    static const struct builtin all[] = {
        {"article-2023", profile_article_2023, profile_article_2023_end},
        {"baseline", profile_baseline, profile_baseline_end},
        {"bbr-wan", profile_bbr_wan, profile_bbr_wan_end},
        {"busy-server", profile_busy_server, profile_busy_server_end},
        {"cis", profile_cis, profile_cis_end},
        {"container", profile_container, profile_container_end},
        {"edge-proxy", profile_edge_proxy, profile_edge_proxy_end},
        {"elasticsearch", profile_elasticsearch, profile_elasticsearch_end},
        {"folklore", profile_folklore, profile_folklore_end},
        {"high-churn-client", profile_high_churn_client, profile_high_churn_client_end},
        {"kafka", profile_kafka, profile_kafka_end},
        {"kubernetes-node", profile_kubernetes_node, profile_kubernetes_node_end},
        {"long-haul", profile_long_haul, profile_long_haul_end},
        {"low-latency", profile_low_latency, profile_low_latency_end},
        {"postgresql", profile_postgresql, profile_postgresql_end},
        {"redis", profile_redis, profile_redis_end},
    };

    return i < sizeof(all) / sizeof(all[0]) ? &all[i] : NULL;
}
