/*
 * python_module_watch: weir._core.Watch, proc/watch as Python sees it.
 *
 *   Watch() .add(folder) -> int   .wait(seconds) -> [(folder, name), …]   .close()
 *
 * Threads: waits without the GIL; one thread uses an object at a time.
 */
#include "python_module.h"

#include <errno.h>
#include <math.h>

#include "proc/watch.h"

/* What one call of wait returns at most; the rest comes with the next. */
static const Py_ssize_t EVENTS_MAX = 4096;

struct watch_object {
    PyObject_HEAD struct watch watch;
    bool ready; /* watch is open */
};

static PyObject *os_error(int rc, PyObject *path)
{
    errno = -rc;
    return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
}

static int watch_init_py(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct watch_object *o = (struct watch_object *)self;
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "", names))
        return -1;
    if (o->ready) {
        PyErr_SetString(PyExc_RuntimeError, "this watch is open already");
        return -1;
    }
    int rc = watch_open(&o->watch);
    if (rc) {
        os_error(rc, NULL);
        return -1;
    }
    o->ready = true;
    return 0;
}

static bool is_open(const struct watch_object *o)
{
    if (!o->ready)
        PyErr_SetString(PyExc_ValueError, "this watch is closed");
    return o->ready;
}

static PyObject *watch_add_py(PyObject *self, PyObject *args)
{
    struct watch_object *o = (struct watch_object *)self;
    PyObject *folder = NULL; /* new: bytes */
    if (!is_open(o) || !PyArg_ParseTuple(args, "O&", PyUnicode_FSConverter, &folder))
        return NULL;
    int id = watch_add(&o->watch, PyBytes_AS_STRING(folder));
    PyObject *result = id < 0 ? os_error(id, folder) : PyLong_FromLong(id);
    Py_DECREF(folder);
    return result;
}

/* Append (folder, name); -1 with an exception. */
static int append(PyObject *list, const struct watch_event *ev)
{
    PyObject *name = PyUnicode_DecodeFSDefault(ev->name); /* new */
    PyObject *pair =
        name ? Py_BuildValue("(iO)", ev->lost ? -1 : ev->folder, name) : NULL; /* new */
    int rc = pair ? PyList_Append(list, pair) : -1;
    Py_XDECREF(pair);
    Py_XDECREF(name);
    return rc;
}

static PyObject *watch_wait_py(PyObject *self, PyObject *args)
{
    struct watch_object *o = (struct watch_object *)self;
    double seconds;
    if (!is_open(o) || !PyArg_ParseTuple(args, "d", &seconds))
        return NULL;
    int timeout_ms = seconds <= 0 ? 0 : seconds > 3600 ? 3600000 : (int)ceil(seconds * 1000);
    PyObject *list = PyList_New(0); /* new */
    while (list && PyList_GET_SIZE(list) < EVENTS_MAX) {
        struct watch_event ev;
        int rc;
        Py_BEGIN_ALLOW_THREADS rc = watch_next(&o->watch, timeout_ms, &ev);
        Py_END_ALLOW_THREADS if (rc == 0) break;
        if (rc < 0 || append(list, &ev)) {
            if (rc < 0)
                os_error(rc, NULL);
            Py_CLEAR(list);
        }
        timeout_ms = 0;
    }
    return list;
}

static PyObject *watch_close_py(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct watch_object *o = (struct watch_object *)self;
    if (o->ready)
        watch_close(&o->watch);
    o->ready = false;
    Py_RETURN_NONE;
}

static void watch_dealloc(PyObject *self)
{
    Py_XDECREF(watch_close_py(self, NULL));
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef watch_methods[] = {
    {"add", watch_add_py, METH_VARARGS, "add(folder) -> number of the folder; OSError."},
    {"wait", watch_wait_py, METH_VARARGS,
     "wait(seconds) -> [(folder, name), …]: what changed, [] after the time; (-1, ''): look at "
     "everything."},
    {"close", watch_close_py, METH_NOARGS, "Give the descriptor back."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot watch_slots[] = {
    {Py_tp_init, watch_init_py},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, watch_dealloc},
    {Py_tp_methods, watch_methods},
    {Py_tp_doc, "Watch(): names that change in folders."},
    {0, NULL},
};

static PyType_Spec watch_spec = {
    .name = "weir._core.Watch",
    .basicsize = sizeof(struct watch_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = watch_slots,
};

int python_watch_init(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&watch_spec); /* new, given to the module */
    int rc = type ? PyModule_AddObjectRef(module, "Watch", type) : -1;
    Py_XDECREF(type);
    return rc;
}
