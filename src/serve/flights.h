/*
 * flights: what a server tells of its requests, for who looks (obs/telemetry.h). Where nobody can look
 * (neither --admin nor --otlp-endpoint) server_flights.telemetry is NULL, no exchange has a record, and
 * each call here is one comparison.
 *
 * Owner:   the record of an exchange is the slot's; begin takes it, end gives it back.
 * Threads: leader only, but flights_run.
 */
#ifndef WEIR_SERVE_FLIGHTS_H
#define WEIR_SERVE_FLIGHTS_H

#include <uv.h>

#include "admit/refusal.h"
#include "base/err.h"
#include "conf/policy.h"
#include "obs/scoreboard.h"
#include "obs/telemetry.h"
#include "serve/lead.h"

struct exchange;
struct server;

/* Of a server. */
struct server_flights {
    struct telemetry *telemetry;     /* lent; NULL: nobody looks */
    struct telemetry_worker *worker; /* of our slot */
    unsigned slot;
    uint32_t generation;
    int32_t pid;
    bool spans;                      /* they are sent somewhere */
    uint16_t rows[POLICY_ROUTES_MAX]; /* of telemetry, by the policy's route */
    int64_t wall_less_mono_ns;       /* as it was at the last beat */
    uv_timer_t beat;                 /* figures that nobody else writes; runs with telemetry only */
    uint64_t beat_ms;                /* loop time at which it is due next */
    int64_t descriptors_ns;          /* when they were counted last */
    struct lead_stats before;        /* runs of the processes that had the slot before */
    struct scoreboard_slot *alone_slot; /* where this process serves alone, and somebody looks */
};

/* In server_start: before anything of the server counts; then with its loop; when it accepts no more. */
void flights_join(struct server *s);
void flights_start(struct server *s);
void flights_drains(struct server *s);
/* Before loop_fini. */
void flights_close(struct server *s);

/* The head is complete, and the client's address known. */
void flights_head(struct exchange *x);
/* The policy has found its route, and who asks. */
void flights_admitted(struct exchange *x);
/* It is answered by Weir itself. */
void flights_own(struct exchange *x);
/* A limit of a route with dry_run would have refused it. */
void flights_dry_run(struct exchange *x, enum refusal_id id);
/* Enter a state now, or at a time that is known. */
void flights_enter_at(struct exchange *x, enum flight_state state, int64_t now_ns);
void flights_enter(struct exchange *x, enum flight_state state);
/* slow-request has told of it. */
void flights_slow(struct exchange *x);
/* Any thread: it asks for the application's lock now, and has it when flights_run comes. */
void flights_ask(void);
/* Any thread: the calling one runs it. */
void flights_run(struct exchange *x, int64_t now_ns);
/* It is answered (status; 0: nothing was sent), or will never be. cut: enum close_reason, or -1. */
void flights_answered(struct exchange *x, int status, int cut, uint64_t wire_bytes, int64_t now_ns);
/* It is answered in place of the application for this reason, which the checks did not know of. */
void flights_why(struct exchange *x, enum refusal_id id);
/* An answer of the server to something that never became an exchange. */
void flights_refused(struct server *s, int status);
/* The exchange is recycled. */
void flights_end(struct exchange *x);

#endif
