/* test_tls_io.c: bytes over TLS: what must hold no matter who reads, writes and ends, and when.
 *
 * Records that are half out, ends that were announced and ends that were not, messages of TLS
 * itself between the data, peers that do what ours never do.
 */
#include "support_tls.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static const int versions[] = {HS_TLS_1_2, HS_TLS_1_3};

static hs_err
recv_now(struct hs_conn *c, void *buf, size_t len, size_t *n)
{
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);

    return DONE(hs_conn_recv(c, &op, buf, len, 0, fresh(), n));
}

static hs_err
recv_some(struct hs_conn *c, void *buf, size_t len, size_t *n)
{
    struct hs_op op = op_in(10 * SECOND);

    return DONE(hs_conn_recv(c, &op, buf, len, 0, fresh(), n));
}

static hs_err
send_now(struct hs_conn *c, const void *buf, size_t len, size_t *n)
{
    struct hs_op op = HS_OP_INIT(HS_TRY_ONCE, NULL);

    return DONE(hs_conn_send(c, &op, buf, len, fresh(), n));
}

static hs_err
close_write(struct hs_conn *c, int64_t span)
{
    struct hs_op op = op_in(span);

    return DONE(hs_conn_close_write(c, &op, fresh()));
}

static void
small_buffers(struct hs_conn *c)
{
    const int small = 4096;

    ASSERT_OK(hs_conn_setsockopt(c, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small), fresh()));
}

/* Until a record is half out; returns how many bytes were taken before. */
static size_t
fill_half(struct hs_conn *c, const uint8_t *bytes, size_t len)
{
    struct hs_conn_info info;
    size_t n, total = 0;
    hs_err rv;

    while ((rv = send_now(c, bytes, len, &n)) == HS_OK)
        total += n;
    ASSERT_ERR(HS_E_DEADLINE, rv);
    hs_conn_info(c, &info);
    ck_assert(info.poisoned_out); /* It says so while half a record is out. */
    return total;
}

static size_t
drain(struct hs_conn *c, uint8_t *last)
{
    uint8_t buf[65536];
    size_t n, total = 0;

    while (recv_now(c, buf, sizeof(buf), &n) == HS_OK && n > 0) {
        total += n;
        *last = buf[n - 1];
    }
    return total;
}

/* ---- Bytes --------------------------------------------------------------------------------- */

START_TEST(bytes_come_out_as_they_went_in)
{
    struct tls_pair p = default_pair(_i % 2, versions[_i / 2]);
    uint8_t *bytes = malloc(100000);

    for (size_t i = 0; i < 100000; i++)
        bytes[i] = pattern(1, i);
    carry(p.client, p.server, bytes, 100000);
    carry(p.server, p.client, bytes, 100000);
    carry(p.client, p.server, bytes, 1);
    free(bytes);
    tls_pair_free(&p);
}
END_TEST

START_TEST(peeked_bytes_stay)
{
    struct tls_pair p = default_pair(true, 0);
    struct hs_op op = op_in(10 * SECOND);
    uint8_t buf[8];
    size_t n;

    carry(p.client, p.server, "x", 1);
    op = op_in(10 * SECOND);
    ASSERT_OK(DONE(hs_conn_send_all(p.client, &op, (const uint8_t *)"hello", 5, fresh())));
    for (int i = 0; i < 2; i++) {
        op = op_in(10 * SECOND);
        ASSERT_OK(DONE(hs_conn_recv(p.server, &op, buf, sizeof(buf), MSG_PEEK, fresh(), &n)));
        ck_assert_uint_eq(n, 5);
    }
    ASSERT_OK(recv_some(p.server, buf, sizeof(buf), &n));
    ck_assert_mem_eq(buf, "hello", 5);
    tls_pair_free(&p);
}
END_TEST

START_TEST(pieces_are_gathered_in_order)
{
    struct tls_pair p = default_pair(true, 0);
    uint8_t big[20000] = {1, 2, 3}, got[20010];
    char small[] = "abcd";
    struct iovec iov[] = {{.iov_base = small, .iov_len = 1},
                          {.iov_base = small, .iov_len = 0},
                          {.iov_base = small + 1, .iov_len = 3},
                          {.iov_base = big, .iov_len = sizeof(big)},
                          {.iov_base = small, .iov_len = 4}};
    struct hs_op op = op_in(10 * SECOND), in = op_in(10 * SECOND);

    ASSERT_OK(DONE(hs_conn_sendv(p.client, &op, iov, 5, true, fresh())));
    ASSERT_OK(DONE(hs_conn_recv_exactly(p.server, &in, got, 4 + sizeof(big) + 4, fresh())));
    ck_assert_mem_eq(got, "abcd", 4);
    ck_assert_mem_eq(got + 4, big, sizeof(big));
    ck_assert_mem_eq(got + 4 + sizeof(big), "abcd", 4);
    tls_pair_free(&p);
}
END_TEST

/* ---- Ends ---------------------------------------------------------------------------------- */

START_TEST(close_write_ends_one_direction_only)
{
    struct tls_pair p = default_pair(true, versions[_i]);
    uint8_t byte;
    size_t n = 1;

    ASSERT_OK(close_write(p.client, SECOND));
    ASSERT_OK(close_write(p.client, SECOND)); /* idempotent */
    ASSERT_OK(recv_some(p.server, &byte, 1, &n));
    ck_assert_uint_eq(n, 0);
    carry(p.server, p.client, "answer", 6);
    ASSERT_ERR(HS_E_CLOSED, send_now(p.client, "x", 1, &n));
    ASSERT_OK(close_write(p.server, SECOND));
    ASSERT_OK(recv_some(p.client, &byte, 1, &n));
    ck_assert_uint_eq(n, 0);
    tls_pair_free(&p);
}
END_TEST

START_TEST(an_end_without_close_notify_is_truncation)
{
    struct tls_pair p = default_pair(_i, 0);
    uint8_t buf[8];
    size_t n;

    carry(p.client, p.server, "first", 5);
    ck_assert_int_eq(shutdown(hs_conn_fileno(p.client), SHUT_WR), 0);
    ASSERT_ERR(HS_E_TRUNCATED, recv_some(p.server, buf, sizeof(buf), &n));
    ASSERT_ERR(HS_E_TRUNCATED, recv_some(p.server, buf, sizeof(buf), &n)); /* for ever */
    tls_pair_free(&p);
}
END_TEST

START_TEST(data_before_a_truncation_is_returned_first)
{
    struct tls_pair p = default_pair(true, 0);
    struct hs_op op = op_in(10 * SECOND);
    uint8_t buf[64];
    size_t n;

    ASSERT_OK(DONE(hs_conn_send_all(p.client, &op, (const uint8_t *)"data", 4, fresh())));
    ck_assert_int_eq(shutdown(hs_conn_fileno(p.client), SHUT_WR), 0);
    ASSERT_OK(recv_some(p.server, buf, sizeof(buf), &n));
    ck_assert_uint_eq(n, 4);
    ASSERT_ERR(HS_E_TRUNCATED, recv_some(p.server, buf, sizeof(buf), &n));
    tls_pair_free(&p);
}
END_TEST

/* A protocol that can tell by itself: the end is an end, and the answer can still be sent. */
START_TEST(an_accepted_truncation_ends_reading_only)
{
    struct hs_tls_options client = client_options(), server = server_options();
    struct tls_pair p;
    uint8_t buf[8];
    size_t n;

    server.insecure_accept_truncation = true;
    p = shaken_pair(_i, config_of(&client), config_of(&server));
    carry(p.client, p.server, "request", 7);
    ck_assert_int_eq(shutdown(hs_conn_fileno(p.client), SHUT_WR), 0);
    for (int i = 0; i < 2; i++) {
        ASSERT_OK(recv_some(p.server, buf, sizeof(buf), &n));
        ck_assert_uint_eq(n, 0);
    }
    carry(p.server, p.client, "answer", 6);
    tls_pair_free(&p);
}
END_TEST

/* The writer is told of the reset; the reader finds an end, and must not call it truncated. */
START_TEST(a_reset_that_the_writer_was_told_is_a_reset_to_the_reader)
{
    struct tls_pair p = default_pair(true, 0);
    struct hs_conn_info info;
    uint8_t buf[8];
    size_t n;
    hs_err rv = HS_OK;

    hs_conn_close(p.server, true);
    EVENTUALLY((rv = send_now(p.client, "x", 1, &n)) != HS_OK);
    ASSERT_ERR(HS_E_RESET, rv);
    ASSERT_ERR(HS_E_RESET, recv_some(p.client, buf, sizeof(buf), &n));
    hs_conn_info(p.client, &info);
    ck_assert(info.poisoned_in && info.poisoned_out);
    tls_pair_free(&p);
}
END_TEST

/* The same if nobody has told us: the error was taken from the socket by somebody else. */
START_TEST(a_reset_that_was_taken_away_is_a_reset_still)
{
    struct tls_pair p = default_pair(true, 0);
    int error = 0;
    socklen_t len = sizeof(error);
    uint8_t buf[8];
    size_t n;

    hs_conn_close(p.server, true);
    ASSERT_OK(hs_conn_getsockopt(p.client, SOL_SOCKET, SO_ERROR, &error, &len, fresh()));
    ck_assert_int_eq(error, ECONNRESET);
    ASSERT_ERR(HS_E_RESET, recv_some(p.client, buf, sizeof(buf), &n));
    tls_pair_free(&p);
}
END_TEST

/* Rule 28: what a server had said before it went away. */
START_TEST(a_failed_write_loses_nothing_that_was_received)
{
    struct tls_pair p = default_pair(_i, 0);
    struct hs_op op = op_in(10 * SECOND);
    uint8_t buf[64], last = 0;
    size_t n;
    hs_err rv = HS_OK;

    (void)recv_now(p.client, buf, sizeof(buf), &n); /* tickets */
    ASSERT_OK(DONE(hs_conn_send_all(p.server, &op, (const uint8_t *)"last words", 10, fresh())));
    carry(p.client, p.server, "x", 1);
    ASSERT_OK(send_now(p.client, "unread", 6, &n)); /* makes the close a reset */
    hs_conn_close(p.server, false);
    EVENTUALLY((rv = send_now(p.client, "x", 1, &n)) != HS_OK);
    ASSERT_ERR(HS_E_RESET, rv);
    ck_assert_uint_eq(drain(p.client, &last), 10);
    ck_assert_int_eq(last, 's');
    tls_pair_free(&p);
}
END_TEST

START_TEST(finish_says_how_the_peer_ended)
{
    struct tls_pair p = default_pair(true, versions[_i]);
    struct hs_op op = op_step(10 * SECOND), other = op_step(10 * SECOND);
    struct hs_close_report report, second;
    hs_err a = HS_WANT, b = HS_WANT;

    carry(p.client, p.server, "x", 1);
    for (int i = 0; i < 1000 && (a == HS_WANT || b == HS_WANT); i++) {
        if (a == HS_WANT)
            a = hs_conn_finish(p.client, &op, fresh(), &report);
        if (b == HS_WANT)
            b = hs_conn_finish(p.server, &other, fresh(), &second);
    }
    ASSERT_OK(a);
    ASSERT_OK(b);
    ck_assert_int_eq(report.ending, HS_ENDING_CLEAN);
    ck_assert_int_eq(second.ending, HS_ENDING_CLEAN);
    ck_assert_uint_eq(report.unsent, 0);
    tls_pair_free(&p);
}
END_TEST

START_TEST(finish_tells_of_a_truncated_peer)
{
    struct tls_pair p = default_pair(true, 0);
    struct hs_op op = op_in(10 * SECOND);
    struct hs_close_report report;

    ck_assert_int_eq(shutdown(hs_conn_fileno(p.client), SHUT_WR), 0);
    ASSERT_OK(DONE(hs_conn_finish(p.server, &op, fresh(), &report)));
    ck_assert_int_eq(report.ending, HS_ENDING_TRUNCATED);
    tls_pair_free(&p);
}
END_TEST

/* Who reads half a record, and then the end, answers with an alert. */
START_TEST(finish_after_half_a_message_is_a_report)
{
    struct tls_pair p = default_pair(true, versions[_i]);
    struct hs_op op = op_in(20 * MS);
    struct hs_close_report report;
    static uint8_t bytes[1 << 20];
    size_t n;
    hs_err rv;

    small_buffers(p.client);
    do
        rv = DONE(hs_conn_send_all(p.client, &op, bytes, sizeof(bytes), fresh()));
    while (rv == HS_OK);
    ASSERT_ERR(HS_E_DEADLINE, rv);
    op = op_step(60 * SECOND);
    ASSERT_ERR(HS_WANT, hs_conn_finish(p.client, &op, fresh(), &report));
    while ((rv = recv_some(p.server, bytes, sizeof(bytes), &n)) == HS_OK)
        ck_assert_uint_gt(n, 0);
    ASSERT_ERR(HS_E_TRUNCATED, rv);
    hs_conn_close(p.server, false);
    while ((rv = hs_conn_finish(p.client, &op, fresh(), &report)) == HS_WANT || rv == HS_INTR)
        if (rv == HS_WANT)
            wait_for_want(&op);
    ASSERT_OK(rv);
    ck_assert_int_eq(report.ending, HS_ENDING_TRUNCATED);
    ck_assert_uint_eq(report.unsent, 0);
    ck_assert_int_eq(last_error()->code, HS_OK);
    ck_assert(hs_conn_is_closed(p.client));
    tls_pair_free(&p);
}
END_TEST

/* It goes on where TLS can read no more; whether a call was told so before makes no difference. */
START_TEST(finish_reads_past_a_tls_that_has_failed)
{
    struct tls_pair p = default_pair(true, versions[_i / 2]);
    struct hs_op op = op_in(60 * SECOND);
    struct hs_close_report report;
    uint8_t bytes[64] = {0};
    size_t n;

    carry(p.client, p.server, "x", 1);
    put(hs_conn_fileno(p.server), "this is no record, and more comes behind it", 43);
    if (_i % 2 == 1)
        ASSERT_ERR(HS_E_TLS, recv_some(p.client, bytes, sizeof(bytes), &n));
    put(hs_conn_fileno(p.server), bytes, sizeof(bytes));
    ck_assert_int_eq(shutdown(hs_conn_fileno(p.server), SHUT_WR), 0);
    ASSERT_OK(DONE(hs_conn_finish(p.client, &op, fresh(), &report)));
    ck_assert_int_eq(report.ending, HS_ENDING_TRUNCATED);
    ck_assert_uint_eq(report.unsent, 0);
    if (_i % 2 == 1) /* Else OpenSSL had taken it with the first piece. */
        ck_assert_uint_eq(report.discarded, sizeof(bytes));
    while (recv(hs_conn_fileno(p.server), bytes, sizeof(bytes), 0) > 0)
        continue;
    ck_assert_int_eq(recv(hs_conn_fileno(p.server), bytes, 1, 0), 0); /* and no reset */
    tls_pair_free(&p);
}
END_TEST

START_TEST(closing_tells_the_peer_unless_a_message_is_half_out)
{
    struct tls_pair p = default_pair(false, 0);
    uint8_t byte;
    size_t n = 1;

    if (_i == 0) {
        hs_conn_close(p.client, false);
        ASSERT_OK(recv_some(p.server, &byte, 1, &n));
        ck_assert_uint_eq(n, 0);
    } else { /* nobody closed it: garbage */
        hs_conn_unref(p.client);
        p.client = NULL;
        ASSERT_ERR(HS_E_TRUNCATED, recv_some(p.server, &byte, 1, &n));
    }
    tls_pair_free(&p);
}
END_TEST

START_TEST(detach_is_refused)
{
    struct tls_pair p = default_pair(true, 0);
    int fd;

    ASSERT_ERR(HS_E_INVALID, hs_conn_detach(p.client, fresh(), &fd));
    carry(p.client, p.server, "still fine", 10);
    tls_pair_free(&p);
}
END_TEST

/* ---- Half a record ------------------------------------------------------------------------- */

START_TEST(a_half_sent_record_takes_its_own_bytes_only)
{
    struct tls_pair p = default_pair(false, versions[_i]);
    uint8_t bytes[16384], other[16384], last = 0;
    size_t total, n;

    memset(bytes, 'a', sizeof(bytes));
    memset(other, 'b', sizeof(other));
    small_buffers(p.client);
    total = fill_half(p.client, bytes, sizeof(bytes));
    ck_assert_uint_eq(drain(p.server, &last), total);
    ASSERT_ERR(HS_E_POISONED, send_now(p.client, other, sizeof(other), &n));
    tls_pair_free(&p);
    p = default_pair(false, versions[_i]);
    small_buffers(p.client);
    total = fill_half(p.client, bytes, sizeof(bytes));
    ck_assert_uint_eq(drain(p.server, &last), total);
    for (hs_err rv; (rv = send_now(p.client, bytes, sizeof(bytes), &n)) != HS_OK;) {
        ASSERT_ERR(HS_E_DEADLINE, rv);
        total += drain(p.server, &last);
    }
    total += drain(p.server, &last);
    ck_assert_uint_eq(total % sizeof(bytes), 0);
    ck_assert_int_eq(last, 'a');
    tls_pair_free(&p);
}
END_TEST

START_TEST(a_deadline_in_the_middle_of_a_record_poisons_output)
{
    struct tls_pair p = default_pair(false, 0);
    uint8_t bytes[16384] = {0};
    struct hs_op op = op_in(20 * MS);
    size_t n;
    hs_err rv;

    small_buffers(p.client);
    do {
        op = op_in(20 * MS);
        rv = DONE(hs_conn_send(p.client, &op, bytes, sizeof(bytes), fresh(), &n));
    } while (rv == HS_OK);
    ASSERT_ERR(HS_E_DEADLINE, rv);
    ASSERT_ERR(HS_E_POISONED, send_now(p.client, bytes, sizeof(bytes), &n));
    carry(p.server, p.client, "the other way is fine", 21);
    hs_conn_close(p.client, false);
    while ((rv = recv_some(p.server, bytes, sizeof(bytes), &n)) == HS_OK)
        ck_assert_uint_gt(n, 0); /* no end that looks clean */
    ck_assert(rv == HS_E_TRUNCATED || rv == HS_E_RESET);
    tls_pair_free(&p);
}
END_TEST

START_TEST(an_abandoned_half_record_poisons_output)
{
    struct tls_pair p = default_pair(false, 0);
    uint8_t bytes[16384] = {0};
    struct hs_op op;
    size_t n;
    hs_err rv;

    small_buffers(p.client);
    do {
        op = op_step(10 * SECOND);
        rv = hs_conn_send(p.client, &op, bytes, sizeof(bytes), fresh(), &n);
    } while (rv == HS_OK);
    ASSERT_ERR(HS_WANT, rv);
    hs_conn_abandon(p.client, &op, NULL);
    ASSERT_ERR(HS_E_POISONED, send_now(p.client, bytes, sizeof(bytes), &n));
    tls_pair_free(&p);
}
END_TEST

/* OpenSSL would answer neither yes nor no for ever. */
START_TEST(nothing_is_ended_behind_a_half_sent_record)
{
    struct tls_pair p = default_pair(false, versions[_i]);
    uint8_t bytes[16384] = {0}, last;
    struct hs_op op = op_in(50 * MS);
    struct hs_close_report report;
    size_t total, n;
    hs_err rv;

    small_buffers(p.client);
    total = fill_half(p.client, bytes, sizeof(bytes));
    ASSERT_ERR(HS_E_POISONED, close_write(p.client, SECOND));
    total -= drain(p.server, &last);
    ck_assert_uint_eq(total, 0);
    for (; (rv = send_now(p.client, bytes, sizeof(bytes), &n)) != HS_OK;
         total = drain(p.server, &last))
        ASSERT_ERR(HS_E_DEADLINE, rv); /* It is as it was: the same bytes may follow. */
    (void)drain(p.server, &last);
    (void)fill_half(p.client, bytes, sizeof(bytes));
    ASSERT_OK(DONE(hs_conn_finish(p.client, &op, fresh(), &report)));
    ck_assert_int_eq(report.ending, HS_ENDING_DEADLINE);
    while ((rv = recv_some(p.server, bytes, sizeof(bytes), &n)) == HS_OK)
        ck_assert_uint_gt(n, 0);
    ASSERT_ERR(HS_E_TRUNCATED, rv);
    tls_pair_free(&p);
}
END_TEST

/* After close_notify was begun OpenSSL refuses data with an error that would end reading, too. */
START_TEST(a_close_write_that_had_no_room_refuses_data_and_no_more)
{
    struct pump pump;
    struct tls_pair p = pumped_pair(&pump, versions[_i]);
    struct hs_op once =
        HS_OP_INIT(HS_TRY_ONCE, NULL); /* A clock may be over before it has begun. */
    uint8_t bytes[65536], last;
    size_t n = 1;
    hs_err rv;

    small_buffers(p.client);
    while (send_now(p.client, "x", 1, &n) == HS_OK)
        continue;
    while (send_now(p.client, "x", 1, &n) != HS_OK) /* Then it is whole, and there is no room. */
        ck_assert_uint_eq(pump_move(&pump, 0, 1), 1);
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_close_write(p.client, &once, fresh())));
    ASSERT_ERR(HS_E_CLOSED, send_now(p.client, "x", 1, &n));
    ASSERT_ERR(HS_E_CLOSED, send_now(p.client, "x", 1, &n));
    ASSERT_OK(send_now(p.server, "y", 1, &n));
    (void)pump_move(&pump, 1, SIZE_MAX);
    ASSERT_OK(recv_some(p.client, bytes, 1, &n));
    (void)pump_move(&pump, 0, SIZE_MAX);
    ASSERT_OK(close_write(p.client, SECOND));
    (void)pump_move(&pump, 0, SIZE_MAX);
    ck_assert_uint_gt(drain(p.server, &last), 10);
    rv = recv_now(p.server, bytes, sizeof(bytes), &n);
    ASSERT_OK(rv);
    ck_assert_uint_eq(n, 0);
    pump_free(&pump);
    tls_pair_free(&p);
}
END_TEST

static int
file_of(size_t len)
{
    int file = memfd_create("hardsock-test", MFD_CLOEXEC);
    uint8_t *bytes = malloc(len);

    ck_assert_ptr_nonnull(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = pattern(7, i);
    ck_assert_int_eq(pwrite(file, bytes, len, 0), (ssize_t)len);
    free(bytes);
    return file;
}

START_TEST(a_file_goes_out)
{
    struct tls_pair p = default_pair(true, versions[_i]);
    struct hs_op op = op_in(10 * SECOND), in = op_in(10 * SECOND);
    uint8_t got[40000];
    int64_t offset = 3;
    int file = file_of(40000);

    ASSERT_OK(DONE(hs_conn_send_file(p.client, &op, file, &offset, SIZE_MAX / 2, fresh())));
    ck_assert_int_eq(offset, 40000);
    ck_assert_uint_eq(op.done, 39997);
    ASSERT_OK(DONE(hs_conn_recv_exactly(p.server, &in, got, 39997, fresh())));
    for (size_t i = 0; i < 39997; i++)
        BULK_ASSERT(got[i] == pattern(7, i + 3), "byte %zu", i);
    (void)close(file);
    tls_pair_free(&p);
}
END_TEST

/* The record was sealed with what the file held; what follows is another message. */
START_TEST(a_file_that_shrinks_while_a_record_is_half_out_swallows_nothing)
{
    struct tls_pair p = default_pair(false, versions[_i]);
    struct hs_op op = op_step(10 * SECOND);
    int file = file_of(60000);
    uint8_t last = 0;
    int64_t offset = 0;
    size_t total = 0, n;
    hs_err rv;

    small_buffers(p.client);
    ASSERT_ERR(HS_WANT, hs_conn_send_file(p.client, &op, file, &offset, 60000, fresh()));
    ck_assert_int_eq(ftruncate(file, _i == 0 ? 0 : offset + 10), 0);
    for (int i = 0;
         (rv = hs_conn_send_file(p.client, &op, file, &offset, 60000, fresh())) == HS_WANT; i++) {
        ck_assert_int_lt(i, 1000);
        total += drain(p.server, &last);
    }
    ASSERT_OK(rv);
    total += drain(p.server, &last);
    ck_assert_uint_eq(total, (size_t)offset);
    ck_assert_uint_eq(total, op.done);
    ck_assert_int_eq(last, pattern(7, total - 1));
    ASSERT_OK(send_now(p.client, "next", 4, &n));
    ck_assert_uint_eq(n, 4);
    ck_assert_uint_eq(drain(p.server, &last), 4);
    ck_assert_int_eq(last, 't');
    (void)close(file);
    tls_pair_free(&p);
}
END_TEST

/* ---- What TLS says between the data -------------------------------------------------------- */

/* A server of OpenSSL's that keeps what it sends in memory, so that it comes when we say. */
struct slow_server {
    SSL_CTX *ctx;
    SSL *ssl;
    struct shaking client;
    int fd; /* our end of the client's socket */
};

static int
large_ticket(SSL *ssl, void *arg)
{
    uint8_t data[3000] = {0};

    (void)arg;
    return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), data, sizeof(data));
}

static SSL_TICKET_RETURN
take_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t len,
            SSL_TICKET_STATUS status, void *arg)
{
    (void)ssl;
    (void)session;
    (void)name;
    (void)len;
    (void)status;
    (void)arg;
    return SSL_TICKET_RETURN_USE;
}

/* What the client has sent goes to the server's memory. */
static void
to_server(struct slow_server *s)
{
    uint8_t buf[65536];
    ssize_t n;

    while ((n = recv(s->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
        ck_assert_int_eq(BIO_write(SSL_get_rbio(s->ssl), buf, (int)n), (int)n);
}

/* n bytes, or all, of what the server has said. */
static void
to_client(struct slow_server *s, size_t n)
{
    uint8_t buf[65536];
    int got;

    while (n > 0 && (got = BIO_read(SSL_get_wbio(s->ssl), buf,
                                    (int)(n < sizeof(buf) ? n : sizeof(buf)))) > 0) {
        put(s->fd, buf, (size_t)got);
        n -= (size_t)got;
    }
}

/* Shaken, with two tickets of several records each still in the server's memory. */
static void
slow_server_open(struct slow_server *s)
{
    struct hs_tls_options o = client_options();
    int fds[2], ret = 0;

    *s = (struct slow_server){.ctx = raw_context(true)};
    SSL_CTX_set_max_send_fragment(s->ctx, 512);
    SSL_CTX_set_session_ticket_cb(s->ctx, large_ticket, take_ticket, NULL);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    s->fd = fds[1];
    ASSERT_OK(hs_conn_adopt(fds[0], NULL, fresh(), &s->client.c));
    s->client.config = config_of(&o);
    s->client.name = "a.example";
    s->ssl = SSL_new(s->ctx);
    SSL_set_bio(s->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_accept_state(s->ssl);
    for (int i = 0; i < 20 && ret != 1; i++) {
        (void)shake_step(&s->client);
        to_server(s);
        ERR_clear_error();
        if ((ret = SSL_do_handshake(s->ssl)) != 1)
            to_client(s, SIZE_MAX);
    }
    ASSERT_OK(s->client.rv);
    ck_assert_int_eq(ret, 1);
    ck_assert_uint_gt(BIO_ctrl_pending(SSL_get_wbio(s->ssl)), 2000);
}

static void
slow_server_free(struct slow_server *s)
{
    hs_conn_unref(s->client.c);
    hs_tls_config_unref(s->client.config);
    SSL_free(s->ssl);
    SSL_CTX_free(s->ctx);
    (void)close(s->fd);
    ERR_clear_error();
}

/* One record of a ticket has come: then OpenSSL is back in its handshake, as it sees it. */
START_TEST(half_a_ticket_stands_in_nobodys_way)
{
    struct slow_server s;
    struct hs_op op = op_step(10 * SECOND);
    uint8_t buf[16];
    size_t n;

    slow_server_open(&s);
    to_client(&s, 700);
    ASSERT_ERR(HS_E_DEADLINE, recv_now(s.client.c, buf, sizeof(buf), &n));
    if (_i == 0) {
        ASSERT_ERR(HS_WANT, hs_conn_close_write(s.client.c, &op, fresh()));
        to_client(&s, SIZE_MAX);
        ASSERT_OK(hs_conn_close_write(s.client.c, &op, fresh()));
    } else if (_i == 1) { /* Closing does not wait for it, and breaks nothing. */
        hs_conn_close(s.client.c, false);
    } else {
        ASSERT_ERR(HS_WANT, hs_conn_send(s.client.c, &op, (const uint8_t *)"x", 1, fresh(), &n));
        ck_assert_int_eq(op.want_events, POLLIN);
        to_client(&s, SIZE_MAX);
        ASSERT_OK(hs_conn_send(s.client.c, &op, (const uint8_t *)"x", 1, fresh(), &n));
        to_server(&s);
        raw_read(s.ssl, buf, 1);
    }
    if (_i != 1) {
        raw_write(s.ssl, "data", 4);
        to_client(&s, SIZE_MAX);
        ASSERT_OK(recv_some(s.client.c, buf, sizeof(buf), &n));
        ck_assert_uint_eq(n, 4);
    }
    slow_server_free(&s);
}
END_TEST

struct reading {
    struct hs_conn *c;
    uint8_t buf[16];
    size_t n;
    hs_err rv;
};

static void *
read_once(void *arg)
{
    struct reading *r = arg;

    r->rv = recv_some(r->c, r->buf, sizeof(r->buf), &r->n);
    return NULL;
}

/* The writer had to read the rest of a ticket, and with it took the data from under the reader, who
 * would wait for the descriptor until more comes. */
START_TEST(what_a_writer_took_in_reaches_the_reader_who_waits)
{
    struct slow_server s;
    struct hs_op out = op_step(10 * SECOND), in = op_step(10 * SECOND);
    struct hs_loop *loop;
    uint8_t buf[16];
    size_t n;

    slow_server_open(&s);
    ASSERT_OK(hs_loop_new(fresh(), &loop));
    ASSERT_OK(hs_loop_waiter_new(loop, &in, fresh(), &in.loop_waiter));
    to_client(&s, 700);
    ASSERT_ERR(HS_E_DEADLINE, recv_now(s.client.c, buf, sizeof(buf), &n));
    ASSERT_ERR(HS_WANT, hs_conn_send(s.client.c, &out, (const uint8_t *)"x", 1, fresh(), &n));
    raw_write(s.ssl, "data", 4);
    ASSERT_ERR(HS_WANT, hs_conn_recv(s.client.c, &in, buf, sizeof(buf), 0, fresh(), &n));
    ASSERT_OK(hs_loop_waiter_park(in.loop_waiter, &in, fresh()));
    to_client(&s, SIZE_MAX);
    ASSERT_OK(hs_conn_send(s.client.c, &out, (const uint8_t *)"x", 1, fresh(), &n));
    hs_loop_collect(loop);
    ck_assert_ptr_eq(hs_loop_next(loop), &in);
    ASSERT_OK(hs_conn_recv(s.client.c, &in, buf, sizeof(buf), 0, fresh(), &n));
    ck_assert_uint_eq(n, 4);
    hs_loop_waiter_free(in.loop_waiter);
    hs_loop_free(loop);
    slow_server_free(&s);
}
END_TEST

START_TEST(key_updates_pass_unseen)
{
    struct shaking s;
    SSL_CTX *ctx;
    SSL *raw = raw_client_of(&s, &ctx, HS_TLS_1_3);
    uint8_t buf[16];
    size_t n;

    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(
            SSL_key_update(raw, i % 2 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED),
            1);
        raw_write(raw, "ping", 4);
        ASSERT_OK(recv_some(s.c, buf, sizeof(buf), &n));
        ck_assert_uint_eq(n, 4);
        ASSERT_OK(send_now(s.c, "pong", 4, &n));
        raw_read(raw, buf, 4);
    }
    raw_client_free(&s, raw, ctx);
}
END_TEST

/* A peer that talks for ever without saying anything holds neither a thread nor an event loop. */
START_TEST(a_flood_of_key_updates_is_taken_in_slices)
{
    struct shaking s;
    SSL_CTX *ctx;
    SSL *raw = raw_client_of(&s, &ctx, HS_TLS_1_3);
    struct hs_op op = op_step(600 * SECOND), late; /* The test's own limit is the clock. */
    uint8_t buf[16];
    size_t n = 0;
    hs_err rv;
    int slices = 0;

    for (size_t sent = 0; sent < 20000; sent++) {
        ck_assert_int_eq(SSL_key_update(raw, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        if (SSL_do_handshake(raw) != 1)
            break;
    }
    while ((rv = hs_conn_recv(s.c, &op, buf, sizeof(buf), 0, fresh(), &n)) == HS_INTR)
        slices++;
    ASSERT_ERR(HS_WANT, rv);
    ck_assert_int_ge(slices, 2);
    hs_conn_abandon(s.c, &op, NULL);
    ck_assert(SSL_want(raw) == SSL_NOTHING || SSL_do_handshake(raw) == 1);
    raw_write(raw, "data", 4);
    late = op_in(600 * SECOND);
    ASSERT_OK(DONE(hs_conn_recv(s.c, &late, buf, sizeof(buf), 0, fresh(), &n)));
    ck_assert_uint_eq(n, 4);
    raw_client_free(&s, raw, ctx);
}
END_TEST

struct flood {
    SSL *raw;
    atomic_bool stop;
};

static void *
talk_for_ever(void *arg)
{
    struct flood *f = arg;

    while (!f->stop)
        if (SSL_key_update(f->raw, SSL_KEY_UPDATE_NOT_REQUESTED) != 1 ||
            SSL_do_handshake(f->raw) != 1)
            ERR_clear_error(); /* full: again */
    return NULL;
}

START_TEST(a_deadline_holds_against_a_flood)
{
    struct shaking s;
    SSL_CTX *ctx;
    struct flood f = {.raw = raw_client_of(&s, &ctx, HS_TLS_1_3)};
    struct hs_op op = op_in(100 * MS);
    struct thread t;
    uint8_t buf[16];
    size_t n;

    thread_start(&t, talk_for_ever, &f);
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_recv(s.c, &op, buf, sizeof(buf), 0, fresh(), &n)));
    f.stop = true;
    (void)thread_join(&t);
    raw_client_free(&s, f.raw, ctx);
}
END_TEST

/* What arrives at a closed socket is answered with a reset, which destroys what is on its way:
 * while tickets may come the socket is kept, unseen. The first does not tell that it is the
 * last. */
START_TEST(a_client_that_only_wrote_lingers_for_its_tickets)
{
    struct pump pump;
    struct tls_pair p = pumped_pair_without_tickets(&pump, HS_TLS_1_3);
    struct hs_live live;
    uint8_t buf[65536];
    size_t n;

    if (_i > 0)
        pump_record(&pump, 1);
    ASSERT_ERR(HS_E_DEADLINE, recv_now(p.client, buf, sizeof(buf), &n));
    ASSERT_OK(send_now(p.client, "on its way", 10, &n));
    if (_i == 2) { /* Data comes after tickets. */
        ASSERT_OK(send_now(p.server, "x", 1, &n));
        (void)pump_move(&pump, 1, SIZE_MAX);
        ASSERT_OK(recv_some(p.client, buf, 1, &n));
    }
    hs_conn_close(p.client, false);
    hs_live_counts(&live);
    ck_assert_int_eq(live.lingering, _i < 2);
    pump_free(&pump);
    tls_pair_free(&p);
}
END_TEST

START_TEST(renegotiation_is_refused_and_nothing_breaks)
{
    struct shaking s;
    SSL_CTX *ctx;
    SSL *raw = raw_client_of(&s, &ctx, HS_TLS_1_2);
    uint8_t buf[16];
    size_t n;

    ck_assert_int_eq(SSL_renegotiate(raw), 1);
    (void)SSL_do_handshake(raw);
    ASSERT_ERR(HS_E_DEADLINE, recv_now(s.c, buf, sizeof(buf), &n));
    ASSERT_OK(send_now(s.c, "fine", 4, &n));
    raw_client_free(&s, raw, ctx);
}
END_TEST

/* Damage on the way, or an attack: nothing of that record is believed, and nothing after it. */
START_TEST(a_damaged_record_is_the_end)
{
    struct pump pump;
    struct tls_pair p = pumped_pair(&pump, versions[_i]);
    struct hs_error *err;
    uint8_t buf[256];
    ssize_t got;
    size_t n;

    ASSERT_OK(send_now(p.client, "secret", 6, &n));
    ck_assert_int_gt(got = recv(pump.fds[0], buf, sizeof(buf), 0), 10);
    buf[got - 1] ^= 1;
    put(pump.fds[1], buf, (size_t)got);
    ASSERT_ERR(HS_E_TLS, recv_now(p.server, buf, sizeof(buf), &n));
    err = last_error();
    ck_assert_int_eq(err->tls, HS_TLS_PROTOCOL);
    ASSERT_ERR(HS_E_TLS, recv_now(p.server, buf, sizeof(buf), &n));
    ASSERT_ERR(HS_E_TLS, send_now(p.server, "x", 1, &n));
    (void)pump_move(&pump, 1, SIZE_MAX);
    ASSERT_ERR(HS_E_TLS, recv_now(p.client, buf, sizeof(buf), &n));
    ck_assert_int_eq(last_error()->tls, HS_TLS_ALERT);
    ck_assert_int_eq(last_error()->alert, SSL_AD_BAD_RECORD_MAC);
    pump_free(&pump);
    tls_pair_free(&p);
}
END_TEST

/* ---- Processes and threads ----------------------------------------------------------------- */

struct in_child_arg {
    struct tls_pair *p;
    struct hs_op *op;
};

/* A thread of the parent may have had the lock, which is then nobody's here. */
static int
use_in_child(void *arg)
{
    struct in_child_arg *a = arg;
    struct hs_conn_info info;
    struct hs_tls_info tls;
    uint8_t byte;
    size_t n;

    hs_conn_info(a->p->client, &info);
    if (hs_conn_tls_info(a->p->client, &tls) || hs_conn_tls_chain_length(a->p->client) != 0)
        return 1;
    if (hs_conn_recv(a->p->client, a->op, &byte, 1, 0, NULL, &n) != HS_E_FORKED)
        return 2;
    hs_conn_abandon(a->p->client, a->op, NULL);
    hs_conn_close(a->p->client, false);
    hs_conn_unref(a->p->client);
    return 0;
}

struct holding {
    struct hs_conn *c;
    atomic_int stop;
};

static void *
keep_asking(void *arg)
{
    struct holding *h = arg;
    struct hs_tls_info info;

    while (!h->stop)
        (void)hs_conn_tls_info(h->c, &info);
    return NULL;
}

START_TEST(a_forked_child_neither_hangs_nor_speaks)
{
    struct tls_pair p = default_pair(true, 0);
    struct hs_op op = op_step(10 * SECOND);
    struct in_child_arg arg = {.p = &p, .op = &op};
    struct holding h = {.c = p.client};
    struct thread t;
    uint8_t byte;
    size_t n;

    ASSERT_ERR(HS_WANT, hs_conn_recv(p.client, &op, &byte, 1, 0, fresh(), &n));
    thread_start(&t, keep_asking, &h);
    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(in_child(use_in_child, &arg), 0);
    h.stop = 1;
    (void)thread_join(&t);
    hs_conn_abandon(p.client, &op, NULL);
    carry(p.client, p.server, "unharmed", 8);
    carry(p.server, p.client, "unharmed", 8);
    tls_pair_free(&p);
}
END_TEST

START_TEST(a_second_reader_or_writer_is_busy)
{
    struct tls_pair p = default_pair(false, 0);
    struct hs_op op = op_step(10 * SECOND), other = op_in(10 * SECOND);
    uint8_t bytes[16384] = {0};
    size_t n;

    ASSERT_ERR(HS_WANT, hs_conn_recv(p.client, &op, bytes, 1, 0, fresh(), &n));
    ASSERT_ERR(HS_E_BUSY, recv_now(p.client, bytes, 1, &n));
    ASSERT_ERR(HS_E_BUSY, hs_conn_confirm(p.client, &other, fresh()));
    ASSERT_OK(send_now(p.client, "x", 1, &n)); /* the other direction is free */
    hs_conn_abandon(p.client, &op, NULL);
    small_buffers(p.client);
    do
        op = op_step(10 * SECOND);
    while (hs_conn_send(p.client, &op, bytes, sizeof(bytes), fresh(), &n) == HS_OK);
    ASSERT_ERR(HS_E_BUSY, send_now(p.client, "x", 1, &n));
    ASSERT_ERR(HS_E_BUSY, close_write(p.client, SECOND));
    hs_conn_abandon(p.client, &op, NULL);
    tls_pair_free(&p);
}
END_TEST

START_TEST(closing_wakes_readers_and_writers)
{
    struct tls_pair p = default_pair(false, 0);
    struct reading r = {.c = p.client};
    struct thread t;

    thread_start(&t, read_once, &r);
    thread_wait_asleep(&t);
    hs_conn_close(p.client, _i);
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_CLOSED, r.rv);
    tls_pair_free(&p);
}
END_TEST

/* A goal of the design: nothing but what OpenSSL itself needs. */
START_TEST(shutdown_wakes_a_reader_and_truncates)
{
    struct tls_pair p = default_pair(true, 0);
    uint8_t byte;
    size_t n = 1;

    ASSERT_OK(hs_conn_shutdown(p.client, SHUT_WR, fresh()));
    ASSERT_OK(recv_some(p.server, &byte, 1, &n)); /* It could be said, so it was. */
    ck_assert_uint_eq(n, 0);
    carry(p.server, p.client, "more", 4);
    tls_pair_free(&p);
}
END_TEST

static void
add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, bytes_come_out_as_they_went_in, 0, 4);
    tcase_add_test(tc, peeked_bytes_stay);
    tcase_add_test(tc, pieces_are_gathered_in_order);
    tcase_add_loop_test(tc, close_write_ends_one_direction_only, 0, 2);
    tcase_add_loop_test(tc, an_end_without_close_notify_is_truncation, 0, 2);
    tcase_add_test(tc, data_before_a_truncation_is_returned_first);
    tcase_add_loop_test(tc, an_accepted_truncation_ends_reading_only, 0, 2);
    tcase_add_test(tc, a_reset_that_the_writer_was_told_is_a_reset_to_the_reader);
    tcase_add_test(tc, a_reset_that_was_taken_away_is_a_reset_still);
    tcase_add_loop_test(tc, a_failed_write_loses_nothing_that_was_received, 0, 2);
    tcase_add_loop_test(tc, finish_says_how_the_peer_ended, 0, 2);
    tcase_add_test(tc, finish_tells_of_a_truncated_peer);
    tcase_add_loop_test(tc, finish_after_half_a_message_is_a_report, 0, 2);
    tcase_add_loop_test(tc, finish_reads_past_a_tls_that_has_failed, 0, 4);
    tcase_add_loop_test(tc, closing_tells_the_peer_unless_a_message_is_half_out, 0, 2);
    tcase_add_test(tc, detach_is_refused);
    tcase_add_loop_test(tc, a_half_sent_record_takes_its_own_bytes_only, 0, 2);
    tcase_add_test(tc, a_deadline_in_the_middle_of_a_record_poisons_output);
    tcase_add_test(tc, an_abandoned_half_record_poisons_output);
    tcase_add_loop_test(tc, nothing_is_ended_behind_a_half_sent_record, 0, 2);
    tcase_add_loop_test(tc, a_close_write_that_had_no_room_refuses_data_and_no_more, 0, 2);
    tcase_add_loop_test(tc, a_file_goes_out, 0, 2);
    tcase_add_loop_test(tc, a_file_that_shrinks_while_a_record_is_half_out_swallows_nothing, 0, 2);
    tcase_add_loop_test(tc, a_damaged_record_is_the_end, 0, 2);
    tcase_add_test(tc, a_forked_child_neither_hangs_nor_speaks);
    tcase_add_test(tc, a_second_reader_or_writer_is_busy);
    tcase_add_loop_test(tc, closing_wakes_readers_and_writers, 0, 2);
    tcase_add_test(tc, shutdown_wakes_a_reader_and_truncates);
}

static void
go_within(void)
{
    tls_within = true;
}

int
main(void)
{
    TCase *tcs[] = {case_new("tls io"), case_new("tls io within tls")};
    TCase *tc = tcs[0];

    (void)signal(SIGPIPE, SIG_DFL); /* Nothing here may raise it. */
    tls_world();
    add_tests(tcs[0]);
    tcase_add_checked_fixture(tcs[1], go_within, NULL);
    add_tests(tcs[1]);
    tcase_add_loop_test(tc, half_a_ticket_stands_in_nobodys_way, 0, 3);
    tcase_add_test(tc, what_a_writer_took_in_reaches_the_reader_who_waits);
    tcase_add_test(tc, key_updates_pass_unseen);
    tcase_add_test(tc, a_flood_of_key_updates_is_taken_in_slices);
    tcase_add_test(tc, a_deadline_holds_against_a_flood);
    tcase_add_loop_test(tc, a_client_that_only_wrote_lingers_for_its_tickets, 0, 3);
    tcase_add_test(tc, renegotiation_is_refused_and_nothing_breaks);
    return run_cases(tcs, LENGTH(tcs));
}
