/* client.c: sends a line, prints the line that comes back; lookup, connect and both in 5 seconds.
 *
 * cc client.c $(pkg-config --cflags --libs hardsock) && ./a.out example.org:7 "hello"
 */
#include <hardsock.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hs_err
fail(const struct hs_error *err)
{
    (void)fprintf(stderr, "%s (%s): %s\n", hs_err_text(err->code),
                  err->op != NULL ? err->op : "client", err->msg);
    return err->code;
}

static hs_err
open_connection(const char *where, int64_t deadline, struct hs_error *err,
                struct hs_conn **ret_conn)
{
    struct hs_op op = HS_OP_INIT(deadline, NULL);
    struct hs_connect_options options;
    struct hs_connector *connector;
    struct hs_endpoint endpoint;
    hs_err rv;

    hs_connect_options_init(&options);
    if ((rv = hs_endpoint_parse(where, strlen(where), err, &endpoint)) != HS_OK ||
        (rv = hs_connector_new(&endpoint, &options, err, &connector)) != HS_OK)
        return rv;
    HS_RUN(rv, hs_connector_run(connector, &op, err, ret_conn));
    hs_connector_free(connector);
    return rv;
}

static hs_err
ask(struct hs_conn *conn, const char *line, int64_t deadline, struct hs_error *err)
{
    struct hs_framing lines = {
        .kind = HS_FRAMING_LINE, .ending = HS_LINE_LF, .max_size = 4096, .keep = true};
    struct iovec pieces[] = {{.iov_base = (void *)line, .iov_len = strlen(line)},
                             {.iov_base = "\n", .iov_len = 1}};
    struct hs_op sending = HS_OP_INIT(deadline, NULL), receiving = HS_OP_INIT(deadline, NULL);
    const uint8_t *answer;
    size_t len;
    hs_err rv;

    if ((rv = hs_framing_check(&lines, err)) != HS_OK)
        return rv;
    HS_RUN(rv, hs_conn_sendv(conn, &sending, pieces, 2, true, err));
    if (rv != HS_OK)
        return rv;
    HS_RUN(rv, hs_conn_recv_frames(conn, &receiving, &lines, err));
    if (rv != HS_OK)
        return rv;
    if (hs_conn_frame(conn, &lines, &answer, &len)) {
        (void)fwrite(answer, 1, len, stdout); /* Borrowed: gone with hs_conn_frame_taken. */
        hs_conn_frame_taken(conn);
    }
    hs_conn_frames_end(conn, &receiving);
    return HS_OK;
}

int
main(int argc, char **argv)
{
    int64_t deadline = hs_deadline_after(INT64_C(5000000000));
    struct hs_op ending = HS_OP_INIT(deadline, NULL);
    struct hs_error err = {0};
    struct hs_close_report report;
    struct hs_conn *conn;
    hs_err rv;

    if (argc != 3) {
        (void)fprintf(stderr, "usage: client HOST:PORT LINE\n");
        return 2;
    }
    if (open_connection(argv[1], deadline, &err, &conn) != HS_OK)
        return fail(&err) != HS_OK;
    rv = ask(conn, argv[2], deadline, &err);
    if (rv == HS_OK) /* The orderly end, which says whether all of ours has arrived. */
        HS_RUN(rv, hs_conn_finish(conn, &ending, &err, &report));
    hs_conn_unref(conn);
    return rv == HS_OK ? report.ending != HS_ENDING_CLEAN : fail(&err) != HS_OK;
}
