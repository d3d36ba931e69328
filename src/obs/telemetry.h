/*
 * telemetry: what all workers do and did, in shared memory: totals and histograms of each route,
 * the requests in flight, those that were slow or failed, and finished ones on their way to a
 * collector.
 *
 * Mapped before the first fork where somebody may look (--admin, --otlp-endpoint); each slot of the
 * scoreboard has one here. A worker writes its own, with plain stores; whoever looks reads all of
 * them without asking anybody, so it works while workers hang, and nothing is lost when one dies:
 * totals stay in the slot for the next process that gets it. Reading costs the readers alone.
 *
 * Records (struct flight) are copied under their sequence number; one that is being written is left
 * out by the reader. Texts in them are cut to their room and NUL-terminated.
 *
 * Units:   _ns nanoseconds of the monotonic clock, wall_ns of the wall clock (UTC).
 * Owner:   telemetry_new maps, telemetry_free unmaps; inherited by fork.
 * Threads: one writer a slot (the leader of its worker), but what is said to be any thread's;
 * readers any, in any process. telemetry_route in the process that reads configurations, alone.
 * Crash:   a record whose writer died in the middle keeps an odd number and is not shown;
 *          telemetry_adopt, by the next owner of the slot, clears what the dead one had in flight.
 */
#ifndef WEIR_OBS_TELEMETRY_H
#define WEIR_OBS_TELEMETRY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/robust.h"
#include "base/slice.h"

/* ---- histograms ---- */

enum {
#define DURATION(ns) +1
    TELEMETRY_BOUNDS = 0
#include "obs/durations.def"
#undef DURATION
};
extern const int64_t telemetry_bounds[TELEMETRY_BOUNDS]; /* ns, ascending */

struct telemetry_hist {
    _Atomic uint64_t
        counts[TELEMETRY_BOUNDS + 1]; /* not cumulative; [i]: <= bounds[i]; the last: above */
    _Atomic uint64_t sum_ns;
};

/* The owner's way to count. */
void telemetry_observe(struct telemetry_hist *h, int64_t ns);
/* Any thread's. */
void telemetry_observe_shared(struct telemetry_hist *h, int64_t ns);

/* A copy that is not shared, for sums over slots and differences over time. */
struct telemetry_counts {
    uint64_t counts[TELEMETRY_BOUNDS + 1];
    uint64_t sum_ns, n;
};
void telemetry_sum(struct telemetry_counts *to, const struct telemetry_hist *h); /* adds */
/* after - before, for a window of time; before may be all zero. */
void telemetry_minus(struct telemetry_counts *after, const struct telemetry_counts *before);
/* 0 <= q <= 1; interpolated inside its step; 0 where nothing was counted; above the last bound: the
 * last bound. */
int64_t telemetry_quantile(const struct telemetry_counts *c, double q);

/* ---- routes ---- */

/* Routes of all configurations since the start; those beyond share row 0. */
#define TELEMETRY_ROUTES_MAX 160
#define TELEMETRY_ROUTE_BYTES 128
#define TELEMETRY_ROUTE_OTHER 0 /* "*": no route of the file is about it */
#define TELEMETRY_ROUTE_OWN 1   /* "/-/": the server's own answers */

/* Statuses that are counted apart; another one counts as its hundred ("4xx"). */
#define TELEMETRY_STATUSES 64
/* Where a status is counted; 0: no answer was sent. */
unsigned telemetry_status_index(int status);
/* "200", "4xx", "none" for 0; NULL: no such row. */
const char *telemetry_status_text(unsigned index);

#define TELEMETRY_REFUSALS 32 /* by enum refusal_id of admit/refusal.h */

struct telemetry_route {
    _Atomic uint64_t statuses[TELEMETRY_STATUSES];
    _Atomic uint64_t refused[TELEMETRY_REFUSALS];
    _Atomic uint64_t dry_run[TELEMETRY_REFUSALS];   /* would have been */
    struct telemetry_hist total, queue, app, write; /* queue: quota, place and thread together */
};

/* ---- requests ---- */

enum flight_state {
    FLIGHT_NONE = 0, /* the record is free */
#define FLIGHT_STATE(id, word, help) FLIGHT_##id,
#include "obs/flight_states.def"
#undef FLIGHT_STATE
    FLIGHT_STATES
};
const char *flight_state_word(enum flight_state s);
const char *flight_state_help(enum flight_state s);

struct flight {
    _Atomic uint32_t seq;   /* odd: it is being written */
    _Atomic int32_t thread; /* kernel's number of the thread that runs it; 0: none; below 0, in the
                               owner's record alone: none, and LATE. Any thread's */
    uint8_t state;          /* enum flight_state */
    uint8_t refusal;        /* 1 + enum refusal_id; 0: it was not refused */
    uint8_t cut;            /* 1 + enum close_reason; 0: it ended in an orderly way */
    bool slow;              /* slow-request has told of it */
    bool sampled;           /* the trace is recorded */
    uint16_t route;
    uint16_t status; /* when it is over; 0: none was sent */
    uint16_t slot;
    uint32_t generation; /* of the slot */
    uint32_t next;       /* private: the free list */
    int32_t pid;
    uint64_t id;   /* number of the request in its process, as in the logs */
    uint64_t flow; /* whose turn it is in the route's queue; 0: it has none */
    uint64_t bytes_in, bytes_out;
    int64_t wall_ns;              /* the head was complete */
    int64_t at_ns[FLIGHT_STATES]; /* when it entered each state; 0: it did not. [FLIGHT_NONE]: its
                                     end */
    unsigned char trace_id[16], parent_id[8], span_id[8]; /* all 0: none */
    char method[12];
    char path[120];      /* without the query */
    char user[72];       /* as limits know it: "jwt:…"; "" = nobody */
    char address[46];    /* the client's, behind trusted proxies */
    char request_id[66]; /* X-Request-Id */
};

/* Finished requests that are kept to be looked at: the newest failures, the newest refusals, and
 * for each of the last 60 minutes the slowest. Records as above. */
#define TELEMETRY_FAILED 128
#define TELEMETRY_REFUSED 128
#define TELEMETRY_MINUTES 60
#define TELEMETRY_SLOWEST 4

struct telemetry_minute {
    _Atomic int64_t minute;                   /* wall clock minutes since 1970; 0: empty */
    struct flight slowest[TELEMETRY_SLOWEST]; /* unordered; state FLIGHT_NONE and id 0: empty */
};

/* ---- a worker ---- */

struct telemetry_worker {
    struct telemetry_hist
        gil_wait; /* from asking for the interpreter lock to having it; any thread's */
    struct telemetry_hist loop_lag; /* how late the loop came to its own heartbeat */
    _Atomic uint64_t inline_runs, away_runs, deposed,
        burst;                             /* of serve/lead, at the last heartbeat */
    _Atomic uint64_t unlisted;             /* requests that found no free record */
    _Atomic uint64_t spans, spans_dropped; /* written to the ring; not written, since it was full */
    _Atomic uint64_t slow;                 /* told by slow-request */
    _Atomic uint32_t threads;              /* application threads that exist */
    _Atomic uint32_t in_flight;            /* requests, LATE included */
    _Atomic uint32_t states[FLIGHT_STATES]; /* of them */
    _Atomic int64_t rss_bytes;              /* at the last heartbeat */
    _Atomic uint32_t descriptors;           /* open; at the last heartbeat, or up to 10 s before */
    _Atomic int64_t
        buffered_bytes;   /* bodies and responses that wait in memory; at the last heartbeat */
    _Atomic uint32_t top; /* records of `flights` that were ever used are below */
    _Atomic uint64_t failed_n, refused_n; /* ever written to the rings */
    _Atomic uint64_t span_head;           /* worker: next to write */
    _Atomic uint64_t span_tail;           /* the exporter: next to read */
    uint32_t free_first;                  /* private to the owner: 1 + index; 0: none */
    int64_t slow_until_ns; /* the same: until then (wall clock) what takes no longer than … */
    int64_t slow_floor_ns; /* … this is none of the slowest of its minute */
    struct telemetry_route routes[TELEMETRY_ROUTES_MAX];
    struct telemetry_minute minutes[TELEMETRY_MINUTES]; /* by minute % 60 */
    struct flight failed[TELEMETRY_FAILED];
    struct flight refused[TELEMETRY_REFUSED];
} __attribute__((aligned(64)));

struct telemetry {
    uint32_t n_slots;
    uint32_t flights_max; /* of each slot */
    uint32_t spans_max;   /* of each slot; a power of two, or 0: nobody exports */
    int64_t started_wall_ns, started_ns;
    struct robust exporter; /* had, all its life, by the one process that reads the span rings */
    /* Of the exporter, which may be killed and begin anew. */
    _Atomic uint64_t otlp_sent, otlp_dropped,
        otlp_failed; /* spans; spans; requests to the collector */
    _Atomic uint32_t n_routes;
    char routes[TELEMETRY_ROUTES_MAX][TELEMETRY_ROUTE_BYTES];
};

/* NULL: no memory. flights_max is chosen by n_slots (1,024 to 16,384). */
WEIR_MUST_USE struct telemetry *telemetry_new(unsigned n_slots, bool spans);
void telemetry_free(struct telemetry **t);
struct telemetry_worker *telemetry_slot(const struct telemetry *t, unsigned slot);
struct flight *telemetry_flights(const struct telemetry *t, unsigned slot); /* flights_max */
struct flight *telemetry_spans(const struct telemetry *t, unsigned slot);   /* spans_max */

/* The row of a route, made when it is new; TELEMETRY_ROUTE_OTHER when all are taken. */
unsigned telemetry_route(struct telemetry *t, const char *name);
/* The row of a route that is there; TELEMETRY_ROUTE_OTHER. */
unsigned telemetry_find_route(const struct telemetry *t, const char *name);

/* ---- the owner of a slot ---- */

/* Before its first request: what an earlier process had in flight is gone; written to `failed`, if
 * it was in the application: nobody else will say what a killed worker was doing. */
void telemetry_adopt(struct telemetry *t, unsigned slot);

/* A record in state READING, zeroed but for that; NULL: none is free (counted). */
struct flight *flight_begin(struct telemetry *t, unsigned slot, int64_t now_ns);
/* Write to a record between these two. */
void flight_edit(struct flight *f);
void flight_edited(struct flight *f);
/* The thread that runs it, when it begins: READY becomes APPLICATION. Any thread, while the owner
 * leaves the record alone but for LATE. */
void flight_run(struct telemetry_worker *w, struct flight *f, int32_t thread, int64_t now_ns);
/* Enter a state; also `edited` by itself. A thread is told no more when it is over (WRITING). */
void flight_enter(struct telemetry_worker *w, struct flight *f, enum flight_state s,
                  int64_t now_ns);

/* What of a finished request is to be kept. */
enum flight_keep { KEEP_FAILED = 1, KEEP_REFUSED = 2, KEEP_SPAN = 4 };
/* It is answered, or never will be: status, refusal, cut, bytes are filled in. Counts it into its
 * route and keeps copies. A request is offered to the slowest of its minute in any case but
 * KEEP_REFUSED. Once a record; flight_free follows, now or when its thread is back. */
void flight_finish(struct telemetry *t, struct flight *f, unsigned keep, int64_t now_ns);
/* The record is free. */
void flight_free(struct telemetry *t, struct flight *f);

/* ---- readers ---- */

/* Where it is, without a copy; it may be elsewhere a moment later. */
enum flight_state flight_state_now(const struct flight *f);
/* A consistent copy; false: it is free, or being written. */
bool flight_copy(struct flight *to, const struct flight *from);
/* As above for records of rings (whose state is FLIGHT_NONE): false: empty, or being written. */
bool flight_copy_kept(struct flight *to, const struct flight *from);

#endif
