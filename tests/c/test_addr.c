/* test_addr.c: addresses in, addresses out, one table for each direction.
 *
 * Every text that is accepted must come back from hs_endpoint_text as a text that means the same.
 */
#include "support.h"

#include "../../csrc/base/addr.h"

#include <netinet/in.h>
#include <string.h>

static const struct good {
    const char *title, *text, *want_text;
    int want_family;
    unsigned want_port;
} goods[] = {
    {"a name", "example.org:80", "example.org:80", AF_UNSPEC, 80},
    {"no host: every address", ":80", ":80", AF_UNSPEC, 80},
    {"the highest port", "h:65535", "h:65535", AF_UNSPEC, 65535},
    {"port 0 parses: to listen on", "h:0", "h:0", AF_UNSPEC, 0},
    {"leading zeros in five digits", "h:00080", "h:80", AF_UNSPEC, 80},
    {"a final dot", "example.org.:80", "example.org.:80", AF_UNSPEC, 80},
    {"an underscore", "_x.example:1", "_x.example:1", AF_UNSPEC, 1},
    {"bytes above ASCII are the resolver's business", "b\xc3\xbc.de:1", "b\xc3\xbc.de:1", 0, 1},
    {"IPv4", "127.0.0.1:443", "127.0.0.1:443", AF_INET, 443},
    {"IPv4 with a final dot is a name", "127.0.0.1.:443", "127.0.0.1.:443", AF_UNSPEC, 443},
    {"short IPv4 is a name", "127.1:443", "127.1:443", AF_UNSPEC, 443},
    {"IPv6", "[::1]:443", "[::1]:443", AF_INET6, 443},
    {"IPv6 is shortened", "[2001:DB8:0:0:0:0:0:1]:1", "[2001:db8::1]:1", AF_INET6, 1},
    {"v4 mapped", "[::ffff:1.2.3.4]:1", "[::ffff:1.2.3.4]:1", AF_INET6, 1},
    {"scope by name", "[fe80::1%lo]:1", "[fe80::1%lo]:1", AF_INET6, 1},
    {"scope by number", "[fe80::1%1]:1", "[fe80::1%lo]:1", AF_INET6, 1},
    {"scope by a number without interface", "[fe80::1%4294967295]:1", "[fe80::1%4294967295]:1",
     AF_INET6, 1},
    {"unix path", "unix:/run/x.sock", "unix:/run/x.sock", AF_UNIX, 0},
    {"unix path with colons", "unix:/a:b]:1", "unix:/a:b]:1", AF_UNIX, 0},
    {"relative unix path", "unix:x", "unix:x", AF_UNIX, 0},
    {"abstract unix name", "unix:@name", "unix:@name", AF_UNIX, 0},
    {"abstract unix name with @", "unix:@@", "unix:@@", AF_UNIX, 0},
};

START_TEST(what_is_well_formed_is_understood_and_comes_back)
{
    const struct good *row = &goods[_i];
    char text[HS_ADDR_TEXT_SIZE];
    struct hs_endpoint ep, again;

    ASSERT_OK(hs_endpoint_parse(row->text, strlen(row->text), fresh(), &ep));
    ck_assert_msg(ep.family == row->want_family, "%s: family %d", row->title, ep.family);
    if (ep.family != AF_UNIX)
        ck_assert_uint_eq(ep.port, row->want_port);
    if (ep.family == AF_INET || ep.family == AF_INET6)
        ck_assert_uint_eq(hs_addr_port(&ep.addr), row->want_port);
    ck_assert_str_eq(hs_endpoint_text(&ep, text, sizeof(text)), row->want_text);
    ASSERT_OK(hs_endpoint_parse(text, strlen(text), fresh(), &again));
    ck_assert_int_eq(again.family, ep.family);
    ck_assert_str_eq(again.host, ep.family == AF_UNSPEC ? ep.host : again.host);
    if (ep.family != AF_UNSPEC)
        ck_assert(hs_addr_equal(&again.addr, &ep.addr));
}
END_TEST

#define TEN "1234567890"

static const struct bad {
    const char *title, *text, *want_in_message;
    size_t len; /* 0: all of text */
} bads[] = {
    {"empty", "", "host:port", 0},
    {"no port", "example.org", "as in 'example.org:443'", 0},
    {"a port alone", "8080", "as in '127.0.0.1:8080'", 0},
    {"a URL", "http://h/x", "'h:80'", 0},
    {"a URL of TLS", "https://h", "'h:443'", 0},
    {"a URL with a port", "redis://h:6379/0", "'h:6379'", 0},
    {"a URL of another scheme", "redis://h", "'h:PORT'", 0},
    {"only the middle of a URL", "://", "':PORT'", 0},
    {"an abstract name of 108 bytes", "unix:@" TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN "12345678",
     "108 bytes, the limit is 107", 0},
    {"nothing behind the colon", "example.org:", "no port", 0},
    {"nothing behind the bracket's colon", "[::1]:", "no port", 0},
    {"port too high", "h:65536", "0..65535", 0},
    {"port of six digits", "h:000080", "0..65535", 0},
    {"negative port", "h:-1", "0..65535", 0},
    {"signed port", "h:+1", "0..65535", 0},
    {"port with a blank", "h: 1", "0..65535", 0},
    {"port in hex", "h:0x1", "0..65535", 0},
    {"port by name", "h:http", "0..65535", 0},
    {"a NUL in the port", "h:8\0000", "0..65535", 5},
    {"a NUL in the host", "a\0b:80", "NUL", 6},
    {"a NUL in the literal", "[::1\0]:80", "NUL", 9},
    {"IPv6 without brackets", "::1:80", "[v6]:port", 0},
    {"open bracket", "[::1", "[v6]:port", 0},
    {"open bracket with a port", "[::1:80", "[v6]:port", 0},
    {"something after the bracket", "[::1]x:80", "[v6]:port", 0},
    {"a name in brackets", "[localhost]:80", "brackets", 0},
    {"IPv4 in brackets", "[127.0.0.1]:80", "brackets", 0},
    {"nothing in brackets", "[]:80", "brackets", 0},
    {"bad IPv6", "[::g]:80", "valid IPv6", 0},
    {"scope without address", "[%lo]:80", "brackets", 0},
    {"unknown scope", "[fe80::1%nosuchif0]:80", "network interface", 0},
    {"empty scope", "[fe80::1%]:80", "network interface", 0},
    {"scope beyond 32 bits", "[fe80::1%4294967296]:80", "network interface", 0},
    {"scope with a tail", "[fe80::1%1x]:80", "network interface", 0},
    {"scope on IPv4", "127.0.0.1%lo:80", "valid IPv6", 0},
    {"a blank in the name", "a b:80", "0x20", 0},
    {"a line feed in the name", "a\n:80", "0x0a", 0},
    {"DEL in the name", "a\x7f:80", "0x7f", 0},
    {"empty unix path", "unix:", "empty", 0},
    {"a NUL in a unix path", "unix:/a\0b", "NUL", 9},
};

START_TEST(what_is_malformed_is_refused_and_named)
{
    const struct bad *row = &bads[_i];
    struct hs_endpoint ep = {.family = 77};

    ASSERT_ERR(HS_E_INVALID,
               hs_endpoint_parse(row->text, row->len ? row->len : strlen(row->text), fresh(), &ep));
    ck_assert_msg(strstr(last_error()->msg, row->want_in_message) != NULL,
                  "%s: \"%s\" lacks \"%s\"", row->title, last_error()->msg, row->want_in_message);
    ck_assert_int_eq(ep.family, 77); /* untouched */
}
END_TEST

/* labels of 63 bytes, 253 bytes in all */
static void
longest_name(char name[254])
{
    memset(name, 'a', 253);
    for (int i = 63; i < 253; i += 64)
        name[i] = '.';
    name[253] = '\0';
}

START_TEST(names_are_bounded_by_rfc_1035)
{
    struct hs_endpoint ep;
    char name[300] = "";

    longest_name(name);
    ASSERT_OK(hs_endpoint_from_host(name, 253, 1, fresh(), &ep));
    name[253] = '.';
    ASSERT_OK(hs_endpoint_from_host(name, 254, 1, fresh(), &ep));
    memset(name + 253, 'a', 40);
    ASSERT_ERR(HS_E_INVALID, hs_endpoint_from_host(name, 254, 1, fresh(), &ep));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "253"));
    ASSERT_ERR(HS_E_INVALID, hs_endpoint_from_host(name, 290, 1, fresh(), &ep));
    memset(name, 'a', 64);
    ASSERT_ERR(HS_E_INVALID, hs_endpoint_from_host(name, 64, 1, fresh(), &ep));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "label"));
    ASSERT_OK(hs_endpoint_from_host(name, 63, 1, fresh(), &ep));
}
END_TEST

START_TEST(ports_as_numbers_are_bounded)
{
    struct hs_endpoint ep;

    ASSERT_ERR(HS_E_INVALID, hs_endpoint_from_host("h", 1, -1, fresh(), &ep));
    ASSERT_ERR(HS_E_INVALID, hs_endpoint_from_host("h", 1, 65536, fresh(), &ep));
    ASSERT_OK(hs_endpoint_from_host("h", 1, 65535, fresh(), &ep));
    ASSERT_OK(hs_endpoint_from_host("", 0, 1, fresh(), &ep));
    ck_assert_int_eq(ep.family, AF_UNSPEC);
    ASSERT_OK(hs_endpoint_from_host("::1", 3, 1, fresh(), &ep)); /* no brackets here */
    ck_assert_int_eq(ep.family, AF_INET6);
}
END_TEST

START_TEST(unix_paths_are_bounded_and_may_be_abstract)
{
    char path[200], text[HS_ADDR_TEXT_SIZE];
    struct hs_endpoint ep, again;

    memset(path, 'p', sizeof(path));
    ASSERT_OK(hs_endpoint_from_path(path, 107, fresh(), &ep));
    ck_assert_uint_eq(ep.addr.len, offsetof(struct sockaddr_un, sun_path) + 108);
    ASSERT_ERR(HS_E_INVALID, hs_endpoint_from_path(path, 108, fresh(), &ep));
    ASSERT_ERR(HS_E_INVALID, hs_endpoint_from_path("", 0, fresh(), &ep));
    ASSERT_OK(hs_endpoint_from_path("\0abc", 4, fresh(), &ep));
    ck_assert_uint_eq(ep.addr.len, offsetof(struct sockaddr_un, sun_path) + 4);
    ck_assert_str_eq(hs_endpoint_text(&ep, text, sizeof(text)), "unix:@abc");
    ASSERT_OK(hs_endpoint_parse(text, strlen(text), fresh(), &again));
    ck_assert(hs_addr_equal(&ep.addr, &again.addr));
    memcpy(path, "unix:@", 6);
    ASSERT_OK(hs_endpoint_parse(path, 5 + 108, fresh(), &ep));
    ck_assert_uint_eq(ep.addr.len, sizeof(struct sockaddr_un));
    (void)hs_endpoint_text(&ep, text, sizeof(text));
    ASSERT_OK(hs_endpoint_parse(text, strlen(text), fresh(), &again));
    ck_assert(hs_addr_equal(&ep.addr, &again.addr));
    ASSERT_ERR(HS_E_INVALID, hs_endpoint_parse(path, 5 + 109, fresh(), &ep));
    ASSERT_ERR(HS_E_INVALID, hs_endpoint_parse(path, sizeof(path), fresh(), &ep));
}
END_TEST

START_TEST(text_never_overruns_a_small_buffer)
{
    struct hs_addr addr = addr_of("[2001:db8::1]:65535");
    char text[HS_ADDR_TEXT_SIZE];

    for (size_t size = 1; size < 30; size++) {
        memset(text, '#', sizeof(text));
        (void)hs_addr_text(&addr, text, size);
        ck_assert_uint_lt(strlen(text), size);
        ck_assert_int_eq(text[size], '#');
    }
    addr.len = 0;
    ck_assert_str_eq(hs_addr_text(&addr, text, sizeof(text)), "(none)");
}
END_TEST

START_TEST(equal_means_address_port_and_scope)
{
    struct hs_addr a = addr_of("[fe80::1%1]:80"), b = a;

    ck_assert(hs_addr_equal(&a, &b));
    hs_addr_set_port(&b, 81);
    ck_assert(!hs_addr_equal(&a, &b));
    b = addr_of("[fe80::1%2]:80");
    ck_assert(!hs_addr_equal(&a, &b));
    b = addr_of("127.0.0.1:80");
    ck_assert(!hs_addr_equal(&a, &b));
    a = addr_of("127.0.0.1:80");
    ck_assert(hs_addr_equal(&a, &b));
    a = addr_of("unix:/a");
    b = addr_of("unix:/b");
    ck_assert(!hs_addr_equal(&a, &b));
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("addr");

    tcase_add_loop_test(tc, what_is_well_formed_is_understood_and_comes_back, 0, LENGTH(goods));
    tcase_add_loop_test(tc, what_is_malformed_is_refused_and_named, 0, LENGTH(bads));
    tcase_add_test(tc, names_are_bounded_by_rfc_1035);
    tcase_add_test(tc, ports_as_numbers_are_bounded);
    tcase_add_test(tc, unix_paths_are_bounded_and_may_be_abstract);
    tcase_add_test(tc, text_never_overruns_a_small_buffer);
    tcase_add_test(tc, equal_means_address_port_and_scope);
    return run_case(tc);
}
