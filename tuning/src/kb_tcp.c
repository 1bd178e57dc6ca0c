/* kb_tcp.c: the knowledge base, part one: net.ipv4.tcp_* and the port range.
 *
 * These rule IPv6 connections too: there is no net.ipv6.tcp_*. Every claim was read in the kernel's
 * source or tried on Linux 6.18; what is only a default names the version where it changed.
 */
#include "kb.h"

#define T(name) .path = "net/ipv4/" name
#define N1 .type = TYPE_INTS, .fields = 1
#define N2 .type = TYPE_INTS, .fields = 2
#define N3 .type = TYPE_INTS, .fields = 3
#define HINT(lo, hi) .min = (lo), .max = (hi)
#define NOHINT .min = 1, .max = 0
#define LIVE .effect = EFFECT_LIVE
#define INT_TOP 2147483647

const struct kb_key kb_tcp[] = {
    {T("tcp_tw_reuse"), N1, HINT(0, 2), LIVE, .initial = "2 (loopback only); 0 on old kernels",
     .meaning = "Whether an outgoing connect() may take over a port whose last connection to the "
                "same peer is in TIME_WAIT: 0 never, 1 always, 2 on loopback only.",
     .when = "at connect(), if the old connection is at least tcp_tw_reuse_delay old",
     .rules = "needs net.ipv4.tcp_timestamps; without it connect() fails with EADDRNOTAVAIL all "
              "the same",
     .myth = "It does nothing for servers that accept connections, and nothing for FIN_WAIT2. Its "
             "default is not 0 any more."},
    {T("tcp_tw_reuse_delay"), N1, HINT(1, 60000), LIVE, .unit = "ms", .initial = "1000",
     .since = "6.14",
     .meaning =
         "How long a connection must have been in TIME_WAIT before tcp_tw_reuse may take it over."},
    {T("tcp_fin_timeout"), N1, HINT(1, 8589934), LIVE, .unit = "s", .initial = "60",
     .meaning = "How long a connection that our process has closed may wait in FIN_WAIT_2 for the "
                "peer's FIN. TCP_LINGER2 overrides it per socket.",
     .myth = "It does not shorten TIME_WAIT, which is fixed at 60 s in the kernel."},
    {T("tcp_max_tw_buckets"), N1, HINT(4096, INT_TOP), LIVE,
     .initial = "half of the connection hash",
     .meaning = "How many sockets may be in TIME_WAIT; beyond that they are destroyed at once and "
                "TCPTimeWaitOverflow counts.",
     .myth = "Lowering it does not free ports in a useful way: it removes the protection that "
             "TIME_WAIT gives. 0 turns TIME_WAIT off."},
    {T("ip_local_port_range"), N2, HINT(1, 65535), LIVE, .initial = "32768 60999",
     .meaning = "First and last port that connect() and bind(0) choose from (ephemeral ports).",
     .when = "at the next connect() or bind(0); IP_LOCAL_PORT_RANGE overrides it per socket",
     .rules =
         "low <= high, low >= net.ipv4.ip_unprivileged_port_start; ends of different parity use "
         "the range best; every listening port inside belongs in net.ipv4.ip_local_reserved_ports",
     .myth =
         "The default is not 32768 65535. \"1024 65535\" alone is not safe: an outgoing connection "
         "can take a service's port, and the service then fails to start (EADDRINUSE)."},
    {T("ip_local_reserved_ports"), .type = TYPE_PORTS, HINT(0, 65535), LIVE, .initial = "empty",
     .since = "2.6.35",
     .meaning = "Ports that automatic choice leaves alone. An explicit bind() may still take them.",
     .rules = "reserving the whole port range makes every connect() fail with EADDRNOTAVAIL"},
    {T("ip_unprivileged_port_start"), N1, HINT(0, 65535), LIVE, .initial = "1024", .since = "4.11",
     .meaning = "First port that a process without CAP_NET_BIND_SERVICE may bind.",
     .when = "at bind()", .rules = "<= the low end of net.ipv4.ip_local_port_range"},
    {T("tcp_max_syn_backlog"), N1, HINT(128, INT_TOP), LIVE, .initial = "at least 128, by memory",
     .meaning = "How many half-open connections a listener keeps, where tcp_syncookies is 0.",
     .rules = "only consulted when net.ipv4.tcp_syncookies is 0",
     .myth = "With SYN cookies on it does not raise the SYN queue: that limit is the backlog of "
             "the listener."},
    {T("tcp_syncookies"), N1, HINT(0, 2), LIVE, .initial = "1",
     .meaning = "0 off, 1 SYN cookies when the SYN queue overflows, 2 always (for tests).",
     .myth = "Cookies are a shelter during a flood, no way to carry a high load."},
    {T("tcp_synack_retries"), N1, HINT(0, 255), LIVE, .initial = "5 (63 s)",
     .meaning = "How often the answer to a SYN is repeated."},
    {T("tcp_syn_retries"), N1, HINT(1, 127), LIVE, .initial = "6",
     .meaning = "How often an outgoing SYN is repeated: with 6 a connect() to nowhere ends after "
                "127 s, or 131 s with tcp_syn_linear_timeouts 4.",
     .myth = "For one program a deadline or TCP_USER_TIMEOUT is better than this setting for all "
             "of them."},
    {T("tcp_syn_linear_timeouts"), N1, HINT(0, 127), LIVE, .initial = "4", .since = "6.5",
     .meaning = "How many SYN repeats come one second apart before the interval doubles."},
    {T("tcp_retries1"), N1, HINT(0, 255), LIVE, .initial = "3",
     .meaning = "After how many repeats the network layer is asked for another route."},
    {T("tcp_retries2"), N1, HINT(8, 255), LIVE, .initial = "15 (924.6 s)",
     .meaning = "How often unacknowledged data is repeated before the connection is given up. "
                "TCP_USER_TIMEOUT overrides it per socket.",
     .rules = "RFC 1122 wants at least 100 s, which is 8"},
    {T("tcp_orphan_retries"), N1, HINT(0, 255), LIVE, .initial = "0, which acts as 8",
     .meaning = "How often data of a closed socket is repeated.",
     .myth =
         "It reads 0 and behaves as 8. Setting 8 changes nothing; a tool must not \"correct\" it."},
    {T("tcp_max_orphans"), N1, HINT(1024, INT_TOP), LIVE, .scope = SCOPE_GLOBAL,
     .initial = "half of the connection hash",
     .meaning = "How many sockets without a process may exist; beyond that they are reset.",
     .myth = "A guard against attacks: lowering it resets connections with data in flight."},
    {T("tcp_keepalive_time"), N1, HINT(1, 32767), .effect = EFFECT_PARTLY, .unit = "s",
     .initial = "7200",
     .meaning = "How long a connection with SO_KEEPALIVE is idle before the first probe.",
     .when = "read live, but a timer that already runs is not set anew",
     .rules = "shorter than the idle timeout of every NAT and firewall on the way (often 300 s)",
     .myth = "Without SO_KEEPALIVE on the socket it does nothing. While data is unacknowledged it "
             "does nothing either: that is TCP_USER_TIMEOUT's part."},
    {T("tcp_keepalive_intvl"), N1, HINT(1, 32767), .effect = EFFECT_PARTLY, .unit = "s",
     .initial = "75", .meaning = "Time between two keepalive probes.",
     .when = "read live, but a timer that already runs is not set anew"},
    {T("tcp_keepalive_probes"), N1, HINT(1, 127), LIVE, .initial = "9",
     .meaning = "How many unanswered probes end the connection.",
     .rules = "TCP_USER_TIMEOUT overrides the count"},
    {T("tcp_abort_on_overflow"), N1, HINT(0, 1), LIVE, .initial = "0",
     .meaning =
         "1: a client is reset when the accept queue is full, instead of being left to try again.",
     .myth = "It harms clients during a short peak that they would have survived."},
    {T("tcp_rmem"), N3, HINT(1, INT_TOP), .effect = EFFECT_NEW, .unit = "bytes",
     .initial = "4096 131072 33554432 (max 6 MB before 6.16)",
     .meaning =
         "Receive buffer of a TCP socket: least, at first, and as far as autotuning may grow it.",
     .when = "the middle one at socket(), the last one live",
     .rules = "in rising order, which the kernel does not check; a new namespace copies the first "
              "namespace's values",
     .myth =
         "Its maximum need not be below net.core.rmem_max: that caps SO_RCVBUF, not autotuning."},
    {T("tcp_wmem"), N3, HINT(1, INT_TOP), .effect = EFFECT_NEW, .unit = "bytes",
     .initial = "4096 16384 4194304",
     .meaning =
         "Send buffer of a TCP socket: least, at first, and as far as autotuning may grow it.",
     .when = "the middle one at socket(), the last one live",
     .rules = "in rising order, which the kernel does not check; a new namespace copies the first "
              "namespace's values",
     .myth = "Its maximum is not capped by net.core.wmem_max."},
    {T("tcp_mem"), N3, HINT(1024, INT64_MAX), LIVE, .scope = SCOPE_GLOBAL, .unit = "pages",
     .initial = "4.7, 6.25 and 9.4 % of free memory",
     .meaning =
         "Memory for all TCP buffers together: no pressure below, pressure above, hard limit.",
     .rules = "in rising order", .myth = "The unit is pages (4 KiB on most machines), not bytes."},
    {T("tcp_moderate_rcvbuf"), N1, HINT(0, 1), LIVE, .initial = "1",
     .meaning = "Whether the receive buffer grows by itself (autotuning).",
     .myth = "SO_RCVBUF on a socket turns autotuning off for it, and is clamped to "
             "net.core.rmem_max, then doubled."},
    {T("tcp_notsent_lowat"), N1, HINT(0, 4294967295), LIVE, .unit = "bytes",
     .initial = "4294967295",
     .meaning = "A socket counts as writable only while less than this is unsent: less memory and "
                "delay for senders that multiplex."},
    {T("tcp_slow_start_after_idle"), N1, HINT(0, 1), LIVE, .initial = "1",
     .meaning = "Whether the congestion window is forgotten after an idle time, as RFC 2861 asks."},
    {T("tcp_fastopen"), N1, HINT(0, 4095), .effect = EFFECT_PARTLY, .initial = "1",
     .meaning = "Bits: 1 client, 2 server, 0x400 server without asking each socket.",
     .when = "0x400 at listen(), the rest live",
     .rules = "the kernel takes hexadecimal and shows decimal (0x403 is 1027)"},
    {T("tcp_mtu_probing"), N1, HINT(0, 2), .effect = EFFECT_PARTLY, .initial = "0",
     .meaning = "0 off, 1 look for a smaller packet size after a black hole is noticed, 2 always.",
     .when = "1 live, 2 for new connections"},
    {T("tcp_base_mss"), N1, HINT(48, 65535), .effect = EFFECT_NEW, .unit = "bytes",
     .initial = "1024", .meaning = "Where path MTU probing starts."},
    {T("tcp_congestion_control"), .type = TYPE_WORD, NOHINT, .effect = EFFECT_NEW,
     .initial = "by kernel build; cubic on most",
     .meaning = "Congestion control of new sockets; accepted ones inherit the listener's.",
     .when = "new sockets; running listeners keep theirs",
     .rules = "must be in net.ipv4.tcp_available_congestion_control; in a child namespace also in "
              "tcp_allowed_congestion_control (EPERM otherwise); writing it may load a kernel "
              "module, and in the first namespace allows the algorithm for everyone"},
    {T("tcp_allowed_congestion_control"), .type = TYPE_WORDS, NOHINT, LIVE, .scope = SCOPE_READONLY,
     .initial = "reno and the default",
     .meaning = "Algorithms that a process without CAP_NET_ADMIN may choose."},
    {T("tcp_available_congestion_control"), .type = TYPE_WORDS, NOHINT, LIVE,
     .scope = SCOPE_READONLY, .initial = "what is loaded",
     .meaning = "Algorithms that are loaded. Cannot be written."},
    {T("tcp_rfc1337"), N1, HINT(0, 1), LIVE, .initial = "0",
     .meaning = "1: a RST does not end TIME_WAIT. 0: it does.",
     .myth = "The kernel's documentation reads the other way round."},
    {T("tcp_timestamps"), N1, HINT(0, 2), .effect = EFFECT_NEW, .initial = "1",
     .meaning = "RFC 7323 timestamps: 0 off, 1 with a random offset per connection, 2 without.",
     .when = "at the handshake",
     .rules = "0 breaks tcp_tw_reuse and the protection against wrapped sequence numbers"},
    {T("tcp_sack"), N1, HINT(0, 1), .effect = EFFECT_NEW, .initial = "1",
     .when = "at the handshake",
     .meaning = "Selective acknowledgements: only what was lost is sent again."},
    {T("tcp_dsack"), N1, HINT(0, 1), LIVE, .initial = "1",
     .meaning = "Tells the sender about duplicates."},
    {T("tcp_window_scaling"), N1, HINT(0, 1), .effect = EFFECT_NEW, .initial = "1",
     .when = "at the handshake", .meaning = "Windows above 64 KiB.",
     .rules = "off caps every connection at 64 KiB in flight"},
    {T("tcp_ecn"), N1, HINT(0, 2), .effect = EFFECT_NEW, .initial = "2", .when = "at the handshake",
     .meaning = "Explicit congestion notification: 0 off, 1 ask for it, 2 only when asked.",
     .myth = "Documentation of 6.18 lists 0 to 5, but that kernel refuses 3 to 5."},
    {T("tcp_migrate_req"), N1, HINT(0, 1), LIVE, .initial = "0", .since = "5.14",
     .meaning = "When a listener of a SO_REUSEPORT group closes, its waiting connections move to "
                "the others instead of being reset."},
    {T("tcp_early_retrans"), N1, HINT(0, 4), LIVE, .initial = "3",
     .meaning = "Tail loss probes: 0 off, 3 and 4 on."},
    {T("tcp_recovery"), N1, HINT(0, 7), LIVE, .initial = "1",
     .meaning = "Bits of RACK loss detection."},
    {T("tcp_comp_sack_delay_ns"), N1, HINT(0, 10000000), LIVE, .unit = "ns", .initial = "1000000",
     .since = "4.18",
     .meaning = "How long selective acknowledgements may be held back to send fewer."},
    {T("tcp_comp_sack_slack_ns"), N1, HINT(0, 10000000), LIVE, .unit = "ns", .initial = "100000",
     .since = "5.8", .meaning = "How imprecise that delay may be."},
    {T("tcp_comp_sack_nr"), N1, HINT(0, 255), LIVE, .initial = "44", .since = "4.18",
     .meaning = "How many may be held back; 0 turns it off."},
    {T("tcp_rto_min_us"), N1, HINT(1, 60000000), .effect = EFFECT_NEW, .unit = "us",
     .initial = "200000", .since = "6.11", .meaning = "Shortest time until data is repeated.",
     .when = "at socket()"},
    {T("tcp_rto_max_ms"), N1, HINT(1000, 120000), .effect = EFFECT_NEW, .unit = "ms",
     .initial = "120000", .since = "6.15", .meaning = "Longest time until data is repeated.",
     .when = "at socket()"},
    {T("tcp_reordering"), N1, HINT(1, 300), .effect = EFFECT_NEW, .initial = "3",
     .when = "at socket()", .meaning = "How much reordering is not yet taken for loss.",
     .rules = "0 and less were accepted until a stable release made them EINVAL"},
    {T("tcp_max_reordering"), N1, HINT(1, INT_TOP), LIVE, .initial = "300",
     .meaning = "How far it may grow by itself."},
    {T("tcp_autocorking"), N1, HINT(0, 1), LIVE, .initial = "1",
     .meaning = "Holds back small writes while packets wait in the device."},
    {T("tcp_limit_output_bytes"), N1, HINT(65536, INT_TOP), LIVE, .unit = "bytes",
     .initial = "4194304 (1048576 before 6.10)",
     .meaning = "Bytes of one socket that may wait in the device queue."},
    {T("tcp_no_metrics_save"), N1, HINT(0, 1), LIVE, .initial = "0",
     .meaning = "1: nothing is remembered about a peer for the next connection."},
    {T("tcp_challenge_ack_limit"), N1, HINT(1, INT_TOP), LIVE,
     .initial = "2147483647 (1000 before 5.18)", .unit = "per second",
     .meaning = "Answers to suspicious packets."},
    {T("tcp_invalid_ratelimit"), N1, HINT(0, INT_TOP), LIVE, .unit = "ms", .initial = "500",
     .meaning = "Shortest time between two answers to invalid packets of one connection."},
    {T("tcp_thin_linear_timeouts"), N1, HINT(0, 1), LIVE, .initial = "0",
     .meaning = "Does not double the first timeouts of streams with few packets in flight."},
    {T("tcp_stdurg"), N1, HINT(0, 1), LIVE, .initial = "0",
     .meaning = "Where the urgent pointer points."},
    {T("tcp_min_snd_mss"), N1, HINT(48, 65535), .effect = EFFECT_NEW, .unit = "bytes",
     .initial = "48", .since = "5.2", .meaning = "Smallest segment size that a peer may ask for."},
    {0},
};
