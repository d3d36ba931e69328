/*
 * fake_server: the whole server with the application of fake_app.h, without Python.
 *
 * For the tests that need the threads and the protocol but not the interpreter: under TSan, and in
 * the soak run. It prints its port and serves until TERM.
 *
 * usage: fake_server [--name value …]   (settings of Weir)
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "fake_app.h"
#include "serve/server.h"

static int g_stop_fd;

static void on_signal(int signo)
{
    (void)signo;
    uint64_t one = 1;
    ssize_t n = write(g_stop_fd, &one, sizeof one);
    (void)n;
}

static int fail(const struct err *e)
{
    fprintf(stderr, "fake_server: %s\n", e->text);
    return 1;
}

int main(int argc, char **argv)
{
    struct conf conf;
    struct err e = {{0}};
    if (conf_init(&conf, CONF_WEIR, &e))
        return fail(&e);
    if (conf_set(&conf, "bind", "127.0.0.1:0", "default", &e))
        return fail(&e);
    for (int i = 1; i + 1 < argc; i += 2)
        if (conf_set(&conf, argv[i] + 2, argv[i + 1], argv[i], &e))
            return fail(&e);
    if (conf_finish(&conf, &e))
        return fail(&e);
    struct server *s = NULL;
    if (server_new(&s, &conf, &fake_app, &e) || server_listen(s, NULL, 0, &e))
        return fail(&e);
    signal(SIGPIPE, SIG_IGN);
    g_stop_fd = eventfd(0, EFD_CLOEXEC);
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    if (log_start(&e) || server_start(s, &e))
        return fail(&e);
    for (unsigned i = 0; i < s->listeners.n; i++)
        printf("%s\n", s->listeners.items[i]->url);
    fflush(stdout);

    int stops = 0;
    for (;;) {
        struct pollfd fds[2] = {{.fd = s->done_fd, .events = POLLIN},
                                {.fd = g_stop_fd, .events = POLLIN}};
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            break;
        if (fds[0].revents)
            break;
        if (fds[1].revents) {
            uint64_t k = 0;
            if (read(g_stop_fd, &k, sizeof k) == sizeof k)
                server_stop(s, ++stops > 1 ? SERVER_NOW : SERVER_DRAIN);
        }
    }
    unsigned inside = server_join(s, 2000);
    struct counters *k = s->counters;
    printf("requests %llu connections %llu abandoned %llu inside %u\n",
           (unsigned long long)atomic_load(&k->requests),
           (unsigned long long)atomic_load(&k->connections),
           (unsigned long long)atomic_load(&k->abandoned), inside);
    if (!inside) {
        server_free(&s);
        conf_fini(&conf);
    }
    log_stop();
    return inside ? 1 : 0;
}
