/*
 * hints: wsgi.early_hints, as Gunicorn has it: a callable that sends 103 (RFC 8297) before the
 * response.
 *
 *   environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload; as=style")])
 *
 * One object serves all requests, so that it costs none of them anything: which one is meant
 * follows from the thread that calls.
 */
#include "wsgi/wsgi_private.h"

#include <errno.h>

struct hints {
    PyObject_HEAD vectorcallfunc call;
    struct wsgi *w; /* NULL once the application is gone */
};

static int field_fail(enum call_verdict v, PyObject *pair)
{
    if (v == CALL_HOP_BY_HOP)
        PyErr_Format(PyExc_ValueError,
                     "early_hints(): %R belongs to the response or to the connection", pair);
    else if (v == CALL_NO_MEMORY)
        PyErr_SetString(PyExc_ValueError, "early_hints(): the hints are above 16 KiB");
    else
        PyErr_Format(PyExc_ValueError, "early_hints(): %R is no valid field", pair);
    return -1;
}

static int pair_add(struct buf *out, PyObject *pair)
{
    struct slice name, value;
    PyObject *fast = PySequence_Fast(pair, "early_hints() takes (name, value) tuples"); /* new */
    if (!fast)
        return -1;
    int rc = -1;
    if (PySequence_Fast_GET_SIZE(fast) != 2)
        PyErr_SetString(PyExc_TypeError, "early_hints() takes (name, value) tuples");
    else if (!wsgi_text_lend(PySequence_Fast_GET_ITEM(fast, 0), &name) ||
             !wsgi_text_lend(PySequence_Fast_GET_ITEM(fast, 1), &value))
        PyErr_Format(PyExc_TypeError, "early_hints(): %R must be of str in latin-1", pair);
    else {
        enum call_verdict v = call_hint_field(out, name, value);
        rc = v == CALL_OK ? 0 : field_fail(v, pair);
    }
    Py_DECREF(fast);
    return rc;
}

/* 0 or -1. */
static int fields_add(struct buf *out, PyObject *headers)
{
    PyObject *it = PyObject_GetIter(headers), *pair; /* new, and each new */
    int rc = it ? 0 : -1;
    while (!rc && (pair = PyIter_Next(it))) {
        rc = pair_add(out, pair);
        Py_DECREF(pair);
    }
    Py_XDECREF(it);
    return rc || PyErr_Occurred() ? -1 : 0;
}

static struct wsgi_run *run_here(const struct hints *h)
{
    struct wsgi_thread *t = h->w ? wsgi_thread_here(h->w) : NULL;
    if (!t || !t->run)
        PyErr_SetString(PyExc_RuntimeError,
                        "early_hints() is for the thread that runs the request, while it runs");
    return t ? t->run : NULL;
}

static PyObject *hints_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    struct buf out = {0};
    if (PyVectorcall_NARGS(nargsf) != 1 || (names && PyTuple_GET_SIZE(names))) {
        PyErr_SetString(PyExc_TypeError, "early_hints() takes one argument, the headers");
        return NULL;
    }
    struct wsgi_run *run = run_here((struct hints *)self);
    if (!run || wsgi_run_claim(run))
        return NULL;
    int rc = fields_add(&out, args[0]);
    if (!rc)
        switch (call_hint(run->c, &out)) {
        case -EALREADY:
            PyErr_SetString(PyExc_RuntimeError,
                            "early_hints() was called after the response had begun");
            rc = -1;
            break;
        case -EMSGSIZE:
            rc = field_fail(CALL_NO_MEMORY, NULL);
            break;
        default: /* without memory, or without a client: they were only hints */
            break;
        }
    buf_fini(&out);
    if (rc)
        return NULL;
    Py_RETURN_NONE;
}

static void hints_dealloc(PyObject *self)
{
    PyObject_Free(self);
}

PyTypeObject wsgi_hints_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "weir.early_hints",
    .tp_basicsize = sizeof(struct hints),
    .tp_dealloc = hints_dealloc,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(struct hints, call),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_doc = "early_hints(headers): send 103 Early Hints before the response",
};

PyObject *wsgi_hints_new(struct wsgi *w)
{
    struct hints *h = PyObject_New(struct hints, &wsgi_hints_type); /* new */
    if (!h)
        return NULL;
    h->call = hints_call;
    h->w = w;
    return (PyObject *)h;
}

void wsgi_hints_detach(PyObject *hints)
{
    ((struct hints *)hints)->w = NULL;
}
