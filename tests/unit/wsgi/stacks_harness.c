/*
 * stacks_harness: an extension module that looks at the stacks of its process, in a thread that
 * Python knows nothing of.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json_read.h"
#include "wsgi/stacks.h"

struct job {
    struct buf out;
    int32_t thread;
    bool traceback;
    long looks;
    long pause_us; /* after each */
    int rc;
    long broken;    /* looks whose text is no JSON */
    int64_t *times; /* of each; or NULL */
};

static void *job_main(void *arg)
{
    struct job *j = arg;
    for (long i = 0; i < j->looks && !j->rc; i++) {
        int64_t begin_ns = clock_mono_ns();
        j->out.n = 0;
        j->rc = j->traceback ? wsgi_stacks_traceback(&j->out, j->thread)
                             : wsgi_stacks(&j->out, j->thread);
        if (j->times)
            j->times[i] = clock_mono_ns() - begin_ns;
        if (!j->traceback && !json_whole(buf_slice(&j->out)))
            j->broken++;
        if (j->pause_us)
            usleep((useconds_t)j->pause_us);
    }
    return NULL;
}

/* The job in a thread of its own; `hold`: this thread keeps the GIL meanwhile. */
static int job_run(struct job *j, int hold)
{
    pthread_t t;
    int rc;
    if (hold) {
        rc = pthread_create(&t, NULL, job_main, j);
        if (!rc)
            pthread_join(t, NULL);
    } else {
        Py_BEGIN_ALLOW_THREADS
        rc = pthread_create(&t, NULL, job_main, j);
        if (!rc)
            pthread_join(t, NULL);
        Py_END_ALLOW_THREADS
    }
    rc = rc ? rc : -j->rc;
    if (rc) {
        errno = rc;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return rc ? -1 : 0;
}

static PyObject *look(PyObject *self, PyObject *args)
{
    struct job j = {.looks = 1};
    int hold = 0, traceback = 0;
    Py_ssize_t max = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "|ippn", &j.thread, &hold, &traceback, &max))
        return NULL;
    j.out.max = (size_t)max;
    j.traceback = traceback;
    PyObject *out = NULL;
    if (!job_run(&j, hold))
        out = PyBytes_FromStringAndSize(j.out.p, (Py_ssize_t)j.out.n);
    buf_fini(&j.out);
    return out;
}

/* many(n, hold, pause_us): look n times; (looks that were no JSON, the last one, nanoseconds of each). */
static PyObject *many(PyObject *self, PyObject *args)
{
    struct job j = {0};
    int hold = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "l|pl", &j.looks, &hold, &j.pause_us))
        return NULL;
    j.times = calloc((size_t)j.looks, sizeof *j.times);
    PyObject *out = NULL, *times = j.times ? PyList_New(j.looks) : NULL;
    if (times && !job_run(&j, hold)) {
        for (long i = 0; i < j.looks; i++)
            PyList_SET_ITEM(times, i, PyLong_FromLongLong(j.times[i]));
        out = Py_BuildValue("ly#O", j.broken, j.out.p, (Py_ssize_t)j.out.n, times);
    }
    Py_XDECREF(times);
    free(j.times);
    buf_fini(&j.out);
    return out;
}

static PyMethodDef methods[] = {
    {"look", look, METH_VARARGS, ""},
    {"many", many, METH_VARARGS, ""},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "stacks_harness", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_stacks_harness(void)
{
    return PyModule_Create(&def);
}
