/*
 * conn: one accepted socket, its bytes, its deadlines, its end. Has never heard of HTTP.
 *
 * Reading: bytes arrive in the loop's shared buffer and are offered to ops->input; what it leaves
 * is kept in `in` and offered again with the next bytes or by conn_input_again.
 * Writing: bytes are appended to `out` and written at the end of the turn (conn_want_flush);
 * what the socket does not take is handed to libuv, and ops->drained tells when all of it is gone.
 * TLS (conn_start_tls): the two buffers hold plaintext as before, and what is called sent or unsent
 * is ciphertext. It is made piece by piece as the socket takes it, so `out` shrinks from its front.
 * Deadlines: a connection is on at most one list of its pool, each list has one length of
 * time, so arming is O(1) and the loop has a single timer.
 *
 * Owner:   embedded in its user's struct, which ops->closed gives back when libuv has let go.
 * Threads: leader only.
 */
#ifndef WEIR_NET_CONN_H
#define WEIR_NET_CONN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

#include "base/buf.h"
#include "base/list.h"
#include "net/loop.h"
#include "net/tls.h"

struct conn;
struct conn_pool;

struct conn_ops {
    /* New bytes at p[0..n), after those kept in `in` were put in front. Returns how many were
     * consumed; the rest is kept. Must not be called again before it returned. */
    size_t (*input)(struct conn *c, const char *p, size_t n);
    /* The peer has sent its FIN; it may still read. */
    void (*eof)(struct conn *c);
    /* All bytes given to `out` have been taken by the kernel. */
    void (*drained)(struct conn *c);
    /* The armed deadline passed. */
    void (*deadline)(struct conn *c, unsigned list);
    /* The socket broke: reset, timeout of TCP, … (negative errno). Call conn_close. */
    void (*broken)(struct conn *c, int err);
    /* TLS cannot go on; `why` lives until the connection has closed. What the client is to see of it has been
     * appended to what waits for the socket; `out` goes nowhere any more. Call conn_close, or let it
     * drain first. */
    void (*tls_failed)(struct conn *c, const char *why);
    /* The first bytes p[0..n) where TLS was expected are text, as of a plain HTTP request. The connection goes on
     * without TLS; the bytes are dropped. */
    void (*not_tls)(struct conn *c, const char *p, size_t n);
    /* libuv has let go; the memory may be given back. */
    void (*closed)(struct conn *c);
};

#define CONN_LISTS 7

struct conn_write; /* bytes under way in libuv */

/* What a connection that speaks TLS has more. */
struct conn_tls {
    struct tls *tls;    /* owned */
    struct buf cipher;  /* ciphertext to be written; empty while the connection idles */
    size_t out_off;     /* of `out`, what was sealed already; 0 while `out` is empty */
    uint64_t sealed_ms; /* loop time when something was sealed last */
    uint32_t sealed;    /* bytes since the last pause, as far as they went in small records */
};

struct conn {
    uv_tcp_t uv;             /* also for Unix sockets: libuv only reads, writes and closes it */
    struct conn_pool *pool;  /* lent */
    struct list deadline;    /* on pool->lists[list].conns while armed */
    struct list flush;       /* on loop->flush while bytes wait to be written */
    uint64_t armed_ms;       /* loop time when the deadline was armed */
    struct conn_write *writing; /* owned; NULL = nothing in libuv's hands */
    struct buf in;           /* received, not consumed; starts at in_off */
    uint32_t in_off;
    struct buf out;          /* to be written; empty while the connection idles */
    struct tls_context *tls_ctx; /* lent; NULL = plain */
    struct conn_tls *tls;    /* owned; NULL before the first byte of TLS */
    uint8_t list;            /* of the armed deadline */
    bool reading : 1;
    bool eof : 1;            /* FIN received */
    bool closing : 1;        /* conn_close was called */
    bool shut : 1;           /* our FIN was sent */
    bool given_away : 1;     /* another process goes on with the socket: set before conn_close */
    bool is_unix : 1;
    bool in_input : 1;       /* inside ops->input: no re-entry */
    bool drain_told : 1;     /* ops->drained is owed */
};

struct conn_list {
    struct list conns;   /* oldest first */
    uint64_t timeout_ms; /* 0 = never */
};

struct conn_pool {
    struct loop *loop;
    const struct conn_ops *ops;
    uv_timer_t timer;
    uint64_t timer_due_ms; /* 0 = not running */
    struct conn_list lists[CONN_LISTS];
    unsigned open; /* connections not yet closed by libuv */
    char *plain;         /* owned: plaintext of one read, shared by all connections; NULL before TLS is used */
    struct buf spare_cipher; /* an empty buffer for the next ciphertext */
    int diag_fd;   /* netlink socket of conn_ask_peer; -1 = cannot be had */
};

WEIR_MUST_USE int conn_pool_init(struct conn_pool *pool, struct loop *loop,
                                 const struct conn_ops *ops);
/* Close the timer; all connections must be gone. */
void conn_pool_fini(struct conn_pool *pool);

/* Take the connected socket `fd` (closed on failure too) and start reading. c is zeroed first. */
WEIR_MUST_USE int conn_open(struct conn *c, struct conn_pool *pool, int fd, bool is_unix);

/* From the next byte on the peer speaks TLS (also from inside ops->input: then from the first byte that it
 * does not consume). ctx outlives the connection. */
void conn_start_tls(struct conn *c, struct tls_context *ctx);

static inline bool conn_is_tls(const struct conn *c)
{
    return c->tls_ctx != NULL;
}

/* Has the peer sent a byte of TLS? */
static inline bool conn_tls_begun(const struct conn *c)
{
    return c->tls != NULL;
}

/* Has the peer begun a handshake, and not ended it? */
bool conn_in_handshake(const struct conn *c);

/* What the application may know of a connection whose handshake is complete; NULL: it is plain. Lives
 * as long as the connection is not closed. */
const struct tls_facts *conn_tls_facts(struct conn *c);

/* Stop or go on reading. Both are idempotent. */
void conn_read(struct conn *c, bool on);

/* Offer the kept input to ops->input again, if there is any. */
void conn_input_again(struct conn *c);

/* Bytes of the peer that another process has read: offer them before what is read here. 0 or -ENOMEM. */
WEIR_MUST_USE int conn_give_input(struct conn *c, struct slice bytes);

static inline struct slice conn_kept(const struct conn *c)
{
    return slice_of(c->in.p ? c->in.p + c->in_off : NULL, c->in.n - c->in_off);
}

/* Have `out` written at the end of the turn; ops->drained follows when `out` has gone. */
static inline void conn_want_flush(struct conn *c)
{
    c->drain_told = true;
    if (c->flush.next == &c->flush && !c->closing)
        list_add(&c->pool->loop->flush, &c->flush);
}

/* Write `out` now. */
void conn_flush(struct conn *c);

/* Is nothing on its way to the socket? */
static inline bool conn_is_drained(const struct conn *c)
{
    return c->out.n == 0 && !c->writing && (!c->tls || c->tls->cipher.n == 0);
}

/* Bytes that are not yet in the kernel's hands. */
size_t conn_unsent(const struct conn *c);

/* Send our FIN once everything is written (needs conn_is_drained); under TLS behind a close_notify. */
void conn_shutdown(struct conn *c);

/* Close. ops->closed comes later. With `reset` the peer gets an RST and unsent data is dropped. Under TLS
 * a connection that has nothing unsent says close_notify before it closes without `reset`. */
void conn_close(struct conn *c, bool reset);

/* Has the peer gone for good (reset, or a Unix peer that closed)? Asks the kernel; for connections whose eof is true. */
bool conn_is_dead(const struct conn *c);

/* Does a process still hold the peer's socket? Asks the kernel about the other end (sock_diag), which
 * it knows for a TCP peer on this machine; for others, and where asking is not possible, the answer is
 * CONN_PEER_UNKNOWN. Nothing is sent to the peer. */
enum conn_peer { CONN_PEER_UNKNOWN = 0, CONN_PEER_HELD, CONN_PEER_LEFT };
enum conn_peer conn_ask_peer(struct conn *c);

/* Do bytes of the peer wait in the kernel? They will be read soon. */
bool conn_has_input(const struct conn *c);

int conn_fd(const struct conn *c);

/* Arm the deadline of `list`, counted from now; replaces an armed one. */
void conn_arm(struct conn *c, unsigned list);
/* The same, counted from `ago_ms` before now. */
void conn_arm_ago(struct conn *c, unsigned list, uint64_t ago_ms);
void conn_disarm(struct conn *c);

#endif
