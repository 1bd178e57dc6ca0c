/* untouched.c: in every torture program, no call writes an output parameter and then fails.
 *
 * Each function of the public header with ret_ parameters is wrapped, for the tests and for what
 * the core calls of itself in another file. Before the call what they point to is poisoned. If the
 * call does not end well the poison must still be there, and what was there before is put back: so
 * the rule costs the tests nothing, and all that inject.c makes fail is under it. A lease that a
 * failed call had left has ended processes once.
 *
 * tools/check_header.py sees to it that the list is complete.
 */
#include "hardsock_binding.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POISON 0xa5

static void
poison(void *target, void *saved, size_t size)
{
    if (target == NULL)
        return;
    memcpy(saved, target, size);
    memset(target, POISON, size);
}

static void
check(const char *name, hs_err rv, void *target, const void *saved, size_t size)
{
    const unsigned char *bytes = target;

    if (target == NULL || rv == HS_OK)
        return;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != POISON) {
            (void)fprintf(stderr, "%s failed with \"%s\" and wrote an output parameter\n",
                          name + sizeof("__wrap_") - 1, hs_err_text(rv));
            abort();
        }
    memcpy(target, saved, size);
}

/* a and b: the output parameters, twice the same if there is one. */
#define GUARD(wrap, real, params, args, a, b)                                                      \
    hs_err real params;                                                                            \
    hs_err wrap params;                                                                            \
    hs_err wrap params                                                                             \
    {                                                                                              \
        unsigned char saved_a[sizeof(*a)], saved_b[sizeof(*b)];                                    \
        void *second = (void *)b == (void *)a ? NULL : b;                                          \
        hs_err rv;                                                                                 \
                                                                                                   \
        poison(a, saved_a, sizeof(*a));                                                            \
        poison(second, saved_b, sizeof(*b));                                                       \
        rv = real args;                                                                            \
        check(#wrap, rv, a, saved_a, sizeof(*a));                                                  \
        check(#wrap, rv, second, saved_b, sizeof(*b));                                             \
        return rv;                                                                                 \
    }

GUARD(__wrap_hs_token_new, __real_hs_token_new,
      (struct hs_token *const *parents, size_t nparents, int64_t deadline_ns, const char *name,
       struct hs_error *err, struct hs_token **ret_token),
      (parents, nparents, deadline_ns, name, err, ret_token), ret_token, ret_token)
GUARD(__wrap_hs_token_on_cancel, __real_hs_token_on_cancel,
      (struct hs_token * t, void (*fn)(void *arg), void (*release)(void *arg), void *arg,
       struct hs_error *err, struct hs_callback **ret_callback),
      (t, fn, release, arg, err, ret_callback), ret_callback, ret_callback)
GUARD(__wrap_hs_token_fileno, __real_hs_token_fileno,
      (struct hs_token * t, struct hs_error *err, int *ret_fd), (t, err, ret_fd), ret_fd, ret_fd)
GUARD(__wrap_hs_loop_new, __real_hs_loop_new, (struct hs_error * err, struct hs_loop **ret_loop),
      (err, ret_loop), ret_loop, ret_loop)
GUARD(__wrap_hs_loop_waiter_new, __real_hs_loop_waiter_new,
      (struct hs_loop * loop, void *arg, struct hs_error *err, struct hs_loop_waiter **ret_waiter),
      (loop, arg, err, ret_waiter), ret_waiter, ret_waiter)
GUARD(__wrap_hs_endpoint_parse, __real_hs_endpoint_parse,
      (const char *text, size_t len, struct hs_error *err, struct hs_endpoint *ret_endpoint),
      (text, len, err, ret_endpoint), ret_endpoint, ret_endpoint)
GUARD(__wrap_hs_endpoint_from_host, __real_hs_endpoint_from_host,
      (const char *host, size_t len, long port, struct hs_error *err,
       struct hs_endpoint *ret_endpoint),
      (host, len, port, err, ret_endpoint), ret_endpoint, ret_endpoint)
GUARD(__wrap_hs_endpoint_from_path, __real_hs_endpoint_from_path,
      (const char *path, size_t len, struct hs_error *err, struct hs_endpoint *ret_endpoint),
      (path, len, err, ret_endpoint), ret_endpoint, ret_endpoint)
GUARD(__wrap_hs_framing_header, __real_hs_framing_header,
      (const struct hs_framing *f, size_t payload_len, size_t head_len, struct hs_error *err,
       uint8_t out[HS_FRAME_HEADER_MAX], size_t *ret_n),
      (f, payload_len, head_len, err, out, ret_n), ret_n, ret_n)
GUARD(__wrap_hs_decoder_new, __real_hs_decoder_new,
      (const struct hs_framing *f, struct hs_error *err, struct hs_decoder **ret_decoder),
      (f, err, ret_decoder), ret_decoder, ret_decoder)
GUARD(__wrap_hs_decoder_next, __real_hs_decoder_next,
      (struct hs_decoder * d, struct hs_error *err, const uint8_t **ret_data, size_t *ret_len),
      (d, err, ret_data, ret_len), ret_data, ret_len)
GUARD(__wrap_hs_tls_config_new, __real_hs_tls_config_new,
      (const struct hs_tls_options *o, struct hs_error *err, struct hs_tls_config **ret_config),
      (o, err, ret_config), ret_config, ret_config)
GUARD(__wrap_hs_tls_certificate_read, __real_hs_tls_certificate_read,
      (const uint8_t *der, size_t len, struct hs_error *err, struct hs_tls_certificate *ret_cert),
      (der, len, err, ret_cert), ret_cert, ret_cert)
GUARD(__wrap_hs_conn_adopt, __real_hs_conn_adopt,
      (int fd, const struct hs_sockopts *opts, struct hs_error *err, struct hs_conn **ret_conn),
      (fd, opts, err, ret_conn), ret_conn, ret_conn)
GUARD(__wrap_hs_conn_recv, __real_hs_conn_recv,
      (struct hs_conn * c, struct hs_op *op, uint8_t *buf, size_t len, int flags,
       struct hs_error *err, size_t *ret_n),
      (c, op, buf, len, flags, err, ret_n), ret_n, ret_n)
GUARD(__wrap_hs_conn_read, __real_hs_conn_read,
      (struct hs_conn * c, struct hs_op *op, uint8_t *buf, size_t len, struct hs_error *err,
       size_t *ret_n),
      (c, op, buf, len, err, ret_n), ret_n, ret_n)
GUARD(__wrap_hs_token_wait_for, __real_hs_token_wait_for,
      (const struct hs_op *op, int fd, short events, struct hs_error *err, short *ret_ready),
      (op, fd, events, err, ret_ready), ret_ready, ret_ready)
GUARD(__wrap_hs_conn_send, __real_hs_conn_send,
      (struct hs_conn * c, struct hs_op *op, const uint8_t *buf, size_t len, struct hs_error *err,
       size_t *ret_n),
      (c, op, buf, len, err, ret_n), ret_n, ret_n)
GUARD(__wrap_hs_conn_recvmsg, __real_hs_conn_recvmsg,
      (struct hs_conn * c, struct hs_op *op, struct msghdr *msg, int flags, struct hs_error *err,
       size_t *ret_n),
      (c, op, msg, flags, err, ret_n), ret_n, ret_n)
GUARD(__wrap_hs_conn_tls_chain_copy, __real_hs_conn_tls_chain_copy,
      (struct hs_conn * c, size_t i, uint8_t **ret_der, size_t *ret_len), (c, i, ret_der, ret_len),
      ret_der, ret_len)
GUARD(__wrap_hs_foreign_list, __real_hs_foreign_list,
      (struct hs_error * err, struct hs_foreign **ret_rows, size_t *ret_n), (err, ret_rows, ret_n),
      ret_rows, ret_n)
GUARD(__wrap_hs_foreign_retire, __real_hs_foreign_retire,
      (const struct hs_foreign *row, int64_t idle_ns, struct hs_error *err, enum hs_retire *ret_how,
       int64_t *ret_idle_ns),
      (row, idle_ns, err, ret_how, ret_idle_ns), ret_how, ret_idle_ns)
GUARD(__wrap_hs_conn_set_user_timeout, __real_hs_conn_set_user_timeout,
      (struct hs_conn * c, unsigned ms, bool shorten, struct hs_error *err, unsigned *ret_was_ms),
      (c, ms, shorten, err, ret_was_ms), ret_was_ms, ret_was_ms)
GUARD(__wrap_hs_conn_finish, __real_hs_conn_finish,
      (struct hs_conn * c, struct hs_op *op, struct hs_error *err,
       struct hs_close_report *ret_report),
      (c, op, err, ret_report), ret_report, ret_report)
GUARD(__wrap_hs_conn_detach, __real_hs_conn_detach,
      (struct hs_conn * c, struct hs_error *err, int *ret_fd), (c, err, ret_fd), ret_fd, ret_fd)
GUARD(__wrap_hs_conn_dup, __real_hs_conn_dup,
      (struct hs_conn * c, struct hs_error *err, struct hs_conn **ret_conn), (c, err, ret_conn),
      ret_conn, ret_conn)
GUARD(__wrap_hs_conn_get_inheritable, __real_hs_conn_get_inheritable,
      (struct hs_conn * c, struct hs_error *err, bool *ret_inheritable), (c, err, ret_inheritable),
      ret_inheritable, ret_inheritable)
GUARD(__wrap_hs_conn_local_addr, __real_hs_conn_local_addr,
      (struct hs_conn * c, struct hs_error *err, struct hs_addr *ret_addr), (c, err, ret_addr),
      ret_addr, ret_addr)
GUARD(__wrap_hs_conn_peer_addr, __real_hs_conn_peer_addr,
      (struct hs_conn * c, struct hs_error *err, struct hs_addr *ret_addr), (c, err, ret_addr),
      ret_addr, ret_addr)
GUARD(__wrap_hs_conn_audit, __real_hs_conn_audit,
      (struct hs_conn * c, struct hs_setting *settings, struct hs_error *err, size_t *ret_n),
      (c, settings, err, ret_n), ret_n, ret_n)
GUARD(__wrap_hs_breaker_key_parse, __real_hs_breaker_key_parse,
      (const char *text, size_t len, struct hs_error *err, struct hs_breaker_key *ret_key),
      (text, len, err, ret_key), ret_key, ret_key)
GUARD(__wrap_hs_breaker_new, __real_hs_breaker_new,
      (const struct hs_breaker_options *o, struct hs_error *err, struct hs_breaker **ret_b),
      (o, err, ret_b), ret_b, ret_b)
GUARD(__wrap_hs_dial_limits_new, __real_hs_dial_limits_new,
      (long in_flight, int64_t interval_ns, struct hs_error *err,
       struct hs_dial_limits **ret_limits),
      (in_flight, interval_ns, err, ret_limits), ret_limits, ret_limits)
GUARD(__wrap_hs_connector_new, __real_hs_connector_new,
      (const struct hs_endpoint *ep, const struct hs_connect_options *opts, struct hs_error *err,
       struct hs_connector **ret_cn),
      (ep, opts, err, ret_cn), ret_cn, ret_cn)
GUARD(__wrap_hs_connector_run, __real_hs_connector_run,
      (struct hs_connector * cn, struct hs_op *op, struct hs_error *err, struct hs_conn **ret_conn),
      (cn, op, err, ret_conn), ret_conn, ret_conn)
GUARD(__wrap_hs_listener_open, __real_hs_listener_open,
      (const struct hs_endpoint *ep, const struct hs_listen_options *opts, struct hs_error *err,
       struct hs_listener **ret_l),
      (ep, opts, err, ret_l), ret_l, ret_l)
GUARD(__wrap_hs_listener_adopt, __real_hs_listener_adopt,
      (int fd, const struct hs_listen_options *opts, struct hs_error *err,
       struct hs_listener **ret_l),
      (fd, opts, err, ret_l), ret_l, ret_l)
GUARD(__wrap_hs_listener_accept, __real_hs_listener_accept,
      (struct hs_listener * l, struct hs_op *op, size_t max, struct hs_error *err,
       struct hs_conn **conns, size_t *ret_n),
      (l, op, max, err, conns, ret_n), ret_n, ret_n)
GUARD(__wrap_hs_listener_detach, __real_hs_listener_detach,
      (struct hs_listener * l, struct hs_error *err, int *ret_fd), (l, err, ret_fd), ret_fd, ret_fd)
GUARD(__wrap_hs_listener_addr, __real_hs_listener_addr,
      (struct hs_listener * l, struct hs_error *err, struct hs_addr *ret_addr), (l, err, ret_addr),
      ret_addr, ret_addr)
GUARD(__wrap_hs_listener_audit, __real_hs_listener_audit,
      (struct hs_listener * l, struct hs_setting *settings, struct hs_error *err, size_t *ret_n),
      (l, settings, err, ret_n), ret_n, ret_n)
GUARD(__wrap_hs_pool_new, __real_hs_pool_new,
      (const struct hs_endpoint *endpoints, size_t n, const struct hs_pool_options *o,
       struct hs_error *err, struct hs_pool **ret_pool),
      (endpoints, n, o, err, ret_pool), ret_pool, ret_pool)
GUARD(__wrap_hs_pool_new_at, __real_hs_pool_new_at,
      (const struct hs_endpoint *endpoints, size_t n, const struct hs_pool_options *o,
       const struct hs_pool_opening *origin, struct hs_error *err, struct hs_pool **ret_pool),
      (endpoints, n, o, origin, err, ret_pool), ret_pool, ret_pool)
GUARD(__wrap_hs_pool_try_acquire, __real_hs_pool_try_acquire,
      (struct hs_pool * p, const struct hs_holder *holder, struct hs_lease *ret_lease),
      (p, holder, ret_lease), ret_lease, ret_lease)
GUARD(__wrap_hs_pool_acquire, __real_hs_pool_acquire,
      (struct hs_pool * p, struct hs_op *op, struct hs_request *request, struct hs_error *err,
       struct hs_lease *ret_lease),
      (p, op, request, err, ret_lease), ret_lease, ret_lease)
GUARD(__wrap_hs_pool_release, __real_hs_pool_release,
      (struct hs_pool * p, struct hs_lease *lease, enum hs_return how, struct hs_error *err,
       enum hs_pool_reason *ret_reason, bool *ret_late),
      (p, lease, how, err, ret_reason, ret_late), ret_reason, ret_late)
GUARD(__wrap_hs_pool_await_overdue, __real_hs_pool_await_overdue,
      (struct hs_pool * p, struct hs_op *op, struct hs_error *err, struct hs_lent *ret_lent),
      (p, op, err, ret_lent), ret_lent, ret_lent)
GUARD(__wrap_hs_notifier_new, __real_hs_notifier_new,
      (const struct hs_notifier_hooks *hooks, struct hs_error *err,
       struct hs_notifier **ret_notifier),
      (hooks, err, ret_notifier), ret_notifier, ret_notifier)
GUARD(__wrap_hs_alarm_new, __real_hs_alarm_new,
      (struct hs_notifier * n, const struct hs_alarm_hooks *hooks, void *arg,
       const struct hs_op *op, struct hs_error *err, struct hs_alarm **ret_alarm),
      (n, hooks, arg, op, err, ret_alarm), ret_alarm, ret_alarm)
GUARD(__wrap_hs_conn_read_line, __real_hs_conn_read_line,
      (struct hs_conn * c, struct hs_op *op, size_t from, size_t limit, struct hs_error *err,
       size_t *ret_n),
      (c, op, from, limit, err, ret_n), ret_n, ret_n)
GUARD(__wrap_hs_conn_try_line, __real_hs_conn_try_line,
      (struct hs_conn * c, size_t limit, size_t *ret_n), (c, limit, ret_n), ret_n, ret_n)
GUARD(__wrap_hs_slots_new, __real_hs_slots_new,
      (long n, struct hs_error *err, struct hs_slots **ret_slots), (n, err, ret_slots), ret_slots,
      ret_slots)
GUARD(__wrap_hs_departures_new, __real_hs_departures_new,
      (int64_t young_ns, struct hs_error *err, struct hs_departures **ret_departures),
      (young_ns, err, ret_departures), ret_departures, ret_departures)
GUARD(__wrap_hs_departures_tend, __real_hs_departures_tend,
      (struct hs_departures * d, struct hs_op *op, struct hs_error *err,
       struct hs_callback **ret_fired),
      (d, op, err, ret_fired), ret_fired, ret_fired)
GUARD(__wrap_hs_parking_new, __real_hs_parking_new,
      (struct hs_error * err, struct hs_parking **ret_p), (err, ret_p), ret_p, ret_p)
GUARD(__wrap_hs_parking_park, __real_hs_parking_park,
      (struct hs_parking * p, struct hs_conn *conn, void *arg, int64_t span_ns, bool newcomer,
       struct hs_error *err, enum hs_parking_answer *ret_answer),
      (p, conn, arg, span_ns, newcomer, err, ret_answer), ret_answer, ret_answer)
GUARD(__wrap_hs_parking_linger, __real_hs_parking_linger,
      (struct hs_parking * p, struct hs_conn *conn, void *arg, int64_t span_ns,
       struct hs_error *err, struct hs_close_report *ret_report),
      (p, conn, arg, span_ns, err, ret_report), ret_report, ret_report)
GUARD(__wrap_hs_parking_next, __real_hs_parking_next,
      (struct hs_parking * p, struct hs_error *err, struct hs_parked_conn *ret_parked),
      (p, err, ret_parked), ret_parked, ret_parked)
GUARD(__wrap_hs_parking_poll, __real_hs_parking_poll,
      (struct hs_parking * p, struct hs_op *op, size_t max, struct hs_error *err,
       struct hs_parked_conn *ret_parked, size_t *ret_n),
      (p, op, max, err, ret_parked, ret_n), ret_parked, ret_n)
GUARD(__wrap_hs_fixed_histogram_new, __real_hs_fixed_histogram_new,
      (enum hs_edges edges, struct hs_error *err, struct hs_fixed_histogram **ret_h),
      (edges, err, ret_h), ret_h, ret_h)
GUARD(__wrap_hs_conn_tls_binding, __real_hs_conn_tls_binding,
      (struct hs_conn * c, enum hs_tls_binding kind, uint8_t out[HS_TLS_BINDING_MAX],
       size_t *ret_len, struct hs_error *err),
      (c, kind, out, ret_len, err), ret_len, ret_len)
GUARD(__wrap_hs_delays_new, __real_hs_delays_new,
      (struct hs_error * err, struct hs_delays **ret_delays), (err, ret_delays), ret_delays,
      ret_delays)
GUARD(__wrap_hs_service_new, __real_hs_service_new,
      (enum hs_service_kind kind, const char *name, uint64_t limit, struct hs_error *err,
       struct hs_service **ret_s),
      (kind, name, limit, err, ret_s), ret_s, ret_s)
GUARD(__wrap_hs_report_asked, __real_hs_report_asked,
      (const char *request, struct hs_error *err, char **ret_text, size_t *ret_len),
      (request, err, ret_text, ret_len), ret_text, ret_len)
GUARD(__wrap_hs_report, __real_hs_report,
      (enum hs_report_kind kind, struct hs_error *err, char **ret_text, size_t *ret_len),
      (kind, err, ret_text, ret_len), ret_text, ret_len)
GUARD(__wrap_hs_faults_begin, __real_hs_faults_begin,
      (const char *spec, struct hs_error *err, uint64_t *ret_id), (spec, err, ret_id), ret_id,
      ret_id)
