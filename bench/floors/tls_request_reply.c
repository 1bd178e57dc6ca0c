/* tls_request_reply.c: the floor of work "tls_request_reply".
 *
 * 64 bytes there and back, again and again.
 */
#define _GNU_SOURCE
#include "tls_worker.h"

#define MESSAGE 64

int
main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    struct sockaddr_in sin = parse_target(argv[2], argv[3]);
    SSL_CTX *ctx = client_context();
    char request[MESSAGE], reply[MESSAGE];
    memset(request, 'x', sizeof request);
    double seconds;
    long count;

    say_ready();
    while (next_command(&seconds, &count)) {
        SSL *ssl = connect_tls(ctx, &sin, NULL, now_ns() + FIVE_SECONDS);
        struct slice slice = begin_slice(seconds);
        do {
            for (int i = 0; i < OPS_PER_CLOCK_READ; i++) {
                int64_t deadline = now_ns() + FIVE_SECONDS;
                send_tls(ssl, request, sizeof request, deadline);
                for (size_t n = 0; n < sizeof reply;)
                    n += recv_tls(ssl, reply + n, sizeof reply - n, deadline);
            }
        } while (goes_on(&slice, OPS_PER_CLOCK_READ));
        say_slice(&slice);
        close_tls(ssl);
    }
    return 0;
}
