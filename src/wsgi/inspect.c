/*
 * inspect: where is the thread of a run that takes too long, and shall it be interrupted?
 *
 * The loop asks and goes on; a thread of its own waits for the GIL, which somebody may hold for
 * long. It is started with the first ask. With the GIL it finds the thread that is inside that
 * call, sets the exception and notes the frames; without the GIL it reads the lines of source and
 * writes the entry. No Python code runs in it, nothing is imported, and nothing of the
 * application's is called.
 *
 * Where the GIL is not to be had within a second, another thread, which needs none, reads the
 * frames as they lie in memory (wsgi/stacks.h).
 *
 * Interrupting: PyThreadState_SetAsyncExc makes the thread raise weir.DeadlineExceeded at its next
 * bytecode. That must hit this call and nothing else. So the run has a window, changed under the
 * GIL alone, which is open while the application's code is called: the application, its iterable,
 * close(). The exception is set only while it is open, once a run, and is taken back where it
 * closes: what comes then (the log, the end of the objects, the next request) cannot get it. A run
 * whose id is another is not touched.
 *
 * Order of locks: the GIL, then `lock`; nobody who has `lock` waits for anything.
 * Processes that the application forks have no such thread: `pid` tells.
 */
#include "wsgi/wsgi_private.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/must.h"
#include "base/peek.h"
#include "wsgi/stacks.h"

/* Asks that wait for the GIL. */
#define ASKS_MAX 32
/* Frames of one entry, the newest, and what is shown of each. */
#define FRAMES_MAX 64
#define FILE_BYTES_MAX 400
#define NAME_BYTES_MAX 120
#define SOURCE_BYTES_MAX 160
/* One entry. */
#define ENTRY_BYTES_MAX (16 * 1024)
/* A line of source further behind in its file is not looked for. */
#define SOURCE_FILE_BYTES_MAX (4 * 1024 * 1024)
/* Application threads that are gone through without the GIL. */
#define THREADS_MAX 4096

struct frame_note {
    int line;
    char file[FILE_BYTES_MAX];
    char name[NAME_BYTES_MAX];
};

struct wsgi_inspector {
    struct wsgi *w; /* lent */
    pthread_t thread;
    pid_t pid; /* the process that has the thread */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop;                         /* under lock */
    bool broken;                       /* under lock: its thread could not begin */
    unsigned first, n;                 /* under lock: of asks, a ring */
    struct inspect_ask asks[ASKS_MAX]; /* under lock */
    pthread_t late_thread;             /* with has_late */
    bool has_late;                     /* the loop's */
    unsigned first_late, n_late;       /* under lock: as the asks, of those that had no GIL */
    struct inspect_ask lates[ASKS_MAX];

    /* the thread's own */
    PyThreadState *ts;
    struct frame_note frames[FRAMES_MAX]; /* newest first */
    unsigned n_frames;
    bool more_frames; /* older ones were left out */
    char entry[ENTRY_BYTES_MAX];
};

/* ---- the window for an interrupt ---- */

PyObject *wsgi_deadline_exceeded;

int wsgi_inspect_init(PyObject *module)
{
    if (!wsgi_deadline_exceeded)
        wsgi_deadline_exceeded = PyErr_NewExceptionWithDoc(
            "weir.DeadlineExceeded",
            "Raised in a request whose deadline has passed, where `on_deadline: interrupt` asks "
            "for it.\n\n"
            "No subclass of Exception, as KeyboardInterrupt is none: `except Exception` around a "
            "call that\n"
            "is tried again must not swallow it. Let it pass, or clean up and raise it again.",
            PyExc_BaseException, NULL); /* new, kept */
    if (!wsgi_deadline_exceeded)
        return -1;
    return PyModule_AddObjectRef(module, "DeadlineExceeded", wsgi_deadline_exceeded);
}

void wsgi_window_shut_slowly(struct wsgi_run *run)
{
    /* Sets and takes back under one GIL: what was set and has not been raised yet is gone now. */
    PyThreadState_SetAsyncExc(run->t->ident, NULL);
    run->may_raise = false;
}

/* ---- with the GIL ---- */

static struct wsgi_thread *thread_of_call(const struct wsgi *w, uint64_t id)
{
    for (struct wsgi_thread *t = w->threads; t; t = t->next)
        if (t->run && t->run->c->id == id)
            return t;
    return NULL;
}

static void copy_text(char *to, size_t size, PyObject *text)
{
    Py_ssize_t n = 0;
    const char *p = text && PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, &n) : NULL;
    if (!p)
        PyErr_Clear(); /* a name that is no UTF-8 */
    snprintf(to, size, "%s", p ? p : "?");
}

/* Note the frames of a thread, newest first. */
static void note_frames(struct wsgi_inspector *in, PyThreadState *ts)
{
    PyFrameObject *f = PyThreadState_GetFrame(ts); /* new or NULL */
    while (f && in->n_frames < FRAMES_MAX) {
        struct frame_note *note = &in->frames[in->n_frames++];
        PyCodeObject *code = PyFrame_GetCode(f); /* new */
        note->line = PyFrame_GetLineNumber(f);
        copy_text(note->file, sizeof note->file, code->co_filename);
        copy_text(note->name, sizeof note->name, code->co_name);
        Py_DECREF(code);
        PyFrameObject *older = PyFrame_GetBack(f); /* new or NULL */
        Py_DECREF(f);
        f = older;
    }
    in->more_frames = f != NULL;
    Py_XDECREF(f);
}

/* False: no thread is inside that call any more. */
static bool look_gil(struct wsgi_inspector *in, const struct inspect_ask *ask)
{
    struct wsgi_thread *t = thread_of_call(in->w, ask->id);
    in->n_frames = 0;
    in->more_frames = false;
    if (!t)
        return false;
    if (ask->interrupt && t->run->window && !t->run->interrupted) {
        t->run->interrupted = t->run->may_raise = true;
        PyThreadState_SetAsyncExc(t->ident, wsgi_deadline_exceeded);
    }
    if (!ask->log)
        return true;
    /* Making frame objects must not start the collector: it would call the application, and lose
     * the GIL. */
    int collects = PyGC_Disable();
    note_frames(in, t->ts);
    if (collects)
        PyGC_Enable();
    return true;
}

/* ---- without the GIL ---- */

/* Line `number` of a file, without blanks around it; empty where it cannot be had cheaply. */
static void read_source(const char *path, int number, char out[SOURCE_BYTES_MAX])
{
    char piece[4096];
    size_t n = 0, total = 0;
    int line = 1;
    struct stat st;
    out[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return;
    bool over = number < 1 || fstat(fd, &st) || !S_ISREG(st.st_mode);
    while (!over) {
        ssize_t got = read(fd, piece, sizeof piece);
        if (got <= 0 || total > SOURCE_FILE_BYTES_MAX)
            break;
        total += (size_t)got;
        for (ssize_t i = 0; i < got && !over; i++) {
            char c = piece[i];
            if (c == '\n') {
                over = ++line > number;
            } else if (line == number && (n || (c != ' ' && c != '\t'))) {
                out[n++] = c;
                over = n == SOURCE_BYTES_MAX - 1;
            }
        }
    }
    close(fd);
    while (n && (out[n - 1] == ' ' || out[n - 1] == '\t' || out[n - 1] == '\r'))
        n--;
    /* Not in the middle of a character. */
    while (n && n + 1 >= SOURCE_BYTES_MAX && ((unsigned char)out[n - 1] & 0xC0) == 0x80)
        n--;
    out[n] = '\0';
}

/* One frame as text; its length. */
static size_t frame_text(const struct frame_note *f, char *to, size_t size)
{
    char source[SOURCE_BYTES_MAX];
    read_source(f->file, f->line, source);
    int n = snprintf(to, size, "\n  File \"%s\", line %d, in %s%s%s", f->file, f->line, f->name,
                     *source ? "\n    " : "", source);
    return (size_t)n < size ? (size_t)n : size - 1;
}

static void write_entry(const struct wsgi *w, uint64_t id, const char *text)
{
    if (w->log)
        w->log(LOG_WARNING, id, text);
    else
        log_text(LOG_WARNING, id, slice_str(text));
}

/* The text, and the frames like a traceback, newest last. What does not fit are the oldest. */
static void write_frames(struct wsgi_inspector *in, const struct inspect_ask *ask)
{
    static const char CUT[] = "\n  (older frames are left out)";
    static const char TITLE[] = "\nStack of its thread (most recent call last):";
    char head[sizeof ask->text + sizeof TITLE + sizeof CUT];
    char text[FILE_BYTES_MAX + NAME_BYTES_MAX + SOURCE_BYTES_MAX + 64];
    size_t at = sizeof in->entry - 1;
    in->entry[at] = '\0';
    unsigned i = 0;
    for (; i < in->n_frames; i++) {
        size_t n = frame_text(&in->frames[i], text, sizeof text);
        if (n + sizeof head > at)
            break;
        at -= n;
        memcpy(in->entry + at, text, n);
    }
    int n = snprintf(head, sizeof head, "%s%s%s", ask->text, TITLE,
                     in->more_frames || i < in->n_frames ? CUT : "");
    must(n > 0 && (size_t)n < sizeof head && (size_t)n <= at);
    at -= (size_t)n;
    memcpy(in->entry + at, head, (size_t)n);
    write_entry(in->w, ask->id, in->entry + at);
}

static void write_without(const struct wsgi *w, const struct inspect_ask *ask, const char *why)
{
    char text[sizeof ask->text + 128];
    snprintf(text, sizeof text, "%s; %s", ask->text, why);
    write_entry(w, ask->id, text);
}

/* ---- asks ---- */

static bool take_ask(struct wsgi_inspector *in, struct inspect_ask *out)
{
    pthread_mutex_lock(&in->lock);
    bool some = in->n > 0;
    if (some) {
        *out = in->asks[in->first];
        in->first = (in->first + 1) % ASKS_MAX;
        in->n--;
    }
    pthread_mutex_unlock(&in->lock);
    return some;
}

/* Wait for an ask, which stays; false: the end. */
static bool wait_ask(struct wsgi_inspector *in)
{
    pthread_mutex_lock(&in->lock);
    while (!in->n && !in->stop)
        pthread_cond_wait(&in->changed, &in->lock);
    bool go_on = !in->stop;
    pthread_mutex_unlock(&in->lock);
    return go_on;
}

static void *inspector_main(void *arg)
{
    struct wsgi_inspector *in = arg;
    in->ts = PyThreadState_New(in->w->interp); /* needs no GIL */
    if (!in->ts) {
        pthread_mutex_lock(&in->lock);
        in->broken = true;
        pthread_mutex_unlock(&in->lock);
        return NULL;
    }
    while (wait_ask(in)) {
        struct inspect_ask ask = {.log = false};
        bool some, found = false;
        /* The ask is taken with the GIL, so that whoever finds it waiting knows that the GIL was
         * not to be had. Interrupts need it once for all of them. */
        PyEval_RestoreThread(in->ts);
        while ((some = take_ask(in, &ask))) {
            found = look_gil(in, &ask);
            if (ask.log)
                break;
        }
        (void)PyEval_SaveThread();
        if (!some)
            continue;
        if (in->n_frames)
            write_frames(in, &ask);
        else
            write_without(in->w, &ask,
                          found ? "its thread runs no Python code" : "its thread is back now");
    }
    PyEval_RestoreThread(in->ts);
    PyThreadState_Clear(in->ts);
    PyThreadState_DeleteCurrent(); /* releases the GIL */
    return NULL;
}

/* ---- where the GIL is not to be had ---- */

/* The kernel's number of the thread that is inside a call; 0: none is, or the list changed. What is
 * read belongs to who has the GIL, so only by safe reads. */
static int32_t thread_of_late(const struct wsgi *w, uint64_t id)
{
    struct peek p;
    uintptr_t at = 0;
    int32_t found = 0;
    if (peek_begin(&p, PEEK_CALL))
        return 0;
    int rc = peek(&p, &at, (uintptr_t)&w->threads, sizeof at);
    for (unsigned i = 0; !rc && at && !found && i < THREADS_MAX; i++) {
        struct wsgi_thread t WEIR_UNINITIALIZED;
        uintptr_t call = 0;
        uint64_t its_id = 0;
        rc = peek(&p, &t, at, sizeof t);
        if (!rc && t.run &&
            !peek(&p, &call, (uintptr_t)t.run + offsetof(struct wsgi_run, c), sizeof call) &&
            !peek(&p, &its_id, call + offsetof(struct call, id), sizeof its_id) && its_id == id)
            found = t.tid;
        at = rc ? 0 : (uintptr_t)t.next;
    }
    peek_end(&p);
    return found;
}

static void write_late(const struct wsgi *w, const struct inspect_ask *ask)
{
    struct buf text = {.max = ENTRY_BYTES_MAX - 1};
    int32_t thread = thread_of_late(w, ask->id);
    int rc = buf_addf(&text,
                      "%s; the interpreter lock was not to be had for 1 s\n"
                      "Stack of its thread (most recent call last):",
                      ask->text);
    size_t before = text.n;
    if (!rc && thread)
        (void)!wsgi_stacks_traceback(&text, thread);
    if (rc || text.n == before || buf_add(&text, "", 1))
        write_without(w, ask,
                      "where its thread is cannot be told: code in C has not given up the "
                      "interpreter lock for 1 s");
    else
        write_entry(w, ask->id, text.p);
    buf_fini(&text);
}

static void *late_main(void *arg)
{
    struct wsgi_inspector *in = arg;
    for (;;) {
        struct inspect_ask ask;
        pthread_mutex_lock(&in->lock);
        while (!in->n_late && !in->stop)
            pthread_cond_wait(&in->changed, &in->lock);
        bool go_on = in->n_late > 0; /* what was asked is said, also at the end */
        if (go_on) {
            ask = in->lates[in->first_late];
            in->first_late = (in->first_late + 1) % ASKS_MAX;
            in->n_late--;
        }
        pthread_mutex_unlock(&in->lock);
        if (!go_on)
            return NULL;
        write_late(in->w, &ask);
    }
}

static bool start_thread(pthread_t *thread, void *(*run)(void *), void *arg)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for other threads */
    int rc = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return !rc;
}

/* NULL: no memory, or no thread. */
static struct wsgi_inspector *start(struct wsgi *w)
{
    struct wsgi_inspector *in = calloc(1, sizeof *in);
    if (!in)
        return NULL;
    in->w = w;
    in->pid = getpid();
    pthread_mutex_init(&in->lock, NULL);
    pthread_cond_init(&in->changed, NULL);
    if (start_thread(&in->thread, inspector_main, in))
        return in;
    pthread_cond_destroy(&in->changed);
    pthread_mutex_destroy(&in->lock);
    free(in);
    return NULL;
}

bool wsgi_inspect(struct app *a, const struct inspect_ask *ask)
{
    struct wsgi *w = (struct wsgi *)a;
    if (!w->inspector)
        w->inspector = start(w);
    struct wsgi_inspector *in = w->inspector;
    if (!in)
        return false;
    pthread_mutex_lock(&in->lock);
    bool room = in->n < ASKS_MAX && !in->broken;
    if (room)
        in->asks[(in->first + in->n++) % ASKS_MAX] = *ask;
    pthread_cond_broadcast(&in->changed); /* two threads wait for it */
    pthread_mutex_unlock(&in->lock);
    return room;
}

/* Take the text of an ask of this call that still waits; false: none does. */
static bool take_late(struct wsgi_inspector *in, uint64_t id, struct inspect_ask *out)
{
    bool found = false;
    pthread_mutex_lock(&in->lock);
    for (unsigned i = 0; i < in->n && !found; i++) {
        struct inspect_ask *ask = &in->asks[(in->first + i) % ASKS_MAX];
        found = ask->id == id && ask->log;
        if (found) {
            *out = *ask;
            ask->log = false; /* it still interrupts */
        }
    }
    pthread_mutex_unlock(&in->lock);
    return found;
}

void wsgi_inspect_late(struct app *a, uint64_t id)
{
    struct wsgi_inspector *in = ((struct wsgi *)a)->inspector;
    struct inspect_ask late;
    /* More than one, where it is slow and then over its time. */
    while (in && take_late(in, id, &late)) {
        if (!in->has_late)
            in->has_late = start_thread(&in->late_thread, late_main, in);
        pthread_mutex_lock(&in->lock);
        bool room = in->has_late && in->n_late < ASKS_MAX;
        if (room)
            in->lates[(in->first_late + in->n_late++) % ASKS_MAX] = late;
        pthread_cond_broadcast(&in->changed);
        pthread_mutex_unlock(&in->lock);
        if (!room)
            write_without(in->w, &late,
                          "where its thread is cannot be told: code in C has not given up the "
                          "interpreter lock for 1 s");
    }
}

void wsgi_inspect_stop(struct wsgi *w)
{
    struct wsgi_inspector *in = w->inspector;
    w->inspector = NULL;
    if (!in || in->pid != getpid())
        return; /* a forked process has no thread to wait for, and maybe a lock that nobody opens */
    pthread_mutex_lock(&in->lock);
    in->stop = true;
    pthread_cond_broadcast(&in->changed);
    pthread_mutex_unlock(&in->lock);
    Py_BEGIN_ALLOW_THREADS /* it ends with the GIL */
        pthread_join(in->thread, NULL);
    if (in->has_late)
        pthread_join(in->late_thread, NULL);
    Py_END_ALLOW_THREADS pthread_cond_destroy(&in->changed);
    pthread_mutex_destroy(&in->lock);
    free(in);
}
