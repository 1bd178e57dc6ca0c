/* sockopt.c: socket options as one table.
 *
 * A row says which field of struct hs_sockopts goes to which option, for which sockets, and which
 * sysctl may have the last word. Setting and auditing are loops over it. An audit reads everything
 * back; setting reads back what the kernel may quietly change (MAY_DIFFER), since a plain option is
 * either stored as it is or refused. SO_RCVBUF
 * and SO_SNDBUF are kept doubled by the kernel (socket(7)) and are shown as they were asked for.
 */
#include "sockopt.h"

#include "../base/check.h"
#include "../base/err.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

enum kind { PLAIN, DOUBLED, LINGER, PROTOCOL };
enum reach { ANY_SOCKET = 0, TCP_ONLY = 1, IPV6_ONLY = 2, LISTENERS = 4, MAY_DIFFER = 8 };

struct row {
    const char *name;
    size_t offset;
    int level, option;
    enum kind kind;
    unsigned reach;
    const char *limited_by;
};

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

#define ROW(field, level, option, kind, reach, sysctl)                                             \
    {                                                                                              \
#field, offsetof(struct hs_sockopts, field), level, option, kind, reach, sysctl            \
    }

/* clang-format off */
static const struct row rows[] = {
    ROW(nodelay, IPPROTO_TCP, TCP_NODELAY, PLAIN, TCP_ONLY, NULL),
    ROW(keepalive_idle_s, IPPROTO_TCP, TCP_KEEPIDLE, PLAIN, TCP_ONLY,
        "net.ipv4.tcp_keepalive_time"),
    ROW(keepalive_interval_s, IPPROTO_TCP, TCP_KEEPINTVL, PLAIN, TCP_ONLY,
        "net.ipv4.tcp_keepalive_intvl"),
    ROW(keepalive_count, IPPROTO_TCP, TCP_KEEPCNT, PLAIN, TCP_ONLY,
        "net.ipv4.tcp_keepalive_probes"),
    ROW(keepalive, SOL_SOCKET, SO_KEEPALIVE, PLAIN, TCP_ONLY, NULL),
    ROW(user_timeout_ms, IPPROTO_TCP, TCP_USER_TIMEOUT, PLAIN, TCP_ONLY, NULL),
    ROW(recv_buffer, SOL_SOCKET, SO_RCVBUF, DOUBLED, ANY_SOCKET | MAY_DIFFER, "net.core.rmem_max"),
    ROW(send_buffer, SOL_SOCKET, SO_SNDBUF, DOUBLED, ANY_SOCKET | MAY_DIFFER, "net.core.wmem_max"),
    ROW(notsent_lowat, IPPROTO_TCP, TCP_NOTSENT_LOWAT, PLAIN, TCP_ONLY,
        "net.ipv4.tcp_notsent_lowat"),
    ROW(linger_s, SOL_SOCKET, SO_LINGER, LINGER, ANY_SOCKET, NULL),
    ROW(priority, SOL_SOCKET, SO_PRIORITY, PLAIN, ANY_SOCKET, NULL),
    ROW(mark, SOL_SOCKET, SO_MARK, PLAIN, ANY_SOCKET, NULL),
    ROW(mptcp, SOL_SOCKET, SO_PROTOCOL, PROTOCOL, TCP_ONLY | MAY_DIFFER, "net.mptcp.enabled"),
    ROW(reuse_port, SOL_SOCKET, SO_REUSEPORT, PLAIN, TCP_ONLY | LISTENERS, NULL),
    ROW(defer_accept_s, IPPROTO_TCP, TCP_DEFER_ACCEPT, PLAIN, TCP_ONLY | LISTENERS | MAY_DIFFER,
        NULL),
    ROW(fastopen_queue, IPPROTO_TCP, TCP_FASTOPEN, PLAIN, TCP_ONLY | LISTENERS | MAY_DIFFER,
        "net.ipv4.tcp_fastopen"),
    ROW(v6only, IPPROTO_IPV6, IPV6_V6ONLY, PLAIN, IPV6_ONLY | LISTENERS, "net.ipv6.bindv6only"),
};
/* clang-format on */

#define MAX_KEEPALIVE_S 32767 /* MAX_TCP_KEEPIDLE, include/net/tcp.h */
#define NROWS (sizeof(rows) / sizeof(rows[0]))
_Static_assert(NROWS <= HS_SETTINGS_MAX, "an audit must have room for every row");

void
hs_sockopts_init(struct hs_sockopts *o)
{
    memset(o, 0, sizeof(*o));
    for (size_t i = 0; i < NROWS; i++)
        memcpy((char *)o + rows[i].offset, &(int){HS_UNSET}, sizeof(int));
}

/* Three probes fill the second half of the time; the first half is the quiet time before them. The
 * user timeout is what ends it, in both cases: it overrides the probe count on an idle connection
 * (so that is left alone), and bounds retransmissions on a busy one. Keepalive counts in whole
 * seconds, so less than two seconds cannot be had on an idle connection. */
void
hs_sockopts_dead_after(struct hs_sockopts *o, int dead_after_ms)
{
    int seconds = dead_after_ms / 1000 > 0 ? dead_after_ms / 1000 : 1;
    int interval = seconds / 6 > 0 ? seconds / 6 : 1;
    int idle = seconds - 3 * interval > 0 ? seconds - 3 * interval : 1;

    o->keepalive = 1;
    o->keepalive_interval_s = interval < MAX_KEEPALIVE_S ? interval : MAX_KEEPALIVE_S;
    o->keepalive_idle_s = idle < MAX_KEEPALIVE_S ? idle : MAX_KEEPALIVE_S;
    o->user_timeout_ms = dead_after_ms;
}

static bool
applies(const struct row *row, int family, enum hs_sockopt_use use)
{
    if ((row->reach & LISTENERS) != 0 && use != HS_USE_LISTENER)
        return false;
    if ((row->reach & TCP_ONLY) != 0)
        return family == AF_INET || family == AF_INET6;
    if ((row->reach & IPV6_ONLY) != 0)
        return family == AF_INET6;
    return true;
}

static int
asked(const struct row *row, const struct hs_sockopts *o)
{
    int value;

    memcpy(&value, (const char *)o + row->offset, sizeof(value));
    return value;
}

static int
read_back(int fd, const struct row *row)
{
    struct linger linger;
    int value;
    socklen_t len = row->kind == LINGER ? sizeof(linger) : sizeof(value);

    if (getsockopt(fd, row->level, row->option, row->kind == LINGER ? (void *)&linger : &value,
                   &len) != 0)
        return HS_UNSET;
    switch (row->kind) {
    case LINGER:
        return linger.l_onoff ? linger.l_linger : HS_UNSET;
    case DOUBLED:
        return value / 2;
    case PROTOCOL:
        return value == IPPROTO_MPTCP;
    case PLAIN:
        break;
    }
    return value;
}

static int
write_one(int fd, const struct row *row, int value)
{
    struct linger linger = {.l_onoff = 1, .l_linger = value};

    if (row->kind == PROTOCOL)
        return 0; /* Decided by socket(2). */
    if (row->kind == LINGER)
        return setsockopt(fd, row->level, row->option, &linger, sizeof(linger));
    return setsockopt(fd, row->level, row->option, &value, sizeof(value));
}

/* TCP_DEFER_ACCEPT is kept as a number of retransmissions and comes back rounded up (tcp(7)). */
static bool
as_asked(const struct row *row, int want, int got)
{
    if (row->option == TCP_DEFER_ACCEPT && row->level == IPPROTO_TCP)
        return got >= want;
    if (row->level == SOL_SOCKET && row->option == SO_KEEPALIVE)
        return (got != 0) == (want != 0);
    return row->kind == DOUBLED ? got >= want : got == want; /* The kernel has a minimum, too. */
}

static hs_err
apply_interface(int fd, const struct hs_sockopts *o, struct hs_error *err)
{
    if (o->interface[0] == '\0')
        return HS_OK;
    if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, o->interface,
                   (socklen_t)strnlen(o->interface, sizeof(o->interface))) != 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, NULL, "setting interface=%.15s", o->interface);
    return HS_OK;
}

hs_err
hs_sockopts_apply(int fd, int family, const struct hs_sockopts *o, enum hs_sockopt_use use,
                  struct hs_error *err, unsigned *ret_changed)
{
    unsigned changed = 0;
    hs_err rv;

    if (family != AF_UNIX && (rv = apply_interface(fd, o, err)) != HS_OK)
        return rv;
    for (const struct row *row = rows; row < rows + NROWS; row++) {
        int want = asked(row, o);

        if (want == HS_UNSET || !applies(row, family, use))
            continue;
        if (write_one(fd, row, want) != 0) {
            if (o->mptcp == 1 && (errno == ENOPROTOOPT || errno == EOPNOTSUPP)) {
                changed++; /* MPTCP does not know every TCP option; the audit tells which. */
                continue;
            }
            return hs_err_set(err, HS_E_SYSTEM, errno, NULL, "setting %s=%d", row->name, want);
        }
        if ((row->reach & MAY_DIFFER) != 0 && !as_asked(row, want, read_back(fd, row)))
            changed++;
    }
    *ret_changed = changed;
    return HS_OK;
}

size_t
hs_sockopts_audit(int fd, int family, const struct hs_sockopts *o, enum hs_sockopt_use use,
                  struct hs_setting *settings)
{
    size_t n = 0;

    for (const struct row *row = rows; row < rows + NROWS; row++) {
        int want = asked(row, o);

        if (!applies(row, family, use))
            continue;
        settings[n] =
            (struct hs_setting){.name = row->name, .asked = want, .effective = read_back(fd, row)};
        settings[n].differs = want != HS_UNSET && !as_asked(row, want, settings[n].effective);
        settings[n].limited_by = settings[n].differs ? row->limited_by : NULL;
        n++;
    }
    return n;
}

void
hs_sockopt_never_block_close(int fd)
{
    const struct linger off = {.l_onoff = 0};
    struct linger linger;
    socklen_t len = sizeof(linger);

    if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0 && linger.l_onoff != 0 &&
        linger.l_linger > 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
}

bool
hs_sockopt_resets_on_close(int fd)
{
    struct linger linger;
    socklen_t len = sizeof(linger);

    return getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0 && linger.l_onoff != 0 &&
           linger.l_linger == 0;
}
