/* status_kept: requests that are over and were kept: the slowest, the failed, and who was refused.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "admin/status_private.h"

#define HOUR_NS (3600 * INT64_C(1000000000))
/* Groups of refusals that are told apart. */
#define REFUSAL_GROUPS 2048

/* When it was over, by the wall clock. */
static int64_t ended_ns(const struct flight *f)
{
    return f->wall_ns + f->at_ns[FLIGHT_NONE] - f->at_ns[FLIGHT_READING];
}

static int64_t total_ns(const struct flight *f)
{
    return f->at_ns[FLIGHT_NONE] - f->at_ns[FLIGHT_READING];
}

static bool in_last_hour(const struct flight *f, const struct status_now *now)
{
    return ended_ns(f) > now->wall_ns - HOUR_NS;
}

/* The greatest by a key, greatest first. */
struct best {
    struct flight *all; /* owned */
    unsigned n, most;
    int64_t (*key)(const struct flight *f);
};

static void best_offer(struct best *b, const struct flight *f)
{
    int64_t key = b->key(f);
    if (b->n == b->most && b->key(&b->all[b->n - 1]) >= key)
        return;
    unsigned at = b->n < b->most ? b->n++ : b->n - 1;
    for (; at > 0 && b->key(&b->all[at - 1]) < key; at--)
        b->all[at] = b->all[at - 1];
    b->all[at] = *f;
}

static void best_write(struct json *j, const struct admin_view *v, const char *name, struct best *b)
{
    json_key(j, name);
    json_open(j, '[');
    for (unsigned i = 0; i < b->n; i++)
        status_flight_kept(j, v, &b->all[i]);
    json_close(j, ']');
    free(b->all);
}

static int write_slowest(struct json *j, const struct admin_view *v, const struct status_now *now)
{
    struct best b = {calloc(STATUS_SLOWEST, sizeof *b.all), 0, STATUS_SLOWEST, total_ns};
    int64_t oldest = (now->wall_ns - HOUR_NS) / (HOUR_NS / 60);
    if (!b.all)
        return -ENOMEM;
    for (unsigned slot = 0; slot < v->telemetry->n_slots; slot++) {
        const struct telemetry_worker *w = telemetry_slot(v->telemetry, slot);
        for (unsigned m = 0; m < TELEMETRY_MINUTES; m++) {
            int64_t minute = atomic_load_explicit(&w->minutes[m].minute, memory_order_acquire);
            for (unsigned i = 0; minute >= oldest && minute && i < TELEMETRY_SLOWEST; i++) {
                struct flight f;
                if (flight_copy_kept(&f, &w->minutes[m].slowest[i]) && in_last_hour(&f, now))
                    best_offer(&b, &f);
            }
        }
    }
    best_write(j, v, "slowest", &b);
    return 0;
}

static int write_failed(struct json *j, const struct admin_view *v, const struct status_now *now)
{
    struct best b = {calloc(STATUS_FAILED, sizeof *b.all), 0, STATUS_FAILED, ended_ns};
    if (!b.all)
        return -ENOMEM;
    for (unsigned slot = 0; slot < v->telemetry->n_slots; slot++) {
        const struct telemetry_worker *w = telemetry_slot(v->telemetry, slot);
        uint64_t n = atomic_load_explicit(&w->failed_n, memory_order_relaxed);
        for (uint64_t i = 0; i < n && i < TELEMETRY_FAILED; i++) {
            struct flight f;
            if (flight_copy_kept(&f, &w->failed[i]) && in_last_hour(&f, now))
                best_offer(&b, &f);
        }
    }
    best_write(j, v, "failed", &b);
    return 0;
}

static int write_refusals(struct json *j, const struct admin_view *v, const struct status_now *now)
{
    struct groups g = {0};
    const struct group *top[STATUS_REFUSALS];
    if (groups_init(&g, REFUSAL_GROUPS))
        return -ENOMEM;
    for (unsigned slot = 0; slot < v->telemetry->n_slots; slot++) {
        const struct telemetry_worker *w = telemetry_slot(v->telemetry, slot);
        uint64_t n = atomic_load_explicit(&w->refused_n, memory_order_relaxed);
        for (uint64_t i = 0; i < n && i < TELEMETRY_REFUSED; i++) {
            struct flight f;
            if (flight_copy_kept(&f, &w->refused[i]) && f.refusal && f.refusal <= REFUSALS &&
                in_last_hour(&f, now))
                groups_add(&g, &f, f.refusal, ended_ns(&f));
        }
    }
    unsigned n = groups_largest(&g, top, STATUS_REFUSALS);
    json_key(j, "refusals");
    json_open(j, '[');
    for (unsigned i = 0; i < n; i++) {
        json_open(j, '{');
        json_key(j, "route");
        json_str(j, status_route_name(v, top[i]->route));
        json_key(j, "reason");
        json_str(j, refusal_word((enum refusal_id)(top[i]->reason - 1)));
        json_key(j, "user");
        status_text_or_null(j, top[i]->user);
        json_key(j, "address");
        status_text_or_null(j, top[i]->address);
        json_key(j, "count");
        json_uint(j, top[i]->n);
        json_key(j, "last");
        json_seconds(j, top[i]->last_ns);
        json_close(j, '}');
    }
    json_close(j, ']');
    groups_fini(&g);
    return 0;
}

int status_kept(struct json *j, const struct admin_view *v, const struct status_now *now)
{
    int rc = write_refusals(j, v, now);
    rc = rc ? rc : write_slowest(j, v, now);
    return rc ? rc : write_failed(j, v, now);
}
