/* app: the application behind struct app; types and names of this folder. */
#include "wsgi/wsgi_private.h"

#include <stdlib.h>
#include <string.h>

int wsgi_module_init(PyObject *module)
{
#ifdef Py_GIL_DISABLED
    PyErr_SetString(PyExc_ImportError,
                    "weir needs a Python with the GIL; this is a free-threaded build");
    return -1;
#endif
    PyTypeObject *const types[] = {&wsgi_input_type, &wsgi_errors_type, &wsgi_gone_type,
                                   &wsgi_start_type, &wsgi_write_type,  &wsgi_file_type,
                                   &wsgi_hints_type};
    for (unsigned i = 0; i < countof(types); i++)
        if (PyType_Ready(types[i]))
            return -1;
    static const char *const TEXTS[] = {
#define WSGI_KEY_TEXT(id, text) text,
        WSGI_KEYS(WSGI_KEY_TEXT)
#undef WSGI_KEY_TEXT
    };
    /* All of these live as long as the process. */
    for (unsigned i = 0; i < WSGI_KEY_COUNT; i++)
        if (!wsgi_keys[i] && !(wsgi_keys[i] = PyUnicode_InternFromString(TEXTS[i])))
            return -1;
    if (!wsgi_input_empty)
        wsgi_input_empty = wsgi_input_new(NULL);
    return wsgi_input_empty ? wsgi_inspect_init(module) : -1;
}

/* "/prefix" without a slash at its end, as the bytes of a path; "" where there is none. New
 * reference. */
static PyObject *prefix_str(const char *text)
{
    struct slice s = slice_str(text);
    while (s.n && s.p[s.n - 1] == '/')
        s.n--;
    while (s.n && s.p[0] == '/')
        s.p++, s.n--;
    if (!s.n)
        return PyUnicode_FromString("");
    PyObject *path = PyUnicode_DecodeLatin1(s.p, (Py_ssize_t)s.n, NULL); /* new */
    PyObject *prefix = path ? PyUnicode_FromFormat("/%U", path) : NULL;  /* new */
    Py_XDECREF(path);
    return prefix;
}

static PyObject *text_str(const char *text, const char *fallback)
{
    struct slice s = slice_str(text && *text ? text : fallback);
    return PyUnicode_DecodeLatin1(s.p, (Py_ssize_t)s.n, NULL);
}

/* 0 or -1; what was made is freed by wsgi_app_free. */
static int fill(struct wsgi *w, PyObject *application, const struct wsgi_config *config)
{
    wsgi_threads_setup(w);
    w->interp = PyInterpreterState_Get();
    w->waitress = config->waitress;
    w->gunicorn = config->gunicorn;
    w->prefix_required = config->prefix_required;
    w->multithread = config->multithread;
    w->multiprocess = config->multiprocess;
    w->expose_tracebacks = config->expose_tracebacks;
    w->errors_to_log = config->errors_to_log;
    w->log = config->log;
    Py_INCREF(application);
    w->application = application;
    w->scheme = text_str(config->url_scheme, "http");
    w->prefix = prefix_str(config->url_prefix);
    w->server_name = text_str(config->server_name, "");
    w->software = text_str(config->ident, "weir");
    w->errors = wsgi_errors_new(w);
    w->hints = wsgi_hints_new(w);
    if (!w->scheme || !w->prefix || !w->server_name || !w->software || !w->errors || !w->hints)
        return -1;
    /* Imported here, not in a thread of ours: threading takes who imports it for the main thread.
     */
    w->threading = PyImport_ImportModule("threading");        /* new */
    PyObject *traceback = PyImport_ImportModule("traceback"); /* new */
    if (traceback)
        w->format_exception = PyObject_GetAttrString(traceback, "format_exception"); /* new */
    Py_XDECREF(traceback);
    if (!w->threading || !w->format_exception)
        return -1;
    return wsgi_environ_setup(w);
}

int wsgi_app_new(struct app **out, PyObject *application, const struct wsgi_config *config)
{
    *out = NULL;
    if (!PyCallable_Check(application)) {
        PyErr_Format(PyExc_TypeError, "the application must be callable, which %s is not",
                     Py_TYPE(application)->tp_name);
        return -1;
    }
    struct wsgi *w = calloc(1, sizeof *w);
    if (!w) {
        PyErr_NoMemory();
        return -1;
    }
    struct app *app = &w->app;
    if (fill(w, application, config)) {
        PyObject *type, *value, *trace; /* kept over the release of what was made */
        PyErr_Fetch(&type, &value, &trace);
        wsgi_app_free(&app);
        PyErr_Restore(type, value, trace);
        return -1;
    }
    *out = app;
    return 0;
}

void wsgi_app_free(struct app **app)
{
    struct wsgi *w = (struct wsgi *)*app;
    if (!w)
        return;
    *app = NULL;
    wsgi_inspect_stop(w);
    wsgi_environ_clear(w);
    if (w->errors)
        wsgi_errors_detach(w->errors);
    Py_CLEAR(w->errors);
    if (w->hints)
        wsgi_hints_detach(w->hints);
    Py_CLEAR(w->hints);
    Py_CLEAR(w->scheme);
    Py_CLEAR(w->prefix);
    Py_CLEAR(w->server_name);
    Py_CLEAR(w->software);
    Py_CLEAR(w->threading);
    Py_CLEAR(w->format_exception);
    Py_CLEAR(w->application);
    free(w);
}

void wsgi_set_switch_interval(double seconds)
{
    PyObject *set = PySys_GetObject("setswitchinterval");                /* borrowed */
    PyObject *r = set ? PyObject_CallFunction(set, "d", seconds) : NULL; /* new */
    Py_XDECREF(r);
    PyErr_Clear();
}
