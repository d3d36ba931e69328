/*
 * python_module: weir._core, the C core as Python sees it.
 *
 * It stands beside main.c because it joins what is below it: conf, serve and the WSGI bridge.
 * With src/wsgi it is the only place that includes Python.h.
 *
 *   parse(argv, dialect, env) -> dict     read a command line
 *   config(dialect, pairs, fds) -> Config settings from keywords
 *   Server(app, config)                   .listen() .addresses .run(own_signals) .close() .report(text)
 *
 * Signals: the main thread waits in Server.run. Any thread of the application may get one too: its
 * mask is what child processes start with. So handlers only write to a descriptor, ours to an
 * eventfd and Python's to its wake-up pipe, and that ends the wait. With own_signals the handlers are
 * Weir's: TERM and INT drain, a second one ends at once, USR1 opens the logs again.
 * Otherwise (serve() inside somebody's program) handlers that the program has set stay, and what they
 * raise ends the run.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "conf/conf.h"
#include "conf/version.h"
#include "conf/yaml.h"
#include "python_module_process.h"
#include "serve/server.h"
#include "wsgi/wsgi.h"

/* How often to look for signals that Python's handlers noted, where nothing tells of them. */
static const int NO_WAKE_MS = 500;
/* How long threads may still be inside the application after everything else has ended. */
static const int JOIN_AFTER_GRACE_MS = 1000;
static const int JOIN_AT_ONCE_MS = 100;

/* ---- Config ---- */

struct config_object {
    PyObject_HEAD
    struct conf conf;
    bool ready;
    int fds[64];
    unsigned n_fds;
};

static void config_dealloc(PyObject *self)
{
    struct config_object *o = (struct config_object *)self;
    if (o->ready)
        conf_fini(&o->conf);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *text_list(const struct conf_list *l)
{
    PyObject *out = PyList_New(l->n); /* new */
    for (unsigned i = 0; out && i < l->n; i++) {
        PyObject *s = PyUnicode_DecodeFSDefault(l->items[i]); /* new, stolen by the list */
        if (!s) {
            Py_CLEAR(out);
            break;
        }
        PyList_SET_ITEM(out, i, s);
    }
    return out;
}

static PyObject *config_get(PyObject *self, void *which)
{
    const struct conf *c = &((struct config_object *)self)->conf;
    switch ((int)(intptr_t)which) {
    case 0:
        return PyUnicode_DecodeFSDefault(c->app);
    case 1:
        return PyBool_FromLong(c->factory);
    case 2:
        return PyUnicode_DecodeFSDefault(c->chdir);
    case 3:
        return text_list(&c->python_path);
    case 4:
        return text_list(&c->env_file);
    case 5:
        return PyUnicode_FromString(c->dialect == CONF_WAITRESS ? "waitress" : "weir");
    case 6:
        return PyBool_FromLong(c->expose_tracebacks);
    default:
        Py_RETURN_NONE;
    }
}

static PyGetSetDef config_getset[] = {
    {"app", config_get, NULL, "the application, MODULE:ATTRIBUTE", (void *)0},
    {"factory", config_get, NULL, "call the attribute to get the application", (void *)1},
    {"chdir", config_get, NULL, "folder to change to, or ''", (void *)2},
    {"pythonpath", config_get, NULL, "folders searched first", (void *)3},
    {"env_file", config_get, NULL, "files of NAME=VALUE lines", (void *)4},
    {"dialect", config_get, NULL, "'weir' or 'waitress'", (void *)5},
    {"expose_tracebacks", config_get, NULL, "send tracebacks to clients", (void *)6},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot config_slots[] = {
    {Py_tp_dealloc, config_dealloc},
    {Py_tp_getset, config_getset},
    {Py_tp_doc, "Settings, checked and complete; made by parse() and config()."},
    {0, NULL},
};

static PyType_Spec config_spec = {
    .name = "weir._core.Config",
    .basicsize = sizeof(struct config_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = config_slots,
};

static PyTypeObject *config_type;

/* A new Config with the defaults of the dialect; NULL with an exception. */
static struct config_object *config_new(const char *dialect)
{
    enum conf_dialect d = strcmp(dialect, "waitress") == 0 ? CONF_WAITRESS : CONF_WEIR;
    struct config_object *o = (struct config_object *)config_type->tp_alloc(config_type, 0);
    struct err e = {{0}};
    if (!o)
        return NULL;
    if (conf_init(&o->conf, d, &e)) {
        PyErr_SetString(PyExc_RuntimeError, e.text);
        Py_DECREF(o);
        return NULL;
    }
    o->ready = true;
    return o;
}

/* ---- parse and config ---- */

static void free_texts(char **texts)
{
    for (char **t = texts; t && *t; t++)
        PyMem_Free(*t);
    PyMem_Free(texts);
}

static char *copy_text(PyObject *text)
{
    PyObject *bytes = NULL; /* new */
    if (!PyUnicode_FSConverter(text, &bytes))
        return NULL;
    size_t n = (size_t)PyBytes_GET_SIZE(bytes) + 1;
    char *out = PyMem_Malloc(n);
    if (out)
        memcpy(out, PyBytes_AS_STRING(bytes), n);
    else
        PyErr_NoMemory();
    Py_DECREF(bytes);
    return out;
}

/* A NULL-terminated array of the list's texts; "NAME=VALUE" where `env` is a dict. */
static char **texts_of(PyObject *list, PyObject *env)
{
    Py_ssize_t n = list ? PyList_GET_SIZE(list) : PyDict_GET_SIZE(env);
    char **out = PyMem_Calloc((size_t)n + 1, sizeof *out);
    if (!out)
        return (char **)PyErr_NoMemory();
    PyObject *key, *value; /* borrowed */
    Py_ssize_t pos = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *text; /* new */
        if (list) {
            text = Py_NewRef(PyList_GET_ITEM(list, i));
        } else {
            if (!PyDict_Next(env, &pos, &key, &value))
                break;
            text = PyUnicode_FromFormat("%S=%S", key, value);
        }
        out[i] = text ? copy_text(text) : NULL;
        Py_XDECREF(text);
        if (!out[i]) {
            free_texts(out);
            return NULL;
        }
    }
    return out;
}

/* What --env-file adds, as a dict. */
static PyObject *env_added(const struct conf *c)
{
    PyObject *out = PyDict_New(); /* new */
    struct conf_env_list list = conf_env_added(c);
    for (unsigned i = 0; out && i < list.n; i++) {
        PyObject *name = PyUnicode_DecodeFSDefault(list.items[i].name);   /* new */
        PyObject *value = PyUnicode_DecodeFSDefault(list.items[i].value); /* new */
        if (!name || !value || PyDict_SetItem(out, name, value))
            Py_CLEAR(out);
        Py_XDECREF(name);
        Py_XDECREF(value);
    }
    return out;
}

static PyObject *core_parse(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *argv_list, *env; /* borrowed */
    const char *dialect;
    if (!PyArg_ParseTuple(args, "O!sO!", &PyList_Type, &argv_list, &dialect, &PyDict_Type, &env))
        return NULL;
    struct config_object *o = config_new(dialect);
    char **argv = o ? texts_of(argv_list, NULL) : NULL;
    char **environ_ = argv ? texts_of(NULL, env) : NULL;
    PyObject *result = NULL;
    if (!environ_)
        goto out;

    char *said = NULL, *printed = NULL; /* malloc'ed by the streams */
    size_t said_n = 0, printed_n = 0;
    FILE *err_stream = open_memstream(&said, &said_n);
    FILE *out_stream = open_memstream(&printed, &printed_n);
    if (!err_stream || !out_stream) {
        PyErr_NoMemory();
        goto out; /* the process is about to end */
    }
    struct err e = {{0}};
    enum conf_action action = CONF_RUN;
    int status = 0;
    static const char *const ACTIONS[] = {"run", "exit", "check", "print"};
    if (conf_load(&o->conf, (int)PyList_GET_SIZE(argv_list), argv, environ_, out_stream, &action,
                  &status, &e)) {
        action = CONF_EXIT;
        conf_complain(&o->conf, argv[0], &e, err_stream);
    } else {
        conf_notes(&o->conf, err_stream);
        if (action == CONF_PRINT)
            conf_print(&o->conf, out_stream);
    }
    fclose(err_stream);
    fclose(out_stream);
    result = Py_BuildValue("{s:s,s:i,s:N,s:N,s:N,s:O}", "action", ACTIONS[action], "status", status,
                           "message", PyUnicode_DecodeFSDefaultAndSize(said, (Py_ssize_t)said_n),
                           "output", PyUnicode_DecodeFSDefaultAndSize(printed, (Py_ssize_t)printed_n),
                           "environ", env_added(&o->conf), "config",
                           action == CONF_EXIT ? Py_None : (PyObject *)o);
    free(said);
    free(printed);
out:
    free_texts(argv);
    free_texts(environ_);
    Py_XDECREF(o);
    return result;
}

static PyObject *core_config(PyObject *self, PyObject *args)
{
    (void)self;
    const char *dialect;
    PyObject *pairs, *fds; /* borrowed */
    if (!PyArg_ParseTuple(args, "sO!O!", &dialect, &PyList_Type, &pairs, &PyList_Type, &fds))
        return NULL;
    struct config_object *o = config_new(dialect);
    struct err e = {{0}};
    for (Py_ssize_t i = 0; o && i < PyList_GET_SIZE(pairs); i++) {
        const char *name, *value;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(pairs, i), "ss", &name, &value)) {
            Py_CLEAR(o);
            break;
        }
        char source[128];
        snprintf(source, sizeof source, "%s", name);
        if (conf_set(&o->conf, name, value, source, &e)) {
            PyErr_SetString(PyExc_ValueError, e.text);
            Py_CLEAR(o);
        }
    }
    for (Py_ssize_t i = 0; o && i < PyList_GET_SIZE(fds); i++) {
        long fd = PyLong_AsLong(PyList_GET_ITEM(fds, i));
        if (fd < 0 || o->n_fds == sizeof o->fds / sizeof o->fds[0]) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "sockets: too many, or one is closed");
            Py_CLEAR(o);
        } else {
            o->fds[o->n_fds++] = (int)fd;
        }
    }
    /* serve() reads a file only where it is named: the current folder is its program's. */
    if (o && ((*o->conf.config && conf_yaml_load(&o->conf, &e)) || conf_finish(&o->conf, &e))) {
        PyErr_SetString(PyExc_ValueError, e.text);
        Py_CLEAR(o);
    }
    if (o)
        conf_notes(&o->conf, stderr);
    return (PyObject *)o;
}

/* ---- Server ---- */

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
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!", names, &application, config_type, &config))
        return -1;
    if (o->server) {
        PyErr_SetString(PyExc_RuntimeError, "this server is initialised already");
        return -1;
    }
    o->config = (struct config_object *)Py_NewRef(config);
    const struct conf *c = &o->config->conf;
    struct err e = {{0}};
    static const char *const LEVELS[] = {"debug", "info", "warning", "error", "critical"};
    enum log_level least = LOG_INFO;
    for (int i = 0; i <= LOG_CRITICAL; i++)
        if (strcmp(c->log_level, LEVELS[i]) == 0)
            least = (enum log_level)i;
    if (log_sink_open(&o->errors, c->error_log, STDERR_FILENO, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return -1;
    }
    log_setup(o->errors, least, strcmp(c->log_format, "json") == 0);
    struct wsgi_config w = {
        .url_scheme = c->url_scheme,
        .url_prefix = c->url_prefix,
        .server_name = c->server_name,
        .ident = c->ident,
        .waitress = c->dialect == CONF_WAITRESS,
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

/* ---- signals ---- */

static int g_signal_fd = -1;       /* eventfd; each signal adds its weight */
static int g_wake_fds[2] = {-1, -1}; /* a pipe; Python writes a byte for each signal that it notes */
enum { SIGNAL_STOP = 1, SIGNAL_REOPEN = 1 << 16 };

static void on_signal(int signo)
{
    int saved = errno;
    uint64_t weight = signo == SIGUSR1 ? SIGNAL_REOPEN : SIGNAL_STOP;
    ssize_t n = write(g_signal_fd, &weight, sizeof weight);
    (void)n;
    errno = saved;
}

static const int SIGNALS[] = {SIGTERM, SIGINT, SIGQUIT, SIGUSR1};
#define N_SIGNALS ((int)(sizeof SIGNALS / sizeof SIGNALS[0]))

struct signals {
    struct sigaction old[N_SIGNALS];
    bool taken[N_SIGNALS];
    bool wakes; /* g_wake_fds is Python's wake-up descriptor */
};

static struct signals *g_signals; /* lent; taken and not given back */

/* Is Ctrl-C still Python's KeyboardInterrupt? */
static bool interrupt_is_default(void)
{
    PyObject *module = PyImport_ImportModule("signal"); /* new */
    PyObject *now = module ? PyObject_CallMethod(module, "getsignal", "i", SIGINT) : NULL; /* new */
    PyObject *def = now ? PyObject_GetAttrString(module, "default_int_handler") : NULL;    /* new */
    bool same = def && now == def;
    Py_XDECREF(def);
    Py_XDECREF(now);
    Py_XDECREF(module);
    PyErr_Clear();
    return same;
}

static void signals_give_back(const struct signals *s)
{
    g_signals = NULL;
    for (int i = 0; i < N_SIGNALS; i++)
        if (s->taken[i])
            sigaction(SIGNALS[i], &s->old[i], NULL);
}

/* Python's descriptor for signals that it notes: the one before, -1: none, -2: it cannot be set. An
 * exception that is set stays. */
static int wakeup_set(int fd)
{
    PyObject *type, *value, *trace; /* owned */
    PyErr_Fetch(&type, &value, &trace);
    PyObject *module = PyImport_ImportModule("signal"); /* new */
    PyObject *r = module ? PyObject_CallMethod(module, "set_wakeup_fd", "i", fd) : NULL; /* new */
    int before = r ? (int)PyLong_AsLong(r) : -2;
    Py_XDECREF(r);
    Py_XDECREF(module);
    PyErr_Restore(type, value, trace);
    return before;
}

/* A child process of the application is no server: what ends it must not reach its parent, also in
 * its first moment. So signals wait while a thread forks. */
static _Thread_local sigset_t g_before_fork;

static void before_fork(void)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &g_before_fork);
}

static void after_fork_parent(void)
{
    pthread_sigmask(SIG_SETMASK, &g_before_fork, NULL);
}

static void after_fork_child(void)
{
    if (g_signals)
        signals_give_back(g_signals);
    if (g_signal_fd >= 0)
        close(g_signal_fd);
    g_signal_fd = -1;
    if (g_wake_fds[0] >= 0) { /* Python keeps the other one: let that lead nowhere */
        close(g_wake_fds[0]);
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC | O_NONBLOCK);
        if (null >= 0) {
            dup3(null, g_wake_fds[1], O_CLOEXEC);
            close(null);
        }
    }
    g_wake_fds[0] = g_wake_fds[1] = -1;
    after_fork_parent();
}

/* Open what the handlers write to, and forget what came after an earlier run had ended. */
static void signals_open(struct signals *s)
{
    static bool hooked; /* under the GIL */
    if (!hooked)
        hooked = pthread_atfork(before_fork, after_fork_parent, after_fork_child) == 0;
    uint64_t stale;
    if (g_signal_fd < 0)
        g_signal_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    while (read(g_signal_fd, &stale, sizeof stale) > 0)
        ;
    if (g_wake_fds[0] < 0 && pipe2(g_wake_fds, O_CLOEXEC | O_NONBLOCK))
        g_wake_fds[0] = g_wake_fds[1] = -1;
    int before = g_wake_fds[1] >= 0 ? wakeup_set(g_wake_fds[1]) : -2;
    s->wakes = before == -1;
    if (before >= 0) /* the program's own stays */
        (void)wakeup_set(before);
}

static void signals_take(struct signals *s, bool own)
{
    bool interrupt = interrupt_is_default();
    signals_open(s);
    for (int i = 0; i < N_SIGNALS; i++) {
        struct sigaction now = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
        sigemptyset(&now.sa_mask);
        s->taken[i] = false;
        if (sigaction(SIGNALS[i], NULL, &s->old[i]))
            continue;
        bool free_to_take = own || s->old[i].sa_handler == SIG_DFL;
        if (SIGNALS[i] == SIGINT)
            free_to_take = own || interrupt;
        else if (!own && SIGNALS[i] == SIGUSR1)
            free_to_take = false;
        if (free_to_take)
            s->taken[i] = sigaction(SIGNALS[i], &now, NULL) == 0;
    }
    g_signals = s;
}

/*
 * Wait until the server has stopped. Called with the GIL, which is released while waiting.
 * Returns 0, or -1 with the exception that a Python signal handler raised (the drain has then been
 * begun and waited for).
 */
static int wait_stopped(struct server *s, const struct signals *signals, int *stops)
{
    PyObject *type = NULL, *value = NULL, *trace = NULL; /* owned, once raised */
    bool wakes = signals && signals->wakes;
    for (bool over = false; !over;) {
        struct pollfd fds[3] = {{.fd = s->done_fd, .events = POLLIN},
                                {.fd = signals ? g_signal_fd : -1, .events = POLLIN},
                                {.fd = wakes ? g_wake_fds[0] : -1, .events = POLLIN}};
        int n;
        if (signals && PyErr_CheckSignals()) {
            if (!type)
                PyErr_Fetch(&type, &value, &trace);
            else
                PyErr_Clear();
            server_stop(s, ++*stops > 1 ? SERVER_NOW : SERVER_DRAIN);
        }
        Py_BEGIN_ALLOW_THREADS
        n = poll(fds, 3, signals && !wakes ? NO_WAKE_MS : -1);
        Py_END_ALLOW_THREADS
        char bytes[64];
        if (n > 0 && fds[2].revents)
            while (read(g_wake_fds[0], bytes, sizeof bytes) == sizeof bytes)
                ;
        if (n > 0 && fds[0].revents)
            over = true;
        if (n > 0 && fds[1].revents) {
            uint64_t weight = 0;
            if (read(g_signal_fd, &weight, sizeof weight) == sizeof weight) {
                if (weight >= SIGNAL_REOPEN) {
                    struct err e = {{0}};
                    if (log_reopen(&e))
                        log_line(LOG_ERROR, 0, "%s", e.text);
                    else
                        log_line(LOG_INFO, 0, "log files opened again");
                }
                for (uint64_t k = weight % SIGNAL_REOPEN; k > 0; k--)
                    server_stop(s, ++*stops > 1 ? SERVER_NOW : SERVER_DRAIN);
            }
        }
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
    bool main_thread = getpid() == gettid();
    struct signals signals;
    wsgi_set_switch_interval((double)o->config->conf.switch_interval / 1000);
    if (log_start(&e) || server_start(o->server, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        server_free(&o->server); /* what was begun cannot be begun again */
        log_stop();
        return NULL;
    }
    o->running = true;
    if (main_thread)
        signals_take(&signals, own);
    log_ready(o);

    int stops = 0;
    int rc = wait_stopped(o->server, main_thread ? &signals : NULL, &stops);
    unsigned inside;
    Py_BEGIN_ALLOW_THREADS
    inside = server_join(o->server, stops > 1 ? JOIN_AT_ONCE_MS : JOIN_AFTER_GRACE_MS);
    Py_END_ALLOW_THREADS
    if (main_thread) {
        signals_give_back(&signals);
        if (signals.wakes)
            (void)wakeup_set(-1);
    }
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

/* ---- the module ---- */

static PyMethodDef core_methods[] = {
    {"parse", core_parse, METH_VARARGS,
     "parse(argv, dialect, env) -> {'action', 'status', 'message', 'config'}"},
    {"config", core_config, METH_VARARGS,
     "config(dialect, [(name, value), …], [fd, …]) -> Config; ValueError names what is wrong."},
    {"healthcheck", python_healthcheck, METH_VARARGS,
     "healthcheck([argument, …], ['NAME=VALUE', …]) -> (exit code, output, message)"},
    {NULL, NULL, 0, NULL},
};

static int core_exec(PyObject *module)
{
    config_type = (PyTypeObject *)PyType_FromSpec(&config_spec); /* kept for the process */
    PyObject *server_type = PyType_FromSpec(&server_spec);       /* new, given to the module */
    if (!config_type || !server_type)
        return -1;
    if (PyModule_AddObjectRef(module, "Config", (PyObject *)config_type) ||
        PyModule_AddObjectRef(module, "Server", server_type) ||
        PyModule_AddStringConstant(module, "__version__", WEIR_VERSION))
        return -1;
    Py_DECREF(server_type);
    return wsgi_module_init(module);
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "weir._core",
    .m_doc = "The C core of Weir.",
    .m_methods = core_methods,
    .m_slots = core_slots,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
