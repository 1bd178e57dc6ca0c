/* tls_idle.c: the floor of work "tls_idle_memory": connections to a server that are opened, used
 * once and kept, with no buffer of OpenSSL's left.
 */
#define _GNU_SOURCE
#include "memory.h"
#include "tls_worker.h"

#define MESSAGE 64

static void
open_one(SSL_CTX *ctx, const struct sockaddr_in *sin)
{
    char message[MESSAGE] = {0};
    int64_t deadline = now_ns() + FIVE_SECONDS;
    SSL *ssl = connect_tls(ctx, sin, NULL, deadline);

    send_tls(ssl, message, sizeof message, deadline);
    for (size_t n = 0; n < sizeof message;)
        n += recv_tls(ssl, message + n, sizeof message - n, deadline);
    /* Taking a ticket in allocates a buffer for writing, in spite of SSL_MODE_RELEASE_BUFFERS. */
    if (!SSL_free_buffers(ssl))
        die_of_tls("SSL_free_buffers");
} /* kept to the end of the process */

int
main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    struct sockaddr_in sin = parse_target(argv[2], argv[3]);
    SSL_CTX *ctx = client_context();
    double seconds;
    long count, before = 0;

    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    say_ready();
    while (next_command(&seconds, &count)) {
        count = allowed_connections(count);
        for (long i = 0; i < count; i++) {
            if (i == MEMORY_WARM_UP)
                before = anonymous_bytes();
            open_one(ctx, &sin);
        }
        say_memory(count - MEMORY_WARM_UP, anonymous_bytes() - before);
    }
    return 0;
}
