/* world.h: what is done with the core, and what is asked of it afterwards.
 *
 * Calls are made through calls.c, which knows what each of them promises.
 */
#ifndef TESTS_SIMULATION_WORLD_H
#define TESTS_SIMULATION_WORLD_H

#include "hardsock_binding.h"
#include "sim.h"

#define SERVER_HOST 0
#define SERVER_PORT 7000
#define PLAIN_HOSTS 2 /* hosts 1 and 2 */
#define PLAIN_PORT 7001
#define DISTURBER_HOST 3
#define FIRST_CLIENT_HOST 4
#define MAX_CLIENTS 4
#define MAX_MESSAGE ((size_t)40000)
#define MAX_FRAME 4000

/* One end of a connection, as its program knows it, beside what the network knows. */
struct end {
    struct hs_conn *conn;
    int fd;
    const struct sim_facts *facts;
    struct hs_token *token;  /* of all its calls; may be NULL */
    uint64_t sent, received; /* what the calls said that they had moved */
    int peer_host;
    int dead_after_ms; /* 0: none */
    bool poisoned;     /* a message has stopped half-way */
    bool closed;       /* by another thread */
    bool secured;      /* by TLS: what the network moves is not what calls move */
    uint64_t lease;    /* 0: it is no pool's */
};

/* One call: from its beginning to its end it is watched. */
struct call {
    struct hs_op op;
    struct hs_error err;
    const char *name;
    int64_t began_ns, deadline_ns;
    bool in, out; /* which directions it uses */
    const struct end *end;
    struct sim_thread *thread;
    int64_t over_ns; /* of finish: since when there was nothing left to wait for */
};

void world(void);
/* Descriptors run out: who cannot be woken for want of one looks up every 20 ms, by design. */
bool world_is_scarce(void);

/* ---- poor.c: want of memory and threads ---------------------------------------------------- */

bool world_is_poor(void); /* or was */
void poor_begin(void);
/* A call has failed by it; another one may not. */
bool is_for_want(hs_err rv);
void poor_end(void);
/* This thread is in a call that may fail by it. */
void poor_expose(bool on);

/* ---- calm.c: nothing disturbs -------------------------------------------------------------- */

bool world_is_calm(void);
void calm_begin(void);
int64_t calm_span(void);
/* Where it is calm, what fails must not. */
void calm_expect(hs_err rv, const char *what);
/* After the clients' end: whether all works as the way allows. Ends the pool. */
void calm_examine(void);

/* ---- calls.c ------------------------------------------------------------------------------- */

/* By chance calls of this thread are steps of an event loop from now on, instead of waits. */
void calls_begin(void);
void calls_end(void); /* before the thread ends */

/* Each makes a call, asks again after HS_INTR, and looks whether promises were kept. */
hs_err end_connect(struct end *e, const struct hs_endpoint *where,
                   const struct hs_connect_options *options, int64_t span_ns);
void end_adopt(struct end *e, struct hs_conn *conn);
hs_err end_recv(struct end *e, uint8_t *buf, size_t len, int flags, int64_t span_ns, size_t *ret_n);
hs_err end_recv_exactly(struct end *e, uint8_t *buf, size_t len, int64_t span_ns);
hs_err end_recv_frame(struct end *e, const struct hs_framing *f, uint8_t *buf, size_t room,
                      int64_t span_ns, size_t *ret_n);
hs_err end_send_all(struct end *e, const uint8_t *buf, size_t len, int64_t span_ns);
hs_err end_sendv(struct end *e, struct iovec *iov, size_t n, int64_t span_ns);
hs_err end_send_file(struct end *e, int file, int64_t at, size_t len, int64_t span_ns);
hs_err end_finish(struct end *e, int64_t span_ns);
/* Closes it, which takes no time, and lets go of it. */
void end_close(struct end *e, bool abortive);
/* Ends it in one of the ways there are. */
void end_leave(struct end *e);
/* How the other side has ended, as it is told. */
void check_ending(const struct end *e, enum hs_ending ending);
/* A call with a token or a deadline. */
void call_begin(struct call *c, const char *name, const struct end *e, int64_t span_ns);
/* Whether it is to be made again: it was interrupted, or has waited as an event loop does. */
bool call_again(struct call *c, hs_err rv);
void call_end(struct call *c, const struct end *e, hs_err rv);
/* Before the clock moves: nobody waits for what is there. */
void calls_look(void);
size_t calls_named(const char *name); /* how many are under way */
size_t calls_connecting(int host);

void must(hs_err rv, const char *what, const struct hs_error *err);
void make_endpoint(int family, int host, uint16_t port, struct hs_endpoint *ret_where);
/* Often too short, sometimes none at all; where it is calm, long. */
int64_t any_span(void);

/* ---- messages.c ---------------------------------------------------------------------------- */

enum kind { EXACTLY, SOME, WAITALL, FRAMES, KINDS };

struct header {
    uint8_t mark, kind;
    uint16_t client;
    uint32_t number, len, answer_len;
};

void messages_begin(void);
uint64_t message_of(const struct header *h, bool answer);
/* A deadline that passes loses nothing: the next call goes on. */
hs_err receive_message(struct end *e, const struct header *h, bool answer, size_t len);
hs_err receive_header(struct end *e, struct header *h, int64_t patience_ns);
hs_err send_message(struct end *e, const uint8_t *head, size_t head_len, const uint8_t *buf,
                    size_t len);
hs_err send_frames(struct end *e, const struct header *h, const uint8_t *buf);

/* ---- clients.c ----------------------------------------------------------------------------- */

struct client {
    int number, rounds;
    struct end end;
    struct sim_thread *thread;
    bool writes;
    struct sim_thread *writer; /* or NULL: of pipelined questions */
};

void clients_begin(int n);
bool clients_are_there(void);
struct client *any_client(void);
/* Its host has died: calls that have to find out do so in time. */
void clients_lose(int host);
hs_err client_ask(struct client *c, uint32_t number);

/* ---- servers.c ----------------------------------------------------------------------------- */

void servers_begin(void);
void servers_stop(void);
void servers_end(void); /* after the end of their threads */
void server_endpoint(bool by_name, struct hs_endpoint *ret_where);
bool servers_are_free(void); /* Nobody is being served. */
bool servers_are_many(void); /* No connection waits for the end of another. */
int servers_count(void);
bool servers_are_lost_to_ipv6(void);
void servers_look(void);
hs_err server_answer(struct end *e);

/* ---- guests.c: parked connections of the server -------------------------------------------- */

void guests_begin(struct hs_token *stop);
bool guests_are_kept(void);
bool guests_are_all_parked(void);
void guests_welcome(struct hs_conn *conn);
void guests_disturb(void);
void guests_look(void);
/* After the last was welcomed. */
void guests_stop(void);

/* ---- plain.c, disturber.c ------------------------------------------------------------------ */

void run_plain(void *arg);
void run_disturber(void *arg);
/* Called at the beginning of each call: something has just begun. */
void disturber_note_call(void);

/* ---- proxied.c: headers of the PROXY protocol ----------------------------------------------- */

void proxy_for_listener(struct hs_listen_options *o);
bool proxy_is_there(void);
/* The first that a client says. */
hs_err proxy_say(struct client *c);
void proxy_check(const struct end *e, int client);

/* ---- told.c: a notifier -------------------------------------------------------------------- */

void told_begin(void);
void told_look(void);

/* secured.c: TLS between clients and the server. */
void tls_begin(void);
bool tls_is_there(void);
void tls_for_listener(struct hs_listen_options *o);
void tls_for_client(struct hs_connect_options *o); /* nothing where there is no TLS */
void tls_end(void);

/* pooled.c: one pool, of all clients. */
void pool_begin(void);
bool pool_is_there(void);
/* Borrows a connection for e; the lease is the caller's until pool_return. */
hs_err pool_borrow(struct end *e, int borrower, int64_t span_ns, struct hs_lease *ret_lease);
/* done: the exchange is complete. e has no connection then. */
void pool_return(struct end *e, struct hs_lease *lease, bool done);
void pool_end(void);

/* Of a dead host: calls that have no other end. */
bool is_killed(int host);
void kill_host(int host);

/* The byte that stands at a place of a message. */
uint8_t pattern_of(uint64_t message, size_t at);
void fill_pattern(uint64_t message, size_t from, uint8_t *buf, size_t n);
void check_pattern(uint64_t message, size_t from, const uint8_t *buf, size_t n);

#endif
