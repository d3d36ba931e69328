/*
 * python_module_gunicorn: Gunicorn's settings between the command line, which C reads, and the
 * configuration file, which is Python.
 *
 *   gunicorn_settings(config) -> [(name, kind, default, arity, [text, …], source or None), …]
 *   gunicorn_finish(config, [(name, [text, …], source), …]) -> dict      ValueError names what is
 * wrong gunicorn_lead(config, name, value)                                   another value for a
 * setting of Weir log(level, text)                                                     a line of
 * the error log
 */
#include <stdlib.h>

#include "proc/title.h"
#include "python_module.h"

static struct config_object *config_of(PyObject *object)
{
    if (PyObject_TypeCheck(object, python_config_type) &&
        ((struct config_object *)object)->conf.dialect == CONF_GUNICORN)
        return (struct config_object *)object;
    PyErr_SetString(PyExc_TypeError, "not a configuration of weir gunicorn");
    return NULL;
}

static PyObject *text_list(const char *const *texts, unsigned n)
{
    PyObject *out = PyList_New(n); /* new */
    for (unsigned i = 0; out && i < n; i++) {
        PyObject *s = PyUnicode_DecodeFSDefault(texts[i]); /* new, stolen by the list */
        if (s)
            PyList_SET_ITEM(out, i, s);
        else
            Py_CLEAR(out);
    }
    return out;
}

PyObject *python_gunicorn_settings(PyObject *self, PyObject *object)
{
    (void)self;
    struct config_object *o = config_of(object);
    PyObject *out = o ? PyList_New(0) : NULL; /* new */
    struct conf_gunicorn_setting s;
    for (unsigned i = 0; out && conf_gunicorn_get(&o->conf, i, &s); i++) {
        PyObject *source =
            s.source ? PyUnicode_DecodeFSDefault(s.source) : Py_NewRef(Py_None); /* new */
        PyObject *row = Py_BuildValue("(ssssNN)", s.name, s.kind, s.def, s.arity,
                                      text_list(s.texts, s.n), source); /* new; takes both N */
        if (!row || PyList_Append(out, row))
            Py_CLEAR(out);
        Py_XDECREF(row);
    }
    return out;
}

/* One (name, texts, source). The texts stay in `keep` as long as the pointers are used. */
static int set_one(struct conf *c, PyObject *item)
{
    static const unsigned TEXTS_MAX = 4096;
    const char *name;
    PyObject *texts, *source_text, *source = NULL, *keep = NULL; /* borrowed, borrowed, new, new */
    const char **pointers = NULL;
    struct err e = {{0}};
    int rc = -1;
    if (!PyArg_ParseTuple(item, "sO!U", &name, &PyList_Type, &texts, &source_text))
        return -1;
    Py_ssize_t n = PyList_GET_SIZE(texts);
    if (n > TEXTS_MAX) {
        PyErr_Format(PyExc_ValueError, "%U: a list of more than %u items", source_text, TEXTS_MAX);
        return -1;
    }
    keep = PyList_New(0);
    pointers = calloc((size_t)n + 1, sizeof *pointers);
    if (!keep || !pointers || !PyUnicode_FSConverter(source_text, &source)) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        goto out;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *bytes = NULL; /* new */
        if (!PyUnicode_FSConverter(PyList_GET_ITEM(texts, i), &bytes))
            goto out; /* a text with a NUL, too */
        pointers[i] = PyBytes_AS_STRING(bytes);
        int failed = PyList_Append(keep, bytes);
        Py_DECREF(bytes);
        if (failed)
            goto out;
    }
    if (conf_gunicorn_set(c, name, pointers, (unsigned)n, PyBytes_AS_STRING(source), &e))
        PyErr_SetObject(PyExc_ValueError, PyUnicode_DecodeFSDefault(e.text));
    else
        rc = 0;
out:
    free(pointers);
    Py_XDECREF(keep);
    Py_XDECREF(source);
    return rc;
}

static PyObject *bind_list(const struct conf *c)
{
    PyObject *out = PyList_New(0); /* new */
    for (unsigned i = 0; out && i < c->n_binds; i++) {
        PyObject *s = PyUnicode_DecodeFSDefault(c->binds[i].text); /* new */
        if (!s || PyList_Append(out, s))
            Py_CLEAR(out);
        Py_XDECREF(s);
    }
    return out;
}

PyObject *python_gunicorn_finish(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *object, *values; /* borrowed */
    if (!PyArg_ParseTuple(args, "OO!", &object, &PyList_Type, &values))
        return NULL;
    struct config_object *o = config_of(object);
    if (!o)
        return NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(values); i++)
        if (set_one(&o->conf, PyList_GET_ITEM(values, i)))
            return NULL;
    struct err e = {{0}};
    if (conf_finish(&o->conf, &e) || conf_policy_files_check(&o->conf, o->conf.chdir, &e)) {
        PyErr_SetObject(PyExc_ValueError, PyUnicode_DecodeFSDefault(e.text));
        return NULL;
    }
    char *said = NULL, *printed = NULL; /* malloc'ed by the streams */
    size_t said_n = 0, printed_n = 0;
    FILE *said_stream = open_memstream(&said, &said_n);
    FILE *printed_stream = open_memstream(&printed, &printed_n);
    PyObject *result = NULL;
    if (said_stream && printed_stream) {
        conf_notes(&o->conf, said_stream);
        conf_print(&o->conf, printed_stream);
    }
    int failed = !said_stream || fclose(said_stream);
    failed |= !printed_stream || fclose(printed_stream);
    if (failed)
        PyErr_NoMemory();
    else
        result = Py_BuildValue("{s:N,s:N,s:N,s:N,s:N,s:L,s:L}", "message",
                               PyUnicode_DecodeFSDefaultAndSize(said, (Py_ssize_t)said_n), "output",
                               PyUnicode_DecodeFSDefaultAndSize(printed, (Py_ssize_t)printed_n),
                               "environ", python_env_added(&o->conf), "binds", bind_list(&o->conf),
                               "app", PyUnicode_DecodeFSDefault(o->conf.app), "workers", (long long)o->conf.workers, "threads",
                               (long long)o->conf.threads.max);
    free(said);
    free(printed);
    return result;
}

PyObject *python_gunicorn_lead(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *object; /* borrowed */
    const char *name, *value;
    struct err e = {{0}};
    if (!PyArg_ParseTuple(args, "Oss", &object, &name, &value))
        return NULL;
    struct config_object *o = config_of(object);
    if (!o)
        return NULL;
    if (conf_set(&o->conf, name, value, NULL, &e)) {
        PyErr_SetString(PyExc_ValueError, e.text);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *python_gunicorn_title(PyObject *self, PyObject *args)
{
    (void)self;
    const char *role, *name;
    if (!PyArg_ParseTuple(args, "ss", &role, &name))
        return NULL;
    title_init();
    title_role(role, name, "");
    Py_RETURN_NONE;
}

PyObject *python_log(PyObject *self, PyObject *args)
{
    (void)self;
    int level;
    PyObject *text, *bytes; /* borrowed, new */
    if (!PyArg_ParseTuple(args, "iU", &level, &text))
        return NULL;
    if (level < LOG_DEBUG || level > LOG_CRITICAL) {
        PyErr_SetString(PyExc_ValueError, "a level is 0 (debug) to 4 (critical)");
        return NULL;
    }
    if (!(bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace")))
        return NULL;
    log_text((enum log_level)level, 0,
             slice_of(PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)));
    Py_DECREF(bytes);
    Py_RETURN_NONE;
}
