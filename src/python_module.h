/*
 * python_module: the parts of weir._core, and what they need of each other.
 *
 *   python_module.c             the module: its functions and types
 *   python_module_config.c      parse, config, Config
 *   python_module_server.c      Server: one worker in this process
 *   python_module_signals.c     signals beside Python's own handlers
 *   python_module_supervisor.c  Supervisor: this process starts workers
 *   python_module_keeper.c      its keepers
 *   python_module_admin.c       the admin listener, which lives in them
 *   python_module_upgrade.c     two supervisors for a while
 *   python_module_process.c     the main process: pid file, title, …; healthcheck
 *   python_module_gunicorn.c    Gunicorn's settings, for its configuration file
 *   python_module_watch.c       Watch: names that change in folders
 *
 * Threads: all with the GIL, unless said otherwise.
 */
#ifndef WEIR_PYTHON_MODULE_H
#define WEIR_PYTHON_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

#include "base/err.h"
#include "base/log.h"
#include "conf/conf.h"
#include "net/listen.h"
#include "proc/sockets.h"
#include "proc/supervisor.h"
#include "proc/upgrade.h"
#include "proc/worker_process.h"

/* ---- python_module_config.c ---- */

struct config_object {
    PyObject_HEAD
    struct conf conf;
    bool ready; /* conf is initialised */
    int fds[64]; /* sockets= of serve() */
    unsigned n_fds;
};

extern PyTypeObject *python_config_type; /* kept for the process */

WEIR_MUST_USE int python_config_init(PyObject *module);
PyObject *python_parse(PyObject *self, PyObject *args);
PyObject *python_config(PyObject *self, PyObject *args);

/* What files of variables and `env` add to the environment: a new dict, NULL with an exception. */
PyObject *python_env_added(const struct conf *c);

/* Make `sink` (lent) the process's error log, with level and format of *c. */
void python_log_use(struct log_sink *sink, const struct conf *c);
/* Open the error log that *c names and use it: 0, or -1 with an OSError. *sink is owned:
 * log_sink_close. */
WEIR_MUST_USE int python_log_open(struct log_sink **sink, const struct conf *c);

/* ---- python_module_gunicorn.c ---- */

PyObject *python_gunicorn_settings(PyObject *self, PyObject *object);
PyObject *python_gunicorn_finish(PyObject *self, PyObject *args);
PyObject *python_gunicorn_lead(PyObject *self, PyObject *args);
PyObject *python_gunicorn_title(PyObject *self, PyObject *args);
PyObject *python_log(PyObject *self, PyObject *args);

/* ---- python_module_signals.c ---- */

/* What a run took over, and what it has to give back. */
struct python_signals {
    bool wakes; /* Python's wake-up descriptor is ours */
};

/* Take over TERM, INT, QUIT and USR1. `own`: whatever the program has set; otherwise handlers of the
 * program stay. -1 with an exception. */
WEIR_MUST_USE int python_signals_take(struct python_signals *s, bool own);
void python_signals_give_back(const struct python_signals *s);

/* A descriptor that tells that Python has noted a signal, -1: there is none. Call
 * PyErr_CheckSignals after python_signals_woken. */
int python_signals_wake_fd(const struct python_signals *s);
void python_signals_woken(void);

/* signals_early(): see proc/signals.h. signals_late(): the same is over; shall the process end? */
PyObject *python_signals_early(PyObject *self, PyObject *unused);
PyObject *python_signals_late(PyObject *self, PyObject *unused);

/* ---- python_module_server.c ---- */

WEIR_MUST_USE int python_server_init(PyObject *module);

/* The one line that tells that all is well. `workers`: of a supervisor; -1: this process alone. */
void python_log_ready(const struct conf *c, const struct listen_set *set, int workers);

/* ---- python_module_supervisor.c ---- */

/* The admin listener's. */
struct python_admin_socket {
    int fd;     /* owned; -1: none */
    char *text; /* owned; as configured; NULL: none */
};

struct supervisor_object {
    PyObject_HEAD
    PyObject *host;                /* counted; weir._supervisor.Supervisor */
    struct config_object *config;  /* counted; in use */
    struct supervisor *supervisor; /* owned; NULL before run, and when it is over */
    struct sockets *sockets;       /* owned; in use; NULL before listen */
    struct log_sink *errors;       /* owned; in use */

    /* While a reload has not succeeded: what is used then. */
    struct config_object *next_config; /* counted; NULL: no reload is on its way */
    struct sockets *next_sockets;      /* owned */
    struct log_sink *next_errors;      /* owned */

    struct shared *shared;         /* owned; what all processes have together for admission */
    struct policy *policy;         /* owned; in a worker, between begin and join */

    struct python_seat *seat;      /* the keeper's; owned with the supervisor; NULL: none is wanted */
    struct python_seat *next_seat; /* while a reload has not succeeded; may be the same */
    struct python_admin_socket admin;      /* in use */
    struct python_admin_socket next_admin; /* while a reload has not succeeded */
    struct probe *probe; /* owned; in a worker: tells where its threads are; NULL: nobody asks */
    int admin_tell[2]; /* owned; a pipe: keepers write to [1] when the board is to be looked at; -1: none */

    /* With --preload: who forks the workers. [1] is the one before a reload, until that has succeeded; [2]
     * is one of a reload that was not over when the next began: killed, and not waited for yet. */
    struct template_process {
        pid_t pid;           /* 0: there is none */
        int end;             /* our end of its socket */
        uint32_t generation; /* of the workers that it makes */
    } templates[3];
    int template_end; /* in a template: its own end; -1 elsewhere */
    bool is_template; /* this process is one */

    /* USR2: another supervisor after this one. */
    pid_t successor;      /* 0: none was started, or it has ended */
    bool successor_ready; /* it serves */
    int told_fd;          /* owned; it writes a byte when it serves; -1: nothing is to be told */
    struct upgrade given; /* what it gets, from upgrade_begin to upgrade_started */

    PyThreadState *waiting; /* while the supervisor polls */
    PyObject *worker;       /* in a worker: counted; the host's object for it */
    struct worker_process process; /* in a worker */
};

extern PyTypeObject *python_supervisor_type; /* kept for the process */

WEIR_MUST_USE int python_supervisor_init(PyObject *module);

struct server;

/* In a worker: make the server one of the supervisor's, with its sockets; then the supervisor's own
 * are closed here. 0, or -1 with an OSError. */
WEIR_MUST_USE int python_supervisor_join(struct supervisor_object *o, struct server *s);

/* Call a method of the host without arguments. What it raises is written to the error log. */
void python_supervisor_tell(struct supervisor_object *o, const char *method);

/* ---- python_module_template.c: --preload ---- */

/* As supervisor_ops; the first one makes the template that it needs. */
WEIR_MUST_USE pid_t python_template_spawn(struct supervisor_object *o, struct child *c);
unsigned python_template_fds(const struct supervisor_object *o, int fds[2]);
void python_template_news(struct supervisor_object *o);
void python_template_stranger(struct supervisor_object *o, pid_t pid, int status);
/* A reload begins (the template in use stays for now), has succeeded, or is undone. */
void python_template_reload(struct supervisor_object *o, bool again);
void python_template_reloaded(struct supervisor_object *o, bool ok);
/* The whole server stops: no more workers. */
void python_template_end(struct supervisor_object *o);
/* boot-timeout: what it has not forked of this generation has failed. */
void python_template_overdue(struct supervisor_object *o, uint32_t generation);
/* In a process that is none: close the supervisor's ends. */
void python_template_forget(struct supervisor_object *o);
/* Methods of weir._core.Supervisor. */
PyObject *python_template_begin(PyObject *self, PyObject *unused);
PyObject *python_template_next(PyObject *self, PyObject *unused);

/* ---- python_module_keeper.c ---- */

struct keeper_config;
struct keeper_door;
struct policy;
struct shared;

/* Before run, or for a reload: a keeper for `config` where it wants one: that of o->seat, or another
 * beside it. NULL in *seat: none is wanted. */
WEIR_MUST_USE int python_keeper_prepare(struct supervisor_object *o, struct config_object *config,
                                        struct python_seat **seat, struct err *e);
/* The reload has succeeded, or is undone: the other one ends. */
void python_keeper_settle(struct supervisor_object *o, bool ok);
/* As supervisor_ops. */
WEIR_MUST_USE pid_t python_keeper_keep(void *host, void *what);
void python_keeper_kept(void *host, void *what);
/* In a worker or template, first. */
void python_keeper_forget(struct supervisor_object *o);
/* What a keeper for `conf` does, of a process of its own or of a thread; `shared` gets what it fetches. The door is
 * the caller's. */
void python_keeper_config(struct keeper_config *k, const struct conf *c, struct shared *shared);
/* In a worker: where its keeper is found; NULL: it has none. */
const struct keeper_door *python_keeper_door(const struct supervisor_object *o);
/* In a worker: where its probe is to connect (serve/probe.h); NULL: nobody asks. */
const struct keeper_door *python_keeper_probes(const struct supervisor_object *o);
/* Start the thread that answers there. Without one the server serves all the same; a line says why. */
void python_probe_start(struct probe **out, const struct keeper_door *door, uint32_t slot,
                        uint32_t generation);
/* The workers are told to end, and another supervisor goes on: its keeper answers for the admin listener. */
void python_keeper_step_back(struct supervisor_object *o);

/* ---- python_module_upgrade.c ---- */

/* Open the addresses: the sockets of the supervisor before this one, or new ones. */
WEIR_MUST_USE int python_upgrade_listen(struct supervisor_object *o, struct err *e);
/* After supervisor_new: use what the supervisor before this one shares with it. */
void python_upgrade_join(struct supervisor_object *o);
/* Does another supervisor go on with the sockets, or is this process none? */
bool python_upgrade_shares(const struct supervisor_object *o);
/* Close sockets that another supervisor may use: files of Unix sockets stay then. */
void python_upgrade_close(const struct supervisor_object *o, struct sockets **s);
/* After every wait: has the supervisor before this one ended? */
void python_upgrade_tick(struct supervisor_object *o);
/* o->told_fd may be readable. */
void python_upgrade_news(struct supervisor_object *o);
/* A child that is no worker has ended. Was it the successor? */
bool python_upgrade_stranger(struct supervisor_object *o, pid_t pid, int status);
/* In a worker, and at the end. */
void python_upgrade_forget(struct supervisor_object *o);

PyObject *python_upgrade_begin(PyObject *self, PyObject *unused);
PyObject *python_upgrade_pass(PyObject *self, PyObject *unused);
PyObject *python_upgrade_started(PyObject *self, PyObject *args);

/* ---- python_module_watch.c ---- */

WEIR_MUST_USE int python_watch_init(PyObject *module);

#endif
