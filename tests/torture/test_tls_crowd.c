/* test_tls_crowd.c: many threads on few TLS connections, and all that may happen beside.
 *
 * Each connection carries its own pattern both ways at once; both ends are read and written while
 * somebody closes, cancels, lets deadlines pass, or ends a direction. Settings are reloaded, the
 * process forks and its children let go of what they inherited. What is received must be a prefix
 * of the pattern, and an end that looks clean must stand between two messages: a close_notify in
 * the middle of one would pass half a message for a whole one.
 */
#include "../c/support.h"
#include "../c/support_tls.h"

#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 18
#define LINES 4
#define MESSAGE 20000 /* more than a record, less than two */
#define MESSAGES 8

static struct hs_tls_config *client_config, *server_config;
static atomic_bool stop;

struct line {
    struct hs_token *token;
    atomic_bool cut; /* one end stopped below TLS, so the other's OpenSSL complains of it */
    struct end {
        struct line *line;
        struct hs_conn *c;
        uint64_t id; /* of the pattern that goes out here */
        struct end *other;
        size_t sent, got;
        bool whole; /* the peer's end was clean */
        hs_err shaken;
    } ends[2];
};

static bool
is_fair_end(hs_err rv)
{
    switch (rv) {
    case HS_OK:
    case HS_E_CLOSED:
    case HS_E_CANCELLED:
    case HS_E_DEADLINE:
    case HS_E_RESET:
    case HS_E_POISONED:
    case HS_E_TRUNCATED:
        return true;
    default:
        return false;
    }
}

/* OpenSSL answers an end without close_notify by the alert decode_error. The end that was cut so
 * may still be reading, or find the alert when it writes. */
static bool
is_answer_to_cut(const struct line *line, hs_err rv)
{
    return rv == HS_E_TLS && atomic_load(&line->cut) &&
           strstr(last_error()->msg, "alert 50") != NULL;
}

/* A handshake may also be cut off by what happens to the other end. */
static void *
shake(void *arg)
{
    struct end *e = arg;
    bool client = e == &e->line->ends[0];
    struct hs_op op = op_with(e->line->token);

    e->shaken = DONE(hs_conn_start_tls(e->c, &op, client ? client_config : server_config,
                                       client ? "a.example" : NULL, fresh()));
    ck_assert_msg(is_fair_end(e->shaken) || last_error()->tls == HS_TLS_ABORTED ||
                      last_error()->tls == HS_TLS_EMPTY,
                  "%s: %s", hs_err_text(e->shaken), last_error()->msg);
    return NULL;
}

static void *
write_end(void *arg)
{
    struct end *e = arg;
    uint8_t bytes[MESSAGE];
    hs_err rv = HS_OK;

    for (int i = 0; i < MESSAGES && rv == HS_OK; i++) {
        struct hs_op op = op_with(e->line->token);

        for (size_t at = 0; at < MESSAGE; at++)
            bytes[at] = pattern(e->id, e->sent + at);
        rv = DONE(hs_conn_send_all(e->c, &op, bytes, MESSAGE, fresh()));
        e->sent += op.done;
    }
    if (rv == HS_OK) {
        struct hs_op op = op_with(e->line->token);

        rv = DONE(hs_conn_close_write(e->c, &op, fresh()));
    }
    ck_assert_msg(is_fair_end(rv) || is_answer_to_cut(e->line, rv), "%s: %s", hs_err_text(rv),
                  last_error()->msg);
    return NULL;
}

static void *
read_end(void *arg)
{
    struct end *e = arg;
    uint8_t bytes[7000];
    hs_err rv = HS_OK;
    size_t n = 1;

    while (rv == HS_OK && n > 0) {
        struct hs_op op = op_with(e->line->token);

        rv = DONE(hs_conn_recv(e->c, &op, bytes, sizeof(bytes), 0, fresh(), &n));
        for (size_t i = 0; rv == HS_OK && i < n; i++)
            ck_assert_uint_eq(bytes[i], pattern(e->other->id, e->got + i));
        e->got += rv == HS_OK ? n : 0;
    }
    e->whole = rv == HS_OK;
    ck_assert_msg(is_fair_end(rv) || is_answer_to_cut(e->line, rv), "%s: %s", hs_err_text(rv),
                  last_error()->msg);
    return NULL;
}

static void
disturb(struct line *line, unsigned how, unsigned when)
{
    struct hs_conn_info info;
    struct hs_tls_info tls;
    int64_t until = hs_deadline_after(20 * MS);
    hs_err rv;

    do {
        hs_conn_info(line->ends[1].c, &info);
        (void)hs_conn_tls_info(line->ends[0].c, &tls);
    } while (info.bytes_received < MESSAGE / 3 * when && hs_now() < until);
    switch (how) {
    case 0:
        hs_conn_close(line->ends[0].c, false);
        break;
    case 1:
        hs_conn_close(line->ends[1].c, true);
        break;
    case 2:
        (void)hs_token_cancel(line->token, "disturbed", 0, NULL);
        break;
    case 3:
        hs_conn_set_deadline(line->ends[1].c, HS_DIR_IN, hs_now());
        hs_conn_set_deadline(line->ends[0].c, HS_DIR_OUT, hs_now());
        break;
    case 4:
        atomic_store(&line->cut, true);
        rv = hs_conn_shutdown(line->ends[1].c, SHUT_WR, NULL);
        ck_assert(is_fair_end(rv));
        break;
    case 5:
        ASSERT_OK(hs_token_set_deadline(line->token, hs_now()));
        break;
    default: /* left to finish */
        break;
    }
}
#define DISTURBANCES 7

static void
open_line(struct line *line, uint64_t id, bool tcp)
{
    struct tls_pair p = plain_pair(tcp);
    const int small = 8192;

    *line = (struct line){0};
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &line->token));

    for (int i = 0; i < 2; i++) {
        struct end *e = &line->ends[i];

        *e = (struct end){.line = line,
                          .c = i == 0 ? p.client : p.server,
                          .id = 2 * id + (uint64_t)i,
                          .other = &line->ends[1 - i]};
        ASSERT_OK(hs_conn_setsockopt(e->c, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small), fresh()));
    }
}

static void
check_line(struct line *line, bool undisturbed)
{
    for (int i = 0; i < 2; i++) {
        struct end *e = &line->ends[i];

        ck_assert_uint_le(e->got, e->other->sent + MESSAGE); /* of a send that failed some is out */
        if (e->whole)
            ck_assert_msg(e->got % MESSAGE == 0, "a clean end after %zu bytes", e->got);
        if (undisturbed)
            ck_assert_uint_eq(e->got, (size_t)MESSAGE * MESSAGES);
    }
}

static void
one_round(unsigned round)
{
    struct line lines[LINES];
    struct thread threads[LINES][4];

    for (unsigned i = 0; i < LINES; i++) {
        open_line(&lines[i], (uint64_t)round * LINES + i, i % 2);
        for (int j = 0; j < 2; j++)
            thread_start(&threads[i][j], shake, &lines[i].ends[j]);
        if ((round + i) % 9 == 0)
            disturb(&lines[i], round % DISTURBANCES, 0); /* in the middle of a handshake */
    }
    for (unsigned i = 0; i < LINES; i++) {
        for (int j = 0; j < 2; j++)
            (void)thread_join(&threads[i][j]);
        for (int j = 0; j < 4; j++)
            thread_start(&threads[i][j], j < 2 ? read_end : write_end, &lines[i].ends[j % 2]);
    }
    for (unsigned i = 0; i < LINES; i++)
        disturb(&lines[i], (round + i) % DISTURBANCES, round % 10);
    for (unsigned i = 0; i < LINES; i++) {
        bool undisturbed = (round + i) % DISTURBANCES == DISTURBANCES - 1 && (round + i) % 9 != 0;

        for (int j = 0; j < 2 && !undisturbed; j++) /* The other end may wait for ever. */
            hs_conn_close(lines[i].ends[j].c, false);
        for (int j = 0; j < 4; j++)
            (void)thread_join(&threads[i][j]);
        check_line(&lines[i], undisturbed);
        for (int j = 0; j < 2; j++)
            hs_conn_unref(lines[i].ends[j].c);
        hs_token_unref(lines[i].token);
    }
}

static void *
reload(void *arg)
{
    struct hs_tls_options client = client_options(), server = server_options();

    (void)arg;
    for (unsigned i = 0; !stop; i++) {
        server.tickets = (int)(i % 4);
        only_version(&client, i % 3 == 0 ? HS_TLS_1_2 : i % 3 == 1 ? HS_TLS_1_3 : 0);
        client.min_version = i % 3 == 2 ? HS_TLS_1_2 : client.min_version;
        client.max_version = i % 3 == 2 ? HS_TLS_1_3 : client.max_version;
        ASSERT_OK(hs_tls_config_reload(client_config, &client, fresh()));
        ASSERT_OK(hs_tls_config_reload(server_config, &server, fresh()));
        breathe();
    }
    return NULL;
}

/* What a child does with connections that it inherited by way of another thread's memory is in
 * test_tls_io.c; here its being there, and its using the settings, must harm nobody. */
static void *
fork_often(void *arg)
{
    (void)arg;
    while (!stop) {
        pid_t pid = fork();
        int status = -1;

        if (pid == 0) {
            hs_tls_config_unref(hs_tls_config_ref(client_config));
            _exit(hs_tls_config_sessions(client_config) > 5000);
        }
        ck_assert_int_ge(pid, 0);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);
        breathe();
    }
    return NULL;
}

START_TEST(no_byte_is_lost_doubled_or_passed_for_the_last)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct thread reloader, forker;

    client_config = config_of(&client);
    server_config = config_of(&server);
    stop = false;
    thread_start(&reloader, reload, NULL);
    thread_start(&forker, fork_often, NULL);
    for (unsigned round = 0; round < ROUNDS; round++)
        one_round(round);
    stop = true;
    (void)thread_join(&reloader);
    (void)thread_join(&forker);
    hs_tls_config_unref(client_config);
    hs_tls_config_unref(server_config);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("tls crowd");

    (void)signal(SIGPIPE, SIG_DFL);
    tls_world();
    tcase_set_timeout(tc, 100);
    tcase_add_test(tc, no_byte_is_lost_doubled_or_passed_for_the_last);
    return run_case(tc);
}
