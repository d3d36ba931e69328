/* send: content of the application on its way out; the one place that flushes and waits for a slow
 * client. */
#include "wsgi/wsgi_private.h"

#include <errno.h>

/* A larger item is handed over in pieces, so that the copy of it that waits for the client is
 * bounded by the server's own bound, not by the application's idea of a chunk. */
static const size_t PIECE_BYTES_MAX = 1024 * 1024;

int wsgi_run_claim(const struct wsgi_run *run)
{
    if (WEIR_LIKELY(!run->writing))
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "another thread is writing this response right now");
    return -1;
}

int wsgi_flush(struct wsgi_run *run)
{
    struct call *c = run->c;
    if (!c->out.n)
        return run->client_gone ? WSGI_STOP : WSGI_SENT;
    run->streamed = true;
    int rc = call_flush(c);
    if (rc == -EAGAIN) {
        run->writing = true;
        Py_BEGIN_ALLOW_THREADS rc = call_wait(c);
        Py_END_ALLOW_THREADS run->writing = false;
    }
    if (rc) { /* -EPIPE, -ECANCELED: whoever is to blame, nobody takes the rest */
        run->client_gone = true;
        return WSGI_STOP;
    }
    return WSGI_SENT;
}

int wsgi_send(struct wsgi_run *run, struct slice data, bool flush)
{
    struct call *c = run->c;
    while (data.n) {
        struct slice piece = data;
        if (piece.n > PIECE_BYTES_MAX)
            piece.n = PIECE_BYTES_MAX;
        if (call_data(c, piece)) {
            PyErr_NoMemory();
            return WSGI_FAILED;
        }
        data.p += piece.n;
        data.n -= piece.n;
        if (flush || data.n || c->out.n > PIECE_BYTES_MAX + 65536) {
            int rc = wsgi_flush(run);
            if (rc)
                return rc;
        }
    }
    return WSGI_SENT;
}

/* Is the announced Content-Length used up? Then the head, framed, is in `out` or on its way. */
static bool nothing_fits(const struct wsgi_run *run)
{
    struct call *c = run->c;
    return run->started && c->has_length && c->sent == c->length && call_begin(c, -1) == 0;
}

int wsgi_send_item(struct wsgi_run *run, PyObject *item, bool flush)
{
    if (WEIR_LIKELY(PyBytes_Check(item)))
        return wsgi_send(run, slice_of(PyBytes_AS_STRING(item), (size_t)PyBytes_GET_SIZE(item)),
                         flush);
    /* PEP 3333 knows only bytes. bytearray and memoryview, which Waitress takes too, cannot be
     * mistaken for anything else, so they are sent as the bytes they are. */
    if (!PyObject_CheckBuffer(item)) {
        if (run->w->waitress && nothing_fits(run))
            (void)wsgi_flush(run); /* the head: in Waitress it goes before the item is looked at */
        PyErr_Format(PyExc_TypeError, "the content of a response must be bytes, not %s",
                     Py_TYPE(item)->tp_name);
        return WSGI_FAILED;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(item, &view, PyBUF_SIMPLE))
        return WSGI_FAILED;
    int rc = wsgi_send(run, slice_of(view.buf, (size_t)view.len), flush);
    PyBuffer_Release(&view);
    return rc;
}
