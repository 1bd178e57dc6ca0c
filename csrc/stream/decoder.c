/* decoder.c: the codec by itself: a framing of its own and a deframer that is fed by hand.
 *
 * A frame that was handed out stays in the buffer until the next call; `pending` is its size. The
 * first error that is not recoverable is kept and repeated; errors are made in its place, so that
 * the usual call does not have to clear one.
 */
#include "frame.h"

#include "../base/check.h"
#include "../base/err.h"
#include "../base/sys.h"

#include <stdlib.h>

#define DECODER_MAGIC 0x6d3c0de5U

struct hs_decoder {
    unsigned magic;
    bool ended;
    struct hs_framing framing;
    struct hs_deframer deframer;
    size_t pending;
    struct hs_error broken; /* code HS_OK between calls: it is not */
    uint8_t sep[];
};

hs_err
hs_decoder_new(const struct hs_framing *f, struct hs_error *err, struct hs_decoder **ret_decoder)
{
    size_t sep_len = f->kind == HS_FRAMING_DELIMITER ? f->sep_len : 0;
    struct hs_decoder *d;
    hs_err rv;

    if ((rv = hs_framing_check(f, err)) != HS_OK)
        return rv;
    if ((d = hs_sys_calloc(1, sizeof(*d) + sep_len)) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for a decoder");
    d->magic = DECODER_MAGIC;
    d->framing = *f;
    d->framing.sep = d->sep;
    if (sep_len > 0)
        memcpy(d->sep, f->sep, sep_len);
    *ret_decoder = d;
    return HS_OK;
}

void
hs_decoder_free(struct hs_decoder *d)
{
    if (d == NULL)
        return;
    HS_CHECK(d, DECODER_MAGIC);
    hs_deframer_fini(&d->deframer);
    memset(d, 0xd3, sizeof(*d));
    free(d);
}

static void
drop_pending(struct hs_decoder *d)
{
    if (d->pending == 0)
        return;
    hs_deframer_drop(&d->deframer, d->pending);
    d->pending = 0;
}

static hs_err
repeat(const struct hs_decoder *d, struct hs_error *err)
{
    if (err != NULL && err->code == HS_OK)
        *err = d->broken;
    return d->broken.code;
}

/* The error rv stands in d->broken, and stays there if it must not be survived. */
static hs_err
decoder_tell(struct hs_decoder *d, hs_err rv, struct hs_error *err)
{
    bool fatal = rv == HS_E_BAD_FRAME || rv == HS_E_TRUNCATED ||
                 (rv == HS_E_FRAME_TOO_LARGE && !d->deframer.oversize.recoverable);

    (void)repeat(d, err);
    if (!fatal)
        d->broken = (struct hs_error){0};
    return rv;
}

hs_err
hs_decoder_feed(struct hs_decoder *d, const uint8_t *bytes, size_t n, struct hs_error *err)
{
    uint8_t *room;

    HS_CHECK(d, DECODER_MAGIC);
    drop_pending(d);
    if (d->broken.code != HS_OK)
        return repeat(d, err);
    if (d->ended)
        return hs_err_setx(err, HS_E_INVALID, NULL, "fed after its end");
    if (n == 0)
        return HS_OK;
    if (hs_buf_reserve(&d->deframer.buf, n, &room) != HS_OK)
        return hs_err_setx(err, HS_E_NOMEM, NULL, "no memory for %zu more bytes", n);
    memcpy(room, bytes, n);
    hs_buf_commit(&d->deframer.buf, n);
    hs_deframer_skip_quietly(&d->deframer);
    return HS_OK;
}

static hs_err
truncated(struct hs_decoder *d, size_t need, struct hs_error *err)
{
    hs_err rv = HS_E_TRUNCATED;

    if (hs_deframer_skipping(&d->deframer))
        rv =
            hs_err_setx(&d->broken, rv, NULL, "the stream ended in a frame that was being skipped");
    else
        rv = hs_err_setx(&d->broken, rv, NULL,
                         "the stream ended after %zu bytes of a frame, at least %zu are missing",
                         hs_buf_len(&d->deframer.buf), need);
    return decoder_tell(d, rv, err);
}

hs_err
hs_decoder_next(struct hs_decoder *d, struct hs_error *err, const uint8_t **ret_data,
                size_t *ret_len)
{
    struct hs_deframer *df = &d->deframer;
    struct hs_frame frame;
    size_t need = 0;
    hs_err rv;

    HS_CHECK(d, DECODER_MAGIC);
    drop_pending(d);
    if (d->broken.code != HS_OK)
        return repeat(d, err);
    rv = hs_deframer_next(df, &d->framing, &d->broken, &frame, &need);
    if (rv == HS_WANT && d->ended && (hs_buf_len(&df->buf) > 0 || hs_deframer_skipping(df)))
        return truncated(d, need, err);
    if (rv < 0)
        return decoder_tell(d, rv, err);
    if (rv != HS_OK)
        return rv;
    *ret_data = df->buf.data + df->buf.head + frame.start; /* No frame has less than one byte. */
    *ret_len = frame.len;
    d->pending = frame.consumed;
    return HS_OK;
}

hs_err
hs_decoder_eof(struct hs_decoder *d, struct hs_error *err)
{
    struct hs_deframer *df = &d->deframer;
    struct hs_oversize oversize;
    struct hs_frame frame;
    size_t scanned = 0, need = 0;
    hs_err rv = HS_OK;

    HS_CHECK(d, DECODER_MAGIC);
    drop_pending(d);
    if (d->broken.code != HS_OK)
        return repeat(d, err);
    d->ended = true;
    if (hs_deframer_skipping(df))
        rv = df->skip == HS_SKIP_COUNT || df->skip == HS_SKIP_SEARCH ? HS_WANT : HS_OK;
    else if (hs_buf_len(&df->buf) > 0)
        rv = hs_framing_find(&d->framing, df->buf.data + df->buf.head, hs_buf_len(&df->buf),
                             &scanned, &need, NULL, &frame, &oversize);
    /* Whole frames and errors are for hs_decoder_next. */
    return rv == HS_WANT ? truncated(d, need, err) : HS_OK;
}

size_t
hs_decoder_buffered(const struct hs_decoder *d)
{
    HS_CHECK(d, DECODER_MAGIC);
    return hs_buf_len(&d->deframer.buf) - d->pending;
}

void
hs_decoder_oversize(const struct hs_decoder *d, struct hs_oversize *ret_oversize)
{
    HS_CHECK(d, DECODER_MAGIC);
    *ret_oversize = d->deframer.oversize;
}

size_t
hs_decoder_take_rest(struct hs_decoder *d, uint8_t *to, size_t n)
{
    HS_CHECK(d, DECODER_MAGIC);
    drop_pending(d);
    n = hs_buf_take(&d->deframer.buf, to, n);
    hs_deframer_touched(&d->deframer);
    return n;
}
