/*
 * tls: TLS of accepted connections, over bytes in memory. The sockets are net/conn's.
 *
 * OpenSSL stands in a shared object of its own, _tls.so beside the one that holds this file, which
 * is loaded when a certificate is configured and not before: a supervisor, and a server without
 * TLS, never map it (docs/decisions/0005-tls-is-loaded-when-needed.md). What it offers is one
 * table, struct tls_lib; what is declared below calls through that.
 *
 * Ciphertext goes in with tls_take, which gives plaintext; plaintext goes in with tls_seal, which
 * gives ciphertext; both append what has to be sent to a buffer of the caller. Nothing blocks.
 *
 * Errors:  struct err for certificates; a peer that misbehaves is TLS_FAILED with tls_reason.
 * Owner:   a context outlives its connections; both are owned by who made them.
 * Threads: one context and its connections belong to one loop (leader only). tls_load, tls_check
 * and tls_ticket_keys_new: one thread, before the loop runs. Source:  RFC 8446, RFC 5246; RFC 7301
 * (ALPN); RFC 6066 (SNI); RFC 5077 (tickets).
 */
#ifndef WEIR_NET_TLS_H
#define WEIR_NET_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/library.h"
#include "conf/conf.h"

struct tls_context; /* certificates and settings of a server */
struct tls;         /* one connection */

enum tls_state {
    TLS_HANDSHAKE = 0, /* not complete; nothing of the application moves */
    TLS_OPEN,
    TLS_ENDED,  /* the peer has said close_notify: it sends no more, and may still read */
    TLS_FAILED, /* tls_reason says why. What the last call appended is an alert for the peer */
};

/* What the application may know of a connection. All texts live as long as the connection. */
struct tls_facts {
    const char *protocol; /* "TLSv1.3" */
    const char *cipher;   /* "TLS_AES_128_GCM_SHA256" */
    /* "NONE": no certificate, or none was asked for. "SUCCESS". "FAILED:why" (cert-reqs optional
     * alone; the three below are empty then). */
    const char *verify;
    struct slice subject, issuer; /* distinguished names as in RFC 2253; empty: no certificate */
    struct slice cert;            /* PEM */
};

/* ---- tickets ---- */

/* One key of session tickets; the secret parts of a server that is not a peer's business. */
struct tls_ticket_key {
    uint8_t name[16]; /* says in the clear which key a ticket needs; all zero: no key */
    uint8_t aes[32];
    uint8_t mac[32];
};

/*
 * Make the keys that this process and all that are forked from it share, so that a session that
 * began with one worker goes on with any other. They change by time: TLS_TICKET_KEY_NS long new
 * tickets are made with a key, as long again it is accepted, then it is gone. They are in no file
 * and in no core dump. For the supervisor, before the first fork; without it each process makes its
 * own. Needs nothing of OpenSSL. Idempotent. 0 or -errno.
 */
WEIR_MUST_USE int tls_ticket_keys_new(void);
#define TLS_TICKET_KEY_NS (12LL * 3600 * 1000000000)

/* [0] makes tickets, both open them. Valid until the next call. NULL: there are none (no memory).
 */
const struct tls_ticket_key *tls_ticket_keys(void);

/* Let time pass, for tests: as if the keys were `ns` older. */
void tls_ticket_keys_age(int64_t ns);

/* ---- contexts ---- */

/* Does this configuration ask for TLS? */
static inline bool tls_wanted(const struct conf *c)
{
    return *c->certfile || c->n_tls_hosts;
}

/*
 * Read certificates and keys and make a context; the files are not opened again. What is wrong but
 * not fatal, such as a certificate that has expired, is logged, one warning each. -1 and a sentence
 * otherwise.
 */
WEIR_MUST_USE int tls_context_new(struct tls_context **out, const struct conf *c, struct err *e);
void tls_context_free(struct tls_context **ctx);

/*
 * Make the context that the next tls_context_new of the same conf returns: for a process that gives
 * up its privileges before it makes its server, as keys are often root's alone. 0 without TLS.
 */
WEIR_MUST_USE int tls_prepare(const struct conf *c, struct err *e);

/* Could tls_context_new make one? Also true without TLS. */
WEIR_MUST_USE int tls_check(const struct conf *c, struct err *e);

/* ---- connections ---- */

/* A connection before its first byte; NULL: no memory. */
WEIR_MUST_USE struct tls *tls_new(struct tls_context *ctx);
void tls_free(struct tls **t);

/* The most that n bytes of ciphertext can become: what was kept of a record that was not complete
 * goes with them. */
#define TLS_PLAIN_BYTES(n) ((n) + 18 * 1024)

/*
 * Take all of the ciphertext p[0..n). The plaintext goes to plain[0..*n_plain), which has room for
 * TLS_PLAIN_BYTES(n); what the protocol answers is appended to `out`. Returns the state; with
 * TLS_ENDED and TLS_FAILED the plaintext that came before is there too.
 */
WEIR_MUST_USE enum tls_state tls_take(struct tls *t, const char *p, size_t n, char *plain,
                                      size_t *n_plain, struct buf *out);

/* Append p[0..n) as records to `out`, of at most 16 KiB each, or of TLS_SMALL_BYTES with `small`: a
 * client can use nothing of a record before it has all of it. Only after the handshake. 0, -ENOMEM,
 * or -EPROTO. */
WEIR_MUST_USE int tls_seal(struct tls *t, const char *p, size_t n, bool small, struct buf *out);
#define TLS_SMALL_BYTES 4096

/* Append our close_notify. */
void tls_bye(struct tls *t, struct buf *out);

enum tls_state tls_state(const struct tls *t);

/* Why it is TLS_FAILED: a text that lives as long as the connection. */
const char *tls_reason(const struct tls *t);

/* After the handshake. Names and text of a client's certificate are made when asked for first. */
const struct tls_facts *tls_facts(struct tls *t);

/* ---- what _tls.so offers ---- */

struct tls_lib {
    struct library_head head; /* its WEIR_VERSION and sizeof(struct conf) */
    /* `warn`, may be NULL, is told what is wrong but not fatal. The rest as above. */
    int (*context_new)(struct tls_context **out, const struct conf *c,
                       void (*warn)(const char *text), const struct tls_ticket_key *(*keys)(void),
                       struct err *e);
    void (*context_free)(struct tls_context **ctx);
    struct tls *(*make)(struct tls_context *ctx);
    void (*free)(struct tls **t);
    enum tls_state (*take)(struct tls *t, const char *p, size_t n, char *plain, size_t *n_plain,
                           struct buf *out);
    int (*seal)(struct tls *t, const char *p, size_t n, bool small, struct buf *out);
    void (*bye)(struct tls *t, struct buf *out);
    enum tls_state (*state)(const struct tls *t);
    const char *(*reason)(const struct tls *t);
    const struct tls_facts *(*facts)(struct tls *t);
};

/* The name of the table in _tls.so. */
#define TLS_LIB_SYMBOL "weir_tls_lib"

/* Load the shared object, once; tls_context_new does it by itself. `path` NULL: beside this one. */
WEIR_MUST_USE int tls_load(const char *path, struct err *e);

#endif
