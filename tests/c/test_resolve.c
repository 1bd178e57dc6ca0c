/* test_resolve.c: lookups beside forks and beside dead names, with a name server of our own in a
 * private namespace.
 *
 * Names with "slow" in them are not answered until the test lets the server go on.
 */
#include "support.h"
#include "support_dns.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Without ck_assert, which takes a lock of libcheck's that a fork may find taken. */
static hs_err
try_connector(const char *host, struct hs_connector **ret_cn)
{
    struct hs_connect_options opts;
    struct hs_endpoint ep;
    hs_err rv = hs_endpoint_from_host(host, strlen(host), 80, fresh(), &ep);

    hs_connect_options_init(&opts);
    return rv != HS_OK ? rv : hs_connector_new(&ep, &opts, fresh(), ret_cn);
}

static struct hs_connector *
connector(const char *host)
{
    struct hs_connector *cn = NULL;

    ASSERT_OK(try_connector(host, &cn));
    return cn;
}

static hs_err
look_up(const char *host, int64_t span_ns)
{
    struct hs_op op = op_in(span_ns);
    struct hs_connector *cn = NULL;
    hs_err rv;

    if ((rv = try_connector(host, &cn)) != HS_OK)
        return rv;
    rv = DONE(hs_connector_resolve(cn, &op, fresh()));
    hs_connector_free(cn);
    return rv;
}

/* Sanitizers have memory of their own for each thread, and need address space without limit; the
 * allocator of the address sanitizer leaves a child with locks that nobody will drop, and to the
 * thread sanitizer the parent's threads go on in it: one that gets the stack of one is its end. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED true
#else
#define SANITIZED false
#endif
#if SANITIZED
#define MAY_FORK_BESIDE_THREADS false
#else
#define MAY_FORK_BESIDE_THREADS true
#endif

static struct hs_resolver_stats
resolver(void)
{
    struct hs_resolver_stats stats;

    hs_resolver_stats(&stats);
    return stats;
}

/* Lookups that are under way and that nothing answers. */
static void
start_slow(struct hs_connector **cns, int n)
{
    for (int i = 0; i < n; i++) {
        struct hs_op op = op_step(10 * SECOND);
        char name[40];

        (void)snprintf(name, sizeof(name), "slow%d.test", i);
        cns[i] = connector(name);
        ASSERT_ERR(HS_WANT, hs_connector_resolve(cns[i], &op, fresh()));
    }
}

static int
child_looks_up(void *arg)
{
    (void)arg;
    return look_up("child.test", 5 * SECOND) == HS_OK ? 0 : 1;
}

/* The child's thread gets the stack, and with it glibc's resolver state, of one of the parent's
 * that waits on its socket for an answer. */
START_TEST(a_child_forked_during_lookups_asks_on_sockets_of_its_own)
{
    struct hs_connector *cns[8];
    pid_t server;

    if (!enter_namespace("127.0.0.1 localhost\n", NAME_SERVER))
        return;
    server = name_server_start(1);
    start_slow(cns, LENGTH(cns));
    for (int i = 0; i < 12; i++)
        ck_assert_int_eq(in_child(child_looks_up, NULL), 0);
    for (size_t i = 0; i < LENGTH(cns); i++)
        hs_connector_free(cns[i]);
    name_server_stop(server);
    ck_assert_int_eq(resolver().live, 0);
}
END_TEST

static atomic_bool stop;

static void *
look_up_for_ever(void *arg)
{
    char name[40];

    for (int i = 0; !atomic_load(&stop); i++) {
        (void)snprintf(name, sizeof(name), "n%d-%d.test", *(const int *)arg, i);
        (void)look_up(name, 5 * SECOND);
    }
    return NULL;
}

/* With several addresses glibc also takes the lock that it takes for putting them in order. */
START_TEST(no_fork_takes_a_lock_of_the_resolver_with_it)
{
    static const int keys[] = {0, 1, 2, 3};
    struct thread threads[LENGTH(keys)];
    pid_t server;

    if (!MAY_FORK_BESIDE_THREADS || !enter_namespace("127.0.0.1 localhost\n", NAME_SERVER))
        return;
    server = name_server_start(3);
    for (size_t i = 0; i < LENGTH(keys); i++)
        thread_start(&threads[i], look_up_for_ever, (void *)&keys[i]);
    for (int i = 0; i < 150; i++)
        ck_assert_int_eq(in_child(child_looks_up, NULL), 0);
    atomic_store(&stop, true);
    for (size_t i = 0; i < LENGTH(keys); i++)
        (void)thread_join(&threads[i]);
    name_server_stop(server);
    ck_assert_int_eq(resolver().live, 0);
}
END_TEST

static int
child_sees_inherited(void *arg)
{
    char hint[400];

    (void)arg;
    if (resolver().inherited != 2 || resolver().running != 0)
        return 1;
    if (look_up("slow.test", 20 * MS) != HS_E_DEADLINE)
        return 2;
    (void)hs_hint(last_error(), 0, NULL, hint, sizeof(hint));
    return strstr(hint, "forked while 2 name lookups ran") != NULL ? 0 : 3;
}

START_TEST(a_child_is_told_that_lookups_ran_at_its_fork)
{
    struct hs_connector *cn;
    pid_t server;

    if (!enter_namespace("127.0.0.1 localhost\n", NAME_SERVER))
        return;
    server = name_server_start(1);
    start_slow(&cn, 1);
    ck_assert_int_eq(resolver().inherited, 0);
    ck_assert_int_eq(in_child(child_sees_inherited, NULL), 0);
    hs_connector_free(cn);
    name_server_stop(server);
    ck_assert_int_eq(resolver().live, 0);
}
END_TEST

static struct hs_connector *
start_one(const char *name)
{
    struct hs_connector *cn = connector(name);
    struct hs_op op = op_step(10 * SECOND);

    ASSERT_ERR(HS_WANT, hs_connector_resolve(cn, &op, fresh()));
    return cn;
}

/* All in one burst, and all of them still wanted. */
START_TEST(dead_names_that_are_waited_for_do_not_stop_a_healthy_one)
{
    struct hs_connector *cns[150];
    pid_t server;

    if (!enter_namespace("127.0.0.1 localhost\n", NAME_SERVER))
        return;
    server = name_server_start(1);
    start_slow(cns, LENGTH(cns));
    ck_assert_int_ge(resolver().running, 64);
    ASSERT_OK(look_up("fast.test", 10 * SECOND));
    for (size_t i = 0; i < LENGTH(cns); i++)
        hs_connector_free(cns[i]);
    name_server_stop(server);
    ck_assert_int_eq(resolver().live, 0);
}
END_TEST

/* Of this process: all its address space [0], and what of it is in memory [1]. */
static size_t
memory_bytes(int which)
{
    FILE *f = fopen("/proc/self/statm", "re");
    char line[200], *end = line;
    unsigned long pages = 0;

    ck_assert_ptr_nonnull(f);
    ck_assert_ptr_nonnull(fgets(line, sizeof(line), f));
    (void)fclose(f);
    for (int i = 0; i <= which; i++)
        pages = strtoul(end, &end, 10);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void
may_open(rlim_t n)
{
    struct rlimit limit;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = n;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* Every lookup that waits has a socket. */
START_TEST(abandoned_lookups_leave_the_process_its_descriptors)
{
    pid_t server;

    if (!enter_namespace("127.0.0.1 localhost\n", NAME_SERVER))
        return;
    may_open(400);
    server = name_server_start(1);
    for (int i = 0; i < 60 + 240 / slowness(); i++) { /* Two lookups each, more than 100. */
        char name[40];

        (void)snprintf(name, sizeof(name), "slow%d.test", i);
        hs_connector_free(start_one(name));
    }
    ck_assert_int_le(resolver().orphans, 100);
    ck_assert_int_lt(count_fds(), 200);
    ASSERT_ERR(HS_E_DEADLINE, look_up("slow.test", 5 * MS));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "the most for RLIMIT_NOFILE"));
    name_server_let_go(server);
    ASSERT_OK(look_up("fast.test", 10 * SECOND));
    name_server_stop(server);
    ck_assert_int_eq(resolver().live, 0);
}
END_TEST

START_TEST(hundreds_of_abandoned_lookups_cost_memory_and_no_service)
{
    int names = 300 / slowness();
    size_t before;
    pid_t server;

    if (!enter_namespace("127.0.0.1 localhost\n", NAME_SERVER))
        return;
    may_open(4000);
    server = name_server_start(1);
    before = memory_bytes(1);
    for (int i = 0; i < names; i++) {
        char name[40];

        (void)snprintf(name, sizeof(name), "slow%d.test", i);
        hs_connector_free(start_one(name));
    }
    ck_assert_int_eq(resolver().orphans, 2 * names);
    ck_assert(SANITIZED || slowness() > 1 ||
              memory_bytes(1) - before < (size_t)2 * names * 64 * 1024);
    ASSERT_OK(look_up("fast.test", 10 * SECOND));
    name_server_stop(server);
    ck_assert_int_eq(resolver().live, 0);
}
END_TEST

START_TEST(one_zone_that_is_dead_holds_its_own_lookups_only_and_is_named)
{
    struct hs_connector *cns[40];
    char hint[400];
    pid_t server;

    if (!enter_namespace("127.0.0.1 localhost\n", NAME_SERVER))
        return;
    server = name_server_start(1);
    for (size_t i = 0; i < LENGTH(cns); i++) {
        char name[40];

        (void)snprintf(name, sizeof(name), "slow%zu.dead.test", i);
        cns[i] = start_one(name);
    }
    ASSERT_OK(look_up("fast.test", 10 * SECOND));
    EVENTUALLY(resolver().running == 64);
    ck_assert_int_eq(resolver().live, 80);
    ASSERT_ERR(HS_E_DEADLINE, look_up("fast.dead.test", 5 * MS));
    ck_assert_ptr_nonnull(
        strstr(last_error()->msg, "name lookups are starved: 64 for dead.test are unanswered"));
    ck_assert_str_eq(last_error()->phase, "resolve");
    for (size_t i = 0; i < LENGTH(cns); i++)
        hs_connector_free(cns[i]);
    ASSERT_ERR(HS_E_DEADLINE, look_up("fast.dead.test", 5 * MS));
    ck_assert_ptr_nonnull(strstr(hs_hint(last_error(), 0, NULL, hint, sizeof(hint)),
                                 "64 abandoned name lookups are still running"));
    name_server_let_go(server);
    ASSERT_OK(look_up("fast.dead.test", 10 * SECOND));
    name_server_stop(server);
    ck_assert_int_eq(resolver().live, 0);
}
END_TEST

START_TEST(a_lookup_without_a_thread_fails_and_says_so)
{
    struct rlimit before, less;
    char hint[400];

    if (SANITIZED || !enter_namespace("127.0.0.1 localhost\n127.0.0.2 there.test\n", ""))
        return;
    ck_assert_int_eq(getrlimit(RLIMIT_AS, &before), 0);
    less = before;
    less.rlim_cur = memory_bytes(0) + (size_t)300 * 1024;
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &less), 0);
    ASSERT_ERR(HS_E_RESOLVE, look_up("there.test", 10 * SECOND));
    ck_assert_int_eq(last_error()->sys, EAGAIN);
    ck_assert_ptr_nonnull(strstr(hs_hint(last_error(), EAGAIN, NULL, hint, sizeof(hint)),
                                 "no thread could be made for the lookup, and 0 lookups have one"));
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &before), 0);
    ck_assert_int_eq(resolver().live, 0);
    ASSERT_OK(look_up("there.test", 10 * SECOND));
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("resolve");

    tcase_add_test(tc, a_child_forked_during_lookups_asks_on_sockets_of_its_own);
    tcase_add_test(tc, no_fork_takes_a_lock_of_the_resolver_with_it);
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, dead_names_that_are_waited_for_do_not_stop_a_healthy_one);
    tcase_add_test(tc, abandoned_lookups_leave_the_process_its_descriptors);
    tcase_add_test(tc, hundreds_of_abandoned_lookups_cost_memory_and_no_service);
    tcase_add_test(tc, one_zone_that_is_dead_holds_its_own_lookups_only_and_is_named);
    tcase_add_test(tc, a_lookup_without_a_thread_fails_and_says_so);
    tcase_add_test(tc, a_child_is_told_that_lookups_ran_at_its_fork);
    return run_case(tc);
}
