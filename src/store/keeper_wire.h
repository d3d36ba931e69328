/*
 * keeper_wire: what workers and the keeper say to each other. SOCK_SEQPACKET, one message a packet,
 * the machine's own byte order: both ends are the same program.
 *
 * A worker connects, says KEEPER_HELLO with the cookie that only processes of this server know, and
 * then asks. Every question has a number of the worker's; answers come in any order. Where the
 * connection breaks the worker connects again and asks everything again that has no answer: spends
 * and refunds carry an operation id. A packet that cannot be read ends the connection.
 *
 * Bounds:  a packet is at most KEEPER_PACKET_MAX bytes; texts inside are bounded below.
 * Owner:   what is read points into the packet.
 * Threads: none inside.
 */
#ifndef WEIR_STORE_KEEPER_WIRE_H
#define WEIR_STORE_KEEPER_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"
#include "store/quota.h"

#define KEEPER_PACKET_MAX 65536
#define KEEPER_USER_MAX 528 /* the longest user of a token (admit/jwt.h), and what says who told it */
#define KEEPER_ROUTE_MAX 128
#define KEEPER_COOKIE_BYTES 16
/* Rows of one KEEPER_USED; a user with more routes gets the first by name. */
#define KEEPER_ROWS_MAX 256

enum keeper_kind {
    KEEPER_HELLO = 1, /* worker: keeper_hello */
    KEEPER_SPEND,     /* worker: keeper_ask; answered by keeper_answer */
    KEEPER_REFUND,    /* worker: keeper_ask, only op; answered */
    KEEPER_USAGE,     /* worker: keeper_ask, only user; answered by keeper_usage */
    KEEPER_REFETCH, /* worker: keeper_refetch: a token names a key that is not known. Not answered:
                       the key box changes */
    KEEPER_ANSWER,  /* keeper */
    KEEPER_USED,    /* keeper */
};

struct keeper_head {
    uint32_t kind; /* enum keeper_kind */
    uint32_t size; /* of the whole packet */
    uint64_t question;
};

struct keeper_hello {
    struct keeper_head head;
    unsigned char cookie[KEEPER_COOKIE_BYTES];
    uint32_t slot, generation;
};

struct keeper_ask {
    struct keeper_head head;
    struct quota_op op;
    struct quota_limits limits;
    uint16_t user_bytes, route_bytes; /* which follow, without NUL */
    uint32_t zero;                    /* no byte of a packet is left unset */
};

struct keeper_answer {
    struct keeper_head head;
    int32_t error;   /* 0, or a negative errno: the store cannot be written; nothing was spent */
    int32_t verdict; /* enum quota_verdict */
    struct quota_use use;
};

struct keeper_usage {
    struct keeper_head head;
    int32_t error;
    uint32_t n; /* struct quota_row that follow */
};

struct keeper_refetch {
    struct keeper_head head;
    uint32_t identifier; /* index in conf_policy.identifiers */
    uint32_t zero;
};

/* The longest packet that a worker sends. */
#define KEEPER_ASK_BYTES_MAX (sizeof(struct keeper_ask) + KEEPER_USER_MAX + KEEPER_ROUTE_MAX)

/* What a worker said; only what belongs to `kind` is set. */
struct keeper_said {
    enum keeper_kind kind;
    uint64_t question;
    struct slice cookie;        /* HELLO */
    uint32_t slot, generation;  /* HELLO */
    struct quota_op op;         /* SPEND, REFUND */
    struct quota_limits limits; /* SPEND */
    struct slice user, route;   /* SPEND; USAGE: user */
    uint32_t identifier;        /* REFETCH */
};

/* Read a packet from a worker: false: it is none. */
WEIR_MUST_USE bool keeper_wire_said(const void *p, size_t n, struct keeper_said *out);
/* Write one; `to` has room for KEEPER_ASK_BYTES_MAX. Its size. Texts are within their bounds. */
size_t keeper_wire_say(const struct keeper_said *s, void *to);

/* What the keeper answered. */
struct keeper_told {
    enum keeper_kind kind; /* ANSWER or USED */
    uint64_t question;
    int error;
    enum quota_verdict verdict; /* ANSWER */
    struct quota_use use;       /* ANSWER */
    const void *rows;           /* USED: struct quota_row, not aligned */
    unsigned n_rows;
};
WEIR_MUST_USE bool keeper_wire_told(const void *p, size_t n, struct keeper_told *out);

#endif
