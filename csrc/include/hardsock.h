/* hardsock.h: the public C API of hardsock, sockets that cannot hang, cannot leak unseen, and say
 * why they failed.
 *
 * Rules that hold for every function here:
 * - Times are nanoseconds on CLOCK_MONOTONIC in int64_t; deadlines are points in time, never spans.
 * - A call that can wait takes a struct hs_op, ends by its deadline, and obeys its token.
 * - Fallible functions return hs_err: HS_OK, a negative error, or a positive HS_INTR or HS_WANT,
 *   both of which mean "nothing is wrong, run me again with the same op". Detail goes to *err,
 *   which belongs to the caller; errno is not part of any contract.
 * - ret_ parameters come last and are never written on failure, unless said otherwise.
 * - Objects are reference counted and may be used from any thread; each function says its limits.
 * - Options are filled by their hs_..._init before a field is set: new fields come at the end, with
 *   a default there. Structures that the caller owns are zeroed before use, or set by a macro.
 *
 * Five bytes to a server, in two seconds at most:
 *
 *     struct hs_op connecting = HS_OP_INIT(hs_deadline_after(2000000000), NULL);
 *     struct hs_op sending = HS_OP_INIT(connecting.deadline_ns, NULL);
 *     struct hs_error err = {0};
 *     struct hs_connect_options options;
 *     struct hs_connector *connector;
 *     struct hs_endpoint where;
 *     struct hs_conn *conn;
 *     hs_err rv;
 *
 *     hs_connect_options_init(&options);
 *     if (hs_endpoint_parse("example.org:7000", 16, &err, &where) != HS_OK ||
 *         hs_connector_new(&where, &options, &err, &connector) != HS_OK)
 *         fail(&err);
 *     HS_RUN(rv, hs_connector_run(connector, &connecting, &err, &conn));
 *     if (rv == HS_OK)
 *         HS_RUN(rv, hs_conn_send_all(conn, &sending, (const uint8_t *)"hello", 5, &err));
 *     if (rv != HS_OK)
 *         fail(&err);
 *
 * docs/c-api.md has the rest: HS_INTR, lookups before a listener is opened, pools, and what may
 * change between versions. examples/c/ has whole programs.
 */
#ifndef HARDSOCK_H
#define HARDSOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HS_VERSION "0.1.0.dev0"
#define HS_VERSION_MAJOR 0
#define HS_VERSION_MINOR 1
#define HS_VERSION_PATCH 0
/* For comparisons: 0.1.0 is 100. */
#define HS_VERSION_NUMBER (HS_VERSION_MAJOR * 10000 + HS_VERSION_MINOR * 100 + HS_VERSION_PATCH)
/* Of the binary interface: the last part of the library's name. docs/c-api.md has the rules. */
#define HS_ABI 0

#define HS_API __attribute__((visibility("default")))
#define HS_NODISCARD __attribute__((warn_unused_result))
#define HS_PRINTF(fmt_index, args_index) __attribute__((format(printf, fmt_index, args_index)))

HS_API const char *hs_version(void);

/* ---- Errors -------------------------------------------------------------------------------- */

typedef int32_t hs_err;

/* What kind of thing went wrong; decides the exception class in Python. */
enum hs_class {
    HS_CLASS_USAGE = 1,
    HS_CLASS_TIMEOUT,
    HS_CLASS_CANCELLED,
    HS_CLASS_CLOSED,
    HS_CLASS_BUSY,
    HS_CLASS_BROKEN,
    HS_CLASS_RESOLVE,
    HS_CLASS_CONNECT,
    HS_CLASS_LIMIT,
    HS_CLASS_SYSTEM,
    HS_CLASS_NOMEM,
    HS_CLASS_FRAME,
    HS_CLASS_TLS,
};

/* X(name, class, number within the class, text) */
#define HS_ERRORS(X)                                                                               \
    X(INVALID, USAGE, 1, "invalid argument")                                                       \
    X(FORKED, USAGE, 2, "object belongs to another process (it was made before a fork)")           \
    X(DEADLINE, TIMEOUT, 1, "deadline exceeded")                                                   \
    X(CANCELLED, CANCELLED, 1, "cancelled")                                                        \
    X(CLOSED, CLOSED, 1, "closed")                                                                 \
    X(BUSY, BUSY, 1, "another call is using this direction")                                       \
    X(POISONED, BROKEN, 1, "unusable after an earlier failure in the middle of a message")         \
    X(RESET, BROKEN, 2, "connection reset by the peer")                                            \
    X(TRUNCATED, BROKEN, 3, "the peer ended the stream early")                                     \
    X(DEAD_PEER, BROKEN, 4, "the peer stopped answering")                                          \
    X(END, BROKEN, 5, "the peer ended its stream between two messages")                            \
    X(RESOLVE, RESOLVE, 1, "name lookup failed")                                                   \
    X(CONNECT, CONNECT, 1, "no address could be connected")                                        \
    X(BREAKER_OPEN, CONNECT, 2, "not tried: the breaker is open")                                  \
    X(LIMIT, LIMIT, 1, "limit reached")                                                            \
    X(SYSTEM, SYSTEM, 1, "system call failed")                                                     \
    X(NOMEM, NOMEM, 1, "out of memory")                                                            \
    X(FRAME_TOO_LARGE, FRAME, 1, "frame exceeds the limit")                                        \
    X(BAD_FRAME, FRAME, 2, "malformed frame")                                                      \
    X(TLS, TLS, 1, "TLS failed")                                                                   \
    X(CERTIFICATE, TLS, 2, "certificate not accepted")

#define HS_ERR_CODE(class_, number) (-((hs_err)(class_) << 16 | (number)))
#define HS_ERR_CLASS(e) ((enum hs_class)(-(e) >> 16))

enum {
    HS_OK = 0,
    HS_INTR = 1, /* A signal arrived or a time slice ended: let handlers run, then call again. */
    HS_WANT = 2, /* A stepped op would wait: watch op->want_*, then call again. */
#define HS_ERR_ENUM(name, class_, number, text)                                                    \
    HS_E_##name = HS_ERR_CODE(HS_CLASS_##class_, number),
    HS_ERRORS(HS_ERR_ENUM)
#undef HS_ERR_ENUM
};

/* A call, again and again while it says HS_INTR: where signal handlers need no turn between. */
#define HS_RUN(rv, call)                                                                           \
    do                                                                                             \
        (rv) = (call);                                                                             \
    while ((rv) == HS_INTR)

/* Facts about a frame that was too large. */
struct hs_oversize {
    uint64_t size;      /* of the payload: declared, or what was seen of it so far */
    uint64_t discarded; /* bytes thrown away, separator and header included */
    size_t limit;
    bool size_known;  /* else size is only a lower bound */
    bool recoverable; /* the stream can go on */
};

/* What kind of TLS failure it was: of a handshake, unless said otherwise. */
enum hs_tls_failure {
    HS_TLS_NONE,
    HS_TLS_EMPTY,     /* the peer left before it sent a byte: a probe, a scan */
    HS_TLS_ABORTED,   /* the peer left in the middle */
    HS_TLS_ALERT,     /* the peer said no: err->alert; also later */
    HS_TLS_HTTP,      /* plain HTTP on a TLS port */
    HS_TLS_NOT_TLS,   /* something else that is no TLS */
    HS_TLS_VERIFY,    /* we do not accept the peer's certificate, or it has none */
    HS_TLS_VERSION,   /* no version in common */
    HS_TLS_CIPHER,    /* no cipher, group or signature in common */
    HS_TLS_ALPN,      /* no application protocol in common */
    HS_TLS_TIMEOUT,   /* it took too long */
    HS_TLS_RESET,     /* the connection broke */
    HS_TLS_PROTOCOL,  /* a record or message that may not be; also later */
    HS_TLS_PLAINTEXT, /* bytes from before the upgrade were waiting: see hs_conn_start_tls */
    HS_TLS_LOCAL,     /* called off, or failed, on our side */
    HS_TLS_EVICTED,   /* a silent client had to leave its place to the next */
    HS_TLS_FAILURES,
};
/* What is known, beyond OpenSSL's code, about a certificate that was not accepted: for advice. */
enum hs_tls_flaw {
    HS_TLS_FLAW_NONE,
    HS_TLS_FLAW_NO_ADDRESS,      /* it is for names only, and an address was expected */
    HS_TLS_FLAW_ADDRESS_AS_NAME, /* it has the address that was expected as a DNS name */
    HS_TLS_FLAW_COMMON_NAME,     /* it has a common name and no other */
    HS_TLS_FLAW_WILDCARD, /* a wildcard of its would have to stand for none or several labels */
    HS_TLS_FLAW_ISSUER,   /* nobody here knows who has signed it */
    HS_TLS_FLAW_SELF_SIGNED,
    HS_TLS_FLAW_EARLY, /* it is not valid yet */
};
HS_API const char *hs_tls_failure_name(enum hs_tls_failure failure); /* "empty", "alert", ... */

/* Whose error it is. */
enum hs_origin {
    HS_ORIGIN_CALL, /* what the call itself did */
    HS_ORIGIN_DIAL, /* a connection that the pool had begun, for which the call waited */
};
/* Owned by the caller; zero it before use. The first (deepest) error wins. */
struct hs_error {
    hs_err code;
    int sys;           /* errno, or 0 */
    int gai;           /* EAI_* of a name lookup, or 0 */
    const char *op;    /* static string: "connect", "recv", ... or NULL */
    const char *phase; /* static string: "resolve", "connect", "read", ... or NULL */
    char msg[256];
    enum hs_tls_failure tls;
    int alert;  /* what the peer sent (RFC 8446 section 6), with HS_TLS_ALERT; else -1 or 0 */
    int verify; /* X509_V_ERR_* with HS_TLS_VERIFY, or 0 */
    enum hs_tls_flaw flaw;
    unsigned long ssl;           /* OpenSSL's code, or 0 */
    struct hs_oversize oversize; /* of HS_E_FRAME_TOO_LARGE when something was received */
    int64_t retry_ns;            /* of HS_E_BREAKER_OPEN: when to try again */
    int last_failure;            /* of HS_E_BREAKER_OPEN: an enum hs_fail */
    enum hs_origin origin;
};

/* Static text for a code; never NULL. */
HS_API const char *hs_err_text(hs_err code);

/* ---- Time ---------------------------------------------------------------------------------- */

#define HS_NEVER INT64_MAX     /* no deadline */
#define HS_TRY_ONCE INT64_C(0) /* never wait: succeed at once or fail with HS_E_DEADLINE */

HS_API int64_t hs_now(void);
/* Saturates at HS_NEVER; a negative span counts as zero. */
HS_API int64_t hs_deadline_after(int64_t span_ns);

/* ---- Tokens: cancellation, deadlines, reasons ---------------------------------------------- */

struct hs_token;
struct hs_callback;
struct hs_op;

/* Why a token ended. The text is a copy. */
struct hs_reason {
    hs_err code;     /* HS_E_CANCELLED or HS_E_DEADLINE */
    uint64_t origin; /* id of the token that was cancelled or whose deadline passed */
    uint64_t cookie; /* what the winning hs_token_cancel was given, else 0 */
    char text[128];
};

#define HS_TOKEN_MAX_PARENTS 16
/* Ways up to roots that one token may have: who asks walks them all. */
#define HS_TOKEN_MAX_PATHS 1024

/* A token that is cancelled when any parent is, or at deadline_ns, or by hs_token_cancel.
 * parents may be NULL when nparents is 0. name (may be NULL) is for diagnostics, kept to 47 bytes.
 * Returns a new reference. Fails with HS_E_NOMEM or HS_E_INVALID (too many parents).
 */
HS_API HS_NODISCARD hs_err hs_token_new(struct hs_token *const *parents, size_t nparents,
                                        int64_t deadline_ns, const char *name, struct hs_error *err,
                                        struct hs_token **ret_token);
HS_API struct hs_token *hs_token_ref(struct hs_token *t);
HS_API void hs_token_unref(struct hs_token *t); /* NULL is fine */

HS_API uint64_t hs_token_id(const struct hs_token *t);
HS_API const char *hs_token_name(const struct hs_token *t); /* borrows: t; "" when unnamed */

/* HS_OK, HS_E_CANCELLED or HS_E_DEADLINE. Never blocks; sticky once it is not HS_OK. */
HS_API hs_err hs_token_check(struct hs_token *t);
/* False while the token is live. */
HS_API bool hs_token_reason(struct hs_token *t, struct hs_reason *ret_reason);
/* Earliest deadline of the token and its ancestors, or HS_NEVER. */
HS_API int64_t hs_token_deadline(struct hs_token *t);
/* Moves the token's own deadline and wakes waiters so that they see it. HS_E_CANCELLED or
 * HS_E_DEADLINE when the token has already ended: an ended token stays ended. */
HS_API HS_NODISCARD hs_err hs_token_set_deadline(struct hs_token *t, int64_t deadline_ns);

/* Cancels t and with it every descendant. Idempotent, callable from any thread; never waits for
 * user code. The first reason wins: returns false, changing nothing, if t had already ended.
 * When it returns, hs_token_check of every descendant is not HS_OK, and their waiters are awake.
 * ret_fired receives the callbacks that this cancel set off; run them with hs_callbacks_run.
 * With ret_fired NULL they are run before it returns, in this thread.
 */
HS_API bool hs_token_cancel(struct hs_token *t, const char *text, uint64_t cookie,
                            struct hs_callback **ret_fired);

/* Registers fn(arg) to run once when t is cancelled by hs_token_cancel (of t or an ancestor).
 * HS_E_CANCELLED or HS_E_DEADLINE, registering nothing, when t has already ended. A deadline that
 * passes runs nothing by itself: call hs_token_expire at that time.
 * release(arg) is called exactly once, when the callback has run, was removed, or went with its
 * token; it may be NULL. Returns a new reference in *ret_callback.
 */
HS_API HS_NODISCARD hs_err hs_token_on_cancel(struct hs_token *t, void (*fn)(void *arg),
                                              void (*release)(void *arg), void *arg,
                                              struct hs_error *err,
                                              struct hs_callback **ret_callback);
/* For timers: if t has ended because a deadline passed, fires as hs_token_cancel does. */
HS_API bool hs_token_expire(struct hs_token *t, struct hs_callback **ret_fired);
HS_API void hs_callbacks_run(struct hs_callback *fired);
/* After HS_OK the callback is not running and will never run, except when called from inside it.
 * Waits for a running callback: HS_INTR when interrupted by a signal, HS_E_SYSTEM when the wait
 * failed; then it may still be running. HS_E_FORKED in a child. */
HS_API HS_NODISCARD hs_err hs_callback_remove(struct hs_callback *cb);
HS_API void hs_callback_unref(struct hs_callback *cb); /* NULL is fine */

/* Waits until t has ended: HS_OK. HS_E_DEADLINE when deadline_ns passes first, HS_INTR, or
 * HS_E_SYSTEM. */
HS_API HS_NODISCARD hs_err hs_token_wait(struct hs_token *t, int64_t deadline_ns,
                                         struct hs_error *err);

/* A descriptor that turns readable when the token ends (also by deadline) and stays so.
 * Made on first use; belongs to the token; never read from it. */
HS_API HS_NODISCARD hs_err hs_token_fileno(struct hs_token *t, struct hs_error *err, int *ret_fd);

/* ---- Operations ---------------------------------------------------------------------------- */

struct hs_loop_waiter;

/* One call in progress. Make it once per call with HS_OP_INIT; a retry after HS_INTR or HS_WANT
 * passes the same op, so that it never buys time. With stepping set the call never sleeps: it
 * returns HS_WANT and says in want_* what to watch. Closing, cancelling and moving a deadline, from
 * whatever thread, wake the op's waiter; without one its driver must step it again by itself then.
 *
 * told is a second token, for servers that drain; only calls of a connection look at it. Once it is
 * cancelled, a call that receives still takes what has arrived, and goes on with a message of which
 * a part is here; it is HS_E_CANCELLED when nothing is there and the next message would have to be
 * waited for. A call that sends may not begin, nor wait.
 *
 * lease is for connections that a pool lent: a call that names the lease under which it is made is
 * HS_E_CLOSED once that has ended, also when another thread ends it at this moment: it never
 * touches what is the next borrower's. The pool has to live as long as the call. */
struct hs_op {
    int64_t deadline_ns;                /* absolute, HS_NEVER or HS_TRY_ONCE */
    struct hs_token *token;             /* borrows until the call has ended; may be NULL */
    struct hs_token *told;              /* the same; see above */
    struct hs_loop_waiter *loop_waiter; /* borrows until the call has ended; may be NULL */
    size_t done;                        /* bytes moved so far */
    int64_t want_at_ns;                 /* step again at this time at the latest, or HS_NEVER */
    int64_t came_ns;                    /* when bytes last came in this call, or 0 */
    uint64_t want_id;  /* whose want_fd it is: numbers are used again; 0: nobody's for long */
    uint64_t lease;    /* hs_lease.id, or 0: see above */
    int want_fd;       /* or -1: only the time counts */
    int send_flags;    /* of send(2), for calls that send: 0 or MSG_MORE */
    short want_events; /* POLLIN, POLLOUT */
    uint8_t claim;     /* directions held between steps; belongs to the callee */
    bool stepping;
    bool midway; /* bytes of the message went out with earlier calls: a failure to send poisons as
                  * if they had gone out with this one */
    bool waited; /* the last step ended with HS_WANT; belongs to the callee */
    bool begun;  /* it got past what refuses a call before it does anything; the same */
    bool told_seen; /* the same, as the next two */
    bool left_seen;
    bool quiet_seen;
};

/* In the order of the members: designated initializers are no C++17. */
#define HS_OP_INIT(deadline, tok)                                                                  \
    {                                                                                              \
        (deadline), (tok), NULL, NULL, 0, HS_NEVER, 0, 0, 0, -1, 0, 0, 0, false, false, false,     \
            false, false, false, false                                                             \
    }

/* ---- Event loops --------------------------------------------------------------------------- */

/* All that the stepped ops of one event loop wait for, behind one descriptor. The loop watches
 * hs_loop_fileno for reading, as long as it likes; when it is readable it calls hs_loop_collect and
 * then steps the ops that hs_loop_next names:
 *
 *     hs_loop_waiter_new(loop, arg, ...);  op.loop_waiter = waiter;  op.stepping = true;
 *     hs_conn_recv(conn, &op, ...) == HS_WANT:  hs_loop_waiter_park(waiter, &op, ...)
 *     hs_loop_next(loop) == arg:  hs_conn_recv(conn, &op, ...) again
 *
 * A loop and its waiters belong to one thread. What rings a waiter (closing, cancelling, a deadline
 * that moves) may come from any thread. In a forked child the parent's loop can only be freed. */
struct hs_loop;

HS_API HS_NODISCARD hs_err hs_loop_new(struct hs_error *err, struct hs_loop **ret_loop);
HS_API void hs_loop_free(struct hs_loop *loop); /* free its waiters first; NULL is fine */
HS_API int hs_loop_fileno(const struct hs_loop *loop);
/* Finds out, without waiting, which parked ops are due; at most about a hundred at a time, and the
 * descriptor stays readable while there are more. */
HS_API void hs_loop_collect(struct hs_loop *loop);
/* The next one that is due, unparked: what its waiter was made with. NULL: none. */
HS_API void *hs_loop_next(struct hs_loop *loop);
/* A descriptor that leaves us without being closed (hs_conn_detach): stop watching it. */
HS_API void hs_loop_forget(struct hs_loop *loop, int fd);

HS_API HS_NODISCARD hs_err hs_loop_waiter_new(struct hs_loop *loop, void *arg, struct hs_error *err,
                                              struct hs_loop_waiter **ret_waiter);
/* Unparks; NULL is fine. The waiter of an op that has ended, however, may still listen to what the
 * op used: free or unpark it before that goes. */
HS_API void hs_loop_waiter_free(struct hs_loop_waiter *loop_waiter);
/* After HS_WANT: waits for what the op wants. On failure it is not parked. */
HS_API HS_NODISCARD hs_err hs_loop_waiter_park(struct hs_loop_waiter *loop_waiter,
                                               const struct hs_op *op, struct hs_error *err);
/* Before stepping or giving up an op that hs_loop_next has not named. Idempotent. */
HS_API void hs_loop_waiter_unpark(struct hs_loop_waiter *loop_waiter);

/* ---- Addresses ----------------------------------------------------------------------------- */

struct hs_addr {
    socklen_t len;
    union {
        struct sockaddr sa;
        struct sockaddr_storage storage;
        struct sockaddr_un un;
    };
};

/* Where to connect to or listen on. family: AF_UNSPEC for a name still to be looked up, AF_INET,
 * AF_INET6 or AF_UNIX when addr is set. */
struct hs_endpoint {
    int family;
    uint16_t port;
    char host[256];
    struct hs_addr addr;
};

#define HS_ADDR_TEXT_SIZE 280

/* "host:port", "1.2.3.4:80", "[fe80::1%eth0]:443", "unix:/path", "unix:@abstract". */
HS_API HS_NODISCARD hs_err hs_endpoint_parse(const char *text, size_t len, struct hs_error *err,
                                             struct hs_endpoint *ret_endpoint);
HS_API HS_NODISCARD hs_err hs_endpoint_from_host(const char *host, size_t len, long port,
                                                 struct hs_error *err,
                                                 struct hs_endpoint *ret_endpoint);
/* A leading NUL in path makes the name abstract, as in unix(7). */
HS_API HS_NODISCARD hs_err hs_endpoint_from_path(const char *path, size_t len, struct hs_error *err,
                                                 struct hs_endpoint *ret_endpoint);
/* Both write at most size bytes, always a terminated string, and return buf. */
HS_API const char *hs_endpoint_text(const struct hs_endpoint *ep, char *buf, size_t size);
HS_API const char *hs_addr_text(const struct hs_addr *addr, char *buf, size_t size);

/* ---- Socket options ------------------------------------------------------------------------ */

#define HS_UNSET (-1)

/* HS_UNSET leaves the kernel's default alone. Seconds and milliseconds as the kernel has them. */
struct hs_sockopts {
    int nodelay;
    int keepalive;
    int keepalive_idle_s;
    int keepalive_interval_s;
    int keepalive_count;
    int user_timeout_ms;
    int recv_buffer;
    int send_buffer;
    int notsent_lowat;
    int linger_s; /* 0 makes every close a reset: only on explicit demand, and of no listener */
    int priority;
    int mark;
    int reuse_port; /* listeners only, as the next three */
    int defer_accept_s;
    int fastopen_queue;
    int v6only;
    int mptcp;
    char interface[16]; /* "" = any */
    int dead_after_ms;  /* set by hs_sockopts_dead_after() only */
};

HS_API void hs_sockopts_init(struct hs_sockopts *o); /* everything unset */
/* Sets keepalive and TCP_USER_TIMEOUT so that a peer that is gone is noticed within dead_after_ms,
 * idle or not (tcp(7); the user timeout overrides the probe count), and not before four fifths of
 * its whole seconds. Of 5 s and more, four probes at least (below 6 s three) are sent on an idle
 * connection. Quiet times and intervals are those that spread best over the kernel's timers, so
 * they depend on its tick rate (time(7)); from some 20 to 35 s on every connection draws its own,
 * and those below are the longest. Below 5 s an idle connection is probed every second and noticed
 * after the whole seconds in dead_after_ms, at least 2. */
HS_API void hs_sockopts_dead_after(struct hs_sockopts *o, int dead_after_ms);

struct hs_setting {
    const char *name;       /* static: "recv_buffer" */
    int asked;              /* HS_UNSET: not asked for */
    int effective;          /* HS_UNSET: the kernel does not say */
    bool differs;           /* asked for, and the kernel made it something else */
    const char *limited_by; /* static: the sysctl to look at when they differ, or NULL */
};
#define HS_SETTINGS_MAX 24

/* ---- Framing ------------------------------------------------------------------------------- */

/* How a stream of bytes is cut into frames: a plain description, no I/O. Fields that belong to
 * other kinds are ignored. Fill it, have it checked once (hs_framing_check), then keep it as it is;
 * every other function here relies on the check. */

enum hs_framing_kind {
    HS_FRAMING_DELIMITER, /* payload, then sep */
    HS_FRAMING_LINE,      /* payload, then the end of a line */
    HS_FRAMING_PREFIX,    /* offset bytes, a length field, then as many bytes as it says */
};

enum hs_line_ending {
    HS_LINE_LF,
    HS_LINE_CRLF, /* strict: a CR or LF by itself is HS_E_BAD_FRAME, never a part of a line */
    HS_LINE_ANY,  /* LF, with or without one CR in front */
};

/* What becomes of a frame beyond max_size. */
enum hs_too_long {
    HS_TOO_LONG_CLOSE, /* an error that ends the stream */
    HS_TOO_LONG_KEEP,  /* an error, and nothing is consumed: a larger limit goes on */
    HS_TOO_LONG_SKIP,  /* thrown away as it arrives, then one error; the stream goes on behind it */
};

#define HS_FRAME_HEADER_MAX 10 /* bytes of the longest length field */
#define HS_FRAME_OFFSET_MAX 65535
#define HS_FRAME_SEP_MAX 65535
#define HS_FRAME_SIZE_MAX (SIZE_MAX / 2)

struct hs_framing {
    enum hs_framing_kind kind;
    enum hs_too_long too_long;
    size_t max_size; /* bytes of payload: the separator and the header do not count */
    size_t max_skip; /* with HS_TOO_LONG_SKIP: bytes thrown away for one frame, all included */
    bool keep;       /* frames are returned with their separator or header */

    /* HS_FRAMING_LINE */
    enum hs_line_ending ending;

    /* HS_FRAMING_DELIMITER: 1 to HS_FRAME_SEP_MAX bytes; borrows: sep as long as the framing */
    const uint8_t *sep;
    size_t sep_len;

    /* HS_FRAMING_PREFIX: the payload has (declared + adjustment) bytes, less offset + width if the
     * declared value includes_header. */
    unsigned width; /* bytes of the length field, 1 to 8, or 0: a varint (LEB128, 1 to 10 bytes) */
    bool little_endian;
    bool includes_header;
    size_t offset; /* bytes in front of the length field */
    int64_t adjustment;
};

/* HS_E_INVALID for what could never work; the message names the field and its value. */
HS_API HS_NODISCARD hs_err hs_framing_check(const struct hs_framing *f, struct hs_error *err);
/* HS_FRAMING_PREFIX: the length field for a payload that is to be sent behind head_len (= offset)
 * bytes of the caller's. HS_E_FRAME_TOO_LARGE when max_size or the field does not allow it,
 * HS_E_BAD_FRAME when the field would have to be negative, HS_E_INVALID for another kind. */
HS_API HS_NODISCARD hs_err hs_framing_header(const struct hs_framing *f, size_t payload_len,
                                             size_t head_len, struct hs_error *err,
                                             uint8_t out[HS_FRAME_HEADER_MAX], size_t *ret_n);

/* The codec by itself, for those who do their own I/O: feed bytes, get frames. One thread at a
 * time. Memory follows what was fed, never what a header claims. After an error that is not
 * recoverable every call repeats it. */
struct hs_decoder;

/* Checks f and copies it. Returns: new decoder. */
HS_API HS_NODISCARD hs_err hs_decoder_new(const struct hs_framing *f, struct hs_error *err,
                                          struct hs_decoder **ret_decoder);
HS_API void hs_decoder_free(struct hs_decoder *d); /* NULL is fine */
/* All n bytes or none (HS_E_NOMEM). HS_E_INVALID after hs_decoder_eof. */
HS_API HS_NODISCARD hs_err hs_decoder_feed(struct hs_decoder *d, const uint8_t *bytes, size_t n,
                                           struct hs_error *err);
/* The next frame; HS_WANT when the bytes for one are not there yet. *ret_data is never NULL.
 * borrows: *ret_data until the next call of any hs_decoder_ function that may change d.
 * HS_E_FRAME_TOO_LARGE (hs_decoder_oversize tells more), HS_E_BAD_FRAME, HS_E_TRUNCATED after
 * hs_decoder_eof, HS_E_NOMEM. */
HS_API HS_NODISCARD hs_err hs_decoder_next(struct hs_decoder *d, struct hs_error *err,
                                           const uint8_t **ret_data, size_t *ret_len);
/* Says that no more bytes come. HS_E_TRUNCATED when they end in the middle of a frame. While whole
 * frames are still waiting it is HS_OK, and hs_decoder_next tells when it gets there. */
HS_API HS_NODISCARD hs_err hs_decoder_eof(struct hs_decoder *d, struct hs_error *err);
/* Bytes that were fed and have not been returned. */
HS_API size_t hs_decoder_buffered(const struct hs_decoder *d);
/* Of the last HS_E_FRAME_TOO_LARGE. */
HS_API void hs_decoder_oversize(const struct hs_decoder *d, struct hs_oversize *ret_oversize);
/* Moves out what is buffered, for a protocol that changes in mid-stream: at most n bytes, returns
 * how many. Works after an error, too. */
HS_API size_t hs_decoder_take_rest(struct hs_decoder *d, uint8_t *to, size_t n);

/* ---- TLS ----------------------------------------------------------------------------------- */

/* Everything that is decided before a handshake: versions, ciphers, whom to trust, who we are.
 * Immutable and shared by any number of connections; hs_tls_config_reload swaps in a new one for
 * later handshakes, at once and whole. Minimum version 1.2, forward secrecy and AEAD only, no
 * renegotiation, no compression, security level 2 (112 bits). */
struct hs_tls_config;

enum hs_tls_role { HS_TLS_CLIENT, HS_TLS_SERVER };
/* ON_REQUEST: not in the handshake, by hs_conn_request_certificate; with TLS 1.2, which has no such
 * request, as OPTIONAL. ON_REQUEST_OR_REQUIRED: the same, but with TLS 1.2 as REQUIRED. */
enum hs_tls_client_certs {
    HS_TLS_CERTS_NONE,
    HS_TLS_CERTS_OPTIONAL,
    HS_TLS_CERTS_REQUIRED,
    HS_TLS_CERTS_ON_REQUEST,
    HS_TLS_CERTS_ON_REQUEST_OR_REQUIRED
};
enum hs_tls_ocsp_mode { HS_TLS_OCSP_OFF, HS_TLS_OCSP_CHECK, HS_TLS_OCSP_REQUIRE };

/* PEM or DER, in a file or in memory; both NULL: nothing. */
struct hs_tls_source {
    const char *path;
    const void *data;
    size_t len;
};

struct hs_tls_identity {
    struct hs_tls_source chain; /* the leaf first */
    struct hs_tls_source key;   /* nothing: it is in chain */
    struct hs_tls_source ocsp;  /* a DER response to be stapled, or nothing */
    const char *password;       /* or NULL; without one an encrypted key is an error */
};

#define HS_TLS_1_2 0x0303
#define HS_TLS_1_3 0x0304

struct hs_tls_options {
    enum hs_tls_role role;
    bool system_ca; /* trust what the system trusts */
    const struct hs_tls_source *cas, *crls;
    size_t n_cas, n_crls; /* with a CRL, every chain is checked, all of it */
    const struct hs_tls_identity *identities;
    size_t n_identities;            /* a server chooses by the name that the client asks for */
    enum hs_tls_client_certs certs; /* server */
    const uint8_t *alpn;            /* as on the wire (RFC 7301): each name behind its length */
    size_t alpn_len;
    int min_version, max_version; /* HS_TLS_1_2 or HS_TLS_1_3 */
    const char *ciphers;          /* of TLS 1.2, or NULL; must keep to the rules above */
    const char *insecure_ciphers; /* the same without rules; lowers the security level to 0 */
    int security_level;           /* 2 to 5, see SSL_CTX_set_security_level(3) */
    bool strict_certificates;     /* X509_V_FLAG_X509_STRICT: RFC 5280 to the letter */
    bool whole_chains;            /* an authority that is named must be a root */
    enum hs_tls_ocsp_mode ocsp;   /* client */
    bool post_handshake_auth;     /* client: the server may ask for its certificate later */
    bool sessions;                /* resumption */
    int tickets;                  /* server: sent after a full handshake, 0 to 8 */
    int64_t session_lifetime_s;
    int64_t handshake_timeout_ns;
    bool insecure_skip_verify;       /* client: accepts any certificate */
    bool insecure_skip_hostname;     /* client: accepts any name */
    bool insecure_accept_truncation; /* an end without close_notify is an end like any other */
    const char *insecure_key_log;    /* file to append secrets to (NSS format), or NULL */
};
HS_API void hs_tls_options_init(struct hs_tls_options *o, enum hs_tls_role role);

/* Reads every file. HS_E_INVALID, HS_E_TLS or HS_E_SYSTEM; the message names what is wrong.
 * Returns a new reference. */
HS_API HS_NODISCARD hs_err hs_tls_config_new(const struct hs_tls_options *o, struct hs_error *err,
                                             struct hs_tls_config **ret_config);
/* The same role again. On failure nothing has changed. */
HS_API HS_NODISCARD hs_err hs_tls_config_reload(struct hs_tls_config *config,
                                                const struct hs_tls_options *o,
                                                struct hs_error *err);
/* A server's keys for session tickets, so that several processes open each other's: 1 to 3 of
 * HS_TLS_TICKET_KEY_SIZE random bytes each, of which the first seals and all open. They stay until
 * others are given: replace them as often as half the lifetime of sessions. HS_E_INVALID. */
#define HS_TLS_TICKET_KEY_SIZE 80
HS_API HS_NODISCARD hs_err hs_tls_config_give_ticket_keys(struct hs_tls_config *config,
                                                          const uint8_t *bytes, size_t len,
                                                          struct hs_error *err);
HS_API struct hs_tls_config *hs_tls_config_ref(struct hs_tls_config *config);
HS_API void hs_tls_config_unref(struct hs_tls_config *config); /* NULL is fine */
HS_API enum hs_tls_role hs_tls_config_role(const struct hs_tls_config *config);
HS_API int64_t hs_tls_config_handshake_timeout(struct hs_tls_config *config);
/* How many sessions a client has kept to be resumed. */
HS_API size_t hs_tls_config_sessions(struct hs_tls_config *config);

enum hs_ocsp_state { HS_OCSP_NONE, HS_OCSP_GOOD, HS_OCSP_SKIPPED };

/* What a handshake agreed on. */
struct hs_tls_info {
    enum hs_tls_role role;
    const char *version; /* static: "TLSv1.3" */
    const char *cipher;  /* static */
    const char *group;   /* static, or "" */
    char alpn[256];      /* "" when none */
    char server_name[256];
    bool resumed;
    bool verified;           /* the peer's certificate was */
    enum hs_ocsp_state ocsp; /* skipped: resumed, no chain to check */
    uint64_t tickets;        /* received so far */
    int64_t started_ns, first_byte_ns, verified_ns, finished_ns; /* 0: it did not happen */
};

struct hs_tls_certificate { /* facts about one certificate; allocated texts */
    char *subject, *issuer; /* RFC 4514 */
    char *names;            /* subjectAltName: "DNS:a.example", "IP:192.0.2.1", ..., by lines */
    char *serial;           /* hexadecimal */
    int64_t not_before, not_after; /* seconds since 1970 */
};
/* HS_E_INVALID when der is no certificate. */
HS_API HS_NODISCARD hs_err hs_tls_certificate_read(const uint8_t *der, size_t len,
                                                   struct hs_error *err,
                                                   struct hs_tls_certificate *ret_cert);
HS_API void hs_tls_certificate_fini(struct hs_tls_certificate *cert);

/* ---- Connections --------------------------------------------------------------------------- */

struct hs_conn;
enum hs_dir { HS_DIR_IN = 0, HS_DIR_OUT = 1 };

/* Takes ownership of a connected stream socket (TCP or unix), but not on failure. Makes it
 * non-blocking and close-on-exec; opts may be NULL. Returns a new reference. */
HS_API HS_NODISCARD hs_err hs_conn_adopt(int fd, const struct hs_sockopts *opts,
                                         struct hs_error *err, struct hs_conn **ret_conn);
HS_API struct hs_conn *hs_conn_ref(struct hs_conn *c);
/* The last reference closes the connection. NULL is fine; never blocks. */
HS_API void hs_conn_unref(struct hs_conn *c);

/* One reader and one writer at a time: a third call gets HS_E_BUSY. Errors common to all below:
 * HS_E_DEADLINE, HS_E_CANCELLED, HS_E_CLOSED, HS_E_BUSY, HS_E_FORKED, HS_E_RESET, HS_E_DEAD_PEER,
 * HS_E_POISONED, HS_E_SYSTEM. A caller that gives up after HS_INTR or HS_WANT calls
 * hs_conn_abandon, which frees the direction and poisons it if something is half done. */

/* At most len bytes, as soon as there are any; *ret_n 0 means that the peer ended its stream
 * (or that len is 0). flags: MSG_PEEK, or MSG_WAITALL: as many as len, unless the peer ends its
 * stream before; what had arrived when it fails is put back. */
HS_API HS_NODISCARD hs_err hs_conn_recv(struct hs_conn *c, struct hs_op *op, uint8_t *buf,
                                        size_t len, int flags, struct hs_error *err, size_t *ret_n);
/* Exactly len bytes or an error: HS_E_TRUNCATED when the peer ends first, HS_E_END when it does so
 * before the first of them. Whatever had arrived (op->done bytes) is put back and will be the first
 * to be received again. */
HS_API HS_NODISCARD hs_err hs_conn_recv_exactly(struct hs_conn *c, struct hs_op *op, uint8_t *buf,
                                                size_t len, struct hs_error *err);
/* As many bytes as the kernel takes at once, at least one unless len is 0. */
HS_API HS_NODISCARD hs_err hs_conn_send(struct hs_conn *c, struct hs_op *op, const uint8_t *buf,
                                        size_t len, struct hs_error *err, size_t *ret_n);
/* All of it. On failure op->done says how many bytes the kernel took; if that is not zero the
 * direction is poisoned: nobody may write behind half a message. */
HS_API HS_NODISCARD hs_err hs_conn_send_all(struct hs_conn *c, struct hs_op *op, const uint8_t *buf,
                                            size_t len, struct hs_error *err);
/* Gathered write, at most IOV_MAX (1024) pieces at once; iov is changed as pieces go out. */
HS_API HS_NODISCARD hs_err hs_conn_sendv(struct hs_conn *c, struct hs_op *op, struct iovec *iov,
                                         size_t n, bool all, struct hs_error *err);
/* sendmsg(2) with ancillary data, as SCM_RIGHTS on unix sockets: what the kernel takes at once,
 * op->done bytes, with all of the ancillary data. HS_E_INVALID with TLS. */
HS_API HS_NODISCARD hs_err hs_conn_sendmsg(struct hs_conn *c, struct hs_op *op,
                                           const struct msghdr *msg, struct hs_error *err);
/* recvmsg(2): as soon as there are bytes; flags: 0 or MSG_PEEK. The descriptors that come in
 * msg_control are the caller's, close-on-exec. Bytes that are buffered come first, without the
 * ancillary data that they had: the kernel throws that away when it is not asked for. With TLS
 * there is none. msg_controllen and msg_flags are set by HS_OK only. */
HS_API HS_NODISCARD hs_err hs_conn_recvmsg(struct hs_conn *c, struct hs_op *op, struct msghdr *msg,
                                           int flags, struct hs_error *err, size_t *ret_n);
/* len bytes of a regular file from *offset on, with sendfile(2); *offset moves. Less only if the
 * file ends before: op->done tells. Else as hs_conn_send_all. */
HS_API HS_NODISCARD hs_err hs_conn_send_file(struct hs_conn *c, struct hs_op *op, int file,
                                             int64_t *offset, size_t len, struct hs_error *err);
/* buf is what an unfinished hs_conn_recv_exactly, or hs_conn_recv with MSG_WAITALL, was filling
 * (its op->done bytes are put back), or NULL for any other call. */
HS_API void hs_conn_abandon(struct hs_conn *c, struct hs_op *op, const uint8_t *buf);

/* Frames and lines. Bytes that arrive with them and behind them wait in the receive buffer, which
 * all calls share: recv, recv_exactly, frames of any kind, in any order. A deadline or a cancel
 * keeps all bytes, and the search goes on where it stood. */

/* Waits until a whole frame is buffered: HS_OK, and then this call must go on with hs_conn_frame
 * for one or more frames, and end with hs_conn_frames_end. HS_E_TRUNCATED or HS_E_END when the peer
 * ends its stream. HS_E_FRAME_TOO_LARGE (err->oversize tells more), HS_E_BAD_FRAME: when the
 * stream cannot go on after it, reading is poisoned. f has passed hs_framing_check.
 * A skipped frame is reported once, to whichever call reads next: recv, recv_exactly, peek too. */
HS_API HS_NODISCARD hs_err hs_conn_recv_frames(struct hs_conn *c, struct hs_op *op,
                                               const struct hs_framing *f, struct hs_error *err);
/* The frame at the front; false when no whole one is left. borrows: *ret_data, which is never NULL,
 * until hs_conn_frame_taken, which consumes it, or hs_conn_frames_end. */
HS_API bool hs_conn_frame(struct hs_conn *c, const struct hs_framing *f, const uint8_t **ret_data,
                          size_t *ret_len);
HS_API void hs_conn_frame_taken(struct hs_conn *c);
HS_API void hs_conn_frames_end(struct hs_conn *c, struct hs_op *op);
/* Waits until n bytes are buffered; then hs_conn_peeked gives them, and hs_conn_frames_end ends the
 * call. HS_E_TRUNCATED or HS_E_END as above. */
HS_API HS_NODISCARD hs_err hs_conn_peek(struct hs_conn *c, struct hs_op *op, size_t n,
                                        struct hs_error *err);
HS_API const uint8_t *hs_conn_peeked(struct hs_conn *c);
/* A message (what hs_conn_recv_exactly or a frame call waits for) whose first byte is here must
 * come on at bytes_per_s at least, grace_ns apart, or the call ends with HS_E_DEADLINE. 0: no
 * minimum. */
HS_API void hs_conn_set_min_rate(struct hs_conn *c, uint64_t bytes_per_s, int64_t grace_ns);
/* How long the other direction may go on once one has ended, by us or by the peer; HS_NEVER: as
 * long as it likes. It works by moving that direction's deadline when the end is seen. */
HS_API void hs_conn_set_half_closed(struct hs_conn *c, int64_t span_ns);

/* Does the handshake, no matter whose turn it is to begin, within the config's time and the op's;
 * from then on every call goes through TLS. server_name (client): whose certificate is expected, a
 * host name or an IP address; NULL only with insecure_skip_hostname. Claims both directions. Bytes
 * that were received and not read are refused (HS_TLS_PLAINTEXT): somebody in the middle may have
 * put them there to be taken for protected ones (CVE-2021-23222). After any failure but
 * HS_E_INVALID, HS_E_BUSY and HS_E_FORKED, a give-up included, both directions are poisoned. On a
 * connection that speaks TLS already it begins another layer within that; a third is HS_E_INVALID.
 * */
HS_API HS_NODISCARD hs_err hs_conn_start_tls(struct hs_conn *c, struct hs_op *op,
                                             struct hs_tls_config *config, const char *server_name,
                                             struct hs_error *err);
/* The same, but what a server has received and not read is handed to the handshake if it begins as
 * a client's does: where a header comes before it in one segment (PROXY protocol), and the header
 * was read by the line. */
HS_API HS_NODISCARD hs_err hs_conn_start_tls_read_ahead(struct hs_conn *c, struct hs_op *op,
                                                        struct hs_tls_config *config,
                                                        const char *server_name,
                                                        struct hs_error *err);
/* With TLS 1.3 a client's handshake ends before the server has judged the client's certificate.
 * Waits until the server has said anything: a ticket, data (which stays to be read), or an alert
 * (HS_E_TLS). */
HS_API HS_NODISCARD hs_err hs_conn_confirm(struct hs_conn *c, struct hs_op *op,
                                           struct hs_error *err);
/* A TLS 1.3 server asks for the client's certificate after the handshake (RFC 8446 section 4.6.2),
 * and waits for the answer: from HS_OK on hs_conn_tls_chain_copy tells it. required: a client that
 * shows none fails (HS_E_CERTIFICATE), as one does whose certificate is not verified; after that
 * the connection is over. What the client sends before it answers is kept to be received, up to
 * HS_TLS_REQUEST_AHEAD bytes (HS_E_TLS with HS_TLS_PROTOCOL).
 * After that, HS_E_DEADLINE, HS_E_CANCELLED and a call that is given up the connection goes on, and
 * the request stands: a call that receives takes the answer in, and the next call of this one
 * waits for it, or returns at once. HS_E_TLS with HS_TLS_VERSION or HS_TLS_LOCAL: the
 * client cannot be asked, and nothing has changed. wait false:
 * only ask. */
#define HS_TLS_REQUEST_AHEAD ((size_t)131072)
HS_API HS_NODISCARD hs_err hs_conn_request_certificate(struct hs_conn *c, struct hs_op *op,
                                                       bool required, bool wait,
                                                       struct hs_error *err);
/* False: it is a plain connection. */
HS_API bool hs_conn_tls_info(struct hs_conn *c, struct hs_tls_info *ret_info);
/* The peer's certificates as it sent them, its own first; 0: none. Free *ret_der with free(3). */
HS_API size_t hs_conn_tls_chain_length(struct hs_conn *c);
HS_API HS_NODISCARD hs_err hs_conn_tls_chain_copy(struct hs_conn *c, size_t i, uint8_t **ret_der,
                                                  size_t *ret_len);

/* len secret bytes that both ends of this TLS, and nobody else, can derive for a purpose (RFC 5705,
 * RFC 8446 section 7.5). HS_E_INVALID: a plain connection, TLS that has failed, TLS 1.2 without the
 * extended master secret (RFC 7627), or a label or length that OpenSSL refuses. len > 0. */
struct hs_tls_exported {
    const char *label;
    size_t label_len;
    const uint8_t *context; /* NULL: none, which for TLS 1.2 is not the same as an empty one */
    size_t context_len;
};
HS_API HS_NODISCARD hs_err hs_conn_tls_export(struct hs_conn *c, const struct hs_tls_exported *what,
                                              uint8_t *out, size_t len, struct hs_error *err);
/* What a protocol above ties a proof of who it is to. HS_E_INVALID as hs_conn_tls_export, or, for
 * END_POINT, when the server's certificate is not known (a server that has resumed) or its
 * signature has no hash. */
enum hs_tls_binding {
    HS_TLS_BINDING_END_POINT, /* tls-server-end-point, RFC 5929: the hash of its certificate */
    HS_TLS_BINDING_EXPORTER,  /* tls-exporter, RFC 9266: 32 bytes, of this connection alone */
};
#define HS_TLS_BINDING_MAX 64
HS_API HS_NODISCARD hs_err hs_conn_tls_binding(struct hs_conn *c, enum hs_tls_binding kind,
                                               uint8_t out[HS_TLS_BINDING_MAX], size_t *ret_len,
                                               struct hs_error *err);

/* Says that no more comes: FIN, or with TLS close_notify, for which there must be room first.
 * Reading goes on. Waits. */
HS_API HS_NODISCARD hs_err hs_conn_close_write(struct hs_conn *c, struct hs_op *op,
                                               struct hs_error *err);
/* shutdown(2): SHUT_RD, SHUT_WR or SHUT_RDWR. Never blocks. With TLS it ends the connection below:
 * the peer finds its stream truncated, unless hs_conn_close_write came first. HS_OK also where both
 * sides had ended before; HS_E_RESET or HS_E_DEAD_PEER: it had broken. */
HS_API HS_NODISCARD hs_err hs_conn_shutdown(struct hs_conn *c, int how, struct hs_error *err);
/* Ends the connection for everybody: calls in progress wake with HS_E_CLOSED and the descriptor
 * is closed when the last of them is out. Idempotent, never blocks, callable from any thread.
 * abortive: the peer gets a reset (RST) at once instead of an orderly end. */
HS_API void hs_conn_close(struct hs_conn *c, bool abortive);
/* How hs_conn_finish found the peer. */
enum hs_ending {
    HS_ENDING_CLEAN,     /* the peer ended its side, too, and acknowledged all of ours */
    HS_ENDING_DEADLINE,  /* the time was up first */
    HS_ENDING_RESET,     /* the peer reset the connection */
    HS_ENDING_DEAD_PEER, /* the peer stopped answering */
    HS_ENDING_TRUNCATED, /* TLS: the peer did not end its stream by saying so (close_notify): it
                          * closed, or sent an alert, as it does when ours stopped half-way */
};
struct hs_close_report {
    enum hs_ending ending;
    size_t unsent;    /* bytes that the peer's kernel had not acknowledged (for unix: not read) */
    size_t discarded; /* bytes that the peer still sent and nobody will read */
};
/* The orderly end: says that no more comes (FIN), reads and throws away what the peer still sends
 * until it ends its side, waits until all that was sent is acknowledged, and closes. So no unread
 * byte makes the kernel reset the connection and destroy what is on its way (RFC 1122 section
 * 4.2.2.13). Waits; obeys op. A deadline, a reset, a dead peer and a TLS stream that has failed are
 * reports, not errors; whatever is reported, the connection is closed afterwards. HS_E_CANCELLED,
 * HS_E_BUSY (a call in progress in either direction) and HS_E_CLOSED leave it as it is, but for the
 * FIN. */
HS_API HS_NODISCARD hs_err hs_conn_finish(struct hs_conn *c, struct hs_op *op, struct hs_error *err,
                                          struct hs_close_report *ret_report);
/* Gives the descriptor back to the caller and leaves the connection closed. HS_E_BUSY while a call
 * is in progress or received bytes are still buffered here (they would be lost). */
HS_API HS_NODISCARD hs_err hs_conn_detach(struct hs_conn *c, struct hs_error *err, int *ret_fd);
/* A second connection on the same socket, with a descriptor of its own (dup(2)). Neither knows what
 * the other reads or half sends. HS_E_BUSY as for hs_conn_detach; HS_E_INVALID with TLS. */
HS_API HS_NODISCARD hs_err hs_conn_dup(struct hs_conn *c, struct hs_error *err,
                                       struct hs_conn **ret_conn);
HS_API bool hs_conn_is_closed(struct hs_conn *c);
HS_API int hs_conn_fileno(struct hs_conn *c); /* -1 when closed */
/* Absolute deadline for all present and future calls in one direction; HS_NEVER for none. */
HS_API void hs_conn_set_deadline(struct hs_conn *c, enum hs_dir dir, int64_t deadline_ns);
HS_API int64_t hs_conn_get_deadline(struct hs_conn *c, enum hs_dir dir);
/* For servers: what may end a call that waits for a message of which nothing has come. The call
 * decides it, and asks the kernel last: what has arrived is never lost by it. The call is
 * HS_E_CANCELLED with phase "idle_timeout" or "drain", and so are all that begin later. */
enum hs_quiet { HS_QUIET_GOES_ON, HS_QUIET_FOR_LONG, HS_QUIET_NO_MORE };

struct hs_conn_info {
    int64_t created_ns, last_read_ns, last_write_ns; /* 0: never */
    uint64_t bytes_received, bytes_sent;             /* as the kernel took and gave them */
    size_t buffered;                                 /* received, not yet returned to the caller */
    int family;
    unsigned changed_settings; /* options that the kernel silently made into something else */
    bool poisoned_in, poisoned_out;
    bool idle; /* between two messages: a call waits to read, of whose message nothing has come,
                * nothing is being written, and nothing came since the last write */
    enum hs_quiet quiet; /* what has ended a call that waited for a message, if that has happened */
    int64_t idle_timeout_ns; /* HS_NEVER: none */
    bool late_in, late_out;  /* a turn was longer than hs_conn_set_turns allows */
    bool left; /* a token was cancelled because its peer has left: hs_departures_watch */
};
HS_API void hs_conn_info(struct hs_conn *c, struct hs_conn_info *ret_info);
/* Bytes that can be had without the kernel, of which no readiness of the descriptor tells: those
 * in the buffer, and those that TLS has decrypted or holds as whole records. *ret_ready: reading
 * would not wait, because of them or because the TLS stream's end has been read. While another
 * call reads only the buffer counts. Does not wait. */
HS_API size_t hs_conn_pending(struct hs_conn *c, bool *ret_ready);
HS_API HS_NODISCARD hs_err hs_conn_local_addr(struct hs_conn *c, struct hs_error *err,
                                              struct hs_addr *ret_addr);
/* Behind a proxy that a listener believes (struct hs_proxy_listening): the client's. */
HS_API HS_NODISCARD hs_err hs_conn_peer_addr(struct hs_conn *c, struct hs_error *err,
                                             struct hs_addr *ret_addr);
/* The proxy's own address. False: there is none between. */
HS_API bool hs_conn_proxy_addr(struct hs_conn *c, struct hs_addr *ret_addr);
/* getsockopt(2) and setsockopt(2) on the connection's own descriptor. */
HS_API HS_NODISCARD hs_err hs_conn_getsockopt(struct hs_conn *c, int level, int name, void *value,
                                              socklen_t *len, struct hs_error *err);
HS_API HS_NODISCARD hs_err hs_conn_setsockopt(struct hs_conn *c, int level, int name,
                                              const void *value, socklen_t len,
                                              struct hs_error *err);
/* What was asked for and what the kernel says is in effect; settings has HS_SETTINGS_MAX places. */
HS_API HS_NODISCARD hs_err hs_conn_audit(struct hs_conn *c, struct hs_setting *settings,
                                         struct hs_error *err, size_t *ret_n);
/* Who reset whom, in this process since it began. A close with unread bytes makes the kernel send a
 * reset (RFC 1122 section 4.2.2.13); TCP only. */
struct hs_reset_counts {
    uint64_t by_peer;   /* found by reading or writing */
    uint64_t dead_peer; /* not reset but given up: nobody answered */
    uint64_t by_abort;  /* hs_conn_close, abortive */
    uint64_t by_linger; /* closed with SO_LINGER of zero seconds */
    uint64_t by_unread; /* closed with unread bytes */
};
HS_API void hs_reset_counts(struct hs_reset_counts *ret_counts);
/* ---- Name lookup --------------------------------------------------------------------------- */

struct hs_answer {
    int family; /* AF_INET or AF_INET6 */
    bool finished;
    int gai; /* EAI_* or 0 */
    int sys; /* errno when gai is EAI_SYSTEM */
    int64_t started_ns, finished_ns;
    size_t n;                    /* addresses, in the resolver's order */
    const struct hs_addr *addrs; /* borrows: the connector */
};

struct hs_resolver_stats {
    long running;             /* lookups somebody waits for, with a thread */
    long queued;              /* lookups that wait for a thread: their name's servers have as many
                               * as they may */
    long orphans;             /* lookups whose callers have left; they end when libc lets them */
    long live;                /* lookups in memory: running, orphaned, queued or being read */
    int64_t oldest_orphan_ns; /* age, or 0 */
    long inherited;           /* lookups that ran in the parent when this process was forked */
    uint64_t started, abandoned;
};
HS_API void hs_resolver_stats(struct hs_resolver_stats *ret_stats);

/* ---- Breakers: what has kept failing is not tried for a while ------------------------------- */

/* How an attempt ended, as a breaker sees it. What each weighs, and why, stands in one table in
 * breaker_entry.c. */
enum hs_fail {
    HS_FAIL_NONE,        /* it worked */
    HS_FAIL_NOT_COUNTED, /* says nothing about the peer: a cancel, a local limit */
    HS_FAIL_DEADLINE,    /* no answer before the caller's time was up: see patience_ns */
    HS_FAIL_REFUSED,
    HS_FAIL_RESET,
    HS_FAIL_TIMEOUT, /* no answer, and enough time for one */
    HS_FAIL_UNREACHABLE,
    HS_FAIL_TLS_CERTIFICATE,
    HS_FAIL_TLS_VERSION, /* no version or no cipher in common */
    HS_FAIL_TLS_OTHER,
    HS_FAIL_APPLICATION,
    HS_FAIL_CLASSES,
};
HS_API const char *hs_fail_name(enum hs_fail fail); /* "refused", "tls_certificate", ... */
/* Of connect, send and recv. What only this machine can be blamed for is HS_FAIL_NOT_COUNTED. */
HS_API enum hs_fail hs_fail_of_errno(int sys);

enum hs_breaker_state { HS_BREAKER_CLOSED, HS_BREAKER_HALF_OPEN, HS_BREAKER_OPEN };
HS_API const char *hs_breaker_state_name(enum hs_breaker_state state); /* "half_open", ... */

struct hs_breaker_options {
    int failures;             /* in a row that open it; 0: not looked at. 5 */
    int rate_permille;        /* of the window's calls; 0: not looked at. 500 */
    int min_calls;            /* in the window before their rate counts. 20 */
    int64_t window_ns;        /* 30 s */
    int64_t open_ns;          /* the first time; doubles when that did not help. 30 s */
    int64_t max_open_ns;      /* 300 s */
    int jitter_permille;      /* by how much at most the open time is shortened. 200 */
    int probes;               /* permits at the same time while half open. 1 */
    int successes;            /* of them that close it. 1 */
    int64_t probe_ns;         /* a permit that was not reported by then holds up nobody. 10 s */
    int64_t patience_ns;      /* a deadline counts when there was that much time. 1 s */
    int max_ejected_permille; /* of the addresses of one name. 1000 */
    bool fail_fast;           /* when all addresses of a name are open, try none of them */
    bool dry_run;             /* decide and count, refuse nothing */
    size_t max_keys;          /* the one not used for longest goes. 4096 */
    uint64_t seed;            /* of the jitter; 0: another one each time */
};
HS_API void hs_breaker_options_init(struct hs_breaker_options *o);

/* What a breaker tells apart: an address with its port, a listener, or a name of the caller's. */
#define HS_BREAKER_NAME_MAX 118
struct hs_breaker_key {
    uint8_t kind, len;
    uint8_t bytes[HS_BREAKER_NAME_MAX];
};
#define HS_BREAKER_KEY_TEXT_SIZE (HS_ADDR_TEXT_SIZE + 16)
HS_API void hs_breaker_key_addr(const struct hs_addr *addr, struct hs_breaker_key *ret_key);
/* What hs_breaker_key_text wrote gives the same key; other texts, of 1 to HS_BREAKER_NAME_MAX
 * bytes, are names. */
HS_API HS_NODISCARD hs_err hs_breaker_key_parse(const char *text, size_t len, struct hs_error *err,
                                                struct hs_breaker_key *ret_key);
HS_API const char *hs_breaker_key_text(const struct hs_breaker_key *key, char *buf, size_t size);

/* Thread-safe; one short lock. Time comes in, so that it never reads a clock. After a fork the
 * child goes on by itself with what the parent knew. */
struct hs_breaker;

/* Returns a new reference. HS_E_INVALID names the option, or both that contradict each other. */
HS_API HS_NODISCARD hs_err hs_breaker_new(const struct hs_breaker_options *o, struct hs_error *err,
                                          struct hs_breaker **ret_b);
HS_API struct hs_breaker *hs_breaker_ref(struct hs_breaker *b);
HS_API void hs_breaker_unref(struct hs_breaker *b); /* NULL is fine */

/* A value; zeroed: none, and reporting it does nothing. Every permit that was granted is to be
 * reported once. The first five fields belong to the breaker. */
struct hs_permit {
    uint64_t generation, probe;
    int64_t granted_ns;
    uint8_t kind;
    bool would_refuse;      /* a dry run */
    int64_t retry_ns;       /* refused: when to ask again */
    enum hs_fail last_fail; /* refused: the last failure */
};
/* HS_BREAKER_OPEN: do not try (*ret_permit says until when). Else try, and report. */
HS_API enum hs_breaker_state hs_breaker_permit(struct hs_breaker *b,
                                               const struct hs_breaker_key *key, int64_t now_ns,
                                               struct hs_permit *ret_permit);
/* How it ended; zeroes the permit. A report that comes when the state has changed since its permit
 * was granted changes nothing. */
HS_API void hs_breaker_record(struct hs_breaker *b, const struct hs_breaker_key *key,
                              struct hs_permit *permit, enum hs_fail fail, int64_t now_ns);

/* Keys that have never failed are not listed: they need no memory. */
struct hs_breaker_status {
    struct hs_breaker_key key;
    enum hs_breaker_state state;
    unsigned in_a_row;                      /* the weight of the failures since the last success */
    unsigned window_calls, window_failures; /* in the window */
    unsigned openings;                      /* in close succession */
    int64_t opened_ns, retry_ns;            /* 0 while closed */
    enum hs_fail last_fail;
    int64_t last_fail_ns;
    uint64_t calls, failures, refused, opened; /* since the key is known */
};
/* Writes at most max, the one used last first; returns how many there are. */
HS_API size_t hs_breaker_states(struct hs_breaker *b, int64_t now_ns, struct hs_breaker_status *s,
                                size_t max);

struct hs_breaker_stats {
    uint64_t permitted, refused;
    uint64_t would_refuse; /* let through by a dry run alone; not in permitted */
    uint64_t forced;       /* permitted for want of another address */
    uint64_t probes, expired_probes;
    uint64_t successes, failures, not_counted;
    uint64_t late; /* reports from before the state changed */
    uint64_t opened, half_opened, closed;
    uint64_t evicted; /* keys, for want of room */
    uint64_t by_class[HS_FAIL_CLASSES];
    size_t keys, keys_open;
};
HS_API void hs_breaker_stats(struct hs_breaker *b, int64_t now_ns,
                             struct hs_breaker_stats *ret_stats);
/* Forgets a key, or all (NULL): closed, no failures. Returns how many were known. */
HS_API size_t hs_breaker_reset(struct hs_breaker *b, const struct hs_breaker_key *key);

/* ---- Connecting ---------------------------------------------------------------------------- */

/* Limits for connections in the making, shared by all who are given them: threads and event loops
 * in one queue, in the order of arrival. In a forked child they begin anew, empty. */
struct hs_dial_limits;
struct hs_dial_place;
/* in_flight: places at the same time, 0: any number; interval_ns: between the beginnings of two, 0:
 * none. Not both 0 (HS_E_INVALID). Returns a new reference. */
HS_API HS_NODISCARD hs_err hs_dial_limits_new(long in_flight, int64_t interval_ns,
                                              struct hs_error *err,
                                              struct hs_dial_limits **ret_limits);
HS_API struct hs_dial_limits *hs_dial_limits_ref(struct hs_dial_limits *limits);
HS_API void hs_dial_limits_unref(struct hs_dial_limits *limits); /* NULL is fine */
/* Waits for a place. *place is NULL before the first call; after HS_INTR and HS_WANT it stands in
 * the queue, after HS_OK it is held; after an error it is NULL again. HS_E_DEADLINE, HS_E_CANCELLED
 * (the phase is "limits"), HS_E_NOMEM, HS_E_FORKED. */
HS_API HS_NODISCARD hs_err hs_dial_place_take(struct hs_dial_limits *limits, struct hs_op *op,
                                              struct hs_error *err, struct hs_dial_place **place);
/* Gives it back, or leaves the queue; never blocks, from any thread. NULL is fine. */
HS_API void hs_dial_place_leave(struct hs_dial_place *place);
struct hs_dial_stats {
    long in_flight, waiting;
    uint64_t begun, given_up; /* places given; callers who left the queue without one */
    int64_t waited_ns;        /* of those who got one, added up */
};
HS_API void hs_dial_limits_stats(struct hs_dial_limits *limits, struct hs_dial_stats *ret_stats);

struct hs_connector;

struct hs_connect_options {
    struct hs_sockopts sockopts;
    struct hs_addr sources[2];   /* to connect from, one per family; len 0: none; no one: any */
    int family;                  /* AF_UNSPEC, or only this one */
    int64_t attempt_delay_ns;    /* RFC 8305: between attempts, 250 ms */
    int64_t resolution_delay_ns; /* RFC 8305: for AAAA after A came first, 50 ms */
    int max_in_flight;           /* 6 */
    struct hs_tls_config *tls;   /* NULL: plain. The connector keeps a reference */
    const char *server_name;     /* as hs_conn_start_tls; NULL: the host of the endpoint */
    bool commit_at_tls;          /* the race goes on until a handshake is done, not just TCP's */
    struct hs_breaker *breaker;  /* borrows: a connector takes its own reference; NULL: none */
    /* The same. A connector waits for a place first, and holds it until it has ended. */
    struct hs_dial_limits *limits;
};
HS_API void hs_connect_options_init(struct hs_connect_options *o);

enum hs_attempt_phase {
    HS_ATTEMPT_SOCKET,
    HS_ATTEMPT_BIND,
    HS_ATTEMPT_CONNECT,
    HS_ATTEMPT_TLS,
    HS_ATTEMPT_DONE,
    HS_ATTEMPT_SKIPPED, /* not tried: the breaker refused */
};
struct hs_attempt {
    struct hs_addr addr;
    enum hs_attempt_phase phase; /* where it is or where it ended */
    int sys;                 /* errno, 0 while running, when it won, or when it was called off */
    enum hs_tls_failure tls; /* what its handshake failed of */
    int64_t started_ns, ended_ns; /* ended_ns 0 while running */
};

/* Looks up, races and connects under one op. Never blocks itself. Returns a new object. */
HS_API HS_NODISCARD hs_err hs_connector_new(const struct hs_endpoint *ep,
                                            const struct hs_connect_options *opts,
                                            struct hs_error *err, struct hs_connector **ret_cn);
/* Releases everything: open attempts are closed, lookups abandoned. NULL is fine; never blocks. */
HS_API void hs_connector_free(struct hs_connector *cn);
/* Drives it to the end: HS_OK with a connection, or an error. Not for two threads at once. */
HS_API HS_NODISCARD hs_err hs_connector_run(struct hs_connector *cn, struct hs_op *op,
                                            struct hs_error *err, struct hs_conn **ret_conn);
/* Only the lookup and the ordering: HS_OK when every answer is in. */
HS_API HS_NODISCARD hs_err hs_connector_resolve(struct hs_connector *cn, struct hs_op *op,
                                                struct hs_error *err);
/* borrows: cn, until the next call on it. */
HS_API const struct hs_attempt *hs_connector_attempts(struct hs_connector *cn, size_t *ret_n);
HS_API const struct hs_answer *hs_connector_answers(struct hs_connector *cn, size_t *ret_n);
/* After HS_E_BREAKER_OPEN: the refused address that is due first; else NULL. borrows: cn. */
HS_API const struct hs_addr *hs_connector_refused(struct hs_connector *cn);
/* What it was made for; borrowed. */
HS_API const struct hs_endpoint *hs_connector_endpoint(const struct hs_connector *cn);
/* The order in which addresses are or would be tried (RFC 8305 section 4). */
HS_API const struct hs_addr *hs_connector_plan(struct hs_connector *cn, size_t *ret_n);

/* ---- Listening ----------------------------------------------------------------------------- */

struct hs_listener;

/* TLS on a listener: accept returns connections whose handshake is done. */
struct hs_tls_listening {
    struct hs_tls_config *config; /* NULL: plain. The listener keeps a reference */
    int max_handshakes;           /* at the same time, 256; more wait in the backlog */
    int64_t handshakes_per_s;     /* how many may begin; 0: as many as come */
    /* While breaker is open for this listener, handshakes use fallback. What only a client can be
     * blamed for is not counted: but clients can refuse us as they like, so a fallback is what
     * anybody can bring about. Both NULL, or neither; the listener keeps references. */
    struct hs_breaker *breaker;
    struct hs_tls_config *fallback;
};

/* Addresses that begin with the same bits; AF_UNIX: every peer on a unix socket. */
struct hs_network {
    int family;
    unsigned prefix;  /* bits */
    uint8_t bits[16]; /* in network order; those beyond prefix do not count */
};

/* A header of the PROXY protocol, version 1 or 2, which every connection from these networks must
 * begin with, in front of TLS too; no other connection may. Then hs_conn_peer_addr is the client
 * that it names, and hs_conn_proxy_addr the proxy. A header that does not come within timeout_ns,
 * or is malformed, ends the connection, counted. */
struct hs_proxy_listening {
    const struct hs_network *from; /* borrows: copied */
    size_t n_from;                 /* 0: no such header */
    int64_t timeout_ns;            /* 5 s */
};

/* How much one stranger may take: an IPv4 address, or an IPv6 /64; and its neighbours: an IPv4 /24
 * or an IPv6 /48. What is over a limit is closed with a reset at once, and counted. Peers of unix
 * sockets are no strangers. Behind a believed proxy it is the client that counts. */
struct hs_peer_limits {
    int connections;         /* at the same time; 0: no limit, as below */
    int network_connections; /* the same, of a stranger and its neighbours together */
    int per_s;               /* new connections of a stranger in each second */
    int burst;               /* as many may come at once after a quiet time; 0: as per_s */
    int table_size;          /* strangers and networks remembered, about 64 bytes each: 16,384 */
    const struct hs_network *exempt; /* borrows: copied */
    size_t n_exempt;
};

struct hs_peer_stats {
    uint64_t refused_connections, refused_network, refused_rate; /* by the limit */
    uint64_t untracked; /* let in uncounted: all of the table had connections */
    uint64_t tracked;   /* entries in use now */
};

struct hs_listen_options {
    struct hs_sockopts sockopts; /* accepted connections inherit them */
    int backlog;                 /* 4096 */
    int unix_mode;               /* permission bits for a unix path, or HS_UNSET */
    bool unlink_stale;           /* replace a unix path that nobody listens on */
    struct hs_tls_listening tls;
    struct hs_proxy_listening proxy;
    struct hs_peer_limits peers;
};
HS_API void hs_listen_options_init(struct hs_listen_options *o);

struct hs_handshake_stats {
    uint64_t started, completed, in_progress;
    uint64_t silent;   /* of in_progress: of whom not a byte has come */
    uint64_t fallback; /* of started: with the fallback */
    uint64_t failed[HS_TLS_FAILURES];
};

struct hs_proxy_stats {
    uint64_t headers;   /* that named a client */
    uint64_t local;     /* of a proxy for itself: health checks */
    uint64_t malformed; /* connections cut: what came is no header */
    uint64_t timeout;   /* no whole header in time */
    uint64_t ended;     /* left, or reset, before that */
};

struct hs_listener_stats {
    uint64_t accepted;
    uint64_t shed;                        /* accepted and closed at once for want of descriptors */
    uint64_t exhausted;                   /* times that descriptors or memory had run out */
    uint64_t aborted;                     /* the peer left before accept */
    uint64_t network_errors;              /* pending errors of a new connection, accept(2) */
    uint64_t denied;                      /* EPERM, a packet filter */
    int backlog_asked, backlog_effective; /* effective HS_UNSET: the kernel does not say */
    int queue_length;                     /* waiting to be accepted now, or HS_UNSET */
    uint64_t unverified;                  /* accepted connections whose inherited options differ */
    bool tls;
    struct hs_handshake_stats handshakes;
    bool proxied;
    struct hs_proxy_stats proxy;
    bool peers_limited;
    struct hs_peer_stats peers;
};

/* ep must not be AF_UNSPEC (look names up first). Returns a new reference. */
HS_API HS_NODISCARD hs_err hs_listener_open(const struct hs_endpoint *ep,
                                            const struct hs_listen_options *opts,
                                            struct hs_error *err, struct hs_listener **ret_l);
/* Takes a listening stream socket, but not on failure. */
HS_API HS_NODISCARD hs_err hs_listener_adopt(int fd, const struct hs_listen_options *opts,
                                             struct hs_error *err, struct hs_listener **ret_l);
HS_API struct hs_listener *hs_listener_ref(struct hs_listener *l);
HS_API void hs_listener_unref(struct hs_listener *l); /* NULL is fine */
/* Accepts up to max connections: waits for the first, then takes what is there. Any number of
 * threads may accept at once. Each conns[i] is a new reference. */
HS_API HS_NODISCARD hs_err hs_listener_accept(struct hs_listener *l, struct hs_op *op, size_t max,
                                              struct hs_error *err, struct hs_conn **conns,
                                              size_t *ret_n);
HS_API void hs_listener_close(struct hs_listener *l); /* wakes acceptors; idempotent */
HS_API bool hs_listener_is_closed(struct hs_listener *l);
HS_API HS_NODISCARD hs_err hs_listener_detach(struct hs_listener *l, struct hs_error *err,
                                              int *ret_fd);
HS_API int hs_listener_fileno(struct hs_listener *l);
/* What is readable when hs_listener_accept may have something to do: with TLS not the socket. */
HS_API int hs_listener_wait_fileno(struct hs_listener *l);
HS_API HS_NODISCARD hs_err hs_listener_addr(struct hs_listener *l, struct hs_error *err,
                                            struct hs_addr *ret_addr);
HS_API void hs_listener_stats(struct hs_listener *l, struct hs_listener_stats *ret_stats);
HS_API HS_NODISCARD hs_err hs_listener_audit(struct hs_listener *l, struct hs_setting *settings,
                                             struct hs_error *err, size_t *ret_n);

/* ---- Pools --------------------------------------------------------------------------------- */

/* Connections to one endpoint, or to several that are equals, lent to one caller at a time.
 *
 * Every connection that a pool began is in one of these states, and it counts all of them:
 *     opened == idle + lent + dialing + closing + closed
 * Who has to wait is served in the order of arrival: whatever comes free is handed to the first who
 * still wants it. Nobody waits for a dial of their own: a thread of the library's, one per process,
 * dials, watches idle connections and closes old ones; a caller takes what is there first.
 *
 * In a forked child a pool is empty and dials for itself; leases of before are void. */
struct hs_pool;
struct hs_member; /* a place in a pool */

/* Why a connection was not lent again. X(name, text) */
#define HS_POOL_REASONS(X)                                                                         \
    X(NONE, "reusable")                                                                            \
    X(BROKEN, "broken")             /* poisoned, reset, ended, or closed underneath */             \
    X(HALF_READ, "half_read")       /* received bytes, or half a frame, were left unread */        \
    X(DIRTY, "dirty")               /* bytes went since it was last marked clean */                \
    X(BUSY, "busy")                 /* returned while a call or a file was using it */             \
    X(DISCARDED, "discarded")       /* the borrower said so, or closed it */                       \
    X(DETACHED, "detached")         /* the borrower took the descriptor */                         \
    X(LOST, "lost")                 /* the lease was thrown away, not returned */                  \
    X(PEER_CLOSED, "peer_closed")   /* the peer ended or reset it while it was idle */             \
    X(PEER_DEAD, "peer_dead")       /* its silence was found while it was idle */                  \
    X(UNSOLICITED, "unsolicited")   /* bytes came while it was idle */                             \
    X(CHECK_FAILED, "check_failed") /* the borrower's own check */                                 \
    X(PING_FAILED, "ping_failed")   /* no answer, or another than wanted, to a ping */             \
    X(IDLE_TIMEOUT, "idle_timeout") /* */                                                          \
    X(LIFETIME, "lifetime")         /* */                                                          \
    X(EVICTED, "evicted")           /* hs_pool_evict, hs_pool_drain */                             \
    X(SURPLUS, "surplus")           /* beyond max_idle, or beyond a max_size that shrank */        \
    X(POOL_CLOSED, "pool_closed")   /* */                                                          \
    X(DIAL_FAILED, "dial_failed")   /* never was a connection */                                   \
    X(DIAL_CALLED_OFF, "dial_called_off")

enum hs_pool_reason {
#define HS_POOL_REASON_ENUM(name, text) HS_POOL_##name,
    HS_POOL_REASONS(HS_POOL_REASON_ENUM)
#undef HS_POOL_REASON_ENUM
        HS_POOL_REASON_COUNT,
};
HS_API const char *hs_pool_reason_name(enum hs_pool_reason reason); /* "peer_closed", ... */

/* When a connection that was used may be lent again. */
enum hs_pool_reuse {
    HS_REUSE_MARKED,   /* when hs_lease_mark_clean was called after the last byte */
    HS_REUSE_ANSWERED, /* besides: when something was received after the last byte sent, and the
                        * borrower did not fail */
};

#define HS_PING_MAX 256

struct hs_pool_options {
    struct hs_connect_options connect;
    size_t max_size;          /* connections and dials together; 10 */
    size_t max_per_endpoint;  /* the same for each of several endpoints; 0: no limit of its own */
    size_t min_idle;          /* kept ready; 0 */
    size_t max_idle;          /* more are closed at their return; HS_POOL_UNLIMITED */
    size_t max_waiting;       /* more are refused with HS_E_LIMIT; HS_POOL_UNLIMITED */
    size_t max_dials;         /* at the same time; 4. A TLS handshake that takes longer than 250 ms
                               * is not counted: it may be waiting for a server that is stuck */
    int64_t dial_interval_ns; /* between the beginnings of two dials, on average; 0 */
    int64_t dial_timeout_ns;  /* of one dial, lookup and TLS included; 10 s */
    int64_t backoff_min_ns;   /* after a failed dial, doubling with each in a row; 50 ms */
    int64_t backoff_max_ns;   /* 5 s; the wait is a random half to all of it */
    int64_t idle_timeout_ns;  /* HS_NEVER: none; 60 s */
    int64_t max_lifetime_ns;  /* HS_NEVER: none; 30 min. Less a random part: */
    int lifetime_jitter;      /* percent; 10 */
    /* The kernel is asked before a connection is lent again. 0, the default: always. More: only if
     * it was idle for longer and is not watched yet; what came in that time is the borrower's. */
    int64_t probe_after_ns;
    int64_t overdue_after_ns; /* lent for longer: hs_pool_await_overdue tells; HS_NEVER */
    int64_t ping_after_ns;    /* idle for longer: pinged; HS_NEVER */
    int64_t ping_timeout_ns;  /* 5 s */
    uint8_t ping[HS_PING_MAX], pong[HS_PING_MAX]; /* what is sent, and exactly the answer to it */
    size_t ping_len, pong_len;
    enum hs_pool_reuse reuse;
    bool oldest_first;    /* lend the one that was idle longest; else the latest returned */
    bool keep_trying;     /* a failed dial does not end the waiting, even if nothing else is left */
    bool refuse_deadlock; /* waiting for oneself alone is HS_E_LIMIT at once */
};
#define HS_POOL_UNLIMITED SIZE_MAX

HS_API void hs_pool_options_init(struct hs_pool_options *o);
/* HS_E_INVALID for what contradicts itself or could never work; the message has both names. */
HS_API HS_NODISCARD hs_err hs_pool_options_check(const struct hs_pool_options *o,
                                                 struct hs_error *err);

/* n >= 1 endpoints, copied. Starts the thread that tends pools, if it does not run. Returns a new
 * reference; call hs_pool_close before you drop the last. */
HS_API HS_NODISCARD hs_err hs_pool_new(const struct hs_endpoint *endpoints, size_t n,
                                       const struct hs_pool_options *o, struct hs_error *err,
                                       struct hs_pool **ret_pool);
HS_API struct hs_pool *hs_pool_ref(struct hs_pool *p);
HS_API void hs_pool_unref(struct hs_pool *p); /* NULL is fine */

/* Who borrows, for the ledger; opaque numbers to the core. code and at name a place in the caller's
 * program, and the one who passes code keeps it alive: see hs_pool_know_site. */
struct hs_holder {
    uint64_t thread;
    uint64_t task; /* 0: the thread itself */
    const void *code;
    int at;
};

/* A connection that is lent. Valid until it is returned, discarded or lost, which zeroes it; keep a
 * reference to the pool as long. */
struct hs_lease {
    struct hs_pool *pool;     /* borrows */
    struct hs_member *member; /* borrows: the pool's */
    struct hs_conn *conn;     /* borrows: the pool's; take a reference to use it after the return */
    uint64_t id;              /* never used again; 0: no lease */
    uint64_t times_lent;      /* this one included: 1 when the connection is new */
    int64_t idle_ns;          /* how long it had been idle */
};

/* What is known of a dial of a pool's that failed, beside its error: as a connector tells. */
struct hs_dial_failure;
HS_API struct hs_dial_failure *hs_dial_failure_ref(struct hs_dial_failure *f);
HS_API void hs_dial_failure_unref(struct hs_dial_failure *f); /* NULL is fine */
/* borrows: f. Times are hs_now's; *ret_began_ns: when the dial began. */
HS_API const struct hs_attempt *hs_dial_failure_attempts(const struct hs_dial_failure *f,
                                                         size_t *ret_n, int64_t *ret_began_ns);
/* What was dialled, as it was asked for; "": no memory. */
HS_API const char *hs_dial_failure_host(const struct hs_dial_failure *f);
HS_API const struct hs_addr *hs_dial_failure_refused(const struct hs_dial_failure *f);

/* A call of hs_pool_acquire in progress; zero it, but for the holder. */
struct hs_request {
    struct hs_holder holder;
    struct hs_dial_failure
        *failure; /* owns: of the dial whose error it got; the caller unrefs it */
    void *waiter; /* belongs to the pool, as the rest */
    int64_t since_ns;
    uint64_t ticket; /* its place in the order of arrival; 0: it has not stood in the queue */
};

/* What is idle and well, without an allocation, waiting, or a look at deadlines and tokens: HS_OK,
 * or HS_WANT: hs_pool_acquire will find out. The kernel is asked: see probe_after_ns. */
HS_API HS_NODISCARD hs_err hs_pool_try_acquire(struct hs_pool *p, const struct hs_holder *holder,
                                               struct hs_lease *ret_lease);
/* Waits for a connection. HS_E_DEADLINE, HS_E_CANCELLED: nothing was lent, nobody's place in the
 * queue is lost. HS_E_CLOSED; HS_E_LIMIT: max_waiting, or a deadlock that was to be refused; any
 * error of a dial, when that failed and nothing else could serve this caller. A stepped op needs a
 * waiter: what it waits for has no descriptor. A caller that gives up after HS_INTR or HS_WANT
 * frees or unparks the waiter, and calls hs_pool_abandon. */
HS_API HS_NODISCARD hs_err hs_pool_acquire(struct hs_pool *p, struct hs_op *op,
                                           struct hs_request *request, struct hs_error *err,
                                           struct hs_lease *ret_lease);
HS_API void hs_pool_abandon(struct hs_pool *p, struct hs_request *request);

/* How the borrower leaves the connection. */
enum hs_return {
    HS_RETURN_DONE,      /* lend it again if its state allows */
    HS_RETURN_FAILED,    /* in the middle of something, unless it is marked clean */
    HS_RETURN_UNTOUCHED, /* not even looked at: lend it again, and count no use */
    HS_RETURN_DISCARD,   /* close it */
    HS_RETURN_CHECK,     /* close it: a check of the borrower's failed */
    HS_RETURN_DETACHED,  /* the borrower has taken the descriptor (hs_conn_detach) */
};
/* Ends the lease. Never blocks. *ret_reason (may be NULL) says why it is not lent again. *ret_late
 * (may be NULL): it had been reported as overdue. HS_E_INVALID, changing nothing: it is another
 * pool's lease, or was returned before. */
HS_API HS_NODISCARD hs_err hs_pool_release(struct hs_pool *p, struct hs_lease *lease,
                                           enum hs_return how, struct hs_error *err,
                                           enum hs_pool_reason *ret_reason, bool *ret_late);
/* For finalizers: the lease was thrown away. Takes no lock of the pool's, does not close by itself;
 * the connection is closed soon, never lent again, and counted by site. */
HS_API void hs_pool_lose(struct hs_lease *lease);
/* The exchange is complete: what follows belongs to nobody. From the borrower. */
HS_API void hs_lease_mark_clean(const struct hs_lease *lease);

struct hs_lease_info {
    uint64_t bytes_sent, bytes_received; /* since it was lent */
    bool reused;
    bool clean;         /* nothing went since it was lent, or since it was marked clean */
    bool retry_is_safe; /* reused, and nothing was sent: the peer's having left is nobody's fault */
};
HS_API void hs_lease_info(const struct hs_lease *lease, struct hs_lease_info *ret_info);

/* Idle connections are closed, lent ones when they are returned. */
HS_API void hs_pool_evict(struct hs_pool *p);
/* The same, and waits until all that were open then are closed. */
HS_API HS_NODISCARD hs_err hs_pool_drain(struct hs_pool *p, struct hs_op *op, struct hs_error *err);
/* A smaller size closes idle connections, and lent ones when they are returned. */
HS_API HS_NODISCARD hs_err hs_pool_resize(struct hs_pool *p, size_t max_size, struct hs_error *err);
/* Refuses callers, wakes those who wait (HS_E_CLOSED), calls off dials, closes what is idle; what
 * is lent is closed when it is returned. Idempotent, never blocks. */
HS_API void hs_pool_close(struct hs_pool *p);
HS_API bool hs_pool_is_closed(struct hs_pool *p);
/* Waits until a closed pool has nothing open: HS_OK; HS_E_DEADLINE: hs_pool_lent says who is late.
 */
HS_API HS_NODISCARD hs_err hs_pool_await_closed(struct hs_pool *p, struct hs_op *op,
                                                struct hs_error *err);
/* Closes the descriptors of all that is lent, under the borrowers' hands: their calls wake with
 * HS_E_CLOSED. The leases stay until they are returned. */
HS_API void hs_pool_abort_lent(struct hs_pool *p);

/* Counts again, one by one, all that is counted on the way: HS_OK, or HS_E_INVALID and what does
 * not agree. */
HS_API HS_NODISCARD hs_err hs_pool_verify(struct hs_pool *p, struct hs_error *err);

/* Durations are also counted by fixed edges, which are the same everywhere. */
#define HS_EDGES 22
/* The longest duration that is counted in the bucket; HS_NEVER for the last one, HS_EDGES. */
HS_API int64_t hs_edge_ns(size_t bucket);

/* Durations: four buckets for each power of two of nanoseconds. */
#define HS_HISTOGRAM_BUCKETS 192
struct hs_histogram {
    uint64_t count, sum_ns, max_ns;
    uint64_t buckets[HS_HISTOGRAM_BUCKETS];
    uint64_t edges[HS_EDGES + 1]; /* the same again, by hs_edge_ns */
};
HS_API size_t hs_histogram_bucket(int64_t ns);
/* The first duration beyond the bucket. */
HS_API int64_t hs_histogram_bound(size_t bucket);

struct hs_pool_stats {
    size_t max_size, idle, lent, dialing, closing, waiting; /* now */
    size_t handshaking;     /* of dialing: connected, and in the TLS handshake */
    int64_t handshaking_ns; /* for how long, the longest */
    uint64_t opened;        /* dials begun */
    uint64_t connected;     /* dials that succeeded */
    uint64_t closed;
    uint64_t closed_by_reason[HS_POOL_REASON_COUNT];
    uint64_t acquired;        /* calls that got a connection */
    uint64_t acquired_waited; /* of these: not at once */
    uint64_t handed_over;     /* of these: right from the hands of another, or of a dial */
    uint64_t timeouts, cancelled, refused, failed; /* calls that got none: by deadline, by token,
                                                    * by a limit, by a dial's error or the end */
    uint64_t expired_skipped; /* times that a waiter out of time was passed over */
    uint64_t returned;
    uint64_t probes;  /* the kernel was asked before lending */
    uint64_t overdue; /* lent for too long */
    uint64_t returned_late;
    struct hs_histogram wait;   /* all calls, those that got none included */
    struct hs_histogram dial;   /* all dials, failed ones included */
    struct hs_histogram usage;  /* all leases that have ended */
    struct hs_error dial_error; /* the last one; code HS_OK: none yet */
    int64_t dial_error_age_ns;
    unsigned dial_failures; /* in a row, of the endpoint that has most of them */
};
HS_API void hs_pool_stats(struct hs_pool *p, struct hs_pool_stats *ret_stats);

struct hs_lent {
    struct hs_holder holder;
    uint64_t id, times_lent;
    int64_t age_ns; /* goes on while the machine is suspended */
    uint64_t bytes_sent, bytes_received;
    size_t endpoint;
    int fd; /* or -1 */
    bool overdue;
};
/* The longest lent first; returns how many there are, of which it writes at most n. */
HS_API size_t hs_pool_lent(struct hs_pool *p, struct hs_lent *lent, size_t n);

/* ---- Advice -------------------------------------------------------------------------------- */

/* One sentence of advice from measured state for a failed call, or "". peer and endpoint may be
 * NULL. May read /proc and ask sock_diag; never waits for the network. */
HS_API const char *hs_hint(const struct hs_error *err, int sys, const struct hs_addr *peer,
                           char *buf, size_t size);
/* The same for a call on a connection that ran into its deadline: what the kernel knows of the
 * peer; empty for every other error. */
HS_API const char *hs_conn_hint(struct hs_conn *c, const struct hs_error *err, char *buf,
                                size_t size);

/* ---- Faults on demand ---------------------------------------------------------------------- */

/* From now on calls of this library, in the whole process, fail as spec says: for example
 * "seed=7,recv.short=0.2,send.reset@120"; docs/faults.md has the words. Plans lie one on the other,
 * 8 deep; the last one is in force, and its calls are numbered from 1 on. HS_E_INVALID names the
 * part that is wrong; HS_E_LIMIT. */
HS_API HS_NODISCARD hs_err hs_faults_begin(const char *spec, struct hs_error *err,
                                           uint64_t *ret_id);
/* Ends that plan; the one that is last then goes on where it was. Another id: nothing. */
HS_API void hs_faults_end(uint64_t id);
/* How many faults there have been in this process. */
HS_API uint64_t hs_faults_logged(void);
/* The nth of them, from 1 on, as a part of a spec that does it again: "send.reset@120". NULL:
 * there is none, more than the last HS_FAULTS_LOGGED came after it, or its thread is about to
 * write it. */
#define HS_FAULTS_LOGGED 4096
HS_API const char *hs_faults_log(uint64_t nth, char *buf, size_t size);

#ifdef __cplusplus
}
#endif
#endif
