/* type_parking.c: the type Parking: the connections of a server that are quiet.
 *
 * Private: servers make one. What is given along with a connection (its "what") is kept while it is
 * parked. The garbage collector does not see that: servers keep it, too, and take all out at the
 * end.
 */
#include "conn.h"
#include "binding/base/job.h"

#define MAX_TENDED 16
#define CLOSED_HERE (HS_ENDING_TRUNCATED + 1) /* behind those that the core knows */

typedef struct {
    HS_HEAD
    struct hs_parking *core;            /* owns: a reference; write once, as the next */
    PyObject *endings[CLOSED_HERE + 1]; /* owns: strings */
} ParkingObject;

static PyObject *
parking_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"Parking", 0, 0, 0, {NULL}};
    mod_state *st = state_of_type(type);
    PyObject *values[MAX_PARAMS];
    struct hs_error err = {0};
    ParkingObject *self;
    hs_err rv;

    if (parse_tuple(&p, args, kwargs, values) < 0 || (self = object_new(st, type)) == NULL)
        return NULL;
    for (int i = 0; i <= CLOSED_HERE; i++) {
        const char *text = i == CLOSED_HERE ? "closed" : conn_endings[i];

        if ((self->endings[i] = PyUnicode_InternFromString(text)) == NULL) {
            Py_DECREF(self);
            return NULL;
        }
    }
    if ((rv = hs_parking_new(&err, &self->core)) != HS_OK) {
        Py_DECREF(self);
        (void)raise_plain_error(st, &err, rv);
        return NULL;
    }
    return (PyObject *)self;
}

/* ---- Calls --------------------------------------------------------------------------------- */

struct parking_call {
    struct hs_parking *core; /* borrows: of the object, which the caller has */
    struct hs_conn *conn;    /* borrows; NULL: nothing is parked first */
    PyObject *what;          /* borrows; for the core, which does not look at it */
    int64_t span_ns;
    bool newcomer;
    enum hs_parking_answer answer;
    struct hs_close_report report;
    struct hs_parked_conn parked[MAX_TENDED];
    size_t n;
    struct hs_error err;
    hs_err rv;
};

/* conn, what, seconds, of which each is positional. The reference to what is the parking's if it
 * takes it: made before anybody else can be given it. */
static int
parse_call(PyObject *self, struct parking_call *c, PyObject *const *args, Py_ssize_t nargs,
           const char *name)
{
    const struct params p = {name, 3, 4, 4, {"conn", "what", "seconds", "newcomer"}};
    PyObject *values[MAX_PARAMS];

    c->core = ((ParkingObject *)self)->core;
    if (parse_args(&p, args, nargs, NULL, values) < 0 ||
        parse_seconds(values[2], "seconds", &c->span_ns) < 0 ||
        parse_bool(values[3], "newcomer", &c->newcomer) < 0)
        return -1;
    if (!PyObject_TypeCheck(values[0], state_of(self)->conn_type)) {
        PyErr_SetString(PyExc_TypeError, "conn must be a Connection");
        return -1;
    }
    c->conn = ((ConnObject *)values[0])->core;
    c->what = values[1];
    if (conn_is_let_go((ConnObject *)values[0]))
        c->answer = HS_PARKING_CLOSED;
    else
        Py_INCREF(c->what);
    return 0;
}

/* News are told in tuples that were made before: once they are taken out there is no other way to
 * hear of them. So nothing here needs memory: small integers are there. */
static PyObject *
new_news(void)
{
    PyObject *news = PyTuple_New(4);

    if (news != NULL)
        PyObject_GC_UnTrack(news); /* Nobody is to find it while it is empty. */
    return news;
}

/* It takes the reference to what; the one to the connection goes. */
static void
fill_news(PyObject *self, PyObject *news, const struct hs_parked_conn *parked)
{
    bool ends = parked->news == HS_PARKED_ENDED || parked->news == HS_PARKED_FINISHED;
    int which = parked->closed_here ? CLOSED_HERE : (int)parked->ending;
    PyObject *ending = ends ? ((ParkingObject *)self)->endings[which] : Py_None;

    hs_conn_unref(parked->conn);
    PyTuple_SET_ITEM(news, 0, parked->arg);
    PyTuple_SET_ITEM(news, 1, PyLong_FromLong((long)parked->news));
    PyTuple_SET_ITEM(news, 2, Py_NewRef(ending));
    PyTuple_SET_ITEM(news, 3, PyBool_FromLong(parked->alone));
    PyObject_GC_Track(news);
}

static void
park_detached(void *arg)
{
    struct parking_call *c = arg;

    c->rv =
        hs_parking_park(c->core, c->conn, c->what, c->span_ns, c->newcomer, &c->err, &c->answer);
}

/* An answer, or -1 with an exception. */
static int
end_parking(PyObject *self, struct parking_call *c)
{
    if (c->rv == HS_OK && c->answer == HS_PARKING_TAKEN)
        return HS_PARKING_TAKEN;
    Py_DECREF(c->what);
    if (c->rv == HS_OK)
        return (int)c->answer;
    return raise_conn_error(state_of(self), c->conn, &c->err, c->rv);
}

PyDoc_STRVAR(park_doc,
             "park($self, conn, what, seconds, newcomer=False, /)\n--\n\n"
             "Park until a message begins; 0, or why not: what and conn are still the caller's.");

static PyObject *
parking_park(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct parking_call c = {.answer = HS_PARKING_TAKEN};
    int answer;

    if (parse_call(self, &c, args, nargs, "park") < 0)
        return NULL;
    if (c.answer == HS_PARKING_CLOSED)
        return PyLong_FromLong(HS_PARKING_CLOSED);
    run_detached(park_detached, &c);
    return (answer = end_parking(self, &c)) < 0 ? NULL : PyLong_FromLong(answer);
}

static void
next_detached(void *arg)
{
    struct parking_call *c = arg;

    c->rv = hs_parking_next(c->core, &c->err, c->parked);
}

/* Takes the reference to news. */
static PyObject *
wait_for_next(PyObject *self, struct parking_call *c, PyObject *news)
{
    while (c->rv == HS_INTR) {
        if (PyErr_CheckSignals() < 0) {
            Py_DECREF(news);
            return NULL;
        }
        run_waiting(state_of(self), next_detached, c);
    }
    if (c->rv == HS_OK) {
        fill_news(self, news, c->parked);
        return news;
    }
    Py_DECREF(news);
    if (c->rv == HS_E_CLOSED)
        Py_RETURN_NONE;
    (void)raise_plain_error(state_of(self), &c->err, c->rv);
    return NULL;
}

PyDoc_STRVAR(next_doc,
             "next($self, /)\n--\n\n"
             "Wait for the next one with news: (what, news, ending, alone); None: it was\n"
             "closed.");

static PyObject *
parking_next(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct parking_call c = {.core = ((ParkingObject *)self)->core};
    PyObject *news = new_news();

    if (news == NULL)
        return NULL;
    run_waiting(state_of(self), next_detached, &c);
    return wait_for_next(self, &c, news);
}

static void
turn_detached(void *arg)
{
    struct parking_call *c = arg;

    park_detached(c);
    if (c->rv == HS_OK && c->answer == HS_PARKING_TAKEN)
        next_detached(c);
}

PyDoc_STRVAR(turn_doc, "turn($self, conn, what, seconds, /)\n--\n\n"
                       "As park, and when that took it, as next; without a moment in between in\n"
                       "which another thread runs Python. 0: it is parked, but waiting failed,\n"
                       "and next tells why.");

static PyObject *
parking_turn(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    /* It may not be taken, and then the error is about parking it. */
    struct parking_call c = {.answer = HS_PARKING_UNFIT};
    PyObject *news;

    if (parse_call(self, &c, args, nargs, "turn") < 0)
        return NULL;
    if (c.answer == HS_PARKING_CLOSED)
        return PyLong_FromLong(HS_PARKING_CLOSED);
    if ((news = new_news()) == NULL) {
        Py_DECREF(c.what);
        return NULL;
    }
    run_waiting(state_of(self), turn_detached, &c);
    if (c.answer == HS_PARKING_TAKEN) {
        if (c.rv == HS_OK || c.rv == HS_INTR || c.rv == HS_E_CLOSED)
            return wait_for_next(self, &c, news);
        c.rv = HS_OK; /* It is somebody else's to speak of, and no failure of conn. */
    }
    Py_DECREF(news);
    return end_parking(self, &c) < 0 ? NULL : PyLong_FromLong(c.answer);
}

static void
linger_detached(void *arg)
{
    struct parking_call *c = arg;

    c->rv = hs_parking_linger(c->core, c->conn, c->what, c->span_ns, &c->err, &c->report);
}

PyDoc_STRVAR(linger_doc, "linger($self, conn, what, seconds, /)\n--\n\n"
                         "finish(), parked: None; or the ending, when it was over at once.");

static PyObject *
parking_linger(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct parking_call c = {.answer = HS_PARKING_TAKEN};

    if (parse_call(self, &c, args, nargs, "linger") < 0)
        return NULL;
    if (c.answer == HS_PARKING_CLOSED)
        return PyUnicode_FromString("closed");
    run_detached(linger_detached, &c);
    if (c.rv == HS_WANT)
        Py_RETURN_NONE;
    Py_DECREF(c.what);
    if (c.rv == HS_OK)
        return PyUnicode_FromString(conn_endings[c.report.ending]);
    if (c.rv == HS_E_CLOSED)
        return PyUnicode_FromString("closed");
    (void)raise_conn_error(state_of(self), c.conn, &c.err, c.rv);
    return NULL;
}

static void
tend_detached(void *arg)
{
    struct parking_call *c = arg;

    c->n = hs_parking_tend(c->core, MAX_TENDED, c->parked);
}

PyDoc_STRVAR(tend_doc,
             "tend($self, /)\n--\n\n"
             "A list of those with other news than a message, as next has them; some, and\n"
             "an empty one when there are no more.");

/* A list of as many empty news, for who has no other way to hear of them. */
static PyObject *
new_list(void)
{
    PyObject *list = hs_list_new(MAX_TENDED);

    if (list == NULL)
        return NULL;
    PyObject_GC_UnTrack(list);
    for (Py_ssize_t i = 0; i < MAX_TENDED; i++) {
        PyObject *news = new_news();

        if (news == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, i, news);
    }
    return list;
}

static void
fill_list(PyObject *self, PyObject *list, const struct hs_parked_conn *parked, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fill_news(self, PyList_GET_ITEM(list, (Py_ssize_t)i), &parked[i]);
    for (size_t i = n; i < MAX_TENDED; i++)
        Py_DECREF(PyList_GET_ITEM(list, (Py_ssize_t)i));
    Py_SET_SIZE(list, (Py_ssize_t)n); /* Slicing may need memory. */
    PyObject_GC_Track(list);
}

static PyObject *
parking_tend(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct parking_call c = {.core = ((ParkingObject *)self)->core};
    PyObject *list = new_list();

    if (list == NULL)
        return NULL;
    run_detached(tend_detached, &c);
    fill_list(self, list, c.parked, c.n);
    return list;
}

/* ---- In an event loop ---------------------------------------------------------------------- */

struct parked_news {
    PyObject *list; /* owns: empty until there are some */
    size_t n;
    struct hs_parked_conn parked[MAX_TENDED];
};

static hs_err
attempt_poll(struct job *job)
{
    struct hs_parking *core = ((ParkingObject *)job->owner)->core;
    struct parked_news *news = job->u.news;

    return hs_parking_poll(core, &job->call.op, MAX_TENDED, job->call.err, news->parked, &news->n);
}

static PyObject *
take_news(struct job *job)
{
    struct parked_news *news = job->u.news;
    PyObject *list = news->list;

    news->list = NULL;
    fill_list(job->owner, list, news->parked, news->n);
    return list;
}

static void
release_news(struct job *job)
{
    Py_XDECREF(job->u.news->list);
    PyMem_Free(job->u.news);
}

PyDoc_STRVAR(poll_doc,
             "poll($self, /, *, timeout=None, token=None)\n--\n\n"
             "Wait for the next with news; a list of some that have, as next has them.\n\n"
             "Raises Closed when it was closed.");

static int
parking_prepare_poll(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                     struct job *job)
{
    static const struct params p = {"poll", 0, 0, 0, {"timeout", "token"}};
    PyObject *values[MAX_PARAMS];

    if (parse_args(&p, args, nargs, kwnames, values) < 0)
        return -1;
    if ((job->u.news = PyMem_Calloc(1, sizeof(*job->u.news))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    job->release = release_news;
    if ((job->u.news->list = new_list()) == NULL)
        return -1;
    job->owner = Py_NewRef(self);
    job->attempt = attempt_poll;
    job->result = take_news;
    job->call.is_patient = true;
    return call_begin(&job->call, state_of(self), values[0], values[1], HS_NEVER);
}

STATIC_JOB_METHODS(parking, poll)

static void
drain_detached(void *arg)
{
    hs_parking_drain(arg);
}

PyDoc_STRVAR(drain_doc, "drain($self, /)\n--\n\n"
                        "From now on the quiet are not parked: those that are have news.");

static PyObject *
parking_drain(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    run_detached(drain_detached, ((ParkingObject *)self)->core);
    Py_RETURN_NONE;
}

struct taking {
    struct hs_parking *core;
    int64_t silence_ns;
    struct hs_conn *conn;
    void *what;
    bool took, quiet;
};

static void
parking_take_detached(void *arg)
{
    struct taking *t = arg;

    if ((t->took = hs_parking_take(t->core, &t->conn, &t->what, &t->quiet)))
        hs_conn_unref(t->conn); /* what keeps it */
}

PyDoc_STRVAR(take_doc,
             "take($self, /)\n--\n\n"
             "Any that is here, as it is: (what, whether nothing of its has come, None, False);\n"
             "None: there is none.");

static PyObject *
parking_take(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct taking t = {.core = ((ParkingObject *)self)->core};
    PyObject *news = new_news();

    if (news == NULL)
        return NULL;
    run_detached(parking_take_detached, &t);
    if (!t.took) {
        Py_DECREF(news);
        Py_RETURN_NONE;
    }
    PyTuple_SET_ITEM(news, 0, t.what);
    PyTuple_SET_ITEM(news, 1, PyBool_FromLong(t.quiet));
    PyTuple_SET_ITEM(news, 2, Py_NewRef(Py_None));
    PyTuple_SET_ITEM(news, 3, Py_NewRef(Py_False));
    PyObject_GC_Track(news);
    return news;
}

static void
parking_evict_detached(void *arg)
{
    struct taking *t = arg;

    if ((t->took = hs_parking_evict(t->core, t->silence_ns, &t->conn, &t->what)))
        hs_conn_unref(t->conn); /* what keeps it */
}

PyDoc_STRVAR(evict_doc,
             "evict($self, silence, /)\n--\n\n"
             "The what of the oldest of which not a byte has come for that many seconds;\n"
             "None: there is none.");

static PyObject *
parking_evict(PyObject *self, PyObject *silence)
{
    struct taking t = {.core = ((ParkingObject *)self)->core};

    if (parse_seconds(silence, "silence", &t.silence_ns) < 0)
        return NULL;
    run_detached(parking_evict_detached, &t);
    if (!t.took)
        Py_RETURN_NONE;
    return t.what;
}

static void
parking_close_detached(void *arg)
{
    hs_parking_close(arg);
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "The one who waits, or will, gets None once nothing has news. Idempotent.");

static PyObject *
parking_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    run_detached(parking_close_detached, ((ParkingObject *)self)->core);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(counts_doc, "counts($self, /)\n--\n\n"
                         "How many are here without news, and how many with.");

static PyObject *
parking_counts(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    size_t parked, due;

    hs_parking_counts(((ParkingObject *)self)->core, &parked, &due);
    return Py_BuildValue("(nn)", (Py_ssize_t)parked, (Py_ssize_t)due);
}

/* ---- The type ------------------------------------------------------------------------------ */

static void
parking_dealloc(PyObject *obj)
{
    ParkingObject *self = (ParkingObject *)obj;
    struct hs_conn *conn;
    void *what;
    bool quiet;

    PyObject_GC_UnTrack(obj);
    while (self->core != NULL && hs_parking_take(self->core, &conn, &what, &quiet)) {
        hs_conn_unref(conn);
        Py_DECREF((PyObject *)what);
    }
    hs_parking_unref(self->core);
    for (int i = 0; i <= CLOSED_HERE; i++)
        Py_XDECREF(self->endings[i]);
    object_free(obj);
}

static int
parking_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    return 0;
}

static PyMethodDef parking_methods[] = {
    {"park", HS_METHOD(parking_park), METH_FASTCALL, park_doc},
    {"next", parking_next, METH_NOARGS, next_doc},
    {"turn", HS_METHOD(parking_turn), METH_FASTCALL, turn_doc},
    {"linger", HS_METHOD(parking_linger), METH_FASTCALL, linger_doc},
    {"tend", parking_tend, METH_NOARGS, tend_doc},
    {"poll", HS_METHOD(parking_poll), METH_FASTCALL | METH_KEYWORDS, poll_doc},
    {"_op_poll", HS_METHOD(parking_op_poll), METH_FASTCALL | METH_KEYWORDS, OP_DOC("poll")},
    {"drain", parking_drain, METH_NOARGS, drain_doc},
    {"evict", parking_evict, METH_O, evict_doc},
    {"take", parking_take, METH_NOARGS, take_doc},
    {"close", parking_close, METH_NOARGS, close_doc},
    {"counts", parking_counts, METH_NOARGS, counts_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(parking_doc,
             "Parking()\n--\n\n"
             "Connections that are quiet, and the threads that wait for news of them.");

static PyType_Slot parking_slots[] = {
    {Py_tp_new, HS_SLOT(parking_new)},           {Py_tp_dealloc, HS_SLOT(parking_dealloc)},
    {Py_tp_traverse, HS_SLOT(parking_traverse)}, {Py_tp_methods, parking_methods},
    {Py_tp_doc, (void *)(uintptr_t)parking_doc}, {0, NULL},
};

PyType_Spec parking_spec = {
    .name = "hardsock._core.Parking",
    .basicsize = sizeof(ParkingObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = parking_slots,
};
