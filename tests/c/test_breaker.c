/* test_breaker.c: what opens a breaker, for how long, who may probe, what closes it again.
 *
 * Time is a number here, so every story is told in one go. The stories of one key are scripts:
 *
 *     +30         thirty seconds pass
 *     refused     a permit is granted and reported as that class (see hs_fail_name)
 *     hold        a permit is granted and kept
 *     tell:reset  the permit kept for longest is reported
 *     no          a permit is refused
 *     open        that is the state now
 */
#include "support.h"

#include "connect/breaker.h"
#include "connect/breaker_entry.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define START (1000 * SECOND)
#define MAX_HELD 8

static struct hs_breaker_options
plain(void)
{
    struct hs_breaker_options o;

    hs_breaker_options_init(&o);
    o.jitter_permille = 0;
    o.seed = 1;
    return o;
}

static struct hs_breaker *
breaker(const struct hs_breaker_options *o)
{
    struct hs_breaker *b;

    ASSERT_OK(hs_breaker_new(o, fresh(), &b));
    return b;
}

static struct hs_breaker_key
key_of(const char *text)
{
    struct hs_breaker_key key;

    ASSERT_OK(hs_breaker_key_parse(text, strlen(text), fresh(), &key));
    return key;
}

static enum hs_fail
class_named(const char *name)
{
    for (int i = 0; i < HS_FAIL_CLASSES; i++)
        if (strcmp(hs_fail_name((enum hs_fail)i), name) == 0)
            return (enum hs_fail)i;
    ck_abort_msg("no class %s", name);
    return HS_FAIL_CLASSES;
}

static bool
is_state(const char *word)
{
    return strcmp(word, "closed") == 0 || strcmp(word, "open") == 0 ||
           strcmp(word, "half_open") == 0;
}

static enum hs_breaker_state
state_at(struct hs_breaker *b, const struct hs_breaker_key *key, int64_t now)
{
    struct hs_breaker_status all[128];
    size_t n = hs_breaker_states(b, now, all, LENGTH(all));

    ck_assert_uint_le(n, LENGTH(all));

    for (size_t i = 0; i < n; i++)
        if (memcmp(&all[i].key, key, sizeof(*key)) == 0)
            return all[i].state;
    return HS_BREAKER_CLOSED;
}

struct story {
    struct hs_breaker *b;
    struct hs_breaker_key key;
    int64_t now;
    struct hs_permit held[MAX_HELD];
    size_t first, n;
};

static void
step(struct story *s, const char *word, const char *script)
{
    struct hs_permit permit;

    if (word[0] == '+') {
        s->now += (int64_t)(atof(word + 1) * 1e9);
    } else if (is_state(word)) {
        const char *is = hs_breaker_state_name(state_at(s->b, &s->key, s->now));

        ck_assert_msg(strcmp(is, word) == 0, "%s: is %s, want %s", script, is, word);
    } else if (strncmp(word, "tell:", 5) == 0) {
        ck_assert_uint_lt(s->first, s->n);
        hs_breaker_record(s->b, &s->key, &s->held[s->first++], class_named(word + 5), s->now);
    } else {
        enum hs_breaker_state state = hs_breaker_permit(s->b, &s->key, s->now, &permit);
        bool wanted = strcmp(word, "no") != 0;

        ck_assert_msg((state != HS_BREAKER_OPEN) == wanted, "%s: at %s", script, word);
        if (!wanted)
            ck_assert_int_gt(permit.retry_ns, s->now);
        else if (strcmp(word, "hold") == 0)
            s->held[s->n++] = permit;
        else
            hs_breaker_record(s->b, &s->key, &permit, class_named(word), s->now);
    }
}

static void
tell(const char *key, const struct hs_breaker_options *o, const char *script)
{
    struct story s = {.b = breaker(o), .key = key_of(key), .now = START};
    char *copy = strdup(script), *rest = NULL;

    for (char *word = strtok_r(copy, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
        step(&s, word, script);
    free(copy);
    hs_breaker_unref(s.b);
}

START_TEST(stories_of_failures_in_a_row)
{
    static const char *const scripts[] = {
        "closed success closed",
        /* five in a row, 30 seconds */
        "refused refused refused refused closed refused open no +29.9 no open +0.1 half_open",
        "refused reset timeout unreachable closed application open",
        /* a success begins the row anew */
        "refused refused refused refused success refused refused refused refused closed refused "
        "open",
        /* one reset does not open, a bad certificate does */
        "reset closed",
        "tls_certificate open",
        "success tls_version open",
        "tls_other closed",
        /* cancels and local limits are no failures, nor do they end a row */
        "not_counted not_counted not_counted not_counted not_counted not_counted closed",
        "refused refused not_counted refused refused not_counted closed refused open",
        /* a deadline that was too near says nothing, one that left a second does */
        "hold +0.9 tell:deadline hold +0.9 tell:deadline hold +0.9 tell:deadline hold +0.9 "
        "tell:deadline hold +0.9 tell:deadline closed",
        "hold +1 tell:deadline hold +1 tell:deadline hold +1 tell:deadline hold +1 tell:deadline "
        "closed hold +1 tell:deadline open",
    };
    struct hs_breaker_options o = plain();

    for (size_t i = 0; i < LENGTH(scripts); i++)
        tell("192.0.2.1:80", &o, scripts[i]);
}
END_TEST

START_TEST(stories_of_probes)
{
    static const char *const scripts[] = {
        /* one at a time; a success closes */
        "tls_certificate +30 half_open hold no no tell:success closed success",
        /* a failure opens, for twice as long */
        "tls_certificate +30 refused open +59.9 no +0.1 half_open",
        "tls_certificate +30 refused +60 refused +119.9 no +0.1 refused +239.9 no +0.1 refused "
        "+299.9 no +0.1 refused +299.9 no +0.1 half_open",
        /* whose holder cancelled: the permit is back, nothing else has changed */
        "tls_certificate +30 hold no tell:not_counted half_open hold no tell:success closed",
        "tls_certificate +30 hold +0.5 tell:deadline half_open success closed",
        "tls_certificate +30 hold +1 tell:deadline open",
        /* whose holder never reports: after ten seconds somebody else may */
        "tls_certificate +30 hold +9.9 no +0.1 hold no tell:success closed",
        /* that came in too late to be the only one, but is still about the same state */
        "tls_certificate +30 hold +10 hold tell:refused open tell:success open",
        "tls_certificate +30 hold +10 hold tell:success closed tell:refused closed refused refused "
        "refused refused closed refused open",
        /* from before it opened: no news */
        "hold hold tls_certificate open tell:success open tell:refused +29.9 no +0.1 half_open",
        "hold tls_certificate +30 half_open tell:success half_open hold no",
        /* well for as long as it was open: forgiven; otherwise not */
        "tls_certificate +30 success +30 tls_certificate +29.9 no +0.1 half_open",
        "tls_certificate +30 success +29 tls_certificate +59.9 no +0.1 half_open",
        "tls_certificate +30 refused +60 success +59 reset tls_certificate +119.9 no +0.1 "
        "half_open",
    };
    struct hs_breaker_options o = plain();

    for (size_t i = 0; i < LENGTH(scripts); i++)
        tell("[2001:db8::1]:443", &o, scripts[i]);
}
END_TEST

START_TEST(several_probes_and_several_successes)
{
    struct hs_breaker_options o = plain();

    o.probes = 2;
    o.successes = 3;
    tell("db", &o,
         "tls_certificate +30 hold hold no tell:success half_open tell:success "
         "half_open hold tell:success closed");
    tell("db", &o,
         "tls_certificate +30 hold hold tell:success tell:refused open +60 half_open "
         "success success half_open success closed");
}
END_TEST

START_TEST(stories_of_rates)
{
    struct hs_breaker_options o = plain();

    o.failures = 0;
    o.rate_permille = 500;
    o.min_calls = 4;
    o.window_ns = 10 * SECOND;
    /* the first failure begins the window: what never failed is not counted */
    tell("db", &o, "success success refused success refused closed refused open");
    tell("db", &o, "refused refused refused closed refused open");
    tell("db", &o, "refused success success success success refused refused closed refused open");
    /* what is older than the window has no weight */
    tell("db", &o, "refused refused refused +10 refused closed refused refused refused open");
    tell("db", &o, "refused +4 refused +4 refused +4 refused closed");
    /* after closing it begins anew */
    tell("db", &o,
         "refused refused refused refused +30 success refused refused refused closed refused open");
    tell("db", &o, "tls_certificate open"); /* at once, whatever the rate */
    o.rate_permille = 1000;
    tell("db", &o, "refused success refused refused refused refused refused refused closed");
}
END_TEST

START_TEST(a_listener_is_not_opened_by_one_stranger)
{
    static const char *const scripts[] = {
        "tls_version tls_certificate tls_version tls_other closed tls_certificate open +30 success "
        "closed",
        /* who is silent, gone or broken says nothing about us */
        "reset reset reset reset reset reset timeout timeout timeout timeout timeout timeout "
        "closed",
    };
    struct hs_breaker_options o = plain();

    for (size_t i = 0; i < LENGTH(scripts); i++)
        tell("listener 127.0.0.1:443", &o, scripts[i]);
}
END_TEST

START_TEST(a_dry_run_refuses_nothing_and_tells_what_it_would_have)
{
    struct hs_breaker_options o = plain();
    struct hs_breaker_key key = key_of("db");
    struct hs_breaker_stats stats;
    struct hs_permit permit;
    struct hs_breaker *b;

    o.dry_run = true;
    tell("db", &o,
         "tls_certificate open hold tell:success open refused open +30 half_open "
         "hold hold tell:success closed tell:refused closed");
    b = breaker(&o);
    ck_assert_int_eq(hs_breaker_permit(b, &key, START, &permit), HS_BREAKER_CLOSED);
    ck_assert(!permit.would_refuse);
    hs_breaker_record(b, &key, &permit, HS_FAIL_TLS_CERTIFICATE, START);
    ck_assert_int_eq(hs_breaker_permit(b, &key, START, &permit), HS_BREAKER_CLOSED);
    ck_assert(permit.would_refuse);
    hs_breaker_record(b, &key, &permit, HS_FAIL_NONE, START);
    hs_breaker_stats(b, START, &stats);
    ck_assert_uint_eq(stats.permitted, 1);
    ck_assert_uint_eq(stats.would_refuse, 1);
    ck_assert_uint_eq(stats.refused, 0);
    ck_assert_uint_eq(stats.opened, 1);
    ck_assert_uint_eq(stats.keys_open, 1);
    hs_breaker_unref(b);
}
END_TEST

static void
fail_with(struct hs_breaker *b, const char *text, enum hs_fail fail, int64_t now)
{
    struct hs_breaker_key key = key_of(text);
    struct hs_permit permit;

    ck_assert_int_ne(hs_breaker_permit(b, &key, now, &permit), HS_BREAKER_OPEN);
    hs_breaker_record(b, &key, &permit, fail, now);
}

START_TEST(the_open_time_is_jittered_and_never_longer_than_asked)
{
    struct hs_breaker_options o = plain();
    int64_t shortest = HS_NEVER, longest = 0;

    o.jitter_permille = 200;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct hs_breaker_status status;
        struct hs_breaker *b;
        int64_t span;

        o.seed = seed;
        b = breaker(&o);
        fail_with(b, "db", HS_FAIL_TLS_CERTIFICATE, START);
        ck_assert_uint_eq(hs_breaker_states(b, START, &status, 1), 1);
        span = status.retry_ns - status.opened_ns;
        ck_assert_int_ge(span, 24 * SECOND);
        ck_assert_int_le(span, 30 * SECOND);
        shortest = span < shortest ? span : shortest;
        longest = span > longest ? span : longest;
        hs_breaker_unref(b);
    }
    /* Of 200 draws over 6 s the extremes lie within half a second of the ends but once in 10^7. */
    ck_assert_int_lt(shortest, 24 * SECOND + SECOND / 2);
    ck_assert_int_gt(longest, 30 * SECOND - SECOND / 2);
}
END_TEST

START_TEST(unequal_seeds_are_chosen_and_an_endless_open_time_ends_never)
{
    struct hs_breaker_options o = plain();
    struct hs_breaker_status status[2];
    struct hs_breaker *b[2];

    o.seed = 0;
    o.jitter_permille = 1000;
    for (int i = 0; i < 2; i++) {
        b[i] = breaker(&o);
        fail_with(b[i], "db", HS_FAIL_TLS_CERTIFICATE, START);
        (void)hs_breaker_states(b[i], START, &status[i], 1);
    }
    ck_assert_int_ne(status[0].retry_ns, status[1].retry_ns);
    for (int i = 0; i < 2; i++)
        hs_breaker_unref(b[i]);
    o.open_ns = o.max_open_ns = HS_NEVER;
    tell("db", &o, "tls_certificate +1000000000 no open");
}
END_TEST

START_TEST(a_refusal_says_until_when_and_why)
{
    struct hs_breaker_options o = plain();
    struct hs_breaker_key key = key_of("db");
    struct hs_breaker *b = breaker(&o);
    struct hs_permit permit;

    fail_with(b, "db", HS_FAIL_TLS_CERTIFICATE, START);
    ck_assert_int_eq(hs_breaker_permit(b, &key, START + SECOND, &permit), HS_BREAKER_OPEN);
    ck_assert_int_eq(permit.retry_ns, START + 30 * SECOND);
    ck_assert_int_eq(permit.last_fail, HS_FAIL_TLS_CERTIFICATE);
    hs_breaker_record(b, &key, &permit, HS_FAIL_REFUSED, START); /* nothing to report */
    /* Half open and taken: until the probe expires. */
    ck_assert_int_eq(hs_breaker_permit(b, &key, START + 30 * SECOND, &permit),
                     HS_BREAKER_HALF_OPEN);
    ck_assert_int_eq(hs_breaker_permit(b, &key, START + 31 * SECOND, &permit), HS_BREAKER_OPEN);
    ck_assert_int_eq(permit.retry_ns, START + 40 * SECOND);
    hs_breaker_unref(b);
}
END_TEST

START_TEST(a_permit_is_reported_once)
{
    struct hs_breaker_options o = plain();
    struct hs_breaker_key key = key_of("db");
    struct hs_breaker *b = breaker(&o);
    struct hs_breaker_stats stats;
    struct hs_permit permit;

    (void)hs_breaker_permit(b, &key, START, &permit);
    for (int i = 0; i < 10; i++)
        hs_breaker_record(b, &key, &permit, HS_FAIL_REFUSED, START);
    hs_breaker_stats(b, START, &stats);
    ck_assert_uint_eq(stats.failures, 1);
    ck_assert_uint_eq(stats.by_class[HS_FAIL_REFUSED], 1);
    ck_assert_int_eq(state_at(b, &key, START), HS_BREAKER_CLOSED);
    hs_breaker_unref(b);
}
END_TEST

START_TEST(a_snapshot_tells_all)
{
    struct hs_breaker_options o = plain();
    struct hs_breaker *b = breaker(&o);
    struct hs_breaker_status s[4];
    char text[HS_BREAKER_KEY_TEXT_SIZE];

    ck_assert_uint_eq(hs_breaker_states(b, START, s, LENGTH(s)), 0);
    fail_with(b, "10.0.0.1:5432", HS_FAIL_TIMEOUT, START);
    fail_with(b, "unix:/run/db", HS_FAIL_TLS_CERTIFICATE, START + SECOND);
    fail_with(b, "10.0.0.1:5432", HS_FAIL_RESET, START + 2 * SECOND);
    fail_with(b, "10.0.0.1:5432", HS_FAIL_NOT_COUNTED, START + 3 * SECOND);
    ck_assert_uint_eq(hs_breaker_states(b, START + 3 * SECOND, s, 1), 2);
    ck_assert_uint_eq(hs_breaker_states(b, START + 3 * SECOND, s, LENGTH(s)), 2);
    ck_assert_str_eq(hs_breaker_key_text(&s[0].key, text, sizeof(text)), "10.0.0.1:5432");
    ck_assert_int_eq(s[0].state, HS_BREAKER_CLOSED);
    ck_assert_uint_eq(s[0].in_a_row, 2);
    ck_assert_uint_eq(s[0].window_calls, 2);
    ck_assert_uint_eq(s[0].window_failures, 2);
    ck_assert_int_eq(s[0].last_fail, HS_FAIL_RESET);
    ck_assert_int_eq(s[0].last_fail_ns, START + 2 * SECOND);
    ck_assert_uint_eq(s[0].calls, 2);
    ck_assert_uint_eq(s[0].failures, 2);
    ck_assert_int_eq(s[0].opened_ns, 0);
    ck_assert_int_eq(s[0].retry_ns, 0);
    ck_assert_str_eq(hs_breaker_key_text(&s[1].key, text, sizeof(text)), "unix:/run/db");
    ck_assert_int_eq(s[1].state, HS_BREAKER_OPEN);
    ck_assert_int_eq(s[1].opened_ns, START + SECOND);
    ck_assert_int_eq(s[1].retry_ns, START + 31 * SECOND);
    ck_assert_uint_eq(s[1].opened, 1);
    ck_assert_uint_eq(s[1].openings, 1);
    hs_breaker_unref(b);
}
END_TEST

START_TEST(a_reset_forgets_one_or_all)
{
    struct hs_breaker_options o = plain();
    struct hs_breaker *b = breaker(&o);
    struct hs_breaker_key a = key_of("a"), unknown = key_of("unknown");
    struct hs_permit old;

    fail_with(b, "b", HS_FAIL_TLS_CERTIFICATE, START);
    fail_with(b, "a", HS_FAIL_TLS_CERTIFICATE, START);
    ck_assert_int_eq(hs_breaker_permit(b, &a, START + 30 * SECOND, &old), HS_BREAKER_HALF_OPEN);
    ck_assert_uint_eq(hs_breaker_reset(b, &unknown), 0);
    ck_assert_uint_eq(hs_breaker_reset(b, &a), 1);
    ck_assert_int_eq(state_at(b, &a, START), HS_BREAKER_CLOSED);
    hs_breaker_record(b, &a, &old, HS_FAIL_TLS_CERTIFICATE, START); /* of what is forgotten */
    ck_assert_int_eq(state_at(b, &a, START), HS_BREAKER_CLOSED);
    ck_assert_uint_eq(hs_breaker_reset(b, NULL), 1);
    ck_assert_uint_eq(hs_breaker_reset(b, NULL), 0);
    hs_breaker_unref(b);
}
END_TEST

START_TEST(the_table_is_bounded_and_forgets_the_closed_first)
{
    struct hs_breaker_options o = plain();
    struct hs_breaker_stats stats;
    struct hs_breaker_key open;
    struct hs_breaker *b;
    char text[32];

    o.max_keys = 100;
    b = breaker(&o);
    fail_with(b, "open", HS_FAIL_TLS_CERTIFICATE, START);
    open = key_of("open");
    for (int i = 0; i < 10000; i++) {
        (void)snprintf(text, sizeof(text), "key %d", i);
        fail_with(b, text, HS_FAIL_REFUSED, START);
        fail_with(b, text, HS_FAIL_NONE, START);
    }
    hs_breaker_stats(b, START, &stats);
    ck_assert_uint_eq(stats.keys, 100);
    ck_assert_uint_eq(stats.evicted, 10001 - 100);
    ck_assert_uint_eq(stats.keys_open, 1);
    /* All open: the oldest goes. */
    for (int i = 0; i < 100; i++) {
        (void)snprintf(text, sizeof(text), "open %d", i);
        fail_with(b, text, HS_FAIL_TLS_CERTIFICATE, START);
    }
    hs_breaker_stats(b, START, &stats);
    ck_assert_uint_eq(stats.keys, 100);
    ck_assert_int_eq(state_at(b, &open, START), HS_BREAKER_CLOSED);
    hs_breaker_unref(b);
}
END_TEST

START_TEST(what_never_failed_takes_no_memory)
{
    struct hs_breaker_options o = plain();
    struct hs_breaker *b = breaker(&o);
    struct hs_breaker_stats stats;
    char text[32];

    for (int i = 0; i < 1000; i++) {
        (void)snprintf(text, sizeof(text), "key %d", i);
        fail_with(b, text, i % 2 == 0 ? HS_FAIL_NONE : HS_FAIL_NOT_COUNTED, START);
    }
    hs_breaker_stats(b, START, &stats);
    ck_assert_uint_eq(stats.keys, 0);
    ck_assert_uint_eq(stats.permitted, 1000);
    ck_assert_uint_eq(stats.successes, 500);
    ck_assert_uint_eq(stats.not_counted, 500);
    hs_breaker_unref(b);
}
END_TEST

/* ---- Several addresses ---------------------------------------------------------------------- */

START_TEST(of_several_addresses_the_one_due_first_is_let_through)
{
    const char *const texts[] = {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"};
    const struct hs_addr *refused[3];
    struct hs_breaker_options o = plain();
    struct hs_breaker *b = breaker(&o);
    struct hs_addr addrs[3];
    struct hs_breaker_key key;
    struct hs_permit permit;
    size_t i;

    for (i = 0; i < 3; i++) {
        addrs[i] = addr_of(texts[i]);
        refused[i] = &addrs[i];
    }
    fail_with(b, texts[1], HS_FAIL_TLS_CERTIFICATE, START);
    fail_with(b, texts[2], HS_FAIL_TLS_CERTIFICATE, START + SECOND);
    fail_with(b, texts[0], HS_FAIL_TLS_CERTIFICATE, START + 2 * SECOND);
    /* A lone address is refused. */
    ck_assert(!hs_breaker_permit_one(b, refused, 1, 1, 0, START + 3 * SECOND, &i, &permit));
    ck_assert(!hs_breaker_permit_one(b, refused, 0, 3, 0, START + 3 * SECOND, &i, &permit));
    ck_assert(hs_breaker_permit_one(b, refused, 3, 3, 0, START + 3 * SECOND, &i, &permit));
    ck_assert_uint_eq(i, 1);
    /* Its failure changes nothing: not even for how long it is open. */
    key = key_of(texts[1]);
    hs_breaker_record(b, &key, &permit, HS_FAIL_REFUSED, START + 3 * SECOND);
    ck_assert_int_eq(state_at(b, &key, START + 29 * SECOND), HS_BREAKER_OPEN);
    ck_assert(!hs_breaker_permit_one(b, refused, 2, 3, 1, START + 3 * SECOND, &i, &permit));
    /* Its success closes. */
    ck_assert(hs_breaker_permit_one(b, refused, 3, 3, 0, START + 3 * SECOND, &i, &permit));
    hs_breaker_record(b, &key, &permit, HS_FAIL_NONE, START + 3 * SECOND);
    ck_assert_int_eq(state_at(b, &key, START + 3 * SECOND), HS_BREAKER_CLOSED);
    /* Somebody reset it between the refusal and now. */
    (void)hs_breaker_reset(b, NULL);
    ck_assert(hs_breaker_permit_one(b, refused, 3, 3, 0, START + 3 * SECOND, &i, &permit));
    ck_assert_uint_eq(i, 0);
    hs_breaker_record(b, &key, &permit, HS_FAIL_NONE, START + 3 * SECOND);
    hs_breaker_unref(b);
}
END_TEST

START_TEST(how_many_are_let_through_follows_the_share_that_may_be_ejected)
{
    static const struct {
        const char *title;
        int permille;
        bool fail_fast;
        size_t n_all, n_refused, want;
    } rows[] = {
        {"one of several", 1000, false, 4, 4, 1},
        {"the others have failed just now", 1000, false, 4, 2, 1},
        {"a lone one is refused", 1000, false, 1, 1, 0},
        {"fail fast", 1000, true, 4, 4, 0},
        {"half of four", 500, false, 4, 4, 2},
        {"half of four, within the share: still one", 500, false, 4, 2, 1},
        {"half of three is one", 500, false, 3, 3, 2},
        {"none may be ejected", 0, false, 3, 3, 3},
        {"not even a lone one", 999, false, 1, 1, 1},
    };

    for (size_t row = 0; row < LENGTH(rows); row++) {
        struct hs_breaker_options o = plain();
        const struct hs_addr *refused[4];
        struct hs_addr addrs[4];
        struct hs_permit permit;
        struct hs_breaker *b;
        size_t let = 0, i;

        o.max_ejected_permille = rows[row].permille;
        o.fail_fast = rows[row].fail_fast;
        b = breaker(&o);
        for (i = 0; i < 4; i++) {
            char text[32];

            (void)snprintf(text, sizeof(text), "10.0.0.%zu:80", i + 1);
            addrs[i] = addr_of(text);
            refused[i] = &addrs[i];
            fail_with(b, text, HS_FAIL_TLS_CERTIFICATE, START);
        }
        while (let < rows[row].n_refused &&
               hs_breaker_permit_one(b, refused, rows[row].n_refused - let, rows[row].n_all, let,
                                     START, &i, &permit))
            let++;
        ck_assert_msg(let == rows[row].want, "%s: %zu, want %zu", rows[row].title, let,
                      rows[row].want);
        hs_breaker_unref(b);
    }
}
END_TEST

/* ---- Keys, classes, options ----------------------------------------------------------------- */

START_TEST(keys_and_texts_go_both_ways)
{
    static const char *const texts[] = {
        "127.0.0.1:80",      "[2001:db8::1]:443", "[fe80::1%lo]:443",     "unix:/run/a.sock",
        "unix:@abstract",    "payments",          "db.example.org:5432",  "listener 0.0.0.0:443",
        "listener [::]:443", "listener",          "listener unix:/run/a", "7",
    };
    struct hs_breaker_key keys[LENGTH(texts)], again;
    char text[HS_BREAKER_KEY_TEXT_SIZE], longest[HS_BREAKER_NAME_MAX + 2];

    for (size_t i = 0; i < LENGTH(texts); i++) {
        keys[i] = key_of(texts[i]);
        ck_assert_str_eq(hs_breaker_key_text(&keys[i], text, sizeof(text)), texts[i]);
        again = key_of(text);
        ck_assert_mem_eq(&again, &keys[i], sizeof(again));
        for (size_t j = 0; j < i; j++)
            ck_assert_mem_ne(&keys[i], &keys[j], sizeof(again));
    }
    memset(longest, 'x', sizeof(longest));
    ASSERT_OK(hs_breaker_key_parse(longest, HS_BREAKER_NAME_MAX, fresh(), &again));
    ASSERT_ERR(HS_E_INVALID,
               hs_breaker_key_parse(longest, HS_BREAKER_NAME_MAX + 1, fresh(), &again));
    ASSERT_ERR(HS_E_INVALID, hs_breaker_key_parse("", 0, fresh(), &again));
}
END_TEST

START_TEST(a_flow_label_and_padding_make_no_other_peer)
{
    struct hs_addr a = addr_of("[2001:db8::1]:443"), b = a, c = addr_of("10.0.0.1:80"), d = c;
    struct hs_breaker_key key_a, key_b;

    ((struct sockaddr_in6 *)(void *)&b.storage)->sin6_flowinfo = htonl(7);
    hs_breaker_key_addr(&a, &key_a);
    hs_breaker_key_addr(&b, &key_b);
    ck_assert_mem_eq(&key_a, &key_b, sizeof(key_a));
    memset(((struct sockaddr_in *)(void *)&d.storage)->sin_zero, 7, 8);
    hs_breaker_key_addr(&c, &key_a);
    hs_breaker_key_addr(&d, &key_b);
    ck_assert_mem_eq(&key_a, &key_b, sizeof(key_a));
}
END_TEST

START_TEST(errno_says_whose_fault_it_was)
{
    static const struct {
        int sys;
        enum hs_fail want;
    } rows[] = {
        {0, HS_FAIL_NONE},
        {ECONNREFUSED, HS_FAIL_REFUSED},
        {ENOENT, HS_FAIL_REFUSED},
        {ECONNRESET, HS_FAIL_RESET},
        {EPIPE, HS_FAIL_RESET},
        {ETIMEDOUT, HS_FAIL_TIMEOUT},
        {ECONNABORTED, HS_FAIL_TIMEOUT},
        {EHOSTUNREACH, HS_FAIL_UNREACHABLE},
        {EMFILE, HS_FAIL_NOT_COUNTED},
        {ENFILE, HS_FAIL_NOT_COUNTED},
        {EADDRNOTAVAIL, HS_FAIL_NOT_COUNTED},
        {ENETUNREACH, HS_FAIL_NOT_COUNTED},
        {ENOBUFS, HS_FAIL_NOT_COUNTED},
        {EACCES, HS_FAIL_NOT_COUNTED},
        {EPERM, HS_FAIL_NOT_COUNTED},
    };

    for (size_t i = 0; i < LENGTH(rows); i++)
        ck_assert_msg(hs_fail_of_errno(rows[i].sys) == rows[i].want, "%s", strerror(rows[i].sys));
}
END_TEST

START_TEST(a_failed_handshake_says_whose_fault_it_was)
{
    static const enum hs_fail wants[HS_TLS_FAILURES] = {
        [HS_TLS_NONE] = HS_FAIL_NONE,           [HS_TLS_VERIFY] = HS_FAIL_TLS_CERTIFICATE,
        [HS_TLS_VERSION] = HS_FAIL_TLS_VERSION, [HS_TLS_CIPHER] = HS_FAIL_TLS_VERSION,
        [HS_TLS_HTTP] = HS_FAIL_TLS_VERSION,    [HS_TLS_NOT_TLS] = HS_FAIL_TLS_VERSION,
        [HS_TLS_TIMEOUT] = HS_FAIL_TIMEOUT,     [HS_TLS_RESET] = HS_FAIL_RESET,
        [HS_TLS_EMPTY] = HS_FAIL_RESET,         [HS_TLS_ABORTED] = HS_FAIL_RESET,
        [HS_TLS_LOCAL] = HS_FAIL_NOT_COUNTED,   [HS_TLS_PLAINTEXT] = HS_FAIL_NOT_COUNTED,
        [HS_TLS_ALERT] = HS_FAIL_TLS_OTHER,     [HS_TLS_ALPN] = HS_FAIL_TLS_OTHER,
        [HS_TLS_PROTOCOL] = HS_FAIL_TLS_OTHER,  [HS_TLS_EVICTED] = HS_FAIL_NOT_COUNTED,
    };

    for (int i = 0; i < HS_TLS_FAILURES; i++)
        ck_assert_msg(hs_fail_of_tls((enum hs_tls_failure)i) == wants[i], "%d", i);
}
END_TEST

static const struct {
    const char *want[2];
    size_t offset;
    int64_t value;
    bool wide, fail_fast;
} bad_options[] = {
#define INT(name_, field_, value_)                                                                 \
    {                                                                                              \
        {name_, name_}, offsetof(struct hs_breaker_options, field_), value_, false, false,         \
    }
#define WIDE(name_, field_, value_)                                                                \
    {                                                                                              \
        {name_, name_}, offsetof(struct hs_breaker_options, field_), value_, true, false,          \
    }
    INT("failures", failures, -1),
    INT("failure_rate", rate_permille, 1001),
    INT("min_calls", min_calls, 0),
    WIDE("window", window_ns, 10),
    WIDE("open_time", open_ns, 0),
    INT("jitter", jitter_permille, 1001),
    INT("probes", probes, 0),
    INT("probes", probes, 65),
    INT("successes", successes, 0),
    WIDE("probe_time", probe_ns, 0),
    WIDE("probe_time", probe_ns, HS_NEVER),
    WIDE("patience", patience_ns, -1),
    INT("max_ejected", max_ejected_permille, -1),
    WIDE("max_keys", max_keys, 0),
    WIDE("max_keys", max_keys, INT64_C(1) << 40),
    {{"max_open_time", "open_time"},
     offsetof(struct hs_breaker_options, max_open_ns),
     SECOND,
     true,
     false},
    {{"fail_fast", "max_ejected"},
     offsetof(struct hs_breaker_options, max_ejected_permille),
     500,
     false,
     true},
};

START_TEST(options_out_of_range_or_in_contradiction_are_refused_by_name)
{
    struct hs_breaker_options o = plain();
    struct hs_breaker *b = NULL;

    for (size_t i = 0; i < LENGTH(bad_options); i++) {
        o = plain();
        o.fail_fast = bad_options[i].fail_fast;
        if (bad_options[i].wide)
            memcpy((char *)&o + bad_options[i].offset, &bad_options[i].value, sizeof(int64_t));
        else
            memcpy((char *)&o + bad_options[i].offset, &(int){(int)bad_options[i].value},
                   sizeof(int));
        ASSERT_ERR(HS_E_INVALID, hs_breaker_new(&o, fresh(), &b));
        for (int j = 0; j < 2; j++)
            ck_assert_msg(strstr(last_error()->msg, bad_options[i].want[j]) != NULL, "%s",
                          last_error()->msg);
    }
    o = plain();
    o.failures = o.rate_permille = 0;
    ASSERT_ERR(HS_E_INVALID, hs_breaker_new(&o, fresh(), &b));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "failure_rate"));
    ck_assert_ptr_null(b);
    hs_breaker_unref(NULL);
}
END_TEST

/* ---- Any story at all ----------------------------------------------------------------------- */

struct held {
    int key;
    struct hs_permit permit;
    int64_t granted_ns;
};

struct model {
    struct hs_breaker_options o;
    struct hs_breaker *b;
    unsigned seed;
    int64_t now;
    struct held held[32];
    size_t n;
    uint64_t granted, refused, reported;
};

static unsigned
draw(struct model *m, unsigned below)
{
    return (unsigned)rand_r(&m->seed) % below;
}

static struct hs_breaker_key
nth_key(int i)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "key %d", i);
    return key_of(text);
}

static void
try_any(struct model *m)
{
    struct held h = {.key = (int)draw(m, 6), .granted_ns = m->now};
    struct hs_breaker_key key = nth_key(h.key);
    enum hs_breaker_state before = state_at(m->b, &key, m->now), got;

    got = hs_breaker_permit(m->b, &key, m->now, &h.permit);
    if (before == HS_BREAKER_CLOSED)
        ck_assert_int_eq(got, HS_BREAKER_CLOSED);
    if (before == HS_BREAKER_OPEN)
        ck_assert_int_eq(got, HS_BREAKER_OPEN);
    if (got == HS_BREAKER_OPEN) {
        ck_assert_int_gt(h.permit.retry_ns, m->now);
        ck_assert_int_le(h.permit.retry_ns - m->now, m->o.max_open_ns + m->o.probe_ns);
        m->refused++;
        return;
    }
    m->granted++;
    if (m->n < LENGTH(m->held)) /* Others are never reported. */
        m->held[m->n++] = h;
}

static void
report_any(struct model *m)
{
    size_t i = m->n > 0 ? draw(m, (unsigned)m->n) : 0;
    struct hs_breaker_key key;

    if (m->n == 0)
        return;
    key = nth_key(m->held[i].key);
    hs_breaker_record(m->b, &key, &m->held[i].permit,
                      draw(m, 3) == 0 ? HS_FAIL_NONE : (enum hs_fail)draw(m, HS_FAIL_CLASSES),
                      m->now);
    m->reported++;
    m->held[i] = m->held[--m->n];
}

/* What must be so at any time. */
static void
check_any(struct model *m)
{
    struct hs_breaker_status all[8];
    struct hs_breaker_stats stats;
    size_t n = hs_breaker_states(m->b, m->now, all, LENGTH(all)), open = 0;

    hs_breaker_stats(m->b, m->now, &stats);
    ck_assert_uint_le(n, m->o.max_keys);
    ck_assert_uint_eq(n, stats.keys);
    ck_assert_uint_eq(stats.permitted, m->granted);
    ck_assert_uint_eq(stats.refused, m->refused);
    ck_assert_uint_eq(stats.successes + stats.failures + stats.not_counted, m->reported);
    for (size_t i = 0; i < n; i++) {
        int64_t span = all[i].retry_ns - all[i].opened_ns;

        open += all[i].state == HS_BREAKER_OPEN;
        ck_assert_uint_le(all[i].window_failures, all[i].window_calls);
        ck_assert_int_eq(all[i].state == HS_BREAKER_CLOSED, all[i].opened_ns == 0);
        if (all[i].state == HS_BREAKER_OPEN) {
            ck_assert_int_le(span, m->o.max_open_ns);
            ck_assert_int_ge(span, m->o.open_ns / 1000 * (1000 - m->o.jitter_permille));
        }
    }
    ck_assert_uint_eq(open, stats.keys_open);
    ck_assert_uint_ge(stats.opened, stats.half_opened);
}

/* Whatever happened, nobody is locked out for longer than this. */
static void
check_nothing_is_refused_for_ever(struct model *m)
{
    m->now += m->o.max_open_ns + m->o.probe_ns;
    for (int i = 0; i < 6; i++) {
        struct hs_breaker_key key = nth_key(i);
        struct hs_permit permit;

        ck_assert_int_ne(hs_breaker_permit(m->b, &key, m->now, &permit), HS_BREAKER_OPEN);
    }
}

static void
play(unsigned seed)
{
    struct model m = {.o = plain(), .seed = seed, .now = START};

    m.o.failures = (int)draw(&m, 4);
    m.o.rate_permille = m.o.failures == 0 ? 1 + (int)draw(&m, 1000) : (int)draw(&m, 1001);
    m.o.min_calls = 1 + (int)draw(&m, 8);
    m.o.window_ns = (1 + draw(&m, 20)) * SECOND;
    m.o.probes = 1 + (int)draw(&m, 3);
    m.o.successes = 1 + (int)draw(&m, 3);
    m.o.jitter_permille = (int)draw(&m, 1001);
    m.o.max_keys = 1 + draw(&m, 6);
    m.o.seed = seed + 1;
    m.b = breaker(&m.o);
    for (int i = 0; i < 300; i++) {
        switch (draw(&m, 8)) {
        case 0:
            m.now += draw(&m, 2) == 0 ? draw(&m, 60) * SECOND : draw(&m, 900) * MS;
            break;
        case 1:
        case 2:
        case 3:
            report_any(&m);
            break;
        default:
            try_any(&m);
        }
        check_any(&m);
    }
    check_nothing_is_refused_for_ever(&m);
    hs_breaker_unref(m.b);
}

START_TEST(any_story_keeps_the_invariants)
{
    for (unsigned seed = 0; seed < 300; seed++)
        play(seed);
}
END_TEST

/* ---- Forking -------------------------------------------------------------------------------- */

static int
goes_on_in_child(void *arg)
{
    struct hs_breaker *b = arg;
    struct hs_breaker_key known = key_of("known"), other = key_of("other");

    if (state_at(b, &known, START) != HS_BREAKER_OPEN)
        return 1;
    fail_with(b, "other", HS_FAIL_TLS_CERTIFICATE, START);
    if (state_at(b, &other, START) != HS_BREAKER_OPEN)
        return 2;
    hs_breaker_unref(b);
    return 0;
}

START_TEST(a_child_goes_on_with_what_the_parent_knew)
{
    struct hs_breaker_options o = plain();
    struct hs_breaker *b = breaker(&o);
    struct hs_breaker_key other = key_of("other");

    fail_with(b, "known", HS_FAIL_TLS_CERTIFICATE, START);
    ck_assert_int_eq(in_child(goes_on_in_child, b), 0);
    ck_assert_int_eq(state_at(b, &other, START), HS_BREAKER_CLOSED);
    hs_breaker_unref(b);
}
END_TEST

static TCase *
cases(void)
{
    TCase *tc = case_new("breaker");

    tcase_add_test(tc, stories_of_failures_in_a_row);
    tcase_add_test(tc, stories_of_probes);
    tcase_add_test(tc, several_probes_and_several_successes);
    tcase_add_test(tc, stories_of_rates);
    tcase_add_test(tc, a_listener_is_not_opened_by_one_stranger);
    tcase_add_test(tc, a_dry_run_refuses_nothing_and_tells_what_it_would_have);
    tcase_add_test(tc, the_open_time_is_jittered_and_never_longer_than_asked);
    tcase_add_test(tc, unequal_seeds_are_chosen_and_an_endless_open_time_ends_never);
    tcase_add_test(tc, a_refusal_says_until_when_and_why);
    tcase_add_test(tc, a_permit_is_reported_once);
    tcase_add_test(tc, a_snapshot_tells_all);
    tcase_add_test(tc, a_reset_forgets_one_or_all);
    tcase_add_test(tc, the_table_is_bounded_and_forgets_the_closed_first);
    tcase_add_test(tc, what_never_failed_takes_no_memory);
    tcase_add_test(tc, of_several_addresses_the_one_due_first_is_let_through);
    tcase_add_test(tc, how_many_are_let_through_follows_the_share_that_may_be_ejected);
    tcase_add_test(tc, keys_and_texts_go_both_ways);
    tcase_add_test(tc, a_flow_label_and_padding_make_no_other_peer);
    tcase_add_test(tc, errno_says_whose_fault_it_was);
    tcase_add_test(tc, a_failed_handshake_says_whose_fault_it_was);
    tcase_add_test(tc, options_out_of_range_or_in_contradiction_are_refused_by_name);
    tcase_add_test(tc, any_story_keeps_the_invariants);
    tcase_add_test(tc, a_child_goes_on_with_what_the_parent_knew);
    return tc;
}

int
main(void)
{
    return run_case(cases());
}
