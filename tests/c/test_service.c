/* test_service.c: what a server says of itself: found from its making to its end, nobody counted
 * twice, one end, nothing of a parent's in a forked child.
 */
#include "support.h"

#include "base/recorder.h"
#include "base/time.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct hs_service *
service_made(const char *name)
{
    struct hs_service *s;

    ASSERT_OK(hs_service_new(HS_SERVICE_THREADS, name, 10, fresh(), &s));
    return s;
}

static struct hs_service_row
row_of(const struct hs_service *s)
{
    struct hs_service_row row;

    hs_service_describe(s, &row);
    return row;
}

START_TEST(server_is_found_until_it_is_gone)
{
    struct hs_service *s = service_made("web"), *found[4] = {NULL};

    ck_assert_uint_eq(hs_services(NULL, 0), 1);
    ck_assert_uint_eq(hs_services(found, 4), 1);
    ck_assert_ptr_eq(found[0], s);
    hs_service_unref(s);
    ck_assert_str_eq(row_of(found[0]).name, "web"); /* the reader's reference */
    hs_service_unref(found[0]);
    ck_assert_uint_eq(hs_services(found, 4), 0);
    hs_service_unref(NULL);
}
END_TEST

START_TEST(numbers_are_never_used_again_and_long_names_are_cut)
{
    struct hs_service *first = service_made("a"), *second;
    char name[200];
    uint32_t id = hs_service_id(first);

    hs_service_unref(first);
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    second = service_made(name);
    ck_assert_uint_gt(hs_service_id(second), id);
    ck_assert_uint_eq(strlen(row_of(second).name), HS_SERVICE_NAME_SIZE - 1);
    hs_service_unref(second);
}
END_TEST

START_TEST(connections_are_counted_where_they_are_while_they_are_open)
{
    struct hs_service *s = service_made("web"), *other = service_made("other");
    struct pair a = pair_tcp(), b = pair_tcp();
    uint64_t n[HS_PHASES] = {0};

    hs_conn_set_phase(a.c, hs_service_id(s), HS_PHASE_WAITING);
    hs_conn_set_phase(b.c, hs_service_id(s), HS_PHASE_BUSY);
    hs_conn_set_phase(a.c, hs_service_id(s), HS_PHASE_BUSY);
    hs_conns_by_phase(hs_service_id(s), n);
    ck_assert_uint_eq(n[HS_PHASE_BUSY], 2);
    ck_assert_uint_eq(n[HS_PHASE_WAITING], 0);
    hs_conn_set_phase(b.c, hs_service_id(other), HS_PHASE_PARKED);
    hs_conn_close(a.c, true);
    memset(n, 0, sizeof(n));
    hs_conns_by_phase(hs_service_id(s), n);
    for (int i = 0; i < HS_PHASES; i++)
        ck_assert_uint_eq(n[i], 0);
    hs_conns_by_phase(hs_service_id(other), n);
    ck_assert_uint_eq(n[HS_PHASE_PARKED], 1);
    pair_free(&a);
    pair_free(&b);
    hs_service_unref(s);
    hs_service_unref(other);
}
END_TEST

START_TEST(drain_begins_once_and_its_end_is_one_event)
{
    struct hs_service *s = service_made("web");
    uint64_t before = hs_event_count(HS_EVENT_DRAINED);
    int64_t since;

    ck_assert_int_eq(row_of(s).draining_ns, 0);
    hs_service_drains(s);
    since = row_of(s).draining_ns;
    ck_assert_int_ne(since, 0);
    hs_service_drains(s);
    ck_assert_int_eq(row_of(s).draining_ns, since);
    ck_assert_int_eq(row_of(s).ended_ns, 0);
    hs_service_ended(s);
    hs_service_ended(s);
    ck_assert_int_ge(row_of(s).ended_ns, since);
    ck_assert_uint_eq(hs_event_count(HS_EVENT_DRAINED), before + 1);
    hs_service_unref(s);
}
END_TEST

START_TEST(end_without_a_drain_is_one_too)
{
    struct hs_service *s = service_made("web");

    hs_service_ended(s);
    ck_assert_int_ne(row_of(s).draining_ns, 0);
    hs_service_unref(s);
}
END_TEST

START_TEST(supervisor_is_told_by_its_processes)
{
    const uint64_t phases[HS_PHASES] = {1, 2, 3, 4}, counts[HS_SERVICE_COUNTS] = {5, 6, 7, 8, 9};
    struct hs_service *s;

    ASSERT_OK(hs_service_new(HS_SERVICE_PROCESSES, "all", 0, fresh(), &s));
    hs_service_count(s, HS_SERVICE_ACCEPTED);
    hs_service_tell(s, phases, counts);
    ck_assert_mem_eq(row_of(s).phases, phases, sizeof(phases));
    ck_assert_mem_eq(row_of(s).counts, counts, sizeof(counts));
    ck_assert_str_eq(hs_service_kind_name(row_of(s).kind), "processes");
    hs_service_unref(s);
}
END_TEST

START_TEST(forked_child_finds_none_of_its_parents)
{
    struct hs_service *s = service_made("web");
    int status;
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct hs_service *found[2];

        _exit(hs_services(found, 2) == 0 || found[0] != s ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    hs_service_unref(s);
}
END_TEST

START_TEST(guards_of_a_parent_do_not_run_in_its_child)
{
    int status;
    pid_t pid;

    hs_guard_runs(false); /* None runs. */
    ck_assert_uint_eq(hs_guards_running(), 0);
    hs_guard_runs(true);
    hs_guard_runs(true);
    hs_guard_count(HS_GUARD_CLOSED, 3);
    ck_assert_uint_eq(hs_guard_counted(HS_GUARD_CLOSED), 3);
    ck_assert_str_eq(hs_guard_outcome_name(HS_GUARD_CLOSED), "closed");
    ck_assert_int_ge(pid = fork(), 0);
    if (pid == 0) {
        bool none = hs_guards_running() == 0;

        hs_guard_runs(false); /* The end of a parent's: no matter here. */
        hs_guard_runs(true);
        _exit(none && hs_guards_running() == 1 ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    hs_guard_runs(false);
    ck_assert_uint_eq(hs_guards_running(), 1);
}
END_TEST

#define ROUNDS 2000

static void *
come_and_go(void *arg)
{
    struct hs_conn *c = arg;

    for (int i = 0; i < ROUNDS; i++) {
        struct hs_service *s = service_made("brief");

        hs_conn_set_phase(c, hs_service_id(s), HS_PHASE_BUSY);
        hs_service_count(s, HS_SERVICE_ACCEPTED);
        hs_service_drains(s);
        hs_service_ended(s);
        hs_service_unref(s);
    }
    return NULL;
}

/* For the thread sanitizer: servers come and go while somebody looks at all of them. */
START_TEST(looking_races_with_coming_and_going)
{
    struct pair p = pair_tcp();
    pthread_t threads[2];

    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, come_and_go, p.c), 0);
    for (int i = 0; i < ROUNDS; i++) {
        struct hs_service *found[4];
        size_t n = hs_services(found, 4);

        for (size_t k = 0; k < n && k < 4; k++) {
            struct hs_service_row row = row_of(found[k]);

            hs_conns_by_phase(row.id, row.phases);
            ck_assert_str_eq(row.name, "brief");
            hs_service_unref(found[k]);
        }
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(hs_services(NULL, 0), 0);
    pair_free(&p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("service");

    tcase_add_test(tc, server_is_found_until_it_is_gone);
    tcase_add_test(tc, numbers_are_never_used_again_and_long_names_are_cut);
    tcase_add_test(tc, connections_are_counted_where_they_are_while_they_are_open);
    tcase_add_test(tc, drain_begins_once_and_its_end_is_one_event);
    tcase_add_test(tc, end_without_a_drain_is_one_too);
    tcase_add_test(tc, supervisor_is_told_by_its_processes);
    tcase_add_test(tc, forked_child_finds_none_of_its_parents);
    tcase_add_test(tc, guards_of_a_parent_do_not_run_in_its_child);
    tcase_add_test(tc, looking_races_with_coming_and_going);
    return run_case(tc);
}
