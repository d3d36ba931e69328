/* python_module_config: settings as Python sees them. */
#include "python_module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/yaml.h"

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

/* By enum conf_dialect. */
static const char *const dialects[] = {"weir", "waitress", "gunicorn"};

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
        return PyUnicode_FromString(dialects[c->dialect]);
    case 6:
        return PyBool_FromLong(c->expose_tracebacks);
    case 7:
        return PyBool_FromLong(c->daemon);
    case 8:
        return PyBool_FromLong(c->reload);
    case 9:
        return text_list(&c->reload_extra);
    case 10:
        return PyUnicode_DecodeFSDefault(c->config);
    case 11:
        return PyLong_FromLongLong(c->workers);
    case 12:
        return PyUnicode_DecodeFSDefault(c->admin);
    case 13:
        return PyUnicode_DecodeFSDefault(c->admin_token);
    case 14:
        return PyUnicode_DecodeFSDefault(c->admin_token_file);
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
    {"dialect", config_get, NULL, "'weir', 'waitress' or 'gunicorn'", (void *)5},
    {"expose_tracebacks", config_get, NULL, "send tracebacks to clients", (void *)6},
    {"daemon", config_get, NULL, "go to the background", (void *)7},
    {"reload", config_get, NULL, "restart when a file of the application changes", (void *)8},
    {"reload_extra", config_get, NULL, "more files, or patterns of files, to watch", (void *)9},
    {"config", config_get, NULL, "the YAML file that was read, or ''", (void *)10},
    {"workers", config_get, NULL, "processes that serve; 0: this one alone", (void *)11},
    {"admin", config_get, NULL, "address of the admin listener, or ''", (void *)12},
    {"admin_token", config_get, NULL, "the token it asks for, or ''", (void *)13},
    {"admin_token_file", config_get, NULL, "file with the token, or ''", (void *)14},
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

PyTypeObject *python_config_type;

/* A new Config with the defaults of the dialect; NULL with an exception. */
static struct config_object *config_new(const char *dialect)
{
    enum conf_dialect d = CONF_GUNICORN;
    while (d > CONF_WEIR && strcmp(dialect, dialects[d]) != 0)
        d--;
    struct config_object *o = (struct config_object *)python_config_type->tp_alloc(python_config_type, 0);
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
PyObject *python_env_added(const struct conf *c)
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

PyObject *python_parse(PyObject *self, PyObject *args)
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
    int rc = conf_load(&o->conf, (int)PyList_GET_SIZE(argv_list), argv, environ_, out_stream, &action,
                       &status, &e);
    bool starts = action == CONF_RUN || action == CONF_CHECK;
    if (!rc && starts && o->conf.dialect != CONF_GUNICORN &&
        (rc = conf_policy_files_check(&o->conf, o->conf.chdir, &e)))
        status = o->conf.dialect == CONF_WEIR ? 2 : 1;
    if (rc) {
        action = CONF_EXIT;
        conf_complain(&o->conf, argv[0], &e, err_stream);
    } else {
        conf_notes(&o->conf, err_stream);
        if (action == CONF_PRINT && o->conf.dialect != CONF_GUNICORN)
            conf_print(&o->conf, out_stream);
    }
    fclose(err_stream);
    fclose(out_stream);
    result = Py_BuildValue("{s:s,s:i,s:N,s:N,s:N,s:O}", "action", ACTIONS[action], "status", status,
                           "message", PyUnicode_DecodeFSDefaultAndSize(said, (Py_ssize_t)said_n),
                           "output", PyUnicode_DecodeFSDefaultAndSize(printed, (Py_ssize_t)printed_n),
                           "environ", python_env_added(&o->conf), "config",
                           action == CONF_EXIT ? Py_None : (PyObject *)o);
    free(said);
    free(printed);
out:
    free_texts(argv);
    free_texts(environ_);
    Py_XDECREF(o);
    return result;
}

PyObject *python_config(PyObject *self, PyObject *args)
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
    if (o && ((*o->conf.config && conf_yaml_load(&o->conf, &e)) || conf_finish(&o->conf, &e) ||
              conf_policy_files_check(&o->conf, "", &e))) {
        PyErr_SetString(PyExc_ValueError, e.text);
        Py_CLEAR(o);
    }
    if (o && o->conf.reload) {
        PyErr_SetString(PyExc_ValueError, "reload: a program cannot be restarted from within; start "
                                          "it as weir --reload MODULE:APP");
        Py_CLEAR(o);
    }
    if (o)
        conf_notes(&o->conf, stderr);
    return (PyObject *)o;
}

void python_log_use(struct log_sink *sink, const struct conf *c)
{
    static const char *const LEVELS[] = {"debug", "info", "warning", "error", "critical"};
    enum log_level least = LOG_INFO;
    for (int i = 0; i <= LOG_CRITICAL; i++)
        if (strcmp(c->log_level, LEVELS[i]) == 0)
            least = (enum log_level)i;
    log_setup(sink, least, strcmp(c->log_format, "json") == 0);
    log_color(log_color_wanted(c->log_color, strcmp(c->error_log, "-") == 0 ? STDERR_FILENO : -1));
    bool file = strcmp(c->error_log, "-") != 0;
    int rc = log_capture(c->capture_output && file ? sink : NULL);
    if (rc)
        log_line(LOG_ERROR, 0, "capture-output: cannot lead standard output to '%s': %s",
                 c->error_log, strerror(-rc));
}

int python_log_open(struct log_sink **sink, const struct conf *c)
{
    struct err e = {{0}};
    if (log_sink_open(sink, c->error_log, STDERR_FILENO, &e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return -1;
    }
    python_log_use(*sink, c);
    return 0;
}

int python_config_init(PyObject *module)
{
    python_config_type = (PyTypeObject *)PyType_FromSpec(&config_spec);
    return python_config_type
               ? PyModule_AddObjectRef(module, "Config", (PyObject *)python_config_type)
               : -1;
}
