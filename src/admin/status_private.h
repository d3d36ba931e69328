/*
 * status_private: what the files of the status share: one look at all records in flight, groups
 * that are counted, and how a record is written.
 *
 * Owner:   see each. Nothing outlives the call that writes a status.
 * Threads: one.
 */
#ifndef WEIR_ADMIN_STATUS_PRIVATE_H
#define WEIR_ADMIN_STATUS_PRIVATE_H

#include "admin/status.h"
#include "base/json.h"

/* Most of each list. */
#define STATUS_QUEUES 50
#define STATUS_REFUSALS 50
#define STATUS_SLOWEST 20
#define STATUS_FAILED 50

/* The clocks, read once a call. */
struct status_now {
    int64_t mono_ns, wall_ns;
};

/* ---- status_groups.c ---- */

/* What is counted together: a route, why (0: no matter), and who. */
struct group {
    uint64_t hash;   /* of all of them; 0: the place is free */
    int64_t last_ns; /* wall clock; the newest */
    uint32_t n;
    uint16_t route;
    uint8_t reason;
    char user[sizeof((struct flight *)0)->user];       /* "" = nobody: then the address counts */
    char address[sizeof((struct flight *)0)->address]; /* of the newest */
};

/* A table of fixed size. What finds no place any more is not counted: it comes after thousands of
 * others, so it is not among the largest. */
struct groups {
    struct group *all; /* owned */
    uint32_t size;     /* a power of two */
};
/* 0 or -ENOMEM. */
WEIR_MUST_USE int groups_init(struct groups *g, uint32_t size);
void groups_fini(struct groups *g);
void groups_add(struct groups *g, const struct flight *f, unsigned reason, int64_t at_ns);
/* The largest first, at most `most`; how many were written. */
unsigned groups_largest(const struct groups *g, const struct group **out, unsigned most);

/* ---- status_flights.c ---- */

/* What was found in one look at all records in flight. */
struct flights_seen {
    uint32_t routes[TELEMETRY_ROUTES_MAX]; /* in flight, of each */
    uint32_t states[FLIGHT_STATES];        /* all of them, whatever is asked for */
    uint32_t matched;                      /* that are asked for */
    uint64_t unlisted;                     /* requests that found no record, ever */
    struct groups waiting;                 /* those that wait for a quota or a place */
    int64_t
        *ready_ns; /* owned; of each slot: since when the first waits for a thread; 0: none does */
    struct flight *listed; /* owned; in the order asked for */
    unsigned n_listed;
};
/* 0 or -ENOMEM. Zero before; flights_seen_fini in any case. */
WEIR_MUST_USE int flights_look(struct flights_seen *seen, const struct admin_view *v,
                               const struct status_ask *ask);
void flights_seen_fini(struct flights_seen *seen);

/* Has the slot a process whose requests are in flight? */
bool status_slot_serves(const struct admin_view *v, unsigned slot);

void status_flight_live(struct json *j, const struct admin_view *v, const struct flight *f,
                        const struct status_now *now);
/* One that is over, from a ring. */
void status_flight_kept(struct json *j, const struct admin_view *v, const struct flight *f);
const char *status_route_name(const struct admin_view *v, unsigned route);
/* "" becomes null. */
void status_text_or_null(struct json *j, const char *text);

/* ---- status_kept.c ---- */

/* Members "refusals", "slowest" and "failed". 0 or -ENOMEM. */
WEIR_MUST_USE int status_kept(struct json *j, const struct admin_view *v,
                              const struct status_now *now);

/* ---- status_routes.c ---- */

/* Member "routes". */
void status_routes(struct json *j, const struct admin_view *v, const struct flights_seen *seen,
                   const struct status_now *now);

#endif
