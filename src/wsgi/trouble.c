/*
 * trouble: exceptions and other lines for the log.
 *
 * PyErr_Print is not used: it ends the process on SystemExit and writes to sys.stderr.
 */
#include "wsgi/wsgi_private.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"

/* The target in a log line; it holds no control characters, the parser saw to that. */
#define TARGET_BYTES_MAX 200

static void emit(const struct wsgi_run *run, int level, const char *text)
{
    if (run->w->log)
        run->w->log(level, run->c->id, text);
    else
        log_text((enum log_level)level, run->c->id, slice_str(text));
}

static int head_write(char *to, size_t size, const struct wsgi_run *run)
{
    const struct req *r = run->c->req;
    int method = r->method.n < 32 ? (int)r->method.n : 32;
    int path = r->path.n < TARGET_BYTES_MAX ? (int)r->path.n : TARGET_BYTES_MAX;
    int n = snprintf(to, size, "%.*s %.*s: ", method, r->method.p, path, path ? r->path.p : "");
    return n < (int)size ? n : (int)size - 1;
}

void wsgi_log(struct wsgi_run *run, int level, const char *fmt, ...)
{
    if (!log_wants((enum log_level)level) && !run->w->log)
        return;
    char line[512];
    int n = head_write(line, sizeof line, run);
    va_list args;
    va_start(args, fmt);
    vsnprintf(line + n, sizeof line - (size_t)n, fmt, args);
    va_end(args);
    emit(run, level, line);
}

/* The exception that is set, normalised, with its traceback; it is not set any more. New reference.
 */
static PyObject *take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *trace; /* new references, any may be NULL */
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (value && trace)
        PyException_SetTraceback(value, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return value;
#endif
}

/* "Traceback (most recent call last): …", as str; new reference or NULL. */
static PyObject *format(const struct wsgi *w, PyObject *exc)
{
    PyObject *trace = PyException_GetTraceback(exc); /* new or NULL */
    PyObject *lines = PyObject_CallFunctionObjArgs(w->format_exception, (PyObject *)Py_TYPE(exc),
                                                   exc, trace ? trace : Py_None, NULL); /* new */
    PyObject *nothing = PyUnicode_FromString("");                                       /* new */
    PyObject *text = lines && nothing ? PyUnicode_Join(nothing, lines) : NULL;          /* new */
    Py_XDECREF(nothing);
    Py_XDECREF(lines);
    Py_XDECREF(trace);
    return text;
}

void wsgi_log_exception(struct wsgi_run *run, const char *what, PyObject **out)
{
    if (out)
        *out = NULL;
    PyObject *exc = take_exception();                  /* new or NULL */
    PyObject *text = exc ? format(run->w, exc) : NULL; /* new */
    PyErr_Clear(); /* formatting may run the application's code, and that may fail */
    char head[TARGET_BYTES_MAX + 64];
    head_write(head, sizeof head, run);
    PyObject *entry = NULL; /* new */
    if (text)
        entry = PyUnicode_FromFormat("%s%s\n%U", head, what, text);
    else
        entry = PyUnicode_FromFormat("%s%s\n%s: its traceback could not be made", head, what,
                                     exc ? Py_TYPE(exc)->tp_name : "no exception");
    /* Lone surrogates (file names) must not lose the whole entry. */
    PyObject *bytes = entry ? PyUnicode_AsEncodedString(entry, "utf-8", "backslashreplace") : NULL;
    PyErr_Clear();
    emit(run, LOG_ERROR, bytes ? PyBytes_AS_STRING(bytes) : what);
    if (out)
        *out = bytes; /* given away */
    else
        Py_XDECREF(bytes);
    Py_XDECREF(entry);
    Py_XDECREF(text);
    Py_XDECREF(exc);
}
