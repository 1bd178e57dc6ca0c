/* test_crowd.c: many threads on few connections while descriptor numbers come and go.
 *
 * Every connection carries bytes of its own pattern, both ways. Readers, writers, closers, tokens
 * and deadlines race; another thread opens and closes /dev/null, so that a number used after its
 * close would be somebody else's. What is received must be a prefix of the connection's pattern.
 */
#include "../c/support.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS 60
#define CONNS 4
#define BYTES 20000

static atomic_bool stop;

static void *
churn(void *arg)
{
    (void)arg;
    while (!stop) {
        int fds[8];

        for (size_t i = 0; i < LENGTH(fds); i++)
            fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
        close_all(fds, LENGTH(fds));
    }
    return NULL;
}

struct line {
    uint64_t id;
    struct hs_conn *ends[2];
    struct hs_token *token;
    size_t got, sent;
};

static bool
is_fair_end(hs_err rv)
{
    return rv == HS_E_CLOSED || rv == HS_E_CANCELLED || rv == HS_E_DEADLINE || rv == HS_E_RESET ||
           rv == HS_E_POISONED;
}

static void *
write_line(void *arg)
{
    struct line *line = arg;
    uint8_t bytes[500];
    hs_err rv = HS_OK;

    while (line->sent < BYTES && rv == HS_OK) {
        struct hs_op op = op_with(line->token);

        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = pattern(line->id, line->sent + i);
        rv = DONE(hs_conn_send_all(line->ends[0], &op, bytes, sizeof(bytes), fresh()));
        line->sent += op.done;
    }
    ck_assert_msg(rv == HS_OK || is_fair_end(rv), "%s", hs_err_text(rv));
    return NULL;
}

static void *
read_line(void *arg)
{
    struct line *line = arg;
    uint8_t bytes[700];
    hs_err rv = HS_OK;
    size_t n = 1;

    while (rv == HS_OK && n > 0 && line->got < BYTES) {
        struct hs_op op = op_with(line->token);

        rv = DONE(hs_conn_recv(line->ends[1], &op, bytes, sizeof(bytes), 0, fresh(), &n));
        for (size_t i = 0; rv == HS_OK && i < n; i++)
            ck_assert_uint_eq(bytes[i], pattern(line->id, line->got + i));
        line->got += rv == HS_OK ? n : 0;
    }
    ck_assert_msg(rv == HS_OK || is_fair_end(rv), "%s", hs_err_text(rv));
    return NULL;
}

/* Ends the line in one of several ways after it has carried something. */
static void
disturb(struct line *line, unsigned how)
{
    struct hs_conn_info info;
    int64_t until = hs_deadline_after(2 * MS);

    do
        hs_conn_info(line->ends[1], &info);
    while (info.bytes_received < 1000 * how && hs_now() < until);
    switch (how % 6) {
    case 0:
        hs_conn_close(line->ends[0], false);
        break;
    case 1:
        hs_conn_close(line->ends[1], true);
        break;
    case 2:
        (void)hs_token_cancel(line->token, "disturbed", 0, NULL);
        break;
    case 3:
        hs_conn_set_deadline(line->ends[1], HS_DIR_IN, hs_now());
        hs_conn_set_deadline(line->ends[0], HS_DIR_OUT, hs_now());
        break;
    case 4:
        ASSERT_OK(hs_token_set_deadline(line->token, hs_now()));
        break;
    default: /* left to finish */
        break;
    }
}

static void
one_round(unsigned round)
{
    struct line lines[CONNS];
    struct thread readers[CONNS], writers[CONNS];

    for (unsigned i = 0; i < CONNS; i++) {
        int fds[2];

        lines[i] = (struct line){.id = round * CONNS + i};
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        ASSERT_OK(hs_conn_adopt(fds[0], NULL, fresh(), &lines[i].ends[0]));
        ASSERT_OK(hs_conn_adopt(fds[1], NULL, fresh(), &lines[i].ends[1]));
        ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &lines[i].token));
        thread_start(&readers[i], read_line, &lines[i]);
        thread_start(&writers[i], write_line, &lines[i]);
    }
    for (unsigned i = 0; i < CONNS; i++)
        disturb(&lines[i], round + i);
    for (unsigned i = 0; i < CONNS; i++) {
        if ((round + i) % 6 < 2) /* The other end sees no end while both are held. */
            for (int j = 0; j < 2; j++)
                hs_conn_close(lines[i].ends[j], false);
        (void)thread_join(&writers[i]);
        (void)thread_join(&readers[i]);
        ck_assert_uint_le(lines[i].got, lines[i].sent);
        if ((round + i) % 6 == 5)
            ck_assert_uint_eq(lines[i].got, BYTES);
        hs_conn_unref(lines[i].ends[0]);
        hs_conn_unref(lines[i].ends[1]);
        hs_token_unref(lines[i].token);
    }
}

START_TEST(no_byte_ever_reaches_a_stranger)
{
    struct thread churner;

    stop = false;
    thread_start(&churner, churn, NULL);
    for (unsigned round = 0; round < ROUNDS; round++)
        one_round(round);
    stop = true;
    (void)thread_join(&churner);
}
END_TEST

struct shared {
    struct hs_conn *c;
    atomic_int busy, done;
};

/* Several readers of one connection: each call works alone or is told that it is busy. */
static void *
read_together(void *arg)
{
    struct shared *s = arg;
    hs_err rv;

    do {
        struct hs_op op = op_in(10 * SECOND);
        uint8_t byte;
        size_t n;

        rv = DONE(hs_conn_recv(s->c, &op, &byte, 1, 0, fresh(), &n));
        if (rv == HS_E_BUSY)
            s->busy++;
        else if (rv == HS_OK)
            s->done += (int)n;
    } while (rv == HS_OK || rv == HS_E_BUSY);
    ASSERT_ERR(HS_E_CLOSED, rv);
    return NULL;
}

static void *
meddle(void *arg)
{
    struct shared *s = arg;
    struct hs_conn_info info;
    struct hs_addr addr;
    int fd;

    while (!hs_conn_is_closed(s->c)) {
        hs_conn_info(s->c, &info);
        (void)hs_conn_fileno(s->c);
        if (hs_conn_local_addr(s->c, NULL, &addr) == HS_OK)
            ck_assert_int_eq(addr.sa.sa_family, AF_UNIX);
        hs_conn_set_deadline(s->c, HS_DIR_IN, HS_NEVER);
        fd = -1;
        if (hs_conn_detach(s->c, NULL, &fd) == HS_OK)
            (void)close(fd);
    }
    return NULL;
}

START_TEST(readers_askers_detachers_and_a_closer_share_a_connection)
{
    for (int round = 0; round < 30; round++) {
        struct pair p = pair_unix();
        struct shared s = {.c = p.c};
        struct thread threads[4];

        for (size_t i = 0; i < 4; i++)
            thread_start(&threads[i], i < 2 || round % 2 ? read_together : meddle, &s);
        for (int i = 0; i < 50; i++)
            (void)send(p.peer, "x", 1, MSG_NOSIGNAL);
        if (round % 2)
            EVENTUALLY(s.done == 50);
        hs_conn_close(p.c, false);
        for (size_t i = 0; i < 4; i++)
            (void)thread_join(&threads[i]);
        pair_free(&p);
    }
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("crowd");

    tcase_set_timeout(tc, 100);
    tcase_add_test(tc, no_byte_ever_reaches_a_stranger);
    tcase_add_test(tc, readers_askers_detachers_and_a_closer_share_a_connection);
    return run_case(tc);
}
