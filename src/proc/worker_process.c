/* worker_process: see the header. */
#include "proc/worker_process.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "proc/signals.h"

int worker_process_guard(const struct worker_process *w)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    return getppid() == w->supervisor ? 0 : -1;
}

int worker_process_begin(const struct worker_process *w)
{
    (void)signals_ignore(SIGHUP);
    (void)signals_ignore(SIGUSR1);
    (void)signals_ignore(SIGUSR2);
    return worker_process_guard(w);
}

int worker_process_signals(struct err *e)
{
    static const int TAKEN[] = {SIGTERM, SIGINT, SIGQUIT, SIGUSR1};
    if (signals_open(e))
        return -1;
    for (size_t i = 0; i < countof(TAKEN); i++)
        (void)signals_take(TAKEN[i]);
    struct sigaction old;
    if (sigaction(SIGABRT, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
        (void)signals_take(SIGABRT);
    return 0;
}

void worker_process_ready(const struct worker_process *w)
{
    if (w->tell_fd < 0)
        return;
    ssize_t n = send(w->tell_fd, "R", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n; /* closed: on_tell learns it */
}

static bool others_go_on(const struct worker_process *w)
{
    pid_t neighbour = atomic_load(&w->board->neighbour);
    if (neighbour && (kill(neighbour, 0) == 0 || errno == EPERM))
        return true;
    return !w->orphan && getppid() == w->supervisor && !atomic_load(&w->board->stopping);
}

enum worker_order worker_process_on_signal(const struct worker_process *w, int signo)
{
    switch (signo) {
    case SIGTERM:
        return others_go_on(w) ? WORKER_HANDOVER : WORKER_DRAIN;
    case SIGINT:
    case SIGQUIT:
        return WORKER_END;
    case SIGUSR1:
        return WORKER_REOPEN;
    case SIGABRT:
        return WORKER_ABORT;
    default:
        return WORKER_GO_ON;
    }
}

/* KILL from the kernel: nothing in this process can put it off. */
static void end_surely_after(int64_t ms)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000}};
    timer_t timer;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &when, NULL))
        log_line(LOG_ERROR, 0, "cannot set a timer for the end of this process: %s",
                 strerror(errno));
}

enum worker_order worker_process_on_tell(struct worker_process *w)
{
    char bytes[16];
    ssize_t n = recv(w->tell_fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return WORKER_GO_ON;
    w->tell_fd = -1;
    w->orphan = true;
    log_line(LOG_WARNING, 0, "the supervisor has ended; so does this worker");
    end_surely_after(w->grace_ms + WORKER_ORPHAN_EXTRA_MS);
    return others_go_on(w) ? WORKER_HANDOVER : WORKER_DRAIN;
}

bool worker_process_may_complain(const struct worker_process *w)
{
    return atomic_exchange(&w->board->boot_told, 1) == 0;
}
