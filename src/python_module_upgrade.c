/*
 * python_module_upgrade: two supervisors for a while (USR2; proc/upgrade.h says what goes from one
 * to the other).
 *
 * The old one: upgrade_begin collects what is handed over, Python forks, the child calls
 * upgrade_pass and becomes the same command line again, the parent calls upgrade_started. When the
 * successor serves, a stop of this supervisor hands connections over and leaves files of sockets
 * alone; when the successor ends, all is as before.
 *
 * The new one: python_process.upgrade has what it was given; once the old supervisor has ended it
 * is the main one.
 */
#include "python_module.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "python_module_admin.h"
#include "python_module_process.h"

static bool predecessor_lives(void)
{
    return python_process.upgrade.old_pid && !upgrade_is_over(&python_process.upgrade);
}

bool python_upgrade_shares(const struct supervisor_object *o)
{
    return o->worker || o->is_template || o->successor || predecessor_lives();
}

void python_upgrade_close(const struct supervisor_object *o, struct sockets **s)
{
    if (python_upgrade_shares(o)) {
        sockets_forget(s);
        return;
    }
    /* Nobody else goes on with them: no client shall get in behind the workers' last look. */
    if (*s)
        listen_quench(&(*s)->set);
    sockets_close(s);
}

int python_upgrade_listen(struct supervisor_object *o, struct err *e)
{
    if (!python_process.upgrade.old_pid)
        return sockets_open(&o->sockets, &o->config->conf, o->config->fds, o->config->n_fds, NULL,
                            e);
    return sockets_take_over(&o->sockets, &o->config->conf, &python_process.upgrade, e);
}

void python_upgrade_join(struct supervisor_object *o)
{
    struct upgrade *u = &python_process.upgrade;
    if (!u->old_pid)
        return;
    if (u->hand_recv >= 0 && u->hand_send >= 0) {
        supervisor_use_hand(o->supervisor, u->hand_recv, u->hand_send);
        u->hand_recv = u->hand_send = -1;
        supervisor_neighbour(o->supervisor, u->old_pid);
    }
}

void python_upgrade_tick(struct supervisor_object *o)
{
    if (process_main(&python_process, &o->config->conf, supervisor_serving(o->supervisor)))
        supervisor_neighbour(o->supervisor, 0);
}

/* ---- the old one ---- */

static void stop_listening(struct supervisor_object *o)
{
    if (o->told_fd < 0)
        return;
    close(o->told_fd);
    o->told_fd = -1;
}

void python_upgrade_forget(struct supervisor_object *o)
{
    stop_listening(o);
    upgrade_free(&o->given);
}

/* The successor serves; or its end of the pipe is closed, and SIGCHLD follows. */
void python_upgrade_news(struct supervisor_object *o)
{
    char byte;
    ssize_t n = o->told_fd < 0 ? -1 : read(o->told_fd, &byte, 1);
    if (n < 0)
        return;
    stop_listening(o);
    if (n == 0)
        return;
    o->successor_ready = true;
    o->supervisor->upgrading = false;
    supervisor_neighbour(o->supervisor, o->successor);
    log_line(LOG_INFO, 0,
             "the new supervisor %d serves beside this one; TERM ends this one (%d), or the "
             "new one to go back",
             (int)o->successor, (int)getpid());
}

bool python_upgrade_stranger(struct supervisor_object *o, pid_t pid, int status)
{
    char how[64];
    if (!o->successor || pid != o->successor)
        return false;
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "was killed by signal %d", WTERMSIG(status));
    else
        snprintf(how, sizeof how, "ended with exit code %d", WEXITSTATUS(status));
    if (o->successor_ready)
        log_line(LOG_WARNING, 0, "the new supervisor %d %s; this one goes on", (int)pid, how);
    else
        log_line(LOG_ERROR, 0, "the new supervisor %d %s before it served; this one goes on",
                 (int)pid, how);
    o->successor = 0;
    o->successor_ready = false;
    o->supervisor->upgrading = false;
    supervisor_neighbour(o->supervisor, 0);
    stop_listening(o);
    return true;
}

static PyObject *refused(const char *why)
{
    PyErr_SetString(PyExc_OSError, why);
    return NULL;
}

static int collect(struct supervisor_object *o, struct upgrade *u)
{
    int ends[2];
    upgrade_init(u);
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return -errno;
    o->told_fd = ends[0];
    u->old_pid = getpid();
    u->ready_fd = ends[1];
    u->hand_recv = o->supervisor->hand_recv;
    u->hand_send = o->supervisor->hand_send;
    return sockets_hand_over(o->sockets, u) || python_admin_hand_over(o, u) ? -ENOMEM : 0;
}

PyObject *python_upgrade_begin(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct supervisor_object *o = (struct supervisor_object *)self;
    char text[128];
    if (o->successor)
        snprintf(text, sizeof text, "process %d, which the last one started, %s", (int)o->successor,
                 o->successor_ready ? "serves already" : "is not ready yet");
    else if (predecessor_lives())
        snprintf(text, sizeof text, "the supervisor before this one (%d) has not ended",
                 (int)python_process.upgrade.old_pid);
    else if (!o->supervisor->started || o->next_config)
        snprintf(text, sizeof text, "the server starts or reloads; send it again later");
    else
        text[0] = 0;
    if (*text)
        return refused(text);
    int rc = collect(o, &o->given);
    char *value = rc ? NULL : upgrade_write(&o->given);
    PyObject *result =
        value ? PyUnicode_DecodeFSDefault(value) : refused(strerror(rc ? -rc : ENOMEM));
    free(value);
    if (!result)
        python_upgrade_forget(o);
    return result;
}

PyObject *python_upgrade_pass(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct supervisor_object *o = (struct supervisor_object *)self;
    int rc = upgrade_let_through(&o->given);
    if (rc)
        return refused(strerror(-rc));
    Py_RETURN_NONE;
}

PyObject *python_upgrade_started(PyObject *self, PyObject *args)
{
    struct supervisor_object *o = (struct supervisor_object *)self;
    int pid;
    if (!PyArg_ParseTuple(args, "i", &pid))
        return NULL;
    upgrade_free(&o->given); /* closes the writing end: its own is the successor's */
    if (pid <= 0) {
        stop_listening(o);
        Py_RETURN_NONE;
    }
    o->successor = pid;
    o->supervisor->upgrading = true;
    log_line(LOG_INFO, 0, "USR2: starting a new supervisor (%d)", pid);
    Py_RETURN_NONE;
}
