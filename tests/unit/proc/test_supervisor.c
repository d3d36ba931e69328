/* supervisor: with workers in C that do as they are told. */
#include "proc_helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "proc/supervisor.h"

/* What the test tells the workers, in shared memory, and what they tell about themselves. */
enum order {
    GO_ON = 0,
    CRASH,   /* exit code 7 */
    KILLED,  /* KILL by itself */
    RECYCLE, /* ask for a replacement */
    LEAVE,   /* say that it ends by itself */
    STUCK,   /* the same, because a thread does not come back */
    SILENT,  /* a sign of life from long ago */
    ORPHAN,  /* start a process that nobody waits for */
};
#define AGES_MAX 64
static struct plan {
    _Atomic int boot_exit; /* workers end so while they start; 0: they do not */
    _Atomic int boot_hold; /* they do not get READY */
    _Atomic int deaf;      /* they do not end by TERM */
    _Atomic int refuse;    /* HUP: the configuration is wrong */
    _Atomic int workers;   /* HUP: so many, 0: as before */
    _Atomic int fail_fork;
    _Atomic int asks; /* workers ask for a replacement as soon as they are READY */
    _Atomic int waits; /* of the supervisor */
    _Atomic int order[AGES_MAX];
    _Atomic int keeper;      /* one is wanted */
    _Atomic int keeper_exit; /* it ends so at once; 0: it does not */
    _Atomic int aborted; /* workers that got ABRT */
    _Atomic int plain;   /* workers that found their signals and descriptors plain */
} * plan;

static struct supervisor_settings set;
static int events_fd; /* both ends write, the test reads */
static FILE *events;  /* in the test */
static pid_t supervisor_pid;

static void tell(const char *fmt, ...) WEIR_PRINTF(1, 2);

static void tell(const char *fmt, ...)
{
    char line[128];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    ssize_t done = write(events_fd, line, (size_t)n);
    (void)done;
}

/* ---- a worker ---- */

static bool signals_are_plain(void)
{
    static const int ALL[] = {SIGHUP,  SIGUSR1, SIGUSR2, SIGTTIN,  SIGTTOU,
                              SIGTERM, SIGINT,  SIGQUIT, SIGWINCH, SIGCHLD};
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    for (size_t i = 0; i < countof(ALL); i++) {
        struct sigaction now;
        sigaction(ALL[i], NULL, &now);
        if (sigismember(&mask, ALL[i]) || now.sa_handler != SIG_DFL)
            return false;
    }
    return true;
}

static unsigned sockets_before; /* that the test had */

static unsigned sockets(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++) {
        struct stat st;
        n += fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
    }
    return n;
}

static void obey(const struct child *c, struct scoreboard_slot *slot)
{
    char byte = 'r';
    switch ((enum order)atomic_exchange(&plan->order[c->age], GO_ON)) {
    case GO_ON:
        return;
    case CRASH:
        _exit(7);
    case KILLED:
        kill(getpid(), SIGKILL);
        return;
    case STUCK:
        atomic_store(&slot->busy, 1);
        atomic_store(&slot->stuck, 1);
        atomic_store(&slot->recycle, RECYCLE_STUCK);
        break;
    case RECYCLE:
        atomic_store(&slot->recycle, RECYCLE_MAX_REQUESTS);
        break;
    case LEAVE:
        atomic_store(&slot->state, WORKER_DRAINING);
        break;
    case SILENT:
        atomic_store(&slot->beat_ns, clock_mono_ns() - INT64_C(60000000000));
        return;
    case ORPHAN:
        if (fork() == 0) {
            if (fork() == 0)
                _exit(5);
            _exit(0);
        }
        wait(NULL);
        return;
    }
    send(c->worker_fd, &byte, 1, MSG_NOSIGNAL);
}

WEIR_NORETURN static void work(struct supervisor *s)
{
    const struct child *c = s->born;
    struct scoreboard_slot *slot = &s->board->slots[c->slot];
    const struct timespec tick = {.tv_nsec = 1000000};
    /* Its own one, and two between the workers. */
    if (signals_are_plain() && sockets() == sockets_before + 3)
        atomic_fetch_add(&plan->plain, 1);
    if (atomic_load(&plan->boot_exit))
        _exit(atomic_load(&plan->boot_exit));
    while (atomic_load(&plan->boot_hold))
        nanosleep(&tick, NULL);
    sigset_t taken;
    sigfillset(&taken);
    sigprocmask(SIG_SETMASK, &taken, NULL);
    if (atomic_load(&plan->asks))
        atomic_store(&slot->recycle, RECYCLE_MAX_REQUESTS);
    atomic_store(&slot->state, WORKER_READY);
    send(c->worker_fd, "R", 1, MSG_NOSIGNAL);
    for (;;) {
        int signo = sigtimedwait(&taken, NULL, &tick);
        bool deaf = atomic_load(&plan->deaf); /* before the test hears of the signal */
        if (signo == SIGTERM)
            tell("term %u\n", c->age);
        if (signo == SIGUSR1)
            tell("reopen %u\n", c->age);
        if (signo == SIGTERM && !deaf)
            _exit(0);
        if (signo == SIGQUIT && !deaf)
            _exit(1);
        if (signo == SIGABRT)
            atomic_fetch_add(&plan->aborted, 1);
        obey(c, slot);
    }
}

/* ---- the host ---- */

static struct supervisor *running; /* in its process */
static char a_keeper[] = "a", b_keeper[] = "b";

static pid_t on_spawn(void *host, struct child *c)
{
    (void)host;
    if (atomic_load(&plan->fail_fork))
        return -EAGAIN;
    tell("spawn %u\n", c->age);
    return fork();
}

static void on_exited(void *host, struct child *c, int status)
{
    (void)host;
    tell("exited %u %d\n", c->age, WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
}

static int on_ready(void *host)
{
    (void)host;
    tell("ready\n");
    return 0;
}

static int on_reload(void *host, struct supervisor_settings *s)
{
    (void)host;
    tell("reload\n");
    if (atomic_load(&plan->refuse))
        return -1;
    if (atomic_load(&plan->keeper) == 2 && supervisor_keep(running, b_keeper))
        return -1;
    if (atomic_load(&plan->workers))
        s->workers = (unsigned)atomic_load(&plan->workers);
    return 0;
}

static void on_reloaded(void *host, bool ok)
{
    (void)host;
    if (atomic_load(&plan->keeper) == 2)
        supervisor_unkeep(running, ok ? a_keeper : b_keeper);
    tell("reloaded %d\n", ok);
}

static void on_counted(void *host, unsigned now, unsigned before)
{
    (void)host;
    tell("counted %u %u\n", now, before);
}

static void on_upgrade(void *host)
{
    (void)host;
    tell("upgrade\n");
}

static void on_stranger(void *host, pid_t pid, int status)
{
    (void)host;
    (void)pid;
    tell("stranger %d\n", WEXITSTATUS(status));
}

static void on_stopping(void *host)
{
    (void)host;
    tell("stopping\n");
}

/* A keeper: it ends by TERM. */
static pid_t on_keep(void *host, void *what)
{
    (void)host;
    pid_t pid = fork();
    if (pid) {
        tell("keep %s %d\n", (const char *)what, (int)pid);
        return pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (atomic_load(&plan->keeper_exit))
        _exit(atomic_load(&plan->keeper_exit));
    for (;;)
        pause();
}

static void on_kept(void *host, void *what)
{
    (void)host;
    tell("kept %s\n", (const char *)what);
}

static void on_wait(void *host)
{
    (void)host;
    atomic_fetch_add(&plan->waits, 1);
}

static const struct supervisor_ops OPS = {
    .spawn = on_spawn,
    .exited = on_exited,
    .ready = on_ready,
    .reload = on_reload,
    .reloaded = on_reloaded,
    .counted = on_counted,
    .upgrade = on_upgrade,
    .stranger = on_stranger,
    .keep = on_keep,
    .kept = on_kept,
    .stopping = on_stopping,
    .wait_begin = on_wait,
};

WEIR_NORETURN static void supervise(void)
{
    struct supervisor *s;
    struct err e;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    log_setup(NULL, LOG_CRITICAL, false);
    if (supervisor_new(&s, &set, &OPS, NULL, &e))
        _exit(99);
    if (atomic_load(&plan->keeper) && supervisor_keep(s, a_keeper))
        _exit(98);
    running = s;
    int status = supervisor_run(s);
    if (status == SUPERVISOR_WORKER) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        work(s);
    }
    supervisor_free(&s);
    _exit(status);
}

/* ---- the test ---- */

static void start(unsigned workers)
{
    int ends[2];
    set.workers = workers;
    sockets_before = sockets();
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    events = fdopen(ends[0], "r");
    events_fd = ends[1];
    supervisor_pid = fork();
    assert_true(supervisor_pid >= 0);
    if (supervisor_pid == 0) {
        fclose(events);
        supervise();
    }
}

/* The next event that begins so; others before it are left out. Fails after 10 s. */
static const char *expect(const char *wanted)
{
    static char line[128];
    struct pollfd ready = {.fd = fileno(events), .events = POLLIN};
    for (;;) {
        if (poll(&ready, 1, 10000) <= 0)
            fail_msg("no event '%s'", wanted);
        size_t n = 0;
        while (n + 1 < sizeof line && read(ready.fd, line + n, 1) == 1 && line[n] != '\n')
            n++;
        line[n] = 0;
        if (n == 0)
            fail_msg("the end instead of '%s'", wanted);
        if (strncmp(line, wanted, strlen(wanted)) == 0)
            return line;
    }
}

static int ended(void)
{
    int status;
    assert_int_equal(waitpid(supervisor_pid, &status, 0), supervisor_pid);
    supervisor_pid = 0;
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void send_it(int signo)
{
    assert_int_equal(kill(supervisor_pid, signo), 0);
}

static int stop(void)
{
    send_it(SIGTERM);
    return ended();
}

static void order(unsigned age, enum order what)
{
    atomic_store(&plan->order[age], what);
}

static int setup(void **state)
{
    (void)state;
    plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    set = (struct supervisor_settings){.grace_ms = 5000};
    return plan == MAP_FAILED;
}

static int teardown(void **state)
{
    (void)state;
    if (supervisor_pid > 0) {
        kill(supervisor_pid, SIGKILL);
        waitpid(supervisor_pid, NULL, 0);
    }
    fclose(events);
    close(events_fd);
    munmap(plan, sizeof *plan);
    return 0;
}

static void it_is_ready_when_all_workers_are(void **state)
{
    (void)state;
    atomic_store(&plan->boot_hold, 1);
    start(3);
    expect("spawn 1");
    expect("spawn 2");
    expect("spawn 3");
    atomic_store(&plan->boot_hold, 0);
    expect("ready");
    assert_int_equal(stop(), 0);
    expect("stopping");
    assert_int_equal(atomic_load(&plan->plain), 3);
}

static void a_crashed_worker_is_replaced(void **state)
{
    (void)state;
    start(2);
    expect("ready");
    order(1, CRASH);
    expect("exited 1 7");
    expect("spawn 3");
    assert_int_equal(stop(), 0);
}

static void workers_that_die_young_are_replaced_later_and_later(void **state)
{
    (void)state;
    start(1);
    expect("ready");
    int64_t last_ms = 0;
    for (unsigned age = 1; age <= 4; age++) {
        order(age, CRASH);
        expect("exited");
        int64_t begin_ns = clock_mono_ns();
        expect("spawn");
        int64_t waited_ms = (clock_mono_ns() - begin_ns) / 1000000;
        /* 0, 100, 200, 400 */
        assert_true(age == 1 ? waited_ms < 90 : waited_ms >= (90 << (age - 2)));
        assert_true(waited_ms >= last_ms || waited_ms > 90);
        last_ms = waited_ms;
    }
    assert_int_equal(stop(), 0);
}

static void a_worker_that_cannot_start_ends_the_start_with_its_code(void **state)
{
    static const struct {
        int code, status;
    } CASES[] = {{3, 3}, {4, 4}, {9, 3}};
    for (size_t i = 0; i < countof(CASES); i++) {
        atomic_store(&plan->boot_exit, CASES[i].code);
        start(3);
        assert_int_equal(ended(), CASES[i].status);
        if (i + 1 < countof(CASES)) {
            teardown(state);
            setup(state);
        }
    }
}

static void a_fork_that_fails_ends_the_start(void **state)
{
    (void)state;
    atomic_store(&plan->fail_fork, 1);
    start(1);
    assert_int_equal(ended(), 1);
}

static void a_replacement_that_cannot_be_made_is_tried_again(void **state)
{
    (void)state;
    start(2);
    expect("ready");
    atomic_store(&plan->boot_exit, 4);
    order(2, CRASH);
    expect("exited 3 4");
    expect("exited 4 4");
    atomic_store(&plan->boot_exit, 0);
    expect("spawn 5");
    atomic_store(&plan->fail_fork, 1);
    order(1, CRASH);
    expect("exited 1 7");
    atomic_store(&plan->fail_fork, 0);
    expect("spawn");
    assert_int_equal(stop(), 0);
}

static void a_reload_retires_the_old_when_all_new_are_ready(void **state)
{
    (void)state;
    start(2);
    expect("ready");
    atomic_store(&plan->boot_hold, 1);
    send_it(SIGHUP);
    expect("reload");
    expect("spawn 3");
    expect("spawn 4");
    atomic_store(&plan->boot_hold, 0);
    expect("reloaded 1");
    expect("exited");
    expect("exited");
    assert_int_equal(stop(), 0);
}

static void a_hangup_before_the_start_is_over_waits_for_it(void **state)
{
    (void)state;
    atomic_store(&plan->boot_hold, 1);
    start(1);
    expect("spawn 1");
    send_it(SIGHUP);
    send_it(SIGTTIN); /* which it answers after the other */
    expect("counted 2 1");
    atomic_store(&plan->boot_hold, 0);
    expect("ready");
    expect("reload");
    expect("reloaded 1");
    assert_int_equal(stop(), 0);
}

static void while_a_reload_hangs_old_workers_that_end_are_replaced(void **state)
{
    (void)state;
    start(2);
    expect("ready");
    atomic_store(&plan->boot_hold, 1);
    send_it(SIGHUP);
    expect("spawn 3");
    expect("spawn 4");
    order(1, CRASH);
    expect("exited 1 7");
    expect("spawn 5");
    atomic_store(&plan->boot_hold, 0);
    expect("reloaded 1");
    expect("exited 5"); /* which was of the old generation, too */
    assert_int_equal(stop(), 0);
}

static void a_reload_that_fails_keeps_what_replaced_an_old_worker(void **state)
{
    (void)state;
    start(1);
    expect("ready");
    atomic_store(&plan->boot_hold, 1);
    send_it(SIGHUP);
    expect("spawn 2");
    order(1, CRASH);
    expect("exited 1 7");
    expect("spawn 3");
    atomic_store(&plan->refuse, 1);
    send_it(SIGHUP);
    expect("reloaded 0");
    expect("exited 2");
    atomic_store(&plan->boot_hold, 0);
    order(3, CRASH); /* it came to serve */
    expect("exited 3 7");
    expect("spawn 4");
    assert_int_equal(stop(), 0);
}

static void a_reload_whose_workers_do_not_get_ready_ends_after_boot_timeout(void **state)
{
    (void)state;
    set.boot_timeout_ms = 300;
    start(2);
    expect("ready");
    atomic_store(&plan->boot_hold, 1);
    int64_t begin_ns = clock_mono_ns();
    send_it(SIGHUP);
    expect("spawn 4");
    expect("reloaded 0");
    assert_true(clock_mono_ns() - begin_ns >= INT64_C(300000000));
    atomic_store(&plan->boot_hold, 0);
    send_it(SIGHUP);
    expect("reloaded 1");
    assert_int_equal(stop(), 0);
}

static void a_start_that_does_not_come_to_an_end_fails_after_boot_timeout(void **state)
{
    (void)state;
    set.boot_timeout_ms = 100;
    atomic_store(&plan->boot_hold, 1);
    start(1);
    assert_int_equal(ended(), EXIT_BOOT_FAILED);
}

static void a_reload_may_change_the_number(void **state)
{
    (void)state;
    start(1);
    expect("ready");
    atomic_store(&plan->workers, 3);
    send_it(SIGHUP);
    expect("counted 3 1");
    expect("reloaded 1");
    atomic_store(&plan->boot_exit, 3);
    atomic_store(&plan->workers, 5);
    send_it(SIGHUP);
    expect("counted 5 3");
    expect("counted 3 5");
    expect("reloaded 0");
    assert_int_equal(stop(), 0);
}

static void a_reload_that_fails_keeps_the_old(void **state)
{
    (void)state;
    start(2);
    expect("ready");
    atomic_store(&plan->boot_exit, 4);
    send_it(SIGHUP);
    expect("reloaded 0");
    atomic_store(&plan->boot_exit, 0);
    /* The old ones are there: a crash of one is replaced, and then all get TERM. */
    order(1, CRASH);
    expect("exited 1 7");
    expect("spawn");
    send_it(SIGTERM);
    expect("term 2");
    assert_int_equal(ended(), 0);
}

static void a_refused_reload_changes_nothing(void **state)
{
    (void)state;
    start(1);
    expect("ready");
    atomic_store(&plan->refuse, 1);
    send_it(SIGHUP);
    expect("reload");
    send_it(SIGTERM);
    expect("term 1");
    assert_int_equal(ended(), 0);
}

static void a_second_reload_takes_the_place_of_one_that_has_not_ended(void **state)
{
    (void)state;
    start(1);
    expect("ready");
    atomic_store(&plan->boot_hold, 1);
    send_it(SIGHUP);
    expect("spawn 2");
    send_it(SIGHUP);
    expect("spawn 3");
    expect("exited 2 -15");
    atomic_store(&plan->boot_hold, 0);
    expect("reloaded 1");
    expect("exited 1 0");
    assert_int_equal(stop(), 0);
}

static void a_refused_reload_ends_one_that_is_not_over(void **state)
{
    (void)state;
    start(1);
    expect("ready");
    atomic_store(&plan->boot_hold, 1);
    send_it(SIGHUP);
    expect("spawn 2");
    atomic_store(&plan->refuse, 1);
    send_it(SIGHUP);
    expect("reloaded 0");
    expect("exited 2 -15");
    atomic_store(&plan->boot_hold, 0);
    order(1, CRASH);
    expect("exited 1 7");
    expect("spawn 3");
    assert_int_equal(stop(), 0);
}

static void a_reload_ends_where_workers_ask_at_once(void **state)
{
    (void)state;
    start(2);
    expect("ready");
    atomic_store(&plan->asks, 1);
    send_it(SIGHUP);
    expect("reloaded 1");
    assert_int_equal(stop(), 0);
}

static void it_sleeps(void)
{
    const struct timespec moment = {.tv_nsec = 300000000}; /* longer than any wait for a spawn here */
    nanosleep(&moment, NULL);
    int before = atomic_load(&plan->waits);
    nanosleep(&moment, NULL);
    assert_in_range(atomic_load(&plan->waits) - before, 0, 5);
}

static void a_wait_for_a_spawn_that_nobody_needs_ends(void **state)
{
    (void)state;
    start(1);
    expect("ready");
    for (unsigned age = 1; age <= 2; age++) { /* twice, young, and replaced before their end */
        order(age, LEAVE);
        expect("spawn");
        order(age, CRASH);
        expect("exited");
    }
    it_sleeps();
    assert_int_equal(stop(), 0);
}

static void a_crash_of_the_old_delays_no_reload(void **state)
{
    (void)state;
    start(3);
    expect("ready");
    atomic_store(&plan->boot_hold, 1);
    send_it(SIGHUP);
    expect("spawn 6");
    order(1, CRASH);
    expect("exited 1 7");
    order(2, CRASH);
    expect("exited 2 7");
    it_sleeps();
    atomic_store(&plan->boot_hold, 0);
    expect("reloaded 1");
    assert_int_equal(stop(), 0);
}

static void the_number_of_workers_follows_ttin_and_ttou(void **state)
{
    (void)state;
    start(1);
    expect("ready");
    send_it(SIGTTIN);
    expect("counted 2 1");
    expect("spawn 2");
    send_it(SIGTTOU);
    expect("counted 1 2");
    expect("exited");
    send_it(SIGTTOU); /* one stays */
    send_it(SIGTTIN);
    expect("counted 2 1");
    assert_int_equal(stop(), 0);
}

static void a_worker_that_asks_is_retired_after_its_replacement_serves(void **state)
{
    (void)state;
    start(2);
    expect("ready");
    atomic_store(&plan->boot_hold, 1);
    order(1, RECYCLE);
    expect("spawn 3");
    order(2, RECYCLE);
    expect("spawn 4");
    atomic_store(&plan->boot_hold, 0);
    expect("term");
    expect("term");
    assert_int_equal(stop(), 0);
}

static void a_stuck_worker_is_killed_when_all_else_is_done(void **state)
{
    (void)state;
    set.grace_ms = 60000;
    start(1);
    expect("ready");
    atomic_store(&plan->deaf, 1);
    int64_t begin_ns = clock_mono_ns();
    order(1, STUCK);
    expect("spawn 2");
    expect("term 1");
    expect("exited 1 -9");
    int64_t ms = (clock_mono_ns() - begin_ns) / 1000000;
    assert_true(ms >= STUCK_MS && ms < 20000);
    atomic_store(&plan->deaf, 0);
    assert_int_equal(stop(), 0);
}

static void a_silent_worker_gets_abrt_and_then_kill(void **state)
{
    (void)state;
    set.worker_timeout_ms = 1500;
    start(1);
    expect("ready");
    order(1, SILENT);
    expect("spawn 2");
    expect("exited 1 -9");
    assert_int_equal(atomic_load(&plan->aborted), 1);
    assert_int_equal(stop(), 0);
}

static void a_worker_beyond_its_grace_is_killed(void **state)
{
    (void)state;
    set.grace_ms = 50;
    atomic_store(&plan->deaf, 1);
    start(1);
    expect("ready");
    assert_int_equal(stop(), 1);
    expect("exited 1 -9");
}

static void quit_does_not_wait(void **state)
{
    (void)state;
    set.grace_ms = 60000;
    start(2);
    expect("ready");
    send_it(SIGQUIT);
    assert_int_equal(ended(), 1); /* work was cut, as the workers tell */
}

static void quit_after_term_does_not_wait_any_more(void **state)
{
    (void)state;
    set.grace_ms = 60000;
    atomic_store(&plan->deaf, 1);
    start(1);
    expect("ready");
    send_it(SIGTERM);
    expect("term 1");
    atomic_store(&plan->deaf, 0);
    send_it(SIGINT);
    assert_int_equal(ended(), 1);
}

static void a_second_term_shortens_the_grace(void **state)
{
    (void)state;
    set.grace_ms = 60000;
    atomic_store(&plan->deaf, 1);
    start(1);
    expect("ready");
    send_it(SIGTERM);
    expect("term 1");
    int64_t begin_ns = clock_mono_ns();
    send_it(SIGTERM);
    assert_int_equal(ended(), 1);
    int64_t ms = (clock_mono_ns() - begin_ns) / 1000000;
    assert_true(ms >= HURRY_MS && ms < 20000);
}

static void a_stop_during_the_start_is_a_stop(void **state)
{
    (void)state;
    atomic_store(&plan->boot_hold, 1);
    start(2);
    expect("spawn 2");
    assert_int_equal(stop(), 0);
}

static void usr1_reaches_every_worker_that_serves_also_later(void **state)
{
    (void)state;
    start(1);
    expect("ready");
    atomic_store(&plan->boot_hold, 1);
    send_it(SIGTTIN);
    expect("spawn 2");
    send_it(SIGUSR1);
    expect("reopen 1");
    atomic_store(&plan->boot_hold, 0);
    expect("reopen 2");
    assert_int_equal(stop(), 0);
}

static void usr2_is_the_hosts(void **state)
{
    (void)state;
    start(1);
    expect("ready");
    send_it(SIGUSR2);
    expect("upgrade");
    assert_int_equal(stop(), 0);
}

static void winch_stops_the_workers_of_a_daemon_alone(void **state)
{
    (void)state;
    start(1);
    expect("ready");
    send_it(SIGWINCH);
    send_it(SIGTTIN);
    expect("counted 2 1");
    assert_int_equal(stop(), 0);
    teardown(state);
    setup(state);
    set.daemonized = true;
    start(1);
    expect("ready");
    send_it(SIGWINCH);
    expect("counted 0 1");
    expect("exited 1 0");
    send_it(SIGHUP);
    expect("counted 1 0");
    expect("reloaded 1");
    assert_int_equal(stop(), 0);
}

static void strangers_are_reaped(void **state)
{
    (void)state;
    start(1);
    expect("ready");
    order(1, ORPHAN);
    expect("stranger 5");
    assert_int_equal(stop(), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* ---- keepers ---- */

static pid_t keeper_of(const char *line)
{
    const char *number = strrchr(line, ' ');
    return number ? (pid_t)atol(number) : 0;
}

static void a_keeper_starts_first_and_ends_after_the_workers(void **state)
{
    (void)state;
    atomic_store(&plan->keeper, 1);
    start(2);
    expect("keep a");
    expect("spawn 1");
    expect("ready");
    send_it(SIGTERM);
    expect("exited");
    expect("exited");
    expect("kept a");
    assert_int_equal(ended(), 0);
}

static void a_keeper_that_dies_is_replaced(void **state)
{
    (void)state;
    atomic_store(&plan->keeper, 1);
    start(1);
    pid_t pid = keeper_of(expect("keep a"));
    expect("ready");
    for (int i = 0; i < 5; i++) {
        assert_int_equal(kill(pid, SIGKILL), 0);
        pid = keeper_of(expect("keep a"));
    }
    assert_int_equal(stop(), 0);
}

static void a_keeper_that_cannot_run_is_tried_again_and_workers_serve(void **state)
{
    (void)state;
    atomic_store(&plan->keeper, 1);
    atomic_store(&plan->keeper_exit, 3);
    start(1);
    expect("ready");
    for (int i = 0; i < 4; i++)
        expect("keep a");
    assert_int_equal(stop(), 0);
}

static void a_reload_with_another_keeper_ends_the_old_one_after_it(void **state)
{
    (void)state;
    atomic_store(&plan->keeper, 2);
    start(1);
    expect("ready");
    send_it(SIGHUP);
    expect("keep b");
    expect("reloaded 1");
    expect("kept a");
    send_it(SIGTERM);
    expect("kept b");
    assert_int_equal(ended(), 0);
}

static void a_reload_that_fails_keeps_the_old_keeper(void **state)
{
    (void)state;
    atomic_store(&plan->keeper, 2);
    start(1);
    expect("ready");
    atomic_store(&plan->boot_exit, 3);
    send_it(SIGHUP);
    expect("keep b");
    expect("reloaded 0");
    expect("kept b");
    atomic_store(&plan->boot_exit, 0);
    send_it(SIGTERM);
    expect("kept a");
    assert_int_equal(ended(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_ready_when_all_workers_are),
        TEST(a_crashed_worker_is_replaced),
        TEST(workers_that_die_young_are_replaced_later_and_later),
        TEST(a_worker_that_cannot_start_ends_the_start_with_its_code),
        TEST(a_fork_that_fails_ends_the_start),
        TEST(a_replacement_that_cannot_be_made_is_tried_again),
        TEST(a_reload_retires_the_old_when_all_new_are_ready),
        TEST(a_hangup_before_the_start_is_over_waits_for_it),
        TEST(while_a_reload_hangs_old_workers_that_end_are_replaced),
        TEST(a_reload_that_fails_keeps_what_replaced_an_old_worker),
        TEST(a_reload_whose_workers_do_not_get_ready_ends_after_boot_timeout),
        TEST(a_start_that_does_not_come_to_an_end_fails_after_boot_timeout),
        TEST(a_reload_may_change_the_number),
        TEST(a_reload_that_fails_keeps_the_old),
        TEST(a_refused_reload_changes_nothing),
        TEST(a_second_reload_takes_the_place_of_one_that_has_not_ended),
        TEST(a_refused_reload_ends_one_that_is_not_over),
        TEST(a_reload_ends_where_workers_ask_at_once),
        TEST(a_wait_for_a_spawn_that_nobody_needs_ends),
        TEST(a_crash_of_the_old_delays_no_reload),
        TEST(the_number_of_workers_follows_ttin_and_ttou),
        TEST(a_worker_that_asks_is_retired_after_its_replacement_serves),
        TEST(a_stuck_worker_is_killed_when_all_else_is_done),
        TEST(a_silent_worker_gets_abrt_and_then_kill),
        TEST(a_worker_beyond_its_grace_is_killed),
        TEST(quit_does_not_wait),
        TEST(quit_after_term_does_not_wait_any_more),
        TEST(a_second_term_shortens_the_grace),
        TEST(a_stop_during_the_start_is_a_stop),
        TEST(usr1_reaches_every_worker_that_serves_also_later),
        TEST(usr2_is_the_hosts),
        TEST(winch_stops_the_workers_of_a_daemon_alone),
        TEST(strangers_are_reaped),
        TEST(a_keeper_starts_first_and_ends_after_the_workers),
        TEST(a_keeper_that_dies_is_replaced),
        TEST(a_keeper_that_cannot_run_is_tried_again_and_workers_serve),
        TEST(a_reload_with_another_keeper_ends_the_old_one_after_it),
        TEST(a_reload_that_fails_keeps_the_old_keeper),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
