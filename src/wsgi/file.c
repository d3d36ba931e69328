/*
 * file: wsgi.file_wrapper.
 *
 * The application may return the wrapper itself: then the file behind it is sent by the kernel. Or
 * it may wrap it once more (middleware): then it is an iterable like any other.
 *
 * Only files whose read() is known to give the bytes of their descriptor are sent that way:
 * io's own raw and buffered files, and tempfile's wrapper of these. An object that merely has a
 * fileno() may change what it reads (gzip.GzipFile does), so it is iterated.
 */
#include "wsgi/wsgi_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

struct file {
    PyObject_HEAD PyObject *filelike; /* owned */
    PyObject *size;                   /* owned: int, bytes in a block */
    bool closed;                      /* close() was passed on */
    bool begun;                       /* somebody has iterated */
};

/* Above this the kernel sends the file; a shorter one is cheaper to copy with the head. */
static const uint64_t COPY_BYTES_MAX = 32 * 1024;

/* ---- the object ---- */

static PyObject *file_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"filelike", "blksize", NULL};
    PyObject *filelike, *size = NULL; /* borrowed */
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:file_wrapper", names, &filelike, &size))
        return NULL;
    struct file *f =
        (struct file *)type->tp_alloc(type, 0); /* new; zeroed, tracked by the collector */
    if (!f)
        return NULL;
    Py_INCREF(filelike);
    f->filelike = filelike;
    if (size && size != Py_None && PyLong_Check(size)) {
        Py_INCREF(size);
        f->size = size;
    } else {
        f->size = PyLong_FromLong(8192); /* new */
    }
    if (!f->size)
        Py_CLEAR(f);
    return (PyObject *)f;
}

static int file_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((struct file *)self)->filelike);
    return 0;
}

static int file_clear(PyObject *self)
{
    Py_CLEAR(((struct file *)self)->filelike);
    return 0;
}

static void file_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    file_clear(self);
    Py_XDECREF(((struct file *)self)->size);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *file_next(PyObject *self)
{
    struct file *f = (struct file *)self;
    f->begun = true;
    if (!f->filelike)
        return NULL;
    PyObject *block = PyObject_CallMethod(f->filelike, "read", "O", f->size); /* new */
    if (!block)
        return NULL;
    int more = PyObject_IsTrue(block);
    if (more > 0)
        return block;
    Py_DECREF(block);
    return NULL; /* the end, or an exception */
}

static PyObject *file_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct file *f = (struct file *)self;
    if (f->closed || !f->filelike)
        Py_RETURN_NONE;
    f->closed = true;
    PyObject *close = PyObject_GetAttr(f->filelike, W_KEY(close)); /* new or NULL */
    if (!close) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return NULL;
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    PyObject *r = PyObject_CallNoArgs(close); /* new */
    Py_DECREF(close);
    if (!r)
        return NULL;
    Py_DECREF(r);
    Py_RETURN_NONE;
}

static PyObject *file_get_filelike(PyObject *self, void *unused)
{
    (void)unused;
    PyObject *o = ((struct file *)self)->filelike;
    o = o ? o : Py_None;
    Py_INCREF(o);
    return o;
}

static PyObject *file_get_size(PyObject *self, void *unused)
{
    (void)unused;
    PyObject *o = ((struct file *)self)->size;
    Py_INCREF(o);
    return o;
}

static PyMethodDef file_methods[] = {
    {"close", file_close, METH_NOARGS, "close(): close the file, once"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef file_getset[] = {
    {"filelike", file_get_filelike, NULL, "the file", NULL},
    {"blksize", file_get_size, NULL, "bytes of a block", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject wsgi_file_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "weir.file_wrapper",
    .tp_basicsize = sizeof(struct file),
    .tp_new = file_new,
    .tp_dealloc = file_dealloc,
    .tp_traverse = file_traverse,
    .tp_clear = file_clear,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = file_next,
    .tp_methods = file_methods,
    .tp_getset = file_getset,
    .tp_doc = "file_wrapper(filelike, blksize=8192): a file as the content of a response",
};

/* ---- sending ---- */

/* A new reference to the io object behind `o` that reads what its descriptor holds, or NULL without
 * an exception. */
static PyObject *plain_file(PyObject *o)
{
    const char *type = Py_TYPE(o)->tp_name;
    /* Static types of the interpreter cannot be imitated: their names have a module in front. */
    bool is_io = !(Py_TYPE(o)->tp_flags & Py_TPFLAGS_HEAPTYPE) || PY_VERSION_HEX >= 0x030C0000;
    if (is_io && (strcmp(type, "_io.BufferedReader") == 0 ||
                  strcmp(type, "_io.BufferedRandom") == 0 || strcmp(type, "_io.FileIO") == 0)) {
        Py_INCREF(o);
        if (strcmp(type, "_io.FileIO") == 0)
            return o;
        PyObject *raw = PyObject_GetAttrString(o, "raw"); /* new or NULL */
        bool file = raw && strcmp(Py_TYPE(raw)->tp_name, "_io.FileIO") == 0;
        PyErr_Clear();
        Py_XDECREF(raw);
        if (file)
            return o;
        Py_DECREF(o);
        return NULL;
    }
    if (strcmp(type, "_TemporaryFileWrapper") != 0)
        return NULL;
    PyObject *inner = PyObject_GetAttrString(o, "file"); /* new or NULL */
    PyErr_Clear();
    PyObject *plain = inner && inner != o ? plain_file(inner) : NULL; /* new or NULL */
    Py_XDECREF(inner);
    return plain;
}

/* The result of an int method; -1 (no exception left) where there is none. */
static long long ask(PyObject *o, const char *method)
{
    PyObject *r = PyObject_CallMethod(o, method, NULL); /* new */
    long long v = r ? PyLong_AsLongLong(r) : -1;
    Py_XDECREF(r);
    PyErr_Clear(); /* a closed file: read() will say so, and better */
    return v;
}

/* Copy the file's bytes into the response. 0, or a negative errno where that failed. */
static int copy(struct call *c, int fd, off_t offset, uint64_t n)
{
    char block[8192];
    while (n) {
        ssize_t got = pread(fd, block, n < sizeof block ? (size_t)n : sizeof block, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0; /* shorter than it was: the end of the response says so */
        int rc = call_data(c, slice_of(block, (size_t)got));
        if (rc)
            return rc;
        offset += got;
        n -= (uint64_t)got;
    }
    return 0;
}

enum wsgi_file_verdict wsgi_file_send(struct wsgi_run *run, PyObject *wrapper)
{
    struct call *c = run->c;
    struct file *f = (struct file *)wrapper;
    if (c->state != CALL_STATUS || f->begun || f->closed || !f->filelike)
        return WSGI_FILE_ITERATE;
    PyObject *plain = plain_file(f->filelike); /* new or NULL */
    if (!plain)
        return WSGI_FILE_ITERATE;
    if (strcmp(Py_TYPE(plain)->tp_name, "_io.BufferedRandom") == 0)
        (void)ask(plain, "flush"); /* what was written but is not in the file yet */
    long long fd = ask(plain, "fileno");
    long long offset = fd >= 0 ? ask(plain, "tell") : -1; /* what was read ahead is accounted for */
    Py_DECREF(plain);
    struct stat st;
    if (offset < 0 || fstat((int)fd, &st) || !S_ISREG(st.st_mode))
        return WSGI_FILE_ITERATE;

    uint64_t size = st.st_size > offset ? (uint64_t)(st.st_size - offset) : 0;
    if (c->has_length && c->length > size) {
        wsgi_log(run, LOG_WARNING,
                 "Content-Length says %llu, but the file has only %llu bytes to send",
                 (unsigned long long)c->length, (unsigned long long)size);
        c->length = size;
    } else if (c->has_length) {
        size = c->length;
    }
    int rc = call_begin(c, (int64_t)size);
    if (!rc && !c->bodyless && size <= COPY_BYTES_MAX) {
        rc = copy(c, (int)fd, offset, size);
    } else if (!rc && !c->bodyless) {
        int own = fcntl((int)fd, F_DUPFD_CLOEXEC, 3); /* the application closes its own */
        rc = own < 0 ? -errno : call_file(c, own, offset, size);
    }
    if (rc == 0)
        return WSGI_FILE_SENT;
    if (rc == -ENOMEM) {
        PyErr_NoMemory();
    } else {
        errno = -rc;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return WSGI_FILE_FAILED;
}
