/* messages.c: requests and answers, in each of the ways in which a program can read and send them.
 *
 * A message has a header and a length. Each byte of it is known from the message's number and its
 * place, so that one that is lost, or is another's, is found where it is read.
 */
#include "world.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct hs_framing frames = {
    .kind = HS_FRAMING_PREFIX, .max_size = MAX_FRAME, .width = 4};

void
messages_begin(void)
{
    struct hs_error err = {0};

    must(hs_framing_check(&frames, &err), "framing", &err);
}

uint64_t
message_of(const struct header *h, bool answer)
{
    return (uint64_t)h->client << 33 | (uint64_t)h->number << 1 | answer;
}

static hs_err
receive_by_kind(struct end *e, const struct header *h, uint64_t message, uint8_t *buf, size_t len,
                size_t *have)
{
    size_t n = 0, want = 1 + (size_t)sim_below(len - *have);
    hs_err rv = HS_OK;

    switch ((enum kind)h->kind) {
    case EXACTLY:
        rv = end_recv_exactly(e, buf, n = want, any_span());
        break;
    case WAITALL:
        rv = end_recv(e, buf, want, MSG_WAITALL, any_span(), &n);
        break;
    case SOME:
    case KINDS:
        if (sim_chance(100) && (rv = end_recv(e, buf, want, MSG_PEEK, any_span(), &n)) == HS_OK &&
            n > 0)
            check_pattern(message, *have, buf, n);
        rv = end_recv(e, buf, want, 0, any_span(), &n);
        break;
    case FRAMES:
        rv = end_recv_frame(e, &frames, buf, MAX_FRAME, any_span(), &n);
        break;
    }
    if (rv == HS_OK && n == 0)
        return HS_E_END;
    if (rv == HS_OK)
        *have += n;
    return rv;
}

/* A deadline that passes loses nothing: the next call goes on. */
hs_err
receive_message(struct end *e, const struct header *h, bool answer, size_t len)
{
    struct header as = *h;
    uint8_t *buf = malloc(MAX_MESSAGE + MAX_FRAME);
    size_t have = 0, before;
    int tries = 0;
    hs_err rv = HS_OK;

    if (buf == NULL)
        abort();
    if (!answer && as.kind == FRAMES)
        as.kind = EXACTLY;
    while (have < len && rv == HS_OK) {
        before = have;
        rv = receive_by_kind(e, &as, message_of(h, answer), buf, len, &have);
        if (rv == HS_OK)
            check_pattern(message_of(h, answer), before, buf, have - before);
        if (rv == HS_E_DEADLINE && !world_is_calm() && tries++ < 12)
            rv = HS_OK;
        if (!world_is_calm() && sim_chance(30))
            sim_sleep(sim_between(0, 2 * SIM_S)); /* A slow reader. */
    }
    free(buf);
    return rv;
}

hs_err
receive_header(struct end *e, struct header *h, int64_t patience_ns)
{
    int64_t until = sim_now() + patience_ns;
    hs_err rv;

    do
        rv = end_recv_exactly(e, (uint8_t *)h, sizeof(*h),
                              world_is_calm() ? patience_ns : any_span());
    while (rv == HS_E_DEADLINE && sim_now() < until &&
           (e->token == NULL || hs_token_check(e->token) == HS_OK));
    return rv;
}

static int
make_file(const uint8_t *buf, size_t len)
{
    int file = memfd_create("message", MFD_CLOEXEC);

    if (file < 0 || write(file, buf, len) != (ssize_t)len)
        sim_violation("no file");
    return file;
}

/* What could not be begun in time may be tried again; what has begun is poisoned by it. */
hs_err
send_message(struct end *e, const uint8_t *head, size_t head_len, const uint8_t *buf, size_t len)
{
    struct iovec iov[3];
    int tries = 0, file = sim_chance(100) ? make_file(buf, len) : -1;
    hs_err rv;

    do {
        if (file < 0 && sim_chance(500)) {
            iov[0] = (struct iovec){.iov_base = (void *)(uintptr_t)head, .iov_len = head_len};
            iov[1] = (struct iovec){.iov_base = NULL, .iov_len = 0};
            iov[2] = (struct iovec){.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
            rv = end_sendv(e, iov, SIM_LENGTH(iov), any_span());
        } else if ((rv = end_send_all(e, head, head_len, any_span())) == HS_OK) {
            head_len = 0;
            rv = file < 0 ? end_send_all(e, buf, len, any_span())
                          : end_send_file(e, file, 0, len, any_span());
        }
    } while (rv == HS_E_DEADLINE && !e->poisoned && tries++ < 6);
    if (file >= 0)
        (void)close(file);
    if (e->poisoned && end_send_all(e, buf, 1, SIM_S) == HS_OK)
        sim_violation("a poisoned stream has taken a byte");
    return rv;
}

hs_err
send_frames(struct end *e, const struct header *h, const uint8_t *buf)
{
    hs_err rv = end_send_all(e, (const uint8_t *)h, sizeof(*h), 20 * SIM_S);

    for (size_t at = 0, n; at < h->answer_len && rv == HS_OK; at += n) {
        uint8_t head[4];

        n = 1 + (size_t)sim_below(MAX_FRAME - 1);
        n = n < h->answer_len - at ? n : h->answer_len - at;
        for (int i = 0; i < 4; i++)
            head[i] = (uint8_t)(n >> (24 - 8 * i));
        rv = send_message(e, head, sizeof(head), buf + at, n);
    }
    return rv;
}
