/*
 * python_module_supervisor: proc/supervisor as Python sees it.
 *
 *   Supervisor(config, host)  .listen() .addresses .run() .stop(quick) .begin() .may_complain()
 *
 * run() returns twice: in the supervisor, at its end, the exit code; and in each worker None, right
 * after its fork. So a worker's stack is not the supervisor's, and it ends as any Python program
 * does. `host` is weir._supervisor.Supervisor, whose methods are called here by name; it deals with
 * the hooks and with what they raise.
 *
 * The supervisor's process opens sockets and the error log and starts no thread. A reload opens the
 * new ones beside those in use; op_reloaded decides which of them stay.
 */
#include "python_module.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "net/tls.h"
#include "python_module_admin.h"
#include "python_module_process.h"
#include "serve/probe.h"
#include "serve/server.h"
#include "serve/shared.h"

PyTypeObject *python_supervisor_type;

/* ---- calling the host ---- */

/* What went wrong where nobody can be told. */
static void complain(struct supervisor_object *o)
{
    PyErr_WriteUnraisable(o->host);
}

void python_supervisor_tell(struct supervisor_object *o, const char *method)
{
    PyObject *r = PyObject_CallMethod(o->host, method, NULL); /* new */
    if (!r)
        complain(o);
    Py_XDECREF(r);
}

static const struct conf *config_in_use(const struct supervisor_object *o)
{
    return o->next_config ? &o->next_config->conf : &o->config->conf;
}

/* Undo what op_reload has opened. */
static void drop_next(struct supervisor_object *o)
{
    if (!o->next_config)
        return;
    python_log_use(o->errors, &o->config->conf);
    log_sink_close(&o->next_errors);
    sockets_close(&o->next_sockets);
    Py_CLEAR(o->next_config);
}

/* In a worker that replaces one of the configuration in use, while a reload is not over. */
static void forget_next(struct supervisor_object *o)
{
    struct err e = {{0}};
    sockets_forget(&o->next_sockets);
    drop_next(o);
    PyObject *r = PyObject_CallMethod(o->host, "reloaded", "O", Py_False); /* new */
    if (!r)
        complain(o);
    Py_XDECREF(r);
    if (process_before_reload(&python_process, &o->config->conf, &e))
        log_line(LOG_ERROR, 0, "%s", e.text);
}

static pid_t op_spawn(void *host, struct child *c)
{
    struct supervisor_object *o = host;
    bool old = o->next_config && c->generation == o->supervisor->serving;
    PyObject *worker = PyObject_CallMethod(o->host, "spawning", "I", c->age); /* new */
    if (!worker) {
        complain(o);
        return -ECANCELED;
    }
    if (old ? o->config->conf.preload : config_in_use(o)->preload) {
        c->data = worker;
        pid_t later = python_template_spawn(o, c);
        if (later < 0)
            Py_CLEAR(c->data);
        return later;
    }
    PyOS_BeforeFork();
    pid_t pid = fork();
    int failed = errno;
    if (pid == 0) {
        PyOS_AfterFork_Child();
        o->worker = worker;
        if (old)
            forget_next(o);
        return 0;
    }
    PyOS_AfterFork_Parent();
    if (pid < 0) {
        Py_DECREF(worker);
        return -failed;
    }
    PyObject *r = PyObject_CallMethod(o->host, "spawned", "Oi", worker, (int)pid); /* new */
    if (!r)
        complain(o);
    Py_XDECREF(r);
    c->data = worker;
    return pid;
}

static void op_overdue(void *host, struct child *c)
{
    python_template_overdue(host, c->generation);
}

static void op_exited(void *host, struct child *c, int status)
{
    struct supervisor_object *o = host;
    PyObject *worker = c->data; /* ours */
    c->data = NULL;
    shared_sweep(o->shared, (struct gate_owner){.slot = c->slot,
                                                .generation = atomic_load(&o->supervisor->board->slots[c->slot].generation)});
    if (!c->pid) { /* it never was */
        Py_XDECREF(worker);
        return;
    }
    PyObject *r = PyObject_CallMethod(o->host, "exited", "Oi", worker, status); /* new */
    if (!r)
        complain(o);
    Py_XDECREF(r);
    Py_XDECREF(worker);
}

static int op_ready(void *host)
{
    struct supervisor_object *o = host;
    PyObject *r = PyObject_CallMethod(o->host, "ready", NULL); /* new */
    if (!r)
        complain(o);
    bool good = r && PyObject_IsTrue(r) == 1;
    Py_XDECREF(r);
    if (!good)
        return -1;
    python_log_ready(&o->config->conf, &o->sockets->set, (int)o->supervisor->target);
    python_supervisor_tell(o, "started");
    process_ready(&python_process, supervisor_serving(o->supervisor));
    return 0;
}

static void op_counted(void *host, unsigned now, unsigned before)
{
    struct supervisor_object *o = host;
    PyObject *r = PyObject_CallMethod(o->host, "counted", "II", now, before); /* new */
    if (!r)
        complain(o);
    Py_XDECREF(r);
}

static void op_upgrade(void *host)
{
    python_supervisor_tell(host, "upgrade");
}

static void op_stopping(void *host)
{
    struct supervisor_object *o = host;
    process_stopping(&python_process, o->successor);
    python_template_end(o);
    sockets_close(&o->next_sockets);
    python_upgrade_close(o, &o->sockets);
    if (atomic_load(&o->supervisor->board->neighbour))
        python_keeper_step_back(o);
}

static void op_reopened(void *host)
{
    struct supervisor_object *o = host;
    struct err e;
    if (process_own_logs(&python_process, &o->config->conf, &e))
        log_line(LOG_ERROR, 0, "%s", e.text);
}

static void op_stranger(void *host, pid_t pid, int status)
{
    if (!python_upgrade_stranger(host, pid, status))
        python_template_stranger(host, pid, status);
}

static unsigned op_news_fds(void *host, int fds[SUPERVISOR_NEWS_MAX])
{
    const struct supervisor_object *o = host;
    unsigned n = python_template_fds(o, fds);
    if (o->told_fd >= 0)
        fds[n++] = o->told_fd;
    if (o->admin_tell[0] >= 0)
        fds[n++] = o->admin_tell[0];
    return n;
}

static void op_news(void *host)
{
    python_template_news(host);
    python_upgrade_news(host);
    python_admin_news(host);
}

static int op_tick(void *host, int64_t now_ns)
{
    struct supervisor_object *o = host;
    python_upgrade_tick(o);
    return notify_beat(&python_process.notify, now_ns, supervisor_is_well(o->supervisor, now_ns));
}

static void op_wait_begin(void *host)
{
    struct supervisor_object *o = host;
    o->waiting = PyEval_SaveThread();
}

static void op_wait_end(void *host)
{
    struct supervisor_object *o = host;
    PyEval_RestoreThread(o->waiting);
    if (PyErr_CheckSignals()) /* handlers that a hook has set */
        complain(o);
}

/* ---- reload ---- */

static struct supervisor_settings settings_of(const struct conf *c)
{
    return (struct supervisor_settings){
        .workers = (unsigned)c->workers,
        .grace_ms = c->grace,
        .worker_timeout_ms = c->worker_timeout,
        .boot_timeout_ms = c->boot_timeout,
        .daemonized = c->daemon,
    };
}

/* Give to the workers' user what was opened for them. */
static int own_all(const struct conf *c, const struct sockets *sockets, struct err *e)
{
    for (unsigned i = 0; i < sockets->set.n; i++)
        if (*sockets->set.items[i]->path && /* one that was made here, now or before a reload */
            process_own_socket(&python_process, sockets->set.items[i]->path, e))
            return -1;
    return process_own_logs(&python_process, c, e);
}

/* The process as it was before op_reload. */
static void process_go_back(const struct supervisor_object *o)
{
    struct err e;
    if (process_reload(&python_process, &o->config->conf, &e))
        log_line(LOG_ERROR, 0, "%s", e.text);
    process_ready(&python_process, supervisor_serving(o->supervisor));
}

static int op_reload(void *host, struct supervisor_settings *s)
{
    struct supervisor_object *o = host;
    struct err e = {{0}};
    process_reloading(&python_process);
    PyObject *config = PyObject_CallMethod(o->host, "reload", NULL); /* new */
    if (!config)
        complain(o);
    if (!config || !Py_IS_TYPE(config, python_config_type)) {
        Py_XDECREF(config); /* None: it has said why */
        process_ready(&python_process, supervisor_serving(o->supervisor));
        return -1;
    }
    /* One that is not over ends here; its workers have its sockets, which may be wanted again. */
    bool again = o->next_config != NULL;
    struct sockets *pending = o->next_sockets;
    o->next_sockets = NULL;
    python_keeper_settle(o, false);
    drop_next(o);
    o->next_sockets = pending;
    o->next_config = (struct config_object *)config;
    const struct conf *c = &o->next_config->conf;
    if (c->workers < 1)
        err_set(&e, "workers 0 needs a restart");
    else if (sockets_open_next(&o->next_sockets, c, o->sockets, &e) == 0 &&
             log_sink_open(&o->next_errors, c->error_log, STDERR_FILENO, &e) == 0 &&
             process_reload(&python_process, c, &e) == 0 && own_all(c, o->next_sockets, &e) == 0 &&
             shared_need(o->shared, c, &e) == 0 && python_admin_reload(o, c, &e) == 0 &&
             python_keeper_prepare(o, o->next_config, &o->next_seat, &e) == 0) {
        python_log_use(o->next_errors, c);
        python_template_reload(o, again);
        *s = settings_of(c);
        return 0;
    }
    python_keeper_settle(o, false);
    drop_next(o);
    process_go_back(o);
    log_line(LOG_ERROR, 0, "not reloaded: %s; all goes on as before", e.text);
    PyObject *r = PyObject_CallMethod(o->host, "reloaded", "O", Py_False); /* new */
    if (!r)
        complain(o);
    Py_XDECREF(r);
    return -1;
}

static void op_reloaded(void *host, bool ok)
{
    struct supervisor_object *o = host;
    python_template_reloaded(o, ok);
    python_keeper_settle(o, ok);
    if (ok) {
        sockets_replace(&o->sockets, o->next_sockets);
        o->next_sockets = NULL;
        log_sink_close(&o->errors);
        o->errors = o->next_errors;
        o->next_errors = NULL;
        Py_SETREF(o->config, o->next_config);
        o->next_config = NULL;
        int failed = sockets_settle(o->sockets, &o->config->conf);
        if (failed)
            log_line(LOG_ERROR, 0, "cannot change the backlog or the mode of a listening socket: %s", strerror(-failed));
        process_ready(&python_process, o->supervisor->target);
    } else {
        drop_next(o);
        process_go_back(o);
    }
    PyObject *r = PyObject_CallMethod(o->host, "reloaded", "O", ok ? Py_True : Py_False); /* new */
    if (!r)
        complain(o);
    Py_XDECREF(r);
}

static const struct supervisor_ops OPS = {
    .spawn = op_spawn,
    .overdue = op_overdue,
    .exited = op_exited,
    .ready = op_ready,
    .reload = op_reload,
    .reloaded = op_reloaded,
    .counted = op_counted,
    .upgrade = op_upgrade,
    .news_fds = op_news_fds,
    .news = op_news,
    .stopping = op_stopping,
    .reopened = op_reopened,
    .tick = op_tick,
    .stranger = op_stranger,
    .keep = python_keeper_keep,
    .kept = python_keeper_kept,
    .wait_begin = op_wait_begin,
    .wait_end = op_wait_end,
};

/* ---- the type ---- */

static int supervisor_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct supervisor_object *o = (struct supervisor_object *)self;
    static char *names[] = {"config", "host", NULL};
    PyObject *config, *host; /* borrowed */
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O", names, python_config_type, &config,
                                     &host))
        return -1;
    if (o->host) {
        PyErr_SetString(PyExc_RuntimeError, "this supervisor is initialised already");
        return -1;
    }
    o->told_fd = -1;
    o->admin_tell[0] = o->admin_tell[1] = -1;
    python_admin_socket_init(&o->admin);
    python_admin_socket_init(&o->next_admin);
    upgrade_init(&o->given);
    o->host = Py_NewRef(host);
    o->template_end = -1;
    o->config = (struct config_object *)Py_NewRef(config);
    return python_log_open(&o->errors, &o->config->conf);
}

static PyObject *supervisor_listen(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct supervisor_object *o = (struct supervisor_object *)self;
    struct err e = {{0}};
    if (o->sockets) {
        PyErr_SetString(PyExc_RuntimeError, "the supervisor listens already");
        return NULL;
    }
    if (python_admin_listen(o, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
    if (python_upgrade_listen(o, &e)) {
        python_admin_close(o, !python_upgrade_shares(o));
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
    if (own_all(&o->config->conf, o->sockets, &e)) {
        python_admin_close(o, !python_upgrade_shares(o));
        python_upgrade_close(o, &o->sockets);
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *supervisor_addresses(PyObject *self, void *unused)
{
    (void)unused;
    struct supervisor_object *o = (struct supervisor_object *)self;
    PyObject *out = PyList_New(0); /* new */
    for (unsigned i = 0; out && o->sockets && i < o->sockets->set.n; i++) {
        PyObject *s = PyUnicode_DecodeFSDefault(o->sockets->set.items[i]->url); /* new */
        if (!s || PyList_Append(out, s))
            Py_CLEAR(out);
        Py_XDECREF(s);
    }
    return out;
}

/* In a worker. */
static void start_probe(struct supervisor_object *o)
{
    const struct scoreboard_slot *slot = &o->process.board->slots[o->process.slot];
    python_probe_start(&o->probe, python_keeper_probes(o), o->process.slot,
                       atomic_load(&slot->generation));
}

static PyObject *supervisor_run_py(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct supervisor_object *o = (struct supervisor_object *)self;
    struct err e = {{0}};
    struct supervisor_settings set = settings_of(&o->config->conf);
    if (!o->sockets || o->supervisor) {
        PyErr_SetString(PyExc_RuntimeError, "the supervisor does not listen, or runs already");
        return NULL;
    }
    /* A reload may turn TLS on: what all workers share has to be there before the first. */
    if (tls_ticket_keys_new()) {
        PyErr_NoMemory();
        return NULL;
    }
    if (supervisor_new(&o->supervisor, &set, &OPS, o, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
    o->shared = shared_new(o->supervisor->board->n_slots);
    if (!o->shared)
        err_set(&e, "out of memory");
    else
        o->shared->board = o->supervisor->board;
    if (!o->shared || shared_need(o->shared, &o->config->conf, &e) ||
        python_keeper_prepare(o, o->config, &o->seat, &e)) {
        supervisor_free(&o->supervisor);
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
    python_upgrade_join(o);
    python_admin_tell(o);
    int status = supervisor_run(o->supervisor);
    if (status == SUPERVISOR_WORKER) {
        python_upgrade_forget(o);
        python_keeper_forget(o);
        upgrade_free(&python_process.upgrade);
        struct child *c = o->supervisor->born;
        o->process = (struct worker_process){
            .board = o->supervisor->board,
            .slot = c->slot,
            .tell_fd = c->worker_fd,
            .supervisor = atomic_load(&o->supervisor->board->supervisor),
            .grace_ms = c->grace_ms,
        };
        Py_RETURN_NONE;
    }
    drop_next(o);
    python_upgrade_close(o, &o->sockets);
    python_admin_close(o, !python_upgrade_shares(o));
    python_upgrade_forget(o);
    if (o->supervisor->started)
        log_line(LOG_INFO, 0, "stopped");
    supervisor_free(&o->supervisor);
    return PyLong_FromLong(status);
}

static PyObject *supervisor_stop_py(PyObject *self, PyObject *args)
{
    struct supervisor_object *o = (struct supervisor_object *)self;
    int quick = 0;
    if (!PyArg_ParseTuple(args, "|p", &quick))
        return NULL;
    if (o->supervisor && !o->worker)
        supervisor_stop(o->supervisor, quick);
    Py_RETURN_NONE;
}

/* begin() -> bool: in a worker, before anything else: its certificates, its title, its user, and it
 * shall not outlive the supervisor. False: that has ended. */
static PyObject *supervisor_begin(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct supervisor_object *o = (struct supervisor_object *)self;
    if (!o->worker) {
        PyErr_SetString(PyExc_RuntimeError, "this process is no worker");
        return NULL;
    }
    struct err e = {{0}};
    const struct config_object *config = o->next_config ? o->next_config : o->config;
    if (worker_process_begin(&o->process))
        Py_RETURN_FALSE;
    /* Keys are often root's alone: they are read while this process still is. */
    if (tls_prepare(&config->conf, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
    /* So are secrets of tokens. */
    if (policy_new(&o->policy, &config->conf, &o->shared->parts, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
    if (python_process.begun && process_worker(&python_process, &config->conf, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
    /* Before the import, which may hang; after the change of user: what a thread may gain by exec
     * (no_new_privs) is its own affair, and passed to the threads that it makes. */
    start_probe(o);
    /* Another user than the supervisor's: the kernel forgets whose end it was to tell. */
    return PyBool_FromLong(worker_process_guard(&o->process) == 0);
}

static PyObject *supervisor_may_complain(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct supervisor_object *o = (struct supervisor_object *)self;
    return PyBool_FromLong((!o->worker && !o->is_template) || worker_process_may_complain(&o->process));
}

int python_supervisor_join(struct supervisor_object *o, struct server *s)
{
    struct err e = {{0}};
    struct supervisor *supervisor = o->supervisor;
    struct server_worker w = {
        .board = o->process.board,
        .slot = o->process.slot,
        .hand_recv = supervisor->hand_recv,
        .hand_send = supervisor->hand_send,
        .tell_fd = o->process.tell_fd,
        .shared = o->shared,
        .policy = o->policy,
    };
    o->policy = NULL;
    o->shared->door = python_keeper_door(o);
    start_probe(o);
    struct sockets **from = o->next_config ? &o->next_sockets : &o->sockets;
    server_join_board(s, &w);
    if (server_share_listeners(s, &(*from)->set, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return -1;
    }
    sockets_forget(&o->next_sockets);
    sockets_forget(&o->sockets);
    /* The server has its own. */
    if (o->next_errors)
        log_sink_close(&o->next_errors);
    if (o->errors)
        log_sink_close(&o->errors);
    return 0;
}

static void supervisor_dealloc(PyObject *self)
{
    struct supervisor_object *o = (struct supervisor_object *)self;
    probe_stop(&o->probe); /* its door is a seat's */
    if (o->worker || o->is_template)
        sockets_forget(&o->next_sockets);
    drop_next(o);
    python_upgrade_close(o, &o->sockets);
    if (o->host) /* it was initialised */
        python_admin_close(o, !python_upgrade_shares(o));
    python_upgrade_forget(o);
    supervisor_free(&o->supervisor);
    policy_free(&o->policy);
    shared_free(&o->shared);
    if (o->errors)
        log_sink_close(&o->errors);
    Py_XDECREF(o->worker);
    Py_XDECREF(o->config);
    Py_XDECREF(o->host);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *supervisor_worker(PyObject *self, void *unused)
{
    (void)unused;
    PyObject *worker = ((struct supervisor_object *)self)->worker;
    return Py_NewRef(worker ? worker : Py_None);
}

static PyObject *supervisor_is_template(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct supervisor_object *)self)->is_template);
}

static PyMethodDef supervisor_methods[] = {
    {"listen", supervisor_listen, METH_NOARGS,
     "Open all addresses; OSError with one clear sentence."},
    {"run", supervisor_run_py, METH_NOARGS,
     "Start workers and stay until they have stopped: the exit code. In a worker: None."},
    {"stop", supervisor_stop_py, METH_VARARGS, "stop(quick=False): as TERM, or QUIT."},
    {"begin", supervisor_begin, METH_NOARGS,
     "In a worker, first: do not outlive the supervisor. False: it has ended already."},
    {"template_begin", python_template_begin, METH_NOARGS,
     "In a template (--preload), first. False: the supervisor has ended already."},
    {"template_next", python_template_next, METH_NOARGS,
     "In a template: wait for orders and fork. In each worker: its age. None: nobody orders any more."},
    {"upgrade_begin", python_upgrade_begin, METH_NOARGS,
     "The value of WEIR_UPGRADE for a successor; OSError says why there can be none now."},
    {"upgrade_pass", python_upgrade_pass, METH_NOARGS, "In the successor's process, before exec."},
    {"upgrade_started", python_upgrade_started, METH_VARARGS, "upgrade_started(pid); 0: it could not."},
    {"may_complain", supervisor_may_complain, METH_NOARGS,
     "Is this the first worker that says why it cannot start?"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef supervisor_getset[] = {
    {"addresses", supervisor_addresses, NULL, "URLs of the open addresses", NULL},
    {"is_template", supervisor_is_template, NULL, "does this process fork the workers?", NULL},
    {"worker", supervisor_worker, NULL, "in a worker what the host made for it", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot supervisor_slots[] = {
    {Py_tp_init, supervisor_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, supervisor_dealloc},
    {Py_tp_methods, supervisor_methods},
    {Py_tp_getset, supervisor_getset},
    {Py_tp_doc, "Supervisor(config, host): this process starts workers and looks after them."},
    {0, NULL},
};

static PyType_Spec supervisor_spec = {
    .name = "weir._core.Supervisor",
    .basicsize = sizeof(struct supervisor_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = supervisor_slots,
};

int python_supervisor_init(PyObject *module)
{
    python_supervisor_type = (PyTypeObject *)PyType_FromSpec(&supervisor_spec);
    return python_supervisor_type
               ? PyModule_AddObjectRef(module, "Supervisor", (PyObject *)python_supervisor_type)
               : -1;
}
