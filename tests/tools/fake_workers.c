/*
 * fake_workers: several workers with the application of fake_app.h, and the smallest supervisor that
 * lets them be tested: it starts, replaces and stops workers, and shows the board.
 *
 * usage: fake_workers WORKERS [--name value …]   (settings of Weir)
 *
 * It prints its URL, then "ready SLOT PID" and "ended SLOT PID STATUS" as it happens. Lines it reads:
 *   show        one line for each live worker, then "."
 *   reload      as many new workers; each old one stops when they are ready
 *   stop        the whole server
 *   add, less   one worker more, one less
 * A worker that ends by itself, or asks to be replaced, is replaced.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/must.h"
#include "fake_app.h"
#include "serve/server.h"

enum { SLOTS = 64 };

static struct conf g_conf;
static struct scoreboard *g_board;
static struct listen_set g_listeners;
static int g_hand[2];
static int g_stop_fd;
static volatile sig_atomic_t g_term;

/* What the supervisor knows of a slot beyond the board. */
static struct {
    int tell;      /* its end of the socket pair */
    bool ready;    /* was seen so */
    bool told;     /* to stop */
    bool wanted;   /* one of those that shall run */
    unsigned successor; /* slot + 1 of the one that waits for this one's place */
} g_slots[SLOTS];

static void on_term(int signo)
{
    (void)signo;
    g_term = 1;
}

static void on_worker_term(int signo)
{
    (void)signo;
    uint64_t one = 1;
    ssize_t n = write(g_stop_fd, &one, sizeof one);
    (void)n;
}

/* ---- a worker ---- */

static int serve(unsigned slot, int tell)
{
    struct err e = {{0}};
    struct server *s = NULL;
    struct server_worker w = {
        .board = g_board, .slot = slot, .hand_recv = g_hand[0], .hand_send = g_hand[1], .tell_fd = tell};
    g_stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct sigaction sa = {.sa_handler = on_worker_term};
    sigaction(SIGTERM, &sa, NULL);
    if (server_new(&s, &g_conf, &fake_app, &e))
        goto failed;
    server_join_board(s, &w);
    if (server_share_listeners(s, &g_listeners, &e))
        goto failed;
    for (unsigned i = 0; i < g_listeners.n; i++)
        close(g_listeners.items[i]->fd);
    if (log_start(&e) || server_start(s, &e))
        goto failed;
    int stops = 0;
    for (bool orphan = false;;) {
        struct pollfd fds[3] = {{.fd = s->done_fd, .events = POLLIN},
                                {.fd = g_stop_fd, .events = POLLIN},
                                {.fd = orphan ? -1 : tell, .events = POLLIN}};
        if (poll(fds, 3, -1) < 0 && errno != EINTR)
            break;
        if (fds[0].revents)
            break;
        uint64_t k;
        if (fds[1].revents && read(g_stop_fd, &k, sizeof k) == sizeof k)
            server_stop(s, atomic_load(&g_board->stopping) ? SERVER_DRAIN : SERVER_HANDOVER);
        if (fds[2].revents) { /* the supervisor is gone */
            orphan = true;
            server_stop(s, ++stops > 1 ? SERVER_NOW : SERVER_DRAIN);
        }
    }
    unsigned inside = server_join(s, 2000);
    if (!inside)
        server_free(&s);
    log_stop();
    return inside ? 1 : 0;
failed:
    fprintf(stderr, "fake_workers: %s\n", e.text);
    return 3;
}

/* ---- the supervisor ---- */

static void start(unsigned slot)
{
    struct scoreboard_slot *s = &g_board->slots[slot];
    int pair[2];
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    atomic_store(&s->state, WORKER_BOOTING);
    atomic_store(&s->recycle, RECYCLE_NONE);
    atomic_fetch_add(&s->generation, 1);
    fflush(NULL);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(pair[0]);
        for (unsigned i = 0; i < SLOTS; i++)
            if (atomic_load(&g_board->slots[i].pid))
                close(g_slots[i].tell);
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        int status = serve(slot, pair[1]);
        fflush(NULL);
        _exit(status);
    }
    close(pair[1]);
    memset(&g_slots[slot], 0, sizeof g_slots[slot]);
    g_slots[slot].tell = pair[0];
    g_slots[slot].wanted = true;
    atomic_store(&s->pid, pid);
}

static unsigned free_slot(void)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (!atomic_load(&g_board->slots[i].pid))
            return i;
    must(false);
    return 0;
}

static void replace(unsigned old)
{
    unsigned slot = free_slot();
    start(slot);
    g_slots[old].wanted = false;
    g_slots[slot].successor = old + 1;
}

static void tell(unsigned slot)
{
    if (!g_slots[slot].told)
        kill(atomic_load(&g_board->slots[slot].pid), SIGTERM);
    g_slots[slot].told = true;
}

static void stop_all(void)
{
    if (atomic_exchange(&g_board->stopping, 1))
        return;
    listen_quench(&g_listeners);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (atomic_load(&g_board->slots[i].pid)) {
            g_slots[i].wanted = false;
            kill(atomic_load(&g_board->slots[i].pid), SIGTERM);
        }
    }
    listen_close(&g_listeners);
}

static void show(void)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct scoreboard_slot *s = &g_board->slots[i];
        if (atomic_load(&s->pid))
            printf("%u %d %d %u %u %u %llu %llu\n", i, atomic_load(&s->pid), atomic_load(&s->state),
                   atomic_load(&s->open), atomic_load(&s->busy), atomic_load(&s->waiting),
                   (unsigned long long)atomic_load(&s->counters.requests),
                   (unsigned long long)atomic_load(&s->counters.connections));
    }
    printf(".\n");
}

static void command(const char *line)
{
    if (strncmp(line, "show", 4) == 0) {
        show();
    } else if (strncmp(line, "reload", 6) == 0) {
        bool old[SLOTS];
        for (unsigned i = 0; i < SLOTS; i++)
            old[i] = atomic_load(&g_board->slots[i].pid) && g_slots[i].wanted;
        for (unsigned i = 0; i < SLOTS; i++)
            if (old[i])
                replace(i);
    } else if (strncmp(line, "stop", 4) == 0) {
        stop_all();
    } else if (strncmp(line, "add", 3) == 0) {
        start(free_slot());
    } else if (strncmp(line, "less", 4) == 0) {
        for (unsigned i = 0; i < SLOTS; i++) {
            if (atomic_load(&g_board->slots[i].pid) && g_slots[i].wanted) {
                g_slots[i].wanted = false;
                tell(i);
                break;
            }
        }
    }
}

/* Look at the board; false: nobody runs and nobody shall. */
static bool look(int *worst)
{
    bool some = false;
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (unsigned i = 0; i < SLOTS; i++) {
            if (atomic_load(&g_board->slots[i].pid) != pid)
                continue;
            printf("ended %u %d %d\n", i, (int)pid, status);
            if (status && !WIFSIGNALED(status))
                *worst = status;
            atomic_store(&g_board->slots[i].state, WORKER_NONE);
            atomic_store(&g_board->slots[i].pid, 0);
            close(g_slots[i].tell);
            if (g_slots[i].wanted && !atomic_load(&g_board->stopping))
                start(i);
        }
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        struct scoreboard_slot *s = &g_board->slots[i];
        if (!atomic_load(&s->pid))
            continue;
        some = true;
        if (!g_slots[i].ready && atomic_load(&s->state) == WORKER_READY) {
            g_slots[i].ready = true;
            printf("ready %u %d\n", i, atomic_load(&s->pid));
            if (g_slots[i].successor && atomic_load(&g_board->slots[g_slots[i].successor - 1].pid))
                tell(g_slots[i].successor - 1);
        }
        if (atomic_load(&s->recycle) && g_slots[i].wanted && !atomic_load(&g_board->stopping))
            replace(i);
    }
    return some || !atomic_load(&g_board->stopping);
}

int main(int argc, char **argv)
{
    struct err e = {{0}};
    unsigned workers = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 2;
    struct listen_spec spec = {.kind = LISTEN_TCP, .host = "127.0.0.1", .port = "0", .text = "127.0.0.1:0",
                               .ipv4 = true, .backlog = 2048};
    if (conf_init(&g_conf, CONF_WEIR, &e))
        goto failed;
    for (int i = 2; i + 1 < argc; i += 2)
        if (conf_set(&g_conf, argv[i] + 2, argv[i + 1], argv[i], &e))
            goto failed;
    if (conf_finish(&g_conf, &e))
        goto failed;
    listen_init(&g_listeners);
    if (listen_open(&g_listeners, &spec, &e))
        goto failed;
    g_board = scoreboard_new(SLOTS);
    must(g_board);
    atomic_store(&g_board->top, SLOTS);
    atomic_store(&g_board->supervisor, getpid());
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, g_hand) == 0);
    signal(SIGPIPE, SIG_IGN);
    struct sigaction sa = {.sa_handler = on_term};
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%s\n", g_listeners.items[0]->url);
    for (unsigned i = 0; i < workers; i++)
        start(i);

    int worst = 0, in = 0;
    char line[128];
    size_t n = 0;
    while (look(&worst)) {
        struct pollfd p = {.fd = in, .events = POLLIN};
        if (poll(&p, 1, 5) > 0) {
            char c;
            if (read(0, &c, 1) != 1) {
                in = -1;
                g_term = 1;
            } else if (c == '\n') {
                line[n] = '\0';
                n = 0;
                command(line);
            } else if (n < sizeof line - 1) {
                line[n++] = c;
            }
        }
        if (g_term)
            stop_all();
    }
    return worst ? 1 : 0;
failed:
    fprintf(stderr, "fake_workers: %s\n", e.text);
    return 1;
}
