/* pool.c: COUNT questions to a server that sends lines back, by four threads on two connections.
 *
 * cc pool.c $(pkg-config --cflags --libs hardsock) -lpthread && ./a.out 127.0.0.1:7 1000
 * Prints what the pool counted; exits 1 if its books do not balance or a connection was not reused.
 */
#include <hardsock.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND INT64_C(1000000000)

static struct hs_pool *pool;
static atomic_long left, failed;

static hs_err
fail(const struct hs_error *err)
{
    (void)fprintf(stderr, "%s: %s\n", hs_err_text(err->code), err->msg);
    return err->code;
}

static hs_err
ask(const struct hs_lease *lease, int64_t deadline, struct hs_error *err)
{
    static const uint8_t question[] = "ping\n";
    struct hs_op sending = HS_OP_INIT(deadline, NULL), receiving = HS_OP_INIT(deadline, NULL);
    uint8_t answer[sizeof(question) - 1];
    hs_err rv;

    /* With the lease's number a call never touches what is the next borrower's. */
    sending.lease = receiving.lease = lease->id;
    HS_RUN(rv, hs_conn_send_all(lease->conn, &sending, question, sizeof(answer), err));
    if (rv == HS_OK)
        HS_RUN(rv, hs_conn_recv_exactly(lease->conn, &receiving, answer, sizeof(answer), err));
    if (rv == HS_OK)
        hs_lease_mark_clean(lease); /* The exchange is complete: the next may have it. */
    return rv;
}

static hs_err
borrow_and_ask(struct hs_error *err)
{
    int64_t deadline = hs_deadline_after(5 * SECOND);
    struct hs_op op = HS_OP_INIT(deadline, NULL);
    struct hs_request request = {.holder = {.thread = (uint64_t)pthread_self()}};
    struct hs_error unused = {0};
    struct hs_lease lease;
    hs_err rv;

    HS_RUN(rv, hs_pool_acquire(pool, &op, &request, err, &lease));
    hs_dial_failure_unref(request.failure);
    if (rv != HS_OK)
        return rv;
    rv = ask(&lease, deadline, err);
    (void)!hs_pool_release(pool, &lease, rv == HS_OK ? HS_RETURN_DONE : HS_RETURN_FAILED, &unused,
                           NULL, NULL);
    return rv;
}

static void *
work(void *arg)
{
    (void)arg;
    while (atomic_fetch_sub(&left, 1) > 0) {
        struct hs_error err = {0};

        if (borrow_and_ask(&err) != HS_OK) {
            (void)fail(&err);
            atomic_fetch_add(&failed, 1);
        }
    }
    return NULL;
}

static hs_err
open_pool(const char *where, struct hs_error *err)
{
    struct hs_pool_options options;
    struct hs_endpoint endpoint;
    hs_err rv;

    hs_pool_options_init(&options);
    options.max_size = 2;
    if ((rv = hs_endpoint_parse(where, strlen(where), err, &endpoint)) != HS_OK)
        return rv;
    return hs_pool_new(&endpoint, 1, &options, err, &pool);
}

int
main(int argc, char **argv)
{
    struct hs_op ending = HS_OP_INIT(hs_deadline_after(5 * SECOND), NULL);
    struct hs_error err = {0};
    struct hs_pool_stats stats;
    pthread_t threads[4];
    hs_err rv;

    if (argc != 3 || (left = strtol(argv[2], NULL, 10)) <= 0) {
        (void)fprintf(stderr, "usage: pool HOST:PORT COUNT\n");
        return 2;
    }
    if (open_pool(argv[1], &err) != HS_OK)
        return fail(&err) != HS_OK;
    for (int i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, work, NULL) != 0)
            abort();
    for (int i = 0; i < 4; i++)
        (void)pthread_join(threads[i], NULL);
    if ((rv = hs_pool_verify(pool, &err)) == HS_OK) {
        hs_pool_stats(pool, &stats);
        (void)printf("%" PRIu64 " lent, %" PRIu64 " opened, %ld failed\n", stats.acquired,
                     stats.opened, (long)failed);
        hs_pool_close(pool);
        HS_RUN(rv, hs_pool_await_closed(pool, &ending, &err));
    }
    hs_pool_unref(pool);
    return rv == HS_OK ? stats.opened > 2 || failed > 0 : fail(&err) != HS_OK;
}
