/* framing.c: the type _core.Framing: a checked struct hs_framing with its own separator.
 *
 * Immutable, so any thread may use it at any time. The classes of hardsock._framing make one each
 * and keep it.
 */
#include "framing.h"

#include "binding/base/args.h"
#include "binding/base/run.h"

#include <string.h>

typedef struct {
    HS_HEAD
    struct hs_framing f;
    PyObject *sep;      /* owns: bytes that f.sep points into, or NULL */
    PyObject *encoding; /* owns: str, or NULL */
    bool utf8;
} FramingObject;

/* ---- Making -------------------------------------------------------------------------------- */

struct word {
    const char *text;
    int value;
};

static const struct word kinds[] = {{"delimiter", HS_FRAMING_DELIMITER},
                                    {"line", HS_FRAMING_LINE},
                                    {"prefix", HS_FRAMING_PREFIX},
                                    {NULL, 0}};
static const struct word endings[] = {
    {"\n", HS_LINE_LF}, {"\r\n", HS_LINE_CRLF}, {"any", HS_LINE_ANY}, {NULL, 0}};
static const struct word policies[] = {{"close", HS_TOO_LONG_CLOSE},
                                       {"keep", HS_TOO_LONG_KEEP},
                                       {"skip", HS_TOO_LONG_SKIP},
                                       {NULL, 0}};
static const struct word orders[] = {{"big", false}, {"little", true}, {NULL, 0}};

static void
no_such_word(PyObject *obj, const char *name, const struct word *words)
{
    PyObject *all = PyUnicode_FromString(""), *one, *more;

    for (int i = 0; all != NULL && words[i].text != NULL; i++) {
        one = PyUnicode_FromString(words[i].text);
        more = one == NULL ? NULL : PyUnicode_FromFormat("%U%s%R", all, i > 0 ? ", " : "", one);
        Py_XDECREF(one);
        Py_SETREF(all, more);
    }
    if (all != NULL)
        PyErr_Format(PyExc_ValueError, "%s must be one of %U, got %R", name, all, obj);
    Py_XDECREF(all);
}

static int
parse_word(PyObject *obj, const char *name, const struct word *words, int *ret_value)
{
    const struct word *first;

    if (!PyUnicode_Check(obj)) {
        PyErr_Format(PyExc_TypeError, "%s must be a str, not %.100s", name, Py_TYPE(obj)->tp_name);
        return -1;
    }
    for (first = words; words->text != NULL; words++)
        if (PyUnicode_CompareWithASCIIString(obj, words->text) == 0) {
            *ret_value = words->value;
            return 0;
        }
    no_such_word(obj, name, first);
    return -1;
}

static int
parse_size(PyObject *obj, const char *name, size_t *ret_size)
{
    long value = 0;

    if (parse_long(obj, name, 0, LONG_MAX, &value) < 0)
        return -1;
    *ret_size = (size_t)value;
    return 0;
}

static int
put_separator(FramingObject *self, PyObject *value)
{
    if (!PyBytes_Check(value)) {
        PyErr_Format(PyExc_TypeError, "separator must be bytes, not %.100s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    Py_XSETREF(self->sep, Py_NewRef(value));
    self->f.sep = (const uint8_t *)PyBytes_AS_STRING(value);
    self->f.sep_len = (size_t)PyBytes_GET_SIZE(value);
    return 0;
}

static int
put_encoding(FramingObject *self, PyObject *value)
{
    if (value == Py_None)
        return 0;
    if (!PyUnicode_Check(value) || PyUnicode_AsUTF8(value) == NULL) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_TypeError, "encoding must be a str or None, not %.100s",
                         Py_TYPE(value)->tp_name);
        return -1;
    }
    Py_XSETREF(self->encoding, Py_NewRef(value));
    self->utf8 = PyUnicode_CompareWithASCIIString(value, "utf-8") == 0;
    return 0;
}

static int
put_number(struct hs_framing *f, const char *name, PyObject *value)
{
    long number = 0;

    if (strcmp(name, "adjustment") == 0) {
        if (parse_long(value, name, LONG_MIN, LONG_MAX, &number) < 0)
            return -1;
        f->adjustment = number;
        return 0;
    }
    if (strcmp(name, "width") == 0) { /* 0, a varint, has a word of its own in Python */
        if (PyUnicode_Check(value) && PyUnicode_CompareWithASCIIString(value, "varint") == 0)
            return 0;
        if (parse_long(value, name, 1, 8, &number) < 0)
            return -1;
        f->width = (unsigned)number;
        return 0;
    }
    return parse_size(value, name,
                      strcmp(name, "max_size") == 0   ? &f->max_size
                      : strcmp(name, "max_skip") == 0 ? &f->max_skip
                                                      : &f->offset);
}

static int
put_parameter(FramingObject *self, const char *name, PyObject *value)
{
    struct hs_framing *f = &self->f;
    int word;

    if (strcmp(name, "separator") == 0)
        return put_separator(self, value);
    if (strcmp(name, "encoding") == 0)
        return put_encoding(self, value);
    if (strcmp(name, "keep") == 0)
        return parse_bool(value, name, &f->keep);
    if (strcmp(name, "includes_header") == 0)
        return parse_bool(value, name, &f->includes_header);
    if (strcmp(name, "ending") == 0) {
        if (parse_word(value, name, endings, &word) < 0)
            return -1;
        f->ending = (enum hs_line_ending)word;
    } else if (strcmp(name, "on_too_long") == 0) {
        if (parse_word(value, name, policies, &word) < 0)
            return -1;
        f->too_long = (enum hs_too_long)word;
    } else if (strcmp(name, "byteorder") == 0) {
        if (parse_word(value, name, orders, &word) < 0)
            return -1;
        f->little_endian = word != 0;
    } else {
        return put_number(f, name, value);
    }
    return 0;
}

static int
framing_fill(FramingObject *self, PyObject *kind, PyObject *parameters)
{
    mod_state *st = state_of((PyObject *)self);
    PyObject *name, *value;
    struct hs_error err = {0};
    Py_ssize_t pos = 0;
    const char *text;
    int word;
    hs_err rv;

    if (parse_word(kind, "kind", kinds, &word) < 0)
        return -1;
    self->f.kind = (enum hs_framing_kind)word;
    if (!PyDict_Check(parameters)) {
        PyErr_SetString(PyExc_TypeError, "parameters must be a dict");
        return -1;
    }
    while (PyDict_Next(parameters, &pos, &name, &value))
        if ((text = PyUnicode_AsUTF8(name)) == NULL || put_parameter(self, text, value) < 0)
            return -1;
    if ((rv = hs_framing_check(&self->f, &err)) != HS_OK)
        return raise_plain_error(st, &err, rv);
    return 0;
}

static PyObject *
framing_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct params p = {"Framing", 2, 2, 2, {"kind", "parameters"}};
    PyObject *values[MAX_PARAMS], *self;

    if (parse_tuple(&p, args, kwargs, values) < 0 ||
        (self = object_new(state_of_type(type), type)) == NULL)
        return NULL;
    if (framing_fill((FramingObject *)self, values[0], values[1]) < 0)
        Py_CLEAR(self);
    return self;
}

/* ---- Using --------------------------------------------------------------------------------- */

int
parse_framing(mod_state *st, PyObject *obj, struct framing_arg *ret)
{
    const FramingObject *self;

    *ret = (struct framing_arg){0};
    if (Py_IS_TYPE(obj, st->framing_type))
        ret->owner = Py_NewRef(obj);
    else if ((ret->owner = PyObject_GetAttr(obj, st->str__core)) == NULL &&
             !PyErr_ExceptionMatches(PyExc_AttributeError))
        return -1;
    if (ret->owner == NULL || !Py_IS_TYPE(ret->owner, st->framing_type)) {
        PyErr_Format(PyExc_TypeError,
                     "framing must be a LengthPrefix, a Delimiter or a Line, not %.100s",
                     Py_TYPE(obj)->tp_name);
        return -1;
    }
    self = (const FramingObject *)ret->owner;
    ret->f = &self->f;
    ret->encoding = self->encoding;
    ret->utf8 = self->utf8;
    return 0;
}

void
framing_release(struct framing_arg *a)
{
    Py_CLEAR(a->owner);
}

PyObject *
frame_object(const struct framing_arg *a, const uint8_t *data, size_t len)
{
    PyObject *bytes, *text;

    if (a->utf8)
        return PyUnicode_DecodeUTF8((const char *)data, (Py_ssize_t)len, "strict");
    bytes = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len);
    if (bytes == NULL || a->encoding == NULL)
        return bytes;
    text = PyUnicode_FromEncodedObject(bytes, PyUnicode_AsUTF8(a->encoding), "strict");
    Py_DECREF(bytes);
    return text;
}

static PyObject *
encode_views(PyObject *self, const Py_buffer *payload, const Py_buffer *head)
{
    struct hs_error err = {0};
    const struct hs_framing *f = &((FramingObject *)self)->f;
    uint8_t header[HS_FRAME_HEADER_MAX];
    size_t n = 0, head_len = (size_t)head->len, payload_len = (size_t)payload->len;
    PyObject *result;
    uint8_t *to;
    hs_err rv = hs_framing_header(f, payload_len, head_len, &err, header, &n);

    if (rv != HS_OK) {
        const struct hs_oversize o = {
            .size = payload_len, .limit = f->max_size, .size_known = true, .recoverable = true};

        raise_frame_error(state_of(self), &err, rv, &o);
        return NULL;
    }
    /* Buffers have at most PY_SSIZE_T_MAX bytes each, so that the sum cannot wrap round. */
    if (head_len + n + payload_len > PY_SSIZE_T_MAX)
        return PyErr_NoMemory();
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(head_len + n + payload_len));
    if (result == NULL)
        return NULL;
    to = (uint8_t *)PyBytes_AS_STRING(result);
    if (head_len > 0)
        memcpy(to, head->buf, head_len);
    memcpy(to + head_len, header, n);
    if (payload_len > 0)
        memcpy(to + head_len + n, payload->buf, payload_len);
    return result;
}

PyDoc_STRVAR(encode_doc, "encode($self, payload, head=b'', /)\n--\n\n"
                         "Return head, the length field and payload as one.");

static PyObject *
framing_encode(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct params p = {"encode", 1, 2, 2, {"payload", "head"}};
    Py_buffer payload, head = {.len = 0};
    PyObject *values[MAX_PARAMS], *result = NULL;

    if (parse_args(&p, args, nargs, kwnames, values) < 0 ||
        PyObject_GetBuffer(values[0], &payload, PyBUF_SIMPLE) < 0)
        return NULL;
    if (values[1] == NULL || PyObject_GetBuffer(values[1], &head, PyBUF_SIMPLE) == 0) {
        result = encode_views(self, &payload, &head);
        if (values[1] != NULL)
            PyBuffer_Release(&head);
    }
    PyBuffer_Release(&payload);
    return result;
}

static void
framing_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_CLEAR(((FramingObject *)self)->sep);
    Py_CLEAR(((FramingObject *)self)->encoding);
    object_free(self);
}

/* bytes and str refer to nothing. */
static int
framing_traverse(PyObject *self, visitproc visit, void *arg)
{
    HS_VISIT_HEAD(self);
    return 0;
}

static PyMethodDef framing_methods[] = {
    {"encode", HS_METHOD(framing_encode), METH_FASTCALL | METH_KEYWORDS, encode_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(framing_doc, "Framing(kind, parameters, /)\n--\n\n"
                          "How a stream is cut into frames; see hardsock.LengthPrefix, Delimiter\n"
                          "and Line, which make them.");

static PyType_Slot framing_slots[] = {
    {Py_tp_new, HS_SLOT(framing_new)},           {Py_tp_dealloc, HS_SLOT(framing_dealloc)},
    {Py_tp_traverse, HS_SLOT(framing_traverse)}, {Py_tp_methods, framing_methods},
    {Py_tp_doc, (void *)(uintptr_t)framing_doc}, {0, NULL},
};

PyType_Spec framing_spec = {
    .name = "hardsock._core.Framing",
    .basicsize = sizeof(FramingObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = framing_slots,
};
