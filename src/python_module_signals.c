/*
 * python_module_signals: signals of a run, beside those that Python handles.
 *
 * The main thread waits in Server.run. Any thread of the application may get a signal too. So
 * handlers only write to a descriptor, ours to proc/signals' pipe and Python's to its wake-up pipe,
 * and that ends the wait.
 */
#include "python_module.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "proc/signals.h"

static int g_wake_fds[2] = {-1,
                            -1}; /* a pipe; Python writes a byte for each signal that it notes */

static const int SIGNALS[] = {SIGTERM, SIGINT, SIGQUIT, SIGUSR1};

/* Is Ctrl-C still Python's KeyboardInterrupt? */
static bool interrupt_is_default(void)
{
    PyObject *module = PyImport_ImportModule("signal");                                    /* new */
    PyObject *now = module ? PyObject_CallMethod(module, "getsignal", "i", SIGINT) : NULL; /* new */
    PyObject *def = now ? PyObject_GetAttrString(module, "default_int_handler") : NULL;    /* new */
    bool same = def && now == def;
    Py_XDECREF(def);
    Py_XDECREF(now);
    Py_XDECREF(module);
    PyErr_Clear();
    return same;
}

/* Python's descriptor for signals that it notes: the one before, -1: none, -2: it cannot be set. An
 * exception that is set stays. */
static int wakeup_set(int fd)
{
    PyObject *type, *value, *trace; /* owned */
    PyErr_Fetch(&type, &value, &trace);
    PyObject *module = PyImport_ImportModule("signal");                                  /* new */
    PyObject *r = module ? PyObject_CallMethod(module, "set_wakeup_fd", "i", fd) : NULL; /* new */
    int before = r ? (int)PyLong_AsLong(r) : -2;
    Py_XDECREF(r);
    Py_XDECREF(module);
    PyErr_Restore(type, value, trace);
    return before;
}

/* In a child made by fork. Python keeps the end that it writes to: let that lead nowhere. */
static void drop_wake_fds(void)
{
    if (g_wake_fds[0] >= 0) {
        close(g_wake_fds[0]);
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC | O_NONBLOCK);
        if (null >= 0) {
            dup3(null, g_wake_fds[1], O_CLOEXEC);
            close(null);
        }
    }
    g_wake_fds[0] = g_wake_fds[1] = -1;
}

static void wake_open(struct python_signals *s)
{
    if (g_wake_fds[0] < 0 && pipe2(g_wake_fds, O_CLOEXEC | O_NONBLOCK))
        g_wake_fds[0] = g_wake_fds[1] = -1;
    int before = g_wake_fds[1] >= 0 ? wakeup_set(g_wake_fds[1]) : -2;
    s->wakes = before == -1;
    if (before >= 0) /* the program's own stays */
        (void)wakeup_set(before);
}

PyObject *python_signals_early(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    struct err e = {{0}};
    if (signals_early(&e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *python_signals_late(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    unsigned char numbers[256];
    size_t n = signals_read(numbers, sizeof numbers);
    signals_give_back();
    return PyBool_FromLong(memchr(numbers, SIGTERM, n) || memchr(numbers, SIGQUIT, n));
}

int python_signals_take(struct python_signals *s, bool own)
{
    struct err e = {{0}};
    bool interrupt = interrupt_is_default();
    signals_on_child(drop_wake_fds);
    if (signals_open(&e)) {
        PyErr_SetString(PyExc_OSError, e.text);
        return -1;
    }
    wake_open(s);
    for (size_t i = 0; i < countof(SIGNALS); i++) {
        struct sigaction old;
        if (sigaction(SIGNALS[i], NULL, &old))
            continue;
        bool free_to_take = own || old.sa_handler == SIG_DFL;
        if (SIGNALS[i] == SIGINT)
            free_to_take = own || interrupt;
        else if (!own && SIGNALS[i] == SIGUSR1)
            free_to_take = false;
        if (free_to_take)
            (void)signals_take(SIGNALS[i]);
    }
    return 0;
}

void python_signals_give_back(const struct python_signals *s)
{
    signals_give_back();
    if (s->wakes)
        (void)wakeup_set(-1);
}

int python_signals_wake_fd(const struct python_signals *s)
{
    return s->wakes ? g_wake_fds[0] : -1;
}

void python_signals_woken(void)
{
    char bytes[64];
    while (read(g_wake_fds[0], bytes, sizeof bytes) == sizeof bytes)
        ;
}
