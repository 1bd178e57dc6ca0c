/* link.c: hosts, and the way between each two of them.
 *
 * A packet takes the latency and a random part of the jitter, or is lost. Packets of one connection
 * stay in order, those of different ones do not. A way may be cut in one direction, a host may lose
 * its power, and IPv6 may lead nowhere while IPv4 works.
 */
#include "net.h"

#include <netinet/in.h>
#include <stdlib.h>

struct way {
    bool down;
    int64_t last_ns[64]; /* of the connections whose ports share a place: those stay in order */
};

static struct way ways[SIM_HOSTS][SIM_HOSTS];
static bool dead[SIM_HOSTS], no_ipv6;
static size_t flying;

uint32_t
sim_ip(int host)
{
    return htonl(0x0a000001U + (uint32_t)host);
}

void
sim_cut(int from, int to, bool down)
{
    ways[from][to].down = down;
}

void
sim_heal_all(void)
{
    for (int from = 0; from < SIM_HOSTS; from++)
        for (int to = 0; to < SIM_HOSTS; to++)
            ways[from][to].down = false;
}

void
sim_lose_ipv6(void)
{
    no_ipv6 = true;
}

void
sim_kill(int host)
{
    dead[host] = true;
}

bool
sim_host_is_there(int host)
{
    return host >= 0 && host < SIM_HOSTS;
}

size_t
sim_packets(void)
{
    return flying;
}

static void
arrive(void *arg, uint64_t number)
{
    struct sim_packet *p = arg;

    (void)number;
    flying--;
    if (!dead[p->to])
        sim_tcp_arrive(p);
    free(p);
}

struct sim_packet *
sim_packet_new(size_t len)
{
    struct sim_packet *p = calloc(1, sizeof(*p) + len);

    if (p == NULL)
        abort();
    p->len = len;
    return p;
}

void
sim_post(struct sim_packet *p)
{
    struct way *way = &ways[p->from][p->to];
    int64_t *last = &way->last_ns[(p->from_port ^ p->to_port) % SIM_LENGTH(way->last_ns)];
    int64_t at = sim_now() + sim_settings.latency_ns + sim_between(0, sim_settings.jitter_ns);
    bool nowhere = no_ipv6 && p->family == AF_INET6;

    if (way->down || nowhere || dead[p->from] || dead[p->to] || sim_chance(sim_settings.loss)) {
        free(p);
        return;
    }
    *last = at > *last ? at : *last;
    flying++;
    sim_at(*last, arrive, p, 0);
}
