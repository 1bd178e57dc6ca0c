/* type_borrowing.c: what pool.connection() returns: a context manager that borrows and returns.
 *
 * In C, so that no bytecode runs between the lending and the with statement's knowing of it: a
 * signal handler that raises cannot lose the connection there. One use at a time.
 */
#include "binding/stream/conn.h"

typedef struct {
    HS_HEAD
    PoolObject *pool;          /* owns */
    PyObject *timeout, *token; /* own; or NULL */
    PyObject *conn;            /* owns: while in the block */
} BorrowingObject;

PyObject *
borrowing_new(PoolObject *pool, PyObject *timeout, PyObject *token)
{
    BorrowingObject *self = object_new(pool->st, pool->st->borrowing_type);

    if (self == NULL)
        return NULL;
    self->pool = (PoolObject *)Py_NewRef((PyObject *)pool);
    self->timeout = Py_XNewRef(timeout);
    self->token = Py_XNewRef(token);
    return (PyObject *)self;
}

/* A subclass may have hooks around it. */
static PyObject *
acquire(BorrowingObject *self)
{
    PyObject *method, *args, *kwargs, *conn = NULL;

    if (!self->pool->hooked)
        return pool_borrow(self->pool, self->timeout, self->token);
    method = PyObject_GetAttr((PyObject *)self->pool, self->pool->st->str_acquire);
    args = PyTuple_New(0);
    kwargs = Py_BuildValue("{sOsO}", "timeout", self->timeout ? self->timeout : Py_None, "token",
                           self->token ? self->token : Py_None);
    if (method != NULL && args != NULL && kwargs != NULL)
        conn = PyObject_Call(method, args, kwargs);
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return conn;
}

static PyObject *
borrowing_give_back(BorrowingObject *self, PyObject *conn, bool failed)
{
    PyObject *method, *args, *kwargs, *result = NULL;

    if (!self->pool->hooked)
        return pool_return_if_held(self->pool, conn, failed ? HS_RETURN_FAILED : HS_RETURN_DONE);
    method = PyObject_GetAttr((PyObject *)self->pool, self->pool->st->str_release);
    args = PyTuple_Pack(1, conn);
    kwargs = Py_BuildValue("{sO}", "failed", failed ? Py_True : Py_False);
    if (method != NULL && args != NULL && kwargs != NULL)
        result = PyObject_Call(method, args, kwargs);
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return result;
}

static const char in_use[] = "this context manager is in use already";

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nBorrow a connection and return it.");

static PyObject *
borrowing_enter(PyObject *obj, PyObject *Py_UNUSED(ignored))
{
    BorrowingObject *self = (BorrowingObject *)obj;
    PyObject *conn, *result;
    bool taken = false;

    if (self->conn != NULL) {
        PyErr_SetString(PyExc_RuntimeError, in_use);
        return NULL;
    }
    if ((conn = acquire(self)) == NULL)
        return NULL;
    HS_BEGIN_LOCKED(obj);
    if (self->conn == NULL)
        self->conn = Py_NewRef(conn);
    else
        taken = true;
    HS_END_LOCKED();
    if (!taken)
        return conn;
    result = borrowing_give_back(self, conn, false);
    Py_XDECREF(result);
    Py_DECREF(conn);
    if (result != NULL)
        PyErr_SetString(PyExc_RuntimeError, in_use);
    return NULL;
}

PyDoc_STRVAR(exit_doc, "__exit__($self, exc_type, exc, traceback, /)\n--\n\n"
                       "Return it. After an exception it is lent again only if nothing went since\n"
                       "it was marked clean.");

static PyObject *
borrowing_exit(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    BorrowingObject *self = (BorrowingObject *)obj;
    PyObject *conn, *result;

    HS_BEGIN_LOCKED(obj);
    conn = self->conn;
    self->conn = NULL;
    HS_END_LOCKED();
    if (conn == NULL)
        Py_RETURN_NONE;
    if (conn_is_let_go((ConnObject *)conn))
        result = Py_NewRef(Py_None); /* Closed or returned in the block. */
    else
        result = borrowing_give_back(self, conn, nargs > 0 && args[0] != Py_None);
    Py_DECREF(conn);
    Py_XDECREF(result);
    if (result == NULL)
        return NULL;
    Py_RETURN_NONE;
}

static int
borrowing_traverse(PyObject *obj, visitproc visit, void *arg)
{
    BorrowingObject *self = (BorrowingObject *)obj;

    HS_VISIT_HEAD(obj);
    Py_VISIT(self->pool);
    Py_VISIT(self->timeout);
    Py_VISIT(self->token);
    Py_VISIT(self->conn);
    return 0;
}

static int
borrowing_clear(PyObject *obj)
{
    BorrowingObject *self = (BorrowingObject *)obj;

    Py_CLEAR(self->conn);
    Py_CLEAR(self->timeout);
    Py_CLEAR(self->token);
    Py_CLEAR(self->pool);
    return 0;
}

static void
borrowing_dealloc(PyObject *obj)
{
    PyObject_GC_UnTrack(obj);
    (void)borrowing_clear(obj);
    object_free(obj);
}

static PyMethodDef borrowing_methods[] = {
    {"__enter__", borrowing_enter, METH_NOARGS, enter_doc},
    {"__exit__", HS_METHOD(borrowing_exit), METH_FASTCALL, exit_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(borrowing_doc, "A connection for the length of a with block; see Pool.connection.");

static PyType_Slot borrowing_slots[] = {
    {Py_tp_dealloc, HS_SLOT(borrowing_dealloc)},   {Py_tp_traverse, HS_SLOT(borrowing_traverse)},
    {Py_tp_clear, HS_SLOT(borrowing_clear)},       {Py_tp_methods, borrowing_methods},
    {Py_tp_doc, (void *)(uintptr_t)borrowing_doc}, {0, NULL},
};

PyType_Spec borrowing_spec = {
    .name = "hardsock._core.Borrowing",
    .basicsize = sizeof(BorrowingObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = borrowing_slots,
};
