/*
 * python_module_keeper: the supervisor's keepers: what one is for, and the process that becomes it.
 *
 * Each configuration that needs a keeper has a seat: the door that its workers connect to, and a
 * pipe whose end tells the keeper that the supervisor is gone. A reload that changes nothing of it
 * keeps the seat; otherwise the new one stands beside the old until that has ended, and workers of
 * either generation know their own.
 */
#include "python_module.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "admit/jwt.h"
#include "base/clock.h"
#include "proc/keeper.h"
#include "python_module_process.h"
#include "serve/shared.h"

struct python_seat {
    struct config_object *config; /* counted; texts of `keeper` are its */
    struct keeper_door door;
    struct keeper_config keeper;
    int told[2]; /* owned; the supervisor holds [1] and writes nothing */
};

/* ---- what the configuration says ---- */

static void log_text_of(enum log_level level, const char *text)
{
    log_line(level, 0, "%s", text);
}

static void reopen(void)
{
    struct err e = {{0}};
    if (log_reopen(&e))
        log_line(LOG_ERROR, 0, "%s", e.text);
}

/* In the keeper: what was fetched, for all workers. */
static bool publish(void *arg, unsigned identifier, struct slice jwks, const char *error)
{
    const struct shared *shared = arg;
    struct keybox *box = shared->parts.keys;
    int64_t now_s = clock_wall_ns() / 1000000000;
    struct jwt_keys *keys = NULL;
    struct err e = {{0}};
    if (!error && jwt_keys_jwks(&keys, jwks, 0, &e))
        error = e.text;
    bool good = !error;
    keybox_begin(box, identifier, clock_mono_ns());
    if (error) {
        keybox_failed(box, identifier, error, now_s);
        log_flood(LOG_WARNING, 0, "the keys of identifier %u are not new: %s", identifier + 1, error);
    } else {
        log_line(LOG_INFO, 0, "identifier %u: %u keys for tokens were fetched", identifier + 1,
                 jwt_keys_count(keys));
        keybox_publish(box, identifier, jwks, now_s);
    }
    jwt_keys_free(&keys);
    return good;
}

static bool same_keeper(const struct keeper_config *a, const struct keeper_config *b)
{
    if (a->uid != b->uid || a->n_jwks != b->n_jwks || strcmp(a->store, b->store) != 0)
        return false;
    for (unsigned i = 0; i < a->n_jwks; i++)
        if (a->jwks[i].identifier != b->jwks[i].identifier ||
            strcmp(a->jwks[i].url, b->jwks[i].url) != 0)
            return false;
    return true;
}

void python_keeper_config(struct keeper_config *k, const struct conf *c, struct shared *shared)
{
    const struct privileges *p = &python_process.privileges;
    *k = (struct keeper_config){
        .store = c->store,
        .uid = python_process.begun && p->change_uid ? p->uid : geteuid(),
        .stop_fd = -1,
        .process = true,
        .drain_ms = c->grace + RETIRE_EXTRA_MS,
        .ca_file = "",
        .publish = publish,
        .arg = shared,
        .log = log_text_of,
        .reopen = reopen,
    };
    keeper_config_jwks(k, &c->policy);
}

/* ---- seats ---- */

static void seat_free(struct python_seat *s)
{
    keeper_door_close(&s->door);
    for (int i = 0; i < 2; i++)
        if (s->told[i] >= 0)
            close(s->told[i]);
    Py_DECREF(s->config);
    free(s);
}

static int seat_new(struct python_seat **out, struct config_object *config,
                    const struct keeper_config *k, struct err *e)
{
    struct python_seat *s = *out = calloc(1, sizeof *s);
    if (!s) {
        (void)err_set(e, "out of memory");
        return -1;
    }
    s->config = (struct config_object *)Py_NewRef((PyObject *)config);
    s->keeper = *k;
    s->told[0] = s->told[1] = -1;
    int rc = keeper_door_open(&s->door, e);
    if (!rc && pipe2(s->told, O_CLOEXEC)) {
        s->told[0] = s->told[1] = -1;
        rc = err_set(e, "cannot make a pipe for the keeper: %s", strerror(errno));
    }
    s->keeper.door = &s->door;
    s->keeper.stop_fd = s->told[0];
    if (rc) {
        seat_free(s);
        *out = NULL;
    }
    return rc;
}

int python_keeper_prepare(struct supervisor_object *o, struct config_object *config,
                          struct python_seat **seat, struct err *e)
{
    struct keeper_config k;
    *seat = NULL;
    if (!keeper_wanted(&config->conf.policy))
        return 0;
    python_keeper_config(&k, &config->conf, o->shared);
    if (o->seat && same_keeper(&o->seat->keeper, &k)) {
        *seat = o->seat;
        return 0;
    }
    if (seat_new(seat, config, &k, e))
        return -1;
    if (supervisor_keep(o->supervisor, *seat)) {
        seat_free(*seat);
        *seat = NULL;
        return err_set(e, "keepers of earlier reloads have not ended yet; reload again later");
    }
    return 0;
}

void python_keeper_settle(struct supervisor_object *o, bool ok)
{
    struct python_seat *drop = ok ? o->seat : o->next_seat;
    struct python_seat *stay = ok ? o->next_seat : o->seat;
    if (drop && drop != stay)
        supervisor_unkeep(o->supervisor, drop);
    o->seat = stay;
    o->next_seat = NULL;
}

void python_keeper_kept(void *host, void *what)
{
    struct supervisor_object *o = host;
    if (o->seat == what)
        o->seat = NULL;
    if (o->next_seat == what)
        o->next_seat = NULL;
    seat_free(what);
}

/* In a worker or template: nobody there holds a keeper up. */
void python_keeper_forget(struct supervisor_object *o)
{
    struct python_seat *seats[] = {o->seat, o->next_seat};
    for (size_t i = 0; i < countof(seats); i++) {
        if (!seats[i])
            continue;
        keeper_door_close(&seats[i]->door);
        for (int k = 0; k < 2; k++)
            if (seats[i]->told[k] >= 0) {
                close(seats[i]->told[k]);
                seats[i]->told[k] = -1;
            }
    }
}

const struct keeper_door *python_keeper_door(const struct supervisor_object *o)
{
    const struct python_seat *s = o->next_config ? o->next_seat : o->seat;
    return s ? &s->door : NULL;
}

/* ---- the process ---- */

WEIR_NORETURN static void become(struct supervisor_object *o, struct python_seat *s,
                                 pid_t supervisor)
{
    struct err e = {{0}};
    int rc = 0;
    close(s->told[1]);
    s->told[1] = -1;
    supervisor_forget(o->supervisor);
    python_template_forget(o);
    sockets_forget(&o->next_sockets);
    sockets_forget(&o->sockets);
    if (python_process.begun)
        rc = process_keeper(&python_process, &s->config->conf, &e);
    /* A change of user makes the kernel forget it: after that. */
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (!rc && getppid() == supervisor)
        rc = keeper_run(&s->keeper, &e);
    if (rc)
        log_line(LOG_ERROR, 0, "%s", e.text);
    _exit(rc ? EXIT_BOOT_FAILED : 0);
}

/* No Python in the new process: it never comes back from here. */
pid_t python_keeper_keep(void *host, void *what)
{
    pid_t supervisor = getpid();
    pid_t pid = fork();
    if (pid == 0)
        become(host, what, supervisor);
    return pid < 0 ? -errno : pid;
}
