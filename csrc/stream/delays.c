/* delays.c: see delays.h.
 *
 * The kernel stamps what it receives (SO_TIMESTAMPING_NEW, software, asked for once for each
 * connection), and tells the stamp of what is first in the queue to the one who only peeks. A peek
 * is a system call: one of SAMPLE looks makes it, so that what is measured costs some tens of
 * nanoseconds a message. Looks at an empty queue are among them; SAMPLE is odd, so that a program
 * whose looks find nothing every other time is not measured at these alone.
 *
 * Stamps are wall-clock time: a clock that is set in between makes one wrong, a negative one is 0.
 */
#include "delays.h"

#include "conn_impl.h"
#include "layer.h"
#include "../base/check.h"
#include "../base/err.h"
#include "../base/histogram.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <linux/net_tstamp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define DELAYS_MAGIC 0x70c3de1aU
#define FREED 0x7e
#define SAMPLE 7
#define CONTROL_ROOM 512 /* for all that the kernel says of a TCP's bytes */

#ifndef SO_TIMESTAMPING_NEW
#define SO_TIMESTAMPING_NEW 65
#endif

/* As the kernel writes it. */
struct stamps {
    int64_t at[3][2]; /* of software, deprecated, of hardware: seconds and nanoseconds */
};

struct hs_delays {
    unsigned magic;
    atomic_int refs;
    atomic_uint looks;
    struct hs_fixed_histogram queue;
};

static atomic_long live;

long
hs_delays_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

hs_err
hs_delays_new(struct hs_error *err, struct hs_delays **ret_delays)
{
    struct hs_delays *d = hs_sys_malloc(sizeof(*d));

    if (d == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "delays", "no memory to measure delays");
    d->magic = DELAYS_MAGIC;
    d->refs = 1;
    d->looks = 0;
    hs_fixed_histogram_init(&d->queue, HS_EDGES_DELAY);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    *ret_delays = d;
    return HS_OK;
}

void
hs_delays_unref(struct hs_delays *d)
{
    if (d == NULL)
        return;
    HS_CHECK(d, DELAYS_MAGIC);
    if (atomic_fetch_sub(&d->refs, 1) != 1)
        return;
    memset(d, FREED, sizeof(*d));
    free(d);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

void
hs_delays_read(const struct hs_delays *d, struct hs_fixed_counts *ret_queue)
{
    HS_CHECK(d, DELAYS_MAGIC);
    hs_fixed_histogram_read(&d->queue, ret_queue);
}

void
hs_conn_measure(struct hs_conn *c, struct hs_delays *d)
{
    const int how = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;

    HS_CHECK(c, CONN_MAGIC);
    HS_CHECK(d, DELAYS_MAGIC);
    if (c->delays != NULL || c->family == AF_UNIX || hs_fd_look(&c->fd, NULL) != HS_OK)
        return;
    if (hs_sys_setsockopt(hs_fd_number(&c->fd), SOL_SOCKET, SO_TIMESTAMPING_NEW, &how,
                          sizeof(how)) == 0) {
        atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
        c->delays = d;
    }
    hs_fd_look_end(&c->fd);
}

static void
measure(struct hs_conn *c)
{
    union {
        char bytes[CMSG_SPACE(sizeof(struct stamps)) + 64]; /* and what else was asked for */
        struct cmsghdr align;
    } control;
    uint8_t byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct stamps stamps;
    ssize_t n;

    msg.msg_control = control.bytes;
    msg.msg_controllen = sizeof(control.bytes);
    hs_ask_aside_begin(c);
    n = hs_sys_recvmsg(hs_fd_number(&c->fd), &msg, MSG_PEEK | MSG_DONTWAIT);
    hs_ask_aside_end(c, n < 0 && errno != EAGAIN && errno != EINTR ? errno : 0);
    if (n <= 0)
        return;
    for (struct cmsghdr *m = CMSG_FIRSTHDR(&msg); m != NULL; m = CMSG_NXTHDR(&msg, m))
        if (m->cmsg_level == SOL_SOCKET && m->cmsg_type == SO_TIMESTAMPING_NEW &&
            m->cmsg_len >= CMSG_LEN(sizeof(stamps))) {
            memcpy(&stamps, CMSG_DATA(m), sizeof(stamps));
            if (stamps.at[0][0] != 0)
                hs_fixed_histogram_add(&c->delays->queue, hs_calendar_ns() -
                                                              stamps.at[0][0] * HS_NS_PER_S -
                                                              stamps.at[0][1]);
        }
}

void
hs_delays_look(struct hs_conn *c)
{
    struct hs_delays *d = c->delays;

    if (d == NULL || atomic_load(&c->mid_message) || atomic_load(&c->buffered) > 0)
        return;
    if (atomic_fetch_add_explicit(&d->looks, 1, memory_order_relaxed) % SAMPLE != 0 ||
        hs_fd_look(&c->fd, NULL) != HS_OK)
        return;
    measure(c);
    hs_fd_look_end(&c->fd);
}

/* ---- What others see of it ----------------------------------------------------------------- */

static bool
is_stamps(const struct cmsghdr *m)
{
    return m->cmsg_level == SOL_SOCKET && m->cmsg_type == SO_TIMESTAMPING_NEW;
}

/* What is left of `from` without the stamps, as far as there is room. */
static void
copy_control(struct msghdr *from, struct msghdr *to)
{
    size_t room = to->msg_control != NULL ? to->msg_controllen : 0, n = 0;

    to->msg_flags = from->msg_flags;
    for (struct cmsghdr *m = CMSG_FIRSTHDR(from); m != NULL; m = CMSG_NXTHDR(from, m)) {
        size_t space = CMSG_ALIGN(m->cmsg_len);

        if (is_stamps(m))
            continue;
        if (to->msg_control == NULL || space > room - n) {
            to->msg_flags |= MSG_CTRUNC;
            break;
        }
        memset((char *)to->msg_control + n, 0, space);
        memcpy((char *)to->msg_control + n, m, m->cmsg_len);
        n += space;
    }
    to->msg_controllen = n;
}

hs_err
hs_delays_try_recvmsg(int fd, struct msghdr *msg, int flags, struct hs_error *err, short *want,
                      size_t *ret_n)
{
    union {
        char bytes[CONTROL_ROOM];
        struct cmsghdr align;
    } control;
    struct msghdr own = *msg;
    hs_err rv;

    own.msg_control = control.bytes;
    own.msg_controllen = sizeof(control.bytes);
    if ((rv = hs_tcp_try_recvmsg(fd, &own, flags, err, want, ret_n)) == HS_OK)
        copy_control(&own, msg);
    return rv;
}

void
hs_delays_end(const struct hs_conn *c, int fd)
{
    const int off = 0;

    if (c->delays != NULL)
        (void)hs_sys_setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING_NEW, &off, sizeof(off));
}

void
hs_delays_share(const struct hs_conn *c, struct hs_conn *to)
{
    if (c->delays == NULL)
        return;
    atomic_fetch_add_explicit(&c->delays->refs, 1, memory_order_relaxed);
    to->delays = c->delays;
}
