/*
 * probes: see the header.
 *
 * An ask belongs to a look; a look has an entry for each worker it is about. An entry is sent as a
 * question once its worker's probe is connected, and is done when the last piece has come or when
 * it is known that none will. A look ends when all entries are done, or after PROBES_WAIT_MS.
 */
#include "admin/probes.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/json_read.h"
#include "base/list.h"
#include "base/log.h"
#include "base/must.h"
#include "serve/probe_wire.h"

/* Probes of all slots, and of the board before it during a reload. */
#define CONNS_MAX 8192
#define LOOKS_MAX 16
/* Who connects says hello within this time. */
static const uint64_t HELLO_MS = 5000;
/* accept failed (no descriptors): again after this. */
static const uint64_t ACCEPT_AGAIN_MS = 100;
/* Connections that are accepted in a turn of the loop: anybody on this machine may knock, and shall
 * not keep the keeper at its door. */
#define ACCEPT_TURN_MAX 64
/* Packets of one connection in a turn of the loop. */
#define TURN_MAX 64
/* Questions to one connection without an answer: a worker that is stopped and goes on has no more
 * to do than these. */
#define UNANSWERED_MAX 8
/* A look that began so long ago is not shared any more. */
static const int64_t SHARE_NS = INT64_C(100000000);

struct look;

struct conn {
    struct list node; /* p->conns */
    struct probes *p;
    int fd; /* owned; -1: closing */
    uv_poll_t poll;
    uint64_t hello_ms; /* loop time until which it has to say hello; 0: it has */
    uint32_t slot, generation;
    unsigned unanswered; /* questions */
};

/* One worker of a look. */
struct entry {
    uint32_t slot, generation;
    int32_t pid;
    int state;         /* enum worker_state */
    int32_t thread;    /* only this one; 0: all */
    struct conn *conn; /* has been asked; NULL: not yet, or it is gone */
    struct buf bytes;  /* what has come of the array of threads */
    bool done;
    int64_t took_ns;
    char error[96]; /* "" = none */
};

struct look {
    struct list node; /* p->looks */
    uint64_t number;  /* the upper bits of its questions */
    int worker;
    uint64_t id;
    int64_t begun_ns;
    struct list asks;
    bool ending; /* its asks are being told */
    unsigned n, n_open;
    struct entry entries[];
};

struct ask {
    struct list node; /* look->asks */
    uint64_t ticket;
    probes_done *cb;
    void *arg;
};

struct probes {
    uv_loop_t *loop;
    const struct keeper_door *door; /* lent */
    const struct admin_view *view;  /* lent */
    uid_t uid;
    uv_poll_t *listen; /* owned, freed when libuv has let go of it, as `timer` */
    uv_timer_t *timer; /* the next of: a look ends, a hello is late, accept again */
    bool accept_again;
    struct list conns, looks;
    unsigned n_conns, n_looks, n_asks;
    uint64_t next_ticket, next_look;
    bool told; /* of a worker that sent nonsense */
    unsigned char packet[PROBE_PACKET_MAX];
};

static void on_timer(uv_timer_t *t);

/* ---- texts ---- */

static const char *state_word(int state)
{
    static const char *const words[] = {"none", "booting", "ready", "draining", "dead"};
    return state >= 0 && (size_t)state < countof(words) ? words[state] : "none";
}

/* Requests that threads of a worker run. */
struct running {
    struct flight *flights; /* owned */
    unsigned n;
};

/* What is in flight in a slot and has a thread. Where there is no memory, as if there were none. */
static struct running running_of(const struct admin_view *v, unsigned slot)
{
    struct running r = {0};
    const struct telemetry *t = v->telemetry;
    if (slot >= t->n_slots)
        return r;
    const struct flight *all = telemetry_flights(t, slot);
    uint32_t top = atomic_load_explicit(&telemetry_slot(t, slot)->top, memory_order_acquire);
    unsigned room = 0;
    for (uint32_t i = 0; i < top && i < t->flights_max; i++) {
        if (!atomic_load_explicit(&all[i].thread, memory_order_relaxed))
            continue;
        if (r.n == room) {
            room = room ? room * 2 : 16;
            struct flight *more = realloc(r.flights, room * sizeof *more);
            if (!more)
                break;
            r.flights = more;
        }
        r.n += flight_copy(&r.flights[r.n], &all[i]) &&
               atomic_load_explicit(&r.flights[r.n].thread, memory_order_relaxed) != 0;
    }
    return r;
}

static void write_request(struct json *j, const struct running *r, int64_t thread, int64_t now_ns)
{
    const struct flight *f = NULL;
    for (unsigned i = 0; i < r->n && !f; i++)
        if (atomic_load_explicit(&r->flights[i].thread, memory_order_relaxed) == thread)
            f = &r->flights[i];
    if (!f) {
        json_none(j);
        return;
    }
    json_open(j, '{');
    json_key(j, "id");
    json_uint(j, f->id);
    json_key(j, "method");
    json_str(j, f->method);
    json_key(j, "path");
    json_str(j, f->path);
    json_key(j, "user");
    json_str(j, f->user);
    json_key(j, "age");
    json_seconds(j, now_ns - f->at_ns[FLIGHT_READING]);
    json_key(j, "state");
    json_str(j, flight_state_word((enum flight_state)f->state));
    json_close(j, '}');
}

/* Each thread as it came, with its request. */
static void write_threads(struct json *j, const struct probes *p, const struct entry *e)
{
    struct running r = running_of(p->view, e->slot);
    struct json_walk w = json_walk(buf_slice(&e->bytes));
    struct slice key, object, number;
    int64_t thread, now_ns = clock_mono_ns();
    json_open(j, '[');
    while (json_next(&w, &key, &object)) {
        if (!json_member(object, "thread", &number) || !json_to_integer(number, &thread))
            continue;
        json_raw(j, slice_of(object.p, object.n - 1)); /* without its bracket; it is not empty */
        json_key(j, "request");
        write_request(j, &r, thread, now_ns);
        json_close(j, '}');
    }
    json_close(j, ']');
    free(r.flights);
}

static int write_look(struct buf *out, const struct probes *p, const struct look *l)
{
    struct json j = json_begin(out);
    json_open(&j, '{');
    json_key(&j, "now");
    json_seconds(&j, clock_wall_ns());
    json_key(&j, "workers");
    json_open(&j, '[');
    for (unsigned i = 0; i < l->n; i++) {
        const struct entry *e = &l->entries[i];
        json_open(&j, '{');
        json_key(&j, "slot");
        json_uint(&j, e->slot);
        json_key(&j, "pid");
        json_int(&j, e->pid);
        json_key(&j, "generation");
        json_uint(&j, e->generation);
        json_key(&j, "state");
        json_str(&j, state_word(e->state));
        json_key(&j, "error");
        json_str(&j, *e->error ? e->error : NULL);
        json_key(&j, "took");
        if (*e->error)
            json_none(&j);
        else
            json_seconds(&j, e->took_ns);
        json_key(&j, "threads");
        write_threads(&j, p, e);
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_close(&j, '}');
    return json_end(&j);
}

/* ---- looks ---- */

static void set_timer(struct probes *p)
{
    uint64_t now_ms = uv_now(p->loop), due_ms = UINT64_MAX;
    int64_t now_ns = clock_mono_ns();
    for (struct list *n = p->looks.next; n != &p->looks; n = n->next) {
        const struct look *l = container_of(n, struct look, node);
        int64_t left_ns = l->begun_ns + INT64_C(1000000) * PROBES_WAIT_MS - now_ns;
        uint64_t left_ms = !l->n_open || left_ns <= 0 ? 0 : (uint64_t)left_ns / 1000000 + 1;
        due_ms = now_ms + left_ms < due_ms ? now_ms + left_ms : due_ms;
    }
    for (struct list *n = p->conns.next; n != &p->conns; n = n->next) {
        const struct conn *c = container_of(n, struct conn, node);
        if (c->hello_ms && c->hello_ms < due_ms)
            due_ms = c->hello_ms;
    }
    if (p->accept_again && now_ms + ACCEPT_AGAIN_MS < due_ms)
        due_ms = now_ms + ACCEPT_AGAIN_MS;
    if (due_ms == UINT64_MAX)
        (void)uv_timer_stop(p->timer);
    else
        (void)uv_timer_start(p->timer, on_timer, due_ms > now_ms ? due_ms - now_ms : 0, 0);
}

WEIR_PRINTF(3, 4)
static void entry_done(struct look *l, struct entry *e, const char *fmt, ...)
{
    va_list args;
    if (e->done)
        return;
    e->done = true;
    l->n_open--;
    va_start(args, fmt);
    vsnprintf(e->error, sizeof e->error, fmt, args);
    va_end(args);
    if (*e->error)
        e->bytes.n = 0;
}

static void look_free(struct probes *p, struct look *l)
{
    list_del(&l->node);
    p->n_looks--;
    while (!list_empty(&l->asks)) {
        struct ask *a = container_of(l->asks.next, struct ask, node);
        list_del(&a->node);
        p->n_asks--;
        free(a);
    }
    for (unsigned i = 0; i < l->n; i++)
        buf_fini(&l->entries[i].bytes);
    free(l);
}

/* Tell all who asked. They may ask and forget meanwhile. */
static void look_end(struct probes *p, struct look *l)
{
    struct buf json = {0};
    l->ending = true;
    for (unsigned i = 0; i < l->n; i++) {
        struct entry *e = &l->entries[i];
        entry_done(l, e, e->conn ? "no answer within %d s" : "it did not connect within %d s",
                   PROBES_WAIT_MS / 1000);
    }
    if (write_look(&json, p, l)) {
        static const char none[] = "{\"now\":0,\"workers\":[]}";
        json.n = 0;
        (void)!buf_add_slice(&json, SLICE(none));
    }
    while (!list_empty(&l->asks)) {
        struct ask *a = container_of(l->asks.next, struct ask, node);
        probes_done *cb = a->cb;
        void *arg = a->arg;
        list_del(&a->node);
        p->n_asks--;
        free(a);
        cb(arg, buf_slice(&json));
    }
    buf_fini(&json);
    look_free(p, l);
}

static void end_looks(struct probes *p)
{
    int64_t over_ns = clock_mono_ns() - INT64_C(1000000) * PROBES_WAIT_MS;
    /* A callback may add some at the end, and end none. */
    for (struct list *n = p->looks.next, *next; n != &p->looks; n = next) {
        struct look *l = container_of(n, struct look, node);
        next = n->next;
        if (!l->ending && (!l->n_open || l->begun_ns <= over_ns)) {
            look_end(p, l);
            next = p->looks.next; /* the list may be another */
        }
    }
}

/* ---- connections ---- */

static void on_conn_closed(uv_handle_t *h)
{
    free(h->data);
}

static void on_handle_closed(uv_handle_t *h)
{
    free(h);
}

/* Its questions are without an answer; a connection that comes in its place is asked again. */
static void conn_close(struct conn *c)
{
    struct probes *p = c->p;
    if (c->fd < 0)
        return;
    for (struct list *n = p->looks.next; n != &p->looks; n = n->next) {
        struct look *l = container_of(n, struct look, node);
        for (unsigned i = 0; i < l->n; i++)
            if (l->entries[i].conn == c) {
                l->entries[i].conn = NULL;
                if (!l->entries[i].done)
                    l->entries[i].bytes.n = 0;
            }
    }
    list_del(&c->node);
    p->n_conns--;
    uv_close((uv_handle_t *)&c->poll, on_conn_closed);
    close(c->fd);
    c->fd = -1;
}

static void conn_nonsense(struct conn *c)
{
    if (!c->p->told)
        log_line(LOG_WARNING, 0,
                 "the probe of worker slot %u sent what is no answer; its connection is closed "
                 "(told once)",
                 c->slot);
    c->p->told = true;
    conn_close(c);
}

/* False: the connection is closed. One that has not answered for long is left alone. */
static bool ask_conn(struct conn *c, const struct look *l, unsigned i)
{
    const struct probe_ask ask = {
        .head = {.kind = PROBE_ASK, .size = sizeof ask, .question = l->number << 16 | i},
        .thread = l->entries[i].thread,
    };
    if (c->unanswered >= UNANSWERED_MAX)
        return true;
    if (send(c->fd, &ask, sizeof ask, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof ask) {
        c->unanswered++;
        return true;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
        return true;
    conn_close(c);
    return false;
}

/* Ask a connection that has said hello what waits for it. */
static void ask_waiting(struct conn *c)
{
    struct probes *p = c->p;
    for (struct list *n = p->looks.next; n != &p->looks; n = n->next) {
        struct look *l = container_of(n, struct look, node);
        for (unsigned i = 0; i < l->n && c->fd >= 0; i++) {
            struct entry *e = &l->entries[i];
            if (!e->done && !e->conn && e->slot == c->slot && e->generation == c->generation &&
                ask_conn(c, l, i))
                e->conn = c;
        }
    }
}

static struct conn *conn_of(const struct probes *p, uint32_t slot, uint32_t generation)
{
    for (struct list *n = p->conns.next; n != &p->conns; n = n->next) {
        struct conn *c = container_of(n, struct conn, node);
        if (!c->hello_ms && c->slot == slot && c->generation == generation)
            return c;
    }
    return NULL;
}

static bool same_cookie(struct slice a, const unsigned char *b)
{
    unsigned char differs = 0;
    for (size_t i = 0; i < KEEPER_COOKIE_BYTES; i++)
        differs = (unsigned char)(differs | ((unsigned char)a.p[i] ^ b[i]));
    return !differs;
}

static bool hear_hello(struct conn *c, size_t n)
{
    struct keeper_said s;
    struct probes *p = c->p;
    if (!keeper_wire_said(p->packet, n, &s) || s.kind != KEEPER_HELLO ||
        !same_cookie(s.cookie, p->door->cookie))
        return false;
    struct conn *older = conn_of(p, s.slot, s.generation);
    if (older)
        conn_close(older);
    c->hello_ms = 0;
    c->slot = s.slot;
    c->generation = s.generation;
    ask_waiting(c);
    return true;
}

/* All that a worker sends as its threads: an array of objects that are not empty, and numbered. */
static bool is_answer(struct slice json)
{
    struct json_walk w = json_walk(json);
    struct slice key, object, number;
    int64_t thread;
    if (!json_whole(json) || !json.n || *json.p != '[')
        return false;
    while (json_next(&w, &key, &object))
        if (!json_member(object, "thread", &number) || !json_to_integer(number, &thread))
            return false;
    return true;
}

static struct look *look_of(const struct probes *p, uint64_t number)
{
    for (struct list *n = p->looks.next; n != &p->looks; n = n->next) {
        struct look *l = container_of(n, struct look, node);
        if (l->number == number)
            return l;
    }
    return NULL;
}

/* False: the connection is to end. */
static bool hear_piece(struct conn *c, size_t n)
{
    struct probe_piece piece;
    if (n < sizeof piece)
        return false;
    memcpy(&piece, c->p->packet, sizeof piece);
    if (piece.head.kind != PROBE_PIECE || piece.head.size != n || piece.error > 0 || piece.last > 1)
        return false;
    c->unanswered -= piece.last && c->unanswered;
    struct look *l = look_of(c->p, piece.head.question >> 16);
    unsigned i = piece.head.question & 0xffff;
    if (!l || i >= l->n || l->entries[i].conn != c || l->entries[i].done)
        return true; /* nobody wants to know any more */
    struct entry *e = &l->entries[i];
    size_t bytes = n - sizeof piece;
    if (bytes > PROBE_ANSWER_BYTES_MAX - e->bytes.n)
        return false;
    if (buf_add(&e->bytes, c->p->packet + sizeof piece, bytes)) {
        entry_done(l, e, "no memory for its answer");
        return true;
    }
    if (!piece.last)
        return true;
    if (!piece.error && !is_answer(buf_slice(&e->bytes)))
        return false;
    e->took_ns = piece.took_ns;
    if (piece.error)
        entry_done(l, e, "its threads cannot be looked at: %s", strerror(-piece.error));
    else
        entry_done(l, e, "%s", "");
    return true;
}

static void conn_read(struct conn *c)
{
    struct probes *p = c->p;
    for (unsigned i = 0; i < TURN_MAX && c->fd >= 0; i++) {
        ssize_t n = recv(c->fd, p->packet, sizeof p->packet, MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0) {
            conn_close(c);
            return;
        }
        bool good = (size_t)n <= sizeof p->packet &&
                    (c->hello_ms ? hear_hello(c, (size_t)n) : hear_piece(c, (size_t)n));
        if (!good && c->hello_ms)
            conn_close(c); /* somebody who does not belong here */
        else if (!good)
            conn_nonsense(c);
    }
}

static void on_conn(uv_poll_t *poll, int status, int events)
{
    struct conn *c = poll->data;
    struct probes *p = c->p;
    (void)events;
    if (status)
        conn_close(c);
    else
        conn_read(c);
    end_looks(p);
    set_timer(p);
}

/* ---- accept ---- */

static void take_conn(struct probes *p, int fd)
{
    struct ucred who;
    socklen_t size = sizeof who;
    bool may = p->n_conns < CONNS_MAX && !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) &&
               (who.uid == p->uid || who.uid == geteuid());
    struct conn *c = may ? calloc(1, sizeof *c) : NULL;
    if (!c || uv_poll_init(p->loop, &c->poll, fd)) {
        free(c);
        close(fd);
        return;
    }
    c->p = p;
    c->fd = fd;
    c->poll.data = c;
    c->hello_ms = uv_now(p->loop) + HELLO_MS;
    list_add(&p->conns, &c->node);
    p->n_conns++;
    int rc = uv_poll_start(&c->poll, UV_READABLE, on_conn);
    must(rc == 0);
}

/* What does not fit in this turn makes the socket readable in the next. */
static void accept_some(struct probes *p)
{
    for (unsigned i = 0; i < ACCEPT_TURN_MAX; i++) {
        int fd = accept4(p->door->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            take_conn(p, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            (void)uv_poll_stop(p->listen);
            p->accept_again = true;
        }
        return;
    }
}

static void on_listen(uv_poll_t *poll, int status, int events)
{
    struct probes *p = poll->data;
    (void)events;
    if (!status)
        accept_some(p);
    set_timer(p);
}

static void on_timer(uv_timer_t *t)
{
    struct probes *p = t->data;
    uint64_t now_ms = uv_now(p->loop);
    if (p->accept_again) {
        p->accept_again = false;
        (void)uv_poll_start(p->listen, UV_READABLE, on_listen);
    }
    for (struct list *n = p->conns.next, *next; n != &p->conns; n = next) {
        struct conn *c = container_of(n, struct conn, node);
        next = n->next;
        if (c->hello_ms && now_ms >= c->hello_ms)
            conn_close(c);
    }
    end_looks(p);
    set_timer(p);
}

/* ---- asking ---- */

/* Number of the thread that runs a request; 0: none. */
static int32_t thread_of(const struct admin_view *v, unsigned slot, uint64_t id)
{
    struct running r = running_of(v, slot);
    int32_t thread = 0;
    for (unsigned i = 0; i < r.n && !thread; i++)
        if (r.flights[i].id == id)
            thread = atomic_load_explicit(&r.flights[i].thread, memory_order_relaxed);
    free(r.flights);
    return thread;
}

static void add_entry(struct probes *p, struct look *l, unsigned slot)
{
    struct scoreboard_slot *s = &p->view->board->slots[slot];
    struct entry e = {
        .slot = slot,
        .pid = atomic_load_explicit(&s->pid, memory_order_relaxed),
        .state = atomic_load_explicit(&s->state, memory_order_relaxed),
        .generation = atomic_load_explicit(&s->generation, memory_order_relaxed),
        .bytes = {.max = PROBE_ANSWER_BYTES_MAX},
    };
    if (!e.pid || e.state == WORKER_NONE || e.state == WORKER_DEAD)
        return;
    if (l->id) {
        e.thread = thread_of(p->view, slot, l->id);
        if (!e.thread && l->worker < 0)
            return;
    }
    struct entry *kept = &l->entries[l->n++];
    *kept = e;
    l->n_open++;
    struct conn *c = conn_of(p, e.slot, e.generation);
    if (l->id && !e.thread)
        entry_done(l, kept, "no thread runs request %llu", (unsigned long long)l->id);
    else if (!c && e.state == WORKER_BOOTING)
        entry_done(l, kept, "it boots: its threads cannot be seen yet");
    else if (c && ask_conn(c, l, l->n - 1))
        kept->conn = c;
}

static struct look *look_new(struct probes *p, int worker, uint64_t id)
{
    const struct scoreboard *b = p->view->board;
    unsigned first = worker < 0 ? 0 : (unsigned)worker;
    unsigned end = worker < 0 ? b->n_slots : first + 1;
    end = end < b->n_slots ? end : b->n_slots;
    unsigned room = first < end ? end - first : 0;
    static_assert(SCOREBOARD_SLOTS_MAX <= 0xffff, "the entry is in the number of a question");
    struct look *l = calloc(1, sizeof *l + room * sizeof l->entries[0]);
    if (!l)
        return NULL;
    l->number = ++p->next_look;
    l->worker = worker;
    l->id = id;
    l->begun_ns = clock_mono_ns();
    list_init(&l->asks);
    list_add(&p->looks, &l->node);
    p->n_looks++;
    for (unsigned slot = first; slot < end; slot++)
        add_entry(p, l, slot);
    return l;
}

/* One that asks the same, and has begun just now. */
static struct look *look_shared(const struct probes *p, int worker, uint64_t id)
{
    int64_t since_ns = clock_mono_ns() - SHARE_NS;
    for (struct list *n = p->looks.next; n != &p->looks; n = n->next) {
        struct look *l = container_of(n, struct look, node);
        if (!l->ending && l->worker == worker && l->id == id && l->begun_ns >= since_ns)
            return l;
    }
    return NULL;
}

int probes_ask(struct probes *p, int worker, uint64_t id, probes_done *cb, void *arg,
               uint64_t *ticket)
{
    struct look *l = look_shared(p, worker, id);
    if (p->n_asks >= PROBES_ASKS_MAX || (!l && p->n_looks >= LOOKS_MAX))
        return -EBUSY;
    struct ask *a = calloc(1, sizeof *a);
    if (a && !l)
        l = look_new(p, worker, id);
    if (!a || !l) {
        free(a);
        return -ENOMEM;
    }
    a->ticket = ++p->next_ticket;
    a->cb = cb;
    a->arg = arg;
    list_add(&l->asks, &a->node);
    p->n_asks++;
    if (ticket)
        *ticket = a->ticket;
    set_timer(p);
    return 0;
}

void probes_forget(struct probes *p, uint64_t ticket)
{
    for (struct list *n = p->looks.next; n != &p->looks; n = n->next) {
        struct look *l = container_of(n, struct look, node);
        for (struct list *m = l->asks.next; m != &l->asks; m = m->next) {
            struct ask *a = container_of(m, struct ask, node);
            if (a->ticket != ticket)
                continue;
            list_del(&a->node);
            p->n_asks--;
            free(a);
            if (list_empty(&l->asks) && !l->ending)
                look_free(p, l);
            set_timer(p);
            return;
        }
    }
}

/* ---- life ---- */

int probes_new(struct probes **out, uv_loop_t *loop, const struct keeper_door *door, uid_t uid,
               const struct admin_view *view, struct err *e)
{
    struct probes *p = *out = calloc(1, sizeof *p);
    uv_poll_t *listen = calloc(1, sizeof *listen);
    uv_timer_t *timer = calloc(1, sizeof *timer);
    int rc = p && listen && timer ? uv_poll_init(loop, listen, door->listen_fd) : UV_ENOMEM;
    if (rc) {
        free(p);
        free(listen);
        free(timer);
        *out = NULL;
        return err_set(e, "the admin listener cannot wait for workers' probes: %s",
                       uv_strerror(rc));
    }
    p->loop = loop;
    p->door = door;
    p->view = view;
    p->uid = uid;
    p->listen = listen;
    p->timer = timer;
    listen->data = timer->data = p;
    list_init(&p->conns);
    list_init(&p->looks);
    (void)uv_timer_init(loop, timer);
    rc = uv_poll_start(listen, UV_READABLE, on_listen);
    must(rc == 0);
    return 0;
}

void probes_free(struct probes **pp)
{
    struct probes *p = *pp;
    *pp = NULL;
    if (!p)
        return;
    while (!list_empty(&p->looks))
        look_free(p, container_of(p->looks.next, struct look, node));
    while (!list_empty(&p->conns))
        conn_close(container_of(p->conns.next, struct conn, node));
    uv_close((uv_handle_t *)p->listen, on_handle_closed);
    uv_close((uv_handle_t *)p->timer, on_handle_closed);
    free(p);
}
