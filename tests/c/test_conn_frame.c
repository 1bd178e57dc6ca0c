/* test_conn_frame.c: frames, lines and looking ahead on a connection: one buffer for all calls.
 *
 * What is cut out of which bytes is test_frame.c's; here it is about waiting, deadlines, poison,
 * who may when, and that no call takes or loses a byte that is another's.
 */
#include "support.h"

#include "../../csrc/stream/conn_impl.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX(...)                                                                                \
    {                                                                                              \
        .kind = HS_FRAMING_PREFIX, .width = 4, .max_size = 100, __VA_ARGS__                        \
    }
#define LINES(...)                                                                                 \
    {                                                                                              \
        .kind = HS_FRAMING_LINE, .max_size = 100, __VA_ARGS__                                      \
    }

static const struct hs_framing line = LINES(.ending = HS_LINE_LF);
static const struct hs_framing strict = LINES(.ending = HS_LINE_CRLF);
static const struct hs_framing prefix = PREFIX(.keep = false);
static const struct hs_framing skipping = PREFIX(.too_long = HS_TOO_LONG_SKIP, .max_skip = 1000);
static const struct hs_framing keeping = PREFIX(.too_long = HS_TOO_LONG_KEEP);
static const struct hs_framing semicolon = {
    .kind = HS_FRAMING_DELIMITER, .sep = (const uint8_t *)";;", .sep_len = 2, .max_size = 100};

static struct hs_conn_info
info_of(struct hs_conn *c)
{
    struct hs_conn_info info;

    hs_conn_info(c, &info);
    return info;
}

static hs_err
recv_frame(struct hs_conn *c, const struct hs_framing *f, struct hs_op op)
{
    hs_err rv = DONE(hs_conn_recv_frames(c, &op, f, fresh()));

    if (rv == HS_OK)
        hs_conn_frames_end(c, &op);
    return rv;
}

static void
expect_frame(struct hs_conn *c, const struct hs_framing *f, const char *want)
{
    struct hs_op op = op_in(10 * SECOND);
    const uint8_t *data;
    size_t len;

    ASSERT_OK(DONE(hs_conn_recv_frames(c, &op, f, fresh())));
    ck_assert(hs_conn_frame(c, f, &data, &len));
    ck_assert_uint_eq(len, strlen(want));
    ck_assert_mem_eq(data, want, len);
    hs_conn_frame_taken(c);
    hs_conn_frames_end(c, &op);
    ck_assert_uint_eq(op.claim, 0);
}

static void
expect_bytes(struct hs_conn *c, const char *want)
{
    struct hs_op op = op_in(10 * SECOND);
    size_t len = strlen(want);
    uint8_t bytes[1000];

    ASSERT_OK(DONE(hs_conn_recv_exactly(c, &op, bytes, len, fresh())));
    ck_assert_mem_eq(bytes, want, len);
}

static void
expect_some(struct hs_conn *c, size_t len, const char *want)
{
    struct hs_op op = op_in(10 * SECOND);
    uint8_t bytes[1000];
    size_t n;

    ASSERT_OK(DONE(hs_conn_recv(c, &op, bytes, len, 0, fresh(), &n)));
    ck_assert_uint_eq(n, strlen(want));
    ck_assert_mem_eq(bytes, want, n);
}

static void
expect_peek(struct hs_conn *c, const char *want)
{
    struct hs_op op = op_in(10 * SECOND);

    ASSERT_OK(DONE(hs_conn_peek(c, &op, strlen(want), fresh())));
    ck_assert_mem_eq(hs_conn_peeked(c), want, strlen(want));
    hs_conn_frames_end(c, &op);
}

/* A frame of prefix with so many bytes; the payload is a string. */
static void
put_prefixed(int fd, size_t declared, const char *payload)
{
    const uint8_t header[4] = {(uint8_t)(declared >> 24), (uint8_t)(declared >> 16),
                               (uint8_t)(declared >> 8), (uint8_t)declared};

    put(fd, header, 4);
    put(fd, payload, strlen(payload));
}

/* ---- One buffer ---------------------------------------------------------------------------- */

START_TEST(all_calls_share_one_buffer)
{
    struct pair p = _i ? pair_tcp() : pair_unix();
    uint8_t copy[8];

    put(p.peer, "first\nab", 8);
    put_prefixed(p.peer, 5, "frame");
    put(p.peer, "exactlyuntil;;\r\n\nlast", 21);
    expect_frame(p.c, &line, "first");
    expect_some(p.c, 2, "ab");
    expect_frame(p.c, &prefix, "frame");
    expect_peek(p.c, "exact");
    expect_bytes(p.c, "exactly");
    expect_frame(p.c, &semicolon, "until");
    expect_frame(p.c, &strict, "");
    expect_frame(p.c, &line, "");
    expect_peek(p.c, "last");
    ck_assert_uint_eq(hs_conn_copy_buffered(p.c, copy, 3), 3);
    ck_assert_mem_eq(copy, "las", 3);
    ck_assert_uint_eq(info_of(p.c).buffered, 4);
    expect_some(p.c, 100, "last");
    ck_assert_uint_eq(hs_conn_copy_buffered(p.c, copy, 3), 0);
    ck_assert_ptr_null(p.c->in.buf.data); /* Nothing is held for nothing. */
    pair_free(&p);
}
END_TEST

enum { KINDS = 5, MESSAGES = 400 };

struct feeding {
    int fd;
    uint64_t seed;
};

static size_t
length_of(uint64_t seed, size_t i)
{
    return pattern(seed, i) % 60 == 0 ? 3000 : pattern(seed, i) % 60;
}

static uint8_t
byte_of(size_t i, size_t at)
{
    return (uint8_t)('a' + (i + at) % 26);
}

/* Message i: its kind is i-dependent, its bytes are letters, its end is of its kind. */
static size_t
make_message(uint64_t seed, size_t i, uint8_t *out)
{
    size_t len = length_of(seed, i), n = 0;

    if (i % KINDS == 2) {
        out[n++] = 0;
        out[n++] = 0;
        out[n++] = (uint8_t)(len >> 8);
        out[n++] = (uint8_t)len;
    }
    for (size_t at = 0; at < len; at++)
        out[n++] = byte_of(i, at);
    if (i % KINDS == 0)
        out[n++] = '\n';
    if (i % KINDS == 1) {
        out[n++] = ';';
        out[n++] = ';';
    }
    return n;
}

static void *
feed_messages(void *arg)
{
    struct feeding *f = arg;
    uint8_t bytes[4000];

    for (size_t i = 0; i < MESSAGES; i++) {
        size_t n = make_message(f->seed, i, bytes);

        for (size_t at = 0, k = 0; at < n; k++) {
            size_t piece = pattern(f->seed + 1, i + k) % 40 + 1;

            if (piece > n - at)
                piece = n - at;
            put(f->fd, bytes + at, piece);
            at += piece;
        }
    }
    return NULL;
}

/* Gets what is there now, or waits for half a millisecond: whatever ends early must go on. */
static struct hs_op
impatient(uint64_t seed, size_t round)
{
    return pattern(seed + 2, round) % 2 ? op_in(MS / 2)
                                        : (struct hs_op)HS_OP_INIT(HS_TRY_ONCE, NULL);
}

static hs_err
take_framed(struct hs_conn *c, struct hs_op *op, const struct hs_framing *f, size_t i, size_t len)
{
    hs_err rv = DONE(hs_conn_recv_frames(c, op, f, fresh()));
    const uint8_t *data;
    size_t got;

    if (rv != HS_OK)
        return rv;
    ck_assert(hs_conn_frame(c, f, &data, &got));
    ck_assert_uint_eq(got, len);
    for (size_t at = 0; at < len; at++)
        ck_assert_uint_eq(data[at], byte_of(i, at));
    hs_conn_frame_taken(c);
    hs_conn_frames_end(c, op);
    return HS_OK;
}

static hs_err
take_bytes(struct hs_conn *c, struct hs_op *op, bool exactly, size_t i, size_t len, size_t *at)
{
    uint8_t bytes[4000];
    size_t n = len - *at;
    hs_err rv = exactly ? DONE(hs_conn_recv_exactly(c, op, bytes, n, fresh()))
                        : DONE(hs_conn_recv(c, op, bytes, n, 0, fresh(), &n));

    if (rv != HS_OK)
        return rv;
    for (size_t k = 0; k < n; k++)
        ck_assert_uint_eq(bytes[k], byte_of(i, (*at)++));
    return *at < len ? HS_E_DEADLINE : HS_OK;
}

START_TEST(any_mixture_of_calls_with_any_deadlines_loses_nothing)
{
    static const struct hs_framing *const framings[] = {&line, &semicolon, &prefix};
    struct pair p = pair_unix();
    struct feeding f = {.fd = p.peer, .seed = (uint64_t)_i * 10};
    struct hs_framing roomy;
    struct thread t;
    size_t round = 0;

    thread_start(&t, feed_messages, &f);
    for (size_t i = 0; i < MESSAGES; i++) {
        size_t len = length_of(f.seed, i), at = 0, kind = i % KINDS;
        hs_err rv;

        do {
            struct hs_op op = impatient(f.seed, round++);

            if (kind < LENGTH(framings)) {
                roomy = *framings[kind];
                roomy.max_size = 5000;
                rv = take_framed(p.c, &op, &roomy, i, len);
            } else {
                rv = take_bytes(p.c, &op, kind == 3, i, len, &at);
            }
        } while (rv == HS_E_DEADLINE);
        ASSERT_OK(rv);
    }
    (void)thread_join(&t);
    ck_assert_uint_eq(info_of(p.c).buffered, 0);
    pair_free(&p);
}
END_TEST

START_TEST(a_deadline_in_mid_frame_keeps_every_byte_and_the_place_of_the_search)
{
    struct pair p = pair_unix();
    struct hs_op once = HS_OP_INIT(HS_TRY_ONCE, NULL);
    char text[51];

    memset(text, 'x', 50);
    for (int i = 0; i < 2; i++) {
        put(p.peer, text, 40);
        ASSERT_ERR(HS_E_DEADLINE, recv_frame(p.c, &line, once)); /* It looks, however late it is. */
        ck_assert_str_eq(last_error()->op, "recv_line");
        ck_assert_uint_eq(info_of(p.c).buffered, 40 * (size_t)(i + 1));
        ck_assert_uint_eq(p.c->in.scanned, 40 * (size_t)(i + 1));
    }
    ck_assert(!info_of(p.c).poisoned_in);
    expect_some(p.c, 30, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    ck_assert_uint_eq(p.c->in.scanned, 0); /* Somebody took bytes: it begins again. */
    ASSERT_ERR(HS_E_DEADLINE, recv_frame(p.c, &line, once));
    ck_assert_uint_eq(p.c->in.scanned, 50);
    ASSERT_ERR(HS_E_DEADLINE, recv_frame(p.c, &line, op_in(2 * MS)));
    ck_assert_uint_eq(p.c->in.scanned, 50);
    put(p.peer, "\n", 1);
    text[50] = '\0';
    expect_frame(p.c, &line, text);
    pair_free(&p);
}
END_TEST

START_TEST(memory_follows_what_arrived_not_what_a_header_claims)
{
    const struct hs_framing huge = {
        .kind = HS_FRAMING_PREFIX, .width = 4, .max_size = (size_t)2 << 30};
    struct pair p = pair_unix();
    struct hs_op op = op_step(10 * SECOND);
    char some[1000] = {0};

    put_prefixed(p.peer, (size_t)1 << 30, "");
    for (int i = 0; i < 20; i++) {
        put(p.peer, some, sizeof(some));
        ASSERT_ERR(HS_WANT, DONE(hs_conn_recv_frames(p.c, &op, &huge, fresh())));
        ck_assert_uint_le(p.c->in.buf.capacity, 128U << 10);
    }
    hs_conn_abandon(p.c, &op, NULL);
    ck_assert_uint_eq(info_of(p.c).buffered, 20004);
    pair_free(&p);
}
END_TEST

START_TEST(many_frames_are_taken_in_one_call_and_no_more_than_wanted)
{
    struct pair p = pair_unix();
    struct hs_op op = op_in(10 * SECOND);
    const uint8_t *data;
    size_t len;

    put(p.peer, "1\n2\n\n4\npart", 11);
    ASSERT_OK(DONE(hs_conn_recv_frames(p.c, &op, &line, fresh())));
    for (int i = 0; i < 3; i++) {
        ck_assert(hs_conn_frame(p.c, &line, &data, &len));
        ck_assert(hs_conn_frame(p.c, &line, &data, &len)); /* Looking takes nothing. */
        ck_assert_uint_eq(len, i < 2);
        hs_conn_frame_taken(p.c);
    }
    hs_conn_frames_end(p.c, &op);
    ck_assert_uint_eq(info_of(p.c).buffered, 6);
    ASSERT_OK(hs_conn_try_frames(p.c, &line));
    ck_assert(hs_conn_frame(p.c, &line, &data, &len));
    ck_assert_int_eq(data[0], '4');
    hs_conn_frame_taken(p.c);
    ck_assert(!hs_conn_frame(p.c, &line, &data, &len));
    hs_conn_try_end(p.c);
    ASSERT_ERR(HS_WANT, hs_conn_try_frames(p.c, &line));
    expect_some(p.c, 100, "part");
    ASSERT_ERR(HS_WANT, hs_conn_try_frames(p.c, &line));
    pair_free(&p);
}
END_TEST

/* ---- Waiting ------------------------------------------------------------------------------- */

struct waiting {
    struct hs_conn *c;
    struct hs_op op;
    const struct hs_framing *f;
    hs_err rv;
};

static void *
wait_for_frame(void *arg)
{
    struct waiting *w = arg;

    w->rv = DONE(hs_conn_recv_frames(w->c, &w->op, w->f, fresh()));
    return NULL;
}

START_TEST(closing_wakes_who_waits_for_a_frame)
{
    struct pair p = pair_tcp();
    struct waiting w = {.c = p.c, .op = op_in(10 * SECOND), .f = &prefix};
    struct thread t;

    put_prefixed(p.peer, 50, "half");
    thread_start(&t, wait_for_frame, &w);
    thread_wait_asleep(&t);
    hs_conn_close(p.c, _i);
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_CLOSED, w.rv);
    ASSERT_ERR(HS_E_CLOSED, recv_frame(p.c, &prefix, op_in(10 * SECOND)));
    pair_free(&p);
}
END_TEST

START_TEST(a_second_reader_is_busy_while_one_waits_for_a_frame)
{
    struct pair p = pair_unix();
    struct waiting w = {.c = p.c, .op = op_in(10 * SECOND), .f = &line};
    struct hs_op op = op_in(10 * SECOND);
    struct thread t;
    uint8_t byte;

    put(p.peer, "par", 3);
    thread_start(&t, wait_for_frame, &w);
    thread_wait_asleep(&t);
    EVENTUALLY(info_of(p.c).buffered == 3);
    ASSERT_ERR(HS_E_BUSY, recv_frame(p.c, &prefix, op_in(10 * SECOND)));
    ASSERT_ERR(HS_E_BUSY, hs_conn_peek(p.c, &op, 1, fresh()));
    ASSERT_ERR(HS_WANT, hs_conn_try_frames(p.c, &line));
    ck_assert_uint_eq(hs_conn_copy_buffered(p.c, &byte, 1), 0);
    put(p.peer, "t\n", 2);
    (void)thread_join(&t);
    ASSERT_OK(w.rv);
    ASSERT_ERR(HS_E_BUSY, recv_frame(p.c, &line, op_in(10 * SECOND))); /* It is lent a frame. */
    hs_conn_frames_end(p.c, &w.op);
    expect_frame(p.c, &line, "part");
    pair_free(&p);
}
END_TEST

START_TEST(a_token_stops_who_waits_for_a_frame)
{
    struct pair p = pair_unix();
    struct waiting w = {.c = p.c, .f = &line};
    struct hs_token *token;
    struct thread t;

    ASSERT_OK(hs_token_new(NULL, 0, HS_NEVER, NULL, fresh(), &token));
    w.op = op_with(token);
    put(p.peer, "part", 4);
    thread_start(&t, wait_for_frame, &w);
    thread_wait_asleep(&t);
    ck_assert(hs_token_cancel(token, NULL, 0, NULL));
    (void)thread_join(&t);
    ASSERT_ERR(HS_E_CANCELLED, w.rv);
    put(p.peer, "\n", 1);
    expect_frame(p.c, &line, "part");
    hs_token_unref(token);
    pair_free(&p);
}
END_TEST

START_TEST(what_is_lent_outlives_a_close)
{
    struct pair p = pair_unix();
    struct hs_op op = op_in(10 * SECOND);
    int number = hs_conn_fileno(p.c);
    const uint8_t *data;
    size_t len;

    put(p.peer, "lent\n", 5);
    ASSERT_OK(DONE(hs_conn_recv_frames(p.c, &op, &line, fresh())));
    hs_conn_close(p.c, false);
    ck_assert(hs_conn_frame(p.c, &line, &data, &len));
    ck_assert_mem_eq(data, "lent", 4);
    ck_assert_int_ne(write(number, "x", 1), -1); /* still ours */
    hs_conn_frames_end(p.c, &op);
    ck_assert_int_eq(write(number, "x", 1), -1);
    pair_free(&p);
}
END_TEST

START_TEST(an_event_loop_steps_for_frames)
{
    struct pair p = pair_small();
    struct feeding f = {.fd = p.peer, .seed = 0};
    struct hs_op op = op_step(10 * SECOND);
    struct thread t;
    hs_err rv;

    thread_start(&t, feed_messages, &f);
    for (size_t i = 0; i < MESSAGES; i++) {
        struct hs_framing all = i % KINDS == 0 ? line : i % KINDS == 1 ? semicolon : prefix;
        size_t len = length_of(0, i);
        uint8_t bytes[4000];

        all.max_size = 5000;
        op = op_step(10 * SECOND);
        while ((rv = i % KINDS < 3
                         ? take_framed(p.c, &op, &all, i, len)
                         : DONE(hs_conn_recv_exactly(p.c, &op, bytes, len, fresh()))) == HS_WANT)
            wait_for_want(&op);
        ASSERT_OK(rv);
    }
    (void)thread_join(&t);
    pair_free(&p);
}
END_TEST

/* ---- Giving up ----------------------------------------------------------------------------- */

START_TEST(a_call_may_be_abandoned_in_every_state)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(10 * SECOND);
    const uint8_t *data;
    size_t len;

    ASSERT_ERR(HS_WANT, hs_conn_recv_frames(p.c, &op, &line, fresh())); /* nothing there */
    hs_conn_abandon(p.c, &op, NULL);
    put(p.peer, "ab", 2);
    op = op_step(10 * SECOND);
    ASSERT_ERR(HS_WANT, hs_conn_recv_frames(p.c, &op, &line, fresh())); /* a part */
    hs_conn_abandon(p.c, &op, NULL);
    hs_conn_abandon(p.c, &op, NULL);
    op = op_step(10 * SECOND);
    ASSERT_ERR(HS_WANT, hs_conn_peek(p.c, &op, 3, fresh()));
    hs_conn_abandon(p.c, &op, NULL);
    put(p.peer, "\ncd\n", 4);
    op = op_step(10 * SECOND);
    ASSERT_OK(hs_conn_recv_frames(p.c, &op, &line, fresh())); /* lent, not taken */
    ck_assert(hs_conn_frame(p.c, &line, &data, &len));
    hs_conn_abandon(p.c, &op, NULL);
    op = op_step(10 * SECOND);
    ASSERT_OK(hs_conn_peek(p.c, &op, 3, fresh()));
    hs_conn_abandon(p.c, &op, NULL);
    ck_assert(!info_of(p.c).poisoned_in);
    expect_frame(p.c, &line, "ab");
    expect_frame(p.c, &line, "cd");
    pair_free(&p);
}
END_TEST

START_TEST(a_skip_goes_on_after_it_was_abandoned)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(10 * SECOND);

    put_prefixed(p.peer, 200, "0123456789");
    ASSERT_ERR(HS_WANT, hs_conn_recv_frames(p.c, &op, &skipping, fresh()));
    ck_assert_uint_eq(info_of(p.c).buffered, 0);
    hs_conn_abandon(p.c, &op, NULL);
    for (int i = 0; i < 19; i++)
        put(p.peer, "0123456789", 10);
    put_prefixed(p.peer, 4, "next");
    ASSERT_ERR(HS_E_FRAME_TOO_LARGE, recv_frame(p.c, &skipping, op_in(10 * SECOND)));
    ck_assert_uint_eq(last_error()->oversize.size, 200);
    ck_assert_uint_eq(last_error()->oversize.discarded, 204);
    ck_assert_uint_eq(last_error()->oversize.limit, 100);
    ck_assert(last_error()->oversize.recoverable);
    expect_frame(p.c, &prefix, "next");
    pair_free(&p);
}
END_TEST

/* ---- Ends ---------------------------------------------------------------------------------- */

static const struct ending {
    const char *title, *bytes;
    const struct hs_framing *f; /* NULL: peek of 8 bytes */
    hs_err want;
    size_t want_left;
} endings[] = {
    {"between lines", "a\n", &line, HS_E_END, 0},
    {"in a line", "a\nb", &line, HS_E_TRUNCATED, 1},
    {"between separators", "a;;", &semicolon, HS_E_END, 0},
    {"in a separator", "a;;;", &semicolon, HS_E_TRUNCATED, 1},
    {"a CR that waits for its LF", "a\r\n\r", &strict, HS_E_TRUNCATED, 1},
    {"before a peek", "", NULL, HS_E_END, 0},
    {"in a peek", "abc", NULL, HS_E_TRUNCATED, 3},
};

START_TEST(an_end_between_frames_is_told_from_one_in_the_middle)
{
    const struct ending *e = &endings[_i];
    struct pair p = pair_tcp();
    struct hs_op op = op_in(10 * SECOND);
    hs_err rv;

    if (e->bytes[0] != '\0')
        put(p.peer, e->bytes, strlen(e->bytes));
    (void)shutdown(p.peer, SHUT_WR);
    if (e->bytes[0] != '\0' && e->f != NULL)
        expect_frame(p.c, e->f, "a");
    for (int i = 0; i < 2; i++) {
        rv = e->f != NULL ? recv_frame(p.c, e->f, op_in(10 * SECOND))
                          : DONE(hs_conn_peek(p.c, &op, 8, fresh()));
        ck_assert_msg(rv == e->want, "%s: %s", e->title, hs_err_text(rv));
        ck_assert_uint_eq(info_of(p.c).buffered, e->want_left);
    }
    ck_assert(!info_of(p.c).poisoned_in);
    pair_free(&p);
}
END_TEST

START_TEST(an_end_in_a_skipped_frame_is_truncation_and_counts_what_came)
{
    struct pair p = pair_unix();

    put_prefixed(p.peer, 200, "0123456789");
    (void)shutdown(p.peer, SHUT_WR);
    ASSERT_ERR(HS_E_TRUNCATED, recv_frame(p.c, &skipping, op_in(10 * SECOND)));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "14 bytes"));
    pair_free(&p);
}
END_TEST

/* ---- Frames that must not be --------------------------------------------------------------- */

static void
assert_reading_is_over(struct hs_conn *c)
{
    struct hs_op op = op_in(10 * SECOND);
    uint8_t bytes[4] = {0};
    size_t n;

    ck_assert(info_of(c).poisoned_in);
    ck_assert(!info_of(c).poisoned_out);
    ck_assert_uint_gt(info_of(c).buffered, 4);
    ASSERT_ERR(HS_E_POISONED, recv_frame(c, &line, op));
    ASSERT_ERR(HS_E_POISONED, recv_frame(c, &keeping, op));
    ASSERT_ERR(HS_WANT, hs_conn_try_frames(c, &line));
    ASSERT_ERR(HS_E_POISONED, hs_conn_recv(c, &op, bytes, 4, 0, fresh(), &n));
    ASSERT_ERR(HS_E_POISONED, hs_conn_recv_exactly(c, &op, bytes, 4, fresh()));
    ASSERT_ERR(HS_E_POISONED, hs_conn_peek(c, &op, 4, fresh()));
    ASSERT_OK(hs_conn_send_all(c, &op, bytes, 4, fresh()));
}

START_TEST(a_frame_that_is_too_large_ends_reading)
{
    struct pair p = pair_unix();

    put_prefixed(p.peer, 101, "good\nluck\n");
    ASSERT_ERR(HS_E_FRAME_TOO_LARGE, recv_frame(p.c, &prefix, op_in(10 * SECOND)));
    ck_assert_uint_eq(last_error()->oversize.size, 101);
    ck_assert(!last_error()->oversize.recoverable);
    ck_assert_str_eq(last_error()->op, "recv_frame");
    assert_reading_is_over(p.c);
    pair_free(&p);
}
END_TEST

START_TEST(a_malformed_frame_ends_reading)
{
    struct pair p = pair_unix();

    put(p.peer, "MAIL\nRCPT\r\n", 11);
    ASSERT_ERR(HS_E_BAD_FRAME, recv_frame(p.c, &strict, op_in(10 * SECOND)));
    assert_reading_is_over(p.c);
    pair_free(&p);
}
END_TEST

START_TEST(a_frame_that_is_kept_can_be_read_with_a_larger_limit)
{
    struct hs_framing larger = prefix;
    struct pair p = pair_unix();
    char text[102];

    larger.max_size = 101;
    memset(text, 'x', 101);
    text[101] = '\0';
    put_prefixed(p.peer, 101, text);
    for (int i = 0; i < 2; i++) {
        ASSERT_ERR(HS_E_FRAME_TOO_LARGE, recv_frame(p.c, &keeping, op_in(10 * SECOND)));
        ck_assert(last_error()->oversize.recoverable);
    }
    ck_assert(!info_of(p.c).poisoned_in);
    expect_frame(p.c, &larger, text);
    pair_free(&p);
}
END_TEST

enum { BY_FRAME, BY_RECV, BY_EXACTLY, BY_PEEK, WAYS };

static hs_err
read_somehow(struct hs_conn *c, int how)
{
    struct hs_op op = op_in(10 * SECOND);
    uint8_t bytes[4];
    size_t n;

    switch (how) {
    case BY_FRAME:
        return recv_frame(c, &line, op);
    case BY_RECV:
        return DONE(hs_conn_recv(c, &op, bytes, 4, 0, fresh(), &n));
    case BY_EXACTLY:
        return DONE(hs_conn_recv_exactly(c, &op, bytes, 4, fresh()));
    default:
        return DONE(hs_conn_peek(c, &op, 4, fresh()));
    }
}

/* The rest of it belongs to the stream: no call may take it for something else. */
START_TEST(a_frame_that_is_being_skipped_is_reported_to_whatever_reads_next)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(10 * SECOND);
    int fd;

    put_prefixed(p.peer, 103, "0123456789");
    ASSERT_ERR(HS_WANT, hs_conn_recv_frames(p.c, &op, &skipping, fresh()));
    hs_conn_abandon(p.c, &op, NULL);
    ASSERT_ERR(HS_E_BUSY, hs_conn_detach(p.c, fresh(), &fd));
    for (int i = 0; i < 9; i++)
        put(p.peer, "012345678\n", 10);
    put(p.peer, "xyznext\n", 8);
    ASSERT_ERR(HS_E_FRAME_TOO_LARGE, read_somehow(p.c, _i));
    ck_assert_uint_eq(last_error()->oversize.discarded, 107);
    ck_assert_uint_eq(last_error()->oversize.limit, 100);
    ck_assert(last_error()->oversize.recoverable);
    ck_assert(!info_of(p.c).poisoned_in);
    expect_frame(p.c, &line, "next");
    pair_free(&p);
}
END_TEST

START_TEST(more_than_may_be_skipped_ends_reading)
{
    const struct hs_framing few = LINES(.too_long = HS_TOO_LONG_SKIP, .max_skip = 120);
    struct pair p = pair_unix();

    for (int i = 0; i < 13; i++)
        put(p.peer, "0123456789", 10);
    ASSERT_ERR(HS_E_FRAME_TOO_LARGE, recv_frame(p.c, &few, op_in(10 * SECOND)));
    ck_assert(!last_error()->oversize.recoverable);
    ASSERT_ERR(HS_E_POISONED, recv_frame(p.c, &few, op_in(10 * SECOND)));
    pair_free(&p);
}
END_TEST

/* ---- The minimum rate ---------------------------------------------------------------------- */

static hs_err
step_for(struct pair *p, struct hs_op *op, int how, uint8_t *bytes)
{
    if (how == 0)
        return hs_conn_recv_frames(p->c, op, &line, fresh());
    return how == 1 ? hs_conn_recv_exactly(p->c, op, bytes, 8, fresh())
                    : hs_conn_peek(p->c, op, 8, fresh());
}

START_TEST(each_byte_of_a_message_buys_its_time)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(100 * SECOND);
    uint8_t bytes[8];
    int64_t first, second;

    hs_conn_set_min_rate(p.c, 10, 3 * SECOND);
    ASSERT_ERR(HS_WANT, step_for(&p, &op, _i, bytes));
    ck_assert_int_eq(op.want_at_ns, op.deadline_ns); /* It has not begun. */
    put(p.peer, "ab", 2);
    ASSERT_ERR(HS_WANT, step_for(&p, &op, _i, bytes));
    first = op.want_at_ns;
    ck_assert_int_le(first, hs_now() + 3 * SECOND + SECOND / 5);
    ck_assert_int_gt(first, hs_now() + SECOND);
    put(p.peer, "c", 1);
    ASSERT_ERR(HS_WANT, step_for(&p, &op, _i, bytes));
    second = op.want_at_ns;
    ck_assert_int_eq(second - first, SECOND / 10);
    hs_conn_set_min_rate(p.c, 0, 0);
    put(p.peer, "d", 1);
    ASSERT_ERR(HS_WANT, step_for(&p, &op, _i, bytes)); /* The minimum was lifted meanwhile. */
    ck_assert_int_eq(op.want_at_ns, op.deadline_ns);
    hs_conn_abandon(p.c, &op, _i == 1 ? bytes : NULL);
    expect_bytes(p.c, "abcd");
    pair_free(&p);
}
END_TEST

START_TEST(a_message_that_comes_too_slowly_ends_the_call_and_stays)
{
    struct pair p = pair_unix();
    struct hs_op again = op_step(100 * SECOND);
    int64_t before = hs_now();

    hs_conn_set_min_rate(p.c, 1000000, 20 * MS);
    put(p.peer, "slow", 4);
    ASSERT_ERR(HS_E_DEADLINE, recv_frame(p.c, &line, op_in(100 * SECOND)));
    ck_assert_int_lt(hs_now() - before, 50 * SECOND);
    ck_assert_str_eq(last_error()->phase, "min_rate");
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "1000000 bytes per second"));
    ASSERT_ERR(HS_E_DEADLINE, hs_conn_recv_frames(p.c, &again, &line, fresh()));
    put(p.peer, "ly\n", 3); /* What is there is taken, late or not. */
    expect_frame(p.c, &line, "slowly");
    again = op_step(100 * SECOND);
    ASSERT_ERR(HS_WANT, hs_conn_recv_frames(p.c, &again, &line, fresh()));
    ck_assert_int_eq(again.want_at_ns, again.deadline_ns);
    hs_conn_abandon(p.c, &again, NULL);
    pair_free(&p);
}
END_TEST

static const struct extreme {
    uint64_t rate;
    int64_t grace;
} extremes[] = {
    {1, HS_NEVER - 1}, {1, HS_NEVER}, {UINT64_MAX, HS_NEVER - 1}, {1, INT64_MIN}, {UINT64_MAX, 0},
};

START_TEST(no_rate_and_no_grace_overflows)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(100 * SECOND);
    hs_err rv;

    hs_conn_set_min_rate(p.c, extremes[_i].rate, extremes[_i].grace);
    put(p.peer, "abcd", 4);
    rv = hs_conn_recv_frames(p.c, &op, &line, fresh());
    ck_assert(rv == HS_WANT || rv == HS_E_DEADLINE);
    if (extremes[_i].grace > SECOND) {
        ASSERT_ERR(HS_WANT, rv);
        ck_assert_int_eq(op.want_at_ns, op.deadline_ns);
    }
    hs_pace_start(p.c, UINT64_MAX);
    ck_assert_int_gt(p.c->pace.until_ns, 0);
    p.c->pace.until_ns = HS_NEVER;
    hs_conn_abandon(p.c, &op, NULL);
    pair_free(&p);
}
END_TEST

/* Its time began with the first byte of another message, which nobody waited for in the end. */
START_TEST(taking_frames_that_were_there_starts_the_clock_anew)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(100 * SECOND);
    const uint8_t *data;
    size_t len;

    hs_conn_set_min_rate(p.c, 1, SECOND);
    put(p.peer, "a\nb\n", 4);
    ASSERT_ERR(HS_WANT, hs_conn_peek(p.c, &op, 100, fresh()));
    hs_conn_abandon(p.c, &op, NULL);
    ASSERT_OK(hs_conn_try_frames(p.c, &line));
    while (hs_conn_frame(p.c, &line, &data, &len))
        hs_conn_frame_taken(p.c);
    hs_conn_try_end(p.c);
    ck_assert_int_eq(p.c->pace.since_ns, 0);
    pair_free(&p);
}
END_TEST

START_TEST(a_skipped_frame_has_a_pace_too_and_the_next_one_its_own)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(100 * SECOND);
    uint8_t byte = 0;

    hs_conn_set_min_rate(p.c, 10, 3 * SECOND);
    put_prefixed(p.peer, 106, "0123456789");
    ASSERT_ERR(HS_WANT, hs_conn_recv_frames(p.c, &op, &skipping, fresh()));
    ck_assert_int_lt(op.want_at_ns, hs_now() + 10 * SECOND);
    ASSERT_OK(
        hs_conn_send_all(p.c, &(struct hs_op)HS_OP_INIT(HS_TRY_ONCE, NULL), &byte, 1, fresh()));
    ck_assert(!info_of(p.c).idle); /* A message is under way. */
    for (int i = 0; i < 8; i++)
        put(p.peer, "0123456789012", 12);
    ASSERT_ERR(HS_E_FRAME_TOO_LARGE, hs_conn_recv_frames(p.c, &op, &skipping, fresh()));
    ck_assert_int_eq(p.c->pace.since_ns, 0);
    pair_free(&p);
}
END_TEST

/* ---- Between two messages ------------------------------------------------------------------ */

START_TEST(idle_is_waiting_for_a_message_of_which_nothing_has_come)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(10 * SECOND), out = op_in(10 * SECOND);
    uint8_t byte = 0;

    ck_assert(!info_of(p.c).idle); /* Nobody waits. */
    ASSERT_ERR(HS_WANT, hs_conn_recv_frames(p.c, &op, &line, fresh()));
    ck_assert(info_of(p.c).idle);
    put(p.peer, "request", 7);
    ASSERT_ERR(HS_WANT, hs_conn_recv_frames(p.c, &op, &line, fresh()));
    ck_assert(!info_of(p.c).idle);
    put(p.peer, "\n", 1);
    ASSERT_OK(hs_conn_recv_frames(p.c, &op, &line, fresh()));
    hs_conn_frame_taken(p.c);
    hs_conn_frames_end(p.c, &op);
    op = op_step(10 * SECOND);
    ASSERT_ERR(HS_WANT, hs_conn_recv_frames(p.c, &op, &line, fresh()));
    ck_assert(!info_of(p.c).idle); /* It was asked and has not answered. */
    ASSERT_OK(hs_conn_send_all(p.c, &out, &byte, 1, fresh()));
    ck_assert(info_of(p.c).idle);
    hs_conn_abandon(p.c, &op, NULL);
    ck_assert(!info_of(p.c).idle);
    pair_free(&p);
}
END_TEST

START_TEST(a_forked_child_receives_no_frames)
{
    struct pair p = pair_unix();
    struct hs_op op = op_in(10 * SECOND);

    put(p.peer, "a\nb\n", 4);
    expect_frame(p.c, &line, "a");
    p.c->fd.generation++; /* as after a fork */
    ASSERT_ERR(HS_E_FORKED, recv_frame(p.c, &line, op));
    ASSERT_ERR(HS_WANT, hs_conn_try_frames(p.c, &line));
    p.c->fd.generation--;
    expect_frame(p.c, &line, "b");
    pair_free(&p);
}
END_TEST

/* ---- Lines as files read them -------------------------------------------------------------- */

static void
expect_read_line(struct hs_conn *c, size_t from, size_t limit, const char *want)
{
    struct hs_op op = op_in(10 * SECOND);
    size_t n;

    ASSERT_OK(DONE(hs_conn_read_line(c, &op, from, limit, fresh(), &n)));
    ck_assert_uint_eq(n, strlen(want));
    ck_assert_mem_eq(hs_conn_peeked(c), want, n);
    hs_conn_read_line_end(c, &op, n);
    ck_assert_uint_eq(op.claim, 0);
    ck_assert_uint_eq(info_of(c).buffered, hs_buf_len(&c->in.buf));
}

START_TEST(a_line_of_a_file_ends_at_its_end_at_a_limit_or_with_the_stream)
{
    struct pair p = pair_unix();

    put(p.peer, "one\ntwo\nthree\nfour\n\nfive six", 28);
    expect_read_line(p.c, 0, SIZE_MAX, "one\n");
    expect_read_line(p.c, 3, SIZE_MAX, "two\n");
    expect_read_line(p.c, 0, 6, "three\n");
    expect_read_line(p.c, 0, 3, "fou");
    expect_read_line(p.c, 2, SIZE_MAX, "r\n\n"); /* the first end behind */
    expect_read_line(p.c, 100, 5, "five ");
    (void)shutdown(p.peer, SHUT_WR);
    expect_read_line(p.c, SIZE_MAX, SIZE_MAX, "six");
    expect_read_line(p.c, 0, SIZE_MAX, "");
    pair_free(&p);
}
END_TEST

START_TEST(a_line_that_is_given_up_or_not_taken_is_there_for_the_next_call)
{
    struct pair p = pair_unix();
    struct hs_op op = op_in(MS);
    size_t n = 77;

    put(p.peer, "half a", 6);
    ASSERT_ERR(HS_E_DEADLINE, DONE(hs_conn_read_line(p.c, &op, 0, SIZE_MAX, fresh(), &n)));
    ck_assert_uint_eq(n, 77);
    ck_assert_uint_eq(op.claim, 0);
    op = op_step(10 * SECOND);
    ASSERT_ERR(HS_WANT, hs_conn_read_line(p.c, &op, 0, SIZE_MAX, fresh(), &n));
    ck_assert_uint_eq(op.done, 6); /* They are not looked at again. */
    put(p.peer, " line\nmore", 10);
    ASSERT_OK(DONE(hs_conn_read_line(p.c, &op, 0, SIZE_MAX, fresh(), &n)));
    ck_assert_uint_eq(n, 12);
    hs_conn_read_line_end(p.c, &op, 0);
    expect_read_line(p.c, 0, SIZE_MAX, "half a line\n");
    op = op_step(10 * SECOND);
    ASSERT_ERR(HS_WANT, hs_conn_read_line(p.c, &op, 0, SIZE_MAX, fresh(), &n));
    hs_conn_abandon(p.c, &op, NULL);
    expect_bytes(p.c, "more");
    pair_free(&p);
}
END_TEST

static void
expect_line_at_once(struct hs_conn *c, size_t limit, const char *want)
{
    size_t n;

    ASSERT_OK(hs_conn_try_line(c, limit, &n));
    ck_assert_uint_eq(n, strlen(want));
    ck_assert_mem_eq(hs_conn_peeked(c), want, n);
    hs_conn_try_line_end(c, n);
    ck_assert_uint_eq(info_of(c).buffered, hs_buf_len(&c->in.buf));
}

static void
expect_no_line_at_once(struct hs_conn *c)
{
    size_t n = 77;

    ASSERT_ERR(HS_WANT, hs_conn_try_line(c, SIZE_MAX, &n));
    ck_assert_uint_eq(n, 77);
}

START_TEST(a_line_that_is_there_is_taken_at_once_and_no_other)
{
    struct pair p = pair_unix();
    size_t n;

    expect_no_line_at_once(p.c);
    put(p.peer, "one\ntwo\nthree\nfour", 18);
    expect_no_line_at_once(p.c); /* It does not ask the kernel. */
    expect_read_line(p.c, 0, SIZE_MAX, "one\n");
    expect_line_at_once(p.c, SIZE_MAX, "two\n");
    expect_line_at_once(p.c, 3, "thr");
    ASSERT_OK(hs_conn_try_line(p.c, SIZE_MAX, &n));
    hs_conn_try_line_end(p.c, 0); /* no memory for it */
    expect_line_at_once(p.c, SIZE_MAX, "ee\n");
    expect_no_line_at_once(p.c);
    expect_line_at_once(p.c, 4, "four");
    pair_free(&p);
}
END_TEST

START_TEST(what_would_refuse_a_call_that_reads_a_line_is_left_to_the_call)
{
    struct pair p = pair_unix();
    struct hs_op op = op_step(10 * SECOND);
    size_t n;

    put(p.peer, "a\nb\nc", 5);
    expect_read_line(p.c, 0, SIZE_MAX, "a\n");
    p.c->fd.generation++; /* as after a fork */
    expect_no_line_at_once(p.c);
    p.c->fd.generation--;
    hs_conn_set_deadline(p.c, HS_DIR_IN, hs_now() + 3600 * SECOND);
    expect_no_line_at_once(p.c);
    hs_conn_set_deadline(p.c, HS_DIR_IN, HS_NEVER);
    ASSERT_ERR(HS_WANT, hs_conn_read_line(p.c, &op, 100, SIZE_MAX, fresh(), &n));
    expect_no_line_at_once(p.c); /* Another call reads. */
    hs_conn_abandon(p.c, &op, NULL);
    hs_conn_lost_input(p.c);
    expect_no_line_at_once(p.c);
    ck_assert_uint_eq(info_of(p.c).buffered, 3);
    hs_conn_close(p.c, true);
    expect_no_line_at_once(p.c);
    pair_free(&p);
}
END_TEST

static void
add_ends(TCase *tc)
{
    tcase_add_loop_test(tc, an_end_between_frames_is_told_from_one_in_the_middle, 0,
                        LENGTH(endings));
    tcase_add_test(tc, an_end_in_a_skipped_frame_is_truncation_and_counts_what_came);
    tcase_add_test(tc, a_frame_that_is_too_large_ends_reading);
    tcase_add_test(tc, a_malformed_frame_ends_reading);
    tcase_add_test(tc, a_frame_that_is_kept_can_be_read_with_a_larger_limit);
    tcase_add_loop_test(tc, a_frame_that_is_being_skipped_is_reported_to_whatever_reads_next, 0,
                        WAYS);
    tcase_add_test(tc, more_than_may_be_skipped_ends_reading);
}

int
main(void)
{
    TCase *tc = case_new("conn_frame");

    tcase_add_loop_test(tc, all_calls_share_one_buffer, 0, 2);
    tcase_add_loop_test(tc, any_mixture_of_calls_with_any_deadlines_loses_nothing, 0, 5);
    tcase_add_test(tc, a_deadline_in_mid_frame_keeps_every_byte_and_the_place_of_the_search);
    tcase_add_test(tc, memory_follows_what_arrived_not_what_a_header_claims);
    tcase_add_test(tc, many_frames_are_taken_in_one_call_and_no_more_than_wanted);
    tcase_add_loop_test(tc, closing_wakes_who_waits_for_a_frame, 0, 2);
    tcase_add_test(tc, a_second_reader_is_busy_while_one_waits_for_a_frame);
    tcase_add_test(tc, a_token_stops_who_waits_for_a_frame);
    tcase_add_test(tc, what_is_lent_outlives_a_close);
    tcase_add_test(tc, an_event_loop_steps_for_frames);
    tcase_add_test(tc, a_call_may_be_abandoned_in_every_state);
    tcase_add_test(tc, a_skip_goes_on_after_it_was_abandoned);
    add_ends(tc);
    tcase_add_loop_test(tc, each_byte_of_a_message_buys_its_time, 0, 3);
    tcase_add_test(tc, a_message_that_comes_too_slowly_ends_the_call_and_stays);
    tcase_add_loop_test(tc, no_rate_and_no_grace_overflows, 0, LENGTH(extremes));
    tcase_add_test(tc, taking_frames_that_were_there_starts_the_clock_anew);
    tcase_add_test(tc, a_skipped_frame_has_a_pace_too_and_the_next_one_its_own);
    tcase_add_test(tc, idle_is_waiting_for_a_message_of_which_nothing_has_come);
    tcase_add_test(tc, a_forked_child_receives_no_frames);
    tcase_add_test(tc, a_line_of_a_file_ends_at_its_end_at_a_limit_or_with_the_stream);
    tcase_add_test(tc, a_line_that_is_given_up_or_not_taken_is_there_for_the_next_call);
    tcase_add_test(tc, a_line_that_is_there_is_taken_at_once_and_no_other);
    tcase_add_test(tc, what_would_refuse_a_call_that_reads_a_line_is_left_to_the_call);
    return run_case(tc);
}
