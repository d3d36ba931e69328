/* gone: client_disconnected, a callable that is safe in any thread and at any time. */
#include "wsgi/wsgi_private.h"

struct gone {
    PyObject_HEAD vectorcallfunc call;
    struct wsgi_run *run; /* NULL once the request is over */
    bool last;            /* the answer from then on */
};

static PyObject *gone_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    (void)args;
    struct gone *g = (struct gone *)self;
    if (PyVectorcall_NARGS(nargsf) || (names && PyTuple_GET_SIZE(names))) {
        PyErr_SetString(PyExc_TypeError, "client_disconnected() takes no arguments");
        return NULL;
    }
    if (g->run)
        return PyBool_FromLong(g->run->client_gone || call_gone(g->run->c) || call_ends_early(g->run->c));
    return PyBool_FromLong(g->last);
}

static void gone_dealloc(PyObject *self)
{
    PyObject_Free(self);
}

PyTypeObject wsgi_gone_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "weir.client_disconnected",
    .tp_basicsize = sizeof(struct gone),
    .tp_dealloc = gone_dealloc,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(struct gone, call),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_doc = "client_disconnected() -> bool: has the client of this request left?",
};

PyObject *wsgi_gone_take(struct wsgi_run *run, Py_ssize_t others)
{
    struct gone *g = (struct gone *)run->t->gone;
    if (g && Py_REFCNT(g) == 1 + others) {
        Py_INCREF(g); /* one for the run beside the thread's */
    } else {
        Py_CLEAR(run->t->gone);
        g = PyObject_New(struct gone, &wsgi_gone_type); /* new */
        if (!g)
            return NULL;
        g->call = gone_call;
        run->t->gone = (PyObject *)g;
        Py_INCREF(g);
    }
    g->run = run;
    g->last = false;
    return (PyObject *)g;
}

void wsgi_gone_detach(PyObject *self)
{
    struct gone *g = (struct gone *)self;
    g->last = g->run->client_gone || call_gone(g->run->c);
    g->run = NULL;
}
