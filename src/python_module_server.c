/* python_module_server: one worker in this process. */
#include "python_module.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "conf/version.h"
#include "proc/signals.h"
#include "serve/server.h"
#include "wsgi/wsgi.h"

/* How often to look for signals that Python's handlers noted, where nothing tells of them. */
static const int NO_WAKE_MS = 500;
/* How long threads may still be inside the application after everything else has ended. */
static const int JOIN_AFTER_GRACE_MS = 1000;
static const int JOIN_AT_ONCE_MS = 100;

struct server_object {
    PyObject_HEAD
    struct config_object *config; /* counted */
    struct app *app;              /* owned */
    struct server *server;        /* owned; NULL once closed or abandoned */
    struct log_sink *errors;      /* owned */
    bool listening, running;
    unsigned left;                /* threads still inside the application after run() */
};

static void on_wsgi_log(int level, uint64_t request, const char *text)
{
    size_t n = strlen(text);
    while (n && text[n - 1] == '\n')
        n--;
    log_text((enum log_level)level, request, slice_of(text, n));
}

static int server_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct server_object *o = (struct server_object *)self;
    static char *names[] = {"app", "config", NULL};
    PyObject *application, *config; /* borrowed */
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!", names, &application, python_config_type, &config))
        return -1;
    if (o->server) {
        PyErr_SetString(PyExc_RuntimeError, "this server is initialised already");
        return -1;
    }
    o->config = (struct config_object *)Py_NewRef(config);
    const struct conf *c = &o->config->conf;
    struct err e = {{0}};
    if (python_log_open(&o->errors, c))
        return -1;
    struct wsgi_config w = {
        .url_scheme = c->url_scheme,
        .url_prefix = c->url_prefix,
        .server_name = c->server_name,
        .ident = c->ident,
        .waitress = c->dialect == CONF_WAITRESS,
        .gunicorn = c->manners[0] == 'g',
        .prefix_required = c->url_prefix_required,
        .multithread = c->threads.max > 1,
        .multiprocess = false,
        .expose_tracebacks = c->expose_tracebacks,
        .log = on_wsgi_log,
    };
    if (wsgi_app_new(&o->app, application, &w))
        return -1; /* an exception is set */
    if (server_new(&o->server, c, o->app, &e)) {
        PyErr_SetString(PyExc_ValueError, e.text);
        return -1;
    }
    return 0;
}

static PyObject *server_listen_py(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct server_object *o = (struct server_object *)self;
    struct err e = {{0}};
    if (!o->server || o->listening) {
        PyErr_SetString(PyExc_RuntimeError, "the server is closed, or listens already");
        return NULL;
    }
    if (server_listen(o->server, o->config->fds, o->config->n_fds, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
    o->listening = true;
    Py_RETURN_NONE;
}

static PyObject *server_addresses(PyObject *self, void *unused)
{
    (void)unused;
    struct server_object *o = (struct server_object *)self;
    PyObject *out = PyList_New(0); /* new */
    for (unsigned i = 0; out && o->server && i < o->server->listeners.n; i++) {
        PyObject *s = PyUnicode_DecodeFSDefault(o->server->listeners.items[i]->url); /* new */
        if (!s || PyList_Append(out, s))
            Py_CLEAR(out);
        Py_XDECREF(s);
    }
    return out;
}

/* What run() needs while it waits. */
struct run {
    struct server *server;
    struct python_signals signals;
    bool main_thread; /* signals are looked at */
    int stops;        /* how often it was told to stop */
};

static void stop_once_more(struct run *r)
{
    server_stop(r->server, ++r->stops > 1 ? SERVER_NOW : SERVER_DRAIN);
}

static void reopen_logs(void)
{
    struct err e = {{0}};
    if (log_reopen(&e))
        log_line(LOG_ERROR, 0, "%s", e.text);
    else
        log_line(LOG_INFO, 0, "log files opened again");
}

static void take_signals(struct run *r)
{
    unsigned char numbers[64];
    size_t n;
    while ((n = signals_read(numbers, sizeof numbers)) > 0)
        for (size_t i = 0; i < n; i++) {
            if (numbers[i] == SIGUSR1)
                reopen_logs();
            else
                stop_once_more(r);
        }
}

/*
 * Wait until the server has stopped. Called with the GIL, which is released while waiting.
 * Returns 0, or -1 with the exception that a Python signal handler raised (the drain has then been
 * begun and waited for).
 */
static int wait_stopped(struct run *r)
{
    PyObject *type = NULL, *value = NULL, *trace = NULL; /* owned, once raised */
    int wake = r->main_thread ? python_signals_wake_fd(&r->signals) : -1;
    for (bool over = false; !over;) {
        struct pollfd fds[] = {{.fd = r->server->done_fd, .events = POLLIN},
                               {.fd = r->main_thread ? signals_fd() : -1, .events = POLLIN},
                               {.fd = wake, .events = POLLIN}};
        int n;
        if (r->main_thread && PyErr_CheckSignals()) {
            if (!type)
                PyErr_Fetch(&type, &value, &trace);
            else
                PyErr_Clear();
            stop_once_more(r);
        }
        Py_BEGIN_ALLOW_THREADS
        n = poll(fds, countof(fds), r->main_thread && wake < 0 ? NO_WAKE_MS : -1);
        Py_END_ALLOW_THREADS
        if (n > 0 && fds[2].revents)
            python_signals_woken();
        if (n > 0 && fds[1].revents)
            take_signals(r);
        over = n > 0 && fds[0].revents;
    }
    if (type) {
        PyErr_Restore(type, value, trace);
        return -1;
    }
    return 0;
}

static void log_ready(const struct server_object *o)
{
    const struct conf *c = &o->config->conf;
    const struct server *s = o->server;
    char urls[1024] = "";
    size_t used = 0;
    for (unsigned i = 0; i < s->listeners.n && used < sizeof urls; i++)
        used += (size_t)snprintf(urls + used, sizeof urls - used, "%s%s", i ? ", " : "",
                                 s->listeners.items[i]->url);
    log_line(LOG_INFO, 0, "weir %s serving %s on %s (threads %lld:%lld, pid %d)", WEIR_VERSION,
             *c->app ? c->app : "an application", urls, (long long)c->threads.min,
             (long long)c->threads.max, (int)getpid());
}

/* run(own_signals) -> int: 0 drained, 1 ended with work cut. Threads may be left inside the
 * application, see `left`. */
static PyObject *server_run(PyObject *self, PyObject *args)
{
    struct server_object *o = (struct server_object *)self;
    int own = 0;
    if (!PyArg_ParseTuple(args, "|p", &own))
        return NULL;
    if (!o->server || o->running) {
        PyErr_SetString(PyExc_RuntimeError, "the server is closed, or runs already");
        return NULL;
    }
    struct err e = {{0}};
    if (!o->listening) {
        PyObject *r = server_listen_py(self, NULL); /* new */
        if (!r)
            return NULL;
        Py_DECREF(r);
    }
    struct run r = {.server = o->server, .main_thread = getpid() == gettid()};
    wsgi_set_switch_interval((double)o->config->conf.switch_interval / 1000);
    /* Before the first connection: a signal must not end what serves already. */
    if (r.main_thread && python_signals_take(&r.signals, own))
        return NULL;
    if (log_start(&e) || server_start(o->server, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        server_free(&o->server); /* what was begun cannot be begun again */
        log_stop();
        if (r.main_thread)
            python_signals_give_back(&r.signals);
        return NULL;
    }
    o->running = true;
    log_ready(o);

    int rc = wait_stopped(&r);
    unsigned inside;
    Py_BEGIN_ALLOW_THREADS
    inside = server_join(o->server, r.stops > 1 ? JOIN_AT_ONCE_MS : JOIN_AFTER_GRACE_MS);
    Py_END_ALLOW_THREADS
    if (r.main_thread)
        python_signals_give_back(&r.signals);
    o->left = inside;
    bool cut = inside > 0 || atomic_load(&o->server->cancelled);
    if (inside)
        log_line(LOG_WARNING, 0, "stopped; %u requests were still inside the application", inside);
    else
        log_line(LOG_INFO, 0, "stopped");
    if (inside)
        o->server = NULL; /* its threads still look at it */
    else
        server_free(&o->server);
    o->running = false;
    Py_BEGIN_ALLOW_THREADS
    log_stop();
    Py_END_ALLOW_THREADS
    if (rc)
        return NULL;
    return PyLong_FromLong(cut);
}

static PyObject *server_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct server_object *o = (struct server_object *)self;
    if (o->running)
        server_stop(o->server, SERVER_DRAIN);
    else if (o->server)
        server_free(&o->server);
    Py_RETURN_NONE;
}

static PyObject *server_recycle(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct server_object *o = (struct server_object *)self;
    if (o->server && o->running) {
        worker_recycle(o->server, RECYCLE_RELOAD);
        server_stop(o->server, SERVER_HANDOVER);
    }
    Py_RETURN_NONE;
}

static PyObject *server_report(PyObject *self, PyObject *args)
{
    (void)self;
    const char *text;
    if (!PyArg_ParseTuple(args, "s", &text))
        return NULL;
    log_text(LOG_INFO, 0, slice_str(text));
    Py_RETURN_NONE;
}

static PyObject *server_stats(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct server_object *o = (struct server_object *)self;
    if (!o->server || !o->running)
        Py_RETURN_NONE;
    struct lead_stats st;
    lead_stats(o->server->lead, &st);
    struct counters *c = o->server->counters;
    return Py_BuildValue(
        "{s:I,s:I,s:I,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K}", "threads", st.threads, "busy", st.busy,
        "waiting", st.waiting, "inline_runs", (unsigned long long)st.inline_runs, "away_runs",
        (unsigned long long)st.away_runs, "deposed", (unsigned long long)st.deposed, "deposed_gil",
        (unsigned long long)st.deposed_gil, "burst", (unsigned long long)st.burst, "requests",
        (unsigned long long)atomic_load(&c->requests), "open",
        (unsigned long long)atomic_load(&c->open), "abandoned",
        (unsigned long long)atomic_load(&c->abandoned));
}

static void server_dealloc(PyObject *self)
{
    struct server_object *o = (struct server_object *)self;
    if (o->server && !o->running)
        server_free(&o->server);
    if (o->app && !o->left)
        wsgi_app_free(&o->app);
    log_setup(NULL, LOG_INFO, false);
    log_color(false);
    if (o->errors)
        log_sink_close(&o->errors);
    Py_XDECREF(o->config);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef server_methods[] = {
    {"listen", server_listen_py, METH_NOARGS, "Bind all addresses; OSError with one clear sentence."},
    {"run", server_run, METH_VARARGS,
     "run(own_signals=False) -> int: serve until stopped; 0 = drained, 1 = work was cut."},
    {"close", server_close, METH_NOARGS,
     "Stop a running server (drain), or give back the sockets of one that does not run."},
    {"recycle", server_recycle, METH_NOARGS,
     "A worker: ask for a replacement, and accept no connection from now on."},
    {"report", server_report, METH_VARARGS, "Write one line to the error log."},
    {"stats", server_stats, METH_NOARGS, "Counters of a running server as a dict, or None."},
    {NULL, NULL, 0, NULL},
};

static PyObject *server_left(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(((struct server_object *)self)->left);
}

static PyGetSetDef server_getset[] = {
    {"left", server_left, NULL, "threads still inside the application when run() returned", NULL},
    {"addresses", server_addresses, NULL, "URLs of the bound addresses", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot server_slots[] = {
    {Py_tp_init, server_init},       {Py_tp_new, PyType_GenericNew}, {Py_tp_dealloc, server_dealloc},
    {Py_tp_methods, server_methods}, {Py_tp_getset, server_getset},
    {Py_tp_doc, "Server(app, config): one worker in this process."},
    {0, NULL},
};

static PyType_Spec server_spec = {
    .name = "weir._core.Server",
    .basicsize = sizeof(struct server_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = server_slots,
};

int python_server_init(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&server_spec); /* new, given to the module */
    int rc = type ? PyModule_AddObjectRef(module, "Server", type) : -1;
    Py_XDECREF(type);
    return rc;
}
