/* server.c: sends each line back to whom it came from, one client at a time, until SIGTERM.
 *
 * cc server.c $(pkg-config --cflags --libs hardsock) && ./a.out 127.0.0.1:0
 * A client that sends nothing, or drips bytes, has ten seconds for a line.
 */
#include <hardsock.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define LINE_NS INT64_C(10000000000)

/* Cancelling is no business of a signal handler's; a signal makes calls return HS_INTR, and the
 * program looks at this. */
static volatile sig_atomic_t stopped;

#define RUN(rv, call)                                                                              \
    do                                                                                             \
        (rv) = (call);                                                                             \
    while ((rv) == HS_INTR && !stopped)

static void
stop(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

static hs_err
fail(const struct hs_error *err)
{
    (void)fprintf(stderr, "%s: %s\n", hs_err_text(err->code), err->msg);
    return err->code;
}

/* One line there and back. HS_E_END: the client has ended between two lines. */
static hs_err
serve_line(struct hs_conn *conn, const struct hs_framing *lines, struct hs_error *err)
{
    struct hs_op receiving = HS_OP_INIT(hs_deadline_after(LINE_NS), NULL);
    struct hs_op sending = HS_OP_INIT(hs_deadline_after(LINE_NS), NULL);
    const uint8_t *line;
    size_t len;
    hs_err rv;

    RUN(rv, hs_conn_recv_frames(conn, &receiving, lines, err));
    if (rv != HS_OK) {
        hs_conn_abandon(conn, &receiving, NULL); /* After HS_INTR; nothing to do after an error. */
        return rv;
    }
    if (hs_conn_frame(conn, lines, &line, &len)) {
        RUN(rv, hs_conn_send_all(conn, &sending, line, len, err));
        if (rv == HS_INTR)
            hs_conn_abandon(conn, &sending, NULL);
        hs_conn_frame_taken(conn);
    }
    hs_conn_frames_end(conn, &receiving);
    return rv;
}

static void
serve(struct hs_conn *conn, const struct hs_framing *lines)
{
    struct hs_op ending = HS_OP_INIT(hs_deadline_after(LINE_NS), NULL);
    struct hs_error err = {0};
    struct hs_close_report report;
    hs_err rv;

    while ((rv = serve_line(conn, lines, &err)) == HS_OK)
        continue;
    if (rv == HS_E_END) {
        memset(&err, 0, sizeof(err));
        RUN(rv, hs_conn_finish(conn, &ending, &err, &report));
    }
    if (rv < 0)
        (void)fail(&err);
    hs_conn_unref(conn);
}

static hs_err
listen_on(const char *where, struct hs_error *err, struct hs_listener **ret_listener)
{
    struct hs_listen_options options;
    struct hs_endpoint endpoint;
    char text[HS_ADDR_TEXT_SIZE];
    struct hs_addr bound;
    hs_err rv;

    hs_listen_options_init(&options);
    if ((rv = hs_endpoint_parse(where, strlen(where), err, &endpoint)) != HS_OK ||
        (rv = hs_listener_open(&endpoint, &options, err, ret_listener)) != HS_OK)
        return rv;
    if ((rv = hs_listener_addr(*ret_listener, err, &bound)) == HS_OK) {
        (void)printf("%s\n", hs_addr_text(&bound, text, sizeof(text)));
        (void)fflush(stdout);
    }
    return rv;
}

int
main(int argc, char **argv)
{
    struct hs_framing lines = {
        .kind = HS_FRAMING_LINE, .ending = HS_LINE_LF, .max_size = 4096, .keep = true};
    struct sigaction action = {.sa_handler = stop};
    struct hs_listener *listener;
    struct hs_error err = {0};
    hs_err rv;

    if (argc != 2) {
        (void)fprintf(stderr, "usage: server ADDRESS:PORT\n");
        return 2;
    }
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    if (hs_framing_check(&lines, &err) != HS_OK || listen_on(argv[1], &err, &listener) != HS_OK)
        return fail(&err) != HS_OK;
    do {
        struct hs_op op = HS_OP_INIT(HS_NEVER, NULL);
        struct hs_conn *conn;
        size_t n;

        RUN(rv, hs_listener_accept(listener, &op, 1, &err, &conn, &n));
        if (rv == HS_OK)
            serve(conn, &lines);
    } while (rv == HS_OK && !stopped);
    hs_listener_close(listener);
    hs_listener_unref(listener);
    return rv < 0 ? fail(&err) != HS_OK : 0;
}
