/*
 * worker: what a server does as one worker of several. It writes its slot of the board, gives signs
 * of life, and asks to be replaced when it has served enough.
 *
 * A server that serves alone has a worker too; then nothing here does anything.
 *
 * Threads: start before the loop runs; the rest leader only, but worker_recycle any.
 */
#ifndef WEIR_SERVE_WORKER_H
#define WEIR_SERVE_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/slice.h"
#include "obs/scoreboard.h"
#include "serve/balance.h"

struct server;
struct h1_conn;
struct policy;
struct shared;

/* What a worker of several is given. All descriptors are lent and stay open as long as the server. */
struct server_worker {
    struct scoreboard *board;
    unsigned slot;    /* own slot of the board */
    int hand_recv;    /* SOCK_SEQPACKET shared by all workers: connections that a stopping worker hands over; -1: none */
    int hand_send;    /* its other end */
    int tell_fd;      /* one byte tells the supervisor to look at the board; -1: nobody */
    struct shared *shared; /* of admission */
    struct policy *policy; /* taken; NULL: the file says nothing of admission */
};

struct worker {
    struct server_worker given;   /* .board NULL: this process serves alone */
    struct scoreboard_slot *slot; /* NULL: the same */
    uv_timer_t beat_timer;        /* sign of life, and a look at the memory */
    uv_timer_t life_timer;        /* max-lifetime */
    uint64_t last_request;        /* the request with this number (counted from 1) ends its life; 0 = none does */
    uint64_t looked_request;      /* number of the last request when the memory was looked at */
    uint64_t looked_ms;           /* and the loop time */
    struct balance balance;       /* with a slot only */
    unsigned handed;              /* connections given to other workers */
    uv_poll_t hand_poll;          /* watches given.hand_send while it is full */
    bool hand_watched;            /* hand_poll is a handle of the loop */
    uv_timer_t hand_timer;        /* when to try again where nothing tells */
};

/* Make the timers; worker_close must follow. */
void worker_init(struct server *s);

/* Before the first turn of the loop: the slot says READY, the heart beats. */
void worker_start(struct server *s);

/* The slot says DRAINING; no replacement is asked for any more. */
void worker_drains(struct server *s);

/* Can connections be handed over to other workers? */
bool worker_can_hand(const struct server *s);

/* struct h1_up: hand an idle connection over. */
int worker_hand(struct h1_conn *hc);

/* The same with bytes that were read from it and not served. */
int worker_hand_input(struct h1_conn *hc, struct slice input);

/* Hand over all that can be. */
void worker_hand_all(struct server *s);

/* struct listen_set: take over one connection that another worker has handed over. */
int worker_receive(void *arg);

/* Take over all that were handed over; false: there were none. */
bool worker_take_handed(struct server *s);

/* The loop ends: close the timers. */
void worker_close(struct server *s);

/* Resident memory of this process in bytes; 0: unknown. */
int64_t worker_rss_bytes(void);

/* Ask the supervisor for a replacement, once; this worker goes on until it is told to stop. */
void worker_recycle(struct server *s, enum recycle_reason why);

#endif
