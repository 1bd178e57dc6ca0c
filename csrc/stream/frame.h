/* frame.h: cutting a stream of bytes into frames.
 *
 * Pure: no I/O, no time, no locks. hs_framing_find looks at bytes; struct hs_deframer adds the
 * buffer, what an unfinished search has already seen, and the policy for frames that are too long.
 *
 * Invariants:
 * - No terminator (separator or end of line) begins in the first `scanned` bytes. So scanned is
 *   also the least size that the payload can have, which is what the limit is held against; only
 *   bytes that may be the beginning of a terminator are looked at twice.
 * - scanned is worth something for one terminator only, which the deframer remembers; for any other
 *   the search starts from the beginning.
 * - The verdict about a frame does not depend on how its bytes were cut when they arrived.
 * - A frame that is being skipped belongs to the stream, not to a framing: whatever is asked for
 *   next, the rest of it goes first (hs_deframer_skip).
 */
#ifndef HS_STREAM_FRAME_H
#define HS_STREAM_FRAME_H

#include "../base/buf.h"

#include <string.h>

/* Where a frame is in the bytes that were looked at. */
struct hs_frame {
    size_t start, len; /* what to return */
    size_t consumed;   /* how much to drop from the front */
};

/* What ends a frame; NONE for prefixed ones. */
enum hs_terminator_kind { HS_TERM_NONE, HS_TERM_BYTES, HS_TERM_CRLF, HS_TERM_ANY };

struct hs_terminator {
    enum hs_terminator_kind kind;
    const uint8_t *sep;
    size_t sep_len;
};

struct hs_terminator hs_framing_terminator(const struct hs_framing *f);

/* Looks for the terminator from *scanned on, which it moves. HS_OK: the payload is [0, *ret_at) and
 * the frame ends at *ret_end. HS_WANT. HS_E_BAD_FRAME: at *scanned stands what no line may hold. */
HS_NODISCARD hs_err hs_terminator_find(const struct hs_terminator *t, const uint8_t *data,
                                       size_t len, size_t *scanned, size_t *ret_at,
                                       size_t *ret_end);

/* The header of a prefixed frame: its own size and what it says of the payload, unlimited. */
HS_NODISCARD hs_err hs_prefix_parse(const struct hs_framing *f, const uint8_t *data, size_t len,
                                    size_t *ret_need, struct hs_error *err, size_t *ret_header,
                                    uint64_t *ret_payload);

/* One frame at the beginning of data; f has passed hs_framing_check. HS_WANT: not yet; at least
 * *ret_need (> 0) bytes are missing. HS_E_BAD_FRAME. HS_E_FRAME_TOO_LARGE: the facts are in
 * *ret_oversize (discarded and recoverable are zero), and err is left to hs_oversize_error. Start
 * with *scanned 0 and pass it again with the same bytes and more. */
HS_NODISCARD hs_err hs_framing_find(const struct hs_framing *f, const uint8_t *data, size_t len,
                                    size_t *scanned, size_t *ret_need, struct hs_error *err,
                                    struct hs_frame *ret_frame, struct hs_oversize *ret_oversize);
/* Fills err for a frame that is too large and returns HS_E_FRAME_TOO_LARGE. */
hs_err hs_oversize_error(const struct hs_oversize *o, struct hs_error *err);

enum hs_skip {
    HS_SKIP_NONE,
    HS_SKIP_COUNT,  /* `left` bytes are still to be thrown away */
    HS_SKIP_SEARCH, /* until the terminator, but no more than `left` bytes */
    HS_SKIP_DONE,   /* only the report is missing */
    HS_SKIP_OVER,   /* more than may be skipped: no way to go on */
    HS_SKIP_BAD,    /* no line may hold this: no way to go on */
};

/* Zero it to begin. It is a part of every connection, hence its size. */
struct hs_deframer {
    struct hs_buf buf;
    size_t scanned;
    uint64_t left;
    struct hs_oversize oversize; /* of the last HS_E_FRAME_TOO_LARGE, or of the skip in progress */
    union {
        uint8_t bytes[sizeof(uint8_t *)];
        uint8_t *heap; /* owns: when sep_len does not fit into bytes */
    } sep;
    uint16_t sep_len;
    uint8_t terminator; /* enum hs_terminator_kind; NONE: scanned is of no use */
    uint8_t skip;       /* enum hs_skip */
};

_Static_assert(sizeof(struct hs_deframer) <= 96, "every connection holds one");
_Static_assert(HS_FRAME_SEP_MAX <= UINT16_MAX, "sep_len");

/* The whole of hs_deframer_next; callers use that one. */
HS_NODISCARD hs_err hs_deframer_next_slow(struct hs_deframer *d, const struct hs_framing *f,
                                          struct hs_error *err, struct hs_frame *ret_frame,
                                          size_t *ret_need);

/* One frame at the front of d->buf, which stays there until hs_deframer_drop.
 * HS_WANT: not yet; at least *ret_need (> 0) more bytes have to arrive, or, of a frame that is
 * being skipped, are still to come. HS_E_FRAME_TOO_LARGE: see d->oversize; when it is not
 * recoverable, and after HS_E_BAD_FRAME, the stream must not go on, which is for the caller to see
 * to. HS_E_NOMEM changes nothing. */
static inline hs_err
hs_deframer_next(struct hs_deframer *d, const struct hs_framing *f, struct hs_error *err,
                 struct hs_frame *ret_frame, size_t *ret_need)
{
    /* The short way: nothing unfinished, and one byte ends the frame. */
    if (d->scanned == 0 && d->skip == HS_SKIP_NONE && d->buf.head < d->buf.tail) {
        const uint8_t *data = d->buf.data + d->buf.head, *end;
        int last = '\n';

        if (f->kind == HS_FRAMING_DELIMITER && f->sep_len == 1)
            last = f->sep[0];
        else if (f->kind != HS_FRAMING_LINE || f->ending == HS_LINE_CRLF)
            return hs_deframer_next_slow(d, f, err, ret_frame, ret_need);
        if ((end = memchr(data, last, d->buf.tail - d->buf.head)) != NULL) {
            size_t at = (size_t)(end - data), consumed = at + 1;

            if (f->kind == HS_FRAMING_LINE && f->ending == HS_LINE_ANY && at > 0 &&
                data[at - 1] == '\r')
                at--;
            if (at <= f->max_size) {
                *ret_frame = (struct hs_frame){0, f->keep ? consumed : at, consumed};
                return HS_OK;
            }
        }
    }
    return hs_deframer_next_slow(d, f, err, ret_frame, ret_need);
}

/* Forgets an unfinished search: somebody consumed bytes, or put some in front. A skip in progress
 * stays: see hs_deframer_skip. */
void hs_deframer_touched(struct hs_deframer *d);

/* Consumes n bytes: a frame that was taken, or others. */
static inline void
hs_deframer_drop(struct hs_deframer *d, size_t n)
{
    hs_buf_drop(&d->buf, n);
    if (d->terminator != HS_TERM_NONE)
        hs_deframer_touched(d);
}

/* For reads that know no frames, and for the one who adds to the buffer without taking frames:
 * throws away what has arrived of a frame that is being skipped. HS_OK: there is no such frame, the
 * bytes in the buffer are the stream's. HS_WANT: at least *ret_need bytes of it are still to come.
 * Else its one report, as hs_deframer_next would give it. */
HS_NODISCARD hs_err hs_deframer_skip(struct hs_deframer *d, struct hs_error *err, size_t *ret_need);
/* The same, but keeps the report for later. */
void hs_deframer_skip_quietly(struct hs_deframer *d);
static inline bool
hs_deframer_skipping(const struct hs_deframer *d)
{
    return d->skip != HS_SKIP_NONE;
}

/* Frees what it holds and leaves it as new. */
void hs_deframer_fini(struct hs_deframer *d);

#endif
