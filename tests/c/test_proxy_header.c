/* test_proxy_header.c: the headers of proxies.
 *
 * What a header means must not depend on how it arrives: each row is parsed at every length from
 * one byte up, and nothing may be said of a prefix but "more", or what is said of the whole.
 */
#include "support.h"

#include "../../csrc/listen/proxy_header.h"

#include <stdio.h>
#include <string.h>

#define V1(text) text, sizeof(text) - 1
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V2(rest) SIGNATURE rest, sizeof(SIGNATURE rest) - 1
#define ADDRESSES4 "\xc0\x00\x02\x01\xc0\x00\x02\x02\x04\xd2\x01\xbb"
#define SOURCE6 "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
#define DESTINATION6 "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02"
#define FROM_TO "1 192.0.2.1:1234 > 192.0.2.2:443"
#define TEN "0123456789"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

/* What comes out, as text: "VERSION SOURCE > DESTINATION +BYTES LEFT", "VERSION - +BYTES LEFT" for
 * the connection's own addresses, or a part of the message. */
static const struct row {
    const char *bytes;
    size_t n;
    const char *want;
} goods[] =
    {
        {V1("PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n"), FROM_TO " +0"},
        {V1("PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\nGET"), FROM_TO " +3"},
        {V1("PROXY TCP4 255.255.255.255 0.0.0.0 0 65535\r\n\r\n"),
         "1 255.255.255.255:0 > 0.0.0.0:65535 +2"},
        {V1("PROXY TCP6 2001:db8::1 2001:db8::2 1234 443\r\n"),
         "1 [2001:db8::1]:1234 > [2001:db8::2]:443 +0"},
        {V1("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
         "1 [ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535 > "
         "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535 +0"},
        {V1("PROXY UNKNOWN\r\nx"), "1 - +1"},
        {V1("PROXY UNKNOWN ffff:: what \x01 ever 65536\r\n"), "1 - +0"},
        {V2("\x21\x11\0\x0c" ADDRESSES4 "x"), "2 192.0.2.1:1234 > 192.0.2.2:443 +1"},
        {V2("\x21\x21\0\x24" SOURCE6 DESTINATION6 "\x04\xd2\x01\xbb"),
         "2 [2001:db8::1]:1234 > [2001:db8::2]:443 +0"},
        {V2("\x20\x00\0\0"), "2 - +0"},              /* a health check */
        {V2("\x20\x11\0\x0c" ADDRESSES4), "2 - +0"}, /* LOCAL: what it says is passed over */
        {V2("\x21\x00\0\0"), "2 - +0"},              /* for somebody of no known family */
        {V2("\x21\x00\0\x03\x04\0\0"), "2 - +0"},    /* with an extension */
        {V2("\x21\x12\0\x0c" ADDRESSES4), "2 - +0"}, /* a datagram */
        {V2("\x21\x11\0\x14" ADDRESSES4 "\x04\0\x01z\x05\0\x01q"),
         "2 192.0.2.1:1234 > 192.0.2.2:443 +0"}, /* two extensions */
        {V2("\x21\x11\0\x13" ADDRESSES4 "\x03\0\x04\xc9\x1d\x66\x93"),
         "2 192.0.2.1:1234 > 192.0.2.2:443 +0"}, /* its checksum */
},
  bads[] = {
      {V1("GET / HTTP/1.1\r\n"), "begins with something else"},
      {V1("PROXY\r\n"), "begins with something else"},
      {V1("proxy TCP4 192.0.2.1 192.0.2.2 1234 443\r\n"), "begins with something else"},
      {V1("\x16\x03\x01\x02"), "begins with something else"},
      {V1("PROXY \r\n"), "no protocol"},
      {V1("PROXY TCP5 192.0.2.1 192.0.2.2 1234 443\r\n"), "none of TCP4"},
      {V1("PROXY UDP4 192.0.2.1 192.0.2.2 1234 443\r\n"), "none of TCP4"},
      {V1("PROXY TCP4 192.0.2.1 192.0.2.2 1234\r\n"), "two addresses and two ports"},
      {V1("PROXY TCP4 192.0.2.1 192.0.2.2 1234 443 \r\n"), "two addresses and two ports"},
      {V1("PROXY TCP4 192.0.2.1 192.0.2.2 1234 443 1\r\n"), "two addresses and two ports"},
      {V1("PROXY TCP4  192.0.2.1 192.0.2.2 1234 443\r\n"), "two addresses and two ports"},
      {V1("PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n"), "a port is not"},
      {V1("PROXY TCP4 192.0.2.1 192.0.2.2 1234 0443\r\n"), "a port is not"},
      {V1("PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n"), "a port is not"},
      {V1("PROXY TCP4 192.0.2.1 192.0.2.2 -1 443\r\n"), "a port is not"},
      {V1("PROXY TCP4 192.0.2.1 192.0.2.256 1 443\r\n"), "an address is not"},
      {V1("PROXY TCP4 192.0.2.01 192.0.2.2 1 443\r\n"), "an address is not"},
      {V1("PROXY TCP4 2001:db8::1 192.0.2.2 1 443\r\n"), "an address is not"},
      {V1("PROXY TCP6 192.0.2.1 192.0.2.2 1 443\r\n"), "an address is not"},
      {V1("PROXY TCP6 fe80::1%1 fe80::2 1 443\r\n"), "an address is not"},
      {V1("PROXY TCP4 localhost 192.0.2.2 1 443\r\n"), "an address is not"},
      {V1("PROXY TCP4 192.0.2.1 192.0.2.2 1 443\n"), "CR LF"},
      {V1("PROXY TCP4 192.0.2.1 192.0.2.2 \0 443\r\n"), "NUL"},
      {V1("PROXY UNKNOWN " HUNDRED "\r\n"), "within 107"},
      {V2("\x11\x11\0\x0c" ADDRESSES4), "version is not 2"},
      {V2("\x22\x11\0\x0c" ADDRESSES4), "neither LOCAL nor PROXY"},
      {V2("\x21\x41\0\x0c" ADDRESSES4), "unknown family"},
      {V2("\x21\x13\0\x0c" ADDRESSES4), "unknown family or protocol"},
      {V2("\x21\x11\0\x0b\xc0\x00\x02\x01\xc0\x00\x02\x02\x04\xd2\x01"), "too short"},
      {V2("\x21\x31\0\x0c" ADDRESSES4), "too short"},
      {V2("\x21\x11\0\x0e" ADDRESSES4 "\x04\0"), "half an extension"},
      {V2("\x21\x11\0\x0f" ADDRESSES4 "\x04\0\x01"), "longer than the header"},
      {V2("\x21\x11\0\x13" ADDRESSES4 "\x03\0\x04\xc9\x1d\x66\x92"), "checksum"},
      {V2("\x21\x11\0\x12" ADDRESSES4 "\x03\0\x03\xc9\x1d\x66"), "checksum"},
      {V2("\x21\x11\xff\xff"), "65551 bytes, the limit is 4096"},
};

static void
describe(const struct hs_proxy_header *h, size_t n, char *buf, size_t size)
{
    char source[HS_ADDR_TEXT_SIZE], destination[HS_ADDR_TEXT_SIZE];

    if (h->proxied)
        (void)snprintf(buf, size, "%d %s > %s +%zu", h->version,
                       hs_addr_text(&h->source, source, sizeof(source)),
                       hs_addr_text(&h->destination, destination, sizeof(destination)),
                       n - h->length);
    else
        (void)snprintf(buf, size, "%d - +%zu", h->version, n - h->length);
}

START_TEST(a_header_says_who_is_behind_the_proxy)
{
    const struct row *row = &goods[_i];
    const uint8_t *bytes = (const uint8_t *)row->bytes;
    struct hs_proxy_header h = {0};
    size_t need = 0, asks = 0;
    char text[256];

    ASSERT_OK(hs_proxy_header_parse(bytes, row->n, fresh(), &need, &h));
    describe(&h, row->n, text, sizeof(text));
    ck_assert_str_eq(text, row->want);
    for (size_t n = 0; n < row->n; n++) {
        struct hs_proxy_header part = {.version = -1};

        need = 0;
        if (n >= h.length) {
            ASSERT_OK(hs_proxy_header_parse(bytes, n, fresh(), &need, &part));
            ck_assert_uint_eq(part.length, h.length);
            continue;
        }
        ASSERT_ERR(HS_WANT, hs_proxy_header_parse(bytes, n, fresh(), &need, &part));
        ck_assert_int_eq(part.version, -1);
        ck_assert_uint_gt(need, n);
        ck_assert_uint_le(need, h.length);
    }
    for (size_t n = 0; hs_proxy_header_parse(bytes, n, fresh(), &n, &h) == HS_WANT; asks++)
        ck_assert_uint_le(asks, h.version == 2 ? 3 : 107);
}
END_TEST

START_TEST(what_is_no_header_is_refused_at_any_length)
{
    const struct row *row = &bads[_i];
    bool refused = false;

    for (size_t n = 1; n <= row->n; n++) {
        struct hs_proxy_header h = {.version = -1};
        size_t need = 0;
        hs_err rv = hs_proxy_header_parse((const uint8_t *)row->bytes, n, fresh(), &need, &h);

        ck_assert_int_eq(h.version, -1);
        if (rv == HS_WANT) {
            ck_assert_msg(!refused, "%s: refused, and then not at %zu bytes", row->want, n);
            ck_assert_uint_gt(need, n);
            continue;
        }
        ASSERT_ERR(HS_E_BAD_FRAME, rv);
        refused = true;
        ck_assert_msg(strstr(last_error()->msg, row->want) != NULL, "%s", last_error()->msg);
    }
    ck_assert_msg(refused, "%s", row->want);
}
END_TEST

/* Its first bytes already tell that nothing good can come. */
START_TEST(a_stranger_is_told_by_the_first_byte_that_differs)
{
    struct hs_proxy_header h;
    size_t need = 0;

    ASSERT_ERR(HS_WANT, hs_proxy_header_parse((const uint8_t *)"PRO", 3, fresh(), &need, &h));
    ASSERT_ERR(HS_E_BAD_FRAME,
               hs_proxy_header_parse((const uint8_t *)"POST", 2, fresh(), &need, &h));
    ASSERT_ERR(HS_E_BAD_FRAME,
               hs_proxy_header_parse((const uint8_t *)"\r\n\n", 3, fresh(), &need, &h));
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("proxy_header");

    tcase_add_loop_test(tc, a_header_says_who_is_behind_the_proxy, 0, LENGTH(goods));
    tcase_add_loop_test(tc, what_is_no_header_is_refused_at_any_length, 0, LENGTH(bads));
    tcase_add_test(tc, a_stranger_is_told_by_the_first_byte_that_differs);
    return run_case(tc);
}
