/* tracking.c: which descriptors this interpreter's objects own, where in the program they were
 * made, and for whom.
 *
 * A call site costs a look at one or two frames, at the beginning of the call: then the line of the
 * caller is on the stack, no matter who ends the call. The owner is whatever object the context
 * variable _core.owner holds, and looked for only while somebody wants to know (a test runner).
 *
 * The list is guarded by conn_type's critical section, where there is no GIL to do so. Within it
 * nothing is allocated, called or let go of: it could be suspended there.
 *
 * The watch on descriptors has no thread: it looks when one is opened here. The kernel gives the
 * lowest free number, so a number tells that as many are open, at least. For numbers that are free
 * below ones in use all are counted as well, after so many openings as the last count said.
 */
#include "tracking.h"

#include "args.h"

#include <errno.h>

/* ---- The watch ----------------------------------------------------------------------------- */

/* check counts, tells whom it may concern, and says after how many openings to do so again. An
 * exception of its own fails no call. */
static void
tracking_look(mod_state *st)
{
    PyObject *type, *value, *traceback, *result;
    long due = 1;

    PyErr_Fetch(&type, &value, &traceback);
    result = PyObject_CallNoArgs(st->fd_check);
    if (result == NULL || parse_long(result, "check", 1, INT_MAX, &due) < 0)
        PyErr_WriteUnraisable(st->fd_check);
    atomic_store_explicit(&st->fd_due, (int)due, memory_order_relaxed);
    Py_XDECREF(result);
    PyErr_Restore(type, value, traceback);
}

static void
watch_number(mod_state *st, int fd)
{
    int mark = atomic_load_explicit(&st->fd_mark, memory_order_acquire);

    if (mark == INT_MAX)
        return;
    if (atomic_fetch_sub_explicit(&st->fd_due, 1, memory_order_relaxed) <= 1 || fd >= mark)
        tracking_look(st);
}

void
tracking_failed(mod_state *st, int sys)
{
    if ((sys == EMFILE || sys == ENFILE) &&
        atomic_load_explicit(&st->fd_mark, memory_order_acquire) != INT_MAX)
        tracking_look(st);
}

/* ---- Origins ------------------------------------------------------------------------------- */

/* A new reference, or NULL: nobody wants to know, or there is none. */
static PyObject *
current_owner(mod_state *st)
{
    PyObject *owner = NULL;

    if (!atomic_load_explicit(&st->tells_owners, memory_order_relaxed))
        return NULL;
    if (PyContextVar_Get(st->owner, NULL, &owner) < 0)
        PyErr_Clear();
    return owner;
}

void
opening_begin(mod_state *st, struct opening *o, enum opened_how how)
{
    o->how = how;
    if (!call_site_outside(st, &o->site))
        o->site = (struct call_site){0};
    Py_XINCREF(o->site.code);
    o->owner = current_owner(st);
}

void
opening_like(struct opening *o, enum opened_how how, const struct opened *from)
{
    o->how = how;
    o->site = from->site;
    Py_XINCREF(o->site.code);
    o->owner = Py_XNewRef(from->owner);
}

void
opening_end(struct opening *o)
{
    Py_CLEAR(o->site.code);
    Py_CLEAR(o->owner);
}

/* ---- The list ------------------------------------------------------------------------------ */

static void
put_in(mod_state *st, struct opened *o)
{
    HS_BEGIN_LOCKED((PyObject *)st->conn_type);
    o->prev = NULL;
    o->next = st->opened;
    if (o->next != NULL)
        o->next->prev = o;
    st->opened = o;
    o->listed = true;
    HS_END_LOCKED();
}

static void
tracking_take_out(mod_state *st, struct opened *o)
{
    HS_BEGIN_LOCKED((PyObject *)st->conn_type);
    if (o->next != NULL)
        o->next->prev = o->prev;
    if (o->prev != NULL)
        o->prev->next = o->next;
    else
        st->opened = o->next;
    o->listed = false;
    HS_END_LOCKED();
}

static void
tracking_begin(mod_state *st, struct opened *o)
{
    o->serial = atomic_fetch_add_explicit(&st->serial, 1, memory_order_relaxed) + 1;
    o->since_ns = hs_now();
    o->thread = PyThread_get_thread_ident();
}

/* For those who look without the interpreter. */
static void
tracking_tell_core(mod_state *st, struct opened *o)
{
    static const enum hs_made made[] = {
        [OPENED_CONNECT] = HS_MADE_CONNECT,
        [OPENED_ACCEPT] = HS_MADE_ACCEPT,
        [OPENED_ADOPT] = HS_MADE_ADOPT,
    };

    struct hs_conn *conn = o->kind->conn(o);

    if (conn != NULL)
        hs_conn_set_site(conn, made[o->how], call_site_intern(st, &o->site), o->thread);
}

void
tracking_add(mod_state *st, struct opened *o, const struct opening *from, int fd)
{
    tracking_begin(st, o);
    o->how = from->how;
    o->site = from->site;
    Py_XINCREF(o->site.code);
    o->owner = Py_XNewRef(from->owner);
    put_in(st, o);
    tracking_tell_core(st, o);
    watch_number(st, fd);
}

void
tracking_share(mod_state *st, struct opened *o, const struct opened *from)
{
    o->how = from->how;
    o->serial = from->serial;
    o->since_ns = from->since_ns;
    o->thread = from->thread;
    o->site = from->site;
    Py_XINCREF(o->site.code);
    o->owner = Py_XNewRef(from->owner);
    put_in(st, o);
}

void
opened_list_lent(mod_state *st, struct opened *o)
{
    tracking_begin(st, o);
    o->owner = current_owner(st);
    put_in(st, o);
}

void
opened_end(mod_state *st, struct opened *o)
{
    tracking_take_out(st, o);
    Py_CLEAR(o->owner);
}

/* ---- Telling ------------------------------------------------------------------------------- */

static const char *const how_names[] = {
    [OPENED_CONNECT] = "connect", [OPENED_ACCEPT] = "accept", [OPENED_ADOPT] = "adopt",
    [OPENED_LISTEN] = "listen",   [OPENED_LENT] = "lent",
};

/* One of the list, with references of its own. */
struct copy {
    enum opened_how how;
    uint64_t serial, thread;
    int64_t since_ns;
    struct call_site site;
    PyObject *owner;
    struct hs_conn *conn; /* or NULL and: */
    struct hs_listener *listener;
};

static void
copy_locked(struct opened *o, struct copy *c)
{
    struct hs_conn *conn;

    *c = (struct copy){
        .how = o->how,
        .serial = o->serial,
        .thread = o->thread,
        .since_ns = o->since_ns,
        .site = o->site,
        .owner = Py_XNewRef(o->owner),
    };
    Py_XINCREF(c->site.code);
    if ((conn = o->kind->conn(o)) != NULL)
        c->conn = hs_conn_ref(conn);
    else
        c->listener = hs_listener_ref(o->kind->listener(o));
}

/* How many there are; the first `room` are copied. */
static size_t
copy_all(mod_state *st, struct copy *copies, size_t room)
{
    size_t n = 0;

    HS_BEGIN_LOCKED((PyObject *)st->conn_type);
    for (struct opened *o = st->opened; o != NULL; o = o->next)
        if (o->kind->is_open(o) && n++ < room)
            copy_locked(o, &copies[n - 1]);
    HS_END_LOCKED();
    return n;
}

static void
release_copy(struct copy *c)
{
    hs_conn_unref(c->conn);
    hs_listener_unref(c->listener);
    Py_XDECREF(c->site.code);
    Py_XDECREF(c->owner);
}

static PyObject *
object_or_none(PyObject *obj)
{
    return obj != NULL ? obj : Py_None;
}

static PyObject *
address_or_none(hs_err rv, const struct hs_addr *addr)
{
    if (rv != HS_OK)
        Py_RETURN_NONE;
    return address_text(addr);
}

static PyObject *
copy_object(mod_state *st, const struct copy *c, int fd)
{
    struct hs_addr local, peer;
    hs_err local_rv, peer_rv = HS_E_CLOSED;

    if (c->conn != NULL) {
        local_rv = hs_conn_local_addr(c->conn, NULL, &local);
        peer_rv = hs_conn_peer_addr(c->conn, NULL, &peer);
    } else {
        local_rv = hs_listener_addr(c->listener, NULL, &local);
    }
    return record_new(st->opened_record, "sKiNNOiLKO", how_names[c->how],
                      (unsigned long long)c->serial, fd, address_or_none(local_rv, &local),
                      address_or_none(peer_rv, &peer), object_or_none(c->site.code), c->site.at,
                      (long long)c->since_ns, (unsigned long long)c->thread,
                      object_or_none(c->owner));
}

static PyObject *
list_copies(mod_state *st, const struct copy *copies, size_t n)
{
    PyObject *list = PyList_New(0);

    for (size_t i = 0; list != NULL && i < n; i++) {
        const struct copy *c = &copies[i];
        int fd = c->conn != NULL ? hs_conn_fileno(c->conn) : hs_listener_fileno(c->listener);
        PyObject *item;

        if (fd < 0)
            continue; /* Closed. */
        item = copy_object(st, c, fd);
        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

PyDoc_STRVAR(opened_doc,
             "_opened()\n--\n\n"
             "What is open, the newest first, as OpenedRecord. Lent ones only while owners are\n"
             "told.");

static PyObject *
core_opened(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    mod_state *st = state_of_module(module);
    struct copy *copies = NULL;
    size_t room, n;
    PyObject *list;

    do { /* Until nobody has opened more than fit, meanwhile. */
        room = copy_all(st, NULL, 0) + 16;
        PyMem_Free(copies);
        if ((copies = PyMem_Calloc(room, sizeof(*copies))) == NULL)
            return PyErr_NoMemory();
        if ((n = copy_all(st, copies, room)) > room)
            for (size_t i = 0; i < room; i++)
                release_copy(&copies[i]);
    } while (n > room);
    list = list_copies(st, copies, n);
    for (size_t i = 0; i < n; i++)
        release_copy(&copies[i]);
    PyMem_Free(copies);
    return list;
}

/* ---- What was thrown away open ------------------------------------------------------------- */

void
tracking_warn(const struct opened *o, PyObject *obj)
{
    int rv;

    if (o->site.code == NULL)
        rv = PyErr_ResourceWarning(obj, 1, "unclosed %R", obj);
    else
        rv = PyErr_ResourceWarning(obj, 1, "unclosed %R, made at %U:%d", obj,
                                   ((PyCodeObject *)o->site.code)->co_filename,
                                   call_site_line(&o->site));
    if (rv < 0 && PyErr_ExceptionMatches(PyExc_Warning))
        PyErr_WriteUnraisable(obj);
}

void
tracking_thrown_away(mod_state *st, const struct opened *o, PyObject *obj)
{
    PyObject *item;

    hs_call_site_leaked(call_site_intern(st, &o->site), o->kind->conn(o));
    if (!atomic_load_explicit(&st->tells_owners, memory_order_acquire))
        return;
    item =
        record_new(st->dropped_record, "sKNOiLKO", how_names[o->how], (unsigned long long)o->serial,
                   PyObject_Repr(obj), object_or_none(o->site.code), o->site.at,
                   (long long)o->since_ns, (unsigned long long)o->thread, object_or_none(o->owner));
    if (item == NULL || PyList_Append(st->thrown_away, item) < 0)
        PyErr_WriteUnraisable(obj);
    Py_XDECREF(item);
}

PyDoc_STRVAR(tell_owners_doc,
             "_tell_owners(on, /)\n--\n\n"
             "From now on note the owner (a context variable) of all that is opened, list what\n"
             "pools lend, and keep in the list that is returned what is thrown away open, as\n"
             "DroppedRecord. Or no more.");

static PyObject *
core_tell_owners(PyObject *module, PyObject *on)
{
    mod_state *st = state_of_module(module);
    int value = PyObject_IsTrue(on);

    if (value < 0)
        return NULL;
    atomic_store_explicit(&st->tells_owners, value != 0, memory_order_release);
    return Py_NewRef(st->thrown_away);
}

PyDoc_STRVAR(
    fd_watch_doc,
    "_fd_watch(mark, due, check, /)\n--\n\n"
    "Call check() when a descriptor with a number of at least mark is opened by hardsock,\n"
    "when as many as due were, and when there are none left; mark None: never. It returns\n"
    "the next due. The first check that is given is the one for good.");

static PyObject *
core_fd_watch(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    mod_state *st = state_of_module(module);
    long mark = INT_MAX, due;

    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "_fd_watch() takes mark, due and check");
        return NULL;
    }
    if ((args[0] != Py_None && parse_long(args[0], "mark", 0, INT_MAX - 1, &mark) < 0) ||
        parse_long(args[1], "due", 1, INT_MAX, &due) < 0)
        return NULL;
    HS_BEGIN_LOCKED(module);
    if (st->fd_check == NULL)
        st->fd_check = Py_NewRef(args[2]);
    HS_END_LOCKED();
    atomic_store_explicit(&st->fd_due, (int)due, memory_order_relaxed);
    atomic_store_explicit(&st->fd_mark, (int)mark, memory_order_release);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(here_doc,
             "_here()\n--\n\n"
             "The innermost call site outside of hardsock: its code, or None, and offset.");

static PyObject *
core_here(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    struct call_site site;

    if (!call_site_outside(state_of_module(module), &site))
        return Py_BuildValue("Oi", Py_None, 0);
    return Py_BuildValue("Oi", site.code, site.at);
}

PyMethodDef tracking_functions[] = {
    {"_here", core_here, METH_NOARGS, here_doc},
    {"_opened", core_opened, METH_NOARGS, opened_doc},
    {"_tell_owners", core_tell_owners, METH_O, tell_owners_doc},
    {"_fd_watch", HS_METHOD(core_fd_watch), METH_FASTCALL, fd_watch_doc},
    {NULL, NULL, 0, NULL},
};

int
tracking_init(PyObject *module, mod_state *st)
{
    atomic_init(&st->fd_mark, INT_MAX);
    if ((st->thrown_away = PyList_New(0)) == NULL ||
        (st->owner = PyContextVar_New("hardsock.owner", NULL)) == NULL)
        return -1;
    return PyModule_AddObjectRef(module, "owner", st->owner);
}

void
opened_interpreter_ends(mod_state *st)
{
    atomic_store_explicit(&st->fd_mark, INT_MAX, memory_order_release);
    atomic_store_explicit(&st->tells_owners, false, memory_order_release);
}
