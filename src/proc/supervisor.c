/* supervisor: see the header. */
#include "proc/supervisor_private.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "proc/signals.h"

/* Slots: a whole generation beside the old one, room for TTIN, and some whose workers still drain.
 */
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
            (!is_reloading(s) ||
             (c->state == CHILD_BOOTING && c->generation != s->serving)))
            child_retire(s, c);
    }
}

/* Workers that asked for it go when others can do without them. */
static void retire_asking(struct supervisor *s, unsigned n)
{
    for (unsigned i = 0; i < s->top && n; i++) {
        struct child *c = s->children[i];
        if (c && c->state == CHILD_READY && c->asks && c->generation == s->generation) {
            child_retire(s, c);
            n--;
        }
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

void supervisor_reloaded(struct supervisor *s, bool ok)
{
    if (ok) {
        s->serving = s->generation;
        atomic_fetch_add(&s->board->reloads, 1);
    } else {
        s->generation = s->serving;
        s->set = s->last;
        set_target(s, s->last_target);
    }
    if (s->ops->reloaded)
        s->ops->reloaded(s->host, ok);
    retire_others(s);
}

/* Is there something that the first generation, or a new one, was waited for? */
static void settle(struct supervisor *s)
{
    struct tally t = children_count(s, s->generation);
    if (t.ready + t.asking < s->target) /* those that ask serve as well as the others */
        return;
    if (!s->started) {
        s->started = true;
        s->serving = s->generation;
        if (s->ops->ready && s->ops->ready(s->host)) {
            s->status = 1;
            supervisor_stop(s, true);
        }
    } else if (is_reloading(s)) {
        supervisor_reloaded(s, true);
        log_line(LOG_INFO, 0, "reloaded: %u new workers serve", s->target);
    }
}

/* The new generation may take long, or never serve: meanwhile the one that does keeps its number. */
static void replace_old(struct supervisor *s)
{
    while (!s->stopping && is_reloading(s) && !s->spawn_ns) {
        struct tally t = children_count(s, s->serving);
        if (t.booting + t.ready + t.asking >= s->last_target || !child_start(s, s->serving) || s->born)
            return;
    }
}

/* Start and retire until there are as many as there shall be. */
static void balance(struct supervisor *s)
{
    if (!s->stopping)
        settle(s);
    if (s->stopping)
        return;
    struct tally t = children_count(s, s->generation);
    while (t.booting + t.ready > s->target) {
        struct child *c = one_too_many(s);
        child_retire(s, c);
        t = children_count(s, s->generation);
    }
    if (t.ready + t.asking > s->target)
        retire_asking(s, t.ready + t.asking - s->target);
    if (s->spawn_ns <= clock_mono_ns()) /* also where nobody is missing any more: it must not wake us */
        s->spawn_ns = 0;
    while (!s->stopping && t.booting + t.ready < s->target) {
        if (s->spawn_ns)
            return;
        if (t.booting == 0)
            atomic_store(&s->board->boot_told, 0);
        if (!child_start(s, s->generation) || s->born)
            return;
        t = children_count(s, s->generation);
    }
    replace_old(s);
}

/* ---- signals ---- */

/* End now what is left. */
static void end_at_once(struct supervisor *s, int64_t wait_ms)
{
    s->stop_ns = 0;
    s->told = true;
    for (unsigned i = 0; i < s->top; i++)
        if (s->children[i])
            child_end(s->children[i], true, wait_ms);
}

void supervisor_stop(struct supervisor *s, bool quick)
{
    if (!s->stopping) {
        s->stopping = true;
        if (!atomic_load(&s->board->neighbour))
            atomic_store(&s->board->stopping, 1);
        if (s->ops->stopping)
            s->ops->stopping(s->host);
        if (s->started && s->n_children)
            log_line(LOG_INFO, 0, "stopping %u workers%s", s->n_children, quick ? " at once" : "");
        if (quick)
            end_at_once(s, QUICK_MS);
        for (unsigned i = 0; i < s->top && !quick; i++)
            if (s->children[i])
                child_retire(s, s->children[i]);
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
    if (s->upgrading) {
        log_line(LOG_WARNING, 0, "HUP has no effect while a new supervisor starts");
        return;
    }
    if (!s->started) { /* what starts may have read files before they were changed */
        log_line(LOG_INFO, 0, "HUP: reloading once the server has started");
        s->hup_waits = true;
        return;
    }
    s->hup_waits = false;
    log_line(LOG_INFO, 0, "reloading");
    if (s->ops->reload && s->ops->reload(s->host, &next)) {
        if (is_reloading(s)) /* its settings are gone, or not what is wanted any more */
            supervisor_reloaded(s, false);
        return;
    }
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
    if (s->ops->reopened)
        s->ops->reopened(s->host);
    keepers_signal(s, SIGUSR1);
    for (unsigned i = 0; i < s->top; i++) {
        struct child *c = s->children[i];
        if (c && c->state == CHILD_BOOTING)
            c->reopen = true;
        else if (c)
            child_signal(c, SIGUSR1);
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
        int64_t beat_ns = atomic_load(&child_slot(s, c)->beat_ns);
        if (beat_ns == 0 || now_ns - beat_ns < timeout_ns)
            continue;
        log_flood(LOG_ERROR, 0, "worker %d has been silent for %.3g s (worker-timeout): ending it",
                  (int)c->pid, (double)(now_ns - beat_ns) / 1e9);
        c->aborted = true;
        c->unexpected = true;
        c->state = CHILD_RETIRING;
        c->kill_ns = now_ns + ABORT_MS * MS;
        child_signal(c, SIGABRT);
    }
}

/* One that does not get READY. */
static void look_at_boot(struct supervisor *s, struct child *c, int64_t now_ns)
{
    if (!c->late && now_ns - c->begun_ns >= BOOT_LATE_MS * MS) {
        log_line(LOG_WARNING, 0,
                 "worker %d does not serve %d s after its start: importing the application takes long, or hangs; "
                 "%s%sa change of the code and HUP begin again, boot-timeout sets an end",
                 (int)c->pid, BOOT_LATE_MS / 1000,
                 is_reloading(s) && c->generation == s->generation ? "the old workers go on; " : "",
                 c->pid ? "look where it waits (py-spy dump --pid); " : "");
        for (unsigned i = 0; i < s->top; i++)
            if (s->children[i] && s->children[i]->generation == c->generation)
                s->children[i]->late = true;
    }
    if (!c->boot_ms || now_ns - c->begun_ns < c->boot_ms * MS)
        return;
    log_flood(LOG_ERROR, 0, "worker %d does not serve %.3g s after its start (boot-timeout): ending it", (int)c->pid,
              (double)c->boot_ms / 1000);
    c->boot_ms = 0;
    if (c->pid)
        child_signal(c, SIGKILL);
    else if (s->ops->overdue)
        s->ops->overdue(s->host, c);
}

/* When to look at it again; 0: never. */
static int64_t boot_look_ns(const struct child *c)
{
    int64_t late_ns = c->late ? 0 : c->begun_ns + BOOT_LATE_MS * MS;
    return soonest(late_ns, c->boot_ms ? c->begun_ns + c->boot_ms * MS : 0);
}

/* Retired, and what it still waits for does not come. */
static bool waits_in_vain(const struct child *c)
{
    return c->state == CHILD_RETIRING && c->stuck && c->kill_ns;
}

/* Such a worker is killed when everything else that it had is done. */
static void look_at_stuck(struct supervisor *s, struct child *c, int64_t now_ns)
{
    struct scoreboard_slot *slot = child_slot(s, c);
    bool alone = atomic_load(&slot->busy) <= atomic_load(&slot->stuck) &&
                 !atomic_load(&slot->waiting) && !atomic_load(&slot->open);
    if (!alone)
        c->alone_ns = 0;
    else if (!c->alone_ns)
        c->alone_ns = now_ns;
    else if (now_ns - c->alone_ns >= STUCK_MS * MS)
        c->kill_ns = now_ns;
}

static void take_time(struct supervisor *s)
{
    int64_t now_ns = clock_mono_ns();
    if (s->ops->tick) {
        int64_t wait_ms = s->ops->tick(s->host, now_ns);
        s->tick_ns = wait_ms < 0 ? 0 : now_ns + wait_ms * MS;
    }
    if (s->stop_ns && now_ns >= s->stop_ns)
        end_at_once(s, RETIRE_EXTRA_MS);
    keepers_take_time(s, now_ns);
    for (unsigned i = 0; i < s->top; i++) {
        struct child *c = s->children[i];
        if (c && c->state == CHILD_BOOTING)
            look_at_boot(s, c, now_ns);
        if (c && waits_in_vain(c))
            look_at_stuck(s, c, now_ns);
        if (!c || !c->kill_ns || now_ns < c->kill_ns)
            continue;
        c->kill_ns = 0;
        log_flood(LOG_WARNING, 0, "worker %d does not end; killing it", (int)c->pid);
        child_signal(c, SIGKILL);
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
    for (unsigned i = 0; i < s->top; i++) {
        const struct child *c = s->children[i];
        if (c)
            at_ns = soonest(at_ns, c->kill_ns);
        if (c && c->state == CHILD_BOOTING)
            at_ns = soonest(at_ns, boot_look_ns(c));
        if (c && waits_in_vain(c))
            at_ns = soonest(at_ns, clock_mono_ns() + STUCK_LOOK_MS * MS);
    }
    if (s->spawn_ns && !s->stopping)
        at_ns = soonest(at_ns, s->spawn_ns);
    at_ns = soonest(at_ns, s->tick_ns);
    at_ns = soonest(at_ns, keepers_due_ns(s));
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
    int news[SUPERVISOR_NEWS_MAX];
    unsigned news_at = n, n_news = s->ops->news_fds ? s->ops->news_fds(s->host, news) : 0;
    for (unsigned i = 0; i < n_news; i++)
        s->fds[n++] = (struct pollfd){.fd = news[i], .events = POLLIN};
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
            child_hear(s, c);
    }
    bool any = false;
    for (unsigned i = 0; i < n_news; i++)
        any |= s->fds[news_at + i].revents != 0;
    if (any)
        s->ops->news(s->host);
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
    take_signals(s); /* those of the start */
    for (;;) {
        keepers_balance(s);
        balance(s);
        if (s->born)
            return SUPERVISOR_WORKER;
        if (s->stopping && !s->n_children && !keepers_left(s))
            return s->status;
        if (s->started && s->hup_waits) {
            reload(s);
            s->hup_waits = false;
            continue;
        }
        wait_for_news(s);
        take_signals(s);
        children_reap(s);
        take_time(s);
    }
}

/* ---- what the host adds ---- */

void supervisor_use_hand(struct supervisor *s, int hand_recv, int hand_send)
{
    close(s->hand_recv);
    close(s->hand_send);
    s->hand_recv = hand_recv;
    s->hand_send = hand_send;
}

void supervisor_forget(struct supervisor *s)
{
    for (unsigned i = 0; i < s->top; i++)
        if (s->children[i] && s->children[i]->tell_fd >= 0)
            close(s->children[i]->tell_fd);
    close(s->hand_recv);
    close(s->hand_send);
}

void supervisor_neighbour(struct supervisor *s, pid_t pid)
{
    atomic_store(&s->board->neighbour, pid);
    if (!pid && s->stopping) /* it was to go on */
        atomic_store(&s->board->stopping, 1);
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
        s->fds = calloc(n_slots + 1 + SUPERVISOR_NEWS_MAX, sizeof *s->fds);
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
