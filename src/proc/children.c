/* children: workers are made, counted, told to end. See supervisor_private.h. */
#include "proc/supervisor_private.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

/* A worker without a sign of life for so long is not well, where worker-timeout says nothing. */
static const int64_t SILENT_MS = 15000;

/* ---- counting ---- */

struct tally children_count(const struct supervisor *s, uint32_t generation)
{
    struct tally t = {0};
    for (unsigned i = 0; i < s->top; i++) {
        const struct child *c = s->children[i];
        if (!c || c->state == CHILD_RETIRING || c->generation != generation)
            continue;
        if (c->state == CHILD_BOOTING)
            t.booting++;
        else if (c->asks)
            t.asking++;
        else
            t.ready++;
    }
    return t;
}

unsigned supervisor_serving(const struct supervisor *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < s->top; i++)
        n += s->children[i] && s->children[i]->state == CHILD_READY;
    return n;
}

bool supervisor_is_well(const struct supervisor *s, int64_t now_ns)
{
    if (!s->started || s->stopping || !s->target)
        return true;
    int64_t timeout_ms = s->set.worker_timeout_ms ? s->set.worker_timeout_ms : SILENT_MS;
    for (unsigned i = 0; i < s->top; i++) {
        const struct child *c = s->children[i];
        if (!c || c->state != CHILD_READY)
            continue;
        int64_t beat_ns = atomic_load(&s->board->slots[c->slot].beat_ns);
        if (beat_ns == 0 || now_ns - beat_ns < timeout_ms * MS)
            return true;
    }
    return false;
}

/* ---- one worker ---- */

struct scoreboard_slot *child_slot(const struct supervisor *s, const struct child *c)
{
    return &s->board->slots[c->slot];
}

void child_signal(const struct child *c, int signo)
{
    if (c->pid > 0) /* it is ours until it has been waited for: the number is no one else's */
        (void)kill(c->pid, signo);
}

void child_end(struct child *c, bool quick, int64_t wait_ms)
{
    c->state = CHILD_RETIRING;
    c->kill_ns = clock_mono_ns() + wait_ms * MS;
    child_signal(c, quick && c->was_ready ? SIGQUIT : SIGTERM);
}

void child_retire(struct supervisor *s, struct child *c)
{
    /* Where something inside holds the interpreter's lock it cannot heed the signal: its loop shall
     * take no more connections, and give away what waits. */
    atomic_store(&child_slot(s, c)->held, 1);
    child_end(c, false, c->grace_ms + RETIRE_EXTRA_MS);
}

static void slot_clear(struct scoreboard_slot *slot)
{
    atomic_store(&slot->recycle, RECYCLE_NONE);
    atomic_store(&slot->held, 0);
    atomic_store(&slot->beat_ns, 0);
    atomic_store(&slot->places, 0);
    atomic_store(&slot->busy, 0);
    atomic_store(&slot->stuck, 0);
    atomic_store(&slot->waiting, 0);
    atomic_store(&slot->open, 0);
}

static void find_top(struct supervisor *s)
{
    while (s->top && !s->children[s->top - 1])
        s->top--;
    atomic_store(&s->board->top, s->top);
}

void child_forget(struct supervisor *s, struct child *c)
{
    struct scoreboard_slot *slot = child_slot(s, c);
    if (c->tell_fd >= 0)
        close(c->tell_fd);
    if (c->worker_fd >= 0)
        close(c->worker_fd);
    atomic_store(&slot->state, WORKER_DEAD);
    slot_clear(slot);
    atomic_store(&slot->pid, 0);
    atomic_store(&slot->state, WORKER_NONE);
    s->children[c->slot] = NULL;
    s->n_children--;
    find_top(s);
    free(c);
}

/* A worker that has not been forked yet, in the lowest free slot. NULL: there is none now. */
static struct child *child_new(struct supervisor *s, uint32_t generation)
{
    unsigned slot = 0;
    while (slot < s->board->n_slots && s->children[slot])
        slot++;
    int fds[2];
    struct child *c = slot < s->board->n_slots ? calloc(1, sizeof *c) : NULL;
    if (!c || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds)) {
        log_flood(LOG_ERROR, 0, "cannot start a worker: %s",
                  slot == s->board->n_slots ? "too many still end"
                  : c                       ? strerror(errno)
                                            : "out of memory");
        free(c);
        return NULL;
    }
    const struct supervisor_settings *set = generation == s->generation ? &s->set : &s->last;
    *c = (struct child){.slot = slot,
                        .age = ++s->ages,
                        .generation = generation,
                        .grace_ms = set->grace_ms,
                        .boot_ms = set->boot_timeout_ms,
                        .begun_ns = clock_mono_ns(),
                        .tell_fd = fds[0],
                        .worker_fd = fds[1]};
    struct scoreboard_slot *shared = child_slot(s, c);
    slot_clear(shared);
    atomic_fetch_add(&shared->generation, 1);
    atomic_store(&shared->age, c->age);
    atomic_store(&shared->born_ns, c->begun_ns);
    atomic_store(&shared->state, WORKER_BOOTING);
    atomic_fetch_add(&s->board->started, 1);
    s->children[slot] = c;
    s->n_children++;
    if (s->top <= slot)
        s->top = slot + 1;
    atomic_store(&s->board->top, s->top);
    return c;
}

/* In the worker: keep what is its own. */
static void child_become(struct supervisor *s, struct child *own)
{
    s->born = own;
    memset(s->keeps, 0, sizeof s->keeps); /* the supervisor's */
    close(own->tell_fd);
    own->tell_fd = -1;
    for (unsigned i = 0; i < s->top; i++) {
        struct child *c = s->children[i];
        if (!c || c == own)
            continue;
        if (c->tell_fd >= 0)
            close(c->tell_fd);
        s->children[i] = NULL;
        free(c);
    }
}

int64_t supervisor_wait(struct supervisor *s, int64_t first_ms, int64_t max_ms)
{
    int64_t wait_ms = first_ms;
    for (unsigned i = 1; i < s->young && wait_ms < max_ms; i++)
        wait_ms *= 2;
    if (wait_ms > max_ms)
        wait_ms = max_ms;
    s->young++;
    s->spawn_ns = clock_mono_ns() + wait_ms * MS;
    return wait_ms;
}

bool child_start(struct supervisor *s, uint32_t generation)
{
    struct child *c = child_new(s, generation);
    int64_t failed = -EAGAIN;
    if (c) {
        pid_t pid = s->ops->spawn(s->host, c);
        if (pid == 0) {
            child_become(s, c);
            return true;
        }
        if (pid > 0) {
            c->pid = pid == SPAWN_LATER ? 0 : pid;
            atomic_store(&child_slot(s, c)->pid, c->pid);
            close(c->worker_fd);
            c->worker_fd = -1;
            return true;
        }
        failed = pid;
        log_flood(LOG_ERROR, 0, "cannot start a worker: %s", strerror((int)-failed));
        child_forget(s, c);
    }
    if (!s->started) {
        s->status = 1;
        supervisor_stop(s, true);
    } else {
        (void)supervisor_wait(s, CRASH_WAIT_MS, CRASH_WAIT_MS_MAX);
    }
    return false;
}
