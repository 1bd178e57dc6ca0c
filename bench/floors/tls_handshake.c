/* tls_handshake.c: the floor of works "tls_handshake*" and "tls_resume*": connect, shake hands,
 * receive the byte that says how, close with a close_notify; again.
 *
 * Variants: "full"; "resumed", which uses the newest session that the server gave, once.
 */
#define _GNU_SOURCE
#include "tls_worker.h"

static SSL_SESSION *newest; /* owns */

static int
keep_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(newest);
    newest = session;
    return 1;
}

static void
operation(SSL_CTX *ctx, const struct sockaddr_in *sin, char want)
{
    int64_t deadline = now_ns() + FIVE_SECONDS;
    SSL_SESSION *session = newest;
    char got;
    newest = NULL;
    SSL *ssl = connect_tls(ctx, sin, session, deadline);
    if (recv_tls(ssl, &got, 1, deadline) != 1 || (want != 0 && got != want))
        die_of_tls("not the handshake that was wanted");
    SSL_SESSION_free(session);
    close_tls(ssl);
}

int
main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int resumed = strcmp(argv[1], "resumed") == 0;
    struct sockaddr_in sin = parse_target(argv[2], argv[3]);
    SSL_CTX *ctx = client_context();
    double seconds;
    long count;

    if (resumed) {
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(ctx, keep_session);
    }
    say_ready();
    while (next_command(&seconds, &count)) {
        if (resumed)
            operation(ctx, &sin, 0);
        struct slice slice = begin_slice(seconds);
        do {
            for (int i = 0; i < OPS_PER_CLOCK_READ; i++)
                operation(ctx, &sin, resumed ? 'r' : 'f');
        } while (goes_on(&slice, OPS_PER_CLOCK_READ));
        say_slice(&slice);
    }
    return 0;
}
