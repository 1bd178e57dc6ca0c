/* fuzz_frame.c: frames cut by hs_decoder against a reference that is slow and simple.
 *
 * The input chooses a framing, the sizes of the pieces, and the bytes. The reference sees all bytes
 * at once, one at a time, with no state but a position. Both must give the same frames, the same
 * errors and the same ending, and every header that can be read can be written again.
 */
#include "hardsock_binding.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EVENTS_MAX 4096

/* What comes out of a stream: a frame (code HS_OK), an error, or the end. */
struct event {
    hs_err code;
    bool recoverable;
    const uint8_t *data;
    size_t len;
};

struct input {
    const uint8_t *data;
    size_t size;
};

static void
must(bool cond)
{
    if (!cond)
        abort();
}

static uint8_t
byte(struct input *in)
{
    if (in->size == 0)
        return 0;
    in->size--;
    return *in->data++;
}

static void
choose_prefix(struct input *in, struct hs_framing *f)
{
    uint8_t bits = byte(in);

    f->kind = HS_FRAMING_PREFIX;
    f->width = bits % 10;
    f->little_endian = (bits & 16) != 0;
    f->includes_header = (bits & 32) != 0;
    f->offset = byte(in) % 5;
    f->adjustment = (int8_t)byte(in);
    if ((bits & 64) != 0)
        f->adjustment = f->adjustment * INT64_C(0x0080000000000001);
}

static void
choose(struct input *in, struct hs_framing *f)
{
    uint8_t bits = byte(in);

    *f = (struct hs_framing){.max_size = byte(in) % 32, .keep = (bits & 4) != 0};
    f->too_long = (enum hs_too_long)((bits >> 3) % 4);
    if (f->too_long == HS_TOO_LONG_SKIP)
        f->max_skip = byte(in);
    if (bits % 4 == 0) {
        f->kind = HS_FRAMING_DELIMITER;
        f->sep_len = byte(in) % 20;
        if (f->sep_len > in->size)
            f->sep_len = in->size;
        f->sep = in->data;
        in->data += f->sep_len;
        in->size -= f->sep_len;
    } else if (bits % 4 == 1) {
        f->kind = HS_FRAMING_LINE;
        f->ending = (enum hs_line_ending)((bits >> 5) % 4);
    } else {
        choose_prefix(in, f);
    }
}

/* ---- The reference ------------------------------------------------------------------------- */

/* How a frame at the beginning of data ends: HS_OK, HS_WANT or HS_E_BAD_FRAME. payload is its size,
 * or how far it goes at least. */
struct cut {
    hs_err code;
    size_t header, tail;
    __uint128_t payload;
};

static struct cut
cut_line(const struct hs_framing *f, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        bool last = i + 1 == len, crlf = !last && data[i] == '\r' && data[i + 1] == '\n';

        if (f->ending == HS_LINE_LF || f->ending == HS_LINE_ANY) {
            if (data[i] == '\n')
                return (struct cut){HS_OK, 0, 1, i};
            if (f->ending == HS_LINE_ANY && crlf)
                return (struct cut){HS_OK, 0, 2, i};
            if (f->ending == HS_LINE_ANY && last && data[i] == '\r')
                return (struct cut){HS_WANT, 0, 0, i};
        } else if (crlf) {
            return (struct cut){HS_OK, 0, 2, i};
        } else if (data[i] == '\r' && last) {
            return (struct cut){HS_WANT, 0, 0, i};
        } else if (data[i] == '\r' || data[i] == '\n') {
            return (struct cut){HS_E_BAD_FRAME, 0, 0, i};
        }
    }
    return (struct cut){HS_WANT, 0, 0, len};
}

static struct cut
cut_delimiter(const struct hs_framing *f, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        size_t n = len - i < f->sep_len ? len - i : f->sep_len;

        if (memcmp(data + i, f->sep, n) == 0)
            return (struct cut){n == f->sep_len ? HS_OK : HS_WANT, 0, f->sep_len, i};
    }
    return (struct cut){HS_WANT, 0, 0, len};
}

static struct cut
cut_prefix(const struct hs_framing *f, const uint8_t *data, size_t len)
{
    const struct cut want = {.code = HS_WANT}, bad = {.code = HS_E_BAD_FRAME};
    size_t width = f->width;
    __int128_t value = 0, final;

    if (width == 0) {
        for (size_t i = 0;; i++) {
            if (f->offset + i >= len)
                return want;
            value |= (__int128_t)(data[f->offset + i] & 0x7f) << (7 * i);
            if (i == 9 && data[f->offset + i] > 1)
                return bad;
            if (data[f->offset + i] < 0x80) {
                if (i > 0 && data[f->offset + i] == 0)
                    return bad;
                width = i + 1;
                break;
            }
        }
    } else {
        if (len < f->offset + width)
            return want;
        for (size_t i = 0; i < width; i++)
            value |= (__int128_t)data[f->offset + i] << 8 * (f->little_endian ? i : width - 1 - i);
    }
    final = value + f->adjustment;
    if (f->includes_header)
        final -= (__int128_t)(f->offset + width);
    if (final < 0 || final > (__int128_t)UINT64_MAX)
        return bad;
    return (struct cut){HS_OK, f->offset + width, 0, (__uint128_t) final};
}

static struct cut
cut_one(const struct hs_framing *f, const uint8_t *data, size_t len)
{
    if (f->kind == HS_FRAMING_DELIMITER)
        return cut_delimiter(f, data, len);
    return f->kind == HS_FRAMING_LINE ? cut_line(f, data, len) : cut_prefix(f, data, len);
}

/* The fate of a frame that is too large; how many bytes it is, or 0 when it does not end here. */
static struct event
judge(const struct hs_framing *f, const struct cut *c, size_t len, size_t *ret_consumed)
{
    __uint128_t total = c->header + c->payload + c->tail;
    struct event e = {.code = HS_E_FRAME_TOO_LARGE, .recoverable = f->too_long == HS_TOO_LONG_KEEP};

    *ret_consumed = 0;
    if (f->too_long != HS_TOO_LONG_SKIP)
        return e;
    if (c->code == HS_OK ? total > f->max_skip : c->payload > f->max_skip)
        return e;
    if (c->code == HS_E_BAD_FRAME)
        return (struct event){.code = HS_E_BAD_FRAME};
    if (c->code == HS_WANT || total > len)
        return (struct event){.code = HS_E_TRUNCATED};
    e.recoverable = true;
    *ret_consumed = (size_t)total;
    return e;
}

static size_t
expected(const struct hs_framing *f, const uint8_t *data, size_t len, struct event *events)
{
    size_t n = 0;

    while (n < EVENTS_MAX) {
        struct cut c = cut_one(f, data, len);
        size_t consumed = 0;

        if (c.payload > f->max_size) {
            events[n++] = judge(f, &c, len, &consumed);
            if (consumed == 0)
                break;
        } else if (c.code == HS_OK && c.header + c.payload + c.tail <= len) {
            size_t payload = (size_t)c.payload;

            consumed = c.header + payload + c.tail;
            events[n++] = (struct event){HS_OK, false, f->keep ? data : data + c.header,
                                         f->keep ? consumed : payload};
        } else {
            hs_err end = len > 0 ? HS_E_TRUNCATED : HS_WANT;

            events[n++] = (struct event){.code = c.code == HS_E_BAD_FRAME ? c.code : end};
            break;
        }
        data += consumed;
        len -= consumed;
    }
    return n;
}

/* ---- The comparison ------------------------------------------------------------------------ */

/* A header made for what was read leads to the same. */
static void
check_header(const struct hs_framing *f, size_t len)
{
    uint8_t head[8] = {0}, out[HS_FRAME_HEADER_MAX], all[sizeof(head) + sizeof(out)];
    size_t n = 0;
    hs_err rv;

    if (f->kind != HS_FRAMING_PREFIX || f->keep)
        return;
    rv = hs_framing_header(f, len, f->offset, NULL, out, &n);
    must(rv == HS_OK);
    memcpy(all, head, f->offset);
    memcpy(all + f->offset, out, n);
    must(cut_prefix(f, all, f->offset + n).payload == len);
}

/* Takes what there is; false at an error that ends the stream. */
static bool
take(struct hs_decoder *d, const struct hs_framing *f, const struct event *events, size_t *at)
{
    for (;;) {
        struct hs_error err = {0};
        struct hs_oversize o;
        const uint8_t *data;
        const struct event *e = &events[*at];
        size_t len;
        hs_err rv = hs_decoder_next(d, &err, &data, &len);

        if (rv == HS_WANT)
            return true;
        must(e->code == rv);
        if (rv == HS_OK) {
            must(e->len == len && memcmp(e->data, data, len) == 0);
            check_header(f, len);
        } else {
            must(err.code == rv && err.msg[0] != '\0');
            if (rv != HS_E_FRAME_TOO_LARGE)
                return false;
            hs_decoder_oversize(d, &o);
            must(o.recoverable == e->recoverable && o.limit == f->max_size);
            must(o.size > o.limit);
            if (!o.recoverable || f->too_long == HS_TOO_LONG_KEEP)
                return false;
            must(o.size_known && o.discarded > o.size - (o.size == 0));
        }
        (*at)++;
    }
}

static void
compare(const struct hs_framing *f, uint8_t piece, const uint8_t *data, size_t size)
{
    static struct event events[EVENTS_MAX];
    size_t n = expected(f, data, size, events), at = 0, done = 0, step;
    struct hs_decoder *d;
    bool goes_on = true;

    must(hs_decoder_new(f, NULL, &d) == HS_OK);
    while (goes_on && done < size) {
        /* 0: all at once; else pieces of one size, or of growing ones */
        step = piece == 0 ? size : piece < 128 ? piece : done % 17 + 1;
        if (step > size - done)
            step = size - done;
        must(hs_decoder_feed(d, data + done, step, NULL) == HS_OK);
        done += step;
        goes_on = take(d, f, events, &at);
        must(hs_decoder_buffered(d) <= done);
    }
    must(at < n);
    if (goes_on) {
        hs_err rv = hs_decoder_eof(d, NULL);

        must(rv == (events[at].code == HS_WANT ? HS_OK : HS_E_TRUNCATED));
        must(events[at].code == HS_WANT || events[at].code == HS_E_TRUNCATED);
    }
    hs_decoder_free(d);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct hs_framing f;
    struct hs_error err = {0};
    struct hs_decoder *d;
    struct hs_live live;
    uint8_t piece;

    choose(&in, &f);
    piece = byte(&in);
    if (hs_framing_check(&f, &err) != HS_OK) {
        must(err.code == HS_E_INVALID && err.msg[0] != '\0');
        must(hs_decoder_new(&f, NULL, &d) == HS_E_INVALID);
        return 0;
    }
    if (in.size < EVENTS_MAX) /* a frame may have no bytes but its end or header */
        compare(&f, piece, in.data, in.size);
    hs_live_counts(&live);
    must(live.buffers == 0);
    return 0;
}
