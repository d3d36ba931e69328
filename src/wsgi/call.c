/*
 * call: run the application for one request and send what it returns.
 *
 *   application(environ, start_response)
 *     list or tuple     the whole content is known: Content-Length, one piece, no flush
 *     file_wrapper      file.c
 *     anything else     iterate; each item that is not empty is framed and flushed at once
 *   then close(), once and always
 *
 * Whatever happens, the call is CALL_ENDED or CALL_ABORTED afterwards.
 */
#include "wsgi/wsgi_private.h"

#include <errno.h>
#include <inttypes.h>
#include <time.h>

#include "base/log.h"

/* Room that is made at once for content of known length. */
#define ROOM_BYTES_MAX (128 * 1024)

/* ---- when the application fails ---- */

/* What the client is told: our own fault in reading the body is its fault. */
static int failure_status(const struct wsgi_run *run)
{
    switch (run->body_error) {
    case -EPROTO:
        return 400;
    case -EMSGSIZE:
        return 413;
    case -ETIMEDOUT:
        return 408;
    default:
        return 500;
    }
}

static const char *failure_reason(int status)
{
    switch (status) {
    case 400:
        return "the request body is malformed";
    case 413:
        return "the request body is too large";
    case 408:
        return "the request body did not come in time";
    default:
        return "the application failed; the server's log says why";
    }
}

/* There is no environ for this path: Gunicorn calls it a problem of the configuration. */
static WEIR_COLD void misplaced(struct wsgi_run *run)
{
    struct slice path = run->c->req->path;
    PyErr_Clear();
    wsgi_log(
        run, LOG_ERROR,
        "the path %.*s is not below SCRIPT_NAME: answered with 500; look at what the front-end "
        "sends, and at url-prefix",
        (int)(path.n < 200 ? path.n : 200), path.p);
    call_error(run->c, 500, "the path is not below the prefix of this application");
}

/* Is the exception that is set the one by which we interrupted the application? Then it is cleared, and told in one
 * line: where the thread was stands in the log already. */
static bool was_interrupted(struct wsgi_run *run, const char *what)
{
    if (WEIR_LIKELY(!run->interrupted) || !PyErr_ExceptionMatches(wsgi_deadline_exceeded))
        return false;
    PyErr_Clear();
    wsgi_log(run, LOG_INFO, "%s was interrupted at its deadline", what);
    return true;
}

/* An exception is set: log it and answer, or break off. */
static void failed(struct wsgi_run *run)
{
    struct call *c = run->c;
    if (was_interrupted(run, "the application")) {
        if (c->state != CALL_ENDED)
            call_abort(c, "interrupted at its deadline");
        return;
    }
    if (WEIR_UNLIKELY(run->misplaced)) {
        misplaced(run);
        return;
    }
    /* What we raised ourselves because the client left or sent nonsense is no fault of the
     * application. */
    if (WEIR_UNLIKELY(run->ended_early) && c->state == CALL_BODY &&
        PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        if (call_end(c) == 0)
            return;
    }
    bool ours = (run->client_gone || run->body_error) && PyErr_ExceptionMatches(PyExc_OSError);
    int status = ours ? failure_status(run) : 500;
    PyObject *text = NULL; /* new */
    if (ours && (run->client_gone || status != 500)) {
        PyErr_Clear();
        wsgi_log(run, LOG_INFO, "the application stopped: %s",
                 run->client_gone || run->body_error == -EPIPE ? "the client left"
                                                               : failure_reason(status));
    } else {
        wsgi_log_exception(run, "the application raised an exception",
                           run->w->expose_tracebacks ? &text : NULL);
    }
    if (run->client_gone) {
        call_abort(c, "the client left");
    } else if (c->state == CALL_NEW || c->state == CALL_STATUS) {
        if (run->w->waitress || ours)
            c->close_wanted = true; /* Waitress closes after an error */
        call_error(c, status, text ? PyBytes_AS_STRING(text) : failure_reason(status));
    } else if (c->state == CALL_BODY) {
        call_abort(c, "the application failed after the head was sent");
    }
    Py_XDECREF(text);
}

static int not_started(void)
{
    PyErr_SetString(PyExc_AssertionError,
                    "the application returned content without calling start_response()");
    return WSGI_FAILED;
}

/* ---- the end of a response ---- */

/* The content is complete. */
static int finish(struct wsgi_run *run)
{
    struct call *c = run->c;
    if (!run->started)
        return not_started();
    if (call_begin(c, 0)) {
        PyErr_NoMemory();
        return WSGI_FAILED;
    }
    if (c->excess)
        wsgi_log(run, LOG_WARNING,
                 "the application gave %" PRIu64 " bytes more than its Content-Length of %" PRIu64
                 "; they were dropped",
                 c->excess, c->length);
    if (c->framing == CALL_LENGTH && c->sent < c->length) {
        wsgi_log(run, LOG_WARNING,
                 "the application gave %" PRIu64 " bytes less than its Content-Length of %" PRIu64
                 "; the connection is closed",
                 c->length - c->sent, c->length);
        wsgi_flush(run); /* what there is; call_end breaks off */
    }
    int rc = call_end(c);
    if (rc == -ENOMEM)
        call_abort(c, "no memory for the end of the response");
    if (rc == 0 && run->streamed) /* close() may take its time: the end goes out before it */
        wsgi_flush(run);
    return WSGI_SENT;
}

/* ---- the three kinds of content ---- */

/* Sum of the lengths of a list or tuple; -1 and an exception where an item is no bytes. */
static Py_ssize_t total_of(PyObject *seq)
{
    Py_ssize_t total = 0;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(seq); i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(seq, i); /* borrowed */
        Py_ssize_t n;
        if (WEIR_LIKELY(PyBytes_Check(item))) {
            n = PyBytes_GET_SIZE(item);
        } else {
            Py_buffer view;
            if (!PyObject_CheckBuffer(item)) {
                PyErr_Format(PyExc_TypeError, "the content of a response must be bytes, not %s",
                             Py_TYPE(item)->tp_name);
                return -1;
            }
            if (PyObject_GetBuffer(item, &view, PyBUF_SIMPLE))
                return -1;
            n = view.len;
            PyBuffer_Release(&view);
        }
        if (n > PY_SSIZE_T_MAX - total) {
            PyErr_NoMemory();
            return -1;
        }
        total += n;
    }
    return total;
}

static int send_sequence(struct wsgi_run *run, PyObject *seq)
{
    struct call *c = run->c;
    if (WEIR_UNLIKELY(!run->started))
        return not_started();
    Py_ssize_t total = total_of(seq);
    if (total < 0)
        return WSGI_FAILED;
    if (wsgi_run_claim(run))
        return WSGI_FAILED;
    /* One growth at most; what is larger goes out in pieces anyway (send.c). */
    /* Waitress tells the length of a single item only. */
    bool known = !run->w->waitress || PySequence_Fast_GET_SIZE(seq) < 2;
    if (call_begin(c, known ? total : -1) ||
        buf_reserve(&c->out, total < ROOM_BYTES_MAX ? (size_t)total : (size_t)ROOM_BYTES_MAX)) {
        PyErr_NoMemory();
        return WSGI_FAILED;
    }
    int rc = WSGI_SENT;
    for (Py_ssize_t i = 0; rc == WSGI_SENT && i < PySequence_Fast_GET_SIZE(seq); i++) {
        /* A large item may wait for the client without the GIL, and the list may change meanwhile.
         */
        PyObject *item = PySequence_Fast_GET_ITEM(seq, i);
        if (WEIR_LIKELY(PyBytes_Check(item) && total <= ROOM_BYTES_MAX && !run->streamed)) {
            if (call_data(c, slice_of(PyBytes_AS_STRING(item), (size_t)PyBytes_GET_SIZE(item)))) {
                PyErr_NoMemory();
                return WSGI_FAILED;
            }
            continue;
        }
        Py_INCREF(item);
        rc = wsgi_send_item(run, item, run->streamed);
        Py_DECREF(item);
        if (c->bodyless)
            break;
    }
    return rc ? rc : finish(run);
}

/* An item of an iterable that is not empty. */
static int send_next(struct wsgi_run *run, PyObject *item)
{
    if (WEIR_UNLIKELY(!run->started)) {
        bool bytes = PyBytes_Check(item) || PyObject_CheckBuffer(item);
        if (bytes)
            return not_started();
    }
    if (wsgi_run_claim(run))
        return WSGI_FAILED;
    return wsgi_send_item(run, item, true);
}

static int send_iterable(struct wsgi_run *run, PyObject *iterable)
{
    struct call *c = run->c;
    PyObject *it = PyObject_GetIter(iterable); /* new */
    if (!it)
        return WSGI_FAILED;
    iternextfunc next = Py_TYPE(it)->tp_iternext;
    int rc = WSGI_SENT;
    PyObject *item; /* new, each */
    while (rc == WSGI_SENT && (item = next(it))) {
        if (PyBytes_CheckExact(item) && PyBytes_GET_SIZE(item) == 0)
            rc = call_gone(c) ? WSGI_STOP : WSGI_SENT; /* nothing to send, but a chance to look */
        else
            rc = send_next(run, item);
        Py_DECREF(item);
        /* The rest would be dropped: HEAD, 304 …, or beyond Content-Length. */
        if (rc == WSGI_SENT && c->state == CALL_BODY && (c->bodyless || c->excess))
            break;
        if (rc == WSGI_SENT && call_ends_early(c))
            break; /* finish() ends it in order, and close() tells the application */
    }
    Py_DECREF(it);
    if (PyErr_Occurred()) {
        if (rc != WSGI_SENT || !PyErr_ExceptionMatches(PyExc_StopIteration))
            return WSGI_FAILED;
        PyErr_Clear();
    }
    return rc ? rc : finish(run);
}

static int send_result(struct wsgi_run *run, PyObject *result)
{
    if (PyList_CheckExact(result) || PyTuple_CheckExact(result))
        return send_sequence(run, result);
    if (Py_IS_TYPE(result, &wsgi_file_type)) {
        if (!run->started)
            return not_started();
        switch (wsgi_file_send(run, result)) {
        case WSGI_FILE_FAILED:
            return WSGI_FAILED;
        case WSGI_FILE_SENT:
            return finish(run);
        case WSGI_FILE_ITERATE:
            break;
        }
    }
    return send_iterable(run, result);
}

/* close() of the iterable, where it has one. */
static void close_result(struct wsgi_run *run, PyObject *result)
{
    wsgi_window_open(run);
    PyObject *close = PyObject_GetAttr(result, W_KEY(close)); /* new or NULL */
    PyObject *r = close ? PyObject_CallNoArgs(close) : NULL;  /* new */
    wsgi_window_shut(run);
    if (!close && PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Clear();
    else if (!r && !was_interrupted(run, "close() of the response"))
        wsgi_log_exception(run,
                           close ? "close() of the response raised an exception"
                                 : "the close attribute of the response raised an exception",
                           NULL);
    Py_XDECREF(r);
    Py_XDECREF(close);
}

static void respond(struct wsgi_run *run, PyObject *result)
{
    int rc = send_result(run, result);
    wsgi_window_shut(run);
    switch (rc) {
    case WSGI_SENT:
        break;
    case WSGI_STOP:
        call_abort(run->c, "the client left");
        break;
    default:
        failed(run);
    }
    if (!PyList_CheckExact(result) && !PyTuple_CheckExact(result))
        close_result(run, result);
}

/* ---- the run ---- */

/* Another thread of the application is still inside a read or write of this request: `call` must
 * not go away under it. It waits for the same client, so it comes back when that answers or leaves.
 */
static WEIR_COLD void wait_for_others(const struct wsgi_run *run)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    while (*(const volatile bool *)&run->reading || *(const volatile bool *)&run->writing) {
        Py_BEGIN_ALLOW_THREADS nanosleep(&pause, NULL);
        Py_END_ALLOW_THREADS
    }
}

/* What the access log wants to know of the environ, as the application has left it. What cannot be
 * told is not there. */
static WEIR_COLD void watch(struct wsgi_run *run, PyObject *env)
{
    struct call *c = run->c;
    struct slice *values = arena_alloc(c->arena, c->n_watch * sizeof *values);
    PyObject *type, *error, *trace; /* kept: what the application raised is not ours */
    if (!values)
        return;
    memset(values, 0, c->n_watch * sizeof *values);
    PyErr_Fetch(&type, &error, &trace);
    for (unsigned i = 0; i < c->n_watch; i++)
        values[i] = wsgi_environ_text(env, c->watch[i], c->arena);
    PyErr_Restore(type, error, trace);
    c->watched = values;
}

static void detach(struct wsgi_run *run)
{
    if (WEIR_UNLIKELY(run->reading || run->writing))
        wait_for_others(run);
    if (run->start) {
        wsgi_start_detach(run->start);
        Py_DECREF(run->start);
    }
    if (run->gone) {
        wsgi_gone_detach(run->gone);
        Py_DECREF(run->gone);
    }
    if (run->input) {
        wsgi_input_detach(run->input);
        Py_DECREF(run->input);
    }
    run->t->run = NULL;
}

void wsgi_run(struct app *a, void *local, struct call *c)
{
    struct wsgi *w = (struct wsgi *)a;
    struct wsgi_thread *t = local;
    if (WEIR_UNLIKELY(call_gone(c))) {
        call_abort(c, "the client left before the application was called");
        return;
    }
    if (WEIR_UNLIKELY(!t->known))
        wsgi_thread_introduce(w, t);

    struct wsgi_run run = {.w = w, .t = t, .c = c};
    t->run = &run;
    run.start = wsgi_start_take(&run);                         /* new */
    PyObject *env = run.start ? wsgi_environ_new(&run) : NULL; /* new */
    PyObject *result = NULL;                                   /* new */
    if (env) {
        PyObject *args[3] = {NULL, env, run.start};
        wsgi_window_open(&run);
        result =
            PyObject_Vectorcall(w->application, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    if (WEIR_LIKELY(result != NULL)) {
        respond(&run, result);
        Py_DECREF(result);
    } else {
        wsgi_window_shut(&run);
        failed(&run);
    }
    if (WEIR_UNLIKELY(c->n_watch && env))
        watch(&run, env);
    Py_XDECREF(env);
    detach(&run);
}
