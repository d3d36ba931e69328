/* keepers: the processes beside the workers. See supervisor_private.h. */
#include "proc/supervisor_private.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"

static struct keep *keep_of(struct supervisor *s, const void *what)
{
    for (unsigned i = 0; i < SUPERVISOR_KEEPERS_MAX; i++)
        if (s->keeps[i].what == what)
            return &s->keeps[i];
    return NULL;
}

/* It is over: the host may forget what it was for. */
static void give_back(struct supervisor *s, struct keep *k)
{
    void *what = k->what;
    *k = (struct keep){0};
    if (s->ops->kept)
        s->ops->kept(s->host, what);
}

static void retire(struct supervisor *s, struct keep *k, int64_t wait_ms)
{
    int64_t kill_ns = clock_mono_ns() + wait_ms * MS;
    if (!k->pid) {
        give_back(s, k);
        return;
    }
    if (!k->retired)
        (void)kill(k->pid, SIGTERM);
    if (!k->kill_ns || kill_ns < k->kill_ns)
        k->kill_ns = kill_ns;
    k->retired = true;
}

/* The next one not before a while. */
static int64_t wait_longer(struct keep *k)
{
    int64_t wait_ms = CRASH_WAIT_MS;
    for (unsigned i = 1; i < k->young && wait_ms < KEEPER_WAIT_MS_MAX; i++)
        wait_ms *= 2;
    if (wait_ms > KEEPER_WAIT_MS_MAX)
        wait_ms = KEEPER_WAIT_MS_MAX;
    k->young++;
    k->spawn_ns = clock_mono_ns() + wait_ms * MS;
    return wait_ms;
}

static void start(struct supervisor *s, struct keep *k)
{
    must(s->ops->keep);
    pid_t pid = s->ops->keep(s->host, k->what);
    if (pid > 0) {
        k->pid = pid;
        k->born_ns = clock_mono_ns();
        k->spawn_ns = 0;
        return;
    }
    log_flood(LOG_ERROR, 0, "cannot start the keeper: %s", strerror((int)-pid));
    (void)wait_longer(k);
}

void keepers_balance(struct supervisor *s)
{
    bool over = s->stopping && !s->n_children;
    int64_t now_ns = clock_mono_ns();
    for (unsigned i = 0; i < SUPERVISOR_KEEPERS_MAX; i++) {
        struct keep *k = &s->keeps[i];
        if (!k->what)
            continue;
        if (over)
            retire(s, k, KEEPER_END_MS);
        else if (!k->pid && now_ns >= k->spawn_ns)
            start(s, k);
    }
}

static void tell_end(const struct keep *k, int status, int64_t wait_ms)
{
    char when[64] = "";
    if (wait_ms)
        snprintf(when, sizeof when, " in %.3g s", (double)wait_ms / 1000);
    if (WIFSIGNALED(status))
        log_flood(LOG_ERROR, 0, "keeper %d was killed by signal %d (%s); starting another%s",
                  (int)k->pid, WTERMSIG(status), strsignal(WTERMSIG(status)), when);
    else
        log_flood(LOG_ERROR, 0, "keeper %d ended with exit code %d; starting another%s",
                  (int)k->pid, WEXITSTATUS(status), when);
}

bool keepers_reaped(struct supervisor *s, pid_t pid, int status)
{
    for (unsigned i = 0; i < SUPERVISOR_KEEPERS_MAX; i++) {
        struct keep *k = &s->keeps[i];
        if (!k->what || k->pid != pid)
            continue;
        if (k->retired) {
            give_back(s, k);
            return true;
        }
        bool young = clock_mono_ns() - k->born_ns < CRASH_YOUNG_MS * MS;
        int64_t wait_ms = 0;
        if (!young)
            k->young = 0;
        else if (k->young == 0)
            k->young = 1; /* the first time at once */
        else
            wait_ms = wait_longer(k);
        tell_end(k, status, wait_ms);
        k->pid = 0;
        return true;
    }
    return false;
}

void keepers_take_time(struct supervisor *s, int64_t now_ns)
{
    for (unsigned i = 0; i < SUPERVISOR_KEEPERS_MAX; i++) {
        struct keep *k = &s->keeps[i];
        if (!k->pid || !k->kill_ns || now_ns < k->kill_ns)
            continue;
        k->kill_ns = 0;
        log_flood(LOG_WARNING, 0, "keeper %d does not end; killing it", (int)k->pid);
        (void)kill(k->pid, SIGKILL);
    }
}

int64_t keepers_due_ns(const struct supervisor *s)
{
    int64_t at_ns = 0;
    for (unsigned i = 0; i < SUPERVISOR_KEEPERS_MAX; i++) {
        const struct keep *k = &s->keeps[i];
        int64_t due_ns = !k->what ? 0 : k->pid ? k->kill_ns : k->spawn_ns ? k->spawn_ns : 1;
        if (due_ns && (!at_ns || due_ns < at_ns))
            at_ns = due_ns;
    }
    return at_ns;
}

bool keepers_left(const struct supervisor *s)
{
    for (unsigned i = 0; i < SUPERVISOR_KEEPERS_MAX; i++)
        if (s->keeps[i].what)
            return true;
    return false;
}

void keepers_signal(const struct supervisor *s, int signo)
{
    for (unsigned i = 0; i < SUPERVISOR_KEEPERS_MAX; i++)
        if (s->keeps[i].pid)
            (void)kill(s->keeps[i].pid, signo);
}

int supervisor_keep(struct supervisor *s, void *what)
{
    must(what && !keep_of(s, what));
    struct keep *k = keep_of(s, NULL);
    if (!k)
        return -EBUSY;
    *k = (struct keep){.what = what};
    return 0;
}

void supervisor_unkeep(struct supervisor *s, void *what)
{
    struct keep *k = keep_of(s, what);
    if (k)
        retire(s, k, s->set.grace_ms + RETIRE_EXTRA_MS + KEEPER_END_MS);
}
