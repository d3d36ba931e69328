/*
 * stacks: see the header.
 *
 * The order of a look: the lock; what the kernel says of all threads; the lock again, at least
 * LOOKS_APART_NS later; then the frames of each thread. For how long the lock is held can be told
 * only where somebody wants it: a holder that is asked to drop it cannot take it again before
 * another has had it. So when the same holder is seen twice, and it was asked to drop it at the
 * first time, it has held it all the time between.
 */
#include "wsgi/stacks.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/source.h"
#include "base/tasks.h"
#include "wsgi/frames.h"

static const int64_t LOOKS_APART_NS = 2000000;
/* A thread that waits for the lock wakes now and then to say so; it is looked at again. */
#define CALL_TRIES 3
/* A thread without its frames: as it usually is, and at most. */
#define THREAD_BYTES 512
#define THREAD_BYTES_MAX 4096
/* One frame at most: names and a line of source, each byte escaped. */
#define FRAME_BYTES_MAX ((size_t)36 * 1024)

/* What was seen of the lock the last time. There is one lock in a process, and so one of these. */
static struct {
    pthread_mutex_t mutex; /* also: one look at a time */
    pid_t pid;             /* a forked process has seen nothing */
    struct frames_lock lock;
    int64_t since_ns; /* from when on `lock` was held without a break; 0: not known */
} seen = {.mutex = PTHREAD_MUTEX_INITIALIZER};

struct look {
    struct peek peek;
    struct frames *frames;
    struct source *source;
    struct tasks tasks;
    struct task *tasks_seen; /* owned */
    unsigned n_tasks;
    const struct frames_thread *threads; /* lent by frames */
    unsigned n_threads;
    struct frames_lock lock;
    bool lock_known;
    int64_t held_ns; /* of it; 0: it cannot be told */
};

/* ---- the lock ---- */

static void look_lock(struct look *l)
{
    int64_t now_ns = clock_mono_ns();
    l->lock_known = frames_lock(l->frames, &l->lock);
    bool same = l->lock_known && l->lock.held && seen.lock.held &&
                l->lock.holder == seen.lock.holder && l->lock.number == seen.lock.number;
    if (!same || !seen.lock.wanted || !seen.since_ns)
        seen.since_ns = now_ns;
    seen.lock = l->lock;
    l->held_ns = now_ns - seen.since_ns;
}

static void wait_ns(int64_t ns)
{
    if (ns > 0)
        nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

/* ---- gather ---- */

static void end(struct look *l)
{
    free(l->tasks_seen);
    tasks_close(&l->tasks);
    source_free(&l->source);
    frames_free(&l->frames);
    peek_end(&l->peek);
}

static int begin(struct look *l)
{
    *l = (struct look){.tasks = {.fd = -1}};
    int rc = peek_begin(&l->peek, PEEK_CALL);
    if (rc)
        return rc;
    l->frames = frames_new(&l->peek);
    l->source = source_new();
    if (l->frames && l->source)
        return 0;
    end(l);
    return -ENOMEM;
}

/* The thread state of a thread that is worth a look: the lock's holder, one that runs Python. NULL:
 * none. */
static const struct frames_thread *state_of(const struct look *l, int32_t id)
{
    const struct frames_thread *best = NULL;
    for (unsigned i = 0; i < l->n_threads; i++) {
        const struct frames_thread *t = &l->threads[i];
        if (t->id != id)
            continue;
        if (l->lock.held && t->state == l->lock.holder)
            return t;
        if (!best || (t->in_python && !best->in_python))
            best = t;
    }
    return best;
}

static bool is_listed(const struct look *l, unsigned i)
{
    for (unsigned k = 0; k < i; k++)
        if (l->threads[k].id == l->threads[i].id)
            return true;
    return false;
}

/* What the kernel says; without /proc there are only numbers, of those that Python knows. */
static int look_tasks(struct look *l, int32_t thread)
{
    int rc = tasks_open(&l->tasks);
    unsigned room = rc ? l->n_threads : thread ? 1 : l->tasks.n;
    if (rc == -ENOMEM)
        return rc;
    l->tasks_seen = calloc(room + 1, sizeof *l->tasks_seen);
    if (!l->tasks_seen)
        return -ENOMEM;
    if (rc) {
        for (unsigned i = 0; i < l->n_threads; i++)
            if (!is_listed(l, i) && (!thread || thread == l->threads[i].id))
                l->tasks_seen[l->n_tasks++] = (struct task){.id = l->threads[i].id, .call = -1};
        return 0;
    }
    if (thread) {
        l->n_tasks = task_look(&l->tasks, thread, &l->tasks_seen[0]);
        return 0;
    }
    for (unsigned i = 0; i < l->tasks.n; i++)
        l->n_tasks += task_look(&l->tasks, l->tasks.ids[i], &l->tasks_seen[l->n_tasks]);
    return 0;
}

/* ---- what is told of a thread ---- */

/* "holds", "waits", "free"; NULL: it cannot be told. */
static const char *lock_word(const struct look *l, struct task *task,
                             const struct frames_thread *state)
{
    if (!l->lock_known)
        return NULL;
    for (unsigned i = 0; state && task->call_known && task->call < 0 && i < CALL_TRIES; i++)
        task_look_call(&l->tasks, task);
    if (frames_waits_for_lock(task_futex(task)))
        return "waits";
    if (state && l->lock.held && state->state == l->lock.holder)
        return "holds";
    if (!state || !state->in_python)
        return "free";
#ifdef __GLIBC__
    /* It waits for something else. One that runs may be on its way to the lock. */
    return task->call_known && task->call >= 0 ? "free" : NULL;
#else
    return NULL; /* where the C library waits for a condition cannot be told */
#endif
}

static void write_frames(struct json *j, struct look *l, const struct frame_stack *stack,
                         size_t limit, bool *cut)
{
    json_key(j, "frames");
    json_open(j, '[');
    for (unsigned i = 0; i < stack->n && !*cut; i++) {
        const struct frame_note *f = &stack->frames[i];
        struct slice line = source_line(l->source, f->file, f->line);
        *cut = j->out->n + FRAME_BYTES_MAX > limit;
        if (*cut)
            break;
        json_open(j, '{');
        json_key(j, "function");
        json_str(j, f->function);
        json_key(j, "file");
        json_str(j, f->file);
        json_key(j, "line");
        if (f->line)
            json_int(j, f->line);
        else
            json_none(j);
        json_key(j, "source");
        if (line.n)
            json_text(j, line);
        else
            json_none(j);
        json_close(j, '}');
    }
    json_close(j, ']');
}

/* `limit`: frames end where the text would be longer. */
static void write_thread(struct json *j, struct look *l, struct task *task, size_t limit)
{
    struct frame_stack stack WEIR_UNINITIALIZED;
    char waits[400];
    const struct frames_thread *state = state_of(l, task->id);
    const char *lock = lock_word(l, task, state);
    bool holds = lock && *lock == 'h', cut = false;
    stack.n = 0;
    stack.more = false;
    stack.complete = frames_known();
    if (state)
        frames_read(l->frames, state, &stack);
    json_open(j, '{');
    json_key(j, "thread");
    json_int(j, task->id);
    json_key(j, "name");
    json_str(j, task->name);
    json_key(j, "python");
    json_bool(j, state && (stack.n || state->in_python));
    json_key(j, "state");
    if (task->state)
        json_text(j, slice_of(&task->state, 1));
    else
        json_none(j);
    json_key(j, "cpu");
    json_seconds(j, task->cpu_ns);
    json_key(j, "waits_in");
    json_str(j, task_waits_in(task, &l->peek, waits, sizeof waits) ? waits : NULL);
    json_key(j, "lock");
    json_str(j, lock);
    json_key(j, "lock_for");
    if (holds && l->held_ns)
        json_seconds(j, l->held_ns);
    else
        json_none(j);
    if (!frames_known()) {
        json_key(j, "error");
        json_str(j, frames_unknown());
    }
    write_frames(j, l, &stack, limit, &cut);
    json_key(j, "more_frames");
    json_bool(j, stack.more || cut);
    json_key(j, "complete");
    json_bool(j, stack.complete);
    json_close(j, '}');
}

static int look_all(struct look *l, struct buf *out, int32_t thread)
{
    size_t limit = out->max ? out->max : STACKS_BYTES_MAX;
    int64_t begun_ns = clock_mono_ns();
    look_lock(l);
    l->threads = frames_threads(l->frames, &l->n_threads);
    int rc = look_tasks(l, thread);
    if (rc)
        return rc;
    if (l->lock.held)
        wait_ns(LOOKS_APART_NS - (clock_mono_ns() - begun_ns));
    look_lock(l);
    struct json j = json_begin(out);
    json_open(&j, '[');
    for (unsigned i = 0; i < l->n_tasks && !j.error; i++) {
        size_t rest = (size_t)(l->n_tasks - i) * THREAD_BYTES;
        if (out->n + THREAD_BYTES_MAX > limit)
            break;
        write_thread(&j, l, &l->tasks_seen[i], rest < limit ? limit - rest : 0);
    }
    json_close(&j, ']');
    return json_end(&j);
}

int wsgi_stacks(struct buf *out, int32_t thread)
{
    struct look l;
    pthread_mutex_lock(&seen.mutex);
    if (seen.pid != getpid()) {
        seen.pid = getpid();
        seen.lock = (struct frames_lock){0};
    }
    int rc = begin(&l);
    if (!rc) {
        rc = look_all(&l, out, thread);
        end(&l);
    }
    pthread_mutex_unlock(&seen.mutex);
    return rc;
}

/* A frame of a traceback, at most `size` bytes with its NUL; its length, were there room. */
static size_t traceback_frame(struct look *l, const struct frame_note *f, char *to, size_t size)
{
    struct slice line = source_line(l->source, f->file, f->line);
    int n = snprintf(to, size, "\n  File \"%s\", line %d, in %s%s%.*s", f->file, f->line,
                     f->function, line.n ? "\n    " : "", (int)line.n, line.n ? line.p : "");
    return n > 0 ? (size_t)n : 0;
}

static int add_traceback(struct look *l, struct buf *out, int32_t thread)
{
    static const char CUT[] = "\n  (older frames are left out)";
    struct frame_stack stack WEIR_UNINITIALIZED;
    l->threads = frames_threads(l->frames, &l->n_threads);
    const struct frames_thread *state = state_of(l, thread);
    if (!state)
        return 0;
    frames_read(l->frames, state, &stack);
    /* The oldest one that has room, counted from the newest. */
    size_t room = (out->max ? out->max : STACKS_BYTES_MAX) - out->n, need = sizeof CUT;
    unsigned n = 0;
    for (; n < stack.n; n++) {
        need += traceback_frame(l, &stack.frames[n], NULL, 0) + 1;
        if (need > room)
            break;
    }
    int rc = n && (stack.more || n < stack.n) ? buf_add_slice(out, SLICE(CUT)) : 0;
    while (n-- > 0 && !rc) {
        size_t size = traceback_frame(l, &stack.frames[n], NULL, 0) + 1;
        rc = buf_reserve(out, size);
        if (!rc)
            out->n += traceback_frame(l, &stack.frames[n], out->p + out->n, size);
    }
    return rc;
}

int wsgi_stacks_traceback(struct buf *out, int32_t thread)
{
    struct look l;
    int rc = begin(&l);
    if (rc)
        return rc;
    rc = add_traceback(&l, out, thread);
    end(&l);
    return rc;
}
