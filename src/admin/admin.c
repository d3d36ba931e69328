/* admin: its life, and what a request gets. See the header; the files are in admin_private.h. */
#include "admin/admin_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin/metrics.h"
#include "admin/page.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"
#include "http/h1_parse.h"

#define TYPE_JSON "application/json"
#define TYPE_TEXT "text/plain; charset=utf-8"

/* ---- answers ---- */

/* Take what was written, or say that there is no memory. */
static void answer_with(struct admin_conn *c, const char *type, const char *more, struct block *b,
                        int rc)
{
    if (b && !rc) {
        admin_answer(c, 200, type, more, b);
        return;
    }
    block_unref(&b);
    admin_say(c, 503, "Retry-After: 1\r\n", "there is no memory for the answer");
}

static void get_page(struct admin_conn *c, const struct req *r)
{
    char more[1024];
    struct slice accepted = req_field(r, SLICE("accept-encoding"));
    bool gzip = admin_page.gzip.n && h1_list_has(accepted, SLICE("gzip"));
    int n = snprintf(more, sizeof more,
                     "ETag: %s\r\nCache-Control: no-cache\r\nVary: Accept-Encoding\r\n"
                     "Content-Security-Policy: %s\r\n%s",
                     admin_page.etag, admin_page.csp, gzip ? "Content-Encoding: gzip\r\n" : "");
    if (n >= (int)sizeof more) {
        admin_say(c, 500, "", "the page's fields are too long");
        return;
    }
    if (h1_list_has(req_field(r, SLICE("if-none-match")), slice_str(admin_page.etag))) {
        admin_answer(c, 304, NULL, more, NULL);
        return;
    }
    struct block *b = block_new();
    int rc = b ? buf_add_slice(&b->bytes, gzip ? admin_page.gzip : admin_page.html) : -ENOMEM;
    answer_with(c, "text/html; charset=utf-8", more, b, rc);
}

static void get_status(struct admin_conn *c, const struct req *r)
{
    struct status_ask ask;
    struct err e = {{0}};
    if (status_ask_parse(&ask, r->query, &e)) {
        admin_say(c, 400, "", "%s", e.text);
        return;
    }
    struct block *b = block_new();
    int rc = b ? status_write(&b->bytes, &c->a->config.view, &ask) : -ENOMEM;
    answer_with(c, TYPE_JSON, "", b, rc ? rc : buf_add(&b->bytes, "\n", 1));
}

static void get_history(struct admin_conn *c, const struct req *r)
{
    (void)r;
    struct block *b = block_new();
    int rc = b ? history_write(&b->bytes, c->a->history) : -ENOMEM;
    answer_with(c, TYPE_JSON, "", b, rc ? rc : buf_add(&b->bytes, "\n", 1));
}

static void get_metrics(struct admin_conn *c, const struct req *r)
{
    enum metrics_format f = metrics_format_of(req_field(r, SLICE("accept")));
    struct block *b = block_new();
    int rc = b ? metrics_write(&b->bytes, &c->a->config.view, f) : -ENOMEM;
    answer_with(c, metrics_content_type(f), "Vary: Accept\r\n", b, rc);
}

static void get_live(struct admin_conn *c, const struct req *r)
{
    (void)r;
    admin_say(c, 200, "", "live");
}

static void get_ready(struct admin_conn *c, const struct req *r)
{
    (void)r;
    const char *why = status_unready(&c->a->config.view);
    if (why)
        admin_say(c, 503, "", "%s", why);
    else
        admin_say(c, 200, "", "ready");
}

static void get_events(struct admin_conn *c, const struct req *r)
{
    if (!c->head) {
        events_begin(c, r->query);
        return;
    }
    admin_answer(c, 200, "text/event-stream", "", NULL);
}

static void get_root(struct admin_conn *c, const struct req *r)
{
    (void)r;
    admin_say(c, 302, "Location: /status\r\n", "the page is /status");
}

/* ---- stacks ---- */

/* worker=SLOT&id=ID; -1 and 0 where they are not given. */
static int parse_who(struct slice query, unsigned n_slots, int *worker, uint64_t *id, struct err *e)
{
    *worker = -1;
    *id = 0;
    while (query.n) {
        const char *end = memchr(query.p, '&', query.n);
        struct slice item = slice_of(query.p, end ? (size_t)(end - query.p) : query.n);
        size_t skip = item.n + (end != NULL);
        query = slice_of(query.p + skip, query.n - skip);
        if (!item.n)
            continue;
        uint64_t n;
        const char *equals = memchr(item.p, '=', item.n);
        struct slice name = slice_of(item.p, equals ? (size_t)(equals - item.p) : item.n);
        struct slice value = equals ? slice_of(equals + 1, item.n - name.n - 1) : (struct slice){0};
        bool is_worker = slice_eq(name, SLICE("worker"));
        if (!is_worker && !slice_eq(name, SLICE("id")))
            return err_set(e, "'%.*s' is not known; give worker=SLOT and id=ID",
                           (int)(name.n < 80 ? name.n : 80), name.p);
        if (!h1_number(value, &n) || (is_worker && n >= n_slots))
            return err_set(e, "%s is a number%s", is_worker ? "worker" : "id",
                           is_worker ? " of a slot that there is" : "");
        if (is_worker)
            *worker = (int)n;
        else
            *id = n;
    }
    return 0;
}

/* Behind the brackets and strings that open at p: the end of the value there; NULL: it has none. */
static const char *value_end(const char *p, const char *end)
{
    unsigned depth = 0;
    bool text = false;
    for (; p < end; p++) {
        if (text) {
            if (*p == '\\')
                p++;
            else if (*p == '"')
                text = false;
            continue;
        }
        if (*p == '"')
            text = true;
        else if (*p == '{' || *p == '[')
            depth++;
        else if ((*p == '}' || *p == ']') && (depth == 0 || --depth == 0))
            return p + 1;
    }
    return NULL;
}

/* The first object of the first `threads` in an answer of the probes (our own bytes, so that key is
 * no part of a text: quotes in texts are escaped); "null": there is none. */
static struct slice first_thread(struct slice json)
{
    const char *p = memmem(json.p, json.n, "\"threads\":", 10), *end = json.p + json.n;
    for (p = p ? p + 10 : end; p < end && (*p == ' ' || *p == '\n' || *p == '['); p++)
        ;
    const char *last = p < end && *p == '{' ? value_end(p, end) : NULL;
    return last ? slice_of(p, (size_t)(last - p)) : SLICE("null");
}

static void answer_request(struct admin_conn *c, struct slice thread)
{
    struct block *b = block_new();
    int rc = b ? buf_addf(&b->bytes, "{\"flight\":") : -ENOMEM;
    rc = rc ? rc : buf_add_slice(&b->bytes, buf_slice(&c->flight->bytes));
    rc = rc ? rc : buf_addf(&b->bytes, ",\"thread\":");
    rc = rc ? rc : buf_add_slice(&b->bytes, thread);
    rc = rc ? rc : buf_add(&b->bytes, "}\n", 2);
    block_unref(&c->flight);
    answer_with(c, TYPE_JSON, "", b, rc);
}

static void on_probes(void *arg, struct slice json)
{
    struct admin_conn *c = arg;
    enum conn_ask ask = c->ask;
    c->ask = ASK_NONE;
    if (ask == ASK_REQUEST) {
        answer_request(c, first_thread(json));
        return;
    }
    struct block *b = block_new();
    int rc = !b                        ? -ENOMEM
             : ask == ASK_STACKS_TEXT ? probes_text(&b->bytes, json)
                                      : buf_add_slice(&b->bytes, json);
    answer_with(c, ask == ASK_STACKS_TEXT ? TYPE_TEXT : TYPE_JSON, "", b, rc);
}

static void ask_probes(struct admin_conn *c, enum conn_ask ask, int worker, uint64_t id)
{
    struct probes *p = c->a->probes;
    int rc = p ? probes_ask(p, worker, id, on_probes, c, &c->ticket) : -EBUSY;
    if (!rc)
        c->ask = ask;
    else if (ask == ASK_REQUEST)
        answer_request(c, SLICE("null"));
    else
        admin_say(c, 503, "Retry-After: 1\r\n", "%s",
                  rc == -EBUSY ? "too many ask for stacks now; ask again"
                               : "there is no memory to ask");
}

static void get_stacks(struct admin_conn *c, const struct req *r)
{
    struct err e = {{0}};
    int worker;
    uint64_t id;
    bool text = slice_eq(r->path, SLICE("/stacks"));
    if (parse_who(r->query, c->a->config.view.board->n_slots, &worker, &id, &e))
        admin_say(c, 400, "", "%s", e.text);
    else
        ask_probes(c, text ? ASK_STACKS_TEXT : ASK_STACKS, worker, id);
}

static void get_request(struct admin_conn *c, const struct req *r)
{
    const struct admin_view *v = &c->a->config.view;
    struct err e = {{0}};
    int worker;
    uint64_t id;
    int rc = parse_who(r->query, v->board->n_slots, &worker, &id, &e);
    if (!rc && (worker < 0 || !id))
        rc = err_set(&e, "name a request: /request.json?worker=SLOT&id=ID");
    if (rc) {
        admin_say(c, 400, "", "%s", e.text);
        return;
    }
    block_unref(&c->flight);
    c->flight = block_new();
    if (!c->flight || status_write_flight(&c->flight->bytes, v, (unsigned)worker, id)) {
        block_unref(&c->flight);
        admin_say(c, 503, "Retry-After: 1\r\n", "there is no memory for the answer");
        return;
    }
    if (slice_eq(buf_slice(&c->flight->bytes), SLICE("null")))
        answer_request(c, SLICE("null"));
    else
        ask_probes(c, ASK_REQUEST, worker, id);
}

/* ---- actions ---- */

static bool is_ready(const struct scoreboard_slot *s)
{
    return atomic_load(&s->state) == WORKER_READY;
}

/* Does another worker take connections? */
static bool others_serve(const struct scoreboard *b, unsigned slot)
{
    for (unsigned i = 0; i < b->n_slots; i++)
        if (i != slot && is_ready(&b->slots[i]) && !atomic_load(&b->slots[i].held))
            return true;
    return false;
}

/* NULL: done; or why not. */
static const char *recycle(struct admin *a, unsigned slot)
{
    struct scoreboard_slot *s = &a->config.view.board->slots[slot];
    int32_t none = RECYCLE_NONE;
    if (a->config.tell_fd < 0)
        return "nobody would replace this worker";
    if (!atomic_compare_exchange_strong(&s->recycle, &none, RECYCLE_ASKED))
        return "this worker is replaced already";
    /* Full: it will look anyway. */
    ssize_t n = write(a->config.tell_fd, "r", 1);
    (void)n;
    return NULL;
}

static const char *hold(struct admin *a, unsigned slot)
{
    struct scoreboard *b = a->config.view.board;
    if (!others_serve(b, slot))
        return "no other worker would take connections";
    atomic_store(&b->slots[slot].held, 1);
    return NULL;
}

static const char *resume(struct admin *a, unsigned slot)
{
    atomic_store(&a->config.view.board->slots[slot].held, 0);
    return NULL;
}

static const struct action {
    struct slice name;
    const char *(*act)(struct admin *a, unsigned slot);
    const char *done; /* for the log */
} actions[] = {
    {SLICE("recycle"), recycle, "is to be replaced"},
    {SLICE("hold"), hold, "takes no more new connections"},
    {SLICE("resume"), resume, "takes connections again"},
};

/* "/workers/SLOT/ACTION" */
static const struct action *parse_action(struct slice path, uint64_t *slot)
{
    const struct slice prefix = SLICE("/workers/");
    if (!slice_starts(path, prefix))
        return NULL;
    struct slice rest = slice_of(path.p + prefix.n, path.n - prefix.n);
    const char *slash = rest.n ? memchr(rest.p, '/', rest.n) : NULL;
    if (!slash || !h1_number(slice_of(rest.p, (size_t)(slash - rest.p)), slot))
        return NULL;
    struct slice name = slice_of(slash + 1, rest.n - (size_t)(slash + 1 - rest.p));
    for (size_t i = 0; i < countof(actions); i++)
        if (slice_eq(name, actions[i].name))
            return &actions[i];
    return NULL;
}

static void act(struct admin_conn *c, const struct action *action, uint64_t slot)
{
    struct admin *a = c->a;
    struct scoreboard *board = a->config.view.board;
    struct scoreboard_slot *s = slot < board->n_slots ? &board->slots[slot] : NULL;
    const char *why = NULL;
    int pid = s ? atomic_load(&s->pid) : 0;
    if (a->config.view.alone)
        why = "this process serves alone";
    else if (!s || !is_ready(s))
        why = "no worker serves there";
    else
        why = action->act(a, (unsigned)slot);
    if (why) {
        admin_fail(c, 409, why);
        return;
    }
    log_line(LOG_INFO, 0, "worker %d %s: asked by %s", pid, action->done, c->address);
    struct block *b = block_new();
    int rc = b ? buf_addf(&b->bytes, "{\"ok\":true}\n") : -ENOMEM;
    answer_with(c, TYPE_JSON, "", b, rc);
}

/* ---- who may ask ---- */

/* False: it is answered. */
static bool may_ask(struct admin_conn *c, const struct req *r)
{
    static const char challenges[] =
        "WWW-Authenticate: Bearer realm=\"weir\"\r\n"
        "WWW-Authenticate: Basic realm=\"weir\", charset=\"UTF-8\"\r\n";
    struct admin *a = c->a;
    int64_t now_ns = clock_mono_ns();
    if (!a->token.n)
        return true;
    if (!c->proven && req_field(r, SLICE("authorization")).n &&
        !guard_may_try(&a->tries, c->key, now_ns)) {
        admin_say(c, 429, "Retry-After: 1\r\n", "too many wrong tokens came from your address");
        return false;
    }
    switch (guard_token(r, a->token)) {
    case GUARD_RIGHT:
        c->proven = true;
        return true;
    case GUARD_WRONG:
        c->proven = false;
        guard_was_wrong(&a->tries, c->key, now_ns);
        log_flood(LOG_WARNING, 0, "a wrong token for the admin listener came from %s", c->address);
        admin_say(c, 401, challenges, "this token is wrong");
        return false;
    case GUARD_NONE:
        break;
    }
    admin_say(c, 401, challenges,
              "a token is asked for: Authorization: Bearer TOKEN, or as the password of Basic");
    return false;
}

/* ---- routes ---- */

static const struct route {
    struct slice path;
    bool open; /* needs no token */
    void (*get)(struct admin_conn *c, const struct req *r);
} routes[] = {
    {SLICE("/"), false, get_root},
    {SLICE("/status"), false, get_page},
    {SLICE("/status.json"), false, get_status},
    {SLICE("/request.json"), false, get_request},
    {SLICE("/history.json"), false, get_history},
    {SLICE("/events"), false, get_events},
    {SLICE("/stacks"), false, get_stacks},
    {SLICE("/stacks.json"), false, get_stacks},
    {SLICE("/metrics"), false, get_metrics},
    {SLICE("/live"), true, get_live},
    {SLICE("/ready"), true, get_ready},
};

void admin_route(struct admin_conn *c, const struct req *r)
{
    struct admin *a = c->a;
    uint64_t slot = 0;
    const struct route *route = NULL;
    for (size_t i = 0; i < countof(routes); i++)
        if (slice_eq(r->path, routes[i].path))
            route = &routes[i];
    if (!guard_host(r->host, &a->config.view.conf->admin_hosts)) {
        c->keep = false;
        admin_say(c, 421, "",
                  "the Host field has to be an IP address, localhost, or a name of admin-host");
        return;
    }
    if (!(route && route->open) && !may_ask(c, r))
        return;
    const struct action *action = route ? NULL : parse_action(r->path, &slot);
    bool get = slice_eq(r->method, SLICE("GET")) || c->head;
    if (route && get)
        route->get(c, r);
    else if (route)
        admin_say(c, 405, "Allow: GET, HEAD\r\n", "only GET is answered here");
    else if (!action)
        admin_say(c, 404, "",
                  "there is no such page; there are /status, /status.json, /request.json, "
                  "/history.json, /events, /stacks, /stacks.json, /metrics, /live, /ready");
    else if (!slice_eq(r->method, SLICE("POST")))
        admin_say(c, 405, "Allow: POST\r\n", "only POST is answered here");
    else if (!guard_origin(r))
        admin_say(c, 403, "", "an action is to come from a page of this server, or from no page");
    else
        act(c, action, slot);
}

/* ---- life ---- */

void admin_handle_closed(struct admin *a)
{
    if (--a->n_handles)
        return;
    close(a->listen_fd);
    void *token = (void *)(uintptr_t)a->token.p;
    secret_unmap(&token, a->token_mapped);
    free(a);
}

static void on_own_closed(uv_handle_t *h)
{
    admin_handle_closed(h->data);
}

static int take_token(struct admin *a, const char *token)
{
    size_t n = token ? strlen(token) : 0;
    if (!n)
        return 0;
    char *copy = secret_map(n, false);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, token, n);
    a->token = slice_of(copy, n);
    a->token_mapped = n;
    return 0;
}

/* What its handles do not need. */
static void give_back(struct admin *a)
{
    probes_free(&a->probes);
    history_free(&a->history);
}

static int make(struct admin *a, struct err *e)
{
    const struct admin_config *c = &a->config;
    a->history = history_new();
    if (!a->history || take_token(a, c->token))
        return err_set(e, "there is no memory for the admin listener");
    a->listen_fd = fcntl(c->listen_fd, F_DUPFD_CLOEXEC, 0);
    if (a->listen_fd < 0)
        return err_set(e, "the admin listener has no descriptor: %s", strerror(errno));
    int rc = uv_poll_init(a->loop, &a->listen, a->listen_fd);
    if (rc) {
        close(a->listen_fd);
        a->listen_fd = -1;
        return err_set(e, "the admin listener cannot wait: %s", uv_strerror(rc));
    }
    return 0;
}

int admin_new(struct admin **out, uv_loop_t *loop, const struct admin_config *c, struct err *e)
{
    struct admin *a = *out = calloc(1, sizeof *a);
    if (!a)
        return err_set(e, "there is no memory for the admin listener");
    a->loop = loop;
    a->config = *c;
    a->config.token = NULL;
    a->listen_fd = -1;
    list_init(&a->conns);
    a->config.token = c->token;
    int rc = make(a, e);
    a->config.token = NULL;
    if (rc) {
        void *token = (void *)(uintptr_t)a->token.p;
        secret_unmap(&token, a->token_mapped);
        give_back(a);
        free(a);
        *out = NULL;
        return -1;
    }
    uv_timer_t *timers[] = {&a->tick, &a->sweep, &a->accept_again};
    for (size_t i = 0; i < countof(timers); i++) {
        (void)uv_timer_init(loop, timers[i]);
        timers[i]->data = a;
    }
    a->listen.data = a;
    a->n_handles = 1 + countof(timers);
    if (probes_new(&a->probes, loop, c->probes, c->uid, &a->config.view, e)) {
        admin_free(out);
        return -1;
    }
    (void)uv_poll_start(&a->listen, UV_READABLE, admin_on_listen);
    events_pace(a);
    events_on_tick(&a->tick);
    return 0;
}

void admin_free(struct admin **ap)
{
    struct admin *a = *ap;
    *ap = NULL;
    if (!a)
        return;
    a->ended = true;
    while (!list_empty(&a->conns))
        admin_conn_close(container_of(a->conns.next, struct admin_conn, node));
    uv_handle_t *own[] = {(uv_handle_t *)&a->listen, (uv_handle_t *)&a->tick,
                          (uv_handle_t *)&a->sweep, (uv_handle_t *)&a->accept_again};
    give_back(a);
    for (size_t i = 0; i < countof(own); i++)
        uv_close(own[i], on_own_closed);
}
