/* proxied.c: a header of the PROXY protocol in front of each connection, in any pieces.
 *
 * Who answers a client takes it for the one that the header names, which is not where it comes
 * from.
 */
#include "world.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define HEADER_MAX 107
#define FIRST_PORT 1000

static bool proxied;

bool
proxy_is_there(void)
{
    return proxied;
}

void
proxy_for_listener(struct hs_listen_options *o)
{
    /* All of each family. */
    static const struct hs_network from[] = {
        {.family = AF_INET}, {.family = AF_INET6}, {.family = AF_UNIX}};

    if (world_is_scarce() || tls_is_there() || !sim_chance(120))
        return;
    proxied = true;
    o->proxy.from = from;
    o->proxy.n_from = SIM_LENGTH(from);
    sim_log("all clients are behind a proxy");
}

static uint32_t
address_of(int client)
{
    return 0xc0000201U + (uint32_t)client; /* RFC 5737 */
}

static size_t
write_text(int client, uint8_t *to)
{
    struct in_addr addr = {.s_addr = htonl(address_of(client))};
    char text[INET_ADDRSTRLEN];

    (void)inet_ntop(AF_INET, &addr, text, sizeof(text));
    return (size_t)snprintf((char *)to, HEADER_MAX, "PROXY TCP4 %s 192.0.2.100 %d 7000\r\n", text,
                            FIRST_PORT + client);
}

static size_t
write_binary(int client, uint8_t *to)
{
    static const uint8_t start[] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51,
                                    0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0x00, 0x0c};
    const uint32_t addrs[] = {htonl(address_of(client)), htonl(0xc0000264U)};
    const uint16_t ports[] = {htons((uint16_t)(FIRST_PORT + client)), htons(7000)};

    memcpy(to, start, sizeof(start));
    memcpy(to + sizeof(start), addrs, sizeof(addrs));
    memcpy(to + sizeof(start) + sizeof(addrs), ports, sizeof(ports));
    return sizeof(start) + sizeof(addrs) + sizeof(ports);
}

hs_err
proxy_say(struct client *c)
{
    uint8_t header[HEADER_MAX];
    size_t len, first;
    hs_err rv;

    if (!proxied)
        return HS_OK;
    len = sim_chance(500) ? write_text(c->number, header) : write_binary(c->number, header);
    first = sim_chance(300) ? (size_t)sim_below(len) : len;
    if ((rv = end_send_all(&c->end, header, first, any_span())) != HS_OK || first == len)
        return rv;
    if (!world_is_calm())
        sim_sleep(sim_between(0, 2 * SIM_S));
    return end_send_all(&c->end, header + first, len - first, any_span());
}

void
proxy_check(const struct end *e, int client)
{
    struct hs_error err = {0};
    struct hs_addr named, proxy;
    struct sockaddr_in in;

    if (!proxied || e->closed)
        return;
    must(hs_conn_peer_addr(e->conn, &err, &named), "no client behind the proxy", &err);
    memcpy(&in, &named.storage, sizeof(in));
    if (in.sin_family != AF_INET || ntohl(in.sin_addr.s_addr) != address_of(client) ||
        ntohs(in.sin_port) != FIRST_PORT + client || !hs_conn_proxy_addr(e->conn, &proxy))
        sim_violation("client %d is taken for another, or its proxy is not known", client);
}
