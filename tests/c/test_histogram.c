/* test_histogram.c: counters between fixed edges.
 *
 * What one thread adds is compared to the bucket; what many add at once, to their sum.
 */
#include "support.h"

#include "../../csrc/base/histogram.h"

#define ROUNDS 20000
#define ADDERS 4

static struct hs_fixed_counts
counts(const struct hs_fixed_histogram *h)
{
    struct hs_fixed_counts c;

    hs_fixed_histogram_read(h, &c);
    return c;
}

/* Beside each edge: what is equal to it belongs below it, as Prometheus' "le" has it. */
static void
check_table(enum hs_edges edges, int64_t first, int64_t last)
{
    struct hs_fixed_histogram *h;
    struct hs_fixed_counts c;
    uint64_t sum = 0;

    ASSERT_OK(hs_fixed_histogram_new(edges, fresh(), &h));
    c = counts(h);
    ck_assert_uint_eq(c.count, 0);
    ck_assert_uint_lt(c.n_edges, HS_FIXED_BUCKETS_MAX);
    ck_assert_int_eq(c.edges_ns[0], first);
    ck_assert_int_eq(c.edges_ns[c.n_edges - 1], last);
    for (size_t i = 0; i < c.n_edges; i++) {
        ck_assert(i == 0 || c.edges_ns[i] > c.edges_ns[i - 1]);
        hs_fixed_histogram_add(h, c.edges_ns[i]);
        hs_fixed_histogram_add(h, c.edges_ns[i] + 1);
        sum += 2 * (uint64_t)c.edges_ns[i] + 1;
    }
    c = counts(h);
    ck_assert_uint_eq(c.buckets[0], 1);
    for (size_t i = 1; i < c.n_edges; i++)
        ck_assert_uint_eq(c.buckets[i], 2);
    ck_assert_uint_eq(c.buckets[c.n_edges], 1);
    ck_assert_uint_eq(c.count, 2 * c.n_edges);
    ck_assert_uint_eq(c.sum_ns, sum);
    hs_fixed_histogram_free(h);
}

START_TEST(each_value_is_in_the_bucket_whose_edge_it_does_not_exceed)
{
    check_table(HS_EDGES_DELAY, 10000, 10 * SECOND);
    check_table(HS_EDGES_SPAN, 100000, 86400 * SECOND);
}
END_TEST

START_TEST(time_that_ran_backwards_counts_as_none)
{
    struct hs_fixed_histogram *h;

    ASSERT_OK(hs_fixed_histogram_new(HS_EDGES_DELAY, fresh(), &h));
    hs_fixed_histogram_add(h, -SECOND);
    hs_fixed_histogram_add(h, INT64_MIN);
    hs_fixed_histogram_add(h, INT64_MAX);
    ck_assert_uint_eq(counts(h).buckets[0], 2);
    ck_assert_uint_eq(counts(h).buckets[counts(h).n_edges], 1);
    ck_assert_uint_eq(counts(h).sum_ns, INT64_MAX);
    hs_fixed_histogram_free(h);
    hs_fixed_histogram_free(NULL);
}
END_TEST

static void *
add_rounds(void *arg)
{
    for (int64_t i = 0; i < ROUNDS; i++)
        hs_fixed_histogram_add(arg, i % 3 * 20000);
    return NULL;
}

START_TEST(nothing_that_many_threads_add_is_lost)
{
    struct thread adders[ADDERS];
    struct hs_fixed_histogram h;
    struct hs_fixed_counts last = {0}, c;

    hs_fixed_histogram_init(&h, HS_EDGES_DELAY);
    for (size_t i = 0; i < ADDERS; i++)
        thread_start(&adders[i], add_rounds, &h);
    do {
        c = counts(&h);
        ck_assert_uint_ge(c.count, last.count);
        ck_assert_uint_ge(c.sum_ns, last.sum_ns);
        last = c;
    } while (c.count < ADDERS * ROUNDS);
    for (size_t i = 0; i < ADDERS; i++)
        (void)thread_join(&adders[i]);
    c = counts(&h);
    ck_assert_uint_eq(c.count, ADDERS * ROUNDS);
    /* 0, 20 and 40 us, in turn. */
    ck_assert_uint_eq(c.buckets[0], ADDERS * ((ROUNDS + 2) / 3));
    ck_assert_uint_eq(c.buckets[1], ADDERS * ((ROUNDS + 1) / 3));
    ck_assert_uint_eq(c.buckets[2], ADDERS * (ROUNDS / 3));
    ck_assert_uint_eq(c.sum_ns, 20000 * c.buckets[1] + 40000 * c.buckets[2]);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("histogram");

    tcase_add_test(tc, each_value_is_in_the_bucket_whose_edge_it_does_not_exceed);
    tcase_add_test(tc, time_that_ran_backwards_counts_as_none);
    tcase_add_test(tc, nothing_that_many_threads_add_is_lost);
    return run_case(tc);
}
