/* call_site.c: where in the program somebody makes or borrows a connection.
 *
 * The innermost frame is the caller of our C function. Frames of the package itself and of
 * contextlib are passed over, and so are those of the libraries that are registered as users of
 * ours (leaks/sites.py): the line that is wanted is that of the program which called the library.
 * What such a library calls back is most often the hook through which it came to us, so a frame
 * whose caller is the library's is passed over as well, unless the library is one that calls
 * handlers. Where a thread or an event loop begins the search ends; if it has found no line of the
 * program, the innermost one that is not our own has to do.
 *
 * How a file's frames are taken is found out once, by the name of the frame's module, and then
 * looked up by the name of the file, whose hash is known. Names such as "<string>" stand for code
 * of any module and are not kept.
 */
#include "call_site.h"

#include "compat_frame.h"

#include <string.h>

enum kind {
    KIND_PROGRAM,    /* what is looked for */
    KIND_OURS,       /* hardsock; contextlib, whose frames only pass calls on */
    KIND_LIBRARY,    /* passed over, with the hooks that it calls */
    KIND_DISPATCHER, /* a library that calls handlers of the program: those stand for themselves */
    KIND_END,        /* outside of it is nobody who asked */
};

#define MAX_FILES 4096 /* that are remembered: programs may make up names without end */

static int
find_package(mod_state *st)
{
    PyObject *package = PyImport_ImportModule("hardsock"), *path = NULL, *first = NULL;

    if (package != NULL && (path = PyObject_GetAttrString(package, "__path__")) != NULL &&
        (first = PySequence_GetItem(path, 0)) != NULL)
        st->package_dir = PyUnicode_FromFormat("%U/", first);
    Py_XDECREF(package);
    Py_XDECREF(path);
    Py_XDECREF(first);
    return st->package_dir == NULL ? -1 : 0;
}

int
call_site_init(mod_state *st)
{
    st->module_kinds = Py_BuildValue("{s:i}", "contextlib", KIND_OURS);
    if (st->module_kinds == NULL || (st->file_kinds = PyDict_New()) == NULL)
        return -1;
    return find_package(st);
}

bool
call_site_of_caller(struct call_site *ret_site)
{
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    PyCodeObject *code;

    if (frame == NULL)
        return false;
    code = PyFrame_GetCode(frame);
    ret_site->code = (PyObject *)code;
    ret_site->at = hs_frame_lasti(frame);
    Py_DECREF(code); /* The frame runs, and keeps it. */
    Py_DECREF(frame);
    return true;
}

static bool
starts_with(PyObject *text, PyObject *prefix)
{
    return PyUnicode_Tailmatch(text, prefix, 0, PY_SSIZE_T_MAX, -1) == 1;
}

/* ---- How the frames of a file are taken ---------------------------------------------------- */

/* The kind of a module by its name or that of a package that it is in: "a.b.c", "a.b", "a". */
static enum kind
kind_of_module(mod_state *st, PyObject *name)
{
    Py_ssize_t end = PyUnicode_GET_LENGTH(name);
    enum kind kind = KIND_PROGRAM;

    while (end > 0 && kind == KIND_PROGRAM) {
        PyObject *package = PyUnicode_Substring(name, 0, end);
        PyObject *found =
            package == NULL ? NULL : PyDict_GetItemWithError(st->module_kinds, package);

        Py_XDECREF(package);
        if (found != NULL)
            kind = (enum kind)PyLong_AsLong(found);
        end = PyUnicode_FindChar(name, '.', 0, end, -1);
    }
    return kind;
}

static enum kind
find_kind(mod_state *st, PyFrameObject *frame, PyObject *file)
{
    PyObject *globals, *name;
    enum kind kind = KIND_PROGRAM;

    if (starts_with(file, st->package_dir))
        return KIND_OURS;
    if ((globals = hs_frame_globals(frame)) == NULL)
        return KIND_PROGRAM;
    name = PyDict_Check(globals) ? hs_dict_get(globals, "__name__") : NULL;
    if (name != NULL && PyUnicode_Check(name))
        kind = kind_of_module(st, name);
    Py_XDECREF(name);
    Py_DECREF(globals);
    return kind;
}

static void
place_remember(mod_state *st, PyObject *file, enum kind kind)
{
    PyObject *value;

    if (PyUnicode_GET_LENGTH(file) == 0 || PyUnicode_READ_CHAR(file, 0) == '<')
        return;
    if (PyDict_GET_SIZE(st->file_kinds) >= MAX_FILES)
        PyDict_Clear(st->file_kinds);
    if ((value = PyLong_FromLong(kind)) != NULL)
        (void)PyDict_SetItem(st->file_kinds, file, value);
    Py_XDECREF(value);
}

/* Sets no exception: that a call site cannot be told apart fails no call. */
static enum kind
place_kind_of(mod_state *st, PyFrameObject *frame)
{
    PyCodeObject *code = PyFrame_GetCode(frame);
    PyObject *file = code->co_filename;
    /* Small ints are never freed, so this one may be borrowed without a lock. */
    PyObject *known = PyDict_GetItemWithError(st->file_kinds, file);
    enum kind kind;

    if (known != NULL) {
        kind = (enum kind)PyLong_AsLong(known);
    } else {
        kind = find_kind(st, frame, file);
        place_remember(st, file, kind);
        PyErr_Clear();
    }
    Py_DECREF(code);
    return kind;
}

PyDoc_STRVAR(site_kinds_doc,
             "_site_kinds(kinds, /)\n--\n\n"
             "Take the frames of modules and packages as a dict says: 2: of a library, passed\n"
             "over with the hooks that it calls; 3: of a library that calls handlers, which are\n"
             "not; 4: no frame further out has asked; 0: of the program.");

static PyObject *
core_site_kinds(PyObject *module, PyObject *kinds)
{
    mod_state *st = state_of_module(module);

    if (PyDict_Update(st->module_kinds, kinds) < 0)
        return NULL;
    PyDict_Clear(st->file_kinds);
    Py_RETURN_NONE;
}

PyMethodDef call_site_functions[] = {
    {"_site_kinds", core_site_kinds, METH_O, site_kinds_doc},
    {NULL, NULL, 0, NULL},
};

/* ---- The search ---------------------------------------------------------------------------- */

/* A new reference to the next frame outward, or NULL: there is none, or no memory to look at it. */
static PyFrameObject *
caller_of(PyFrameObject *frame)
{
    PyFrameObject *back = PyFrame_GetBack(frame);

    if (back == NULL)
        PyErr_Clear(); /* An object for a frame is made when somebody looks. */
    return back;
}

/* The same; takes frame. */
static PyFrameObject *
outward(PyFrameObject *frame)
{
    PyFrameObject *back = caller_of(frame);

    Py_DECREF(frame);
    return back;
}

/* A frame of the program is its own call site unless a library called it. */
static bool
is_place(mod_state *st, PyFrameObject *frame)
{
    PyFrameObject *back = caller_of(frame);
    bool found = back == NULL || place_kind_of(st, back) != KIND_LIBRARY;

    Py_XDECREF(back);
    return found;
}

/* A new reference to the frame that is the call site, or NULL: all are our own. */
static PyFrameObject *
place_find_place(mod_state *st)
{
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get()), *rather = NULL;
    bool is_hook = false; /* rather is a frame of the program, though one that a library called */

    for (; frame != NULL; frame = outward(frame)) {
        enum kind kind = place_kind_of(st, frame);

        if (kind == KIND_END && rather != NULL)
            break;
        if (kind == KIND_PROGRAM && is_place(st, frame)) {
            Py_XDECREF(rather);
            return frame;
        }
        if (kind != KIND_OURS && (rather == NULL || (kind == KIND_PROGRAM && !is_hook))) {
            is_hook = kind == KIND_PROGRAM;
            Py_XSETREF(rather, (PyFrameObject *)Py_NewRef((PyObject *)frame));
        }
    }
    Py_XDECREF(frame);
    return rather;
}

bool
call_site_outside(mod_state *st, struct call_site *ret_site)
{
    PyFrameObject *frame = place_find_place(st);
    PyCodeObject *code;

    if (frame == NULL)
        return false;
    code = PyFrame_GetCode(frame);
    ret_site->code = (PyObject *)code;
    ret_site->at = hs_frame_lasti(frame);
    Py_DECREF(code);
    Py_DECREF(frame);
    return true;
}

PyObject *
call_site_trace(mod_state *st, int n)
{
    PyFrameObject *frame = place_find_place(st);
    PyObject *list = PyList_New(0), *tuple = NULL;

    for (; frame != NULL && list != NULL && n > 0; n--) {
        PyObject *item = Py_BuildValue("Ni", PyFrame_GetCode(frame), hs_frame_lasti(frame));

        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
        frame = outward(frame);
    }
    Py_XDECREF(frame);
    if (list != NULL)
        tuple = PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}

int
call_site_line(const struct call_site *here)
{
    return PyCode_Addr2Line((PyCodeObject *)here->code, here->at);
}

/* ---- Sites --------------------------------------------------------------------------------- */

/* A call site and its name. What a list holds stays until the module goes, so that no lock is
 * needed where there is no GIL. */
struct call_site_entry {
    PyObject *code; /* owns: its address must not become another's */
    int at;
    struct hs_call_site *site;
    struct call_site_entry *next;
};

static size_t
call_site_list_of(const struct call_site *here)
{
    uintptr_t x = (uintptr_t)here->code;

    return ((x >> 4) ^ (x >> 12) ^ (uintptr_t)(unsigned)here->at * 31) % HS_SITE_LISTS;
}

/* A new reference to bytes, or NULL. */
static PyObject *
encoded(PyObject *text)
{
    return PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
}

static struct hs_call_site *
call_site_intern_new(const struct call_site *here)
{
    PyCodeObject *code = (PyCodeObject *)here->code;
    PyObject *file = encoded(code->co_filename), *function = encoded(code->co_name);
    struct hs_call_site *site = hs_call_site_unknown();

    if (file != NULL && function != NULL)
        site = hs_call_site_intern(PyBytes_AS_STRING(file), PyBytes_AS_STRING(function),
                                   call_site_line(here));
    else
        PyErr_Clear(); /* Want of memory: no call fails for this. */
    Py_XDECREF(file);
    Py_XDECREF(function);
    return site;
}

/* Not of code that is made at run time, which would be kept for nothing. */
static void
keep_site(mod_state *st, const struct call_site *here, struct hs_call_site *site)
{
    PyObject *file = ((PyCodeObject *)here->code)->co_filename;
    struct call_site_entry *_Atomic *list = &st->sites[call_site_list_of(here)];
    struct call_site_entry *made;

    if (PyUnicode_GET_LENGTH(file) == 0 || PyUnicode_READ_CHAR(file, 0) == '<' ||
        atomic_load_explicit(&st->n_sites, memory_order_relaxed) >= HS_SITES_MAX ||
        (made = PyMem_Malloc(sizeof(*made))) == NULL)
        return;
    atomic_fetch_add_explicit(&st->n_sites, 1, memory_order_relaxed);
    *made = (struct call_site_entry){.code = Py_NewRef(here->code), .at = here->at, .site = site};
    made->next = atomic_load_explicit(list, memory_order_relaxed);
    /* Two threads may put the same call site in: the second entry is never found. */
    while (!atomic_compare_exchange_weak_explicit(list, &made->next, made, memory_order_release,
                                                  memory_order_relaxed))
        continue;
}

struct hs_call_site *
call_site_intern(mod_state *st, const struct call_site *here)
{
    struct call_site_entry *s;
    struct hs_call_site *site;

    if (here->code == NULL)
        return hs_call_site_unknown();
    s = atomic_load_explicit(&st->sites[call_site_list_of(here)], memory_order_acquire);
    for (; s != NULL; s = s->next)
        if (s->code == here->code && s->at == here->at)
            return s->site;
    site = call_site_intern_new(here);
    keep_site(st, here, site);
    return site;
}

void
call_site_free_interned(mod_state *st)
{
    for (size_t i = 0; i < HS_SITE_LISTS; i++) {
        struct call_site_entry *s = atomic_load_explicit(&st->sites[i], memory_order_relaxed),
                               *next;

        for (; s != NULL; s = next) {
            next = s->next;
            Py_DECREF(s->code);
            PyMem_Free(s);
        }
    }
}
