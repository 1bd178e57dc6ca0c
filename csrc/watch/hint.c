/* hint.c: one sentence of advice for a failed call, from what can be measured at that moment.
 *
 * Runs only after a failure. Reads /proc, asks sock_diag, counts descriptors; never waits for the
 * network, and says nothing rather than guess.
 */
#include "hardsock.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static bool
read_proc(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return false;
    n = read(fd, buf, size - 1);
    (void)close(fd);
    if (n <= 0)
        return false;
    buf[n] = '\0';
    return true;
}

static void
about_ports(const struct hs_addr *peer, char *buf, size_t size)
{
    uint32_t states[HS_TCP_STATES];
    char text[64], *end;
    long low, high;

    if (peer == NULL || !read_proc("/proc/sys/net/ipv4/ip_local_port_range", text, sizeof(text)))
        return;
    low = strtol(text, &end, 10);
    high = strtol(end, NULL, 10);
    if (high < low || hs_diag_count(peer, NULL, states) != HS_OK)
        return;
    (void)snprintf(buf, size,
                   "%u of the %ld local ports in net.ipv4.ip_local_port_range are in TIME_WAIT "
                   "towards this peer and %u are connected; reuse connections through a Pool, or "
                   "run `hardsock-tune explain net.ipv4.ip_local_port_range`",
                   states[TCP_TIME_WAIT], high - low + 1, states[TCP_ESTABLISHED]);
}

static void
about_descriptors(char *buf, size_t size)
{
    long counts[HS_FD_KINDS];
    struct rlimit limit = {0};
    size_t used;

    hs_fd_inventory(counts);
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    (void)snprintf(buf, size,
                   "this process may have %llu descriptors (RLIMIT_NOFILE) and has open:",
                   (unsigned long long)limit.rlim_cur);
    for (int kind = 0; kind < HS_FD_KINDS; kind++) {
        used = strlen(buf);
        if (counts[kind] > 0)
            (void)snprintf(buf + used, size - used, " %ld %s,", counts[kind],
                           hs_fd_kind_name((enum hs_fd_kind)kind));
    }
    used = strlen(buf);
    if (used > 0 && buf[used - 1] == ',')
        buf[used - 1] = '\0';
}

static void
about_lookup(const struct hs_error *err, char *buf, size_t size)
{
    struct hs_resolver_stats stats;

    hs_resolver_stats(&stats);
    switch (err->gai) {
    case EAI_NONAME:
    case EAI_NODATA:
        (void)snprintf(buf, size,
                       "no such name, or it has no address; check its spelling and "
                       "/etc/hosts, and `getent ahosts NAME`");
        break;
    case EAI_AGAIN:
        (void)snprintf(buf, size,
                       "the name server did not answer or refused; check "
                       "/etc/resolv.conf and whether that server is reachable");
        break;
    case EAI_SYSTEM:
        if (err->sys == EAGAIN) /* pthread_create(3)'s; getaddrinfo has none. */
            (void)snprintf(buf, size,
                           "no thread could be made for the lookup, and %ld lookups have one; "
                           "check `ulimit -u`, the cgroup's pids.max and memory",
                           stats.running + stats.orphans);
        break;
    default:
        break;
    }
    if (buf[0] == '\0' && stats.inherited > 0)
        (void)snprintf(buf, size,
                       "this process was forked while %ld name lookups ran in its parent; libc's "
                       "locks may be held for ever: fork before the first lookup, or exec",
                       stats.inherited);
    if (buf[0] == '\0' && stats.orphans > 0)
        (void)snprintf(buf, size,
                       "%ld abandoned name lookups are still running, the oldest for "
                       "%.1f s; check /etc/resolv.conf",
                       stats.orphans, (double)stats.oldest_orphan_ns / 1e9);
}

static const char *
fixed_advice(int sys)
{
    switch (sys) {
    case ECONNREFUSED:
        return "nothing listens on that address and port, or a firewall rejects it; on Linux "
               "`ss -ltn` on the target shows its listeners";
    case ENETUNREACH:
        return "this machine has no route to that address; for IPv6 that often means that only the "
               "name, not the network, has it: see `ip route get ADDRESS`";
    case EHOSTUNREACH:
        return "the target or the last router does not answer for that address; see "
               "`ip neigh` and the target's firewall";
    case ETIMEDOUT:
        return "no answer at all: a firewall that drops, a dead host, or a listener whose queue is "
               "full (`nstat -az TcpExtListenDrops` there)";
    case EACCES:
    case EPERM:
        return "a firewall rule, a missing capability or a broadcast address forbids it";
    case EADDRINUSE:
        return "another socket has that address; `ss -ltnp` shows who listens there";
    default:
        return "";
    }
}

static const char *
tls_advice(enum hs_tls_failure failure)
{
    switch (failure) {
    case HS_TLS_TIMEOUT:
        return "the connection is there, but the peer does not go on with the handshake: it may "
               "not speak TLS, wait for a plain command first (STARTTLS), or have no time";
    case HS_TLS_HTTP:
    case HS_TLS_NOT_TLS:
        return "that port may want a plain connection, or a plain command first (STARTTLS): see "
               "upgrade_to_tls";
    default:
        return "";
    }
}

const char *
hs_hint(const struct hs_error *err, int sys, const struct hs_addr *peer, char *buf, size_t size)
{
    buf[0] = '\0';
    if (err->phase != NULL && strcmp(err->phase, "resolve") == 0)
        about_lookup(err, buf, size);
    else if (err->tls != HS_TLS_NONE)
        (void)snprintf(buf, size, "%s", tls_advice(err->tls));
    else if (sys == EADDRNOTAVAIL)
        about_ports(peer, buf, size);
    else if (sys == EMFILE)
        about_descriptors(buf, size);
    else
        (void)snprintf(buf, size, "%s", fixed_advice(sys));
    return buf;
}
