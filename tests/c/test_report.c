/* test_report.c: reports as JSON: one line, whatever peers and paths are called, and complete.
 *
 * That they parse, and what they say, is looked at in Python (tests/py/test_observe.py).
 */
#include "support.h"

#include "watch/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *
written(const char *value)
{
    struct hs_json j = {0};
    char *text;
    size_t len;

    hs_json_text(&j, NULL, value);
    ASSERT_OK(hs_json_end(&j, fresh(), &text, &len));
    ck_assert_uint_eq(strlen(text), len);
    return text;
}

START_TEST(text_is_escaped_and_what_is_not_utf8_replaced)
{
    static const struct {
        const char *value, *want;
    } rows[] = {
        {"plain", "\"plain\""},
        {NULL, "null"},
        {"", "\"\""},
        {"a\"b\\c", "\"a\\u0022b\\u005cc\""},
        {"\n\x1b[31m\x7f", "\"\\u000a\\u001b[31m\\u007f\""},
        {"gr\xc3\xbc\xc3\x9f", "\"gr\xc3\xbc\xc3\x9f\""},
        {"\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"\xff", "\"\\ufffd\""},
        {"\xc0\xaf", "\"\\ufffd\\ufffd\""},                       /* too long for what it is */
        {"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},            /* a surrogate */
        {"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""}, /* beyond the last */
        {"\xe2\x82", "\"\\ufffd\\ufffd\""},                       /* cut */
        {"\xf5\x80\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""},
    };

    for (size_t i = 0; i < LENGTH(rows); i++) {
        char *text = written(rows[i].value);

        ck_assert_str_eq(text, rows[i].want);
        free(text);
    }
}
END_TEST

START_TEST(commas_stand_between_and_nowhere_else)
{
    struct hs_json j = {0};
    char *text;
    size_t len;

    hs_json_open(&j, NULL, '{');
    hs_json_open(&j, "none", '[');
    hs_json_close(&j, ']');
    hs_json_open(&j, "two", '[');
    hs_json_number(&j, NULL, UINT64_MAX);
    hs_json_signed(&j, NULL, -1);
    hs_json_close(&j, ']');
    hs_json_flag(&j, "yes", true);
    hs_json_seconds(&j, "s", 1500000001);
    hs_json_seconds(&j, "back", -5);
    hs_json_seconds(&j, "never", HS_NEVER);
    hs_json_close(&j, '}');
    ASSERT_OK(hs_json_end(&j, fresh(), &text, &len));
    ck_assert_str_eq(text, "{\"none\":[],\"two\":[18446744073709551615,-1],\"yes\":true,"
                           "\"s\":1.500000001,\"back\":-0.000000005,\"never\":null}");
    free(text);
}
END_TEST

START_TEST(failed_writer_says_so_at_the_end_and_leaves_nothing)
{
    struct hs_json j = {.failed = true};
    char *text = NULL;
    size_t len = 77;

    hs_json_text(&j, NULL, "x");
    ASSERT_ERR(HS_E_NOMEM, hs_json_end(&j, fresh(), &text, &len));
    ck_assert_ptr_eq(text, NULL);
    ck_assert_uint_eq(len, 77);
}
END_TEST

START_TEST(every_report_is_one_line_that_names_itself)
{
    struct pair p = pair_tcp();

    hs_conn_set_site(p.c, HS_MADE_CONNECT, hs_call_site_intern("a\nb.py", "f", 1), 1);
    for (int kind = 0; kind < HS_REPORT_KINDS; kind++) {
        char *text, want[64];
        size_t len;

        ASSERT_OK(hs_report((enum hs_report_kind)kind, fresh(), &text, &len));
        (void)snprintf(want, sizeof(want), "{\"version\":%d,\"report\":\"%s\",", HS_REPORT_VERSION,
                       hs_report_name((enum hs_report_kind)kind));
        ck_assert_int_eq(strncmp(text, want, strlen(want)), 0);
        ck_assert_ptr_eq(strchr(text, '\n'), NULL);
        ck_assert_int_eq(text[len - 1], '}');
        free(text);
    }
    ASSERT_ERR(HS_E_INVALID, hs_report(HS_REPORT_KINDS, fresh(), NULL, NULL));
    ck_assert_ptr_eq(hs_report_name(HS_REPORT_KINDS), NULL);
    pair_free(&p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("report");

    tcase_add_test(tc, text_is_escaped_and_what_is_not_utf8_replaced);
    tcase_add_test(tc, commas_stand_between_and_nowhere_else);
    tcase_add_test(tc, failed_writer_says_so_at_the_end_and_leaves_nothing);
    tcase_add_test(tc, every_report_is_one_line_that_names_itself);
    return run_case(tc);
}
