/* test_wire_line.c: the lab's wire, one direction of it: fates, order, rates, and that no packet is
 * forgotten. Time is what the test says it is.
 */
#include "support.h"

#include "../../lab/wire/line.c"

#define LEN 100

static struct line
line_with(uint64_t seed, struct settings s)
{
    struct line l;

    line_init(&l, seed);
    if (s.burst < 1)
        s.burst = 1;
    l.set = s;
    return l;
}

static void
put_numbered(struct line *l, uint32_t number, int64_t now)
{
    uint8_t data[LEN] = {0};

    memcpy(data, &number, sizeof(number));
    line_put(l, data, sizeof(data), 0, now);
}

/* -1: none is due. */
static int64_t
take_number(struct line *l, int64_t now)
{
    struct packet *p = line_take(l, now);
    uint32_t number;

    if (p == NULL)
        return -1;
    memcpy(&number, p->data, sizeof(number));
    free(p);
    return number;
}

/* The invariant of line.h, at any moment. */
static void
assert_all_are_known(const struct line *l)
{
    const struct counts *c = &l->counts;

    ck_assert_uint_eq(c->got + c->doubled,
                      c->lost + c->full + c->cut + c->overflow + l->n + c->taken);
}

START_TEST(plain_line_gives_at_once_and_in_order)
{
    struct line l = line_with(1, (struct settings){0});

    for (uint32_t i = 0; i < 100; i++)
        put_numbered(&l, i, 5);
    for (uint32_t i = 0; i < 100; i++)
        ck_assert_int_eq(take_number(&l, 5), i);
    ck_assert_int_eq(take_number(&l, INT64_MAX), -1);
    assert_all_are_known(&l);
    line_fini(&l);
}
END_TEST

START_TEST(delay_is_neither_less_nor_more)
{
    struct line l = line_with(1, (struct settings){.delay = 0.05});

    put_numbered(&l, 0, 1000);
    ck_assert_int_eq(line_due(&l), 1000 + 50 * MS);
    ck_assert_int_eq(take_number(&l, 1000 + 50 * MS - 1), -1);
    ck_assert_int_eq(take_number(&l, 1000 + 50 * MS), 0);
    ck_assert_int_eq(l.counts.late_max_ns, 0);
    line_fini(&l);
}
END_TEST

START_TEST(jitter_keeps_the_order_and_its_bounds)
{
    struct line l = line_with(3, (struct settings){.delay = 0.05, .jitter = 0.04});
    int64_t least = INT64_MAX, most = 0, last = 0;

    for (uint32_t i = 0; i < 2000; i++)
        put_numbered(&l, i, i * 10 * MS);
    for (uint32_t i = 0; i < 2000; i++) {
        int64_t due = line_due(&l), took = due - i * 10 * MS;

        ck_assert_int_ge(due, last);
        last = due;
        least = took < least ? took : least;
        most = took > most ? took : most;
        ck_assert_int_eq(take_number(&l, due), i);
    }
    ck_assert_int_ge(least, 10 * MS);
    ck_assert_int_le(least, 30 * MS); /* Nobody overtakes, so the early ones wait. */
    ck_assert_int_le(most, 90 * MS);
    ck_assert_int_ge(most, 87 * MS);
    line_fini(&l);
}
END_TEST

/* 100,000 packets at 15 %: five standard deviations are 565. In bursts they are wider by about the
 * root of twice the burst. */
START_TEST(losses_are_as_many_as_asked_for)
{
    static const struct {
        double burst;
        uint64_t within, want_least_longest;
    } rows[] = {{1, 565, 3}, {5, 1800, 20}};
    struct line l = line_with(7, (struct settings){.loss = 0.15, .burst = rows[_i].burst});
    uint64_t longest = 0, row = 0, bursts = 0;

    for (uint32_t i = 0; i < 100000; i++) {
        uint64_t before = l.counts.lost;

        put_numbered(&l, i, 0);
        bursts += row == 0 && l.counts.lost > before;
        row = l.counts.lost > before ? row + 1 : 0;
        longest = row > longest ? row : longest;
        free(line_take(&l, 0));
    }
    ck_assert_uint_ge(l.counts.lost, 15000 - rows[_i].within);
    ck_assert_uint_le(l.counts.lost, 15000 + rows[_i].within);
    ck_assert_uint_ge(longest, rows[_i].want_least_longest);
    if (rows[_i].burst > 1)
        ck_assert_uint_le(bursts, l.counts.lost / 4);
    assert_all_are_known(&l);
    line_fini(&l);
}
END_TEST

static uint64_t
fates(uint64_t seed, struct settings s, struct settings later)
{
    struct line l = line_with(seed, s);
    uint64_t set = 0;

    for (uint32_t i = 0; i < 64; i++) {
        uint64_t before = l.counts.lost;

        if (i == 32)
            l.set = later;
        put_numbered(&l, i, 0);
        set |= (l.counts.lost - before) << i;
    }
    line_fini(&l);
    return set;
}

/* Also of those that come after another setting was changed. */
START_TEST(seed_decides_each_packets_fate)
{
    struct settings half = {.loss = 0.5, .burst = 1}, more = half;
    uint64_t once = fates(7, half, half);

    more.corrupt = more.duplicate = 0.5;
    ck_assert_uint_eq(fates(7, half, half), once);
    ck_assert_uint_eq(fates(7, half, more), once);
    ck_assert_uint_ne(fates(8, half, half), once);
    more.loss = 0;
    ck_assert_uint_eq(fates(7, half, more), once & UINT64_C(0xffffffff));
}
END_TEST

START_TEST(packet_that_falls_back_is_overtaken)
{
    struct line l = line_with(2, (struct settings){.reorder = 0.2, .gap = 0.01, .delay = 0.001});
    uint64_t early = 0;
    int64_t most = -1;

    for (uint32_t i = 0; i < 1000; i++)
        put_numbered(&l, i, i * MS);
    while (l.n > 0) {
        int64_t number = take_number(&l, line_due(&l));

        early += number < most;
        most = number > most ? number : most;
    }
    ck_assert_uint_ge(l.counts.reordered, 140);
    ck_assert_uint_le(l.counts.reordered, 260);
    ck_assert_uint_ge(early, l.counts.reordered - 12); /* The last ones have nobody behind them. */
    line_fini(&l);
}
END_TEST

START_TEST(doubled_packets_come_twice_and_corrupted_ones_differ_in_one_bit)
{
    struct line l = line_with(2, (struct settings){.duplicate = 1, .corrupt = 1});
    uint8_t sent[LEN] = {0};

    for (int i = 0; i < 100; i++)
        line_put(&l, sent, sizeof(sent), 14, 0);
    ck_assert_uint_eq(l.n, 200);
    while (l.n > 0) {
        struct packet *p = line_take(&l, 0);
        int bits = 0;

        for (size_t i = 0; i < LEN; i++) {
            bits += __builtin_popcount(p->data[i]);
            ck_assert(i >= 14 + SPARED || p->data[i] == 0);
        }
        ck_assert_int_eq(bits, 1);
        free(p);
    }
    ck_assert_uint_eq(l.counts.corrupted, 200);
    assert_all_are_known(&l);
    line_fini(&l);
}
END_TEST

/* 100 bytes at 800,000 bit/s take a millisecond each; three fit in the queue. */
START_TEST(rate_spaces_packets_and_its_queue_overflows)
{
    struct line l = line_with(1, (struct settings){.rate = 800000, .queue = 300});

    for (uint32_t i = 0; i < 10; i++)
        put_numbered(&l, i, 0);
    ck_assert_uint_eq(l.counts.full, 7);
    for (int64_t i = 0; i < 3; i++) {
        ck_assert_int_eq(line_due(&l), (i + 1) * MS);
        ck_assert_int_eq(take_number(&l, line_due(&l)), i);
    }
    put_numbered(&l, 10, 100 * MS); /* The line has been idle since. */
    ck_assert_int_eq(line_due(&l), 101 * MS);
    assert_all_are_known(&l);
    line_fini(&l);
}
END_TEST

START_TEST(cut_line_lets_through_what_is_on_its_way)
{
    struct line l = line_with(1, (struct settings){.delay = 0.05});

    put_numbered(&l, 0, 0);
    l.set.down = true;
    put_numbered(&l, 1, 1);
    l.set.down = false;
    put_numbered(&l, 2, 2);
    ck_assert_int_eq(take_number(&l, SECOND), 0);
    ck_assert_int_eq(take_number(&l, SECOND), 2);
    ck_assert_uint_eq(l.counts.cut, 1);
    assert_all_are_known(&l);
    line_fini(&l);
}
END_TEST

START_TEST(lateness_is_told_by_share)
{
    struct line l = line_with(1, (struct settings){.delay = 0.001});

    for (uint32_t i = 0; i < 1000; i++) {
        put_numbered(&l, i, i * 10 * MS);
        ck_assert_int_eq(take_number(&l, line_due(&l) + (i < 995 ? 1000 : 5 * MS)), i);
    }
    ck_assert_int_eq(line_late_ns(&l.counts, 0.99), LATE_BUCKET_NS);
    ck_assert_int_ge(line_late_ns(&l.counts, 0.999), 5 * MS);
    ck_assert_int_le(line_late_ns(&l.counts, 0.999), 5 * MS + 2 * LATE_BUCKET_NS);
    put_numbered(&l, 0, 0);
    ck_assert_int_eq(take_number(&l, 3600 * SECOND), 0);
    ck_assert_int_ge(l.counts.late_max_ns, 3500 * SECOND);
    line_fini(&l);
}
END_TEST

START_TEST(settings_have_names)
{
    struct settings s = {0};

    ck_assert(line_set(&s, "delay", 0.5) && s.delay > 0.4);
    ck_assert(line_set(&s, "down", 1) && s.down);
    ck_assert(!line_set(&s, "dela", 1));
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("wire_line");

    tcase_add_test(tc, plain_line_gives_at_once_and_in_order);
    tcase_add_test(tc, delay_is_neither_less_nor_more);
    tcase_add_test(tc, jitter_keeps_the_order_and_its_bounds);
    tcase_add_loop_test(tc, losses_are_as_many_as_asked_for, 0, 2);
    tcase_add_test(tc, seed_decides_each_packets_fate);
    tcase_add_test(tc, packet_that_falls_back_is_overtaken);
    tcase_add_test(tc, doubled_packets_come_twice_and_corrupted_ones_differ_in_one_bit);
    tcase_add_test(tc, rate_spaces_packets_and_its_queue_overflows);
    tcase_add_test(tc, cut_line_lets_through_what_is_on_its_way);
    tcase_add_test(tc, lateness_is_told_by_share);
    tcase_add_test(tc, settings_have_names);
    return run_case(tc);
}
