/*
 * exchange: head -> handler -> response -> record. THE file to read first.
 *
 * One exchange is one request with its response, from the complete head to the access line. It
 * belongs to the leader, except between its start in the application and the message that the
 * run has ended: then the executing thread owns `call`, and the two share what stands behind `lock`.
 *
 *   RECEIVING  its body is coming                     waits on: the client (body deadline)
 *   PARKED     for the keeper's answer, or in the queue of its route
 *                                                     waits on: serve/admission, within its wait and deadline
 *   IN_WORK    on the ready queue of serve/lead, or run by a thread (then `started` is true)
 *                                                     waits on: a place in the application, or it
 *   SENDING    the run is over, bytes still go out    waits on: the client (send deadline)
 *   ORPHAN     the connection is gone or has its answer, a thread still runs it
 *   IDLE       on the server's free list
 *
 * Each of the first three ends at the request's deadline (RECEIVING with 408, waiting for a place and
 * IN_WORK with 504, or with a cut where the answer has begun), which is why they stand on a heap of
 * the server. An ORPHAN stays on it until its thread is back: see enum exchange_late.
 */
#ifndef WEIR_SERVE_EXCHANGE_H
#define WEIR_SERVE_EXCHANGE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/heap.h"
#include "handler/handler.h"
#include "http/h1_conn.h"
#include "net/loop.h"
#include "serve/admission.h"
#include "serve/identity.h"
#include "serve/lead.h"
#include "serve/server.h"

enum exchange_state { X_IDLE = 0, X_RECEIVING, X_PARKED, X_IN_WORK, X_SENDING, X_ORPHAN };

/* Bytes between the executor and the loop: first in memory, then in an unlinked file. */
struct outq {
    struct buf mem;
    int fd;               /* spill file, or -1; while it holds bytes, all new bytes go there */
    uint64_t file_start;  /* first unsent byte of the file */
    uint64_t file_end;
};

/* A run whose time is over (its deadline, or run-timeout), and whose thread is still inside. What each waits
 * for is the exchange's alarm. */
enum exchange_late {
    LATE_NOT = 0, /* its time is not over */
    LATE_TOLD,    /* its client knows; its thread could not be looked at yet */
    LATE_LOOKED,  /* the application was asked where the thread is, and maybe to interrupt it */
    LATE_WAITED,  /* a look that takes longer was given up */
    LATE_LOST,    /* counted as a thread that does not come back; no alarm any more */
};

/* How far a body that is read by the application while it comes has got. */
enum intake { INTAKE_WHOLE = 0, INTAKE_OPEN, INTAKE_ENDED, INTAKE_FAILED };

struct exchange {
    struct call call;          /* first; lent to the handler for the run */
    struct lead_job job;
    struct server *server;
    struct h1_conn *hc;        /* NULL once the connection is gone */
    struct list all;           /* on server->exchanges */
    struct list slow;          /* on server->slow_bodies */
    struct exchange *next_free;
    enum exchange_state state; /* leader only */
    struct req req;
    struct arena arena;        /* holds the head's bytes and fields, and what the executor allocates */
    struct body body;
    struct call_peer peer;
    struct listener *peer_of;  /* whose server_addr stands in `peer` */
    uint64_t peer_key;         /* whose remote_addr and port (IPv4) stand in `peer`; 0 = nobody's */
    struct proxy_facts facts;
    struct tls_facts tls;      /* of the connection; its texts stand in the arena */
    struct admitted admitted;  /* leader: what the checks of the policy found and spent */
    _Atomic bool flushed;      /* set by the executor: call_flush was used */
    _Atomic bool hinted;       /* set by the executor: interim responses went through outq */
    _Atomic int64_t begun_ms;  /* set by the executor: the run has begun, with run-timeout: when (monotonic); 0: it has not */
    bool run_over;             /* leader: the run has ended */
    int64_t deadline_ms;       /* leader: loop time at which the time of the request is over; 0: never */
    struct heap_node alarm;    /* leader: on server->alarms, by the loop time at which to look at it next */
    int64_t slow_ms;           /* leader: loop time at which slow-request tells of it, or with
                                * slow_told gives up its look at the thread; 0: neither */
    bool slow_told;            /* leader */
    enum exchange_late late;   /* leader */
    int64_t late_ms;           /* leader: loop time at which it became late */
    struct identity identity;  /* of call.request_id and call.trace */
    struct flight *flight;     /* of server->flights; NULL: nobody looks */
    bool recorded;             /* leader: another answer was given and recorded while the run goes on */
    uint8_t left;              /* leader: enum close_reason; why the connection of an orphan ended */
    bool head_saved;
    int64_t wall_ns;           /* when the head was complete; 0 without an access log */
    int64_t end_ns;            /* end of the run, where somebody wants to know (its begin: call.run_ns); executor */
    uint64_t wire_bytes;       /* handed to the connection */
    uint64_t received_ms;      /* loop time of the head; of requests with a body or a deadline */
    struct slice raw;          /* the request head as it came, in the arena */
    struct slice head_copy;    /* response head, for the access log */
    int64_t budget;            /* leader: bytes counted in server->memory for the body */

    /* shared between executor and leader */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct outq outq;          /* under lock */
    bool end_handed;           /* under lock: the end of the response was handed over */
    int64_t unsent;            /* under lock: in outq, or given to the connection and not yet written */
    int64_t inflight;          /* leader: of `unsent`, given to the connection */
    enum intake intake;        /* under lock */
    int intake_error;          /* under lock: negative errno with INTAKE_FAILED */
    struct buf intake_mem;     /* under lock: received, not yet read by the application */
    bool intake_full;          /* under lock: reading was paused until the application has read */
    uint64_t read_pos;         /* executor: position in a whole body */
    bool wants_body;           /* under lock: the leader should go on reading */
    _Atomic bool gone;         /* the client left */
    struct mail flush_mail;    /* bytes wait in outq, or wants_body was set */
    struct mail done_mail;     /* the run has ended outside leadership */
};

/* The callbacks of http/h1_conn. */
extern const struct h1_up EXCHANGE_UP;

struct exchange *exchange_of_job(struct lead_job *job);

/* For serve/admission. Is the path that of Weir's own `rest`? */
bool exchange_path_is(const struct exchange *x, struct slice rest);
/* A parked request has got its quota: on to the place of its route. */
void exchange_go_on(struct exchange *x);
/* A parked request has got its place: on to the application. */
void exchange_go(struct exchange *x);
/* A parked request is refused: x->admitted.refused says why. */
void exchange_refuse(struct exchange *x);
/* A parked request was answered in x->call. */
void exchange_answered(struct exchange *x);

/* For serve/lead: run it; ended while leading; ended elsewhere. */
void exchange_run(struct server *s, void *local, struct lead_job *job);
void exchange_done_leading(struct lead_job *job);
void exchange_done_away(struct lead_job *job);

/* Leader, when server->alarm_timer fires: end the requests whose time is over, and look after their threads. */
void exchange_alarms(struct server *s);

/* Leader: others go on, and may have free places: hand requests over that wait for one here, as far as they are
 * in memory. */
void exchange_hand_waiting(struct server *s);

/* Leader: requests that wait for a place will not get one any more: tell their clients 503. */
void exchange_turn_away(struct server *s);

/* Leader: hand exchanges whose chunked body comes slowly to the application, as it comes. */
void exchange_slow_bodies(struct server *s);

/* Leader: the grace is over; wake every executor that waits on a client. */
void exchange_cancel_all(struct server *s);

/* Give back the memory of an exchange that is on no list. */
void exchange_free(struct exchange *x);

#endif
