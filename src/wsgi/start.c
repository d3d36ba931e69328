/*
 * start: start_response and the write() that it returns.
 *
 * Both are kept by their thread and used again for its next request when nobody else holds them any
 * more.
 */
#include "wsgi/wsgi_private.h"

#include "base/log.h"

struct write {
    PyObject_HEAD vectorcallfunc call;
    struct wsgi_run *run; /* NULL once the request is over */
};

struct start {
    PyObject_HEAD vectorcallfunc call;
    struct wsgi_run *run; /* NULL once the request is over */
    struct write *write;  /* owned */
};

/* ---- write() ---- */

static PyObject *write_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    struct wsgi_run *run = ((struct write *)self)->run;
    if (PyVectorcall_NARGS(nargsf) != 1 || (names && PyTuple_GET_SIZE(names))) {
        PyErr_SetString(PyExc_TypeError, "write() takes exactly one argument, the bytes");
        return NULL;
    }
    if (!run || run->c->state == CALL_ENDED || run->c->state == CALL_ABORTED) {
        PyErr_SetString(PyExc_RuntimeError, "write() was called after its response was complete");
        return NULL;
    }
    if (wsgi_run_claim(run))
        return NULL;
    if (WEIR_UNLIKELY(call_ends_early(run->c))) {
        run->ended_early = true;
        PyErr_SetString(PyExc_BrokenPipeError, "the server stops and ends this response");
        return NULL;
    }
    switch (wsgi_send_item(run, args[0], true)) {
    case WSGI_SENT:
        Py_RETURN_NONE;
    case WSGI_STOP:
        PyErr_SetString(PyExc_BrokenPipeError, "the client has left");
        return NULL;
    default:
        return NULL;
    }
}

static void write_dealloc(PyObject *self)
{
    PyObject_Free(self);
}

PyTypeObject wsgi_write_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "weir.write",
    .tp_basicsize = sizeof(struct write),
    .tp_dealloc = write_dealloc,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(struct write, call),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_doc = "write(bytes): send content at once",
};

/* ---- start_response() ---- */

static int text_fail(const char *what, PyObject *o)
{
    if (PyUnicode_Check(o))
        PyErr_Format(PyExc_ValueError, "start_response(): %s %R has characters beyond latin-1",
                     what, o);
    else
        PyErr_Format(PyExc_TypeError, "start_response(): %s must be str, not %s", what,
                     Py_TYPE(o)->tp_name);
    return -1;
}

static int field_fail(enum call_verdict v, PyObject *name, PyObject *value)
{
    switch (v) {
    case CALL_BAD_NAME:
        PyErr_Format(PyExc_ValueError, "start_response(): %R is not a valid field name", name);
        break;
    case CALL_BAD_VALUE:
        PyErr_Format(
            PyExc_ValueError,
            "start_response(): the value of %R holds control characters (a line break?): %R", name,
            value);
        break;
    case CALL_HOP_BY_HOP:
        PyErr_Format(
            PyExc_ValueError,
            "start_response(): %R is a hop-by-hop field, which belongs to the server (PEP 3333)",
            name);
        break;
    case CALL_BAD_LENGTH:
        PyErr_Format(PyExc_ValueError,
                     "start_response(): Content-Length %R is no number, or differs from one before",
                     value);
        break;
    case CALL_NO_MEMORY:
        PyErr_SetString(
            PyExc_ValueError,
            "start_response(): the response head is above 64 KiB, or memory is exhausted");
        break;
    case CALL_OK:
    case CALL_BAD_STATUS:
    case CALL_LATE:
        PyErr_SetString(PyExc_RuntimeError, "start_response(): the response is on its way already");
        break;
    }
    return -1;
}

/* Fields that only repeat what the server does anyway. Streaming examples set them often; an error
 * would help nobody. */
static bool field_is_idle(struct slice name, struct slice value)
{
    return slice_ieq(name, SLICE("keep-alive")) ||
           (slice_ieq(name, SLICE("connection")) &&
            slice_ieq(slice_trim(value), SLICE("keep-alive")));
}

static int field_add(struct wsgi_run *run, PyObject *name, PyObject *value)
{
    struct slice n, v;
    if (WEIR_UNLIKELY(!wsgi_text_lend(name, &n)))
        return text_fail("a field name", name);
    if (WEIR_UNLIKELY(!wsgi_text_lend(value, &v)))
        return text_fail("a field value", value);
    enum call_verdict verdict = call_field(run->c, n, v);
    if (WEIR_LIKELY(verdict == CALL_OK))
        return 0;
    if (verdict == CALL_HOP_BY_HOP && field_is_idle(n, v)) {
        wsgi_log(run, LOG_DEBUG, "the field %.*s of the application was left out", (int)n.n, n.p);
        return 0;
    }
    return field_fail(verdict, name, value);
}

static int pair_add(struct wsgi_run *run, PyObject *pair)
{
    if (WEIR_LIKELY(PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2))
        return field_add(run, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1));
    if (PyList_Check(pair) && PyList_GET_SIZE(pair) == 2)
        return field_add(run, PyList_GET_ITEM(pair, 0), PyList_GET_ITEM(pair, 1));
    PyErr_SetString(PyExc_TypeError,
                    "start_response(): headers must be a list of (name, value) tuples");
    return -1;
}

static int head_build(struct wsgi_run *run, PyObject *status, PyObject *headers)
{
    struct slice text;
    if (!wsgi_text_lend(status, &text))
        return text_fail("the status", status);
    switch (call_status(run->c, text)) {
    case CALL_OK:
        break;
    case CALL_LATE:
        PyErr_SetString(PyExc_AssertionError,
                        "start_response() was called after the response was sent");
        return -1;
    case CALL_NO_MEMORY:
        PyErr_NoMemory();
        return -1;
    case CALL_BAD_STATUS:
    case CALL_BAD_NAME:
    case CALL_BAD_VALUE:
    case CALL_HOP_BY_HOP:
    case CALL_BAD_LENGTH:
        PyErr_Format(PyExc_ValueError,
                     "start_response(): the status %R is not like '200 OK' (and not 1xx)", status);
        return -1;
    }
    PyObject *list = headers; /* borrowed, or new below */
    if (WEIR_LIKELY(PyList_CheckExact(headers)))
        Py_INCREF(list);
    else if (!(list = PySequence_Fast(headers, "start_response(): headers must be a list")))
        return -1;
    int rc = 0;
    /* The size is asked each time: the error texts run repr() of the application's objects. */
    for (Py_ssize_t i = 0; !rc && i < PySequence_Fast_GET_SIZE(list); i++)
        rc = pair_add(run, PySequence_Fast_GET_ITEM(list, i));
    Py_DECREF(list);
    return rc;
}

/* Raise what exc_info says. Nothing of it is kept: the traceback would keep all frames alive. */
static void raise_again(PyObject *exc_info)
{
    if (!PyTuple_Check(exc_info) || PyTuple_GET_SIZE(exc_info) != 3 ||
        !PyExceptionInstance_Check(PyTuple_GET_ITEM(exc_info, 1))) {
        PyErr_SetString(PyExc_TypeError,
                        "start_response(): exc_info must be what sys.exc_info() returns");
        return;
    }
    PyObject *value = PyTuple_GET_ITEM(exc_info, 1); /* borrowed */
    PyObject *trace = PyTuple_GET_ITEM(exc_info, 2); /* borrowed */
    if (trace != Py_None && PyException_SetTraceback(value, trace))
        return;
    PyErr_SetObject((PyObject *)Py_TYPE(value), value);
}

/* status, headers, exc_info by position or by name. 0 or -1. All borrowed. */
static int arguments(PyObject *const *args, Py_ssize_t n, PyObject *names, PyObject *out[3])
{
    if (n > 3) {
        PyErr_SetString(PyExc_TypeError, "start_response() takes status, headers and exc_info");
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++)
        out[i] = args[i];
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t i = 0; i < named; i++) {
        static const char *const KNOWN[] = {"status", "headers", "exc_info", "response_headers"};
        PyObject *name = PyTuple_GET_ITEM(names, i);
        unsigned k = 0;
        while (k < 4 && PyUnicode_CompareWithASCIIString(name, KNOWN[k]) != 0)
            k++;
        k = k == 3 ? 1 : k == 4 ? 3 : k;
        if (k == 3 || out[k]) {
            PyErr_Format(PyExc_TypeError,
                         "start_response() got an unexpected or repeated argument %R", name);
            return -1;
        }
        out[k] = args[n + i];
    }
    if (!out[0] || !out[1]) {
        PyErr_SetString(PyExc_TypeError, "start_response() needs status and headers");
        return -1;
    }
    return 0;
}

static PyObject *start_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    struct start *s = (struct start *)self;
    struct wsgi_run *run = s->run;
    PyObject *arg[3] = {NULL, NULL, NULL};
    if (arguments(args, PyVectorcall_NARGS(nargsf), names, arg))
        return NULL;
    if (!run) {
        PyErr_SetString(PyExc_RuntimeError,
                        "start_response() was called after its request was over");
        return NULL;
    }
    if (wsgi_run_claim(run))
        return NULL;
    struct call *c = run->c;
    bool has_exc = arg[2] && arg[2] != Py_None;
    if (has_exc && c->state != CALL_NEW && c->state != CALL_STATUS) {
        raise_again(arg[2]);
        return NULL;
    }
    if (!has_exc && run->started) {
        PyErr_SetString(PyExc_AssertionError,
                        "start_response() was called a second time without exc_info");
        return NULL;
    }
    run->started = false;
    if (head_build(run, arg[0], arg[1])) {
        if (c->state == CALL_STATUS) { /* nothing of a wrong head may go out */
            c->state = CALL_NEW;
            c->out.n = 0;
        }
        return NULL;
    }
    run->started = true;
    Py_INCREF(s->write);
    return (PyObject *)s->write;
}

static void start_dealloc(PyObject *self)
{
    Py_XDECREF(((struct start *)self)->write);
    PyObject_Free(self);
}

PyTypeObject wsgi_start_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "weir.start_response",
    .tp_basicsize = sizeof(struct start),
    .tp_dealloc = start_dealloc,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(struct start, call),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_doc = "start_response(status, headers, exc_info=None) -> write",
};

/* ---- life ---- */

static struct start *start_new(void)
{
    struct start *s = PyObject_New(struct start, &wsgi_start_type); /* new */
    if (!s)
        return NULL;
    s->call = start_call;
    s->run = NULL;
    s->write = PyObject_New(struct write, &wsgi_write_type); /* new */
    if (!s->write) {
        Py_DECREF(s);
        return NULL;
    }
    s->write->call = write_call;
    s->write->run = NULL;
    return s;
}

PyObject *wsgi_start_take(struct wsgi_run *run)
{
    struct start *s = (struct start *)run->t->start;
    if (!s || Py_REFCNT(s) != 1 || Py_REFCNT(s->write) != 1) {
        Py_CLEAR(run->t->start);
        s = start_new();
        if (!s)
            return NULL;
        run->t->start = (PyObject *)s; /* the thread's reference */
    }
    Py_INCREF(s); /* the run's */
    s->run = run;
    s->write->run = run;
    return (PyObject *)s;
}

void wsgi_start_detach(PyObject *self)
{
    struct start *s = (struct start *)self;
    s->run = NULL;
    s->write->run = NULL;
}
