/*
 * h1_conn: the states of one HTTP/1.1 connection.
 *
 * Reads heads and bodies, hands them up through a table of callbacks, and takes the bytes of one response
 * at a time. Requests of a connection are answered strictly in order: the next head is parsed when the
 * response before it is complete, so there is never more than one request of a connection in work.
 *
 * Threads: leader only.
 * Source:  RFC 9112 §9 (connections), §9.6 (tear-down), §6.3; RFC 9110 §10.1.1 (Expect).
 */
#ifndef WEIR_HTTP_H1_CONN_H
#define WEIR_HTTP_H1_CONN_H

#include <netinet/in.h>

#include "http/h1_parse.h"
#include "http/proxy.h"
#include "http/req.h"
#include "net/conn.h"
#include "net/handover.h"
#include "net/listen.h"
#include "obs/counters.h"

struct h1_conn;
struct h1_server;

enum h1_state {
    H1_PROXY = 0, /* waiting for the PROXY protocol's line. Deadline: head */
    H1_IDLE,      /* no byte of the next request. Deadline: keep-alive (first request: head) */
    H1_HEAD,      /* part of a head. Deadline: head */
    H1_BODY,      /* head handed up; its body is coming. Deadline: body */
    H1_BUSY,      /* the body is complete; waiting for the response. Deadline: send, or the look for dead peers */
    H1_CLOSING,   /* response complete, not to be kept; bytes still going out. Deadline: send */
    H1_LINGER,    /* our FIN is out; reading on so that no RST destroys the answer. Deadline: linger */
    H1_CLOSED,    /* conn_close was called */
};

/* The deadlines of a connection, as lists of net/conn. */
enum h1_list { H1_L_KEEP = 0, H1_L_HEAD, H1_L_BODY, H1_L_SEND, H1_L_LINGER, H1_L_LIMBO, H1_L_LAST };

/* How a server takes leave of its clients. */
enum h1_leave {
    H1_STAYS = 0,
    H1_HANDS_OVER, /* idle connections go to other processes by up->hand; each other one when it idles. Those that speak
                    * TLS cannot go: their next answer is the last */
    H1_DRAINS,     /* an idle connection has a moment (drain_idle_ms) to send one more request; each answer says
                    * that it is the last */
};

struct h1_up {
    /* A head is complete. `req` and what it points to live until this returns. The callee sets hc->user, or
     * refuses with h1_refuse. Content follows by body and body_end. */
    void (*head)(struct h1_conn *hc, const struct req *req, struct slice bytes);
    /* A run of content. Not called again before it returned; may call h1_pause_body. */
    void (*body)(struct h1_conn *hc, struct slice data);
    /* The content is complete (called at once for requests without). */
    void (*body_end)(struct h1_conn *hc);
    /* The body is malformed, too slow, or the client stopped sending: answer `why` if that is still possible
     * (h1_refuse), or end the exchange. */
    void (*body_bad)(struct h1_conn *hc, const struct h1_error *why);
    /* The client is gone while hc->user is set; the connection closes after this returned. */
    void (*gone)(struct h1_conn *hc);
    /* Everything written so far is in the kernel's hands, and hc->user is set. */
    void (*drained)(struct h1_conn *hc);
    /* Write the server's own answer to a bad request into `out`; close follows. */
    void (*refuse)(struct h1_conn *hc, const struct h1_error *why, struct buf *out);
    /* Has the request of hc->user not been started yet? */
    bool (*is_queued)(struct h1_conn *hc);
    /* The client finished sending while its response is under way: write a byte that it must ignore, to
     * see whether it still reads. False: no such byte can be written now. */
    bool (*probe)(struct h1_conn *hc);
    /* H1_HANDS_OVER: give an idle connection to another process. 0: gone, the own copy is closed after this returned;
     * -EAGAIN: not now, h1_hand_idle will be called again; another negative errno: it has to stay. */
    int (*hand)(struct h1_conn *hc);
    /* The connection has closed; the struct is freed after this. */
    void (*closed)(struct h1_conn *hc);
};

struct h1_server {
    struct conn_pool pool; /* first: conn->pool leads here */
    const struct h1_up *up;
    struct h1_limits limits;
    struct field *fields; /* limits.fields of them, owned; scratch of the parser */
    enum proxy_mode proxy_mode;
    const struct proxy_set *proxy_from;
    const struct proxy_set *front_ends; /* whose own address is asked for trust, not what they say by the PROXY
                                         * protocol; NULL: the upper layer judges who they name */
    bool proxy_optional; /* serve connections that begin otherwise too */
    struct tls_context *tls; /* lent; NULL: none. Connections speak TLS, behind the PROXY protocol's line */
    uint64_t keep_alive_ms;   /* an idle connection is not closed before; 0: after each answer */
    struct counters *counters;
    _Atomic uint32_t *open_gauge; /* lent; where others see how many connections are open. NULL: nobody looks */
    struct list all; /* every connection */
    struct buf spare_out; /* an empty buffer for the next answer */
    enum h1_leave leave;
    bool hand_full; /* up->hand cannot take more now */
    bool detect_gone; /* look for clients that left while their request is in work */
    bool log_socket_errors;
    bool continue_always;  /* send 100 Continue also where content is here already */
    bool raw_counts;       /* a malformed chunked body is 413 when body_max bytes of it are here */
    uint64_t body_max;     /* a chunk above this is refused before it is read; lengths are left to `up` */
    void *arg;
};

struct h1_conn {
    struct conn conn; /* first */
    struct list all;
    void *user;                /* the exchange of the request in work, or NULL */
    struct listener *listener; /* lent; its texts outlive the connection */
    struct h1_chunked *chunked;/* owned while a chunked body is read */
    uint64_t left;             /* bytes left of a body with a length */
    uint64_t send_mark;        /* unsent bytes when the send deadline was armed */
    union {
        struct in_addr v4;
        struct in6_addr v6;
    } peer;
    uint16_t peer_port;
    uint16_t peer_family;      /* AF_INET, AF_INET6, AF_UNIX */
    uint32_t seen;             /* bytes of the present head searched so far */
    uint32_t served;           /* requests answered */
    uint8_t state;             /* enum h1_state */
    uint8_t reason;            /* enum close_reason, once closing */
    uint8_t streak;            /* requests that ran in a row; for the upper layer */
    bool is_11 : 1;            /* the request in work is HTTP/1.1 */
    bool is_head : 1;          /* the last head, also one that is refused, has the method HEAD */
    bool expecting : 1;        /* the client waits for 100 Continue */
    bool responded : 1;        /* bytes of the present response were written */
    bool probed : 1;           /* something was sent to see whether the client still reads */
    bool body_paused : 1;
    bool reset_at_end : 1;     /* close with RST: the answer has no framing that shows the cut */
    bool proxied : 1;          /* the PROXY protocol replaced the peer's address */
    bool direct_trusted : 1;   /* free for the upper layer: trust of the socket's peer, computed once */
    bool trust_known : 1;
};

WEIR_MUST_USE int h1_server_init(struct h1_server *s, struct loop *loop, const struct h1_up *up,
                                 const struct h1_limits *limits);
void h1_server_fini(struct h1_server *s);

/* A new connection; takes fd. */
void h1_accept(struct h1_server *s, struct listener *l, int fd, const struct sockaddr_storage *peer);

/* Append response bytes of the request in work. 0 or -ENOMEM (then end it with h1_fail). */
WEIR_MUST_USE int h1_write(struct h1_conn *hc, const char *p, size_t n);
/* The same, by taking the memory of `b` when that saves a copy; b is empty afterwards. */
WEIR_MUST_USE int h1_write_buf(struct h1_conn *hc, struct buf *b);

/* The response of the request in work is complete (its bytes are all in h1_write). hc->user was
 * cleared by the caller. Goes on with the next request, or closes with `reason` when !keep. */
void h1_next(struct h1_conn *hc, bool keep, enum close_reason reason);

/* Refuse the request being read or in work: the server's answer, then close. */
void h1_refuse(struct h1_conn *hc, int status, const char *reason);

/* The response is broken off: send what was written, then close without an orderly end of the message. With
 * `reset` by RST, for responses whose end is the end of the connection. hc->user was cleared. */
void h1_cut(struct h1_conn *hc, enum close_reason reason, bool reset);

/* Break off: close now; the peer sees an unorderly end. */
void h1_fail(struct h1_conn *hc, enum close_reason reason);

/* Let the client send its body now (100 Continue) if it waits for that. */
void h1_continue(struct h1_conn *hc);

/* Stop and go on reading a body (back-pressure). */
void h1_pause_body(struct h1_conn *hc, bool paused);

/* Read no more of a body that has failed. */
void h1_stop_body(struct h1_conn *hc);

/* A connection that another process has handed over; takes fd. */
void h1_adopt(struct h1_server *s, struct listener *l, int fd, const struct handover *h);

/* What `hand` says of a connection that idles. */
void h1_describe(const struct h1_conn *hc, struct handover *out);

/* Is the present request complete, nothing of its answer written, and could another process go on from its bytes? */
bool h1_can_hand_waiting(const struct h1_conn *hc);

/* Another process has it: close our copy. hc->user was cleared. */
void h1_handed(struct h1_conn *hc);

/* Take leave; may be called again with a later one. */
void h1_drain(struct h1_server *s, enum h1_leave how);

/* H1_HANDS_OVER: hand over all that idle, those first that idle longest. */
void h1_hand_idle(struct h1_server *s);

/* Close all that idle; how many others there are. */
unsigned h1_close_idle(struct h1_server *s);

/* Close the connection that has been idle longest; false: none is. One whose next request is on its way in the
 * kernel does not idle. */
bool h1_evict_idle(struct h1_server *s);

/* After the limits and pool lists are set: how long an idle connection is kept. */
void h1_keep_alive(struct h1_server *s, uint64_t ms);

#endif
