/*
 * threads: thread states, taking and releasing the GIL.
 *
 * A thread state is made in its own thread (so that PyGILState_Ensure in extension modules finds
 * it) and kept while the thread lives: Python code sees one thread with its locals, not a new one
 * for each request. PyThreadState_New needs no GIL, so starting a thread never waits for a busy
 * application.
 */
#include "wsgi/wsgi_private.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static int thread_start(struct app *a, void **local)
{
    struct wsgi *w = (struct wsgi *)a;
    struct wsgi_thread *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    t->ts = PyThreadState_New(w->interp);
    if (!t->ts) {
        free(t);
        return -ENOMEM;
    }
    /* Processes that the application starts inherit this: they must not be deaf to a terminate(). */
    pthread_sigmask(SIG_SETMASK, &w->signals, NULL);
    t->ident = PyThread_get_thread_ident();
    t->tid = (int32_t)gettid();
    t->number = 1 + atomic_fetch_add_explicit(&w->next_number, 1, memory_order_relaxed);
    *local = t;
    return 0;
}

/* threading knows a thread it has not started from its first current_thread() on, as "Dummy-N", and
 * would keep it for ever: under its identifier, which the system uses again. */
static void forget_dummy(struct wsgi *w)
{
    PyObject *active = PyObject_GetAttrString(w->threading, "_active");     /* new */
    PyObject *ident = PyLong_FromUnsignedLong(PyThread_get_thread_ident()); /* new */
    if (active && ident && PyDict_Check(active) && PyDict_Contains(active, ident) == 1)
        (void)PyDict_DelItem(active, ident);
    PyErr_Clear();
    Py_XDECREF(ident);
    Py_XDECREF(active);
}

static void thread_stop(struct app *a, void *local)
{
    struct wsgi *w = (struct wsgi *)a;
    struct wsgi_thread *t = local;
    PyEval_RestoreThread(t->ts);
    if (t->known) {
        forget_dummy(w);
        for (struct wsgi_thread **p = &w->threads; *p; p = &(*p)->next)
            if (*p == t) {
                *p = t->next;
                break;
            }
    }
    Py_CLEAR(t->start);
    for (unsigned i = 0; i < countof(t->last); i++)
        wsgi_template_clear(&t->last[i]);
    Py_CLEAR(t->gone);
    buf_fini(&t->line);
    PyThreadState_Clear(t->ts);
    PyThreadState_DeleteCurrent(); /* releases the GIL */
    free(t);
}

static void enter(struct app *a, void *local)
{
    (void)a;
    struct wsgi_thread *t = local;
    PyEval_RestoreThread(t->ts);
}

static void leave(struct app *a, void *local)
{
    (void)a;
    (void)local;
    (void)PyEval_SaveThread(); /* the same state as in `enter` */
}

void wsgi_threads_setup(struct wsgi *w)
{
    pthread_sigmask(SIG_SETMASK, NULL, &w->signals);
    w->app = (struct app){
        .thread_start = thread_start,
        .thread_stop = thread_stop,
        .enter = enter,
        .leave = leave,
        .run = wsgi_run,
        .inspect = wsgi_inspect,
        .inspect_late = wsgi_inspect_late,
    };
}

void wsgi_thread_introduce(struct wsgi *w, struct wsgi_thread *t)
{
    t->known = true;
    t->next = w->threads;
    w->threads = t;
    PyObject *self = PyObject_CallMethod(w->threading, "current_thread", NULL); /* new */
    PyObject *name = PyUnicode_FromFormat("weir-%u", t->number);                /* new */
    if (self && name)
        (void)PyObject_SetAttrString(self, "name", name);
    PyErr_Clear(); /* a name is a comfort */
    Py_XDECREF(name);
    Py_XDECREF(self);
}

struct wsgi_thread *wsgi_thread_here(const struct wsgi *w)
{
    const PyThreadState *here = PyThreadState_Get();
    for (struct wsgi_thread *t = w->threads; t; t = t->next)
        if (t->ts == here)
            return t;
    return NULL;
}
