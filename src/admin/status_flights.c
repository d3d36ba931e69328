/*
 * status_flights: one look at all records in flight, and how a record is written.
 *
 * A record is some 500 bytes, and there may be many thousands: so state, route and age are read
 * first, without a copy, and only what is listed, counted by user or searched for a text is copied.
 * A record may change between the two; then it is left out, or shown as it became.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "admin/status_private.h"
#include "base/clock.h"
#include "base/escape.h"

/* Pairs of route and user that are told apart while waiting requests are counted. */
#define WAITING_GROUPS 8192

const char *status_route_name(const struct admin_view *v, unsigned route)
{
    uint32_t n = atomic_load_explicit(&v->telemetry->n_routes, memory_order_acquire);
    return v->telemetry->routes[route < n ? route : TELEMETRY_ROUTE_OTHER];
}

void status_text_or_null(struct json *j, const char *text)
{
    json_str(j, *text ? text : NULL);
}

bool status_slot_serves(const struct admin_view *v, unsigned slot)
{
    if (slot >= v->board->n_slots || slot >= v->telemetry->n_slots)
        return false;
    int state = atomic_load_explicit(&v->board->slots[slot].state, memory_order_acquire);
    return state == WORKER_READY || state == WORKER_DRAINING;
}

/* ---- choosing ---- */

/* Those that are listed: up to twice as many are gathered, then the later half is dropped. */
struct picks {
    const struct admin_view *v;
    enum status_sort sort;
    struct flight *all; /* of flights_seen; room for 2 * most */
    unsigned n, most;
    bool full; /* `most` have been sorted: what comes behind the last of them is of no use */
};

static int by_text(const char *a, const char *b)
{
    return !*a != !*b ? (*a ? -1 : 1) : strcmp(a, b); /* nobody comes last */
}

static int by_number(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int compare(const void *left, const void *right, void *arg)
{
    const struct flight *a = left, *b = right;
    const struct picks *p = arg;
    int rc = 0;
    switch (p->sort) {
    case STATUS_BY_AGE:
        break;
    case STATUS_BY_USER:
        rc = by_text(a->user, b->user);
        break;
    case STATUS_BY_ROUTE:
        rc = strcmp(status_route_name(p->v, a->route), status_route_name(p->v, b->route));
        break;
    case STATUS_BY_STATE:
        rc = by_number(a->state, b->state);
        break;
    }
    rc = rc ? rc : by_number(a->at_ns[FLIGHT_READING], b->at_ns[FLIGHT_READING]);
    rc = rc ? rc : by_number(a->slot, b->slot);
    return rc ? rc : by_number((int64_t)a->id, (int64_t)b->id);
}

static void picks_sort(struct picks *p)
{
    qsort_r(p->all, p->n, sizeof *p->all, compare, p);
    p->full = p->n >= p->most;
    p->n = p->full ? p->most : p->n;
}

static void picks_add(struct picks *p, const struct flight *f)
{
    if (p->full && compare(f, &p->all[p->most - 1], p) >= 0)
        return;
    p->all[p->n++] = *f;
    if (p->n == 2 * p->most)
        picks_sort(p);
}

/* Is there room for one of this age? Without a look at more of it. */
static bool picks_want(const struct picks *p, int64_t since_ns)
{
    return p->most && !(p->full && p->sort == STATUS_BY_AGE &&
                        since_ns > p->all[p->most - 1].at_ns[FLIGHT_READING]);
}

/* Is `part` in `text`? Without regard to ASCII case; `part` is in small letters. */
static bool contains(const char *text, const char *part)
{
    size_t n = strlen(part);
    for (; *text; text++) {
        size_t i = 0;
        while (i < n && slice_lower((unsigned char)text[i]) == (unsigned char)part[i])
            i++;
        if (i == n)
            return true;
    }
    return n == 0;
}

/* ---- the look ---- */

struct look {
    struct flights_seen *seen;
    const struct status_ask *ask;
    struct picks picks;
    char find[sizeof((struct status_ask *)0)->find]; /* in small letters */
    int route;                                       /* -1: all; -2: there is none of that name */
};

static bool finds(const struct look *k, const struct flight *f)
{
    return contains(f->path, k->find) || contains(f->user, k->find) ||
           contains(f->address, k->find) || contains(f->request_id, k->find);
}

static void look_at(struct look *k, const struct flight *record, unsigned slot)
{
    struct flights_seen *seen = k->seen;
    /* Plain fields that another process writes: read once each, and checked. */
    unsigned state = flight_state_now(record);
    unsigned route = __atomic_load_n(&record->route, __ATOMIC_RELAXED);
    int64_t since_ns = __atomic_load_n(&record->at_ns[FLIGHT_READING], __ATOMIC_RELAXED);
    if (state == FLIGHT_NONE)
        return;
    seen->states[state]++;
    if (state == FLIGHT_READY) {
        int64_t ready_ns = __atomic_load_n(&record->at_ns[FLIGHT_READY], __ATOMIC_RELAXED);
        if (!seen->ready_ns[slot] || ready_ns < seen->ready_ns[slot])
            seen->ready_ns[slot] = ready_ns;
    }
    seen->routes[route < TELEMETRY_ROUTES_MAX ? route : TELEMETRY_ROUTE_OTHER]++;

    bool waits = state == FLIGHT_QUOTA || state == FLIGHT_QUEUED;
    bool wanted = (!k->ask->state || k->ask->state == (int)state) &&
                  (!k->ask->worker || k->ask->worker == (int)slot + 1) &&
                  (k->route == -1 || k->route == (int)route);
    bool searched = wanted && k->find[0];
    bool listed = wanted && (searched || picks_want(&k->picks, since_ns));
    struct flight f;
    bool whole = (waits || listed) && flight_copy(&f, record);
    if (whole && waits && (f.state == FLIGHT_QUOTA || f.state == FLIGHT_QUEUED))
        groups_add(&seen->waiting, &f, 0, f.wall_ns);
    if (!wanted || (searched && (!whole || !finds(k, &f))))
        return;
    seen->matched++;
    if (whole && k->picks.most && (listed || searched))
        picks_add(&k->picks, &f);
}

int flights_look(struct flights_seen *seen, const struct admin_view *v,
                 const struct status_ask *ask)
{
    struct look k = {.seen = seen, .ask = ask, .route = -1};
    k.picks = (struct picks){.v = v, .sort = ask->sort};
    k.picks.most = ask->flights == STATUS_NO_FLIGHTS   ? 0
                   : !ask->flights                     ? STATUS_FLIGHTS
                   : ask->flights > STATUS_FLIGHTS_MAX ? STATUS_FLIGHTS_MAX
                                                       : ask->flights;
    for (size_t i = 0; ask->find[i]; i++)
        k.find[i] = (char)slice_lower((unsigned char)ask->find[i]);
    if (ask->route[0]) {
        unsigned route = telemetry_find_route(v->telemetry, ask->route);
        k.route = strcmp(status_route_name(v, route), ask->route) == 0 ? (int)route : -2;
    }
    if (groups_init(&seen->waiting, WAITING_GROUPS))
        return -ENOMEM;
    seen->listed = calloc(2 * k.picks.most + 1, sizeof *seen->listed);
    seen->ready_ns = calloc(v->telemetry->n_slots, sizeof *seen->ready_ns);
    if (!seen->listed || !seen->ready_ns)
        return -ENOMEM;
    k.picks.all = seen->listed;

    for (unsigned slot = 0; slot < v->telemetry->n_slots; slot++) {
        const struct telemetry_worker *w = telemetry_slot(v->telemetry, slot);
        seen->unlisted += atomic_load_explicit(&w->unlisted, memory_order_relaxed);
        if (!status_slot_serves(v, slot))
            continue;
        const struct flight *all = telemetry_flights(v->telemetry, slot);
        uint32_t top = atomic_load_explicit(&w->top, memory_order_acquire);
        for (uint32_t i = 0; i < top && i < v->telemetry->flights_max; i++)
            look_at(&k, &all[i], slot);
    }
    if (k.picks.most)
        picks_sort(&k.picks);
    seen->n_listed = k.picks.n;
    return 0;
}

void flights_seen_fini(struct flights_seen *seen)
{
    groups_fini(&seen->waiting);
    free(seen->listed);
    free(seen->ready_ns);
    seen->listed = NULL;
    seen->ready_ns = NULL;
}

/* ---- one record ---- */

static void hex_or_null(struct json *j, const unsigned char *bytes, size_t n)
{
    char text[2 * sizeof((struct flight *)0)->trace_id], *p = text;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        any |= bytes[i] != 0;
        p = escape_hex2(p, bytes[i]);
    }
    if (any)
        json_text(j, slice_of(text, (size_t)(p - text)));
    else
        json_none(j);
}

/* State, begin, duration; in the order in which the states were entered. */
static void waterfall(struct json *j, const struct flight *f, int64_t end_ns)
{
    unsigned order[FLIGHT_STATES], n = 0;
    for (unsigned s = 1; s < FLIGHT_STATES; s++) {
        if (!f->at_ns[s])
            continue;
        unsigned at = n++;
        for (; at > 0 && f->at_ns[order[at - 1]] > f->at_ns[s]; at--)
            order[at] = order[at - 1];
        order[at] = s;
    }
    json_open(j, '[');
    for (unsigned i = 0; i < n; i++) {
        int64_t at_ns = f->at_ns[order[i]];
        int64_t until_ns = i + 1 < n ? f->at_ns[order[i + 1]] : end_ns;
        json_open(j, '[');
        json_str(j, flight_state_word((enum flight_state)order[i]));
        json_seconds(j, at_ns - f->at_ns[FLIGHT_READING]);
        if (until_ns)
            json_seconds(j, until_ns > at_ns ? until_ns - at_ns : 0);
        else
            json_none(j);
        json_close(j, ']');
    }
    json_close(j, ']');
}

/* What one in flight and one that is over have in common. end_ns: 0: it is in flight, also where it
 * has been answered and its thread is late. */
static void common(struct json *j, const struct admin_view *v, const struct flight *f,
                   int64_t end_ns)
{
    int32_t thread = atomic_load_explicit(&f->thread, memory_order_relaxed);
    json_key(j, "worker");
    json_uint(j, f->slot);
    json_key(j, "pid");
    json_int(j, f->pid);
    json_key(j, "id");
    json_uint(j, f->id);
    json_key(j, "request_id");
    status_text_or_null(j, f->request_id);
    json_key(j, "trace_id");
    hex_or_null(j, f->trace_id, sizeof f->trace_id);
    json_key(j, "at");
    json_seconds(j, f->wall_ns);
    json_key(j, "method");
    json_str(j, f->method);
    json_key(j, "path");
    json_str(j, f->path);
    json_key(j, "route");
    json_str(j, status_route_name(v, f->route));
    json_key(j, "user");
    status_text_or_null(j, f->user);
    json_key(j, "address");
    status_text_or_null(j, f->address);
    json_key(j, "thread");
    if (thread)
        json_int(j, thread);
    else
        json_none(j);
    json_key(j, "bytes_in");
    json_uint(j, f->bytes_in);
    json_key(j, "bytes_out");
    json_uint(j, f->bytes_out);
    json_key(j, "slow");
    json_bool(j, f->slow);
    json_key(j, "waterfall");
    waterfall(j, f, end_ns);
}

static int64_t since(int64_t from_ns, int64_t now_ns)
{
    return from_ns && now_ns > from_ns ? now_ns - from_ns : 0;
}

void status_flight_live(struct json *j, const struct admin_view *v, const struct flight *f,
                        const struct status_now *now)
{
    json_open(j, '{');
    json_key(j, "state");
    json_str(j, flight_state_word((enum flight_state)f->state));
    json_key(j, "age");
    json_seconds(j, since(f->at_ns[FLIGHT_READING], now->mono_ns));
    json_key(j, "in_state");
    json_seconds(j, since(f->at_ns[f->state], now->mono_ns));
    common(j, v, f, 0);
    json_close(j, '}');
}

void status_flight_kept(struct json *j, const struct admin_view *v, const struct flight *f)
{
    json_open(j, '{');
    json_key(j, "total");
    json_seconds(j, since(f->at_ns[FLIGHT_READING], f->at_ns[FLIGHT_NONE]));
    json_key(j, "status");
    if (f->status)
        json_uint(j, f->status);
    else
        json_none(j);
    json_key(j, "cut");
    json_str(j, f->cut && f->cut <= CLOSE_REASONS
                    ? close_reason_word((enum close_reason)(f->cut - 1))
                    : NULL);
    json_key(j, "refusal");
    json_str(j, f->refusal && f->refusal <= REFUSALS
                    ? refusal_word((enum refusal_id)(f->refusal - 1))
                    : NULL);
    common(j, v, f, f->at_ns[FLIGHT_NONE]);
    json_close(j, '}');
}

int status_write_flight(struct buf *out, const struct admin_view *v, unsigned worker, uint64_t id)
{
    struct json j = json_begin(out);
    struct status_now now = {clock_mono_ns(), clock_wall_ns()};
    bool serves = status_slot_serves(v, worker);
    const struct flight *all = serves ? telemetry_flights(v->telemetry, worker) : NULL;
    uint32_t top = serves ? atomic_load_explicit(&telemetry_slot(v->telemetry, worker)->top,
                                                 memory_order_acquire)
                          : 0;
    for (uint32_t i = 0; i < top && i < v->telemetry->flights_max; i++) {
        struct flight f;
        if (__atomic_load_n(&all[i].id, __ATOMIC_RELAXED) != id || !flight_copy(&f, &all[i]) ||
            f.id != id)
            continue;
        status_flight_live(&j, v, &f, &now);
        return json_end(&j);
    }
    json_none(&j);
    return json_end(&j);
}
