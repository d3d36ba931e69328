/*
 * errors: wsgi.errors, a text stream.
 *
 * It writes to what sys.stderr is at that moment, or, with errors_to_log, whole lines to the error
 * log with the request's id. An unfinished line is kept for each thread, so that two requests do
 * not mix.
 */
#include "wsgi/wsgi_private.h"

#include "base/log.h"

/* A line longer than this is cut into several entries. */
#define LINE_BYTES_MAX (16 * 1024)

struct errors {
    PyObject_HEAD struct wsgi *w; /* NULL once the application is gone */
    struct buf line;              /* unfinished line of threads that are not ours */
};

static void entry(struct errors *e, struct wsgi_thread *t, struct buf *line)
{
    if (!line->n)
        return;
    uint64_t id = t && t->run ? t->run->c->id : 0;
    if (e->w->log) {
        if (buf_add(line, "", 1) == 0)
            e->w->log(LOG_ERROR, id, line->p);
    } else {
        log_text(LOG_ERROR, id, buf_slice(line));
    }
    line->n = 0;
}

/* Whole lines of one write make one entry (a traceback stays together). 0 or -1. */
static int to_log(struct errors *e, PyObject *text)
{
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace"); /* new */
    if (!bytes)
        return -1;
    struct wsgi_thread *t = wsgi_thread_here(e->w);
    struct buf *line = t ? &t->line : &e->line;
    struct slice s = slice_of(PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    const char *last = s.n ? memrchr(s.p, '\n', s.n) : NULL;
    int rc = 0;
    if (last) {
        rc = buf_add(line, s.p, (size_t)(last - s.p));
        if (!rc)
            entry(e, t, line);
        s = slice_of(last + 1, s.n - (size_t)(last - s.p) - 1);
    }
    if (!rc)
        rc = buf_add_slice(line, s);
    if (line->n > LINE_BYTES_MAX)
        entry(e, t, line);
    Py_DECREF(bytes);
    if (rc)
        PyErr_NoMemory();
    return rc ? -1 : 0;
}

/* 0 or -1. Where there is no sys.stderr the text is dropped, as print() does. */
static int to_stderr(PyObject *text)
{
    PyObject *file = PySys_GetObject("stderr"); /* borrowed */
    if (!file || file == Py_None)
        return 0;
    Py_INCREF(file); /* write() may replace sys.stderr */
    PyObject *r = PyObject_CallMethod(file, "write", "O", text); /* new */
    Py_DECREF(file);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static PyObject *errors_write(PyObject *self, PyObject *text)
{
    struct errors *e = (struct errors *)self;
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "wsgi.errors takes str, not %s", Py_TYPE(text)->tp_name);
        return NULL;
    }
    if (e->w && e->w->errors_to_log ? to_log(e, text) : to_stderr(text))
        return NULL;
    return PyLong_FromSsize_t(PyUnicode_GET_LENGTH(text));
}

static PyObject *errors_writelines(PyObject *self, PyObject *lines)
{
    PyObject *it = PyObject_GetIter(lines); /* new */
    if (!it)
        return NULL;
    PyObject *line; /* new, each */
    while ((line = PyIter_Next(it))) {
        PyObject *r = errors_write(self, line); /* new */
        Py_DECREF(line);
        if (!r)
            break;
        Py_DECREF(r);
    }
    Py_DECREF(it);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *errors_flush(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct errors *e = (struct errors *)self;
    if (e->w && e->w->errors_to_log) {
        struct wsgi_thread *t = wsgi_thread_here(e->w);
        entry(e, t, t ? &t->line : &e->line);
        Py_RETURN_NONE;
    }
    PyObject *file = PySys_GetObject("stderr"); /* borrowed */
    if (!file || file == Py_None)
        Py_RETURN_NONE;
    Py_INCREF(file);
    PyObject *r = PyObject_CallMethod(file, "flush", NULL); /* new */
    Py_DECREF(file);
    if (!r)
        return NULL;
    Py_DECREF(r);
    Py_RETURN_NONE;
}

static PyObject *errors_no(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_FALSE;
}

static PyObject *errors_yes(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_TRUE;
}

static PyObject *errors_encoding(PyObject *self, void *unused)
{
    (void)self;
    (void)unused;
    return PyUnicode_FromString("utf-8");
}

static void errors_dealloc(PyObject *self)
{
    buf_fini(&((struct errors *)self)->line);
    PyObject_Free(self);
}

static PyMethodDef errors_methods[] = {
    {"write", errors_write, METH_O, "write(text) -> number of characters"},
    {"writelines", errors_writelines, METH_O, "writelines(iterable of str)"},
    {"flush", errors_flush, METH_NOARGS, "flush()"},
    {"isatty", errors_no, METH_NOARGS, "isatty() -> False"},
    {"readable", errors_no, METH_NOARGS, "readable() -> False"},
    {"seekable", errors_no, METH_NOARGS, "seekable() -> False"},
    {"writable", errors_yes, METH_NOARGS, "writable() -> True"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef errors_getset[] = {
    {"encoding", errors_encoding, NULL, "utf-8", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject wsgi_errors_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "weir.errors",
    .tp_basicsize = sizeof(struct errors),
    .tp_dealloc = errors_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = errors_methods,
    .tp_getset = errors_getset,
    .tp_doc = "wsgi.errors: a text stream to the server's error output",
};

PyObject *wsgi_errors_new(struct wsgi *w)
{
    struct errors *e = PyObject_New(struct errors, &wsgi_errors_type); /* new */
    if (!e)
        return NULL;
    e->w = w;
    e->line = (struct buf){0};
    return (PyObject *)e;
}

void wsgi_errors_detach(PyObject *self)
{
    ((struct errors *)self)->w = NULL;
}
