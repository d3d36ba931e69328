/*
 * python_module_process: what weir._core has for processes beside the server.
 *
 * Threads: with the GIL; it is released while a function waits.
 */
#include "python_module.h"
#include "python_module_process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proc/healthcheck.h"

static void free_texts(char **texts)
{
    for (char **t = texts; t && *t; t++)
        free(*t);
    free(texts);
}

/* A NULL-terminated array of copies (free_texts); NULL with an exception. */
static char **copy_texts(PyObject *list)
{
    Py_ssize_t n = PyList_GET_SIZE(list);
    char **out = calloc((size_t)n + 1, sizeof *out);
    if (!out)
        return (char **)PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *bytes = NULL; /* new */
        if (!PyUnicode_FSConverter(PyList_GET_ITEM(list, i), &bytes)) {
            free_texts(out);
            return NULL;
        }
        out[i] = strdup(PyBytes_AS_STRING(bytes));
        Py_DECREF(bytes);
        if (!out[i]) {
            free_texts(out);
            return (char **)PyErr_NoMemory();
        }
    }
    return out;
}

PyObject *python_healthcheck(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *argv_list, *env_list; /* borrowed */
    char *texts[2] = {NULL, NULL};  /* malloc'ed by the streams */
    size_t sizes[2] = {0, 0};
    if (!PyArg_ParseTuple(args, "O!O!", &PyList_Type, &argv_list, &PyList_Type, &env_list))
        return NULL;
    char **argv = copy_texts(argv_list);
    char **env = argv ? copy_texts(env_list) : NULL;
    FILE *out = env ? open_memstream(&texts[0], &sizes[0]) : NULL;
    FILE *out_err = out ? open_memstream(&texts[1], &sizes[1]) : NULL;
    PyObject *result = NULL;
    if (out_err) {
        int status, argc = (int)PyList_GET_SIZE(argv_list);
        Py_BEGIN_ALLOW_THREADS status = healthcheck_main(argc, argv, env, out, out_err);
        Py_END_ALLOW_THREADS fclose(out_err);
        fclose(out);
        result = Py_BuildValue("iNN", status,
                               PyUnicode_DecodeFSDefaultAndSize(texts[0], (Py_ssize_t)sizes[0]),
                               PyUnicode_DecodeFSDefaultAndSize(texts[1], (Py_ssize_t)sizes[1]));
    } else {
        if (out)
            fclose(out);
        if (!PyErr_Occurred())
            PyErr_NoMemory();
    }
    free(texts[0]);
    free(texts[1]);
    free_texts(argv);
    free_texts(env);
    return result;
}

/* ---- the main process ---- */

struct process python_process;

/* The text of `name` in a dict, lent by it; NULL: not there, or None. */
static const char *text_in(PyObject *dict, const char *name)
{
    PyObject *value = PyDict_GetItemString(dict, name); /* borrowed */
    return value && PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;
}

PyObject *python_process_begin(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *config, *handed; /* borrowed */
    int supervises;
    struct err e;
    if (!PyArg_ParseTuple(args, "O!pO!", python_config_type, &config, &supervises, &PyDict_Type, &handed))
        return NULL;
    const struct process_env env = {
        .upgrade = text_in(handed, UPGRADE_VARIABLE),
        .gunicorn_pid = text_in(handed, "GUNICORN_PID"),
        .gunicorn_fd = text_in(handed, "GUNICORN_FD"),
        .notify_socket = getenv("NOTIFY_SOCKET"),
        .watchdog_usec = getenv("WATCHDOG_USEC"),
        .watchdog_pid = getenv("WATCHDOG_PID"),
    };
    PyErr_Clear(); /* a value that is no text of this encoding counts as not set */
    if (process_begin(&python_process, &((struct config_object *)config)->conf, supervises, &env, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *python_process_end(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    process_end(&python_process);
    Py_RETURN_NONE;
}

PyObject *python_log_lent_changed(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    log_lent_changed();
    Py_RETURN_NONE;
}
