/* supervisor: see the header. */
#include "proc/supervisor.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "proc/signals.h"

static const int64_t MS = 1000000;

/* Slots: a whole generation beside the old one, room for TTIN, and some whose workers still drain. */
static const unsigned SLOTS_MIN = 128;
static const unsigned SLOTS_PER_WORKER = 4;
/* The signs of life are looked at no more often than this. */
static const int64_t BEAT_MS_MIN = 1000;

static const int SIGNALS[] = {SIGHUP,  SIGUSR1, SIGUSR2, SIGTTIN,  SIGTTOU,
                              SIGTERM, SIGINT,  SIGQUIT, SIGWINCH, SIGCHLD};

static int64_t soonest(int64_t a, int64_t b)
{
    return a == 0 || (b && b < a) ? b : a;
}

static bool is_reloading(const struct supervisor *s)
{
    return s->generation != s->serving;
}

/* ---- counting ---- */

/* Workers by what they are to the target. */
struct tally {
    unsigned booting, ready; /* of the newest generation, not asking */
    unsigned asking;         /* of it: READY until they are replaced */
};

static struct tally count(const struct supervisor *s)
{
    struct tally t = {0};
    for (unsigned i = 0; i < s->top; i++) {
        const struct child *c = s->children[i];
        if (!c || c->state == CHILD_RETIRING || c->generation != s->generation)
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

/* ---- one worker ---- */

static struct scoreboard_slot *slot_of(const struct supervisor *s, const struct child *c)
{
    return &s->board->slots[c->slot];
}

static void send_signal(const struct child *c, int signo)
{
    if (c->pid > 0) /* it is ours until it has been waited for: the number is no one else's */
        (void)kill(c->pid, signo);
}

/* Tell it to end: TERM, or QUIT where it knows what that means (before, it would dump core). */
static void retire(struct child *c, bool quick, int64_t wait_ms)
{
    c->state = CHILD_RETIRING;
    c->kill_ns = clock_mono_ns() + wait_ms * MS;
    send_signal(c, quick && c->was_ready ? SIGQUIT : SIGTERM);
}

static void retire_gracefully(struct child *c)
{
    retire(c, false, c->grace_ms + RETIRE_EXTRA_MS);
}

static void slot_clear(struct scoreboard_slot *slot)
{
    atomic_store(&slot->recycle, RECYCLE_NONE);
    atomic_store(&slot->beat_ns, 0);
    atomic_store(&slot->places, 0);
    atomic_store(&slot->busy, 0);
    atomic_store(&slot->waiting, 0);
    atomic_store(&slot->open, 0);
}

static void find_top(struct supervisor *s)
{
    while (s->top && !s->children[s->top - 1])
        s->top--;
    atomic_store(&s->board->top, s->top);
}

/* Give back everything of a worker that has ended, or was never made. */
static void forget(struct supervisor *s, struct child *c)
{
    struct scoreboard_slot *slot = slot_of(s, c);
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
static struct child *child_new(struct supervisor *s)
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
    *c = (struct child){.slot = slot,
                        .age = ++s->ages,
                        .generation = s->generation,
                        .grace_ms = s->set.grace_ms,
                        .tell_fd = fds[0],
                        .worker_fd = fds[1]};
    struct scoreboard_slot *shared = slot_of(s, c);
    slot_clear(shared);
    atomic_fetch_add(&shared->generation, 1);
    atomic_store(&shared->age, c->age);
    atomic_store(&shared->born_ns, clock_mono_ns());
    atomic_store(&shared->state, WORKER_BOOTING);
    s->children[slot] = c;
    s->n_children++;
    if (s->top <= slot)
        s->top = slot + 1;
    atomic_store(&s->board->top, s->top);
    return c;
}

/* In the worker: keep what is its own. */
static void become_worker(struct supervisor *s, struct child *own)
{
    s->born = own;
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

/* The next worker waits, longer for each that was in vain. */
static int64_t wait_for_next(struct supervisor *s, int64_t first_ms, int64_t max_ms)
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

/* Fork one. False: not now. In the worker s->born is set. */
static bool start_one(struct supervisor *s)
{
    struct child *c = child_new(s);
    int64_t failed = -EAGAIN;
    if (c) {
        pid_t pid = s->ops->spawn(s->host, c);
        if (pid == 0) {
            become_worker(s, c);
            return true;
        }
        if (pid > 0) {
            c->pid = pid;
            atomic_store(&slot_of(s, c)->pid, pid);
            close(c->worker_fd);
            c->worker_fd = -1;
            return true;
        }
        failed = pid;
        log_flood(LOG_ERROR, 0, "cannot start a worker: %s", strerror((int)-failed));
        forget(s, c);
    }
    if (!s->started) {
        s->status = 1;
        supervisor_stop(s, true);
    } else {
        (void)wait_for_next(s, CRASH_WAIT_MS, CRASH_WAIT_MS_MAX);
    }
    return false;
}

/* ---- as many as there shall be ---- */

/* The one that is missed least: the youngest that does not serve yet, or the oldest. */
static struct child *one_too_many(const struct supervisor *s)
{
    struct child *booting = NULL, *ready = NULL;
    for (unsigned i = 0; i < s->top; i++) {
        struct child *c = s->children[i];
        if (!c || c->state == CHILD_RETIRING || c->generation != s->generation || c->asks)
            continue;
        if (c->state == CHILD_BOOTING && (!booting || c->age > booting->age))
            booting = c;
        else if (c->state == CHILD_READY && (!ready || c->age < ready->age))
            ready = c;
    }
    return booting ? booting : ready;
}

/* All that are not of the generation that serves. While reloading only those that do not serve. */
static void retire_others(struct supervisor *s)
{
    for (unsigned i = 0; i < s->top; i++) {
        struct child *c = s->children[i];
        if (c && c->state != CHILD_RETIRING && c->generation != s->generation &&
            (!is_reloading(s) || c->state == CHILD_BOOTING))
            retire_gracefully(c);
    }
}

/* Workers that asked for it go when others can do without them. */
static void retire_asking(struct supervisor *s, unsigned n)
{
    for (unsigned i = 0; i < s->top && n; i++) {
        struct child *c = s->children[i];
        if (c && c->state == CHILD_READY && c->asks && c->generation == s->generation) {
            retire_gracefully(c);
            n--;
        }
    }
}

static void reload_done(struct supervisor *s, bool ok)
{
    if (ok) {
        s->serving = s->generation;
    } else {
        s->generation = s->serving;
        s->set = s->last;
        s->target = s->last_target;
    }
    if (s->ops->reloaded)
        s->ops->reloaded(s->host, ok);
    retire_others(s);
}

/* Is there something that the first generation, or a new one, was waited for? */
static void settle(struct supervisor *s)
{
    if (count(s).ready < s->target)
        return;
    if (!s->started) {
        s->started = true;
        s->serving = s->generation;
        if (s->ops->ready && s->ops->ready(s->host)) {
            s->status = 1;
            supervisor_stop(s, true);
        }
    } else if (is_reloading(s)) {
        reload_done(s, true);
        log_line(LOG_INFO, 0, "reloaded: %u new workers serve", s->target);
    }
}

/* Start and retire until there are as many as there shall be. */
static void balance(struct supervisor *s)
{
    if (!s->stopping)
        settle(s);
    if (s->stopping)
        return;
    struct tally t = count(s);
    while (t.booting + t.ready > s->target) {
        struct child *c = one_too_many(s);
        retire_gracefully(c);
        t = count(s);
    }
    if (t.ready + t.asking > s->target)
        retire_asking(s, t.ready + t.asking - s->target);
    while (!s->stopping && t.booting + t.ready < s->target) {
        if (s->spawn_ns > clock_mono_ns())
            return;
        if (t.booting == 0)
            atomic_store(&s->board->boot_told, 0);
        if (!start_one(s) || s->born)
            return;
        s->spawn_ns = 0;
        t = count(s);
    }
}

static void set_target(struct supervisor *s, unsigned now)
{
    unsigned before = s->target;
    unsigned most = s->board->n_slots / 2;
    if (now > most) {
        log_line(LOG_WARNING, 0, "%u workers are the most without a restart", most);
        now = most;
    }
    if (now == before)
        return;
    s->target = now;
    log_line(LOG_INFO, 0, "%u workers (before: %u)", now, before);
    if (s->ops->counted)
        s->ops->counted(s->host, now, before);
}

/* ---- what a worker tells ---- */

static const char *reason_text(int32_t why)
{
    switch ((enum recycle_reason)why) {
    case RECYCLE_MAX_REQUESTS:
        return "max-requests";
    case RECYCLE_MAX_RSS:
        return "max-rss";
    case RECYCLE_MAX_LIFETIME:
        return "max-lifetime";
    case RECYCLE_STUCK:
        return "a request does not come back";
    case RECYCLE_RELOAD:
        return "a file has changed";
    case RECYCLE_NONE:
        break;
    }
    return "it asks for it";
}

static void look_at_slot(struct supervisor *s, struct child *c)
{
    struct scoreboard_slot *slot = slot_of(s, c);
    int32_t state = atomic_load(&slot->state);
    if (c->state == CHILD_BOOTING && (state == WORKER_READY || state == WORKER_DRAINING)) {
        c->state = CHILD_READY;
        c->was_ready = true;
        c->ready_ns = clock_mono_ns();
        if (c->reopen)
            send_signal(c, SIGUSR1);
        c->reopen = false;
    }
    if (c->state != CHILD_READY)
        return;
    int32_t why = atomic_load(&slot->recycle);
    if (why != RECYCLE_NONE && !c->asks) {
        c->asks = true;
        log_flood(LOG_INFO, 0, "replacing worker %d: %s", (int)c->pid, reason_text(why));
    }
    /* Somebody has sent it TERM: it will not come back, so another one can begin. */
    if (state == WORKER_DRAINING) {
        c->state = CHILD_RETIRING;
        c->unexpected = true;
        c->kill_ns = clock_mono_ns() + (c->grace_ms + RETIRE_EXTRA_MS) * MS;
    }
}

static void take_tell(struct supervisor *s, struct child *c)
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
        reload_done(s, false);
    } else if (c->generation == s->generation) {
        if (!s->young)
            s->young = 1; /* never at once */
        int64_t wait_ms = wait_for_next(s, CRASH_WAIT_MS, CRASH_WAIT_MS_MAX);
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
    bool young = clock_mono_ns() - c->ready_ns < CRASH_YOUNG_MS * MS;
    int64_t wait_ms = 0;
    if (!young)
        s->young = 0;
    else if (s->young == 0)
        s->young = 1;
    else
        wait_ms = wait_for_next(s, CRASH_WAIT_MS, killed ? KILLED_WAIT_MS_MAX : CRASH_WAIT_MS_MAX);
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
    take_tell(s, c);
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
    forget(s, c);
}

static struct child *child_of(const struct supervisor *s, pid_t pid)
{
    for (unsigned i = 0; i < s->top; i++)
        if (s->children[i] && s->children[i]->pid == pid)
            return s->children[i];
    return NULL;
}

static void reap(struct supervisor *s)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct child *c = child_of(s, pid);
        if (c)
            child_ended(s, c, status);
        else if (s->ops->stranger)
            s->ops->stranger(s->host, pid, status);
    }
}

/* ---- signals ---- */

/* End now what is left. */
static void end_at_once(struct supervisor *s, int64_t wait_ms)
{
    s->stop_ns = 0;
    s->told = true;
    for (unsigned i = 0; i < s->top; i++)
        if (s->children[i])
            retire(s->children[i], true, wait_ms);
}

void supervisor_stop(struct supervisor *s, bool quick)
{
    if (!s->stopping) {
        s->stopping = true;
        atomic_store(&s->board->stopping, 1);
        if (s->ops->stopping)
            s->ops->stopping(s->host);
        if (s->started && s->n_children)
            log_line(LOG_INFO, 0, "stopping %u workers%s", s->n_children, quick ? " at once" : "");
        if (quick)
            end_at_once(s, QUICK_MS);
        for (unsigned i = 0; i < s->top && !quick; i++)
            if (s->children[i])
                retire_gracefully(s->children[i]);
    } else if (quick && !s->told) {
        end_at_once(s, QUICK_MS);
    } else if (!quick && !s->told && !s->stop_ns) {
        s->stop_ns = clock_mono_ns() + HURRY_MS * MS;
    }
}

static void reload(struct supervisor *s)
{
    struct supervisor_settings next = s->set;
    if (s->stopping)
        return;
    if (!s->started || s->upgrading) {
        log_line(LOG_WARNING, 0, "HUP has no effect %s",
                 s->upgrading ? "while a new supervisor starts" : "before the server has started");
        return;
    }
    log_line(LOG_INFO, 0, "reloading");
    if (s->ops->reload && s->ops->reload(s->host, &next))
        return;
    if (!is_reloading(s)) {
        s->last = s->set;
        s->last_target = s->target;
    }
    s->set = next;
    s->generation = ++s->generations;
    s->young = 0;
    s->spawn_ns = 0;
    s->beat_ns = 0;
    set_target(s, next.workers);
    retire_others(s);
}

static void reopen_logs(struct supervisor *s)
{
    struct err e = {{0}};
    if (log_reopen(&e))
        log_line(LOG_ERROR, 0, "%s", e.text);
    else
        log_line(LOG_INFO, 0, "log files opened again");
    for (unsigned i = 0; i < s->top; i++) {
        struct child *c = s->children[i];
        if (c && c->state == CHILD_BOOTING)
            c->reopen = true;
        else if (c)
            send_signal(c, SIGUSR1);
    }
}

/* TTIN and TTOU: also what a failed reload goes back to. */
static void count_by(struct supervisor *s, int by)
{
    if (s->stopping || (by < 0 && s->target <= 1))
        return;
    set_target(s, s->target + (unsigned)by);
    s->last_target = s->target;
}

static void take_signal(struct supervisor *s, int signo)
{
    switch (signo) {
    case SIGTERM:
        supervisor_stop(s, false);
        break;
    case SIGINT:
    case SIGQUIT:
        supervisor_stop(s, true);
        break;
    case SIGHUP:
        reload(s);
        break;
    case SIGUSR1:
        reopen_logs(s);
        break;
    case SIGUSR2:
        if (s->ops->upgrade && !s->stopping)
            s->ops->upgrade(s->host);
        break;
    case SIGTTIN:
        count_by(s, 1);
        break;
    case SIGTTOU:
        count_by(s, -1);
        break;
    case SIGWINCH: /* otherwise it is only a terminal that changed its size */
        if (s->set.daemonized && !s->stopping)
            set_target(s, 0);
        break;
    default: /* CHLD: reap looks after every wait */
        break;
    }
}

/* Several HUP at once are one. */
static void take_signals(struct supervisor *s)
{
    unsigned char numbers[128];
    size_t n;
    bool hup = false;
    while ((n = signals_read(numbers, sizeof numbers)) > 0)
        for (size_t i = 0; i < n; i++) {
            if (numbers[i] == SIGHUP)
                hup = true;
            else
                take_signal(s, numbers[i]);
        }
    if (hup)
        take_signal(s, SIGHUP);
}

/* ---- time ---- */

static bool has_beat(const struct supervisor *s)
{
    for (unsigned i = 0; i < s->top; i++)
        if (s->children[i] && s->children[i]->state == CHILD_READY)
            return true;
    return false;
}

/* A READY worker whose loop is silent. Its slot tells 0 until it has a heart. */
static void look_at_beats(struct supervisor *s, int64_t now_ns)
{
    int64_t timeout_ns = s->set.worker_timeout_ms * MS;
    for (unsigned i = 0; i < s->top; i++) {
        struct child *c = s->children[i];
        if (!c || c->state != CHILD_READY || c->aborted)
            continue;
        int64_t beat_ns = atomic_load(&slot_of(s, c)->beat_ns);
        if (beat_ns == 0 || now_ns - beat_ns < timeout_ns)
            continue;
        log_flood(LOG_ERROR, 0, "worker %d has been silent for %.3g s (worker-timeout): ending it",
                  (int)c->pid, (double)(now_ns - beat_ns) / 1e9);
        c->aborted = true;
        c->unexpected = true;
        c->state = CHILD_RETIRING;
        c->kill_ns = now_ns + ABORT_MS * MS;
        send_signal(c, SIGABRT);
    }
}

static void take_time(struct supervisor *s)
{
    int64_t now_ns = clock_mono_ns();
    if (s->stop_ns && now_ns >= s->stop_ns)
        end_at_once(s, RETIRE_EXTRA_MS);
    for (unsigned i = 0; i < s->top; i++) {
        struct child *c = s->children[i];
        if (!c || !c->kill_ns || now_ns < c->kill_ns)
            continue;
        c->kill_ns = 0;
        log_flood(LOG_WARNING, 0, "worker %d does not end; killing it", (int)c->pid);
        send_signal(c, SIGKILL);
    }
    if (!s->set.worker_timeout_ms || s->stopping || !has_beat(s)) {
        s->beat_ns = 0;
        return;
    }
    if (s->beat_ns && now_ns >= s->beat_ns) {
        look_at_beats(s, now_ns);
        s->beat_ns = 0;
    }
    if (!s->beat_ns) {
        int64_t period_ms = s->set.worker_timeout_ms / 2;
        s->beat_ns = now_ns + (period_ms < BEAT_MS_MIN ? BEAT_MS_MIN : period_ms) * MS;
    }
}

/* Milliseconds until something is due; -1: nothing is. */
static int time_left(const struct supervisor *s)
{
    int64_t at_ns = soonest(s->stop_ns, s->beat_ns);
    for (unsigned i = 0; i < s->top; i++)
        if (s->children[i])
            at_ns = soonest(at_ns, s->children[i]->kill_ns);
    if (s->spawn_ns && !s->stopping)
        at_ns = soonest(at_ns, s->spawn_ns);
    if (!at_ns)
        return -1;
    int64_t left_ms = (at_ns - clock_mono_ns() + MS - 1) / MS;
    return left_ms <= 0 ? 0 : left_ms > 3600000 ? 3600000 : (int)left_ms;
}

/* ---- the loop ---- */

/* Until a signal, a worker that tells something, or time. */
static void wait_for_news(struct supervisor *s)
{
    unsigned n = 1;
    s->fds[0] = (struct pollfd){.fd = signals_fd(), .events = POLLIN};
    for (unsigned i = 0; i < s->top; i++)
        if (s->children[i] && s->children[i]->tell_fd >= 0)
            s->fds[n++] = (struct pollfd){.fd = s->children[i]->tell_fd, .events = POLLIN};
    int timeout_ms = time_left(s);
    if (s->ops->wait_begin)
        s->ops->wait_begin(s->host);
    int ready = poll(s->fds, n, timeout_ms);
    if (s->ops->wait_end)
        s->ops->wait_end(s->host);
    if (ready <= 0)
        return;
    n = 1;
    for (unsigned i = 0; i < s->top; i++) {
        struct child *c = s->children[i];
        if (!c || c->tell_fd < 0)
            continue;
        must(s->fds[n].fd == c->tell_fd);
        if (s->fds[n++].revents)
            take_tell(s, c);
    }
}

int supervisor_run(struct supervisor *s)
{
    struct err e = {{0}};
    if (signals_open(&e)) {
        log_line(LOG_ERROR, 0, "%s", e.text);
        return 1;
    }
    for (size_t i = 0; i < countof(SIGNALS); i++)
        (void)signals_take(SIGNALS[i]);
    for (;;) {
        balance(s);
        if (s->born)
            return SUPERVISOR_WORKER;
        if (s->stopping && !s->n_children)
            return s->status;
        wait_for_news(s);
        take_signals(s);
        reap(s);
        take_time(s);
    }
}

/* ---- life ---- */

int supervisor_new(struct supervisor **out, const struct supervisor_settings *set,
                   const struct supervisor_ops *ops, void *host, struct err *e)
{
    unsigned n_slots = set->workers * SLOTS_PER_WORKER;
    if (n_slots < SLOTS_MIN)
        n_slots = SLOTS_MIN;
    if (n_slots > SCOREBOARD_SLOTS_MAX)
        n_slots = SCOREBOARD_SLOTS_MAX;
    int hand[2] = {-1, -1};
    struct supervisor *s = calloc(1, sizeof *s);
    *out = s;
    if (s) {
        s->hand_recv = s->hand_send = -1;
        s->board = scoreboard_new(n_slots);
        s->children = calloc(n_slots, sizeof(struct child *));
        s->fds = calloc(n_slots + 1, sizeof *s->fds);
    }
    if (!s || !s->board || !s->children || !s->fds) {
        supervisor_free(out);
        return err_set(e, "out of memory");
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, hand)) {
        supervisor_free(out);
        return err_set(e, "cannot make a pair of sockets: %s", strerror(errno));
    }
    s->hand_recv = hand[0];
    s->hand_send = hand[1];
    s->set = *set;
    s->target = set->workers;
    s->ops = ops;
    s->host = host;
    s->generation = s->generations = 1;
    atomic_store(&s->board->supervisor, getpid());
    return 0;
}

void supervisor_free(struct supervisor **sp)
{
    struct supervisor *s = *sp;
    *sp = NULL;
    if (!s)
        return;
    for (unsigned i = 0; s->children && i < s->top; i++)
        free(s->children[i]);
    free(s->children);
    free(s->fds);
    if (s->hand_recv >= 0)
        close(s->hand_recv);
    if (s->hand_send >= 0)
        close(s->hand_send);
    scoreboard_free(&s->board);
    free(s);
}
