/*
 * proxy: what a trusted front-end says about the client.
 *
 * Three sources, all pure functions over bytes: the PROXY protocol (v1 and v2, first
 * bytes of a connection), Forwarded (RFC 7239), and X-Forwarded-{For,Host,Proto,Port,By}.
 * Also the set of addresses that are trusted.
 *
 * Owner:   results point into the input or into the caller's arena.
 * Threads: none inside; a proxy_set is read-only once made.
 */
#ifndef WEIR_HTTP_PROXY_H
#define WEIR_HTTP_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/attr.h"
#include "base/err.h"
#include "http/h1_parse.h"

/* An address as the application sees it. */
struct proxy_addr {
    char host[64];  /* textual IP, "" for a Unix socket or unknown */
    uint16_t port;  /* 0 = unknown */
};

/* ---- trusted addresses: "127.0.0.1,::1,10.0.0.0/8", "*", "localhost" (Unix sockets) ---- */
struct proxy_net {
    uint8_t addr[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;     /* prefix length in the 128-bit form */
};
struct proxy_set {
    struct proxy_net nets[64];
    unsigned n;
    bool any;  /* "*" */
    bool unix_peers; /* "localhost", "unix" or "*" */
};
/* Parse the list. 0, or -1 with a sentence that names the bad item. */
WEIR_MUST_USE int proxy_set_parse(struct proxy_set *out, struct slice list, struct err *e);
/* `host` textual IP ("" = Unix socket peer). */
bool proxy_set_has(const struct proxy_set *set, const char *host);

/* ---- PROXY protocol ---- */
enum proxy_mode { PROXY_OFF = 0, PROXY_V1 = 1, PROXY_V2 = 2, PROXY_AUTO = 3 };
/* Can a connection that begins with these bytes (n >= 1) speak it? For servers that take others too. */
bool proxy_protocol_begins(const char *p, size_t n, enum proxy_mode mode);
/* H1_MORE, H1_DONE (*used bytes; *client unchanged for LOCAL/UNKNOWN, else written) or H1_BAD. */
WEIR_MUST_USE enum h1_verdict proxy_protocol(const char *p, size_t n, enum proxy_mode mode,
                                             size_t *used, struct proxy_addr *client,
                                             struct proxy_addr *server, struct h1_error *error);

/* ---- headers ---- */
enum proxy_header { /* bits */
    PROXY_FORWARDED = 1,
    PROXY_X_FOR = 2,
    PROXY_X_HOST = 4,
    PROXY_X_PROTO = 8,
    PROXY_X_PORT = 16,
    PROXY_X_BY = 32,
};
/* "x-forwarded-for x-forwarded-proto" (spaces or commas; "none") to bits; -1 and a sentence otherwise:
 * an unknown name, or forwarded together with another. */
WEIR_MUST_USE int proxy_headers_parse(unsigned *bits, struct slice list, struct err *e);

/* What becomes of fields whose name holds an underscore. */
enum proxy_underscores { PROXY_DROP = 0, PROXY_REFUSE, PROXY_SHOW };

enum { PROXY_NAMES_MAX = 32, PROXY_SCHEMES_MAX = 16 };

struct proxy_rules {
    unsigned headers;  /* enum proxy_header bits that a trusted peer may set */
    unsigned hops;     /* >= 1: trusted hops from the right */
    bool clear;        /* drop all forwarding headers that are not trusted */
    bool log_untrusted;/* the caller logs when proxy_apply reports cleared fields */
    enum proxy_underscores underscores;
    /* Names with an underscore that a trusted peer may send all the same; lent. */
    struct slice names[PROXY_NAMES_MAX];
    unsigned n_names;
    bool any_name; /* all of them */
    /* Fields of a trusted peer that tell the scheme: https with this very value, http with another
     * (Gunicorn's secure_scheme_headers); lent. */
    struct {
        struct slice name, value;
    } schemes[PROXY_SCHEMES_MAX];
    unsigned n_schemes;
};
/* Names (spaces or commas; "*" = all), and NAME=VALUE, into the rules. 0, or -1 and a sentence. */
WEIR_MUST_USE int proxy_names_parse(struct proxy_rules *rules, struct slice list, struct err *e);
WEIR_MUST_USE int proxy_scheme_add(struct proxy_rules *rules, struct slice pair, struct err *e);

struct proxy_facts {   /* what to show instead of the socket's facts; "" / 0 = no change */
    struct proxy_addr client;
    struct slice scheme;      /* "http" or "https" */
    struct slice server_name; /* host without port */
    struct slice host;        /* for HTTP_HOST */
    struct slice script_name; /* SCRIPT_NAME: what was cut from the path, or is to be cut */
    uint32_t server_port;
    bool cleared; /* an untrusted forwarding header was dropped */
};
/*
 * Apply rules to a head whose peer is trusted or not. Rewrites the value of trusted headers to the
 * part that is trusted (the rightmost hops), marks untrusted ones `dropped` when rules->clear, and
 * decides about names with underscores, which came `dropped` from the parser. H1_DONE, or H1_BAD (malformed value from a trusted peer: 400). Allocates from `arena`.
 */
WEIR_MUST_USE enum h1_verdict proxy_apply(struct req *req, const struct proxy_rules *rules,
                                          bool peer_trusted, struct arena *arena,
                                          struct proxy_facts *out, struct h1_error *error);

#endif
