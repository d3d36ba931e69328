/*
 * python_module_process: what weir._core has for processes beside the server.
 *
 * Threads: main thread, with the GIL.
 */
#ifndef WEIR_PYTHON_MODULE_PROCESS_H
#define WEIR_PYTHON_MODULE_PROCESS_H

#include <Python.h>

#include "proc/process.h"

/* The process that was started by a command line; `begun` is false in one that serve() runs in. */
extern struct process python_process;

/* healthcheck(argv, environ) -> (status, out, message); both lists of texts, environ NAME=VALUE. */
PyObject *python_healthcheck(PyObject *self, PyObject *args);

/* process_begin(config, supervises, handed), process_end(): see proc/process.h. `handed` has what was taken out of the environment. */
PyObject *python_process_begin(PyObject *self, PyObject *args);
PyObject *python_process_end(PyObject *self, PyObject *unused);

/* log_lent_changed(): see base/log.h. */
PyObject *python_log_lent_changed(PyObject *self, PyObject *unused);

#endif
