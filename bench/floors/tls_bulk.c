/* tls_bulk.c: the floor of works "tls_receive*" and "tls_send*": a mebibyte in calls of 256 KiB.
 *
 * Variants: "receive" and "send". What was received and is not decrypted yet may be several
 * records.
 */
#define _GNU_SOURCE
#include "tls_worker.h"

#define CALL ((size_t)256 * 1024)
#define MEBIBYTE ((size_t)1024 * 1024)
#define READ_BUFFER ((size_t)64 * 1024)

static char buf[CALL];

/* What is received beyond a mebibyte counts for the next one. */
static void
receive_mebibyte(SSL *ssl, size_t *have)
{
    while (*have < MEBIBYTE)
        *have += recv_tls(ssl, buf, sizeof buf, now_ns() + FIVE_SECONDS);
    *have -= MEBIBYTE;
}

static void
send_mebibyte(SSL *ssl)
{
    for (size_t done = 0; done < MEBIBYTE; done += sizeof buf)
        send_tls(ssl, buf, sizeof buf, now_ns() + FIVE_SECONDS);
}

int
main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int sends = strcmp(argv[1], "send") == 0;
    struct sockaddr_in sin = parse_target(argv[2], argv[3]);
    SSL_CTX *ctx = client_context();
    double seconds;
    long count;

    SSL_CTX_set_default_read_buffer_len(ctx, READ_BUFFER);
    memset(buf, 'x', sizeof buf); /* untouched, all of it would be the kernel's one page of zeros */
    say_ready();
    while (next_command(&seconds, &count)) {
        SSL *ssl = connect_tls(ctx, &sin, NULL, now_ns() + FIVE_SECONDS);
        size_t have = 0;
        struct slice slice = begin_slice(seconds);
        do {
            if (sends)
                send_mebibyte(ssl);
            else
                receive_mebibyte(ssl, &have);
        } while (goes_on(&slice, 1));
        say_slice(&slice);
        close_tls(ssl);
    }
    return 0;
}
