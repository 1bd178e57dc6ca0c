/* pool_support.c: see pool_support.h.
 *
 * Linked into every test program.
 */
#include "pool_support.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct server
server_new(void)
{
    struct server s;

    s.fd = tcp_listener(128, &s.addr);
    s.ep = endpoint_of(&s.addr);
    return s;
}

void
server_free(struct server *s)
{
    if (s->fd >= 0)
        (void)close(s->fd);
    s->fd = -1;
}

int
server_accept(struct server *s)
{
    int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    return fd;
}

struct hs_pool_options
options(size_t max_size)
{
    struct hs_pool_options o;

    hs_pool_options_init(&o);
    o.max_size = max_size;
    o.idle_timeout_ns = o.max_lifetime_ns = HS_NEVER;
    o.reuse = HS_REUSE_ANSWERED;
    return o;
}

struct hs_pool *
pool_of(const struct server *s, const struct hs_pool_options *o)
{
    struct hs_pool *p;

    ASSERT_OK(hs_pool_new(&s->ep, 1, o, fresh(), &p));
    return p;
}

void
pool_end(struct hs_pool *p)
{
    struct hs_op op = op_in(10 * SECOND);
    struct hs_pool_stats s;

    hs_pool_close(p);
    ASSERT_OK(DONE(hs_pool_await_closed(p, &op, fresh())));
    ASSERT_OK(hs_pool_verify(p, fresh()));
    hs_pool_stats(p, &s);
    ck_assert_uint_eq(s.opened, s.closed);
    ck_assert_uint_eq(s.waiting + s.lent + s.idle + s.dialing, 0);
    hs_pool_unref(p);
}

/* What a lease holds that was never lent: the one who gets a failure must find this. */
#define NOT_LENT ((struct hs_lease){.id = 0xdead, .times_lent = 0xbeef})

static hs_err
acquire_once(struct hs_pool *p, struct hs_op *op, struct hs_request *r, struct hs_error *err,
             struct hs_lease *ret_lease)
{
    struct hs_lease lease = NOT_LENT;
    hs_err rv = hs_pool_acquire(p, op, r, err, &lease);

    if (rv == HS_OK) {
        ck_assert_uint_ne(lease.id, NOT_LENT.id);
        *ret_lease = lease;
    } else {
        ck_assert_uint_eq(lease.id, NOT_LENT.id);
        ck_assert_uint_eq(lease.times_lent, NOT_LENT.times_lent);
        ck_assert_ptr_null(lease.member);
        ck_assert_ptr_null(lease.conn);
    }
    hs_dial_failure_unref(r->failure);
    r->failure = NULL;
    return rv;
}

hs_err
acquire(struct hs_pool *p, struct hs_op *op, struct hs_request *r, struct hs_error *err,
        struct hs_lease *ret_lease)
{
    return DONE(acquire_once(p, op, r, err, ret_lease));
}

struct hs_lease
take(struct hs_pool *p)
{
    struct hs_op op = op_in(10 * SECOND);
    struct hs_request r = {.holder = ME};
    struct hs_lease lease;

    ASSERT_OK(acquire(p, &op, &r, fresh(), &lease));
    return lease;
}

enum hs_pool_reason
give_as(struct hs_pool *p, struct hs_lease *lease, enum hs_return how)
{
    enum hs_pool_reason why;

    ASSERT_OK(hs_pool_release(p, lease, how, fresh(), &why, NULL));
    return why;
}

enum hs_pool_reason
give(struct hs_pool *p, struct hs_lease *lease)
{
    return give_as(p, lease, HS_RETURN_DONE);
}

struct hs_pool_stats
stats_of(struct hs_pool *p)
{
    struct hs_pool_stats s;

    ASSERT_OK(hs_pool_verify(p, fresh()));
    hs_pool_stats(p, &s);
    return s;
}

static void *
call(void *arg)
{
    struct caller *c = arg;
    struct hs_op op =
        HS_OP_INIT(c->span == HS_NEVER ? HS_NEVER : hs_deadline_after(c->span), c->token);
    struct hs_request r = {.holder = {.thread = 100 + (uint64_t)c->number}};

    c->rv = acquire(c->pool, &op, &r, &c->err, &c->lease);
    if (c->rv == HS_OK && c->order != NULL)
        c->order[atomic_fetch_add(c->served, 1)] = c->number;
    return NULL;
}

void
caller_start(struct caller *c, struct hs_pool *p, int64_t span)
{
    c->pool = p;
    c->span = span;
    thread_start(&c->thread, call, c);
}

void
caller_start_waiting(struct caller *c, struct hs_pool *p, int64_t span)
{
    size_t before = stats_of(p).waiting;

    caller_start(c, p, span);
    EVENTUALLY(stats_of(p).waiting > before);
    thread_wait_asleep(&c->thread);
}

hs_err
caller_join(struct caller *c)
{
    (void)thread_join(&c->thread);
    *fresh() = c->err;
    return c->rv;
}

struct stepped
stepped_new(int64_t span)
{
    return (struct stepped){.op = op_step(span), .request = {.holder = ME}};
}

hs_err
stepped_step(struct stepped *s, struct hs_pool *p)
{
    return acquire_once(p, &s->op, &s->request, fresh(), &s->lease);
}
