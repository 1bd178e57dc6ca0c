/* test_frame.c: framings, the search for frames, the codec.
 *
 * What a stream means must not depend on how its bytes were cut: each row of the table of streams
 * is fed in pieces of every size. Outcomes are texts: <payload> for a frame, "large " for one that
 * was skipped, "LARGE", "KEPT", "BAD" and "TRUNC" for endings, "." for a clean one.
 */
#include "support.h"

#include "../../csrc/stream/frame.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1
#define DELIM(text)                                                                                \
    .kind = HS_FRAMING_DELIMITER, .sep = (const uint8_t *)(text), .sep_len = sizeof(text) - 1
#define LINE(end) .kind = HS_FRAMING_LINE, .ending = HS_LINE_##end
#define PREFIX(bytes) .kind = HS_FRAMING_PREFIX, .width = (bytes)
#define SKIP(n) .too_long = HS_TOO_LONG_SKIP, .max_skip = (n)
#define KEEP .too_long = HS_TOO_LONG_KEEP

/* ---- Streams ------------------------------------------------------------------------------- */

struct text {
    char s[4096];
    size_t n;
};

static void
add(struct text *t, const char *s)
{
    t->n += (size_t)snprintf(t->s + t->n, sizeof(t->s) - t->n, "%s", s);
    ck_assert_uint_lt(t->n, sizeof(t->s));
}

static void
add_frame(struct text *t, const uint8_t *data, size_t len)
{
    char byte[5];

    add(t, "<");
    for (size_t i = 0; i < len; i++) {
        (void)snprintf(byte, sizeof(byte), isprint(data[i]) ? "%c" : "\\%02x", data[i]);
        add(t, byte);
    }
    add(t, ">");
}

/* Takes what is complete; false when the stream has come to its end. */
static bool
drain(struct hs_decoder *d, struct text *t)
{
    struct hs_oversize o;
    const uint8_t *data;
    size_t len;

    for (;;) {
        hs_err rv = hs_decoder_next(d, fresh(), &data, &len);

        switch (rv) {
        case HS_OK:
            add_frame(t, data, len);
            continue;
        case HS_WANT:
            return true;
        case HS_E_FRAME_TOO_LARGE:
            hs_decoder_oversize(d, &o);
            if (o.recoverable && o.discarded > 0) {
                ck_assert(o.size_known);
                add(t, "large ");
                continue;
            }
            add(t, o.recoverable ? "KEPT" : "LARGE");
            break;
        case HS_E_TRUNCATED:
            add(t, "TRUNC");
            break;
        default:
            ASSERT_ERR(HS_E_BAD_FRAME, rv);
            add(t, "BAD");
            break;
        }
        ck_assert_str_ne(last_error()->msg, "");
        return false;
    }
}

static void
outcome(const struct hs_framing *f, const uint8_t *in, size_t len, size_t piece, struct text *ret)
{
    struct hs_decoder *d;
    bool goes_on = true;

    *ret = (struct text){.n = 0};
    ASSERT_OK(hs_decoder_new(f, fresh(), &d));
    for (size_t at = 0; goes_on && at < len; at += piece) {
        ASSERT_OK(hs_decoder_feed(d, in + at, piece < len - at ? piece : len - at, fresh()));
        goes_on = drain(d, ret);
    }
    if (goes_on) {
        hs_err rv = hs_decoder_eof(d, fresh());

        if (rv != HS_OK)
            ASSERT_ERR(HS_E_TRUNCATED, rv);
        add(ret, rv == HS_OK ? "." : "TRUNC");
    }
    hs_decoder_free(d);
}

static const struct stream {
    struct hs_framing f;
    const uint8_t *in;
    size_t len;
    const char *want;
} streams[] = {
    /* lines: with LF, empty ones, the last one cut */
    {{LINE(LF), .max_size = 9}, BYTES("a\n\nbc\n"), "<a><><bc>."},
    {{LINE(LF), .max_size = 9}, BYTES("a\nbc"), "<a>TRUNC"},
    {{LINE(LF), .max_size = 9}, BYTES("a\r\n"), "<a\\0d>."},
    {{LINE(LF), .max_size = 9, .keep = true}, BYTES("a\n\n"), "<a\\0a><\\0a>."},
    {{LINE(LF), .max_size = 9}, BYTES(""), "."},
    /* lines: exactly the limit, one more, a limit of nothing */
    {{LINE(LF), .max_size = 3}, BYTES("abc\nabcd\n"), "<abc>LARGE"},
    {{LINE(LF), .max_size = 3}, BYTES("abc"), "TRUNC"},
    {{LINE(LF), .max_size = 3}, BYTES("abcd"), "LARGE"},
    {{LINE(LF), .max_size = 0}, BYTES("\n\na\n"), "<><>LARGE"},
    /* lines: strict CR LF */
    {{LINE(CRLF), .max_size = 9}, BYTES("a\r\n\r\nb\r\n"), "<a><><b>."},
    {{LINE(CRLF), .max_size = 9, .keep = true}, BYTES("a\r\n"), "<a\\0d\\0a>."},
    {{LINE(CRLF), .max_size = 9}, BYTES("a\r"), "TRUNC"},
    /* lines: the ways to smuggle */
    {{LINE(CRLF), .max_size = 9}, BYTES("a\nb\r\n"), "BAD"},
    {{LINE(CRLF), .max_size = 9}, BYTES("a\rb\r\n"), "BAD"},
    {{LINE(CRLF), .max_size = 9}, BYTES("a\r\r\n"), "BAD"},
    {{LINE(CRLF), .max_size = 9}, BYTES("\n"), "BAD"},
    {{LINE(CRLF), .max_size = 9}, BYTES("a\r\n.\n"), "<a>BAD"},
    {{LINE(CRLF), .max_size = 9}, BYTES("a\r\n.\r.\r\n"), "<a>BAD"},
    /* lines: strict and the limit; what comes first decides */
    {{LINE(CRLF), .max_size = 3}, BYTES("abc\r\n"), "<abc>."},
    {{LINE(CRLF), .max_size = 3}, BYTES("abc\n"), "BAD"},
    {{LINE(CRLF), .max_size = 3}, BYTES("abcd\n"), "LARGE"},
    {{LINE(CRLF), .max_size = 3}, BYTES("abcd\r\n"), "LARGE"},
    {{LINE(CRLF), .max_size = 3}, BYTES("abc\rx"), "BAD"},
    {{LINE(CRLF), .max_size = 3}, BYTES("abcd\rx"), "LARGE"},
    /* lines: either ending; only one CR goes */
    {{LINE(ANY), .max_size = 9}, BYTES("a\nb\r\n\r\n\n"), "<a><b><><>."},
    {{LINE(ANY), .max_size = 9}, BYTES("a\r\r\n"), "<a\\0d>."},
    {{LINE(ANY), .max_size = 9}, BYTES("a\rb\n"), "<a\\0db>."},
    {{LINE(ANY), .max_size = 9, .keep = true}, BYTES("a\r\nb\n"), "<a\\0d\\0a><b\\0a>."},
    {{LINE(ANY), .max_size = 3}, BYTES("abc\r\nabc\n"), "<abc><abc>."},
    {{LINE(ANY), .max_size = 3}, BYTES("abc\r\r\n"), "LARGE"},
    /* delimiters: one byte, any byte */
    {{DELIM("\0"), .max_size = 9}, BYTES("a\0\0b"), "<a><>TRUNC"},
    {{DELIM("\xff"), .max_size = 9, .keep = true}, BYTES("a\xff"), "<a\\ff>."},
    /* delimiters: several bytes, false beginnings */
    {{DELIM("--x"), .max_size = 9}, BYTES("a---x--x-----x"), "<a-><><--->."},
    {{DELIM("--x"), .max_size = 9, .keep = true}, BYTES("a--x"), "<a--x>."},
    {{DELIM("aab"), .max_size = 9}, BYTES("aaaab"), "<aa>."},
    {{DELIM("abab"), .max_size = 9}, BYTES("abaabababab"), "<aba><>."},
    {{DELIM("\r\n.\r\n"), .max_size = 99}, BYTES("a\r\n.\rb\r\n.\r\n"), "<a\\0d\\0a.\\0db>."},
    /* delimiters: the limit, and beginnings of a delimiter at the limit */
    {{DELIM("--x"), .max_size = 3}, BYTES("abc--xabcd--x"), "<abc>LARGE"},
    {{DELIM("--x"), .max_size = 3}, BYTES("abc--"), "TRUNC"},
    {{DELIM("--x"), .max_size = 3}, BYTES("abc--y"), "LARGE"},
    {{DELIM("--x"), .max_size = 3}, BYTES("abc---x"), "LARGE"},
    {{DELIM("--x"), .max_size = 0}, BYTES("--x--x"), "<><>."},
    /* delimiters: longer than what is remembered in place */
    {{DELIM("0123456789"), .max_size = 9}, BYTES("a012345678901234567890"), "<a><>TRUNC"},
    {{DELIM("0123456789"), .max_size = 9}, BYTES("0120123456789"), "<012>."},
    /* prefixes: every width, both orders */
    {{PREFIX(1), .max_size = 9}, BYTES("\1a\0\2bc"), "<a><><bc>."},
    {{PREFIX(2), .max_size = 9}, BYTES("\0\1a\0\0\0\2bc"), "<a><><bc>."},
    {{PREFIX(2), .little_endian = true, .max_size = 9}, BYTES("\1\0a\2\0bc"), "<a><bc>."},
    {{PREFIX(3), .max_size = 9}, BYTES("\0\0\1a"), "<a>."},
    {{PREFIX(3), .little_endian = true, .max_size = 9}, BYTES("\1\0\0a"), "<a>."},
    {{PREFIX(4), .max_size = 9}, BYTES("\0\0\0\1a"), "<a>."},
    {{PREFIX(5), .max_size = 9}, BYTES("\0\0\0\0\1a"), "<a>."},
    {{PREFIX(6), .little_endian = true, .max_size = 9}, BYTES("\1\0\0\0\0\0a"), "<a>."},
    {{PREFIX(7), .max_size = 9}, BYTES("\0\0\0\0\0\0\1a"), "<a>."},
    {{PREFIX(8), .max_size = 9}, BYTES("\0\0\0\0\0\0\0\1a"), "<a>."},
    {{PREFIX(8), .little_endian = true, .max_size = 9}, BYTES("\1\0\0\0\0\0\0\0a"), "<a>."},
    /* prefixes: kept header, truncated header, truncated payload */
    {{PREFIX(2), .max_size = 9, .keep = true}, BYTES("\0\1a\0\0"), "<\\00\\01a><\\00\\00>."},
    {{PREFIX(2), .max_size = 9}, BYTES("\0"), "TRUNC"},
    {{PREFIX(2), .max_size = 9}, BYTES("\0\3ab"), "TRUNC"},
    /* prefixes: the limit, declared sizes without measure */
    {{PREFIX(1), .max_size = 3}, BYTES("\3abc\4abcd"), "<abc>LARGE"},
    {{PREFIX(1), .max_size = 0}, BYTES("\0\0\1a"), "<><>LARGE"},
    {{PREFIX(8), .max_size = 9}, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"), "LARGE"},
    {{PREFIX(8), .max_size = 9}, BYTES("\x80\0\0\0\0\0\0\0"), "LARGE"},
    {{PREFIX(4), .max_size = 9}, BYTES("\xff\xff\xff\xff"), "LARGE"},
    /* prefixes: offset, adjustment, header included, each and all */
    {{PREFIX(1), .offset = 2, .max_size = 9}, BYTES("hh\1ahh\0"), "<a><>."},
    {{PREFIX(1), .offset = 2, .max_size = 9, .keep = true}, BYTES("hh\1a"), "<hh\\01a>."},
    {{PREFIX(1), .offset = 2, .max_size = 9}, BYTES("hh"), "TRUNC"},
    {{PREFIX(1), .adjustment = 2, .max_size = 9}, BYTES("\1abc\0ab"), "<abc><ab>."},
    {{PREFIX(1), .adjustment = -2, .max_size = 9}, BYTES("\3a\2"), "<a><>."},
    {{PREFIX(2), .includes_header = true, .max_size = 9}, BYTES("\0\3a\0\2"), "<a><>."},
    {{PREFIX(1), .offset = 1, .includes_header = true, .adjustment = 1, .max_size = 9},
     BYTES("h\2ah\1"),
     "<a><>."},
    {{PREFIX(2), .little_endian = true, .offset = 1, .includes_header = true, .max_size = 9},
     BYTES("h\4\0a"),
     "<a>."},
    /* prefixes: less than nothing */
    {{PREFIX(1), .adjustment = -2, .max_size = 9}, BYTES("\1a"), "BAD"},
    {{PREFIX(2), .includes_header = true, .max_size = 9}, BYTES("\0\1"), "BAD"},
    {{PREFIX(2), .includes_header = true, .max_size = 9}, BYTES("\0\0"), "BAD"},
    {{PREFIX(1), .offset = 1, .includes_header = true, .max_size = 9}, BYTES("h\1"), "BAD"},
    {{PREFIX(1), .adjustment = 1, .includes_header = true, .max_size = 9}, BYTES("\0"), "<>."},
    /* prefixes: the limit holds for the final size */
    {{PREFIX(1), .adjustment = 2, .max_size = 3}, BYTES("\1abc\2"), "<abc>LARGE"},
    {{PREFIX(1), .adjustment = -2, .max_size = 3}, BYTES("\5abc\6"), "<abc>LARGE"},
    /* prefixes: beyond 64 bits */
    {{PREFIX(8), .adjustment = 1, .max_size = 9}, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"), "BAD"},
    {{PREFIX(8), .adjustment = 1, .max_size = 9},
     BYTES("\xff\xff\xff\xff\xff\xff\xff\xfe"),
     "LARGE"},
    /* varints: the shortest form of everything */
    {{PREFIX(0), .max_size = 9}, BYTES("\0\1a\2bc"), "<><a><bc>."},
    {{PREFIX(0), .max_size = 200}, BYTES("\x80\1"), "TRUNC"},
    {{PREFIX(0), .max_size = 9}, BYTES("\x80\1"), "LARGE"},
    {{PREFIX(0), .max_size = 9}, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\1"), "LARGE"},
    {{PREFIX(0), .offset = 1, .adjustment = -1, .max_size = 9, .keep = true},
     BYTES("h\2a"),
     "<h\\02a>."},
    {{PREFIX(0), .max_size = 9}, BYTES("\x80"), "TRUNC"},
    {{PREFIX(0), .max_size = 9}, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "TRUNC"},
    /* varints: overlong, too big */
    {{PREFIX(0), .max_size = 9}, BYTES("\x80\0"), "BAD"},
    {{PREFIX(0), .max_size = 9}, BYTES("\x81\x80\0"), "BAD"},
    {{PREFIX(0), .max_size = 9}, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\2"), "BAD"},
    {{PREFIX(0), .max_size = 9}, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81"), "BAD"},
    {{PREFIX(0), .max_size = 9}, BYTES("\x80\x80\x80\x80\x80\x80\x80\x80\x80\0"), "BAD"},
    /* skip: lines, also at the very end of the allowance */
    {{LINE(LF), .max_size = 3, SKIP(9)}, BYTES("abcd\nab\n"), "large <ab>."},
    {{LINE(LF), .max_size = 3, SKIP(9)}, BYTES("12345678\nab\n"), "large <ab>."},
    {{LINE(LF), .max_size = 3, SKIP(9)}, BYTES("123456789\nab\n"), "LARGE"},
    {{LINE(LF), .max_size = 3, SKIP(9)}, BYTES("1234567890"), "LARGE"},
    {{LINE(LF), .max_size = 3, SKIP(9)}, BYTES("abcd\nabcde\nab\n"), "large large <ab>."},
    {{LINE(LF), .max_size = 3, SKIP(9)}, BYTES("abcdef"), "TRUNC"},
    {{LINE(ANY), .max_size = 3, SKIP(9)}, BYTES("abcd\r\nab\r\n"), "large <ab>."},
    {{LINE(ANY), .max_size = 3, SKIP(9)}, BYTES("1234567\r\nab\r\n"), "large <ab>."},
    {{LINE(ANY), .max_size = 3, SKIP(9)}, BYTES("12345678\r\nab\r\n"), "LARGE"},
    /* skip: strict lines stay strict */
    {{LINE(CRLF), .max_size = 3, SKIP(9)}, BYTES("abcd\r\nab\r\n"), "large <ab>."},
    {{LINE(CRLF), .max_size = 3, SKIP(9)}, BYTES("abcd\nab\r\n"), "BAD"},
    {{LINE(CRLF), .max_size = 3, SKIP(9)}, BYTES("abcde\rab\r\n"), "BAD"},
    {{LINE(CRLF), .max_size = 3, SKIP(9)}, BYTES("1234567890\n"), "LARGE"},
    /* skip: delimiters */
    {{DELIM("--x"), .max_size = 3, SKIP(9)}, BYTES("abcd--xab--x"), "large <ab>."},
    {{DELIM("--x"), .max_size = 3, SKIP(9)}, BYTES("123456--xab--x"), "large <ab>."},
    {{DELIM("--x"), .max_size = 3, SKIP(9)}, BYTES("1234567--xab--x"), "LARGE"},
    {{DELIM("--x"), .max_size = 3, SKIP(9)}, BYTES("ab-----xab--x"), "large <ab>."},
    {{DELIM("0123456789"), .max_size = 3, SKIP(99)},
     BYTES("abcd0120123456789a0123456789"),
     "large <a>."},
    /* skip: prefixes, header and all; declared too large to be skipped */
    {{PREFIX(1), .max_size = 3, SKIP(9)}, BYTES("\4abcd\1a"), "large <a>."},
    {{PREFIX(1), .max_size = 3, SKIP(9)},
     BYTES("\x08"
           "12345678\1a"),
     "large <a>."},
    {{PREFIX(1), .max_size = 3, SKIP(9)},
     BYTES("\x09"
           "123456789\1a"),
     "LARGE"},
    {{PREFIX(1), .max_size = 3, SKIP(9)}, BYTES("\4abc"), "TRUNC"},
    {{PREFIX(0), .max_size = 3, SKIP(200), .offset = 1}, BYTES("h\4abcdh\1a"), "large <a>."},
    {{PREFIX(8), .max_size = 3, SKIP(9)}, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"), "LARGE"},
    {{PREFIX(8), .max_size = 3, SKIP(HS_FRAME_SIZE_MAX)},
     BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"),
     "LARGE"},
    {{PREFIX(8), .max_size = 3, SKIP(SIZE_MAX)},
     BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"),
     "LARGE"},
    /* keep */
    {{LINE(LF), .max_size = 3, KEEP}, BYTES("ab\nabcd\n"), "<ab>KEPT"},
    {{DELIM("--x"), .max_size = 3, KEEP}, BYTES("abcd--x"), "KEPT"},
    {{PREFIX(1), .max_size = 3, KEEP}, BYTES("\4abcd"), "KEPT"},
};

START_TEST(a_stream_means_the_same_however_it_is_cut)
{
    const struct stream *row = &streams[_i];
    struct text got;

    for (size_t piece = row->len + 1; piece > 0; piece--) {
        outcome(&row->f, row->in, row->len, piece, &got);
        ck_assert_msg(strcmp(row->want, got.s) == 0,
                      "row %d in pieces of %zu\n  wanted: %s\n  got:    %s", _i, piece, row->want,
                      got.s);
    }
}
END_TEST

/* Every mix of a length field, against arithmetic on 128 bits. */
START_TEST(every_length_field_is_read_as_it_says)
{
    static const int64_t adjustments[] = {0, 1, -1, 300, -300};
    const unsigned width = (unsigned)_i;

    for (int mix = 0; mix < 4 * 3 * 5; mix++) {
        struct hs_framing f = {PREFIX(width),
                               .max_size = width == 1 ? 301 : 1000,
                               .little_endian = (mix & 1) != 0,
                               .includes_header = (mix & 2) != 0,
                               .offset = (size_t)(mix / 4 % 3) * 7,
                               .adjustment = adjustments[mix / 12]};

        if (hs_framing_check(&f, fresh()) != HS_OK)
            continue; /* one byte cannot say as much */
        for (uint64_t value = 0; value < 400 && (width > 1 || value < 256); value += 3) {
            uint8_t in[32] = {0};
            struct hs_frame frame;
            struct hs_oversize o;
            size_t scanned = 0, need = 0, header = f.offset + width;
            int64_t want =
                (int64_t)value + f.adjustment - (f.includes_header ? (int64_t)header : 0);
            hs_err rv;

            for (unsigned i = 0; i < width; i++)
                in[f.offset + (f.little_endian ? i : width - 1 - i)] = (uint8_t)(value >> 8 * i);
            rv = hs_framing_find(&f, in, header, &scanned, &need, fresh(), &frame, &o);
            if (want < 0)
                ASSERT_ERR(HS_E_BAD_FRAME, rv);
            else if (want > (int64_t)f.max_size)
                ASSERT_ERR(HS_E_FRAME_TOO_LARGE, rv);
            else if (want == 0)
                ASSERT_OK(rv);
            else
                ASSERT_ERR(HS_WANT, rv);
            if (rv == HS_WANT)
                ck_assert_int_eq((int64_t)need, want);
        }
    }
}
END_TEST

/* A separator that straddles two reads at each of its bytes, in front of and behind other bytes. */
START_TEST(a_separator_may_straddle_reads_at_every_byte)
{
    static const char sep[] = "0123456789abcdef0123456789";
    size_t sep_len = (size_t)_i;
    struct hs_framing f = {.kind = HS_FRAMING_DELIMITER,
                           .sep = (const uint8_t *)sep,
                           .sep_len = sep_len,
                           .max_size = 64};
    uint8_t in[64];
    struct text got, want = {.n = 0};

    for (size_t before = 0; before < 20; before++) {
        memset(in, '0', before);
        if (before > 0)
            in[before - 1] = '!';
        memcpy(in + before, sep, sep_len);
        in[before + sep_len] = '!';
        want = (struct text){.n = 0};
        if (sep_len == 1) /* the padding is made of it */
            memset(in, '+', before);
        add_frame(&want, in, before);
        add(&want, "TRUNC");
        for (size_t piece = 1; piece <= before + sep_len + 1; piece++) {
            outcome(&f, in, before + sep_len + 1, piece, &got);
            ck_assert_str_eq(want.s, got.s);
        }
    }
}
END_TEST

/* ---- Checking ------------------------------------------------------------------------------ */

static const uint8_t zeros[HS_FRAME_SEP_MAX + 1];

static const struct checked {
    struct hs_framing f;
    const char *want_message; /* a part of it; NULL: fine */
} checks[] = {
    /* what is fine, if unusual */
    {{LINE(LF)}, NULL},
    {{.kind = HS_FRAMING_DELIMITER, .sep = zeros, .sep_len = HS_FRAME_SEP_MAX}, NULL},
    {{PREFIX(8), .max_size = HS_FRAME_SIZE_MAX}, NULL},
    {{PREFIX(1), .max_size = 255}, NULL},
    {{PREFIX(1), .adjustment = 45, .max_size = 300}, NULL},
    {{PREFIX(1), .adjustment = -255}, NULL},
    {{PREFIX(2), .offset = HS_FRAME_OFFSET_MAX - 2, .includes_header = true}, NULL},
    {{LINE(LF), .width = 99, .offset = 999999}, NULL}, /* of another kind */
    {{LINE(LF), .max_size = 3, SKIP(4)}, NULL},
    /* the policy */
    {{LINE(LF), .max_size = HS_FRAME_SIZE_MAX + 1}, "max_size must be at most"},
    {{LINE(LF), .max_skip = 7}, "max_skip 7"},
    {{LINE(LF), KEEP, .max_skip = 7}, "max_skip 7"},
    {{LINE(LF), .max_size = 3, SKIP(3)}, "max_skip 3 must be more than max_size 3"},
    {{LINE(LF), .too_long = (enum hs_too_long)9}, "too_long has no value 9"},
    {{.kind = (enum hs_framing_kind)9}, "kind has no value 9"},
    {{.kind = HS_FRAMING_LINE, .ending = (enum hs_line_ending)9}, "ending has no value 9"},
    /* separators */
    {{DELIM("")}, "separator must not be empty"},
    {{.kind = HS_FRAMING_DELIMITER, .sep_len = 1}, "separator must not be empty"},
    {{.kind = HS_FRAMING_DELIMITER, .sep = zeros, .sep_len = HS_FRAME_SEP_MAX + 1},
     "at most 65535 bytes, not 65536"},
    /* length fields */
    {{PREFIX(9)}, "width must be 1 to 8, or 0 for a varint, not 9"},
    {{PREFIX(4), .offset = HS_FRAME_OFFSET_MAX + 1}, "offset must be at most 65535, not 65536"},
    {{PREFIX(0), .includes_header = true}, "includes_header cannot be used with a varint"},
    {{PREFIX(0), .little_endian = true}, "little_endian cannot be used with a varint"},
    {{PREFIX(4), .adjustment = INT64_MIN}, "adjustment must be between"},
    {{PREFIX(4), .adjustment = INT64_MAX}, "adjustment must be between"},
    /* no frame could ever come */
    {{PREFIX(1), .adjustment = -256}, "adjustment -256 makes every length"},
    {{PREFIX(1), .offset = 255, .includes_header = true}, "less the header makes every length"},
    {{PREFIX(4), .adjustment = 10, .max_size = 9},
     "adjustment 10 puts every frame beyond max_size 9"},
    /* a limit that the field cannot reach promises too much */
    {{PREFIX(1), .max_size = 256}, "max_size 256 is more than a width of 1 can declare (255)"},
    {{PREFIX(1), .includes_header = true, .max_size = 255}, "can declare (254)"},
};

START_TEST(impossible_framings_are_refused_by_name)
{
    const struct checked *row = &checks[_i];
    struct hs_decoder *d = NULL;

    ASSERT_ERR(row->want_message != NULL ? HS_E_INVALID : HS_OK,
               hs_framing_check(&row->f, fresh()));
    if (row->want_message != NULL)
        ck_assert_msg(strstr(last_error()->msg, row->want_message) != NULL, "row %d: %s", _i,
                      last_error()->msg);
    ASSERT_ERR(row->want_message != NULL ? HS_E_INVALID : HS_OK,
               hs_decoder_new(&row->f, fresh(), &d));
    hs_decoder_free(d);
}
END_TEST

/* ---- Headers ------------------------------------------------------------------------------- */

static const struct header {
    struct hs_framing f;
    size_t payload;
    const uint8_t *want;
    size_t want_n;
    hs_err want_error;
} headers[] = {
    {{PREFIX(1), .max_size = 255}, 255, BYTES("\xff"), HS_OK},
    {{PREFIX(4), .max_size = 1000}, 258, BYTES("\0\0\1\2"), HS_OK},
    {{PREFIX(4), .little_endian = true, .max_size = 1000}, 258, BYTES("\2\1\0\0"), HS_OK},
    {{PREFIX(2), .includes_header = true, .offset = 1, .max_size = 99}, 0, BYTES("\0\3"), HS_OK},
    {{PREFIX(1), .adjustment = 5, .max_size = 99}, 5, BYTES("\0"), HS_OK},
    {{PREFIX(1), .adjustment = -5, .max_size = 99}, 5, BYTES("\x0a"), HS_OK},
    {{PREFIX(0), .max_size = 1000}, 0, BYTES("\0"), HS_OK},
    {{PREFIX(0), .max_size = 1000}, 127, BYTES("\x7f"), HS_OK},
    {{PREFIX(0), .max_size = 1000}, 128, BYTES("\x80\1"), HS_OK},
    {{PREFIX(0), .max_size = HS_FRAME_SIZE_MAX},
     HS_FRAME_SIZE_MAX,
     BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
     HS_OK},
    {{PREFIX(8), .max_size = HS_FRAME_SIZE_MAX},
     HS_FRAME_SIZE_MAX,
     BYTES("\x7f\xff\xff\xff\xff\xff\xff\xff"),
     HS_OK},
    /* beyond the limit, beyond the field, below zero */
    {{PREFIX(4), .max_size = 9}, 10, NULL, 0, HS_E_FRAME_TOO_LARGE},
    {{PREFIX(1), .adjustment = -5, .max_size = 250}, 250, BYTES("\xff"), HS_OK},
    {{PREFIX(1), .adjustment = 5, .max_size = 99}, 4, NULL, 0, HS_E_BAD_FRAME},
    {{LINE(LF), .max_size = 9}, 1, NULL, 0, HS_E_INVALID},
};

START_TEST(headers_say_what_the_reader_will_read)
{
    const struct header *row = &headers[_i];
    uint8_t out[HS_FRAME_HEADER_MAX];
    size_t n = 0, need, header;
    uint64_t payload;
    uint8_t in[HS_FRAME_HEADER_MAX + 8] = {0};

    ASSERT_OK(hs_framing_check(&row->f, fresh()));
    ASSERT_ERR(row->want_error,
               hs_framing_header(&row->f, row->payload, row->f.offset, fresh(), out, &n));
    if (row->want_error != HS_OK)
        return;
    ck_assert_uint_eq(n, row->want_n);
    ck_assert_mem_eq(out, row->want, n);
    memcpy(in + row->f.offset, out, n);
    ASSERT_OK(hs_prefix_parse(&row->f, in, row->f.offset + n, &need, fresh(), &header, &payload));
    ck_assert_uint_eq(payload, row->payload);
    ck_assert_uint_eq(header, row->f.offset + n);
}
END_TEST

START_TEST(what_stands_before_the_length_must_have_its_size)
{
    const struct hs_framing f = {PREFIX(2), .offset = 3, .max_size = 9};
    uint8_t out[HS_FRAME_HEADER_MAX];
    size_t n;

    ASSERT_ERR(HS_E_INVALID, hs_framing_header(&f, 1, 2, fresh(), out, &n));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "2 bytes"));
    ASSERT_OK(hs_framing_header(&f, 1, 3, fresh(), out, &n));
}
END_TEST

/* ---- The deframer -------------------------------------------------------------------------- */

static void
feed(struct hs_deframer *d, const void *bytes, size_t n)
{
    uint8_t *room;

    ASSERT_OK(hs_buf_reserve(&d->buf, n, &room));
    memcpy(room, bytes, n);
    hs_buf_commit(&d->buf, n);
}

static const char *
taken(struct hs_deframer *d, const struct hs_framing *f)
{
    static char text[128];
    struct hs_frame frame;
    size_t need;

    ASSERT_OK(hs_deframer_next(d, f, fresh(), &frame, &need));
    ck_assert_uint_lt(frame.len, sizeof(text));
    (void)snprintf(text, sizeof(text), "%.*s", (int)frame.len,
                   (const char *)d->buf.data + d->buf.head + frame.start);
    hs_deframer_drop(d, frame.consumed);
    return text;
}

static size_t
wanted(struct hs_deframer *d, const struct hs_framing *f)
{
    struct hs_frame frame;
    size_t need = 0;

    ASSERT_ERR(HS_WANT, hs_deframer_next(d, f, fresh(), &frame, &need));
    ck_assert_int_eq(last_error()->code, HS_OK);
    return need;
}

static hs_err
refused(struct hs_deframer *d, const struct hs_framing *f)
{
    struct hs_frame frame;
    size_t need;

    return hs_deframer_next(d, f, fresh(), &frame, &need);
}

START_TEST(need_says_how_much_is_missing_at_least)
{
    static const struct {
        struct hs_framing f;
        const uint8_t *in;
        size_t len, want;
    } rows[] = {
        {{LINE(LF), .max_size = 9}, BYTES("abc"), 1},
        {{LINE(LF), .max_size = 9}, BYTES(""), 1},
        {{LINE(CRLF), .max_size = 9}, BYTES("abc"), 2},
        {{LINE(CRLF), .max_size = 9}, BYTES("abc\r"), 1},
        {{LINE(ANY), .max_size = 9}, BYTES("abc\r"), 1},
        {{DELIM("--x"), .max_size = 9}, BYTES("abc"), 3},
        {{DELIM("--x"), .max_size = 9}, BYTES("abc--"), 1},
        {{PREFIX(4), .max_size = 9}, BYTES("\0"), 3},
        {{PREFIX(4), .offset = 2, .max_size = 9}, BYTES(""), 6},
        {{PREFIX(1), .max_size = 9}, BYTES("\5ab"), 3},
        {{PREFIX(0), .max_size = 9}, BYTES("\x81"), 1},
    };

    for (size_t i = 0; i < LENGTH(rows); i++) {
        struct hs_deframer d = {0};

        if (rows[i].len > 0)
            feed(&d, rows[i].in, rows[i].len);
        ck_assert_uint_eq(wanted(&d, &rows[i].f), rows[i].want);
        hs_deframer_fini(&d);
    }
}
END_TEST

/* All work is linear when nothing is scanned twice but the beginning of a separator. */
START_TEST(a_search_never_goes_back)
{
    const struct hs_framing framings[] = {
        {LINE(LF), .max_size = 9999},
        {LINE(CRLF), .max_size = 9999},
        {LINE(ANY), .max_size = 9999},
        {DELIM("--x"), .max_size = 9999},
        {DELIM("0123456789"), .max_size = 9999},
    };
    const struct hs_framing *f = &framings[_i];
    struct hs_terminator t = hs_framing_terminator(f);
    struct hs_deframer d = {0};
    size_t before = 0;

    for (int i = 0; i < 3000; i++) {
        feed(&d, i % 7 == 0 ? "-" : "0", 1);
        (void)wanted(&d, f);
        ck_assert_uint_ge(d.scanned, before);
        ck_assert_uint_ge(d.scanned + t.sep_len, hs_buf_len(&d.buf));
        before = d.scanned;
    }
    hs_deframer_fini(&d);
}
END_TEST

START_TEST(many_false_beginnings_settle_for_a_possible_one)
{
    char sep[200], in[600];
    struct hs_framing f = {.kind = HS_FRAMING_DELIMITER,
                           .sep = (uint8_t *)sep,
                           .sep_len = sizeof(sep),
                           .max_size = 9999};
    struct hs_deframer d = {0};
    size_t need;

    /* "ab" often, where the separator has it twice only. */
    memset(sep, 'z', sizeof(sep));
    memcpy(sep, "ac", 2);
    for (size_t i = 0; i < sizeof(in); i++)
        in[i] = "ab"[i % 2];
    feed(&d, in, sizeof(in));
    need = wanted(&d, &f);
    ck_assert_uint_le(need, sizeof(sep));
    feed(&d, sep, sizeof(sep));
    ck_assert_uint_eq(strlen(taken(&d, &(struct hs_framing){PREFIX(1), .max_size = 'a',
                                                            .adjustment = -(int)'a' + 3})),
                      3); /* another framing in between */
    ck_assert_uint_eq(refused(&d, &f), HS_OK);
    hs_deframer_fini(&d);
}
END_TEST

START_TEST(a_kept_frame_is_read_with_a_larger_limit)
{
    const struct hs_framing small = {LINE(LF), .max_size = 3, KEEP},
                            large = {LINE(LF), .max_size = 9};
    const struct hs_framing skip = {LINE(LF), .max_size = 3, SKIP(99)};
    struct hs_deframer d = {0};

    for (int i = 0; i < 2; i++) {
        feed(&d, "abcd", 4);
        ASSERT_ERR(HS_E_FRAME_TOO_LARGE, refused(&d, &small));
        ck_assert(d.oversize.recoverable && !d.oversize.size_known);
        ck_assert_uint_eq(d.oversize.size, 4);
        ck_assert_uint_eq(d.oversize.limit, 3);
        feed(&d, "e\nf\n", 4);
        for (int again = 0; again < 3; again++)
            ASSERT_ERR(HS_E_FRAME_TOO_LARGE, refused(&d, &small));
        ck_assert(d.oversize.recoverable && d.oversize.size_known);
        ck_assert_uint_eq(d.oversize.size, 5);
        ck_assert_uint_eq(d.oversize.discarded, 0);
        if (i == 0) {
            ck_assert_str_eq(taken(&d, &large), "abcde");
        } else { /* or thrown away by one who may */
            ASSERT_ERR(HS_E_FRAME_TOO_LARGE, refused(&d, &skip));
            ck_assert_uint_eq(d.oversize.discarded, 6);
        }
        ck_assert_str_eq(taken(&d, &small), "f");
    }
    hs_deframer_fini(&d);
}
END_TEST

START_TEST(a_kept_prefix_is_read_with_a_larger_limit)
{
    const struct hs_framing small = {PREFIX(1), .max_size = 3, KEEP},
                            large = {PREFIX(1), .max_size = 9};
    struct hs_deframer d = {0};

    feed(&d, "\4ab", 3);
    ASSERT_ERR(HS_E_FRAME_TOO_LARGE, refused(&d, &small));
    ck_assert(d.oversize.recoverable && d.oversize.size_known);
    ck_assert_uint_eq(wanted(&d, &large), 2);
    feed(&d, "cd", 2);
    ASSERT_ERR(HS_E_FRAME_TOO_LARGE, refused(&d, &small));
    ck_assert_str_eq(taken(&d, &large), "abcd");
    hs_deframer_fini(&d);
}
END_TEST

START_TEST(an_unfinished_search_is_of_no_use_to_another_separator)
{
    const struct hs_framing lf = {LINE(LF), .max_size = 99}, x = {DELIM("x"), .max_size = 99};
    const struct hs_framing lng = {DELIM("0123456789"), .max_size = 99};
    const struct hs_framing other = {DELIM("0123456788"), .max_size = 99};
    struct hs_deframer d = {0};

    feed(&d, "axb", 3);
    (void)wanted(&d, &lf);
    ck_assert_uint_eq(d.scanned, 3);
    ck_assert_str_eq(taken(&d, &x), "a");
    ck_assert_uint_eq(d.scanned, 0);
    feed(&d, "c0123456788d0123456789\n", 23);
    (void)wanted(&d, &x);
    ck_assert_str_eq(taken(&d, &other), "bc");
    ck_assert_str_eq(taken(&d, &lng), "d");
    (void)wanted(&d, &other);
    (void)wanted(&d, &lng);
    ck_assert_str_eq(taken(&d, &lf), "");
    ck_assert_ptr_null(d.buf.data);
    hs_deframer_fini(&d);
}
END_TEST

START_TEST(other_reads_in_between_restart_the_search)
{
    const struct hs_framing f = {DELIM("0123456789"), .max_size = 99};
    struct hs_deframer d = {0};
    uint8_t out[4];

    feed(&d, "abcdefgh0123", 12);
    ck_assert_uint_eq(wanted(&d, &f), 6);
    ck_assert_uint_eq(hs_buf_take(&d.buf, out, 4), 4);
    hs_deframer_touched(&d);
    ck_assert_uint_eq(wanted(&d, &f), 6);
    ASSERT_OK(hs_buf_prepend(&d.buf, out, 2));
    hs_deframer_touched(&d);
    feed(&d, "456789", 6);
    ck_assert_str_eq(taken(&d, &f), "abefgh");
    hs_deframer_fini(&d);
}
END_TEST

START_TEST(a_skip_belongs_to_the_stream_whatever_comes_next)
{
    const struct hs_framing f = {PREFIX(1), .max_size = 3, SKIP(99)},
                            lf = {LINE(LF), .max_size = 9};
    struct hs_deframer d = {0};
    size_t need = 0;

    feed(&d,
         "\x0a"
         "12",
         3);
    ck_assert_uint_eq(wanted(&d, &f), 8);
    ck_assert_ptr_null(d.buf.data); /* nothing of it is kept */
    ck_assert(hs_deframer_skipping(&d));
    feed(&d, "345", 3);
    hs_deframer_touched(&d);
    ck_assert_uint_eq(wanted(&d, &lf), 5);
    ASSERT_ERR(HS_WANT, hs_deframer_skip(&d, fresh(), &need));
    ck_assert_uint_eq(need, 5);
    feed(&d, "67890x\n", 7);
    ASSERT_ERR(HS_E_FRAME_TOO_LARGE, hs_deframer_skip(&d, fresh(), &need));
    ck_assert(d.oversize.recoverable && d.oversize.size_known);
    ck_assert_uint_eq(d.oversize.size, 10);
    ck_assert_uint_eq(d.oversize.discarded, 11);
    ASSERT_OK(hs_deframer_skip(&d, fresh(), &need));
    ck_assert_str_eq(taken(&d, &lf), "x");
    hs_deframer_fini(&d);
}
END_TEST

START_TEST(a_skip_looks_for_its_own_separator)
{
    const struct hs_framing f = {DELIM("0123456789"), .max_size = 3, SKIP(99)};
    const struct hs_framing lf = {LINE(LF), .max_size = 9};
    struct hs_deframer d = {0};

    feed(&d, "abcdef\n012", 10);
    (void)wanted(&d, &f);
    ck_assert_uint_eq(hs_buf_len(&d.buf), 3); /* only what may be the separator */
    hs_deframer_touched(&d);
    (void)wanted(&d, &lf);
    feed(&d, "3456789x\n", 9);
    ASSERT_ERR(HS_E_FRAME_TOO_LARGE, refused(&d, &lf));
    ck_assert_uint_eq(d.oversize.size, 7);
    ck_assert_uint_eq(d.oversize.discarded, 17);
    ck_assert_str_eq(taken(&d, &lf), "x");
    hs_deframer_fini(&d);
}
END_TEST

START_TEST(what_cannot_be_skipped_is_refused_again_and_again)
{
    const struct hs_framing f = {LINE(LF), .max_size = 3, SKIP(9)};
    const struct hs_framing strict = {LINE(CRLF), .max_size = 3, SKIP(9)};
    struct hs_deframer d = {0};

    feed(&d, "abcdef", 6);
    (void)wanted(&d, &f);
    feed(&d, "ghij\nab\n", 8);
    for (int i = 0; i < 2; i++) {
        ASSERT_ERR(HS_E_FRAME_TOO_LARGE, refused(&d, &f));
        ck_assert(!d.oversize.recoverable);
        ck_assert_uint_eq(d.oversize.discarded, 6);
    }
    hs_deframer_fini(&d);
    feed(&d, "abcdef\nab\r\n", 11);
    for (int i = 0; i < 2; i++)
        ASSERT_ERR(HS_E_BAD_FRAME, refused(&d, &strict));
    hs_deframer_fini(&d);
}
END_TEST

START_TEST(a_claim_of_a_header_reserves_nothing)
{
    const struct hs_framing f = {PREFIX(8), .max_size = HS_FRAME_SIZE_MAX};
    struct hs_deframer d = {0};

    feed(&d, "\0\0\0\xff\0\0\0\0ab", 10);
    ck_assert_uint_eq(wanted(&d, &f), UINT64_C(0xff00000000) - 2);
    ck_assert_uint_le(d.buf.capacity, 20);
    hs_deframer_fini(&d);
}
END_TEST

/* ---- The codec ----------------------------------------------------------------------------- */

START_TEST(a_decoder_has_its_own_separator)
{
    char sep[] = "--";
    struct hs_framing f = {
        .kind = HS_FRAMING_DELIMITER, .sep = (uint8_t *)sep, .sep_len = 2, .max_size = 9};
    struct hs_decoder *d;
    const uint8_t *data;
    size_t len;

    ASSERT_OK(hs_decoder_new(&f, fresh(), &d));
    memset(sep, '+', 2);
    ASSERT_OK(hs_decoder_feed(d, (const uint8_t *)"a++b--c", 7, fresh()));
    ASSERT_OK(hs_decoder_next(d, fresh(), &data, &len));
    ck_assert_mem_eq(data, "a++b", 4);
    ck_assert_uint_eq(hs_decoder_buffered(d), 1);
    hs_decoder_free(d);
    hs_decoder_free(NULL);
}
END_TEST

START_TEST(the_first_error_of_a_decoder_is_its_last)
{
    const struct hs_framing f = {LINE(CRLF), .max_size = 9};
    struct hs_decoder *d;
    const uint8_t *data;
    uint8_t rest[8];
    size_t len;
    char first[sizeof(((struct hs_error *)NULL)->msg)];

    ASSERT_OK(hs_decoder_new(&f, fresh(), &d));
    ASSERT_OK(hs_decoder_feed(d, (const uint8_t *)"ab\ncd\r\n", 7, fresh()));
    ASSERT_ERR(HS_E_BAD_FRAME, hs_decoder_next(d, fresh(), &data, &len));
    memcpy(first, last_error()->msg, sizeof(first));
    ck_assert_str_eq(first, "LF by itself at byte 2 of a line that ends in CR LF");
    ASSERT_ERR(HS_E_BAD_FRAME, hs_decoder_feed(d, (const uint8_t *)"x", 1, fresh()));
    ck_assert_str_eq(first, last_error()->msg);
    ASSERT_ERR(HS_E_BAD_FRAME, hs_decoder_eof(d, fresh()));
    ASSERT_ERR(HS_E_BAD_FRAME, hs_decoder_next(d, NULL, &data, &len));
    ck_assert_uint_eq(hs_decoder_take_rest(d, rest, sizeof(rest)), 7);
    ck_assert_mem_eq(rest, "ab\ncd\r\n", 7);
    hs_decoder_free(d);
}
END_TEST

START_TEST(an_end_is_told_when_it_is_reached)
{
    const struct hs_framing f = {PREFIX(1), .max_size = 9};
    struct hs_decoder *d;
    const uint8_t *data;
    size_t len;

    ASSERT_OK(hs_decoder_new(&f, fresh(), &d));
    ASSERT_OK(hs_decoder_feed(d, (const uint8_t *)"\1a\3b", 4, fresh()));
    ASSERT_OK(hs_decoder_eof(d, fresh()));
    ASSERT_ERR(HS_E_INVALID, hs_decoder_feed(d, (const uint8_t *)"x", 1, fresh()));
    ASSERT_OK(hs_decoder_next(d, fresh(), &data, &len));
    ASSERT_ERR(HS_E_TRUNCATED, hs_decoder_next(d, fresh(), &data, &len));
    ck_assert_str_eq(last_error()->msg,
                     "the stream ended after 2 bytes of a frame, at least 2 are missing");
    ASSERT_ERR(HS_E_TRUNCATED, hs_decoder_eof(d, fresh()));
    hs_decoder_free(d);
    ASSERT_OK(hs_decoder_new(&f, fresh(), &d));
    ASSERT_OK(hs_decoder_feed(d, (const uint8_t *)"\1a", 2, fresh()));
    ASSERT_OK(hs_decoder_eof(d, fresh()));
    ASSERT_OK(hs_decoder_next(d, fresh(), &data, &len));
    ASSERT_ERR(HS_WANT, hs_decoder_next(d, fresh(), &data, &len));
    hs_decoder_free(d);
}
END_TEST

START_TEST(skipped_bytes_are_not_stored)
{
    const struct hs_framing f = {LINE(LF), .max_size = 3, SKIP(1U << 20)};
    struct hs_decoder *d;
    const uint8_t *data;
    size_t len;
    uint8_t x[1024];

    memset(x, 'x', sizeof(x));
    ASSERT_OK(hs_decoder_new(&f, fresh(), &d));
    for (int i = 0; i < 100; i++) {
        ASSERT_OK(hs_decoder_feed(d, x, sizeof(x), fresh()));
        if (i == 0)
            ASSERT_ERR(HS_WANT, hs_decoder_next(d, fresh(), &data, &len));
        ck_assert_uint_eq(hs_decoder_buffered(d), 0);
    }
    ASSERT_ERR(HS_E_TRUNCATED, hs_decoder_eof(d, fresh()));
    hs_decoder_free(d);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("frame");

    tcase_add_loop_test(tc, a_stream_means_the_same_however_it_is_cut, 0, LENGTH(streams));
    tcase_add_loop_test(tc, every_length_field_is_read_as_it_says, 1, 9);
    tcase_add_loop_test(tc, a_separator_may_straddle_reads_at_every_byte, 1, 27);
    tcase_add_loop_test(tc, impossible_framings_are_refused_by_name, 0, LENGTH(checks));
    tcase_add_loop_test(tc, headers_say_what_the_reader_will_read, 0, LENGTH(headers));
    tcase_add_test(tc, what_stands_before_the_length_must_have_its_size);
    tcase_add_test(tc, need_says_how_much_is_missing_at_least);
    tcase_add_loop_test(tc, a_search_never_goes_back, 0, 5);
    tcase_add_test(tc, many_false_beginnings_settle_for_a_possible_one);
    tcase_add_test(tc, a_kept_frame_is_read_with_a_larger_limit);
    tcase_add_test(tc, a_kept_prefix_is_read_with_a_larger_limit);
    tcase_add_test(tc, an_unfinished_search_is_of_no_use_to_another_separator);
    tcase_add_test(tc, other_reads_in_between_restart_the_search);
    tcase_add_test(tc, a_skip_belongs_to_the_stream_whatever_comes_next);
    tcase_add_test(tc, a_skip_looks_for_its_own_separator);
    tcase_add_test(tc, what_cannot_be_skipped_is_refused_again_and_again);
    tcase_add_test(tc, a_claim_of_a_header_reserves_nothing);
    tcase_add_test(tc, a_decoder_has_its_own_separator);
    tcase_add_test(tc, the_first_error_of_a_decoder_is_its_last);
    tcase_add_test(tc, an_end_is_told_when_it_is_reached);
    tcase_add_test(tc, skipped_bytes_are_not_stored);
    return run_case(tc);
}
