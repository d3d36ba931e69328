/*
 * server: one worker: its loop, listeners, connections, threads, application, and its end.
 *
 * Life: server_new, server_listen, server_run (blocks in server_wait), server_free.
 * Threads: new, listen, run, free from one thread that is not an application thread; server_stop from any
 * thread; the rest is the leader's.
 */
#ifndef WEIR_SERVE_SERVER_H
#define WEIR_SERVE_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

#include "base/err.h"
#include "base/heap.h"
#include "base/list.h"
#include "conf/conf.h"
#include "handler/handler.h"
#include "handler/reply.h"
#include "handler/route.h"
#include "http/h1_conn.h"
#include "net/listen.h"
#include "net/loop.h"
#include "obs/access.h"
#include "obs/counters.h"
#include "obs/scoreboard.h"
#include "serve/admission.h"
#include "serve/flights.h"
#include "serve/identity.h"
#include "serve/lead.h"
#include "serve/worker.h"

struct exchange;

enum { SERVER_LOOK_UNDERSCORES = 31 }; /* the bit above those of enum hdr */

enum server_stop_how {
    SERVER_HANDOVER = 1, /* other workers go on: hand idle connections to them, finish what runs, within the grace */
    SERVER_DRAIN = 2,    /* nobody goes on: finish what runs, within the grace; idle clients get a moment to send
                          * the request that may be on its way */
    SERVER_NOW = 3,      /* end at once */
};

struct server {
    const struct conf *conf; /* lent; read-only */
    struct app *app;         /* lent; NULL: only C handlers */
    struct loop loop;
    struct h1_server h1;
    struct listen_set listeners;
    struct counters *counters;   /* of the slot, or own_counters */
    struct counters own_counters;
    struct lead *lead;
    struct access_log *access; /* owned; NULL = none */
    struct tls_context *tls;   /* owned; NULL = none */
    struct worker worker;
    struct server_admission admission;
    struct server_flights flights;
    struct identity_rules identity; /* what requests are to be called */
    struct trace_source ids;
    bool identifies, timed;         /* any of that; times are taken for somebody */

    struct routes *routes;     /* owned; paths that C handlers answer; NULL = none */
    struct reply_ident ident;  /* of all responses */
    struct slice internal;     /* prefix of Weir's own answers; empty: none */
    struct proxy_set trusted;  /* front-ends whose headers count */
    struct proxy_set proxy_from;
    struct proxy_rules rules;
    uint32_t look; /* bits of enum hdr, and SERVER_LOOK_UNDERSCORES: what `rules` are about */
    bool checks_heads; /* a policy, or a deadline for all: there is more to do for each head */

    struct exchange *free;     /* ready for reuse, at most FREE_MAX */
    unsigned n_free;
    struct list exchanges;     /* every exchange with a request in work */
    struct list slow_bodies;   /* exchanges that may be handed over while their body comes */
    uv_timer_t slow_timer;
    bool slow_running;
    struct heap alarms;        /* exchanges whose time will be over, or whose threads are to be looked after */
    uv_timer_t alarm_timer;    /* for the first of them */
    int64_t alarm_ms;          /* loop time at which it fires; 0: it does not run */
    unsigned late;             /* runs whose time is over and whose threads are still inside */
    unsigned lost;             /* of these, for so long that they do not come back */
    bool told_lost;            /* a line has said that they are too many */
    uv_timer_t ready_timer;    /* looks how long requests wait for a thread */
    bool ready_watched;        /* it runs */
    bool told_ready;           /* a line has said that they wait long */
    bool in_done;              /* inside exchange_done_leading */
    _Atomic int64_t memory;    /* bytes of bodies and responses that wait in memory */
    uint64_t next_id;
    unsigned connections_max;

    _Atomic int stop_asked;    /* enum server_stop_how */
    int stop_done;             /* leader: what was begun */
    _Atomic bool leaving;      /* it stops in whichever way: the same for connections that cannot be handed over */
    _Atomic bool draining;     /* SERVER_DRAIN: answers that begin now are the last on their connection */
    _Atomic bool streams_end;  /* responses without a length end as soon as they can */
    _Atomic bool cancelled;    /* the grace is over: streams end */
    _Atomic bool cut;          /* requests were in work then */
    struct mail stop_mail;
    uv_timer_t grace_timer;
    int done_fd;               /* eventfd: readable when the leader has stopped */
    bool looped;               /* loop and h1 are initialised */
};

/* Reads the certificates and keys of TLS, and opens the access log: call it before privileges are dropped. */
WEIR_MUST_USE int server_new(struct server **out, const struct conf *conf, struct app *app,
                             struct err *e);

/* Before server_start: be one worker of several. *w is copied. The server then writes its slot of the board,
 * balances its accepting against the others' slots, and takes connections over. */
void server_join_board(struct server *s, const struct server_worker *w);

/* Instead of server_listen: use the sockets that `set` has opened (before the fork). Takes copies of its
 * descriptors; paths of Unix sockets stay the caller's to remove. */
WEIR_MUST_USE int server_share_listeners(struct server *s, const struct listen_set *set, struct err *e);

/* Open one address as `c` wants it and append it to the set. */
WEIR_MUST_USE int server_bind(struct listen_set *set, const struct conf *c,
                              const struct conf_bind *b, struct err *e);

/* Bind all addresses (also those inherited: fds[0..n_fds)). */
WEIR_MUST_USE int server_listen(struct server *s, const int *fds, unsigned n_fds, struct err *e);

/* Start loop, threads and monitor; returns at once. */
WEIR_MUST_USE int server_start(struct server *s, struct err *e);

/* Any thread, also a signal handler's follower: begin to stop. A second call with SERVER_NOW ends at once. */
void server_stop(struct server *s, enum server_stop_how how);

/* After done_fd became readable: wait for the threads. Returns how many are still inside the
 * application after `timeout_ms`. */
unsigned server_join(struct server *s, int timeout_ms);

/* After server_join returned 0, or when it was never started. */
void server_free(struct server **s);

/* Does it follow Gunicorn where the RFCs leave room? */
static inline bool server_is_gunicorn(const struct server *s)
{
    return s->conf->manners[0] == 'g';
}

/* The leader's way to account memory that waits (may be negative). */
static inline void server_memory(struct server *s, int64_t bytes)
{
    atomic_fetch_add_explicit(&s->memory, bytes, memory_order_relaxed);
}

/* Leader: exchange_alarms has something to do at this loop time. Costs nothing where an earlier time is known. */
void server_alarm(struct server *s, int64_t at_ms);

/* Leader: a request was put on the ready queue, and nobody looks after that yet. */
void server_watch_ready(struct server *s);

/* Leader: a connection closed or became idle while accepting was paused; goes on when there is room. */
void server_accept_again(struct server *s);

/* Leader: a connection closed or an exchange ended; ends a drain that has nothing left to wait for. */
void server_check_drained(struct server *s);

#endif
