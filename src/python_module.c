/*
 * python_module: weir._core, the C core as Python sees it.
 *
 * It stands beside main.c because it joins what is below it: conf, serve and the WSGI bridge.
 * With src/wsgi it is the only place that includes Python.h.
 *
 *   parse(argv, dialect, env) -> dict     read a command line
 *   config(dialect, pairs, fds) -> Config settings from keywords
 *   Server(app, config, supervisor)       .listen() .addresses .run(own_signals) .close() .report(text)
 *   Supervisor(config, host)              .listen() .addresses .run() .stop(quick)
 *   log(level, text)                      one entry of the error log
 *   Watch()                               .add(folder) .wait(seconds) .close()
 */
#include "python_module.h"

#include "conf/version.h"
#include "python_module_process.h"
#include "wsgi/wsgi.h"

static PyMethodDef core_methods[] = {
    {"parse", python_parse, METH_VARARGS,
     "parse(argv, dialect, env) -> {'action', 'status', 'message', 'config'}"},
    {"config", python_config, METH_VARARGS,
     "config(dialect, [(name, value), …], [fd, …]) -> Config; ValueError names what is wrong."},
    {"healthcheck", python_healthcheck, METH_VARARGS,
     "healthcheck([argument, …], ['NAME=VALUE', …]) -> (exit code, output, message)"},
    {"gunicorn_settings", python_gunicorn_settings, METH_O,
     "gunicorn_settings(config) -> [(name, kind, default, arity, [text, …], source), …]"},
    {"gunicorn_finish", python_gunicorn_finish, METH_VARARGS,
     "gunicorn_finish(config, [(name, [text, …], source), …]) -> dict; ValueError names what is wrong."},
    {"gunicorn_lead", python_gunicorn_lead, METH_VARARGS,
     "gunicorn_lead(config, name, value): another value for a setting of Weir, before anything is opened."},
    {"gunicorn_title", python_gunicorn_title, METH_VARARGS, "gunicorn_title(role, name): what ps shows."},
    {"log", python_log, METH_VARARGS, "log(level, text): one entry of the error log."},
    {"signals_early", python_signals_early, METH_NOARGS,
     "From now on signals wait for the server that is about to be started."},
    {"signals_late", python_signals_late, METH_NOARGS,
     "signals_late() -> bool: no longer; they do what they did before. Has one asked for the end?"},
    {"process_begin", python_process_begin, METH_VARARGS,
     "process_begin(config, supervises, handed): mask, pid file, title; OSError says what is wrong."},
    {"process_end", python_process_end, METH_NOARGS, "It has stopped, or its start failed."},
    {"log_lent_changed", python_log_lent_changed, METH_NOARGS,
     "Standard output or standard error leads elsewhere."},
    {NULL, NULL, 0, NULL},
};

static int core_exec(PyObject *module)
{
    if (python_config_init(module) || python_server_init(module) || python_supervisor_init(module) ||
        python_watch_init(module) ||
        PyModule_AddStringConstant(module, "__version__", WEIR_VERSION))
        return -1;
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
