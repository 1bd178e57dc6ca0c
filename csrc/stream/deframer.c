/* deframer.c: see frame.h. The buffer of a stream that is cut into frames: what an unfinished
 * search has seen, and what becomes of frames that are too long.
 *
 * A skip runs through COUNT or SEARCH to DONE, and from there, by its report, to NONE; or it ends
 * in OVER or BAD, where it stays. Skipped bytes are dropped as soon as they are seen.
 */
#include "frame.h"

#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"

#include <inttypes.h>
#include <stdlib.h>

static const uint8_t nothing[1];

static const uint8_t *
front(const struct hs_deframer *d)
{
    return d->buf.data != NULL ? d->buf.data + d->buf.head : nothing;
}

/* ---- The unfinished search ----------------------------------------------------------------- */

static const uint8_t *
sep_of(const struct hs_deframer *d)
{
    return d->sep_len <= sizeof(d->sep.bytes) ? d->sep.bytes : d->sep.heap;
}

static bool
deframer_is_same(const struct hs_deframer *d, const struct hs_terminator *t)
{
    if (d->terminator != t->kind)
        return false;
    return t->kind != HS_TERM_BYTES ||
           (d->sep_len == t->sep_len && memcmp(sep_of(d), t->sep, t->sep_len) == 0);
}

static void
deframer_forget(struct hs_deframer *d)
{
    if (d->sep_len > sizeof(d->sep.bytes))
        free(d->sep.heap);
    d->sep.heap = NULL;
    d->sep_len = 0;
    d->terminator = HS_TERM_NONE;
    d->scanned = 0;
}

/* Without memory for it the next search starts from the beginning, which is all. */
static void
deframer_remember(struct hs_deframer *d, const struct hs_terminator *t)
{
    uint8_t *heap;

    if (t->kind == HS_TERM_BYTES && t->sep_len > sizeof(d->sep.bytes)) {
        if ((heap = hs_sys_malloc(t->sep_len)) == NULL) {
            d->scanned = 0;
            return;
        }
        memcpy(heap, t->sep, t->sep_len);
        d->sep.heap = heap;
    } else if (t->kind == HS_TERM_BYTES) {
        memcpy(d->sep.bytes, t->sep, t->sep_len);
    }
    d->sep_len = t->kind == HS_TERM_BYTES ? (uint16_t)t->sep_len : 0;
    d->terminator = (uint8_t)t->kind;
}

void
hs_deframer_touched(struct hs_deframer *d)
{
    if (d->skip == HS_SKIP_SEARCH)
        d->scanned = 0; /* The terminator is still needed. */
    else
        deframer_forget(d);
}

void
hs_deframer_fini(struct hs_deframer *d)
{
    deframer_forget(d);
    hs_buf_fini(&d->buf);
    *d = (struct hs_deframer){0};
}

/* ---- Skipping ------------------------------------------------------------------------------ */

static void
discard(struct hs_deframer *d, size_t n)
{
    hs_buf_drop(&d->buf, n);
    d->oversize.discarded += n;
    d->left -= n;
}

static void
skip_counted(struct hs_deframer *d)
{
    size_t len = hs_buf_len(&d->buf);

    discard(d, d->left < len ? (size_t)d->left : len);
    if (d->left == 0)
        d->skip = HS_SKIP_DONE;
}

static void
skip_searched(struct hs_deframer *d)
{
    const struct hs_terminator t = {d->terminator, sep_of(d), d->sep_len};
    size_t at, end, before = d->scanned;
    hs_err rv = hs_terminator_find(&t, front(d), hs_buf_len(&d->buf), &d->scanned, &at, &end);

    HS_ASSERT(d->scanned >= before);
    d->oversize.size = d->oversize.discarded + d->scanned;
    d->oversize.size_known = rv == HS_OK;
    if ((rv == HS_OK ? end : d->scanned) > d->left) {
        d->skip = HS_SKIP_OVER;
    } else if (rv == HS_E_BAD_FRAME) {
        d->skip = HS_SKIP_BAD;
    } else if (rv == HS_OK) {
        discard(d, end);
        d->skip = HS_SKIP_DONE;
        deframer_forget(d);
    } else {
        discard(d, d->scanned);
        d->scanned = 0;
    }
}

void
hs_deframer_skip_quietly(struct hs_deframer *d)
{
    if (d->skip == HS_SKIP_COUNT)
        skip_counted(d);
    else if (d->skip == HS_SKIP_SEARCH)
        skip_searched(d);
}

hs_err
hs_deframer_skip(struct hs_deframer *d, struct hs_error *err, size_t *ret_need)
{
    hs_deframer_skip_quietly(d);
    switch ((enum hs_skip)d->skip) {
    case HS_SKIP_NONE:
        return HS_OK;
    case HS_SKIP_COUNT:
        *ret_need = d->left < SIZE_MAX ? (size_t)d->left : SIZE_MAX;
        return HS_WANT;
    case HS_SKIP_SEARCH:
        *ret_need = 1;
        return HS_WANT;
    case HS_SKIP_DONE:
        d->skip = HS_SKIP_NONE;
        d->oversize.recoverable = true;
        return hs_oversize_error(&d->oversize, err);
    case HS_SKIP_OVER:
        return hs_oversize_error(&d->oversize, err);
    case HS_SKIP_BAD:
        return hs_err_setx(err, HS_E_BAD_FRAME, NULL,
                           "CR or LF by itself in a line that ends in CR LF");
    }
    HS_ASSERT(d->skip <= HS_SKIP_BAD);
    return HS_E_BAD_FRAME;
}

/* ---- One frame ----------------------------------------------------------------------------- */

hs_err
hs_oversize_error(const struct hs_oversize *o, struct hs_error *err)
{
    if (err != NULL && err->code == HS_OK)
        err->oversize = *o;
    if (o->discarded > 0)
        return hs_err_setx(err, HS_E_FRAME_TOO_LARGE, NULL,
                           "frame of %s%" PRIu64 " bytes exceeds max_size %zu, %s after %" PRIu64
                           " bytes",
                           o->size_known ? "" : "at least ", o->size, o->limit,
                           o->recoverable ? "skipped" : "given up", o->discarded);
    return hs_err_setx(err, HS_E_FRAME_TOO_LARGE, NULL,
                       "frame of %s%" PRIu64 " bytes exceeds max_size %zu",
                       o->size_known ? "" : "at least ", o->size, o->limit);
}

static hs_err
start_skip(struct hs_deframer *d, const struct hs_framing *f, struct hs_error *err,
           size_t *ret_need)
{
    if (f->kind == HS_FRAMING_PREFIX) {
        uint64_t payload;
        size_t header;
        hs_err rv =
            hs_prefix_parse(f, front(d), hs_buf_len(&d->buf), ret_need, NULL, &header, &payload);

        HS_ASSERT(rv == HS_OK);
        if (payload > f->max_skip || header > f->max_skip - payload)
            return hs_oversize_error(&d->oversize, err);
        d->left = header + payload;
        d->skip = HS_SKIP_COUNT;
    } else {
        if (d->terminator == HS_TERM_NONE)
            return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory to search for the separator");
        d->left = f->max_skip;
        d->skip = HS_SKIP_SEARCH;
    }
    return hs_deframer_skip(d, err, ret_need);
}

hs_err
hs_deframer_next_slow(struct hs_deframer *d, const struct hs_framing *f, struct hs_error *err,
                      struct hs_frame *ret_frame, size_t *ret_need)
{
    struct hs_terminator t = hs_framing_terminator(f);
    hs_err rv;

    if (d->skip != HS_SKIP_NONE)
        return hs_deframer_skip(d, err, ret_need);
    if (d->terminator != HS_TERM_NONE && !deframer_is_same(d, &t))
        deframer_forget(d);
    rv = hs_framing_find(f, front(d), hs_buf_len(&d->buf), &d->scanned, ret_need, err, ret_frame,
                         &d->oversize);
    if (d->terminator == HS_TERM_NONE && d->scanned > 0) {
        if (rv == HS_WANT || rv == HS_E_FRAME_TOO_LARGE)
            deframer_remember(d, &t);
        else
            d->scanned = 0;
    }
    if (rv != HS_E_FRAME_TOO_LARGE)
        return rv;
    if (f->too_long == HS_TOO_LONG_SKIP)
        return start_skip(d, f, err, ret_need);
    d->oversize.recoverable = f->too_long == HS_TOO_LONG_KEEP;
    return hs_oversize_error(&d->oversize, err);
}
