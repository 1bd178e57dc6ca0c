/* test_base.c: buffers, time, locks, errors: the ground floor.
 *
 * Lock ranks are only checked where the core was built with HS_DEBUG, as all flavours but release
 * are.
 */
#include "support.h"

#include "../../csrc/base/buf.h"
#include "../../csrc/base/check.h"
#include "../../csrc/base/err.h"
#include "../../csrc/base/lock.h"
#include "../../csrc/base/thread.h"
#include "../../csrc/base/time.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

START_TEST(buffer_gives_back_in_order_what_was_put_in_front)
{
    struct hs_buf b = {0};
    uint8_t out[16] = {0};

    ASSERT_OK(hs_buf_prepend(&b, (const uint8_t *)"world", 5));
    ASSERT_OK(hs_buf_prepend(&b, (const uint8_t *)"hello ", 6));
    ck_assert_uint_eq(hs_buf_len(&b), 11);
    ck_assert_uint_eq(hs_buf_peek(&b, out, 5), 5);
    ck_assert_mem_eq(out, "hello", 5);
    ck_assert_uint_eq(hs_buf_take(&b, out, 6), 6);
    ASSERT_OK(hs_buf_prepend(&b, (const uint8_t *)"our ", 4)); /* with a moved head */
    ck_assert_uint_eq(hs_buf_take(&b, out, sizeof(out)), 9);
    ck_assert_mem_eq(out, "our world", 9);
    ck_assert_uint_eq(hs_buf_len(&b), 0);
}
END_TEST

START_TEST(buffer_holds_memory_only_while_it_holds_bytes)
{
    struct hs_buf b = {0};
    uint8_t byte = 0;

    ASSERT_OK(hs_buf_prepend(&b, &byte, 0));
    ck_assert_int_eq(hs_buf_live(), 0);
    ck_assert_uint_eq(hs_buf_take(&b, &byte, 1), 0);
    ASSERT_OK(hs_buf_prepend(&b, (const uint8_t *)"x", 1));
    ck_assert_int_eq(hs_buf_live(), 1);
    ck_assert_uint_eq(hs_buf_take(&b, &byte, 1), 1);
    ck_assert_int_eq(hs_buf_live(), 0);
    ck_assert_ptr_null(b.data);
    hs_buf_fini(&b);
    hs_buf_fini(&b);
}
END_TEST

START_TEST(buffer_refuses_a_length_that_overflows)
{
    struct hs_buf b = {0};
    uint8_t byte = 'x';

    ASSERT_OK(hs_buf_prepend(&b, &byte, 1));
    ASSERT_ERR(HS_E_NOMEM, hs_buf_prepend(&b, &byte, SIZE_MAX));
    ck_assert_uint_eq(hs_buf_len(&b), 1);
    hs_buf_fini(&b);
}
END_TEST

static void
append(struct hs_buf *b, const char *text)
{
    size_t n = strlen(text);
    uint8_t *room;

    ASSERT_OK(hs_buf_reserve(b, n, &room));
    ck_assert_uint_ge(hs_buf_room(b), n);
    memcpy(room, text, n);
    hs_buf_commit(b, n);
}

START_TEST(buffer_grows_at_its_tail_and_shrinks_at_its_head)
{
    struct hs_buf b = {0};
    uint8_t out[16] = {0};

    append(&b, "hello ");
    append(&b, "world");
    hs_buf_drop(&b, 0);
    hs_buf_drop(&b, 4);
    append(&b, "!");
    ASSERT_OK(hs_buf_prepend(&b, (const uint8_t *)"on_", 3));
    append(&b, "?");
    ck_assert_uint_eq(hs_buf_peek(&b, out, sizeof(out)), 12);
    ck_assert_mem_eq(out, "on_o world!?", 12);
    ck_assert_int_eq(hs_buf_live(), 1);
    hs_buf_drop(&b, 12);
    ck_assert_ptr_null(b.data);
    ck_assert_int_eq(hs_buf_live(), 0);
}
END_TEST

START_TEST(buffer_keeps_what_was_reserved_until_it_is_trimmed)
{
    struct hs_buf b = {0};
    uint8_t *room;

    ASSERT_OK(hs_buf_reserve(&b, 100, &room));
    ck_assert_int_eq(hs_buf_live(), 1);
    hs_buf_commit(&b, 0);
    ck_assert_uint_eq(hs_buf_len(&b), 0);
    hs_buf_trim(&b);
    ck_assert_int_eq(hs_buf_live(), 0);
    hs_buf_trim(&b);
    append(&b, "x");
    hs_buf_trim(&b);
    ck_assert_uint_eq(hs_buf_len(&b), 1);
    ASSERT_ERR(HS_E_NOMEM, hs_buf_reserve(&b, SIZE_MAX, &room));
    ck_assert_uint_eq(hs_buf_len(&b), 1);
    hs_buf_fini(&b);
}
END_TEST

/* The same window over an endless stream: moved to the front when that is cheap, not grown. */
START_TEST(buffer_reuses_the_room_of_what_was_dropped)
{
    struct hs_buf b = {0};

    for (int i = 0; i < 10000; i++) {
        append(&b, "0123456789");
        if (hs_buf_len(&b) >= 30)
            hs_buf_drop(&b, 20);
        ck_assert_uint_le(b.capacity, 100);
    }
    hs_buf_fini(&b);
}
END_TEST

START_TEST(dropping_more_than_there_is_ends_the_process)
{
    struct hs_buf b = {0};

    append(&b, "x");
    hs_buf_drop(&b, 2);
}
END_TEST

START_TEST(committing_more_than_was_reserved_ends_the_process)
{
    struct hs_buf b = {0};
    uint8_t *room;

    ASSERT_OK(hs_buf_reserve(&b, 10, &room));
    hs_buf_commit(&b, hs_buf_room(&b) + 1);
}
END_TEST

START_TEST(deadlines_saturate_and_never_lie_in_the_past)
{
    int64_t before = hs_now(), soon = hs_deadline_after(SECOND), after = hs_now();

    ck_assert_int_ge(soon, before + SECOND);
    ck_assert_int_le(soon, after + SECOND);
    ck_assert(hs_deadline_after(HS_NEVER) == HS_NEVER);
    ck_assert(hs_deadline_after(HS_NEVER - hs_now() + SECOND) == HS_NEVER);
    before = hs_now();
    ck_assert_int_ge(hs_deadline_after(-1), before);
    ck_assert_int_le(hs_deadline_after(INT64_MIN), hs_now());
    ck_assert_int_ne(hs_deadline_after(0), HS_TRY_ONCE);
}
END_TEST

START_TEST(time_left_is_split_for_ppoll)
{
    struct timespec ts = hs_timespec_until(2 * SECOND + 5, SECOND);

    ck_assert_int_eq(ts.tv_sec, 1);
    ck_assert_int_eq(ts.tv_nsec, 5);
    ts = hs_timespec_until(SECOND, 2 * SECOND);
    ck_assert_int_eq(ts.tv_sec + ts.tv_nsec, 0);
    ts = hs_timespec_until(HS_NEVER, 0);
    ck_assert_int_eq(ts.tv_sec, HS_NEVER / SECOND);
    ck_assert_int_lt(ts.tv_nsec, SECOND);
}
END_TEST

START_TEST(locks_may_be_taken_from_high_rank_to_low)
{
    struct hs_lock conn, token;

    hs_lock_init(&conn, HS_RANK_CONN);
    hs_lock_init(&token, HS_RANK_TOKEN);
    for (int i = 0; i < 2; i++) {
        hs_lock_take(&conn);
        hs_lock_take(&token);
        hs_lock_drop(&token);
        hs_lock_drop(&conn);
    }
    hs_lock_fini(&conn);
    hs_lock_fini(&token);
}
END_TEST

static void
take_both(enum hs_rank first, enum hs_rank second)
{
    struct hs_lock a, b;

    hs_lock_init(&a, first);
    hs_lock_init(&b, second);
    hs_lock_take(&a);
    hs_lock_take(&b);
}

START_TEST(a_lock_above_one_that_is_held_ends_the_process)
{
    take_both(HS_RANK_TOKEN, HS_RANK_CONN);
}
END_TEST

START_TEST(two_locks_of_one_rank_end_the_process)
{
    take_both(HS_RANK_TOKEN, HS_RANK_TOKEN);
}
END_TEST

START_TEST(dropping_what_is_not_held_ends_the_process)
{
    pthread_mutexattr_t checking;
    struct hs_lock a;

    hs_lock_init(&a, HS_RANK_TOKEN);
    ck_assert_int_eq(pthread_mutexattr_init(&checking), 0);
    ck_assert_int_eq(pthread_mutexattr_settype(&checking, PTHREAD_MUTEX_ERRORCHECK), 0);
    ck_assert_int_eq(pthread_mutex_init(&a.mutex, &checking), 0);
    hs_lock_drop(&a);
}
END_TEST

START_TEST(a_failed_assertion_ends_the_process)
{
    HS_ASSERT(_i > 7);
}
END_TEST

#define ROW(name, class_, number, text) {#name, HS_E_##name, HS_CLASS_##class_, text},
static const struct code {
    const char *name;
    hs_err code;
    enum hs_class want_class;
    const char *want_text;
} codes[] = {HS_ERRORS(ROW)};

START_TEST(every_code_has_its_class_and_text)
{
    const struct code *row = &codes[_i];

    ck_assert_int_lt(row->code, 0);
    ck_assert_int_eq(HS_ERR_CLASS(row->code), row->want_class);
    ck_assert_str_eq(hs_err_text(row->code), row->want_text);
    for (int i = 0; i < _i; i++)
        ck_assert_int_ne(codes[i].code, row->code);
}
END_TEST

START_TEST(codes_that_are_no_errors_have_texts_too)
{
    ck_assert_str_eq(hs_err_text(HS_OK), "success");
    ck_assert_ptr_nonnull(strstr(hs_err_text(HS_INTR), "call again"));
    ck_assert_ptr_nonnull(strstr(hs_err_text(HS_WANT), "call again"));
    ck_assert_str_eq(hs_err_text(-1), "unknown error");
    ck_assert_str_eq(hs_version(), HS_VERSION);
}
END_TEST

START_TEST(the_first_error_wins_and_null_is_allowed)
{
    struct hs_error err = {0};

    ASSERT_ERR(HS_E_SYSTEM, hs_err_set(&err, HS_E_SYSTEM, ENOENT, "open", "%s", "file"));
    ASSERT_ERR(HS_E_CLOSED, hs_err_setx(&err, HS_E_CLOSED, "x", "later"));
    ck_assert_int_eq(err.code, HS_E_SYSTEM);
    ck_assert_int_eq(err.sys, ENOENT);
    ck_assert_str_eq(err.op, "open");
    ck_assert_str_eq(err.msg, "file: No such file or directory");
    ASSERT_ERR(HS_E_CLOSED, hs_err_setx(NULL, HS_E_CLOSED, "x", "%d", 1));
}
END_TEST

START_TEST(long_messages_are_cut_not_overrun)
{
    struct hs_error err = {0};
    char text[400];

    memset(text, 'm', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    ASSERT_ERR(HS_E_SYSTEM, hs_err_set(&err, HS_E_SYSTEM, ENOENT, NULL, "%s", text));
    ck_assert_uint_eq(strlen(err.msg), sizeof(err.msg) - 1);
}
END_TEST

START_TEST(a_new_op_waits_for_nothing_and_has_done_nothing)
{
    struct hs_token *token = (struct hs_token *)(void *)&token;
    struct hs_op op = HS_OP_INIT(123, token);
    struct hs_op want = {.deadline_ns = 123, .token = token, .want_at_ns = HS_NEVER, .want_fd = -1};

    ck_assert_int_eq(op.deadline_ns, want.deadline_ns);
    ck_assert_ptr_eq(op.token, want.token);
    ck_assert_ptr_null(op.loop_waiter);
    ck_assert_uint_eq(op.done, 0);
    ck_assert_int_eq(op.want_at_ns, want.want_at_ns);
    ck_assert_uint_eq(op.want_id, 0);
    ck_assert_int_eq(op.want_fd, want.want_fd);
    ck_assert_int_eq(op.send_flags, 0);
    ck_assert_int_eq(op.want_events, 0);
    ck_assert_uint_eq(op.claim, 0);
    ck_assert(!op.stepping && !op.waited);
}
END_TEST

/* Threads there were before one was made; 0: its creator does not wait for its end. */
static int threads_before;

static int
count_threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int n = -2; /* "." and ".." */

    ck_assert_ptr_nonnull(tasks);
    while (readdir(tasks) != NULL)
        n++;
    (void)closedir(tasks);
    return n;
}

static void *
end_at_once(void *arg)
{
    return arg;
}

int __real_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);

/* The thread that is made has ended when its creator goes on, and so has another one: glibc frees
 * the stack of one that has ended when the next one ends. */
int
__wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    pthread_attr_t other_attr;
    pthread_t other;
    int sys = __real_pthread_create(id, attr, fn, arg);

    if (threads_before == 0 || sys != 0)
        return sys;
    while (count_threads() > threads_before)
        breathe();
    ck_assert_int_eq(pthread_attr_init(&other_attr), 0);
    ck_assert_int_eq(pthread_attr_setstacksize(&other_attr, (size_t)64 * 1024 * 1024), 0);
    ck_assert_int_eq(__real_pthread_create(&other, &other_attr, end_at_once, NULL), 0);
    ck_assert_int_eq(pthread_join(other, NULL), 0);
    ck_assert_int_eq(pthread_attr_destroy(&other_attr), 0);
    return 0;
}

/* Its stack is too large for what glibc keeps of those that have ended. */
START_TEST(a_thread_may_end_before_it_has_its_name)
{
    pthread_t first;

    /* With the first thread of a process TSan starts one of its own. */
    ck_assert_int_eq(__real_pthread_create(&first, NULL, end_at_once, NULL), 0);
    ck_assert_int_eq(pthread_join(first, NULL), 0);
    threads_before = count_threads();
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(hs_thread_start("hs-test", (size_t)64 * 1024 * 1024, end_at_once, NULL),
                         0);
    threads_before = 0;
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("base");

    tcase_add_test(tc, buffer_gives_back_in_order_what_was_put_in_front);
    tcase_add_test(tc, buffer_holds_memory_only_while_it_holds_bytes);
    tcase_add_test(tc, buffer_refuses_a_length_that_overflows);
    tcase_add_test(tc, buffer_grows_at_its_tail_and_shrinks_at_its_head);
    tcase_add_test(tc, buffer_keeps_what_was_reserved_until_it_is_trimmed);
    tcase_add_test(tc, buffer_reuses_the_room_of_what_was_dropped);
    tcase_add_test(tc, a_thread_may_end_before_it_has_its_name);
    tcase_add_test_raise_signal(tc, dropping_more_than_there_is_ends_the_process, SIGABRT);
    tcase_add_test_raise_signal(tc, committing_more_than_was_reserved_ends_the_process, SIGABRT);
    tcase_add_test(tc, deadlines_saturate_and_never_lie_in_the_past);
    tcase_add_test(tc, time_left_is_split_for_ppoll);
    tcase_add_test(tc, locks_may_be_taken_from_high_rank_to_low);
    if (HS_DEBUG) {
        tcase_add_test_raise_signal(tc, a_lock_above_one_that_is_held_ends_the_process, SIGABRT);
        tcase_add_test_raise_signal(tc, two_locks_of_one_rank_end_the_process, SIGABRT);
    }
    tcase_add_test_raise_signal(tc, dropping_what_is_not_held_ends_the_process, SIGABRT);
    tcase_add_test_raise_signal(tc, a_failed_assertion_ends_the_process, SIGABRT);
    tcase_add_loop_test(tc, every_code_has_its_class_and_text, 0, LENGTH(codes));
    tcase_add_test(tc, codes_that_are_no_errors_have_texts_too);
    tcase_add_test(tc, the_first_error_wins_and_null_is_allowed);
    tcase_add_test(tc, long_messages_are_cut_not_overrun);
    tcase_add_test(tc, a_new_op_waits_for_nothing_and_has_done_nothing);
    return run_case(tc);
}
