/* compat.h: the only place that looks at the Python version.
 *
 * CPython 3.10 to 3.14, with and without the GIL.
 */
#ifndef HS_BINDING_COMPAT_H
#define HS_BINDING_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

#if PY_VERSION_HEX >= 0x030C0000
#define HS_SLOT_INTERPRETERS {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#else
#define HS_SLOT_INTERPRETERS
#endif

#if PY_VERSION_HEX >= 0x030D0000
#define HS_SLOT_GIL {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#else
#define HS_SLOT_GIL
#endif

/* Until 3.14 a thread that attaches once the interpreter has gone is ended by pthread_exit(3), for
 * which glibc loads libgcc_s; where no descriptor is left to open it with, the process aborts. */
#if PY_VERSION_HEX < 0x030E0000 && defined(__GLIBC__)
#include <execinfo.h>

static inline void
hs_prepare_thread_ends(void)
{
    void *frame;

    (void)backtrace(&frame, 1); /* It loads the same, which stays: NOTES of backtrace(3). */
}
#else
static inline void
hs_prepare_thread_ends(void)
{
}
#endif

/* Member kinds moved from structmember.h to Python.h in 3.12. */
#if PY_VERSION_HEX >= 0x030C0000
#define HS_T_PYSSIZET Py_T_PYSSIZET
#define HS_READONLY Py_READONLY
#else
#include <structmember.h>
#define HS_T_PYSSIZET T_PYSSIZET
#define HS_READONLY READONLY
#endif

/* A method table wants PyCFunction; METH_FASTCALL | METH_KEYWORDS functions have another type,
 * which CPython casts back before the call. */
#define HS_METHOD(fn) ((PyCFunction)(void (*)(void))(fn))
/* Slots hold object pointers; POSIX guarantees that function pointers fit. */
#define HS_SLOT(fn) ((void *)(fn))

/* A list of n places, which PyList_SET_ITEM fills before anybody else sees it. Without the GIL
 * PyList_New(n) crashes when there is memory for a list and none for its places (gh-152125).
 * returns: new reference; NULL with MemoryError */
static inline PyObject *
hs_list_new(Py_ssize_t n)
{
#ifdef Py_GIL_DISABLED
    PyObject *list = PyList_New(0);

    for (Py_ssize_t i = 0; list != NULL && i < n; i++)
        if (PyList_Append(list, Py_None) < 0) /* It is immortal, so it may be written over. */
            Py_CLEAR(list);
    return list;
#else
    return PyList_New(n);
#endif
}

/* A StopIteration made beforehand, so that ending an iteration with a value cannot fail for want of
 * memory: the value may be all that there is of what a peer sent. */
static inline PyObject *
hs_stop_new(void)
{
    return PyObject_CallNoArgs(PyExc_StopIteration);
}

/* returns: new reference to what dict has under key, or NULL; sets no exception. Without the GIL
 * another thread may replace the value at any time, so a borrowed one would not do. */
static inline PyObject *
hs_dict_get(PyObject *dict, const char *key)
{
    PyObject *value = NULL;

#if PY_VERSION_HEX >= 0x030D0000
    if (PyDict_GetItemStringRef(dict, key, &value) < 0)
        PyErr_Clear();
#else
    value = PyDict_GetItemString(dict, key);
    Py_XINCREF(value);
#endif
    return value;
}

/* The same with a str that is kept. */
static inline PyObject *
hs_dict_find(PyObject *dict, PyObject *key)
{
    PyObject *value = NULL;

#if PY_VERSION_HEX >= 0x030D0000
    if (PyDict_GetItemRef(dict, key, &value) < 0)
        PyErr_Clear();
#else
    value = PyDict_GetItemWithError(dict, key);
    if (value == NULL)
        PyErr_Clear();
    Py_XINCREF(value);
#endif
    return value;
}

/* Ends an iteration with a value that may be a tuple or an exception itself. Takes both. */
static inline void
hs_stop_iteration(PyObject *stop, PyObject *value)
{
    Py_SETREF(((PyStopIterationObject *)(void *)stop)->value, value);
    PyErr_SetObject(PyExc_StopIteration, stop);
    Py_DECREF(stop);
}

/* Whether loop is the asyncio loop that runs in this thread; -1: asyncio must be asked. Until 3.11
 * its answer costs a system call each time (getpid, for forked children, which are told elsewhere),
 * so there we look at what _asyncio keeps in the thread's state. Those versions change no more. */
#if PY_VERSION_HEX < 0x030C0000
#include <string.h>

struct hs_running_loop_holder {
    PyObject_HEAD
    PyObject *loop;
    pid_t pid;
};

/* *ret_holder: borrowed; NULL: no loop has run yet. -1: asyncio must be asked. */
static inline int
hs_loop_holder(PyObject *key, const struct hs_running_loop_holder **ret_holder)
{
    PyObject *dict = PyThreadState_GetDict();
    PyObject *holder = dict == NULL ? NULL : PyDict_GetItemWithError(dict, key);

    *ret_holder = (struct hs_running_loop_holder *)(void *)holder;
    if (holder == NULL)
        return PyErr_Occurred() ? -1 : 0;
    return strcmp(Py_TYPE(holder)->tp_name, "_RunningLoopHolder") != 0 ||
                   (size_t)Py_TYPE(holder)->tp_basicsize != sizeof(struct hs_running_loop_holder)
               ? -1
               : 0;
}

static inline int
hs_loop_runs(PyObject *key, const void *loop)
{
    const struct hs_running_loop_holder *holder;

    if (hs_loop_holder(key, &holder) < 0 || holder == NULL)
        return -1;
    return (const void *)holder->loop == loop;
}

/* Whether any loop of asyncio runs in this thread; -1: asyncio must be asked. */
static inline int
hs_any_loop_runs(PyObject *key)
{
    const struct hs_running_loop_holder *holder;

    if (hs_loop_holder(key, &holder) < 0)
        return -1;
    return holder != NULL && holder->loop != NULL && holder->loop != Py_None;
}

/* Which one, where hs_any_loop_runs() says 1: a new reference; NULL: it is that of a process which
 * has forked this one, as asyncio has it. process: in which the caller is. */
static inline PyObject *
hs_running_loop(PyObject *key, pid_t process)
{
    const struct hs_running_loop_holder *holder;

    if (hs_loop_holder(key, &holder) < 0 || holder == NULL || holder->pid != process)
        return NULL;
    return Py_NewRef(holder->loop);
}
#else
static inline int
hs_loop_runs(PyObject *Py_UNUSED(key), const void *Py_UNUSED(loop))
{
    return -1;
}

static inline int
hs_any_loop_runs(PyObject *Py_UNUSED(key))
{
    return -1;
}

static inline PyObject *
hs_running_loop(PyObject *Py_UNUSED(key), pid_t Py_UNUSED(process))
{
    return NULL;
}
#endif

/* Around the short use of something of self's own that is for one thread at a time. In one function
 * at most once, and nothing may leave in between. */
#ifdef Py_GIL_DISABLED
#define HS_BEGIN_LOCKED(self) Py_BEGIN_CRITICAL_SECTION(self)
#define HS_END_LOCKED() Py_END_CRITICAL_SECTION()
#else
#define HS_BEGIN_LOCKED(self) {
#define HS_END_LOCKED() }
#endif

/* Whether the process ends: a thread that attaches now is ended, or hangs. */
static inline bool
hs_process_ends(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing() != 0;
#else
    return _Py_IsFinalizing() != 0;
#endif
}

/* A new reference to what a weak reference is of, or NULL, without an exception, when that is going
 * or gone. */
static inline PyObject *
hs_weakref_get(PyObject *weak)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *obj;

    if (PyWeakref_GetRef(weak, &obj) < 0)
        PyErr_Clear();
    return obj;
#else
    PyObject *obj = PyWeakref_GetObject(weak);

    return obj == Py_None ? NULL : Py_NewRef(obj);
#endif
}

static inline void
hs_raise(PyObject *exc)
{
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_DECREF(exc);
}

#endif
