/* net.h: one end of a connection, what is done to it, and the packets between two.
 *
 * sockets.c is above, where calls come from; net.c is TCP, local.c unix sockets; link.c is below.
 */
#ifndef TESTS_SIMULATION_NET_H
#define TESTS_SIMULATION_NET_H

#include "sim.h"

enum sim_state {
    SIM_CLOSED,
    SIM_LISTEN,
    SIM_SYN_SENT,
    SIM_SYN_RECV,
    SIM_ESTABLISHED,
    SIM_FIN_WAIT1,
    SIM_FIN_WAIT2,
    SIM_CLOSE_WAIT,
    SIM_CLOSING,
    SIM_LAST_ACK,
    SIM_TIME_WAIT,
};

struct sim_queue {
    uint8_t *bytes;
    size_t start, len, room;
};
/* queue.c */
void sim_queue_add(struct sim_queue *q, const uint8_t *bytes, size_t n);
/* Copies at most n from the front, and with take throws them away. */
size_t sim_queue_get(struct sim_queue *q, uint8_t *to, size_t n, bool take);
void sim_queue_free(struct sim_queue *q);

struct sim_option {
    int level, name, value;
};
#define SIM_OPTIONS 32

/* One end of a connection; numbers of sequence begin with the SYN, which is 0. */
struct sim_tcp {
    uint64_t id;
    enum sim_state state;
    int family;
    bool mapped;          /* of IPv6, and its peer is not */
    bool dual;            /* it hears both */
    bool local;           /* a unix socket: host and most of what follows are of no meaning */
    struct sim_tcp *peer; /* of a local one; NULL: it is gone */
    int host, peer_host;
    uint16_t port, peer_port;
    bool unseen;           /* it is connected, or refused, and nobody has looked since */
    struct sim_file *file; /* NULL: closed by its program, or not accepted yet */
    bool orphan;
    struct sim_facts *facts;
    struct sim_tcp *listener; /* of one that is not accepted yet */
    int backlog;
    struct sim_tcp *next;

    /* What is sent: bytes of [una or 1, write_seq) wait in out. */
    uint64_t una, nxt, max, write_seq, edge;
    struct sim_queue out;
    bool fin_queued;
    int64_t first_sent_ns; /* of the oldest that is not acknowledged; 0: none */
    int64_t probing_ns;    /* since when a closed window is asked */
    int64_t rtt_ns;
    unsigned backoff, retries;
    uint64_t timer, keep_timer, end_timer; /* numbers of the latest settings; 0: not set */

    /* What comes. */
    uint64_t rcv_nxt, advertised;
    struct sim_queue in;
    bool fin_received, rcv_shut, snd_shut;
    int error;

    int64_t heard_ns;
    unsigned probes;
    bool keepalive;
    int keep_idle_s, keep_interval_s, keep_count, user_timeout_ms;
    bool linger;
    int linger_s;
    size_t send_room, receive_room;
    struct sim_option options[SIM_OPTIONS];
    size_t n_options;
};

struct sim_tcp *sim_tcp_new(int family, int host);
void sim_tcp_free(struct sim_tcp *t);
void sim_tcp_changed(struct sim_tcp *t);                               /* wakes who watches it */
struct sim_tcp *sim_tcp_listener(int family, int host, uint16_t port); /* NULL: nobody listens */
void sim_tcp_connect(struct sim_tcp *t, int peer_host, uint16_t peer_port);
/* An accepted one, or NULL; and how many wait. */
struct sim_tcp *sim_tcp_take_child(struct sim_tcp *listener);
int sim_tcp_waiting(const struct sim_tcp *listener);
/* How much of n bytes there is room for. */
size_t sim_tcp_room(const struct sim_tcp *t);
void sim_tcp_send(struct sim_tcp *t, const uint8_t *bytes, size_t n);
size_t sim_tcp_receive(struct sim_tcp *t, uint8_t *to, size_t n, bool take);
void sim_tcp_shut_write(struct sim_tcp *t);
void sim_tcp_set_keepalive(struct sim_tcp *t);
/* As the kernel tells it: 7 is closed. */
int sim_tcp_visible_state(const struct sim_tcp *t);
bool sim_host_is_there(int host);

/* ---- Unix sockets (local.c): the same, for those ------------------------------------------- */

/* 0, or an errno. */
int sim_local_connect(struct sim_tcp *t, uint16_t port);
size_t sim_local_room(const struct sim_tcp *t);
size_t sim_local_unread(const struct sim_tcp *t); /* by the peer */
short sim_local_poll(const struct sim_tcp *t);
void sim_local_send(struct sim_tcp *t, const uint8_t *bytes, size_t n);
size_t sim_local_receive(struct sim_tcp *t, uint8_t *to, size_t n, bool take);
void sim_local_shut_write(struct sim_tcp *t);
void sim_local_close(struct sim_tcp *t, bool embryo);

/* ---- Packets (link.c) ---------------------------------------------------------------------- */

struct sim_packet {
    int from, to, family;
    uint16_t from_port, to_port;
    unsigned flags;
    uint64_t seq, ack, edge;
    size_t len;
    uint8_t bytes[];
};
struct sim_packet *sim_packet_new(size_t len);
/* On its way, or lost. */
void sim_post(struct sim_packet *p);
/* net.c: one that has come. */
void sim_tcp_arrive(const struct sim_packet *p);

#endif
