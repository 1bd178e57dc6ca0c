/* pool_support.h: a server that says nothing by itself, and pools of connections to it.
 *
 * The server is a listening socket: connecting to it needs nobody who accepts. A test that wants to
 * speak for the peer accepts by hand.
 */
#ifndef TESTS_C_POOL_SUPPORT_H
#define TESTS_C_POOL_SUPPORT_H

#include "support.h"

struct server {
    int fd;
    struct hs_addr addr;
    struct hs_endpoint ep;
};
struct server server_new(void);
void server_free(struct server *s);
int server_accept(struct server *s);

/* Without idle timeouts, and returning needs no mark. */
struct hs_pool_options options(size_t max_size);
struct hs_pool *pool_of(const struct server *s, const struct hs_pool_options *o);
/* Closes it, and asserts that it ends, and that all was counted well. */
void pool_end(struct hs_pool *p);

#define ME ((struct hs_holder){.thread = 1})
/* hs_pool_acquire to its end; asserts that a call that fails leaves *ret_lease alone. */
hs_err acquire(struct hs_pool *p, struct hs_op *op, struct hs_request *r, struct hs_error *err,
               struct hs_lease *ret_lease);
struct hs_lease take(struct hs_pool *p);
enum hs_pool_reason give(struct hs_pool *p, struct hs_lease *lease);
enum hs_pool_reason give_as(struct hs_pool *p, struct hs_lease *lease, enum hs_return how);
struct hs_pool_stats stats_of(struct hs_pool *p);

/* A caller in a thread of its own. */
struct caller {
    struct thread thread;
    struct hs_pool *pool;
    struct hs_token *token;
    int64_t span;
    int number;
    struct hs_lease lease;
    struct hs_error err;
    hs_err rv;
    int *order; /* where its number goes when it has been served */
    atomic_int *served;
};
void caller_start(struct caller *c, struct hs_pool *p, int64_t span);
/* Returns once it stands in the queue and sleeps. */
void caller_start_waiting(struct caller *c, struct hs_pool *p, int64_t span);
hs_err caller_join(struct caller *c);

/* A caller that is stepped by hand. */
struct stepped {
    struct hs_op op;
    struct hs_request request;
    struct hs_lease lease;
};
struct stepped stepped_new(int64_t span);
hs_err stepped_step(struct stepped *s, struct hs_pool *p);

#endif
