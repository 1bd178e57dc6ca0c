/* test_recorder.c: the flight recorder: what is kept, what it looks like, who may write at once,
 * and what a fatal signal leaves behind.
 */
#include "support.h"

#include "base/recorder.h"
#include "base/thread.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct hs_event all[HS_EVENTS_MAX];

/* The last one of a kind; number 0: there is none. */
static struct hs_event
last_of(enum hs_event_kind kind)
{
    size_t n = hs_events(all, HS_EVENTS_MAX);

    while (n-- > 0)
        if (all[n].kind == (int32_t)kind)
            return all[n];
    return (struct hs_event){0};
}

static size_t
kept_of(enum hs_event_kind kind)
{
    size_t n = hs_events(all, HS_EVENTS_MAX), kept = 0;

    for (size_t i = 0; i < n; i++)
        kept += all[i].kind == (int32_t)kind;
    return kept;
}

static void
note(enum hs_event_kind kind, const char *text)
{
    struct hs_event e = {0};

    hs_event_text(&e, text);
    hs_event_note(kind, &e);
}

START_TEST(events_come_back_in_order)
{
    int64_t before = hs_now();
    struct hs_event e = {.code = HS_E_RESET,
                         .sys = 104,
                         .fd = 7,
                         .span_ns = 5 * MS,
                         .site = hs_call_site_intern("a.py", "f", 3)};
    size_t n;

    hs_event_text(&e, "192.0.2.1:80");
    hs_event_note(HS_EVENT_RESET, &e);
    note(HS_EVENT_SHED, "later");
    n = hs_events(all, HS_EVENTS_MAX);
    ck_assert_uint_ge(n, 2);
    for (size_t i = 1; i < n; i++)
        ck_assert_uint_lt(all[i - 1].number, all[i].number);
    e = last_of(HS_EVENT_RESET);
    ck_assert_int_eq(e.code, HS_E_RESET);
    ck_assert_int_eq(e.sys, 104);
    ck_assert_int_eq(e.fd, 7);
    ck_assert_int_eq(e.span_ns, 5 * MS);
    ck_assert_ptr_eq(e.site, hs_call_site_intern("a.py", "f", 3));
    ck_assert_str_eq(e.text, "192.0.2.1:80");
    ck_assert_uint_eq(e.thread, (uint64_t)pthread_self());
    ck_assert_int_ge(e.at_ns, before);
    ck_assert_str_eq(last_of(HS_EVENT_SHED).text, "later");
}
END_TEST

START_TEST(flood_of_one_kind_pushes_out_no_other)
{
    note(HS_EVENT_BREAKER_OPENED, "the one");
    for (int i = 0; i < 10000; i++)
        note(HS_EVENT_CANCELLED, "flood");
    ck_assert_str_eq(last_of(HS_EVENT_BREAKER_OPENED).text, "the one");
    ck_assert_uint_eq(kept_of(HS_EVENT_CANCELLED), HS_EVENTS_EACH);
    ck_assert_uint_eq(hs_event_count(HS_EVENT_CANCELLED), 10000);
}
END_TEST

START_TEST(long_text_is_cut)
{
    char text[500];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    note(HS_EVENT_SHED, text);
    ck_assert_uint_eq(strlen(last_of(HS_EVENT_SHED).text), sizeof(last_of(HS_EVENT_SHED).text) - 1);
}
END_TEST

/* All are UTF-8 for those who read them, wherever a name of four-byte letters begins. */
START_TEST(long_text_is_cut_between_letters)
{
    const char *letter = "\xf0\x9d\x84\x9e";
    char text[500];
    size_t kept;

    for (size_t before = 0; before < 4; before++) {
        memset(text, 'x', before);
        for (size_t i = before; i + 4 < sizeof(text); i += 4)
            memcpy(text + i, letter, 5);
        note(HS_EVENT_SHED, text);
        kept = strlen(last_of(HS_EVENT_SHED).text);
        ck_assert_uint_eq((kept - before) % 4, 0);
        ck_assert_uint_gt(kept + 4, sizeof(last_of(HS_EVENT_SHED).text) - 1);
    }
}
END_TEST

START_TEST(no_more_than_there_is_room_for)
{
    struct hs_event two[2];

    for (int i = 0; i < 5; i++)
        note(HS_EVENT_SHED, "x");
    ck_assert_uint_eq(hs_events(two, 2), 2);
    ck_assert_uint_eq(hs_events(two, 0), 0);
}
END_TEST

/* ---- What the library notes ---------------------------------------------------------------- */

START_TEST(refused_connect_is_noted)
{
    struct hs_addr addr;
    int worker = refused_addr(&addr);
    struct hs_endpoint ep = endpoint_of(&addr);
    struct hs_connect_options o;
    struct hs_connector *cn;
    struct hs_conn *c;
    struct hs_op op = op_in(10 * SECOND);
    char text[HS_ADDR_TEXT_SIZE];

    hs_connect_options_init(&o);
    ASSERT_OK(hs_connector_new(&ep, &o, fresh(), &cn));
    hs_connector_set_site(cn, hs_call_site_intern("a.py", "f", 3));
    ASSERT_ERR(HS_E_CONNECT, DONE(hs_connector_run(cn, &op, fresh(), &c)));
    hs_connector_free(cn);
    ck_assert_str_eq(last_of(HS_EVENT_CONNECT_FAILED).text,
                     hs_addr_text(&addr, text, sizeof(text)));
    ck_assert_int_eq(last_of(HS_EVENT_CONNECT_FAILED).code, HS_E_CONNECT);
    ck_assert_ptr_eq(last_of(HS_EVENT_CONNECT_FAILED).site, hs_call_site_intern("a.py", "f", 3));
    (void)close(worker);
}
END_TEST

static void
note_connects(enum hs_event_kind kind, int n, int64_t span_ns, const char *where)
{
    struct hs_event e = {.span_ns = span_ns};

    hs_event_text(&e, where);
    for (int i = 0; i < n; i++)
        hs_event_note(kind, &e);
}

START_TEST(history_of_an_address_is_told_by_what_was_slow_and_what_failed)
{
    static const struct {
        int failed, slow_failed, slow; /* the newest failure is the one that is asked about */
        const char *want;
    } rows[] = {
        {1, 0, 0, "why"},
        {2, 0, 0, "why"},
        {3, 0, 0, "why; 2 other connects to this address have failed in the last 0 s"},
        {0, 3, 0,
         "why; 2 other connects to this address have failed in the last 0 s, each after more than "
         "2 s"},
        {2, 1, 0, "why; 2 other connects to this address have failed in the last 0 s"},
        {1, 0, 1, "why"},
        {1, 0, 14,
         "why; 14 other connects to this address took over 2 s in the last 0 s, and 0 failed"},
        {2, 2, 3,
         "why; 4 other connects to this address took over 2 s in the last 0 s, and 3 failed"},
    };

    for (size_t i = 0; i < LENGTH(rows); i++) {
        char where[32], buf[256] = "why";

        (void)snprintf(where, sizeof(where), "192.0.2.1:%zu", i + 1);
        note_connects(HS_EVENT_CONNECT_SLOW, rows[i].slow, 3 * SECOND, where);
        note_connects(HS_EVENT_CONNECT_FAILED, rows[i].failed, 1, where);
        note_connects(HS_EVENT_CONNECT_FAILED, rows[i].slow_failed, 2 * SECOND, where);
        note_connects(HS_EVENT_CONNECT_SLOW, 5, 3 * SECOND, "192.0.2.2:1");
        hs_hint_history(where, buf, sizeof(buf));
        ck_assert_str_eq(buf, rows[i].want);
    }
}
END_TEST

START_TEST(deadline_of_a_call_is_noted_and_a_mere_look_is_not)
{
    struct pair p = pair_tcp();
    struct hs_op op, look = HS_OP_INIT(HS_TRY_ONCE, NULL);
    uint8_t byte;
    size_t n;

    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_recv(p.c, &look, &byte, 1, 0, fresh(), &n)));
    ck_assert_uint_eq(hs_event_count(HS_EVENT_DEADLINE), 0);
    /* One whose time is over at its first look is a mere look, too. */
    for (int64_t span = MS; hs_event_count(HS_EVENT_DEADLINE) == 0; span *= 2) {
        op = op_in(span);
        ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    }
    ck_assert_uint_eq(hs_event_count(HS_EVENT_DEADLINE), 1);
    ck_assert_int_eq(last_of(HS_EVENT_DEADLINE).fd, hs_conn_fileno(p.c));
    ck_assert_int_gt(last_of(HS_EVENT_DEADLINE).span_ns, 0);
    pair_free(&p);
}
END_TEST

START_TEST(reset_by_the_peer_is_noted_once)
{
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND);
    const struct linger reset = {.l_onoff = 1};
    uint8_t byte;
    size_t n;

    ck_assert_int_eq(setsockopt(p.peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    ck_assert_int_eq(close(p.peer), 0);
    p.peer = dup(STDIN_FILENO); /* pair_free closes it. */
    ASSERT_ERR(HS_E_RESET, DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    ASSERT_ERR(HS_E_RESET, DONE(hs_conn_recv(p.c, &op, &byte, 1, 0, fresh(), &n)));
    ck_assert_uint_eq(hs_event_count(HS_EVENT_RESET), 1);
    pair_free(&p);
}
END_TEST

START_TEST(leak_is_counted_by_its_line)
{
    struct pair p = pair_tcp();
    struct hs_call_site *site = hs_call_site_intern("leak.py", "f", 3);
    struct hs_call_site_counts counts;

    hs_call_site_leaked(site, p.c);
    hs_call_site_leaked(site, NULL);
    hs_call_site_counts(site, &counts);
    ck_assert_uint_eq(counts.leaked, 2);
    ck_assert_ptr_eq(last_of(HS_EVENT_LEAKED).site, site);
    pair_free(&p);
}
END_TEST

/* ---- Many writers -------------------------------------------------------------------------- */

static atomic_bool enough;

static void *
write_many(void *arg)
{
    struct hs_event e = {0};

    for (int i = 0; i < 3000; i++) { /* All that is told of one event is of one event. */
        e.sys = e.fd = i;
        e.span_ns = i;
        memset(e.text, 'a' + i % 26, sizeof(e.text) - 1);
        hs_event_note(HS_EVENT_CANCELLED, &e);
    }
    return arg;
}

static void *
read_many(void *arg)
{
    struct hs_event *events = arg;

    while (!atomic_load(&enough)) {
        size_t n = hs_events(events, HS_EVENTS_MAX);

        for (size_t i = 0; i < n; i++) {
            if (events[i].kind != HS_EVENT_CANCELLED)
                continue;
            ck_assert_int_eq(events[i].sys, events[i].fd);
            ck_assert_int_eq(events[i].span_ns, events[i].fd);
            for (size_t k = 0; k < sizeof(events[i].text) - 1; k++)
                ck_assert_int_eq(events[i].text[k], 'a' + events[i].fd % 26);
        }
    }
    return NULL;
}

START_TEST(writers_and_a_reader_never_see_half_an_event)
{
    struct thread writers[4], reader;

    atomic_store(&enough, false);
    thread_start(&reader, read_many, all);
    for (size_t i = 0; i < LENGTH(writers); i++)
        thread_start(&writers[i], write_many, NULL);
    for (size_t i = 0; i < LENGTH(writers); i++)
        (void)thread_join(&writers[i]);
    atomic_store(&enough, true);
    (void)thread_join(&reader);
    ck_assert_uint_eq(hs_event_count(HS_EVENT_CANCELLED), 12000);
    ck_assert_uint_gt(kept_of(HS_EVENT_CANCELLED), HS_EVENTS_EACH / 2);
}
END_TEST

/* ---- Dumps --------------------------------------------------------------------------------- */

/* What was written to a pipe whose writing end is closed. */
static char *
read_all(int fd)
{
    static char text[65536];
    size_t n = 0;
    ssize_t got;

    while ((got = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    return text;
}

START_TEST(dump_is_lines_of_text)
{
    struct hs_event e = {
        .code = HS_E_DEADLINE, .span_ns = 1234 * MS, .site = hs_call_site_intern("a.py", "f", 3)};
    int fds[2];
    char *text;

    hs_event_text(&e, "pool\n\x1b[31mred");
    hs_event_note(HS_EVENT_POOL_TIMEOUT, &e);
    ck_assert_int_eq(pipe(fds), 0);
    hs_dump(fds[1]);
    (void)close(fds[1]);
    text = read_all(fds[0]);
    ck_assert_ptr_eq(strstr(text, "hardsock: what happened last in process "), text);
    ck_assert_ptr_ne(strstr(text, " s ago: pool_timeout pool??[31mred: deadline exceeded after "
                                  "1.234 s at a.py:3 in f\n"),
                     NULL);
    (void)close(fds[0]);
}
END_TEST

START_TEST(dump_to_nobody_ends)
{
    int fds[2];

    note(HS_EVENT_SHED, "x");
    ck_assert_ptr_ne(signal(SIGPIPE, SIG_IGN), SIG_ERR);
    ck_assert_int_eq(pipe(fds), 0);
    (void)close(fds[0]);
    hs_dump(fds[1]);
    (void)close(fds[1]);
    hs_dump(-1);
}
END_TEST

static void
say_earlier(int number)
{
    static const char text[] = "earlier handler\n";

    (void)!write(STDOUT_FILENO, text, sizeof(text) - 1);
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* Runs die() in a child whose standard output is a pipe; its status and what it said. */
static int
die_by(void (*die)(void), char **ret_text)
{
    const struct rlimit none = {0, 0};
    int fds[2], status;
    pid_t pid;

    ck_assert_int_eq(pipe(fds), 0);
    if ((pid = fork()) == 0) {
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)dup2(fds[1], STDOUT_FILENO);
        (void)signal(SIGSEGV, say_earlier);
        note(HS_EVENT_SHED, "last words");
        if (hs_dump_at_fatal_signals(STDOUT_FILENO, NULL) == HS_OK)
            die();
        _exit(99);
    }
    (void)close(fds[1]);
    *ret_text = read_all(fds[0]);
    (void)close(fds[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

static void
fault(void)
{
    (void)raise(SIGSEGV);
}

START_TEST(fatal_signal_dumps_first_and_goes_on_to_the_earlier_handler)
{
    char *text, *earlier;
    int status = die_by(fault, &text);

    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    ck_assert_ptr_ne(strstr(text, "shed last words"), NULL);
    earlier = strstr(text, "earlier handler");
    ck_assert_ptr_ne(earlier, NULL);
    ck_assert(strstr(text, "shed last words") < earlier);
}
END_TEST

START_TEST(abort_dumps_and_aborts)
{
    char *text;
    int status = die_by(abort, &text);

    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    ck_assert_ptr_ne(strstr(text, "shed last words"), NULL);
}
END_TEST

static void *
fault_here(void *arg)
{
    char *nothing = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    *(volatile char *)nothing = 1;
    return arg;
}

static void *
abort_here(void *arg)
{
    (void)arg;
    abort();
}

static void
fault_in_a_thread_of_ours(void)
{
    if (hs_thread_start("hs-test", 1 << 18, fault_here, NULL) == 0)
        for (;;)
            breathe();
}

static void
abort_in_a_thread_of_ours(void)
{
    if (hs_thread_start("hs-test", 1 << 18, abort_here, NULL) == 0)
        for (;;)
            breathe();
}

START_TEST(fault_in_a_thread_of_the_library_dumps_too)
{
    char *text;
    int status = die_by(fault_in_a_thread_of_ours, &text);

    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    ck_assert_ptr_ne(strstr(text, "shed last words"), NULL);
    status = die_by(abort_in_a_thread_of_ours, &text);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    ck_assert_ptr_ne(strstr(text, "shed last words"), NULL);
}
END_TEST

static void
return_from(int number)
{
    (void)number;
}

static void
survive_twice(void)
{
    (void)raise(SIGFPE);
    if (hs_dump_at_fatal_signals(STDOUT_FILENO, NULL) == HS_OK)
        (void)raise(SIGFPE);
    _exit(3);
}

START_TEST(recorder_can_be_armed_again_after_a_signal_that_was_survived)
{
    char *text, *first;
    int status;

    ck_assert_ptr_ne(signal(SIGFPE, return_from), SIG_ERR);
    status = die_by(survive_twice, &text);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 3);
    first = strstr(text, "shed last words");
    ck_assert_ptr_ne(first, NULL);
    ck_assert_ptr_ne(strstr(first + 1, "shed last words"), NULL);
}
END_TEST

static atomic_int blocked_tid;

static void *
fault_first(void *arg)
{
    atomic_store(&blocked_tid, gettid());
    return fault_here(arg);
}

/* The second fault comes when the first one's dump is stuck in a full pipe. */
static void
fault_twice(void)
{
    for (int i = 0; i < HS_EVENTS_EACH; i++) {
        note(HS_EVENT_CANCELLED, "a line that is there to fill the pipe");
        note(HS_EVENT_RESET, "another line that is there to fill the pipe");
    }
    note(HS_EVENT_SHED, "very last words");
    if (hs_thread_start("hs-test", 1 << 18, fault_first, NULL) != 0)
        return;
    while (atomic_load(&blocked_tid) == 0 || !hs_thread_sleeps(atomic_load(&blocked_tid)))
        breathe();
    (void)fault_here(NULL);
}

/* It sleeps or has died: either way no more comes of it as long as nobody reads. */
static bool
is_still(pid_t pid)
{
    siginfo_t info = {0};
    char path[64], text[256], *end;
    FILE *f;

    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid)
        return true;
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if ((f = fopen(path, "re")) == NULL)
        return false;
    end = fgets(text, sizeof(text), f) != NULL ? strrchr(text, ')') : NULL;
    (void)fclose(f);
    return end != NULL && end[2] == 'S';
}

START_TEST(second_fault_waits_until_the_first_one_is_dumped)
{
    const struct rlimit none = {0, 0};
    int fds[2], status;
    pid_t pid;

    ck_assert_int_eq(pipe(fds), 0);
    ck_assert_int_ge(fcntl(fds[1], F_SETPIPE_SZ, 4096), 4096);
    if ((pid = fork()) == 0) {
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGSEGV, SIG_DFL); /* A sanitizer's handler would end it in its own way. */
        if (hs_dump_at_fatal_signals(fds[1], NULL) == HS_OK)
            fault_twice();
        _exit(99);
    }
    (void)close(fds[1]);
    EVENTUALLY(is_still(pid));
    ck_assert_ptr_ne(strstr(read_all(fds[0]), "shed very last words"), NULL);
    (void)close(fds[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}
END_TEST

static void *
dump_and_close(void *arg)
{
    const int *fd = arg;

    hs_dump(*fd);
    (void)close(*fd);
    return NULL;
}

/* Else it would go on for as long as others note faster than it writes. */
START_TEST(dump_leaves_out_what_is_noted_while_it_is_written)
{
    static const char filler[1 << 12];
    struct thread dumping;
    const char *text;
    int fds[2];

    ck_assert_int_eq(pipe(fds), 0);
    ck_assert_int_eq(fcntl(fds[1], F_SETPIPE_SZ, 1 << 12), 1 << 12);
    ck_assert_int_eq(write(fds[1], filler, sizeof(filler)), sizeof(filler));
    note(HS_EVENT_SHED, "in time");
    thread_start(&dumping, dump_and_close, &fds[1]);
    EVENTUALLY(dumping.tid != 0 && hs_thread_sleeps(dumping.tid)); /* at its first line */
    note(HS_EVENT_SHED, "too late");
    text = read_all(fds[0]) + (1 << 12);
    (void)thread_join(&dumping);
    ck_assert_ptr_ne(strstr(text, "shed in time"), NULL);
    ck_assert_ptr_eq(strstr(text, "too late"), NULL);
    (void)close(fds[0]);
}
END_TEST

static int
look_in_child(void *arg)
{
    (void)arg;
    return last_of(HS_EVENT_FORKED).number > last_of(HS_EVENT_SHED).number &&
                   strcmp(last_of(HS_EVENT_SHED).text, "parent's") == 0
               ? 0
               : 1;
}

START_TEST(forked_child_knows_what_happened_before_and_that_it_was_forked)
{
    uint64_t before = hs_event_count(HS_EVENT_FORKED); /* This is a child itself. */

    note(HS_EVENT_SHED, "parent's");
    ck_assert_int_eq(in_child(look_in_child, NULL), 0);
    ck_assert_uint_eq(hs_event_count(HS_EVENT_FORKED), before);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("recorder");

    tcase_add_test(tc, events_come_back_in_order);
    tcase_add_test(tc, flood_of_one_kind_pushes_out_no_other);
    tcase_add_test(tc, long_text_is_cut);
    tcase_add_test(tc, long_text_is_cut_between_letters);
    tcase_add_test(tc, no_more_than_there_is_room_for);
    tcase_add_test(tc, refused_connect_is_noted);
    tcase_add_test(tc, history_of_an_address_is_told_by_what_was_slow_and_what_failed);
    tcase_add_test(tc, deadline_of_a_call_is_noted_and_a_mere_look_is_not);
    tcase_add_test(tc, reset_by_the_peer_is_noted_once);
    tcase_add_test(tc, leak_is_counted_by_its_line);
    tcase_add_test(tc, writers_and_a_reader_never_see_half_an_event);
    tcase_add_test(tc, dump_is_lines_of_text);
    tcase_add_test(tc, dump_to_nobody_ends);
    tcase_add_test(tc, fatal_signal_dumps_first_and_goes_on_to_the_earlier_handler);
    tcase_add_test(tc, abort_dumps_and_aborts);
    tcase_add_test(tc, recorder_can_be_armed_again_after_a_signal_that_was_survived);
    tcase_add_test(tc, second_fault_waits_until_the_first_one_is_dumped);
    tcase_add_test(tc, dump_leaves_out_what_is_noted_while_it_is_written);
    tcase_add_test(tc, fault_in_a_thread_of_the_library_dumps_too);
    tcase_add_test(tc, forked_child_knows_what_happened_before_and_that_it_was_forked);
    return run_case(tc);
}
