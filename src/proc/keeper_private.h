/* keeper_private: what the parts of the keeper share; all are in _keeper.so. */
#ifndef WEIR_PROC_KEEPER_PRIVATE_H
#define WEIR_PROC_KEEPER_PRIVATE_H

#include <curl/curl.h>
#include <uv.h>

#include "base/buf.h"
#include "proc/keeper.h"

/* ---- keeper_curl.c: libcurl on the keeper's loop ---- */

struct keeper_curl {
    uv_loop_t *loop; /* lent */
    CURLM *multi;    /* owned; NULL once stopped */
    uv_timer_t timer;
    bool stopped;
    /* A transfer of `whose` is over; its handle is the owner's again. */
    void (*done)(void *whose, CURLcode rc);
};

WEIR_MUST_USE int keeper_curl_init(struct keeper_curl *c, uv_loop_t *loop,
                                   void (*done)(void *whose, CURLcode rc), struct err *e);
/* A handle for `url` (lent), whose certificate will be verified; NULL: no memory. Owned:
 * keeper_curl_drop. `trouble` is lent to it. */
CURL *keeper_curl_easy(const char *url, void *whose, const struct keeper_config *config,
                       char trouble[CURL_ERROR_SIZE]);
/* Begin; `done` follows, never from within. -1: libcurl takes no more. */
WEIR_MUST_USE int keeper_curl_add(struct keeper_curl *c, CURL *easy);
/* Break it off, if it is under way, and free it; *easy becomes NULL, which is nothing. */
void keeper_curl_drop(struct keeper_curl *c, CURL **easy);
/* After all handles were dropped. The loop has to turn until what it watched is closed, then
 * keeper_curl_fini. */
void keeper_curl_stop(struct keeper_curl *c);
void keeper_curl_fini(struct keeper_curl *c);

/* ---- keeper_fetch.c: key sets over HTTP ---- */

struct fetcher;

/* Begin to fetch all of c->jwks on the loop; *out NULL with 0: there are none. -1: libcurl cannot
 * be used. */
WEIR_MUST_USE int fetcher_new(struct fetcher **out, uv_loop_t *loop, const struct keeper_config *c,
                              struct err *e);
/* A token names a key that is not known. */
void fetcher_again(struct fetcher *f, unsigned identifier);
/* Close its handles; the loop has to turn until they are closed, then fetcher_free. */
void fetcher_stop(struct fetcher *f);
void fetcher_free(struct fetcher **f);

/* ---- keeper_spans.c: records of requests as OTLP ---- */

/* What one span takes at most; each string in it has its room in struct flight. */
#define SPAN_BYTES_MAX 8192

/* Begin a request to a collector in *out, which is empty; add spans to it; end it. 0, -ENOMEM, or
 * -EMSGSIZE: the ceiling of *out, or of a span (nothing was added then).
 * Source: OTLP 1.x, "JSON Protobuf Encoding"; opentelemetry-proto trace/v1;
 *         OpenTelemetry semantic conventions for HTTP server spans. */
WEIR_MUST_USE int spans_begin(struct buf *out, const char *service);
WEIR_MUST_USE int spans_add(struct buf *out, const struct telemetry *t, const struct flight *f);
WEIR_MUST_USE int spans_end(struct buf *out);

/* What a collector says of spans that it took only in part (partialSuccess): how many it rejected,
 * and why (cut to the room of `why`). 0: it took all, or says nothing that can be read. */
uint64_t spans_rejected(struct slice answer, char *why, size_t room);

/* ---- keeper_export.c: server spans to a collector ---- */

struct exporter;

/* Begin to send what comes into the rings of c->otlp.telemetry; *out NULL with 0: nothing is to be
 * sent. -1: libcurl cannot be used. `finished` is called once, at the end of exporter_finish, maybe
 * from within it. */
WEIR_MUST_USE int exporter_new(struct exporter **out, uv_loop_t *loop,
                               const struct keeper_config *c, void (*finished)(void *arg),
                               void *arg, struct err *e);
/* No more spans will come: send the rest, in 2 s at most. More than once is nothing. */
void exporter_finish(struct exporter *x);
/* As for the fetcher. */
void exporter_stop(struct exporter *x);
void exporter_free(struct exporter **x);

#endif
