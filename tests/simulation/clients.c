/* clients.c: who connects, asks, and reads answers.
 *
 * Deadlines are often too short; a client goes on where it stood. Sometimes one thread asks and
 * another reads, sometimes the connection is a pool's, sometimes the peer is a plain one, of which
 * nothing is known.
 */
#include "world.h"

#include "stream/sockopt.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PIPELINED 6

static const char *const client_names[] = {"client-0", "client-1", "client-2", "client-3"};
static struct client clients[MAX_CLIENTS];
static int n_clients, clients_left;

/* The same for the one who asks and the one who reads. */
static struct header
pipelined(const struct client *c, uint32_t number)
{
    uint64_t any = (uint64_t)number * 2654435761U + (uint64_t)c->rounds * 97 + (uint64_t)c->number;

    return (struct header){'Q',    (uint8_t)(any % KINDS),     (uint16_t)c->number,
                           number, 1 + (uint32_t)(any % 9000), 1 + (uint32_t)(any / 7 % 9000)};
}

static int64_t
patience(void)
{
    return world_is_calm() ? calm_span() : 30 * SIM_S;
}

hs_err
client_ask(struct client *c, uint32_t number)
{
    struct header h = {'Q', (uint8_t)sim_below(KINDS), (uint16_t)c->number, number, 0, 0}, back;
    struct end *e = &c->end;
    uint8_t *buf = malloc(MAX_MESSAGE);
    hs_err rv;

    if (buf == NULL)
        abort();
    h.len = 1 + (uint32_t)sim_below(sim_chance(300) ? MAX_MESSAGE : 500);
    h.answer_len = 1 + (uint32_t)sim_below(sim_chance(300) ? MAX_MESSAGE : 500);
    fill_pattern(message_of(&h, false), 0, buf, h.len);
    rv = send_message(e, (const uint8_t *)&h, sizeof(h), buf, h.len);
    free(buf);
    if (rv != HS_OK || (rv = receive_header(e, &back, patience())) != HS_OK)
        return rv;
    if (back.mark != 'A' || back.client != h.client || back.number != h.number ||
        back.answer_len != h.answer_len)
        sim_violation("an answer to client %u, question %u, has come to %u, %u", back.client,
                      back.number, h.client, h.number);
    return receive_message(e, &h, true, h.answer_len);
}

/* Ends with the first that fails. */
static void
run_writer(void *arg)
{
    struct client *c = arg;
    uint8_t *buf = malloc(MAX_MESSAGE);
    hs_err rv = HS_OK;

    if (buf == NULL)
        abort();
    c->writer = sim_self();
    calls_begin();
    for (uint32_t i = 0; i < PIPELINED && rv == HS_OK; i++) {
        struct header h = pipelined(c, i);

        fill_pattern(message_of(&h, false), 0, buf, h.len);
        rv = send_message(&c->end, (const uint8_t *)&h, sizeof(h), buf, h.len);
        if (sim_chance(200))
            sim_sleep(sim_between(0, SIM_S));
    }
    free(buf);
    calls_end();
    c->writer = NULL;
    c->writes = false;
}

static bool
writer_has_ended(void *arg)
{
    return !((const struct client *)arg)->writes;
}

/* One thread asks, another reads: answers come in the order of the questions. */
static hs_err
ask_pipelined(struct client *c)
{
    struct header h, back;
    hs_err rv = HS_OK;

    c->writes = true;
    sim_spawn("writer", sim_host(), run_writer, c);
    for (uint32_t i = 0; i < PIPELINED && rv == HS_OK; i++) {
        h = pipelined(c, i);
        if ((rv = receive_header(&c->end, &back, patience())) != HS_OK)
            break;
        if (back.mark != 'A' || back.client != h.client || back.number != h.number)
            sim_violation("an answer to client %u, question %u, has come to %u, %u", back.client,
                          back.number, h.client, h.number);
        rv = receive_message(&c->end, &h, true, h.answer_len);
    }
    (void)sim_wait(writer_has_ended, c, SIM_NEVER);
    return rv;
}

/* Any bytes may come from a plain peer, or none: only the promises count. */
static void
try_plain(struct client *c)
{
    int64_t patience = c->end.dead_after_ms > 0 ? SIM_NEVER : 30 * SIM_S;
    uint8_t buf[4096];
    size_t n = 1;
    hs_err rv;

    memset(buf, 1, sizeof(buf));
    rv = end_send_all(&c->end, buf, 1 + (size_t)sim_below(200), any_span());
    for (int i = 0; i < 20 && n > 0 && (rv == HS_OK || rv == HS_E_DEADLINE); i++) {
        if (sim_chance(300))
            rv = end_send_all(&c->end, buf, 1 + (size_t)sim_below(2000), any_span());
        else if (sim_chance(500))
            rv = end_recv(&c->end, buf, sizeof(buf), 0, i < 10 ? any_span() : patience, &n);
        else
            rv = end_recv_exactly(&c->end, buf, 1 + (size_t)sim_below(2000),
                                  i < 10 ? any_span() : patience);
    }
    if (rv == HS_E_RESET || rv == HS_E_DEAD_PEER || rv == HS_E_POISONED)
        (void)end_recv(&c->end, buf, sizeof(buf), 0, 30 * SIM_S, &n);
}

/* What is left half-way may not be lent again. */
static void
run_pooled_round(struct client *c)
{
    struct hs_error err = {0};
    struct hs_token *token;
    struct hs_lease lease;
    hs_err rv;

    must(hs_token_new(NULL, 0, HS_NEVER, NULL, &err, &token), "no token", &err);
    c->end = (struct end){.token = token, .peer_host = SERVER_HOST};
    rv = pool_borrow(&c->end, c->number, any_span(), &lease);
    if (rv == HS_OK) {
        for (uint32_t i = 0, n = (uint32_t)sim_below(4); rv == HS_OK && i < n; i++)
            rv = client_ask(c, i);
        pool_return(&c->end, &lease, rv == HS_OK);
    }
    calm_expect(rv, "an exchange with a pool's connection");
    c->end.token = NULL;
    hs_token_unref(token);
}

static int64_t
any_token_deadline(void)
{
    return !world_is_calm() && sim_chance(100) ? sim_now() + 5 * any_span() : HS_NEVER;
}

static void
connect_round(struct client *c, int host, bool plain)
{
    struct hs_connect_options options;
    struct hs_endpoint where;
    hs_err rv;

    hs_connect_options_init(&options);
    if (!plain)
        tls_for_client(&options);
    if (plain || sim_chance(300)) {
        c->end.dead_after_ms = (int)sim_between(5000, 60000);
        hs_sockopts_dead_after(&options.sockopts, c->end.dead_after_ms);
    }
    if (plain)
        make_endpoint(AF_INET, host, PLAIN_PORT, &where);
    else
        server_endpoint(sim_chance(300), &where);
    rv = end_connect(&c->end, &where, &options, sim_chance(100) ? SIM_NEVER : any_span());
    if (rv == HS_OK && !plain)
        rv = proxy_say(c);
    if (rv == HS_OK && plain)
        try_plain(c);
    else if (rv == HS_OK && sim_chance(300))
        rv = ask_pipelined(c);
    else
        for (uint32_t i = 0; rv == HS_OK && i < 5; i++)
            rv = client_ask(c, i);
    calm_expect(rv, "an exchange");
}

static void
run_round(struct client *c)
{
    bool plain = !world_is_calm() && sim_chance(400);
    int host = plain ? 1 + (int)sim_below(PLAIN_HOSTS) : SERVER_HOST;
    struct hs_token *token = NULL;
    struct hs_error err = {0};

    must(hs_token_new(NULL, 0, any_token_deadline(), NULL, &err, &token), "no token", &err);
    c->end = (struct end){.token = token, .peer_host = host, .secured = !plain && tls_is_there()};
    connect_round(c, host, plain);
    end_leave(&c->end);
    c->end.token = NULL;
    hs_token_unref(token);
}

static void
run_client(void *arg)
{
    struct client *c = arg;

    c->thread = sim_self();
    calls_begin();
    for (int i = 0; i < c->rounds; i++) {
        if (pool_is_there() && sim_chance(700))
            run_pooled_round(c);
        else
            run_round(c);
        sim_sleep(sim_between(0, 5 * SIM_S));
    }
    calls_end();
    clients_left--;
}

/* ---- All of them --------------------------------------------------------------------------- */

bool
clients_are_there(void)
{
    return clients_left > 0;
}

struct client *
any_client(void)
{
    return &clients[sim_below((uint64_t)n_clients)];
}

void
clients_begin(int n)
{
    n_clients = clients_left = n;
    for (int i = 0; i < n; i++) {
        clients[i] = (struct client){.number = i, .rounds = 8};
        sim_spawn(client_names[i], FIRST_CLIENT_HOST + i, run_client, &clients[i]);
    }
}

void
clients_lose(int host)
{
    for (int i = 0; i < n_clients; i++) {
        const struct end *e = &clients[i].end;

        if (e->conn != NULL && e->peer_host == host && e->dead_after_ms > 0)
            sim_promise_sooner(clients[i].thread, "a call whose peer is dead",
                               sim_now() + e->dead_after_ms * SIM_MS);
    }
}
