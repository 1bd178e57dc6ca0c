/* watch.c: the module's functions that look at the process and the kernel.
 *
 * They return plain dicts of numbers, read at that moment; nothing here waits or keeps state.
 */
#include "binding/base/args.h"
#include "binding/base/run.h"

#include <limits.h>

/* Steals value. */
static int
put_count(PyObject *dict, const char *name, PyObject *value)
{
    int rv = value == NULL ? -1 : PyDict_SetItemString(dict, name, value);

    Py_XDECREF(value);
    return rv;
}

PyDoc_STRVAR(live_doc, "_live()\n--\n\n"
                       "Count hardsock's living objects by type, process-wide.");

static PyObject *
core_live(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    struct hs_live live;

    hs_live_counts(&live);
    return Py_BuildValue("{s:l,s:l,s:l,s:l,s:l,s:l,s:l,s:l,"
                         "s:l,s:l,s:l,s:l,s:l,s:l,s:l}",
                         "tokens", live.tokens, "conns", live.conns, "listeners", live.listeners,
                         "connectors", live.connectors, "lookups", live.lookups, "orphans",
                         live.orphans, "buffers", live.buffers, "lingering", live.lingering,
                         "breakers", live.breakers, "pools", live.pools, "slots", live.slots,
                         "parkings", live.parkings, "departures", live.departures, "delays",
                         live.delays, "dial_limits", live.dial_limits);
}

PyDoc_STRVAR(
    resolver_stats_doc,
    "resolver_stats()\n--\n\n"
    "Count name lookups, as a dict:\n\n"
    "running and queued: waited for, with a thread and without one yet; orphans:\n"
    "abandoned, still running in libc; oldest_orphan: its age in seconds; inherited: those\n"
    "that ran in the parent when this process was forked, whose answers never come here;\n"
    "started and abandoned: since the process began.");

static PyObject *
core_resolver_stats(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    struct hs_resolver_stats stats;

    hs_resolver_stats(&stats);
    return Py_BuildValue("{s:l,s:l,s:l,s:d,s:l,s:K,s:K}", "running", stats.running, "queued",
                         stats.queued, "orphans", stats.orphans, "oldest_orphan",
                         (double)stats.oldest_orphan_ns / 1e9, "inherited", stats.inherited,
                         "started", (unsigned long long)stats.started, "abandoned",
                         (unsigned long long)stats.abandoned);
}

PyDoc_STRVAR(fd_inventory_doc,
             "fd_inventory()\n--\n\n"
             "Count this process's open descriptors by kind, without opening one.");

static PyObject *
core_fd_inventory(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    long counts[HS_FD_KINDS];
    PyObject *dict = PyDict_New();

    hs_fd_inventory(counts);
    for (int kind = 0; dict != NULL && kind < HS_FD_KINDS; kind++)
        if (put_count(dict, hs_fd_kind_name((enum hs_fd_kind)kind), PyLong_FromLong(counts[kind])) <
            0)
            Py_CLEAR(dict);
    return dict;
}

PyDoc_STRVAR(fd_list_doc, "_fd_list()\n--\n\n"
                          "What is open: a list of FdRecord.");

static PyObject *
fd_object(const mod_state *st, const struct hs_fd_entry *e)
{
    return record_new(st->fd_record, "isKKN", e->fd, hs_fd_kind_name(e->kind),
                      (unsigned long long)e->dev, (unsigned long long)e->ino,
                      PyUnicode_DecodeFSDefault(e->target));
}

static PyObject *
core_fd_list(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    struct hs_fd_entry *entries = NULL;
    struct hs_fd_usage usage;
    size_t room, n = 0;
    PyObject *list;

    hs_fd_usage(&usage);
    do { /* Until nobody has opened more than fit, meanwhile. */
        room = (n > (size_t)usage.open ? n : (size_t)usage.open) + 16;
        PyMem_Free(entries);
        if ((entries = PyMem_Calloc(room, sizeof(*entries))) == NULL)
            return PyErr_NoMemory();
    } while ((n = hs_fd_list(entries, room)) > room);
    list = hs_list_new((Py_ssize_t)n);
    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *item = fd_object(state_of_module(module), &entries[i]);

        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    PyMem_Free(entries);
    return list;
}

PyDoc_STRVAR(fd_usage_doc, "_fd_usage()\n--\n\n"
                           "How many descriptors are open, and RLIMIT_NOFILE or -1.");

static PyObject *
core_fd_usage(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    struct hs_fd_usage usage;

    hs_fd_usage(&usage);
    return Py_BuildValue("ll", usage.open, usage.limit);
}

/* A new reference; None: there is none, or not of a family whose addresses have a text here. */
static PyObject *
watch_name_object(const struct hs_addr *addr)
{
    char text[HS_ADDR_TEXT_SIZE];

    if (addr->len == 0 || (addr->sa.sa_family != AF_INET && addr->sa.sa_family != AF_INET6 &&
                           addr->sa.sa_family != AF_UNIX))
        Py_RETURN_NONE;
    return PyUnicode_DecodeFSDefault(hs_addr_text(addr, text, sizeof(text)));
}

PyDoc_STRVAR(fd_socket_doc,
             "_fd_socket(fd, /)\n--\n\n"
             "What the kernel says of a socket, as FdSocketRecord; None: it is none.");

static PyObject *
core_fd_socket(PyObject *module, PyObject *number)
{
    struct hs_fd_socket found;
    long fd = PyLong_AsLong(number);

    if (fd == -1 && PyErr_Occurred())
        return NULL;
    if (fd < 0 || fd > INT_MAX || !hs_fd_socket((int)fd, &found))
        Py_RETURN_NONE;
    return PyObject_CallFunction(state_of_module(module)->fd_socket_record, "iiOzNN", found.family,
                                 found.type, found.listens ? Py_True : Py_False,
                                 hs_tcp_state_name(found.state), watch_name_object(&found.local),
                                 watch_name_object(&found.peer));
}

PyDoc_STRVAR(unraisable_doc, "_unraisable(exc, where, /)\n--\n\n"
                             "Tell sys.unraisablehook of an exception that can fail no call.");

static PyObject *
core_unraisable(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyExceptionInstance_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "_unraisable() takes an exception and an object");
        return NULL;
    }
    PyErr_SetObject((PyObject *)Py_TYPE(args[0]), args[0]);
    PyErr_WriteUnraisable(args[1]);
    Py_RETURN_NONE;
}

struct counting {
    const struct hs_addr *peer;
    uint32_t counts[HS_TCP_STATES];
    struct hs_error err;
    hs_err rv;
};

static void
watch_count_detached(void *arg)
{
    struct counting *c = arg;

    c->rv = hs_diag_count(c->peer, &c->err, c->counts);
}

PyDoc_STRVAR(
    tcp_counts_doc,
    "tcp_counts(peer=None, /)\n--\n\n"
    "Count TCP sockets of this network namespace by state, of all or towards one address.\n\n"
    "Asks the kernel's sock_diag tables; peer is a literal address with its port.");

static PyObject *
core_tcp_counts(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"tcp_counts", 0, 1, 1, {"peer"}};
    PyObject *values[MAX_PARAMS], *dict;
    struct hs_endpoint ep = {0};
    struct counting c = {0};

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    if (values[0] != NULL && values[0] != Py_None) {
        if (parse_endpoint(values[0], "peer", &ep) < 0)
            return NULL;
        if (ep.family != AF_INET && ep.family != AF_INET6) {
            PyErr_Format(PyExc_ValueError, "peer must be an IP address and a port, got %R",
                         values[0]);
            return NULL;
        }
    }
    c.peer = ep.addr.len != 0 ? &ep.addr : NULL;
    run_detached(watch_count_detached, &c);
    if (c.rv != HS_OK) {
        raise_plain_error(state_of_module(module), &c.err, c.rv);
        return NULL;
    }
    dict = PyDict_New();
    for (int state = 1; dict != NULL && state < HS_TCP_STATES; state++)
        if (put_count(dict, hs_tcp_state_name(state), PyLong_FromUnsignedLong(c.counts[state])) < 0)
            Py_CLEAR(dict);
    return dict;
}

PyDoc_STRVAR(
    reset_counts_doc,
    "reset_counts()\n--\n\n"
    "Who reset whom, in this process since it began; TCP only.\n\n"
    "by_peer: found by reading or writing. dead_peer: given up, nobody answered.\n"
    "by_abort: abort(). by_linger: closed with SO_LINGER of zero seconds. by_unread: closed\n"
    "with unread bytes, which destroys what is on its way to the peer (RFC 1122 section\n"
    "4.2.2.13); finish() avoids it.");

static PyObject *
core_reset_counts(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    struct hs_reset_counts r;

    hs_reset_counts(&r);
    return Py_BuildValue(
        "{sKsKsKsKsK}", "by_peer", (unsigned long long)r.by_peer, "dead_peer",
        (unsigned long long)r.dead_peer, "by_abort", (unsigned long long)r.by_abort, "by_linger",
        (unsigned long long)r.by_linger, "by_unread", (unsigned long long)r.by_unread);
}

PyMethodDef watch_functions[] = {
    {"_live", core_live, METH_NOARGS, live_doc},
    {"resolver_stats", core_resolver_stats, METH_NOARGS, resolver_stats_doc},
    {"fd_inventory", core_fd_inventory, METH_NOARGS, fd_inventory_doc},
    {"_fd_list", core_fd_list, METH_NOARGS, fd_list_doc},
    {"_unraisable", HS_METHOD(core_unraisable), METH_FASTCALL, unraisable_doc},
    {"_fd_socket", core_fd_socket, METH_O, fd_socket_doc},
    {"_fd_usage", core_fd_usage, METH_NOARGS, fd_usage_doc},
    {"reset_counts", core_reset_counts, METH_NOARGS, reset_counts_doc},
    {"tcp_counts", HS_METHOD(core_tcp_counts), METH_FASTCALL | METH_KEYWORDS, tcp_counts_doc},
    {NULL, NULL, 0, NULL},
};
