/*
 * python_module_template: --preload. A process that imports the application once and forks the
 * workers, so that they share its memory and the supervisor stays small.
 *
 * The template is a fork of the supervisor, made when the first worker is wanted, one for each
 * generation. It leaves supervisor_run as a worker does; weir._supervisor.template imports the
 * application, and template_next forks for each order. Orders that come before wait in its socket.
 * Workers are the supervisor's children (proc/adopt.h). When the template ends, what it has not
 * made yet has failed with it, and the next worker that is wanted makes another.
 */
#include "python_module.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "proc/adopt.h"
#include "proc/signals.h"
#include "proc/template.h"
#include "python_module_process.h"

/* Those that are read; the third is dead. */
enum { TEMPLATES_READ = 2 };
/* Another status than a worker's own: it was not told why. */
static const int STATUS_KILLED = SIGKILL;

static void forget(struct template_process *t)
{
    if (t->pid)
        close(t->end);
    *t = (struct template_process){0};
}

/* In a template or worker: the supervisor's ends. */
static void forget_all(struct supervisor_object *o)
{
    for (unsigned i = 0; i < countof(o->templates); i++)
        forget(&o->templates[i]);
}

void python_template_forget(struct supervisor_object *o)
{
    forget_all(o);
}

/* 0 in the template, its number in the supervisor, or a negative errno. */
static pid_t make(struct supervisor_object *o, uint32_t generation)
{
    int ends[2];
    int rc = template_pair(ends);
    if (!rc)
        rc = adopt_orphans();
    if (rc)
        return rc;
    PyOS_BeforeFork();
    pid_t pid = fork();
    int failed = errno;
    if (pid == 0) {
        PyOS_AfterFork_Child();
        forget_all(o);
        close(ends[0]);
        o->is_template = true;
        o->template_end = ends[1];
        return 0;
    }
    PyOS_AfterFork_Parent();
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return -failed;
    }
    o->templates[0] =
        (struct template_process){.pid = pid, .end = ends[0], .generation = generation};
    return pid;
}

static pid_t order(const struct template_process *t, const struct child *c)
{
    struct template_word w = {
        .kind = TEMPLATE_FORK, .slot = c->slot, .age = c->age, .grace_ms = c->grace_ms};
    int rc = template_send(t->end, &w, c->worker_fd);
    return rc ? rc : SPAWN_LATER;
}

/* Its template has the code that serves. Where it has died there is no such worker before the reload
 * is over. */
static pid_t spawn_old(const struct supervisor_object *o, const struct child *c)
{
    const struct template_process *t = &o->templates[1];
    return t->pid && t->generation == c->generation ? order(t, c) : -ESRCH;
}

pid_t python_template_spawn(struct supervisor_object *o, struct child *c)
{
    struct template_process *t = &o->templates[0];
    /* A worker of the configuration in use, while a reload is not over. */
    if (o->next_config && c->generation == o->supervisor->serving)
        return spawn_old(o, c);
    /* One of another generation has other settings (after a failed reload). */
    if (t->pid && t->generation != c->generation) {
        (void)kill(t->pid, SIGKILL);
        forget(t);
    }
    if (!t->pid) {
        pid_t pid = make(o, c->generation);
        if (pid <= 0) {
            if (pid == 0) { /* the worker's end is the worker's alone */
                close(c->worker_fd);
                c->worker_fd = -1;
            }
            return pid;
        }
    }
    return order(t, c);
}

unsigned python_template_fds(const struct supervisor_object *o, int fds[2])
{
    unsigned n = 0;
    for (unsigned i = 0; i < TEMPLATES_READ; i++)
        if (o->templates[i].pid)
            fds[n++] = o->templates[i].end;
    return n;
}

static void born(struct supervisor_object *o, const struct template_word *w)
{
    if (!supervisor_born(o->supervisor, w->slot, w->age, w->pid)) {
        (void)kill(w->pid, SIGTERM); /* nobody waits for it any more */
        return;
    }
    PyObject *worker = o->supervisor->children[w->slot]->data;                        /* borrowed */
    PyObject *r = PyObject_CallMethod(o->host, "spawned", "Oi", worker, (int)w->pid); /* new */
    if (!r)
        PyErr_WriteUnraisable(o->host);
    Py_XDECREF(r);
}

/* Read what one has sent; false: it has closed its end, and its death follows. */
static bool read_words(struct supervisor_object *o, const struct template_process *t)
{
    struct template_word w;
    int fd, rc;
    while ((rc = template_receive(t->end, &w, &fd)) > 0) {
        if (fd >= 0)
            close(fd);
        if (w.kind == TEMPLATE_FORKED)
            born(o, &w);
        else if (w.kind == TEMPLATE_FAILED)
            supervisor_unborn(o->supervisor, w.slot, w.age, STATUS_KILLED);
    }
    return rc < 0;
}

void python_template_news(struct supervisor_object *o)
{
    for (unsigned i = 0; i < TEMPLATES_READ; i++) {
        struct template_process *t = &o->templates[i];
        /* One that has closed its end and lives on is of no use. */
        if (t->pid && !read_words(o, t))
            (void)kill(t->pid, SIGKILL);
    }
}

void python_template_stranger(struct supervisor_object *o, pid_t pid, int status)
{
    for (unsigned i = 0; i < countof(o->templates); i++) {
        struct template_process *t = &o->templates[i];
        if (t->pid != pid)
            continue;
        (void)read_words(o, t);
        uint32_t generation = t->generation;
        forget(t);
        supervisor_unborn_all(o->supervisor, generation, status);
        return;
    }
}

/* End the template of a reload that is not over. Some of its workers may be on their way: they are told to
 * end, and its death says which will never be. */
static void drop(struct supervisor_object *o)
{
    struct template_process *dropped = &o->templates[2];
    if (!o->templates[0].pid)
        return;
    if (dropped->pid) { /* of one more reload before; all of its workers were told to end */
        uint32_t generation = dropped->generation;
        (void)read_words(o, dropped);
        forget(dropped);
        supervisor_unborn_all(o->supervisor, generation, STATUS_KILLED);
    }
    (void)kill(o->templates[0].pid, SIGKILL);
    *dropped = o->templates[0];
    o->templates[0] = (struct template_process){0};
}

void python_template_reload(struct supervisor_object *o, bool again)
{
    if (again) { /* what is in use stays */
        drop(o);
    } else {
        o->templates[1] = o->templates[0];
        o->templates[0] = (struct template_process){0};
    }
}

void python_template_reloaded(struct supervisor_object *o, bool ok)
{
    struct template_process *stays = &o->templates[ok ? 0 : 1];
    struct template_process *goes = &o->templates[ok ? 1 : 0];
    pid_t pid = goes->pid;
    uint32_t generation = goes->generation;
    if (pid) {
        (void)kill(pid, SIGKILL);
        (void)read_words(o, goes);
    }
    forget(goes);
    if (!ok) {
        o->templates[0] = *stays;
        o->templates[1] = (struct template_process){0};
    }
    if (pid)
        supervisor_unborn_all(o->supervisor, generation, STATUS_KILLED);
}

void python_template_overdue(struct supervisor_object *o, uint32_t generation)
{
    for (unsigned i = 0; i < TEMPLATES_READ; i++)
        if (o->templates[i].pid && o->templates[i].generation == generation)
            (void)kill(o->templates[i].pid, SIGKILL);
}

void python_template_end(struct supervisor_object *o)
{
    for (unsigned i = 0; i < countof(o->templates); i++)
        if (o->templates[i].pid)
            (void)kill(o->templates[i].pid, SIGKILL);
}

/* ---- in the template ---- */

PyObject *python_template_begin(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct supervisor_object *o = (struct supervisor_object *)self;
    static const int QUIET[] = {SIGHUP, SIGUSR1, SIGUSR2, SIGINT, SIGQUIT};
    for (size_t i = 0; i < countof(QUIET); i++) /* the supervisor tells it to end by other means */
        (void)signals_ignore(QUIET[i]);
    process_template(&python_process, o->next_config ? &o->next_config->conf : &o->config->conf);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    return PyBool_FromLong(getppid() == atomic_load(&o->supervisor->board->supervisor));
}

/* In the worker: what the order said. */
static PyObject *become_worker(struct supervisor_object *o, const struct template_word *w, int fd)
{
    struct err e;
    close(o->template_end);
    o->template_end = -1;
    o->is_template = false;
    /* The template keeps the files that were there when it was made: they may have been rotated. */
    if (log_reopen(&e))
        log_line(LOG_ERROR, 0, "%s", e.text);
    o->process.slot = w->slot;
    o->process.tell_fd = fd;
    o->process.grace_ms = w->grace_ms;
    Py_XSETREF(o->worker, Py_NewRef(Py_True)); /* the host makes its own object for it */
    return PyLong_FromUnsignedLong(w->age);
}

PyObject *python_template_next(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct supervisor_object *o = (struct supervisor_object *)self;
    const struct conf *c = o->next_config ? &o->next_config->conf : &o->config->conf;
    for (int64_t forked = 0;;) {
        struct template_word w;
        int fd, rc, go;
        Py_BEGIN_ALLOW_THREADS rc = template_receive(o->template_end, &w, &fd);
        Py_END_ALLOW_THREADS if (rc == -EPROTO) continue;
        if (rc <= 0)
            Py_RETURN_NONE;
        if (w.kind != TEMPLATE_FORK || fd < 0)
            continue;
        PyOS_BeforeFork();
        pid_t pid = adopt_fork(&go);
        if (pid == 0) {
            PyOS_AfterFork_Child();
            return become_worker(o, &w, fd);
        }
        PyOS_AfterFork_Parent();
        close(fd);
        w.kind = pid < 0 ? TEMPLATE_FAILED : TEMPLATE_FORKED;
        w.pid = pid;
        w.error = pid < 0 ? -(int32_t)pid : 0;
        rc = template_send(o->template_end, &w, -1);
        if (pid > 0 && rc == 0)
            adopt_let_go(&go);
        if (++forked == c->workers) /* those that are to say in the terminal why they cannot start */
            python_supervisor_tell(o, "all_forked");
        if (rc)
            Py_RETURN_NONE;
    }
}
