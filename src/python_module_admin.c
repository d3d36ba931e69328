/*
 * python_module_admin: the admin listener's place in the processes.
 *
 * Its socket is the supervisor's, so that no connection is refused while a keeper is replaced; it
 * is changed by a reload as other addresses are, and handed to a successor (USR2) with them. What
 * it answers lives on the keeper's loop: in the keeper's process, or in its thread where one
 * process serves alone.
 */
#include "python_module_admin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proc/keeper.h"
#include "python_module_process.h"
#include "serve/shared.h"

/* How the socket is named among those that a successor gets; no address looks so. */
#define HANDED "admin="

/* ---- the socket ---- */

void python_admin_socket_init(struct python_admin_socket *s)
{
    *s = (struct python_admin_socket){.fd = -1};
}

static void socket_close(struct python_admin_socket *s, bool remove)
{
    if (s->fd >= 0 && remove)
        admin_unlink(s->fd);
    if (s->fd >= 0)
        close(s->fd);
    free(s->text);
    python_admin_socket_init(s);
}

static void tell_url(const struct python_admin_socket *s)
{
    char url[160];
    if (s->fd < 0)
        return;
    admin_url(s->fd, url, sizeof url);
    log_line(LOG_INFO, 0, "admin listener at %s", url);
}

static bool same_text(const struct python_admin_socket *a, const struct python_admin_socket *b)
{
    return a->fd >= 0 && b->fd >= 0 && strcmp(a->text, b->text) == 0;
}

/* Open what *c names; the same as `before`: another descriptor of that. */
static int socket_open(struct python_admin_socket *s, const struct conf *c,
                       const struct python_admin_socket *before, struct err *e)
{
    python_admin_socket_init(s);
    if (!*c->admin)
        return 0;
    s->text = strdup(c->admin_bind.text);
    if (!s->text)
        return err_set(e, "out of memory");
    int rc = 0;
    if (before->fd >= 0 && strcmp(before->text, s->text) == 0) {
        s->fd = fcntl(before->fd, F_DUPFD_CLOEXEC, 0);
        if (s->fd < 0)
            rc = err_set(e, "cannot keep %s: %s", s->text, strerror(errno));
    } else {
        rc = admin_listen(&s->fd, c, e);
    }
    if (rc)
        socket_close(s, false);
    return rc;
}

int python_admin_listen(struct supervisor_object *o, struct err *e)
{
    struct upgrade *u = &python_process.upgrade;
    struct python_admin_socket handed;
    unsigned kept = 0;
    python_admin_socket_init(&handed);
    for (unsigned i = 0; i < u->n_sockets; i++) {
        struct upgrade_socket *from = &u->sockets[i];
        bool is_one = from->text && strncmp(from->text, HANDED, sizeof HANDED - 1) == 0;
        if (!is_one) {
            u->sockets[kept++] = *from;
            continue;
        }
        if (handed.fd < 0) {
            handed.fd = from->fd;
            handed.text = strdup(from->text + sizeof HANDED - 1);
        } else {
            close(from->fd);
        }
        free(from->text);
    }
    u->n_sockets = kept;
    if (handed.fd >= 0 && !handed.text) {
        close(handed.fd);
        return err_set(e, "out of memory");
    }
    int rc = socket_open(&o->admin, &o->config->conf, &handed, e);
    socket_close(&handed, false);
    return rc;
}

int python_admin_hand_over(const struct supervisor_object *o, struct upgrade *u)
{
    char text[512];
    if (o->admin.fd < 0)
        return 0;
    snprintf(text, sizeof text, HANDED "%s", o->admin.text);
    return upgrade_add(u, o->admin.fd, true, text);
}

int python_admin_reload(struct supervisor_object *o, const struct conf *c, struct err *e)
{
    return socket_open(&o->next_admin, c, &o->admin, e);
}

void python_admin_settle(struct supervisor_object *o, bool ok)
{
    bool same = same_text(&o->admin, &o->next_admin);
    if (!ok) {
        socket_close(&o->next_admin, !same);
        return;
    }
    socket_close(&o->admin, !same);
    o->admin = o->next_admin;
    python_admin_socket_init(&o->next_admin);
    if (!same)
        tell_url(&o->admin);
}

void python_admin_tell(const struct supervisor_object *o)
{
    tell_url(&o->admin);
}

void python_admin_close(struct supervisor_object *o, bool remove)
{
    bool same = same_text(&o->admin, &o->next_admin);
    socket_close(&o->next_admin, remove && !same);
    socket_close(&o->admin, remove);
    for (int i = 0; i < 2; i++) {
        if (o->admin_tell[i] >= 0)
            close(o->admin_tell[i]);
        o->admin_tell[i] = -1;
    }
}

int python_admin_prepare(struct supervisor_object *o, struct err *e)
{
    if (o->admin_tell[0] >= 0)
        return 0;
    if (pipe2(o->admin_tell, O_CLOEXEC | O_NONBLOCK) == 0)
        return 0;
    o->admin_tell[0] = o->admin_tell[1] = -1;
    return err_set(e, "cannot make a pipe for the keeper: %s", strerror(errno));
}

void python_admin_news(struct supervisor_object *o)
{
    char bytes[64];
    bool any = false;
    while (o->admin_tell[0] >= 0 && read(o->admin_tell[0], bytes, sizeof bytes) > 0)
        any = true;
    if (any)
        supervisor_look(o->supervisor);
}

/* ---- who answers ---- */

int python_admin_init(struct python_admin *a, const struct conf *c, const struct shared *shared,
                      struct err *e)
{
    *a = (struct python_admin){
        .config = {.view = {.conf = c,
                            .board = shared->board,
                            .telemetry = shared->telemetry,
                            .parts = &shared->parts},
                   .listen_fd = -1,
                   .tell_fd = -1},
        .probes = {.listen_fd = -1},
    };
    if (!*c->admin)
        return 0;
    if (conf_admin_token(c, "", a->token, e) || keeper_door_open(&a->probes, e)) {
        python_admin_fini(a);
        return -1;
    }
    a->wanted = true;
    return 0;
}

void python_admin_fini(struct python_admin *a)
{
    keeper_door_close(&a->probes);
    explicit_bzero(a->token, sizeof a->token);
    a->wanted = false;
}

/* On the keeper's thread, as what stands behind it. */
static int begin(void *host, struct uv_loop_s *loop, struct err *e)
{
    struct python_admin *a = host;
    return admin_new(&a->admin, loop, &a->config, e);
}

static void end(void *host)
{
    struct python_admin *a = host;
    admin_free(&a->admin);
    if (!a->process)
        return;
    /* Copies of the supervisor's: nobody shall wait for an answer of a process that gives none. */
    close(a->config.listen_fd);
    a->config.listen_fd = -1;
    keeper_door_close(&a->probes);
}

void python_admin_attach(struct python_admin *a, struct keeper_config *k)
{
    if (!a->wanted)
        return;
    a->config.token = a->token;
    a->config.probes = &a->probes;
    a->config.uid = k->uid;
    k->begin = begin;
    k->end = end;
    k->host = a;
}
