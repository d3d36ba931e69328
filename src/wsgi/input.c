/*
 * input: wsgi.input.
 *
 * A body that is here as a whole is read in place (in memory) or with pread (spilled), and can be
 * rewound. One that is still coming is read through call_body_read; what was fetched beyond a line
 * waits in `ahead`. Reading past the end gives b'', always (wsgi.input_terminated).
 */
#include "wsgi/wsgi_private.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct input {
    PyObject_HEAD struct wsgi_run
        *run;         /* NULL once the request is over, and in the shared empty input */
    bool empty;       /* the shared one: nothing to read, nothing to detach */
    bool ended;       /* a body that comes: its end was seen */
    uint64_t offset;  /* a whole body: where the next byte is fetched */
    uint64_t given;   /* position of the next byte that the application gets */
    struct buf ahead; /* fetched, not yet given: ahead.p[ahead_pos..ahead.n) */
    size_t ahead_pos;
};

/* What is fetched at once for a line, and for read() to the end of a body of unknown length. */
static const size_t STEP_BYTES = 16 * 1024;

PyObject *wsgi_input_empty;

/* ---- where the bytes come from ---- */

/* 0 or -1: may this object be read now? */
static int check(const struct input *in)
{
    if (WEIR_LIKELY(in->empty))
        return 0;
    if (!in->run) {
        PyErr_SetString(PyExc_ValueError, "wsgi.input was used after its request was over");
        return -1;
    }
    if (in->run->reading) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is reading this request right now");
        return -1;
    }
    return 0;
}

static void fail(struct wsgi_run *run, int err)
{
    run->body_error = err;
    PyObject *type = PyExc_OSError; /* borrowed */
    const char *text;
    switch (err) {
    case -EPIPE:
        run->client_gone = true;
        type = PyExc_ConnectionResetError;
        text = "the client left before the end of the request body";
        err = -ECONNRESET;
        break;
    case -EPROTO:
        text = "the request body is malformed";
        break;
    case -EMSGSIZE:
        text = "the request body is larger than the server allows";
        break;
    case -ETIMEDOUT:
        type = PyExc_TimeoutError;
        text = "the client sent nothing more of the request body for too long";
        break;
    default:
        text = "the request body cannot be read";
    }
    PyObject *args = Py_BuildValue("(is)", -err, text); /* new */
    if (args) {
        PyErr_SetObject(type, args);
        Py_DECREF(args);
    }
}

/* A body that is here: up to n bytes. >= 0, or -1 and an exception. */
static Py_ssize_t fetch_whole(struct input *in, char *p, size_t n)
{
    struct wsgi_run *run = in->run;
    const struct body *b = run->c->body;
    uint64_t left = in->offset < b->size ? b->size - in->offset : 0;
    if (n > left)
        n = (size_t)left;
    if (!n)
        return 0;
    if (b->fd < 0) {
        memcpy(p, b->mem.p + in->offset, n);
    } else {
        ssize_t got;
        int err;
        run->reading = true;
        Py_BEGIN_ALLOW_THREADS do got = pread(b->fd, p, n, (off_t)in->offset);
        while (got < 0 && errno == EINTR)
            ;
        err = got < 0 ? errno : 0;
        Py_END_ALLOW_THREADS run->reading = false;
        if (got <= 0) { /* the file cannot be shorter than size */
            fail(run, err ? -err : -EIO);
            return -1;
        }
        n = (size_t)got;
    }
    in->offset += n;
    return (Py_ssize_t)n;
}

/* A body that comes: at least one byte, 0 at its end, or -1 and an exception. */
static Py_ssize_t fetch_coming(struct input *in, char *p, size_t n)
{
    struct wsgi_run *run = in->run;
    if (in->ended || !n)
        return 0;
    if (run->body_error) { /* it does not get better */
        fail(run, run->body_error);
        return -1;
    }
    for (;;) {
        ssize_t got = call_body_read(run->c, p, n);
        if (got > 0)
            return got;
        if (got == 0) {
            in->ended = true;
            return 0;
        }
        if (got != -EAGAIN) {
            fail(run, (int)got);
            return -1;
        }
        int rc;
        run->reading = true;
        Py_BEGIN_ALLOW_THREADS rc = call_body_wait(run->c);
        Py_END_ALLOW_THREADS run->reading = false;
        if (rc && rc != -EAGAIN) {
            fail(run, rc);
            return -1;
        }
    }
}

static Py_ssize_t fetch(struct input *in, char *p, size_t n)
{
    return in->run->c->body->complete ? fetch_whole(in, p, n) : fetch_coming(in, p, n);
}

static size_t ahead_bytes(const struct input *in)
{
    return in->ahead.n - in->ahead_pos;
}

static void ahead_give(struct input *in, size_t n)
{
    in->ahead_pos += n;
    if (in->ahead_pos == in->ahead.n)
        in->ahead_pos = in->ahead.n = 0;
}

/* First what was fetched ahead, then the source; as fetch. */
static Py_ssize_t take(struct input *in, char *p, size_t n)
{
    size_t kept = ahead_bytes(in);
    if (!kept) {
        Py_ssize_t got = fetch(in, p, n);
        if (got > 0)
            in->given += (uint64_t)got;
        return got;
    }
    if (n > kept)
        n = kept;
    if (n)
        memcpy(p, in->ahead.p + in->ahead_pos, n);
    ahead_give(in, n);
    in->given += n;
    return (Py_ssize_t)n;
}

/* ---- reading ---- */

static PyObject *nothing(void)
{
    return PyBytes_FromStringAndSize(NULL, 0); /* new; the one empty bytes of the process */
}

/* The bytes of a whole body in memory that are left, without copying; false where it is not so. */
static bool in_memory(const struct input *in, struct slice *left)
{
    const struct body *b = in->run->c->body;
    if (!b->complete || b->fd >= 0 || ahead_bytes(in))
        return false;
    uint64_t at = in->offset < b->size ? in->offset : b->size;
    *left = slice_of(b->mem.p ? b->mem.p + at : "", (size_t)(b->size - at));
    return true;
}

static PyObject *give_memory(struct input *in, struct slice s)
{
    PyObject *bytes = PyBytes_FromStringAndSize(s.p, (Py_ssize_t)s.n); /* new */
    if (bytes) {
        in->offset += s.n;
        in->given += s.n;
    }
    return bytes;
}

/* Exactly `n` bytes, fewer at the end of the body. */
static PyObject *read_exact(struct input *in, size_t n)
{
    const struct body *b = in->run->c->body;
    if (b->complete) { /* never ask for more memory than there are bytes */
        uint64_t left = ahead_bytes(in) + (in->offset < b->size ? b->size - in->offset : 0);
        if (n > left)
            n = (size_t)left;
    }
    /* A client's Content-Length or the application's n may be huge: grow with what really comes. */
    size_t cap = n < 4 * STEP_BYTES || b->complete ? n : 4 * STEP_BYTES, have = 0;
    if (!cap)
        return nothing();
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)cap); /* new */
    while (bytes && have < n) {
        if (have == cap) {
            cap = cap > n / 2 ? n : cap * 2;
            if (_PyBytes_Resize(&bytes, (Py_ssize_t)cap)) /* sets bytes to NULL when it fails */
                return NULL;
        }
        Py_ssize_t got = take(in, PyBytes_AS_STRING(bytes) + have, cap - have);
        if (got < 0) {
            Py_DECREF(bytes);
            return NULL;
        }
        if (got == 0)
            break;
        have += (size_t)got;
    }
    if (bytes && have < cap && _PyBytes_Resize(&bytes, (Py_ssize_t)have))
        return NULL;
    return bytes;
}

static PyObject *read_bytes(struct input *in, Py_ssize_t size)
{
    struct slice left;
    if (in->empty)
        return nothing();
    if (WEIR_LIKELY(in_memory(in, &left))) {
        if (size >= 0 && (size_t)size < left.n)
            left.n = (size_t)size;
        return give_memory(in, left);
    }
    return read_exact(in, size < 0 ? (size_t)PY_SSIZE_T_MAX : (size_t)size);
}

/* A line with its newline, at most `max` bytes of it; b'' at the end. */
static PyObject *read_line(struct input *in, size_t max)
{
    struct slice left;
    if (in->empty || !max)
        return nothing();
    if (in_memory(in, &left)) {
        if (left.n > max)
            left.n = max;
        const char *end = left.n ? memchr(left.p, '\n', left.n) : NULL;
        if (end)
            left.n = (size_t)(end - left.p) + 1;
        return give_memory(in, left);
    }
    size_t searched = 0;
    for (;;) {
        size_t kept = ahead_bytes(in);
        const char *p = in->ahead.p + in->ahead_pos;
        size_t look = kept < max ? kept : max;
        const char *end = look > searched ? memchr(p + searched, '\n', look - searched) : NULL;
        size_t n = end ? (size_t)(end - p) + 1 : look;
        searched = look;
        if (!end && look < max) {
            if (in->ahead_pos) { /* room at the end for the rest of the line */
                buf_drop(&in->ahead, in->ahead_pos);
                in->ahead_pos = 0;
            }
            if (buf_reserve(&in->ahead, STEP_BYTES))
                return PyErr_NoMemory();
            Py_ssize_t got = fetch(in, in->ahead.p + in->ahead.n, STEP_BYTES);
            if (got < 0)
                return NULL;
            in->ahead.n += (size_t)got;
            if (got > 0)
                continue;
        }
        if (!n)
            return nothing();
        PyObject *line =
            PyBytes_FromStringAndSize(in->ahead.p + in->ahead_pos, (Py_ssize_t)n); /* new */
        if (line) {
            ahead_give(in, n);
            in->given += n;
        }
        return line;
    }
}

/* ---- the methods ---- */

/* An optional size: None and what is negative mean "all" (-1). 0 or -1. */
static int size_arg(PyObject *const *args, Py_ssize_t n, const char *method, Py_ssize_t *out)
{
    *out = -1;
    if (n > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most one argument", method);
        return -1;
    }
    if (n == 0 || args[0] == Py_None)
        return 0;
    PyObject *index = PyNumber_Index(args[0]); /* new */
    if (!index)
        return -1;
    *out = PyLong_AsSsize_t(index);
    Py_DECREF(index);
    if (*out == -1 && PyErr_Occurred())
        return -1;
    if (*out < 0)
        *out = -1;
    return 0;
}

static PyObject *input_read(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct input *in = (struct input *)self;
    Py_ssize_t size;
    if (size_arg(args, n, "read", &size) || check(in))
        return NULL;
    return read_bytes(in, size);
}

/* What is here, at least one byte; waits only when nothing is. */
static PyObject *input_read1(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct input *in = (struct input *)self;
    Py_ssize_t size;
    if (size_arg(args, n, "read1", &size) || check(in))
        return NULL;
    if (in->empty || !size)
        return nothing();
    size_t want = size < 0 || (size_t)size > 4 * STEP_BYTES ? 4 * STEP_BYTES : (size_t)size;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)want); /* new */
    if (!bytes)
        return NULL;
    Py_ssize_t got = take(in, PyBytes_AS_STRING(bytes), want);
    if (got < 0) {
        Py_DECREF(bytes);
        return NULL;
    }
    if ((size_t)got < want && _PyBytes_Resize(&bytes, got))
        return NULL;
    return bytes;
}

static PyObject *input_readinto(PyObject *self, PyObject *target)
{
    struct input *in = (struct input *)self;
    if (check(in))
        return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(target, &view, PyBUF_WRITABLE))
        return NULL;
    Py_ssize_t have = 0, got = 0;
    while (!in->empty && have < view.len &&
           (got = take(in, (char *)view.buf + have, (size_t)(view.len - have))) > 0)
        have += got;
    PyBuffer_Release(&view);
    return got < 0 ? NULL : PyLong_FromSsize_t(have);
}

static PyObject *input_readline(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct input *in = (struct input *)self;
    Py_ssize_t size;
    if (size_arg(args, n, "readline", &size) || check(in))
        return NULL;
    return read_line(in, size < 0 ? SIZE_MAX : (size_t)size);
}

static PyObject *input_readlines(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct input *in = (struct input *)self;
    Py_ssize_t hint;
    if (size_arg(args, n, "readlines", &hint) || check(in))
        return NULL;
    PyObject *lines = PyList_New(0); /* new */
    Py_ssize_t bytes = 0;
    while (lines && (hint <= 0 || bytes < hint)) {
        PyObject *line = read_line(in, SIZE_MAX); /* new */
        Py_ssize_t length = line ? PyBytes_GET_SIZE(line) : 0;
        if (line && !length) {
            Py_DECREF(line);
            break;
        }
        if (!line || PyList_Append(lines, line))
            Py_CLEAR(lines);
        Py_XDECREF(line);
        bytes += length;
    }
    return lines;
}

static PyObject *input_next(PyObject *self)
{
    struct input *in = (struct input *)self;
    if (check(in))
        return NULL;
    PyObject *line = read_line(in, SIZE_MAX); /* new */
    if (line && PyBytes_GET_SIZE(line) == 0)
        Py_CLEAR(line); /* NULL without an exception: the end */
    return line;
}

static bool is_whole(const struct input *in)
{
    return in->empty || (in->run && in->run->c->body->complete);
}

static PyObject *unsupported(const char *what)
{
    PyObject *io = PyImport_ImportModule("io");                                      /* new */
    PyObject *type = io ? PyObject_GetAttrString(io, "UnsupportedOperation") : NULL; /* new */
    if (type)
        PyErr_SetString(type, what);
    Py_XDECREF(type);
    Py_XDECREF(io);
    return NULL;
}

static PyObject *input_seek(PyObject *self, PyObject *args)
{
    struct input *in = (struct input *)self;
    long long offset;
    int whence = 0;
    if (!PyArg_ParseTuple(args, "L|i:seek", &offset, &whence) || check(in))
        return NULL;
    if (!is_whole(in))
        return unsupported("seek: this request body is still coming");
    int64_t size = in->empty ? 0 : (int64_t)in->run->c->body->size;
    int64_t from = whence == 0 ? 0 : whence == 1 ? (int64_t)in->given : size;
    if (whence < 0 || whence > 2 || offset > INT64_MAX - from || offset + from < 0) {
        PyErr_SetString(PyExc_ValueError, "seek: no such position");
        return NULL;
    }
    if (!in->empty) { /* the shared one stays as it is */
        in->given = in->offset = (uint64_t)(from + offset);
        in->ahead.n = in->ahead_pos = 0;
    }
    return PyLong_FromLongLong(from + offset);
}

static PyObject *input_tell(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct input *in = (struct input *)self;
    if (check(in))
        return NULL;
    return PyLong_FromUnsignedLongLong(in->given);
}

static PyObject *input_seekable(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(is_whole((struct input *)self));
}

static PyObject *input_yes(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_TRUE;
}

static PyObject *input_no(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_FALSE;
}

/* Wrappers close what they wrap; the server's own drain does not depend on it. */
static PyObject *input_close(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_NONE;
}

static PyObject *input_closed(PyObject *self, void *unused)
{
    (void)unused;
    const struct input *in = (struct input *)self;
    return PyBool_FromLong(!in->empty && !in->run);
}

static void input_dealloc(PyObject *self)
{
    buf_fini(&((struct input *)self)->ahead);
    PyObject_Free(self);
}

/* METH_FASTCALL functions have another type than PyCFunction; the cast goes by void (*)(void). */
#define FAST(f) ((PyCFunction)(void (*)(void))(f))

static PyMethodDef input_methods[] = {
    {"read", FAST(input_read), METH_FASTCALL, "read(size=-1) -> bytes; b'' at the end"},
    {"read1", FAST(input_read1), METH_FASTCALL, "read1(size=-1) -> what is here, at least a byte"},
    {"readinto", input_readinto, METH_O, "readinto(buffer) -> number of bytes"},
    {"readline", FAST(input_readline), METH_FASTCALL,
     "readline(size=-1) -> a line with its newline"},
    {"readlines", FAST(input_readlines), METH_FASTCALL, "readlines(hint=-1) -> list of lines"},
    {"seek", input_seek, METH_VARARGS, "seek(offset, whence=0); only in a body that is complete"},
    {"tell", input_tell, METH_NOARGS, "tell() -> position"},
    {"readable", input_yes, METH_NOARGS, "readable() -> True"},
    {"writable", input_no, METH_NOARGS, "writable() -> False"},
    {"seekable", input_seekable, METH_NOARGS, "seekable() -> is the body complete?"},
    {"isatty", input_no, METH_NOARGS, "isatty() -> False"},
    {"flush", input_close, METH_NOARGS, "flush(): nothing"},
    {"close", input_close, METH_NOARGS, "close(): nothing; the server drains what is left"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef input_getset[] = {
    {"closed", input_closed, NULL, "is the request over?", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject wsgi_input_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "weir.input",
    .tp_basicsize = sizeof(struct input),
    .tp_dealloc = input_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = input_next,
    .tp_methods = input_methods,
    .tp_getset = input_getset,
    .tp_doc = "wsgi.input: the content of a request",
};

PyObject *wsgi_input_new(struct wsgi_run *run)
{
    struct input *in = PyObject_New(struct input, &wsgi_input_type); /* new */
    if (!in)
        return NULL;
    in->run = run;
    in->empty = run == NULL;
    in->ended = false;
    in->offset = in->given = 0;
    in->ahead = (struct buf){0};
    in->ahead_pos = 0;
    return (PyObject *)in;
}

void wsgi_input_detach(PyObject *self)
{
    ((struct input *)self)->run = NULL;
}
