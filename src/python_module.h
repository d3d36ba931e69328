/*
 * python_module: the parts of weir._core, and what they need of each other.
 *
 *   python_module.c             the module: its functions and types
 *   python_module_config.c      parse, config, Config
 *   python_module_server.c      Server: one worker in this process
 *   python_module_signals.c     signals beside Python's own handlers
 *   python_module_supervisor.c  Supervisor: this process starts workers
 *   python_module_process.c     healthcheck
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

/* Open the error log that *c names and make it the process's: 0, or -1 with an OSError. *sink is
 * owned: log_sink_close. */
WEIR_MUST_USE int python_log_open(struct log_sink **sink, const struct conf *c);

/* ---- python_module_gunicorn.c ---- */

PyObject *python_gunicorn_settings(PyObject *self, PyObject *object);
PyObject *python_gunicorn_finish(PyObject *self, PyObject *args);
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

/* ---- python_module_server.c ---- */

WEIR_MUST_USE int python_server_init(PyObject *module);

/* ---- python_module_watch.c ---- */

WEIR_MUST_USE int python_watch_init(PyObject *module);

#endif
