/*
 * keeper_export: spans of requests to an OpenTelemetry collector. See keeper_private.h.
 *
 * The rings in shared memory are the queue: a batch is copied out of them, and their tails move
 * when the collector has answered. So a keeper that is killed loses nothing, and the next one sends
 * the batch that was in the air once more: each span arrives at least once, and twice at most where
 * a keeper or an answer was lost (collectors know a span by its ids).
 *
 * What is held here is the one batch. While the collector is away it waits, and spans gather in the
 * rings; of a ring that fills up the oldest are dropped and counted, so that what was newest is
 * there when the collector is back. Requests never wait for any of this.
 *
 * One keeper reads the rings at a time; during a reload there are two, and the new one begins when
 * the old one has ended.
 */
#include "proc/keeper_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/buf.h"
#include "base/must.h"

/* Of a batch; the OpenTelemetry default of as many spans, and what collectors take in any case. */
#define BATCH_SPANS_MAX 512
#define BATCH_BYTES_MAX (1024 * 1024)
/* A collector's answer says little. */
#define ANSWER_BYTES_MAX 16384
static const long TOTAL_MS = 10000;
static const long CONNECT_MS = 5000;
/* The rings are looked at so often: one of 4,096 takes 40,000 requests a second of its worker. */
static const uint64_t LOOK_MS = 100;
/* A few spans wait so long for others, so that few requests carry many. */
static const uint64_t GATHER_MS = 1000;
/* A collector that has not answered for so long is in trouble. */
static const uint64_t STALL_MS = 1000;
/* After a failure: 1 s, 2 s, … and what Retry-After says, if it is not more than this. */
static const uint64_t RETRY_MS = 1000;
static const uint64_t RETRY_MS_MAX = 30000;
static const uint64_t RETRY_AFTER_MS_MAX = 300000;
static const uint64_t FINISH_MS = 2000;

/* What the collector did with the last batch. Each change is told once. */
enum mood { TAKES = 0, TAKES_SOME, TAKES_NONE };

struct exporter {
    const struct keeper_config *c; /* lent */
    struct telemetry *t;           /* lent */
    struct keeper_curl curl;
    uv_timer_t look;            /* when to look at the rings, or to try again */
    uv_timer_t last;            /* the end of exporter_finish */
    bool mine;                  /* the rings are read here: t->exporter is held */
    char *shown;                /* owned: the endpoint without user and password */
    struct curl_slist *headers; /* owned */
    CURL *easy;                 /* owned; NULL: nothing is in the air */
    struct buf batch;           /* .n 0: none is made */
    unsigned n_spans;           /* in it */
    uint64_t *upto;             /* owned; by slot: where its ring goes on behind the batch */
    unsigned next_slot;         /* where the next batch begins to look: each has its turn */
    unsigned failures;          /* in a row */
    uint64_t not_before_ms;     /* loop time of the next try */
    uint64_t sent_ms;           /* loop time of the last one; 0: none yet */
    enum mood mood;
    uint64_t dropped; /* since the mood is not TAKES */
    bool finishing, finished;
    void (*on_finished)(void *arg);
    void *arg;
    size_t answer_n;
    char trouble[CURL_ERROR_SIZE];
    char answer[ANSWER_BYTES_MAX];
};

static void work(struct exporter *x);

/* ---- the rings ---- */

static uint64_t head_of(const struct telemetry_worker *w)
{
    return atomic_load_explicit(&w->span_head, memory_order_acquire);
}

static uint64_t tail_of(const struct telemetry_worker *w)
{
    return atomic_load_explicit(&w->span_tail, memory_order_relaxed);
}

/* The worker may write over what is before `to`. */
static void set_tail(struct telemetry_worker *w, uint64_t to)
{
    if (to > tail_of(w))
        atomic_store_explicit(&w->span_tail, to, memory_order_release);
}

static void count_dropped(struct exporter *x, uint64_t n)
{
    x->dropped += n;
    atomic_fetch_add_explicit(&x->t->otlp_dropped, n, memory_order_relaxed);
}

/* The batch is done with: what it was made of may be written over. */
static void settle(struct exporter *x)
{
    for (unsigned i = 0; i < x->t->n_slots; i++)
        set_tail(telemetry_slot(x->t, i), x->upto[i]);
    x->batch.n = 0;
    x->n_spans = 0;
}

/* Spans that wait in the fullest ring, batch included. */
static uint64_t fullest(const struct exporter *x)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < x->t->n_slots; i++) {
        const struct telemetry_worker *w = telemetry_slot(x->t, i);
        uint64_t n = head_of(w) - tail_of(w);
        most = n > most ? n : most;
    }
    return most;
}

/* In all rings. */
static uint64_t waiting(const struct exporter *x)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < x->t->n_slots; i++)
        n += head_of(telemetry_slot(x->t, i)) - tail_of(telemetry_slot(x->t, i));
    return n;
}

static bool is_in_trouble(const struct exporter *x)
{
    return x->failures || (x->easy && uv_now(x->curl.loop) - x->sent_ms > STALL_MS);
}

/* While nothing can be sent, the oldest of rings that are nearly full are dropped, down to half:
 * first those of a batch that waits for its next try. */
static void make_room(struct exporter *x)
{
    uint64_t max = x->t->spans_max;
    if (!is_in_trouble(x) || fullest(x) <= max / 4 * 3)
        return;
    if (x->batch.n && !x->easy) {
        count_dropped(x, x->n_spans);
        settle(x);
    }
    for (unsigned i = 0; i < x->t->n_slots; i++) {
        struct telemetry_worker *w = telemetry_slot(x->t, i);
        uint64_t head = head_of(w), tail = tail_of(w), to = head - max / 2;
        if (head - tail <= max / 4 * 3)
            continue;
        uint64_t kept = x->batch.n && x->upto[i] > tail ? x->upto[i] : tail; /* in the air */
        count_dropped(x, to > kept ? to - kept : 0);
        set_tail(w, to);
    }
}

/* Spans of one ring into the batch. False: the batch is full. */
static bool take_from(struct exporter *x, unsigned slot)
{
    struct telemetry_worker *w = telemetry_slot(x->t, slot);
    const struct flight *ring = telemetry_spans(x->t, slot);
    struct flight f;
    uint64_t head = head_of(w), max = x->t->spans_max;
    /* More than a ring holds is nonsense of a worker: it is not looked at one by one. */
    if (head > x->upto[slot] && head - x->upto[slot] > max) {
        count_dropped(x, head - max - x->upto[slot]);
        x->upto[slot] = head - max;
    }
    for (; x->upto[slot] < head; x->upto[slot]++) {
        if (x->n_spans == BATCH_SPANS_MAX || x->batch.n + SPAN_BYTES_MAX + 64 > BATCH_BYTES_MAX)
            return false;
        bool whole = flight_copy_kept(&f, &ring[x->upto[slot] % x->t->spans_max]);
        if (whole && spans_add(&x->batch, x->t, &f) == 0)
            x->n_spans++;
        else
            count_dropped(x, 1);
    }
    return true;
}

/* A batch of what waits in the rings; batch.n stays 0 where nothing does. */
static void make_batch(struct exporter *x)
{
    unsigned n = x->t->n_slots;
    for (unsigned i = 0; i < n; i++)
        x->upto[i] = tail_of(telemetry_slot(x->t, i));
    if (!waiting(x))
        return;
    if (spans_begin(&x->batch, x->c->otlp.service)) {
        x->batch.n = 0;
        return;
    }
    bool room = true;
    for (unsigned i = 0; i < n && room; i++)
        room = take_from(x, (x->next_slot + i) % n);
    x->next_slot = (x->next_slot + 1) % n;
    if (spans_end(&x->batch) || !x->n_spans)
        settle(x);
}

/* ---- what is told ---- */

static void tell(struct exporter *x, enum mood mood, const char *why)
{
    struct err e;
    enum mood before = x->mood;
    x->mood = mood;
    if (mood == before)
        return;
    switch (mood) {
    case TAKES:
        err_set(&e, "traces: the collector %s takes spans again; %llu were dropped", x->shown,
                (unsigned long long)x->dropped);
        x->c->log(LOG_INFO, e.text);
        x->dropped = 0;
        return;
    case TAKES_SOME:
        err_set(&e, "traces: the collector %s rejects some of the spans: %s", x->shown, why);
        break;
    case TAKES_NONE:
        err_set(&e,
                "traces: the collector %s does not take spans: %s; see otlp-endpoint and "
                "otlp-header. Requests go on; spans wait, and the oldest are dropped",
                x->shown, why);
        break;
    }
    x->c->log(LOG_WARNING, e.text);
}

/* ---- an answer ---- */

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct exporter *x = arg;
    n *= size;
    size_t room = sizeof x->answer - x->answer_n, kept = n < room ? n : room;
    memcpy(x->answer + x->answer_n, p, kept);
    x->answer_n += kept;
    return n; /* the rest is not looked at */
}

/* Within a quarter of it, so that servers do not come back together. */
static uint64_t with_jitter(uint64_t ms)
{
    uint32_t r = 0;
    if (getrandom(&r, sizeof r, GRND_NONBLOCK) != (ssize_t)sizeof r)
        return ms;
    return ms - ms / 4 + (ms / 2) * r / UINT32_MAX;
}

/* The batch stays, and is sent again later. */
static void again(struct exporter *x, uint64_t retry_after_ms, const char *why)
{
    uint64_t ms = RETRY_MS;
    for (unsigned i = 0; i < x->failures && ms < RETRY_MS_MAX; i++)
        ms *= 2;
    ms = with_jitter(ms < RETRY_MS_MAX ? ms : RETRY_MS_MAX);
    if (retry_after_ms > RETRY_AFTER_MS_MAX)
        retry_after_ms = RETRY_AFTER_MS_MAX;
    ms = ms > retry_after_ms ? ms : retry_after_ms;
    x->failures++;
    x->not_before_ms = uv_now(x->curl.loop) + ms;
    tell(x, TAKES_NONE, why);
}

/* OTLP/HTTP, "Failures": these are worth another try; others would be refused again. */
static bool is_passing(long status)
{
    return status == 429 || status == 502 || status == 503 || status == 504;
}

static void took(struct exporter *x)
{
    char why[256], text[400];
    uint64_t rejected = spans_rejected(slice_of(x->answer, x->answer_n), why, sizeof why);
    rejected = rejected < x->n_spans ? rejected : x->n_spans;
    atomic_fetch_add_explicit(&x->t->otlp_sent, x->n_spans - rejected, memory_order_relaxed);
    count_dropped(x, rejected);
    snprintf(text, sizeof text, "%llu of %u: %s", (unsigned long long)rejected, x->n_spans,
             *why ? why : "it does not say why");
    x->failures = 0;
    x->not_before_ms = 0;
    settle(x);
    tell(x, rejected ? TAKES_SOME : TAKES, text);
}

static void on_done(void *whose, CURLcode rc)
{
    struct exporter *x = whose;
    long status = 0;
    curl_off_t retry_after_s = 0;
    char why[CURL_ERROR_SIZE + 64];
    if (!rc) {
        curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
    }
    keeper_curl_drop(&x->curl, &x->easy);
    if (!rc && status >= 200 && status < 300) {
        took(x);
    } else {
        atomic_fetch_add_explicit(&x->t->otlp_failed, 1, memory_order_relaxed);
        if (rc)
            snprintf(why, sizeof why, "%s", *x->trouble ? x->trouble : curl_easy_strerror(rc));
        else
            snprintf(why, sizeof why, "it answers with %ld", status);
        if (rc || is_passing(status)) {
            again(x, retry_after_s > 0 ? (uint64_t)retry_after_s * 1000 : 0, why);
        } else {
            count_dropped(x, x->n_spans);
            settle(x);
            tell(x, TAKES_NONE, why);
        }
        if (x->finishing) { /* what waits in the rings is for the next keeper, if there is one */
            x->finished = true;
            x->on_finished(x->arg);
            return;
        }
    }
    work(x);
}

/* ---- a request ---- */

static void send_batch(struct exporter *x)
{
    must(!x->easy && x->batch.n);
    x->sent_ms = uv_now(x->curl.loop);
    x->answer_n = 0;
    x->trouble[0] = '\0';
    CURL *easy = x->easy = keeper_curl_easy(x->c->otlp.endpoint, x, x->c, x->trouble);
    if (!easy) {
        again(x, 0, "out of memory");
        return;
    }
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, TOTAL_MS);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, x->batch.p); /* lent until it is done */
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)x->batch.n);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, x->headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, x);
    if (keeper_curl_add(&x->curl, easy)) {
        keeper_curl_drop(&x->curl, &x->easy);
        again(x, 0, "libcurl takes no more");
    }
}

/* ---- when ---- */

static void on_look(uv_timer_t *t)
{
    work(t->data);
}

static void look_later(struct exporter *x)
{
    (void)uv_timer_start(&x->look, on_look, LOOK_MS, 0);
}

/* Is it time for a batch of what waits? */
static bool is_due(const struct exporter *x)
{
    return x->finishing || !x->sent_ms || waiting(x) >= BATCH_SPANS_MAX ||
           uv_now(x->curl.loop) - x->sent_ms >= GATHER_MS;
}

/* Are the rings ours to read? */
static bool have_rings(struct exporter *x)
{
    bool died;
    if (!x->mine)
        x->mine = robust_try(&x->t->exporter, &died);
    return x->mine;
}

/* All that is to be done now. */
static void work(struct exporter *x)
{
    if (x->finished)
        return;
    if (have_rings(x)) {
        make_room(x);
        if (!x->batch.n && is_due(x))
            make_batch(x);
        if (x->batch.n && !x->easy && uv_now(x->curl.loop) >= x->not_before_ms)
            send_batch(x);
    }
    if (x->finishing && (!x->mine || !x->batch.n)) {
        x->finished = true;
        x->on_finished(x->arg);
        return;
    }
    look_later(x);
}

static void on_last(uv_timer_t *t)
{
    struct exporter *x = t->data;
    if (x->finished)
        return;
    x->finished = true;
    x->on_finished(x->arg);
}

/* ---- public ---- */

static int add_header(struct exporter *x, const char *line)
{
    struct curl_slist *more = curl_slist_append(x->headers, line);
    if (!more)
        return -1;
    x->headers = more;
    return 0;
}

/* "NAME=VALUE" as a field. What would be another line, or none, is left out, and told. */
static int add_own_header(struct exporter *x, const char *setting)
{
    const char *equals = strchr(setting, '=');
    if (!equals || equals == setting || strpbrk(setting, "\r\n")) {
        x->c->log(LOG_ERROR, "traces: otlp-header wants NAME=VALUE; one is left out");
        return 0;
    }
    size_t n = strlen(setting) + 2;
    char *line = malloc(n);
    if (!line)
        return -1;
    snprintf(line, n, "%.*s: %s", (int)(equals - setting), setting, equals + 1);
    int rc = add_header(x, line);
    free(line);
    return rc;
}

static int add_headers(struct exporter *x)
{
    const struct conf_list *own = x->c->otlp.headers;
    if (add_header(x, "Content-Type: application/json") || add_header(x, "Expect:"))
        return -1;
    for (size_t i = 0; own && i < own->n; i++)
        if (add_own_header(x, own->items[i]))
            return -1;
    return 0;
}

/* A URL as it may stand in a log. */
static char *without_secrets(const char *url)
{
    const char *scheme = strstr(url, "://");
    const char *host = scheme ? scheme + 3 : url;
    size_t n = strcspn(host, "/?#");
    const char *at = memrchr(host, '@', n);
    size_t room = strlen(url) + 1;
    char *out = malloc(room);
    if (out)
        snprintf(out, room, "%.*s%s", (int)(host - url), url, at ? at + 1 : host);
    return out;
}

static void drop_all(struct exporter **xp)
{
    struct exporter *x = *xp;
    *xp = NULL;
    curl_slist_free_all(x->headers);
    free(x->shown);
    free(x->upto);
    buf_fini(&x->batch);
    free(x);
}

int exporter_new(struct exporter **out, uv_loop_t *loop, const struct keeper_config *c,
                 void (*finished)(void *arg), void *arg, struct err *e)
{
    *out = NULL;
    const struct keeper_otlp *o = &c->otlp;
    if (!o->endpoint || !*o->endpoint || !o->telemetry || !o->telemetry->spans_max)
        return 0;
    struct exporter *x = calloc(1, sizeof *x);
    if (!x)
        return err_set(e, "the keeper has no memory");
    x->c = c;
    x->t = o->telemetry;
    x->on_finished = finished;
    x->arg = arg;
    x->batch.max = BATCH_BYTES_MAX;
    x->upto = calloc(x->t->n_slots, sizeof *x->upto);
    x->shown = without_secrets(o->endpoint);
    int rc = keeper_curl_init(&x->curl, loop, on_done, e);
    if (!rc && (!x->upto || !x->shown || add_headers(x))) {
        keeper_curl_stop(&x->curl);
        keeper_curl_fini(&x->curl);
        rc = err_set(e, "the keeper has no memory");
    }
    if (rc) {
        drop_all(&x);
        return rc;
    }
    (void)uv_timer_init(loop, &x->look);
    (void)uv_timer_init(loop, &x->last);
    x->look.data = x->last.data = x;
    (void)uv_timer_start(&x->look, on_look, 0, 0);
    *out = x;
    return 0;
}

void exporter_finish(struct exporter *x)
{
    if (x->finishing)
        return;
    x->finishing = true;
    x->not_before_ms = 0;
    (void)uv_timer_start(&x->last, on_last, FINISH_MS, 0);
    work(x);
}

void exporter_stop(struct exporter *x)
{
    x->finished = true;
    keeper_curl_drop(&x->curl, &x->easy);
    keeper_curl_stop(&x->curl);
    if (x->mine)
        robust_unlock(&x->t->exporter);
    x->mine = false;
}

void exporter_free(struct exporter **xp)
{
    if (!*xp)
        return;
    keeper_curl_fini(&(*xp)->curl);
    drop_all(xp);
}
