/* args.h: arguments from Python, checked in one place, with errors that name the parameter.
 *
 * Parsing functions return 0, or -1 with an exception set; values are borrowed. The functions at
 * the end go the other way.
 */
#ifndef HS_BINDING_ARGS_H
#define HS_BINDING_ARGS_H

#include "state.h"

#define MAX_PARAMS 16

/* names: positional ones first, then keyword-only; NULL ends. */
struct params {
    const char *function;
    int required;   /* of the positional ones */
    int positional; /* how many may be given by position */
    int positional_only;
    const char *names[MAX_PARAMS + 1];
};

/* Fills values (borrowed; NULL when not given) for METH_FASTCALL | METH_KEYWORDS. */
int parse_args(const struct params *p, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
               PyObject **values);
/* The same for tp_new and tp_init. */
int parse_tuple(const struct params *p, PyObject *args, PyObject *kwargs, PyObject **values);

/* Seconds to a span in nanoseconds, rounded up; None, NULL and inf: HS_NEVER. */
int parse_seconds(PyObject *obj, const char *name, int64_t *ret_ns);
/* A host name as DNS has it; a new reference to bytes, or NULL with a UnicodeError. */
PyObject *host_to_ascii(PyObject *text, const char *name);
/* True or False, nothing that only counts as one. NULL leaves *ret_flag alone. */
int parse_bool(PyObject *obj, const char *name, bool *ret_flag);
/* An int, not a bool, within the range. NULL leaves *ret_value alone. */
int parse_long(PyObject *obj, const char *name, long min, long max, long *ret_value);
/* "host:port", "unix:/path", (host, port) or (host, port, flowinfo, scope_id). */
int parse_endpoint(PyObject *obj, const char *name, struct hs_endpoint *ret_endpoint);
/* A dict of names and ints made by SocketOptions; NULL or None: nothing. */
int parse_sockopts(PyObject *obj, struct hs_sockopts *ret_options);

/* An address as the socket module has it. */
PyObject *address_object(const struct hs_addr *addr);
PyObject *address_text(const struct hs_addr *addr);
/* Messages are cut to a size and may hold paths: they need not be whole UTF-8. */
PyObject *text_object(const char *text);
/* hs_tcp_fields of so many bytes, as a dict of ints. */
PyObject *tcp_fields_dict(const void *info, size_t len);
/* A NamedTuple of _records.py from the values of all its fields, which format has as Py_BuildValue
 * wants them; past its own __new__, which is Python code and the half of what it costs. */
PyObject *record_new(PyObject *type, const char *format, ...);
/* Monotonic seconds, as time.monotonic(); None for 0 and HS_NEVER. */
PyObject *time_object(int64_t ns);

#endif
