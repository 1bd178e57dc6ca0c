/* ping.c: asking an idle connection's server whether it still answers.
 *
 * A request and exactly the answer to it, given as bytes: the pool worker knows no protocols, and
 * no Python. Meanwhile the connection is TENDED: nobody can be lent it. One that does not answer in
 * time, or something else, is closed.
 */
#include "worker.h"

#include "../base/sys.h"

#include <stdlib.h>
#include <string.h>

struct ping {
    struct task task;
    struct hs_member *m;
    bool sent;
    uint8_t answer[HS_PING_MAX];
};

static void
ping_end(struct ping *ping, bool well)
{
    struct hs_pool *p = ping->task.pool;
    struct hs_member *m = ping->m;
    struct deferred d = {0};
    int64_t boot_now = hs_boot_now();

    hs_task_end(&ping->task);
    free(ping);
    well = well && hs_conn_leftover(m->conn) == HS_LEFT_NOTHING;
    hs_lock_take(&p->lock);
    if (well) {
        m->pinged_boot = boot_now;
        p->scan_boot = 0; /* It was not in the list. */
        (void)hs_pool_offer_locked(p, m, m->since_boot, boot_now, &d);
    } else {
        hs_pool_retire_locked(p, m, p->closed ? HS_POOL_POOL_CLOSED : HS_POOL_PING_FAILED, &d);
    }
    hs_pool_leave(p, &d);
}

static hs_err
ping_step(struct task *task)
{
    struct ping *ping = (struct ping *)(void *)task;
    const struct hs_pool_options *o = &task->pool->o;
    struct hs_conn *conn = ping->m->conn;
    hs_err rv;

    if (!ping->sent) {
        rv = hs_conn_send_all(conn, &task->op, o->ping, o->ping_len, NULL);
        if (rv != HS_OK)
            goto out;
        ping->sent = true;
        hs_loop_waiter_unpark(task->loop_waiter);
        task->op.done = 0;
    }
    rv = hs_conn_recv_exactly(conn, &task->op, ping->answer, o->pong_len, NULL);
out:
    if (rv == HS_WANT || rv == HS_INTR)
        return rv;
    ping_end(ping, rv == HS_OK && memcmp(ping->answer, o->pong, o->pong_len) == 0);
    return HS_OK;
}

static void
ping_call_off(struct task *task, const struct hs_error *err)
{
    struct ping *ping = (struct ping *)(void *)task;

    (void)err;
    hs_conn_abandon(ping->m->conn, &task->op, ping->sent ? ping->answer : NULL);
    ping_end(ping, false);
}

static void
ping_forget(struct task *task)
{
    hs_task_end(task);
    free(task);
}

void
hs_ping_begin(struct hs_pool *p, struct hs_member *m, struct worker *k)
{
    struct ping *ping = hs_sys_calloc(1, sizeof(*ping));
    struct deferred d = {0};

    if (ping != NULL) {
        ping->m = m;
        ping->task.op = (struct hs_op)HS_OP_INIT(hs_deadline_after(p->o.ping_timeout_ns), NULL);
        ping->task.step = ping_step;
        ping->task.call_off = ping_call_off;
        ping->task.forget = ping_forget;
        if (hs_task_begin(k, &ping->task, p, NULL) == HS_OK)
            return;
        free(ping);
    }
    hs_lock_take(&p->lock);
    (void)hs_pool_offer_locked(p, m, m->since_boot, hs_boot_now(), &d);
    hs_pool_leave(p, &d);
}
