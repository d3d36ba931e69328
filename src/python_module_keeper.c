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
#include "python_module_admin.h"
#include "python_module_process.h"
#include "serve/probe.h"
#include "serve/shared.h"
#include "wsgi/stacks.h"

struct python_seat {
    struct config_object *config; /* counted; texts of `keeper` are its */
    struct keeper_door door;
    struct keeper_config keeper;
    int told[2]; /* owned; the supervisor holds [1] and writes nothing */
    struct python_admin admin;
    char *seen; /* owned; what the admin listener shows of the configuration; NULL: nothing looks */
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

static bool same_list(const struct conf_list *a, const struct conf_list *b)
{
    bool same = a->n == b->n;
    for (unsigned i = 0; same && i < a->n; i++)
        same = strcmp(a->items[i], b->items[i]) == 0;
    return same;
}

/* The whole configuration as text, malloc'ed; NULL: no memory. */
static char *all_settings(const struct conf *c)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return NULL;
    conf_print(c, f);
    if (fclose(f) == 0)
        return text;
    free(text);
    return NULL;
}

static bool looks(const struct conf *c)
{
    return *c->admin || *c->otlp_endpoint;
}

/* Would a keeper for *c show, ask for and send the same? A file of a token may have changed unseen. */
static bool same_guest(const struct python_seat *s, const struct conf *c, const char *seen)
{
    const struct conf *was = &s->config->conf;
    char token[CONF_TOKEN_BYTES_MAX + 1];
    struct err e;
    if (!looks(c) && !s->seen)
        return true;
    if (!seen || !s->seen || strcmp(seen, s->seen) != 0 || conf_admin_token(c, "", token, &e))
        return false;
    bool same = strcmp(token, s->admin.token) == 0 && same_list(&c->otlp_headers, &was->otlp_headers);
    explicit_bzero(token, sizeof token);
    return same;
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
        .otlp = {.endpoint = c->otlp_endpoint,
                 .headers = &c->otlp_headers,
                 .service = c->otlp_service,
                 .telemetry = shared->telemetry},
    };
    keeper_config_jwks(k, &c->policy);
}

/* ---- seats ---- */

static void seat_free(struct python_seat *s)
{
    keeper_door_close(&s->door);
    python_admin_fini(&s->admin);
    for (int i = 0; i < 2; i++)
        if (s->told[i] >= 0)
            close(s->told[i]);
    Py_DECREF(s->config);
    free(s->seen);
    free(s);
}

static int seat_new(struct python_seat **out, struct config_object *config,
                    const struct keeper_config *k, const struct shared *shared, struct err *e)
{
    struct python_seat *s = *out = calloc(1, sizeof *s);
    if (!s) {
        (void)err_set(e, "out of memory");
        return -1;
    }
    s->config = (struct config_object *)Py_NewRef((PyObject *)config);
    s->keeper = *k;
    s->told[0] = s->told[1] = -1;
    s->door.listen_fd = s->admin.probes.listen_fd = -1;
    int rc = keeper_door_open(&s->door, e);
    if (!rc)
        rc = python_admin_init(&s->admin, &config->conf, shared, e);
    if (!rc && looks(&config->conf) && !(s->seen = all_settings(&config->conf)))
        rc = err_set(e, "out of memory");
    if (!rc && pipe2(s->told, O_CLOEXEC)) {
        s->told[0] = s->told[1] = -1;
        rc = err_set(e, "cannot make a pipe for the keeper: %s", strerror(errno));
    }
    s->keeper.door = &s->door;
    s->keeper.stop_fd = s->told[0];
    s->admin.process = true;
    python_admin_attach(&s->admin, &s->keeper);
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
    if (!keeper_wanted(&config->conf))
        return 0;
    python_keeper_config(&k, &config->conf, o->shared);
    char *seen = looks(&config->conf) ? all_settings(&config->conf) : NULL;
    bool same = o->seat && same_keeper(&o->seat->keeper, &k) &&
                same_guest(o->seat, &config->conf, seen);
    free(seen);
    if (same) {
        *seat = o->seat;
        return 0;
    }
    if (*config->conf.admin && python_admin_prepare(o, e))
        return -1;
    if (seat_new(seat, config, &k, o->shared, e))
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
    python_admin_settle(o, ok);
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

void python_keeper_step_back(struct supervisor_object *o)
{
    if (o->seat && o->seat->admin.wanted)
        supervisor_unkeep(o->supervisor, o->seat);
}

/* In a worker or template: nobody there holds a keeper up. */
void python_keeper_forget(struct supervisor_object *o)
{
    struct python_seat *seats[] = {o->seat, o->next_seat};
    python_admin_close(o, false);
    for (size_t i = 0; i < countof(seats); i++) {
        if (!seats[i])
            continue;
        keeper_door_close(&seats[i]->door);
        keeper_door_close(&seats[i]->admin.probes);
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

const struct keeper_door *python_keeper_probes(const struct supervisor_object *o)
{
    const struct python_seat *s = o->next_config ? o->next_seat : o->seat;
    return s && s->admin.wanted ? &s->admin.probes : NULL;
}

/* ---- where threads are ---- */

static int stacks(void *arg, struct buf *out, int32_t thread)
{
    (void)arg;
    return wsgi_stacks(out, thread);
}

void python_probe_start(struct probe **out, const struct keeper_door *door, uint32_t slot,
                        uint32_t generation)
{
    const struct probe_config c = {
        .door = door, .slot = slot, .generation = generation, .stacks = stacks};
    int rc = door && !*out ? probe_start(out, &c) : 0;
    if (rc)
        log_line(LOG_WARNING, 0, "the stacks of this worker cannot be asked for: %s", strerror(-rc));
}

/* ---- the process ---- */

/* Keep of the admin listener's sockets the one of this seat. */
static void become_admin(struct supervisor_object *o, struct python_seat *s)
{
    struct python_admin_socket *own = s == o->seat ? &o->admin : &o->next_admin;
    s->admin.config.listen_fd = own->fd;
    own->fd = -1;
    s->admin.config.tell_fd = o->admin_tell[1];
    o->admin_tell[1] = -1;
    python_admin_close(o, false);
}

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
    become_admin(o, s);
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
