/*
 * admin_events: viewers of /events. One timer for all of them: what several look at is rendered
 * once. Nobody looks: a point of the history every 10 s, and nothing else.
 */
#include "admin/admin_private.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

static const uint64_t LOOKED_AT_MS = 1000;
static const uint64_t ALONE_MS = 10000;
/* Every so often a viewer gets what brief=yes leaves out. */
static const unsigned WHOLE_EVERY = 10;

static void point(struct admin *a)
{
    /* No memory: this point is missing. */
    (void)!history_tick(a->history, &a->config.view, clock_mono_ns(), clock_wall_ns());
}

void events_pace(struct admin *a)
{
    uint64_t ms = a->n_viewers ? LOOKED_AT_MS : ALONE_MS;
    if (uv_timer_get_repeat(&a->tick) != ms)
        (void)uv_timer_start(&a->tick, events_on_tick, ms, ms);
}

/* What a viewer of this kind gets now; NULL: no memory. */
static struct block *render(const struct admin *a, const struct admin_conn *c, bool whole)
{
    struct status_ask ask = c->viewed;
    struct block *b = block_new();
    ask.brief = !whole;
    if (b && !buf_addf(&b->bytes, "event: point\ndata: ") &&
        !history_write_last(&b->bytes, a->history) &&
        !buf_addf(&b->bytes, "\n\nevent: status\ndata: ") &&
        !status_write(&b->bytes, &a->config.view, &ask) && !buf_add(&b->bytes, "\n\n", 2))
        return b;
    block_unref(&b);
    return NULL;
}

static bool is_whole(const struct admin_conn *c)
{
    return c->turns % WHOLE_EVERY == 0;
}

static struct admin_conn *next_due(struct admin *a)
{
    for (struct list *n = a->conns.next; n != &a->conns; n = n->next) {
        struct admin_conn *c = container_of(n, struct admin_conn, node);
        if (c->due)
            return c;
    }
    return NULL;
}

static void give(struct admin_conn *c, struct block *b)
{
    c->due = false;
    c->turns++;
    admin_send(c, b); /* may close it */
}

/* To `first`, and to all that look at the same. */
static void give_all(struct admin *a, struct admin_conn *first)
{
    bool whole = is_whole(first);
    struct block *b = render(a, first, whole);
    const char *query = first->query;
    if (!b) {
        first->due = false; /* the next one, maybe */
        return;
    }
    for (struct list *n = first->node.next, *next; n != &a->conns; n = next) {
        struct admin_conn *c = container_of(n, struct admin_conn, node);
        next = n->next;
        if (c->due && is_whole(c) == whole && strcmp(c->query, query) == 0)
            give(c, b);
    }
    give(first, b); /* the last: `query` is his */
    block_unref(&b);
}

void events_on_tick(uv_timer_t *timer)
{
    struct admin *a = timer->data;
    point(a);
    for (struct list *n = a->conns.next; n != &a->conns; n = n->next) {
        struct admin_conn *c = container_of(n, struct admin_conn, node);
        c->due = c->state == CONN_EVENTS && !c->unsent;
    }
    for (struct admin_conn *c; (c = next_due(a));)
        give_all(a, c);
}

void events_begin(struct admin_conn *c, struct slice query)
{
    struct admin *a = c->a;
    struct err e = {{0}};
    if (status_ask_parse(&c->viewed, query, &e)) {
        admin_say(c, 400, "", "%s", e.text);
        return;
    }
    if (a->n_viewers == ADMIN_VIEWERS_MAX) {
        admin_say(c, 503, "Retry-After: 10\r\n", "%d look at events already; close one of them",
                  ADMIN_VIEWERS_MAX);
        return;
    }
    c->query = calloc(1, query.n + 1);
    if (!c->query) {
        admin_conn_close(c);
        return;
    }
    if (query.n)
        memcpy(c->query, query.p, query.n);
    if (!a->n_viewers++)
        point(a); /* the newest one may be 10 s old */
    events_pace(a);
    admin_stream(c, "text/event-stream");
    if (c->closing)
        return;
    struct block *b = render(a, c, true);
    if (b)
        give(c, b);
    else
        admin_conn_close(c);
    block_unref(&b);
}

void events_end(struct admin_conn *c)
{
    c->due = false;
    c->a->n_viewers--;
    if (!c->a->ended)
        events_pace(c->a);
}
