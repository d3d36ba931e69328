/* python_module_server: one worker in this process. */
#include "python_module.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "conf/version.h"
#include "proc/keeper.h"
#include "proc/signals.h"
#include "python_module_admin.h"
#include "python_module_process.h"
#include "serve/probe.h"
#include "serve/server.h"
#include "serve/shared.h"
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
    struct supervisor_object *supervisor; /* counted; NULL: this process serves alone */
    struct keeper_door door;      /* of a process that serves alone; its socket is -1 where there is no keeper */
    struct keeper_thread *keeper; /* owned; NULL: none is wanted */
    struct probe *probe;          /* owned; tells where the threads are; NULL: nobody asks */
    struct shared *shared;        /* owned while there is a keeper, which writes to it and ends after the server */
    struct python_admin admin;    /* of a process that serves alone; its listening socket is owned */
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
    static char *names[] = {"app", "config", "supervisor", NULL};
    PyObject *application, *config, *supervisor = NULL; /* borrowed */
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!|O!", names, &application, python_config_type,
                                     &config, python_supervisor_type, &supervisor))
        return -1;
    if (o->server) {
        PyErr_SetString(PyExc_RuntimeError, "this server is initialised already");
        return -1;
    }
    o->door.listen_fd = o->admin.probes.listen_fd = o->admin.config.listen_fd = -1;
    o->config = (struct config_object *)Py_NewRef(config);
    o->supervisor = (struct supervisor_object *)Py_XNewRef(supervisor);
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
        .multiprocess = supervisor && c->workers > 1,
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

static int open_admin(struct server_object *o, struct err *e)
{
    const struct conf *c = &o->config->conf;
    if (python_admin_init(&o->admin, c, o->server->admission.shared, e))
        return -1;
    o->admin.config.view.alone = true;
    return admin_listen(&o->admin.config.listen_fd, c, e);
}

static void close_admin(struct server_object *o)
{
    int *fd = &o->admin.config.listen_fd;
    if (*fd >= 0) {
        admin_unlink(*fd);
        close(*fd);
    }
    *fd = -1;
    python_admin_fini(&o->admin);
}

static void tell_admin(const struct server_object *o)
{
    char url[160];
    if (o->admin.config.listen_fd < 0)
        return;
    admin_url(o->admin.config.listen_fd, url, sizeof url);
    log_line(LOG_INFO, 0, "admin listener at %s", url);
}

/* Nobody else would keep counts, fetch keys, and answer who looks, for a process that serves alone. 0, or -1 with a
 * sentence. */
static int start_keeper(struct server_object *o, struct err *e)
{
    const struct conf *c = &o->config->conf;
    if (!keeper_wanted(c))
        return 0;
    struct keeper_config k;
    python_keeper_config(&k, c, o->server->admission.shared);
    int rc = open_admin(o, e);
    if (!rc)
        rc = keeper_door_open(&o->door, e);
    k.door = &o->door;
    k.process = false;
    python_admin_attach(&o->admin, &k);
    if (!rc)
        rc = keeper_thread_start(&o->keeper, &k, e);
    if (rc) {
        close_admin(o);
        keeper_door_close(&o->door);
        return -1;
    }
    tell_admin(o);
    o->shared = admission_give_shared(o->server);
    o->shared->door = &o->door;
    if (o->admin.wanted) /* the first and only process of its slot */
        python_probe_start(&o->probe, &o->admin.probes, 0, 1);
    return 0;
}

/* After the server's link to it is closed. */
static void stop_keeper(struct server_object *o)
{
    if (!o->config) /* it was never initialised */
        return;
    probe_stop(&o->probe);
    if (o->keeper) {
        Py_BEGIN_ALLOW_THREADS
        keeper_thread_stop(&o->keeper);
        Py_END_ALLOW_THREADS
    }
    close_admin(o);
    keeper_door_close(&o->door);
    if (!o->left) /* else the server lives on, and looks at it */
        shared_free(&o->shared);
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
    if (o->supervisor) {
        if (python_supervisor_join(o->supervisor, o->server))
            return NULL;
    } else if (server_listen(o->server, o->config->fds, o->config->n_fds, &e) || start_keeper(o, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
    o->listening = true;
    Py_RETURN_NONE;
}

static PyObject *server_check(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct server_object *o = (struct server_object *)self;
    struct err e = {{0}};
    if (!o->server || o->listening || o->supervisor) {
        PyErr_SetString(PyExc_RuntimeError, "only a server that never listens is checked");
        return NULL;
    }
    if (admission_alone(o->server, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
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
    struct supervisor_object *supervisor; /* NULL: this process serves alone */
    struct python_signals signals;
    bool main_thread; /* signals are looked at */
    int stops;        /* how often it was told to stop */
    int news_fd;      /* epoll: what the main thread waits for */
    bool wakes;       /* Python's own signals end the wait, too */
};

/* The process that was started by a command line, and has no workers, speaks with the service manager. */
static bool speaks(const struct run *r)
{
    return !r->supervisor && python_process.begun;
}

static void stop_once_more(struct run *r)
{
    if (!r->stops && speaks(r))
        process_stopping(&python_process, 0);
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

static void stop_at_once(struct run *r)
{
    r->stops = 2;
    server_stop(r->server, SERVER_NOW);
}

/* The supervisor has not seen a sign of life: say where the threads are, and end. It kills this process
 * a moment later, whether this works or not. */
static void end_aborted(struct supervisor_object *o)
{
    log_line(LOG_ERROR, 0, "worker %d got ABRT; its threads:", (int)getpid());
    log_stop();
    PyObject *module = PyImport_ImportModule("faulthandler"); /* new */
    PyObject *done = module ? PyObject_CallMethod(module, "dump_traceback", NULL) : NULL; /* new */
    if (!done)
        PyErr_Clear();
    python_supervisor_tell(o, "aborted");
    _exit(1);
}

static void obey(struct run *r, enum worker_order order)
{
    switch (order) {
    case WORKER_GO_ON:
        break;
    case WORKER_REOPEN:
        reopen_logs();
        break;
    case WORKER_HANDOVER:
    case WORKER_DRAIN:
        if (!r->stops)
            r->stops = 1;
        server_stop(r->server, order == WORKER_DRAIN ? SERVER_DRAIN : SERVER_HANDOVER);
        break;
    case WORKER_END:
        stop_at_once(r);
        python_supervisor_tell(r->supervisor, "interrupted");
        break;
    case WORKER_ABORT:
        end_aborted(r->supervisor);
        break;
    }
}

static void take_signals(struct run *r)
{
    unsigned char numbers[64];
    size_t n;
    while ((n = signals_read(numbers, sizeof numbers)) > 0)
        for (size_t i = 0; i < n; i++) {
            if (r->supervisor)
                obey(r, worker_process_on_signal(&r->supervisor->process, numbers[i]));
            else if (numbers[i] == SIGUSR1)
                reopen_logs();
            else
                stop_once_more(r);
        }
}

/* What ends a wait. Not poll: that refuses more descriptors than RLIMIT_NOFILE, which an application may
 * lower. */
enum { NEWS_DONE, NEWS_SIGNAL, NEWS_WOKEN, NEWS_TELL, N_NEWS };

static int watch(struct run *r, int fd, uint32_t what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = what};
    return fd < 0 ? 0 : epoll_ctl(r->news_fd, EPOLL_CTL_ADD, fd, &event);
}

/* All but the end of the server, which has not begun. */
static int watch_others(struct run *r)
{
    r->news_fd = epoll_create1(EPOLL_CLOEXEC);
    r->wakes = r->main_thread && python_signals_wake_fd(&r->signals) >= 0;
    return r->news_fd < 0 || (r->main_thread && watch(r, signals_fd(), NEWS_SIGNAL)) ||
                   (r->wakes && watch(r, python_signals_wake_fd(&r->signals), NEWS_WOKEN)) ||
                   (r->supervisor && watch(r, r->supervisor->process.tell_fd, NEWS_TELL))
               ? -1
               : 0;
}

static void take_tell(struct run *r)
{
    int fd = r->supervisor->process.tell_fd;
    obey(r, worker_process_on_tell(&r->supervisor->process));
    if (r->supervisor->process.tell_fd < 0)
        (void)epoll_ctl(r->news_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* True: the server has stopped. */
static bool take_news(struct run *r)
{
    struct epoll_event events[N_NEWS];
    int n, wait_ms = r->main_thread && !r->wakes ? NO_WAKE_MS : -1;
    bool over = false;
    if (speaks(r)) {
        int beat_ms = notify_beat(&python_process.notify, clock_mono_ns(), true);
        if (beat_ms >= 0 && (wait_ms < 0 || beat_ms < wait_ms))
            wait_ms = beat_ms;
    }
    Py_BEGIN_ALLOW_THREADS
    n = epoll_wait(r->news_fd, events, N_NEWS, wait_ms);
    Py_END_ALLOW_THREADS
    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 == NEWS_WOKEN)
            python_signals_woken();
        else if (events[i].data.u32 == NEWS_SIGNAL)
            take_signals(r);
        else if (events[i].data.u32 == NEWS_TELL)
            take_tell(r);
        else
            over = true;
    }
    return over;
}

/*
 * Wait until the server has stopped. Called with the GIL, which is released while waiting.
 * Returns 0, or -1 with the exception that a Python signal handler raised (the drain has then been
 * begun and waited for).
 */
static int wait_stopped(struct run *r)
{
    PyObject *type = NULL, *value = NULL, *trace = NULL; /* owned, once raised */
    do {
        if (r->main_thread && PyErr_CheckSignals()) {
            if (!type)
                PyErr_Fetch(&type, &value, &trace);
            else
                PyErr_Clear();
            stop_once_more(r);
        }
    } while (!take_news(r));
    if (type) {
        PyErr_Restore(type, value, trace);
        return -1;
    }
    return 0;
}

void python_log_ready(const struct conf *c, const struct listen_set *set, int workers)
{
    char urls[1024] = "", processes[32] = "";
    size_t used = 0;
    for (unsigned i = 0; i < set->n && used < sizeof urls; i++)
        used += (size_t)snprintf(urls + used, sizeof urls - used, "%s%s", i ? ", " : "",
                                 set->items[i]->url);
    if (workers >= 0)
        snprintf(processes, sizeof processes, "workers %d, ", workers);
    log_line(LOG_INFO, 0, "weir %s serving %s on %s (%sthreads %lld:%lld, pid %d)", WEIR_VERSION,
             *c->app ? c->app : "an application", urls, processes, (long long)c->threads.min,
             (long long)c->threads.max, (int)getpid());
}

/* Start the server and whatever run() needs. 0, or -1 with an exception. */
static int begin(struct run *r, bool own)
{
    struct err e = {{0}};
    /* Before the first connection: a signal must not end what serves already. */
    if (r->main_thread && python_signals_take(&r->signals, own))
        return -1;
    int rc = r->supervisor ? worker_process_signals(&e) : 0;
    if (!rc && watch_others(r))
        rc = err_set(&e, "cannot wait for signals: %s", strerror(errno));
    if (!rc)
        rc = log_start(&e) || server_start(r->server, &e);
    if (!rc && watch(r, r->server->done_fd, NEWS_DONE)) {
        rc = err_set(&e, "cannot wait for the end: %s", strerror(errno));
        server_stop(r->server, SERVER_NOW);
        (void)server_join(r->server, -1);
    }
    if (!rc)
        return 0;
    PyErr_SetString(PyExc_OSError, e.text);
    if (r->news_fd >= 0)
        close(r->news_fd);
    if (r->main_thread)
        python_signals_give_back(&r->signals);
    return -1;
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
    if (!o->listening) {
        PyObject *r = server_listen_py(self, NULL); /* new */
        if (!r)
            return NULL;
        Py_DECREF(r);
    }
    struct run r = {.server = o->server,
                    .supervisor = o->supervisor,
                    .main_thread = getpid() == gettid(),
                    .news_fd = -1};
    wsgi_set_switch_interval((double)o->config->conf.switch_interval / 1000);
    if (begin(&r, own)) {
        server_free(&o->server); /* what was begun cannot be begun again */
        stop_keeper(o);
        log_stop();
        return NULL;
    }
    o->running = true;
    if (o->supervisor)
        worker_process_ready(&o->supervisor->process);
    else
        python_log_ready(&o->config->conf, &o->server->listeners, -1);
    if (speaks(&r))
        process_ready(&python_process, 0);

    int rc = wait_stopped(&r);
    unsigned inside;
    Py_BEGIN_ALLOW_THREADS
    inside = server_join(o->server, r.stops > 1 ? JOIN_AT_ONCE_MS : JOIN_AFTER_GRACE_MS);
    Py_END_ALLOW_THREADS
    if (r.main_thread && !r.supervisor) /* a worker that ends must not be ended by what comes now */
        python_signals_give_back(&r.signals);
    close(r.news_fd);
    o->left = inside;
    bool cut = inside > 0 || atomic_load(&o->server->cut);
    if (r.supervisor) {
        if (inside)
            log_line(LOG_WARNING, 0, "worker %d ends; %u requests were still inside the application",
                     (int)getpid(), inside);
    } else if (inside) {
        log_line(LOG_WARNING, 0, "stopped; %u requests were still inside the application", inside);
    } else {
        log_line(LOG_INFO, 0, "stopped");
    }
    if (inside)
        o->server = NULL; /* its threads still look at it */
    else
        server_free(&o->server);
    stop_keeper(o);
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
    if (!o->running)
        stop_keeper(o);
    Py_RETURN_NONE;
}

static PyObject *server_recycle(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct server_object *o = (struct server_object *)self;
    bool runs = o->server && o->running;
    if (runs) {
        worker_recycle(o->server, RECYCLE_RELOAD);
        server_stop(o->server, SERVER_HANDOVER);
    }
    return PyBool_FromLong(runs);
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
    stop_keeper(o);
    if (o->app && !o->left)
        wsgi_app_free(&o->app);
    log_setup(NULL, LOG_INFO, false);
    log_color(false);
    if (o->errors)
        log_sink_close(&o->errors);
    Py_XDECREF(o->supervisor);
    Py_XDECREF(o->config);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef server_methods[] = {
    {"listen", server_listen_py, METH_NOARGS, "Bind all addresses; OSError with one clear sentence."},
    {"check", server_check, METH_NOARGS,
     "Read what its policy names (secrets, keys), for --check-config; then close it."},
    {"run", server_run, METH_VARARGS,
     "run(own_signals=False) -> int: serve until stopped; 0 = drained, 1 = work was cut."},
    {"close", server_close, METH_NOARGS,
     "Stop a running server (drain), or give back the sockets of one that does not run."},
    {"recycle", server_recycle, METH_NOARGS,
     "A worker: ask for a replacement, and accept no connection from now on. False: it does not run."},
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
    {Py_tp_doc, "Server(app, config, supervisor=None): one worker in this process."},
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
