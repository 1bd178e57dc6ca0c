/* type_breaker.c: the type Breaker: making, asking, telling.
 *
 * The object owns one reference to the core breaker; permits and connectors have their own. The
 * core's lock is taken detached.
 */
#include "breaker.h"

#include <math.h>
#include <string.h>

static struct hs_breaker *
breaker_core_of(PyObject *self)
{
    return ((BreakerObject *)self)->core;
}

int
breaker_core(mod_state *st, PyObject *obj, struct hs_breaker **ret_core)
{
    if (obj == NULL || obj == Py_None) {
        *ret_core = NULL;
        return 0;
    }
    if (!Py_IS_TYPE(obj, st->breaker_type)) {
        PyErr_Format(PyExc_TypeError, "breaker must be a Breaker or None, not %.100s",
                     Py_TYPE(obj)->tp_name);
        return -1;
    }
    *ret_core = breaker_core_of(obj);
    return 0;
}

/* ---- Making -------------------------------------------------------------------------------- */

enum {
    FAILURES,
    FAILURE_RATE,
    MIN_CALLS,
    WINDOW,
    OPEN_TIME,
    MAX_OPEN_TIME,
    JITTER,
    PROBES,
    SUCCESSES,
    PROBE_TIME,
    PATIENCE,
    MAX_EJECTED,
    FAIL_FAST,
    MAX_KEYS,
    DRY_RUN,
    SEED,
};

static const struct params breaker_params = {"Breaker",
                                             0,
                                             0,
                                             0,
                                             {"failures", "failure_rate", "min_calls", "window",
                                              "open_time", "max_open_time", "jitter", "probes",
                                              "successes", "probe_time", "patience", "max_ejected",
                                              "fail_fast", "max_keys", "dry_run", "seed"}};

/* A share of one, as thousandths; NULL leaves *ret_permille alone. */
static int
parse_share(PyObject *obj, const char *name, int min_permille, int *ret_permille)
{
    double share;

    if (obj == NULL)
        return 0;
    if (PyBool_Check(obj) || !(PyFloat_Check(obj) || PyIndex_Check(obj))) {
        PyErr_Format(PyExc_TypeError, "%s must be a number, not %.100s", name,
                     Py_TYPE(obj)->tp_name);
        return -1;
    }
    share = PyFloat_AsDouble(obj);
    if (share == -1.0 && PyErr_Occurred())
        return -1;
    if (!(share * 1000 >= min_permille && share <= 1)) { /* Refuses NaN, too. */
        PyErr_Format(PyExc_ValueError, "%s must be in %s..1, got %R", name,
                     min_permille > 0 ? "0.001" : "0", obj);
        return -1;
    }
    *ret_permille = (int)lround(share * 1000);
    return 0;
}

static int
parse_int(PyObject *obj, const char *name, long max, int *ret_value)
{
    long value = *ret_value;

    if (parse_long(obj, name, 1, max, &value) < 0)
        return -1;
    *ret_value = (int)value;
    return 0;
}

/* NULL leaves *ret_ns alone; finite: None and inf are refused. */
static int
parse_span(PyObject *obj, const char *name, bool finite, int64_t *ret_ns)
{
    int64_t ns;

    if (obj == NULL)
        return 0;
    if (parse_seconds(obj, name, &ns) < 0)
        return -1;
    if (finite && ns == HS_NEVER) {
        PyErr_Format(PyExc_ValueError, "%s must be a finite number of seconds, got %R", name, obj);
        return -1;
    }
    *ret_ns = ns;
    return 0;
}

static int
parse_flag(PyObject *obj, bool *ret_flag)
{
    int flag = obj == NULL ? 0 : PyObject_IsTrue(obj);

    *ret_flag = flag > 0;
    return flag < 0 ? -1 : 0;
}

/* What makes it open. */
static int
parse_limits(PyObject **v, struct hs_breaker_options *o)
{
    if (v[FAILURES] == Py_None)
        o->failures = 0;
    else if (parse_int(v[FAILURES], "failures", 1000000, &o->failures) < 0)
        return -1;
    if (v[FAILURE_RATE] == Py_None)
        o->rate_permille = 0;
    else if (parse_share(v[FAILURE_RATE], "failure_rate", 1, &o->rate_permille) < 0)
        return -1;
    if (o->rate_permille == 0 && (v[MIN_CALLS] != NULL || v[WINDOW] != NULL)) {
        PyErr_Format(PyExc_ValueError, "%s is about failure_rate, which is None",
                     v[MIN_CALLS] != NULL ? "min_calls" : "window");
        return -1;
    }
    if (parse_int(v[MIN_CALLS], "min_calls", 1000000, &o->min_calls) < 0 ||
        parse_span(v[WINDOW], "window", true, &o->window_ns) < 0)
        return -1;
    return 0;
}

static int
parse_times(PyObject **v, struct hs_breaker_options *o)
{
    if (parse_span(v[OPEN_TIME], "open_time", false, &o->open_ns) < 0)
        return -1;
    o->max_open_ns = o->open_ns < HS_NEVER / 10 ? 10 * o->open_ns : HS_NEVER;
    if (v[MAX_OPEN_TIME] != NULL && v[MAX_OPEN_TIME] != Py_None &&
        parse_span(v[MAX_OPEN_TIME], "max_open_time", false, &o->max_open_ns) < 0)
        return -1;
    if (parse_span(v[PROBE_TIME], "probe_time", true, &o->probe_ns) < 0 ||
        parse_span(v[PATIENCE], "patience", false, &o->patience_ns) < 0)
        return -1;
    return parse_share(v[JITTER], "jitter", 0, &o->jitter_permille);
}

static int
parse_breaker_options(PyObject **v, struct hs_breaker_options *o)
{
    long max_keys, seed = 0;

    hs_breaker_options_init(o);
    max_keys = (long)o->max_keys;
    if (parse_limits(v, o) < 0 || parse_times(v, o) < 0 ||
        parse_int(v[PROBES], "probes", 64, &o->probes) < 0 ||
        parse_int(v[SUCCESSES], "successes", 1000000, &o->successes) < 0 ||
        parse_share(v[MAX_EJECTED], "max_ejected", 0, &o->max_ejected_permille) < 0 ||
        parse_flag(v[FAIL_FAST], &o->fail_fast) < 0 || parse_flag(v[DRY_RUN], &o->dry_run) < 0 ||
        parse_long(v[MAX_KEYS], "max_keys", 1, 1L << 20, &max_keys) < 0)
        return -1;
    if (v[SEED] != Py_None && parse_long(v[SEED], "seed", 1, LONG_MAX, &seed) < 0)
        return -1;
    o->max_keys = (size_t)max_keys;
    o->seed = (uint64_t)seed;
    return 0;
}

static PyObject *
breaker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    mod_state *st = state_of_type(type);
    struct hs_breaker_options options;
    PyObject *values[MAX_PARAMS];
    struct hs_error err = {0};
    BreakerObject *self;
    hs_err rv;

    if (parse_tuple(&breaker_params, args, kwargs, values) < 0 ||
        parse_breaker_options(values, &options) < 0 || (self = object_new(st, type)) == NULL)
        return NULL;
    if ((rv = hs_breaker_new(&options, &err, &self->core)) != HS_OK) {
        Py_DECREF(self);
        raise_plain_error(st, &err, rv);
        return NULL;
    }
    return (PyObject *)self;
}

/* ---- Keys ---------------------------------------------------------------------------------- */

static int
key_from_text(mod_state *st, const char *text, size_t len, struct hs_breaker_key *ret_key)
{
    struct hs_error err = {0};
    hs_err rv = hs_breaker_key_parse(text, len, &err, ret_key);

    return rv == HS_OK ? 0 : raise_plain_error(st, &err, rv);
}

static int
key_from_str(mod_state *st, PyObject *obj, struct hs_breaker_key *ret_key)
{
    PyObject *bytes = PyUnicode_EncodeFSDefault(obj); /* As address_text made it. */
    int rv;

    if (bytes == NULL)
        return -1;
    rv = key_from_text(st, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes), ret_key);
    Py_DECREF(bytes);
    return rv;
}

static int
parse_key(mod_state *st, PyObject *obj, struct hs_breaker_key *ret_key)
{
    char text[HS_ADDR_TEXT_SIZE];
    struct hs_endpoint ep;

    if (PyUnicode_Check(obj))
        return key_from_str(st, obj, ret_key);
    if (parse_endpoint(obj, "key", &ep) < 0)
        return -1;
    if (ep.family == AF_UNSPEC) {
        (void)hs_endpoint_text(&ep, text, sizeof(text));
        return key_from_text(st, text, strlen(text), ret_key);
    }
    hs_breaker_key_addr(&ep.addr, ret_key);
    return 0;
}

/* ---- Permits ------------------------------------------------------------------------------- */

struct asking {
    struct hs_breaker *core;
    struct hs_breaker_key key;
    struct hs_permit permit;
    enum hs_breaker_state state;
};

static void
ask_detached(void *arg)
{
    struct asking *a = arg;

    a->state = hs_breaker_permit(a->core, &a->key, hs_now(), &a->permit);
}

static PyObject *
raise_open(mod_state *st, const struct asking *a)
{
    char text[HS_BREAKER_KEY_TEXT_SIZE];
    struct hs_error err = {.code = HS_E_BREAKER_OPEN,
                           .op = "permit",
                           .retry_ns = a->permit.retry_ns,
                           .last_failure = (int)a->permit.last_fail};

    (void)PyOS_snprintf(
        err.msg, sizeof(err.msg), "%.110s not tried: the breaker is open (last failure: %s)",
        hs_breaker_key_text(&a->key, text, sizeof(text)), hs_fail_name(a->permit.last_fail));
    raise_breaker_open(st, &err, breaker_key_object(&a->key));
    return NULL;
}

PyDoc_STRVAR(permit_doc,
             "permit($self, key, /)\n--\n\n"
             "Ask whether key may be tried now; returns a Permit to be reported.\n\n"
             "key: an address as connect() has it, or any other str of up to 118 bytes.\n\n"
             "Raises BreakerOpen while it may not.");

static PyObject *
breaker_permit(PyObject *self, PyObject *key)
{
    mod_state *st = state_of(self);
    struct asking a = {.core = breaker_core_of(self)};

    if (parse_key(st, key, &a.key) < 0)
        return NULL;
    run_detached(ask_detached, &a);
    if (a.state == HS_BREAKER_OPEN)
        return raise_open(st, &a);
    return permit_object_new(st, hs_breaker_ref(a.core), &a.key, &a.permit,
                             a.state == HS_BREAKER_HALF_OPEN);
}

PyDoc_STRVAR(guard_doc,
             "guard($self, key, /, *, ignore=())\n--\n\n"
             "Return a context manager: a permit for key is asked for at its beginning\n"
             "(BreakerOpen) and reported at its end, by the exception that ends it, if any.\n\n"
             "ignore: exceptions, as isinstance() takes them, that say nothing about key.");

static PyObject *
breaker_guard(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"guard", 1, 1, 1, {"key", "ignore"}};
    PyObject *values[MAX_PARAMS], *none, *guard;
    struct hs_breaker_key key;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        parse_key(state_of(self), values[0], &key) < 0 || (none = PyTuple_New(0)) == NULL)
        return NULL;
    guard = PyObject_CallFunctionObjArgs(state_of(self)->guard, self, values[0],
                                         values[1] != NULL ? values[1] : none, NULL);
    Py_DECREF(none);
    return guard;
}

/* ---- Telling ------------------------------------------------------------------------------- */

struct snapshot {
    struct hs_breaker *core;
    struct hs_breaker_status *all; /* own */
    size_t room, n;
};

/* It may grow between two looks. */
static void
look_detached(void *arg)
{
    struct snapshot *s = arg;

    for (;;) {
        s->n = hs_breaker_states(s->core, hs_now(), s->all, s->room);
        if (s->n <= s->room)
            return;
        PyMem_RawFree(s->all);
        s->room = s->n + s->n / 4;
        if ((s->all = PyMem_RawCalloc(s->room, sizeof(s->all[0]))) == NULL)
            return;
    }
}

static PyObject *
class_object(enum hs_fail fail)
{
    if (fail == HS_FAIL_NONE)
        Py_RETURN_NONE;
    return PyUnicode_FromString(hs_fail_name(fail));
}

static PyObject *
status_object(mod_state *st, const struct hs_breaker_status *s)
{
    return PyObject_CallFunction(st->breaker_state, "NsIIIINNNNKKKK", breaker_key_object(&s->key),
                                 hs_breaker_state_name(s->state), s->in_a_row, s->window_calls,
                                 s->window_failures, s->openings, time_object(s->opened_ns),
                                 time_object(s->retry_ns), class_object(s->last_fail),
                                 time_object(s->last_fail_ns), (unsigned long long)s->calls,
                                 (unsigned long long)s->failures, (unsigned long long)s->refused,
                                 (unsigned long long)s->opened);
}

PyDoc_STRVAR(states_doc,
             "states($self, /)\n--\n\n"
             "List a BreakerState for every key that has failed, the one used last first.");

static PyObject *
breaker_states(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct snapshot s = {.core = breaker_core_of(self)};
    mod_state *st = state_of(self);
    PyObject *list;

    run_detached(look_detached, &s);
    if (s.n > 0 && s.all == NULL)
        return PyErr_NoMemory();
    list = hs_list_new((Py_ssize_t)s.n);
    for (size_t i = 0; list != NULL && i < s.n; i++) {
        PyObject *item = status_object(st, &s.all[i]);

        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    PyMem_RawFree(s.all);
    return list;
}

struct counting {
    struct hs_breaker *core;
    struct hs_breaker_stats stats;
};

static void
breaker_count_detached(void *arg)
{
    struct counting *c = arg;

    hs_breaker_stats(c->core, hs_now(), &c->stats);
}

/* Of failures only: what else is counted has a field of its own. */
static PyObject *
classes_dict(const struct hs_breaker_stats *s)
{
    PyObject *dict = PyDict_New();

    for (int fail = HS_FAIL_REFUSED; dict != NULL && fail < HS_FAIL_CLASSES; fail++) {
        PyObject *count = PyLong_FromUnsignedLongLong(s->by_class[fail]);

        if (count == NULL ||
            PyDict_SetItemString(dict, hs_fail_name((enum hs_fail)fail), count) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(count);
    }
    return dict;
}

PyDoc_STRVAR(stats_doc, "stats($self, /)\n--\n\n"
                        "Return a BreakerStats: counters since it was made, plain numbers.");

static PyObject *
breaker_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct counting c = {.core = breaker_core_of(self)};
    const struct hs_breaker_stats *s = &c.stats;

    run_detached(breaker_count_detached, &c);
    return PyObject_CallFunction(state_of(self)->breaker_stats, "KKKKKKKKKKKKKKnnN",
                                 (unsigned long long)s->permitted, (unsigned long long)s->refused,
                                 (unsigned long long)s->would_refuse, (unsigned long long)s->forced,
                                 (unsigned long long)s->probes,
                                 (unsigned long long)s->expired_probes,
                                 (unsigned long long)s->successes, (unsigned long long)s->failures,
                                 (unsigned long long)s->not_counted, (unsigned long long)s->late,
                                 (unsigned long long)s->opened, (unsigned long long)s->half_opened,
                                 (unsigned long long)s->closed, (unsigned long long)s->evicted,
                                 (Py_ssize_t)s->keys, (Py_ssize_t)s->keys_open, classes_dict(s));
}

struct resetting {
    struct hs_breaker *core;
    const struct hs_breaker_key *key;
    size_t n;
};

static void
reset_detached(void *arg)
{
    struct resetting *r = arg;

    r->n = hs_breaker_reset(r->core, r->key);
}

PyDoc_STRVAR(reset_doc,
             "reset($self, key=None, /)\n--\n\n"
             "Forget a key, or all: closed, without failures. Returns how many were known.\n\n"
             "Permits that are out stay good.");

static PyObject *
breaker_reset(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"reset", 0, 1, 1, {"key"}};
    struct resetting r = {.core = breaker_core_of(self)};
    PyObject *values[MAX_PARAMS];
    struct hs_breaker_key key;

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return NULL;
    if (values[0] != NULL && values[0] != Py_None) {
        if (parse_key(state_of(self), values[0], &key) < 0)
            return NULL;
        r.key = &key;
    }
    run_detached(reset_detached, &r);
    return PyLong_FromSize_t(r.n);
}

static PyObject *
breaker_repr(PyObject *self)
{
    struct counting c = {.core = breaker_core_of(self)};

    run_detached(breaker_count_detached, &c);
    return PyUnicode_FromFormat("<hardsock.Breaker %zd keys, %zd open>", (Py_ssize_t)c.stats.keys,
                                (Py_ssize_t)c.stats.keys_open);
}

/* ---- Type ---------------------------------------------------------------------------------- */

static void
breaker_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    if (((BreakerObject *)self)->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    hs_breaker_unref(breaker_core_of(self));
    object_free(self);
}

static int
breaker_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    return 0;
}

static PyMethodDef breaker_methods[] = {
    {"permit", breaker_permit, METH_O, permit_doc},
    {"guard", HS_METHOD(breaker_guard), METH_FASTCALL | METH_KEYWORDS, guard_doc},
    {"states", breaker_states, METH_NOARGS, states_doc},
    {"stats", breaker_stats, METH_NOARGS, stats_doc},
    {"reset", HS_METHOD(breaker_reset), METH_FASTCALL | METH_KEYWORDS, reset_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef breaker_members[] = {
    {"__weaklistoffset__", HS_T_PYSSIZET, offsetof(BreakerObject, weakrefs), HS_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    breaker_doc,
    "Breaker(*, failures=5, failure_rate=0.5, min_calls=20, window=30.0, open_time=30.0, "
    "max_open_time=None, jitter=0.2, probes=1, successes=1, probe_time=10.0, patience=1.0, "
    "max_ejected=1.0, fail_fast=False, max_keys=4096, dry_run=False, seed=None)\n--\n\n"
    "Do not try for a while what keeps failing: connect(..., breaker=breaker), or guard().\n\n"
    "Each address (or key) is closed until it fails too often, then open: nobody tries.\n"
    "When its time is up it is half open: a few may probe. Thread-safe; one for many names.\n\n"
    "failures: that open when no success comes in between; None: not looked at.\n"
    "failure_rate: share of the calls in window that opens; None: not looked at.\n"
    "min_calls: that the window must hold before the rate counts.\n"
    "window: seconds that the rate looks back.\n"
    "open_time: seconds open the first time; twice as long each time it did not help.\n"
    "max_open_time: seconds; None: ten times open_time.\n"
    "jitter: share by which at most the open time is shortened at random.\n"
    "probes: permits at the same time while half open. successes: of them that close it.\n"
    "probe_time: seconds after which a probe that was not reported holds up nobody.\n"
    "patience: a deadline of the caller's own counts only after so many seconds of silence.\n"
    "max_ejected: share of one name's addresses that may be skipped. The last of several\n"
    "is never skipped, unless fail_fast: then connect() raises BreakerOpen if all are open.\n"
    "max_keys: that are remembered. Those that never failed need not be.\n"
    "dry_run: decide and count, refuse nothing.\n"
    "seed: of the jitter, for tests.\n\n"
    "Raises ValueError for what cannot be, with the names of both if two contradict.");

static PyType_Slot breaker_slots[] = {
    {Py_tp_new, HS_SLOT(breaker_new)},
    {Py_tp_dealloc, HS_SLOT(breaker_dealloc)},
    {Py_tp_traverse, HS_SLOT(breaker_traverse)},
    {Py_tp_repr, HS_SLOT(breaker_repr)},
    {Py_tp_methods, breaker_methods},
    {Py_tp_members, breaker_members},
    {Py_tp_doc, (void *)(uintptr_t)breaker_doc},
    {0, NULL},
};

PyType_Spec breaker_spec = {
    .name = "hardsock.Breaker",
    .basicsize = sizeof(BreakerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = breaker_slots,
};

PyDoc_STRVAR(errno_doc, "_failure_of_errno(errno, /)\n--\n\nThe class of a failed system call.");

static PyObject *
core_failure_of_errno(PyObject *Py_UNUSED(module), PyObject *obj)
{
    long sys;

    if (parse_long(obj, "errno", 1, INT32_MAX, &sys) < 0)
        return NULL;
    return PyUnicode_FromString(hs_fail_name(hs_fail_of_errno((int)sys)));
}

PyMethodDef breaker_functions[] = {
    {"_failure_of_errno", core_failure_of_errno, METH_O, errno_doc},
    {NULL, NULL, 0, NULL},
};
