/* python_module_process: what weir._core has for processes beside the server. See the .c. */
#ifndef WEIR_PYTHON_MODULE_PROCESS_H
#define WEIR_PYTHON_MODULE_PROCESS_H

#include <Python.h>

/* healthcheck(argv, environ) -> (status, out, message); both lists of texts, environ NAME=VALUE. */
PyObject *python_healthcheck(PyObject *self, PyObject *args);

#endif
