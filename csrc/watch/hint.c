/* hint.c: one sentence of advice for a failed call, from what can be measured at that moment.
 *
 * Runs only after a failure. Reads /proc, asks sock_diag, counts descriptors; never waits for the
 * network, and says nothing rather than guess.
 */
#include "hardsock_binding.h"
#include "../base/addr.h"
#include "../base/recorder.h"
#include "../base/sys.h"
#include "../base/time.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Failures of before are told when there are so many of the last ten minutes. */
#define HISTORY_LEAST 2
#define HISTORY_NS (600 * HS_NS_PER_S)

/* A line, whole: the beginning of a number would be another one. */
static bool
read_proc(const char *path, char *buf, size_t size)
{
    int fd = hs_sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    ssize_t n;

    if (fd < 0)
        return false;
    n = hs_sys_read(fd, buf, size - 1);
    (void)close(fd);
    if (n <= 0 || buf[n - 1] != '\n')
        return false;
    buf[n] = '\0';
    return true;
}

static bool
is_in_phase(const struct hs_error *err, const char *phase)
{
    return err->phase != NULL && strcmp(err->phase, phase) == 0;
}

/* The states in which a socket keeps its local port from being used again towards a peer. */
static const struct {
    int state;
    const char *name;
} port_states[] = {
    {TCP_ESTABLISHED, "ESTABLISHED"}, {TCP_SYN_SENT, "SYN_SENT"},    {TCP_SYN_RECV, "SYN_RECV"},
    {TCP_FIN_WAIT1, "FIN_WAIT_1"},    {TCP_FIN_WAIT2, "FIN_WAIT_2"}, {TCP_TIME_WAIT, "TIME_WAIT"},
    {TCP_CLOSE_WAIT, "CLOSE_WAIT"},   {TCP_LAST_ACK, "LAST_ACK"},    {TCP_CLOSING, "CLOSING"},
};
#define PORT_STATES (sizeof(port_states) / sizeof(port_states[0]))

static const char *
about_state(const uint32_t *states)
{
    uint32_t lingering =
        states[TCP_FIN_WAIT1] + states[TCP_FIN_WAIT2] + states[TCP_LAST_ACK] + states[TCP_CLOSING];

    if (states[TCP_TIME_WAIT] + states[TCP_ESTABLISHED] >= lingering)
        return "reuse connections through a Pool";
    return "most were closed here and not by the peer, which is slow to close its side: let it "
           "close first, or reuse connections through a Pool";
}

/* printf at the end of what is there. */
static void HS_PRINTF(3, 4) append(char *buf, size_t size, const char *fmt, ...)
{
    size_t used = strlen(buf);
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(buf + used, size - used, fmt, ap);
    va_end(ap);
}

/* To measure takes milliseconds where there are many sockets or descriptors. Where these run out,
 * calls fail by the thousand, and are told what this thread measured just before. It measures for
 * at most a twentieth of its time. */
#define TIMES_AS_LONG 20
#define LONGEST_NS HS_NS_PER_S

struct measured {
    int64_t good_until_ns; /* 0: never measured */
    union {
        long descriptors[HS_FD_KINDS];
        uint32_t sockets[HS_TCP_STATES];
    } u;
    struct hs_addr peer;
};

static void
measured_since(struct measured *m, int64_t began_ns)
{
    int64_t now = hs_now(), longer = TIMES_AS_LONG * (now - began_ns);

    m->good_until_ns = now + (longer < LONGEST_NS ? longer : LONGEST_NS);
}

/* What a thread knows of the sockets towards peer; NULL: the kernel does not say. */
static const uint32_t *
count_sockets(const struct hs_addr *peer)
{
    static _Thread_local struct measured last;
    int64_t now = hs_now();

    if (now < last.good_until_ns && hs_addr_equal(peer, &last.peer))
        return last.u.sockets;
    last.good_until_ns = 0;
    if (hs_diag_count(peer, NULL, last.u.sockets) != HS_OK)
        return NULL;
    last.peer = *peer;
    measured_since(&last, now);
    return last.u.sockets;
}

static const long *
count_descriptors(void)
{
    static _Thread_local struct measured last;
    int64_t now = hs_now();

    if (now < last.good_until_ns)
        return last.u.descriptors;
    hs_fd_inventory(last.u.descriptors);
    measured_since(&last, now);
    return last.u.descriptors;
}

/* Takes away the punctuation after the last item of a list. */
static void
end_list(char *buf)
{
    size_t used = strlen(buf);

    if (used > 0 && (buf[used - 1] == ',' || buf[used - 1] == ':'))
        buf[used - 1] = '\0';
}

static void
about_ports(const struct hs_addr *peer, char *buf, size_t size)
{
    const uint32_t *states;
    uint32_t total = 0;
    char text[64], *end;
    long low, high;

    if (peer == NULL || !read_proc("/proc/sys/net/ipv4/ip_local_port_range", text, sizeof(text)))
        return;
    low = strtol(text, &end, 10);
    high = strtol(end, NULL, 10);
    if (high < low || (states = count_sockets(peer)) == NULL)
        return;
    for (size_t i = 0; i < PORT_STATES; i++)
        total += states[port_states[i].state];
    append(buf, size,
           "%u sockets hold local ports towards this peer, of the %ld in "
           "net.ipv4.ip_local_port_range:",
           total, high - low + 1);
    for (size_t i = 0; i < PORT_STATES; i++)
        if (states[port_states[i].state] > 0)
            append(buf, size, " %u in %s,", states[port_states[i].state], port_states[i].name);
    end_list(buf);
    append(buf, size, "; %s, or run `hardsock-tune explain net.ipv4.ip_local_port_range`",
           about_state(states));
}

static void
about_descriptors(char *buf, size_t size)
{
    const long *counts = count_descriptors();
    struct rlimit limit = {0};

    (void)getrlimit(RLIMIT_NOFILE, &limit);
    (void)snprintf(buf, size,
                   "this process may have %llu descriptors (RLIMIT_NOFILE) and has open:",
                   (unsigned long long)limit.rlim_cur);
    for (int kind = 0; kind < HS_FD_KINDS; kind++)
        if (counts[kind] > 0)
            append(buf, size, " %ld %s,", counts[kind], hs_fd_kind_name((enum hs_fd_kind)kind));
    end_list(buf);
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
        return "another socket has that address and port; `ss -tanp` shows whose it is";
    case ENFILE:
        return "the whole machine is out of open files: see `hardsock-tune explain fs.file-max`";
    case ENOBUFS:
    case ENOMEM:
        return "the kernel has no memory for sockets to spare: see `cat /proc/net/sockstat`, and "
               "`hardsock-tune explain net.ipv4.tcp_mem`";
    default:
        return "";
    }
}

/* Mostly a listener has it. But a client that was given the port when it dialled has it as well,
 * and no list of listeners shows that one. */
static void
about_address_in_use(const struct hs_addr *addr, char *buf, size_t size)
{
    uint32_t states[HS_TCP_STATES], total = 0;
    unsigned port = addr == NULL || addr->len == 0 ? 0 : hs_addr_port(addr);

    if (port == 0 || hs_diag_count_at(addr, NULL, states) != HS_OK) {
        (void)snprintf(buf, size, "%s", fixed_advice(EADDRINUSE));
        return;
    }
    for (size_t i = 0; i < PORT_STATES; i++)
        total += states[port_states[i].state];
    if (states[TCP_LISTEN] > 0)
        append(buf, size,
               "another socket listens there: `ss -ltnp 'sport = :%u'` shows whose it is", port);
    else if (total > 0)
        append(buf, size,
               "nobody listens there, but %u connections have that port as their own, as one has "
               "that was dialled from it: `ss -tanp 'sport = :%u'` shows whose. Listen outside of "
               "net.ipv4.ip_local_port_range, or see `hardsock-tune explain "
               "net.ipv4.ip_local_reserved_ports`",
               total, port);
    else
        append(buf, size,
               "nobody listens there, and no connection has that port: another socket is bound to "
               "it, and does not listen yet");
}

/* Unix sockets fail for reasons of their own. */
static const char *
unix_advice(int sys, const struct hs_addr *addr)
{
    const char *path = addr->un.sun_path;
    struct stat st;

    switch (sys) {
    case EADDRINUSE:
        if (path[0] != '\0' && hs_sys_lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
            return "something that is no socket has that path: choose another one, or remove it";
        return "a process listens on that path already: `ss -xlp` shows which";
    case ECONNREFUSED:
        return "the socket is there, but nobody listens on it any more: start the server again";
    case ENOENT:
        return "there is no such socket: check the path, and whether the server runs";
    case ETIMEDOUT:
    case EAGAIN:
        return "the server does not accept, and its queue is full: see `ss -xl` for the queue, and "
               "whether that program is stuck";
    case EACCES:
    case EPERM:
        return "the path's permissions forbid it: connecting needs write permission for the "
               "socket, and search permission for every directory above";
    default:
        return "";
    }
}

/* What the address itself explains; "" for all else. */
static const char *
address_advice(int sys, const struct hs_addr *addr)
{
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&addr->storage;

    if (addr->sa.sa_family == AF_UNIX)
        return unix_advice(sys, addr);
    if (sys == EINVAL && addr->sa.sa_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr) &&
        in6->sin6_scope_id == 0)
        return "a link-local address needs its scope, the interface to use, as in "
               "'[fe80::1%eth0]:80': see `ip link`";
    return "";
}

static const char *
deadline_advice(const struct hs_error *err)
{
    if (is_in_phase(err, "accept"))
        return "nobody connected in that time: see whether clients reach this address and port";
    if (is_in_phase(err, "min_rate"))
        return "the peer sends, but too slowly for set_min_receive_rate";
    return "";
}

/* RFC 8446 section 6.2. */
static const char *
alert_advice(int alert)
{
    switch (alert) {
    case 40:
        return "the peer finds no cipher, group or signature in common, or misses a client "
               "certificate (TLSConfig(certificates=...))";
    case 42:
    case 43:
    case 44:
    case 45:
    case 46:
        return "the peer does not accept the certificate that this side shows (certificates=); "
               "its own log says why";
    case 48:
        return "the peer does not know who has signed the certificate that this side shows: it "
               "has to trust that authority, or an intermediate is missing in chain=";
    case 70:
        return "the peer wants another TLS version: see min_version and max_version; one that "
               "speaks only TLS 1.0 or 1.1 has to be updated (RFC 8996)";
    case 112:
        return "the peer has no certificate for this server_name";
    case 116:
        return "the peer wants a client certificate: TLSConfig(certificates=...)";
    case 120:
        return "the peer speaks none of the protocols in alpn";
    default:
        return "";
    }
}

static const char *
certificate_advice(enum hs_tls_flaw flaw)
{
    switch (flaw) {
    case HS_TLS_FLAW_NO_ADDRESS:
        return "the certificate is for names, and the connection goes to an address: give one of "
               "the names as server_name";
    case HS_TLS_FLAW_ADDRESS_AS_NAME:
        return "the certificate has this address as a DNS name, which counts for nothing: it has "
               "to "
               "be an IP entry of the subjectAltName (RFC 5280 section 4.2.1.6)";
    case HS_TLS_FLAW_COMMON_NAME:
        return "the certificate has only a common name, which is not looked at (RFC 9525): issue "
               "one with the name in its subjectAltName";
    case HS_TLS_FLAW_WILDCARD:
        return "a wildcard stands for exactly one label: *.example.org is for a.example.org, not "
               "for example.org or a.b.example.org";
    case HS_TLS_FLAW_ISSUER:
        return "give the authority as ca, or let the peer send the intermediate that is missing";
    case HS_TLS_FLAW_SELF_SIGNED:
        return "if it is meant to be trusted, give it as ca";
    case HS_TLS_FLAW_EARLY:
        return "the clock of this machine may be slow";
    default:
        return "";
    }
}

static const char *
tls_advice(const struct hs_error *err)
{
    switch (err->tls) {
    case HS_TLS_ALERT:
        return alert_advice(err->alert);
    case HS_TLS_VERIFY:
        return certificate_advice(err->flaw);
    case HS_TLS_VERSION:
        return "the peer speaks no version from min_version to max_version; if it speaks only TLS "
               "1.0 or 1.1, no setting helps (RFC 8996): update it, or put a proxy before it";
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

/* ---- Of a connection ----------------------------------------------------------------------- */

static double
seconds_since(int64_t then_ns)
{
    return (double)(hs_now() - then_ns) / 1e9;
}

static void
about_silence(struct hs_conn *c, const struct hs_conn_info *info, char *buf, size_t size)
{
    struct tcp_info tcp = {0};
    socklen_t len = sizeof(tcp);

    if (info->last_read_ns == 0)
        append(buf, size, "the peer has sent nothing yet");
    else
        append(buf, size, "the peer sent something last %.1f s ago",
               seconds_since(info->last_read_ns));
    if (info->family != AF_UNIX &&
        hs_conn_getsockopt(c, IPPROTO_TCP, TCP_INFO, &tcp, &len, NULL) == HS_OK &&
        tcp.tcpi_unacked > 0)
        append(buf, size,
               ", and its host has not acknowledged what was sent: the network or the host may be "
               "gone");
    else
        append(buf, size, ": its program is slow, or waits for more from here");
}

static void
about_stuck_send(struct hs_conn *c, const struct hs_conn_info *info, char *buf, size_t size)
{
    struct tcp_info tcp = {0};
    socklen_t len = sizeof(tcp);

    if (info->family == AF_UNIX ||
        hs_conn_getsockopt(c, IPPROTO_TCP, TCP_INFO, &tcp, &len, NULL) != HS_OK)
        (void)snprintf(buf, size, "the peer does not read: its program is slow or stuck");
    else if (tcp.tcpi_unacked > 0 || tcp.tcpi_retransmits > 0)
        (void)snprintf(buf, size,
                       "the peer's host acknowledged last %.1f s ago, and %u segments wait for it: "
                       "the network is slow or gone",
                       (double)tcp.tcpi_last_ack_recv / 1e3, tcp.tcpi_unacked);
    else
        (void)snprintf(buf, size,
                       "all that was sent is acknowledged, and there is no room for more: the "
                       "peer's program does not read");
}

const char *
hs_conn_hint(struct hs_conn *c, const struct hs_error *err, char *buf, size_t size)
{
    struct hs_conn_info info;

    hs_conn_info(c, &info);
    buf[0] = '\0';
    if (err->code == HS_E_DEADLINE && is_in_phase(err, "read"))
        about_silence(c, &info, buf, size);
    else if (err->code == HS_E_DEADLINE && is_in_phase(err, "write"))
        about_stuck_send(c, &info, buf, size);
    return buf;
}

struct history {
    const char *endpoint;
    int64_t now;
    size_t n, slow;
    int64_t first_ns;
};

/* Adds what the recorder has of a kind, but for the event with that number. */
static void
look_back(struct history *h, enum hs_event_kind kind, uint64_t but)
{
    struct hs_event e;

    for (size_t i = 0; i < HS_EVENTS_EACH; i++) {
        if (!hs_event_read((size_t)kind * HS_EVENTS_EACH + i, &e) || e.number == but ||
            strncmp(e.text, h->endpoint, sizeof(e.text) - 1) != 0 || h->now - e.at_ns > HISTORY_NS)
            continue;
        h->n++;
        h->slow += e.span_ns >= HS_SLOW_CONNECT_NS;
        h->first_ns = hs_min_ns(h->first_ns, e.at_ns);
    }
}

static uint64_t
newest_failure(const char *endpoint)
{
    uint64_t newest = 0;
    struct hs_event e;

    for (size_t i = 0; i < HS_EVENTS_EACH; i++)
        if (hs_event_read((size_t)HS_EVENT_CONNECT_FAILED * HS_EVENTS_EACH + i, &e) &&
            strncmp(e.text, endpoint, sizeof(e.text) - 1) == 0 && e.number > newest)
            newest = e.number;
    return newest;
}

/* This failure is the newest of them. */
void
hs_hint_history(const char *endpoint, char *buf, size_t size)
{
    int64_t now = hs_now();
    struct history failed = {.endpoint = endpoint, .now = now, .first_ns = now}, all;
    const char *between = buf[0] == '\0' ? "" : "; ";

    look_back(&failed, HS_EVENT_CONNECT_FAILED, newest_failure(endpoint));
    all = failed;
    look_back(&all, HS_EVENT_CONNECT_SLOW, 0);
    if (all.n > failed.n && all.slow >= HISTORY_LEAST)
        append(buf, size,
               "%s%zu other connects to this address took over 2 s in the last %.0f s, "
               "and %zu failed",
               between, all.slow, (double)(now - all.first_ns) / HS_NS_PER_S, failed.n);
    else if (failed.n >= HISTORY_LEAST)
        append(buf, size, "%s%zu other connects to this address have failed in the last %.0f s%s",
               between, failed.n, (double)(now - failed.first_ns) / HS_NS_PER_S,
               failed.slow == failed.n ? ", each after more than 2 s" : "");
}

const char *
hs_hint(const struct hs_error *err, int sys, const struct hs_addr *peer, char *buf, size_t size)
{
    buf[0] = '\0';
    if (peer != NULL && peer->len > 0)
        (void)snprintf(buf, size, "%s", address_advice(sys, peer));
    if (buf[0] != '\0')
        return buf;
    if (is_in_phase(err, "resolve"))
        about_lookup(err, buf, size);
    else if (err->tls != HS_TLS_NONE)
        (void)snprintf(buf, size, "%s", tls_advice(err));
    else if (sys == EADDRNOTAVAIL && is_in_phase(err, "bind"))
        (void)snprintf(buf, size, "this machine has no such address: see `ip addr`");
    else if (sys == EADDRNOTAVAIL)
        about_ports(peer, buf, size);
    else if (sys == EMFILE)
        about_descriptors(buf, size);
    else if (sys == EADDRINUSE)
        about_address_in_use(peer, buf, size);
    else if (sys == 0 && err->code == HS_E_DEADLINE)
        (void)snprintf(buf, size, "%s", deadline_advice(err));
    else
        (void)snprintf(buf, size, "%s", fixed_advice(sys));
    return buf;
}
