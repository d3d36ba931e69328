/* signals: see the header. */
#include "proc/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static int g_pipe[2] = {-1, -1};
static struct {
    struct sigaction old;
    bool taken;
} g_table[NSIG];
static void (*g_on_child)(void);
static volatile sig_atomic_t g_keep; /* what is in the pipe came early: it is not stale */
static volatile sig_atomic_t g_ends; /* of it TERM and QUIT */
/* What a start shall survive, or end by in order. INT is Python's until a server runs. */
static const int EARLY[] = {SIGHUP, SIGTERM, SIGQUIT, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU};

static void on_signal(int signo)
{
    int saved = errno;
    unsigned char number = (unsigned char)signo;
    ssize_t n = write(g_pipe[1], &number, 1);
    (void)n;
    /* A configuration file that hangs: the second one does what it always did. */
    if (g_keep && (signo == SIGTERM || signo == SIGQUIT) && g_ends++) {
        (void)signal(signo, SIG_DFL);
        (void)raise(signo);
    }
    errno = saved;
}

/* Unlike SIG_IGN this does not reach programs that are executed. */
static void on_ignored(int signo)
{
    (void)signo;
}

/* ---- fork ---- */

static _Thread_local sigset_t g_before_fork;

static void before_fork(void)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &g_before_fork);
}

static void after_fork_parent(void)
{
    pthread_sigmask(SIG_SETMASK, &g_before_fork, NULL);
}

static void after_fork_child(void)
{
    signals_give_back();
    for (int i = 0; i < 2; i++)
        if (g_pipe[i] >= 0) {
            close(g_pipe[i]);
            g_pipe[i] = -1;
        }
    if (g_on_child)
        g_on_child();
    after_fork_parent();
}

/* ---- public ---- */

int signals_open(struct err *e)
{
    static bool hooked;
    if (!hooked)
        hooked = pthread_atfork(before_fork, after_fork_parent, after_fork_child) == 0;
    if (g_pipe[0] < 0 && pipe2(g_pipe, O_CLOEXEC | O_NONBLOCK)) {
        g_pipe[0] = g_pipe[1] = -1;
        return err_set(e, "cannot make a pipe for signals: %s", strerror(errno));
    }
    unsigned char stale[256];
    while (!g_keep && signals_read(stale, sizeof stale) == sizeof stale)
        ;
    g_keep = false;
    return 0;
}

static void mask_early(int how)
{
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < countof(EARLY); i++)
        sigaddset(&set, EARLY[i]);
    pthread_sigmask(how, &set, NULL);
}

void signals_hold(void)
{
    mask_early(SIG_BLOCK);
}

int signals_early(struct err *e)
{
    int rc = signals_open(e);
    for (size_t i = 0; i < countof(EARLY) && !rc; i++)
        (void)signals_take(EARLY[i]);
    g_ends = 0;
    g_keep = !rc;
    mask_early(SIG_UNBLOCK);
    return rc;
}

int signals_fd(void)
{
    return g_pipe[0];
}

static bool take(int signo, void (*handler)(int))
{
    struct sigaction now = {.sa_handler = handler, .sa_flags = SA_RESTART};
    struct sigaction old;
    sigemptyset(&now.sa_mask);
    if (sigaction(signo, &now, &old))
        return false;
    bool ours = old.sa_handler == on_signal || old.sa_handler == on_ignored;
    if (!g_table[signo].taken || !ours) /* somebody may have set another meanwhile */
        g_table[signo].old = old;
    g_table[signo].taken = true;
    return true;
}

bool signals_take(int signo)
{
    return take(signo, on_signal);
}

bool signals_ignore(int signo)
{
    return take(signo, on_ignored);
}

void signals_give_back(void)
{
    g_keep = false;
    for (int i = 1; i < NSIG; i++)
        if (g_table[i].taken) {
            g_table[i].taken = false;
            sigaction(i, &g_table[i].old, NULL);
        }
}

size_t signals_read(unsigned char *out, size_t n)
{
    ssize_t got = g_pipe[0] >= 0 ? read(g_pipe[0], out, n) : -1;
    return got > 0 ? (size_t)got : 0;
}

void signals_on_child(void (*fn)(void))
{
    g_on_child = fn;
}
