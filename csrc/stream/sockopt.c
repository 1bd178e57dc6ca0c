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
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
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
#define SHORTEST_SPREAD_S 5
#define SHORTEST_COARSE_S 10
#define LONGEST_FINE_S 5
#define NROWS (sizeof(rows) / sizeof(rows[0]))
_Static_assert(NROWS <= HS_SETTINGS_MAX, "an audit must have room for every row");

static _Atomic uint64_t seed; /* 0: the clock */
static _Atomic uint64_t drawn;
static _Atomic int assumed_hz; /* 0: the kernel's */

void
hs_sockopts_init(struct hs_sockopts *o)
{
    memset(o, 0, sizeof(*o));
    for (size_t i = 0; i < NROWS; i++)
        memcpy((char *)o + rows[i].offset, &(int){HS_UNSET}, sizeof(int));
    o->dead_after_ms = HS_UNSET;
}

/* From how long a connection is silent until it counts as dead. */
struct schedule {
    int idle_min_s, idle_max_s;
    int interval_min_s, interval_max_s;
    int user_timeout_ms;
};

/* The user timeout is what ends a connection: it overrides the probe count on an idle one (so that
 * is left alone), and bounds retransmissions on a busy one. On an idle one it is looked at when the
 * keepalive timer fires, so the last firing before it and the interval behind that must fit into
 * the time. Kernel timers run late by an eighth at most (8/63, kernel/time/timer.c): hence the
 * seventh on top of the interval. */
static int
user_timeout_for(int dead_after_ms, int interval_s)
{
    return dead_after_ms - interval_s * 1000 - interval_s * 1000 / 7;
}

/* The longest quiet time, of those up to idle_s, that leaves room for four probes, and for three of
 * timers that are all as late as can be. Below 1 there is none. */
static int
idle_that_fits(int dead_after_ms, int interval_s, int idle_s)
{
    int user_timeout_ms = user_timeout_for(dead_after_ms, interval_s);
    int in_time = (user_timeout_ms - 1) / 1000 - 3 * interval_s;
    int late = (int)((user_timeout_ms - 1) * 7LL / 8000) - 2 * interval_s;

    idle_s = in_time < idle_s ? in_time : idle_s;
    return late < idle_s ? late : idle_s;
}

/* Keepalive counts whole seconds, so that connections opened together stay together. What spreads
 * or bunches them is the kernel's wheel of timers: a timer of up to 63 ticks fires at its tick, one
 * of up to 504 at the next 8th, of up to 4,032 at the next 64th, and so on. At 250 Hz all that wait
 * for 3 to 16 s fire at four moments of each second, and for up to 2 s at thirty. Returns the
 * longest time in seconds, of the shorter ones, that ends just below such a limit. Timers of it are
 * as fine for their length as they get, and one that is set anew when it fires leaves the moments
 * of those that are coarser. */
static int
fine_seconds(int hz)
{
    int ticks = 63 * 8, seconds;

    while (ticks <= hz)
        ticks *= 8;
    seconds = (ticks - 1) / hz;
    return seconds < LONGEST_FINE_S ? seconds : LONGEST_FINE_S;
}

/* ADR 77. Where there is time, quiet times are long and differ, and what is lost of a bunch is sent
 * again at moments of its own. Where there is less, no timer is longer than a fine one: that is the
 * interval, thus the time between probes, and the quiet time only draws which of its seconds a
 * connection has. Where not even that fits, all have one quiet time and probe again each second:
 * what finds the queue full moves to the next second, and stays there if that has room. Below five
 * seconds there is room for none of this: a probe is sent every second, and less than two seconds
 * cannot be had on an idle connection. */
static struct schedule
schedule_for(int dead_after_ms, int hz)
{
    int seconds = dead_after_ms / 1000, fine = fine_seconds(hz), interval = fine > 2 ? fine : 2;
    int longest = seconds / 3 > 16 ? seconds / 3 : 16, shortest = fine > 2 ? fine - 1 : fine, idle;

    if (seconds < SHORTEST_SPREAD_S)
        return (struct schedule){1, 1, 1, 1, seconds < 2 ? dead_after_ms : seconds * 1000};
    interval = (seconds - longest) / 8 > interval ? (seconds - longest) / 8 : interval;
    interval = interval < MAX_KEEPALIVE_S ? interval : MAX_KEEPALIVE_S;
    idle = idle_that_fits(dead_after_ms, interval, longest);
    if (idle >= SHORTEST_COARSE_S) {
        idle = idle < MAX_KEEPALIVE_S ? idle : MAX_KEEPALIVE_S;
        shortest = interval * 2 / 3 > shortest ? interval * 2 / 3 : shortest;
        return (struct schedule){(idle + 2) / 4, idle, shortest, interval,
                                 user_timeout_for(dead_after_ms, interval)};
    }
    if (idle_that_fits(dead_after_ms, fine, fine) == fine)
        return (struct schedule){1, fine, fine, fine, user_timeout_for(dead_after_ms, fine)};
    idle = idle_that_fits(dead_after_ms, 1, fine);
    idle = idle > 1 ? idle : 1;
    return (struct schedule){idle, idle, 1, 1, user_timeout_for(dead_after_ms, 1)};
}

static int
kernel_hz(void)
{
    int hz = atomic_load_explicit(&assumed_hz, memory_order_relaxed);

    return hz != 0 ? hz : hs_timer_hz();
}

void
hs_sockopts_assume_hz(int hz)
{
    atomic_store(&assumed_hz, hz);
}

void
hs_sockopts_dead_after(struct hs_sockopts *o, int dead_after_ms)
{
    struct schedule s = schedule_for(dead_after_ms, kernel_hz());

    o->keepalive = 1;
    o->keepalive_interval_s = s.interval_max_s;
    o->keepalive_idle_s = s.idle_max_s;
    o->user_timeout_ms = s.user_timeout_ms;
    o->dead_after_ms = dead_after_ms;
}

/* The time tells processes apart that were forked from one parent, the count connections that were
 * opened at the same time. */
static uint64_t
sockopt_next_random(void) /* splitmix64 */
{
    uint64_t from = atomic_load_explicit(&seed, memory_order_relaxed);
    uint64_t z = atomic_fetch_add_explicit(&drawn, 1, memory_order_relaxed);

    z = z * UINT64_C(0x9e3779b97f4a7c15) + (from != 0 ? from : (uint64_t)hs_now());
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void
hs_sockopts_seed(uint64_t from)
{
    atomic_store(&seed, from);
    atomic_store(&drawn, 0);
}

static int
between(int low, int high, uint32_t random)
{
    return low + (int)(((uint64_t)random * (uint64_t)(high - low + 1)) >> 32);
}

void
hs_sockopts_draw(const struct hs_sockopts *o, struct hs_sockopts *ret_own)
{
    struct schedule s;
    uint64_t random;

    *ret_own = *o;
    if (o->dead_after_ms == HS_UNSET)
        return;
    s = schedule_for(o->dead_after_ms, kernel_hz());
    random = sockopt_next_random();
    ret_own->keepalive_idle_s = between(s.idle_min_s, s.idle_max_s, (uint32_t)random);
    ret_own->keepalive_interval_s =
        between(s.interval_min_s, s.interval_max_s, (uint32_t)(random >> 32));
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
    struct linger linger = {0};
    int value = 0;
    socklen_t len = row->kind == LINGER ? sizeof(linger) : sizeof(value);

    if (hs_sys_getsockopt(fd, row->level, row->option,
                          row->kind == LINGER ? (void *)&linger : &value, &len) != 0)
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
        return hs_sys_setsockopt(fd, row->level, row->option, &linger, sizeof(linger));
    return hs_sys_setsockopt(fd, row->level, row->option, &value, sizeof(value));
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
    if (hs_sys_setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, o->interface,
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

void
hs_sockopts_draw_accepted(int fd, int family, const struct hs_sockopts *o,
                          struct hs_sockopts *ret_own)
{
    *ret_own = *o;
    if (family == AF_UNIX || o->dead_after_ms == HS_UNSET)
        return;
    hs_sockopts_draw(o, ret_own);
    if (hs_sys_setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &ret_own->keepalive_idle_s, sizeof(int)) !=
        0)
        ret_own->keepalive_idle_s = o->keepalive_idle_s;
    if (ret_own->keepalive_interval_s != o->keepalive_interval_s &&
        hs_sys_setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &ret_own->keepalive_interval_s,
                          sizeof(int)) != 0)
        ret_own->keepalive_interval_s = o->keepalive_interval_s;
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

bool
hs_sockopt_may_be_mptcp(int fd)
{
    int protocol = 0;
    socklen_t len = sizeof(protocol);

    return hs_sys_getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) != 0 ||
           protocol == IPPROTO_MPTCP;
}

void
hs_sockopt_never_block_close(int fd)
{
    const struct linger off = {.l_onoff = 0};
    struct linger linger;
    socklen_t len = sizeof(linger);

    if (hs_sys_getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0 && linger.l_onoff != 0 &&
        linger.l_linger > 0)
        (void)hs_sys_setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
}

bool
hs_sockopt_resets_on_close(int fd)
{
    struct linger linger;
    socklen_t len = sizeof(linger);

    return hs_sys_getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0 &&
           linger.l_onoff != 0 && linger.l_linger == 0;
}
