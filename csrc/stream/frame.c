/* frame.c: see frame.h. What a framing may be, where a frame ends, and what goes in front of one.
 *
 * All numbers that come from a peer are 64 bit and unsigned, checked at each step, and held against
 * the limit before anything is done with them.
 */
#include "frame.h"

#include "../base/check.h"
#include "../base/err.h"

#include <inttypes.h>

/* Far from the ends of int64_t, so that adding a header's size needs no check. */
#define ADJUSTMENT_MAX (INT64_C(1) << 62)
/* After so many false beginnings of a separator the search settles for one that is still possible:
 * correct, and it bounds the work for separators like "aaaaaaaa...". */
#define CANDIDATES_MAX 64
/* So many tries with memchr(3), which is several times as fast as memmem(3) where the first byte of
 * the separator is rare; memmem(3), which is linear whatever the bytes are, does the rest. */
#define MEMCHR_TRIES 8

/* ---- Checking a framing -------------------------------------------------------------------- */

static uint64_t
declared_max(const struct hs_framing *f)
{
    return f->width == 0 || f->width == 8 ? UINT64_MAX : (UINT64_C(1) << (8 * f->width)) - 1;
}

/* payload = declared + delta */
static int64_t
delta_of(const struct hs_framing *f)
{
    return f->adjustment - (f->includes_header ? (int64_t)(f->offset + f->width) : 0);
}

static bool
add_delta(uint64_t value, int64_t delta, uint64_t *ret_sum)
{
    uint64_t amount = delta < 0 ? (uint64_t)-delta : (uint64_t)delta;

    if (delta < 0 ? value < amount : value > UINT64_MAX - amount)
        return false;
    *ret_sum = delta < 0 ? value - amount : value + amount;
    return true;
}

static hs_err
check_field(const struct hs_framing *f, struct hs_error *err)
{
    if (f->width > 8)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "width must be 1 to 8, or 0 for a varint, not %u", f->width);
    if (f->offset > HS_FRAME_OFFSET_MAX)
        return hs_err_setx(err, HS_E_INVALID, NULL, "offset must be at most %d, not %zu",
                           HS_FRAME_OFFSET_MAX, f->offset);
    if (f->width == 0 && f->includes_header)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "includes_header cannot be used with a varint: its size depends on the "
                           "value");
    if (f->width == 0 && f->little_endian)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "little_endian cannot be used with a varint: it has but one order");
    if (f->adjustment > ADJUSTMENT_MAX || f->adjustment < -ADJUSTMENT_MAX)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "adjustment must be between -2**62 and 2**62, not %" PRId64,
                           f->adjustment);
    return HS_OK;
}

static hs_err
check_prefix(const struct hs_framing *f, struct hs_error *err)
{
    uint64_t most;
    int64_t delta;
    hs_err rv;

    if ((rv = check_field(f, err)) != HS_OK)
        return rv;
    delta = delta_of(f);
    if (delta > 0 && (uint64_t)delta > f->max_size)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "adjustment %" PRId64 " puts every frame beyond max_size %zu",
                           f->adjustment, f->max_size);
    if (!add_delta(declared_max(f), delta, &most)) {
        if (delta < 0)
            return hs_err_setx(err, HS_E_INVALID, NULL,
                               "adjustment %" PRId64 "%s makes every length that a width of %u can "
                               "declare negative",
                               f->adjustment, f->includes_header ? " less the header" : "",
                               f->width);
        most = UINT64_MAX;
    }
    if (f->max_size > most)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "max_size %zu is more than a width of %u can declare (%" PRIu64 ")",
                           f->max_size, f->width, most);
    return HS_OK;
}

static hs_err
check_policy(const struct hs_framing *f, struct hs_error *err)
{
    if (f->max_size > HS_FRAME_SIZE_MAX)
        return hs_err_setx(err, HS_E_INVALID, NULL, "max_size must be at most %zu, not %zu",
                           HS_FRAME_SIZE_MAX, f->max_size);
    switch (f->too_long) {
    case HS_TOO_LONG_CLOSE:
    case HS_TOO_LONG_KEEP:
        if (f->max_skip != 0)
            return hs_err_setx(err, HS_E_INVALID, NULL,
                               "max_skip %zu is for frames that are skipped", f->max_skip);
        return HS_OK;
    case HS_TOO_LONG_SKIP:
        if (f->max_skip <= f->max_size)
            return hs_err_setx(err, HS_E_INVALID, NULL,
                               "max_skip %zu must be more than max_size %zu: no frame could ever "
                               "be skipped",
                               f->max_skip, f->max_size);
        return HS_OK;
    }
    return hs_err_setx(err, HS_E_INVALID, NULL, "too_long has no value %d", (int)f->too_long);
}

hs_err
hs_framing_check(const struct hs_framing *f, struct hs_error *err)
{
    hs_err rv;

    if ((rv = check_policy(f, err)) != HS_OK)
        return rv;
    switch (f->kind) {
    case HS_FRAMING_DELIMITER:
        if (f->sep_len == 0 || f->sep == NULL)
            return hs_err_setx(err, HS_E_INVALID, NULL, "separator must not be empty");
        if (f->sep_len > HS_FRAME_SEP_MAX)
            return hs_err_setx(err, HS_E_INVALID, NULL,
                               "separator must have at most %d bytes, not %zu", HS_FRAME_SEP_MAX,
                               f->sep_len);
        return HS_OK;
    case HS_FRAMING_LINE:
        if (f->ending != HS_LINE_LF && f->ending != HS_LINE_CRLF && f->ending != HS_LINE_ANY)
            return hs_err_setx(err, HS_E_INVALID, NULL, "ending has no value %d", (int)f->ending);
        return HS_OK;
    case HS_FRAMING_PREFIX:
        return check_prefix(f, err);
    }
    return hs_err_setx(err, HS_E_INVALID, NULL, "kind has no value %d", (int)f->kind);
}

/* ---- Terminators --------------------------------------------------------------------------- */

struct hs_terminator
hs_framing_terminator(const struct hs_framing *f)
{
    if (f->kind == HS_FRAMING_PREFIX)
        return (struct hs_terminator){.kind = HS_TERM_NONE};
    if (f->kind == HS_FRAMING_DELIMITER)
        return (struct hs_terminator){HS_TERM_BYTES, f->sep, f->sep_len};
    if (f->ending == HS_LINE_LF)
        return (struct hs_terminator){HS_TERM_BYTES, (const uint8_t *)"\n", 1};
    return (struct hs_terminator){
        .kind = f->ending == HS_LINE_CRLF ? HS_TERM_CRLF : HS_TERM_ANY,
        .sep_len = f->ending == HS_LINE_CRLF ? 2 : 1,
    };
}

/* sep has one byte or more. */
static const uint8_t *
search(const uint8_t *data, size_t len, const uint8_t *sep, size_t sep_len)
{
    const uint8_t *end = data + len;

    for (int tries = 0; tries < MEMCHR_TRIES; tries++) {
        if ((size_t)(end - data) < sep_len ||
            (data = memchr(data, sep[0], (size_t)(end - data) - sep_len + 1)) == NULL)
            return NULL;
        if (memcmp(data, sep, sep_len) == 0)
            return data;
        data++;
    }
    return memmem(data, (size_t)(end - data), sep, sep_len);
}

/* The first place from which on the rest of data may be the beginning of the separator. */
static size_t
first_candidate(const struct hs_terminator *t, const uint8_t *data, size_t len, size_t from)
{
    for (int tries = 0; from < len && tries < CANDIDATES_MAX; tries++) {
        const uint8_t *p = memchr(data + from, t->sep[0], len - from);

        if (p == NULL)
            return len;
        from = (size_t)(p - data);
        if (memcmp(p, t->sep, len - from) == 0)
            return from;
        from++;
    }
    return from;
}

static hs_err
find_bytes(const struct hs_terminator *t, const uint8_t *data, size_t len, size_t *scanned,
           size_t *ret_at, size_t *ret_end)
{
    size_t from = *scanned;

    if (len - from >= t->sep_len) {
        const uint8_t *p = search(data + from, len - from, t->sep, t->sep_len);

        if (p != NULL) {
            *ret_at = *scanned = (size_t)(p - data);
            *ret_end = *ret_at + t->sep_len;
            return HS_OK;
        }
        from = len - t->sep_len + 1;
    }
    *scanned = first_candidate(t, data, len, from);
    return HS_WANT;
}

static hs_err
find_any(const uint8_t *data, size_t len, size_t *scanned, size_t *ret_at, size_t *ret_end)
{
    size_t from = *scanned, at;
    const uint8_t *lf = memchr(data + from, '\n', len - from);

    if (lf == NULL) {
        *scanned = data[len - 1] == '\r' ? len - 1 : len;
        return HS_WANT;
    }
    at = (size_t)(lf - data);
    *ret_end = at + 1;
    *ret_at = *scanned = at > from && data[at - 1] == '\r' ? at - 1 : at;
    return HS_OK;
}

static hs_err
find_crlf(const uint8_t *data, size_t len, size_t *scanned, size_t *ret_at, size_t *ret_end)
{
    size_t from = *scanned;
    const uint8_t *lf = memchr(data + from, '\n', len - from);
    const uint8_t *end = lf != NULL ? lf : data + len;
    const uint8_t *cr = memchr(data + from, '\r', (size_t)(end - data) - from);
    const uint8_t *stop = cr != NULL ? cr : end;

    *scanned = (size_t)(stop - data);
    if (lf == NULL && end - stop <= 1) /* nothing yet, or a CR whose LF may come */
        return HS_WANT;
    if (lf == NULL || stop + 1 != lf)
        return HS_E_BAD_FRAME;
    *ret_at = *scanned;
    *ret_end = *ret_at + 2;
    return HS_OK;
}

hs_err
hs_terminator_find(const struct hs_terminator *t, const uint8_t *data, size_t len, size_t *scanned,
                   size_t *ret_at, size_t *ret_end)
{
    HS_ASSERT(*scanned <= len);
    if (*scanned == len)
        return HS_WANT;
    switch (t->kind) {
    case HS_TERM_NONE:
        break;
    case HS_TERM_BYTES:
        return find_bytes(t, data, len, scanned, ret_at, ret_end);
    case HS_TERM_CRLF:
        return find_crlf(data, len, scanned, ret_at, ret_end);
    case HS_TERM_ANY:
        return find_any(data, len, scanned, ret_at, ret_end);
    }
    return HS_WANT;
}

static hs_err
terminated_find(const struct hs_framing *f, const uint8_t *data, size_t len, size_t *scanned,
                size_t *ret_need, struct hs_error *err, struct hs_frame *ret_frame,
                struct hs_oversize *ret_oversize)
{
    struct hs_terminator t = hs_framing_terminator(f);
    size_t at, end;
    hs_err rv = hs_terminator_find(&t, data, len, scanned, &at, &end);

    if (*scanned > f->max_size) {
        *ret_oversize =
            (struct hs_oversize){.size = *scanned, .limit = f->max_size, .size_known = rv == HS_OK};
        return HS_E_FRAME_TOO_LARGE;
    }
    if (rv == HS_OK) {
        *ret_frame = (struct hs_frame){0, f->keep ? end : at, end};
    } else if (rv == HS_WANT) {
        size_t there = len - *scanned;

        *ret_need = there < t.sep_len ? t.sep_len - there : 1;
    } else {
        (void)hs_err_setx(err, rv, NULL, "%s by itself at byte %zu of a line that ends in CR LF",
                          data[*scanned] == '\r' ? "CR" : "LF", *scanned);
    }
    return rv;
}

/* ---- Length fields ------------------------------------------------------------------------- */

static uint64_t
load_uint(const uint8_t *from, unsigned width, bool little_endian)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < width; i++)
        value = value << 8 | from[little_endian ? width - 1 - i : i];
    return value;
}

static void
store_uint(uint8_t *to, unsigned width, bool little_endian, uint64_t value)
{
    for (unsigned i = 0; i < width; i++, value >>= 8)
        to[little_endian ? i : width - 1 - i] = (uint8_t)value;
}

/* LEB128, shortest form only: two encodings of one number are a way to smuggle. */
static hs_err
load_varint(const uint8_t *from, size_t len, struct hs_error *err, uint64_t *ret_value,
            size_t *ret_width)
{
    uint64_t value = 0;

    for (size_t i = 0; i < len; i++) {
        uint64_t bits = from[i] & 0x7fU;

        if (i == HS_FRAME_HEADER_MAX - 1 && from[i] > 1)
            return hs_err_setx(err, HS_E_BAD_FRAME, NULL, "varint does not fit into 64 bits");
        value |= bits << (7 * i);
        if ((from[i] & 0x80U) != 0)
            continue;
        if (bits == 0 && i > 0)
            return hs_err_setx(err, HS_E_BAD_FRAME, NULL,
                               "varint of %zu bytes is longer than it must be", i + 1);
        *ret_value = value;
        *ret_width = i + 1;
        return HS_OK;
    }
    return HS_WANT;
}

hs_err
hs_prefix_parse(const struct hs_framing *f, const uint8_t *data, size_t len, size_t *ret_need,
                struct hs_error *err, size_t *ret_header, uint64_t *ret_payload)
{
    size_t least = f->offset + (f->width > 0 ? f->width : 1), width = f->width;
    uint64_t declared;
    hs_err rv;

    if (len < least) {
        *ret_need = least - len;
        return HS_WANT;
    }
    if (f->width > 0) {
        declared = load_uint(data + f->offset, f->width, f->little_endian);
    } else if ((rv = load_varint(data + f->offset, len - f->offset, err, &declared, &width)) !=
               HS_OK) {
        if (rv == HS_WANT)
            *ret_need = 1;
        return rv;
    }
    if (!add_delta(declared, delta_of(f), ret_payload))
        return hs_err_setx(err, HS_E_BAD_FRAME, NULL,
                           "declared length %" PRIu64 " with adjustment %" PRId64 "%s is %s",
                           declared, f->adjustment, f->includes_header ? " less the header" : "",
                           delta_of(f) < 0 ? "negative" : "beyond 64 bits");
    *ret_header = f->offset + width;
    return HS_OK;
}

static hs_err
prefixed_find(const struct hs_framing *f, const uint8_t *data, size_t len, size_t *ret_need,
              struct hs_error *err, struct hs_frame *ret_frame, struct hs_oversize *ret_oversize)
{
    size_t header, total;
    uint64_t payload;
    hs_err rv = hs_prefix_parse(f, data, len, ret_need, err, &header, &payload);

    if (rv != HS_OK)
        return rv;
    if (payload > f->max_size) {
        *ret_oversize =
            (struct hs_oversize){.size = payload, .limit = f->max_size, .size_known = true};
        return HS_E_FRAME_TOO_LARGE;
    }
    total = header + (size_t)payload; /* HS_FRAME_SIZE_MAX leaves room for the header */
    if (len < total) {
        *ret_need = total - len;
        return HS_WANT;
    }
    *ret_frame = f->keep ? (struct hs_frame){0, total, total}
                         : (struct hs_frame){header, (size_t)payload, total};
    return HS_OK;
}

hs_err
hs_framing_find(const struct hs_framing *f, const uint8_t *data, size_t len, size_t *scanned,
                size_t *ret_need, struct hs_error *err, struct hs_frame *ret_frame,
                struct hs_oversize *ret_oversize)
{
    if (f->kind == HS_FRAMING_PREFIX)
        return prefixed_find(f, data, len, ret_need, err, ret_frame, ret_oversize);
    return terminated_find(f, data, len, scanned, ret_need, err, ret_frame, ret_oversize);
}

static size_t
store_varint(uint8_t *to, uint64_t value)
{
    size_t n = 0;

    for (; value > 0x7f; value >>= 7)
        to[n++] = (uint8_t)(value | 0x80);
    to[n++] = (uint8_t)value;
    return n;
}

hs_err
hs_framing_header(const struct hs_framing *f, size_t payload_len, size_t head_len,
                  struct hs_error *err, uint8_t out[HS_FRAME_HEADER_MAX], size_t *ret_n)
{
    int64_t delta;
    uint64_t value;

    if (f->kind != HS_FRAMING_PREFIX)
        return hs_err_setx(err, HS_E_INVALID, NULL, "this framing has no header");
    if (head_len != f->offset)
        return hs_err_setx(err, HS_E_INVALID, NULL,
                           "%zu bytes in front of the length field where offset says %zu", head_len,
                           f->offset);
    if (payload_len > f->max_size)
        return hs_err_setx(err, HS_E_FRAME_TOO_LARGE, NULL, "%zu bytes exceed max_size %zu",
                           payload_len, f->max_size);
    delta = delta_of(f);
    if (delta > 0 && (uint64_t)delta > payload_len)
        return hs_err_setx(err, HS_E_BAD_FRAME, NULL,
                           "the length of %zu bytes would be negative with adjustment %" PRId64,
                           payload_len, f->adjustment);
    if (!add_delta(payload_len, -delta, &value) || value > declared_max(f))
        return hs_err_setx(err, HS_E_FRAME_TOO_LARGE, NULL,
                           "the length of %zu bytes does not fit into a width of %u", payload_len,
                           f->width);
    if (f->width == 0) {
        *ret_n = store_varint(out, value);
    } else {
        store_uint(out, f->width, f->little_endian, value);
        *ret_n = f->width;
    }
    return HS_OK;
}
