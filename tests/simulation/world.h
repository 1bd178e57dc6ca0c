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

/* One end of a connection, as its program knows it, beside what the network knows. */
struct end {
    struct hs_conn *conn;
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
};

void world(void);
/* Descriptors run out: who cannot be woken for want of one looks up every 20 ms, by design. */
bool world_is_scarce(void);
/* Called at the beginning of each call. */
void world_note_call(void);

/* By chance calls of this thread are steps of an event loop from now on, instead of waits. */
void calls_begin(void);
void calls_end(void); /* before the thread ends */

/* calls.c: each makes a call, asks again after HS_INTR, and looks whether promises were kept. */
hs_err end_connect(struct end *e, const struct hs_endpoint *where,
                   const struct hs_connect_options *options, int64_t span_ns);
void end_adopt(struct end *e, struct hs_conn *conn);
hs_err end_recv(struct end *e, uint8_t *buf, size_t len, int flags, int64_t span_ns, size_t *ret_n);
hs_err end_recv_exactly(struct end *e, uint8_t *buf, size_t len, int64_t span_ns);
hs_err end_recv_frame(struct end *e, const struct hs_framing *f, uint8_t *buf, size_t room,
                      int64_t span_ns, size_t *ret_n);
hs_err end_send_all(struct end *e, const uint8_t *buf, size_t len, int64_t span_ns);
hs_err end_sendv(struct end *e, struct iovec *iov, size_t n, int64_t span_ns);
hs_err end_finish(struct end *e, int64_t span_ns);
/* Closes it, which takes no time, and lets go of it. */
void end_close(struct end *e, bool abortive);
/* A call with a token or a deadline. */
void call_begin(struct call *c, const char *name, const struct end *e, int64_t span_ns);
/* Whether it is to be made again: it was interrupted, or has waited as an event loop does. */
bool call_again(struct call *c, hs_err rv);
void call_end(struct call *c, const struct end *e, hs_err rv);

void must(hs_err rv, const char *what, const struct hs_error *err);
void make_endpoint(int host, uint16_t port, struct hs_endpoint *ep);
/* Often too short, sometimes none at all. */
int64_t any_span(void);

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
