/* child_news: what workers tell, and their end. See supervisor_private.h. */
#include "proc/supervisor_private.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

/* ---- what a worker tells ---- */

static void look_at_slot(struct supervisor *s, struct child *c)
{
    struct scoreboard_slot *slot = child_slot(s, c);
    int32_t state = atomic_load(&slot->state);
    if (c->state == CHILD_BOOTING && (state == WORKER_READY || state == WORKER_DRAINING)) {
        c->state = CHILD_READY;
        c->was_ready = true;
        c->ready_ns = clock_mono_ns();
        if (c->reopen)
            child_signal(c, SIGUSR1);
        c->reopen = false;
    }
    if (c->state != CHILD_READY)
        return;
    int32_t why = atomic_load(&slot->recycle);
    if (why != RECYCLE_NONE && !c->asks) {
        c->asks = true;
        c->stuck = why == RECYCLE_STUCK;
        log_flood(LOG_INFO, 0, "replacing worker %d: %s", (int)c->pid,
                  recycle_text((enum recycle_reason)why));
        if (why > RECYCLE_NONE && why < RECYCLE_REASONS)
            atomic_fetch_add(&s->board->recycled[why], 1);
    }
    /* Somebody has sent it TERM: it will not come back, so another one can begin. */
    if (state == WORKER_DRAINING) {
        c->state = CHILD_RETIRING;
        c->unexpected = true;
        c->kill_ns = clock_mono_ns() + (c->grace_ms + RETIRE_EXTRA_MS) * MS;
    }
}

void child_hear(struct supervisor *s, struct child *c)
{
    char bytes[64];
    ssize_t n;
    bool any = false;
    while (c->tell_fd >= 0 && (n = read(c->tell_fd, bytes, sizeof bytes)) != -1) {
        any |= n > 0;
        if (n == 0) { /* SIGCHLD follows, unless it only closed its end */
            close(c->tell_fd);
            c->tell_fd = -1;
        }
    }
    if (any)
        look_at_slot(s, c);
}

void supervisor_look(struct supervisor *s)
{
    for (unsigned i = 0; i < s->top; i++)
        if (s->children[i] && s->children[i]->pid)
            look_at_slot(s, s->children[i]);
}

/* ---- the end of a worker ---- */

static void how_it_ended(char *out, size_t n, int status)
{
    if (WIFSIGNALED(status))
        snprintf(out, n, "was killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(out, n, "ended with exit code %d", WEXITSTATUS(status));
}

static bool told_by_worker(int status)
{
    return WIFEXITED(status) &&
           (WEXITSTATUS(status) == EXIT_BOOT_FAILED || WEXITSTATUS(status) == EXIT_APP_FAILED);
}

/* One that never was READY. */
static void boot_failed(struct supervisor *s, const struct child *c, int status)
{
    char how[128];
    how_it_ended(how, sizeof how, status);
    if (!told_by_worker(status))
        log_flood(LOG_ERROR, 0, "worker %d %s before it could serve", (int)c->pid, how);
    if (!s->started) {
        s->status = told_by_worker(status) ? WEXITSTATUS(status) : EXIT_BOOT_FAILED;
        supervisor_stop(s, true);
    } else if (is_reloading(s) && c->generation == s->generation) {
        log_line(LOG_ERROR, 0, "not reloaded: a new worker could not start; the old workers go on");
        supervisor_reloaded(s, false);
    } else if (c->generation == s->generation || c->generation == s->serving) {
        if (!s->young)
            s->young = 1; /* never at once */
        int64_t wait_ms = supervisor_wait(s, CRASH_WAIT_MS, CRASH_WAIT_MS_MAX);
        log_flood(LOG_ERROR, 0, "a worker could not start; %u serve; trying again in %.3g s",
                  supervisor_serving(s), (double)wait_ms / 1000);
    }
}

/* One that served, and was not told to end. */
static void crashed(struct supervisor *s, const struct child *c, int status)
{
    char how[128];
    how_it_ended(how, sizeof how, status);
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (c->generation != s->generation && c->generation != s->serving) {
        log_flood(LOG_ERROR, 0, "worker %d %s; %u serve", (int)c->pid, how,
                  supervisor_serving(s) - (c->state == CHILD_READY));
        return;
    }
    bool young = clock_mono_ns() - c->ready_ns < CRASH_YOUNG_MS * MS;
    int64_t wait_ms = 0;
    if (!young)
        s->young = 0;
    else if (s->young == 0)
        s->young = 1;
    else
        wait_ms =
            supervisor_wait(s, CRASH_WAIT_MS, killed ? KILLED_WAIT_MS_MAX : CRASH_WAIT_MS_MAX);
    atomic_fetch_add(&s->board->crashed, 1);
    bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    enum log_level level = well ? LOG_INFO : LOG_ERROR;
    if (wait_ms)
        log_flood(level, 0, "worker %d %s; starting another in %.3g s", (int)c->pid, how,
                  (double)wait_ms / 1000);
    else
        log_flood(level, 0, "worker %d %s; starting another", (int)c->pid, how);
}

static void child_ended(struct supervisor *s, struct child *c, int status)
{
    child_hear(s, c);
    bool told = c->state == CHILD_RETIRING && !c->unexpected;
    /* It asked for a replacement and did not wait for it (RECYCLE_RELOAD). */
    told |= c->asks && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (s->stopping) {
        if (c->was_ready && status != 0 && s->status == 0)
            s->status = 1;
    } else if (!told && c->was_ready) {
        crashed(s, c, status);
    } else if (!told) {
        boot_failed(s, c, status);
    }
    if (s->ops->exited)
        s->ops->exited(s->host, c, status);
    child_forget(s, c);
}

/* One that was left for later. */
static struct child *unborn(const struct supervisor *s, unsigned slot, uint32_t age)
{
    struct child *c = slot < s->top ? s->children[slot] : NULL;
    return c && c->age == age && c->pid == 0 ? c : NULL;
}

bool supervisor_born(struct supervisor *s, unsigned slot, uint32_t age, pid_t pid)
{
    struct child *c = unborn(s, slot, age);
    if (!c)
        return false;
    c->pid = pid;
    atomic_store(&child_slot(s, c)->pid, pid);
    if (c->state == CHILD_RETIRING) /* was told to end before it was */
        child_signal(c, SIGTERM);
    return true;
}

void supervisor_unborn(struct supervisor *s, unsigned slot, uint32_t age, int status)
{
    struct child *c = unborn(s, slot, age);
    if (c)
        child_ended(s, c, status);
}

void supervisor_unborn_all(struct supervisor *s, uint32_t generation, int status)
{
    for (unsigned i = 0; i < s->board->n_slots; i++) {
        struct child *c = s->children[i];
        if (c && c->pid == 0 && c->generation == generation)
            child_ended(s, c, status);
    }
}

static struct child *child_of(const struct supervisor *s, pid_t pid)
{
    for (unsigned i = 0; i < s->top; i++)
        if (s->children[i] && s->children[i]->pid == pid)
            return s->children[i];
    return NULL;
}

void children_reap(struct supervisor *s)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct child *c = child_of(s, pid);
        if (!c && s->ops->news) { /* its birth may not have been read yet */
            s->ops->news(s->host);
            c = child_of(s, pid);
        }
        if (c)
            child_ended(s, c, status);
        else if (keepers_reaped(s, pid, status))
            continue;
        else if (s->ops->stranger)
            s->ops->stranger(s->host, pid, status);
    }
}
