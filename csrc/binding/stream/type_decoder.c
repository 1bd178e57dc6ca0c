/* type_decoder.c: the type Decoder: the codec by itself.
 *
 * The core decoder is for one thread at a time. With a GIL no method lets go of it between its two
 * ends; without one each method holds the object's own lock. Python code (a codec written in it)
 * runs only when the frame has been copied.
 */
#include "framing.h"

#include "binding/base/args.h"
#include "binding/base/run.h"

typedef struct {
    HS_HEAD
    struct hs_decoder *core; /* owns; write once */
    struct framing_arg framing;
} DecoderObject;

static PyObject *
decoder_fail(PyObject *self, const struct hs_error *err, hs_err rv)
{
    struct hs_oversize o;

    hs_decoder_oversize(((DecoderObject *)self)->core, &o);
    raise_frame_error(state_of(self), err, rv, &o);
    return NULL;
}

static PyObject *
decoder_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"Decoder", 1, 1, 1, {"framing"}};
    mod_state *st = state_of_type(type);
    struct hs_error err = {0};
    PyObject *values[MAX_PARAMS];
    DecoderObject *self;
    hs_err rv;

    if (st == NULL || parse_tuple(&p, args, kwargs, values) < 0 ||
        (self = object_new(st, type)) == NULL)
        return NULL;
    if (parse_framing(st, values[0], &self->framing) == 0) {
        if ((rv = hs_decoder_new(self->framing.f, &err, &self->core)) == HS_OK)
            return (PyObject *)self;
        (void)raise_plain_error(st, &err, rv);
    }
    Py_DECREF(self);
    return NULL;
}

PyDoc_STRVAR(feed_doc, "feed($self, data, /)\n--\n\n"
                       "Add bytes that arrived: all of them, or none (MemoryError).");

static PyObject *
decoder_feed(PyObject *self, PyObject *data)
{
    struct hs_error err = {0};
    Py_buffer view;
    hs_err rv;

    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    HS_BEGIN_LOCKED(self);
    rv = hs_decoder_feed(((DecoderObject *)self)->core, view.buf, (size_t)view.len, &err);
    HS_END_LOCKED();
    PyBuffer_Release(&view);
    if (rv != HS_OK)
        return decoder_fail(self, &err, rv);
    Py_RETURN_NONE;
}

/* NULL without an exception: no frame is complete. */
static PyObject *
decoder_take(PyObject *self)
{
    const DecoderObject *d = (DecoderObject *)self;
    struct hs_error err;
    const uint8_t *data;
    PyObject *frame = NULL;
    size_t len;
    hs_err rv;

    err.code = HS_OK; /* The rest is only looked at when it was filled. */
    HS_BEGIN_LOCKED(self);
    rv = hs_decoder_next(d->core, &err, &data, &len);
    if (rv == HS_OK)
        frame = d->framing.encoding == NULL
                    ? PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len)
                    : frame_object(&d->framing, data, len);
    HS_END_LOCKED();
    return rv < 0 ? decoder_fail(self, &err, rv) : frame;
}

PyDoc_STRVAR(next_doc,
             "next($self, /)\n--\n\n"
             "Return the next frame, or None if its bytes are not there yet.\n\n"
             "Raises FrameTooLarge, BadFrame, and Truncated after eof(). With an encoding\n"
             "also UnicodeDecodeError, which holds the frame; the next call goes on.");

static PyObject *
decoder_next(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *frame = decoder_take(self);

    if (frame == NULL && !PyErr_Occurred())
        Py_RETURN_NONE;
    return frame;
}

PyDoc_STRVAR(eof_doc,
             "eof($self, /)\n--\n\n"
             "Say that no more bytes come. Raises Truncated when they end in the middle\n"
             "of a frame; while whole frames are waiting, next() tells when it gets there.");

static PyObject *
decoder_eof(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct hs_error err = {0};
    hs_err rv;

    HS_BEGIN_LOCKED(self);
    rv = hs_decoder_eof(((DecoderObject *)self)->core, &err);
    HS_END_LOCKED();
    if (rv != HS_OK)
        return decoder_fail(self, &err, rv);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(rest_doc, "rest($self, /)\n--\n\n"
                       "Take out all bytes that were fed and not returned.\n\n"
                       "For a protocol that changes in mid-stream; works after an error, too.");

static PyObject *
decoder_rest(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    struct hs_decoder *core = ((DecoderObject *)self)->core;
    PyObject *result;

    HS_BEGIN_LOCKED(self);
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)hs_decoder_buffered(core));
    if (result != NULL)
        (void)hs_decoder_take_rest(core, (uint8_t *)PyBytes_AS_STRING(result),
                                   (size_t)PyBytes_GET_SIZE(result));
    HS_END_LOCKED();
    return result;
}

static PyObject *
get_buffered(PyObject *self, void *Py_UNUSED(closure))
{
    size_t n;

    HS_BEGIN_LOCKED(self);
    n = hs_decoder_buffered(((DecoderObject *)self)->core);
    HS_END_LOCKED();
    return PyLong_FromSize_t(n);
}

static void
decoder_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    hs_decoder_free(((DecoderObject *)self)->core);
    framing_release(&((DecoderObject *)self)->framing);
    object_free(self);
}

static int
decoder_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    Py_VISIT(((DecoderObject *)self)->framing.owner);
    return 0;
}

static PyGetSetDef decoder_getset[] = {
    {"buffered", get_buffered, NULL, "Bytes that were fed and not returned.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef decoder_methods[] = {
    {"feed", decoder_feed, METH_O, feed_doc},
    {"next", decoder_next, METH_NOARGS, next_doc},
    {"eof", decoder_eof, METH_NOARGS, eof_doc},
    {"rest", decoder_rest, METH_NOARGS, rest_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    decoder_doc,
    "Decoder(framing, /)\n--\n\n"
    "Cut bytes into frames, for those who do their own I/O.\n\n"
    "feed() bytes as they come; next(), or iterating, gives the frames that are complete.\n"
    "Memory follows what was fed, never what a header claims. After an error that is not\n"
    "recoverable every call repeats it. Threads that share one do not break it, and do not know\n"
    "which of them gets a frame.");

static PyType_Slot decoder_slots[] = {
    {Py_tp_new, HS_SLOT(decoder_new)},
    {Py_tp_dealloc, HS_SLOT(decoder_dealloc)},
    {Py_tp_traverse, HS_SLOT(decoder_traverse)},
    {Py_tp_iter, HS_SLOT(PyObject_SelfIter)},
    {Py_tp_iternext, HS_SLOT(decoder_take)},
    {Py_tp_methods, decoder_methods},
    {Py_tp_getset, decoder_getset},
    {Py_tp_doc, (void *)(uintptr_t)decoder_doc},
    {0, NULL},
};

PyType_Spec decoder_spec = {
    .name = "hardsock.Decoder",
    .basicsize = sizeof(DecoderObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = decoder_slots,
};
