/* test_told.c: why a connection broke, which the kernel tells once, to the one who asks first.
 *
 * A peer that does not read, and TCP_USER_TIMEOUT: the kernel gives up and has ETIMEDOUT for one
 * call. The one who was told is held between the kernel's answer and ours, where others may find
 * the end of it all; what they say must wait for it.
 */
#include "parking_support.h"
#include "pool_support.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static const int versions[] = {HS_TLS_1_2, HS_TLS_1_3};

/* ---- Who is told first --------------------------------------------------------------------- */

enum { NOBODY, TOLD_FIRST, TOLD_NOTHING, READS_A_FILE, MAY_NOT_WAIT };

static _Thread_local int role;
static struct {
    atomic_bool armed;      /* the connection is dead, and all are to ask */
    atomic_bool told;       /* TOLD_FIRST has the kernel's answer */
    atomic_bool met;        /* TOLD_NOTHING has ended, or waits for that one */
    _Atomic int soft_error; /* what SO_ERROR says instead of ETIMEDOUT, or 0 */
    _Atomic int remark;     /* what it says once of a connection that is alive, or 0 */
    atomic_bool reads;      /* READS_A_FILE is in sendfile(2), */
    atomic_bool has_read;   /* and stays there until this */
} stage;

ssize_t __real_recv(int fd, void *buf, size_t len, int flags);
ssize_t __real_send(int fd, const void *buf, size_t len, int flags);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __real_sched_yield(void);
ssize_t __real_sendfile(int fd, int file, off_t *offset, size_t len);
ssize_t __wrap_sendfile(int fd, int file, off_t *offset, size_t len);
ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_sched_yield(void);

static void
before_asking(void)
{
    if (role == TOLD_NOTHING && atomic_load(&stage.armed))
        EVENTUALLY(atomic_load(&stage.told));
}

static void
after_asking(int sys)
{
    if (role != TOLD_FIRST || sys != ETIMEDOUT)
        return;
    atomic_store(&stage.told, true);
    EVENTUALLY(atomic_load(&stage.met));
    errno = sys;
}

ssize_t
__wrap_recv(int fd, void *buf, size_t len, int flags)
{
    ssize_t n;

    before_asking();
    n = __real_recv(fd, buf, len, flags);
    after_asking(n < 0 ? errno : 0);
    return n;
}

ssize_t
__wrap_send(int fd, const void *buf, size_t len, int flags)
{
    ssize_t n;

    before_asking();
    n = __real_send(fd, buf, len, flags);
    after_asking(n < 0 ? errno : 0);
    return n;
}

/* The disk takes its time before the socket is asked. */
ssize_t
__wrap_sendfile(int fd, int file, off_t *offset, size_t len)
{
    ssize_t n;

    if (role == READS_A_FILE) {
        atomic_store(&stage.reads, true);
        EVENTUALLY(atomic_load(&stage.has_read));
    }
    before_asking();
    n = __real_sendfile(fd, file, offset, len);
    after_asking(n < 0 ? errno : 0);
    return n;
}

int
__wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    int rv = __real_getsockopt(fd, level, name, value, len);
    int *error = value;

    if (rv != 0 || level != SOL_SOCKET || name != SO_ERROR)
        return rv;
    if (*error == ETIMEDOUT && atomic_load(&stage.soft_error) != 0)
        *error = atomic_load(&stage.soft_error);
    if (*error == 0)
        *error = atomic_exchange(&stage.remark, 0);
    after_asking(*error);
    return rv;
}

int
__wrap_sched_yield(void)
{
    if (role == TOLD_NOTHING)
        atomic_store(&stage.met, true);
    ck_assert_int_ne(role, MAY_NOT_WAIT);
    return __real_sched_yield();
}

/* ---- Dying peers --------------------------------------------------------------------------- */

static void
give_up_after(int fd, unsigned ms)
{
    ck_assert_int_eq(setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms)), 0);
}

/* The kernel has given it up, and told nobody. */
static void
wait_until_dead(int fd)
{
    struct pollfd p = {.fd = fd};

    ck_assert_int_eq(poll(&p, 1, 60000), 1);
    ck_assert_int_ne(p.revents & POLLERR, 0);
}

static void
let_die(struct hs_conn *c)
{
    (void)fill(c);
    give_up_after(hs_conn_fileno(c), 10);
    wait_until_dead(hs_conn_fileno(c));
}

static struct pair
dead_pair(void)
{
    struct pair p = pair_tcp();

    let_die(p.c);
    return p;
}

/* ---- Calls --------------------------------------------------------------------------------- */

struct asking {
    struct hs_conn *c;
    int role;
    uint64_t lease;
    hs_err rv;
};

static void *
read_it(void *arg)
{
    struct asking *a = arg;
    struct hs_op op = op_in(60 * SECOND);
    uint8_t byte;
    size_t n;

    role = a->role;
    a->rv = DONE(hs_conn_recv(a->c, &op, &byte, 1, 0, fresh(), &n));
    if (role == TOLD_NOTHING)
        atomic_store(&stage.met, true);
    return NULL;
}

static void *
write_it(void *arg)
{
    struct asking *a = arg;
    struct hs_op op = op_in(60 * SECOND);
    static const uint8_t zeros[4096]; /* as fill: half a record of TLS may be out */
    size_t n;

    role = a->role;
    do /* The kernel may find room once more in what was full a moment ago. */
        a->rv = DONE(hs_conn_send(a->c, &op, zeros, sizeof(zeros), fresh(), &n));
    while (a->rv == HS_OK);
    if (role == TOLD_NOTHING)
        atomic_store(&stage.met, true);
    return NULL;
}

static void *
send_a_file(void *arg)
{
    struct asking *a = arg;
    struct hs_conn *kept = hs_conn_ref(a->c); /* A pool may let it go meanwhile. */
    struct hs_op op = op_in(60 * SECOND);
    int file = memfd_create("hardsock-test", MFD_CLOEXEC);
    int64_t offset = 0;

    ck_assert_int_eq(ftruncate(file, 16 << 20), 0); /* more than any buffer takes */
    role = a->role;
    a->rv = DONE(hs_conn_send_file(a->c, &op, file, &offset, 16 << 20, fresh()));
    if (role == TOLD_NOTHING)
        atomic_store(&stage.met, true);
    hs_conn_unref(kept);
    (void)close(file);
    return NULL;
}

static void *
ask_for_error(void *arg)
{
    struct asking *a = arg;
    int sys = 0;
    socklen_t len = sizeof(sys);

    role = a->role;
    wait_until_dead(hs_conn_fileno(a->c));
    a->rv = hs_conn_getsockopt(a->c, SOL_SOCKET, SO_ERROR, &sys, &len, fresh());
    if (a->rv == HS_OK && sys == ETIMEDOUT)
        a->rv = HS_E_DEAD_PEER;
    return NULL;
}

static const struct {
    void *(*first)(void *), *(*second)(void *);
} orders[] = {
    {read_it, write_it},       {write_it, read_it},    {ask_for_error, read_it},
    {ask_for_error, write_it}, {send_a_file, read_it}, {read_it, send_a_file},
};

START_TEST(who_is_not_told_waits_for_the_one_who_is)
{
    struct pair p = pair_tcp();
    struct asking first = {.c = p.c, .role = TOLD_FIRST}, second = {.c = p.c, .role = TOLD_NOTHING};
    struct thread a, b;

    (void)fill(p.c);
    thread_start(&b, orders[_i].second, &second);
    thread_wait_asleep(&b);
    atomic_store(&stage.armed, true);
    thread_start(&a, orders[_i].first, &first);
    if (orders[_i].first != ask_for_error)
        thread_wait_asleep(&a);
    give_up_after(hs_conn_fileno(p.c), 10);
    (void)thread_join(&a);
    (void)thread_join(&b);
    ASSERT_ERR(HS_E_DEAD_PEER, first.rv);
    ASSERT_ERR(HS_E_DEAD_PEER, second.rv);
    pair_free(&p);
}
END_TEST

/* As another process that has the socket may: the kernel's word is gone, and nobody here has it. */
static void
take_word(int fd)
{
    int sys = 0;
    socklen_t len = sizeof(sys);

    ck_assert_int_eq(__real_getsockopt(fd, SOL_SOCKET, SO_ERROR, &sys, &len), 0);
    ck_assert_int_eq(sys, ETIMEDOUT);
}

/* Whether sendfile(2) will be told, behind a disk that does not answer, is not waited for without
 * end: the one who has found an end goes on while that call is still there. */
START_TEST(nobody_waits_for_a_disk_that_does_not_answer)
{
    struct pair p = dead_pair();
    struct asking file = {.c = p.c, .role = READS_A_FILE}, reader = {.c = p.c};
    struct thread t;

    thread_start(&t, send_a_file, &file);
    EVENTUALLY(atomic_load(&stage.reads));
    take_word(hs_conn_fileno(p.c));
    (void)read_it(&reader);
    ASSERT_ERR(HS_E_RESET, reader.rv);
    ck_assert(!atomic_load(&stage.has_read));
    atomic_store(&stage.has_read, true);
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_RESET, file.rv);
    pair_free(&p);
}
END_TEST

/* Asked by who holds Python's lock, beside a call whose disk does not answer. */
START_TEST(whether_it_is_quiet_is_said_without_waiting)
{
    struct pair p = dead_pair();
    struct asking file = {.c = p.c, .role = READS_A_FILE};
    struct thread t;

    thread_start(&t, send_a_file, &file);
    EVENTUALLY(atomic_load(&stage.reads));
    take_word(hs_conn_fileno(p.c));
    role = MAY_NOT_WAIT;
    ck_assert(!hs_conn_is_quiet(p.c));
    role = NOBODY;
    atomic_store(&stage.has_read, true);
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_RESET, file.rv);
    pair_free(&p);
}
END_TEST

static void *
shut_it_down(void *arg)
{
    struct asking *a = arg;
    struct hs_op op = op_in(60 * SECOND);

    role = a->role;
    op.lease = a->lease;
    a->rv = hs_conn_shutdown_by(a->c, &op, SHUT_RDWR, fresh());
    return NULL;
}

/* Who returns a lease waits for those who have it: not for one who waits for a disk. */
START_TEST(return_does_not_wait_for_a_shutdown_that_waits)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *pool = pool_of(&s, &o);
    struct hs_lease lease = take(pool);
    struct asking file = {.c = lease.conn, .role = READS_A_FILE};
    struct asking end = {.c = lease.conn, .role = TOLD_NOTHING, .lease = lease.id};
    struct thread reading, ending;

    let_die(lease.conn);
    thread_start(&reading, send_a_file, &file);
    EVENTUALLY(atomic_load(&stage.reads));
    take_word(hs_conn_fileno(lease.conn));
    thread_start(&ending, shut_it_down, &end);
    EVENTUALLY(atomic_load(&stage.met));
    role = MAY_NOT_WAIT;
    ck_assert_int_eq(give(pool, &lease), HS_POOL_BUSY);
    role = NOBODY;
    atomic_store(&stage.has_read, true);
    (void)thread_join(&reading);
    (void)thread_join(&ending);
    ASSERT_ERR(HS_E_RESET, end.rv);
    pool_end(pool);
    server_free(&s);
}
END_TEST

/* ---- One after another --------------------------------------------------------------------- */

START_TEST(an_end_that_the_peer_had_sent_does_not_hide_its_death)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(60 * SECOND);
    uint8_t byte;
    size_t n;

    atomic_store(&stage.soft_error, _i == 1 ? EHOSTUNREACH : 0);
    ck_assert_int_eq(shutdown(p.peer, SHUT_WR), 0);
    let_die(p.c);
    ASSERT_ERR(HS_E_DEAD_PEER, DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    ASSERT_ERR(HS_E_DEAD_PEER, DONE(hs_conn_send(p.c, &op, &byte, 1, fresh(), &n)));
    pair_free(&p);
}
END_TEST

START_TEST(finish_tells_of_a_death_after_the_peers_end)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(60 * SECOND);
    struct hs_close_report report;

    atomic_store(&stage.soft_error, _i == 1 ? EHOSTUNREACH : 0);
    ck_assert_int_eq(shutdown(p.peer, SHUT_WR), 0);
    let_die(p.c);
    ASSERT_OK(DONE(hs_conn_finish(p.c, &op, fresh(), &report)));
    ck_assert_int_eq(report.ending, HS_ENDING_DEAD_PEER);
    pair_free(&p);
}
END_TEST

/* As after a second without a route: the kernel says it, and sends on. */
START_TEST(a_remark_about_the_way_breaks_nothing)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(60 * SECOND);
    socklen_t len = sizeof(int);
    int sys = 0;
    char text[4];

    atomic_store(&stage.remark, EHOSTUNREACH);
    ASSERT_OK(hs_conn_getsockopt(p.c, SOL_SOCKET, SO_ERROR, &sys, &len, fresh()));
    ck_assert_int_eq(sys, EHOSTUNREACH);
    ASSERT_OK(DONE(hs_conn_send_all(p.c, &op, (const uint8_t *)"more", 4, fresh())));
    ck_assert_int_eq(recv(p.peer, text, sizeof(text), MSG_WAITALL), 4);
    pair_free(&p);
}
END_TEST

START_TEST(who_measures_leaves_what_it_was_told_to_calls)
{
    struct pair p = dead_pair();
    struct hs_op op = op_in(60 * SECOND);
    struct hs_delays *d;
    uint8_t byte;
    size_t n;

    ASSERT_OK(hs_delays_new(fresh(), &d));
    hs_conn_measure(p.c, d);
    ASSERT_ERR(HS_E_DEAD_PEER, DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    hs_delays_unref(d);
    pair_free(&p);
}
END_TEST

/* The first that is asked cannot say more than that it is over. */
START_TEST(shutdown_of_a_dead_connection_says_so)
{
    struct pair p = dead_pair();
    struct hs_op op = op_in(60 * SECOND);
    uint8_t byte;
    size_t n;

    ASSERT_ERR(HS_E_DEAD_PEER, hs_conn_shutdown(p.c, SHUT_WR, fresh()));
    ck_assert_str_eq(last_error()->op, "shutdown");
    ASSERT_ERR(HS_E_DEAD_PEER, DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    pair_free(&p);
}
END_TEST

START_TEST(no_handshake_begins_with_the_dead)
{
    struct hs_tls_options options = client_options();
    struct hs_tls_config *config = config_of(&options);
    struct pair p = dead_pair();
    struct hs_op op = op_in(60 * SECOND);

    ASSERT_ERR(HS_E_DEAD_PEER, DONE(hs_conn_start_tls(p.c, &op, config, "a.example", fresh())));
    ck_assert_str_eq(last_error()->phase, "tls");
    hs_tls_config_unref(config);
    pair_free(&p);
}
END_TEST

START_TEST(a_probe_leaves_what_it_was_told_to_calls)
{
    struct pair p = dead_pair();
    struct hs_op op = op_in(60 * SECOND);
    size_t n;

    ck_assert_int_eq(hs_conn_probe(p.c), HS_LIVE_DEAD);
    ck_assert_int_eq(hs_conn_probe(p.c), HS_LIVE_DEAD);
    ASSERT_ERR(HS_E_DEAD_PEER, DONE(hs_conn_send(p.c, &op, (const uint8_t *)"x", 1, fresh(), &n)));
    pair_free(&p);
}
END_TEST

START_TEST(a_pool_tells_an_idle_connection_that_died_from_one_that_was_closed)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    struct hs_op op = op_in(60 * SECOND);
    int peer = server_accept(&s);
    uint8_t byte;
    size_t n;

    (void)fill(lease.conn);
    put(peer, "x", 1); /* an answer, behind which it may be lent again */
    ASSERT_OK(DONE(hs_conn_recv(lease.conn, &op, &byte, 1, 0, fresh(), &n)));
    give_up_after(hs_conn_fileno(lease.conn), 10);
    ck_assert_int_eq(give(p, &lease), HS_POOL_NONE);
    EVENTUALLY(stats_of(p).closed == 1);
    ck_assert_uint_eq(stats_of(p).closed_by_reason[HS_POOL_PEER_DEAD], 1);
    pool_end(p);
    (void)close(peer);
    server_free(&s);
}
END_TEST

START_TEST(a_parked_connection_ends_as_its_writer_was_told)
{
    struct hs_parking *parking_of_one = parking();
    struct pair p = pair_tcp();
    struct asking writer = {.c = p.c};

    park(parking_of_one, p.c, HS_NEVER);
    let_die(p.c);
    (void)write_it(&writer);
    ASSERT_ERR(HS_E_DEAD_PEER, writer.rv);
    expect_ended(parking_of_one, p.c, HS_ENDING_DEAD_PEER);
    pair_free(&p);
    hs_parking_unref(parking_of_one);
}
END_TEST

/* ---- Under TLS ----------------------------------------------------------------------------- */

/* To say its goodbye it reads what is there, and so is told. */
START_TEST(what_a_goodbye_of_tls_was_told_is_not_lost)
{
    struct tls_pair p = default_pair(true, versions[_i]);
    struct hs_op op = op_in(60 * SECOND);
    uint8_t byte;
    size_t n;

    let_die(p.client);
    ASSERT_ERR(HS_E_DEAD_PEER, hs_conn_shutdown(p.client, SHUT_WR, fresh()));
    ASSERT_ERR(HS_E_DEAD_PEER, DONE(hs_conn_recv(p.client, &op, &byte, 1, 0, fresh(), &n)));
    tls_pair_free(&p);
}
END_TEST

START_TEST(tls_tells_reader_and_writer_the_same)
{
    struct tls_pair p = default_pair(true, versions[_i / 2]);
    struct asking a = {.c = p.client}, b = {.c = p.client};

    let_die(p.client);
    (void)(_i % 2 == 0 ? read_it : write_it)(&a);
    (void)(_i % 2 == 0 ? write_it : read_it)(&b);
    ASSERT_ERR(HS_E_DEAD_PEER, a.rv);
    ASSERT_ERR(HS_E_DEAD_PEER, b.rv);
    tls_pair_free(&p);
}
END_TEST

/* TLS is over when the peer dies: what is read past it is told, and it counts as a death. */
START_TEST(a_death_that_is_told_past_a_tls_that_has_failed_is_noted)
{
    struct tls_pair p = default_pair(true, versions[_i]);
    struct hs_op op = op_in(60 * SECOND), in = op_in(60 * SECOND);
    static const uint8_t no_record[64] = "this is no record of TLS";
    int fd = hs_conn_fileno(p.client);
    struct hs_reset_counts before, after;
    struct hs_close_report report;
    uint8_t byte;
    size_t n;

    put(hs_conn_fileno(p.server), no_record, sizeof(no_record));
    ASSERT_ERR(HS_E_TLS, DONE(hs_conn_recv(p.client, &in, &byte, 1, 0, fresh(), &n)));
    while (__real_send(fd, no_record, sizeof(no_record), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        continue;
    give_up_after(fd, 10);
    wait_until_dead(fd);
    hs_reset_counts(&before);
    ASSERT_OK(DONE(hs_conn_finish(p.client, &op, fresh(), &report)));
    ck_assert_int_eq(report.ending, HS_ENDING_DEAD_PEER);
    hs_reset_counts(&after);
    ck_assert_uint_eq(after.dead_peer, before.dead_peer + 1);
    tls_pair_free(&p);
}
END_TEST

/* Its TCP ends, without an end of TLS, and then it is gone. */
START_TEST(an_end_of_tcp_below_tls_does_not_hide_a_death)
{
    struct tls_pair p = default_pair(true, versions[_i]);
    struct asking reader = {.c = p.client};

    ck_assert_int_eq(shutdown(hs_conn_fileno(p.server), SHUT_WR), 0);
    let_die(p.client);
    (void)read_it(&reader);
    ASSERT_ERR(HS_E_DEAD_PEER, reader.rv);
    tls_pair_free(&p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("told");

    tls_world();
    tcase_add_loop_test(tc, who_is_not_told_waits_for_the_one_who_is, 0, (int)LENGTH(orders));
    tcase_add_loop_test(tc, an_end_that_the_peer_had_sent_does_not_hide_its_death, 0, 2);
    tcase_add_loop_test(tc, finish_tells_of_a_death_after_the_peers_end, 0, 2);
    tcase_add_test(tc, a_remark_about_the_way_breaks_nothing);
    tcase_add_test(tc, who_measures_leaves_what_it_was_told_to_calls);
    tcase_add_test(tc, shutdown_of_a_dead_connection_says_so);
    tcase_add_test(tc, no_handshake_begins_with_the_dead);
    tcase_add_test(tc, a_probe_leaves_what_it_was_told_to_calls);
    tcase_add_test(tc, a_pool_tells_an_idle_connection_that_died_from_one_that_was_closed);
    tcase_add_test(tc, a_parked_connection_ends_as_its_writer_was_told);
    tcase_add_loop_test(tc, what_a_goodbye_of_tls_was_told_is_not_lost, 0, 2);
    tcase_add_loop_test(tc, tls_tells_reader_and_writer_the_same, 0, 4);
    tcase_add_loop_test(tc, an_end_of_tcp_below_tls_does_not_hide_a_death, 0, 2);
    tcase_add_loop_test(tc, a_death_that_is_told_past_a_tls_that_has_failed_is_noted, 0, 2);
    tcase_add_test(tc, nobody_waits_for_a_disk_that_does_not_answer);
    tcase_add_test(tc, whether_it_is_quiet_is_said_without_waiting);
    tcase_add_test(tc, return_does_not_wait_for_a_shutdown_that_waits);
    return run_case(tc);
}
