/* test_watch.c: looking at the process and the kernel: sock_diag, the descriptor table, hints.
 *
 * All of it must work when descriptors have run out, and say nothing rather than guess.
 */
#include "support.h"
#include "../../csrc/base/addr.h"
#include "../../csrc/base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

/* In a namespace of its own: a port that the kernel hands out again may still have clients of its
 * last owner in TIME_WAIT, for a minute, and they count as sockets towards it. */
START_TEST(sockets_towards_a_peer_are_counted_by_state)
{
    struct hs_addr addr, other;
    int listener, fds[3], peers[3], kept;
    uint32_t counts[HS_TCP_STATES], all[HS_TCP_STATES];

    if (!enter_namespace(NULL, NULL))
        return;
    listener = tcp_listener(8, &addr);
    for (int i = 0; i < 3; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(connect(fds[i], &addr.sa, addr.len), 0);
        peers[i] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    }
    ASSERT_OK(hs_diag_count(&addr, fresh(), counts));
    ck_assert_uint_eq(counts[TCP_ESTABLISHED], 3);
    ck_assert_uint_eq(counts[TCP_TIME_WAIT], 0);
    (void)close(fds[0]);
    (void)close(peers[0]); /* The side that closed first is left in TIME_WAIT. */
    do
        ASSERT_OK(hs_diag_count(&addr, fresh(), counts));
    while (counts[TCP_TIME_WAIT] != 1);
    ck_assert_uint_eq(counts[TCP_ESTABLISHED], 2);
    kept = refused_addr(&other);
    ASSERT_OK(hs_diag_count(&other, fresh(), counts));
    ck_assert_uint_eq(counts[TCP_ESTABLISHED], 0);
    (void)close(kept);
    ASSERT_OK(hs_diag_count(NULL, fresh(), all));
    ck_assert_uint_ge(all[TCP_ESTABLISHED], 4); /* both ends */
    ck_assert_uint_ge(all[TCP_LISTEN], 1);
    other = addr_of("unix:/x");
    ASSERT_OK(hs_diag_count(&other, fresh(), counts));
    close_all(fds + 1, 2);
    close_all(peers + 1, 2);
    (void)close(listener);
}
END_TEST

START_TEST(descriptors_are_counted_by_kind_even_when_none_is_left)
{
    long before[HS_FD_KINDS], after[HS_FD_KINDS];
    int fds[7];

    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    fds[2] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[3] = eventfd(0, EFD_CLOEXEC);
    fds[4] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    fds[5] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fds[6] = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    forbid_more_descriptors();
    hs_fd_inventory(after);
    close_all(fds, LENGTH(fds));
    hs_fd_inventory(before); /* under the same limit: what is above it is not looked at */
    ck_assert_int_eq(after[HS_FD_PIPE] - before[HS_FD_PIPE], 2);
    ck_assert_int_eq(after[HS_FD_SOCKET] - before[HS_FD_SOCKET], 1);
    ck_assert_int_eq(after[HS_FD_EVENT] - before[HS_FD_EVENT], 1);
    ck_assert_int_eq(after[HS_FD_DEVICE] - before[HS_FD_DEVICE], 1);
    ck_assert_int_eq(after[HS_FD_DIRECTORY] - before[HS_FD_DIRECTORY], 1);
    ck_assert_int_eq(after[HS_FD_FILE] - before[HS_FD_FILE], 1);
    allow_descriptors();
}
END_TEST

/* The position of fd in a list of n, or n. */
static size_t
find_fd(const struct hs_fd_entry *list, size_t n, int fd)
{
    size_t i = 0;

    while (i < n && list[i].fd != fd)
        i++;
    return i;
}

START_TEST(descriptors_are_listed_even_when_none_is_left)
{
    struct hs_fd_entry before[64], after[64];
    int fds[3], file, event;
    size_t n, m, at;

    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    file = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    event = eventfd(0, EFD_CLOEXEC);
    forbid_more_descriptors();
    n = hs_fd_list(before, LENGTH(before));
    ck_assert_uint_le(n, LENGTH(before));
    for (size_t i = 1; i < n; i++)
        ck_assert_int_lt(before[i - 1].fd, before[i].fd);
    at = find_fd(before, n, file);
    ck_assert_uint_lt(at, n);
    ck_assert_int_eq(before[at].kind, HS_FD_FILE);
    ck_assert_str_eq(before[at].target, "/etc/passwd");
    ck_assert_int_eq(before[find_fd(before, n, event)].kind, HS_FD_EVENT);

    /* The same number is something else now, and tells so. */
    fds[2] = dup(event);
    ck_assert_int_eq(fds[2], -1);
    ck_assert_int_eq(dup2(fds[0], file), file);
    m = hs_fd_list(after, LENGTH(after));
    ck_assert_uint_eq(m, n);
    ck_assert_int_eq(after[at].kind, HS_FD_PIPE);
    ck_assert(after[at].ino != before[at].ino);
    ck_assert(after[at].ino == after[find_fd(after, m, fds[0])].ino);

    /* What does not fit is counted. */
    memset(after, 0x55, sizeof(after));
    ck_assert_uint_eq(hs_fd_list(after, 1), n);
    ck_assert_int_eq(after[0].fd, before[0].fd);
    ck_assert_int_eq(after[1].fd, 0x55555555);
    ck_assert_uint_eq(hs_fd_list(NULL, 0), n);
    close_all(fds, 2);
    (void)close(file);
    (void)close(event);
    allow_descriptors();
}
END_TEST

START_TEST(how_full_the_table_is_can_be_told_when_it_is_full)
{
    struct hs_fd_usage before, after;
    struct rlimit limit;
    int fds[2];

    allow_descriptors();
    hs_fd_usage(&before);
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    forbid_more_descriptors();
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    hs_fd_usage(&after);
    ck_assert_int_eq(after.open, before.open + 2);
    ck_assert_int_eq(after.limit, (long)limit.rlim_cur);
    ck_assert_uint_ge((size_t)after.open, hs_fd_list(NULL, 0)); /* it stops at the limit */
    close_all(fds, 2);
    allow_descriptors();
}
END_TEST

START_TEST(a_socket_of_any_maker_is_described_even_when_no_descriptor_is_left)
{
    struct hs_addr addr;
    int listener = tcp_listener(8, &addr), fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int datagram = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0), pipes[2];
    struct hs_fd_socket found = {.family = 4711};

    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    forbid_more_descriptors();
    ck_assert(hs_fd_socket(fd, &found));
    ck_assert_int_eq(found.state, TCP_CLOSE);
    ck_assert_uint_eq(found.peer.len, 0);
    ck_assert_int_eq(connect(fd, &addr.sa, addr.len), 0);
    ck_assert(hs_fd_socket(fd, &found));
    ck_assert_int_eq(found.family, AF_INET);
    ck_assert_int_eq(found.type, SOCK_STREAM);
    ck_assert(!found.listens);
    ck_assert_int_eq(found.state, TCP_ESTABLISHED);
    ck_assert(memcmp(&found.peer.storage, &addr.storage, addr.len) == 0);
    ck_assert(hs_fd_socket(listener, &found));
    ck_assert(found.listens);
    ck_assert_int_eq(found.state, TCP_LISTEN);
    ck_assert(memcmp(&found.local.storage, &addr.storage, addr.len) == 0);
    ck_assert(hs_fd_socket(datagram, &found));
    ck_assert_int_eq(found.type, SOCK_DGRAM);
    ck_assert_int_eq(found.state, 0);
    found.family = 4711;
    ck_assert(!hs_fd_socket(pipes[0], &found));
    ck_assert(!hs_fd_socket(-1, &found));
    ck_assert_int_eq(found.family, 4711); /* not written on failure */
    allow_descriptors();
    close_all((int[]){listener, fd, datagram, pipes[0], pipes[1]}, 5);
}
END_TEST

START_TEST(kinds_have_names)
{
    for (int kind = 0; kind < HS_FD_KINDS; kind++)
        ck_assert_uint_gt(strlen(hs_fd_kind_name((enum hs_fd_kind)kind)), 0);
    ck_assert_str_eq(hs_fd_kind_name((enum hs_fd_kind)99), "other");
    ck_assert_str_eq(hs_fd_kind_name((enum hs_fd_kind) - 1), "other");
}
END_TEST

static const struct row {
    const char *title;
    int sys, gai;
    const char *phase, *want; /* want NULL: no advice */
} rows[] = {
    {"refused", ECONNREFUSED, 0, "connect", "nothing listens"},
    {"unreachable network", ENETUNREACH, 0, "connect", "no route"},
    {"unreachable host", EHOSTUNREACH, 0, "connect", "ip neigh"},
    {"timeout", ETIMEDOUT, 0, "connect", "firewall"},
    {"forbidden", EPERM, 0, "connect", "capability"},
    {"in use", EADDRINUSE, 0, "bind", "ss -tanp"},
    {"not our address", EADDRNOTAVAIL, 0, "bind", "ip addr"},
    {"no files on the machine", ENFILE, 0, "socket", "fs.file-max"},
    {"no memory for sockets", ENOBUFS, 0, "socket", "tcp_mem"},
    {"no descriptors", EMFILE, 0, "socket", "RLIMIT_NOFILE"},
    {"no such name", 0, EAI_NONAME, "resolve", "/etc/hosts"},
    {"no name server", 0, EAI_AGAIN, "resolve", "/etc/resolv.conf"},
    {"ports, but of an unknown peer", EADDRNOTAVAIL, 0, "connect", NULL},
    {"nothing known", EIO, 0, "connect", NULL},
    {"no phase", 0, 0, NULL, NULL},
};

START_TEST(a_hint_says_what_can_be_done_or_nothing)
{
    const struct row *row = &rows[_i];
    struct hs_error err = {.sys = row->sys, .gai = row->gai, .phase = row->phase};
    char buf[400] = "old", tiny[8];

    allow_descriptors();
    (void)hs_hint(&err, row->sys, NULL, buf, sizeof(buf));
    if (row->want == NULL)
        ck_assert_str_eq(buf, "");
    else
        ck_assert_msg(strstr(buf, row->want) != NULL, "%s: \"%s\"", row->title, buf);
    for (size_t size = 1; size <= sizeof(tiny); size++)
        ck_assert_uint_lt(strlen(hs_hint(&err, row->sys, NULL, tiny, size)), size);
}
END_TEST

static const struct {
    int alert;
    const char *want; /* "": no advice */
} alerts[] = {
    {40, "client certificate"},
    {42, "certificates="},
    {43, "certificates="},
    {44, "certificates="},
    {45, "certificates="},
    {46, "certificates="},
    {48, "chain="},
    {70, "TLS 1.0"},
    {112, "server_name"},
    {116, "TLSConfig(certificates=...)"},
    {120, "alpn"},
    {80, ""},
    {0, ""},
};

/* A listener, a client that was given the port, and one that is only bound: each has it. In a
 * namespace of its own: nobody else has the port. */
START_TEST(a_hint_says_who_has_the_address)
{
    struct hs_error err = {.sys = EADDRINUSE, .phase = "bind"};
    struct hs_addr addr, own;
    char buf[600], want[100];
    int listener, fd;

    if (!enter_namespace(NULL, NULL))
        return;
    listener = tcp_listener(8, &addr);
    (void)snprintf(want, sizeof(want), "`ss -ltnp 'sport = :%u'`", hs_addr_port(&addr));
    ck_assert_ptr_nonnull(strstr(hs_hint(&err, EADDRINUSE, &addr, buf, sizeof(buf)), want));

    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(fd, &addr.sa, addr.len), 0);
    own = (struct hs_addr){.len = sizeof(own.storage)};
    ck_assert_int_eq(getsockname(fd, &own.sa, &own.len), 0);
    (void)hs_hint(&err, EADDRINUSE, &own, buf, sizeof(buf));
    ck_assert_ptr_nonnull(strstr(buf, "nobody listens there, but 1 connections have"));
    (void)snprintf(want, sizeof(want), "`ss -tanp 'sport = :%u'`", hs_addr_port(&own));
    ck_assert_ptr_nonnull(strstr(buf, want));
    (void)close(fd);
    (void)close(listener);

    fd = refused_addr(&addr);
    (void)hs_hint(&err, EADDRINUSE, &addr, buf, sizeof(buf));
    ck_assert_ptr_nonnull(strstr(buf, "does not listen yet"));
    (void)close(fd);
}
END_TEST

START_TEST(an_alert_comes_with_advice_where_there_is_any)
{
    struct hs_error err = {.tls = HS_TLS_ALERT, .alert = alerts[_i].alert, .phase = "tls"};
    char buf[400];

    (void)hs_hint(&err, 0, NULL, buf, sizeof(buf));
    ck_assert_msg(alerts[_i].want[0] == '\0' ? buf[0] == '\0'
                                             : strstr(buf, alerts[_i].want) != NULL,
                  "%d: %s", alerts[_i].alert, buf);
}
END_TEST

START_TEST(the_hint_about_descriptors_fits_a_small_buffer)
{
    struct hs_error err = {.sys = EMFILE, .phase = "socket"};
    char buf[400];

    allow_descriptors(); /* A table of a million places takes long to look through. */
    for (size_t size = 1; size < 200; size++) {
        memset(buf, '#', sizeof(buf));
        (void)hs_hint(&err, EMFILE, NULL, buf, size);
        ck_assert_uint_lt(strlen(buf), size);
        ck_assert_int_eq(buf[size], '#');
    }
}
END_TEST

static int asked;

static int
count_questions(enum hs_call call, size_t *len)
{
    (void)len;
    asked += call == HS_CALL_socket;
    return 0;
}

/* A dump of all sockets for each of thousands of calls that fail would take the machine. */
START_TEST(hints_about_ports_measure_seldom)
{
    struct hs_error err = {.code = HS_E_SYSTEM, .phase = "connect"};
    struct hs_addr peer = addr_of("127.0.0.1:9"), other = addr_of("127.0.0.2:9");
    char first[600], buf[600];

    asked = 0;
    hs_fault_set_decider(count_questions);
    (void)hs_hint(&err, EADDRNOTAVAIL, &peer, first, sizeof(first));
    for (int i = 0; i < 300; i++) {
        (void)hs_hint(&err, EADDRNOTAVAIL, &peer, buf, sizeof(buf));
        ck_assert_ptr_nonnull(strstr(buf, "towards this peer"));
    }
    ck_assert_int_ge(asked, 1);
    ck_assert_int_le(asked, 100);
    asked = 0;
    (void)hs_hint(&err, EADDRNOTAVAIL, &other, buf, sizeof(buf));
    ck_assert_int_eq(asked, 1); /* of another peer nothing is known */
    hs_fault_set_decider(NULL);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("watch");

    tcase_add_test(tc, sockets_towards_a_peer_are_counted_by_state);
    tcase_add_test(tc, descriptors_are_counted_by_kind_even_when_none_is_left);
    tcase_add_test(tc, descriptors_are_listed_even_when_none_is_left);
    tcase_add_test(tc, how_full_the_table_is_can_be_told_when_it_is_full);
    tcase_add_test(tc, a_socket_of_any_maker_is_described_even_when_no_descriptor_is_left);
    tcase_add_test(tc, kinds_have_names);
    tcase_add_loop_test(tc, a_hint_says_what_can_be_done_or_nothing, 0, LENGTH(rows));
    tcase_add_test(tc, a_hint_says_who_has_the_address);
    tcase_add_loop_test(tc, an_alert_comes_with_advice_where_there_is_any, 0, LENGTH(alerts));
    tcase_add_test(tc, the_hint_about_descriptors_fits_a_small_buffer);
    tcase_add_test(tc, hints_about_ports_measure_seldom);
    return run_case(tc);
}
