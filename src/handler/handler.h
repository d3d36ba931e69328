/*
 * handler: what answers a request, and how it does.
 *
 * A `struct call` is one request while it is being answered: lent to the handler for the time
 * of its run. Everything about responses (framing, length, HEAD, keep-alive, forbidden fields)
 * is decided here once, for WSGI applications and C handlers alike.
 *
 * A response is built in the executor's own buffer (call->out); nothing reaches the
 * connection before call_flush or the end of the run, so a response that fails early can be replaced.
 *
 * Threads: one thread runs a call at a time. Only call_gone may be asked by other threads.
 * Source:  RFC 9110 §6, §8.6, §9.3.2, §15; RFC 9112 §6, §7, §9; PEP 3333; W3C Server Timing.
 */
#ifndef WEIR_HANDLER_HANDLER_H
#define WEIR_HANDLER_HANDLER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "admit/who.h"
#include "base/arena.h"
#include "base/attr.h"
#include "base/buf.h"
#include "http/body.h"
#include "http/proxy.h"
#include "http/req.h"
#include "net/tls.h"
#include "obs/trace.h"

struct call;
struct reply_ident;

/* What the serving layer does for a call; filled in by serve/exchange. */
struct call_ops {
    /* See call_flush, call_wait, call_body_read, call_body_wait, call_hint below. */
    int (*flush)(struct call *c);
    int (*wait)(struct call *c);
    ssize_t (*body_read)(struct call *c, void *p, size_t n);
    int (*body_wait)(struct call *c);
    bool (*gone)(const struct call *c);
    int (*hint)(struct call *c, struct slice bytes);
};

enum call_state {
    CALL_NEW = 0, /* no status yet */
    CALL_STATUS,  /* status and fields stand in `out`, not framed; may still be replaced */
    CALL_BODY,    /* the head is framed (maybe on the wire): content follows */
    CALL_ENDED,   /* complete; nothing may follow */
    CALL_ABORTED, /* broken off: the connection closes without an orderly end */
};

enum call_framing { CALL_LENGTH = 0, CALL_CHUNKED, CALL_CLOSE, CALL_NO_BODY };

/* Facts of a connection that do not change between its requests. */
struct call_peer {
    char remote_addr[64];  /* textual IP; "" for a Unix socket */
    char remote_port[8];   /* "" for a Unix socket */
    char server_addr[112]; /* textual IP or socket path of the listener */
    char server_port[8];   /* "" for a Unix socket */
    bool is_unix;
    bool is_tls;
};

struct call {
    const struct req *req;         /* lent */
    const struct call_peer *peer;  /* lent */
    const struct proxy_facts *proxy; /* lent; NULL where no trusted proxy spoke */
    const struct tls_facts *tls;   /* lent; NULL: the connection is plain */
    struct body *body;             /* lent */
    const char *const *watch;      /* lent: environ variables for the access log */
    unsigned n_watch;
    struct slice *watched;         /* their values when the application is done, in `arena`; NULL: none */
    struct arena *arena;           /* the request's own; goes with it. Only the executor uses it during a run */
    uint64_t id;                   /* number of the request in this process, for logs */
    struct slice request_id;       /* lent: X-Request-Id, at most REQUEST_ID_BYTES_MAX; .n 0: none */
    const struct trace_context *trace; /* lent; NULL: no trace context is passed on */
    int64_t start_ns;              /* monotonic: the head was complete; 0: unknown, as the next two */
    int64_t ready_ns;              /* monotonic: it began to wait for a quota, a place or a thread */
    int64_t run_ns;                /* monotonic: the application was entered */

    struct buf out;           /* response bytes not yet flushed */
    enum call_state state;
    enum call_framing framing;
    int status;               /* 0 until set */
    bool keep_alive;          /* decided when the head is framed */
    const _Atomic bool *last;  /* lent; true: the server stops and keeps no connection. NULL: never */
    const _Atomic bool *ends_early; /* lent; true: streams are to end as soon as they can. NULL: never */
    const struct reply_ident *ident; /* lent; the Server field. NULL: none */
    bool has_length;          /* the application set Content-Length */
    bool has_date, has_server, has_via;
    bool has_request_id;      /* the handler set X-Request-Id */
    bool server_timing;       /* the head tells the times above (Server-Timing) */
    bool has_origin;          /* the handler set Access-Control-Allow-Origin: `cors` stays away */
    struct slice extra;       /* lent: whole field lines for the head, whoever answers (RateLimit …) */
    struct slice cors;        /* lent: the same, Access-Control-… and Vary */
    const struct who *who;    /* lent; NULL: it was not asked who asks */
    bool close_wanted;        /* the handler asks for the end of the connection */
    bool close_unknown;       /* content of unknown length closes the connection, as Waitress does */
    bool drop_reserved;       /* fields that belong to the server, Date and Server among them, are dropped
                               * without a word, as in Gunicorn */
    bool bodyless;            /* HEAD, 1xx, 204, 304: content is dropped */
    size_t hint_bytes;        /* of interim responses sent so far */
    uint64_t length;          /* with has_length or CALL_LENGTH */
    uint64_t sent;            /* content bytes framed so far (also those dropped for HEAD) */
    uint64_t excess;          /* content bytes beyond `length`, dropped */
    size_t fields_end;        /* private */
    int file_fd;              /* owned; content that follows `out`, or -1 */
    int64_t file_offset;
    uint64_t file_length;
    const char *abort_reason; /* literal; why CALL_ABORTED */

    const struct call_ops *ops;
};

/* What is wrong with a status or a field given by a handler. */
enum call_verdict {
    CALL_OK = 0,
    CALL_BAD_STATUS,  /* not "NNN reason", or 1xx, or control characters */
    CALL_BAD_NAME,    /* not a token */
    CALL_BAD_VALUE,   /* CR, LF, NUL or another control character */
    CALL_HOP_BY_HOP,  /* a field that belongs to the server (Connection, Transfer-Encoding, …) */
    CALL_BAD_LENGTH,  /* Content-Length is not a number, or given twice with different values */
    CALL_LATE,        /* the head is framed already */
    CALL_NO_MEMORY,
};

/* ---- building a response ---- */

/* Start (or start again, while not CALL_BODY) with "200 OK". Forgets fields given before. */
WEIR_MUST_USE enum call_verdict call_status(struct call *c, struct slice status);

/* One field after call_status. Content-Length, Date, Server are noticed. `Connection: close`
 * closes; other Connection values, Keep-Alive, Transfer-Encoding, Upgrade, TE, Trailer, Proxy-* are CALL_HOP_BY_HOP. */
WEIR_MUST_USE enum call_verdict call_field(struct call *c, struct slice name, struct slice value);

/* Content whose total length is known now: frames the head when needed; sets Content-Length unless the handler did. 0, -ENOMEM. */
WEIR_MUST_USE int call_begin(struct call *c, int64_t total_or_minus_1);

/* Append content (frames the head first if needed, as call_begin(c, -1)). An empty slice is nothing.
 * Bytes beyond Content-Length are dropped and counted. Does not flush. 0 or -ENOMEM. */
WEIR_MUST_USE int call_data(struct call *c, struct slice data);

/* The rest of the content is `length` bytes of `fd` from `offset`; takes fd on every path. For
 * CALL_LENGTH and CALL_CLOSE framing only (call_begin with the length first). Then call_end. 0 or -errno. */
WEIR_MUST_USE int call_file(struct call *c, int fd, int64_t offset, uint64_t length);

/* The content is complete. Frames an empty response where nothing was begun. Returns 0, -ENOMEM or
 * -EMSGSIZE: fewer bytes than Content-Length; the call is aborted and the connection will close. */
WEIR_MUST_USE int call_end(struct call *c);

/* Break off: nothing more is sent, the connection closes. `reason` a literal. */
void call_abort(struct call *c, const char *reason);

/* A whole plain-text answer from the server itself ("500 Internal Server Error" …); replaces what
 * was not yet framed. After the head was framed: call_abort. `reason` may be any text; it is sent. */
void call_error(struct call *c, int status, const char *reason);

/* ---- moving bytes ---- */

/* Hand call->out to the loop now (streaming). 0; -EAGAIN: handed over, but more is unsent than
 * the bound: call call_wait before producing more; -EPIPE: the client is gone; -ECANCELED: the server ends. */
WEIR_MUST_USE static inline int call_flush(struct call *c)
{
    return c->ops->flush(c);
}

/* Block (release the application's lock first) until there is room again, or -EPIPE, -ECANCELED. */
WEIR_MUST_USE static inline int call_wait(struct call *c)
{
    return c->ops->wait(c);
}

/* The next bytes of the request's content: > 0; 0 at its end; -EAGAIN: not here yet, call_body_wait; -EPIPE: the client
 * left before its end; -EPROTO: malformed; -EMSGSIZE: above the limit; -ETIMEDOUT; -EIO. Sends the pending 100 Continue. */
WEIR_MUST_USE static inline ssize_t call_body_read(struct call *c, void *p, size_t n)
{
    return c->ops->body_read(c, p, n);
}

/* Block (release the application's lock first) until call_body_read has something to say. */
WEIR_MUST_USE static inline int call_body_wait(struct call *c)
{
    return c->ops->body_wait(c);
}

/* Any thread: has the client left? */
static inline bool call_gone(const struct call *c)
{
    return c->ops->gone(c);
}

/* ---- interim responses: 103 Early Hints, RFC 8297 ---- */

/* One field into `hints`, which is empty before the first. Fields about the connection, the framing
 * or the length are CALL_HOP_BY_HOP. */
WEIR_MUST_USE enum call_verdict call_hint_field(struct buf *hints, struct slice name, struct slice value);

/* Send the fields at once, before the head of the response. 0, also where the client cannot understand
 * them (HTTP/1.0) or is gone; -EALREADY: the head is framed; -EMSGSIZE: too much for one
 * response; -ENOMEM. */
WEIR_MUST_USE int call_hint(struct call *c, const struct buf *hints);

/* Executor, after content was sent: shall this response, a stream without a length, end now (call_end)? The server stops
 * and does not wait for its streams. */
static inline bool call_ends_early(const struct call *c)
{
    return c->state == CALL_BODY && c->framing == CALL_CHUNKED && c->ends_early &&
           atomic_load_explicit(c->ends_early, memory_order_relaxed);
}

/* ---- who answers ---- */

/* A handler in C that answers on the loop, at once, without blocking. */
typedef void (*handler_native)(struct call *c, void *arg);

/* A look at a run that takes too long. */
struct inspect_ask {
    uint64_t id;    /* of the call */
    bool log;       /* write an entry of the log: `text`, and where the thread is */
    bool interrupt; /* raise an exception in the thread, if it is still in this call */
    char text[320]; /* with `log` */
};

/* An application that runs in application threads (the WSGI bridge; a fake in tests). */
struct app {
    int (*thread_start)(struct app *a, void **local); /* in the thread, once; 0 or -errno */
    void (*thread_stop)(struct app *a, void *local);
    void (*enter)(struct app *a, void *local); /* take the GIL */
    void (*leave)(struct app *a, void *local);
    void (*run)(struct app *a, void *local, struct call *c); /* answer; between enter and leave */
    /* One thread at a time, the leader: do what `ask` says (copied), soon and in another thread; it waits for
     * nobody. False: not now, too many such asks wait, or there is no memory. NULL: the application cannot
     * be looked into. */
    bool (*inspect)(struct app *a, const struct inspect_ask *ask);
    /* The same, a second after `inspect`: if the ask about that call still waits for the application's lock, its
     * entry is written soon, with what can be seen without that lock. NULL with `inspect`. */
    void (*inspect_late)(struct app *a, uint64_t id);
};

/* The reason phrase of a status, "Unknown" where there is none. */
const char *handler_reason(int status);

#endif
