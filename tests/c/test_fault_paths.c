/* test_fault_paths.c: calls that never fail of themselves, made to fail: what the core does then.
 *
 * The torture tests let each call fail in turn, and look for what is left over. Here is what must
 * be true besides: nobody waits for ever for a time that could not be set, nothing is taken for
 * less than it is because its end could not be told from a failure, nothing is left half done.
 */
#include "pool_support.h"
#include "support_tls.h"

#include "../../csrc/base/addr.h"
#include "../../csrc/base/fault.h"
#include "../../csrc/cancel/loop.h"
#include "../../csrc/cancel/reactor.h"
#include "../../csrc/cancel/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static uint64_t
begin(const char *spec)
{
    uint64_t id;

    ASSERT_OK(hs_faults_begin(spec, fresh(), &id));
    return id;
}

static void
end_after(uint64_t id, uint64_t want)
{
    uint64_t seed, calls[HS_FAULT_CALLS];

    ck_assert(hs_faults_plan(id, &seed, calls));
    hs_faults_end(id);
    ck_assert_uint_ge(hs_faults_logged(), want); /* Else nothing was tested. */
}

/* ---- Times that cannot be set -------------------------------------------------------------- */

START_TEST(a_reactor_refuses_a_time_that_cannot_be_set_and_is_not_lost)
{
    struct hs_parked thing = {0}, *got;
    struct hs_reactor *r;
    uint64_t id;

    ASSERT_OK(hs_reactor_new(fresh(), &r));
    id = begin("timerfd_settime.fail@1");
    ASSERT_ERR(HS_E_SYSTEM, hs_reactor_park(r, &thing, -1, 0, hs_now() + MS, fresh()));
    ck_assert_int_eq(last_error()->sys, EINVAL);
    ck_assert_str_eq(last_error()->msg, "timerfd_settime: Invalid argument");
    ASSERT_OK(hs_reactor_check(r, fresh()));
    ASSERT_OK(hs_reactor_park(r, &thing, -1, 0, hs_now() + MS, fresh()));
    ASSERT_OK(DONE(hs_reactor_next(r, true, fresh(), &got)));
    ck_assert_ptr_eq(got, &thing);
    ck_assert_int_eq(got->cause, HS_CAUSE_TIME);
    end_after(id, 1);
    hs_reactor_forget(r, &thing);
    hs_reactor_free(r);
}
END_TEST

START_TEST(what_waits_in_a_reactor_looks_for_itself_when_the_next_time_cannot_be_set)
{
    struct hs_parked first = {0}, second = {0}, *got;
    int64_t now = hs_now();
    struct hs_reactor *r;
    uint64_t id;

    ASSERT_OK(hs_reactor_new(fresh(), &r));
    id = begin("timerfd_settime.fail@2");
    ASSERT_OK(hs_reactor_park(r, &first, -1, 0, now + MS, fresh()));
    ASSERT_OK(hs_reactor_park(r, &second, -1, 0, now + 3600 * SECOND, fresh()));
    ASSERT_OK(DONE(hs_reactor_next(r, true, fresh(), &got)));
    ck_assert_ptr_eq(got, &first);
    ck_assert_int_eq(got->cause, HS_CAUSE_TIME);
    ASSERT_OK(hs_reactor_next(r, false, fresh(), &got));
    ck_assert_ptr_eq(got, &second);
    ck_assert_int_eq(got->cause, HS_CAUSE_CALLED);
    ASSERT_OK(hs_reactor_check(r, fresh()));
    end_after(id, 1);
    hs_reactor_forget(r, &first);
    hs_reactor_forget(r, &second);
    hs_reactor_free(r);
}
END_TEST

static bool
is_readable(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, timeout_ms) == 1;
}

START_TEST(a_loop_refuses_a_time_that_cannot_be_set_and_is_not_lost)
{
    struct hs_op op = op_step(SECOND);
    struct hs_loop_waiter *w;
    struct hs_loop *l;
    int named = 0;
    uint64_t id;

    op.want_fd = -1;
    op.want_at_ns = hs_now() + MS;
    ASSERT_OK(hs_loop_new(fresh(), &l));
    ASSERT_OK(hs_loop_waiter_new(l, &named, fresh(), &w));
    id = begin("timerfd_settime.fail@1");
    ASSERT_ERR(HS_E_SYSTEM, hs_loop_waiter_park(w, &op, fresh()));
    ck_assert_int_eq(last_error()->sys, EINVAL);
    ck_assert(!hs_loop_is_lost(l));
    ck_assert_ptr_null(hs_loop_next(l));
    ASSERT_OK(hs_loop_waiter_park(w, &op, fresh()));
    ck_assert(is_readable(hs_loop_fileno(l), 30000));
    hs_loop_collect(l);
    ck_assert_ptr_eq(hs_loop_next(l), &named);
    end_after(id, 1);
    hs_loop_waiter_free(w);
    hs_loop_free(l);
}
END_TEST

START_TEST(what_waits_in_a_loop_looks_for_itself_when_the_next_time_cannot_be_set)
{
    struct hs_op soon = op_step(SECOND), late = op_step(3600 * SECOND);
    struct hs_loop_waiter *first, *second;
    struct hs_loop *l;
    int a = 0, b = 0;
    uint64_t id;

    soon.want_fd = late.want_fd = -1;
    soon.want_at_ns = hs_now() + MS;
    late.want_at_ns = hs_now() + 3600 * SECOND;
    ASSERT_OK(hs_loop_new(fresh(), &l));
    ASSERT_OK(hs_loop_waiter_new(l, &a, fresh(), &first));
    ASSERT_OK(hs_loop_waiter_new(l, &b, fresh(), &second));
    id = begin("timerfd_settime.fail@2");
    ASSERT_OK(hs_loop_waiter_park(first, &soon, fresh()));
    ASSERT_OK(hs_loop_waiter_park(second, &late, fresh()));
    ck_assert(is_readable(hs_loop_fileno(l), 30000));
    hs_loop_collect(l);
    ck_assert_ptr_eq(hs_loop_next(l), &a);
    ck_assert_ptr_eq(hs_loop_next(l), &b);
    ck_assert(!hs_loop_is_lost(l));
    ASSERT_OK(hs_loop_waiter_park(second, &late, fresh()));
    end_after(id, 1);
    hs_loop_waiter_free(first);
    hs_loop_waiter_free(second);
    hs_loop_free(l);
}
END_TEST

START_TEST(a_token_whose_timer_cannot_be_set_has_no_descriptor_or_a_readable_one)
{
    struct hs_token *t;
    uint64_t id;
    int fd = 4711;

    ASSERT_OK(hs_token_new(NULL, 0, hs_now() + 3600 * SECOND, NULL, fresh(), &t));
    id = begin("timerfd_settime.fail@1,timerfd_settime.fail@3");
    ASSERT_ERR(HS_E_SYSTEM, hs_token_fileno(t, fresh(), &fd));
    ck_assert_int_eq(last_error()->sys, EINVAL);
    ck_assert_int_eq(fd, 4711);
    ASSERT_OK(hs_token_fileno(t, fresh(), &fd));
    ck_assert(!is_readable(fd, 0));
    ASSERT_OK(hs_token_set_deadline(t, hs_now() + 1800 * SECOND));
    ck_assert(
        is_readable(fd, 30000)); /* Who looks at the token finds it alive, and waits for it. */
    end_after(id, 2);
    hs_token_unref(t);
}
END_TEST

/* A newcomer, whose departure is only watched for once it is old enough. */
START_TEST(a_departure_is_told_though_no_time_can_be_set_for_the_young)
{
    struct pair first = pair_tcp(), second = pair_tcp();
    const struct linger now = {.l_onoff = 1};
    struct hs_token *early, *late;
    struct hs_callback *fired;
    struct hs_departures *d;
    struct hs_op op = op_step(30 * SECOND);
    uint64_t id;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &early));
    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &late));
    ASSERT_OK(hs_departures_new(200 * MS, fresh(), &d));
    id = begin("timerfd_settime.fail@2-");
    ASSERT_OK(hs_departures_watch(d, first.c, early, fresh()));
    for (int64_t until = hs_now() + 20 * MS; hs_now() < until;)
        breathe();
    ASSERT_OK(hs_departures_watch(d, second.c, late, fresh()));
    ck_assert_int_eq(setsockopt(second.peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    (void)close(second.peer);
    while (hs_token_check(late) == HS_OK) {
        ASSERT_ERR(HS_WANT, hs_departures_tend(d, &op, fresh(), &fired));
        if (hs_token_check(late) == HS_OK)
            wait_for_want(&op);
    }
    ck_assert_int_eq(hs_token_check(early), HS_OK);
    hs_faults_end(id); /* Where this process stood still, both were old enough at once. */
    second.peer = -1;
    pair_free(&first);
    pair_free(&second);
    hs_departures_unref(d);
    hs_token_unref(early);
    hs_token_unref(late);
}
END_TEST

/* ---- Events that cannot be asked for ------------------------------------------------------- */

static atomic_int looks_that_failed;

/* The look of a pool's thread at its set of idle ones is known by its room; its loop has less. */
static int
fail_the_first_look(enum hs_call call, size_t *len)
{
    if (call != HS_CALL_epoll_wait || *len != 64 || looks_that_failed > 0)
        return 0;
    looks_that_failed++;
    return EINTR;
}

START_TEST(an_idle_connection_that_ended_is_noticed_though_a_look_failed)
{
    struct server s = server_new();
    struct hs_pool_options o = options(1);
    struct hs_pool *p = pool_of(&s, &o);
    struct hs_lease lease = take(p);
    int peer = server_accept(&s);

    (void)give(p, &lease);
    hs_fault_set_decider(fail_the_first_look);
    (void)close(peer);
    EVENTUALLY(looks_that_failed == 1);
    EVENTUALLY(stats_of(p).idle == 0);
    hs_fault_set_decider(NULL);
    pool_end(p);
    server_free(&s);
}
END_TEST

START_TEST(who_polls_a_reactor_is_told_that_the_kernel_does_not_say)
{
    struct hs_parked thing = {0}, *got;
    struct hs_reactor *r;
    uint64_t id;

    ASSERT_OK(hs_reactor_new(fresh(), &r));
    ASSERT_OK(hs_reactor_park(r, &thing, -1, 0, hs_now() + MS, fresh()));
    ck_assert(is_readable(hs_reactor_fileno(r), 30000));
    id = begin("epoll_wait.fail@1-2,epoll_wait.interrupted@3");
    ASSERT_ERR(HS_E_SYSTEM, hs_reactor_poll(r, fresh(), &got));
    ck_assert_int_eq(last_error()->sys, EINVAL);
    ASSERT_ERR(HS_E_SYSTEM, hs_reactor_poll_any(r, fresh(), &got));
    ASSERT_ERR(HS_INTR, hs_reactor_poll(r, fresh(), &got));
    ASSERT_OK(hs_reactor_poll(r, fresh(), &got));
    ck_assert_ptr_eq(got, &thing);
    end_after(id, 3);
    hs_reactor_forget(r, &thing);
    hs_reactor_free(r);
}
END_TEST

/* The kernel does not say who is ready: each finds out, and a deadline is kept. */
START_TEST(what_waits_in_a_loop_looks_for_itself_when_the_kernel_does_not_say)
{
    struct hs_op op = op_step(3600 * SECOND);
    struct hs_loop_waiter *w;
    struct hs_loop *l;
    int named = 0;
    uint64_t id;

    op.want_fd = -1;
    op.want_at_ns = hs_now() + 3600 * SECOND;
    ASSERT_OK(hs_loop_new(fresh(), &l));
    ASSERT_OK(hs_loop_waiter_new(l, &named, fresh(), &w));
    ASSERT_OK(hs_loop_waiter_park(w, &op, fresh()));
    id = begin("epoll_wait.fail@1");
    hs_loop_collect(l);
    ck_assert_ptr_eq(hs_loop_next(l), &named);
    ck_assert(!hs_loop_is_lost(l));
    end_after(id, 1);
    hs_loop_waiter_free(w);
    hs_loop_free(l);
}
END_TEST

/* The descriptor is readable, and cannot be read: who tends must not go round until it can. */
START_TEST(who_cannot_look_for_departures_is_told)
{
    struct pair p = pair_tcp();
    const struct linger now = {.l_onoff = 1};
    struct hs_op op = HS_OP_INIT(hs_deadline_after(30 * SECOND), NULL);
    struct hs_callback *fired;
    struct hs_departures *d;
    struct hs_token *token;
    uint64_t id;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
    ASSERT_OK(hs_departures_new(0, fresh(), &d));
    ASSERT_OK(hs_departures_watch(d, p.c, token, fresh()));
    ck_assert_int_eq(setsockopt(p.peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    (void)close(p.peer);
    p.peer = -1;
    id = begin("epoll_wait.fail=1");
    ASSERT_ERR(HS_E_SYSTEM, DONE(hs_departures_tend(d, &op, fresh(), &fired)));
    ck_assert_int_eq(last_error()->sys, EINVAL);
    end_after(id, 1);
    op = op_step(30 * SECOND);
    while (hs_token_check(token) == HS_OK)
        ASSERT_ERR(HS_WANT, hs_departures_tend(d, &op, fresh(), &fired));
    pair_free(&p);
    hs_departures_unref(d);
    hs_token_unref(token);
}
END_TEST

struct wakers {
    int before, first, second;
};

static int
count_wakers(void)
{
    int fds[8];
    short revents;

    (void)DONE(hs_wait(-1, 0, NULL, hs_now() + MS, NULL, &revents));
    return fds_of_kind("eventfd", fds, LENGTH(fds));
}

static void *
wait_twice(void *arg)
{
    struct wakers *w = arg;
    int fds[8];

    w->before = fds_of_kind("eventfd", fds, LENGTH(fds));
    w->first = count_wakers();
    w->second = count_wakers();
    return NULL;
}

/* One that has no room for a key, or for its place: the next wait has, and its thread can be woken,
 * and leaves nothing behind. */
START_TEST(who_could_not_be_woken_for_want_of_a_key_can_be_later)
{
    struct wakers w;
    struct thread t;
    uint64_t id = begin("thread_key.fail@1");

    thread_start(&t, wait_twice, &w);
    (void)thread_join(&t);
    ck_assert_int_eq(w.first, w.before);
    ck_assert_int_eq(w.second, w.before + 1);
    end_after(id, 1);
}
END_TEST

/* ---- Files and folders --------------------------------------------------------------------- */

static char folder[40], path[60], text[80];

static void
make_folder(void)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/hardsock-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/s", folder);
    (void)snprintf(text, sizeof(text), "unix:%s", path);
}

static hs_err
listen_at_path(struct hs_listener **ret_l)
{
    struct hs_addr addr = addr_of(text);
    struct hs_endpoint ep = endpoint_of(&addr);
    struct hs_listen_options opts;

    hs_listen_options_init(&opts);
    opts.unix_mode = 0600;
    opts.unlink_stale = true;
    return hs_listener_open(&ep, &opts, fresh(), ret_l);
}

static const struct {
    const char *spec, *msg;
    int sys;
} failing_binds[] = {
    {"stat.fail@1", "stat of the new unix path: Permission denied", EACCES},
    {"chmod.fail@1", "chmod 600: Operation not permitted", EPERM},
    {"listen.in_use@1", "listen on unix:", EADDRINUSE},
};

START_TEST(a_path_that_could_not_be_listened_at_is_gone)
{
    struct hs_listener *l = NULL;
    uint64_t id;

    make_folder();
    id = begin(failing_binds[_i].spec);
    ASSERT_ERR(HS_E_SYSTEM, listen_at_path(&l));
    ck_assert_int_eq(last_error()->sys, failing_binds[_i].sys);
    ck_assert_ptr_nonnull(strstr(last_error()->msg, failing_binds[_i].msg));
    end_after(id, 1);
    ck_assert_int_eq(access(path, F_OK), -1);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

/* A stranger's lock, or a filesystem that has none, keeps no server from starting. */
START_TEST(a_folder_that_cannot_be_locked_is_listened_in_all_the_same)
{
    struct hs_listener *l = NULL;
    uint64_t id;

    make_folder();
    id = begin(_i ? "flock.again=1" : "flock.invalid=1");
    ASSERT_OK(listen_at_path(&l));
    hs_listener_close(l);
    hs_listener_unref(l);
    end_after(id, 2);
    ck_assert_int_eq(access(path, F_OK), -1);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

START_TEST(a_stale_path_that_cannot_be_removed_is_told)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct hs_listener *l = NULL;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uint64_t id;

    make_folder();
    (void)snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    (void)close(fd);
    id = begin("unlink.fail@1");
    ASSERT_ERR(HS_E_SYSTEM, listen_at_path(&l));
    ck_assert_int_eq(last_error()->sys, EACCES);
    end_after(id, 1);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

START_TEST(descriptors_are_told_by_kind_though_their_links_cannot_be_read)
{
    long counts[HS_FD_KINDS], without[HS_FD_KINDS];
    struct hs_fd_entry list[64];
    size_t n;
    uint64_t id;

    hs_fd_inventory(counts);
    id = begin("readlink.fail=1");
    hs_fd_inventory(without);
    n = hs_fd_list(list, LENGTH(list));
    end_after(id, 2);
    ck_assert_uint_eq(n, hs_fd_list(NULL, 0));
    for (int kind = 0; kind < HS_FD_KINDS; kind++) /* A pipe may be a FIFO with a name. */
        if (kind != HS_FD_PIPE && kind != HS_FD_OTHER)
            ck_assert_int_eq(without[kind], counts[kind]);
    id = begin("stat.fail=1");
    hs_fd_inventory(without);
    end_after(id, 2);
    ck_assert_int_eq(without[HS_FD_OTHER], (long)n);
}
END_TEST

static long
ports(void)
{
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    long low = 0, high = 0;

    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%ld %ld", &low, &high), 2);
    (void)fclose(f);
    return high - low + 1;
}

/* "32768\t60" is another range than "32768\t60999". */
START_TEST(a_hint_tells_nothing_of_what_it_could_not_read_whole)
{
    struct hs_error err = {.code = HS_E_SYSTEM, .phase = "connect"};
    struct hs_addr peer = addr_of("127.0.0.1:9");
    char hint[600], want[80];
    uint64_t id = begin("seed=7,read.short=1");
    int silent = 0;

    (void)snprintf(want, sizeof(want), " of the %ld in net.ipv4.ip_local_port_range", ports());
    for (int i = 0; i < 20; i++) { /* Of a piece that is long enough nothing is seen. */
        (void)hs_hint(&err, EADDRNOTAVAIL, &peer, hint, sizeof(hint));
        silent += hint[0] == '\0';
        ck_assert_msg(hint[0] == '\0' || strstr(hint, want) != NULL, "%s", hint);
    }
    ck_assert_int_gt(silent, 0);
    end_after(id, 20);
}
END_TEST

START_TEST(a_scope_that_nobody_could_be_asked_about_is_not_called_wrong)
{
    struct hs_addr addr;
    uint64_t id = begin("interface.fail=1");

    ASSERT_ERR(HS_E_SYSTEM, hs_addr_from_literal("fe80::1%lo", 1, fresh(), &addr));
    ck_assert_int_eq(last_error()->sys, EMFILE);
    ASSERT_OK(hs_addr_from_literal("fe80::1%1", 1, fresh(), &addr));
    end_after(id, 2);
    ASSERT_OK(hs_addr_from_literal("fe80::1%lo", 1, fresh(), &addr));
    ASSERT_ERR(HS_E_INVALID, hs_addr_from_literal("fe80::1%no-such-one", 1, fresh(), &addr));
}
END_TEST

/* ---- Certificates -------------------------------------------------------------------------- */

/* Two authorities, of which a reader that takes a failure for the end knows the first alone. */
static struct hs_tls_options
trusting_a_file(struct hs_tls_source *source)
{
    struct hs_tls_options o = client_options();
    FILE *f;

    make_folder();
    ck_assert_ptr_nonnull(f = fopen(path, "we"));
    for (int i = 0; i < 40; i++)
        (void)fprintf(f, "%s%s", world.other_root->chain, world.root->chain);
    ck_assert_int_eq(fclose(f), 0);
    *source = (struct hs_tls_source){.path = path};
    o.cas = source;
    o.n_cas = 1;
    return o;
}

static void
remove_file(void)
{
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(folder), 0);
}

START_TEST(a_file_that_cannot_be_read_to_its_end_is_no_shorter_file)
{
    struct hs_tls_config *config = NULL;
    struct hs_tls_source source;
    struct hs_tls_options o = trusting_a_file(&source);
    uint64_t id = begin("read.fail@2");

    ASSERT_ERR(HS_E_SYSTEM, hs_tls_config_new(&o, fresh(), &config));
    ck_assert_int_eq(last_error()->sys, EIO);
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "ca: cannot read /tmp/hardsock-"));
    ck_assert_ptr_null(config);
    end_after(id, 1);
    remove_file();
}
END_TEST

START_TEST(a_file_that_comes_in_parts_is_read_whole)
{
    struct hs_tls_options server = server_options();
    struct hs_tls_source source;
    struct hs_tls_options client = trusting_a_file(&source);
    uint64_t id = begin("seed=3,read.short=1,read.interrupted@2");
    struct tls_pair p = shaken_pair(false, config_of(&client), config_of(&server));

    end_after(id, 2);
    tls_pair_free(&p);
    remove_file();
}
END_TEST

START_TEST(a_folder_that_cannot_be_listed_to_its_end_is_not_called_empty)
{
    struct hs_tls_config *config = NULL;
    struct hs_tls_options o = client_options();
    struct hs_tls_source source = {.path = folder};
    uint64_t id;

    make_folder();
    o.cas = &source;
    o.n_cas = 1;
    id = begin("readdir.fail@2");
    ASSERT_ERR(HS_E_SYSTEM, hs_tls_config_new(&o, fresh(), &config));
    ck_assert_int_eq(last_error()->sys, EIO);
    end_after(id, 1);
    ASSERT_ERR(HS_E_INVALID, hs_tls_config_new(&o, fresh(), &config));
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

/* The peer must not take for a cut what was ended, nor the other way round. */
START_TEST(a_goodbye_that_cannot_be_said_is_told)
{
    struct tls_pair p = default_pair(true, 0);
    struct hs_op op = op_in(30 * SECOND), in = op_in(30 * SECOND);
    uint64_t id = begin("tls_shutdown.fail@1");
    uint8_t byte;
    size_t n;

    ASSERT_ERR(HS_E_TLS, DONE(hs_conn_close_write(p.client, &op, fresh())));
    end_after(id, 1);
    hs_conn_close(p.client, false);
    ck_assert_int_lt(DONE(hs_conn_recv(p.server, &in, &byte, 1, 0, fresh(), &n)), 0);
    tls_pair_free(&p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("fault paths");

    tls_world();
    tcase_add_test(tc, a_reactor_refuses_a_time_that_cannot_be_set_and_is_not_lost);
    tcase_add_test(tc, what_waits_in_a_reactor_looks_for_itself_when_the_next_time_cannot_be_set);
    tcase_add_test(tc, a_loop_refuses_a_time_that_cannot_be_set_and_is_not_lost);
    tcase_add_test(tc, what_waits_in_a_loop_looks_for_itself_when_the_next_time_cannot_be_set);
    tcase_add_test(tc, a_token_whose_timer_cannot_be_set_has_no_descriptor_or_a_readable_one);
    tcase_add_test(tc, a_departure_is_told_though_no_time_can_be_set_for_the_young);
    tcase_add_test(tc, an_idle_connection_that_ended_is_noticed_though_a_look_failed);
    tcase_add_test(tc, who_polls_a_reactor_is_told_that_the_kernel_does_not_say);
    tcase_add_test(tc, what_waits_in_a_loop_looks_for_itself_when_the_kernel_does_not_say);
    tcase_add_test(tc, who_cannot_look_for_departures_is_told);
    tcase_add_test(tc, who_could_not_be_woken_for_want_of_a_key_can_be_later);
    tcase_add_loop_test(tc, a_path_that_could_not_be_listened_at_is_gone, 0, LENGTH(failing_binds));
    tcase_add_loop_test(tc, a_folder_that_cannot_be_locked_is_listened_in_all_the_same, 0, 2);
    tcase_add_test(tc, a_stale_path_that_cannot_be_removed_is_told);
    tcase_add_test(tc, descriptors_are_told_by_kind_though_their_links_cannot_be_read);
    tcase_add_test(tc, a_hint_tells_nothing_of_what_it_could_not_read_whole);
    tcase_add_test(tc, a_scope_that_nobody_could_be_asked_about_is_not_called_wrong);
    tcase_add_test(tc, a_file_that_cannot_be_read_to_its_end_is_no_shorter_file);
    tcase_add_test(tc, a_file_that_comes_in_parts_is_read_whole);
    tcase_add_test(tc, a_folder_that_cannot_be_listed_to_its_end_is_not_called_empty);
    tcase_add_test(tc, a_goodbye_that_cannot_be_said_is_told);
    return run_case(tc);
}
