/*
 * admin_private: what the files of the admin listener share.
 *
 *   admin.c         its life; what a request gets: routes, actions
 *   admin_http.c    connections: heads in, answers out, deadlines
 *   admin_events.c  viewers of /events
 *   admin_guard.c   who may ask
 *   admin_listen.c  its socket
 *
 * Threads: the loop's.
 */
#ifndef WEIR_ADMIN_ADMIN_PRIVATE_H
#define WEIR_ADMIN_ADMIN_PRIVATE_H

#include "admin/admin.h"
#include "admin/admin_guard.h"
#include "admin/probes.h"
#include "admin/status.h"
#include "base/list.h"
#include "http/req.h"

#define ADMIN_HEAD_BYTES 8192
#define ADMIN_BODY_BYTES 4096
#define ADMIN_FIELDS 64

/* Bytes that several connections send. */
struct block {
    unsigned refs;
    struct buf bytes;
};
/* With one reference; NULL: no memory. */
WEIR_MUST_USE struct block *block_new(void);
/* One reference less; the last one frees. NULL in *b: nothing. */
void block_unref(struct block **b);

enum conn_state {
    CONN_IDLE = 0, /* no byte of a request is there; closed at the deadline */
    CONN_HEAD,     /* a part of one is; 408 at the deadline */
    CONN_BUSY,     /* probes are asked for its answer; 504 at the deadline */
    CONN_WRITING,  /* an answer is on its way; closed when nothing of it goes until the deadline */
    CONN_EVENTS,   /* a viewer; as CONN_WRITING while something is unsent */
    CONN_LINGER,   /* all is said, and the client shall read it before the socket is closed */
};

/* What an answer waits for. */
enum conn_ask { ASK_NONE = 0, ASK_STACKS, ASK_STACKS_TEXT, ASK_REQUEST };

struct admin_conn {
    struct list node; /* a->conns */
    struct admin *a;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    enum conn_state state;
    uint64_t since_ms;    /* loop time when it entered the state */
    uint64_t deadline_ms; /* loop time; UINT64_MAX: none */
    bool closing;         /* uv_close was called */
    bool reading;
    bool eof;       /* the client sends no more */
    bool proven;    /* a right token came here before */
    bool keep;      /* another request may follow the answer on its way */
    bool head;      /* HEAD: no body */
    bool http10;    /* has to be told that the connection stays */
    bool continued; /* 100 was sent for the request whose body is read */
    char address[64];
    unsigned char key[GUARD_KEY_BYTES];

    size_t n_in, seen;
    size_t n_request; /* of `in`: the request that is answered */
    char in[ADMIN_HEAD_BYTES + ADMIN_BODY_BYTES];

    uv_write_t write;
    uv_shutdown_t shutdown;
    bool unsent;         /* `write` is under way */
    size_t unsent_bytes; /* when somebody last looked */
    struct buf out;      /* owned: the head on its way */
    struct block *body;  /* counted: what follows it; NULL: nothing */

    enum conn_ask ask;
    uint64_t ticket;      /* of probes; meaningful while ask is not ASK_NONE */
    struct block *flight; /* owned: the first half of the answer of ASK_REQUEST */

    char *query;              /* owned: of a viewer, what he looks at; NULL: he is none */
    struct status_ask viewed; /* the same */
    unsigned turns;           /* of events for him */
    bool due;                 /* in a tick: he has not got his */
};

struct admin {
    uv_loop_t *loop;
    struct admin_config config;
    struct slice token; /* owned (secret_map); n is 0: none is asked for */
    size_t token_mapped;
    struct probes *probes;   /* owned; may be NULL: nobody can be asked */
    struct history *history; /* owned */
    uv_poll_t listen;
    int listen_fd;    /* owned: a copy */
    uv_timer_t tick;  /* points of the history, and events: every second while somebody looks */
    uv_timer_t sweep; /* deadlines, while there are connections */
    uv_timer_t accept_again;
    struct list conns;
    unsigned n_conns, n_viewers;
    unsigned n_handles; /* that are not closed; the struct goes with the last */
    bool ended;
    struct guard_tries tries;
};

/* ---- admin_http.c ---- */

void admin_on_listen(uv_poll_t *poll, int status, int events);
/* Now, without another word. */
void admin_conn_close(struct admin_conn *c);

/* Answer the request in work, once. `more`: fields, each with its line end. `body` (NULL: none) is
 * taken. */
void admin_answer(struct admin_conn *c, int status, const char *type, const char *more,
                  struct block *body);
/* The same with one line of text. */
void admin_say(struct admin_conn *c, int status, const char *more, const char *fmt, ...)
    WEIR_PRINTF(4, 5);
/* The same as an object with `error`. */
void admin_fail(struct admin_conn *c, int status, const char *error);
/* Begin an answer without an end, and send what follows with admin_send. */
void admin_stream(struct admin_conn *c, const char *type);
/* To a viewer with nothing unsent. A reference to b is taken. */
void admin_send(struct admin_conn *c, struct block *b);

/* A handle of a->… or of a connection is closed. */
void admin_handle_closed(struct admin *a);

/* ---- admin.c ---- */

/* Decide what a request gets. It is answered before this returns, or c->ask says what it waits
 * for. */
void admin_route(struct admin_conn *c, const struct req *r);

/* ---- admin_events.c ---- */

/* It becomes a viewer. */
void events_begin(struct admin_conn *c, struct slice query);
/* He has left. */
void events_end(struct admin_conn *c);
void events_on_tick(uv_timer_t *timer);
/* The timer's pace by whether somebody looks. */
void events_pace(struct admin *a);

#endif
